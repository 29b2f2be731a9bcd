"""Scores of rows by torch, and their measures."""

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from din_converter.model import ClickModel
from din_converter.rows import Rows
from din_converter.unify import join, widen
from din_infer import metrics
from din_infer.jobs.pipeline import ahead
from din_infer.jobs.readers import find_columns, open_reader
from din_infer.jobs.sources import find_table
from din_infer.spec import Calibration, FeatureSpec

__all__ = [
    "EVALUATION_ROWS",
    "Scored",
    "evaluate",
    "measure",
    "read_table",
    "score",
    "score_rows",
    "tensors",
]

# What the layers make of more rows does not stay in the caches: 20,000 rows with up to
# 50 behaviors took 0.50 s of one core by 512; by 256 0.51, by 1,024 0.54, by 4,096 1.1.
EVALUATION_ROWS = 512
READ_ROWS = 4096


def read_table(path: str | Path, spec: FeatureSpec) -> pa.Table:
    """Read the columns that training needs from a file, as `widen` has them.

    Raises
    ------
    InputError
        If the file cannot be read, or lacks a column.
    """
    roles = [r for r in (spec.label, spec.group, spec.time, spec.weight) if r]
    with closing(open_reader(find_table(path), spec, also=roles)) as reader:
        wanted = [*spec.columns, *roles]
        names = find_columns(reader, wanted, spec.optional_columns)
        parts = [widen(reader.schema.empty_table().select(names))]
        parts += map(widen, reader.prepared(names, READ_ROWS))
    return join([(str(path), part) for part in parts], {}).combine_chunks()


def tensors(
    inputs: Mapping[str, NDArray[Any]], device: torch.device | None = None
) -> dict[str, Tensor]:
    """Take encoded inputs as tensors, which share memory with them on the CPU."""
    return {k: torch.from_numpy(v).to(device) for k, v in inputs.items()}


def evaluate(
    model: ClickModel,
    table: pa.Table | Rows,
    batch_size: int = EVALUATION_ROWS,
    *,
    calibrated: bool = True,
) -> NDArray[np.float64]:
    """Score every row with torch in evaluation mode, float64 [rows].

    Calibration is applied, as `Predictor.score` applies it, unless `calibrated` is
    False: training does not see it, and judges by it only on rows of their own.
    """
    if isinstance(table, Rows):
        return score_rows(model, table, batch_size, calibrated=calibrated).scores
    made = [np.empty(0)]
    for start in range(0, table.num_rows, batch_size):
        part = table.slice(start, batch_size)
        made += (
            score(model, tensors(encoded.inputs), calibrated=calibrated)
            for encoded in model.spec.encoder.encode_pieces(part)
        )
    return np.concatenate(made)


def score(
    model: ClickModel, inputs: Mapping[str, Tensor], *, calibrated: bool
) -> NDArray[np.float64]:
    """Score one batch; leaves the model in evaluation mode."""
    model.eval()
    calibration = model.spec.calibration if calibrated else Calibration()
    with torch.inference_mode():
        z = model(inputs).double() * calibration.scale + calibration.offset
        linked = torch.sigmoid(z) if model.spec.model.link == "sigmoid" else z
    scores: NDArray[np.float64] = linked.cpu().numpy()
    return scores


@dataclass(frozen=True)
class Scored:
    """One of each per row; groups and weights where the spec names them."""

    labels: NDArray[np.float32]
    scores: NDArray[np.float64]
    groups: NDArray[np.int64] | None
    weights: NDArray[np.float32] | None


def score_rows(
    model: ClickModel,
    rows: Rows,
    batch_size: int = EVALUATION_ROWS,
    *,
    calibrated: bool,
) -> Scored:
    """Score all rows, in order."""
    device = model.tower.output.weight.device
    labels, scores = [np.empty(0, np.float32)], [np.empty(0)]
    groups, weights = [], []
    with closing(ahead(rows.batches(batch_size))) as batches:  # type: ignore[type-var]
        for batch in batches:
            labels.append(batch.labels)
            inputs = tensors(batch.inputs, device)
            scores.append(score(model, inputs, calibrated=calibrated))
            if batch.groups is not None:
                groups.append(batch.groups)
            if batch.weights is not None:
                weights.append(batch.weights)
    return Scored(
        np.concatenate(labels),
        np.concatenate(scores),
        np.concatenate(groups) if groups else None,
        np.concatenate(weights) if weights else None,
    )


def measure(
    model: ClickModel, rows: Rows | None, *, calibrated: bool = False
) -> dict[str, Any]:
    """Judge rows, as an `Epoch` has it, by their weights; NaN without rows."""
    if rows is None:
        nan = math.nan
        return {"log_loss": nan, "auc": nan, "calibration": nan, "gauc": None}
    found = score_rows(model, rows, calibrated=calibrated)
    labels, scores, weights = found.labels, found.scores, found.weights
    mass = 1.0 if weights is None else weights.astype(np.float64)
    clicked = float((labels * mass).sum())
    return {
        "log_loss": metrics.log_loss(labels, scores, weights=weights),
        "auc": metrics.auc(labels, scores, weights=weights),
        "calibration": float((scores * mass).sum()) / clicked if clicked else math.nan,
        "gauc": None if found.groups is None else _gauc(found, found.groups),
    }


def _gauc(found: Scored, groups: NDArray[np.int64]) -> float:
    """Measure GAUC over the rows that have a group: a null is nobody."""
    known = groups != 0  # what `hash_keys` makes of null
    weights = None if found.weights is None else found.weights[known]
    labels, scores = found.labels[known], found.scores[known]
    return metrics.gauc(labels, scores, groups[known], weights=weights)

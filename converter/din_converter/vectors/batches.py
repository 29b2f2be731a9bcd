"""One batch of raw rows: its two sides, encoded and scored.

Letters: B requests, N candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.encode import Inputs
from din_infer.predictor import Predictor
from din_infer.spec import FeatureSpec

__all__ = ["Row", "Vector", "score_batch", "sides_of"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Vector:
    """One batch: raw rows of both sides, the graph's inputs, logits and scores."""

    name: str
    requests: list[Row]
    candidates: list[Row]
    request_of_candidate: list[int]
    inputs: Inputs
    logits: NDArray[np.float32]
    scores: NDArray[np.float32]


def sides_of(spec: FeatureSpec, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Cut rows of a table into those of requests and of candidates."""
    encoder = spec.encoder
    users = {*encoder.user_columns, *encoder.optional_user_columns}
    items = {*encoder.candidate_columns, *encoder.optional_candidate_columns}
    return (
        [{n: v for n, v in row.items() if n in users} for row in rows],
        [{n: v for n, v in row.items() if n in items} for row in rows],
    )


def score_batch(
    predictor: Predictor,
    name: str,
    requests: list[Row],
    candidates: list[Row],
    owners: list[int],
) -> Vector:
    """Encode and score a batch; InputError where the spec refuses a value."""
    spec = predictor.spec
    users = _batch(spec, requests, spec.encoder.user_columns)
    items = _batch(spec, candidates, spec.encoder.candidate_columns)
    whose = np.array(owners, np.int64)
    made = spec.encoder.encode_requests(users, items, whose)
    logits, scores = (
        predictor.score_requests(users, items, whose, raw=raw) for raw in (True, False)
    )
    return Vector(name, requests, candidates, owners, made.inputs, logits, scores)


def _batch(spec: FeatureSpec, rows: list[Row], names: Sequence[str]) -> object:
    """Return rows as a batch in which NaN is a number: in Python's lists it is null.

    That differs in what is hashed alone. No column holds NaN beside a null value, which
    only Arrow tells apart; null lists are given as empty ones.
    """
    hashed = {
        c.name
        for c in spec.reads
        if c.dtype == "float" and c.encoder is not None and c.encoder.type == "hash"
    }
    if not rows:
        return {name: [] for name in names}
    present = [name for name in rows[0] if all(name in row for row in rows)]
    if not hashed & set(present):
        return rows
    batch: dict[str, Any] = {name: [row[name] for row in rows] for name in present}
    for name in hashed & set(present):
        values = batch[name]
        if any(isinstance(v, str) for v in values):
            continue  # lists in text
        if any(isinstance(v, list) for v in values):
            lists = [v or [] for v in values]
            flat = [x for v in lists for x in v]
            if None not in flat:
                offsets = np.cumsum([0, *map(len, lists)])
                batch[name] = (np.array(flat, np.float64), offsets)
        elif None not in values:
            batch[name] = np.array(values, np.float64)
    return batch

"""model.pt -> model.onnx: build, write beside, prove, then rename into place."""

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from din_converter.checkpoint import load
from din_converter.graph import build_graph
from din_converter.model import ClickModel
from din_converter.rounding import Rounding, measure_rounding, round_tables
from din_converter.verify import TOLERANCE, Case, check_parity, golden_rows
from din_infer import errors
from din_infer.errors import ConversionError
from din_infer.predictor import Predictor

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Report", "convert"]

FORMAT = 1
EXTERNAL_ABOVE_BYTES = 1 << 20
SMALL_TENSOR_BYTES = 1 << 10
ALIGNMENT_BYTES = 4096


@dataclass(frozen=True)
class Report:
    """What a conversion wrote and what it measured; `str()` of it is a table."""

    path: Path
    data_path: Path | None
    model_id: str
    num_weights: int
    weight_bytes: int
    cases: tuple[Case, ...]
    rounding: Rounding | None = None

    @property
    def ways(self) -> tuple[str, ...]:
        """How the file was run: by "native" ops if there are any, "function bodies"."""
        return tuple(dict.fromkeys(c.way for c in self.cases))

    @property
    def logit_difference(self) -> float:
        """Largest |ONNX Runtime - torch float64| over all logits compared."""
        return max(c.logit_difference for c in self.cases)

    @property
    def score_difference(self) -> float:
        """Largest |ONNX Runtime - torch float64| over all scores compared."""
        return max(c.score_difference for c in self.cases)

    def __str__(self) -> str:
        batches = [c for c in self.cases if c.way == self.ways[0]]
        rows = sum(c.rows for c in batches)
        files = str(self.path) + (f" + {self.data_path.name}" if self.data_path else "")
        lines = [
            f"wrote     {files}",
            f"model id  {self.model_id}",
            f"weights   {self.num_weights:,} values, {self.weight_bytes / 1e6:.1f} MB",
            f"parity    {rows} rows in {len(batches)} batches, torch float64 against"
            f" ONNX Runtime; allowed {TOLERANCE:g}",
        ]
        for way in self.ways:
            cases = [c for c in self.cases if c.way == way]
            worst = max(cases, key=lambda c: c.logit_difference)
            lines.append(
                f"          {way}: logits within {worst.logit_difference:.1e}, scores"
                f" within {max(c.score_difference for c in cases):.1e};"
                f" worst batch {worst.name}"
            )
        if self.rounding is not None:
            first, second = str(self.rounding).splitlines()
            lines += [f"tables    {first}", f"          {second}"]
        return "\n".join(lines)


def convert(
    model: ClickModel | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    explain: bool = False,
    embedding_dtype: str = "fp32",
    valid: "pa.Table | str | os.PathLike[str] | None" = None,
) -> Report:
    """Write a trained model as ONNX and prove that it computes the same.

    Parameters
    ----------
    model : DIN, BaseModel or path
        A model, or the ``model.pt`` that `save` wrote.
    path : path
        The ``.onnx`` to write. Weights above 1 MiB in all go to a data file beside it
        whose name carries their digest.
    explain : bool
        Add the outputs ``<sequence>.activation_weight`` [N, T].
    embedding_dtype : {"fp32", "fp16"}
        How tables are stored. fp16 takes half the file and half the memory; everything
        is computed in float32. The proof then holds against torch with rounded tables,
        and the report says what rounding changed.
    valid : pyarrow.Table or path of a Parquet file, optional
        Labeled rows on which to measure the AUC before and after rounding to fp16.
        Without it, rows and labels are generated.

    Returns
    -------
    Report

    Raises
    ------
    ModelError
        If `model` is a path and not such a checkpoint, or `valid` is given and the spec
        names no label.
    InputError
        If `valid` cannot be read, is empty or does not fit the spec.
    ConversionError
        If a weight is not finite or, for fp16, a table's value is beyond 65504; or ONNX
        Runtime and torch (float64) disagree on any edge batch: the message names the
        largest difference and where it was. Nothing is written then.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConversionError(
            errors.explain("a path that ends in .onnx", path.name, "out")
        )
    if not path.parent.is_dir():
        raise ConversionError(errors.explain("an existing folder", path.parent, "out"))
    if path.is_dir():
        raise ConversionError(
            errors.explain("a file, or nothing", "a folder", str(path))
        )
    if embedding_dtype not in ("fp32", "fp16"):
        got = repr(embedding_dtype)
        raise ConversionError(errors.explain("fp32 or fp16", got, "embedding_dtype"))
    if valid is not None and embedding_dtype == "fp32":
        rule = "no validation rows, since fp32 tables are not rounded"
        raise ConversionError(errors.explain(rule, "some", "valid"))
    if not isinstance(model, ClickModel):
        model = load(model)
    if explain and (model.spec.model.type != "din" or not model.spec.behavior):
        rule = "a DIN with behavior sequences to explain"
        got = f"model.type {model.spec.model.type!r}"
        raise ConversionError(errors.explain(rule, got, "explain"))
    exact = copy.deepcopy(model).double().eval().cpu()
    for name, tensor in exact.state_dict().items():
        if not torch.isfinite(tensor).all():
            rule = "finite weights"
            raise ConversionError(errors.explain(rule, "NaN or infinity", name))
    proto, weights = build_graph(
        exact, explain=explain, embedding_dtype=embedding_dtype
    )
    rounding = None
    if embedding_dtype == "fp16":
        rounded = round_tables(exact)
        rounding = measure_rounding(exact, rounded, valid)
        exact = rounded
    with _writing(path):
        return _write(exact, proto, weights, path, rounding)


def _write(
    exact: ClickModel,
    proto: onnx.ModelProto,
    weights: dict[str, NDArray[Any]],
    path: Path,
    rounding: Rounding | None,
) -> Report:
    """Write into a folder beside, prove it there, rename into place."""
    folder = Path(tempfile.mkdtemp(prefix=".din-convert-", dir=path.parent))
    try:
        data_name = _place_weights(proto, weights, path, folder)
        model_id = _model_id(proto, weights)
        _describe(proto, exact, model_id)
        draft = folder / path.name
        draft.write_bytes(proto.SerializeToString())
        report = Report(
            path=path,
            data_path=path.with_name(data_name) if data_name else None,
            model_id=model_id,
            num_weights=sum(w.size for w in weights.values()),
            weight_bytes=sum(w.nbytes for w in weights.values()),
            cases=tuple(check_parity(exact, draft)),
            rounding=rounding,
        )
        measured = {
            "tolerance": TOLERANCE,
            "ways": report.ways,
            "logit_difference": report.logit_difference,
            "score_difference": report.score_difference,
            "batches": [asdict(c) for c in report.cases],
        }
        if rounding is not None:
            measured["embedding_dtype"] = rounding.to_dict()
        _set_metadata(proto, {"din_infer.parity": json.dumps(measured)})
        draft.write_bytes(proto.SerializeToString())
        Predictor(
            draft, device="cpu"
        )  # loads it as users will: golden rows are checked
        # the data first: a graph always finds its weights
        for name in (*([data_name] if data_name else []), path.name):
            _sync(folder / name)
            (folder / name).replace(path.with_name(name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        rule = "a place where the model can be written"
        raise ConversionError(errors.explain(rule, error, str(path))) from None


def _place_weights(
    proto: onnx.ModelProto,
    weights: dict[str, NDArray[Any]],
    path: Path,
    folder: Path,
) -> str | None:
    """Fill the initializers, inline or in a data file; returns the file's name."""
    external = sum(w.nbytes for w in weights.values()) > EXTERNAL_ABOVE_BYTES
    outside: list[TensorProto] = []
    for tensor in proto.graph.initializer:
        array = weights[tensor.name]
        if external and array.nbytes >= SMALL_TENSOR_BYTES:
            outside.append(tensor)
        else:
            tensor.raw_data = array.tobytes()
    if not external:
        return None
    digest = hashlib.sha256()
    draft = folder / "weights"
    places = []
    with draft.open("wb") as file:
        for tensor in outside:
            gap = -file.tell() % ALIGNMENT_BYTES
            data = np.ascontiguousarray(weights[tensor.name]).data.cast("B")
            for block in (bytes(gap), data):
                file.write(block)
                digest.update(block)
            places.append((file.tell() - len(data), len(data)))
    name = f"{path.stem}-{digest.hexdigest()[:8]}.data"
    draft.rename(folder / name)
    for tensor, (offset, length) in zip(outside, places, strict=True):
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    return name


def _model_id(proto: onnx.ModelProto, weights: dict[str, NDArray[Any]]) -> str:
    """Digest of the graph, with its spec and calibration, and of all weights."""
    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).data.cast("B"))
    return digest.hexdigest()[:32]


def _describe(proto: onnx.ModelProto, exact: ClickModel, model_id: str) -> None:
    versions = {name: version(name) for name in ("din-infer", "torch", "onnx")}
    _set_metadata(
        proto,
        {
            "din_infer.format": str(FORMAT),
            "din_infer.spec": exact.spec.to_json(),
            "din_infer.model_id": model_id,
            "din_infer.golden": golden_rows(exact),
            "din_infer.versions": json.dumps(versions),
        },
    )


def _set_metadata(proto: onnx.ModelProto, values: dict[str, str]) -> None:
    for key, value in values.items():
        proto.metadata_props.add(key=key, value=value)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

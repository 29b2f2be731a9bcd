"""The files of test vectors, and how they write what JSON cannot hold.

JSON cannot hold some values, and JavaScript not all numbers exactly. So an integer of a
column is its decimal text; NaN and infinity are "NaN", "Infinity" and "-Infinity";
bytes that are no text are {"hex": ".."}, a UUID {"uuid": ".."}.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from din_converter.vectors.batches import Row, Vector
from din_converter.vectors.inputs import inputs_of_spec
from din_infer.predictor import Predictor
from din_infer.spec import FeatureSpec, ReadColumn
from din_infer.whole_file import write_whole

__all__ = ["columns_of", "decoded", "write_vectors", "written"]

FORMAT = 1


def write_vectors(vectors: Sequence[Vector], predictor: Predictor, path: Path) -> None:
    """Write the three files into a folder, which is made; raises OSError."""
    spec = predictor.spec
    head = {"format": FORMAT, "model_id": predictor.model_id, **inputs_of_spec(spec)}
    path.mkdir(exist_ok=True)
    write_whole(path / "spec.json", spec.to_json() + "\n")
    write_whole(path / "inputs.json", json.dumps(head, indent=1) + "\n")
    lines = [
        json.dumps(
            {
                "name": v.name,
                "requests": written(v.requests),
                "candidates": written(v.candidates),
                "request_of_candidate": v.request_of_candidate,
                "inputs": {
                    name: {"shape": list(a.shape), "data": a.ravel().tolist()}
                    for name, a in v.inputs.items()
                },
                "logits": v.logits.tolist(),
                "scores": v.scores.tolist(),
            }
        )
        for v in vectors
    ]
    write_whole(path / "vectors.jsonl", "\n".join(lines) + "\n")


def written(value: Any) -> Any:  # noqa: ANN401
    """Write raw rows as JSON holds them."""
    if isinstance(value, dict):
        return {name: written(v) for name, v in value.items()}
    if isinstance(value, list):
        return [written(v) for v in value]
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, UUID):
        return {"uuid": str(value)}
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        names = {math.inf: "Infinity", -math.inf: "-Infinity"}
        return names.get(value, "NaN")
    return value


def decoded(row: Mapping[str, Any], columns: Mapping[str, ReadColumn]) -> Row:
    """Read a row of `vectors.jsonl`: what was written, by the columns of its spec."""

    def read(value: Any, column: ReadColumn) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return [read(v, column) for v in value]
        if isinstance(value, dict):
            ((kind, text),) = value.items()
            return bytes.fromhex(text) if kind == "hex" else UUID(text)
        if not isinstance(value, str) or column.dtype == "string":
            return value
        try:
            return int(value)
        except ValueError:
            return float(value)

    return {
        name: value
        if isinstance(value, str) and columns[name].is_list  # a list in text
        else read(value, columns[name])
        for name, value in row.items()
    }


def columns_of(spec: FeatureSpec) -> dict[str, ReadColumn]:
    """Map the columns of a spec to the first of their readers."""
    return {column.name: column for column in reversed(spec.reads)}

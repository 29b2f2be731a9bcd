"""The frozen files, and what they give now; needs no torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer import Predictor
from din_infer.model_file import ModelFile
from din_infer.model_format import GOLDEN_KEY, SPEC_KEY

FOLDER = Path(__file__).parent
ABOUT = "expected-1.json"
MODELS = ("all-1", "fp16-1", "single-1", "base-1", "module-1")


def about() -> dict[str, Any]:
    """Return the raw rows, and what each model must give for them."""
    found: dict[str, Any] = json.loads((FOLDER / ABOUT).read_text(encoding="utf-8"))
    return found


def example_of(path: Path) -> dict[str, NDArray[Any]]:
    """Return the inputs of a torch module's golden example."""
    golden = json.loads(ModelFile.read(path).metadata[GOLDEN_KEY])
    return {name: np.asarray(v, np.int64) for name, v in golden["inputs"].items()}


def given_by(predictor: Predictor, path: Path, rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401
    """Return ids, scores and, where the model explains, weights; for JSON."""
    if SPEC_KEY not in ModelFile.read(path).metadata:
        scores = predictor.score_encoded(example_of(path))
        return {"scores": np.asarray(scores, np.float64).tolist()}
    ids = {n: v.tolist() for n, v in predictor.spec.encode(rows).items()}
    given: dict[str, Any] = {"inputs": ids}
    given["scores"] = np.asarray(predictor.score(rows), np.float64).tolist()
    if path.name.startswith("all"):
        found = predictor.explain(rows)
        given["weights"] = [
            {s.name: np.asarray(s.weights, np.float64).tolist() for s in row.sequences}
            for row in found
        ]
    return given


def scores_of_all(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what each model gives."""
    given = {}
    for name in MODELS:
        path = folder / f"{name}.onnx"
        given[name] = given_by(Predictor(path, device="cpu", threads=1), path, rows)
    return given

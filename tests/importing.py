"""What the tests of the importers share: batches in many forms, and scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from din_converter import convert
from din_converter.model import ClickModel
from din_infer.errors import ConversionError
from din_infer.predictor import Predictor

TOLERANCE = 1e-5

Arrays = dict[str, NDArray[Any]]


def load_io(path: Path) -> tuple[Arrays, NDArray[np.float64]]:
    """Return the library's inputs under their own names, and its scores."""
    with np.load(path) as stored:
        batch = {
            n.removeprefix("in_"): stored[n] for n in stored.files if n[:3] == "in_"
        }
        return batch, stored["expected"].reshape(-1).astype(np.float64)


def left_padded(batch: Arrays) -> Arrays:
    """Move the padding, id 0, of every matrix to the left."""
    out = dict(batch)
    for name, matrix in batch.items():
        if matrix.ndim == 2 and matrix.dtype.kind == "i":
            order = np.argsort(matrix != 0, axis=1, kind="stable")
            out[name] = np.take_along_axis(matrix, order, axis=1)
    return out


def ragged(batch: Arrays) -> dict[str, Any]:
    """Cut the padding, id 0, off every matrix of ids."""
    return {
        name: [row[row != 0].tolist() for row in matrix]
        if matrix.ndim == 2 and matrix.dtype.kind == "i"
        else matrix
        for name, matrix in batch.items()
    }


def scores_of(model: ClickModel, batch: object) -> NDArray[np.float64]:
    """Score in torch, in float64."""
    made = model.spec.encode(batch)
    inputs = {name: torch.from_numpy(array) for name, array in made.items()}
    with torch.inference_mode():
        logits = model.double().eval()(inputs)
    link = torch.sigmoid if model.spec.model.link == "sigmoid" else torch.clone
    result: NDArray[np.float64] = link(logits).numpy()
    return result


def check(
    model: ClickModel,
    batches: dict[str, Any],
    expected: NDArray[np.float64],
    folder: Path,
) -> None:
    """Compare torch, and a converted model with and without the fused attention."""
    assert expected.std() > 0.01
    close = {"rtol": 0, "atol": TOLERANCE}
    convert(model, folder / "m.onnx")
    predictors = [
        Predictor(folder / "m.onnx", device="cpu", threads=1, fused=fused)
        for fused in (True, False)
    ]
    for name, batch in batches.items():
        np.testing.assert_allclose(
            scores_of(model, batch), expected, err_msg=name, **close
        )
        for predictor in predictors:
            scores = predictor.score(batch)
            assert scores.std() > 0.01
            np.testing.assert_allclose(scores, expected, err_msg=name, **close)


def message_of(read: Any, *args: Any, **more: Any) -> str:  # noqa: ANN401
    """Return the message of the ConversionError that a call must raise."""
    with pytest.raises(ConversionError) as caught:
        read(*args, **more)
    return str(caught.value)

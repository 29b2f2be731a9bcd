"""Save a model for MLflow: a pyfunc with a signature, loaded without any pickle.

The folder that MLflow keeps has the ``.onnx`` and its ``.data`` file; what loads it
needs ONNX Runtime, and neither torch nor onnx. `docs/engines.md` says how to run it.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Schema, TensorSpec
from numpy.typing import NDArray

from din_infer.errors import ModelError
from din_infer.local_path import local_path
from din_infer.model_file import ModelFile
from din_infer.model_format import GOLDEN_KEY, MODEL_ID_KEY
from din_infer.predictor import Predictor
from din_infer.spec import FeatureSpec
from din_infer.version import __version__
from din_infer.whole_file import link_or_copy

__all__ = ["log_model", "save_model", "signature"]

# Of a model that was saved before `signature` left the type of lists open.
REWRITES = (
    "{}: the saved signature declares the type of lists; MLflow then rewrites nulls in"
    " lists before the model sees them, and scores may be wrong. Save the model again"
    " by din_infer.jobs.mlflow.save_model."
)
TYPES = {"string": DataType.string, "float": DataType.double}


def signature(spec: FeatureSpec) -> ModelSignature:
    """Say the columns of a spec in MLflow's types, and that a score comes out.

    Lists and whole numbers are of any type, and so not required: MLflow passes on what
    it is given. Of a declared type it would rewrite nulls in lists, and cut fractions
    off numbers in JSON. A table without such a column, or with other values, is refused
    by the model.

    Parameters
    ----------
    spec : FeatureSpec

    Returns
    -------
    mlflow.models.ModelSignature
        Columns in the order of `spec.columns`, then the optional ones.
    """
    columns: dict[str, ColSpec] = {}
    for c in sorted(spec.reads, key=lambda c: c.is_length):
        kind = AnyType() if c.is_list else TYPES.get(c.dtype, AnyType())
        required = kind != AnyType() and c.name not in spec.optional_columns
        columns.setdefault(c.name, ColSpec(kind, c.name, required=required))
    names = (*spec.columns, *spec.optional_columns)
    inputs = Schema([columns[name] for name in names])
    scores = TensorSpec(np.dtype(np.float32), (-1,), "score")
    return ModelSignature(inputs=inputs, outputs=Schema([scores]))


def save_model(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Save a model as an MLflow pyfunc in a folder.

    Parameters
    ----------
    path : path
        The folder to make.
    model : path
        The ``.onnx`` that din-convert wrote; its data file lies beside it. It is loaded
        here once, so that golden rows are checked.
    device, threads
        What the loaded model will use, as `Predictor` takes them; they can be changed
        by ``load_model(..., model_config={"threads": 4})``.
    **options
        More for ``mlflow.pyfunc.save_model``; `pip_requirements` replaces ours.

    Raises
    ------
    ModelError
        If it is no model, or has no feature spec.
    InputError
        If `path` is a URL.
    """
    folder = local_path(path, "path")
    with _prepared(model, device, threads, options) as given:
        mlflow.pyfunc.save_model(os.fspath(folder), **given)


def log_model(
    model: str | os.PathLike[str],
    *,
    name: str = "model",
    device: str = "cpu",
    threads: int | None = None,
    **options: Any,  # noqa: ANN401
) -> ModelInfo:
    """Log a model to the current run, as `save_model` saves it.

    Parameters
    ----------
    model, device, threads
        As `save_model` takes them.
    name : str
        What MLflow calls it.
    **options
        More for ``mlflow.pyfunc.log_model``, as `registered_model_name`.

    Returns
    -------
    mlflow.models.model.ModelInfo

    Raises
    ------
    ModelError
        If it is no model, or has no feature spec.
    """
    with _prepared(model, device, threads, options) as given:
        made: ModelInfo = mlflow.pyfunc.log_model(name=name, **given)
    return made


@contextmanager
def _prepared(
    model: str | os.PathLike[str],
    device: str,
    threads: int | None,
    options: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Check a model, and make the arguments that MLflow saves it by."""
    known = ModelFile.read(model)
    path = local_path(model, "model").absolute()
    Predictor(path, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "din")
        folder.mkdir()
        for name, source in {path.name: path, **known.data}.items():
            link_or_copy(source, folder / name)
        given = {
            "loader_module": __name__,
            "data_path": os.fspath(folder),
            "signature": signature(known.spec),
            "model_config": {"device": device, "threads": threads},
            "pip_requirements": [
                f"din-infer[cpu,mlflow]=={__version__}",
                f"mlflow-skinny=={version('mlflow-skinny')}",
            ],
            "metadata": {MODEL_ID_KEY: known.model_id},
        }
        example = _example(known)
        shown = {} if example is None else {"input_example": example}
        yield {**given, **shown, **options}


def _example(model: ModelFile) -> pd.DataFrame | None:
    """Take a golden row without nulls as MLflow's example; None where there is none."""
    golden = json.loads(model.metadata.get(GOLDEN_KEY, "{}"))
    for row in golden.get("rows", []):
        values = [v for c in row.values() for v in (c if isinstance(c, list) else [c])]
        lists = [c for c in row.values() if isinstance(c, list)]
        if None not in values and all(lists):
            return pd.DataFrame([row])
    return None


def _load_pyfunc(
    data_path: str, model_config: Mapping[str, Any] | None = None
) -> "_Scores":
    """Load what `save_model` saved; MLflow calls it by this name."""
    found = sorted(Path(data_path).glob("*.onnx"))
    if len(found) != 1:
        raise ModelError("one .onnx in the saved model", len(found), data_path)
    predictor = Predictor(found[0], **(model_config or {}))
    saved = next(p for p in Path(data_path).parents if (p / "MLmodel").is_file())
    given = Model.load(saved).get_input_schema()
    kinds = given.input_types() if given else []
    if any(isinstance(kind, Array) for kind in kinds):
        warnings.warn(REWRITES.format(saved), stacklevel=2)
    return _Scores(predictor)


class _Scores:
    """What MLflow keeps of a loaded model."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: pd.DataFrame) -> NDArray[np.float32]:
        """Score the rows of a table."""
        return self.predictor.score(model_input)

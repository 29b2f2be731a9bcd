"""What the workers of every engine do: open the model that is meant, name bad rows."""

import logging
import os
from collections.abc import Sequence

import pyarrow as pa

from din_infer.errors import InputError, ModelError
from din_infer.jobs.batches import BatchScorer
from din_infer.local_path import local_path
from din_infer.predictor import Predictor

__all__ = ["open_model", "score_batch"]

_LOG = logging.getLogger(__name__)
# How much of a bad row's kept values an error shows.
MOST_VALUES, MOST_CHARACTERS = 4, 60


def open_model(
    path: str | os.PathLike[str],
    *,
    device: str,
    threads: int,
    model_id: str | None = None,
) -> Predictor:
    """Make this worker's Predictor.

    Parameters
    ----------
    path : path
        Of the ``.onnx``, as this machine sees it.
    device, threads
        As `Predictor` takes them.
    model_id : str, optional
        The model that the driver planned with; another one is refused.

    Raises
    ------
    ModelError
        If this machine has no such file, or another model.
    DeviceError
        As `Predictor`.
    """
    if not local_path(path, "model", ModelError).is_file():
        fix = (
            "Every worker opens the model, and the .data file beside it, by this path:"
            " put both where all machines see them."
        )
        rule = "a model file on the worker's machine"
        raise ModelError(rule, "no such file", str(path), fix)
    predictor = Predictor(path, device=device, threads=threads)
    if model_id is not None and predictor.model_id != model_id:
        rule = f"the model {model_id} that the driver read"
        raise ModelError(rule, predictor.model_id, str(path))
    return predictor


def score_batch(
    scorer: BatchScorer, batch: pa.RecordBatch, keep: Sequence[str]
) -> pa.RecordBatch:
    """Score a batch; of rows that are bad but do not raise, the log tells.

    Raises
    ------
    InputError
        As `BatchScorer.score`; it names the bad row by its kept values too.
    """
    try:
        scored = scorer.score(batch)
    except InputError as error:
        raise _named(error, batch, keep) from None
    if scored.errors:
        first = scored.errors[0]
        _LOG.warning(
            "%d of %d rows are bad; row %d: %s",
            len(scored.errors),
            batch.num_rows,
            first.row,
            _named(first, batch, keep),
        )
    return scored.batch


def _named(error: InputError, batch: pa.RecordBatch, keep: Sequence[str]) -> InputError:
    """Say that a row is a batch's, and what its kept columns hold.

    A row's number within a batch of an engine is not enough to find it.
    """
    if error.row is None:
        return error
    names = [n for n in keep if n in batch.schema.names][:MOST_VALUES]
    values = [
        f"{n}={batch.column(n)[error.row].as_py()!r:.{MOST_CHARACTERS}}" for n in names
    ]
    return error.at(source=f"a batch ({', '.join(values)})" if values else "a batch")

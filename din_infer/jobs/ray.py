"""Score a Ray Dataset: each actor of a pool has one Predictor and scores batches.

`docs/engines.md` says how to run it.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from din_infer.errors import InputError, ModelError, check_count
from din_infer.jobs.batches import BatchScorer
from din_infer.jobs.forms import OnError, output_schema
from din_infer.jobs.ray_blocks import plain_columns, plain_schema
from din_infer.jobs.workers import open_model, score_batch
from din_infer.local_path import local_path
from din_infer.model_file import ModelFile

__all__ = ["Scorer", "score_dataset"]

WAITS = (
    "an actor takes {1:g} of the cluster's {0:g} CPUs, and reading needs one more:"
    " unless the cluster grows, the job will wait for ever. Give fewer num_cpus;"
    " threads may be more."
)


class Scorer:
    """The class that ``Dataset.map_batches`` makes once in every actor.

    Parameters
    ----------
    model : path
        Of the ``.onnx`` as every worker sees it; its ``.data`` file lies beside it.
    keep, explode
        As in `output_schema`.
    on_error : {"fail", "skip", "null"}
        As in `BatchScorer`; the log of the worker tells of rows left out or null.
    device : str
        "cpu" or "cuda"; "cuda" never scores on the CPU: it raises.
    threads : int, optional
        By default the actor's CPUs.
    model_id : str, optional
        The model that this must be.

    Raises
    ------
    ModelError
        If the worker has no such file, or another model.
    DeviceError
        If the device cannot be used.
    """

    def __init__(
        self,
        model: str,
        *,
        keep: Sequence[str] = (),
        explode: bool = False,
        on_error: OnError = "fail",
        device: str = "cpu",
        threads: int | None = None,
        model_id: str | None = None,
    ) -> None:
        self._predictor = open_model(
            model, device=device, threads=threads or _granted_cpus(), model_id=model_id
        )
        self._keep = list(keep)
        self._options: Any = {"explode": explode, "on_error": on_error}
        self._schema: pa.Schema | None = None
        self._scorer: BatchScorer | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Score one batch, in Arrow's format.

        Raises
        ------
        InputError
            Naming column and row, where the batch does not fit the spec.
        """
        if not isinstance(table, pa.Table):
            fix = 'Give batch_format="pyarrow" to map_batches.'
            raise InputError("a pyarrow.Table", type(table).__name__, "batch", fix)
        table = plain_columns(table, self._predictor.spec)
        # blocks may differ: where all lists are empty, their values have no type
        if self._scorer is None or table.schema != self._schema:
            self._schema = table.schema
            self._scorer = BatchScorer(
                self._predictor, table.schema, keep=self._keep, **self._options
            )
        narrow = table.select(self._scorer.columns).combine_chunks()
        scored = [score_batch(self._scorer, b, self._keep) for b in narrow.to_batches()]
        return pa.Table.from_batches(scored, self._scorer.schema)


def _granted_cpus() -> int:
    """Count the CPUs that Ray reserved for this actor, at least 1."""
    context: Any = ray.get_runtime_context()  # has no types
    return max(1, int(context.get_assigned_resources().get("CPU", 1)))


def score_dataset(
    dataset: Dataset,
    model: str | os.PathLike[str],
    *,
    keep: Sequence[str] = (),
    explode: bool = False,
    on_error: OnError = "fail",
    batch_size: int = 8192,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    threads: int | None = None,
    **options: Any,  # noqa: ANN401
) -> Dataset:
    """Score a dataset in a pool of actors; lazy, as every transformation of Ray Data.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Has the model's columns; others are not read, and cost less if they were never
        there (``read_parquet(columns=...)``).
    model : path
        Of the ``.onnx``, as every worker sees it. Where the driver has it too, all
        workers must have the same model.
    keep, explode, on_error
        As `Scorer` takes them.
    batch_size : int
        Rows scored at a time.
    concurrency : int or (int, int), optional
        Actors; or the fewest and the most. By default one, and as many more as the
        cluster has room for. Actors that would take every CPU of the cluster, so that
        nothing could be read, are begun when there is room.
    num_cpus : float
        CPUs of each actor, and threads of its Predictor.
    num_gpus : float
        GPUs of each actor. Above 0 it scores on CUDA or raises.
    threads : int, optional
        Threads, where they shall differ from `num_cpus`.
    **options
        More for ``Dataset.map_batches``, as `memory` or `runtime_env`.

    Returns
    -------
    ray.data.Dataset
        The kept columns, and `score`: float32, or lists of it for requests.

    Raises
    ------
    InputError
        If the dataset is known to lack columns. While it runs, Ray raises its own
        errors, with those of `Scorer` as the cause.
    ModelError
        If `model` is here and is no model.

    Warns
    -----
    UserWarning
        If one actor takes every CPU of the cluster, as it is now: unless it grows,
        reading will wait for ever.
    """
    if num_gpus < 0 or num_cpus < 0:
        got = f"num_cpus={num_cpus}, num_gpus={num_gpus}"
        raise InputError("resources of at least 0", got, "score_dataset")
    model_id = None
    if local_path(model, "model", ModelError).exists():
        known = ModelFile.read(model)
        model_id = known.model_id
        schema = dataset.schema(fetch_if_missing=False)
        base = None if schema is None else schema.base_schema
        plain = plain_schema(base) if isinstance(base, pa.Schema) else None
        if plain is not None:
            output_schema(known.spec, plain, keep, explode, on_error)
    return dataset.map_batches(
        Scorer,
        fn_constructor_args=(os.fspath(model),),
        fn_constructor_kwargs={
            "keep": list(keep),
            "explode": explode,
            "on_error": on_error,
            "device": "cuda" if num_gpus else "cpu",
            "threads": threads,
            "model_id": model_id,
        },
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=_pool(concurrency, num_cpus),
        num_cpus=num_cpus,
        num_gpus=num_gpus or None,
        **options,
    )


def _pool(
    concurrency: int | tuple[int, int] | None, num_cpus: float
) -> ActorPoolStrategy:
    """Make a pool that leaves a CPU to the tasks that read, as the cluster is now."""
    fewest, most = 1, None
    if concurrency is not None:
        many = concurrency if isinstance(concurrency, tuple) else (concurrency,) * 2
        fewest, most = many
    check_count(fewest, "concurrency")
    check_count(fewest if most is None else most, "concurrency", fewest)
    there = ray.cluster_resources().get("CPU", 0)
    if num_cpus and 0 < there < fewest * num_cpus + 1:  # Ray reads in tasks of one CPU
        fewest = max(1, int((there - 1) // num_cpus))
        if there < num_cpus + 1:
            warnings.warn(WAITS.format(there, num_cpus), stacklevel=3)
    return ActorPoolStrategy(min_size=fewest, max_size=most)

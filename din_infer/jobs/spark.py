"""Score a Spark DataFrame: each Python worker has one Predictor and scores batches.

`docs/engines.md` says how to run it.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark import SparkContext, SparkFiles, TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql.functions import col
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_type
from pyspark.sql.types import (
    ArrayType,
    DataType,
    FloatType,
    MapType,
    NullType,
    StructField,
    StructType,
)

from din_infer.errors import InputError
from din_infer.jobs.batches import BatchScorer
from din_infer.jobs.forms import OnError, find_form, output_schema
from din_infer.jobs.workers import open_model, score_batch
from din_infer.model_file import ModelFile
from din_infer.predictor import Predictor
from din_infer.spec import FeatureSpec

__all__ = ["score_dataframe", "scorer"]

Score = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
# The models of this process. Workers outlive tasks, and serve what jobs there are: two
# may be compared at a time. The key has the process: a forked child makes its own.
_MODELS: dict[tuple[object, ...], Predictor] = {}
MOST_MODELS = 2


def scorer(
    model: str | os.PathLike[str],
    *,
    keep: Sequence[str] = (),
    explode: bool = False,
    on_error: OnError = "fail",
    threads: int | None = None,
    device: str | None = None,
    shipped: bool = False,
    model_id: str | None = None,
) -> Score:
    """Make the function that ``DataFrame.mapInArrow`` runs in every task.

    Parameters
    ----------
    model : path
        Of the ``.onnx`` as every worker sees it; its ``.data`` file lies beside it.
    keep, explode
        As in `output_schema`.
    on_error : {"fail", "skip", "null"}
        As in `BatchScorer`; the log of the executor tells of rows left out or null.
    threads : int, optional
        By default the CPUs of a task, ``spark.task.cpus``.
    device : str, optional
        As `Predictor` takes it. By default the GPU that Spark granted the task, else
        the CPU.
    shipped : bool
        `model` is the name of a file that ``SparkContext.addFile`` sent, as its
        ``.data`` file was.
    model_id : str, optional
        The model that this must be.

    Returns
    -------
    function
        Of batches to batches; it opens the model in the worker, once per process.
    """
    path, kept = os.fspath(model), list(keep)
    make = partial(BatchScorer, keep=kept, explode=explode, on_error=on_error)

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        place = SparkFiles.get(path) if shipped else path
        predictor = _open(place, threads, device, model_id)
        made: BatchScorer | None = None
        for batch in batches:
            made = made or make(predictor, batch.schema)
            yield score_batch(made, batch, kept)

    return score


def score_dataframe(
    df: DataFrame,
    model: str | os.PathLike[str],
    *,
    keep: Sequence[str] = (),
    explode: bool = False,
    on_error: OnError = "fail",
    threads: int | None = None,
    device: str | None = None,
    ship: bool = False,
) -> DataFrame:
    """Score a DataFrame; lazy, as every transformation of Spark.

    Parameters
    ----------
    df : DataFrame
        Has the model's columns; of the others only `keep` is read.
    model : path
        Of the ``.onnx``, as the driver and every worker see it. The driver reads what
        columns it takes, and makes no session. All workers must have the same model.
    keep, explode, on_error, threads, device
        As `scorer` takes them.
    ship : bool
        The model is the driver's alone: send it, and its ``.data`` file, to the workers
        by ``SparkContext.addFile``.

    Returns
    -------
    DataFrame
        The kept columns, and `score`: float, or array<float> for requests.

    Raises
    ------
    InputError
        If `df` lacks columns, or Arrow has no type for one; with `ship`, if its session
        is Spark Connect's. While the job runs, Spark raises its own errors, which say
        what happened in the worker.
    ModelError
        If the driver cannot read the model.
    """
    known = ModelFile.read(model)
    schema = _arrow_schema(df, known.spec, keep)
    wanted = output_schema(known.spec, schema, keep, explode, on_error)
    form = find_form(known.spec, schema)
    outer = [n if n in schema.names else form.lists[n][0] for n in keep]
    columns = list(dict.fromkeys([*form.columns, *outer]))
    path = _ship(df, known) if ship else str(known.path)
    score = scorer(
        path,
        keep=keep,
        explode=explode,
        on_error=on_error,
        threads=threads,
        device=device,
        shipped=ship,
        model_id=known.model_id,
    )

    def of_columns(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return score(batch.rename_columns(columns) for batch in batches)

    # mapInArrow takes no names with dots or back-ticks
    quoted = ("`" + name.replace("`", "``") + "`" for name in columns)
    narrow = df.select(*(col(name).alias(f"_{k}") for k, name in enumerate(quoted)))
    return narrow.mapInArrow(of_columns, _result_type(df.schema, schema, wanted))


def _arrow_schema(df: DataFrame, spec: FeatureSpec, keep: Sequence[str]) -> pa.Schema:
    """Say what types the workers will see; null for columns that are not read.

    Raises
    ------
    InputError
        If Arrow has no type for a column that is read.
    """
    names = {column.name for column in spec.reads}
    options: dict[str, Any] = {}
    if "timezone" in signature(to_arrow_type).parameters:  # from Spark 4.3
        options["timezone"] = df.sparkSession.conf.get("spark.sql.session.timeZone")

    def is_read(field: StructField) -> bool:
        return field.name in names or field.name in keep or _holds(field.dataType)

    def _holds(kind: DataType) -> bool:
        """Whether these are lists of structs with columns of candidates."""
        structs = kind.elementType if isinstance(kind, ArrayType) else None
        return isinstance(structs, StructType) and not names.isdisjoint(structs.names)

    fields = []
    for field in df.schema:
        kind, nullable = pa.null(), True
        if is_read(field):
            nullable = field.nullable
            try:
                kind = to_arrow_type(_nullable(field.dataType), **options)
            except (PySparkException, ValueError) as error:  # the second, of Arrow
                got = field.dataType.simpleString()
                rule = "a type that Spark gives to Python workers by Arrow"
                raise InputError(rule, got, field.name) from error
        fields.append(pa.field(field.name, kind, nullable))
    return pa.schema(fields)


def _nullable(kind: DataType) -> DataType:
    """Let what has no type be null inside of lists and maps: Arrow has no other."""
    if isinstance(kind, ArrayType):
        void = isinstance(kind.elementType, NullType)
        return ArrayType(_nullable(kind.elementType), kind.containsNull or void)
    if isinstance(kind, MapType):
        void = isinstance(kind.valueType, NullType)
        return MapType(
            kind.keyType, _nullable(kind.valueType), kind.valueContainsNull or void
        )
    return kind


def _result_type(given: StructType, schema: pa.Schema, wanted: pa.Schema) -> StructType:
    """Return Spark's type of the result; kept columns have the very type they had."""
    fields = []
    for field, made in zip(wanted, from_arrow_schema(wanted).fields, strict=True):
        same = field.name in schema.names and schema.field(field.name).equals(field)
        kind = _nullable(given[field.name].dataType) if same else made.dataType
        fields.append(StructField(field.name, kind))
    # releases of Spark differ in whether the elements of a list may be null
    is_list = isinstance(fields[-1].dataType, ArrayType)
    kind = ArrayType(FloatType()) if is_list else FloatType()
    return StructType([*fields[:-1], StructField(fields[-1].name, kind)])


def _open(
    path: str, threads: int | None, device: str | None, model_id: str | None
) -> Predictor:
    """Make this process's Predictor, or take the one that an earlier task made."""
    task = TaskContext.get()
    if threads is None:
        threads = 1 if task is None else task.cpus()
    if device is None:
        gpu = None if task is None else task.resources().get("gpu")
        device = "cpu" if gpu is None else f"cuda:{gpu.addresses[0]}"
    file = Path(path)
    version = file.stat().st_mtime_ns if file.exists() else 0
    key = (os.getpid(), path, version, threads, device, model_id)
    if key not in _MODELS:
        while len(_MODELS) >= MOST_MODELS:
            del _MODELS[next(iter(_MODELS))]
        _MODELS[key] = open_model(
            path, device=device, threads=threads, model_id=model_id
        )
    return _MODELS[key]


def _ship(df: DataFrame, model: ModelFile) -> str:
    """Send a model to all workers; returns the name that its file has there.

    Spark takes one file of each name and ignores others that follow, so the name has
    the model's id; that of a data file has the digest of its content.
    """
    context = getattr(df.sparkSession, "sparkContext", None)
    if not isinstance(context, SparkContext):
        rule = "a session that has a SparkContext, to ship the model"
        fix = "Put the model where all workers see it, and leave out ship."
        raise InputError(rule, "Spark Connect", "df", fix)
    name = f"{Path(model.place).stem}-{model.model_id}.onnx"
    # Spark deletes this folder when the context stops
    folder = Path(SparkFiles.getRootDirectory(), "din-infer")
    folder.mkdir(exist_ok=True)
    for source, target in (
        *((path, folder / stored) for stored, path in model.data.items()),
        (Path(model.place), folder / name),
    ):
        if not target.exists():
            shutil.copyfile(source, target)
            context.addFile(str(target))
    return name

"""Score Parquet files as streams: bounded memory, whole files or none.

One output per input, with the kept columns and a float32 column `score`, rows in order.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from din_infer.encode import Stats
from din_infer.errors import InputError, explain
from din_infer.predictor import Predictor

__all__ = ["Summary", "expand", "name_row", "open_parquet", "score_files"]

# A row group of the output: as many rows as readers like, few enough bytes.
GROUP_ROWS = 1 << 17
GROUP_BYTES = 1 << 26


@dataclass
class Summary:
    """What a job did; `str()` of it is a table."""

    model_id: str
    device: str
    threads: int
    rows: int = 0
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    fields: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        """Rows scored per second of the whole job, reading and writing included."""
        return self.rows / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the summary for JSON."""
        return {**vars(self), "rows_per_second": self.rows_per_second}

    def __str__(self) -> str:
        lines = [
            f"{self.rows:,} rows in {self.seconds:.1f} s"
            f" ({self.rows_per_second:,.0f} rows/s, {self.device},"
            f" {self.threads} threads)",
            f"{'field':24}{'nulls':>12}{'unseen':>12}{'truncated':>12}{'empty':>12}",
        ]
        kinds = ("nulls", "unseen", "truncated", "empty")
        for name, counts in self.fields.items():
            lines.append(f"{name:24}" + "".join(f"{counts[k]:12,}" for k in kinds))
        return "\n".join([*lines, *(f"wrote {f}" for f in self.files)])


def score_files(
    predictor: Predictor,
    inputs: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    keep: Sequence[str] = (),
    batch_size: int = 8192,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Score every input file into the folder `out`, under its own name.

    Parameters
    ----------
    predictor : Predictor
    inputs : path, or sequence of path
        Parquet files, or folders whose ``*.parquet`` are taken in order of name.
    out : path
        Made when it is not there.
    keep : sequence of str
        Columns to copy to the output, before `score`.
    batch_size : int
        Rows read, scored and written at a time.
    overwrite : bool
        Replace outputs that exist; without it they are an InputError.
    progress : bool
        Show a bar on stderr when that is a terminal.

    Raises
    ------
    InputError
        If an input cannot be read or a row does not fit the spec; the message names the
        file. Every input's columns are checked before the first is scored; an output is
        there whole or not at all.
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    if batch_size < 1:
        raise InputError(explain("at least 1", batch_size, "batch_size"))
    if "score" in keep:
        rule = "kept columns other than `score`, which the output adds"
        raise InputError(explain(rule, "'score'", "keep"))
    sources = list(expand(inputs))
    targets = _targets(sources, Path(out), overwrite)
    wanted = list(dict.fromkeys([*predictor.spec.columns, *keep]))
    optional = [n for n in predictor.spec.optional_columns if n not in wanted]
    if len(set(keep)) != len(keep):
        raise InputError(explain("each kept column once", ", ".join(keep), "keep"))
    total = 0
    for source in sources:
        with open_parquet(source, wanted, optional) as file:
            total += file.metadata.num_rows
    summary = Summary(predictor.model_id, predictor.device, predictor.threads)
    stats = Stats()
    started = time.perf_counter()
    bar = tqdm(
        total=total,
        unit=" rows",
        unit_scale=True,
        desc="scoring",
        file=sys.stderr,
        disable=None if progress else True,
    )
    with bar:
        for source, target in zip(sources, targets, strict=True):
            with open_parquet(source, wanted, optional) as file, _writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                names = found_in(file, wanted, optional)
                batches = _batches(source, file, names, batch_size)
                score = partial(predictor.score_counted, stats=stats)
                for rows in _score_file(score, source, file, batches, target, keep):
                    summary.rows += rows
                    bar.update(rows)
            summary.files.append(str(target))
    summary.seconds = time.perf_counter() - started
    summary.fields = stats.to_dict()
    return summary


def expand(inputs: Sequence[str | Path]) -> Iterator[Path]:
    """List the files, and those of folders in order of name.

    Raises
    ------
    InputError
        If a folder has no ``*.parquet``.
    """
    for item in map(Path, inputs):
        if not item.is_dir():
            yield item
            continue
        found = sorted(item.glob("*.parquet"))
        if not found:
            raise InputError(explain("a folder with *.parquet", "none", str(item)))
        yield from found


def _targets(sources: Sequence[Path], out: Path, overwrite: bool) -> list[Path]:
    targets: dict[Path, Path] = {}
    for source in sources:
        target = out / source.name
        if target in targets:
            rule = "inputs of different names"
            got = f"{targets[target]} and {source}"
            raise InputError(explain(rule, got, "inputs"))
        if target.exists() and source.exists() and target.samefile(source):
            rule = "an --out folder other than the input's"
            raise InputError(explain(rule, str(out), str(source)))
        if target.is_dir():
            raise InputError(explain("a file, or nothing", "a folder", str(target)))
        if target.exists() and not overwrite:
            rule = "a file that is not there yet"
            fix = "Give --overwrite to replace it."
            raise InputError(explain(rule, "one that is", str(target), fix))
        targets[target] = source
    return list(targets)


def open_parquet(
    path: str | Path, wanted: Iterable[str], optional: Iterable[str] = ()
) -> pq.ParquetFile:
    """Open a Parquet file that has the columns `wanted`, and maybe `optional` ones.

    Raises
    ------
    InputError
        If it is not a readable Parquet file, or lacks some: all are named.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        rule = "a readable Parquet file"
        raise InputError(explain(rule, str(error).splitlines()[0], str(path))) from None
    names = file.schema_arrow.names
    wanted = list(wanted)
    twice = [c for c in (*wanted, *optional) if names.count(c) > 1]
    if twice:
        file.close()
        raise InputError(explain("each column once", ", ".join(twice), str(path)))
    missing = [c for c in wanted if c not in names]
    if missing:
        file.close()
        rule = "the columns " + ", ".join(missing)
        raise InputError(explain(rule, "only " + ", ".join(names), str(path)))
    return file


def found_in(
    file: pq.ParquetFile, wanted: Iterable[str], optional: Iterable[str]
) -> list[str]:
    """List the columns to read: `wanted`, and what the file has of `optional`."""
    names = file.schema_arrow.names
    return list(dict.fromkeys([*wanted, *(n for n in optional if n in names)]))


def _score_file(
    score: Callable[[pa.RecordBatch], NDArray[np.float32]],
    source: Path,
    file: pq.ParquetFile,
    batches: Iterable[pa.RecordBatch],
    target: Path,
    keep: Sequence[str],
) -> Iterator[int]:
    """Score one file; yields the rows of each batch as it is written."""
    kept = [file.schema_arrow.field(name) for name in keep]
    schema = pa.schema([*kept, pa.field("score", pa.float32(), nullable=False)])
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    start = 0
    waiting: list[pa.RecordBatch] = []
    try:
        with pq.ParquetWriter(beside, schema) as writer:
            for batch in batches:
                try:
                    scores = score(batch)
                except InputError as error:
                    raise InputError(name_row(str(error), start, source)) from None
                columns = [batch.column(name) for name in keep]
                arrays = [*columns, pa.array(scores, pa.float32())]
                waiting.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
                start += batch.num_rows
                if (
                    sum(b.num_rows for b in waiting) >= GROUP_ROWS
                    or sum(b.nbytes for b in waiting) >= GROUP_BYTES
                ):
                    writer.write_table(pa.Table.from_batches(waiting))
                    waiting.clear()
                yield batch.num_rows
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def name_row(message: str, start: int, source: str | Path) -> str:
    """Say the row of `source`, where the message says the row of a batch."""

    def absolute(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) + start}"

    return re.sub(r"(- at `[^`]*`, row )(\d+)", absolute, message) + f" of {source}"


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn what the system refuses into an error that names the target."""
    try:
        yield
    except OSError as error:
        rule = "a place where the scores can be written"
        raise InputError(explain(rule, error, str(target))) from None


def _batches(
    source: Path, file: pq.ParquetFile, columns: list[str], batch_size: int
) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=batch_size, columns=columns)
    except (OSError, pa.ArrowException) as error:
        rule = "a Parquet file that can be read to its end"
        raise InputError(
            explain(rule, str(error).splitlines()[0], str(source))
        ) from None

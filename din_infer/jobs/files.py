"""Score files as streams: bounded memory, whole outputs or none, resumed after a kill.

One output per input, with the kept columns and a float32 column `score`, rows in order.
Reading, scoring and writing run side by side:

    read (a thread) ─► prepare, encode, run (worker threads, in order) ─► write (caller)
"""

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from din_infer.encode import Stats
from din_infer.errors import InputError, explain, is_whole
from din_infer.jobs.batches import BatchScorer, OnError, Scored
from din_infer.jobs.ledger import (
    Ledger,
    beside,
    sync_folder,
)
from din_infer.jobs.pipeline import ahead, in_order
from din_infer.jobs.readers import Reader, open_reader
from din_infer.jobs.sources import Identity, Source, find_sources, name_row
from din_infer.predictor import Predictor
from din_infer.session import available_cpus

__all__ = ["BATCH_ROWS", "JobError", "Summary", "score_files"]

# Rows that are read, scored and written at a time: some megabytes, so that what is in
# flight is small, and long against what handing a batch on costs.
BATCH_ROWS = 4096
# A row group of the output: as many rows as readers like, few enough bytes.
GROUP_ROWS = 1 << 17
GROUP_BYTES = 1 << 24
MAX_BAD_ROWS = 1000
WAIT_S = 0.5  # between looks at what other processes do


class JobError(InputError):
    """Some outputs of a job could not be made; `summary` tells of the others."""

    def __init__(self, message: str, summary: "Summary") -> None:
        super().__init__(message)
        self.summary = summary


@dataclass
class Summary:
    """What a job did; `str()` of it is a table.

    `rows`, `bad_rows`, `seconds` and `fields` count what this process scored; `files`
    are the outputs it wrote, `whole` those that were whole before or that other
    processes wrote, `failed` maps inputs to why they have no output.
    """

    model_id: str
    device: str
    threads: int
    rows: int = 0
    bad_rows: int = 0
    seconds: float = 0.0
    files: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    fields: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        """Rows scored per second of the whole job, reading and writing included."""
        return self.rows / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the summary for JSON."""
        return {**vars(self), "rows_per_second": self.rows_per_second}

    def __str__(self) -> str:
        bad = f", {self.bad_rows:,} bad" if self.bad_rows else ""
        lines = [
            f"{self.rows:,} rows{bad} in {self.seconds:.1f} s"
            f" ({self.rows_per_second:,.0f} rows/s, {self.device},"
            f" {self.threads} threads)",
            f"{'field':24}{'nulls':>12}{'unseen':>12}{'truncated':>12}{'empty':>12}",
        ]
        kinds = ("nulls", "unseen", "truncated", "empty")
        for name, counts in self.fields.items():
            lines.append(f"{name:24}" + "".join(f"{counts[k]:12,}" for k in kinds))
        lines += [f"wrote {f}" for f in self.files]
        lines += [f"was whole: {f}" for f in self.whole]
        return "\n".join(lines)


@dataclass(eq=False)
class _Shard:
    """One input and its output; `error` stops it, and it alone."""

    k: int
    source: Source
    identity: Identity | None
    error: Exception | None = None
    num_rows: int | None = None
    ready: tuple[Reader, BatchScorer] | None = None  # of what opens once only


@dataclass
class _Event:
    """What travels through the stages: a shard begins, has a batch, ends."""

    kind: Literal["begin", "batch", "end"]
    shard: _Shard
    batch: pa.RecordBatch | None = None
    scorer: BatchScorer | None = None
    scored: Scored | None = None
    stats: Stats | None = None
    error: InputError | None = None
    num_rows: int = 0
    fraction: float | None = None


@dataclass(frozen=True)
class _Job:
    """What is done to every shard."""

    predictor: Predictor
    keep: tuple[str, ...]
    explode: bool
    on_error: OnError
    max_bad_rows: int
    batch_size: int
    separator: str
    format: str | None

    def options(self) -> dict[str, Any]:
        """List what outputs depend on, beside the model and the inputs."""
        return {
            "keep": list(self.keep),
            "explode": self.explode,
            "on_error": self.on_error,
            "max_bad_rows": self.max_bad_rows,
            "batch_size": self.batch_size,
            "list_separator": self.separator,
            "format": self.format,
            "device": self.predictor.device.partition(":")[0],
            "fused": self.predictor.fused,
            "precision": self.predictor.precision,
        }

    def open(self, source: Source) -> tuple[Reader, BatchScorer]:
        """Open an input, and check that it has the columns."""
        reader = open_reader(source, self.predictor.spec, self.separator)
        try:
            scorer = BatchScorer(
                self.predictor,
                reader.schema,
                keep=self.keep,
                explode=self.explode,
                on_error=self.on_error,
                prepare=reader.prepare,
            )
        except InputError as error:
            reader.close()
            message = str(error).replace("- at `schema`", f"- at `{source}`")
            raise InputError(message) from None
        return reader, scorer


def score_files(
    predictor: Predictor,
    inputs: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    keep: Sequence[str] = (),
    explode: bool = False,
    on_error: OnError = "fail",
    max_bad_rows: int = MAX_BAD_ROWS,
    batch_size: int = BATCH_ROWS,
    format: str | None = None,
    separator: str = "|",
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Score every input file into the folder `out`, under its own name.

    Parameters
    ----------
    predictor : Predictor
    inputs : path, or sequence of path
        Files, folders or patterns, as `find_sources` lists them: Parquet, Arrow IPC,
        CSV or JSON lines; "-" is stdin. A table has one candidate on each row, or lists
        of candidates, in parallel list columns or in a column of lists of structs.
    out : path
        Made when it is not there; what the job has done is in its ``_din_score``.
    keep : sequence of str
        Columns to copy to the output, before `score`.
    explode : bool
        Of requests with lists of candidates: write a row per candidate, not lists.
    on_error : {"fail", "skip", "null"}
        What becomes of a row that does not fit the spec: its file has no output, it is
        left out, or its score is null. Rows left out or null are listed in
        ``_din_score/bad``.
    max_bad_rows : int
        More such rows of one file, and it has no output.
    batch_size : int
        Rows read, scored and written at a time; fewer where rows are large.
    format : str, optional
        "parquet", "arrow", "csv", "tsv" or "jsonl", where names do not tell.
    separator : str
        Between the elements of lists in CSV.
    workers : int, optional
        Batches that are scored at the same time. By default as many as CPUs, of a
        predictor of one thread; 2 of others, so that one encodes while one runs.
    resume : bool
        Go on with a job that was begun, alone or beside other processes; begin it where
        it was not. What is whole is not made again.
    overwrite : bool
        Begin anew, and replace outputs that exist; without it they are an InputError.
    progress : bool
        Show a bar on stderr when that is a terminal.

    Raises
    ------
    InputError
        If nothing can be read, the output cannot be written, or the job to resume is
        another one: model, option or input has changed.
    JobError
        If inputs could not be read, changed meanwhile, or have rows that do not fit the
        spec; the message names the first file, and the other outputs are whole.

    Notes
    -----
    Memory is bounded by batches, whatever the size of files and row groups. However the
    process ends, an output is there whole or not at all.
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    for value, least, place in (
        (batch_size, 1, "batch_size"),
        (max_bad_rows, 0, "max_bad_rows"),
        (1 if workers is None else workers, 1, "workers"),
    ):
        if not (is_whole(value) and value >= least):
            rule = f"a whole number of at least {least}"
            raise InputError(explain(rule, repr(value), place))
    if resume and overwrite:
        rule = "resume or overwrite"
        raise InputError(explain(rule, "both", "resume"))
    if workers is None:
        workers = available_cpus() if predictor.threads == 1 else 2
    job = _Job(
        predictor,
        tuple(keep),
        explode,
        on_error,
        max_bad_rows,
        batch_size,
        separator,
        format,
    )
    started = time.perf_counter()
    threads = predictor.threads if predictor.threads > 1 else workers
    summary = Summary(predictor.model_id, predictor.device, threads)
    shards = _look(job, find_sources(inputs, format), Path(out), resume=resume)
    about = {
        "versions": {name: version(name) for name in ("din-infer", "pyarrow")},
        "model_id": predictor.model_id,
        "options": job.options(),
        "inputs": [_about(s) for s in shards],
    }
    targets = [s.source.target for s in shards]
    with (
        _writing(Path(out)),
        closing(
            Ledger(Path(out), about, targets, resume=resume, overwrite=overwrite)
        ) as ledger,
        _bar(shards, progress) as bar,
    ):
        run = _Run(job, ledger, summary, bar, workers)
        run.score_all(shards)
        if not summary.failed:
            ledger.finish_job()
    summary.seconds = time.perf_counter() - started
    if summary.failed:
        raise JobError(_failures(summary), summary)
    return summary


def _failures(summary: Summary) -> str:
    first, *others = summary.failed.values()
    if not others:
        return first
    return f"{first} (and {len(others)} more of the inputs have no output)"


def _about(shard: _Shard) -> dict[str, Any]:
    """Describe an input for the job's file."""
    path = shard.source.path
    where = "-" if path is None else os.path.abspath(path)  # noqa: PTH100
    identity = {} if shard.identity is None else shard.identity.to_dict()
    return {"path": where, **identity, "output": str(shard.source.target)}


def _look(
    job: _Job, sources: Sequence[Source], out: Path, *, resume: bool
) -> list[_Shard]:
    """Open every input once: what can never be scored is known before one is."""
    shards = []
    for k, source in enumerate(sources):
        shard = _Shard(k, source, None)
        shards.append(shard)
        if source.path is None:
            if resume:
                rule = "inputs that can be read again to resume"
                raise InputError(explain(rule, "stdin", "inputs"))
            shard.ready = job.open(source)
            continue
        target = os.path.abspath(out / source.target)  # noqa: PTH100
        if os.path.realpath(source.path) == os.path.realpath(target):
            rule = "an --out folder other than the input's"
            raise InputError(explain(rule, f"'{out}'", str(source)))
        try:
            shard.identity = Identity.of(source.path)
            reader, _ = job.open(source)
            shard.num_rows = reader.num_rows
            reader.close()
        except OSError as error:
            rule = f"a readable {_title(source)} file"
            shard.error = InputError(explain(rule, error, str(source)))
        except InputError as error:
            shard.error = error
    errors = [s.error for s in shards if s.error is not None]
    if errors and len(errors) == len(shards):
        raise errors[0]
    return shards


def _title(source: Source) -> str:
    return source.format.title() if source.format == "parquet" else source.format


def _bar(shards: Sequence[_Shard], progress: bool) -> Any:  # noqa: ANN401
    known = [s.num_rows for s in shards if s.error is None]
    total = None if None in known else sum(n for n in known if n is not None)
    return tqdm(
        total=total,
        unit=" rows",
        unit_scale=True,
        desc="scoring",
        file=sys.stderr,
        disable=None if progress else True,
    )


class _Run:
    """One process's work on a job."""

    def __init__(
        self,
        job: _Job,
        ledger: Ledger,
        summary: Summary,
        bar: Any,  # noqa: ANN401
        workers: int,
    ) -> None:
        self._job = job
        self._ledger = ledger
        self._summary = summary
        self._bar = bar
        self._workers = workers
        self._stats = Stats()
        self._output: _Output | None = None
        self._estimates = bar.total is None
        self._bytes = 0  # of the inputs that have ended
        self._all_bytes = 1

    def score_all(self, shards: Sequence[_Shard]) -> None:
        """Score all shards that can be; wait for those that other processes have."""
        left = []
        sizes = [s.identity.size for s in shards if s.identity is not None]
        self._all_bytes = max(1, sum(sizes))
        for shard in shards:
            if shard.error is None:
                left.append(shard)
            else:
                self._fail(shard, shard.error)
        while left:
            others: list[_Shard] = []
            before = len(left)
            self._score_some(left, others)
            left = others
            if left and len(left) == before:
                self._bar.set_postfix_str(f"{len(left)} in other processes")
                time.sleep(WAIT_S)
        self._summary.fields = self._stats.to_dict()

    def _score_some(self, shards: Sequence[_Shard], others: list[_Shard]) -> None:
        events = ahead(self._read(shards, others), 2)
        waiting = self._workers + 1
        scored = in_order(self._score, events, self._workers, waiting)
        try:
            with closing(ahead(scored, 1)) as finished:  # type: ignore[type-var]
                for event in finished:
                    self._write(event)
        finally:
            if self._output is not None:
                self._output.abort()
                self._output = None

    # -------------------------------------------------------------------- reading

    def _read(self, shards: Sequence[_Shard], others: list[_Shard]) -> Iterator[_Event]:
        for shard in shards:
            if not self._ledger.claim(shard.k):
                others.append(shard)
                continue
            found = self._ledger.manifest(shard.k)
            if found is not None:
                self._ledger.release(shard.k)
                self._summary.whole.append(str(self._ledger.target(shard.k)))
                self._bar.update(found.get("rows", 0))
                continue
            yield from self._read_shard(shard)

    def _read_shard(self, shard: _Shard) -> Iterator[_Event]:
        self._ledger.forget(shard.k)
        try:
            self._check_same(shard)
            reader, scorer = shard.ready or self._job.open(shard.source)
        except (InputError, OSError) as error:
            shard.error = error
            yield _Event("end", shard)
            return
        with closing(reader):
            yield _Event("begin", shard, scorer=scorer)
            try:
                for batch in reader.batches(scorer.columns, self._job.batch_size):
                    if shard.error is not None:
                        break
                    part = reader.fraction()
                    yield _Event("batch", shard, batch, scorer, fraction=part)
                self._check_same(shard)
            except (InputError, OSError) as error:
                shard.error = shard.error or error
        yield _Event("end", shard)

    def _check_same(self, shard: _Shard) -> None:
        path = shard.source.path
        if path is None:
            return
        try:
            now = Identity.of(path)
        except OSError as error:
            rule = "a file that stays while it is scored"
            raise InputError(explain(rule, error, str(path))) from None
        if now != shard.identity:
            rule = "a file that does not change while the job runs"
            raise InputError(explain(rule, "another in its place", str(path)))

    # -------------------------------------------------------------------- scoring

    def _score(self, event: _Event) -> _Event:
        """Score the batch of an event, in a worker."""
        shard = event.shard
        if event.batch is None or event.scorer is None or shard.error is not None:
            return event
        event.num_rows = event.batch.num_rows
        event.stats = Stats()
        try:
            event.scored = event.scorer.score(event.batch, event.stats)
        except InputError as error:
            event.error = error
        event.batch = None
        return event

    # -------------------------------------------------------------------- writing

    def _write(self, event: _Event) -> None:
        """Take an event, in the caller's thread."""
        shard = event.shard
        if event.kind == "end":
            self._end(shard)
        elif shard.error is not None:
            return
        elif event.kind == "begin" and event.scorer is not None:
            with _writing(self._ledger.target(shard.k)):
                self._output = _Output(self._ledger, shard, event.scorer.schema)
        elif self._output is not None:
            self._write_batch(event, self._output)

    def _write_batch(self, event: _Event, output: "_Output") -> None:
        """Write what a batch gave; of a bad row, its shard fails, and it alone."""
        shard = event.shard
        if event.error is not None or event.scored is None or event.stats is None:
            message = name_row(str(event.error), output.rows, str(shard.source))
            shard.error = InputError(message)
            return
        with _writing(self._ledger.target(shard.k)):
            output.add(event.scored, event.num_rows)
        output.stats.merge(event.stats)
        if output.num_bad > self._job.max_bad_rows:
            rule = f"at most {self._job.max_bad_rows:,} rows that do not fit"
            fix = "Give --max-bad-rows to allow more."
            got = f"{output.num_bad:,} of the first {output.rows:,}"
            message = explain(rule, got, str(shard.source), fix)
            shard.error = InputError(f"{message} The last: {output.last_bad}")
        self._show(event)

    def _show(self, event: _Event) -> None:
        """Move the bar; where rows are not known, bytes tell how many there will be."""
        identity = event.shard.identity
        if self._estimates and event.fraction and identity is not None:
            done = (self._bytes + event.fraction * identity.size) / self._all_bytes
            self._bar.total = round((self._bar.n + event.num_rows) / done)
        self._bar.update(event.num_rows)

    def _end(self, shard: _Shard) -> None:
        output, self._output = self._output, None
        try:
            if output is None or shard.error is not None:
                if output is not None:
                    output.abort()
                self._fail(shard, shard.error)
                return
            target = self._ledger.target(shard.k)
            with _writing(target):
                made = output.finish()
                self._ledger.finish(
                    shard.k,
                    {
                        "output": str(shard.source.target),
                        "input": _about(shard),
                        "model_id": self._summary.model_id,
                        **made,
                        "fields": output.stats.to_dict(),
                    },
                )
            self._summary.files.append(str(target))
            self._summary.rows += output.rows
            self._summary.bad_rows += output.num_bad
            self._stats.merge(output.stats)
        finally:
            self._ledger.release(shard.k)
            if shard.identity is not None:
                self._bytes += shard.identity.size

    def _fail(self, shard: _Shard, error: Exception | None) -> None:
        self._summary.failed[str(shard.source)] = str(error)


class _Sink(io.RawIOBase):
    """A file that knows the SHA-256 and the size of what was written to it."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401
        view = memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def finish(self) -> str:
        """Bring all to the disk; returns the SHA-256.

        Raises
        ------
        OSError
            If that fails, or the file has another size than was written.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        size = os.fstat(self._file.fileno()).st_size
        self.close()
        if size != self.size:
            message = f"{size} bytes are left of the {self.size} that were written"
            raise OSError(message)
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()
        super().close()


class _Output:
    """The output of one shard while it is written, beside its final name."""

    def __init__(self, ledger: Ledger, shard: _Shard, schema: pa.Schema) -> None:
        self._source = str(shard.source)
        self._target = ledger.target(shard.k)
        self._bad_target = ledger.bad_rows(shard.k)
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._bad: Any = None
        self.rows = 0
        self.num_written = 0
        self.num_bad = 0
        self.last_bad = ""
        self.stats = Stats()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._beside = beside(self._target)
        self._sink = _Sink(self._beside)
        try:
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._sink, mode="w"),
                schema,
                use_dictionary=[n for n in schema.names if n != "score"],
            )
        except BaseException:
            self._sink.close()
            self._beside.unlink(missing_ok=True)
            raise

    def add(self, scored: Scored, num_rows: int) -> None:
        """Write what came of `num_rows` rows of the input."""
        for row, why in scored.bad:
            self._note(row + self.rows, name_row(why, self.rows, self._source))
        self.rows += num_rows
        self.num_written += scored.batch.num_rows
        self._waiting.append(scored.batch)
        if (
            sum(b.num_rows for b in self._waiting) >= GROUP_ROWS
            or sum(b.nbytes for b in self._waiting) >= GROUP_BYTES
        ):
            self._write_group()

    def _note(self, row: int, why: str) -> None:
        if self._bad is None:
            self._bad_target.parent.mkdir(parents=True, exist_ok=True)
            self._bad = beside(self._bad_target).open("w", encoding="utf-8")
        self._bad.write(json.dumps({"row": row, "error": why}) + "\n")
        self.num_bad += 1
        self.last_bad = why

    def _write_group(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting))
            self._waiting.clear()

    def finish(self) -> dict[str, Any]:
        """Give the output its name; returns what its manifest says of it."""
        try:
            self._write_group()
            self._writer.close()
            digest = self._sink.finish()
            if self._bad is not None:
                self._bad.flush()
                os.fsync(self._bad.fileno())
                self._bad.close()
                beside(self._bad_target).replace(self._bad_target)
                sync_folder(self._bad_target.parent)
            self._beside.replace(self._target)
            sync_folder(self._target.parent)
        finally:
            self.abort()
        return {
            "rows": self.rows,
            "rows_written": self.num_written,
            "bad_rows": self.num_bad,
            "size": self._sink.size,
            "sha256": digest,
        }

    def abort(self) -> None:
        """Remove what has no name yet."""
        with suppress(OSError, pa.ArrowException, ValueError):
            self._writer.close()
        with suppress(OSError):
            self._sink.close()
        self._beside.unlink(missing_ok=True)
        if self._bad is not None:
            with suppress(OSError):
                self._bad.close()
            beside(self._bad_target).unlink(missing_ok=True)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn what the system refuses into an error that names the target."""
    try:
        yield
    except OSError as error:
        rule = "a place where the scores can be written"
        raise InputError(explain(rule, error, str(target))) from None

"""One process's work on a job: its shards, through stages that run side by side.

read (a thread) ─► prepare, encode, run (worker threads, in order) ─► write (caller)
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa

from din_infer.encode import Stats
from din_infer.errors import InputError
from din_infer.formatting import text
from din_infer.jobs.batches import BatchScorer, Scored
from din_infer.jobs.forms import OnError
from din_infer.jobs.ledger import Ledger
from din_infer.jobs.output import Output
from din_infer.jobs.pipeline import ahead, in_order
from din_infer.jobs.reader import Reader
from din_infer.jobs.readers import open_reader
from din_infer.jobs.sources import (
    Identity,
    Source,
    content_digest,
    in_file,
)
from din_infer.jobs.text_options import TextOptions
from din_infer.predictor import Predictor
from din_infer.whole_file import writing

__all__ = ["Job", "Run", "Shard", "Summary"]

CANDIDATES = 1 << 13  # of the requests that a worker scores at a time
WAIT_S = 0.5  # between looks at what other processes do


@dataclass
class Summary:
    """What a job did; `str()` of it is a table.

    `rows`, `bad_rows`, `seconds` and `fields` count what this process scored; `files`
    are the outputs it wrote, `whole` those that were whole before or that other
    processes wrote, `failed` maps inputs to why they have no output, `notes` say which
    files of folders are not read, and what has changed since a resumed job began.
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
    notes: list[str] = field(default_factory=list)

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
        lines += [f"wrote {text(f)}" for f in self.files]
        lines += [f"was whole: {text(f)}" for f in self.whole]
        return "\n".join(lines)


@dataclass(eq=False)
class Shard:
    """One input and its output; `error` stops it, and it alone."""

    k: int
    source: Source
    identity: Identity | None
    error: Exception | None = None
    num_rows: int | None = None
    ready: tuple[Reader, BatchScorer] | None = None  # of what opens once only
    columns: tuple[str, ...] = ()  # that are read
    content: str | None = None  # the digest of what has been read

    def has_content(self, then: Mapping[str, Any]) -> bool:
        """Tell whether the input is as a manifest says."""
        if self.identity is None or self.error is not None:
            return False
        same = self.identity.is_of(then)
        if same is None:
            return content_digest(self.source, self.columns) == then.get("content")
        return same

    def describe(self) -> dict[str, Any]:
        """Describe the input for JSON."""
        path = self.source.path
        where = "-" if path is None else os.path.abspath(path)  # noqa: PTH100
        identity = {} if self.identity is None else asdict(self.identity)
        if self.content is not None:
            identity["content"] = self.content
        return {"path": where, **identity, "output": self.source.target.as_posix()}


@dataclass
class _Event:
    """What travels through the stages: a shard begins, has a batch, ends."""

    kind: Literal["begin", "batch", "end"]
    shard: Shard
    batch: pa.RecordBatch | None = None
    scorer: BatchScorer | None = None
    scored: Scored | None = None
    stats: Stats | None = None
    error: InputError | None = None
    num_rows: int = 0
    fraction: float | None = None


@dataclass(frozen=True)
class Job:
    """What is done to every shard."""

    predictor: Predictor
    keep: tuple[str, ...]
    explode: bool
    on_error: OnError
    max_bad_rows: int
    batch_size: int
    text: TextOptions
    format: str | None

    def options(self) -> dict[str, Any]:
        """List what outputs depend on, beside the model and the inputs."""
        return {
            "keep": list(self.keep),
            "explode": self.explode,
            "on_error": self.on_error,
            "max_bad_rows": self.max_bad_rows,
            "batch_size": self.batch_size,
            **self.text.describe(),
            "format": self.format,
            "device": self.predictor.device.partition(":")[0],
            "fused": self.predictor.fused,
            "precision": self.predictor.precision,
        }

    def open(self, source: Source) -> tuple[Reader, BatchScorer]:
        """Open an input, and check that it has the columns."""
        spec = self.predictor.spec
        reader = open_reader(source, spec, self.text, self.keep, self.explode)
        try:
            scorer = BatchScorer(
                self.predictor,
                reader.schema,
                keep=reader.kept,
                explode=self.explode,
                on_error=self.on_error,
                prepare=reader.prepare,
            )
        except InputError as error:
            reader.close()
            if error.column != "schema":
                raise
            raise error.at(column=str(source)) from None
        return reader, scorer


class Run:
    """One process's work on a job."""

    def __init__(
        self,
        job: Job,
        ledger: Ledger,
        summary: Summary,
        bar: Any,  # noqa: ANN401
        workers: int,
    ) -> None:
        self._job, self._ledger, self._summary = job, ledger, summary
        self._bar, self._workers = bar, workers
        self.errors: list[Exception] = []  # of the inputs that have no output
        self._stats = Stats()
        self._output: Output | None = None
        self._estimates = bar.total is None
        self._bytes = 0  # of the inputs that have ended
        self._all_bytes = 1

    def score_all(self, shards: Sequence[Shard]) -> None:
        """Score all shards that can be; wait for those that other processes have."""
        sizes = [s.identity.size for s in shards if s.identity is not None]
        self._all_bytes = max(1, sum(sizes))
        left = [s for s in shards if s.error is None]
        for shard in shards:
            if shard.error is not None:
                self._fail(shard)
        while left:
            others: list[Shard] = []
            before = len(left)
            self._score_some(left, others)
            left = others
            if left and len(left) == before:
                self._bar.set_postfix_str(f"{len(left)} in other processes")
                self._bar.update(0)
                time.sleep(WAIT_S)
        self._summary.fields = self._stats.to_dict()

    def _score_some(self, shards: Sequence[Shard], others: list[Shard]) -> None:
        events = ahead(self._read(shards, others), 2)
        scored = in_order(self._score, events, self._workers, self._workers + 1)
        try:
            with closing(ahead(scored, 1)) as finished:  # type: ignore[type-var]
                for event in finished:
                    self._write(event)
        finally:
            if self._output is not None:
                self._output.abort()
                self._output = None

    # -------------------------------------------------------------------- reading

    def _read(self, shards: Sequence[Shard], others: list[Shard]) -> Iterator[_Event]:
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

    def _read_shard(self, shard: Shard) -> Iterator[_Event]:
        try:
            self._ledger.forget(shard.k)
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
                    read = reader.fraction()
                    for part in scorer.cut(batch, CANDIDATES):
                        yield _Event("batch", shard, part, scorer, fraction=read)
                if shard.source.path is not None:
                    shard.content = content_digest(shard.source, scorer.columns)
                self._check_same(shard)
            except (InputError, OSError) as error:
                shard.error = shard.error or error
        yield _Event("end", shard)

    def _check_same(self, shard: Shard) -> None:
        path = shard.source.path
        if path is None:
            return
        try:
            now = Identity.of(path)
        except OSError as error:
            rule = "a file that stays while it is scored"
            raise InputError(rule, error, str(path)) from None
        if now != shard.identity:
            rule = "a file that does not change while the job runs"
            raise InputError(rule, "another in its place", str(path))

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
        except pa.ArrowException as error:
            event.error = _not_handled(shard, error)
        event.batch = None
        return event

    # -------------------------------------------------------------------- writing

    def _write(self, event: _Event) -> None:
        """Take an event, in the caller's thread."""
        shard, k = event.shard, event.shard.k
        if event.kind == "end":
            self._end(shard)
        elif shard.error is not None:
            return
        elif event.kind == "begin" and event.scorer is not None:
            try:
                target, bad_rows = self._ledger.target(k), self._ledger.bad_rows(k)
                schema = event.scorer.schema
                with writing("the scores", target):
                    self._output = Output(str(shard.source), target, bad_rows, schema)
            except pa.ArrowException as error:
                shard.error = _not_handled(shard, error)
        elif self._output is not None:
            self._write_batch(event, self._output)

    def _write_batch(self, event: _Event, output: Output) -> None:
        """Write what a batch gave; of a bad row, its shard fails, and it alone."""
        shard = event.shard
        if event.error is not None:
            shard.error = in_file(event.error, output.rows, str(shard.source))
        if event.scored is None or event.stats is None:
            return
        try:
            with writing("the scores", self._ledger.target(shard.k)):
                output.add(event.scored, event.num_rows)
        except pa.ArrowException as error:
            shard.error = _not_handled(shard, error)
            return
        output.stats.merge(event.stats)
        if output.num_bad > self._job.max_bad_rows:
            rule = f"at most {self._job.max_bad_rows:,} rows that do not fit"
            fix = f"Give --max-bad-rows to allow more. The last: {output.last_bad}"
            got = f"{output.num_bad:,} of the first {output.rows:,}"
            shard.error = InputError(rule, got, str(shard.source), fix)
        self._show(event)

    def _show(self, event: _Event) -> None:
        """Move the bar; where rows are not known, bytes tell how many there will be."""
        identity = event.shard.identity
        if self._estimates and event.fraction and identity is not None:
            done = (self._bytes + event.fraction * identity.size) / self._all_bytes
            self._bar.total = round((self._bar.n + event.num_rows) / done)
        self._bar.update(event.num_rows)

    def _end(self, shard: Shard) -> None:
        output, self._output = self._output, None
        try:
            if output is None or shard.error is not None:
                if output is not None:
                    output.abort()
                self._fail(shard)
                return
            target = self._ledger.target(shard.k)
            with writing("the scores", target):
                try:
                    finished = output.finish()
                except pa.ArrowException as error:
                    shard.error = _not_handled(shard, error)
                    self._fail(shard)
                    return
                manifest = {
                    "output": shard.source.target.as_posix(),
                    "input": shard.describe(),
                    "model_id": self._summary.model_id,
                    **finished,
                    "fields": output.stats.to_dict(),
                }
                self._ledger.finish(shard.k, manifest)
            self._summary.files.append(str(target))
            self._summary.rows += output.rows
            self._summary.bad_rows += output.num_bad
            self._stats.merge(output.stats)
        finally:
            self._ledger.release(shard.k)
            if shard.identity is not None:
                self._bytes += shard.identity.size

    def _fail(self, shard: Shard) -> None:
        error = shard.error or InputError("an output that was begun")
        self._summary.failed[str(shard.source)] = str(error)
        self.errors.append(error)


def _not_handled(shard: Shard, error: Exception) -> InputError:
    """Say that Arrow cannot handle a type, or Parquet not hold it."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    rule = "columns that Arrow can handle and Parquet can hold"
    return InputError(rule, reason, str(shard.source))

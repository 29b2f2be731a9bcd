"""Score files as streams: bounded memory, whole outputs or none, resumed after a kill.

One output per input, with the kept columns and a float32 column `score`, rows in order.
"""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any, Literal

from din_infer.device import MOST_THREADS
from din_infer.errors import FIELDS, InputError, check_count, check_kind
from din_infer.jobs import BATCH_ROWS, MAX_BAD_ROWS
from din_infer.jobs.data_files import Note, ignore
from din_infer.jobs.forms import OnError
from din_infer.jobs.ledger import Ledger
from din_infer.jobs.progress import show_progress
from din_infer.jobs.shards import Job, Run, Shard, Summary
from din_infer.jobs.sources import STDIN, Identity, Source, find_sources
from din_infer.jobs.text_options import NULL_TEXTS, TextOptions, texts_of
from din_infer.local_path import local_path
from din_infer.predictor import Predictor
from din_infer.session import available_cpus
from din_infer.version import __version__
from din_infer.whole_file import writing

__all__ = ["JobError", "Summary", "score_files"]


class JobError(InputError):
    """Some outputs of a job could not be made.

    Attributes
    ----------
    rule, got, column, ...
        Of the first input that failed.
    summary : Summary
        Of the outputs that were made, and of all that failed.
    """

    def __init__(
        self,
        *fields: Any,  # noqa: ANN401
        summary: Summary | None = None,
        **more_fields: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*fields, **more_fields)
        self.summary = summary

    def __str__(self) -> str:
        others = len(self.summary.failed) - 1 if self.summary else 0
        more = f" (and {others} more of the inputs have no output)" if others else ""
        return super().__str__() + more


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
    separator: str | None = None,
    delimiter: str | None = None,
    header: bool = True,
    columns: Sequence[str] = (),
    null_texts: Sequence[str] = NULL_TEXTS,
    escape: str | None = None,
    quoted_empty: Literal["list", "element"] = "list",
    workers: int | None = None,
    resume: bool = False,
    add: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    on_note: Note = ignore,
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
        Columns to copy to the output, before `score`: as they are, of CSV as text; or
        ``"event_id:int64"``, cast to string, int64, float64, bool, date or timestamp.
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
    separator : str, optional
        Between the elements of lists in CSV: the `list_separator` of `TextOptions`.
    delimiter, header, columns, null_texts, escape, quoted_empty
        How text is written, as `TextOptions` describes it.
    workers : int, optional
        Batches that are scored at the same time. By default as many as CPUs, of a
        predictor of one thread; 2 of others, so that one encodes while one runs.
    resume : bool
        Go on with a job that was begun, alone or beside other processes; begin it where
        it was not. What is whole is not made again, and its inputs must have the same
        content; other inputs are taken as they are now, or left out if not given.
    add : bool
        With `resume`: take up inputs that the job does not have yet.
    overwrite : bool
        Begin anew, and replace outputs that exist; without it they are an InputError.
    progress : bool
        Show a bar on stderr when that is a terminal, else write a line a minute.
    on_note : callable
        Called at once with each sentence that `Summary.notes` collects.

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
    inputs = [i if str(i) == STDIN else local_path(i, "inputs") for i in inputs]
    out = local_path(out, "out")
    if not inputs:
        raise InputError("at least one file", "none", "inputs")
    batch_size = check_count(batch_size, "batch_size")
    max_bad_rows = check_count(max_bad_rows, "max_bad_rows", 0)
    if workers is not None:
        workers = check_count(workers, "workers", most=MOST_THREADS)
    if resume and overwrite:
        raise InputError("resume or overwrite", "both", "resume")
    if add and not resume:
        raise InputError("resume beside add", "add alone", "add")
    check_kind(predictor, Predictor, "predictor")
    if workers is None:
        workers = available_cpus() if predictor.threads == 1 else 2
    text = TextOptions(
        separator, delimiter, header, columns, null_texts, escape, quoted_empty
    )
    job = Job(
        predictor,
        texts_of(keep, "keep"),
        explode,
        on_error,
        max_bad_rows,
        batch_size,
        text,
        format,
    )
    started = time.perf_counter()
    threads = predictor.threads if predictor.threads > 1 else workers
    summary = Summary(predictor.model_id, predictor.device, threads)

    def note(text: str) -> None:
        summary.notes.append(text)
        on_note(text)

    _check_apart(inputs, out)
    sources = find_sources(inputs, format, note)
    text.check_formats([source.format for source in sources])
    shards = _look(job, sources, out, resume=resume)
    about = {
        "versions": {"din-infer": __version__, "pyarrow": version("pyarrow")},
        "model_id": predictor.model_id,
        "options": job.options(),
    }
    with (
        writing("the scores", out),
        closing(
            Ledger(
                out,
                about,
                [s.describe() for s in shards],
                resume=resume,
                add=add,
                overwrite=overwrite,
                same=lambda k, then: shards[k].has_content(then),
                on_note=note,
            )
        ) as ledger,
        _bar(shards, progress) as bar,
    ):
        for shard, name in zip(shards, ledger.names, strict=True):
            shard.source = replace(shard.source, target=PurePath(name))
        for k in ledger.gone:
            shards[k].error = None
        run = Run(job, ledger, summary, bar, workers)
        run.score_all(shards)
        if not summary.failed:
            ledger.finish_job()
    summary.seconds = time.perf_counter() - started
    if summary.failed:
        first = run.errors[0]
        known = {"rule": str(first)}
        if isinstance(first, InputError):
            known = {name: getattr(first, name) for name in FIELDS}
        raise JobError(**known, summary=summary)
    return summary


def _check_apart(inputs: Sequence[str | Path], out: Path) -> None:
    """Refuse outputs inside a folder of inputs: the next job would read them."""
    for item in map(Path, inputs):
        place = Path(os.path.realpath(out))
        folder = Path(os.path.realpath(item))
        if os.path.isdir(item) and place.is_relative_to(folder):  # noqa: PTH112
            inside = place.relative_to(folder).parts
            if not any(part.startswith((".", "_")) for part in inside):
                rule = "an --out folder outside of the inputs'"
                raise InputError(rule, f"'{out}'", str(item))


def _look(
    job: Job, sources: Sequence[Source], out: Path, *, resume: bool
) -> list[Shard]:
    """Open every input once: what can never be scored is known before one is."""
    shards = []
    for k, source in enumerate(sources):
        shard = Shard(k, source, None)
        shards.append(shard)
        if source.path is None:
            if resume:
                rule = "inputs that can be read again to resume"
                raise InputError(rule, "stdin", "inputs")
            shard.ready = job.open(source)
            continue
        target = os.path.abspath(out / source.target)  # noqa: PTH100
        if os.path.realpath(source.path) == os.path.realpath(target):
            rule = "an --out folder other than the input's"
            raise InputError(rule, f"'{out}'", str(source))
        try:
            shard.identity = Identity.of(source.path)
            reader, scorer = job.open(source)
            shard.num_rows, shard.columns = reader.num_rows, tuple(scorer.columns)
            reader.close()
        except OSError as error:
            kind = source.format.replace("parquet", "Parquet")
            shard.error = InputError(f"a readable {kind} file", error, str(source))
        except InputError as error:
            shard.error = error
    errors = [s.error for s in shards if s.error is not None]
    if errors and len(errors) == len(shards):
        raise errors[0]
    return shards


def _bar(shards: Sequence[Shard], progress: bool) -> Any:  # noqa: ANN401
    known = [s.num_rows for s in shards if s.error is None]
    total = None if None in known else sum(n for n in known if n is not None)
    return show_progress(total, "scoring", progress)

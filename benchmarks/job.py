"""Time whole jobs on files: Parquet with raw histories in, Parquet with scores out.

A table of click events (user, candidate, price, a history of 0 to 50 goods and their
categories; keys of 13 bytes, goods Zipf) is scored by a DIN of the paper's widths:
D = 64, attention 80-40, tower 200-80, Dice. Table and model are made once per --folder;
empty it when the converter changes. Each contestant is a process of its own on the same
CPUs. In a round that does not count, all scores are compared with Predictor.score's;
one that is off by more than 1e-5 ends the run with status 1. Then all take turns, and
are compared again each time. Figures are medians over the rounds.

contestants:
  din-score        the command, from its start to its end
  in-memory        Predictor.score on a table that was read before, in one call;
                   -8192: in slices of so many rows; the faster one is the reference
  straightforward  benchmarks.straightforward: pandas factorizes the exploded strings,
                   distinct ones are hashed, NumPy pads, a textbook module scores in
                   batches of 4096; -packed: this package's torch DIN does, which skips
                   padding

columns: `job s` is what a process says of its own work; `start-up s` is the rest of it,
imports and loading the model. `rows/s` is of the job. `peak MB` is the largest resident
memory of the process; `anonymous` is what of it is no mapped file (such as the tables),
sampled. Files that are read were just written, so they come from the system's memory.

to run it:
  python -m benchmarks.job --json job.json > job.md
  python -m benchmarks.job --rounds 0 --rss-rows 50000 5000000
      memory alone: the peak of din-score on the first and on the second number of rows
  python -m benchmarks.job --scaling --json scaling.json > scaling.md
      what a million rows cost, as rows, T, D and N change one at a time, and what
      tables cost to load
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import scaling
from benchmarks.events import MOST_GOODS, Shape, write_events, write_model
from benchmarks.machine import describe_run
from benchmarks.processes import (
    Files,
    Finished,
    check,
    din_score,
    in_memory,
    packed,
    straightforward,
)
from benchmarks.tables import hold, markdown, number, sentence
from benchmarks.timing import WrongOutputError
from din_infer import Predictor
from din_infer.whole_file import write_whole

__all__ = ["main"]

PACKAGES = ("onnxruntime", "pyarrow", "pandas", "torch")
WANTED_OF_MEMORY_RATE = 0.8
WANTED_OF_STRAIGHTFORWARD = 12.0
WANTED_MORE_MB = 64.0
HEAD_ROWS = 1 << 16
ABOUT = {
    "din-score": "the command: read, encode, score, write",
    "in-memory": "Predictor.score, one call",
    "in-memory-8192": "Predictor.score, slices of 8192 rows",
    "straightforward": "pandas, NumPy, a textbook module in torch",
    "straightforward-packed": "the same with din_converter's DIN",
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.job",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shape = Shape()

    def count(flag: str, default: int, text: str, **options: Any) -> None:  # noqa: ANN401
        about = f"{text} (default: {default:,})"
        parser.add_argument(
            flag, type=int, default=default, metavar="COUNT", help=about, **options
        )

    count("--rows", shape.rows, "rows of the table")
    count("--goods-rows", shape.goods, "different goods, and rows of their table")
    count("--group-rows", shape.group_rows, "rows of a row group")
    count("--threads", 2, "threads, and CPUs, of every contestant")
    count("--rounds", 3, "turns of everyone after the first; 0: no contestants")
    count("--seed", shape.seed, "of all that is random")
    add = parser.add_argument
    add(
        "--rss-rows",
        type=int,
        nargs=2,
        metavar=("SMALL", "LARGE"),
        help="measure what more memory din-score takes on LARGE rows than on SMALL",
    )
    add("--scaling", action="store_true", help="measure how costs grow, and only that")
    add(
        "--table-rows",
        type=int,
        nargs="*",
        default=scaling.TABLE_ROWS,
        metavar="COUNT",
        help="--scaling: goods tables to load (default: "
        + " ".join(f"{n:,}" for n in scaling.TABLE_ROWS)
        + ")",
    )
    add("--folder", type=Path, help="where tables and models are kept between runs")
    add("--json", type=Path, metavar="FILE", help="write all results there as JSON")
    args = parser.parse_args(argv)
    counts = [args.rows, args.goods_rows, args.group_rows, args.threads]
    if min(*counts, *args.table_rows, *(args.rss_rows or [1])) < 1 or args.rounds < 0:
        parser.error("expected counts of at least 1 (rounds: 0)")
    if max(args.goods_rows, *args.table_rows, 0) > MOST_GOODS:
        parser.error(f"expected at most {MOST_GOODS:,} goods")
    if args.scaling and not args.rounds:
        parser.error("expected at least 1 round with --scaling")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns
    -------
    int
        The exit status: 1 when a contestant scores something else than
        Predictor.score, or fails; then no JSON is written.
    """
    args = parse(argv)
    about = describe_run(PACKAGES)
    machine = about["cpu"]
    print(
        f"# benchmarks.job{' --scaling' if args.scaling else ''}\n\n"
        f"{about['date']}, commit {about['commit']}\n"
        f"{machine['model']}, {' '.join(machine['flags'])}, threads: {args.threads}\n"
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        flush=True,
    )
    shape = Shape(
        rows=args.rows,
        goods=args.goods_rows,
        group_rows=args.group_rows,
        seed=args.seed,
    )
    found: dict[str, Any] = {}
    try:
        with opened(args.folder) as folder:
            if args.scaling:
                found = scaling.measure(
                    shape, folder, args.threads, args.rounds, args.table_rows
                )
            else:
                if args.rounds:
                    found["job"] = race(shape, folder, args.threads, args.rounds)
                if args.rss_rows:
                    found["memory"] = compare_memory(
                        shape, folder, args.threads, max(args.rounds, 1), args.rss_rows
                    )
    except (WrongOutputError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.json:
        options = {
            k: str(v) if isinstance(v, Path) else v
            for k, v in vars(args).items()
            if k not in ("json", "folder")
        }
        name = "scaling" if args.scaling else "job"
        document = {"benchmark": name, **about, **options, **found}
        write_whole(args.json, json.dumps(document, indent=1) + "\n")
    return 0


@contextmanager
def opened(folder: Path | None) -> Iterator[Path]:
    """Make the folder that is kept, or one that is not."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="din-benchmark-") as made:
            yield Path(made)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.absolute()


def race(shape: Shape, folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Check the contestants, let them take turns, print and return what they did."""
    with tempfile.TemporaryDirectory(prefix="scores-", dir=folder) as scratch:
        files = Files(
            write_model(shape, folder),
            write_events(shape, folder),
            Path(scratch),
            threads,
        )
        runners = (din_score, in_memory, straightforward, packed)
        errors: dict[str, float] = {}
        turns: list[Finished] = []
        with tqdm(total=len(runners) * (1 + rounds), desc="job", disable=None) as bar:
            first = in_memory(files)
            wanted = first.scores["in-memory"]
            for turn in range(1 + rounds):
                for run in runners:
                    done = first if run is in_memory and not turn else run(files)
                    for key, error in check(done, wanted).items():
                        errors[key] = max(error, errors.get(key, 0.0))
                    if turn:
                        turns.append(done)
                    bar.update()
        size_mb = files.events.stat().st_size / 1e6
    contestants = {key: _summary(key, turns, shape.rows, errors[key]) for key in ABOUT}
    rate = {key: c["rows_per_s"] for key, c in contestants.items()}
    memory_rate = max(rate["in-memory"], rate["in-memory-8192"])
    ours, other = contestants["din-score"], contestants["straightforward"]
    figures = [
        hold(
            "rows/s of din-score / the faster in-memory",
            rate["din-score"] / memory_rate,
            at_least=WANTED_OF_MEMORY_RATE,
        ),
        hold(
            "rows/s of din-score / straightforward",
            rate["din-score"] / rate["straightforward"],
            at_least=WANTED_OF_STRAIGHTFORWARD,
        ),
        hold(
            "rows/s of din-score / straightforward-packed",
            rate["din-score"] / rate["straightforward-packed"],
        ),
        hold(
            "whole process, straightforward / din-score",
            other["process_s"] / ours["process_s"],
        ),
    ]
    heads = ("contestant", "what", "rows/s", "job s", "start-up s", "peak MB")
    table = [(*heads, "anonymous", "error")]
    table += [
        (
            key,
            str(c["what"]),
            number(c["rows_per_s"], ",.0f"),
            number(c["job_s"], ".3f"),
            number(c["start_up_s"], ".3f"),
            number(c["peak_mb"], ",.0f"),
            number(c["peak_anonymous_mb"], ",.0f"),
            number(c["error"], ".1e"),
        )
        for key, c in contestants.items()
    ]
    print(
        f"\n## job: {shape.rows:,} rows, histories of 0 to {shape.t}, "
        f"{shape.goods:,} goods\n\n"
        f"{size_mb:,.0f} MB of Parquet, row groups of {shape.group_rows:,}; rounds: "
        f"{rounds}\n\n{markdown(table, texts=2)}\n\n"
        + "\n".join(map(sentence, figures)),
        flush=True,
    )
    return {"input_mb": size_mb, "contestants": contestants, "wanted": figures}


def _summary(
    key: str, turns: Sequence[Finished], rows: int, error: float
) -> dict[str, Any]:
    """Take the medians of one contestant.

    In memory there is no start-up to speak of: the process reads and checks as well.
    """
    mine = [t for t in turns if key in t.inner_s]
    job_s = [t.inner_s[key] for t in mine]
    alone = not key.startswith("in-memory")
    process_s = [t.usage["seconds"] for t in mine] if alone else []
    start_up = [w - j for w, j in zip(process_s, job_s, strict=True)] if alone else []
    return {
        "what": ABOUT[key],
        "rows_per_s": rows / median(job_s),
        "job_s": median(job_s),
        "process_s": _middle(process_s),
        "start_up_s": _middle(start_up),
        "cpu_s": median(t.usage["cpu_seconds"] for t in mine) if alone else None,
        "peak_mb": median(t.usage["peak_mb"] for t in mine) if alone else None,
        "peak_anonymous_mb": _sampled(mine) if alone else None,
        "error": error,
        "all_job_s": job_s,
        "all_process_s": process_s,
    }


def _middle(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _sampled(turns: Sequence[Finished]) -> float | None:
    """Return the median peak of anonymous memory, where the system tells it."""
    peaks = [t.usage["peak_anonymous_mb"] for t in turns]
    return _middle([p for p in peaks if p is not None])


def compare_memory(
    shape: Shape, folder: Path, threads: int, rounds: int, sizes: Sequence[int]
) -> dict[str, Any]:
    """Run din-score on two numbers of rows; print and return its peaks."""
    shapes = [replace(shape, rows=rows) for rows in sizes]
    model = write_model(shape, folder)
    predictor = Predictor(model, device="cpu", threads=threads)
    turns: list[list[Finished]] = [[] for _ in shapes]
    with (
        tempfile.TemporaryDirectory(prefix="scores-", dir=folder) as scratch,
        tqdm(total=len(shapes) * rounds, desc="memory", disable=None) as bar,
    ):
        for _ in range(rounds):
            for one, done in zip(shapes, turns, strict=True):
                events = write_events(one, folder)
                files = Files(model, events, Path(scratch), threads)
                finished = din_score(files)
                check(_head(finished, one.rows), _score_head(predictor, events))
                done.append(finished)
                bar.update()
    rows: list[Mapping[str, Any]] = [
        {
            "rows": one.rows,
            "input_mb": write_events(one, folder).stat().st_size / 1e6,
            "job_s": median(t.inner_s["din-score"] for t in done),
            "peak_mb": median(t.usage["peak_mb"] for t in done),
            "peak_anonymous_mb": _sampled(done),
        }
        for one, done in zip(shapes, turns, strict=True)
    ]
    more = rows[1]["peak_mb"] - rows[0]["peak_mb"]
    figure = hold("more MB at the peak", more, at_most=WANTED_MORE_MB)
    table = [("rows", "input MB", "job s", "rows/s", "peak MB", "anonymous")]
    table += [
        (
            f"{r['rows']:,}",
            number(r["input_mb"], ",.0f"),
            number(r["job_s"], ".2f"),
            number(r["rows"] / r["job_s"], ",.0f"),
            number(r["peak_mb"], ",.0f"),
            number(r["peak_anonymous_mb"], ",.0f"),
        )
        for r in rows
    ]
    print(
        f"\n## memory: din-score on {sizes[0]:,} and on {sizes[1]:,} rows\n\n"
        f"{markdown(table, texts=0)}\n\n{sentence(figure)}",
        flush=True,
    )
    return {"sizes": rows, "wanted": [figure]}


def _head(finished: Finished, rows: int) -> Finished:
    """Take the first scores, once it is known that there are as many as rows."""
    scores = finished.scores["din-score"]
    if len(scores) != rows:
        message = f"expected {rows} scores, got {len(scores)} - at `din-score`"
        raise WrongOutputError(message)
    return replace(finished, scores={"din-score": scores[:HEAD_ROWS]})


def _score_head(predictor: Predictor, events: Path) -> NDArray[np.float32]:
    with pq.ParquetFile(events) as file:
        return predictor.score(next(file.iter_batches(HEAD_ROWS)))


if __name__ == "__main__":
    sys.exit(main())

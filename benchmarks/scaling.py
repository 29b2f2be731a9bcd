"""How the cost of a job grows: with rows, T, D, N, and with the size of the tables.

``python -m benchmarks.job --scaling`` runs it. One thing changes at a time, from a base
of T = 50, D = 64, N = 1. T is the longest history, and lengths are uniform in 0..T; D
is the width of a behavior; N is how many candidates a request has, in rows that follow
each other, or in one row with lists of candidates. A row is always a candidate.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.events import Shape, write_events, write_model
from benchmarks.processes import (
    Files,
    Finished,
    check,
    din_score,
    forget,
    in_memory,
)
from benchmarks.tables import markdown, number

__all__ = ["TABLE_ROWS", "Sweep", "measure", "sweeps"]

BILLION = 1_000_000_000
CPUS = (1, 16, 64, 256, 1024)
TABLE_ROWS = (1_000_000, 4_000_000, 8_000_000)
DTYPES = ("fp32", "fp16")
CANDIDATES = (1, 10, 100, 500)


@dataclass(frozen=True)
class Sweep:
    """Shapes that differ in one thing, by what it is there."""

    name: str
    about: str
    points: Mapping[int, Shape]

    @property
    def letter(self) -> str:
        """The thing that changes: rows, T, D or N."""
        return self.name.partition(" ")[0]


def sweeps(base: Shape) -> tuple[Sweep, ...]:
    """List what is changed, one at a time."""
    return (
        Sweep(
            "rows",
            "rows of the file",
            {
                n: replace(base, rows=n)
                for n in (base.rows // 4, base.rows, base.rows * 4)
            },
        ),
        Sweep(
            "T",
            "histories of 0 to T",
            {t: replace(base, t=t) for t in (10, 50, 200)},
        ),
        Sweep(
            "D",
            "width of a behavior, as two fields",
            {2 * d: replace(base, dim=d) for d in (8, 32, 64)},
        ),
        Sweep(
            "N",
            "candidates of a request, in rows that follow each other",
            {n: replace(base, n=n) for n in CANDIDATES},
        ),
        Sweep(
            "N in lists",
            "the same candidates, in lists of one row; din-score --explode",
            {1: base, **{n: replace(base, n=n, nested=True) for n in CANDIDATES[1:]}},
        ),
    )


def measure(
    base: Shape, folder: Path, threads: int, rounds: int, table_rows: Sequence[int]
) -> dict[str, Any]:
    """Measure, print and return everything."""
    with tempfile.TemporaryDirectory(prefix="scores-", dir=folder) as scratch:
        jobs = _Jobs(folder, Path(scratch), threads, rounds)
        found: dict[str, Any] = {"sweeps": jobs.run_sweeps(base)}
        if table_rows:
            found["tables"] = jobs.load_tables(base, table_rows)
    return found


@dataclass(frozen=True)
class _Jobs:
    folder: Path
    scratch: Path
    threads: int
    rounds: int

    def files(self, shape: Shape) -> Files:
        """Make what a job of this shape reads."""
        model = write_model(shape, self.folder)
        events = write_events(shape, self.folder)
        return Files(model, events, self.scratch, self.threads, shape.nested)

    def run_sweeps(self, base: Shape) -> list[dict[str, Any]]:
        """Run din-score on every shape, compared with a table in memory, in turns."""
        all_of = sweeps(base)
        shapes = dict.fromkeys(s for sweep in all_of for s in sweep.points.values())
        memory: dict[Shape, Finished] = {}
        turns: dict[Shape, list[Finished]] = {s: [] for s in shapes}
        with tqdm(
            total=len(shapes) * (1 + self.rounds), desc="sweeps", disable=None
        ) as bar:
            for turn in range(1 + self.rounds):
                for shape in shapes:
                    files = self.files(shape)
                    flat = replace(shape, nested=False)
                    if flat not in memory:
                        memory[flat] = in_memory(self.files(flat))
                    done = din_score(files)
                    check(done, memory[flat].scores["in-memory"])
                    if turn:
                        turns[shape].append(done)
                    bar.update()
        found = []
        for sweep in all_of:
            rows = [
                {sweep.letter: value, **self._row(s, memory, turns[s])}
                for value, s in sweep.points.items()
            ]
            own = self._row(base, memory, turns[base])["s_per_million_rows"]
            for row in rows:
                row["times_base"] = row["s_per_million_rows"] / own
            found.append({"sweep": sweep.name, "about": sweep.about, "rows": rows})
            _show(sweep, rows)
        _show_plan(self._row(base, memory, turns[base]), self.threads)
        return found

    def _row(
        self,
        shape: Shape,
        memory: Mapping[Shape, Finished],
        turns: Sequence[Finished],
    ) -> dict[str, Any]:
        in_memory_s = min(memory[replace(shape, nested=False)].inner_s.values())
        job_s = [t.inner_s["din-score"] for t in turns]
        per_million = 1e6 / shape.rows
        return {
            "behaviors_per_row": shape.t / 2,
            "job_s": median(job_s),
            "s_per_million_rows": median(job_s) * per_million,
            "in_memory_s_per_million_rows": in_memory_s * per_million,
            "rows_per_s": shape.rows / median(job_s),
            "peak_mb": median(t.usage["peak_mb"] for t in turns),
            "input_mb_per_million_rows": self.files(shape).events.stat().st_size
            / shape.rows,
            "output_mb_per_million_rows": turns[0].output_bytes / shape.rows,
            "all_job_s": job_s,
        }

    def load_tables(self, base: Shape, sizes: Iterable[int]) -> list[dict[str, Any]]:
        """Load models of several sizes, from the disk and from the system's memory."""
        shapes = [
            replace(base, goods=size, dtype=dtype) for size in sizes for dtype in DTYPES
        ]
        cold: dict[Shape, list[Finished]] = {s: [] for s in shapes}
        warm: dict[Shape, list[Finished]] = {s: [] for s in shapes}
        is_cold = False
        with tqdm(
            total=2 * len(shapes) * self.rounds, desc="tables", disable=None
        ) as bar:
            for _ in range(self.rounds):
                for shape in shapes:
                    files = self.files(shape)
                    for turns in (cold, warm):
                        if turns is cold:
                            is_cold = all([forget(f) for f in _parts(files.model)])
                        done = in_memory(files, ("whole", "whole"), warm=False)
                        check(done, (cold[shape] or [done])[0].scores["in-memory"])
                        turns[shape].append(done)
                        bar.update()
        rows = [
            {
                "goods": s.goods,
                "dtype": s.dtype,
                "model_mb": sum(f.stat().st_size for f in _parts(self.files(s).model))
                / 1e6,
                "load_s": _middle(warm[s], "load_s"),
                "cold_load_s": _middle(cold[s], "load_s") if is_cold else None,
                "loaded_mb": _middle(warm[s], "loaded", "rss_mb"),
                "mapped_loaded_mb": _middle(warm[s], "loaded", "mapped_mb"),
                "mapped_scored_mb": _middle(warm[s], "scored", "mapped_mb"),
                "first_s": _middle(warm[s], "passes", 0, "seconds"),
                "second_s": _middle(warm[s], "passes", 1, "seconds"),
                "cold_first_s": _middle(cold[s], "passes", 0, "seconds")
                if is_cold
                else None,
                "minor_faults": _middle(warm[s], "passes", 0, "minor_faults"),
                "cold_major_faults": _middle(cold[s], "passes", 0, "major_faults")
                if is_cold
                else None,
            }
            for s in shapes
        ]
        _show_tables(base, rows)
        return rows


def _parts(model: Path) -> list[Path]:
    """List a model's files."""
    return [model, *sorted(model.parent.glob("*.data"))]


def _middle(turns: Sequence[Finished], *path: str | int) -> float | None:
    """Take the median of what each process printed at a place."""
    found = []
    for turn in turns:
        value: Any = turn.printed
        for key in path:
            if isinstance(value, Mapping) and key not in value:
                return None  # memory, where the system does not tell
            value = value[key]
        found.append(value)
    return float(median(found))


def _show(sweep: Sweep, rows: Sequence[Mapping[str, Any]]) -> None:
    heads = (sweep.letter, "s per million rows", "times base", "rows/s")
    table = [(*heads, "in memory, s", "input MB", "peak MB")]
    table += [
        (
            f"{row[sweep.letter]:,}",
            number(row["s_per_million_rows"], ".2f"),
            number(row["times_base"], ".2f"),
            number(row["rows_per_s"], ",.0f"),
            number(row["in_memory_s_per_million_rows"], ".2f"),
            number(row["input_mb_per_million_rows"], ",.0f"),
            number(row["peak_mb"], ",.0f"),
        )
        for row in rows
    ]
    lines = [f"\n## {sweep.name}: {sweep.about}\n", markdown(table, texts=0)]
    if sweep.letter == "T":
        slope, start = _line(rows, "behaviors_per_row", "s_per_million_rows")
        costs = f"{start:.2f} us a row and {1000 * slope:.1f} ns a behavior"
        lines.append(f"\n- a line through them: {costs}")
    if sweep.letter == "rows":
        slope, start = _line(rows, "rows", "job_s")
        costs = f"{start:.2f} s a job and {1e6 * slope:.2f} s a million rows"
        lines.append(f"\n- a line through them: {costs}")
    print("\n".join(lines), flush=True)


def _show_plan(row: Mapping[str, Any], threads: int) -> None:
    """Reckon what a billion rows of the base would take on so many CPUs."""
    rate = row["rows_per_s"] / threads
    table = [("CPUs", "hours", "rows/s", "read MB/s", "written MB/s")]
    for cpus in CPUS:
        millions = rate * cpus / 1e6
        table.append(
            (
                f"{cpus:,}",
                number(BILLION / (rate * cpus) / 3600, ",.2f"),
                number(1e6 * millions, ",.0f"),
                number(row["input_mb_per_million_rows"] * millions, ",.0f"),
                number(row["output_mb_per_million_rows"] * millions, ",.1f"),
            )
        )
    print(
        "\n## plan: a billion rows, reckoned\n\n"
        f"din-score's rate on {threads} CPUs, {rate:,.0f} rows/s each, times the "
        f"CPUs;\n{row['input_mb_per_million_rows']:,.0f} GB in, "
        f"{row['output_mb_per_million_rows']:,.0f} GB out. Whether disks and networks "
        "keep up is not measured.\n\n"
        f"{markdown(table, texts=0)}",
        flush=True,
    )


def _line(
    rows: Sequence[Mapping[str, Any]], along: str, of: str
) -> tuple[float, float]:
    """Fit a line by least squares; returns its slope, and where it starts."""
    slope, start = np.polyfit([r[along] for r in rows], [r[of] for r in rows], 1)
    return float(slope), float(start)


def _show_tables(base: Shape, rows: Sequence[Mapping[str, Any]]) -> None:
    heads = ("goods", "tables", "model MB", "load s", "loaded MB", "of it mapped")
    more = ("mapped, scored", "first s", "second s", "cold load s", "cold first s")
    table = [(*heads, *more, "cold faults")]
    table += [
        (
            f"{row['goods']:,}",
            str(row["dtype"]),
            number(row["model_mb"], ",.0f"),
            number(row["load_s"], ".3f"),
            number(row["loaded_mb"], ",.0f"),
            number(row["mapped_loaded_mb"], ",.0f"),
            number(row["mapped_scored_mb"], ",.0f"),
            number(row["first_s"], ".3f"),
            number(row["second_s"], ".3f"),
            number(row["cold_load_s"], ".3f"),
            number(row["cold_first_s"], ".3f"),
            number(row["cold_major_faults"], ",.0f"),
        )
        for row in rows
    ]
    print(
        f"\n## tables: goods {base.dim} wide, {base.rows:,} rows scored in memory\n\n"
        "`load s` makes a Predictor; `loaded MB` is resident then. The same rows are\n"
        "scored twice, in one call each: the first touches the mapped tables. `cold`\n"
        "begins with the model dropped from the system's memory, so that it is read\n"
        "from the disk; `cold faults` are the reads that the first pass waited for.\n\n"
        f"{markdown(table, texts=2)}",
        flush=True,
    )

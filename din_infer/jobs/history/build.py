"""From files of events to tables of labeled rows: options checked, rows written."""

import os
import time as clock
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.errors import InputError, check_count, check_suffix
from din_infer.formatting import aligned, percent
from din_infer.jobs.data_files import Note, ignore
from din_infer.jobs.history.events import Events, make_events
from din_infer.jobs.history.reading import open_database, open_log
from din_infer.jobs.history.roles import find_columns
from din_infer.jobs.history.rows import GROUP_ROWS, Options, RowMaker, parts
from din_infer.jobs.history.segments import Ints
from din_infer.jobs.history.times import UNITS
from din_infer.jobs.progress import show_progress
from din_infer.local_path import local_path
from din_infer.device import available_cpus
from din_infer.whole_file import draft_folder, move_into_place, writing

__all__ = ["MEMORY", "NEGATIVES_BY", "SPLITS_BY", "Summary", "build"]

NEGATIVES_BY = ("uniform", "seen", "popularity")
SPLITS_BY = ("time", "leave-last-out")
MEMORY = "1500MB"  # of DuckDB, beside which rows are made
PART_EVENTS = 1 << 17  # whose rows are made at a time
GROUP_BYTES = 1 << 27  # of a row group of the output
FILES = ("train.parquet", "valid.parquet", "test.parquet")


@dataclass
class Summary:
    """What a log was made into.

    Attributes
    ----------
    files : dict
        From each path that was written to its rows.
    events, left_out, users, items : int
        Of the log; events that lacked a user, an item or a time.
    positives : int
        Rows of label 1.
    impressions : int
        Rows of label 0 that the log has: shown, and not clicked.
    sampled, missing : int
        Negatives that were drawn; those that were not, since the user has every other
        item.
    users_with_rows : int
    too_short : int
        Targets that were left out for a shorter history than `min_history`.
    lengths : dict
        From each length of a history to how many rows have it.
    seconds : float
    """

    files: dict[str, int] = field(default_factory=dict)
    events: int = 0
    left_out: int = 0
    users: int = 0
    items: int = 0
    positives: int = 0
    impressions: int = 0
    sampled: int = 0
    missing: int = 0
    users_with_rows: int = 0
    too_short: int = 0
    lengths: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """All rows that were written."""
        return sum(self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {"rows": self.rows, **asdict(self)}

    def length_at(self, share: float) -> int:
        """Return the length that so large a share of the rows does not exceed."""
        wanted, seen = share * sum(self.lengths.values()), 0
        for length, count in sorted(self.lengths.items()):
            seen += count
            if seen >= wanted:
                return length
        return 0

    def __str__(self) -> str:
        empty = self.lengths.get(0, 0)
        lines = [
            ("events", f"{self.events:,}", ""),
            ("users", f"{self.users:,}", f"{self.users_with_rows:,} have rows"),
            ("items", f"{self.items:,}", ""),
            ("rows", f"{self.rows:,}", ""),
            ("label 1", f"{self.positives:,}", ""),
            ("label 0", f"{self.impressions + self.sampled:,}", self._zeros()),
            ("no history", f"{empty:,}", f"{percent(self._share(empty))} of the rows"),
            (
                "history",
                f"{self.length_at(0.5):,}",
                f"behaviors in the median; {self.length_at(0.9):,} at 90%,"
                f" {max(self.lengths, default=0):,} at most",
            ),
        ]
        if self.left_out:
            said = "events lacked a user, an item or a time"
            lines.insert(1, ("left out", f"{self.left_out:,}", said))
        if self.too_short:
            said = "targets had a shorter history than --min-history"
            lines.append(("left out", f"{self.too_short:,}", said))
        if self.missing:
            said = "negatives: no other item was found for the user"
            lines.append(("not drawn", f"{self.missing:,}", said))
        shown = aligned(lines, {1}, 0)
        shown += [f"wrote {path}, {rows:,} rows" for path, rows in self.files.items()]
        shown[-1] += f", in {self.seconds:.1f} s"
        return "\n".join(shown)

    def _zeros(self) -> str:
        made = f"{self.sampled:,} drawn" if self.sampled else ""
        seen = f"{self.impressions:,} shown and not clicked" if self.impressions else ""
        return ", ".join(filter(None, (seen, made)))

    def _share(self, count: int) -> float | None:
        return count / self.rows if self.rows else None


def build(
    inputs: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    action: str | None = None,
    label: str | None = None,
    session: str | None = None,
    item_columns: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    behaviors: Sequence[str] | None = None,
    positives: Sequence[str] | None = None,
    impressions: Sequence[str] | None = None,
    click_within: str | float | None = None,
    max_len: int = 50,
    min_history: int = 0,
    window: str | float | None = None,
    gap: str | float = 0,
    time_unit: str | None = None,
    negatives: int | None = None,
    negatives_by: str = "uniform",
    seed: int = 0,
    split: str | None = None,
    valid_fraction: float = 0.1,
    test_fraction: float = 0.0,
    on_error: str = "fail",
    memory: str = MEMORY,
    threads: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
    on_note: Note = ignore,
) -> Summary:
    """Make labeled rows with histories of the raw events of a log.

    A row is a target (a positive, an impression that was not clicked, or a negative
    that was drawn) with the user's behaviors before it. The rows are a function of the
    set of events and the options: the order of events and files, and the number of
    threads, change no byte.

    Parameters
    ----------
    inputs : path or sequence of path
        Parquet, Arrow IPC, CSV, TSV or JSON lines: files, folders of them, patterns.
    out : path
        A ``.parquet`` file; with `split`, a folder for ``train.parquet`` and the others.
    user, item, time : str, optional
        Columns; without them guessed by common names. Users and items are integers or
        text; times integers, numbers, dates, timestamps or ISO 8601 text.
    action : str, optional
        A column of what happened, of which `behaviors`, `positives` and `impressions`
        name values; "none" guesses none.
    label : str, optional
        A column of 0 and 1, for logs of impressions that say which were clicked; "none"
        guesses none.
    session : str, optional
        A column of sessions or requests: behaviors of the target's own are no part of
        its history.
    item_columns : sequence of str, optional
        What describes the item of an event, such as its category: a column of the
        candidate, and of its history where values are single.
    keep : sequence of str
        Columns to copy from the target's event; its negatives have the same.
    behaviors, positives, impressions : sequence of str, optional
        Actions that are part of histories (without it, the positives), that are targets
        of label 1, and that showed an item. A positive belongs to the user's last
        impression of the item before it, or at its time (and of its session): that is
        then a row of label 1, and the positive makes no row. Other impressions are rows
        of label 0.
    click_within : duration, optional
        How long after an impression a positive still belongs to it. Durations are text
        such as "90d", "12h", "5m" or "30s", or a number of the times' own unit.
    max_len : int
        Behaviors in a history, at most: the newest are kept, oldest first.
    min_history : int
        Targets with fewer behaviors are left out.
    window, gap : duration
        A history has the behaviors at least `window` old or younger, and more than
        `gap` old: ``time - window <= t < time - gap``. So what is of the target's own
        moment is never part of it.
    time_unit : {"s", "ms", "us", "ns"}, optional
        Of times that are numbers; without it told by their size.
    negatives : int, optional
        To draw for each positive, all different; 1, or 0 where the log has impressions.
        None of an item that the user has in any event of the log.
    negatives_by : {"uniform", "seen", "popularity"}
        From all items of the log, equally likely; from those with an event before the
        target; or by the positives that items had before the target.
    seed : int
        Of the negatives.
    split : {"time", "leave-last-out"}, optional
        "time": the newest targets are valid and test. "leave-last-out": of each user's
        moments with positives the last is test, the one before valid.
    valid_fraction, test_fraction : float
        Shares of the targets, for a split by time.
    on_error : {"fail", "skip"}
        Of events without a user, an item or a time.
    memory : str
        Of DuckDB; rows take some hundred MB more.
    threads : int, optional
        All CPUs that this process may use.
    overwrite : bool
        Replace what is there.
    progress : bool
        Show it on stderr.
    on_note : callable
        Called with sentences about what was guessed.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        If an option, a file or a column is wrong, or nothing is a positive. Nothing is
        written.
    ModuleNotFoundError
        Without DuckDB: ``pip install "din-infer[history]"``.

    Notes
    -----
    Item columns of a negative are those of the item's last event before the target; of
    its first event, where none is before. A hidden folder beside `out` takes the events
    while rows are made, and is removed.
    """
    started = clock.monotonic()
    paths = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    _check_choice(split, (None, *SPLITS_BY), "--split")
    _check_choice(negatives_by, NEGATIVES_BY, "--negatives-by")
    _check_choice(time_unit, (None, *UNITS), "--time-unit")
    _check_choice(on_error, ("fail", "skip"), "--on-error")
    check_count(max_len, "--max-len")
    check_count(min_history, "--min-history", 0)
    check_count(seed, "--seed", 0)
    if negatives is not None:
        check_count(negatives, "--negatives", 0)
    if threads is not None:
        check_count(threads, "--threads")
    if min_history > max_len:
        rule = f"at most --max-len {max_len}"
        raise InputError(rule, min_history, "--min-history")
    _check_fractions(valid_fraction, test_fraction)
    targets = _targets(local_path(out, "--out"), split, paths, overwrite)
    place = local_path(out, "--out")
    with ExitStack() as stack:
        stack.enter_context(writing("the rows", place))
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = stack.enter_context(draft_folder(place))
        count = threads or available_cpus()
        database = stack.enter_context(closing(open_database(folder, memory, count)))
        log = open_log(database, paths, on_note)
        given = {"user": user, "item": item, "time": time, "action": action}
        given |= {"label": label, "session": session}
        columns = find_columns(
            log.names, {**given, "item_columns": item_columns, "keep": keep}, on_note
        )
        with show_progress(None, "events read", progress) as bar:
            log.copy(columns.all, bar.update)
        actions = {
            "behaviors": behaviors,
            "positives": positives,
            "impressions": impressions,
        }
        events = make_events(
            database,
            log,
            columns,
            actions,
            time_unit=time_unit,
            skip_nulls=on_error == "skip",
            on_note=on_note,
        )
        has_shown = columns.label is not None or bool(
            events.actions and events.actions.impressions
        )
        if negatives is None:
            negatives = 0 if has_shown else 1
        form = events.time
        options = Options(
            max_len=max_len,
            min_history=min_history,
            gap=form.ticks(gap, "--gap") or 0,
            window=form.ticks(window, "--window"),
            click_within=form.ticks(click_within, "--click-within"),
            negatives=negatives,
            negatives_by=negatives_by,
            seed=seed,
            split=split,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
        )
        maker = RowMaker(database, columns, events, options)
        summary = _write(maker, events, folder, progress)
        if not summary.positives:
            rule = "a target that is a positive"
            got = f"none in {events.num_events:,} events"
            raise InputError(rule, got, columns.label or columns.action or columns.user)
        _place(folder, targets)
    summary.files = {str(targets[split]): n for split, n in summary.files.items()}
    summary.seconds = clock.monotonic() - started
    return summary


def _check_choice(value: object, choices: Sequence[object], option: str) -> None:
    if value not in choices:
        rule = "one of " + ", ".join(str(c) for c in choices if c is not None)
        raise InputError(rule, repr(value), option)


def _check_fractions(valid: float, test: float) -> None:
    for value, option in ((valid, "--valid-fraction"), (test, "--test-fraction")):
        if not 0 <= value < 1:
            raise InputError("a share of at least 0 and below 1", value, option)
    if not 0 < valid + test < 1:
        rule = "shares that leave rows to train on, and some to validate on"
        got = f"{valid} and {test}"
        raise InputError(rule, got, "--valid-fraction, --test-fraction")


def _targets(
    out: Path, split: str | None, inputs: Sequence[str | Path], overwrite: bool
) -> dict[str, Path]:
    """Name the files that are written, by split; refuse what is there or is read."""
    for given in inputs:
        if os.path.isdir(given):  # noqa: PTH112
            place, folder = (Path(os.path.realpath(p)) for p in (out, given))
            if place.is_relative_to(folder):
                rule = "an --out outside of the inputs' folder"
                raise InputError(rule, f"'{out}'", str(given))
    if split is None:
        check_suffix(out, (".parquet",), "--out")
        if out.is_dir():
            raise InputError("a file, or nothing", "a folder", str(out))
        targets, old = {"train": out}, [out]
    else:
        if out.exists() and not out.is_dir():
            raise InputError("a folder, or nothing", "a file", str(out))
        old = [out / name for name in FILES]
        targets = {path.stem: path for path in old}
    for path in old:
        if path.exists() and not overwrite:
            fix = "Give --overwrite to replace it."
            raise InputError(
                "a file that is not there yet", "one that is", str(path), fix
            )
    for given in inputs:
        same = [
            path for path in old if os.path.realpath(path) == os.path.realpath(given)
        ]
        if same:
            raise InputError("an --out other than the inputs", f"'{out}'", str(given))
    return targets


class _Writer:
    """One table in the making, in row groups of a bounded size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._schema = schema
        self.rows = 0

    def add(self, made: pa.Table) -> None:
        """Write rows, with those that wait once they are many."""
        self._waiting.append(made)
        self.rows += made.num_rows
        if (
            sum(t.num_rows for t in self._waiting) >= GROUP_ROWS
            or sum(t.nbytes for t in self._waiting) >= GROUP_BYTES
        ):
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting.clear()

    def finish(self) -> None:
        """Write what waits, and the end of the file."""
        self._flush()
        self._writer.close()

    def close(self) -> None:
        """Close the file, whole or not."""
        self._writer.close()


def _write(maker: RowMaker, events: Events, folder: Path, progress: bool) -> Summary:
    """Write the tables of all users into a folder."""
    splits = maker.splits
    lengths: Counter[int] = Counter()
    with (
        ExitStack() as stack,
        show_progress(events.num_events, "events made rows", progress) as bar,
    ):
        writers = {}
        for split in splits:
            writer = _Writer(folder / f"{split}.parquet", maker.schema)
            writers[split] = stack.enter_context(closing(writer))
        sizes = maker.sizes()
        for first, last in parts(sizes, PART_EVENTS):
            for split, made, found in maker.tables(first, last):
                writers[split].add(made)
                lengths.update(_counted(found))
            bar.update(int(sizes[first : last + 1].sum()))
        for writer in writers.values():
            writer.finish()
    counts = maker.counts
    return Summary(
        files={split: writer.rows for split, writer in writers.items()},
        events=events.num_events,
        left_out=events.num_left_out,
        users=events.num_users,
        items=events.num_items,
        positives=counts.positives,
        impressions=counts.impressions,
        sampled=counts.sampled,
        missing=counts.missing,
        users_with_rows=counts.users,
        too_short=counts.too_short,
        lengths=dict(sorted(lengths.items())),
    )


def _counted(lengths: Ints) -> dict[int, int]:
    values, counts = np.unique(lengths, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _place(folder: Path, targets: dict[str, Path]) -> None:
    """Give the files their names; a test of an earlier run goes where none is made."""
    for split, target in targets.items():
        target.parent.mkdir(exist_ok=True)
        made = folder / f"{split}.parquet"
        if made.exists():
            move_into_place(made, target)
        else:
            target.unlink(missing_ok=True)

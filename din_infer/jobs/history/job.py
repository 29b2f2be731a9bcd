"""From files of events to tables of labeled rows: options checked, rows written."""

import time as clock
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from din_infer.device import available_cpus
from din_infer.errors import InputError, check_count
from din_infer.jobs.data_files import Note, ignore
from din_infer.jobs.history.attributes import take_attributes
from din_infer.jobs.history.catalog import Catalog, Options
from din_infer.jobs.history.events import Events, make_events
from din_infer.jobs.history.output import TableWriter, name_targets, place
from din_infer.jobs.history.reading import asking, open_database, open_log
from din_infer.jobs.history.roles import check_apart, find_columns
from din_infer.jobs.history.rows import parts, tables, times_of_targets
from din_infer.jobs.history.segments import Ints
from din_infer.jobs.history.summary import Summary
from din_infer.jobs.history.times import UNITS
from din_infer.jobs.progress import show_progress
from din_infer.local_path import local_path
from din_infer.whole_file import draft_folder, writing

__all__ = ["MEMORY", "NEGATIVES_BY", "SPLITS_BY", "Summary", "build"]

NEGATIVES_BY = ("uniform", "seen", "popularity")
SPLITS_BY = ("time", "leave-last-out")
MEMORY = "1500MB"  # of DuckDB, beside which rows are made
PART_EVENTS = 1 << 17  # whose rows are made at a time


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
        A ``.parquet`` file; with `split`, a folder of ``train.parquet`` and others.
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
        candidate, and of its history where values are single. By default those of
        common names, and those that have one value for all events of an item.
    keep : sequence of str
        Columns to copy from the target's event; its negatives have the same. Where
        `item_columns` is not given, those that have one value for all events of a user
        are kept, too.
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
        moments with positives the last is test, the one before valid. A table without
        rows is an error.
    valid_fraction, test_fraction : float
        Shares of the targets that make rows, for a split by time; of 0 there is no
        table.
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
        If an option, a file or a column is wrong, nothing is a positive, or a table
        would have no rows. Nothing is written.
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
    target = local_path(out, "--out")
    targets = name_targets(target, split, paths, overwrite)
    with ExitStack() as stack:
        stack.enter_context(writing("the rows", target))
        stack.enter_context(asking("events that can be made rows", str(target)))
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = stack.enter_context(draft_folder(target))
        count = threads or available_cpus()
        database = stack.enter_context(closing(open_database(folder, memory, count)))
        log = open_log(database, paths, on_note)
        given = {"user": user, "item": item, "time": time, "action": action}
        given |= {"label": label, "session": session}
        columns, left = find_columns(
            log.names, {**given, "item_columns": item_columns, "keep": keep}, on_note
        )
        taken = log.in_all_files(columns.all, left)
        if taken != left:
            partial = ", ".join(name for name in left if name not in taken)
            on_note(f"not used, since not in all files: {partial}")
        left = taken
        with show_progress(None, "reading events", progress) as bar:
            log.copy([*columns.all, *left], bar.update)
        if left:
            columns = take_attributes(database, columns, left, on_note)
            check_apart(columns)
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
        catalog = Catalog(database, columns, events, options)
        summary = _write(catalog, events, folder, progress)
        if not summary.positives:
            rule = "a target that is a positive"
            got = f"none in {events.num_events:,} events"
            raise InputError(rule, got, columns.label or columns.action or columns.user)
        empty = [name for name, num_rows in summary.files.items() if not num_rows]
        if empty:
            rule = "users of three moments with a positive, for train, valid and test"
            fix = "Give --split time, or a smaller --min-history."
            raise InputError(rule, f"no rows of {' and '.join(empty)}", "--split", fix)
        place(folder, targets)
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


def _write(catalog: Catalog, events: Events, folder: Path, progress: bool) -> Summary:
    """Write the tables of all users into a folder."""
    lengths: Counter[int] = Counter()
    sizes = catalog.sizes()
    ranges = list(parts(sizes, PART_EVENTS))
    if catalog.options.split == "time":
        # what was clicked, and how long histories are, only the rows say
        is_all = not (catalog.matches or catalog.options.min_history)
        made_at = (times_of_targets(catalog, *users) for users in ranges)
        catalog.find_boundaries(None if is_all else made_at)
    with (
        ExitStack() as stack,
        show_progress(events.num_events, "making rows of events", progress) as bar,
    ):
        writers = {}
        for split in catalog.options.splits:
            writer = TableWriter(folder / f"{split}.parquet", catalog.schema)
            writers[split] = stack.enter_context(closing(writer))
        for first, last in ranges:
            for split, made, found in tables(catalog, first, last):
                writers[split].add(made)
                lengths.update(_counted(found))
            bar.update(int(sizes[first : last + 1].sum()))
        for writer in writers.values():
            writer.finish()
    counts = catalog.counts
    return Summary(
        files={split: writer.rows for split, writer in writers.items()},
        roles={
            "user": catalog.columns.user,
            "time": catalog.columns.time,
            "label": "label",
        },
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

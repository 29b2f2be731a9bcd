"""din-history: rows equal those of the slow twin, on logs made to be hard."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from din_infer import InputError
from din_infer.history_cli import main
from din_infer.jobs.history import Summary, build, job, rows
from din_infer.jobs.history.catalog import Options
from din_infer.jobs.history.sampling import NONE, sample_uniform
from din_infer.jobs.history.segments import before, count_before, of_other_sessions
from tests.reference_history import Event, reference_rows
from tests.shared import SHARED, needs_shared

pytestmark = pytest.mark.slow

Row = dict[str, Any]


def write(events: Sequence[Row], path: Path, types: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(events), pa.schema(types)), path)
    return path


def read(path: Path) -> list[Row]:
    found: list[Row] = pq.read_table(path).to_pylist()
    return found


def log(*events: tuple[str, str, int]) -> pa.Table:
    users, items, times = zip(*events, strict=True)
    return pa.table({"user": users, "item": items, "time": pa.array(times, pa.int64())})


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Two users; b comes twice, c and d at one moment; the file is in no order."""
    events = [
        ("u", "d", 30),
        ("v", "a", 15),
        ("u", "b", 20),
        ("u", "a", 10),
        ("u", "c", 30),
        ("u", "b", 40),
        ("v", "e", 50),
        ("w", "f", 60),
    ]
    pq.write_table(log(*events), tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def positives(path: Path) -> dict[tuple[str, str, int], list[str]]:
    return {
        (r["user"], r["item"], r["time"]): r["hist_item"]
        for r in read(path)
        if r["label"]
    }


# ------------------------------------------------------------------------ the slow twin

TYPES = {
    "user": pa.string(),
    "item": pa.int64(),
    "time": pa.int64(),
    "action": pa.string(),
    "session": pa.string(),
    "cate": pa.string(),
}
EVENT = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["a", "b", "", None]),
        "item": st.sampled_from([-(2**63), 0, 1, 2, 3, 2**63 - 1]),
        "time": st.sampled_from([-(2**63), *range(8), 2**63 - 1]),
        "action": st.sampled_from(["click", "click", "view", "cart", None]),
        "session": st.sampled_from([None, "s", "t"]),
        "cate": st.sampled_from([None, "x", "y"]),
    }
)
EVENTS = st.lists(EVENT, min_size=1, max_size=12) | st.lists(
    EVENT, min_size=20, max_size=40
)
OPTIONS = st.fixed_dictionaries(
    {
        "max_len": st.integers(2, 5),
        "min_history": st.integers(0, 2),
        "gap": st.sampled_from([0, 0, 1, 3]),
        "window": st.sampled_from([None, None, 0, 2, 5]),
        "click_within": st.sampled_from([None, 0, 2]),
        "negatives": st.integers(0, 4),
        "negatives_by": st.sampled_from(["uniform", "seen", "popularity"]),
        "seed": st.integers(0, 3),
        "split": st.sampled_from([None, "time", "leave-last-out"]),
        "valid_fraction": st.sampled_from([0.1, 0.4]),
        "test_fraction": st.sampled_from([0.0, 0.2]),
    }
)


@given(EVENTS, OPTIONS, st.booleans(), st.booleans(), st.randoms())
@settings(max_examples=25)
def test_rows_equal_the_slow_twin(
    tmp_path_factory: pytest.TempPathFactory,
    events: list[Row],
    options: dict[str, Any],
    by_action: bool,
    by_session: bool,
    order: random.Random,
) -> None:
    folder = tmp_path_factory.mktemp("twin")
    actions = {e["action"] for e in events}
    by_action = by_action and {"click", "view"} <= actions
    if not by_action:
        options = {**options, "click_within": None}
    log = [
        Event(
            e["user"],
            e["item"],
            e["time"],
            not by_action or e["action"] in ("click", "view"),
            not by_action or e["action"] == "click",
            by_action and e["action"] == "view",
            e["session"] if by_session else None,
            {"cate": e["cate"]},
        )
        for e in events
    ]

    def twin_of(options: dict[str, Any]) -> dict[str, list[Row]]:
        return reference_rows(
            log,
            Options(**options),
            columns=["cate"],
            session=by_session,
            impressions=by_action,
        )

    order.shuffle(events)
    cut = order.randrange(len(events) + 1)
    write(events[:cut], folder / "b.parquet", TYPES)
    write(events[cut:], folder / "a.parquet", TYPES)
    more: dict[str, Any] = {"action": "none"}
    if by_action:
        more = {"action": "action", "positives": ["click"], "impressions": ["view"]}
        more["behaviors"] = ["click", "view"]

    def run(options: dict[str, Any]) -> Summary:
        return build(
            [folder / "a.parquet", folder / "b.parquet"],
            folder / ("out" if options["split"] else "out.parquet"),
            item_columns=["cate"],
            session="session" if by_session else None,
            on_error="skip",
            threads=1,
            **options,
            **more,
        )

    twin = twin_of(options)
    if options["split"] and not all(twin.values()):
        with pytest.raises(InputError) as caught:
            run(options)
        assert caught.value.rule.startswith(
            (
                "a target that is a positive",
                "targets of several times, to part ",
                "users of three moments with a positive, for train, valid and test",
            )
        )
        options = {**options, "split": None}
        twin = twin_of(options)
    if not any(row["label"] for part in twin.values() for row in part):
        with pytest.raises(InputError, match=r"target that is a|several times"):
            run(options)
        return
    summary = run(options)
    for path, rows_of in zip(summary.files, twin.values(), strict=True):
        assert read(Path(path)) == rows_of
    all_rows = [row for part in twin.values() for row in part]
    assert summary.rows == len(all_rows)
    assert summary.positives == sum(row["label"] for row in all_rows)
    lengths = [len(row["hist_item"]) for row in all_rows]
    assert summary.lengths == {n: lengths.count(n) for n in sorted(set(lengths))}
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["a.parquet", "b.parquet", "out" if options["split"] else "out.parquet"]
    )


def test_no_order_of_files_threads_or_parts_changes_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random.seed(3)
    events = [
        {
            "user": f"u{random.randrange(30)}",
            "item": random.randrange(50),
            "time": random.randrange(200),
            "cate": random.choice([None, "x", "y"]),
        }
        for _ in range(1000)
    ]
    types = {name: TYPES[name] for name in events[0]}
    written = []
    for threads, group in ((1, 1 << 22), (2, 1 << 22), (2, 1 << 22)):
        random.shuffle(events)
        monkeypatch.setattr(rows, "GROUP_ELEMENTS", group)
        folder = tmp_path / str(len(written))
        folder.mkdir()
        for k in range(3):
            write(events[k::3], folder / f"{k}.parquet", types)
        out = tmp_path / f"{len(written)}.parquet"
        build(folder, out, item_columns=["cate"], negatives=2, threads=threads)
        written.append(out.read_bytes())
    assert written[0] == written[1] == written[2]
    # cut into small pieces and parts, the rows are the same
    monkeypatch.setattr(rows, "GROUP_ELEMENTS", 1 << 13)
    monkeypatch.setattr(job, "PART_EVENTS", 300)
    build(folder, tmp_path / "small.parquet", item_columns=["cate"], negatives=2)
    assert read(tmp_path / "small.parquet") == read(out)


def test_zeros_and_nans_that_sort_alike_are_one_each(tmp_path: Path) -> None:
    r = random.Random(9)
    other_nan = float(np.array([0xFFF8 << 48 | 1], np.uint64).view(np.float64)[0])
    values = [0.0, -0.0, 1.5, float("nan"), other_nan, None]
    kinds = [pa.float64(), pa.list_(pa.float32()), pa.list_(pa.list_(pa.float64()))]
    kinds += [pa.list_(pa.float64(), 1), pa.float32()]
    events = [
        {"user": f"u{r.randrange(9)}", "item": r.randrange(12), "time": r.randrange(20)}
        | {"x": r.choice(values), "y": r.choice(values)}
        for _ in range(500)
    ]
    for kind in kinds:

        def put(value: float | None, kind: pa.DataType = kind) -> object:
            if pa.types.is_floating(kind):
                return value
            return None if value is None else [put(value, kind.value_type)]

        written = []
        for _ in range(2):
            r.shuffle(events)
            table = pa.Table.from_pylist(events).drop_columns(["x", "y"])
            for name in "xy":
                cells = pa.array([put(e[name]) for e in events], kind)
                table = table.append_column(name, cells)
            pq.write_table(table, tmp_path / "log.parquet")
            out = tmp_path / "o.parquet"
            build(
                tmp_path / "log.parquet",
                out,
                item_columns=["x"],
                keep=["y"],
                negatives=2,
                overwrite=True,
            )
            written.append(out.read_bytes())
        assert written[0] == written[1], kind
        is_list = pa.types.is_list(pq.read_schema(out).field("x").type)
        assert is_list != pa.types.is_floating(kind)


# -------------------------------------------------------------------------- histories


def test_a_history_is_strictly_before_its_row(made: Path, tmp_path: Path) -> None:
    build(made, tmp_path / "o.parquet")
    assert positives(tmp_path / "o.parquet") == {
        ("u", "a", 10): [],
        ("u", "b", 20): ["a"],
        ("u", "c", 30): ["a", "b"],
        ("u", "d", 30): ["a", "b"],
        ("u", "b", 40): ["a", "b", "c", "d"],
        ("v", "a", 15): [],
        ("v", "e", 50): ["a"],
        ("w", "f", 60): [],
    }


@pytest.mark.parametrize(
    ("options", "last"),
    [
        ({"max_len": 2}, ["c", "d"]),
        ({"gap": 10}, ["a", "b"]),
        ({"gap": 9}, ["a", "b", "c", "d"]),
        ({"window": 20}, ["b", "c", "d"]),
        ({"window": 19}, ["c", "d"]),
        ({"window": 20, "gap": 10}, ["b"]),
        ({"window": 5, "gap": 10}, []),
    ],
)
def test_window_gap_and_length(
    options: dict[str, Any], last: list[str], made: Path, tmp_path: Path
) -> None:
    build(made, tmp_path / "o.parquet", **options)
    assert positives(tmp_path / "o.parquet")["u", "b", 40] == last


@pytest.mark.parametrize("unit", ["", "s"])
def test_durations_between_whole_times_are_exact(unit: str, tmp_path: Path) -> None:
    events = log(("u", "a", 100), ("u", "b", 102), ("u", "c", 103))
    pq.write_table(events, tmp_path / "log.parquet")
    for option, wanted in (
        ("gap", [[], ["a"], ["a"]]),  # more than 1.5 old
        ("window", [[], [], ["b"]]),  # at most 1.5 old
    ):
        build(
            tmp_path / "log.parquet",
            tmp_path / "o.parquet",
            negatives=0,
            time_unit="s",
            overwrite=True,
            **{option: f"1.5{unit}"},  # type: ignore[arg-type]
        )
        found = read(tmp_path / "o.parquet")
        assert [r["hist_item"] for r in found] == wanted


def test_a_click_belongs_to_the_last_impression_in_exact_time(tmp_path: Path) -> None:
    events = log(("u", "a", 100), ("u", "a", 102), ("u", "b", -(2**63)))
    events = pa.concat_tables([events, log(("u", "b", 2**63 - 1))])
    did = pa.array(["show", "click", "show", "click"])
    pq.write_table(events.append_column("action", did), tmp_path / "log.parquet")
    build(
        tmp_path / "log.parquet",
        tmp_path / "o.parquet",
        positives=["click"],
        impressions=["show"],
        time_unit="s",
        click_within="1500ms",
    )
    assert [r["label"] for r in read(tmp_path / "o.parquet")] == [0, 0, 1, 1]


def test_rows_of_the_own_session_are_no_history(tmp_path: Path) -> None:
    events = log(("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "d", 4))
    events = events.append_column("visit", pa.array(["x", "y", "x", None]))
    pq.write_table(events, tmp_path / "log.parquet")
    build(
        tmp_path / "log.parquet", tmp_path / "o.parquet", session="visit", negatives=0
    )
    assert [r["hist_item"] for r in read(tmp_path / "o.parquet")] == [
        [],
        ["a"],
        ["b"],
        ["a", "b", "c"],
    ]


@given(st.data())
def test_sessions_are_left_out_of_segments(data: st.DataObject) -> None:
    session = data.draw(st.lists(st.integers(-1, 2), max_size=12))
    num = len(session)
    start = data.draw(st.lists(st.integers(0, num), max_size=4))
    stop = [data.draw(st.integers(s, num)) for s in start]
    own = [data.draw(st.integers(-1, 2)) for _ in start]
    most = data.draw(st.integers(1, 5))
    arrays = [np.array(x, np.int64) for x in (start, stop, session, own)]
    positions, lengths = of_other_sessions(*arrays, most)
    wanted = [
        [p for p in range(a, b) if session[p] != s or s < 0][-most:]
        for a, b, s in zip(start, stop, own, strict=True)
    ]
    assert lengths.tolist() == [len(w) for w in wanted]
    assert positions.tolist() == [p for w in wanted for p in w]


def test_times_do_not_wrap() -> None:
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    times = np.array([least, least + 5, 0, most])
    assert before(times, 6).tolist() == [least, least, -6, most - 6]
    assert before(times, float(2**70)).tolist() == [least] * 4
    assert before(times * 1.0, 6).dtype == np.float64


def test_count_before_of_no_values() -> None:
    none = np.zeros(2, np.int64)
    assert count_before(none[:0], none, none, none).tolist() == [0, 0]


# -------------------------------------------------------------------------- negatives


def test_negatives_are_none_of_the_users_items(made: Path, tmp_path: Path) -> None:
    summary = build(made, tmp_path / "o.parquet", negatives=4)
    owned = {"u": set("abcd"), "v": set("ae"), "w": set("f")}
    of_row: dict[tuple[str, str, int], list[str]] = {}
    for row in read(tmp_path / "o.parquet"):
        if row["label"]:
            key = (row["user"], row["item"], row["time"])
        else:
            assert row["user"] == key[0]
            assert row["time"] == key[2]
            of_row.setdefault(key, []).append(row["item"])
    for (user, _, _), drawn in of_row.items():
        assert len(set(drawn)) == len(drawn) == min(4, 6 - len(owned[user]))
        assert not owned[user] & set(drawn)
    assert summary.missing == 5 * 2  # "u" has all but two
    assert "not drawn   10  negatives: no other item was found" in str(summary)


def test_negatives_are_spread_evenly() -> None:
    keys = np.arange(200_000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    size = np.full(len(keys), 10)
    owned = np.array([2, 3, 9])
    start, stop = np.zeros(len(keys), np.int64), np.full(len(keys), 3)
    items = sample_uniform(keys, size, owned, start, stop, 2)
    assert not (items[:, 0] == items[:, 1]).any()
    counts = np.bincount(items.ravel(), minlength=10)
    assert counts[owned].sum() == 0
    share = counts[counts > 0] / len(keys)
    assert np.abs(share - 2 / 7).max() < 0.006  # 5 standard errors
    none = sample_uniform(
        keys[:1],
        np.array([3]),
        np.array([0, 1, 2]),
        *[np.array([n]) for n in (0, 3)],
        2,
    )
    assert none.tolist() == [[NONE, NONE]]


def test_negatives_by_popularity_know_nothing_of_later(tmp_path: Path) -> None:
    past = [("v", "a", t) for t in range(8)] + [("v", "b", 9), ("w", "b", 10)]
    later = [("v", "c", t) for t in range(100, 400)]
    rows_of = [(f"u{k}", "d", 50) for k in range(400)]
    pq.write_table(log(*past, *later, *rows_of), tmp_path / "log.parquet")
    for by, wanted in (("popularity", 0.8), ("seen", 0.5)):
        build(
            tmp_path / "log.parquet",
            tmp_path / "o.parquet",
            negatives_by=by,
            overwrite=True,
        )
        drawn = [
            r["item"]
            for r in read(tmp_path / "o.parquet")
            if not r["label"] and r["user"].startswith("u")
        ]
        assert set(drawn) == {"a", "b"}
        assert abs(drawn.count("a") / len(drawn) - wanted) < 0.1


def test_a_negative_has_the_values_of_before(tmp_path: Path) -> None:
    events = log(
        ("v", "a", 1), ("v", "a", 3), ("u", "b", 2), ("u", "b", 3), ("u", "b", 4)
    )
    events = events.append_column("price", pa.array([1.0, 3.0, 9.0, 9.0, 9.0]))
    pq.write_table(events, tmp_path / "log.parquet")
    build(tmp_path / "log.parquet", tmp_path / "o.parquet")
    found = [r for r in read(tmp_path / "o.parquet") if r["user"] == "u"]
    assert [(r["time"], r["item"], r["price"]) for r in found if not r["label"]] == [
        (2, "a", 1.0),
        (3, "a", 1.0),  # not the one of this moment
        (4, "a", 3.0),
    ]


# ----------------------------------------------------------------- labels and splits


def test_impressions_give_the_labels(tmp_path: Path) -> None:
    events = [
        ("u", "a", 1, "show"),
        ("u", "b", 1, "show"),
        ("u", "b", 2, "click"),
        ("u", "a", 5, "show"),
        ("u", "a", 6, "click"),
        ("u", "c", 7, "click"),  # never shown: a row of its own
        ("u", "a", 7, "scroll"),
    ]
    types = {"user": pa.string(), "item": pa.string(), "time": pa.int64()}
    types["action"] = pa.string()
    rows_of = [dict(zip(types, event, strict=True)) for event in events]
    write(rows_of, tmp_path / "log.parquet", types)
    notes: list[str] = []
    summary = build(
        tmp_path / "log.parquet",
        tmp_path / "o.parquet",
        positives=["click"],
        impressions=["show"],
        on_note=notes.append,
    )
    found = read(tmp_path / "o.parquet")
    assert [(r["time"], r["item"], r["label"], r["hist_item"]) for r in found] == [
        (1, "a", 0, []),
        (1, "b", 1, []),
        (5, "a", 1, ["b"]),
        (7, "c", 1, ["b", "a"]),
    ]
    assert (summary.positives, summary.impressions, summary.sampled) == (3, 1, 0)
    assert notes[1] == (
        "neither behaviors nor targets: scroll of `action`; their items are still never"
        " negatives of the user"
    )


@pytest.mark.parametrize("kind", [pa.int8(), pa.bool_(), pa.string(), pa.float64()])
def test_a_label_gives_the_labels(kind: pa.DataType, tmp_path: Path) -> None:
    events = log(("u", "a", 1), ("u", "b", 2), ("u", "c", 3))
    labels = pa.array([1, 0, 1]).cast(kind)
    pq.write_table(events.append_column("clicked", labels), tmp_path / "log.parquet")
    build(tmp_path / "log.parquet", tmp_path / "o.parquet")
    found = read(tmp_path / "o.parquet")
    assert [(r["label"], r["hist_item"]) for r in found] == [
        (1, []),
        (0, ["a"]),
        (1, ["a"]),
    ]


def test_leave_last_out_takes_the_last_moments(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    summary = build(made, out, split="leave-last-out", negatives=0)
    found = {
        name: [(r["user"], r["item"]) for r in read(out / f"{name}.parquet")]
        for name in ("train", "valid", "test")
    }
    assert found["train"] == [("u", "a"), ("u", "b")]
    assert sorted(found["valid"]) == [("u", "c"), ("u", "d"), ("v", "a")]
    assert found["test"] == [("u", "b"), ("v", "e"), ("w", "f")]
    assert list(summary.files.values()) == [2, 3, 3]


def test_a_split_by_time_has_one_moment_on_one_side(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    build(made, out, split="time", valid_fraction=0.4, test_fraction=0.2, negatives=0)
    times = [
        [r["time"] for r in read(out / f"{name}.parquet")]
        for name in ("train", "valid", "test")
    ]
    assert list(map(sorted, times)) == [[10, 15, 20], [30, 30, 40], [50, 60]]


def test_a_split_of_one_moment_is_refused(tmp_path: Path) -> None:
    pq.write_table(log(("u", "a", 1), ("v", "b", 1)), tmp_path / "log.parquet")
    with pytest.raises(InputError) as caught:
        build(tmp_path / "log.parquet", tmp_path / "o", split="time")
    assert str(caught.value) == (
        "expected targets of several times, to part train from valid, got one time for"
        " both - at `time`. Where there are others, give other shares by"
        " --valid-fraction and --test-fraction."
    )
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]


def test_a_split_by_time_is_of_what_makes_rows(tmp_path: Path) -> None:
    # each impression is bought, which the log has 1,000 later; an early start is cut
    shown = [(f"u{k % 5}", f"i{k}", k) for k in range(100)]
    bought = [(user, item, time + 1000) for user, item, time in shown]
    events = log(*shown, *bought)
    did = pa.array(["show"] * 100 + ["buy"] * 100)
    pq.write_table(events.append_column("action", did), tmp_path / "log.parquet")
    options: dict[str, Any] = {"split": "time", "negatives": 0, "overwrite": True}
    options |= {"test_fraction": 0.2}
    summary = build(
        tmp_path / "log.parquet",
        tmp_path / "o",
        positives=["buy"],
        impressions=["show"],
        **options,
    )
    assert list(summary.files.values()) == [70, 10, 20]
    pq.write_table(events, tmp_path / "log.parquet")
    summary = build(tmp_path / "log.parquet", tmp_path / "o", min_history=20, **options)
    assert summary.too_short == 100
    assert list(summary.files.values()) == [70, 10, 20]


def test_a_split_of_which_a_part_is_empty_is_refused(tmp_path: Path) -> None:
    days = log(*((f"u{k}", "a", k // 10) for k in range(100)))
    pq.write_table(days, tmp_path / "log.parquet")
    options: dict[str, Any] = {"valid_fraction": 0.05, "test_fraction": 0.05}
    with pytest.raises(InputError, match="to part valid from test, got one time for"):
        build(tmp_path / "log.parquet", tmp_path / "o", split="time", **options)
    with pytest.raises(InputError) as caught:
        build(tmp_path / "log.parquet", tmp_path / "o", split="leave-last-out")
    assert str(caught.value) == (
        "expected users of three moments with a positive, for train, valid and test,"
        " got no rows of train and valid - at `--split`. Give --split time, or a"
        " smaller --min-history."
    )
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]


def test_a_split_by_time_without_valid_has_no_such_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(log(("u", "a", 1), ("v", "b", 2)), tmp_path / "log.parquet")
    words = f"{tmp_path}/log.parquet --out {tmp_path}/o --split time --quiet"
    words += " --valid-fraction 0 --test-fraction 0.5"
    assert main(words.split()) == 0
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        "test.parquet",
        "train.parquet",
    ]
    assert "--valid" not in capsys.readouterr().out


# ----------------------------------------------------------------------------- Beauty


@needs_shared
@pytest.mark.slow
def test_beauty_by_it_equals_the_rows_of_the_example(tmp_path: Path) -> None:
    from tests.test_examples import prepare

    source = SHARED / "data" / "beauty"
    prepare.main([str(source), "--out", str(tmp_path / "example")])
    reviews = prepare.read(source)
    names = np.array(reviews.item_names, object)
    starts = np.searchsorted(reviews.user, reviews.user)
    events = {
        "user_id": np.array(reviews.user_names, object)[reviews.user],
        "goods_id": names[reviews.item],
        "time": np.arange(len(reviews.user)) - starts,
    }
    for name, values in (
        ("cate_id", reviews.category),
        ("parent_id", reviews.parent),
        ("brand_id", reviews.brand),
    ):
        events[name] = np.array(values, object)[reviews.item]
    table = pa.table(events)
    table = table.take(np.random.default_rng(0).permutation(table.num_rows))
    pq.write_table(table, tmp_path / "reviews.parquet")
    build(
        tmp_path / "reviews.parquet",
        tmp_path / "ours",
        item_columns=["cate_id", "parent_id", "brand_id"],
        split="leave-last-out",
        negatives=1,
        min_history=1,
    )
    of_item = {"goods_id", "cate_id", "parent_id", "brand_id", "label"}
    owned = set(zip(events["user_id"], events["goods_id"], strict=True))
    for split in ("train", "valid", "test"):
        theirs, ours = (
            pq.read_table(tmp_path / name / f"{split}.parquet")
            for name in ("example", "ours")
        )
        assert set(theirs.column_names) == set(ours.column_names)
        ours = ours.select(theirs.column_names)
        keys = [("user_id", "ascending"), ("time", "ascending")]
        clicked, others = (
            [t.filter(pc.equal(t["label"], k)).sort_by(keys) for t in (theirs, ours)]
            for k in (1, 0)
        )
        assert clicked[0].equals(clicked[1])
        drawn = others[1]
        shared = [name for name in ours.column_names if name not in of_item]
        assert drawn.select(shared).equals(clicked[0].select(shared))
        pairs = zip(
            drawn["user_id"].to_pylist(), drawn["goods_id"].to_pylist(), strict=True
        )
        assert not owned & set(pairs)

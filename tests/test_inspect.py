# ruff: noqa: ANN401 - rows hold anything
"""Inspections against the slow twin, their judgements from both sides, their views.

Above 400 lines: one inspection, seen as numbers, as text, as a picture, by the command.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from din_infer import FeatureSpec, InputError
from din_infer.cli import inspect_main
from din_infer.formatting import width
from din_infer.jobs.inspect import Inspection, inspect_files, write_picture
from din_infer.jobs.inspect import tables as inspect_tables
from din_infer.jobs.inspect.facts import expected_collisions
from din_infer.jobs.inspect.tables import DistinctKeys, buckets_for
from tests.containers import arrow_type
from tests.reference_inspect import inspect_rows

Rows = list[dict[str, Any]]
HASH = {"type": "hash", "buckets": 9}

SPEC: dict[str, Any] = {
    "format": 1,
    "label": "label",
    "group": "user_id",
    "time": "time",
    "user": [
        {
            "name": "user",
            "column": "user_id",
            "dim": 2,
            "encoder": {
                "type": "hash",
                "buckets": 4,
                "hash": "murmur3_32",
                "reduce": "pmod",
            },
        },
        {
            "name": "age",
            "dim": 1,
            "encoder": {"type": "bucketize", "boundaries": [18.0, 30.5]},
        },
    ],
    "candidate": [
        {"name": "goods", "dim": 2, "encoder": {"type": "hash", "buckets": 7}},
        {"name": "cate", "dim": 3, "encoder": {"type": "identity", "buckets": 5}},
        {
            "name": "shop",
            "column": "goods",
            "dim": 2,
            "encoder": {"type": "vocab", "values": ["a", "q"], "unseen": "error"},
        },
        {
            "name": "number",
            "dtype": "int64",
            "dim": 2,
            "encoder": {
                "type": "hash",
                "buckets": 3,
                "reduce": "mod",
                "int_as": "text",
            },
        },
    ],
    "behavior": [
        {
            "name": "history",
            "max_len": 3,
            "fields": {
                "h_goods": "goods",
                "h_cate": "cate",
                "h_age": {
                    "dim": 1,
                    "encoder": {"type": "bucketize", "boundaries": [0.5]},
                },
            },
        },
        {
            "name": "recent",
            "max_len": 2,
            "order": "newest_first",
            "pad_value": "p",
            "fields": {
                "r_goods": {
                    "pairs": "goods",
                    "dim": 2,
                    "encoder": {"type": "vocab", "values": ["a", "b"]},
                }
            },
        },
        {
            "name": "counted",
            "max_len": 4,
            "padding": "attended",
            "length_column": "n",
            "query": ["number"],
            "fields": {"c_number": "number"},
        },
        {
            "name": "dropped",
            "max_len": 2,
            "order": "newest_first",
            "pad_value": 0,
            "pad_inside": "dropped",
            "fields": {
                "d_cate": {
                    "pairs": "cate",
                    "dtype": "int64",
                    "dim": 3,
                    "encoder": {"type": "vocab", "values": [1, 2], "unseen": "missing"},
                }
            },
        },
    ],
    "multi_hot": [
        {
            "name": "tags",
            "side": "candidate",
            "shares": "goods",
            "pooling": "mean",
            "max_len": 2,
        }
    ],
    "dense": [
        {"name": "price", "side": "candidate"},
        {"name": "vector", "side": "user", "dim": 2, "missing": -1.0},
    ],
}
# What can be compared: an identity's values and hashed ones cannot.
PAIRS = {
    "history": [("goods", "h_goods"), ("cate", "h_cate")],
    "recent": [("goods", "r_goods")],
    "counted": [("number", "c_number")],
    "dropped": [],
}
KINDS = {
    "label": "int64",
    "user_id": "string",
    "time": "int64",
    "age": "float",
    "goods": "string",
    "cate": "int64",
    "number": "int64",
    "h_goods": "string[]",
    "h_cate": "int64[]",
    "h_age": "float[]",
    "r_goods": "string[]",
    "c_number": "int64[]",
    "n": "int64",
    "d_cate": "int64[]",
    "tags": "string[]",
    "price": "float",
    "vector": "float[]",
}

words = st.sampled_from(["a", "b", "p", "q", "", "käse", None, "g1", "g2", "g3"])
small = st.sampled_from([None, -2, 0, 1, 2, 3, 4, 5, 900])
numbers = st.sampled_from([None, 0.25, 0.5, 18.0, 40.0])


@st.composite
def tables(draw: st.DrawFn, max_rows: int = 12) -> Rows:
    rows = []
    for _ in range(draw(st.integers(0, max_rows))):
        n = draw(st.integers(0, 6))
        given_null = n == 0 and draw(st.booleans())
        counted = draw(st.lists(small, max_size=5))
        rows.append(
            {
                "label": draw(st.sampled_from([0, 1, 1, 7, None])),
                "user_id": draw(words),
                "time": draw(st.none() | st.integers(-5, 10**12)),
                "age": draw(numbers),
                "goods": draw(words),
                "cate": draw(small),
                "number": draw(small),
                "h_goods": None if given_null else [draw(words) for _ in range(n)],
                "h_cate": None if given_null else [draw(small) for _ in range(n)],
                "h_age": None if given_null else [draw(numbers) for _ in range(n)],
                "r_goods": draw(st.none() | st.lists(words, max_size=5)),
                "c_number": counted,
                "n": draw(st.integers(0, len(counted))),
                "d_cate": draw(st.none() | st.lists(small, max_size=5)),
                "tags": draw(st.none() | st.lists(words, max_size=4)),
                "price": draw(numbers),
                "vector": draw(st.none() | st.lists(numbers, min_size=2, max_size=2)),
            }
        )
    return rows


def write(rows: Rows, path: Path, row_group_size: int = 1000) -> Path:
    arrays = {
        name: pa.array([row[name] for row in rows], arrow_type(kind))
        for name, kind in KINDS.items()
        if all(name in row for row in rows)
    }
    pq.write_table(pa.table(arrays), path, row_group_size=row_group_size)
    return path


def rounded(found: Any) -> Any:
    """Round floats, so that formulas may differ by their rounding."""
    if isinstance(found, dict):
        return {k: rounded(v) for k, v in found.items()}
    if isinstance(found, tuple):
        return tuple(map(rounded, found))
    return round(found, 9) if isinstance(found, float) else found


def numbers_of(found: Inspection) -> dict[str, Any]:
    out = asdict(found)
    for key in ("files", "rows_of_files", "absent"):
        del out[key]
    return rounded(out)  # type: ignore[no-any-return]


def inspect(spec: FeatureSpec, inputs: Any, **options: Any) -> Inspection:
    return inspect_files(spec, inputs, progress=False, **options)


# ----------------------------------------------------------------------- the numbers


@given(data=st.data(), rows=tables())
def test_an_inspection_equals_its_slow_twin(
    data: st.DataObject, rows: Rows, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = FeatureSpec.from_dict(SPEC)
    folder = tmp_path_factory.mktemp("data")
    cut = data.draw(st.integers(0, len(rows)))
    group = data.draw(st.integers(1, 5))
    write(rows[:cut], folder / "1.parquet", group)
    write(rows[cut:], folder / "2.parquet", group)
    found = inspect(spec, folder, batch_size=data.draw(st.integers(1, 13)))
    assert found.files == (str(folder / "1.parquet"), str(folder / "2.parquet"))
    assert (found.rows_of_files, found.absent) == (len(rows), {})
    assert numbers_of(found) == rounded(inspect_rows(spec, rows, PAIRS))
    assert str(found)


@settings(max_examples=10)
@given(rows=tables(), count=st.integers(1, 20))
def test_only_the_first_rows_are_counted_when_told_so(
    rows: Rows, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = FeatureSpec.from_dict(SPEC)
    path = write(rows, tmp_path_factory.mktemp("data") / "1.parquet")
    found = inspect(spec, path, batch_size=3, max_rows=count)
    assert numbers_of(found) == rounded(inspect_rows(spec, rows[:count], PAIRS))
    assert (found.rows, found.rows_of_files) == (min(count, len(rows)), len(rows))
    start = str(found).splitlines()[0]
    if count < len(rows):
        assert start == f"the first {count} of {len(rows)} rows, 1 file"
    else:
        assert start == f"{len(rows)} rows, 1 file"


def test_what_the_data_lacks_of_label_group_and_time_is_left_out(
    tmp_path: Path,
) -> None:
    rows = make_rows(30)
    write(rows, tmp_path / "1.parquet")
    for row in rows:
        del row["label"], row["time"], row["user_id"]
    bare = {**SPEC, "user": SPEC["user"][1:]}
    path = write(rows, tmp_path / "2.parquet")
    for inputs in (path, tmp_path):  # one file of two lacks them: so does the data
        found = inspect(FeatureSpec.from_dict(bare), inputs)
        assert found.absent == {"label": "label", "group": "user_id", "time": "time"}
        assert found.labels is found.users is found.time is None
        assert "no column label: the spec's label is left out" in str(found)
    without = {k: v for k, v in bare.items() if k not in ("label", "group", "time")}
    spec = FeatureSpec.from_dict(without)
    found = inspect(spec, path)
    assert found.absent == {}
    assert numbers_of(found) == rounded(inspect_rows(spec, rows, PAIRS))
    (match,) = found.sequences[0].overlaps[0].matches
    assert match == "rows"


def make_rows(count: int, seed: int = 0) -> Rows:
    """Rows as `tables` draws them, of any number."""
    rng = np.random.default_rng(seed)
    pool = ["a", "b", "p", "q", "g1", "g2", None]
    rows = []
    for i in range(count):
        n = int(rng.integers(0, 6))
        rows.append(
            {
                "label": int(rng.integers(0, 2)),
                "user_id": f"u{rng.integers(0, count // 3 + 1)}",
                "time": 1_700_000_000 + i,
                "age": float(rng.integers(10, 60)),
                "goods": pool[rng.integers(0, 7)],
                "cate": int(rng.integers(0, 7)),
                "number": int(rng.integers(0, 9)),
                "h_goods": [pool[k] for k in rng.integers(0, 7, n)],
                "h_cate": rng.integers(0, 7, n).tolist(),
                "h_age": rng.random(n).tolist(),
                "r_goods": [pool[k] for k in rng.integers(0, 7, n)],
                "c_number": rng.integers(0, 9, n).tolist(),
                "n": n // 2,
                "d_cate": rng.integers(0, 3, n).tolist(),
                "tags": [pool[k] for k in rng.integers(0, 7, n)],
                "price": None if i % 10 == 0 else 1.5,
                "vector": [1.0, 2.0],
            }
        )
    return rows


def test_a_larger_table_equals_its_slow_twin(tmp_path: Path) -> None:
    spec, rows = FeatureSpec.from_dict(SPEC), make_rows(400)
    write(rows, tmp_path / "1.parquet", 150)
    found = inspect(spec, tmp_path, batch_size=64)
    assert numbers_of(found) == rounded(inspect_rows(spec, rows, PAIRS))
    assert found.tables[0].distinct > 100


def test_derived_fields_are_not_inspected_since_they_have_no_column(
    tmp_path: Path,
) -> None:
    derived = {
        "name": "brand",
        "from": "cate",
        "dim": 3,
        "encoder": {"type": "identity", "buckets": 9},
        "lookup": [0, 1, 2, 3, 4],
    }
    fields = {
        **SPEC["behavior"][0]["fields"],
        "h_brand": {"pairs": "brand", "from": "h_cate"},
    }
    behavior = [{**SPEC["behavior"][0], "fields": fields}, *SPEC["behavior"][1:]]
    spec = FeatureSpec.from_dict({**SPEC, "derived": [derived], "behavior": behavior})
    rows = make_rows(20)
    found = inspect(spec, write(rows, tmp_path / "1.parquet"))
    plain = inspect(FeatureSpec.from_dict(SPEC), tmp_path / "1.parquet")
    assert numbers_of(found) == numbers_of(plain)


@pytest.mark.parametrize(
    ("times", "first", "last"),
    [
        (pa.array([3.5, None, -1.25]), "-1.25", "3.5"),
        (
            pa.array([86_400, 0, None], pa.timestamp("s")),
            "1970-01-01 00:00:00",
            "1970-01-02 00:00:00",
        ),
        (
            pa.array([1_500_000, 999_999, None], pa.timestamp("us", "UTC")),
            "1970-01-01 00:00:00Z",
            "1970-01-01 00:00:01Z",
        ),
        (pa.array([400, 2, None], pa.date32()), "1970-01-03", "1971-02-05"),
        (pa.array([1, 10, None], pa.int16()).dictionary_encode(), "1", "10"),
        (pa.array([None, None, None], pa.int64()), None, None),
    ],
)
def test_times_of_any_kind_have_a_first_and_a_last(
    times: pa.Array, first: str | None, last: str | None, tmp_path: Path
) -> None:
    spec = FeatureSpec.from_dict(small_spec(time="t"))
    table = pa.table({"c": ["a", "b", "c"], "h": [["a"], [], None], "t": times})
    pq.write_table(table, tmp_path / "1.parquet")
    found = inspect(spec, tmp_path, batch_size=1)
    assert found.time == (None if first is None else (first, last))


def small_spec(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "candidate": [{"name": "c", "dim": 2, "encoder": HASH}],
        "behavior": [{"name": "s", "max_len": 5, "fields": {"h": "c"}}],
        **changes,
    }


# ------------------------------------------------------------------ many distinct keys


@pytest.mark.parametrize("has_lengths", [True, False])
def test_lengths_may_be_absent(tmp_path: Path, has_lengths: bool) -> None:
    raw = small_spec()
    raw["behavior"][0] |= {"length_column": "n", "pad_value": "p"}
    spec = FeatureSpec.from_dict(raw)
    rows: Rows = [
        {"c": "a", "h": ["a", "p", "b"], "n": 2},
        {"c": "b", "h": ["p", "p"], "n": 1},
        {"c": "b", "h": [], "n": 0},
    ]
    table = pa.Table.from_pylist(rows)
    if not has_lengths:
        table = table.drop_columns(["n"])
        rows = [{k: v for k, v in row.items() if k != "n"} for row in rows]
    pq.write_table(table, tmp_path / "1.parquet")
    found = inspect(spec, tmp_path)
    (sequence,) = found.sequences
    assert sequence.behaviors == 3
    assert [n for n, _ in sequence.histogram] == ([0, 1, 2] if has_lengths else [0, 3])
    assert numbers_of(found) == rounded(inspect_rows(spec, rows, {"s": [("c", "h")]}))


def random_keys(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


@given(
    batches=st.lists(
        st.lists(st.sampled_from([1, 2, 3, 2**63, 2**64 - 1]), max_size=9), max_size=6
    ),
    waiting=st.integers(1, 9),
)
def test_distinct_keys_are_counted_in_any_batches(
    batches: list[list[int]], waiting: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect_tables, "WAITING", waiting)
        counted = DistinctKeys()
        for batch in batches:
            counted.add(np.array(batch, np.uint64))
        counted.finish()
    flat = [k for batch in batches for k in batch]
    assert counted.keys.tolist() == sorted(set(flat))
    assert counted.counts.tolist() == [flat.count(k) for k in sorted(set(flat))]
    assert (counted.num_keys, counted.occurrences) == (len(set(flat)), len(flat))
    assert counted.error == 0.0


@pytest.mark.parametrize("hashed", [True, False], ids=["hashes", "numbers in a row"])
def test_many_keys_are_sampled_and_the_error_is_said(
    hashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_tables, "WAITING", 1000)
    keys = random_keys(100_000) if hashed else np.arange(1, 100_001, dtype=np.uint64)
    counted = DistinctKeys(limit=4096)
    rng = np.random.default_rng(1)
    heavy = np.full(50_000, keys[7])
    for part in np.array_split(
        rng.permutation(np.concatenate([keys, keys, heavy])), 50
    ):
        counted.add(part)
    counted.finish()
    assert 1024 < len(counted.keys) <= 4096
    assert counted.halvings > 0
    assert 0 < counted.error < 0.07
    assert abs(counted.num_keys / 100_000 - 1) < 2 * counted.error
    assert counted.occurrences == 250_000
    assert set(counted.counts.tolist()) <= {2, 50_002}
    # the heavy key counts, sampled or not
    true = (50_000 + 2 * 1000) / 250_000
    share = counted.share_of_top(1)
    assert share is not None
    assert abs(share - true) < 0.03


def test_a_sample_does_not_depend_on_the_order_of_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inspect_tables, "WAITING", 100)
    keys = np.repeat(random_keys(5000), 3)
    made = []
    for seed in (0, 1):
        counted = DistinctKeys(limit=512)
        shuffled = np.random.default_rng(seed).permutation(keys)
        for part in np.array_split(shuffled, 7 + seed):
            counted.add(part)
        made.append(counted.finish())
    np.testing.assert_array_equal(made[0].keys, made[1].keys)
    assert set(made[0].counts.tolist()) == {3} == set(made[1].counts.tolist())


def test_an_estimate_is_called_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_tables, "LIMIT", 256)
    spec = FeatureSpec.from_dict(small_spec(group="c"))
    names = [f"g{i}" for i in range(3000)]
    pq.write_table(
        pa.table({"c": names, "h": [[n] for n in names]}), tmp_path / "1.parquet"
    )
    found = inspect(spec, tmp_path, batch_size=500)
    (table,) = found.tables
    assert abs(table.distinct / 3000 - 1) < 2 * table.error
    assert table.collisions is not None
    assert table.collisions.measured is table.collisions.occurrences is None
    assert table.collisions.wanted_measured is None
    assert table.collisions.expected == expected_collisions(table.distinct, 8)
    assert found.users is not None
    assert found.users.rows_most is None
    assert found.users.rows_mean == 1.0
    said = f"{table.distinct:,} (estimate, +-{table.error:.1%})"
    # in the table, in the advice, and of the users, whose keys are the same here
    assert str(found).count(said) == 3
    said = f"{found.users.distinct:,} (estimate, +-{found.users.error:.1%}) users"
    assert said in str(found)


@pytest.mark.parametrize("num_keys", [2, 3, 10, 1234, 10**6, 10**8])
def test_buckets_for_is_the_smallest_number_that_is_enough(num_keys: int) -> None:
    buckets = buckets_for(num_keys)
    assert expected_collisions(num_keys, buckets) <= 0.01
    assert expected_collisions(num_keys, buckets - 1) > 0.01


def test_collisions_by_chance_are_what_hashing_does(tmp_path: Path) -> None:
    encoder = {"type": "hash", "buckets": 20_001}
    candidate = {"name": "c", "dim": 1, "encoder": encoder}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [candidate]})
    table = pa.table({"c": [f"goods-{i}" for i in range(10_000)]})
    pq.write_table(table, tmp_path / "1.parquet")
    (found,) = inspect(spec, tmp_path).tables
    c = found.collisions
    assert c is not None
    assert c.expected == pytest.approx(1 - (1 - 1 / 20_000) ** 9999)
    assert c.measured == pytest.approx(c.expected, abs=0.02)
    assert c.occurrences == c.measured
    assert c.wanted_measured is not None
    assert c.wanted_buckets is not None
    assert c.wanted_buckets >= 994_894
    assert 0.005 < c.wanted_measured <= 0.01


@pytest.mark.parametrize("num_keys", [400, 2000, 2984])
def test_advice_on_buckets_agrees_with_what_is_measured(
    num_keys: int, tmp_path: Path
) -> None:
    """Whoever follows it measures at most 1 %, and hears no more advice."""
    pa_table = pa.table({"c": [f"item-{i}" for i in range(num_keys)]})
    pq.write_table(pa_table, tmp_path / "1.parquet")
    buckets = buckets_for(num_keys) // 4
    for _ in range(2):
        encoder = {"type": "hash", "buckets": buckets}
        candidate = {"name": "c", "dim": 1, "encoder": encoder}
        spec = FeatureSpec.from_dict({"format": 1, "candidate": [candidate]})
        found = inspect(spec, tmp_path)
        c = found.tables[0].collisions
        assert c is not None
        assert c.measured is not None
        assert c.wanted_buckets is not None
        assert c.wanted_measured is not None
        assert c.wanted_measured <= 0.01
        advice = [text for text in found.verdict if "Under 1%: buckets" in text]
        assert bool(advice) == (round(c.measured, 3) > 0.01)
        if advice:
            assert f"buckets = {c.wanted_buckets:,} " in advice[0]
        buckets = c.wanted_buckets
    assert c.measured <= 0.01
    assert not advice


def zero_warning(values: str) -> str:
    return (
        f"{values} are 0, which `identity` takes for missing: row 0 of its table stays"
        " zero, and nothing is learned about it. If 0 is an id like others, hash the"
        ' column (`type = "hash"`, whose `reduce = "offset"` leaves row 0 to missing'
        ' values), list its ids (`type = "vocab"`), or train the row (`padding_row ='
        ' "trained"`).'
    )


def test_an_identity_column_with_many_zeros_is_told_from_nulls(tmp_path: Path) -> None:
    encoder = {"type": "identity", "buckets": 9, "unseen": "missing"}
    candidate = {"name": "c", "dim": 1, "encoder": encoder}
    behavior = {"name": "h", "max_len": 3, "fields": {"hist": "c"}}
    raw = {"format": 1, "candidate": [candidate], "behavior": [behavior]}
    spec = FeatureSpec.from_dict(raw)
    table = pa.table(
        {
            "c": pa.array([0, None, 3, 99, -1, 2], pa.int64()),
            "hist": pa.array([[], [1, 1], [1, 2, 0, 4], None, [3, None, 12], [0]]),
        }
    )
    pq.write_table(table, tmp_path / "1.parquet")
    found = inspect(spec, tmp_path)
    assert found.tables[0].zeros == 3
    assert zero_warning("23.1% of the values of c, hist") in found.warnings
    trained = {**candidate, "padding_row": "trained"}
    spec = FeatureSpec.from_dict({**raw, "candidate": [trained]})
    assert not inspect(spec, tmp_path).warnings
    pq.write_table(
        table.filter(pa.array([False, True, False, True, True, False])),
        tmp_path / "1.parquet",
    )
    found = inspect(FeatureSpec.from_dict(raw), tmp_path)
    assert found.tables[0].zeros == 0
    assert not found.warnings


def test_a_table_that_could_not_be_large_enough_says_so(tmp_path: Path) -> None:
    spec = FeatureSpec.from_dict(small_spec())
    names = [f"g{i}" for i in range(300)]
    pq.write_table(pa.table({"c": names, "h": [[]] * 300}), tmp_path / "1.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect_tables, "MOST_ROWS", 1000)
        found = inspect(spec, tmp_path)
    c = found.tables[0].collisions
    assert c is not None
    assert c.wanted_buckets is c.wanted_measured is None
    assert "Under 1%: more buckets than a table may have; 0%: a" in found.verdict[-2]


# ------------------------------------------------------------------------- judgements


def log(rows: int = 4000, *, length: int = 8, pull: float = 0.0, seed: int = 0) -> Rows:
    """A click log: with probability `pull` a click is in the category of a behavior."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(rows):
        n = int(rng.integers(length // 2, length + 1))
        goods = [f"g{g}" for g in rng.integers(0, 500, n)]
        label = i % 3 == 0
        candidate = f"g{rng.integers(0, 500)}"
        if label and n and rng.random() < pull:
            near = int(goods[rng.integers(0, n)][1:])
            candidate = f"g{20 * (near // 20) + rng.integers(0, 20)}"
        out.append({"label": int(label), "goods": candidate, "h_goods": goods})
    return out


def with_categories(rows: Rows) -> Rows:
    def category(goods: str) -> str:
        return f"c{int(goods[1:]) // 20}"

    for row in rows:
        row["cate"] = category(row["goods"])
        row["h_cate"] = [category(g) for g in row["h_goods"]]
    return rows


def judge(rows: Rows, folder: Path, **changes: Any) -> Inspection:
    with_categories(rows)
    kinds = {"label": pa.int64(), "goods": pa.string(), "cate": pa.string()}
    kinds |= dict.fromkeys(("h_goods", "h_cate"), pa.list_(pa.string()))
    pq.write_table(
        pa.table({n: pa.array([r[n] for r in rows], t) for n, t in kinds.items()}),
        folder / "log.parquet",
    )
    encoder = {"type": "hash", "buckets": 1_000_000}
    spec = {
        "format": 1,
        "label": "label",
        "candidate": [
            {"name": name, "dim": 4, "encoder": encoder} for name in ("goods", "cate")
        ],
        "behavior": [
            {
                "name": "history",
                "max_len": 10,
                "fields": {"h_goods": "goods", "h_cate": "cate"},
            }
        ],
    }
    return inspect(FeatureSpec.from_dict({**spec, **changes}), folder)


def leak(rows: Rows, share: float, seed: int = 0) -> Rows:
    """Put clicks at the end of their own histories, as a late join does."""
    rng = np.random.default_rng(seed)
    for row in rows:
        if row["label"] and rng.random() < share:
            row["h_goods"].append(row["goods"])
    return rows


@pytest.mark.parametrize("share", [0.15, 0.5, 1.0])
def test_histories_taken_after_the_click_are_a_leak(
    share: float, tmp_path: Path
) -> None:
    found = judge(leak(log(pull=0.5), share), tmp_path)
    (warning,) = found.warnings
    assert warning.startswith("Leak? The newest behavior of history has the row's own")
    assert "goods in " in warning
    assert warning.endswith("a history must end before its row.")
    assert found.verdict[0] == (
        "Not yet: mend the leak first; any model would learn it instead."
    )


def test_the_leak_gives_its_figures(tmp_path: Path) -> None:
    rows = log(300, pull=0.0)
    for i, row in enumerate(rows):
        row["goods"], row["h_goods"] = "g1", ["g100", "g200"]
        if row["label"]:
            row["h_goods"].append("g1" if i % 2 else "g300")
    found = judge(rows, tmp_path)
    assert found.warnings == (
        "Leak? The newest behavior of history has the row's own goods in 50.0% of"
        " clicks and 0% of non-clicks (the second newest: 0% and 0%); cate in 50.0% of"
        " clicks and 0% of non-clicks (the second newest: 0% and 0%). These histories"
        " seem to be taken after the click, and hold it; a history must end before its"
        " row.",
    )


def test_a_leak_shows_although_each_click_is_logged_twice(tmp_path: Path) -> None:
    rows = leak(leak(log(pull=0.5), 1.0), 1.0)
    assert "Leak?" in " ".join(judge(rows, tmp_path).warnings)


@pytest.mark.parametrize(
    "rows",
    [
        log(pull=0.0),
        log(pull=0.9),
        log(pull=0.9, length=2),
        leak(log(pull=0.5), 0.05),
        leak(log(90, pull=0.5), 1.0),
    ],
    ids=["chance", "interest", "short", "few clicks again", "too few rows"],
)
def test_interest_is_no_leak(rows: Rows, tmp_path: Path) -> None:
    assert judge(rows, tmp_path).warnings == ()


def test_fading_interest_is_no_leak(tmp_path: Path) -> None:
    """Half of the clicks are of the newest behavior's goods or the one before."""
    rows = log()
    rng = np.random.default_rng(3)
    for row in rows:
        if row["label"] and rng.random() < 0.5:
            age = min(int(rng.geometric(0.55)), len(row["h_goods"]))
            row["goods"] = row["h_goods"][-age]
    found = judge(rows, tmp_path)
    clicks = found.sequences[0].overlaps[0].matches["clicks"]
    assert clicks.at(0) > 0.2  # type: ignore[operator]
    assert found.warnings == ()


def test_what_non_clicks_have_as_well_is_no_leak(tmp_path: Path) -> None:
    rows = log()
    for row in rows:
        row["h_goods"].append(row["goods"])
    assert judge(rows, tmp_path).warnings == ()


def test_the_verdict_is_yes_where_clicks_follow_histories(tmp_path: Path) -> None:
    found = judge(log(pull=0.5), tmp_path)
    assert found.verdict[0] == (
        "Yes: histories are long enough, and tell clicks from non-clicks."
    )
    assert found.verdict[1] == (
        "100% of the rows have two or more behaviors in history, to be weighed against"
        " each other."
    )
    assert found.verdict[3].startswith("The candidate's cate is in the history of ")
    assert found.verdict[3].endswith(" of non-clicks: the interest that a DIN weighs.")


def test_the_verdict_is_doubtful_where_they_do_not(tmp_path: Path) -> None:
    found = judge(log(pull=0.0), tmp_path)
    assert found.verdict[0] == (
        "Doubtful: by equal values, histories do not tell clicks from non-clicks."
    )
    assert not any("the interest" in sentence for sentence in found.verdict)


def test_longer_histories_of_clicks_are_no_interest(tmp_path: Path) -> None:
    rows = log(6000, length=6)
    for row in rows:
        if not row["label"]:
            row["h_goods"] = row["h_goods"][:1]
    found = judge(rows, tmp_path, behavior=[
        {"name": "history", "max_len": 10, "fields": {"h_cate": "cate"}}
    ])  # fmt: skip
    clicks = found.sequences[0].overlaps[0].matches["clicks"]
    others = found.sequences[0].overlaps[0].matches["non_clicks"]
    assert clicks.share > 2 * others.share  # type: ignore[operator]
    assert "the interest" not in " ".join(found.verdict)


@pytest.mark.parametrize(
    ("empty", "headline"),
    [
        (0.9, "Hardly: most histories are too short for attention."),
        (0.6, "Partly: histories tell clicks from non-clicks, but most are short."),
    ],
)
def test_short_histories_leave_little_to_weigh(
    empty: float, headline: str, tmp_path: Path
) -> None:
    rows = log(9000, pull=0.9)
    for i, row in enumerate(rows):
        if i % 10 < 10 * empty:
            row["h_goods"] = row["h_goods"][: i % 2]
    found = judge(rows, tmp_path)
    assert found.verdict[0] == headline


def test_without_anything_to_judge_by_the_verdict_says_so(tmp_path: Path) -> None:
    rows = log(pull=0.5)
    found = judge(rows[:60], tmp_path)
    assert found.verdict[0] == (
        "Perhaps: too few clicks and non-clicks to tell whether histories matter."
    )
    assert judge(rows[:0], tmp_path).verdict == ("No rows, no verdict.",)
    assert judge(rows, tmp_path, behavior=[]).verdict[0] == (
        "No: without a behavior sequence attention has nothing to weigh."
    )
    assert judge(rows, tmp_path, label="click").verdict[0] == (
        "Perhaps: without labels nothing shows whether histories matter."
    )
    unpaired = {"h_goods": {"dim": 4, "encoder": HASH}}
    sequence = {"name": "history", "max_len": 10, "fields": unpaired}
    assert judge(rows, tmp_path, behavior=[sequence]).verdict[0] == (
        "Perhaps: no field of a history pairs with one of the candidate, so that"
        " nothing here shows whether they agree."
    )


def test_advice_gives_its_figures(tmp_path: Path) -> None:
    rows = log(1000)
    for i, row in enumerate(rows):
        row["goods"], row["h_goods"] = "g1", [f"g{20 * i + k}" for k in range(20)]
    vocabulary = {"type": "vocab", "values": ["g1"]}
    candidates = [
        {"name": "goods", "dim": 4, "encoder": {"type": "hash", "buckets": 20_001}},
        {"name": "cate", "dim": 4, "encoder": vocabulary},
    ]
    found = judge(rows, tmp_path, candidate=candidates)
    c = found.tables[0].collisions
    assert c is not None
    assert found.verdict[2:] == (
        "The candidate's goods is in no row's history: of it, only alike embeddings can"
        " match.",
        "The candidate's cate is in the history of 0.3% of clicks and 0% of"
        " non-clicks.",
        "max_len = 10 of history cuts off 50.0% of the behaviors; 19 would keep 95%, 20"
        " would keep 99%.",
        f"{c.measured:.1%} of goods's 10,001 keys share their embedding with another."
        f" Under 1%: buckets = {c.wanted_buckets:,} (15.2 MiB); 0%: a vocabulary of"
        " these keys (156.3 KiB).",
        ">99.9% of goods's keys occur once: hardly to be learned.",
        "100% of cate's values are not in its vocabulary.",
    )


def test_values_that_training_would_refuse_are_counted_not_raised(
    tmp_path: Path,
) -> None:
    rows = make_rows(40)
    rows[3]["label"] = None
    spec = FeatureSpec.from_dict(SPEC)
    found = inspect(spec, write(rows, tmp_path / "1.parquet"))
    f = found.fields
    assert f["cate"].refused == f["cate"].unseen > 0
    assert f["price"].refused == f["price"].nulls == 4
    assert f["vector"].refused == 0
    assert found.tables[3].largest == 6
    assert found.warnings == (
        "1 labels are neither 0 nor 1, which din-train refuses.",
        zero_warning("11.4% of the values of cate, h_cate"),
        "Unseen values, which din-train and din-score refuse:"
        f" {f['cate'].refused} of cate, {f['shop'].refused} of shop,"
        f' {f["h_cate"].refused} of h_cate. `unseen = "missing"` in the spec accepts'
        " them.",
        "Missing values, which din-train and din-score refuse: 4 of price. `missing ="
        " 0.0` in the spec accepts them.",
    )


# -------------------------------------------------------------------------- the views

TINY_SPEC: dict[str, Any] = {
    "format": 1,
    "label": "label",
    "group": "user",
    "time": "time",
    "candidate": [
        {"name": "goods", "dim": 32, "encoder": {"type": "hash", "buckets": 3}},
        {
            "name": "\u5e97",
            "dim": 4,
            "encoder": {"type": "vocab", "values": ["a", "b", "z"]},
        },
    ],
    "behavior": [
        {
            "name": "history",
            "max_len": 3,
            "fields": {"h_goods": "goods", "h_shop": "\u5e97"},
        }
    ],
}
TINY = {
    "label": [1, 0, 0, 1],
    "user": ["u1", "u1", "u2", "u2"],
    "time": [1_700_000_000, 1_700_000_060, 1_700_090_000, 1_700_086_400],
    "goods": ["g1", "g2", "g3", None],
    "\u5e97": ["a", "b", "c", None],
    "h_goods": [["g1", "g2", "g1", "g1"], [], ["g2"], ["g3", "g3"]],
    "h_shop": [["a", "b", "a", "a"], [], ["c"], ["a", None]],
}
TINY_TEXT = """\
4 rows, 1 file
2 clicks (50.0%)
2 users, 2.0 rows each, median 2, at most 2
time from 1700000000 to 1700090000 (2023-11-14 to 2023-11-15, if these are Unix seconds)

History lengths
  sequence  min  1%  5%  25%  50%  75%  95%  99%  max  mean  empty  single
  history     0   0   0    0    1    2    4    4    4   1.8  25.0%   25.0%

Truncation and padding
  sequence  max_len  rows cut  behaviors lost  keeps 95%  keeps 99%  padding
  history         3     25.0%           14.3%          4          4    50.0%

Repeats (behaviors whose value an earlier one of the history has)
  field    repeat
  h_goods   33.3%
  h_shop    16.7%

The candidate's goods in its h_goods
              rows with a history  anywhere  newest  2nd newest  all behaviors
  clicks                        2     50.0%   50.0%       50.0%          40.0%
  non-clicks                    1        0%      0%           -             0%
  ratio                                   -       -           -              -

The candidate's \u5e97 in its h_shop
              rows with a history  anywhere  newest  2nd newest  all behaviors
  clicks                        2     50.0%   50.0%       50.0%          40.0%
  non-clicks                    1      100%    100%           -           100%
  ratio                                 0.5     0.5           -            0.4

Fields (nulls and unseen: of the values; truncated and empty: of the rows)
  field    values  nulls  unseen  truncated  empty
  goods         4  25.0%      0%         0%     0%
  \u5e97            4  25.0%   25.0%         0%     0%
  h_goods       6     0%      0%      25.0%  25.0%
  h_shop        6  16.7%   16.7%      25.0%  25.0%

Embedding tables (once: keys that occur once; top: share of the commonest)
  table  encoder  rows     size  unused  keys  once  top 1%  top 10%
  goods     hash     3  0.4 KiB      0%     3    0%   33.3%    33.3%
  \u5e97       vocab     5  0.1 KiB   20.0%     3    0%   50.0%    50.0%

Hash collisions (keys that share their row with another)
  table  buckets  by chance  measured  of values  buckets for 1%  measured there
  goods        3      75.0%     66.7%      66.7%             201              0%

Values without an id of their own
  table  encoder  unseen  of values  unseen keys  largest value
  \u5e97       vocab       2      25.0%            1

Does a DIN fit? Perhaps: too few clicks and non-clicks to tell whether histories matter.
  - 50.0% of the rows have two or more behaviors in history, to be weighed against each
    other.
  - max_len = 3 of history cuts off 14.3% of the behaviors; 4 would keep 95%, 4 would
    keep 99%.
  - 66.7% of goods's 3 keys share their embedding with another. Under 1%: buckets = 201
    (25.1 KiB); 0%: a vocabulary of these keys (0.6 KiB).
  - 25.0% of \u5e97's values are not in its vocabulary."""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with data and spec."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    pq.write_table(pa.table(TINY), folder / "data.parquet")
    (folder / "spec.json").write_text(FeatureSpec.from_dict(TINY_SPEC).to_json())
    return folder


def test_the_tables_are_aligned(tiny: Path) -> None:
    found = inspect(FeatureSpec.load(tiny / "spec.json"), tiny / "data.parquet")
    assert str(found) == TINY_TEXT


def test_no_line_is_wider_than_a_terminal(tmp_path: Path) -> None:
    def longer(names: Any) -> Any:
        return {f"{k}_of_a_name_that_is_longer": v for k, v in names.items()}

    spec = json.loads(json.dumps(TINY_SPEC))
    for part in (*spec["candidate"], *spec["behavior"]):
        part["name"] = next(iter(longer({part["name"]: 0})))
    (sequence,) = spec["behavior"]
    sequence["fields"] = {
        k: next(iter(longer({v: 0}))) for k, v in sequence["fields"].items()
    }
    sequence["fields"] = longer(sequence["fields"])
    pq.write_table(pa.table({**longer(TINY), **TINY}), tmp_path / "1.parquet")
    text = str(inspect(FeatureSpec.from_dict(spec), tmp_path))
    assert "goods_of_a_name_that_…  " in text
    assert max(map(width, text.splitlines())) <= 100


def test_json_is_what_python_has(tiny: Path) -> None:
    found = inspect(FeatureSpec.load(tiny / "spec.json"), tiny / "data.parquet")
    read = json.loads(json.dumps(found.to_dict()))
    assert read["verdict"] == list(found.verdict)
    assert read["warnings"] == []
    assert read["sequences"][0]["histogram"] == [[0, 1], [1, 1], [2, 1], [4, 1]]
    assert read["sequences"][0]["overlaps"][0]["matches"]["clicks"] == {
        "rows": 2,
        "anywhere": 1,
        "by_age": [1, 1, 0],
        "reach": [2, 2, 1],
    }


def bars(ax: Any) -> list[float]:
    return [patch.get_width() for patch in ax.patches]


def texts(ax: Any) -> list[str]:
    return [t.get_text() for t in ax.texts]


def test_the_picture_shows_what_was_found(tmp_path: Path) -> None:
    found = judge(leak(log(pull=0.5), 0.5), tmp_path)
    figure = found.plot()
    lengths, kept, anywhere, by_age, top, collisions = figure.axes
    (sequence,) = found.sequences
    (stairs,) = lengths.patches
    heights, edges, _ = stairs.get_data()
    drawn = {int(e + 0.5): round(h * found.rows) for e, h in zip(edges, heights)}  # noqa: B905
    assert {n: r for n, r in drawn.items() if r} == dict(sequence.histogram)
    assert texts(lengths) == ["max_len 10"]
    curve = kept.lines[0].get_xydata()
    assert curve[-1].tolist() == [10, 1.0]
    assert np.all(np.diff(curve[:, 1]) >= 0)
    assert texts(kept) == [f"{p}%: {n}" for p, n in sequence.max_len_keeping.items()]
    shares = [m.share for o in sequence.overlaps for m in o.matches.values()]
    assert bars(anywhere) == shares
    assert [t.get_text() for t in anywhere.get_yticklabels()] == ["goods", "cate"]
    assert by_age.get_title(loc="left").endswith("A leak at the newest?")
    first = by_age.lines[0].get_xydata()
    clicks = sequence.overlaps[0].matches["clicks"]
    assert first[0].tolist() == [1, clicks.at(0)]
    assert first[1].tolist() == [2, clicks.at(1)]
    assert len(by_age.lines) == 4
    (goods, cate) = found.tables
    assert [line.get_xydata()[-1].tolist() for line in top.lines] == [[1, 1], [1, 1]]
    assert goods.top["10"] in top.lines[0].get_ydata()
    assert goods.collisions is not None
    assert cate.collisions is not None
    assert bars(collisions) == [
        goods.collisions.expected,
        goods.collisions.measured,
        cate.collisions.expected,
        cate.collisions.measured,
    ]
    assert found.verdict[0] in figure.get_suptitle()


def test_interest_without_a_leak_is_drawn_without_the_question(tmp_path: Path) -> None:
    figure = judge(log(pull=0.5), tmp_path).plot()
    assert figure.axes[3].get_title(loc="left") == "Which behavior is it?"


@pytest.mark.parametrize(
    ("changes", "rows", "said"),
    [
        ({}, 0, {0: "no rows", 1: "no behaviors", 3: "too few rows", 4: "no keys"}),
        ({}, 20, {3: "too few rows"}),
        (
            {"behavior": [], "candidate": [
                {"name": "goods", "dim": 1, "encoder": {"type": "vocab", "values": []}},
            ]},
            50,
            {
                0: "no behavior sequence",
                1: "no behaviors",
                2: "no pairs to compare",
                3: "too few rows",
                5: "no hashed table",
            },
        ),
    ],
)  # fmt: skip
def test_what_there_is_not_is_said_in_the_picture(
    changes: dict[str, Any], rows: int, said: dict[int, str], tmp_path: Path
) -> None:
    figure = judge(log(rows), tmp_path, **changes).plot()
    assert len(figure.axes) == 6
    for i, text in said.items():
        assert text in texts(figure.axes[i])
    figure.savefig(tmp_path / "x.png")


@pytest.mark.slow
def test_many_sequences_long_histories_and_any_letters_are_drawn(
    tmp_path: Path,
) -> None:
    rows = make_rows(120)
    rows[7]["h_goods"] = ["g1"] * 3000
    rows[7]["h_cate"] = rows[7]["h_age"] = [1] * 3000
    raw = json.loads(json.dumps(SPEC))
    raw["candidate"][0]["name"] = "\u5546\u54c1 $x_1$"
    raw["candidate"][0]["column"] = "goods"
    raw["behavior"][0]["fields"]["h_goods"] = "\u5546\u54c1 $x_1$"
    raw["behavior"][1]["fields"]["r_goods"]["pairs"] = "\u5546\u54c1 $x_1$"
    raw["multi_hot"][0]["shares"] = "\u5546\u54c1 $x_1$"
    found = inspect(FeatureSpec.from_dict(raw), write(rows, tmp_path / "1.parquet"))
    figure = found.plot()
    assert len(figure.axes[0].patches) == 4
    assert figure.axes[0].get_xlabel().startswith("behaviors (last bar: ")
    assert figure.axes[1].get_xscale() == "log"
    for suffix in (".png", ".svg", ".pdf"):
        write_picture(found, tmp_path / f"x{suffix}")
        assert (tmp_path / f"x{suffix}").stat().st_size > 10_000
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".tmp")]


# ------------------------------------------------------------------------- the command

Say = Callable[[], tuple[str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return read


def test_the_command_prints_the_tables(tiny: Path, say: Say) -> None:
    words = f"{tiny}/data.parquet --spec {tiny}/spec.json"
    assert inspect_main(words.split()) == 0
    assert say() == (TINY_TEXT + "\n", "")
    assert inspect_main([*words.split(), "--rows", "3", "--quiet"]) == 0
    out, _ = say()
    assert out.startswith("the first 3 of 4 rows, 1 file\n")


def test_the_command_prints_json_and_writes_a_picture(tiny: Path, say: Say) -> None:
    words = f"{tiny} --spec {tiny}/spec.json --plot {tiny}/fit.png"
    assert inspect_main([*words.split(), "--json"]) == 0
    out, err = say()
    found = inspect(FeatureSpec.load(tiny / "spec.json"), tiny)
    assert json.loads(out) == json.loads(json.dumps(found.to_dict()))
    assert err == f"din-inspect: {tiny}: 1 file is not read: 1 *.json\n"
    picture = (tiny / "fit.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert inspect_main(words.split()) == 0
    assert say()[0] == f"{TINY_TEXT}\n\nwrote {tiny}/fit.png\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "{0}/none.parquet --spec {0}/spec.json",
            "expected a readable Parquet file, got [Errno 2] No such file or directory:"
            " '{0}/none.parquet' - at `{0}/none.parquet`",
        ),
        (
            "{0}/empty --spec {0}/spec.json",
            "expected a folder with *.parquet, *.pq, *.parq, *.arrow, *.arrows,"
            " *.feather, *.ipc, *.csv, *.tsv, *.jsonl, *.ndjson, *.json, got none - at"
            " `{0}/empty`",
        ),
        (
            "{0}/data.parquet --spec {0}/none.toml",
            "expected a readable file, got [Errno 2] No such file or directory:"
            " '{0}/none.toml' - at `{0}/none.toml`",
        ),
        (
            "{0}/data.parquet --spec {0}/spec.json --plot {0}/fit.jpg",
            "expected a name that ends in .png, .svg, .pdf, got 'fit.jpg'"
            " - at `--plot`",
        ),
        (
            "{0}/data.parquet --spec {0}/spec.json --plot {0}/no/fit.png",
            "expected a place where the picture can be written, got [Errno 2] No such"
            " file or directory: '{0}/no/.fit.png.PID.00000000.tmp'"
            " - at `{0}/no/fit.png`",
        ),
        (
            "{0}/lacking.parquet --spec {0}/spec.json",
            "expected the columns h_shop, got only label, user, time, goods, \u5e97,"
            " h_goods - at `{0}/lacking.parquet`",
        ),
        (
            "{0}/data.parquet {0}/typed.parquet --spec {0}/spec.json",
            "expected a column of strings, got int64 - at `goods` of {0}/typed.parquet."
            ' Say dtype = "int64" in the spec, or cast the column to strings: the ids'
            " differ.",
        ),
        (
            "{0}/data.parquet {0}/ragged.parquet --spec {0}/spec.json",
            "expected 2 elements, as `h_goods` has, got 1 - at `h_shop`, row 3 of"
            " {0}/ragged.parquet",
        ),
        (
            "{0}/timed.parquet --spec {0}/spec.json",
            "expected a column of numbers, dates or timestamps, got"
            " list<element: int64> - at `time` of {0}/timed.parquet",
        ),
    ],
)
def test_the_command_says_errors_in_one_line(
    words: str, message: str, tiny: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: "PID")
    monkeypatch.setattr("os.urandom", bytes)
    (tiny / "empty").mkdir()
    table = pa.table(TINY)
    pq.write_table(table.drop(["h_shop"]), tiny / "lacking.parquet")
    changed = {
        "typed": {"goods": [1, 2, 3, 4]},
        "ragged": {"h_shop": [*TINY["h_shop"][:3], ["a"]]},
        "timed": {"time": [[1], [2], [], []]},
    }
    for name, columns in changed.items():
        pq.write_table(pa.table({**TINY, **columns}), tiny / f"{name}.parquet")
    before = sorted(tiny.iterdir())
    assert inspect_main(words.replace("{0}", str(tiny)).split()) == 1
    out, err = say()
    assert (out, err) == ("", f"din-inspect: {message.replace('{0}', str(tiny))}\n")
    assert sorted(tiny.iterdir()) == before


def test_a_damaged_file_is_named(tiny: Path) -> None:
    pq.write_table(pa.table(make_columns(20_000)), tiny / "big.parquet")
    content = bytearray((tiny / "big.parquet").read_bytes())
    content[40:4000] = bytes(3960)
    (tiny / "big.parquet").write_bytes(content)
    spec = FeatureSpec.from_dict(small_spec())
    rule = "expected a Parquet file that can be read to its end, got "
    with pytest.raises(InputError, match=f"{rule}.* - at `{tiny}/big.parquet`$"):
        inspect(spec, tiny / "big.parquet")


def make_columns(count: int) -> dict[str, Any]:
    names = [f"goods-{i * 7919 % count}" for i in range(count)]
    return {"c": names, "h": [[n] for n in names]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 0},
            "expected a whole number of at least 1, got 0 - at `batch_size`",
        ),
        (
            {"max_rows": 2.5},
            "expected a whole number of at least 1, got 2.5 - at `max_rows`",
        ),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], message: str, tiny: Path
) -> None:
    spec = FeatureSpec.load(tiny / "spec.json")
    with pytest.raises(InputError) as caught:
        inspect(spec, tiny, **options)
    assert str(caught.value) == message


def test_no_input_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        inspect(FeatureSpec.from_dict(small_spec()), [])
    assert str(caught.value) == "expected at least one file, got none - at `inputs`"


@pytest.mark.parametrize("hidden", ["pyarrow", "tqdm", "matplotlib"])
def test_a_missing_extra_prints_the_install_line(hidden: str, tiny: Path) -> None:
    words = f"{tiny} --spec {tiny}/spec.json --plot {tiny}/fit.png".split()
    code = (
        f"import sys; sys.modules[{hidden!r}] = None\n"
        "from din_infer.cli import inspect_main as run\n"
        f"sys.exit(run({words!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"din-inspect: needs the package {hidden}."
        ' Run: pip install "din-infer[batch,plot]"\n'
    )


def test_an_inspection_needs_neither_torch_nor_a_runtime_nor_matplotlib(
    tiny: Path,
) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'matplotlib', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "from din_infer.cli import inspect_main as run\n"
        f"sys.exit(run([{str(tiny)!r}, '--spec', {str(tiny / 'spec.json')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", code], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.decode() == TINY_TEXT + "\n"


def test_help_shows_examples(say: Say) -> None:
    with pytest.raises(SystemExit):
        inspect_main(["--help"])
    out, _ = say()
    assert "examples:\n  din-inspect train.parquet --spec features.toml\n" in out

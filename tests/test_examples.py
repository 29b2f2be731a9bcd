"""The example scripts: the protocol of one, the planted signal of the other.

Above 400 lines: each script is one file, and each damaged input a case of its own.
"""

import gzip
import importlib.util
import json
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from din_infer import metrics
from din_infer.cli import explain_main
from din_infer.spec import FeatureSpec
from tests.shared import SHARED, needs_shared

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = ["features.toml", "test.parquet", "train.parquet", "valid.parquet"]
Row = dict[str, Any]


def load(path: str) -> ModuleType:
    name = f"example_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


prepare = load("amazon_reviews/prepare.py")
generate = load("click_logs/generate.py")


def rows_of(folder: Path, split: str) -> list[Row]:
    return pq.read_table(folder / f"{split}.parquet").to_pylist()


def all_rows(folder: Path) -> list[Row]:
    return [row for split in prepare.SPLITS for row in rows_of(folder, split)]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


# ------------------------------------------------------------------ amazon_reviews

# The user's items in time order; "v" and "w" are too short for every split.
SEQUENCES = {"u": list("abcde"), "v": list("cf"), "w": ["g"], "x": list("gca")}
CATEGORY = {**dict.fromkeys("abc", "Nails"), **dict.fromkeys("defg", "Hair")}


@pytest.fixture
def prepared_form(tmp_path: Path) -> Path:
    data = tmp_path / "prepared"
    data.mkdir()
    lines = [" ".join([user, *items]) for user, items in SEQUENCES.items()]
    (data / "Tiny.txt").write_text("\n".join(lines) + "\n")
    attributes = {item: ["9", CATEGORY[item]] for item in CATEGORY}
    (data / "Tiny_item2attributes.json").write_text(json.dumps(attributes))
    return data


def write_original(data: Path, compress: bool = False) -> Path:
    """Write the same sequences as reviews, newest first; "u" has a tie of b and c."""
    data.mkdir()
    reviews = []
    for user, items in SEQUENCES.items():
        for i, item in enumerate(items):
            at = 1000 + 10 * i
            if (user, item) == ("u", "b"):
                at += 10
            reviews.append({"reviewerID": user, "asin": item, "unixReviewTime": at})
    reviews.sort(key=lambda r: -r["unixReviewTime"])
    metadata = [
        {
            "asin": a,
            "title": "it's",
            "brand": f"by {a}" if a != "b" else "",
            "categories": [["Beauty", "x"], ["Beauty", c]],
        }
        for a, c in CATEGORY.items()
    ]
    metadata += [{"asin": "unreviewed", "categories": []}]
    texts = {
        "reviews_Tiny_5.json": "".join(json.dumps(r) + "\n" for r in reviews),
        "meta_Tiny.json": "".join(f"{m!r}\n" for m in metadata),
    }
    for name, text in texts.items():
        if compress:
            (data / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (data / name).write_text(text)
    return data


@pytest.fixture
def original_form(tmp_path: Path) -> Path:
    return write_original(tmp_path / "original")


@pytest.mark.parametrize("form", ["prepared_form", "original_form"])
def test_prepare_leaves_the_last_items_out(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare.main([str(request.getfixturevalue(form)), "--out", str(out)])
    assert [p.name for p in sorted(out.iterdir())] == FILES
    positives = {
        split: [
            (r["user_id"], "".join(r["hist_goods_id"]), r["goods_id"])
            for r in rows_of(out, split)
            if r["label"] == 1
        ]
        for split in prepare.SPLITS
    }
    # A user's first item is skipped: it has no history.
    expected = {
        "train": [("u", "a", "b"), ("u", "ab", "c")],
        "valid": [("u", "abc", "d"), ("x", "g", "c")],
        "test": [("u", "abcd", "e"), ("v", "c", "f"), ("x", "gc", "a")],
    }
    if form == "original_form":
        # b and c share a time; users come in the order of their first review, and the
        # file is newest first.
        assert {s: sorted(p) for s, p in positives.items()} == expected
    else:
        assert positives == expected


@pytest.mark.parametrize("form", ["prepared_form", "original_form"])
def test_prepare_pairs_each_positive_with_an_item_the_user_never_had(
    form: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    data = request.getfixturevalue(form)
    drawn: dict[str, Counter[str]] = {user: Counter() for user in SEQUENCES}
    for seed in range(40):
        out = tmp_path / f"out{seed}"
        prepare.main([str(data), "--out", str(out), "--seed", str(seed)])
        rows = all_rows(out)
        for positive, negative in zip(rows[::2], rows[1::2], strict=True):
            assert (positive["label"], negative["label"]) == (1, 0)
            for key in ("user_id", "hist_goods_id", "hist_cate_id", "time"):
                assert positive[key] == negative[key]
            assert negative["goods_id"] not in SEQUENCES[negative["user_id"]]
            drawn[negative["user_id"]][negative["goods_id"]] += 1
        for row in rows:
            assert row["cate_id"] == CATEGORY[row["goods_id"]]
            assert row["hist_cate_id"] == [CATEGORY[i] for i in row["hist_goods_id"]]
    assert set(drawn["u"]) == set("fg")  # all that is left, and evenly
    assert set(drawn["v"]) == set("abdeg")
    assert set(drawn["x"]) == set("bdef")
    assert min(drawn["u"].values()) > 0.35 * drawn["u"].total()


def test_prepare_keeps_real_times_and_positions_apart(
    prepared_form: Path, original_form: Path, tmp_path: Path
) -> None:
    prepare.main([str(prepared_form), "--out", str(tmp_path / "a")])
    prepare.main([str(original_form), "--out", str(tmp_path / "b")])
    positions = {r["time"] for r in rows_of(tmp_path / "a", "test")}
    assert positions == {1, 2, 4}
    assert {r["time"] for r in rows_of(tmp_path / "b", "test")} == {1010, 1020, 1040}
    assert FeatureSpec.load(tmp_path / "a" / "features.toml").time is None
    assert FeatureSpec.load(tmp_path / "b" / "features.toml").time == "time"


def test_prepare_keeps_ties_in_the_order_of_the_file(tmp_path: Path) -> None:
    data = write_original(tmp_path / "data")
    path = data / "reviews_Tiny_5.json"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    tied = [r for r in lines if r["reviewerID"] == "u" and r["asin"] in "bc"]
    rest = [r for r in lines if r not in tied]
    for order in ("bc", "cb"):
        tied.sort(key=lambda r: order.index(r["asin"]))
        path.write_text("".join(json.dumps(r) + "\n" for r in rest + tied))
        prepare.main([str(data), "--out", str(tmp_path / "out")])
        (row,) = (
            r
            for r in rows_of(tmp_path / "out", "test")
            if r["user_id"] == "u" and r["label"] == 1
        )
        assert row["hist_goods_id"] == ["a", *order, "d"]


def test_prepare_reads_gz_as_it_reads_text(original_form: Path, tmp_path: Path) -> None:
    compressed = write_original(tmp_path / "compressed", compress=True)
    prepare.main([str(original_form), "--out", str(tmp_path / "a")])
    prepare.main([str(compressed), "--out", str(tmp_path / "b")])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_prepare_gives_the_same_files_for_the_same_seed(
    prepared_form: Path, tmp_path: Path
) -> None:
    for out, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        prepare.main([str(prepared_form), "--out", str(tmp_path / out), "--seed", seed])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_prepare_keeps_the_newest_of_a_long_history(
    prepared_form: Path, tmp_path: Path
) -> None:
    arguments = [str(prepared_form), "--out", str(tmp_path / "a"), "--max-history", "2"]
    prepare.main(arguments)
    histories = {"".join(r["hist_goods_id"]) for r in all_rows(tmp_path / "a")}
    assert histories == {"a", "ab", "bc", "cd", "c", "g", "gc"}
    assert FeatureSpec.load(tmp_path / "a" / "features.toml").behavior[0].max_len == 2


def test_prepare_leaves_an_unknown_category_null(
    original_form: Path, tmp_path: Path
) -> None:
    path = original_form / "meta_Tiny.json"
    kept = [line for line in path.read_text().splitlines() if "'asin': 'c'" not in line]
    path.write_text("\n".join(kept))
    prepare.main([str(original_form), "--out", str(tmp_path / "a")])
    for row in all_rows(tmp_path / "a"):
        pairs = zip(row["hist_goods_id"], row["hist_cate_id"], strict=True)
        for goods, category in [*pairs, (row["goods_id"], row["cate_id"])]:
            assert (category is None) == (goods == "c")


def break_nothing(_: Path) -> None:
    """Leave the folder empty."""


def break_sequences(data: Path) -> None:
    (data / "Tiny_item2attributes.json").write_text("{}")


def break_attributes(data: Path) -> None:
    (data / "Tiny.txt").write_text("u a b\n")
    (data / "Tiny_item2attributes.json").write_text("[1]")


def break_twice(data: Path) -> None:
    (data / "Tiny.txt").write_text("u a b\nu c\n")
    (data / "Tiny_item2attributes.json").write_text('{"a": [1]}')


def break_catalog(data: Path) -> None:
    (data / "Tiny.txt").write_text("u a b\n")
    (data / "Tiny_item2attributes.json").write_text('{"a": [1]}')


def break_metadata(data: Path) -> None:
    (data / "reviews_Tiny_5.json").write_text("{}\n")


def break_review(data: Path) -> None:
    (data / "reviews_Tiny_5.json").write_text('{"asin": "a"}\n')
    (data / "meta_Tiny.json").write_text("")


def break_code(data: Path) -> None:
    (data / "reviews_Tiny_5.json").write_text("__import__('os').abort()\n")
    (data / "meta_Tiny.json").write_text("")


def break_gz(data: Path) -> None:
    (data / "reviews_Tiny_5.json.gz").write_bytes(b"not compressed")
    (data / "meta_Tiny.json").write_text("")


def break_categories(data: Path) -> None:
    review = {"reviewerID": "u", "asin": "a", "unixReviewTime": 1}
    (data / "reviews_Tiny_5.json").write_text(json.dumps(review))
    (data / "meta_Tiny.json").write_text("{'asin': 'a', 'categories': {'b': 'c'}}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            break_nothing,
            "expected one data set, either reviews_<Name>_5.json and meta_<Name>.json "
            "(or .json.gz) or <Name>.txt and <Name>_item2attributes.json, got neither "
            "- at `DATA`",
        ),
        (
            break_sequences,
            "expected Tiny.txt beside Tiny_item2attributes.json, got none - at `DATA`",
        ),
        (
            break_attributes,
            "expected a JSON object, item id to list of attribute ids, "
            "got something else - at `DATA/Tiny_item2attributes.json`",
        ),
        (
            break_twice,
            "expected each user on one line, got u twice - at `DATA/Tiny.txt:2`",
        ),
        (
            break_catalog,
            "expected items that the user has not reviewed, to sample negatives from, "
            "got none (2 items in all) - at `user u`",
        ),
        (
            break_metadata,
            "expected one metadata file meta_Tiny.json (or .json.gz) beside "
            "reviews_Tiny_5.json, got none - at `DATA`",
        ),
        (
            break_review,
            "expected a review with reviewerID, asin and a whole unixReviewTime, "
            "got {'asin': 'a'} - at `DATA/reviews_Tiny_5.json:1`",
        ),
        (
            break_code,
            "expected one record per line, JSON or a Python dict, "
            "got \"__import__('os').abort()\" - at `DATA/reviews_Tiny_5.json:1`",
        ),
        (
            break_gz,
            "expected UTF-8 text, got Not a gzipped file (b'no') "
            "- at `DATA/reviews_Tiny_5.json.gz`",
        ),
        (
            break_categories,
            "expected categories as a list of lists of names, got {'b': 'c'} "
            "- at `DATA/meta_Tiny.json:1`",
        ),
    ],
)
def test_prepare_says_what_is_wrong_and_writes_nothing(
    damage: Any,  # noqa: ANN401
    message: str,
    tmp_path: Path,
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    damage(data)
    with pytest.raises(SystemExit) as stopped:
        prepare.main([str(data), "--out", str(out)])
    assert stopped.value.code == "prepare.py: " + message.replace("DATA", str(data))
    assert not out.exists()


def test_a_failed_write_leaves_the_old_files(
    prepared_form: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    prepare.main([str(prepared_form), "--out", str(out)])
    before = contents(out)

    def fail(*_: object) -> str:
        message = "disk full"
        raise OSError(message)

    monkeypatch.setattr(prepare, "make_spec", fail)
    with pytest.raises(SystemExit, match="disk full"):
        prepare.main([str(prepared_form), "--out", str(out), "--seed", "1"])
    assert contents(out) == before


@needs_shared
def test_prepare_reads_the_brand_and_the_category_above(
    original_form: Path, tmp_path: Path
) -> None:
    prepare.main([str(original_form), "--out", str(tmp_path / "out")])
    for row in all_rows(tmp_path / "out"):
        goods = [*row["hist_goods_id"], row["goods_id"]]
        brands = [f"by {g}" if g != "b" else None for g in goods]
        assert [*row["hist_brand_id"], row["brand_id"]] == brands
        above = [*row["hist_parent_id"], row["parent_id"]]
        assert above == ["Beauty"] * len(goods)


def test_prepare_reads_beauty(tmp_path: Path) -> None:
    data = SHARED / "data" / "beauty"
    prepare.main([str(data), "--out", str(tmp_path)])
    lines = (data / "Beauty.txt").read_text().splitlines()
    items_of = {line.split()[0]: line.split()[1:] for line in lines}
    attributes = json.loads((data / "Beauty_item2attributes.json").read_text())
    num_rows = {
        s: pq.read_metadata(tmp_path / f"{s}.parquet").num_rows for s in prepare.SPLITS
    }
    assert num_rows == {"train": 262_826, "valid": 44_726, "test": 44_726}
    for split, last in (("valid", -2), ("test", -1)):
        for row in rows_of(tmp_path, split):
            items = items_of[row["user_id"]]
            assert row["hist_goods_id"] == items[:last][-50:]
            *above, last_one = attributes[row["goods_id"]]
            assert row["cate_id"] == str(last_one)
            assert row["brand_id"] == (str(above[0]) if above else None)
            assert row["parent_id"] == (str(above[-1]) if len(above) > 1 else None)
            known = [attributes[i][0] for i in row["hist_goods_id"]]
            got = row["hist_brand_id"]
            assert [b for b in got if b] == [
                str(k)
                for k, i in zip(known, row["hist_goods_id"], strict=True)
                if len(attributes[i]) > 1
            ]
            if row["label"]:
                assert row["goods_id"] == items[last]
            else:
                assert row["goods_id"] not in items
    spec = FeatureSpec.load(tmp_path / "features.toml")
    fields = ("goods_id", "cate_id", "parent_id", "brand_id")
    assert spec.columns == (*fields, *(f"hist_{f}" for f in fields))
    assert (spec.group, spec.label, spec.time) == ("user_id", "label", None)


# ---------------------------------------------------------------------- click_logs


def test_generate_gives_the_same_files_for_the_same_seed(tmp_path: Path) -> None:
    for out, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        arguments = ["--out", str(tmp_path / out), "--rows", "300", "--seed", seed]
        generate.main(arguments)
    assert sorted(contents(tmp_path / "a")) == FILES
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


@pytest.fixture(scope="module")
def click_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("click_logs")
    generate.main(["--out", str(out), "--rows", "20000"])
    return out


def test_generated_logs_are_split_by_time(click_logs: Path) -> None:
    times = {s: [r["time"] for r in rows_of(click_logs, s)] for s in generate.SPLITS}
    assert max(times["train"]) < min(times["valid"])
    assert max(times["valid"]) < min(times["test"])
    assert sum(map(len, times.values())) == 20_000
    assert len(times["train"]) == pytest.approx(16_000, abs=10)


def test_rows_of_one_second_stay_in_one_split() -> None:
    times = np.repeat(np.arange(5), 20)  # the cuts fall on rows 80 and 90
    splits = generate.split_by_time(times)
    assert [len(splits[s]) for s in generate.SPLITS] == [80, 0, 20]
    splits = generate.split_by_time(np.repeat(np.arange(10), 7)[:66])
    assert [len(splits[s]) for s in generate.SPLITS] == [49, 7, 10]


def test_generated_histories_are_the_newest_of_what_came_before() -> None:
    logs = generate.simulate(3_000, seed=3)
    lengths = logs.end - logs.begin
    assert lengths.min() == 0
    assert lengths.max() == generate.MAX_HISTORY
    for i in range(3_000):
        before = (logs.behavior_user == logs.user[i]) & (
            logs.behavior_time < logs.time[i]
        )
        newest = np.flatnonzero(before)[-generate.MAX_HISTORY :]
        assert newest.tolist() == list(range(logs.begin[i], logs.end[i]))
        assert (np.diff(logs.behavior_time[newest]) >= 0).all()


def test_a_behavior_of_the_same_second_is_not_history() -> None:
    key = np.array([5, 7, 7, 9, generate.SPAN + 7])
    user, since_start = np.array([0, 0, 1, 1, 2]), np.array([7, 8, 7, 8, 8])
    begin, end = generate.find_histories(key, user, since_start)
    assert begin.tolist() == [0, 0, 4, 4, 5]
    assert end.tolist() == [1, 3, 4, 5, 5]


def test_generated_clicks_follow_the_history(click_logs: Path) -> None:
    rows = [r for r in rows_of(click_logs, "train") if r["cate_id"] is not None]
    match = np.array([r["cate_id"] in (r["hist_cate_id"] or ()) for r in rows])
    label = np.array([r["label"] for r in rows])
    assert label[match].mean() > 2 * label[~match].mean()
    assert 0.1 < label.mean() < 0.3


def test_the_history_is_worth_much_of_the_generated_auc() -> None:
    logs = generate.simulate(50_000, seed=0)
    ideal = metrics.auc(logs.label, logs.ideal)
    without_history = metrics.auc(logs.label, logs.without_history)
    assert 0.75 < ideal < 0.80
    assert 0.60 < without_history < ideal - 0.10


def test_generated_logs_have_nulls_and_empty_lists(click_logs: Path) -> None:
    table = pq.read_table(click_logs / "train.parquet")
    assert table.schema.equals(generate.SCHEMA)
    nulls = {name: table[name].null_count for name in table.column_names}
    assert all(nulls[n] for n in ("cate_id", "price", "tags", "hist_goods_id"))
    assert not any(nulls[n] for n in ("user_id", "goods_id", "label", "time"))
    rows = table.to_pylist()
    assert any(r["hist_goods_id"] == [] for r in rows)
    assert any(r["tags"] == [] for r in rows)
    assert any(None in (r["hist_cate_id"] or ()) for r in rows)
    for row in rows:
        assert len(row["hist_goods_id"] or ()) == len(row["hist_cate_id"] or ())
        assert (row["hist_goods_id"] is None) == (row["hist_cate_id"] is None)


def test_the_generated_spec_fits_the_logs(click_logs: Path) -> None:
    spec = FeatureSpec.load(click_logs / "features.toml")
    assert set(spec.columns) < set(generate.SCHEMA.names)
    assert (spec.group, spec.label, spec.time) == ("user_id", "label", "time")


# -------------------------------------------------------------------- command lines


@pytest.mark.parametrize(
    "script", ["amazon_reviews/prepare.py", "click_logs/generate.py"]
)
def test_help_shows_how_to_go_on(script: str) -> None:
    command = [sys.executable, str(EXAMPLES / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "din-train" in done.stdout


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        ("prepare", ["x", "--max-history", "0"], "--max-history 1 or above, got 0"),
        ("prepare", ["x", "--seed", "-1"], "expected --seed 0 or above, got -1"),
        ("generate", ["--rows", "99"], "expected --rows 100 or above, got 99"),
        ("generate", ["--seed", "-1"], "expected --seed 0 or above, got -1"),
    ],
)
def test_wrong_options_are_refused(
    main: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = {"prepare": prepare, "generate": generate}[main]
    with pytest.raises(SystemExit):
        module.main([*arguments, "--out", str(tmp_path / "out")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_split_by_time_foretells_what_a_random_one_flatters() -> None:
    found = load("split_by_time.py").compare(rows=60_000, seed=0)
    random, by_time, future = found.values()
    assert by_time["overlap"] == 0.0
    assert random["overlap"] > 0.99
    assert random["auc"] > future["auc"] + 0.05
    assert abs(by_time["auc"] - future["auc"]) < 0.05


def test_the_histories_of_the_log_hold_only_what_came_before() -> None:
    log = load("split_by_time.py").make_log(3000, 1)
    past: dict[str, list[str]] = {}
    assert log["time"].to_pylist() == sorted(log["time"].to_pylist())
    for row in log.to_pylist():
        clicked = past.setdefault(row["user_id"], [])
        assert row["hist_cate_id"] == clicked[-20:]
        if row["click"]:
            clicked.append(row["cate_id"])


# ---------------------------------------------------------------------------- demo


def test_the_demo_works_after_one_that_was_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = load("demo.py")
    (tmp_path / "din.run").mkdir()
    (tmp_path / "din.run/checkpoint.pt").write_bytes(b"half a check")
    words = ["--out", str(tmp_path), "--rows", "400", "--epochs", "1"]
    assert demo.main(words) == 0
    said = capsys.readouterr().out
    (tail,) = [part for part in said.split("\ntry next:\n") if "din-inspect" in part][
        -1:
    ]
    for name in ("din-inspect", "din-explain", "din-score"):
        assert f"  {name} " in tail
    (where,) = [line for line in tail.splitlines() if "din-explain" in line]
    arguments = shlex.split(where)[1:]
    page = tmp_path / "weights.html"
    assert explain_main([*arguments[:-1], str(page)]) == 0
    assert page.stat().st_size > 1000

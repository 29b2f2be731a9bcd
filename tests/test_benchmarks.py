"""The benchmarks compare what they time; no test here asserts a time.

Above 400 lines: what each contestant might get wrong is a case of its own.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
import torch

from benchmarks import (
    attention,
    command,
    encode,
    encoders,
    forms,
    graphs,
    keys,
    model,
    ours,
    padding,
    timing,
)
from benchmarks.report import render, summarize
from benchmarks.rivals import Rivals
from benchmarks.timing import (
    Absent,
    Contestant,
    Outcome,
    UnavailableError,
    WrongOutputError,
    build,
    race,
    within,
)
from din_infer import _kernels

pytestmark = pytest.mark.slow

SIZES = graphs.Sizes(users=50, goods=1000, cates=20)
TINY = [
    "--rows",
    "1000",
    "--user-rows",
    "50",
    "--cate-rows",
    "20",
    "--n",
    "16",
    "--t",
    "5",
    "--seconds",
    "0.02",
]
ATTENTION = [*TINY, "--matmul", "64"]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("benchmark", "options", "scenarios"),
    [
        (attention, ATTENTION, ["short", "one-user", "threads"]),
        (model, TINY, ["uniform", "single"]),
    ],
)
def test_every_output_is_compared_and_reported(
    benchmark: ModuleType,
    options: list[str],
    scenarios: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "out.json"
    options = [*options, "--only", "ours,plain,eager", "--scenario", *scenarios]
    assert benchmark.main([*options, "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert document["threads"] == 1
    assert {"commit", "date", "cpu", "versions", "seed"} <= set(document)
    assert list(document["scenarios"]) == scenarios
    printed = capsys.readouterr().out
    for name, scenario in document["scenarios"].items():
        rows = scenario["contestants"]
        compared = {k: c for k, c in rows.items() if "error" in c}
        if name != "threads":
            assert {"ours-functions", "plain", "eager"} <= set(compared)
        for key, c in compared.items():
            allowed = 1e-6 if key.startswith("ours") else 1e-5
            if "bf16" in key:  # there on CPUs with AMX alone
                allowed = 5e-3
            assert 0 < c["error"] < allowed
            assert c["runs"] >= 20
            assert 0 < c["min_ms"] <= c["p50_ms"] <= c["p99_ms"]
            assert c["times_ours"] > 0
        for key, c in rows.items():
            assert c.get("absent") or c["p50_ms"] > 0
            assert f"| {key} " in printed


@pytest.mark.parametrize(
    ("owner", "maker", "factor", "limit"),
    [(ours, "session", 1 + 4e-6, "1e-06"), (Rivals, "eager", 1 + 4e-4, "0.0001")],
)
def test_a_wrong_output_ends_the_run(
    owner: object,
    maker: str,
    factor: float,
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make: Callable[..., Contestant] = getattr(owner, maker)

    def make_wrong(*args: Any, **options: Any) -> Contestant:  # noqa: ANN401
        right = make(*args, **options)
        return replace(right, run=lambda x: right.run(x) * np.float32(factor))

    monkeypatch.setattr(owner, maker, make_wrong)
    file = tmp_path / "out.json"
    options = ["--scenario", "uniform", "--only", "ours,eager", "--json", str(file)]
    assert attention.main([*ATTENTION, *options]) == 1
    rule = f"expected a relative error of at most {limit}, got "
    assert rule in capsys.readouterr().err
    assert not file.exists()


def test_only_names_whom_there_is() -> None:
    with pytest.raises(SystemExit, match=r"expected some of ours, .*, got 'typo'"):
        attention.main([*ATTENTION, "--only", "typo"])


def _fake(key: str, error: Exception | None = None) -> Contestant:
    def run(inputs: graphs.Inputs) -> Any:  # noqa: ANN401
        if error is not None:
            raise error
        return np.ones(3) * len(inputs)

    return Contestant(key, lambda inputs: inputs, run, within(1e-6), ours=key == "ours")


def _race(*contestants: Contestant | Absent) -> dict[str, Outcome | Absent]:
    scenario = graphs.Scenario("some", "", 3, 3, 4, "uniform")
    pool = [
        {
            "history.lengths": np.array([1, 2, 3]),
            "request_of_candidate": np.arange(3),
        }
    ] * 4
    named = {c.label if isinstance(c, Contestant) else "absent": c for c in contestants}
    count = graphs.count_valid_pairs
    result = race(scenario, named, pool, lambda _: np.full(3, 2.0), count, 0.0)
    assert result.units == 6
    summary = summarize(result, [], None)
    assert list(summary["contestants"]) == list(named)
    return dict(result.outcomes)


def test_a_rival_that_breaks_down_is_a_row_and_ours_is_an_error() -> None:
    broken = RuntimeError("first line\nsecond line")
    outcomes = _race(_fake("ours"), _fake("rival", broken), Absent("not here"))
    assert isinstance(outcomes["ours"], Outcome)
    assert len(outcomes["ours"].seconds) == 20
    assert outcomes["rival"] == Absent("failed: RuntimeError: first line")
    assert outcomes["absent"] == Absent("not here")
    with pytest.raises(RuntimeError, match="first line"):
        _race(_fake("ours", broken))


def test_a_rival_is_never_left_out_silently() -> None:
    def raising(error: Exception) -> Callable[[], Contestant]:
        def make() -> Contestant:
            raise error

        return make

    assert build(
        {
            "ours": raising(UnavailableError("no AMX")),
            "a": raising(ImportError("No module named 'a'")),
            "b": raising(ValueError("")),
        }
    ) == {
        "ours": Absent("skipped: no AMX"),
        "a": Absent("not installed: No module named 'a'"),
        "b": Absent("failed: ValueError: no message"),
    }
    with pytest.raises(ValueError, match="broken"):
        build({"ours": raising(ValueError("broken"))})


@pytest.mark.parametrize("output", [np.full(3, np.nan), np.full((3, 1), 2.0)])
def test_nan_and_another_shape_are_wrong(output: object) -> None:
    with pytest.raises(WrongOutputError, match=r"^expected .* - at `rival`$"):
        _race(replace(_fake("rival"), run=lambda _: output))


def test_inputs_and_references_are_hard() -> None:
    net = graphs.make_model(SIZES, 5, seed=0)
    scenario = graphs.Scenario("some", "", 64, 64, 5, "uniform")
    pool = graphs.make_pool(net.spec, scenario, 1 << 16, seed=0)
    assert sum(x["hist_goods_id"].nbytes * 2 for x in pool) >= 1 << 16
    exact = graphs.exact_model(net)
    for inputs in pool:
        ids, lengths = inputs["hist_goods_id"], inputs["history.lengths"]
        valid = np.arange(5) < lengths[:, None]
        assert (ids[~valid] == 0).all()
        assert 1 <= ids[valid].min() <= ids.max() < SIZES.goods
        assert graphs.exact_score(exact, inputs).std() > 0.05
        assert graphs.exact_interest(exact, inputs).std() > 0.05
    goods = np.concatenate([x["goods_id"] for x in pool])
    counts = np.bincount(goods, minlength=SIZES.goods)
    assert counts.max() > 10 * goods.size / SIZES.goods  # far from uniform
    assert (counts > 0).sum() > SIZES.goods / 10


ENCODE = ["--rows", "60", "--t", "5", "--vocab", "300", "--seconds", "0"]
EVERYONE = {
    "polars",
    "pandas",
    "pandas-plain",
    "duckdb",
    "python-xxhash",
    "mmh3",
    "farmhash",
    "feature-hasher",
    "copy",
}
OF_TEXTS = {"pandas-plain", "feature-hasher"}
RIVALS = {
    "ids": EVERYONE,
    "string13": EVERYONE,
    "mixed": EVERYONE,
    "uuids": EVERYONE,
    "long": EVERYONE,
    "int64": EVERYONE - OF_TEXTS,
    "dictionary": EVERYONE - OF_TEXTS | {"polars-enum"},
    "two-fields": EVERYONE,
    "vocab": {"polars", "polars-join", "pandas", "pyarrow", "python-dict", "copy"},
    "exploded": EVERYONE,
    "request": {"polars", "pandas", "python-xxhash", "mmh3", "farmhash"},
}
SCENARIOS = {s.name: s for s in encode.SCENARIOS}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_MAX_THREADS", "1")
    monkeypatch.setattr(command, "POOL_CACHES", 0)
    monkeypatch.setattr(timing, "ROUNDS", 2)
    monkeypatch.setattr(timing, "SETTLE_S", 0)


@pytest.mark.usefixtures("quick")
def test_everyone_encodes_every_scenario(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    names = {"ours"}.union(*RIVALS.values())
    only = ["--only", ",".join(sorted(names))]
    assert encode.main([*ENCODE, *only, "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert {"commit", "date", "cpu", "versions", "seed"} <= set(document)
    assert (document["rows"], document["t"], document["threads"]) == (60, 5, 1)
    assert list(document["scenarios"]) == list(RIVALS)
    printed = capsys.readouterr().out
    for name, scenario in document["scenarios"].items():
        hashes = ["vocab"] if name == "vocab" else keys.HASHES
        own = [f"ours-{h}" for h in hashes]
        assert scenario["compared_with"] == own[0]
        rows = scenario["contestants"]
        assert set(rows) == {*own, *RIVALS[name]}
        per = "us_per_request" if name == "request" else "ns_per_key"
        for key, c in rows.items():
            assert c["runs"] >= 2
            assert 0 < c["min_ms"] <= c["p50_ms"] <= c["p99_ms"]
            assert c["times_ours"] > 0
            assert c[per] > 0
            assert ("percent_of_copy" in c) == (name != "request")
            assert f"| {key} " in printed
        assert all(figure["holds"] in (True, False) for figure in scenario["wanted"])
    wanted = {name: len(s["wanted"]) for name, s in document["scenarios"].items()}
    assert sum(wanted.values()) == len(encode.WANTED)
    assert "- ns per key of ours-xxh64: " in printed
    assert printed == render(document)
    assert document["isa"] in _kernels.isas()
    assert f", threads: 1, ours in {document['isa']}\n" in printed


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("module", "maker"),
    [(encoders, "_ours"), (encoders, "_loop"), (padding, "_copy")],
)
def test_a_wrong_id_ends_the_run(
    module: ModuleType,
    maker: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make: Callable[..., Contestant] = getattr(module, maker)

    def make_wrong(*args: Any) -> Contestant:  # noqa: ANN401
        right = make(*args)
        return replace(right, run=lambda x: (right.run(x)[0] ^ 1, *right.run(x)[1:]))

    monkeypatch.setattr(module, maker, make_wrong)
    file = tmp_path / "out.json"
    options = ["--scenario", "string13", "--only", "ours-xxh64,mmh3,copy"]
    assert encode.main([*ENCODE, *options, "--json", str(file)]) == 1
    key = {"_ours": "ours-xxh64", "_loop": "mmh3", "_copy": "copy"}[maker]
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: expected ")
    assert error.endswith(f" - at `{key}`")
    assert not file.exists()


def _source(name: str) -> keys.Source:
    return keys.Source(SCENARIOS[name], rows=60, t=5, distinct=300, seed=0)


def _repad(change: Callable[[Any], Any]) -> Callable[[keys.Lists, Any], Any]:
    """Change ids without their padding."""

    def wrong(batch: keys.Lists, output: Any) -> Any:  # noqa: ANN401
        return forms.pad(change(batch.unpad(output)), batch.offsets)

    return wrong


def _swap(batch: keys.Batch, output: Any) -> Any:  # noqa: ANN401, ARG001
    return output | {"goods_id": output["cate_id"], "cate_id": output["goods_id"]}


ORDER = _repad(lambda ids: np.roll(ids, 1))
LAST = _repad(lambda ids: np.append(ids[:-1], ids[-1] + 1))
KNOWN = r"^expected id \d+ of key \d+, b'.*', got \d+$"
SHAPE = r"^expected int64 \(60, 5\), got float64 \(60, 5\)$"
LENGTHS = "^expected the lists' lengths, got others$"
PADDING = "^expected 0 as padding, got 7$"
SEVERAL = "^expected one id of equal keys, got several$"
RANGE = r"^expected ids in \[1, 1000000\), got "
FEW = r"^expected some \d+ ids of \d+ keys, got 7$"
SUM = "^expected every key of a row once, got another sum$"
COUNTS = "^expected ids .*, got .* in row 0$"
COPY = "^expected a copy of the keys, got something else$"


@pytest.mark.parametrize(
    ("scenario", "key", "wrong", "message"),
    [
        ("string13", "mmh3", ORDER, KNOWN),
        ("string13", "ours-xxh64", LAST, KNOWN),
        ("int64", "python-xxhash", ORDER, KNOWN),
        ("dictionary", "farmhash", ORDER, KNOWN),
        ("vocab", "python-dict", _repad(lambda ids: ids % 301), KNOWN),
        ("request", "mmh3", _swap, KNOWN),
        ("string13", "mmh3", lambda _, x: (x[0] * 1.0, x[1]), SHAPE),
        ("string13", "pandas", lambda _, x: (x[0], x[1] - 1), LENGTHS),
        ("string13", "pandas", lambda _, x: (np.where(x[0], x[0], 7), x[1]), PADDING),
        ("string13", "pandas", ORDER, SEVERAL),
        ("int64", "polars", ORDER, SEVERAL),
        ("dictionary", "polars-enum", ORDER, SEVERAL),
        ("request", "pandas", _swap, f"{KNOWN}|{SEVERAL}"),
        ("mixed", "duckdb", _repad(lambda ids: ids - ids.min()), RANGE),
        ("mixed", "duckdb", _repad(lambda ids: ids - ids.max() + 10**6), RANGE),
        ("long", "pandas", _repad(lambda ids: 1 + ids % 7), FEW),
        ("string13", "feature-hasher", lambda _, x: 2 * x, SUM),
        ("string13", "feature-hasher", lambda _, x: x[:, ::-1], COUNTS),
        ("two-fields", "ours-xxh64", lambda _, x: x[::-1], KNOWN),
        ("two-fields", "mmh3", lambda _, x: x[::-1], KNOWN),
        (
            "two-fields",
            "duckdb",
            lambda batch, x: [x[0], ORDER(batch.lists[1], x[1])],
            SEVERAL,
        ),
        ("two-fields", "copy", lambda _, x: [*x[:-1], x[-1][::-1]], COPY),
        ("string13", "copy", lambda batch, _: batch.buffers, COPY),
        ("string13", "copy", lambda _, x: [x[0], x[1][::-1]], COPY),
    ],
)
def test_no_check_of_ids_is_blind(
    scenario: str, key: str, wrong: Callable[..., Any], message: str
) -> None:
    source = _source(scenario)
    contestant = encoders.entries(source, 1)[key]()
    for batch in source.draw(0):
        output = contestant.run(contestant.prepare(batch))
        assert contestant.check(output, batch) is None
        with pytest.raises(WrongOutputError, match=message):
            contestant.check(wrong(batch, output), batch)


def test_threads_copy_all_keys() -> None:
    batch = _source("two-fields").draw(0)[0]
    copy = encoders.entries(_source("two-fields"), 3)["copy"]()
    assert copy.check(copy.run(copy.prepare(batch)), batch) is None


def test_keys_are_as_told() -> None:
    def draw(name: str) -> list[Any]:
        batches = _source(name).draw(1 << 17)
        assert sum(b.nbytes for b in batches) > 0.9 * (1 << 17)
        assert batches[0].take(np.arange(9)) != batches[-1].take(np.arange(9))
        return list(batches)

    def sizes(name: str) -> set[int]:
        return {len(key) for key in draw(name)[0].take(np.arange(100))}

    assert sizes("ids") == {7, 8, 9, 10, 11, 12, 13}
    numbers = [int(key[6:]) for key in draw("ids")[0].take(np.arange(150))]
    digits = np.bincount([len(str(number)) for number in numbers])
    assert digits[1:].min() > 5  # no count of digits is rare
    assert sizes("string13") == {13}
    for key in draw("uuids")[0].take(np.arange(100)):
        assert UUID(key.decode()).version == 4
        assert len(key) == 36
    assert {1, 24} <= sizes("mixed") <= set(range(1, 25))
    assert min(sizes("long")) < 50
    assert sizes("long") <= set(range(40, 101))
    for lists in draw("string13"):
        assert set(np.diff(lists.offsets)) == {1, 2, 3, 4, 5}
        counts = np.bincount(lists.codes)
        assert counts.max() > 5 * counts.mean()  # far from uniform
    whole = draw("int64")[0].values.to_numpy()
    assert whole.min() < -(2**61) < 2**61 < whole.max()
    assert draw("dictionary")[0].values.type == pa.dictionary(pa.int32(), pa.string())
    exploded = draw("exploded")[0].column.to_pylist()
    assert exploded[:20] == exploded[:1] * 20
    assert exploded[20:40] == exploded[20:21] * 20 != exploded[:20]
    goods, cates = _source("two-fields").draw(0)[0].lists
    assert np.array_equal(goods.offsets, cates.offsets)
    of_goods: dict[bytes, bytes] = {}
    pairs = zip(goods.take(np.arange(150)), cates.take(np.arange(150)), strict=True)
    for good, cate in pairs:
        assert of_goods.setdefault(good, cate) == cate
    known = set(_source("vocab").vocabulary)
    looked_up = draw("vocab")[0].values.to_pylist()
    assert 0.8 < np.mean([key in known for key in looked_up]) < 0.97
    row = draw("request")[0].row
    assert [len(row[name]) for name in keys.HISTORY] == [5, 5, 5]


def test_ours_on_one_thread_runs_beside_more() -> None:
    assert next(iter(encoders.entries(_source("string13"), 1))) == "ours-xxh64"
    assert "ours-xxh64-1" not in encoders.entries(_source("string13"), 1)
    assert {"ours-xxh64-1", "copy", "copy-1"} <= set(
        encoders.entries(_source("string13"), 2)
    )
    assert "ours-vocab-1" in encoders.entries(_source("vocab"), 2)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("scenarios", [["ids"], ["ids", "int64"]])
def test_what_is_printed_follows_from_the_json(
    scenarios: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    options = ["--scenario", *scenarios, "--only", "ours-xxh64,copy"]
    assert encode.main([*ENCODE, *options, "--json", str(file)]) == 0
    assert capsys.readouterr().out == render(json.loads(file.read_text()))

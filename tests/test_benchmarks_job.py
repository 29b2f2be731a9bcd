"""The benchmark of jobs compares what it times; no test here asserts a time."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import (
    events,
    job,
    launch,
    paste,
    processes,
    scaling,
    straightforward,
)
from benchmarks.events import Shape
from benchmarks.processes import Finished, check
from benchmarks.tables import hold, markdown, sentence
from benchmarks.timing import WrongOutputError
from din_infer import FeatureSpec

pytestmark = pytest.mark.slow

TINY = ["--rows", "600", "--goods-rows", "500", "--group-rows", "250", "--rounds", "1"]
CONTESTANTS = [
    "din-score",
    "in-memory",
    "in-memory-8192",
    "straightforward",
    "straightforward-packed",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and models, made once."""
    return tmp_path_factory.mktemp("events")


def test_every_job_is_compared_and_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.json"
    options = ["--threads", "1", "--folder", str(folder), "--rss-rows", "20", "600"]
    assert job.main([*TINY, *options, "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert {"commit", "date", "cpu", "versions", "seed"} <= set(document)
    assert (document["rows"], document["threads"]) == (600, 1)
    printed = capsys.readouterr().out
    contestants = document["job"]["contestants"]
    assert list(contestants) == CONTESTANTS
    for key, c in contestants.items():
        assert 0 <= c["error"] <= 1e-5
        assert c["rows_per_s"] > 0
        assert len(c["all_job_s"]) == 1
        assert f"| {key} " in printed
    assert contestants["straightforward"]["error"] > 0
    for key in ("din-score", "straightforward"):
        c = contestants[key]
        assert 0 < c["job_s"] < c["process_s"]
        assert c["peak_mb"] > 50
    assert [w["at_least"] for w in document["job"]["wanted"]] == [0.8, 12.0, None, None]
    small, large = document["memory"]["sizes"]
    assert (small["rows"], large["rows"]) == (20, 600)
    assert document["memory"]["wanted"][0]["at_most"] == 64
    assert "- more MB at the peak: " in printed
    assert not list(folder.glob("scores-*"))


def test_what_changes_costs_is_swept_one_at_a_time(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = scaling.sweeps(Shape())
    for sweep in full:
        assert Shape() in sweep.points.values()
        changed = {
            name
            for shape in sweep.points.values()
            for name, value in vars(shape).items()
            if value != vars(Shape())[name]
        }
        assert changed in ({"rows"}, {"t"}, {"dim"}, {"n"}, {"n", "nested"})

    def three(base: Shape) -> tuple[scaling.Sweep, ...]:
        rows, histories, *_, requests = sweeps(base)
        points = {t: replace(base, t=t) for t in (10, 50)}
        only = {base.rows: base, 2 * base.rows: replace(base, rows=2 * base.rows)}
        lists = {10: requests.points[10]}
        return (
            replace(rows, points=only),
            replace(histories, points=points),
            replace(requests, points=lists),
        )

    sweeps = scaling.sweeps
    monkeypatch.setattr(scaling, "sweeps", three)
    file = tmp_path / "out.json"
    options = ["--threads", "1", "--folder", str(folder), "--table-rows", "500"]
    assert job.main([*TINY, *options, "--scaling", "--json", str(file)]) == 0
    document = json.loads(file.read_text())
    assert document["benchmark"] == "scaling"
    rows, histories, requests = document["sweeps"]
    assert [r["N"] for r in requests["rows"]] == [10]
    assert [r["rows"] for r in rows["rows"]] == [600, 1200]
    assert [r["T"] for r in histories["rows"]] == [10, 50]
    assert rows["rows"][0]["times_base"] == histories["rows"][1]["times_base"] == 1
    assert [(t["goods"], t["dtype"]) for t in document["tables"]] == [
        (500, "fp32"),
        (500, "fp16"),
    ]
    assert document["tables"][0]["model_mb"] > document["tables"][1]["model_mb"]
    printed = capsys.readouterr().out
    assert "- a line through them: " in printed
    assert "\n## tables: goods 32 wide, 600 rows" in printed
    assert "\n## plan: a billion rows, reckoned\n" in printed
    assert all(r["output_mb_per_million_rows"] > 0 for r in rows["rows"])


@pytest.mark.parametrize("maker", ["din_score", "straightforward"])
def test_a_wrong_score_ends_the_run(
    maker: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = maker.replace("_", "-")

    def shifted(by: float) -> Callable[[processes.Files], Finished]:
        def run(files: processes.Files) -> Finished:
            right = processes.in_memory(files, ["whole"])
            return replace(right, scores={key: right.scores["in-memory"] + by})

        return run

    monkeypatch.setattr(job, "din_score", shifted(5e-6))
    monkeypatch.setattr(job, maker, shifted(2e-5))
    file = tmp_path / "out.json"
    options = ["--threads", "1", "--folder", str(folder), "--json", str(file)]
    assert job.main([*TINY, *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(
        "error: expected Predictor.score's scores within 1e-05, got"
    )
    assert error.endswith(f" - at `{key}`")
    assert not file.exists()


def _finished(scores: Any) -> Finished:  # noqa: ANN401
    return Finished({}, {}, {}, {"some": np.asarray(scores, np.float32)})


def test_no_check_of_scores_is_blind() -> None:
    wanted = np.array([0.1, 0.5, 0.9], np.float32)
    assert check(_finished(wanted), wanted) == {"some": 0.0}
    for scores, rule in (
        (wanted[:2], "^expected 3 scores, got 2 - at `some`$"),
        (wanted + 2e-5, "got a difference of 2.00e-05 - at `some`$"),
        ([0.1, np.nan, 0.9], "got a difference of nan - at `some`$"),
    ):
        with pytest.raises(WrongOutputError, match=rule):
            check(_finished(scores), wanted)
    with pytest.raises(WrongOutputError, match="spread out, got std 0"):
        check(_finished([0.5, 0.5]), np.full(2, 0.5, np.float32))


def test_a_job_that_fails_says_why() -> None:
    code = "import sys; sys.exit('no luck')"
    with pytest.raises(RuntimeError, match=r"^python\S* failed: no luck$"):
        processes.start([processes.sys.executable, "-c", code], threads=1)


def test_events_are_as_told(tmp_path: Path) -> None:
    shape = Shape(rows=1003, t=7, n=10, goods=300, group_rows=405)
    path = events.write_events(shape, tmp_path)
    file = pq.ParquetFile(path)
    groups = [file.metadata.row_group(i).num_rows for i in range(3)]
    assert (file.metadata.num_row_groups, groups) == (3, [400, 400, 203])
    rows = file.read().to_pylist()
    for start in range(0, 1003, 10):  # a request's rows have one user, one history
        request = rows[start : start + 10]
        assert len({r["user_id"] for r in request}) == 1
        assert all(r["hist_goods_id"] == request[0]["hist_goods_id"] for r in request)
    assert {len(r["hist_goods_id"]) for r in rows} == set(range(8))
    for r in rows:
        assert len(r["hist_goods_id"]) == len(r["hist_cate_id"])
        assert {len(k) for k in (r["goods_id"], *r["hist_goods_id"])} == {13}
    again = events.write_events(shape, path.parent / ".")
    assert again.stat().st_mtime_ns == path.stat().st_mtime_ns
    same = tmp_path / "same"
    same.mkdir()
    assert events.write_events(shape, same).read_bytes() == path.read_bytes()
    other = events.write_events(replace(shape, seed=1), same)
    assert other.read_bytes() != path.read_bytes()
    nested = pq.read_table(events.write_events(replace(shape, nested=True), tmp_path))
    requests = nested.to_pylist()
    assert len(requests) == 101
    assert [r["user_id"] for r in requests for _ in r["price"]] == [
        r["user_id"] for r in rows
    ]
    for name in ("goods_id", "cate_id", "price"):
        assert [v for r in requests for v in r[name]] == [r[name] for r in rows]
    assert requests[1]["hist_goods_id"] == rows[10]["hist_goods_id"]


def test_the_straightforward_job_has_our_ids(tmp_path: Path) -> None:
    shape = Shape(rows=50, t=9, goods=300)
    spec = events.make_spec(replace(shape, t=6))  # so that some are truncated
    batch = pq.read_table(events.write_events(shape, tmp_path)).to_batches()[0]
    for chunk in (batch, batch.slice(7, 11)):
        wanted = FeatureSpec.from_json(spec.to_json()).encode(chunk)
        got = straightforward.encode(chunk, spec)
        for name in set(wanted) - {"request_of_candidate"}:
            np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)


def test_memory_is_told_where_there_is_proc() -> None:
    found = launch.memory_mb()
    assert not found or set(found) == {"rss_mb", "anonymous_mb", "mapped_mb"}
    assert launch.memory_mb("nobody") == {}


def test_tables_are_pasted_where_a_page_says(tmp_path: Path) -> None:
    (tmp_path / "some-avx9.md").write_text(
        "# some\n\nmachine\n\n## N: few\n\n| N |\n\n## N in lists: many\n\n| M |\n"
    )
    page = "a\n<!-- some-avx9{}: begin -->\n\n{}\n<!-- end -->\nb\n"
    for section, wanted in (("", "machine"), ("#N", "| N |"), ("#N in lists", "| M |")):
        once = paste.pasted(page.format(section, "old\n"), tmp_path)
        assert once == page.format(section, f"{wanted}\n")
        assert paste.pasted(once, tmp_path) == once
    with pytest.raises(LookupError, match=r"a section 'T' in .* - at `some-avx9`$"):
        paste.pasted(page.format("#T", ""), tmp_path)
    with pytest.raises(LookupError, match=r"got no such file - at `some-avx9`$"):
        paste.pasted(page.format("", ""), tmp_path / "nowhere")


def test_figures_are_laid_out_and_held() -> None:
    assert markdown([("a", "b"), ("x", "1.5")]).splitlines() == [
        "| a |   b |",
        "| - | --: |",
        "| x | 1.5 |",
    ]
    assert sentence(hold("a / b", 3.0, at_least=2)).endswith("wanted at least 2: holds")
    said = sentence(hold("more MB", 3.0, at_most=2))
    assert said == "- more MB: 3.00, wanted at most 2: does not hold"
    assert sentence(hold("a / b", 3.0)) == "- a / b: 3.00"


@pytest.mark.parametrize(
    "options",
    [["--rows", "0"], ["--scaling", "--rounds", "0"], ["--goods-rows", "10000001"]],
)
def test_arguments_that_mean_nothing_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        job.main(options)

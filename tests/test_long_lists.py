"""One list of any length among short ones: same scores, memory bounded by pieces."""

import copy
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from din_converter import convert
from din_converter.evaluate import evaluate
from din_converter.rows import Rows as LabeledRows
from din_infer import FeatureSpec, InputError, Predictor, encode
from din_infer.jobs.files import score_files
from tests.containers import CONTAINERS
from tests.models import random_model, random_rows, spec_dict

pytestmark = pytest.mark.slow

Rows = list[dict[str, Any]]
HISTORY = ("hist_goods_id", "hist_cate_id", "action")


def open_spec() -> dict[str, Any]:
    """A spec whose lists may have any length."""
    raw = copy.deepcopy(spec_dict())
    for part in (*raw["behavior"], *raw["multi_hot"]):
        part["max_len"] = 2**31 - 1
    return raw


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "model.onnx"
    convert(random_model(open_spec()), path)
    return path


def make_rows(count: int, seed: int = 0, **long: int) -> Rows:
    """Rows of which one in the middle has lists of the lengths given."""
    rows = random_rows(FeatureSpec.from_dict(spec_dict()), count, seed)
    for row in rows:
        del row["extra"]
    row = rows[count // 2]
    for name, length in long.items():
        names = HISTORY if name == "history" else (name,)
        for column in names:
            some = [v for r in rows for v in r[column] or ()]
            row[column] = (some * (length // len(some) + 1))[:length]
    return rows


@pytest.fixture(params=[5000, 400], ids=["pieces of 5000", "pieces of 400"])
def _small_pieces(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "MOST_CELLS", request.param)


LONG: dict[str, dict[str, int]] = {
    "a history": {"history": 900},
    "tags of a candidate": {"tags": 700},
    "interests of a user": {"interests": 600},
    "all": {"history": 800, "tags": 500, "interests": 900},
}


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("case", LONG)
@pytest.mark.parametrize("fused", [True, False])
def test_scores_and_counts_are_those_of_single_rows(
    case: str, fused: bool, model: Path
) -> None:
    rows = make_rows(120, **LONG[case])
    predictor, single = (Predictor(model, threads=1, fused=fused) for _ in range(2))
    wanted = np.concatenate([single.score([row]) for row in rows])
    assert len(predictor.spec.encoder.cut(rows)) > 2
    np.testing.assert_allclose(predictor.score(rows), wanted, rtol=0, atol=1e-6)
    assert predictor.stats == single.stats
    made = list(predictor.iter_score([rows, rows[:3]]))
    np.testing.assert_allclose(made[0], wanted, rtol=0, atol=1e-6)
    assert len(made[1]) == 3


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("make", CONTAINERS)
def test_every_container_is_cut(make: Callable[..., Any], model: Path) -> None:
    rows = make_rows(60, seed=1, history=500, tags=300)
    predictor = Predictor(model, threads=1)
    reads = sorted(predictor.spec.reads, key=lambda c: c.is_length)
    kinds = {c.name: c.dtype + "[]" * c.is_list for c in reads}
    narrow = [{n: row[n] for n in kinds} for row in rows]
    batch = make(narrow, kinds)
    wanted = np.concatenate([predictor.score([row]) for row in narrow])
    np.testing.assert_allclose(predictor.score(batch), wanted, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("_small_pieces")
def test_requests_are_cut(model: Path) -> None:
    rows = make_rows(90, seed=2, history=900)
    rng = np.random.default_rng(2)
    owners = rng.integers(0, 80, 200)  # in no order; ten requests have no candidates
    predictor, single = (Predictor(model, threads=1) for _ in range(2))
    items = [rows[k % 90] for k in range(200)]
    got = predictor.score_requests(rows, items, owners)
    wanted = [
        single.score_requests([rows[o]], [item])[0]
        for o, item in zip(owners, items, strict=True)
    ]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)
    rows[85]["interests"] = [7]
    with pytest.raises(InputError) as error:
        predictor.score_requests(rows, items, owners)
    assert (error.value.column, error.value.row) == ("interests", 85)
    rows[85]["interests"] = None
    items[177] = items[177] | {"cate_id": 50}
    with pytest.raises(InputError) as error:
        predictor.score_requests(rows, items, owners)
    assert (error.value.column, error.value.row) == ("cate_id", 177)


def test_an_error_names_the_row_of_the_batch(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "MOST_CELLS", 400)
    rows = make_rows(100, seed=3, history=900)
    rows[97]["cate_id"] = 50
    rows[20]["cate_id"] = 50
    errors: list[InputError] = []
    encoder = Predictor(model).spec.encoder
    for _ in encoder.encode_pieces(rows, errors=errors):
        pass
    assert [(e.column, e.row) for e in errors] == [("cate_id", 20), ("cate_id", 97)]
    with pytest.raises(InputError) as error:
        Predictor(model).score(rows[50:])
    assert error.value.row == 47
    assert len(encoder.cut(rows)) > 2


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("form", ["rows", "requests"])
def test_jobs_are_cut_and_skip_bad_rows(form: str, model: Path, tmp_path: Path) -> None:
    rows = make_rows(80, seed=4, history=700)
    predictor = Predictor(model, threads=1)
    good = [k for k in range(80) if k not in (5, 77)]
    wanted = predictor.score([rows[k] for k in good])
    for k in (5, 77):
        rows[k]["cate_id"] = 50
    if form == "requests":
        for row in rows:
            row["items"] = [{n: row.pop(n) for n in ("goods_id", "cate_id", "price")}]
            row["items"][0]["tags"] = row.pop("tags")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    made = score_files(
        predictor, tmp_path / "rows.parquet", tmp_path / "out", on_error="skip"
    )
    assert made.bad_rows == 2
    lines = (tmp_path / "out/_din_score/bad/rows.parquet.jsonl").read_text()
    assert [json.loads(line)["row"] for line in lines.splitlines()] == [5, 77]
    scores = pq.read_table(tmp_path / "out" / "rows.parquet")["score"].to_pylist()
    flat = scores if form == "rows" else [s for some in scores for s in some]
    np.testing.assert_allclose(flat, wanted, rtol=0, atol=1e-6)


def test_ordinary_batches_are_not_cut(model: Path) -> None:
    encoder = Predictor(model).spec.encoder
    rows = pd.DataFrame(make_rows(3000))
    assert encoder.cut(rows) == [(0, 3000)]
    assert encoder.cut(rows[:0]) == [(0, 0)]
    # long, but not for the padding
    full = [make_rows(1, seed=5, history=300_000)[0]] * 30
    assert encoder.cut(full) == [(0, 30)]


def peak_of(code: str, *arguments: object) -> int:
    """Bytes that a process took at most more than it had before `code`."""
    text = f"""
        import resource, sys
        from pathlib import Path
        from din_infer import FeatureSpec, Predictor
        from din_infer.jobs.files import score_files
        from din_infer.jobs.inspect import inspect_files
        import din_converter.cli
        import pyarrow.parquet
        import torch
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        {code}
        print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.splitlines()[-1])


@pytest.mark.usefixtures("_small_pieces")
def test_training_reads_every_row_once_in_smaller_batches(tmp_path: Path) -> None:
    raw = open_spec() | {"label": "label"}
    spec = FeatureSpec.from_dict(raw)
    rows = make_rows(100, seed=7, history=900)
    for k, row in enumerate(rows):
        row["label"] = k % 2
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=64)
    read = LabeledRows.open([tmp_path / "rows.parquet"], spec)
    read.check()
    sizes = [len(b.labels) for b in read.batches(50)]
    labels = np.concatenate([b.labels for b in read.batches(50)])
    np.testing.assert_array_equal(labels, [k % 2 for k in range(100)])
    assert len(sizes) > 2
    assert max(sizes) <= 50
    skipped = [len(b.labels) for b in read.batches(50, skip=2)]
    assert skipped == sizes[2:]
    model = random_model(raw)
    one_by_one = [evaluate(model, table.slice(k, 1))[0] for k in range(100)]
    for way in (table, read):
        np.testing.assert_allclose(evaluate(model, way), one_by_one, atol=1e-6)


WAYS = {
    "din-score": "score_files(Predictor(sys.argv[1]), sys.argv[2], sys.argv[3])",
    "din-score without operators": (
        "score_files(Predictor(sys.argv[1], fused=False), sys.argv[2], sys.argv[3])"
    ),
    "din-inspect": "inspect_files(FeatureSpec.load(sys.argv[4]), [sys.argv[2]])",
    "din-train": (
        "din_converter.cli.train_main([sys.argv[2], '--spec', sys.argv[4],"
        " '--valid-fraction', '0', '--epochs', '1', '--out', sys.argv[3]])"
    ),
    "Predictor.score": (
        "Predictor(sys.argv[1]).score(pyarrow.parquet.read_table(sys.argv[2]))"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_history_of_a_million_takes_its_own_memory_alone(
    way: str, model: Path, tmp_path: Path
) -> None:
    rows = make_rows(1000, seed=6, history=1_000_000)
    for k, row in enumerate(rows):
        row["label"] = k % 2
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    spec = open_spec() | {"label": "label"}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    peak = peak_of(
        WAYS[way],
        model,
        tmp_path / "rows.parquet",
        tmp_path / "out",
        tmp_path / "spec.json",
    )
    # padded, the ids of one column alone would be 8 GB; the functions' widest tensor
    # of the long row is 0.3 GB
    assert peak < 2_500_000_000 if "without" in way else peak < 800_000_000

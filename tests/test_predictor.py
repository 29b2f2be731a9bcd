"""Predictor end to end; long because every refusal is a case of its own."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from din_converter import convert
from din_converter.verify import link
from din_infer import DeviceError, InputError, ModelError, Predictor
from din_infer.describe import describe
from din_infer.encoded import check_encoded
from din_infer.slicing import slices_in_order
from din_infer.spec import ANY_LENGTH, FeatureSpec
from tests import ops
from tests.models import SPECS, random_model, random_rows

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def paper(folder: Path) -> Predictor:
    convert(random_model(SPECS["paper"]), folder / "paper.onnx")
    return Predictor(folder / "paper.onnx", device="cpu")


@pytest.fixture(scope="module")
def rows(paper: Predictor) -> Rows:
    made = random_rows(paper.spec, 150, seed=7)
    for row in made:
        del row["extra"]
    made[0] |= {"hist_goods_id": [], "hist_cate_id": [], "action": []}
    made[1] |= {"hist_goods_id": None, "hist_cate_id": None, "action": None}
    made[2]["goods_id"] = None
    made[3]["price"] = None
    return made


def columns_of(rows: Rows) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_scores_equal_torch_in_float64(paper: Predictor, rows: Rows) -> None:
    model = random_model(SPECS["paper"]).double()
    inputs = {k: torch.from_numpy(v) for k, v in paper.spec.encode(rows).items()}
    with torch.inference_mode():
        logits = model(inputs).numpy()
    np.testing.assert_allclose(
        paper.score(rows, raw=True), logits, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(paper.score(rows), link(model.spec, logits), atol=1e-5)
    assert np.std(logits) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_users_that_repeat_are_one_request_and_score_the_same(
    name: str, fused: bool, folder: Path
) -> None:
    path = folder / f"repeats {name}.onnx"
    if not path.exists():
        convert(random_model(SPECS[name]), path)
    predictor = Predictor(path, device="cpu", fused=fused)
    encoder = predictor.spec.encoder
    users = random_rows(predictor.spec, 40, seed=1)
    items = random_rows(predictor.spec, 40 * 30, seed=2)
    columns = encoder.user_columns
    rows = [
        item | {column: users[i // 30][column] for column in columns}
        for i, item in enumerate(items)
    ]
    for row in rows:
        del row["extra"]
    batch = columns_of(rows)
    plain = encoder.encode(batch)
    inputs = plain.inputs
    owners = encoder.encode(batch, merge_repeats=True).inputs["request_of_candidate"]
    assert owners[-1] == (39 if columns else 1199)
    for raw in (False, True):
        for size in (None, 37):
            expected = predictor.score_encoded(inputs, raw=raw, batch_size=size)
            got = predictor.score(batch, raw=raw, batch_size=size)
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert encoder.encode(batch, merge_repeats=True).stats == plain.stats
    assert np.std(got) > 0.05


def test_scores_are_float32_and_the_callers_own(paper: Predictor, rows: Rows) -> None:
    scores = paper.score(rows)
    assert scores.dtype == np.float32
    assert scores.shape == (len(rows),)
    scores[:] = 0
    assert paper.score(rows).std() > 0


@pytest.mark.parametrize("batch_size", [1, 2, 7, 149, 150, 151, 10_000])
def test_batch_size_leaves_scores(
    paper: Predictor, rows: Rows, batch_size: int
) -> None:
    got = paper.score(rows, batch_size=batch_size)
    np.testing.assert_allclose(got, paper.score(rows), atol=1e-6)


def containers(rows: Rows) -> dict[str, Any]:
    columns = columns_of(rows)
    table = pa.table(columns)
    return {
        "dict of lists": columns,
        "pyarrow table": table,
        "pyarrow batch": table.to_batches()[0],
        "pyarrow chunks": pa.concat_tables([table.slice(0, 40), table.slice(40)]),
        "polars": pl.from_arrow(table),
        "pandas": pd.DataFrame(columns),
    }


def test_containers_give_the_same_ids_and_scores(paper: Predictor, rows: Rows) -> None:
    wanted, scores = paper.spec.encode(rows), paper.score(rows)
    for name, batch in containers(rows).items():
        got = paper.spec.encode(batch)
        for key, value in wanted.items():
            np.testing.assert_array_equal(got[key], value, err_msg=f"{name} {key}")
        np.testing.assert_array_equal(paper.score(batch), scores, err_msg=name)


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_row_order_batch_size_and_behavior_order_leave_scores(
    paper: Predictor, rows: Rows, random: Random, batch_size: int
) -> None:
    order = random.sample(range(len(rows)), len(rows))
    turned = []
    for i in order:
        row = dict(rows[i])
        if row["action"] and len(row["action"]) <= 12:
            shuffle = random.sample(range(len(row["action"])), len(row["action"]))
            for column in ("hist_goods_id", "hist_cate_id", "action"):
                row[column] = [rows[i][column][j] for j in shuffle]
        turned.append(row)
    got = paper.score(turned, batch_size=batch_size)
    np.testing.assert_allclose(got, paper.score(rows)[order], atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_leave_scores(paper: Predictor, rows: Rows, threads: int) -> None:
    other = Predictor(paper.path, device="cpu", threads=threads)
    assert other.threads == threads
    np.testing.assert_allclose(other.score(rows), paper.score(rows), atol=1e-6)


def test_longer_padding_leaves_scores(paper: Predictor, rows: Rows) -> None:
    inputs = paper.spec.encode(rows)
    longer = dict(inputs)
    for i in paper.spec.inputs:
        if len(i.shape) == 2 and i.rows is not None:
            longer[i.name] = np.pad(inputs[i.name], ((0, 0), (0, 9)))
    got = paper.score_encoded(longer)
    np.testing.assert_allclose(got, paper.score(rows), atol=1e-6)


@pytest.mark.parametrize("name", SPECS)
def test_every_kind_of_model_scores_no_rows_and_one(name: str, folder: Path) -> None:
    path = folder / f"{name}.onnx".replace(" ", "_")
    convert(random_model(SPECS[name]), path)
    predictor = Predictor(path, device="cpu")
    some = random_rows(predictor.spec, 9)
    whole = predictor.score(some)
    one = [float(predictor.score([row])[0]) for row in some]
    np.testing.assert_allclose(one, whole, atol=1e-6 * max(1, np.abs(whole).max()))
    empty = predictor.score({name: [] for name in predictor.spec.columns})
    assert empty.shape == (0,)
    assert empty.dtype == np.float32


def split_requests(rows: Rows) -> tuple[Rows, Rows]:
    user = (
        "user_id",
        "age",
        "hist_goods_id",
        "hist_cate_id",
        "action",
        "interests",
        "profile",
    )
    requests = [{k: row[k] for k in user} for row in rows]
    candidates = [{k: row[k] for k in row if k not in user} for row in rows]
    return requests, candidates


def test_requests_score_as_the_exploded_table(paper: Predictor, rows: Rows) -> None:
    requests, candidates = split_requests(rows)
    owners = np.random.default_rng(0).integers(0, 20, len(candidates))
    exploded = [requests[b] | c for b, c in zip(owners, candidates, strict=True)]
    wanted = paper.score(exploded)
    for batch_size in (None, 7, 64):
        got = paper.score_requests(
            requests[:20], candidates, owners, batch_size=batch_size
        )
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    one = paper.score_requests(requests[:1], candidates)
    again = paper.score([requests[0] | c for c in candidates])
    np.testing.assert_allclose(one, again, atol=1e-6)
    assert paper.score_requests(requests[:2], [], []).shape == (0,)


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        (
            None,
            "expected which of 2 requests each candidate belongs to, got None"
            " - at `request_of_candidate`",
        ),
        (
            [0, 1],
            "expected 3 entries, one per candidate, got 2 - at `request_of_candidate`",
        ),
        (
            [0, 1, 2],
            "expected a request in [0, 2), got 2 - at `request_of_candidate`, row 2",
        ),
    ],
)
def test_wrong_owners_are_refused(
    paper: Predictor, rows: Rows, owners: object, message: str
) -> None:
    requests, candidates = split_requests(rows)
    with pytest.raises(InputError) as caught:
        paper.score_requests(requests[:2], candidates[:3], owners)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_a_list_of_candidates_names_score_requests(
    paper: Predictor, rows: Rows
) -> None:
    columns = columns_of(rows[:2])
    columns["goods_id"] = [["a", "b"], ["c"]]
    with pytest.raises(InputError, match="Use score_requests for lists of candidates"):
        paper.score(columns)


def test_encoded_scores_equal_raw_ones(paper: Predictor, rows: Rows) -> None:
    got = paper.score_encoded(paper.spec.encode(rows))
    np.testing.assert_array_equal(got, paper.score(rows))
    assert list(paper.iter_score([rows[:3], rows[3:4]]))[1].shape == (1,)


def _edit(name: str, change: Any) -> Any:  # noqa: ANN401
    def edit(inputs: dict[str, Any]) -> None:
        inputs[name] = change(inputs[name])

    return edit


ENCODED_FAULTS = {
    "expected an input `goods_id`, got none - at `inputs`": lambda i: i.pop("goods_id"),
    "expected a int64 array of shape ['N'], got int32 - at `goods_id`": _edit(
        "goods_id", lambda a: a.astype(np.int32)
    ),
    "expected a int64 array of shape ['N'], got list - at `goods_id`": _edit(
        "goods_id", lambda a: a.tolist()
    ),
    "expected a int64 array of shape ['N'], got shape [3, 1] - at `goods_id`": _edit(
        "goods_id", lambda a: a[:, None]
    ),
    "expected 3 along N, as `goods_id` has, got 2 - at `cate_id`": _edit(
        "cate_id", lambda a: a[:2]
    ),
    "expected an id in [0, 200), got 200 - at `goods_id[1]`": _edit(
        "goods_id", lambda _: np.array([0, 200, -1])
    ),
    "expected an id in [0, 50), got -1 - at `hist_cate_id[2, 0]`": _edit(
        "hist_cate_id", lambda a: a - (np.arange(3) == 2)[:, None] * (1 + a)
    ),
    "expected a length in [0, 12], got 13 - at `history.lengths[0]`": _edit(
        "history.lengths", lambda _: np.array([13, 1, 1])
    ),
    "expected a request in [0, 3), got 3 - at `request_of_candidate[2]`": _edit(
        "request_of_candidate", lambda a: a + 1
    ),
    "expected 1 along 1, as `spec` has, got 2 - at `price`": _edit(
        "price", lambda a: np.hstack([a, a])
    ),
}


@pytest.mark.parametrize("message", ENCODED_FAULTS)
def test_wrong_encoded_inputs_are_refused(
    paper: Predictor, rows: Rows, message: str
) -> None:
    long = [r for r in rows if r["action"] and len(r["action"]) >= 12][:3]
    inputs: dict[str, Any] = dict(paper.spec.encode(long))
    ENCODED_FAULTS[message](inputs)
    with pytest.raises(InputError) as caught:
        paper.score_encoded(inputs)
    assert str(caught.value) == message


def test_unknown_encoded_inputs_are_refused(paper: Predictor, rows: Rows) -> None:
    inputs = dict(paper.spec.encode(rows[:1])) | {"more": np.zeros(1)}
    with pytest.raises(InputError, match=r"got 'more' - at `inputs`"):
        paper.score_encoded(inputs)
    with pytest.raises(InputError) as caught:
        paper.score(rows, batch_size=0)
    assert (
        str(caught.value)
        == "expected a whole number of at least 1, got 0 - at `batch_size`"
    )


def test_attended_padding_wants_its_full_length() -> None:
    model = random_model(SPECS["attended padding"])
    inputs = model.spec.encode(random_rows(model.spec, 4))
    assert inputs["action"].shape == (4, 12)
    assert set(check_encoded(model.spec, inputs)) == set(inputs)
    for name in ("hist_goods_id", "hist_cate_id", "action"):
        inputs[name] = inputs[name][:, :11]
    with pytest.raises(InputError, match="expected T = 12, since padding is attended"):
        check_encoded(model.spec, inputs)


def test_stats_count_per_field(paper: Predictor) -> None:
    fresh = Predictor(paper.path, device="cpu")
    assert fresh.stats == {}
    rows = random_rows(fresh.spec, 3)
    rows[0] |= {
        "hist_goods_id": [None] * 15,
        "hist_cate_id": [1] * 15,
        "action": ["x"] * 15,
    }
    rows[1] |= {"hist_goods_id": [], "hist_cate_id": [], "action": []}
    rows[2] |= {"hist_goods_id": ["a"], "hist_cate_id": [1], "action": ["buy"]}
    fresh.score(rows)
    counts = fresh.stats["hist_goods_id"]
    assert counts == {"rows": 3, "nulls": 12, "unseen": 0, "truncated": 1, "empty": 1}
    assert fresh.stats["action"]["unseen"] == 12
    before = fresh.stats
    with pytest.raises(InputError):
        fresh.score([{**rows[0], "cate_id": 10**6}])
    assert fresh.stats == before


def test_describe_lists_the_columns(paper: Predictor) -> None:
    lines = paper.describe().splitlines()
    assert lines[0].split() == ["column", "type", "given", "per", "becomes"]
    assert [line.split()[0] for line in lines[2:]] == list(paper.spec.columns)
    assert "xxh64 into 200 buckets, newest 12 of history" in paper.describe()


def test_describe_says_which_columns_a_batch_may_lack() -> None:
    field = {"name": "c", "dim": 1, "encoder": {"type": "identity", "buckets": 9}}
    history = {"name": "h", "max_len": ANY_LENGTH, "fields": {"x": "c"}}
    tags = {"name": "t", "side": "user", "shares": "c", "pooling": "sum"}
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [field],
            "behavior": [history | {"length_column": "n", "pad_value": 0}],
            "multi_hot": [tags | {"max_len": 3, "length_column": "m"}],
        }
    )
    assert describe(spec).splitlines()[2:] == [
        "c       int64          candidate  id in 0..8",
        "x       list of int64  request    id in 0..8, all of h",
        "n       int64          request    length of h (optional)",
        "t       list of int64  request    id in 0..8, sum of up to 3",
        "m       int64          request    length of t",
    ]


def test_threads_may_share_a_predictor(paper: Predictor, rows: Rows) -> None:
    wanted = paper.score(rows)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(10):
            order = np.random.default_rng(seed).permutation(len(rows))
            got = paper.score([rows[i] for i in order])
            if np.abs(got - wanted[order]).max() > 1e-6:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_predictor_pickles_as_path_and_options(paper: Predictor, rows: Rows) -> None:
    data = pickle.dumps(paper)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert copy.model_id == paper.model_id
    np.testing.assert_array_equal(copy.score(rows), paper.score(rows))


def _score_in_child(predictor: Predictor, rows: Rows, out: Any) -> None:  # noqa: ANN401
    try:
        predictor.score(rows)
        out.put("scored")
    except DeviceError as error:
        out.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_refused(paper: Predictor, rows: Rows) -> None:
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    child = context.Process(target=_score_in_child, args=(paper, rows[:2], out))
    child.start()
    said = out.get(timeout=60)
    child.join()
    assert said == (
        "expected the process that made the session, got a forked child - at"
        " `Predictor`. Make a Predictor in each process, or start workers with spawn."
    )


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("gpu", "expected auto, cpu, cuda or cuda:<number>, got 'gpu' - at `device`"),
        (
            "cpu:1",
            "expected auto, cpu, cuda or cuda:<number>, got 'cpu:1' - at `device`",
        ),
        (
            "cuda:x",
            "expected auto, cpu, cuda or cuda:<number>, got 'cuda:x' - at `device`",
        ),
    ],
)
def test_wrong_devices_are_refused(paper: Predictor, device: str, message: str) -> None:
    with pytest.raises(DeviceError) as caught:
        Predictor(paper.path, device=device)
    assert str(caught.value) == message


def test_cuda_without_cuda_is_refused(paper: Predictor) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        with pytest.raises(DeviceError, match="at `cuda:99`"):
            Predictor(paper.path, device="cuda:99")
        return
    with pytest.raises(DeviceError) as caught:
        Predictor(paper.path, device="cuda")
    assert str(caught.value) == (
        f"expected an ONNX Runtime built for CUDA, got onnxruntime"
        f" {onnxruntime.__version__} without it - at `device`."
        ' Run: pip install "din-infer[gpu]" (and no other onnxruntime)'
    )


def test_two_runtimes_or_none_are_refused(
    paper: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    with pytest.raises(DeviceError) as caught:
        Predictor(paper.path)
    assert str(caught.value) == (
        "expected one ONNX Runtime, got onnxruntime and onnxruntime-gpu - at"
        " `environment`. Run: pip uninstall -y onnxruntime onnxruntime-gpu, then"
        " install one extra"
    )
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match=r'Run: pip install "din-infer\[cpu\]"'):
        Predictor(paper.path)


def plain_onnx() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def test_files_that_are_no_model_are_refused(paper: Predictor, tmp_path: Path) -> None:
    good = Path(paper.path).read_bytes()
    path = tmp_path / "m.onnx"
    rule = "expected a model that din-convert wrote, got a damaged file, or no ONNX"
    for content in (b"", b"not a model", good[:100], good[: len(good) // 2], good[:-1]):
        path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            Predictor(path, device="cpu")
        assert str(caught.value).startswith("expected "), content[:20]
        assert str(caught.value).count(str(path)) >= 1
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=rule):
        Predictor(path)
    path.write_bytes(plain_onnx())
    with pytest.raises(ModelError) as caught:
        Predictor(path)
    assert str(caught.value) == (
        "expected a model that din-convert wrote, got an ONNX file without din_infer"
        f" metadata - at `{path}`"
    )
    with pytest.raises(ModelError) as caught:
        Predictor(tmp_path / "none.onnx")
    place = tmp_path / "none.onnx"
    assert (
        str(caught.value) == f"expected a model file, got no such file - at `{place}`"
    )


def edit_metadata(source: str, target: Path, key: str, value: str | None) -> None:
    proto = onnx.load(source)
    kept = [(p.key, p.value) for p in proto.metadata_props if p.key != key]
    del proto.metadata_props[:]
    for k, v in [*kept, *([(key, value)] if value is not None else [])]:
        proto.metadata_props.add(key=k, value=v)
    onnx.save(proto, target)


def test_golden_rows_that_are_not_reproduced_are_refused(
    paper: Predictor, tmp_path: Path
) -> None:
    source, path = paper.path, tmp_path / "m.onnx"
    golden = json.loads(paper._session.file.metadata["din_infer.golden"])
    golden["scores"][4] += 2e-5
    edit_metadata(source, path, "din_infer.golden", json.dumps(golden))
    with pytest.raises(ModelError, match=r"expected the golden score .* within 1e-05"):
        Predictor(path)
    golden["scores"][4] -= 1.5e-5
    edit_metadata(source, path, "din_infer.golden", json.dumps(golden))
    assert Predictor(path).model_id == paper.model_id
    for text in (None, "", "{", "[]", '{"rows": [1], "scores": [0.5]}'):
        edit_metadata(source, path, "din_infer.golden", text)
        with pytest.raises(ModelError, match="golden"):
            Predictor(path)


def test_a_spec_that_does_not_fit_the_graph_is_refused(
    paper: Predictor, tmp_path: Path
) -> None:
    source, path = paper.path, tmp_path / "m.onnx"
    edit_metadata(source, path, "din_infer.spec", None)
    with pytest.raises(ModelError, match="expected a spec in the model, got none"):
        Predictor(path)
    edit_metadata(source, path, "din_infer.spec", '{"format": 1}')
    with pytest.raises(ModelError, match="expected at least one candidate field"):
        Predictor(path)
    edit_metadata(source, path, "din_infer.spec", json.dumps(SPECS["candidate only"]))
    with pytest.raises(ModelError, match="expected the graph inputs goods_id, request"):
        Predictor(path)


def test_torch_batches_and_scores_agree(paper: Predictor, rows: Rows) -> None:
    model = random_model(SPECS["paper"])
    encoded = model.spec.encode(pa.table(columns_of(rows)))
    tensors = {k: torch.from_numpy(v) for k, v in encoded.items()}
    with torch.inference_mode():
        scores = torch.sigmoid(model(tensors)).numpy()
    np.testing.assert_allclose(paper.score(rows), scores, atol=1e-5)


def test_importing_loads_neither_torch_nor_onnx_nor_pyarrow() -> None:
    code = (
        "import sys, din_infer\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'pyarrow', 'pandas', 'polars'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- native operators ----


def test_native_operators_and_functions_score_alike(
    paper: Predictor, rows: Rows
) -> None:
    plain = Predictor(paper.path, device="cpu", fused=False)
    assert paper.fused
    assert not plain.fused
    assert paper.precision == plain.precision == "fp32"
    for batch_size in (None, 1, 64):
        got = paper.score(rows, batch_size=batch_size)
        wanted = plain.score(rows, batch_size=batch_size)
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.std(wanted) > 0.01


def test_a_pickled_predictor_keeps_its_options(paper: Predictor, rows: Rows) -> None:
    plain = Predictor(paper.path, device="cpu", threads=1, fused=False)
    again = pickle.loads(pickle.dumps(plain))
    assert (again.fused, again.threads, again.precision) == (False, 1, "fp32")
    np.testing.assert_array_equal(again.score(rows), plain.score(rows))


def test_slices_copy_no_history(paper: Predictor, rows: Rows) -> None:
    requests, candidates = split_requests(rows)
    owners = np.sort(np.random.default_rng(0).integers(0, 20, len(candidates)))
    encoded = paper.spec.encoder.encode_requests(requests[:20], candidates, owners)
    inputs = encoded.inputs
    seen = 0
    for chosen, part in slices_in_order(paper.spec, inputs, 40):
        assert np.shares_memory(part["hist_goods_id"], inputs["hist_goods_id"])
        assert part["hist_goods_id"].flags.c_contiguous
        mine = inputs["hist_goods_id"][owners[chosen]]
        np.testing.assert_array_equal(
            part["hist_goods_id"][part["request_of_candidate"]], mine
        )
        seen += len(mine)
    assert seen == len(candidates)


def test_bf16_where_it_cannot_be_is_refused(paper: Predictor) -> None:
    path = paper.path
    with pytest.raises(DeviceError) as caught:
        Predictor(path, device="cpu", precision="fp16")
    assert str(caught.value) == "expected fp32 or bf16, got 'fp16' - at `precision`"
    with pytest.raises(DeviceError) as caught:
        Predictor(path, device="cpu", fused=False, precision="bf16")
    assert str(caught.value) == (
        "expected the native operators on a CPU with AMX, got fused=False on cpu"
        " - at `precision`"
    )


def test_bf16_scores_where_the_cpu_has_amx_and_else_says_so(
    paper: Predictor, rows: Rows
) -> None:
    if ops.has_amx():
        half = Predictor(paper.path, device="cpu", precision="bf16")
        np.testing.assert_allclose(half.score(rows), paper.score(rows), atol=2e-2)
        assert (half.score(rows) != paper.score(rows)).any()
        return
    with pytest.raises(DeviceError) as caught:
        Predictor(paper.path, device="cpu", precision="bf16")
    assert str(caught.value) == (
        "expected a CPU with AMX, got one without - at `din_infer.precision`"
    )


def test_a_package_without_native_operators_scores_by_functions(
    paper: Predictor, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("din_infer.session.ops_library", lambda: None)
    plain = Predictor(paper.path, device="cpu")
    assert not plain.fused
    np.testing.assert_allclose(plain.score(rows), paper.score(rows), atol=1e-5)


def test_a_runtime_that_is_too_old_is_refused(
    paper: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxruntime.__version__", "1.19.2")
    with pytest.raises(DeviceError) as caught:
        Predictor(paper.path, device="cpu")
    assert str(caught.value).startswith(
        "expected ONNX Runtime 1.20 or newer, got 1.19.2 - at `environment`"
    )

"""din-convert --raw: what the graph encodes equals what Python does, bit for bit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from din_converter import convert
from din_converter.graph import build_graph
from din_converter.raw import TEXTS, RawForm, raw_columns, raw_graph, raw_inputs
from din_infer import FeatureSpec, ModelError, Predictor
from din_infer.errors import ConversionError
from din_infer.model_format import RAW_KEY
from tests.models import SPECS, random_model, random_rows
from tests.oldest import oldest_runtime
from tests.ops import library, session
from tests.raw import HARD, Arrays, encode_graph, feeds, filled, hard_table

ROOT = Path(__file__).resolve().parent
TYPES = {"float64": 11, "int32": 6, "int64": 7, "uint8": 2}


def table_of(spec: FeatureSpec, count: int, seed: int = 0) -> pa.Table:
    rows = random_rows(spec, count, seed)
    for row in rows:
        del row["extra"]
    return pa.Table.from_pylist(rows)


def run_encode(spec: FeatureSpec, given: Arrays, text: str = "arrow") -> Arrays:
    opened = session(encode_graph(spec, text))
    names = [o.name for o in opened.get_outputs()]
    return dict(zip(names, opened.run(names, given), strict=True))


def check_ids(got: Arrays, wanted: Arrays) -> None:
    assert set(got) == set(wanted) - {"request_of_candidate"}
    for name, array in got.items():
        np.testing.assert_array_equal(array, wanted[name], err_msg=name, strict=True)


# --------------------------------------------------------------------------- equal ids


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", HARD)
def test_ids_of_hard_values_equal_those_of_python(name: str, text: str) -> None:
    count = 20_000 if text == "arrow" else 2_000
    spec, table = FeatureSpec.from_dict(HARD[name]), hard_table(count)
    wanted = spec.encode(table)
    given = feeds(spec, table, text=text)
    assert sum(v.size > 0 for k, v in given.items() if k.endswith(".validity")) >= 3
    check_ids(run_encode(spec, given, text), wanted)
    empty = table[:0]
    check_ids(run_encode(spec, feeds(spec, empty, text=text), text), spec.encode(empty))


@pytest.mark.parametrize("name", SPECS)
def test_scores_of_every_spec_equal_those_of_ids(name: str) -> None:
    model = random_model(SPECS[name])
    spec, table = model.spec, table_of(model.spec, 60)
    proto, weights = build_graph(model)
    raw, more = raw_graph(proto, spec, RawForm(ids=True))
    encoded = spec.encode(table)
    wanted = session(filled(proto, weights)).run(["logit", "score"], encoded)
    opened = session(filled(raw, weights | more))
    names = [i.name for i in spec.inputs if i.name != "request_of_candidate"]
    *ids, logit, score = opened.run([*names, "logit", "score"], feeds(spec, table))
    check_ids(dict(zip(names, ids, strict=True)), encoded)
    assert np.ptp(score) > 0.01 or name == "identity link"
    np.testing.assert_array_equal(logit, wanted[0], strict=True)
    np.testing.assert_array_equal(score, wanted[1], strict=True)


def test_requests_may_have_any_candidates() -> None:
    spec = FeatureSpec.from_dict(SPECS["three sequences"])
    users, items = table_of(spec, 7), table_of(spec, 40, seed=1)
    owners = np.random.default_rng(0).integers(0, 7, 40)
    wanted = spec.encoder.encode_requests(users, items, owners).inputs
    given = feeds(spec, users, items, owners)
    check_ids(run_encode(spec, given), wanted)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_batches_are_shared_by_threads(threads: int) -> None:
    spec = FeatureSpec.from_dict(HARD["lists"])
    table = pa.concat_tables([hard_table(20_000)] * 3)
    opened = session(encode_graph(spec), threads=threads)
    names = [o.name for o in opened.get_outputs()]
    got = dict(zip(names, opened.run(names, feeds(spec, table)), strict=True))
    check_ids(got, spec.encode(table))


def test_what_is_left_out_is_not_there() -> None:
    spec = FeatureSpec.from_dict(HARD["lists"])
    table = hard_table(200).drop_columns("length")
    check_ids(run_encode(spec, feeds(spec, table)), spec.encode(table))
    full = table.filter(pa.compute.is_valid(table["text"]))
    given = feeds(spec, full)
    validity = {k for k in given if k.endswith("text.validity")}
    assert validity == {"user.text.validity", "candidate.text.validity"}
    without = {k: v for k, v in given.items() if k not in validity}
    check_ids(run_encode(spec, without), spec.encode(full))


def test_the_layout_that_conversion_is_proven_with_is_arrows_own() -> None:
    for name, raw in HARD.items():
        spec, table = FeatureSpec.from_dict(raw), hard_table(50, seed=3)
        rows = [
            {k: v for k, v in row.items() if k != "length" or v is not None}
            for row in table.to_pylist()
        ]
        made = raw_inputs(raw_columns(spec), "arrow", rows)
        check_ids(run_encode(spec, made), run_encode(spec, feeds(spec, table)))
        assert name in HARD


# ------------------------------------------------------------------------------ errors

SPEC = FeatureSpec.from_dict(
    {
        "format": 1,
        "user": [
            {"name": "user", "dim": 1, "encoder": {"type": "hash", "buckets": 9}},
        ],
        "candidate": [
            {"name": "item", "dim": 1, "encoder": {"type": "hash", "buckets": 9}},
            {"name": "cate", "dim": 1, "encoder": {"type": "identity", "buckets": 9}},
        ],
        "behavior": [
            {"name": "h", "max_len": 9,
             "fields": {"items": "item", "cates": "cate"}},
        ],
        "dense": [{"name": "price", "side": "candidate"}],
    }
)  # fmt: skip
TABLE = pa.table(
    {
        "user": ["a", "b"], "item": ["c", "dd"], "cate": [1, 2], "price": [0.5, 1.5],
        "items": [["e", "ff"], ["g"]], "cates": [[1, 2], [3]],
    }
)  # fmt: skip
WHERE = "Encode input "
WRONG: dict[str, tuple[str, Any, str]] = {
    "offsets past the bytes": (
        "item.offsets", [0, 1, 4],
        "expected offsets of at most 3, the number of bytes, got 4 - at"
        f" `{WHERE}item.offsets`",
    ),
    "offsets that fall": (
        "item.offsets", [0, 3, 1],
        "expected values inside their buffers, got others - at `item`. It is element"
        " 1.",
    ),
    "a negative offset": (
        "item.offsets", [-1, 1, 3],
        "expected values inside their buffers, got others - at `item`. It is element"
        " 0.",
    ),
    "a huge offset": (
        "items.offsets", [0, 1, 2, 2**31 - 1],
        "expected offsets of at most 4, the number of bytes, got 2147483647 - at"
        f" `{WHERE}items.offsets`",
    ),
    "too few offsets": (
        "item.offsets", [0, 1],
        "expected 2 rows, as its side of the batch has, got 1 - at `item`",
    ),
    "row offsets past the elements": (
        "items.row_offsets", [0, 2, 4],
        "expected list offsets that rise inside their values, got others - at `items`,"
        " row 1",
    ),
    "row offsets that fall": (
        "cates.row_offsets", [0, 2, 1],
        "expected list offsets that rise inside their values, got others - at `cates`,"
        " row 1",
    ),
    "other lists": (
        "cates.row_offsets", [0, 1, 3],
        "expected 2 elements, as `items` has, got 1 - at `cates`, row 0",
    ),
    "short validity": (
        "items.validity", np.zeros(0, np.uint8), "",
    ),
    "an unseen id": (
        "cate.values", [1, 9], "expected an id in [0, 9), got 9 - at `cate`, row 1",
    ),
    "an unseen id of a list": (
        "cates.values", [1, -2, 3],
        "expected an id in [0, 9), got -2 - at `cates`, row 0",
    ),
    "a price that is none": (
        "price.values", [0.5, np.inf],
        "expected a finite number, got inf - at `price`, row 1",
    ),
    "a null price": (
        "price.validity", np.array([1], np.uint8),
        "expected a finite number, got null - at `price`, row 1",
    ),
    "a request that is none": (
        "request_of_candidate", [0, 2],
        f"expected a value in [0, 2), got 2 - at `{WHERE}request_of_candidate[1]`",
    ),
    "a request below all": (
        "request_of_candidate", [0, -1],
        f"expected a value in [0, 2), got -1 - at `{WHERE}request_of_candidate[1]`",
    ),
    "too few requests": (
        "request_of_candidate", [0],
        "expected 1 rows, as its side of the batch has, got 2 - at `item`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_malformed_inputs_are_named(name: str) -> None:
    key, value, message = WRONG[name]
    given = feeds(SPEC, TABLE)
    check_ids(run_encode(SPEC, given), SPEC.encode(TABLE))
    before = given.get(key)
    dtype = None if before is None else before.dtype
    given[key] = np.asarray(value, dtype)
    if not message:  # an empty one says that there are no nulls
        check_ids(run_encode(SPEC, given), SPEC.encode(TABLE))
        return
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as error:
        run_encode(SPEC, given)
    assert str(error.value).endswith(message)


def test_a_bitmap_that_is_too_short_is_refused() -> None:
    table = pa.table({n: TABLE[n].take([0, 1] * 5) for n in TABLE.column_names})
    given = feeds(SPEC, table) | {"item.validity": np.array([255], np.uint8)}
    with pytest.raises(Exception, match="expected 2 bytes of bits, got 1") as error:
        run_encode(SPEC, given)
    assert f"`{WHERE}item.validity`" in str(error.value)


def test_random_inputs_end_in_ids_or_an_error() -> None:
    opened = session(encode_graph(SPEC))
    rng = np.random.default_rng(0)
    fine = feeds(SPEC, TABLE)
    said: list[str] = []
    for _ in range(400):
        given = {k: v.copy() for k, v in fine.items()}
        for key in rng.choice(list(fine), rng.integers(1, 4)):
            array = given[key]
            if array.dtype == np.float64:
                continue
            size = int(rng.integers(0, len(array) + 3))
            low, high = (0, 255) if array.dtype == np.uint8 else (-2, 6)
            given[key] = rng.integers(low, high, size).astype(array.dtype)
        try:
            made = opened.run(None, given)
        except Exception as error:
            said.append(str(error))
        else:
            assert len(made) == len(SPEC.inputs) - 1
    assert 15 < len(said) < 385
    assert all("expected" in text for text in said)


def test_without_the_operators_a_runtime_says_what_is_missing() -> None:
    with pytest.raises(Exception, match="din_infer:Encode") as error:
        session(encode_graph(SPEC), fused=False)
    assert "is not a registered function/op" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": "{"}, "expected JSON with a key at byte 1"),
        ({"spec": '{"format": 2}'}, "expected format 1, got 2 - at `format`"),
        ({"text": "utf-16"}, "expected one of arrow, strings, got utf-16"),
        ({"vocabularies": [1]}, "expected a constant of the graph"),
    ],
)
def test_a_graph_of_anyones_is_checked(changes: dict[str, Any], message: str) -> None:
    import onnx
    from onnx import helper

    proto = onnx.load_from_string(encode_graph(SPEC))
    (node,) = proto.graph.node
    kept = [a for a in node.attribute if a.name not in changes]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(k, v) for k, v in changes.items())
    with pytest.raises(Exception, match=message):
        session(proto.SerializeToString())


# -------------------------------------------------------------------------- conversion


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model and its files: of ids, and of raw values in every form."""
    folder = tmp_path_factory.mktemp("raw")
    raw = json.loads(json.dumps(SPECS["paper"]))
    words = [f"word {i}" for i in range(30_000)]
    raw["behavior"][0]["fields"]["action"]["encoder"]["values"] += words
    raw["user"][0]["encoder"]["buckets"] = 60_000  # weights of more than 1 MiB
    model = random_model(raw)
    assert convert(model, folder / "ids.onnx").raw is None
    report = convert(model, folder / "arrow.onnx", raw=True, raw_ids=True)
    assert report.to_dict()["raw"] == "arrow"
    line = "takes     raw columns, text as bytes and int32 offsets: docs/raw.md"
    assert line in str(report).splitlines()
    convert(model, folder / "large.onnx", raw=True, raw_text="large", single_file=True)
    convert(model, folder / "strings.onnx", raw=True, raw_text="strings")
    return model, folder


def test_a_raw_file_scores_as_predictor_does(converted: tuple[Any, Path]) -> None:
    model, folder = converted
    table = table_of(model.spec, 500)
    predictor = Predictor(folder / "ids.onnx", device="cpu", threads=1)
    wanted, scores = predictor.score(table, raw=True), predictor.score(table)
    assert np.ptp(scores) > 0.1
    for text in TEXTS:
        assert (len(list(folder.glob(f"{text}-*.data"))) == 0) == (text == "large")
        opened = _open(folder / f"{text}.onnx")
        given = feeds(model.spec, table, text=text)
        logit, score = opened.run(["logit", "score"], given)
        np.testing.assert_array_equal(logit, wanted, strict=True)
        np.testing.assert_allclose(score, scores, atol=1e-6, rtol=0)
        metadata = opened.get_modelmeta().custom_metadata_map
        assert metadata[RAW_KEY] == text
        assert metadata["din_infer.spec"] == predictor.spec.to_json()
        names = [o.name for o in opened.get_outputs()]
        assert names[:2] == ["logit", "score"]
        assert ("goods_id" in names) == (text == "arrow")


def _open(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(library()))
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def test_predictor_says_what_a_raw_file_is(converted: tuple[Any, Path]) -> None:
    path = converted[1] / "arrow.onnx"
    with pytest.raises(ModelError) as error:
        Predictor(path, device="cpu")
    assert str(error.value) == (
        "expected a graph of ids, which is encoded for here, got one of raw values,"
        f" which din-convert --raw wrote - at `{path}`. Convert the model without --raw"
        " for Predictor and the commands; ONNX Runtime itself runs this one, with the"
        " native operators."
    )


@pytest.mark.parametrize("how", [{"separator": ";"}, {"format": "json"}])
@pytest.mark.parametrize("text", TEXTS)
def test_lists_in_text_are_given_as_text(
    how: dict[str, str], text: str, tmp_path: Path
) -> None:
    raw = json.loads(json.dumps(SPECS["paper"]))
    for part in (raw["behavior"][0], raw["multi_hot"][0], raw["dense"][1]):
        part |= how
    assert raw["dense"][1]["dim"] > 1
    model = random_model(raw)
    report = convert(model, tmp_path / "m.onnx", raw=True, raw_text=text)
    assert report.raw is not None
    names = {i.name for i in _open(tmp_path / "m.onnx").get_inputs()}
    for column in ("hist_goods_id", "tags", "profile"):
        assert f"{column}.row_offsets" not in names
        assert names & {f"{column}.offsets", f"{column}.values"}


HASHED = {"name": "goods", "dim": 2, "encoder": {"type": "hash", "buckets": 100}}
BEYOND = {"type": "bucketize", "boundaries": [-1e300, -0.5, 0, 2**63]}
# Specs of whose own values a row of text, or of int64, cannot hold each.
NOT_EVERY_ROW: dict[str, dict[str, Any]] = {
    "an empty string alone in a list with a length": {
        "multi_hot": [
            {"name": "m", "side": "candidate", "dim": 2, "pooling": "sum",
             "max_len": 5, "separator": "|", "length_column": "n",
             "encoder": {"type": "vocab", "values": ["", "view"]}},
        ],
    },
    "an empty string alone beside another list": {
        "behavior": [
            {"name": "h", "max_len": 5, "separator": "|",
             "fields": {"hist": "goods",
                        "action": {"dim": 2,
                                   "encoder": {"type": "vocab",
                                               "values": ["", "view"]}}}},
        ],
    },
    "lists of integers as text, boundaries beyond int64": {
        "multi_hot": [
            {"name": "m", "side": "candidate", "dim": 2, "pooling": "sum",
             "max_len": 5, "separator": "|", "dtype": "int64", "encoder": BEYOND},
        ],
    },
    "boundaries beyond int64 of a candidate and a history": {
        "candidate": [
            HASHED, {"name": "age", "dim": 2, "dtype": "int64", "encoder": BEYOND},
        ],
        "behavior": [{"name": "h", "max_len": 5, "fields": {"hist_age": "age"}}],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_EVERY_ROW)
def test_rows_that_no_column_holds_are_not_drawn(name: str, tmp_path: Path) -> None:
    raw = {"format": 1, "candidate": [HASHED], **NOT_EVERY_ROW[name]}
    for text in ("arrow", "strings"):
        convert(random_model(raw), tmp_path / "m.onnx", raw=True, raw_text=text)
    assert "m.onnx" in {path.name for path in tmp_path.iterdir()}


def test_a_server_may_leave_nulls_out(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"])
    convert(model, tmp_path / "m.onnx", raw=True, triton=tmp_path / "models")
    text = (tmp_path / "models" / "m" / "config.pbtxt").read_text()
    lines = {line.split('"')[1]: line for line in text.splitlines() if "dims:" in line}
    opened = _open(tmp_path / "m.onnx")
    needed = {i.name for i in opened.get_inputs()}
    optional = {i.name for i in opened.get_overridable_initializers()}
    assert optional
    assert all(name.endswith(".validity") for name in optional)
    assert needed | optional <= set(lines)
    for name, line in lines.items():
        assert ("optional: true" in line) == (name in optional)
    assert "data_type: TYPE_UINT8 dims: [ -1 ] }" in lines["goods_id.bytes"]


def test_inlined_functions_leave_the_operator(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"])
    convert(model, tmp_path / "m.onnx", raw=True, inline=True)
    given = feeds(model.spec, table_of(model.spec, 20))
    (score,) = _open(tmp_path / "m.onnx").run(["score"], given)
    encoded = model.spec.encode(table_of(model.spec, 20))
    proto, weights = build_graph(model)
    wanted = session(filled(proto, weights), fused=False).run(["score"], encoded)
    np.testing.assert_allclose(score, wanted[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"raw_ids": True}, "expected `raw` beside `raw_ids`, got a graph of ids"),
        ({"raw_text": "strings"}, "expected `raw` beside `raw_text`, got a graph of"),
        (
            {"raw": True, "raw_text": "utf-16"},
            "expected arrow or large or strings, got",
        ),
    ],
)
def test_options_of_raw_graphs_are_checked(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=message):
        convert(random_model(SPECS["candidate only"]), tmp_path / "m.onnx", **options)


def test_a_torch_module_has_no_raw_columns(tmp_path: Path) -> None:
    import torch

    module = torch.nn.Linear(2, 1)
    with pytest.raises(
        ConversionError, match="a model with a feature spec, which says"
    ):
        convert(module, tmp_path / "m.onnx", raw=True, example_inputs=torch.ones(1, 2))


def test_a_column_that_is_read_in_two_ways_is_refused() -> None:
    raw = json.loads(json.dumps(SPECS["no history"]))
    raw["candidate"].append(
        {"name": "again", "dim": 1, "column": "tags",
         "encoder": {"type": "hash", "buckets": 9}}
    )  # fmt: skip
    with pytest.raises(ConversionError) as error:
        raw_columns(FeatureSpec.from_dict(raw))
    assert error.value.column == "tags"
    assert error.value.got == "string and lists of string"


def test_a_graph_that_encodes_otherwise_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own: Callable[..., Any] = raw_graph

    def wrong(*arguments: Any) -> Any:  # noqa: ANN401
        made, data = own(*arguments)
        (spec,) = (a for a in made.graph.node[0].attribute if a.name == "spec")
        spec.s = spec.s.replace(b'"seed":42', b'"seed":43')
        return made, data

    monkeypatch.setattr("din_converter.export.raw_graph", wrong)
    with pytest.raises(ConversionError) as error:
        convert(random_model(SPECS["paper"]), tmp_path / "m.onnx", raw=True)
    assert error.value.rule == "the `user_id` of the graph of ids"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["paper", "no history"])
@pytest.mark.parametrize("text", TEXTS)
def test_calls_that_a_server_joins_are_refused(name: str, text: str) -> None:
    model = random_model(SPECS[name])
    spec, rows = model.spec, table_of(model.spec, 4)
    proto, weights = build_graph(model)
    raw, more = raw_graph(proto, spec, RawForm(text))
    opened = session(filled(raw, weights | more))
    calls = [
        feeds(spec, rows[i : i + 1], rows[i : i + 2], np.zeros(2, np.int64), text)
        for i in (0, 2)
    ]
    for call in calls:
        opened.run(["score"], call)
    joined = {k: np.concatenate([call[k] for call in calls]) for k in calls[0]}
    with pytest.raises(Exception, match=r"expected .*, got .* - at"):
        opened.run(["score"], joined)


# ------------------------------------------------------------------- runtimes, clients

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import onnxruntime

folder, library = Path(sys.argv[1]), sys.argv[2]
for text in ("arrow", "large", "strings"):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(library)
    path = str(folder / f"{text}.onnx")
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    feeds = dict(np.load(folder / f"{text}.npz", allow_pickle=True))
    (score,) = session.run(["score"], feeds)
    np.save(folder / f"{text}.score.npy", score)
print(onnxruntime.__version__)
"""


def test_the_oldest_runtime_gives_the_same_scores(converted: tuple[Any, Path]) -> None:
    model, folder = converted
    table = table_of(model.spec, 300)
    given = {text: feeds(model.spec, table, text=text) for text in TEXTS}
    for text, arrays in given.items():
        np.savez(folder / f"{text}.npz", **arrays)
    said = subprocess.check_output(
        [sys.executable, "-c", SCRIPT, str(folder), str(library())],
        env={**os.environ, "PYTHONPATH": str(oldest_runtime())},
        text=True,
    )
    assert said.strip() == "1.20.1"
    for text, arrays in given.items():
        (wanted,) = _open(folder / f"{text}.onnx").run(["score"], arrays)
        np.testing.assert_array_equal(np.load(folder / f"{text}.score.npy"), wanted)


@pytest.mark.parametrize("compiler", ["gcc", "g++"])
@pytest.mark.parametrize("runtime", ["oldest", "newest"])
def test_a_program_without_python_scores_raw_values(
    compiler: str, runtime: str, converted: tuple[Any, Path], tmp_path: Path
) -> None:
    model, folder = converted
    table = table_of(model.spec, 1000)
    given = feeds(model.spec, table)
    package = Path(onnxruntime.__file__).parent
    if runtime == "oldest":
        package = oldest_runtime() / "onnxruntime"
    (shared,) = (package / "capi").glob("libonnxruntime.so.*")
    (tmp_path / "libonnxruntime.so.1").symlink_to(shared)
    found = shutil.which(compiler)
    assert found is not None
    program, source = tmp_path / "client", str(ROOT / "raw_client.c")
    language = ["-x", "c++"] if compiler == "g++" else ["-std=c11"]
    flags = ["-O1", "-Wall", "-Werror", "-Wno-cast-function-type", *language, source]
    link = ["-x", "none", str(tmp_path / "libonnxruntime.so.1")]
    link.append(f"-Wl,-rpath,{tmp_path}")
    subprocess.run([found, *flags, *link, "-o", str(program)], check=True)
    with (tmp_path / "feeds").open("wb") as file:
        for name, array in given.items():
            data = np.ascontiguousarray(array).tobytes()
            head = [name, TYPES[str(array.dtype)], array.ndim, *array.shape, len(data)]
            file.write(" ".join(map(str, head)).encode() + b"\n" + data)
    command = [program, folder / "arrow.onnx", library(), tmp_path / "feeds"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got: NDArray[np.float32] = np.array(done.stdout.split(), np.float32)
    (wanted,) = _open(folder / "arrow.onnx").run(["score"], given)
    np.testing.assert_array_equal(got, wanted, strict=True)

"""Explanations, from the graph's weights to what is drawn; long: there are four views.

The property that all rests on: what is shown encodes to the ids that the model got.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from din_converter import convert
from din_infer import InputError, ModelError, Predictor, slicing
from din_infer.cli import explain_main
from din_infer.encode import encode_values
from din_infer.explain import (
    ExplainedRow,
    ExplainedSequence,
    Explanation,
    explained,
)
from din_infer.explain import plot as explain_plot
from din_infer.explain.raw_values import readable
from din_infer.formatting import number, shorten, width
from din_infer.jobs.explain import explain_file, find_rows
from din_infer.spec import FeatureSpec
from tests import reference
from tests.containers import CONTAINERS, as_chunked_arrow, as_dict, as_rows
from tests.models import SPECS, random_model, random_rows
from tests.test_encode import KINDS, SPEC, ragged, tables

pytestmark = pytest.mark.slow

Rows = list[dict[str, Any]]
ATTENDING = [
    name
    for name, raw in SPECS.items()
    if raw.get("behavior") and raw.get("model", {}).get("type") != "base"
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explained")


@pytest.fixture(scope="module")
def paper(folder: Path) -> Predictor:
    convert(random_model(SPECS["paper"]), folder / "paper.onnx", explain=True)
    return Predictor(folder / "paper.onnx", device="cpu")


@pytest.fixture(scope="module")
def rows(paper: Predictor) -> Rows:
    made = random_rows(paper.spec, 40, seed=7)
    for row in made:
        del row["extra"]
    made[0] |= {"hist_goods_id": [], "hist_cate_id": [], "action": []}
    made[1] |= {"hist_goods_id": None, "hist_cate_id": None, "action": None}
    return made


# ------------------------------------------------------------------------- the weights


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ATTENDING)
def test_weights_equal_torch(name: str, fused: bool, folder: Path) -> None:
    model = random_model(SPECS[name])
    path = folder / f"{name}.onnx".replace(" ", "_")
    if not path.exists():
        convert(model, path, explain=True)
    predictor = Predictor(path, device="cpu", fused=fused)
    some = random_rows(predictor.spec, 30)
    inputs = predictor.spec.encode(some)
    tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
    with torch.inference_mode():
        wanted = model.double().activation_weights(tensors)
    explanation = predictor.explain(some)
    np.testing.assert_allclose(explanation.scores, predictor.score(some), atol=1e-6)
    spread = []
    for k, s in enumerate(predictor.spec.behavior):
        of_torch = wanted[s.name].numpy()
        lengths = inputs[f"{s.name}.lengths"]
        for row, weights, length in zip(explanation, of_torch, lengths, strict=True):
            sequence = row.sequences[k]
            assert sequence.name == s.name
            assert len(sequence) == len(sequence.weights) == length
            got = np.concatenate([sequence.weights, sequence.padding])
            is_attended = s.padding == "attended"
            np.testing.assert_allclose(
                got, weights[: s.max_len if is_attended else length], atol=1e-5
            )
            # one entry stands for all padding
            assert np.ptp(sequence.padding) < 1e-6 if len(sequence.padding) else True
            spread += sequence.weights.tolist()
    assert np.std(spread) > 0.01


@pytest.mark.parametrize("fused", [True, False])
def test_weights_do_not_depend_on_slices(
    paper: Predictor, rows: Rows, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(paper.path, device="cpu", fused=fused)
    whole = predictor.explain(rows)
    monkeypatch.setattr(slicing, "FUSED_BATCH_SIZE", {"cpu": 7})
    monkeypatch.setattr(slicing, "DEFAULT_BATCH_SIZE", {"cpu": 7})
    for one, other in zip(whole, predictor.explain(rows), strict=True):
        a, b = one.sequences[0], other.sequences[0]
        np.testing.assert_allclose(a.weights, b.weights, atol=1e-6)
        assert a.columns == b.columns


def test_explaining_is_not_counted(paper: Predictor, rows: Rows) -> None:
    before = paper.stats
    paper.explain(rows)
    assert paper.stats == before


def test_requests_are_explained_as_the_rows_they_stand_for(
    paper: Predictor, rows: Rows
) -> None:
    user = paper.spec.encoder.user_columns
    requests = [{k: row[k] for k in user} for row in rows[:5]]
    candidates = [{k: row[k] for k in row if k not in user} for row in rows]
    owners = np.arange(len(rows)) % 3
    got = paper.explain_requests(requests, candidates, owners)
    exploded = [requests[b] | c for b, c in zip(owners, candidates, strict=True)]
    wanted = paper.explain(exploded)
    np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-6)
    for one, other in zip(got, wanted, strict=True):
        assert one.candidate == other.candidate
        assert one.user == other.user
        assert one.sequences[0].columns == other.sequences[0].columns
        np.testing.assert_allclose(
            one.sequences[0].weights, other.sequences[0].weights, atol=1e-6
        )
    # rows of a plain table whose user sides are equal are one request too
    for explanation in (got, wanted):
        groups = explanation.by_request()
        assert sorted(map(len, groups)) == [13, 13, 14]
        for group in groups:
            assert len({row.number % 3 for row in group}) == 1
            scores = [row.score for row in group]
            assert scores == sorted(scores, reverse=True)
    with pytest.raises(InputError, match="expected which of 5 requests each candidate"):
        paper.explain_requests(requests, candidates)
    encoded = paper.encode_request(requests)
    with pytest.raises(InputError) as refused:
        paper.explain_requests(encoded, candidates, owners)
    assert str(refused.value) == (
        "expected rows with the raw values, which an explanation shows, got an"
        " EncodedRequests - at `requests`"
    )


def test_no_rows_are_explained_by_nothing(paper: Predictor) -> None:
    none = paper.explain({name: [] for name in paper.spec.columns})
    assert len(none) == 0
    assert none.scores.shape == (0,)
    assert (str(none), repr(none)) == ("no rows", "Explanation(0 rows)")
    assert none.records() == []
    assert "No rows." in none.to_html()
    with pytest.raises(InputError) as caught:
        none.plot()
    assert (
        str(caught.value) == "expected at least one row to draw, got none - at `plot`"
    )


def test_a_model_without_weights_says_how_to_get_them(folder: Path) -> None:
    convert(random_model(SPECS["paper"]), folder / "mute.onnx")
    mute = Predictor(folder / "mute.onnx", device="cpu")
    message = (
        "expected the graph outputs history.activation_weight, got only logit, score,"
        f" din_infer.requests - at `{folder}/mute.onnx`. Convert the model with"
        " din-convert --explain."
    )
    for ask in (lambda: mute.explain([]), lambda: mute.explain_requests([], [])):
        with pytest.raises(ModelError) as caught:
            ask()
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "got"), [("base sum", "model.type 'base'"), ("no history", "no sequence")]
)
def test_without_attention_there_is_nothing_to_explain(
    name: str, got: str, folder: Path
) -> None:
    path = folder / f"{name}.onnx".replace(" ", "_")
    convert(random_model(SPECS[name]), path)
    with pytest.raises(ModelError) as caught:
        Predictor(path, device="cpu").explain([])
    assert str(caught.value) == (
        f"expected a DIN with behavior sequences to explain, got {got} - at `{path}`"
    )


# ----------------------------------------------------------------------- the raw values


def explain_without_model(spec: FeatureSpec, batch: Any) -> Explanation:  # noqa: ANN401
    """Explain by weights that say where they stand: 100 * row + position."""
    batch = readable(batch, (*spec.columns, *spec.optional_columns))
    inputs = spec.encode(batch)
    scores = np.arange(len(inputs["request_of_candidate"]), dtype=np.float32)
    weights = []
    for s in spec.behavior:
        width = inputs[s.fields[0].name].shape[1]
        weights.append(100 * scores[:, None] + np.arange(width, dtype=np.float32))
    return explained(spec, batch, batch, inputs, [scores, *weights])


def check_alignment(spec: FeatureSpec, batch: Any, rows: Rows) -> None:  # noqa: ANN401
    inputs, _ = reference.encode(spec, rows)
    explanation = explain_without_model(spec, batch)
    assert len(explanation) == len(rows)
    for n, (row, raw) in enumerate(zip(explanation, rows, strict=True)):
        for column, value in (row.candidate | row.user).items():
            assert value == raw[column]
        for s, sequence in zip(spec.behavior, row.sequences, strict=True):
            length = inputs[f"{s.name}.lengths"][n]
            assert len(sequence) == length
            for f in s.fields:
                shown = sequence.columns[f.column]
                ids = encode_values(shown, f.encoder, f.dtype, f.name)
                assert ids.tolist() == inputs[f.name][n, :length].tolist()
                given = raw[f.column] or []
                assert shown == [given[i] for i in sequence.indices]
                assert sequence.num_given == len(given)
            total = inputs[s.fields[0].name].shape[1] if s.padding != "masked" else 0
            everything = [*sequence.weights, *sequence.padding]
            wanted = [100 * n + t for t in range(max(length, total))]
            assert everything == wanted


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
@settings(max_examples=20)
@given(rows=tables())
def test_shown_values_encode_to_the_ids_of_the_batch(
    container: Callable[..., Any], rows: Rows
) -> None:
    if container.__name__ == "as_ragged":  # it has no null lists
        for row in rows:
            row["vector"] = row["vector"] or [None, None]
            row["tags"] = row["tags"] or []
    check_alignment(FeatureSpec.from_dict(SPEC), container(rows, KINDS), rows)


@pytest.mark.parametrize("container", [as_dict, as_rows, as_chunked_arrow])
@pytest.mark.parametrize("inside", ["kept", "dropped"])
@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
@settings(max_examples=20)
@given(
    lists=st.lists(
        st.one_of(
            st.none(),
            st.lists(
                st.tuples(st.sampled_from(["p", "a", "b", None]), st.sampled_from("ab"))
            ),
        ),
        max_size=4,
    ),
    max_len=st.integers(1, 5),
)
def test_padding_is_not_shown_as_behaviors(
    lists: list[list[tuple[Any, Any]] | None],
    max_len: int,
    inside: str,
    order: str,
    container: Callable[..., Any],
) -> None:
    spec = ragged(
        ["a", "b", "p"], max_len=max_len, pad_value="p", pad_inside=inside, order=order
    )
    rows = [
        {
            "c": "a",
            "x": None if pairs is None else [v for v, _ in pairs],
            "y": None if pairs is None else [v for _, v in pairs],
        }
        for pairs in lists
    ]
    kinds = {"c": "string", "x": "string[]", "y": "string[]"}
    check_alignment(spec, container(rows, kinds), rows)


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([np.int32, np.float32]),
    st.integers(1, 4),
)
def test_matrices_are_shown_without_their_padding(
    lists: list[list[int]], left: bool, dtype: type, max_len: int
) -> None:
    size = max(len(v) for v in lists)
    padded = [
        [0] * (size - len(v)) + v if left else v + [0] * (size - len(v)) for v in lists
    ]
    rows = [{"c": 1, "x": v, "y": v} for v in padded]
    matrix = np.asfortranarray(np.array(padded, dtype=dtype))
    spec = ragged([1, 2, 3], max_len=max_len, pad_value=0)
    check_alignment(spec, {"c": [1] * len(rows), "x": matrix, "y": matrix}, rows)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 4))
def test_what_lies_behind_the_length_column_is_not_shown(
    n: list[int], max_len: int
) -> None:
    spec = ragged([1, 2, 3, 4, 5], max_len=max_len, length_column="n")
    rows = [{"c": 1, "x": [1, 2, 3, 4, 5], "y": [5, 4, 3, 2, 1], "n": k} for k in n]
    kinds = {"c": "int64", "x": "int64[]", "y": "int64[]", "n": "int64"}
    check_alignment(spec, as_chunked_arrow(rows, kinds), rows)


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("has_lengths", [True, False])
def test_lengths_that_a_batch_may_lack_are_shown_where_it_has_them(
    container: Callable[..., Any], has_lengths: bool
) -> None:
    spec = ragged([1, 2, 3], max_len=2, length_column="n", pad_value=0)
    rows: Rows = [
        {"c": 1, "x": [1, 2, 0], "y": [3, 2, 0], "n": 3},
        {"c": 2, "x": [0, 2, 3], "y": [0, 2, 1], "n": 1},
    ]
    kinds = {"c": "int64", "x": "int64[]", "y": "int64[]", "n": "int64"}
    if not has_lengths:
        rows = [{k: v for k, v in row.items() if k != "n"} for row in rows]
        del kinds["n"]
    check_alignment(spec, container(rows, kinds), rows)
    explanation = explain_without_model(spec, container(rows, kinds))
    shown = [{"n": row["n"]} if has_lengths else {} for row in rows]
    assert [row.user for row in explanation] == shown


def test_derived_fields_have_no_values_of_their_own(folder: Path) -> None:
    path = folder / "derived.onnx"
    if not path.exists():
        convert(random_model(SPECS["derived"]), path, explain=True)
    predictor = Predictor(path, device="cpu")
    row = predictor.explain(random_rows(predictor.spec, 3))[2]
    assert list(row.sequences[0].columns) == ["hist_goods_id", "hist_cate_id", "action"]


def test_a_stream_that_can_be_read_once_is_enough(paper: Predictor, rows: Rows) -> None:
    table = pa.Table.from_pylist(rows)
    once = pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
    wanted = paper.explain(table)
    assert paper.explain(once).to_dict() == wanted.to_dict()
    columns: dict[str, Any] = {name: table[name] for name in table.column_names}

    class Once:
        """A column that has one stream to give, and no other way."""

        def __init__(self, column: pa.ChunkedArray) -> None:
            self.column: Any = column

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            column, self.column = self.column, None
            return column.__arrow_c_stream__(requested_schema)

    columns["hist_goods_id"] = Once(columns["hist_goods_id"])
    assert paper.explain(columns).to_dict() == wanted.to_dict()


def test_values_are_the_callers_own() -> None:
    spec = FeatureSpec.from_dict(SPEC)
    row = {
        "user_id": b"\xff",
        "age": np.float32(20.5),
        "goods_id": "日本",
        "cate_id": np.int8(4),
        "number": pd.NA,
        "hist_goods": ("a", None, float("nan")),
        "hist_cate": np.array([7, 8, 9]),
        "click_number": [True, np.int64(3)],
        "tags": None,
        "price": float("nan"),
        "vector": [1.0, 2.0],
    }
    shown = explain_without_model(spec, [row])[0]
    assert shown.candidate == {
        "goods_id": "日本",
        "cate_id": 4,
        "number": None,
        "price": None,
    }
    assert shown.user == {
        "user_id": b"\xff",
        "age": 20.5,
        "tags": None,
        "vector": [1.0, 2.0],
    }
    history, clicks = shown.sequences
    assert history.columns == {
        "hist_goods": ["a", None, None],
        "hist_cate": [7, 8, 9],
    }
    assert clicks.columns == {"click_number": [3, True]}
    assert clicks.indices == [1, 0]
    assert history.labels == ["a · 7", "null · 8", "null · 9"]
    assert shown.name == "日本 · 4 · null"


def test_frames_of_others_need_pyarrow(
    paper: Predictor, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    wanted = paper.explain(frame).to_dict()

    class Other:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return frame.__arrow_c_stream__(requested_schema)

    assert paper.explain(Other()).to_dict() == wanted
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pyarrow", None)
        assert paper.explain(frame).to_dict() == wanted
        with pytest.raises(InputError) as caught:
            paper.explain(Other())
    assert str(caught.value) == (
        "expected pyarrow, to read its values, got none - at `batch`."
        ' Run: pip install "din-infer[batch]"'
    )


def test_what_cannot_be_read_back_is_one_clear_error(paper: Predictor) -> None:
    class Broken:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            message = "no more"
            raise RuntimeError(message)

    with pytest.raises(InputError) as caught:
        paper.explain(Broken())
    assert str(caught.value) == "expected readable Arrow data, got no more - at `batch`"
    with pytest.raises(InputError, match="expected a dict of columns, a list of dicts"):
        paper.explain(7)
    with pytest.raises(InputError, match="expected a column `user_id`, got no columns"):
        paper.explain({})


def test_text_that_is_not_utf8_is_refused_in_arrow_strings() -> None:
    spec = ragged(["a", "b"], max_len=3)
    raw = pa.array([b"a\xff"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    lists = pa.array([["a"]])
    with pytest.raises(InputError) as caught:
        explain_without_model(spec, {"c": text, "x": lists, "y": lists})
    assert str(caught.value).startswith(
        "expected text that has a UTF-8 form, to be shown, got 'utf-8' codec can't"
    )
    assert str(caught.value).endswith(" - at `c`")


# ---------------------------------------------------------------------- as plain values


def sequence_of(
    weights: list[float], name: str = "history", padding: int = 0, **columns: list[Any]
) -> ExplainedSequence:
    count = len(weights)
    return ExplainedSequence(
        name,
        columns or {"goods": [f"g{t}" for t in range(count)]},
        list(range(count)),
        np.array(weights, dtype=np.float32),
        np.full(padding, 0.25, dtype=np.float32),
        count,
    )


def row_of(
    *sequences: ExplainedSequence,
    number: int = 0,
    request: int = 0,
    score: float = 0.5,
    name: str = "g7 · c1",
    **user: Any,  # noqa: ANN401
) -> ExplainedRow:
    candidate = {"goods_id": name.partition(" ")[0], "price": 1.5}
    return ExplainedRow(number, request, score, name, candidate, user, sequences)


def many(count: int, length: int, sequences: int = 1) -> Explanation:
    rng = np.random.default_rng(3)
    rows = [
        row_of(
            *(
                sequence_of(rng.normal(size=length).tolist(), name=f"s{k}")
                for k in range(sequences)
            ),
            number=n,
            score=float(score),
            name=f"item{n}",
        )
        for n, score in enumerate(rng.uniform(0.1, 0.9, count))
    ]
    return Explanation(tuple(rows), "0123456789abcdef")


def test_records_are_rows_of_a_frame(paper: Predictor, rows: Rows) -> None:
    explanation = paper.explain(rows)
    frame = pd.DataFrame(explanation.records())
    assert list(frame) == [
        "row", "sequence", "position", "index",
        "hist_goods_id", "hist_cate_id", "action", "weight",
    ]  # fmt: skip
    assert len(frame) == sum(len(row.sequences[0]) for row in explanation)
    long = next(n for n, r in enumerate(rows) if len(r["action"] or []) == 15)
    mine = frame[frame["row"] == long]
    assert mine["position"].tolist() == list(range(12))
    assert mine["index"].tolist() == list(range(3, 15))
    assert mine["hist_goods_id"].tolist() == rows[long]["hist_goods_id"][3:]
    assert mine["weight"].tolist() == explanation[long].sequences[0].weights.tolist()


def test_records_of_colliding_columns_and_padding() -> None:
    sequence = sequence_of([0.5], padding=2, weight=[9], goods=["g1"])
    assert Explanation((row_of(sequence, number=4),)).records() == [
        {"row": 4, "sequence": "history", "position": 0, "index": 0,
         "history.weight": 9, "goods": "g1", "weight": 0.5},
        {"row": 4, "sequence": "history", "position": 1, "index": None,
         "history.weight": None, "goods": None, "weight": 0.25},
        {"row": 4, "sequence": "history", "position": 2, "index": None,
         "history.weight": None, "goods": None, "weight": 0.25},
    ]  # fmt: skip


def test_an_explanation_is_a_sequence_and_json() -> None:
    explanation = many(3, 2)
    assert len(explanation[1:]) == 2
    assert explanation[1:].model_id == explanation.model_id
    assert [row.number for row in explanation] == [0, 1, 2]
    assert repr(explanation) == "Explanation(3 rows of s0)"
    sequence = sequence_of([0.5, 0.25], padding=1)
    one = Explanation((row_of(sequence, age=30),), "abc")
    assert json.loads(json.dumps(one.to_dict())) == {
        "model_id": "abc",
        "rows": [
            {
                "number": 0,
                "request": 0,
                "score": 0.5,
                "name": "g7 · c1",
                "candidate": {"goods_id": "g7", "price": 1.5},
                "user": {"age": 30},
                "sequences": {
                    "history": {
                        "columns": {"goods": ["g0", "g1"]},
                        "indices": [0, 1],
                        "weights": [0.5, 0.25],
                        "padding": [0.25],
                        "num_given": 2,
                    }
                },
            }
        ],
    }


# --------------------------------------------------------------------------- as a table


def test_a_table_has_a_bar_per_behavior() -> None:
    first = sequence_of([0.5, 0.25, 0.0], goods=["g1", None, "日本"])
    second = sequence_of([-1.0, 0.5], name="carts")
    row = row_of(first, second, sequence_of([], name="buys"), user_id="u1")
    assert str(Explanation((row,))).splitlines() == [
        "user_id u1",
        "row 0  score 0.5  goods_id g7, price 1.5",
        "  history: 3 behaviors, oldest first",
        "    #  goods  weight",
        "    0  g1      0.500  ████████████████████",
        "    1  null    0.250  ██████████",
        "    2  日本    0.000",
        "  carts: 2 behaviors, oldest first",
        "    #  goods  weight",
        "    0  g0      -1.00  ██████████│",
        "    1  g1       0.50            │█████",
        "  buys: no behaviors",
    ]


def test_a_table_of_attended_padding_says_how_much() -> None:
    row = row_of(sequence_of([0.5], padding=3))
    assert str(Explanation((row,))).splitlines()[1:] == [
        "  history: 1 behavior, oldest first",
        "    #  goods               weight",
        "    0  g0                   0.500  ████████████████████",
        "       padding, each of 3   0.250  ██████████",
    ]


def test_a_table_of_a_long_history_has_the_largest_weights() -> None:
    weights = np.arange(50) / 100
    lines = str(Explanation((row_of(sequence_of(weights.tolist())),))).splitlines()
    assert lines[1] == ("  history: 50 behaviors, the 20 largest weights, oldest first")
    assert [line.split()[0] for line in lines[3:]] == [str(t) for t in range(30, 50)]


def test_a_table_of_candidates_has_a_profile_each() -> None:
    rows = [
        row_of(sequence_of(w), number=n, score=s, name=f"g{n}", user_id="u1")
        for n, (w, s) in enumerate([([0.0, 0.7], 0.25), ([1.4, -1.4], 0.75)])
    ]
    assert str(Explanation(tuple(rows))).splitlines() == [
        "user_id u1",
        "2 candidates",
        "  history: 2 behaviors, oldest first; ▁ -1.40, █ 1.40",
        "    row  score  candidate",
        "      1   0.75  g1         █▁",
        "      0   0.25  g0         ▅▆",
    ]


def test_a_table_stays_small() -> None:
    lines = str(many(500, 3)).splitlines()
    assert lines[0] == "500 candidates, the best 40"
    assert len(lines) == 43
    rows = [row_of(sequence_of([1.0]), number=n, request=n) for n in range(30)]
    assert str(Explanation(tuple(rows))).endswith("\n\n… and 20 more requests")


def test_nothing_in_a_table_moves_the_cursor() -> None:
    goods = ["\x1b[31mred", "a\nb", "x" * 99, "\u202etxt", "", b"\xff"]
    text = str(Explanation((row_of(sequence_of([1.0] * 6, goods=goods)),)))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert len(text.splitlines()) == 9
    assert "x" * 31 + "…" in text
    assert '""' in text


@given(st.text(), st.integers(1, 9))
def test_shortened_text_fits(text: str, longest: int) -> None:
    assert width(shorten(text, longest)) <= max(longest, 1)
    assert shorten(text, 1000) == text


# ---------------------------------------------------------------------------- as a page


class Reader(HTMLParser):
    """Checks that tags nest; keeps the words and the tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "path"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag != "path":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data + "\n"


def check_page(explanation: Explanation) -> Reader:
    page = explanation.to_html()
    assert page.startswith("<!doctype html>")
    reader = Reader(page)
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "img", "iframe", "a", "object", "form"}
    for _, attributes in reader.tags:
        assert not {"src", "href", "onload", "onclick"} & set(attributes)
    assert "url(" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert explanation._repr_html_() in page.replace("<main", "<div").replace(
        "</main", "</div"
    )
    return reader


def test_a_page_shows_values_and_weights(paper: Predictor, rows: Rows) -> None:
    explanation = paper.explain(rows[:6])
    reader = check_page(explanation)
    for row in explanation:
        assert f"{row.score:.4g}" in reader.words
        (sequence,) = row.sequences
        labels, weights = sequence.columns["hist_goods_id"], sequence.weights
        for label, weight in zip(labels, weights, strict=True):
            assert (label or '""') in reader.words
            assert number(weight, np.abs(weights).max()) in reader.words
    assert reader.words.count("The model saw an empty history.") == 2
    assert f"Model {paper.model_id[:12]}" in reader.words


@pytest.mark.parametrize("count", [1, 2])
def test_a_page_escapes_all_text(count: int) -> None:
    evil = "<script>alert('x')</script>\"&"
    sequence = sequence_of(
        [0.5] * 14, name="a<b>", **{evil: [evil] * 14, "null": [None] * 14}
    )
    row = ExplainedRow(0, 0, 0.5, evil, {evil: evil}, {evil: [evil]}, (sequence,))
    reader = check_page(Explanation((row,) * count, evil))
    assert "alert('x')" in reader.words


def test_a_page_of_candidates_is_a_map_best_first() -> None:
    explanation = many(5, 3, sequences=2)
    reader = check_page(explanation)
    cells = [a for t, a in reader.tags if t == "td" and a.get("class") == "cell"]
    best = max(explanation, key=lambda row: row.score)
    assert len(cells) == 5 * 3 * 2
    said = [str(cell["title"]) for cell in cells]
    for k in (0, 1):
        weights = best.sequences[k].weights
        for t, weight in enumerate(weights):
            title = said[k * 15 + t]
            assert title.startswith(f"{best.name}, g{t}: ")
            assert float(title.rpartition(" ")[2]) == pytest.approx(weight, abs=0.01)
            style = str(cells[k * 15 + t]["style"])
            assert ("--neg" in style) == (weight < 0)


def test_a_page_stays_small() -> None:
    assert len(many(400, 500).to_html()) < 2_000_000
    assert "350" not in many(51, 2).to_html()
    assert "the best 50 of them" in many(51, 2).to_html()
    rows = [row_of(sequence_of([1.0]), number=n, request=n) for n in range(30)]
    assert "20 more requests are not shown." in Explanation(tuple(rows)).to_html()
    long = Explanation((row_of(sequence_of(np.arange(1, 1001).tolist())),))
    reader = check_page(long)
    assert "The 400 largest" in reader.words
    assert sum(tag == "rect" for tag, _ in reader.tags) == 400


def test_a_page_of_attended_padding_says_how_much() -> None:
    for weights in ([0.5], []):
        reader = check_page(Explanation((row_of(sequence_of(weights, padding=3)),)))
        assert "padding, each of 3" in reader.words


# ------------------------------------------------------------------------- as a picture


def written(figure: Figure, path: Path) -> Path:
    """Draw for real: warnings of missing letters or of no room are errors."""
    for suffix in ("png", "svg"):
        figure.savefig(path / f"picture.{suffix}")
    return path / "picture.svg"


def labels_of(ax: Any) -> list[str]:  # noqa: ANN401
    return [label.get_text() for label in ax.get_xticklabels()]


@pytest.mark.parametrize(
    "weights", [[0.1, 0.4, 0.2], [0.3, -0.6, 0.0, 0.2], [-1.0], [0.0, 0.0]]
)
def test_bars_are_as_high_as_the_weights_and_colored_by_them(
    weights: list[float], tmp_path: Path
) -> None:
    explanation = Explanation((row_of(sequence_of(weights)),))
    figure = explanation.plot(row=0)
    written(figure, tmp_path)
    (ax,) = figure.get_axes()
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, weights, rtol=1e-6)
    assert labels_of(ax) == [f"g{t}" for t in range(len(weights))]
    assert ax.get_title(loc="left") == "g7 · c1   score 0.5"
    assert ax.get_xlabel().startswith(f"history: {len(weights)} behavior")
    biggest = max(map(abs, weights)) or 1.0
    for bar, weight in zip(ax.patches, weights, strict=True):
        if min(weights) < 0:
            color = explain_plot.SIGNED((weight / biggest + 1) / 2)
        else:
            color = explain_plot.RISING(weight / biggest)
        np.testing.assert_allclose(bar.get_facecolor(), to_rgba(color), atol=0.01)


def test_zero_is_the_middle_of_the_colors_of_signed_weights() -> None:
    assert explain_plot.SIGNED(0.5)[:3] == pytest.approx(
        [0.945, 0.949, 0.957], abs=0.01
    )


@pytest.mark.parametrize("length", [50, 200, 1000])
def test_a_long_history_has_every_bar_and_names_that_do_not_meet(
    length: int, tmp_path: Path
) -> None:
    figure = many(1, length).plot()
    written(figure, tmp_path)
    (ax,) = figure.get_axes()
    assert len(ax.patches) == min(length, 400)
    lefts = sorted(label.get_window_extent().x1 for label in ax.get_xticklabels())
    assert len(lefts) >= 20
    # upright enough: the distance of two names is that of their ends
    assert np.diff(lefts).min() > 8
    weights = many(1, length)[0].sequences[0].weights
    assert f"g{np.abs(weights).argmax()}" in labels_of(ax)


def test_candidates_are_a_map_best_first(tmp_path: Path) -> None:
    explanation = many(6, 9, sequences=2)
    figure = explanation.plot()
    written(figure, tmp_path)
    maps = [ax for ax in figure.get_axes() if ax.get_images()]
    best_first = sorted(explanation, key=lambda row: -row.score)
    for k, ax in enumerate(maps):
        image = ax.get_images()[0]
        wanted = np.stack([row.sequences[k].weights for row in best_first])
        np.testing.assert_array_equal(image.get_array(), wanted)
        biggest = float(np.abs(wanted).max())
        assert image.get_clim() == pytest.approx((-biggest, biggest))
    names = [label.get_text() for label in maps[0].get_yticklabels()]
    assert [n.split()[0] for n in names] == [row.name for row in best_first]
    assert [float(n.split()[1]) for n in names] == pytest.approx(
        [row.score for row in best_first], abs=0.001
    )
    assert maps[0].get_title(loc="left") == "6 candidates of one request, best first"


def test_many_candidates_are_the_best_of_them(tmp_path: Path) -> None:
    figure = many(300, 200).plot()
    written(figure, tmp_path)
    ax = figure.get_axes()[0]
    assert ax.get_images()[0].get_array().shape == (40, 200)  # type: ignore[union-attr]
    assert ax.get_title(loc="left") == "300 candidates of one request, the best 40"
    assert figure.get_size_inches().max() <= 16


def test_every_sequence_and_request_has_a_panel(tmp_path: Path) -> None:
    rows = [
        row_of(
            sequence_of([0.5, 0.1]),
            sequence_of([], name="carts"),
            number=n,
            request=min(n, 8),
        )
        for n in range(10)
    ]
    explanation = Explanation(tuple(rows))
    figure = explanation.plot()
    written(figure, tmp_path)
    assert len(figure.get_axes()) == 6 * 2
    assert figure.get_supxlabel() == "the first 6 of 9 requests"
    empty = figure.get_axes()[1]
    assert [t.get_text() for t in empty.texts] == ["The model saw an empty history."]
    assert empty.get_xlabel() == "carts: no behaviors"
    two = explanation[8:].plot()
    written(two, tmp_path)
    assert len(two.get_axes()) == 3  # two panels and the colors of one


def test_attended_padding_is_one_bar(tmp_path: Path) -> None:
    for weights in ([0.5, 0.1], []):
        figure = Explanation((row_of(sequence_of(weights, padding=3)),)).plot()
        written(figure, tmp_path)
        (ax,) = figure.get_axes()
        heights = [bar.get_height() for bar in ax.patches]
        np.testing.assert_allclose(heights, [*weights, 0.25], rtol=1e-6)
        assert labels_of(ax)[-1] == "padding, each of 3"


def test_letters_that_no_font_has_and_dollars_are_drawn_plainly(
    tmp_path: Path,
) -> None:
    goods = ["$x^2$", "$\\nope$", "日本語", "\U0001f642", "\x1b[1m", "مرحبا", "a" * 99]
    sequence = sequence_of(np.linspace(0.1, 1, 7).tolist(), name="$h$", goods=goods)
    row = row_of(sequence, name="$\\nope$ 商品", **{"$u$": "商"})
    for rows in ((row,), (row, row)):
        figure = Explanation(rows).plot()
        written(figure, tmp_path)
        ax = figure.get_axes()[0]
        assert labels_of(ax)[:2] == ["$x^2$", "$\\nope$"]
        assert labels_of(ax)[-1] == "a" * 21 + "…"
        assert ax.get_xlabel().startswith("$h$: 7 behaviors")


def test_axes_of_the_caller_are_drawn_on() -> None:
    explanation = many(3, 4, sequences=2)
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert explanation.plot(ax=axes) is figure
    assert all(ax.get_images() for ax in axes)
    one = Figure()
    assert many(1, 4).plot(row=0, ax=one.subplots()) is one
    assert len(one.get_axes()[0].patches) == 4
    with pytest.raises(InputError) as caught:
        explanation.plot(row=1, ax=one.subplots())
    assert str(caught.value) == (
        "expected 2 axes, one per sequence of what is drawn, got 1 - at `ax`"
    )


@pytest.mark.parametrize("row", [-1, 3])
def test_only_rows_that_are_there_are_drawn(row: int) -> None:
    with pytest.raises(InputError) as caught:
        many(3, 4).plot(row=row)
    assert str(caught.value) == f"expected a row in [0, 3), got {row} - at `row`"


def test_pyplot_is_never_imported_and_matplotlib_late() -> None:
    code = (
        "import sys, numpy as np\n"
        "from din_infer import Predictor\n"
        "from din_infer.explain import *\n"
        "s = ExplainedSequence('h', {'g': ['a']}, [0], np.ones(1), np.ones(0), 1)\n"
        "e = Explanation((ExplainedRow(0, 0, .5, 'a', {}, {}, (s,)),))\n"
        "str(e), e.to_html(), e.records()\n"
        "assert 'matplotlib' not in sys.modules and 'pyarrow' not in sys.modules\n"
        "e.plot().savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "din_infer.explain.plot")
    monkeypatch.delitem(sys.modules, "din_infer.picture")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        many(1, 2).plot()
    assert str(caught.value) == (
        'expected matplotlib, got none - at `plot`. Run: pip install "din-infer[plot]"'
    )
    assert caught.value.name == "matplotlib"


# -------------------------------------------------------------------------- din-explain


@pytest.fixture(scope="module")
def events(rows: Rows, folder: Path) -> Path:
    path = folder / "events.parquet"
    table = pa.Table.from_pylist(rows)
    day = pa.array([n // 10 for n in range(len(rows))], pa.int32())
    name = pa.array([f"u{n % 4}" for n in range(len(rows))]).dictionary_encode()
    table = table.append_column("day", day).append_column("name", name)
    pq.write_table(table, path, row_group_size=7)
    return path


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(paper: Predictor, events: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*words: object) -> tuple[int, str, str]:
        status = explain_main([paper.path, str(events), *map(str, words)])
        return status, *capsys.readouterr()

    return run


def test_rows_of_a_file_are_printed_as_a_table(
    say: Say, paper: Predictor, rows: Rows
) -> None:
    status, out, err = say("--row", "17", "--row", "2:4")
    assert (status, err) == (0, "")
    wanted = paper.explain([rows[17], rows[2], rows[3]])
    lines = str(wanted).splitlines()
    got = out.splitlines()
    assert len(got) == len(lines)
    numbers = [line.split("  ")[0] for line in got if line.startswith("row ")]
    assert numbers == ["row 17", "row 2", "row 3"]
    assert [a for a in got if not a.startswith("row ")] == [
        b for b in lines if not b.startswith("row ")
    ]
    assert say()[1] == say("--row", "0")[1]


def test_rows_of_any_physical_types_are_found_and_explained(
    paper: Predictor, events: Path, rows: Rows, tmp_path: Path
) -> None:
    table = pq.read_table(events)
    kinds = {
        "string": pa.string_view(),
        "list<element: string>": pa.large_list(pa.string_view()),
    }
    views = [f.with_type(kinds.get(str(f.type), f.type)) for f in table.schema]
    other = table.set_column(
        table.column_names.index("name"), "name", table["name"].cast(pa.string())
    )
    columns = [
        pa.array(
            other[f.name].to_pylist(), f.type if f.name != "name" else pa.string_view()
        )
        for f in views
    ]
    path = tmp_path / "views.parquet"
    made = pa.table(columns, names=table.column_names)
    assert pa.string_view() in made.schema.types
    pq.write_table(made, path, row_group_size=7)
    found = find_rows(path, [("name", "u3"), ("day", "1")], 20)
    assert found == [11, 15, 19]
    order = [19, 2, 19, 11]
    got = explain_file(paper, path, order)
    wanted = paper.explain([rows[k] for k in order])
    assert [row.number for row in got] == order
    for a, b in zip(got, wanted, strict=True):
        assert a.score == b.score


def test_the_order_of_a_files_columns_does_not_matter(
    paper: Predictor, events: Path, tmp_path: Path
) -> None:
    table = pq.read_table(events)
    path = tmp_path / "other.parquet"
    for names in (table.column_names, table.column_names[::-1]):
        pq.write_table(table.select(names), path)
        got = explain_file(paper, path, [2, 5])
        wanted = explain_file(paper, events, [2, 5])
        assert [row.score for row in got] == [row.score for row in wanted]


@pytest.mark.parametrize("suffix", [".html", ".png", ".svg"])
def test_rows_of_a_file_are_written_as_page_and_picture(
    suffix: str, say: Say, tmp_path: Path
) -> None:
    out = tmp_path / f"weights{suffix}"
    out.write_text("old")
    assert say("--row", "5", "--out", out) == (0, f"wrote {out}\n", "")
    start = {".html": b"<!doctype html>", ".png": b"\x89PNG", ".svg": b"<?xml"}
    assert out.read_bytes().startswith(start[suffix])
    assert list(tmp_path.iterdir()) == [out]
    if suffix == ".html":
        assert "row 5<" in out.read_text()


def test_rows_are_found_by_values(say: Say) -> None:
    status, out, err = say("--where", "name=u3", "--where", "day=1")
    assert (status, err) == (0, "")
    numbers = [line.split("  ")[0] for line in out.splitlines() if line[:4] == "row "]
    assert numbers == ["row 11", "row 15", "row 19"]
    status, out, err = say("--where", "name=u3", "--limit", "2")
    assert [line[:6] for line in out.splitlines() if line[:4] == "row "] == [
        "row 3 ",
        "row 7 ",
    ]
    assert err == "din-explain: the first 2 rows of more; --limit N takes N\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--row", "40"], "expected a row in [0, 40) of {events}, got 40 - at `--row`"),
        (
            ["--where", "name=u9", "--where", "day=1"],
            "expected a row where name=u9 and day=1, got none - at `{events}`",
        ),
        (
            ["--where", "day=monday"],
            "expected a value that reads as int32, got 'monday' - at `--where day`",
        ),
        (
            ["--where", "tags=new"],
            "expected a value that reads as list<element: string>, got 'new'"
            " - at `--where tags`",
        ),
        (
            ["--out", "weights.pdf"],
            "expected a name that ends in .html, .png, .svg, got 'weights.pdf'"
            " - at `--out`",
        ),
    ],
)
def test_wrong_words_are_one_clear_line(
    words: list[str], message: str, say: Say, events: Path
) -> None:
    wanted = message.format(events=events)
    assert say(*words) == (1, "", f"din-explain: {wanted}\n")


def test_a_missing_column_or_folder_is_one_clear_line(say: Say, tmp_path: Path) -> None:
    status, _, err = say("--where", "shop=1")
    assert status == 1
    assert err.startswith("din-explain: expected the columns shop, got only user_id, ")
    out = tmp_path / "no" / "weights.html"
    status, _, err = say("--out", out)
    assert status == 1
    assert err.startswith("din-explain: expected a place where the explanation can be ")
    assert err.endswith(f" - at `{out}`\n")
    file = tmp_path / "file"
    file.write_text("")
    assert say("--out", file / "weights.html")[0] == 1


def test_a_wrong_row_is_named_as_it_stands_in_the_file(
    paper: Predictor, rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [dict(row) for row in rows]
    wrong[23]["cate_id"] = 10**6
    path = tmp_path / "wrong.parquet"
    pq.write_table(pa.Table.from_pylist(wrong), path, row_group_size=6)
    words = [str(paper.path), str(path), "--row", "30", "--row", "22:25"]
    assert explain_main([*words, "--out", str(tmp_path / "w.html")]) == 1
    assert capsys.readouterr().err == (
        "din-explain: expected an id in [0, 50), got 1000000 - at `cate_id`, row 23"
        f" of {path}\n"
    )
    assert list(tmp_path.iterdir()) == [path]
    content = bytearray(path.read_bytes())
    content[40:-5000] = bytes(len(content) - 5040)
    path.write_bytes(content)
    assert explain_main(words) == 1
    assert "din-explain: expected a" in capsys.readouterr().err


def test_a_picture_that_fails_leaves_nothing(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    status, _, err = say("--out", tmp_path / "w.png")
    assert (status, list(tmp_path.iterdir())) == (1, [])
    assert "got [Errno 28] No space left on device" in err


def test_a_picture_without_matplotlib_says_what_to_install(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "din_infer.explain.plot")
    monkeypatch.delitem(sys.modules, "din_infer.picture")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert say("--out", tmp_path / "w.png") == (
        1,
        "",
        "din-explain: needs the package matplotlib."
        ' Run: pip install "din-infer[cpu,batch,plot]"\n',
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--row", "x"],
        ["--row", "3:"],
        ["--row", "-1"],
        ["--row", "5:5"],
        ["--row", "0:1001"],
        ["--where", "=3"],
        ["--where", "user"],
        ["--row", "1", "--where", "a=b"],
        ["--limit", "5"],
        ["--row", "1", "--limit", "5"],
    ],
)
def test_wrong_usage_is_refused(words: list[str], say: Say) -> None:
    with pytest.raises(SystemExit) as caught:
        say(*words)
    assert caught.value.code == 2

"""What a stranger's graph can ask of the operators, and another thread of their inputs.

Each case is a file that was written wrong, or memory that changes in a run: one
sentence, never a crash, and no memory that the file does not account for.
"""

import copy
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from din_infer import FeatureSpec
from tests import ops
from tests.ops import (
    Arrays,
    attention_feeds,
    attention_graph,
    bag_graph,
    guard_feeds,
    guard_graph,
    refused,
    session,
    tower_feeds,
    tower_graph,
    with_mask,
)
from tests.raw import encode_graph, feeds, hash_field

BAG: Arrays = {"ids": np.zeros((2, 3), np.int64), "lengths": np.array([3, 1])}


def changed(graph: ops.Graph, **attributes: Any) -> ops.Graph:  # noqa: ANN401
    made = copy.copy(graph)
    made.attributes = {**graph.attributes, **attributes}
    return made


# ------------------------------------------------------------------------- attributes


ATTENTION = attention_graph(dims=(3, 2), hidden=[4], activation="dice")
ATTENTION_FEEDS = attention_feeds(ATTENTION, 3, 2, 4)
TOWER_FEEDS = tower_feeds((5, 3), 4)
GUARD = guard_graph()


@pytest.mark.parametrize(
    ("graph", "given", "attributes", "sentence"),
    [
        (ATTENTION, ATTENTION_FEEDS, {"softmax": 2}, "expected 0 or 1, got 2"),
        (ATTENTION, ATTENTION_FEEDS, {"scale": np.nan}, "expected a finite number"),
        (ATTENTION, ATTENTION_FEEDS, {"epsilon": np.inf}, "expected a finite number"),
        (
            ATTENTION,
            ATTENTION_FEEDS,
            {"interactions": "product,sum"},
            "expected none, difference, product or outer, got product,sum",
        ),
        (
            ATTENTION,
            ATTENTION_FEEDS,
            {"activation": "dice\0relu"},
            "expected text without zeros, got dice and more",
        ),
        (bag_graph(), BAG, {"empty": -np.inf}, "expected a finite number, got -inf"),
        (tower_graph(), TOWER_FEEDS, {"num_blocks": 2**40}, "got 1099511627776 blocks"),
        (tower_graph(), TOWER_FEEDS, {"num_layers": -(2**63)}, "expected attributes"),
        (GUARD, guard_feeds(GUARD, 3, 2), {"has_requests": -1}, "expected 0 or 1"),
    ],
)
def test_an_attribute_beyond_its_values(
    graph: ops.Graph, given: Arrays, attributes: dict[str, Any], sentence: str
) -> None:
    with refused(sentence):
        changed(graph, **attributes).session(given)


@pytest.mark.parametrize(
    ("text", "shown"), [(b"\xff\xfe", "??"), (b"dic\xc3\xa9\xc3", "dic\u00e9?")]
)
def test_a_text_that_is_no_utf_8_is_shown(text: bytes, shown: str) -> None:
    """The runtime's Python face decodes the sentence, and would fail on it."""
    with refused(f"got {shown} - at `LocalActivation attribute activation`"):
        changed(ATTENTION, activation=text).session(ATTENTION_FEEDS)


# ---------------------------------------------------------------------------- outputs


def with_outputs(graph: ops.Graph, given: Arrays, count: int) -> bytes:
    """The node has so many outputs, and something reads the last."""
    model = onnx.load_from_string(graph.model(given))
    (node,) = model.graph.node
    while len(node.output) < count:
        node.output.append(f"more_{len(node.output)}")
    model.graph.node.append(helper.make_node("Shape", [node.output[-1]], ["shape"]))
    model.graph.output.append(helper.make_tensor_value_info("shape", 7, None))
    del model.functions[:]
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("graph", "given", "most"),
    [
        (ATTENTION, ATTENTION_FEEDS, 2),
        (bag_graph(), BAG, 1),
        (tower_graph(), TOWER_FEEDS, 1),
        (GUARD, guard_feeds(GUARD, 3, 2), 1),
    ],
)
def test_an_output_that_nobody_writes(
    graph: ops.Graph, given: Arrays, most: int
) -> None:
    wanted = f"expected {most} outputs, got {most + 1} - at `{graph.name}`"
    with refused(wanted):
        session(with_outputs(graph, given, most + 1))


SPEC = FeatureSpec.from_dict(
    {"format": 1, "candidate": [hash_field("x"), hash_field("y")]}
)
TEXTS = feeds(SPEC, pa.table({"x": ["a"] * 999, "y": ["b"] * 999}))


@pytest.mark.parametrize(
    "kind", [TensorProto.UINT8, TensorProto.BOOL, TensorProto.FLOAT]
)
def test_ids_are_not_written_to_a_smaller_type(kind: int) -> None:
    """8 bytes an id went to a tensor that the graph gives one byte each."""
    model = onnx.load_from_string(encode_graph(SPEC))
    model.graph.output[0].type.tensor_type.elem_type = kind
    with refused("expected int64, got"):
        session(bytes(model.SerializeToString())).run(None, TEXTS)


def test_encode_has_as_many_outputs_as_its_spec() -> None:
    model = onnx.load_from_string(encode_graph(SPEC))
    node = next(n for n in model.graph.node if n.op_type == "Encode")
    node.output.append("more")
    model.graph.value_info.append(helper.make_tensor_value_info("more", 7, [None]))
    model.graph.node.append(helper.make_node("Shape", ["more"], ["shape"]))
    model.graph.output.append(helper.make_tensor_value_info("shape", 7, None))
    with refused("expected 2 outputs, got 3 - at `Encode`"):
        session(bytes(model.SerializeToString()))


# ------------------------------------------------------------------------------ sizes


def test_a_table_of_no_rows_has_no_width() -> None:
    """A file of no bytes asked for 8 GB of output a row."""
    model = onnx.load_from_string(bag_graph().model(BAG))
    (table,) = model.graph.initializer
    table.dims[:] = [0, 2**31 - 1]
    table.raw_data = b""
    with refused("expected at least 1 row, got 0 - at `EmbeddingBag input table`"):
        session(bytes(model.SerializeToString()))


def test_blocks_of_no_columns_have_no_rows() -> None:
    """2^33 rows of no bytes would be 32 GB of logits."""
    graph = tower_graph()
    graph.constants["weight_1"] = np.zeros((0, 200), np.float32)
    with refused("expected at least 1 row, got 0 - at `Tower input weight_1`"):
        graph.session(TOWER_FEEDS)


def test_a_mask_of_no_positions_may_be_of_any_number_of_requests() -> None:
    """Lengths of 2^40 requests would be 8 TB; there is no behavior to look for."""
    graph = with_mask(attention_graph(dims=(3,), hidden=[4], explain=False))
    given = attention_feeds(graph, 2, 2, 0)
    given.pop("lengths", None)
    many = 2**40
    given["mask"] = np.zeros((many, 0), np.float32)
    given["ids_0"] = np.zeros((many, 0), np.int64)
    given["request_of_candidate"] = np.array([0, many - 1])
    (interest,) = graph.run(given)
    np.testing.assert_array_equal(interest, np.zeros((2, 3), np.float32))


# ---------------------------------------------------------------------- changing memory


def chaos(arrays: list[Any], stop: threading.Event) -> None:
    """Write what is legal and what is far outside, in turn, until told to stop."""
    legal = [a.copy() for a in arrays]
    while not stop.is_set():
        for array, good in zip(arrays, legal, strict=True):
            array[...] = np.iinfo(array.dtype).max
            array[...] = good


@pytest.fixture
def changing() -> Iterator[Any]:
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start(*arrays: Any) -> None:  # noqa: ANN401
        threads.append(threading.Thread(target=chaos, args=(list(arrays), stop)))
        threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def run_often(opened: Any, given: Arrays, times: int = 300) -> None:  # noqa: ANN401
    """Run, whatever comes of it: a result, or a refusal in the operators' words."""
    said = set()
    for _ in range(times):
        try:
            opened.run(None, given)
        except Exception as error:
            said.add(str(error))
    assert all("expected" in sentence for sentence in said), said


@pytest.mark.parametrize("name", ["lengths", "request_of_candidate", "ids_0"])
def test_an_attention_whose_inputs_change(name: str, changing: Any) -> None:  # noqa: ANN401
    graph = attention_graph(dims=(8,), hidden=[8], explain=False)
    given = attention_feeds(graph, 400, 200, 30)
    opened = graph.session(given)
    changing(given[name])
    run_often(opened, given)


@pytest.mark.parametrize("name", ["lengths", "ids"])
def test_a_bag_whose_inputs_change(name: str, changing: Any) -> None:  # noqa: ANN401
    given: Arrays = {
        "ids": np.random.default_rng(0).integers(0, 30, (2000, 8)),
        "lengths": np.arange(2000) % 9,
    }
    opened = bag_graph().session(given)
    changing(given[name])
    run_often(opened, given)


@pytest.mark.parametrize("name", ["x.offsets", "x.row_offsets", "x.bytes"])
@pytest.mark.parametrize("written", [{}, {"separator": ","}, {"format": "json"}])
def test_columns_that_change_while_they_are_encoded(
    name: str,
    written: dict[str, str],
    changing: Any,  # noqa: ANN401
) -> None:
    field = hash_field("x")
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [hash_field("c")],
            "multi_hot": [
                {
                    **field,
                    "side": "candidate",
                    "pooling": "sum",
                    "max_len": 3,
                    **written,
                }
            ],
        }
    )
    values: Any = [["ab", "c"], [], ["d"]] * 3000
    if written:
        values = (
            ["ab,c", "", "d,,e"] * 3000 if "separator" in written else ['["a"]'] * 9000
        )
    table = pa.table({"c": ["x"] * len(values), "x": values})
    given = {k: v.copy() for k, v in feeds(spec, table).items()}
    opened = session(encode_graph(spec))
    if name in given:
        changing(given[name])
    run_often(opened, given, 60)

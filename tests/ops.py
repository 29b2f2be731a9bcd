"""Graphs of one native operator each, their random weights and inputs, and sessions.

Built from converter/din_converter/functions.py, so that what is tested is the operator
as din-convert writes it. Above 400 lines: one place knows every operator's inputs.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from din_converter import functions, guard
from din_infer.model_format import IR_VERSION, OPSET
from din_infer.session import ops_library
from din_infer.spec import FeatureSpec, Tower

Arrays = dict[str, NDArray[Any]]
PROVIDERS: list[Any] = ["CPUExecutionProvider"]
TYPES = {
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.int32): TensorProto.INT32,
}


ACTIVATIONS = ["dice", "row_dice", "prelu", "relu", "sigmoid", "silu", "none"]


@dataclass
class Graph:
    """One operator: what a model says of it, and its constants."""

    name: str
    function: onnx.FunctionProto
    attributes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    constants: Arrays
    rank: int = 2  # of the outputs
    op: Any = None  # a LocalActivation

    def model(self, feeds: Mapping[str, NDArray[Any]]) -> bytes:
        """Write a model: constants inside, each feed an input of any size."""
        node = helper.make_node(
            self.name,
            self.inputs,
            self.outputs,
            domain=functions.DOMAIN,
            **self.attributes,
        )
        graph = helper.make_graph(
            [node],
            "op",
            [
                helper.make_tensor_value_info(
                    name, TYPES[array.dtype], [None] * array.ndim
                )
                for name, array in feeds.items()
            ],
            [
                helper.make_tensor_value_info(
                    name, TensorProto.FLOAT, [None] * self.rank
                )
                for name in self.outputs
            ],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items()],
        )
        opsets = [
            helper.make_opsetid("", OPSET),
            helper.make_opsetid(functions.DOMAIN, 1),
        ]
        model = helper.make_model(
            graph,
            functions=[self.function],
            opset_imports=opsets,
            ir_version=IR_VERSION,
        )
        return bytes(model.SerializeToString())

    def session(self, feeds: Arrays, **options: Any) -> onnxruntime.InferenceSession:  # noqa: ANN401
        return session(self.model(feeds), **options)

    def run(self, feeds: Arrays, **options: Any) -> list[NDArray[np.float32]]:  # noqa: ANN401
        """Outputs of the native operator, or with `fused=False` of the function."""
        result: list[NDArray[np.float32]] = self.session(feeds, **options).run(
            None, feeds
        )
        return result


def library() -> Path:
    """The operators under test: the package's own, or DIN_TEST_BUILD's, or a test's."""
    folder = os.environ.get("DIN_TEST_BUILD")
    path = Path(folder) / "din_infer" / "_ops.so" if folder else ops_library()
    assert path is not None, "this build has no native operators"
    return path


def session(
    model: bytes, *, fused: bool = True, threads: int = 1, precision: str | None = None
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if precision is not None:
        options.add_session_config_entry("din_infer.precision", precision)
    if fused:
        options.register_custom_ops_library(str(library()))
    return onnxruntime.InferenceSession(model, options, PROVIDERS)


def _runs(isa: str, precision: str | None, otherwise: str) -> bool:
    feeds = {"ids": np.zeros((1, 1), np.int64), "lengths": np.array([1])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIN_INFER_ISA", isa)
        try:
            bag_graph().session(feeds, precision=precision)
        except Exception as error:
            if otherwise not in str(error):
                raise
            return False
    return True


@functools.cache
def machine_isas() -> tuple[str, ...]:
    """The instruction sets that the operators find here."""
    otherwise = "expected an instruction set of this machine"
    names = ("baseline", "avx2", "avx512")
    return tuple(name for name in names if _runs(name, None, otherwise))


@functools.cache
def has_amx() -> bool:
    """Whether the operators find AMX here."""
    return _runs("", "bf16", "expected a CPU with AMX")


def refused(text: str) -> AbstractContextManager[Any]:
    """Expect this sentence; the runtime's errors share no narrower base."""
    return pytest.raises(Exception, match=re.escape(text))


def attention_graph(
    *,
    dims: tuple[int, ...] = (5, 3),
    paired: tuple[bool, ...] | None = None,
    rows: int = 40,
    half: tuple[bool, ...] = (),
    explain: bool = True,
    behavior: Mapping[str, Any] | None = None,
    seed: int = 0,
    **attention: Any,  # noqa: ANN401
) -> Graph:
    """LocalActivation over one field per entry of `dims`, weights that spread."""
    paired = paired or (True,) * len(dims)
    fields: dict[str, Any] = {}
    candidates = []
    encoder = {"type": "identity", "buckets": rows}
    for i, (dim, pairs) in enumerate(zip(dims, paired, strict=True)):
        own = {"dim": dim, "dtype": "int64", "encoder": encoder}
        fields[f"h{i}"] = {**own, "pairs": f"c{i}"} if pairs else own
        if pairs:
            candidates.append({"name": f"c{i}", **own})
    if not candidates:
        candidates = [{"name": "c", "dim": 1, "dtype": "int64", "encoder": encoder}]
    sequence = {"name": "s", "max_len": 9, "fields": fields, **(behavior or {})}
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": candidates,
            "behavior": [sequence],
            "model": {"attention": attention},
        }
    )
    op = functions.LocalActivation.of(spec.behavior[0], explain)
    rng = np.random.default_rng(seed)
    widths = [sum(dims), *spec.behavior[0].attention.hidden, 1]
    real = [dim for dim, pairs in zip(dims, paired, strict=True) if pairs]
    constants: Arrays = {}
    for name in op.inputs:
        label, _, number = name.rpartition("_")
        i = int(number) if number.isdecimal() else 0
        if label == "table":
            value = rng.normal(size=(rows, dims[i]))
        elif label == "candidate_table":
            value = rng.normal(size=(rows, real[i]))
        elif name in ("weight_query", "weight_behavior", "weight_product"):
            value = rng.normal(size=widths[:2]) / widths[0] ** 0.5
        elif name == "weight_outer":
            shape = (widths[0], widths[0] * widths[1])
            value = rng.normal(size=shape) / widths[0]
        elif label == "weight":
            value = 1.5 * rng.normal(size=widths[i - 1 : i + 1]) / widths[i - 1] ** 0.5
        elif label in ("bias", "dice_shift", "dice_alpha", "slope"):
            value = 0.4 * rng.normal(size=widths[i])
        elif label == "dice_scale":
            value = 1 + 0.3 * rng.normal(size=widths[i])
        else:
            continue
        constants[name] = value.astype(np.float32)
    for i, is_half in enumerate(half):
        if is_half:
            constants[f"table_{i}"] = constants[f"table_{i}"].astype(np.float16)
    function = functions.local_activation_function("LocalActivation", op)
    return Graph(
        "LocalActivation",
        function,
        op.attributes,
        op.inputs,
        op.outputs,
        constants,
        op=op,
    )


def with_mask(graph: Graph) -> Graph:
    """The same operator with a mask [B, T] in place of lengths."""
    op: functions.LocalActivation = dataclasses.replace(graph.op, padding="mask")
    function = functions.local_activation_function("LocalActivation", op)
    return dataclasses.replace(
        graph,
        function=function,
        attributes=op.attributes,
        inputs=op.inputs,
        outputs=op.outputs,
        op=op,
    )


def guarded(graph: Graph) -> Graph:
    """The same operator, whose function hides no overflow either."""
    op: functions.LocalActivation = dataclasses.replace(graph.op, guarded=True)
    function = functions.local_activation_function("LocalActivation", op)
    return dataclasses.replace(graph, function=function, op=op)


OVERFLOWS: dict[str, dict[str, Any]] = {
    **{kind: {"hidden": [6, 3], "activation": kind} for kind in ACTIVATIONS},
    **{
        f"outputs {kind}": {"hidden": [], "output_activation": kind}
        for kind in ("relu", "sigmoid", "silu")
    },
    "softmax": {"hidden": [], "softmax": True},
    "softmax of sigmoids": {"hidden": [4], "activation": "sigmoid", "softmax": True},
}


def overflowing_graph(mode: str, sign: float) -> tuple[Graph, Arrays]:
    """Candidates of which only the second meets a row whose sums overflow.

    Float64 makes nothing of them: 3e38 * (2 - 1 - 1). Row dice squares 1e20.
    """
    graph = attention_graph(dims=(3,), interactions=[], **OVERFLOWS[mode])
    graph.constants["table_0"][20:] = 1e20 if mode == "row_dice" else 3e38
    if mode != "row_dice":
        columns = np.array([[2.0], [-1.0], [-1.0]], np.float32)
        graph.constants["weight_behavior"][:] = sign * columns
    feeds = attention_feeds(graph, 3, 3, 5, lengths="max")
    feeds["ids_0"] %= 20
    feeds["ids_0"][1, 2] = 25
    feeds["candidate_ids_0"] %= 20
    return guarded(graph), feeds


def attention_feeds(
    graph: Graph,
    n: int,
    b: int,
    t: int,
    *,
    lengths: str = "mixed",
    seed: int = 0,
) -> Arrays:
    """Random ids for N candidates of B requests over T positions."""
    rng = np.random.default_rng(seed)
    rows = len(graph.constants["table_0"]) if "table_0" in graph.constants else 40
    length = {
        "zero": np.zeros(b, np.int64),
        "one": np.full(b, min(1, t), np.int64),
        "max": np.full(b, t, np.int64),
        "mixed": rng.integers(0, t + 1, b),
    }[lengths]
    in_order = n == b
    feeds: Arrays = {
        "request_of_candidate": (
            np.arange(n) if in_order else rng.integers(0, max(b, 1), n)
        ).astype(np.int64),
        "lengths": length,
    }
    for name in graph.inputs:
        if name.startswith("ids_"):
            feeds[name] = rng.integers(0, rows, (b, t))
        elif name.startswith("candidate_ids_"):
            feeds[name] = rng.integers(0, rows, n)
    return feeds


def bag_graph(
    pooling: str = "mean",
    padding: str = "masked",
    empty: float = 0.0,
    *,
    dim: int = 7,
    rows: int = 30,
    half: bool = False,
) -> Graph:
    attributes = functions.bag_attributes(pooling, padding, empty)
    table = np.random.default_rng(0).normal(size=(rows, dim))
    return Graph(
        "EmbeddingBag",
        functions.bag_function("EmbeddingBag", attributes),
        attributes,
        ["ids", "lengths", "table"],
        ["pooled"],
        {"table": table.astype(np.float16 if half else np.float32)},
    )


def guard_graph(
    users: Sequence[int] = (9, 5), candidates: Sequence[int] = (7,)
) -> Graph:
    """A Guard of fields with these rows; without users, B is told by lengths."""
    names = [f"user {i}" for i in range(len(users))]
    fields = [
        *zip(names, users, strict=True),
        *((f"candidate {i}", rows) for i, rows in enumerate(candidates)),
    ]
    requests = ("user 0", "user 0") if users else ("lengths", "ids")
    op = guard.GuardOp(tuple(fields), len(users), requests)
    return Graph(
        "Guard",
        guard.guard_function("Guard", op),
        op.attributes,
        op.values,
        ["penalty"],
        {},
        rank=1,
        op=op,
    )


def guard_feeds(graph: Graph, n: int, b: int, seed: int = 0) -> Arrays:
    """Legal inputs of a Guard: the last request has a candidate."""
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, max(b, 1), n)
    owners[n - 1 :] = b - 1
    feeds: Arrays = {"request_of_candidate": owners}
    if "lengths" in graph.inputs:
        feeds |= {"lengths": np.full(b, 2), "ids": np.zeros((b, 2), np.int64)}
    for i, (name, rows) in enumerate(graph.op.fields):
        count = b if i < graph.op.num_user_fields else n
        feeds[name] = rng.integers(0, rows, count)
    return feeds


def tower_graph(
    blocks: tuple[int, ...] = (5, 3),
    seed: int = 0,
    **tower: Any,  # noqa: ANN401
) -> Graph:
    op = functions.TowerOp(Tower(**tower), len(blocks))
    rng = np.random.default_rng(seed)
    widths = [sum(blocks), *op.tower.hidden, 1]
    constants: Arrays = {}
    for name in op.layers:
        label, _, number = name.rpartition("_")
        i = int(number)
        if label == "weight":
            value = 1.5 * rng.normal(size=widths[i - 1 : i + 1]) / widths[i - 1] ** 0.5
        else:
            value = (label == "dice_scale") + 0.4 * rng.normal(size=widths[i])
        constants[name] = value.astype(np.float32)
    return Graph(
        "Tower",
        functions.tower_function("Tower", op),
        op.attributes,
        [*op.blocks, *op.layers],
        ["logit"],
        constants,
        rank=1,
    )


def tower_feeds(blocks: tuple[int, ...], rows: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        f"x_{i}": rng.normal(size=(rows, width)).astype(np.float32)
        for i, width in enumerate(blocks)
    }

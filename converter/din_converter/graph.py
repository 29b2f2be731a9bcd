"""A torch DIN -> an ONNX graph, and its folded weights.

The graph is built from the spec and the trained weights, node by node; nothing is
traced. Layers are folded in float64. Inputs that the tower reads twice, sliced or
through a projection are folded into its first weight matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from din_converter.folding import Array, as_array, attention_weights, fold_layers
from din_converter.functions import (
    DOMAIN,
    LocalActivation,
    TowerOp,
    bag_attributes,
    bag_function,
    function_named,
    local_activation_function,
    tower_function,
)
from din_converter.guard import GuardOp, add_count, guard_function
from din_converter.layers import LocalActivationUnit
from din_converter.model import ClickModel, key_of
from din_converter.nodes import Nodes
from din_converter.overflow import may_hide_overflow
from din_infer.errors import ConversionError
from din_infer.model_format import IR_VERSION, OPSET, WEIGHT_SUFFIX
from din_infer.spec import Behavior, BehaviorField

__all__ = ["build_graph"]

FP16_LARGEST = 65504.0
BLOCK_VALUES = 1 << 20  # of a table at a time: 8 MiB in float64


def _check_fp16(value: Array, table: str, first: int) -> None:
    """Refuse a block of rows, from `first` on, with a value outside fp16's range."""
    outside = np.abs(value) > FP16_LARGEST
    if outside.any():
        row, column = np.argwhere(outside)[0]
        rule = f"a value in [-{FP16_LARGEST:g}, {FP16_LARGEST:g}], as fp16 needs"
        got, place = f"{value[row, column]:.9g}", f"table {table}"
        raise ConversionError(rule, got, place, row=first + row)


@dataclass
class _Graph:
    """The model under construction: nodes, initializers and functions.

    Fields have names without a dot, so names with a dot cannot collide with them;
    weights have two dots, which `<sequence>.lengths` and `.interest` do not.
    """

    model: ClickModel
    explain: bool
    embedding_dtype: str
    g: Nodes = field(default_factory=lambda: Nodes(prefix="node."))
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    functions: dict[tuple[object, ...], onnx.FunctionProto] = field(
        default_factory=dict
    )
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def weight(self, name: str, value: Array) -> str:
        """Add an initializer, as float32; a name that is there already is shared."""
        if name not in self.weights:
            self.weights[name] = np.ascontiguousarray(value, dtype=np.float32)
        return name

    def _embeddings(
        self, table: str, rows: int, dim: int, read: Callable[[Tensor], Tensor]
    ) -> NDArray[Any]:
        """Make a table in the dtype asked for, block by block of what `read` gives."""
        fp16 = self.embedding_dtype == "fp16"
        out = np.empty((rows, dim), np.float16 if fp16 else np.float32)
        step = max(1, BLOCK_VALUES // dim)
        for first in range(0, rows, step):
            value = as_array(read(torch.arange(first, min(first + step, rows))))
            if fp16:
                _check_fp16(value, table, first)
            out[first : first + step] = value
        return out

    def read_rows(self, table: str, ids: str) -> str:
        """Read rows of a table as float32."""
        if self.embedding_dtype == "fp16":
            return self.g.read_rows(table, ids)
        return self.g.add("Gather", table, ids)

    def table(self, name: str) -> str:
        label = f"weights.table.{name}"
        if label not in self.weights:
            table: nn.Embedding = self.model.tables[key_of(name)]  # type: ignore[assignment]
            weight = table.weight.detach().cpu()
            if self.embedding_dtype == "fp32":  # float32 is taken as it lies in memory
                self.weights[label] = weight.float().contiguous().numpy()
            else:
                rows, dim = weight.shape
                made = self._embeddings(name, rows, dim, weight.__getitem__)
                self.weights[label] = made
        return label

    def derived_table(self, name: str) -> str:
        """Materialize a derived field: one pooled row per id of its source."""
        label = f"weights.derived.{name}"
        if label not in self.weights:
            derived = next(d for d in self.model.spec.derived if d.name == name)
            read = partial(self.model.derived_rows, name)
            made = self._embeddings(name, len(derived.lookup), derived.dim, read)
            self.weights[label] = made
        return label

    def behavior_table(self, f: BehaviorField) -> str:
        if f.derived is not None:
            return self.derived_table(f.derived)
        return self.table(f.table)

    def bag(
        self, ids: str, lengths: str, table: str, attributes: dict[str, Any]
    ) -> str:
        name = function_named(
            self.functions,
            "EmbeddingBag",
            tuple(attributes.items()),
            partial(bag_function, attributes=attributes),
        )
        return self.g.add(name, ids, lengths, table, domain=DOMAIN, **attributes)

    def attend(self, sequence: Behavior) -> str:
        """Add LocalActivation for one sequence; returns the interest [N, D]."""
        unit: LocalActivationUnit = self.model.attentions[key_of(sequence.name)]  # type: ignore[index, assignment]
        weights = attention_weights(unit)
        values = {
            "request_of_candidate": "request_of_candidate",
            "lengths": sequence.lengths,
        }
        for i, f in enumerate(sequence.fields):
            values[f"ids_{i}"] = f.source or f.name
            values[f"table_{i}"] = self.behavior_table(f)
        real = [name for name, _ in sequence.query if name is not None]
        for i, name in enumerate(real):
            ids, table = self.candidate_ids_and_table(name)
            values[f"candidate_ids_{i}"], values[f"candidate_table_{i}"] = ids, table
        for label, value in weights.items():
            values[label] = self.weight(
                f"weights.sequence.{sequence.name}.{label}", value
            )
        tables = {k: self.weights[v] for k, v in values.items() if "table_" in k}
        guarded = may_hide_overflow(sequence.attention, weights, tables)
        op = LocalActivation.of(sequence, self.explain, guarded)
        name = function_named(
            self.functions,
            "LocalActivation",
            op.signature,
            partial(local_activation_function, op=op),
        )
        outputs = [f"{sequence.name}.interest"]
        if self.explain:
            outputs.append(sequence.name + WEIGHT_SUFFIX)
            shape = ["N", f"{sequence.name}.T"]
            self.outputs.append(
                helper.make_tensor_value_info(outputs[1], TensorProto.FLOAT, shape)
            )
        return self.g.add(
            name,
            *(values[i] for i in op.inputs),
            domain=DOMAIN,
            out=tuple(outputs),
            **op.attributes,
        )

    def candidate_ids_and_table(self, name: str) -> tuple[str, str]:
        for f in self.model.spec.candidate:
            if f.name == name:
                return f.name, self.table(f.table)
        derived = next(d for d in self.model.spec.derived if d.name == name)
        return derived.source, self.derived_table(name)

    def pool_sequence(self, sequence: Behavior) -> str:
        """BaseModel: pool each field of a sequence; returns [B, D]."""
        pooling = self.model.spec.model.pooling
        attributes = bag_attributes(pooling, sequence.padding, 0.0)
        pooled = []
        for f in sequence.fields:
            table, ids = self.behavior_table(f), f.source or f.name
            pooled.append(self.bag(ids, sequence.lengths, table, attributes))
        return self.g.add("Concat", *pooled, axis=1)


def _tower_input(graph: _Graph, first: Array) -> tuple[list[str], Array]:
    """Build the tower's blocks, [N, w_i] each, and their weight [sum of w_i, H].

    A part that is sliced, repeated, projected or made of other parts only moves rows of
    the weight matrix of a linear layer.
    """
    spec, g = graph.model.spec, graph.g
    fields = (*spec.user, *spec.candidate, *spec.derived, *spec.multi_hot)
    widths = {f.name: f.width for f in fields} | {d.name: d.width for d in spec.dense}
    widths |= {s.name: s.width for s in spec.behavior}
    queries = {s.name: s.query for s in spec.behavior}
    collected: dict[tuple[str, str], Array] = {}

    def give(kind: str, name: str, start: int, rows: Array, width: int) -> None:
        whole = collected.setdefault((kind, name), np.zeros((width, first.shape[1])))
        whole[start : start + len(rows)] += rows

    row = 0
    for part in spec.tower_inputs:
        rows = first[row : row + part.width]
        row += part.width
        if part.kind == "field":
            give("field", part.name, part.start, rows, widths[part.name])
        elif part.kind == "query":
            at = 0
            for name, width in queries[part.name]:
                a, b = max(part.start, at), min(part.stop, at + width)
                if name is not None and a < b:
                    taken = rows[a - part.start : b - part.start]
                    give("field", name, a - at, taken, width)
                at += width
        else:
            give(part.kind, part.name, part.start, rows, widths[part.name])

    interests = {
        s.name: (
            graph.pool_sequence(s) if spec.model.type == "base" else graph.attend(s)
        )
        for s in spec.behavior
        if graph.explain
        or any((kind, s.name) in collected for kind in ("interest", "product"))
    }
    user_side, candidate_side = [], []
    user_rows, candidate_rows = [], []
    for (kind, name), rows in collected.items():
        if kind == "field":
            vector, on_user, folded = _field_vector(graph, name, rows)
            if on_user:
                user_side.append(vector)
                user_rows.append(folded)
                continue
        else:
            vector, folded = interests[name], rows
            if spec.model.type == "base":
                vector = g.add("Gather", vector, "request_of_candidate")
            if kind == "product":
                vector = g.add("Mul", vector, _query_vector(graph, name))
        candidate_side.append(vector)
        candidate_rows.append(folded)
    blocks = []
    if user_side:
        joined = user_side[0]
        if len(user_side) > 1:
            joined = g.add("Concat", *user_side, axis=1)
        blocks.append(g.add("Gather", joined, "request_of_candidate"))
    blocks += candidate_side
    if not blocks:  # a query of unpaired fields alone: only the bias remains
        blocks.append(g.zeros(1))
        candidate_rows.append(np.zeros((1, first.shape[1])))
    weight = np.concatenate([*user_rows, *candidate_rows])
    return blocks, weight


def _field_vector(graph: _Graph, name: str, rows: Array) -> tuple[str, bool, Array]:
    """Return a field's vector, whether it is per request, and its weight rows."""
    spec = graph.model.spec
    for f in (*spec.user, *spec.candidate):
        if f.name == name:
            vector = graph.read_rows(graph.table(f.table), f.name)
            return vector, f.side == "user", rows
    for d in spec.derived:
        if d.name == name:
            vector = graph.read_rows(graph.derived_table(name), d.source)
            return vector, d.side == "user", rows
    for m in spec.multi_hot:
        if m.name == name:
            attributes = bag_attributes(m.pooling, m.padding, m.empty)
            table = graph.table(m.table)
            vector = graph.bag(name, m.lengths, table, attributes)
            return vector, m.side == "user", rows
    dense = next(d for d in spec.dense if d.name == name)
    if dense.project:
        projection: nn.Linear = graph.model.projections[key_of(name)]  # type: ignore[assignment]
        rows = as_array(projection.weight).T @ rows
    return name, dense.side == "user", rows


def _query_vector(graph: _Graph, name: str) -> str:
    """Build the query of a sequence, [N, D]; unpaired slots are zeros."""
    sequence = next(s for s in graph.model.spec.behavior if s.name == name)
    g, parts = graph.g, []
    for field_name, width in sequence.query:
        if field_name is None:
            parts.append(g.zeros(width))
        else:
            ids, table = graph.candidate_ids_and_table(field_name)
            parts.append(graph.read_rows(table, ids))
    return g.add("Concat", *parts, axis=1)


def _penalty(graph: _Graph) -> str:
    """Add the check of ids and requests; returns what it adds to the logit, [N]."""
    op, g = GuardOp.of(graph.model.spec.inputs), graph.g
    make = partial(guard_function, op=op)
    name = function_named(graph.functions, "Guard", (), make)
    if op.requests:
        graph.outputs.append(add_count(g, op))
    return g.add(name, *op.values, domain=DOMAIN, **op.attributes)


def build_graph(
    model: ClickModel, *, explain: bool = False, embedding_dtype: str = "fp32"
) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """Build the ONNX form of a trained model.

    Parameters
    ----------
    model : DIN or BaseModel
        Read, never changed; derived fields are pooled in its precision.
    explain : bool
        Add the outputs ``<sequence>.activation_weight``, float32 [N, T].
    embedding_dtype : {"fp32", "fp16"}
        Of the tables, derived ones included.

    Returns
    -------
    ModelProto
        Opset 18, IR version 10, without its initializers' data.
    dict of str to float32 or float16 array
        The initializers' data, by name. A float32 table shares memory with `model`.

    Raises
    ------
    ConversionError
        If a value does not fit fp16: names the table, its row and the value.
    """
    spec = model.spec
    graph = _Graph(model, explain and spec.model.type == "din", embedding_dtype)
    g = graph.g
    layers = fold_layers(model.tower)
    blocks, layers[0].weight = _tower_input(graph, layers[0].weight)
    op = TowerOp(spec.model.tower, len(blocks))
    values = [
        v for layer in layers for v in (layer.weight, layer.bias, *layer.parameters)
    ]
    weights = [
        graph.weight(f"weights.tower.{label}", value)
        for label, value in zip(op.layers, values, strict=True)
    ]
    name = function_named(graph.functions, "Tower", (), partial(tower_function, op=op))
    z = g.add(name, *blocks, *weights, domain=DOMAIN, **op.attributes)
    g.add("Add", z, _penalty(graph), out="logit")
    z, calibration = "logit", spec.calibration
    if calibration.scale != 1.0:
        z = g.add("Mul", z, g.constant(calibration.scale))
    if calibration.offset != 0.0:
        z = g.add("Add", z, g.constant(calibration.offset))
    link = "Sigmoid" if spec.model.link == "sigmoid" else "Identity"
    g.add(link, z, out="score")
    kinds = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    proto = helper.make_model(
        helper.make_graph(
            g.nodes,
            "din",
            [
                helper.make_tensor_value_info(i.name, kinds[i.dtype], i.shape)
                for i in spec.inputs
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"])
                for name in ("logit", "score")
            ]
            + graph.outputs,
        ),
        functions=list(graph.functions.values()),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
        ir_version=IR_VERSION,
        producer_name="din-infer",
    )
    for name, array in graph.weights.items():
        proto.graph.initializer.append(
            TensorProto(
                name=name,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                dims=array.shape,
            )
        )
    return proto, graph.weights

"""What the graph of a model file may hold, checked before a runtime sees it.

A file of a stranger is read here first, by a table of the fields that each message may
have. Others are refused, and so are texts that are no UTF-8, fields given twice,
operators that no model of din-convert has, tensors whose sizes disagree with their
bytes, and functions that call functions. docs/security.md lists the rules.

One file above 400 lines: the rules are of one walk over the messages.
"""

import math
from collections.abc import Iterator
from typing import Any, NoReturn

from din_infer.errors import ModelError
from din_infer.model_format import DAMAGED, DOMAIN, WRITTEN
from din_infer.onnx_fields import (
    FIXED32,
    FUNCTION,
    GRAPH,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    HOLDS,
    INT64,
    LENGTH,
    MODEL,
    MODEL_FUNCTION,
    MODEL_GRAPH,
    MODEL_METADATA,
    MODEL_OPSET,
    NODE,
    NUMBER,
    OPSET,
    SIZES,
    STRINGS,
    TENSOR,
    TEXT,
    VARINT,
    Table,
)
from din_infer.onnx_header import Budget, Content, TooLarge, fields_of

__all__ = ["check_graph"]

# ONNX Runtime 1.20 takes more than a minute to load a chain of 20,000 nodes; the
# largest of the specs in tests/models.py has 453, with its functions inlined.
MOST_NODES = 10_000
DEEPEST_BODY = 4  # Loop in Loop in ..
# Values that constants may ask for, as in ConstantOfShape([2 ** 40]), which a runtime
# makes while it loads.
MOST_VALUES = 1 << 24
MOST_AXES = 16  # longer sizes are of no tensor
VALUES = frozenset(HOLDS.values())
EXTERNAL = {"location", "offset", "length", "checksum"}
LARGEST_SIZE = 1 << 40  # of an axis

OWN = {"LocalActivation", "EmbeddingBag", "Tower", "Guard", "Encode"}
STANDARD_DOMAINS = {"", "ai.onnx"}
# Operators of ONNX without state, randomness, text, images, sequences or optionals.
STANDARD_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike
Ceil Celu Clip Compress Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh
CumSum DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp
Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid
HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LSTM LayerNormalization
LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul MatMulInteger Max
MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not OneHot Or
PRelu Pad Pow QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape ReverseSequence RotaryEmbedding
Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu
Tile TopK Transpose Trilu Unique Unsqueeze Where Xor
"""
STANDARD = frozenset(STANDARD_NAMES.split())
# Of torch modules alone, as a loop over tags, or torch.cond.
WITH_BODIES = {"If", "Loop", "Scan"}
# Inputs that say how much an operator writes.
SIZED_BY = {  # by its place
    **{"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "OneHot": 1, "Range": 1, "Pad": 1}
}


class _Refused(Exception):
    """A rule that is broken: the rule, what was got, and where."""

    def __init__(self, rule: str, got: object, where: str = "") -> None:
        super().__init__(rule)
        self.rule, self.got, self.where = rule, got, where


def check_graph(view: Content, place: str, *, bodies: bool) -> set[str]:
    """Refuse a model whose graph holds what no model of din-convert does.

    Parameters
    ----------
    view : bytes or a file's
        The ``.onnx``.
    place : str
        Names the model in errors.
    bodies : bool
        Whether operators may have bodies, as Loop and If: in graphs of torch modules.

    Returns
    -------
    set of str
        By name, the operators of this package and those with bodies that the graph has.

    Raises
    ------
    ModelError
        Saying which rule is broken, and by which node or tensor.
    """
    checker = _Checker(view, bodies)
    try:
        checker.model()
    except _Refused as refused:
        where = f"{place}: {refused.where}" if refused.where else place
        raise ModelError(refused.rule, refused.got, where) from None
    except UnicodeDecodeError:
        raise ModelError("texts in UTF-8", "other bytes", place, DAMAGED) from None
    except TooLarge as error:
        most, got = error.args
        raise ModelError(f"at most {most}", got, place) from None
    except (IndexError, ValueError):
        raise ModelError(WRITTEN, "a damaged file", place, DAMAGED) from None
    return checker.operators


class _Checker:
    """Reads a model's messages, one after the other; keeps names and small sizes."""

    def __init__(self, view: Content, bodies: bool) -> None:
        self._view, self._bodies = view, bodies
        self._budget = Budget()
        self._nodes = 0
        self._functions: set[str] = set()
        self.operators: set[str] = set()

    # ---- reading ----

    def _message(
        self, data: Content, at: int, end: int, table: Table
    ) -> dict[str, Any]:
        """Read a message by its table; texts are decoded, bytes told by their place."""
        found: dict[str, Any] = {}
        count = 0
        while at < end:
            count += 1
            tag = data[at]
            at += 1
            if tag > 0x7F:
                tag, at = _longer(data, at, tag)
            if tag not in table:
                _unknown(tag)
            how, name, many = table[tag]
            kind = tag & 7
            value: Any
            if kind == LENGTH:
                size = data[at]
                at += 1
                if size > 0x7F:
                    size, at = _longer(data, at, size)
                start, at = at, at + size
                if at > end:
                    raise ValueError("a field beyond the end")
                if how is TEXT:
                    value = str(data[start:at], "utf-8")
                elif how.__class__ is dict:
                    value = self._message(data, start, at, how)
                else:
                    value = (start, at)
            elif kind == VARINT:
                value = data[at]
                at += 1
                if value > 0x7F:
                    value, at = _longer(data, at, value)
                    if value >> 63:
                        value -= 1 << 64
            else:
                value = at
                at += 4 if kind == FIXED32 else 8
            if many:
                if name in found:
                    found[name].append(value)
                else:
                    found[name] = [value]
            elif name in found:
                raise _Refused("fields that are given once", f"two of {name}")
            else:
                found[name] = value
        if at != end:
            raise ValueError("a field beyond the end")
        self._budget.spend(count)
        return found

    def _parts(
        self, data: Content, at: int, end: int, known: dict[int, Any]
    ) -> Iterator[tuple[int, int, int]]:
        """Iterate over (field, start, end) of a large message's messages."""
        seen = set()
        for f in fields_of(data, at, end, self._budget, strict=True):
            if f.number not in known:
                _unknown(f.number << 3 | LENGTH)
            if known[f.number] in (TEXT, NUMBER):
                if f.number in seen:
                    raise _Refused("fields that are given once", f"two of {f.number}")
                seen.add(f.number)
            if known[f.number] is TEXT:
                str(data[f.start : f.end], "utf-8")
            elif known[f.number] is not NUMBER:
                yield f.number, f.start, f.end

    # ---- rules ----

    def model(self) -> None:
        """Check a whole model; its metadata was read before."""
        view = self._view
        parts: dict[int, list[tuple[int, int]]] = {}
        for number, at, end in self._parts(view, 0, len(view), MODEL):
            if number != MODEL_METADATA:  # read by Header
                parts.setdefault(number, []).append((at, end))
        if len(parts.get(MODEL_GRAPH, ())) != 1:
            raise _Refused("one graph", len(parts.get(MODEL_GRAPH, ())))
        for at, end in parts.get(MODEL_OPSET, ()):
            self._check_opset(self._message(view, at, end, OPSET))
        for at, end in parts.get(MODEL_FUNCTION, ()):
            data = bytes(view[at:end])
            self._function(self._message(data, 0, len(data), FUNCTION), data)
        ((at, end),) = parts[MODEL_GRAPH]
        self._graph(view, at, end, 0)

    def _check_opset(self, opset: dict[str, Any]) -> None:
        domain = opset.get("domain", "")
        if domain not in STANDARD_DOMAINS | {DOMAIN}:
            rule = "operators of ONNX and of din_infer"
            raise _Refused(rule, f"the domain {domain!r}")

    def _function(self, function: dict[str, Any], data: bytes) -> None:
        domain, name = function.get("domain", ""), function.get("name", "")
        where = f"function {name}"
        if domain != DOMAIN:
            rule = "functions of din_infer's operators"
            raise _Refused(rule, f"{domain}::{name}", where)
        if name in self._functions:
            raise _Refused("one function of a name", "two", where)
        for opset in function.get("opset", ()):
            self._check_opset(opset)
        constants: dict[str, list[int]] = {}
        for node in function.get("node", ()):
            if node.get("domain", "") not in STANDARD_DOMAINS:
                rule = "a function of ONNX's own operators"
                raise _Refused(rule, node.get("op", ""), where)
            self._node(node, data, constants, None)
        for attribute in function.get("default", ()):
            self._attribute(attribute, where, in_function=False)
        self._functions.add(name)

    def _graph(self, data: Content, at: int, end: int, depth: int) -> None:
        """Check a graph, or the body of an operator."""
        if depth > DEEPEST_BODY:
            raise _Refused(f"bodies in bodies {DEEPEST_BODY} deep", "deeper")
        constants: dict[str, list[int]] = {}
        nodes = []
        for number, start, stop in self._parts(data, at, end, GRAPH):
            if number == GRAPH_NODE:
                nodes.append((start, stop))
            elif number == GRAPH_INITIALIZER:  # its values stay where they are
                tensor = self._message(data, start, stop, TENSOR)
                where = "" if depth == 0 else f"tensor {tensor.get('name', '')}"
                self._tensor(tensor, data, constants, tensor.get("name", ""), where)
            else:
                self._message(data, start, stop, GRAPH[number])
        for start, stop in nodes:
            content = bytes(data[start:stop])
            node = self._message(content, 0, len(content), NODE)
            self._node(node, content, constants, depth)

    def _node(
        self,
        node: dict[str, Any],
        data: Content,
        constants: dict[str, list[int]],
        depth: int | None,
    ) -> None:
        """Check a node; `depth` is that of its graph, None in a function."""
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise _Refused(f"at most {MOST_NODES:,} nodes", "more")
        op, domain = node.get("op", ""), node.get("domain", "")
        where = f"node {node.get('name') or (node.get('output') or [''])[0]}"
        if domain == DOMAIN:
            if _base(op) not in OWN and op not in self._functions:
                raise _Refused("an operator of this din-infer", op, where)
            self.operators.add(op)
        elif domain not in STANDARD_DOMAINS:
            rule = "operators of ONNX and of din_infer"
            raise _Refused(rule, f"{domain}::{op}", where)
        elif op in WITH_BODIES:
            if depth is None or not self._bodies:
                rule = "operators without bodies, as in every model of a spec"
                raise _Refused(rule, op, where)
            self.operators.add(op)
        elif op not in STANDARD:
            raise _Refused("an operator that din-convert writes", op or "none", where)
        for attribute in node.get("attribute", ()):
            kind = self._attribute(attribute, where, in_function=depth is None)
            if kind == "g":
                if op not in WITH_BODIES or domain == DOMAIN or depth is None:
                    rule = "no body but of " + ", ".join(sorted(WITH_BODIES))
                    raise _Refused(rule, op, where)
                start, stop = attribute["g"]
                self._graph(data, start, stop, depth + 1)
            elif kind == "t":
                name = (node.get("output") or [""])[0]
                kept = constants if op == "Constant" else {}
                self._tensor(attribute["t"], data, kept, name, where)
        if domain != DOMAIN and op in SIZED_BY:
            _check_sizes(node, constants, where)
        if domain != DOMAIN and op == "Einsum":
            _check_terms(node, data, where)

    def _attribute(
        self, attribute: dict[str, Any], where: str, *, in_function: bool
    ) -> str:
        """Check that an attribute has a value of its type alone; returns its field."""
        number = attribute.get("type", 0)
        where = f"{where}, attribute {attribute.get('name', '')}"
        if number not in HOLDS:
            rule = "numbers, texts, tensors and bodies as attributes"
            raise _Refused(rule, f"type {number}", where)
        wanted = HOLDS[number]
        if "of" in attribute:
            if not in_function:
                raise _Refused("references to attributes in functions", "one", where)
        elif wanted not in attribute and wanted in ("t", "g", "s", "i", "f"):
            raise _Refused(f"a value of type {number}", "none", where)
        for name in attribute:
            if name in VALUES and ("of" in attribute or name != wanted):
                raise _Refused(f"a value of type {number}", f"one of {name}", where)
        return "" if "of" in attribute else wanted

    def _tensor(
        self,
        tensor: dict[str, Any],
        data: Content,
        constants: dict[str, list[int]],
        name: str,
        where: str = "",
    ) -> None:
        """Check that a tensor has the bytes that its sizes say; keep small sizes."""
        is_initializer = not where
        where = where or f"tensor {name}"
        kind = tensor.get("type", 0)
        dims = list(_numbers(tensor.get("dims", ()), data))
        if kind not in SIZES and kind != STRINGS:
            raise _Refused("values of a common type", f"type {kind}", where)
        if not all(0 <= size <= LARGEST_SIZE for size in dims):
            raise _Refused(f"sizes in [0, {LARGEST_SIZE:,}]", dims, where)
        given = [k for k in ("typed", "raw", "external") if k in tensor]
        count = math.prod(dims)
        if len(given) > 1 or (not given and count):
            raise _Refused("values in one place", " and ".join(given) or "none", where)
        if "external" in tensor:
            if not is_initializer:  # older runtimes would read any file for it
                rule = "data files of the graph's own initializers"
                raise _Refused(rule, "one of a node", f"external data of {where}")
            entries = {e.get("key"): e.get("value", "") for e in tensor["external"]}
            if tensor.get("location") != 1 or not entries.keys() <= EXTERNAL:
                got = sorted(map(str, entries))
                raise _Refused("a place in a data file", got, where)
            wanted = count * SIZES.get(kind, 0)
            if entries.get("length") != str(wanted):
                rule = f"values of shape {dims}, {wanted:,} bytes"
                raise _Refused(rule, entries.get("length", "none"), where)
            return  # ModelFile compares it with what the file has
        if "raw" in tensor:
            start, end = tensor["raw"]
            if kind == STRINGS or end - start != count * SIZES[kind]:
                rule = f"values of shape {dims}"
                raise _Refused(rule, f"{end - start:,} bytes", where)
            if kind == INT64 and count <= MOST_AXES:
                raw = bytes(data[start:end])
                constants[name] = [
                    int.from_bytes(raw[i : i + 8], "little", signed=True)
                    for i in range(0, len(raw), 8)
                ]
        elif kind == INT64 and "typed" in tensor and count <= MOST_AXES:
            constants[name] = list(_numbers(tensor["typed"], data))


def _base(op: str) -> str:
    """Return an operator's name without the number of its signature."""
    base, _, number = op.partition("_")
    return base if not number or number.isdecimal() else op


def _longer(data: Content, at: int, first: int) -> tuple[int, int]:
    """Read the rest of a number whose first byte goes on."""
    value, shift = first & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without an end")


def _unknown(tag: int) -> NoReturn:
    raise _Refused(WRITTEN, f"field {tag >> 3} of wire type {tag & 7}, unknown here")


def _numbers(values: Any, data: Content) -> Iterator[int]:  # noqa: ANN401
    """Iterate over integers, packed or not."""
    for value in values:
        if isinstance(value, int):
            yield value
            continue
        at, end = value
        if end - at > MOST_AXES * 10:
            raise _Refused(f"at most {MOST_AXES} sizes", "more")
        while at < end:
            number, at = (
                _longer(data, at + 1, data[at])
                if data[at] > 0x7F
                else (
                    data[at],
                    at + 1,
                )
            )
            yield number - (1 << 64) if number >> 63 else number


def _check_terms(node: dict[str, Any], data: Content, where: str) -> None:
    """Refuse an equation of more inputs than there are: 1.20 reads beyond them."""
    attributes = {a.get("name"): a for a in node.get("attribute", ())}
    given: dict[str, Any] = attributes.get("equation", {})
    start, end = given.get("s", (0, 0))
    left, _, _ = bytes(data[start:end]).partition(b"->")
    terms, inputs = left.count(b",") + 1, len(node.get("input", ()))
    if terms != inputs:
        raise _Refused(f"an equation of {inputs} terms", terms, where)


def _check_sizes(
    node: dict[str, Any], constants: dict[str, list[int]], where: str
) -> None:
    """Refuse a node that makes more than `MOST_VALUES` of constants alone."""
    inputs = node.get("input", [])
    op = node["op"]
    if op == "Range":
        ends = [constants.get(name, []) for name in inputs[:3]]
        if len(ends) == 3 and all(len(v) == 1 for v in ends):
            (start,), (stop,), (step,) = ends
            if step and abs(stop - start) // abs(step) > MOST_VALUES:
                raise _Refused(f"at most {MOST_VALUES:,} values", "more", where)
        return
    at = SIZED_BY[op]
    sizes = constants.get(inputs[at], []) if at < len(inputs) else []
    if math.prod(max(1, abs(size)) for size in sizes) > MOST_VALUES:
        raise _Refused(f"at most {MOST_VALUES:,} values", sizes, where)

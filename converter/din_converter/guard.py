"""Guards: what is out of range is refused in every runtime, by standard operators.

The bodies of LocalActivation and EmbeddingBag check what they read; `Guard` is an
operator of its own, for what the tower reads and for requests. What a guard finds ends
in `Nodes.penalty`. Letters: B requests, N candidates, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from din_converter.nodes import Nodes, function_of
from din_infer.model_format import REQUESTS_OUTPUT
from din_infer.spec import Input

__all__ = [
    "Checked",
    "GuardOp",
    "add_count",
    "bad_lengths",
    "checked_attention",
    "checked_ids",
    "guard_function",
    "mask_of",
]


@dataclass(frozen=True)
class Checked:
    """Ids and requests, of which the bad ones are 0, and what tells of those.

    `valid` is the mask of behaviors [B, T]; "" where all positions count.
    """

    owners: str
    ids: list[str]
    candidate_ids: list[str]
    valid: str
    penalty: str


def checked_attention(
    g: Nodes, padding: str, num_fields: int, num_candidate_fields: int
) -> Checked:
    """Check what a LocalActivation is given, as the native operator does."""
    zero = g.constant(0)
    bad = g.outside("request_of_candidate", g.add("Shape", "ids_0", start=0, end=1))
    owners = g.kept(bad, "request_of_candidate")
    valid = ""
    if padding == "masked":
        valid = mask_of(g, "ids_0", "lengths")
    elif padding == "mask":
        valid = g.add("Equal", "mask", g.constant(1.0))
    ids, counts = [], []
    for i in range(num_fields):
        kept, count = checked_ids(g, f"ids_{i}", f"table_{i}", valid)
        ids.append(kept)
        counts.append(count)
    total = counts[0] if len(counts) == 1 else g.add("Sum", *counts)
    bad_requests = g.add("Greater", total, g.constant(0.0))
    if padding != "mask":
        bad_requests = g.add("Or", bad_requests, bad_lengths(g, "ids_0", "lengths"))
    bad = g.add("Or", bad, g.add("Gather", bad_requests, owners))
    candidate_ids = []
    for i in range(num_candidate_fields):
        name, rows = f"candidate_ids_{i}", f"candidate_table_{i}"
        wrong = g.outside(name, g.add("Shape", rows, start=0, end=1))
        candidate_ids.append(g.add("Where", wrong, zero, name))
        bad = g.add("Or", bad, wrong)
    return Checked(owners, ids, candidate_ids, valid, g.penalty(bad))


def checked_ids(g: Nodes, ids: str, table: str, valid: str) -> tuple[str, str]:
    """Make padding and bad ids 0, and count the bad ones per row, float32."""
    wrong = g.outside(ids, g.add("Shape", table, start=0, end=1))
    if valid:
        kept = g.add(
            "Where", g.add("And", valid, g.add("Not", wrong)), ids, g.constant(0)
        )
        wrong = g.add("And", valid, wrong)
    else:
        kept = g.kept(wrong, ids)
    wrong = g.add("Cast", wrong, to=TensorProto.FLOAT)
    return kept, g.add("ReduceSum", wrong, g.constant([1]), keepdims=0)


def bad_lengths(g: Nodes, ids: str, lengths: str) -> str:
    """Tell which lengths are not in [0, T]."""
    longest = g.add("Shape", ids, start=1, end=2)
    below = g.add("Less", lengths, g.constant(0))
    return g.add("Or", below, g.add("Greater", lengths, longest))


def mask_of(g: Nodes, ids: str, lengths: str) -> str:
    """Position < length, bool [rows, T]."""
    size = g.add("Shape", ids, start=1, end=2)
    positions = g.add(
        "Range", g.constant(0), g.add("Squeeze", size, g.constant([0])), g.constant(1)
    )
    return g.add("Less", positions, g.add("Unsqueeze", lengths, g.constant([1])))


@dataclass(frozen=True)
class GuardOp:
    """The check of what no other operator checks: its attributes and inputs, in order.

    `fields` has the names and the table rows of ids per request, then per candidate, of
    which the first `num_user_fields` are per request. `requests` names two inputs that
    tell B: one with a value for each request, and the ids that those are lengths of; in
    most models a user field is both. It is empty where nothing is per request.
    """

    fields: tuple[tuple[str, int], ...]
    num_user_fields: int
    requests: tuple[str, ...]

    @classmethod
    def of(cls, inputs: Sequence[Input]) -> "GuardOp":
        """Describe the guard of a spec's inputs."""
        user, candidate = (
            [(i.name, i.rows) for i in inputs if i.shape == (side,) and i.rows]
            for side in ("B", "N")
        )
        requests: tuple[str, ...] = ()
        mine = [i for i in inputs if i.shape[0] == "B" and i.dtype != "int64"]
        ragged = [i for i in inputs if i.shape[0] == "B" and i.lengths is not None]
        if user:
            requests = (user[0][0], user[0][0])
        elif ragged:
            requests = (str(ragged[0].lengths), ragged[0].name)
        elif mine:
            requests = (mine[0].name, mine[0].name)
        return cls((*user, *candidate), len(user), requests)

    @property
    def attributes(self) -> dict[str, Any]:
        """What a native kernel must know besides its inputs."""
        return {
            "fields": "\n".join(f"{rows} {name}" for name, rows in self.fields),
            "num_user_fields": self.num_user_fields,
            "has_requests": int(bool(self.requests)),
        }

    @property
    def values(self) -> list[str]:
        """Names of the graph's inputs that are the op's."""
        of_requests = self.requests or ("request_of_candidate",) * 2
        return ["request_of_candidate", *of_requests, *(n for n, _ in self.fields)]


def guard_function(name: str, op: GuardOp) -> onnx.FunctionProto:
    """Write Guard: (request_of_candidate [N], what tells B, ids ..) -> penalty [N].

    Zeros, to be added to the logit. An id of a candidate or of its request outside its
    table, a request outside [0, B), and a last request without a candidate are errors,
    or NaN: see `Nodes.penalty`. The last tells of calls that were joined on their first
    axis: their requests are still counted from 0, so that the highest is missing.
    """
    g = Nodes()
    ids = [f"ids_{i}" for i in range(len(op.fields))]
    wrong = [
        g.outside(x, g.constant(rows))
        for x, (_, rows) in zip(ids, op.fields, strict=True)
    ]
    bad = ""

    def also(condition: str) -> None:
        nonlocal bad
        bad = g.add("Or", bad, condition) if bad else condition

    if op.requests:
        request = "request_of_candidate"
        count = g.add("Shape", "requests", start=0, end=1)
        also(g.outside(request, count))
        owners = g.kept(bad, request)
        for condition in wrong[: op.num_user_fields]:
            also(g.add("Gather", condition, owners))
        some = g.add("Concat", owners, g.constant([-1]), axis=0)  # never empty
        highest = g.add("ReduceMax", some, g.constant([0]), keepdims=1)
        last = g.add("Sub", count, g.constant([1]))
        also(g.add("Not", g.add("Equal", highest, last)))
    for condition in wrong[op.num_user_fields :]:
        also(condition)
    g.add("Identity", g.penalty(bad), out="penalty")
    inputs = ["request_of_candidate", "requests", "rows", *ids]
    return function_of(name, inputs, ["penalty"], g, op.attributes)


def add_count(g: Nodes, op: GuardOp) -> onnx.ValueInfoProto:
    """Add the output that tells B, [1]: returns its description.

    It is of a fixed shape: a server that joins calls where all inputs and outputs have
    a first axis of any size does not.
    """
    g.add("Shape", op.requests[0], start=0, end=1, out=REQUESTS_OUTPUT)
    return helper.make_tensor_value_info(REQUESTS_OUTPUT, TensorProto.INT64, [1])

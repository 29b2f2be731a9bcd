"""The proof that an ONNX file computes what torch computes.

Adversarial batches of encoded ids go through torch in float64 and through ONNX Runtime;
golden rows of raw values go into the file for every later load to check.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from din_converter.model import ClickModel
from din_converter.precision import computing_in
from din_infer.contract import golden_inputs
from din_infer.errors import ConversionError, InputError
from din_infer.model_format import TOLERANCE, WEIGHT_SUFFIX
from din_infer.session import Session
from din_infer.spec import ANY_LENGTH, Encoder, FeatureSpec, Scale

__all__ = [
    "Case",
    "check_parity",
    "edge_batches",
    "golden_row",
    "golden_rows",
    "open_way",
    "ways",
]

GOLDEN_LENGTH = 200  # the longest golden history: it lies in the file as text
CHECKED_LENGTH = 10  # of a model that takes any
Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """One compared batch: its shape in words, and the largest differences found.

    `way` is how ONNX Runtime ran it: "native" ops, or "function bodies".
    """

    name: str
    way: str
    rows: int
    logit_difference: float
    score_difference: float


def edge_batches(spec: FeatureSpec, seed: int = 0) -> Iterator[tuple[str, Inputs]]:
    """Yield named batches of encoded inputs that reach every corner of the shapes.

    N and B of 0, 1, 2 and many; T of 0, 1 and max; all, some and no histories empty;
    candidates that repeat; ids 0 and the last row of every table.
    """
    rng = np.random.default_rng(seed)
    shapes = [(0, 0), (0, 1), (1, 1), (2, 1), (2, 2), (7, 3), (64, 64), (33, 2)]
    lengths = ("zero", "one", "max", "mixed")
    for (n, b), kind in itertools.product(shapes, lengths):
        yield f"N={n} B={b} T={kind}", random_inputs(spec, rng, n, b, kind)
    inputs = random_inputs(spec, rng, 16, 4, "mixed")
    for i in spec.inputs:
        if i.shape[0] == "N" and i.name != "request_of_candidate":
            inputs[i.name] = np.repeat(inputs[i.name][:1], 16, axis=0)
    yield "N=16 B=4 one candidate repeated", inputs
    for name, edge in (("first", 0), ("last", -1)):
        inputs = random_inputs(spec, rng, 8, 8, "mixed")
        for i in spec.inputs:
            if i.rows is not None:
                inputs[i.name] = np.full_like(inputs[i.name], edge % i.rows)
        yield f"N=8 B=8 {name} row of every table", inputs


def random_inputs(
    spec: FeatureSpec, rng: np.random.Generator, n: int, b: int, kind: str
) -> Inputs:
    """Make one batch; `kind` says how long the histories are."""
    sizes = {"N": n, "B": b}
    out: Inputs = {}
    for s in (*spec.behavior, *spec.multi_hot):
        max_len = CHECKED_LENGTH if s.max_len == ANY_LENGTH else s.max_len
        rows = b if s.side == "user" else n
        fixed = {"zero": 0, "one": min(1, max_len), "max": max_len}.get(kind)
        if fixed is None:
            lengths = rng.integers(0, max_len + 1, rows)
            lengths[: rows // 4] = 0
        else:
            lengths = np.full(rows, fixed, np.int64)
        out[s.lengths] = lengths
    for i in spec.inputs:
        if i.name == "request_of_candidate":
            in_order = n == b
            roc = np.arange(n) if in_order else rng.integers(0, max(b, 1), n)
            roc[n - 1 :] = max(b - 1, 0)  # the last request has a candidate
            out[i.name] = roc.astype(np.int64)
        elif i.rows is not None and i.lengths is not None:
            lengths = out[i.lengths]
            longest = int(lengths.max(initial=0))
            shape = (sizes[str(i.shape[0])], i.fixed_length or longest)
            ids = rng.integers(0, i.rows, shape)
            ids[np.arange(shape[1]) >= lengths[:, None]] = 0
            out[i.name] = ids
        elif i.rows is not None:
            out[i.name] = rng.integers(0, i.rows, sizes[str(i.shape[0])])
        elif i.dtype == "float32":
            shape = (sizes[str(i.shape[0])], int(i.shape[1]))
            out[i.name] = rng.normal(size=shape).astype(np.float32)
    return {i.name: out[i.name] for i in spec.inputs}


def torch_logits(model: ClickModel, inputs: Mapping[str, NDArray[Any]]) -> Any:  # noqa: ANN401
    """Logits of a float64 model in evaluation mode, float64 [N]."""
    with torch.inference_mode():
        return model({k: torch.from_numpy(v) for k, v in inputs.items()}).numpy()


def torch_weights(
    model: ClickModel, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Activation weights of a float64 model per sequence, float64 [N, T]."""
    with torch.inference_mode():
        tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
        weights = model.activation_weights(tensors)
        return {name: weight.numpy() for name, weight in weights.items()}


def link(spec: FeatureSpec, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Calibrate and link logits to scores, in float64."""
    z = spec.calibration.scale * logits + spec.calibration.offset
    if spec.model.link == "identity":
        return z
    # 1 / (1 + exp(-z)), without overflow and without a difference from 1
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def check_parity(model: ClickModel, path: Path, *, inlined: bool = False) -> list[Case]:
    """Compare `path` with a float64 model on every edge batch, in every way it can run.

    `inlined` says that it has no functions, which native operators could replace.

    Returns
    -------
    list of Case
        One per batch and way, the largest differences in each.

    Raises
    ------
    ConversionError
        If a logit differs by more than 1e-5 · max(1, |logit|) or the graph's own score
        by more than 1e-5; names the batch, the way, the row and both values.
    """
    truth = [torch_logits(model, inputs) for _, inputs in edge_batches(model.spec)]
    return [
        case
        for way in ways(path, inlined=inlined)
        for case in _check_way(model, truth, way, open_way(path, way))
    ]


def _check_way(
    model: ClickModel, truth: list[NDArray[np.float64]], way: str, session: Session
) -> list[Case]:
    """Compare a session with what torch gave for every edge batch."""
    explained = [o for o in session.output_names if o.endswith(WEIGHT_SUFFIX)]
    relative = model.spec.model.link == "identity"
    cases = []
    for (name, inputs), wanted in zip(edge_batches(model.spec), truth, strict=True):
        linked = link(model.spec, wanted)
        bound = np.maximum(1.0, np.abs(linked)) if relative else np.ones_like(linked)
        shown = torch_weights(model, inputs) if explained else {}
        place = f"{name}, {way}"
        logits, scores, *weights = session.run(inputs, ("logit", "score", *explained))
        for output, weight in zip(explained, weights, strict=True):
            right = shown[output.removesuffix(WEIGHT_SUFFIX)]
            unit = np.maximum(1.0, np.abs(right))
            _check(place, output, weight.ravel(), right.ravel(), unit.ravel())
        try:
            _check(place, "logit", logits, wanted, np.maximum(1.0, np.abs(wanted)))
        except ConversionError as error:
            single = torch_logits(computing_in(torch.float32, model), inputs)
            off = float(np.abs(single - wanted).max(initial=0.0))
            more = f"torch in float32 is itself off by up to {off:.1e} in this"
            raise error.at(fix=f"{more} batch.") from None
        _check(place, "score", scores, linked, bound)
        cases.append(
            Case(
                name,
                way,
                len(logits),
                float(np.abs(logits - wanted).max(initial=0.0)),
                float(np.abs(scores - linked).max(initial=0.0)),
            )
        )
    return cases


def ways(path: Path, *, inlined: bool = False) -> tuple[str, ...]:
    """Name every way in which this build can run a model."""
    if inlined:
        return ("function bodies",)
    native = ("native",) if open_way(path, "native").fused else ()
    return (*native, "function bodies")


def open_way(path: Path, way: str) -> Session:
    """Open a model to run it in one way: each session maps the tables once more."""
    return Session(path, device="cpu", fused=way == "native")


def _check(
    name: str,
    label: str,
    got: NDArray[np.float32],
    wanted: NDArray[np.float64],
    unit: NDArray[np.float64],
) -> None:
    if got.shape != wanted.shape:
        rule = f"{label} of shape {list(wanted.shape)}"
        raise ConversionError(rule, list(got.shape), f"batch {name}")
    difference = np.abs(got - wanted) / unit
    # not (a <= b), so that a NaN is a difference too
    if not (difference <= TOLERANCE).all():
        row = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        rule = f"a {label} within {TOLERANCE:g} of torch's {wanted[row]:.9g}"
        raise ConversionError(rule, f"{got[row]:.9g}", f"batch {name}, row {row}")


def golden_rows(model: ClickModel) -> str:
    """Make a few raw rows, what they are encoded to, and their float64 scores.

    As JSON {rows, inputs, scores}; `inputs` has a value per row, of lists those that
    are no padding.
    """
    spec = model.spec
    rows = []
    for k in range(6):
        row = golden_row(spec, k)
        try:
            spec.encode([row])
        except InputError:
            continue  # columns that serve several fields may allow few values
        rows.append(row)
    if not rows:
        rule = "a spec for which raw rows can be made"
        raise ConversionError(rule, "none that it accepts", "spec")
    made = spec.encode(rows)
    inputs = golden_inputs(spec, made)
    scores = [float(s) for s in link(spec, torch_logits(model, made))]
    return json.dumps({"rows": rows, "inputs": inputs, "scores": scores})


def golden_row(spec: FeatureSpec, k: int) -> dict[str, Any]:
    """Row k: 0 has empty histories, 1 single ones, 2 the longest, 3 a null.

    All lists of a row are equally long: sequences may share a column or its length.
    """
    lists = (*spec.behavior, *spec.multi_hot)
    longest = min(max((s.max_len for s in lists), default=0) + 3, GOLDEN_LENGTH)
    length = longest if k == 2 else k
    dense = {d.column: d for d in spec.dense}
    row: dict[str, Any] = {}
    for c in sorted(spec.reads, key=lambda c: not c.is_length):
        value: Any
        if c.is_length:
            value = length
        elif c.encoder is None:
            values = [round(0.25 * k - 0.5 * j, 3) for j in range(c.size or 0)]
            values = _unscaled(dense[c.name].scale, values, k)
            value = values if c.is_list else values[0]
        elif c.is_list:
            times = range(length)
            value = [_raw(c.encoder, c.dtype, 7 * k + t + 1) for t in times]
        else:
            null = k == 3 and c.name not in dense
            value = None if null else _raw(c.encoder, c.dtype, k)
        row.setdefault(c.name, value)
    return row


def _unscaled(scale: Scale | None, values: list[float], k: int) -> list[float]:
    """Return raw values that a scale makes of the size of these."""
    if scale is None or scale.type == "none":
        return values
    if scale.type == "quantile":
        return [own[k % len(own)] for own in scale.boundaries]
    parts = zip(values, scale.low, scale.spread, strict=True)
    raw = [low + value * spread for value, low, spread in parts]
    if scale.type == "log1p":
        return [math.copysign(math.expm1(min(abs(x), 700.0)), x) for x in raw]
    return raw


def _raw(encoder: Encoder, dtype: str, k: int) -> str | int | float:
    if encoder.type == "vocab" and encoder.values:
        return encoder.values[k % len(encoder.values)]
    if encoder.type == "identity":
        return 1 + k % max(encoder.rows - 1, 1) if encoder.rows > 1 else 0
    if encoder.type == "bucketize":
        value = (encoder.boundaries or (0.0,))[k % max(len(encoder.boundaries), 1)]
        if dtype != "int64":
            return value
        return min(max(int(value), -(2**63)), 2**63 - 1)  # boundaries may lie beyond
    if dtype == "float":
        return 0.5 * k
    return f"golden-{k}" if dtype == "string" else k

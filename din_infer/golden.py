"""Golden rows: what a model must compute on this machine before anything else.

A model file holds raw rows and the scores that torch gave for them; a torch module's
file holds its example inputs and their outputs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.encoded import check_inputs
from din_infer.errors import InputError, ModelError
from din_infer.link import link_in_place
from din_infer.session import Session
from din_infer.slicing import run_in_slices
from din_infer.spec import FeatureSpec, Input

__all__ = ["Golden", "check_golden", "read_golden"]

GOLDEN_TOLERANCE = {"fp32": 1e-5, "tf32x3": 1e-5, "tf32": 5e-3, "bf16": 2e-2}
FIX = "The file is damaged, or this machine computes something else."
# What json, NumPy and a spec raise of content that has another form.
UNREADABLE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Golden:
    """Inputs of a graph, and what they give: a spec's scores, or a module's outputs."""

    inputs: Mapping[str, NDArray[Any]]
    wanted: Sequence[NDArray[np.float64]]


def read_golden(
    text: str, spec: FeatureSpec | None, inputs: Sequence[Input], place: str
) -> Golden:
    """Read golden rows of a spec, or the example of a torch module that has `inputs`.

    Raises
    ------
    ModelError
        If they are not what din-convert writes, or do not fit.
    """
    if spec is None:
        try:
            golden = json.loads(text)
            given = golden["inputs"]
            arrays = {i.name: np.asarray(given[i.name], i.dtype) for i in inputs}
            outputs = [np.asarray(w, np.float64) for w in golden["outputs"]]
            return Golden(check_inputs(inputs, arrays), outputs)
        except UNREADABLE as error:
            raise ModelError("a golden example", error, place) from None
    try:
        golden = json.loads(text)
        rows, wanted = golden["rows"], np.asarray(golden["scores"], np.float64)
        count = len(rows)
    except UNREADABLE as error:
        raise ModelError("golden rows", error, place) from None
    if count == 0 or wanted.shape != (count,):
        rule = "golden rows, and one score for each"
        got = f"{count} rows and scores of shape {list(wanted.shape)}"
        raise ModelError(rule, got, place)
    try:
        return Golden(spec.encode(rows), [wanted])
    except InputError as error:
        raise ModelError("golden rows of its spec", error, place) from None


def check_golden(
    golden: Golden, session: Session, spec: FeatureSpec | None, place: str
) -> None:
    """Compute golden rows, and compare the scores with those in the file.

    Raises
    ------
    ModelError
        If one differs by more than 1e-5, or what the precision allows.
    """
    tolerance = GOLDEN_TOLERANCE[session.precision]
    if spec is None:
        names = session.output_names
        made = session.run(golden.inputs, names)
        for name, output, right in zip(names, made, golden.wanted, strict=False):
            if output.shape == right.shape:
                unit = np.maximum(1.0, np.abs(right))
                near = np.abs(output - right) <= tolerance * unit
                if (near | (np.isnan(output) & np.isnan(right))).all():
                    continue
            rule = f"the golden output {name} within {tolerance:g}"
            raise ModelError(rule, "another", place, FIX)
        return
    (wanted,) = golden.wanted
    (scores,) = run_in_slices(session, spec, golden.inputs, ["logit"])
    if scores.dtype != np.float32 or scores.shape != wanted.shape:
        got = f"{scores.dtype} {scores.shape}"
        raise ModelError(f"float32 logits [{len(wanted)}]", got, place)
    try:
        link_in_place(spec, scores, False)
    except InputError as error:
        raise ModelError("golden rows of its spec", error, place) from None
    bound = np.full(len(wanted), tolerance)
    if spec.model.link != "sigmoid":
        bound *= np.maximum(1.0, np.abs(wanted))
    wrong = ~(np.abs(scores - wanted) <= bound)
    if wrong.any():
        worst = int(np.argmax(wrong))
        rule = f"the golden score {wanted[worst]:.9g} within {tolerance:g}"
        raise ModelError(rule, f"{scores[worst]:.9g}", place, FIX)

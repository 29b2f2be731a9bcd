"""What a model takes and gives, read and checked before a runtime sees the model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.encoded import check_inputs, read_inputs
from din_infer.errors import InputError, ModelError
from din_infer.model_file import ModelFile
from din_infer.model_format import GOLDEN_KEY, INPUTS_KEY, RAW_KEY, SPEC_KEY
from din_infer.spec import FeatureSpec, Input

__all__ = ["Contract", "golden_inputs"]

Arrays = Mapping[str, NDArray[Any]]
# What json, NumPy and a spec raise of content that has another form.
UNREADABLE = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
# A row of dense values is as long as the spec says, whatever it holds; so is one of ids
# where padding is attended.
MOST_GOLDEN = 1 << 22
OTHER_IDS = "The file is damaged, or this build encodes otherwise than its converter."


@dataclass(frozen=True)
class Contract:
    """What a model says of itself; of a torch module, `spec` is None.

    `outputs` names the graph's outputs. `golden` are inputs, and `wanted` is what torch
    gave for them: scores of the spec's rows, float64 [N]; or all outputs of a module.
    Golden rows of a spec are encoded here, and compared with the ids in the file.
    """

    place: str
    spec: FeatureSpec | None
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    golden: Arrays
    wanted: Sequence[NDArray[np.float64]]

    @classmethod
    def read(cls, file: ModelFile) -> "Contract":
        """Read and check the metadata of a model.

        Raises
        ------
        ModelError
            If there is no spec that this version reads; if the graph has other inputs,
            or lacks an output; if there are no golden rows, they do not fit, or they
            are encoded otherwise than when the model was converted.
        """
        place, metadata = file.place, file.metadata
        if RAW_KEY in metadata:
            rule = "a graph of ids, which is encoded for here"
            got = "one of raw values, which din-convert --raw wrote"
            fix = (
                "Convert the model without --raw for Predictor and the commands; ONNX"
                " Runtime itself runs this one, with the native operators."
            )
            raise ModelError(rule, got, place, fix)
        found, outputs = tuple(file.header.inputs), tuple(file.header.outputs)
        spec = None
        if SPEC_KEY in metadata:
            spec = file.spec
            inputs = spec.inputs
        elif INPUTS_KEY in metadata:
            inputs = read_inputs(metadata[INPUTS_KEY], f"{place}: {INPUTS_KEY}")
        else:
            raise ModelError("a spec in the model", "none", f"{place}: {SPEC_KEY}")
        names = tuple(i.name for i in inputs)
        if found != names:
            rule = "the graph inputs " + ", ".join(names)
            raise ModelError(rule, ", ".join(found), place)
        if spec is not None and not {"logit", "score"} <= set(outputs):
            rule = "the graph outputs logit and score"
            raise ModelError(rule, ", ".join(outputs), place)
        golden = _golden(metadata.get(GOLDEN_KEY, ""), spec, inputs, place)
        return cls(place, spec, inputs, outputs, *golden)


def _golden(
    text: str, spec: FeatureSpec | None, inputs: Sequence[Input], place: str
) -> tuple[Arrays, list[NDArray[np.float64]]]:
    """Read golden rows of a spec, or the example of a module that has `inputs`."""
    place = f"{place}: {GOLDEN_KEY}"
    try:
        golden = json.loads(text)
        if spec is None:
            given = golden["inputs"]
            arrays = {i.name: np.asarray(given[i.name], i.dtype) for i in inputs}
            outputs = [np.asarray(w, np.float64) for w in golden["outputs"]]
            return check_inputs(inputs, arrays), outputs
        rows, wanted = golden["rows"], np.asarray(golden["scores"], np.float64)
        count = len(rows)
    except UNREADABLE as error:
        rule = "golden rows" if spec is not None else "a golden example"
        raise ModelError(rule, error, place) from None
    if count == 0 or wanted.shape != (count,):
        got = f"{count} rows and scores of shape {list(wanted.shape)}"
        raise ModelError("golden rows, and one score for each", got, place)
    values = count * sum(_least_values(i) for i in inputs)
    if values > MOST_GOLDEN:
        rule = f"golden rows of at most {MOST_GOLDEN:,} values"
        raise ModelError(rule, values, place)
    try:
        made = spec.encode(rows)
    except InputError as error:
        raise ModelError("golden rows of its spec", error, place) from None
    if "inputs" in golden:
        _check_encoded(spec, made, golden["inputs"], place)
    return made, [wanted]


def _least_values(i: Input) -> int:
    """Count the values of a row that holds nothing."""
    return prod(n for n in (*i.shape, i.fixed_length) if isinstance(n, int))


def golden_inputs(spec: FeatureSpec, made: Arrays) -> dict[str, list[Any]]:
    """Return what rows were encoded to: by input a value per row, of lists unpadded."""
    found = {}
    for i in (i for i in spec.inputs if i.name != "request_of_candidate"):
        values = made[i.name].tolist()
        if i.lengths is not None:
            kept = zip(values, made[i.lengths], strict=True)
            values = [ids[:count] for ids, count in kept]
        found[i.name] = values
    return found


def _check_encoded(
    spec: FeatureSpec,
    made: Arrays,
    wanted: Any,  # noqa: ANN401
    place: str,
) -> None:
    """Raise ModelError where golden rows have other ids than when it was converted.

    `wanted` has, by the name of an input, a value per row; of lists, one per element.
    """
    pairs = []
    try:
        for name, values in golden_inputs(spec, made).items():
            rows = enumerate(zip(values, wanted[name], strict=True))
            pairs += [(name, row, got, right) for row, (got, right) in rows]
    except UNREADABLE as error:
        raise ModelError("the ids of golden rows", error, place) from None
    for name, row, got, right in pairs:
        if got != right:
            rule = f"the golden ids of `{name}`, {right}"
            raise ModelError(rule, got, place, OTHER_IDS, row=row)

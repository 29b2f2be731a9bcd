"""Golden rows: a model must score them as torch did, or it is not loaded."""

import numpy as np

from din_infer.errors import InputError, ModelError
from din_infer.link import link_in_place
from din_infer.model_format import GOLDEN_KEY, GOLDEN_TOLERANCE
from din_infer.session import Session
from din_infer.slicing import run_in_slices

__all__ = ["check_golden"]

FIX = "The file is damaged, or this machine computes something else."


def check_golden(session: Session) -> None:
    """Compute the golden rows of a model, or a torch module's example outputs.

    Raises
    ------
    ModelError
        If a value differs by more than `GOLDEN_TOLERANCE` allows.
    """
    contract = session.contract
    spec, place = contract.spec, f"{contract.place}: {GOLDEN_KEY}"
    tolerance = GOLDEN_TOLERANCE[session.precision]
    if spec is None:
        names = session.output_names
        made = session.try_out(contract.golden, names)
        for name, output, right in zip(names, made, contract.wanted, strict=False):
            if output.shape == right.shape:
                same = (output == right) | (np.isnan(output) & np.isnan(right))
                unit = np.maximum(1.0, np.abs(right))
                with np.errstate(invalid="ignore"):  # infinity less itself
                    near = np.abs(output - right) <= tolerance * unit
                if (same | near).all():
                    continue
            rule = f"the golden output {name} within {tolerance:g}"
            raise ModelError(rule, "another", place, FIX)
        return
    (wanted,) = contract.wanted
    (scores,) = run_in_slices(session, spec, contract.golden, ["logit"])
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

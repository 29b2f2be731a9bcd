"""From logits to scores, in one place for every way to score.

The graph's own output `score` is float32 throughout: the runtime's sigmoid is noise
below 1e-6, and 0 from a logit of -18 down. Here the calibrated logit and its link are
float64, rounded once.
"""

import numpy as np
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer.errors import InputError, report
from din_infer.spec import FeatureSpec

__all__ = ["link_in_place"]

FIX = "A value of the row, or a weight it meets, is too large for float32."


def link_in_place(
    spec: FeatureSpec,
    logits: NDArray[np.float32],
    raw: bool,
    errors: list[InputError] | None = None,
) -> None:
    """Turn the graph's logits into scores: ``link(scale * logit + offset)``.

    Parameters
    ----------
    spec : FeatureSpec
        Says the link and the calibration.
    logits : float32 [N], C-contiguous
        Become the scores; with `raw` they are checked and stay.
    raw : bool
    errors : list, optional
        Takes an error for every row whose logit or score is NaN or infinite; without
        it the first raises. The logits are then of no use.

    Raises
    ------
    InputError
        Naming the row, as above.

    Notes
    -----
    A sigmoid is within 1e-7, relative, of float64's where it is at least 1.2e-38, the
    smallest normal float32; below it is within 1e-45.
    """
    kind = "none" if raw else spec.model.link
    scale, offset = spec.calibration.scale, spec.calibration.offset
    count = len(logits)
    start = 0
    while start < count:
        found = _kernels.link(logits[start:], kind, scale, offset)
        if found < 0:
            return
        row = start + found
        name, got = "logit", float(logits[row])
        if np.isfinite(got):
            name, got = "score", scale * got + offset
        rule = f"a {name} that is finite in float32"
        report(InputError(rule, f"{got:.9g}", name, FIX, row=row), errors)
        start = row + 1

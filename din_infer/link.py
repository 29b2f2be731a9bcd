"""From logits to scores, in one place for every way to score.

The graph's own output `score` is float32 throughout: the runtime's sigmoid is noise
below 1e-6, and 0 from a logit of -18 down. Here the calibrated logit and its link are
float64, rounded once.
"""

import numpy as np
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer.errors import InputError
from din_infer.spec import FeatureSpec

__all__ = ["PLACES", "link_in_place"]

PLACES = ("logit", "score")  # what is said to be wrong: no field has such a name
FIX = "A value of the row, or a weight it meets, is too large for float32."


def link_in_place(spec: FeatureSpec, logits: NDArray[np.float32], raw: bool) -> None:
    """Turn the graph's logits into scores: ``link(scale * logit + offset)``.

    Parameters
    ----------
    spec : FeatureSpec
        Says the link and the calibration.
    logits : float32 [N], C-contiguous
        Become the scores; with `raw` they are checked and stay.
    raw : bool

    Raises
    ------
    InputError
        Naming the first row whose logit or score is NaN or infinite. The logits are
        then of no use.

    Notes
    -----
    A sigmoid is within 1e-7, relative, of float64's where it is at least 1.2e-38, the
    smallest normal float32; below it is within 1e-45.
    """
    kind = "none" if raw else spec.model.link
    scale, offset = spec.calibration.scale, spec.calibration.offset
    row = _kernels.link(logits, kind, scale, offset)
    if row < 0:
        return
    (name, other), got = PLACES, float(logits[row])
    if np.isfinite(got):
        name, got = other, scale * got + offset
    rule = f"a {name} that is finite in float32"
    raise InputError(rule, f"{got:.9g}", name, FIX, row=row)

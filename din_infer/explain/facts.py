"""What an explanation consists of, and the figures that its views share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from din_infer.formatting import label, number

__all__ = ["ExplainedRow", "ExplainedSequence", "Scale", "largest", "summary"]


@dataclass(frozen=True, eq=False)
class ExplainedSequence:
    """The behaviors of one sequence that the model saw in one row, oldest first.

    Attributes
    ----------
    name : str
        The sequence's.
    columns : dict of list
        Per column of the sequence, the raw value of each behavior; null is None.
    indices : list of int
        The place of each behavior in the caller's list.
    weights : float32 [behaviors]
        The activation weight of each behavior.
    padding : float32 [T - behaviors]
        Of a sequence with ``padding = "attended"``: the weights of the padding behind
        the behaviors, which such a model counts too. Empty otherwise.
    num_given : int
        Elements in the caller's list.
    """

    name: str
    columns: dict[str, list[Any]]
    indices: list[int]
    weights: NDArray[np.float32]
    padding: NDArray[np.float32]
    num_given: int

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> list[str]:
        """The values of each behavior in one line of text."""
        values = zip(*self.columns.values(), strict=True)
        return [label(behavior) for behavior in values]


@dataclass(frozen=True, eq=False)
class ExplainedRow:
    """One scored row: one candidate of one request.

    Attributes
    ----------
    number : int
        The row in what was explained.
    request : int
        Rows of the same request have the same number.
    score : float
        What `Predictor.score` gives.
    name : str
        The values of the candidate's fields in one line of text.
    candidate, user : dict
        The raw values of the candidate's side, and of the user's but for its behaviors.
    sequences : tuple of ExplainedSequence
        In the order of the spec.
    """

    number: int
    request: int
    score: float
    name: str
    candidate: dict[str, Any]
    user: dict[str, Any]
    sequences: tuple[ExplainedSequence, ...]


def largest(weights: NDArray[np.float32], count: int) -> list[int]:
    """Find the positions of the `count` largest weights, either sign, in time order."""
    return sorted(np.argsort(-np.abs(weights), kind="stable")[:count].tolist())


class Scale:
    """The range of the weights that a view shows together, zero included."""

    def __init__(self, *weights: NDArray[np.float32]) -> None:
        self.low = min([0.0, *(float(w.min(initial=0)) for w in weights)])
        self.high = max([0.0, *(float(w.max(initial=0)) for w in weights)])
        self.span = (self.high - self.low) or 1.0
        self.peak = max(self.high, -self.low)  # the largest absolute weight

    def share(self, weight: float) -> float:
        """Return the share that the size of a weight has of the largest."""
        return abs(weight) / self.peak if self.peak else 0.0

    def number(self, weight: float) -> str:
        """Show a weight; all of a scale have the same decimals."""
        return number(weight, self.peak)


def summary(sequence: ExplainedSequence) -> str:
    """Say how many behaviors there are, and how many were given."""
    count = len(sequence)
    if not count:
        return "no behaviors"
    given = "" if count == sequence.num_given else f" of {sequence.num_given} given"
    return f"{count} behavior{'s'[: count > 1]}{given}"

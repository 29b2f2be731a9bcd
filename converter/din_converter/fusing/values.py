"""What a value of a graph can be as a function of one (candidate, behavior) pair."""

from collections.abc import Callable
from dataclasses import dataclass

from din_converter.fusing.algebra import Form, Unsupported
from din_converter.fusing.layout import Axes, Rows

__all__ = [
    "TWO_MASKS",
    "Condition",
    "Leaf",
    "Piece",
    "Soft",
    "Value",
    "Weighted",
    "common_mask",
    "negation",
]


TWO_MASKS = "two different masks: join them before (mask & other), and use that alone"


@dataclass(frozen=True)
class Leaf:
    """The source of features: rows of `table` at `ids`, or a value as it is."""

    number: int
    value: str
    axes: Axes
    size: int
    table: str = ""
    ids: str = ""

    @property
    def has_positions(self) -> bool:
        """Whether it is a behavior's (it has T), or a candidate's."""
        return any("T" in axis for axis in self.axes)

    @property
    def is_number(self) -> bool:
        """Whether it is one computed number per pair, as a float mask is."""
        return self.size == 1 and not self.table


def negation(mask: str) -> str:
    """Name the opposite of a mask."""
    return mask.removeprefix("~") if mask.startswith("~") else "~" + mask


@dataclass(frozen=True)
class Piece:
    """Floats: `on` where `mask` holds, `off` where it does not; `on` without a mask.

    A mask is a value's name, or that of its negation with "~" in front.
    """

    axes: Axes
    on: Form
    off: Form | None = None
    mask: str = ""

    def branch(self, mask: str) -> tuple[Form, Form]:
        """Return (on, off) under a mask."""
        if self.mask in ("", mask):
            return self.on, self.on if self.off is None else self.off
        if self.mask == negation(mask) and self.off is not None:
            return self.off, self.on
        raise Unsupported(TWO_MASKS)

    def map(self, f: Callable[[Form], Form], axes: Axes | None = None) -> "Piece":
        """Apply a function of forms to both branches."""
        off = None if self.off is None else f(self.off)
        return Piece(self.axes if axes is None else axes, f(self.on), off, self.mask)

    def take(self, rows: Rows, axes: Axes) -> "Piece":
        """Take rows of both branches, laid out as `axes`."""
        return self.map(lambda form: form.take(rows), axes)

    def alive(self) -> "Piece":
        """Return the piece under the negated mask if only that leaves something."""
        if self.off is None or not self.on.is_constant() or self.off.is_constant():
            return self
        return Piece(self.axes, self.off, self.on, negation(self.mask))

    @property
    def is_scalar(self) -> bool:
        """Whether there is one value per pair."""
        return self.on.size == 1


def common_mask(*pieces: Piece) -> str:
    """Name the one mask of some pieces, or "" where none has one."""
    masks = {p.mask.removeprefix("~"): p.mask for p in pieces if p.mask}
    if len(masks) > 1:
        raise Unsupported(TWO_MASKS)
    return next(iter(masks.values()), "")


@dataclass(frozen=True)
class Condition:
    """Booleans per pair: where `mask` holds.

    `difference` is set where it was made by comparing features: it holds where that is
    above 0.
    """

    axes: Axes
    mask: str
    difference: Form | None = None
    empty_of: int | None = None  # holds where softmax number .. is NaN
    never: bool = False  # holds nowhere


@dataclass(frozen=True)
class Weighted:
    """Weights times behaviors, before the sum over T."""

    axes: Axes
    weight: Piece
    behavior: Piece


@dataclass
class Soft:
    """A softmax over T: of `score`, where `mask` holds.

    `empty` is the kind of weights where the mask holds nowhere: "uniform", "nan",
    "unknown", or "none" where there is no mask.
    """

    score: Form
    mask: str
    empty: str


Value = Piece | Condition | Weighted

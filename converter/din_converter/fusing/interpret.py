"""What each value of a graph is, as a function of one (candidate, behavior) pair.

`Reader.value` reads a value backward to where its pair's features come from: rows of a
table, or any tensor laid out [N, ..] or [N, T, ..], the *leaves*. On the way every
operator is either read exactly, or the value before it becomes a leaf, or, if that
depends on candidate and behavior both, `Unsupported` says why the block is left alone.
"""

from din_converter.fusing.layout import Sizes
from din_converter.fusing.operators_choice import CHOICE
from din_converter.fusing.operators_layout import LAYOUT
from din_converter.fusing.operators_linear import LINEAR
from din_converter.fusing.reader import Reader
from din_converter.fusing.view import View

__all__ = ["interpreter"]


def interpreter(view: View, sizes: Sizes, *opaque: str) -> Reader:
    """Make a reader that knows every operator; `opaque` values are leaves."""
    return Reader(view, sizes, frozenset(opaque), LAYOUT | LINEAR | CHOICE)

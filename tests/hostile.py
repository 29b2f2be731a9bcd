"""Text that looks like what this project prints: values and names of columns.

Whoever reads a sentence of an error instead of its fields is misled by these.
"""

from hypothesis import strategies as st

# Values of a user that look like the end of an error sentence, or like its parts.
VALUES = (
    "- at `item`, row 99",
    "- at `x`, row 0",
    "expected a label 0 or 1, got 2 - at `label`, row 1. Give more.",
    "row 7 of a batch (row=7), candidate 3",
    "`",
    "schema",
    "%d {row} \\1 $1",
)
# Names of columns: with back-ticks, quotes, line breaks, marks of direction.
COLUMNS = (
    "ci`ty",
    "- at `x`, row 0",
    'it\'s "one"',
    "two\nlines, row 3",
    "\u200f\u202eright to left",
    "logit",
    "score`, row 1",
    "schema",
)


def texts(exclude: str = "") -> st.SearchStrategy[str]:
    """Text of any kind that has a UTF-8 form, of some length, or like the above."""
    letters = st.characters(exclude_characters=exclude, codec="utf-8")
    return st.text(letters, max_size=100) | st.sampled_from(VALUES + COLUMNS)

"""A window says which elements of a list its ids are."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from din_infer import _kernels
from din_infer.columns import require_dtype, to_column
from din_infer.errors import InputError
from tests.encoding import encode_lists
from tests.test_arrow_types import INDICES, LEAVES, NESTINGS, Layout, draw_lists, seeds

PAD = 0
MODES = ["whole", "trim", "drop", "take"]


def narrow(window: _kernels.Window, mode: str, lengths: list[int]) -> None:
    if mode == "take":
        window.take(_kernels.from_list(lengths, "n"))
    elif mode != "whole":
        getattr(window, mode)(PAD)


def kept_places(values: list[Any], mode: str, length: int) -> list[int]:
    """Find the elements that a window keeps, the slow way."""
    places = list(range(length if mode == "take" else len(values)))
    inside = [i for i in places if values[i] != PAD]
    if mode == "drop":
        return inside
    if mode == "trim":
        return places[inside[0] : inside[-1] + 1] if inside else []
    return places


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nesting", NESTINGS)
@given(data=st.data())
def test_places_are_those_of_the_ids(
    nesting: str, mode: str, data: st.DataObject
) -> None:
    leaf = LEAVES[data.draw(st.sampled_from(["int8", "int64", "whole float64"]))]
    size = 3 if nesting == "fixed_size_list" else None
    lists = draw_lists(data, [PAD, PAD, 1, 2, None], data.draw(st.booleans()), size)
    index = data.draw(st.none() | st.sampled_from(INDICES))
    list_index = data.draw(st.none() | st.sampled_from(INDICES[2:]))
    rng = np.random.default_rng(data.draw(seeds))
    layout = Layout(leaf, nesting, index, list_index, size or 0, rng)
    array = layout.column(lists, data.draw(st.integers(0, 4)))
    column = require_dtype(to_column(array, "x"), "int64", is_list=True)
    lengths = [int(rng.integers(len(values or []) + 1)) for values in lists]
    window = _kernels.Window(column)
    narrow(window, mode, lengths)
    max_len = data.draw(st.sampled_from([1, 2, 300]))
    kept, width, _, _ = window.finish(max_len, data.draw(st.booleans()))
    for newest_first in (False, True):
        expected = np.zeros((len(lists), width), dtype=np.int64)
        for b, values in enumerate(lists):
            places = kept_places(values or [], mode, lengths[b])
            last = places[:max_len][::-1] if newest_first else places[-max_len:]
            assert kept[b] == len(last)
            expected[b, : len(last)] = last
        got = window.places(width, newest_first)
        np.testing.assert_array_equal(got, expected, strict=True)
        numbers = [list(range(len(values or []))) for values in lists]
        counted = to_column(pa.array(numbers, pa.list_(pa.int64())), "number")
        as_is = _kernels.Encoder("identity", "int64", rows=1000)
        ids, _, _ = encode_lists(counted, as_is, window, width, newest_first)
        np.testing.assert_array_equal(got, ids, strict=True)


def test_places_of_no_width_are_empty_and_of_less_are_refused() -> None:
    window = _kernels.Window(_kernels.from_list([[1, 2], None], "x"))
    assert window.places(0, False).shape == (2, 0)
    assert window.places(3, True).tolist() == [[1, 0, 0], [0, 0, 0]]
    with pytest.raises(InputError) as caught:
        window.places(-1, False)
    assert str(caught.value) == "expected a width of at least 0, got -1 - at `x`"

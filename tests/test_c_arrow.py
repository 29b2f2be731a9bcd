"""Arrow structures that break the format, through the C interface: a sentence each."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from din_infer import FeatureSpec
from tests.c_abi import Array, Refused, Schema, Spec, exported

HASH = {"type": "hash", "buckets": 9}
Change = Callable[[Schema, Array], None]


def spec(dtype: str, is_list: bool = False) -> str:
    field = {"name": "c", "dim": 1, "dtype": dtype, "encoder": HASH}
    parts: dict[str, Any] = {"candidate": [field]}
    if is_list:
        parts = {
            "multi_hot": [field | {"side": "candidate", "max_len": 3, "pooling": "sum"}]
        }
        parts["candidate"] = [field | {"name": "d", "dtype": "string"}]
    return FeatureSpec.from_dict({"format": 1, **parts}).to_json()


def pointers(place: int, count: int) -> Any:  # noqa: ANN401
    return (ctypes.c_void_p * count).from_address(place)


@contextmanager
def column(values: pa.Array) -> Iterator[tuple[Any, Any, Schema, Array]]:
    """Lend a table of one column, and that column; what is changed is put back."""
    batch = pa.record_batch({"c": values, "d": ["a"] * len(values)})
    with exported(batch) as (schema, array):
        one = Schema.from_address(pointers(schema._obj.children, 1)[0])
        of = Array.from_address(pointers(array._obj.children, 1)[0])
        # those that own memory: a change never reaches deeper than two of them
        parts: list[Any] = [one, of]
        for name in ("dictionary", "children"):
            for kind, at in ((Schema, one), (Array, of)):
                place = getattr(at, name)
                if place and name == "children":
                    place = pointers(place, 1)[0]
                if place:
                    parts.append(kind.from_address(place))
        kept = [bytes(part) for part in parts]
        buffers = [
            (p, list(pointers(p.buffers, p.n_buffers)))
            for p in parts
            if isinstance(p, Array) and p.n_buffers
        ]
        try:
            yield schema, array, one, of
        finally:
            for part, old in zip(parts, kept, strict=True):
                ctypes.memmove(ctypes.addressof(part), old, len(old))
            for part, old_buffers in buffers:
                pointers(part.buffers, part.n_buffers)[:] = old_buffers


def given(name: str, value: object) -> Change:
    """Set a field of the array."""
    return lambda _, array: setattr(array, name, value)


def written(text: bytes) -> Change:
    """Set the format."""
    return lambda schema, _: setattr(schema, "format", text)


def lacks(buffer: int) -> Change:
    def change(_: Schema, array: Array) -> None:
        pointers(array.buffers, array.n_buffers)[buffer] = None

    return change


def lacks_validity(_: Schema, array: Array) -> None:
    array.null_count = 1
    pointers(array.buffers, array.n_buffers)[0] = None


def of_dictionary(change: Change) -> Change:
    def changed(schema: Schema, array: Array) -> None:
        change(
            Schema.from_address(schema.dictionary), Array.from_address(array.dictionary)
        )

    return changed


def of_child(change: Change) -> Change:
    def changed(schema: Schema, array: Array) -> None:
        child = Schema.from_address(pointers(schema.children, 1)[0])
        change(child, Array.from_address(pointers(array.children, 1)[0]))

    return changed


def wide(schema: Schema, array: Array) -> None:
    schema.format = b"w:2147483647"
    array.offset = 1 << 40


TEXTS = pa.array(["a", None, "b"])
LONG = pa.array(["a" * 20, None, "b"], pa.string_view())
LISTS = pa.array([["a"], None, ["b", "c"]])
VIEWS = pa.array([["a"], None, ["b", "c"]], pa.list_view(pa.string()))
CODED = pa.array(["a", None, "b"]).dictionary_encode()
CODED_LISTS = pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int8()), LISTS)
PAIRS = pa.array([["a", "b"]], pa.list_(pa.string(), 2))
NUMBERS = pa.array([1, None, 3])
PARTS = "a decimal's precision and scale"
FITS = "a length and an offset that fit"

MALFORMED: list[tuple[str, pa.Array, Change]] = [
    *((PARTS, TEXTS, written(b"d:" + t)) for t in (b"5", b"x,1", b"5,x", b"99,1")),
    *(
        (PARTS, TEXTS, written(b"d:" + t))
        for t in (b"5,1,77", b"5,99999999999", b"-1,2")
    ),
    ("a width", TEXTS, written(b"w:0")),
    ("a width", TEXTS, written(b"w:5x")),
    ("a width", TEXTS, written(b"w:")),
    ("a list size", PAIRS, written(b"+w:x")),
    ("a list size", PAIRS, written(b"+w:2,3")),
    ("as many rows as the table has", TEXTS, given("length", -1)),
    ("as many rows as the table has", TEXTS, given("length", 2)),
    (FITS, TEXTS, given("offset", -1)),
    (FITS, TEXTS, given("length", 1 << 62)),
    (FITS, TEXTS, wide),
    (FITS, LISTS, given("offset", 1 << 62)),
    (FITS, CODED, of_dictionary(given("length", -1))),
    (FITS, CODED_LISTS, of_dictionary(given("length", -1))),
    ("all of its buffers", TEXTS, given("n_buffers", 2)),
    ("all of its buffers", NUMBERS, given("buffers", None)),
    ("all of its buffers", LISTS, given("n_buffers", 1)),
    ("all of its buffers", VIEWS, given("n_buffers", 2)),
    ("a validity buffer beside nulls", TEXTS, lacks_validity),
    ("a validity buffer beside nulls", LISTS, lacks_validity),
    ("a data buffer", NUMBERS, lacks(1)),
    ("the sizes of the view's buffers", LONG, lacks(3)),
    ("an offsets buffer", LISTS, lacks(1)),
    ("a sizes buffer", VIEWS, lacks(2)),
    ("one child of a list", LISTS, given("n_children", 0)),
    ("one child of a list", LISTS, given("children", None)),
    ("integer dictionary indices", CODED, written(b"u")),
    ("integer dictionary indices", CODED_LISTS, written(b"b")),
    ("a dictionary", CODED, given("dictionary", None)),
    ("a dictionary", CODED_LISTS, given("dictionary", None)),
    (PARTS, CODED, of_dictionary(written(b"d:"))),
    (PARTS, CODED, written(b"d:")),
    (PARTS, CODED_LISTS, written(b"d:")),
    ("a width", LISTS, of_child(written(b"w:-3"))),
]


@pytest.mark.parametrize(
    ("rule", "values", "change"), MALFORMED, ids=range(len(MALFORMED))
)
def test_what_breaks_the_format_is_refused(
    rule: str, values: pa.Array, change: Change
) -> None:
    is_list = pa.types.is_nested(values.type) or values is CODED_LISTS
    dtype = "int64" if values is NUMBERS else "string"
    with Spec(spec(dtype, is_list)) as opened, column(values) as lent:
        schema, array, one, of = lent
        opened._call(opened.lib.din_encode_table, schema, array)
        change(one, of)
        with pytest.raises(Refused) as caught:
            opened._call(opened.lib.din_encode_table, schema, array)
    sentence = f"expected {rule}, got a malformed Arrow array - at `c`"
    assert str(caught.value) == sentence


def test_a_table_without_a_column_is_refused() -> None:
    said = []
    with Spec(spec("string")) as opened, column(TEXTS) as (schema, array, _, _):
        for struct in (schema._obj, array._obj):
            place = pointers(struct.children, 1)
            kept, place[0] = place[0], None
            try:
                with pytest.raises(Refused) as caught:
                    opened._call(opened.lib.din_encode_table, schema, array)
            finally:
                place[0] = kept
            said.append(str(caught.value))
    assert said == [
        "expected a column `c`, got none of that name - at `batch`",
        "expected a child of every column, got a malformed Arrow array - at `c`",
    ]


def test_an_index_outside_a_dictionary_of_lists_is_named() -> None:
    with Spec(spec("string", is_list=True)) as opened, column(CODED_LISTS) as lent:
        schema, array, _, of = lent
        place = pointers(of.buffers, 2)
        wrong = np.array([0, 0, 3], np.int8)
        place[1] = wrong.ctypes.data
        with pytest.raises(Refused) as caught:
            opened._call(opened.lib.din_encode_table, schema, array)
    assert str(caught.value) == (
        "expected indices inside their dictionary, got others - at `c`, row 2"
    )


def metadata(*pairs: tuple[bytes, bytes]) -> bytes:
    """Write metadata of a schema, as Arrow's C data interface says."""
    out = np.int32(len(pairs)).tobytes()
    for pair in pairs:
        for text in pair:
            out += np.int32(len(text)).tobytes() + text
    return out


def extension(name: bytes, about: bytes = b"") -> bytes:
    return metadata(
        (b"ARROW:extension:name", name), (b"ARROW:extension:metadata", about)
    )


TENSOR = b"arrow.fixed_shape_tensor"
# what an extension type is, and what is said of a column of it: None if it is taken
EXTENSIONS: list[tuple[pa.Array, bytes, str | None]] = [
    (TEXTS, extension(b"arrow.json"), None),
    (TEXTS, extension(b"my.type"), "extension type my.type"),
    (TEXTS, metadata((b"ARROW:extension:names", b"my.type")), None),
    (TEXTS, np.int32(1).tobytes() + np.int32(-5).tobytes(), None),
    (pa.array([1, 0], pa.int8()), extension(b"arrow.bool8"), None),
    (NUMBERS, extension(b"arrow.bool8"), "extension type arrow.bool8"),
    (NUMBERS, extension(b"arrow.json"), "extension type arrow.json"),
    (pa.array([b"a" * 16], pa.binary(16)), extension(b"arrow.uuid"), "uuid"),
    (PAIRS, extension(TENSOR, b'{"shape": [2]}'), None),
    (PAIRS, extension(b"ray.data.arrow_tensor_v2", b"[2]"), None),
    (PAIRS, extension(b"ray.data.arrow_tensor", b"[2]"), None),
    (
        PAIRS,
        extension(TENSOR, b'{"shape": [1, 2]}'),
        f"extension type {TENSOR.decode()}",
    ),
    (PAIRS, extension(TENSOR, b"{no"), f"extension type {TENSOR.decode()}"),
    (PAIRS, extension(TENSOR, b"{}"), f"extension type {TENSOR.decode()}"),
    (PAIRS, extension(b"my.lists"), "extension type my.lists"),
]


@pytest.mark.parametrize(
    ("values", "said", "type_name"), EXTENSIONS, ids=range(len(EXTENSIONS))
)
def test_an_extension_type_is_what_it_stores_or_is_named(
    values: pa.Array, said: bytes, type_name: str | None
) -> None:
    is_number = pa.types.is_integer(values.type)
    is_list = pa.types.is_nested(values.type)
    text = spec("int64" if is_number else "string", is_list)
    kept = ctypes.create_string_buffer(said, len(said))
    with Spec(text) as opened, column(values) as (schema, array, one, _):
        one.metadata = ctypes.addressof(kept)
        if type_name is None:
            opened._call(opened.lib.din_encode_table, schema, array)
            return
        with pytest.raises(Refused) as caught:
            opened._call(opened.lib.din_encode_table, schema, array)
    assert type_name[:42] in str(caught.value)


def test_a_dictionary_of_dictionaries_is_named() -> None:
    with (
        Spec(spec("string")) as opened,
        column(CODED) as (schema, array, one, of),
        column(CODED) as (_, _, inner, _),
    ):
        Schema.from_address(one.dictionary).dictionary = inner.dictionary
        with pytest.raises(Refused, match="dictionary of dictionary"):
            opened._call(opened.lib.din_encode_table, schema, array)
        assert of.dictionary

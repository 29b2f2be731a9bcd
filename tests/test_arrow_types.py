# ruff: noqa: ANN401 - rows hold anything
"""Every type and nesting that Arrow, NumPy and lists have, against the slow twin.

A column is laid out together with the plain rows it stands for. Around what the rows
refer to lie strays: beside slices, in gaps, under nulls, unused in dictionaries. None
of them may be looked at. Above 400 lines: one file knows how columns are laid out.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from unittest import mock
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from din_infer import encode
from din_infer.encode import FeatureEncoder
from din_infer.errors import InputError
from din_infer.spec import FeatureSpec
from tests import hostile, reference
from tests.reference_hash import HASHES, NUM_SEEDS

pytestmark = pytest.mark.slow

Values = list[Any]
Lists = list[Values | None]
Rows = list[dict[str, Any]]

# ------------------------------------------------------------------------------- leaves

# Beside the turns of hashes and views.
SIZES = [0, 1, 3, 4, 8, 9, 12, 13, 16, 17, 32, 33, 64, 65, 240, 241, 300]
WORDS = ["", "a", "ab", "c", "\0", "a\0", "käse", "日本", "🙂" * 9, *hostile.VALUES]

repeated = st.builds(
    lambda unit, size: (unit * size)[:size],
    st.text(min_size=1, max_size=3),
    st.sampled_from(SIZES),
)
texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=20), repeated)
raw_bytes = st.one_of(
    texts.map(str.encode), st.binary(max_size=20), st.just(b"\xff\xfe")
)


@dataclass(frozen=True)
class Leaf:
    """A type of elements: what rows may hold, and what strays are made of."""

    type: pa.DataType
    dtype: str
    legal: st.SearchStrategy[Any]
    strays: tuple[Any, ...]
    uuid_as: tuple[str, ...] = ()  # one of which the encoder says

    @property
    def field_dtype(self) -> str:
        """What a spec calls the dtype: "wide" values are in part beyond int64."""
        return "int64" if self.dtype == "wide" else self.dtype


def decimals(kind: pa.DataType, *, is_whole: bool) -> Leaf:
    """Decimals: such that hold an int64, or any."""
    scale, digits = kind.scale, kind.precision

    def made(number: int) -> Decimal:
        digits = tuple(map(int, str(abs(number))))
        return Decimal((int(number < 0), digits, -scale))

    most = 10**digits - 1
    strays = tuple(map(made, (most, -most, 1)))
    if not is_whole:
        any_size = st.integers(0, digits).flatmap(
            lambda n: st.integers(1 - 10**n, 10**n - 1)
        )
        return Leaf(kind, "float", any_size.map(made), strays)
    most = min(most // 10**scale, 2**63 - 1)
    whole = st.integers(-min(3, most), min(110, most)) | st.integers(-most, most)
    return Leaf(kind, "int64", whole.map(lambda n: made(n * 10**scale)), strays)


def integers(kind: pa.DataType) -> Leaf:
    info = np.iinfo(kind.to_pandas_dtype())
    low, high = int(info.min), min(int(info.max), 2**63 - 1)
    legal = st.one_of(
        st.integers(max(low, -3), min(high, 110)),
        st.integers(low, high),
        st.sampled_from([low, high]),
    )
    return Leaf(kind, "int64", legal, (int(info.max), int(info.min)))


def wholes(kind: pa.DataType, limit: int) -> Leaf:
    whole = st.one_of(st.integers(-3, 110), st.integers(1 - limit, limit - 1))
    legal = st.one_of(whole.map(float), st.sampled_from([math.nan, -0.0]))
    return Leaf(kind, "int64", legal, (0.5, math.inf, float(limit)))


def reals(kind: pa.DataType, width: Any) -> Leaf:
    legal = st.one_of(st.sampled_from([0.5, 18.0, -0.0]), st.floats(width=width))
    return Leaf(kind, "float", legal, (math.nan, -math.inf))


# types of pyarrow 18
NARROW = hasattr(pa, "decimal32")
NARROW_WHOLE = (
    [pa.decimal32(9, 0), pa.decimal32(5, 2), pa.decimal64(18, 6)] if NARROW else []
)
NARROW_REAL = [pa.decimal32(9, 9), pa.decimal64(18, 2)] if NARROW else []

LEAVES: dict[str, Leaf] = {
    "string": Leaf(pa.string(), "string", texts, ("stray", "")),
    "large_string": Leaf(pa.large_string(), "string", texts, ("stray", "")),
    "string_view": Leaf(pa.string_view(), "string", texts, ("stray" * 3, "")),
    "binary": Leaf(pa.binary(), "string", raw_bytes, (b"\xff", b"")),
    "large_binary": Leaf(pa.large_binary(), "string", raw_bytes, (b"\xff", b"")),
    "binary_view": Leaf(pa.binary_view(), "string", raw_bytes, (b"\xff" * 13, b"")),
    "bool": Leaf(pa.bool_(), "int64", st.booleans(), (True, False)),
    "int8": integers(pa.int8()),
    "int16": integers(pa.int16()),
    "int32": integers(pa.int32()),
    "int64": integers(pa.int64()),
    "uint8": integers(pa.uint8()),
    "uint16": integers(pa.uint16()),
    "uint32": integers(pa.uint32()),
    "uint64": integers(pa.uint64()),
    "whole float16": wholes(pa.float16(), 2**11),
    "whole float32": wholes(pa.float32(), 2**24),
    "whole float64": wholes(pa.float64(), 2**53),
    "float16": reals(pa.float16(), 16),
    "float32": reals(pa.float32(), 32),
    "float64": reals(pa.float64(), 64),
    "uint64 beyond int64": Leaf(
        pa.uint64(), "float", st.integers(0, 2**64 - 1), (2**64 - 1,)
    ),
    **{
        f"whole {kind}": decimals(kind, is_whole=True)
        for kind in (
            *NARROW_WHOLE,
            pa.decimal128(38, 0),
            pa.decimal128(38, 18),
            pa.decimal256(76, 40),
        )
    },
    **{
        str(kind): decimals(kind, is_whole=False)
        for kind in (
            *NARROW_REAL,
            pa.decimal128(2, 1),
            pa.decimal128(38, 18),
            pa.decimal256(76, 0),
            pa.decimal256(70, 35),
        )
    },
    "wide uint64": Leaf(
        pa.uint64(),
        "wide",
        st.integers(2**63 - 2, 2**64 - 1) | st.integers(0, 9),
        (2**64 - 1,),
    ),
    "wide decimal": Leaf(
        pa.decimal128(20, 0),
        "wide",
        st.integers(2**63 - 2, 2**64 - 1).map(Decimal),
        (Decimal(10**20 - 1),),
    ),
    "16 bytes": Leaf(
        pa.binary(16),
        "string",
        st.binary(min_size=16, max_size=16),
        (b"\xff" * 16,),
        ("bytes", "text"),
    ),
    "3 bytes": Leaf(
        pa.binary(3), "string", st.binary(min_size=3, max_size=3), (b"abc",), ("bytes",)
    ),
}
if not NARROW:  # pyarrow 17 makes no views of buffers
    del LEAVES["string_view"], LEAVES["binary_view"]

INDICES = [
    *(pa.int8(), pa.uint8(), pa.int16(), pa.uint16()),
    *(pa.int32(), pa.uint32(), pa.int64(), pa.uint64()),
]

# ------------------------------------------------------------------------------- layout


def bitmap(values: Values) -> pa.Buffer | None:
    if None not in values:
        return None
    valid = [value is not None for value in values]
    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def pick(rng: np.random.Generator, values: Any, count: int) -> Values:
    return [values[i] for i in rng.integers(0, len(values), count)]


@dataclass(frozen=True)
class Layout:
    """How values become Arrow: types are fixed, `rng` decides on all that is between.

    `index` is the type of an element's dictionary indices, None where there is none;
    `list_index` that of a dictionary of lists.
    """

    leaf: Leaf
    nesting: str
    index: pa.DataType | None
    list_index: pa.DataType | None
    list_size: int
    rng: np.random.Generator

    def stray(self, most: int) -> Values:
        return pick(self.rng, (*self.leaf.strays, None), int(self.rng.integers(most)))

    def stray_rows(self, most: int) -> Lists:
        if self.nesting == "scalar":
            return self.stray(most)
        sizes = self.rng.integers(0, 4, int(self.rng.integers(most)))
        if self.nesting == "fixed_size_list":
            sizes[:] = self.list_size
        return [pick(self.rng, self.leaf.strays, size) for size in sizes]

    def plain(self, values: Values) -> pa.Array:
        """Elements of the leaf's type; a stray lies under each null."""
        kind = self.leaf.type
        under = pick(self.rng, self.leaf.strays, len(values))
        filled = [u if v is None else v for v, u in zip(values, under, strict=True)]
        if pa.types.is_primitive(kind):
            whole = pa.array(np.array(filled, dtype=kind.to_pandas_dtype()), kind)
        else:
            cut = int(self.rng.integers(len(filled) + 1))
            halves = [pa.array(filled[:cut], kind), pa.array(filled[cut:], kind)]
            whole = pa.concat_arrays(halves)  # of views: two buffers
        valid = bitmap(values)
        buffers = [valid, *whole.buffers()[1:]]
        if valid is not None and kind in (pa.string_view(), pa.binary_view()):
            views = np.frombuffer(buffers[1], dtype=np.uint8)[: 16 * len(values)].copy()
            views.reshape(-1, 16)[[v is None for v in values]] = 255
            buffers[1] = pa.py_buffer(views)
        return pa.Array.from_buffers(kind, len(values), buffers)

    def coded(self, values: Any, index: pa.DataType, entries: Values) -> pa.Array:
        """Indices of values in entries; null by its index or by the entry."""
        rng = self.rng
        places: dict[str, list[int]] = {}
        for i, entry in enumerate(entries):
            places.setdefault(repr(entry), []).append(i)
        indices = []
        for value in values:
            known = places.get(repr(value), [])
            is_null = value is None and (not known or rng.random() < 0.5)
            indices.append(None if is_null else known[rng.integers(len(known))])
        dtype = index.to_pandas_dtype()
        outside = (np.iinfo(dtype).min, 99, np.iinfo(dtype).max)[rng.integers(3)]
        numbers = [outside if i is None else i for i in indices]
        buffer = pa.py_buffer(np.array(numbers, dtype=dtype))
        return pa.Array.from_buffers(index, len(values), [bitmap(indices), buffer])

    def entries(self, values: Any, index: pa.DataType, strays: Any) -> Values:
        """A dictionary of the values: with strays, twice the same, and null."""
        room = 127 if index.bit_width == 8 else 2000
        distinct = list({repr(v): v for v in values if v is not None}.values())
        extras = [strays(n) for n in (1, 4, 40, len(values) + 20)]
        entries = [*distinct, *distinct[:2], *extras[self.rng.integers(4)]][:room]
        order = self.rng.permutation(len(entries))
        return [entries[i] for i in order]

    def elements(self, values: Values) -> pa.Array:
        """The array of the values, with an offset of its own."""
        before = self.stray(4)
        values = [*before, *values, *self.stray(4)]
        if self.index is None:
            array = self.plain(values)
        else:
            entries = self.entries(values, self.index, self.stray)
            array = pa.DictionaryArray.from_arrays(
                self.coded(values, self.index, entries), self.plain(entries), safe=False
            )
        return array[len(before) :]

    def lists(self, rows: Lists) -> pa.Array:
        if self.list_index is None:
            return self.plain_lists(rows)
        entries = self.entries(rows, self.list_index, self.stray_rows)
        entries[1:1] = [None] if self.rng.random() < 0.5 else []
        return pa.DictionaryArray.from_arrays(
            self.coded(rows, self.list_index, entries),
            self.plain_lists(entries),
            safe=False,
        )

    def plain_lists(self, rows: Lists) -> pa.Array:
        if self.nesting == "fixed_size_list":
            filler = pick(self.rng, self.leaf.strays, self.list_size)
            flat = [v for row in rows for v in (filler if row is None else row)]
            child = self.elements(flat)
            kind = pa.list_(child.type, self.list_size)
            buffers = [bitmap(rows)]
        elif self.nesting in ("list", "large_list"):
            child, offsets = self.in_order(rows)
            is_large = self.nesting == "large_list"
            kind = (pa.large_list if is_large else pa.list_)(child.type)
            width = np.int64 if is_large else np.int32
            buffers = [bitmap(rows), pa.py_buffer(np.array(offsets, dtype=width))]
        else:
            child, offsets, sizes = self.anywhere(rows)
            is_large = self.nesting == "large_list_view"
            kind = (pa.large_list_view if is_large else pa.list_view)(child.type)
            width = np.int64 if is_large else np.int32
            numbers = [np.array(n, dtype=width) for n in (offsets, sizes)]
            buffers = [bitmap(rows), *map(pa.py_buffer, numbers)]
        return pa.Array.from_buffers(kind, len(rows), buffers, children=[child])

    def in_order(self, rows: Lists) -> tuple[pa.Array, list[int]]:
        """Elements row by row; a null row has some too."""
        flat = self.stray(4)
        offsets = [len(flat)]
        for row in rows:
            flat += self.stray(3) if row is None else row
            offsets.append(len(flat))
        return self.elements(flat), offsets

    def anywhere(self, rows: Lists) -> tuple[pa.Array, list[int], list[int]]:
        """Elements in any order, with gaps; equal heads and tails of rows shared."""
        flat: Values = []
        offsets = [2**31 - 1] * len(rows)
        sizes = [-1] * len(rows)
        placed: list[int] = []
        for r in self.rng.permutation(len(rows)).tolist():
            row = rows[r]
            if row is None:
                continue
            sizes[r] = len(row)
            for other in placed[-8:]:
                theirs = rows[other] or []
                late = len(theirs) - len(row)
                if late >= 0 and repr(theirs[late:]) == repr(row):
                    offsets[r] = offsets[other] + late
                elif repr(theirs[: len(row)]) == repr(row):
                    offsets[r] = offsets[other]
            if offsets[r] == 2**31 - 1:
                flat += self.stray(4)
                offsets[r] = len(flat)
                flat += row
            placed.append(r)
        return self.elements(flat + self.stray(4)), offsets, sizes

    def sliced(self, rows: Lists) -> pa.Array:
        before = self.stray_rows(3)
        rows = [*before, *rows, *self.stray_rows(3)]
        whole = self.elements(rows) if self.nesting == "scalar" else self.lists(rows)
        return whole[len(before) :]

    def column(self, rows: Lists, num_chunks: int) -> Any:
        """One sliced array, or as many chunks with buffers of their own."""
        if num_chunks == 0:
            return self.sliced(rows)[: len(rows)]
        cuts = sorted(self.rng.integers(0, len(rows) + 1, num_chunks - 1).tolist())
        ends = [0, *cuts, len(rows)]
        parts = [self.sliced(rows[a:b])[: b - a] for a, b in itertools.pairwise(ends)]
        return pa.chunked_array(parts)


# -------------------------------------------------------------------------------- specs


def as_text(value: Any) -> str | None:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return None


def known_values(pool: Values, dtype: str, uuid_as: str | None = None) -> Values:
    """The values of the pool that a spec can name."""
    dtype = "int64" if dtype == "wide" else dtype
    found = [None if v is None else reference.clean(v, dtype) for v in pool]
    if dtype == "string":
        strings = [reference.as_string(v, uuid_as) for v in found if v is not None]
        found = [as_text(v) for v in strings if isinstance(v, str | bytes)]
    else:
        found = [v for v in found if v is None or -(2**63) <= v < 2**63]
    return list(dict.fromkeys(v for v in found if v is not None))


@st.composite
def encoders(draw: st.DrawFn, leaf: Leaf, dtype: str, pool: Values) -> dict[str, Any]:
    kinds = {
        "string": ["hash", "vocab"],
        "int64": ["hash", "vocab", "identity", "bucketize"],
        "wide": ["hash", "vocab", "identity"],
        "float": ["bucketize"],
    }
    kind = draw(st.sampled_from(kinds[dtype]))
    if leaf.uuid_as:
        uuid_as = draw(st.sampled_from(leaf.uuid_as))
        plain = Leaf(leaf.type, dtype, leaf.legal, ())
        known = known_values(pool, dtype, uuid_as)
        return {**draw(encoders(plain, dtype, known)), "uuid_as": uuid_as}
    dtype = "int64" if dtype == "wide" else dtype
    if kind == "hash":
        name = draw(st.sampled_from(list(HASHES)))
        return {
            "type": kind,
            "hash": name,
            "seed": draw(st.integers(0, NUM_SEEDS[name] - 1)),
            "buckets": draw(st.sampled_from([2, 3, 1000, 2**31 - 1])),
            "reduce": draw(st.sampled_from(["offset", "mod", "pmod", "abs"])),
            "int_as": draw(st.sampled_from(["bytes", "text"])),
        }
    if kind == "vocab":
        known = known_values(pool, dtype)
        more = ["a", "other"] if dtype == "string" else [0, -(2**63), 2**63 - 1]
        values = draw(st.lists(st.sampled_from([*known, *more]), unique=True))
        unseen = draw(st.sampled_from(["row", "missing", "error"]))
        return {"type": kind, "values": values, "unseen": unseen}
    if kind == "identity":
        return {
            "type": kind,
            "buckets": draw(st.sampled_from([1, 100, 2**31 - 1])),
            "unseen": draw(st.sampled_from(["missing", "error"])),
        }
    bounds = st.sampled_from([-10.0, -0.5, 0.0, 0.5, 18.0, 100.0, 1e9])
    return {"type": kind, "boundaries": sorted(draw(st.sets(bounds)))}


@st.composite
def windows(draw: st.DrawFn, dtype: str, pool: Values) -> dict[str, Any]:
    """The keys of a sequence that say which elements are kept."""
    keys: dict[str, Any] = {
        "max_len": draw(st.sampled_from([1, 2, 3, 7, 255, 256, 300, 2000])),
        "order": draw(st.sampled_from(["oldest_first", "newest_first"])),
    }
    if keys["max_len"] < 1000:
        keys["padding"] = draw(st.sampled_from(["masked", "attended"]))
    pads = known_values(pool, dtype) if dtype != "float" else []
    uuids = [v for v in pool if isinstance(v, UUID)]
    uuids += [UUID(bytes=v) for v in pool if isinstance(v, bytes) and len(v) == 16]
    pads += map(str, uuids)
    narrowed = draw(st.sampled_from(["no", "length", "trimmed", "dropped"]))
    if narrowed == "length":
        keys["length_column"] = "n"
    elif narrowed != "no" and pads:
        keys["pad_value"] = draw(st.sampled_from(pads))
        keys["pad_inside"] = "dropped" if narrowed == "dropped" else "kept"
    return keys


def spec_of(
    dtype: str, encoder: dict[str, Any], keys: dict[str, Any] | None
) -> FeatureSpec:
    """Make the spec of a plain `c` and `x`: a scalar, or with keys a sequence."""
    plain = {"name": "c", "dim": 1, "encoder": {"type": "hash", "buckets": 9}}
    dtype = "int64" if dtype == "wide" else dtype
    field = {"dtype": dtype, "dim": 1, "encoder": encoder}
    if keys is None:
        candidates = [plain, {"name": "x", **field}]
        return FeatureSpec.from_dict({"format": 1, "candidate": candidates})
    behavior = [{"name": "h", "fields": {"x": field}, **keys}]
    return FeatureSpec.from_dict(
        {"format": 1, "candidate": [plain], "behavior": behavior}
    )


def check(spec: FeatureSpec, batch: Any, rows: Rows, threads: int = 1) -> None:
    """Hold ids, lengths and counts to the reference, or the row that is refused."""
    expected, counts = reference.encode(spec, rows)
    fields: list[Any] = [f for s in spec.behavior for f in s.fields]
    fields += spec.candidate
    refused = [
        f.name
        for f in fields
        if f.encoder.unseen == "error" and counts[f.name]["unseen"] > 0
    ]
    with mock.patch.object(encode, "PART", 16):
        if refused:
            name = refused[0]
            unseen = [reference.encode(spec, [r])[1][name]["unseen"] for r in rows]
            row = next(i for i, n in enumerate(unseen) if n > 0)
            with pytest.raises(InputError, match=rf" - at `{name}`, row {row}$"):
                FeatureEncoder(spec.reads).encode(batch, threads)
            return
        encoded = FeatureEncoder(spec.reads).encode(batch, threads)
    got = encoded.inputs
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, strict=True, err_msg=name)
        assert got[name].flags.c_contiguous
    assert encoded.stats.to_dict() == counts


# -------------------------------------------------------------------------------- Arrow

seeds = st.integers(0, 2**32 - 1)
NESTINGS = ["list", "large_list", "list_view", "large_list_view", "fixed_size_list"]


def draw_values(data: st.DataObject, pool: Values, is_long: bool) -> Values:
    if not is_long:
        return data.draw(st.lists(st.sampled_from(pool), max_size=12))
    rng = np.random.default_rng(data.draw(seeds))
    return pick(rng, pool, int(rng.integers(200, 1500)))


def draw_lists(
    data: st.DataObject, pool: Values, is_long: bool, size: int | None
) -> Lists:
    """Rows of any lengths, or all of one; long ones pass the borders of blocks."""
    if not is_long:
        low, high = (0, 6) if size is None else (size, size)
        row = st.lists(st.sampled_from(pool), min_size=low, max_size=high)
        return data.draw(st.lists(st.none() | row, max_size=8))
    rng = np.random.default_rng(data.draw(seeds))
    total = int(rng.integers(200, 1500))
    usual = data.draw(st.sampled_from([2, 9, 60]))
    borders = [255, 256, 257, 300]
    rows: Lists = []
    while total > 0:
        is_usual = rng.random() < 0.96
        n = int(rng.integers(usual)) if is_usual else pick(rng, borders, 1)[0]
        n = n if size is None else size
        total -= max(n, 1)
        rows.append(None if rng.random() < 0.1 else pick(rng, pool, n))
        if rng.random() < 0.2:
            rows.append(rows[-1])
    return rows


def draw_pool(data: st.DataObject, legal: st.SearchStrategy[Any]) -> Values:
    pool = data.draw(st.lists(legal, min_size=1, max_size=8))
    return [*pool, None] if data.draw(st.booleans()) else pool


def batch_of(columns: dict[str, Any], num_rows: int, form: str) -> Any:
    """Put the columns in a dict, a table or a struct; `c` and `n` are lists."""
    if form == "dict":
        return columns
    arrow = {
        name: pa.array(values) if isinstance(values, list) else values
        for name, values in columns.items()
    }
    if form == "table" or any(isinstance(v, pa.ChunkedArray) for v in arrow.values()):
        return pa.table(arrow)
    struct = pa.StructArray.from_arrays(list(arrow.values()), names=list(arrow))
    return struct if form == "struct" else struct.slice(1, num_rows)


def check_arrow(data: st.DataObject, name: str, is_long: bool) -> None:
    leaf = LEAVES[name]
    pool = draw_pool(data, leaf.legal)
    nesting = data.draw(st.sampled_from(["scalar", *NESTINGS]))
    size = data.draw(st.sampled_from([0, 1, 3])) if nesting == "fixed_size_list" else 0
    if is_long and size:
        size = data.draw(st.sampled_from([1, 7, 300]))
    is_list = nesting != "scalar"
    index = data.draw(st.none() | st.sampled_from(INDICES))
    list_index = None
    lists: Lists
    if is_list:
        fixed = size if nesting == "fixed_size_list" else None
        lists = draw_lists(data, pool, is_long, fixed)
        wide = INDICES if len(lists) < 100 else INDICES[2:]
        list_index = data.draw(st.none() | st.sampled_from(wide))
    else:
        lists = draw_values(data, pool, is_long)
    rng = np.random.default_rng(data.draw(seeds))
    layout = Layout(leaf, nesting, index, list_index, size, rng)
    keys = data.draw(windows(leaf.dtype, pool)) if is_list else None
    dtype = leaf.dtype
    if dtype == "int64" and (keys is None or "pad_value" not in keys):
        dtype = data.draw(st.sampled_from(["int64", "int64", "float"]))
    spec = spec_of(dtype, data.draw(encoders(leaf, dtype, pool)), keys)

    form = data.draw(st.sampled_from(["dict", "table", "struct", "sliced struct"]))
    num_chunks = 0 if "struct" in form else data.draw(st.integers(0, 4))
    lengths = [int(rng.integers(len(v or []) + 1)) if is_list else 0 for v in lists]
    rows = [{"c": "a", "x": v, "n": n} for v, n in zip(lists, lengths, strict=True)]
    if form == "sliced struct":
        lists = [None, *lists, None]
        lengths = [0, *lengths, 0]
    column = layout.column(lists, num_chunks)
    assert repr(column.to_pylist()) == repr(lists)
    columns = {"c": ["a"] * len(lists), "x": column, "n": lengths}
    batch = batch_of(columns, len(rows), form)
    check(spec, batch, rows, data.draw(st.sampled_from([1, 3])))


@pytest.mark.parametrize("name", LEAVES)
@given(data=st.data())
def test_every_arrow_layout_gives_the_inputs_of_the_reference(
    name: str, data: st.DataObject
) -> None:
    check_arrow(data, name, is_long=False)


@pytest.mark.parametrize("name", LEAVES)
@settings(max_examples=15)
@given(data=st.data())
def test_long_arrow_columns_give_the_inputs_of_the_reference(
    name: str, data: st.DataObject
) -> None:
    check_arrow(data, name, is_long=True)


# -------------------------------------------------------------------------------- NumPy

UUIDS = Leaf(pa.null(), "string", st.uuids(), (), ("bytes", "text"))
NUMBERS: dict[str, tuple[Any, Leaf]] = {
    "bool": (np.bool_, LEAVES["bool"]),
    **{
        f"{order}{kind}{size}": (f"{order}{kind}{size}", LEAVES[f"{name}{8 * size}"])
        for order in "<>"
        for kind, name in (("i", "int"), ("u", "uint"))
        for size in (1, 2, 4, 8)
    },
    **{
        f"{name}{order}f{size}": (f"{order}f{size}", LEAVES[f"{name}float{8 * size}"])
        for name in ("whole ", "")
        for order in "<>"
        for size in (2, 4, 8)
    },
}
TEXTS: dict[str, tuple[Any, Leaf]] = {
    "<U": ("<U300", LEAVES["string"]),
    ">U": (">U7", LEAVES["string"]),
    "S": ("S300", LEAVES["binary"]),
    "StringDType": (np.dtypes.StringDType(), LEAVES["string"]),
    "StringDType, null None": (
        np.dtypes.StringDType(na_object=None), LEAVES["string"]
    ),
    "StringDType, null NaN": (
        np.dtypes.StringDType(na_object=math.nan), LEAVES["string"]
    ),
    "object of str": (object, LEAVES["string"]),
    "object of bytes": (object, LEAVES["binary"]),
    "object of int": (object, LEAVES["int64"]),
    "object of float": (object, LEAVES["float64"]),
    "object of Decimal": (object, LEAVES["whole decimal128(38, 18)"]),
    "object of UUID": (object, UUIDS),
}  # fmt: skip


def unaligned(array: NDArray[Any]) -> NDArray[Any]:
    data = b"#" + array.tobytes()
    return np.frombuffer(data, array.dtype, array.size, 1).reshape(array.shape)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


ARRANGEMENTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "as it is": lambda a: a,
    "read-only": frozen,
    "reversed": lambda a: a[::-1],
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2],
    "columns": np.asfortranarray,
    "half of its columns": lambda a: a[..., ::2] if a.ndim == 2 else a,
    "one row repeated": lambda a: np.broadcast_to(
        a[:1], (3 if len(a) else 0, *a.shape[1:])
    ),
    "masked": lambda a: np.ma.masked_array(a, np.indices(a.shape).sum(axis=0) % 3 == 1),
}


def check_numpy(data: st.DataObject, dtype: Any, leaf: Leaf, is_long: bool) -> None:
    pool = draw_pool(data, leaf.legal)
    holds_null = dtype is object or getattr(dtype, "na_object", "") is None
    if not holds_null:
        null = getattr(dtype, "na_object", pool[0])
        pool = [null if v is None else v for v in pool]
    width = data.draw(st.sampled_from([None, 0, 1, 3, 40 if is_long else 5]))
    values = draw_values(data, pool, is_long)
    count = len(values) if not width else len(values) // width * width
    shape = (len(values),) if width is None else (count // max(width, 1), width)
    array: NDArray[Any] = np.empty(len(values), dtype=dtype)
    array[:] = values
    array = array[: math.prod(shape)].reshape(shape)
    names = list(ARRANGEMENTS)
    if dtype is object or isinstance(dtype, np.dtypes.StringDType):
        names.remove("masked")
    array = ARRANGEMENTS[data.draw(st.sampled_from(names))](array)
    if array.dtype.kind in "biufUS" and data.draw(st.booleans()):
        array = unaligned(array) if type(array) is np.ndarray else array
    keys = None if width is None else data.draw(windows(leaf.dtype, pool))
    if keys is not None and "length_column" in keys:
        keys.pop("length_column")
    spec = spec_of(leaf.dtype, data.draw(encoders(leaf, leaf.dtype, pool)), keys)
    rows = [{"c": "a", "x": v} for v in array.tolist()]
    batch = {"c": ["a"] * len(rows), "x": array}
    check(spec, batch, rows, data.draw(st.sampled_from([1, 3])))


@pytest.mark.parametrize("name", [*NUMBERS, *TEXTS])
@given(data=st.data())
def test_every_numpy_array_gives_the_inputs_of_the_reference(
    name: str, data: st.DataObject
) -> None:
    check_numpy(data, *(NUMBERS | TEXTS)[name], is_long=False)


@pytest.mark.parametrize("name", [*NUMBERS, *TEXTS])
@settings(max_examples=5)
@given(data=st.data())
def test_long_numpy_arrays_give_the_inputs_of_the_reference(
    name: str, data: st.DataObject
) -> None:
    check_numpy(data, *(NUMBERS | TEXTS)[name], is_long=True)


# -------------------------------------------------------------------------------- lists

LISTED: dict[str, Leaf] = {
    "str": LEAVES["string"],
    "bytes": LEAVES["binary"],
    "str and bytes": Leaf(pa.binary(), "string", texts | raw_bytes, ()),
    "int": LEAVES["int64"],
    "bool": LEAVES["bool"],
    "whole float": LEAVES["whole float64"],
    "float": LEAVES["float64"],
    "Decimal": LEAVES["decimal128(38, 18)"],
    "whole Decimal": LEAVES["whole decimal256(76, 40)"],
    "Decimal and int": Leaf(
        pa.null(),
        "int64",
        LEAVES["whole decimal128(38, 18)"].legal | LEAVES["int64"].legal,
        (),
    ),
    "int beyond 64 bits": Leaf(pa.null(), "float", st.integers(-(2**254), 2**254), ()),
    "int beyond int64": Leaf(pa.null(), "wide", st.integers(-9, 2**64 - 1), ()),
    "UUID": UUIDS,
}


def ragged(lists: Lists) -> tuple[Values, Values]:
    ends = np.cumsum([0] + [len(row or []) for row in lists])
    return [v for row in lists for v in row or []], ends.tolist()


def object_array(values: Any) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


HOLDERS: dict[str, Callable[[Lists], Any]] = {
    "lists": lambda lists: lists,
    "tuples": lambda lists: [None if row is None else tuple(row) for row in lists],
    "arrays": lambda lists: [
        None if row is None else object_array(row) for row in lists
    ],
    "an array of lists": object_array,
    "NaN for null": lambda lists: [math.nan if row is None else row for row in lists],
    "values and offsets": ragged,
}


@pytest.mark.parametrize("name", LISTED)
@given(data=st.data())
def test_python_lists_give_the_inputs_of_the_reference(
    name: str, data: st.DataObject
) -> None:
    leaf = LISTED[name]
    is_long = data.draw(st.sampled_from([False, False, False, True]))
    pool = draw_pool(data, leaf.legal)
    lists: Lists = draw_values(data, pool, is_long)
    keys = None
    if data.draw(st.booleans()):
        lists = draw_lists(data, pool, is_long, None)
        keys = data.draw(windows(leaf.dtype, pool))
    spec = spec_of(leaf.dtype, data.draw(encoders(leaf, leaf.dtype, pool)), keys)
    lengths = [i % (len(v) + 1) if v and keys else 0 for i, v in enumerate(lists)]
    rows = [{"c": "a", "x": v, "n": n} for v, n in zip(lists, lengths, strict=True)]
    if data.draw(st.booleans()):
        check(spec, rows, rows)
        return
    holder = HOLDERS[data.draw(st.sampled_from(list(HOLDERS)))] if keys else list
    batch = {"c": ["a"] * len(rows), "x": holder(lists), "n": lengths}
    check(spec, batch, rows)

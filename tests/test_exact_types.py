# ruff: noqa: ANN401 - rows hold anything
"""Decimals, wide integers, UUIDs and extension types: their exact meaning or an error.

`test_arrow_types.py` holds every layout of them to the reference; here are the
containers that people have them in, the borders, and the sentences of what is refused.
"""

import datetime
import json
import math
import random
import uuid
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest import mock

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from din_infer import _kernels, columns, encode
from din_infer.encode import hash_buckets
from din_infer.errors import InputError, ModelError
from din_infer.spec import FeatureSpec
from tests.test_arrow_abi import Handmade, malformed

INTEGERS = {"type": "vocab", "values": [7, 2**62 + 1, -3], "unseen": "missing"}


def spec_of(encoder: dict[str, Any], *, is_list: bool = False) -> FeatureSpec:
    """A field `x` beside a plain candidate `c`."""
    dtype = "int64" if encoder.get("values", [""])[:1] != [""] else None
    if encoder.get("values") and isinstance(encoder["values"][0], str):
        dtype = "string"
    field = {"dim": 1, "encoder": encoder} | ({"dtype": dtype} if dtype else {})
    plain = {"name": "c", "dim": 1, "encoder": {"type": "identity", "buckets": 9}}
    spec: dict[str, Any] = {"format": 1, "candidate": [plain]}
    if is_list:
        spec["behavior"] = [{"name": "h", "max_len": 9, "fields": {"x": field}}]
    else:
        spec["candidate"].append({"name": "x", **field})
    return FeatureSpec.from_dict(spec)


def ids_of(spec: FeatureSpec, column: Any) -> list[Any]:
    count = len(column)
    found = spec.encode({"c": [1] * count, "x": column})["x"].tolist()
    assert isinstance(found, list)
    return found


def said(call: Callable[..., Any], *arguments: Any) -> str:
    """What a call raises, without its traceback: that would keep handmade arrays."""
    try:
        call(*arguments)
    except InputError as error:
        return str(error)
    pytest.fail("no error")


def refusal(spec: FeatureSpec, column: Any) -> str:
    with pytest.raises(InputError) as caught:
        spec.encode({"c": [1] * len(column), "x": column})
    return str(caught.value)


# ---------------------------------------------------------------------------- decimals


def decimal_of(number: int, scale: int) -> Decimal:
    digits = tuple(map(int, str(abs(number))))
    return Decimal((int(number < 0), digits, -scale))


def handmade_decimals(
    numbers: list[int], scale: int, bits: int, precision: int | None = None
) -> Handmade:
    raw = b"".join(n.to_bytes(bits // 8, "little", signed=True) for n in numbers)
    most = {32: 9, 64: 18, 128: 38, 256: 76}[bits]
    form = f"d:{precision or most},{scale},{bits}"
    return Handmade(form, len(numbers), None, np.frombuffer(raw + b"\0", np.uint8))


def hard_decimals(rng: random.Random, bits: int) -> tuple[list[int], int]:
    """Integers and a scale; many lie beside the middle between two doubles."""
    scale = rng.choice([0, 1, 2, 9, 18, 22, 23, 40, 76, -1, -22, -23, -60])
    numbers = [0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))]
    for _ in range(40):
        size = rng.randrange(1, bits)
        numbers.append(rng.randrange(2**size) * rng.choice([1, -1]))
        number = abs(numbers[-1]) * Fraction(10) ** -scale
        if not number:
            continue
        x = float(number)
        middle = (Fraction(x) + Fraction(math.nextafter(x, math.inf))) / 2
        near = int(middle * Fraction(10) ** scale)
        numbers += [n for n in (near - 1, near, near + 1) if abs(n) < 2 ** (bits - 1)]
    return numbers, scale


@pytest.mark.parametrize("bits", [32, 64, 128, 256])
def test_decimals_are_rounded_once_to_the_nearest_double(bits: int) -> None:
    rng = random.Random(bits)
    for _ in range(60):
        numbers, scale = hard_decimals(rng, bits)
        got = columns.floats({"x": handmade_decimals(numbers, scale, bits)}, "x")
        assert got.tolist() == [float(decimal_of(n, scale)) for n in numbers]


@pytest.mark.parametrize("bits", [32, 64, 128, 256])
def test_decimals_are_the_integer_that_they_hold_or_an_error(bits: int) -> None:
    rng = random.Random(bits)
    for scale in (
        0,
        1,
        2,
        9,
        10,
        18,
        19,
        27,
        38,
        76,
        77,
        78,
        80,
        -1,
        -9,
        -18,
        -19,
        -80,
    ):
        edges = [0, 1, 110, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**18, 10**19]
        edges += [rng.randrange(2 ** rng.randrange(1, 70)) for _ in range(20)]
        numbers = [Fraction(e) * Fraction(10) ** scale for e in edges]
        numbers += [n + 1 for n in numbers]
        whole = [s * int(n) for n in numbers for s in (1, -1)]
        whole = [n for n in whole if -(2 ** (bits - 1)) <= n < 2 ** (bits - 1)]
        for number in whole:
            value = Fraction(number) / Fraction(10) ** scale
            column = handmade_decimals([number], scale, bits)
            if value.denominator == 1 and -(2**63) <= value < 2**63:
                found, valid = columns.integers(column, "x")
                assert (found.tolist(), valid.tolist()) == ([int(value)], [1])
                continue
            with pytest.raises(InputError) as caught:
                columns.integers(column, "x")
            is_whole = value.denominator == 1
            rule = "a 64-bit signed integer" if is_whole else "a whole number"
            got = decimal_of(number, scale) if scale else number
            assert str(caught.value) == f"expected {rule}, got {got} - at `x`, row 0"


def test_bits_beyond_the_precision_are_read_as_they_are() -> None:
    column = handmade_decimals([2**127 - 1], 20, 128, precision=20)
    got = columns.floats({"x": column}, "x")
    assert got.tolist() == [float(decimal_of(2**127 - 1, 20))]


def duck(query: str) -> Any:
    return duckdb.connect().sql(query)


DECIMALS: dict[str, Any] = {
    "list": [Decimal("7.00"), None, Decimal(2**62 + 1), Decimal("-3E0")],
    "list with ints": [7, None, Decimal(2**62 + 1), Decimal("-3.0")],
    "ints before": [7, None, 2**62 + 1, Decimal("-3.0")],
    "list with NaN": [Decimal("7.00"), math.nan, Decimal(2**62 + 1), -3],
    "list with decimal NaN": [Decimal(7), Decimal("NaN"), Decimal(2**62 + 1), -3],
    "NumPy": np.array([Decimal(7), None, 2**62 + 1, Decimal(-3)], dtype=object),
    "pandas": pd.Series([Decimal(7), None, Decimal(2**62 + 1), Decimal("-3.0")]),
    "pandas, mixed": pd.Series([Decimal(7), None, 2**62 + 1, Decimal("-3.0")]),
    "pandas of Arrow": pd.Series(
        [Decimal(7), None, Decimal(2**62 + 1), Decimal(-3)],
        dtype=pd.ArrowDtype(pa.decimal128(38, 2)),
    ),
    "polars": pl.Series([Decimal(7), None, Decimal(2**62 + 1), Decimal("-3.0")]),
    "polars, 128 bits": pl.Series([7, None, 2**62 + 1, -3], dtype=pl.Int128),
    "dictionary": pa.array(
        [Decimal(7), None, Decimal(2**62 + 1), Decimal(-3)], pa.decimal128(38, 9)
    ).dictionary_encode(),
    "slice": pa.array(
        [Decimal("0.5"), Decimal(7), None, Decimal(2**62 + 1), Decimal(-3)],
        pa.decimal256(60, 9),
    )[1:],
}


@pytest.mark.parametrize("name", DECIMALS)
def test_decimals_are_integers_in_every_container(name: str) -> None:
    assert ids_of(spec_of(INTEGERS), DECIMALS[name]) == [1, 0, 2, 3]
    got = columns.floats({"x": DECIMALS[name]}, "x")
    np.testing.assert_array_equal(got, [7.0, math.nan, 2.0**62, -3.0])


def test_decimals_in_lists_and_rows() -> None:
    spec = spec_of(INTEGERS, is_list=True)
    lists = [[Decimal(7), None], None, [], [Decimal(2**62 + 1), Decimal("-3.0")]]
    expected = [[1, 0], [0, 0], [0, 0], [2, 3]]
    assert ids_of(spec, lists) == expected
    assert [r["x"] for r in [{"x": v} for v in lists]] == lists
    rows = [{"c": 1, "x": value} for value in lists]
    assert spec.encode(rows)["x"].tolist() == expected
    kind = pa.decimal128(38, 4)
    for listed in (pa.list_(kind), pa.large_list(kind), pa.list_view(kind)):
        assert ids_of(spec, pa.array(lists, listed)) == expected
    assert ids_of(spec, pl.Series(lists, dtype=pl.List(pl.Decimal(38, 4)))) == expected


def test_sums_and_literals_of_duckdb() -> None:
    spec = spec_of(INTEGERS)
    relation = duck("select 1 c, sum(a) x from (values (3), (4)) t(a)")
    assert spec.encode(relation)["x"].tolist() == [1]
    relation = duck("select 1 c, 4611686018427387905::hugeint x")
    assert spec.encode(relation)["x"].tolist() == [2]
    relation = duck("select 1 c, 170141183460469231731687303715884105727::hugeint x")
    assert spec.encode(relation)["x"].tolist() == [0]
    relation = duck("select 0.5 x, [0.25, 0.5] y, 1::decimal(18, 3) w")
    assert columns.floats(relation, "x").tolist() == [0.5]
    assert columns.floats(relation, "w").tolist() == [1.0]


def test_dense_values_are_the_decimals_doubles_as_float32() -> None:
    texts = ["0.1", "16777217", "1E-30", "12345678901234567890.123456789", "-0.5"]
    values = [Decimal(t) for t in texts]
    plain = {"name": "c", "dim": 1, "encoder": {"type": "identity", "buckets": 9}}
    dense = {"name": "x", "side": "candidate", "dim": 1, "missing": 9.0}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [plain], "dense": [dense]})
    for column in (values, pa.array(values, pa.decimal256(76, 40)), np.array(values)):
        found = spec.encode({"c": [1] * 5, "x": column})["x"]
        assert found[:, 0].tolist() == [float(np.float32(float(v))) for v in values]
    missing = [Decimal("Infinity"), Decimal("NaN"), None, Decimal("1E400"), Decimal(1)]
    found = spec.encode({"c": [1] * 5, "x": missing})["x"]
    assert found[:, 0].tolist() == [9.0, 9.0, 9.0, 9.0, 1.0]


@given(
    st.lists(
        st.decimals(-(10**90), 10**90, allow_nan=False)
        | st.integers(-(2**200), 2**200)
        | st.none(),
        min_size=1,
    )
)
def test_any_python_numbers_are_exact_or_refused(values: list[Any]) -> None:
    expected = [math.nan if v is None else float(v) for v in values]
    finest = max((places_of(v) for v in values if v), default=0)
    if all(abs(v or 0) * Fraction(10) ** finest < 10**76 for v in map(exact, values)):
        np.testing.assert_array_equal(columns.floats({"x": values}, "x"), expected)
        return
    try:
        got = columns.floats({"x": values}, "x")
    except InputError as error:
        found = str(error)
    else:  # a little more than 76 digits fit
        np.testing.assert_array_equal(got, expected)
        return
    rule = f"expected numbers of 256 bits, with {max(finest, 0)} decimals each, got "
    assert found.startswith(rule)


def exact(value: Any) -> Fraction:
    return Fraction(0 if value is None else value)


def places_of(value: Any) -> int:
    """Digits behind the point, less than 0 where zeros end the number."""
    if isinstance(value, int):
        return 0
    places = 0
    fraction = Fraction(value)
    while fraction * Fraction(10) ** places % 1:
        places += 1
    while fraction * Fraction(10) ** (places - 1) % 1 == 0:
        places -= 1
    return places


REFUSED: list[tuple[Any, str]] = [
    (
        [Decimal(7), Decimal("1.5")],
        "expected a whole number, got 1.5 - at `x`, row 1",
    ),
    (
        [Decimal("1.00000000000000000000001")],
        "expected a whole number, got 1.00000000000000000000001 - at `x`, row 0",
    ),
    (
        pa.array([Decimal("7.00"), Decimal("-0.50")], pa.decimal128(10, 2)),
        "expected a whole number, got -0.50 - at `x`, row 1",
    ),
    (
        [1.0, Decimal("1.00000000000000000000001")],
        "expected a column of one type, got decimal 1.00000000000000000000001 beside"
        " floats - at `x`, row 1",
    ),
    (
        [Decimal("1.00000000000000000000001"), 1.0],
        "expected a column of one type, got decimal 1.00000000000000000000001 beside"
        " floats - at `x`, row 1",
    ),
    (
        [Decimal(1), Decimal("Infinity")],
        "expected a whole number, got inf - at `x`, row 1",
    ),
    (
        ["a", Decimal(1)],
        "expected a column of one type, got decimal after string - at `x`, row 1",
    ),
    (
        [Decimal(1), "a"],
        "expected a column of one type, got string after decimal - at `x`, row 1",
    ),
    (
        [Decimal("1E70"), Decimal("1E-70")],
        "expected numbers of 256 bits, with 70 decimals each, got 1E+70"
        " - at `x`, row 0",
    ),
    (
        [1, Decimal("1E-7000000000")],
        "expected numbers of 256 bits, with 7000000000 decimals each, got 1"
        " - at `x`, row 0",
    ),
    (
        [1, Decimal("1E7000000000")],
        "expected numbers of 256 bits, with 0 decimals each, got 1E+7000000000"
        " - at `x`, row 1",
    ),
    (
        [2**255],
        "expected a number of at most 256 bits, got an int of 256 - at `x`, row 0",
    ),
    (
        [Fraction(1, 2)],
        "expected a string or a number, got Fraction Fraction(1, 2) - at `x`, row 0",
    ),
]


@pytest.mark.parametrize(("column", "message"), REFUSED)
def test_what_is_no_integer_is_refused(column: Any, message: str) -> None:
    assert refusal(spec_of(INTEGERS), column) == message


def test_a_list_names_the_row_of_a_number_that_is_too_wide() -> None:
    lists = [[], [1, 2], [], [3, Decimal("1E70")], [Decimal("1E-70")]]
    assert refusal(spec_of(INTEGERS, is_list=True), lists) == (
        "expected numbers of 256 bits, with 70 decimals each, got 1E+70 - at `x`, row 3"
    )


def test_a_decimal_is_no_string() -> None:
    spec = spec_of({"type": "hash", "buckets": 9})
    message = "expected a column of strings, got decimal - at `x`"
    assert refusal(spec, [Decimal("1.5")]) == message
    assert refusal(spec, pa.array([Decimal(1)], pa.decimal128(9, 0))) == message
    assert refusal(spec, [2**64]) == "expected a column of strings, got int - at `x`"


def test_every_bad_decimal_is_collected() -> None:
    spec = spec_of(INTEGERS)
    values = [Decimal(7), Decimal("0.5"), None, Decimal("7.25"), Decimal(-3)]
    errors: list[InputError] = []
    spec.encoder.encode({"c": [1] * 5, "x": values}, errors=errors)
    assert [(e.row, e.got, e.rule) for e in errors] == [
        (1, "0.50", "a whole number"),
        (3, "7.25", "a whole number"),
    ]


def test_labels_weights_times_and_groups_may_be_decimals() -> None:
    table = pa.table(
        {
            "label": pa.array([Decimal(0), Decimal(1)], pa.decimal128(38, 0)),
            "group": pa.array([Decimal(5), Decimal(2**62 + 1)], pa.decimal128(38, 3)),
        }
    )
    assert columns.floats(table, "label").tolist() == [0.0, 1.0]
    expected = columns.hash_keys({"group": [5, 2**62 + 1]}, "group").tolist()
    assert columns.hash_keys(table, "group").tolist() == expected


# --------------------------------------------------------------------- wide integers

WIDE: dict[str, Any] = {
    "Arrow": pa.array([7, 2**63, None, 2**64 - 1], pa.uint64()),
    "NumPy": np.array([7, 2**63, 0, 2**64 - 1], dtype=np.uint64),
    "Python": [7, 2**63, None, 2**64 - 1],
    "NumPy scalars": [np.uint64(7), np.uint64(2**63), None, np.uint64(2**64 - 1)],
    "pandas": pd.Series([7, 2**63, None, 2**64 - 1], dtype="UInt64"),
    "polars": pl.Series([7, 2**63, None, 2**64 - 1], dtype=pl.UInt64),
    "decimal": pa.array([7, 2**63, None, 2**64 - 1], pa.decimal128(38, 0)),
    "dictionary": pa.array(
        [7, 2**63, None, 2**64 - 1], pa.uint64()
    ).dictionary_encode(),
}


@pytest.mark.parametrize("name", WIDE)
def test_integers_beyond_int64_are_unseen_or_hashed(name: str) -> None:
    column = WIDE[name]
    third = 0 if name == "NumPy" else None
    values = [7, 2**63, third, 2**64 - 1]
    for unseen, other in (("missing", 0), ("row", 4)):
        spec = spec_of(INTEGERS | {"unseen": unseen})
        third_id = other if third == 0 else 0
        assert ids_of(spec, column) == [1, other, third_id, other]
    identity = {"type": "identity", "buckets": 9, "unseen": "missing"}
    assert ids_of(spec_of(identity), column) == [7, 0, 0, 0]
    for int_as in ("bytes", "text"):
        keys = [
            None
            if v is None
            else str(v).encode()
            if int_as == "text"
            else v.to_bytes(8, "little")
            for v in values
        ]
        encoder = {"type": "hash", "buckets": 1000, "int_as": int_as}
        field = {"name": "x", "dtype": "int64", "dim": 1, "encoder": encoder}
        spec = FeatureSpec.from_dict({"format": 1, "candidate": [field]})
        assert spec.encode({"x": column})["x"].tolist() == [
            0 if k is None else 1 + xxhash.xxh64_intdigest(k) % 999 for k in keys
        ]


@pytest.mark.parametrize("name", WIDE)
def test_integers_beyond_int64_without_an_id_are_refused(name: str) -> None:
    column = WIDE[name]
    got = f"got {2**63} - at `x`, row 1"
    spec = spec_of(INTEGERS | {"unseen": "error"})
    assert refusal(spec, column) == f"expected a value of the vocabulary, {got}"
    spec = spec_of({"type": "identity", "buckets": 9})
    assert refusal(spec, column) == f"expected an id in [0, 9), {got}"
    assert (
        said(columns.integers, column, "x")
        == f"expected a 64-bit signed integer, {got}"
    )


def test_integers_beyond_64_bits_have_no_bytes() -> None:
    encoder = {"type": "hash", "buckets": 1000}
    field = {"name": "x", "dtype": "int64", "dim": 1, "encoder": encoder}
    spec = FeatureSpec.from_dict({"format": 1, "candidate": [field]})
    for value in (2**64, -(2**63) - 1, 2**100):
        for column in ([1, value], pa.array([1, value], pa.decimal128(38, 0))):
            with pytest.raises(InputError) as caught:
                spec.encode({"x": column})
            assert str(caught.value) == (
                f"expected an integer in [-2**63, 2**64), got {value} - at `x`, row 1"
            )
    assert ids_of(spec_of(INTEGERS), [2**64, -(2**63) - 1, 2**200, 7]) == [0, 0, 0, 1]


# ------------------------------------------------------------------------------- UUIDs

ONE = uuid.UUID("6F9619FF-8B86-D011-B42D-00CF4FC964FF")
NONE = "expected a column of strings, got {} - at `x`. Say what the encoder reads them"
NONE += ' as: uuid_as = "bytes" or "text".'


def lossless(query: str) -> Any:
    connection = duckdb.connect()
    connection.execute("set arrow_lossless_conversion = true")
    return connection.sql(query)


UUIDS: dict[str, tuple[Callable[[], Any], str]] = {
    "Python": (lambda: {"x": [ONE, None]}, "uuid"),
    "rows": (lambda: [{"x": ONE}, {"x": None}], "uuid"),
    "NumPy": (lambda: {"x": np.array([ONE, None])}, "uuid"),
    "pandas": (lambda: pd.DataFrame({"x": [ONE, None]}), "uuid"),
    "polars": (lambda: pl.DataFrame({"x": [ONE, None]}), "uuid"),
    "arrow.uuid": (
        lambda: pa.table({"x": pa.array([ONE.bytes, None], pa.uuid())}),
        "uuid",
    ),
    "16 bytes": (
        lambda: pa.table({"x": pa.array([ONE.bytes, None], pa.binary(16))}),
        "fixed_size_binary[16]",
    ),
    "dictionary": (
        lambda: pa.table(
            {"x": pa.array([ONE.bytes, None], pa.binary(16)).dictionary_encode()}
        ),
        "fixed_size_binary[16]",
    ),
    "DuckDB": (
        lambda: lossless(f"select unnest(['{ONE}'::uuid, null]) x"),
        "uuid",
    ),
}


def uuid_spec(uuid_as: str | None, kind: str = "hash") -> FeatureSpec:
    encoder: dict[str, Any] = {"type": kind}
    encoder |= {"buckets": 1000} if kind == "hash" else {"values": [str(ONE), "a"]}
    encoder |= {"uuid_as": uuid_as} if uuid_as else {}
    field = {"name": "x", "dim": 1, "encoder": encoder}
    return FeatureSpec.from_dict({"format": 1, "candidate": [field]})


@pytest.mark.parametrize("name", UUIDS)
def test_uuids_are_their_bytes_or_their_text(name: str) -> None:
    make, type_name = UUIDS[name]
    for uuid_as, key in (("bytes", ONE.bytes), ("text", str(ONE).encode())):
        expected = [1 + xxhash.xxh64_intdigest(key) % 999, 0]
        spec = uuid_spec(uuid_as)
        assert spec.encode(make())["x"].tolist() == expected
        again = FeatureSpec.from_json(spec.to_json())
        assert again == spec
        assert again.candidate[0].encoder.uuid_as == uuid_as
        assert again.encode(make())["x"].tolist() == expected
    assert uuid_spec("text", "vocab").encode(make())["x"].tolist() == [1, 0]
    with pytest.raises(InputError) as caught:
        uuid_spec(None).encode(make())
    assert str(caught.value) == NONE.format(type_name)


def test_text_beside_uuids_is_the_same_key_or_refused() -> None:
    low, high = str(ONE), str(ONE).upper()
    spec = uuid_spec("text", "vocab")
    assert spec.encode({"x": [low, "a", None]})["x"].tolist() == [1, 2, 0]
    for column in ([low, high], pa.array([low, high]).dictionary_encode()):
        with pytest.raises(InputError) as caught:
            spec.encode({"x": column})
        assert str(caught.value) == (
            f"expected UUIDs in lower case, got {high!r} - at `x`, row 1."
            " Cast the column to lower case."
        )
    with pytest.raises(InputError) as caught:
        uuid_spec("bytes").encode({"x": ["a", low]})
    assert str(caught.value) == (
        f"expected UUIDs of 16 bytes, got {low!r} - at `x`, row 1."
        ' Cast the column to UUID, or say uuid_as = "text" in the encoder.'
    )
    for column in ([b"a", ONE.bytes], pa.array([b"a", ONE.bytes])):
        with pytest.raises(InputError) as caught:
            uuid_spec("text").encode({"x": column})
        assert str(caught.value) == (
            f"expected UUIDs, got {ONE.bytes!r} - at `x`, row 1."
            " Cast the column to UUID, or to binary of a fixed size."
        )
        assert uuid_spec("bytes").encode({"x": column})["x"].shape == (2,)
    plain = uuid_spec(None).encode({"x": ["a", low, high]})["x"].tolist()
    assert len(set(plain)) == 3


def test_fixed_size_binary_of_another_size_is_its_bytes() -> None:
    column = pa.array([b"abc", None], pa.binary(3))
    expected = uuid_spec(None).encode({"x": ["abc", None]})["x"].tolist()
    assert uuid_spec("bytes").encode({"x": column})["x"].tolist() == expected
    for uuid_as in (None, "text"):
        with pytest.raises(InputError) as caught:
            uuid_spec(uuid_as).encode({"x": column})
        assert str(caught.value) == (
            "expected a column of strings, got fixed_size_binary[3] - at `x`."
            ' Say what the encoder reads them as: uuid_as = "bytes".'
        )


def test_uuids_in_histories_are_padded_and_cut() -> None:
    two, nil = uuid.uuid4(), uuid.UUID(int=0)
    encoder = {"type": "vocab", "values": [str(ONE), str(two)], "uuid_as": "text"}
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [{"name": "g", "dim": 1, "encoder": encoder}],
            "behavior": [
                {
                    "name": "h",
                    "max_len": 2,
                    "pad_value": str(nil),
                    "fields": {"x": "g"},
                }
            ],
        }
    )
    lists = [[ONE, two, two, nil], [nil, nil], [ONE]]
    raw = [[u.bytes for u in row] for row in lists]
    for column in (lists, pa.array(raw, pa.list_(pa.binary(16)))):
        found = spec.encode({"g": [ONE, two, None], "x": column})
        assert found["x"].tolist() == [[2, 2], [0, 0], [1, 0]]
        assert found["h.lengths"].tolist() == [2, 0, 1]
        assert found["g"].tolist() == [1, 2, 0]


def test_long_histories_of_uuids_are_cut_as_their_text_is() -> None:
    nil = uuid.UUID(int=0)
    encoder = {"type": "hash", "buckets": 99, "uuid_as": "text"}
    history = {"name": "h", "max_len": 999, "pad_value": str(nil), "fields": {"x": "g"}}
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [{"name": "g", "dim": 1, "encoder": encoder}],
            "behavior": [history],
        }
    )
    lists = [[ONE, nil], [ONE] * 200, [nil] * 300, *[[ONE]] * 20]
    texts = [list(map(str, row)) for row in lists]
    with mock.patch.object(encode, "MOST_CELLS", 400):
        found = spec.encoder.cut({"g": ["a"] * 23, "x": lists})
        assert found == spec.encoder.cut({"g": ["a"] * 23, "x": texts})
    assert len(found) > 1


def test_the_key_is_one_of_string_fields() -> None:
    for encoder in (
        {"type": "identity", "buckets": 9, "uuid_as": "text"},
        {"type": "bucketize", "boundaries": [1.0], "uuid_as": "text"},
    ):
        with pytest.raises(ModelError, match="got 'uuid_as' - at"):
            spec_of(encoder)
    with pytest.raises(ModelError) as caught:
        uuid_spec("hex")
    assert str(caught.value) == (
        "expected one of bytes, text, got 'hex' - at `candidate[0].encoder.uuid_as`"
    )
    with pytest.raises(ModelError) as caught:
        uuid_spec("bytes", "vocab")
    assert str(caught.value) == (
        f"expected values that are no text of UUIDs, got '{ONE}'"
        ' - at `candidate[0].encoder.values`. Say uuid_as = "text".'
    )


def test_hash_buckets_takes_the_key() -> None:
    for uuid_as, key in (("bytes", ONE.bytes), ("text", str(ONE).encode())):
        expected = [1 + xxhash.xxh64_intdigest(key) % 999]
        assert hash_buckets([ONE], 1000, uuid_as=uuid_as).tolist() == expected
    with pytest.raises(InputError) as caught:
        hash_buckets([ONE], 1000, uuid_as="hex")
    assert str(caught.value) == "expected bytes or text, got 'hex' - at `uuid_as`"


def test_groups_of_uuids_equal_their_text() -> None:
    expected = columns.hash_keys({"g": [str(ONE), None]}, "g").tolist()
    assert columns.hash_keys({"g": [ONE, None]}, "g").tolist() == expected
    column = pa.array([ONE.bytes, None], pa.uuid())
    assert columns.hash_keys({"g": column}, "g").tolist() == expected


def test_a_uuid_is_no_integer() -> None:
    assert refusal(spec_of(INTEGERS), [ONE]) == (
        "expected a column of integers, got uuid - at `x`"
    )


# ------------------------------------------------------------------------- extensions


def extended(
    array: pa.Array, name: str, about: str = "", *, inside: bool = False
) -> pa.Table:
    """A column `x` of an extension type that pyarrow itself does not know."""
    metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": about}
    if inside:
        item = pa.field("item", array.type, metadata=metadata)
        field = pa.field("x", pa.list_(item))
        array = pa.ListArray.from_arrays([0, len(array)], array, type=field.type)
    else:
        field = pa.field("x", array.type, metadata=metadata)
    return pa.table([array], schema=pa.schema([field]))


def read(table: Any, dtype: str, *, is_list: bool = False) -> Any:
    column = columns.open_batch(table, ["x"]).columns["x"]
    return columns.require_dtype(column, dtype, is_list=is_list)


UNKNOWN: list[tuple[pa.Array, str, str, str]] = [
    (
        pa.array([b"\x80"], pa.large_binary()),
        "ray.data.arrow_pickled_object",
        "string",
        "large_binary",
    ),
    (pa.array([b"a" * 16], pa.binary(16)), "arrow.opaque", "string", "?"),
    (pa.array(["a"]), "arrow.opaque", "string", "string"),
    (pa.array([1]), "pandas.period", "int64", "int64"),
    (pa.array([b"a"]), "geoarrow.wkb", "string", "binary"),
    (pa.array(["a"]), "arrow.uuid", "string", "string"),
    (pa.array([1], pa.int16()), "arrow.bool8", "int64", "int16"),
    (pa.array([b"a"]), "arrow.json", "string", "binary"),
    (pa.array([1.0], pa.float16()), "lance.bfloat16", "float", "float16"),
    (pa.array(["a"]).dictionary_encode(), "mine", "string", "string"),
    (pa.array([Decimal(1)]), "mine", "int64", "decimal"),
    (pa.array([{"a": 1}]), "arrow.variable_shape_tensor", "int64", "struct"),
]


@pytest.mark.parametrize(("array", "name", "dtype", "storage"), UNKNOWN)
def test_unknown_extension_types_are_refused_by_name(
    array: pa.Array, name: str, dtype: str, storage: str
) -> None:
    storage = storage.replace("?", "fixed_size_binary[16]")
    kind = {"string": "strings", "int64": "integers", "float": "numbers"}[dtype]
    for inside in (False, True):
        table = extended(array, name, inside=inside)
        with pytest.raises(InputError) as caught:
            read(table, dtype, is_list=inside)
        of = "lists of " if inside else ""
        assert str(caught.value) == (
            f"expected a column of {of}{kind}, got {of}extension type {name} over"
            f" {storage} - at `x`. Turn it into text, numbers or lists of them."
        )
        unused = table.append_column("y", pa.array([1]))
        assert columns.floats(unused, "y").tolist() == [1.0]


def test_known_extension_types_are_what_they_store() -> None:
    table = extended(pa.array(["{}"], pa.large_string()), "arrow.json")
    assert read(table, "string").kind == "string"
    table = extended(pa.array([5, 0, None, -1, 1], pa.int8()), "arrow.bool8")
    found, valid = columns.integers(table["x"], "x")
    assert found.tolist() == [0, 0, 0, 0, 0] or valid.tolist() == [1, 1, 0, 1, 1]
    column = columns.open_batch(table, ["x"]).columns["x"]
    assert _kernels.read_int64(column)[0].tolist() == [1, 0, 0, 1, 1]
    got = columns.floats(table, "x")
    np.testing.assert_array_equal(got, [1.0, 0.0, math.nan, 1.0, 1.0])
    coded = pa.array([5, 0, None, 5], pa.int8()).dictionary_encode()
    column = columns.open_batch(extended(coded, "arrow.bool8"), ["x"]).columns["x"]
    assert _kernels.read_int64(column)[0].tolist() == [1, 0, 0, 1]


TENSORS: dict[str, Callable[[Any], str]] = {
    "arrow.fixed_shape_tensor": lambda shape: json.dumps({"shape": shape}),
    "ray.data.arrow_tensor": json.dumps,
    "ray.data.arrow_tensor_v2": json.dumps,
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_one_dimension_are_lists(name: str) -> None:
    array = pa.array([[1, 2], [3, 4]])
    about = TENSORS[name]([2])
    assert read(extended(array, name, about), "int64", is_list=True).is_list
    for other in (
        TENSORS[name]([2, 1]),
        TENSORS[name]([]),
        "",
        "\x80\x04K",
        "[" * 9999,
    ):
        with pytest.raises(InputError) as caught:
            read(extended(array, name, other), "int64", is_list=True)
        assert str(caught.value) == (
            "expected a column of lists of integers, got lists of extension type"
            f" {name} over list - at `x`. Turn it into text, numbers or lists of them."
        )


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_fixed_size_binary_are_no_lists(name: str) -> None:
    """Ray has NumPy's text so, four bytes a letter."""
    array = pa.array([[b"a" * 16]], pa.list_(pa.binary(16)))
    table = extended(array, name, TENSORS[name]([1]))
    column = columns.open_batch(table, ["x"]).columns["x"]
    with pytest.raises(InputError) as caught:
        columns.require_dtype(column, "string", is_list=True, uuid_as="bytes")
    assert str(caught.value) == (
        "expected a column of lists of strings, got lists of extension type"
        f" {name} of fixed_size_binary[16] - at `x`."
        " Turn it into text, numbers or lists of them."
    )


def test_tensors_of_pyarrow() -> None:
    flat = pa.array([[1, 2]], pa.list_(pa.int64(), 2))
    for shape, is_read in (([2], True), ([1, 2], False), ([2, 1], False)):
        kind = pa.fixed_shape_tensor(pa.int64(), shape)
        column = pa.ExtensionArray.from_storage(kind, flat)
        spec = spec_of({"type": "identity", "buckets": 9}, is_list=True)
        if is_read:
            assert ids_of(spec, column) == [[1, 2]]
        else:
            assert "arrow.fixed_shape_tensor" in refusal(spec, column)


def test_frames_of_pandas_and_duckdb_with_extension_types() -> None:
    period = pd.DataFrame({"x": pd.period_range("2020", periods=2, freq="D")})
    with pytest.raises(InputError, match=r"type pandas.period over int64 - at `x`"):
        read(period, "int64")
    with pytest.raises(InputError, match=r"arrow.opaque over .*\[16\] - at `x`"):
        read(lossless("select 5::hugeint x"), "int64")
    assert read(lossless("select true x"), "int64").type_name == "bool"


# ------------------------------------------------------------------------ other types

CAST = " Cast it to int64 or to text, as it was in training."
TURN = " Turn it into text, numbers or lists of them."
OTHERS: list[tuple[Any, str]] = [
    (pa.array([1], pa.date32()), "got date - at `x`." + CAST),
    (pa.array([1], pa.date64()), "got date - at `x`." + CAST),
    (pa.array([1], pa.time32("s")), "got time - at `x`." + CAST),
    (pa.array([1], pa.timestamp("us", "UTC")), "got timestamp - at `x`." + CAST),
    (pa.array([1], pa.duration("s")), "got duration - at `x`." + CAST),
    (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "got interval - at `x`." + CAST),  # noqa: E501
    (np.array([1], "M8[s]"), "got datetime64[s] - at `x`." + CAST),
    (np.array([1], "m8[s]"), "got timedelta64[s] - at `x`." + CAST),
    (pd.Series(pd.to_datetime(["2020-01-01"])), "got timestamp - at `x`." + CAST),
    (
        pa.array([{"a": 1}]),
        "got struct - at `x`. Make a column of each of its fields that is read.",
    ),
    (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "got map - at `x`." + TURN),  # noqa: E501
    (
        pa.RunEndEncodedArray.from_arrays([1], [1]),
        "got run_end_encoded - at `x`."
        " Decode it: pyarrow.compute.run_end_decode(column).",
    ),
    (
        pa.array(["a"]),
        'got string - at `x`. Cast the column to integers, or say dtype = "string" in'
        " the spec, with a hash or a vocabulary: the ids differ.",
    ),
    (np.array([1j]), "got complex128 - at `x`"),
    (
        pl.Series([1], dtype=pl.UInt128),
        "got Arrow format '_plu128' - at `x`. Cast it to Int64, Decimal or String.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("column", "got"), OTHERS)
def test_other_types_are_refused_with_the_mend(column: Any, got: str) -> None:
    expected = f"expected a column of integers, {got}"
    assert refusal(spec_of(INTEGERS), column) == expected


def test_dates_of_python_are_refused() -> None:
    assert refusal(spec_of(INTEGERS), [datetime.date(2020, 1, 1)]) == (
        "expected a string or a number, got date datetime.date(2020, 1, 1)"
        " - at `x`, row 0"
    )


def test_null_types_are_null() -> None:
    assert ids_of(spec_of(INTEGERS), pa.nulls(2)) == [0, 0]
    spec = spec_of(INTEGERS, is_list=True)
    assert ids_of(spec, pa.array([[None], None])) == [[0], [0]]


# -------------------------------------------------------------------------- malformed

DECIMAL = malformed("a decimal's precision and scale")
NONSENSE = [
    *("d:", "d:1", "d:1,2,3", "d:1,2,64,5", "d:x,1", "d:0,0", "d:39,0", "d:10,0,32"),
    *(
        "d:19,0,64",
        "d:77,0,256",
        "d:-1,0",
        "d:9,99999999999",
        "d:9,-2147483648",
        "d:9,",
    ),
    "d:" + "9" * 5000 + ",1",
]


@pytest.mark.parametrize("form", NONSENSE)
def test_nonsense_of_decimals_is_refused(form: str) -> None:
    array = Handmade(form, 1, None, np.zeros(4, np.int64))
    assert said(_kernels.import_arrow, array, "x") == DECIMAL


def test_fixed_sizes_that_do_not_fit_are_refused() -> None:
    for form, length in (("w:2147483647", 2**40), ("w:100", 2**57)):
        array = Handmade(form, length, None, np.zeros(4, np.int64))
        assert said(_kernels.import_arrow, array, "x") == malformed(
            "a length and an offset that fit"
        )
    for form in ("w:0", "w:-1", "w:x", "w:2147483648", "w:"):
        column = _kernels.import_arrow(Handmade(form, 1, None, None), "x")[1]["x"]
        assert (column.kind, column.type_name) == ("other", "fixed_size_binary")


def test_decimals_without_buffers_are_refused() -> None:
    for form in ("d:9,0", "d:9,0,32", "w:16"):
        assert said(
            _kernels.import_arrow, Handmade(form, 1, None, None), "x"
        ) == malformed("a data buffer")
        assert said(_kernels.import_arrow, Handmade(form, 1, None), "x") == malformed(
            "2 buffers"
        )


def test_metadata_that_is_no_list_of_pairs_is_refused() -> None:
    for words in ([-1], [1, -5], [1, 0, -5]):
        array = Handmade("l", 1, None, np.zeros(1, np.int64))
        raw = np.array(words, dtype=np.int32)
        array.schema.metadata = raw.tobytes() + b"\0" * 8
        assert said(_kernels.import_arrow, array, "x") == malformed(
            "metadata of keys and values"
        )

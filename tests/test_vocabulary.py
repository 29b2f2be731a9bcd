"""Vocabularies against a Python dict, on every instruction set of this machine.

Above 400 lines: most are tables of what is refused, message by message.
"""

import functools
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from din_infer import _kernels
from din_infer.columns import to_column
from din_infer.errors import DeviceError, InputError, ModelError
from din_infer.spec import FeatureSpec
from tests import hostile
from tests.reference_hash import MASK, P1, P2, P3, P4, rotate, signed, word
from tests.test_hash import inverse, key_of_xxh64, undo_xor_shift

Key = str | bytes | int
Keys = list[Any]

each_isa = pytest.mark.parametrize("isa", _kernels.isas())
# Beside the blocks in which keys are looked up, and the turns of the table's size.
COUNTS = [
    0,
    1,
    2,
    3,
    4,
    5,
    127,
    128,
    129,
    255,
    256,
    257,
    511,
    512,
    513,
    1024,
    1025,
    5000,
]


def lookup(
    vocabulary: _kernels.Vocabulary,
    column: object,
    unseen: str = "missing",
    isa: str | None = None,
) -> tuple[list[int], int, int]:
    encoder = _kernels.Encoder(
        "vocab",
        vocabulary.dtype,
        rows=len(vocabulary) + 2,
        vocabulary=vocabulary,
        unseen=unseen,
        isa=isa,
    )
    ids, nulls, count = _kernels.encode_scalars(to_column(column, "x"), encoder)
    return ids.tolist(), nulls, count


def check(keys: Keys, others: Keys, isa: str | None) -> None:
    """Look all keys and others up, in any order; others are mostly not there."""
    dtype = "int64" if isinstance([*keys, *others][0], int) else "string"
    vocabulary = _kernels.Vocabulary(list(keys), dtype, isa)
    assert len(vocabulary) == len(keys)
    id_of = {key: i + 1 for i, key in enumerate(keys)}
    assert len(id_of) == len(keys)
    asked = [*keys, *others]
    np.random.default_rng(len(asked)).shuffle(asked)
    for absent, unseen in ((0, "missing"), (len(keys) + 1, "row")):
        expected = [id_of.get(key, absent) for key in asked]
        count = sum(key not in id_of for key in asked)
        assert lookup(vocabulary, asked, unseen) == (expected, 0, count)
        with_nulls = [None, *asked, None]
        assert lookup(vocabulary, with_nulls, unseen) == ([0, *expected, 0], 2, count)


# --------------------------------------------------------------------------------- keys


@functools.cache
def words(count: int, seed: int) -> list[str]:
    """Words of few letters and most lengths, so that many begin alike."""
    rng = random.Random(seed)
    sizes = [*range(20), 33, 65, 241, 300]
    found = {"".join(rng.choices("ab\0é🙂", k=rng.choice(sizes))) for _ in range(count)}
    found |= {f"goods_{i}" for i in range(count - len(found))}
    return rng.sample(sorted(found), count)


@each_isa
@pytest.mark.parametrize("count", COUNTS)
def test_words_are_found(count: int, isa: str) -> None:
    found = words(2 * count + 2, count)
    check(found[:count], found[count:], isa)


@each_isa
def test_prefixes_are_other_keys(isa: str) -> None:
    text = "".join(chr(97 + i * i % 26) for i in range(700))
    prefixes = [text[:i] for i in range(len(text))]
    check(prefixes[::2], prefixes[1::2], isa)
    check([text], prefixes, isa)


@each_isa
def test_empty_strings_and_zeros_are_keys(isa: str) -> None:
    zeros = ["\0" * i for i in range(400)]
    check(zeros, ["a", "\0a", "a\0"], isa)
    check(zeros[1:], [""], isa)
    check([""], zeros[1:], isa)
    check(["a", "a\0", "\0a"], ["a\0\0", *zeros], isa)


INTEGERS: dict[str, list[int]] = {
    "from 0": list(range(5000)),
    "below 0": list(range(-5000, 0)),
    "steps of 2**32": [i << 32 for i in range(-2000, 2000)],
    "steps of 2**52": [i << 52 for i in range(-2048, 2048)],
    "powers": sorted(
        {s * 2**i + d for i in range(63) for s in (1, -1) for d in (0, 1)}
    ),
    "extremes": [-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 2, 2**63 - 1],
    "ids of 10 digits": list(range(1_000_000_000, 1_000_100_000, 37)),
}


@each_isa
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_found(name: str, isa: str) -> None:
    keys = INTEGERS[name]
    known = set(keys)
    others = [k for n in INTEGERS for k in INTEGERS[n] if k not in known]
    check(keys, others, isa)
    check(keys[::2], keys[1::2], isa)
    check(keys[::-1], [], isa)


@each_isa
@pytest.mark.parametrize("count", COUNTS)
def test_random_integers_are_found(count: int, isa: str) -> None:
    rng = np.random.default_rng(count)
    found = np.unique(rng.integers(-(2**63), 2**63 - 1, 2 * count + 2)).tolist()
    rng.shuffle(found)
    check(found[:count], found[count:], isa)


@each_isa
@given(
    st.lists(hostile.texts() | st.text("a\0", max_size=5), unique=True, max_size=60),
    st.lists(hostile.texts() | st.text("a\0", max_size=5), min_size=1),
)
def test_any_strings_are_found(isa: str, keys: Keys, others: Keys) -> None:
    check(keys, others, isa)


integers = st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9)


@each_isa
@given(st.lists(integers, unique=True, max_size=60), st.lists(integers, min_size=1))
def test_any_integers_are_found(isa: str, keys: Keys, others: Keys) -> None:
    check(keys, others, isa)


def changed(key: str, rng: random.Random) -> str:
    """Return a key that is another by one letter, or by its length."""
    at = rng.randrange(len(key) + 1)
    cut, letter = rng.choice([(0, "x"), (1, ""), (1, "x")])
    return key[:at] + letter + key[at + cut :]


@each_isa
@pytest.mark.parametrize("longest", [3, 8, 20, 60, 200])
@pytest.mark.parametrize("count", [1, 7, 100, 3000])
def test_keys_of_all_lengths_and_their_likes(
    count: int, longest: int, isa: str
) -> None:
    rng = random.Random(count + longest)
    # long ones are rare, so that slots hold them in one vocabulary and not in another
    sizes = [int(longest * rng.random() ** rng.choice([1, 4])) for _ in range(count)]
    keys = list(dict.fromkeys("".join(rng.choices("abcdef", k=n)) for n in sizes))
    check(keys, [changed(key, rng) for key in [*keys, *keys]], isa)
    check(keys[::2], keys[1::2], isa)


@each_isa
@pytest.mark.parametrize("num_long", [1, 100, 900])
def test_keys_longer_than_slots_are_told_apart_at_every_byte(
    num_long: int, isa: str
) -> None:
    short = [f"{i:05}" for i in range(1000)]
    text = "0123456789" * 10
    long = [text[: i % 60] + "é" + text[i % 60 :] + f"{i:03}" for i in range(num_long)]
    others = [key[:i] + "?" + key[i + 1 :] for key in long[:9] for i in range(len(key))]
    check([*short, *long], [*others, text[:8], text[:57], text], isa)


@each_isa
@pytest.mark.parametrize("kind", ["bytes", "int"])
@pytest.mark.parametrize("count", [2, 5, 31, 32, 33, 600])
def test_keys_of_one_bucket_are_found(kind: str, count: int, isa: str) -> None:
    # Their hashes differ in the low half alone.
    hashes = [0xABCD1234 << 32 | i << 12 for i in range(count)]
    keys: Keys = [key_of_xxh64(h) for h in hashes]
    assert [xxhash.xxh64_intdigest(k) for k in keys] == hashes
    if kind == "int":
        keys = [signed(word(key, 0), 64) for key in keys]
    half = count // 2
    check(keys, [], isa)
    check(keys[:half], keys[half:], isa)
    check(keys[half:], keys[:half], isa)
    others: Keys = [7 * i for i in range(3000)]
    if kind == "bytes":
        others = [f"{i}".encode() for i in others]
    check([*others, *keys[:half]], [*keys[half:]], isa)


def long_key(start: bytes, h: int) -> bytes:
    """Append to a start of whole words the 8 bytes that give it the hash `h`."""

    def before_last_steps(h: int) -> int:
        x = undo_xor_shift(h, 32) * inverse(P3) & MASK
        x = undo_xor_shift(x, 29) * inverse(P2) & MASK
        return rotate((undo_xor_shift(x, 33) - P4) * inverse(P1) & MASK, 64 - 27)

    of_zeros = before_last_steps(xxhash.xxh64_intdigest(start + bytes(8)))
    x = (before_last_steps(h) ^ of_zeros) * inverse(P1) & MASK
    return start + (rotate(x, 64 - 31) * inverse(P2) & MASK).to_bytes(8, "little")


@each_isa
@pytest.mark.parametrize("num_bytes", [16, 40, 136, 264, 1032])
def test_keys_of_one_hash_are_told_apart(num_bytes: int, isa: str) -> None:
    starts = [i.to_bytes(num_bytes - 8, "big") for i in range(300)]
    keys = [long_key(start, 0xABCD1234_56789ABC) for start in starts]
    assert len({xxhash.xxh64_intdigest(k) for k in keys}) == 1
    check(keys[:2], keys[2:], isa)
    check(keys[:250], keys[250:], isa)
    more = [f"{i}".encode() for i in range(1000)]
    check([*more, *keys[250:]], keys[:250], isa)
    for first, second in ((0, 1), (3, 299), (298, 299)):
        spoiled = list(keys)
        spoiled[second] = spoiled[first]
        with pytest.raises(InputError, match=f"at {first} and {second} "):
            _kernels.Vocabulary([*spoiled, spoiled[0]], "string", isa)


@pytest.mark.slow
def test_keys_of_a_hundred_thousand_to_a_bucket_are_no_worry() -> None:
    # compared by twos, these would take minutes
    high = 0xABCD1234 << 32
    keys = [signed(word(key_of_xxh64(high | i), 0), 64) for i in range(200_000)]
    vocabulary = _kernels.Vocabulary(keys[:100_000], "int64")
    expected = [*range(1, 100_001), *[0] * 100_000]
    assert lookup(vocabulary, keys) == (expected, 0, 100_000)


@each_isa
@pytest.mark.parametrize("of", [*_kernels.isas(), None])
def test_instruction_sets_read_each_others_tables(of: str | None, isa: str) -> None:
    keys = words(1000, 1)
    vocabulary = _kernels.Vocabulary(keys[:500], "string", of)
    expected = [*range(1, 501), *[0] * 500]
    assert lookup(vocabulary, keys, isa=isa) == (expected, 0, 500)


HOLDERS: dict[str, Callable[[Keys], Any]] = {
    "string": lambda keys: pa.array(keys, pa.string()),
    "large_string": lambda keys: pa.array(keys, pa.large_string()),
    "string_view": lambda keys: pa.array(keys, pa.string_view()),
    "binary": lambda keys: pa.array([k.encode() for k in keys], pa.binary()),
    "dictionary": lambda keys: pa.array([*keys, *keys]).dictionary_encode()[
        : len(keys)
    ],
    "chunks": lambda keys: pa.chunked_array([keys[:300], keys[300:]]),
    "objects": lambda keys: np.array(keys, dtype=object),
    "StringDType": lambda keys: np.array(keys, dtype=np.dtypes.StringDType()),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_words_are_found_in_every_holder(holder: str) -> None:
    keys = words(2000, 2)
    vocabulary = _kernels.Vocabulary(keys[:1000], "string")
    expected = [*range(1, 1001), *[0] * 1000]
    assert lookup(vocabulary, HOLDERS[holder](keys)) == (expected, 0, 1000)


# ------------------------------------------------------------------------------- unseen


def spec_of(values: Keys, dtype: str = "string", **encoder: object) -> FeatureSpec:
    return FeatureSpec.from_dict(raw_of({"values": values, **encoder}, dtype))


def raw_of(encoder: dict[str, Any], dtype: str) -> dict[str, Any]:
    field = {"name": "x", "dtype": dtype, "dim": 1}
    return {
        "format": 1,
        "candidate": [{**field, "encoder": {"type": "vocab", **encoder}}],
    }


@pytest.mark.parametrize(
    ("values", "column", "dtype"),
    [
        (["a", ""], ["", "b", "a", None, "aa"], "string"),
        ([7, -1], [-1, 8, 7, None, 0], "int64"),
    ],
)
def test_unseen_values_get_the_last_row_or_are_missing(
    values: Keys, column: Keys, dtype: str
) -> None:
    by_default = spec_of(values, dtype)
    assert by_default.inputs[0].rows == 4
    assert by_default.encode({"x": column})["x"].tolist() == [2, 3, 1, 0, 3]
    missing = spec_of(values, dtype, unseen="missing")
    assert missing.encode({"x": column})["x"].tolist() == [2, 0, 1, 0, 0]
    assert missing.inputs[0].rows == 4


@pytest.mark.parametrize(
    ("values", "column", "got"),
    [
        (["a"], ["a", None, "b", "c"], "'b'"),
        (["a"], ["a", "a", ""], "''"),
        (["a"], pa.array([b"a", b"a", b"\xff"], pa.binary()), "b'\\xff'"),
        ([7], [7, 7, -(2**63)], "-9223372036854775808"),
        ([7], np.array([7, 7, 8.0]), "8.0"),
        ([7], np.array([7, 7, 8], dtype=np.uint8), "8"),
    ],
)
def test_unseen_values_may_be_refused(values: Keys, column: object, got: str) -> None:
    dtype = "string" if isinstance(values[0], str) else "int64"
    with pytest.raises(InputError) as caught:
        spec_of(values, dtype, unseen="error").encode({"x": column})
    assert str(caught.value) == (
        f"expected a value of the vocabulary, got {got} - at `x`, row 2"
    )


def test_an_empty_vocabulary_has_seen_nothing() -> None:
    for dtype, column in (("string", ["", "a", None]), ("int64", [0, 1, None])):
        assert spec_of([], dtype).encode({"x": column})["x"].tolist() == [1, 1, 0]


# ----------------------------------------------------------------------------- refusals

TWICE = "expected each value once, got "
LINES = "`. It is value {} and value {}: of a file, these lines."


@each_isa
@pytest.mark.parametrize(
    ("first", "second"),
    [(0, 1), (0, 255), (0, 256), (254, 255), (255, 256), (256, 257), (1, 999)],
)
def test_the_first_key_that_is_there_twice_is_named(
    first: int, second: int, isa: str
) -> None:
    for keys in (words(1000, 3), list(range(1000))):
        spoiled: Keys = list(keys)
        spoiled[second] = spoiled[first]
        with pytest.raises(InputError) as caught:
            _kernels.Vocabulary(spoiled, "int64" if keys[0] == 0 else "string", isa)
        got = f"{spoiled[first]!r:.80} at {first} and {second}"
        assert str(caught.value) == f"{TWICE}{got} - at `values`"


NUMBERS = "expected a scalar column of numbers, got "
REFUSED: list[tuple[Keys, str, str]] = [
    (["a", "b", "a", "b"], "string", TWICE + "'a' at 0 and 2 - at `values`"),
    (["", ""], "string", TWICE + "'' at 0 and 1 - at `values`"),
    ([3, 4, 4], "int64", TWICE + "4 at 1 and 2 - at `values`"),
    ([1, True], "int64", TWICE + "True at 0 and 1 - at `values`"),
    (
        ["x" * 100] * 2,
        "string",
        TWICE + "'" + "x" * 79 + " at 0 and 1 - at `values`",
    ),
    ([1], "string", "expected a scalar column of strings, got int64 - at `values`"),
    (
        [["a"]],
        "string",
        "expected a scalar column of strings, got lists of string - at `values`",
    ),
    (["a"], "int64", NUMBERS + "string - at `values`"),
    ([[1]], "int64", NUMBERS + "lists of int64 - at `values`"),
    ([1.0], "int64", "expected strings or integers, got others - at `values`"),
    ([1, 0.5], "int64", "expected strings or integers, got others - at `values`"),
    ([None], "int64", "expected strings or integers, got others - at `values`"),
    ([None], "string", "expected strings or integers, got others - at `values`"),
    ([1, None], "int64", "expected strings or integers, got others - at `values`"),
    (["a", None], "string", "expected strings or integers, got others - at `values`"),
    (
        ["a", 1],
        "string",
        "expected a column of one type, got int64 after string - at `values`, row 1",
    ),
    (
        [0, 2**63],
        "int64",
        "expected strings or integers, got others - at `values`",
    ),
    (
        ["\ud800"],
        "string",
        "expected text that has a UTF-8 form, got '\\ud800' - at `values`, row 0",
    ),
    ([1.0], "float", "expected string or int64, got 'float' - at `dtype`"),
]


@pytest.mark.parametrize(("keys", "dtype", "message"), REFUSED)
def test_wrong_keys_are_refused(keys: Keys, dtype: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        _kernels.Vocabulary(keys, dtype)
    assert str(caught.value) == message


def test_unknown_instruction_sets_are_refused() -> None:
    with pytest.raises(DeviceError) as caught:
        _kernels.Vocabulary(["a"], "string", "mmx")
    known = ", ".join(reversed(_kernels.isas()))
    assert str(caught.value) == (
        f"expected an instruction set of this machine ({known}), got mmx - at `isa`"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 3}, "expected a vocabulary of string, got none - at `encoder`"),
        (
            {"rows": 3, "vocabulary": _kernels.Vocabulary([1], "int64")},
            "expected a vocabulary of string, got int64 - at `encoder`",
        ),
        (
            {"rows": 3, "vocabulary": _kernels.Vocabulary(["a", "b"], "string")},
            "expected at least 4 rows, got 3 - at `encoder`",
        ),
    ],
)
def test_encoders_refuse_vocabularies_that_do_not_fit(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        _kernels.Encoder("vocab", "string", **options)
    assert str(caught.value) == message


PLACE = " - at `candidate[0].encoder.values"
REFUSED_BY_SPECS: list[tuple[Any, str, str]] = [
    (["a", "b", "a"], "string", TWICE + "'a' twice" + PLACE + LINES.format(1, 3)),
    ([5, 6, 5], "int64", TWICE + "5 twice" + PLACE + LINES.format(1, 3)),
    (["a", 3], "string", "expected a value of dtype string, got 3" + PLACE + "[1]`"),
    (
        ["a", None],
        "string",
        "expected a value of dtype string, got None" + PLACE + "[1]`",
    ),
    ([b"a"], "string", "expected a value of dtype string, got b'a'" + PLACE + "[0]`"),
    (
        ["a", "\ud800"],
        "string",
        "expected a value of dtype string, got '\\ud800'" + PLACE + "[1]`",
    ),
    ([True], "int64", "expected a value of dtype int64, got True" + PLACE + "[0]`"),
    ([0, 1.0], "int64", "expected a value of dtype int64, got 1.0" + PLACE + "[1]`"),
    ([0, "x"], "int64", "expected a value of dtype int64, got 'x'" + PLACE + "[1]`"),
    ([[0]], "int64", "expected a value of dtype int64, got [0]" + PLACE + "[0]`"),
    (
        [2**63],
        "int64",
        "expected a value of dtype int64, got 9223372036854775808" + PLACE + "[0]`",
    ),
    (
        [-(2**63) - 1],
        "int64",
        "expected a value of dtype int64, got -9223372036854775809" + PLACE + "[0]`",
    ),
    (["b", "b", 3], "string", TWICE + "'b' twice" + PLACE + LINES.format(1, 2)),
    (
        ["b", 3, "b"],
        "string",
        "expected a value of dtype string, got 3" + PLACE + "[1]`",
    ),
    ("ab", "string", "expected a list, got 'ab'" + PLACE + "`"),
]


@pytest.mark.parametrize(("values", "dtype", "message"), REFUSED_BY_SPECS)
def test_specs_say_which_value_is_wrong(values: Keys, dtype: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        spec_of(values, dtype)
    assert str(caught.value) == message


# -------------------------------------------------------------------------------- files

FILES: list[tuple[bytes, str, Keys]] = [
    (b"a\nb\n", "string", ["a", "b"]),
    (b"a\r\nb\r\n", "string", ["a", "b"]),
    (b"a\nb", "string", ["a", "b"]),
    (b"a\r\nb", "string", ["a", "b"]),
    (b"\xef\xbb\xbfa\nb\n", "string", ["a", "b"]),
    (b"\xef\xbb\xbf", "string", []),
    (b"", "string", []),
    (b"\n", "string", [""]),
    (b"\r\n", "string", [""]),
    (b"a\n\nb\n", "string", ["a", "", "b"]),
    (b"a\r\n\r\nb\r\n", "string", ["a", "", "b"]),
    (b"\na\n", "string", ["", "a"]),
    (b"a\n\n", "string", ["a", ""]),
    (b" a \n\ta\n", "string", [" a ", "\ta"]),
    (b"a\rb\nc\x0cd\n", "string", ["a\rb", "c\x0cd"]),
    ("a\u2028b\u0085c\nd".encode(), "string", ["a\u2028b\u0085c", "d"]),
    ("käse\n日本\n".encode(), "string", ["käse", "日本"]),
    (b"a\nb\xef\xbb\xbf\n", "string", ["a", "b\ufeff"]),
    (b"a\0b\n\0\n", "string", ["a\0b", "\0"]),
    (b"7\n-3\n0\n", "int64", [7, -3, 0]),
    (b"\xef\xbb\xbf7\r\n-3", "int64", [7, -3]),
    (b"9223372036854775807\n-9223372036854775808\n", "int64", [2**63 - 1, -(2**63)]),
    (b"7\n", "string", ["7"]),
]


@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize(("content", "dtype", "values"), FILES)
def test_files_hold_one_value_a_line(
    content: bytes, dtype: str, values: Keys, suffix: str, tmp_path: Path
) -> None:
    (tmp_path / "values.txt").write_bytes(content)
    if suffix == "json":
        text = json.dumps(raw_of({"values_file": "values.txt"}, dtype))
    else:
        text = (
            f'format = 1\n[[candidate]]\nname = "x"\ndtype = "{dtype}"\ndim = 1\n'
            'encoder = { type = "vocab", values_file = "values.txt" }\n'
        )
    (tmp_path / f"spec.{suffix}").write_text(text)
    spec = FeatureSpec.load(tmp_path / f"spec.{suffix}")
    assert spec.candidate[0].encoder.values == tuple(values)
    assert FeatureSpec.from_json(spec.to_json()) == spec == spec_of(values, dtype)
    column = [*values, None]
    expected = [*range(1, len(values) + 1), 0]
    assert spec.encode({"x": column})["x"].tolist() == expected


@pytest.mark.parametrize(
    ("content", "dtype", "message"),
    [
        (b"a\nb\na\n", "string", TWICE + "'a' twice" + PLACE + LINES.format(1, 3)),
        (b"a\n\n\n", "string", TWICE + "'' twice" + PLACE + LINES.format(2, 3)),
        (b"7\n+7\n", "int64", TWICE + "7 twice" + PLACE + LINES.format(1, 2)),
        (
            b"x" * 5000 + b"\n" + b"x" * 5000,
            "string",
            TWICE + "'" + "x" * 55 + "... twice" + PLACE + LINES.format(1, 2),
        ),
        (
            b"9" * 5000,
            "int64",
            f"expected a value of dtype int64, got '{'9' * 55}...{PLACE}[0]`",
        ),
        (
            b"7\n1_000\n",
            "int64",
            "expected a value of dtype int64, got '1_000'" + PLACE + "[1]`",
        ),
        (
            "7\n\u0663\n".encode(),
            "int64",
            "expected a value of dtype int64, got '\u0663'" + PLACE + "[1]`",
        ),
        (
            b"7\n\n8\n",
            "int64",
            "expected a value of dtype int64, got ''" + PLACE + "[1]`",
        ),
        (
            b"7\nx\n",
            "int64",
            "expected a value of dtype int64, got 'x'" + PLACE + "[1]`",
        ),
        (
            b"9223372036854775808\n",
            "int64",
            "expected a value of dtype int64, got 9223372036854775808" + PLACE + "[0]`",
        ),
    ],
)
def test_files_with_wrong_values_are_refused(
    content: bytes, dtype: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "values.txt").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        FeatureSpec.from_dict(raw_of({"values_file": "values.txt"}, dtype), tmp_path)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"a\xff\n", "'utf-8' codec can't decode byte 0xff in position 1: "
         "invalid start byte"),
        (None, "[Errno 2] No such file or directory: '{path}'"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_are_refused(
    content: bytes | None, got: str, tmp_path: Path
) -> None:
    path = tmp_path / "values.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        FeatureSpec.from_dict(raw_of({"values_file": "values.txt"}, "string"), tmp_path)
    assert str(caught.value) == (
        f"expected a readable UTF-8 file, one value per line, got {path}: "
        f"{got.format(path=path)} - at `candidate[0].encoder.values_file`"
    )


# -------------------------------------------------------------------------------- large


@pytest.mark.parametrize("dtype", ["string", "int64"])
def test_a_large_vocabulary_survives_json(dtype: str) -> None:
    count = 200_000
    values: Keys = [7 * i - 500_000 for i in range(count)]
    if dtype == "string":
        values = [f"goods/{i:x}/é" for i in values]
    spec = spec_of(values, dtype, unseen="missing")
    again = FeatureSpec.from_json(spec.to_json())
    assert again == spec
    assert again.candidate[0].encoder.values == tuple(values)
    assert again.inputs[0].rows == count + 2
    expected = np.arange(1, count + 1)
    others = [v + "." if isinstance(v, str) else v + 1 for v in values]
    for one in (spec, again, pickle.loads(pickle.dumps(spec))):
        ids = one.encode({"x": values})["x"]
        np.testing.assert_array_equal(ids, expected, strict=True)
        assert not one.encode({"x": others})["x"].any()

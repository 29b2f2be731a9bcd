"""Ids of other systems: each option of an encoder against the system that has it.

Long because each system's rules are held to vectors of its own, then to the twin.
test_hash_others_models.py has the models.
"""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction import FeatureHasher

from din_infer import ModelError, _kernels
from din_infer.columns import to_column
from din_infer.describe import describe
from din_infer.encode import encode_values, hash_buckets
from din_infer.errors import InputError
from din_infer.spec import Encoder, FeatureSpec
from tests import hostile, reference
from tests.reference_hash import (
    BITS,
    HASHES,
    OTHERS,
    SIPHASH,
    SIPHASH_KEY,
    SPARK_ROWS,
    float_as_bytes,
    int_as_bytes,
    int_as_text,
    key,
    reduce,
    spark_key,
)
from tests.test_hash import on_linux, walled

pytestmark = pytest.mark.slow

ISAS = _kernels.isas()
PEERS = json.loads(Path(__file__).with_name("golden_peers.json").read_text())
SEEDS: dict[str, list[Any]] = {
    "siphash24": [(0, 0), SIPHASH_KEY, (2**64 - 1, 1)],
    "murmur3_32_spark": [0, 42, 2**32 - 1],
    "murmur3_32_vw": [0, 42, 2**32 - 1],
}
# Beside every multiple of 4 and of 8, and long.
LENGTHS = [*range(100), 255, 256, 257, 1023, 1024, 1025, 4160]

each_other = pytest.mark.parametrize("name", OTHERS)
each_isa = pytest.mark.usefixtures("isa")


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIN_INFER_ISA", request.param)


def raw(
    column: object,
    name: str,
    dtype: str,
    **options: Any,  # noqa: ANN401
) -> list[int]:
    options = {"rows": 2, "reduce": "raw", **options}
    encoder = _kernels.Encoder("hash", dtype, hash=name, **options)
    return _kernels.encode_scalars(to_column(column, "keys"), encoder)[0].tolist()


def hashed(name: str, keys: list[bytes | None], seed: Any) -> list[int]:  # noqa: ANN401
    of, bits = OTHERS[name], BITS[name]
    return [0 if k is None else reduce(of(k, seed), 2, "raw", bits) for k in keys]


def spec_of(dtype: str, encoder: dict[str, Any], **more: Any) -> FeatureSpec:  # noqa: ANN401
    field = {"name": "x", "dim": 2, "dtype": dtype}
    encoder = {"type": "hash", "buckets": 1000, **encoder}
    return FeatureSpec.from_dict(
        {"format": 1, "candidate": [{**field, "encoder": encoder, **more}]}
    )


def encoder_of(dtype: str, **options: Any) -> Encoder:  # noqa: ANN401
    return spec_of(dtype, options).candidate[0].encoder


def refusal(spec: dict[str, Any], dtype: str = "string", **more: Any) -> str:  # noqa: ANN401
    with pytest.raises(ModelError) as caught:
        spec_of(dtype, spec, **more)
    return str(caught.value)


# ---------------------------------------------------------------------- hashes by key


@each_isa
def test_siphash24_equals_the_vectors_of_its_authors() -> None:
    for n, expected in SIPHASH.items():
        found = raw([bytes(range(n))], "siphash24", "string", seed=SIPHASH_KEY)
        assert found == [reduce(expected, 2, "raw", 64)]


@each_isa
@each_other
def test_keys_of_every_length_equal_the_twin(name: str) -> None:
    keys: list[bytes | None] = [key(n) for n in LENGTHS]
    keys[5] = keys[77] = None
    for seed in SEEDS[name]:
        expected = hashed(name, keys, seed)
        for kind in (pa.binary(), pa.large_binary(), pa.binary_view()):
            assert raw(pa.array(keys, kind), name, "string", seed=seed) == expected
        coded = pa.array(keys, pa.binary()).dictionary_encode()
        assert raw(coded, name, "string", seed=seed) == expected


@each_isa
@on_linux
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("kind", [pa.binary(), pa.binary_view()], ids=str)
def test_no_byte_beside_the_keys_is_read(at_end: bool, kind: pa.DataType) -> None:
    """By the other hashes, behind a prefix, beside a mask, and with seeds."""
    for num_bytes in (0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 31, 33, 64, 65, 4096):
        for count in (1, 3, 17):
            keys: list[bytes | None] = [key(num_bytes + i)[i:] for i in range(count)]
            column = walled([k for k in keys if k is not None], kind, at_end=at_end)
            for name in OTHERS:
                seed = SEEDS[name][1]
                found = raw(column, name, "string", seed=seed)
                assert found == hashed(name, keys, seed)
            for options in (
                {"prefix": "a="},
                {"mask_value": "zz"},
                {"is_seeded": True},
            ):
                found = raw(column, "xxh64", "string", **options)
                prefix = options.get("prefix", "").encode()
                of = [HASHES["xxh64"](prefix + k, 0) for k in keys if k is not None]
                assert found == [reduce(h, 2, "raw", 64) for h in of]


@each_other
@given(st.lists(hostile.texts(), max_size=20))
def test_texts_equal_the_twin(name: str, texts: list[str]) -> None:
    for seed in SEEDS[name]:
        found = raw(pa.array(texts, pa.string()), name, "string", seed=seed)
        assert found == hashed(name, [text.encode() for text in texts], seed)


@given(
    st.lists(
        st.tuples(
            st.text("\t\n\r \0\x1f", max_size=3),
            st.text("0123456789", max_size=25) | st.text("012 a\x7f-", max_size=9),
            st.text("\t\n\r \0\x1f", max_size=3),
        ).map("".join)
    )
)
def test_numbers_among_blanks_equal_vowpal_wabbits_twin(texts: list[str]) -> None:
    found = raw(pa.array(texts, pa.string()), "murmur3_32_vw", "string", seed=99)
    assert found == hashed("murmur3_32_vw", [text.encode() for text in texts], 99)


@each_other
@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-99, 99), min_size=1))
def test_integers_equal_the_twin(name: str, values: list[int]) -> None:
    seed = SEEDS[name][1]
    for int_as, of in (("bytes", int_as_bytes), ("text", int_as_text)):
        found = raw(values, name, "int64", seed=seed, int_as=int_as)
        assert found == hashed(name, [of(v) for v in values], seed)


@each_isa
def test_integers_of_4_bytes_equal_the_twin() -> None:
    values = [0, 1, -1, 2**31 - 1, -(2**31), 77]
    keys = [v.to_bytes(4, "little", signed=True) for v in values]
    for name, seeds in SEEDS.items():
        found = raw(values, name, "int64", seed=seeds[1], int_as="bytes4")
        assert found == hashed(name, keys, seeds[1])


@pytest.mark.parametrize("name", [*HASHES, *OTHERS])
@given(st.lists(st.floats(allow_subnormal=True), min_size=1))
def test_floats_are_hashed_as_their_bits(name: str, values: list[float]) -> None:
    seed = SEEDS.get(name, [0])[0]
    for int_as, size in (("bytes", 8), ("bytes4", 4)):
        found = raw(np.array(values), name, "float", seed=seed, int_as=int_as)
        of, bits = (HASHES | OTHERS)[name], BITS[name]
        keys = [float_as_bytes(v, size) for v in values]
        assert found == [reduce(of(k, seed), 2, "raw", bits) for k in keys]


@each_isa
def test_floats_of_every_type_hash_alike() -> None:
    values = [0.0, -0.0, 1.5, -2.0, 65504.0, math.inf, -math.inf, math.nan]
    for int_as in ("bytes", "bytes4"):
        expected = raw(np.array(values), "xxh64", "float", int_as=int_as)
        assert expected[0] == expected[1]
        assert 0 not in expected
        for dtype in (np.float16, np.float32):
            found = raw(np.array(values, dtype), "xxh64", "float", int_as=int_as)
            assert found == expected
        column = pa.array([*values, None]).dictionary_encode()
        assert raw(column, "xxh64", "float", int_as=int_as) == [*expected, 0]


def test_beyond_float_32_is_infinity() -> None:
    values = np.array([1e39, -1e39, np.nextafter(2.0**128, 0), 3.4028235e38])
    infinite = np.array([np.inf, -np.inf, np.inf, np.finfo(np.float32).max])
    options = {"dtype": "float", "int_as": "bytes4"}
    assert raw(values, "xxh64", **options) == raw(infinite, "xxh64", **options)


def test_missing_in_python_lists_is_missing_and_nan_in_arrays_is_a_key() -> None:
    nan = [1.0, math.nan]
    assert raw(nan, "xxh64", "float")[1] == 0
    assert raw(pa.array(nan), "xxh64", "float")[1] != 0


@each_other
def test_hash_buckets_takes_them(name: str) -> None:
    values = ["a", "b", None, "", "12"]
    for seed in SEEDS[name]:
        found = hash_buckets(values, 1000, hash=name, seed=seed)
        keys = [None if v is None else v.encode() for v in values]
        of = OTHERS[name]
        assert found.tolist() == [
            0 if k is None else 1 + of(k, seed) % 999 for k in keys
        ]
        form = int_as_text if name == "murmur3_32_vw" else int_as_bytes
        found = hash_buckets([7, -7], 1000, hash=name, seed=seed)
        assert found.tolist() == [1 + of(form(v), seed) % 999 for v in (7, -7)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"hash": "siphash24"},
            "expected a seed of two numbers in [0, 2**64), its key, got 0 - at `seed`",
        ),
        (
            {"hash": "siphash24", "seed": (1, 2**64)},
            "expected a seed of two numbers in [0, 2**64), its key,"
            " got (1, 18446744073709551616) - at `seed`",
        ),
        (
            {"hash": "siphash24", "seed": (1, "2")},
            "expected a whole number, got '2' - at `seed`",
        ),
        (
            {"hash": "xxh64", "seed": (1, 2)},
            "expected a seed of one number for xxh64, got (1, 2) - at `seed`",
        ),
        (
            {"hash": "murmur3_32_spark", "seed": 2**32},
            "expected a seed in [0, 2**32), got 4294967296 - at `seed`",
        ),
    ],
)
def test_hash_buckets_refuses_wrong_seeds(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        hash_buckets(["a"], 9, **options)
    assert str(caught.value) == message


# ---------------------------------------------------------------------- what peers say


def peer_options(case: dict[str, Any]) -> dict[str, Any]:
    """What docs/spec.md says of a system, as keys of the encoder."""
    system, options = case["system"], {"buckets": case["n"], "reduce": "mod"}
    is_text = case["keys"] == "strings"
    if not is_text:
        options["int_as"] = "text"
    if system == "to_hash_bucket_strong":
        return options | {"hash": "siphash24", "seed": case["key"]}
    if system == "Vowpal Wabbit":
        name = {"strings": "murmur3_32_vw", "all": "murmur3_32"}[case["mode"]]
        options |= {"hash": name, "seed": case["seed"]}
        return options | ({"prefix": case["prefix"]} if case["prefix"] else {})
    options["hash"] = "farmhash64"
    if "salt" in case:
        salt = case["salt"]
        both = salt if isinstance(salt, list) else [salt, salt]
        options |= {"hash": "siphash24", "seed": both}
    if "mask_value" in case:
        options |= {"reduce": "offset", "mask_value": case["mask_value"]}
    if case.get("mask_zero"):
        options |= {"reduce": "offset", "mask_value": "0" if is_text else 0}
    return options


@each_isa
def test_ids_equal_those_of_tensorflow_keras_deepctr_and_vowpal_wabbit() -> None:
    assert len(PEERS["found"]) > 80
    for case in PEERS["found"]:
        dtype = "string" if case["keys"] == "strings" else "int64"
        encoder = encoder_of(dtype, **peer_options(case))
        values = PEERS[case["keys"]]
        ids = encode_values(values, encoder, dtype, "x").tolist()
        assert ids == case["ids"], case


@each_isa
@pytest.mark.parametrize(
    ("options", "ids"),
    [  # of the pages of Keras' Hashing
        ({"hash": "siphash24", "seed": [133, 137], "reduce": "mod"}, [1, 2, 1, 0, 2]),
        ({"hash": "siphash24", "seed": [133, 133], "reduce": "mod"}, [0, 0, 2, 1, 0]),
        ({"hash": "farmhash64", "mask_value": "C"}, [1, 1, 0, 2, None]),
    ],
)
def test_ids_equal_the_pages_of_keras(
    options: dict[str, Any], ids: list[int | None]
) -> None:
    encoder = encoder_of("string", buckets=3, **options)
    found = encode_values(list("ABCDE"), encoder, "string", "x").tolist()
    if "mask_value" in options:  # there it is A, B, "", C, D
        found = encode_values(["A", "B", "C", "D"], encoder, "string", "x").tolist()
        assert found[:3] == ids[:3]
        return
    assert found == ids


@each_isa
@pytest.mark.parametrize("num_buckets", [1, 2, 1000, 2**20, 2**30 - 1])
def test_alternate_sign_gives_feature_hasher_negatives_rows_of_their_own(
    num_buckets: int,
) -> None:
    names = [f"goods_{i}" for i in range(300)]
    hasher = FeatureHasher(num_buckets, input_type="dict")
    made = hasher.transform([{"goods": name} for name in names])
    options = {"hash": "murmur3_32", "reduce": "abs", "prefix": "goods="}
    encoder = encoder_of("string", buckets=num_buckets, alternate_sign=True, **options)
    assert encoder.rows == 2 * num_buckets
    ids = encode_values(names, encoder, "string", "x")
    assert (ids % num_buckets).tolist() == made.indices.tolist()
    assert np.where(ids < num_buckets, 1, -1).tolist() == made.data.tolist()
    weights = np.random.default_rng(num_buckets).normal(size=min(num_buckets, 2**20))
    if len(weights) == num_buckets:  # the table: theirs, then theirs with other signs
        table = np.concatenate([weights, -weights])
        np.testing.assert_array_equal(table[ids], made @ weights)


@each_isa
def test_pairs_of_feature_hasher_are_a_prefix() -> None:
    hasher = FeatureHasher(1000, input_type="pair", alternate_sign=False)
    made = hasher.transform([[("user", str(n))] for n in range(-50, 50)])
    options = {"hash": "murmur3_32", "reduce": "abs", "prefix": "user="}
    encoder = encoder_of("int64", int_as="text", **options)
    ids = encode_values(list(range(-50, 50)), encoder, "int64", "x")
    assert ids.tolist() == made.indices.tolist()


COLUMN_OF = {
    "STRING": {"dtype": "string"},
    "BIGINT": {"dtype": "int64"},
    "INT": {"dtype": "int64", "int_as": "bytes4"},
    "DOUBLE": {"dtype": "float"},
    "FLOAT": {"dtype": "float", "float_as": "bytes4"},
}
ARROW = {
    "STRING": pa.string(),
    "BIGINT": pa.int64(),
    "INT": pa.int32(),
    "DOUBLE": pa.float64(),
    "FLOAT": pa.float32(),
}
SPARKS = {"xxh64": 64, "murmur3_32_spark": 32}


@each_isa
@pytest.mark.parametrize(("row", "xxhash64", "murmur"), SPARK_ROWS)
def test_hashes_of_several_columns_equal_sparks(
    row: list[tuple[str, Any]], xxhash64: int, murmur: int
) -> None:
    columns = [
        {"column": f"c{i}", **COLUMN_OF[kind]} for i, (kind, _) in enumerate(row)
    ]
    arrays = {f"c{i}": pa.array([v], ARROW[k]) for i, (k, v) in enumerate(row)}
    for name, expected in (("xxh64", xxhash64), ("murmur3_32_spark", murmur)):
        for n in (1000, 2**31 - 1):
            options = {"hash": name, "seed": 42, "reduce": "pmod", "buckets": n}
            spec = spec_of("string", options, columns=columns)
            assert spec.encode(arrays)["x"].tolist() == [expected % n]


@pytest.mark.parametrize(("row", "xxhash64", "murmur"), SPARK_ROWS)
def test_the_twin_of_several_columns_equals_spark(
    row: list[tuple[str, Any]], xxhash64: int, murmur: int
) -> None:
    for name, expected in (("xxh64", xxhash64), ("murmur3_32_spark", murmur)):
        h = 42
        for kind, value in row:
            if value is not None:
                h = (HASHES | OTHERS)[name](spark_key(kind, value), h)
        assert reduce(h, 1000, "pmod", SPARKS[name]) == expected % 1000


# ------------------------------------------------------------------- several columns


TOGETHER: dict[str, Any] = {
    "format": 1,
    "user": [
        {
            "name": "who",
            "dim": 3,
            "columns": ["city", {"column": "age", "dtype": "float"}],
            "encoder": {"type": "hash", "buckets": 90, "hash": "murmur3_32"},
        },
    ],
    "candidate": [
        {
            "name": "offer",
            "dim": 4,
            "columns": [
                "shop",
                {"column": "goods", "dtype": "int64"},
                {"column": "size", "dtype": "int64", "int_as": "bytes4"},
            ],
            "encoder": {
                "type": "hash",
                "buckets": 50,
                "hash": "murmur3_32_spark",
                "seed": 42,
                "reduce": "pmod",
            },
        },
        {"name": "shop", "dim": 2, "encoder": {"type": "hash", "buckets": 20}},
    ],
    "behavior": [
        {
            "name": "history",
            "max_len": 7,
            "fields": {
                "hist_offer": {
                    "pairs": "offer",
                    "columns": ["hist_shop", "hist_goods", "hist_size"],
                },
                "hist_shop": "shop",
            },
        }
    ],
    "multi_hot": [
        {
            "name": "tags",
            "side": "candidate",
            "dim": 3,
            "pooling": "mean",
            "max_len": 300,
            "columns": ["tag", {"column": "weight", "dtype": "float"}],
            "encoder": {"type": "hash", "buckets": 70, "hash": "xxh3_64", "seed": 5},
        }
    ],
    "model": {"attention": {"hidden": [4]}, "tower": {"hidden": [4]}},
}


def together(**behavior: Any) -> FeatureSpec:  # noqa: ANN401
    raw_spec = json.loads(json.dumps(TOGETHER))
    raw_spec["behavior"][0].update(behavior)
    return FeatureSpec.from_dict(raw_spec)


def rows_of(
    count: int, seed: int, longest: int = 12, repeats: bool = False
) -> list[dict[str, Any]]:
    """Rows of `TOGETHER`, a third of all values null."""
    rng = np.random.default_rng(seed)

    def some(value: object) -> Any:  # noqa: ANN401
        return None if rng.random() < 0.33 else value

    def shop() -> Any:  # noqa: ANN401
        return some("shop_" + "x" * int(rng.integers(0, 9)))

    def goods() -> Any:  # noqa: ANN401
        return some(int(rng.integers(-3, 3)))

    def weight() -> Any:  # noqa: ANN401
        return some(float(rng.choice([0.0, -0.0, 0.5, 2.0])))

    rows: list[dict[str, Any]] = []
    for _ in range(count):
        n, m = int(rng.integers(0, longest)), int(rng.integers(0, 4))
        row = {
            "city": shop(),
            "age": weight(),
            "shop": shop(),
            "goods": goods(),
            "size": goods(),
            "hist_shop": [shop() for _ in range(n)],
            "hist_goods": [goods() for _ in range(n)],
            "hist_size": [goods() for _ in range(n)],
            "tag": [shop() for _ in range(m)],
            "weight": [weight() for _ in range(m)],
        }
        if repeats and rows and rng.random() < 0.8:  # another candidate of this user
            mine = ("city", "age", "hist_shop", "hist_goods", "hist_size")
            row |= {name: rows[-1][name] for name in mine}
        rows.append(row)
    return rows


TYPES = {
    "city": pa.string(),
    "age": pa.float64(),
    "shop": pa.string(),
    "goods": pa.int64(),
    "size": pa.int32(),
    "hist_shop": pa.list_(pa.string()),
    "hist_goods": pa.list_(pa.int64()),
    "hist_size": pa.list_(pa.int32()),
    "tag": pa.list_(pa.string()),
    "weight": pa.list_(pa.float32()),
}


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({n: pa.array([r[n] for r in rows], t) for n, t in TYPES.items()})


def check(spec: FeatureSpec, rows: list[dict[str, Any]], batch: object) -> None:
    expected, counts = reference.encode(spec, rows)
    encoded = spec.encoder.encode(batch)
    for name, ids in expected.items():
        np.testing.assert_array_equal(encoded.inputs[name], ids, name)
    assert encoded.stats.to_dict() == counts


@each_isa
@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
@pytest.mark.parametrize("padding", ["masked", "attended"])
@pytest.mark.parametrize("max_len", [1, 7, 400])
def test_columns_hashed_together_equal_the_twin(
    order: str, padding: str, max_len: int
) -> None:
    spec = together(order=order, padding=padding, max_len=max_len)
    for count, longest in ((0, 1), (1, 3), (3, 600), (300, 12)):
        rows = rows_of(count, count + max_len, longest)
        check(spec, rows, table_of(rows))
        if count:
            check(spec, rows, rows)


@each_isa
@pytest.mark.parametrize("name", ["murmur3_32", "murmur3_32_spark", "xxh64"])
@pytest.mark.parametrize("reduce", ["offset", "mod", "pmod", "abs"])
@pytest.mark.parametrize("seed", [0, 7])
def test_an_empty_string_whose_hash_is_the_seed_is_no_null(
    name: str, reduce: str, seed: int
) -> None:
    options = {"hash": name, "reduce": reduce, "seed": seed}
    spec = spec_of("string", options, columns=["a", "b"])
    values = ["", None, "u"]
    rows = [{"a": a, "b": b} for a in values for b in values]
    check(spec, rows, rows)


@each_isa
@pytest.mark.parametrize("name", ["xxh64", "xxh3_64"])
@pytest.mark.parametrize("reduce", ["offset", "mod", "pmod", "abs"])
@pytest.mark.parametrize("seed", [2**32 - 1, 2**32, 2**33 + 5, 2**63, 2**64 - 1])
def test_every_bit_of_a_seed_of_64_bits_counts(
    name: str, reduce: str, seed: int
) -> None:
    options = {"hash": name, "reduce": reduce, "seed": seed, "buckets": 997}
    spec = spec_of("string", options, columns=["a", "b"])
    values = ["", None, "u", "v" * 40]
    rows = [{"a": a, "b": b} for a in values for b in values]
    for count in (1, 6, 16):
        check(spec, rows[:count], rows[:count])


@each_isa
def test_padding_of_columns_hashed_together_equals_the_twin() -> None:
    rows = rows_of(200, 8)
    for inside in ("kept", "dropped"):
        spec = together(pad_value="shop_", pad_inside=inside)
        check(spec, rows, table_of(rows))


@each_isa
def test_dictionaries_and_other_chunks_give_the_same_ids() -> None:
    rows = rows_of(500, 3)
    table = table_of(rows)
    for i, name in enumerate(("goods", "shop", "size", "age")):
        column = table[name].combine_chunks()
        column = column.dictionary_encode() if i % 2 else column
        cuts = [0, 7 * i, 100 + i, 100 + i, 499, 500]
        chunks = [column[a:b] for a, b in pairwise(cuts)]
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.chunked_array(chunks))
    columns = {name: table[name] for name in table.column_names}
    check(together(), rows, columns)


@each_isa
def test_rows_repeat_where_only_a_later_column_repeats() -> None:
    """Equal lists of one column are not hashed alike under other seeds."""
    rows = rows_of(40, 5)
    for row in rows:
        row |= {"hist_shop": ["a", "b"], "hist_size": [1, 2], "hist_goods": [0, 0]}
    for i, row in enumerate(rows):
        row["hist_goods"] = [i // 5, 7]
    check(together(), rows, table_of(rows))


def test_threads_and_merged_repeats_change_nothing() -> None:
    spec = together()
    rows = rows_of(3000, 11, repeats=True)
    table = table_of(rows)
    one = spec.encoder.encode(table)
    for threads, merge in ((3, False), (1, True), (3, True)):
        other = spec.encoder.encode(table, threads, merge_repeats=merge)
        assert other.stats.to_dict() == one.stats.to_dict()
        inputs = reference.spread(spec, other.inputs)
        for name, ids in one.inputs.items():
            np.testing.assert_array_equal(inputs[name], ids, name)
    assert len(other.inputs["who"]) < len(table)


def test_bad_rows_are_found_in_every_column() -> None:
    spec = together()
    rows = rows_of(600, 4)
    good, _ = reference.encode(spec, rows)
    for row in (3, 300):
        rows[row]["size"] = 2**31
    rows[5]["hist_size"], rows[5]["hist_goods"] = [1, 2**40], [1, 2]
    rows[5]["hist_shop"] = ["a", "b"]
    errors: list[InputError] = []
    encoded = spec.encoder.encode(rows, errors=errors)
    assert [str(e) for e in errors] == [
        f"expected an integer in [-2**31, 2**31), got {got} - at `{name}`, row {row}"
        for row, name, got in (
            (5, "hist_size", 2**40),
            (3, "size", 2**31),
            (300, "size", 2**31),
        )
    ]
    others = [i for i in range(600) if i not in (3, 5, 300)]
    for name in ("offer", "who", "history.lengths"):
        np.testing.assert_array_equal(encoded.inputs[name][others], good[name][others])
    with pytest.raises(InputError, match="row 5"):
        spec.encode(rows)
    rows[5]["hist_size"] = [1]
    with pytest.raises(InputError):
        spec.encode(rows)


def test_seeds_that_are_no_hashes_are_refused() -> None:
    first = _kernels.Encoder("hash", "string", rows=9)
    last = _kernels.Encoder("hash", "string", rows=9, is_seeded=True)
    seeds = _kernels.Encoder("hash", "string", rows=9, reduce="raw", is_seeded=True)
    column = to_column(["a", "b"], "x")
    before = _kernels.prepare_scalars(column, first)
    with pytest.raises(InputError, match="hashes as seeds"):
        _kernels.prepare_scalars(column, last, None, before)
    before = _kernels.prepare_scalars(column, seeds)
    with pytest.raises(InputError, match="hashes as seeds"):
        _kernels.prepare_scalars(column, first, None, before)
    with pytest.raises(InputError, match="2 rows, as `x` has"):
        _kernels.prepare_scalars(to_column(["a"], "y"), last, None, before)
    with pytest.raises(InputError, match="hashes as seeds"):
        _kernels.prepare_scalars(column, last, None, _kernels.Encoding())


# ------------------------------------------------------------------ masks and prefixes


MASKS: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("string", {"mask_value": ""}, ["", "a", None, "0", "", "x" * 40]),
    ("string", {"mask_value": "0", "prefix": "u="}, ["0", "a", None, "00", "u=0"]),
    ("int64", {"mask_value": 0}, [0, 1, None, -1, 0, 2**63 - 1]),
    ("int64", {"mask_value": -1, "int_as": "text"}, [-1, 1, None, 2**64 - 1]),
    ("int64", {"mask_value": 7, "int_as": "bytes4"}, [7, 1, None, -7]),
    ("int64", {"prefix": "n=", "int_as": "text"}, [7, 1, None, -(2**63), 2**64 - 1]),
    ("string", {"prefix": "käse="}, ["", "x" * 9000, None, "x" * 9000, "y", "é" * 99]),
]


@each_isa
@pytest.mark.parametrize(("dtype", "options", "values"), MASKS)
def test_masks_and_prefixes_equal_the_twin(
    dtype: str, options: dict[str, Any], values: list[Any]
) -> None:
    values = values * 60
    spec = spec_of(dtype, options)
    rows = [{"x": value} for value in values]
    expected, counts = reference.encode(spec, rows)
    batches: list[Any] = [rows, {"x": values}]
    if dtype == "string":
        batches += [
            {"x": pa.array(values, kind)}
            for kind in (pa.string(), pa.large_string(), pa.string_view())
        ]
        batches.append({"x": pa.array(values).dictionary_encode()})
    for batch in batches:
        encoded = spec.encoder.encode(batch)
        assert encoded.inputs["x"].tolist() == expected["x"].tolist()
        assert encoded.stats.to_dict() == counts


@each_isa
def test_a_masked_integer_may_lie_outside_4_bytes() -> None:
    spec = spec_of("int64", {"mask_value": 2**40, "int_as": "bytes4"})
    assert spec.encode({"x": [2**40, 5]})["x"][0] == 0


@each_isa
def test_a_key_too_long_for_its_prefix_is_refused() -> None:
    spec = spec_of("string", {"prefix": "user="})
    longest = 16384 - 5
    assert spec.encode({"x": ["a", "b" * longest]})["x"][1] > 0
    with pytest.raises(InputError) as caught:
        spec.encode({"x": ["a", None, "b" * (longest + 1), "c" * 99999]})
    assert str(caught.value) == (
        "expected a key of at most 16384 bytes with its prefix, got a longer one"
        " - at `x`, row 2"
    )
    hidden = pa.array(["b" * 99999, "a"]).filter(pa.array([True, True]))
    nulls = pa.Array.from_buffers(
        pa.string(), 2, [pa.py_buffer(b"\x02"), *hidden.buffers()[1:]]
    )
    assert spec.encode({"x": nulls})["x"].tolist()[0] == 0


# --------------------------------------------------------------------------- the spec

PLACE = " - at `candidate[0].encoder"


@pytest.mark.parametrize(
    ("dtype", "encoder", "more", "message"),
    [
        (
            "string",
            {"hash": "siphash24"},
            {},
            "expected a seed of two numbers in [0, 2**64), its key, got []"
            f"{PLACE}.seed`",
        ),
        (
            "string",
            {"hash": "siphash24", "seed": 7},
            {},
            f"expected a list of whole numbers, got 7{PLACE}.seed`",
        ),
        (
            "string",
            {"hash": "xxh64", "seed": [1, 2]},
            {},
            f"expected a whole number, got [1, 2]{PLACE}.seed`",
        ),
        (
            "string",
            {"alternate_sign": True},
            {},
            "expected `reduce = \"abs\"` beside `alternate_sign`, got 'offset'"
            f"{PLACE}.reduce`",
        ),
        (
            "string",
            {"alternate_sign": True, "reduce": "abs", "buckets": 2**30},
            {},
            "expected fewer than 2**30 buckets beside `alternate_sign`, got 1073741824"
            f"{PLACE}.buckets`",
        ),
        (
            "string",
            {"mask_value": 0},
            {},
            f"expected a value of dtype string, got 0{PLACE}.mask_value`",
        ),
        (
            "int64",
            {"mask_value": "0"},
            {},
            f"expected a value of dtype int64, got '0'{PLACE}.mask_value`",
        ),
        (
            "float",
            {"mask_value": 0},
            {},
            f"expected none of a float, got 0{PLACE}.mask_value`",
        ),
        (
            "int64",
            {"prefix": "n="},
            {},
            f"expected `int_as = \"text\"` beside a prefix, got 'bytes'{PLACE}.int_as`",
        ),
        (
            "int64",
            {"hash": "murmur3_32_vw"},
            {},
            "expected `int_as = \"text\"` for murmur3_32_vw, got 'bytes'"
            f"{PLACE}.int_as`",
        ),
        (
            "float",
            {"hash": "murmur3_32_vw"},
            {},
            f"expected strings or integers for murmur3_32_vw, got floats{PLACE}`",
        ),
        (
            "string",
            {"prefix": "x" * 1001},
            {},
            f"expected at most 1000 characters, got 1001{PLACE}.prefix`",
        ),
        (
            "string",
            {"hash": "farmhash64"},
            {"columns": ["a", "b"]},
            "expected one of the hashes xxh64, xxh3_64, murmur3_32, murmur3_32_spark"
            f" beside `columns`, got 'farmhash64'{PLACE}`",
        ),
        (
            "string",
            {"mask_value": ""},
            {"columns": ["a", "b"]},
            "expected no `mask_value` beside `columns`, got mask_value"
            f"{PLACE}.mask_value`",
        ),
        (
            "string",
            {"hash": "murmur3_32", "reduce": "abs", "alternate_sign": True},
            {"columns": ["a", "b"]},
            "expected no `alternate_sign` beside `columns`, got alternate_sign"
            f"{PLACE}.alternate_sign`",
        ),
        (
            "string",
            {},
            {"columns": ["a"], "column": "a"},
            "expected either `column` or `columns`, got both - at `candidate[0]`",
        ),
        (
            "string",
            {},
            {"columns": []},
            "expected at least one column, got none - at `candidate[0].columns`",
        ),
        (
            "string",
            {},
            {"columns": ["a", {"column": "b", "dtype": "int8"}]},
            "expected one of string, int64, float, got 'int8'"
            " - at `candidate[0].columns[1].dtype`",
        ),
        (
            "string",
            {},
            {"columns": ["a", {"column": "b", "type": "int64"}]},
            "expected one of the keys column, dtype, int_as, uuid_as, got 'type'"
            " - at `candidate[0].columns[1]`",
        ),
        (
            "string",
            {},
            {"columns": ["a", 7]},
            "expected a table, got 7 - at `candidate[0].columns[1]`",
        ),
    ],
)
def test_what_cannot_be_said_is_refused(
    dtype: str, encoder: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    assert refusal(encoder, dtype, **more) == message


def test_a_field_that_shares_a_table_has_as_many_columns() -> None:
    raw_spec = json.loads(json.dumps(TOGETHER))
    fields = raw_spec["behavior"][0]["fields"]
    for columns, got in ((["a", "b"], "2"), (None, "none")):
        fields["hist_offer"] = {"pairs": "offer"} | (
            {"columns": columns} if columns else {}
        )
        with pytest.raises(ModelError) as caught:
            FeatureSpec.from_dict(raw_spec)
        assert str(caught.value) == (
            f"expected 3 `columns`, as the field whose table it shares has, got {got}"
            " - at `behavior[0].fields.hist_offer.columns`"
        )
    fields["hist_offer"] = {"pairs": "shop", "columns": ["a"]}
    with pytest.raises(ModelError, match="one `column`, as the field whose table"):
        FeatureSpec.from_dict(raw_spec)


def test_a_lookup_cannot_share_a_table_of_several_columns() -> None:
    raw_spec = json.loads(json.dumps(TOGETHER))
    derived = {"name": "maker", "from": "shop", "shares": "offer", "lookup": ["x"] * 40}
    with pytest.raises(ModelError) as caught:
        FeatureSpec.from_dict(raw_spec | {"derived": [derived]})
    assert str(caught.value) == (
        "expected a field of one column, since a lookup holds single values,"
        " got 'offer' - at `derived[0].shares`"
    )


def test_a_spec_says_the_same_after_json() -> None:
    spec = together()
    again = FeatureSpec.from_json(spec.to_json())
    assert again == spec
    assert again.candidate == spec.candidate
    assert spec.columns == (
        *("city", "age", "shop", "goods", "size"),
        *("hist_shop", "hist_goods", "hist_size", "tag", "weight"),
    )
    assert [i.name for i in spec.inputs] == [
        *("who", "offer", "shop", "hist_offer", "hist_shop", "history.lengths"),
        *("tags", "tags.lengths", "request_of_candidate"),
    ]


def test_columns_hashed_together_are_described() -> None:
    lines = describe(together()).splitlines()
    assert [line.split("  ")[-1] for line in lines if line.startswith("goods")] == [
        "murmur3_32_spark into 50 buckets with shop, size"
    ]
    options = {"prefix": "user=", "mask_value": ""}
    assert describe(spec_of("string", options)).endswith(
        "xxh64 of 'user=' + value into 1,000 buckets, '' missing"
    )
    options = {"hash": "murmur3_32", "reduce": "abs", "alternate_sign": True}
    assert describe(spec_of("string", options)).endswith(
        "murmur3_32 into 2 x 1,000 buckets by sign"
    )

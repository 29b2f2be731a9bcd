"""The twins of the hashes against the libraries that define them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from din_infer import _kernels
from tests.reference_hash import (
    BITS,
    GOLDEN,
    HASHES,
    KEY_OF_LENGTH_N,
    KEYS,
    LENGTHS,
    MASK,
    NUM_SEEDS,
    OTHERS,
    PUBLISHED,
    SEEDS,
    SPARK,
    golden,
    golden_text,
    key,
    libraries,
    reduce,
    signed,
    spark_hash,
    spark_key,
    spark_xxhash64,
    xxh64,
)

pytestmark = pytest.mark.slow

LIBRARIES = libraries()


@pytest.mark.parametrize(("kind", "value", "xxhash64", "murmur"), SPARK)
def test_the_twins_of_spark_equal_spark(
    kind: str, value: str | bytes | int | float | None, xxhash64: int, murmur: int
) -> None:
    if value is None:
        assert (xxhash64, murmur) == (42, 42)
        return
    key = spark_key(kind, value)
    assert (spark_xxhash64(key), spark_hash(key)) == (xxhash64, murmur)


each_hash = pytest.mark.parametrize("name", HASHES)


@each_hash
@pytest.mark.parametrize(
    "lengths",
    [range(601), range(601, 4161, 7), LENGTHS],
    ids=["to 600", "to 4160", "beside blocks"],
)
def test_every_length_equals_its_library(name: str, lengths: range | list[int]) -> None:
    rng = np.random.default_rng(1)
    for n in lengths:
        k = rng.bytes(n)
        seed = int(rng.integers(NUM_SEEDS[name], dtype=np.uint64, endpoint=False))
        for s in {0, seed}:
            assert HASHES[name](k, s) == LIBRARIES[name](k, s), (n, s)


@each_hash
@given(st.binary(max_size=1200), st.data())
def test_random_keys_and_seeds_equal_its_library(
    name: str, k: bytes, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, NUM_SEEDS[name] - 1))
    assert HASHES[name](k, seed) == LIBRARIES[name](k, seed)


@each_hash
@given(st.integers(0, 700), st.sampled_from([b"\x00", b"\xff", b"\x80", b"\x7f"]))
def test_keys_of_one_byte_value_equal_its_library(
    name: str, n: int, value: bytes
) -> None:
    for seed in SEEDS[name]:
        assert HASHES[name](value * n, seed) == LIBRARIES[name](value * n, seed)


def test_golden_file_is_what_the_libraries_say() -> None:
    assert GOLDEN.read_text() == golden_text()


def test_golden_file_covers_every_hash_seed_and_key() -> None:
    found = [(name, seed, keys) for name, seed, keys, _ in golden()]
    assert found == [(h, s, k) for h in HASHES for s in SEEDS[h] for k in KEYS]
    assert set(range(261)) <= set(LENGTHS)
    assert max(LENGTHS) == 4160
    assert eval(KEY_OF_LENGTH_N, {"n": 300}) == key(300)


def test_twins_equal_the_golden_file() -> None:
    for name, seed, of, expected in golden():
        assert [HASHES[name](k, seed) for k in KEYS[of]] == expected, (name, seed, of)


@pytest.mark.parametrize(("name", "k", "seed", "expected"), PUBLISHED)
def test_published_hashes_never_change(
    name: str, k: bytes, seed: int, expected: int
) -> None:
    assert HASHES[name](k, seed) == expected
    assert LIBRARIES[name](k, seed) == expected


def test_columns_in_a_chain_equal_the_pages_of_spark() -> None:
    # SELECT xxhash64('Spark', array(123), 2): integers of 4 bytes, each hash a seed
    h = 42
    for k in (b"Spark", (123).to_bytes(4, "little"), (2).to_bytes(4, "little")):
        h = xxh64(k, h)
    assert signed(h, 64) == 5602566077635097486


def test_buckets_equal_the_pages_of_tensorflow() -> None:
    # tf.strings.to_hash_bucket_fast(["Hello", "TensorFlow", "2.x"], 3)
    hashes = [HASHES["farmhash64"](k, 0) for k in (b"Hello", b"TensorFlow", b"2.x")]
    assert [reduce(h, 3, "mod", 64) for h in hashes] == [0, 2, 2]


def test_farmhash64_takes_no_seed() -> None:
    with pytest.raises(AssertionError):
        HASHES["farmhash64"](b"a", 1)


@pytest.mark.parametrize(
    ("h", "bits", "how", "expected"),
    [
        (0, 64, "offset", 1),
        (9, 64, "offset", 1),
        (MASK, 64, "offset", 1 + MASK % 9),
        (MASK, 64, "mod", 5),
        (MASK, 64, "pmod", 9),
        (2**63, 64, "pmod", 2),
        (2**32 - 1, 32, "mod", 5),
        (2**32 - 1, 32, "pmod", 9),
        (2**32 - 1, 64, "pmod", 5),
        (MASK, 64, "abs", 1),
        (2**31, 64, "abs", 8),
        (2**63 + 7, 64, "abs", 7),
        (2**32 - 3, 32, "abs", 3),
        (MASK, 64, "raw", -1),
        (2**32 - 1, 32, "raw", 2**32 - 1),
    ],
)
def test_reductions_to_10_buckets(h: int, bits: int, how: str, expected: int) -> None:
    assert reduce(h, 10, how, bits) == expected


def test_every_hash_says_its_bits() -> None:
    assert NUM_SEEDS.keys() == HASHES.keys() == LIBRARIES.keys()
    assert BITS.keys() == HASHES.keys() | OTHERS.keys() == _kernels.HASHES.keys()
    for name, _, _, hashes in golden():
        assert max(h.bit_length() for h in hashes) == BITS[name]

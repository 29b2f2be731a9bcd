import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from din_infer import _kernels
from din_infer.encode import hash_buckets
from din_infer.errors import InputError
from tests import reference

seeds = st.integers(0, 2**64 - 1)
ints64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, -1, 2**63 - 1, -(2**63), 2**53 + 1]),
)
sizes = st.one_of(st.integers(2, 2**63 - 1), st.integers(2, 300))

# (key, seed, hash), as published with XXH64 and its bindings.
GOLDEN = [
    (b"", 0, 0xEF46DB3751D8E999),
    (b"", 2654435761, 0xAC75FDA2929B17EF),
    (b"a", 0, 0xD24EC4F1A98C6E5B),
    (b"abc", 0, 0x44BC2CF5AD770999),
    (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
]


def hashes(keys: list[object], *, seed: int = 0, int_as: str = "bytes") -> list[int]:
    dtype = "int64" if keys and isinstance(keys[0], int) else "string"
    encoder = _kernels.Encoder(
        "hash", dtype, rows=2, seed=seed, reduce="raw", int_as=int_as
    )
    ids, _, _ = _kernels.encode_scalars(_kernels.from_list(keys, "keys"), encoder)
    return [int(i) % 2**64 for i in ids]


@pytest.mark.parametrize(("key", "seed", "expected"), GOLDEN)
def test_published_hashes_never_change(key: bytes, seed: int, expected: int) -> None:
    assert hashes([key], seed=seed) == [expected]
    assert reference.xxh64(key, seed) == expected


def test_buckets_never_change() -> None:
    assert hash_buckets(["a", "b", None, ""], 1_000).tolist() == [102, 577, 0, 598]


@pytest.mark.parametrize("num_bytes", range(301))
def test_every_length_equals_python_xxhash(num_bytes: int) -> None:
    rng = np.random.default_rng(num_bytes)
    keys = [rng.bytes(num_bytes) for _ in range(3)]
    for seed in (0, 42, 2**64 - 1):
        expected = [xxhash.xxh64_intdigest(k, seed) for k in keys]
        assert hashes(keys, seed=seed) == expected
        assert [reference.xxh64(k, seed) for k in keys] == expected


@given(st.lists(st.binary(max_size=80), min_size=1), seeds)
def test_random_keys_equal_python_xxhash(keys: list[bytes], seed: int) -> None:
    expected = [xxhash.xxh64_intdigest(k, seed) for k in keys]
    assert hashes(list(keys), seed=seed) == expected


@given(st.lists(ints64, min_size=1, max_size=200), seeds)
def test_integers_are_hashed_as_8_little_endian_bytes(
    keys: list[int], seed: int
) -> None:
    raw = [k.to_bytes(8, "little", signed=True) for k in keys]
    expected = [xxhash.xxh64_intdigest(k, seed) for k in raw]
    assert hashes(list(keys), seed=seed) == expected


@given(st.lists(ints64, min_size=1), seeds)
def test_integers_as_text_are_hashed_as_decimal_text(
    keys: list[int], seed: int
) -> None:
    expected = [xxhash.xxh64_intdigest(str(k).encode(), seed) for k in keys]
    assert hashes(list(keys), seed=seed, int_as="text") == expected


@given(
    st.lists(ints64, min_size=1),
    sizes,
    st.sampled_from(["offset", "mod", "pmod", "abs"]),
)
def test_every_reduction_equals_integer_arithmetic(
    keys: list[int], num_buckets: int, how: str
) -> None:
    encoder = _kernels.Encoder("hash", "int64", rows=num_buckets, reduce=how)
    column = _kernels.from_list(list(keys), "keys")
    expected = [
        reference.reduce(
            reference.xxh64(reference.as_bytes(k, "bytes")), num_buckets, how
        )
        for k in keys
    ]
    assert _kernels.encode_scalars(column, encoder)[0].tolist() == expected


@pytest.mark.parametrize("how", ["offset", "mod", "pmod", "abs"])
@pytest.mark.parametrize(
    "num_buckets",
    [2, 3, 7, 2**16, 2**31 - 1, 2**32, 2**32 + 1, 2**62 + 3, 2**63 - 25, 2**63 - 1],
)
def test_modulo_is_exact(num_buckets: int, how: str) -> None:
    keys = list(range(-500, 500))
    encoder = _kernels.Encoder("hash", "int64", rows=num_buckets, reduce=how)
    got = _kernels.encode_scalars(_kernels.from_list(keys, "keys"), encoder)[0]
    raw = hashes(list(keys))
    assert got.tolist() == [reference.reduce(h, num_buckets, how) for h in raw]


def test_offset_leaves_bucket_0_and_fills_all_others() -> None:
    ids = hash_buckets(np.arange(10_000), 17)
    assert set(ids.tolist()) == set(range(1, 17))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"num_buckets": 1},
            "expected 2 to 2**63 - 1 buckets, got 1 - at `num_buckets`",
        ),
        (
            {"num_buckets": 2**63},
            "expected 2 to 2**63 - 1 buckets, got 9223372036854775808"
            " - at `num_buckets`",
        ),
        (
            {"num_buckets": 9, "seed": -1},
            "expected a seed in [0, 2**64), got -1 - at `seed`",
        ),
        (
            {"num_buckets": 9, "hash": "md5"},
            "expected xxh64, got 'md5' - at `hash`",
        ),
    ],
)
def test_hash_buckets_refuses_wrong_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        hash_buckets(["a"], **kwargs)
    assert str(caught.value) == message

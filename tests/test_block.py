"""What each instruction set does with a block, called by itself.

AVX-512's few intrinsics are tested in plain C on all x86-64 machines, beside the
instructions where those exist; whole columns are test_hash.py's.
"""

import ctypes

import numpy as np
import pytest
from numpy.typing import NDArray

from din_infer import _kernels
from tests.emulated import emulated_blocks
from tests.reference_hash import BITS, HASHES, SEEDS, reduce

NAMES = list(HASHES)
KINDS = ["offset", "mod", "pmod", "abs", "raw"]

Pointer = ctypes.c_void_p
Size = ctypes.c_int64
Seed = ctypes.c_uint64
HashKeys = ctypes.CFUNCTYPE(None, Pointer, Pointer, Size, Pointer, Seed, Pointer)
HashInts = ctypes.CFUNCTYPE(None, Pointer, Size, Seed, Pointer)
ReadKeys = ctypes.CFUNCTYPE(
    ctypes.c_int, Pointer, Size, Pointer, Size, Pointer, Pointer
)
Rise = ctypes.CFUNCTYPE(ctypes.c_int, Pointer, Size)
Highest = ctypes.CFUNCTYPE(ctypes.c_uint64, Pointer, Size)


class Reduction(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("is_signed32", ctypes.c_int32),
        ("divisor", ctypes.c_uint64),
        ("multiplier", ctypes.c_uint64),
        ("wrap", ctypes.c_uint64),
    )


class Isa(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("hash_keys", HashKeys * 4),
        ("hash_ints", HashInts * 4),
        ("reduce", ctypes.CFUNCTYPE(None, Pointer, Size, Pointer, Pointer)),
        ("read_keys", ReadKeys * 2),
        ("rise", Rise * 2),
        ("highest", Highest * 4),
        ("write_row", ctypes.CFUNCTYPE(None, Pointer, Size, Size, Pointer)),
    )


def library() -> ctypes.CDLL:
    return ctypes.CDLL(str(emulated_blocks()))


@pytest.fixture(params=[*_kernels.isas(), "avx512 emulated"])
def isa(request: pytest.FixtureRequest) -> Isa:
    name = request.param.replace("avx512 emulated", "emulated")
    return Isa.in_dll(library(), f"din_block_{name}")


def laid_out(keys: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Join keys, as Arrow does; no byte is there to be read behind the last."""
    joined = np.frombuffer(b"".join(keys) or b"\0", dtype=np.uint8).copy()
    return joined, np.cumsum([0] + [len(k) for k in keys], dtype=np.int64)


def key_columns() -> list[list[bytes]]:
    rng = np.random.default_rng(5)
    columns = [[rng.bytes(n) for _ in range(21)] for n in range(34)]
    columns += [
        [rng.bytes(13) for _ in range(n)] for n in (0, 1, 3, 4, 15, 16, 17, 256)
    ]
    mixed = [rng.bytes(int(n)) for n in rng.integers(0, 40, 256)]
    return [*columns, mixed, mixed[:100], [b"a", rng.bytes(4000), b""]]


@pytest.mark.parametrize("name", NAMES)
def test_keys_between_offsets_equal_the_reference(isa: Isa, name: str) -> None:
    for seed in SEEDS[name][-1:]:
        for keys in key_columns():
            data, offsets = laid_out(keys)
            n = len(keys)
            expected = [HASHES[name](k, seed) for k in keys]
            for read, dtype in (
                (isa.read_keys[0], np.int32),
                (isa.read_keys[1], np.int64),
            ):
                ends = offsets.astype(dtype)
                pointers, sizes = np.zeros((2, n), dtype=np.int64)
                out = np.zeros(n + 1, dtype=np.uint64)
                start = data.ctypes.data
                places = pointers.ctypes.data, sizes.ctypes.data
                size = int(offsets[-1])
                assert read(start, size, ends.ctypes.data, n, *places)
                for end in (None, start + int(offsets[-1])):
                    out[:] = 0
                    isa.hash_keys[NAMES.index(name)](
                        pointers.ctypes.data,
                        sizes.ctypes.data,
                        n,
                        end,
                        seed,
                        out.ctypes.data,
                    )
                    assert out[:-1].tolist() == expected
                    assert out[-1] == 0


def test_keys_outside_their_bytes_are_told(isa: Isa) -> None:
    rng = np.random.default_rng(0)
    wrong = [-(2**63), -(2**31), -1, 0, 1, 99, 100, 101, 2**31 - 1, 2**63 - 1]
    for read, dtype in ((isa.read_keys[0], np.int32), (isa.read_keys[1], np.int64)):
        for n in (1, 3, 8, 17, 256):
            keys, sizes = np.zeros((2, n), dtype=np.int64)
            for _ in range(200):
                ends = np.sort(rng.integers(0, 101, n + 1)).astype(dtype)
                for _ in range(rng.integers(0, 3)):
                    limits = np.iinfo(dtype)
                    end = int(rng.choice(np.array(wrong, dtype=object)))
                    ends[rng.integers(n + 1)] = min(max(end, limits.min), limits.max)
                places = keys.ctypes.data, sizes.ctypes.data
                rises = bool((ends[:-1] <= ends[1:]).all())
                inside = rises and int(ends[0]) >= 0 and int(ends[-1]) <= 100
                start = 1 << 40  # which is not read
                assert bool(read(start, 100, ends.ctypes.data, n, *places)) == inside


@pytest.mark.parametrize("name", NAMES)
def test_integers_equal_the_reference(isa: Isa, name: str) -> None:
    keys = np.random.default_rng(6).integers(-(2**63), 2**63 - 1, 256)
    keys[:4] = [0, -1, 2**63 - 1, -(2**63)]
    for seed in SEEDS[name]:
        raw = [int(k).to_bytes(8, "little", signed=True) for k in keys]
        expected = [HASHES[name](k, seed) for k in raw]
        for n in (0, 1, 15, 16, 19, 256):
            out = np.zeros(n, dtype=np.uint64)
            isa.hash_ints[NAMES.index(name)](keys.ctypes.data, n, seed, out.ctypes.data)
            assert out.tolist() == expected[:n]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["xxh64", "murmur3_32"])
def test_reductions_equal_integer_arithmetic(isa: Isa, name: str, kind: str) -> None:
    bits = BITS[name]
    rng = np.random.default_rng(7)
    hashes = rng.integers(0, 2**bits - 1, 256, dtype=np.uint64)
    hashes[:6] = [0, 1, 2**bits - 1, 2 ** (bits - 1), 2**31, 2**32 - 1]
    sizes = [2, 3, 7, 2**16, 10**6, 2**30 - 1, 2**30, 2**31 - 1, 2**32, 2**63 - 25]
    for num_buckets in sizes:
        # hashes at the edges of multiples, where a quotient is easily one off
        steps = [(num_buckets - 1) * k + d for k in (1, 2, 1000) for d in (0, 1, 2)]
        near = np.array([s % 2**bits for s in steps], dtype=np.uint64)
        tried = np.concatenate([hashes, near])[-256:]
        reduction = Reduction()
        library().din_prepare_reduction(
            KINDS.index(kind),
            NAMES.index(name),
            ctypes.c_uint64(num_buckets),
            ctypes.byref(reduction),
        )
        ids = np.zeros(len(tried), dtype=np.int64)
        isa.reduce(
            tried.ctypes.data, len(tried), ctypes.addressof(reduction), ids.ctypes.data
        )
        expected = [reduce(h, num_buckets, kind, bits) for h in tried.tolist()]
        assert ids.tolist() == expected


def test_offsets_and_indices_are_judged_as_numpy_judges_them(isa: Isa) -> None:
    rng = np.random.default_rng(8)
    for n in (0, 1, 7, 8, 63, 300):
        offsets = np.sort(rng.integers(0, 10**6, n + 1))
        for dtype, rise in ((np.int32, isa.rise[0]), (np.int64, isa.rise[1])):
            some = offsets.astype(dtype)
            assert rise(some.ctypes.data, n) == 1
            for i in range(n):
                fallen = some.copy()
                fallen[i + 1] = fallen[i] - 1
                assert rise(fallen.ctypes.data, n) == 0
        for k, bits in enumerate((8, 16, 32, 64)):
            indices = rng.integers(0, 2**bits - 1, n, dtype=f"uint{bits}")
            highest = isa.highest[k](indices.ctypes.data, n)
            assert highest == int(indices.max(initial=0))


def test_rows_are_written_to_their_width_and_no_further(isa: Isa) -> None:
    ids = np.arange(1, 513, dtype=np.int64)
    for width in (0, 1, 7, 8, 9, 50, 256):
        for count in {0, 1, width // 2, max(width - 1, 0), width}:
            if count <= width:
                out = np.full(width + 1, -7, dtype=np.int64)
                isa.write_row(ids.ctypes.data, count, width, out.ctypes.data)
                expected = [*ids[:count].tolist(), *[0] * (width - count), -7]
                assert out.tolist() == expected

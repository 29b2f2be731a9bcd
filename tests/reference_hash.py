"""Slow and obvious twins of the hashes, and the golden file beside them.

XXH64 and XXH3 follow doc/xxhash_spec.md of xxHash, MurmurHash3 is the 32-bit one for
x86, FarmHash is Fingerprint64. ``python -m tests.reference_hash`` writes
golden_hashes.json anew from the reference libraries, never from the twins. `OTHERS` are
hashes that other systems alone have: golden_peers.json is theirs.

Long because four hashes have a path of their own for many lengths.
"""

import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Hash = Callable[[bytes, int], int]

MASK = 2**64 - 1
MASK32 = 2**32 - 1


def rotate(x: int, bits: int, width: int = 64) -> int:
    return ((x << bits) | (x >> (width - bits))) & (2**width - 1)


def signed(x: int, bits: int) -> int:
    return x - 2**bits if x >= 2 ** (bits - 1) else x


def xor_shift(x: int, bits: int) -> int:
    return x ^ (x >> bits)


def word(data: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(data[at : at + size], "little")


def words(data: bytes, at: int, count: int) -> list[int]:
    return [word(data, at + 8 * i) for i in range(count)]


# ------------------------------------------------------------------------------ XXH64

P1 = 0x9E3779B185EBCA87
P2 = 0xC2B2AE3D27D4EB4F
P3 = 0x165667B19E3779F9
P4 = 0x85EBCA77C2B2AE63
P5 = 0x27D4EB2F165667C5


def xxh64_round(acc: int, lane: int) -> int:
    return rotate((acc + lane * P2) & MASK, 31) * P1 & MASK


def xxh64_avalanche(x: int) -> int:
    x = xor_shift(x, 33) * P2 & MASK
    x = xor_shift(x, 29) * P3 & MASK
    return xor_shift(x, 32)


def xxh64(key: bytes, seed: int = 0) -> int:
    """Hash as the seven steps of the specification say."""
    n = len(key)
    at = 0
    if n < 32:
        acc = (seed + P5) & MASK
    else:
        start = (seed + P1 + P2, seed + P2, seed, seed - P1)
        accs = [a & MASK for a in start]
        while n - at >= 32:
            for i in range(4):
                accs[i] = xxh64_round(accs[i], word(key, at))
                at += 8
        turned = [rotate(a, r) for a, r in zip(accs, (1, 7, 12, 18), strict=True)]
        acc = sum(turned) & MASK
        for a in accs:
            acc = ((acc ^ xxh64_round(0, a)) * P1 + P4) & MASK
    acc = (acc + n) & MASK
    while n - at >= 8:
        acc ^= xxh64_round(0, word(key, at))
        acc = (rotate(acc, 27) * P1 + P4) & MASK
        at += 8
    if n - at >= 4:
        acc ^= word(key, at, 4) * P1 & MASK
        acc = (rotate(acc, 23) * P2 + P3) & MASK
        at += 4
    while at < n:
        acc ^= key[at] * P5 & MASK
        acc = rotate(acc, 11) * P1 & MASK
        at += 1
    return xxh64_avalanche(acc)


# ------------------------------------------------------------------------------- XXH3

# The primes of 32 bits are the upper halves of three of 64.
P32_1 = P1 >> 32
P32_2 = P4 >> 32
P32_3 = P2 >> 32
MX1 = 0x165667919E3779F9
MX2 = 0x9FB21C651E98DF25

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1c ded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221 b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea3 71644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d 8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb 170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce 45cb3a8f95160428afd7fbcabb4b407e"
)


def fold(a: int, b: int) -> int:
    """Multiply 64 by 64 bits and xor the halves of the product."""
    product = a * b
    return (product & MASK) ^ (product >> 64)


def byte_swap(x: int, size: int) -> int:
    return int.from_bytes(x.to_bytes(size, "little"), "big")


def xxh3_avalanche(x: int) -> int:
    return xor_shift(xor_shift(x, 37) * MX1 & MASK, 32)


def xxh3_of_1_to_3(key: bytes, seed: int) -> int:
    n = len(key)
    mixed = bytes([key[-1], n, key[0], key[n // 2]])
    flip = word(SECRET, 0, 4) ^ word(SECRET, 4, 4)
    return xxh64_avalanche(((flip + seed) & MASK) ^ word(mixed, 0, 4))


def xxh3_of_4_to_8(key: bytes, seed: int) -> int:
    n = len(key)
    seed ^= byte_swap(seed & MASK32, 4) << 32
    flip = (word(SECRET, 8) ^ word(SECRET, 16)) - seed
    x = (flip & MASK) ^ (word(key, 0, 4) << 32 | word(key, n - 4, 4))
    x = (x ^ rotate(x, 49) ^ rotate(x, 24)) * MX2 & MASK
    x = (x ^ ((x >> 35) + n)) * MX2 & MASK
    return xor_shift(x, 28)


def xxh3_of_9_to_16(key: bytes, seed: int) -> int:
    n = len(key)
    a, b, c, d = words(SECRET, 24, 4)
    low = (((a ^ b) + seed) & MASK) ^ word(key, 0)
    high = (((c ^ d) - seed) & MASK) ^ word(key, n - 8)
    return xxh3_avalanche((n + byte_swap(low, 8) + high + fold(low, high)) & MASK)


def xxh3_of_17_to_240(key: bytes, seed: int) -> int:
    n = len(key)

    def mix(at: int, secret_at: int) -> int:
        low = word(key, at) ^ ((word(SECRET, secret_at) + seed) & MASK)
        high = word(key, at + 8) ^ ((word(SECRET, secret_at + 8) - seed) & MASK)
        return fold(low, high)

    acc = n * P1
    if n <= 128:
        for i in range((n + 31) // 32):
            acc += mix(16 * i, 32 * i)
            acc += mix(n - 16 * (i + 1), 32 * i + 16)
    else:
        for i in range(8):
            acc += mix(16 * i, 16 * i)
        acc = xxh3_avalanche(acc & MASK)
        for i in range(8, n // 16):
            acc += mix(16 * i, 16 * (i - 8) + 3)
        acc += mix(n - 16, 119)
    return xxh3_avalanche(acc & MASK)


def xxh3_of_more(key: bytes, seed: int) -> int:
    n = len(key)
    secret = b"".join(
        ((w + (-seed if i % 2 else seed)) & MASK).to_bytes(8, "little")
        for i, w in enumerate(words(SECRET, 0, 24))
    )
    accs = [P32_3, P1, P2, P3, P4, P32_2, P5, P32_1]

    def accumulate(at: int, secret_at: int) -> None:
        lanes = words(key, at, 8)
        for i, s in enumerate(words(secret, secret_at, 8)):
            x = lanes[i] ^ s
            accs[i] = (accs[i] + lanes[i ^ 1] + (x & MASK32) * (x >> 32)) & MASK

    def scramble() -> None:
        for i, s in enumerate(words(secret, 128, 8)):
            accs[i] = (xor_shift(accs[i], 47) ^ s) * P32_1 & MASK

    # The last stripe ends with the key, so that it may overlap the one before.
    for stripe in range((n - 1) // 64):
        accumulate(64 * stripe, 8 * (stripe % 16))
        if stripe % 16 == 15:
            scramble()
    accumulate(n - 64, 121)
    flipped = [a ^ s for a, s in zip(accs, words(secret, 11, 8), strict=True)]
    total = n * P1 + sum(fold(*flipped[i : i + 2]) for i in range(0, 8, 2))
    return xxh3_avalanche(total & MASK)


def xxh3_64(key: bytes, seed: int = 0) -> int:
    """Hash as the specification says for keys of this length."""
    n = len(key)
    if n == 0:
        return xxh64_avalanche(seed ^ word(SECRET, 56) ^ word(SECRET, 64))
    if n <= 3:
        return xxh3_of_1_to_3(key, seed)
    if n <= 8:
        return xxh3_of_4_to_8(key, seed)
    if n <= 16:
        return xxh3_of_9_to_16(key, seed)
    if n <= 240:
        return xxh3_of_17_to_240(key, seed)
    return xxh3_of_more(key, seed)


# ------------------------------------------------------------------------ MurmurHash3


def murmur3_32(key: bytes, seed: int = 0) -> int:
    """Hash words of 4 bytes, the last one filled up with zeros; unsigned."""
    h = seed
    for at in range(0, len(key), 4):
        k = word(key, at, 4) * 0xCC9E2D51 & MASK32
        h ^= rotate(k, 15, 32) * 0x1B873593 & MASK32
        if len(key) - at >= 4:
            h = (rotate(h, 13, 32) * 5 + 0xE6546B64) & MASK32
    h ^= len(key)
    h = xor_shift(h, 16) * 0x85EBCA6B & MASK32
    h = xor_shift(h, 13) * 0xC2B2AE35 & MASK32
    return xor_shift(h, 16)


# --------------------------------------------------------------------------- FarmHash

K0 = 0xC3A5C85C97CB3127
K1 = 0xB492B66FBE98F273
K2 = 0x9AE16A3B2F90404F

Pair = tuple[int, int]


def rotate_right(x: int, bits: int) -> int:
    return rotate(x, 64 - bits)


def farm_join(a: int, b: int, factor: int) -> int:
    """Make one word of two."""
    a = xor_shift((a ^ b) * factor & MASK, 47)
    b = xor_shift((b ^ a) * factor & MASK, 47)
    return b * factor & MASK


def farm_cross(a: int, b: int, c: int, d: int, extra: int) -> Pair:
    """Make two words of four."""
    first = rotate_right((a + b) & MASK, 43) + rotate_right(c, 30) + d
    second = a + rotate_right((b + extra) & MASK, 18) + c
    return first & MASK, second & MASK


def farm_absorb(key: bytes, at: int, a: int, b: int) -> Pair:
    """Mix 32 bytes of the key into two words."""
    w, x, y, z = words(key, at, 4)
    a += w
    b = rotate_right((a + b + z) & MASK, 21)
    total = a + x + y
    return (total + z) & MASK, (a + b + rotate_right(total & MASK, 44)) & MASK


def farm_of_0_to_16(key: bytes) -> int:
    n = len(key)
    factor = K2 + 2 * n
    if n >= 8:
        a = (word(key, 0) + K2) & MASK
        b = word(key, n - 8)
        c = (rotate_right(b, 37) * factor + a) & MASK
        d = (rotate_right(a, 25) + b) * factor & MASK
        return farm_join(c, d, factor)
    if n >= 4:
        return farm_join(n + 8 * word(key, 0, 4), word(key, n - 4, 4), factor)
    if n >= 1:
        low = key[0] + (key[n // 2] << 8)
        high = n + (key[-1] << 2)
        return xor_shift((low * K2 ^ high * K0) & MASK, 47) * K2 & MASK
    return K2


def farm_of_17_to_64(key: bytes) -> int:
    n = len(key)
    factor = K2 + 2 * n
    a = word(key, 0) * (K1 if n <= 32 else K2) & MASK
    b = word(key, 8)
    c = word(key, n - 8) * factor & MASK
    d = word(key, n - 16) * K2
    first, second = farm_cross(a, b, c, d, K2)
    joined = farm_join(first, second, factor)
    if n <= 32:
        return joined
    e = word(key, 16) * factor & MASK
    f = word(key, 24)
    g = (first + word(key, n - 32)) * factor & MASK
    h = (joined + word(key, n - 24)) * factor
    return farm_join(*farm_cross(e, f, g, h, a), factor)


def farm_of_more(key: bytes) -> int:
    n = len(key)
    seed = 81
    x = (seed * K2 + word(key, 0)) & MASK
    y = (seed * K1 + 113) & MASK
    z = xor_shift((y * K2 + 113) & MASK, 47) * K2 & MASK
    v: Pair = (0, 0)
    w: Pair = (0, 0)

    def step(at: int, factor: int, weight: int) -> None:
        """Mix 64 bytes of the key into all that is kept."""
        nonlocal v, w, x, y, z
        x = rotate_right((x + y + v[0] + word(key, at + 8)) & MASK, 37) * factor & MASK
        y = rotate_right((y + v[1] + word(key, at + 48)) & MASK, 42) * factor & MASK
        x ^= w[1] * weight & MASK
        y = (y + v[0] * weight + word(key, at + 40)) & MASK
        z = rotate_right((z + w[0]) & MASK, 33) * factor & MASK
        v = farm_absorb(key, at, v[1] * factor, x + w[0])
        w = farm_absorb(key, at + 32, z + w[1], y + word(key, at + 16))
        x, z = z, x

    for at in range(0, n - 64, 64):
        step(at, K1, 1)
    factor = K1 + 2 * (z & 0xFF)
    w0 = w[0] + (n - 1) % 64
    v0 = v[0] + w0
    v, w = (v0 & MASK, v[1]), ((w0 + v0) & MASK, w[1])
    step(n - 64, factor, 9)
    first = farm_join(v[0], w[0], factor) + xor_shift(y, 47) * K0 + z
    second = farm_join(v[1], w[1], factor) + x
    return farm_join(first & MASK, second & MASK, factor)


def farmhash64(key: bytes, seed: int = 0) -> int:
    """Hash as FarmHash's Fingerprint64 does; it takes no seed."""
    assert seed == 0
    if len(key) <= 16:
        return farm_of_0_to_16(key)
    if len(key) <= 64:
        return farm_of_17_to_64(key)
    return farm_of_more(key)


# ------------------------------------------------------------------------- all of them

HASHES: dict[str, Hash] = {
    "xxh64": xxh64,
    "xxh3_64": xxh3_64,
    "murmur3_32": murmur3_32,
    "farmhash64": farmhash64,
}
BITS = {
    **dict.fromkeys(("xxh64", "xxh3_64", "farmhash64", "siphash24"), 64),
    **{"murmur3_32": 32, "murmur3_32_spark": 32, "murmur3_32_vw": 64},
}
# How many seeds each takes, beginning with 0.
NUM_SEEDS = {"xxh64": 2**64, "xxh3_64": 2**64, "murmur3_32": 2**32, "farmhash64": 1}


def reduce(h: int, num_buckets: int, how: str, bits: int) -> int:
    """Make a bucket of a hash of `bits` bits, in [0, 2**bits)."""
    if how == "offset":
        return 1 + h % (num_buckets - 1)
    if how == "mod":
        return h % num_buckets
    if how == "pmod":
        return signed(h, bits) % num_buckets
    if how == "abs":
        return abs(signed(h & MASK32, 32)) % num_buckets
    assert how == "raw"
    return signed(h, 64)


def libraries() -> dict[str, Hash]:
    """The reference implementations; imported here, since only tests have them."""
    import farmhash
    import mmh3
    import xxhash

    def of_farmhash(key: bytes, seed: int) -> int:
        assert seed == 0
        return int(farmhash.fingerprint64(key))

    return {
        "xxh64": xxhash.xxh64_intdigest,
        "xxh3_64": xxhash.xxh3_64_intdigest,
        "murmur3_32": lambda key, seed: mmh3.hash(key, seed, signed=False),
        "farmhash64": of_farmhash,
    }


# ------------------------------------------------------------------------------ Spark


def spark_xxhash64(key: bytes) -> int:
    """Spark's xxhash64 of one column, signed; seed 42."""
    return signed(xxh64(key, 42), 64)


def murmur3_32_spark(key: bytes, seed: int = 0) -> int:
    """Hash as Spark does: every byte of the tail is a word of its own; unsigned.

    After Murmur3_x86_32.hashUnsafeBytes of Spark.
    """
    h = seed
    whole = len(key) // 4 * 4
    blocks = [word(key, at, 4) for at in range(0, whole, 4)]
    blocks += [signed(byte, 8) & MASK32 for byte in key[whole:]]
    for k in blocks:
        k = rotate(k * 0xCC9E2D51 & MASK32, 15, 32) * 0x1B873593 & MASK32
        h = (rotate(h ^ k, 13, 32) * 5 + 0xE6546B64) & MASK32
    h ^= len(key)
    h = xor_shift(h, 16) * 0x85EBCA6B & MASK32
    h = xor_shift(h, 13) * 0xC2B2AE35 & MASK32
    return xor_shift(h, 16)


def spark_hash(key: bytes) -> int:
    """Spark's hash of one column, signed; seed 42."""
    return signed(murmur3_32_spark(key, 42), 32)


def float_as_bytes(value: float, num_bytes: int) -> bytes:
    """The bytes of a float, rounded to 4: the same of all NaN, and of both zeros."""
    try:
        raw = struct.pack("<d" if num_bytes == 8 else "<f", value)
    except OverflowError:
        return float_as_bytes(math.copysign(math.inf, value), num_bytes)
    if value != value:
        return bytes.fromhex("7ff8000000000000" if num_bytes == 8 else "7fc00000")[::-1]
    return bytes(num_bytes) if raw[-1] == 128 and not any(raw[:-1]) else raw


def spark_key(kind: str, value: str | bytes | int | float) -> bytes:
    """The bytes that Spark hashes of a value: of a DECIMAL, its unscaled value."""
    if isinstance(value, float):
        return float_as_bytes(value, 4 if kind == "FLOAT" else 8)
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if kind in ("INT", "SMALLINT", "TINYINT", "BOOLEAN", "DATE"):
        return value.to_bytes(4, "little", signed=True)
    precision = int(kind[8:].split(",")[0]) if kind.startswith("DECIMAL") else 0
    if precision > 18:
        return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    return int_as_bytes(value)


# (type, value, xxhash64(value), hash(value)) as Spark 4.3 gives them; dates in days,
# timestamps in microseconds, decimals unscaled.
SPARK: list[tuple[str, str | bytes | int | float | None, int, int]] = [
    ("STRING", "", -7444071767201028348, 142593372),
    ("STRING", "a", -8582455328737087284, 1485273170),
    ("STRING", "ab", 2710560539726725091, -97053317),
    ("STRING", "abc", 1423657621850124518, 1322437556),
    ("STRING", "abcd", -6810745876291105281, -396302900),
    ("STRING", "abcdefg", 3761890393722740389, 2132013596),
    ("STRING", "abcdefgh", 2470326616177429180, -804741815),
    ("STRING", "käse", 3002123098661234315, 1268695246),
    ("STRING", "日本🙂", -1509793614341618788, 1609841656),
    ("STRING", "Spark", -4294468057691064905, 228093765),
    ("STRING", "x" * 31, -1716462135722163746, 2064856624),
    ("STRING", "x" * 32, 1299777543150008824, 185795745),
    ("STRING", "x" * 33, -2751654916054470392, 156528433),
    ("STRING", "x" * 100, 365730103971579591, 1899616407),
    ("BINARY", b"\x00\xff\x80", 7869338589911211550, -2052482636),
    ("BINARY", b"\x80\xff\xfe\xfd", 7699079898041440446, -971946739),
    ("INT", 0, 3614696996920510707, 933211791),
    ("INT", 1, -6698625589789238999, -559580957),
    ("INT", -1, 2017008487422258757, -1604776387),
    ("INT", 42, -387659249110444264, 29417773),
    ("INT", 2147483647, 1508894993788531228, 133916647),
    ("INT", -2147483648, 2073849959933241805, 723455942),
    ("SMALLINT", 7, 2786828215451145335, 1079293707),
    ("SMALLINT", -7, 4987848727247274714, -1618159745),
    ("TINYINT", 7, 2786828215451145335, 1079293707),
    ("TINYINT", -7, 4987848727247274714, -1618159745),
    ("BOOLEAN", True, -6698625589789238999, -559580957),
    ("BOOLEAN", False, 3614696996920510707, 933211791),
    ("DATE", 18262, 2299834470729022467, -725858435),
    ("BIGINT", 0, -5252525462095825812, -1670924195),
    ("BIGINT", 1, -7001672635703045582, -1712319331),
    ("BIGINT", -1, 3858142552250413010, -939490007),
    ("BIGINT", 42, -6876166290308861218, 1316951768),
    ("BIGINT", 9223372036854775807, -3246596055638297850, -1604625029),
    ("BIGINT", -9223372036854775808, -8619748838626508300, -853646085),
    ("TIMESTAMP", 1577836800000000, 7881863312764026046, -1486022740),
    ("TIMESTAMP_NTZ", 1577836800000000, 7881863312764026046, -1486022740),
    ("DECIMAL(4,2)", 1234, -3802813071951760351, -1028144669),
    ("DECIMAL(18,0)", 7, -2864211556195259663, 1293116811),
    ("DECIMAL(19,0)", 7, -2707323769083221954, 241752123),
    ("DECIMAL(38,0)", 7, -2707323769083221954, 241752123),
    ("FLOAT", 0.0, 3614696996920510707, 933211791),
    ("FLOAT", -0.0, 3614696996920510707, 933211791),
    ("FLOAT", 1.5, 6163473420726370430, -221251528),
    ("FLOAT", -1.5, -3653657859106325556, 1765572753),
    ("FLOAT", 0.1, -7604770425485878823, 38965448),
    ("FLOAT", 3.4028234663852886e38, -1065250890878313112, -338752985),
    ("FLOAT", 1e-45, -6698625589789238999, -559580957),
    ("FLOAT", -1e-46, 3614696996920510707, 933211791),
    ("FLOAT", float("inf"), -5940311692336719973, 2026854605),
    ("FLOAT", float("-inf"), -7580553461823983095, 427440766),
    ("FLOAT", float("nan"), 2692338816207849720, -349261430),
    ("FLOAT", 16777217.0, 3035270902668959186, -1266822778),
    ("FLOAT", 2.718281828459045, -3604606472541194129, -416329262),
    ("DOUBLE", 0.0, -5252525462095825812, -1670924195),
    ("DOUBLE", -0.0, -5252525462095825812, -1670924195),
    ("DOUBLE", 1.5, 7738255526519901366, 1290763749),
    ("DOUBLE", -1.5, -1519168156472177911, 2099784398),
    ("DOUBLE", 0.1, -4684694357984311926, -1777758357),
    ("DOUBLE", 3.4028234663852886e38, -7935710949781383019, 1233658544),
    ("DOUBLE", 1e-45, -7759496261585577418, -727124437),
    ("DOUBLE", -1e-46, -95458992707170720, -62403317),
    ("DOUBLE", float("inf"), 5810986238603807492, 833680482),
    ("DOUBLE", float("-inf"), 5326262080505358431, 461104036),
    ("DOUBLE", float("nan"), -3127944061524951246, -1281358385),
    ("DOUBLE", 16777217.0, 7460671814019783805, 2032338721),
    ("DOUBLE", 2.718281828459045, 10115682302398585, -230350390),
    ("STRING", None, 42, 42),
    ("BIGINT", None, 42, 42),
    ("INT", None, 42, 42),
]


# ([(type, value), ..], xxhash64(..), hash(..)) of several columns, as Spark 4.3 has it.
SPARK_ROWS: list[tuple[list[tuple[str, str | int | float | None]], int, int]] = [
    ([("STRING", "shop_7"), ("BIGINT", 42)], 5324350339173571517, 794620647),
    ([("BIGINT", 42), ("STRING", "shop_7")], 2151748308602268518, -291013714),
    ([("STRING", "shop_7"), ("INT", 42)], -4129670889215701644, -1103495852),
    ([("STRING", None), ("BIGINT", 42)], -6876166290308861218, 1316951768),
    ([("STRING", "shop_7"), ("BIGINT", None)], 1251568157967500344, -735219948),
    ([("STRING", None), ("BIGINT", None)], 42, 42),
    ([("STRING", ""), ("STRING", "")], 6372822119346140258, -1176845985),
    (
        [("STRING", "käse"), ("STRING", "a"), ("STRING", "abcdefg")],
        -5016862762198667543,
        702197428,
    ),
    ([("FLOAT", 0.1), ("DOUBLE", 0.1), ("INT", -7)], -929790700047702233, -745594228),
    (
        [
            ("DOUBLE", -0.0),
            ("STRING", None),
            ("FLOAT", float("nan")),
            ("BIGINT", -1),
            ("INT", None),
            ("STRING", "x" * 31),
        ],
        2201892348066483780,
        -1120053404,
    ),
    ([("STRING", None)], 42, 42),
    ([("STRING", "a")], -8582455328737087284, 1485273170),
]


# ---------------------------------------------------------------- others' other hashes


def siphash24(key: bytes, seed: tuple[int, int] = (0, 0)) -> int:
    """Hash as the SipHash paper says in its section 2: c = 2, d = 4."""
    k0, k1 = seed
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]

    def rounds(count: int) -> None:
        for _ in range(count):
            for a, b, c, d, r, s in ((0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21)):
                v[a] = (v[a] + v[b]) & MASK
                v[c] = (v[c] + v[d]) & MASK
                v[b] = rotate(v[b], r) ^ v[a]
                v[d] = rotate(v[d], s) ^ v[c]
                v[a] = rotate(v[a], 32)

    def absorb(message: int) -> None:
        v[3] ^= message
        rounds(2)
        v[0] ^= message

    whole = len(key) // 8 * 8
    for at in range(0, whole, 8):
        absorb(word(key, at))
    absorb(word(key, whole) | (len(key) & 255) << 56)
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def murmur3_32_vw(key: bytes, seed: int = 0) -> int:
    """Hash as Vowpal Wabbit's hashstring: digits alone are a number, plus the seed."""
    key = key.strip(bytes(range(33)))
    if all(chr(byte) in "0123456789" for byte in key):
        return (int(key or b"0") + seed) & MASK
    return murmur3_32(key, seed)


OTHERS: dict[str, Callable[[bytes, Any], int]] = {
    "siphash24": siphash24,
    "murmur3_32_spark": murmur3_32_spark,
    "murmur3_32_vw": murmur3_32_vw,
}

# Of the bytes 0, 1, .. n - 1 by the key 0, 1, .. 15: the paper's appendix A for n = 15,
# vectors_sip64 of the authors' github.com/veorq/SipHash for the others.
SIPHASH_KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
SIPHASH = {
    0: 0x726FDB47DD0E0E31,
    1: 0x74F839C593DC67FD,
    2: 0x0D6C8009D9A94F5A,
    3: 0x85676696D7FB7E2D,
    4: 0xCF2794E0277187B7,
    5: 0x18765564CD99A68D,
    6: 0xCBC9466E58FEE3CE,
    7: 0xAB0200F58B01D137,
    8: 0x93F5F5799A932462,
    15: 0xA129CA6149BE45E5,
}


# ------------------------------------------------------------------------- golden file

GOLDEN = Path(__file__).with_name("golden_hashes.json")
KEY_OF_LENGTH_N = "bytes((i * 131 + n * 7 + 11) % 256 for i in range(n))"
SEEDS = {
    name: sorted({s for s in (0, 42, count - 1) if s < count})
    for name, count in NUM_SEEDS.items()
}
LENGTHS = sorted(
    {*range(261)}
    | {m + d for step in (64, 240) for m in range(0, 4161, step) for d in (-1, 0, 1)}
    - {-1, 4161}
)
INTEGERS = [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]


def key(n: int) -> bytes:
    """The golden key of n bytes."""
    return bytes((i * 131 + n * 7 + 11) % 256 for i in range(n))


def int_as_bytes(value: int) -> bytes:
    return value.to_bytes(8, "little", signed=True)


def int_as_text(value: int) -> bytes:
    return str(value).encode()


KEYS: dict[str, list[bytes]] = {
    "lengths": [key(n) for n in LENGTHS],
    "integers_as_bytes": [int_as_bytes(value) for value in INTEGERS],
    "integers_as_text": [int_as_text(value) for value in INTEGERS],
}

# (hash, key, seed, value) as published.
PUBLISHED: list[tuple[str, bytes, int, int]] = [
    # with XXH64 and its bindings
    ("xxh64", b"", 0, 0xEF46DB3751D8E999),
    ("xxh64", b"", 2654435761, 0xAC75FDA2929B17EF),
    ("xxh64", b"a", 0, 0xD24EC4F1A98C6E5B),
    ("xxh64", b"abc", 0, 0x44BC2CF5AD770999),
    ("xxh64", b"xxhash", 0, 0x32DD38952C4BC720),
    ("xxh64", b"xxhash", 20141025, 0xB559B98D844E0635),
    ("xxh64", b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
    # in PySpark's pages: xxhash64("ABC"), and then of the column "DEF"
    ("xxh64", b"ABC", 42, 4105715581806190027),
    ("xxh64", b"DEF", 4105715581806190027, 3233247871021311208),
    # with XXH3 and its bindings, and in Tenzir's hash_xxh3
    ("xxh3_64", b"", 0, 0x2D06800538D394C2),
    ("xxh3_64", b"", 0x9E3779B185EBCA8D, 0xA8A6B918B2F0364A),
    ("xxh3_64", b"a", 0, 0xE6C632B61E964E1F),
    ("xxh3_64", b"abc", 0, 0x78AF5F94892F3950),
    ("xxh3_64", b"foo", 0, 0xAB6E5F64077E7D8A),
    # well-known vectors of MurmurHash3, and mmh3's own examples, there signed
    ("murmur3_32", b"", 0, 0),
    ("murmur3_32", b"", 1, 0x514E28B7),
    ("murmur3_32", b"", 0xFFFFFFFF, 0x81F16F39),
    ("murmur3_32", b"\0", 0, 0x514E28B7),
    ("murmur3_32", b"\0\0", 0, 0x30F4C306),
    ("murmur3_32", b"\0\0\0", 0, 0x85F0B427),
    ("murmur3_32", b"\0\0\0\0", 0, 0x2362F9DE),
    ("murmur3_32", b"\xff\xff\xff\xff", 0, 0x76293B50),
    ("murmur3_32", b"\x21\x43\x65\x87", 0, 0xF55B516B),
    ("murmur3_32", b"\x21\x43\x65\x87", 0x5082EDEE, 0x2362F9DE),
    ("murmur3_32", b"abc", 0, 0xB3DD93FA),
    ("murmur3_32", b"Hello, world!", 0x9747B28C, 0x24884CBA),
    ("murmur3_32", b"foo", 0, -156908512 & MASK32),
    ("murmur3_32", b"foo", 42, -1322301282 & MASK32),
    # in BigQuery's page of FARM_FINGERPRINT, there signed, and in pyfarmhash's
    ("farmhash64", b"1footrue", 0, -1541654101129638711 & MASK),
    ("farmhash64", b"2applefalse", 0, 2794438866806483259),
    ("farmhash64", b"3true", 0, -4880158226897771312 & MASK),
    ("farmhash64", b"abc", 0, 2640714258260161385),
]


def golden_text() -> str:
    """What the golden file says: the libraries' hashes, one set of keys a line."""
    hashes = libraries()
    lines = [
        {
            "hash": name,
            "seed": f"{seed:x}",
            "keys": of,
            "hashes": [f"{hashes[name](k, seed):0{BITS[name] // 4}x}" for k in keys],
        }
        for name in HASHES
        for seed in SEEDS[name]
        for of, keys in KEYS.items()
    ]
    published = [
        {
            "hash": name,
            "seed": f"{seed:x}",
            "key": k.hex(),
            "value": f"{hashes[name](k, seed):0{BITS[name] // 4}x}",
        }
        for name, k, seed, _ in PUBLISHED
    ]

    def rows(values: list[dict[str, str | list[str]]]) -> str:
        return ",\n".join(json.dumps(v, separators=(",", ":")) for v in values)

    return (
        f'{{"key":{json.dumps(KEY_OF_LENGTH_N)},\n'
        f'"lengths":{json.dumps(LENGTHS, separators=(",", ":"))},\n'
        f'"integers":{json.dumps(INTEGERS, separators=(",", ":"))},\n'
        f'"golden":[\n{rows(lines)}\n],\n"published":[\n{rows(published)}\n]}}\n'
    )


def golden() -> Iterator[tuple[str, int, str, list[int]]]:
    """Read the golden file: (hash, seed, which of KEYS, their hashes)."""
    for line in json.loads(GOLDEN.read_text())["golden"]:
        values = [int(h, 16) for h in line["hashes"]]
        yield line["hash"], int(line["seed"], 16), line["keys"], values


if __name__ == "__main__":
    GOLDEN.write_text(golden_text())

"""Compare every golden hash with what this build gives: run by .ci/arm64.sh."""

import platform
from pathlib import Path

import din_infer
from din_infer import _kernels
from din_infer.columns import to_column
from tests.reference_hash import BITS, INTEGERS, KEYS, golden, reduce


def encode(
    values: list[object], name: str, dtype: str, **options: int | str
) -> list[int]:
    """Return the reduced hashes of a column."""
    encoder = _kernels.Encoder(
        "hash", dtype, hash=name, rows=2, reduce="raw", **options
    )
    ids, _, _ = _kernels.encode_scalars(to_column(values, "keys"), encoder)
    return list(ids.tolist())


assert platform.machine() == "aarch64", platform.machine()
assert "arm64" in Path(din_infer.__file__).parts, din_infer.__file__
assert _kernels.isas() == ["baseline"], _kernels.isas()
count = 0
for name, seed, of, hashes in golden():
    expected = [reduce(h, 2, "raw", BITS[name]) for h in hashes]
    got = [encode(list(KEYS[of]), name, "string", seed=seed)]
    if of.startswith("integers_as_"):
        form = of.removeprefix("integers_as_")
        got.append(encode(list(INTEGERS), name, "int64", seed=seed, int_as=form))
    for hashed in got:
        assert hashed == expected, (name, seed, of)
        count += len(expected)
assert count > 5_000, count
print(f"{count} golden hashes are equal on {platform.machine()}", flush=True)

"""Digests of a model's files: every byte when asked, a sample of them at every load.

An ``.onnx`` ends with a metadata entry about all bytes before it; of a data file the
graph's metadata tells size, digest and, per tensor, a sample. The formats are in
docs/loading.md.
"""

import hashlib
import json
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from din_infer.model_format import FILE_KEY
from din_infer.onnx_header import MODEL_METADATA, Place, entry, tagged

__all__ = [
    "Record",
    "blocks_of",
    "digest_of",
    "sample_of",
    "samples_of",
    "seal_of",
    "sealed",
]

# Some 50 KiB of a file are read at each load, in blocks that no hole of 1 % of the file
# can lie between. SHA-256 of 64 KiB took 0.06 ms, BLAKE2b 0.16.
SAMPLE_SHARES = 100
BLOCK_BYTES = 512
READ_BYTES = 1 << 22


class View(Protocol):
    """The content of a file, or of memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | bytearray | memoryview: ...


@dataclass(frozen=True)
class Record:
    """What is known of a file: bytes, SHA-256, and samples by tensor.

    A sample is (number of blocks, digest). Of an ``.onnx`` there is one, named "".
    """

    num_bytes: int
    sha256: str
    samples: Mapping[str, tuple[int, str]]

    def to_json(self) -> str:
        """Write it as the metadata holds it."""
        content = {
            "bytes": self.num_bytes,
            "sha256": self.sha256,
            "samples": {k: list(v) for k, v in self.samples.items()},
        }
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Read what `to_json` wrote; ValueError, naming nothing, for anything else."""
        try:
            content = json.loads(text)
            size, sha256 = content["bytes"], content["sha256"]
            samples = {k: (n, digest) for k, (n, digest) in content["samples"].items()}
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        counts = [n for n, _ in samples.values()]
        digests = [sha256, *(digest for _, digest in samples.values())]
        right = all(type(n) is int and 0 <= n <= SAMPLE_SHARES + 1 for n in counts)
        right = right and all(isinstance(d, str) for d in digests)
        if not right or type(size) is not int:
            raise ValueError("digests of another form")
        return cls(size, sha256, samples)


def sample_of(view: View, offset: int, length: int, blocks: int) -> str:
    """Digest blocks of 512 bytes, spread evenly from the first to the last byte.

    Parameters
    ----------
    view : bytes-like or mmap
        The file's content.
    offset, length : int
        Of the bytes to sample, in the file.
    blocks : int
        Block i of n begins at ``(length - 512) * i // (n - 1)``. What is no longer
        than all of them is read whole.

    Returns
    -------
    str
        The first 16 hexadecimal digits of their SHA-256.
    """
    if blocks * BLOCK_BYTES >= length:
        content = view[offset : offset + length]
    else:
        step, last = length - BLOCK_BYTES, blocks - 1
        starts = [offset + step * i // last for i in range(blocks)]
        content = b"".join([view[at : at + BLOCK_BYTES] for at in starts])
    return hashlib.sha256(content).hexdigest()[:16]


def blocks_of(places: Sequence[Place]) -> dict[str, int]:
    """Count the blocks of each tensor: at most 1 % of all bytes apart."""
    total = sum(p.length for p in places)
    counts = {}
    for p in places:
        steps = -(-SAMPLE_SHARES * p.length // total) if total else 0
        counts[p.tensor] = min(max(steps + 1, 2), -(-p.length // BLOCK_BYTES))
    return counts


def samples_of(view: View, places: Sequence[Place]) -> dict[str, tuple[int, str]]:
    """Sample every tensor."""
    counts = blocks_of(places)
    return {
        p.tensor: (
            counts[p.tensor],
            sample_of(view, p.offset, p.length, counts[p.tensor]),
        )
        for p in places
    }


def digest_of(
    file: BinaryIO, length: int, progress: Callable[[int], object] | None = None
) -> str:
    """SHA-256 of the next `length` bytes, as hexadecimal digits.

    Parameters
    ----------
    file : binary file
        Read from where it stands; a shorter file gives the digest of what is there.
    length : int
        Bytes to read.
    progress : callable, optional
        Called with the number of bytes of each step.
    """
    digest = hashlib.sha256()
    for block in _blocks(file, length):
        digest.update(block)
        if progress is not None:
            progress(len(block))
    return digest.hexdigest()


def _blocks(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length > 0 and (block := file.read(min(READ_BYTES, length))):
        length -= len(block)
        yield block


def sealed(model: bytes) -> bytes:
    """Append the entry about all bytes of a serialized model to it.

    Protobuf takes fields in any order: every reader finds one metadata entry more.
    """
    return model + seal_of(model)


def seal_of(model: bytes | mmap.mmap) -> bytes:
    """Make the entry about all bytes of a serialized model, which goes behind them."""
    samples = samples_of(model, [Place("", 0, len(model))])
    record = Record(len(model), hashlib.sha256(model).hexdigest(), samples)
    return tagged(MODEL_METADATA, entry(FILE_KEY, record.to_json()))

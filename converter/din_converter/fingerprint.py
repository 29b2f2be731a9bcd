"""Tell whether the files of a run are still those that it began with.

A file is what it was when its size, its rows and a sample of its bytes are. Then it may
have another place, or another time: it was moved, copied or touched.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["changes", "fingerprint"]

BLOCK_BYTES = 1 << 12
BLOCKS = 16
END_BYTES = 1 << 16  # Parquet's footer, with counts and statistics of all columns
MOST_SHOWN = 4


@dataclass(frozen=True)
class _File:
    place: str
    num_bytes: int
    time_ns: int
    rows: int
    sample: str

    @property
    def content(self) -> tuple[int, int, str]:
        return self.num_bytes, self.rows, self.sample

    @classmethod
    def read(cls, text: str) -> "_File":
        place, num_bytes, time_ns, rows, sample = text.rsplit(" ", 4)
        return cls(place, int(num_bytes), int(time_ns), int(rows), sample)


def fingerprint(source: str, rows: int) -> str:
    """Return place, size, time, rows and sample of a file, in a line."""
    path = Path(source).resolve()
    state = path.stat()
    sample = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        step = max(BLOCK_BYTES, state.st_size // BLOCKS)
        for start in range(0, state.st_size, step):
            file.seek(start)
            sample.update(file.read(BLOCK_BYTES))
        file.seek(max(0, state.st_size - END_BYTES))
        sample.update(file.read(END_BYTES))
    told = (state.st_size, state.st_mtime_ns, rows, sample.hexdigest())
    return " ".join([str(path), *map(str, told)])


def changes(before: Sequence[str], now: Sequence[str]) -> tuple[list[str], list[str]]:
    """Compare the files of a run, each as `fingerprint` has it, in order.

    Returns
    -------
    (list of str, list of str)
        What makes it another run; else what differs though the rows are the same.
    """
    try:
        old, new = [_File.read(t) for t in before], [_File.read(t) for t in now]
    except ValueError:
        return ["was written down in another way by an earlier version"], []
    if [f.content for f in old] == [f.content for f in new]:
        pairs = zip(old, new, strict=True)
        return [], _shown([text for o, n in pairs for text in _harmless(o, n)])
    known = {f.place: f for f in old}
    places = {f.place for f in new}
    texts = [f"{f.place} is gone" for f in old if f.place not in places]
    for file in new:
        was = known.get(file.place)
        if was is None:
            texts.append(f"{file.place} is new")
        elif was.content != file.content:
            texts.append(f"{file.place} has changed ({_difference(was, file)})")
    return _shown(texts) or ["the same files come in another order"], []


def _harmless(old: _File, new: _File) -> Iterator[str]:
    if old.place != new.place:
        yield f"{old.place} is now {new.place}"
    elif old.time_ns != new.time_ns:
        yield f"{new.place} was touched"


def _difference(old: _File, new: _File) -> str:
    if old.rows != new.rows:
        return f"{old.rows:,} rows and now {new.rows:,}"
    if old.num_bytes != new.num_bytes:
        return f"{old.num_bytes:,} bytes and now {new.num_bytes:,}"
    return "as large as before, other bytes"


def _shown(texts: list[str]) -> list[str]:
    more = len(texts) - MOST_SHOWN
    return texts if more <= 0 else [*texts[:MOST_SHOWN], f"and {more:,} more"]

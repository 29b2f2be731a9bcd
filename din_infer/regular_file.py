"""Files opened to be read: regular ones alone, and text up to a size.

Whoever opens a pipe waits for its other end, maybe for ever; a device may have no end.
A sparse file has the size that its maker liked, and costs him nothing: text is read by
the block, up to the first byte that no text has.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "MOST_TEXT_BYTES",
    "check_regular",
    "open_regular",
    "read_text",
    "read_text_bytes",
]

# Of a file of text that is held as a whole: a spec with its vocabularies.
MOST_TEXT_BYTES = 1 << 30
BLOCK_BYTES = 1 << 20
# Neither waits for the other end of a pipe, nor makes a terminal one's own.
FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(mode: int, path: str | os.PathLike[str]) -> None:
    """Raise OSError where the mode of a path is not that of a regular file."""
    if stat.S_ISDIR(mode):
        kind = errno.EISDIR
        raise IsADirectoryError(kind, os.strerror(kind), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(f"{KINDS.get(stat.S_IFMT(mode), 'a file of its own kind')}")


def open_regular(path: str | os.PathLike[str], buffering: int = -1) -> BinaryIO:
    """Open a regular file to read bytes, links followed.

    Raises
    ------
    OSError
        As `open` does; or if the file is a pipe, a socket or a device, which is not
        opened, as the error says in two words.
    """
    check_regular(Path(path).stat().st_mode, path)
    file = open(path, "rb", buffering, opener=_open)  # noqa: SIM115
    try:  # another may have taken its place meanwhile
        check_regular(os.fstat(file.fileno()).st_mode, path)
    except BaseException:
        file.close()
        raise
    return file


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | FLAGS)


def read_text(path: str | os.PathLike[str], most_bytes: int = MOST_TEXT_BYTES) -> str:
    """Read a regular file of UTF-8 text as a whole; every line end becomes a line feed.

    Raises
    ------
    OSError, ValueError
        As `read_text_bytes`; or if it is not UTF-8.
    """
    text = read_text_bytes(path, most_bytes).decode()
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text_bytes(
    path: str | os.PathLike[str],
    most_bytes: int = MOST_TEXT_BYTES,
    *,
    takes_nul: bool = False,
) -> bytes:
    """Read a regular file of text as a whole, as it is.

    Raises
    ------
    OSError
        As `open_regular`.
    ValueError
        If it has more than `most_bytes`; or a NUL, where it takes none.
    """
    parts: list[bytes] = []
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        while size <= most_bytes and (block := file.read(BLOCK_BYTES)):
            if not takes_nul and b"\0" in block:
                raise ValueError("a NUL, which no text has")
            parts.append(block)
            size = max(size, file.tell())
    if size > most_bytes:
        raise ValueError(f"more than {most_bytes:,} bytes")
    return b"".join(parts)

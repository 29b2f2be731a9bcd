"""The files of a job: which they are, whether they are still the same, Parquet."""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.errors import InputError

__all__ = [
    "FORMATS",
    "STDIN",
    "Identity",
    "Source",
    "expand",
    "find_sources",
    "found_in",
    "in_file",
    "open_parquet",
    "reading",
]

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
}
TEXT = ("csv", "tsv", "jsonl")
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
STDIN = "-"
PAGE_BYTES = 1 << 16  # of a column of Parquet, that are read at a time
END_BYTES = 1 << 16  # of a file's start and end, which tell it from others


@dataclass(frozen=True)
class Identity:
    """What tells a file from what might stand in its place later.

    `ends` is the SHA-256 of its first and last 64 KiB: of Parquet, the footer with the
    places and statistics of all pages is there.
    """

    size: int
    mtime_ns: int
    ends: str

    @classmethod
    def of(cls, path: Path) -> "Identity":
        """Read the identity of a file; OSError if there is none."""
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(END_BYTES))
            file.seek(max(0, status.st_size - END_BYTES))
            digest.update(file.read(END_BYTES))
        return cls(status.st_size, status.st_mtime_ns, digest.hexdigest())


@dataclass(frozen=True)
class Source:
    """One input: a file, or stdin; `target` is where its scores go, under ``--out``."""

    path: Path | None
    format: str
    target: PurePath

    def __str__(self) -> str:
        return "stdin" if self.path is None else str(self.path)

    def open(self) -> BinaryIO:
        """Open it to read bytes."""
        if self.path is None:
            return os.fdopen(os.dup(0), "rb")
        return self.path.open("rb")


def expand(
    inputs: Sequence[str | Path], suffixes: Iterable[str] = (".parquet",)
) -> Iterator[Path]:
    """List the files, and those of folders and globs in order of name.

    Parameters
    ----------
    inputs : sequence of path
        Files; folders, whose files of these suffixes are taken, of folders in them too;
        or patterns such as ``shards/*.parquet``. Files and folders whose names begin
        with "." or "_" are left out of folders, as engines leave them out.
    suffixes : iterable of str

    Raises
    ------
    InputError
        If a folder has none, or a pattern matches none.
    """
    for path, _ in _expand(inputs, tuple(suffixes)):
        yield path


def _expand(
    inputs: Sequence[str | Path], suffixes: tuple[str, ...]
) -> Iterator[tuple[Path, PurePath]]:
    """List files, and each one's name inside what was given."""
    for item in map(Path, inputs):
        if item.is_dir():
            found = sorted(_inside(item, suffixes))
            if not found:
                plain = ", *".join(s for s in suffixes if not s.endswith(COMPRESSED))
                raise InputError(f"a folder with *{plain}", "none", str(item))
            yield from ((path, path.relative_to(item)) for path in found)
        elif not item.exists() and glob.has_magic(str(item)):
            # a pattern may be absolute, which Path.glob refuses
            names = glob.glob(str(item), recursive=True)  # noqa: PTH207
            if not names:
                raise InputError("files of this pattern", "none", str(item))
            for match in map(Path, sorted(names)):
                if match.is_dir():
                    yield from _expand([match], suffixes)
                else:
                    yield match, PurePath(match.name)
        else:
            yield item, PurePath(item.name)


def _inside(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith((".", "_"))]
        for name in files:
            if name.endswith(suffixes) and not name.startswith((".", "_")):
                yield Path(path) / name


def format_of(path: Path, given: str | None) -> str:
    """Tell the format of a file by its name or its first bytes, unless it is given.

    Raises
    ------
    InputError
        If it cannot be told, or there is no such file.
    """
    if given is not None:
        return given
    suffixes = [s for s in path.suffixes if s not in COMPRESSED]
    if suffixes and suffixes[-1] in FORMATS:
        return FORMATS[suffixes[-1]]
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise InputError("a file to read", error, str(path)) from None
    for magic, kind in ((b"PAR1", "parquet"), (b"ARROW1", "arrow")):
        if start.startswith(magic):
            return kind
    rule = "a name that ends in " + ", ".join(FORMATS)
    raise InputError(rule, path.name, str(path), "Give --format.")


def find_sources(
    inputs: Sequence[str | Path], given: str | None = None
) -> list[Source]:
    """List the inputs of a job, and where their scores go.

    Parameters
    ----------
    inputs : sequence of path
        As `expand` takes them, of all formats; ``-`` is stdin.
    given : str, optional
        The format of all of them: "parquet", "arrow", "csv", "tsv" or "jsonl".

    Returns
    -------
    list of Source
        A file's scores keep its name, inside a folder that was given; where two have
        the same name, all keep their paths below the folder that holds all of them.
        What is not Parquet has ``.parquet`` added.

    Raises
    ------
    InputError
        If a folder or a pattern has no files, or a file is there twice.
    """
    wanted = [i for i in inputs if str(i) != STDIN]
    suffixes = tuple(
        suffix + end
        for suffix, kind in FORMATS.items()
        for end in ("", *(COMPRESSED if kind in TEXT else ()))
        if given in (None, kind)
    )
    pairs = list(_expand(wanted, suffixes))
    paths = [path for path, _ in pairs]
    whole = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    for path, times in Counter(whole).items():
        if times > 1:
            raise InputError("each input once", "it twice", str(path))
    names = [name for _, name in pairs]
    if len(set(names)) < len(names):
        top = os.path.commonpath([path.parent for path in whole])
        names = [PurePath(path.relative_to(top)) for path in whole]
    found = []
    for path, name in zip(paths, names, strict=True):
        kind = format_of(path, given)
        # folders of engines have files without a suffix
        target = name if kind == "parquet" else name.with_name(name.name + ".parquet")
        found.append(Source(path, kind, target))
    if len(wanted) < len(inputs):
        found.append(_stdin(given, len(inputs) - len(wanted)))
    for target, times in Counter(source.target for source in found).items():
        if times > 1:
            got = f"two that become {target}"
            raise InputError("inputs of different names", got, "inputs")
    return found


def _stdin(given: str | None, times: int) -> Source:
    if times > 1:
        raise InputError("each input once", "it twice", STDIN)
    if given is None or given == "parquet":
        rule = "--format arrow, csv, tsv or jsonl for stdin"
        fix = "Parquet cannot be read as a stream." if given else ""
        raise InputError(rule, given or "none", STDIN, fix)
    return Source(None, given, PurePath("stdin.parquet"))


def open_parquet(
    path: str | Path, wanted: Iterable[str], optional: Iterable[str] = ()
) -> pq.ParquetFile:
    """Open a Parquet file that has the columns `wanted`, and maybe `optional` ones.

    Raises
    ------
    InputError
        If it is not a readable Parquet file, or lacks some: all are named.
    """
    file = read_footer(path)
    names = file.schema_arrow.names
    wanted = list(wanted)
    twice = [c for c in (*wanted, *optional) if names.count(c) > 1]
    if twice:
        file.close()
        raise InputError("each column once", ", ".join(twice), str(path))
    missing = [c for c in wanted if c not in names]
    if missing:
        file.close()
        rule = "the columns " + ", ".join(missing)
        raise InputError(rule, "only " + ", ".join(names), str(path))
    return file


def read_footer(path: str | Path) -> pq.ParquetFile:
    """Open a Parquet file, to be read by the page: row groups may be of any size.

    Raises
    ------
    InputError
        If it is not readable.
    """
    try:
        return pq.ParquetFile(path, buffer_size=PAGE_BYTES, pre_buffer=False)
    except (OSError, UnicodeError, pa.ArrowException) as error:
        rule = "a readable Parquet file"
        raise InputError(rule, str(error).splitlines()[0], str(path)) from None


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn an error of reading Parquet into an `InputError` that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        rule = "a Parquet file that can be read to its end"
        raise InputError(rule, str(error).splitlines()[0], str(path)) from None


def found_in(
    file: pq.ParquetFile, wanted: Iterable[str], optional: Iterable[str]
) -> list[str]:
    """List the columns to read: `wanted`, and what the file has of `optional`."""
    names = file.schema_arrow.names
    return list(dict.fromkeys([*wanted, *(n for n in optional if n in names)]))


def in_file(error: InputError, start: int, source: str | Path) -> InputError:
    """Say the row of `source`, where the error says that of a batch from `start` on."""
    row = None if error.row is None else error.row + start
    return error.at(row=row, source=str(source))

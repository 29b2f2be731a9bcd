"""Which files are data, of folders and patterns: one rule for all commands."""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from din_infer.errors import InputError
from din_infer.jobs.table_logs import EXPORT, Table, Tables
from din_infer.local_path import local_path
from din_infer.regular_file import check_regular, open_regular

__all__ = [
    "FORMATS",
    "Note",
    "check_given",
    "expand",
    "find_files",
    "format_of",
    "ignore",
    "one_file",
]

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".parq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
TEXT = ("csv", "tsv", "jsonl")
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
# How files begin: of Parquet, with an encrypted footer too.
MAGIC = {b"PAR1": "parquet", b"PARE": "parquet", b"ARROW1": "arrow"}
CHECKSUM = ".crc"
# Suffixes that tell no format: none, a codec's, and what Spark appends. Others, as
# those of copies and drafts, are of files that engines do not read either.
NO_FORMAT = re.compile(
    r"|\.(gz|gzip|bz2|zst|zstd|lz4|lzo|snappy|br|brotli|c\d+)", re.IGNORECASE
)

Note = Callable[[str], object]


def ignore(note: str) -> None:
    """Take a note, and do nothing."""


def expand(
    inputs: Sequence[str | Path],
    kinds: Collection[str] = ("parquet",),
    *,
    on_note: Note = ignore,
) -> list[Path]:
    """List the files, and those of folders and patterns in order of name.

    Parameters
    ----------
    inputs : sequence of path
        Files; folders, of which the data files are taken, of folders in them too; or
        patterns such as ``shards/*.parquet``. Of a Delta table's folder, the live files
        are taken.
    kinds : collection of str
        Of `FORMATS`, that are wanted of folders. The name of a data file ends in a
        suffix of these, in letters of either case; or in none, or that of a codec, and
        the first bytes are those of Parquet or Arrow. Left out are names that begin
        with "." or "_", as engines leave them out, but not folders as ``_day=1``.
    on_note : callable
        Called with a sentence about each folder that has files which are not read.

    Raises
    ------
    InputError
        If a path is a URL; a folder has no such file, or a pattern matches none; a file
        is there twice, also by links; a file is no regular one; it is one of a table's
        that is not live, or of a table whose log cannot be read here.
    """
    return [path for path, _ in find_files(inputs, kinds, on_note=on_note)]


def one_file(path: str | Path) -> Path:
    """Take a path of a file; InputError as `expand`, or if it is a folder."""
    path = local_path(path, "input")
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises without the right to
        raise InputError("a file", "a folder", str(path))
    with _looking(path):
        _check_regular(path)
        Tables().check(path)
    return path


def _matches(item: Path) -> list[Path]:
    """List what a path names, itself or as a pattern."""
    if os.path.exists(item) or not glob.has_magic(str(item)):  # noqa: PTH110
        return [item]
    with _looking(item):
        # a pattern may be absolute, which Path.glob refuses
        names = sorted(glob.glob(str(item), recursive=True))  # noqa: PTH207
        matches = [path for path in map(Path, names) if _is_meant(path, item)]
    if not matches:
        raise InputError("files of this pattern", "none", str(item))
    return matches


@contextmanager
def _looking(path: Path) -> Iterator[None]:
    """Turn the error of a folder that may not be searched into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError("a file to read", error, str(path)) from None


def _check_regular(path: Path) -> None:
    """Refuse a pipe, a socket or a device, which a reader would wait for."""
    try:
        mode = path.stat().st_mode
    except OSError:  # which its reader will say
        return
    try:
        check_regular(mode, path)
    except OSError as error:
        raise InputError("a regular file", error, str(path)) from None


def find_files(
    inputs: Sequence[str | Path],
    kinds: Collection[str],
    *,
    given: str | None = None,
    on_note: Note = ignore,
) -> list[tuple[Path, PurePath]]:
    """List files as `expand` does, and each one's name inside what was given.

    Where a format is `given`, names without a suffix are of that.
    """
    check_given(given)
    tables = Tables()
    found: list[tuple[Path, PurePath]] = []
    for item in [local_path(item, "inputs") for item in inputs]:
        for match in _matches(item):
            with _looking(match):
                if os.path.isdir(match):  # noqa: PTH112
                    folder = _Folder(match, kinds, given, tables)
                    found += folder.files(on_note)
                else:
                    tables.check(match)
                    found.append((match, PurePath(match.name)))
    seen: dict[object, Path] = {}
    for path, _ in found:
        _check_regular(path)
        first = seen.setdefault(_identity(path), path)
        if first is not path:
            got = "it twice" if first == path else f"{first} too, by a link"
            raise InputError("each input once", got, str(path))
    return found


def check_given(given: object) -> None:
    """Refuse what is the name of no format; raises InputError."""
    names = tuple(dict.fromkeys(FORMATS.values()))
    if given is not None and not (isinstance(given, str) and given in names):
        raise InputError("one of " + ", ".join(names), repr(given), "format")


def format_of(path: Path, given: str | None = None) -> str | None:
    """Tell the format of a file by its name, else by its first bytes.

    Returns None where neither tells: `given`, or none. OSError if it cannot be read.
    """
    suffix, is_compressed = _suffix(path)
    kind = FORMATS.get(suffix)
    if kind is not None and (kind in TEXT or not is_compressed):
        return kind
    with open_regular(path) as file:
        start = file.read(8)
    kinds = (kind for magic, kind in MAGIC.items() if start.startswith(magic))
    return next(kinds, given)


def _suffix(path: Path) -> tuple[str, bool]:
    """Return the suffix that tells a format, and whether a compression follows it."""
    name = path.name.lower()
    plain = next((name[: -len(c)] for c in COMPRESSED if name.endswith(c)), name)
    return PurePath(plain).suffix, plain != name


def _identity(path: Path) -> object:
    """Tell a file from others, also by hard links; what is not there, by its path."""
    try:
        status = path.stat()
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _is_meant(path: Path, pattern: Path) -> bool:
    """Tell whether a pattern itself names all that is hidden of a path it matches."""
    *folders, last = path.parts
    hidden = [name for name in folders if not _is_open(name)]
    if not (_is_open(last) if path.is_dir() else not _is_hidden(last)):
        hidden.append(last)
    named = [part for part in pattern.parts if _is_hidden(part)]
    return all(any(fnmatchcase(name, part) for part in named) for name in hidden)


def _is_open(folder: str) -> bool:
    """Tell whether a folder is read: ``_day=1`` is one of a partition."""
    return not _is_hidden(folder) or (folder.startswith("_") and "=" in folder)


class _Folder:
    """A folder of inputs, walked once; links to folders are followed, after the rest.

    `skipped` counts what is there and not read.
    """

    def __init__(
        self, top: Path, kinds: Collection[str], given: str | None, tables: Tables
    ) -> None:
        self._top, self._kinds, self._given = top, kinds, given
        self._tables = tables
        self.skipped: Counter[str] = Counter()

    def files(self, on_note: Note) -> list[tuple[Path, PurePath]]:
        """List its data files in order of name."""
        paths = sorted(self._walk(on_note))
        others = [path for path in paths if _suffix(path)[0] != ".json"]
        if others and self._given is None and len(others) < len(paths):
            # beside data of another name, that is a description
            self.skipped["*.json"] += len(paths) - len(others)
            paths = others
        found = [(path, PurePath(path.relative_to(self._top))) for path in paths]
        left = ", ".join(f"{n:,} {what}" for what, n in sorted(self.skipped.items()))
        if not found:
            plain = ", *".join(s for s, kind in FORMATS.items() if kind in self._kinds)
            got = f"only {left}" if left else "none"
            raise InputError(f"a folder with *{plain}", got, str(self._top))
        if left:
            count = self.skipped.total()
            are = "file is" if count == 1 else "files are"
            on_note(f"{self._top}: {count:,} {are} not read: {left}")
        return found

    def _walk(self, on_note: Note) -> Iterator[Path]:
        seen: set[str] = set()
        starts = [str(self._top)]
        for start in starts:  # grows by the links that are met
            for place, folders, names in os.walk(start, onerror=_refuse):
                real = os.path.realpath(place)
                if real in seen:
                    self.skipped["reached twice"] += 1
                    folders.clear()
                    continue
                seen.add(real)
                table = self._tables.at(place)
                if table is not None:
                    on_note(f"{place}: {table}")
                    yield from self._live_files(Path(place), table)
                    folders.clear()
                    continue
                folders[:] = sorted(filter(_is_open, folders))
                inner = [os.path.join(place, f) for f in folders]  # noqa: PTH118
                starts += filter(os.path.islink, inner)
                yield from self._data_files(Path(place), names)

    def _live_files(self, place: Path, table: Table) -> Iterator[Path]:
        root = os.path.realpath(place)
        if "parquet" not in self._kinds:
            self.skipped["*.parquet"] += len(table.live)
            return
        for real in table.live:
            if not real.startswith(root + os.sep):
                rule = "a Delta table whose files are in its folder"
                raise InputError(rule, real, str(place), EXPORT)
            yield place / os.path.relpath(real, root)

    def _data_files(self, place: Path, names: list[str]) -> Iterator[Path]:
        around = self._tables.around(place)
        for path in (place / name for name in names):
            what = self._not_read(path)
            if what is None:
                table = around or self._tables.around_target(path)
                if table is not None and os.path.realpath(path) not in table.live:
                    what = "not live"
            if what is None:
                yield path
            elif what:
                self.skipped[what] += 1

    def _not_read(self, path: Path) -> str | None:
        """Say what a file is that is not read; "" for what is no data at all."""
        suffix = path.suffix.lower()
        if suffix == CHECKSUM or _is_hidden(path.name):
            return "hidden" if suffix in FORMATS else ""
        try:
            if not path.is_file() and (path.exists() or not path.is_symlink()):
                return "special"
            if not suffix and path.stat().st_size == 0:
                return "empty"
            kind = FORMATS.get(suffix)
            if kind is None and NO_FORMAT.fullmatch(suffix):
                kind = format_of(path, None if suffix else self._given)
        except OSError as error:
            raise InputError("a file to read", error, str(path)) from None
        if kind in self._kinds:
            return None
        ends = path.suffixes[-2:] if suffix in COMPRESSED else path.suffixes[-1:]
        return f"*{''.join(ends)}" if suffix else "without a suffix"


def _refuse(error: OSError) -> None:
    raise InputError("a folder that can be read", error, str(error.filename)) from None

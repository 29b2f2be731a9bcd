"""The inputs of a job: where they are, whether they are still the same, Parquet."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.errors import InputError
from din_infer.jobs.data_files import (
    FORMATS,
    Note,
    check_given,
    find_files,
    format_of,
    ignore,
    one_file,
)
from din_infer.jobs.text_options import TextOptions
from din_infer.regular_file import open_regular

__all__ = [
    "STDIN",
    "Identity",
    "Source",
    "content_digest",
    "find_sources",
    "find_table",
    "find_tables",
    "in_file",
    "stored_columns",
]

STDIN = "-"
PAGE_BYTES = 1 << 16  # of a column of Parquet, that are read at a time
BLOCK_BYTES = 1 << 20
END_BYTES = 1 << 16  # of a file's start and end, which tell it from others


@dataclass(frozen=True)
class Identity:
    """What tells a file from what might stand in its place later.

    `ends` is the SHA-256 of its first and last 64 KiB: of Parquet, the footer with the
    places, sizes and statistics of all column chunks is there.
    """

    size: int
    mtime_ns: int
    ends: str
    ctime_ns: int = field(compare=False)  # a link or another mode changes it, too

    def is_of(self, then: Mapping[str, Any]) -> bool | None:
        """Tell whether a file is the one that a manifest describes, wherever it lies.

        Returns None where its time has changed, and size and ends have not: all that
        was read decides, as `content_digest` has it.
        """
        if (self.size, self.ends) != (then.get("size"), then.get("ends")):
            return False
        if self.size <= 2 * END_BYTES:
            return True
        times = then.get("mtime_ns"), then.get("ctime_ns")
        return True if times == (self.mtime_ns, self.ctime_ns) else None

    @classmethod
    def of(cls, path: Path) -> "Identity":
        """Read the identity of a file; OSError if there is none."""
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(END_BYTES))
            file.seek(max(0, status.st_size - END_BYTES))
            digest.update(file.read(END_BYTES))
        ends = digest.hexdigest()
        return cls(status.st_size, status.st_mtime_ns, ends, status.st_ctime_ns)


@dataclass(frozen=True)
class Source:
    """One input: a file, or stdin; `target` is where its scores go, under ``--out``."""

    path: Path | None
    format: str
    target: PurePath

    def __str__(self) -> str:
        return "stdin" if self.path is None else str(self.path)

    def open(self) -> BinaryIO:
        """Open it to read bytes; OSError if it is not stdin and no regular file."""
        if self.path is None:
            return os.fdopen(os.dup(0), "rb")
        return open_regular(self.path)


def find_sources(
    inputs: Sequence[str | Path],
    given: str | None = None,
    on_note: Note = ignore,
) -> list[Source]:
    """List the inputs of a job, and where their scores go.

    Parameters
    ----------
    inputs : sequence of path
        As `expand` takes them, of all formats; ``-`` is stdin.
    given : str, optional
        The format of all of them: "parquet", "arrow", "csv", "tsv" or "jsonl".
    on_note : callable
        As of `expand`.

    Returns
    -------
    list of Source
        A file's scores keep its name, inside a folder that was given; where two have
        the same name, in letters of either case, all keep their paths below the folder
        that holds all of them. What is not Parquet has ``.parquet`` added.

    Raises
    ------
    InputError
        As `expand`; or if a file's format cannot be told.
    """
    wanted = [i for i in inputs if str(i) != STDIN]
    kinds = set(FORMATS.values()) if given is None else {given}
    pairs = find_files(wanted, kinds, given=given, on_note=on_note)
    names = [name for _, name in pairs]
    # on some file systems, names that differ in case alone are one
    if len({str(name).casefold() for name in names}) < len(names):
        whole = [Path(os.path.abspath(path)) for path, _ in pairs]  # noqa: PTH100
        top = os.path.commonpath([path.parent for path in whole])
        names = [PurePath(path.relative_to(top)) for path in whole]
    found = []
    for (path, _), name in zip(pairs, names, strict=True):
        kind = given or _told(path)
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


def find_tables(
    inputs: Sequence[str | Path],
    given: str | None = None,
    text: TextOptions | None = None,
    on_note: Note = ignore,
) -> list[Source]:
    """List the tables that `find_sources` would, but for stdin.

    Raises
    ------
    InputError
        As `find_sources`; or if one is stdin, or none has a use for an option of text.
    """
    if any(str(item) == STDIN for item in inputs):
        rule = "files, since they are read more than once"
        raise InputError(rule, "stdin", STDIN, "Write it into a file first.")
    kinds = set(FORMATS.values()) if given is None else {given}
    found = find_files(inputs, kinds, given=given, on_note=on_note)
    tables = [Source(p, given or _told(p), PurePath(p.name)) for p, _ in found]
    if text is not None:
        text.check_formats([table.format for table in tables])
    return tables


def find_table(
    path: str | Path, given: str | None = None, text: TextOptions | None = None
) -> Source:
    """Take one file, of the format that is given or told by its name.

    Raises
    ------
    InputError
        As `find_tables`; or if it is a folder, or has no use for the options of text.
    """
    check_given(given)
    source = Source(one_file(path), "", PurePath(Path(path).name))
    if source.path is None or str(path) == STDIN:
        rule = "files, since they are read more than once"
        raise InputError(rule, "stdin", STDIN, "Write it into a file first.")
    found = replace(source, format=given or _told(source.path))
    if text is not None:
        text.check_formats([found.format])
    return found


def _told(path: Path) -> str:
    try:
        kind = format_of(path)
    except OSError as error:
        raise InputError("a file to read", error, str(path)) from None
    if kind is None:
        rule = "a name that ends in " + ", ".join(FORMATS)
        raise InputError(rule, path.name, str(path), "Give --format.")
    return kind


def _stdin(given: str | None, times: int) -> Source:
    if times > 1:
        raise InputError("each input once", "it twice", STDIN)
    if given is None or given == "parquet":
        rule = "--format arrow, csv, tsv or jsonl for stdin"
        fix = "Parquet cannot be read as a stream." if given else ""
        raise InputError(rule, given or "none", STDIN, fix)
    return Source(None, given, PurePath("stdin.parquet"))


def content_digest(source: Source, columns: Iterable[str]) -> str:
    """Compute the SHA-256 of what is read of a file that has been read to its end.

    Of Parquet, that are the bytes of the columns, row group by row group; else all.

    Raises
    ------
    OSError, InputError
        If it cannot be read.
    """
    digest = hashlib.sha256()
    with source.open() as file:
        for start, size in _read_parts(source, set(columns)):
            file.seek(start)
            while size and (block := file.read(min(size, BLOCK_BYTES))):
                digest.update(block)
                size -= len(block)
    return digest.hexdigest()


def _read_parts(source: Source, columns: set[str]) -> Iterator[tuple[int, int]]:
    """List places and sizes of what is read of a file."""
    path = str(source)
    if source.format != "parquet":
        yield 0, os.path.getsize(path)  # noqa: PTH202
        return
    with closing(read_footer(path)) as file:
        metadata, leaves = file.metadata, stored_columns(file.schema_arrow, columns)
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for chunk in map(group.column, leaves if group.num_rows else ()):
                start = chunk.data_page_offset
                if chunk.has_dictionary_page:
                    start = min(start, chunk.dictionary_page_offset)
                yield start, chunk.total_compressed_size


def stored_columns(schema: pa.Schema, columns: Collection[str]) -> list[int]:
    """List the stored columns of some columns of Parquet, and none of any other.

    By name, pyarrow would take `a.b` too where `a` is asked for: it may be encrypted,
    of which the metadata ends the process.
    """
    found: list[int] = []
    start = 0
    for column in schema:
        stop = start + _count_stored(column.type)
        found += range(start, stop) if column.name in columns else ()
        start = stop
    return found


def _count_stored(kind: pa.DataType) -> int:
    """Count the columns that Parquet stores for a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _count_stored(kind.storage_type)
    if pa.types.is_dictionary(kind) or not pa.types.is_nested(kind):
        return 1
    return sum(_count_stored(kind.field(i).type) for i in range(kind.num_fields))


def read_footer(
    path: str | Path, metadata: pq.FileMetaData | None = None
) -> pq.ParquetFile:
    """Open a Parquet file, to be read by the page: row groups may be of any size.

    `metadata` is its footer, where that has been read.

    Raises
    ------
    InputError
        If it is not readable.
    """
    try:
        with open_regular(path) as opened, readable_names(str(path)):
            file = pq.ParquetFile(
                _for_arrow(path, opened),
                metadata=metadata,
                buffer_size=PAGE_BYTES,
                pre_buffer=False,
            )
            read_names(file.schema_arrow)
            return file
    except (OSError, pa.ArrowException) as error:
        rule = "a readable Parquet file"
        raise InputError(rule, str(error).splitlines()[0], str(path)) from None


def _for_arrow(path: str | Path, opened: BinaryIO) -> str | Path | pa.OSFile:
    """Name a file that is open, as Arrow takes it: paths are UTF-8 there."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return pa.OSFile(f"/dev/fd/{opened.fileno()}")
    return path


@contextmanager
def readable_names(where: str) -> Iterator[None]:
    """Turn the error of a name that is not UTF-8 into an `InputError`."""
    try:
        yield
    except UnicodeDecodeError as error:
        got, fix = repr(error.object), "Write the file anew with other names."
        raise InputError("column names in UTF-8", got, where, fix) from None


def read_names(fields: Iterable[pa.Field]) -> None:
    """Read the names of fields and of those inside; UnicodeDecodeError for bad ones."""
    for column in fields:
        column.name  # noqa: B018 - decoded here
        kind = column.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        kind = getattr(kind, "storage_type", kind)
        if pa.types.is_struct(kind) or pa.types.is_union(kind):
            read_names(kind.field(i) for i in range(kind.num_fields))
        elif pa.types.is_map(kind):
            read_names((kind.key_field, kind.item_field))
        elif hasattr(kind, "value_field"):
            read_names((kind.value_field,))


def in_file(error: InputError, start: int, source: str | Path) -> InputError:
    """Say the row of `source`, where the error says that of a batch from `start` on."""
    row = None if error.row is None else error.row + start
    return error.at(row=row, source=str(source))

"""Files of events copied into a table of DuckDB, `log`: one pass, columns as read.

Above 400 lines: how each format is read, and what is wrong with a file that is not.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.errors import InputError
from din_infer.jobs.data_files import expand, format_of

__all__ = [
    "INTEGERS",
    "KINDS",
    "NUMBERS",
    "Log",
    "asking",
    "literal",
    "open_database",
    "open_log",
    "quoted",
]

KINDS = ("parquet", "arrow", "csv", "tsv", "jsonl")
MARKS = {"csv": ",", "tsv": "\t"}
MOST_LINE = 1 << 21  # bytes; DuckDB takes 2,000,000
TEXT_SUFFIXES = (".gz", ".zst")  # that DuckDB decompresses
PARTITION = re.compile(r"([^=/\\]+)=[^/\\]*")
INTEGERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL\(\d+,0\)")
NUMBERS = re.compile(r"FLOAT|DOUBLE|DECIMAL\(.*\)")
# Types of JSON values that are text in the file, and stay it.
AS_TEXT = re.compile(r"DATE|TIME.*|UUID|VARCHAR|JSON")


def quoted(name: str) -> str:
    """Write a name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a text in SQL."""
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def asking(what: str, place: str) -> Iterator[None]:
    """Turn an error of DuckDB into one that says what was asked for, and of what."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        rule = "memory and disk that suffice"
        fix = "Give more by --memory, or an --out on a larger disk."
        raise InputError(rule, _first_line(error), "--memory", fix) from None
    except (duckdb.Error, pa.ArrowException) as error:
        raise InputError(what, _first_line(error), place) from None
    except UnicodeEncodeError as error:
        rule, fix = "paths in UTF-8, which DuckDB needs", "Rename it."
        raise InputError(rule, repr(error.object), place, fix) from None
    except RuntimeError as error:
        if "interrupted" in str(error):  # what DuckDB makes of a signal
            raise KeyboardInterrupt from None
        raise


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and "CSV Error" in lines[0]:  # what is wrong follows the line itself
        return " ".join([lines[0], *lines[2:3]])
    return lines[0] if lines else type(error).__name__


@contextmanager
def _reading(kind: str, paths: Sequence[Path]) -> Iterator[None]:
    """Turn an error of DuckDB into one that says which file, and line, is wrong."""
    place = str(paths[0]) if len(paths) == 1 else f"{paths[0]} ({len(paths)} files)"
    with asking("files that can be read", place):
        try:
            yield
        except duckdb.InvalidInputException as error:
            for path in paths if kind in MARKS else ():
                if len(paths) == 1 or str(path) in str(error):
                    _check_text(path, kind)
            raise


def _check_text(path: Path, kind: str) -> None:
    """Refuse the first row of CSV or TSV that is not as its header says."""
    rows = csv.reader(_lines(path), delimiter=MARKS[kind], strict=True)
    header: list[str] = []
    first = 1  # line of the row
    rule, got, fix = "", "", 'Write a quote inside of a quoted value as "".'
    try:
        for row in rows:
            header = header or row
            if row and len(row) != len(header):
                _check_mark(header, path, kind)
                rule = f"rows of {len(header)} values, as in the header"
                got = f"{len(row)} in line {first:,}"
                fix = f"Quote values that have {MARKS[kind]!r} in them."
                fix = fix if len(row) > len(header) else ""
                break
            first = rows.line_num + 1
    except UnicodeDecodeError:
        rule, got, fix = "text in UTF-8", f"other bytes in line {first:,}", ""
    except csv.Error as error:
        if "end of data" in str(error):
            rule, got = "an end of each quoted value", f"none of one in line {first:,}"
        elif "expected after" in str(error):
            rule = f"{MARKS[kind]!r} or the end of the row after a quoted value"
            got = f"other text in line {first:,}"
    if rule:
        raise InputError(rule, got, str(path), fix)


def _check_mark(names: Sequence[str], path: Path, kind: str) -> None:
    """Refuse a header that another mark separates."""
    if len(names) == 1 and (other := re.search("[;\t|,]", names[0])):
        fix = "Separate columns by ',' in .csv, by tabs in .tsv."
        if other[0] in MARKS.values():
            fix = f"Name the file .{'tsv' if kind == 'csv' else 'csv'}."
        rule = f"columns separated by {MARKS[kind]!r}"
        raise InputError(rule, f"one column {names[0]!r}", str(path), fix)


def open_database(folder: Path, memory: str, threads: int) -> duckdb.DuckDBPyConnection:
    """Make a database in a folder, which also takes what memory does not hold.

    Raises
    ------
    InputError
        If `memory` is no size.
    """
    database = duckdb.connect(str(folder / "events.duckdb"))
    with asking("a size of memory such as 2GB", "--memory"):
        database.execute(f"SET memory_limit = {literal(memory)}")
    for setting in (
        f"temp_directory = {literal(str(folder / 'spilled'))}",
        f"threads = {threads}",
        "preserve_insertion_order = false",
        "TimeZone = 'UTC'",
        "autoinstall_known_extensions = false",
        "enable_progress_bar = false",
    ):
        database.execute(f"SET {setting}")
    return database


@dataclass
class _Group:
    """Files of one format: what reads them, and the columns that they have."""

    format: str
    paths: list[Path]
    query: str
    types: dict[str, str]


class Log:
    """Files of events, and which columns they have.

    Attributes
    ----------
    names : list of str
        Columns, in the order of the first files.
    is_text : bool
        Whether numbers of the log are text, as in CSV.
    types : dict
        Of DuckDB, of each column; of the table `log` once it is copied.
    num_files : int
    """

    def __init__(
        self, database: duckdb.DuckDBPyConnection, groups: list[_Group]
    ) -> None:
        self._database, self._groups = database, groups
        self.names = list(dict.fromkeys(n for g in groups for n in g.types))
        self.is_text = all(group.format in ("csv", "tsv") for group in groups)
        self.num_files = sum(len(group.paths) for group in groups)
        self.types: dict[str, str] = {}

    def in_all_files(self, needed: Sequence[str], others: Sequence[str]) -> list[str]:
        """Return those of `others` that every file has.

        Raises
        ------
        InputError
            If a file lacks one of `needed`: its events would have nulls.
        """
        names = [*needed, *others]
        lacking: dict[str, Path] = {}
        for group in self._groups:
            of_folders = set(_partitions(group.paths))
            for path in group.paths:
                with _reading(group.format, [path]):
                    found = self._columns_of(group, path, names, of_folders)
                for name in names:
                    if name.lower() not in found:  # as DuckDB compares names
                        lacking.setdefault(name, path)
        for name in needed:
            if name in lacking:
                rule = "this column in all files"
                raise InputError(rule, f"{lacking[name]} without it", name)
        return [name for name in others if name not in lacking]

    def _columns_of(
        self, group: _Group, path: Path, names: Sequence[str], of_folders: set[str]
    ) -> Collection[str]:
        """Return a file's own columns, in small letters; without events, all names."""
        wanted, found = {name.lower() for name in names}, set(group.types)
        if len(group.paths) > 1 and group.format == "arrow":
            found = set(_arrow_types(self._database, [path]))
        elif len(group.paths) > 1:
            found = {*_first_names(path, group.format), *of_folders}
            if not wanted <= {name.lower() for name in found}:
                query = _reader(group.format, [path], "", group.paths)
                found = set(_described(self._database, query))
                if group.format == "jsonl" and found == {"json"}:
                    return wanted
        return {name.lower() for name in found}

    def copy(self, columns: Sequence[str], update: Callable[[int], object]) -> int:
        """Copy columns into the table `log`; returns how many events there are.

        Parameters
        ----------
        columns : sequence of str
            Of `names`, that all files have.
        update : callable
            Called with the events of each group of files.

        Raises
        ------
        InputError
            If a file cannot be read, or a column has another type in other files.
        """
        for name in columns:
            first: dict[str, _Group] = {}
            for group in self._groups:
                first.setdefault(group.types[name], group)
            together = _together(list(first))
            if together is None:
                got = " and ".join(f"{t} in {g.paths[0]}" for t, g in first.items())
                raise InputError("one type in all files", got, name)
            self.types[name] = together
        num_events = 0
        listed = ", ".join(quoted(name) for name in columns)
        made = ", ".join(f"{quoted(n)} {t}" for n, t in self.types.items())
        self._database.execute(f"CREATE TABLE log ({made})")
        for group in self._groups:
            if group.format == "arrow":
                num_rows = sum(self._copy_arrow(p, listed) for p in group.paths)
            else:
                num_rows = self._insert(group.query, listed, group.format, group.paths)
            update(num_rows)
            num_events += num_rows
        return num_events

    def _insert(self, query: str, listed: str, kind: str, paths: Sequence[Path]) -> int:
        with _reading(kind, paths):
            text = f"INSERT INTO log SELECT {listed} FROM {query}"
            return int(self._database.execute(text).fetchall()[0][0])

    def _copy_arrow(self, path: Path, listed: str) -> int:
        with asking("an Arrow file that can be read", str(path)), _arrow(path) as found:
            self._database.register("din_arrow", found)
            try:
                return self._insert("din_arrow", listed, "arrow", [path])
            finally:
                self._database.unregister("din_arrow")


@contextmanager
def _arrow(path: Path) -> Iterator[pa.RecordBatchReader]:
    """Open an Arrow file, of either form, to be read once."""
    with pa.memory_map(str(path)) as source:
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            yield pa.ipc.open_stream(source)
            return
        batches = (file.get_batch(k) for k in range(file.num_record_batches))
        yield pa.RecordBatchReader.from_batches(file.schema, batches)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file of text, which may be compressed; csv.Error if long."""
    with pa.input_stream(str(path), compression="detect") as file:
        source = io.BufferedReader(file)
        while line := source.readline(MOST_LINE):
            if len(line) == MOST_LINE:
                raise csv.Error("a line that is too long")
            yield from io.StringIO(line.decode(), newline=None)  # "\r" ends one, too


def _first_names(path: Path, kind: str) -> list[str]:
    """Read columns off the first line of a file of text; none where that fails."""
    try:
        if kind == "jsonl":
            return list(map(str, dict(json.loads(next(_lines(path))))))
        return next(csv.reader(_lines(path), delimiter=MARKS[kind]))
    except (
        *(ValueError, TypeError, LookupError, OSError),
        *(RecursionError, StopIteration, csv.Error),
    ):
        return []


def _together(types: Sequence[str]) -> str | None:
    """Name the type that values of several types are read as; None of other kinds."""
    if len(types) == 1:
        return types[0]
    if all(INTEGERS.fullmatch(kind) for kind in types):
        return "HUGEINT"
    are_numbers = (INTEGERS.fullmatch(k) or NUMBERS.fullmatch(k) for k in types)
    return "DOUBLE" if all(are_numbers) else None


def open_log(
    database: duckdb.DuckDBPyConnection,
    inputs: Sequence[str | Path],
    on_note: Callable[[str], object],
) -> Log:
    """Find the files of a log, and their columns.

    Parameters
    ----------
    database : connection
    inputs : sequence of path
        As `din_infer.jobs.data_files.expand` takes them; of every format it knows.
    on_note : callable

    Raises
    ------
    InputError
        As `expand`; or if a file's format cannot be told, or it cannot be read.
    """
    groups: dict[str, list[Path]] = {}
    for path in expand(inputs, KINDS, on_note=on_note):
        try:
            kind = format_of(path)
        except OSError as error:
            raise InputError("a file to read", error, str(path)) from None
        if kind is None:
            rule = "a file of events: " + ", ".join(KINDS)
            raise InputError(rule, repr(path.name), str(path))
        if kind not in ("parquet", "arrow") and path.suffix in (".bz2", ".lz4"):
            rule = f"text as it is, or compressed as {', '.join(TEXT_SUFFIXES)}"
            raise InputError(rule, repr(path.name), str(path))
        groups.setdefault(kind, []).append(path)
    return Log(database, [_look(database, k, paths) for k, paths in groups.items()])


def _look(database: duckdb.DuckDBPyConnection, kind: str, paths: list[Path]) -> _Group:
    if kind == "arrow":
        return _Group(kind, paths, "", _arrow_types(database, paths))
    if kind == "parquet":
        _check_types(paths)
    else:  # text of 0 bytes is no header of other columns
        paths = [path for path in paths if path.stat().st_size] or paths
    query = _reader(kind, paths)
    with _reading(kind, paths):
        types = _described(database, query)
        if kind == "jsonl":
            # dates and such are text there: what the times look like is decided later
            read = {n: _json_type(t) for n, t in types.items()}
            of_folders = _partitions(paths)
            struct = ", ".join(
                f"{literal(n)}: {literal(t)}"
                for n, t in read.items()
                if n not in of_folders
            )
            query = _reader(kind, paths, f", columns = {{{struct}}}")
            types = _described(database, query)
    if not types or (kind == "jsonl" and list(types) == ["json"]):
        raise InputError("events with named columns", "none", str(paths[0]))
    if kind in MARKS:
        for path in paths:
            with pa.input_stream(str(path), compression="detect") as file:
                if file.read(1) in (b"\r", b"\n"):
                    raise InputError("a header in line 1", "a blank line", str(path))
        _check_mark([n for n in types if n not in _partitions(paths)], paths[0], kind)
    return _Group(kind, paths, query, types)


def _json_type(found: str) -> str:
    return "VARCHAR" if AS_TEXT.fullmatch(found) else found


def _described(database: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    rows = database.execute(f"DESCRIBE SELECT * FROM {query}").fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


def _reader(
    kind: str, paths: Sequence[Path], more: str = "", of: Sequence[Path] = ()
) -> str:
    """Write the call of DuckDB that reads files of one format; some of others."""
    # a path is no pattern: its brackets and stars are themselves
    names = [re.sub(r"[\[*?]", r"[\g<0>]", str(path)) for path in paths]
    files = "[" + ", ".join(literal(name) for name in names) + "]"
    folders = "true, hive_types_autocast = false"
    folders = folders if _partitions(of or paths) else "false"
    shared = f"{files}, union_by_name = true, hive_partitioning = {folders}{more}"
    if kind == "parquet":
        return f"read_parquet({shared}, binary_as_string = true)"
    if kind == "jsonl":
        scan = "" if more else ", sample_size = -1"
        return f"read_json({shared}, format = 'auto'{scan})"
    mark = literal(MARKS[kind])
    quotes = "quote = '\"', escape = '\"', allow_quoted_nulls = false"
    nulls = "nullstr = ['', '\\N'], all_varchar = true, header = true, skip = 0"
    return f"read_csv({shared}, delim = {mark}, {quotes}, {nulls})"


def _partitions(paths: Sequence[Path]) -> list[str]:
    """Name the columns that folders such as ``day=1`` stand for, if all paths agree."""
    found = [
        tuple(m[1] for part in path.parts[:-1] if (m := PARTITION.fullmatch(part)))
        for path in paths
    ]
    return list(found[0]) if len(set(found)) == 1 else []


def _arrow_types(
    database: duckdb.DuckDBPyConnection, paths: Sequence[Path]
) -> dict[str, str]:
    found: dict[str, str] = {}
    first: dict[str, Path] = {}
    for path in paths:
        with asking("an Arrow file that can be read", str(path)), _arrow(path) as file:
            database.register("din_arrow", file.schema.empty_table())
            types = _described(database, "din_arrow")
            database.unregister("din_arrow")
        for name, kind in types.items():
            if found.setdefault(name, kind) != kind:
                got = f"{found[name]} in {first[name]} and {kind} in {path}"
                raise InputError("one type in all files", got, name)
            first.setdefault(name, path)
    return found


def _check_types(paths: Sequence[Path]) -> None:
    """Refuse Parquet files of which one has text, or times, where others have not."""
    first: dict[str, tuple[str, Path]] = {}
    for path in paths if len(paths) > 1 else ():
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise InputError("a Parquet file", _first_line(error), str(path)) from None
        for field in schema:
            kind = _kind(field.type)
            known, where = first.get(field.name, ("null", path))
            if known == "null":
                first[field.name] = kind, path
            elif kind not in (known, "null"):
                got = f"{known} in {where} and {kind} in {path}"
                raise InputError("one type in all files", got, field.name)


def _kind(found: pa.DataType) -> str:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return "null"
    if (
        pa.types.is_integer(found)
        or pa.types.is_floating(found)
        or pa.types.is_decimal(found)
    ):
        return "numbers"  # of pandas, integers with nulls are floats
    if pa.types.is_temporal(found):
        zone = getattr(found, "tz", None)
        name = "timestamps" if pa.types.is_timestamp(found) else str(found)
        return f"{name} of a zone" if zone else name
    is_text = pa.types.is_string(found) or pa.types.is_large_string(found)
    return "text" if is_text or pa.types.is_binary(found) else str(found)

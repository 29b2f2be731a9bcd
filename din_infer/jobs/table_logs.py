"""Folders whose log says which of their files are live: Delta, Iceberg, Hudi.

Deleted and replaced rows stay in such a folder as files that the log no longer names.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from din_infer.errors import InputError
from din_infer.regular_file import check_regular

__all__ = ["EXPORT", "Table", "Tables"]

DELTA = "Delta"
# Where each format has its log. A folder with two logs is of the first: either may lag
# behind the other.
LOGS = {
    "Hudi": ".hoodie",
    "Iceberg": "metadata/*.metadata.json*",
    "Paimon": "manifest/manifest-list-*",
    "Spark streaming": "_spark_metadata",
    DELTA: "_delta_log",
}
EXPORT = "Export the table to Parquet files, and give their folder."


class Table:
    """A Delta table: which files of its folder are live.

    Attributes
    ----------
    root : Path
    version : int
    live : frozenset of str
        Real paths of the live files.

    Raises
    ------
    InputError
        If it is no Delta table, the package deltalake is missing or cannot open such a
        path, or the files alone do not have what the table has: by deletion vectors or
        column mapping.
    """

    def __init__(self, root: Path, kind: str) -> None:
        rule, got = "a folder whose files are all live", f"a {kind} table"
        if kind[0] in "AEIOU":
            got = f"an {kind} table"
        if kind != DELTA:
            raise InputError(rule, got, str(root), EXPORT)
        try:
            from deltalake import DeltaTable
            from deltalake.exceptions import DeltaError
        except ModuleNotFoundError:
            fix = 'To read its live files, run: pip install "din-infer[delta]"'
            raise InputError(rule, got, str(root), fix) from None
        place = os.path.realpath(root)
        if place != unquote(place) or "\\" in place:  # deltalake opens another one
            rule = "a Delta table whose path has no backslash and no %-escape"
            raise InputError(rule, place, str(root), "Rename the folder.")
        try:
            for entry in (root / LOGS[DELTA]).iterdir():
                if not entry.is_dir():
                    check_regular(entry.stat().st_mode, entry)
            table = DeltaTable(os.path.abspath(root))  # noqa: PTH100 - links stay
            _check_files_suffice(table, root)
            files = table.file_uris()
        except (DeltaError, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = str(error).splitlines()[0]
            raise InputError("a readable Delta table", reason, str(root)) from None
        self.root, self.version = root, table.version()
        encoded = table.table_uri.removeprefix("file://")  # the names below it are not
        paths = (
            unquote(encoded) + f.removeprefix(encoded) if f.startswith(encoded) else f
            for f in files
        )
        self.live = frozenset(map(os.path.realpath, paths))

    def __str__(self) -> str:
        files = f"{len(self.live):,} live file" + "s" * (len(self.live) != 1)
        return f"a Delta table at version {self.version}, {files}"


def _check_files_suffice(table: Any, root: Path) -> None:  # noqa: ANN401
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mode != "none":
        rule = "a Delta table without column mapping"
        raise InputError(rule, f"mode {mode!r}", str(root), EXPORT)
    features = table.protocol().reader_features or ()
    if "deletionVectors" in features and any(
        batch.num_rows for batch in table.deletion_vectors()
    ):
        rule = "a Delta table without deletion vectors"
        fix = f"Run REORG TABLE .. APPLY (PURGE) on it. Or: {EXPORT}"
        raise InputError(rule, "some", str(root), fix)


def _has(root: Path, pattern: str) -> bool:
    first, _, rest = pattern.partition("/")
    folder = root / first
    if not os.path.exists(folder):  # noqa: PTH110 - that one raises without the right to
        return False
    return not rest or next(folder.glob(rest), None) is not None


class Tables:
    """The tables that folders are, or are inside; each is looked for once."""

    def __init__(self) -> None:
        self._at: dict[str, Table | None] = {}
        self._around: dict[str, Table | None] = {}

    def at(self, folder: str | Path) -> Table | None:
        """Return the table that a folder is; None where it is none."""
        key = os.path.realpath(folder)
        if key not in self._at:
            root = Path(folder)
            kind = next((k for k, log in LOGS.items() if _has(root, log)), None)
            self._at[key] = None if kind is None else Table(root, kind)
        return self._at[key]

    def around(self, folder: str | Path) -> Table | None:
        """Return the table that a folder is, or is inside, by its path or by links."""
        for start in (os.path.abspath(folder), os.path.realpath(folder)):  # noqa: PTH100
            found = self._above(start)
            if found is not None:
                return found
        return None

    def _above(self, folder: str) -> Table | None:
        if folder not in self._around:
            found, parent = self.at(folder), os.path.dirname(folder)  # noqa: PTH120
            if found is None and parent != folder:
                found = self._above(parent)
            self._around[folder] = found
        return self._around[folder]

    def around_target(self, file: Path) -> Table | None:
        """Return the table that holds what a link to a file leads to."""
        if not file.is_symlink():
            return None
        return self.around(os.path.dirname(os.path.realpath(file)))  # noqa: PTH120

    def check(self, file: Path) -> None:
        """Refuse a file that is in a table's folder, also by links, and not live."""
        table = self.around(file.parent) or self.around_target(file)
        if table is not None and os.path.realpath(file) not in table.live:
            rule, got = f"a live file of the Delta table {table.root}", "another one"
            raise InputError(rule, got, str(file), "Give the table's folder.")

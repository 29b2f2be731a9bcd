"""The tables that are written: their names, row groups, and the move into place."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.errors import InputError, check_suffix
from din_infer.jobs.history.catalog import GROUP_ROWS
from din_infer.whole_file import check_replaceable, move_into_place, writing

__all__ = ["TableWriter", "name_targets", "place"]

GROUP_BYTES = 1 << 27  # of a row group
FILES = ("train.parquet", "valid.parquet", "test.parquet")


def name_targets(
    out: Path, split: str | None, inputs: Sequence[str | Path], overwrite: bool
) -> dict[str, Path]:
    """Name the files that are written, by split; refuse what is there or is read."""
    for given in inputs:
        if os.path.isdir(given):  # noqa: PTH112
            place, folder = (Path(os.path.realpath(p)) for p in (out, given))
            if place.is_relative_to(folder):
                rule = "an --out outside of the inputs' folder"
                raise InputError(rule, f"'{out}'", str(given))
    if split is None:
        check_suffix(out, (".parquet",), "--out")
        if out.is_dir():
            raise InputError("a file, or nothing", "a folder", str(out))
        targets, old = {"train": out}, [out]
    else:
        if out.exists() and not out.is_dir():
            raise InputError("a folder, or nothing", "a file", str(out))
        old = [out / name for name in FILES]
        targets = {path.stem: path for path in old}
    for path in old:
        if os.path.lexists(path) and not overwrite:
            fix = "Give --overwrite to replace it."
            raise InputError(
                "a file that is not there yet", "one that is", str(path), fix
            )
        with writing("the rows", path):
            check_replaceable(path)
    for given in inputs:
        same = [
            path for path in old if os.path.realpath(path) == os.path.realpath(given)
        ]
        if same:
            raise InputError("an --out other than the inputs", f"'{out}'", str(given))
    return targets


class TableWriter:
    """One table in the making, in row groups of a bounded size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._schema = schema
        self.rows = 0

    def add(self, made: pa.Table) -> None:
        """Write rows, with those that wait once they are many."""
        self._waiting.append(made)
        self.rows += made.num_rows
        if (
            sum(t.num_rows for t in self._waiting) >= GROUP_ROWS
            or sum(t.nbytes for t in self._waiting) >= GROUP_BYTES
        ):
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting.clear()

    def finish(self) -> None:
        """Write what waits, and the end of the file."""
        self._flush()
        self._writer.close()

    def close(self) -> None:
        """Close the file, whole or not."""
        self._writer.close()


def place(folder: Path, targets: dict[str, Path]) -> None:
    """Give the files their names; a test of an earlier run goes where none is made."""
    for split, target in targets.items():
        target.parent.mkdir(exist_ok=True)
        made = folder / f"{split}.parquet"
        if made.exists():
            move_into_place(made, target)
        else:
            target.unlink(missing_ok=True)

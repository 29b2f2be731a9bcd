"""Copies of inputs that can only be read from their start, to be read in any order.

Text, and streams of Arrow IPC, are read once, in pieces, and written as a file of Arrow
IPC, whose batches can be read one by one. The copy's name tells of what it is made, so
that a run that is resumed finds it, and one of other data makes its own.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from weakref import finalize

import pyarrow as pa

from din_converter.unify import widen
from din_infer.errors import InputError
from din_infer.jobs.data_files import Note, ignore
from din_infer.jobs.progress import show_progress
from din_infer.jobs.reader import Reader
from din_infer.jobs.readers import ArrowReader
from din_infer.jobs.sources import Source
from din_infer.jobs.text_options import TextOptions
from din_infer.regular_file import open_regular
from din_infer.spec import FeatureSpec
from din_infer.version import __version__
from din_infer.whole_file import WholeFile, writing

__all__ = ["RowCopies"]

ROWS = 1 << 16  # of a batch at most
# Names of copies, and of drafts of a writer that was killed.
OURS = re.compile(r".*\.[0-9a-f]{16}\.arrow(\.\d+\.[0-9a-f]{8}\.tmp)?", re.DOTALL)


class RowCopies:
    """The copies of a run.

    Parameters
    ----------
    folder : path, optional
        Where they are made, and found again; without one in a temporary folder, which
        lasts as long as this object.
    on_note : callable
        Called with a sentence about each copy that is made.
    progress : bool
        Show how far it has come, on stderr.
    """

    def __init__(
        self,
        folder: Path | None = None,
        on_note: Note = ignore,
        *,
        progress: bool = False,
    ) -> None:
        self._folder, self._on_note, self._progress = folder, on_note, progress
        self._temporary: Path | None = None

    def copy(
        self,
        source: Source,
        reader: Reader,
        columns: Sequence[str],
        spec: FeatureSpec,
        text: TextOptions,
    ) -> Path:
        """Copy the columns of an open table, unless that has been done.

        Raises
        ------
        InputError
            If it cannot be read, or the copy cannot be written.
        """
        path = self._place() / _name(source, columns, spec, text)
        if path.exists():
            return path
        self._on_note(f"{source} is read once, into {path}, to be read in any order")
        with show_progress(None, f"copying {source}", self._progress) as bar:
            batches = reader.prepared(columns, ROWS)
            first = next(batches, None)
            schema = reader.schema.empty_table().select(columns).schema
            schema = schema if first is None else _plain(first).schema
            with writing("a copy of the rows", path), WholeFile(path) as file:
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                with pa.ipc.new_file(file, schema, options=options) as writer:
                    for batch in () if first is None else _all(first, batches):
                        writer.write_batch(_plain(batch))
                        if share := reader.fraction():
                            bar.total = round((bar.n + batch.num_rows) / share)
                        bar.update(batch.num_rows)
        return path

    def open(self, source: Source, path: Path) -> ArrowReader:
        """Open a copy; errors call it by the name of what it was made of."""
        try:
            return ArrowReader(source, open_regular(path))
        except (OSError, pa.ArrowException) as error:
            rule, fix = "a copy of the rows that can be read", "Remove it."
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(rule, reason, str(path), fix) from None

    def remove(self) -> None:
        """Remove all copies in the folder, when the run has ended."""
        folder = self._folder
        if folder is not None and folder.is_dir() and not folder.is_symlink():
            for path in folder.iterdir():
                name = path.name.removeprefix(".")
                if OURS.fullmatch(name) and not path.is_dir():
                    path.unlink(missing_ok=True)
            with suppress(OSError):  # something else is there
                folder.rmdir()

    def _place(self) -> Path:
        if self._folder is None:
            if self._temporary is None:
                self._temporary = Path(mkdtemp(prefix="din-rows-"))
                finalize(self, rmtree, self._temporary, ignore_errors=True)
            return self._temporary
        if self._folder.is_symlink():
            rule, got = "a folder of the run", f"a link to {self._folder.readlink()}"
            raise InputError(rule, got, str(self._folder), "Remove the link.")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            rule = "a folder that can be written"
            raise InputError(rule, error, str(self._folder)) from None
        return self._folder


def _all(
    first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _name(
    source: Source, columns: Sequence[str], spec: FeatureSpec, text: TextOptions
) -> str:
    """Name a copy by what it depends on."""
    path = (source.path or Path()).resolve()
    state = path.stat()
    reads = [(c.name, c.dtype, c.is_list, str(c.text)) for c in spec.reads]
    made = {
        "file": [str(path), state.st_size, state.st_mtime_ns, source.format],
        "columns": [list(columns), reads],
        "text": text.describe(),
        "versions": [__version__, pa.__version__],
    }
    digest = hashlib.sha256(json.dumps(made).encode()).hexdigest()
    return f"{path.name}.{digest[:16]}.arrow"


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Decode dictionaries, which may differ from batch to batch: no file holds such."""
    if not any(map(_is_coded, batch.schema.types)):
        return batch
    coded = [f.name for f in batch.schema if _is_coded(f.type)]
    wide = widen(batch.select(coded)).combine_chunks().to_batches()
    columns = [
        wide[0].column(n) if n in coded else batch.column(n) for n in batch.schema.names
    ]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _is_coded(kind: pa.DataType) -> bool:
    """Tell whether there is a dictionary anywhere in a type."""
    if pa.types.is_dictionary(kind):
        return True
    return any(_is_coded(kind.field(k).type) for k in range(kind.num_fields))

"""One output while it is written: beside its final name, until it is whole."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.encode import Stats
from din_infer.errors import InputError
from din_infer.jobs.batches import Scored
from din_infer.jobs.forms import SCORE
from din_infer.jobs.ledger import beside, sync_folder
from din_infer.jobs.sources import in_file

__all__ = ["Output", "Sink", "writing"]

# A row group of the output: as many rows as readers like, few enough bytes.
GROUP_ROWS = 1 << 17
GROUP_BYTES = 1 << 24


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what the system refuses into an error that names the target."""
    try:
        yield
    except OSError as error:
        rule = "a place where the scores can be written"
        raise InputError(rule, error, str(target)) from None


class Sink(io.RawIOBase):
    """A file that knows the SHA-256 and the size of what was written to it."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Whether it can be written: always."""
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401
        """Write bytes; returns how many."""
        view = memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self.size

    def flush(self) -> None:
        """Hand all to the system."""
        if not self._file.closed:
            self._file.flush()

    def finish(self) -> str:
        """Bring all to the disk; returns the SHA-256.

        Raises
        ------
        OSError
            If that fails, or the file has another size than was written.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        size = os.fstat(self._file.fileno()).st_size
        self.close()
        if size != self.size:
            message = f"{size} bytes are left of the {self.size} that were written"
            raise OSError(message)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class Output:
    """The output of one input, and the list of its bad rows.

    Parameters
    ----------
    source : str
        What errors call the input.
    target, bad_target : path
        Their final names.
    schema : pyarrow.Schema

    Raises
    ------
    OSError
        From here and all methods but `abort`, if the system refuses.
    """

    def __init__(
        self, source: str, target: Path, bad_target: Path, schema: pa.Schema
    ) -> None:
        self._source = source
        self._target = target
        self._bad_target = bad_target
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []
        self._bad: Any = None
        self.rows = 0
        self.num_written = 0
        self.num_bad = 0
        self.last_bad = ""
        self.stats = Stats()
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._beside = beside(self._target)
        self._sink = Sink(self._beside)
        try:
            self._writer = pq.ParquetWriter(
                pa.PythonFile(self._sink, mode="w"),
                schema,
                use_dictionary=[n for n in schema.names if n != SCORE],
            )
        except BaseException:
            self._sink.close()
            self._beside.unlink(missing_ok=True)
            raise

    def add(self, scored: Scored, num_rows: int) -> None:
        """Write what came of `num_rows` rows of the input."""
        for error in scored.errors:
            self._note(in_file(error, self.rows, self._source))
        self.rows += num_rows
        self.num_written += scored.batch.num_rows
        self._waiting.append(scored.batch)
        if (
            sum(b.num_rows for b in self._waiting) >= GROUP_ROWS
            or sum(b.nbytes for b in self._waiting) >= GROUP_BYTES
        ):
            self._write_group()

    def _note(self, error: InputError) -> None:
        if self._bad is None:
            self._bad_target.parent.mkdir(parents=True, exist_ok=True)
            self._bad = beside(self._bad_target).open("w", encoding="utf-8")
        self._bad.write(json.dumps({"row": error.row, "error": str(error)}) + "\n")
        self.num_bad += 1
        self.last_bad = str(error)

    def _write_group(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting))
            self._waiting.clear()

    def finish(self) -> dict[str, Any]:
        """Give the output its name; returns what its manifest says of it."""
        try:
            self._write_group()
            self._writer.close()
            digest = self._sink.finish()
            if self._bad is not None:
                self._bad.flush()
                os.fsync(self._bad.fileno())
                self._bad.close()
                beside(self._bad_target).replace(self._bad_target)
                sync_folder(self._bad_target.parent)
            self._beside.replace(self._target)
            sync_folder(self._target.parent)
        finally:
            self.abort()
        return {
            "rows": self.rows,
            "rows_written": self.num_written,
            "bad_rows": self.num_bad,
            "size": self._sink.size,
            "sha256": digest,
        }

    def abort(self) -> None:
        """Remove what has no name yet."""
        with suppress(OSError, pa.ArrowException, ValueError):
            self._writer.close()
        with suppress(OSError):
            self._sink.close()
        self._beside.unlink(missing_ok=True)
        if self._bad is not None:
            with suppress(OSError):
                self._bad.close()
            beside(self._bad_target).unlink(missing_ok=True)

"""One output while it is written, with its digest and the list of its bad rows."""

import hashlib
import io
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from din_infer.encode import Stats
from din_infer.errors import InputError
from din_infer.jobs.batches import Scored
from din_infer.jobs.forms import SCORE
from din_infer.jobs.sources import in_file
from din_infer.whole_file import WholeFile

__all__ = ["Output", "Sink"]

# A row group of the output: as many rows as readers like, few enough bytes.
GROUP_ROWS = 1 << 17
GROUP_BYTES = 1 << 24


class Sink(io.RawIOBase):
    """Passes bytes on to a file; knows their SHA-256 and how many there were."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
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

    def digest(self) -> str:
        """Return the SHA-256.

        Raises
        ------
        OSError
            If the file has another size than was written.
        """
        self._file.flush()
        size = os.fstat(self._file.fileno()).st_size
        if size != self.size:
            raise OSError(f"{size} bytes are left of the {self.size} that were written")
        return self._digest.hexdigest()


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
        self._source, self._bad_target = source, bad_target
        self._waiting: list[pa.RecordBatch] = []
        self._bad: WholeFile | None = None
        self.rows = self.num_written = self.num_bad = 0
        self.last_bad = ""
        self.stats = Stats()
        target.parent.mkdir(parents=True, exist_ok=True)
        self._whole = WholeFile(target)
        self._sink = Sink(self._whole.file)
        try:
            file = pa.PythonFile(self._sink, mode="w")
            repeated = [n for n in schema.names if n != SCORE]
            self._writer = pq.ParquetWriter(file, schema, use_dictionary=repeated)
        except BaseException:
            self._whole.abort()
            raise

    def add(self, scored: Scored, num_rows: int) -> None:
        """Write what came of `num_rows` rows of the input."""
        for error in scored.errors:
            self._note(in_file(error, self.rows, self._source))
        self.rows += num_rows
        self.num_written += scored.batch.num_rows
        self._waiting.append(scored.batch)
        rows = sum(b.num_rows for b in self._waiting)
        if rows >= GROUP_ROWS or sum(b.nbytes for b in self._waiting) >= GROUP_BYTES:
            self._write_group()

    def _note(self, error: InputError) -> None:
        if self._bad is None:
            self._bad_target.parent.mkdir(parents=True, exist_ok=True)
            self._bad = WholeFile(self._bad_target, "w")
        self._bad.file.write(json.dumps({"row": error.row, "error": str(error)}) + "\n")
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
            digest = self._sink.digest()
            if self._bad is not None:
                self._bad.finish()
            self._whole.finish()
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
        self._whole.abort()
        if self._bad is not None:
            self._bad.abort()

"""Measure, before training, whether a DIN fits the rows of files.

Every batch is encoded twice, by the kernels that serve: as the spec says, for ids and
counts; and with each key as its XXH64, which stands for the value itself. All else is
counted from the two. Letters: B rows.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from din_infer import columns
from din_infer.encode import FeatureEncoder, FieldStats, Stats
from din_infer.errors import InputError, check_count, check_suffix
from din_infer.jobs.data_files import Note, ignore
from din_infer.jobs.inspect.dense import DenseCounts
from din_infer.jobs.inspect.facts import FieldCounts, Findings, Labels, Users, share
from din_infer.jobs.inspect.sequences import SequenceCounts, key_encoder
from din_infer.jobs.inspect.tables import DistinctKeys, TableCounts
from din_infer.jobs.inspect.text import tables
from din_infer.jobs.inspect.verdict import verdict, warnings
from din_infer.jobs.progress import show_progress
from din_infer.jobs.readers import find_columns, open_reader
from din_infer.jobs.roles import numbers_of, times_of
from din_infer.jobs.sources import Source, find_tables, in_file
from din_infer.jobs.text_options import TextOptions
from din_infer.local_path import local_path
from din_infer.session import available_cpus
from din_infer.spec import Dense, Encoder, FeatureSpec
from din_infer.whole_file import WholeFile, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Inspection", "check_picture", "inspect_files", "write_picture"]

SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Inspection(Findings):
    """What `inspect_files` found; `print` shows it as tables.

    Its attributes are those of `Findings`.
    """

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be mended before training, each in a sentence or two."""
        return tuple(warnings(self))

    @property
    def verdict(self) -> tuple[str, ...]:
        """Whether a DIN fits, in a sentence; then why, in others."""
        return tuple(verdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists of plain values, for JSON."""
        return {**asdict(self), "warnings": self.warnings, "verdict": self.verdict}

    def plot(self) -> "Figure":
        """Draw histories, matches and tables, six panels.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot: ``figure.savefig("fit.png")`` writes it.

        Raises
        ------
        ModuleNotFoundError
            Without matplotlib.
        """
        from din_infer.jobs.inspect.plot import draw

        return draw(self)

    def __str__(self) -> str:
        return tables(self)


def inspect_files(
    spec: FeatureSpec,
    inputs: Sequence[str | Path] | str | Path,
    *,
    batch_size: int = 8192,
    max_rows: int | None = None,
    text: TextOptions | None = None,
    format: str | None = None,
    progress: bool = True,
    on_note: Note = ignore,
) -> Inspection:
    """Measure how the rows of files fit a spec.

    Parameters
    ----------
    spec : FeatureSpec
        Its features must be in the data; label, group and time are used where they are.
    inputs : path, or sequence of path
        Files, folders or patterns of any formats, as `find_tables` takes them.
    batch_size : int
        Rows read and counted at a time.
    max_rows : int, optional
        Only so many rows, from the first on.
    text : TextOptions, optional
        How CSV and JSON lines are written.
    format : str, optional
        As of `find_sources`.
    progress : bool
        Show a bar on stderr when that is a terminal, else write a line a minute.
    on_note : callable
        Called with a sentence about files that are not read.

    Returns
    -------
    Inspection
        It does not depend on `batch_size`, nor on how rows are spread over files.

    Raises
    ------
    InputError
        If a file cannot be read, lacks a feature, or holds a value of another type; the
        message names file, column and row. Unseen and missing values are counted, also
        where the spec makes them errors.

    Notes
    -----
    Memory does not grow with the rows. It grows with

    - `batch_size`: a batch, and a few times the ids that its rows encode to;
    - distinct keys, 16 bytes each, per table and for the groups: up to 16.8 million,
      256 MiB, three times that while they are sorted. Where there are more, a sample is
      kept, and what comes from it is an estimate that says its error;
    - the tables' rows, one byte each, and the longest history, 8 bytes a behavior.
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    check_count(batch_size, "batch_size")
    if max_rows is not None:
        check_count(max_rows, "max_rows")
    sources = find_tables(inputs, format, text, on_note)
    if not sources:
        raise InputError("at least one file", "none", "inputs")
    roles = {"label": spec.label, "group": spec.group, "time": spec.time}
    named = {role: name for role, name in roles.items() if name}
    rows_of_files, present = _survey(sources, spec, text, named)
    absent = {role: name for role, name in named.items() if role not in present}
    rows = max_rows
    if rows_of_files is not None:
        rows = rows_of_files if rows is None else min(rows, rows_of_files)
    inspector = _Inspector(spec, present)
    batches = _read(sources, inspector, text, batch_size)
    with show_progress(rows, "inspecting", progress) as bar, closing(batches):
        for source, start, batch in batches:
            if rows is not None:
                batch = batch.slice(0, rows - inspector.rows)
            try:
                inspector.add(batch)
            except InputError as error:
                raise in_file(error, start, str(source)) from None
            bar.update(batch.num_rows)
            if inspector.rows == rows:
                break
        else:
            rows_of_files = inspector.rows
    return inspector.report(tuple(map(str, sources)), rows_of_files, absent)


def _survey(
    sources: Sequence[Source],
    spec: FeatureSpec,
    text: TextOptions | None,
    present: Mapping[str, str],
) -> tuple[int | None, dict[str, str]]:
    """Look at every file: their rows, and the roles whose column all of them have.

    Of rows None, where only reading a file counts them.
    """
    rows: int | None = 0
    found = dict(present)
    for source in sources:
        also = tuple(present.values())
        with closing(open_reader(source, spec, text, also=also)) as reader:
            find_columns(reader, spec.columns)
            groups = reader.group_rows()
            rows = None if rows is None or groups is None else rows + sum(groups)
            names = reader.schema.names
            found = {r: n for r, n in found.items() if n in names}
    return rows, found


def _read(
    sources: Sequence[Source],
    inspector: "_Inspector",
    text: TextOptions | None,
    batch_size: int,
) -> Generator[tuple[Source, int, pa.RecordBatch], None, None]:
    """Read all rows: (file, the batch's first row there, the batch)."""
    spec = inspector.spec
    for source in sources:
        start = 0
        also = inspector.columns
        with closing(open_reader(source, spec, text, also=also)) as reader:
            names = find_columns(reader, inspector.columns, spec.optional_columns)
            for batch in reader.prepared(names, batch_size):
                yield source, start, batch
                start += batch.num_rows


def _encoders(spec: FeatureSpec) -> tuple[FeatureEncoder, FeatureEncoder]:
    """Return the encoder of ids, to which no value is an error, and that of keys."""
    known: dict[int, Encoder] = {}  # one for one: encoders keep large hash tables
    ids, keys = [], []
    for column in spec.reads:
        part, encoder = column.part, column.encoder
        if isinstance(part, Dense):
            part = replace(part, missing=part.missing or 0.0, scale=None)
            ids.append(replace(column, part=part))
        elif encoder is None:
            ids.append(column)
            keys.append(column)
        else:
            is_strict = encoder.type in ("vocab", "identity")
            if (is_strict and encoder.unseen == "error") or encoder.quantiles:
                if id(encoder) not in known:
                    unseen = "missing" if is_strict else encoder.unseen
                    known[id(encoder)] = replace(encoder, unseen=unseen, quantiles=0)
                encoder = known[id(encoder)]
            ids.append(replace(column, encoder=encoder))
            keys.append(replace(column, encoder=key_encoder(encoder)))
    return FeatureEncoder(ids), FeatureEncoder(keys)


class _Inspector:
    """Counts batch after batch; `report` sums up."""

    def __init__(self, spec: FeatureSpec, present: dict[str, str]) -> None:
        self.spec = spec
        self.columns = tuple(dict.fromkeys([*spec.columns, *present.values()]))
        self._present = present
        self._threads = available_cpus()
        self._ids, self._keys = _encoders(spec)
        self._stats = Stats()
        self.rows = 0
        # that are kept
        self._elements = {part.name: 0 for part in (*spec.behavior, *spec.multi_hot)}
        self._dense = [DenseCounts(d) for d in spec.dense]
        self._labels = np.zeros(3, np.int64)  # clicks, non-clicks, others
        self._users = DistinctKeys()
        self._times: list[tuple[Any, str]] = []
        classes = ("clicks", "non_clicks") if "label" in present else ("rows",)
        self._sequences = [SequenceCounts(spec, s, classes) for s in spec.behavior]
        self._tables = []
        for table in spec.tables.values():
            mine = [c for c in spec.reads if c.table == table.name]
            # a derived feature's table has no column; ranges may not be fitted yet
            if mine and mine[0].encoder and not mine[0].encoder.quantiles:
                names = tuple(dict.fromkeys(c.inputs[0].name for c in mine))
                self._tables.append(TableCounts(table, names, mine[0].encoder))

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch, in pieces where lists are long."""
        for first, stop in self._ids.cut(batch):
            self._add(batch.slice(first, stop - first))

    def _add(self, batch: pa.RecordBatch) -> None:
        encoded = self._ids.encode(batch, self._threads)
        self._stats.add_all(encoded.counts)
        ids: dict[str, Any] = {**encoded.inputs}
        keys: dict[str, Any] = {**self._keys.encode(batch, self._threads).inputs}
        self.rows += batch.num_rows
        classes = np.zeros(batch.num_rows, np.int64)
        if "label" in self._present:
            name = self._present["label"]
            labels = columns.floats(numbers_of(batch, name), name)
            classes = np.where(labels == 1, 0, np.where(labels == 0, 1, 2))
            self._labels += np.bincount(classes, minlength=3)
        for table in self._tables:
            table.add(ids, keys)
        for sequence in self._sequences:
            sequence.add(batch, ids[sequence.spec.lengths], keys, classes)
        for dense in self._dense:
            dense.add(batch)
        for name in self._elements:
            self._elements[name] += int(ids[f"{name}.lengths"].sum())
        if "group" in self._present:
            groups = columns.hash_keys(batch, self._present["group"]).view(np.uint64)
            self._users.add(groups[groups != 0])
        if "time" in self._present:
            name = self._present["time"]
            found = [*self._times, *_extremes(times_of(batch, name), name)]
            self._times = [min(found), max(found)] if found else []

    def report(
        self,
        files: tuple[str, ...],
        rows_of_files: int | None,
        absent: dict[str, str],
    ) -> Inspection:
        """Sum up."""
        fields = self._count_fields()
        return Inspection(
            files=files,
            rows=self.rows,
            rows_of_files=rows_of_files,
            absent=absent,
            labels=Labels(*self._labels.tolist()) if "label" in self._present else None,
            users=self._count_users() if "group" in self._present else None,
            time=(self._times[0][1], self._times[1][1]) if self._times else None,
            sequences=tuple(s.report() for s in self._sequences),
            fields=fields,
            tables=tuple(t.report(fields) for t in self._tables),
            dense=tuple(d.report() for d in self._dense),
        )

    def _count_users(self) -> Users:
        users = self._users.finish()
        counts = np.sort(users.counts)
        return Users(
            distinct=users.num_keys,
            error=users.error,
            rows_mean=share(int(counts.sum()), len(counts)),
            rows_median=int(counts[(len(counts) - 1) // 2]) if len(counts) else None,
            rows_most=int(counts[-1]) if len(counts) and not users.halvings else None,
        )

    def _count_fields(self) -> dict[str, FieldCounts]:
        counts = {}
        for c in self.spec.reads:
            if c.is_length:
                continue
            part, name = c.part, c.inputs[0].name
            found = self._stats.fields.get(name, FieldStats())
            refused = found.unseen if c.encoder and c.encoder.unseen == "error" else 0
            if isinstance(part, Dense) and part.missing is None:
                refused = found.nulls
            values = self.rows * c.size if c.size else self._elements[part.name]
            kinds = (found.nulls, found.unseen, found.truncated, found.empty)
            counts[name] = FieldCounts(values, *kinds, refused)
        return counts


def _extremes(column: pa.Array, name: str) -> list[tuple[Any, str]]:
    """Return the first and the last time, each as what orders it and as text."""
    found = []
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        ends = pc.min_max(column)
        for end in (e for e in (ends["min"], ends["max"]) if e.is_valid):
            key = end
            if pa.types.is_timestamp(end.type) or pa.types.is_date(end.type):
                key = end.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            if pa.types.is_timestamp(end.type):
                end = end.cast(pa.timestamp("s", end.type.tz), safe=False)
            found.append((key.as_py(), end.cast(pa.string()).as_py()))
    except pa.ArrowException:
        rule = "a column of numbers, dates or timestamps"
        raise InputError(rule, column.type, name) from None
    return found


def check_picture(out: Path) -> None:
    """Raise InputError unless a picture of this name can be written.

    Raises
    ------
    ModuleNotFoundError
        Without matplotlib.
    """
    check_suffix(out, SUFFIXES, "--plot")
    import din_infer.picture  # noqa: F401 - says what is missing, early


def write_picture(inspection: Inspection, out: str | Path) -> None:
    """Write the plot, as the suffix says: whole or not at all.

    Raises
    ------
    InputError
        If the suffix is none of `SUFFIXES`, or the place cannot be written.
    ModuleNotFoundError
        Without matplotlib.
    """
    out = local_path(out, "--plot")
    check_picture(out)
    with writing("the picture", out), WholeFile(out) as file:
        inspection.plot().savefig(file, format=out.suffix[1:], dpi=150)

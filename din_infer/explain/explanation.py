"""Explanations: the activation weight of every behavior, beside its raw values.

Which elements of a list the model saw is not judged twice: the encoder's window says
it. Letters: B requests, N rows, T positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from din_infer import _kernels
from din_infer.columns import Batch, open_batch, require_dtype
from din_infer.encode import choose_elements
from din_infer.errors import InputError
from din_infer.explain.facts import ExplainedRow, ExplainedSequence
from din_infer.explain.html import fragment, page
from din_infer.explain.raw_values import read
from din_infer.explain.text import table
from din_infer.formatting import label
from din_infer.list_texts import Texts, read_list, split_columns, texts_of
from din_infer.spec import Behavior, FeatureSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Explanation", "explained"]


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Sequence[ExplainedRow]):
    """Why rows have their scores: a sequence of `ExplainedRow`.

    `print` shows it as a table, a notebook as a page.

    Attributes
    ----------
    rows : tuple of ExplainedRow
    model_id : str
        Of the model that was asked.
    """

    rows: tuple[ExplainedRow, ...]
    model_id: str = ""

    @property
    def scores(self) -> NDArray[np.float32]:
        """The score of every row, float32 [N]; a copy."""
        return np.array([row.score for row in self.rows], dtype=np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int) -> ExplainedRow: ...
    @overload
    def __getitem__(self, row: slice) -> "Explanation": ...
    def __getitem__(self, row: int | slice) -> "ExplainedRow | Explanation":
        if isinstance(row, slice):
            return Explanation(self.rows[row], self.model_id)
        return self.rows[row]

    def by_request(self) -> list[list[ExplainedRow]]:
        """Gather the rows of each request, best score first; requests as they come."""
        groups: dict[int, list[ExplainedRow]] = {}
        for row in self.rows:
            groups.setdefault(row.request, []).append(row)
        return [sorted(g, key=lambda row: -row.score) for g in groups.values()]

    def records(self) -> list[dict[str, Any]]:
        """List all weights, one flat dict each, as a DataFrame takes them.

        Returns
        -------
        list of dict
            `row`, `sequence`, `position` (0: the oldest that the model saw), `index`
            (the place in the caller's list), every column of the sequence, `weight`.
            A column of such a name is called ``<sequence>.<column>``. Attended padding
            has no index and no values.
        """
        pairs = ((row.number, s) for row in self.rows for s in row.sequences)
        return [record for pair in pairs for record in _records(*pair)]

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts and lists of plain values, for JSON."""
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            for sequence in row["sequences"]:
                for name in ("weights", "padding"):
                    sequence[name] = sequence[name].tolist()
            row["sequences"] = {s.pop("name"): s for s in row["sequences"]}
        return {"model_id": self.model_id, "rows": rows}

    def plot(
        self, row: int | None = None, ax: "Axes | Sequence[Axes] | None" = None
    ) -> "Figure":
        """Draw the weights along time.

        Parameters
        ----------
        row : int, optional
            Draw this row as bars, one per behavior. Without it every request is drawn:
            one that has several candidates as a map of candidates by behaviors.
        ax : Axes, or a sequence of them, optional
            Draw here, one for each sequence of what is drawn; by default on a new
            figure.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot: ``figure.savefig("weights.png")`` writes it.

        Raises
        ------
        InputError
            If there is no such row, nothing to draw, or another number of axes.
        ModuleNotFoundError
            Without matplotlib.

        Notes
        -----
        Figure 5 of Zhou et al., KDD 2018. Long histories have every bar, and names at
        the largest; of many candidates the best are drawn, and the title says so.
        """
        from din_infer.explain.plot import draw

        if row is None:
            return draw(self.by_request(), ax)
        if not 0 <= row < len(self):
            raise InputError(f"a row in [0, {len(self)})", row, "row")
        return draw([[self[row]]], ax)

    def to_html(self) -> str:
        """Return a page that stands alone: no network, no scripts, light and dark."""
        return page(self.by_request(), self.model_id)

    def _repr_html_(self) -> str:
        return fragment(self.by_request(), self.model_id)

    def __str__(self) -> str:
        return table(self.by_request())

    def __repr__(self) -> str:
        names = ", ".join(s.name for s in self.rows[0].sequences) if self.rows else ""
        return f"Explanation({len(self)} rows{names and f' of {names}'})"


def _records(row: int, sequence: ExplainedSequence) -> Iterator[dict[str, Any]]:
    own = ("row", "sequence", "position", "index", "weight")
    no_values = [None] * len(sequence.padding)
    columns: dict[str, list[Any]] = {"index": sequence.indices + no_values}
    for name, values in sequence.columns.items():
        name = f"{sequence.name}.{name}" if name in own else name
        columns[name] = values + no_values
    columns["weight"] = [*sequence.weights.tolist(), *sequence.padding.tolist()]
    for t, cells in enumerate(zip(*columns.values(), strict=True)):
        shown = dict(zip(columns, cells, strict=True))
        yield {"row": row, "sequence": sequence.name, "position": t, **shown}


def explained(
    spec: FeatureSpec,
    users: object,
    items: object,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Sequence[NDArray[np.float32]],
    model_id: str = "",
) -> Explanation:
    """Put what the graph gave beside the raw values it was given.

    Parameters
    ----------
    spec : FeatureSpec
    users, items : readable batches of B and of N rows
        The same object for a plain table: rows whose user side is equal are then one
        request.
    inputs : dict of arrays
        What `spec` encodes them to.
    outputs : sequence of float32
        The scores [N], then the activation weights [N, T] of every sequence.
    model_id : str

    Returns
    -------
    Explanation

    Raises
    ------
    InputError
        If a value cannot be shown.
    """
    scores, *weights = outputs
    encoder = spec.encoder
    optional = encoder.optional_user_columns
    batch = open_batch(users, encoder.user_columns, optional=optional)
    texts = texts_of(spec.reads)
    split_columns(batch, texts)
    raw = {name: _values(users, name, texts) for name in batch.columns}
    optional = encoder.optional_candidate_columns
    opened = open_batch(items, encoder.candidate_columns, optional=optional)
    candidates = {name: _values(items, name, texts) for name in opened.columns}
    kept = [_kept(s, batch, raw) for s in spec.behavior]
    of_sequences = {c for s in spec.behavior for f in s.own_fields for c in f.columns}
    facts = [name for name in raw if name not in of_sequences]
    names = list(dict.fromkeys(c for f in spec.candidate for c in f.columns))
    owners = inputs["request_of_candidate"].tolist()
    requests = _equal_requests(raw, owners) if users is items else owners
    rows = []
    for n, b in enumerate(owners):
        sequences = []
        for s, of_requests, weight in zip(spec.behavior, kept, weights, strict=True):
            count = len(of_requests[b])
            stop = None if s.padding == "attended" else count
            mine, padding = weight[n, :count].copy(), weight[n, count:stop].copy()
            sequences.append(replace(of_requests[b], weights=mine, padding=padding))
        row = ExplainedRow(
            number=n,
            request=requests[n],
            score=float(scores[n]),
            name=label(candidates[c][n] for c in names),
            candidate={c: values[n] for c, values in candidates.items()},
            user={c: raw[c][b] for c in facts},
            sequences=tuple(sequences),
        )
        rows.append(row)
    return Explanation(tuple(rows), model_id)


def _values(batch: object, name: str, texts: Texts) -> list[Any]:
    """Read a column's values; lists, where the spec says how they are written."""
    values = read(batch, name)
    if name in texts:
        return [read_list(value, *texts[name]) for value in values]
    return values


def _equal_requests(raw: dict[str, list[Any]], owners: list[int]) -> list[int]:
    """Give rows whose user side is equal the number of the first such row."""
    first: dict[str, int] = {}
    keys = [repr([values[b] for values in raw.values()]) for b in owners]
    return [first.setdefault(key, n) for n, key in enumerate(keys)]


def _kept(
    spec: Behavior, batch: Batch, raw: Mapping[str, list[Any]]
) -> list[ExplainedSequence]:
    """List the behaviors that the model saw of each request, as yet without weights."""
    first, dtype, encoder = spec.own_fields[0].encoded[0]
    column = require_dtype(
        batch.columns[first], dtype, is_list=True, uuid_as=encoder.uuid_as
    )
    window = _kernels.Window(column)
    choose_elements(spec, batch, window)
    lengths, width, _, _ = window.finish(spec.max_len, False)
    places = window.places(width, spec.order == "newest_first")
    lists = {c: raw[c] for f in spec.own_fields for c in f.columns}
    none = np.empty(0, np.float32)
    kept = []
    for b, count in enumerate(lengths.tolist()):
        at = places[b, :count].tolist()
        columns = {name: [values[b][i] for i in at] for name, values in lists.items()}
        num_given = len(raw[first][b] or ())
        kept.append(ExplainedSequence(spec.name, columns, at, none, none, num_given))
    return kept

"""DIN and BaseModel in torch, built from a FeatureSpec.

Letters: B requests, N candidates, T positions, D width of a behavior, V valid pairs.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from din_converter.layers import LocalActivationUnit, Mlp, pool
from din_infer.encode import encode_values
from din_infer.errors import ModelError, check_kind, reads_arguments
from din_infer.spec import Behavior, Derived, FeatureSpec, Lists, MultiHot
from din_infer.spec_scales import check_fitted

__all__ = ["DIN", "BaseModel", "ClickModel", "build_model"]

EMBEDDING_STD = 0.01
Inputs = Mapping[str, Tensor]


def key_of(name: str) -> str:
    """Name a field's module; the prefix keeps it clear of Module's attributes."""
    return f"of_{name}"


def _draw(embedding: nn.Embedding, std: float) -> None:
    nn.init.normal_(embedding.weight, std=std)
    if embedding.padding_idx is not None:
        nn.init.zeros_(embedding.weight[0])


def _per_candidate(side: str, values: Tensor, request: Tensor) -> Tensor:
    """Repeat the values of a request for each of its candidates."""
    return values.index_select(0, request) if side == "user" else values


class _DerivedLookup(nn.Module):
    """Source ids -> pooled embeddings of the ids in the spec's `lookup`."""

    ids: Tensor
    counts: Tensor
    starts: Tensor
    weights: Tensor | None

    def __init__(self, derived: Derived) -> None:
        super().__init__()
        self.pooling, self.empty = derived.pooling, derived.empty
        flat = [v for row in derived.lookup for v in row]
        ids = encode_values(flat, derived.encoder, derived.dtype, derived.name)
        counts = np.array([len(row) for row in derived.lookup], np.int64)
        starts = np.cumsum(counts) - counts
        weights = None
        if derived.weights is not None:
            weights = np.array([w for row in derived.weights for w in row], np.float64)
        named = {"ids": ids, "counts": counts, "starts": starts, "weights": weights}
        for name, value in named.items():
            # torch.from_numpy holds values on the meta device too: see `hollow_model`
            tensor = None if value is None else torch.from_numpy(value)
            self.register_buffer(name, tensor, persistent=False)

    def elements(self, source_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Find what int64 [rows] look up: row and element of `ids`, int64 [V] each."""
        device = source_ids.device
        counts, starts = self.counts[source_ids], self.starts[source_ids]
        rows = torch.arange(len(source_ids), device=device)
        row = torch.repeat_interleave(rows, counts)
        first = torch.cumsum(counts, 0) - counts
        element = starts[row] + torch.arange(len(row), device=device) - first[row]
        return row, element

    def forward(self, source_ids: Tensor, table: nn.Embedding) -> Tensor:
        """Look up int64 [rows]; returns float [rows, dim]."""
        row, element = self.elements(source_ids)
        vectors = table(self.ids[element])
        if self.weights is not None:
            vectors = vectors * self.weights[element].to(vectors.dtype).unsqueeze(1)
        return pool(vectors, row, len(source_ids), self.pooling, self.empty)


class ClickModel(nn.Module):
    """What DIN and BaseModel share: embeddings, pooled and dense fields, the tower.

    Parameters
    ----------
    spec : FeatureSpec
        The fields and the layers; `spec.model.type` must be this class's.
    """

    kind = ""

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__()
        check_kind(spec, FeatureSpec, "spec")
        check_fitted(spec.reads)
        if self.kind and spec.model.type != self.kind:
            raise ModelError(repr(self.kind), repr(spec.model.type), "model.type")
        self.spec = spec
        self.tables = nn.ModuleDict()
        for table in spec.tables.values():
            padding = 0 if table.padding_row == "zero" else None
            embedding = nn.Embedding(table.rows, table.dim, padding_idx=padding)
            _draw(embedding, EMBEDDING_STD)
            self.tables[key_of(table.name)] = embedding
        self.lookups = nn.ModuleDict(
            {key_of(d.name): _DerivedLookup(d) for d in spec.derived}
        )
        self.projections = nn.ModuleDict(
            {
                key_of(d.name): nn.Linear(d.dim, d.project, bias=False)
                for d in spec.dense
                if d.project
            }
        )
        self.tower = Mlp(sum(p.width for p in spec.tower_inputs), spec.model.tower)

    def initialize_tables(self, std: float) -> None:
        """Draw every table from a normal distribution; a padding row is zero."""
        for embedding in self.tables.values():
            _draw(embedding, std)  # type: ignore[arg-type]

    def forward(self, inputs: Inputs) -> Tensor:
        """Score candidates.

        Parameters
        ----------
        inputs : dict of Tensor
            One tensor per entry of `spec.inputs`, as `spec.encode` makes them.

        Returns
        -------
        Tensor
            Logits before calibration, float [N].
        """
        return self._forward(inputs)[0]

    def activation_weights(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return, per behavior sequence, its activation weights float [N, T]."""
        return self._forward(inputs)[1]

    def _forward(self, inputs: Inputs) -> tuple[Tensor, dict[str, Tensor]]:
        request = inputs["request_of_candidate"]
        vectors = self._field_vectors(inputs, request)
        wholes = {("field", name): vector for name, vector in vectors.items()}
        weights: dict[str, Tensor] = {}
        for sequence in self.spec.behavior:
            slots = [
                vectors[name]
                if name is not None
                else self.tower.output.weight.new_zeros(len(request), width)
                for name, width in sequence.query
            ]
            query = torch.cat(slots, dim=1)
            interest, weight = self._interest(sequence, query, inputs, request)
            wholes["interest", sequence.name] = interest
            wholes["query", sequence.name] = query
            if weight is not None:
                weights[sequence.name] = weight
        parts = []
        for part in self.spec.tower_inputs:
            if part.kind == "product":
                whole = wholes["query", part.name] * wholes["interest", part.name]
            else:
                whole = wholes[part.kind, part.name]
            parts.append(whole[:, part.start : part.stop])
        logit: Tensor = self.tower(torch.cat(parts, dim=1))
        return logit, weights

    def _field_vectors(self, inputs: Inputs, request: Tensor) -> dict[str, Tensor]:
        """Every field that is not a behavior, as float [N, width]."""
        vectors: dict[str, Tensor] = {}
        for f in (*self.spec.user, *self.spec.candidate):
            ids = _per_candidate(f.side, inputs[f.name], request)
            vectors[f.name] = self._table(f.table)(ids)
        for d in self.spec.derived:
            ids = _per_candidate(d.side, inputs[d.source], request)
            vectors[d.name] = self.lookups[key_of(d.name)](ids, self._table(d.table))
        for m in self.spec.multi_hot:
            vectors[m.name] = _per_candidate(m.side, self._pooled(m, inputs), request)
        for dense in self.spec.dense:
            values = inputs[dense.name].to(self.tower.output.weight.dtype)
            if dense.project:
                values = self.projections[key_of(dense.name)](values)
            vectors[dense.name] = _per_candidate(dense.side, values, request)
        return vectors

    def derived_rows(self, name: str, ids: Tensor) -> Tensor:
        """Pool a derived field for ids of its source, int64 [n], as float [n, dim]."""
        derived = next(d for d in self.spec.derived if d.name == name)
        with torch.no_grad():
            rows: Tensor = self.lookups[key_of(name)](ids, self._table(derived.table))
        return rows

    def rows_read(self, inputs: Inputs) -> dict[str, tuple[Tensor, Tensor]]:
        """Tell which rows of which table each candidate reads.

        Parameters
        ----------
        inputs : dict of Tensor
            As `forward` takes them.

        Returns
        -------
        dict of (int64 [V], int64 [V])
            Per table: a candidate in 0..N-1, and a row that it reads; the pairs are in
            no order, and may repeat. Padding is not read.
        """
        request = inputs["request_of_candidate"]
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {
            t: [] for t in self.spec.tables
        }
        candidates = torch.arange(len(request), device=request.device)

        def read(table: str, derived: str | None, row: Tensor, ids: Tensor) -> None:
            if derived is not None:
                lookup: _DerivedLookup = self.lookups[key_of(derived)]  # type: ignore[assignment]
                inner, element = lookup.elements(ids)
                row, ids = row[inner], lookup.ids[element]
            pairs.setdefault(table, []).append((row, ids))

        for f in (*self.spec.user, *self.spec.candidate):
            ids = _per_candidate(f.side, inputs[f.name], request)
            read(f.table, None, candidates, ids)
        for d in self.spec.derived:
            ids = _per_candidate(d.side, inputs[d.source], request)
            read(d.table, d.name, candidates, ids)
        for m in self.spec.multi_hot:
            mask = self._mask(m, inputs[m.name], inputs)
            mask = _per_candidate(m.side, mask, request)
            ids = _per_candidate(m.side, inputs[m.name], request)
            read(m.table, None, mask.nonzero(as_tuple=True)[0], ids[mask])
        for sequence in self.spec.behavior:
            mask = self._sequence_mask(sequence, inputs)[request]
            n, t = mask.nonzero(as_tuple=True)
            for b in sequence.fields:
                read(b.table, b.derived, n, inputs[b.source or b.name][request[n], t])
        return {
            table: (torch.cat([r for r, _ in found]), torch.cat([i for _, i in found]))
            for table, found in pairs.items()
        }

    def _table(self, name: str) -> nn.Embedding:
        table: nn.Embedding = self.tables[key_of(name)]  # type: ignore[assignment]
        return table

    @staticmethod
    def _mask(lists: Lists, ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Which positions are behaviors, bool [B, T]; all of them if attended."""
        positions = torch.arange(ids.shape[1], device=ids.device)
        if lists.padding == "attended":
            return torch.ones_like(ids, dtype=torch.bool)
        return positions < inputs[lists.lengths].unsqueeze(1)

    def _pooled(self, field: MultiHot, inputs: Inputs) -> Tensor:
        ids = inputs[field.name]
        mask = self._mask(field, ids, inputs)
        row = mask.nonzero(as_tuple=True)[0]
        vectors = self._table(field.table)(ids[mask])
        return pool(vectors, row, len(ids), field.pooling, field.empty)

    def _behavior_vectors(
        self, sequence: Behavior, inputs: Inputs, row: Tensor, t: Tensor
    ) -> Tensor:
        """Concatenated embeddings of the behaviors at (row, t), float [V, D]."""
        out = []
        for f in sequence.fields:
            table = self._table(f.table)
            ids = inputs[f.source or f.name][row, t]
            if f.derived is not None:
                out.append(self.lookups[key_of(f.derived)](ids, table))
            else:
                out.append(table(ids))
        return torch.cat(out, dim=1)

    def _sequence_mask(self, sequence: Behavior, inputs: Inputs) -> Tensor:
        return self._mask(sequence, inputs[sequence.own_fields[0].name], inputs)

    def _interest(
        self, sequence: Behavior, query: Tensor, inputs: Inputs, request: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


class DIN(ClickModel):
    """Deep Interest Network: behaviors weighted by the local activation unit.

    interest = sum over t of a(q, k_t) · k_t, equation 3 of the paper; no softmax unless
    the spec asks for one. `forward` maps encoded inputs to logits.
    """

    kind = "din"

    def __init__(self, spec: FeatureSpec) -> None:
        super().__init__(spec)
        self.attentions = nn.ModuleDict(
            {
                key_of(s.name): LocalActivationUnit(s.width, s.attention)
                for s in spec.behavior
            }
        )

    def _interest(
        self, sequence: Behavior, query: Tensor, inputs: Inputs, request: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        mask = self._sequence_mask(sequence, inputs)[request]
        n, t = mask.nonzero(as_tuple=True)
        behaviors = self._behavior_vectors(sequence, inputs, request[n], t)
        unit: LocalActivationUnit = self.attentions[key_of(sequence.name)]  # type: ignore[assignment]
        if self.training:
            score = unit.shared(query, behaviors, n)
        else:
            # index_select: the gradient of query[n] is added up in no fixed order
            score = unit(query.index_select(0, n), behaviors)
        if sequence.attention.softmax:
            lowest = torch.finfo(score.dtype).min
            dense = score.new_full(mask.shape, lowest).index_put((n, t), score)
            weight = torch.softmax(dense, dim=1) * mask
        else:
            weight = score.new_zeros(mask.shape).index_put((n, t), score)
        weighted = weight[n, t].unsqueeze(1) * behaviors
        interest = weighted.new_zeros(query.shape).index_add(0, n, weighted)
        if sequence.attention.softmax and sequence.empty_softmax == "padding_row":
            row = inputs["request_of_candidate"].new_zeros(1)
            zeros = {name: row.unsqueeze(1) for name in inputs}
            padding = self._behavior_vectors(sequence, zeros, row, row)
            empty = ~mask.any(dim=1, keepdim=True)
            interest = torch.where(empty, padding, interest)
        return interest, weight


class BaseModel(ClickModel):
    """The paper's baseline: behaviors pooled by sum or mean, no attention."""

    kind = "base"

    def _interest(
        self,
        sequence: Behavior,
        query: Tensor,  # noqa: ARG002
        inputs: Inputs,
        request: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        mask = self._sequence_mask(sequence, inputs)
        row, t = mask.nonzero(as_tuple=True)
        behaviors = self._behavior_vectors(sequence, inputs, row, t)
        pooled = pool(behaviors, row, len(mask), self.spec.model.pooling)
        return pooled.index_select(0, request), None


@reads_arguments(ModelError)
def build_model(spec: FeatureSpec) -> ClickModel:
    """Build what `spec.model.type` names: `DIN` or `BaseModel`, freshly initialized.

    Raises
    ------
    TypeError
        If this is no FeatureSpec.
    """
    check_kind(spec, FeatureSpec, "spec")
    return (BaseModel if spec.model.type == "base" else DIN)(spec)


def hollow_model(spec: FeatureSpec) -> ClickModel:
    """Build a model whose weights have shapes but no memory, until `fill` gives them.

    Nothing is drawn, and no memory is taken that a checkpoint's weights replace.
    """
    with torch.device("meta"):
        return build_model(spec)


def fill(model: ClickModel, weights: Mapping[str, Tensor]) -> ClickModel:
    """Give a hollow model its weights, and put it in evaluation mode.

    Parameters
    ----------
    model : DIN or BaseModel
        As `hollow_model` made it.
    weights : dict of Tensor
        For every key of its state_dict, of that shape. float32 tensors that lie in one
        piece become the model's own; others are copied.
    """
    own = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    model.load_state_dict({k: v.contiguous() for k, v in own.items()}, assign=True)
    return model.eval()

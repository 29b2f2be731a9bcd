from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from din_converter import MiniBatchAwareRegularizer, build_model, count_samples
from din_converter.model import key_of
from din_converter.train import Settings, train
from din_converter.verify import random_inputs
from din_infer import ModelError
from tests.models import SPECS, random_model
from tests.test_train import QUIET, click_log, log_spec


def tensors(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in inputs.items()}


def slow_counts(spec: Any, inputs: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:  # noqa: ANN401
    """Count samples by a set per candidate, by the spec's words."""
    counts = {n: np.zeros(t.rows, np.int64) for n, t in spec.tables.items()}
    model = build_model(spec)

    def looked_up(name: str, source: int) -> list[int]:
        lookup: Any = model.lookups[key_of(name)]
        start, count = int(lookup.starts[source]), int(lookup.counts[source])
        return [int(i) for i in lookup.ids[start : start + count]]

    for n, b in enumerate(inputs["request_of_candidate"]):
        read: dict[str, set[int]] = {name: set() for name in spec.tables}
        for f in (*spec.user, *spec.candidate):
            read[f.table].add(int(inputs[f.name][b if f.side == "user" else n]))
        for d in spec.derived:
            source = int(inputs[d.source][b if d.side == "user" else n])
            read[d.table].update(looked_up(d.name, source))
        for m in spec.multi_hot:
            k = b if m.side == "user" else n
            length = inputs[f"{m.name}.lengths"][k]
            row = inputs[m.name][k]
            read[m.table].update(
                int(i) for i in (row if m.padding == "attended" else row[:length])
            )
        for s in spec.behavior:
            for f in s.fields:
                row = inputs[f.source or f.name][b]
                if s.padding != "attended":
                    row = row[: inputs[f"{s.name}.lengths"][b]]
                for i in row:
                    ids = (
                        [int(i)] if f.derived is None else looked_up(f.derived, int(i))
                    )
                    read[f.table].update(ids)
        for name, ids in read.items():
            for i in ids:
                counts[name][i] += 1
    return counts


@pytest.mark.parametrize("name", SPECS)
def test_samples_are_counted_once_per_row(name: str) -> None:
    model = random_model(SPECS[name])
    rng = np.random.default_rng(0)
    batches = [random_inputs(model.spec, rng, 5, 17, "mixed") for _ in range(2)]
    got = count_samples(model, [tensors(b) for b in batches])
    wanted = [slow_counts(model.spec, b) for b in batches]
    assert got.keys() == wanted[0].keys()
    for table, counts in got.items():
        assert np.array_equal(counts, wanted[0][table] + wanted[1][table])
        assert counts.any()


@pytest.mark.parametrize("kind", ["din", "base"])
def test_a_step_equals_equation_7_by_hand(kind: str) -> None:
    spec = log_spec(
        model={"type": kind, "attention": {"hidden": [8]}, "tower": {"hidden": [8]}}
    )
    log = click_log(500)
    inputs, labels = tensors(spec.encode(log)), np.array(log["label"], np.float64)
    torch.manual_seed(0)
    model = build_model(spec).double().train()
    for embedding in model.tables.values():
        embedding.sparse = True  # type: ignore[assignment]
    table: Any = model.tables[key_of("goods_id")]
    with torch.no_grad():
        table.weight.normal_()
        table.weight[0] = 0
    counts = count_samples(model, [inputs])
    batch = {
        k: v[:20] if k != "request_of_candidate" else torch.arange(20)
        for k, v in inputs.items()
    }
    before = table.weight.detach().numpy().copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    regularizer = MiniBatchAwareRegularizer([table], counts.values(), 0.7)

    def loss_of_batch() -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(
            model(batch), torch.from_numpy(labels[:20])
        )

    loss_of_batch().backward()  # type: ignore[no-untyped-call]
    plain = table.weight.grad.to_dense().numpy().copy()
    regularizer.add_gradients()
    assert table.weight.grad.is_sparse
    optimizer.step()

    ids = batch["goods_id"].tolist()
    for row, length in zip(batch["hist"], batch["h.lengths"], strict=True):
        ids += row[: int(length)].tolist()
    occurs = np.zeros(len(before))
    occurs[sorted(set(ids))] = 1
    share = np.where(
        counts["goods_id"] > 0, occurs / np.maximum(counts["goods_id"], 1), 0
    )
    by_hand = before - 0.5 * (plain + 0.7 * share[:, None] * before)
    after = table.weight.detach().numpy()
    np.testing.assert_allclose(after, by_hand, rtol=0, atol=1e-15)
    pulled = np.abs(after - (before - 0.5 * plain)).max(axis=1)
    assert (pulled[occurs == 1] > 1e-4).all()
    assert np.array_equal(after[occurs == 0], before[occurs == 0])
    assert 0 < occurs.sum() < len(before)


def test_a_step_costs_by_the_batch_not_by_the_table() -> None:
    table = nn.Embedding(3_000_000, 4, sparse=True)
    regularizer = MiniBatchAwareRegularizer(
        [table], [np.ones(3_000_000, np.int64)], 1.0
    )
    table(torch.tensor([5, 9, 5])).sum().backward()
    regularizer.add_gradients()
    gradient = table.weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert gradient.values().shape == (2, 4)
    torch.testing.assert_close(gradient.values()[0], 2 + table.weight[5].detach())


def test_what_cannot_be_regularized_is_refused() -> None:
    table = nn.Embedding(4, 2)
    with pytest.raises(ModelError) as caught:
        MiniBatchAwareRegularizer([table], [torch.ones(3)], 1.0)
    assert str(caught.value) == (
        "expected 4 counts, one a row, got shape [3] - at `counts`"
    )
    with pytest.raises(ModelError, match="expected a finite strength of at least 0"):
        MiniBatchAwareRegularizer([table], [torch.ones(4)], -1.0)
    regularizer = MiniBatchAwareRegularizer([table], [torch.ones(4)], 1.0)
    regularizer.add_gradients()  # nothing was read yet
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ModelError) as caught:
        regularizer.add_gradients()
    assert str(caught.value) == (
        "expected sparse gradients, to tell which rows the batch read, got dense ones"
        " - at `embeddings`. Make the table with torch.nn.Embedding(.., sparse=True)."
    )


def test_training_with_it_keeps_tables_smaller() -> None:
    spec, table = log_spec(), click_log(800)
    norms = []
    for mba in (0.0, 3.0):
        settings = Settings(
            epochs=4,
            batch_size=50,
            learning_rate=0.01,
            schedule="constant",
            embedding_std=0.01,
            mba=mba,
            **QUIET,
        )
        model = train(spec, table, None, settings).model
        norms.append(float(next(model.tables.parameters()).detach().norm()))
    assert norms[1] < 0.8 * norms[0]

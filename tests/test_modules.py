"""Any torch module, from convert() to the scores: exported, fused, proven, written."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from din_converter import convert, module_parity
from din_converter.fusing import rewrite
from din_converter.module_parity import example_batches
from din_converter.modules import Graph, export_module
from din_converter.report import Report
from din_infer.errors import ConversionError, InputError, ModelError
from din_infer.predictor import Predictor

pytestmark = pytest.mark.slow

USERS, GOODS = 12, 30


class Din(nn.Module):
    """DIN as people write it: expand, concatenate, mask by id, weighted sum."""

    def __init__(self, goods: int = GOODS) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(USERS, 4), nn.Embedding(goods, 6)
        self.unit = nn.Sequential(nn.Linear(24, 8), nn.PReLU(), nn.Linear(8, 1))
        self.tower = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, user: Tensor, goods: Tensor, history: Tensor) -> Tensor:
        query, behaviors = self.item(goods), self.item(history)
        spread = query.unsqueeze(1).expand_as(behaviors)
        parts = [spread, behaviors, spread - behaviors, spread * behaviors]
        weight = self.unit(torch.cat(parts, -1)) * (history != 0).unsqueeze(-1)
        interest = (weight * behaviors).sum(1)
        features = torch.cat([self.user(user), query, interest], -1)
        return torch.sigmoid(self.tower(features)).squeeze(-1)


def random_module(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics that matter, so that outputs spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise / (p.shape[-1] ** 0.5 if p.ndim > 1 else 1))
    return module.eval()


def example(rows: int = 6, positions: int = 5, goods: int = GOODS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    history = torch.randint(1, goods, (rows, positions), generator=generator)
    lengths = torch.arange(rows) % (positions + 1)
    history[torch.arange(positions) >= lengths.unsqueeze(1)] = 0
    return {
        "user": torch.randint(0, USERS, (rows,), generator=generator),
        "goods": torch.randint(1, goods, (rows,), generator=generator),
        "history": history,
    }


def arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    return {k: v.numpy() for k, v in tensors.items()}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, nn.Module]:
    module = random_module(Din())
    path = tmp_path_factory.mktemp("module") / "m.onnx"
    return convert(module, path, example_inputs=example()), module


def test_a_module_scores_as_torch_does(converted: tuple[Report, nn.Module]) -> None:
    report, module = converted
    (block,) = report.blocks
    assert (block.fused, block.reads, block.hidden) == (True, "tables", (8,))
    assert report.source == "module"
    assert {c.name for c in report.cases} >= {
        "example",
        "N=1, shortest",
        "twice",
    }
    batch = example(rows=40, positions=9)
    wanted = module(**batch).detach().numpy()
    assert wanted.std() > 0.05
    for fused in (True, False):
        predictor = Predictor(report.path, device="cpu", fused=fused)
        got = predictor.score_encoded(arrays(batch))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
    again = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(again.score_encoded(arrays(batch)), got)


def test_plain_onnxruntime_runs_the_file(converted: tuple[Report, nn.Module]) -> None:
    report, module = converted
    onnx.checker.check_model(report.path, full_check=True)
    session = onnxruntime.InferenceSession(report.path)
    assert [i.name for i in session.get_inputs()] == ["user", "goods", "history"]
    assert [i.shape for i in session.get_inputs()] == [["N"], ["N"], ["N", "T"]]
    (got,) = session.run(None, arrays(example()))
    wanted = module(**example()).detach().numpy()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


def test_the_report_is_text_json_and_in_the_model(
    converted: tuple[Report, nn.Module],
) -> None:
    report, _ = converted
    text = str(report)
    assert "attention 1 of 1 blocks fused\n" in text
    assert ": 6 -> 8 -> 1, prelu; per candidate of 5 behaviors\n" in text
    assert "torch against ONNX Runtime; allowed 1e-05 * max(1, |value|)" in text
    assert "6 rows of 5 behaviors" not in text  # the largest batch is timed
    found = json.loads(json.dumps(report.to_dict()))
    (block,) = found["blocks"]
    assert block["flops_before"] > 2 * block["flops_after"] > 0
    assert block["bytes_before"] > block["bytes_after"] > 0
    assert set(found["timing"]["before"]) == {"torch", "plain ONNX"}
    metadata = {p.key: p.value for p in onnx.load(report.path).metadata_props}
    inside = json.loads(metadata["din_infer.parity"])
    assert inside["blocks"] == found["blocks"]
    assert inside["batches"] == found["batches"]
    assert metadata["din_infer.source"] == "module"
    assert "din_infer.spec" not in metadata


class Tangled(Din):
    """Tanh of the scores."""

    def forward(self, user: Tensor, goods: Tensor, history: Tensor) -> Tensor:
        query, behaviors = self.item(goods), self.item(history)
        spread = query.unsqueeze(1).expand_as(behaviors)
        parts = [spread, behaviors, spread - behaviors, spread * behaviors]
        scores = self.unit(torch.cat(parts, -1))
        weight = torch.tanh(scores) * (history != 0).unsqueeze(-1)
        return (weight * behaviors).sum(1) + self.user(user)[:, :1]


def test_a_reason_has_its_place_in_the_module(tmp_path: Path) -> None:
    module = random_module(Tangled())
    report = convert(module, tmp_path / "m.onnx", example_inputs=example())
    (block,) = report.blocks
    line = "weight = torch.tanh(scores) * (history != 0).unsqueeze(-1)"
    assert (
        block.reason == "tanh: Dice, PReLU, LeakyReLU, ReLU, SiLU and sigmoid are fused"
    )
    assert block.place.startswith("test_modules.py:")
    assert block.place.endswith(f": {line}")
    assert f"          at {block.place}\n" in str(report)
    assert b"site-packages" not in report.path.read_bytes()
    assert str(Path(__file__).parent).encode() not in report.path.read_bytes()


def test_a_module_has_no_spec_and_says_so(converted: tuple[Report, nn.Module]) -> None:
    report, _ = converted
    predictor = Predictor(report.path)
    assert predictor.describe().splitlines() == [
        "input    dtype  shape   values",
        "-------  -----  ------  -----------",
        "user     int64  [N]     id in 0..11",
        "goods    int64  [N]     id in 0..29",
        "history  int64  [N, T]  id in 0..29",
    ]
    for use in (
        lambda: predictor.score({}),
        lambda: predictor.explain({}),
        lambda: predictor.score_requests({}, {}),
        lambda: predictor.spec,
    ):
        with pytest.raises(ModelError) as caught:
            use()
        assert str(caught.value) == (
            "expected a model with a feature spec, got a torch module's graph - at"
            f" `{report.path}`. Give its own inputs to score_encoded."
        )


WRONG_INPUTS = {
    "expected an id in [0, 30), got 30 - at `goods[2]`": ("goods", 30),
    "expected an id in [0, 30), got -1 - at `history[2, 0]`": ("history", -1),
    "expected a int64 array of shape ['N'], got float64 - at `user`": ("user", 0.5),
}


@pytest.mark.parametrize("message", WRONG_INPUTS)
def test_wrong_inputs_are_refused(
    message: str, converted: tuple[Report, nn.Module]
) -> None:
    report, _ = converted
    name, value = WRONG_INPUTS[message]
    batch = arrays(example())
    if isinstance(value, float):
        batch[name] = batch[name].astype(np.float64)
    else:
        batch[name][(2,) + (0,) * (batch[name].ndim - 1)] = value
    predictor = Predictor(report.path)
    with pytest.raises(InputError) as caught:
        predictor.score_encoded(batch)
    assert str(caught.value) == message


def test_a_module_takes_neither_raw_nor_a_batch_size(
    converted: tuple[Report, nn.Module],
) -> None:
    predictor = Predictor(converted[0].path)
    with pytest.raises(InputError) as caught:
        predictor.score_encoded(arrays(example()), raw=True)
    assert str(caught.value) == (
        "expected neither raw nor batch_size for a torch module, got raw=True,"
        " batch_size=None - at `score_encoded`"
    )


def test_no_rows_are_refused(converted: tuple[Report, nn.Module]) -> None:
    none = {k: v[:0] for k, v in arrays(example()).items()}
    with pytest.raises(InputError) as caught:
        Predictor(converted[0].path).score_encoded(none)
    assert (
        str(caught.value) == "expected at least one value, got shape (0,) - at `user`"
    )


class Recurrent(nn.Module):
    """A GRU before the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.din = Din()
        self.gru = nn.GRU(6, 6, batch_first=True)

    def forward(self, goods: Tensor, history: Tensor) -> Tensor:
        query, (seen, _) = self.din.item(goods), self.gru(self.din.item(history))
        spread = query.unsqueeze(1).expand_as(seen)
        parts = [spread, seen, spread - seen, spread * seen]
        weight = self.din.unit(torch.cat(parts, -1)) * (history != 0).unsqueeze(-1)
        return (weight * seen).sum(1)


def test_behaviors_behind_a_gru_are_read_as_it_leaves_them(tmp_path: Path) -> None:
    module = random_module(Recurrent())
    batch = {k: v for k, v in example().items() if k != "user"}
    report = convert(module, tmp_path / "m.onnx", example_inputs=batch)
    (block,) = report.blocks
    assert (block.fused, block.reads) == (True, "vectors")
    got = Predictor(report.path).score_encoded(arrays(batch))
    np.testing.assert_allclose(got, module(**batch).detach(), atol=1e-5)


def test_a_damaged_file_does_not_load(
    converted: tuple[Report, nn.Module], tmp_path: Path
) -> None:
    proto = onnx.load(converted[0].path)
    bias = next(t for t in proto.graph.initializer if t.name == "tower.2.bias")
    value = onnx.numpy_helper.to_array(bias) + np.float32(0.01)
    bias.CopyFrom(onnx.numpy_helper.from_array(value, bias.name))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        Predictor(tmp_path / "m.onnx")
    assert str(caught.value) == (
        f"expected the golden output output within 1e-05, got another - at"
        f" `{tmp_path}/m.onnx: din_infer.golden`. The file is damaged, or this machine"
        " computes something else."
    )


class OfDict(nn.Module):
    """One argument: a tuple of dicts and a mask; a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Din()

    def forward(self, inputs: Any) -> dict[str, Tensor]:  # noqa: ANN401
        users, items, scale = inputs
        score = self.inner(users["user"], items["goods"], items["history"])
        return {"y_pred": score.unsqueeze(-1), "scaled": score * scale}


def test_nested_inputs_and_several_outputs_keep_their_names(tmp_path: Path) -> None:
    module = random_module(OfDict())
    flat = example()
    users = {"user": flat.pop("user")}
    inputs = ((users, flat, torch.rand(6)),)
    report = convert(module, tmp_path / "m.onnx", example_inputs=inputs)
    session = onnxruntime.InferenceSession(report.path)
    names = [i.name for i in session.get_inputs()]
    assert names[:3] == ["user", "goods", "history"]
    assert len(session.get_outputs()) == 2
    batch = arrays({**users, **flat, names[3]: inputs[0][2]})
    wanted = module(*inputs)
    first, second = session.run(None, batch)
    np.testing.assert_allclose(first, wanted["y_pred"].detach(), atol=1e-5)
    np.testing.assert_allclose(second, wanted["scaled"].detach(), atol=1e-5)
    got = Predictor(report.path).score_encoded(batch)
    assert got.shape == (6, 1)


def test_an_example_of_one_row_is_enough(tmp_path: Path) -> None:
    module = random_module(Din())
    one = {k: v[5:6] for k, v in example().items()}
    report = convert(module, tmp_path / "m.onnx", example_inputs=one)
    batch = example(rows=9)
    got = Predictor(report.path).score_encoded(arrays(batch))
    np.testing.assert_allclose(got, module(**batch).detach(), atol=1e-5)


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = random_module(Din()).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    convert(module, tmp_path / "m.onnx", example_inputs=tuple(example().values()))
    assert module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_large_tables_lie_beside_the_graph(tmp_path: Path) -> None:
    module = random_module(Din(goods=60_000))
    report = convert(module, tmp_path / "m.onnx", example_inputs=example(goods=60_000))
    assert report.data_path is not None
    assert report.path.stat().st_size < 100_000
    got = Predictor(report.path).score_encoded(arrays(example(goods=60_000)))
    wanted = module(**example(goods=60_000)).detach()
    np.testing.assert_allclose(got, wanted, atol=1e-5)


class NoAttention(nn.Module):
    """Mean pooling: nothing to fuse."""

    def __init__(self) -> None:
        super().__init__()
        self.item, self.out = nn.Embedding(GOODS, 6), nn.Linear(6, 1)

    def forward(self, history: Tensor) -> Tensor:
        mask = (history != 0).unsqueeze(-1).float()
        pooled = (self.item(history) * mask).sum(1) / (mask.sum(1) + 1e-12)
        return self.out(pooled)


def test_a_module_without_attention_converts_untouched(tmp_path: Path) -> None:
    module = random_module(NoAttention())
    history = example()["history"]
    report = convert(module, tmp_path / "m.onnx", example_inputs=history)
    assert report.blocks == ()
    assert "attention none found\n" in str(report)
    assert set(report.timing.before) == {"torch"}  # type: ignore[union-attr]
    proto = onnx.load(report.path)
    assert not proto.functions
    got = Predictor(report.path).score_encoded({"history": history.numpy()})
    assert not np.isnan(got).any()  # 1e-12 keeps the empty history finite
    np.testing.assert_allclose(got, module(history).detach(), atol=1e-5)


class Branching(nn.Module):
    """Control flow on data, which torch cannot export."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "expected example inputs, with which the module can be called, got none - at"
    " `example_inputs`": (Din(), {}),
    "expected a tensor, a tuple of arguments or a dict of them, got str - at"
    " `example_inputs`": (Din(), {"example_inputs": "user"}),
    "expected a model with a feature spec, for activation weights and fp16 tables, got"
    " a torch module - at `model`": (
        Din(),
        {"example_inputs": example(), "explain": True},
    ),
    "expected no such option without a library's checkpoint, got description - at"
    " `source`": (Din(), {"example_inputs": example(), "description": "c.json"}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_converted_is_refused(message: str, tmp_path: Path) -> None:
    module, options = REFUSED[message]
    with pytest.raises(ConversionError) as caught:
        convert(module, tmp_path / "m.onnx", **options)
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


def test_what_torch_cannot_export_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"^expected a module that torch\.export"):
        convert(Branching(), tmp_path / "m.onnx", example_inputs=torch.rand(4))
    assert not list(tmp_path.iterdir())


class Pair(nn.Module):
    """Two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = Din(), Din()

    def forward(self, user: Tensor, goods: Tensor, history: Tensor) -> Tensor:
        return self.one(user, goods, history) + self.other(user, goods, history)


@pytest.mark.parametrize("wrong", ["off", "broken"])
def test_a_block_that_fails_is_left_as_it_is(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rewrite._Rewriter.parameters

    def parameters(self: Any) -> Any:  # noqa: ANN401
        made = real(self)
        if self.site.name == "sum_1":
            bias = made["bias_2"]
            made["bias_2"] = bias + np.float32(0.01) if wrong == "off" else bias[:0]
        return made

    monkeypatch.setattr(rewrite._Rewriter, "parameters", parameters)
    module = random_module(Pair())
    report = convert(module, tmp_path / "m.onnx", example_inputs=example())
    first, second = report.blocks
    assert (first.fused, second.fused) == (False, True)
    assert first.reason.startswith("a fault of the fused graph (")
    got = Predictor(report.path).score_encoded(arrays(example()))
    np.testing.assert_allclose(got, module(**example()).detach(), atol=1e-5)


def test_batches_of_every_size_are_compared() -> None:
    graph = export_module(random_module(Din()), example())
    shapes = {name: x["history"].shape for name, x in example_batches(graph)}
    assert shapes["example"] == (6, 5)
    assert shapes["N=1, shortest"] == (1, 1)
    assert shapes["N=64, longer"] == (64, 13)
    assert shapes["half"] == (3, 5)
    assert shapes["twice"] == (12, 5)


def test_a_batch_that_the_module_refuses_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = export_module(random_module(Din()), example())
    real = Graph.call

    def choosy(self: Graph, inputs: Any, dtype: torch.dtype) -> Any:  # noqa: ANN401
        if len(inputs["user"]) == 1:
            message = "two rows at least"
            raise ValueError(message)
        return real(self, inputs, dtype)

    monkeypatch.setattr(Graph, "call", choosy)
    names = {name for name, _, _ in module_parity.reference_outputs(graph)}
    assert "example" in names
    assert not {n for n in names if n.startswith("N=1")}


class Heads(nn.Module):
    """Attention whose padding is a mask of -inf, added before a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(GOODS, 6)
        self.heads = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, goods: Tensor, history: Tensor) -> Tensor:
        query, keys = self.item(goods).unsqueeze(1), self.item(history)
        padding = history == 0
        seen, _ = self.heads(query, keys, keys, key_padding_mask=padding)
        return seen.squeeze(1)


def test_a_bias_of_minus_infinity_is_no_behavior(tmp_path: Path) -> None:
    module = random_module(Heads())
    goods = torch.tensor([1, 2, 3])
    full = {"goods": goods, "history": torch.tensor([[3, 4, 5], [6, 7, 8], [1, 2, 3]])}
    report = convert(module, tmp_path / "m.onnx", example_inputs=full)
    assert not any(b.fused for b in report.blocks)
    full["history"] = torch.tensor([[3, 4, 0], [6, 0, 0], [1, 2, 3]])
    got = Predictor(report.path).score_encoded(arrays(full))
    np.testing.assert_allclose(got, module(**full).detach(), atol=1e-5)


class Short(Din):
    """Cuts long histories itself."""

    def forward(self, user: Tensor, goods: Tensor, history: Tensor) -> Tensor:
        if history.shape[1] > 100:
            history = history[:, -100:]
        return super().forward(user, goods, history)


def test_a_branch_on_a_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(Short(), tmp_path / "m.onnx", example_inputs=example())
    assert str(caught.value).startswith(
        "expected a module that computes the same at every batch size and history"
        " length, got sizes s"
    )
    assert " from 2 to 100 - at `module`" in str(caught.value)
    assert not list(tmp_path.iterdir())


class Rounded(Din):
    """Weights in half precision for a moment."""

    def forward(self, user: Tensor, goods: Tensor, history: Tensor) -> Tensor:
        query, behaviors = self.item(goods), self.item(history)
        spread = query.unsqueeze(1).expand_as(behaviors)
        parts = [spread, behaviors, spread - behaviors, spread * behaviors]
        weight = self.unit(torch.cat(parts, -1)).half().float()
        return (weight * behaviors).sum(1) + 0 * user.unsqueeze(1)


def test_a_cast_that_rounds_is_not_read_away() -> None:
    (block,) = export_module(random_module(Rounded()), example()).blocks
    assert (block.part, block.reason) == (
        "scores",
        "a cast to half precision, which rounds: leave the unit in float32",
    )

"""Modules as people hand them over: wrapped, of one row, of one position, or wrong."""

import copy
import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from din_converter import convert
from din_converter.exporting import export_program, open_sizes
from din_converter.importers.pt2 import load_program
from din_converter.modules import export_module
from din_converter.recurrent import is_whole
from din_converter.rewriting import REWRITTEN, Cuts, Rewrites
from din_infer.errors import ConversionError
from din_infer.predictor import Predictor
from tests import ops
from tests.fusing import mix
from tests.torch_patterns import PATTERNS, SIZE, Keywords, Net, OfDict, ids, pool
from tests.torch_proof import check

pytestmark = pytest.mark.slow


def din() -> nn.Module:
    return PATTERNS["mask by product"].make()


def example(n: int = 4, t: int = 5) -> dict[str, Tensor]:
    item, history = ids(n, t, 0)
    return {"item": item, "history": history}


def _net_of(run: Callable[..., Any]) -> nn.Module:
    """Make a DIN that returns more than scores, from its weights."""
    return Net(
        lambda net, i, h: run(net, i, h, net.score(net.e(i), net.e(h)) * (h != 0))
    )


def shapes(module: nn.Module, x: Any) -> dict[str, list[str | int]]:  # noqa: ANN401
    graph = export_module(module, x).plain.graph
    return {
        i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
        for i in graph.input
    }


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "torch.compile": lambda: torch.compile(din()),  # type: ignore[return-value]
    "DataParallel": lambda: nn.DataParallel(din()),
    "averaged": lambda: AveragedModel(din()),
    "keywords": Keywords,
    "compiled keywords": lambda: torch.compile(Keywords()),  # type: ignore[return-value]
    "a dict": OfDict,
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_around_a_module_is_taken_off(name: str) -> None:
    with warnings.catch_warnings():  # torch's, of what it imports to compile
        warnings.simplefilter("ignore")
        module = WRAPPED[name]()
    graph = export_module(module, example())
    assert [b.part for b in graph.blocks] == ["whole"]
    assert graph.names == ["item", "history"]


class Columns(nn.Module):
    """Candidates [N, 1], kept as rows of one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net(lambda *_: None)

    def forward(self, item_id: Tensor, hist_ids: Tensor, mask: Tensor) -> Tensor:
        q, k = self.net.e(item_id), self.net.e(hist_ids)
        x = q.expand_as(k)
        w = self.net.u(torch.cat([x, k, x - k, x * k], -1)).squeeze(-1) * mask
        return self.net.logit(q.squeeze(1), pool(w, k))


@pytest.mark.parametrize("n", [1, 3])
def test_histories_of_one_position_are_opened_by_their_names(n: int) -> None:
    item, history = ids(n, 1, 0)
    x = {"item_id": item[:, None], "hist_ids": history, "mask": history != 0}
    wanted = {"item_id": ["N", 1], "hist_ids": ["N", "T"], "mask": ["N", "T"]}
    assert shapes(Columns(), x) == wanted


def test_weights_beside_the_scores_may_grow_with_the_history() -> None:
    weighed = _net_of(lambda net, i, h, w: (net.logit(net.e(i), pool(w, net.e(h))), w))
    item, history = ids(1, 1, 0)
    assert shapes(weighed, (item, history))["history"] == ["N", "T"]


class Listed(nn.Module):
    """Takes a list: two histories without names."""

    def __init__(self) -> None:
        super().__init__()
        self.net = din()

    def forward(self, x: list[Tensor]) -> Tensor:
        made: Tensor = self.net(x[0], x[1]) + self.net(x[0], x[2])
        return made


def test_a_history_of_one_position_is_opened_beside_a_longer_one() -> None:
    item, history = ids(3, 1, 0)
    found = shapes(Listed(), ([item, history, ids(3, 4, 0)[1]],))
    assert list(found.values()) == [["N"], ["N", "T0"], ["N", "T1"]]


class Placed(Net):
    """A table of 16 positions, cut to the history."""

    def __init__(self) -> None:
        super().__init__(lambda *_: None)
        self.register_buffer("places", torch.linspace(-1.0, 1.0, 16).unsqueeze(1))

    def forward(self, item: Tensor, history: Tensor) -> Tensor:  # type: ignore[override]
        q, k = self.e(item), self.e(history) + self.places[: history.shape[1]]
        return self.logit(q, pool(self.score(q, k) * (history != 0), k))


def test_a_table_of_positions_limits_the_history(tmp_path: Path) -> None:
    report = convert(Placed(), tmp_path / "m.onnx", example_inputs=example())
    assert report.notes == ("the module takes at most 16 ids a row in history",)
    assert [b.part for b in report.blocks] == ["whole"]
    predictor = Predictor(report.path)
    assert predictor.describe().splitlines()[3].split()[2:4] == ["[N,", "T]"]
    x = example(t=16)
    got = predictor.score_encoded({k: v.numpy() for k, v in x.items()})
    np.testing.assert_allclose(got, Placed()(**x).detach(), atol=1e-5)


def test_a_history_that_stays_at_one_position_is_remarked_on(tmp_path: Path) -> None:
    module = PATTERNS["a loop over positions"].make()
    x = example(t=1)
    report = convert(module, tmp_path / "m.onnx", example_inputs=x)
    (note,) = report.notes
    assert note.startswith("history has 1 id a row, as in the example: give one of two")
    assert note in str(report)


def test_a_module_that_fixes_its_batch_says_so(tmp_path: Path) -> None:
    module = PATTERNS["a loop over rows"].make()
    report = convert(module, tmp_path / "m.onnx", example_inputs=example())
    (note,) = report.notes
    assert note.startswith("the module fixes the batch: 4 rows in every call")
    assert report.to_dict()["notes"] == [note]
    assert not any(c.name.startswith("N=") for c in report.cases)
    described = Predictor(report.path).describe()
    assert described.endswith("The module fixes the batch: N is 4.")


def test_a_module_that_fixes_its_length_says_so(tmp_path: Path) -> None:
    module = PATTERNS["a loop over positions"].make()
    report = convert(module, tmp_path / "m.onnx", example_inputs=example())
    assert report.notes == ("the module fixes the size of history: 5 ids a row",)
    described = Predictor(report.path).describe()
    assert described.endswith("The module fixes history: 5 ids in every row.")


def _pooled(net: Net, item: Tensor, history: Tensor) -> Tensor:
    q, k = net.e(item), net.e(history)
    return net.logit(q, pool(net.score(q, k) * (history != 0), k))


def test_a_history_that_is_cut_first_stays_open() -> None:
    """torch says that it has 3 positions: a size of 1 is not open to it."""
    module = Net(lambda net, i, h: _pooled(net, i, h[:, 1:]))
    graph = export_module(module, example())
    assert shapes(module, example()) == {"item": ["N"], "history": ["N", "T"]}
    assert not graph.notes
    check(graph, ids, (4, 5))


def test_a_least_size_that_the_module_has_stays() -> None:
    def run(net: Net, item: Tensor, history: Tensor) -> Tensor:
        return _pooled(net, item, history if history.shape[1] > 2 else history * 0)

    graph = export_module(Net(run), example())
    assert shapes(Net(run), example())["history"] == ["N", 5]
    assert graph.notes == ("the module fixes the size of history: 5 ids a row",)


def test_nan_is_nan_and_the_report_says_where(tmp_path: Path) -> None:
    module = PATTERNS["NaN where there is no history"].make()
    report = convert(module, tmp_path / "m.onnx", example_inputs=example())
    rows = np.flatnonzero((example()["history"] == 0).all(1).numpy())
    (note,) = report.notes
    named = ", ".join(map(str, rows))
    assert note.startswith(f"output is NaN at rows {named} of the example and in ")
    assert note.endswith(", in torch too")
    for fused in (True, False):
        predictor = Predictor(report.path, fused=fused)
        got = predictor.score_encoded({k: v.numpy() for k, v in example().items()})
        assert np.flatnonzero(np.isnan(got)).tolist() == rows.tolist()


def _script() -> nn.Module:
    scripted: nn.Module = torch.jit.script(nn.Linear(3, 1))
    return scripted


def _trace() -> nn.Module:
    traced: nn.Module = torch.jit.trace(nn.Linear(3, 1), torch.rand(2, 3))
    return traced


class Branch(nn.Module):
    def forward(self, item: Tensor, history: Tensor) -> Tensor:
        return item + 1 if history.sum() > 0 else item


class Complex(nn.Module):
    def forward(self, item: Tensor, history: Tensor) -> Tensor:
        return torch.complex(item.float(), history.sum(1).float())


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.gru = nn.Embedding(30, 4), nn.GRU(4, 4, batch_first=True)

    def forward(self, item: Tensor, history: Tensor) -> Tensor:
        lengths = (history != 0).sum(1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.e(history), lengths, batch_first=True, enforce_sorted=False
        )
        return self.gru(packed)[1].sum((0, 2)) + item


class NoOnnx(nn.Module):
    def forward(self, item: Tensor, history: Tensor) -> Tensor:
        matrix = history[:, :1, None] * item[:, None, None].float()
        matrix = matrix + history[:, None].float() * history[:, :, None]
        return torch.linalg.eigvals(matrix).real.sum(1)


TORCHSCRIPT = (
    "expected a module of Python code, got a TorchScript module - at `module`. Convert"
    " the nn.Module that torch.jit.script or torch.jit.trace took."
)
REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Tensor], str]] = {
    "scripted": (_script, example(), TORCHSCRIPT),
    "traced": (_trace, example(), TORCHSCRIPT),
    "bfloat16": (
        lambda: din().bfloat16(),
        example(),
        "expected weights in float32, got torch.bfloat16 in `tower.2.bias` - at"
        " `module`. Give module.float().",
    ),
    "float16": (
        lambda: din().half(),
        example(),
        "expected weights in float32, got torch.float16 in `tower.2.bias` - at"
        " `module`. Give module.float().",
    ),
    "an id outside": (
        din,
        {**example(), "history": torch.tensor([[1, 41]] * 4)},
        "expected an id in [0, 30) for the table `e`, got 41 - at `example_inputs`",
    ),
    "a missing argument": (
        din,
        {"item": example()["item"]},
        "expected an example with which the module can be called, got Net.forward()"
        " missing 1 required positional argument: 'history' - at `example_inputs`",
    ),
    "a size as an output": (
        SIZE,
        example(),
        "expected a module whose outputs are tensors, got one of type int - at"
        " `module`. Convert a module that returns its scores alone.",
    ),
    "complex numbers": (
        Complex,
        example(),
        "expected a module whose outputs are real numbers, got complex64 - at"
        " `module, output`",
    ),
    "a branch on values": (
        Branch,
        example(),
        "expected a module that torch.export takes, got Could not guard on"
        " data-dependent expression",
    ),
    "a packed sequence": (
        Packed,
        example(),
        "expected a module that torch.export takes, got ",
    ),
    "an operator that ONNX lacks": (
        NoOnnx,
        example(),
        "expected a module that torch.onnx.export takes, got No ONNX function found for"
        " <OpOverload(op='aten.linalg_eig', overload='default')>",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_one_error(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, x, message = REFUSED[name]
    with warnings.catch_warnings():  # torch's, of TorchScript
        warnings.simplefilter("ignore")
        module = make()
    with pytest.raises(ConversionError) as caught:
        convert(module, tmp_path / "m.onnx", example_inputs=x)
    assert str(caught.value).startswith(message)
    assert str(tmp_path) not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_packed_sequences_have_a_mend() -> None:
    with pytest.raises(ConversionError) as caught:
        export_module(Packed(), example())
    assert caught.value.fix == "Give the GRU padded rows."


PROGRAMS = (
    "beside an EmbeddingBag, mean",
    "beside an EmbeddingBag with padding",
    "beside an EmbeddingBag with offsets",
    "a torch.cond beside",
)


@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # of torch's own copies
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_have_bags_and_branches(name: str, tmp_path: Path) -> None:
    pattern = PATTERNS[name]
    x = pattern.inputs(4, 5, 0)
    wide = {0: Dim.AUTO, 1: Dim.AUTO}
    dims = {"item": {0: Dim.AUTO}, "history": wide, "more": (wide,)}
    dims = dims if len(x) == 3 else {k: v for k, v in dims.items() if k != "more"}
    with warnings.catch_warnings():  # torch's, of its own code
        warnings.simplefilter("ignore")
        program = torch.export.export(pattern.make(), x, dynamic_shapes=dims)
        torch.export.save(program, tmp_path / "m.pt2")
    graph = export_module(load_program(tmp_path / "m.pt2"))
    assert [b.part for b in graph.blocks] == ["whole"]
    assert graph.bags == (name == "beside an EmbeddingBag, mean")
    assert not check(graph, pattern.inputs, (4, 5))


def test_a_program_with_a_greatest_size_is_refused() -> None:
    batch = Dim("batch", max=1024)
    x = tuple(example().values())
    dims = ({0: batch}, {0: batch, 1: Dim("time")})
    program = torch.export.export(din(), x, dynamic_shapes=dims)
    with pytest.raises(ConversionError) as caught:
        export_module(program)
    assert str(caught.value).startswith(
        "expected a program that computes the same at every batch size and history"
        " length, got sizes s"
    )
    assert str(caught.value).endswith(
        " to 1024 - at `module`. Export it with dimensions that have no `max`."
    )


@pytest.mark.parametrize("padding", [None, 0, -1])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_without_a_loop_are_those_of_torch(mode: str, padding: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    runs = torch.randint(0, 12, (20,), generator=generator)
    rows = torch.randint(0, 12, (6, 4), generator=generator)
    rows[0], rows[1] = 0, 11  # padding alone
    for values, more in (
        (rows, {}),
        (runs, {"offsets": torch.tensor([0, 4, 4, 9])}),
        (runs, {"offsets": torch.tensor([0, 4, 20]), "include_last_offset": True}),
    ):
        options = {"mode": mode, "padding_idx": padding, **more}
        wanted = F.embedding_bag(values, table, **options)
        with Rewrites():
            got = F.embedding_bag(values, table, **options)
        torch.testing.assert_close(got, wanted)


CUTS: list[Any] = [
    slice(None, 4),
    (slice(None), slice(-4, None)),
    (slice(None), slice(1, 5)),
    (slice(None), slice(-5, -1)),
    (..., slice(None, 3), slice(None)),
    (..., slice(-2, None)),
    (slice(None), None, slice(None, 6, 2)),
    (0, slice(3, None)),
    (slice(None, 0), slice(7, 2)),
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_cut_is_for_any_length(cut: Any) -> None:  # noqa: ANN401
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[cut] + 0

    module = Cut()
    sizes = {axis: torch.export.Dim.DYNAMIC for axis in range(3)}
    with Cuts():
        program = torch.export.export(
            module, (torch.zeros(9, 9, 9),), dynamic_shapes=(sizes,)
        )
    run = program.module(check_guards=False)
    for shape in itertools.product((2, 3, 5, 12), repeat=3):
        x = torch.arange(float(math.prod(shape))).reshape(shape)
        assert torch.equal(run(x), x[cut])


def test_a_fill_by_a_mask_has_one_length() -> None:
    class Fill(nn.Module):
        def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
            out = scores * 2
            out[mask == 0] = -1e9
            return out.softmax(1)

    program, _ = export_program(Fill(), ((torch.zeros(2, 5), torch.ones(2, 5)), {}))
    (one, two) = open_sizes(program)
    assert one == two
    assert all(one)


LAYERS: dict[str, Callable[[], nn.RNNBase]] = {
    "gru": lambda: nn.GRU(3, 4, batch_first=True),
    "gru of two layers": lambda: nn.GRU(3, 4, num_layers=2),
    "gru both ways": lambda: nn.GRU(3, 4, batch_first=True, bidirectional=True),
    "gru without biases": lambda: nn.GRU(3, 4, bias=False),
    "lstm": lambda: nn.LSTM(3, 4, batch_first=True),
    "lstm of two layers, both ways": lambda: nn.LSTM(
        3, 4, num_layers=2, bidirectional=True, bias=False
    ),
    "rnn": lambda: nn.RNN(3, 4, batch_first=True),
    "rnn of relu, both ways": lambda: nn.RNN(
        3, 4, num_layers=2, nonlinearity="relu", bidirectional=True
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_steps_takes_any_number(name: str) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LAYERS[name]()

        def forward(self, history: Tensor) -> tuple[Tensor, ...]:
            out, last = self.layer(history)
            return (out, last) if isinstance(last, Tensor) else (out, *last)

    torch.manual_seed(0)
    module = Steps()
    mix(module)
    graph = export_module(module, (torch.rand(3, 5, 3),))
    assert graph.notes == ()
    session = ops.session(graph.plain.SerializeToString(), fused=False)
    double = copy.deepcopy(module).double()
    for n, t in itertools.product((1, 2, 6), (1, 2, 5, 13)):
        x = torch.rand((n, t, 3) if module.layer.batch_first else (t, n, 3))
        got = session.run(None, {graph.names[0]: x.numpy()})
        wanted = double(x.double())
        for one, other in zip(got, wanted, strict=True):
            # a state of ReLUs grows from step to step, and its rounding with it
            most = max(1.0, float(other.detach().abs().max()))
            np.testing.assert_allclose(one, other.detach(), rtol=1e-5, atol=1e-5 * most)


def test_a_layer_that_projects_its_states_is_left_to_torch() -> None:
    states = [torch.zeros(1, 2, 3), torch.zeros(1, 2, 5)]
    assert not is_whole((torch.zeros(2, 4, 3), states, []))
    assert not is_whole((torch.zeros(8, 3), torch.zeros(4), states[0]))  # packed
    assert is_whole((torch.zeros(2, 4, 3), states[:1], []))


aten = torch.ops.aten
DRAWS = torch.Generator().manual_seed(0)
Q, K, V = torch.randn(3, 3, 2, 5, 4, dtype=torch.float64, generator=DRAWS)
ANY = torch.rand(3, 1, 5, 5, generator=DRAWS) > 0.5
ANY[0, 0, :2] = False  # queries that are masked everywhere
LOWERED = torch.zeros(ANY.shape, dtype=torch.float64).masked_fill(~ANY, -torch.inf)
AT = torch.tensor([[-2.0, 0.0, torch.nan], [1.0, torch.inf, 0.5]])
BOUNDS = torch.tensor([-torch.inf, 0.0, 0.0, 0.5, torch.inf])
SORTED = torch.tensor([[0.0, 1.0, 3.0], [-1.0, 0.5, 0.5]])
ATTEND = aten.scaled_dot_product_attention.default
REPEATS = torch.tensor([1, 0, 3, 2])
DOUBLE, SIX = torch.float64, {"output_size": 6}
CALLS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "attention": (ATTEND, (Q, K, V), {}),
    "of one head": (
        ATTEND,
        (Q[:, 0], K[:, 0], V[:, 0]),
        {"scale": 0.3},
    ),
    "of one row": (
        ATTEND,
        (Q[0, 0], K[0, 0], V[0, 0]),
        {},
    ),
    "causal": (
        ATTEND,
        (Q, K[:, :, :3], V[:, :, :3], None, 0.0, True),
        {},
    ),
    "masked": (ATTEND, (Q, K, V, ANY), {}),
    "masked by floats": (
        ATTEND,
        (Q, K, V, LOWERED),
        {},
    ),
    "of shared heads": (
        ATTEND,
        (Q, K[:, :1], V[:, :1], ANY),
        {"enable_gqa": True},
    ),
    "listed": (aten.isin.Tensor_Tensor, (AT, BOUNDS), {}),
    "not listed": (aten.isin.Tensor_Tensor, (AT, BOUNDS), {"invert": True}),
    "listed nowhere": (aten.isin.Tensor_Tensor, (AT, BOUNDS[:0]), {}),
    "searched": (aten.searchsorted.Tensor, (BOUNDS, AT), {}),
    "searched from the right": (
        aten.searchsorted.Tensor,
        (BOUNDS, AT),
        {"right": True},
    ),
    "a side": (
        aten.searchsorted.Tensor,
        (BOUNDS, AT),
        {"side": "right", "out_int32": True},
    ),
    "rows of bounds": (aten.searchsorted.Tensor, (SORTED, AT), {}),
    "products": (aten.cumprod.default, (Q, -2), {}),
    "products of floats": (aten.cumprod.default, (REPEATS, 0), {"dtype": DOUBLE}),
    "owners": (aten.repeat_interleave.Tensor, (REPEATS,), {"output_size": 6}),
    "rows": (aten.repeat_interleave.self_Tensor, (BOUNDS[:4], REPEATS), SIX),
    "columns": (aten.repeat_interleave.self_Tensor, (Q[0, 0, :4].T, REPEATS, 1), SIX),
    "order": (aten.argsort.stable, (REPEATS,), {"stable": True, "descending": True}),
    "order of columns": (aten.argsort.stable, (Q,), {"stable": True, "dim": 1}),
    "stacked numbers": (aten.hstack.default, ([BOUNDS[0], BOUNDS[1]],), {}),
    "stacked": (aten.hstack.default, ([BOUNDS, AT.reshape(-1)],), {}),
    "stacked columns": (aten.hstack.default, ([Q, Q],), {}),
}


def _by_batch(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    """Heads in the batch, as in transformers of old."""

    def heads(x: Tensor) -> Tensor:
        return torch.cat(torch.split(x, 2, dim=-1), dim=0)

    k = net.e(history)
    scores = heads(net.e(item)[:, None]) @ heads(k).transpose(1, 2)
    scores = scores.masked_fill((history == 0).repeat(2, 1)[:, None], -1e9)
    made = torch.cat(torch.chunk(scores.softmax(-1) @ heads(k), 2, dim=0), -1)
    return net.logit(net.e(item), made.squeeze(1))  # type: ignore[no-any-return]


def _both(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    """Two lists of candidates in one pass."""
    items, histories = torch.cat([item, item.flip(0)]), torch.cat([history, history])
    k = net.e(histories)
    weights = net.score(net.e(items), k) * (histories != 0)
    scores = net.logit(net.e(items), pool(weights, k))
    first, second = torch.split(scores, item.shape[0])
    third, fourth = scores.split([item.shape[0], item.shape[0]])
    made: Tensor = first - second + third + fourth
    return made


def _halves(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    k, more = net.e(torch.cat([history, history.flip(1)], 1)).chunk(2, dim=1)
    weights = net.score(net.e(item), k) * (history != 0)
    made: Tensor = net.logit(net.e(item), pool(weights, k + 0.5 * more))
    return made


def _stacked(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    k, v = torch.stack([net.e(history), net.e((history + 1) % 30)], 2).unbind(2)
    weights = net.score(net.e(item), k) * (history != 0)
    both = torch.hstack([net.e(item), pool(weights, v)])
    made: Tensor = net.logit(*both.split(4, -1))
    return made


def _moved(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    """Padding moved to the end, and back, by stable sorts."""
    order = torch.argsort(history == 0, dim=1, stable=True)
    flags, _ = torch.sort(history == 0, dim=1)
    k = net.e(history.gather(1, order))
    weights = net.score(net.e(item), k) * (~flags)
    made: Tensor = net.logit(net.e(item), pool(weights, k))
    return made


def _decayed(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    k = net.e(history)
    age = torch.full(history.shape, 0.9).cumprod(1)
    weights = net.score(net.e(item), k) * (history != 0) * age
    made: Tensor = net.logit(net.e(item), pool(weights, k))
    return made


def _assigned(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
    there = history != 0
    k = net.e(history)
    weights = torch.zeros(history.shape, dtype=k.dtype)
    weights[there] = net.score(net.e(item), k)[there]
    made: Tensor = net.logit(net.e(item), pool(weights, k))
    return made


IDIOMS = {
    "heads in the batch": _by_batch,
    "two lists of candidates": _both,
    "halves of a history": _halves,
    "stacked": _stacked,
    "padding moved": _moved,
    "decayed": _decayed,
    "assigned by a mask": _assigned,
}


@pytest.mark.parametrize("name", IDIOMS)
def test_idioms_convert_for_every_size(name: str, tmp_path: Path) -> None:
    net = Net(IDIOMS[name])
    x = ids(4, 6, 0)
    convert(net, tmp_path / "m.onnx", example_inputs=x)  # the rules of files, too
    check(export_module(net, x), ids, (4, 6))


def test_parametrizations_are_constants(tmp_path: Path) -> None:
    net = Net(_halves)
    wanted = net(*ids(4, 6, 0))
    for part in (p for p in net.modules() if isinstance(p, nn.Linear)):
        if part.weight.shape[0] <= part.weight.shape[1]:
            nn.utils.parametrizations.orthogonal(part)
    mine = net(*ids(4, 6, 0)).detach()
    assert not torch.allclose(mine, wanted)
    convert(net, tmp_path / "m.onnx", example_inputs=ids(4, 6, 0))
    item, history = (x.numpy() for x in ids(4, 6, 0))
    scored = Predictor(tmp_path / "m.onnx", device="cpu")
    got = scored.score_encoded({"item": item, "history": history})
    np.testing.assert_allclose(got, mine, atol=1e-5)
    np.testing.assert_array_equal(net(*ids(4, 6, 0)).detach(), mine)  # it is as it was


class _Bags(nn.Module):
    def __init__(self, *, is_closed: bool) -> None:
        super().__init__()
        self.is_closed = is_closed
        self.e = nn.Embedding(30, 4)
        self.bag = nn.EmbeddingBag(30, 4, mode="sum", include_last_offset=is_closed)
        self.out = nn.Linear(8, 1)

    def forward(self, item: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
        both = [self.e(item), self.bag(values, offsets)]
        made: Tensor = self.out(torch.cat(both, -1)).squeeze(-1)
        return made


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("is_closed", [False, True])
def test_offsets_of_bags_are_drawn_as_offsets(
    rows: int, is_closed: bool, tmp_path: Path
) -> None:
    """torch follows others out of its memory, which ends the process."""
    starts = torch.tensor([0, 2, 3, 3][:rows] + [5] * is_closed)
    x = {"item": torch.arange(3, 3 + rows), "values": torch.arange(5)}
    torch.manual_seed(0)
    module = _Bags(is_closed=is_closed).eval()
    example = x | {"offsets": starts}
    report = convert(module, tmp_path / "m.onnx", example_inputs=example)
    assert len(report.cases) > 2
    sizes = {case.rows for case in report.cases}
    assert sizes >= {1, 2, 7} if rows > 1 else sizes == {1}  # one row fixes the batch


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e = nn.Embedding(30, 4, padding_idx=0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.out = nn.Linear(8, 1)

    def forward(self, item: Tensor, history: Tensor) -> Tensor:
        k = self.encoder(self.e(history), src_key_padding_mask=history == 0)
        made: Tensor = self.out(torch.cat([self.e(item), k.mean(1)], -1)).squeeze(-1)
        return made


@pytest.mark.filterwarnings("ignore:.*nested tensor")
@pytest.mark.filterwarnings("ignore:.*Transformer is not in")
@pytest.mark.parametrize("padded", [False, True])
def test_torch_s_fast_path_of_attention_is_not_taken_silently(
    padded: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = _Encoder().eval()
    item, history = ids(4, 6, 0)
    example = item, history if padded else history.clamp(min=1)
    with pytest.raises(ConversionError) as caught:
        convert(module, tmp_path / "m.onnx", example_inputs=example)
    assert "set_fastpath_enabled(False)" in caught.value.fix
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        convert(module, tmp_path / "m.onnx", example_inputs=example)
        with torch.inference_mode():
            wanted = module(item, history)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    scored = Predictor(tmp_path / "m.onnx", device="cpu")
    got = scored.score_encoded({"item": item.numpy(), "history": history.numpy()})
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_lists_of_one_id_are_remarked_on(tmp_path: Path) -> None:
    def run(net: Any, item: Tensor, sessions: Tensor) -> Tensor:  # noqa: ANN401
        q = net.e(item)
        parts = [sessions[:, i] for i in range(3)]
        pooled = [pool(net.score(q, net.e(h)) * (h != 0), net.e(h)) for h in parts]
        made: Tensor = net.logit(q, sum(pooled))
        return made

    x = torch.tensor([1, 2]), torch.tensor([[[1], [2], [3]], [[4], [5], [0]]])
    notes = convert(Net(run), tmp_path / "m.onnx", example_inputs=x).notes
    assert "the module fixes the size of history: 3 lists a row" in notes
    assert "history has 1 id a list, as in the example: give one of two or more" in str(
        notes
    )


@pytest.mark.parametrize("name", CALLS)
def test_what_is_rewritten_gives_what_torch_gives(name: str) -> None:
    operator, args, options = CALLS[name]
    wanted = operator(*args, **options)
    got = REWRITTEN[operator](*args, **options)
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    if "mask" in name:
        assert (got[0, :, :2] == 0).all()


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, math.inf])
def test_distances_are_torch_s(p: float) -> None:
    x, y = Q[:, 0], V[:, 1, :3]
    wanted = torch.cdist(x, y, p)
    with Rewrites():
        got = torch.cdist(x, y, p=p)
        apart = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(apart, torch.cdist(x, y), rtol=1e-12, atol=1e-12)


def test_rrelu_has_its_middle_slope() -> None:
    layer = nn.RReLU(0.1, 0.5).eval()
    changed = Q.clone()
    with Rewrites():
        got = layer(Q)
        F.rrelu(changed, 0.1, 0.5, inplace=True)
    np.testing.assert_allclose(got, layer(Q), rtol=1e-12)
    np.testing.assert_allclose(changed, layer(Q), rtol=1e-12)


def test_what_cannot_be_rewritten_is_left_to_torch() -> None:
    assert REWRITTEN[ATTEND](Q, K, V, dropout_p=0.5) is NotImplemented
    order = torch.argsort(BOUNDS)
    searched = REWRITTEN[aten.searchsorted.Tensor](BOUNDS, AT, sorter=order)
    assert searched is NotImplemented


def test_a_graph_that_a_batch_breaks_names_the_batch(tmp_path: Path) -> None:
    def run(net: Any, item: Tensor, history: Tensor) -> Tensor:  # noqa: ANN401
        k = net.e(history)  # torch takes one position, the exporter two and more
        each = [net.score(net.e(item), k[:, i : i + 1]) for i in range(2)]
        made: Tensor = net.logit(net.e(item), pool(torch.cat(each, 1), k[:, :2]))
        return made

    with pytest.raises(ConversionError) as caught:
        convert(Net(run), tmp_path / "m.onnx", example_inputs=ids(2, 10, 0))
    assert "whose graph ONNX Runtime runs" in str(caught.value)
    assert "at `batch N=1, shortest, " in str(caught.value)

"""What others would run: a textbook DIN and the attention of other libraries.

Each is a torch module from ids, with the weights of the model under test, as it is
written in tutorials: [q, k, q - k, q * k] built for every position, then masked. It is
run by torch and by torch.compile, or exported by torch.onnx.export and run by ONNX
Runtime and by OpenVINO. A rival has no request_of_candidate: every candidate brings a
copy of its user along.
"""

import copy
import logging
import warnings
from collections.abc import Callable
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.graphs import Inputs
from benchmarks.timing import Check, Contestant, UnavailableError, within
from din_converter import DIN, Dice
from din_converter.layers import Layer, Mlp

__all__ = [
    "ATTENTION_INPUTS",
    "MODEL_INPUTS",
    "AttentionFromIds",
    "Rivals",
    "layers_of",
    "mask_of",
    "textbook_attention",
    "textbook_din",
]

CHECK = within(1e-4)
USER_SIDE = ("user_id", "hist_goods_id", "hist_cate_id", "history.lengths")
ATTENTION_INPUTS = (
    "goods_id",
    "cate_id",
    "hist_goods_id",
    "hist_cate_id",
    "history.lengths",
)
MODEL_INPUTS = ("user_id", *ATTENTION_INPUTS)


class TextbookDice(nn.Module):
    """Dice on its running statistics, written out."""

    def __init__(self, dice: Dice) -> None:
        super().__init__()
        self.epsilon, self.alpha = dice.norm.eps, dice.alpha
        self.mean = nn.Buffer(cast("Tensor", dice.norm.running_mean))
        self.variance = nn.Buffer(cast("Tensor", dice.norm.running_var))

    def forward(self, x: Tensor) -> Tensor:
        """Activate float [.., H]."""
        deviation = torch.sqrt(self.variance + self.epsilon)
        p = torch.sigmoid((x - self.mean) / deviation)
        return p * x + (1 - p) * self.alpha * x


def layers_of(mlp: Mlp) -> list[tuple[nn.Linear, Dice]]:
    """List the hidden layers."""
    layers = cast("list[Layer]", list(mlp.hidden))
    return [(layer.linear, cast("Dice", layer.activation)) for layer in layers]


def textbook_mlp(mlp: Mlp) -> nn.Sequential:
    """Linear, Dice, .., Linear: float [.., W] to float [.., 1], same weights."""
    modules: list[nn.Module] = []
    for linear, dice in layers_of(mlp):
        modules += [linear, TextbookDice(dice)]
    return nn.Sequential(*modules, mlp.output)


def mask_of(behavior: Tensor, lengths: Tensor) -> Tensor:
    """Float [N, T]: 1 where the position is a behavior."""
    positions = torch.arange(behavior.shape[1], device=lengths.device)
    return (positions < lengths.unsqueeze(1)).to(behavior.dtype)


class TextbookAttention(nn.Module):
    """Local activation as one writes it first."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.mlp = textbook_mlp(mlp)

    def forward(self, query: Tensor, behavior: Tensor, lengths: Tensor) -> Tensor:
        """Attend: float [N, D], float [N, T, D], int64 [N] to float [N, D]."""
        q = query.unsqueeze(1).expand(-1, behavior.shape[1], -1)
        pairs = torch.cat([q, behavior, q - behavior, q * behavior], dim=-1)
        weight = self.mlp(pairs).squeeze(-1) * mask_of(behavior, lengths)
        interest: Tensor = (weight.unsqueeze(1) @ behavior).squeeze(1)
        return interest


class AttentionFromIds(nn.Module):
    """Embedding look-ups, then any attention over [N, D] and [N, T, D]."""

    def __init__(self, model: DIN, attention: nn.Module) -> None:
        super().__init__()
        self.goods = model.tables["of_goods_id"]
        self.cates = model.tables["of_cate_id"]
        self.attention = attention

    def look_up(self, goods: Tensor, cates: Tensor) -> Tensor:
        """Ids int64 [..] to float [.., D]."""
        return torch.cat([self.goods(goods), self.cates(cates)], dim=-1)

    def forward(
        self,
        goods: Tensor,
        cates: Tensor,
        hist_goods: Tensor,
        hist_cates: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """Ids int64 [N] and [N, T] to the interest, float [N, D]."""
        query = self.look_up(goods, cates)
        behavior = self.look_up(hist_goods, hist_cates)
        interest: Tensor = self.attention(query, behavior, lengths)
        return interest


class TextbookDIN(nn.Module):
    """The whole DIN as one writes it first."""

    def __init__(self, model: DIN) -> None:
        super().__init__()
        self.users = model.tables["of_user_id"]
        self.interest = textbook_attention(model)
        self.tower = textbook_mlp(model.tower)

    def forward(
        self,
        users: Tensor,
        goods: Tensor,
        cates: Tensor,
        hist_goods: Tensor,
        hist_cates: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """Ids int64 [N] and [N, T] to scores, float [N]."""
        query = self.interest.look_up(goods, cates)
        interest = self.interest(goods, cates, hist_goods, hist_cates, lengths)
        x = torch.cat([self.users(users), query, interest], dim=-1)
        return torch.sigmoid(self.tower(x)).squeeze(-1)


def textbook_attention(model: DIN) -> AttentionFromIds:
    """Write the attention of a model as a textbook would, with its weights."""
    mlp = model.attentions["of_history"].mlp
    return AttentionFromIds(model, TextbookAttention(cast("Mlp", mlp))).eval()


def textbook_din(model: DIN) -> TextbookDIN:
    """Write the whole model as a textbook would, with its weights."""
    return TextbookDIN(model).eval()


@cache  # one function for all who want the same inputs, so that they share them
def expand(names: tuple[str, ...]) -> Callable[[Inputs], tuple[NDArray[Any], ...]]:
    """Pick inputs in order, giving every candidate a copy of its user."""

    def prepare(inputs: Inputs) -> tuple[NDArray[Any], ...]:
        request = inputs["request_of_candidate"]
        shared = len(inputs["history.lengths"]) != len(request)
        return tuple(
            inputs[n][request] if shared and n in USER_SIDE else inputs[n]
            for n in names
        )

    return prepare


class Rivals:
    """The ways to run one torch module, as contestants.

    Parameters
    ----------
    module : Module
        Takes ids by position, float32, in evaluation mode.
    names : tuple of str
        The input behind each position.
    path : path
        The ``.onnx`` that its export becomes.
    threads : int
        What every runtime gets.
    """

    def __init__(
        self, module: nn.Module, names: tuple[str, ...], path: Path, threads: int
    ) -> None:
        self.module, self.names = module, names
        self.path, self.threads = path, threads
        self.arrays = expand(names)
        self.tensors = _as_tensors(self.arrays)

    def entries(self) -> dict[str, Callable[[], Contestant]]:
        """Every way to run it, by key."""
        return {
            "plain": self.plain,
            "eager": self.eager,
            "compile": self.compiled,
            "openvino": partial(self.openvino, "f32", CHECK),
            "openvino-static": partial(self.openvino, "f32", CHECK, static=True),
            "openvino-bf16": partial(self.openvino, "bf16", within(None)),
        }

    def eager(self, label: str = "torch eager") -> Contestant:
        """Run by torch, operator by operator."""
        return Contestant(label, self.tensors, _inference(self.module), CHECK)

    def compiled(self) -> Contestant:
        """Run by torch.compile, for each shape anew: its best case."""
        compiled = torch.compile(self.module, dynamic=False)
        return Contestant("torch.compile", self.tensors, _inference(compiled), CHECK)

    def plain(self, label: str = "plain export, ONNX Runtime") -> Contestant:
        """Run the plain export by ONNX Runtime, all graph optimizations on."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(
            self.exported, options, providers=["CPUExecutionProvider"]
        )

        def run(arrays: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
            feed = dict(zip(self.names, arrays, strict=True))
            out: NDArray[np.float32] = session.run(None, feed)[0]
            return out

        return Contestant(label, self.arrays, run, CHECK)

    def openvino(
        self, precision: str, check: Check, *, static: bool = False
    ) -> Contestant:
        """Run the plain export by OpenVINO, in the precision it is given as a hint.

        `static` compiles it for each shape anew: its best case.
        """
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }

        @cache
        def compiled(*shapes: tuple[int, ...]) -> Any:  # noqa: ANN401
            model = core.read_model(self.exported)
            if shapes:
                model.reshape(dict(zip(self.names, shapes, strict=True)))
            ready = core.compile_model(model, "CPU", settings)
            return ready, ready.create_infer_request()

        chosen = compiled()[0].get_property("INFERENCE_PRECISION_HINT").to_string()
        if chosen != precision:
            message = f"on this CPU OpenVINO computes in {chosen}, not {precision}"
            raise UnavailableError(message)

        def run(arrays: tuple[NDArray[Any], ...]) -> NDArray[np.float32]:
            shapes = [a.shape for a in arrays] if static else []
            feed = dict(zip(self.names, arrays, strict=True))
            request = compiled(*shapes)[1]
            result = request.infer(feed, share_inputs=True, share_outputs=True)
            out: NDArray[np.float32] = result[0]
            return out

        label = f"OpenVINO {precision}{', static shapes' if static else ''}"
        return Contestant(label, self.arrays, run, check)

    @cached_property
    def exact(self) -> Callable[[Inputs], NDArray[np.float64]]:
        """The same module in float64, for one that has no other reference."""
        run = _inference(copy.deepcopy(self.module).double())
        return lambda inputs: run(self.tensors(inputs))

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Inputs to export with."""
        wide = [name.startswith("hist_") for name in self.names]
        return tuple(torch.ones((3, 7) if w else (3,), dtype=torch.int64) for w in wide)

    @cached_property
    def exported(self) -> str:
        """Path of the module as torch.onnx.export writes it, N and T dynamic."""
        n, t = torch.export.Dim("N"), torch.export.Dim("T")
        wide = [name.startswith("hist_") for name in self.names]
        # it logs a line for every operator of packages that are not installed
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                self.module,
                self.example,
                dynamo=True,
                input_names=list(self.names),
                dynamic_shapes=tuple({0: n, 1: t} if w else {0: n} for w in wide),
                verbose=False,
            )
        if program is None:
            message = "torch.onnx.export returned nothing"
            raise RuntimeError(message)
        program.save(self.path, external_data=True)
        return str(self.path)


@cache
def _as_tensors(
    prepare: Callable[[Inputs], tuple[NDArray[Any], ...]],
) -> Callable[[Inputs], tuple[Tensor, ...]]:
    return lambda inputs: tuple(torch.from_numpy(a) for a in prepare(inputs))


def _inference(
    module: Callable[..., Tensor],
) -> Callable[[tuple[Tensor, ...]], NDArray[Any]]:
    def run(tensors: tuple[Tensor, ...]) -> NDArray[Any]:
        with torch.inference_mode():
            return module(*tensors).numpy()

    return run

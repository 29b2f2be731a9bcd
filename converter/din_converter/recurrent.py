"""Layers that read a history step by step, nn.GRU and its like -> ONNX's, for any T.

What torch's exporter traces of one is a loop over the example's steps. So `RECURRENT`
has operators that stand for them in a program, and `TRANSLATIONS` says what they are
in ONNX. Letters: N rows, T steps, D features, H units of a layer.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor

__all__ = ["RECURRENT", "TRANSLATIONS", "is_whole"]

op: Any = opset18


def is_whole(args: Sequence[Any]) -> bool:
    """Whether a layer reads padded rows, no packed ones, and projects no states."""
    if not isinstance(args[2], list | tuple):
        return False
    states = [args[1]] if isinstance(args[1], Tensor) else args[1]
    return len({state.shape[2] for state in states}) == 1


def _recurrent(name: str, run: Callable[..., Any], state: str, outputs: str) -> Any:  # noqa: ANN401
    """Make the operator that stands for a layer."""

    def compute(*args: Any) -> Any:  # noqa: ANN401
        return tuple(t.clone() for t in run(*args))

    def shapes(x: Tensor, states: Any, *options: Any) -> Any:  # noqa: ANN401
        states = [states] if isinstance(states, Tensor) else states
        width = states[0].shape[2] * (2 if options[-2] else 1)
        made = x.new_empty(*x.shape[:2], width)
        return (made, *(torch.empty_like(s) for s in states))

    schema = f"(Tensor x, {state}, Tensor[] weights, bool has_biases, int num_layers, "
    schema += "float dropout, bool train, bool bidirectional, bool batch_first) -> "
    made = torch.library.custom_op(
        f"din_converter::{name}", compute, mutates_args=(), schema=schema + outputs
    )
    made.register_fake(shapes)
    return made


RECURRENT: dict[Any, Any] = {
    run: _recurrent(name, run, *kinds)
    for name, run, *kinds in (
        ("gru", torch.gru, "Tensor state", "(Tensor, Tensor)"),
        ("rnn_tanh", torch.rnn_tanh, "Tensor state", "(Tensor, Tensor)"),
        ("rnn_relu", torch.rnn_relu, "Tensor state", "(Tensor, Tensor)"),
        ("lstm", torch.lstm, "Tensor[] states", "(Tensor, Tensor, Tensor)"),
    )
}


def _gru(x: Any, w: Any, r: Any, b: Any, *begun: Any, **more: Any) -> Any:  # noqa: ANN401
    # torch applies the reset gate behind the product with the state
    return op.GRU(x, w, r, b, None, *begun, linear_before_reset=1, **more)


def _lstm(x: Any, w: Any, r: Any, b: Any, *begun: Any, **more: Any) -> Any:  # noqa: ANN401
    return op.LSTM(x, w, r, b, None, *begun, **more)


def _rnn(name: str) -> Callable[..., Any]:
    def layer(x: Any, w: Any, r: Any, b: Any, *begun: Any, **more: Any) -> Any:  # noqa: ANN401
        names = [name] * (1 if more["direction"] == "forward" else 2)
        return op.RNN(x, w, r, b, None, *begun, activations=names, **more)

    return layer


def _written(layer: Callable[..., Any], *gates: int) -> Callable[..., Any]:
    """Return what writes layers above each other in ONNX.

    `gates` says which of torch's each of ONNX's is: z, r, n of r, z, n.
    """

    def write(
        x: Any,  # noqa: ANN401
        states: Any,  # noqa: ANN401
        weights: Sequence[Any],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:  # noqa: ANN401
        del dropout, train
        states = states if isinstance(states, list | tuple) else [states]
        ways, parts = (2 if bidirectional else 1), (4 if has_biases else 2)
        size = states[0].shape[2]

        def turned(w: Any) -> Any:  # noqa: ANN401 - [gates * H, ..] in ONNX's order
            ends = [([g * size], [(g + 1) * size], [0]) for g in gates]
            return op.Concat(*(op.Slice(w, *end) for end in ends), axis=0)

        def stacked(values: Iterable[Any]) -> Any:  # noqa: ANN401
            return op.Concat(*(op.Unsqueeze(v, [0]) for v in values), axis=0)

        direction = "bidirectional" if bidirectional else "forward"
        last: list[list[Any]] = [[] for _ in states]
        x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x  # [T, N, D]
        for first in range(0, num_layers * ways, ways):
            own = [weights[i * parts :][:parts] for i in range(first, first + ways)]
            w, r = (stacked(turned(of[i]) for of in own) for i in (0, 1))
            b = None
            if has_biases:
                both = ((turned(of[2]), turned(of[3])) for of in own)
                b = stacked(op.Concat(*pair, axis=0) for pair in both)
            begun = [op.Slice(s, [first], [first + ways], [0]) for s in states]
            # [T, ways, N, H], and the last states
            made, *ends = layer(
                x, w, r, b, *begun, hidden_size=size, direction=direction
            )
            x = op.Reshape(op.Transpose(made, perm=[0, 2, 1, 3]), [0, 0, -1])
            for kept, end in zip(last, ends, strict=False):  # a GRU has no cells
                kept.append(end)
        x = op.Transpose(x, perm=[1, 0, 2]) if batch_first else x
        return (x, *(op.Concat(*kept, axis=0) for kept in last))

    return write


TRANSLATIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.din_converter.gru.default: _written(_gru, 1, 0, 2),
    torch.ops.din_converter.rnn_tanh.default: _written(_rnn("Tanh"), 0),
    torch.ops.din_converter.rnn_relu.default: _written(_rnn("Relu"), 0),
    torch.ops.din_converter.lstm.default: _written(_lstm, 0, 3, 1, 2),
}

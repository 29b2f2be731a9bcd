"""Operators that torch's exporter gets wrong, makes loops of or fixes the sizes of.

`Rewrites` and `Cuts` replace them while a module is exported, `rewritten` in a program.
Above 400 lines: a table of operators, each with a function that stands alone.
"""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from din_converter.quiet import quiet
from din_converter.recurrent import RECURRENT, is_whole

__all__ = ["Cuts", "Rewrites", "rewritten"]


class Rewrites(TorchFunctionMode):
    """Computes bags, distances, layers of steps and fills in forms that stay open."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        del types
        kwargs = kwargs or {}
        if func is F.embedding_bag:
            given = inspect.signature(F.embedding_bag).bind(*args, **kwargs)
            given.apply_defaults()
            if _is_plain_bag(given.arguments):
                return _bag(given.arguments)
        if func is F.rrelu:
            given = inspect.signature(F.rrelu).bind(*args, **kwargs)
            given.apply_defaults()
            x, lower, upper, training, inplace = given.arguments.values()
            if not training:
                return F.leaky_relu(x, (lower + upper) / 2, inplace=inplace)
        if func is torch.cdist:  # by itself it branches on a size of 25
            return _distances(*args, **kwargs)
        if func in RECURRENT and is_whole(args):
            return RECURRENT[func](*args)
        if func is Tensor.__setitem__ and _is_fill(*args):
            x, mask, value = args
            wide = mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))
            x.masked_fill_(wide, value)
            return None
        return func(*args, **kwargs)


def _distances(
    x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None
) -> Tensor:
    del compute_mode
    made: Tensor = torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)
    return made


def _is_fill(x: Tensor, mask: object, value: object) -> bool:
    """Whether a mask of the first axes of floats is set to one number."""
    if not (isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.ndim):
        return False
    if not x.dtype.is_floating_point or mask.shape != x.shape[: mask.ndim]:
        return False  # to compare the shapes tells torch that they are equal, too
    return isinstance(value, int | float)


class Cuts(TorchFunctionMode):
    """Takes ``x[:, :50]`` and ``x[:, -50:]`` of any length, as Python does.

    For torch's exporter, whether there are 50 is a branch: it refuses what takes the
    other one.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        del types
        if func is Tensor.__getitem__:
            args = (args[0], _cut(*args))
        return func(*args, **(kwargs or {}))


def _cut(x: Tensor, index: Any) -> Any:  # noqa: ANN401
    """Bound the ends of slices by the size that they cut."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(p is None or isinstance(p, int | slice | EllipsisType) for p in parts):
        return index
    axis, left = 0, x.ndim - sum(isinstance(p, int | slice) for p in parts)
    for i, part in enumerate(parts):
        if isinstance(part, slice) and isinstance(x.shape[axis], torch.SymInt):
            size = x.shape[axis]
            start, stop = _bounded(part.start, size), _bounded(part.stop, size)
            parts[i] = slice(start, stop, part.step)
        axis += left if part is Ellipsis else part is not None
    return tuple(parts)


def _bounded(end: Any, size: Any) -> Any:  # noqa: ANN401 - an end, and a symbol's size
    if type(end) is not int or end == 0:
        return end
    smaller: Any = torch.sym_min  # they have no types
    larger: Any = torch.sym_max
    return smaller(size, end) if end > 0 else larger(size + end, 0)


def _is_plain_bag(given: Mapping[str, Any]) -> bool:
    if given["max_norm"] is not None:
        return False
    return bool(given["input"].ndim == 2) == (given["offsets"] is None)


def _bag(given: Mapping[str, Any]) -> Tensor:
    """As torch: padding counts for nothing, and a bag of padding alone is zeros.

    Bags are rows of ids [N, T]; or runs of ids [M], which begin at `offsets` [N].
    """
    ids, mode, padding = given["input"], given["mode"], given["padding_idx"]
    weights, starts = given["per_sample_weights"], given["offsets"]
    rows = F.embedding(ids, given["weight"])
    if weights is not None:
        rows = rows * weights.unsqueeze(-1)
    made: Tensor
    if padding is None and starts is None:
        made = rows.amax(1) if mode == "max" else getattr(rows, mode)(1)
        return made
    there = torch.ones_like(ids, dtype=torch.bool)
    if padding is not None:
        there = ids != (padding + len(given["weight"]) if padding < 0 else padding)
    if starts is not None:  # which bags have which ids, [N, M]
        starts = starts[:-1] if given["include_last_offset"] else starts
        begun = torch.arange(ids.shape[0]) >= starts.unsqueeze(1)
        last = torch.arange(starts.shape[0]).unsqueeze(1) == begun.sum(0) - 1
        there = there & last
        if mode != "max":
            total = there.to(rows.dtype) @ rows
            count = there.sum(1, keepdim=True).clamp(min=1)
            made = total if mode == "sum" else total / count
            return made
        rows = rows.unsqueeze(0)
    there = there.unsqueeze(-1)
    if mode == "max":
        most = torch.where(there, rows, float("-inf")).amax(1)
        return torch.where(there.any(1), most, 0.0)
    total = torch.where(there, rows, 0.0).sum(1)
    return total if mode == "sum" else total / there.sum(1).clamp(min=1)


def _repeated(x: Tensor, repeats: Any, dim: int | None = None, **_: Any) -> Tensor:  # noqa: ANN401
    """Repeat every element, `repeats` one number: what torch's exporter gets wrong."""
    x, dim = (x.reshape(-1), 0) if dim is None else (x, dim % x.ndim)
    wide = x.unsqueeze(dim + 1)
    shape = [*x.shape[: dim + 1], repeats, *x.shape[dim + 1 :]]
    return wide.expand(shape).flatten(dim, dim + 1)


def _put(
    x: Tensor, places: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Any:  # noqa: ANN401
    """Read ``x[mask] = number`` as torch.where, which has no computed size."""
    (mask, *more) = places
    if mask is None or mask.dtype != torch.bool or mask.shape != x.shape:
        return NotImplemented
    count = values.numel()  # no int, of what values decide
    if more or accumulate or not _is_fixed(count) or count != 1:
        return NotImplemented
    return torch.where(mask, values.reshape(()), x)


def _bag_of_runs(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, ...]:
    """Compute what is an operator in a program; only the first output is used."""
    del scale_grad_by_freq, sparse
    given = {
        "input": indices,
        "weight": weight,
        "offsets": offsets if indices.ndim == 1 else None,
        "mode": ("sum", "mean", "max")[mode],
        "per_sample_weights": per_sample_weights,
        "include_last_offset": include_last_offset,
        "padding_idx": None if padding_idx is None or padding_idx < 0 else padding_idx,
    }
    made = _bag(given)
    return made, offsets, offsets, offsets


def _attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:  # noqa: ANN401
    """Compute scaled_dot_product_attention, of any rank, as torch does.

    The weights of a query that is masked everywhere are 0, where a softmax gives NaN;
    torch's exporter takes four axes alone. The least number does what -inf does.
    """
    if dropout_p:
        return NotImplemented
    least = torch.finfo(query.dtype).min
    if enable_gqa:
        each = query.shape[-3] // key.shape[-3]
        key, value = (_repeated(t, each, -3) for t in (key, value))
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.transpose(-2, -1) * factor
    if is_causal:
        rows, columns = torch.arange(query.shape[-2]), torch.arange(key.shape[-2])
        scores = torch.where(rows.unsqueeze(1) >= columns, scores, least)
    if attn_mask is None:
        weights = scores.softmax(-1)
    elif attn_mask.dtype == torch.bool:
        weights = torch.where(attn_mask, scores, least).softmax(-1)
        weights = torch.where(attn_mask.any(-1, keepdim=True), weights, 0.0)
    else:
        scores = scores + attn_mask
        nothing = (scores == float("-inf")).all(-1, keepdim=True)
        weights = torch.where(nothing, 0.0, scores.softmax(-1))
    return weights @ value


def _is_in(
    elements: Tensor,
    test_elements: Tensor,
    *,
    assume_unique: bool = False,
    invert: bool = False,
) -> Tensor:
    """Compare with each of a list, where torch searches in the sorted list."""
    del assume_unique
    found = (elements.unsqueeze(-1) == test_elements.reshape(-1)).any(-1)
    return ~found if invert else found


def _searched(
    sorted_sequence: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Any:  # noqa: ANN401
    """Count the boundaries below each value, NaN above all: ONNX has no search."""
    if sorter is not None:
        return NotImplemented
    bounds, x = sorted_sequence.unsqueeze(-2), values.unsqueeze(-1)
    above = bounds > x if right or side == "right" else bounds >= x
    return (~above).sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _cut_at(x: Tensor, ends: Sequence[Any], dim: int) -> list[Tensor]:
    """Cut an axis at some places, without a sequence, which is refused in a file."""
    starts = [0, *ends[:-1]]
    return [aten.slice.Tensor(x, dim, a, b) for a, b in zip(starts, ends, strict=True)]


def _is_fixed(size: Any) -> bool:  # noqa: ANN401
    return isinstance(size, int)


def _hint(size: Any) -> int:  # noqa: ANN401
    """Return a size of the example; how many parts it makes is fixed by the program."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _split(x: Tensor, size: Any, dim: int = 0) -> Any:  # noqa: ANN401
    whole = x.shape[dim]
    if _is_fixed(whole) and _is_fixed(size):
        return NotImplemented
    count = -(-_hint(whole) // _hint(size))
    return _cut_at(x, [*(size * (i + 1) for i in range(count - 1)), whole], dim)


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> Any:  # noqa: ANN401
    return _split(x, (x.shape[dim] + chunks - 1) // chunks, dim)


def _split_sizes(x: Tensor, sizes: Sequence[Any], dim: int = 0) -> Any:  # noqa: ANN401
    if all(map(_is_fixed, (x.shape[dim], *sizes))):
        return NotImplemented
    return _cut_at(x, list(itertools.accumulate(sizes)), dim)


def _unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [x.select(dim, i) for i in range(_hint(x.shape[dim]))]


def _hstack(tensors: Sequence[Tensor]) -> Tensor:
    wide = [t.reshape(1) if t.ndim == 0 else t for t in tensors]
    return torch.cat(wide, 0 if wide[0].ndim == 1 else 1)


def _sorted(
    x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Any:  # noqa: ANN401
    """Sort as ONNX's TopK does: of equal values, the first comes first."""
    del stable
    if x.dtype == torch.bool:
        values, order = torch.sort(x.to(torch.int32), dim, descending)
        return values.to(torch.bool), order
    return torch.sort(x, dim, descending)


def _sorted_flags(x: Tensor, dim: int = -1, descending: bool = False) -> Any:  # noqa: ANN401
    if x.dtype != torch.bool:
        return NotImplemented
    return _sorted(x, dim=dim, descending=descending)


def _products(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """Multiply from the first to each, of every one again: ONNX sums alone so."""
    x = (x if dtype is None else x.to(dtype)).movedim(dim, -1)
    places = torch.arange(x.shape[-1])
    made = torch.where(places.unsqueeze(1) >= places, x.unsqueeze(-2), 1)
    return made.prod(-1).movedim(-1, dim)


def _owners(repeats: Tensor, *, output_size: Any = None) -> Any:  # noqa: ANN401
    """Name the element that each of so many places repeats."""
    if output_size is None:
        return NotImplemented
    places = torch.arange(output_size).unsqueeze(-1)
    return (places >= repeats.cumsum(0)).sum(-1)


def _repeated_each(
    x: Tensor,
    repeats: Tensor,
    dim: int | None = None,
    *,
    output_size: Any = None,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    if output_size is None or repeats.ndim != 1 or repeats.shape[0] == 1:
        return NotImplemented
    x, dim = (x.reshape(-1), 0) if dim is None else (x, dim)
    return x.index_select(dim, _owners(repeats, output_size=output_size))


def _order(x: Tensor, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:  # noqa: ANN401
    return _sorted(x, stable=stable, dim=dim, descending=descending)[1]


aten = torch.ops.aten
REWRITTEN: dict[Any, Callable[..., Any]] = {
    aten.repeat_interleave.self_int: _repeated,
    aten.index_put.default: _put,
    aten.scaled_dot_product_attention.default: _attended,
    aten.isin.Tensor_Tensor: _is_in,
    aten.searchsorted.Tensor: _searched,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split_sizes,
    aten.chunk.default: _chunk,
    aten.cumprod.default: _products,
    aten.unbind.int: _unbind,
    aten.hstack.default: _hstack,
    aten.argsort.stable: _order,
    aten.sort.stable: _sorted,
    aten.sort.default: _sorted_flags,
    aten.repeat_interleave.Tensor: _owners,
    aten.repeat_interleave.self_Tensor: _repeated_each,
    aten.embedding_bag.padding_idx: _bag_of_runs,
    aten._embedding_bag_forward_only.default: _bag_of_runs,
    aten._embedding_bag.default: _bag_of_runs,
}
IN_PLACE = (aten.index_put_.default,)


def rewritten(program: ExportedProgram) -> ExportedProgram:
    """Replace operators that torch's exporter to ONNX gets wrong, or makes loops of."""
    if not any(n.target in (*REWRITTEN, *IN_PLACE) for n in program.graph.nodes):
        return program
    with quiet(), _rows_of_bags(program):
        made: ExportedProgram = program.run_decompositions(dict(REWRITTEN))
        return made


@contextlib.contextmanager
def _rows_of_bags(program: ExportedProgram) -> Iterator[None]:
    """Meanwhile, bags of rows [N, T] are called with these, as nn.EmbeddingBag was.

    In a program they are runs of ids [N * T], which begin at 0, T, 2 * T, ..
    """
    changed = []
    for node in program.graph.nodes:
        if node.target is not aten.embedding_bag.padding_idx:
            continue
        weight, runs, starts, *rest = node.args
        rows = runs.args[0] if runs.target in FLATTENED else None
        shape = [] if rows is None else list(rows.meta["val"].shape)
        if len(shape) != 2 or not _is_flat(runs) or not _is_regular(starts, shape[1]):
            continue
        if node.kwargs or rest[4:5] == [True]:  # with a last offset, a bag less
            continue
        if len(rest) > 3 and rest[3] is not None:
            if rest[3].target not in FLATTENED or not _is_flat(rest[3]):
                continue
            rest[3] = rest[3].args[0]
        changed.append((node, node.args))
        node.args = (weight, rows, starts, *rest)
    try:
        yield
    finally:
        for node, args in changed:
            node.args = args


FLATTENED = (aten.reshape.default, aten.view.default)


def _is_flat(node: Any) -> bool:  # noqa: ANN401
    return list(node.args[1]) == [-1]


def _is_regular(starts: Any, step: Any) -> bool:  # noqa: ANN401
    """Whether a node is 0, step, 2 * step, .."""
    if starts.target is not aten.arange.start_step or starts.args[0] != 0:
        return False
    given = starts.args[2]
    given = given.meta["val"] if isinstance(given, torch.fx.Node) else given
    return str(given) == str(step)

"""Rows, weights and files shared by the make_<library>.py scripts.

Each script needs one library in an environment of its own, and writes checkpoints as
that library does, with inputs and the library's own scores beside them.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

T = 6  # history length
TAGS = 3  # tags per row
SIZES = {"user_id": 21, "gender": 3, "goods_id": 41, "shop_id": 11, "cate_id": 7}
SIZES["tag"] = 9
ITEM = ("goods_id", "shop_id", "cate_id")

Arrays = dict[str, NDArray[Any]]


def make_rows(
    count: int = 32, seed: int = 0, *, behind: bool = False, left: bool = False
) -> Arrays:
    """Make rows; the first four have 0, 1, T and T // 2 items, some a 0 inside.

    `behind` puts ids behind the end of some histories, `left` pads on the left.
    """
    rng = np.random.default_rng(seed)
    rows: Arrays = {n: rng.integers(1, SIZES[n], count) for n in SIZES if n != "tag"}
    lengths = rng.integers(0, T + 1, count)
    lengths[:4] = [0, 1, T, T // 2]
    lengths[8:12] = [T, 3, 4, T]
    outside = np.arange(T) >= lengths[:, None]
    kept = outside & (np.arange(count) >= count - 8)[:, None] & behind
    for name in ITEM:
        ids = rng.integers(1, SIZES[name], (count, T))
        ids[8:12, 1] = 0
        ids = np.where(outside & ~kept, 0, ids)
        if left:
            moves = zip(ids, T - lengths, strict=True)
            ids = np.stack([np.roll(row, n) for row, n in moves])
        rows[f"hist_{name}"] = ids
    rows["seq_length"] = lengths
    counts = rng.integers(0, TAGS + 1, count)
    counts[:4] = [0, TAGS, 1, 0]
    tags = rng.integers(1, SIZES["tag"], (count, TAGS))
    rows["tag"] = np.where(np.arange(TAGS) < counts[:, None], tags, 0)
    rows["tag_length"] = counts
    rows["price"] = rng.random(count, dtype=np.float32)
    rows["scene"] = rng.normal(size=(count, 3)).astype(np.float32)
    return rows


def shake(module: nn.Module, seed: int = 0) -> None:
    """Set every weight and statistic to something that shows in the scores."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            value.fill_(7)
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            noise = noise.abs() + 0.5
        elif value.ndim == 2 and "embed" not in name and value.shape[1] > 1:
            noise *= 1.8 / value.shape[1] ** 0.5
        elif name.endswith("weight") and "embed" not in name:
            noise = 1 + 0.3 * noise
        else:
            noise *= 0.9 if "embed" in name else 0.5
        value.copy_(noise)
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx] = 0
    module.eval()


def settle(
    last: nn.Linear, run: Callable[[], object], bias: Tensor | None = None
) -> None:
    """Scale the layer that gives the logits, so that `run` spreads them around 0.

    `bias` is what is added to them, where that is not the layer's own.
    """
    seen: list[Tensor] = []
    hook = last.register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    with torch.no_grad():
        run()
        hook.remove()
        low, middle, high = seen[0].flatten().quantile(torch.tensor([0.16, 0.5, 0.84]))
        scale = 3 / (high - low)
        last.weight *= scale
        if bias is None:
            last.bias.copy_((last.bias - middle) * scale + 0.3)
        else:
            bias.copy_(0.3 - middle * scale)


def check_spread(expected: Tensor, where: object) -> None:
    """Refuse scores that a wrong importer could match by chance."""
    spread = expected.std().item()
    if not spread > 0.05:
        message = f"expected scores that differ, got std {spread} - at `{where}`"
        raise RuntimeError(message)


def save_io(
    path: Path,
    rows: Mapping[str, Any],
    expected: Tensor,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write `in_<feature>` arrays and the library's scores."""
    check_spread(expected, path)
    named = {f"in_{name}": value for name, value in rows.items()}
    np.savez_compressed(path, **named, expected=expected.numpy(), **(more or {}))


def save_json(path: Path, value: object) -> None:
    """Write a description."""
    path.write_text(json.dumps(value, indent=1))


def shapes(module: nn.Module) -> dict[str, list[int]]:
    """List the shapes of a state_dict, for the description."""
    return {name: list(value.shape) for name, value in module.state_dict().items()}


class Positional(nn.Module):
    """A module whose inputs are plain tensors, for the names of a dict in order."""

    def __init__(
        self, model: nn.Module, call: Callable[[nn.Module, list[Tensor]], Tensor]
    ) -> None:
        super().__init__()
        self.model, self._call_model = model, call

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._call_model(self.model, list(tensors))


def save_program(
    path: Path, module: nn.Module, args: tuple[Any, ...], *, only_batch: bool = False
) -> None:
    """Save a `torch.export` program, its inputs' tensors in order and its output.

    All sizes are free that the module leaves free, or the first of each tensor only.
    """
    module.eval()
    path.parent.mkdir(parents=True, exist_ok=True)

    def free_of(tensor: Tensor) -> dict[int, Any]:
        count = 1 if only_batch else tensor.ndim
        return dict.fromkeys(range(count), torch.export.Dim.AUTO)

    free = tree_map(free_of, args)
    if isinstance(module, Positional):
        free = (free,)
    program = torch.export.export(module, args, dynamic_shapes=free)
    with torch.inference_mode():
        (expected,) = tree_leaves(module(*args))
    check_spread(expected, path)
    torch.export.save(program, path)
    arrays = {f"arg{i}": a.numpy() for i, a in enumerate(tree_leaves(args))}
    np.savez_compressed(path.with_suffix(".npz"), **arrays, expected=expected.numpy())

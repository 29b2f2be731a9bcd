"""The model that both benchmarks time, in torch and in ONNX, and batches of ids for it.

One DIN: user_id, goods_id and cate_id, a history of goods and categories. Local
activation alone is the node that `convert` wrote for it, cut out of the same file.
"""

import copy
import json
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.utils
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import timing
from benchmarks.draw import pool_size, zipf
from din_converter import DIN
from din_converter.layers import LocalActivationUnit
from din_infer.model_format import GOLDEN_KEY, INPUTS_KEY, SPEC_KEY
from din_infer.spec import FeatureSpec

__all__ = [
    "Inputs",
    "Scenario",
    "Sizes",
    "count_valid_pairs",
    "cut_attention",
    "draw_weights",
    "exact_interest",
    "exact_model",
    "exact_score",
    "make_model",
    "make_pool",
]

Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Sizes:
    """Rows of the tables, width of each embedding (D = 2 * dim), hidden layers."""

    users: int = 100_000
    goods: int = 1_000_000
    cates: int = 1_000
    dim: int = 32
    hidden: tuple[int, ...] = (80, 40)
    tower: tuple[int, ...] = (200, 80)

    @property
    def flops_per_pair(self) -> int:
        """Floating-point operations of one valid pair once the candidate is folded in.

        2 (D·H1 + H1·H2 + .. + H) for the layers and 2 D for the weighted sum; neither
        the folding, done once per candidate, nor any activation is counted.
        """
        widths = (2 * self.dim, *self.hidden, 1)
        layers = sum(a * b for a, b in pairwise(widths))
        return 2 * layers + 2 * 2 * self.dim


@dataclass(frozen=True)
class Scenario(timing.Scenario):
    """One shape of input. Histories are uniform in 1..T, or all of one length."""

    candidates: int
    requests: int
    positions: int
    lengths: int | Literal["uniform"]
    unit: str = field(default="valid pair", kw_only=True)

    @property
    def padded(self) -> int:
        """Pairs that a model computes which does not skip padding: N * T."""
        return self.candidates * self.positions


def _spec(sizes: Sizes, positions: int, encoder_type: str) -> FeatureSpec:
    def field(name: str, rows: int) -> dict[str, Any]:
        encoder = {"type": encoder_type, "buckets": rows}
        return {"name": name, "dim": sizes.dim, "encoder": encoder}

    return FeatureSpec.from_dict(
        {
            "format": 1,
            "user": [field("user_id", sizes.users)],
            "candidate": [
                field("goods_id", sizes.goods),
                field("cate_id", sizes.cates),
            ],
            "behavior": [
                {
                    "name": "history",
                    "max_len": positions,
                    "fields": {"hist_goods_id": "goods_id", "hist_cate_id": "cate_id"},
                }
            ],
            "model": {
                "attention": {"hidden": list(sizes.hidden)},
                "tower": {
                    "hidden": list(sizes.tower),
                    "inputs": ["user_id", "goods_id", "cate_id", "history"],
                },
            },
        }
    )


def make_model(
    sizes: Sizes,
    positions: int,
    seed: int,
    encoder: Literal["identity", "hash"] = "identity",
) -> DIN:
    """Make a DIN in evaluation mode whose random weights and statistics all matter.

    `positions` is the longest history it allows. With `encoder` "hash" it takes
    strings.
    """
    return draw_weights(DIN(_spec(sizes, positions, encoder)), seed)


def draw_weights(model: DIN, seed: int) -> DIN:
    """Give a DIN random weights and statistics, and set it to evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.dtype.is_floating_point:
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(0.5 + noise.abs())
        elif name.startswith("tables."):
            value.copy_(0.3 * noise)
            value[0] = 0
        elif value.ndim == 2:
            value.copy_(1.5 * noise / value.shape[1] ** 0.5)
        else:
            value.copy_(0.3 * noise)
    return model.eval()


@cache
def cut_attention(path: Path) -> tuple[str, Path]:
    """Write ``attention.onnx`` beside a converted model: its LocalActivation alone.

    It takes the model's ids, lengths and request_of_candidate; its tables stay where
    they are, in the model's data file.

    Returns
    -------
    str
        Name of the output, the interest float32 [N, D].
    Path
        The file.
    """
    model = onnx.load(path, load_external_data=False)
    node = next(n for n in model.graph.node if n.op_type == "LocalActivation")
    interest = node.output[0]
    model.graph.output.add().CopyFrom(
        onnx.helper.make_tensor_value_info(interest, onnx.TensorProto.FLOAT, ["N", "D"])
    )
    names = [i.name for i in model.graph.input if i.name in node.input]
    cut = onnx.utils.Extractor(model).extract_model(names, [interest])
    metadata = {p.key: p.value for p in model.metadata_props}
    spec = FeatureSpec.from_json(metadata.pop(SPEC_KEY))
    inputs = [i for i in spec.inputs if i.name in names]
    ids = {i.name: np.zeros([1] * len(i.shape), int).tolist() for i in inputs}
    # as of a torch module: a spec would tell of the inputs that are cut away
    metadata[INPUTS_KEY] = json.dumps(
        [{k: getattr(i, k) for k in ("name", "dtype", "shape", "rows")} for i in inputs]
    )
    metadata[GOLDEN_KEY] = json.dumps({"inputs": ids, "outputs": []})
    onnx.helper.set_model_props(cut, metadata)
    out = path.with_name("attention.onnx")
    out.write_bytes(cut.SerializeToString())
    return interest, out


def exact_model(model: DIN) -> DIN:
    """Copy a model into float64."""
    return copy.deepcopy(model).double()


def exact_score(exact: DIN, inputs: Inputs) -> NDArray[np.float64]:
    """Scores of a float64 model, [N]."""
    with torch.inference_mode():
        tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
        return torch.sigmoid(exact(tensors)).numpy()


def exact_interest(exact: DIN, inputs: Inputs) -> NDArray[np.float64]:
    """Interest of a float64 model, [N, D]: its local activation unit on valid pairs.

    sum over t < length of a(q, k_t) · k_t, equation 3 of the DIN paper.
    """
    unit: LocalActivationUnit = exact.attentions["of_history"]  # type: ignore[assignment]

    def rows(goods: Tensor, cates: Tensor) -> Tensor:
        tables = exact.tables["of_goods_id"], exact.tables["of_cate_id"]
        return torch.cat([tables[0](goods), tables[1](cates)], dim=-1)

    with torch.inference_mode():
        x = {k: torch.from_numpy(v) for k, v in inputs.items()}
        request = x["request_of_candidate"]
        query = rows(x["goods_id"], x["cate_id"])
        lengths = x["history.lengths"][request].unsqueeze(1)
        positions = torch.arange(x["hist_goods_id"].shape[1])
        n, t = (positions < lengths).nonzero(as_tuple=True)
        at = request[n], t
        behavior = rows(x["hist_goods_id"][at], x["hist_cate_id"][at])
        weight = unit(query[n], behavior).unsqueeze(1)
        return torch.zeros_like(query).index_add(0, n, weight * behavior).numpy()


def make_pool(
    spec: FeatureSpec, scenario: Scenario, size: int, seed: int
) -> list[Inputs]:
    """Draw as many batches of encoded inputs as fill `size` bytes of padded history.

    Ids are Zipf over a table's rows but 0.
    """
    rng = np.random.default_rng(seed)
    n, b, t = scenario.candidates, scenario.requests, scenario.positions
    axes = {"N": n, "B": b, "history.T": t}

    def draw() -> Inputs:
        uniform = scenario.lengths == "uniform"
        lengths = rng.integers(1, t + 1, b) if uniform else np.full(b, scenario.lengths)
        padding = np.arange(t) >= lengths[:, None]
        out: Inputs = {}
        for i in spec.inputs:
            if i.name == "request_of_candidate":
                out[i.name] = np.arange(n) % b
            elif i.rows is None:
                out[i.name] = lengths
            else:
                shape = tuple(axes[str(a)] for a in i.shape)
                out[i.name] = 1 + zipf(rng, i.rows - 1, shape)
                if len(i.shape) == 2:
                    out[i.name][padding] = 0
        return out

    return [draw() for _ in range(pool_size(size, 2 * 8 * scenario.padded))]


def count_valid_pairs(inputs: Inputs) -> int:
    """V of one batch."""
    return int(inputs["history.lengths"][inputs["request_of_candidate"]].sum())

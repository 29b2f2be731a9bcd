"""The spec says every DIN of deepctr-torch, torch-rechub, recbole and fuxictr.

For each stored checkpoint: a spec in tests/peers, the library's weights copied key by
key, and the library's own scores as the oracle. For the variants without a checkpoint:
what the spec means, and that torch and ONNX Runtime agree on it.
"""

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from din_converter import convert
from din_converter.model import ClickModel, build_model
from din_infer.errors import InputError
from din_infer.predictor import Predictor
from din_infer.spec import FeatureSpec, Part
from tests.shared import SHARED, needs_shared

pytestmark = pytest.mark.slow

SPECS = Path(__file__).parent / "peers"
PEERS = SHARED / "peers"
TOLERANCE = 1e-5

Arrays = dict[str, NDArray[Any]]
Weights = dict[str, Tensor]

# ------------------------------------------------------------------ stored checkpoints


def load_arrays(path: str) -> Arrays:
    with np.load(PEERS / path) as stored:
        return {name: stored[name] for name in stored.files}


def inputs_of(stored: Arrays) -> Arrays:
    return {name: a for name, a in stored.items() if name.startswith("in_")}


def load_weights(path: str) -> Weights:
    weights: Weights = torch.load(PEERS / path, weights_only=True)
    return weights


def copy_weights(model: ClickModel, theirs: Weights, keys: Mapping[str, str]) -> None:
    """Fill a model; `keys` maps each of our key's beginnings to the library's.

    Every tensor of the model must get a value and every tensor of the library must have
    a place. One value per layer (a single slope or alpha) is repeated for its units.
    """
    used = set()
    for ours, target in model.state_dict().items():
        beginning = max((k for k in keys if ours.startswith(k)), key=len)
        name = keys[beginning] + ours.removeprefix(beginning)
        used.add(name)
        value = theirs[name].reshape(target.shape if theirs[name].numel() != 1 else ())
        target.copy_(value.expand_as(target))
    assert used == set(theirs)


def tables(names: str, theirs: str) -> dict[str, str]:
    return {f"tables.of_{n}.": f"{theirs}{n}." for n in names.split()}


def check(
    model: ClickModel, batch: Arrays, expected: NDArray[Any], folder: Path
) -> NDArray[np.float64]:
    """Compare torch and a converted model with the library; returns torch's logits."""
    expected = expected.reshape(-1).astype(np.float64)
    assert expected.std() > 0.01
    model.double().eval()
    encoded = {k: torch.from_numpy(v) for k, v in model.spec.encode(batch).items()}
    with torch.inference_mode():
        logits = model(encoded)
    np.testing.assert_allclose(torch.sigmoid(logits), expected, rtol=0, atol=TOLERANCE)
    convert(model, folder / "m.onnx")
    scores = Predictor(folder / "m.onnx", device="cpu", threads=1).score(batch)
    assert scores.std() > 0.01
    np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)
    result: NDArray[np.float64] = logits.numpy()
    return result


DEEPCTR_KEYS = {
    **tables("user_id gender age_level goods_id shop_id cate_id", "embedding_dict."),
    "attentions.of_history.mlp.hidden.0.linear.": "attention.local_att.dnn.linears.0.",
    "attentions.of_history.mlp.hidden.1.linear.": "attention.local_att.dnn.linears.1.",
    "attentions.of_history.mlp.output.": "attention.local_att.dense.",
    "tower.hidden.0.linear.": "dnn.linears.0.",
    "tower.hidden.1.linear.": "dnn.linears.1.",
    "tower.output.weight": "dnn_linear.weight",
    "tower.output.bias": "out.bias",
}


@needs_shared
def test_deepctr_default_scores_as_the_library_does(tmp_path: Path) -> None:
    stored = load_arrays("deepctr/default_io.npz")
    model = build_model(FeatureSpec.load(SPECS / "deepctr_default.toml"))
    dice = "attention.local_att.dnn.activation_layers"
    attention = "attentions.of_history.mlp.hidden"
    keys = DEEPCTR_KEYS | {
        f"{attention}.0.activation.alpha": f"{dice}.0.alpha",
        f"{attention}.0.activation.norm.": f"{dice}.0.bn.",
        f"{attention}.1.activation.alpha": f"{dice}.1.alpha",
        f"{attention}.1.activation.norm.": f"{dice}.1.bn.",
    }
    copy_weights(model, load_weights("deepctr/default_state_dict.pth"), keys)
    check(model, inputs_of(stored), stored["expected"], tmp_path)


@needs_shared
def test_deepctr_rich_scores_as_the_library_does(tmp_path: Path) -> None:
    stored = load_arrays("deepctr/rich_io.npz")
    model = build_model(FeatureSpec.load(SPECS / "deepctr_rich.toml"))
    keys = DEEPCTR_KEYS | {
        **tables("tag", "embedding_dict."),
        "tower.hidden.0.norm.": "dnn.bn.0.",
        "tower.hidden.1.norm.": "dnn.bn.1.",
        "tower.hidden.0.activation.": "dnn.activation_layers.0.",
        "tower.hidden.1.activation.": "dnn.activation_layers.1.",
    }
    copy_weights(model, load_weights("deepctr/rich_state_dict.pth"), keys)
    check(model, inputs_of(stored), stored["expected"], tmp_path)


def rechub_mlp(ours: str, theirs: str, num_hidden: int) -> dict[str, str]:
    """Linear, BatchNorm1d, activation, Dropout: four places per hidden layer."""
    keys = {f"{ours}.output.": f"{theirs}.{4 * num_hidden}."}
    for j in range(num_hidden):
        keys[f"{ours}.hidden.{j}.linear."] = f"{theirs}.{4 * j}."
        keys[f"{ours}.hidden.{j}.norm."] = f"{theirs}.{4 * j + 1}."
        keys[f"{ours}.hidden.{j}.activation."] = f"{theirs}.{4 * j + 2}."
    return keys


@needs_shared
def test_rechub_tutorial_scores_as_the_library_does(tmp_path: Path) -> None:
    stored = load_arrays("rechub/tutorial_io.npz")
    model = build_model(FeatureSpec.load(SPECS / "rechub_tutorial.toml"))
    units = [f"attention_layers.{i}.attention.mlp" for i in range(2)]
    keys = {
        **tables("goods_id cate_id user_id", "embedding.embed_dict."),
        **rechub_mlp("attentions.of_goods_history.mlp", units[0], 2),
        **rechub_mlp("attentions.of_cate_history.mlp", units[1], 2),
        **rechub_mlp("tower", "mlp.mlp", 2),
    }
    copy_weights(model, load_weights("rechub/tutorial_save/model.pth"), keys)
    check(model, inputs_of(stored), stored["expected"], tmp_path)


def load_recbole(path: str) -> Weights:
    """Read a pickled checkpoint without recbole, its one item table cut per field."""
    place = PEERS / "common" / "stub_load.py"
    module_spec = importlib.util.spec_from_file_location("stub_load", place)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    weights = dict(module.load(PEERS / path)["state_dict"])
    name = "embedding_layer.token_embedding_table.{}.embedding.weight"
    del weights[name.format("user")]  # never reaches the output
    config = json.loads((PEERS / "recbole/default_config.json").read_text())
    items = weights.pop(name.format("item"))
    sizes = config["token_field_dims"]["item"]
    parts = items.split(sizes)
    names = config["token_field_names"]["item"]
    assert config["token_field_offsets"]["item"] == [0, *np.cumsum(sizes)[:-1]]
    return weights | {f"item.{n}.weight": p for n, p in zip(names, parts, strict=True)}


@needs_shared
def test_recbole_default_scores_as_the_library_does(tmp_path: Path) -> None:
    stored = load_arrays("recbole/default_io.npz")
    shutil.copy(SPECS / "recbole_default.toml", tmp_path)
    for name in ("shop_id", "cate_id"):
        lines = "".join(f"{v}\n" for v in stored[f"item_feat_{name}"])
        (tmp_path / f"item_feat_{name}.txt").write_text(lines)
    model = build_model(FeatureSpec.load(tmp_path / "recbole_default.toml"))
    (path,) = (PEERS / "recbole" / "saved_default").glob("DIN-*.pth")
    unit = "attention.att_mlp_layers.mlp_layers"
    tower = "dnn_mlp_layers.mlp_layers"
    keys = {
        **tables("goods_id shop_id cate_id", "item."),
        "attentions.of_history.mlp.hidden.0.linear.": f"{unit}.1.",
        "attentions.of_history.mlp.hidden.1.linear.": f"{unit}.4.",
        "attentions.of_history.mlp.output.": "attention.dense.",
        "tower.hidden.0.linear.": f"{tower}.1.",
        "tower.hidden.0.norm.": f"{tower}.2.",
        "tower.hidden.1.linear.": f"{tower}.5.",
        "tower.hidden.1.norm.": f"{tower}.6.",
        "tower.output.": "dnn_predict_layers.",
    }
    copy_weights(model, load_recbole(str(path.relative_to(PEERS))), keys)
    batch = inputs_of(stored)
    logits = check(model, batch, stored["expected"], tmp_path)
    wanted = stored["expected_logit"]
    np.testing.assert_allclose(logits, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    predictor = Predictor(tmp_path / "m.onnx", device="cpu", threads=1)
    raw = predictor.score(batch, raw=True)
    np.testing.assert_allclose(raw, wanted, rtol=TOLERANCE, atol=TOLERANCE)


@needs_shared
def test_fuxictr_classic_tuple_scores_as_the_library_does(tmp_path: Path) -> None:
    stored = load_arrays("fuxictr/classic_tuple_io.npz")
    model = build_model(FeatureSpec.load(SPECS / "fuxictr_classic_tuple.toml"))
    theirs = load_weights("fuxictr/checkpoints/shop_seq/classic_tuple.model")
    embedding = "embedding_layer.embedding_layers."
    for name in ("goods_id", "shop_id", "cate_id"):  # stored twice
        twin = theirs.pop(f"{embedding}hist_{name}.weight")
        assert torch.equal(twin, theirs[f"{embedding}{name}.weight"])
    unit, ours = "attention_layers.0.attention_layer.mlp", "attentions.of_history.mlp"
    fields = "user_id gender age_level goods_id shop_id cate_id tag"
    keys = {
        **tables(fields, embedding),
        "projections.of_price.": f"{embedding}price.",
        f"{ours}.hidden.0.linear.": f"{unit}.0.",
        f"{ours}.hidden.0.activation.alpha": f"{unit}.1.alpha",
        f"{ours}.hidden.0.activation.norm.": f"{unit}.1.bn.",
        f"{ours}.hidden.1.linear.": f"{unit}.2.",
        f"{ours}.hidden.1.activation.alpha": f"{unit}.3.alpha",
        f"{ours}.hidden.1.activation.norm.": f"{unit}.3.bn.",
        f"{ours}.output.": f"{unit}.4.",
        "tower.hidden.0.linear.": "dnn.mlp.0.",
        "tower.hidden.0.norm.": "dnn.mlp.1.",
        "tower.hidden.0.activation.alpha": "dnn.mlp.2.alpha",
        "tower.hidden.0.activation.norm.": "dnn.mlp.2.bn.",
        "tower.hidden.1.linear.": "dnn.mlp.4.",
        "tower.hidden.1.norm.": "dnn.mlp.5.",
        "tower.hidden.1.activation.alpha": "dnn.mlp.6.alpha",
        "tower.hidden.1.activation.norm.": "dnn.mlp.6.bn.",
        "tower.output.": "dnn.mlp.8.",
    }
    copy_weights(model, theirs, keys)
    check(model, inputs_of(stored), stored["expected"], tmp_path)


@needs_shared
def test_fuxictr_longctr_scores_as_the_library_does(tmp_path: Path) -> None:
    stored = load_arrays("fuxictr/longctr_io.npz")
    batch = inputs_of(stored)
    for name in ("goods_id", "shop_id", "cate_id"):
        rows = stored[f"item_{name}"].reshape(len(batch["in_user_id"]), -1)
        batch[f"hist_{name}"], batch[name] = rows[:, :-1], rows[:, -1]
    starts = batch["hist_goods_id"][:, 0] == 0
    assert np.any(starts & (batch["hist_goods_id"][:, -1] != 0))  # padded on the left
    model = build_model(FeatureSpec.load(SPECS / "fuxictr_longctr.toml"))
    embedding = "embedding_layer.embedding_layer.embedding_layers."
    unit, ours = "attention_layers.attention_layer.mlp", "attentions.of_history.mlp"
    keys = {
        **tables("user_id gender age_level goods_id shop_id cate_id", embedding),
        f"{ours}.hidden.0.linear.": f"{unit}.0.",
        f"{ours}.hidden.0.activation.alpha": f"{unit}.1.alpha",
        f"{ours}.hidden.0.activation.norm.": f"{unit}.1.bn.",
        f"{ours}.output.": f"{unit}.2.",
        "tower.hidden.0.linear.": "dnn.mlp.0.",
        "tower.hidden.1.linear.": "dnn.mlp.2.",
        "tower.output.": "dnn.mlp.4.",
    }
    theirs = load_weights("fuxictr/checkpoints/long_seq/longctr.model")
    copy_weights(model, theirs, keys)
    check(model, batch, stored["expected"], tmp_path)


# --------------------------------------------------- variants without a checkpoint

T = 5
USERS, GOODS, CATES, TAGS = 11, 13, 7, 6


def identity(rows: int) -> dict[str, Any]:
    return {"type": "identity", "buckets": rows}


def table(name: str, rows: int, dim: int = 4, row: str = "zero") -> dict[str, Any]:
    return {"name": name, "dim": dim, "padding_row": row, "encoder": identity(rows)}


def make(row: str = "zero", cate_dim: int = 4, **sections: Any) -> FeatureSpec:  # noqa: ANN401
    """Make a spec over user_id, goods_id and cate_id; `row` is their padding_row."""
    raw = {
        "format": 1,
        "user": [table("user_id", USERS, row=row)],
        "candidate": [
            table("goods_id", GOODS, row=row),
            table("cate_id", CATES, cate_dim, row=row),
        ],
    }
    return FeatureSpec.from_dict(raw | sections)


HIST = {"hist_goods_id": "goods_id", "hist_cate_id": "cate_id"}
HISTORY = {"name": "history", "max_len": T, "fields": HIST}
PADDED = {"pad_value": 0, "pad_inside": "dropped", "max_len": T}
TAG = table("tag", TAGS) | {"side": "user", **PADDED}


def deepctr_noshare() -> FeatureSpec:
    """The histories have tables of their own."""
    own = [table("", GOODS, 4, "trained"), table("", CATES, 2, "trained")]
    for t in own:
        del t["name"]
    fields = {
        "hist_goods_id": {"pairs": "goods_id", **own[0]},
        "hist_cate_id": {"pairs": "cate_id", **own[1]},
    }
    history = {**HISTORY, "fields": fields, "length_column": "seq_length"}
    return make(
        "trained",
        2,
        behavior=[history],
        model={
            "attention": {"hidden": [6], "activation": "dice", "dice_affine": True},
            "tower": {"hidden": [8], "activation": "sigmoid"},
        },
    )


def deepctr_quirks() -> FeatureSpec:
    """Histories listed in another order than the targets; the tags' length rules."""
    tag = table("tag", TAGS, row="trained") | {"side": "user", "pooling": "mean"}
    history = {**HISTORY, "length_column": "tag_length"}
    fields = {"hist_cate_id": "cate_id", "hist_goods_id": "goods_id"}
    return make(
        "trained",
        2,
        behavior=[history | {"query": ["goods_id", "cate_id"], "fields": fields}],
        multi_hot=[tag | {"max_len": T, "length_column": "tag_length"}],
        model={
            "attention": {"hidden": [6], "activation": "prelu"},
            "tower": {"hidden": [8], "activation": "relu"},
        },
    )


def deepctr_softmax() -> FeatureSpec:
    """weight_normalization; tags by maximum, of which nothing is -1e9."""
    tag = table("tag", TAGS, row="trained") | {"side": "user", "pooling": "max"}
    history = {**HISTORY, "length_column": "seq_length", "empty_softmax": "padding_row"}
    inputs = ["user_id", "goods_id", "cate_id", "tag", "history", "price"]
    return make(
        "trained",
        2,
        behavior=[history],
        multi_hot=[tag | PADDED | {"empty": -1e9}],
        dense=[{"name": "price", "side": "candidate", "dim": 2}],
        model={
            "attention": {"hidden": [6], "activation": "relu", "softmax": True},
            "tower": {"hidden": [8], "activation": "none", "inputs": inputs},
        },
    )


def rechub(
    row: str, activation: str, *, softmax: bool, multi_hot: list[dict[str, Any]]
) -> FeatureSpec:
    attended = {"max_len": T, "pad_value": 0, "padding": "attended"}
    targets = ["goods_id", "cate_id"]
    pooled = [m["name"] for m in multi_hot]
    inputs = ["h_goods", "h_cate", *targets, *targets, "user_id", *pooled]
    attention = {"hidden": [6, 3], "activation": activation, "softmax": softmax}
    tower = {"hidden": [8], "activation": "row_dice", "batch_norm": True}
    return make(
        row,
        behavior=[
            {"name": "h_goods", "fields": {"hist_goods_id": "goods_id"}, **attended},
            {"name": "h_cate", "fields": {"hist_cate_id": "cate_id"}, **attended},
        ],
        multi_hot=multi_hot,
        model={
            "attention": attention | {"batch_norm": True},
            "tower": tower | {"inputs": inputs},
        },
    )


def rechub_softmax() -> FeatureSpec:
    """No padding_idx: padding has a trained row and takes its share of the softmax."""
    word = table("tag", TAGS, row="trained") | {"side": "user", "pooling": "mean"}
    attended = {"max_len": T, "pad_value": 0, "padding": "attended"}
    return rechub("trained", "row_dice", softmax=True, multi_hot=[word | attended])


def rechub_pad0() -> FeatureSpec:
    """padding_idx = 0: its row is zero; the pooled sequence leaves padding out."""
    return rechub("zero", "prelu", softmax=False, multi_hot=[TAG | {"pooling": "mean"}])


# Per item: its category, its tags (0 = none), its price.
ITEM_CATES = np.arange(GOODS) * 5 % CATES
ITEM_TAGS = np.array([[0, 0, 0], [1, 0, 0], [2, 5, 0], [3, 1, 4], [4, 0, 0]] * 3)[
    :GOODS
]
ITEM_PRICES = np.linspace(-1.0, 1.5, GOODS)


def recbole_rich(pooling: str = "mean") -> FeatureSpec:
    """Item attributes as constants: one token, a list of tokens, a number."""
    goods = table("goods_id", GOODS, row="trained")
    parts = {"from": "goods_id", "padding_row": "trained"}
    price = table("price", 1) | parts
    cates = table("cate_id", CATES) | parts | {"lookup": ITEM_CATES.tolist()}
    tags = table("tags", TAGS) | parts | {"pooling": pooling}
    tags["lookup"] = [[t for t in row if t] for row in ITEM_TAGS.tolist()]
    tags["empty"] = -1e9 if pooling == "max" else 0.0
    price |= {"lookup": [0] * GOODS, "weights": ITEM_PRICES.tolist()}
    fields: dict[str, Any] = {"hist_goods_id": "goods_id"}
    for name in ("cate_id", "tags", "price"):
        fields[f"hist_{name}"] = {"pairs": name, "from": "hist_goods_id"}
    inputs = ["history", "history.query", "history.product"]
    attention = {"hidden": [6], "activation": "sigmoid", "scale": 0.25}
    tower = {"hidden": [8], "activation": "silu", "batch_norm": True, "inputs": inputs}
    return FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [goods],
            "derived": [cates, tags, price],
            "behavior": [HISTORY | {"fields": fields, "length_column": "item_length"}],
            "model": {"attention": attention, "tower": tower},
        }
    )


def fuxictr_fields() -> FeatureSpec:
    """One unit per field, softmax, an output activation, numbers through a matrix."""
    fields = ("goods_id", "cate_id")
    inputs = [
        "user_id",
        "price",
        "goods_id",
        "cate_id",
        "tag",
        "h_goods_id",
        "h_cate_id",
    ]
    return make(
        behavior=[
            {"name": f"h_{f}", "fields": {f"hist_{f}": f}, **PADDED} for f in fields
        ],
        multi_hot=[TAG | {"pooling": "mean"}],
        dense=[{"name": "price", "side": "candidate", "project": 4}],
        model={
            "attention": {
                "hidden": [6],
                "activation": "dice",
                "dice_epsilon": 1e-9,
                "softmax": True,
                "output_activation": "sigmoid",
            },
            "tower": {"hidden": [8], "activation": "prelu", "inputs": inputs},
        },
    )


def fuxictr_relu() -> FeatureSpec:
    """A tuple of fields under one ReLU unit, task: regression."""
    inputs = ["user_id", "price", "goods_id", "cate_id", "tag", "history[0:4]"]
    return make(
        behavior=[HISTORY | PADDED],
        multi_hot=[TAG | {"pooling": "mean"}],
        dense=[{"name": "price", "side": "candidate", "project": 4}],
        model={
            "link": "identity",
            "attention": {"hidden": [6, 3], "activation": "relu"},
            "tower": {
                "hidden": [8],
                "activation": "relu",
                "inputs": [*inputs, "history[4:8]"],
            },
        },
    )


def longctr_softmax() -> FeatureSpec:
    """Histories padded on the left, softmax over what is there."""
    attention = {"hidden": [6], "activation": "dice", "dice_epsilon": 1e-9}
    inputs = ["user_id", "history.query", "history"]
    return make(
        behavior=[HISTORY | {"pad_value": 0}],
        model={
            "attention": attention | {"softmax": True},
            "tower": {"hidden": [8], "activation": "relu", "inputs": inputs},
        },
    )


def everything_else() -> FeatureSpec:
    """What no library has: outer product, unpaired fields, no hidden layer."""
    action = {"dim": 3, "encoder": identity(4)}
    unit = {"hidden": [], "activation": "none", "interactions": ["outer"]}
    return make(
        behavior=[
            HISTORY | {"fields": HIST | {"action": action}, "order": "newest_first"},
            {
                "name": "carts",
                "max_len": T,
                "fields": {"cart_goods_id": "goods_id"},
                "attention": unit,
            },
        ],
        multi_hot=[
            TAG | {"pooling": "sum"},
            {
                "name": "cart_tags",
                "side": "candidate",
                "shares": "tag",
                "pooling": "max",
                "max_len": T,
            },
        ],
        dense=[{"name": "scene", "side": "user", "dim": 3, "project": 2}],
        model={
            "attention": {"hidden": [6], "interactions": ["difference", "outer"]},
            "tower": {
                "hidden": [8],
                "inputs": [
                    "user_id",
                    "tag",
                    "cart_tags",
                    "history[1:9]",
                    "scene",
                    "carts",
                    "carts.product",
                    "history.action",
                    "goods_id[1:3]",
                ],
            },
        },
    )


VARIANTS = (
    deepctr_noshare,
    deepctr_quirks,
    deepctr_softmax,
    rechub_softmax,
    rechub_pad0,
    recbole_rich,
    fuxictr_fields,
    fuxictr_relu,
    longctr_softmax,
    everything_else,
)


def random_model(spec: FeatureSpec, seed: int = 0) -> ClickModel:
    """Build a model whose every weight and statistic matters."""
    generator = torch.Generator().manual_seed(seed)
    model = build_model(spec).double().eval()
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        if name.endswith("running_var"):
            noise = noise.abs() + 0.5
        elif value.ndim == 2 and not name.startswith("tables."):
            noise /= value.shape[1] ** 0.5
        value.copy_(noise)
        owner = name.removeprefix("tables.of_").removesuffix(".weight")
        if owner in spec.tables and spec.tables[owner].padding_row == "zero":
            value[0] = 0
    return model


@pytest.mark.parametrize("make_spec", VARIANTS, ids=lambda f: f.__name__)
def test_variant_scores_alike_in_torch_and_onnx(make_spec: Any, tmp_path: Path) -> None:  # noqa: ANN401
    spec = make_spec()
    assert FeatureSpec.from_json(spec.to_json()) == spec
    report = convert(random_model(spec), tmp_path / "m.onnx")
    assert report.score_difference <= TOLERANCE


# The libraries' formulas as an oracle for the same variants.


def reference_of(library: str) -> Any:  # noqa: ANN401
    """Import the NumPy formulas of one library."""
    path = PEERS / library / f"ref_{library}.py"
    module_spec = importlib.util.spec_from_file_location(f"ref_{library}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def named_by(model: ClickModel, keys: Mapping[str, str]) -> Arrays:
    """Give the model's weights the names `keys` says the library has for them."""
    out: Arrays = {}
    for ours, value in model.state_dict().items():
        beginning = max((k for k in keys if ours.startswith(k)), key=len)
        out[keys[beginning] + ours.removeprefix(beginning)] = value.float().numpy()
    return out


def contiguous_mlp(ours: str, theirs: str, *steps: str) -> dict[str, str]:
    """Name the places of an nn.Sequential by what `steps` says they hold."""
    keys, layer = {}, -1
    for n, step in enumerate((*steps, "output")):
        layer += step == "linear"
        at, place = f"{ours}.hidden.{layer}", f"{theirs}.{n}"
        keys |= {
            "linear": {f"{at}.linear.": f"{place}."},
            "norm": {f"{at}.norm.": f"{place}."},
            "slope": {f"{at}.activation.": f"{place}."},
            "dice": {
                f"{at}.activation.alpha": f"{place}.alpha",
                f"{at}.activation.norm.": f"{place}.bn.",
            },
            "none": {},
            "output": {f"{ours}.output.": f"{place}."},
        }[step]
    return keys


def raw_batch(rng: np.random.Generator, rows: int = 24) -> Arrays:
    """Columns with empty, single and full histories, right padded with 0."""
    lengths = rng.integers(0, T + 1, rows)
    lengths[:4] = [0, 1, T, 0]
    past = np.arange(T) >= lengths[:, None]
    batch = {
        "user_id": rng.integers(1, USERS, rows),
        "goods_id": rng.integers(1, GOODS, rows),
        "cate_id": rng.integers(1, CATES, rows),
        "hist_goods_id": np.where(past, 0, rng.integers(1, GOODS, (rows, T))),
        "hist_cate_id": np.where(past, 0, rng.integers(1, CATES, (rows, T))),
        "tag": rng.integers(0, TAGS, (rows, T)),
        "seq_length": lengths,
        "tag_length": rng.permutation(lengths),
        "price": rng.random((rows, 1)).astype(np.float32),
    }
    batch["item_length"] = lengths
    batch["tag"][:2] = 0
    return batch


def compare(
    model: ClickModel,
    batch: Arrays,
    expected: NDArray[Any],
    *,
    link: Any = torch.sigmoid,  # noqa: ANN401
) -> None:
    encoded = {k: torch.from_numpy(v) for k, v in model.spec.encode(batch).items()}
    with torch.inference_mode():
        scores = link(model(encoded))
    expected = expected.reshape(-1)
    assert expected.std() > 0.01
    np.testing.assert_allclose(scores, expected, rtol=TOLERANCE, atol=TOLERANCE)


def deepctr_columns(*columns: tuple[Any, ...]) -> dict[str, Any]:
    """Describe columns (name, dim) and (name, dim, length_name, combiner)."""
    out: list[dict[str, Any]] = []
    index: dict[str, list[int]] = {}
    at = 0
    for name, dim, *varlen in columns:
        kind = ("DenseFeat", "SparseFeat", "VarLenSparseFeat")[bool(varlen) + bool(dim)]
        size = T if varlen else 2 if kind == "DenseFeat" else 1
        index[name], at = [at, at + size], at + size
        out.append({"kind": kind, "name": name, "embedding_name": name})
        if varlen:
            length, combiner = varlen
            out[-1] |= {"length_name": length, "combiner": combiner}
            if length and length not in index:
                index[length], at = [at, at + 1], at + 1
    return {"columns": out, "feature_index": index}


def deepctr_check(
    spec: FeatureSpec,
    config: dict[str, Any],
    batch: Arrays,
    kwargs: dict[str, Any],
    extra: Mapping[str, str] | None = None,
) -> None:
    model = random_model(spec)
    ours, theirs = "attentions.of_history.mlp", "attention.local_att"
    keys = {
        **tables(" ".join(spec.tables), "embedding_dict."),
        f"{ours}.hidden.0.linear.": f"{theirs}.dnn.linears.0.",
        f"{ours}.hidden.0.activation.": f"{theirs}.dnn.activation_layers.0.",
        f"{ours}.output.": f"{theirs}.dense.",
        "tower.hidden.0.linear.": "dnn.linears.0.",
        "tower.output.weight": "dnn_linear.weight",
        "tower.output.bias": "out.bias",
        **(extra or {}),
    }
    weights = named_by(model, keys)
    for c in config["columns"]:  # histories share the tables of their targets
        if c["name"].startswith("hist_") and c["name"] not in spec.tables:
            c["embedding_name"] = c["name"].removeprefix("hist_")
    config |= {"history_feature_list": ["goods_id", "cate_id"], "dnn_kwargs": kwargs}
    parts = [
        batch[name].reshape(len(batch["tag"]), -1) for name in config["feature_index"]
    ]
    x = np.concatenate(parts, axis=1).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = reference_of("deepctr").forward(weights, config, x)
    compare(model, batch, expected)


def beyond_lengths(batch: Arrays, rng: np.random.Generator) -> Arrays:
    """Put ids behind the histories of length >= 1: only the length column rules."""
    out = dict(batch)
    filled = batch["seq_length"][:, None] > 0
    for name, rows in (("hist_goods_id", GOODS), ("hist_cate_id", CATES)):
        ids = rng.integers(1, rows, batch[name].shape)
        out[name] = np.where(filled & (batch[name] == 0), ids, batch[name])
    return out


@needs_shared
def test_deepctr_noshare_follows_the_library() -> None:
    rng = np.random.default_rng(1)
    config = deepctr_columns(
        ("user_id", 4),
        ("goods_id", 4),
        ("cate_id", 2),
        ("hist_goods_id", 4, "seq_length", "mean"),
        ("hist_cate_id", 2, "seq_length", "mean"),
    )
    dice = "attention.local_att.dnn.activation_layers.0"
    ours = "attentions.of_history.mlp.hidden.0.activation"
    extra = {f"{ours}.norm.": f"{dice}.bn.", f"{ours}.alpha": f"{dice}.alpha"}
    batch = beyond_lengths(raw_batch(rng), rng)
    kwargs = {"dnn_activation": "sigmoid"}
    deepctr_check(deepctr_noshare(), config, batch, kwargs, extra)


@needs_shared
def test_deepctr_quirks_follow_the_library() -> None:
    rng = np.random.default_rng(2)
    config = deepctr_columns(
        ("user_id", 4),
        ("goods_id", 4),
        ("cate_id", 2),
        ("tag", 4, "tag_length", "mean"),
        ("hist_cate_id", 2, "seq_length", "mean"),
        ("hist_goods_id", 4, "seq_length", "mean"),
    )
    kwargs = {"att_activation": "prelu"}
    deepctr_check(deepctr_quirks(), config, raw_batch(rng), kwargs)


@needs_shared
def test_deepctr_softmax_follows_the_library() -> None:
    rng = np.random.default_rng(3)
    config = deepctr_columns(
        ("user_id", 4),
        ("goods_id", 4),
        ("cate_id", 2),
        ("hist_goods_id", 4, "seq_length", "mean"),
        ("hist_cate_id", 2, "seq_length", "mean"),
        ("tag", 4, None, "max"),
        ("price", 0),
    )
    kwargs = {
        "att_activation": "relu",
        "att_weight_normalization": True,
        "dnn_activation": "linear",
    }
    batch = beyond_lengths(raw_batch(rng), rng)
    batch["price"] = rng.random((len(batch["tag"]), 2)).astype(np.float32)
    deepctr_check(deepctr_softmax(), config, batch, kwargs)


@needs_shared
@pytest.mark.parametrize("variant", ["softmax", "pad0"])
def test_rechub_variants_follow_the_library(variant: str) -> None:
    spec = {"softmax": rechub_softmax, "pad0": rechub_pad0}[variant]()
    padding = 0 if variant == "pad0" else None

    def feature(
        name: str, shared: str | None = None, pooling: str = ""
    ) -> dict[str, Any]:
        kind = "SequenceFeature" if pooling else "SparseFeature"
        shape = {"shared_with": shared, "padding_idx": padding, "pooling": pooling}
        return {"kind": kind, "name": name, **shape}

    targets = [feature("goods_id"), feature("cate_id")]
    activation = {"softmax": "dice", "pad0": "prelu"}[variant]
    config = {
        "target_features": targets,
        "history_features": [
            feature("hist_goods_id", "goods_id", "concat"),
            feature("hist_cate_id", "cate_id", "concat"),
        ],
        "features": [*targets, feature("user_id"), feature("tag", None, "mean")],
        "mlp_params": {"dims": [8]},
        "attention_mlp_params": {
            "dims": [6, 3],
            "activation": activation,
            "use_softmax": variant == "softmax",
        },
    }
    keys = {
        **tables("user_id goods_id cate_id tag", "embedding.embed_dict."),
        **rechub_mlp(
            "attentions.of_h_goods.mlp", "attention_layers.0.attention.mlp", 2
        ),
        **rechub_mlp("attentions.of_h_cate.mlp", "attention_layers.1.attention.mlp", 2),
        **rechub_mlp("tower", "mlp.mlp", 1),
    }
    model = random_model(spec)
    batch = raw_batch(np.random.default_rng(4))
    with np.errstate(over="ignore"):
        expected = reference_of("rechub").forward(named_by(model, keys), config, batch)
    compare(model, batch, expected)


@needs_shared
@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_recbole_rich_follows_the_library(pooling: str) -> None:
    model = random_model(recbole_rich(pooling))
    unit, tower = "attention.att_mlp_layers.mlp_layers", "dnn_mlp_layers.mlp_layers"
    layer = "embedding_layer."
    tokens = f"{layer}token_embedding_table.item.embedding.weight"
    keys = {
        "tables.of_goods_id.weight": "goods",
        "tables.of_cate_id.weight": "cates",
        "tables.of_tags.": f"{layer}token_seq_embedding_table.item.0.",
        "tables.of_price.": f"{layer}float_embedding_table.item.embedding.",
        "attentions.of_history.mlp.hidden.0.linear.": f"{unit}.1.",
        "attentions.of_history.mlp.output.": "attention.dense.",
        "tower.hidden.0.linear.": f"{tower}.1.",
        "tower.hidden.0.norm.": f"{tower}.2.",
        "tower.output.": "dnn_predict_layers.",
    }
    weights = named_by(model, keys)
    weights[tokens] = np.concatenate([weights.pop("goods"), weights.pop("cates")])
    config = {
        "token_field_names": {"item": ["goods_id", "cate_id"]},
        "token_field_offsets": {"item": [0, GOODS]},
        "token_seq_field_names": {"item": ["tags"]},
        "float_field_names": {"item": ["price"]},
        "float_field_dims": {"item": [1]},
        "pooling_mode": pooling,
    }
    prices = np.stack([ITEM_PRICES, np.zeros(GOODS)], axis=1).astype(np.float32)
    items = {"goods_id": np.arange(GOODS), "cate_id": ITEM_CATES}
    items |= {"tags": ITEM_TAGS, "price": prices}
    batch = raw_batch(np.random.default_rng(5))
    if pooling == "max":  # -1e9 in an embedding leaves no digits to compare
        for name in ("goods_id", "hist_goods_id"):
            batch[name] = np.where(batch[name] % 5 == 0, batch[name] + 1, batch[name])
    history, length = batch["hist_goods_id"], batch["item_length"]
    with np.errstate(over="ignore"):
        expected = reference_of("recbole").forward(
            weights, config, items, batch["goods_id"], history, length
        )
    compare(model, batch, expected, link=lambda logits: logits)


FUXICTR_FEATURES = [
    ["user_id", {"type": "categorical"}],
    ["price", {"type": "numeric"}],
    ["goods_id", {"type": "categorical"}],
    ["cate_id", {"type": "categorical"}],
    ["tag", {"type": "sequence", "feature_encoder": "layers.MaskedAveragePooling()"}],
    ["hist_goods_id", {"type": "sequence"}],
    ["hist_cate_id", {"type": "sequence"}],
]


@needs_shared
@pytest.mark.parametrize("variant", ["fields", "relu"])
def test_fuxictr_classic_variants_follow_the_library(variant: str) -> None:
    model = random_model({"fields": fuxictr_fields, "relu": fuxictr_relu}[variant]())
    embedding = "embedding_layer.embedding_layers."
    targets, histories = ["goods_id", "cate_id"], ["hist_goods_id", "hist_cate_id"]
    unit = "attention_layers.{}.attention_layer.mlp"
    keys = {
        **tables("user_id goods_id cate_id tag", embedding),
        "projections.of_price.": f"{embedding}price.",
    }
    params: dict[str, Any] = {
        "dnn_hidden_units": [8],
        "net_dropout": 0,
        "batch_norm": False,
    }
    if variant == "fields":
        for i, name in enumerate(targets):
            ours = f"attentions.of_h_{name}.mlp"
            keys |= contiguous_mlp(ours, unit.format(i), "linear", "dice")
        keys |= contiguous_mlp("tower", "dnn.mlp", "linear", "slope")
        params |= {
            "din_target_field": targets,
            "din_sequence_field": histories,
            "din_use_softmax": True,
            "attention_hidden_units": [6],
            "attention_hidden_activations": "Dice",
            "attention_output_activation": "Sigmoid",
            "dnn_activations": "PReLU",
            "task": "binary_classification",
        }
    else:
        steps = ("linear", "none", "linear", "none")
        keys |= contiguous_mlp("attentions.of_history.mlp", unit.format(0), *steps)
        keys |= contiguous_mlp("tower", "dnn.mlp", "linear", "none")
        params |= {
            "din_target_field": [targets],
            "din_sequence_field": [histories],
            "attention_hidden_units": [6, 3],
            "attention_hidden_activations": "ReLU",
            "dnn_activations": "ReLU",
            "task": "regression",
        }
    weights = named_by(model, keys)
    for name in targets:
        weights[f"{embedding}hist_{name}.weight"] = weights[f"{embedding}{name}.weight"]
    batch = raw_batch(np.random.default_rng(6))
    config = {"params": params, "features": FUXICTR_FEATURES}
    with np.errstate(over="ignore"):
        expected = reference_of("fuxictr").classic(weights, config, batch)
    link = torch.sigmoid if variant == "fields" else lambda logits: logits
    compare(model, batch, expected, link=link)


@needs_shared
def test_fuxictr_longctr_softmax_follows_the_library() -> None:
    model = random_model(longctr_softmax())
    embedding = "embedding_layer.embedding_layer.embedding_layers."
    unit = "attention_layers.attention_layer.mlp"
    keys = {
        **tables("user_id goods_id cate_id", embedding),
        **contiguous_mlp("attentions.of_history.mlp", unit, "linear", "dice"),
        **contiguous_mlp("tower", "dnn.mlp", "linear", "none"),
    }
    params = {
        "attention_hidden_units": [6],
        "attention_hidden_activations": "Dice",
        "din_use_softmax": True,
        "dnn_hidden_units": [8],
        "dnn_activations": "relu",
        "net_dropout": 0,
        "batch_norm": False,
    }
    kinds = {"user_id": "user", "goods_id": "item", "cate_id": "item"}
    features = [[n, {"type": "categorical", "source": s}] for n, s in kinds.items()]
    batch = raw_batch(np.random.default_rng(7))
    items = {}
    for name in ("goods_id", "cate_id"):
        batch[f"hist_{name}"] = batch[f"hist_{name}"][:, ::-1]  # padded on the left
        both = (batch[f"hist_{name}"], batch[name][:, None])
        items[name] = np.concatenate(both, axis=1).reshape(-1)
    mask = (batch["hist_goods_id"] > 0).astype(np.float32)
    config = {"params": params, "features": features}
    with np.errstate(over="ignore"):
        expected = reference_of("fuxictr").longctr(
            named_by(model, keys), config, batch, items, mask
        )
    compare(model, batch, expected)


# ------------------------------------------------------------- what the specs mean


def parts(spec: FeatureSpec) -> list[tuple[str, str, int]]:
    return [(p.kind, p.name, p.width) for p in spec.tower_inputs]


def test_noshare_gives_the_history_tables_of_its_own() -> None:
    spec = deepctr_noshare()
    wanted = ["user_id", "goods_id", "cate_id", "hist_goods_id", "hist_cate_id"]
    assert list(spec.tables) == wanted
    assert {t.padding_row for t in spec.tables.values()} == {"trained"}
    assert spec.behavior[0].query == (("goods_id", 4), ("cate_id", 2))
    assert spec.behavior[0].attention.dice_affine


def test_quirks_pair_query_and_behavior_by_position_not_by_name() -> None:
    spec = deepctr_quirks()
    (history,) = spec.behavior
    assert history.query == (("goods_id", 4), ("cate_id", 2))
    assert [(f.table, f.dim) for f in history.fields] == [
        ("cate_id", 2),
        ("goods_id", 4),
    ]
    assert history.length_column == spec.multi_hot[0].length_column == "tag_length"
    assert "seq_length" not in spec.columns
    assert spec.columns.count("tag_length") == 1


def test_weight_normalization_is_softmax_with_the_padding_row_when_empty() -> None:
    spec = deepctr_softmax()
    (history,), (tag,) = spec.behavior, spec.multi_hot
    assert history.attention.softmax
    assert (history.padding, history.empty_softmax) == ("masked", "padding_row")
    assert (tag.pooling, tag.empty, tag.pad_inside) == ("max", -1e9, "dropped")
    assert parts(spec)[-1] == ("field", "price", 2)


def test_rechub_attends_padding_with_one_unit_per_field() -> None:
    spec = rechub_softmax()
    assert [s.query for s in spec.behavior] == [(("goods_id", 4),), (("cate_id", 4),)]
    assert [s.padding for s in spec.behavior] == ["attended", "attended"]
    assert spec.behavior[0].attention.dice_epsilon == 1e-3
    fixed = {i.name: i.fixed_length for i in spec.inputs if i.fixed_length}
    assert fixed == {"hist_goods_id": T, "hist_cate_id": T, "tag": T}
    names = [name for _, name, _ in parts(spec)]
    assert names.count("goods_id") == names.count("cate_id") == 2
    assert sum(p.width for p in spec.tower_inputs) == 2 * 4 + 4 * 4 + 4 + 4


def test_rechub_padding_idx_is_a_zero_row() -> None:
    spec = rechub_pad0()
    assert {t.padding_row for t in spec.tables.values()} == {"zero"}
    assert spec.model.attention.activation == "prelu"
    assert spec.model.attention.batch_norm


def test_recbole_attributes_are_looked_up_from_the_item() -> None:
    spec = recbole_rich()
    columns = ("goods_id", "hist_goods_id", "item_length")
    assert spec.columns == columns
    cate, tags, price = spec.derived
    assert cate.lookup[2] == (ITEM_CATES[2],)
    assert (tags.lookup[0], tags.lookup[2]) == ((), (2, 5))
    assert price.weights is not None
    assert price.weights[3] == (ITEM_PRICES[3],)
    assert [f.source for f in spec.behavior[0].fields] == [None] + ["hist_goods_id"] * 3
    width = [("interest", "history", 16), ("query", "history", 16)]
    assert parts(spec) == [*width, ("product", "history", 16)]
    assert recbole_rich("max").derived[1].empty == -1e9


def test_fuxictr_fields_are_attended_alone() -> None:
    spec = fuxictr_fields()
    assert [s.query for s in spec.behavior] == [(("goods_id", 4),), (("cate_id", 4),)]
    assert spec.model.attention.output_activation == "sigmoid"
    assert parts(spec)[1] == ("field", "price", 4)
    assert next(i.shape for i in spec.inputs if i.name == "price") == ("N", 1)


def test_fuxictr_cuts_the_pooled_vector_and_regresses() -> None:
    spec = fuxictr_relu()
    history = spec.tower_inputs[-2:]
    assert history == (
        Part("interest", "history", 0, 4),
        Part("interest", "history", 4, 8),
    )
    assert spec.model.link == "identity"
    assert spec.model.attention.activation == "relu"


def test_attributes_may_come_from_files(tmp_path: Path) -> None:
    raw = recbole_rich().to_dict()
    price = raw["derived"][2]
    del price["lookup"], price["weights"]
    price |= {"lookup_file": "price.txt", "weights_file": "amount.txt"}
    (tmp_path / "price.txt").write_text("0\n" * GOODS)
    (tmp_path / "amount.txt").write_text(
        "".join(f"{p!r}\n" for p in ITEM_PRICES.tolist())
    )
    spec = FeatureSpec.from_dict(raw, tmp_path)
    assert spec.derived == recbole_rich().derived


def test_a_length_beyond_the_list_is_refused_and_not_divided_by() -> None:
    batch = raw_batch(np.random.default_rng(0))
    batch["tag_length"] = np.full_like(batch["tag_length"], T + 1)
    with pytest.raises(InputError, match="tag_length"):
        deepctr_quirks().encode(batch)


def test_softmax_of_an_empty_history_needs_padding_there() -> None:
    raw = deepctr_softmax().to_dict()
    raw["behavior"][0] |= {"pad_value": 0}
    spec = FeatureSpec.from_dict(raw)
    batch = raw_batch(np.random.default_rng(0))
    batch["price"] = np.zeros((len(batch["tag"]), 2), np.float32)
    spec.encode(batch)
    (row,) = np.flatnonzero(batch["seq_length"] == 0)[1:2]
    batch["hist_cate_id"][row, 2] = 5
    with pytest.raises(InputError) as caught:
        spec.encode(batch)
    assert str(caught.value) == (
        "expected only 0 in a history of length 0, got another element - at"
        f" `hist_cate_id`, row {row}"
    )
    raw["model"]["attention"]["softmax"] = False  # then such a history has no weight
    FeatureSpec.from_dict(raw).encode(batch)


def test_a_column_read_as_number_and_as_bucket_converts(tmp_path: Path) -> None:
    buckets = {"type": "bucketize", "boundaries": [0.5, 2.0]}
    columns = {"price_step": "price", "count_step": "count"}
    steps = [
        {"name": n, "column": c, "dim": 4, "encoder": buckets}
        for n, c in columns.items()
    ]
    steps[1]["dtype"] = "int64"
    spec = FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [table("goods_id", GOODS), *steps],
            "behavior": [{"name": "h", "max_len": T, "fields": {"hist": "goods_id"}}],
            "dense": [{"name": "price", "side": "candidate"}],
            "model": {"attention": {"hidden": [3]}, "tower": {"hidden": [4]}},
        }
    )
    assert (
        convert(random_model(spec), tmp_path / "m.onnx").score_difference <= TOLERANCE
    )

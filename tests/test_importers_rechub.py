"""A DIN of torch-rechub scores as the library scored it, or is refused."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from din_converter.importers import whole_models
from din_converter.importers.torch_rechub import read
from din_converter.importers.unpickle import Inert, read_pickle
from tests.importing import (
    Arrays,
    check,
    left_padded,
    load_io,
    message_of,
    ragged,
    scores_of,
)
from tests.shared import SHARED, needs_shared

pytestmark = pytest.mark.slow

PEERS = SHARED / "peers" / "rechub"
STATE = PEERS / "tutorial_save" / "model.pth"
WHOLE = PEERS / "tutorial_whole_model.pth"
CONFIG = PEERS / "tutorial_config.json"
HISTORIES = ("hist_goods_id", "hist_cate_id")


@needs_shared
def test_a_state_dict_with_a_description_scores_as_the_library(tmp_path: Path) -> None:
    model = read(STATE, CONFIG)
    batch, expected = load_io(PEERS / "tutorial_io.npz")
    assert set(model.spec.columns) == set(batch)
    batches = {"as it is": batch, "padded on the left": left_padded(batch)}
    check(model, batches, expected, tmp_path)
    assert [f.name for f in model.spec.user] == ["user_id"]


@needs_shared
def test_with_the_length_of_training_ragged_lists_are_the_same(tmp_path: Path) -> None:
    batch, expected = load_io(PEERS / "tutorial_io.npz")
    batches = {
        "as it is": batch,
        "padded on the left": left_padded(batch),
        "ragged": ragged(batch),
    }
    check(read(WHOLE, max_len=10), batches, expected, tmp_path)
    config = json.loads(CONFIG.read_text())
    for feature in config["history_features"]:
        feature["max_len"] = 10
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read(STATE, tmp_path / "config.json").spec == read(WHOLE, max_len=10).spec


@needs_shared
def test_without_it_padding_is_the_callers(tmp_path: Path) -> None:
    """The library scores what it is given: a shorter list is another input."""
    batch, expected = load_io(PEERS / "tutorial_io.npz")
    model = read(WHOLE)
    short = {n: v[:, :5] if n in HISTORIES else v for n, v in batch.items()}
    weights = {k: t.numpy() for k, t in torch.load(STATE, weights_only=True).items()}
    config = json.loads(CONFIG.read_text())
    wanted = load_reference().forward(weights, config, short).astype(np.float64)
    assert np.abs(wanted - expected).max() > 0.01
    check(model, {"shorter": short}, wanted, tmp_path)
    rows = ragged(batch)
    for i in (1, 3):  # one row at a time, as long as it is
        row = {
            n: np.array(v[i])[None] if n in HISTORIES else v[i : i + 1]
            for n, v in rows.items()
        }
        alone = load_reference().forward(weights, config, row)
        np.testing.assert_allclose(scores_of(model, rows)[i], alone[0], atol=1e-5)


@needs_shared
def test_a_whole_model_alone_is_the_same() -> None:
    model, other = read(WHOLE), read(STATE, CONFIG)
    assert model.spec == other.spec
    mine, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)


@needs_shared
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model.net."])
@pytest.mark.parametrize("holder", ["", "state_dict", "model"])
def test_what_a_training_loop_wraps_is_the_same(
    prefix: str, holder: str, tmp_path: Path
) -> None:
    state = torch.load(STATE, weights_only=True)
    named = {prefix + k: v for k, v in state.items()}
    path = tmp_path / "m.pth"
    torch.save({holder: named, "epoch": 3} if holder else named, path)
    model, other = read(path, CONFIG), read(STATE, CONFIG)
    assert model.spec == other.spec
    mine, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)


@needs_shared
def test_a_parallel_model_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torch.load(STATE, weights_only=True)
    path = tmp_path / "m.pth"
    torch.save({f"module.{k}": v for k, v in state.items()}, path)
    assert read(path, CONFIG).spec == read(STATE, CONFIG).spec
    outer = Inert("torch.nn.parallel.data_parallel", "DataParallel", ())
    modules = {"module": read_pickle(WHOLE)}
    outer.attributes |= {"_parameters": {}, "_buffers": {}, "_modules": modules}
    alone = read(STATE, CONFIG).spec
    monkeypatch.setattr(whole_models, "read_pickle", lambda _: outer)
    assert read(path).spec == alone


# ----------------------------------------------------- checkpoints made for the tests

ROWS = {"user": 9, "item": 12, "cate": 6, "tag": 7}


def sparse(name: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    column = {"kind": "SparseFeature", "name": name, "vocab_size": ROWS.get(name, 12)}
    return column | {"embed_dim": 4, "shared_with": None, "padding_idx": None} | more


def history(name: str, owner: str | None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    column = sparse(name, shared_with=owner) | {"kind": "SequenceFeature"}
    column["vocab_size"] = ROWS.get(owner or name, 12)
    return column | {"pooling": "concat"} | more


def describe(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    made = {
        "features": [sparse("user")],
        "history_features": [
            history("hist_item", "item"),
            history("hist_cate", "cate"),
        ],
        "target_features": [sparse("item"), sparse("cate")],
        "mlp_params": {"dims": [6]},
        "attention_mlp_params": {"dims": [5, 3]},
    }
    return made | changes


def state_of(description: dict[str, Any]) -> dict[str, Tensor]:
    """Draw the state_dict that the library would have written."""
    torch.manual_seed(5)
    lists = ("features", "history_features", "target_features")
    features = [f for n in lists for f in description[n]]
    state: dict[str, Tensor] = {}
    for f in features:
        key = f"embedding.embed_dict.{f['name']}.weight"
        if f["shared_with"] is None and key not in state:
            state[key] = torch.randn(f["vocab_size"], f["embed_dim"])
            if f["padding_idx"] is not None:
                state[key][f["padding_idx"]] = 0

    def mlp(start: str, width: int, params: dict[str, Any], activation: str) -> None:
        for j, units in enumerate(params["dims"]):
            linear, norm, act = (f"{start}.{4 * j + k}" for k in range(3))
            state[f"{linear}.weight"] = torch.randn(units, width) / width**0.5
            state[f"{linear}.bias"] = torch.randn(units)
            for name in ("weight", "bias", "running_mean", "running_var"):
                state[f"{norm}.{name}"] = torch.rand(units) + 0.5
            state[f"{norm}.num_batches_tracked"] = torch.tensor(3)
            if activation == "dice":
                state[f"{act}.alpha"] = torch.randn(1)
            if activation == "prelu":
                state[f"{act}.weight"] = torch.rand(1)
            width = units
        if params.get("output_layer", True):
            last = f"{start}.{4 * len(params['dims'])}"
            state[f"{last}.weight"] = torch.randn(1, width)
            state[f"{last}.bias"] = torch.randn(1)

    params = description["attention_mlp_params"]
    for i, h in enumerate(description["history_features"]):
        start = f"attention_layers.{i}.attention.mlp"
        mlp(start, 4 * h["embed_dim"], params, params.get("activation", "dice"))
    width = sum(f["embed_dim"] for f in features)
    mlp("mlp.mlp", width, description["mlp_params"], "dice")
    return state


class Files:
    """A checkpoint and its description; changed on the way, or not."""

    def __init__(self, folder: Path) -> None:
        self.state, self.description = folder / "m.pth", folder / "m.json"

    def write(
        self,
        description: dict[str, Any],
        change: Callable[[dict[str, Tensor]], Any] = lambda _: None,
        of: dict[str, Any] | None = None,
    ) -> tuple[Path, Path]:
        state = state_of(of or description)
        change(state)
        torch.save(state, self.state)
        self.description.write_text(json.dumps(description))
        return self.state, self.description


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def batch_of(description: dict[str, Any], rows: int = 8, length: int = 5) -> Arrays:
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, length + 1, rows)
    lengths[:3] = 0, 1, length
    batch: Arrays = {}
    for part in ("features", "history_features", "target_features"):
        for f in description[part]:
            if f["kind"] == "SparseFeature":
                batch[f["name"]] = rng.integers(1, f["vocab_size"], rows)
            else:
                ids = rng.integers(1, f["vocab_size"], (rows, length))
                ids[np.arange(length) >= lengths[:, None]] = f["padding_idx"] or 0
                batch[f["name"]] = ids
    return batch


def load_reference() -> Any:  # noqa: ANN401
    found = importlib.util.spec_from_file_location(
        "ref_rechub", PEERS / "ref_rechub.py"
    )
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def reference_scores(description: dict[str, Any], batch: Arrays) -> Any:  # noqa: ANN401
    weights = {k: t.numpy() for k, t in state_of(description).items()}
    scores = load_reference().forward(weights, description, batch)
    return scores.astype(np.float64)


PADDED = [sparse("item", padding_idx=0), sparse("cate", padding_idx=0)]
POOLED = [
    sparse("user"),
    history("tags", None, pooling="mean", padding_idx=0, vocab_size=7),
    history("last", "item", pooling="sum", padding_idx=2),
    history("all", "cate", pooling="mean"),
    history("hist_item", "item", pooling="mean", padding_idx=0),
]
EXACT: dict[str, dict[str, Any]] = {
    "plain": describe(),
    "softmax": describe(attention_mlp_params={"dims": [4], "use_softmax": True}),
    "prelu": describe(attention_mlp_params={"dims": [4], "activation": "PReLU"}),
    "relu": describe(attention_mlp_params={"dims": [4], "activation": "relu"}),
    "pooled": describe(features=POOLED),
    "padding 3": describe(
        target_features=[sparse("item", padding_idx=3), sparse("cate")]
    ),
    "other pairs": describe(
        target_features=[sparse("cate"), sparse("item"), sparse("x")]
    ),
    "own tables": describe(
        history_features=[history("hist_item", None, padding_idx=0)]
    ),
}  # fmt: skip


@needs_shared
@pytest.mark.parametrize("name", EXACT)
def test_what_it_computes_is_the_librarys(
    files: Files, tmp_path: Path, name: str
) -> None:
    description = json.loads(json.dumps(EXACT[name]).replace("PReLU", "prelu"))
    batch = batch_of(description)
    expected = reference_scores(description, batch)
    check(read(*files.write(description)), {"padded": batch}, expected, tmp_path)


@needs_shared
def test_where_padding_adds_nothing_any_length_does(
    files: Files, tmp_path: Path
) -> None:
    description = describe(target_features=PADDED)
    batch = batch_of(description)
    expected = reference_scores(description, batch)
    longer = {n: np.pad(v, ((0, 0), (0, 3))) if v.ndim == 2 else v
              for n, v in batch.items()}  # fmt: skip
    batches = {
        "padded": batch,
        "on the left": left_padded(batch),
        "ragged": ragged(batch),
        "longer": longer,
    }
    model = read(*files.write(description))
    assert [s.padding for s in model.spec.behavior] == ["masked", "masked"]
    check(model, batches, expected, tmp_path)


@needs_shared
@pytest.mark.parametrize("padded", [False, True])
def test_softmax_counts_padding_too(files: Files, tmp_path: Path, padded: bool) -> None:
    description = describe(
        attention_mlp_params={"dims": [4], "use_softmax": True},
        **({"target_features": PADDED} if padded else {}),
    )
    batch = batch_of(description)
    expected = reference_scores(description, batch)
    model = read(*files.write(description), max_len=5)
    assert model.spec.behavior[0].padding == "attended"
    check(model, {"padded": batch, "ragged": ragged(batch)}, expected, tmp_path)


def test_leaky_relu_and_a_last_unit_without_output_layer(files: Files) -> None:
    params = {"dims": [4], "activation": "LeakyReLU"}
    model = read(*files.write(describe(attention_mlp_params=params)))
    state = model.state_dict()
    slopes = state["attentions.of_item_history.mlp.hidden.0.activation.weight"]
    assert slopes.tolist() == pytest.approx([0.01] * 4)
    params = {"dims": [3, 1], "output_layer": False}
    model = read(*files.write(describe(mlp_params=params)))
    state = model.state_dict()
    assert model.spec.model.tower.hidden == (3, 1)
    assert (state["tower.output.weight"].item(), state["tower.output.bias"].item()) == (
        1.0,
        0.0,
    )


def test_fields_are_on_the_side_that_is_said(files: Files) -> None:
    targets = [sparse("item"), sparse("cate"), sparse("shop")]
    description = describe(target_features=targets)
    paths = files.write(description)
    spec = read(*paths).spec
    assert [f.name for f in spec.user] == ["user"]
    assert [f.name for f in spec.candidate] == ["item", "cate", "shop"]
    assert [s.name for s in spec.behavior] == ["item_history", "cate_history"]
    other = read(*paths, user_fields=["shop"], candidate_fields=["user"])
    assert [f.name for f in other.spec.user] == ["shop"]
    assert [f.name for f in other.spec.candidate] == ["user", "item", "cate"]
    batch = batch_of(description)
    np.testing.assert_allclose(
        scores_of(other, batch), scores_of(read(*paths), batch), rtol=1e-6
    )
    assert message_of(read, *paths, user_fields=["item"]) == (
        "expected only names that can be user fields, got 'item', which the attention"
        " has as candidate - at `user_fields`"
    )


# ---------------------------------------------------------------------------- refusals

WRONG = "expected a torch-rechub DIN that can be reproduced exactly, got "
DENSE = {"kind": "DenseFeature", "name": "price", "embed_dim": 1}
REFUSED: dict[str, dict[str, Any]] = {
    "no features; no target_features": {
        k: v for k, v in describe().items() if k not in ("features", "target_features")
    },
    "history_features = [] instead of a list of at least one feature": describe(
        history_features=[]
    ),
    "unknown extra (known: features, history_features, target_features, mlp_params,"
    " attention_mlp_params, library, version, variant, state_dict)": describe(extra=1),
    "version = '0.1.0' instead of 0.9.0": describe(version="0.1.0"),
    "unknown mlp_params.activation (known: dims, dropout, output_layer)": describe(
        mlp_params={"dims": [6], "activation": "relu"}
    ),
    "unknown attention_mlp_params.dropout (known: dims, activation, use_softmax)":
        describe(attention_mlp_params={"dropout": 0.5}),
    "attention_mlp_params.activation = 'softmax' instead of one of dice, prelu,"
    " leakyrelu, relu, sigmoid, silu, identity": describe(
        attention_mlp_params={"activation": "softmax"}
    ),
    "features[1] as 'DenseFeature' instead of SparseFeature or SequenceFeature (which"
    " the library sizes but does not read)": describe(features=[sparse("user"), DENSE]),
    "features[0].vocab_size = 0 instead of a positive whole number": describe(
        features=[sparse("user", vocab_size=0)]
    ),
    "hist_item shared with shop, which has no table": describe(
        history_features=[history("hist_item", "shop")]
    ),
    "hist_item with embed_dim 3, its table has 4": describe(
        history_features=[history("hist_item", "item", embed_dim=3)]
    ),
    "2 histories and 1 targets": describe(
        target_features=[sparse("item")], features=[sparse("cate")]
    ),
    "features of one list with different embed_dim (user 4, shop 5)": describe(
        features=[sparse("user"), sparse("shop", embed_dim=5)]
    ),
    "a pair with different embed_dim (hist_item 4, other 5)": describe(
        history_features=[history("hist_item", "item")],
        features=[sparse("item")],
        target_features=[sparse("other", embed_dim=5)],
    ),
    "hist_item as a history without pooling = concat": describe(
        history_features=[history("hist_item", "item", pooling="mean")]
    ),
    "tags with pooling = concat outside the histories": describe(
        features=[history("tags", None)]
    ),
    "item, a SequenceFeature, as an attended target": describe(
        target_features=[history("item", None, pooling="mean"), sparse("cate")]
    ),
    "two histories hist_item": describe(
        history_features=[history("hist_item", "item"), history("hist_item", "item")]
    ),
    "two different features item": describe(features=[sparse("item", padding_idx=1)]),
    "item as one value and as a sequence": describe(
        features=[history("item", "cate", pooling="sum")]
    ),
    "item as one value and as a history": describe(
        history_features=[history("item", "cate")]
    ),
    "output_layer = false without a last layer of one unit": describe(
        mlp_params={"dims": [6], "output_layer": False}
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_exact_is_refused(files: Files, reason: str) -> None:
    paths = files.write(REFUSED[reason], of=describe())
    assert message_of(read, *paths) == f"{WRONG}{reason} - at `{files.description}`"


def test_a_length_needs_padding_by_id_0(files: Files) -> None:
    targets = [sparse("item", padding_idx=2), sparse("cate")]
    params = {"dims": [4], "use_softmax": True}
    description = describe(target_features=targets, attention_mlp_params=params)
    paths = files.write(description)
    read(*paths)
    assert message_of(read, *paths, max_len=5) == (
        f"{WRONG}max_len for hist_item, whose padding is not 0 but 2: send full lists"
        f" instead - at `{files.description}`"
    )
    assert message_of(read, *paths, max_len=0) == (
        "expected a positive whole number, got 0 - at `max_len`"
    )


def test_keys_and_shapes_that_contradict_are_listed_at_once(files: Files) -> None:
    def change(state: dict[str, Tensor]) -> None:
        del state["mlp.mlp.1.running_var"]
        state["mlp.mlp.8.bias"] = torch.ones(2)
        state["embedding.embed_dict.item.weight"] = torch.ones(13, 4)

    paths = files.write(describe(), change)
    assert message_of(read, *paths) == (
        "expected the weights of a torch-rechub DIN as described, got"
        " embedding.embed_dict.item.weight as [12, 4], not [13, 4];"
        f" missing mlp.mlp.1.running_var; unknown mlp.mlp.8.bias - at `{files.state}`"
    )


def test_a_state_dict_needs_a_description(files: Files) -> None:
    state, _ = files.write(describe())
    assert message_of(read, state) == (
        "expected a description of the features beside a state_dict, got none - at"
        f" `{state}`. Give it, or the whole model as torch.save(model, ...) writes it."
    )


def test_another_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(torch.nn.Linear(1, 1), path)
    assert message_of(read, path) == (
        "expected a state_dict or a DIN of torch-rechub, got"
        f" <torch.nn.modules.linear.Linear> - at `{path}`"
    )
    assert message_of(read, path, path) == (
        "expected a state_dict beside a description, got"
        f" <torch.nn.modules.linear.Linear> - at `{path}`"
    )


def part(model: Any, *names: str) -> Any:  # noqa: ANN401
    for name in names:
        model = model.attributes["_modules"][name]
    return model


def make_tanh(model: Any) -> None:  # noqa: ANN401
    for i in "01":
        for j in "26":
            unit = part(model, "attention_layers", i, "attention", "mlp", j)
            unit.class_name = "Tanh"


CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "another activation": (
        make_tanh,
        f"{WRONG}attention_mlp_params.activation = 'Tanh' instead of one of dice,"
        " prelu, leakyrelu, relu, sigmoid, silu, identity",
    ),
    "units that differ": (
        lambda m: part(m, "attention_layers", "0").attributes.update(use_softmax=True),
        "expected a DIN as torch-rechub 0.9.0 makes it, got attention units that"
        " differ",
    ),
    "another tower": (
        lambda m: [
            setattr(part(m, "mlp", "mlp", j), "class_name", "ReLU") for j in "26"
        ]
        and None,
        "expected a tower with Dice, as the library makes it, got relu",
    ),
    "other layers": (
        lambda m: setattr(part(m, "mlp", "mlp", "1"), "class_name", "LayerNorm"),
        "expected layers as torch-rechub 0.9.0 makes them, got Linear, LayerNorm, Dice,"
        " Dropout, Linear, BatchNorm1d, Dice, Dropout, Linear",
    ),
    "a subclass": (
        lambda m: setattr(m, "module_name", "__main__"),
        "expected a state_dict or a DIN of torch-rechub, got <__main__.DIN>",
    ),
    "no units": (
        lambda m: m.attributes["_modules"].pop("attention_layers") and None,
        "expected a DIN as torch-rechub 0.9.0 makes it, got no attention_layers",
    ),
    "no features": (
        lambda m: m.attributes.update(features=None),
        f"{WRONG}features = None instead of a list",
    ),
    "a feature of its own": (
        lambda m: setattr(m.attributes["features"][0], "class_name", "MyFeature"),
        f"{WRONG}features[0] as 'MyFeature' instead of SparseFeature or"
        " SequenceFeature; target_features[0] as 'MyFeature' instead of SparseFeature"
        " or SequenceFeature",
    ),
}  # fmt: skip


@needs_shared
@pytest.mark.parametrize("name", CHANGES)
def test_a_pickled_model_of_another_make_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = read_pickle(WHOLE)
    change, message = CHANGES[name]
    change(model)
    monkeypatch.setattr(whole_models, "read_pickle", lambda _: model)
    assert message_of(read, WHOLE) == f"{message} - at `{WHOLE}`"

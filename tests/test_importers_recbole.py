"""recbole checkpoints score external ids as recbole scores its own."""
# ruff: noqa: ANN401 - checkpoints hold anything

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from din_converter import convert
from din_converter.importers.recbole import read
from din_converter.model import ClickModel
from din_infer.errors import ConversionError, InputError
from din_infer.predictor import Predictor
from tests.recbole import DIM, ITEMS, SHOPS, TOKENS, T, Twin, batch_of, checkpoint, save
from tests.shared import SHARED, needs_shared

HERE = SHARED / "peers" / "recbole"
TOLERANCE = 1e-5

Batch = dict[str, Any]


def forms(
    names: tuple[str, str, str],
    tokens: list[str],
    item: NDArray[Any],
    past: NDArray[Any],
    length: NDArray[Any],
) -> list[Batch]:
    """Give a batch of internal ids as external ones, in every form users have."""
    one, many, number = names
    words = np.array(tokens)
    ragged = [
        [str(words[i]) for i in row[:n]] for row, n in zip(past, length, strict=True)
    ]
    width = past.shape[1]
    left = [["[PAD]"] * (width - len(row)) + row for row in ragged]
    base = {one: words[item]}
    return [
        base | {many: words[past], number: length},
        base | {many: words[past]},
        base | {many: np.array(left)},
        base | {many: ragged},
        base | {many: ragged, number: length},
        base | {many: [row if row else None for row in ragged]},
    ]


def check(
    model: ClickModel, batches: list[Batch], logits: NDArray[Any], folder: Path
) -> None:
    """Convert, and compare every batch with the library, fused and not."""
    expected = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert expected.std() > 0.01
    convert(model, folder / "m.onnx")
    for fused in (True, False):
        predictor = Predictor(folder / "m.onnx", device="cpu", threads=1, fused=fused)
        for batch in batches:
            scores = predictor.score(batch)
            np.testing.assert_allclose(scores, expected, rtol=0, atol=TOLERANCE)
            raw = predictor.score(batch, raw=True)
            np.testing.assert_allclose(raw, logits, rtol=TOLERANCE, atol=TOLERANCE)


@needs_shared
def test_stored_checkpoint_scores_external_ids_as_the_library_does(
    tmp_path: Path,
) -> None:
    (path,) = (HERE / "saved_default").glob("DIN-*.pth")
    tokens = json.loads((HERE / "default_config.json").read_text())["id2token"]
    with np.load(HERE / "default_io.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    names = ("goods_id", "goods_id_list", "item_length")
    batches = forms(names, tokens["goods_id"], *(arrays[f"in_{n}"] for n in names))
    model = read(path)
    check(model, batches, arrays["expected_logit"], tmp_path)
    predictor = Predictor(tmp_path / "m.onnx", device="cpu")
    np.testing.assert_allclose(
        predictor.score(batches[0]), arrays["expected"], rtol=0, atol=TOLERANCE
    )
    assert model.spec.columns == ("goods_id", "goods_id_list")
    written = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert b"g72" in written  # an item
    for word in (b'"u1"', b'"s15"', b"user_id", b"timestamp", b"gender", b"m0"):
        assert word not in written


def read_twin(
    twin: Twin, folder: Path, change: Callable[[dict[str, Any]], None] | None = None
) -> ClickModel:
    content = checkpoint(twin)
    if change is not None:
        change(content)
    save(content, folder / "DIN.pth")
    return read(folder / "DIN.pth")


NAMES = ("item_id", "item_id_list", "item_length")


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_every_kind_of_attribute_is_a_constant(pooling: str, tmp_path: Path) -> None:
    twin = Twin(pooling)
    ids = batch_of()
    with torch.inference_mode():
        logits = twin(*map(torch.from_numpy, ids)).numpy()
    model = read_twin(twin, tmp_path)
    check(model, forms(NAMES, TOKENS, *ids), logits, tmp_path)
    assert [d.name for d in model.spec.derived] == ["shop", "tags", "price", "sizes"]
    assert model.spec.behavior[0].width == 5 * DIM


def test_pooling_by_maximum_is_a_constant(tmp_path: Path) -> None:
    twin = Twin("max")
    twin.feat["tags"][3] = 0  # an item without any
    ids = batch_of()
    with torch.inference_mode():
        logits = twin.double()(*map(torch.from_numpy, ids)).numpy()
    model = read_twin(twin.float(), tmp_path).double()
    batch = forms(NAMES, TOKENS, *ids)[0]
    encoded = {k: torch.from_numpy(v) for k, v in model.spec.encode(batch).items()}
    with torch.inference_mode():
        found = model(encoded).numpy()
    assert np.isfinite(logits).all()
    assert (np.abs(logits) > 1e6).any()
    assert (np.abs(logits) < 1e2).any()
    np.testing.assert_allclose(found, logits, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_null_inside_a_history_is_the_librarys_padding_item(tmp_path: Path) -> None:
    twin = Twin()
    item, past, length = batch_of()
    past[:, 1] = 0
    with torch.inference_mode():
        logits = twin(*map(torch.from_numpy, (item, past, length))).numpy()
    lists = [
        [TOKENS[i] if i else None for i in row[:n]]
        for row, n in zip(past, length, strict=True)
    ]
    batch = {"item_id": np.array(TOKENS)[item], "item_id_list": lists}
    check(read_twin(twin, tmp_path), [batch], logits, tmp_path)


def test_nothing_of_the_training_data_reaches_the_model(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    model = read_twin(Twin(), tmp_path)
    convert(model, out / "m.onnx")
    saved = (tmp_path / "DIN.pth").read_bytes()
    written = b"".join(p.read_bytes() for p in out.iterdir())
    rating = np.full(4, 777.25, np.float32).tobytes()
    user = np.arange(7777, 7779).tobytes()
    for word in (b"secret", b"inter_feat", b"user_id", rating, user):
        assert word not in written
    for word in (b"inter_feat", rating, user):
        assert word in saved
    text = model.spec.to_json()
    assert "user_id" not in text
    assert "unused" not in text
    assert set(model.spec.tables) == {"item_id", "shop", "tags", "price", "sizes"}


def test_an_item_that_the_training_did_not_have_cannot_be_scored(
    tmp_path: Path,
) -> None:
    convert(read_twin(Twin(), tmp_path), tmp_path / "m.onnx")
    predictor = Predictor(tmp_path / "m.onnx", device="cpu")
    batch = {"item_id": ["item a", "new"], "item_id_list": [[], []]}
    with pytest.raises(InputError) as caught:
        predictor.score(batch)
    assert str(caught.value) == (
        "expected a value of the vocabulary, got 'new' - at `item_id`, row 1"
    )


# ---------------------------------------------------------------------------- refusals


def refused(
    folder: Path,
    change: Callable[[dict[str, Any]], None] | None = None,
    **more: Any,
) -> str:
    content = checkpoint(Twin())
    if change is not None:
        change(content)
    save(content, folder / "DIN.pth")
    with pytest.raises(ConversionError) as caught:
        read(folder / "DIN.pth", **more)
    return str(caught.value).replace(f"{folder}/", "")


def layer_of(content: dict[str, Any]) -> dict[str, Any]:
    return vars(content["other_parameter"]["embedding_layer"])


def test_weights_that_do_not_fit_are_listed_at_once(tmp_path: Path) -> None:
    prefix = "embedding_layer.token_embedding_table.item.embedding"

    def change(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        del state["attention.dense.bias"], state["dnn_mlp_layers.mlp_layers.5.weight"]
        state[f"{prefix}.weight"] = torch.zeros(SHOPS + ITEMS + 1, DIM)
        state["linear.weight"] = torch.zeros(2)
        state["dnn_predict_layers.bias"] = torch.zeros(1, dtype=torch.int32)

    assert refused(tmp_path, change) == (
        "expected the weights of a recbole DIN as described, got "
        f"{prefix}.weight as [14, 4], not [15, 4]; missing attention.dense.bias; "
        "missing dnn_mlp_layers.mlp_layers.5.weight; dnn_predict_layers.bias as "
        "floats, not torch.int32; unknown linear.weight - at `DIN.pth`"
    )


def test_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        config = content["config"].final_config_dict
        del config["LIST_SUFFIX"], config["ITEM_ID_FIELD"]
        config |= {"mlp_hidden_size": 6, "model": "DIEN"}

    assert refused(tmp_path, change) == (
        "expected the configuration of recbole's DIN, got no ITEM_ID_FIELD; no "
        "LIST_SUFFIX; mlp_hidden_size 6; model 'DIEN' - at `DIN.pth: config`"
    )

    def sizes(content: dict[str, Any]) -> None:
        content["config"].final_config_dict |= {"mlp_hidden_size": [6, "3"]}

    assert refused(tmp_path, sizes) == (
        "expected the configuration of recbole's DIN, got sizes [5, 4, 6, '3'] - at "
        "`DIN.pth: config`"
    )


def test_file_that_is_another_checkpoint_is_refused(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        del content["other_parameter"], content["config"]

    rule = "expected a checkpoint of recbole 1.2, got"
    assert refused(tmp_path, change) == (
        f"{rule} no config, other_parameter - at `DIN.pth`"
    )

    def empty(content: dict[str, Any]) -> None:
        content["other_parameter"] = {}

    assert refused(tmp_path, empty) == (
        f"{rule} no embedding_layer in other_parameter - at `DIN.pth`"
    )
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ConversionError) as caught:
        read(tmp_path / "list.pth")
    assert str(caught.value) == (
        f"{rule} no config, state_dict, other_parameter - at `{tmp_path}/list.pth`"
    )


def test_items_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        layer = layer_of(content)
        layer["pooling_mode"] = "first"
        layer["token_field_offsets"]["item"] = np.array([0, 4])
        layer["token_seq_field_dims"]["item"] = [3]
        layer["dataset"].field2id_token["item_id"] = np.array(TOKENS[:-1])
        feat = layer["item_feat"].interaction
        feat["shop"] = feat["shop"][1:]
        feat["item_id"] = feat["item_id"].flip(0)
        feat["price"] = feat["price"][:, 0]
        feat["sizes"][1, 0, 0] = np.nan

    assert refused(tmp_path, change) == (
        "expected item features that can be reproduced, got pooling_mode 'first'; "
        "token_field_offsets array([0, 4]), not [0, 5]; tags with ids outside 0..2; "
        "price as 2 axes, not [9]; sizes with other elements than finite pairs; "
        "8 tokens of item_id from [PAD], not 9 from [PAD]; item_id in item_feat that "
        "is not 0..8; shop of 8 items, not 9 - at `DIN.pth: embedding_layer`"
    )


def test_missing_parts_of_the_items_are_named(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        layer = layer_of(content)
        del layer["item_feat"], layer["float_field_names"]
        layer["dataset"] = None
        layer["float_seq_field_dims"] = {"item": [0]}

    assert refused(tmp_path, change) == (
        "expected item features that can be reproduced, got no item_feat; shop as 1 "
        "axes, not nothing; item_id as 1 axes, not nothing; tags as 2 axes, not "
        "nothing; no float_field_names; float_seq_field_dims [0]; no field2id_token of "
        "item_id; no token field item_id - at `DIN.pth: embedding_layer`"
    )


def test_there_is_no_side_to_choose(tmp_path: Path) -> None:
    rule = "expected no field to move, since recbole's DIN reads items alone (item_id)"
    assert refused(tmp_path, user_fields=["item_id"]) == (
        f"{rule}, got 'item_id' - at `user_fields`"
    )
    assert refused(tmp_path, candidate_fields=["shop", "item_id"]) == (
        f"{rule}, got 'shop' - at `candidate_fields`"
    )
    read(tmp_path / "DIN.pth", candidate_fields=["item_id"])
    assert read(tmp_path / "DIN.pth").spec.behavior[0].max_len == T

"""What FuxiCTR's files say is refused when it is wrong or cannot be reproduced."""
# ruff: noqa: ANN401 - configurations hold anything

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from din_converter import convert
from din_converter.importers.fuxictr import read
from din_infer.errors import ConversionError, InputError
from din_infer.predictor import Predictor
from tests.fuxictr import (
    AVERAGE,
    CATES,
    GOODS,
    SINGLE,
    TAGS,
    USERS,
    Files,
    T,
    batch_of,
    column,
    config_of,
    long_shop,
    shop,
)
from tests.shared import SHARED, needs_shared

HERE = SHARED / "peers" / "fuxictr"


def test_missing_unknown_and_misshapen_weights_are_listed_at_once(
    tmp_path: Path,
) -> None:
    files = Files(tmp_path)
    prefix = "embedding_layer.embedding_layers"
    del files.state["dnn.mlp.0.bias"], files.state[f"{prefix}.cate.weight"]
    files.state["lr.weight"] = torch.zeros(1)
    files.state["dnn.mlp.4.weight"] = torch.zeros(2, 5)
    files.state[f"{prefix}.user_id.weight"] = torch.zeros(USERS, 4, dtype=torch.int64)
    files.state[f"{prefix}.hist_goods.weight"] = torch.zeros(GOODS, 4)
    assert files.refused() == (
        "expected the weights of a FuxiCTR DIN as described, got "
        f"{prefix}.user_id.weight as floats, not torch.int64; "
        f"missing {prefix}.cate.weight; "
        f"{prefix}.hist_goods.weight other than {prefix}.goods.weight, whose table it "
        "shares; missing dnn.mlp.0.bias; dnn.mlp.4.weight as [1, 5], not [2, 5]; "
        "unknown lr.weight - at `exp.model`"
    )
    assert not (tmp_path / "m.onnx").exists()


def test_row_that_mean_pooling_takes_for_padding_is_refused(tmp_path: Path) -> None:
    files = Files(tmp_path)
    key = "embedding_layer.embedding_layers.tag.weight"
    files.state[key][2] = torch.tensor([1.0, -1.0, 0.5, -0.5])
    assert files.refused() == (
        "expected the weights of a FuxiCTR DIN as described, got row 2 of tag's table "
        "sums to 0, which MaskedAveragePooling takes for padding - at `exp.model`"
    )


def test_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.read()
    path = tmp_path / "exp.model"
    rule = "expected the state_dict that FuxiCTR's save_weights wrote, got"

    def refused() -> str:
        with pytest.raises(ConversionError) as caught:
            read(
                path,
                feature_map=tmp_path / "feature_map.json",
                model_config=tmp_path / "model_config.yaml",
            )
        return str(caught.value).replace(f"{tmp_path}/", "")

    torch.save([1], path)
    assert refused() == f"{rule} a list - at `exp.model`"
    path.write_bytes(pickle.dumps(re.compile("a")))
    assert refused() == f"{rule} another kind of file - at `exp.model`"
    torch.save(files.twin, path)
    assert refused().startswith(f"{rule} a pickle that is not weights only (<")
    path.write_bytes(b"PK\x03\x04 cut off")
    assert refused().startswith(f"{rule} a file that is cut off or damaged (")
    path.unlink()
    assert refused().startswith(f"{rule} [Errno 2] No such file or directory")


def test_first_version_is_refused_by_name(tmp_path: Path) -> None:
    rule = "expected a checkpoint of FuxiCTR 2.x, got"
    fix = "This is FuxiCTR 1.x, whose DIN has no mask; train it again with 2.x."
    files = Files(tmp_path)
    files.state["dnn.dnn.0.weight"] = torch.zeros(1)
    got = "keys like dnn.dnn.0.weight"
    assert files.refused() == f"{rule} {got} - at `exp.model`. {fix}"
    old = config_of(din_query_field="goods", din_history_field="hist_goods")
    files = Files(tmp_path, None, old)
    got = "din_query_field, din_history_field"
    assert files.refused() == f"{rule} {got} - at `model_config.yaml: exp`. {fix}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "while parsing a flow sequence "),
        ("exp: !!python/object/apply:os.system ['true']", "could not determine a "),
        ("exp: !!python/name:os.system", "could not determine a constructor for the "),
        ("- 1", "a list - at"),
    ],
)
def test_file_that_is_no_plain_yaml_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    files.yaml = text
    rule = "expected YAML with one section per experiment, got "
    assert files.refused().startswith(rule + message)


def test_experiment_is_named_or_the_only_one(tmp_path: Path) -> None:
    files = Files(tmp_path)
    one = {"Base": {"embedding_dim": 4, "verbose": 0}, "other": config_of()}
    del one["other"]["embedding_dim"]
    files.yaml = yaml.safe_dump(one)
    files.read()
    files.read(experiment="other")
    assert files.refused(experiment="exp") == (
        "expected an experiment `exp`, got other - at `model_config.yaml`. Say which "
        "with `experiment`."
    )
    files.yaml = yaml.safe_dump(one | {"third": {}})
    assert files.refused() == (
        "expected an experiment `exp`, got other, third - at `model_config.yaml`. Say "
        "which with `experiment`."
    )
    files.yaml = yaml.safe_dump({"Base": {}})
    assert files.refused() == (
        "expected an experiment `exp`, got none - at `model_config.yaml`"
    )


def test_all_that_is_wrong_with_a_configuration_is_said(tmp_path: Path) -> None:
    files = Files(tmp_path)
    wrong = config_of(
        model="DIEN",
        dnn_activations=["relu", "Dice"],
        attention_hidden_activations="tanh",
        attention_output_activation="softmax",
        attention_hidden_units=6,
        net_dropout=[0.1],
        batch_norm="yes",
        din_use_softmax=1,
        task="multiclass",
        max_len=-1,
    )
    del wrong["embedding_dim"]
    files.yaml = yaml.safe_dump({"exp": wrong})
    words = "dice, prelu, leakyrelu, relu, sigmoid, silu, identity"
    same = f"(the same for all layers, one of {words})"
    assert files.refused() == (
        "expected a DIN's configuration that can be reproduced, got no embedding_dim; "
        "model 'DIEN' (DIN); attention_output_activation 'softmax' (null, relu, "
        "sigmoid, silu, identity); task 'multiclass' (binary_classification or "
        "regression); max_len -1 (a size); attention_hidden_units 6 (a list of sizes); "
        f"attention_hidden_activations 'tanh' {same}; "
        f"dnn_activations ['relu', 'Dice'] {same}; "
        "net_dropout [0.1] (a number, or one per layer); batch_norm 'yes' (true or "
        "false); din_use_softmax 1 (true or false) - at `model_config.yaml: exp`"
    )


UNITS = "din_target_field and din_sequence_field"
EQUAL = f"{UNITS} with as many names in every unit, got "


@pytest.mark.parametrize(
    ("targets", "sequences", "message"),
    [
        (
            None,
            "hist_goods",
            f"{EQUAL}no din_target_field - at `model_config.yaml: exp`",
        ),
        (
            ["goods", ["cate"]],
            [[], 3],
            f"{EQUAL}din_sequence_field [[], 3] - at `model_config.yaml: exp`",
        ),
        (
            [["goods", "cate"]],
            ["hist_goods"],
            f"{EQUAL}targets [('goods', 'cate')] and sequences [('hist_goods',)] - at "
            "`model_config.yaml: exp`",
        ),
        (
            ["tag", "nothing", "cate"],
            ["hist_goods", "tag", "hist_goods"],
            f"{UNITS} that FuxiCTR can attend to, got tag is a pooled sequence "
            "feature, not a categorical feature; nothing is unknown, not a categorical "
            "feature; tag is a pooled sequence feature, not a sequence feature; "
            "hist_goods is attended twice - at `model_config.yaml: exp`",
        ),
    ],
)
def test_fields_that_do_not_pair_are_refused(
    targets: Any,
    sequences: Any,
    message: str,
    tmp_path: Path,
) -> None:
    files = Files(tmp_path)
    config = config_of(din_target_field=targets, din_sequence_field=sequences)
    if targets is None:
        del config["din_target_field"]
    files.yaml = yaml.safe_dump({"exp": config})
    assert files.refused() == f"expected {message}"


def test_sizes_that_the_library_could_not_attend_to_are_refused(
    tmp_path: Path,
) -> None:
    files = Files(tmp_path)
    changes = {"hist_cate": {"embedding_dim": 6, "max_len": 9}}
    files.map["features"] = shop(**changes)
    assert files.refused() == (
        f"expected {UNITS} that FuxiCTR can attend to, got hist_goods + hist_cate of "
        "width 10, not 2 * embedding_dim = 8; max_len {'hist_goods': 5, "
        "'hist_cate': 9} in one unit - at `model_config.yaml: exp`"
    )


def test_sequence_that_nothing_pools_is_refused(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.yaml = yaml.safe_dump({"exp": config_of(**SINGLE)})
    assert files.refused() == (
        "expected a feature_encoder in every sequence that is not attended, got "
        "hist_goods - at `feature_map.json`"
    )


def test_features_that_cannot_be_reproduced_are_all_named(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.map["features"] = shop(
        user_id={"category_processor": "hash_bucket"},
        hist_cate={"padding_idx": 6, "max_len": 5},
        price={"feature_encoder": "nn.Linear(4, 4)"},
        goods={"vocab_size": None, "embedding_dim": "8"},
        cate={"type": "embedding"},
        tag={"feature_encoder": [AVERAGE, "nn.ReLU()"]},
        hist_goods={"share_embedding": "price", "pretrained_emb": "x.h5"},
    )
    assert files.refused() == (
        "expected features that can be reproduced, got user_id: category_processor "
        "'hash_bucket', which FuxiCTR does not encode; hist_cate: padding_idx 6, where "
        "DIN's mask takes 0; price: feature_encoder 'nn.Linear(4, 4)'; goods: "
        "embedding_dim '8', vocab_size None; cate: type 'embedding'; tag: "
        f"feature_encoder ['{AVERAGE}', 'nn.ReLU()'] - at `feature_map.json`"
    )


def test_pretrained_table_is_read_where_it_is_a_plain_one(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.map["features"] = shop(user_id={"pretrained_emb": "p.h5"})
    files.read()
    prefix = "embedding_layer.embedding_layers.user_id"
    table = files.state.pop(f"{prefix}.weight")
    files.state[f"{prefix}.id_embedding.weight"] = table
    assert files.refused() == (
        "expected the weights of a FuxiCTR DIN as described, got missing "
        f"{prefix}.weight; user_id with a pretrained embedding, which is more than a "
        f"table; unknown {prefix}.id_embedding.weight - at `exp.model`"
    )


def test_feature_map_that_is_none_or_of_other_data_is_refused(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.map["dataset_id"] = "other"
    assert files.refused() == (
        "expected dataset_id 'shop', as in model_config.yaml: exp, got 'other' - at "
        "`feature_map.json`"
    )
    files.map["features"] = ["user_id"]
    assert files.refused() == (
        "expected `features`, a list of objects {name: {..}}, got ['user_id'] - at "
        "`feature_map.json`"
    )
    files.map = []  # type: ignore[assignment]
    assert files.refused() == (
        "expected a JSON object, got a list - at `feature_map.json`"
    )
    files = Files(tmp_path)
    specs = [{"name": "colour", "embedding_dim": 2}, 3]
    config = config_of(use_features=["goods", "size"], feature_specs=specs)
    files.yaml = yaml.safe_dump({"exp": config})
    assert files.refused() == (
        "expected the features that model_config.yaml: exp names, got no 'size'; no "
        "'colour'; no None - at `feature_map.json`"
    )


def test_longctr_items_are_categorical(tmp_path: Path) -> None:
    config = config_of(max_len=T)
    files = Files(tmp_path, long_shop(), config, is_long=True)
    for f in files.map["features"]:
        for name, spec in f.items():
            spec["source"] = "item" if name in ("age", "tag") else ""
    rule = "expected categorical features of source item, each beside its history, got"
    assert files.refused() == (
        f"{rule} age of type numeric; tag of type sequence - at `feature_map.json`"
    )
    for f in files.map["features"]:
        for spec in f.values():
            spec["source"] = ""
    assert files.refused() == f"{rule} none - at `feature_map.json`"
    files.map["features"][0]["cate"]["source"] = "item"
    files.map["features"].append({"hist_cate": column("categorical", 3)})
    assert files.refused() == (
        f"{rule} hist_cate, the name of a history - at `feature_map.json`"
    )


def vocabulary_of(size: int) -> dict[str, int]:
    return (
        {"__PAD__": 0}
        | {f"v{i}": i for i in range(1, size - 1)}
        | {"__OOV__": size - 1}
    )


def test_vocabularies_must_be_whole_and_shared_ones_equal(tmp_path: Path) -> None:
    files = Files(tmp_path)
    vocabularies: dict[str, Any] = {
        "user_id": vocabulary_of(USERS),
        "hist_cate": vocabulary_of(CATES),
        "goods": vocabulary_of(GOODS),
        "cate": vocabulary_of(CATES),
        "tag": vocabulary_of(TAGS),
        "hist_goods": vocabulary_of(GOODS),
    }
    path = tmp_path / "feature_vocab.json"
    path.write_text(json.dumps(vocabularies))
    model = files.read(feature_vocab=path)
    assert model.spec.user[0].encoder.values == tuple(f"v{i}" for i in range(1, 10))
    del vocabularies["user_id"]
    vocabularies["tag"]["v9"] = 9
    vocabularies["cate"] |= {"__OOV__": 1, "v1": CATES - 1}
    vocabularies["hist_goods"]["v1"] = 2
    vocabularies["hist_cate"] |= {"v1": "1"}
    path.write_text(json.dumps(vocabularies))
    assert files.refused(feature_vocab=path) == (
        "expected per feature __PAD__ = 0, values from 1 without a gap, __OOV__ last, "
        "got no user_id; hist_cate with ids that are not 0..6; cate from __PAD__ to "
        "v1; tag with ids that are not 0..5; hist_goods other than goods, whose table "
        "it shares - at `feature_vocab.json`. Leave the vocabulary out to send ids."
    )


def test_id_outside_the_table_is_an_input_error(tmp_path: Path) -> None:
    convert(Files(tmp_path).read(), tmp_path / "m.onnx")
    batch = batch_of() | {"goods": np.full(24, GOODS)}
    with pytest.raises(InputError, match=re.escape("expected an id in [0, 13)")):
        Predictor(tmp_path / "m.onnx", device="cpu").score(batch)


@needs_shared
def test_stored_files_are_refused_when_they_are_not_of_one_training(
    tmp_path: Path,
) -> None:
    shutil.copy(HERE / "checkpoints" / "long_seq" / "longctr.model", tmp_path)
    with pytest.raises(ConversionError) as caught:
        read(
            tmp_path / "longctr.model",
            feature_map=HERE / "data" / "long_seq" / "feature_map.json",
            model_config=HERE / "classic_tuple_model_config.yaml",
        )
    assert str(caught.value) == (
        "expected dataset_id 'shop_seq', as in "
        f"{HERE}/classic_tuple_model_config.yaml: classic_tuple, got "
        f"'long_seq' - at `{HERE}/data/long_seq/feature_map.json`"
    )

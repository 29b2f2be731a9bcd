"""FuxiCTR checkpoints score as FuxiCTR scores them, or are refused with the reason.

The stored checkpoints have the library's own scores; the twin in tests/fuxictr.py
computes what the library computes for all that the stored ones do not have.
"""
# ruff: noqa: ANN401 - configurations hold anything

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from din_converter import convert
from din_converter.importers.fuxictr import read
from din_converter.model import ClickModel
from din_infer.predictor import Predictor
from tests.fuxictr import (
    AVERAGE,
    SINGLE,
    SUM,
    Batch,
    Files,
    T,
    batch_of,
    config_of,
    long_shop,
    shop,
)
from tests.shared import SHARED, needs_shared

pytestmark = pytest.mark.slow

HERE = SHARED / "peers" / "fuxictr"
TOLERANCE = 1e-5


# ------------------------------------------------------------ stored checkpoints


def check(
    model: ClickModel, batches: Iterable[Batch], expected: NDArray[Any], folder: Path
) -> None:
    """Convert, and compare every batch with the library, fused and not."""
    expected = expected.reshape(-1)
    assert expected.std() > 0.01
    convert(model, folder / "m.onnx")
    bound = TOLERANCE
    if model.spec.model.link == "identity":
        bound *= max(1.0, float(np.abs(expected).max()))
    for fused in (True, False):
        predictor = Predictor(folder / "m.onnx", device="cpu", threads=1, fused=fused)
        for batch in batches:
            scores = predictor.score(batch)
            np.testing.assert_allclose(scores, expected, rtol=0, atol=bound)


def stored(name: str, prefix: str = "in_") -> Batch:
    with np.load(HERE / f"{name}_io.npz") as arrays:
        return {k.removeprefix(prefix): arrays[k] for k in arrays if prefix in k}


def expected_of(name: str) -> NDArray[Any]:
    with np.load(HERE / f"{name}_io.npz") as arrays:
        return np.asarray(arrays["expected"])


def ragged(matrix: NDArray[Any]) -> list[list[Any]]:
    return [[v for v in row if v] for row in matrix.tolist()]


def lists_of(batch: Batch) -> list[str]:
    return [k for k, v in batch.items() if np.ndim(v) == 2 and np.shape(v)[1] > 1]


def forms(batch: Batch) -> list[Batch]:
    """Give a batch of padded matrices in every form: other side, wider, ragged."""
    lists = lists_of(batch)
    left, wide, rag = dict(batch), dict(batch), dict(batch)
    for name in lists:
        matrix = np.asarray(batch[name])
        rag[name] = ragged(matrix)
        rows = [r[-matrix.shape[1] :] for r in rag[name]]
        full = [np.zeros(matrix.shape[1] - len(r), int).tolist() for r in rows]
        starts = matrix[:, 0] == 0
        is_left = bool((starts & matrix.any(axis=1)).any())
        turned = [r + f if is_left else f + r for r, f in zip(rows, full, strict=True)]
        left[name] = np.array(turned)
        wide[name] = np.pad(matrix, ((0, 0), (2, 3)))
    return [batch, left, wide, rag]


def classic(**more: Any) -> ClickModel:
    return read(
        HERE / "checkpoints" / "shop_seq" / "classic_tuple.model",
        feature_map=HERE / "data" / "shop_seq" / "feature_map.json",
        model_config=HERE / "classic_tuple_model_config.yaml",
        **more,
    )


@needs_shared
def test_classic_checkpoint_scores_as_the_library_does(tmp_path: Path) -> None:
    batch = stored("classic_tuple")
    check(classic(), forms(batch), expected_of("classic_tuple"), tmp_path)


@needs_shared
def test_longctr_checkpoint_scores_as_the_library_does(tmp_path: Path) -> None:
    config = json.loads((HERE / "longctr_config.json").read_text())["params"]
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump({"longctr": config}))
    model = read(
        HERE / "checkpoints" / "long_seq" / "longctr.model",
        feature_map=HERE / "data" / "long_seq" / "feature_map.json",
        model_config=tmp_path / "model_config.yaml",
    )
    batch = stored("longctr")
    for name, items in stored("longctr", "item_").items():
        if name in ("goods_id", "shop_id", "cate_id"):
            rows = items.reshape(len(batch["user_id"]), -1)
            batch[f"hist_{name}"], batch[name] = rows[:, :-1], rows[:, -1]
    check(model, forms(batch), expected_of("longctr"), tmp_path)
    assert [f.side for f in model.spec.user] == ["user"] * 3
    assert [f.name for f in model.spec.candidate] == ["goods_id", "shop_id", "cate_id"]


@needs_shared
def test_raw_strings_score_as_their_ids_do(tmp_path: Path) -> None:
    folder = HERE / "data" / "shop_seq"
    model = classic(feature_vocab=folder / "feature_vocab.json")
    ids = stored("classic_tuple")
    with (folder / "test.csv").open() as file:
        rows = list(csv.DictReader(file))[: len(ids["user_id"])]
    lists = lists_of(ids)
    # "".split("^") is [""], as it is in FuxiCTR, whose padding the empty string is
    raw: Batch = {
        name: [r[name].split("^") if name in lists else r[name] for r in rows]
        for name in ids
    }
    raw["price"] = [float(p) for p in raw["price"]]
    assert raw["hist_goods_id"][0] == [""]
    no_empty = raw | {n: [[v for v in r if v] for r in raw[n]] for n in lists}
    padded = dict(raw)
    for name in lists:
        width = ids[name].shape[1]
        padded[name] = np.array([r + [""] * (width - len(r)) for r in raw[name]])
    check(model, [raw, no_empty, padded], expected_of("classic_tuple"), tmp_path)


@needs_shared
def test_value_outside_the_vocabulary_reads_the_row_of_oov(tmp_path: Path) -> None:
    folder = HERE / "data" / "shop_seq"
    vocabulary = json.loads((folder / "feature_vocab.json").read_text())
    by_id, by_text = classic(), classic(feature_vocab=folder / "feature_vocab.json")
    ids = stored("classic_tuple")
    last = {n: max(v.values()) for n, v in vocabulary.items()}
    texts: Batch = {"price": ids["price"]}
    for name, table in vocabulary.items():
        names = {i: text for text, i in table.items()} | {0: "", last[name]: "new"}
        ids[name] = np.where(ids[name] % 5 == 1, last[name], ids[name])
        texts[name] = np.vectorize(names.get)(ids[name])
    scores = []
    for model, batch in ((by_id, ids), (by_text, texts)):
        convert(model, tmp_path / "m.onnx")
        scores.append(Predictor(tmp_path / "m.onnx", device="cpu").score(batch))
    np.testing.assert_array_equal(*scores)


def compare(files: Files, batch: Batch, *, all_forms: bool = True) -> ClickModel:
    model = files.read()
    with torch.inference_mode():
        inputs = {k: torch.from_numpy(np.asarray(v)) for k, v in batch.items()}
        expected = files.twin(inputs).numpy()
    batches = forms(batch) if all_forms else [batch]
    check(model, batches, expected, files.folder)
    return model


SEPARATE = {"din_target_field": ["goods", "cate"]} | {
    "din_sequence_field": ["hist_goods", "hist_cate"]
}
NO_PADDING = {"padding_idx": None}
OUTPUT_SIGMOID = {"attention_output_activation": "Sigmoid"}
ATTENTION_IDENTITY = {"attention_hidden_activations": "Identity"}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "tuple": ({}, {}),
    "separate": (SEPARATE, {}),
    "single": (SINGLE, {"hist_goods": {"feature_encoder": SUM}}),
    "crossed": ({"din_target_field": [["cate", "goods"]]}, {}),
    "softmax": (
        {"din_use_softmax": True, "attention_output_activation": "Sigmoid"},
        {},
    ),
    "relu_output": ({"attention_output_activation": "relu"}, {}),
    "regression": ({"task": "regression", "dnn_activations": "PReLU"}, {}),
    "batch_norm": ({"batch_norm": True, "dnn_activations": "Dice"}, {}),
    "dropout": (
        {
            "attention_dropout": [0.1, 0],
            "net_dropout": 0.2,
            "attention_hidden_activations": "PReLU",
        },
        {},
    ),
    "lists": (
        {"dnn_activations": ["SiLU", "silu"][:1] * 2, "net_dropout": [0, 0.5]},
        {},
    ),
    "leaky": ({"dnn_activations": "LeakyReLU"}, {}),
    "linear": (
        {"dnn_activations": None, "attention_hidden_activations": "Identity"},
        {},
    ),
    "no_hidden": ({"attention_hidden_units": [], "dnn_hidden_units": []}, {}),
    "dims": (
        {},
        {
            "user_id": {"embedding_dim": 3},
            "price": {"embedding_dim": 2},
            "tag": {"embedding_dim": 5},
        },
    ),
    "dims_by_position": (
        {"din_target_field": [["cate", "goods"]]},
        {
            "hist_goods": {"embedding_dim": 6},
            "goods": {"embedding_dim": 6},
            "cate": {"embedding_dim": 2},
            "hist_cate": {"embedding_dim": 2},
        },
    ),
    "shared_by_all": (
        {},
        {
            "hist_cate": {"padding_idx": 0},
            "cate": {"share_embedding": "hist_cate"},
            "tag": {"share_embedding": "hist_cate", "feature_encoder": [SUM]},
        },
    ),
    "shares_a_later_one": ({}, {"hist_cate": {"share_embedding": "cate"}}),
    "sources": ({}, {"user_id": {"source": "item"}, "price": {"source": "user"}}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_scores_as_its_twin(name: str, tmp_path: Path) -> None:
    config, changes = VARIANTS[name]
    compare(Files(tmp_path, shop(**changes), config_of(**config)), batch_of())


@pytest.mark.parametrize("pooling", [AVERAGE, SUM])
@pytest.mark.parametrize("softmax", [False, True])
def test_trained_padding_rows_count_as_they_do_in_the_library(
    pooling: str, *, softmax: bool, tmp_path: Path
) -> None:
    changes = {n: NO_PADDING for n in ("user_id", "goods", "cate", "hist_cate")}
    changes |= {"tag": {"feature_encoder": pooling, **NO_PADDING}}
    files = Files(tmp_path, shop(**changes), config_of(din_use_softmax=softmax))
    compare(files, batch_of(), all_forms=False)


def test_padding_inside_is_left_out_by_the_first_sequence(tmp_path: Path) -> None:
    batch = batch_of()
    batch["hist_goods"][:, 1] = 0  # where hist_cate goes on
    batch["tag"][:, 0] = 0
    batch["hist_cate"][:, 2] = 0  # where hist_goods goes on: a zero row
    compare(Files(tmp_path), batch, all_forms=False)


def test_batch_norm_of_the_attention_is_found_in_the_keys(tmp_path: Path) -> None:
    config = config_of(batch_norm=True)
    compare(Files(tmp_path, None, config, norm=True), batch_of())


def test_use_features_and_feature_specs_change_the_map(tmp_path: Path) -> None:
    names = ["goods", "hist_goods", "user_id", "tag"]
    one = {"din_target_field": "goods", "din_sequence_field": "hist_goods"}
    config = config_of(**one, use_features=names)
    specs = [{"name": ["tag", "user_id"], "embedding_dim": 3}]
    specs.append({"name": "tag", "feature_encoder": SUM})
    by_name = {n: s for f in shop() for n, s in f.items()}
    for spec in specs:
        for name in [spec["name"]] if isinstance(spec["name"], str) else spec["name"]:
            by_name[name] |= {k: v for k, v in spec.items() if k != "name"}
    files = Files(tmp_path, [{n: by_name[n]} for n in names], config)
    files.map["features"] = shop()
    files.yaml = yaml.safe_dump({"exp": {**config, "feature_specs": specs}})
    batch = {n: batch_of()[n] for n in names}
    compare(files, batch)


def test_python_tuples_of_the_configuration_are_read(tmp_path: Path) -> None:
    files = Files(tmp_path)
    tuples = {
        "din_target_field": "[!!python/tuple [goods, cate]]",
        "din_sequence_field": "[!!python/tuple [hist_goods, hist_cate]]",
    }
    plain = {k: v for k, v in config_of().items() if k not in tuples}
    lines = [f"  {k}: {v}" for k, v in tuples.items()]
    files.yaml = yaml.safe_dump({"exp": plain}) + "\n".join(lines)
    spec = files.read().spec
    assert [f.name for f in spec.behavior[0].fields] == ["hist_goods", "hist_cate"]
    assert len(spec.behavior) == 1


@pytest.mark.parametrize("softmax", [False, True])
def test_longctr_scores_as_its_twin(*, softmax: bool, tmp_path: Path) -> None:
    config = config_of(din_use_softmax=softmax, max_len=T)
    del config["din_target_field"], config["din_sequence_field"]
    batch = batch_of()
    lengths = (batch["hist_goods"] > 0).sum(1)
    for name in ("hist_goods", "hist_cate"):
        rows = [np.roll(r, T - n) for r, n in zip(batch[name], lengths, strict=True)]
        batch[name] = np.array(rows)
    batch["age"] = batch.pop("price")
    model = compare(Files(tmp_path, long_shop(), config, is_long=True), batch)
    assert [d.side for d in model.spec.dense] == ["candidate"]
    assert model.spec.behavior[0].order == "oldest_first"
    assert model.spec.behavior[0].max_len == T


def test_a_long_list_keeps_the_end_that_the_padding_keeps(tmp_path: Path) -> None:
    one = {"din_target_field": "goods", "din_sequence_field": "hist_goods"}
    config = config_of(**one)
    batch = batch_of() | {"hist_goods": np.arange(24 * 9).reshape(24, 9) % 12 + 1}
    del batch["hist_cate"]
    for padding, kept in (("post", slice(0, T)), ("pre", slice(9 - T, 9))):
        features = [
            {n: s | ({"padding": padding} if n == "hist_goods" else {})}
            for f in shop()
            for n, s in f.items()
            if n != "hist_cate"
        ]
        files = Files(tmp_path, features, config)
        model = files.read()
        convert(model, tmp_path / "m.onnx")
        predictor = Predictor(tmp_path / "m.onnx", device="cpu")
        cut = batch | {"hist_goods": batch["hist_goods"][:, kept]}
        np.testing.assert_allclose(
            predictor.score(batch), predictor.score(cut), atol=1e-7, rtol=0
        )


def test_sides_follow_source_type_and_the_callers_word(tmp_path: Path) -> None:
    changes = {"tag": {"source": "item"}}
    files = Files(tmp_path, shop(**changes))

    def sides(model: ClickModel) -> dict[str, str]:
        spec = model.spec
        parts = (*spec.user, *spec.candidate, *spec.multi_hot, *spec.dense)
        return {p.name: p.side for p in parts}

    default = {"user_id": "user", "goods": "candidate", "cate": "candidate"}
    default |= {"tag": "candidate", "price": "candidate"}
    assert sides(files.read()) == default
    moved = files.read(user_fields=["price", "tag"], candidate_fields=["user_id"])
    more = {"price": "user", "tag": "user", "user_id": "candidate"}
    assert sides(moved) == default | more


def test_sides_that_cannot_be_are_refused(tmp_path: Path) -> None:
    files = Files(tmp_path)
    assert files.refused(user_fields=["pric", "hist_goods", "request"]) == (
        "expected features with a side: user_id, price, goods, cate, tag, got 'pric'; "
        "'hist_goods'; 'request' - at `user_fields`"
    )
    assert files.refused(user_fields=["goods"]) == (
        "expected no target of the attention, a candidate field, got 'goods' - at "
        "`user_fields`"
    )
    both = files.refused(user_fields=["tag"], candidate_fields=["tag"])
    assert (
        both == "expected each feature on one side, got 'tag' - at `candidate_fields`"
    )


def test_names_that_the_format_does_not_allow_keep_their_columns(
    tmp_path: Path,
) -> None:
    names = {"user_id": "score", "tag": "history", "price": "p[0]"}
    features = [{names.get(n, n): spec for n, spec in f.items()} for f in shop()]
    batch = {names.get(n, n): v for n, v in batch_of().items()}
    model = compare(Files(tmp_path, features), batch)
    assert [f.name for f in model.spec.user] == ["score_"]
    assert [d.name for d in model.spec.dense] == ["p_0_"]

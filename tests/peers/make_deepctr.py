"""Write deepctr-torch checkpoints of many kinds, each with rows and its own scores.

In an environment of its own::

    pip install torch==2.13.0 deepctr-torch==0.3.0 requests packaging
    python tests/peers/make_deepctr.py OUT

fills OUT/deepctr and OUT/pt2.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepctr_torch.callbacks import ModelCheckpoint
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from deepctr_torch.models.din import DIN
from make_data import (
    SIZES,
    TAGS,
    Arrays,
    T,
    make_rows,
    save_io,
    save_json,
    save_program,
    settle,
    shake,
    shapes,
)

DIMS = {"user_id": 6, "gender": 2, "goods_id": 8, "shop_id": 4, "cate_id": 4, "tag": 5}
HIDDEN = {"att_hidden_size": (8, 4), "dnn_hidden_units": (12, 6)}
GOODS_CATE = ["goods_id", "cate_id"]


def sparse(name: str, **more: object) -> SparseFeat:
    return SparseFeat(name, more.pop("size", SIZES[name]), DIMS[name], **more)


def varlen(
    name: str,
    length: str | None = "seq_length",
    combiner: str = "mean",
    *,
    maxlen: int = T,
    table: str | None = "",
    **more: object,
) -> VarLenSparseFeat:
    """Describe a list of ids; a history shares its target's table unless told."""
    owner = name.removeprefix("hist_")
    own = owner if table == "" else table
    feat = SparseFeat(name, SIZES[owner], DIMS[owner], embedding_name=own, **more)
    return VarLenSparseFeat(feat, maxlen, combiner, length)


def tag(combiner: str = "mean", length: str | None = None) -> VarLenSparseFeat:
    return varlen("tag", length, combiner, maxlen=TAGS)


USER = [sparse("user_id"), sparse("gender")]
TARGETS = [sparse("goods_id"), sparse("cate_id")]
HISTORIES = [varlen("hist_goods_id"), varlen("hist_cate_id")]
PLAIN = [*USER, *TARGETS, *HISTORIES]

VARIANTS: dict[str, tuple[list[Any], list[str], dict[str, Any]]] = {
    "plain": (PLAIN, GOODS_CATE, {}),
    "noshare": (
        [
            *USER,
            *TARGETS,
            varlen("hist_goods_id", table=None),
            varlen("hist_cate_id", table=None),
        ],
        GOODS_CATE,
        {},
    ),
    # The tags' length rules the history, and the vectors are paired in wrong order.
    "quirks": (
        [varlen("tag", "tag_length", maxlen=TAGS), *USER, *TARGETS, *HISTORIES[::-1]],
        GOODS_CATE,
        {"att_activation": "prelu"},
    ),
    # The order of this list decides nothing.
    "list_order": (PLAIN, GOODS_CATE[::-1], {"dnn_activation": "prelu"}),
    "softmax": (PLAIN, GOODS_CATE, {"att_weight_normalization": True}),
    "softmax_bn": (
        [*PLAIN, tag()],
        GOODS_CATE,
        {
            "att_weight_normalization": True,
            "att_activation": "relu",
            "dnn_use_bn": True,
            "dnn_activation": "sigmoid",
        },
    ),
    "relu": (PLAIN, GOODS_CATE, {"att_activation": "relu"}),
    "prelu": (
        PLAIN,
        GOODS_CATE,
        {"att_activation": "prelu", "dnn_activation": "prelu"},
    ),
    "sigmoid": (
        PLAIN,
        GOODS_CATE,
        {"att_activation": "Sigmoid", "dnn_activation": "sigmoid"},
    ),
    "linear": (
        PLAIN,
        GOODS_CATE,
        {"att_activation": "linear", "dnn_activation": "linear"},
    ),
    "module_classes": (
        PLAIN,
        GOODS_CATE,
        {"att_activation": torch.nn.Tanh, "dnn_activation": torch.nn.SiLU},
    ),
    "use_bn": (PLAIN, GOODS_CATE, {"dnn_use_bn": True, "dnn_dropout": 0.3}),
    "pooled_mean": ([*PLAIN, tag("mean")], GOODS_CATE, {}),
    "pooled_sum": ([tag("sum"), *PLAIN], GOODS_CATE, {}),
    "pooled_max": ([*PLAIN, tag("max")], GOODS_CATE, {}),
    "pooled_mean_length": ([*PLAIN, tag("mean", "tag_length")], GOODS_CATE, {}),
    "pooled_sum_length": ([*PLAIN, tag("sum", "tag_length")], GOODS_CATE, {}),
    # A second history that no target is attended with is pooled.
    "pooled_history": ([*PLAIN, varlen("hist_shop_id")], GOODS_CATE, {}),
    "dense": (
        [DenseFeat("scene", 3), *PLAIN, DenseFeat("price"), tag()],
        GOODS_CATE,
        {},
    ),
    # Fields of a group stand together, groups in order of their first field.
    "groups": (
        [
            sparse("user_id", group_name="b"),
            sparse("goods_id", group_name="a"),
            sparse("gender", group_name="b"),
            sparse("shop_id"),
            sparse("cate_id", group_name="b"),
            varlen("hist_goods_id", group_name="a"),
            varlen("hist_shop_id", group_name="c"),
            varlen("hist_cate_id", group_name="a"),
        ],
        ["goods_id", "shop_id", "cate_id"],
        {},
    ),
    "regression": (PLAIN, GOODS_CATE, {"task": "regression"}),
    "one_field": (
        [*USER, sparse("goods_id"), varlen("hist_goods_id")],
        ["goods_id"],
        {"att_hidden_size": (8,), "dnn_hidden_units": (12,)},
    ),
    "three_layers": (
        PLAIN,
        GOODS_CATE,
        {"att_hidden_size": (8, 6, 4), "dnn_hidden_units": (12, 8, 6)},
    ),
    "multiclass": (PLAIN, GOODS_CATE, {"task": "multiclass"}),
    # The first length that any list names rules the history.
    "length_second": (
        [*USER, *TARGETS, varlen("hist_goods_id", None), varlen("hist_cate_id")],
        GOODS_CATE,
        {},
    ),
    "two_lengths": (
        [
            *USER,
            *TARGETS,
            varlen("hist_goods_id", "tag_length"),
            varlen("hist_cate_id"),
            tag("mean", "seq_length"),
        ],
        GOODS_CATE,
        {},
    ),
    # The length is a feature too.
    "length_feature": (
        [SparseFeat("seq_length", T + 1, 3), *PLAIN],
        GOODS_CATE,
        {},
    ),
    # The last column of a table gives its size.
    "sizes": (
        [*USER, sparse("goods_id", size=30), sparse("cate_id"), *HISTORIES],
        GOODS_CATE,
        {},
    ),
    # Users and their favorite goods share tables with what is attended.
    "shared_user": (
        [
            SparseFeat("last_goods_id", 41, 8, embedding_name="goods_id"),
            SparseFeat("other_goods_id", 41, 8, embedding_name="hist_goods_id"),
            *TARGETS,
            varlen("hist_goods_id", table=None),
            varlen("hist_cate_id"),
        ],
        GOODS_CATE,
        {},
    ),
}
FITTED = {"plain", "use_bn", "dense"}
LONGER = {"plain", "pooled_mean_length", "softmax"}  # lengths past the columns
LENGTHS = ("seq_length", "tag_length")
PROGRAMS = ("plain", "softmax", "relu", "prelu", "sigmoid", "linear", "quirks")
PROGRAMS += ("softmax_bn", "dense", "groups", "one_field")


def describe(column: object) -> dict[str, Any]:
    out = {"kind": type(column).__name__}
    if isinstance(column, DenseFeat):
        return out | {"name": column.name, "dimension": column.dimension}
    names = ["name", "vocabulary_size", "embedding_dim", "embedding_name", "group_name"]
    if isinstance(column, VarLenSparseFeat):
        names += ["maxlen", "combiner", "length_name"]
    return out | {name: getattr(column, name) for name in names}


def concat(model: DIN, rows: Arrays) -> torch.Tensor:
    """Build the library's one input, as `predict` does of a dict."""
    parts = [rows[n].reshape(len(rows[n]), -1) for n in model.feature_index]
    return torch.from_numpy(np.concatenate(parts, 1)).float()


def fit(model: DIN, rows: Arrays, path: Path) -> None:
    """Train one epoch with the library's callback that saves the model."""
    model.compile("adam", "binary_crossentropy", metrics=["auc"])
    y = (rows["goods_id"] % 2).astype(np.float32)
    x = {n: rows[n] for n in model.feature_index}
    save = ModelCheckpoint(str(path))
    model.fit(x, y, batch_size=16, epochs=1, verbose=0, callbacks=[save])
    model.eval()


def main(out: Path) -> None:
    folder = out / "deepctr"
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(behind=True)
    rng = np.random.default_rng(1)
    rows["last_goods_id"] = rng.integers(0, SIZES["goods_id"], 32)
    rows["other_goods_id"] = rng.integers(0, SIZES["goods_id"], 32)
    for seed, (name, (columns, history, more)) in enumerate(VARIANTS.items()):
        model = DIN(columns, history, **(HIDDEN | more))
        shake(model, seed)
        used = {n: rows[n] for n in model.feature_index}
        if name == "sizes":
            used["goods_id"] = used["goods_id"] % 30
        if name == "pooled_max":  # the maximum of nothing is -1e9: few such rows
            used["tag"] = np.maximum(used["tag"], np.arange(32)[:, None] > 3)
        x = concat(model, used)
        settle(model.dnn_linear, lambda m=model, x=x: m(x), model.out.bias)
        if name in FITTED:
            fit(model, dict(used), folder / f"{name}_modelcheckpoint.ckpt")
        torch.save(model.state_dict(), folder / f"{name}_state_dict.pth")
        torch.save(model, folder / f"{name}_whole_model.pth")
        kwargs = {
            k: f"{v.__module__}.{v.__name__}" if isinstance(v, type) else v
            for k, v in (HIDDEN | more).items()
        }
        description = {
            "library": "deepctr-torch",
            "version": "0.3.0",
            "variant": name,
            "history_feature_list": history,
            "dnn_kwargs": kwargs,
            "columns": [describe(c) for c in columns],
            "feature_index": dict(model.feature_index),
            "state_dict": shapes(model),
        }
        save_json(folder / f"{name}_config.json", description)
        with torch.inference_mode():
            expected = model(x)
        save_io(folder / f"{name}_io.npz", used, expected, {"X": x.numpy()})
        if name in LONGER:
            longer = {n: v + 4 if n in LENGTHS else v for n, v in used.items()}
            with torch.inference_mode():
                expected = model(concat(model, longer))
            save_io(folder / f"{name}_longer_io.npz", longer, expected)
        if name in PROGRAMS:
            path = out / "pt2" / f"deepctr_{name}.pt2"
            save_program(path, model, (x[:16],), only_batch=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

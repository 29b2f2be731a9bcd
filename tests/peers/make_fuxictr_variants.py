"""The fuxictr models that make_fuxictr.py builds: columns and settings."""

from typing import Any

from make_data import TAGS, T

Column = dict[str, Any]


def category(name: str, **more: object) -> Column:
    return {"name": name, "dtype": "str", "type": "categorical", **more}


def number(name: str, **more: object) -> Column:
    return {"name": name, "dtype": "float", "type": "numeric", **more}


def past(name: str, owner: str | None = "", **more: object) -> Column:
    """Describe an attended list; it shares its target's table unless told."""
    column = {"name": name, "dtype": "str", "type": "sequence", "max_len": T}
    column |= {"splitter": "^", "feature_encoder": None}
    owner = name.split("_", 1)[1] if owner == "" else owner
    return column | ({"share_embedding": owner} if owner else {}) | more


def tags(**more: object) -> Column:
    return {"name": "tag", "dtype": "str", "type": "sequence", "max_len": TAGS} | more


USER = [category("user_id"), category("gender"), number("price")]
ITEM = [category("goods_id"), category("cate_id")]
PASTS = [past("hist_goods_id"), past("hist_cate_id")]
ALL = [*USER, *ITEM, tags(), *PASTS]
BASE = {
    "model": "DIN",
    "loss": "binary_crossentropy",
    "metrics": ["logloss", "AUC"],
    "task": "binary_classification",
    "optimizer": "adam",
    "learning_rate": 0.001,
    "embedding_regularizer": 0,
    "net_regularizer": 0,
    "embedding_dim": 8,
    "dnn_hidden_units": [12, 6],
    "dnn_activations": "relu",
    "attention_hidden_units": [8, 4],
    "attention_hidden_activations": "Dice",
    "attention_output_activation": None,
    "attention_dropout": 0,
    "din_use_softmax": False,
    "net_dropout": 0,
    "batch_norm": False,
    "model_root": "./checkpoints/",
    "verbose": 0,
    "gpu": -1,
}
FIELDS = {
    "din_target_field": ["goods_id", "cate_id"],
    "din_sequence_field": ["hist_goods_id", "hist_cate_id"],
}
TUPLE = {
    "din_target_field": [("goods_id", "cate_id")],
    "din_sequence_field": [("hist_goods_id", "hist_cate_id")],
}
SOFTMAX = {"din_use_softmax": True}


def units(attention: object, tower: object) -> dict[str, Any]:
    return {"attention_hidden_activations": attention, "dnn_activations": tower}


CLASSIC: dict[str, tuple[list[Column], dict[str, Any]]] = {
    "classic_fields": (ALL, FIELDS),
    "classic_fields_softmax": (
        ALL,
        FIELDS | SOFTMAX | {"attention_output_activation": "Sigmoid"},
    ),
    "classic_single": (
        [*USER, category("goods_id"), past("hist_goods_id")],
        {"din_target_field": "goods_id", "din_sequence_field": "hist_goods_id"},
    ),
    "classic_relu": (
        ALL,
        TUPLE | units("ReLU", "ReLU") | {"attention_dropout": 0.1, "net_dropout": 0.2},
    ),
    "classic_tuple": (
        ALL,
        TUPLE | SOFTMAX | units("Dice", "Dice") | {"batch_norm": True},
    ),
    "classic_prelu": (ALL, TUPLE | units("PReLU", "PReLU")),
    "classic_prelu_softmax": (ALL, TUPLE | SOFTMAX | units("PReLU", "PReLU")),
    "classic_sigmoid": (ALL, FIELDS | units("sigmoid", "Sigmoid")),
    "classic_tanh": (ALL, FIELDS | units("tanh", "SiLU")),
    "classic_linear": (ALL, FIELDS | units(None, None)),
    "classic_per_layer": (
        ALL,
        FIELDS
        | units(["relu", "sigmoid"], ["sigmoid", "PReLU"])
        | {"net_dropout": [0.2, 0], "attention_dropout": [0, 0.1]},
    ),
    "classic_batch_norm": (
        ALL,
        FIELDS | {"batch_norm": True, "net_dropout": 0.1, "dnn_activations": "Dice"},
    ),
    "classic_mixed": (
        [*ALL, category("shop_id"), past("hist_shop_id")],
        {
            "din_target_field": [("goods_id", "cate_id"), "shop_id"],
            "din_sequence_field": [("hist_goods_id", "hist_cate_id"), "hist_shop_id"],
        },
    ),
    # The candidate is attended with two lists.
    "classic_two_lists": (
        [*USER, *ITEM, tags(), past("hist_goods_id"), past("cart_goods_id")],
        {
            "din_target_field": ["goods_id", "goods_id"],
            "din_sequence_field": ["hist_goods_id", "cart_goods_id"],
        },
    ),
    "classic_dims": (
        [
            category("user_id", embedding_dim=5),
            number("price", embedding_dim=3),
            *ITEM,
            tags(embedding_dim=6),
            *PASTS,
        ],
        FIELDS,
    ),
    # Widths that fit together only: the pooled vector is cut every 8 numbers.
    "classic_uneven": (
        [
            category("goods_id", embedding_dim=10),
            past("hist_goods_id", embedding_dim=10, emb_output_dim=8),
            category("cate_id", embedding_dim=6),
            *USER,
            past("hist_cate_id", embedding_dim=6, emb_output_dim=8),
        ],
        TUPLE,
    ),
    # The settings leave features out and change others.
    "classic_specs": (
        ALL,
        FIELDS
        | {
            "use_features": [
                "price",
                "hist_goods_id",
                "goods_id",
                "cate_id",
                "hist_cate_id",
                "user_id",
            ],
            "feature_specs": [{"name": ["user_id", "price"], "embedding_dim": 5}],
        },
    ),
    "classic_sum": (
        [*USER, *ITEM, tags(feature_encoder="layers.MaskedSumPooling()"), *PASTS],
        FIELDS,
    ),
    "classic_regression": (ALL, FIELDS | {"task": "regression", "loss": "mse_loss"}),
    "classic_pre": (
        [*USER, *ITEM, tags(), *({**p, "padding": "pre"} for p in PASTS)],
        TUPLE | SOFTMAX,
    ),
    "classic_noshare": (
        [*ITEM, past("hist_goods_id", None), past("hist_cate_id", None), *USER],
        TUPLE,
    ),
    # The lists come first and own the tables.
    "classic_list_owns": (
        [
            past("hist_goods_id", None),
            past("hist_cate_id", None),
            category("goods_id", share_embedding="hist_goods_id"),
            category("cate_id", share_embedding="hist_cate_id"),
            category("last_goods_id", share_embedding="hist_goods_id"),
        ],
        FIELDS,
    ),
    "classic_one_layer": (
        ALL,
        TUPLE | {"attention_hidden_units": [8], "dnn_hidden_units": [12]},
    ),
    "classic_no_hidden": (
        ALL,
        TUPLE | {"attention_hidden_units": [], "dnn_hidden_units": []},
    ),
}


def of_user(*columns: Column) -> list[Column]:
    return [{**c, "source": "user"} for c in columns]


def of_item(*columns: Column) -> list[Column]:
    return [{**c, "source": "item"} for c in columns]


META = [
    {"name": n, "dtype": "int", "type": "meta", "remap": False}
    for n in ("user_index", "item_index", "seq_len")
]
LONG = [*of_user(*USER), *of_item(*ITEM), *META]
LONGCTR: dict[str, tuple[list[Column], dict[str, Any]]] = {
    "longctr": (LONG, {}),
    "longctr_softmax": (LONG, SOFTMAX | {"batch_norm": True}),
    "longctr_relu": (LONG, units("ReLU", "Dice") | {"attention_dropout": 0.1}),
    "longctr_prelu": (LONG, units("PReLU", "PReLU") | {"net_dropout": 0.1}),
    "longctr_sigmoid": (
        LONG,
        SOFTMAX | units("sigmoid", "relu") | {"attention_output_activation": "Sigmoid"},
    ),
    "longctr_dims": (
        [
            *of_item(category("cate_id", embedding_dim=5)),
            *of_user(category("user_id", embedding_dim=3)),
            *of_item(category("goods_id")),
            *META,
        ],
        {},
    ),
    "longctr_items_only": ([*of_item(*ITEM), *META], {}),
    "longctr_item_number": ([*LONG, *of_item(number("weight"))], {}),
    "longctr_post": (LONG, SOFTMAX | {"padding": "post"}),
    "longctr_regression": (LONG, {"task": "regression", "loss": "mse_loss"}),
}
PROGRAMS = ("classic_fields", "classic_fields_softmax", "classic_single", "longctr")
PROGRAMS += ("classic_relu", "classic_tuple", "classic_prelu", "classic_sigmoid")
PROGRAMS += ("classic_prelu_softmax", "classic_mixed", "classic_linear")
PROGRAMS += ("longctr_softmax", "longctr_relu", "longctr_prelu", "longctr_sigmoid")

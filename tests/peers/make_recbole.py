"""Write recbole checkpoints of many kinds, each with rows and its own scores.

In an environment of its own (its other requirements are not needed here)::

    pip install --no-deps recbole==1.2.1
    pip install torch==2.13.0 "numpy<2" "pandas<2.3" "setuptools<81" scipy pyyaml \
        scikit-learn colorlog colorama tqdm tensorboard thop tabulate plotly texttable
    python tests/peers/make_recbole.py OUT

fills OUT/recbole and OUT/pt2.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from make_data import (
    SIZES,
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
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import Dataset
from recbole.model.sequential_recommender import DIN
from recbole.trainer import Trainer
from recbole.utils import init_seed

Settings = dict[str, Any]

GOODS = SIZES["goods_id"] - 1
# Columns of the item file; the id comes first.
KINDS = {
    "shop_id": "token",
    "cate_id": "token",
    "tags": "token_seq",
    "words": "token_seq",
    "price": "float",
    "sizes": "float_seq",
}
PLAIN = ["shop_id", "cate_id"]
RICH = ["tags", "shop_id", "price"]
NUMERIC = {"numerical_features": ["price"]}
BASE = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "goods_id",
    "LABEL_FIELD": "label",
    "TIME_FIELD": "timestamp",
    "MAX_ITEM_LIST_LENGTH": T,
    "ITEM_LIST_LENGTH_FIELD": "item_length",
    "train_neg_sample_args": None,
    "eval_args": {
        "split": {"RS": [0.8, 0.1, 0.1]},
        "order": "TO",
        "group_by": "user",
        "mode": "labeled",
    },
    "metrics": ["LogLoss"],
    "valid_metric": "LogLoss",
    "embedding_size": 6,
    "mlp_hidden_size": [8, 4],
    "epochs": 1,
    "train_batch_size": 16,
    "eval_batch_size": 16,
    "device": "cpu",
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
    "data_path": "dataset/",
}
OTHER_NAMES = {"ITEM_ID_FIELD": "sku", "LIST_SUFFIX": "_past", "USER_ID_FIELD": "who"}
OTHER_NAMES["ITEM_LIST_LENGTH_FIELD"] = "how_many"

# The item file's columns (None: there is none) and settings.
VARIANTS: dict[str, tuple[list[str] | None, dict[str, Any]]] = {
    "plain": (PLAIN, {}),
    "rich": (RICH, NUMERIC),
    "rich_sum": (RICH, NUMERIC | {"pooling_mode": "sum"}),
    "rich_max": (RICH, NUMERIC | {"pooling_mode": "max"}),
    # The price's bucket chooses a row, its value is 1.
    "bucket": (
        RICH,
        NUMERIC | {"discretization": {"price": {"method": "ED", "bucket": 4}}},
    ),
    # A number that is no numerical feature is not part of the model.
    "float_left_out": (["price", "shop_id"], {}),
    "float_seq": (["shop_id", "sizes"], {"numerical_features": ["sizes"]}),
    "float_seq_max": (
        ["shop_id", "sizes"],
        {"numerical_features": ["sizes"], "pooling_mode": "max"},
    ),
    "float_seq_bucket": (
        ["sizes", "shop_id", "price"],
        {
            "numerical_features": ["sizes", "price"],
            "discretization": {"sizes": {"method": "ED", "bucket": 3}},
        },
    ),
    "two_token_seqs": (["words", "cate_id", "tags"], {}),
    "no_items": (None, {}),
    "names": (PLAIN, OTHER_NAMES),
    "one_layer": (PLAIN, {"mlp_hidden_size": [8], "dropout_prob": 0.2}),
    "three_layers": (PLAIN, {"mlp_hidden_size": [8, 6, 4], "embedding_size": 5}),
}
PROGRAMS = ("plain", "rich", "rich_sum", "float_seq", "no_items", "one_layer")
PROGRAMS += ("three_layers",)


def write_dataset(folder: Path, columns: list[str] | None, config: Settings) -> None:
    """Write the library's files; tokens are words, so that they differ from ids."""
    rng = np.random.default_rng(5)
    user, item = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
    folder.mkdir(parents=True)
    lines = [f"{user}:token\t{item}:token\tlabel:float\ttimestamp:float"]
    goods = [f"g{n}" for n in rng.permutation(GOODS) + 1]
    users = [f"u{n}" for n in rng.integers(1, 13, 160)]
    for at, who in enumerate(users):
        what = goods[at] if at < GOODS else f"g{rng.integers(1, GOODS + 1)}"
        lines.append(f"{who}\t{what}\t{rng.integers(0, 2)}\t{at}")
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    lines = [f"{user}:token\tgender:token"]
    lines += [f"u{n}\t{'mf'[n % 2]}" for n in range(1, 13)]
    (folder / "shop.user").write_text("\n".join(lines) + "\n")
    if columns is None:
        return
    lines = ["\t".join([f"{item}:token", *(f"{c}:{KINDS[c]}" for c in columns)])]
    fewest = 1 if config.get("pooling_mode") == "max" else 0
    for n in range(1, GOODS + 1):
        values = {
            "shop_id": f"s{rng.integers(1, 9)}",
            "cate_id": f"c{rng.integers(1, 6)}",
            "tags": " ".join(f"t{t}" for t in rng.integers(1, 8, max(fewest, n % 4))),
            "words": " ".join(f"w{t}" for t in rng.integers(1, 6, 1 + n % 2)),
            "price": f"{rng.normal():.4f}",
            "sizes": " ".join(f"{v:.3f}" for v in rng.normal(size=1 + n % 3)),
        }
        lines.append("\t".join([f"g{n}", *(values[c] for c in columns)]))
    (folder / "shop.item").write_text("\n".join(lines) + "\n")


def describe(
    name: str, settings: Settings, model: DIN, dataset: Dataset, path: str
) -> Settings:
    """Give what the library knows of a checkpoint, for people to read."""
    layer = model.embedding_layer
    names = [
        f"{kind}_field_{what}"
        for kind in ("token", "token_seq", "float", "float_seq")
        for what in ("names", "dims")
    ]
    offsets = layer.token_field_offsets.items()
    return {
        "library": "recbole",
        "version": "1.2.1",
        "variant": name,
        "config": settings,
        "checkpoint": path,
        "state_dict": shapes(model),
        **{n: getattr(layer, n) for n in names},
        "pooling_mode": layer.pooling_mode,
        "token_field_offsets": {side: o.tolist() for side, o in offsets},
        "id2token": {
            n: [str(t) for t in tokens] for n, tokens in dataset.field2id_token.items()
        },
    }


def train(settings: Settings) -> tuple[Trainer, Dataset, DIN]:
    """Train a model for one epoch."""
    config = Config(model="DIN", dataset="shop", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_data, valid_data, _ = data_preparation(config, dataset)
    model = DIN(config, train_data.dataset)
    shake(model, len(settings))
    trainer = Trainer(config, model)
    trainer.fit(train_data, valid_data, verbose=False, show_progress=False)
    return trainer, train_data.dataset, model.eval()


def columns_of(settings: Settings, rows: Arrays) -> Arrays:
    """Name what the model takes, in its order."""
    item = settings["ITEM_ID_FIELD"]
    suffix = settings.get("LIST_SUFFIX", "_list")
    return {
        settings["USER_ID_FIELD"]: rows["user_id"] % 12 + 1,
        item: rows["goods_id"],
        f"{item}{suffix}": rows["hist_goods_id"],
        settings["ITEM_LIST_LENGTH_FIELD"]: rows["seq_length"],
    }


def main(out: Path) -> None:
    out = out.resolve()
    (out / "recbole").mkdir(parents=True, exist_ok=True)
    for name, (columns, more) in VARIANTS.items():
        place = f"saved_{name}"
        settings = BASE | more | {"checkpoint_dir": place}
        loaded = [settings["ITEM_ID_FIELD"], *(columns or ())]
        settings["load_col"] = {
            "inter": [
                settings["USER_ID_FIELD"],
                settings["ITEM_ID_FIELD"],
                "label",
                "timestamp",
            ],
            "user": [settings["USER_ID_FIELD"], "gender"],
        }
        if columns is not None:
            settings["load_col"]["item"] = loaded
        with TemporaryDirectory() as scratch:  # the file keeps no other path
            os.chdir(scratch)
            write_dataset(Path("dataset/shop"), columns, settings)
            trainer, dataset, model = train(settings)
            used = columns_of(settings, make_rows(behind=True))
            if settings.get("pooling_mode") == "max":  # item 0 has no tags: -1e9
                past = list(used)[2]
                used[past] = np.where(used[past] == 0, 3, used[past])
            user, goods, past, length = map(torch.from_numpy, used.values())
            args = (user, past, length, goods)
            settle(model.dnn_predict_layers, lambda m=model, a=args: m(*a))
            trainer._save_checkpoint(1, verbose=False)
            (path,) = Path(place).glob("DIN-*.pth")
            (out / "recbole" / place).mkdir(exist_ok=True)
            for old in (out / "recbole" / place).iterdir():
                old.unlink()
            kept = out / "recbole" / place / path.name
            kept.write_bytes(path.read_bytes())
            os.chdir(out)
        about = describe(name, settings, model, dataset, f"recbole/{place}/{kept.name}")
        save_json(out / "recbole" / f"{name}_config.json", about)
        interaction = {k: torch.from_numpy(v) for k, v in used.items()}
        with torch.inference_mode():
            logits = model(*args)
            expected = model.predict(interaction)
        layer = model.embedding_layer
        extra = {"expected_logit": logits.numpy()}
        for side, feat in (("user", layer.user_feat), ("item", layer.item_feat)):
            extra |= {
                f"{side}_feat_{k}": v.numpy() for k, v in feat.interaction.items()
            }
        save_io(out / "recbole" / f"{name}_io.npz", used, expected, extra)
        if name in PROGRAMS:
            first = tuple(a[:16] for a in args)
            save_program(out / "pt2" / f"recbole_{name}.pt2", model, first)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

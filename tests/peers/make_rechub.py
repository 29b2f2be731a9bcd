"""Write torch-rechub checkpoints of many kinds, each with rows and its own scores.

In an environment of its own::

    pip install torch==2.13.0 torch-rechub==0.9.0
    python tests/peers/make_rechub.py OUT

fills OUT/rechub and OUT/pt2.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_data import (
    SIZES,
    Arrays,
    Positional,
    make_rows,
    save_io,
    save_json,
    save_program,
    settle,
    shake,
    shapes,
)
from torch import Tensor, nn
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.ranking import DIN
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator

E = 8


def sparse(name: str, pad: int | None = None, **more: object) -> SparseFeature:
    size = SIZES.get(name, SIZES["goods_id"])
    return SparseFeature(name, size, E, padding_idx=pad, **more)


def sequence(
    name: str, owner: str | None = "", pooling: str = "concat", pad: int | None = None
) -> SequenceFeature:
    """Describe a list of ids; it shares its target's table unless told."""
    field = name.removeprefix("hist_")
    owner = field if owner == "" else owner
    return SequenceFeature(
        name, SIZES[field], E, pooling=pooling, shared_with=owner, padding_idx=pad
    )


GOODS, CATE, SHOP = sparse("goods_id"), sparse("cate_id"), sparse("shop_id")
USER, GENDER = sparse("user_id"), sparse("gender")
GOODS0, CATE0 = sparse("goods_id", 0), sparse("cate_id", 0)
TARGETS, TARGETS0 = [GOODS, CATE], [GOODS0, CATE0]
HISTORIES = [sequence("hist_goods_id"), sequence("hist_cate_id")]
TUTORIAL = [GOODS, CATE, USER]
DIMS = {"dims": [8, 4]}

# features, history_features, target_features, attention_mlp_params, mlp_params
Variant = tuple[list[Any], list[Any], list[Any], dict[str, Any], dict[str, Any]]
TOWER = {"dims": [12, 6]}


def plain(**attention: object) -> Variant:
    return [USER, GENDER], HISTORIES, TARGETS, DIMS | attention, TOWER


def pooled(*sequences: SequenceFeature) -> Variant:
    return [USER, *sequences], HISTORIES, TARGETS, DIMS, TOWER


VARIANTS: dict[str, Variant] = {
    "tutorial": (TUTORIAL, HISTORIES, TUTORIAL, DIMS, TOWER),
    "tutorial_pad0": (
        [GOODS0, CATE0, USER],
        HISTORIES,
        [GOODS0, CATE0, USER],
        DIMS,
        TOWER,
    ),
    "plain": plain(),
    "softmax": plain(use_softmax=True),
    "softmax_pad0": (
        [USER, GENDER],
        HISTORIES,
        TARGETS0,
        DIMS | {"use_softmax": True},
        TOWER,
    ),
    # padding_idx on a history that shares a table does nothing to the table.
    "pad0_ignored": (
        [USER],
        [sequence("hist_goods_id", pad=0), sequence("hist_cate_id", pad=0)],
        TARGETS,
        DIMS,
        TOWER,
    ),
    "relu": plain(activation="relu"),
    "prelu": plain(activation="prelu"),
    "sigmoid": plain(activation="sigmoid"),
    "leakyrelu": plain(activation="leakyrelu"),
    "softmax_units": plain(activation="softmax"),
    "prelu_softmax": plain(activation="prelu", use_softmax=True),
    "three_histories": (
        [USER, GENDER],
        [*HISTORIES, sequence("hist_shop_id")],
        [*TARGETS, SHOP, GENDER],
        DIMS,
        TOWER,
    ),
    # The second target is attended with the first history, and so on.
    "position": ([USER], HISTORIES[::-1], TARGETS, DIMS, TOWER),
    "noshare": (
        [USER],
        [sequence("hist_goods_id", None, pad=0), sequence("hist_cate_id", None)],
        TARGETS,
        DIMS,
        TOWER,
    ),
    "pooled_mean": pooled(sequence("tag", None, "mean")),
    "pooled_mean_pad0": pooled(sequence("tag", None, "mean", 0)),
    "pooled_sum": pooled(sequence("tag", None, "sum")),
    "pooled_sum_pad0": pooled(sequence("tag", None, "sum", 0)),
    "pooled_shared": pooled(
        sequence("hist_shop_id", None, "sum", 0),
        SequenceFeature("tag", 41, E, "mean", shared_with="goods_id", padding_idx=0),
        SparseFeature("last_goods_id", 41, E, shared_with="goods_id"),
    ),
    "one_layer": ([USER], HISTORIES, TARGETS, {"dims": [8]}, {"dims": [12]}),
    "three_layers": (
        [USER],
        HISTORIES,
        TARGETS,
        {"dims": [8, 6, 4]},
        {"dims": [12, 8, 6], "dropout": 0.2},
    ),
    "no_hidden": ([USER], HISTORIES, TARGETS, {"dims": []}, {"dims": []}),
    "parallel": plain(),
    # Only the fields of one list have to be equally wide.
    "features_dim": (
        [SparseFeature("user_id", 21, 5), SparseFeature("gender", 3, 5)],
        HISTORIES,
        TARGETS,
        DIMS,
        TOWER,
    ),
    "no_output_layer": (
        [USER],
        HISTORIES,
        TARGETS,
        DIMS,
        {"dims": [12, 1], "output_layer": False},
    ),
    "module_class": plain(activation=nn.Tanh),
}
FITTED = {"tutorial", "softmax_pad0"}
PROGRAMS = ("tutorial", "tutorial_pad0", "softmax", "relu", "prelu", "sigmoid")
PROGRAMS += ("prelu_softmax", "three_histories", "pooled_mean_pad0", "no_hidden")


def describe(feature: object) -> dict[str, Any]:
    names = ["name", "embed_dim", "vocab_size", "shared_with", "padding_idx"]
    if isinstance(feature, SequenceFeature):
        names.append("pooling")
    values = {name: getattr(feature, name) for name in names}
    return {"kind": type(feature).__name__, **values}


def fit(model: nn.Module, rows: Arrays, folder: Path) -> None:
    """Train two epochs as the library does; it writes the state_dict itself."""
    data = DataGenerator(rows, (rows["goods_id"] % 2).astype(np.float32))
    loaders = data.generate_dataloader(
        x_val=rows, y_val=rows["goods_id"] % 2, batch_size=16
    )[:2]
    trainer = CTRTrainer(
        model,
        optimizer_params={"lr": 1e-3},
        n_epoch=2,
        device="cpu",
        model_path=str(folder),
    )
    trainer.fit(*loaders)
    model.eval()


def call(names: list[str], model: nn.Module, tensors: list[Tensor]) -> Tensor:
    out: Tensor = model(dict(zip(names, tensors, strict=True)))
    return out


def main(out: Path) -> None:
    folder = out / "rechub"
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows(behind=False)
    rows["last_goods_id"] = np.random.default_rng(1).integers(0, 41, 32)
    for seed, (name, variant) in enumerate(VARIANTS.items()):
        features, histories, targets, attention, tower = variant
        for feature in (*features, *histories, *targets):
            vars(feature).pop("embed", None)  # the library keeps a feature's table
        model: nn.Module = DIN(features, histories, targets, tower, attention)
        shake(model, seed)
        used = {f.name: rows[f.name] for f in (*features, *histories, *targets)}
        x = {n: torch.from_numpy(v) for n, v in used.items()}
        last = [m for m in model.mlp.mlp if isinstance(m, nn.Linear)][-1]
        settle(last, lambda m=model, x=x: m(x))
        saved = folder / f"{name}_save"
        saved.mkdir(exist_ok=True)
        if name in FITTED:
            fit(model, used, saved)
        if name == "parallel":
            model = nn.DataParallel(model)
        if name not in FITTED:
            torch.save(model.state_dict(), saved / "model.pth")
        torch.save(model, folder / f"{name}_whole_model.pth")
        description = {
            "library": "torch-rechub",
            "version": "0.9.0",
            "variant": name,
            "features": [describe(f) for f in features],
            "history_features": [describe(f) for f in histories],
            "target_features": [describe(f) for f in targets],
            "mlp_params": tower,
            "attention_mlp_params": {
                k: f"{v.__module__}.{v.__name__}" if isinstance(v, type) else v
                for k, v in attention.items()
            },
            "state_dict": shapes(model),
        }
        save_json(folder / f"{name}_config.json", description)
        with torch.inference_mode():
            expected = model(x)
        save_io(folder / f"{name}_io.npz", used, expected)
        if name in PROGRAMS:
            first = {n: v[:16] for n, v in x.items()}
            positional = Positional(model, partial(call, list(x)))
            path = out / "pt2" / f"rechub_{name}.pt2"
            save_program(path, positional, tuple(first.values()))
            if name == "tutorial":  # as the library takes it
                save_program(out / "pt2" / "rechub_dict.pt2", model, (first,))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

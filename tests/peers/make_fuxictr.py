"""Write fuxictr checkpoints of many kinds, each with rows and its own scores.

In an environment of its own::

    pip install torch==2.13.0 fuxictr==2.3.10 "polars<2"
    python tests/peers/make_fuxictr.py OUT

fills OUT/fuxictr and OUT/pt2. LongCTR's DIN comes from the package. The classic one is
in the library's repository only; `ClassicDIN` computes the same with the package's own
layers, under the same keys.
"""

import importlib.util
import sys
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
import yaml
from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor
from fuxictr.pytorch.layers import Dice, DIN_Attention, FeatureEmbeddingDict, MLP_Block
from fuxictr.pytorch.models import BaseModel
from make_data import (
    SIZES,
    Arrays,
    Positional,
    T,
    make_rows,
    save_io,
    save_json,
    save_program,
    settle,
    shake,
    shapes,
)
from make_fuxictr_variants import BASE, CLASSIC, LONGCTR, PROGRAMS, Column
from torch import Tensor, nn


def names_of(entry: str | tuple[str, ...]) -> list[str]:
    return [entry] if isinstance(entry, str) else list(entry)


class ClassicDIN(BaseModel):  # type: ignore[misc]
    """What the library's model_zoo/DIN computes."""

    def __init__(self, feature_map: FeatureMap, **params: object) -> None:
        super().__init__(feature_map, **params)
        dim, units = params["embedding_dim"], params["dnn_hidden_units"]
        targets, pasts = params["din_target_field"], params["din_sequence_field"]
        targets = targets if isinstance(targets, list) else [targets]
        pasts = pasts if isinstance(pasts, list) else [pasts]
        self.pairs = list(zip(targets, pasts, strict=True))
        self.dim = dim
        self.embedding_layer = FeatureEmbeddingDict(feature_map, dim)
        self.attention_layers = nn.ModuleList(
            DIN_Attention(
                dim * len(names_of(target)),
                attention_units=params["attention_hidden_units"],
                hidden_activations=params["attention_hidden_activations"],
                output_activation=params["attention_output_activation"],
                dropout_rate=params["attention_dropout"],
                use_softmax=params["din_use_softmax"],
            )
            for target in targets
        )
        activations = params["dnn_activations"]
        if activations == "Dice":
            activations = [Dice(n) for n in units]
        self.dnn = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=units,
            hidden_activations=activations,
            output_activation=self.output_activation,
            dropout_rates=params["net_dropout"],
            batch_norm=params["batch_norm"],
        )

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.get_inputs(inputs)
        parts = self.embedding_layer(x)
        for attend, (target, past) in zip(
            self.attention_layers, self.pairs, strict=True
        ):
            query = torch.cat([parts[n] for n in names_of(target)], -1)
            keys = torch.cat([parts[n] for n in names_of(past)], -1)
            mask = x[names_of(past)[0]].long() != 0
            pooled = attend(query, keys, mask).split(self.dim, -1)
            parts.update(zip(names_of(past), pooled, strict=True))
        joined = self.embedding_layer.dict2tensor(parts, flatten_emb=True)
        return {"y_pred": self.dnn(joined)}


def load_longctr() -> type[nn.Module]:
    """Import the package's LongCTR DIN, whose folder is no package."""
    path = distribution("fuxictr").locate_file("model_zoo/LongCTR/DIN/DIN.py")
    spec = importlib.util.spec_from_file_location("longctr_din", str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DIN


def raw_table(columns: list[Column]) -> polars.DataFrame:
    """Make text as users have it, in which every value occurs."""
    rng = np.random.default_rng(3)
    table: dict[str, Any] = {}
    for column in columns:
        name = column["name"]
        field = next((n for n in SIZES if name.endswith(n)), name)
        if column["type"] == "numeric":
            table[name] = rng.random(200)
        elif column["type"] == "meta":
            table[name] = rng.integers(0, 9, 200)
        else:
            every = np.arange(200) % (SIZES[field] - 1) + 1
            values = rng.permutation(every).astype(str)
            if column["type"] == "sequence":
                more = rng.permutation(every).astype(str)
                values = [f"{a}^{b}" for a, b in zip(values, more, strict=True)]
            table[name] = list(values)
    return polars.DataFrame({**table, "clk": rng.integers(0, 2, 200).astype(float)})


def make_map(name: str, columns: list[Column], folder: Path) -> None:
    """Let the library write feature_map.json and feature_vocab.json."""
    label = {"name": "clk", "dtype": "float"}
    columns = [{**c, "active": True} for c in columns]
    root = str(folder / "data")
    processor = FeatureProcessor(columns, label, dataset_id=name, data_root=root)
    processor.fit(processor.preprocess(raw_table(columns).lazy()))
    Path(processor.pickle_file).unlink()


def save(
    name: str,
    columns: list[Column],
    params: dict[str, Any],
    model: nn.Module,
    folder: Path,
) -> None:
    """Write the checkpoint and the settings, shared ones under Base."""
    place = folder / "checkpoints" / name
    place.mkdir(parents=True, exist_ok=True)
    model.save_weights(place / f"{name}.model")
    base = {k: params[k] for k in ("model_root", "verbose")}
    own = {k: v for k, v in params.items() if k not in (*base, "model_id")}
    text = yaml.dump({"Base": base, name: own})
    (folder / f"{name}_model_config.yaml").write_text(text)
    description = {
        "library": "fuxictr",
        "version": "2.3.10",
        "variant": name,
        "params": params,
        "features": list(model.feature_map.features.items()),
        "feature_cols": columns,
        "state_dict": shapes(model),
        "checkpoint": f"fuxictr/checkpoints/{name}/{name}.model",
    }
    save_json(folder / f"{name}_config.json", description)


def make_model(
    kind: type[nn.Module],
    name: str,
    columns: list[Column],
    more: dict[str, Any],
    out: Path,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the feature map as the library's run_expid.py does, and build a model."""
    folder = out / "fuxictr"
    make_map(name, columns, folder)
    params = BASE | more | {"dataset_id": name, "model_id": name}
    data = folder / "data" / name
    feature_map = FeatureMap(name, str(data))
    feature_map.load(str(data / "feature_map.json"), params)
    model = kind(feature_map, **params)
    shake(model, len(name))
    return model, params


def ids(model: nn.Module, rows: Arrays) -> Arrays:
    """Choose the model's inputs; the largest id of a table is what was never seen."""
    out = {}
    for name, spec in model.feature_map.features.items():
        if spec["type"] != "meta":
            out[name] = rows[name].copy()
            if spec["type"] != "numeric":
                out[name][20:22][out[name][20:22] > 0] = spec["vocab_size"] - 1
    return out


def call_classic(names: list[str], model: nn.Module, tensors: list[Tensor]) -> Tensor:
    out: Tensor = model(dict(zip(names, tensors, strict=True)))["y_pred"]
    return out


def make_classic(name: str, out: Path, rows: Arrays) -> None:
    columns, more = CLASSIC[name]
    model, params = make_model(ClassicDIN, name, columns, more, out)
    used = ids(model, rows)
    x = {n: torch.from_numpy(v) for n, v in used.items()}
    settle(model.dnn.mlp[-2], lambda: model(x))
    save(name, columns, params, model, out / "fuxictr")
    with torch.inference_mode():
        expected = model(x)["y_pred"]
    save_io(out / "fuxictr" / f"{name}_io.npz", used, expected)
    if "hist_cate_id" in used:  # lists that do not agree where they are empty
        odd = {n: v.copy() for n, v in used.items()}
        odd["hist_cate_id"][12:16] = 0
        odd["hist_cate_id"][16:20] = np.arange(1, T + 1) % 6 + 1
        odd["hist_goods_id"][16] = 0
        x = {n: torch.from_numpy(v) for n, v in odd.items()}
        with torch.inference_mode():
            expected = model(x)["y_pred"]
        save_io(out / "fuxictr" / f"{name}_odd_io.npz", odd, expected)
    if name in PROGRAMS:
        first = {n: torch.from_numpy(v[:16]) for n, v in used.items()}
        positional = Positional(model, partial(call_classic, list(used)))
        path = out / "pt2" / f"fuxictr_{name}.pt2"
        save_program(path, positional, tuple(first.values()))
        if name == "classic_tuple":  # as the library takes it
            save_program(out / "pt2" / "fuxictr_classic_dict.pt2", model, (first,))


def call_longctr(
    users: list[str], items: list[str], model: nn.Module, tensors: list[Tensor]
) -> Tensor:
    user = dict(zip(users, tensors, strict=False))
    item = dict(zip(items, tensors[len(users) :], strict=False))
    out: Tensor = model((user, item, tensors[-1]))["y_pred"]
    return out


def make_longctr(name: str, out: Path, rows: Arrays) -> None:
    columns, more = LONGCTR[name]
    model, params = make_model(load_longctr(), name, columns, more, out)
    used = ids(model, rows)
    specs = model.feature_map.features
    items = [n for n in used if specs[n].get("source") == "item"]
    users = [n for n in used if n not in items]
    past_of = {n: rows[f"hist_{n}"] for n in items}
    flat = {n: np.c_[past_of[n], used[n]].reshape(-1) for n in items}
    mask = torch.from_numpy((past_of["goods_id"] > 0).astype(np.float32))
    user = {n: torch.from_numpy(used[n]) for n in users}
    item = {n: torch.from_numpy(v) for n, v in flat.items()}
    settle(model.dnn.mlp[-2], lambda: model((user, item, mask)))
    save(name, columns, params, model, out / "fuxictr")
    with torch.inference_mode():
        expected = model((user, item, mask))["y_pred"]
    extra = {f"item_{n}": v for n, v in flat.items()}
    inputs = {n: used[n] for n in users}
    path = out / "fuxictr" / f"{name}_io.npz"
    save_io(path, inputs, expected, extra | {"mask": mask.numpy()})
    if name in PROGRAMS:
        first = [v[:16] for v in user.values()]
        first += [v[: 16 * (T + 1)] for v in item.values()]
        positional = Positional(model, partial(call_longctr, users, items))
        path = out / "pt2" / f"fuxictr_{name}.pt2"
        save_program(path, positional, (*first, mask[:16]))


def main(out: Path) -> None:
    sides = {}
    for left in (False, True):
        rows = sides[left] = make_rows(left=left)
        rng = np.random.default_rng(1)
        rows["last_goods_id"] = rng.integers(1, 41, 32)
        carts = rng.integers(0, T + 1, 32)
        kept = np.arange(T) < carts[:, None]
        rows["cart_goods_id"] = np.where(kept, rng.integers(1, 41, (32, T)), 0)
        rows["weight"] = rng.random(32, dtype=np.float32)
        present = rows["hist_goods_id"] > 0
        rows["hist_weight"] = rng.random((32, T), dtype=np.float32) * present
    for name in CLASSIC:
        make_classic(name, out, sides[name == "classic_pre"])
    for name in LONGCTR:
        make_longctr(name, out, sides[name != "longctr_post"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

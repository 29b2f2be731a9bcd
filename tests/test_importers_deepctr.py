"""A DIN of deepctr-torch scores as the library scored it, or is refused."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from din_converter import convert
from din_converter.importers import whole_models
from din_converter.importers.deepctr_torch import read
from din_converter.importers.unpickle import module_state, read_pickle
from din_infer.errors import ConversionError, InputError
from din_infer.jobs.explain import explain_file
from din_infer.jobs.files import score_files
from din_infer.predictor import Predictor
from tests.importing import (
    TOLERANCE,
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

PEERS = SHARED / "peers" / "deepctr"
VARIANTS = ("default", "rich")


def without(batch: dict[str, Any], *names: str) -> dict[str, Any]:
    return {n: v for n, v in batch.items() if n not in names}


def forms(batch: Arrays, length: str) -> dict[str, Any]:
    """Give the batch in every form in which it means the same."""
    return {
        "as the library takes it": batch,
        "without lengths": without(batch, length),
        "padded on the left": without(left_padded(batch), length),
        "ragged": without(ragged(batch), length),
        "ragged, with lengths": ragged(batch),
        "rows": [
            {n: v[i] if isinstance(v, list) else v[i].item() for n, v in row.items()}
            for row in [without(ragged(batch), length)]
            for i in range(len(batch[length]))
        ],
    }


@needs_shared
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_state_dict_with_a_description_scores_as_the_library(
    variant: str, tmp_path: Path
) -> None:
    model = read(PEERS / f"{variant}_state_dict.pth", PEERS / f"{variant}_config.json")
    batch, expected = load_io(PEERS / f"{variant}_io.npz")
    assert set(model.spec.columns) | {"seq_length"} == set(batch)
    assert model.spec.optional_columns == ("seq_length",)
    check(model, forms(batch, "seq_length"), expected, tmp_path)


@needs_shared
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_model_alone_is_the_same(variant: str) -> None:
    model = read(PEERS / f"{variant}_whole_model.pth")
    other = read(PEERS / f"{variant}_state_dict.pth", PEERS / f"{variant}_config.json")
    assert model.spec == other.spec
    mine, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)


@needs_shared
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_checkpoint_scores_as_its_own_weights_do(variant: str) -> None:
    """It is of another epoch than the expected scores: the reference is the oracle."""
    path = PEERS / f"{variant}_modelcheckpoint.ckpt"
    reference = load_reference()
    config = json.loads((PEERS / f"{variant}_config.json").read_text())
    state = module_state(read_pickle(path))
    weights = {k: t.detach().numpy() for k, t in state.items()}
    batch, _ = load_io(PEERS / f"{variant}_io.npz")
    with np.load(PEERS / f"{variant}_io.npz") as stored:
        expected = reference.forward(weights, config, stored["X"]).reshape(-1)
    assert expected.std() > 0.004
    np.testing.assert_allclose(
        scores_of(read(path), batch), expected, rtol=0, atol=TOLERANCE
    )


# ----------------------------------------------------- checkpoints made for the tests

SIZES = {"user": (9, 3), "item": (12, 4), "cate": (6, 2), "tag": (7, 3)}


def sparse(name: str, table: str | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    rows, dim = SIZES[table or name]
    column = {"kind": "SparseFeat", "name": name, "vocabulary_size": rows}
    return column | {"embedding_dim": dim, "embedding_name": table} | more


def varlen(name: str, table: str, maxlen: int = 5, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    column = sparse(name, table) | {"kind": "VarLenSparseFeat", "maxlen": maxlen}
    return column | {"combiner": "mean", "length_name": "n"} | more


COLUMNS = [
    sparse("user"),
    sparse("item"),
    sparse("cate"),
    varlen("hist_item", "item"),
    varlen("hist_cate", "cate"),
    {"kind": "DenseFeat", "name": "price", "dimension": 2},
]
KWARGS = {
    "att_hidden_size": [4, 3],
    "dnn_hidden_units": [6],
    "att_activation": "prelu",
}


def describe(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    made = {
        "columns": COLUMNS,
        "history_feature_list": ["item", "cate"],
        "dnn_kwargs": KWARGS,
    }
    return made | changes


def state_of(description: dict[str, Any]) -> dict[str, Tensor]:
    """Draw the state_dict that the library would have written."""
    torch.manual_seed(0)
    columns, kwargs = description["columns"], description["dnn_kwargs"]
    embedded = [c for c in columns if c["kind"] != "DenseFeat"]
    state: dict[str, Tensor] = {}
    for c in sorted(embedded, key=lambda c: "maxlen" in c):
        shape = c["vocabulary_size"], c["embedding_dim"]
        key = f"embedding_dict.{c['embedding_name'] or c['name']}.weight"
        state[key] = torch.randn(shape)
    state["out.bias"] = torch.randn(1)
    listed = description["history_feature_list"]
    query = sum(c["embedding_dim"] for c in embedded if c["name"] in listed)

    def layers(start: str, widths: list[int], activation: str, norm: bool) -> None:
        for i, units in enumerate(widths[1:]):
            state[f"{start}.linears.{i}.weight"] = torch.randn(units, widths[i]) / 2
            state[f"{start}.linears.{i}.bias"] = torch.randn(units)
            dice = activation.lower() == "dice"
            place = f"{start}.activation_layers.{i}"
            for key in [f"{start}.bn.{i}"] * norm + [f"{place}.bn"] * dice:
                for name in ("weight", "bias", "running_mean", "running_var"):
                    state[f"{key}.{name}"] = torch.rand(units) + 0.5
                state[f"{key}.num_batches_tracked"] = torch.tensor(3)
            if dice:
                state[f"{place}.alpha"] = torch.randn(units, 1)
            if activation == "prelu":
                state[f"{place}.weight"] = torch.rand(1)

    hidden, units = kwargs["att_hidden_size"], kwargs["dnn_hidden_units"]
    unit = "attention.local_att"
    activation = kwargs.get("att_activation", "Dice")
    layers(f"{unit}.dnn", [4 * query, *hidden], activation, False)
    state[f"{unit}.dense.weight"] = torch.randn(1, hidden[-1])
    state[f"{unit}.dense.bias"] = torch.randn(1)
    width = sum(c["embedding_dim"] for c in embedded)
    width += sum(c["dimension"] for c in columns if "dimension" in c)
    activation = kwargs.get("dnn_activation", "relu")
    layers("dnn", [width, *units], activation, kwargs.get("dnn_use_bn", False))
    state["dnn_linear.weight"] = torch.randn(1, units[-1])
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


def batch_of(description: dict[str, Any], rows: int = 8) -> Arrays:
    rng = np.random.default_rng(1)
    batch: Arrays = {}
    for c in description["columns"]:
        if c["kind"] == "DenseFeat":
            batch[c["name"]] = rng.normal(size=(rows, c["dimension"]))
        elif "maxlen" not in c:
            batch[c["name"]] = rng.integers(0, c["vocabulary_size"], rows)
        else:
            size = rng.integers(1, c["vocabulary_size"], (rows, c["maxlen"]))
            batch[c["name"]] = size
    for c in description["columns"]:
        if c.get("length_name"):
            batch[c["length_name"]] = rng.integers(0, 4, rows)
    for c in description["columns"]:
        if "maxlen" in c and c["length_name"]:
            n = batch[c["length_name"]]
            batch[c["name"]][np.arange(c["maxlen"]) >= n[:, None]] = 0
    return batch


@needs_shared
@pytest.mark.parametrize(
    ("columns", "listed"),
    [
        (COLUMNS, ["item", "cate"]),
        (COLUMNS, ["cate", "item"]),
        # the histories in another order than the targets, and a length of the tags
        (
            [
                sparse("user"),
                sparse("cate"),
                sparse("item"),
                varlen("tags", "tag", 4, length_name="tag_n", combiner="sum"),
                varlen("hist_item", "item"),
                varlen("hist_cate", "cate"),
            ],
            ["item", "cate"],
        ),
        # one table for a user field, a candidate and its history, groups out of order
        (
            [
                varlen("hist_item", "item", group_name="z"),
                sparse("last", "item", group_name="z"),
                sparse("user"),
                sparse("item", group_name="z"),
                varlen("tags", "tag", 4, length_name=None),
                varlen("most", "tag", 4, length_name=None, combiner="max"),
            ],
            ["item"],
        ),
    ],
    ids=["plain", "list order", "quirks", "shared"],
)
def test_order_and_pairing_are_the_librarys(
    files: Files, columns: list[dict[str, Any]], listed: list[str], tmp_path: Path
) -> None:
    description = describe(columns=columns, history_feature_list=listed)
    batch = batch_of(description)
    reference = load_reference()
    model = read(*files.write(description))
    weights = {k: t.numpy() for k, t in state_of(description).items()}
    expected = reference_scores(reference, weights, description, batch)
    check(model, {"padded": batch}, expected, tmp_path)
    if "tag_n" in batch:  # lengths that are not the histories' own: no padding tells
        assert model.spec.behavior[0].pad_value is None
        assert model.spec.columns[-1] != "n"
        with pytest.raises(InputError, match="expected a column `tag_n`"):
            model.spec.encode(without(batch, "tag_n"))


def load_reference() -> Any:  # noqa: ANN401
    place = PEERS / "ref_deepctr.py"
    found = importlib.util.spec_from_file_location("ref_deepctr", place)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def reference_scores(
    reference: Any,  # noqa: ANN401
    weights: Any,  # noqa: ANN401
    description: dict[str, Any],
    batch: Arrays,
) -> Any:  # noqa: ANN401
    """Score by the reference, which knows no groups: columns are put in their order."""
    columns = [dict(c) for c in description["columns"]]
    groups: dict[str, list[Any]] = {}
    for c in columns:
        c["embedding_name"] = c.get("embedding_name") or c["name"]
        if c["kind"] == "SparseFeat":
            groups.setdefault(c.get("group_name", "default_group"), []).append(c)
    ordered = [c for group in groups.values() for c in group]
    ordered += [c for c in columns if c["kind"] != "SparseFeat"]
    index: dict[str, list[int]] = {}
    parts, start = [], 0
    for name, values in batch.items():
        matrix = values.reshape(len(values), -1).astype(np.float32)
        index[name] = [start, start + matrix.shape[1]]
        start += matrix.shape[1]
        parts.append(matrix)
    config = description | {"columns": ordered, "feature_index": index}
    scores = reference.forward(weights, config, np.concatenate(parts, axis=1))
    return scores.reshape(-1).astype(np.float64)


@needs_shared
@pytest.mark.parametrize(
    "kwargs",
    [
        {"att_activation": "Dice", "dnn_activation": "sigmoid"},
        {"att_activation": "relu", "dnn_use_bn": True, "dnn_dropout": 0.3},
        {"att_activation": "linear", "att_weight_normalization": True},
        {"att_activation": "sigmoid", "dnn_activation": "prelu", "seed": 3},
    ],
    ids=str,
)
def test_activations_and_norms_are_the_librarys(
    files: Files, kwargs: dict[str, Any], tmp_path: Path
) -> None:
    description = describe(dnn_kwargs=KWARGS | kwargs)
    batch = batch_of(description)
    batch["n"][:2] = 0, 4
    for name in ("hist_item", "hist_cate"):
        batch[name][0] = 0
        batch[name][1, :4] = np.maximum(batch[name][1, :4], 1)
    weights = {k: t.numpy() for k, t in state_of(description).items()}
    expected = reference_scores(load_reference(), weights, description, batch)
    model = read(*files.write(description))
    check(model, {"padded": batch, "ragged": ragged(batch)}, expected, tmp_path)


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_another_task_gives_the_logit(files: Files, task: str) -> None:
    binary = read(*files.write(describe()))
    other = read(*files.write(describe(dnn_kwargs=KWARGS | {"task": task})))
    assert other.spec.model.link == "identity"
    batch = batch_of(describe())
    logits = scores_of(other, batch)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), scores_of(binary, batch))


def test_fields_are_on_the_side_that_is_said(files: Files) -> None:
    paths = files.write(describe())
    spec = read(*paths).spec
    assert [f.name for f in spec.user] == ["user"]
    assert [f.name for f in spec.candidate] == ["item", "cate"]
    assert spec.dense[0].side == "candidate"
    batch = batch_of(describe())
    scores = scores_of(read(*paths), batch)
    other = read(*paths, user_fields=["price"], candidate_fields=("user", "item"))
    assert [f.name for f in other.spec.candidate] == ["user", "item", "cate"]
    assert other.spec.dense[0].side == "user"
    np.testing.assert_allclose(scores_of(other, batch), scores, rtol=1e-6)


def test_names_that_a_spec_does_not_allow_keep_their_columns(files: Files) -> None:
    columns = [
        sparse("a.b", "user"),
        sparse("a_b", "user"),
        sparse("history", "item"),
        varlen("hist_history", "item"),
        {"kind": "DenseFeat", "name": "score", "dimension": 1},
    ]
    description = describe(columns=columns, history_feature_list=["history"])
    spec = read(*files.write(description)).spec
    assert spec.columns == ("a.b", "a_b", "history", "hist_history", "score")
    assert [f.name for f in spec.user] == ["a_b_2", "a_b"]
    assert spec.behavior[0].name == "history_2"
    assert spec.dense[0].name == "score_2"


@pytest.mark.parametrize("has_lengths", [True, False])
def test_files_and_requests_may_lack_the_lengths(
    files: Files, tmp_path: Path, has_lengths: bool
) -> None:
    model = read(*files.write(describe()))
    batch: dict[str, Any] = batch_of(describe())
    scores = scores_of(model, batch)
    if not has_lengths:
        batch = ragged(without(batch, "n"))
    convert(model, tmp_path / "m.onnx", explain=True)
    predictor = Predictor(tmp_path / "m.onnx", device="cpu", threads=1)
    table = pa.table({k: list(v) for k, v in batch.items()})
    pq.write_table(table, tmp_path / "rows.parquet")
    close = {"rtol": 0, "atol": TOLERANCE}
    score_files(
        predictor, [tmp_path / "rows.parquet"], tmp_path / "out", progress=False
    )
    found = pq.read_table(tmp_path / "out" / "rows.parquet")["score"].to_numpy()
    np.testing.assert_allclose(found, scores, **close)
    shown = explain_file(predictor, tmp_path / "rows.parquet", [5, 2])
    np.testing.assert_allclose([row.score for row in shown], scores[[5, 2]], **close)
    assert ("n" in shown[0].user) == has_lengths
    spec = model.spec
    user = [*spec.encoder.user_columns, *(["n"] if has_lengths else [])]
    items = {k: v for k, v in batch.items() if k in spec.encoder.candidate_columns}
    users = {k: batch[k] for k in user}
    rows = np.arange(len(scores))
    made = predictor.score_requests(users, items, rows)
    np.testing.assert_allclose(made, scores, **close)
    explained = predictor.explain_requests(users, items, rows)
    np.testing.assert_allclose([row.score for row in explained], scores, **close)


# ---------------------------------------------------------------------------- refusals

WRONG = "expected a deepctr-torch DIN that can be reproduced exactly, got "


def changed(at: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    columns = [dict(c) for c in COLUMNS]
    columns[at] |= changes
    return describe(columns=columns)


REFUSED: dict[str, dict[str, Any]] = {
    "no columns": {"history_feature_list": ["item"]},
    "history_feature_list = [] instead of a list of at least one name": describe(
        history_feature_list=[]
    ),
    "unknown extra (known: columns, history_feature_list, dnn_kwargs, library, version,"
    " variant, feature_index, state_dict)": describe(extra=1),
    "version = '0.2.3' instead of 0.2.9 to 0.3.0": describe(version="0.2.3"),
    "library = 'recbole' instead of deepctr-torch": describe(library="recbole"),
    "unknown dnn_kwargs.units (known: dnn_use_bn, dnn_hidden_units, dnn_activation,"
    " att_hidden_size, att_activation, att_weight_normalization, task, l2_reg_dnn,"
    " l2_reg_embedding, dnn_dropout, init_std, seed, device, gpus)": describe(
        dnn_kwargs=KWARGS | {"units": 3}
    ),
    "dnn_kwargs.dnn_hidden_units = [] instead of a list of at least one positive whole"
    " number; dnn_kwargs.att_activation = 'gelu' instead of one of dice, prelu, relu,"
    " sigmoid, silu, linear": describe(
        dnn_kwargs=KWARGS | {"att_activation": "gelu", "dnn_hidden_units": []}
    ),
    "dnn_activation = dice, which the library itself cannot run": describe(
        dnn_kwargs=KWARGS | {"dnn_activation": "Dice"}
    ),
    "columns[0] as 'LinearFeat' instead of SparseFeat or VarLenSparseFeat or"
    " DenseFeat": changed(0, kind="LinearFeat"),
    "columns[1].use_hash = True instead of false (the library hashes nothing here)": (
        changed(1, use_hash=True)
    ),
    "columns[3].combiner = 'last' instead of sum, mean or max": changed(
        3, combiner="last"
    ),
    "hist_item with combiner max beside a length_name, which the library itself cannot"
    " run": changed(3, combiner="max"),
    "no length_name of any VarLenSparseFeat": describe(
        columns=[
            c | {"length_name": None} if "maxlen" in c else c for c in COLUMNS
        ]
    ),
    "histories of different maxlen (hist_item 5, hist_cate 6)": changed(4, maxlen=6),
    "two columns user": changed(5, name="user"),
    "no SparseFeat shop, which history_feature_list has; no VarLenSparseFeat hist_shop":
        describe(history_feature_list=["item", "cate", "shop"]),
    "targets of width 6 and histories of width 7": changed(
        4, embedding_dim=3, embedding_name="other"
    ),
    "embedding_dim 2 and 3 in one embedding cate; targets of width 6 and histories of"
    " width 7": changed(4, embedding_dim=3),
    "dnn_kwargs as list": describe(dnn_kwargs=[]),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_exact_is_refused(files: Files, reason: str) -> None:
    paths = files.write(REFUSED[reason], of=describe())
    text = reason.replace("dnn_kwargs as list", "dnn_kwargs = [] instead of a table")
    assert message_of(read, *paths) == f"{WRONG}{text} - at `{files.description}`"


def test_keys_and_shapes_that_contradict_are_listed_at_once(files: Files) -> None:
    def change(state: dict[str, Tensor]) -> None:
        del state["dnn.linears.0.bias"]
        state["dnn.linears.1.bias"] = torch.ones(2)
        state["embedding_dict.item.weight"] = torch.ones(13, 4)
        state["out.bias"] = torch.ones(1, dtype=torch.int64)

    paths = files.write(describe(), change)
    assert message_of(read, *paths) == (
        "expected the weights of a deepctr-torch DIN as described, got"
        " embedding_dict.item.weight as [12, 4], not [13, 4];"
        " missing dnn.linears.0.bias; out.bias as floats, not torch.int64;"
        f" unknown dnn.linears.1.bias - at `{files.state}`"
    )


def test_a_size_that_is_only_claimed_costs_no_memory(files: Files) -> None:
    huge = {"vocabulary_size": 2**31 - 1, "embedding_dim": 2**20}
    columns = [dict(c) for c in COLUMNS]
    columns[0] |= huge
    paths = files.write(describe(columns=columns), of=describe())
    assert message_of(read, *paths).startswith(
        "expected the weights of a deepctr-torch DIN as described, got"
        " embedding_dict.user.weight as [2147483647, 1048576], not [9, 3];"
    )


def test_dice_without_alpha_is_of_an_old_release(files: Files) -> None:
    def change(state: dict[str, Tensor]) -> None:
        for key in [k for k in state if k.endswith(".alpha")]:
            del state[key]

    description = describe(dnn_kwargs=KWARGS | {"att_activation": "Dice"})
    paths = files.write(description, change)
    assert message_of(read, *paths) == (
        "expected a checkpoint of deepctr-torch 0.2.9 or later, got Dice without alpha,"
        f" which releases up to 0.2.3 wrote - at `{files.state}`"
    )


def test_a_state_dict_needs_a_description(files: Files, tmp_path: Path) -> None:
    state, _ = files.write(describe())
    assert message_of(read, state) == (
        "expected a description of the columns beside a state_dict, got none - at"
        f" `{state}`. Give it, or the whole model as torch.save(model, ...) writes it."
    )
    wrong = tmp_path / "wrong.json"
    assert message_of(read, state, wrong) == (
        f"expected a description as JSON, got No such file or directory - at `{wrong}`"
    )
    wrong.write_text("{")
    assert message_of(read, state, wrong).startswith(
        "expected a description as JSON, got Expecting property name"
    )


def test_another_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(torch.nn.Linear(1, 1), path)
    assert message_of(read, path) == (
        "expected a state_dict or a DIN of deepctr-torch, got"
        f" <torch.nn.modules.linear.Linear> - at `{path}`"
    )
    torch.save([1], path)
    assert message_of(read, path) == (
        f"expected a state_dict or a DIN of deepctr-torch, got list - at `{path}`"
    )


@needs_shared
def test_a_whole_model_needs_no_description() -> None:
    path = PEERS / "default_whole_model.pth"
    assert message_of(read, path, PEERS / "default_config.json") == (
        "expected a state_dict beside a description, got"
        f" <deepctr_torch.models.din.DIN> - at `{path}`"
    )


def part(model: Any, *names: str) -> Any:  # noqa: ANN401
    for name in names:
        model = model.attributes["_modules"][name]
    return model


def hash_goods(model: Any) -> None:  # noqa: ANN401
    column = model.attributes["dnn_feature_columns"][3]
    column.args = (*column.args[:3], True, *column.args[4:])


def make_tanh(model: Any) -> None:  # noqa: ANN401
    for i in "01":
        unit = part(model, "attention", "local_att", "dnn", "activation_layers", i)
        unit.class_name = "Tanh"


def drop_alpha(model: Any) -> None:  # noqa: ANN401
    for i in "01":
        unit = part(model, "attention", "local_att", "dnn", "activation_layers", i)
        del unit.attributes["_parameters"]["alpha"]


def bomb(depth: int = 80) -> Any:  # noqa: ANN401
    """Nest tuples that are short in a file, and endless to walk."""
    value: Any = ()
    for _ in range(depth):
        value = (value, value)
    return value


KNOWN = "dice, prelu, relu, sigmoid, silu, linear"
CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "hashed": (
        hash_goods,
        f"{WRONG}columns[3].use_hash = True instead of false (the library hashes"
        " nothing here)",
    ),
    "another activation": (
        make_tanh,
        f"{WRONG}dnn_kwargs.att_activation = 'Tanh' instead of one of {KNOWN}",
    ),
    "two activations": (
        lambda m: setattr(
            part(m, "dnn", "activation_layers", "0"), "class_name", "PReLU"
        ),
        f"{WRONG}dnn_kwargs.dnn_activation = ['PReLU', 'ReLU'] instead of one of"
        f" {KNOWN}",
    ),
    "an older release": (
        lambda m: m.attributes.pop("gpus") and None,
        "expected a DIN of deepctr-torch 0.2.9 or later, got one without `gpus`, as"
        " releases up to 0.2.5 pickle it",
    ),
    "Dice without alpha": (
        drop_alpha,
        "expected a checkpoint of deepctr-torch 0.2.9 or later, got Dice without"
        " alpha, which releases up to 0.2.3 wrote",
    ),
    "a subclass": (
        lambda m: setattr(m, "module_name", "__main__"),
        "expected a state_dict or a DIN of deepctr-torch, got <__main__.DIN>",
    ),
    "another model": (
        lambda m: setattr(m, "class_name", "DIEN"),
        "expected a state_dict or a DIN of deepctr-torch, got"
        " <deepctr_torch.models.din.DIEN>",
    ),
    "no attention": (
        lambda m: m.attributes["_modules"].pop("attention") and None,
        "expected a DIN as deepctr-torch 0.2.9 to 0.3.0 makes it, got no attention",
    ),
    "no columns": (
        lambda m: m.attributes.update(dnn_feature_columns=None),
        f"{WRONG}columns = None instead of a list",
    ),
    "bombs": (
        lambda m: m.attributes.update(history_feature_list=bomb()),
        f"{WRONG}history_feature_list = [[['tuple', 'tuple'], ['tuple', 'tuple']],"
        " [['tuple', 'tuple'], ['tuple', 'tuple']]] instead of a list of at least one"
        " name",
    ),
    "numbers of NumPy": (
        lambda m: setattr(
            m.attributes["dnn_feature_columns"][0],
            "args",
            ("user_id", np.int64(-5), np.int32(8)),
        ),
        f"{WRONG}columns[0].vocabulary_size = -5 instead of a positive whole number",
    ),
    "a list of nothing": (
        lambda m: setattr(m.attributes["dnn_feature_columns"][6], "args", ()),
        f"{WRONG}columns[6] as 'a VarLenSparseFeat without a SparseFeat' instead of"
        " SparseFeat or VarLenSparseFeat or DenseFeat",
    ),
    "a column of its own": (
        lambda m: setattr(
            m.attributes["dnn_feature_columns"][0], "class_name", "MyFeat"
        ),
        f"{WRONG}columns[0] as '<deepctr_torch.inputs.MyFeat>' instead of SparseFeat"
        " or VarLenSparseFeat or DenseFeat",
    ),
}


@needs_shared
@pytest.mark.parametrize("name", CHANGES)
def test_a_pickled_model_of_another_make_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = PEERS / "default_whole_model.pth"
    model = read_pickle(path)
    change, message = CHANGES[name]
    change(model)
    monkeypatch.setattr(whole_models, "read_pickle", lambda _: model)
    assert message_of(read, path) == f"{message} - at `{path}`"


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (
            {"user_fields": ["shop"]},
            "expected one of user, item, cate, price, got 'shop' - at `user_fields`",
        ),
        (
            {"user_fields": ["item"]},
            "expected only names that can be user fields, got 'item', which the"
            " attention has as candidate - at `user_fields`",
        ),
        (
            {"candidate_fields": ["hist_item"]},
            "expected only names that can be candidate fields, got 'hist_item', which"
            " the attention has as user - at `candidate_fields`",
        ),
        (
            {"user_fields": ["user"], "candidate_fields": ["user"]},
            "expected a name on one side only, got 'user' - at `candidate_fields`",
        ),
        (
            {"user_fields": "user"},
            "expected a list of names, got 'user' - at `user_fields`",
        ),
    ],
)
def test_a_side_that_cannot_be_is_refused(
    files: Files, sides: dict[str, Any], message: str
) -> None:
    assert message_of(read, *files.write(describe()), **sides) == message


@needs_shared
def test_columns_out_of_the_librarys_order_are_refused(tmp_path: Path) -> None:
    config = json.loads((SHARED / "peers/deepctr/default_config.json").read_text())
    config["columns"] = config["columns"][::-1]
    (tmp_path / "c.json").write_text(json.dumps(config))
    path = SHARED / "peers/deepctr/default_state_dict.pth"
    with pytest.raises(ConversionError) as caught:
        read(path, tmp_path / "c.json")
    assert str(caught.value) == (
        "expected the weights of a deepctr-torch DIN as described, got columns whose"
        " tables come as user_id, gender, age_level, goods_id, shop_id, cate_id, not as"
        f" cate_id, shop_id, goods_id, age_level, gender, user_id - at `{path}`"
    )

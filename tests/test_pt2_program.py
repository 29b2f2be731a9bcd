"""The JSON of a .pt2: no name, operator or formula in it becomes code.

torch writes names into Python source, and takes operators by their names in all of
torch. Markers show what torch alone would run.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from din_converter.importers.pt2 import load_program
from din_converter.modules import export_module
from tests.pt2 import (
    MODEL,
    SAMPLES,
    edited,
    inputs,
    members,
    ran,
    refused,
    save_small,
    saved,
    write,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("pt2") / "good.pt2")


TARGETS = [
    "torch.serialization.os.system",
    "torch.hub.load",
    "torch.ops.load_library",
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.add.__class__",
    "torch.ops.aten.__init__",
    "torch.ops.mylib.evil",
    "_operator.methodcaller",
    "_operator.attrgetter",
    "_operator.call",
    "math.__loader__.load_module",
    "#evil",
    "builtins.eval",
]


@pytest.mark.parametrize("target", TARGETS)
def test_only_plain_operators_are_named(
    good: Path, tmp_path: Path, target: str
) -> None:
    def edit(program: Any) -> None:  # noqa: ANN401
        program["graph_module"]["graph"]["nodes"][-1]["target"] = target

    path = edited(good, tmp_path / "bad.pt2", edit)
    refused(path, f"the operator {target!r}, which is none of torch's own")


def test_operators_as_arguments_are_vetted_too(good: Path, tmp_path: Path) -> None:
    def edit(program: Any) -> None:  # noqa: ANN401
        node = program["graph_module"]["graph"]["nodes"][0]
        evil = {"as_operator": "torch.serialization.os.system"}
        node["inputs"].append({"name": "f", "arg": evil, "kind": 1})

    refused(edited(good, tmp_path / "bad.pt2", edit), "'torch.serialization.os.system'")


def with_formula(good: Path, path: Path, formula: str) -> Path:
    found = members(good)
    text = found[MODEL].decode()
    before = text.index('"expr_str": "') + len('"expr_str": ')
    after = text.index('"', before + 1) + 1
    text = text[:before] + json.dumps(formula) + text[after:]
    return write(path, found | {MODEL: text.encode()})


def test_formulas_are_not_evaluated(good: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    evil = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    path = with_formula(good, tmp_path / "bad.pt2", evil)
    assert ran(lambda: torch.export.load(path), marker)
    refused(path, "which is no arithmetic of sizes")
    assert not marker.exists()


FORMULAS = [
    "s0.__class__",
    "exec(s0)",
    "[s0]",
    "lambda: s0",
    "9**9**9",
    "Symbol('s0', evil=True)",
    "Symbol('x')",
    '"s0"',
    "s0; s1",
    "open(s0)",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_are_arithmetic_alone(
    good: Path, tmp_path: Path, formula: str
) -> None:
    path = with_formula(good, tmp_path / "bad.pt2", formula)
    refused(path, "which is no arithmetic of sizes")


POWERS = [
    "9**999999999",
    "9**(99*99*99*99)",
    "s0**s1",
    "s0**2**2**2",
    "99999999!",
    "Pow(Integer(9), Integer(999999999))",
    "PowByNatural(9, 9*99999999)",
    "9999999999999999999",
    "1e999",
]


@pytest.mark.parametrize("formula", POWERS)
def test_formulas_do_not_fill_the_memory(
    good: Path, tmp_path: Path, formula: str
) -> None:
    path = with_formula(good, tmp_path / "bad.pt2", formula)
    refused(path, "which is no arithmetic of sizes")


def touching(marker: Path) -> str:
    return f"__import__('pathlib').Path('{marker}').touch()"


class Twice(nn.Module):
    def forward(self, *, x: Tensor) -> Tensor:
        return x + x


def test_names_of_inputs_do_not_become_code(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "bad.pt2"
    torch.export.save(torch.export.export(Twice(), (), {"x": torch.ones(2)}), path)
    found = members(path)
    name = json.dumps(f"x=[{touching(marker)}][0]").encode()
    write(path, found | {MODEL: found[MODEL].replace(b'"x"', name)})
    assert ran(lambda: torch.export.load(path).run_decompositions(), marker)
    refused(path, "which is no plain name")
    assert not marker.exists()


def test_names_of_arguments_do_not_become_code(good: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    def edit(program: Any) -> None:  # noqa: ANN401
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"].append(f"more=[{touching(marker)}][0]")

    path = edited(good, tmp_path / "bad.pt2", edit)
    assert ran(lambda: torch.export.load(path).module(), marker)
    refused(path, "with the forward_arg_names ")
    assert not marker.exists()


@pytest.mark.parametrize("key", ["a, b", "a=[evil()][0]", "a b", "", "1"])
def test_keywords_are_names(tmp_path: Path, key: str) -> None:
    path = tmp_path / "bad.pt2"
    torch.export.save(torch.export.export(Twice(), (), {"x": torch.ones(2)}), path)

    def edit(program: Any) -> None:  # noqa: ANN401
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        tree = json.loads(signature["in_spec"])
        tree[1]["children_spec"][1]["context"] = json.dumps([key])
        signature["in_spec"] = json.dumps(tree)

    path = edited(path, path, edit)
    refused(path, f"with the argument {key!r}, which is no plain name")


@pytest.mark.parametrize(
    "name",
    ['a", evil(), "', "a\nb", "a.__class__.b", "a\\", "a.{b}", "\uff3f_b"],
)
def test_names_of_parameters_do_not_become_code(
    good: Path, tmp_path: Path, name: str
) -> None:
    found = members(good)
    text = found[MODEL].replace(b'"item.weight"', json.dumps(name).encode())
    assert text != found[MODEL]
    path = write(tmp_path / "bad.pt2", found | {MODEL: text})
    refused(path, f"{MODEL} with the parameter_name {name!r}, which is no plain name")
    place = "data/weights/model_weights_config.json"
    text = found[place].replace(b'"item.weight"', json.dumps(name).encode())
    write(path, found | {place: text})
    refused(path, f"{place} with {name!r}, which names no tensor")


class Words(nn.Module):
    def forward(self, x: Tensor, word: str) -> Tensor:
        return nn.functional.gelu(x, approximate=word)


def test_constant_inputs_do_not_become_code(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "m.pt2"
    args = torch.ones(2), "tanh"
    torch.export.save(torch.export.export(Words(), args), path)
    assert torch.equal(load_program(path).module()(*args), Words()(*args))
    text = f"', {touching(marker)}, '"

    def edit(program: Any) -> None:  # noqa: ANN401
        program["graph_module"]["graph"]["inputs"][1]["as_string"] = text

    path = edited(path, path, edit)
    assert ran(lambda: torch.export.load(path).run_decompositions(), marker)
    refused(path, "with the as_string ")
    assert not marker.exists()


def test_keys_of_sample_inputs_do_not_become_code(good: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    letters = list(bytes(marker))  # the text itself would need another quote
    evil = f'a", open(bytes({letters}), chr(119)).close(), "'
    batch = {(evil if k == "x" else k): v for k, v in inputs().items()}
    found = members(good)
    program = json.loads(found[MODEL])
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    tree = json.loads(signature["in_spec"])
    tree[1]["children_spec"][0]["children_spec"][0]["context"] = json.dumps([*batch])
    signature["in_spec"] = json.dumps(tree)
    program["guards_code"] = []
    bad = {MODEL: json.dumps(program).encode(), SAMPLES: saved(((batch,), {}))}
    path = write(tmp_path / "bad.pt2", found | bad)
    assert ran(lambda: torch.export.load(path).module()(batch), marker)
    refused(path, "with arguments that are no tuples, lists or dicts")
    path = write(tmp_path / "bad.pt2", found | {SAMPLES: bad[SAMPLES]})
    refused(path, f"{SAMPLES} with the text ")
    assert not marker.exists()


class Checked(nn.Module):
    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return x.sum() + torch.zeros(n.item())  # type: ignore[call-overload, no-any-return]


def test_messages_of_assertions_may_have_quotes(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    args = torch.ones(2), torch.tensor(3)
    torch.export.save(torch.export.export(Checked(), args), path)
    assert b"on node 'ge" in members(path)[MODEL]
    assert torch.equal(load_program(path).module()(*args), Checked()(*args))


def test_a_text_without_a_rule_is_refused(good: Path, tmp_path: Path) -> None:
    def edit(program: Any) -> None:  # noqa: ANN401
        program["graph_module"]["news"] = {"of": ["a (b)"]}

    path = edited(good, tmp_path / "bad.pt2", edit)
    refused(path, f"{MODEL} with the of 'a (b)', which is no plain name")


@pytest.mark.parametrize("symbol", ["u99999999999", "s0 ", "x"])
def test_ranges_are_of_sizes(good: Path, tmp_path: Path, symbol: str) -> None:
    def edit(program: Any) -> None:  # noqa: ANN401
        program["range_constraints"][symbol] = {"min_val": 0, "max_val": 9}

    path = edited(good, tmp_path / "bad.pt2", edit)
    refused(path, f"with the range_constraints {symbol!r}, which is no plain name")


def test_operators_of_the_interpreter_are_not_plain(good: Path, tmp_path: Path) -> None:
    file = tmp_path / "written"

    def edit(program: Any) -> None:  # noqa: ANN401
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.ops.aten.save.default"
        node["inputs"] = [
            {"name": "item", "arg": {"as_int": 1}, "kind": 1},
            {"name": "filename", "arg": {"as_string": str(file)}, "kind": 1},
        ]

    assert isinstance(torch.ops.aten.save.default, torch._ops.OpOverload)
    path = edited(good, tmp_path / "bad.pt2", edit)
    refused(path, "the operator 'torch.ops.aten.save.default'")
    assert not file.exists()


class Rich(nn.Module):
    """Its arguments are named as the fields of the program are."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.heads = nn.ModuleDict({"user id": nn.Linear(4, 1), "a-b:c": nn.PReLU()})

    def forward(self, target: Tensor, metadata: Tensor, *, in_spec: Tensor) -> Any:  # noqa: ANN401
        with torch.no_grad():
            x = target + metadata
        x = self.part(x, x, x)[0] if isinstance(self.part, ATTENTION) else self.part(x)
        x = x[0] if isinstance(x, tuple) else x
        flat = x.reshape(x.shape[0] * x.shape[1], -1)
        ahead = torch.arange(flat.shape[0])[:, None] >= in_spec
        flat = self.heads["a-b:c"](flat).masked_fill(ahead, float("-inf"))
        top, at = torch.topk(flat.clamp_min(-9.0), 2)
        return {"y": self.heads["user id"](flat.clamp_min(-9.0)), "top": [top, (at,)]}


ATTENTION = nn.MultiheadAttention
PARTS = {
    "gru": lambda: nn.GRU(4, 4, batch_first=True),
    "lstm": lambda: nn.LSTM(4, 4, batch_first=True),
    "attention": lambda: nn.MultiheadAttention(4, 2, batch_first=True),
    "encoder": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    "norms": lambda: nn.Sequential(nn.LayerNorm(4), nn.Dropout(0.5), nn.Softplus()),
}


@pytest.mark.filterwarnings("ignore:The tensor attributes")  # of torch's own GRU
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_programs_of_many_modules_load(
    tmp_path: Path, part: str, *, dynamic: bool
) -> None:
    torch.manual_seed(0)
    module = Rich(PARTS[part]()).eval()
    args = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    limit = torch.tensor([[9]])
    open_sizes = {0: Dim.AUTO, 1: Dim.AUTO}
    shapes = {"target": open_sizes, "metadata": open_sizes, "in_spec": None}
    program = torch.export.export(
        module, args, {"in_spec": limit}, dynamic_shapes=shapes if dynamic else None
    )
    path = tmp_path / "m.pt2"
    torch.export.save(program, path)
    found = load_program(path)
    wanted = module(*args, in_spec=limit)
    got = found.module()(*args, in_spec=limit)
    assert wanted["y"].std() > 0.01
    assert torch.allclose(got["y"], wanted["y"])
    assert torch.equal(got["top"][1][0], wanted["top"][1][0])
    if part == "norms":
        assert export_module(found).names == ["target", "metadata", "in_spec"]

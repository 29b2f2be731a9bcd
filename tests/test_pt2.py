"""A .pt2 is loaded without running anything in it: every way in, each with a marker.

What a way would do is shown first, wherever torch alone does it: a marker file appears
when torch loads, retraces or calls the same program.
"""

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from din_converter import convert
from din_converter.importers.pt2 import load_program
from din_infer.errors import ConversionError

MODEL = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.item, self.norm = nn.Embedding(9, 4), nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            scale = torch.softmax(batch["x"], -1)
        pooled = self.item(batch["ids"]).masked_fill(batch["ids"][..., None] == 0, 0.0)
        pooled = self.norm(torch.einsum("btd,bt->bd", pooled, scale))
        return {"y": torch.where(pooled > 0, pooled, 0.1 * pooled) @ self.out.weight.T}


def inputs() -> dict[str, Tensor]:
    ids = torch.arange(12).reshape(4, 3) % 9
    return {"ids": ids, "x": torch.linspace(-1, 1, 12).reshape(4, 3)}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("pt2") / "good.pt2"
    shapes = {"batch": {k: {0: Dim.AUTO, 1: Dim.AUTO} for k in inputs()}}
    program = torch.export.export(Small().eval(), (inputs(),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}


def write(path: Path, found: dict[str, bytes], root: str = "m") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in found.items():
            archive.writestr(f"{root}/{name}", data)
    return path


def edited(good: Path, path: Path, edit: Callable[[Any], None]) -> Path:
    """Change the program's JSON."""
    found = members(good)
    program = json.loads(found[MODEL])
    edit(program)
    return write(path, found | {MODEL: json.dumps(program).encode()})


def refused(path: Path, text: str) -> None:
    with pytest.raises(ConversionError) as caught:
        load_program(path)
    message = str(caught.value)
    assert message.startswith("expected a program that torch.export.save wrote, got ")
    assert text in message
    assert message.endswith(f" - at `{path}`")


def test_a_program_is_itself_again(good: Path, tmp_path: Path) -> None:
    ours, theirs = load_program(good), torch.export.load(good)
    wanted = theirs.module()(inputs())["y"]
    assert wanted.std() > 0.01
    assert torch.equal(ours.module()(inputs())["y"], wanted)
    report = convert(good, tmp_path / "m.onnx")  # example inputs are in the file
    assert report.source == "module"
    assert report.logit_difference < 1e-5


class Marks:
    """Runs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def ran(load: Callable[[], object], marker: Path) -> bool:
    """Whether torch alone runs what the file holds; the marker is gone afterwards."""
    with contextlib.suppress(Exception):
        load()
    there = marker.exists()
    marker.unlink(missing_ok=True)
    return there


def test_sample_inputs_are_not_unpickled(good: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bad = members(good) | {SAMPLES: saved(((inputs(), Marks(marker)), {}))}
    path = write(tmp_path / "bad.pt2", bad)
    assert ran(lambda: torch.export.load(path), marker)
    refused(path, SAMPLES)
    assert not marker.exists()


@pytest.mark.parametrize("folder", ["weights", "constants"])
def test_weights_are_not_unpickled(good: Path, tmp_path: Path, folder: str) -> None:
    marker = tmp_path / "marker"
    found = members(good)
    name = f"data/{folder}/model_{folder}_config.json"
    config = json.loads(found[name])
    key = {"weights": "weight_0", "constants": "tensor_0"}[folder]
    config["config"]["evil"] = {
        "path_name": key,
        "is_param": False,
        "use_pickle": True,
        "tensor_meta": None,
    }
    found |= {
        name: json.dumps(config).encode(),
        f"data/{folder}/{key}": saved(Marks(marker)),
    }
    path = write(tmp_path / "bad.pt2", found)
    if folder == "constants":
        assert ran(lambda: torch.export.load(path), marker)
    refused(path, f"data/{folder}/{key}")
    assert not marker.exists()


@pytest.mark.parametrize("prefix", ["custom_obj_", "opaque_obj_"])
def test_custom_objects_are_refused(good: Path, tmp_path: Path, prefix: str) -> None:
    marker = tmp_path / "marker"
    found = members(good)
    name = "data/constants/model_constants_config.json"
    payload = {"path_name": f"{prefix}0", "is_param": False, "use_pickle": True}
    config = {"config": {"evil": payload | {"tensor_meta": None}}}
    found |= {
        name: json.dumps(config).encode(),
        f"data/constants/{prefix}0": pickle.dumps(Marks(marker)),
    }
    path = write(tmp_path / "bad.pt2", found)
    if prefix == "opaque_obj_":
        assert ran(lambda: torch.export.load(path), marker)
    refused(path, "data/constants/" + prefix)
    assert not marker.exists()


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


def test_guards_are_left_out(good: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    def edit(program: Any) -> None:  # noqa: ANN401
        code = f"__import__('pathlib').Path({str(marker)!r}).touch() or True"
        program["guards_code"] = [code]

    path = edited(good, tmp_path / "bad.pt2", edit)
    assert ran(lambda: torch.export.load(path).module()(inputs()), marker)
    load_program(path).module()(inputs())
    assert not marker.exists()


TREES = [
    {"type": "collections.defaultdict", "context": '["os", "system"]'},
    {"type": "collections.namedtuple", "context": '"evil.Named"'},
    {"type": "builtins.dict", "context": '{"__enum__": true, "fqn": "os:x"}'},
    {"type": "builtins.tuple", "context": "not json"},
]


@pytest.mark.parametrize("tree", TREES)
def test_arguments_are_plain_containers(
    good: Path, tmp_path: Path, tree: dict[str, str]
) -> None:
    def edit(program: Any) -> None:  # noqa: ANN401
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps([1, {**tree, "children_spec": []}])

    path = edited(good, tmp_path / "bad.pt2", edit)
    refused(path, "with arguments that are no tuples, lists or dicts")


OTHERS = [
    "data/aotinductor/model/evil.so",
    "data/weights/model.pt",
    "data/constants/model.pt",
    "models/other.json",
    "serialized_exported_program.json",
    "executorch/evil.pte",
    "../evil",
]


@pytest.mark.parametrize("name", OTHERS)
def test_other_members_are_refused(good: Path, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "bad.pt2", members(good) | {name: b"evil"})
    refused(path, f"a member {name} that no plain program has")


def test_extra_files_are_left_out(good: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "m.pt2", members(good) | {"extra/notes.txt": b"hello"})
    assert torch.equal(
        load_program(path).module()(inputs())["y"],
        torch.export.load(good).module()(inputs())["y"],
    )


def test_tricks_with_the_archive_are_refused(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members(good).items():
            archive.writestr(f"m/{name}", data)
    refused(path, "a compressed member")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"m/{MODEL}", members(good)[MODEL])
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(f"m/{MODEL}", members(good)[MODEL])
    refused(path, "an archive whose members overlap")
    found = members(good)
    del found[MODEL]
    refused(write(path, found), f"an archive without {MODEL}")
    path.write_bytes(b"no archive")
    refused(path, "a damaged file (File is not a zip file)")
    refused(tmp_path / "none.pt2", "No such file or directory")


def test_flipped_bytes_load_or_are_refused(good: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    original = members(good)
    outcomes = set()
    for _ in range(150):
        found = dict(original)
        name = sorted(found)[int(rng.integers(len(found)))]
        data = bytearray(found[name])
        for at in rng.integers(0, len(data), 2):
            data[at] = int(rng.integers(256))
        path = write(tmp_path / "flipped.pt2", found | {name: bytes(data)})
        try:
            load_program(path)
            outcomes.add("loaded")
        except ConversionError:
            outcomes.add("refused")
    assert outcomes == {"loaded", "refused"}

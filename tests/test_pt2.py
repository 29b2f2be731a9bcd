"""A .pt2 is loaded without running anything in it: every way in, each with a marker.

What a way would do is shown first, wherever torch alone does it: a marker file appears
when torch loads, retraces or calls the same program.
"""

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from din_converter import convert
from din_converter.importers.pt2 import load_program
from din_infer.errors import ConversionError
from tests.pt2 import (
    MODEL,
    SAMPLES,
    Marks,
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


def test_a_program_is_itself_again(good: Path, tmp_path: Path) -> None:
    ours, theirs = load_program(good), torch.export.load(good)
    wanted = theirs.module()(inputs())["y"]
    assert wanted.std() > 0.01
    assert torch.equal(ours.module()(inputs())["y"], wanted)
    report = convert(good, tmp_path / "m.onnx")  # example inputs are in the file
    assert report.source == "module"
    assert report.logit_difference < 1e-5


def test_sample_inputs_are_not_unpickled(good: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bad = members(good) | {SAMPLES: saved(((inputs(), Marks(marker)), {}))}
    path = write(tmp_path / "bad.pt2", bad)
    assert ran(lambda: torch.export.load(path), marker)
    refused(path, SAMPLES)
    assert not marker.exists()


def with_pickle(good: Path, path: Path, kind: str, name: str, marker: Path) -> Path:
    """List a tensor at a name, where the member of 99 is a pickle that runs."""
    folder = {"weight": "weights", "tensor": "constants"}[kind]
    found = members(good)
    place = f"data/{folder}/model_{folder}_config.json"
    config = json.loads(found[place])
    payload = {"path_name": name, "is_param": False, "use_pickle": True}
    config["config"]["evil"] = payload | {"tensor_meta": None}
    evil = {f"data/{folder}/{kind}_99": saved(Marks(marker))}
    return write(path, found | evil | {place: json.dumps(config).encode()})


@pytest.mark.parametrize("kind", ["weight", "tensor"])
def test_weights_are_not_unpickled(good: Path, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    path = with_pickle(good, tmp_path / "bad.pt2", kind, f"{kind}_99", marker)
    assert ran(lambda: torch.export.load(path), marker)
    refused(path, f"/{kind}_99 with ")
    assert not marker.exists()


ALIASES = ["WEIGHT_99", "weight_99\0", "Weight_99", "weight_99\0.pt"]


@pytest.mark.parametrize("name", ALIASES)
def test_weights_go_by_one_name(good: Path, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    path = with_pickle(good, tmp_path / "bad.pt2", "weight", name, marker)
    assert ran(lambda: torch.export.load(path), marker)
    refused(
        path, f"model_weights_config.json with evil in {name!r}, which is no tensor"
    )
    assert not marker.exists()


@pytest.mark.parametrize("name", ["../constants/tensor_0", "weight_\u0669", "weight_"])
def test_weights_are_in_their_folder(good: Path, tmp_path: Path, name: str) -> None:
    path = with_pickle(good, tmp_path / "bad.pt2", "weight", name, tmp_path / "marker")
    refused(
        path, f"model_weights_config.json with evil in {name!r}, which is no tensor"
    )


def test_missing_weights_are_named(good: Path, tmp_path: Path) -> None:
    path = with_pickle(
        good, tmp_path / "bad.pt2", "weight", "weight_98", tmp_path / "marker"
    )
    refused(path, "got an archive without data/weights/weight_98 - at")


def test_archives_of_older_torch_are_not_unpickled(good: Path, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "old.pt2"
    program = json.loads(members(good)[MODEL])
    version = ".".join(str(program["schema_version"][k]) for k in ("major", "minor"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", version)
        archive.writestr("serialized_exported_program.json", json.dumps(program))
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", saved((Marks(marker),)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ran(lambda: torch.export.load(path), marker)
    refused(path, "an archive with more than one folder")
    assert not marker.exists()


def test_sample_inputs_end(good: Path, tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    wide: list[Any] = []
    for _ in range(100):
        wide = [wide, wide]  # 2^100 parts
    for value in (endless, wide):
        found = members(good) | {SAMPLES: saved(((value,), {}))}
        again = "containers that hold one another again and again"
        refused(write(tmp_path / "bad.pt2", found), again)
    for value in ({1}, b"bytes", np.ones(2), torch.float32):
        found = members(good) | {SAMPLES: saved(((value,), {}))}
        refused(write(tmp_path / "bad.pt2", found), SAMPLES)


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
    data = bytearray(good.read_bytes())
    local = data.index(b"models/model.json")
    data[local : local + 6] = b"MODELS"  # the directory at the end says otherwise
    path.write_bytes(data)
    refused(path, "a damaged file (File name in directory")
    path.write_bytes(b"no archive")
    refused(path, "a damaged file (File is not a zip file)")
    refused(tmp_path / "none.pt2", "No such file or directory")


def loads(path: Path) -> bool:
    try:
        load_program(path)
    except ConversionError:
        return False
    return True


def test_flipped_bytes_load_or_are_refused(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    original, path = members(good), tmp_path / "flipped.pt2"
    # what torch makes into objects is hit most
    names = [*sorted(original), *([MODEL] * 10), *([SAMPLES] * 10)]
    outcomes = []
    for _ in range(200):
        name = names[int(rng.integers(len(names)))]
        data = bytearray(original[name])
        for at in rng.integers(0, len(data), 2):
            data[at] = int(rng.integers(256))
        outcomes.append(loads(write(path, original | {name: bytes(data)})))
    assert {True, False} == set(outcomes)
    whole = good.read_bytes()
    for at in rng.integers(0, len(whole), 100):
        broken = bytearray(whole)
        broken[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        loads(path)
    for size in rng.integers(0, len(whole), 30):
        path.write_bytes(whole[:size])
        assert not loads(path)
    assert capfd.readouterr() == ("", "")

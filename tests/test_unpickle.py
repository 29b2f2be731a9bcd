"""Reading a pickle executes nothing of it, and fails in one way only."""

import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from din_converter.importers.pickle_machine import Inert
from din_converter.importers.unpickle import module_state, read_pickle, state_dict_of
from din_infer.errors import ConversionError

LEGACY = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001)]
SYSTEM = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def write_zip(path: Path, data: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in members.items():
            archive.writestr(f"archive/data/{name.removeprefix('s')}", content)
        archive.writestr("archive/version", "3\n")
    return path


def write_legacy(path: Path, data: bytes) -> Path:
    path.write_bytes(
        b"".join([*LEGACY, pickle.dumps(SYSTEM, 2), data, pickle.dumps([], 2)])
    )
    return path


WRITERS = {"zip": write_zip, "legacy": write_legacy}


def refused(path: Path) -> str:
    with pytest.raises(ConversionError) as caught:
        read_pickle(path)
    text = str(caught.value)
    start = "expected a checkpoint that torch.save wrote, got "
    end = f" - at `{path}`"
    assert text.startswith(start)
    assert text.endswith(end)
    return text.removeprefix(start).removesuffix(end)


# ------------------------------------------------------------------ what torch writes


class Unit(nn.Module):
    """A module with everything that a state_dict may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norms = nn.ModuleList([nn.BatchNorm1d(2), nn.Identity()])
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("left", torch.ones(1), persistent=False)
        self.register_parameter("nothing", None)
        self.shared = self.linear
        self.note = {"a": (1, 2.5, None, True)}


CONTENT: dict[str, Any] = {
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "cut": torch.arange(10)[3:7:2],
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "empty": torch.empty(0, 3),
    "bools": torch.tensor([True, False]),
    "halves": torch.tensor([1.5], dtype=torch.bfloat16),
    "parameter": nn.Parameter(torch.ones(2)),
    "size": torch.Size([2, 3]),
    "plain": [1, -(2**70), 1.5, None, True, "ü", b"\xff\x00", (1, (2,)), {1, 2}],
    "ordered": OrderedDict(a=1, b=[2]),
    "counts": defaultdict(list, {"x": [1]}),
    "array": np.arange(6, dtype=">i4").reshape(2, 3).T,
    "text": np.array(["a", "bc"]),
    "number": np.float32(1.25),
    "none": np.empty((0, 2)),
}


def same(a: Any, b: Any) -> bool:  # noqa: ANN401
    if isinstance(b, Tensor):
        return (
            type(a) is Tensor
            and a.dtype == b.dtype
            and a.stride() == b.stride()
            and torch.equal(a, b.detach())
        )
    if isinstance(b, np.ndarray | np.generic):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    return bool(a == b)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_everything_plain_comes_back(
    tmp_path: Path, is_zip: bool, protocol: int
) -> None:
    path = tmp_path / "m.pth"
    torch.save(
        CONTENT,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=is_zip,
    )
    read = read_pickle(path)
    assert list(read) == list(CONTENT)
    for name, value in CONTENT.items():
        assert same(read[name], value), name


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_module_gives_its_state_dict(tmp_path: Path, is_zip: bool) -> None:
    module = Unit()
    path = tmp_path / "m.pth"
    torch.save(module, path, _use_new_zipfile_serialization=is_zip)
    read = read_pickle(path)
    assert isinstance(read, Inert)
    assert (read.module_name, read.class_name) == (Unit.__module__, "Unit")
    assert repr(read) == f"<{Unit.__module__}.Unit>"
    assert read.attributes["note"] == module.note
    state, wanted = module_state(read), module.state_dict()
    assert list(state) == list(wanted)
    assert all(same(state[k], wanted[k]) for k in wanted)
    assert state_dict_of(read) is None


def test_only_a_mapping_of_tensors_is_a_state_dict(tmp_path: Path) -> None:
    state = Unit().state_dict()
    torch.save(state, tmp_path / "m.pth")
    read = state_dict_of(read_pickle(tmp_path / "m.pth"))
    assert read is not None
    assert list(read) == list(state)
    for other in ({}, {"a": 1}, {1: torch.ones(1)}, [torch.ones(1)], None):
        assert state_dict_of(other) is None


def test_storages_are_shared_as_they_were(tmp_path: Path) -> None:
    whole = torch.arange(4.0)
    torch.save({"a": whole, "b": whole[1:]}, tmp_path / "m.pth")
    read = read_pickle(tmp_path / "m.pth")
    read["a"][1] = 9
    assert read["b"][0] == 9


class Pair(tuple):
    """Made by __new__ with arguments, as namedtuples are."""

    def __new__(cls, *args: Any) -> "Pair":  # noqa: ANN401
        return super().__new__(cls, args)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)


class Slots:
    __slots__ = ("__dict__", "x")


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_of_other_classes_stay_readable(tmp_path: Path, protocol: int) -> None:
    slots = Slots()
    slots.x, slots.y = 1, 2  # type: ignore[attr-defined]
    objects = array_of([Slots, "a"])
    value = {
        "slots": slots,
        "function": nn.functional.relu,
        "list": [slots],
        "objects": objects,
    }
    value["pair"] = Pair("goods_id", 5)
    path = write_zip(tmp_path / "m.pth", pickle.dumps(value, protocol))
    read = read_pickle(path)
    assert read["pair"].class_name == "Pair"
    assert read["pair"].args == ("goods_id", 5)
    assert read["slots"].attributes == {"x": 1, "y": 2}
    assert read["slots"] is read["list"][0]
    assert read["function"].class_name == "relu"
    assert read["objects"].class_name == "ndarray"
    assert [type(v) for v in read["objects"].items] == [Inert, str]


class Plain:
    def __init__(self) -> None:
        self.x = 1


@pytest.mark.parametrize("protocol", [0, 1])
def test_objects_of_the_oldest_pickles_stay_readable(
    tmp_path: Path, protocol: int
) -> None:
    path = write_zip(tmp_path / "m.pth", pickle.dumps([Plain(), 2.5, "a"], protocol))
    plain, *rest = read_pickle(path)
    assert (plain.class_name, plain.attributes) == ("Plain", {"x": 1})
    assert rest == [2.5, "a"]


def array_of(values: list[Any]) -> np.ndarray[Any, np.dtype[np.object_]]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# --------------------------------------------------------------------------- attacks


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *args: Any) -> None:  # noqa: ANN401
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call_of(module: str, name: str, *args: str, stack: bool = False) -> bytes:
    """Write a call, the global's name as GLOBAL or as STACK_GLOBAL has it."""
    named = text(module) + text(name) + b"\x93"
    if not stack:
        named = f"c{module}\n{name}\n".encode()
    return b"\x80\x04" + named + b"(" + b"".join(map(text, args)) + b"tR."


def attacks(marker: str) -> dict[str, bytes]:
    touch = f"touch {marker}"
    code = f"open({marker!r}, 'w').close()"
    call = Call(os.system, touch)
    tensor = Call(torch._utils._rebuild_tensor_v2, call, 0, (1,), (1,), False, {})
    array = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85U\x01b\x87R(K\x01K\x01\x85" + call_of("os", "system", touch)[2:-1]
    )
    body = b"\x8a\x01\x01"
    out = {
        "os.system": pickle.dumps(call),
        "eval": pickle.dumps(Call(eval, code)),
        "exec": pickle.dumps(Call(exec, code)),
        "subprocess": pickle.dumps(Call(subprocess.check_call, touch.split())),
        "torch.load": pickle.dumps(Call(torch.load, marker)),
        "hub": pickle.dumps(Call(torch.hub.load, marker, "x")),
        "getattr": call_of("builtins", "getattr", "os", "system"),
        "nested": pickle.dumps({"a": [torch.Size([1]), {"b": call}]}),
        "in a set": pickle.dumps(Call(set, call)),
        "in OrderedDict": pickle.dumps(Call(OrderedDict, [("a", call)])),
        "defaultdict": pickle.dumps(Call(defaultdict, os.system)),
        "in a tensor": pickle.dumps(tensor),
        "parameter": pickle.dumps(Call(torch._utils._rebuild_parameter, call, 0, {})),
        "in an array": array + b"\x89U\x01xtb.",
        "scalar": pickle.dumps(Call(np._core.multiarray.scalar, call, b"1")),
        "persistent id": call_of("os", "system", touch)[:-1] + b"Q.",
        "instance": b"(" + text(touch) + b"ios\nsystem\n.",
        "object": b"(cos\nsystem\n" + text(touch) + b"o.",
        "newobj": call_of("os", "system", touch)[:-2] + b"\x81.",
        "newobj_ex": call_of("os", "system", touch)[:-2] + b"}\x92.",
        "reconstructor": b"ccopyreg\n_reconstructor\n(cos\nsystem\n"
        + text(touch)
        + b"tR.",
        "function type": call_of("types", "FunctionType", code),
        "code": call_of("types", "CodeType", code),
        "load from bytes": call_of("torch.storage", "_load_from_bytes", code),
        "retyped": pickle.dumps(
            Call(torch._tensor._rebuild_from_type_v2, eval, Tensor, (code,), {})
        ),
        "extension": b"\x80\x02\x82\x01.",
        "build": b"cos\nsystem\n}" + text("__code__") + text(code) + b"sb.",
        "buffer": b"\x80\x05\x97.",
        "lists": b"cbuiltins\nmap\n(ceval\nx\ntR(" + text(code) + b"e.",
        "unbalanced": body + b"0R.",
    }
    dotted = {
        "os\nsystem": ("os\nsystem", "system"),
        "attribute path": ("torch", "serialization.os.system"),
        "submodule": ("torch.serialization", "os.system"),
        "dunder": ("torch", "nn.Module.__init__.__globals__"),
        "empty": ("", ""),
    }
    for name, (module, attribute) in dotted.items():
        out[name] = call_of(module, attribute, touch, stack=True)
    return out


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("attack", attacks("m"))
def test_nothing_of_a_pickle_runs(
    tmp_path: Path, attack: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    data = attacks(str(marker))[attack]
    path = WRITERS[form](tmp_path / "m.pth", data)
    called: list[Any] = []
    for module, name in ((os, "system"), (torch, "load"), (torch.hub, "load")):
        monkeypatch.setattr(module, name, lambda *a, **k: called.append((a, k)))
    try:
        value = read_pickle(path)
    except ConversionError:
        value = None
    assert not marker.exists()
    assert not called
    assert not callable(value)


def test_a_call_of_anything_is_only_noted(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.pth", call_of("os", "system", "touch x"))
    read = read_pickle(path)
    assert repr(read) == "<os.system>"
    assert read.args == ("touch x",)
    assert read.called


# ---------------------------------------------------------------------- damaged files


def rebuild(*args: Any) -> bytes:  # noqa: ANN401
    """Write a call of _rebuild_tensor_v2 over storage "0", four float32."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:  # noqa: ANN401
            kind = torch.FloatStorage
            return ("storage", kind, "0", "cpu", 4) if value is STORAGE else None

    out = io.BytesIO()
    call = Call(torch._utils._rebuild_tensor_v2, STORAGE, *args, False, OrderedDict())
    Pickler(out, 2).dump(call)
    return out.getvalue()


STORAGE = object()
FOUR = np.arange(4, dtype=np.float32).tobytes()
HOSTILE: dict[str, tuple[Any, ...]] = {
    "a tensor of size [5], beyond its 4 values": (0, (5,), (1,)),
    "a tensor of size [4], beyond its 4 values": (1, (4,), (1,)),
    "a tensor of size [2], beyond its 4 values": (0, (2,), (4,)),
    "a tensor of size [1], beyond its 4 values": (4, (1,), (1,)),
    "a tensor of size [1099511627776], beyond its 4 values": (0, (2**40,), (0,)),
    f"a tensor of size [{2**61}, {2**61}], beyond its 4 values": (
        0,
        (2**61, 2**61),
        (0, 0),
    ),
    "a tensor of size (-1,), stride (1,), offset 0": (0, (-1,), (1,)),
    "a tensor of size (2,), stride (-1,), offset 3": (3, (2,), (-1,)),
    "a tensor of size (2,), stride (1, 1), offset 0": (0, (2,), (1, 1)),
    "a tensor of size (2,), stride (1,), offset -1": (-1, (2,), (1,)),
    f"a tensor of size (2,), stride (1,), offset {2**63}": (2**63, (2,), (1,)),
    "a tensor of size [2], stride (1,), offset 0": (0, [2], (1,)),
    "a tensor of size (2.0,), stride (1,), offset 0": (0, (2.0,), (1,)),
    "a tensor of size (True,), stride (1,), offset 0": (0, (True,), (1,)),
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_a_tensor_stays_within_its_storage(tmp_path: Path, reason: str) -> None:
    path = write_zip(tmp_path / "m.pth", rebuild(*HOSTILE[reason]), s0=FOUR)
    assert refused(path) == reason


def test_the_file_of_these_tests_is_otherwise_right(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "m.pth", rebuild(1, (3,), (1,)), s0=FOUR)
    assert read_pickle(path).tolist() == [1, 2, 3]


def wrong_zips(path: Path) -> dict[str, Callable[[], Path]]:
    good = rebuild(0, (4,), (1,))

    def compressed() -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/data.pkl", bytes(10**6))
        return path

    def two() -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", good)
            archive.writestr("b/data.pkl", good)
        return path

    def script() -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", good)
            archive.writestr("a/constants.pkl", good)
        return path

    def big() -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", good)
            archive.writestr("a/byteorder", "big")
        return path

    return {
        "20 bytes for a storage of 4 torch.float32": lambda: write_zip(
            path, good, s0=FOUR + b"1234"
        ),
        "12 bytes for a storage of 4 torch.float32": lambda: write_zip(
            path, good, s0=FOUR[4:]
        ),
        "no data of storage '0'": lambda: write_zip(path, good),
        "a compressed member a/data.pkl": compressed,
        "an archive with 2 data.pkl": two,
        "a TorchScript program": script,
        "a file of a big-endian machine": big,
    }


@pytest.mark.parametrize("reason", wrong_zips(Path("x")))
def test_a_wrong_archive_says_what_is_wrong(tmp_path: Path, reason: str) -> None:
    path = wrong_zips(tmp_path / "m.pth")[reason]()
    if "compressed" in reason:
        assert refused(path) in (reason, "an archive whose members overlap")
    else:
        assert refused(path) == reason


def test_members_may_not_overlap(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"N.")
    assert refused(path) == "an archive whose members overlap"


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "m.pth"
    state = {"a": torch.ones(3), "b": torch.zeros(2)}
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 97)):
        path.write_bytes(whole[:size])
        refused(path)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_changed_byte_never_does_more_than_fail(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "m.pth"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=is_zip)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 300).tolist():
        changed = bytearray(whole)
        changed[at] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            read_pickle(path)
        except ConversionError:
            continue


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def doubled_key(depth: int) -> bytes:
    """Write {t: None}, t a tuple of two tuples of two ...: 2**depth to hash."""
    return b"\x80\x02}K\x01" + b"2\x86" * depth + b"Ns."


def copied_text(times: int) -> bytes:
    """Write a text of 100 kB that is encoded again and again."""
    encode = b"c_codecs\nencode\nq\x00" + text("x" * 100_000) + b"q\x01"
    again = b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R"
    return b"\x80\x02" + encode + b"]" + again * times + b"."


BOMBS: dict[str, bytes] = {
    "tuple as a key": doubled_key(80),
    "list as a key": b"\x80\x02}]Ns.",
    "a pickle that copies its contents again and again": copied_text(1000),
    "keys set in list": b"\x80\x02]K\x01K\x02s.",
    "elements appended to tuple": b"\x80\x02)K\x01a.",
    "elements added to list": b"\x80\x04](K\x01\x90.",
    "a call of str": b"\x80\x02" + text("x") + b")R.",
    "a state for str": b"\x80\x02" + text("x") + b"}b.",
    "a global named by int": b"\x80\x04K\x01K\x01\x93.",
    "an attribute named by int": b"\x80\x02ca\nb\n}K\x01K\x01sb.",
    "the pickle instruction EXT1": b"\x80\x02\x82\x01.",
    "the pickle instruction NEXT_BUFFER": b"\x80\x05\x97.",
    "a persistent id that is no storage": b"\x80\x02K\x01Q.",
    "a storage of type QUInt8Storage": (
        b"\x80\x02(" + text("storage") + b"ctorch\nQUInt8Storage\n"
        + text("0") + text("cpu") + b"K\x01tQ."
    ),
    "a tensor without a storage": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)))tR."
    ),
    "an array of shape (2,) in 3 bytes": (
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        b"K\x00\x85C\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\n"
        + text("f4")
        + b"\x89\x88\x87R(K\x03"
        + text("<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C\x03abctb."
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", BOMBS)
def test_a_hostile_pickle_says_what_it_asked_for(tmp_path: Path, reason: str) -> None:
    assert refused(write_zip(tmp_path / "m.pth", BOMBS[reason])) == reason


def test_endless_nesting_costs_nothing(tmp_path: Path) -> None:
    read = read_pickle(write_zip(tmp_path / "m.pth", nested(200_000)))
    assert isinstance(read, list)
    # a memo key of 2**32 - 1, and text of 2**62 bytes, ask for no memory
    put = b"\x80\x02Nr\xff\xff\xff\xffj\xff\xff\xff\xff\x86."
    assert read_pickle(write_zip(tmp_path / "m.pth", put)) == (None, None)
    huge = b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc."
    assert refused(write_zip(tmp_path / "m.pth", huge)).startswith("a damaged file (")


def module_of(children: dict[str, Any]) -> Inert:
    module = Inert("torch.nn", "Module", ())
    module.attributes |= {"_parameters": {}, "_buffers": {}, "_modules": children}
    return module


def test_a_module_within_itself_is_refused() -> None:
    module = module_of({})
    module.attributes["_modules"]["x"] = module
    with pytest.raises(ConversionError, match="expected a torch module, got"):
        module_state(module)
    deep = module_of({})
    for _ in range(30):
        deep = module_of({"a": deep, "b": deep})
    with pytest.raises(ConversionError, match="expected a torch module, got"):
        module_state(deep)
    with pytest.raises(ConversionError) as caught:
        module_state(Inert("os", "system", ()))
    expected = "expected a torch module, got <os.system> - at `model`"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "another kind of file"),
        (b"garbage, no pickle at all", "another kind of file"),
        (pickle.dumps({"a": 1}), "another kind of file"),
        (LEGACY[0] + pickle.dumps(7, 2) + LEGACY[1], "the format 7"),
        (
            b"".join(LEGACY) + pickle.dumps({"little_endian": False}, 2),
            "a file of a big-endian machine",
        ),
        (b"PK\x03\x04 no archive", "a damaged file (File is not a zip file)"),
    ],
)
def test_another_kind_of_file_is_refused(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(data)
    assert refused(path) == reason


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.pth") == "No such file or directory"
    assert refused(tmp_path) == "Is a directory"

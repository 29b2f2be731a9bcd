"""Model files of strangers: refused before a runtime reads them, in little memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from torch import nn

from din_converter import convert
from din_infer import ModelError, Predictor
from din_infer.integrity import sealed
from din_infer.model_file import ModelFile
from din_infer.onnx_header import Header, before, tagged
from tests import runtime_faults
from tests.models import SPECS, random_model

Change = Callable[[onnx.ModelProto], None]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    convert(random_model(SPECS["base mean"]), path)
    return path


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("module") / "module.onnx"
    example = (torch.randn(2, 3),)
    convert(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), path, example_inputs=example)
    return path


def forged(path: Path, *changes: Change) -> Path:
    """Change a model and seal it again, as whoever forges one does."""
    proto = onnx.load(path, load_external_data=False)
    del proto.metadata_props[-1]
    for change in changes:
        change(proto)
    out = path.with_name("forged.onnx")
    out.write_bytes(sealed(proto.SerializeToString()))
    return out


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as error:
        Predictor(path, device="cpu", threads=1)
    return error.value


def metadata(proto: onnx.ModelProto, key: str, change: Callable[[Any], Any]) -> None:
    (found,) = (p for p in proto.metadata_props if p.key == f"din_infer.{key}")
    found.value = json.dumps(change(json.loads(found.value)))


def node(op: str, *inputs: str, domain: str = "", **attributes: Any) -> Change:  # noqa: ANN401
    made = helper.make_node(op, inputs, ["x"], name="odd", domain=domain, **attributes)
    return lambda proto: proto.graph.node.append(made)


def function(domain: str, name: str, *nodes: onnx.NodeProto) -> Change:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("din_infer", 1)]
    made = helper.make_function(domain, name, ["a"], ["b"], nodes, opsets)
    return lambda proto: proto.functions.append(made)


def constant(name: str, values: list[int]) -> Change:
    made = numpy_helper.from_array(np.array(values, np.int64), name)
    return lambda proto: proto.graph.initializer.append(made)


def bare(type_: int, **fields: Any) -> Change:  # noqa: ANN401
    made = AttributeProto(name="odd", **fields)
    made.type = type_  # type: ignore[assignment]
    return lambda proto: proto.graph.node[0].attribute.append(made)


def tensor(**fields: Any) -> Change:  # noqa: ANN401
    made = TensorProto(name="odd", **fields)
    return lambda proto: proto.graph.initializer.append(made)


INNER = helper.make_node("Inner", ["a"], ["b"], domain="din_infer")
EMPTY = helper.make_graph([], "body", [], [])
FIELD = "a model that din-convert wrote"
VALUES = "at most 16,777,216 values"
CHANGES: dict[str, tuple[str, list[Change]]] = {
    "an operator of text": (
        "an operator that din-convert writes",
        [node("StringNormalizer", "x")],
    ),
    "an operator of chance": (
        "an operator that din-convert writes",
        [node("RandomNormal", shape=[2])],
    ),
    "no operator": ("an operator that din-convert writes", [node("")]),
    "another domain": (
        "operators of ONNX and of din_infer",
        [node("FusedGemm", domain="com.microsoft")],
    ),
    "an imported domain": (
        "operators of ONNX and of din_infer",
        [lambda proto: proto.opset_import.add(domain="ai.onnx.ml", version=3)],
    ),
    "an unknown operator of ours": (
        "an operator of this din-infer",
        [node("LocalActivation_x", domain="din_infer")],
    ),
    "a body": ("operators without bodies", [node("Loop", body=EMPTY)]),
    "a body of another operator": ("no body but of", [node("Relu", "a", body=EMPTY)]),
    "another's function": (
        "functions of din_infer's operators",
        [function("other", "F")],
    ),
    "two functions of a name": (
        "one function of a name",
        [function("din_infer", "F"), function("din_infer", "F")],
    ),
    "a function that calls another": (
        "a function of ONNX's own operators",
        [function("din_infer", "Outer", INNER)],
    ),
    "a reference outside of functions": (
        "references to attributes in functions",
        [bare(AttributeProto.INT, ref_attr_name="other")],
    ),
    "two values": (
        "a value of type 2",
        [bare(AttributeProto.INT, i=1, s=b"1")],
    ),
    "another value": (
        "a value of type 2",
        [bare(AttributeProto.INT, s=b"1")],
    ),
    "no value": ("a value of type 4", [bare(AttributeProto.TENSOR)]),
    "a list of tensors": (
        "numbers, texts, tensors and bodies as attributes",
        [bare(AttributeProto.TENSORS)],
    ),
    "a type's own value": (
        "a model that din-convert wrote",
        [bare(AttributeProto.INT, tp=onnx.TypeProto())],
    ),
    "a tensor of many types": (
        "values of a common type",
        [tensor(data_type=TensorProto.COMPLEX64, dims=[0])],
    ),
    "a size below 0": ("sizes in [0, ", [tensor(data_type=1, dims=[-1])]),
    "a size beyond memory": ("sizes in [0, ", [tensor(data_type=1, dims=[0, 1 << 62])]),
    "sizes without values": ("values in one place", [tensor(data_type=1, dims=[2])]),
    "more bytes than sizes": (
        "values of shape [2]",
        [tensor(data_type=1, dims=[2], raw_data=b"123456789")],
    ),
    "values in two places": (
        "values in one place",
        [tensor(data_type=1, dims=[1], raw_data=b"1234", float_data=[1.0])],
    ),
    "a shape of 2 ** 40": (
        VALUES,
        [constant("n", [1 << 40]), node("ConstantOfShape", "n")],
    ),
    "many copies": (VALUES, [constant("n", [1 << 40]), node("Tile", "score", "n")]),
    "a long range": (
        VALUES,
        [
            *(constant("a", [0]), constant("n", [1 << 40]), constant("s", [3])),
            node("Range", "a", "n", "s"),
        ],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_model_holds_is_refused(name: str, model: Path) -> None:
    rule, changes = CHANGES[name]
    error = refused(forged(model, *changes))
    assert error.rule.startswith(rule), str(error)
    assert "forged.onnx" in error.column


@pytest.mark.parametrize("at", ["metadata", "node", "input", "function", "attribute"])
def test_texts_are_utf_8(at: str, model: Path) -> None:
    proto = onnx.load(model)
    mark = "MARK THAT IS NO TEXT"
    if at == "metadata":
        proto.metadata_props.insert(0, onnx.StringStringEntryProto(key="k", value=mark))
    elif at == "node":
        proto.graph.node[0].doc_string = mark
    elif at == "input":
        proto.graph.input[0].doc_string = mark
    elif at == "function":
        proto.functions[0].node[0].name = mark
    else:
        proto.graph.node[0].attribute.add(name=mark, type=AttributeProto.INT, i=1)
    del proto.metadata_props[-1]
    content = proto.SerializeToString().replace(mark.encode(), b"\xff" * len(mark))
    path = model.with_name("forged.onnx")
    path.write_bytes(sealed(content))
    wanted = {"metadata": "a model that din-convert wrote"}.get(at, "texts in UTF-8")
    assert refused(path).rule == wanted


@pytest.mark.parametrize(
    ("key", "again"),
    [
        ("a metadata entry", b""),
        ("a graph", tagged(7, b"")),
        ("a name", tagged(2, b"x")),
    ],
)
def test_what_is_given_twice_is_refused(key: str, again: bytes, model: Path) -> None:
    proto = onnx.load(model)
    del proto.metadata_props[-1]
    if not again:
        proto.metadata_props.append(proto.metadata_props[0])
    path = model.with_name("forged.onnx")
    path.write_bytes(sealed(proto.SerializeToString() + again))
    error = refused(path)
    assert error.rule in {FIELD, "one graph", "fields that are given once"}, key


def test_a_number_ends_inside_its_message(model: Path) -> None:
    """Its last byte would be read as a number, and as the next field's tag."""
    proto = onnx.load(model)
    del proto.metadata_props[-1]
    cut = tagged(8, b"\x10\x80") + b"\x01"  # an opset whose version goes on
    path = model.with_name("forged.onnx")
    path.write_bytes(sealed(proto.SerializeToString() + cut))
    assert refused(path).got.startswith("a damaged file")


def test_what_a_newer_release_writes_says_so(model: Path) -> None:
    def newer(proto: onnx.ModelProto) -> None:
        metadata(proto, "versions", lambda found: found | {"din-infer": "999.1.0"})

    error = refused(forged(model, newer, node("FutureOperator", "score")))
    assert error.got == "FutureOperator"
    assert error.fix.startswith("din-infer 999.1.0 wrote it")


def test_bodies_of_a_module_are_checked_like_its_graph(module: Path) -> None:
    body = EMPTY
    for _ in range(6):
        made = helper.make_node("If", ["c"], ["x"], then_branch=body, else_branch=body)
        body = helper.make_graph([made], "body", [], [])
    assert refused(forged(module, node("If", "c", then_branch=body))).rule == (
        "bodies in bodies 4 deep"
    )
    inner = helper.make_graph(
        [helper.make_node("ImageDecoder", [], ["x"])], "g", [], []
    )
    assert refused(forged(module, node("If", "c", then_branch=inner))).got == (
        "ImageDecoder"
    )


@pytest.mark.parametrize(
    "make", runtime_faults.CRASHES + runtime_faults.SLOW, ids=lambda make: make.__name__
)
def test_what_ends_or_stops_a_runtime_is_refused(
    make: Callable[[], onnx.ModelProto], module: Path
) -> None:
    """Faults of ONNX Runtime itself, of 1.20.1 for the most part."""
    fault = make()

    def change(proto: onnx.ModelProto) -> None:
        for node in fault.graph.node:
            proto.graph.node.append(node)
            if node.domain:
                proto.graph.node[-1].domain = "din_infer"
        for made in fault.functions:
            proto.functions.append(made)
            proto.functions[-1].domain = "din_infer"
            for node in proto.functions[-1].node:
                node.domain = node.domain and "din_infer"
            del proto.functions[-1].opset_import[1:]
        proto.graph.initializer.extend(fault.graph.initializer)
        proto.graph.sparse_initializer.extend(fault.graph.sparse_initializer)

    path = forged(module, change)
    with pytest.raises(ModelError):
        ModelFile.read(path)


def test_a_change_of_any_byte_is_damage(model: Path) -> None:
    content = bytearray(model.read_bytes())
    path = model.with_name("damaged.onnx")
    seal = Header.read(bytes(content)).sealed
    for at in range(1, seal, seal // 50):
        content[at] ^= 4
        path.write_bytes(content)
        refused(path)
        content[at] ^= 4


# ---- the cost of a refusal ----

# Prints seconds and MiB of a refusal; the runtime's own start is not counted.
MEASURED = """
import resource, sys, time
from din_infer import ModelError, Predictor
from pathlib import Path
for path in sys.argv[2:]:
    Predictor(sys.argv[1], device="cpu", threads=1)
    Path("/proc/self/clear_refs").write_text("5")
    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(l.split()[1]) for l in lines if l.startswith("VmHWM"))
    before, begin = peak(), time.perf_counter()
    try:
        Predictor(path, device="cpu", threads=1)
        print("loaded", path)
    except ModelError as error:
        print(f"{time.perf_counter() - begin:.2f} {(peak() - before) >> 10}", error)
"""


def renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    out = onnx.ValueInfoProto()
    out.CopyFrom(value)
    out.name = name
    return out


def write_costly(model: Path, module: Path, folder: Path) -> list[Path]:
    """Write files that cost seconds or gigabytes where nothing bounds them."""
    content = model.read_bytes()
    head = content[:2]  # the version, and what follows is of any model
    made = {
        "sparse.onnx": (head, 10 << 30),
        "sparse-2-gigabytes.onnx": (head, (1 << 31) - 1),
        "zeros.onnx": (b"\0" * (100 << 20), 0),
        "varints.onnx": (content + b"\x08\x01" * (3 << 19), 0),
        "unknown-fields.onnx": (head + b"\xa0\x06\x01" * 3_000_000, 0),
        "graph-of-names.onnx": (content + tagged(7, tagged(2, b"") * 4_000_000), 0),
        "metadata.onnx": (head + before(14, 1 << 30), (1 << 30) + 8),
    }
    paths = []
    for name, (start, size) in made.items():
        paths.append(folder / name)
        with paths[-1].open("wb") as file:
            file.write(start)
            if size:
                file.truncate(size)
    deep = "[" * 1_000_000
    for name, key in (("deep-spec", "spec"), ("deep-golden", "golden")):
        proto = onnx.load(model)
        next(p for p in proto.metadata_props if p.key.endswith(key)).value = deep
        del proto.metadata_props[-1]
        paths.append(folder / f"{name}.onnx")
        paths[-1].write_bytes(sealed(proto.SerializeToString()))

    def large(proto: onnx.ModelProto) -> None:
        def change(spec: dict[str, Any]) -> dict[str, Any]:
            spec["behavior"][0] |= {"padding": "attended", "max_len": 30_000_000}
            return spec

        metadata(proto, "spec", change)

    paths.append(forged(model, large).rename(folder / "attended.onnx"))

    def wide(proto: onnx.ModelProto) -> None:
        def change(spec: dict[str, Any]) -> dict[str, Any]:
            spec["dense"][1]["dim"] = (1 << 31) - 1
            return spec

        metadata(proto, "spec", change)

    paths.append(forged(model, wide).rename(folder / "dense.onnx"))
    calls = [helper.make_node("F0", ["a"], ["b"], domain="din_infer")] * 2
    nested = [function("din_infer", f"F{i}", *calls) for i in range(20)]
    paths.append(forged(model, *nested).rename(folder / "functions.onnx"))
    count = helper.make_tensor_value_info("v", TensorProto.INT64, [])
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    nodes = [
        helper.make_node("Identity", ["c"], ["c_out"]),
        helper.make_node("Add", ["v", "i"], ["v_out"]),
    ]
    outs = [renamed(flag, "c_out"), renamed(count, "v_out")]
    body = helper.make_graph(nodes, "body", [renamed(count, "i"), flag, count], outs)

    def loop(proto: onnx.ModelProto) -> None:
        for name, value in (("truth", np.array(True)), ("zero", np.array(0))):
            proto.graph.initializer.append(numpy_helper.from_array(value, name))
        node("Loop", "", "truth", "zero", body=body)(proto)
        proto.graph.output.append(renamed(count, "x"))

    paths.append(forged(module, loop).rename(folder / "loop.onnx"))
    return paths


def test_a_refusal_takes_little_memory_and_ends(
    model: Path, module: Path, tmp_path: Path
) -> None:
    paths = write_costly(model, module, tmp_path)
    line = [sys.executable, "-W", "ignore", "-c", MEASURED, os.fspath(model)]
    done = subprocess.run(
        [*line, *map(os.fspath, paths)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    for path, said in zip(paths, lines, strict=True):
        assert not said.startswith("loaded"), said
        assert int(said.split()[1]) < 100, said
        assert path.name in said or "spec" in path.name


# ---- data files ----


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = json.loads(json.dumps(SPECS["candidate only"]))
    spec["candidate"][0] |= {"dim": 8, "encoder": {"type": "hash", "buckets": 80_000}}
    path = tmp_path_factory.mktemp("wide") / "wide.onnx"
    convert(random_model(spec), path)
    return path


def external(key: str, value: str) -> Change:
    def change(proto: onnx.ModelProto) -> None:
        large = next(t for t in proto.graph.initializer if t.external_data)
        for e in [e for e in large.external_data if e.key == key]:
            large.external_data.remove(e)
        if value:
            large.external_data.add(key=key, value=value)

    return change


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("length", v) for v in ("", "0", "-4", "1e3", " 8", "0x8", "1_0", "٨")),
        *(("length", v) for v in ("9" * 5000, "9" * 19, "2560004", "1")),
        *(("offset", v) for v in ("-1", "1_0", "9" * 19)),
        *(("location", v) for v in ("*/_ORT_MEM_ADDR_/*", "/dev/zero", "..", "a/b")),
        ("basepath", "/"),
    ],
)
def test_a_place_in_a_data_file_is_exact(key: str, value: str, wide: Path) -> None:
    refused(forged(wide, external(key, value)))


def test_a_hard_link_is_data_that_the_model_has_samples_of(wide: Path) -> None:
    """Else the weights could be any file of the machine."""
    (data,) = wide.parent.glob("*.data")
    other = wide.with_name("other name")
    other.hardlink_to(data)
    Predictor(wide, device="cpu", threads=1)

    def fewer(record: dict[str, Any]) -> dict[str, Any]:
        name, (_, digest) = record["samples"].popitem()
        return record | {"samples": {name: [0, digest]}}

    try:
        for change in (fewer, lambda record: record | {"samples": {}}):
            path = forged(wide, partial(metadata, key="data", change=change))
            error = refused(path)
            assert error.got == "2 names"
            assert error.fix.startswith("Copy the data file")
    finally:
        other.unlink()
    Predictor(path, device="cpu", threads=1)


def test_a_place_without_a_key_is_refused(wide: Path) -> None:
    def change(proto: onnx.ModelProto) -> None:
        large = next(t for t in proto.graph.initializer if t.external_data)
        large.external_data.add(value="x")

    assert refused(forged(wide, change)).rule == "a place in a data file"

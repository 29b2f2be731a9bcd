"""A model repository of Triton Inference Server: its config by the definition of
model_config.proto, and by a model of what the server does with it. Triton itself has
not run here.

Above 400 lines: the definition and the model of the server are only for these tests.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)
from numpy.typing import NDArray
from onnx import TensorProto, helper

import din_infer.session
from din_converter import convert
from din_converter.triton import config_text
from din_infer import ConversionError, Predictor
from tests.models import SPECS, random_model, random_rows, spec_dict

Arrays = dict[str, NDArray[Any]]
F = descriptor_pb2.FieldDescriptorProto
# The messages of model_config.proto that a config here has: field, number, type.
MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "ModelTensorReshape": [("shape", 1, "repeated int64")],
    "ModelInput": [
        ("name", 1, "string"),
        ("data_type", 2, "DataType"),
        ("dims", 4, "repeated int64"),
        ("reshape", 5, "ModelTensorReshape"),
        ("allow_ragged_batch", 7, "bool"),
        ("optional", 8, "bool"),
    ],
    "ModelOutput": [
        ("name", 1, "string"),
        ("data_type", 2, "DataType"),
        ("dims", 3, "repeated int64"),
        ("reshape", 5, "ModelTensorReshape"),
        ("label_filename", 4, "string"),
    ],
    "ModelInstanceGroup": [
        ("name", 1, "string"),
        ("count", 2, "int32"),
        ("gpus", 3, "repeated int32"),
        ("kind", 4, "Kind"),
    ],
    "ModelParameter": [("string_value", 1, "string")],
    "ParametersEntry": [("key", 1, "string"), ("value", 2, "ModelParameter")],
    "ModelOperations": [("op_library_filename", 1, "repeated string")],
    "ModelConfig": [
        ("name", 1, "string"),
        ("platform", 2, "string"),
        ("max_batch_size", 4, "int32"),
        ("input", 5, "repeated ModelInput"),
        ("output", 6, "repeated ModelOutput"),
        ("instance_group", 7, "repeated ModelInstanceGroup"),
        ("default_model_filename", 8, "string"),
        ("parameters", 14, "repeated ParametersEntry"),
        ("backend", 17, "string"),
        ("model_operations", 18, "ModelOperations"),
    ],
}
ENUMS = {
    "DataType": {
        "TYPE_INVALID": 0,
        **{"TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_UINT32": 4},
        **{"TYPE_UINT64": 5, "TYPE_INT8": 6, "TYPE_INT16": 7, "TYPE_INT32": 8},
        **{"TYPE_INT64": 9, "TYPE_FP16": 10, "TYPE_FP32": 11, "TYPE_FP64": 12},
        **{"TYPE_STRING": 13, "TYPE_BF16": 14},
    },
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},
}
SCALARS = {"string": F.TYPE_STRING, "bool": F.TYPE_BOOL}
SCALARS |= {"int32": F.TYPE_INT32, "int64": F.TYPE_INT64}
NUMPY = {"TYPE_INT64": np.int64, "TYPE_FP32": np.float32}
ANY = -1


def config_class() -> Any:  # noqa: ANN401
    """The class of ModelConfig, of which text with any other field is an error."""
    file = descriptor_pb2.FileDescriptorProto(
        name="config.proto", package="inference", syntax="proto3"
    )
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for label, number in values.items():
            enum.value.add(name=label, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == "ParametersEntry":  # a map, as the definition says
            message = file.message_type.pop()
            continue
        for label, number, kind in fields:
            repeated = kind.startswith("repeated ")
            kind = kind.removeprefix("repeated ")
            field = message.field.add(name=label, number=number)
            field.label = F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL
            if kind in SCALARS:
                field.type = SCALARS[kind]
            elif kind in ENUMS:
                field.type, field.type_name = F.TYPE_ENUM, f".inference.{kind}"
            else:
                inner = "ModelConfig." * (kind == "ParametersEntry")
                field.type = F.TYPE_MESSAGE
                field.type_name = f".inference.{inner}{kind}"
        if name == "ModelConfig":
            entry = message.nested_type.add(name="ParametersEntry")
            entry.options.map_entry = True
            for label, number, kind in MESSAGES["ParametersEntry"]:
                field = entry.field.add(
                    name=label, number=number, label=F.LABEL_OPTIONAL
                )
                field.type = SCALARS.get(kind, F.TYPE_MESSAGE)
                if kind not in SCALARS:
                    field.type_name = f".inference.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("inference.ModelConfig")
    return message_factory.GetMessageClass(found)


CONFIG = config_class()


def parsed(text: str) -> Any:  # noqa: ANN401
    return text_format.Parse(text, CONFIG())


class Refused(Exception):
    """What the server, as modelled here, does not load or take."""


class Server:
    """What Triton and its ONNX Runtime backend do with a folder of a repository.

    As read in their sources: a config without inputs or without outputs is completed
    from the model, and if all of the model's first axes are of any size, so is its
    max_batch_size, to 4; what is given is checked against the model. A model that
    batches gets calls joined on their first axis, and what it gives is cut.
    """

    def __init__(self, folder: Path, **changed: Any) -> None:  # noqa: ANN401
        self.config = parsed((folder / "config.pbtxt").read_text(encoding="utf-8"))
        for key, value in changed.items():
            self.config.ClearField(key)
            if value is not None:
                setattr(self.config, key, value)
        (self.version,) = [p for p in folder.iterdir() if p.name.isdecimal()]
        if self.config.name != folder.name or self.config.backend != "onnxruntime":
            raise Refused("another folder or backend")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        threads = self.config.parameters["intra_op_thread_count"].string_value
        options.intra_op_num_threads = int(threads)
        for library in self.config.model_operations.op_library_filename:
            options.register_custom_ops_library(library)
        path = self.version / self.config.default_model_filename
        self.session = onnxruntime.InferenceSession(
            str(path), options, ["CPUExecutionProvider"]
        )
        self.inputs = _shapes(self.session.get_inputs())
        self.outputs = _shapes(self.session.get_outputs())
        if not (self.config.input and self.config.output):
            self._complete()
        self._validate()

    @property
    def batches(self) -> bool:
        return bool(self.config.max_batch_size)

    def _complete(self) -> None:
        shapes = [*self.inputs.values(), *self.outputs.values()]
        if all(shape and shape[0] == ANY for shape in shapes):
            self.config.max_batch_size = self.config.max_batch_size or 4
        elif self.config.max_batch_size:
            raise Refused("autofill failed: model does not support batching")
        both = [(self.config.input, self.inputs), (self.config.output, self.outputs)]
        for io, all_shapes in both:
            if not io:
                for name, shape in all_shapes.items():
                    io.add(name=name, dims=shape[self.batches :] or [1])

    def _validate(self) -> None:
        if len(self.config.input) != len(self.inputs):
            raise Refused(f"configuration expects {len(self.config.input)} inputs")
        for exact, given, shapes in (
            (False, self.config.input, self.inputs),
            (True, self.config.output, self.outputs),
        ):
            for io in given:
                if not io.dims or any(d < 1 and d != ANY for d in io.dims):
                    raise Refused(f"{io.name}: dimension must be >= 1, or -1")
                shape = shapes.get(io.name)
                if shape is None:
                    raise Refused(f"{io.name}: unknown")
                dims = [ANY] * self.batches + list(io.dims)
                if self.batches and (not shape or shape[0] != ANY):
                    raise Refused(f"{io.name}: the first dimension must be -1")
                same = len(dims) == len(shape) and all(
                    a == b or (a == ANY and not exact)
                    for a, b in zip(shape, dims, strict=True)
                )
                if not same:
                    raise Refused(f"{io.name}: the model expects {shape}, got {dims}")

    def answer(self, calls: Sequence[Arrays]) -> list[NDArray[np.float32]]:
        """Scores of calls that came at the same time; an error is an answer to all."""
        if not self.batches:
            return [self.session.run(["score"], call)[0] for call in calls]
        for call in calls:  # checked by the server before it joins anything
            if len({len(array) for array in call.values()}) != 1:
                raise Refused("batch size does not match other inputs")
        joined = {
            name: np.concatenate([call[name] for call in calls]) for name in self.inputs
        }
        scores = self.session.run(["score"], joined)[0]
        sizes = [len(next(iter(call.values()))) for call in calls]
        return list(np.split(scores, np.cumsum(sizes)[:-1]))


def _shapes(values: Sequence[Any]) -> dict[str, list[int]]:
    return {v.name: [d if isinstance(d, int) else ANY for d in v.shape] for v in values}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    convert(
        random_model(SPECS["paper"]),
        folder / "paper.onnx",
        explain=True,
        triton=folder / "repository",
    )
    return folder / "repository"


def calls_of(predictor: Predictor, users: Sequence[int]) -> list[Arrays]:
    """Calls of one user each, with histories of one width: they can be joined."""
    rows = random_rows(predictor.spec, max(users) + 1, seed=5)
    out = []
    for user in users:
        inputs = predictor.spec.encode([rows[user]])
        for i in predictor.spec.inputs:
            if i.lengths is not None:
                width = 12 - inputs[i.name].shape[1]
                inputs[i.name] = np.pad(inputs[i.name], ((0, 0), (0, width)))
        out.append(inputs)
    return out


@pytest.fixture
def predictor(repository: Path) -> Predictor:
    return Predictor(repository / "paper/1/model.onnx", device="cpu")


def test_the_config_has_every_input_and_output(repository: Path) -> None:
    config = parsed((repository / "paper/config.pbtxt").read_text())
    model = onnx.load(repository / "paper/1/model.onnx")
    assert config.name == "paper"
    assert config.max_batch_size == 0
    assert config.backend == "onnxruntime"
    assert config.default_model_filename == "model.onnx"
    assert [i.name for i in config.input] == [i.name for i in model.graph.input]
    assert [o.name for o in config.output] == [o.name for o in model.graph.output]
    types = {1: "TYPE_FP32", 7: "TYPE_INT64"}
    both = [(config.input, model.graph.input), (config.output, model.graph.output)]
    for given, made in both:
        for io, value in zip(given, made, strict=True):
            tensor = value.type.tensor_type
            assert ENUMS["DataType"][types[tensor.elem_type]] == io.data_type
            sizes = [d.dim_value or ANY for d in tensor.shape.dim]
            assert list(io.dims) == sizes
    dims = {io.name: list(io.dims) for io in (*config.input, *config.output)}
    assert dims["profile"] == [ANY, 3]
    assert dims["hist_goods_id"] == [ANY, ANY]
    assert dims["history.activation_weight"] == [ANY, ANY]
    assert dims["din_infer.requests"] == [1]
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, ENUMS["Kind"]["KIND_CPU"])
    assert {k: v.string_value for k, v in config.parameters.items()} == {
        "intra_op_thread_count": "0",
        "inter_op_thread_count": "1",
        "execution_mode": "0",
    }
    (library,) = config.model_operations.op_library_filename
    assert Path(library) == repository / "paper/din_infer_ops.so"
    assert Path(library).read_bytes() == _library().read_bytes()


def _library() -> Path:
    path = din_infer.session.ops_library()
    assert path is not None
    return path


def test_a_served_model_scores_as_its_predictor(
    repository: Path, predictor: Predictor
) -> None:
    server = Server(repository / "paper")
    assert not server.batches
    calls = calls_of(predictor, range(4))
    for got, call in zip(server.answer(calls), calls, strict=True):
        wanted = predictor.score_encoded(call)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


# What people write in place of the config: nothing, a part of it, or another size.
CONFIGS: dict[str, dict[str, Any]] = {
    "as written": {},
    "nothing but a name": {"input": None, "output": None},
    "no outputs": {"output": None},
    "a batch size": {"max_batch_size": 8},
    "a batch size alone": {"max_batch_size": 8, "input": None, "output": None},
}


@pytest.mark.parametrize("config", CONFIGS)
def test_no_config_makes_the_server_batch(repository: Path, config: str) -> None:
    try:
        server = Server(repository / "paper", **CONFIGS[config])
    except Refused:
        assert "max_batch_size" in CONFIGS[config]
        return
    assert not server.batches
    assert "max_batch_size" not in CONFIGS[config]


def joined_server(repository: Path, *, fused: bool) -> Server:
    """A server that batches against all that the model says: as hand-written configs
    of inputs and `score` alone make Triton do.
    """
    server = Server(repository / "paper")
    server.config.max_batch_size = 8
    for io in server.config.input:
        del io.dims[0]
    del server.config.output[:]
    server.config.output.add(name="score", dims=[])
    if not fused:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        path = str(server.version / "model.onnx")
        server.session = onnxruntime.InferenceSession(
            path, options, ["CPUExecutionProvider"]
        )
    return server


@pytest.mark.parametrize("fused", [True, False])
def test_joined_calls_cannot_mix_users(
    fused: bool, repository: Path, predictor: Predictor
) -> None:
    """An error, or right: of 1, 2 and 3 calls, of all pairs of users."""
    server = joined_server(repository, fused=fused)
    refused = 0
    pairs = itertools.permutations(range(5), 2)
    more = [(1, 1), (0, 1, 2), (2, 2, 2)]
    for users in [*((u,) for u in range(5)), *pairs, *more]:
        calls = calls_of(predictor, users)
        wanted = [predictor.score_encoded(call) for call in calls]
        try:
            answers = server.answer(calls)
        except Exception as error:
            if not re.search("the last, got requests up to 0|bounds", str(error)):
                raise
            refused += 1
            assert len(users) > 1
            continue
        assert len(users) == 1
        for got, right in zip(answers, wanted, strict=True):
            np.testing.assert_allclose(got, right, rtol=0, atol=1e-6)
    assert refused == 23


def test_what_a_server_would_give_without_the_guard(
    repository: Path, predictor: Predictor
) -> None:
    """The attack is one: of a graph without Guard, users get others' scores."""
    server = joined_server(repository, fused=False)
    model = onnx.load(repository / "paper/1/model.onnx")
    for node in [n for n in model.graph.node if n.op_type == "Guard"]:
        model.graph.node.remove(node)
    added = next(n for n in model.graph.node if n.output[0] == "logit")
    added.op_type = "Identity"
    del added.input[1:]
    options = onnxruntime.SessionOptions()
    server.session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    calls = calls_of(predictor, (0, 1))
    first, second = server.answer(calls)
    np.testing.assert_allclose(first, predictor.score_encoded(calls[0]), atol=1e-6)
    assert abs(second - predictor.score_encoded(calls[1])).max() > 1e-3


def test_a_second_conversion_replaces_the_first(tmp_path: Path) -> None:
    """With a data file, which is the same bytes as that beside the .onnx."""
    raw = spec_dict()
    raw["user"][0]["encoder"]["buckets"] = 50_000
    out, folder = tmp_path / "din.onnx", tmp_path / "repository"
    for seed in (0, 1):
        report = convert(random_model(raw, seed), out, triton=folder, prune=seed == 1)
        data = report.data_path
        assert data is not None
        there = folder / "din/1" / data.name
        assert there.read_bytes() == data.read_bytes()
        assert there.samefile(data)
        expected = {there, folder / "din/1/model.onnx", folder / "din/config.pbtxt"}
        assert set(report.repository) == expected | {folder / "din/din_infer_ops.so"}
        assert (folder / "din/1/model.onnx").read_bytes() == out.read_bytes()
        config = (folder / "din/config.pbtxt").read_text()
        assert report.model_id in config
        assert str(report).count(str(folder)) == 4
    files = {p.name for p in folder.rglob("*") if p.is_file()}
    assert files == {"model.onnx", data.name, "config.pbtxt", "din_infer_ops.so"}
    assert len(Server(folder / "din").answer([])) == 0


def test_the_server_may_find_the_folder_elsewhere(tmp_path: Path) -> None:
    model = random_model(SPECS["candidate only"])
    for path in ("/models", "/models/"):
        options = {"triton": tmp_path / "made/here", "triton_path": path}
        convert(model, tmp_path / "a b.onnx", **options)
        config = parsed((tmp_path / "made/here/a b/config.pbtxt").read_text())
        (library,) = config.model_operations.op_library_filename
        assert library == "/models/a b/din_infer_ops.so"


def test_a_build_without_operators_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("din_converter.triton.ops_library", lambda: None)
    report = convert(
        random_model(SPECS["candidate only"]),
        tmp_path / "din.onnx",
        triton=tmp_path / "repository",
    )
    assert [p.name for p in report.repository] == ["model.onnx", "config.pbtxt"]
    server = Server(tmp_path / "repository/din")
    assert not server.config.HasField("model_operations")


def test_names_of_any_characters_are_read_back() -> None:
    odd = 'q"u\\o\n\tt é 商品'
    value = helper.make_tensor_value_info(odd, TensorProto.FLOAT16, ["N", 2])
    scalar = helper.make_tensor_value_info("s", TensorProto.STRING, [])
    graph = helper.make_graph([], "g", [value], [scalar])
    config = parsed(config_text(helper.make_model(graph), odd, f"/m/{odd}.so"))
    assert config.name == odd
    assert config.input[0].name == odd
    assert list(config.input[0].dims) == [ANY, 2]
    assert config.input[0].data_type == ENUMS["DataType"]["TYPE_FP16"]
    assert list(config.output[0].dims) == [1]
    assert list(config.model_operations.op_library_filename) == [f"/m/{odd}.so"]


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    model = random_model(SPECS["candidate only"])
    (tmp_path / "file").write_text("")
    out = tmp_path / "din.onnx"
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"triton": tmp_path / "file"}, "expected a folder, or nothing, got a file"),
        ({"triton_path": "/models"}, "expected the folder of a repository"),
        ({"triton": "s3://bucket/models"}, "s3://bucket/models"),
    ]
    for options, sentence in refusals:
        with pytest.raises(ConversionError, match=re.escape(sentence)):
            convert(model, out, **options)
        assert not out.exists()
    value = helper.make_tensor_value_info("z", TensorProto.COMPLEX64, ["N"])
    graph = helper.make_graph([], "g", [value], [])
    with pytest.raises(ConversionError, match="that Triton knows, got COMPLEX64"):
        config_text(helper.make_model(graph), "z", "")


def test_the_definition_refuses_what_it_does_not_know() -> None:
    good = 'name: "a" max_batch_size: 0'
    assert parsed(good).name == "a"
    wrong: Callable[[str], Any] = parsed
    for text in (f"{good} dynamic: 1", "name: 3", "input { data_type: TYPE_INT65 }"):
        with pytest.raises(text_format.ParseError):
            wrong(text)

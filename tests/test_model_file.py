from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from din_converter import convert
from din_infer import ModelError, Predictor
from din_infer.model_file import ModelFile
from tests.engines import make_model
from tests.models import SPECS, random_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def test_a_file_says_what_its_predictor_says(model: Path) -> None:
    known, predictor = ModelFile.read(model), Predictor(model)
    assert known.path == model
    assert known.spec == predictor.spec
    assert known.model_id == predictor.model_id
    assert len(known.model_id) == 32


def test_data_files_are_those_of_the_graph(model: Path) -> None:
    ((name, data),) = ModelFile.read(model).data.items()
    assert name == data.name
    assert data.parent == model.parent
    assert [p for p in model.parent.iterdir() if p != model] == [data]


def test_a_small_model_has_no_data_file(tmp_path: Path) -> None:
    convert(random_model(SPECS["candidate only"]), tmp_path / "small.onnx")
    known = ModelFile.read(tmp_path / "small.onnx")
    assert known.data == {}
    assert known.spec.columns == ("goods_id",)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"

    def refused() -> str:
        with pytest.raises(ModelError) as error:
            ModelFile.read(path)
        return str(error.value)

    assert refused() == (f"expected a model file, got no such file - at `{path}`")
    path.mkdir()
    assert refused() == f"expected a model file, got a folder - at `{path}`"
    path.rmdir()
    damaged = (
        "expected a model that din-convert wrote, got a damaged file, or no ONNX file"
        f" - at `{path}`"
    )
    for content in (b"", b"\xff" * 100, b"\0" * 100, b"PK\3\4" * 9):
        path.write_bytes(content)
        assert refused() == damaged
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [value], [out])), path)
    assert refused() == (
        "expected a model that din-convert wrote, got an ONNX file without din_infer"
        f" metadata - at `{path}`"
    )


@given(place=st.floats(0, 1, exclude_max=True), byte=st.none() | st.integers(0, 255))
def test_a_damaged_file_is_a_model_error_or_read(
    model: Path, place: float, byte: int | None
) -> None:
    content = bytearray(model.read_bytes())
    at = int(place * len(content))
    if byte is None:
        del content[at:]
    else:
        content[at] = byte
    damaged = model.parent.parent / "damaged.onnx"
    damaged.write_bytes(content)
    with suppress(ModelError):
        ModelFile.read(damaged)

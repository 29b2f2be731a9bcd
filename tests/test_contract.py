"""What a model says of itself is refused before a runtime sees any of it."""

import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

import din_infer
from din_converter import convert
from din_infer import ModelError, Predictor
from din_infer.contract import Contract
from din_infer.model_file import ModelFile
from din_infer.model_format import (
    DATA_KEY,
    FILE_KEY,
    FORMAT_KEY,
    GOLDEN_KEY,
    INPUTS_KEY,
    SPEC_KEY,
)
from tests.models import SPECS, random_model

READABLE = f"format 1, which din-infer {din_infer.__version__} reads"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contract") / "m.onnx"
    convert(random_model(SPECS["paper"]), path)
    return path


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contract") / "module.onnx"
    convert(torch.nn.Linear(3, 2), path, example_inputs=torch.ones(4, 3))
    return path


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where weights are mapped or a session is made."""

    def made(*_: object, **__: object) -> None:
        pytest.fail("a session was made, or memory mapped")

    monkeypatch.setattr(onnxruntime, "InferenceSession", made)
    monkeypatch.setattr(mmap, "mmap", made)


def written(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def with_entries(source: Path, target: Path, **values: str | None) -> Path:
    """Write another model's graph with other metadata; None removes an entry."""
    proto = onnx.load(source, load_external_data=False)
    entries = {p.key: p.value for p in proto.metadata_props}
    del entries[FILE_KEY]
    for key, value in values.items():
        entries[f"din_infer.{key}"] = value  # type: ignore[assignment]
    del proto.metadata_props[:]
    for key, value in entries.items():
        if value is not None:
            proto.metadata_props.add(key=key, value=value)
    return written(proto, target)


def golden(source: Path, change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(ModelFile.read(source).metadata[GOLDEN_KEY])
    change(content)
    return json.dumps(content)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Predictor(path, device="cpu")
    return str(caught.value)


@pytest.mark.usefixtures("no_session")
def test_a_wrong_spec_is_refused_without_a_session(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    wrong = {
        FORMAT_KEY: ("2", f"{READABLE}, got 2 - at `{path}: {FORMAT_KEY}`"),
        SPEC_KEY: (None, f"a spec in the model, got none - at `{path}: {SPEC_KEY}`"),
    }
    for key, (value, wanted) in wrong.items():
        with_entries(model, path, **{key.removeprefix("din_infer."): value})
        assert refusal(path).startswith(f"expected {wanted}")
    for text, wanted in (
        ("{", "expected JSON, got "),
        ('{"format": 2}', f"expected {READABLE}, got 2 - at `format`"),
        ('{"format": 1}', "expected at least one candidate field"),
        (json.dumps(SPECS["candidate only"]), "expected the graph inputs goods_id, "),
    ):
        assert refusal(with_entries(model, path, spec=text)).startswith(wanted)


@pytest.mark.usefixtures("no_session")
def test_golden_rows_of_another_form_are_refused_without_a_session(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    place = f" - at `{path}: {GOLDEN_KEY}`"
    for text, wanted in (
        (None, "expected golden rows, got Expecting value: line 1 column 1 (char 0)"),
        ('{"rows": []}', "expected golden rows, got 'scores'"),
        (
            golden(model, lambda g: g["scores"].pop()),
            "expected golden rows, and one score for each, got 6 rows and scores of"
            " shape [5]",
        ),
        (
            golden(model, lambda g: g["rows"][0].pop("goods_id")),
            "expected golden rows of its spec, got expected a column `goods_id`",
        ),
        (
            golden(model, lambda g: g["inputs"].pop("goods_id")),
            "expected the ids of golden rows, got 'goods_id'",
        ),
        (
            golden(model, lambda g: g.update(inputs=1)),
            "expected the ids of golden rows, got 'int' object is not",
        ),
    ):
        got = refusal(with_entries(model, path, golden=text))
        assert got.startswith(wanted)
        assert got.endswith(place)


@pytest.mark.usefixtures("no_session")
def test_other_ids_of_golden_rows_are_told_from_other_scores(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    found = json.loads(golden(model, lambda _: None))
    ids = found["inputs"]
    assert "request_of_candidate" not in ids
    assert ids["history.lengths"] == [len(row) for row in ids["hist_goods_id"]]
    assert len(set(ids["goods_id"])) > 1
    for name, row in (("goods_id", 1), ("history.lengths", 2), ("profile", 0)):
        right = ids[name][row]
        wrong = [9.5, *right[1:]] if name == "profile" else 77
        rows = [*ids[name][:row], wrong, *ids[name][row + 1 :]]
        text = json.dumps(found | {"inputs": ids | {name: rows}})
        assert refusal(with_entries(model, path, golden=text)) == (
            f"expected the golden ids of `{name}`, {wrong}, got {right} - at"
            f" `{path}: {GOLDEN_KEY}`, row {row}. The file is damaged, or this build"
            " encodes otherwise than its converter."
        )


def test_a_model_without_golden_ids_loads_as_before(
    model: Path, tmp_path: Path
) -> None:
    text = golden(model, lambda g: g.pop("inputs"))
    Predictor(with_entries(model, tmp_path / "m.onnx", golden=text), device="cpu")


@pytest.mark.usefixtures("no_session")
def test_a_graph_of_other_outputs_is_refused_without_a_session(
    model: Path, tmp_path: Path
) -> None:
    proto = onnx.load(model, load_external_data=False)
    proto.graph.output[1].name = "other"
    del proto.metadata_props[-1]
    path = written(proto, tmp_path / "m.onnx")
    assert refusal(path) == (
        f"expected the graph outputs logit and score, got logit, other,"
        f" din_infer.requests - at `{path}`"
    )


@pytest.mark.usefixtures("no_session")
def test_a_module_that_says_what_it_is_not_is_refused_without_a_session(
    module: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    assert refusal(with_entries(module, path, inputs="{")).startswith(
        "expected a list of inputs: name, dtype, shape, rows, got "
    )
    other = json.loads(ModelFile.read(module).metadata[INPUTS_KEY])
    other[0]["name"] = "x"
    got = refusal(with_entries(module, path, inputs=json.dumps(other)))
    assert got == f"expected the graph inputs x, got input - at `{path}`"
    for change in (
        lambda g: g.pop("outputs"),
        lambda g: g["inputs"].pop("input"),
        lambda g: g["inputs"].update(input=[[1.0]]),
        lambda g: g["inputs"].update(input=1.0),
    ):
        text = golden(module, change)
        got = refusal(with_entries(module, path, golden=text))
        assert got.startswith("expected a golden example, got ")
        assert got.endswith(f" - at `{path}: {GOLDEN_KEY}`")


@pytest.mark.usefixtures("no_session")
def test_a_large_model_is_refused_before_its_data_is_mapped(
    model: Path, tmp_path: Path
) -> None:
    proto = onnx.load(model, load_external_data=False)
    tensor = TensorProto(name="more", dims=[1 << 38], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.data"), ("offset", "0"), ("length", 1 << 40)):
        tensor.external_data.add(key=key, value=str(value))
    proto.graph.initializer.append(tensor)
    with (tmp_path / "m.data").open("wb") as file:
        file.truncate(1 << 40)
    large = written(proto, tmp_path / "large.onnx")
    path = with_entries(large, tmp_path / "m.onnx", spec='{"format": 2}')
    assert DATA_KEY not in ModelFile.read(path).metadata
    assert ModelFile.read(path).num_bytes > 1 << 40
    assert refusal(path).startswith(f"expected {READABLE}, got 2 - at `format`")


def test_a_contract_names_what_the_graph_takes_and_gives(model: Path) -> None:
    contract = Contract.read(ModelFile.read(model))
    session = onnxruntime.InferenceSession(model)
    assert [i.name for i in contract.inputs] == [i.name for i in session.get_inputs()]
    assert list(contract.outputs) == [o.name for o in session.get_outputs()]
    assert contract.spec is not None
    assert contract.spec.inputs == contract.inputs
    assert set(contract.golden) == {i.name for i in contract.inputs}


def test_a_value_without_a_name_is_none_of_the_spec(tmp_path: Path) -> None:
    nothing = helper.make_graph([], "g", [onnx.ValueInfoProto()], [])
    path = written(helper.make_model(nothing), tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.metadata_props.add(key=FORMAT_KEY, value="1")
    assert ModelFile.read(written(proto, path)).header.inputs == [""]

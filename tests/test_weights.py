import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from din_converter import convert, weights
from din_converter.model import ClickModel
from din_converter.report import Report
from din_infer import ConversionError, Predictor
from din_infer.integrity import Record, samples_of
from din_infer.model_format import DATA_KEY, FILE_KEY
from din_infer.onnx_header import Place
from tests.models import random_model, spec_dict
from tests.oldest import oldest_logits

pytestmark = pytest.mark.slow

Way = Callable[..., Report]


def spec_model(seed: int = 0) -> ClickModel:
    raw = spec_dict()
    raw["candidate"][0]["encoder"]["buckets"] = 50_000
    return random_model(raw, seed=seed)


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.out = nn.Embedding(20_000, 16), nn.Linear(16, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.table(ids))
        return out


def convert_spec(path: Path, **options: Any) -> Report:  # noqa: ANN401
    return convert(spec_model(), path, **options)


def convert_wide(path: Path, **options: Any) -> Report:  # noqa: ANN401
    ids = torch.tensor([1, 5, 7, 19_999])
    return convert(Wide(), path, example_inputs=(ids,), **options)


WAYS: list[Way] = [convert_spec, convert_wide]


def metadata(path: Path) -> dict[str, str]:
    proto = onnx.load(path, load_external_data=False)
    return {p.key: p.value for p in proto.metadata_props}


def arrays(path: Path) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def check_seal(path: Path) -> None:
    proto = onnx.load(path, load_external_data=False)
    last = proto.metadata_props[-1]
    assert last.key == FILE_KEY
    record = Record.from_json(last.value)
    content = path.read_bytes()
    head = content[: record.num_bytes]
    assert record.sha256 == hashlib.sha256(head).hexdigest()
    whole = [Place("", 0, len(head))]
    assert record.samples == samples_of(head, whole)
    assert FILE_KEY.encode() not in head
    assert len(content) < len(head) + 300


@pytest.mark.parametrize("way", WAYS)
def test_the_graph_knows_the_digests_of_its_data_file(way: Way, tmp_path: Path) -> None:
    report = way(tmp_path / "m.onnx")
    assert report.data_path is not None
    data = report.data_path.read_bytes()
    record = Record.from_json(metadata(tmp_path / "m.onnx")[DATA_KEY])
    assert record.num_bytes == len(data)
    assert record.sha256 == hashlib.sha256(data).hexdigest()
    assert report.data_path.name == f"m-{record.sha256[:8]}.data"
    places = []
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        outside = {e.key: e.value for e in tensor.external_data}
        if outside:
            at, length = int(outside["offset"]), int(outside["length"])
            places.append(Place(tensor.name, at, length))
    assert places
    assert record.samples == samples_of(data, places)
    check_seal(tmp_path / "m.onnx")


@pytest.mark.parametrize("way", WAYS)
def test_a_single_file_has_the_same_weights_and_the_same_id(
    way: Way, tmp_path: Path
) -> None:
    two = way(tmp_path / "two.onnx")
    path = tmp_path / "alone" / "one.onnx"
    path.parent.mkdir()
    one = way(path, single_file=True)
    assert one.data_path is None
    assert [p.name for p in path.parent.iterdir()] == ["one.onnx"]
    assert one.model_id == two.model_id == Predictor(path).model_id
    assert one.weight_bytes < path.stat().st_size < one.weight_bytes + 200_000
    found, wanted = arrays(path), arrays(two.path)
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert array.dtype == found[name].dtype
        assert (array == found[name]).all(), name
    assert DATA_KEY not in metadata(path)
    assert DATA_KEY in metadata(two.path)
    check_seal(path)
    onnx.checker.check_model(path)


def test_a_single_file_scores_as_two_do_in_any_runtime(tmp_path: Path) -> None:
    two = convert_spec(tmp_path / "two.onnx", embedding_dtype="fp16")
    one = convert_spec(tmp_path / "one.onnx", embedding_dtype="fp16", single_file=True)
    rows = json.loads(metadata(two.path)["din_infer.golden"])["rows"]
    inputs = spec_model().spec.encode(rows)
    got = [oldest_logits(p, [inputs])[0] for p in (one.path, two.path)]
    assert (got[0] == got[1]).all()
    assert (Predictor(one.path).score(rows) == Predictor(two.path).score(rows)).all()


def test_a_small_model_is_one_file_in_any_case(tmp_path: Path) -> None:
    made = []
    for single_file in (False, True):
        path = tmp_path / f"{single_file}.onnx"
        convert(random_model(spec_dict()), path, single_file=single_file)
        check_seal(path)
        made.append(arrays(path))
    assert list(made[0]) == list(made[1])


@pytest.mark.parametrize("way", WAYS)
def test_a_single_file_that_protobuf_cannot_read_is_refused(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights.LARGEST_BYTES == 2_147_483_647
    monkeypatch.setattr(weights, "LARGEST_BYTES", 1_500_000)
    with pytest.raises(ConversionError) as caught:
        way(tmp_path / "m.onnx", single_file=True)
    head, _, tail = str(caught.value).partition(", got ")
    assert head == "expected a model of at most 1,500,000 bytes, as protobuf needs"
    size, _, tail = tail.partition(" ")
    assert 1_500_000 < int(size.replace(",", "")) < 5_000_000
    assert tail == (
        "bytes with its weights - at `single_file`. Leave it out: a data file beside"
        " the .onnx may be of any size."
    )
    assert not list(tmp_path.iterdir())


def test_the_id_is_of_the_model_and_not_of_its_name(tmp_path: Path) -> None:
    ids = [convert_spec(tmp_path / name).model_id for name in ("a.onnx", "b.onnx")]
    assert ids[0] == ids[1]
    changed = spec_model()
    with torch.no_grad():
        changed.tables["of_goods_id"].weight[49_999, 7] += 1e-3
    calibrated = spec_model().spec.to_dict() | {"calibration": {"offset": 0.5}}
    others = [
        convert(changed, tmp_path / "a.onnx"),
        convert(spec_model(), tmp_path / "a.onnx", embedding_dtype="fp16"),
        convert(spec_model(), tmp_path / "a.onnx", explain=True),
        convert(random_model(calibrated), tmp_path / "a.onnx"),
    ]
    assert len({ids[0], *(r.model_id for r in others)}) == 5


def test_empty_and_odd_arrays_are_written_as_they_are(tmp_path: Path) -> None:
    made = {
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float32(3),
        "turned": np.arange(600_000, dtype=np.int64).reshape(2, -1).T,
        "flags": np.ones(5, np.bool_),
    }
    proto = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    for name, array in made.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        proto.graph.initializer.add(name=name, dims=array.shape, data_type=kind)
    assert weights.digest_of_model(proto, made)
    placed = weights.place(proto, made, "m", tmp_path)
    assert placed is not None
    assert placed[1].num_bytes == made["turned"].nbytes
    weights.write_single(proto, made, tmp_path / "one.onnx")
    (tmp_path / "two.onnx").write_bytes(proto.SerializeToString())
    for path in ("one.onnx", "two.onnx"):
        found = arrays(tmp_path / path)
        for name, array in made.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)

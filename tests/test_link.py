"""Scores from logits, held to float64's sigmoid on every way to score."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import TensorProto, helper

from din_converter import build_model, convert
from din_infer import FeatureSpec, InputError, ModelError, Predictor
from din_infer.jobs.batches import BatchScorer
from din_infer.link import link_in_place
from tests.reference_model import sigmoid

Floats = NDArray[np.float32]
CALIBRATIONS = [(1.0, 0.0), (0.75, -1.5), (2.5, 3.0)]
TOO_LARGE = ". A value of the row, or a weight it meets, is too large for float32."


def spec_of(scale: float = 1.0, offset: float = 0.0, **model: Any) -> FeatureSpec:  # noqa: ANN401
    """Twice a dense value is the logit: everything else weighs nothing."""
    item = {"dim": 1, "encoder": {"type": "hash", "buckets": 9}}
    return FeatureSpec.from_dict(
        {
            "format": 1,
            "candidate": [{"name": "item", **item}],
            "behavior": [{"name": "s", "max_len": 3, "fields": {"seen": "item"}}],
            "dense": [{"name": "z", "side": "candidate", "dim": 1}],
            "model": {"tower": {"hidden": []}, **model},
            "calibration": {"scale": scale, "offset": offset},
        }
    )


def write(folder: Path, spec: FeatureSpec) -> Path:
    path = folder / f"{spec.calibration.scale:g} {spec.model.link}.onnx"
    if not path.exists():
        model = build_model(spec).eval()
        names = [part.name for part in spec.tower_inputs]
        assert all(part.width == 1 for part in spec.tower_inputs)
        with torch.no_grad():
            for parameter in model.tower.parameters():
                parameter.zero_()
            model.tower.output.weight[0, names.index("z")] = 2.0
        convert(model, path, explain=True)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("link")


def table_of(logits: Floats) -> dict[str, Any]:
    count = len(logits)
    return {"item": ["a"] * count, "seen": [["a", "b"]] * count, "z": logits / 2}


def by_score(p: Predictor, logits: Floats) -> Floats:
    return p.score(table_of(logits))


def by_slices(p: Predictor, logits: Floats) -> Floats:
    return p.score(table_of(logits), batch_size=7)


def by_requests(p: Predictor, logits: Floats) -> Floats:
    candidates = {"item": ["a"] * len(logits), "z": logits / 2}
    return p.score_requests([{"seen": ["a"]}], candidates)


def by_encoded(p: Predictor, logits: Floats) -> Floats:
    return p.score_encoded(p.spec.encode(table_of(logits)))


def by_stream(p: Predictor, logits: Floats) -> Floats:
    return np.concatenate(list(p.iter_score(table_of(z) for z in np.split(logits, 4))))


def by_explanation(p: Predictor, logits: Floats) -> Floats:
    some = p.explain(table_of(logits))
    return np.array([row.score for row in some], np.float32)


def by_explained_requests(p: Predictor, logits: Floats) -> Floats:
    candidates = {"item": ["a"] * len(logits), "z": logits / 2}
    some = p.explain_requests([{"seen": ["a"]}], candidates)
    return np.array([row.score for row in some], np.float32)


def by_job(p: Predictor, logits: Floats) -> Floats:
    batch = pa.RecordBatch.from_pydict(table_of(logits))
    return np.asarray(BatchScorer(p, batch.schema).score(batch).batch.column("score"))


WAYS = [
    by_score,
    by_slices,
    by_requests,
    by_encoded,
    by_stream,
    by_explanation,
    by_explained_requests,
    by_job,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_scores_are_the_float64_sigmoid_of_the_logit(
    calibration: tuple[float, float],
    fused: bool,
    way: Callable[[Predictor, Floats], Floats],
    folder: Path,
) -> None:
    spec = spec_of(*calibration)
    predictor = Predictor(write(folder, spec), device="cpu", fused=fused)
    scale, offset = calibration
    z = np.linspace(-80, 20, 400)
    logits = ((z - offset) / scale).astype(np.float32)
    np.testing.assert_array_equal(predictor.score(table_of(logits), raw=True), logits)
    wanted = sigmoid(scale * logits.astype(np.float64) + offset)
    scores = way(predictor, logits)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_neighbors_among_logits_have_scores_in_order(fused: bool, folder: Path) -> None:
    predictor = Predictor(write(folder, spec_of()), device="cpu", fused=fused)
    starts = np.linspace(-80, -2.01, 200, dtype=np.float32)
    for start in starts[::20]:
        run = [start]
        for _ in range(100):
            run.append(np.nextafter(run[-1], np.float32(0)))
        assert (np.diff(predictor.score(table_of(np.array(run)))) > 0).all()
    spaced = np.unique(np.random.default_rng(0).uniform(-80, -2, 20_000))
    spaced = np.unique(spaced.astype(np.float32))
    assert (np.diff(predictor.score(table_of(spaced))) > 0).all()


@given(
    hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(-87, 87, width=32)),
    st.floats(1e-3, 1e3),
    st.floats(-100, 100),
)
def test_any_calibration_is_within_a_rounding_of_float64(
    logits: Floats, scale: float, offset: float
) -> None:
    scores = logits.copy()
    link_in_place(spec_of(scale, offset), scores, False)
    wanted = sigmoid(scale * logits.astype(np.float64) + offset)
    np.testing.assert_allclose(scores, wanted, rtol=1e-7, atol=2e-45)
    order = np.argsort(logits)
    assert (np.diff(scores[order]) >= 0).all()
    link_in_place(spec_of(scale, offset), logits, True)
    scores = logits.copy()
    link_in_place(spec_of(scale, offset, link="identity"), scores, False)
    wanted = scale * logits.astype(np.float64) + offset
    np.testing.assert_array_equal(scores, wanted.astype(np.float32))


@pytest.mark.parametrize("count", [0, 1, 1024, 1025, 5000])
def test_every_row_of_few_and_of_many_is_linked(count: int) -> None:
    logits = np.linspace(-20, 20, count, dtype=np.float32)
    scores = logits.copy()
    link_in_place(spec_of(), scores, False)
    np.testing.assert_allclose(scores, sigmoid(logits.astype(np.float64)), rtol=1e-7)


def test_a_logit_far_outside_is_a_score_of_0_or_1() -> None:
    scores = np.array([-3e38, -200, 200, 3e38], np.float32)
    link_in_place(spec_of(scale=1e300), scores, False)
    assert scores.tolist() == [0, 0, 1, 1]


def test_an_identity_link_is_the_calibrated_logit(folder: Path) -> None:
    spec = spec_of(0.3, 1e-9, link="identity")
    predictor = Predictor(write(folder, spec), device="cpu")
    logits = np.array([1e-9, -3.25, 1e7, 0], np.float32)
    wanted = (0.3 * logits.astype(np.float64) + 1e-9).astype(np.float32)
    np.testing.assert_array_equal(predictor.score(table_of(logits)), wanted)


def not_finite(name: str, row: str, got: str = "inf") -> str:
    rule = f"expected a {name} that is finite in float32, got {got}"
    return f"{rule} - at `{name}`, row {row}{TOO_LARGE}"


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_a_logit_that_overflows_is_refused_with_its_row(
    fused: bool, raw: bool, folder: Path
) -> None:
    predictor = Predictor(write(folder, spec_of()), device="cpu", fused=fused)
    table = table_of(np.zeros(400, np.float32))
    table["z"][123] = -3e38
    for size in (None, 50):
        with pytest.raises(InputError) as caught:
            predictor.score(table, raw=raw, batch_size=size)
        assert str(caught.value) == not_finite("logit", "123", "-inf")
    assert predictor.stats == {}
    with pytest.raises(InputError, match="- at `logit`, row 123"):
        predictor.explain(table)
    predictor.warmup(tables=True)


def test_a_score_that_overflows_is_refused(folder: Path) -> None:
    predictor = Predictor(write(folder, spec_of(2.5, link="identity")), device="cpu")
    table = table_of(np.array([0, 3e38], np.float32))
    assert predictor.score(table, raw=True)[1] == np.float32(3e38)
    with pytest.raises(InputError) as caught:
        predictor.score(table)
    assert str(caught.value) == not_finite("score", "1", "7.50000001e+38")


def test_a_job_skips_a_row_whose_logit_overflows(folder: Path) -> None:
    predictor = Predictor(write(folder, spec_of()), device="cpu")
    table = table_of(np.zeros(9, np.float32))
    table["z"][[2, 7]] = 3e38
    batch = pa.RecordBatch.from_pydict(table)
    with pytest.raises(InputError) as caught:
        BatchScorer(predictor, batch.schema).score(batch)
    assert str(caught.value) == not_finite("logit", "2")
    skipping = BatchScorer(predictor, batch.schema, on_error="skip").score(batch)
    assert skipping.batch.column("score").to_pylist() == [0.5] * 7
    assert skipping.bad == [(row, not_finite("logit", str(row))) for row in (2, 7)]
    scored = BatchScorer(predictor, batch.schema, on_error="null").score(batch)
    assert scored.batch.column("score").to_pylist() == [
        None if row in (2, 7) else 0.5 for row in range(9)
    ]


def test_a_job_on_requests_names_the_candidate_whose_logit_overflows(
    folder: Path,
) -> None:
    predictor = Predictor(write(folder, spec_of()), device="cpu")
    z = pa.array([[0.0], [0.0, 0.0, 3e38], []], pa.list_(pa.float32()))
    items = [["a"], ["a", "b", "c"], []]
    batch = pa.RecordBatch.from_pydict({"seen": [["a"]] * 3, "item": items, "z": z})
    scorer = BatchScorer(predictor, batch.schema, on_error="null")
    scored = scorer.score(batch)
    assert scored.batch.column("score").to_pylist() == [[0.5], None, []]
    assert scored.bad == [(1, not_finite("logit", "1, candidate 2"))]


def test_logits_of_another_type_are_refused(folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(write(folder, spec_of()))
    (tower,) = (n for n in proto.graph.node if n.output[0] == "logit")
    tower.output[0] = "narrow"
    wide = helper.make_node("Cast", ["narrow"], ["logit"], to=TensorProto.DOUBLE)
    back = helper.make_node("Cast", ["logit"], ["float"], to=TensorProto.FLOAT)
    at = list(proto.graph.node).index(tower) + 1
    for node in (back, wide):
        proto.graph.node.insert(at, node)
    for node in proto.graph.node[at + 2 :]:
        node.input[:] = ["float" if name == "logit" else name for name in node.input]
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    path = tmp_path / "wide.onnx"
    onnx.save(proto, path)
    with pytest.raises(ModelError) as caught:
        Predictor(path, device="cpu")
    assert str(caught.value) == (
        f"expected float32 logits [6], got float64 (6,) - at `{path}: din_infer.golden`"
    )

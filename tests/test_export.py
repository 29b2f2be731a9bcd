import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from din_converter import convert, functions, save, verify
from din_converter import export as export_module
from din_converter.verify import edge_batches, torch_logits
from din_infer import ConversionError, FeatureSpec, ModelError, Predictor
from din_infer.session import Session
from tests.models import SPECS, random_model, spec_dict
from tests.oldest import oldest_logits

pytestmark = pytest.mark.slow


def metadata(path: Path) -> dict[str, str]:
    return {
        p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props
    }


@pytest.mark.parametrize("name", SPECS)
def test_the_graph_equals_torch_in_float64(name: str, tmp_path: Path) -> None:
    model = random_model(SPECS[name], seed=5)
    report = convert(model, tmp_path / "m.onnx")
    assert len(report.cases) == 35 * len(report.ways)
    assert 0 < report.logit_difference < 1e-4
    assert report.score_difference < (1e-4 if name == "identity link" else 1e-5)


@pytest.mark.parametrize(
    "name", ["paper", "softmax, empty is the padding row", "query"]
)
def test_plain_onnxruntime_and_the_reference_evaluator_need_no_package(
    name: str, tmp_path: Path
) -> None:
    model = random_model(SPECS[name])
    convert(model, tmp_path / "m.onnx")
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    reference = ReferenceEvaluator(str(tmp_path / "m.onnx"))
    double = model.double()
    spread = []
    for label, inputs in edge_batches(model.spec):
        wanted = torch_logits(double, inputs)
        spread.extend(wanted)
        with np.errstate(over="ignore"):  # its sigmoid computes both branches
            twin = reference.run(["logit"], inputs)[0]
        for got in (session.run(["logit"], inputs)[0], twin):
            assert got.shape == wanted.shape, label
            bound = 1e-5 * np.maximum(1, np.abs(wanted))
            assert (np.abs(got - wanted) <= bound).all(), label
    assert np.std(spread) > 0.1


@pytest.mark.parametrize(
    "name", ["paper", "three sequences", "derived", "attended padding"]
)
def test_the_oldest_runtime_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    model = random_model(SPECS[name])
    convert(model, tmp_path / "m.onnx")
    batches = dict(edge_batches(model.spec))
    logits = oldest_logits(tmp_path / "m.onnx", list(batches.values()))
    double = model.double()
    for (label, inputs), got in zip(batches.items(), logits, strict=True):
        wanted = torch_logits(double, inputs)
        bound = 1e-5 * np.maximum(1, np.abs(wanted))
        assert got.shape == wanted.shape
        assert (np.abs(got - wanted) <= bound).all(), label


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"])
    report = convert(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    assert proto.ir_version == 10
    assert {(o.domain, o.version) for o in proto.opset_import} == {
        ("", 18),
        ("din_infer", 1),
    }
    assert {f.name for f in proto.functions} == {
        "LocalActivation",
        "EmbeddingBag",
        "EmbeddingBag_1",
        "Guard",
        "Tower",
    }
    assert [i.name for i in proto.graph.input] == [i.name for i in model.spec.inputs]
    assert [o.name for o in proto.graph.output] == [
        "logit",
        "score",
        "din_infer.requests",
    ]
    found = metadata(tmp_path / "m.onnx")
    assert found["din_infer.format"] == "1"
    assert FeatureSpec.from_json(found["din_infer.spec"]) == model.spec
    assert found["din_infer.model_id"] == report.model_id
    parity = json.loads(found["din_infer.parity"])
    assert parity["logit_difference"] == report.logit_difference
    assert tuple(parity["ways"]) == report.ways
    assert "embedding_dtype" not in parity
    golden = json.loads(found["din_infer.golden"])
    assert len(golden["scores"]) == len(golden["rows"]) == 6
    assert np.std(golden["scores"]) > 0.01


def test_the_attention_never_builds_q_minus_k(tmp_path: Path) -> None:
    """The first layer is folded: its weights are [D, H], not [4 D, H]."""
    model = random_model(SPECS["paper"])
    convert(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    shapes = {t.name: list(t.dims) for t in proto.graph.initializer}
    place = "weights.sequence.history."
    assert shapes[f"{place}weight_behavior"] == [15, 9]
    assert shapes[f"{place}weight_product"] == [15, 9]
    body = next(f for f in proto.functions if f.name == "LocalActivation")
    operators = {n.op_type for n in body.node}
    assert "BatchNormalization" not in operators
    node = next(n for n in proto.graph.node if n.op_type == "LocalActivation")
    assert all(node.input)
    assert len(node.input) == len(body.input)
    assert {a.name for a in node.attribute} == set(body.attribute)


def test_the_tower_is_one_node(tmp_path: Path) -> None:
    convert(random_model(SPECS["paper"]), tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    (node,) = (n for n in proto.graph.node if n.op_type == "Tower")
    (body,) = (f for f in proto.functions if f.name == "Tower")
    assert node.domain == "din_infer"
    (added,) = (n for n in proto.graph.node if list(n.output) == ["logit"])
    assert added.input[0] == node.output[0]
    assert len(node.input) == len(body.input)
    weights = [name for name in node.input if name.startswith("weights.tower.")]
    assert weights[:3] == [
        f"weights.tower.{k}" for k in ("weight_1", "bias_1", "dice_scale_1")
    ]
    assert {a.name for a in node.attribute} == set(body.attribute)
    assert not any(n.domain for f in proto.functions for n in f.node)
    # what is left beside the operators: one gather per field, and the link
    left = [n.op_type for n in proto.graph.node if n.domain == ""]
    assert left.count("Sigmoid") == 1
    assert not {"Gemm", "MatMul", "Mul"} & set(left)


def test_every_way_to_run_the_file_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, model = verify.open_way, random_model(SPECS["paper"])
    other = random_model(SPECS["paper"], seed=1)
    report = convert(other, tmp_path / "other.onnx")
    native = ("native",) if Session(tmp_path / "other.onnx", device="cpu").fused else ()
    assert report.ways == (*native, "function bodies")
    assert all(f"{way}: logits within " in str(report) for way in report.ways)

    def one_wrong(path: Path, way: str) -> Session:
        return real(tmp_path / "other.onnx" if way == "another way" else path, way)

    every = (*report.ways, "another way")
    monkeypatch.setattr(verify, "ways", lambda *_, **__: every)
    monkeypatch.setattr(verify, "open_way", one_wrong)
    with pytest.raises(ConversionError, match=r"`batch N=1 B=1 T=zero, another way, r"):
        convert(model, tmp_path / "m.onnx")


def test_sequences_of_different_signature_get_functions_of_their_own(
    tmp_path: Path,
) -> None:
    convert(random_model(SPECS["three sequences"]), tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    used = [n.op_type for n in proto.graph.node if "LocalActivation" in n.op_type]
    assert used == ["LocalActivation", "LocalActivation_1", "LocalActivation_2"]


def test_explain_adds_the_activation_weights(tmp_path: Path) -> None:
    model = random_model(SPECS["softmax"])
    convert(model, tmp_path / "m.onnx", explain=True)
    inputs = dict(edge_batches(model.spec))["N=64 B=64 T=mixed"]
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (got,) = session.run(["history.activation_weight"], inputs)
    tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
    wanted = model.activation_weights(tensors)["history"].detach().numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert wanted.std() > 0.01


def test_wrong_activation_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = functions._weights

    def turned(
        g: functions.Nodes,
        op: functions.LocalActivation,
        score: str,
        checked: functions.Checked,
    ) -> str:
        weight = real(g, op, score, checked)
        if op.explain:  # the interest stays right: only what is shown is turned
            g.add("Neg", weight, out="weight")
            g.add = lambda name, *a, **k: (  # type: ignore[method-assign]
                weight
                if k.get("out") == "weight"
                else functions.Nodes.add(g, name, *a, **k)
            )
        return weight

    monkeypatch.setattr(functions, "_weights", turned)
    with pytest.raises(ConversionError, match=r"expected a history\.activation_weight"):
        convert(random_model(SPECS["paper"]), tmp_path / "m.onnx", explain=True)
    assert not list(tmp_path.iterdir())


def test_there_is_nothing_to_explain_without_attention(tmp_path: Path) -> None:
    for name in ("base sum", "no history"):
        with pytest.raises(ConversionError, match="expected a DIN with behavior seq"):
            convert(random_model(SPECS[name]), tmp_path / "m.onnx", explain=True)


def test_field_names_never_meet_the_graphs_own(tmp_path: Path) -> None:
    raw = spec_dict()
    names = ["gather_1", "concat_3", "node", "table", "weights", "interest", "lengths"]
    for name in names:
        raw["candidate"].append(
            {"name": name, "dim": 2, "encoder": {"type": "identity", "buckets": 3}}
        )
    for name in ("tower", "sequence"):
        raw["behavior"].append(
            {"name": name, "max_len": 3, "fields": {f"of_{name}": "goods_id"}}
        )
    convert(random_model(raw), tmp_path / "m.onnx")


def test_a_query_of_unpaired_fields_alone_leaves_the_bias(tmp_path: Path) -> None:
    raw = spec_dict()
    fields = raw["behavior"][0]["fields"]
    raw["behavior"][0]["fields"] = {"action": fields["action"]}
    raw["model"] = {"tower": {"hidden": [4], "inputs": ["history.query"]}}
    convert(random_model(raw), tmp_path / "m.onnx")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "d.onnx").mkdir()
    model = random_model(big_spec())
    with pytest.raises(ConversionError, match="expected a file, or nothing, got a fol"):
        convert(model, tmp_path / "d.onnx")
    with pytest.raises(ConversionError, match="expected a place where the model can"):
        convert(model, "/proc/m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["d.onnx"]


GOLDEN_SPECS = {
    "a length that is also a small id": [
        {
            "user": [
                {
                    "name": "n",
                    "dim": 2,
                    "encoder": {"type": "identity", "buckets": 6},
                }
            ]
        },
        {"length_column": "n"},
    ],
    "one column, two ranges": [
        {
            "user": [
                {
                    "name": f"n{k}",
                    "column": "n",
                    "dim": 2,
                    "encoder": {"type": "identity", "buckets": k},
                }
                for k in (100, 3)
            ]
        },
        {},
    ],
}


@pytest.mark.parametrize("name", GOLDEN_SPECS)
def test_golden_rows_always_fit_their_spec(name: str, tmp_path: Path) -> None:
    change, behavior = GOLDEN_SPECS[name]
    raw = spec_dict(**change)
    raw["behavior"][0].update(behavior)
    convert(random_model(raw), tmp_path / "m.onnx")
    golden = json.loads(metadata(tmp_path / "m.onnx")["din_infer.golden"])
    assert len(golden["rows"]) >= 1


def test_large_values_of_the_identity_link_convert(tmp_path: Path) -> None:
    model = random_model(SPECS["identity link"])
    with torch.no_grad():
        model.tower.output.bias.fill_(5000.0)
    convert(model, tmp_path / "m.onnx")
    assert Predictor(tmp_path / "m.onnx").model_id


def big_spec() -> dict[str, object]:
    raw = spec_dict()
    raw["candidate"][0]["encoder"]["buckets"] = 50_000
    return raw


def test_large_weights_go_to_a_file_named_by_their_digest(tmp_path: Path) -> None:
    first = convert(random_model(big_spec(), seed=1), tmp_path / "m.onnx")
    second = convert(random_model(big_spec(), seed=2), tmp_path / "m.onnx")
    assert first.data_path is not None
    assert second.data_path is not None
    assert first.data_path != second.data_path
    assert first.model_id != second.model_id
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["m.onnx", first.data_path.name, second.data_path.name]
    )
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        outside = {e.key: e.value for e in tensor.external_data}
        size = 4 * int(np.prod(tensor.dims))
        assert bool(outside) == (size >= 1024), tensor.name
        if outside:
            assert outside["location"] == second.data_path.name
            assert int(outside["offset"]) % 4096 == 0
    first.data_path.unlink()
    assert Predictor(tmp_path / "m.onnx").model_id == second.model_id


def test_the_model_id_depends_on_weights_and_spec_alone(tmp_path: Path) -> None:
    ids = [
        convert(model, tmp_path / f"{k}.onnx").model_id
        for k, model in enumerate(
            [
                random_model(SPECS["paper"], seed=1),
                random_model(SPECS["paper"], seed=1),
                random_model(SPECS["paper"], seed=2),
                random_model(SPECS["calibrated"], seed=1),
            ]
        )
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_graph_that_differs_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export_module.build_graph

    def wrong(model: object, **options: bool) -> object:
        proto, weights = real(model, **options)  # type: ignore[arg-type]
        name = "weights.sequence.history.bias_2"
        weights[name] = weights[name] + np.float32(3e-3)
        return proto, weights

    monkeypatch.setattr(export_module, "build_graph", wrong)
    (tmp_path / "m.onnx").write_bytes(b"what was there")
    with pytest.raises(
        ConversionError, match=r"expected a logit within 1e-05 of torch's"
    ):
        convert(random_model(SPECS["paper"]), tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_bytes() == b"what was there"


def test_a_difference_names_its_batch_row_and_values() -> None:
    wanted = np.array([0.0, 1.0, 2.0])
    got = np.array([0.0, 1.5, 2.0], np.float32)
    with pytest.raises(ConversionError) as caught:
        verify._check("N=3", "logit", got, wanted, np.ones(3))
    assert str(caught.value) == (
        "expected a logit within 1e-05 of torch's 1, got 1.5 - at `batch N=3, row 1`"
    )
    got[2] = np.nan
    with pytest.raises(ConversionError, match="row 2"):
        verify._check("N=3", "logit", got, wanted, np.ones(3))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"])
    with torch.no_grad():
        model.tables["of_goods_id"].weight[3, 0] = float("inf")
    with pytest.raises(ConversionError) as caught:
        convert(model, tmp_path / "m.onnx")
    assert str(caught.value) == (
        "expected finite weights, got NaN or infinity - at `tables.of_goods_id.weight`"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("m.pb", "expected a path that ends in .onnx, got m.pb - at `out`"),
        ("no/m.onnx", "expected an existing folder, got {}/no - at `out`"),
    ],
)
def test_a_wrong_out_is_refused(out: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        convert(random_model(SPECS["candidate only"]), tmp_path / out)
    assert str(caught.value) == message.format(tmp_path)


def test_4096_candidates_equal_torch_in_float64(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"])
    convert(model, tmp_path / "m.onnx")
    predictor = Predictor(tmp_path / "m.onnx")
    rng = np.random.default_rng(1)
    for b in (4096, 100, 1):
        inputs = verify.random_inputs(model.spec, rng, 4096, b, "mixed")
        wanted = torch_logits(model.double(), inputs)
        bound = 1e-5 * np.maximum(1, np.abs(wanted))
        for batch_size in (4096, 256):
            got = predictor.score_encoded(inputs, raw=True, batch_size=batch_size)
            assert (np.abs(got - wanted) <= bound).all()
        assert wanted.std() > 0.05


def test_a_saved_model_converts_to_the_same_id(tmp_path: Path) -> None:
    model = random_model(SPECS["derived"])
    save(model, tmp_path / "model.pt")
    from_file = convert(tmp_path / "model.pt", tmp_path / "a.onnx")
    assert from_file.model_id == convert(model, tmp_path / "b.onnx").model_id
    assert str(from_file).startswith(f"wrote     {tmp_path}/a.onnx\nmodel id  ")


def test_converting_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = random_model(SPECS["paper"]).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    convert(model, tmp_path / "m.onnx")
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_model_for_another_format_is_refused(tmp_path: Path) -> None:
    convert(random_model(SPECS["candidate only"]), tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    for p in proto.metadata_props:
        if p.key == "din_infer.format":
            p.value = "2"
    onnx.save(proto, tmp_path / "n.onnx")
    with pytest.raises(ModelError, match=r"expected format 1, .*, got 2 - at "):
        Predictor(tmp_path / "n.onnx")

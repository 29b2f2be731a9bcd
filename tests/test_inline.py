"""Graphs without functions, and what `fused` says of them and of others."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import din_infer.session
from din_converter import convert
from din_converter.nodes import inlined_model
from din_converter.verify import edge_batches
from din_infer import Predictor, graph_rules, model_file
from tests.fusing import Din, inputs, mix
from tests.models import SPECS, random_model, random_rows
from tests.oldest import oldest_logits, oldest_runtime

NAMES = ["paper", "base mean", "three sequences", "row dice, outer", "derived"]
SENTENCE = (
    "expected the operators LocalActivation, EmbeddingBag or Tower, got a graph in"
    " which their functions are inlined, so that it runs many times slower. Convert the"
    " model again, without --inline, or say fused=False."
)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inline") / "m.onnx"
    convert(random_model(SPECS["paper"]), path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_an_inlined_model_has_standard_operators_alone(
    name: str, tmp_path: Path
) -> None:
    model = random_model(SPECS[name])
    report = convert(model, tmp_path / "plain.onnx", inline=True)
    convert(model, tmp_path / "whole.onnx")
    proto = onnx.load(tmp_path / "plain.onnx")
    assert not proto.functions
    assert {n.domain for n in proto.graph.node} == {""}
    assert [o.domain for o in proto.opset_import] == [""]
    assert report.ways == ("function bodies",)
    onnx.checker.check_model(proto, full_check=True)
    plain = Predictor(tmp_path / "plain.onnx", device="cpu", fused=False)
    whole = Predictor(tmp_path / "whole.onnx", device="cpu", fused=False)
    rows = random_rows(model.spec, 40)
    np.testing.assert_array_equal(plain.score(rows), whole.score(rows))
    evaluator = ReferenceEvaluator(proto)
    for _, feeds in list(edge_batches(model.spec))[5::9]:
        (logit,) = evaluator.run(["logit"], feeds)
        wanted = plain.score_encoded(feeds, raw=True)
        bound = 1e-5 * np.maximum(1, np.abs(wanted))
        assert (np.abs(logit - wanted) <= bound).all()


def test_the_command_inlines(tmp_path: Path) -> None:
    from din_converter import save
    from din_converter.cli import convert_main

    save(random_model(SPECS["paper"]), tmp_path / "m.pt")
    out = tmp_path / "m.onnx"
    assert convert_main([str(tmp_path / "m.pt"), "--out", str(out), "--inline"]) == 0
    assert not onnx.load(out).functions


@pytest.mark.slow
def test_an_inlined_module(tmp_path: Path) -> None:
    """Its fused attention is written out again, and is proven as it then stands."""
    module = mix(Din())
    given = inputs(module)
    report = convert(module, tmp_path / "m.onnx", example_inputs=given, inline=True)
    assert any(b.fused for b in report.blocks)
    assert not onnx.load(tmp_path / "m.onnx").functions
    assert not Predictor(tmp_path / "m.onnx", device="cpu").fused


def test_fused_is_what_the_session_has(paper: Path) -> None:
    assert Predictor(paper, device="cpu").fused
    assert not Predictor(paper, device="cpu", fused=False).fused


def inlined_by_a_tool(path: Path) -> Path:
    """The model as a tool leaves it that inlines functions and keeps the metadata."""
    model = onnx.load(path)
    kept = [e for e in model.metadata_props if e.key != "din_infer.file"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(inlined_model(model), path.with_name("tool.onnx"))
    return path.with_name("tool.onnx")


def test_a_model_whose_functions_are_gone_warns_and_is_not_fused(
    paper: Path,
) -> None:
    path = inlined_by_a_tool(paper)
    with pytest.warns(UserWarning, match="inlined") as caught:
        predictor = Predictor(path, device="cpu")
    assert [str(w.message) for w in caught] == [f"{path}: {SENTENCE}"]
    assert caught[0].filename == __file__
    assert not predictor.fused
    rows = random_rows(predictor.spec, 20)
    wanted = Predictor(paper, device="cpu").score(rows)
    np.testing.assert_allclose(predictor.score(rows), wanted, rtol=0, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not Predictor(path, device="cpu", fused=False).fused


def test_a_build_without_operators_says_nothing_of_inlining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(random_model(SPECS["paper"]), tmp_path / "m.onnx", inline=True)
    monkeypatch.setattr(din_infer.session, "ops_library", lambda _="cpu": None)
    assert not Predictor(tmp_path / "m.onnx", device="cpu").fused


def test_a_module_without_attention_is_not_fused(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()).eval()
    example = (torch.randn(2, 3),)
    convert(module, tmp_path / "m.onnx", example_inputs=example)
    assert not Predictor(tmp_path / "m.onnx", device="cpu").fused


@pytest.mark.parametrize(
    ("names", "fused"),
    [
        ({"Tower"}, True),
        ({"LocalActivation_15"}, True),
        ({"LocalActivation_16"}, False),
        ({"Guard"}, False),
        (set(), False),
    ],
)
def test_an_older_runtime_is_judged_by_the_graph(
    names: set[str], fused: bool, paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = "get_provider_graph_assignment_info"
    for kind in onnxruntime.InferenceSession.__mro__:
        if tell in vars(kind):
            monkeypatch.delattr(kind, tell)
    real = graph_rules.check_graph

    def check(*args: Any, **options: Any) -> set[str]:  # noqa: ANN401
        known = {"EmbeddingBag", "EmbeddingBag_1", "Guard", "LocalActivation", "Tower"}
        assert real(*args, **options) == known
        return names or {"another"}

    monkeypatch.setattr(model_file, "check_graph", check)
    assert Predictor(paper, device="cpu").fused == fused


OLDEST = """
import sys, warnings
from din_infer import Predictor
warnings.simplefilter("ignore")
print([Predictor(path, device="cpu").fused for path in sys.argv[1:]])
"""


@pytest.mark.slow
def test_on_the_oldest_runtime(paper: Path, tmp_path: Path) -> None:
    model = random_model(SPECS["paper"])
    convert(model, tmp_path / "i.onnx", inline=True)
    path = os.pathsep.join([str(oldest_runtime()), os.environ.get("PYTHONPATH", "")])
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            OLDEST,
            str(paper),
            str(tmp_path / "i.onnx"),
        ],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert made.stdout.strip() == "[True, False]"
    batches = [feeds for _, feeds in list(edge_batches(model.spec))[::5]]
    predictor = Predictor(paper, device="cpu")
    for got, feeds in zip(
        oldest_logits(tmp_path / "i.onnx", batches), batches, strict=True
    ):
        wanted = predictor.score_encoded(feeds, raw=True)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)

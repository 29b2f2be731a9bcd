"""din-convert --from and convert(source=..): which options belong to which library."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from din_converter import convert
from din_converter.cli import convert_main
from din_infer.errors import ConversionError
from din_infer.predictor import Predictor
from din_infer.spec import FeatureSpec
from tests.models import SPECS, random_model
from tests.shared import SHARED, needs_shared

PEERS = SHARED / "peers"
DEEPCTR, RECHUB, FUXICTR = PEERS / "deepctr", PEERS / "rechub", PEERS / "fuxictr"
SHOP = FUXICTR / "data" / "shop_seq"

COMMANDS: dict[str, tuple[str, list[Any], Path]] = {
    "deepctr-torch, a state_dict": (
        "deepctr-torch",
        [
            DEEPCTR / "rich_state_dict.pth",
            "--description",
            DEEPCTR / "rich_config.json",
        ],
        DEEPCTR / "rich_io.npz",
    ),
    "deepctr-torch, a whole model": (
        "deepctr-torch",
        [DEEPCTR / "default_whole_model.pth"],
        DEEPCTR / "default_io.npz",
    ),
    "torch-rechub, a state_dict": (
        "torch-rechub",
        [
            RECHUB / "tutorial_save" / "model.pth",
            "--description",
            RECHUB / "tutorial_config.json",
            "--max-len",
            "10",
        ],
        RECHUB / "tutorial_io.npz",
    ),
    "torch-rechub, a whole model": (
        "torch-rechub",
        [RECHUB / "tutorial_whole_model.pth"],
        RECHUB / "tutorial_io.npz",
    ),
    "fuxictr": (
        "fuxictr",
        [
            FUXICTR / "checkpoints" / "shop_seq" / "classic_tuple.model",
            "--feature-map",
            SHOP / "feature_map.json",
            "--model-config",
            FUXICTR / "classic_tuple_model_config.yaml",
        ],
        FUXICTR / "classic_tuple_io.npz",
    ),
}


@needs_shared
@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_converts_and_the_result_scores_as_the_library(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, words, stored = COMMANDS[name]
    out = tmp_path / "m.onnx"
    words = [*map(str, words), "--from", source, "--out", str(out), "--json"]
    assert convert_main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["source"] == source
    assert all(b["fused"] for b in report["blocks"])
    metadata = {p.key: p.value for p in onnx.load(out).metadata_props}
    assert metadata["din_infer.source"] == source
    with np.load(stored) as arrays:
        batch = {k.removeprefix("in_"): arrays[k] for k in arrays.files if "in_" in k}
        expected = arrays["expected"].reshape(-1)
    assert expected.std() > 0.05
    for fused in (True, False):
        scores = Predictor(out, device="cpu", fused=fused).score(batch)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@needs_shared
def test_the_sides_of_fields_are_as_the_options_say(tmp_path: Path) -> None:
    checkpoint = DEEPCTR / "rich_whole_model.pth"
    out = tmp_path / "m.onnx"
    words = [str(checkpoint), "--from", "deepctr-torch", "--out", str(out)]
    words += ["--candidate-fields", "age_level, tag", "--user-fields", "price"]
    assert convert_main(words) == 0
    spec = Predictor(out).spec
    assert [f.name for f in spec.user] == ["user_id", "gender"]
    assert {f.name for f in spec.candidate} == {
        "age_level",
        "goods_id",
        "shop_id",
        "cate_id",
    }
    assert (spec.multi_hot[0].side, spec.dense[0].side) == ("candidate", "user")


WRONG: dict[str, tuple[str | None, dict[str, Any]]] = {
    "expected one of deepctr-torch, torch-rechub, recbole, fuxictr, got 'keras' - at"
    " `source`": ("keras", {}),
    "expected the options of recbole: user_fields, candidate_fields, got description,"
    " experiment - at `source`": (
        "recbole",
        {"description": "d.json", "experiment": "x"},
    ),
    "expected the options of deepctr-torch: description, user_fields, candidate_fields,"
    " got max_len - at `source`": ("deepctr-torch", {"max_len": 5}),
    "expected what a fuxictr checkpoint needs beside it: feature_map, model_config, got"
    " no feature_map, no model_config - at `source`": ("fuxictr", {}),
    "expected no such option without a library's checkpoint, got feature_map,"
    " user_fields - at `source`": (
        None,
        {"feature_map": "f.json", "user_fields": ["a"]},
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_options_that_do_not_belong_are_refused(message: str, tmp_path: Path) -> None:
    source, options = WRONG[message]
    with pytest.raises(ConversionError) as caught:
        convert("no.pth", tmp_path / "m.onnx", source=source, **options)
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


def test_a_library_needs_the_path_of_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        convert({}, tmp_path / "m.onnx", source="recbole")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "expected the path of a recbole checkpoint, got dict - at `model`"
    )


@pytest.mark.parametrize("source", ["deepctr-torch", "torch-rechub", "recbole"])
def test_a_file_that_is_no_checkpoint_is_refused_and_nothing_is_written(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"PK\x03\x04 and no more")
    out = str(tmp_path / "m.onnx")
    assert convert_main([str(junk), "--from", source, "--out", out]) == 1
    error = capsys.readouterr().err
    assert error.startswith("din-convert: expected a checkpoint that torch.save wrote")
    assert str(junk) in error
    assert [p.name for p in tmp_path.iterdir()] == ["junk.pth"]


def test_examples_of_help_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that goes on says so: what follows is never a command of its own."""
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        convert_main(["--help"])
    _, _, examples = capsys.readouterr().out.partition("examples:\n")
    lines = examples.replace("\\\n", " ").splitlines()
    commands = [line.split() for line in lines if line.startswith("  din-convert ")]
    assert len(commands) >= 9
    assert all("--out" in words for words in commands)
    assert not any(line.lstrip().startswith("--") for line in lines)
    assert [" ".join(c) for c in commands if "fuxictr" in c] == [
        "din-convert DIN_x1.model --from fuxictr --feature-map feature_map.json"
        " --model-config model_config.yaml --feature-vocab feature_vocab.json --out"
        " model.onnx"
    ]


@pytest.mark.slow
def test_the_model_id_does_not_depend_on_the_name_of_the_file(tmp_path: Path) -> None:
    raw = copy.deepcopy(SPECS["paper"])
    raw["candidate"][0]["encoder"] = {"type": "hash", "buckets": 100_000}
    model = random_model(FeatureSpec.from_dict(raw))
    reports = [convert(model, tmp_path / n) for n in ("one.onnx", "another name.onnx")]
    assert reports[0].model_id == reports[1].model_id
    assert reports[0].data_path != reports[1].data_path

"""Files of every released format load, and give what they gave, for ever.

`tests/frozen/make.py` has written them, and never writes one again. Ids are compared
exactly, scores to 1e-6, since another CPU rounds other sums, and activation weights,
which may exceed 1, to the tolerance that a conversion allows.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import din_infer
from din_infer import DinError, FeatureSpec, ModelError, Predictor
from din_infer.model_file import ModelFile
from din_infer.model_format import TOLERANCE
from tests.frozen.reading import ABOUT, FOLDER, MODELS, about, given_by

ABOUT_ALL = about()
ROWS = ABOUT_ALL["rows"]
UPGRADE = "Run: pip install --upgrade din-infer."


def close(given: Any, wanted: Any) -> bool:  # noqa: ANN401
    return bool(np.allclose(given, wanted, rtol=0, atol=1e-6))


def edited(target: Path, *changes: tuple[bytes, bytes]) -> Path:
    """Write the first frozen model with bytes replaced by as many others.

    Its digest is called another name, so that the edit is taken for content.
    """
    content = (FOLDER / "all-1.onnx").read_bytes()
    for old, new in (*changes, (b"din_infer.file", b"din_infer.fil_")):
        assert len(old) == len(new)
        assert old in content
        content = content.replace(old, new)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_model_gives_what_it_gave(name: str, fused: bool) -> None:
    path, wanted = FOLDER / f"{name}.onnx", ABOUT_ALL["models"][name]
    ModelFile.read(path).check_all()
    predictor = Predictor(path, device="cpu", threads=1, fused=fused)
    given = given_by(predictor, path, ROWS)
    assert given.get("inputs") == wanted.get("inputs")
    assert close(given["scores"], wanted["scores"])
    assert np.std(wanted["scores"]) > 0.01  # a model that can be told from another
    for now, then in zip(
        given.get("weights", []), wanted.get("weights", []), strict=True
    ):
        assert now.keys() == then.keys()
        for k in then:
            assert np.allclose(now[k], then[k], rtol=TOLERANCE, atol=TOLERANCE)


def test_frozen_specs_are_read_alike() -> None:
    spec = FeatureSpec.load(FOLDER / "spec-1.toml")
    assert spec == FeatureSpec.load(FOLDER / "spec-1.json")
    assert spec == ModelFile.read(FOLDER / "all-1.onnx").spec
    ids = spec.encode(ROWS)
    wanted = ABOUT_ALL["models"]["all-1"]["inputs"]
    assert {name: values.tolist() for name, values in ids.items()} == wanted


def test_a_frozen_checkpoint_has_the_weights_that_it_had() -> None:
    pytest.importorskip("torch")
    from din_converter import load
    from din_converter.verify import link, torch_logits

    model = load(FOLDER / "checkpoint-1.pt")
    logits = torch_logits(model, model.spec.encode(ROWS))
    scores = link(model.spec, np.asarray(logits, np.float64))
    wanted = ABOUT_ALL["models"]["all-1"]["scores"]
    assert np.allclose(scores, wanted, rtol=0, atol=1e-5)


def test_a_frozen_job_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    from din_infer.jobs.files import score_files

    job = shutil.copytree(FOLDER / "job-2", tmp_path / "job")
    inputs = sorted(job.glob("*.parquet"))
    predictor = Predictor(FOLDER / "base-1.onnx", device="cpu", threads=1)

    def resume() -> Any:  # noqa: ANN401
        out = job / "out"
        options: dict[str, Any] = {"keep": ["row"], "resume": True, "progress": False}
        return score_files(predictor, inputs, out, **options)

    begun = job / "out" / "_din_score" / "job.json"
    content = json.loads(begun.read_text(encoding="utf-8"))
    content["versions"] = {"din-infer": "0.0.9", "pyarrow": pa.__version__}
    content["options"]["fused"] = predictor.fused
    begun.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DinError) as caught:
        resume()
    assert str(caught.value) == (
        'expected versions.din-infer as when the job began, "0.0.9", got'
        f' "{din_infer.__version__}" - at `{begun}`. Give --overwrite to begin anew.'
    )
    content["versions"]["din-infer"] = din_infer.__version__
    begun.write_text(json.dumps(content), encoding="utf-8")
    summary = resume()
    assert [Path(p).name for p in summary.whole] == ["part-0.parquet"]
    assert [Path(p).name for p in summary.files] == ["part-1.parquet"]
    for k in range(2):
        table = pq.read_table(job / "out" / f"part-{k}.parquet")
        wanted = np.array(ABOUT_ALL["models"]["base-1"]["scores"])
        assert close(table["score"].to_numpy(), wanted[table["row"].to_numpy()])


def test_frozen_files_are_not_made_again(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.frozen.make import freeze

    (tmp_path / ABOUT).write_text("as it was")

    def make(folder: Path) -> None:
        (folder / ABOUT).write_text("another")
        (folder / "new").write_text("another")

    with pytest.raises(SystemExit) as caught:
        freeze(tmp_path, make)
    assert caught.value.code == f"frozen already, and never made again: {ABOUT}"
    assert [p.name for p in tmp_path.iterdir()] == [ABOUT]
    assert (tmp_path / ABOUT).read_text() == "as it was"


# ------------------------------------------------------------- files of newer versions


def test_a_model_of_a_newer_format_says_what_to_install(tmp_path: Path) -> None:
    number = b"din_infer.format\x12\x01"
    path = edited(tmp_path / "m.onnx", (number + b"1", number + b"2"))
    with pytest.raises(ModelError) as caught:
        Predictor(path)
    assert str(caught.value) == (
        f"expected format 1, which din-infer {din_infer.__version__} reads, got 2 - at"
        f" `{path}: din_infer.format`. {UPGRADE}"
    )


def test_a_word_that_a_newer_version_has_added_says_what_to_install(
    tmp_path: Path,
) -> None:
    word = (b'"siphash24"', b'"siphash99"')
    path = edited(tmp_path / "m.onnx", word)
    with pytest.raises(ModelError) as caught:
        Predictor(path)
    assert caught.value.got == "'siphash99'"
    assert caught.value.fix == ""
    version = din_infer.__version__.encode()
    newer = b'"din-infer": "' + b"9" * len(version.partition(b".")[0])
    newer += b"." + version.partition(b".")[2] + b'"'
    edited(path, word, (b'"din-infer": "' + version + b'"', newer))
    with pytest.raises(ModelError) as caught:
        Predictor(path)
    assert caught.value.got == "'siphash99'"
    assert caught.value.fix == (
        f"din-infer {newer.decode().split(chr(34))[3]} wrote it, this is"
        f" {din_infer.__version__}. {UPGRADE}"
    )


def test_an_operator_that_the_library_lacks_runs_as_its_function(
    tmp_path: Path,
) -> None:
    renamed = [(b"LocalActivation", b"LocalActivatioX"), (b"Tower", b"TowerX"[1:])]
    path = edited(tmp_path / "m.onnx", *renamed)
    scores = Predictor(path, device="cpu", threads=1).score(ROWS)
    assert close(scores, ABOUT_ALL["models"]["all-1"]["scores"])

"""URLs are refused by every command and entry, before anything is read or made."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from din_converter import convert, load, save
from din_converter.cli import convert_main, train_main
from din_converter.evaluate import read_table
from din_converter.rows import Rows
from din_converter.run import RunFolder
from din_infer import FeatureSpec, InputError, ModelError, Predictor
from din_infer.cli import explain_main, inspect_main, main, verify_main
from din_infer.history_cli import main as history_main
from din_infer.jobs.explain import explain_file, find_rows, write
from din_infer.jobs.files import score_files
from din_infer.jobs.inspect import inspect_files, write_picture
from din_infer.local_path import local_path
from din_infer.model_file import ModelFile
from din_infer.whole_file import write_whole
from tests.models import random_model, spec_dict
from tests.test_train import log_spec

STORE = "s3://bucket/scores/"
FIX = "Copy it here, or mount it, and give that path. A folder here of this name is ./"


@pytest.mark.parametrize(
    "text",
    [
        STORE,
        "S3A://b/k",
        "gs://b",
        "abfss://c@account.dfs.core.windows.net/d",
        "hdfs://name:8020/x",
        "hdfs:/x",
        "dbfs:/x/y.parquet",
        "https://host/x.parquet?sig=1",
        "file://host/share/x",
        "git+ssh://host/x",
        "s3://",
        "s3://b/a\nb",
    ],
)
def test_urls_are_refused_by_their_own_name(text: str) -> None:
    for given in (text, os.fsencode(text)):
        with pytest.raises(InputError) as caught:
            local_path(given, "--out")  # type: ignore[arg-type]
        wanted = (
            f"expected a path on this machine, got {text} - at `--out`. {FIX}{text}."
        )
        assert str(caught.value) == wanted
    collapsed = str(Path(text))
    with pytest.raises(ModelError) as refused:
        local_path(Path(text), "model", ModelError)
    assert refused.value.got == collapsed


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("file:///tmp/a%20b.parquet", "/tmp/a b.parquet"),
        ("file://localhost/tmp/a", "/tmp/a"),
        ("file:/tmp/a", "/tmp/a"),
        ("FILE:///tmp/a", "/tmp/a"),
    ],
)
def test_urls_of_files_name_the_path(text: str, plain: str) -> None:
    with pytest.raises(InputError) as caught:
        local_path(text, "inputs")
    assert str(caught.value) == (
        f"expected a path on this machine, got {text} - at `inputs`. Give {plain}."
    )


@pytest.mark.parametrize(
    "text",
    ["a", "/s3:/x", "C:/x", "C:\\x", "a:b.parquet", "days/s3:/x", "1a://x", ".", "-"],
)
def test_other_paths_stay_as_they_are(text: str) -> None:
    assert local_path(text, "inputs") == Path(text)


def test_paths_of_windows_are_told_from_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("din_infer.local_path.SEPARATOR", "\\")
    for text in ("C:\\x", "C:/x", "C:x", "\\\\host\\share", "\\\\?\\C:\\x"):
        assert local_path(text, "inputs") == Path(text)
    for url in ("s3:\\bucket\\x", "s3://bucket/x"):  # the first is pathlib's, there
        with pytest.raises(InputError, match="a path on this machine"):
            local_path(url, "inputs")
    with pytest.raises(InputError) as caught:
        local_path("file:///C:/data/x", "inputs")
    assert caught.value.fix == "Give C:/data/x."


def test_folders_that_have_such_a_name_are_reached_by_a_dot() -> None:
    made = local_path("./s3:/x", "inputs")
    assert made == Path.cwd() / "s3:" / "x"
    assert local_path(made, "inputs") == made


SPEC = FeatureSpec.from_dict(spec_dict())
CALLS: dict[str, Callable[[Path], object]] = {
    "Predictor": lambda _: Predictor(STORE),
    "Predictor data_root": lambda m: Predictor(m, data_root=STORE),
    "ModelFile": lambda _: ModelFile.read(STORE),
    "FeatureSpec": lambda _: FeatureSpec.load(STORE),
    "values_file": lambda m: FeatureSpec.from_dict(
        {"format": 1, "user": [{"encoder": {"values_file": STORE}}]}, folder=m.parent
    ),
    "score_files": lambda m: score_files(Predictor(m), [STORE], m.parent / "out"),
    "score_files one": lambda m: score_files(Predictor(m), STORE, m.parent / "out"),
    "score_files out": lambda m: score_files(Predictor(m), m, STORE),
    "inspect_files": lambda _: inspect_files(SPEC, STORE),
    "explain_file": lambda m: explain_file(Predictor(m), STORE, [0]),
    "find_rows": lambda _: find_rows(STORE, [("a", "b")], 1),
    "Rows.open": lambda _: Rows.open([STORE], log_spec()),
    "read_table": lambda _: read_table(STORE, log_spec()),
    "RunFolder": lambda _: RunFolder(STORE, {}),
    "load": lambda _: load(STORE),
    "save": lambda _: save(random_model(spec_dict()), STORE),
    "convert": lambda m: convert(STORE, m.parent / "x.onnx"),
    "convert out": lambda _: convert("model.pt", STORE),
    "convert valid": lambda m: convert("model.pt", m.parent / "x.onnx", valid=STORE),
    "write": lambda _: write(None, STORE),  # type: ignore[arg-type]
    "write_picture": lambda _: write_picture(None, STORE),  # type: ignore[arg-type]
    "write_whole": lambda _: write_whole(Path(STORE), "text"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paths") / "model.onnx"
    convert(random_model(spec_dict()), path)
    return path


@pytest.mark.parametrize("name", CALLS)
def test_every_entry_refuses_urls(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(model.parent.iterdir())
    with pytest.raises((InputError, ModelError)) as caught:
        CALLS[name](model)
    assert caught.value.rule == "a path on this machine"
    assert list(tmp_path.iterdir()) == []
    assert sorted(model.parent.iterdir()) == before


WORDS: dict[str, tuple[Callable[[Sequence[str]], int], list[str]]] = {
    "din-score model": (main, ["S", "in", "--out", "o"]),
    "din-score inputs": (main, ["m", "in", "S", "--out", "o"]),
    "din-score --out": (main, ["m", "in", "--out", "S"]),
    "din-score --data-root": (main, ["m", "in", "--out", "o", "--data-root", "S"]),
    "din-explain input": (explain_main, ["m", "S"]),
    "din-explain --out": (explain_main, ["m", "in", "--out", "S"]),
    "din-inspect inputs": (inspect_main, ["S", "--spec", "f.toml"]),
    "din-inspect --spec": (inspect_main, ["in", "--spec", "S"]),
    "din-inspect --plot": (inspect_main, ["in", "--spec", "f.toml", "--plot", "S"]),
    "din-verify model": (verify_main, ["S"]),
    "din-history inputs": (history_main, ["S", "--out", "o.parquet"]),
    "din-history --out": (history_main, ["in", "--out", "S"]),
    "din-train data": (train_main, ["S", "--spec", "f", "--out", "m"]),
    "din-train --spec": (train_main, ["in", "--spec", "S", "--out", "m"]),
    "din-train --out": (train_main, ["in", "--spec", "f", "--out", "S"]),
    "din-train --run": (train_main, ["in", "--spec", "f", "--out", "m", "--run", "S"]),
    "din-train --valid": (
        train_main,
        ["in", "--spec", "f", "--out", "m", "--valid", "a", "S"],
    ),
    "din-train --warm-start": (
        train_main,
        ["in", "--spec", "f", "--out", "m", "--warm-start", "S"],
    ),
    "din-train --config": (train_main, ["--config", "S"]),
    "din-convert model": (convert_main, ["S", "--out", "m.onnx"]),
    "din-convert --out": (convert_main, ["m", "--out", "S"]),
    "din-convert --valid": (convert_main, ["m", "--out", "m.onnx", "--valid", "S"]),
    "din-convert --feature-map": (
        convert_main,
        ["m", "--out", "m.onnx", "--from", "fuxictr", "--feature-map", "S"],
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_every_command_refuses_urls(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command, words = WORDS[case]
    name, option = case.split()
    assert command([STORE if word == "S" else word for word in words]) == 1
    assert capsys.readouterr().err == (
        f"{name}: expected a path on this machine, got {STORE} - at `{option}`."
        f" {FIX}{STORE}.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_config_of_training_names_no_urls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "train.toml"
    config.write_text(f'data = ["logs"]\nout = "{STORE}"\n')
    assert train_main(["--config", str(config)]) == 1
    assert f"got {STORE} - at `{config}: out`." in capsys.readouterr().err

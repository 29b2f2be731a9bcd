"""One version everywhere; what is deprecated says so; locks as Windows needs them."""

import json
import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

import din_infer
from din_infer import DinDeprecationWarning, InputError
from din_infer.cli import explain_main, inspect_main, main, verify_main
from din_infer.deprecation import warn
from din_infer.file_locks import ByteLocks
from din_infer.history_cli import main as history_main
from din_infer.model_file import ModelFile
from din_infer.version import check_format, written_by_newer
from tests.frozen.reading import FOLDER

COMMANDS = {
    "din-score": main,
    "din-explain": explain_main,
    "din-inspect": inspect_main,
    "din-verify": verify_main,
    "din-history": history_main,
}
UPGRADE = "Run: pip install --upgrade din-infer."


def test_the_version_is_one() -> None:
    import din_converter

    assert version("din-infer") == din_infer.__version__ == din_converter.__version__
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "din_infer.version.__version__"
    assert "version" not in project["project"]


def test_commands_say_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from din_converter.cli import convert_main, train_main

    commands = {**COMMANDS, "din-train": train_main, "din-convert": convert_main}
    for name, run in commands.items():
        with pytest.raises(SystemExit) as caught:
            run(["--version"])
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"{name} {din_infer.__version__}\n"


def test_models_say_which_version_wrote_them(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from din_converter import convert, save
    from din_converter.importers.unpickle import read_plain
    from tests.models import SPECS, random_model

    model = random_model(SPECS["candidate only"])
    convert(model, tmp_path / "m.onnx")
    save(model, tmp_path / "m.pt")
    written = ModelFile.read(tmp_path / "m.onnx").versions
    assert written["din-infer"] == din_infer.__version__
    saved = read_plain(tmp_path / "m.pt", "a checkpoint")["versions"]
    assert saved["din-infer"] == din_infer.__version__
    assert ModelFile.read(FOLDER / "all-1.onnx").versions["din-infer"] == "0.1.0"


# --------------------------------------------------------------- formats of their own


@pytest.mark.parametrize(
    ("found", "otherwise", "wanted"),
    [
        (3, "", f"got 3 - at `f: format`. {UPGRADE}"),
        ("3", "Begin anew.", f"got 3 - at `f: format`. {UPGRADE} Or: Begin anew."),
        (1, "Begin anew.", "got 1 - at `f: format`. Begin anew."),
        ("two", "", "got 'two' - at `f: format`"),
        ("9" * 5000, "", "got '999"),
        (None, "", "got None - at `f: format`"),
    ],
)
def test_another_format_says_how_to_mend_it(
    found: object, otherwise: str, wanted: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_format(found, 2, "f: format", InputError, otherwise)
    known = f"expected format 2, which din-infer {din_infer.__version__} reads, "
    assert str(caught.value).startswith(known + wanted)


@pytest.mark.parametrize("other", [None, 3, "", "0", "0.0.9", "x.1.0", "²"])
def test_an_older_version_or_none_says_nothing(other: object) -> None:
    assert written_by_newer(other) == ""
    assert written_by_newer(din_infer.__version__) == ""


def test_a_newer_job_says_what_to_install(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from din_infer.jobs.ledger import Ledger

    folder = tmp_path / "_din_score"
    folder.mkdir()
    (folder / "job.json").write_text('{"format": 3, "parts": {}}')
    with pytest.raises(InputError) as caught:
        Ledger(tmp_path, {}, [], resume=True)
    assert str(caught.value) == (
        f"expected format 2, which din-infer {din_infer.__version__} reads, got 3 - at"
        f" `{folder / 'job.json'}: format`. {UPGRADE} Or: Give --overwrite to begin"
        " anew."
    )


def test_newer_checkpoints_say_what_to_install(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from din_converter import load
    from din_converter.run import RunFolder

    path = tmp_path / "m.pt"
    torch.save({"format": 2, "parts": {}}, path)
    known = f"format 1, which din-infer {din_infer.__version__} reads"
    with pytest.raises(din_infer.ModelError) as caught:
        load(path)
    wanted = f"expected {known}, got 2 - at `{path}: format`. {UPGRADE}"
    assert str(caught.value) == wanted
    old = torch.load(FOLDER / "checkpoint-1.pt", weights_only=True)
    spec = json.loads(old["spec"])
    spec["model"]["gates"] = 3
    torch.save({**old, "spec": json.dumps(spec)}, path)
    with pytest.raises(din_infer.ModelError) as caught:
        load(path)
    assert caught.value.fix == ""
    newer = {"versions": {"din-infer": "999.0.0"}}
    torch.save({**old, "spec": json.dumps(spec), **newer}, path)
    with pytest.raises(din_infer.ModelError) as caught:
        load(path)
    assert (caught.value.got, caught.value.column) == ("'gates'", "model")
    assert caught.value.fix == written_by_newer("999.0.0")

    run = tmp_path / "run"
    run.mkdir()
    torch.save({"format": 2, "parts": {}}, run / "checkpoint.pt")
    with pytest.raises(InputError) as refused:
        RunFolder(run, {}).begin(resume=True)
    assert str(refused.value) == (
        f"expected {known}, got 2 - at `{run / 'checkpoint.pt'}: format`. {UPGRADE} Or:"
        " Give --overwrite, without --resume, to start another one."
    )


# ------------------------------------------------------------------------ deprecation


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        ("Predictor.score_all", "Predictor.score"),  # a function
        ("pad(length=..)", "pad(max_len=..)"),  # a parameter
        ("model.attention.units", "model.attention.hidden"),  # a key of a spec
        ("--shards", "INPUT"),  # an option
    ],
)
def test_what_is_deprecated_names_its_replacement(what: str, instead: str) -> None:
    def old() -> None:
        warn(what, "0.2", instead)

    with pytest.warns(DinDeprecationWarning) as caught:
        old()
    assert str(caught[0].message) == (
        f"`{what}` is deprecated since din-infer 0.2 and will go. Use `{instead}`."
    )
    assert caught[0].filename == __file__


def test_the_former_name_of_encoded_requests_warns_and_works() -> None:
    with pytest.warns(DinDeprecationWarning) as caught:
        found = din_infer.EncodedRequest
    assert found is din_infer.EncodedRequests
    assert str(caught[0].message) == (
        "`din_infer.EncodedRequest` is deprecated since din-infer 0.1 and will go. Use"
        " `din_infer.EncodedRequests`."
    )
    assert caught[0].filename == __file__
    with pytest.raises(AttributeError, match="module 'din_infer' has no attribute 'X'"):
        din_infer.X  # noqa: B018


def test_nothing_deprecated_is_used_or_listed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in din_infer.__all__:
            getattr(din_infer, name)


def test_users_see_the_warning_by_default() -> None:
    said = "from din_infer import EncodedRequest"
    done = subprocess.run(
        [sys.executable, "-c", f"exec({said!r}, {{'__name__': 'a_library'}})"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "DinDeprecationWarning: `din_infer.EncodedRequest` is" in done.stderr


# ------------------------------------------------------------------------------ locks


HOLD = """
import sys
from din_infer.file_locks import ByteLocks
locks = ByteLocks(sys.argv[1])
taken = [locks.take(1 << 56), locks.take(7)]
locks.share(9)
print(*taken, flush=True)
sys.stdin.readline()
locks.release(7)
locks.share(1 << 56)
print("shared", flush=True)
sys.stdin.readline()
"""


def test_bytes_are_locked_against_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdin is not None
    with other:
        assert other.stdout.readline() == "True True\n"
        locks = ByteLocks(path)
        assert not locks.take(1 << 56)
        assert not locks.take(7)
        assert locks.take(8)
        assert not locks.take(9)
        locks.share(9)
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "shared\n"
        assert locks.take(7)
        assert not locks.take(1 << 56)
        locks.share(1 << 56)
        other.kill()
    assert locks.take(1 << 56, wait=True)
    assert locks.take(9)
    with locks.taken(3):
        pass
    locks.close()
    locks.close()

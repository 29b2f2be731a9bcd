"""The release script finds each thing that is not ready, and tags only what is."""

import datetime
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
TODAY = datetime.date(2026, 2, 3)
FILES = {
    "pyproject.toml": '[project]\ngpu = ["din-infer-cuda==0.2.0; sys_platform"]\n',
    "din_infer/version.py": '__version__ = "0.2.0"\n',
    "CITATION.cff": "cff-version: 1.2.0\nversion: 0.2.0\n",
    "CHANGELOG.md": f"# Changelog\n\n## 0.2.0 - {TODAY}\n\n- This.\n\n## 0.1.0 - x\n",
    "docs/versions.md": "| 0.1 | 1 |\n| 0.2 | 1 |\n",
    "din_infer/model_format.py": 'FORMAT = "1"\n',
    "tests/frozen/all-1.onnx": "model",
}


def load() -> ModuleType:
    path = ROOT / ".ci" / "release.py"
    spec = importlib.util.spec_from_file_location("release", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load()


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@x")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def commit(folder: Path, **changes: str) -> None:
    for name, text in changes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "change")
    git(folder, "push", "--quiet", "origin", "HEAD:main")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that is ready for 0.2.0; building is left out."""
    monkeypatch.setattr(release, "date_of_today", lambda: TODAY)
    for kind in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{kind}_NAME", "n")
        monkeypatch.setenv(f"GIT_{kind}_EMAIL", "e@x")
    git(tmp_path, "init", "--quiet", "--bare", "origin")
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "remote", "add", "origin", str(tmp_path / "origin"))
    commit(folder, **FILES)
    monkeypatch.setattr(release, "build", lambda *_: None)
    return folder


def faults(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    code = release.main(["0.2.0", "--ci-seen", *more], folder)
    said = capsys.readouterr().out.splitlines()
    found = [line[7:] for line in said if line.startswith("FAULT")]
    assert bool(found) == (code == 1)
    return found


def test_what_is_ready_is_tagged_when_asked_and_not_before(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faults(checkout, capsys) == []
    assert git(checkout, "tag") == ""
    assert faults(checkout, capsys, "--tag") == []
    assert git(checkout, "tag") == "v0.2.0\n"
    assert faults(checkout, capsys, "--tag") == [
        "tag: expected a version that has no tag, got v0.2.0 - at `git tag`"
    ]
    assert git(checkout, "ls-remote", "--tags", "origin") == ""


CHANGES = {
    "versions: expected the version 0.2.0, got 0.1.0 - at `CITATION.cff:1`": {
        "CITATION.cff": "version: 0.1.0\n"
    },
    "versions: expected the version 0.2.0, got 0.1.0 - at `pyproject.toml:2`": {
        "pyproject.toml": '[project]\ngpu = ["din-infer-cuda==0.1.0; sys_platform"]\n'
    },
    "versions: expected a version, got none - at `pyproject.toml`": {
        "pyproject.toml": '[project]\ngpu = ["din-infer-cuda>=0.2.0"]\n'
    },
    "versions: expected a version, got none - at `din_infer/version.py`": {
        "din_infer/version.py": "from elsewhere import __version__\n"
    },
    "versions: expected a version, got none - at `CITATION.cff`": {
        "CITATION.cff": "cff-version: 1.2.0\n"
    },
    "versions: expected the version 0.2.0, got 0.3.0 - at `din_infer/version.py:1`": {
        "din_infer/version.py": '__version__ = "0.3.0"\n'
    },
    "versions: expected a line about 0.2, got none - at `docs/versions.md`": {
        "docs/versions.md": "| 0.1 |\n| 10.2 |\n| 0.20 |\n"
    },
    "changelog: expected lines of what changed, got none - at"
    f" `CHANGELOG.md: 0.2.0 - {TODAY}`": {
        "CHANGELOG.md": f"# C\n\n## 0.2.0 - {TODAY}\n\n## 0.1.0\n\n- This.\n"
    },
    f'changelog: expected a first section "## 0.2.0 - {TODAY}", got 0.2.0, unreleased'
    " - at `CHANGELOG.md`": {
        "CHANGELOG.md": "# C\n\n## 0.2.0, unreleased\n\n- This.\n"
    },
    "frozen files: expected frozen models *-2.onnx, got none - at `tests/frozen`": {
        "din_infer/model_format.py": 'FORMAT = "2"\n'
    },
}


@pytest.mark.parametrize("fault", CHANGES)
def test_what_is_not_ready_is_named(
    checkout: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    commit(checkout, **CHANGES[fault])
    assert faults(checkout, capsys, "--tag") == [fault]
    assert git(checkout, "tag") == ""


def test_only_what_is_committed_and_pushed_is_released(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "more").write_text("x")
    assert faults(checkout, capsys) == [
        "checkout: expected a clean checkout, got ['?? more'] - at `git status`"
    ]
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "more")
    here, there = (git(checkout, "rev-parse", f"HEAD{n}")[:8] for n in ("", "~"))
    assert faults(checkout, capsys) == [
        f"branch: expected HEAD pushed to origin ({here}), got {there} - at `main`"
    ]
    git(checkout, "checkout", "--quiet", "-b", "other")
    assert faults(checkout, capsys) == [
        "branch: expected the branch main, got other - at `git branch`"
    ]


def test_ci_is_asked_about_this_commit(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gh"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def said(*conclusions: str) -> str:
        runs = [{"name": f"w{k}", "conclusion": c} for k, c in enumerate(conclusions)]
        commit = git(checkout, "rev-parse", "HEAD").strip()
        asked = f"run list --commit {commit} --json name,conclusion"
        script = f"[ \"$*\" = '{asked}' ] && echo '{json.dumps(runs)}'"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        try:
            release.check_ci(checkout)
        except release.Fault as fault:
            return str(fault)
        return ""

    assert said("success", "skipped") == ""
    assert said("success", "failure") == "expected a success, got failure - at `CI: w1`"
    assert said("") == "expected a success, got one that runs - at `CI: w0`"
    assert said().startswith("expected runs of CI, got none - at")
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(release.Fault, match="gh, to ask what CI says, got none"):
        release.check_ci(checkout)


def test_a_version_has_three_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        release.main(["v0.2"])
    assert "expected a version such as 0.2.0, got 'v0.2'" in capsys.readouterr().err


def test_the_versions_of_this_checkout_agree() -> None:
    found = release.versions(ROOT)
    assert [place.partition(":")[0] for place in found] == [
        "pyproject.toml",
        "din_infer/version.py",
        "CITATION.cff",
    ]
    assert len(set(found.values())) == 1, found

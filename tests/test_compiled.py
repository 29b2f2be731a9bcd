import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests import compiled as module
from tests.compiled import WEEK, compiled


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "FOLDER", tmp_path / "made")
    module._make.cache_clear()
    return tmp_path


@pytest.fixture
def sources(folder: Path) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    (folder / "one.h").write_text("enum { ONE = 1 };\n")
    (folder / "one.c").write_text('#include "one.h"\nint one(void) { return ONE; }\n')
    (folder / "two.c").write_text("int two(void) { return 2; }\n")
    return folder


def make(sources: Path, *flags: str) -> tuple[Path, set[str]]:
    """The library of both files, as another run makes it, and what that has added."""
    made = sources / "made"
    before = {path.name for path in made.glob("*")}
    module._make.cache_clear()
    commands = [
        ["cc", *flags, "-fPIC", "-c", str(sources / f"{name}.c")]
        for name in ("one", "two")
    ]
    library = compiled("both", commands, ["cc"])
    return library, {path.name for path in made.glob("*")} - before


def test_a_later_run_compiles_nothing(sources: Path) -> None:
    library, _ = make(sources)
    assert make(sources) == (library, set())


def test_only_what_has_changed_is_compiled(sources: Path) -> None:
    library, first = make(sources)
    assert sorted(name.rpartition("-")[0] for name in first) == [
        "",
        "both",
        "one",
        "two",
    ]
    (sources / "one.h").write_text("enum { ONE = 11 };\n")
    changed, added = make(sources)
    assert changed != library
    assert sorted(name.rpartition("-")[0] for name in added) == ["both", "one"]
    _, added = make(sources, "-O1")
    assert len(added) == 3


def test_another_compiler_compiles_anew(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(sources)
    monkeypatch.setattr(module, "_version", lambda _: "another")
    _, added = make(sources)
    assert len(added) == 3


def test_what_a_killed_run_has_half_written_is_not_used(sources: Path) -> None:
    library, _ = make(sources)
    library.rename(library.with_suffix(".new"))
    library.with_suffix(".new").write_bytes(b"half")
    assert make(sources) == (library, {library.name})
    assert subprocess.run(["nm", str(library)], capture_output=True).returncode == 0


def test_what_no_run_has_used_for_a_week_is_removed(sources: Path) -> None:
    library, _ = make(sources)
    old = time.time() - WEEK - 60
    for path in library.parent.iterdir():
        os.utime(path, (old, old))
    (sources / "two.c").write_text("int two(void) { return 22; }\n")
    _, added = make(sources)
    left = {path.name for path in library.parent.iterdir()}
    assert library.name not in left
    assert added < left
    assert sum(name.startswith("one-") for name in left) == 1  # used again
    assert sum(name.startswith("two-") for name in left) == 1


def test_what_does_not_compile_is_compiled_once(folder: Path) -> None:
    calls = folder / "calls"
    command = ["sh", "-c", f"echo call >> {calls}; echo no such type >&2; exit 1"]
    for _ in range(3):
        with pytest.raises(pytest.fail.Exception) as caught:
            compiled("broken", [command], ["true"])
        assert str(caught.value) == "broken does not compile:\nno such type\n"
    assert calls.read_text() == "call\n"

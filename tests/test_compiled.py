import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiled import FOLDER, compiled

ROOT = Path(__file__).resolve().parents[1]


def test_what_does_not_compile_is_compiled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    calls = tmp_path / "calls"
    command = ["sh", "-c", f"echo call >> {calls}; echo no such type >&2; exit 1"]
    for _ in range(3):
        with pytest.raises(pytest.fail.Exception) as caught:
            compiled("broken", [command], ["true"])
        assert str(caught.value) == "broken does not compile:\nno such type\n"
    assert calls.read_text() == "call\n"


def test_a_run_leaves_no_folder_of_libraries(tmp_path: Path) -> None:
    test = tmp_path / "test_one.py"
    test.write_text(
        "import os\n"
        "from pathlib import Path\n"
        "def test_one():\n"
        "    folder = Path(os.environ['DIN_TEST_COMPILED'])\n"
        "    (folder / 'made.so').touch()\n"
        f"    Path({str(tmp_path / 'folder')!r}).write_text(str(folder))\n"
    )
    conftest = ROOT / "tests" / "conftest.py"
    (tmp_path / "conftest.py").write_text(conftest.read_text())
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert not Path((tmp_path / "folder").read_text()).exists()

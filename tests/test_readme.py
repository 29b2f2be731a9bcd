import re
import sys
from pathlib import Path

import pytest

from din_infer import FeatureSpec

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "examples"))
import demo  # noqa: E402


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_the_lines_of_the_readme_run_after_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert demo.main(["--out", "demo", "--rows", "3000", "--epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert "rows/s" in said
    assert f"everything is in {tmp_path}/demo" in said
    names: dict[str, object] = {}
    code = blocks("python")
    assert len(code) == 4
    for block in code:
        exec(compile(block, "README.md", "exec"), names)
    assert len(names["scores"]) == 300  # type: ignore[arg-type]
    assert "goods_id" in capsys.readouterr().out


def test_the_spec_of_the_readme_is_one(tmp_path: Path) -> None:
    (block,) = blocks("toml")
    (tmp_path / "features.toml").write_text(block)
    assert FeatureSpec.load(tmp_path / "features.toml").columns == (
        "goods_id",
        "hist_goods_id",
    )


def test_links_lead_somewhere() -> None:
    for page in (
        "README.md",
        "docs/spec.md",
        "docs/peers.md",
        "docs/model.md",
        "docs/results.md",
    ):
        text = (ROOT / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"

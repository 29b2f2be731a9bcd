import argparse
import re
import shlex
from pathlib import Path

import pytest

from din_converter.cli import convert_main, train_main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LIBRARIES = {"deepctr-torch", "torch-rechub", "recbole", "fuxictr"}
MAINS = {"din-convert": convert_main, "din-train": train_main}


def name_of(page: object) -> str:
    return page.name if isinstance(page, Path) else str(page)


def commands(page: Path) -> list[list[str]]:
    """Every command of a page's shell blocks that one of our parsers reads."""
    found = []
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in MAINS:
                found.append(words)
    return found


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a command as the program does; what it then runs is left out."""

    def nothing(*_: object) -> int:
        return 0

    monkeypatch.setattr("din_converter.cli.command_errors", nothing)
    assert MAINS[words[0]](words[1:]) == 0


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_is_one(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in commands(page):
        try:
            parsed(words, monkeypatch)
        except SystemExit:
            pytest.fail(f"{page.name}: {' '.join(words)}")


def test_a_wrong_command_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        parsed(["din-convert", "m.pt", "--from", "keras"], monkeypatch)


def test_every_library_has_a_page_with_its_command() -> None:
    for library in LIBRARIES:
        lines = commands(ROOT / "docs" / f"{library}.md")
        assert lines
        for words in lines:
            assert words[words.index("--from") + 1] == library


def options(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of all options of the converter's programs."""
    found: set[str] = set()
    add = argparse._ActionsContainer.add_argument

    def noted(self: object, *names: str, **given: object) -> object:
        found.update(n for n in names if n.startswith("--"))
        return add(self, *names, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(argparse._ActionsContainer, "add_argument", noted)
    for main in MAINS.values():
        with pytest.raises(SystemExit):
            main(["--nothing"])
    return found


def test_every_option_that_a_librarys_page_names_exists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = options(monkeypatch)
    capsys.readouterr()
    for name in (*LIBRARIES, "torch-modules", "peers"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        assert named <= known, f"{name}.md: {sorted(named - known)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / link).exists(), link


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(
            r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")
        )
    }
    for page in PAGES[1:]:
        assert page in linked, page.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w.])/(?:home|tmp|root|work|usr)/", text)


@pytest.mark.parametrize("name", sorted(LIBRARIES | {"torch-modules"}))
def test_the_python_of_a_page_compiles(name: str) -> None:
    text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, f"{name}.md", "exec")

"""The documentation: every block of code runs, every link leads somewhere.

docs/start.md is run once, and its folder is what the other pages find.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from din_converter import build_model, convert, save
from din_infer import FeatureSpec
from tests import pages
from tests.pages import ROOT, Block, Runner, blocks, command_lines, parse

sys.path += [str(ROOT / "docs"), str(ROOT / "examples")]
from build_site import Linker, PageError, anchors, gather, public_names
from click_logs import generate

START = ROOT / "docs/start.md"
TEXTS = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LIBRARIES = {"deepctr-torch", "torch-rechub", "recbole", "fuxictr"}


def name_of(page: object) -> str:
    return page.name if isinstance(page, Path) else str(page)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which docs/start.md has been followed."""
    folder = tmp_path_factory.mktemp("start")
    runner = Runner(folder, {"__name__": "__main__"}, {})
    for block in blocks(START):
        runner.run(block)
    return folder


@pytest.fixture(scope="module")
def prepared(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages read: the model of docs/start.md, few rows, a demo's model."""
    folder = tmp_path_factory.mktemp("prepared")
    for name in ("features.toml", "model.pt", "model.onnx"):
        shutil.copy(start / name, folder)
    rows = pq.read_table(start / "train.parquet").slice(0, 1200)
    for name in ("logs", "shards", "models", "demo"):
        (folder / name).mkdir()
    for place in ("train", "logs/day", "shards/part-0"):
        pq.write_table(rows, folder / f"{place}.parquet")
    for place in ("valid", "events"):
        pq.write_table(rows.slice(0, 400), folder / f"{place}.parquet")
    log = rows.select(["user_id", "time", "goods_id", "cate_id"])
    log = log.set_column(1, "time", log["time"].cast(pa.timestamp("s")))
    pq.write_table(log, folder / "behaviors.parquet")
    pa.csv.write_csv(log, folder / "events.csv")
    impressions = log.append_column("impression_id", [range(len(log))])
    pq.write_table(impressions, folder / "impressions.parquet")
    shutil.copy(start / "model.onnx", folder / "models/din.onnx")
    (folder / "shop_of_goods.txt").write_text("1 2\n" * 900)
    generate.main(["--out", str(folder / "demo"), "--rows", "300"])
    spec = FeatureSpec.load(folder / "demo/features.toml")
    torch.manual_seed(0)
    save(build_model(spec), folder / "demo/din.pt")
    convert(folder / "demo/din.pt", folder / "demo/din.onnx", explain=True)
    return folder


class Attention(torch.nn.Module):
    """The module that docs/torch-modules.md converts."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(201, 8)
        self.unit = torch.nn.Sequential(
            torch.nn.Linear(32, 16), torch.nn.PReLU(), torch.nn.Linear(16, 1)
        )
        self.tower = torch.nn.Linear(16, 1)

    def forward(
        self, item: torch.Tensor, history: torch.Tensor, length: torch.Tensor
    ) -> torch.Tensor:
        q, k = self.table(item), self.table(history)
        near = q.unsqueeze(1).expand_as(k)
        weight = self.unit(torch.cat([near, k, near - k, near * k], -1))
        place = torch.arange(history.shape[1], device=history.device)
        weight = weight * (place < length.unsqueeze(1)).unsqueeze(2)
        interest = (weight * k).sum(1)
        return torch.sigmoid(self.tower(torch.cat([q, interest], -1))).squeeze(-1)


def names_for(page: str, folder: Path) -> dict[str, Any]:
    """What a page's Python finds without having made it."""
    if page == "loading.md":
        return {"model_bytes": (folder / "model.onnx").read_bytes()}
    if page == "torch-modules.md":
        torch.manual_seed(0)
        return {"torch": torch, "np": np, "module": Attention().eval()}
    if page == "model.md":
        users = ["a", "a", "b", "b"]
        given = {"labels": [1, 0, 1, 0], "scores": [0.9, 0.2, 0.4, 0.6], "users": users}
        return given | {"gauc_din": 0.7, "gauc_base": 0.6}
    return {}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of what a reader's Python would show, too
@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_every_block_runs_or_says_why_not(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = blocks(page)
    if page == START:
        request.getfixturevalue("start")
        return
    folder = tmp_path
    if any(b.language not in ("", "text") and b.mark != "not run" for b in found):
        folder = tmp_path / "here"
        shutil.copytree(request.getfixturevalue("prepared"), folder)
    if page.name == "README.md":  # which makes them
        for name in ("features.toml", "model.pt", "model.onnx"):
            (folder / name).unlink()
    runner = Runner(folder, names_for(page.name, folder), {})
    for block in found:
        runner.run(block)


def block(language: str, text: str, mark: str = "", said: str = "") -> Block:
    return Block("page.md", 1, language, text, mark, said)


WRONG = [
    (block("python", "1 / 0"), "division by zero"),
    (block("python", "1 +", "not run", "needs a card"), "invalid syntax"),
    (block("python", "1", "not run"), "says nothing"),
    (
        block("sh", "din-convert m.pt --from keras", "not run", "no file"),
        "--from keras",
    ),
    (block("sh", "din-verify nothing.onnx"), "din-verify nothing.onnx: 1"),
    (block("sh", 'pip install "din-infer[cloud]"'), "cloud"),
    (block("sh", "make coffee"), "coffee"),
    (block("sh", "python -m benchmarks.model --cards 3"), "--cards"),
    (block("sh", "pytest -m fast"), "fast"),
    (block("sh", "curl example.org"), "no way to run curl"),
    (block("toml", "[model]\ntypo = 1"), "typo"),
    (block("toml", "x = 1", "within", "behavior.fields"), "x"),
    (block("text", "5 rows", "output"), "not printed"),
    (block("text", "5 rows"), "no way to run 'text'"),
    (block("yaml", "a: 1"), "no way to run 'yaml'"),
    (block("", "import os"), "name the language"),
]


@pytest.mark.parametrize(("wrong", "why"), WRONG, ids=[why for _, why in WRONG])
def test_a_wrong_block_is_found(
    wrong: Block, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exception, match=re.escape(why)):
        Runner(tmp_path, {}, {}).run(wrong)
    capsys.readouterr()


def test_every_library_has_a_page_with_its_command() -> None:
    for library in LIBRARIES:
        shell = [b for b in blocks(ROOT / f"docs/{library}.md") if b.language == "sh"]
        lines = [words for b in shell for words in command_lines(b.text)]
        assert lines
        for words in lines:
            assert words[words.index("--from") + 1] == library


def options(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of all options of the programs."""
    found: set[str] = set()
    add = argparse._ActionsContainer.add_argument

    def noted(self: object, *names: str, **given: object) -> object:
        found.update(n for n in names if n.startswith("--"))
        return add(self, *names, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(argparse._ActionsContainer, "add_argument", noted)
    for main in pages.COMMANDS.values():
        with pytest.raises(SystemExit):
            main(["--nothing"])
    return found


def test_every_option_that_a_librarys_page_names_exists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = options(monkeypatch)
    capsys.readouterr()
    for name in (*LIBRARIES, "torch-modules", "peers", "start", "jobs"):
        text = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        assert named <= known, f"{name}.md: {sorted(named - known)}"


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    Linker().rewrite(page.read_text(encoding="utf-8"), page, page.name)


@pytest.mark.parametrize("link", ["gone.md", "docs/spec.md#gone", "#gone", "docs/x/"])
def test_a_dead_link_is_found(link: str) -> None:
    with pytest.raises(PageError):
        Linker().rewrite(f"see [this]({link})", ROOT / "README.md", "README.md")


def test_anchors_are_those_of_the_headings() -> None:
    text = "# A b\n```sh\n# no\n```\n## `x_y`, and [z](z.md): 1\n"
    assert anchors(text) == {"a-b", "x_y-and-z-1"}


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_a_page_names_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w.])/(?:home|tmp|root|work|usr)/", text)


def test_every_page_is_gathered_and_in_the_navigation(tmp_path: Path) -> None:
    gather(tmp_path / "docs")
    index = (tmp_path / "docs/index.md").read_text(encoding="utf-8")
    assert "never scores on the CPU" in index
    commands = (tmp_path / "docs/commands.md").read_text(encoding="utf-8")
    assert all(f"usage: {name} " in commands for name in pages.COMMANDS)


def test_public_names_are_read_without_an_import() -> None:
    assert "Predictor" in public_names("din_infer")
    assert "convert" in public_names("din_converter")


def test_a_wrong_command_would_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    parse(["din-convert", "m.pt", "--out", "m.onnx"])
    with pytest.raises(AssertionError):
        parse(["din-convert", "m.pt", "--from", "keras"])
    capsys.readouterr()

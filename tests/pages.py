"""Code blocks of the documentation, and how each is run.

A block is run by its language, unless a comment on the line above says something else:

    <!-- not run: why -->      only parsed, where its language can be
    <!-- file: name -->        written under this name; a spec is parsed, too
    <!-- output -->            what the block before it printed, apart from numbers
    <!-- within: section -->   lines of a spec's section, which the page names elsewhere

Blocks of a page share a folder and, those in Python, their names. A block without a
language is a drawing or a formula. Pages say which fences they have in Markdown alone:
```` ```sh ````, `python`, `toml`, `sql`, `text`.
"""

import contextlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb

from din_converter.cli import convert_main, train_main
from din_infer import FeatureSpec, cli, history_cli
from din_infer.init_cli import init_main

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+?)(?:: (?P<said>.*?))? -->\n)?"
    r"^(?P<fence>```+)(?P<language>\w*)\n(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)
MARKS = {"not run": True, "file": True, "output": False, "within": True}
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "din-convert": convert_main,
    "din-train": train_main,
    "din-score": cli.main,
    "din-explain": cli.explain_main,
    "din-inspect": cli.inspect_main,
    "din-verify": cli.verify_main,
    "din-init": init_main,
    "din-history": history_cli.main,
}
CODE = re.compile(r"^\s*(?:\$ |din-\w+ |pip |make |python3? |import |from \w+ import )")
NUMBER = re.compile(r"\b[0-9a-f]{32}\b|\d[\d.,]*(?:e[+-]?\d+)?")
# What a fragment of a spec is put into.
WHOLE = """
format = 1
[[user]]
name = "user_id"
dim = 4
encoder = { type = "hash", buckets = 10 }
[[candidate]]
name = "goods_id"
dim = 4
encoder = { type = "hash", buckets = 900 }
[[candidate]]
name = "cate_id"
dim = 32
encoder = { type = "hash", buckets = 10 }
[[behavior]]
name = "history"
max_len = 5
fields = { hist_goods_id = "goods_id" }
[[dense]]
name = "price"
side = "candidate"
dim = 1
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, and what the line above says."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    said: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Find the blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("fence")) + 1
        mark, said = match["mark"] or "", match["said"] or ""
        if mark not in MARKS:  # a comment of another kind
            mark = said = ""
        name = page.relative_to(ROOT).as_posix()
        found.append(Block(name, line, match["language"], match["text"], mark, said))
    return found


def command_lines(text: str) -> list[list[str]]:
    """Split a shell block into commands, each into words."""
    lines = (
        shlex.split(s, comments=True) for s in text.replace("\\\n", " ").splitlines()
    )
    return [words for words in lines if words]


class Runner:
    """Runs the blocks of one page in a folder.

    Parameters
    ----------
    folder : path
        With the files that the page's blocks read.
    names : dict
        What Python blocks find.
    places : dict
        Paths of the page, and where they are.
    """

    def __init__(
        self, folder: Path, names: dict[str, Any], places: dict[str, str]
    ) -> None:
        self.folder, self.names, self.places = folder, names, places
        self.printed = ""
        self._spec: dict[str, Any] = tomllib.loads(WHOLE)

    def run(self, block: Block) -> None:
        """Run a block; raises where it does not hold."""
        if MARKS.get(block.mark) and not block.said:
            raise AssertionError(f"{block}: `{block.mark}` says nothing")
        if block.mark == "not run":
            self._parse(block)
        elif block.mark == "output":
            assert masked(block.text) == masked(self.printed), f"{block}: not printed"
        elif block.mark == "within":
            self._fragment(block, f"[{block.said}]\n{block.text}")
        else:
            run = getattr(self, f"_{block.language or 'drawing'}", None)
            if run is None:
                raise AssertionError(f"{block}: no way to run {block.language!r}")
            with contextlib.chdir(self.folder):
                run(block)
            if block.mark == "file":
                (self.folder / block.said).write_text(block.text, encoding="utf-8")

    def _parse(self, block: Block) -> None:
        if block.language == "python":
            compile(block.text, str(block), "exec")
        elif block.language == "sh":
            for words in command_lines(block.text):
                if words[0] in COMMANDS:
                    parse(words)
                else:
                    known(words)

    def _drawing(self, block: Block) -> None:
        code = [line for line in block.text.splitlines() if CODE.match(line)]
        assert not code, f"{block}: name the language of {code[0]!r}"

    def _python(self, block: Block) -> None:
        text = self._placed(block.text)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(text, str(block), "exec"), self.names)
        self.printed = said.getvalue()

    def _sh(self, block: Block) -> None:
        said = io.StringIO()
        for words in command_lines(self._placed(block.text)):
            with contextlib.redirect_stdout(said):
                if words[0] in COMMANDS:
                    # torch's threads would spin: it is loaded, so that no policy helps
                    more = ["--threads", "1"] if words[0] == "din-train" else []
                    status = COMMANDS[words[0]](words[1:] + more)
                    assert status == 0, f"{block}: {shlex.join(words)}: {status}"
                elif words[0] == "python" and (self.folder / words[1]).is_file():
                    runpy.run_path(words[1])
                else:
                    known(words)
        self.printed = said.getvalue()

    def _toml(self, block: Block) -> None:
        if "format" in tomllib.loads(block.text) and "candidate" in block.text:
            FeatureSpec.from_dict(tomllib.loads(block.text), self.folder)
        else:
            self._fragment(block, block.text)

    def _fragment(self, block: Block, text: str) -> None:
        """Put a part of a spec in the place of its namesakes, and parse the whole."""
        if block.mark == "within":
            section, _, key = block.said.partition(".")
            self._spec[section][0][key] |= tomllib.loads(block.text)
        else:
            for section, value in tomllib.loads(text).items():
                if not isinstance(value, list):
                    self._spec[section] = value
                    continue
                mine = [part["name"] for part in value]
                rest = [p for p in self._spec.get(section, []) if p["name"] not in mine]
                self._spec[section] = rest + value
        FeatureSpec.from_dict(self._spec, self.folder)

    def _sql(self, block: Block) -> None:
        connection = duckdb.connect()
        for name in re.findall(r"FROM (\w+)", block.text):
            if (self.folder / f"{name}.parquet").is_file():
                path = self.folder / f"{name}.parquet"
                connection.execute(f"CREATE OR REPLACE VIEW {name} AS FROM '{path}'")
        assert connection.execute(block.text).fetchall(), f"{block}: no rows"

    def _placed(self, text: str) -> str:
        for path, place in self.places.items():
            text = text.replace(path, place)
        return text


def masked(text: str) -> list[str]:
    """Leave out of an output what differs between machines and runs."""
    lines = (
        re.sub(r"worst batch.*", "worst batch", line) for line in text.splitlines()
    )
    return [" ".join(NUMBER.sub("0", line).split()) for line in lines if line.strip()]


def parse(words: list[str]) -> None:
    """Parse a command of ours as the program does, and run nothing."""
    home = sys.modules[COMMANDS[words[0]].__module__]
    before = home.command_errors
    home.command_errors = lambda *_: 0  # type: ignore[attr-defined]
    try:
        status = COMMANDS[words[0]](words[1:])
    except SystemExit:
        status = 2
    finally:
        home.command_errors = before  # type: ignore[attr-defined]
    assert status == 0, shlex.join(words)


def known(words: list[str]) -> None:
    """Check a command that is not run: that what it names is there."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    name, rest = Path(words[0]).name, words[1:]
    if name == "pip":
        assert rest[0] in ("install", "wheel", "download")
        for wanted in rest[1:]:
            extras = re.match(r"(?:din-infer|\.)\[([\w,]+)\]$", wanted)
            if extras:
                unknown = set(extras[1].split(",")) - set(
                    PROJECT["optional-dependencies"]
                )
                assert not unknown, f"{wanted}: {unknown}"
    elif name == "git":
        assert rest[0] == "clone"
    elif name == "make":
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (w for w in rest if "=" not in w):
            assert re.search(rf"^{target}:", targets, re.MULTILINE), target
    elif name.startswith("python") and rest[0] == "-m":
        file = ROOT / f"{rest[1].replace('.', '/')}.py"
        said = file.read_text(encoding="utf-8")
        for option in (w for w in rest if w.startswith("--")):
            assert f'"{option}"' in said, f"{file.name}: {option}"
    elif name.startswith("python"):
        assert (ROOT / rest[0]).is_file(), rest[0]
    elif name in ("nvcc", "nvdisasm"):
        sources = [word for word in rest if word.endswith(".cu")]
        assert all((ROOT / source).is_file() for source in sources), sources
    elif name == "docker":  # an image, and arguments of its din-score
        image = next(w for w in rest if w in ("din-infer", "din-infer-gpu"))
        parse(["din-score", *rest[rest.index(image) + 1 :]])
    elif name == "pytest":
        marks = [m for flag, m in pairwise(rest) if flag == "-m"]
        said = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert all(f'"{mark}:' in said for mark in marks), rest
    else:
        assert (ROOT / words[0]).is_file(), f"no way to run {shlex.join(words)}"

"""Build the documentation's site, strictly: `make docs`.

  python docs/build_site.py        writes build/site

The site generator reads one folder and knows no hooks, so the pages are gathered in
build/docs first: those of docs/, those of the root, printed tables of benchmarks, the
commands' help, and a page of API reference for each group of modules. Links are
rewritten on the way: to a page where the target is one, else to the file in the
repository, where pyproject.toml names its address. Links of a page that is not on the
site, as the README, are checked here; references and docstrings by the generator.
"""

import ast
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
STAGED = ROOT / "build/docs"
SITE = ROOT / "build/site"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:)([^)#\s]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
INCLUDE = re.compile(r"<!-- include -->\n\[[^\]]*\]\(([^)#]+)#([^)]+)\)\n")
# What a page loads by itself, not what a reader may follow.
LOADED = re.compile(
    r'<(?:script|img|iframe|link rel="?(?:style|pre)[^>]*)[^>]*https?://'
)

# Pages of reference: title, text, and modules, all of whose `__all__` is shown.
REFERENCE = {
    "predictor": ("Predictor and errors", "din_infer", "Everything in `din_infer`."),
    "metrics": ("Metrics", "din_infer.metrics", "Of clicks and of probabilities."),
    "explain": ("Explanations", "din_infer.explain", "What `Predictor.explain` gives."),
    "files": (
        "Jobs on files",
        "din_infer.jobs.files",
        "`din-score` from Python. How a job works: [Score files](../jobs.md).",
    ),
    "history": (
        "Histories",
        "din_infer.jobs.history",
        "`din-history` from Python. What it does: [From raw events](../history.md).",
    ),
    "inspect": (
        "Inspection",
        "din_infer.jobs.inspect",
        "`din-inspect` from Python.",
    ),
    "ray": ("Ray", "din_infer.jobs.ray", "How to run it: [Engines](../engines.md)."),
    "spark": ("Spark", "din_infer.jobs.spark", "See [Engines](../engines.md)."),
    "mlflow": ("MLflow", "din_infer.jobs.mlflow", "See [Engines](../engines.md)."),
    "session": (
        "Native operators",
        "din_infer.session",
        "For a session of your own: [Native operators](../native_operators.md).",
    ),
    "converter": (
        "Converter and torch modules",
        "din_converter",
        "Needs the `convert` extra.",
    ),
    "training": ("Training", "din_converter.train", "`din-train` from Python."),
}
ROOT_PAGES = (
    "ARCHITECTURE",
    "CHANGELOG",
    "CONTRIBUTING",
    "SECURITY",
    "CODE_OF_CONDUCT",
)
OTHER_PLACES = {"SECURITY": "reporting.md"}  # docs/security.md is the site's page
MODULES = ("metrics",)  # public in `din_infer`, each with a page of its own
COMMANDS = (
    "din-history",
    "din-inspect",
    "din-train",
    "din-convert",
    "din-score",
    "din-explain",
    "din-verify",
    "din-init",
)


class PageError(Exception):
    """A page that cannot be published as it stands."""


def public_names(module: str) -> list[str]:
    """Read a module's `__all__` without importing it."""
    base = ROOT.joinpath(*module.split("."))
    if module.startswith("din_converter"):
        base = ROOT.joinpath("converter", *module.split("."))
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise PageError(f"expected `__all__`, got none - at `{file.relative_to(ROOT)}`")


def pages() -> dict[Path, str]:
    """Name every file that the site has, and its place there."""
    found = {
        ROOT / f"{name}.md": OTHER_PLACES.get(name, f"{name.lower()}.md")
        for name in ROOT_PAGES
    }
    found |= {
        p: f"measured/{p.name}" for p in (ROOT / "benchmarks/results").glob("*.md")
    }
    for path in (ROOT / "docs").rglob("*"):
        if path.suffix in (".md", ".png", ".svg", ".css"):
            found[path] = path.relative_to(ROOT / "docs").as_posix()
    return found


def source_address() -> str | None:
    """Find the address of the repository's files; None where none is named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    urls = {k.lower(): v for k, v in project["project"].get("urls", {}).items()}
    found = urls.get("source") or urls.get("repository")
    return f"{found.rstrip('/').removesuffix('.git')}/blob/main" if found else None


class Linker:
    """Rewrites links of pages to where their targets are on the site."""

    def __init__(self) -> None:
        self.places = {p: name for p, name in pages().items() if p.exists()}
        self._anchors: dict[Path, set[str]] = {}
        self._titles = {
            p: HEADING.findall(p.read_text(encoding="utf-8"))[0].replace("`", "")
            for p in self.places
            if p.suffix == ".md"
        }
        self.source = source_address()

    def rewrite(self, text: str, page: Path, place: str) -> str:
        """Rewrite the links of `page`, of which `text` is to stand at `place`."""

        def moved(found: re.Match[str]) -> str:
            mark, words, link, anchor = found.groups(default="")
            target = (page.parent / link).resolve() if link else page
            if not target.exists():
                raise PageError(f"expected a file, got {link} - at `{page.name}`")
            if anchor and anchor[1:] not in self.anchors(target):
                where = f"{link}{anchor}"
                raise PageError(f"expected a heading, got {where} - at `{page.name}`")
            if not link:
                return found[0]
            up = "../" * place.count("/")
            if target in self.places:
                if Path(words).name == target.name:  # for readers, not for files
                    words = self._titles[target]
                return f"{mark}[{words}]({up}{self.places[target]}{anchor})"
            if target == ROOT / "README.md":
                return f"{mark}[{words}]({up}index.md)"
            inside = target.relative_to(ROOT).as_posix()
            return f"[{words}]({self.source}/{inside})" if self.source else words

        parts = FENCE.split(text)
        parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
        return "".join(parts)

    def anchors(self, page: Path) -> set[str]:
        """Return the anchors of a page's headings; reads each page once."""
        if page not in self._anchors:
            self._anchors[page] = anchors(page.read_text(encoding="utf-8"))
        return self._anchors[page]


def slug(title: str) -> str:
    """Make the anchor of a heading."""
    title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip())


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    return {slug(title) for title in HEADING.findall(FENCE.sub("", text))}


def section(text: str, anchor: str) -> str:
    """Return what stands below the heading that has this anchor."""
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        if slug(title) == anchor:
            return body.strip() + "\n"
    raise PageError(f"expected a section #{anchor}, got none")


def help_of(command: str) -> str:
    """Run a command's `--help` here; it imports neither torch nor ONNX Runtime."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, name = scripts["project"]["scripts"][command].partition(":")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        getattr(__import__(module, fromlist=[name]), name)(["--help"])
    return said.getvalue()


def commands_page() -> str:
    """Write the page of the commands: what each says of itself."""
    os.environ |= {"COLUMNS": "88", "NO_COLOR": "1"}
    what = "The text of each command's `--help`, in the order in which they are used."
    lines = ["# Commands", "", what, ""]
    for command in COMMANDS:
        lines += [f"## {command}", "", "```text", help_of(command).rstrip(), "```", ""]
    return "\n".join(lines)


def reference_pages() -> Iterator[tuple[str, str]]:
    """Write a page for each entry of `REFERENCE`."""
    for name, (title, module, text) in REFERENCE.items():
        lines = [f"# {title}", "", text, ""]
        names = [n for n in public_names(module) if n not in MODULES]
        for member in sorted(
            names, key=lambda n: (n.endswith("Error"), n != "Predictor")
        ):
            lines += [f"::: {module}.{member}", ""]
        yield f"reference/{name}.md", "\n".join(lines)


def gather(folder: Path) -> None:
    """Write all pages into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    linker = Linker()
    written = {"commands.md": commands_page(), **dict(reference_pages())}
    for path, place in linker.places.items():
        if path.suffix != ".md":
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / place)
            continue
        text, *included = INCLUDE.split(path.read_text(encoding="utf-8"))
        whole = linker.rewrite(text, path, place)
        for name, anchor, text in zip(*[iter(included)] * 3, strict=True):
            other = (path.parent / name).resolve()
            body = section(other.read_text(encoding="utf-8"), anchor)
            whole += linker.rewrite(body, other, place)
            whole += linker.rewrite(text, path, place)
        written[place] = whole
    for place, text in written.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")
    readme = ROOT / "README.md"
    linker.rewrite(readme.read_text(encoding="utf-8"), readme, "README.md")
    check_nav({p for p in written if not p.startswith("measured/")})


def check_nav(written: set[str]) -> None:
    """Refuse a page that the navigation lacks, and an entry without a page."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def named(nav: object) -> Iterator[str]:
        if isinstance(nav, str):
            yield nav
        elif isinstance(nav, dict):
            for entry in nav.values():
                yield from named(entry)
        elif isinstance(nav, list):
            for entry in nav:
                yield from named(entry)

    listed = set(named(config["nav"]))
    for missing, where in ((written - listed, "nav"), (listed - written, "docs")):
        if missing:
            raise PageError(f"expected {sorted(missing)}, got none - at `{where}`")


def check_site() -> None:
    """Refuse a site that loads anything from elsewhere or lacks a public name."""
    known = ""
    for page in SITE.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        if found := LOADED.search(text):
            where = page.relative_to(SITE)
            raise PageError(f"expected no other host, got {found[0]} - at `{where}`")
        if "reference" in page.parts:
            known += text
    for _, module, _ in REFERENCE.values():
        for name in public_names(module):
            if f'id="{module}.{name}"' not in known and name not in MODULES:
                raise PageError(f"expected {module}.{name}, got none - at `reference/`")


def main() -> int:
    """Build the site; returns the exit status."""
    try:
        gather(STAGED)
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
        status = subprocess.run(command, cwd=ROOT).returncode
        if status == 0:
            check_site()
    except PageError as error:
        print(f"docs: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())

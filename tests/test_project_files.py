"""Files about the project itself: addresses, metadata, forms, and what pages name."""

import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import setuptools
import yaml

from din_infer import FeatureSpec, __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
SOURCE = PROJECT["urls"]["Source"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ----------------------------------------------------------------- on a package index


@pytest.fixture(scope="module")
def long_description() -> str:
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **settings: given.update(settings))
        patch.setattr("Cython.Build.cythonize", lambda *_, **__: [])
        runpy.run_path("setup.py")
    return str(given["long_description"])


def test_a_package_index_can_follow_every_link(long_description: str) -> None:
    links = re.findall(r"\]\(([^)]*)\)", long_description)
    assert len(links) > 10
    assert not [link for link in links if not link.startswith("https://")]
    tag = f"v{__version__}"
    assert f"]({SOURCE}/raw/{tag}/docs/attention.png)" in long_description
    assert f"]({SOURCE}/blob/{tag}/docs/cuda.md#the-kernels)" in long_description


# ---------------------------------------------------------------- addresses, versions


PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("Dockerfile*"),
    *ROOT.glob(".github/**/*.*"),
    ROOT / "CITATION.cff",
    ROOT / "pyproject.toml",
]


def test_the_project_has_one_address() -> None:
    named = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named |= set(re.findall(r"https://github\.com/[\w.-]+/din-infer\b", text))
    assert named == {SOURCE}
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == __version__
    assert cited["repository-code"] == SOURCE
    assert cited["license"] == PROJECT["license"]


# --------------------------------------------------------------------- forms on GitHub


FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
FIELDS = {"input", "textarea", "dropdown", "checkboxes"}
KEYS = {
    "markdown": {"value"},
    "input": {"label", "description", "placeholder", "value"},
    "textarea": {"label", "description", "placeholder", "value", "render"},
    "dropdown": {"label", "description", "multiple", "options", "default"},
    "checkboxes": {"label", "description", "options"},
}


def check_form(form: dict[str, Any]) -> None:
    """Hold a form to GitHub's rules: one that breaks them is not shown to anybody."""
    assert form.keys() <= {
        "name",
        "description",
        "title",
        "labels",
        "assignees",
        "body",
    }
    assert form["name"]
    assert form["description"]
    fields = [part for part in form["body"] if part["type"] in FIELDS]
    assert fields
    for part in form["body"]:
        assert part.keys() <= {"type", "id", "attributes", "validations"}
        assert part["attributes"].keys() <= KEYS[part["type"]], part
        assert part.get("validations", {}).keys() <= {"required"}
        if part["type"] == "markdown":
            assert part["attributes"]["value"]
            assert "id" not in part
    for key in ("id", "label"):
        given = [f.get(key) or f["attributes"].get(key) for f in fields]
        assert len(set(given)) == len(given)
        assert all(given)
    for part in fields:
        assert re.fullmatch(r"[\w-]+", part["id"])
        options = part["attributes"].get("options", [])
        assert len({str(o) for o in options}) == len(options)
        is_dropdown = part["type"] == "dropdown"
        assert all(isinstance(o, str) == is_dropdown for o in options)
        assert bool(options) == (part["type"] in ("dropdown", "checkboxes"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_that_github_takes(path: Path) -> None:
    check_form(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_a_wrong_form_would_be_found() -> None:
    form = yaml.safe_load(FORMS[0].read_text(encoding="utf-8"))
    form["body"].append(form["body"][-1])
    with pytest.raises(AssertionError):
        check_form(form)


def test_every_form_of_a_fault_asks_for_the_environment() -> None:
    assert [path.stem for path in FORMS] == ["bug", "feature", "wrong-score"]
    for name in ("bug", "wrong-score"):
        text = read(f".github/ISSUE_TEMPLATE/{name}.yml")
        assert "`python -m din_infer`" in text


# --------------------------------------------------------- what pages name is there


TESTS_OF_PROMISES = set(re.findall(r"\btest_\w+\.py", read("docs/reliability.md")))


def test_the_tests_that_hold_a_promise_are_there() -> None:
    assert len(TESTS_OF_PROMISES) > 20
    for name in TESTS_OF_PROMISES:
        assert (ROOT / "tests" / name).is_file(), name


SUFFIXES = r"py|pyx|pxd|pxi|pyi|c|h|cu|cuh|json|md"
SOURCES = [
    path
    for folder in ("din_infer", "converter", "csrc", "tests", "benchmarks", "docs")
    for path in (ROOT / folder).rglob("*.*")
    if re.fullmatch(rf"\.({SUFFIXES})", path.suffix) and path.name != "_kernels.c"
]
CHANGES = read("ARCHITECTURE.md").partition("\n## Where to change\n")[2]
RECIPES = CHANGES.split("\n### ")[1:]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.split("\n")[0])
def test_what_a_recipe_names_is_there(recipe: str) -> None:
    """Each file, and each name of code in one of the files of its recipe."""
    named = re.findall(r"`([^`]+)`", recipe)
    names = [n for n in named if re.fullmatch(rf"[\w./]+\.({SUFFIXES})", n)]
    assert names
    text = ""
    for name in names:
        found = [path for path in SOURCES if path.match(name)]
        assert found or (ROOT / name).is_file(), name
        text += "".join(path.read_text(encoding="utf-8") for path in found)
    for name in set(named) - set(names):
        if re.fullmatch(r"[A-Za-z_]+[\w.]*", name) and "..." not in name:
            last = name.rpartition(".")[2]
            assert re.search(rf"\b{last}\b", text), name


# ------------------------------------------------------------------------- fuzzing


def test_every_fuzz_target_is_there_with_small_seeds() -> None:
    targets = runpy.run_path(str(ROOT / "fuzz" / "run.py"))["TARGETS"]
    for name, target in targets.items():
        own = target.script or f"fuzz/{name}.c"
        for source in (own, *target.sources):
            made = source == "din_infer/_kernels.c"  # by the build
            assert made or (ROOT / source).is_file(), source
        seeds = [*(ROOT / "fuzz" / "seeds" / name).rglob("*")]
        sizes = [path.stat().st_size for path in seeds if path.is_file()]
        assert sum(sizes) <= 100_000, name


def test_the_specs_of_fuzzing_are_of_this_version() -> None:
    lines = read("fuzz/specs.jsonl").splitlines()
    assert len(lines) > 10
    for line in lines:
        spec = FeatureSpec.from_json(line)
        assert json.loads(spec.to_json()) == json.loads(line)

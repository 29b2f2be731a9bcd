"""Check that a version can be released, build it, and say what is left to do by hand.

    make release VERSION=0.2.0                 checks and builds; changes dist/ alone
    make release VERSION=0.2.0 RELEASE=--tag   the same, and makes the tag

Nothing is uploaded or pushed: pushing the tag starts the workflow that publishes.
"""

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BRANCH = "main"
# Where the version stands: in each of these files.
VERSIONS = (
    ("pyproject.toml", r'"din-infer-cuda==([^"; ]+)'),
    ("din_infer/version.py", r'^__version__ = "(.+)"$'),
    ("CITATION.cff", r"^version: (.+)$"),
)
# Of pages that name minor versions.
COMPATIBILITY = "docs/versions.md"
LEFT = """
left to do:
  git push origin v{version}
      the workflow "publish" builds, tests and uploads; approve it there
  pip install "din-infer[cpu]=={version}"
      in an empty environment; then the README's lines, and make image
  the release's page in the repository
      its text is the section of CHANGELOG.md
  a section "Unreleased" in CHANGELOG.md
"""


class Fault(Exception):
    """Why a version cannot be released."""


def expect(right: object, rule: str, got: object, place: str) -> None:
    """Raise a sentence as the package's errors are, unless it is right."""
    if not right:
        message = f"expected {rule}, got {got} - at `{place}`"
        raise Fault(message)


def run(root: Path, *command: str) -> str:
    """Run a command in the checkout; return what it prints."""
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    shown = " ".join(map(str, command[:3]))
    expect(done.returncode == 0, f"`{shown}` to work", said[-1:], str(root))
    return done.stdout.strip()


def check_tree(root: Path) -> None:
    """Expect nothing that is not committed."""
    changed = run(root, "git", "status", "--porcelain")
    expect(not changed, "a clean checkout", changed.splitlines()[:3], "git status")


def check_branch(root: Path) -> None:
    """Expect the main branch, pushed."""
    branch = run(root, "git", "branch", "--show-current")
    expect(branch == BRANCH, f"the branch {BRANCH}", branch or "none", "git branch")
    here = run(root, "git", "rev-parse", "HEAD")
    there = run(root, "git", "ls-remote", "origin", f"refs/heads/{BRANCH}")[:40]
    expect(here == there, f"HEAD pushed to origin ({here[:8]})", there[:8], BRANCH)


def check_tag(root: Path, version: str) -> None:
    """Expect no such version yet, here or there."""
    tag = f"v{version}"
    found = run(root, "git", "tag", "--list", tag)
    found += run(root, "git", "ls-remote", "--tags", "origin", tag)
    expect(not found, "a version that has no tag", tag, "git tag")


def versions(root: Path) -> dict[str, str]:
    """Find what each file takes for the version, by "file: line"."""
    found = {}
    for name, pattern in VERSIONS:
        text = (root / name).read_text(encoding="utf-8")
        matches = list(re.finditer(pattern, text, re.MULTILINE))
        expect(matches, "a version", "none", name)
        for match in matches:
            line = text.count("\n", 0, match.start(1)) + 1
            found[f"{name}:{line}"] = match[1]
    return found


def check_versions(root: Path, version: str) -> None:
    """Expect this version wherever one is named."""
    for place, value in versions(root).items():
        expect(value == version, f"the version {version}", value, place)
    page = root / COMPATIBILITY
    if page.is_file():
        minor = version.rpartition(".")[0]
        text = page.read_text(encoding="utf-8")
        named = re.search(rf"(?<![\d.]){re.escape(minor)}(?![\d])", text)
        expect(named, f"a line about {minor}", "none", COMPATIBILITY)


def date_of_today() -> datetime.date:
    """Return the date of a release made now, in UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def check_changelog(root: Path, version: str, today: datetime.date) -> None:
    """Expect a first section that is this version's, of today, with lines."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    title, _, body = text.partition("\n## ")[2].partition("\n")
    wanted = f"{version} - {today}"
    expect(title == wanted, f'a first section "## {wanted}"', title, "CHANGELOG.md")
    lines = body.partition("\n## ")[0]
    expect("\n- " in lines, "lines of what changed", "none", f"CHANGELOG.md: {title}")


def check_frozen(root: Path) -> None:
    """Expect model files of the format that is released, to be read for ever."""
    source = (root / "din_infer" / "model_format.py").read_text(encoding="utf-8")
    (number,) = re.findall(r'^FORMAT = "(\d+)"$', source, re.MULTILINE)
    names = [path.name for path in (root / "tests" / "frozen").glob(f"*-{number}.onnx")]
    expect(names, f"frozen models *-{number}.onnx", "none", "tests/frozen")
    tracked = run(root, "git", "ls-files", "tests/frozen").split()
    untracked = [n for n in names if f"tests/frozen/{n}" not in tracked]
    expect(not untracked, "frozen models in git", untracked, "tests/frozen")


def check_ci(root: Path) -> None:
    """Expect that every workflow of this commit has succeeded."""
    expect(shutil.which("gh"), "gh, to ask what CI says", "none", "PATH")
    commit = run(root, "git", "rev-parse", "HEAD")
    asked = ("gh", "run", "list", "--commit", commit, "--json", "name,conclusion")
    runs = json.loads(run(root, *asked))
    expect(runs, "runs of CI", "none", commit[:8])
    for each in runs:
        is_good = each["conclusion"] in ("success", "skipped", "neutral")
        got = each["conclusion"] or "one that runs"
        expect(is_good, "a success", got, f"CI: {each['name']}")


def build(root: Path, out: Path) -> None:
    """Build sdist and wheel, the wheel from the sdist; check both."""
    shutil.rmtree(out, ignore_errors=True)
    run(root, sys.executable, "-m", "build", "--outdir", str(out), ".")
    files = sorted(map(str, out.iterdir()))
    run(root, sys.executable, "-m", "twine", "check", "--strict", *files)
    for file in files:
        print(f"built  {file}")


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run every check; build, and tag where asked, only if all hold."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--tag", action="store_true", help="make the tag v<version>")
    parser.add_argument(
        "--ci-seen",
        action="store_true",
        help="you have seen that CI succeeded at this commit; gh is not asked",
    )
    given = parser.parse_args(argv)
    version = given.version
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        parser.error(f"expected a version such as 0.2.0, got {version!r}")
    checks = {
        "checkout": lambda: check_tree(root),
        "branch": lambda: check_branch(root),
        "tag": lambda: check_tag(root, version),
        "versions": lambda: check_versions(root, version),
        "changelog": lambda: check_changelog(root, version, date_of_today()),
        "frozen files": lambda: check_frozen(root),
        "CI": lambda: None if given.ci_seen else check_ci(root),
        "build": lambda: build(root, root / "dist"),
    }
    failed = 0
    for name, check in checks.items():
        if name == "build" and failed:
            break
        try:
            check()
            print(f"ok     {name}")
        except Fault as fault:
            failed += 1
            print(f"FAULT  {name}: {fault}")
    if failed:
        print(f"{version} cannot be released yet.")
        return 1
    if given.tag:
        title = f"din-infer {version}"
        run(root, "git", "tag", "--annotate", f"v{version}", "--message", title)
        print(f"tagged v{version}")
    else:
        print("no tag was made: --tag makes it")
    print(LEFT.format(version=version))
    return 0


if __name__ == "__main__":
    sys.exit(main())

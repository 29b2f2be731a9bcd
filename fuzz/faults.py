"""Run every command under faults of the system, and again without them.

    make faults FAULTS="--faults memory files --commands din-score din-train"

A fault is a limit of memory, of the size of files or of how many are open, a disk that
is full, output that nobody takes, a thread that cannot be started, SIGKILL, SIGSTOP, or
a clock that goes backwards. Under each, a command must end as it would without, or with
status 1 and one line that names itself; leave no draft behind; and the same command,
begun again (``--resume`` where it has that), must give what an undisturbed one gives.
Exit status 1 where one did not.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SECONDS = 60  # in which a command that takes 5 must have ended
SPEC = """
format = 1
label = "label"
[[user]]
name = "user"
dim = 4
encoder = { type = "hash", buckets = 100 }
[[candidate]]
name = "item"
dim = 4
encoder = { type = "hash", buckets = 50 }
[[behavior]]
name = "history"
max_len = 5
fields = { hist_item = "item" }
[model]
attention = { hidden = [8] }
tower = { hidden = [8] }
"""
# In the child: a fault is made once all that the command imports is there.
CHILD = """
import importlib, json, os, resource, sys, threading, time
fault, value, place, needs, *argv = sys.argv[1:]
for name in filter(None, needs.split(",")):
    importlib.import_module(name)
module, function = place.split(":")
main = getattr(importlib.import_module(module), function)
value = float(value)
if fault == "memory":
    pages = int(open("/proc/self/statm").read().split()[0])
    most = pages * resource.getpagesize() + int(value * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
elif fault == "sizes":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(value), int(value)))
elif fault == "files":
    most = max(map(int, os.listdir("/proc/self/fd"))) + int(value)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
elif fault == "threads":
    start, left = threading.Thread.start, [int(value)]
    def refuse(self):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        start(self)
    threading.Thread.start = refuse
elif fault == "clock":
    now, began = time.time, time.time()
    time.time = lambda: began - 1e6 * (now() - began) - 1e9
print("ready", file=sys.stderr, flush=True)
sys.exit(main(argv))
"""
NEEDS = "pyarrow.parquet,din_infer.predictor,onnxruntime"
TORCH = "torch,onnx,onnxscript,din_converter.export,din_converter.train,pyarrow.parquet"
INSPECT = "pyarrow.parquet,din_infer.jobs.inspect"


@dataclass(frozen=True)
class Command:
    """One command: its entry, its words, and what it writes below the folder."""

    place: str
    needs: str
    words: tuple[str, ...]
    writes: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


COMMANDS = {
    "din-score": Command(
        "din_infer.cli:main",
        f"{NEEDS},din_infer.jobs.files",
        ("{in}/model.onnx", "{in}/rows", "--out", "{out}/scores", "--threads", "2"),
        ("scores",),
        ("--resume",),
    ),
    "din-history": Command(
        "din_infer.history_cli:main",
        "duckdb,din_infer.jobs.history",
        ("{in}/log.csv", "--out", "{out}/rows", "--split", "time", "--overwrite"),
        ("rows",),
    ),
    "din-init": Command(
        "din_infer.init_cli:init_main",
        f"{NEEDS},din_infer.jobs.init.first_spec",
        ("{in}/rows", "--out", "{out}/made.toml"),
        ("made.toml",),
    ),
    "din-inspect": Command(
        "din_infer.cli:inspect_main",
        INSPECT,
        ("{in}/rows", "--spec", "{in}/features.toml", "--json"),
    ),
    "din-explain": Command(
        "din_infer.cli:explain_main",
        f"{NEEDS},din_infer.jobs.explain",
        ("{in}/model.onnx", "{in}/rows/a.parquet", "--out", "{out}/page.html"),
        ("page.html",),
    ),
    "din-train": Command(
        "din_converter.cli:train_main",
        f"{TORCH},din_converter.rows,matplotlib.figure",
        (
            *("{in}/rows", "--spec", "{in}/features.toml", "--out", "{out}/model.pt"),
            *("--epochs", "3", "--valid-fraction", "0", "--threads", "1", "--quiet"),
            *("--checkpoint-minutes", "0"),
        ),
        ("model.pt",),
        ("--resume",),
    ),
    "din-convert": Command(
        "din_converter.cli:convert_main",
        f"{TORCH},din_infer.predictor,onnxruntime",
        ("{in}/model.pt", "--out", "{out}/model.onnx"),
        ("model.onnx",),
    ),
    "din-verify": Command(
        "din_infer.cli:verify_main", "din_infer.model_file", ("{in}/model.onnx",)
    ),
}
# Of each fault, how much of it: MB beside what is imported, bytes, descriptors, the
# thread that is refused, seconds.
FAULTS: dict[str, tuple[float, ...]] = {
    "memory": (1, 8, 32, 128, 512),
    "sizes": (0, 1, 1000, 20_000),
    "files": (1, 2, 3, 5, 9),
    "disk": (0, 16, 64),
    "output": (0,),
    "threads": (0, 1, 2, 4),
    "kill": (0.05, 0.2, 0.5, 1.0),
    "stop": (0.2,),
    "clock": (0,),
}


def make_inputs(folder: Path) -> None:
    """Write rows, a log, a spec and a model."""
    from din_converter import build_model, convert, save
    from din_infer.spec import FeatureSpec

    rng = np.random.default_rng(0)
    (folder / "rows").mkdir(parents=True)
    for name in "abc":
        items = [f"i{k}" for k in rng.integers(0, 40, 1000)]
        lists = [
            [f"i{k}" for k in rng.integers(0, 40, rng.integers(0, 8))] for _ in items
        ]
        users = [f"u{k}" for k in rng.integers(0, 90, 1000)]
        clicked = pa.array(rng.integers(0, 2, 1000))
        rows = {"user": users, "item": items, "hist_item": lists, "label": clicked}
        pq.write_table(pa.table(rows), folder / "rows" / f"{name}.parquet")
    log = [
        f"u{rng.integers(0, 50)},i{rng.integers(0, 40)},{1_700_000_000 + k}"
        for k in range(2000)
    ]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,time", *log, ""]))
    (folder / "features.toml").write_text(SPEC)
    model = build_model(FeatureSpec.load(folder / "features.toml"))
    save(model, folder / "model.pt")
    convert(model, folder / "model.onnx", explain=True)


def content(path: Path) -> Any:  # noqa: ANN401
    """Take what an output says, without the times and paths in it."""
    if path.is_dir():
        return {p.name: content(p) for p in sorted(path.glob("*.parquet"))}
    if path.suffix == ".pt":
        from din_converter import load

        return {k: v.numpy().tolist() for k, v in load(path).state_dict().items()}
    if path.suffix == ".onnx":
        from din_infer.model_file import ModelFile

        model = ModelFile.read(path)
        model.check_all()
        return model.model_id
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_behind(folder: Path) -> list[str]:
    """Name the drafts that are there."""
    return sorted(
        str(p.relative_to(folder))
        for p in folder.rglob(".*")
        if p.name.endswith(".tmp")
        or (p.name.rpartition(".")[2].isalnum() and p.is_dir())
    )


@contextmanager
def full_disk(folder: Path, kib: float) -> Iterator[bool]:
    """Mount a disk of some KiB, of a page at least; False where that is not allowed."""
    kib = max(kib, 4)
    command = ["mount", "-t", "tmpfs", "-o", f"size={int(kib)}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def start(command: Command, inputs: Path, out: Path, fault: str, value: float) -> Any:  # noqa: ANN401
    """Start a command in a process of its own."""
    words = [
        w.replace("{in}", str(inputs)).replace("{out}", str(out)) for w in command.words
    ]
    if fault == "again":
        words += command.again
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    stdout = subprocess.PIPE
    if fault == "output":
        stdout = os.open("/dev/full", os.O_WRONLY)
    arguments = [fault, str(value), command.place, command.needs, *words]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def ended(process: Any, fault: str, value: float) -> tuple[int | None, str]:  # noqa: ANN401
    """Disturb a process as it runs; returns its status, None where it hangs."""
    if fault in ("kill", "stop"):
        process.stderr.readline()  # it is ready
        time.sleep(value)
        with suppress(ProcessLookupError):
            if fault == "kill":
                process.kill()
            else:
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.5)
                process.send_signal(signal.SIGCONT)
    try:
        _, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return None, process.communicate()[1]
    return process.returncode, err


def wrong(name: str, fault: str, status: int | None, err: str) -> str:
    """Say what is wrong with how a command ended; "" if nothing is."""
    if status is None:
        return "it hangs"
    if fault == "kill" and status in (0, 1, -signal.SIGKILL):
        return ""
    if fault in ("memory", "files") and status in (127, -signal.SIGABRT):
        return ""  # DuckDB, Arrow or the C library gave up, as for a kill
    if status not in (0, 1):
        return f"status {status}: {err[-300:]}"
    if "Traceback" in err:
        return f"a traceback: {err[-400:]}"
    lines = [x for x in err.splitlines() if x.startswith(f"{name}: ")]
    if status and not lines:
        return f"no line that names itself: {err[-300:]}"
    return ""


def attempt(
    name: str,
    fault: str,
    value: float,
    inputs: Path,
    folder: Path,
    wanted: dict[str, Any],
) -> tuple[str, str]:
    """Run one command under one fault, and again.

    Returns how it ended, and what is wrong with that.
    """
    command, out = COMMANDS[name], folder / "out"
    out.mkdir()

    def disturbed() -> tuple[int | None, str, list[str]]:
        status, err = ended(start(command, inputs, out, fault, value), fault, value)
        return status, err, left_behind(out)

    if fault == "disk":
        with full_disk(out, value) as is_mounted:
            if not is_mounted:
                return "not tried", ""
            status, err, left = disturbed()
            shutil.copytree(out, folder / "kept")
        out.rmdir()
        (folder / "kept").rename(out)  # a disk with room
    else:
        status, err, left = disturbed()
    lines = [x for x in err.splitlines() if x.startswith(f"{name}: ")]
    how = f"status {status}" + (f": {lines[-1]}" if status and lines else "")
    problem = wrong(name, fault, status, err)
    if not problem and status in (0, 1) and left:
        problem = f"left behind: {left}"
    if problem:
        return how, problem
    if name == "din-init":  # which never replaces a spec
        (out / "made.toml").unlink(missing_ok=True)
    status, err = ended(start(command, inputs, out, "again", 0), "again", 0)
    if status != 0:
        return how, f"begun again, status {status}: {err[-300:]}"
    if left_behind(out):
        return how, f"begun again, left behind: {left_behind(out)}"
    found = {w: content(out / w) for w in command.writes}
    return how, "" if found == wanted else "begun again, another result"


def main() -> int:
    """Try all commands under all faults, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", nargs="*", default=list(FAULTS))
    parser.add_argument("--commands", nargs="*", default=list(COMMANDS))
    parser.add_argument("--quiet", action="store_true", help="failures alone")
    args = parser.parse_args()
    failed = tried = 0
    with tempfile.TemporaryDirectory(prefix="din-faults-") as top:
        inputs = Path(top) / "in"
        make_inputs(inputs)
        for name in args.commands:
            command, out = COMMANDS[name], Path(top) / name
            out.mkdir()
            status, err = ended(start(command, inputs, out, "none", 0), "none", 0)
            if status:
                sys.exit(f"{name} without a fault: {err}")
            wanted = {w: content(out / w) for w in command.writes}
            for fault in args.faults:
                for value in FAULTS[fault]:
                    folder = Path(top) / f"{name}-{fault}-{value}"
                    folder.mkdir()
                    how, found = attempt(name, fault, value, inputs, folder, wanted)
                    tried += how != "not tried"
                    failed += bool(found)
                    if found or not args.quiet:
                        print(f"{name} {fault} {value:g}: {how}", flush=True)
                    if found:
                        print(f"    WRONG: {found}", flush=True)
                    shutil.rmtree(folder, ignore_errors=True)
    print(f"{tried} tries of {len(args.commands)} commands: {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    random.seed(0)
    sys.exit(main())

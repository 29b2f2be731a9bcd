"""Mutated checkpoints and data files: whatever they hold, they are read or refused.

Takes libFuzzer's options, as fuzz/run.py gives them, and ``-kind=checkpoints`` or
``-kind=data``. Inputs are made from the checkpoints of every importer, of ours, and of
torch.export (or from tables of every format): bytes, members of archives, instructions
of pickles, and descriptions are changed. Each is read in a child process of limited
memory, which an alarm ends. A finding is an error that is none of ours, a signal, no
answer in 20 s, or any sign of code that ran: an import, a process, a connection, or a
file written, which an audit hook of Python tells.
"""

# ruff: noqa: E402 - the package of this checkout, whichever is installed

import json
import os
import pickletools
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "converter")]

import pyarrow as pa
import torch

from din_converter import load
from din_converter.importers import import_checkpoint
from din_converter.importers.pt2 import load_program
from din_infer import FeatureSpec
from din_infer.errors import DinError
from din_infer.jobs.readers import find_columns, open_reader
from din_infer.jobs.sources import find_table
from tests import fuxictr, pt2, recbole
from tests import test_importers_deepctr as deepctr
from tests import test_importers_rechub as rechub
from tests.jobs import make_table, write_as
from tests.models import SPECS, random_model, spec_dict

BATCH = 200  # inputs of a child process
MOST_BYTES = 3 << 30  # of memory, beside what is there at the start
SECONDS = 20
# What no reader of data does; imports are told apart below.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork")
FORBIDDEN += ("os.forkpty", "subprocess.Popen", "socket.", "ctypes.dlopen", "pty.spawn")
FORBIDDEN += ("os.remove", "os.rename", "shutil.", "ftplib.", "urllib.", "webbrowser.")
CANARY = "din_fuzz_canary"
CALLS = (
    b"cposix\nsystem\n(S'touch {0}'\ntR",
    b"c" + CANARY.encode() + b"\ntouch\n)R",
    b"cbuiltins\nexec\n(S'import " + CANARY.encode() + b"'\ntR",
    b'c__builtin__\neval\n(S\'__import__("os").system("touch {0}")\'\ntR',
    b"(S'touch {0}'\nios\nsystem\n",
    b"cbuiltins\nbytearray\n(L100000000000L\ntR",
    b"ctorch.hub\nload\n(S'a/b'\nS'c'\ntR",
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, 1.5, float("nan")),
    *("", "x" * 5000, "\ud800", "\0", "../x", [], {}, [[]], {"": None}, [1] * 1000),
)
NUMBERS = (0, 1, 127, 128, 255)

Read = Callable[[Path], object]
Files = dict[str, bytes]


class Seed:
    """Files of one input, of which some are changed, and what reads them."""

    def __init__(self, name: str, files: Files, changed: list[str], read: Read) -> None:
        self.name, self.files, self.changed, self.read = name, files, changed, read


def files_of(folder: Path) -> Files:
    """Read the files of a folder."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def checkpoints(top: Path) -> list[Seed]:
    """Make a checkpoint of every kind."""
    found: list[Seed] = []

    def add(name: str, read: Read) -> None:
        files = files_of(top / name)
        found.append(Seed(name, files, list(files), read))

    def folder(name: str) -> Path:
        (top / name).mkdir()
        return top / name

    model = random_model(SPECS["paper"])
    torch.save(
        {"format": 1, "spec": model.spec.to_json(), "state_dict": model.state_dict()},
        folder("ours") / "model.pt",
    )
    add("ours", lambda p: load(p / "model.pt"))
    torch.save(
        {"format": 1, "spec": model.spec.to_json(), "state_dict": model.state_dict()},
        folder("old") / "model.pt",
        _use_new_zipfile_serialization=False,
    )
    add("old", lambda p: load(p / "model.pt"))
    for name, module in (("deepctr-torch", deepctr), ("torch-rechub", rechub)):
        module.Files(folder(name)).write(module.describe())
        add(
            name,
            lambda p, n=name: import_checkpoint(  # type: ignore[misc]
                p / "m.pth", n, {"description": p / "m.json"}
            ),
        )
    recbole.save(recbole.checkpoint(recbole.Twin()), folder("recbole") / "m.pth")
    add("recbole", lambda p: import_checkpoint(p / "m.pth", "recbole", {}))
    fuxictr.Files(folder("fuxictr")).read()
    add(
        "fuxictr",
        lambda p: import_checkpoint(
            p / "exp.model",
            "fuxictr",
            {
                "feature_map": p / "feature_map.json",
                "model_config": p / "model_config.yaml",
            },
        ),
    )
    pt2.save_small(folder("pt2") / "m.pt2")
    add("pt2", lambda p: load_program(p / "m.pt2"))
    peers = ROOT.parent / "shared" / "peers"  # where they are there
    for path in sorted(peers.rglob("*whole_model.pth")) if peers.is_dir() else ():
        source = {"deepctr": "deepctr-torch", "rechub": "torch-rechub"}
        kind = source.get(path.relative_to(peers).parts[0])
        if kind is not None and path.stat().st_size < 1 << 20:
            files = {"m.pth": path.read_bytes()}
            found.append(
                Seed(
                    f"{kind}, whole",
                    files,
                    list(files),
                    lambda p, k=kind: import_checkpoint(p / "m.pth", k, {}),  # type: ignore[misc]
                )
            )
    return found


def tables(top: Path) -> list[Seed]:
    """Make a small table of every format."""
    spec = FeatureSpec.from_dict(spec_dict())
    rows = make_table(40)
    lists = {"interests": ["a"], "hist_goods_id": ["g"], "action": ["view"]}
    for name, values in {**lists, "hist_cate_id": [1], "tags": ["t"]}.items():
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.array([values] * len(rows)))
    found = []
    for suffix in ("parquet", "arrow", "arrows", "csv", "jsonl", "csv.gz"):
        path = write_as(rows, top / suffix / f"a.{suffix}")

        def read(folder: Path, name: str = path.name) -> int:
            reader = open_reader(find_table(folder / name), spec)
            try:
                columns = find_columns(reader, spec.columns, spec.optional_columns)
                for batch in reader.prepared(columns, 64):
                    spec.encode(batch)
            finally:
                reader.close()
            return 0

        found.append(Seed(suffix, files_of(path.parent), [path.name], read))
    return found


# ----------------------------------------------------------------------- mutations


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change, insert, remove or repeat some bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        size = min(rng.choice((1, 1, 2, 4, 8, 64)), len(out) - at)
        how = rng.randrange(6)
        if how == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif how == 1 and out:
            out[at % len(out)] = rng.choice(NUMBERS)
        elif how == 2:
            out[at : at + size] = rng.randbytes(size)
        elif how == 3:
            del out[at : at + size]
        elif how == 4:
            out[at:at] = out[at : at + size] * rng.choice((1, 2, 100))
        else:
            out[at : at + 4] = rng.choice((0, 1, 2**31 - 1, 2**32 - 1)).to_bytes(
                4, "little"
            )
    return bytes(out[: rng.randrange(len(out) + 1)] if rng.random() < 0.05 else out)


def change_pickle(data: bytes, rng: random.Random) -> bytes:
    """Remove, repeat, move or replace instructions; put in calls of code."""
    try:
        starts = [at for _, _, at in pickletools.genops(data)]
    except Exception:
        return change_bytes(data, rng)
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        how = rng.randrange(6)
        if how == 0 and len(parts) > 1:
            del parts[at]
        elif how == 1:
            parts.insert(at, parts[other])
        elif how == 2:
            parts[at], parts[other] = parts[other], parts[at]
        elif how == 3:
            parts[at] = change_bytes(parts[at], rng)
        elif how == 4:
            parts.insert(at, rng.choice(CALLS))
        else:
            parts.insert(at, b"2\x86" * rng.choice((1, 5, 40)))
    return b"".join(parts)


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, remove or repeat a value of JSON."""
    try:
        value = json.loads(data)
    except ValueError:
        return change_bytes(data, rng)
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:  # noqa: ANN401
        inner = part.items() if isinstance(part, dict) else enumerate(part)
        for key, item in list(inner):
            places.append((part, key))
            if isinstance(item, dict | list):
                walk(item)

    if isinstance(value, dict | list):
        walk(value)
    if not places:
        return change_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2))):
        part, key = rng.choice(places)
        how = rng.randrange(4)
        try:
            if how == 0:
                del part[key]
            elif how == 1 and isinstance(part, dict):
                part[str(rng.choice(VALUES))] = part.pop(key)
            elif how == 2:
                other, name = rng.choice(places)
                part[key] = json.loads(json.dumps(other[name]))
            else:
                part[key] = rng.choice(VALUES)
        except (KeyError, IndexError, RecursionError):
            continue
    return json.dumps(value).encode()


def change_archive(data: bytes, rng: random.Random) -> bytes:
    """Change, remove, rename or repeat a member of a zip archive."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = rng.randrange(len(members))
    if rng.random() < 0.6:  # what is read as instructions, not as weights
        told = [k for k, (n, _) in enumerate(members) if n.endswith((".pkl", ".json"))]
        at = rng.choice(told or [at])
    name, content = members[at]
    how = rng.randrange(8)
    if how == 0:
        del members[at]
    elif how == 1:
        members[at] = change_bytes(name.encode(), rng).decode("latin-1"), content
    elif how == 2:
        members.append((rng.choice(members)[0], content))
    elif name.endswith(".json"):
        members[at] = name, change_json(content, rng)
    elif content[:1] == b"\x80":
        members[at] = name, change_pickle(content, rng)
    else:
        members[at] = name, change_bytes(content, rng)
    out = BytesIO()
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.02 else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", packing) as archive:
        warnings.simplefilter("ignore")  # a name twice
        for name, content in members:
            archive.writestr(name.replace("\0", "_") or "x", content)
    return out.getvalue()


def change(data: bytes, rng: random.Random) -> bytes:
    """Change a file as its format suggests, or byte by byte."""
    if rng.random() < 0.25:
        return change_bytes(data, rng)
    if data.startswith(b"PK\3\4"):
        return change_archive(data, rng)
    if data.startswith(b"\x80"):
        return change_pickle(data, rng)
    return change_json(data, rng) if data[:1] in b"[{" else change_bytes(data, rng)


# -------------------------------------------------------------------- child processes


class TookLong(BaseException):
    """No answer before the alarm."""


def watch(folder: Path, seen: list[str]) -> None:
    """Note what no reader of data does."""
    allowed = {name.partition(".")[0] for name in sys.modules}

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            seen.append(f"{event} {args!r:.200}")
        elif event == "import" and args[0].partition(".")[0] not in allowed:
            if args[0].partition(".")[0] not in sys.stdlib_module_names:
                seen.append(f"import of {args[0]}")
        elif event == "open" and isinstance(args[2], int):
            is_written = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if is_written and not str(args[0]).startswith((str(folder), "/dev/null")):
                seen.append(f"{args[0]} opened to be written")

    sys.addaudithook(hook)


def child(seeds: list[Seed], folder: Path, number: int, count: int, out: int) -> None:
    """Read `count` inputs; writes to the descriptor `out` what came of each."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seen: list[str] = []
    watch(folder, seen)

    def stop(*_: object) -> None:
        raise TookLong

    signal.signal(signal.SIGALRM, stop)
    marker = folder / "code-ran"
    for k in range(number, number + count):
        rng = random.Random(k)
        seed = rng.choice(seeds)
        files = dict(seed.files)
        name = rng.choice(seed.changed)
        files[name] = change(files[name], rng).replace(b"{0}", str(marker).encode())
        for other, data in files.items():
            (folder / other).write_bytes(data)
        seen.clear()
        os.write(out, json.dumps([k, seed.name, "begun", ""]).encode() + b"\n")
        found, how = "", "read"
        signal.alarm(SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                seed.read(folder)
        except DinError as error:
            how = "refused"
            if not str(error):
                found = "an error without a sentence"
        except TookLong:
            found = f"no answer in {SECONDS} s"
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"[:500]
        finally:
            signal.alarm(0)
        if marker.exists() or seen:
            found = f"code ran: {seen[:3]} {marker.exists()}"
        os.write(
            out,
            json.dumps([k, seed.name, (found and "found") or how, found]).encode()
            + b"\n",
        )
        for other in files:
            (folder / other).unlink(missing_ok=True)


def run_child(seeds: list[Seed], number: int, count: int) -> list[list[Any]]:
    """Read some inputs in a process of its own; returns what it said of each."""
    with tempfile.TemporaryDirectory(prefix="din-fuzz-") as name:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.dup2(null, 1)
            try:
                child(seeds, Path(name), number, count, write_end)
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as said:
            lines = [json.loads(line) for line in said]
        _, status = os.waitpid(pid, 0)
    ended = {k for k, _, how, _ in lines if how != "begun"}
    done = [line for line in lines if line[2] != "begun"]
    cut = [line for line in lines if line[0] not in ended]
    for k, seed, _, _ in cut[-1:]:
        done.append([k, seed, "found", f"the process ended, status {status}"])
    return done


def options() -> dict[str, str]:
    """Read libFuzzer's options; the folders of inputs are not needed."""
    words = [w[1:].partition("=") for w in sys.argv[1:] if w.startswith("-")]
    return {name: value for name, _, value in words}


def main() -> int:
    """Read inputs until the time is over; print counts of each kind."""
    given = options()
    seconds = float(given.get("max_total_time", 60))
    runs = int(given.get("runs", 0)) or 1 << 60
    start = int(given.get("seed", 1)) * 1_000_000_000
    kind = given.get("kind", "checkpoints")
    counts: dict[str, dict[str, int]] = {}
    failed = total = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="din-seeds-") as name:
        seeds = (tables if kind == "data" else checkpoints)(Path(name))
        while time.monotonic() - began < seconds and total < runs:
            count = min(BATCH, runs - total)
            done = run_child(seeds, start + total, count)
            for number, seed, how, what in done:
                of_seed = counts.setdefault(seed, {"read": 0, "refused": 0, "found": 0})
                of_seed[how] += 1
                if how == "found":
                    failed += 1
                    print(f"ERROR: {seed}, input {number}: {what}", flush=True)
            total = max(number for number, *_ in done) + 1 - start
    for seed, found in sorted(counts.items()):
        print(f"{seed:24} " + ", ".join(f"{n:,} {how}" for how, n in found.items()))
    print(f"stat::number_of_executed_units: {total}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

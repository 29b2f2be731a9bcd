"""Model files, changed at random: each loads and scores, or ends in one DinError.

Small models of every kind are changed in their bytes, their structure, the attributes
of our operators, their metadata and their data file, and loaded in child processes. A
finding is a child that died, a case that took longer than `LONGEST` or more memory than
`MOST_BYTES`, and whatever is raised that is no DinError.

Most files get a new seal, as whoever forges one would write it; the rest show that a
seal is looked at. Takes libFuzzer's options -runs, -seed and -max_total_time.

One file above 400 lines: how models are made, changed and tried is one program.
"""

import argparse
import json
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 10.0  # seconds; other processes may have the cores
MOST_BYTES = 100 << 20  # above what the child has before the case
ADDRESS_SPACE = 16 << 30
CHILD_CASES = 4_000  # then a new child
INTEGERS = [0, 1, -1, 2, 3, 7, 100, 1 << 15, 1 << 31, (1 << 31) - 1, -(1 << 31)]
INTEGERS += [1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63)]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"a" * 5_000,
    b"din_infer",
    b"Loop",
    b"Constant",
    b"x",
]
TEXTS += [
    "\u202e".encode(),
    b"LocalActivation",
    b"EmbeddingBag_1",
    b"ai.onnx.ml",
    b"../x",
]
OUTCOMES = ("died", "refused", "scored the same", "scored otherwise", "finding")
FILE_KEY = "din_infer.file"


@dataclass
class Base:
    """A model to change: its bytes and data file, its message, and rows to score."""

    name: str
    content: bytes
    data: tuple[str, bytes] | None
    batch: Any
    model: Any
    scores: bytes = b""


# ---- the models ----


def write_bases(folder: Path) -> None:
    """Convert a small model of every kind into a folder, with rows beside each."""
    import pickle  # of our own rows, in our own folder

    import torch

    from din_converter import convert
    from tests import fusing
    from tests.models import SPECS, random_model, random_rows

    folder.mkdir(parents=True, exist_ok=True)
    wide = json.loads(json.dumps(SPECS["candidate only"]))
    wide["candidate"][0] |= {"dim": 8, "encoder": {"type": "hash", "buckets": 34_000}}
    specs: dict[str, tuple[Any, dict[str, Any]]] = {
        "small": (SPECS["candidate only"], {}),
        "paper": (SPECS["paper"], {}),
        "sequences": (SPECS["three sequences"], {"explain": True}),
        "softmax": (SPECS["softmax"], {"inline": True}),
        "base": (SPECS["base mean"], {}),
        "wide": (wide, {}),
    }
    for name, (spec, options) in specs.items():
        model = random_model(spec)
        convert(model, folder / f"{name}.onnx", **options)
        rows = random_rows(model.spec, 3, seed=1)
        (folder / f"{name}.rows").write_bytes(pickle.dumps(rows))
    torch.manual_seed(0)
    module = fusing.mix(fusing.Din())
    example = fusing.inputs(module)
    convert(module, folder / "module.onnx", example_inputs=example)
    arrays = {k: v.numpy() for k, v in example.items()}
    (folder / "module.rows").write_bytes(pickle.dumps(arrays))


def read_bases(folder: Path) -> list[Base]:
    """Read what `write_bases` wrote."""
    import pickle

    import onnx

    bases = []
    for path in sorted(folder.glob("*.onnx")):
        model = onnx.load(path, load_external_data=False)
        names = [p.name for p in folder.glob(f"{path.stem}-*.data")]
        data = (names[0], (folder / names[0]).read_bytes()) if names else None
        batch = pickle.loads(path.with_suffix(".rows").read_bytes())
        bases.append(Base(path.stem, path.read_bytes(), data, batch, model))
    return bases


# ---- changes ----


def change_bytes(draw: random.Random, content: bytes) -> bytes:
    """Change a few bytes, or cut, repeat and insert some."""
    out = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        # headers stand at both ends, weights between them
        at = draw.randrange(len(out) + 1)
        if draw.random() < 0.5:
            at = min(at, draw.randrange(2_000)) if draw.random() < 0.5 else at
        size = draw.choice((1, 1, 2, 4, 16, 300))
        kind = draw.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 2:
            del out[at : at + size]
        elif kind == 3:
            out[at:at] = draw.randbytes(size)
        elif kind == 4:
            out[at:at] = out[at : at + size]
        elif kind == 5:
            out[at:at] = b"\xff" * size
        elif draw.random() < 0.2:
            del out[at:]
    return bytes(out)


def _messages(message: Any, found: list[Any]) -> list[Any]:  # noqa: ANN401
    found.append(message)
    for kind, value in message.ListFields():
        if kind.message_type is not None:
            for part in value if kind.is_repeated else [value]:
                _messages(part, found)
    return found


def _scalar(draw: random.Random, kind: Any, old: Any, all_texts: list[Any]) -> Any:  # noqa: ANN401
    if kind.cpp_type in (kind.CPPTYPE_INT64, kind.CPPTYPE_UINT64):
        return draw.choice(
            (draw.choice(INTEGERS), old + 1 if old else 1, -old if old else -1)
        )
    if kind.cpp_type in (kind.CPPTYPE_INT32, kind.CPPTYPE_UINT32):
        return draw.choice((0, 1, -1, 2, 7, 8, 16, 100, (1 << 31) - 1))
    if kind.cpp_type == kind.CPPTYPE_ENUM:
        return draw.choice(kind.enum_type.values).number
    if kind.cpp_type in (kind.CPPTYPE_FLOAT, kind.CPPTYPE_DOUBLE):
        return draw.choice(FLOATS)
    value = draw.choice((draw.choice(TEXTS), draw.choice(all_texts or [b""])))
    if kind.type == kind.TYPE_STRING:
        if isinstance(value, bytes):
            value = value.decode("latin-1")
        return value[:5_000]
    return value.encode() if isinstance(value, str) else value


def change_messages(draw: random.Random, messages: list[Any]) -> None:
    """Set, drop, repeat and exchange fields of some messages of a model."""
    by_type: dict[str, list[Any]] = {}
    for m in messages:
        by_type.setdefault(m.DESCRIPTOR.name, []).append(m)
    texts = [n.op_type for n in by_type.get("NodeProto", [])]
    texts += [t for n in by_type.get("NodeProto", []) for t in (*n.input, *n.output)]
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        target = draw.choice(by_type[draw.choice(sorted(by_type))])
        kind = draw.choice(target.DESCRIPTOR.fields)
        if draw.random() < 0.7 and target.ListFields():
            kind = draw.choice(target.ListFields())[0]
        name, action = kind.name, draw.randrange(6)
        values = getattr(target, name)
        try:
            if not kind.is_repeated:
                if action == 0:
                    target.ClearField(name)
                elif kind.message_type is not None:
                    other = draw.choice(by_type.get(kind.message_type.name, [values]))
                    copy = type(other)()
                    copy.CopyFrom(other)
                    values.CopyFrom(copy)
                else:
                    setattr(target, name, _scalar(draw, kind, values, texts))
                continue
            at = draw.randrange(len(values)) if len(values) else 0
            if action == 0 and len(values):
                del values[at]
            elif action == 1 and len(values):
                del values[at:]
            elif kind.message_type is not None:
                copies = [*values, *by_type.get(kind.message_type.name, [])]
                if not copies:
                    continue
                copy = type(copies[0])()
                copy.CopyFrom(draw.choice(copies))
                if action == 2 and len(values):
                    values[at].CopyFrom(copy)
                elif action == 3 and len(values):
                    values.insert(at, copy)
                else:
                    values.add().CopyFrom(copy)
            elif action in (2, 3) and len(values):
                values[at] = _scalar(draw, kind, values[at], texts)
            elif action == 4:
                values.extend(
                    [_scalar(draw, kind, 0, texts)] * draw.choice((1, 3, 1_000))
                )
            else:
                values.append(_scalar(draw, kind, 0, texts))
        except (ValueError, TypeError):
            continue


def change_structure(draw: random.Random, base: Base) -> bytes:
    """Change messages anywhere in the model."""
    model = _copy(base.model)
    change_messages(draw, _messages(model, []))
    return serialized(model)


def change_operators(draw: random.Random, base: Base) -> bytes:
    """Change our own operators' nodes, attributes and constants."""
    model = _copy(base.model)
    own = [n for n in model.graph.node if n.domain == "din_infer"]
    if not own:
        return change_structure(draw, base)
    node = draw.choice(own)
    part = draw.randrange(3)
    if part == 0 and node.attribute:
        change_messages(draw, _messages(draw.choice(node.attribute), []))
    elif part == 1:
        names = [i.name for i in model.graph.initializer if i.name in set(node.input)]
        for i in model.graph.initializer:
            if names and i.name == draw.choice(names):
                change_messages(draw, [i])
                break
        else:
            change_messages(draw, [node])
    else:
        change_messages(draw, [node])
    return serialized(model)


def _change_value(draw: random.Random, value: Any) -> Any:  # noqa: ANN401
    """Change one value somewhere in parsed JSON."""
    if isinstance(value, dict | list) and value and draw.random() < 0.9:
        at = draw.choice(
            sorted(value) if isinstance(value, dict) else range(len(value))
        )
        if draw.random() < 0.1:
            del value[at]
        else:
            value[at] = _change_value(draw, value[at])
        return value
    choices: list[Any] = [None, True, -1, 0, 1, 2.5, "", "x", [], {}, [[]], {"a": 1}]
    choices += [*INTEGERS, 1e308, "\u202e", "a" * 1_000, [value] * 3, {"type": value}]
    if isinstance(value, int) and not isinstance(value, bool):
        choices += [value + 1, value - 1, value * 2, 30_000_000]
    return draw.choice(choices)


def change_metadata(draw: random.Random, base: Base) -> bytes:
    """Change values of the spec, golden rows and other entries."""
    model = _copy(base.model)
    entry = draw.choice(model.metadata_props)
    if draw.random() < 0.5:
        entry = next(
            (e for e in model.metadata_props if e.key.endswith(".spec")), entry
        )
    kind = draw.random()
    try:
        value = json.loads(entry.value)
    except ValueError:
        kind = 0.0
    if kind < 0.1:
        entry.value = change_bytes(draw, entry.value.encode()).decode(
            "utf-8", "replace"
        )
    else:
        for _ in range(draw.choice((1, 1, 2))):
            value = _change_value(draw, value)
        entry.value = json.dumps(value)
        if kind < 0.15:
            entry.value = "[" * draw.choice((10, 1_000, 100_000)) + entry.value
    return serialized(model)


def change_external(draw: random.Random, base: Base) -> bytes:
    """Change where initializers say that they lie."""
    model = _copy(base.model)
    tensors = list(model.graph.initializer)
    tensor = draw.choice(tensors)
    if base.data and draw.random() < 0.7:
        tensor = draw.choice([t for t in tensors if t.external_data] or tensors)
    if not tensor.external_data:
        tensor.ClearField("raw_data")
        tensor.data_location = 1
    name = base.data[0] if base.data else "x.data"
    locations = [
        name,
        "../" + name,
        "/etc/passwd",
        "/dev/zero",
        "",
        ".",
        "a/b",
        name + "\0",
    ]
    locations += ["*/_ORT_MEM_ADDR_/*", "fifo", "link"]
    for _ in range(draw.choice((1, 2, 3))):
        key = draw.choice(("location", "offset", "length", "checksum", "basepath", "x"))
        value = str(draw.choice((*INTEGERS, "1e3", " 7", "0x10", "", "-0", 1 << 70)))
        if key == "location":
            value = draw.choice(locations)
        found = [e for e in tensor.external_data if e.key == key]
        if found and draw.random() < 0.8:
            found[0].value = value
        else:
            tensor.external_data.add(key=key, value=value)
    return serialized(model)


def _copy(model: Any) -> Any:  # noqa: ANN401
    copy = type(model)()
    copy.CopyFrom(model)
    del copy.metadata_props[len(copy.metadata_props) - 1]  # the seal
    return copy


def serialized(model: Any) -> bytes:  # noqa: ANN401
    """Serialize a model; what it cannot hold is cut."""
    try:
        return model.SerializeToString()
    except ValueError:
        return b""


CHANGES: dict[str, Callable[[random.Random, Base], bytes]] = {
    "bytes": lambda draw, base: change_bytes(draw, base.content),
    "structure": change_structure,
    "operators": change_operators,
    "metadata": change_metadata,
    "external": change_external,
    "data": lambda _, base: base.content,
}


# ---- cases, in child processes ----


@dataclass
class Case:
    """One changed model in a folder."""

    base: Base
    kind: str
    content: bytes
    data: bytes | None


def draw_case(bases: list[Base], seed: int, number: int, kinds: list[str]) -> Case:
    """Make the changed model of a number, always the same."""
    from din_infer.integrity import sealed

    draw = random.Random(f"{seed}/{number}")
    kind = draw.choice(kinds)
    base = draw.choice([b for b in bases if b.data] if kind == "data" else bases)
    content = CHANGES[kind](draw, base)
    data = base.data[1] if base.data else None
    if kind == "data" and data is not None:
        data = change_bytes(draw, data)
    if kind not in ("data", "bytes") and draw.random() < 0.9:
        content = sealed(content)
    if kind == "bytes" and draw.random() < 0.8:
        content = sealed(change_bytes(draw, serialized(_copy(base.model))))
    return Case(base, kind, content, data)


def _peak() -> int:
    """Most bytes resident since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    return 0


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def try_model(path: Path, batch: Any) -> bytes:  # noqa: ANN401
    """Load a model and score rows."""
    import numpy as np

    from din_infer import Predictor

    predictor = Predictor(path, device="cpu", threads=1)
    if isinstance(batch, dict):
        made = predictor.score_encoded(batch)
        outputs = made.values() if isinstance(made, dict) else [made]
        return b"".join(np.asarray(v).tobytes() for v in outputs)
    return bytes(predictor.score(batch).tobytes())


def run_case(case: Case, folder: Path, written: dict[str, bytes | None]) -> int:
    """Write a case, load and score it; returns the place in OUTCOMES, or raises.

    `written` holds the data files that are there: most cases change none.
    """
    from din_infer import DinError

    path = folder / f"{case.base.name}.onnx"
    path.write_bytes(case.content)
    if case.base.data is not None:
        name = case.base.data[0]
        if name not in written or written[name] is not case.data:
            (folder / name).write_bytes(case.data or b"")
            written[name] = case.data
    try:
        scores = try_model(path, case.base.batch)
    except DinError:
        return 1
    return 2 if scores == case.base.scores else 3


def child(
    bases: list[Base], args: argparse.Namespace, first: int, shared: mmap.mmap
) -> None:
    """Run cases from a number on; where each stands is in shared memory."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(args.scratch)
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to("/etc/passwd")
    if not (folder / "fifo").exists():
        os.mkfifo(folder / "fifo")
    for base in bases:
        path = Path(args.folder, "bases", f"{base.name}.onnx")
        base.scores = try_model(path, base.batch)
    quiet = os.open(folder / "stderr", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    errors = os.dup(2)
    written: dict[str, bytes | None] = {}
    for i in range(CHILD_CASES):
        number = first + i
        struct.pack_into("qd", shared, 0, number, time.time())
        case = draw_case(bases, args.seed, number, args.kinds)
        _reset_peak()
        before = _peak()
        struct.pack_into("qd", shared, 0, number, time.time())
        os.dup2(quiet, 2)
        os.dup2(quiet, 1)
        try:
            code, what = run_case(case, folder, written), ""
        except BaseException:
            code, what = 4, traceback.format_exc()
        os.dup2(errors, 2)
        os.dup2(errors, 1)
        grown = _peak() - before
        if grown > MOST_BYTES:
            code, what = 4, f"{grown >> 20} MiB of memory; {OUTCOMES[code]}\n{what}"
        if code == 4:
            keep(args, case, number, what)
        shared[16 + i] = code + 1
    os._exit(0)


def keep(args: argparse.Namespace, case: Case, number: int, what: str) -> None:
    """Keep the files of a finding."""
    folder = Path(args.folder, "findings", f"{args.seed}-{number}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{case.base.name}.onnx").write_bytes(case.content)
    if case.base.data is not None:
        (folder / case.base.data[0]).write_bytes(case.data or b"")
    (folder / "what.txt").write_text(f"{case.kind} of {case.base.name}\n{what}")
    last = what.strip().splitlines()[-1] if what.strip() else ""
    print(
        f"finding {number}: {case.kind} of {case.base.name}: {last[:200]}", flush=True
    )


def watch(pid: int, shared: mmap.mmap) -> str:
    """Wait for a child; kills it where one case takes too long. Says how it ended."""
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
            return f"exit {os.WEXITSTATUS(status)}" if status else ""
        _, since = struct.unpack_from("qd", shared, 0)
        if since and time.time() - since > LONGEST:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f"no answer within {LONGEST:g} s"
        time.sleep(0.02)


def main() -> int:
    """Run cases until enough are done, and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    # as libFuzzer's own, which fuzz/run.py gives
    parser.add_argument("-runs", type=int, default=0, help="cases; 0: no limit")
    parser.add_argument("-max_total_time", type=float, default=60.0, help="0: no limit")
    parser.add_argument("-seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kinds", default=",".join(CHANGES))
    parser.add_argument("--folder", default="build/fuzz/models")
    parser.add_argument("--bases", action="store_true", help="only convert the models")
    args, _ = parser.parse_known_args()
    args.kinds = args.kinds.split(",")
    sys.path[:0] = [str(ROOT), str(ROOT / "converter")]
    made = Path(args.folder, "bases")
    if args.bases:
        write_bases(made)
        return 0
    if not (made / "module.rows").exists():  # in a process that may import torch
        line = [sys.executable, __file__, "--bases", "--folder", args.folder]
        subprocess.run(line, check=True)
    bases = read_bases(made)
    import onnxruntime  # noqa: F401 - once, before the children

    import din_infer.predictor  # noqa: F401

    # In memory where that has a path: opening a file on a disk took 0.7 of 15 ms.
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="din-fuzz-", dir=place) as scratch:
        args.scratch = scratch
        counts, findings, seconds = try_cases(bases, args)
    ends = ", ".join(f"{v:,} {k}" for k, v in sorted(counts.items()))
    print(f"{ends}; {seconds:.0f} s")
    print(f"stat::number_of_executed_units: {sum(counts.values())}")
    return 1 if findings else 0


def try_cases(
    bases: list[Base], args: argparse.Namespace
) -> tuple[Counter[str], int, float]:
    """Run cases in one child after another; returns how they ended, findings, time."""
    counts: Counter[str] = Counter()
    begin, number, findings = time.monotonic(), args.first, 0
    while not args.runs or number - args.first < args.runs:
        if args.max_total_time and time.monotonic() - begin > args.max_total_time:
            break
        shared = mmap.mmap(-1, 16 + CHILD_CASES)
        pid = os.fork()
        if pid == 0:
            try:
                child(bases, args, number, shared)
            finally:
                os._exit(1)
        ended = watch(pid, shared)
        codes = [c - 1 for c in shared[16:] if c]
        counts.update(OUTCOMES[c] for c in codes)
        findings += codes.count(4)
        number += len(codes)
        if ended:
            at, since = struct.unpack_from("qd", shared, 0)
            if not since:
                raise RuntimeError(f"a child ended before its first case: {ended}")
            case = draw_case(bases, args.seed, at, args.kinds)
            keep(args, case, at, ended)
            counts["died"] += 1
            findings += 1
            number = at + 1
    return counts, findings, time.monotonic() - begin


if __name__ == "__main__":
    sys.exit(main())

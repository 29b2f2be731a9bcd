"""What is no regular file, or only looks large: refused at once, by every reader.

Each reader is one of this project's entries that opens a file by its path. None may
wait for a pipe's other end, read a device that has no end, or hold a sparse file of
10 GB.
"""

import gzip
import os
import pickle
import resource
import socket
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from din_converter import convert, load
from din_converter.cli import train_main
from din_converter.rows import Rows
from din_converter.run import RunFolder, read_events
from din_infer import FeatureSpec
from din_infer.errors import DinError, InputError
from din_infer.jobs.explain import find_rows
from din_infer.jobs.history import build
from din_infer.jobs.init.first_spec import first_spec
from din_infer.jobs.inspect import inspect_files
from din_infer.regular_file import open_regular, read_text
from tests.models import SPECS

SPEC = FeatureSpec.from_dict(SPECS["paper"])
LARGE = 10 << 30
MOST_BYTES = 100 << 20


Read = Callable[[Path], object]


def of_import(source: str, **others: Callable[[Path], Path]) -> Read:
    """A reader of one file of an importer; `others` name those beside it."""

    def read(path: Path) -> object:
        made = {key: place(path) for key, place in others.items()}
        model = made.pop("model", path)
        return convert(model, path.parent / "o.onnx", source=source, **made)

    return read


def itself(path: Path) -> Path:
    return path


def text_of(text: str) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        made = path.parent / "beside"
        made.write_text(text)
        return made

    return write


def values_file(path: Path) -> FeatureSpec:
    encoder = {"type": "vocab", "values_file": path.name}
    raw = {"format": 1, "user": [{"name": "u", "dim": 2, "encoder": encoder}]}
    return FeatureSpec.from_dict(raw, folder=path.parent)


def checkpoint_of_run(path: Path) -> object:
    run = RunFolder(path.parent / "run", {})
    run.path.mkdir(exist_ok=True)
    run.checkpoint.unlink(missing_ok=True)
    run.checkpoint.symlink_to(path)
    return run.begin(resume=True)


def config_of_training(path: Path) -> None:
    raise InputError(str(train_main(["--config", str(path)])))


def explain(path: Path) -> list[int]:
    return find_rows(path, [("user_id", "u1")], 1, SPEC)


def history(path: Path) -> object:
    return build(path, path.parent / "o.parquet")


IMPORT = {
    "deepctr-torch": of_import("deepctr-torch"),
    "deepctr-torch, description": of_import("deepctr-torch", description=itself),
    "torch-rechub": of_import("torch-rechub"),
    "torch-rechub, description": of_import("torch-rechub", description=itself),
    "recbole": of_import("recbole"),
    "fuxictr": of_import(
        "fuxictr",
        feature_map=text_of("{}"),
        model_config=text_of("e: {dnn_hidden_units: [4]}"),
    ),
    "fuxictr, feature_map": of_import(
        "fuxictr", feature_map=itself, model_config=text_of("e: {model: DIN}")
    ),
    "fuxictr, model_config": of_import(
        "fuxictr", feature_map=text_of("{}"), model_config=itself
    ),
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "spec.toml": ("x.toml", FeatureSpec.load),
    "spec.json": ("x.json", FeatureSpec.load),
    "values_file": ("x.txt", values_file),
    "model.pt": ("x.pt", load),
    "program.pt2": ("x.pt2", lambda p: convert(p, p.parent / "o.onnx")),
    "checkpoint.pt": ("x.pt", checkpoint_of_run),
    "metrics.jsonl": ("x.jsonl", read_events),
    "config.toml": ("x.toml", config_of_training),
    **{name: ("x.pth", read) for name, read in IMPORT.items()},
}
DATA = ("parquet", "arrow", "arrows", "csv", "tsv", "jsonl", "csv.gz", "jsonl.zst")
for suffix in DATA:
    READERS |= {
        f"train, {suffix}": (f"x.{suffix}", lambda p: Rows.open([p], SPEC)),
        f"inspect, {suffix}": (f"x.{suffix}", lambda p: inspect_files(SPEC, [p])),
        f"explain, {suffix}": (f"x.{suffix}", explain),
        f"init, {suffix}": (f"x.{suffix}", lambda p: first_spec([p])),
        f"history, {suffix}": (f"x.{suffix}", history),
    }


def listen(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has 100 bytes at most
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGE)


KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a socket": listen,
    "a link to a pipe": link_to_pipe,
    "an endless device": lambda p: p.symlink_to("/dev/zero"),
    "an empty device": lambda p: p.symlink_to("/dev/null"),
    "a folder": Path.mkdir,
    "a link to itself": lambda p: p.symlink_to(p.name),
    "10 GB of nothing": sparse,
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="din-special-") as name:
        yield Path(name)


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def refused(read: Callable[[Path], object], path: Path) -> int:
    """Read in a thread of its own; the error must be ours.

    Returns the bytes that memory grew by at most.
    """
    found: list[object] = []

    def work() -> None:
        try:
            found.append(read(path))
        except BaseException as error:
            found.append(error)

    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = resident_bytes()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), "no answer"
    grown = peak_bytes() - before
    (error,) = found
    if not isinstance(error, DinError):
        assert isinstance(error, BaseException), error
        raise error
    return grown


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_refuses_it_soon(kind: str, folder: Path) -> None:
    large = {}
    for k, (name, (file, read)) in enumerate(READERS.items()):
        path = folder / str(k) / file
        path.parent.mkdir()
        KINDS[kind](path)
        try:
            grown = refused(read, path)
        except BaseException as error:
            error.add_note(f"{name}: {kind}")
            raise
        # DuckDB's readers of text have buffers of 32 MB each
        most = 3 * MOST_BYTES if name.startswith("history") else MOST_BYTES
        if grown > most:
            large[name] = grown >> 20
    assert large == {}


# ------------------------------------------------------------ files made to be large


def then_nothing(start: bytes) -> Callable[[Path], object]:
    """Begin as a file of the format does, and go on with 10 GB of nothing."""

    def write(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, LARGE)

    return write


def archive(path: Path, member: str, data: bytes, how: int) -> None:
    with zipfile.ZipFile(path, "w", how) as made:
        made.writestr(member, data)


def large_directory(path: Path) -> None:
    """A zip archive whose directory is said to be 9 GB of nothing before its end."""
    archive(path, "x/data.pkl", pickle.dumps({}), zipfile.ZIP_STORED)
    locator = len(zipfile.ZipFile(path).read("x/data.pkl"))
    start, size = 1 << 20, 9 << 30
    os.truncate(path, start + size)
    end64 = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12)
    end64 += (1).to_bytes(8, "little") * 2 + size.to_bytes(8, "little")
    end64 += start.to_bytes(8, "little")
    at64 = start + size
    locator = b"PK\x06\x07" + bytes(4) + at64.to_bytes(8, "little") + b"\1\0\0\0"
    end = b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)
    with path.open("r+b") as file:
        file.seek(at64)
        file.write(end64 + locator + end)


def packed(path: Path) -> None:
    """200 MB of zeros in a storage, which deflate makes 200 KB."""
    state = {"w": torch.zeros(1)}
    torch.save(state, path)
    with zipfile.ZipFile(path) as made:
        members = {name: made.read(name) for name in made.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, bytes(200 << 20) if "/data/" in name else data)


def pickled(code: bytes) -> Callable[[Path], object]:
    """A pickle of these instructions, as torch.save's archive has it."""
    data = b"\x80\x02" + code + b"."

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
            made.writestr("x/data.pkl", data)

    return write


def doubled(code: bytes, times: int = 40) -> bytes:
    """A value, in a pair with itself, and that again."""
    return code + b"2\x86" * times


SPEC_KEYS = b"}q\0(X\x06\0\0\0formatK\1X\x04\0\0\0specX\2\0\0\0{}X\x0a\0\0\0state_dict"
ALIASES = "a0: &a0 [1, 1]\n" + "".join(
    f"a{k + 1}: &a{k + 1} [*a{k}, *a{k}]\n" for k in range(40)
)
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
CRAFTED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a spec that goes on": ("spec.toml", then_nothing(b"format = 1\n")),
    "values that go on": ("values_file", then_nothing(b"a\nb\n")),
    "a log that goes on": ("metrics.jsonl", then_nothing(b'{"event": "step"}\n')),
    "deep TOML": ("spec.toml", lambda p: p.write_text("a = " + "[" * 100_000)),
    "deep JSON": ("spec.json", lambda p: p.write_text("[" * 1_000_000)),
    "a deep config": ("config.toml", lambda p: p.write_text("a = " + "[" * 100_000)),
    "a number of 1 MB": ("spec.json", lambda p: p.write_text("9" * 1_000_000)),
    "an archive that goes on": ("model.pt", then_nothing(b"PK\3\4")),
    "a large directory": ("model.pt", large_directory),
    "a large directory of a program": ("program.pt2", large_directory),
    "a packed storage": ("model.pt", packed),
    "a packed storage of another library": ("deepctr-torch", packed),
    "an old file that goes on": ("deepctr-torch", then_nothing(LEGACY)),
    "an old model that goes on": ("model.pt", then_nothing(LEGACY)),
    "an array of zeros that is asked for": (
        "model.pt",
        pickled(b"cbuiltins\nbytearray\nq\1J\0\0\0\x70\x85R"),
    ),
    "pairs of pairs as weights": ("fuxictr", pickled(doubled(b"K\1"))),
    "pairs of pairs as a spec": (
        "model.pt",
        pickled(SPEC_KEYS + doubled(b"K\1") + b"u"),
    ),
    "pairs of pairs as a key": ("recbole", pickled(b"}" + doubled(b"K\1") + b"K\1s")),
    "pairs of pairs as an id": ("recbole", pickled(doubled(b"K\1") + b"Q")),
    "a list in itself": ("deepctr-torch", pickled(b"]q\1h\1a")),
    "pairs of pairs by anchors": (
        "fuxictr, model_config",
        lambda p: p.write_text(ALIASES + "e: {dnn_hidden_units: *a40}\n"),
    ),
    "an anchor in itself": (
        "fuxictr, model_config",
        lambda p: p.write_text("e: &e {dnn_hidden_units: *e}\n"),
    ),
    "tuples of tuples as a key": (
        "fuxictr, model_config",
        lambda p: p.write_text(
            ALIASES.replace(" [", " !!python/tuple [") + "e: {? *a40 : 1}\n"
        ),
    ),
    "Python in YAML": (
        "fuxictr, model_config",
        lambda p: p.write_text("e: !!python/object/apply:os.system ['true']\n"),
    ),
    "columns and then nothing": ("train, csv", then_nothing(b"user_id,age\nu,1\n")),
    "a line and then nothing": ("inspect, jsonl", then_nothing(b'{"user_id": "u"}\n')),
    "rows and then nothing": ("init, csv", then_nothing(b"user_id,label\nu,1\n")),
    "Parquet and then nothing": ("train, parquet", then_nothing(b"PAR1")),
    "Arrow and then nothing": ("train, arrow", then_nothing(b"ARROW1\0\0")),
    "a stream that says 2 GB": (
        "train, arrows",
        lambda p: p.write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
    ),
    "1 GB of nothing in 1 MB": (
        "train, csv.gz",
        lambda p: p.write_bytes(gzip.compress(b"user_id,age\n" + bytes(1 << 30), 1)),
    ),
}
# One record may have 64 MB, which is searched for its end: a quote that nobody closed.
LARGE_RECORDS = ("columns and", "a line and", "1 GB of nothing")


@pytest.mark.slow
@pytest.mark.parametrize("name", CRAFTED)
def test_a_file_that_is_made_to_be_large_is_refused_soon(
    name: str, folder: Path
) -> None:
    reader, make = CRAFTED[name]
    file, read = READERS[reader]
    make(folder / file)
    grown = refused(read, folder / file)
    many = name.startswith(LARGE_RECORDS)
    assert grown < MOST_BYTES * (5 if many else 2), grown >> 20


def test_text_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("ä\r\nb\rc\n".encode())
    assert read_text(path) == "ä\nb\nc\n"
    assert read_text(path, 9) == "ä\nb\nc\n"
    with pytest.raises(ValueError, match="more than 7 bytes"):
        read_text(path, 7)
    path.write_bytes(b"a\0")
    with pytest.raises(ValueError, match="a NUL, which no text has"):
        read_text(path)
    with open_regular(path) as file:
        assert (file.read(), file.name) == (b"a\0", str(path))

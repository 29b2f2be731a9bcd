"""A file of torch.save, read without executing anything in it.

Tensors, NumPy arrays, containers and plain values are made from the file's own bytes;
every other object is an `Inert`.
"""

import io
import mmap
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from din_converter.importers.pickle_machine import (
    Inert,
    Machine,
    RefusedPickle,
    check_shared,
    shown,
)
from din_converter.importers.pickle_makers import FINISHERS, MAKERS, Storage, is_sizes
from din_converter.quiet import first_line
from din_infer.errors import ConversionError, ModelError
from din_infer.regular_file import open_regular

__all__ = [
    "Inert",
    "module_state",
    "opened_archive",
    "read_pickle",
    "read_pickled",
    "read_plain",
    "state_dict_of",
]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
LEGACY_STARTS = tuple(
    pickle.dumps(LEGACY_MAGIC, protocol)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
)
# Of a zip archive's directory: of some 20,000 members, where checkpoints have hundreds.
MOST_DIRECTORY_BYTES = 1 << 22
BLOCK_BYTES = 1 << 20
MAX_MODULES = 100_000
MAX_DEPTH = 100
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


class _OtherFile(RefusedPickle):
    """It is not even begun by torch.save."""


def read_pickle(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401
    """Read what torch.save wrote, in its zip or its older format.

    Parameters
    ----------
    path : path

    Returns
    -------
    object
        Tensors are on the CPU and own their memory together. Parameters are plain
        tensors; sets, dicts, lists, tuples, NumPy arrays and scalars are themselves;
        any other object, class or function is an `Inert`.

    Raises
    ------
    ConversionError
        If the file is none, is damaged, or holds what no checkpoint needs.

    Notes
    -----
    Nothing that the file names is imported or called.
    """
    path = Path(path)
    try:
        return _read_file(path)
    except RefusedPickle as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    raise ConversionError("a checkpoint that torch.save wrote", reason, str(path))


def read_pickled(data: bytes) -> Any:  # noqa: ANN401
    """Read bytes that torch.save wrote, as `read_pickle` does; raises RefusedPickle."""
    return _read(io.BytesIO(data), data)


def read_plain(path: Path, rule: str, fix: str = "") -> Any:  # noqa: ANN401
    """Read what torch.save wrote, if it is tensors and plain values alone.

    Parameters
    ----------
    path : Path
    rule : str
        What the file should be, for the error.
    fix : str
        What helps where it is another kind of pickle.

    Raises
    ------
    ModelError
        If it is not; nothing that it names is imported or called.
    """
    try:
        value = _read_file(path)
    except RefusedPickle as error:
        is_other = isinstance(error, _OtherFile)
        got = error if is_other else f"a file that is cut off or damaged ({error})"
        raise ModelError(rule, got, str(path), fix * is_other) from None
    except OSError as error:
        raise ModelError(rule, error, str(path)) from None
    found = _first_inert(value)
    if found is not None:
        got = f"a pickle that is not weights only ({found!r})"
        raise ModelError(rule, got, str(path), fix)
    return value


def _first_inert(value: Any) -> Inert | None:  # noqa: ANN401
    """Find an object that is neither a tensor nor a plain value."""
    pending, seen = [value], set()
    while pending:
        part = pending.pop()
        if isinstance(part, Inert):
            return part
        if isinstance(part, dict | list | tuple | set | frozenset):
            if id(part) in seen:
                continue
            seen.add(id(part))
            pending.extend(part)
            pending.extend(part.values() if isinstance(part, dict) else ())
    return None


def _read_file(path: Path) -> Any:  # noqa: ANN401
    with open_regular(path) as file:
        start = file.read(4)
        file.seek(0)
        if start[:2] == b"PK" or not start:
            return _read(file, start)
        with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as view:
            return _read(view, view)


def _read(file: IO[bytes] | mmap.mmap, data: bytes | mmap.mmap) -> Any:  # noqa: ANN401
    """Read a file in either format; of the older one, `data` is all of it."""
    try:
        if data[:4] == b"PK\x03\x04":
            return _read_zip(file)
        return _read_legacy(data)
    except (OSError, RefusedPickle):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise RefusedPickle(f"a damaged file ({first_line(error)})") from None


# ----------------------------------------------------------------- the two formats


def _run(file: Any, size: int, persistent: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    value = Machine(file, MAKERS, FINISHERS, persistent, 2**20 + 4 * size).run()
    check_shared(value)
    return value


def _stored_members(archive: zipfile.ZipFile, size: int) -> list[str]:
    """List an archive's members; refuse what is packed, or more than `size` bytes."""
    members = archive.infolist()
    names = [m.filename for m in members]
    packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise RefusedPickle(f"a compressed member {packed[0]}")
    if len(set(names)) < len(names) or sum(m.file_size for m in members) > size:
        raise RefusedPickle("an archive whose members overlap")
    return names


class _Limited:
    """A file whose reads are bounded while `most` says so."""

    def __init__(self, file: Any, most: int) -> None:  # noqa: ANN401
        self._file, self.most = file, most
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(min(size, self.most + 1) if size >= 0 else size)
        if len(data) > self.most:
            most = f"more than {self.most:,} bytes"
            raise RefusedPickle(f"an archive whose directory has {most}")
        return data


@contextmanager
def opened_archive(file: Any) -> Iterator[tuple[zipfile.ZipFile, list[str]]]:  # noqa: ANN401
    """Open an archive of stored members, each a part of the file; yields their names.

    Raises
    ------
    RefusedPickle
        If a member is packed, two overlap, or the directory is none of a checkpoint.
    """
    size = file.seek(0, io.SEEK_END)
    size = file.tell() if size is None else size  # of a mmap
    limited = _Limited(file, MOST_DIRECTORY_BYTES)
    with zipfile.ZipFile(limited) as archive:
        limited.most = size
        yield archive, _stored_members(archive, size)


def _read_zip(file: Any) -> Any:  # noqa: ANN401
    with opened_archive(file) as (archive, names):
        size = sum(m.file_size for m in archive.infolist())
        pickles = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedPickle(f"an archive with {len(pickles) or 'no'} data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise RefusedPickle("a TorchScript program")
        order = f"{folder}byteorder"
        if order in names and _member(archive, order)[:7] != b"little":
            raise RefusedPickle("a file of a big-endian machine")
        storages: dict[str, Storage] = {}

        def persistent(pid: Any) -> Storage:  # noqa: ANN401
            key, dtype, count = _storage_id(pid)
            if key not in storages:
                name = f"{folder}data/{key}"
                if name not in names:
                    raise RefusedPickle(f"no data of storage {key!r}")
                _check_size(archive.getinfo(name).file_size, dtype, count)
                data = _exact(_member(archive, name), dtype, count)
                storages[key] = Storage(data, dtype)
            return _same(storages[key], key, dtype, count)

        with archive.open(pickles[0]) as member:
            return _run(io.BufferedReader(member), size, persistent)


def _member(archive: zipfile.ZipFile, name: str) -> bytearray:
    """Read a member, of which memory has no second copy meanwhile."""
    size = archive.getinfo(name).file_size
    data, at = bytearray(size), 0
    with archive.open(name) as file:
        while block := file.read(min(BLOCK_BYTES, size - at)):
            data[at : at + len(block)] = block
            at += len(block)
    return data[:at] if at < size else data


def _check_size(size: int, dtype: torch.dtype, count: int) -> None:
    if size != count * dtype.itemsize:
        raise RefusedPickle(f"{size} bytes for a storage of {count} {dtype}")


def _exact(data: bytearray | memoryview, dtype: torch.dtype, count: int) -> Any:  # noqa: ANN401
    _check_size(len(data), dtype, count)
    return data


def _same(storage: Storage, key: str, dtype: torch.dtype, count: int) -> Storage:
    if storage.flat.dtype != dtype or len(storage.flat) != count:
        raise RefusedPickle(f"storage {key!r} as {dtype} and as {storage.flat.dtype}")
    return storage


def _storage_id(pid: Any) -> tuple[str, torch.dtype, int]:  # noqa: ANN401
    if isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage":
        _, kind, key, _, count, *_ = pid
        if isinstance(kind, Inert) and kind.class_name in STORAGES:
            if isinstance(key, str) and is_sizes((count,)):
                return key, STORAGES[kind.class_name], count
        elif isinstance(kind, Inert):
            raise RefusedPickle(f"a storage of type {kind.class_name}")
    raise RefusedPickle("a persistent id that is no storage")


def _read_legacy(data: bytes | mmap.mmap) -> Any:  # noqa: ANN401
    """Read magic number, version, system, object and keys, and then the storages."""
    head = bytes(data[: max(map(len, LEGACY_STARTS))])
    begun = [len(s) for s in LEGACY_STARTS if head.startswith(s)]
    if not begun:
        raise _OtherFile("another kind of file")
    file = data if isinstance(data, mmap.mmap) else io.BytesIO(data)
    file.seek(begun[0])

    def nothing(pid: Any) -> Any:  # noqa: ANN401
        raise RefusedPickle(f"a persistent id {shown(pid)}")

    version, system = (_run(file, len(data), nothing) for _ in range(2))
    if version != LEGACY_VERSION or not isinstance(system, dict):
        raise RefusedPickle(f"the format {shown(version)}")
    if system.get("little_endian") is not True:
        raise RefusedPickle("a file of a big-endian machine")
    start = file.tell()
    found: dict[str, tuple[torch.dtype, int]] = {}

    def note(pid: Any) -> Any:  # noqa: ANN401
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]  # a class, with its source text
        key, dtype, count = _storage_id(pid)
        if found.setdefault(key, (dtype, count)) != (dtype, count):
            raise RefusedPickle(f"storage {key!r} as {dtype} and as {found[key][0]}")
        return Inert("torch", "Storage", ())

    _run(file, len(data), note)  # to learn the storages, which come behind
    keys = _run(file, len(data), nothing)
    if not isinstance(keys, list) or sorted(found) != sorted(map(str, keys)):
        raise RefusedPickle("other storages than its object has")
    storages: dict[str, Storage] = {}
    at = file.tell()
    with memoryview(data) as view:
        for key in keys:
            dtype, count = found[key]
            if int.from_bytes(view[at : at + 8], "little") != count:
                raise RefusedPickle(f"storage {key!r} of another size")
            end = at + 8 + count * dtype.itemsize
            with view[at + 8 : end] as part:
                storages[key] = Storage(_exact(part, dtype, count), dtype)
            at = end

    def persistent(pid: Any) -> Any:  # noqa: ANN401
        if pid[0] == "module":
            return pid[1]
        storage = storages[pid[2]]
        if len(pid) > 5 and pid[5] is not None:
            return _view_of(storage, pid[5])
        return storage

    file.seek(start)
    return _run(file, len(data), persistent)


def _view_of(storage: Storage, view: Any) -> Storage:  # noqa: ANN401
    if isinstance(view, tuple) and len(view) == 3 and is_sizes(view[1:]):
        _, offset, count = view
        if offset + count <= len(storage.flat):
            part = Storage(b"", storage.flat.dtype)
            part.flat = storage.flat[offset : offset + count]
            return part
    raise RefusedPickle("a view beyond its storage")


# ------------------------------------------------------------------ what was read


def state_dict_of(value: object) -> dict[str, Tensor] | None:
    """Return a loaded value as a state_dict, or None where it is none.

    A state_dict is a mapping of at least one name, each to a tensor.
    """
    if not isinstance(value, Mapping) or not value:
        return None
    if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        return dict(value)
    return None


def module_state(module: Inert) -> dict[str, Tensor]:
    """Collect the state_dict of a pickled torch module.

    Parameters
    ----------
    module : Inert
        As `read_pickle` has it.

    Returns
    -------
    dict of Tensor
        Parameters and persistent buffers, in the order of torch's own state_dict.

    Raises
    ------
    ConversionError
        If it is no module, or its parts contain each other.
    """
    out: dict[str, Tensor] = {}
    pending: list[tuple[Any, str, int]] = [(module, "", 0)]
    visited = 0
    while pending:
        part, prefix, depth = pending.pop()
        visited += 1
        held = part.attributes if isinstance(part, Inert) else {}
        kinds = [held.get(k) for k in ("_parameters", "_buffers", "_modules")]
        parameters, buffers, modules = (d if isinstance(d, dict) else {} for d in kinds)
        plain = all(isinstance(d, dict) for d in kinds)
        if not plain or depth > MAX_DEPTH or visited > MAX_MODULES:
            raise ConversionError("a torch module", repr(part)[:100], prefix or "model")
        skipped = held.get("_non_persistent_buffers_set")
        skipped = skipped if isinstance(skipped, set | list | tuple) else ()
        kept = [(k, v) for k, v in buffers.items() if k not in skipped]
        for name, tensor in (*parameters.items(), *kept):
            if isinstance(tensor, Tensor):
                out[f"{prefix}{name}"] = tensor
        children = [(v, f"{prefix}{k}.", depth + 1) for k, v in modules.items()]
        pending.extend(c for c in reversed(children) if c[0] is not None)
    return out

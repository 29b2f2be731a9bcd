"""A file of torch.save, read without executing anything in it.

Tensors, NumPy arrays, containers and plain values are made from the file's own bytes;
every other object is an `Inert`.
"""

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from din_converter.importers.pickle_machine import Inert, Machine, RefusedPickle
from din_converter.importers.pickle_makers import FINISHERS, MAKERS, Storage, is_sizes
from din_converter.quiet import first_line
from din_infer.errors import ConversionError

__all__ = [
    "Inert",
    "module_state",
    "read_pickle",
    "read_pickled",
    "state_dict_of",
    "stored_members",
]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
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
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except RefusedPickle as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    raise ConversionError("a checkpoint that torch.save wrote", reason, str(path))


def read_pickled(data: bytes) -> Any:  # noqa: ANN401
    """Read bytes that torch.save wrote, as `read_pickle` does; raises RefusedPickle."""
    return _read(io.BytesIO(data), len(data))


def _read(file: BinaryIO, size: int) -> Any:  # noqa: ANN401
    try:
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return _read_zip(file, size) if is_zip else _read_legacy(file.read())
    except (OSError, RefusedPickle):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise RefusedPickle(f"a damaged file ({first_line(error)})") from None


# ----------------------------------------------------------------- the two formats


def _run(file: io.BytesIO, size: int, persistent: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    return Machine(file, MAKERS, FINISHERS, persistent, 2**20 + 4 * size).run()


def stored_members(archive: zipfile.ZipFile, size: int) -> list[str]:
    """List an archive's members; refuse what is packed, or more than `size` bytes."""
    members = archive.infolist()
    names = [m.filename for m in members]
    packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise RefusedPickle(f"a compressed member {packed[0]}")
    if len(set(names)) < len(names) or sum(m.file_size for m in members) > size:
        raise RefusedPickle("an archive whose members overlap")
    return names


def _read_zip(file: BinaryIO, size: int) -> Any:  # noqa: ANN401
    with zipfile.ZipFile(file) as archive:
        names = stored_members(archive, size)
        pickles = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedPickle(f"an archive with {len(pickles) or 'no'} data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise RefusedPickle("a TorchScript program")
        order = f"{folder}byteorder"
        if order in names and archive.read(order) != b"little":
            raise RefusedPickle("a file of a big-endian machine")
        storages: dict[str, Storage] = {}

        def persistent(pid: Any) -> Storage:  # noqa: ANN401
            key, dtype, count = _storage_id(pid)
            if key not in storages:
                name = f"{folder}data/{key}"
                if name not in names:
                    raise RefusedPickle(f"no data of storage {key!r}")
                storages[key] = Storage(_exact(archive.read(name), dtype, count), dtype)
            return _same(storages[key], key, dtype, count)

        return _run(io.BytesIO(archive.read(pickles[0])), size, persistent)


def _exact(data: bytes | memoryview, dtype: torch.dtype, count: int) -> Any:  # noqa: ANN401
    if len(data) != count * dtype.itemsize:
        raise RefusedPickle(f"{len(data)} bytes for a storage of {count} {dtype}")
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


def _read_legacy(data: bytes) -> Any:  # noqa: ANN401
    """Read magic number, version, system, object and keys, and then the storages."""
    file = io.BytesIO(data)

    def nothing(pid: Any) -> Any:  # noqa: ANN401
        raise RefusedPickle(f"a persistent id {pid!r}")

    try:
        magic = _run(file, len(data), nothing)
    except Exception:  # it is no pickle at all
        magic = None
    if magic != LEGACY_MAGIC or isinstance(magic, float):
        raise RefusedPickle("another kind of file")
    version, system = (_run(file, len(data), nothing) for _ in range(2))
    if version != LEGACY_VERSION or not isinstance(system, dict):
        raise RefusedPickle(f"the format {version!r}")
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
    view = memoryview(data)
    at = file.tell()
    for key in keys:
        dtype, count = found[key]
        if int.from_bytes(view[at : at + 8], "little") != count:
            raise RefusedPickle(f"storage {key!r} of another size")
        end = at + 8 + count * dtype.itemsize
        storages[key] = Storage(_exact(view[at + 8 : end], dtype, count), dtype)
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

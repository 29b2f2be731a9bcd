"""A torch.export program, loaded without running anything that its file names.

torch's loader unpickles sample inputs and odd weights, and turns much of the program's
text into code (see `pt2_program`). So the archive is read here first: every member must
be of a known kind, and every text in it on a list; what can be pickled is read by our
own unpickler and written again; guards and metadata are left out. torch loads that
copy.
"""

import io
import json
import os
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import load_pt2

from din_converter.importers.pickle_machine import RefusedPickle, shown
from din_converter.importers.pt2_program import (
    is_attribute,
    is_plain,
    vetted_program,
    vetted_value,
)
from din_converter.importers.unpickle import opened_archive, read_pickled
from din_converter.quiet import first_line, quiet
from din_infer.errors import ConversionError
from din_infer.regular_file import open_regular

__all__ = ["load_program"]

MAX_DEPTH = 200
MAX_PARTS = 100_000
PLAIN = ("archive_format", "archive_version", "byteorder", "version")
MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
TENSORS = {
    WEIGHTS: re.compile(r"weight_\d{1,9}", re.ASCII),
    CONSTANTS: re.compile(r"tensor_\d{1,9}", re.ASCII),
}
LEAVES = (Tensor, torch.nn.Parameter, int, float, bool, str, type(None))
KNOWN = re.compile(
    r"(\.data/[\w.]+|data/weights/weight_\d{1,9}|data/constants/tensor_\d{1,9}"
    r"|" + "|".join(map(re.escape, (*PLAIN, MODEL, SAMPLES, *TENSORS))) + ")",
    re.ASCII,
)


def load_program(path: str | os.PathLike[str]) -> ExportedProgram:
    """Load a ``.pt2`` that torch.export.save wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    ExportedProgram
        Of plain operators of torch alone, with its example inputs.

    Raises
    ------
    ConversionError
        If the file is none, is damaged, or holds anything but a program of such
        operators, its weights and example tensors: the message names the member.

    Notes
    -----
    Nothing that the file names is imported or called: no pickle in it is given to
    torch, no code, no compiled library, no custom operator.
    """
    path = Path(path)
    try:
        copy = _vetted_copy(path)
    except RefusedPickle as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = f"a damaged file ({first_line(error)[:200]})"
    else:
        return _load(copy, path)
    raise ConversionError("a program that torch.export.save wrote", reason, str(path))


def _load(copy: bytes, path: Path) -> ExportedProgram:
    with quiet():
        try:
            # not torch.export.load: it hides the reason, and tries an older format
            loaded = load_pt2(io.BytesIO(copy)).exported_programs["model"]
        except Exception as error:  # torch's errors share no narrower base
            reason = first_line(error)[:200]
        else:
            program: ExportedProgram = loaded
            return program
    raise ConversionError("a program that this torch can load", reason, str(path))


# ------------------------------------------------------------------------- the archive


def _vetted_copy(path: Path) -> bytes:
    """Read the archive member by member; write a copy of vetted members."""
    members = _members(path)
    vetted = dict(members)
    vetted[MODEL] = _written(vetted_program(_json(members, MODEL), MODEL))
    for place in TENSORS:
        config, pickled = _payloads(members, place)
        vetted[place] = _written({"config": config})
        for name in pickled:
            vetted[name] = _saved_again(members[name], name, samples=False)
    if members[SAMPLES]:
        vetted[SAMPLES] = _saved_again(members[SAMPLES], SAMPLES, samples=True)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in vetted.items():
            archive.writestr(f"program/{name}", data)
    return out.getvalue()


def _members(path: Path) -> dict[str, bytes]:
    with open_regular(path) as file, opened_archive(file) as (archive, names):
        roots = {name.partition("/")[0] for name in names}
        if len(roots) != 1:
            raise RefusedPickle("an archive with more than one folder")
        found = {}
        for name in names:
            inner = name.partition("/")[2]
            if inner.startswith("extra/"):
                continue  # torch keeps them as text beside the program
            if not KNOWN.fullmatch(inner):
                reason = f"a member {inner or name} that no plain program has"
                raise RefusedPickle(reason)
            found[inner] = archive.read(name)
    for needed in (MODEL, SAMPLES, *TENSORS):
        if needed not in found:
            raise RefusedPickle(f"an archive without {needed}")
    return found


def _json(members: dict[str, bytes], name: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(members[name])
    except (RecursionError, ValueError) as error:
        raise RefusedPickle(f"a damaged {name} ({first_line(error)[:200]})") from None


def _written(value: object) -> bytes:
    return json.dumps(value).encode()


def _payloads(
    members: dict[str, bytes], place: str
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Copy a list of tensors; say which of their members torch would unpickle.

    A payload names its member letter by letter: torch's reader takes more for the same
    name, such as another case, and all behind a NUL.
    """
    listed = _json(members, place)
    found = listed.get("config") if isinstance(listed, dict) else None
    if not isinstance(found, dict) or not all(
        isinstance(p, dict) for p in found.values()
    ):
        raise RefusedPickle(f"{place} that lists no tensors")
    out: dict[str, dict[str, Any]] = {}
    pickled: set[str] = set()
    for name, payload in found.items():
        file = payload.get("path_name")
        if not is_attribute(name):
            raise RefusedPickle(f"{place} with {name!r}, which names no tensor")
        if not isinstance(file, str) or not TENSORS[place].fullmatch(file):
            raise RefusedPickle(f"{place} with {name} in {file!r}, which is no tensor")
        member = place.rpartition("/")[0] + "/" + file
        if member not in members:
            raise RefusedPickle(f"an archive without {member}")
        out[name] = vetted_value(payload, place)
        if payload.get("use_pickle"):
            pickled.add(member)
    return out, pickled


def _saved_again(data: bytes, name: str, *, samples: bool) -> bytes:
    """Read a pickled member as data, and write its value by torch.save."""
    try:
        value = read_pickled(data)
    except RefusedPickle as error:
        raise RefusedPickle(f"{name} with {error}") from None
    _check_value(value, name)
    if not samples and not isinstance(value, Tensor):
        raise RefusedPickle(f"{name} with a {type(value).__name__} for a tensor")
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _check_value(value: Any, name: str) -> None:  # noqa: ANN401
    """Allow tensors, numbers, text, and containers of them, none in itself."""
    pending = [(value, 0)]
    visited = 0
    while pending:
        part, depth = pending.pop()
        visited += 1
        if depth > MAX_DEPTH or visited > MAX_PARTS:
            raise RefusedPickle(f"{name} nested too deep")
        if isinstance(part, str) and not is_plain(part):  # keys get into guards
            reason = f"{name} with the text {part[:100]!r}, which is no plain name"
            raise RefusedPickle(reason)
        if type(part) in LEAVES:
            continue
        if type(part) in (dict, OrderedDict):
            inner = [*part, *part.values()]
        elif type(part) in (list, tuple, torch.Size):
            inner = list(part)
        else:
            raise RefusedPickle(f"{name} with {shown(part)} beside its tensors")
        pending.extend((p, depth + 1) for p in inner)

"""A torch.export program, loaded without running anything that its file names.

torch's loader unpickles sample inputs and odd weights, resolves the targets of nodes
by name in all of torch, hands shape formulas to sympy's eval and guards to exec. So the
archive is read here first: every member must be of a known kind, every name in the
program on a list; what can be pickled is read by our own unpickler and written anew;
guards and metadata are left out. torch gets that copy.
"""

import contextlib
import io
import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from din_converter.importers.pickle_machine import RefusedPickle
from din_converter.importers.unpickle import read_pickled
from din_infer.errors import ConversionError, explain

__all__ = ["load_program"]

MAX_DEPTH = 200
PLAIN = ("archive_format", "archive_version", "byteorder", "version")
MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
KNOWN = re.compile(
    r"(\.data/[\w.]+|data/weights/weight_\d+|data/constants/tensor_\d+"
    r"|" + "|".join(map(re.escape, (*PLAIN, MODEL, SAMPLES, WEIGHTS, CONSTANTS))) + ")"
)
ARITHMETIC = (
    "add|sub|mul|truediv|floordiv|mod|neg|pos|pow|abs|eq|ne|lt|le|gt|ge|and_|or_|not_"
    "|getitem"
)
TARGET = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)(?:_?[A-Za-z]\w*|__(?:and|or|xor)__)"
    r"(?:\.[A-Za-z]\w*)?"
    r"|torch\.ops\.higher_order\.wrap_with_set_grad_enabled"
    r"|torch\.sym_(?:int|float|max|min|not|ite|sum)"
    r"|math\.(?:ceil|floor|trunc|sqrt)"
    rf"|_operator\.(?:{ARITHMETIC})"
)
FUNCTIONS = re.compile(
    "Add|Mul|Pow|Integer|Rational|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|Max|Min|Abs"
    "|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality|Unequality|StrictLessThan|LessThan"
    "|StrictGreaterThan|GreaterThan|TruncToInt|FloatTrueDiv|IntTrueDiv|RoundToInt"
    "|ToFloat|PowByNatural|Identity|True|False|oo|int_oo|floor|ceiling"
)
DECLARED = re.compile(
    r"Symbol\('([suz]\d+)'(?:, (?:positive|integer|nonnegative)=True)*\)"
)
NAME = re.compile(r"[A-Za-z_]\w*")
SYMBOL = re.compile(r"[suz]\d+")
FORMULA = re.compile(r"(?:[\w\s+\-*/(),<>=!&|~%]|(?<=\d)\.(?=\d))*")
CONTAINERS = (
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
    "torch.fx.immutable_collections.immutable_list",
    "torch.fx.immutable_collections.immutable_dict",
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
        reason = f"a damaged file ({_first_line(error)})"
    else:
        return _load(copy, path)
    rule = "a program that torch.export.save wrote"
    raise ConversionError(explain(rule, reason, str(path)))


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _load(copy: bytes, path: Path) -> ExportedProgram:
    with _quiet():
        try:
            return torch.export.load(io.BytesIO(copy))
        except Exception as error:  # torch's errors share no narrower base
            reason = _first_line(error)
    rule = "a program that this torch can load"
    raise ConversionError(explain(rule, reason, str(path)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# ------------------------------------------------------------------------- the archive


def _vetted_copy(path: Path) -> bytes:
    """Read the archive member by member; write what is known, and vetted, anew."""
    members = _members(path)
    config = {name: _json(members, name) for name in (MODEL, WEIGHTS, CONSTANTS)}
    _check_constants(config[CONSTANTS])
    pickled = _pickled(config[WEIGHTS]) | _pickled(config[CONSTANTS])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            kept = data
            if name == MODEL:
                kept = json.dumps(_vetted(config[MODEL], 0)).encode()
            elif name == SAMPLES:
                kept = _saved_again(data, name, samples=True)
            elif name.rsplit("/", 1)[-1] in pickled:
                kept = _saved_again(data, name, samples=False)
            archive.writestr(f"program/{name}", kept)
    return out.getvalue()


def _members(path: Path) -> dict[str, bytes]:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        names = [i.filename for i in infos]
        packed = [i.filename for i in infos if i.compress_type != zipfile.ZIP_STORED]
        if packed:
            reason = f"a compressed member {packed[0]}"
            raise RefusedPickle(reason)
        if len(set(names)) < len(names) or sum(i.file_size for i in infos) > size:
            reason = "an archive whose members overlap"
            raise RefusedPickle(reason)
        roots = {name.partition("/")[0] for name in names}
        if len(roots) != 1:
            reason = "an archive with more than one folder"
            raise RefusedPickle(reason)
        found = {}
        for name in names:
            inner = name.partition("/")[2]
            if inner.startswith("extra/"):
                continue  # torch keeps them as text beside the program
            if not KNOWN.fullmatch(inner):
                reason = f"a member {inner or name} that no plain program has"
                raise RefusedPickle(reason)
            found[inner] = archive.read(name)
    for needed in (MODEL, WEIGHTS, CONSTANTS):
        if needed not in found:
            reason = f"an archive without {needed}"
            raise RefusedPickle(reason)
    return found


def _json(members: dict[str, bytes], name: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(members[name])
    except (RecursionError, ValueError) as error:
        reason = f"a damaged {name} ({_first_line(error)})"
        raise RefusedPickle(reason) from None


def _payloads(config: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401
    found = config.get("config") if isinstance(config, dict) else None
    if not isinstance(found, dict) or not all(
        isinstance(p, dict) for p in found.values()
    ):
        reason = "a list of weights that is none"
        raise RefusedPickle(reason)
    return found


def _check_constants(config: Any) -> None:  # noqa: ANN401
    for name, payload in _payloads(config).items():
        if not re.fullmatch(r"tensor_\d+", str(payload.get("path_name"))):
            reason = f"a constant {name} that is no tensor"
            raise RefusedPickle(reason)


def _pickled(config: Any) -> set[str]:  # noqa: ANN401
    """Name the files of weights that torch would unpickle."""
    payloads = _payloads(config).values()
    return {str(p.get("path_name")) for p in payloads if p.get("use_pickle")}


def _saved_again(data: bytes, name: str, *, samples: bool) -> bytes:
    """Read a pickled member as data, and write what it holds by torch.save."""
    if samples and not data:
        return data
    try:
        value = read_pickled(data)
    except RefusedPickle as error:
        reason = f"{name} with {error}"
        raise RefusedPickle(reason) from None
    _check_value(value, name, 0)
    if not samples and not isinstance(value, Tensor):
        reason = f"{name} with a {type(value).__name__} for a tensor"
        raise RefusedPickle(reason)
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _check_value(value: Any, name: str, depth: int) -> None:  # noqa: ANN401
    """Allow tensors, numbers, text, and containers of them."""
    if depth > MAX_DEPTH:
        reason = f"{name} nested too deep"
        raise RefusedPickle(reason)
    if type(value) in (Tensor, torch.nn.Parameter, int, float, bool, str, type(None)):
        return
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        reason = f"{name} with {value!r} beside its tensors"
        raise RefusedPickle(reason)
    for part in parts:
        _check_value(part, name, depth + 1)


# ------------------------------------------------------------------------- the program


def _vetted(value: Any, depth: int) -> Any:  # noqa: ANN401
    """Copy the program's JSON; names and formulas must be on the lists."""
    if depth > MAX_DEPTH:
        reason = f"{MODEL} nested too deep"
        raise RefusedPickle(reason)
    if isinstance(value, list):
        return [_vetted(v, depth + 1) for v in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for key, item in value.items():
        if key in ("target", "as_operator") and item is not None:
            _check_target(item)
        elif key == "expr_str":
            _check_formula(item)
        elif key in ("in_spec", "out_spec") and item is not None:
            _check_tree(item)
        elif key == "as_custom_obj" or (key == "custom_obj_values" and item):
            reason = f"{MODEL} with a custom object"
            raise RefusedPickle(reason)
        if key == "guards_code":
            out[key] = []
        elif key == "metadata":
            out[key] = {}
        else:
            out[key] = _vetted(item, depth + 1)
    return out


def _check_target(target: object) -> None:
    if not isinstance(target, str) or not TARGET.fullmatch(target):
        reason = f"{MODEL} with the operator {target!r}, which is none of torch's own"
        raise RefusedPickle(reason)


def _check_formula(text: object) -> None:
    """Allow arithmetic of sizes: sympy evaluates what stands here."""
    left = DECLARED.sub(r"\1", text) if isinstance(text, str) else '"'
    plain = len(left) < 2000 and FORMULA.fullmatch(left)
    known = all(
        FUNCTIONS.fullmatch(n) or SYMBOL.fullmatch(n) for n in NAME.findall(left)
    )
    # numbers whose powers would fill the memory
    huge = re.search(r"\d{19}", left) or left.count("**") + left.count("Pow") > 1
    if not plain or not known or huge:
        reason = f"{MODEL} with the formula {text!r}, which is no arithmetic of sizes"
        raise RefusedPickle(reason)


def _check_tree(text: object) -> None:
    """Allow tuples, lists and dicts in the description of arguments."""
    try:
        protocol, tree = json.loads(text)  # type: ignore[arg-type]
    except (RecursionError, TypeError, ValueError):
        protocol, tree = None, None
    if protocol != 1 or not _is_plain_tree(tree, 0):
        reason = f"{MODEL} with arguments that are no tuples, lists or dicts"
        raise RefusedPickle(reason)


def _is_plain_tree(tree: Any, depth: int) -> bool:  # noqa: ANN401
    if not isinstance(tree, dict) or depth > MAX_DEPTH:
        return False
    context = tree.get("context")
    if isinstance(context, str):
        try:
            context = json.loads(context)
        except (RecursionError, ValueError):
            return False
    keys = context if isinstance(context, list) else [context]
    plain = all(k is None or isinstance(k, str | int | float | bool) for k in keys)
    children = tree.get("children_spec")
    if tree.get("type") not in (None, *CONTAINERS) or not isinstance(children, list):
        return False
    return plain and all(_is_plain_tree(c, depth + 1) for c in children)

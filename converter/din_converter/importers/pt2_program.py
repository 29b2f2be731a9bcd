"""The JSON of a torch.export program, vetted: every text in it must be on a list.

torch resolves the names of operators in all of torch, hands formulas to sympy's eval,
and writes the names of values, attributes and arguments into Python source, which it
compiles. So no text is passed on that has no rule here.
"""

import ast
import functools
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import torch

from din_converter.importers.pickle_machine import RefusedPickle

__all__ = ["is_attribute", "is_plain", "vetted_program", "vetted_value"]

MAX_DEPTH = 200
MAX_FORMULA = 2000
MAX_POWERS = 2
MAX_EXPONENT = 64
MAX_NUMBER = 10**18
MAX_PRECISION = 64
DECIMAL = re.compile(r"\d{1,18}(?:\.\d{1,18})?", re.ASCII)

# of the operators with a leading underscore, some trust their arguments unchecked
PRIVATE = re.compile(
    r"_(?:assert_(?:async|scalar|tensor_metadata)|softmax|log_softmax|safe_softmax"
    r"|masked_softmax|to_copy|conj|unsafe_view|unsafe_index|reshape_alias|reshape_copy"
    r"|native_batch_norm_legit\w*|batch_norm_\w+|prelu_kernel|weight_norm\w*"
    r"|scaled_dot_product_\w*attention\w*|native_multi_head_attention"
    r"|transformer_encoder_layer_fwd|embedding_bag(?:_forward_only)?"
    r"|convolution(?:_mode)?|adaptive_avg_pool[23]d|trilinear|cdist_forward"
    r"|euclidean_dist|thnn_fused_(?:gru|lstm)_cell|pack_padded_sequence"
    r"|pad_packed_sequence|local_scalar_dense|is_all_true|is_any_true|fused_rms_norm"
    r"|linalg_\w+|unique2?|shape_as_tensor|_and__|_or__|_xor__)"
)
FILES = ("from_file",)  # reads and makes files
ARITHMETIC = (
    "add|sub|mul|truediv|floordiv|mod|neg|pos|pow|abs|eq|ne|lt|le|gt|ge|and_|or_|not_"
    "|getitem"
)
ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.([A-Za-z]\w*)", re.ASCII)
TARGET = re.compile(
    r"torch\.ops\.higher_order\.(?:cond|wrap_with_set_grad_enabled)"
    r"|torch\.sym_(?:int|float|max|min|not|ite|sum)"
    r"|math\.(?:ceil|floor|trunc|sqrt)"
    rf"|_operator\.(?:{ARITHMETIC})"
)

POWERS = ("Pow", "PowByNatural", "FloatPow")
FUNCTIONS = re.compile(
    "Add|Mul|Integer|Rational|Float|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|Max|Min|Abs"
    "|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality|Unequality|StrictLessThan|LessThan"
    "|StrictGreaterThan|GreaterThan|TruncToInt|TruncToFloat|CeilToInt|FloorToInt"
    "|FloatTrueDiv|IntTrueDiv|RoundToInt|ToFloat|Identity|floor|ceiling|"
    + "|".join(POWERS)
)
LITERALS = ("oo", "int_oo", "true", "false")
PROPERTIES = ("positive", "integer", "nonnegative", "real", "finite")
SYMBOL = re.compile(r"(?:s|u|z|zf|zuf)\d{1,6}", re.ASCII)
PRINTED = re.compile(r"[\w\s+\-*/(),.<>=!&|~%']*", re.ASCII)
STRUCTURE = (
    *(ast.Expression, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare),
    *(ast.Call, ast.keyword, ast.Name, ast.Constant),
)
SIGNS = (
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub),
    *(ast.UAdd, ast.Not, ast.And, ast.Or, ast.Invert, ast.BitAnd, ast.BitOr, ast.Eq),
    *(ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)

SPECIAL = frozenset("\"'\\`{}")
WORD = re.compile(r"[\w.+\-]*", re.ASCII)
CONTAINERS = {
    "builtins.tuple": 0,
    "builtins.list": 0,
    "builtins.dict": 1,
    "collections.OrderedDict": 1,
    "torch.fx.immutable_collections.immutable_list": 0,
    "torch.fx.immutable_collections.immutable_dict": 1,
}
MAPS = (
    "as_string_to_argument",
    "opset_version",
    "range_constraints",
    "sym_bool_values",
    "sym_float_values",
    "sym_int_values",
    "tensor_values",
)
EMPTIED: dict[str, Any] = {
    "guards_code": [],  # compiled when the program is called
    "metadata": {},  # functions by name
    "treespec_namedtuple_fields": {},
}
CUSTOM = ("as_custom_obj", "custom_obj", "custom_obj_values")


def vetted_program(program: Any, place: str) -> dict[str, Any]:  # noqa: ANN401
    """Copy a program's JSON without guards and metadata.

    Parameters
    ----------
    program : object
        As json.loads has it.
    place : str
        The archive's member that it stands in.

    Raises
    ------
    RefusedPickle
        If it names an operator that is not torch's own, a formula that is no
        arithmetic of sizes, an object, or anything else that no rule knows.
    """
    if not isinstance(program, dict):
        raise RefusedPickle(f"{place} that is no program")
    out: dict[str, Any] = vetted_value(program, place)
    return out


def vetted_value(value: Any, place: str) -> Any:  # noqa: ANN401
    """Copy a part of a program; raises RefusedPickle as `vetted_program` does."""
    try:
        return _vetted(value, "", 0)
    except RefusedPickle as error:
        raise RefusedPickle(f"{place} {error}") from None


def _vetted(value: Any, key: str, depth: int) -> Any:  # noqa: ANN401
    """Copy what stands at a key; RefusedPickle says what is wrong with the place."""
    if depth > MAX_DEPTH:
        raise RefusedPickle("nested too deep")
    if isinstance(value, str):
        _check(value, key)
        return value
    if isinstance(value, list):
        return [_vetted(v, key, depth + 1) for v in value]
    if not isinstance(value, dict):
        return value
    if value.get("name") == "assert_msg":  # torch quotes formulas in it
        value = {**value, "arg": {"as_string": "assertion"}}
    out: dict[str, Any] = {}
    for name, item in value.items():
        if key in MAPS:  # of names that the program has chosen
            fits = SYMBOL.fullmatch if key == "range_constraints" else _is_name
            if not fits(name):
                _refuse(key, name)
            out[name] = _vetted(item, "", depth + 1)
            continue
        if not WORD.fullmatch(name):
            _refuse(key or "program", name)
        if name in CUSTOM and item:
            raise RefusedPickle("with a custom object")
        empty = EMPTIED.get(name)
        out[name] = _vetted(item, name, depth + 1) if empty is None else empty
    return out


def _check(text: str, key: str) -> None:
    if key in ("target", "as_operator"):
        if not _is_operator(text):
            reason = f"with the operator {_short(text)}"
            reason += ", which is none of torch's own"
            raise RefusedPickle(reason)
    elif key == "expr_str":
        if not _is_formula(text):
            reason = f"with the formula {_short(text)}"
            reason += ", which is no arithmetic of sizes"
            raise RefusedPickle(reason)
    elif key in ("in_spec", "out_spec"):
        _check_tree(text, key)
    elif not RULES.get(key, WORD.fullmatch)(text):
        _refuse(key or "program", text)


def _refuse(key: str, text: str) -> None:
    reason = f"with the {key} {_short(text)}, which is no plain name"
    raise RefusedPickle(reason)


def _short(text: str) -> str:
    return repr(text) if len(text) <= 100 else f"{text[:100]!r} .."


# ------------------------------------------------------------------------------- names


def is_plain(text: str) -> bool:
    """Whether a text is safe between quotes of any kind in Python source."""
    return text.isprintable() and not set(text) & SPECIAL


def _is_name(text: str) -> bool:
    return text.isidentifier() and unicodedata.normalize("NFKC", text) == text


def _is_argument(text: str) -> bool:
    return not text or _is_name(text)


def is_attribute(text: str) -> bool:
    """Whether a dotted text names an attribute of a module, and no special one."""
    parts = unicodedata.normalize("NFKC", text).split(".")
    return is_plain(text) and not any(p.startswith("__") for p in parts)


RULES: dict[str, Callable[[str], object]] = {
    "as_name": _is_name,
    "as_string": is_plain,
    "as_strings": is_plain,
    "buffer_name": is_attribute,
    "forward_arg_names": _is_name,
    "fqn": is_attribute,
    "name": _is_argument,
    "parameter_name": is_attribute,
    "tensor_constant_name": is_attribute,
    "user_input_name": _is_name,
}


def _is_operator(target: str) -> bool:
    """Whether it is one of torch's dispatcher, or arithmetic.

    The interpreter of TorchScript has operators of its own, aten::save among them.
    """
    found = ATEN.fullmatch(target)
    if not found:
        return TARGET.fullmatch(target) is not None
    name, overload = found.groups()
    if name in FILES or (name.startswith("_") and not PRIVATE.fullmatch(name)):
        return False
    full = f"aten::{name}.{overload}".removesuffix(".default")
    return full in _dispatched()


@functools.cache
def _dispatched() -> frozenset[str]:
    return frozenset(torch._C._dispatch_get_all_op_names())


# ---------------------------------------------------------------------------- formulas


def _is_formula(text: str) -> bool:
    """Whether it is arithmetic of sizes that sympy can evaluate without harm."""
    if len(text) > MAX_FORMULA or not PRINTED.fullmatch(text):
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (MemoryError, RecursionError, SyntaxError, ValueError):
        return False
    known: set[int] = set()  # names and texts that a call has accounted for
    powers = 0
    for node in ast.walk(tree):
        if not isinstance(node, (*STRUCTURE, *SIGNS)):
            return False
        if isinstance(node, ast.Call):
            if not _is_call(node):
                return False
            known.add(id(node.func))
            if _is_symbol(node) or _is_float(node):
                known.add(id(node.args[0]))
            elif _name_of(node.func) in POWERS:
                powers += 1
                if not _is_exponent(node.args):
                    return False
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            powers += 1
            if not _is_exponent([node.left, node.right]):
                return False
        elif isinstance(node, ast.Name) and id(node) not in known:
            if not SYMBOL.fullmatch(node.id) and node.id not in LITERALS:
                return False
        elif isinstance(node, ast.Constant) and not (
            id(node) in known or _is_number(node.value)
        ):
            return False
    return powers <= MAX_POWERS  # a tower of them fills the memory


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < MAX_NUMBER


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_symbol(call: ast.Call) -> bool:
    return _name_of(call.func) == "Symbol"


def _is_float(call: ast.Call) -> bool:
    """Whether it is a number as sympy writes it: Float('0.5', precision=53)."""
    first = call.args[0] if len(call.args) == 1 else None
    text = first.value if isinstance(first, ast.Constant) else None
    return (
        _name_of(call.func) == "Float"
        and isinstance(text, str)
        and DECIMAL.fullmatch(text) is not None
        and all(k.arg == "precision" and _is_precision(k.value) for k in call.keywords)
    )


def _is_precision(node: ast.expr) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, int) and 0 < value <= MAX_PRECISION


def _is_call(call: ast.Call) -> bool:
    if _is_float(call):
        return True
    if not _is_symbol(call):
        known = FUNCTIONS.fullmatch(_name_of(call.func))
        return known is not None and not call.keywords
    first = call.args[0] if len(call.args) == 1 else None
    name = first.value if isinstance(first, ast.Constant) else None
    return (
        isinstance(name, str)
        and SYMBOL.fullmatch(name) is not None
        and all(k.arg in PROPERTIES and _is_true(k.value) for k in call.keywords)
    )


def _is_true(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _is_exponent(args: list[ast.expr]) -> bool:
    """Whether the second of two is a small number."""
    node = args[1] if len(args) == 2 else None
    numbers = ("Integer", "Float")
    if isinstance(node, ast.Call) and _name_of(node.func) in numbers and node.args:
        node = node.args[0]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, str) and DECIMAL.fullmatch(value):
        value = float(value)
    return isinstance(value, int | float) and value <= MAX_EXPONENT


# --------------------------------------------------------------------------- arguments


def _check_tree(text: str, key: str) -> None:
    """Allow tuples, lists and dicts in the description of arguments."""
    try:
        protocol, tree = json.loads(text)
    except (RecursionError, TypeError, ValueError):
        protocol, tree = None, None
    if protocol != 1 or not _is_plain_tree(tree, 0):
        reason = "with arguments that are no tuples, lists or dicts"
        raise RefusedPickle(reason)
    children = tree["children_spec"]
    if tree["type"] != "builtins.tuple" or len(children) != 2 or key != "in_spec":
        return
    if CONTAINERS.get(str(children[1]["type"])):  # keywords become Python source
        for name in _keys(children[1]):
            if not isinstance(name, str) or not _is_name(name):
                _refuse("argument", str(name))


def _keys(tree: dict[str, Any]) -> list[Any]:
    context = tree.get("context")
    if isinstance(context, str):
        context = json.loads(context)
    return context if isinstance(context, list) else [context]


def _is_plain_tree(tree: Any, depth: int) -> bool:  # noqa: ANN401
    if not isinstance(tree, dict) or depth > MAX_DEPTH:
        return False
    kind, children = tree.get("type"), tree.get("children_spec")
    known = kind is None or (isinstance(kind, str) and kind in CONTAINERS)
    if not known or "type" not in tree or not isinstance(children, list):
        return False
    try:
        keys = _keys(tree)
    except (RecursionError, ValueError):
        return False
    return all(
        is_plain(k) if isinstance(k, str) else k is None or isinstance(k, int | float)
        for k in keys
    ) and all(_is_plain_tree(c, depth + 1) for c in children)

"""Where a module computes a value of its graph, as the module's owner knows the place.

torch's exporter notes the lines of Python and the modules that made each node.
"""

import ast
import re
from pathlib import PurePath

import onnx

from din_converter.fusing.view import View

__all__ = ["place_of"]

FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in .*\n[ \t]*(\S.*)')
LIBRARIES = ("site-packages", "dist-packages")
NOTES = "pkg.torch.onnx."


def place_of(view: View, name: str) -> str:
    """Name the line that makes a value, or the nearest before it; "" where none does.

    A program of a ``.pt2`` file has no lines: then the value's own name in it.
    """
    todo, seen = [name], {name}
    while todo:
        node = view.producer.get(todo.pop(0))
        if node is None:
            continue
        found = _place(node)
        if found:
            return found
        todo += [i for i in node.input if i not in seen]
        seen.update(node.input)
    return ""


def _place(node: onnx.NodeProto) -> str:
    notes = {p.key: p.value for p in node.metadata_props}
    frames = FRAME.findall(notes.get(f"{NOTES}stack_trace", ""))
    own = [f for f in frames if not set(PurePath(f[0]).parts) & set(LIBRARIES)]
    scopes = _listed(notes.get(f"{NOTES}name_scopes", ""))
    if own:
        file, line, code = own[-1]
        inside = [s for s in scopes[:-1] if s]
        part = f" in {inside[-1]}" if inside else ""
        return f"{PurePath(file).name}:{line}{part}: {code.strip()}"
    return f"the program's value {scopes[-1]}" if scopes else ""


def _listed(text: str) -> list[str]:
    try:
        return list(map(str, ast.literal_eval(text))) if text else []
    except (SyntaxError, TypeError, ValueError):
        return []

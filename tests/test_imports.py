"""Modules form no circle of imports, lazy ones and those for types included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOTS = {
    "din_infer": Path("din_infer"),
    "din_converter": Path("converter/din_converter"),
}


def _modules() -> dict[str, Path]:
    found = {}
    for name, root in ROOTS.items():
        for path in root.rglob("*.py"):
            parts = [name, *path.relative_to(root).with_suffix("").parts]
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


MODULES = _modules()


def _imported(path: Path) -> set[str]:
    """Name the modules of this project that a file imports, wherever it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                is_module = whole in MODULES or alias.name == "_kernels"
                found.add(whole if is_module else module)
    return found & MODULES.keys()


def test_modules_form_no_circle() -> None:
    graph = {name: _imported(path) - {name} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 100
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_extension_imports_errors_alone() -> None:
    text = Path("din_infer/_kernels.pyx").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "import" in line and "din_" in line]
    assert [line.split()[1] for line in lines] == ["din_infer.errors"]

"""What tests share lies in modules of its own: no test module imports another, nor does a helper."""

import ast
from pathlib import Path

import pytest

MODULES = sorted(Path(__file__).parent.glob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules that a file imports, whether at its top or inside a function."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_here_imports_a_test_module(path: Path) -> None:
    assert not [name for name in imported(path) if name.rpartition(".")[2].startswith("test_")]

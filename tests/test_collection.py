"""Every test is run: pytest finds what stands in a module or a class, and says nothing of the rest."""

from __future__ import annotations

import ast

import pytest

from tests import ROOT

MODULES = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_is_hidden_in_a_function(module):
    """A function that slips in between the methods of a class takes those below it along, unnoticed."""
    functions = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.FunctionDef)]
    hidden = [inner.name for outer in functions for inner in ast.walk(outer) if inner in functions and inner != outer]

    assert [] == [name for name in hidden if name.startswith("test_")]

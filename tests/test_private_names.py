"""No private name of a package that we depend on is used: it may change with any version of it.

waitress is the exception; ``tests/server/test_waitress.py`` lists what we use of it.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator

import pytest

from tests import ROOT
from tests.server.test_waitress import TOUCHED

PACKAGE = ROOT / "llmgateway"
MODULES = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob("*.py"))
WAITRESS = {name for names in TOUCHED.values() for name in names if name.startswith("_")}
DOCUMENTED = {
    "_asdict": "of named tuples",
    "_make": "of named tuples",
    "_replace": "of named tuples",
    "_exit": "of os",
    "_deserialize": "of marshmallow's fields, to be overridden (marshmallow, Custom fields)",
    "_serialize": "of marshmallow's fields, to be overridden (marshmallow, Custom fields)",
}
"""Names that look private, and that their documentation says are not."""


BY_NAME = ("delattr", "getattr", "hasattr", "setattr")


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__")) and name not in DOCUMENTED


def defined_in(tree: ast.AST) -> set[str]:
    """The private names that a module gives to something itself."""
    return {name for part in ast.walk(tree) for name in _given(part) if is_private(name)}


def _given(part: ast.AST) -> Iterator[str]:
    if isinstance(part, ast.FunctionDef | ast.ClassDef):
        yield part.name
    elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
        yield part.id
    elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and _is_own(part.value):
        yield part.attr


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def foreign_names(tree: ast.AST) -> list[str]:
    """The private names in a module that it has not defined itself, with what they are asked of."""
    own = defined_in(tree)
    found = []
    for part in ast.walk(tree):
        if isinstance(part, ast.Attribute) and is_private(part.attr) and part.attr not in own:
            found.append(ast.unparse(part))
        elif isinstance(part, ast.ImportFrom):
            found += [f"{part.module}.{alias.name}" for alias in part.names if is_private(alias.name)]
            found += [part.module for name in (part.module or "").split(".") if is_private(name) and part.module]
        elif isinstance(part, ast.Import):
            found += [alias.name for alias in part.names if any(map(is_private, alias.name.split(".")))]
        elif isinstance(part, ast.Call) and ast.unparse(part.func) in ("getattr", "setattr", "hasattr", "delattr"):
            found += [
                name.value for name in part.args[1:2] if isinstance(name, ast.Constant) and is_private(name.value)
            ]
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_private_names_are_the_modules_own(path):
    """Ours of other modules are theirs, too."""
    found = foreign_names(ast.parse((ROOT / path).read_text()))

    if path.parent.name == "server":
        found = [name for name in found if name.rpartition(".")[2] not in WAITRESS]
    assert [] == found


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "__main__.py"], ids=str)
def test_no_private_name_of_a_base_class_is_replaced(path):
    """Neither on purpose nor by accident: a subclass shares its names with all that it inherits from."""
    tree = ast.parse((ROOT / path).read_text())
    module = importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))

    replaced = {
        f"{definition.name}.{name}, of {base.__module__}"
        for definition in tree.body
        if isinstance(definition, ast.ClassDef)
        for base in getattr(module, definition.name).__mro__[1:]
        if base.__module__.partition(".")[0] not in sys.stdlib_module_names | {"llmgateway"}
        for name in defined_in(definition) & vars(base).keys() - WAITRESS
    }

    assert set() == replaced


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from redis._parsers import x", ["redis._parsers"]),
        ("from flask import _x", ["flask._x"]),
        ("import redis._parsers", ["redis._parsers"]),
        ("connection._sock", ["connection._sock"]),
        ("self._theirs()", ["self._theirs"]),
        ("super()._theirs()", ["super()._theirs"]),
        ("getattr(connection, '_sock')", ["_sock"]),
        ("connection._sock = 1", ["connection._sock"]),
        ("class A:\n    def f(self):\n        self._own = other._own", []),
        ("def _own(): ...\nmodule._own", []),
        ("x.__class__", []),
    ],
)
def test_what_is_found(code, found):
    """The rule, by examples."""
    assert found == foreign_names(ast.parse(code))

"""Who may know whom: data moves one way, edges do not know each other, and an import does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests import ROOT

PACKAGE = ROOT / "llmgateway"
# From the inside out; a module imports only what stands before it. Those of one line do not import each other.
ORDER = """
    clock credential errors records reservations endpoint transmission http1 syscalls threads locks
    background wires loop slots interfaces prices prepare usage settings segments caller
    connections watch leases settlements organisation ladder audit claims stores simulator
    keys limits
    groups exchange journal upstream logs
    prompts relay
    gateway metrics
    services
    web
    app
    server client
    cli
    __init__ __main__
"""
RANK = {name: rank for rank, line in enumerate(ORDER.split("\n")) for name in line.split()}
DRIVERS = {
    "flask",
    "flask_smorest",
    "flask_cors",
    "marshmallow",
    "requests",
    "urllib3",
    "redis",
    "pymongo",
    "waitress",
} | {"prometheus_client"}
OWN = {  # what each may have of the drivers; whoever is not here has none
    "app": {"flask", "flask_cors", "waitress"},
    "server": {"flask", "waitress"},
    "client": {"requests"},
    "loop": {"waitress"},
    "connections": {"requests", "urllib3"},
    "wires": {"urllib3"},
    "upstream": {"urllib3"},
    "metrics": {"prometheus_client"},
    "stores/redis": {"redis"},
    "stores/redis_connection": {"redis"},
    "stores/redis_wire": {"redis"},
    "stores/mongo": {"pymongo"},
    "stores/mongo_import": {"pymongo"},
    "stores/mongo_keys": {"pymongo"},
    "stores/mongo_organisation": {"pymongo"},
    "stores/mongo_audit": {"pymongo"},
    "stores/mongo_usage": {"pymongo"},
    "web": {"flask", "flask_smorest", "marshmallow"},
}
MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in PACKAGE.rglob("*.py")}


def imports(module: str) -> set[str]:
    """What *module* imports, at its head or later: our modules as ``llmgateway/web/guard``."""
    found: set[str] = set()
    package = ["llmgateway", *module.split("/")[:-1]]
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.replace(".", "/") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            path = base + (node.module.split(".") if node.module else [])
            found.update("/".join([*path, alias.name]) for alias in node.names)
    return found


def ours(module: str) -> set[str]:
    """The parts of the package, as ``ORDER`` names them, that *module* imports."""
    parts = {name.split("/")[1] for name in imports(module) if name.startswith("llmgateway/")}
    return {part for part in parts if part in RANK} - {module.split("/")[0]}


def test_every_module_has_its_place():
    """A new module is put into the order, or the order means nothing."""
    assert {module.split("/")[0] for module in MODULES} == RANK.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_what_stands_before_it(module):
    """Inner modules never know outer ones, and only the outermost know app."""
    part = module.split("/")[0]

    assert {name for name in ours(module) if RANK[name] >= RANK[part]} <= ({"cli"} if part == "__main__" else set())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_has_only_its_own_driver(module):
    """A driver is known in one place, and a web framework in the web layer only."""
    allowed = OWN.get(module, OWN.get(module.split("/")[0], set()))

    assert {name.split("/")[0] for name in imports(module)} & DRIVERS <= allowed


@pytest.mark.parametrize("module", ["records", "reservations", "errors", "clock", "transmission"])
def test_the_nouns_need_only_the_standard_library(module):
    """What everybody knows knows nobody."""
    assert {name.split("/")[0] for name in imports(module)} <= sys.stdlib_module_names | {"__future__"}
    assert not ours(module)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith(("web/", "stores/", "upstream"))])
def test_edges_do_not_know_each_other(module):
    """Web, stores and upstream meet in app alone."""
    assert not ours(module) & ({"web", "stores", "upstream", "app"} - {module.split("/")[0]})


@pytest.mark.parametrize(
    "statement", ["import llmgateway", "import llmgateway.gateway, llmgateway.journal, llmgateway.settings"]
)
def test_importing_does_nothing(statement):
    """An import starts no thread and loads no driver: whoever wants the version pays for nothing else."""
    program = f"import sys, threading; {statement}; print(threading.active_count(), *sys.modules)"

    count, *modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()

    assert "1" == count
    assert not DRIVERS & set(modules)

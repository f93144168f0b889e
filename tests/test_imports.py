"""Who may know whom: imports go down only, each driver is known in one place, and an import does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest

from tests import ROOT

PACKAGE = ROOT / "llmgateway"
CONTRACTS = {
    *("clock", "current", "erased", "errors", "local_time", "records", "ratelimit/reservations", "interfaces"),
    *("azure/cancellation", "azure/credentials", "azure/deployments", "azure/endpoint", "azure/failures"),
}
"""What everybody may know."""

MAY_IMPORT: dict[str, set[str]] = {
    # By package, or module at the root: which others it may know beside the contracts.
    "clock": set(),
    "current": set(),
    "errors": set(),
    "erased": set(),
    "records": set(),
    "interfaces": set(),
    "local_time": set(),
    "syscalls": set(),
    "background": set(),
    "azure": {"syscalls"},
    "env_file": {"settings_names"},
    "oidc": set(),
    "settings": {"azure", "env_file", "oidc/settings", "settings_names", "settings_parsers"},
    "settings_names": set(),
    "settings_parsers": {"stores/redis/url"},
    "stores": {"ratelimit/counters", "ratelimit/fair_share", "ratelimit/kinds", "ratelimit/memory", "settings"},
    "usage": {"background", "stores/health"},
    "accounts": {"background", "usage"},
    "class_lists": set(),
    "alerts": {"accounts", "azure/environment", "background", "ratelimit", "stores/health", "usage/journal"},
    "ratelimit": {"accounts", "background", "usage/locks"},
    "reconcile": {"usage"},
    "proxy": {"accounts", "azure", "background", "ratelimit", "usage"},
    "logs": {"accounts"},
    "services": {"accounts", "alerts", "oidc", "proxy", "ratelimit", "settings", "stores/health", "usage"},
    "web": {
        "__init__",
        "accounts",
        "alerts",
        "class_lists",
        "oidc",
        "proxy",
        "ratelimit",
        "reconcile",
        "services",
        "settings",
        "stores/health",
        "usage",
    },
    "app": {
        "accounts",
        "alerts",
        "azure",
        "env_file",
        "oidc",
        "proxy",
        "ratelimit",
        "services",
        "settings",
        "stores",
        "usage",
        "web",
    },
    "server": {"app", "env_file", "logs", "proxy", "services", "settings", "syscalls", "usage", "web"},
    "simulator": set(),
    "demo": {"app", "services", "settings", "stores", "web"},
    "cli": {
        "__init__",
        "app",
        "azure/environment",
        "demo",
        "env_file",
        "logs",
        "reconcile",
        "server",
        "settings",
        "simulator",
        "stores",
        "usage",
        "web",
    },
    "__init__": {"app"},
    "__main__": {"cli"},
}
DRIVERS = {
    "authlib",
    "flask",
    "flask_cors",
    "flask_smorest",
    "httptools",
    "joserfc",
    "marshmallow",
    "openpyxl",
    "prometheus_client",
    "pymongo",
    "redis",
    "requests",
    "sqlite3",
    "urllib3",
    "waitress",
}
OWN: dict[str, set[str]] = {  # what each may have of the drivers; whoever is not here has none
    "alerts/mail": {"requests"},
    "alerts/webhooks": {"requests", "urllib3"},
    "app": {"flask"},
    "azure": {"httptools", "requests", "urllib3"},
    "class_lists/workbooks": {"openpyxl"},
    "oidc/client": {"authlib", "requests"},
    "oidc/connection": {"authlib", "requests"},
    "oidc/tokens": {"authlib", "joserfc"},
    "cli/client": {"requests"},
    "server": {"flask", "waitress"},
    "stores/mongo": {"pymongo"},
    "stores/redis": {"redis"},
    "stores/sqlite": {"sqlite3"},
    "usage/metrics": {"prometheus_client"},
    "web": {"flask", "flask_smorest", "marshmallow"},
    "web/cors": {"flask", "flask_cors"},
    "web/forwarded": {"waitress"},
}


def _name(path: str) -> str:
    return path.removesuffix("/__init__")


MODULES = {_name(path.relative_to(PACKAGE).with_suffix("").as_posix()): path for path in PACKAGE.rglob("*.py")}


def imports(module: str) -> set[str]:
    """What *module* imports, at its head or later: ours as in ``MODULES``, other packages by their name."""
    path = MODULES[module]
    package = list(path.relative_to(ROOT).parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[1 : len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            found.update(_ours("/".join(base), alias.name) for alias in node.names)
    return found - {module}


def _ours(base: str, name: str) -> str:
    module = f"{base}/{name}" if base else name
    return module if module in MODULES else base or "__init__"


def ours(module: str) -> set[str]:
    return imports(module) & MODULES.keys()


def _is_within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}/") for one in allowed)


def test_every_part_has_its_place():
    """A new package, or module at the root, is put into the table, or the table means nothing."""
    assert {module.split("/")[0] for module in MODULES} == MAY_IMPORT.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down_only(module):
    """Inner packages never know outer ones."""
    part = module.split("/")[0]

    assert [] == [name for name in ours(module) if not _is_within(name, {part} | MAY_IMPORT[part] | CONTRACTS)]


def test_no_modules_import_each_other_in_a_circle():
    """Each module can be read, and loaded, before those that need it."""
    # The package itself imports create_app when somebody asks it for that, and else nothing (PEP 562).
    graph = {module: ours(module) for module in MODULES if module != "__init__"}

    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", sorted(MODULES))
def test_has_only_its_own_driver(module):
    """A driver is known in one place, and a web framework in the web layer only."""
    allowed = {driver for part, drivers in OWN.items() if _is_within(module, {part}) for driver in drivers}

    assert imports(module) & DRIVERS <= allowed


NOUNS = {"clock", "errors", "records", "ratelimit/reservations", "azure/cancellation"}


@pytest.mark.parametrize("module", sorted(module for module in MODULES if _is_within(module, NOUNS)))
def test_the_nouns_need_only_the_standard_library(module):
    """What everybody knows knows nobody, but for others of its kind."""
    others = {name for name in imports(module) if not _is_within(name, NOUNS)}

    assert others <= sys.stdlib_module_names | {"__future__"}


@pytest.mark.parametrize(
    "statement",
    ["import llmgateway", "import llmgateway.proxy.pipeline, llmgateway.usage.journal, llmgateway.settings"],
)
def test_importing_does_nothing(statement):
    """An import starts no thread and loads no driver: whoever wants the version pays for nothing else."""
    program = f"import sys, threading; {statement}; print(threading.active_count(), *sys.modules)"

    count, *modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()

    assert "1" == count
    assert not DRIVERS & set(modules)

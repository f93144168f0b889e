"""Where clients are installed: a virtual environment of Python, or a folder of Node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.programs import needed

from .catalogue import PROGRAMS, Client

INSTALL_SECONDS = 600
RUN_SECONDS = 300


class Environment:
    """A folder with the packages of some clients of one registry.

    Args:
        folder: It is made, and used again if the same packages are in it.
        python: An interpreter that has the clients already.
    """

    def __init__(self, folder: Path, *clients: Client, python: Path | None = None) -> None:
        self._folder = folder
        self._packages = {name: version for client in clients for name, version in client.packages.items()}
        [self._registry] = {client.registry for client in clients}
        self._installs = python is None
        self._python = python or (
            folder / "venv" / "bin" / "python" if self._registry == "pip" else Path(sys.executable)
        )

    def install(self, *, newest: bool = False) -> None:
        """Install the clients, in the versions of the catalogue unless their newest ones are wanted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._installs:
            return
        between = "==" if self._registry == "pip" else "@"
        packages = list(self._packages) if newest else [between.join(package) for package in self._packages.items()]
        done = self._folder / "installed.json"
        if not newest and done.exists() and packages == json.loads(done.read_text()):
            return
        if self._registry == "pip":
            self._install_with_pip(packages, newest=newest)
        else:
            self._install_with_npm(packages)
        done.write_text(json.dumps(packages))

    def version(self, client: Client) -> str:
        """Return the installed version of the client's own package."""
        name = next(iter(client.packages))
        if self._registry == "npm":
            package = json.loads((self._folder / "node_modules" / name / "package.json").read_text())
            return str(package["version"])
        ask = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        return _run([str(self._python), "-c", ask, name.partition("[")[0]]).strip()

    def run(self, client: Client, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run the client's program with *environ* and nothing else of this process' variables but the path."""
        if self._registry == "npm":
            # Node looks for packages beside the program.
            for path in PROGRAMS.glob("*.mjs"):
                self._put(path)
        search = os.pathsep.join([str(self._folder / "node_modules" / ".bin"), os.environ["PATH"]])
        own = {"PATH": search, "HOME": str(self._folder), "PYTHONPYCACHEPREFIX": str(self._folder / "pycache")}
        return subprocess.run(
            self._command(client.path),
            cwd=self._folder,
            env={**own, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )

    def _put(self, program: Path) -> None:
        """Copy it at once: another process may be reading it."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            Path(shutil.copy(program, folder)).replace(self._folder / program.name)

    def _command(self, program: Path) -> list[str]:
        if program.suffix == ".py":
            return [str(self._python), str(program)]
        own = self._folder / "node_modules" / ".bin" / "node"
        node = str(own) if own.exists() else needed("node", package="nodejs")
        return [node, str(self._folder / program.name)]

    def _install_with_pip(self, packages: list[str], *, newest: bool) -> None:
        if not self._python.exists():
            _run([sys.executable, "-m", "venv", "--without-pip", str(self._folder / "venv")])
        # What is imported is compiled when it is.
        command = [sys.executable, "-m", "pip", "--python", str(self._python), "install", "--quiet", "--no-compile"]
        _run([*command, *(["--upgrade"] if newest else []), *packages])

    def _install_with_npm(self, packages: list[str]) -> None:
        npm = needed("npm", package="npm")
        _run([npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(self._folder), *packages])


def _run(command: list[str]) -> str:
    # CI installs the gateway with constraints; clients have versions of their own.
    environ = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout

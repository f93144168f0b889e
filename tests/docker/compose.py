"""Reading the Compose files the way Compose does, as far as the tests need it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

DOCKER = Path(__file__).parents[2] / "docker"
FILES = (DOCKER / "compose.databases.yml", DOCKER / "compose.gateway.yml")

# ${NAME}, ${NAME:-default}, ${NAME:?message}; $$ is a dollar for the container.
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<word>[^}]*))?\})")


def load(path: Path) -> dict[str, Any]:
    """Parse one file, merge keys resolved."""
    parsed: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return parsed


def interpolate(text: str, environment: dict[str, str]) -> str:
    """Put the variables into *text*; KeyError for one that is required and missing."""

    def value(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None:
            return "$"
        return environment.get(name) or (found["word"] if found["kind"] == "-" else environment[name])

    return VARIABLE.sub(value, text)


def seconds(duration: str) -> int:
    """Read a duration that is given in seconds alone, as all of ours are."""
    assert duration.endswith("s")
    return int(duration.removesuffix("s"))


def variables(path: Path) -> dict[str, str | None]:
    """Names of the variables a file uses, with how each is used: ``-`` default, ``?`` required, None bare."""
    return {found["name"]: found["kind"] for found in VARIABLE.finditer(path.read_text()) if found["name"]}

"""How a command ends that could not do what it was told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click


def fail(problems: Sequence[str], *, status: int = 2) -> NoReturn:
    """Say what is wrong, a line for each problem, and end."""
    for problem in problems:
        click.echo(f"llmgateway: {problem}", err=True)
    sys.exit(status)

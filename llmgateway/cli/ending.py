"""How a command that failed ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click


def fail(problems: Sequence[str], *, status: int = 2) -> NoReturn:
    """Print a line for each problem on standard error, and end the program with *status*."""
    for problem in problems:
        click.echo(f"llmgateway: {problem}", err=True)
    sys.exit(status)

"""How a command ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import NoReturn

import click


class Exit(IntEnum):
    """The exit statuses of all commands; ``docs/cli.md`` has the same table."""

    DONE = 0
    REFUSED = 1
    """The gateway refused the call or failed, a check has found a problem, or the answer to a question was no."""
    USAGE = 2
    """The command, a setting or a file is wrong. Nothing was sent that changes anything."""
    UNREACHABLE = 3
    """No gateway answers at the address."""
    NO_RIGHT = 4
    """The admin key is wrong, was tried too often, or has no right to this."""

    @classmethod
    def of(cls, status: int | None, code: str | None = None) -> Exit:
        """Return how a command ends whose call was answered with this HTTP status; None if there was no answer."""
        if code == "invalid_url":
            return cls.USAGE
        if code == "invalid_admin_key":
            return cls.NO_RIGHT
        if status is None:
            return cls.UNREACHABLE
        return cls.NO_RIGHT if status in (401, 403) or code == "too_many_attempts" else cls.REFUSED


def fail(problems: Sequence[str], *, status: int = Exit.USAGE) -> NoReturn:
    """Print a line for each problem on standard error, and end the program with *status*."""
    for problem in problems:
        click.echo(f"llmgateway: {problem}", err=True)
    sys.exit(status)


def confirm(question: str, *, yes: bool, option: str = "--yes") -> None:
    """Return if the answer to *question* is yes, or *yes* says so already; end the program otherwise.

    Without a terminal nobody can answer: the program ends with :attr:`Exit.USAGE`.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        fail([f"{question} There is no terminal to answer at: say {option} if this is what you want."])
    if not click.confirm(question, err=True):
        fail(["Nothing was changed."], status=Exit.REFUSED)

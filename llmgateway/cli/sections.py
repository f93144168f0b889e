"""The help of the whole program: commands by subject, with examples, and words that the shell completes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click

from .completion import COMPLETED, Completed
from .examples import EXAMPLES

SECTIONS: Mapping[str, Sequence[str]] = {
    "Run a gateway": ("try", "serve", "simulator", "rebuild-usage"),
    "People and keys": ("keys", "users", "groups", "limits", "accounts"),
    "Reports": ("usage", "filters", "logs", "audit", "status"),
    "Money": ("alerts", "statement", "currency", "reconcile"),
    "Azure": ("models", "llm-key", "prompt", "doctor"),
    "This program": ("admins", "settings", "completion"),
}
"""The commands in the order of the help."""


_LONGEST = 200  # longer than any: what does not fit into a line of the terminal goes on in the next


class Sectioned(click.Group):
    """A group of commands whose help lists them in :data:`SECTIONS`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, names in SECTIONS.items():
            rows = [(name, self.commands[name].get_short_help_str(_LONGEST)) for name in names if name in self.commands]
            with formatter.section(title):
                formatter.write_dl(rows)


def dress(main: click.Group) -> None:
    """Give every command below *main* its examples and the words that the shell completes."""
    for path, command in commands(main):
        if examples := EXAMPLES.get(" ".join(path)):
            lines = "\n".join(f"  {line}" for line in examples)
            command.epilog = f"\b\nExamples:\n{lines}"
        for parameter in command.params:
            kind = COMPLETED.get((path[0], parameter.name or "")) or COMPLETED.get(("", parameter.name or ""))
            if kind is not None and parameter.type is click.STRING:
                parameter.type = Completed(kind)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below *group* that is no group itself, with its names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command

"""The help of every command: its section, its examples, and what the shell completes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.cli.completion import COMPLETED
from llmgateway.cli.ending import Exit
from llmgateway.cli.examples import EXAMPLES
from llmgateway.cli.sections import SECTIONS, commands
from llmgateway.cli.tables import counted
from llmgateway.cli.wording import COMMANDS, for_terminal, option_for
from tests import ROOT
from tests.pages import Page

EVERY = {" ".join(path): command for path, command in commands(main)}


def test_every_command_has_its_section():
    listed = [name for names in SECTIONS.values() for name in names]

    assert len(listed) == len(set(listed))
    assert set(main.commands) <= set(listed)
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in main.commands)


def test_every_command_has_examples():
    assert set(EVERY) == set(EXAMPLES)


@pytest.mark.parametrize(
    "line", [pytest.param(line, id=line) for lines in EXAMPLES.values() for line in lines if "completion" not in line]
)
def test_an_example_is_a_command(line, tmp_path, monkeypatch):
    """Each is read by the command that shows it: its options exist, and have such values."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.rpartition(" | llmgateway ")[2] if "| llmgateway" in line else line)
    words = words[: next((place for place, word in enumerate(words) if word in ("|", ">", "<")), len(words))]
    words = words[words[0] == "llmgateway" :]
    for word in words:
        if re.fullmatch(r"[\w-]+\.(csv|txt|json|xlsx)", word):
            (tmp_path / word).write_text("")
    path, group = [], main
    while isinstance(group, click.Group):
        path.append(words.pop(0))
        group = group.commands[path[-1]]

    assert line in EXAMPLES[" ".join(path)]
    group.make_context(path[-1], words).close()
    assert line in re.sub(r"\n {4,}", " ", CliRunner().invoke(main, [*path, "--help"], terminal_width=200).output)


def test_the_page_has_every_exit_status():
    rows = re.findall(r"^\| `(\d)` \|", Page("docs/cli.md").section("Exit status"), re.MULTILINE)

    assert [str(int(one)) for one in Exit] == rows


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_prints_what_a_shell_completes_with(shell):
    script = CliRunner().invoke(main, ["completion", shell]).output

    assert "_LLMGATEWAY_COMPLETE" in script
    assert "complete" in script


def completed(text: str, **environ: str) -> list[str]:
    """What bash offers for the last word of *text*."""
    words = text.split(" ")
    asked = {"COMP_WORDS": text, "COMP_CWORD": str(len(words) - 1), "_LLMGATEWAY_COMPLETE": "bash_complete"}
    command = [sys.executable, "-c", "from llmgateway.cli import main; main(prog_name='llmgateway')"]
    done = subprocess.run(
        command, env=os.environ | asked | environ, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "" == done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completes_commands_and_options():
    assert ["list"] == completed("llmgateway keys l")
    assert "--group" in completed("llmgateway keys list --g")


def test_completes_nothing_and_says_nothing_without_a_gateway():
    assert [] == completed("llmgateway keys show a", ADMIN_KEY="x" * 20, LLMGATEWAY_URL="127.0.0.1:9")
    assert [] == completed("llmgateway keys show a", ADMIN_KEY="", ADMIN_KEY_FILE="/no/such/file")


def test_what_is_completed_exists():
    """Every row of the table belongs to a parameter of some command."""
    parameters = {(path.split()[0], each.name) for path, command in EVERY.items() for each in command.params}
    names = {name for _, name in parameters}

    assert [] == [row for row in COMPLETED if (row not in parameters if row[0] else row[1] not in names)]


def endpoints_in_messages() -> set[str]:
    """Every endpoint that a text of the package names, with its variable parts as ``{}``."""
    found = set()
    for path in (ROOT / "llmgateway").rglob("*.py"):
        if "cli" not in path.parts:
            endpoint = r"\b(GET|POST|PUT|PATCH|DELETE) (/admin(?:/(?:[\w-]+|\{[\w.]+\}))*)"
            for method, name in re.findall(endpoint, path.read_text()):
                found.add(f"{method} {re.sub(r'/(NAME|{[^}]*})', '/{}', name)}")
    return found


def test_every_endpoint_that_a_message_names_has_a_command():
    assert set() == endpoints_in_messages() - set(COMMANDS)
    assert [] == [command for command in COMMANDS.values() if command not in EVERY]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("There is no such key. GET /admin/keys lists those there are.", "'llmgateway keys list' lists those"),
        ("Set one with POST /admin/setllmkey.", "Set one with 'llmgateway llm-key set'."),
        ("Call POST /admin/groups/{name}/revoke.", "Call 'llmgateway groups revoke'."),
        ("Make it: PUT /admin/groups/{name}, or llmgateway groups set.", "Make it: 'llmgateway groups set'."),
        ("These fields are not right: 'x'. 'errors' says why.", "This was refused, and nothing was changed."),
        ("2 lines (3, 4) are not right; 'errors' says why. Nothing was stored.", "are not right. Nothing was stored."),
        ("requests_per_minute must be positive.", "--requests-per-minute must be positive."),
        ("GET /v1/models is another matter.", "GET /v1/models is another matter."),
        ("GET /admin/none/of/these is left as it is.", "GET /admin/none/of/these is left as it is."),
    ],
)
def test_messages_name_commands_and_options(message, expected):
    assert expected in for_terminal(message)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("limits.budget.amount", "--budget"),
        ("limits.requests_per_minute", "--requests-per-minute"),
        ("member_limits.budget.unit", "--member-budget"),
        ("filter.unused_since", "--unused"),
        ("changes.group", "--to"),
        ("keys.move_to", "--move-to"),
        ("events.0", "--event"),
        ("deployments.0.base_url", "deployments.0.base_url"),
    ],
)
def test_what_is_wrong_is_called_like_its_option(where, expected):
    options = {
        "budget": "--budget",
        "requests_per_minute": "--requests-per-minute",
        "member_budget": "--member-budget",
        "unused_since": "--unused",
        "to": "--to",
        "move_to": "--move-to",
        "group": "--group",
        "events": "--event",
    }

    assert expected == option_for(where, options)


def test_no_line_of_the_help_is_cut():
    shown = CliRunner().invoke(main, ["--help"]).stdout

    assert "..." not in shown.partition("Options:")[2]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (1, "key", "1 key"),
        (2, "key", "2 keys"),
        (0, "entry of the audit", "0 entries of the audit"),
        (1200, "day", "1,200 days"),
    ],
)
def test_counts_in_plain_english(number, noun, expected):
    assert expected == counted(number, noun)

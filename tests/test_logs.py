"""The log: one line for each event, without secrets."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import pytest

from llmgateway.accounts.keys import PREFIX
from llmgateway.logs import RedactingFormatter

SECRETS = ["the-admin-key", "azure-key-1", "azure-key-1-longer", ""]


def line(message: str, *arguments: object, error: BaseException | None = None) -> str:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("llmgateway.x", logging.ERROR, "x.py", 1, message, arguments, exc_info)
    record.created, record.msecs = 1_767_225_600.25, 250.0
    return RedactingFormatter(SECRETS).format(record)


def test_says_when_how_bad_and_where():
    """A line begins with UTC to the millisecond, level and module."""
    assert "2026-01-01T00:00:00.250Z ERROR llmgateway.x: 3 records" == line("%d records", 3)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("key the-admin-key was sent", "the-admin-key"),
        ("azure-key-1-longer", "longer"),
        (f"{PREFIX}Ab0_-xyz sent", "Ab0_-xyz"),
        (f"{PREFIX.upper()}Ab0_-xyz sent", "Ab0_-xyz"),
        ("Authorization: Bearer abc.def", "abc.def"),
        ("{'authorization': 'bearer abc.def'}", "abc.def"),
        ("AdminKey: abc.def", "abc.def"),
        ("api-key: abc.def", "abc.def"),
        ("{'api-key': 'abc.def'}", "abc.def"),
        ('{"AdminKey": "abc.def"}', "abc.def"),
        ("redis://:p%40ss@cache:6379/0", "p%40ss"),
        ("mongodb://gateway:p%40ss@db/", "p%40ss"),
    ],
)
def test_hides_what_opens_a_door(text, hidden):
    """Configured secrets, made-up keys, credentials in headers and logins in URLs are not to be read."""
    assert hidden not in line(text)
    assert "[hidden]" in line(text)
    assert hidden not in line("%s", text)


def test_leaves_the_rest_to_be_read():
    """What is no secret stays, next to what is."""
    shown = line("redis://:p@cache:6379/0 refused (api-key: k 'api-key': 'k') keyed by nobody")

    assert shown.endswith(
        "redis://[hidden]@cache:6379/0 refused (api-key: [hidden] 'api-key': '[hidden]') keyed by nobody"
    )


def test_hides_in_tracebacks():
    """An exception that carries a secret in its text, or in that of its cause, shows it nowhere."""
    secret, key = SECRETS[0], PREFIX + "Ab0xyz"  # not literally in the lines that a traceback quotes
    try:
        try:
            raise ValueError(f"login with {secret} failed")
        except ValueError as cause:
            raise RuntimeError(f"for {key}") from cause
    except RuntimeError as error:
        text = line("failed", error=error)

    assert "Traceback" in text
    assert "RuntimeError: for [hidden]" in text
    assert not re.search(f"{secret}|Ab0xyz", text)


def test_configures_the_whole_process():
    """Every logger of a process writes lines of one form to standard error, from the level that was chosen."""
    program = (
        "import logging; from llmgateway.logs import configure_logging; configure_logging('INFO', ['hunter2']);"
        "logging.getLogger('a').info('with %s', 'hunter2'); logging.getLogger('a').debug('unseen');"
        "logging.getLogger('urllib3.x').warning('unseen')"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "" == done.stdout
    assert re.fullmatch(r"\S+Z INFO a: with \[hidden\]\n", done.stderr)


@pytest.mark.parametrize("text", ["\x1b[31m", "\x9b31m", "\r", "\u202e", "\u2028"], ids=ascii)
def test_shows_what_a_terminal_would_obey(text):
    """A client chooses its X-Forwarded-For, and Azure's answer its error code."""
    shown = line("from %s!", text)

    assert text[0] not in shown
    assert f"from {ascii(text)[1:-1]}!" in shown

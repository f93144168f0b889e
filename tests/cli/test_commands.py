"""The command line: what it says, and its exit status. What it serves is tested with whole processes."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from llmgateway import __version__
from llmgateway.cli import main

NOTHING = {"ADMIN_KEY": "", "LLM_BASE_URL": ""}
ENOUGH = {"ADMIN_KEY": "hunter2-hunter2-hunter2", "LLM_BASE_URL": "http://127.0.0.1:9/openai/v1"}


def run(*arguments: str, **environ: str):
    return CliRunner().invoke(main, arguments, env=NOTHING | environ)


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.mark.parametrize("arguments", [["-h"], ["--help"], ["serve", "-h"], ["try", "-h"], ["simulator", "-h"]])
def test_explains_itself(arguments):
    """Every command and option has a word of explanation."""
    result = run(*arguments)

    assert 0 == result.exit_code
    assert "Usage:" in result.output


def test_says_its_version():
    """As the package has it."""
    assert f"llmgateway, version {__version__}\n" == run("--version").output


def test_is_the_same_as_a_module():
    """``python -m llmgateway`` is the command."""
    done = subprocess.run([sys.executable, "-m", "llmgateway", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout.endswith(f"version {__version__}\n")


def test_names_what_is_missing():
    """A start without settings ends with status 2 and a line for each problem."""
    result = run("serve")

    assert 2 == result.exit_code
    assert ["llmgateway: ADMIN_KEY is missing."] == [line[: line.index(".") + 1] for line in result.stderr.splitlines()]


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--port", "70000", "LLMGATEWAY_PORT must be a whole number from 0 to 65535"),
        ("--threads", "1", "LLMGATEWAY_THREADS must be a whole number from 8"),
        ("--processes", "0", "LLMGATEWAY_PROCESSES must be a whole number from 1"),
    ],
)
def test_checks_options_like_settings(option, value, problem):
    """An option is its setting, and wins over the environment."""
    result = run("serve", option, value, **ENOUGH, LLMGATEWAY_PORT="0", LLMGATEWAY_THREADS="16")

    assert 2 == result.exit_code
    assert problem in result.stderr


def test_says_that_its_port_is_taken(taken_port):
    """With what to do about it, and without any secret."""
    result = run("serve", "--port", taken_port, **ENOUGH)

    assert 2 == result.exit_code
    assert f"Cannot listen on 127.0.0.1:{taken_port}" in result.stderr
    assert "hunter2" not in result.output


def test_warns_before_it_starts(taken_port):
    """What should not stay so is said aloud."""
    result = run("serve", "--port", taken_port, **ENOUGH | {"ADMIN_KEY": "short"})

    assert "WARNING: ADMIN_KEY IS TOO SHORT" in result.stderr


@pytest.mark.parametrize("command", ["try", "simulator"])
def test_other_commands_say_so_too(command, taken_port):
    """A port that was asked for and cannot be had is no reason to take another."""
    result = run(command, "--port", taken_port)

    assert 2 == result.exit_code
    assert f"127.0.0.1:{taken_port}" in result.stderr

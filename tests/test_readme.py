"""The README tells the truth: its commands work as written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests import ROOT
from tests.pages import README


def commands(title: str) -> list[str]:
    """The lines of the first shell block below the heading *title*."""
    return README.code(title).splitlines()


def test_ci_calls_the_test_command_of_the_readme():
    """What CI runs is what the README tells a developer to type."""
    assert 'readme_command "Tests"' in (ROOT / ".ci" / "run").read_text()
    (command,) = commands("Tests")
    assert command.endswith("pytest")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The checkout's commit, cloned as a newcomer would."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout to clone from")
    folder = tmp_path_factory.mktemp("newcomer") / "llmgateway"
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    return folder


@pytest.fixture
def type_in(clone):
    """Type commands into a shell in the clone that knows none of our settings; a context manager, to read from."""

    @contextmanager
    def type_in(script):
        ours = ("LLM", "VIRTUAL_ENV", "PYTHON", "ADMIN", "SECRET", "MONGO", "REDIS")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        with subprocess.Popen(
            ["bash", "-c", script], cwd=clone, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                yield process
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=30)

    return type_in


@pytest.mark.slow
def test_first_command_leads_to_an_answer(type_in):
    """The README's first line, typed into a fresh clone, prints commands that work as printed."""
    (command,) = commands("Try it")

    with type_in(command.replace("llmgateway try", "llmgateway try --port 0")) as process:
        printed = read_up_to(process, "print(")
        assert "You said: Hello" in run(["bash", "-c", indented_block(printed, "With curl:")])
        assert "You said: Hello" in run([sys.executable, "-c", indented_block(printed, "With Python")])


@pytest.mark.slow
def test_further_commands_lead_to_a_user_with_an_answer(clone, type_in):
    """Run it, hand out a key, ask with it: as the README has it, but for the names that the reader puts in."""
    install, _, _ = commands("Try it")[0].rpartition(" && ")
    if not (clone / ".venv").exists():
        subprocess.run(["bash", "-c", install], cwd=clone, check=True)
    *settings, serve = commands("Run it")
    with type_in(".venv/bin/llmgateway simulator --port 0") as simulator:
        base_url, api_key = re.findall(r"LLM_(?:BASE_URL|API_KEY)=(\S+)", read_up_to(simulator, "LLM_API_KEY"))
        azures = {"https://NAME.openai.azure.com/openai/v1": base_url, "LLM_API_KEY=…": f"LLM_API_KEY={api_key}"}
        script = replaced("\n".join([*settings, "echo $ADMIN_KEY", serve]), azures)
        with type_in(f"{script} --port 0") as gateway:
            admin_key, *_, listens = read_up_to(gateway, "listens on").splitlines()
            url = re.search(r"http://[\d.:]+", listens)[0]
            hand_out = replaced(README.code("For admins"), {"http://127.0.0.1:8080": url, "$ADMIN_KEY": admin_key})
            key = json.loads(run(["bash", "-c", hand_out]))["key"]
            ask = replaced(README.code("For users", "python"), {"https://gateway.example.org": url, "llmgw-…": key})

            assert "You said: What is a black hole?" in run([sys.executable, "-c", ask])


def replaced(text: str, values: dict[str, str]) -> str:
    """*text* with what the reader has to put in; each of the names must be there."""
    for name, value in values.items():
        assert name in text
        text = text.replace(name, value)
    return text


def read_up_to(process: subprocess.Popen[str], last: str) -> str:
    """Read what is printed up to the first line that has *last* in it."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if last in line:
            return "".join(lines)
    pytest.fail("the command ended early:\n" + "".join(lines))


def indented_block(text: str, heading: str) -> str:
    """The indented lines below *heading*, without their indentation."""
    block = re.search(rf"^{heading}[^\n]*\n\n((?:  .*\n)+)", text, re.MULTILINE)
    assert block, f"{heading!r} is missing in:\n{text}"
    return re.sub(r"^  ", "", block[1], flags=re.MULTILINE)


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_python_is_recent_enough():
    """The interpreter that the README names is the one that the package asks for."""
    assert shutil.which("python3.11"), "the README's commands need python3.11"
    assert "python_requires = >=3.11" in (ROOT / "setup.cfg").read_text()

"""`codex exec`, OpenAI's agent for the shell, which speaks nothing but the Responses API."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from calls import MODEL, V1, call

SETTINGS = f"""
model = "{MODEL}"
model_provider = "gateway"

[model_providers.gateway]
name = "Gateway"
base_url = "{V1}"
env_key = "GATEWAY_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


def codex(folder: str, question: str) -> list[dict]:
    """Return what has happened, as Codex tells it."""
    program = shutil.which("codex")
    assert program
    command = [program, "exec", "--json", "--skip-git-repo-check", "--sandbox", "read-only", question]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"CODEX_HOME": folder},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 0 == done.returncode, done.stderr[-400:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


with tempfile.TemporaryDirectory() as folder:
    Path(folder, "config.toml").write_text(SETTINGS)
    events = []
    with call("exec"):
        events = codex(folder, "Ask exec_command to Print")
        assert "turn.completed" == events[-1]["type"], events[-1]
    with call("a command in the shell"):
        items = [event["item"] for event in events if event["type"] == "item.completed"]
        assert {"command_execution", "agent_message"} <= {item["type"] for item in items}, items

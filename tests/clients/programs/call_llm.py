"""The command `llm`: a model of the list of models in its settings, and OpenAI's own models at the gateway."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from os import environ
from pathlib import Path

from calls import EMBEDDING_MODEL, KEY, MODEL, QUESTION, V1, call

SETTINGS = f"""
- model_id: mine
  model_name: {MODEL}
  api_base: {V1}
  api_key_name: gateway
  supports_tools: true
  supports_schema: true
"""
PLUGIN = "def weather(city: str) -> str:\n    return f'sunny in {city}'\n"


def llm(*arguments: str, **environment: str) -> str:
    command = [str(Path(sys.executable).with_name("llm")), *arguments]
    done = subprocess.run(
        command, env=environ | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


with tempfile.TemporaryDirectory() as folder:
    environ["LLM_USER_PATH"] = folder
    Path(folder, "extra-openai-models.yaml").write_text(SETTINGS)
    llm("keys", "set", "gateway", "--value", KEY)
    with call("prompt, streamed"):
        assert llm("-m", "mine", "Hello")
    with call("prompt, plain"):
        assert llm("-m", "mine", "--no-stream", "Hello")
    with call("conversation that goes on"):
        assert llm("-m", "mine", "-c", "And?")
    with call("tool loop"):
        told = llm("-m", "mine", "--functions", PLUGIN, QUESTION)
        assert "sunny in Paris" in told, told
    with call("schema"):
        assert "city" in llm("-m", "mine", "--schema", "city str", QUESTION)
    # Its own list of OpenAI's models goes where the environment says.
    with call("its own gpt-4o-mini"):
        assert llm("-m", "gpt-4o-mini", "Hello", OPENAI_BASE_URL=V1, OPENAI_API_KEY=KEY)
    with call("embeddings"):
        options = {"OPENAI_BASE_URL": V1, "OPENAI_API_KEY": KEY}
        assert llm("embed", "-m", EMBEDDING_MODEL, "-c", "one", **options).startswith("[")

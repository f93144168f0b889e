"""What every program of a client needs: where the gateway is, and how to say what became of a call."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

URL = os.environ["GATEWAY_URL"]
"""Without a path, as classes for Azure want it."""
V1 = f"{URL}/v1"
"""As classes for OpenAI want it."""
KEY = os.environ["GATEWAY_KEY"]
VERSION = "2024-10-21"
MODEL = "gpt-4o-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
QUESTION = "What is the weather in Paris?"
"""The simulator calls a tool whose name has a word of the question."""


@contextmanager
def call(name: str) -> Iterator[None]:
    """Print on a line whether the calls of the block have succeeded, and go on if they have not."""
    error = None
    try:
        yield
    except Exception as raised:  # noqa: BLE001 (whatever a client raises is the result)
        traceback.print_exc()
        error = f"{type(raised).__name__}: {raised}"[:500]
    sys.stdout.write(json.dumps({"call": name, "error": error}) + "\n")
    sys.stdout.flush()


def weather(city: str) -> str:
    """Return the weather in a city."""
    return f"sunny in {city}"

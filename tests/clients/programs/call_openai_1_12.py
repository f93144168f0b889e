"""OpenAI's client of February 2024, which many programs are still pinned to."""

from __future__ import annotations

import openai
from calls import EMBEDDING_MODEL, KEY, MODEL, URL, V1, VERSION, call

HELLO = [{"role": "user", "content": "Hello"}]


def ask(client: openai.OpenAI | openai.AzureOpenAI, name: str) -> None:
    with call(f"{name}: chat"):
        assert client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message.content
    with call(f"{name}: chat, streamed"):
        chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    with call(f"{name}: embeddings"):
        assert client.embeddings.create(model=EMBEDDING_MODEL, input="one").data[0].embedding
    with call(f"{name}: models"):
        assert MODEL in [model.id for model in client.models.list()]


with openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0) as client:
    ask(client, "OpenAI")
with openai.AzureOpenAI(azure_endpoint=URL, api_key=KEY, api_version=VERSION, max_retries=0) as client:
    ask(client, "AzureOpenAI")

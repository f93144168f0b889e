"""OpenAI's own client for Python: the classes for Azure, plain and async."""

from __future__ import annotations

import asyncio

import openai
from calls import EMBEDDING_MODEL, KEY, MODEL, URL, VERSION, call

HELLO = [{"role": "user", "content": "Hello"}]
SETTINGS = {"azure_endpoint": URL, "api_key": KEY, "api_version": VERSION, "max_retries": 0}


async def ask_asynchronously() -> None:
    async with openai.AsyncAzureOpenAI(**SETTINGS) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


with openai.AzureOpenAI(**SETTINGS) as client:
    with call("chat"):
        assert client.chat.completions.create(model=MODEL, messages=HELLO).choices[0].message.content
    with call("chat, streamed"):
        chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    with call("chat, async, streamed"):
        asyncio.run(ask_asynchronously())
    with call("responses"):
        assert client.responses.create(model=MODEL, input="Hello").output_text
    with call("responses, streamed"):
        kinds = [event.type for event in client.responses.create(model=MODEL, input="Hello", stream=True)]
        assert "response.completed" == kinds[-1], kinds
    with call("embeddings"):
        assert client.embeddings.create(model=EMBEDDING_MODEL, input=["one", "two"]).data[1].embedding
    with call("models"):
        assert MODEL in [model.id for model in client.models.list()]
with (
    call("azure_deployment and a token of Entra ID's kind"),
    openai.AzureOpenAI(
        azure_endpoint=URL,
        azure_deployment=MODEL,
        azure_ad_token_provider=lambda: KEY,
        api_version=VERSION,
        max_retries=0,
    ) as client,
):
    assert client.chat.completions.create(model="ignored", messages=HELLO).choices[0].message.content

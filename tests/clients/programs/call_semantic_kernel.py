"""Semantic Kernel: the connectors for OpenAI and Azure, with a function that the model calls by itself."""

from __future__ import annotations

import asyncio

import openai
from calls import EMBEDDING_MODEL, KEY, MODEL, QUESTION, URL, V1, VERSION, call, weather
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import (
    AzureChatCompletion,
    AzureTextEmbedding,
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
    OpenAITextEmbedding,
)
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function


class Sky:
    """Plugins are objects with marked methods."""

    weather = staticmethod(kernel_function(weather))


def history(text: str) -> ChatHistory:
    made = ChatHistory()
    made.add_user_message(text)
    return made


async def ask(name: str, service: OpenAIChatCompletion) -> None:
    settings = OpenAIChatPromptExecutionSettings()
    with call(f"{name}: chat"):
        answer = await service.get_chat_message_content(history("Hello"), settings)
        assert str(answer)
    with call(f"{name}: chat, streamed"):
        pieces = [str(piece) async for piece in service.get_streaming_chat_message_content(history("Hello"), settings)]
        assert "".join(pieces)
    with call(f"{name}: function called by itself"):
        kernel = Kernel()
        kernel.add_plugin(Sky(), plugin_name="sky")
        settings = OpenAIChatPromptExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())
        told = await service.get_chat_message_content(history(QUESTION), settings, kernel=kernel)
        assert "sunny in Paris" in str(told), str(told)


async def embed(name: str, service: OpenAITextEmbedding) -> None:
    with call(f"{name}: embeddings"):
        assert 2 == len(await service.generate_embeddings(["one", "two"]))


async def main() -> None:
    client = openai.AsyncOpenAI(base_url=V1, api_key=KEY, max_retries=0)
    # Its own settings take an endpoint only if it begins with https.
    azure = openai.AsyncAzureOpenAI(azure_endpoint=URL, api_key=KEY, api_version=VERSION, max_retries=0)
    of_azure = {"async_client": azure, "endpoint": URL.replace("http:", "https:"), "api_key": KEY}
    await ask("OpenAIChatCompletion", OpenAIChatCompletion(ai_model_id=MODEL, async_client=client))
    await ask("AzureChatCompletion", AzureChatCompletion(deployment_name=MODEL, **of_azure))
    await embed("OpenAITextEmbedding", OpenAITextEmbedding(ai_model_id=EMBEDDING_MODEL, async_client=client))
    await embed("AzureTextEmbedding", AzureTextEmbedding(deployment_name=EMBEDDING_MODEL, **of_azure))


asyncio.run(main())

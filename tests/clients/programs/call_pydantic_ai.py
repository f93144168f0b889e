"""pydantic-ai: the model named `openai:…` with its default, chat and the Responses API, and the provider for Azure."""

from __future__ import annotations

import asyncio

from calls import KEY, MODEL, QUESTION, URL, VERSION, call, weather
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.azure import AzureProvider

azure = OpenAIChatModel(MODEL, provider=AzureProvider(azure_endpoint=URL, api_key=KEY, api_version=VERSION))


class City(BaseModel):
    name: str


async def streamed(model: Model | str) -> str:
    async with Agent(model).run_stream("Hello") as result:
        return "".join([piece async for piece in result.stream_text(delta=True)])


# OPENAI_BASE_URL and OPENAI_API_KEY say where the gateway is.
for name, model in [
    ("openai:", f"openai:{MODEL}"),
    ("openai-chat:", f"openai-chat:{MODEL}"),
    ("openai-responses:", f"openai-responses:{MODEL}"),
    ("azure:", azure),
]:
    with call(f"{name} run"):
        assert Agent(model).run_sync("Hello").output
    with call(f"{name} streamed"):
        assert asyncio.run(streamed(model))
    with call(f"{name} tool loop"):
        told = Agent(model, tools=[weather]).run_sync(QUESTION).output
        assert "sunny in Paris" in told, told
    with call(f"{name} typed output"):
        assert isinstance(Agent(model, output_type=City).run_sync(QUESTION).output, City)

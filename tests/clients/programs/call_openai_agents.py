"""OpenAI's Agents SDK for Python with its defaults: the Responses API, and a loop of tools."""

from __future__ import annotations

import asyncio

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
from calls import KEY, MODEL, QUESTION, V1, call, weather
from openai import AsyncOpenAI
from pydantic import BaseModel


class City(BaseModel):
    name: str


# OPENAI_BASE_URL and OPENAI_API_KEY say where the gateway is.
tool = function_tool(weather)
agent = Agent(name="assistant", instructions="Be brief.", model=MODEL, tools=[tool])


async def main() -> None:
    with call("tool loop"):
        result = await Runner.run(agent, QUESTION)
        assert "sunny in Paris" in result.final_output, result.final_output
    with call("tool loop, streamed"):
        streamed = Runner.run_streamed(agent, QUESTION)
        assert [event async for event in streamed.stream_events()]
        assert "sunny in Paris" in streamed.final_output, streamed.final_output
    with call("tool loop, previous_response_id"):
        first = await Runner.run(agent, "Hello", auto_previous_response_id=True)
        again = await Runner.run(agent, QUESTION, previous_response_id=first.last_response_id)
        assert "sunny in Paris" in again.final_output, again.final_output
    with call("hand-off to another agent"):
        weatherman = Agent(name="weatherman", instructions="Tell the weather.", model=MODEL, tools=[tool])
        front = Agent(name="front", instructions="Hand off.", model=MODEL, handoffs=[weatherman])
        settled = await Runner.run(front, "Transfer to the weatherman, who knows the weather in Paris")
        assert "weatherman" == settled.last_agent.name, settled.last_agent.name
    with call("output with a schema"):
        typed = await Runner.run(Agent(name="typed", model=MODEL, output_type=City), QUESTION)
        assert isinstance(typed.final_output, City)
    with call("tool loop, over chat completions"):
        chat = OpenAIChatCompletionsModel(model=MODEL, openai_client=AsyncOpenAI(base_url=V1, api_key=KEY))
        told = await Runner.run(Agent(name="chat", model=chat, tools=[tool]), QUESTION)
        assert "sunny in Paris" in told.final_output, told.final_output


asyncio.run(main())

"""OpenAI's own client for Python: the classes for OpenAI, plain and async."""

from __future__ import annotations

import asyncio

import openai
from calls import EMBEDDING_MODEL, KEY, MODEL, QUESTION, V1, call
from pydantic import BaseModel

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class City(BaseModel):
    name: str


async def ask_asynchronously() -> None:
    async with openai.AsyncOpenAI(base_url=V1, api_key=KEY, max_retries=0) as client:
        stream = await client.responses.create(model=MODEL, input="Hello", stream=True)
        kinds = [event.type async for event in stream]
        assert "response.completed" == kinds[-1], kinds


with openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0) as client:
    with call("chat"):
        answer = client.chat.completions.create(model=MODEL, messages=HELLO)
        assert answer.choices[0].message.content
        assert answer.usage
    with call("chat, streamed with usage"):
        options = {"include_usage": True}
        chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options=options))
        assert chunks[-1].usage
        assert any(chunk.choices for chunk in chunks)
    with call("chat, parsed"):
        parsed = client.chat.completions.parse(model=MODEL, messages=HELLO, response_format=City)
        assert isinstance(parsed.choices[0].message.parsed, City)
    with call("responses"):
        response = client.responses.create(model=MODEL, input="Hello")
        assert response.output_text
        assert response.usage
    with call("responses, streamed"), client.responses.stream(model=MODEL, input="Hello") as stream:
        assert stream.get_final_response().output_text
    with call("responses, continued, read, deleted"):
        first = client.responses.create(model=MODEL, input="Hello")
        second = client.responses.create(model=MODEL, input="And?", previous_response_id=first.id)
        assert second.previous_response_id == first.id
        assert client.responses.retrieve(first.id).id == first.id
        assert client.responses.input_items.list(first.id).data
        client.responses.delete(first.id)
    with call("responses, tool loop"):
        asked = client.responses.create(model=MODEL, input=QUESTION, tools=[TOOL])
        [wanted] = [item for item in asked.output if item.type == "function_call"]
        output = {"type": "function_call_output", "call_id": wanted.call_id, "output": "sunny"}
        told = client.responses.create(model=MODEL, input=[output], previous_response_id=asked.id, tools=[TOOL])
        assert "sunny" in told.output_text
    with call("responses, parsed"):
        parsed = client.responses.parse(model=MODEL, input="Hello", text_format=City)
        assert isinstance(parsed.output_parsed, City)
    with call("responses, async, streamed"):
        asyncio.run(ask_asynchronously())
    with call("embeddings"):
        made = client.embeddings.create(model=EMBEDDING_MODEL, input=["one", "two"])
        assert 2 == len(made.data)
        assert isinstance(made.data[0].embedding[0], float)
    with call("embeddings of tokens"):
        made = client.embeddings.create(model=EMBEDDING_MODEL, input=[[9906, 1917], [9906]], encoding_format="float")
        assert 2 == len(made.data)
    with call("models"):
        assert MODEL in [model.id for model in client.models.list()]

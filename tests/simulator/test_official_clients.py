"""OpenAI's own clients talk to the simulator as they talk to Azure."""

from __future__ import annotations

import json

import openai
import pytest
from openai import AzureOpenAI, OpenAI

from llmgateway.records import Usage
from llmgateway.simulator import DEFAULT_KEY, FAULTS, FILTERED_PHRASE, Script, Simulator, answer_to

from .calls import HELLO

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


@pytest.fixture(params=["v1", "classic"])
def client(request: pytest.FixtureRequest) -> OpenAI | AzureOpenAI:
    return request.getfixturevalue(request.param)


def test_a_plain_answer_can_be_predicted_and_counted(client, azure):
    """The text is answer_to the conversation; its usage is what the simulator has noted."""
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)

    assert answer.choices[0].message.content == answer_to(HELLO) == "You said: hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o-mini-2024-07-18"
    [served] = azure.served
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 4)
    assert (served.usage.prompt_tokens, served.usage.completion_tokens, served.usage.total_tokens) == (8, 4, 12)


def test_a_stream_says_the_same(client):
    """The pieces of a stream are the text of the plain answer."""
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True)

    assert "".join(e.choices[0].delta.content or "" for e in stream if e.choices) == answer_to(HELLO)


def test_usage_comes_last_in_a_stream_that_asks_for_it(client):
    """Only the last event has a usage, and it has no choices."""
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *others, last = list(stream)

    assert last.choices == []
    assert last.usage.completion_tokens == 4
    assert [event.usage for event in others] == [None] * len(others)


def test_max_tokens_end_the_answer(client):
    """An answer that is cut has finish_reason length and no more tokens than allowed."""
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, max_tokens=2)

    assert answer.choices[0].message.content == "You said:"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


def test_several_answers(client):
    """n answers have their own index and number, and are billed together."""
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, n=2)

    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[1].message.content == answer_to(HELLO) + " (2)"
    assert answer.usage.completion_tokens == 9


def test_several_streamed_answers(client):
    """The events of n answers come by turns and can be told apart by their index."""
    texts = {0: "", 1: ""}
    order = []
    for event in client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, n=2, stream=True):
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
            order.append(choice.index)

    assert texts == {0: answer_to(HELLO), 1: answer_to(HELLO) + " (2)"}
    assert order[:6] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "weather"}}, "stop")],
    ids=["required", "named"],
)
def test_a_demanded_tool_is_called(client, choice, finish):
    """The arguments of the call fit the function's schema."""
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, tools=[WEATHER], tool_choice=choice)
    [call] = answer.choices[0].message.tool_calls

    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == finish
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "text", "days": 1}


def test_a_tool_call_is_streamed_in_fragments(client, azure):
    """Name and id come first, then the arguments piece by piece."""
    azure.script(Script(tool_call="weather"))
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, tools=[WEATHER], stream=True)
    choices = [event.choices[0] for event in stream if event.choices]
    calls = [choice.delta.tool_calls[0] for choice in choices if choice.delta.tool_calls]

    assert (calls[0].function.name, calls[0].type, calls[0].function.arguments) == ("weather", "function", "")
    assert len(calls) > 2
    assert [call.id for call in calls[1:]] == [None] * (len(calls) - 1)
    assert json.loads("".join(call.function.arguments for call in calls)) == {"city": "text", "days": 1}
    assert choices[-1].finish_reason == "tool_calls"


def test_a_tool_that_is_offered_is_called_until_it_has_answered(client):
    """With tool_choice auto the model calls it, and answers in words when it has the result."""
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, tools=[WEATHER])
    [call] = answer.choices[0].message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "40 degrees"}
    messages = [*HELLO, answer.choices[0].message, result]
    last = client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=[WEATHER])

    assert answer.choices[0].finish_reason == "tool_calls"
    assert last.choices[0].message.tool_calls is None
    assert last.choices[0].message.content == "The tool says: 40 degrees"


def test_a_tool_is_not_called_if_the_request_forbids_it(client):
    """tool_choice none gets words."""
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, tools=[WEATHER], tool_choice="none")

    assert answer.choices[0].message.tool_calls is None


def test_json_mode_answers_json(client):
    """json_object answers an object with the text in it."""
    messages = [{"role": "user", "content": "as json"}]
    answer = client.chat.completions.create(
        model="gpt-4o-mini", messages=messages, response_format={"type": "json_object"}
    )

    assert json.loads(answer.choices[0].message.content) == {"answer": "You said: as json"}


def test_json_mode_wants_the_word_in_the_prompt(client):
    """Without the word json in a message the request is refused."""
    with pytest.raises(openai.BadRequestError, match="must contain the word 'json'"):
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, response_format={"type": "json_object"})


def test_a_schema_is_kept(client):
    """json_schema answers a document that fits."""
    schema = {
        "type": "object",
        "properties": {
            "colour": {"enum": ["red", "blue"]},
            "points": {"type": "array", "items": {"$ref": "#/$defs/p"}},
        },
        "$defs": {"p": {"type": "object", "properties": {"x": {"type": ["number", "null"]}}}},
    }
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "drawing", "schema": schema}},
    )

    assert json.loads(answer.choices[0].message.content) == {"colour": "red", "points": [{"x": 1}]}


def test_an_image_costs_the_same_whatever_its_size(client):
    """The prompt's price counts an image as 85 tokens and its data not at all."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "hello there"}, picture]}]
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages)

    assert answer.usage.prompt_tokens == 8 + 85
    assert answer.choices[0].message.content == "You said: hello there"


def test_a_reasoning_model_thinks_before_it_speaks(client):
    """Its thoughts are part of the completion's tokens and of the limit."""
    answer = client.chat.completions.create(model="o4-mini", messages=HELLO)

    assert answer.usage.completion_tokens_details.reasoning_tokens == 64
    assert answer.usage.completion_tokens == 64 + 4

    answer = client.chat.completions.create(model="o4-mini", messages=HELLO, n=2)

    assert answer.usage.completion_tokens_details.reasoning_tokens == 2 * 64
    assert answer.usage.completion_tokens == 2 * 64 + 4 + 5

    answer = client.chat.completions.create(model="o4-mini", messages=HELLO, max_completion_tokens=50)

    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("", "length")
    assert answer.usage.completion_tokens == 50


@pytest.mark.parametrize("model", ["o4-mini", "gpt-5-mini"])
def test_a_reasoning_model_rejects_max_tokens(client, model):
    """The error names the parameter that takes its place."""
    with pytest.raises(openai.BadRequestError, match="max_completion_tokens") as caught:
        client.chat.completions.create(model=model, messages=HELLO, max_tokens=5)

    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "max_tokens")


def test_cached_tokens_are_reported(client, azure):
    """What the script says came from Azure's cache stands in the usage."""
    azure.script(Script(cached_tokens=1024))
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)

    assert answer.usage.prompt_tokens_details.cached_tokens == 1024


def test_a_forbidden_prompt_meets_the_content_filter(client):
    """The documented phrase is refused with a plain 400, also where a stream was asked for."""
    messages = [{"role": "user", "content": f"Please {FILTERED_PHRASE}."}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)

    assert caught.value.code == "content_filter"
    assert caught.value.response.headers["content-type"] == "application/json"
    assert caught.value.body["innererror"]["content_filter_result"]["sexual"]["filtered"] is True


BILLED = {"content_filter", "content_filter_image", "content_filter_newer", "timeout"}
STATUS_ERRORS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    408: openai.APIStatusError,
    410: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    500: openai.InternalServerError,
    503: openai.InternalServerError,
}


@pytest.mark.parametrize("name", [name for name in FAULTS if not name.startswith("moved")])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_every_fault_raises_the_right_exception(client, azure, name, stream):
    """A scripted fault reaches the client as the exception of its status; at most the prompt is billed."""
    azure.script(Script(fault=name))
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=stream)

    assert type(caught.value) is STATUS_ERRORS[caught.value.status_code]
    [served] = azure.served
    assert (served.status, served.usage, served.finished) == (caught.value.status_code, None, True)
    billed = Usage(prompt_tokens=8, total_tokens=8) if name in BILLED else None
    assert served.billed == billed


def test_a_client_obeys_retry_after(azure: Simulator):
    """After a 429 with retry-after-ms the client's second try is answered."""
    azure.script(Script(fault="capacity", headers={"retry-after-ms": "1", "Retry-After": "1"}))
    with OpenAI(base_url=f"{azure.url}/openai/v1", api_key=DEFAULT_KEY, max_retries=1) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)

    assert [served.status for served in azure.served] == [429, 200]


def test_an_error_in_mid_stream_reaches_the_client(client, azure):
    """The error event ends the stream with an exception, after the events before it."""
    azure.script(Script(error_event_after=4))
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True)
    seen = [next(stream) for _ in range(4)]
    with pytest.raises(openai.APIError, match="had an error while processing"):
        next(stream)

    assert [event.choices[0].delta.content for event in seen[1:]] == ["", "You", " said:"]
    assert b"[DONE]" not in azure.served[0].body_sent

"""What people use: the official client of OpenAI, with nothing changed but the address and the key."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import openai
import pytest

from llmgateway.simulator import FILTERED_PHRASE, Raw, Script, answer_to
from tests.servers import wait_until

MODEL = "gpt-4o-mini"
HELLO = [{"role": "user", "content": "Hello, what is a black hole?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}


def text_of(events):
    """The text of a stream, as the examples in OpenAI's documentation collect it."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in events)


def test_answers_in_one_piece(client, azure):
    """A plain completion has the model's text and Azure's own counts."""
    completion = client.chat.completions.create(model=MODEL, messages=HELLO)

    assert answer_to(HELLO) == completion.choices[0].message.content
    [served] = azure.served
    assert served.usage.total_tokens == completion.usage.total_tokens


def test_streams_an_answer(client):
    """The pieces of a streamed completion are the model's text; the bill stays with the gateway."""
    events = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))

    assert answer_to(HELLO) == text_of(events)
    assert [] == [event for event in events if event.usage]
    assert "stop" == events[-1].choices[0].finish_reason


@pytest.mark.parametrize("annotations", [False, True])
@pytest.mark.parametrize("kind", [None, "asynchronous", "late_block", "completion", "outage"])
def test_runs_the_example_loop_over_every_stream(client, azure, kind, annotations):
    """``chunk.choices[0].delta.content`` needs no guard, whatever Azure's content filter sends, and in both modes."""
    azure.script(Script(filter=kind, prompt_annotations=annotations))

    text = text_of(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))

    assert answer_to(HELLO) == text
    assert b'"choices":[]' in azure.served[0].body_sent


def test_runs_the_example_loop_over_calls_and_several_answers(client):
    """Tools and n have no other events."""
    tools = {"tools": [WEATHER], "tool_choice": "required"}

    called = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, **tools)
    assert "" == text_of(called)
    several = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, n=2)
    assert len(answer_to(HELLO)) < len(text_of(several))


@pytest.mark.parametrize("options", [{"include_usage": False}, {"include_obfuscation": False}, {}])
def test_withholds_the_bill_from_who_did_not_ask(client, azure, options):
    """The gateway asks for the usage event on its own account, whatever else the client chose."""
    events = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options=options))

    assert [] == [event for event in events if event.usage]
    assert {**options, "include_usage": True} == json.loads(azure.served[0].body)["stream_options"]


def test_passes_the_bill_on_to_who_asked(client, azure):
    """A client that asks for the usage event gets it, last and once."""
    events = list(
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True})
    )

    assert [azure.served[0].usage.total_tokens] == [event.usage.total_tokens for event in events if event.usage]
    assert [] == events[-1].choices


async def ask(client, **asked):
    """Ask with the asynchronous client, and give the completion, or the events of the stream."""
    answer = await client.chat.completions.create(**{"model": MODEL, "messages": HELLO} | asked)
    return [event async for event in answer] if asked.get("stream") else answer


def ask_at_once(gateway, key, *questions):
    """The answers to all *questions*, or the exceptions they end in, of one asynchronous client."""

    async def converse():
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            return await asyncio.gather(*(ask(client, **asked) for asked in questions), return_exceptions=True)

    return asyncio.run(converse())


def test_serves_the_asynchronous_client(gateway, key, azure):
    """Plain and streamed, several at once."""
    plain, streamed = {}, {"stream": True}

    first, second, third, fourth = ask_at_once(gateway, key, plain, streamed, plain, streamed)

    assert [answer_to(HELLO)] * 2 == [answer.choices[0].message.content for answer in (first, third)]
    assert [answer_to(HELLO)] * 2 == [text_of(events) for events in (second, fourth)]
    assert 4 == len(azure.served)


def test_serves_the_asynchronous_client_whatever_it_asks_for(gateway, key, azure):
    """Tools, images, JSON, several answers and parameters of the future, all at once."""
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}},
    ]
    json_mode = {
        "messages": [{"role": "user", "content": "Say it in JSON."}],
        "response_format": {"type": "json_object"},
    }

    called, streamed_call, _, in_json, several, _ = ask_at_once(
        gateway,
        key,
        {"tools": [WEATHER], "tool_choice": "required"},
        {"tools": [WEATHER], "tool_choice": "required", "stream": True},
        {"messages": [{"role": "user", "content": parts}]},
        json_mode,
        {"n": 2},
        {"extra_body": {"telepathy": 1}},
    )

    assert "weather" == called.choices[0].message.tool_calls[0].function.name
    assert "weather" in [
        call.function.name
        for event in streamed_call
        for choice in event.choices
        for call in choice.delta.tool_calls or []
    ]
    assert isinstance(json.loads(in_json.choices[0].message.content), dict)
    assert [0, 1] == [choice.index for choice in several.choices]
    bodies = [json.loads(served.body) for served in azure.served]
    assert parts in [body["messages"][0]["content"] for body in bodies]
    assert [1] == [body["telepathy"] for body in bodies if "telepathy" in body]


@pytest.mark.parametrize("stream", [False, True])
def test_gives_the_asynchronous_client_its_exceptions(gateway, key, azure, stream):
    """Of the gateway and of Azure, by status; what the content filter says is whole there, too."""

    def raised(key, **asked):
        return ask_at_once(gateway, key, {"stream": stream} | asked)[0]

    def raised_by(fault):
        azure.script(Script(fault=fault))
        return raised(key)

    filtered = raised(key, messages=[{"role": "user", "content": f"Please {FILTERED_PHRASE}."}])
    expected = [
        (openai.AuthenticationError, raised("nobodys")),
        (openai.BadRequestError, raised(key, messages="Hello")),
        (openai.BadRequestError, filtered),
        (openai.NotFoundError, raised_by("deployment_not_found")),
        (openai.RateLimitError, raised_by("token_rate_limit")),
        (openai.InternalServerError, raised_by("server_error")),
    ]

    assert [kind for kind, _ in expected] == [type(found) for _, found in expected]
    assert "ResponsibleAIPolicyViolation" == filtered.body["innererror"]["code"]


def test_calls_tools(client):
    """A tool call arrives with its name and its arguments."""
    completion = client.chat.completions.create(model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required")

    [call] = completion.choices[0].message.tool_calls
    assert "tool_calls" == completion.choices[0].finish_reason
    assert "weather" == call.function.name
    assert {"place"} == json.loads(call.function.arguments).keys()


def test_calls_tools_in_a_stream(client):
    """The pieces of the arguments are valid JSON when joined."""
    events = list(
        client.chat.completions.create(
            model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required", stream=True
        )
    )

    calls = [call for event in events if event.choices for call in event.choices[0].delta.tool_calls or []]
    assert "weather" == calls[0].function.name
    assert {"place"} == json.loads("".join(call.function.arguments for call in calls)).keys()


def test_takes_images(client, azure):
    """A message of parts goes to Azure as it is."""
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}},
    ]

    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])

    assert parts == json.loads(azure.served[0].body)["messages"][0]["content"]


def test_answers_in_json(client):
    """JSON mode gives JSON."""
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Say it in JSON."}],
        response_format={"type": "json_object"},
    )

    assert isinstance(json.loads(completion.choices[0].message.content), dict)


def test_gives_several_answers(client, azure):
    """``n`` answers come, each with its number, plain and streamed."""
    completion = client.chat.completions.create(model=MODEL, messages=HELLO, n=2)
    events = client.chat.completions.create(model=MODEL, messages=HELLO, n=2, stream=True)

    assert [0, 1] == [choice.index for choice in completion.choices]
    assert {0, 1} == {choice.index for event in events for choice in event.choices}


def test_lets_parameters_of_the_future_pass(client, azure):
    """What the gateway does not know is Azure's to judge."""
    client.chat.completions.create(model=MODEL, messages=HELLO, extra_body={"telepathy": {"depth": [3, None]}})

    assert {"depth": [3, None]} == json.loads(azure.served[0].body)["telepathy"]


def test_takes_the_key_as_azure_clients_send_it(gateway, key):
    """``api-key: KEY`` is as good as ``Authorization: Bearer KEY``."""
    hello = {"model": MODEL, "messages": HELLO}

    assert 200 == gateway.request("POST", "/v1/chat/completions", json=hello, headers={"api-key": key}).status
    assert 200 == gateway.request("GET", "/v1/me", headers={"api-key": key}).status


def test_lists_the_models_of_a_key(start_alone):
    """GET /v1/models has what is on offer and what the key may use, and nothing else."""
    gateway = start_alone(LLMGATEWAY_MODELS="gpt-4o-mini,gpt-4o")
    for models, expected in [(None, ["gpt-4o-mini", "gpt-4o"]), (["gpt-4o", "o4-mini"], ["gpt-4o"])]:
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(models=models)) as client:
            assert expected == [model.id for model in client.models.list()]
            assert "gpt-4o" == client.models.retrieve("gpt-4o").id
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("o4-mini")


def in_days(days):
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"active": False}, "revoked"),
        ({"starts_at": in_days(1)}, "not valid before"),
    ],
)
def test_refuses_keys_out_of_season(gateway, azure, fields, reason):
    """A revoked or future key is an AuthenticationError that says which."""
    assert_refused(gateway, azure, gateway.key(**fields), reason)


def test_refuses_keys_that_have_expired(gateway, azure):
    """A key ends by itself, at its time."""
    key = gateway.key(expires_at=(datetime.now(UTC) + timedelta(seconds=1)).isoformat())
    wait_until(lambda: gateway.request("GET", "/v1/models", key=key).status == 401)

    assert_refused(gateway, azure, key, "expired")


def assert_refused(gateway, azure, key, reason):
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match=reason) as refused,
    ):
        client.chat.completions.create(model=MODEL, messages=HELLO)

    assert "invalid_api_key" == refused.value.code
    assert key not in str(refused.value.body)
    assert [] == azure.served


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "No API key"),
        ({"Authorization": "Bearer "}, "No API key"),
        ({"Authorization": "Basic c2VjcmV0"}, "must be 'Bearer KEY'"),
        ({"Authorization": "Bearer se cr et"}, "malformed"),
        ({"Authorization": 'Bearer "se\xa0cret"'}, "malformed"),
        ({"Authorization": "Bearer nobodys-secret"}, "not known"),
        ({"api-key": "nobodys-secret"}, "not known"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/me", "/v1/models"])
def test_refuses_what_is_no_key(gateway, azure, headers, reason, path):
    """A missing, malformed or unknown key is 401 invalid_api_key, says which, and is not echoed."""
    if path.endswith("completions"):
        answer = gateway.request("POST", path, json={"model": MODEL, "messages": HELLO}, headers=headers)
    else:
        answer = gateway.request("GET", path, headers=headers)

    assert (401, "invalid_api_key") == (answer.status, answer.error["code"])
    assert reason in answer.error["message"]
    assert b"secret" not in answer.body
    assert [] == azure.served


def test_refuses_a_model_that_the_key_may_not_use(gateway, azure):
    """That is a PermissionDeniedError with code model_not_allowed."""
    key = gateway.key(models=["gpt-4o"])
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.chat.completions.create(model=MODEL, messages=HELLO)
        client.chat.completions.create(model="gpt-4o", messages=HELLO)

    assert "model_not_allowed" == refused.value.code
    assert 1 == len(azure.served)


def test_refuses_a_model_that_is_not_on_offer(start_alone, azure):
    """That is a NotFoundError with code model_not_found, from the gateway itself."""
    gateway = start_alone(LLMGATEWAY_MODELS="gpt-4o")
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as client,
        pytest.raises(openai.NotFoundError) as refused,
    ):
        client.chat.completions.create(model=MODEL, messages=HELLO)

    assert "model_not_found" == refused.value.code
    assert [] == azure.served


@pytest.mark.parametrize(
    ("fault", "exception", "code"),
    [
        ("deployment_not_found", openai.NotFoundError, "DeploymentNotFound"),
        ("operation_not_supported", openai.BadRequestError, "OperationNotSupported"),
        ("server_error", openai.InternalServerError, None),
        ("unavailable", openai.InternalServerError, "ServiceUnavailable"),
        ("token_rate_limit", openai.RateLimitError, "429"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_raises_what_azure_would_make_it_raise(client, azure, fault, exception, code, stream):
    """An error of Azure's is the same exception as without a gateway, with its code and its body."""
    azure.script(Script(fault=fault))

    with pytest.raises(exception) as raised:
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)

    assert code == raised.value.code
    assert azure.served[0].body_sent == raised.value.response.content


def test_tells_when_to_come_back(client, azure):
    """Azure's retry-after and retry-after-ms reach the client, whose retry logic reads them."""
    azure.script(Script(fault="token_rate_limit", retry_after=7))

    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model=MODEL, messages=HELLO)

    assert "7" == raised.value.response.headers["retry-after"]
    assert "7000" == raised.value.response.headers["retry-after-ms"]


def test_retries_as_told(gateway, key, azure):
    """A client that may retry does so after Azure's own time, and succeeds."""
    azure.script(
        Script(raw=Raw(429, {"content-type": "application/json", "retry-after-ms": "20"}, b'{"error":{"code":"429"}}'))
    )
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=1) as client:
        client.chat.completions.create(model=MODEL, messages=HELLO)

    assert [429, 200] == [served.status for served in azure.served]


@pytest.mark.parametrize("stream", [False, True])
def test_tells_which_filter_a_prompt_has_met(client, azure, stream):
    """The content filter's 400 is plain JSON with innererror intact, also for a stream."""
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": f"Please {FILTERED_PHRASE}."}], stream=stream
        )

    assert "content_filter" == raised.value.code
    inner = raised.value.body["innererror"]
    assert "ResponsibleAIPolicyViolation" == inner["code"]
    assert {"filtered": True, "severity": "high"} == inner["content_filter_result"]["sexual"]
    assert azure.served[0].body_sent == raised.value.response.content


def test_passes_a_filtered_completion_on(client, azure):
    """A completion without a message is what Azure says, and what the client gets."""
    azure.script(Script(filter="completion"))

    completion = client.chat.completions.create(model=MODEL, messages=HELLO)

    assert ("content_filter", None) == (completion.choices[0].finish_reason, completion.choices[0].message)
    assert completion.choices[0].model_extra["content_filter_results"]["hate"]["filtered"]


@pytest.mark.parametrize(("kind", "finish"), [("asynchronous", "stop"), ("late_block", "content_filter")])
def test_survives_the_asynchronous_filter(client, azure, kind, finish):
    """Annotations without a delta, before and after the end, neither break nor vanish."""
    azure.script(Script(filter=kind))

    events = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))

    choices = [choice for event in events for choice in event.choices]
    assert answer_to(HELLO) == "".join(choice.delta.content or "" for choice in choices if choice.delta)
    assert [finish] == [choice.finish_reason for choice in choices if choice.finish_reason]
    assert 2 == sum("content_filter_offsets" in (choice.model_extra or {}) for choice in choices)

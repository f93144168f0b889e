"""The simulator speaks the Responses API as it was recorded from Azure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import openai
import pytest
from openai import AzureOpenAI
from pydantic import BaseModel

from llmgateway.records import Usage
from llmgateway.simulator import DEFAULT_KEY, FILTERED_PHRASE, Deployment, Script, Simulator

from .calls import call, connect, message, receive_until

RECORDINGS = Path(__file__).parent / "recorded"
PATH = "/openai/v1/responses"
ASK = {"model": "gpt-4o-mini", "input": "hello there"}
STREAM = {**ASK, "stream": True}
THINK = {**STREAM, "model": "gpt-5-mini"}
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    "strict": False,
}
TIME = {"type": "function", "name": "clock", "description": "The time in a city", "parameters": {"type": "object"}}

RECORDED_FIELDS = [
    "id",
    "object",
    "created_at",
    "status",
    "background",
    "completed_at",
    "content_filters",
    "error",
    "frequency_penalty",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "model",
    "moderation",
    "output",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "usage",
    "user",
    "metadata",
]
"""Of charmbracelet/fantasy ``TestAzureResponsesCommon/azure-gpt-5-mini/tool_streaming.yaml``, 2026-06-24."""

RECORDED_TOOL_CALL = (RECORDINGS / "response_tool_call.txt").read_text()
"""From the same recording, with the simulator's tokens in the place of the model's."""
RECORDED_TEXT = (RECORDINGS / "response_text.txt").read_text()


class Person(BaseModel):
    name: str
    age: int


def post(azure, body=ASK, **how):
    return call(azure, body, path=PATH, **how)


def events(answer):
    """The events of a stream; their names are those in their data, and their numbers have no gap."""
    found = re.findall(r"event: (.+)\ndata: (.+)\n\n", answer.body.decode())
    documents = [json.loads(data) for _, data in found]
    assert [name for name, _ in found] == [document["type"] for document in documents]
    assert [document["sequence_number"] for document in documents] == list(range(len(documents)))
    return documents


def as_recorded(text):
    """Events without what chance decides, in the order of the recording's fields."""
    lines = []
    for line in text.splitlines():
        if line.startswith("data: "):
            line = re.sub(r"\b(rs|fc|msg|call)_\w+", r"\1_1", re.sub(r'"obfuscation":"\w*"', '"obfuscation":"X"', line))
            line = json.dumps(json.loads(line.removeprefix("data: ")), sort_keys=True)
        lines.append(line)
    return lines


def between(answer):
    """The text of the events between the first two and the last one."""
    return "\n\n".join(answer.body.decode().split("\n\n")[2:-2]) + "\n\n"


def test_a_plain_answer_has_the_recorded_fields(azure):
    """All of them, in Azure's order, with the usage and what the filter says."""
    answer = post(azure).json

    assert list(answer) == RECORDED_FIELDS
    assert (answer["status"], answer["service_tier"], answer["model"]) == ("completed", "default", "gpt-4o-mini")
    assert answer["usage"] == {
        "input_tokens": 8,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12,
    }
    assert [part["source_type"] for part in answer["content_filters"]] == ["prompt", "completion"]
    assert azure.served[0].usage == azure.served[0].billed
    assert azure.served[0].usage.total_tokens == 12


def test_a_streamed_text_has_the_recorded_events(azure):
    """Names, fields and order."""
    azure.script(Script(answer="Right"))

    assert as_recorded(RECORDED_TEXT) == as_recorded(between(post(azure, STREAM)))


def test_a_streamed_tool_call_has_the_recorded_events(azure):
    """The reasoning is an item without text; then come the pieces of the arguments."""
    body = {**THINK, "input": "What's the weather in Florence?", "tools": [WEATHER]}

    assert as_recorded(RECORDED_TOOL_CALL) == as_recorded(between(post(azure, body)))


def test_only_the_last_event_has_usage_filters_and_tier(azure):
    """There is no [DONE] behind it."""
    answer = post(azure, THINK)
    first, second, *_, last = events(answer)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert b"[DONE]" not in answer.body
    for event, kind in ((first, "created"), (second, "in_progress")):
        response = event["response"]
        assert event["type"] == f"response.{kind}"
        assert (response["usage"], response["content_filters"], response["service_tier"]) == (None, None, "auto")
    assert last["type"] == "response.completed"
    assert last["response"]["service_tier"] == "default"
    assert last["response"]["usage"]["output_tokens_details"] == {"reasoning_tokens": 64}
    assert answer.body.count(b'"usage":{') == answer.body.count(b'"content_filters":[') == 1


def test_classic_addresses_have_no_deployment(azure):
    """The body names it, in versions since March 2025."""
    path = "/openai/responses?api-version="
    with_deployment = "/openai/deployments/gpt-4o-mini/responses?api-version=2025-04-01-preview"

    assert call(azure, ASK, path=path + "2025-04-01-preview").status == 200
    assert call(azure, ASK, path=path + "2025-03-01-preview").status == 200
    assert call(azure, ASK, path=path + "2024-10-21").status == 404
    assert call(azure, ASK, path="/openai/responses").status == 404
    assert call(azure, ASK, path=with_deployment).status == 404
    assert call(azure, ASK, path="/team/openai/responses?api-version=2025-04-01-preview").status == 200


def test_the_official_client_for_azure_asks_the_classic_address(azure):
    """It knows itself that the path has no deployment."""
    with AzureOpenAI(
        azure_endpoint=azure.url, api_key=DEFAULT_KEY, api_version="2025-04-01-preview", max_retries=0
    ) as client:
        assert "You said: hello there" == client.responses.create(**ASK).output_text
    assert "/openai/responses" == azure.served[0].path


def test_the_official_client_reads_a_stream_to_its_end(v1):
    """Every event is one that it knows, and the last response is whole."""
    with v1.responses.stream(model="gpt-5-mini", input="hello there", reasoning={"summary": "auto"}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()

    assert final.output_text == "You said: hello there"
    assert final.output[0].summary[0].text.count("Hm") == 64
    assert kinds.count("response.reasoning_summary_text.delta") == 64
    assert kinds[-1] == "response.completed"


def test_the_official_client_parses_what_a_schema_asks_for(v1):
    """The text is a document that is valid."""
    answer = v1.responses.parse(model="gpt-4o-mini", input="Extract: Jason is 25 years old", text_format=Person)

    assert Person(name="Jason", age=25) == answer.output_parsed


def test_json_mode_answers_json_and_wants_the_word(v1):
    """As in chat."""
    how = {"model": "gpt-4o-mini", "text": {"format": {"type": "json_object"}}}

    assert {"answer": "You said: as json"} == json.loads(v1.responses.create(input="as json", **how).output_text)
    with pytest.raises(openai.BadRequestError, match="must contain the word 'json'"):
        v1.responses.create(input="hello", **how)


def test_a_tool_loop_ends_in_words(v1):
    """A call with valid arguments; with its output, whether chained or sent again, a text."""
    first = v1.responses.create(model="gpt-5-mini", input="The weather in Florence?", tools=[WEATHER])
    [called] = [item for item in first.output if item.type == "function_call"]
    output = {"type": "function_call_output", "call_id": called.call_id, "output": "40 C"}
    chained = v1.responses.create(model="gpt-5-mini", previous_response_id=first.id, input=[output], tools=[WEATHER])
    again = [{"role": "user", "content": "The weather in Florence?"}, called.to_dict(), output]
    sent = v1.responses.create(model="gpt-5-mini", input=again, tools=[WEATHER], store=False)

    assert json.loads(called.arguments) == {"location": "Florence"}
    assert chained.output_text == sent.output_text == "The tool says: 40 C"


@pytest.mark.parametrize(
    ("asked", "called"),
    [
        ({}, ["clock", "weather"]),
        ({"parallel_tool_calls": False}, ["clock"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": {"type": "function", "name": "weather"}}, ["weather"]),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "weather"}],
                }
            },
            ["weather"],
        ),
    ],
    ids=["parallel", "one", "none", "named", "allowed"],
)
def test_the_question_and_the_request_decide_which_tools_are_called(azure, asked, called):
    """Those that share a word with the question, as far as the request permits."""
    body = {**ASK, "input": "time and weather in Rome", "tools": [TIME, WEATHER], **asked}
    output = post(azure, body).json["output"]

    assert called == [item["name"] for item in output if item["type"] == "function_call"]
    assert ("message" in {item["type"] for item in output}) == (not called)


def test_a_demanded_tool_is_not_called_twice_for_one_question(azure):
    """Agents demand a call every time, and end with the tool that takes their answer."""
    asked = [{"role": "user", "content": "weather"}]
    body = {**ASK, "tools": [WEATHER, {**TIME, "name": "final"}], "tool_choice": "required"}
    names = []
    for _ in range(2):
        [item] = post(azure, {**body, "input": asked}).json["output"]
        names.append(item["name"])
        asked += [item, {"type": "function_call_output", "call_id": item["call_id"], "output": "x"}]

    assert ["weather", "final"] == names


def test_calls_and_outputs_belong_together(azure):
    """An output without a call is refused, and a call without an output."""
    output = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    called = {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": "{}"}

    assert "No tool call found" in post(azure, {**ASK, "input": [output]}).json["error"]["message"]
    assert "No tool output found" in post(azure, {**ASK, "input": [called]}).json["error"]["message"]


def test_hosted_tools_stand_in_the_output_and_are_billed_by_use(azure):
    """Searches and sessions count, MCP does not; its headers are not repeated."""
    mcp = {
        "type": "mcp",
        "server_label": "docs",
        "server_url": "https://example.com",
        "headers": {"Authorization": "Bearer secret-of-others"},
    }
    tools = [{"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}, mcp]
    azure.script(Script(hosted_calls={"web_search": 3, "code_interpreter": 2, "file_search": 1, "image_generation": 1}))
    answer = post(azure, {**STREAM, "tools": tools})
    last = events(answer)[-1]["response"]
    kinds = [item["type"].removesuffix("_call") for item in last["output"]]

    assert kinds == [
        *["web_search"] * 3,
        *["code_interpreter"] * 2,
        "mcp_list_tools",
        "mcp",
        "file_search",
        "image_generation",
        "message",
    ]
    uses = {"web_search": 3, "code_interpreter": 1, "file_search": 1, "image_generation": 1}
    assert azure.served[0].tool_uses == azure.served[0].as_json()["tool_uses"] == uses
    assert azure.served[0].account.tool_uses == uses
    assert b"secret-of-others" not in answer.body


def test_most_tool_calls_hold(azure):
    """max_tool_calls bounds Azure's own tools."""
    azure.script(Script(hosted_calls={"web_search": 3}))
    post(azure, {**ASK, "tools": [{"type": "web_search"}], "max_tool_calls": 2})

    assert {"web_search": 2} == azure.served[0].tool_uses


@pytest.mark.parametrize("tool", ["web_search", "code_interpreter", "file_search", "image_generation", "mcp"])
def test_the_official_client_knows_every_hosted_tool(v1, azure, tool):
    """Its stream helper takes all events, and the items are of the kind that was asked for."""
    azure.script(Script(hosted_calls={tool: 1}))
    with v1.responses.stream(**ASK) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()

    assert final.output[-2].type == f"{tool}_call"
    assert any(kind.startswith(f"response.{tool}_call.") for kind in kinds)


def test_an_output_that_is_too_long_is_incomplete(azure):
    """What fits is there; the last event says why, and has the usage."""
    azure.script(Script(tokens=50))
    *_, item, last = events(post(azure, {**STREAM, "max_output_tokens": 16}))
    response = last["response"]

    assert (last["type"], response["status"]) == ("response.incomplete", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert item["item"]["status"] == response["output"][0]["status"] == "incomplete"
    assert response["usage"]["output_tokens"] == azure.served[0].billed.completion_tokens == 16


def test_reasoning_can_use_up_the_whole_output(azure):
    """Then there is no message."""
    answer = post(azure, {**ASK, "model": "gpt-5-mini", "max_output_tokens": 32}).json

    assert ["reasoning"] == [item["type"] for item in answer["output"]]
    assert answer["usage"]["output_tokens_details"] == {"reasoning_tokens": 32}


def test_a_deployment_bounds_the_output():
    """Without a bound of the client."""
    with Simulator(deployments=[Deployment("small", max_output_tokens=20)]) as azure:
        azure.script(Script(tokens=50))
        answer = post(azure, {**ASK, "model": "small"}).json

    assert (answer["status"], answer["usage"]["output_tokens"]) == ("incomplete", 20)


def test_fewer_than_sixteen_tokens_are_refused(azure):
    """The least that max_output_tokens can be."""
    assert post(azure, {**ASK, "max_output_tokens": 15}).json["error"]["code"] == "integer_below_min_value"


def test_a_filtered_output_is_incomplete(azure):
    """The text is Azure's own, the filter says what it found, and it is billed."""
    azure.script(Script(filter="completion"))
    response = events(post(azure, STREAM))[-1]["response"]

    assert response["incomplete_details"] == {"reason": "content_filter"}
    assert response["output"][0]["content"][0]["text"] == "I'm sorry, but I cannot assist with that request."
    assert [part["blocked"] for part in response["content_filters"]] == [False, True]
    assert response["usage"]["total_tokens"] == azure.served[0].billed.total_tokens


@pytest.mark.parametrize("where", ["input", "instructions"])
def test_a_filtered_prompt_gets_the_shape_of_2026(azure, where):
    """A 400 also where a stream was asked for; the prompt is billed."""
    answer = post(azure, {**STREAM, where: f"Please {FILTERED_PHRASE}."})

    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    error = answer.json["error"]
    assert (error["code"], error["innererror"]) == ("content_filter", {"code": "ContentFiltered"})
    assert error["content_filters"][0]["blocked"] is True
    assert azure.served[0].billed.prompt_tokens > 0
    assert azure.served[0].billed.completion_tokens == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("code", "billed"), [("rate_limit_exceeded", None), ("server_error", 0)])
def test_a_failure_can_come_with_status_200(azure, stream, code, billed):
    """Its error is in the response, which has no usage; a rate limit costs nothing."""
    azure.script(Script(failed=code))
    answer = post(azure, {**ASK, "stream": stream})
    response = events(answer)[-1]["response"] if stream else answer.json

    assert (answer.status, response["status"], response["usage"]) == (200, "failed", None)
    assert response["error"]["code"] == code
    if stream:
        assert [event["type"] for event in events(answer)][2:] == ["response.failed"]
    used = azure.served[0].billed
    assert (None if used is None else used.completion_tokens) == billed


@pytest.mark.parametrize("form", ["nested", "flat"])
def test_both_forms_of_the_error_event(azure, form):
    """Azure's nests the error; nothing follows it, and the connection ends properly."""
    azure.script(Script(error_event_after=6, error_event=form))
    answer = post(azure, STREAM)
    last = events(answer)[-1]

    assert answer.complete
    assert last["type"] == "error"
    assert (last["error"] if form == "nested" else last)["code"] == "server_error"
    assert ("error" in last) == (form == "nested")
    assert azure.served[0].billed.completion_tokens == 2


def test_the_official_client_raises_what_an_error_event_says(v1, azure):
    """Azure's nested form reaches it as an exception."""
    azure.script(Script(error_event_after=6))
    with pytest.raises(openai.APIError, match="An error occurred while processing"):
        list(v1.responses.create(**STREAM))


def test_a_bare_close_leaves_no_usage(azure):
    """The stream ends where it was cut; what was produced until then is billed."""
    azure.script(Script(cut_after_events=6))
    answer = post(azure, STREAM)

    assert not answer.complete
    assert b"response.completed" not in answer.body
    assert azure.served[0].billed.completion_tokens == 2


def test_who_leaves_pays_for_what_was_produced(azure):
    """Also for a search that was made before."""
    azure.script(Script(gap=0.01, tokens=200, hosted_calls={"web_search": 1, "image_generation": 0}))
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM, path=PATH))
        receive_until_text(peer, b"response.output_text.delta")
    [served] = azure.wait_for(lambda served: served[0].peer_left)

    assert 0 < served.billed.completion_tokens < served.usage.completion_tokens
    assert {"web_search": 1} == served.tool_uses


def receive_until_text(peer, wanted):
    received = b""
    while wanted not in received:
        received += receive_until(peer, b"\n\n\r\n")


@pytest.mark.parametrize(
    ("asked", "header", "served"),
    [
        ({}, None, "default"),
        ({"service_tier": "auto"}, None, "default"),
        ({"service_tier": "priority"}, None, "priority"),
        ({"service_tier": "flex"}, None, "default"),
        ({}, "auto", "priority"),
    ],
    ids=["none", "auto", "priority", "flex", "header"],
)
def test_the_last_event_names_the_tier_that_served(azure, asked, header, served):
    """Flex is served as default; the header beats the body."""
    headers = {"api-key": DEFAULT_KEY} | ({} if header is None else {"x-ms-service-tier": header})
    found = events(post(azure, {**STREAM, **asked}, headers=headers))

    assert served == found[-1]["response"]["service_tier"] == azure.served[0].account.tier
    assert asked.get("service_tier", "auto") == found[0]["response"]["service_tier"]


@pytest.mark.parametrize(
    ("form", "told"),
    [("null", None), ("empty", {}), ({"input_tokens": 3, "output_tokens": 4}, {"input_tokens": 3, "output_tokens": 4})],
    ids=["null", "empty", "object"],
)
def test_the_usage_can_be_told_in_another_way(azure, form, told):
    """What is billed is what an object says, if it counts the output."""
    azure.script(Script(usage=form))

    assert told == events(post(azure, STREAM))[-1]["response"]["usage"]
    assert azure.served[0].billed.total_tokens == (7 if isinstance(form, dict) else 12)


def test_counts_can_be_ordered(azure):
    """The prompt's, those from the cache and the reasoning's."""
    azure.script(Script(prompt_tokens=2000, cached_tokens=1024, reasoning_tokens=128, tokens=10))
    answer = post(azure).json

    assert answer["usage"]["input_tokens_details"] == {"cached_tokens": 1024}
    assert azure.served[0].billed == Usage(
        prompt_tokens=2000, completion_tokens=138, total_tokens=2138, cached_tokens=1024, reasoning_tokens=128
    )


def test_a_refusal_and_a_custom_tool_have_their_own_events(v1, azure):
    """The official client knows both."""
    azure.script(Script(answer="no", answer_in="refusal"))
    azure.script(Script(answer="SELECT 1", answer_in="custom"))
    with v1.responses.stream(**ASK) as stream:
        refused = {event.type for event in stream}
    with v1.responses.stream(**ASK, tools=[{"type": "custom", "name": "sql"}]) as stream:
        called = stream.get_final_response().output[-1]

    assert {"response.refusal.delta", "response.refusal.done"} <= refused
    assert (called.type, called.name, called.input) == ("custom_tool_call", "sql", "SELECT 1")


def test_lines_are_rewritten_with_their_names(azure):
    """Other line ends and comments leave each event its name."""
    azure.script(Script(line_end="crlf", lines_before=(": ping",), json="spaced"))
    body = post(azure, STREAM).body

    assert body.startswith(b': ping\r\nevent: response.created\r\ndata: {"type": "response.created", ')
    assert body.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "gpt-4o-mini"}, "missing_required_parameter"),
        ({**ASK, "input": 7}, "invalid_type"),
        ({**ASK, "input": ["text"]}, "invalid_type"),
        ({**ASK, "input": [{"role": "user", "content": 7}]}, "invalid_type"),
        ({**ASK, "tools": {}}, "invalid_type"),
        ({**ASK, "tools": [{"type": 7}]}, "invalid_type"),
        ({**ASK, "tools": [{"type": "mcp", "headers": True}]}, "invalid_type"),
        ({**ASK, "text": {"format": "json"}}, "invalid_type"),
        ({**ASK, "previous_response_id": "resp_1", "conversation": "conv_1"}, "mutually_exclusive_parameters"),
        ({**ASK, "background": True, "store": False}, None),
    ],
    ids=["missing", "number", "texts", "content", "tools", "tool", "headers", "format", "conversation", "background"],
)
def test_an_impossible_request_is_refused(azure, body, code):
    """400, with what is wrong."""
    answer = post(azure, body)

    assert (answer.status, answer.json["error"]["code"]) == (400, code)


def test_a_strict_resource_refuses_unknown_parameters():
    """Those of chat are unknown here."""
    with Simulator(strict=True) as azure:
        assert post(azure, {**ASK, "messages": []}).json["error"]["code"] == "unknown_parameter"
        assert post(azure).status == 200

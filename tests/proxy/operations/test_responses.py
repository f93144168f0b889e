"""The Responses API: what is checked, what is added, and what a request names that Azure stores."""

from __future__ import annotations

import json

import pytest

from llmgateway.azure.endpoint import Endpoint
from llmgateway.errors import InvalidRequest, UpstreamBroken
from llmgateway.proxy.operations.operation import Reference
from llmgateway.proxy.operations.responses import RESPONSES, error_event, references
from llmgateway.usage.seen import Seen
from tests.proxy.requests import prepared, target

CLASSIC = Endpoint.parse("https://n.openai.azure.com/openai/deployments/fixed", "2025-04-01-preview")


def body(**fields: object) -> bytes:
    return json.dumps({"model": "gpt", "input": "Hello"} | fields).encode()


def made(prompt: str = "", **fields: object):
    return prepared(body(**fields), operation=RESPONSES, prompt=prompt)


def test_a_request_without_a_prompt_goes_on_as_it_came():
    """Byte for byte."""
    sent = b'{ "input" : [ {"role":"user","content":"Hi"} ],"model":"gpt", "stream" : true }'

    assert sent == prepared(sent, operation=RESPONSES).body()


@pytest.mark.parametrize("instructions", [None, "", "Be brief."])
@pytest.mark.parametrize("more", [{}, {"previous_response_id": "resp_1"}, {"stream": True}])
def test_the_prompt_goes_in_front_of_the_instructions(instructions, more):
    """With a blank line between."""
    sent = json.loads(made("Be kind.", instructions=instructions, **more).body())

    assert ("Be kind.\n\nBe brief." if instructions else "Be kind.") == sent["instructions"]
    assert {"model": "gpt", "input": "Hello", **more} == {name: sent[name] for name in ("model", "input", *more)}


@pytest.mark.parametrize(
    "fields",
    [
        {"input": None},
        {"input": 1},
        {"input": {"role": "user"}},
        {"input": ["Hello"]},
        {"instructions": ["Be brief."]},
        {"previous_response_id": 1},
        {"tools": {}},
        {"max_output_tokens": 0},
        {"max_output_tokens": "20"},
        {"stream": "true"},
        {"background": True},
        {"background": 1},
        {"conversation": ""},
        {"conversation": {"id": "conv_1"}},
        {"Background": True},
        {"Conversation": "conv_1"},
        {"Previous_Response_Id": "resp_1"},
        {"input": [{"Type": "item_reference", "id": "rs_1"}]},
        {"input": [{"type": "item_reference", "ID": "rs_1"}]},
        {"tools": [{"type": "code_interpreter", "Container": "cntr_1"}]},
        {"tools": [{"type": "shell", "environment": {"type": "container_reference", "Container_ID": "cntr_1"}}]},
    ],
    ids=str,
)
def test_refuses_what_it_cannot_check_or_count(fields):
    """Also names that Azure might read in another case."""
    with pytest.raises(InvalidRequest):
        made(**fields)


def test_refuses_names_that_are_sent_twice():
    """One of the values would be checked, and the other one read."""
    with pytest.raises(InvalidRequest):
        prepared(b'{"model":"gpt","input":[{"type":"item_reference","id":"rs_1","id":"rs_2"}]}', operation=RESPONSES)


@pytest.mark.parametrize(
    "fields",
    [
        {"background": False},
        {"background": None, "conversation": None, "previous_response_id": None},
        {"input": None, "previous_response_id": "resp_1"},
        {"input": []},
        {"tools": [{"type": "mcp", "headers": {"Type": "x", "Name": "y"}}]},
        {"tools": [{"type": "function", "name": "f", "parameters": {"properties": {"Name": {}}}}]},
        {"max_output_tokens": 20.0},
        {"something_new": {"Model": 1}},
    ],
    ids=str,
)
def test_serves_what_azure_may_serve(fields):
    """Azure checks the rest; names within headers and schemas are the client's own."""
    assert made(**fields).body() == body(**fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"previous_response_id": "resp_1"}, [("resp_1", "response")]),
        ({"input": [{"type": "item_reference", "id": "rs_1"}]}, [("rs_1", "item")]),
        ({"input": [{"id": "rs_1"}]}, [("rs_1", "item")]),
        ({"input": [{"type": None, "id": "rs_1"}]}, [("rs_1", "item")]),
        ({"input": [{"type": "Item_Reference", "id": "rs_1"}]}, [("rs_1", "item")]),
        ({"input": [{"type": ["message"], "id": "rs_1"}]}, [("rs_1", "item")]),
        ({"input": [{"type": "item_reference", "id": "rs_1", "encrypted_content": "x"}]}, [("rs_1", "item")]),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, [("rs_1", "item")]),
        ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": ""}]}, [("rs_1", "item")]),
        ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA"}]}, []),
        ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": []}]}, [("rs_1", "item")]),
        ({"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": False}]}, [("rs_1", "item")]),
        ({"input": [{"type": "message", "id": "msg_1", "role": "assistant", "content": []}]}, [("msg_1", "item")]),
        ({"input": [{"type": "mcp_approval_response", "id": "mcpr_1", "approve": False}]}, []),
        (
            {"input": [{"type": "mcp_approval_response", "approve": True, "approval_request_id": "mcpr_1"}]},
            [("mcpr_1", "item")],
        ),
        ({"input": [{"type": "image_generation_call", "id": "ig_1"}]}, [("ig_1", "item")]),
        ({"input": [{"type": "web_search_call", "id": "ws_1", "status": "completed"}]}, [("ws_1", "item")]),
        ({"input": [{"type": "message", "id": "msg_1", "role": "user", "content": "Hi"}]}, []),
        ({"input": [{"id": "msg_1", "role": "user", "content": "Hi"}]}, []),
        ({"input": [{"id": "msg_1", "role": "user"}]}, [("msg_1", "item")]),
        ({"input": [{"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}]}, []),
        ({"input": [{"type": "function_call", "id": "fc_1"}]}, [("fc_1", "item")]),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "42"}]}, []),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, [("cntr_1", "container")]),
        ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, []),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "id": "cntr_1"}}]},
            [("cntr_1", "container")],
        ),
        ({"tools": [{"type": "code_interpreter", "container": ["cntr_1"]}]}, [("cntr_1", "container")]),
        (
            {"tools": [{"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_1"}}]},
            [("cntr_1", "container")],
        ),
        (
            {"input": [{"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1", "code": "1"}]},
            [("ci_1", "item"), ("cntr_1", "container")],
        ),
        ({"tools": [{"type": "function", "parameters": {"properties": {"container": "x"}}}]}, []),
        (
            {
                "previous_response_id": "resp_1",
                "input": [{"type": "item_reference", "id": "rs_1"}, {"type": "item_reference", "id": "rs_1"}],
            },
            [("resp_1", "response"), ("rs_1", "item")],
        ),
    ],
    ids=str,
)
def test_finds_everything_that_a_request_names(fields, expected):
    """Whatever Azure may complete with what it has stored."""
    assert [Reference(*each) for each in expected] == references({"model": "gpt", "input": "Hello"} | fields)


def tokens(**fields: object) -> int:
    return RESPONSES.prompt_tokens({"model": "gpt", "input": "Hello"} | fields, "", ())


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "Hello " * 50},
        {"input": [{"role": "user", "content": "Hello"}, {"role": "user", "content": "Hello again"}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello, how are you?"}]}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "sunny, with some rain"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x.example/i.png"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "JVBERi0" * 100}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x.example/f.pdf"}]}]},
        {"input": [{"type": "reasoning", "encrypted_content": "gAAAAA" * 100}]},
        {"instructions": "Be brief."},
        {"tools": [{"type": "function", "name": "weather", "parameters": {}}]},
        {"text": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    ],
    ids=str,
)
def test_everything_that_becomes_a_part_of_the_prompt_counts(fields):
    """More of it is more."""
    assert tokens(**fields) > tokens()


def test_an_image_is_not_counted_by_its_base64():
    """Nor is a file: their sizes are known better."""
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 400_000, "detail": "low"}

    assert tokens(input=[{"role": "user", "content": [image]}]) < 200


def test_the_prompt_of_the_gateway_counts():
    """It is sent, too."""
    assert RESPONSES.prompt_tokens({"input": "Hi"}, "Be kind.", ()) > RESPONSES.prompt_tokens({"input": "Hi"}, "", ())


def test_the_clients_limit_bounds_the_answer():
    """It includes the reasoning."""
    assert 20 == made(max_output_tokens=20).asked.most_tokens
    assert made().asked.most_tokens is None


def test_the_body_names_the_deployment_where_the_path_does_not():
    """The classic form has responses beside the deployments, not below them."""
    upstream = prepared(body(), operation=RESPONSES, endpoint=CLASSIC)
    to = target(CLASSIC, "fixed", key="x")

    assert "fixed" == json.loads(upstream.body(to))["model"]
    assert "https://n.openai.azure.com/openai/responses?api-version=2025-04-01-preview" == CLASSIC.url(
        "fixed", "responses", in_path=RESPONSES.in_path
    )


def test_the_event_of_a_break_has_both_forms():
    """OpenAI's is flat and has a number; its clients raise an exception for Azure's nested one."""
    event = error_event(UpstreamBroken("It broke."), Seen(events=7))

    name, data = event.decode().strip().split("\n")
    document = json.loads(data.removeprefix("data: "))
    assert "event: error" == name
    assert event.endswith(b"\n\n")
    assert ("error", 7, "It broke.", "upstream_unreachable") == tuple(
        document[field] for field in ("type", "sequence_number", "message", "code")
    )
    assert "It broke." == document["error"]["message"]

"""Deployments from before ``stream_options``: served all the same, and remembered."""

from __future__ import annotations

import json

import pytest

from llmgateway.simulator import Script
from tests.parts import in_openais_dialect


def asked_for_usage(azure):
    return ["stream_options" in json.loads(served.body) for served in azure.served]


def test_retries_once_and_remembers(start_gateway, azure, records):
    """The first stream is sent again without the option, later ones go without it at once."""
    gateway = start_gateway()
    key = gateway.key()

    answers = [gateway.chat(key, model="ancient", stream=True) for _ in range(3)]

    assert [200] * 3 == [answer.status for answer in answers]
    assert [True, False, False, False] == asked_for_usage(azure)
    assert [in_openais_dialect(served.body_sent) for served in azure.served[1:]] == [answer.body for answer in answers]
    first, *_ = booked = records(gateway, key, count=3)
    assert 3 == len(booked)
    assert {("ok", "estimated", 200)} == {(r["outcome"], r["usage_source"], r["status"]) for r in booked}
    assert azure.served[1].client_request_id == first["id"]
    # One event is about one token.
    assert azure.served[1].usage.completion_tokens == first["completion_tokens"]
    assert first["prompt_tokens"] > 0


def test_remembers_each_deployment_by_itself(start_alone, azure):
    """One that is old says nothing about the others."""
    gateway = start_alone()
    key = gateway.key()

    for model in ("ancient", "gpt-4o-mini", "older", "gpt-4o"):
        assert 200 == gateway.chat(key, model=model, stream=True).status

    assert [True, False, True, True, False, True] == asked_for_usage(azure)


def test_keeps_a_prompt_in_the_retry(gateway, key, azure, prompt):
    """Only the option goes; the organisation's prompt stays."""
    prompt("Be brief.")

    gateway.chat(key, model="older", stream=True)

    assert "Be brief." == json.loads(azure.served[-1].body)["messages"][0]["content"]


def test_leaves_the_answer_to_who_asked(gateway, key, azure):
    """A client that asked for the option itself gets Azure's own refusal, and it is not retried."""
    answer = gateway.chat(key, model="ancient", stream=True, stream_options={"include_usage": True})

    assert (400, "unknown_parameter") == (answer.status, answer.error["code"])
    assert azure.served[0].body_sent == answer.body
    assert 1 == len(azure.served)


@pytest.mark.parametrize("fault", ["unknown_parameter", "unrecognized_argument"])
def test_understands_both_wordings(start_alone, azure, fault):
    """Older API versions say it without a code."""
    gateway = start_alone()
    azure.script(Script(fault=fault))

    assert 200 == gateway.chat(gateway.key(), stream=True).status
    assert [True, False] == asked_for_usage(azure)


@pytest.mark.parametrize("fault", ["operation_not_supported", "content_filter", "token_rate_limit", "server_error"])
def test_retries_nothing_else(gateway, key, azure, fault):
    """Any other error is the client's to see, and asked for once."""
    azure.script(Script(fault=fault))

    answer = gateway.chat(key, stream=True)

    assert answer.status == azure.served[0].status
    assert 1 == len(azure.served)

"""The habits of models of other makers, without a script."""

from __future__ import annotations

import json

import openai
import pytest
from openai import OpenAI

from llmgateway.simulator import DEFAULT_KEY, Deployment, Script, Simulator

from .calls import CHAT, HELLO, STREAM, call

MODELS = (
    Deployment("grok", model="grok-3-mini", maker="grok"),
    Deployment("deepseek", model="DeepSeek-R1", maker="deepseek"),
    Deployment("mistral", model="Mistral-Large-2411", maker="mistral"),
    Deployment("phi", model="Phi-4", maker="phi"),
    Deployment("router", model="model-router", maker="router"),
)


@pytest.fixture
def azure():
    with Simulator(deployments=MODELS) as simulator:
        yield simulator


def test_grok_counts_its_reasoning_apart(azure):
    """Its completion has no reasoning, but the total has; another model answers."""
    answer = call(azure, {**CHAT, "model": "grok"}).json

    assert answer["model"] == "grok-3-mini-high"
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 64
    assert answer["usage"]["total_tokens"] == 8 + 4 + 64
    assert azure.served[0].billed.completion_tokens == 68
    assert azure.served[0].account.model == "grok-3-mini"


def test_grok_shows_its_reasoning(azure):
    """As reasoning_content; the filter's event comes first, and no usage before the end."""
    events = call(azure, {**STREAM, "model": "grok"}).events

    assert events[0]["choices"] == []
    assert any("reasoning_content" in event["choices"][0]["delta"] for event in events if event["choices"])


def test_deepseek_has_no_filter_and_no_details(azure):
    """It says 0 reasoning tokens after a long reasoning."""
    events = call(azure, {**STREAM, "model": "deepseek"}).events
    usage = events[-1]["usage"]

    assert "prompt_filter_results" not in events[0]
    assert (usage["prompt_tokens_details"], usage["reasoning_tokens"]) == (None, 0)
    assert usage["completion_tokens"] == 68


@pytest.mark.parametrize(("name", "status"), [("mistral", 422), ("phi", 400)])
@pytest.mark.parametrize("extra", ["stream_options", "logit_bias", "user"])
def test_strict_partners_refuse_what_they_do_not_know(azure, name, status, extra):
    """In words of their own, which name the parameter."""
    values = {"stream_options": {"include_usage": True}, "logit_bias": {"1": 2}, "user": "ada"}
    refused = call(azure, {**CHAT, "model": name, "stream": True, extra: values[extra]})
    message = refused.json["error"]["message"] if name == "mistral" else refused.json["message"]

    assert refused.status == status
    assert "extra_forbidden" in message
    assert extra in message
    assert azure.served[0].billed is None


def test_mistral_is_told_apart_by_its_shape(azure):
    """The error's message is JSON again."""
    error = call(azure, {**CHAT, "model": "mistral", "user": "ada"}).json["error"]

    assert (error["code"], error["status"]) == ("Invalid input", 422)
    assert json.loads(error["message"])["detail"][0]["loc"] == ["body", "user"]


@pytest.mark.parametrize("name", ["mistral", "phi"])
def test_strict_partners_tell_the_usage_unasked(azure, name):
    """With the end of the answer."""
    events = call(azure, {**CHAT, "model": name, "stream": True}).events
    told = [event["usage"] for event in events if event.get("usage")]

    assert told == [{"completion_tokens": 4, "prompt_tokens": 8, "total_tokens": 12}]


@pytest.mark.parametrize(("words", "model"), [(2, "gpt-4.1-nano-2025-04-14"), (300, "gpt-4.1-2025-04-14")])
def test_a_router_names_the_model_that_it_has_picked(azure, words, model):
    """Long questions go to the larger one; the bill is of that model."""
    body = {"model": "router", "messages": [{"role": "user", "content": "why " * words}]}

    assert call(azure, body).json["model"] == model
    assert azure.served[0].account.model == model


def test_a_script_comes_before_a_habit(azure):
    """What it says, and nothing else, is changed."""
    azure.script(Script(reasoning_tokens=3, model="grok-4"))
    answer = call(azure, {**CHAT, "model": "grok"}).json

    assert (answer["model"], answer["usage"]["total_tokens"]) == ("grok-4", 8 + 4 + 3)


def test_the_official_client_raises_their_errors(azure):
    """By their status."""
    with OpenAI(base_url=f"{azure.url}/openai/v1", api_key=DEFAULT_KEY, max_retries=0) as client:
        with pytest.raises(openai.UnprocessableEntityError):
            client.chat.completions.create(model="mistral", messages=HELLO, user="ada")
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="phi", messages=HELLO, user="ada")

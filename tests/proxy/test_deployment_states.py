"""What is remembered of deployments is bounded, and nobody can fill it with names."""

from __future__ import annotations

import pytest

from llmgateway.azure.credentials import StaticKey
from llmgateway.azure.deployments import Target
from llmgateway.azure.endpoint import Endpoint
from llmgateway.proxy.deployment_states import MOST_DEPLOYMENTS, DeploymentStates
from llmgateway.records import Quota
from tests.parts import ScriptedAnswer

ENDPOINT = Endpoint.parse("https://n.openai.azure.com/openai/v1")


def target(deployment, name=""):
    return Target(name=name, endpoint=ENDPOINT, deployment=deployment, credential=StaticKey("api-key", "key"))


def answer(status=200, **quota):
    made = ScriptedAnswer()
    made.status, made.quota = status, Quota(**quota)
    return made


@pytest.fixture
def states(clock):
    return DeploymentStates(clock=clock)


def test_the_oldest_are_forgotten(states):
    for number in range(MOST_DEPLOYMENTS + 5):
        states.answered(target(f"d-{number}"), answer())

    assert [f"d-{number}" for number in range(5, MOST_DEPLOYMENTS + 5)] == [each.deployment for each in states.all()]


def test_names_that_clients_make_up_are_not_remembered(states):
    """Azure has no such deployment; of a registered one an admin wants to know."""
    for name in ("", "east"):
        states.answered(target("nothing", name), answer(404))
        states.failed(target("nothing", name), status=404, code="DeploymentNotFound")

    assert ["east"] == [each.name for each in states.all()]


def test_a_header_that_is_missing_changes_nothing(states):
    """An error has fewer headers than an answer."""
    states.answered(target("d"), answer(limit_tokens=100, remaining_tokens=90))
    states.answered(target("d"), answer(429, remaining_tokens=0))

    assert Quota(limit_tokens=100, remaining_tokens=0) == states.all()[0].quota


def test_a_quota_that_was_lowered_twice_is_compared_with_the_first(states, caplog):
    """Until it is as high as then; a warning for each step down, and one for the end."""
    for limit in (100, 50, 70, 40, 100):
        states.answered(target("d"), answer(limit_tokens=limit))
        lowered = states.lowered_from(target("d"))
        assert (None if limit == 100 else 100) == (lowered and lowered.limit_tokens)

    assert ["50 tokens per minute instead of 100", "40 tokens per minute instead of 100"] == [
        message.rpartition(": ")[2].rstrip(".") for message in caplog.messages[:2]
    ]
    assert "as high as before" in caplog.messages[2]

"""The advice to admins is complete: every error that the gateway has, every limit, and every way to end."""

from __future__ import annotations

import re

import click
import pytest

from llmgateway import errors
from llmgateway.cli import main
from llmgateway.records import Outcome
from llmgateway.usage.error_codes import REMEDIES
from llmgateway.web.admin.what_to_do import _SCOPES, AT_AZURE, OUTCOMES, REFUSED, about_record, about_refusal
from llmgateway.web.errors import _CODES
from tests.stores.contract import usage
from tests.stores.refusal_contract import refusal

CLASSES = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, errors.GatewayError) and each is not errors.GatewayError
]
TEXTS = [*_SCOPES.values(), *REFUSED.values(), *AT_AZURE.values(), *filter(None, OUTCOMES.values())]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_its_advice(kind):
    assert kind.code in REFUSED
    advice = about_refusal(refusal(status=kind.status, code=kind.code, limit=None))
    assert advice
    assert not re.search(r"\{\w+\}", advice)


def test_every_code_of_the_framework_has_its_advice():
    assert set() == {*_CODES.values(), "internal_error", None} - REFUSED.keys()


def test_every_outcome_and_every_429_of_azure_has_its_advice():
    assert set(Outcome) == OUTCOMES.keys()
    assert REMEDIES.keys() <= AT_AZURE.keys()
    for outcome in Outcome:
        advice = about_record(usage(outcome=outcome, error_code="strange", status=418))
        assert (advice is None) == (outcome is Outcome.OK)
        assert not re.search(r"\{\w+\}", advice or "")


@pytest.mark.parametrize("text", TEXTS)
def test_commands_in_it_exist(text):
    """Whoever copies a command from it does not find that there is none."""
    for words in re.findall(r"llmgateway ((?:[a-z][a-z-]* ?)+)", text):
        command: click.Command = main
        for word in words.split():
            if isinstance(command, click.Group):
                assert word in command.commands, words
                command = command.commands[word]


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("key.budget", "llmgateway keys set key_0001 --budget AMOUNTusd/month"),
        ("key.requests_per_minute", "within a minute"),
        ("group.tokens_per_minute", "llmgateway groups set physics --tokens-per-minute N"),
        ("organisation.parallel_requests", "llmgateway limits set --parallel-requests N"),
        ("person.budget", "llmgateway users limits ada --budget AMOUNTusd/month"),
        ("member.tokens_per_minute", "llmgateway groups set physics --member-tokens-per-minute N"),
        ("other.thing", "other.thing"),
    ],
)
def test_says_whose_limit_it_is_and_how_to_raise_it(limit, says):
    assert says in about_refusal(refusal(limit=limit))


def test_a_key_of_nobody_is_another_matter_than_one_that_is_blocked():
    blocked = refusal(status=401, code="invalid_api_key", limit=None)

    assert "llmgateway keys unblock key_0001" in about_refusal(blocked)
    assert "keys add" in about_refusal(refusal(status=401, code="invalid_api_key", limit=None, key_id=None))


def test_a_name_is_no_command_of_the_shell():
    """A client chooses the model's name, and an admin pastes what stands here."""
    advice = about_refusal(refusal(status=404, code="model_not_found", limit=None, model="x; rm -rf ~"))

    assert "llmgateway models set 'x; rm -rf ~'" in advice
    assert "users limits 'Ada Lovelace' --budget" in about_refusal(refusal(limit="person.budget", user="Ada Lovelace"))


def test_names_with_braces_stay_as_they_are():
    assert "{key} {0}" in about_refusal(refusal(status=404, code="model_not_found", limit=None, model="{key} {0}"))

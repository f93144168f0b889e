"""What is learnt from the answers of a deployment."""

from __future__ import annotations

import pytest

from llmgateway.records import Usage
from llmgateway.usage.booking import Asked
from llmgateway.usage.observed import MOST_DEPLOYMENTS, ObservedDeployments


def usage(completion: int, *, reasoning: int = 0) -> Usage:
    return Usage(prompt_tokens=5, completion_tokens=completion, total_tokens=5 + completion, reasoning_tokens=reasoning)


@pytest.fixture
def observed() -> ObservedDeployments:
    return ObservedDeployments()


def test_nothing_is_known_before_the_first_answer(observed):
    """Then the speed is the highest one, and the rest is unknown."""
    assert 300.0 == observed.tokens_per_second("gpt-5")
    assert observed.model("gpt-5") is None
    assert observed.mean_completion_tokens("gpt-5") is None
    assert not observed.thinks("gpt-5")


def test_the_speed_is_the_fastest_of_ten_answers(observed):
    """Nine are not enough; the tenth makes the fastest of them count."""
    for tokens in (600, 1200, 900, 600, 600, 600, 600, 600, 600):
        observed.learn("gpt-5", model="gpt-5", usage=usage(tokens), seconds=10.0)
    assert 300.0 == observed.tokens_per_second("gpt-5")

    observed.learn("gpt-5", model="gpt-5", usage=usage(600), seconds=10.0)

    assert 120.0 == observed.tokens_per_second("gpt-5")
    assert 300.0 == observed.tokens_per_second("gpt-4o")


@pytest.mark.parametrize(("tokens", "speed"), [(200, 50.0), (50_000, 300.0)])
def test_the_speed_stays_between_50_and_300(observed, tokens, speed):
    """However slowly or fast the answers came."""
    for _ in range(10):
        observed.learn("gpt-5", model="gpt-5", usage=usage(tokens), seconds=100.0)

    assert speed == observed.tokens_per_second("gpt-5")


def test_answers_to_long_prompts_tell_no_speed(observed):
    """To read the prompt took the time. Clients could make a deployment look slow with them."""
    slow = Usage(prompt_tokens=10_001, completion_tokens=1000, total_tokens=11_001)
    for _ in range(20):
        observed.learn("gpt-5", model="gpt-5", usage=slow, seconds=20.0)

    assert 300.0 == observed.tokens_per_second("gpt-5")


@pytest.mark.parametrize(
    ("tokens", "seconds", "choices"),
    [(199, 2.0, 1), (280, 0.99, 1), (1000, 10.0, 2), (1000, None, 1)],
    ids=["few tokens", "at once", "two choices", "no time"],
)
def test_answers_that_tell_no_speed_do_not_count(observed, tokens, seconds, choices):
    """Short ones, several choices, and those whose time is unknown."""
    for _ in range(20):
        observed.learn("gpt-5", model="gpt-5", usage=usage(tokens), seconds=seconds, asked=Asked(choices))

    assert 300.0 == observed.tokens_per_second("gpt-5")


def test_reasoning_is_remembered(observed):
    """A model that has thought three times can think again, although its later answers contain no reasoning."""
    for _ in range(2):
        observed.learn("mine", model="custom", usage=usage(100, reasoning=64))
    assert not observed.thinks("mine")
    observed.learn("mine", model="custom", usage=usage(100, reasoning=64))
    observed.learn("mine", model="custom", usage=usage(100))

    assert observed.thinks("mine")
    assert not observed.thinks("other")


def test_the_mean_is_that_of_recent_answers_for_each_choice(observed):
    """Old answers lose their weight."""
    observed.learn("gpt-5", model="gpt-5", usage=usage(100))
    observed.learn("gpt-5", model="gpt-5", usage=usage(600), asked=Asked(2))
    assert 200.0 == observed.mean_completion_tokens("gpt-5")

    for _ in range(100):
        observed.learn("gpt-5", model="gpt-5", usage=usage(1000))

    assert 990 < observed.mean_completion_tokens("gpt-5") <= 1000


def test_an_answer_without_a_count_tells_the_model_only(observed):
    """Its length is not 0: it is unknown."""
    observed.learn("mine", model="gpt-5-2025-08-07")
    observed.learn("mine", model=None, usage=usage(300))
    observed.learn("mine", model=None)

    assert "gpt-5-2025-08-07" == observed.model("mine")
    assert 300.0 == observed.mean_completion_tokens("mine")


def test_made_up_names_do_not_fill_the_memory(observed):
    """The deployment that has not answered for the longest time goes; one that is used stays."""
    observed.learn("used", model="gpt-5")
    observed.learn("unused", model="gpt-5")
    for number in range(MOST_DEPLOYMENTS):
        observed.learn(f"made-up-{number}", model="gpt-5")
        observed.learn("used", model="gpt-5")

    assert "gpt-5" == observed.model("used")
    assert observed.model("unused") is None
    assert "gpt-5" == observed.model(f"made-up-{MOST_DEPLOYMENTS - 2}")


def test_a_deployment_that_ignores_limits():
    """One answer that is longer than its client allowed proves it; its name may be written in other letters."""
    observed = ObservedDeployments()
    usage = Usage(prompt_tokens=1, completion_tokens=20, total_tokens=21)
    observed.learn("Grok", model=None, usage=usage, asked=Asked(choices=2, most_tokens=10))
    assert not observed.ignores_limits("Grok")

    observed.learn("Grok", model=None, usage=usage, asked=Asked(most_tokens=19))

    assert observed.ignores_limits("grok")
    assert not observed.ignores_limits("gpt-4o")

"""Names of models are known from admins, from the price list and from answers; answers teach only so many."""

from __future__ import annotations

import pytest

from llmgateway.usage.known_models import MOST_LEARNT, KnownModels
from tests.stores.contract import at_once


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("offered", True),
        ("of-the-key", True),
        ("priced", True),
        ("gpt-4o", True),
        ("made-up", False),
        ("", False),
        ("gpt-4o-0001", False),
        ("GPT-4O", False),
        ("g p t 4 o", False),
    ],
)
def test_knows_what_admins_and_the_price_list_name(model, expected):
    """Other spellings and versions of a listed name are not known: there are any number of them."""
    assert expected == KnownModels(["offered"]).knows(model, ("of-the-key",), {"priced": 1})


def test_learns_what_azure_has_answered():
    """The name is known from then on."""
    known = KnownModels([])

    assert known.learn("course-a")
    assert known.knows("course-a")
    assert not known.knows("course-b")


def test_learns_only_so_many():
    """Names that are known anyway take no place, and what was learnt stays."""
    known = KnownModels(["offered"])
    for number in range(MOST_LEARNT):
        assert known.learn(f"name-{number}")
        assert known.learn("offered")
        assert known.learn("name-0")

    assert not known.learn("one-too-many")
    assert not known.knows("one-too-many")
    assert known.learn("name-0")
    assert known.learn("offered")


def test_loses_no_name_and_exceeds_no_limit_with_threads():
    """Names that several threads learn at once are all known."""
    known = KnownModels([])

    learnt = at_once(
        *(lambda n=n: [known.learn(f"{n}-{number}") for number in range(MOST_LEARNT // 4)] for n in range(8))
    )

    assert MOST_LEARNT == sum(map(sum, learnt))
    assert MOST_LEARNT == sum(known.knows(f"{n}-{number}") for n in range(8) for number in range(MOST_LEARNT // 4))

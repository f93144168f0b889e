"""A link that lets somebody in without a key: once, from this machine, for ten minutes."""

from __future__ import annotations

import pytest

from llmgateway.accounts.one_time import SECONDS, OneTimeLink


@pytest.fixture
def link(clock):
    return OneTimeLink("owner", clock=clock)


def test_lets_in_once(link):
    """The second time it is nobody's."""
    token = link.issue()

    assert ["owner", None] == [link.redeem(token, "127.0.0.1") for _ in range(2)]


def test_ends_by_itself(link, clock):
    """After ten minutes."""
    token = link.issue()
    clock.advance(SECONDS)

    assert link.redeem(token, "127.0.0.1") is None


@pytest.mark.parametrize("address", ["192.0.2.1", "::ffff:192.0.2.1", "", "localhost"])
def test_is_for_this_machine(link, address):
    """It stays valid there when somebody elsewhere tries it."""
    token = link.issue()

    assert link.redeem(token, address) is None
    assert "owner" == link.redeem(token, "::1")


def test_nobody_guesses_it(link):
    """Before it is made, and after."""
    assert link.redeem("", "127.0.0.1") is None
    token = link.issue()
    assert link.redeem(token[:-1], "127.0.0.1") is None
    assert link.issue() != token
    assert link.redeem(token, "127.0.0.1") is None

"""Who may call the admin API, and how often somebody may guess."""

from __future__ import annotations

import pytest

from llmgateway.errors import AdminThrottled, InvalidAdminKey
from llmgateway.web import guard as guard_module
from llmgateway.web.guard import ATTEMPTS, WINDOW_SECONDS, AdminGuard
from tests.stores.contract import at_once

KEY = "admin-key-for-tests"


@pytest.fixture
def guard(clock):
    return AdminGuard(KEY, clock=clock)


def guess(guard: AdminGuard, times: int = 1, *, address: str = "10.0.0.1", key: str | None = "a-guess") -> None:
    for _ in range(times):
        with pytest.raises(InvalidAdminKey) as refused:
            guard.check(key, address)
        assert not key or key not in refused.value.message


def throttled(guard: AdminGuard, *, address: str = "10.0.0.1", key: str = KEY) -> int:
    with pytest.raises(AdminThrottled) as refused:
        guard.check(key, address)
    return refused.value.retry_after


def test_lets_the_right_key_in(guard):
    """As often as it comes."""
    for _ in range(100):
        guard.check(KEY, "10.0.0.1")


@pytest.mark.parametrize("key", [None, "", "a-guess", KEY.upper(), KEY + " ", KEY[:-1], "\xff", "日本"])
def test_keeps_every_other_out(guard, key):
    """A key is right to the last byte or it is wrong, whatever characters it has."""
    guess(guard, key=key)


def test_a_key_may_have_any_characters(clock):
    """A server gives header bytes as Latin-1; the key that an operator wrote in UTF-8 is meant."""
    AdminGuard("schlüssel-für-日本", clock=clock).check("schlüssel-für-日本".encode().decode("latin-1"), "10.0.0.1")


def test_slows_down_who_guesses(guard, clock):
    """After some wrong keys even the right one waits, until the first guess is long enough ago."""
    guess(guard, ATTEMPTS)
    assert WINDOW_SECONDS + 1 == throttled(guard)

    clock.advance(WINDOW_SECONDS - 1)
    assert 2 == throttled(guard)
    clock.advance(1)
    guard.check(KEY, "10.0.0.1")


def test_waiting_is_not_prolonged_by_asking(guard, clock):
    """A script with an old key recovers a minute after it was corrected, however eager it is."""
    guess(guard, ATTEMPTS)
    for _ in range(30):
        clock.advance(1)
        throttled(guard)
    clock.advance(WINDOW_SECONDS - 30)

    guard.check(KEY, "10.0.0.1")


def test_the_window_slides(guard, clock):
    """Guesses spread over time are let be until there are too many within one window."""
    for _ in range(3 * ATTEMPTS):
        clock.advance(WINDOW_SECONDS / (ATTEMPTS - 1))
        guess(guard)

    guess(guard)
    throttled(guard)


def test_a_missing_key_is_no_guess(guard):
    """Who sends none, as a scraper may, locks nobody out of the address."""
    guess(guard, ATTEMPTS + 1, key=None)

    guard.check(KEY, "10.0.0.1")


def test_others_are_not_slowed_down(guard):
    """Each address has its own count."""
    guess(guard, ATTEMPTS)

    guard.check(KEY, "10.0.0.2")
    guess(guard, ATTEMPTS, address="10.0.0.3")


def test_remembers_a_bounded_number_of_addresses(guard, monkeypatch):
    """Whoever has many addresses does not fill the memory; the ones seen last are the ones kept."""
    monkeypatch.setattr(guard_module, "REMEMBERED_ADDRESSES", 5)
    guess(guard, ATTEMPTS, address="10.0.0.1")
    for number in range(2, 6):
        guess(guard, address=f"10.0.0.{number}")
    throttled(guard)

    guess(guard, address="10.0.0.6")

    assert 5 == len(guard._failures)
    guard.check(KEY, "10.0.0.1")


def test_counts_under_threads(guard):
    """Guessing in parallel is not faster."""

    def attempt() -> bool:
        try:
            guard.check("a-guess", "10.0.0.1")
        except AdminThrottled:
            return True
        except InvalidAdminKey:
            return False

    assert ATTEMPTS == at_once(*[attempt] * (3 * ATTEMPTS)).count(False)

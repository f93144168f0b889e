"""Keys that were refused are remembered for a minute."""

from __future__ import annotations

from llmgateway.ratelimit.refused import REMEMBERED_SECONDS, RecentlyRefused


def test_a_key_is_remembered_for_a_minute_after_its_last_refusal(clock):
    """Each refusal begins a new minute; others are not remembered."""
    refused = RecentlyRefused(clock)
    refused.add("a")
    clock.advance(REMEMBERED_SECONDS - 1)
    refused.add("a")
    clock.advance(REMEMBERED_SECONDS - 1)

    assert "a" in refused
    assert "b" not in refused
    clock.advance(1)
    assert "a" not in refused


def test_old_keys_are_forgotten(clock):
    """Memory does not grow with the keys that were refused some time ago."""
    refused = RecentlyRefused(clock)
    for number in range(1000):
        refused.add(f"key-{number}")
        clock.advance(1)

    assert REMEMBERED_SECONDS == len(refused)

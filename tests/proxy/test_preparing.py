"""The bytes of bodies in preparation are bounded, for all keys together and for each."""

from __future__ import annotations

import pytest

from llmgateway.errors import Overloaded
from llmgateway.proxy.preparing import SMALL_BYTES, PreparationLimit

LARGE = 10 * SMALL_BYTES


@pytest.fixture
def limit():
    return PreparationLimit(most_bytes=3 * LARGE, most_bytes_per_key=2 * LARGE)


def test_a_key_is_refused_what_is_beyond_its_part(limit):
    """Another key is still served, and the first one again when a body is prepared."""
    with limit.hold("a", LARGE):
        with limit.hold("a", LARGE):
            with pytest.raises(Overloaded, match="of your key") as refused, limit.hold("a", SMALL_BYTES + 1):
                pass
            assert (503, 1) == (refused.value.status, refused.value.retry_after)
            with limit.hold("b", LARGE):
                pass
        with limit.hold("a", LARGE):
            pass

    assert 0 == limit.held


def test_all_keys_together_are_bounded(limit):
    """More than the process may hold is refused, also from a key that holds nothing."""
    with limit.hold("a", 2 * LARGE), limit.hold("b", LARGE):
        with pytest.raises(Overloaded, match="The gateway"), limit.hold("c", LARGE):
            pass
        with limit.hold("c", SMALL_BYTES):
            pass

    assert 0 == limit.held


def test_a_body_larger_than_the_limits_is_served_alone(limit):
    """An admin who permits large bodies need not raise these limits, too."""
    with limit.hold("a", 100 * LARGE), pytest.raises(Overloaded), limit.hold("b", LARGE):
        pass


def test_an_error_gives_the_bytes_back(limit):
    """Whatever happens to the body."""
    with pytest.raises(ZeroDivisionError), limit.hold("a", LARGE):
        raise ZeroDivisionError

    assert 0 == limit.held

"""Constant load changes nothing about what the gateway takes of the machine."""

from __future__ import annotations

import pytest

from .site import connections_to
from .soak import CLIENTS, soak

pytestmark = pytest.mark.slow

SECONDS, INTERVAL = 18, 3


def test_load_leaves_nothing_behind(site, start_gateway):
    """Memory, threads and descriptors stay where they were; connections to Azure are used again; nobody is refused."""
    gateway = start_gateway()

    samples = [*soak(site, gateway, seconds=SECONDS, interval=INTERVAL)]

    early, last = samples[1], samples[-1]
    # Without reuse it would be one for each; those who leave take theirs with them.
    left = last.requests * 0.1
    assert last.requests > 200
    assert 0 == last.failed
    assert last.opened < 3 * CLIENTS + 1.5 * left
    assert last.open <= CLIENTS * 2
    assert last.threads == early.threads
    assert last.descriptors <= early.descriptors + CLIENTS
    assert last.memory_mb < early.memory_mb + 15
    site.assert_books_balance(gateway)
    gateway.stop()
    assert 0 == connections_to(site.azure.port)["01"]

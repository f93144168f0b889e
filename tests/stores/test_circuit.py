"""A backend that has just failed is not asked."""

from __future__ import annotations

import pytest

from llmgateway.stores.circuit import Circuit


@pytest.fixture
def circuit(clock):
    return Circuit("redis", retry_after=1.0, clock=clock)


def test_lets_everybody_through_while_all_is_well(circuit):
    """A backend that never failed is always asked."""
    assert all(circuit.allows() for _ in range(10))


def test_lets_one_through_after_each_pause(circuit, clock):
    """After a failure no call asks for a while, and then one call at a time."""
    circuit.failed("ConnectionError")
    assert not circuit.allows()

    clock.advance(1)
    assert [circuit.allows() for _ in range(3)] == [True, False, False]

    clock.advance(1)
    assert circuit.allows()
    circuit.failed("ConnectionError")
    clock.advance(0.9)
    assert not circuit.allows()


def test_lets_everybody_through_after_a_success(circuit, clock):
    """After one success all calls ask the backend."""
    circuit.failed("ConnectionError")
    clock.advance(1)
    circuit.allows()

    circuit.succeeded()

    assert all(circuit.allows() for _ in range(10))


def test_a_clock_that_was_put_back_does_no_harm(circuit, clock):
    """If the clock is set back by an hour, the backend is asked at once."""
    circuit.failed("ConnectionError")

    clock.advance(-3600)

    assert circuit.allows()
    assert not circuit.allows()

"""A request on its way, which another thread can cut."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from llmgateway.transmission import Transmission


class Ours(socket.socket):
    """Our end of a wire."""

    def shutdown(self) -> None:
        super().shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wires():
    ours, theirs = socket.socketpair()
    with Ours(fileno=ours.detach()) as mine, theirs:
        yield mine, theirs


def test_knows_whether_anything_was_sent(wires):
    """What was carried once may be billed, also when it has been cut."""
    transmission = Transmission()
    assert not transmission.sent

    transmission.carry_over(wires[0])
    transmission.cut()

    assert (True, True) == (transmission.sent, transmission.was_cut)


def test_a_part_is_not_sent(wires):
    """What Azure cannot have in full is billed to nobody, also when the rest was cut off."""
    transmission = Transmission()
    transmission.carry_over(wires[0], complete=False)
    transmission.cut()

    with pytest.raises(ConnectionAbortedError):
        transmission.carry_over(wires[0])
    assert not transmission.sent


def test_cutting_wakes_who_waits(wires):
    """A thread in the middle of a read comes back, and the other side sees the end."""
    ours, theirs = wires
    transmission = Transmission()
    transmission.carry_over(ours)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(ours.recv(1)))
    thread.start()

    transmission.cut()
    thread.join(5)

    assert [b""] == read
    assert b"" == theirs.recv(1)


def test_what_was_cut_is_not_sent(wires):
    """Who is told to go before anything was sent sends nothing."""
    transmission = Transmission()
    transmission.cut()

    with pytest.raises(ConnectionAbortedError):
        transmission.carry_over(wires[0])

    assert not transmission.sent


def test_what_has_arrived_cannot_be_cut(wires):
    """The wire may carry another request by then."""
    ours, theirs = wires
    transmission = Transmission()
    transmission.carry_over(ours)
    transmission.arrive()

    transmission.cut()

    ours.sendall(b"x")
    assert b"x" == theirs.recv(1)


def test_cutting_a_closed_wire_is_harmless(wires):
    """Whoever comes late finds nothing to do."""
    transmission = Transmission()
    transmission.carry_over(wires[0])
    wires[0].close()

    transmission.cut()
    transmission.cut()

    assert transmission.was_cut


def test_a_rest_ends_when_it_is_cut():
    """Whoever waits for nothing in particular is woken, too; what was cut does not rest at all."""
    transmission = Transmission()
    transmission.rest(0.001)
    threading.Timer(0.05, transmission.cut).start()
    began = time.monotonic()

    transmission.rest(60)
    transmission.rest(60)
    transmission.cut()

    assert time.monotonic() - began < 30


def test_what_was_recalled_was_not_sent(wires):
    """It can be sent again, and cut then."""
    ours, theirs = wires
    transmission = Transmission()
    transmission.carry_over(ours)
    transmission.recall()
    assert not transmission.sent

    transmission.cut()
    ours.sendall(b"x")  # another's by now
    assert b"x" == theirs.recv(1)
    with pytest.raises(ConnectionAbortedError):
        transmission.carry_over(ours)

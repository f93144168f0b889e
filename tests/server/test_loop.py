"""The event loop of a worker's main thread, over real sockets."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from waitress import wasyncore

from llmgateway.server.loop import SWEEP_SECONDS, Loop
from tests.parts import Stopwatch


class Connection(wasyncore.dispatcher):
    """A connection that counts how often it is asked and what it does."""

    def __init__(self, wire: socket.socket, loop: Loop) -> None:
        super().__init__(wire, loop)
        self.connected = True
        self.wants_to_read, self.wants_to_write = True, False
        self.asked = 0
        self.got: list[bytes] = []
        self.writes = 0

    def readable(self) -> bool:
        self.asked += 1
        return self.wants_to_read

    def writable(self) -> bool:
        return self.wants_to_write

    def handle_read(self) -> None:
        if data := self.recv(100):
            self.got.append(data)

    def handle_write(self) -> None:
        self.writes += 1

    def handle_close(self) -> None:
        self.close()


@pytest.fixture
def timer():
    return Stopwatch()


@pytest.fixture
def loop(timer):
    return Loop(timer=timer)


@pytest.fixture
def pairs(loop):
    """Three connections and their other ends."""
    made = [socket.socketpair() for _ in range(3)]
    connections = [Connection(ours, loop) for ours, _ in made]
    yield list(zip(connections, [theirs for _, theirs in made], strict=True))
    for connection in connections:
        connection.close()
    for _, theirs in made:
        theirs.close()


def test_only_those_to_which_something_happened_are_asked(loop, pairs):
    """Other connections cost nothing, however many there are."""
    loop.run_once(0)
    asked = [connection.asked for connection, _ in pairs]
    connection, theirs = pairs[1]

    theirs.sendall(b"a")
    loop.run_once(5)
    theirs.sendall(b"b")
    loop.run_once(5)

    assert [b"a", b"b"] == connection.got
    assert [0, 2, 0] == [one.asked - before for (one, _), before in zip(pairs, asked, strict=True)]


def test_a_change_that_is_reported_counts_at_once(loop, pairs):
    """This works from another thread, too, while the loop waits."""
    connection, _ = pairs[0]
    loop.run_once(0)

    def change() -> None:
        connection.wants_to_write = True
        loop.update_interest(connection)

    began = time.monotonic()
    threading.Timer(0.05, change).start()
    while not connection.writes:
        loop.run_once(5)
        assert time.monotonic() - began < 5

    connection.wants_to_write = False
    loop.update_interest(connection)
    loop.run_once(0)
    assert 1 == connection.writes


def test_a_change_that_is_not_reported_is_noticed(loop, pairs, timer):
    """All connections are asked again from time to time."""
    connection, theirs = pairs[0]
    connection.wants_to_read = False
    loop.run_once(0)
    theirs.sendall(b"a")
    loop.run_once(0)
    connection.wants_to_read = True
    loop.run_once(0)
    assert [] == connection.got

    timer.advance(SWEEP_SECONDS)
    loop.run_once(5)

    assert [b"a"] == connection.got


def test_a_connection_that_waits_for_nothing_is_not_registered(loop, pairs):
    """A connection that waits for no event is not registered with the kernel."""
    connection, theirs = pairs[0]
    loop.run_once(0)
    connection.wants_to_read = False
    theirs.sendall(b"a")
    loop.run_once(5)  # the connection is asked after this
    theirs.sendall(b"b")
    loop.run_once(0)

    assert [b"a"] == connection.got


def test_a_closed_connection_is_forgotten(loop, pairs):
    """A closed connection is not asked again, even if its event was pending: its descriptor may be used again."""
    (first, one), (second, other), _ = pairs
    loop.run_once(0)
    first.handle_read = second.close
    second.handle_read = first.close
    one.sendall(b"a")
    other.sendall(b"a")

    loop.run_once(5)

    assert 1 == sum(connection.socket is None for connection in (first, second))
    assert 3 - 1 == len(loop)
    loop.update_interest(first)
    loop.update_interest(second)
    assert 3 - 1 == len(loop)


def test_one_that_closes_while_it_reads_is_not_written_to(loop, pairs):
    """A connection may be readable and writable in the same round."""
    connection, theirs = pairs[0]
    connection.wants_to_write = True
    theirs.close()

    loop.run_once(5)

    assert (None, 0) == (connection.socket, connection.writes)

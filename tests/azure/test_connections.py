"""Connections over real sockets: how they are opened, kept and read."""

from __future__ import annotations

import select
import socket

import pytest

from llmgateway.azure.connections import KEPT_SECONDS, Connections
from tests.azure.test_upstream import no_proxies  # noqa: F401 - a fixture
from tests.parts import Stopwatch


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def timer():
    return Stopwatch()


@pytest.fixture
def connections(server, timer):
    made = Connections(f"http://127.0.0.1:{server.getsockname()[1]}/", connect_timeout=5, most=2, timer=timer)
    yield made
    made.close()


def test_send_at_once_and_show_signs_of_life(server, connections, monkeypatch):
    """Small requests do not wait for an acknowledgement, through a proxy neither, and silence is no secret."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.getsockname()[1]}")
    through_proxy = Connections("http://azure.invalid/", connect_timeout=5, most=1)

    for one in (connections, through_proxy):
        wire = one.open()
        assert 0 != wire.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert 0 != wire.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        wire.close()


def test_the_one_used_last_is_used_next(connections):
    """The others age, and are closed one day."""
    assert connections.take() is None
    first, second = connections.open(), connections.open()
    connections.keep(first)
    connections.keep(second)

    assert second is connections.take()
    assert first is connections.take()
    assert connections.take() is None
    connections.keep(first)
    connections.keep(second)


def test_no_more_are_kept_than_wanted(connections):
    """One too many is closed."""
    opened = [connections.open() for _ in range(3)]
    for one in opened:
        connections.keep(one)

    assert [False, False, True] == [one.is_closed for one in opened]


def test_what_has_been_idle_for_long_is_not_used(connections, timer):
    """Before whoever is in between forgets it."""
    connection = connections.open()
    connections.keep(connection)
    timer.advance(KEPT_SECONDS)

    assert connections.take() is None
    assert connection.is_closed


def test_what_the_other_side_has_closed_is_not_used(server, connections):
    """Nor what it has said something on that nobody asked for."""
    closed, speaking = connections.open(), connections.open()
    server.accept()[0].close()
    peer, _ = server.accept()
    with peer:
        peer.sendall(b"x")
        for one in (closed, speaking):
            select.select([one.socket], [], [], 5)
            connections.keep(one)

        assert connections.take() is None
    assert closed.is_closed
    assert speaking.is_closed


def test_closed_they_keep_nothing(connections):
    """What comes back late is closed too."""
    connection = connections.open()
    connections.close()
    connections.keep(connection)

    assert connection.is_closed

"""Connections over real sockets: how they are opened, kept and read."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from llmgateway.connections import KEPT_SECONDS, READ_BYTES, Connections, acknowledged, receive
from tests.unit.parts import Stopwatch
from tests.unit.test_upstream import certificate, no_proxies  # noqa: F401 - fixtures


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
        connection = one.open()
        assert 0 != connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert 0 != connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        connection.close()


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
            one.sock.recv(1, socket.MSG_PEEK)
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


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux says it")
def test_knows_what_has_arrived(server, connections):
    """What the other side's system has, it has acknowledged; what was sent behind its end, not."""
    connection = connections.open()
    peer, _ = server.accept()
    before = acknowledged(connection.sock)
    connection.sock.sendall(b"x" * 100)
    peer.recv(100)
    peer.sendall(b"y")
    connection.sock.recv(1)
    after = acknowledged(connection.sock)
    peer.close()
    assert b"" == connection.sock.recv(1)
    connection.sock.sendall(b"x" * 100)

    assert (100, 0) == (after - before, acknowledged(connection.sock) - after)
    connection.close()


@pytest.fixture
def encrypted(certificate):  # noqa: F811
    """Two ends of a connection over TLS."""
    pem, context = certificate
    ours, theirs = socket.socketpair()
    served: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: served.append(context.wrap_socket(theirs, server_side=True)))
    thread.start()
    wire = ssl.create_default_context(cafile=pem).wrap_socket(ours, server_hostname="localhost")
    thread.join()
    with wire, served[0]:
        wire.settimeout(5)
        yield wire, served[0]


def test_over_tls_everything_that_has_arrived_is_read_at_once(encrypted):
    """However many records it came in; and a read waits again afterwards."""
    ours, theirs = encrypted
    for number in range(50):
        theirs.sendall(b"%d " % number)

    assert b"".join(b"%d " % number for number in range(50)) == receive(ours)
    assert 5 == ours.gettimeout()
    threading.Timer(0.05, theirs.sendall, [b"later"]).start()
    assert b"later" == receive(ours)


def test_over_tls_a_read_has_an_end(encrypted):
    """What comes faster than it is read does not fill the memory, and nothing is lost."""
    ours, theirs = encrypted
    sent = b"x" * 16_000 * 20
    writer = threading.Thread(target=theirs.sendall, args=[sent])
    writer.start()
    pieces = []
    while sum(map(len, pieces)) < len(sent):
        pieces.append(receive(ours))
    writer.join()

    assert sent == b"".join(pieces)
    assert max(map(len, pieces)) < READ_BYTES + 16_384


def test_over_tls_the_end_behind_the_last_bytes_is_not_lost(encrypted):
    """What came before it is read first."""
    ours, theirs = encrypted
    theirs.sendall(b"last words")
    theirs.close()

    assert b"last words" == receive(ours)
    assert b"" == receive(ours)

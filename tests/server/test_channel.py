"""The connection to one client, over a real socket."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace

import pytest
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected

from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.server.capacity import SharedCapacity, WorkerCapacity
from llmgateway.server.channel import SLOWEST_SENDER, Channel, ClientSocket

PATIENCE = 10.0


@pytest.fixture
def channel():
    """The connection of a worker, without the worker; ``client`` is the other end."""
    ours, theirs = socket.socketpair()
    server = SimpleNamespace(
        active_channels={},
        client_timeout=PATIENCE,
        pull_trigger=lambda: None,
        capacity=WorkerCapacity(SharedCapacity(1), 0, ConcurrencyLimit(1)),
    )
    made = Channel(server, ClientSocket(fileno=ours.detach()), ("127.0.0.1", 1), Adjustments(), map={})
    made.client = theirs
    with theirs:
        yield made
        made.handle_close()


@pytest.mark.parametrize(
    ("waiting", "silent", "blocked", "too_slow"),
    [
        (0, 1000, None, False),  # waitress closes idle connections
        (1, 9, None, False),
        (1, 11, None, True),
        (1, 0, 9, False),
        (1, 0, 11, True),  # the client reads a little now and then
    ],
)
def test_who_takes_too_long_for_an_answer(channel, waiting, silent, blocked, too_slow):
    """A client has to read enough, so that its thread can go on."""
    now = time.time()
    channel.total_outbufs_len = waiting
    channel.last_activity = now - silent
    channel._blocked = None if blocked is None else now - blocked

    assert too_slow is channel.is_too_slow(now)


@pytest.mark.parametrize(
    ("body_bytes", "silent", "after", "too_slow"),
    [
        (0, 0, 9, False),
        (0, 0, 11, True),
        (10 * SLOWEST_SENDER, 0, 19, False),  # a conversation on a slow line
        (10 * SLOWEST_SENDER, 0, 21, True),
        (10 * SLOWEST_SENDER, 11, 15, True),
    ],
)
def test_who_takes_too_long_for_a_request(channel, body_bytes, silent, after, too_slow):
    """What arrives before authentication may take longer if it is more, and is sent fast enough."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    channel.received(head)
    channel.received(b"x" * body_bytes)
    now = channel._begun + after
    channel.last_activity = now - silent

    assert too_slow is channel.is_too_slow(now)


def test_data_that_the_socket_does_not_accept_is_buffered(channel):
    """What the socket accepts is sent at once; later data waits behind what is in the buffer."""
    pieces = [b"%d," % number * 30_000 for number in range(40)]
    for piece in pieces:
        assert len(piece) == channel.write_soon(piece)
    assert channel.total_outbufs_len

    got = channel.client.recv(1 << 20)  # makes room
    pieces.append(b"last")
    channel.write_soon(b"last")
    while channel.total_outbufs_len:
        channel._flush_some()
        got += channel.client.recv(1 << 20)
    channel.write_soon(b"the end")
    while not got.endswith(b"the end"):
        got += channel.client.recv(1 << 20)

    assert b"".join(pieces) + b"the end" == got


def test_the_held_head_is_sent_first(channel):
    """The head is sent together with the beginning of the body."""
    channel.held = b"head "
    channel.write_soon(b"body")
    assert b"head body" == channel.client.recv(100)


@pytest.mark.parametrize("data", [b"", b"x"])
def test_nothing_is_written_to_a_client_that_has_gone(channel, data):
    """The thread of the request gets an error, even if it has nothing to write."""
    channel.connected = False
    with pytest.raises(ClientDisconnected):
        channel.write_soon(data)


def test_buffered_data_is_not_sent_on_a_closed_connection(channel):
    """The descriptor may already belong to another client."""
    channel.outbufs[-1].append(b"late")
    channel.total_outbufs_len = 4
    channel.connected = False

    channel._flush_some(do_close=False)

    channel.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        channel.client.recv(100)


def test_a_broken_connection_is_closed(channel):
    """The main thread closes it, when it sends what is in the buffer."""
    channel.client.close()
    channel.write_soon(b"x")
    assert channel.will_close or channel.total_outbufs_len


def test_a_file_is_written(channel, tmp_path):
    """An application may answer with a file (PEP 3333, "Optional Platform-Specific File Handling")."""
    (tmp_path / "file").write_bytes(b"content")
    buffer = ReadOnlyFileBasedBuffer((tmp_path / "file").open("rb"))
    buffer.prepare(7)
    channel.write_soon(buffer)
    channel._flush_some()
    assert b"content" == channel.client.recv(100)


def test_no_data_is_not_the_end_of_the_connection(channel):
    """waitress must not confuse the two."""
    with pytest.raises(BlockingIOError):
        channel.recv(100)
    channel.client.sendall(b"x")
    assert b"x" == channel.recv(100)

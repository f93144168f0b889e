"""A connection to a client, with a real socket."""

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
    """A connection to a client, as a worker has it, without the worker; ``client`` is the other end."""
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
        (0, 1000, None, False),  # an idle connection is waitress' business
        (1, 9, None, False),
        (1, 11, None, True),
        (1, 0, 9, False),
        (1, 0, 11, True),  # it takes a little now and then
    ],
)
def test_who_takes_too_long_for_an_answer(channel, waiting, silent, blocked, too_slow):
    """A client has to take something, and enough of it for its thread to go on."""
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
        (100 * SLOWEST_SENDER, 0, 109, False),  # a picture on a slow line
        (100 * SLOWEST_SENDER, 0, 111, True),
        (100 * SLOWEST_SENDER, 11, 50, True),
    ],
)
def test_who_takes_too_long_for_a_request(channel, body_bytes, silent, after, too_slow):
    """What is large may take longer, as long as it goes on."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    channel.received(head)
    channel.received(b"x" * body_bytes)
    now = channel._begun + after
    channel.last_activity = now - silent

    assert too_slow is channel.is_too_slow(now)


def test_what_a_client_does_not_take_at_once_waits_its_turn(channel):
    """The first bytes go past the buffer, those behind what waits in it do not."""
    pieces = [b"%d," % number * 30_000 for number in range(40)]
    for piece in pieces:
        assert len(piece) == channel.write_soon(piece)
    assert channel.total_outbufs_len

    got = channel.client.recv(1 << 20)  # now there is room
    pieces.append(b"last")
    channel.write_soon(b"last")
    while channel.total_outbufs_len:
        channel._flush_some()
        got += channel.client.recv(1 << 20)
    channel.write_soon(b"the end")
    while not got.endswith(b"the end"):
        got += channel.client.recv(1 << 20)

    assert b"".join(pieces) + b"the end" == got


def test_the_held_head_goes_in_front(channel):
    """Together with the beginning of the body."""
    channel.held = b"head "
    channel.write_soon(b"body")
    assert b"head body" == channel.client.recv(100)


@pytest.mark.parametrize("data", [b"", b"x"])
def test_nothing_is_written_to_a_client_that_has_gone(channel, data):
    """The request's thread is told, with nothing to write, too."""
    channel.connected = False
    with pytest.raises(ClientDisconnected):
        channel.write_soon(data)


def test_nothing_that_waits_is_sent_where_a_client_has_gone(channel):
    """Its descriptor may be another client's by then."""
    channel.outbufs[-1].append(b"late")
    channel.total_outbufs_len = 4
    channel.connected = False

    channel._flush_some(do_close=False)

    channel.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        channel.client.recv(100)


def test_a_broken_connection_is_closed(channel):
    """By the main thread, which is told so by what waits."""
    channel.client.close()
    channel.write_soon(b"x")
    assert channel.will_close or channel.total_outbufs_len


def test_a_file_is_written(channel, tmp_path):
    """As an application may answer with one (PEP 3333, "Optional Platform-Specific File Handling")."""
    (tmp_path / "file").write_bytes(b"content")
    buffer = ReadOnlyFileBasedBuffer((tmp_path / "file").open("rb"))
    buffer.prepare(7)
    channel.write_soon(buffer)
    channel._flush_some()
    assert b"content" == channel.client.recv(100)


def test_a_connection_that_has_nothing_to_read_is_none_that_has_ended(channel):
    """waitress must not take the one for the other."""
    with pytest.raises(BlockingIOError):
        channel.recv(100)
    channel.client.sendall(b"x")
    assert b"x" == channel.recv(100)

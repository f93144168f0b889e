"""A request that another thread cancels."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from llmgateway.azure.cancellation import CancellationToken


class Ours(socket.socket):
    """The gateway's end of a connection."""

    def shutdown(self) -> None:
        super().shutdown(socket.SHUT_RDWR)


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with Ours(fileno=ours.detach()) as mine, theirs:
        yield mine, theirs


def test_knows_whether_the_request_was_sent(ends):
    """A request that was sent may be billed, even after it was cancelled."""
    cancellation = CancellationToken()
    assert not cancellation.sent

    cancellation.attach(ends[0])
    cancellation.mark_sent()
    cancellation.cut()

    assert (True, True) == (cancellation.sent, cancellation.was_cut)


def test_a_part_of_a_request_does_not_count_as_sent(ends):
    """A request of which Azure has only a part is not billed, even if the rest was cut off."""
    cancellation = CancellationToken()
    cancellation.attach(ends[0])
    cancellation.cut()

    with pytest.raises(ConnectionAbortedError):
        cancellation.mark_sent()
    assert not cancellation.sent


def test_cancelling_wakes_the_waiting_thread(ends):
    """A thread that reads wakes up, and the other side sees the end of the connection."""
    ours, theirs = ends
    cancellation = CancellationToken()
    cancellation.attach(ours)
    read: list[bytes] = []
    thread = threading.Thread(target=lambda: read.append(ours.recv(1)))
    thread.start()

    cancellation.cut()
    thread.join(5)

    assert [b""] == read
    assert b"" == theirs.recv(1)


def test_a_cancelled_request_is_not_sent(ends):
    """A request that was cancelled before it was sent is not sent."""
    cancellation = CancellationToken()
    cancellation.cut()

    with pytest.raises(ConnectionAbortedError):
        cancellation.attach(ends[0])

    assert not cancellation.sent


def test_a_detached_connection_is_not_shut_down(ends):
    """After the answer has arrived the connection may carry another request."""
    ours, theirs = ends
    cancellation = CancellationToken()
    cancellation.attach(ours)
    cancellation.detach()

    cancellation.cut()

    ours.sendall(b"x")
    assert b"x" == theirs.recv(1)


def test_cutting_a_closed_connection_is_harmless(ends):
    """Cancelling a request with a closed connection has no effect."""
    cancellation = CancellationToken()
    cancellation.attach(ends[0])
    ends[0].close()

    cancellation.cut()
    cancellation.cut()

    assert cancellation.was_cut


def test_cancelling_ends_a_sleep():
    """A thread that sleeps is woken; a cancelled request does not sleep at all."""
    cancellation = CancellationToken()
    cancellation.rest(0.001)
    threading.Timer(0.05, cancellation.cut).start()
    began = time.monotonic()

    cancellation.rest(60)
    cancellation.rest(60)
    cancellation.cut()

    assert time.monotonic() - began < 30


def test_a_recalled_request_was_not_sent(ends):
    """A recalled request can be sent again, and cancelled then."""
    ours, theirs = ends
    cancellation = CancellationToken()
    cancellation.attach(ours)
    cancellation.mark_sent()
    cancellation.detach()
    cancellation.recall()
    assert not cancellation.sent

    cancellation.cut()
    ours.sendall(b"x")  # of another request now
    assert b"x" == theirs.recv(1)
    with pytest.raises(ConnectionAbortedError):
        cancellation.attach(ours)

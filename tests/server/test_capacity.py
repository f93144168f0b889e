"""Which worker accepts a connection: two of them, on one listening socket, in one process."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.server.capacity import SharedCapacity, WorkerCapacity
from llmgateway.server.channel import Server
from llmgateway.server.loop import SWEEP_SECONDS, Loop
from llmgateway.server.supervisor import listen
from llmgateway.server.threads import ThreadPool
from tests.parts import Stopwatch

from .test_worker import settings

PLACES = 2


def application(_environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []


class OneOfTwo:
    """A worker's server, whose loop the test runs."""

    def __init__(self, number, shared, listener, folder) -> None:
        self.timer = Stopwatch()
        self.limit = ConcurrencyLimit(PLACES)
        self.loop = Loop(timer=self.timer)
        self.threads = ThreadPool(1)
        capacity = WorkerCapacity(shared, number, self.limit)
        self.server = Server(
            application, settings(folder), listener, loop=self.loop, threads=self.threads, capacity=capacity
        )
        self.limit.on_change = self.server.slots_changed
        self.run()

    def run(self) -> int:
        """Do all that there is to do; return how many connections there are."""
        for _ in range(10):
            self.loop.run_once(0)
        return len(self.server.connections())

    def fill(self) -> None:
        for _ in range(PLACES):
            self.limit.take()

    def sweep(self) -> None:
        self.timer.advance(SWEEP_SECONDS)
        self.run()

    def close(self) -> None:
        for channel in self.server.connections():
            channel.handle_close()
        self.threads.shutdown(timeout=5)
        self.server.trigger.close()


@pytest.fixture
def shared():
    return SharedCapacity(2)


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listener(opened):
    return opened.enter_context(listen("127.0.0.1", 0))


@pytest.fixture
def pair(shared, listener, tmp_path, opened):
    made = [OneOfTwo(number, shared, listener, tmp_path) for number in range(2)]
    for one in made:
        opened.callback(one.close)
    return made


@pytest.fixture
def connect(listener, opened):
    """Connect as a client."""
    return lambda: opened.enter_context(socket.create_connection(listener.getsockname(), 5))


def test_a_full_worker_leaves_a_connection_to_one_with_places(pair, connect):
    """However often it is woken for it."""
    one, other = pair
    one.fill()
    connect()

    assert 0 == one.run()
    assert 1 == other.run()


def test_a_full_worker_that_accepts_nothing_is_not_woken(pair, connect):
    """Or it would be a busy loop until somebody else accepts."""
    one, _ = pair
    one.fill()
    connect()
    one.run()

    began = time.monotonic()
    one.loop.run_once(0.2)

    assert time.monotonic() - began >= 0.2


def test_if_all_are_full_all_accept(pair, connect):
    """Or nobody could say so: the last one goes on, the first one comes back within a second."""
    one, other = pair
    one.fill()
    connect()
    assert (0, 1) == (one.run(), other.run())
    other.fill()

    connect()
    assert (0, 2) == (one.run(), other.run())
    connect()
    one.sweep()
    assert (1, 2) == (one.run(), other.run())


def test_who_still_listens_when_another_one_has_places_again_does_not_accept(pair, connect):
    """It asks before each connection."""
    one, other = pair
    one.fill()
    other.fill()
    one.sweep()
    other.limit.free()

    connect()

    assert (0, 1) == (one.run(), other.run())


def test_a_place_that_becomes_free_is_told_to_a_loop_that_waits(pair, connect):
    """A connection that nobody has accepted meanwhile is accepted at once."""
    one, _ = pair
    one.fill()
    connect()
    assert 0 == one.run()

    threading.Timer(0.05, one.limit.free).start()
    one.loop.run_once(30)  # woken by the slot
    one.loop.run_once(30)  # and by the connection

    assert 1 == len(one.server.connections())


def test_connections_count_before_their_requests_have_places(pair, connect, shared):
    """A worker that is woken first does not accept more than it can serve."""
    one, other = pair
    clients = [connect() for _ in range(2 * PLACES)]
    assert (PLACES, PLACES) == (one.run(), other.run())

    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while not all(shared.others_have_free_slots(number) for number in range(2)):
        one.run()
        other.run()
    connect()

    assert PLACES + 1 == one.run()


def test_a_connection_that_closes_unused_counts_no_more(pair, connect):
    """As those of a port scanner."""
    one, _ = pair
    unused = [connect() for _ in range(PLACES)]
    one.run()
    connect()
    assert PLACES == one.run()

    unused.pop().close()
    one.run()

    assert PLACES == len(one.server.connections())
    assert {unused[0].getsockname()} < {channel.addr for channel in one.server.connections()}


@pytest.mark.parametrize("how", ["it dies", "it stops"])
def test_a_worker_that_is_gone_has_no_places(pair, connect, shared, how):
    """Who is full takes its connections, and says that it is full."""
    one, other = pair
    one.fill()
    connect()
    assert 0 == one.run()
    if how == "it dies":
        shared.forget(1)
    else:
        other.fill()
        other.server.capacity.close()
        other.limit.free()

    one.sweep()

    assert 1 == one.run()


def test_another_process_sees_who_is_full(shared):
    """The memory is made before the fork."""
    pid = os.fork()
    if pid == 0:
        shared.tell(1, full=False)
        os._exit(0)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert [True, False] == [shared.others_have_free_slots(number) for number in range(2)]


def test_what_is_told_is_true_after_many_changes_at_once(shared, monkeypatch):
    """Of two threads that change something in the same moment, the last one tells how it is."""
    capacity = WorkerCapacity(shared, 0, ConcurrencyLimit(1))
    tell = shared.tell

    def tell_slowly(worker: int, *, full: bool) -> None:
        if full:
            telling.set()
            settled.wait(0.1)  # nobody may settle it meanwhile
        tell(worker, full=full)

    monkeypatch.setattr(shared, "tell", tell_slowly)
    telling, settled = threading.Event(), threading.Event()

    accepting = threading.Thread(target=capacity.accepted, args=("a connection",))
    accepting.start()
    assert telling.wait(5)
    capacity.no_longer_new("a connection")
    settled.set()
    accepting.join()

    assert shared.others_have_free_slots(1)

"""Which worker accepts a connection: two workers on one listening socket, in one process."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.server.capacity import SharedCapacity, WorkerCapacity
from llmgateway.server.loop import SWEEP_SECONDS, Loop
from llmgateway.server.server import Server
from llmgateway.server.supervisor import listen
from llmgateway.server.threads import ThreadPool
from tests.parts import Stopwatch
from tests.servers import wait_until

from .test_worker import settings

SLOTS = 2


def application(_environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []


class OneOfTwo:
    """The server of a worker, whose loop the test runs."""

    def __init__(self, number, shared, listener, folder) -> None:
        self.timer = Stopwatch()
        self.limit = ConcurrencyLimit(SLOTS)
        self.loop = Loop(timer=self.timer)
        self.threads = ThreadPool(1)
        capacity = WorkerCapacity(shared, number, self.limit)
        self.server = Server(
            application, settings(folder), listener, loop=self.loop, threads=self.threads, capacity=capacity
        )
        self.limit.on_change = self.server.slots_changed
        self.run()

    def run(self) -> int:
        """Run the loop until nothing is left to do; return the number of connections."""
        for _ in range(10):
            self.loop.run_once(0)
        return len(self.server.connections())

    def fill(self) -> None:
        for _ in range(SLOTS):
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
    """Return a function that connects as a client."""
    return lambda: opened.enter_context(socket.create_connection(listener.getsockname(), 5))


def test_a_full_worker_leaves_a_connection_to_one_with_free_slots(pair, connect):
    """The full worker does not accept, however often it is woken."""
    one, other = pair
    one.fill()
    connect()

    assert 0 == one.run()
    assert 1 == other.run()


def test_a_full_worker_that_accepts_nothing_is_not_woken(pair, connect):
    """Otherwise its loop would be busy until another worker accepts."""
    one, _ = pair
    one.fill()
    connect()
    one.run()

    began = time.monotonic()
    one.loop.run_once(0.2)

    assert time.monotonic() - began >= 0.2


def test_if_all_are_full_all_accept(pair, connect):
    """The last full worker goes on, and the other one starts again within a second: a client must get the 503."""
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


def test_a_full_worker_that_still_listens_does_not_accept(pair, connect):
    """A full worker asks before each connection whether another one has free slots."""
    one, other = pair
    one.fill()
    other.fill()
    one.sweep()
    other.limit.free()

    connect()

    assert (0, 1) == (one.run(), other.run())


def test_a_slot_that_becomes_free_wakes_the_loop(pair, connect):
    """A connection that no worker has accepted yet is accepted at once."""
    one, _ = pair
    one.fill()
    connect()
    assert 0 == one.run()

    threading.Timer(0.05, one.limit.free).start()
    one.loop.run_once(30)  # the free slot wakes it
    one.loop.run_once(30)  # the connection wakes it

    assert 1 == len(one.server.connections())


def test_connections_count_before_their_requests_have_slots(pair, connect, shared):
    """A worker does not accept more connections than it can serve."""
    one, other = pair
    clients = [connect() for _ in range(2 * SLOTS)]
    assert (SLOTS, SLOTS) == (one.run(), other.run())

    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while not all(shared.others_have_free_slots(number) for number in range(2)):
        one.run()
        other.run()
    connect()

    # The thread of the last answer wakes the loop only after it has told the others.
    wait_until(lambda: one.run() == SLOTS + 1, what="the connection")


def test_a_connection_that_closes_unused_is_no_longer_counted(pair, connect):
    """For example the connection of a port scanner."""
    one, _ = pair
    unused = [connect() for _ in range(SLOTS)]
    one.run()
    connect()
    assert SLOTS == one.run()

    unused.pop().close()
    one.run()

    assert SLOTS == len(one.server.connections())
    assert {unused[0].getsockname()} < {channel.addr for channel in one.server.connections()}


@pytest.mark.parametrize("how", ["it dies", "it stops"])
def test_a_worker_that_has_ended_has_no_free_slots(pair, connect, shared, how):
    """A full worker accepts its connections, and answers 503."""
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
    """The memory is created before the fork."""
    pid = os.fork()
    if pid == 0:
        shared.tell(1, full=False)
        os._exit(0)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert [True, False] == [shared.others_have_free_slots(number) for number in range(2)]


def test_concurrent_changes_leave_the_last_state(shared, monkeypatch):
    """If two threads change something at the same time, the last state is stored."""
    capacity = WorkerCapacity(shared, 0, ConcurrencyLimit(1))
    tell = shared.tell

    def tell_slowly(worker: int, *, full: bool) -> None:
        if full:
            storing.set()
            changed.wait(0.1)  # the other thread must wait for the lock
        tell(worker, full=full)

    monkeypatch.setattr(shared, "tell", tell_slowly)
    storing, changed = threading.Event(), threading.Event()

    accepting = threading.Thread(target=capacity.accepted, args=("a connection",))
    accepting.start()
    assert storing.wait(5)
    capacity.no_longer_new("a connection")
    changed.set()
    accepting.join()

    assert shared.others_have_free_slots(1)

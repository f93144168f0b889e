"""One thread notices clients that have disconnected."""

from __future__ import annotations

import os
import threading

from llmgateway.azure.cancellation import CancellationToken
from llmgateway.errors import GatewayStopping
from llmgateway.proxy.disconnects import DisconnectWatcher
from tests.parts import Stopwatch
from tests.servers import wait_until


def closed_at_once() -> bool:
    return False


def watchers() -> int:
    return sum(thread.name == "watch" for thread in threading.enumerate())


def test_cancels_only_requests_whose_clients_have_gone():
    """Only the requests whose clients have disconnected are cancelled."""
    watch = DisconnectWatcher()
    gone, connected = CancellationToken(), CancellationToken()
    watch.add(connected, lambda: False, closed_at_once)
    watch.add(gone, lambda: True, closed_at_once)

    wait_until(lambda: gone.was_cut)

    assert not connected.was_cut
    watch.remove(connected)


def test_a_request_that_goes_on_is_cut_when_its_time_is_over():
    """The client is not checked again, and the request is cut at its deadline and not before."""
    timer = Stopwatch()
    watch = DisconnectWatcher(timer=timer)
    cancellation = CancellationToken()
    asked = []

    def goes_on() -> bool:
        asked.append(timer())
        watch.cut_after(cancellation, 20)
        return True

    watch.add(cancellation, lambda: True, goes_on)
    for _ in range(3):
        watch.look()
        timer.advance(6)
    assert not cancellation.was_cut

    timer.advance(2)
    assert not watch.look()

    assert cancellation.was_cut
    assert 1 == len(asked)
    assert 0 == watch.watched


def test_stopping_cuts_requests_that_go_on_too():
    """The process does not wait for answers that nobody waits for."""
    watch = DisconnectWatcher()
    cancellation = CancellationToken()
    watch.cut_after(cancellation, 60)

    watch.stop_all()

    assert isinstance(cancellation.reason, GatewayStopping)
    watch.remove(cancellation)


def test_the_token_knows_whether_the_client_has_gone():
    """The owner of a cancellation token can ask whether the client has disconnected."""
    watch = DisconnectWatcher()
    cancellation = CancellationToken()
    assert not cancellation.abandoned()

    watch.add(cancellation, lambda: True, closed_at_once)

    assert cancellation.abandoned()
    watch.remove(cancellation)


def test_a_removed_request_is_not_checked():
    """A removed request is not checked again, and it can be removed twice."""
    watch = DisconnectWatcher()
    cancellation = CancellationToken()
    watch.add(cancellation, lambda: True, closed_at_once)
    watch.remove(cancellation)
    watch.remove(cancellation)

    other = CancellationToken()
    watch.add(other, lambda: True, closed_at_once)
    wait_until(lambda: other.was_cut)

    assert not cancellation.was_cut


def test_has_no_thread_before_the_first_request_and_one_from_then_on():
    """A watcher that is created before a fork starts no thread; many requests share one thread."""
    before = watchers()
    watch = DisconnectWatcher()
    assert before == watchers()

    first, second = CancellationToken(), CancellationToken()
    for cancellation in (first, second):
        watch.add(cancellation, lambda: True, closed_at_once)

    assert before + 1 == watchers()
    wait_until(lambda: first.was_cut and second.was_cut)
    third = CancellationToken()
    watch.add(third, lambda: True, closed_at_once)  # it slept meanwhile
    wait_until(lambda: third.was_cut)
    assert before + 1 == watchers()


def test_works_in_a_child_too():
    """A forked process has its own thread."""
    watch = DisconnectWatcher()
    cancellation = CancellationToken()
    watch.add(cancellation, lambda: True, closed_at_once)
    wait_until(lambda: cancellation.was_cut)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            other = CancellationToken()
            watch.add(other, lambda: True, closed_at_once)
            wait_until(lambda: other.was_cut)
            status = 0
        finally:
            os._exit(status)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

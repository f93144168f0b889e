"""Clients that have gone, noticed by one thread."""

from __future__ import annotations

import os
import threading

from llmgateway.transmission import Transmission
from llmgateway.watch import Watch
from tests.servers import wait_until


def watchers() -> int:
    return sum(thread.name == "watch" for thread in threading.enumerate())


def test_cuts_those_whose_clients_have_gone_and_no_others():
    """Each transmission has a client of its own."""
    watch = Watch()
    gone, there = Transmission(), Transmission()
    watch.add(there, lambda: False)
    watch.add(gone, lambda: True)

    wait_until(lambda: gone.was_cut)

    assert not there.was_cut
    watch.remove(there)


def test_lets_others_ask_too():
    """Whoever has the transmission can find out whether its client is still there."""
    watch = Watch()
    transmission = Transmission()
    assert not transmission.abandoned()

    watch.add(transmission, lambda: True)

    assert transmission.abandoned()
    watch.remove(transmission)


def test_asks_no_more_for_what_has_ended():
    """What is removed is forgotten, and removing it again is harmless."""
    watch = Watch()
    transmission = Transmission()
    watch.add(transmission, lambda: True)
    watch.remove(transmission)
    watch.remove(transmission)

    other = Transmission()
    watch.add(other, lambda: True)
    wait_until(lambda: other.was_cut)

    assert not transmission.was_cut


def test_has_no_thread_before_the_first_request_and_one_from_then_on():
    """A watch that is made before a fork starts nothing; many requests share one thread."""
    before = watchers()
    watch = Watch()
    assert before == watchers()

    first, second = Transmission(), Transmission()
    for transmission in (first, second):
        watch.add(transmission, lambda: True)

    assert before + 1 == watchers()
    wait_until(lambda: first.was_cut and second.was_cut)
    third = Transmission()
    watch.add(third, lambda: True)  # it slept meanwhile
    wait_until(lambda: third.was_cut)
    assert before + 1 == watchers()


def test_works_in_a_child_too():
    """A process that was forked has a thread of its own."""
    watch = Watch()
    transmission = Transmission()
    watch.add(transmission, lambda: True)
    wait_until(lambda: transmission.was_cut)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            other = Transmission()
            watch.add(other, lambda: True)
            wait_until(lambda: other.was_cut)
            status = 0
        finally:
            os._exit(status)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

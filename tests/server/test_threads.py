"""The thread pool for requests."""

from __future__ import annotations

import logging
import threading

import pytest

from llmgateway.server.threads import ThreadPool


class Waiting:
    """A task that waits for an event."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.cancelled = False

    def service(self) -> None:
        self.begun.set()
        self.may_end.wait(10)

    def cancel(self) -> None:
        self.cancelled = True


class Failing(Waiting):
    """A task that raises an error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def service(self) -> None:
        raise self.error


def test_as_many_tasks_run_at_once_as_there_are_threads():
    """The next task waits until one of them has ended."""
    threads = ThreadPool(2)
    tasks = [Waiting() for _ in range(3)]
    for task in tasks:
        threads.add_task(task)
    assert tasks[0].begun.wait(10)
    assert tasks[1].begun.wait(10)
    assert not tasks[2].begun.is_set()

    tasks[0].may_end.set()
    assert tasks[2].begun.wait(10)
    for task in tasks:
        task.may_end.set()
    threads.shutdown(timeout=10)


@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(1)])
def test_a_task_that_fails_costs_no_thread(caplog, error):
    """The error is logged, and the thread runs the next task."""
    threads = ThreadPool(1)
    task = Waiting()
    threads.add_task(Failing(error))
    threads.add_task(task)
    assert task.begun.wait(10)
    task.may_end.set()
    threads.shutdown(timeout=10)
    assert ["A task failed."] == [record.message for record in caplog.records]


def test_at_the_end_what_runs_is_waited_for_and_what_waits_is_cancelled():
    """Tasks that wait are cancelled, running ones are completed, and the threads end."""
    threads = ThreadPool(1)
    running, waiting = Waiting(), Waiting()
    threads.add_task(running)
    running.begun.wait(10)
    threads.add_task(waiting)
    threading.Timer(0.05, running.may_end.set).start()

    threads.shutdown(timeout=10)

    assert (True, False) == (waiting.cancelled, waiting.begun.is_set())
    assert not any(thread.is_alive() for thread in threads._threads)


def test_what_takes_too_long_is_left(caplog):
    """After the time-out the shutdown continues, and logs how many requests were running."""
    threads = ThreadPool(2)
    task = Waiting()
    threads.add_task(task)
    task.begun.wait(10)

    with caplog.at_level(logging.WARNING):
        threads.shutdown(timeout=0.05)

    assert ["1 requests were still running when the process ended."] == [r.message for r in caplog.records]
    task.may_end.set()

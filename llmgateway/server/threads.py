"""The thread pool that runs requests."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Protocol

log = logging.getLogger(__name__)


class Task(Protocol):
    """A task of waitress: a connection with a request."""

    def service(self) -> None: ...

    def cancel(self) -> None:
        """Called instead of :meth:`service` if the server stops before the task has begun."""
        ...


class ThreadPool:
    """A fixed number of threads with a queue of tasks, which replaces the one of waitress. Thread-safe.

    The threads of waitress (3.0.2) wait for a condition variable. A thread that wakes up acquires the lock of the
    condition before the interpreter's lock (GIL). Until it also has the GIL, all other threads wait for it (a lock
    convoy). Here a queue hands each task to one thread, and no lock is held.
    """

    def __init__(self, number: int) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"request-{index}", daemon=True) for index in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def add_task(self, task: Task) -> None:
        """Run *task* as soon as a thread is free."""
        self._tasks.put(task)

    def shutdown(self, *, timeout: float) -> None:
        """Cancel the tasks that have not begun, and wait at most *timeout* seconds for the others."""
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                break
            if task is not None:
                task.cancel()
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if running := sum(thread.is_alive() for thread in self._threads):
            log.warning("%d requests were still running when the process ended.", running)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task.service()
            except BaseException:
                # This is a bug of the server, because errors of a request are answered. The thread goes on even after
                # a SystemExit from the application, like the threads of waitress.
                log.exception("A task failed.")

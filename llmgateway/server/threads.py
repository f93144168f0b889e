"""The threads that requests run in, and the queue in front of them."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Protocol

log = logging.getLogger(__name__)


class Task(Protocol):
    """What waitress wants done."""

    def service(self) -> None: ...

    def cancel(self) -> None:
        """Called in place of :meth:`service` when the server stops before the task has begun."""
        ...


class ThreadPool:
    """A number of threads, for waitress in place of its own. Thread-safe.

    waitress' own threads (3.0.2) wait for a condition. A thread that is woken has to take the condition's lock again,
    and gets it before the interpreter's lock (GIL); every other thread then waits for both, in a
    convoy. Here a task is handed to one thread directly.
    """

    def __init__(self, number: int) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"request-{index}", daemon=True) for index in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def add_task(self, task: Task) -> None:
        """Have *task* done as soon as a thread is free."""
        self._tasks.put(task)

    def shutdown(self, *, timeout: float) -> None:
        """Cancel what has not begun, and wait no longer than *timeout* seconds for what has."""
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
                # This is a bug of the server: errors of a request are answered. The thread goes on in any case, also
                # after a SystemExit from the application, as waitress' own threads do.
                log.exception("A task failed.")

"""Fixtures for tests of servers: processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable

import pytest

FORK = multiprocessing.get_context("fork")


class Process:
    """A function that runs in another process, which is ended after the test."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._process = FORK.Process(target=lambda: sys.exit(target()))
        self._process.start()
        self.pid: int = self._process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def status(self) -> int:
        self._process.join(15)
        assert self._process.exitcode is not None, "it did not end"
        return self._process.exitcode

    def remove(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


@pytest.fixture
def start():
    started: list[Process] = []

    def start(target: Callable[[], int]) -> Process:
        started.append(Process(target))
        return started[-1]

    yield start
    for process in started:
        process.remove()

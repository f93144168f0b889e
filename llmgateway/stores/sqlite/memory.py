"""An embedded database in memory, for what only one process counts."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .database import begun, translated


class MemoryDatabase:
    """A database that the threads of one process share; a forked child begins with an empty one."""

    def __init__(self, *, migrations: Sequence[Sequence[str]]) -> None:
        self._migrations = migrations
        self._by_process: dict[int, _Memory] = {}

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do what is inside as one step."""
        memory = self._memory()
        with memory.lock, translated(), begun(memory.connection) as connection:
            yield connection

    def is_awaited(self) -> bool:
        return False  # other processes have others

    def before_closing(self, flush: Callable[[], object]) -> None:
        """Nothing: it ends with its process."""

    def _memory(self) -> _Memory:
        # By process: what a child has of its parent's is kept and never touched, as it may have
        # been copied in the middle of a transaction, with its lock held.
        memory = self._by_process.get(os.getpid())
        return memory or self._by_process.setdefault(os.getpid(), _Memory(self._migrations))


class _Memory:
    """The connection, which is the database, and who is at it."""

    def __init__(self, migrations: Sequence[Sequence[str]]) -> None:
        self.lock = threading.Lock()
        self.connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, cached_statements=256
        )
        for migration in migrations:
            for statement in migration:
                self.connection.execute(statement)

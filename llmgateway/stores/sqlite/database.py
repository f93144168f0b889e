"""Connections, transactions and migrations of the embedded store's file."""

from __future__ import annotations

import functools
import itertools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from llmgateway.errors import ConfigurationError, StoreUnavailable

from .schema import MIGRATIONS
from .stamp import Stamp

_MAPPED_BYTES = 256 * 1024 * 1024

CONNECTIONS = 8
"""Of one process to one file. A look-up takes microseconds, so hundreds of threads get along with few; with one for
each, 300 threads would have 42 MB of them."""


class SQLiteDatabase:
    """One file in WAL mode, shared by the threads and processes of one host.

    Threads share a few connections, each of which is made when it is first needed; a thread that uses
    one must not ask for another. The constructor brings the file to the present shape and leaves no
    connection open. Connections are closed around ``os.fork()`` and come back by themselves on both sides.

    Args:
        path: The file; made with mode 0600 if it is not there. Its folder must exist, on a local disk.
        timeout: Seconds to wait for another writer before :class:`StoreUnavailable`.
        migrations: What leads to the file's shape, see ``schema.py``.
        durable: Whether what was committed survives loss of power. If not, the last commits may be gone
            then; the file is sound in any case.
        stamped: Whether changes show in a :class:`Stamp` beside the file, for those who remember what is in it.

    Raises:
        ConfigurationError: a newer program wrote the file; it is left as it is.
        StoreUnavailable: the file cannot be used.
    """

    name = "sqlite"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 5.0,
        migrations: Sequence[Sequence[str]] = MIGRATIONS,
        durable: bool = True,
        stamped: bool = True,
    ) -> None:
        self._path = os.fspath(path)
        self.stamp = Stamp(f"{self._path}-stamp") if stamped else None
        self._timeout = timeout
        # FULL syncs the WAL at every commit, NORMAL at every checkpoint
        # (https://www.sqlite.org/pragma.html#pragma_synchronous).
        self._synchronous = "FULL" if durable else "NORMAL"
        self._connections = [_Connection(self._connect) for _ in range(CONNECTIONS)]
        self._next = itertools.count()
        # Those of one process take turns: SQLite lets a writer sleep and look again, for longer and longer.
        self._writing = threading.Lock()
        _watch_forks()
        _databases.add(self)
        with translated():
            self._create()
            self._migrate(migrations)
        self.close()

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Every row of one reading statement, from one snapshot."""
        # Spelled out and not a context manager of a generator: this is the look-up of every request.
        connection = self._take()
        try:
            return connection.opened().execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        finally:
            connection.release()

    @contextmanager
    def transaction(self, *, stamped: bool = True) -> Iterator[sqlite3.Connection]:
        """Do what is inside as one step; once the block is left without an error a durable file has it for good.

        Args:
            stamped: Whether the stamp shows it. Needless for what nobody remembers, like usage.
        """
        if not self._writing.acquire(timeout=self._timeout):
            raise _unavailable(TimeoutError())
        stamp = self.stamp if stamped else None
        try:
            with translated(), self._connection() as connection, begun(connection):
                yield connection
                if stamp is not None:
                    stamp.renew()
            if stamp is not None:
                stamp.renew()
        finally:
            self._writing.release()

    def ping(self) -> None:
        self.rows("PRAGMA user_version")

    def close(self) -> None:
        """Close every connection; the next use opens a new one."""
        for connection in self._connections:
            connection.hold()
            connection.release()

    def hold_for_fork(self) -> None:
        """Wait until no thread is at work, and let none begin; :meth:`release_after_fork` lets them go on."""
        self._writing.acquire()
        for connection in self._connections:
            connection.hold()

    def release_after_fork(self) -> None:
        for connection in self._connections:
            connection.release()
        self._writing.release()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = self._take()
        try:
            yield connection.opened()
        finally:
            connection.release()

    def _take(self) -> _Connection:
        """The first that is idle, so that few are ever opened; if none is, wait for one of them."""
        for connection in self._connections:
            if connection.take(wait=False):
                return connection
        connection = self._connections[next(self._next) % CONNECTIONS]
        connection.take(wait=True)
        return connection

    def _connect(self) -> sqlite3.Connection:
        # check_same_thread is off because threads share it, one at a time, under the connection's lock.
        # Transactions are ours: isolation_level None.
        connection = sqlite3.connect(
            self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        # The journal cuts a usage record off once this store has acknowledged it, and an admin who
        # was told that a key is revoked does not look again. Both write rarely or in batches, so
        # the sync costs no request anything. Counters, which write for every request, have a file
        # of their own.
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        # Pages are read in place from the system's cache, which all threads and processes share:
        # with 200,000 keys a look-up takes half the time, and no connection needs a large cache.
        connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
        return connection

    def _create(self) -> None:
        # O_EXCL, so that a file that is there is not opened and closed beside SQLite: POSIX drops
        # all of a process' locks on a file when it closes any descriptor of it. The -wal and -shm
        # files take their mode from this one.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _migrate(self, migrations: Sequence[Sequence[str]]) -> None:
        with self._connection() as connection:
            if self._version(connection, migrations) == len(migrations):
                return
            self._enter_wal(connection)
            with begun(connection):
                # Again: another process may have been faster.
                for migration in migrations[self._version(connection, migrations) :]:
                    for statement in migration:
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {len(migrations)}")

    def _version(self, connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            problem = (
                f"{self._path} was written by a newer llmgateway (version {version} of the file; this program knows "
                f"up to {len(migrations)}): install the newer program, or use another instance folder."
            )
            raise ConfigurationError([problem])
        return int(version)

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait for the lock that this switch needs, whatever its time-out, and
        # several processes may be starting.
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return


class _Connection:
    """One thread's at a time: opened by its use, and again after it was closed."""

    __slots__ = ("_connect", "_lock", "_open")

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    def take(self, *, wait: bool) -> bool:
        """Whether it is the caller's now, until :meth:`release`."""
        return self._lock.acquire(blocking=wait)

    def opened(self) -> sqlite3.Connection:
        """For the one whose it is."""
        if self._open is None:
            self._open = self._connect()
        return self._open

    def __del__(self) -> None:
        if self._open is not None:
            self._open.close()

    def hold(self) -> None:
        """Wait until the connection is idle, close it and keep everybody out until :meth:`release`."""
        self._lock.acquire()
        if self._open is not None:
            self._open.close()
            self._open = None

    def release(self) -> None:
        self._lock.release()


# A child may neither use nor close a connection that its parent has made, and what SQLite
# remembers of one in the process' memory makes even the child's own connections to that file
# believe in locks that only the parent holds (https://www.sqlite.org/howtocorrupt.html, 2.6).
# So no connection is open while the process forks.
_databases: weakref.WeakSet[SQLiteDatabase] = weakref.WeakSet()
_forking = threading.Lock()
_held: list[SQLiteDatabase] = []


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _before_fork() -> None:
    _forking.acquire()
    for database in list(_databases):
        database.hold_for_fork()
        _held.append(database)


def _after_fork() -> None:
    while _held:
        _held.pop().release_after_fork()
    _forking.release()


@contextmanager
def begun(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """What is inside is one transaction: all of it is done, or nothing."""
    # IMMEDIATE: a transaction that reads first and then wants to write cannot wait for
    # another writer (its snapshot would be old) and would fail at once instead.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated() -> Iterator[None]:
    """The driver's errors leave the block as :class:`StoreUnavailable`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"The embedded store does not serve ({type(error).__name__}). Try again later.")

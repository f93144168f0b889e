"""Connections, transactions and migrations of an SQLite file."""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from llmgateway.errors import ConfigurationError, StoreReadOnly, StoreUnavailable

from .columns import added_counts
from .schema import MIGRATIONS

log = logging.getLogger(__name__)

_REPORT_SECONDS = 60.0
"""The same error is logged once in this time. It can fail many requests."""

_MAPPED_BYTES = 256 * 1024 * 1024

CONNECTIONS = 8
"""Maximum number of connections for reading, for each process and file. A look-up takes microseconds, so a few
connections are enough for hundreds of threads. One connection per thread would take 42 MB for 300 threads."""


class SQLiteDatabase:
    """An SQLite file in WAL mode, which the threads and processes of one host share.

    Threads share a few connections, which are opened when they are first needed. A thread that uses a connection must
    not ask for another one. The constructor runs the migrations and leaves no connection open. All connections are
    closed before ``os.fork()``; the parent and the child open new ones.

    Args:
        path: The file. It is created with mode 0600 if it does not exist. Its folder must exist, on a local disk.
        timeout: Seconds to wait for another writer before :class:`StoreUnavailable`.
        migrations: The schema, see ``schema.py``.
        durable: Whether commits survive a power failure. If not, the last commits may be lost, but the file is
            consistent in any case.

    Raises:
        ConfigurationError: a newer version wrote the file; it is not changed.
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
    ) -> None:
        self._path = os.path.abspath(path)
        self._timeout = timeout
        # FULL syncs the WAL at every commit, NORMAL at every checkpoint
        # (https://www.sqlite.org/pragma.html#pragma_synchronous).
        self._synchronous = "FULL" if durable else "NORMAL"
        self._is_durable = durable
        self._connections = [_Connection(self._connect) for _ in range(CONNECTIONS)]
        self._next = itertools.count()
        # Writing has a connection of its own, so that "PRAGMA data_version" of the others notices its commits. A lock
        # queues the writers of one process, because SQLite would let them sleep for longer and longer times.
        self._writer = _Connection(self._connect)
        self._writing = threading.Lock()
        self._reporting = threading.Lock()
        self._reported: dict[str, float] = {}  # by cause: when it was logged last
        _watch_forks()
        _databases.add(self)
        with self._translated():
            self._create()
            self._migrate(migrations)
        self.close()

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Return all rows of one reading statement, from one snapshot."""
        # Without a context manager, which is slower. Every look-up of a key calls this method.
        connection = self._take()
        try:
            return connection.opened().execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        finally:
            connection.release()

    def current_row(self, statement: str) -> Any:
        """Return the first row of one reading statement. It is executed only if the file has changed since.

        Otherwise this takes only as long as ``PRAGMA data_version``, about 4 microseconds.
        """
        connection = self._take()
        try:
            return connection.current_row(statement)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        finally:
            connection.release()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection for several reading statements, which may see different snapshots."""
        connection = self._take()
        try:
            with self._translated():
                yield connection.opened()
        finally:
            connection.release()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block in a write transaction. It is committed when the block ends without an error."""
        with self._writing_alone() as connection, begun(connection):
            yield connection

    def rewrite(self) -> None:
        # secure_delete overwrites deleted rows, but not the copies that SQLite leaves in pages between which it has
        # moved rows (https://www.sqlite.org/lang_vacuum.html).
        with self._writing_alone() as connection:
            connection.execute("VACUUM")

    def empty_wal(self) -> bool:
        with self._writing_alone() as connection:
            # Waits for readers for the timeout of the connection.
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return not busy

    @contextmanager
    def _writing_alone(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection for writing, without a transaction."""
        if not self._writing.acquire(timeout=self._timeout):
            raise self._unavailable(TimeoutError("another thread writes for too long"))
        try:
            with self._translated(), self._writable() as connection:
                yield connection
        finally:
            self._writing.release()

    def ping(self) -> None:
        self.rows("PRAGMA user_version")
        if not os.access(self._path, os.W_OK):
            raise StoreReadOnly(self._unavailable(PermissionError(errno.EROFS, "the file is read-only")).message)

    def close(self) -> None:
        """Close every connection; the next use opens a new one."""
        for connection in self._all():
            connection.hold()
            connection.release()

    def hold_for_fork(self) -> None:
        """Wait until no thread uses a connection, and block all threads until :meth:`release_after_fork`."""
        self._writing.acquire()
        for connection in self._all():
            connection.hold()

    def release_after_fork(self) -> None:
        for connection in self._all():
            connection.release()
        self._writing.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Convert the driver's errors in the block to :class:`StoreUnavailable`."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        """Log *error* with the file, which a client need not know, and return what the client is told."""
        cause = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        now = time.monotonic()
        with self._reporting:
            known = now < self._reported.get(cause, -_REPORT_SECONDS) + _REPORT_SECONDS
            if not known:
                self._reported[cause] = now
        if not known:
            log.error("The embedded store %s does not serve: %s", self._path, cause)
        return StoreUnavailable(f"The embedded store does not serve ({cause}). Try again later.")

    def _all(self) -> list[_Connection]:
        return [*self._connections, self._writer]

    @contextmanager
    def _writable(self) -> Iterator[sqlite3.Connection]:
        self._writer.take(wait=True)
        try:
            yield self._writer.opened()
        finally:
            self._writer.release()

    def _take(self) -> _Connection:
        """Return the first idle connection, so that few are opened. If none is idle, wait for one of them."""
        for connection in self._connections:
            if connection.take(wait=False):
                return connection
        connection = self._connections[next(self._next) % CONNECTIONS]
        connection.take(wait=True)
        return connection

    def _connect(self) -> sqlite3.Connection:
        # check_same_thread is off, because threads share the connection, one at a time, under a lock.
        # isolation_level is None, because begun() manages the transactions.
        connection = sqlite3.connect(
            self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        # Usage records are deleted from the journal when this store has acknowledged them, and admins rely on the
        # answer that a key is revoked: both must survive a power failure. They are written rarely or in batches, so
        # no request waits for the sync. Counters are written for every request, and have a file of their own.
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        # Pages are read from the page cache of the operating system, which all threads and processes share. With
        # 200,000 keys a look-up takes half the time, and connections need no large cache.
        connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
        connection.create_function("added_counts", 2, added_counts, deterministic=True)
        if self._is_durable:
            # Deleted rows are overwritten: they may contain names. Those of counters do not, and are written for every
            # request (https://www.sqlite.org/pragma.html#pragma_secure_delete).
            connection.execute("PRAGMA secure_delete = ON")
        # SQLite's own lower() knows ASCII letters alone (https://www.sqlite.org/lang_corefunc.html#lower).
        connection.create_function("folded", 1, str.casefold, deterministic=True)
        return connection

    def _create(self) -> None:
        # O_EXCL, so that an existing file is not opened and closed here: POSIX releases all locks of a process on a
        # file when the process closes any descriptor of it. The -wal and -shm files get the mode of this file.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _migrate(self, migrations: Sequence[Sequence[str]]) -> None:
        with self._writable() as connection:
            if self._version(connection, migrations) == len(migrations):
                return
            self._enter_wal(connection)
            with begun(connection):
                # Read the version again, because another process may have migrated the file.
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
        # SQLite ignores its timeout for the lock that this needs, and several processes may start at the same time.
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
    """A connection that one thread uses at a time. It is opened when it is used, also after :meth:`hold`."""

    __slots__ = ("_connect", "_lock", "_open", "_row", "_row_of")

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None
        self._row_of: tuple[str, int] | None = None  # the statement, and the data version before it was executed
        self._row: Any = None

    def take(self, *, wait: bool) -> bool:
        """Reserve the connection for the caller until :meth:`release`; False if another thread uses it."""
        return self._lock.acquire(blocking=wait)

    def opened(self) -> sqlite3.Connection:
        """Return the open connection. Only for the thread that has taken it."""
        if self._open is None:
            self._open = self._connect()
        return self._open

    def current_row(self, statement: str) -> Any:
        """See :meth:`SQLiteDatabase.current_row`. Only for the thread that has taken the connection."""
        connection = self.opened()
        # "Different if changes were committed to the database by any other connection in the interim"
        # (https://www.sqlite.org/pragma.html#pragma_data_version).
        ((version,),) = connection.execute("PRAGMA data_version")
        if self._row_of != (statement, version):
            # In this order a commit in between is read twice; in the other order it could be missed.
            self._row = connection.execute(statement).fetchone()
            self._row_of = statement, version
        return self._row

    def __del__(self) -> None:
        if self._open is not None:
            self._open.close()

    def hold(self) -> None:
        """Wait until the connection is idle, close it, and block other threads until :meth:`release`."""
        self._lock.acquire()
        self._row_of = None  # data versions of the next connection are not comparable with those of this one
        if self._open is not None:
            self._open.close()
            self._open = None

    def release(self) -> None:
        self._lock.release()


# A child process must neither use nor close the connections of its parent. SQLite also keeps the state of its locks in
# the memory of the process, so even new connections of the child would rely on locks that only the parent holds
# (https://www.sqlite.org/howtocorrupt.html, 2.6). So all connections are closed while the process forks.
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
    """Run the block as one transaction; roll it back after an error."""
    # IMMEDIATE, because a transaction that first reads and then writes cannot wait for another writer: its snapshot
    # would be out of date, so it would fail at once.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise

"""The counters behind limits, in an embedded database: a file that the processes of a host share, or memory."""

from __future__ import annotations

import atexit
import logging
import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Generic, Protocol, TypeVar

from llmgateway.background import Background
from llmgateway.clock import Clock
from llmgateway.errors import StoreUnavailable
from llmgateway.ratelimit.reservations import Commit, CounterRequest, Decision

from .ledger import Ledger

T = TypeVar("T")

log = logging.getLogger(__name__)

HELD_SECONDS = 0.05
"""How long a transaction stays open where one process counts alone. It is what others wait for at most, if they come
after all, and of which the claims are gone when a process is killed."""
COMPANY_SECONDS = 60.0
"""How long after the last sign of another process nothing is kept open."""
COMMITTED_AT_ONCE = 100
"""Settlements of one turn, so that those who reserve do not wait long."""
JOBS_AT_ONCE = 100
"""What one turn does for the threads that wait for it."""

COUNTERS: tuple[tuple[str, ...], ...] = (
    (
        # The whole numbers of tallies.py, eight bytes each: one row to read and one to write for
        # each counter, however many seconds a window has.
        """CREATE TABLE counters (
            name TEXT NOT NULL PRIMARY KEY,
            expires_at INTEGER NOT NULL,
            numbers BLOB NOT NULL
        )""",
        # What each holds is JSON: [[counter, kind, amount, mark], …].
        """CREATE TABLE leases (
            reservation TEXT NOT NULL PRIMARY KEY,
            expires_at REAL NOT NULL,
            claims BLOB NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX leases_end ON leases (expires_at)",
        # Those who share a window: who asked within the last minute, and who waits.
        """CREATE TABLE askers (
            counter TEXT NOT NULL,
            own TEXT NOT NULL,
            until INTEGER NOT NULL,
            PRIMARY KEY (counter, own)
        ) WITHOUT ROWID""",
        """CREATE TABLE waiting (
            counter TEXT NOT NULL,
            own TEXT NOT NULL,
            amount INTEGER NOT NULL,
            until INTEGER NOT NULL,
            PRIMARY KEY (counter, own)
        ) WITHOUT ROWID""",
    ),
)
"""The shape of the database, as the list of steps that lead to it; see ``schema.py``."""


class Database(Protocol):
    """What the counters need of one."""

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]: ...

    def is_awaited(self) -> bool:
        """Whether another process waits for a transaction of this one to end."""
        ...

    def before_closing(self, flush: Callable[[], object]) -> None:
        """Call *flush* before connections are closed, to end a transaction that is kept open."""
        ...


class SQLiteCounters:
    """A :class:`~llmgateway.interfaces.CounterStore` whose callers take turns.

    What several threads want at the same time is done in one turn: each statement lets go of Python's lock, and
    in a busy process getting it back takes longer than the statement. Whoever comes first does the work of
    those who have come meanwhile. Nobody waits for a lock that another thread holds while it waits for Python's.

    With *held_seconds* a transaction outlasts the call that began it, so that the next ones find in memory what
    they need, and change it there. One thread writes all of it and commits. Until then

    * other processes wait. Who has to wait makes itself heard; then, and whenever another process has written,
      nothing is kept open for ``COMPANY_SECONDS``.
    * what callers were told is not kept yet: if the process is killed it has not happened. The requests it was for
      have died with it: levels are free at once, not when leases run out, and what was used is booked from the
      journal. Of requests that were answered within that time windows know nothing any more, and totals only when
      they begin anew with what the usage log says. A process that ends by itself keeps everything.
    * a commit may fail, say for a full disk, which undoes what has been told since the last one, as above.
      Nothing is kept open after that until a commit succeeds, so that the next caller hears of it, and the first
      that succeeds makes the totals concerned unknown: they begin anew with what the usage log says.

    Args:
        database: Of the shape ``COUNTERS``.
        clock: Seconds since the epoch, the same for everybody who shares the database.
        held_seconds: How long a transaction may be kept open; 0 makes every call one of its own. What leases that
            ran out held comes back so much later.
    """

    def __init__(self, database: Database, *, clock: Clock, held_seconds: float = 0) -> None:
        self._database = database
        self._clock = clock
        self._held_seconds = held_seconds
        self._by_process: dict[int, _Queue] = {}
        self._background = Background("counters", self._end_soon, seconds=held_seconds)
        database.before_closing(self.flush)

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        return self._do(lambda ledger: ledger.reserve(reservation, counter_requests, lease=lease), counter_requests)

    def commit(self, commits: Sequence[Commit]) -> None:
        for start in range(0, len(commits), COMMITTED_AT_ONCE):
            self._commit(commits[start : start + COMMITTED_AT_ONCE])

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        self._do(lambda ledger: ledger.renew(reservations, lease=lease))

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        return self._do(lambda ledger: ledger.look(counter_requests), counter_requests)

    def seed(self, counter: str, used: int, *, until: int | None) -> None:
        self._do(lambda ledger: ledger.seed(counter, used, until=until))

    def confirm(self, counter: str) -> bool:
        return self._do(lambda ledger: ledger.confirm(counter))

    def forget(self, counters: Sequence[str]) -> None:
        self._do(lambda ledger: ledger.forget(counters))

    def flush(self) -> None:
        if self._queue().opened is None:
            return
        try:
            self._do(None)
        except StoreUnavailable as error:
            log.warning("What was counted in the last moment is not kept: %s", error)

    def _end_soon(self) -> bool:
        self.flush()
        return False  # the next transaction asks for it

    def _commit(self, commits: Sequence[Commit]) -> None:
        self._do(
            lambda ledger: ledger.commit(commits),
            [counter_request for commit in commits for counter_request in commit.counter_requests],
            ending=[commit.reservation for commit in commits],
        )

    def _do(
        self,
        work: Callable[[Ledger], T] | None,
        counter_requests: Sequence[CounterRequest] = (),
        *,
        ending: Sequence[str] = (),
    ) -> T:
        queue = self._queue()
        job = _Job(work, counter_requests, ending)
        queue.jobs.append(job)  # type: ignore[arg-type]
        self._work(queue)
        while not job.is_done(timeout=1.0):  # it is, unless another thread is at it; or was, and has been interrupted
            self._work(queue)
        return job.result()

    def _queue(self) -> _Queue:
        # By process: a child never touches its parent's, at which somebody may have been working when it forked.
        queue = self._by_process.get(os.getpid())
        return queue or self._by_process.setdefault(os.getpid(), _Queue())

    def _work(self, queue: _Queue) -> None:
        """Do all that is wanted, unless somebody is at it, who then does this, too."""
        # Again after the release: who came before it has left the work to this thread.
        while queue.jobs and queue.working.acquire(blocking=False):
            try:
                while queue.jobs:
                    self._do_some(queue)
            finally:
                queue.working.release()

    def _do_some(self, queue: _Queue) -> None:
        jobs = [queue.jobs.popleft() for _ in range(min(len(queue.jobs), JOBS_AT_ONCE))]
        try:
            self._do_all(jobs, queue)
        except BaseException as error:
            reason = self._undo(queue, error)
            for job in jobs:
                job.error = reason
            if not isinstance(reason, Exception):
                raise
        finally:
            for job in jobs:
                job.end()

    def _do_all(self, jobs: Sequence[_Job[object]], queue: _Queue) -> None:
        works = [job for job in jobs if job.work is not None]
        if works:
            ledger = self._ledger(queue)
            if len(works) > 1:
                _prepare(works, ledger)
            for job in works:
                job.do(ledger)
        if len(works) < len(jobs) or not self._may_hold(queue):
            self._end(queue)

    def _ledger(self, queue: _Queue) -> Ledger:
        """The one of a transaction that is open, or is opened now."""
        ledger, now = queue.ledger, self._clock()
        if queue.opened is not None and ledger is not None:
            if ledger.second == int(now) and 0 <= now - queue.opened_at < self._held_seconds:
                ledger.now = now
                return ledger
            self._end(queue)
        return self._begin(queue)

    def _begin(self, queue: _Queue) -> Ledger:
        queue.opened = ExitStack()
        connection = queue.opened.enter_context(self._database.transaction())
        # The time is asked when the transaction has begun: then it goes the way of the transactions.
        queue.opened_at = now = self._clock()
        if self._held_seconds:
            self._see_company(queue, connection)
        if queue.ledger is None:
            queue.ledger = Ledger(connection, asked=queue.asked)
        queue.ledger.begin(now)
        if queue.doubtful:
            queue.ledger.forget([*queue.doubtful])
        if queue.swept_at != int(now):
            queue.swept_at = int(now)
            queue.swept_to = queue.ledger.sweep(queue.swept_to)
            queue.asked.clear()
        if self._may_hold(queue):
            _held.add(self)
            self._background.need()
        return queue.ledger

    def _see_company(self, queue: _Queue, connection: sqlite3.Connection) -> None:
        """Forget what is known if somebody else may have written since."""
        ((version,),) = connection.execute("PRAGMA data_version").fetchall()
        if queue.ledger is None or queue.ledger.connection is not connection:
            queue.ledger = None
        elif queue.version != version:
            queue.ledger, queue.company_at = None, queue.opened_at
        queue.version = version

    def _may_hold(self, queue: _Queue) -> bool:
        return (
            self._held_seconds > 0
            and not queue.has_failed
            and not (queue.ledger is not None and queue.ledger.owes)
            # One that was seen when the clock stood later will be seen again.
            and not 0 <= queue.opened_at - queue.company_at < COMPANY_SECONDS
        )

    def _end(self, queue: _Queue) -> None:
        """Keep what was done in the open transaction."""
        if queue.opened is None:
            return
        if queue.ledger is not None:
            queue.ledger.store()
        queue.opened.close()
        queue.opened = None
        queue.has_failed = False
        queue.doubtful.clear()
        if queue.ledger is not None:
            queue.ledger.kept()
        if not self._held_seconds:
            queue.ledger = None
        elif self._may_hold(queue) and self._database.is_awaited():
            queue.company_at = queue.opened_at

    def _undo(self, queue: _Queue, error: BaseException) -> BaseException:
        """Be where the last commit was, and say what has happened."""
        if queue.ledger is not None and self._held_seconds:  # else nobody was told anything yet
            queue.doubtful.update(queue.ledger.changed_totals())
        opened, queue.opened, queue.ledger, queue.has_failed = queue.opened, None, None, True
        queue.asked.clear()
        if opened is not None:
            try:
                opened.__exit__(type(error), error, error.__traceback__)
            except Exception as translated:  # noqa: BLE001 - the threads raise it
                return translated
        return error


_held: weakref.WeakSet[SQLiteCounters] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    """Keep what is held when the process ends: not every WSGI host lets an application know."""
    for counters in list(_held):
        counters.flush()


class _Queue:
    """What the threads of one process want done, who does it, and what is known from turn to turn."""

    def __init__(self) -> None:
        self.jobs: deque[_Job[object]] = deque()
        self.working = threading.Lock()
        self.opened: ExitStack | None = None
        """The transaction that is open."""
        self.opened_at = 0.0
        self.has_failed = False
        self.doubtful: set[str] = set()
        """Totals of which somebody was told what a commit that failed has undone."""
        self.ledger: Ledger | None = None
        self.version = 0
        """Of the database, as the ledger's connection saw it: another one when another connection has written."""
        self.company_at = float("-inf")
        self.swept_at = 0
        self.swept_to = ""
        self.asked: dict[tuple[str, str], int] = {}


class _Job(Generic[T]):
    """What one thread wants done, and what came of it. Without any work: that what was done so far be kept."""

    __slots__ = ("_ended", "_result", "counter_requests", "ending", "error", "work")

    def __init__(
        self, work: Callable[[Ledger], T] | None, counter_requests: Sequence[CounterRequest], ending: Sequence[str]
    ) -> None:
        self.work = work
        self.counter_requests = counter_requests
        self.ending = ending
        self.error: BaseException | None = None
        self._result: T | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def do(self, ledger: Ledger) -> None:
        if self.work is None:
            return
        try:
            self._result = self.work(ledger)
        except (StoreUnavailable, sqlite3.Error):
            raise  # of all
        except Exception as error:  # noqa: BLE001 - the thread raises it
            self.error = error  # a bug: nothing was changed

    def end(self) -> None:
        self._ended.release()

    def is_done(self, *, timeout: float) -> bool:
        """For the one who waits for it, and who asks no more after the first yes."""
        return self._ended.acquire(timeout=timeout)

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]


def _prepare(jobs: Sequence[_Job[object]], ledger: Ledger) -> None:
    """Read at once what each would read alone. If one of them is wrong, it finds out alone, too."""
    with suppress(KeyError, ValueError):
        ledger.fetch([reservation for job in jobs for reservation in job.ending])
        ledger.load(
            (counter_request.counter, counter_request.kind) for job in jobs for counter_request in job.counter_requests
        )

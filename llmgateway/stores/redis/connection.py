"""The connection to Redis: one server, a service that Sentinels monitor, or a cluster."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import (
    AskError,
    AuthorizationError,
    BusyLoadingError,
    ClusterError,
    MaxConnectionsError,
    MovedError,
    OutOfMemoryError,
    RedisClusterException,
)
from redis.retry import Retry
from redis.sentinel import Sentinel

from llmgateway.errors import StoreUnavailable

from ..circuit import Circuit
from .url import Kind, RedisURL

T = TypeVar("T")

log = logging.getLogger(__name__)

FAILURES = (redis.RedisError, RedisClusterException, OSError)
"""The driver's exceptions. ``RedisClusterException`` is not a ``RedisError``. A host name that cannot be resolved
raises an ``OSError``."""

_AFTER_A_MOVE = (redis.ConnectionError, AskError, ClusterError)
"""Errors that can mean that Redis has moved: connections were closed, or slots were moved. ``READONLY`` can mean it,
too."""
_NOT_AFTER_A_MOVE = (redis.AuthenticationError, AuthorizationError, BusyLoadingError, MaxConnectionsError)
"""Subclasses of these errors that new connections would not fix."""

# Before Redis 7, an error in a script is quoted in another one: "Error running script (…): -READONLY You can't …"
_CODE = re.compile(r"(?:\A|: -)([A-Z]{3,20})\b")
_CODES = {redis.ReadOnlyError: "READONLY", OutOfMemoryError: "OOM", MovedError: "MOVED"}
"""Codes of the errors for which the driver has a class. It removes the code from their messages."""
_MEANINGS = {
    "READONLY": "it refuses writes, as a replica does",
    "OOM": "it refuses writes, its memory is full",
    "MISCONF": "it refuses writes, it cannot save them",
    "MOVED": "it is one node of a cluster, whose URL begins with redis+cluster://",
}


class Session:
    """One client of the driver, with its connections and registered scripts."""

    def __init__(self, client: Any, *others: Any) -> None:
        self._client = client
        self._others = others
        self._scripts: dict[str, Any] = {}

    def command(self, *words: str | bytes | int | float) -> Any:
        return self._client.execute_command(*words)

    def run(self, script: str, keys: Sequence[str], *arguments: str | bytes | int | float) -> Any:
        """Run *script* atomically. The driver loads it into a server that does not have it yet."""
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._client.register_script(script)
        return registered(keys=keys, args=arguments)

    def names(self, pattern: str) -> Iterator[str]:
        """Yield the names in Redis that match *pattern*, some of them perhaps twice."""
        for name in self._client.scan_iter(match=pattern, count=1000):
            yield name.decode()

    def close_idle(self) -> None:
        """Close idle connections. The others are closed when their last command has ended."""
        for pool in self._pools():
            pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        for client in (self._client, *self._others):
            client.close()

    def _pools(self) -> list[Any]:
        if not isinstance(self._client, RedisCluster):
            return [self._client.connection_pool]
        connections = [node.redis_connection for node in self._client.get_nodes()]  # type: ignore[no-untyped-call]
        return [connection.connection_pool for connection in connections if connection is not None]


class RedisConnection:
    """A connection to Redis. It connects when it is first used. Its connections are not shared across a fork.

    After a failure all connections are closed. The next question connects again, and first checks that Redis accepts
    writes. So a Redis that is read-only counts as unavailable, and the first question after a failover finds the new
    master, even if the address has not changed. If a failover may be the cause of an error (a closed connection,
    ``READONLY``, or ``MOVED`` if the driver does not follow it), the question is repeated once, at once. So every
    question must be safe to repeat.

    Args:
        url: See :meth:`RedisURL.parse`.
        namespace: The hash tag in all names. Gateways that share a Redis need different ones.
        timeout: Seconds to connect, and to wait for an answer. Redis normally answers within a millisecond. Half a
            second is longer than its usual pauses (a fork for a snapshot, a slow command). If Redis hangs, requests
            wait for this time until the circuit opens.
        retry_after: Seconds between attempts while Redis is unavailable.
        clock: Seconds since the epoch.
    """

    name = "redis"

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "gateway",
        timeout: float = 0.5,
        retry_after: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.prefix = f"llmgateway:2:{{{namespace}}}:"
        """Prefix of all names. 2 is the version of the stored data; other versions are never read."""
        self._url = RedisURL.parse(url)
        self._timeout = timeout
        self._circuit = Circuit("redis", retry_after=retry_after, clock=clock)
        self._session: Session | None = None
        self._giving_up = threading.Lock()
        self._dialling = threading.Lock()
        self._dialled = 0
        self._problem: Exception | None = None

    def ask(self, question: Callable[[Session], T], *, urgent: bool = False) -> T:
        """Call *question* with a session and return its result.

        If Redis failed less than *retry_after* seconds ago, only an *urgent* question is asked.

        Raises:
            StoreUnavailable: Redis fails, or has just failed.
        """
        if not urgent and not self._circuit.allows():
            raise StoreUnavailable("Redis does not serve. Try again later.")
        try:
            session, answer = self._answer(question)
        except FAILURES as error:
            reason = _reason(error)
            self._circuit.failed(reason)
            raise StoreUnavailable(f"Redis does not serve ({reason}). Try again later.") from error
        if session is self._session:  # not if another thread has discarded the session after a failure
            self._circuit.succeeded()
        return answer

    def prove_writing(self, session: Session) -> None:
        """Write a value. Reads also succeed on a replica, or if the memory or the disk is full."""
        session.command("SET", self.prefix + "writable", 1, "EX", 60)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _answer(self, question: Callable[[Session], T]) -> tuple[Session, T]:
        session = self._session or self._dial()
        try:
            return session, question(session)
        except FAILURES as error:
            is_first = self._give_up(session)
            if not _may_have_moved(error):
                raise
            if is_first:
                log.info("redis is dialled again: %s", _reason(error))
        session = self._session or self._dial()
        try:
            return session, question(session)
        except FAILURES:
            self._give_up(session)
            raise

    def _dial(self) -> Session:
        """Return a new session. If several threads call this at the same time, one connects, and all get its result."""
        dialled = self._dialled
        with self._dialling:
            session = self._session
            if session is not None:
                return session
            if self._problem is not None and self._dialled != dialled:
                raise self._problem
            try:
                session = _session(self._url, self._timeout)
                self.prove_writing(session)
            except FAILURES as error:
                self._problem = error
                raise
            finally:
                self._dialled += 1
            self._session, self._problem = session, None
            return session

    def _give_up(self, session: Session) -> bool:
        """Discard *session*; False if another thread has already done so."""
        with self._giving_up:
            is_first = self._session is session
            if is_first:
                self._session = None
        session.close_idle()
        return is_first


def script(*files: str) -> str:
    """Return the joined content of these files in this folder."""
    folder = resources.files(__package__)
    return "\n".join(folder.joinpath(file).read_text() for file in files)


def _may_have_moved(error: Exception) -> bool:
    """Whether the same question may succeed with new connections."""
    if _code(error) == "READONLY":
        return True
    return isinstance(error, _AFTER_A_MOVE) and not isinstance(error, _NOT_AFTER_A_MOVE)


def _reason(error: Exception) -> str:
    """Describe *error* without the driver's message, which can contain host names and passwords."""
    code = _code(error)
    shown = code or type(error).__name__
    return f"{shown}: {_MEANINGS[code]}" if code in _MEANINGS else shown


def _code(error: Exception) -> str:
    """Return the Redis code of *error*, for example ``READONLY``; empty if there is none."""
    if type(error) is not redis.ResponseError:
        return _CODES.get(type(error), "")
    found = _CODE.search(str(error))
    return found[1] if found else ""


def _session(url: RedisURL, timeout: float) -> Session:
    """Create the driver's client. Only the client of a cluster connects at once."""
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    options: dict[str, Any] = {
        **timeouts,
        "username": url.username,
        "password": url.password,
        # The number of threads is the real limit. With the driver's default of 100, the 101st look-up would fail.
        "max_connections": 10_000,
        # Older servers answer the HELLO of RESP3 with an error that contains the password.
        "protocol": 2,
    }
    if url.kind is not Kind.SOCKET:
        options["socket_keepalive"] = True
    tls: dict[str, Any] = {"ssl": True, **url.tls_options} if url.tls else {}
    # The driver must not retry and pause, because the durable store answers sooner.
    once = Retry(NoBackoff(), 0)
    if url.kind is Kind.CLUSTER:
        nodes = [ClusterNode(*host) for host in url.hosts]  # type: ignore[no-untyped-call]
        # All names are in one slot, so the other slots need not be covered.
        cluster = RedisCluster(
            startup_nodes=nodes, require_full_coverage=False, reinitialize_steps=1, retry=once, **options, **tls
        )
        return Session(cluster)
    # A firewall may have dropped a connection that was idle for longer.
    options |= {"db": url.db, "health_check_interval": 30, "retry": once}
    if url.kind is Kind.SENTINEL:
        login = {"username": url.sentinel_username, "password": url.sentinel_password}
        sentinel_options = {**timeouts, **login, **tls, "protocol": 2, "retry": once}
        sentinel: Any = Sentinel(url.hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
        return Session(sentinel.master_for(url.service, **options, **tls), *sentinel.sentinels)
    if url.kind is Kind.SOCKET:
        return Session(redis.Redis(unix_socket_path=url.path, **options))
    ((host, port),) = url.hosts
    return Session(redis.Redis(host, port, **options, **tls))

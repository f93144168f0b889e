"""The way to Redis, for everything that is kept there: one server, a service of Sentinels, or a cluster."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
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

logger = logging.getLogger(__name__)

FAILURES = (redis.RedisError, RedisClusterException, OSError)
"""What the driver raises: the second is not among the first, and a name that cannot be resolved is the third."""

_AFTER_A_MOVE = (redis.ConnectionError, AskError, ClusterError)
"""What may mean that Redis is somewhere else now: connections were closed, slots have moved. So may ``READONLY``."""
_NOT_AFTER_A_MOVE = (redis.AuthenticationError, AuthorizationError, BusyLoadingError, MaxConnectionsError)
"""Which of these new connections would not cure."""

# Before Redis 7 an error inside of a script is a part of another: "Error running script (…): -READONLY You can't …"
_CODE = re.compile(r"(?:\A|: -)([A-Z]{3,20})\b")
_CODES = {redis.ReadOnlyError: "READONLY", OutOfMemoryError: "OOM", MovedError: "MOVED"}
"""Of errors that the driver has types for, and strips of their code."""
_MEANINGS = {
    "READONLY": "it refuses writes, as a replica does",
    "OOM": "it refuses writes, its memory is full",
    "MISCONF": "it refuses writes, it cannot save them",
    "MOVED": "it is one node of a cluster, whose URL begins with redis+cluster://",
}


class Session:
    """One client of the driver, with the connections that it has and the scripts that were registered with it."""

    def __init__(self, client: Any, *others: Any) -> None:
        self._client = client
        self._others = others
        self._scripts: dict[str, Any] = {}

    def command(self, *words: str | bytes | int | float) -> Any:
        return self._client.execute_command(*words)

    def run(self, script: str, keys: Sequence[str], *arguments: str | bytes | int | float) -> Any:
        """Run *script* in one step; a server that does not know it is told."""
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self._client.register_script(script)
        return registered(keys=keys, args=arguments)

    def close_idle(self) -> None:
        """Close the connections that nobody uses; the others are closed when their last command has ended."""
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
    """Connects when first used; its connections are not shared across a fork.

    After any failure all connections are given up, and whoever asks next dials anew and proves first that Redis
    takes writes. So a Redis that can only be read counts as away, and a failover ends with the first question
    after it, also behind an address that stays the same. What may have failed for such a reason (a closed
    connection, ``READONLY``, ``MOVED`` where the driver does not follow it) is asked once more at once. So
    every question must bear to be asked twice.

    Args:
        url: As :meth:`RedisURL.parse` reads it.
        namespace: The hash tag, which all names share; two gateways that share a Redis need different ones.
        timeout: Seconds to connect, and for an answer. A Redis that is well answers within a
            millisecond; half a second outlasts its pauses (a fork for a snapshot, a slow command), and
            is what the requests of one moment wait when it hangs, before the circuit spares the next.
        retry_after: Seconds between attempts while Redis is away.
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
        """What every name begins with. 2 is the version of what is stored: others are never read."""
        self._url = RedisURL.parse(url)
        self._timeout = timeout
        self._circuit = Circuit("redis", retry_after=retry_after, clock=clock)
        self._session: Session | None = None
        self._giving_up = threading.Lock()
        self._dialling = threading.Lock()
        self._dialled = 0
        self._problem: Exception | None = None

    def ask(self, question: Callable[[Session], T], *, urgent: bool = False) -> T:
        """Ask, unless Redis failed less than *retry_after* seconds ago and the question is not *urgent*.

        Raises:
            StoreUnavailable: it fails, or has just failed.
        """
        if not urgent and not self._circuit.allows():
            raise StoreUnavailable("Redis does not serve. Try again later.")
        try:
            session, answer = self._answer(question)
        except FAILURES as error:
            reason = _reason(error)
            self._circuit.failed(reason)
            raise StoreUnavailable(f"Redis does not serve ({reason}). Try again later.") from error
        if session is self._session:  # an answer over connections that somebody has given up proves nothing
            self._circuit.succeeded()
        return answer

    def prove_writing(self, session: Session) -> None:
        """Write something: replicas, a full memory and a full disk answer reads as if nothing was wrong."""
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
                logger.info("redis is dialled again: %s", _reason(error))
        session = self._session or self._dial()
        try:
            return session, question(session)
        except FAILURES:
            self._give_up(session)
            raise

    def _dial(self) -> Session:
        """A new session; of several threads at once one dials, and the others have what comes of it."""
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
        """Let nobody use *session* any more; False if another thread has done so already."""
        with self._giving_up:
            is_first = self._session is session
            if is_first:
                self._session = None
        session.close_idle()
        return is_first


def script(*files: str) -> str:
    """The script that these files of this folder are together."""
    folder = resources.files(__package__)
    return "\n".join(folder.joinpath(file).read_text() for file in files)


def _may_have_moved(error: Exception) -> bool:
    """Whether the same question may be answered over new connections."""
    if _code(error) == "READONLY":
        return True
    return isinstance(error, _AFTER_A_MOVE) and not isinstance(error, _NOT_AFTER_A_MOVE)


def _reason(error: Exception) -> str:
    """What went wrong, without the driver's text: that names hosts, and some servers' errors repeat a password."""
    code = _code(error)
    shown = code or type(error).__name__
    return f"{shown}: {_MEANINGS[code]}" if code in _MEANINGS else shown


def _code(error: Exception) -> str:
    """The code with which Redis names an error, if it has one that is known."""
    if type(error) is not redis.ResponseError:
        return _CODES.get(type(error), "")
    found = _CODE.search(str(error))
    return found[1] if found else ""


def _session(url: RedisURL, timeout: float) -> Session:
    """Make the driver's client; only that of a cluster connects at once."""
    timeouts = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    options: dict[str, Any] = {
        **timeouts,
        "username": url.username,
        "password": url.password,
        # The threads are the bound; the driver's own, 100, would fail look-ups at the 101st.
        "max_connections": 10_000,
        # An older server answers RESP3's greeting with an error that repeats the password.
        "protocol": 2,
    }
    if url.kind is not Kind.SOCKET:
        options["socket_keepalive"] = True
    tls: dict[str, Any] = {"ssl": True, **url.tls_options} if url.tls else {}
    # Never the driver's own attempts and pauses: the durable store answers sooner.
    once = Retry(NoBackoff(), 0)
    if url.kind is Kind.CLUSTER:
        nodes = [ClusterNode(*host) for host in url.hosts]  # type: ignore[no-untyped-call]
        # Our names are in one slot: whether others are covered does not matter.
        cluster = RedisCluster(
            startup_nodes=nodes, require_full_coverage=False, reinitialize_steps=1, retry=once, **options, **tls
        )
        return Session(cluster)
    # A connection that was idle for longer may have been dropped on the way without a word.
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

"""The way to Redis, for everything that is kept there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from llmgateway.errors import StoreUnavailable

from ..circuit import Circuit
from .wire import DirectConnection, DirectUnixConnection, IdleConnections

T = TypeVar("T")


class RedisConnection:
    """Connects when first used; its connections are not shared across a fork.

    Args:
        server: A ``redis://``, ``rediss://`` or ``unix://`` URL, or a client that is ready (Sentinel).
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
        server: str | redis.Redis,
        *,
        namespace: str = "gateway",
        timeout: float = 0.5,
        retry_after: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.prefix = f"llmgateway:{{{namespace}}}:"
        """What every name begins with."""
        self.client: Any = _client(server, timeout) if isinstance(server, str) else server
        self.call: Callable[..., Any] = (
            # Who made the client may have a pool that has to see every connection come and go, as Sentinel's.
            IdleConnections(self.client.connection_pool).call
            if isinstance(server, str)
            else self.client.execute_command
        )
        """Send one command, as the client would. For those that requests wait for."""
        self._circuit = Circuit("redis", retry_after=retry_after, clock=clock)

    def script(self, *files: str) -> Script:
        """The script that these files of this folder are together; Redis is asked nothing yet."""
        folder = resources.files(__package__)
        return Script("\n".join(folder.joinpath(file).read_text() for file in files), self.call)

    def ask(self, question: Callable[[], T], *, urgent: bool = False) -> T:
        """Ask, unless Redis failed less than *retry_after* seconds ago and the question is not *urgent*.

        Raises:
            StoreUnavailable: it fails, or has just failed.
        """
        if not urgent and not self._circuit.allows():
            raise StoreUnavailable("Redis does not serve. Try again later.")
        try:
            answer = question()
        except redis.RedisError as error:
            # The driver's text names hosts, and some servers' errors repeat a password.
            problem = f"Redis does not serve ({type(error).__name__}). Try again later."
            self._circuit.failed(type(error).__name__)
            raise StoreUnavailable(problem) from error
        self._circuit.succeeded()
        return answer

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self.client.close()


class Script:
    """What Redis runs, in one step."""

    def __init__(self, text: str, call: Callable[..., Any]) -> None:
        self._text = text
        self._name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._call = call

    def __call__(self, keys: Sequence[str], *arguments: str | bytes | int | float) -> Any:
        try:
            return self._call("EVALSHA", self._name, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            # A server that does not know it yet, or any more: it remembers what it was sent.
            return self._call("EVAL", self._text, len(keys), *keys, *arguments)


def _client(url: str, timeout: float) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        **_WAYS.get(urlsplit(url).scheme, {}),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        # A connection that was idle for longer may have been dropped on the way without a word.
        health_check_interval=30,
        # Once, at once: a pooled connection does not know that the server was restarted. Never
        # after a time-out, and never with the driver's own pauses: the durable store answers sooner.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        # The threads are the bound; the driver's own, 100, would fail look-ups at the 101st.
        max_connections=10_000,
        # An older server answers RESP3's greeting with an error that repeats the password.
        protocol=2,
    )


_WAYS: dict[str, dict[str, Any]] = {
    "redis": {"connection_class": DirectConnection, "socket_keepalive": True},
    "unix": {"connection_class": DirectUnixConnection},
    # Over TLS what arrives is not yet what is read: the driver's own.
    "rediss": {"socket_keepalive": True},
}

"""redis-py's connections and commands, with fewer steps between a command and its answer.

The driver goes on to connect, log in, look after the health of a connection, tell errors apart and try once
more; what is done here otherwise are the steps that every request takes. Its own way through pool, client, time-outs
of sockets and metrics takes 25 µs of CPU for a PING, this one 11, of which 6 are the system's; and it lets go of the
interpreter's lock (see ``syscalls.py``) five times, where the one time that really waits is enough (redis-py 8.1,
2026-11).

Of the driver this relies on what it lets a user replace (``connection_class``, ``parser_class``), and on some names
that are not for users: a connection's ``_sock``; a parser's ``_sock``, ``_reader`` and ``read_from_socket``. They have
been the same from version 5.3 to 8.1. ``tests/stores/test_redis_wire.py`` fails where they are not any more.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Any

import hiredis
import redis
from redis.connection import DefaultParser

from llmgateway import syscalls


class _Parser(DefaultParser):  # type: ignore[valid-type,misc]
    """Waits for an answer once, and looks whether a connection is as it was left without waiting."""

    def on_connect(self, connection: Any, **options: Any) -> None:
        super().on_connect(connection, **options)
        self._arrival = select.poll()
        self._arrival.register(self._sock, select.POLLIN)

    def can_read(self, timeout: float = 0) -> bool:
        if timeout or self._reader is None:
            return bool(super().can_read(timeout))
        return self._reader.has_data() or not syscalls.is_quiet(self._sock.fileno())

    def read_from_socket(self, timeout: Any = ..., raise_on_timeout: bool = True) -> bool:
        if timeout is None or isinstance(timeout, int | float):  # not what the driver means by its own sentinel
            return bool(super().read_from_socket(timeout, raise_on_timeout))
        # Another thread may close the connection meanwhile, and its descriptor may become another's.
        sock, reader = self._sock, self._reader
        received = None
        while received is None:
            if sock is None:
                raise redis.ConnectionError("Connection closed.")
            patience = sock.gettimeout()
            if not self._arrival.poll(None if patience is None else patience * 1000):
                raise redis.TimeoutError("Timeout reading from socket")
            received = syscalls.receive(sock.fileno())
        if not received:
            raise redis.ConnectionError("Connection closed by server.")
        reader.feed(received)
        return True


class _Direct:
    """A connection that gives the system what it takes at once, and leaves the rest to the driver."""

    _sock: Any

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"parser_class": _Parser, **options})

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        driver: Any = super()
        if self._sock is None or type(command) is not list or len(command) > 1:
            driver.send_packed_command(command, check_health)
            return
        if check_health:
            driver.check_health()
        sock, whole = self._sock, command[0]
        try:
            sent = syscalls.send(sock.fileno(), whole)
            if 0 < sent < len(whole):
                # Not the driver: where somebody has closed the connection meanwhile it would open another, for
                # which the rest of a command is a command.
                sock.sendall(whole[sent:])
                sent = len(whole)
        except OSError as error:
            driver.disconnect()
            if isinstance(error, TimeoutError):
                raise redis.TimeoutError("Timeout writing to socket") from error
            raise redis.ConnectionError(f"Error while writing to socket: {error}") from error
        except BaseException:
            driver.disconnect()
            raise
        if not sent:
            driver.send_packed_command(command, check_health=False)


class DirectConnection(_Direct, redis.Connection):
    """Over TCP."""


class DirectUnixConnection(_Direct, redis.UnixDomainSocketConnection):
    """Over a socket of this host."""


class IdleConnections:
    """Connections out of a driver's pool, for single commands. Thread-safe; each process has its own.

    They do not go back to the pool while all is well with them: what it does when it takes and gives one costs more
    than to send a command. It knows them as being in use, and closes them when it is closed itself.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        self._by_process: dict[int, deque[Any]] = {}

    def call(self, *command: str | bytes | int | float) -> Any:
        """Send one command and return the answer.

        A connection that is lost is made anew, and the command repeated, as often as the pool's connections do that.

        Raises:
            redis.RedisError: as the driver's client.
        """
        packed = [hiredis.pack_command(command)]  # type: ignore[arg-type]  # its stub wants exactly one
        idle = self._idle()
        connection = self._take(idle)
        try:
            answer = connection.retry.call_with_retry(lambda: _call(connection, packed), connection.disconnect)
        except redis.ResponseError:
            idle.append(connection)  # an answer like others
            raise
        except BaseException:
            # Interrupted between the two, it would have an answer to come that nobody waits for.
            connection.disconnect()
            self._pool.release(connection)
            raise
        idle.append(connection)
        return answer

    def _idle(self) -> deque[Any]:
        # The parent's is kept in the child and never touched: its connections are the parent's.
        process = os.getpid()
        idle = self._by_process.get(process)
        return self._by_process.setdefault(process, deque()) if idle is None else idle

    def _take(self, idle: deque[Any]) -> Any:
        try:
            connection = idle.pop()
        except IndexError:
            return self._pool.get_connection()
        try:
            is_as_left = not connection.can_read()
        except (redis.RedisError, OSError):
            is_as_left = False
        if not is_as_left:
            # What can be read there is its end, or something that nobody asked for. It connects anew when it sends.
            connection.disconnect()
        return connection


def _call(connection: Any, packed: list[bytes]) -> Any:
    connection.send_packed_command(packed)
    return connection.read_response()

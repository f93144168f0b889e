"""Hosting: waitress in one process or several, on one listening socket, stopped gently.

How it works. The socket is opened first. With one process this process serves; with several,
it forks that many workers, which all accept from the same socket, and does nothing but start
another one where one has died and pass signals on. A worker makes the application after the
fork, so nothing is shared but the socket.

In a worker, waitress' main thread accepts connections, reads requests, and writes what their threads could
not; which connections have something for it to do it learns from our :class:`~llmgateway.loop.Loop`. Each
request runs in one of our :class:`~llmgateway.threads.ThreadPool`, which writes its answer itself for as long as the
client takes it.

A thread is a request's until its end, so there are fewer slots for relaying than threads
(:data:`~llmgateway.app.RESERVED_THREADS`), and clients that do not get on with their request or their answer
are parted with: see :meth:`_Channel.is_too_slow`. What waitress has settings for follows ours, see
:func:`_adjustments`.

At SIGTERM or SIGINT a worker stops accepting, closes the connections that are idle, lets running answers
end for as long as the settings allow, ships the journal, and exits with status 0. At a second signal it
does not wait for the answers.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, cast

import orjson
from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask

from .. import syscalls
from ..app import create_app
from ..errors import ConfigurationError, GatewayError, StoreUnavailable
from ..proxy.stream import LARGEST_PLAIN_ANSWER
from ..services import Services
from ..settings import Settings
from ..usage.metrics import forget_process
from ..web.context import EXTENSION
from .loop import Loop
from .threads import ThreadPool

log = logging.getLogger(__name__)

BAD_CONFIGURATION = 2
"""Exit status of a process that cannot start with these settings."""

RESTART_SECONDS = 1.0
"""A worker that dies sooner after its start is not replaced at once, or it would be a busy loop."""

IDLE_CONNECTIONS = 1000
"""Open connections without a request that a process bears beside those with one."""

_STOPS = (signal.SIGTERM, signal.SIGINT)
_AWAITED = (*_STOPS, signal.SIGCHLD)


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        problem = f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with LLMGATEWAY_HOST and _PORT."
        raise ConfigurationError([problem]) from error
    listener.listen(1024)
    return listener


def serve(settings: Settings, listener: socket.socket) -> int:
    """Serve on *listener* until told to stop; return the exit status."""
    if settings.processes == 1:
        return run_worker(settings, listener)
    # Closed here too when it stops, or clients would go on to connect, to nobody.
    supervisor = os.getpid()
    return Supervisor(
        settings.processes, lambda: run_worker(settings, listener, parent=supervisor), on_stop=listener.close
    ).run()


def run_worker(settings: Settings, listener: socket.socket, *, parent: int | None = None) -> int:
    """Serve with this process; return its exit status.

    Args:
        parent: See :class:`Worker`.
    """
    try:
        app = create_app(settings, serves_alone=settings.processes == 1)
    except ConfigurationError as error:
        for problem in error.problems:
            log.critical("%s", problem)
        return BAD_CONFIGURATION
    except StoreUnavailable as error:
        log.critical("The embedded database cannot be opened: %s", error)
        return BAD_CONFIGURATION
    return Worker(app, settings, listener, parent=parent).run()


class Worker:
    """One serving process.

    Args:
        parent: The process whose end is this one's end; without it, whoever is the parent now.
    """

    def __init__(self, app: Flask, settings: Settings, listener: socket.socket, *, parent: int | None = None) -> None:
        self._services: Services = app.extensions[EXTENSION]
        self._drain_seconds = settings.drain_seconds
        self._parent = os.getppid() if parent is None else parent
        self._signals = 0
        adjustments = _adjustments(settings, listener)
        self._loop = Loop()
        self._threads = ThreadPool(settings.threads)
        self._server = _Server(
            app,
            cast("Any", self._loop),  # the stubs are mistaken
            _sock=listener,
            dispatcher=cast("Any", self._threads),
            adj=adjustments,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )
        self._server.client_timeout = settings.client_timeout

    def run(self) -> int:
        for number in _STOPS:
            signal.signal(number, self._on_signal)
        self._services.journal.start()
        while not self._signals and os.getppid() == self._parent:
            self._turn(1.0)
        self._drain()
        self._threads.shutdown(timeout=1)
        self._services.limiter.close()
        self._services.journal.close()
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._server.pull_trigger()

    def _turn(self, seconds: float) -> None:
        self._loop.turn(seconds)
        self._server.part_with_the_slow(time.time())

    def _drain(self) -> None:
        deadline = time.monotonic() + self._drain_seconds
        # Only the listening socket: the server's trigger still has to wake this loop.
        wasyncore.dispatcher.close(self._server)
        while time.monotonic() < deadline and self._signals < 2:
            for channel in self._channels():
                if not channel.requests and not channel.total_outbufs_len:
                    channel.will_close = True
                    self._loop.look_at(channel)
            if not self._channels():
                return
            self._turn(0.1)
        if self._channels():
            log.warning("%d connections were cut at the end of the time to stop.", len(self._channels()))

    def _channels(self) -> list[HTTPChannel]:
        channels = cast("dict[int, HTTPChannel]", self._server.active_channels)  # the stubs are mistaken
        return list(channels.values())


class Supervisor:
    """Keeps a number of workers running.

    Args:
        work: What a worker does; returns its exit status.
        on_stop: Called at the first signal, in this process only.
    """

    def __init__(self, processes: int, work: Callable[[], int], *, on_stop: Callable[[], None]) -> None:
        self._processes = processes
        self._work = work
        self._on_stop = on_stop
        self._started: dict[int, float] = {}
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        # Signals are waited for and not handled: one that comes just before this process falls
        # asleep in waitpid() would be handled when it wakes up again, maybe never.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        for _ in range(self._processes):
            self._start()
        while self._started:
            number = signal.sigwait(_AWAITED)
            if number == signal.SIGCHLD:
                self._bury()
            else:
                self._pass_on(number)
        return self._status

    def _start(self) -> None:
        pid = os.fork()
        if pid == 0:
            self._be_worker()
        self._started[pid] = time.monotonic()

    def _be_worker(self) -> NoReturn:
        status = 1
        try:
            # Not in the terminal's foreground group: Ctrl-C would come twice, from the terminal
            # and from the first process, and twice means: do not wait.
            os.setpgid(0, 0)
            # Until the worker has handlers of its own a signal ends it.
            for number in _STOPS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
            status = self._work()
        except BaseException:
            log.exception("A worker failed.")
        finally:
            logging.shutdown()
            os._exit(status)

    def _bury(self) -> None:
        while self._started:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._buried(pid, os.waitstatus_to_exitcode(status))

    def _buried(self, pid: int, status: int) -> None:
        lived = time.monotonic() - self._started.pop(pid)
        forget_process(pid)
        if self._stopping:
            return
        if status == BAD_CONFIGURATION:
            self._status = status
            self._pass_on(signal.SIGTERM)
            return
        log.error("Worker %d ended with status %d and is replaced.", pid, status)
        stop = signal.sigtimedwait(_STOPS, max(0.0, RESTART_SECONDS - lived))
        if stop is None:
            self._start()
        else:
            self._pass_on(stop.si_signo)

    def _pass_on(self, number: int) -> None:
        if not self._stopping:
            self._stopping = True
            self._on_stop()
        for pid in self._started:
            os.kill(pid, number)


def _adjustments(settings: Settings, listener: socket.socket) -> Adjustments:
    connections = settings.threads + IDLE_CONNECTIONS
    _allow_descriptors(connections + settings.threads * 2 + 100)
    return Adjustments(
        sockets=[listener],
        ident="llmgateway",
        threads=settings.threads,
        connection_limit=connections,
        # Keeps reading while a request runs, and so sees that the client has gone.
        channel_request_lookahead=1,
        # create_app() decides whose X-Forwarded-* headers are believed, on any host.
        clear_untrusted_proxy_headers=False,
        # waitress refuses what is as large as its limit, the settings what is larger.
        max_request_body_size=settings.max_body_bytes + 1,
        # Beyond these sizes waitress writes conversations to temporary files; memory is bounded by
        # the size of a body and of a plain answer.
        inbuf_overflow=settings.max_body_bytes + 1,
        outbuf_overflow=2 * LARGEST_PLAIN_ANSWER,
        # A reader that is slower than Azure makes its stream wait instead of filling our memory.
        outbuf_high_watermark=1024 * 1024,
        # A client that goes is no error of ours.
        log_socket_errors=False,
    )


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class _ErrorTask(ErrorTask):
    """What waitress answers to a request that it cannot read, as OpenAI's error object."""

    def execute(self) -> None:
        error = cast(Any, self.request).error
        # error.body says more, and quotes the request, in which a key may stand anywhere.
        refusal = GatewayError(_unreadable(error.code, error.reason, self.channel.adj.max_request_body_size - 1))
        refusal.type = "invalid_request_error" if error.code < 500 else "server_error"
        refusal.code = "body_too_large" if error.code == 413 else refusal.type
        body = orjson.dumps(refusal.as_json())
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "application/json"), ("x-request-id", str(uuid.uuid4()))]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def _unreadable(code: int, reason: str, largest: int) -> str:
    if code == 413:
        return (
            f"The body is larger than this gateway takes: {largest} bytes. Send less of the conversation, or smaller "
            "images; the admin can raise the limit with LLMGATEWAY_MAX_BODY_BYTES."
        )
    return f"The request cannot be read: {reason}."


class _Parser(HTTPRequestParser):
    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            # waitress 3.0.2 does not expect it of urlsplit ("GET http://[x/"): it would log a
            # traceback and cut the connection without an answer.
            raise ParsingError("Bad URI") from error


_serving = threading.local()


class _Task(WSGITask):
    channel: _Channel

    def write(self, data: bytes) -> None:
        # The head goes with the beginning of the body: one system call and one packet instead of two.
        if data and not self.wrote_header and self.has_body:
            self.channel.held = self.build_response_header()
            self.wrote_header = True
        super().write(data)


SLOWEST_SENDER = 4096
"""Bytes of a request in a second, above which it may take longer than the time-out for clients."""


class _Channel(HTTPChannel):
    server: _Server
    task_class = _Task
    error_task_class = _ErrorTask
    parser_class = _Parser
    held = b""
    """What goes out in front of the next write."""

    _begun = 0.0
    _begun_bytes = 0
    _blocked: float | None = None

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self._begun, self._begun_bytes = time.time(), 0
        self._begun_bytes += len(data)
        return super().received(data)

    def is_too_slow(self, now: float) -> bool:
        """Whether the client takes longer than is good for the others.

        A request that has not come in full holds no thread, but memory and one of the connections. An answer
        that nobody takes holds its thread as soon as its buffer is full.
        """
        patience = self.server.client_timeout
        silent = self.last_activity < now - patience
        if self.total_outbufs_len:
            # Whoever takes a byte now and then is not silent, but does not get on.
            return silent or (self._blocked is not None and self._blocked < now - patience)
        if self.request is not None and not self.requests:
            return silent or self._begun + self._begun_bytes / SLOWEST_SENDER < now - patience
        return False

    def _flush_outbufs_below_high_watermark(self) -> None:
        self._blocked = time.time()
        try:
            super()._flush_outbufs_below_high_watermark()  # type: ignore[misc]
        finally:
            self._blocked = None

    def service(self) -> None:
        _serving.channel = self
        super().service()

    def write_soon(self, data: bytes) -> int:
        if self.held:
            data, self.held = self.held + data, b""
        if not data or not isinstance(data, bytes):  # a file that an application wants sent
            return super().write_soon(data)
        sent = self._send_at_once(data)
        return sent if sent == len(data) else sent + super().write_soon(data[sent:])

    def send(self, data: bytes, do_close: bool = True) -> int:
        # Of a connection that is closed the descriptor may be another client's. A request's thread is here with the
        # lock of the buffers, without which nobody closes: what it sees now stays true until all is sent.
        return super().send(data, do_close=do_close) if self.connected else 0

    def _send_at_once(self, data: bytes) -> int:
        """Send what goes past the buffer, which nearly always is everything; waitress copies it there and back."""
        with self.outbuf_lock:
            if self.total_outbufs_len or not self.connected:
                return 0
            try:
                sent: int = self.send(data, do_close=False)
            except OSError:
                return 0  # it will be found out again, where it is dealt with
            if sent:
                self.last_activity = time.time()
            return sent


class _ClientSocket(socket.socket):
    """A client's connection, which waitress lets never block, and so needs no turn of the interpreter's lock."""

    def send(self, data: bytes) -> int:  # type: ignore[override]
        sent = syscalls.send(self.fileno(), data)
        if not sent:
            raise BlockingIOError(errno.EAGAIN, "the client does not read")
        return sent

    def recv(self, _size: int) -> bytes:  # type: ignore[override]
        data = syscalls.receive(self.fileno())
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "nothing has come")
        return data


class _Server(TcpWSGIServer):
    channel_class = _Channel
    _map: Loop
    client_timeout: float

    _next_look = 0.0

    def accept(self) -> tuple[socket.socket, Any] | None:
        accepted = super().accept()
        if accepted is None:
            return None
        connection, address = accepted
        return _ClientSocket(fileno=connection.detach()), address

    def part_with_the_slow(self, now: float) -> None:
        """Close the connections of clients that are too slow; looks once a second, however often it is called."""
        if now < self._next_look:
            return
        self._next_look = now + 1
        for channel in list(cast("dict[int, _Channel]", self.active_channels).values()):
            if channel.is_too_slow(now):
                # Not "will_close": that waits until something can be written, which for them is never.
                channel.handle_close()

    def pull_trigger(self) -> None:
        """Tell the main thread what has changed; a request's thread can do that without waking it."""
        channel = getattr(_serving, "channel", None)
        if channel is None:
            super().pull_trigger()
        else:
            self._map.look_at(channel)

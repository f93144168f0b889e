"""The simulated Azure as a server: :class:`Simulator`."""

from __future__ import annotations

import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from http import HTTPStatus
from types import TracebackType

from . import control
from .azure import Azure
from .connections import BadRequest, Connection, Gate, Pause, PeerLeft
from .deployments import DEFAULT_DEPLOYMENTS, Deployment
from .faults import REGION
from .identity import Directory
from .messages import Reply, Request
from .meter import Meter
from .pacer import Pacer
from .production import Production
from .response_store import ResponseStore
from .scripts import ORDINARY, Script, ScriptQueue
from .served import History, Served
from .wire import transmit

DEFAULT_KEY = "simulated-azure-key"
_BACKLOG = 1024
_DRAIN = 5.0
_NOT_HTTP = Reply(status=400, headers={"Content-Type": "text/plain"}, parts=[b"Bad Request"])


class Simulator:
    """An Azure OpenAI resource on a socket of this machine; a context manager.

    Args:
        key: The resource's key.
        deployments: What can be called; a name alone is an ordinary deployment.
        port: 0 for any that is free; :attr:`url` tells which.
        tokens_per_minute: Limit of each deployment, enforced as Azure enforces it; ``None`` for none.
        requests_per_minute: The same; without it six for every thousand tokens per minute, if those are limited.
        strict: Reject parameters that the API does not have, as newer Azure does.
        region: Where it is; its :attr:`name`, which bills contain, is made of it.
        directory: Whose tokens it accepts. It answers requests for them, too; without one it has its own.
        responses: What is stored by the Responses API; simulators that share it are addresses of one resource.
        tls: Speak TLS, with the certificate of this context.
        clock: Seconds since the epoch, for limits, ``created`` and the days of bills.
        remember: How many of the last requests :attr:`served` keeps, with everything that was sent.

    One thread serves each connection. All methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        key: str = DEFAULT_KEY,
        deployments: Iterable[Deployment | str] = DEFAULT_DEPLOYMENTS,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens_per_minute: int | None = None,
        requests_per_minute: int | None = None,
        strict: bool = False,
        region: str = REGION,
        directory: Directory | None = None,
        responses: ResponseStore | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        remember: int = 10_000,
    ) -> None:
        self.directory = directory if directory is not None else Directory(clock=clock)
        self.region = region
        self.name = "simulated-" + region.lower().replace(" ", "")
        self.meter = Meter(region=region)
        self._tls = tls
        self._clock = clock
        self._azure = Azure(
            key=key,
            deployments=deployments,
            tokens_per_minute=tokens_per_minute,
            requests_per_minute=requests_per_minute,
            strict=strict,
            region=region,
            directory=self.directory,
            responses=responses,
            clock=clock,
        )
        self.responses = self._azure.responses
        self._address = (host, port)
        self._history = History(remember=remember)
        self._scripts = ScriptQueue()
        self._gate = Gate()
        self._pacer = Pacer()
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._count = 0
        self._stop_accepting: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._exchanges: set[Served] = set()
        self._stopping = self._stopped = False

    def __repr__(self) -> str:
        return f"<Simulator at {self.url}, {len(self._connections)} connections>"

    def __enter__(self) -> Simulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return self._address[1]

    @property
    def url(self) -> str:
        """``http://HOST:PORT``, the resource without ``/openai``."""
        host, port = self._address
        return f"{'http' if self._tls is None else 'https'}://{host}:{port}"

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        self._stopping = self._stopped = False
        listener = socket.create_server(self._address, backlog=_BACKLOG)
        self._address = (self._address[0], listener.getsockname()[1])
        stop, self._stop_accepting = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, args=(listener, stop), name="simulator", daemon=True)
        self._acceptor.start()

    def stop(self, *, drain: float = 0.0) -> None:
        """Stop listening, and wait *drain* seconds for running answers; then cut them, and wait for all threads."""
        if self._stop_accepting is None or self._acceptor is None:
            return
        self._stopping = True
        self._stop_accepting.close()
        self._acceptor.join()
        self._stop_accepting = self._acceptor = None
        deadline = time.monotonic() + drain
        while self._exchanges and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stopped = True
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            connection.shut()
        for thread in connections.values():
            thread.join()
        self._pacer.stop()

    def script(self, script: Script, *, times: int | None = 1) -> None:
        """Use *script* for the next *times* requests after earlier scripts; ``None`` means all until a reset."""
        self._scripts.add(script, times=times)

    @property
    def served(self) -> list[Served]:
        """The requests in the order of their arrival, those in progress included."""
        return self._history.entries()

    @property
    def in_progress(self) -> list[Served]:
        """The requests that are being answered at this moment, in no order."""
        with self._lock:
            return list(self._exchanges)

    def wait_for(self, predicate: Callable[[list[Served]], object], timeout: float = 5.0) -> list[Served]:
        """Return :attr:`served` as soon as *predicate* is true of it.

        Raises:
            TimeoutError: it did not within *timeout* seconds.
        """
        return self._history.wait_for(predicate, timeout)

    def release(self) -> None:
        """Let every request that has arrived go on, whether it has reached its stall or not."""
        self._gate.release()

    def reset(self) -> None:
        """Forget scripts, what was served and stored, and its bill, and release what is stalled."""
        self._scripts.clear()
        self._history.clear()
        self.directory.reset()
        self.meter.clear()
        self.responses.clear()
        self._gate.release()

    def _accept(self, listener: socket.socket, stop: socket.socket) -> None:
        """Take connections until the other end of *stop* is closed."""
        with listener, stop:
            poll = select.poll()
            poll.register(listener, select.POLLIN)
            poll.register(stop, select.POLLIN)
            while stop.fileno() not in dict(poll.poll()):
                peer, _ = listener.accept()
                self._welcome(peer)

    def _welcome(self, peer: socket.socket) -> None:
        self._count += 1
        connection = Connection(peer, self._count)
        name = f"simulator-{self._count}"
        thread = threading.Thread(target=self._converse, args=(connection,), name=name, daemon=True)
        with self._lock:
            self._connections[connection] = thread
        thread.start()

    def _converse(self, connection: Connection) -> None:
        try:
            if self._tls is not None:
                connection.secure(self._tls)
            while self._exchange(connection):
                pass
        except PeerLeft:
            pass  # within a request, which nobody has seen
        finally:
            connection.close()
            with self._lock:
                del self._connections[connection]

    def _exchange(self, connection: Connection) -> bool:
        """Serve one request; False if the connection cannot be used again."""
        try:
            received = connection.read_request()
        except BadRequest:
            self._transmit(connection, _NOT_HTTP, keep=False)
            return False
        if received is None:
            return False
        request, version = received
        old = version == "HTTP/1.0"
        keep = not (old or self._stopping or request.headers.get("connection", "").lower() == "close")
        if request.path.startswith(control.PREFIX):
            return self._transmit(connection, control.answer(request, self), keep=keep)
        identity = self.directory.is_asked(request)
        script = self.directory.scripts.next() if identity else self._scripts.next()
        if old:
            script = replace(script, framing="close")
        return self._serve(connection, request, script, identity=identity, keep=keep)

    def _transmit(self, connection: Connection, reply: Reply, *, keep: bool) -> bool:
        """Send an answer of the control endpoints, which is not recorded."""
        unwritten = Served(connection=connection.number, method="", path="", query={}, headers={}, body=b"")
        return transmit(connection, reply, ORDINARY, unwritten, released=None, keep=keep, pacer=self._pacer)

    def _serve(self, connection: Connection, request: Request, script: Script, *, identity: bool, keep: bool) -> bool:
        served = Served(
            connection=connection.number,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=request.body,
            at=self._clock(),
            authenticated=not identity and self._azure.knows(request),
        )
        history, answer = (
            (self.directory.history, self.directory.answer) if identity else (self._history, self._azure.answer)
        )
        # Before the request is listed, so that whoever sees it there can release it.
        with self._gate.wait() if script.stall_after_events is not None else nullcontext() as released:
            history.add(served)
            with self._lock:
                self._exchanges.add(served)
            try:
                if script.refuse:
                    connection.close(reset=script.reset)
                    return False
                reply = answer(request, script)
                if identity:
                    served.authenticated = reply.status == HTTPStatus.OK
                return self._answer(connection, reply, script, served, released=released, keep=keep)
            except PeerLeft:
                served.stop_production()
                served.peer_left = not self._stopped
                return False
            finally:
                served.stop_production()
                self._book(served)
                with self._lock:
                    self._exchanges.discard(served)

    def _book(self, served: Served) -> None:
        if served.account is not None and served.status is not None:
            self.meter.add(served.at, served.status, served.account, served.billed, tool_uses=served.tool_uses)

    def _answer(
        self,
        connection: Connection,
        reply: Reply,
        script: Script,
        served: Served,
        *,
        released: int | None,
        keep: bool,
    ) -> bool:
        served.usage = reply.usage
        served.account = reply.account
        production = None if reply.work is None else Production(reply.work)
        served.production = production
        if script.delay:
            connection.wait(Pause(time.monotonic() + script.delay))
        if production is not None:
            production.begin()
            if not reply.stream and (ready := production.due(max(reply.positions, default=0))) is not None:
                # Even the head comes last: it says how the answer ended.
                connection.wait(Pause(ready))
        return transmit(connection, reply, script, served, released=released, keep=keep, pacer=self._pacer)


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    key: str = DEFAULT_KEY,
    deployments: Iterable[Deployment | str] = DEFAULT_DEPLOYMENTS,
    tokens_per_minute: int | None = None,
    requests_per_minute: int | None = None,
    strict: bool = False,
    script: Script | None = None,
    remember: int = 1000,
    started: Callable[[Simulator], None] | None = None,
) -> None:
    """Run a simulator until SIGTERM or SIGINT, then give running answers five seconds to end.

    For the main thread of a process of its own.

    Args:
        script: Serves every request, until another process resets it.
        started: Is told when connections are accepted.

    Raises:
        OSError: the port is taken.
    """
    simulator = Simulator(
        key=key,
        deployments=deployments,
        host=host,
        port=port,
        tokens_per_minute=tokens_per_minute,
        requests_per_minute=requests_per_minute,
        strict=strict,
        remember=remember,
    )
    if script is not None:
        simulator.script(script, times=None)
    run([simulator], started=None if started is None else lambda: started(simulator))


def run(simulators: Sequence[Simulator], *, started: Callable[[], None] | None = None) -> None:
    """Run simulators until SIGTERM or SIGINT, as :func:`serve` does.

    Raises:
        OSError: a port is taken.
    """
    endings = {signal.SIGTERM, signal.SIGINT}
    # Blocked before any thread is born, so that they come to sigwait and nowhere else.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, endings)
    try:
        try:
            for simulator in simulators:
                simulator.start()
            if started is not None:
                started()
            signal.sigwait(endings)
        finally:
            for simulator in simulators:
                simulator.stop(drain=_DRAIN)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Wires over real sockets: plain, with TLS, with TLS in TLS, and one of a class of somebody else's."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from urllib3.connection import HTTPConnection
from urllib3.util.ssltransport import SSLTransport

from llmgateway.azure import pool
from llmgateway.azure.pool import READ_BYTES, Connection
from tests.azure.test_client import certificate  # noqa: F401 - a fixture

PATIENCE = 10.0


class Foreign(socket.socket):
    """What a library for another kind of proxy would make."""


class Inner:
    """The server's end of TLS whose records go through *below*."""

    def __init__(self, below: ssl.SSLSocket, context: ssl.SSLContext) -> None:
        self._below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._until_done(self._tls.do_handshake)

    def sendall(self, data: bytes) -> None:
        self._until_done(lambda: self._tls.write(data))

    def recv(self, size: int) -> bytes:
        with suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return bytes(self._until_done(lambda: self._tls.read(size)))
        return b""

    def close(self) -> None:
        self._below.close()

    def _until_done(self, step: Callable[[], object]) -> object:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._flush()
                if data := self._below.recv(65536):
                    self._in.write(data)
                else:
                    self._in.write_eof()
            else:
                self._flush()
                return done

    def _flush(self) -> None:
        if data := self._out.read():
            self._below.sendall(data)


def _ends(kind: str, pem: os.PathLike[str], served: ssl.SSLContext) -> tuple[object, object]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if kind == "plain":
        return ours, theirs
    if kind == "foreign":
        return Foreign(fileno=ours.detach()), theirs
    trusting = ssl.create_default_context(cafile=pem)
    made: list[object] = []

    def serve() -> None:
        below = served.wrap_socket(theirs, server_side=True)
        made.append(below if kind == "TLS" else Inner(below, served))

    thread = threading.Thread(target=serve)
    thread.start()
    encrypted = trusting.wrap_socket(ours, server_hostname="localhost")
    mine = encrypted if kind == "TLS" else SSLTransport(encrypted, trusting, server_hostname="localhost")
    thread.join()
    return mine, made[0]


@pytest.fixture(params=["plain", "TLS", "TLS in TLS", "foreign"])
def kind(request) -> str:
    return str(request.param)


@pytest.fixture
def ends(kind, certificate) -> Iterator[tuple[Connection, socket.socket]]:  # noqa: F811
    """A wire of ours and the other side's end."""
    ours, theirs = _ends(kind, *certificate)
    connection = HTTPConnection("localhost")
    connection.sock = ours
    wire = Connection.over(connection, opened_at=0.0)
    try:
        yield wire, theirs
    finally:
        wire.close()
        theirs.close()


def test_what_is_sent_arrives(ends):
    """In both directions, and the end."""
    wire, theirs = ends
    wire.send(b"question", timeout=PATIENCE)
    assert b"question" == theirs.recv(100)
    theirs.sendall(b"answer")
    assert b"answer" == wire.receive(timeout=PATIENCE)
    theirs.close()
    assert b"" == wire.receive(timeout=PATIENCE)


def test_waits_for_what_has_not_arrived(ends):
    """As long as it takes, within the time-out."""
    wire, theirs = ends
    threading.Timer(0.05, theirs.sendall, [b"later"]).start()
    assert b"later" == wire.receive(timeout=PATIENCE)


def test_silence_has_an_end(ends):
    """A time-out as Python's sockets have it, and the wire can be read again."""
    wire, theirs = ends
    with pytest.raises(TimeoutError):
        wire.receive(timeout=0.05)
    theirs.sendall(b"x")
    assert b"x" == wire.receive(timeout=PATIENCE)


def test_a_large_body_arrives_whole_at_a_slow_reader(ends):
    """More than the buffers on the way hold, and the last byte too."""
    wire, theirs = ends
    body = os.urandom(5_000_000)
    got = []

    def read() -> None:
        while sum(map(len, got)) < len(body):
            got.append(theirs.recv(30_000))

    reader = threading.Thread(target=read)
    reader.start()
    wire.send(body, timeout=PATIENCE)
    reader.join()
    assert body == b"".join(got)


@pytest.mark.parametrize("kind", ["TLS"])
def test_what_a_socket_did_not_take_is_sent_again(ends, monkeypatch):
    """gevent's, which takes the place of Python's where an operator wants that, does not raise then."""
    wire, theirs = ends
    send, refused = wire.socket.send, [0, 0]
    monkeypatch.setattr(wire.socket, "send", lambda data: refused.pop() if refused else send(data), raising=False)

    wire.send(b"all of it", timeout=PATIENCE)

    theirs.settimeout(PATIENCE)
    assert b"all of it" == theirs.recv(100)


def test_a_reader_that_does_not_read_is_not_waited_for_for_ever(ends):
    """The time-out is for all of what is sent."""
    wire, _ = ends
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.send(b"x" * 50_000_000, timeout=0.3)
    assert time.monotonic() - began < PATIENCE


def test_a_reader_that_reads_for_ever_is_not_either(ends):
    """Whatever it takes now and then."""
    wire, theirs = ends
    enough = threading.Event()

    def read() -> None:
        with suppress(OSError):
            while not enough.wait(0.002):
                theirs.recv(30_000)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.raises(TimeoutError):
        wire.send(b"x" * 50_000_000, timeout=0.3)
    enough.set()
    wire.close()
    reader.join()


def test_a_broken_connection_is_an_error(ends):
    """Sooner or later; what is sent first may still be taken."""
    wire, theirs = ends
    theirs.close()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the layer that finds out
        all(wire.send(b"x" * 100_000, timeout=PATIENCE) is None for _ in range(100))


@pytest.mark.parametrize("doing", ["receiving", "sending"])
def test_shutdown_wakes_who_waits(ends, doing):
    """From another thread; what was to come has not come."""
    wire, theirs = ends
    came: list[object] = []

    def wait() -> None:
        try:
            if doing == "receiving":
                came.append(wire.receive(timeout=60))
            else:
                wire.send(b"x" * 50_000_000, timeout=60)
        except OSError as error:
            came.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    if doing == "sending":
        theirs.recv(1)
    wire.shutdown()
    waiting.join(PATIENCE)

    assert not waiting.is_alive()
    assert came == [b""] or isinstance(came[0], OSError)
    assert not isinstance(came[0], TimeoutError)


def test_what_is_closed_cannot_be_shut_down(ends):
    """Whoever cuts it late is told in the way he expects."""
    wire, _ = ends
    wire.close()
    assert wire.is_closed
    with pytest.raises(OSError):  # noqa: PT011 - the number does not matter
        wire.shutdown()


def test_is_quiet_until_something_comes(ends):
    """Bytes, or the end; to look takes nothing away."""
    wire, theirs = ends
    with suppress(TimeoutError):
        wire.receive(timeout=0.05)  # the TLS sessions that can be resumed come first
    assert wire.is_quiet()
    theirs.sendall(b"x")
    select.select([wire.socket], [], [], PATIENCE)
    assert not wire.is_quiet()
    assert b"x" == wire.receive(timeout=PATIENCE)
    assert wire.is_quiet()
    theirs.close()
    select.select([wire.socket], [], [], PATIENCE)
    assert not wire.is_quiet()


@pytest.mark.parametrize("kind", ["plain"])
@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux says it")
def test_knows_what_has_been_acknowledged(ends):
    """What the other side's system has, it has acknowledged; what was sent behind its end, not."""
    wire, theirs = ends
    before = wire.acknowledged()
    wire.send(b"x" * 100, timeout=PATIENCE)
    theirs.recv(100)
    theirs.sendall(b"y")
    wire.receive(timeout=PATIENCE)
    after = wire.acknowledged()
    theirs.close()
    assert b"" == wire.receive(timeout=PATIENCE)
    wire.send(b"x" * 100, timeout=PATIENCE)

    assert (100, 0) == (after - (before or 0), wire.acknowledged() - after)


@pytest.mark.parametrize("kind", ["plain", "TLS"])
def test_everything_that_has_arrived_is_read_at_once(ends):
    """However many writes, or records of TLS, it came in."""
    wire, theirs = ends
    for number in range(8):  # of more, TCP holds the last ones up until it knows of the first
        theirs.sendall(b"%d " % number)

    assert b"0 1 2 3 4 5 6 7 " == wire.receive(timeout=PATIENCE)


@pytest.mark.parametrize("kind", ["plain", "TLS"])
def test_a_read_has_an_end(ends):
    """What comes faster than it is read does not fill the memory, and nothing is lost."""
    wire, theirs = ends
    sent = os.urandom(16_000 * 20)
    writer = threading.Thread(target=theirs.sendall, args=[sent])
    writer.start()
    pieces = []
    while sum(map(len, pieces)) < len(sent):
        pieces.append(wire.receive(timeout=PATIENCE))
    writer.join()

    assert sent == b"".join(pieces)
    assert max(map(len, pieces)) < READ_BYTES + 16_384


def test_the_end_behind_the_last_bytes_is_not_lost(ends):
    """What came before it is read first."""
    wire, theirs = ends
    theirs.sendall(b"last words")
    theirs.close()

    assert b"last words" == wire.receive(timeout=PATIENCE)
    assert b"" == wire.receive(timeout=PATIENCE)


@pytest.mark.parametrize("kind", ["TLS"])
def test_its_session_can_be_resumed(ends):
    """Once something has come over it; one without TLS has none."""
    wire, theirs = ends
    theirs.sendall(b"x")
    wire.receive(timeout=PATIENCE)
    assert wire.session is not None


def test_a_child_of_a_process_that_decrypts_can_decrypt():
    """What one thread has at the moment of a fork nobody in the child would ever give back."""
    pool._decrypting.acquire()
    end = threading.Timer(0.2, pool._decrypting.release)
    end.start()

    child = os.fork()
    if child == 0:
        os._exit(0 if pool._decrypting.acquire(timeout=PATIENCE / 10) else 1)

    end.join()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

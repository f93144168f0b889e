"""Connections over real sockets (plain, TLS, TLS in TLS, a foreign socket class), and their pool."""

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
import requests
from urllib3.connection import HTTPConnection
from urllib3.util.ssltransport import SSLTransport

from llmgateway.azure import pool
from llmgateway.azure.adapter import StreamingAdapter
from llmgateway.azure.pool import AGE_SECONDS, IDLE_SECONDS, READ_BYTES, Connection, Pool, ResumingContext
from tests.azure.test_client import (
    OK,
    certificate,  # noqa: F401 - a fixture
    no_proxies,  # noqa: F401 - a fixture
    raw_server,
    read,
    send,
    upstream_to,
)
from tests.parts import Stopwatch

PATIENCE = 10.0


class Foreign(socket.socket):
    """A socket class of another library, for example for another kind of proxy."""


class Inner:
    """The server's end of a TLS connection inside another one, *below*."""

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
    """The gateway's connection and the other side's socket."""
    ours, theirs = _ends(kind, *certificate)
    opened = HTTPConnection("localhost")
    opened.sock = ours
    connection = Connection.over(opened, opened_at=0.0)
    try:
        yield connection, theirs
    finally:
        connection.close()
        theirs.close()


def test_what_is_sent_arrives(ends):
    """Data arrives in both directions, and so does the end."""
    connection, theirs = ends
    connection.send(b"question", timeout=PATIENCE)
    assert b"question" == theirs.recv(100)
    theirs.sendall(b"answer")
    assert b"answer" == connection.receive(timeout=PATIENCE)
    theirs.close()
    assert b"" == connection.receive(timeout=PATIENCE)


def test_waits_for_what_has_not_arrived(ends):
    """A read waits for data within the time-out."""
    connection, theirs = ends
    threading.Timer(0.05, theirs.sendall, [b"later"]).start()
    assert b"later" == connection.receive(timeout=PATIENCE)


def test_a_read_times_out(ends):
    """A read times out like a Python socket, and can be repeated."""
    connection, theirs = ends
    with pytest.raises(TimeoutError):
        connection.receive(timeout=0.05)
    theirs.sendall(b"x")
    assert b"x" == connection.receive(timeout=PATIENCE)


def test_a_large_body_arrives_whole_at_a_slow_reader(ends):
    """A body that is larger than all buffers arrives completely."""
    connection, theirs = ends
    body = os.urandom(5_000_000)
    got = []

    def read() -> None:
        while sum(map(len, got)) < len(body):
            got.append(theirs.recv(30_000))

    reader = threading.Thread(target=read)
    reader.start()
    connection.send(body, timeout=PATIENCE)
    reader.join()
    assert body == b"".join(got)


@pytest.mark.parametrize("kind", ["TLS"])
def test_what_a_socket_did_not_accept_is_sent_again(ends, monkeypatch):
    """gevent's socket, which may replace Python's, returns 0 instead of raising."""
    connection, theirs = ends
    send, refused = connection.socket.send, [0, 0]
    monkeypatch.setattr(connection.socket, "send", lambda data: refused.pop() if refused else send(data), raising=False)

    connection.send(b"all of it", timeout=PATIENCE)

    theirs.settimeout(PATIENCE)
    assert b"all of it" == theirs.recv(100)


def test_a_reader_that_does_not_read_is_not_waited_for_for_ever(ends):
    """The time-out applies to the whole data."""
    connection, _ = ends
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.send(b"x" * 50_000_000, timeout=0.3)
    assert time.monotonic() - began < PATIENCE


def test_the_time_out_covers_a_slow_reader(ends):
    """The time-out applies even if the reader takes some data now and then."""
    connection, theirs = ends
    enough = threading.Event()

    def read() -> None:
        with suppress(OSError):
            while not enough.wait(0.002):
                theirs.recv(30_000)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.raises(TimeoutError):
        connection.send(b"x" * 50_000_000, timeout=0.3)
    enough.set()
    connection.close()
    reader.join()


def test_a_broken_connection_is_an_error(ends):
    """The error may come with a later write, because the first one only fills a buffer."""
    connection, theirs = ends
    theirs.close()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the layer that finds out
        all(connection.send(b"x" * 100_000, timeout=PATIENCE) is None for _ in range(100))


@pytest.mark.parametrize("doing", ["receiving", "sending"])
def test_shutdown_wakes_the_waiting_thread(ends, doing):
    """Another thread can end a read or a write, and no data is invented."""
    connection, theirs = ends
    came: list[object] = []

    def wait() -> None:
        try:
            if doing == "receiving":
                came.append(connection.receive(timeout=60))
            else:
                connection.send(b"x" * 50_000_000, timeout=60)
        except OSError as error:
            came.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    if doing == "sending":
        theirs.recv(1)
    connection.shutdown()
    waiting.join(PATIENCE)

    assert not waiting.is_alive()
    assert came == [b""] or isinstance(came[0], OSError)
    assert not isinstance(came[0], TimeoutError)


def test_what_is_closed_cannot_be_shut_down(ends):
    """Shutting down a closed connection raises OSError."""
    connection, _ = ends
    connection.close()
    assert connection.is_closed
    with pytest.raises(OSError):  # noqa: PT011 - the number does not matter
        connection.shutdown()


def test_is_quiet_until_something_comes(ends):
    """Data or the end of the connection are noticed, and not consumed."""
    connection, theirs = ends
    with suppress(TimeoutError):
        connection.receive(timeout=0.05)  # TLS session tickets arrive first
    assert connection.is_quiet()
    theirs.sendall(b"x")
    select.select([connection.socket], [], [], PATIENCE)
    assert not connection.is_quiet()
    assert b"x" == connection.receive(timeout=PATIENCE)
    assert connection.is_quiet()
    theirs.close()
    select.select([connection.socket], [], [], PATIENCE)
    assert not connection.is_quiet()


@pytest.mark.parametrize("kind", ["plain"])
@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux says it")
def test_knows_what_has_been_acknowledged(ends):
    """Data that the other side received is acknowledged; data after its end is not."""
    connection, theirs = ends
    before = connection.acknowledged()
    connection.send(b"x" * 100, timeout=PATIENCE)
    theirs.recv(100)
    theirs.sendall(b"y")
    connection.receive(timeout=PATIENCE)
    after = connection.acknowledged()
    theirs.close()
    assert b"" == connection.receive(timeout=PATIENCE)
    connection.send(b"x" * 100, timeout=PATIENCE)

    assert (100, 0) == (after - (before or 0), connection.acknowledged() - after)


@pytest.mark.parametrize("kind", ["plain", "TLS"])
def test_everything_that_has_arrived_is_read_at_once(ends):
    """One read returns everything, however many writes or TLS records it was sent in."""
    connection, theirs = ends
    for number in range(8):  # with more, TCP delays the last ones until the first are acknowledged
        theirs.sendall(b"%d " % number)

    assert b"0 1 2 3 4 5 6 7 " == connection.receive(timeout=PATIENCE)


@pytest.mark.parametrize("kind", ["plain", "TLS"])
def test_a_read_has_a_largest_size(ends):
    """One read returns a limited amount of data, and nothing is lost."""
    connection, theirs = ends
    sent = os.urandom(16_000 * 20)
    writer = threading.Thread(target=theirs.sendall, args=[sent])
    writer.start()
    pieces = []
    while sum(map(len, pieces)) < len(sent):
        pieces.append(connection.receive(timeout=PATIENCE))
    writer.join()

    assert sent == b"".join(pieces)
    assert max(map(len, pieces)) < READ_BYTES + 16_384


def test_the_end_after_the_last_bytes_is_not_lost(ends):
    """The data before the end is returned first."""
    connection, theirs = ends
    theirs.sendall(b"last words")
    theirs.close()

    assert b"last words" == connection.receive(timeout=PATIENCE)
    assert b"" == connection.receive(timeout=PATIENCE)


@pytest.mark.parametrize("kind", ["TLS"])
def test_its_session_can_be_resumed(ends):
    """A TLS session can be resumed after data was received; a plain connection has none."""
    connection, theirs = ends
    theirs.sendall(b"x")
    connection.receive(timeout=PATIENCE)
    assert connection.session is not None


def test_a_child_of_a_process_that_decrypts_can_decrypt():
    """A lock that a thread holds during a fork would never be released in the child."""
    pool.decrypting.acquire()
    end = threading.Timer(0.2, pool.decrypting.release)
    end.start()

    child = os.fork()
    if child == 0:
        os._exit(0 if pool.decrypting.acquire(timeout=PATIENCE / 10) else 1)

    end.join()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def timer() -> Stopwatch:
    return Stopwatch()


def pool_to(url: str, *, proxies: dict[str, str] | None = None, most: int = 2, timer: Stopwatch | None = None) -> Pool:
    """Return a pool as the adapter creates it."""
    adapter = StreamingAdapter(between_bytes_timeout=1, connections=1)
    request = requests.Request("POST", url).prepare()
    of_host = adapter.get_connection_with_tls_context(request, True, proxies or {})
    return Pool(of_host, url, ResumingContext(ssl.PROTOCOL_TLS_CLIENT), most=most, timer=timer or Stopwatch())


@pytest.fixture
def connections(server: socket.socket, timer: Stopwatch) -> Iterator[Pool]:
    made = pool_to(f"http://127.0.0.1:{server.getsockname()[1]}/", timer=timer)
    yield made
    made.close()


def opened(pool: Pool) -> Connection:
    return pool.open(timeout=PATIENCE)


class TestThePool:
    def test_opens_connections_that_send_at_once_and_show_signs_of_life(self, server, connections):
        """TCP_NODELAY and keep-alive are set, also through a proxy."""
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"

        for one in (connections, pool_to("http://azure.invalid/", proxies={"http": proxy})):
            connection = opened(one)
            assert 0 != connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert 0 != connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            connection.close()

    def test_gives_the_connection_that_was_used_last(self, connections):
        """The others become old, and are closed."""
        assert connections.take() is None
        first, second = opened(connections), opened(connections)
        connections.keep(first)
        connections.keep(second)

        assert second is connections.take()
        assert first is connections.take()
        assert connections.take() is None
        first.close()
        second.close()

    def test_keeps_no_more_than_wanted(self, connections):
        """A connection above the limit is closed."""
        made = [opened(connections) for _ in range(3)]
        for one in made:
            connections.keep(one)

        assert [False, False, True] == [one.is_closed for one in made]

    def test_gives_none_that_was_idle_for_long(self, connections, timer):
        """A load balancer may have dropped a connection that was idle for long."""
        connection = opened(connections)
        connections.keep(connection)
        timer.advance(IDLE_SECONDS)

        assert connections.take() is None
        assert connection.is_closed

    def test_gives_none_that_is_old(self, connections, timer):
        """An old connection is not used even if it is busy: DNS may name another address by now."""
        connection = opened(connections)
        for _ in range(int(AGE_SECONDS / 30) - 1):
            timer.advance(30)
            connections.keep(connection)
            assert connection is connections.take()
        timer.advance(29)
        connections.keep(connection)
        timer.advance(1)

        assert connections.take() is None
        assert connection.is_closed

    def test_keeps_none_that_is_old(self, connections, timer):
        """A connection that became too old during its use is closed."""
        connection = opened(connections)
        timer.advance(AGE_SECONDS)
        connections.keep(connection)

        assert connection.is_closed

    def test_gives_none_that_the_other_side_has_closed(self, server, connections):
        """The same holds for a connection with data that no request has asked for."""
        closed, speaking = opened(connections), opened(connections)
        server.accept()[0].close()
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"x")
            for one in (closed, speaking):
                select.select([one.socket], [], [], PATIENCE)
                connections.keep(one)

            assert connections.take() is None
        assert closed.is_closed
        assert speaking.is_closed

    def test_that_is_closed_keeps_nothing(self, connections):
        """A connection that is returned later is closed."""
        connection = opened(connections)
        connections.close()
        connections.keep(connection)

        assert connection.is_closed


def test_a_proxy_may_be_reached_by_tls_and_tunnel_tls(certificate, monkeypatch):  # noqa: F811
    """A proxy with TLS is verified with the same certificates as Azure; each gets only its own headers."""
    pem, tls = certificate
    seen = []

    def tunnel(proxy: ssl.SSLSocket) -> None:
        proxy.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        inner = Inner(proxy, tls)
        seen.append(inner.recv(65536))
        inner.sendall(OK)

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    with raw_server(tunnel, tls=tls) as (port, got):
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{port}")
        with upstream_to("https://localhost/openai/v1") as upstream:
            assert b"{}" == read(send(upstream))

    assert got[0].startswith(b"CONNECT localhost:443 HTTP/1.")
    assert seen[0].startswith(b"POST /openai/v1/chat/completions HTTP/1.1\r\n")

"""What clients can do to a server over real sockets: bodies without end, silence, ambiguous requests, leaving."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.server.body import GRACE_SECONDS, LONGEST_SECONDS, SLOWEST
from llmgateway.server.capacity import SharedCapacity, WorkerCapacity
from llmgateway.server.channel import DISCARD_BYTES, DISCARD_SECONDS, IDLE_SECONDS, STOP_SECONDS, Channel
from llmgateway.server.loop import Loop
from llmgateway.server.parser import EARLY_BYTES
from llmgateway.server.server import Server
from llmgateway.server.supervisor import listen
from llmgateway.server.threads import ThreadPool
from llmgateway.syscalls import READ_BYTES
from llmgateway.web.body import read_body
from tests.servers import wait_until

from .test_worker import settings

LARGEST = 6_000_000
REFUSED = b"no key"
THREADS = 8
LONG_ANSWER = b"x" * 5_000_000
"""More than the system buffers for a client that does not read."""


class Host:
    """A server in this process. What it runs is :attr:`answer`, after a check of the key.

    It looks for slow connections only when a test says so.
    """

    def __init__(self, folder) -> None:
        self.answer: Callable[[dict], bytes] = lambda environ: read_body(environ, largest=LARGEST)
        self.may_decide = threading.Event()
        self.may_decide.set()
        self.paths: list[str] = []
        self._listener = listen("127.0.0.1", 0)
        self._loop = Loop()
        self._threads = ThreadPool(THREADS)
        self.server = Server(
            self._application,
            settings(folder, LLMGATEWAY_MAX_BODY_BYTES=str(LARGEST)),
            self._listener,
            loop=self._loop,
            threads=self._threads,
            capacity=WorkerCapacity(SharedCapacity(1), 0, ConcurrencyLimit(100)),
        )
        self._stopped = False
        self._main = threading.Thread(target=self._run)
        self._main.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self._listener.getsockname(), 10)

    def connect_with_small_buffer(self) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(self._listener.getsockname())
        return connection

    @property
    def channel(self) -> Channel:
        """The only connection."""
        wait_until(self.server.connections, seconds=5, what="the connection")
        (channel,) = self.server.connections()
        return channel

    def runs_nothing(self) -> bool:
        return not any(channel.runs for channel in self.server.connections())

    def look(self, *, later: float) -> None:
        """Make the server look for slow connections, as if it were *later* seconds later."""
        looked = threading.Event()

        def look() -> None:
            self.server.close_slow_connections(time.time() + later)
            looked.set()

        self.server.trigger.pull_trigger(look)
        assert looked.wait(10)

    def close(self) -> None:
        self._stopped = True
        self._main.join()
        for channel in self.server.connections():
            channel.handle_close()
        self._threads.shutdown(timeout=5)
        self.server.trigger.close()
        self._listener.close()

    def _run(self) -> None:
        while not self._stopped:
            self._loop.run_once(0.02)

    def _application(self, environ, start_response):
        self.paths.append(environ["PATH_INFO"])
        self.may_decide.wait(10)
        status, body = "200 OK", REFUSED
        try:
            if environ.get("HTTP_KEY") == "right":
                body = self.answer(environ)
            else:
                status = "401 Unauthorized"
        except Exception as error:  # noqa: BLE001 - the test looks at it
            status, body = "400 Bad Request", str(error).encode()
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture
def host(tmp_path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.may_decide.set()
    made.close()


@pytest.fixture
def wire(host) -> Iterator[socket.socket]:
    with host.connect() as connected:
        yield connected


def head(*fields: str, key: str = "right", path: str = "/") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Key: {key}", *fields, "", ""]).encode()


def answer(wire: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer, and nothing after it."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        got = wire.recv(1)
        assert got, f"closed after {data!r}"
        data += got
    first, *lines = data.decode().strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    body = b""
    length = int(headers.get("content-length", 0))
    while len(body) < length:
        got = wire.recv(length - len(body))
        assert got, "closed"
        body += got
    return int(first.split()[1]), headers, body


def ends(wire: socket.socket) -> bool:
    """Return whether the server sends nothing more and closes."""
    try:
        return wire.recv(1) == b""
    except ConnectionResetError:
        return True


def send_until_closed(wire: socket.socket, data: bytes) -> int:
    """Send *data* again and again; return the number of bytes when the server has closed the connection."""
    sent = 0
    try:
        while sent < 1 << 30:
            sent += wire.send(data)
    except OSError:
        pass
    return sent


def send_until_full(wire: socket.socket, data: bytes) -> None:
    """Send *data* again and again, until the server takes no more."""
    wire.setblocking(False)
    while select.select([], [wire], [], 0.1)[1]:
        wire.send(data)
    wire.setblocking(True)


class TestABodyThatIsNotComplete:
    @pytest.mark.parametrize("framing", ["Content-Length: 3000000", "Transfer-Encoding: chunked"])
    def test_is_not_received_before_the_client_is_known(self, host, wire, framing):
        """Whoever has no key cannot make the gateway hold more."""
        host.may_decide.clear()
        wire.sendall(head(framing, key="wrong") + b"100000\r\n")
        wire.setblocking(False)

        def nothing_more_is_taken() -> bool:
            with suppress(BlockingIOError):
                while True:
                    wire.send(b"x" * 65536)
            return not host.channel.readable()

        wait_until(nothing_more_is_taken, what="the end of reading")
        assert EARLY_BYTES <= host.channel.request.body_bytes_received <= EARLY_BYTES + READ_BYTES
        wait_until(lambda: host.paths == ["/"], what="the thread that decides")

    @pytest.mark.parametrize("framing", ["Content-Length: 3000000", "Transfer-Encoding: chunked"])
    @pytest.mark.parametrize("sent", [EARLY_BYTES, 1_500_000])
    def test_is_not_read_if_the_client_is_refused(self, host, wire, framing, sent):
        """The answer says that the connection closes, and can be read although the client has not sent everything."""
        chunk = b"%x\r\n" % LARGEST if framing.startswith("Transfer") else b""
        wire.sendall(head(framing, key="wrong") + (chunk + b"x" * sent)[:sent])

        status, headers, body = answer(wire)

        assert (401, "close", REFUSED) == (status, headers["connection"], body)
        assert ends(wire)

    def test_is_discarded_up_to_a_bound(self, host, wire):
        """A client that goes on sending for ever is cut off."""
        wire.sendall(head("Content-Length: 3000000", key="wrong") + b"x" * EARLY_BYTES)
        assert 401 == answer(wire)[0]
        channel = host.channel

        send_until_full(wire, b"x" * 65536)
        wait_until(lambda: channel._discarded == DISCARD_BYTES, seconds=5, what="the bound")
        host.look(later=STOP_SECONDS + 0.1)

        assert DISCARD_BYTES == channel._discarded
        assert [] == host.server.connections()

    def test_stops_before_the_connection_closes(self, host, wire):
        """nginx reads the answer when it cannot send any more, and gives it up if sending fails."""
        wire.sendall(head("Transfer-Encoding: chunked", key="wrong") + b"ffffff\r\n" + b"x" * EARLY_BYTES)

        send_until_full(wire, b"x" * 65536)

        assert 401 == answer(wire)[0]
        assert ends(wire)

    def test_is_discarded_for_a_moment(self, host, wire):
        """A client that keeps its connection open is cut off."""
        wire.sendall(head("Content-Length: 3000000", key="wrong") + b"x" * EARLY_BYTES)
        assert 401 == answer(wire)[0]
        assert ends(wire)
        assert 1 == len(host.server.connections())

        host.look(later=DISCARD_SECONDS + 1)

        assert [] == host.server.connections()

    def test_is_discarded_after_an_error_of_the_parser(self, host, wire):
        """A body that is too large is refused before it is sent."""
        wire.sendall(head(f"Content-Length: {LARGEST + 1}") + b"x" * 1_000_000)

        status, headers, _ = answer(wire)

        assert (413, "close") == (status, headers["connection"])
        assert ends(wire)
        assert [] == host.paths

    @pytest.mark.parametrize("expects", [False, True], ids=["sent at once", "waits for 100"])
    @pytest.mark.parametrize("size", [1, EARLY_BYTES - 1, EARLY_BYTES, 1_000_000, LARGEST])
    def test_arrives_after_authentication(self, host, wire, size, expects):
        """All of it, and the next request of the connection after it."""
        body = os.urandom(size)
        fields = (f"Content-Length: {size}", *["Expect: 100-continue"] * expects)
        for _ in range(2):
            wire.sendall(head(*fields))
            if expects:
                assert 100 == answer(wire)[0]
            sender = threading.Thread(target=wire.sendall, args=[body])
            sender.start()

            status, headers, got = answer(wire)

            sender.join()
            assert (200, None) == (status, headers.get("connection"))
            assert got == body

    def test_arrives_in_chunks(self, host, wire):
        """The view reads them joined."""
        pieces = [os.urandom(70_000) for _ in range(10)]
        wire.sendall(head("Transfer-Encoding: chunked"))
        for piece in pieces:
            wire.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        wire.sendall(b"0\r\n\r\n" + head("Content-Length: 4") + b"next")

        assert (200, b"".join(pieces)) == answer(wire)[::2]
        assert (200, b"next") == answer(wire)[::2]

    def test_is_refused_if_its_chunks_become_too_large(self, host, wire):
        """It has no length that could be refused before."""
        wire.sendall(head("Transfer-Encoding: chunked"))
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        sender = threading.Thread(target=send_until_closed, args=[wire, piece])
        sender.start()

        status, headers, body = answer(wire)

        sender.join(10)
        assert (400, "close") == (status, headers["connection"])
        assert b"larger than this gateway takes" in body

    def test_is_refused_if_a_chunk_is_malformed(self, host, wire):
        """Nothing after it can be understood."""
        wire.sendall(head("Transfer-Encoding: chunked") + b"20000\r\n" + b"x" * 0x20000 + b"oops\r\n\r\n" + head())

        status, headers, _ = answer(wire)

        assert (400, "close") == (status, headers["connection"])
        assert ["/"] == host.paths

    @pytest.mark.parametrize(
        ("sent", "seconds"), [(EARLY_BYTES, GRACE_SECONDS + EARLY_BYTES / SLOWEST), (LARGEST - 1, LONGEST_SECONDS)]
    )
    def test_must_not_be_too_slow(self, host, wire, sent, seconds):
        """It holds a thread, so it has to come at a certain rate, and to an end."""
        wire.sendall(head(f"Content-Length: {LARGEST}") + b"x" * sent)
        wait_until(lambda: host.paths, seconds=5, what="the thread of the request")
        request = host.channel.request
        wait_until(lambda: request.awaited.wanted_since is not None, seconds=5, what="the view to read the body")
        wait_until(lambda: request.body_bytes_received == sent, seconds=5, what="the beginning")
        request.awaited.wanted_since = time.time() - seconds + 20
        host.look(later=10)
        assert not request.awaited._decided.is_set()

        host.look(later=30)

        status, headers, body = answer(wire)
        assert (400, "close") == (status, headers["connection"])
        assert b"too slowly" in body

    def test_ends_with_the_connection(self, host, wire):
        """The thread does not wait for a client that has left."""
        read = threading.Event()
        errors: list[str] = []

        def reads(environ) -> bytes:
            read.set()
            try:
                return read_body(environ, largest=LARGEST)
            except Exception as error:
                errors.append(str(error))
                raise

        host.answer = reads
        wire.sendall(head("Content-Length: 1000000") + b"x" * EARLY_BYTES)
        assert read.wait(5)

        wire.close()

        wait_until(lambda: errors, seconds=5, what="the error in the view")
        wait_until(lambda: not host.server.connections(), seconds=5, what="the end of the connection")


class TestAnExpectation:
    def test_is_answered_by_the_refusal(self, host, wire):
        """The client need not send a body that nobody will read (RFC 9110, section 10.1.1)."""
        wire.sendall(head("Content-Length: 1000000", "Expect: 100-continue", key="wrong"))

        status, headers, body = answer(wire)

        assert (401, "close", REFUSED) == (status, headers["connection"], body)
        assert ends(wire)

    @pytest.mark.parametrize("fields", [[], ["Content-Length: 0"]])
    @pytest.mark.parametrize("pause", [False, True], ids=["pipelined", "after the answer"])
    def test_without_a_body_does_not_reach_into_the_next_request(self, host, wire, fields, pause):
        """The second request has no key, so it is refused."""
        first, second = head("Expect: 100-continue", *fields), b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
        wire.sendall(first if pause else first + second)
        assert 200 == answer(wire)[0]
        if pause:
            wire.sendall(second)

        assert 401 == answer(wire)[0]
        assert ["/", "/second"] == host.paths

    def test_waits_for_the_answer_before(self, host, wire):
        """What a client reads comes in the order of its requests."""
        host.may_decide.clear()
        wire.sendall(head() + head("Content-Length: 4", "Expect: 100-continue"))
        wait_until(lambda: not host.channel.readable(), seconds=5, what="both requests")
        host.may_decide.set()

        assert 200 == answer(wire)[0]
        assert 100 == answer(wire)[0]
        wire.sendall(b"body")
        assert (200, b"body") == answer(wire)[::2]

    def test_is_not_needed_if_the_body_is_there(self, host, wire):
        """A server may leave out 100 when it has received a part of the body."""
        wire.sendall(head("Content-Length: 4", "Expect: 100-continue") + b"body")

        assert (200, b"body") == answer(wire)[::2]


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nKey: right\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        head("Transfer-Encoding: chunked", f"Content-Length: {5 + len(SMUGGLED)}") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n",
        head("Content-Length: 0", "Content-Length: 9"),
        head("Content-Length: +0"),
        head("Host: y"),
        head("X: a", " b"),
        head("X : a"),
        head("X: a\x00b"),
        head("X: a\nb"),
        head("Transfer-Encoding: chunked") + b"0\n\n",
        head("Transfer-Encoding: chunked") + b"0x0\r\n\r\n",
        head().replace(b"Host: x\r\n", b""),
    ],
)
def test_an_ambiguous_request_ends_the_connection(host, wire, request_):
    """Nothing that follows it is run."""
    wire.sendall(request_ + SMUGGLED)

    status, headers, _ = answer(wire)

    assert (400, "close") == (status, headers["connection"])
    assert ends(wire)
    assert [] == host.paths


@pytest.mark.parametrize("before", [b"", b"\r\n", head()], ids=["first", "after an empty line", "after a request"])
def test_a_tls_client_is_not_kept_waiting(host, wire, before):
    """It would wait for an answer that never comes."""
    wire.sendall(before)
    if before == head():
        assert 200 == answer(wire)[0]

    wire.sendall(bytes.fromhex("16030102000100"))

    assert ends(wire)


class TestAnIdleConnection:
    def test_may_wait_for_a_while(self, host, wire):
        """Clients use their connections again."""
        wire.sendall(head())
        answer(wire)
        host.look(later=IDLE_SECONDS - 10)

        wire.sendall(head())
        assert 200 == answer(wire)[0]

    @pytest.mark.parametrize("line", [b"\r\n", b"\n", b"\r\n\r\n"])
    def test_is_not_kept_by_empty_lines(self, host, wire, line):
        """They are no request, however often they come."""
        wire.sendall(line)
        wait_until(lambda: host.channel.last_activity > host.channel.creation_time, seconds=5, what="the line")
        host.look(later=IDLE_SECONDS - 10)
        wire.sendall(line)
        assert 1 == len(host.server.connections())

        host.look(later=IDLE_SECONDS + 1)

        assert ends(wire)

    def test_that_is_oldest_goes_at_the_limit(self, host):
        """Silent connections cannot keep others out; one whose request runs stays."""
        host.server.adj.connection_limit = len(host.server._map) + 4
        running = threading.Event()
        host.answer = lambda environ: b"%d" % running.wait(10)
        with ExitStack() as opened:
            first = opened.enter_context(host.connect())
            first.sendall(head())
            wait_until(lambda: host.paths, seconds=5, what="the request")
            silent = [opened.enter_context(host.connect()) for _ in range(20)]
            for one in silent[:-3]:
                assert ends(one)
            running.set()
            for one in (first, *silent[-2:]):
                if one is not first:
                    one.sendall(head())
                assert 200 == answer(one)[0]

    def test_is_never_the_newest(self, host):
        """Its request is still on its way while those of all others run."""
        host.server.adj.connection_limit = len(host.server._map) + 4
        may_end = threading.Event()
        host.answer = lambda environ: b"%d" % may_end.wait(10)
        with ExitStack() as opened:
            running = [opened.enter_context(host.connect()) for _ in range(3)]
            for one in running:
                one.sendall(head())
            wait_until(lambda: len(host.paths) == 3, seconds=5, what="the requests")
            newest = opened.enter_context(host.connect())
            wait_until(lambda: len(host.server.connections()) == 4, seconds=5, what="the connection")
            host.look(later=0)

            newest.sendall(head())
            wait_until(lambda: len(host.paths) == 4, seconds=5, what="its request")
            may_end.set()

            assert [200] * 4 == [answer(one)[0] for one in (*running, newest)]

    def test_includes_one_whose_answer_is_not_read(self, host):
        """Clients that ask and do not read cannot keep others out, either."""
        host.server.adj.connection_limit = len(host.server._map) + 4
        host.answer = lambda _: LONG_ANSWER
        with ExitStack() as opened:
            for _ in range(20):
                silent = opened.enter_context(host.connect_with_small_buffer())
                silent.sendall(head())
                silent.recv(1)
                wait_until(host.runs_nothing, seconds=5, what="the end of the request")
            reading = opened.enter_context(host.connect())
            reading.sendall(head())

            assert (200, LONG_ANSWER) == answer(reading)[::2]
            assert len(host.server.connections()) <= 5


class TestPipelining:
    """Many requests at once over one connection."""

    def test_takes_one_request_after_the_other(self, host, wire):
        """The main thread does not parse all of them before anything else, and every one is answered, in order."""
        host.may_decide.clear()
        host.answer = lambda environ: environ["PATH_INFO"].encode()
        wire.sendall(b"".join(head(path=f"/{number}") for number in range(500)))
        wait_until(lambda: not host.channel.readable(), seconds=5, what="the requests")
        assert 1 == len(host.channel.requests)

        host.may_decide.set()

        assert [b"/%d" % number for number in range(500)] == [answer(wire)[2] for _ in range(500)]

    def test_without_reading_holds_no_thread(self, host, wire):
        """More clients than there are threads ask for much, and read nothing of it."""
        host.answer = lambda _: LONG_ANSWER
        with ExitStack() as opened:
            for _ in range(2 * THREADS):
                opened.enter_context(host.connect_with_small_buffer()).sendall(head() * 40)
            wait_until(lambda: len(host.paths) >= 2 * THREADS, seconds=5, what="the first answers")

            wire.sendall(head(key="wrong"))

            assert 401 == answer(wire)[0]

    def test_goes_on_when_the_answer_has_been_read(self, host, wire):
        """A client may send its next request before it reads an answer that fills all buffers."""
        host.answer = lambda _: LONG_ANSWER
        wire.sendall(head() * 10)

        assert [(200, LONG_ANSWER)] * 10 == [answer(wire)[::2] for _ in range(10)]


@pytest.mark.skipif(not hasattr(select, "POLLRDHUP"), reason="only Linux says that a client has left")
@pytest.mark.parametrize("more", [head() * 3, head("Content-Length: 900000") + b"x" * 100_000], ids=["heads", "a body"])
def test_a_pipelining_client_cannot_hide_that_it_has_left(host, wire, more):
    """Its further requests are not read, so the end of the connection behind them is not, either."""
    seen: list[bool] = []

    def watches(environ) -> bytes:
        if environ["PATH_INFO"] != "/first":
            return b""
        gone = environ["waitress.client_disconnected"]
        seen.append(gone())
        wait_until(gone, seconds=5, what="the client to leave")
        seen.append(gone())
        return b""

    host.answer = watches
    wire.sendall(head(path="/first") + more)
    wait_until(lambda: seen, seconds=5, what="the request")
    wait_until(lambda: not host.channel.readable(), seconds=5, what="more requests than are read ahead")
    time.sleep(0.1)
    assert [False] == seen

    wire.close()

    wait_until(lambda: seen == [False, True], seconds=5, what="the client to leave")

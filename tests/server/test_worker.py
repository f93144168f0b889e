"""Hosting: the supervisor of workers, the listening socket, and what cannot be read."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected

from llmgateway.errors import ConfigurationError
from llmgateway.server.worker import (
    BAD_CONFIGURATION,
    SLOWEST_SENDER,
    Supervisor,
    _Channel,
    _ClientSocket,
    listen,
    run_worker,
)
from llmgateway.settings import Settings
from tests.servers import wait_until

FORK = multiprocessing.get_context("fork")


class Process:
    """A process for the test, that no failure leaves behind."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._process = FORK.Process(target=lambda: sys.exit(target()))
        self._process.start()
        self.pid: int = self._process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def status(self) -> int:
        self._process.join(15)
        assert self._process.exitcode is not None, "it did not end"
        return self._process.exitcode

    def remove(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


@pytest.fixture
def start():
    started: list[Process] = []

    def start(target: Callable[[], int]) -> Process:
        started.append(Process(target))
        return started[-1]

    yield start
    for process in started:
        process.remove()


class Workers:
    """What a supervisor started: each worker leaves a file with its pid, and another when it was told to end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def live(self) -> int:
        ended: list[int] = []
        signal.signal(signal.SIGTERM, lambda *_: ended.append(0))
        parent = os.getppid()
        (self._folder / f"{os.getpid()}.started").touch()
        while not ended and os.getppid() == parent:
            time.sleep(0.01)
        (self._folder / f"{os.getpid()}.stopped").touch()
        return 0

    def started(self) -> list[int]:
        return self._pids("started")

    def stopped(self) -> list[int]:
        return self._pids("stopped")

    def _pids(self, kind: str) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob(f"*.{kind}"))


@pytest.fixture
def workers(tmp_path):
    return Workers(tmp_path)


def supervise(processes: int, work: Callable[[], int], told: Callable[[], None] = lambda: None) -> Callable[[], int]:
    return lambda: Supervisor(processes, work, on_stop=told).run()


class TestSupervisor:
    def test_stops_every_worker(self, start, workers, tmp_path):
        """A signal to the first process reaches all, and it ends after them, with status 0."""
        supervisor = start(supervise(3, workers.live, (tmp_path / "told").touch))
        wait_until(lambda: 3 == len(workers.started()))

        supervisor.signal(signal.SIGTERM)

        assert 0 == supervisor.status()
        assert workers.started() == workers.stopped()
        assert (tmp_path / "told").exists()

    def test_replaces_a_dead_worker(self, start, workers):
        """A worker that was killed is replaced; the others are not disturbed."""
        supervisor = start(supervise(2, workers.live))
        wait_until(lambda: 2 == len(workers.started()))
        first, second = workers.started()

        os.kill(first, signal.SIGKILL)

        wait_until(lambda: 3 == len(workers.started()))
        supervisor.signal(signal.SIGTERM)
        assert 0 == supervisor.status()
        assert second in workers.stopped()
        assert first not in workers.stopped()

    def test_replaces_a_worker_that_fails_without_a_flush_soon(self, start, tmp_path, capfd):
        """A worker that cannot live is not started a thousand times a second."""

        def fail() -> int:
            (tmp_path / str(os.getpid())).touch()
            raise RuntimeError("bug")

        supervisor = start(supervise(1, fail))
        wait_until(lambda: 2 == len(list(tmp_path.iterdir())))
        supervisor.signal(signal.SIGTERM)

        assert 0 == supervisor.status()
        assert len(list(tmp_path.iterdir())) <= 3

    def test_gives_up_with_settings_that_cannot_work(self, start, tmp_path):
        """A worker that refuses its settings ends everything with the status that says so."""

        def refuse() -> int:
            (tmp_path / str(os.getpid())).touch()
            return BAD_CONFIGURATION

        assert BAD_CONFIGURATION == start(supervise(3, refuse)).status()
        assert len(list(tmp_path.iterdir())) <= 3

    def test_stops_while_workers_are_starting(self, start, workers):
        """A signal that comes before a worker has handlers of its own ends it too."""

        def start_slowly() -> int:
            time.sleep(0.2)
            return workers.live()

        supervisor = start(supervise(4, start_slowly))
        time.sleep(0.1)
        supervisor.signal(signal.SIGTERM)

        assert supervisor.status() in (0, -signal.SIGTERM)  # the latter before it had handlers itself
        assert workers.started() == workers.stopped()


class TestListening:
    def test_on_a_free_port(self):
        """Port 0 takes one that is free, and connections are accepted at once."""
        with listen("127.0.0.1", 0) as listener:
            socket.create_connection(listener.getsockname(), 5).close()

    def test_on_ipv6(self):
        """An address with colons is one of IPv6."""
        with listen("::1", 0) as listener:
            assert socket.AF_INET6 == listener.family

    def test_on_a_port_that_is_taken(self):
        """The operator learns which setting to change."""
        with listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*LLMGATEWAY_HOST and _PORT"):
                listen("127.0.0.1", port)

    def test_on_an_address_of_somebody_else(self):
        """So does one that this machine does not have."""
        with pytest.raises(ConfigurationError, match=r"Cannot listen on 192\.0\.2\.1:0"):
            listen("192.0.2.1", 0)


def settings(folder: Path, **variables: str) -> Settings:
    least = {
        "ADMIN_KEY": "an-admin-key-of-24-chars",
        "LLM_BASE_URL": "http://127.0.0.1:9/openai/v1",
        "LLMGATEWAY_INSTANCE": str(folder / "instance"),
        "LLMGATEWAY_THREADS": "8",
        "LLMGATEWAY_MAX_BODY_BYTES": "2000",
        "LLMGATEWAY_DRAIN_SECONDS": "1",
    }
    return Settings.from_env(least | variables)


def test_a_worker_that_cannot_have_its_folder_says_so(tmp_path, caplog):
    """It ends with the status for settings, and names the one that is wrong."""
    (tmp_path / "instance").write_text("a file")

    with caplog.at_level(logging.CRITICAL), listen("127.0.0.1", 0) as listener:
        assert BAD_CONFIGURATION == run_worker(settings(tmp_path), listener)

    assert "LLMGATEWAY_INSTANCE" in caplog.text


def test_a_worker_that_cannot_open_its_database_says_so(tmp_path, caplog):
    """A file that is no database is left as it is, and ends the start."""
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance" / "gateway.sqlite").write_bytes(b"not a database, but somebody's text" * 100)

    with caplog.at_level(logging.CRITICAL), listen("127.0.0.1", 0) as listener:
        assert BAD_CONFIGURATION == run_worker(settings(tmp_path), listener)

    assert "The embedded database cannot be opened" in caplog.text


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """The port of a worker in a process of its own."""
    listener = listen("127.0.0.1", 0)
    folder = tmp_path_factory.mktemp("worker")
    process = Process(lambda: run_worker(settings(folder), listener))
    port = listener.getsockname()[1]
    listener.close()
    yield port
    process.signal(signal.SIGTERM)
    try:
        assert 0 == process.status()
    finally:
        process.remove()


def said(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to *request*, to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), 10) as wire:
        wire.sendall(request)
        answer = b""
        while chunk := wire.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"hunter2\r\n\r\n", 400, "invalid_request_error"),
        (b"GET / HTTP/1.1\r\nHost : hunter2\r\n\r\n", 400, "invalid_request_error"),
        (b"GET http://[hunter2/ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid_request_error"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: hunter2\r\n\r\n", 400, "invalid_request_error"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: hunter2\r\n\r\n", 501, "server_error"),
        (b"GET / HTTP/1.1\r\nX: ".ljust(256 * 1024 + 1, b"hunter2"[:1]), 431, "invalid_request_error"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2001\r\n\r\n", 413, "body_too_large"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7d2\r\n" + b"x" * 2002 + b"\r\n0\r\n\r\n",
            413,
            "body_too_large",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_openais_shape(worker, request_, status, code):
    """Official clients show the message of any error; nothing of the request is repeated in it."""
    answered, headers, body = said(worker, request_)

    error = json.loads(body)["error"]
    assert (status, code) == (answered, error["code"])
    assert {"message", "type", "param", "code"} == error.keys()
    assert "application/json" == headers["content-type"]
    assert headers["x-request-id"]
    assert b"hunter2" not in body


def test_a_body_that_is_too_large_is_told_how_large_it_may_be(worker):
    """The user reads the limit, and whom to ask for more."""
    _, _, body = said(worker, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2001\r\n\r\n")

    message = json.loads(body)["error"]["message"]
    assert "larger than this gateway takes: 2000 bytes" in message
    assert "LLMGATEWAY_MAX_BODY_BYTES" in message


PATIENCE = 10.0


@pytest.fixture
def channel():
    """A connection to a client, as a worker has it, without the worker; ``client`` is the other end."""
    ours, theirs = socket.socketpair()
    server = SimpleNamespace(active_channels={}, client_timeout=PATIENCE, pull_trigger=lambda: None)
    made = _Channel(server, _ClientSocket(fileno=ours.detach()), ("127.0.0.1", 1), Adjustments(), map={})
    made.client = theirs
    with theirs:
        yield made
        made.handle_close()


@pytest.mark.parametrize(
    ("waiting", "silent", "blocked", "too_slow"),
    [
        (0, 1000, None, False),  # an idle connection is waitress' business
        (1, 9, None, False),
        (1, 11, None, True),
        (1, 0, 9, False),
        (1, 0, 11, True),  # it takes a little now and then
    ],
)
def test_who_takes_too_long_for_an_answer(channel, waiting, silent, blocked, too_slow):
    """A client has to take something, and enough of it for its thread to go on."""
    now = time.time()
    channel.total_outbufs_len = waiting
    channel.last_activity = now - silent
    channel._blocked = None if blocked is None else now - blocked

    assert too_slow is channel.is_too_slow(now)


@pytest.mark.parametrize(
    ("body_bytes", "silent", "after", "too_slow"),
    [
        (0, 0, 9, False),
        (0, 0, 11, True),
        (100 * SLOWEST_SENDER, 0, 109, False),  # a picture on a slow line
        (100 * SLOWEST_SENDER, 0, 111, True),
        (100 * SLOWEST_SENDER, 11, 50, True),
    ],
)
def test_who_takes_too_long_for_a_request(channel, body_bytes, silent, after, too_slow):
    """What is large may take longer, as long as it goes on."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    channel.received(head)
    channel.received(b"x" * body_bytes)
    now = channel._begun + after
    channel.last_activity = now - silent

    assert too_slow is channel.is_too_slow(now)


def test_what_a_client_does_not_take_at_once_waits_its_turn(channel):
    """The first bytes go past the buffer, those behind what waits in it do not."""
    pieces = [b"%d," % number * 30_000 for number in range(40)]
    for piece in pieces:
        assert len(piece) == channel.write_soon(piece)
    assert channel.total_outbufs_len

    got = channel.client.recv(1 << 20)  # now there is room
    pieces.append(b"last")
    channel.write_soon(b"last")
    while channel.total_outbufs_len:
        channel._flush_some()
        got += channel.client.recv(1 << 20)
    channel.write_soon(b"the end")
    while not got.endswith(b"the end"):
        got += channel.client.recv(1 << 20)

    assert b"".join(pieces) + b"the end" == got


def test_the_held_head_goes_in_front(channel):
    """Together with the beginning of the body."""
    channel.held = b"head "
    channel.write_soon(b"body")
    assert b"head body" == channel.client.recv(100)


@pytest.mark.parametrize("data", [b"", b"x"])
def test_nothing_is_written_to_a_client_that_has_gone(channel, data):
    """The request's thread is told, with nothing to write, too."""
    channel.connected = False
    with pytest.raises(ClientDisconnected):
        channel.write_soon(data)


def test_nothing_that_waits_is_sent_where_a_client_has_gone(channel):
    """Its descriptor may be another client's by then."""
    channel.outbufs[-1].append(b"late")
    channel.total_outbufs_len = 4
    channel.connected = False

    channel._flush_some(do_close=False)

    channel.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        channel.client.recv(100)


def test_a_broken_connection_is_closed(channel):
    """By the main thread, which is told so by what waits."""
    channel.client.close()
    channel.write_soon(b"x")
    assert channel.will_close or channel.total_outbufs_len


def test_a_file_is_written(channel, tmp_path):
    """As an application may answer with one (PEP 3333, "Optional Platform-Specific File Handling")."""
    (tmp_path / "file").write_bytes(b"content")
    buffer = ReadOnlyFileBasedBuffer((tmp_path / "file").open("rb"))
    buffer.prepare(7)
    channel.write_soon(buffer)
    channel._flush_some()
    assert b"content" == channel.client.recv(100)


def test_a_connection_that_has_nothing_to_read_is_none_that_has_ended(channel):
    """waitress must not take the one for the other."""
    with pytest.raises(BlockingIOError):
        channel.recv(100)
    channel.client.sendall(b"x")
    assert b"x" == channel.recv(100)

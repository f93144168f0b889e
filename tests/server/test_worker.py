"""A worker process: how it starts and stops, and how it answers invalid requests."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llmgateway.server.supervisor import listen
from llmgateway.server.worker import BAD_CONFIGURATION, CANNOT_START, run_worker
from llmgateway.settings import Settings

from .conftest import Process


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
    """It ends with the status for bad settings, and names the setting."""
    (tmp_path / "instance").write_text("a file")

    with caplog.at_level(logging.ERROR), listen("127.0.0.1", 0) as listener:
        assert BAD_CONFIGURATION == run_worker(settings(tmp_path), listener)

    assert "LLMGATEWAY_INSTANCE" in caplog.text


def test_a_worker_that_cannot_open_its_database_says_so(tmp_path, caplog):
    """A file that is not a database is not changed, and the worker does not start."""
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance" / "gateway.sqlite").write_bytes(b"not a database, but somebody's text" * 100)

    with caplog.at_level(logging.ERROR), listen("127.0.0.1", 0) as listener:
        assert BAD_CONFIGURATION == run_worker(settings(tmp_path), listener)

    assert "The embedded database cannot be opened" in caplog.text
    assert f"{tmp_path}/instance/gateway.sqlite does not serve: file is not a database" in caplog.text


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """Return the port of a worker that runs in another process."""
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
    """Return status, headers and body of the answer to *request*."""
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
def test_invalid_requests_get_openais_error_object(worker, request_, status, code):
    """The answer is an error object as OpenAI's, and quotes nothing of the request."""
    answered, headers, body = said(worker, request_)

    error = json.loads(body)["error"]
    assert (status, code) == (answered, error["code"])
    assert {"message", "type", "param", "code"} == error.keys()
    assert "application/json" == headers["content-type"]
    assert headers["x-request-id"]
    assert b"hunter2" not in body


def test_a_body_that_is_too_large_is_refused_with_the_limit(worker):
    """The message has the limit, and says who can raise it."""
    _, _, body = said(worker, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2001\r\n\r\n")

    message = json.loads(body)["error"]["message"]
    assert "larger than this gateway takes: 2000 bytes" in message
    assert "LLMGATEWAY_MAX_BODY_BYTES" in message


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_start_that_fails_unexpectedly_ends(tmp_path, processes):
    """A traceback, once for each process that has tried, and no restart for ever."""
    broken = (
        "from llmgateway.cli import main; from llmgateway.server import worker\n"
        "worker.create_app = lambda *_, **__: 1 / 0; main()"
    )
    environ = {
        "PATH": os.environ["PATH"],
        "ADMIN_KEY": "x" * 16,
        "LLM_BASE_URL": "https://x.openai.azure.com/openai/v1",
        "LLMGATEWAY_PORT": "0",
        "LLMGATEWAY_PROCESSES": processes,
    }

    done = subprocess.run(
        [sys.executable, "-c", broken, "serve"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=30
    )

    assert CANNOT_START == done.returncode
    assert 1 <= done.stderr.count("ZeroDivisionError") <= int(processes)

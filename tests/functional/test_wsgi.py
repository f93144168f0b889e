"""``wsgi.py`` under another WSGI server than ours."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from llmgateway.app import RESERVED_THREADS
from tests import ROOT
from tests.gateway_process import ADMIN_KEY, dump
from tests.servers import _die_with_parent, free_port, wait_until

SERVER = """
from werkzeug.serving import make_server
from wsgi import app

server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.port, flush=True)
server.serve_forever()
"""


def ask(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        kind = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, dump(body) if body else None, headers | kind)
        with connection.getresponse() as response:
            return response.status, response.read()
    finally:
        connection.close()


def test_serves_and_books_under_another_server(azure, azure_environ, tmp_path):
    """Keys, answers, streams and the books are the same; only the address is not ours to choose."""
    environ = {
        "PATH": os.environ["PATH"],
        "ADMIN_KEY": ADMIN_KEY,
        "LLMGATEWAY_INSTANCE": str(tmp_path),
        **azure_environ,
    }
    admin = {"AdminKey": ADMIN_KEY}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    ) as process:
        try:
            port = int(process.stdout.readline())
            status, made = ask(port, "POST", "/admin/addapikey", {"user": "ada"}, **admin)
            assert 201 == status
            user = {"Authorization": f"Bearer {json.loads(made)['key']}"}
            hello = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}

            assert 200 == ask(port, "POST", "/v1/chat/completions", hello, **user)[0]
            status, stream = ask(port, "POST", "/v1/chat/completions", hello | {"stream": True}, **user)
            assert (200, True) == (status, stream.endswith(b"data: [DONE]\n\n"))

            def total():
                return json.loads(ask(port, "GET", "/admin/usage", **admin)[1])["total"]

            wait_until(lambda: total()["requests"] == 2, what="two records")
            assert sum(served.usage.total_tokens for served in azure.served) == total()["total_tokens"]
        finally:
            process.kill()


@contextmanager
def gunicorn(tmp_path, azure_environ, **environ):
    """gunicorn with two workers, each with some threads; gives its port and its process."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--threads", "4", "--bind", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [*command, "wsgi:app"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "ADMIN_KEY": ADMIN_KEY,
            "LLMGATEWAY_INSTANCE": str(tmp_path / "instance"),
            **azure_environ,
            **environ,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    )
    try:
        wait_until(lambda: answers(port), seconds=20, what="an answer of /livez")
        yield port, process
    finally:
        process.terminate()
        process.wait(20)


def answers(port):
    try:
        return 200 == ask(port, "GET", "/livez")[0]
    except OSError:
        return False


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def numbers(port):
    status, text = ask(port, "GET", "/metrics", AdminKey=ADMIN_KEY)
    assert 200 == status, text
    lines = [line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_adds_metrics_up_over_the_workers_of_gunicorn(azure_environ, tmp_path):
    """With a folder for them: whichever worker answers knows all; gauges of a worker that died are forgotten."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    with gunicorn(tmp_path, azure_environ, PROMETHEUS_MULTIPROC_DIR=str(folder), LLMGATEWAY_THREADS="20") as (
        port,
        process,
    ):
        for _ in range(20):
            assert 401 == ask(port, "POST", "/v1/chat/completions", {"model": "x"}, Authorization="Bearer x")[0]
        refused = 'llmgateway_refused_total{code="invalid_api_key"}'
        wait_until(lambda: len([*folder.glob("gauge_livesum_*")]) == 2, what="both workers")
        slots = 2 * (20 - RESERVED_THREADS)
        wait_until(lambda: numbers(port)["llmgateway_slots"] == slots, what="the gauges of both")
        for _ in range(5):
            assert 20 == numbers(port)[refused]

        (victim, _) = children(process)
        os.kill(int(victim), signal.SIGKILL)

        wait_until(lambda: victim not in children(process) and len(children(process)) == 2, what="another worker")
        # It makes its files first and sets its gauges a moment later.
        wait_until(lambda: len([*folder.glob("counter_*")]) == 3, what="its application")
        wait_until(lambda: numbers(port)["llmgateway_slots"] == slots, what="the gauges of both")
        for _ in range(5):
            found = numbers(port)
            assert (20, slots) == (found[refused], found["llmgateway_slots"])


def test_says_that_it_cannot_add_metrics_up(azure_environ, tmp_path):
    """Several workers and no folder: an error that says what to set, and no numbers of a worker by chance."""
    with gunicorn(tmp_path, azure_environ) as (port, _):
        status, body = ask(port, "GET", "/metrics", AdminKey=ADMIN_KEY)

    error = json.loads(body)["error"]
    assert (503, "metrics_incomplete") == (status, error["code"])
    assert "PROMETHEUS_MULTIPROC_DIR" in error["message"]


def test_reads_a_file_of_settings(azure_environ, tmp_path):
    """LLMGATEWAY_ENV_FILE is not only for our own server."""
    file = tmp_path / "env"
    file.write_text("LLMGATEWAY_METRICS=off\n")
    with gunicorn(tmp_path, azure_environ, LLMGATEWAY_ENV_FILE=str(file)) as (port, _):
        assert 404 == ask(port, "GET", "/metrics", AdminKey=ADMIN_KEY)[0]

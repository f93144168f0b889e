"""``wsgi.py`` under another WSGI server than ours."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys

from tests import ROOT
from tests.gateway_process import ADMIN_KEY, dump
from tests.servers import _die_with_parent, wait_until

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

"""Stand-ins for what issues tokens of Microsoft Entra ID: IMDS, App Service, and the token endpoint (over TLS).

They also stand in for an Azure that accepts a token until it ends.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "66666666-7777-8888-9999-000000000000"


@dataclass
class TokenServer:
    """Issues ``token-1``, ``token-2`` … and remembers what it was asked. Its fields may be changed while it runs."""

    url: str
    seconds: int = 3600
    """How long its tokens are valid."""
    status: int = 200
    """0 to close the connections without an answer."""
    body: dict[str, object] = field(default_factory=dict)
    """What it answers if *status* is not 200."""
    content_type: str = "application/json"
    gate: threading.Event = field(default_factory=threading.Event)
    """No answer before it is set."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The query, the form and the headers (in lower case) of each request for a token."""
    ends: dict[str, float] = field(default_factory=dict)
    """When each token ends, as :func:`time.time` counts."""
    refused: list[str] = field(default_factory=list)
    """The ``Authorization`` of each completion that Azure did not accept."""

    def __post_init__(self) -> None:
        self.gate.set()
        self._lock = threading.Lock()

    @property
    def imds(self) -> dict[str, str]:
        """The environment in which this is IMDS."""
        return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": self.url}

    @property
    def app_service(self) -> dict[str, str]:
        """The environment in which this is the identity endpoint of App Service and Container Apps."""
        return {"IDENTITY_ENDPOINT": f"{self.url}/msi/token", "IDENTITY_HEADER": "header-of-the-platform"}

    def refuse(self, status: int, **body: object) -> None:
        self.status, self.body = status, body

    def issue(self, asked: dict[str, str]) -> tuple[int, dict[str, object]]:
        with self._lock:
            self.asked.append(asked)
            number = len(self.asked)
        self.gate.wait(30)
        if self.status != 200:
            return self.status, self.body
        token = f"token-{number}"
        self.ends[token] = time.time() + self.seconds
        return 200, {
            "token_type": "Bearer",
            "access_token": token,
            "expires_in": str(self.seconds),
            "expires_on": str(int(time.time()) + self.seconds),
        }

    def complete(self, authorization: str) -> tuple[int, dict[str, object]]:
        # A request that was sent just before the end may arrive after it.
        if time.time() > self.ends.get(authorization.removeprefix("Bearer "), 0) + 0.5:
            self.refused.append(authorization)
            return 401, {"error": {"code": "401", "message": "Unauthorized."}}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        return 200, {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [choice], "usage": usage}


@contextmanager
def token_server(certificate: Path | None = None) -> Iterator[TokenServer]:
    """A server at a free port; with TLS if *certificate* is a file with a certificate and its key."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path.endswith("/.well-known/openid-configuration"):
                base = f"{server.url}/{TENANT}"
                names = {"token_endpoint": "token", "authorization_endpoint": "authorize"}
                known = {name: f"{base}/oauth2/v2.0/{end}" for name, end in names.items()}
                self._answer(200, {**known, "issuer": f"{base}/v2.0"})
            elif parts.path in ("/metadata/identity/oauth2/token", "/msi/token"):
                self._issue(dict(parse_qsl(parts.query)))
            else:
                self._answer(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            if self.path.startswith("/openai/"):
                self._answer(*server.complete(self.headers["authorization"] or ""))
            else:
                self._issue(dict(parse_qsl(body)))

        def _issue(self, fields: dict[str, str]) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._answer(*server.issue(headers | fields))

        def _answer(self, status: int, document: dict[str, object]) -> None:
            if status == 0:
                self.close_connection = True
                return
            body = json.dumps(document).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", server.content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # whoever asked has given up

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
        scheme = "https"
    server = TokenServer(url=f"{scheme}://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.gate.set()
        listener.shutdown()
        listener.server_close()
        thread.join(10)

"""An identity provider for tests that can lie, be slow and fail: its fields may be changed while it runs.

It keeps the rules that matter for us: codes work once, with their PKCE verifier and their redirect address, and only
for a client that shows its secret.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

CLIENT_ID = "gateway"
CLIENT_SECRET = "the secret of the client"
Answer = tuple[int, dict[str, Any] | bytes]


def new_key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid})


@dataclass
class Liar:
    """The provider. ``sub`` and ``claims`` are of the account that signs in next."""

    url: str
    clock: Callable[[], float]
    sub: str = "subject-1"
    claims: dict[str, Any] = field(default_factory=lambda: {"preferred_username": "ada"})
    key: ECKey = field(default_factory=lambda: new_key("first"))
    metadata: dict[str, Any] = field(default_factory=dict)
    """Replaces fields of the discovery document; ``None`` removes one."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Replaces claims of ID tokens; ``None`` removes one."""
    sign: Callable[[Liar, dict[str, Any]], str] | None = None
    userinfo: dict[str, Any] | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    """What a path answers in place of what it should."""
    gates: dict[str, threading.Event] = field(default_factory=dict)
    """No answer of this path before it is set."""
    refused: set[str] = field(default_factory=set)
    """Refresh tokens that are not valid any more."""
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refresh_tokens: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def consent(self, url: str) -> dict[str, str]:
        """Do what the browser and the person do at the address *url*; return what the browser brings back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert url.startswith(f"{self.url}/authorize?")
        assert ("code", "S256", CLIENT_ID) == tuple(
            query[name] for name in ("response_type", "code_challenge_method", "client_id")
        )
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        return {"code": code, "state": query["state"], "to": query["redirect_uri"]}

    def callback(self, url: str) -> str:
        """Return the path and the query to which the browser comes back."""
        brought = self.consent(url)
        address = urlsplit(brought.pop("to"))
        return f"{address.path}?{urlencode(brought)}"

    def discovery(self) -> dict[str, Any]:
        document = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "end_session_endpoint": f"{self.url}/logout",
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
        } | self.metadata
        return {name: value for name, value in document.items() if value is not None}

    def token(self, form: dict[str, str], authorization: str) -> Answer:
        if authorization != _basic() and form.get("client_secret") != CLIENT_SECRET:
            return 401, {"error": "invalid_client"}
        if form["grant_type"] == "refresh_token":
            old = form["refresh_token"]
            if old in self.refused or old not in self.refresh_tokens:
                return 400, {"error": "invalid_grant"}
            sub, claims = self.refresh_tokens[old]
            return 200, self._tokens(sub, claims, nonce=None)
        asked = self.codes.pop(form["code"], None)
        if asked is None or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        hashed = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        if hashed.rstrip(b"=").decode() != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        return 200, self._tokens(self.sub, self.claims, nonce=asked.get("nonce"))

    def _tokens(self, sub: str, claims: dict[str, Any], *, nonce: str | None) -> dict[str, Any]:
        now = int(self.clock())
        payload = {"iss": self.url, "aud": CLIENT_ID, "sub": sub, "iat": now, "exp": now + 300, "nonce": nonce}
        payload = payload | claims | self.overrides
        payload = {name: value for name, value in payload.items() if value is not None}
        refresh = f"refresh-{secrets.token_urlsafe(8)}"
        self.refresh_tokens[refresh] = sub, claims
        return {
            "access_token": "the access token",
            "token_type": "Bearer",
            "refresh_token": refresh,
            "id_token": self.sign(self, payload) if self.sign else signed(self, payload),
        }


def signed(liar: Liar, claims: dict[str, Any], **header: str) -> str:
    return jwt.encode({"alg": "ES256", "kid": liar.key.kid} | header, claims, liar.key)


def unsigned(_: Liar, claims: dict[str, Any]) -> str:
    return f"{_part({'alg': 'none'})}.{_part(claims)}."


def signed_with_the_public_key(liar: Liar, claims: dict[str, Any]) -> str:
    """As HS256, with what everybody knows as the secret."""
    public = json.dumps(liar.key.as_dict(private=False)).encode()
    return jwt.encode({"alg": "HS256", "kid": liar.key.kid}, claims, OctKey.import_key(public), algorithms=["HS256"])


def signed_by_another(liar: Liar, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "ES256", "kid": liar.key.kid}, claims, new_key(str(liar.key.kid)))


def signed_with_rsa(liar: Liar, claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "RS256", "kid": "other"}, claims, RSAKey.generate_key(2048, {"kid": "other"}))


def _part(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _basic() -> str:
    return "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()


class _Handler(BaseHTTPRequestHandler):
    liar: Liar

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._answer({name: values[0] for name, values in parse_qs(body).items()})

    def _answer(self, form: dict[str, str]) -> None:
        liar, path = self.liar, unquote(urlsplit(self.path).path)
        liar.asked.append(path)
        if path in liar.gates:
            liar.gates[path].wait(30)
        status, answer = liar.answers.get(path) or self._usual(path, form)
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        if status in (302, 307):
            self.send_header("Location", f"{liar.url}/elsewhere")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _usual(self, path: str, form: dict[str, str]) -> Answer:
        liar = self.liar
        if path == "/.well-known/openid-configuration":
            return 200, liar.discovery()
        if path == "/jwks":
            return 200, {"keys": [{"kty": "odd"}, {**liar.key.as_dict(private=False), "use": "sig"}]}
        if path == "/token":
            return liar.token(form, self.headers.get("Authorization", ""))
        if path == "/userinfo":
            allowed = self.headers.get("Authorization") == "Bearer the access token"
            return (200, liar.userinfo or {}) if allowed else (401, {})
        return 404, {}


@contextmanager
def running(clock: Callable[[], float]) -> Iterator[Liar]:
    """Run a provider on a free port of this host."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {}))
    server.daemon_threads = True
    liar = Liar(url=f"http://127.0.0.1:{server.server_port}", clock=clock)
    server.RequestHandlerClass.liar = liar  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield liar
    finally:
        for gate in liar.gates.values():
            gate.set()
        server.shutdown()
        thread.join()
        server.server_close()

"""docker/nginx.conf in a real nginx, between a raw TLS client and a raw upstream that the test plays by hand.

Nothing here runs at the same time but nginx: the test sends on one side and looks at the other. Whatever nginx
holds back instead of passing it on is waited for in vain, and the socket's time-out fails the test.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from llmgateway.settings import settings_fields
from tests.programs import needed
from tests.servers import free_port

from .compose import DOCKER, interpolate, load, seconds

CONFIGURATION = DOCKER / "nginx.conf"
PATIENCE = 5  # seconds until something that should have come counts as not coming
MIB = 1024 * 1024
TOO_LONG = 12_000
"""Bytes of a line of the head: nginx takes 8 KiB by default."""


class Wire:
    """One end of a connection, read and written by hand."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        self.connection = connection
        self._unread = b""

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def read_until(self, end: bytes) -> bytes:
        """Everything up to and with *end*."""
        while end not in self._unread:
            self._read_more()
        found, _, self._unread = self._unread.partition(end)
        return found + end

    def read(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._read_more()
        found, self._unread = self._unread[:size], self._unread[size:]
        return found

    def at_end(self) -> bool:
        """Whether the other side hangs up, having sent nothing more."""
        try:
            return not self._unread and not self.connection.recv(1)
        except ConnectionResetError:
            return True

    def _read_more(self) -> None:
        received = self.connection.recv(MIB)
        if not received:
            raise EOFError(f"the other side hung up after {self._unread[-200:]!r}")
        self._unread += received

    def head(self) -> tuple[str, list[tuple[str, str]]]:
        """First line and headers (names in small letters) of a request or a response."""
        first, *lines = self.read_until(b"\r\n\r\n").decode().strip().split("\r\n")
        pairs = (line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in lines)
        return first, [(name.lower(), value) for name, value in pairs]

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """A whole response with a Content-Length."""
        first, headers = self.head()
        fields = dict(headers)
        return int(first.split()[1]), fields, self.read(int(fields.get("content-length", 0)))


@dataclass
class Stage:
    """nginx running, and both of its sides."""

    process: subprocess.Popen[bytes]
    https: int
    http: int
    trust: ssl.SSLContext
    gateways: list[socket.socket]
    log: Path
    errors: Path
    opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def client(self, *protocols: str) -> Wire:
        """Connect over TLS, offering *protocols* (ALPN)."""
        plain = socket.create_connection(("127.0.0.1", self.https), PATIENCE)
        if protocols:
            self.trust.set_alpn_protocols(list(protocols))
        return Wire(self.opened.enter_context(self.trust.wrap_socket(plain, server_hostname="localhost")))

    def plain_client(self) -> Wire:
        return Wire(self.opened.enter_context(socket.create_connection(("127.0.0.1", self.http), PATIENCE)))

    def gateway(self) -> Wire:
        """The next connection that nginx opens to a gateway."""
        ready, _, _ = select.select(self.gateways, [], [], PATIENCE)
        assert ready, "nginx opened no connection to the gateway"
        connection, _ = ready[0].accept()
        return Wire(self.opened.enter_context(connection))

    def asked(self) -> tuple[Wire, Wire]:
        """A client whose request has arrived at the gateway, and the gateway."""
        client = self.client()
        client.send(post())
        gateway = self.gateway()
        gateway.read_until(b"{}")
        return client, gateway

    def gateway_is_untouched(self) -> bool:
        """Whether no connection waits to be accepted. Certain once nginx has answered the client."""
        ready, _, _ = select.select(self.gateways, [], [], 0)
        return not ready

    def stop(self) -> None:
        self.opened.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a throw-away certificate for localhost, as certbot would leave it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "fullchain.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


def nginx() -> str:
    return needed("nginx", package="nginx-light")


def knows_http2_directive() -> bool:
    """Whether this nginx is 1.25.1 or later; before, HTTP/2 was a word behind ``listen``."""
    said = subprocess.run([nginx(), "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said)
    assert found, said
    return tuple(map(int, found.groups())) >= (1, 25, 1)


def replace_once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


NAME = "llm.example.org"


def install(
    folder: Path, certificate: Path, *, https: int, http: int, gateways: list[int], changes: dict[str, str]
) -> list[str]:
    """Put the configuration into *folder* with nothing changed but addresses, folders and *changes*.

    Returns:
        The command that starts it.
    """
    text = CONFIGURATION.read_text()
    for old, new in changes.items():
        text = replace_once(text, old, new)
    text = replace_once(text, "include /tmp/server_name.conf;", f"include {folder}/tmp/server_name.conf;")
    assert "\ndaemon off;\n" in text, "a daemon would outlive its test"
    text = replace_once(text, "listen 8080;", f"listen 127.0.0.1:{http};")
    text = replace_once(text, "listen 8443 ssl;", f"listen 127.0.0.1:{https} ssl;")
    text = replace_once(
        text, "server gateway:8080;", " ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in gateways)
    )
    if not knows_http2_directive():
        text = replace_once(text, "\n        http2 on;\n", "\n")
        text = replace_once(text, f":{https} ssl;", f":{https} ssl http2;")
    (folder / "etc").mkdir()
    (folder / "etc" / "nginx.conf").write_text(text)
    (folder / "etc" / "tls").symlink_to(certificate)
    (folder / "tmp").mkdir()
    command = load(DOCKER / "compose.gateway.yml")["services"]["nginx"]["entrypoint"]
    script = interpolate(command[-1], {}).replace("/tmp/", f"{folder}/tmp/").replace("/etc/nginx/", f"{folder}/etc/")
    # Its workers cannot read a test's folder unless they stay who started them.
    user = " -g 'user root;'" if os.geteuid() == 0 else ""
    return [*command[:-1], replace_once(script.rstrip(), "exec nginx", f"exec {nginx()}{user}") + ' "$@"', "sh"]


Start = Callable[..., Stage]


@pytest.fixture
def start(tmp_path: Path, certificate: Path) -> Iterator[Start]:
    """Start nginx in front of so many gateways; all of it is gone after the test."""
    stages: list[Stage] = []

    def start(*, gateways: int = 1, closed: int = 0, changes: dict[str, str] | None = None) -> Stage:
        listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(gateways)]
        ports = [free_port() for _ in range(closed)] + [server.getsockname()[1] for server in listening]
        https, http = free_port(), free_port()
        command = install(tmp_path, certificate, https=https, http=http, gateways=ports, changes=changes or {})
        log, errors = tmp_path / "access.log", tmp_path / "error.log"
        with log.open("wb") as stdout, errors.open("wb") as stderr:
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=os.environ | {"SERVER_NAME": NAME})
        trust = ssl.create_default_context(cafile=certificate / "fullchain.pem")
        stage = Stage(process, https, http, trust, listening, log, errors)
        for server in listening:
            stage.opened.enter_context(server)
        stages.append(stage)
        until(lambda: process.poll() is not None or listens(https), "nginx does not listen")
        assert process.poll() is None, errors.read_text()
        return stage

    try:
        yield start
    finally:
        for stage in stages:
            stage.stop()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


def until(condition: Callable[[], bool], complaint: str) -> None:
    """Look every few milliseconds until *condition* holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.005)


@pytest.fixture
def stage(start: Start) -> Stage:
    return start()


def post(path: str = "/v1/chat/completions", body: bytes = b"{}", **headers: str) -> bytes:
    """A request as a client writes it."""
    fields = {"Host": "llm.example.org", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def reply(status: str = "200 OK", body: bytes = b"{}", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(event: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(event), event)


def test_nginx_accepts_the_file(tmp_path: Path, certificate: Path) -> None:
    """nginx finds no error in it and nothing to warn of."""
    command = install(tmp_path, certificate, https=free_port(), http=free_port(), gateways=[free_port()], changes={})
    environment = os.environ | {"SERVER_NAME": NAME}
    result = subprocess.run([*command, "-t"], env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    assert "warn" not in result.stderr.replace("worker_connections exceed open file resource limit", "")


def test_events_pass_one_by_one(stage: Stage) -> None:
    """The next event is sent only after the client has the one before: nothing waits in a buffer."""
    client, gateway = stage.asked()
    gateway.send(STREAM)
    client.read_until(b"\r\n\r\n")
    for number in range(50):
        event = b'data: {"n":%d}\n\n' % number
        gateway.send(chunk(event))
        client.read_until(event)
    gateway.send(b"0\r\n\r\n")

    assert client.read_until(b"0\r\n\r\n")


def test_answer_passes_byte_for_byte(stage: Stage) -> None:
    """Status, headers and body of the gateway's own errors reach the client as they are."""
    client, gateway = stage.asked()
    body = b'{"error":{"message":"Azure refused the credential.","code":"upstream_credentials"}}'
    gateway.send(reply("502 Bad Gateway", body, "Content-Type: application/json\r\nx-request-id: req_1\r\n"))
    status, headers, received = client.answer()

    assert (status, received) == (502, body)
    assert headers["x-request-id"] == "req_1"
    assert headers["server"] == "nginx"


def test_client_cannot_forge_its_address(stage: Stage) -> None:
    """What the gateway believes of a client is said by nginx; whatever the client claims is gone."""
    client = stage.client()
    forged = {
        "X_Forwarded_For": "198.51.100.7",
        "X_Forwarded_Proto": "http",
        "X_Forwarded_Host": "evil.example.org",
        "X_Forwarded_Port": "1",
        "X_Forwarded_By": "198.51.100.7",
        "X_Real_IP": "198.51.100.7",
        "Forwarded": "for=198.51.100.7",
    }
    client.send(post(Authorization="Bearer key", **forged))
    first, headers = stage.gateway().head()
    told = [pair for pair in headers if "forwarded" in pair[0] or pair[0] in ("host", "x-real-ip")]

    assert first == "POST /v1/chat/completions HTTP/1.1"
    assert ("authorization", "Bearer key") in headers
    assert sorted(told) == [
        ("host", "llm.example.org"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "llm.example.org"),
        ("x-forwarded-proto", "https"),
    ]


def test_connection_to_the_gateway_is_used_again(stage: Stage) -> None:
    """A second request needs no second connection, and the gateway is not asked to close the first."""
    client = stage.client()
    client.send(post())
    gateway = stage.gateway()
    for _ in range(2):
        _, headers = gateway.head()
        assert "connection" not in dict(headers)
        gateway.read_until(b"{}")
        gateway.send(reply())
        assert client.answer()[0] == 200
        client.send(post())
    gateway.read_until(b"{}")

    assert stage.gateway_is_untouched()


@pytest.mark.parametrize("begun", [False, True], ids=["before the first byte", "in a stream"])
def test_leaving_client_ends_the_request(stage: Stage, begun: bool) -> None:
    """The gateway sees the connection close as soon as the client is gone, and can stop Azure."""
    client, gateway = stage.asked()
    if begun:
        gateway.send(STREAM + chunk(b"data: 1\n\n"))
        client.read_until(b"data: 1\n\n")
    client.connection.close()

    assert gateway.at_end()


def test_body_is_passed_on_while_it_arrives(stage: Stage) -> None:
    """The gateway can check the key before the body is complete; one of the largest size reaches it unchanged."""
    client = stage.client()
    body = os.urandom(MIB) * 32
    request = post(body=body)
    client.send(request[:100_000])
    gateway = stage.gateway()
    _, headers = gateway.head()
    received = gateway.read(64 * 1024)
    sender = threading.Thread(target=client.send, args=[request[100_000:]])
    sender.start()
    received += gateway.read(len(body) - len(received))
    sender.join()

    assert ("content-length", str(len(body))) in headers
    assert received == body


@pytest.mark.parametrize("begun", [100_000, 32 * MIB])
def test_refusal_is_passed_on_while_the_body_arrives(stage: Stage, begun: int) -> None:
    """A client that sends a large body with a wrong key reads why it is refused."""
    client = stage.client()
    request = post(body=bytes(32 * MIB), Authorization="Bearer wrong")

    def refuse() -> None:
        gateway = stage.gateway()
        gateway.head()
        gateway.read(64 * 1024)
        gateway.send(reply("401 Unauthorized", b'{"error":{"code":"invalid_api_key"}}', "Connection: close\r\n"))
        gateway.connection.shutdown(socket.SHUT_WR)

    # A thread for each connection: one connection of TLS is not for two threads.
    refusing = threading.Thread(target=refuse)
    refusing.start()
    with contextlib.suppress(OSError):  # nginx may stop reading
        client.send(request[:begun])
    refusing.join()
    status, _, body = client.answer()

    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")


def test_unfinished_bodies_fill_nothing(stage: Stage) -> None:
    """Clients that never complete their bodies do not keep others out, however many keys they invent."""
    for number in range(40):
        stage.client().send(post(body=bytes(MIB), Authorization=f"Bearer {number}")[: MIB // 2])
        stage.gateway().head()
    client, gateway = stage.asked()
    gateway.send(reply())

    assert client.answer()[0] == 200
    assert not [path for path in stage.errors.parent.rglob("client_body/**") if path.is_file()]


LONG = "k" * 300


@pytest.mark.parametrize(
    ("headers", "other"),
    [
        ({"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}),
        ({"api_key": "a"}, {"api_key": "b"}),
        ({"AdminKey": "a"}, {}),
        ({}, {"Authorization": "Bearer b"}),
        ({"Authorization": LONG}, {"Authorization": "Bearer b"}),
    ],
    ids=["Authorization", "api-key", "AdminKey", "address", "a long key"],
)
@pytest.mark.parametrize("limit", ["at a time", "in a second"])
def test_one_client_cannot_take_everything(
    start: Start, headers: dict[str, str], other: dict[str, str], limit: str
) -> None:
    """Each key has its own limit. All requests without a key from one address share one."""
    if limit == "at a time":
        stage = start(changes={"limit_conn running 128;": "limit_conn running 2;"})
    else:
        stage = start(changes={"rate=200r/s": "rate=1r/m", "burst=400 nodelay": "burst=1 nodelay"})
    for _ in range(2):
        stage.client().send(post(**headers))
        stage.gateway().read_until(b"{}")
    client = stage.client()
    client.send(post(**headers))
    status, told, body = client.answer()
    assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
    assert told["retry-after"]
    assert told["content-type"] == "application/json"
    assert stage.gateway_is_untouched()

    stage.client().send(post(**other))
    stage.gateway().read_until(b"{}")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"hunter2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        # Longer than nginx takes, and no longer than one TLS record: it stops reading when it has seen enough.
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * TOO_LONG + b"\r\n\r\n", 400),
        (b"GET /" + b"x" * TOO_LONG + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: hunter2\r\n\r\n", 501),
        (b"GET / HTTP/2.5\r\nHost: a\r\n\r\n", 505),
        (b"GET /refused HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    ],
)
def test_every_error_has_openais_form(stage: Stage, request_: bytes, status: int) -> None:
    """Clients cannot read HTML."""
    client = stage.client()
    client.send(request_)
    told, headers, body = client.answer()

    assert (told, headers["content-type"]) == (status, "application/json")
    assert {"message", "type", "param", "code"} == json.loads(body)["error"].keys()
    assert headers["x-request-id"]
    assert b"hunter2" not in body


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_larger_body_is_refused(stage: Stage, declared: bool) -> None:
    """A byte more than 32 MiB is answered with 413 in OpenAI's form; the gateway gets no complete request."""
    client = stage.client()
    size = 32 * MIB + 1
    if declared:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    else:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"%x\r\n" % size + bytes(size))
    status, headers, body = client.answer()

    assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_large")
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    if declared:
        assert stage.gateway_is_untouched()
    else:  # it has got the beginning, and no end
        gateway = stage.gateway()
        gateway.head()
        with pytest.raises((EOFError, ConnectionResetError)):
            gateway.read_until(b"\r\n0\r\n")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/v1/../metrics", "/%6detrics", "/metrics?a=b"])
def test_metrics_are_not_for_the_outside(stage: Stage, path: str) -> None:
    """However it is spelt, /metrics is not found and not asked for."""
    client = stage.client()
    client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    status, headers, body = client.answer()

    assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")
    assert headers["x-request-id"]
    assert stage.gateway_is_untouched()


def test_completion_is_not_sent_twice(start: Start) -> None:
    """A POST that broke after it was sent may have cost money: no other gateway gets it."""
    stage = start(gateways=2)
    client, gateway = stage.asked()
    gateway.connection.close()
    status, headers, body = client.answer()

    assert (status, json.loads(body)["error"]["code"]) == (503, "gateway_unavailable")
    assert headers["retry-after"] == "5"
    assert headers["x-request-id"]
    assert stage.gateway_is_untouched()


def test_gateway_that_is_away_is_passed_over(start: Start) -> None:
    """Where nothing was sent, another gateway takes the request."""
    stage = start(gateways=1, closed=3)
    client, gateway = stage.asked()
    gateway.send(reply())

    assert client.answer()[0] == 200


def test_without_a_gateway_the_client_is_told_to_wait(start: Start) -> None:
    """Our own trouble is a 503 that says when to come back."""
    client = start(gateways=0, closed=1).client()
    client.send(post())
    status, headers, body = client.answer()

    assert (status, json.loads(body)["error"]["type"]) == (503, "server_error")
    assert headers["retry-after"] == "5"


@pytest.mark.parametrize("host", [b"llm.example.org", b"evil.example.com", b"llm.example.org:80"])
def test_browser_is_sent_to_https(stage: Stage, host: bytes) -> None:
    """A page asked for without TLS is found at the same place with it, on this host and no other."""
    client = stage.plain_client()
    client.send(b"GET /docs?a=b HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    status, headers, _ = client.answer()

    assert (status, headers["location"]) == (308, "https://llm.example.org/docs?a=b")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/admin/setllmkey", "/openai/v1/responses"])
def test_key_without_tls_is_refused(stage: Stage, path: str) -> None:
    """A program that sends its key in the clear is told, and not quietly redirected for ever."""
    client = stage.plain_client()
    client.send(post(path))
    status, _, body = client.answer()

    assert (status, json.loads(body)["error"]["code"]) == (403, "https_required")
    assert stage.gateway_is_untouched()


def test_http2_is_spoken(stage: Stage) -> None:
    """A browser gets HTTP/2, a client that does not know it gets HTTP/1.1."""
    browser = stage.client("h2", "http/1.1").connection
    assert isinstance(browser, ssl.SSLSocket)
    assert browser.selected_alpn_protocol() == "h2"

    program = stage.client("http/1.1").connection
    assert isinstance(program, ssl.SSLSocket)
    assert program.selected_alpn_protocol() == "http/1.1"


def test_running_stream_survives_docker_stop(stage: Stage) -> None:
    """At SIGQUIT, which is how Docker stops nginx, a stream is relayed to its end; then nginx ends in order."""
    client = stage.client()
    client.send(post(Connection="close"))
    gateway = stage.gateway()
    gateway.read_until(b"{}")
    gateway.send(STREAM + chunk(b"data: 1\n\n"))
    client.read_until(b"data: 1\n\n")
    stage.process.send_signal(signal.SIGQUIT)
    until(lambda: not listens(stage.https), "nginx went on listening")
    gateway.send(chunk(b"data: 2\n\n") + b"0\r\n\r\n")

    client.read_until(b"data: 2\n\n")
    assert client.read_until(b"0\r\n\r\n")
    client.connection.close()
    assert stage.process.wait(10) == 0


def test_log_keeps_no_secret(stage: Stage) -> None:
    """The access log names path, status and request id, but no query string and no header of the client."""
    client = stage.client()
    client.send(post("/v1/chat/completions?api-key=in-query", Authorization="Bearer in-header", Connection="close"))
    gateway = stage.gateway()
    gateway.read_until(b"{}")
    gateway.send(reply(headers="x-request-id: req_7\r\n"))
    client.answer()
    stage.stop()
    text = stage.log.read_text()
    entry = json.loads(text)

    assert (entry["path"], entry["status"], entry["request_id"]) == ("/v1/chat/completions", 200, "req_7")
    assert "in-query" not in text
    assert "in-header" not in text


def test_probes_are_not_logged(stage: Stage) -> None:
    """Who asks every few seconds whether all is well gets an answer and leaves no line."""
    client = stage.client()
    client.send(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    gateway = stage.gateway()
    _, headers = gateway.head()
    gateway.send(reply())
    status, _, _ = client.answer()
    stage.stop()

    assert ("x-forwarded-for", "127.0.0.1") in headers
    assert status == 200
    assert stage.log.read_text() == ""


def directive(name: str) -> str:
    """The value of a directive that the file has once."""
    (value,) = re.findall(rf"^\s*{name} ([^;]+);", CONFIGURATION.read_text(), re.MULTILINE)
    return str(value)


def test_tls_is_modern() -> None:
    """Nothing below TLS 1.2."""
    assert directive("ssl_protocols") == "TLSv1.2 TLSv1.3"


def test_numbers_agree_with_the_gateways() -> None:
    """nginx waits longer than the gateway and takes no more than it, so the gateway's own answers are seen."""
    defaults = {field.metadata["variable"]: field.default for field in settings_fields()}
    services = load(DOCKER / "compose.gateway.yml")["services"]
    environment = services["gateway"]["environment"]
    fixed = {name: float(environment[name]) for name in defaults if environment.get(name, "").isdigit()}

    assert directive("client_max_body_size") == f"{int(fixed['LLMGATEWAY_MAX_BODY_BYTES']) // MIB}m"
    assert seconds(directive("proxy_read_timeout")) > fixed["LLMGATEWAY_FIRST_BYTE_TIMEOUT"] + 10
    assert seconds(directive("worker_shutdown_timeout")) > fixed["LLMGATEWAY_DRAIN_SECONDS"]
    assert seconds(services["nginx"]["stop_grace_period"]) > seconds(directive("worker_shutdown_timeout"))
    assert fixed == {name: defaults[name] for name in fixed}


def test_addresses_agree_with_compose() -> None:
    """Service, ports and folders that nginx.conf names are the ones that Compose makes."""
    services = load(DOCKER / "compose.gateway.yml")["services"]
    text = CONFIGURATION.read_text()
    targets = {port.split(":")[1] for port in services["nginx"]["ports"]}
    tls, conf = services["nginx"]["volumes"][1]["target"], services["nginx"]["volumes"][0].split(":")[1]

    assert "server gateway:8080;" in text
    assert "gateway" in services
    assert targets == set(re.findall(r"listen (\d+)", text))
    assert Path(conf).parent / directive("ssl_certificate_key") == Path(tls) / "privkey.pem"

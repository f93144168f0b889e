"""Real servers to which alerts go: a webhook, and a mail server with TLS."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Post:
    """What a webhook has received."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class WebhookSink:
    """A webhook. ``answer`` is the status of its answers; ``location`` makes them redirects."""

    url: str
    answer: int = 200
    location: str | None = None
    answer_body: bytes = b"private words of the server"
    hangs: threading.Event = field(default_factory=threading.Event)
    before: Callable[[], object] = lambda: None
    posts: list[Post] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return [post.json()["text"] for post in self.posts]


@contextmanager
def webhook_sink(certificate: Path | None = None) -> Iterator[WebhookSink]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sink.before()
            sink.posts.append(Post(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            while sink.hangs.is_set():
                time.sleep(0.01)
            self.send_response(sink.answer)
            if sink.location:
                self.send_header("Location", sink.location)
            self.send_header("Content-Length", str(len(sink.answer_body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(sink.answer_body)

        do_GET = do_POST  # noqa: N815 - the name is that of the standard library

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    scheme = "http"
    if certificate is not None:
        server.socket = _context(certificate).wrap_socket(server.socket, server_side=True)
        scheme = "https"
    sink = WebhookSink(f"{scheme}://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield sink
    finally:
        sink.hangs.clear()
        server.shutdown()
        thread.join(10)
        server.server_close()


@dataclass
class Mail:
    """What a mail server has received."""

    sender: str
    recipients: list[str]
    data: bytes
    user: str | None
    encrypted: bool

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.data, policy=default)
        assert isinstance(message, EmailMessage)
        return message

    @property
    def text(self) -> str:
        return self.message.get_content()


@dataclass
class MailSink:
    """A mail server that speaks as much of SMTP as smtplib needs.

    Args:
        certificate: With it the server offers STARTTLS, or speaks TLS from the beginning (``tls_first``).
        password: Of the user ``gateway``; None if nobody needs to log in.
        refuses: Recipients whose mail is refused.
    """

    certificate: Path | None = None
    tls_first: bool = False
    password: str | None = None
    refuses: set[str] = field(default_factory=set)
    mails: list[Mail] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        login = f"gateway:{self.password}@" if self.password else ""
        return f"{'smtps' if self.tls_first else 'smtp'}://{login}127.0.0.1:{self.port}"

    def talk(self, client: socket.socket) -> None:
        with suppress(OSError), ExitStack() as files:
            files.enter_context(client)
            client.settimeout(10)
            encrypted = self.tls_first
            if encrypted:
                client = files.enter_context(_context(self.certificate).wrap_socket(client, server_side=True))
            self._talk(client, encrypted, files)

    def _talk(self, client: socket.socket, encrypted: bool, files: ExitStack) -> None:
        def say(*lines: str) -> None:
            client.sendall("".join(f"{line}\r\n" for line in lines).encode())

        lines = files.enter_context(client.makefile("rb"))
        user: str | None = None
        sender, recipients = "", []
        say("220 sink ESMTP")
        while line := lines.readline().decode("utf-8", "replace").rstrip("\r\n"):
            self.commands.append(line)
            verb = line.split(":")[0].split(" ")[0].upper()
            if verb == "EHLO":
                offers = ["STARTTLS"] if self.certificate and not encrypted else []
                offers += ["AUTH PLAIN"] if self.password else []
                words = ["sink", "8BITMIME", *offers]
                say(*(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}")
            elif verb == "STARTTLS":
                say("220 go on")
                client = files.enter_context(_context(self.certificate).wrap_socket(client, server_side=True))
                lines, encrypted = files.enter_context(client.makefile("rb")), True
            elif verb == "AUTH":
                _, name, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                right = (name, password) == ("gateway", self.password)
                user = name if right else None
                say("235 welcome" if right else "535 the password is wrong: private words")
            elif verb == "MAIL":
                if self.password and user is None:
                    say("530 log in")
                else:
                    sender, recipients = line.partition("<")[2].partition(">")[0], []
                    say("250 ok")
            elif verb == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
                if recipient in self.refuses:
                    say("550 no such person: private words")
                else:
                    recipients.append(recipient)
                    say("250 ok")
            elif verb == "DATA":
                say("354 go on")
                data = b""
                while (part := lines.readline()) not in (b".\r\n", b""):
                    data += part[1:] if part.startswith(b".") else part
                self.mails.append(Mail(sender, recipients, data, user, encrypted))
                say("250 ok")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


@contextmanager
def mail_sink(**fields: Any) -> Iterator[MailSink]:
    sink = MailSink(**fields)

    def listen() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=sink.talk, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        sink.port = listener.getsockname()[1]
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield sink
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _context(certificate: Path | None) -> ssl.SSLContext:
    assert certificate is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context

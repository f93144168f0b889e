"""Azure over real sockets: what goes there, what comes back, and what went wrong."""

from __future__ import annotations

import json
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress

import pytest

from llmgateway.azure.cancellation import CancellationToken
from llmgateway.azure.client import AzureAnswer, AzureClient
from llmgateway.azure.endpoint import Endpoint
from llmgateway.azure.pool import IDLE_SECONDS, Connection
from llmgateway.errors import ClientGone, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from llmgateway.simulator import Raw, Script, Simulator
from tests.certificates import make_certificate
from tests.parts import Stopwatch
from tests.servers import free_port, wait_until
from tests.stores.contract import at_once

KEY = "azure-key"
BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}).encode()
STREAM = json.dumps(json.loads(BODY) | {"stream": True}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """What the machine's environment says of proxies is not these tests' business."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def azure():
    with Simulator(key=KEY) as azure:
        yield azure


@contextmanager
def upstream_to(url: str, **options: object):
    settings = {
        "key_header": "api-key",
        "connect_timeout": 5.0,
        "first_byte_timeout": 10.0,
        "between_bytes_timeout": 10.0,
        "connections": 8,
    }
    with closing(AzureClient(Endpoint.parse(url), **settings | options)) as upstream:
        yield upstream


@pytest.fixture
def upstream(azure):
    with upstream_to(f"{azure.url}/openai/v1") as upstream:
        yield upstream


def send(upstream: AzureClient, body: bytes = BODY, **fields: object) -> AzureAnswer:
    arguments = {
        "deployment": "gpt-4o-mini",
        "credential": KEY,
        "request_id": "req-1",
        "cancellation": CancellationToken(),
    }
    return upstream.send(body, **arguments | fields)


def read(answer: AzureAnswer) -> bytes:
    with closing(answer):
        return b"".join(iter(answer.read, b""))


def status(answer: AzureAnswer) -> int:
    with closing(answer):
        return answer.status


def the_end_has_come(connection: Connection) -> bool:
    """Wait until the other side has closed *connection*, which then looks as if nobody had noticed."""
    return bool(select.select([connection.socket], [], [], 5)[0])


def encrypted(peer: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
    return tls.wrap_socket(peer, server_side=True)


def received(wire: socket.socket) -> bytes:
    """One request, whole: a server that closes with something unread resets the connection."""
    data = wire.recv(65536)
    while data.startswith(b"POST ") and not data.endswith(BODY):
        data += wire.recv(65536)
    return data


@contextmanager
def raw_server(*answers: bytes | Callable[[socket.socket], None], tls: ssl.SSLContext | None = None):
    """A server that reads one request per connection and says the next of *answers*; gives its port and what it got."""
    listener = socket.create_server(("127.0.0.1", 0))
    got: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), peer, encrypted(peer, tls) if tls else peer as wire:
                got.append(received(wire))
                answer(wire) if callable(answer) else wire.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], got
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        assert not thread.is_alive()


class TestTheRequest:
    def test_carries_what_azure_needs_and_nothing_else(self, upstream, azure):
        """The body as it is, the organisation's key, our identifier, and no header of the client's."""
        read(send(upstream, request_id="0199-abc"))

        (served,) = azure.served
        assert (BODY, True, "0199-abc") == (served.body, served.authenticated, served.client_request_id)
        assert {
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "api-key": KEY,
            "content-length": str(len(BODY)),
            "content-type": "application/json",
            "host": azure.url.removeprefix("http://"),
            "user-agent": "llmgateway",
            "x-ms-client-request-id": "0199-abc",
        } == {name: value for name, value in served.headers.items() if name != "connection"}

    @pytest.mark.parametrize(
        ("key_header", "path", "header", "value"),
        [
            ("api-key", "/openai/v1", "api-key", KEY),
            ("Authorization", "/openai/v1", "authorization", f"Bearer {KEY}"),
            ("Ocp-Apim-Subscription-Key", "/apim/deployments/{model}", "ocp-apim-subscription-key", KEY),
        ],
    )
    def test_shows_the_key_where_it_belongs(self, azure, key_header, path, header, value):
        """Azure, Azure as OpenAI's clients call it, and API Management each look in another place."""
        with upstream_to(azure.url + path, key_header=key_header) as upstream:
            read(send(upstream))

        (served,) = azure.served
        assert (value, True) == (served.headers[header], served.authenticated)

    def test_goes_where_the_endpoint_says(self, azure):
        """A path that names the deployment names the one of each request."""
        with upstream_to(f"{azure.url}/openai/deployments/{{model}}?api-version=2024-10-21") as upstream:
            for deployment in ("gpt-4o-mini", "gpt-4o"):
                read(send(upstream, deployment=deployment))

        assert ["gpt-4o-mini", "gpt-4o"] == [served.path.split("/")[3] for served in azure.served]
        assert {"api-version": "2024-10-21"} == azure.served[0].query

    @pytest.mark.parametrize("credential", ["line\r\nbreak", "line\nbreak", "\x00", "no header can carry \u2026"])
    def test_takes_no_key_that_would_change_it(self, upstream, azure, credential):
        """A header field ends where its line ends: nothing is sent with one that has a line break in it."""
        with pytest.raises(ValueError):  # noqa: PT011 - of any kind
            send(upstream, credential=credential)

        assert [] == azure.served

    def test_threads_do_not_share_what_is_theirs(self, upstream, azure):
        """Every request has its own body, identifier and credential, however many go out at once."""
        bodies = [json.dumps(json.loads(BODY) | {"user": str(number)}).encode() for number in range(200)]

        def send_some(first: int) -> None:
            for number in range(first, 200, 8):
                read(send(upstream, bodies[number], request_id=str(number), credential=f"{KEY}{number}"))

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # threads take turns in the middle of everything
        try:
            at_once(*[lambda first=first: send_some(first) for first in range(8)])
        finally:
            sys.setswitchinterval(interval)

        assert {(str(number), f"{KEY}{number}", bodies[number]) for number in range(200)} == {
            (served.client_request_id, served.headers["api-key"], served.body) for served in azure.served
        }


class TestTheAnswer:
    def test_is_azures_own(self, upstream, azure):
        """Status and bytes come back as they were sent."""
        answer = send(upstream)

        assert (200, False) == (answer.status, answer.is_event_stream)
        assert read(answer) == azure.served[0].body_sent

    def test_has_the_headers_that_clients_may_see(self, upstream, azure):
        """What helps the client passes; the organisation's limits are renamed, its affairs and the hop's stay here."""
        azure.script(
            Script(
                headers={
                    "retry-after": "3",
                    "Retry-After-MS": "3000",
                    "Set-Cookie": "a=b",
                    "Server": "x",
                    "Connection": "keep-alive",
                    "x-custom": "y",
                }
            )
        )
        answer = send(upstream)
        read(answer)

        names = {name for name, _ in answer.headers}
        assert {
            "apim-request-id",
            "azureml-model-session",
            "content-type",
            "retry-after",
            "retry-after-ms",
            "x-ms-region",
            "x-request-id",
        } == {name for name in names if not name.startswith("x-upstream-ratelimit-")}
        assert ("3", "3000") == tuple(dict(answer.headers)[name] for name in ("retry-after", "retry-after-ms"))
        assert "x-upstream-ratelimit-remaining-tokens" in names
        assert all(name == name.lower() for name in names)

    def test_says_where_it_was_made(self, upstream, azure):
        """Region and Azure's identifier go into the books."""
        answer = send(upstream)
        read(answer)

        assert ("East US 2", dict(answer.headers)["apim-request-id"]) == (answer.region, answer.upstream_request_id)

    def test_a_stream_arrives_as_it_is_made(self, upstream, azure):
        """The first events can be read while Azure still thinks about the rest."""
        azure.script(Script(stall_after_events=2))
        answer = send(upstream, STREAM)
        assert answer.is_event_stream

        seen = answer.read()
        while seen.count(b"\n\n") < 2:
            seen += answer.read()
        assert not azure.served[0].finished
        azure.release()

        assert (seen + read(answer)).endswith(b"data: [DONE]\n\n")

    @pytest.mark.parametrize("fault", ["token_rate_limit", "unauthorized", "server_error", "content_filter"])
    def test_errors_are_answers(self, upstream, azure, fault):
        """What Azure refuses is passed on by whoever asked; it is no failure of the connection."""
        azure.script(Script(fault=fault))

        answer = send(upstream)

        assert answer.status >= 400
        assert b"error" in read(answer)

    def test_a_redirect_is_not_followed(self):
        """Azure never redirects; whoever does must not get the key at another address, and is passed on."""
        there = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 5\r\n\r\nthere"
        with raw_server(there) as (port, got), upstream_to(f"http://127.0.0.1:{port}") as upstream:
            answer = send(upstream)
            assert (302, b"there") == (answer.status, read(answer))

        assert 1 == len(got)

    def test_what_is_compressed_stays_compressed(self, upstream, azure):
        """Bytes pass through as they are on the wire, with the header that explains them."""
        azure.script(Script(raw=Raw(200, {"Content-Encoding": "gzip"}, b"\x1f\x8bnot really")))

        answer = send(upstream)

        assert "gzip" == dict(answer.headers)["content-encoding"]
        assert b"\x1f\x8bnot really" == read(answer)


class TestTheConnection:
    @pytest.mark.parametrize("body", [BODY, STREAM])
    def test_is_used_again(self, upstream, azure, body):
        """An answer that was read to its end leaves its connection for the next request."""
        for _ in range(3):
            read(send(upstream, body))

        assert [1, 1, 1] == [served.connection for served in azure.served]

    def test_is_not_used_again_after_a_break(self, upstream, azure):
        """An answer that was left in the middle closes its connection, and Azure sees that."""
        azure.script(Script(stall_after_events=2))
        answer = send(upstream, STREAM)
        answer.read()
        answer.close()
        azure.wait_for(lambda served: served[0].peer_left)

        read(send(upstream))

        assert [1, 2] == [served.connection for served in azure.served]

    def test_is_given_up_when_it_is_old(self, azure):
        """However busy: an address that DNS has given to another host would never be noticed."""
        timer = Stopwatch()
        with upstream_to(f"{azure.url}/openai/v1", timer=timer) as upstream:
            for _ in range(12):
                read(send(upstream))
                timer.advance(IDLE_SECONDS - 10)

        assert [1] * 6 + [2] * 6 == [served.connection for served in azure.served]

    def test_closed_by_azure_meanwhile_is_replaced(self, azure, upstream):
        """A connection that Azure closed while it was idle costs the next request nothing."""
        read(send(upstream))
        port = azure.port
        azure.stop()
        with Simulator(key=KEY, port=port):
            assert 200 == status(send(upstream))

    @pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "TLS"])
    def test_closed_by_azure_at_the_same_moment_is_replaced(self, certificate, monkeypatch, encrypt):
        """A request that went into a connection closed before goes out again, once, under its own name."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        monkeypatch.setattr(Connection, "is_quiet", the_end_has_come)
        cancellation = CancellationToken()
        with raw_server(OK, OK, tls=tls if encrypt else None) as (port, got):
            url = f"http{'s' if encrypt else ''}://localhost:{port}"
            with upstream_to(url) as upstream:
                read(send(upstream))
                assert b"{}" == read(send(upstream, request_id="req-2", cancellation=cancellation))

        assert cancellation.sent
        assert [b"req-1", b"req-2"] == [re.findall(rb"x-ms-client-request-id: (.*)\r\n", one)[0] for one in got]

    @pytest.mark.parametrize("reset", [False, True])
    def test_closed_by_azure_when_it_had_the_request_is_not_tried_again(self, upstream, azure, reset):
        """It may have worked on it: sent again, it would be paid for twice."""
        read(send(upstream))
        azure.script(Script(refuse=True, reset=reset))
        cancellation = CancellationToken()

        with pytest.raises(UpstreamBroken):
            send(upstream, cancellation=cancellation)

        assert cancellation.sent
        assert [1, 1] == [served.connection for served in azure.served]

    def test_what_is_refused_in_the_middle_of_a_request_is_an_answer(self):
        """A server that says that a body is too large need not read all of it."""

        def refuse() -> None:
            wire, _ = listener.accept()
            with wire:
                wire.recv(1000)
                wire.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")

        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=refuse)
            thread.start()
            with upstream_to(f"http://127.0.0.1:{listener.getsockname()[1]}") as upstream:
                answer = send(upstream, b"{" + b" " * (32 * 1024 * 1024))
                assert (413, b"{}") == (answer.status, read(answer))
            thread.join()


class TestWhatGoesWrong:
    def test_nobody_listens(self):
        """A refused connection is unreachable: nothing was sent, nothing is owed."""
        cancellation = CancellationToken()
        with (
            upstream_to(f"http://127.0.0.1:{free_port()}") as upstream,
            pytest.raises(UpstreamUnreachable) as failed,
        ):
            send(upstream, cancellation=cancellation)

        assert (5, False) == (failed.value.retry_after, cancellation.sent)

    def test_an_unknown_host(self):
        """A name that no address belongs to is unreachable."""
        with upstream_to("http://azure.invalid") as upstream, pytest.raises(UpstreamUnreachable):
            send(upstream)

    def test_nobody_accepts(self):
        """A host that does not take the connection in time is unreachable."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            waiting = [socket.socket() for _ in range(4)]  # they fill the queue
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            began = time.monotonic()
            with (
                upstream_to(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.2) as upstream,
                pytest.raises(UpstreamUnreachable),
            ):
                send(upstream)
            assert time.monotonic() - began < 5, "the system's own patience is two minutes"
            for one in waiting:
                one.close()

    def test_no_first_byte(self, azure):
        """Azure took the request and says nothing: a time-out, and the request may be billed."""
        azure.script(Script(delay=60))
        cancellation = CancellationToken()
        with (
            upstream_to(f"{azure.url}/openai/v1", first_byte_timeout=0.2) as upstream,
            pytest.raises(UpstreamTimeout),
        ):
            send(upstream, cancellation=cancellation)

        assert cancellation.sent

    def test_silence_in_the_middle(self, azure):
        """Between bytes another limit holds than before the first one."""
        azure.script(Script(delay=0.4, stall_after_events=1))
        with upstream_to(f"{azure.url}/openai/v1", between_bytes_timeout=0.2) as upstream:
            answer = send(upstream, STREAM)
            with pytest.raises(UpstreamTimeout):
                read(answer)

    def test_the_first_limit_holds_again_for_the_next_request(self, azure):
        """A connection used again waits for its first byte as long as a new one."""
        with upstream_to(f"{azure.url}/openai/v1", between_bytes_timeout=0.2) as upstream:
            read(send(upstream))
            azure.script(Script(delay=0.5))

            assert 200 == status(send(upstream))

        assert [1, 1] == [served.connection for served in azure.served]

    @pytest.mark.parametrize("reset", [False, True])
    def test_closed_without_an_answer(self, upstream, azure, reset):
        """Azure read the request and hung up: broken, and it may be billed."""
        azure.script(Script(refuse=True, reset=reset))
        cancellation = CancellationToken()

        with pytest.raises(UpstreamBroken):
            send(upstream, cancellation=cancellation)

        assert cancellation.sent
        assert 1 == len(azure.served)

    @pytest.mark.parametrize("framing", ["chunked", "length"])
    @pytest.mark.parametrize("reset", [False, True])
    @pytest.mark.parametrize("body", [BODY, STREAM])
    def test_closed_in_the_middle(self, upstream, azure, framing, reset, body):
        """An answer that is cut is not taken for a whole one."""
        azure.script(Script(cut_after_bytes=20, framing=framing, reset=reset))
        with pytest.raises(UpstreamBroken):
            read(send(upstream, body))

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"garbage\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
            b"\x16\x03\x01\x00\x00",
        ],
    )
    def test_a_head_that_is_none(self, head):
        """What is no HTTP is a broken answer."""
        with (
            raw_server(head) as (port, _),
            upstream_to(f"http://127.0.0.1:{port}") as upstream,
            pytest.raises(UpstreamBroken),
        ):
            send(upstream)

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        ],
    )
    def test_a_body_that_is_none(self, answer):
        """A body that breaks its framing is a broken answer."""
        with raw_server(answer) as (port, _), upstream_to(f"http://127.0.0.1:{port}") as upstream:
            answer = send(upstream)
            with pytest.raises(UpstreamBroken):
                read(answer)

    @pytest.mark.parametrize("trouble", [{"refuse": True}, {"cut_after_bytes": 5}])
    def test_says_no_secret(self, upstream, azure, trouble, caplog):
        """Neither the client's message nor the operator's line has a key or a conversation in it."""
        azure.script(Script(**trouble))
        with pytest.raises(UpstreamBroken) as failed:
            read(send(upstream))

        assert 1 == len(caplog.messages)
        assert not {KEY, "Hello"} & set(caplog.text.replace('"', " ").split())
        assert KEY not in str(failed.value)


class TestCutting:
    def test_before_the_first_byte(self, azure, upstream):
        """A thread that waits for Azure is woken when the client goes, and Azure sees the connection close."""
        azure.script(Script(delay=60))
        cancellation = CancellationToken()
        gone: list[Exception] = []

        def wait() -> None:
            with pytest.raises(ClientGone) as cut:
                send(upstream, cancellation=cancellation)
            gone.append(cut.value)

        thread = threading.Thread(target=wait)
        thread.start()
        azure.wait_for(lambda served: served)
        cancellation.cut()
        thread.join(5)

        assert 1 == len(gone)
        azure.wait_for(lambda served: served[0].peer_left)

    @pytest.mark.parametrize("framing", ["chunked", "close"])
    def test_in_the_middle(self, azure, upstream, framing):
        """An answer that is cut while it is read is not taken for a whole one, however its end is told."""
        azure.script(Script(stall_after_events=1, framing=framing))
        cancellation = CancellationToken()
        answer = send(upstream, STREAM, cancellation=cancellation)
        answer.read()
        threading.Timer(0.05, cancellation.cut).start()

        with pytest.raises(ClientGone):
            read(answer)

    def test_before_anything_was_sent(self, azure, upstream):
        """A client that has gone already costs Azure nothing."""
        cancellation = CancellationToken()
        cancellation.cut()

        with pytest.raises(ClientGone):
            send(upstream, cancellation=cancellation)

        assert not cancellation.sent
        assert [] == azure.served

    def test_too_late(self, azure, upstream):
        """An answer that has arrived is past cutting: its connection carries another by now."""
        cancellation = CancellationToken()
        read(send(upstream, cancellation=cancellation))
        cancellation.cut()

        assert read(send(upstream))
        assert [1, 1] == [served.connection for served in azure.served]


class CutAfterTheHead(CancellationToken):
    """A client that goes at the worst of moments."""

    def attach(self, connection: Connection) -> None:
        super().attach(connection)
        self.cut()


def test_a_request_that_was_cut_before_its_body_was_not_sent(upstream, azure):
    """A head alone is none that Azure works on: it is in nobody's books."""
    cancellation = CutAfterTheHead()

    with pytest.raises(ClientGone):
        send(upstream, cancellation=cancellation)

    assert (True, False) == (cancellation.was_cut, cancellation.sent)
    assert [] == azure.served


def test_a_connection_that_failed_is_closed_when_no_cut_can_touch_it_any_more():
    """Its descriptor may be another thread's as soon as it is closed: a cut that is under way ends before that."""
    reached, goes_on, seen = threading.Event(), threading.Event(), []

    class Watched:
        def __init__(self, connection: Connection) -> None:
            self.connection = connection

        def shutdown(self) -> None:
            reached.set()
            goes_on.wait(10)
            seen.append(self.connection.is_closed)

    class Token(CancellationToken):
        def attach(self, connection: Connection) -> None:
            self.watched = Watched(connection)
            super().attach(self.watched)

    token = Token()
    cutting = threading.Thread(target=token.cut)

    def answer_while_it_is_cut(peer: socket.socket) -> None:
        cutting.start()
        reached.wait(10)
        peer.sendall(b"garbage\r\n\r\n")

    def let_it_go_on() -> None:
        reached.wait(10)
        with suppress(AssertionError):
            wait_until(lambda: token.watched.connection.is_closed, seconds=0.3)
        goes_on.set()

    helper = threading.Thread(target=let_it_go_on)
    helper.start()
    with raw_server(answer_while_it_is_cut) as (port, _), upstream_to(f"http://127.0.0.1:{port}") as upstream:
        with pytest.raises(ClientGone):
            send(upstream, cancellation=token)
        helper.join()
        cutting.join()

    assert [False] == seen
    assert token.watched.connection.is_closed


@pytest.mark.parametrize("body", [BODY + b"\r\n\r\n", b"\r\n\r\n", BODY])
def test_a_request_with_its_body_was_sent(upstream, azure, body):
    """Whatever the body looks like."""
    cancellation = CancellationToken()

    send(upstream, body, cancellation=cancellation).close()

    assert cancellation.sent
    assert [body] == [one.body for one in azure.served]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate that only itself vouches for, and what serves with it."""
    pem = make_certificate(tmp_path_factory.mktemp("tls"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return pem, context


class TestTLS:
    def test_a_certificate_that_nobody_vouches_for(self, certificate):
        """Without trust nothing is sent: the key must not go to whoever answers."""
        _, tls = certificate
        cancellation = CancellationToken()
        with (
            raw_server(OK, tls=tls) as (port, got),
            upstream_to(f"https://localhost:{port}") as upstream,
            pytest.raises(UpstreamUnreachable),
        ):
            send(upstream, cancellation=cancellation)

        assert (False, []) == (cancellation.sent, got)

    def test_no_tls_at_all(self):
        """A port that speaks no TLS is unreachable."""
        with raw_server(OK) as (port, _), upstream_to(f"https://localhost:{port}") as upstream:
            cancellation = CancellationToken()
            with pytest.raises(UpstreamUnreachable):
                send(upstream, cancellation=cancellation)
            assert not cancellation.sent

    def test_trusts_what_the_environment_trusts(self, certificate, monkeypatch):
        """REQUESTS_CA_BUNDLE means what it means to requests, as it was at the start."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        with raw_server(OK, tls=tls) as (port, got), upstream_to(f"https://localhost:{port}") as upstream:
            monkeypatch.delenv("REQUESTS_CA_BUNDLE")
            assert b"{}" == read(send(upstream))

        assert got[0].startswith(b"POST /chat/completions HTTP/1.1\r\n")

    def test_trusts_a_folder_of_certificates(self, certificate, monkeypatch, tmp_path):
        """As requests does: by the names that OpenSSL gives to its files."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
        with (
            raw_server(OK, tls=tls) as (port, got),
            upstream_to(f"https://localhost:{port}") as upstream,
            pytest.raises(UpstreamUnreachable),
        ):
            send(upstream)
        assert [] == got

        subject = subprocess.run(
            ["openssl", "x509", "-subject_hash", "-noout", "-in", pem], check=True, capture_output=True, text=True
        )
        (tmp_path / f"{subject.stdout.strip()}.0").write_bytes(pem.read_bytes())
        with raw_server(OK, tls=tls) as (port, _), upstream_to(f"https://localhost:{port}") as upstream:
            assert b"{}" == read(send(upstream))

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_new_connection_resumes_the_session_of_an_earlier_one(self, certificate, monkeypatch, version):
        """A connection that Azure has closed is replaced without the certificates' work, and in the same trust."""
        pem, _ = certificate
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        tls.maximum_version = version
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        resumed = []

        def answer(wire: ssl.SSLSocket) -> None:
            resumed.append(wire.session_reused)
            wire.sendall(OK)

        timer = Stopwatch()
        with (
            raw_server(answer, answer, tls=tls) as (port, _),
            upstream_to(f"https://localhost:{port}", timer=timer) as upstream,
        ):
            read(send(upstream))
            timer.advance(IDLE_SECONDS)
            read(send(upstream))

        assert [False, True] == resumed


class TestProxies:
    def test_come_from_the_environment_once(self, monkeypatch):
        """HTTP_PROXY counts as it was at the start; what changes later changes nothing."""
        with raw_server(OK) as (port, got):
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
            with upstream_to("http://azure.invalid/openai/v1") as upstream:
                monkeypatch.delenv("HTTP_PROXY")
                assert b"{}" == read(send(upstream))

        assert got[0].startswith(b"POST http://azure.invalid/openai/v1/chat/completions HTTP/1.1\r\n")

    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    @pytest.mark.parametrize("scheme", ["http://", ""])
    def test_may_want_a_login(self, monkeypatch, variable, scheme):
        """What stands in the proxy's address is shown to the proxy; the scheme may be left out, as for requests."""
        with raw_server(OK) as (port, got):
            monkeypatch.setenv(variable, f"{scheme}ada:p%40ss@127.0.0.1:{port}")
            with upstream_to("http://azure.invalid/openai/v1") as upstream:
                read(send(upstream))

        assert got[0].startswith(b"POST http://azure.invalid/openai/v1/chat/completions HTTP/1.1\r\n")
        assert [b"Basic YWRhOnBAc3M="] == re.findall(rb"(?i)proxy-authorization: (.*)\r\n", got[0])
        assert [b"azure.invalid"] == re.findall(rb"(?i)\r\nhost: (.*)\r\n", got[0])

    @pytest.mark.parametrize(
        ("host", "exceptions"),
        [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.0/8"),
            ("localhost", "azure.com, localhost"),
            ("localhost", "localhost:{port}"),
            ("localhost", ".localhost"),
            ("localhost", "*"),
        ],
    )
    def test_not_for_those_who_need_none(self, azure, monkeypatch, host, exceptions):
        """NO_PROXY means what it means to requests."""
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("NO_PROXY", exceptions.format(port=azure.port))
        with upstream_to(f"http://{host}:{azure.port}/openai/v1") as upstream:
            assert 200 == status(send(upstream))

    @pytest.mark.parametrize("refusal", [b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"", b"garbage\r\n\r\n"])
    def test_that_open_no_tunnel(self, monkeypatch, refusal):
        """A proxy that refuses to connect us has shown Azure nothing: unreachable, nothing is owed."""
        cancellation = CancellationToken()
        with raw_server(refusal) as (port, got):
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
            with upstream_to("https://azure.invalid/openai/v1") as upstream, pytest.raises(UpstreamUnreachable):
                send(upstream, cancellation=cancellation)

        assert got[0].startswith(b"CONNECT azure.invalid:443 ")
        assert KEY.encode() not in got[0]
        assert not cancellation.sent

    @pytest.mark.parametrize("login", ["", "http://ada:p%40ss@", "ada:p%40ss@"])
    def test_tunnel_tls(self, certificate, monkeypatch, login):
        """Through a tunnel the request goes encrypted, counts as sent, and shows the login to the proxy alone."""
        pem, tls = certificate
        seen: list[bytes] = []

        def tunnel(peer: socket.socket) -> None:
            peer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with encrypted(peer, tls) as wire:
                seen.append(received(wire))
                wire.sendall(OK)

        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        cancellation = CancellationToken()
        with raw_server(tunnel) as (port, got):
            monkeypatch.setenv("HTTPS_PROXY", f"{login}127.0.0.1:{port}")
            with upstream_to("https://localhost/openai/v1") as upstream:
                answer = send(upstream, cancellation=cancellation)
                assert cancellation.sent
                assert b"{}" == read(answer)

        assert got[0].startswith(b"CONNECT localhost:443 HTTP/1.")
        assert bool(login) == (b"Proxy-Authorization: Basic YWRhOnBAc3M=\r\n" in got[0])
        assert seen[0].startswith(b"POST /openai/v1/chat/completions HTTP/1.1\r\n")
        assert b"proxy-authorization" not in seen[0].lower()

    def test_may_be_reached_by_tls(self, certificate, monkeypatch):
        """The bundle that vouches for Azure vouches for the proxy, too, as in requests."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        with raw_server(OK, tls=tls) as (port, got):
            monkeypatch.setenv("HTTP_PROXY", f"https://localhost:{port}")
            with upstream_to("http://azure.invalid/openai/v1") as upstream:
                assert b"{}" == read(send(upstream))

        assert got[0].startswith(b"POST http://azure.invalid/openai/v1/chat/completions HTTP/1.1\r\n")


def test_closing_lets_idle_connections_go(azure):
    """What is closed holds no socket open at Azure."""
    with upstream_to(f"{azure.url}/openai/v1") as upstream:
        read(send(upstream))

    wait_until(lambda: "0 connections" in repr(azure))


def test_a_large_body_may_take_longer_than_connecting():
    """The time to connect does not limit the sending: a reader that takes a while gets all of a picture."""
    body = b"x" * (16 * 1024 * 1024)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = []

        def read_slowly() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                threading.Event().wait(0.5)  # longer than the time to connect, with full buffers
                size = 1000
                while size < len(body):
                    size += len(connection.recv(1 << 20))
                received.append(size)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        reader = threading.Thread(target=read_slowly)
        reader.start()
        with upstream_to(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", connect_timeout=0.2) as upstream:
            assert 200 == status(send(upstream, body))
        reader.join()
    assert received[0] >= len(body)


class CutsAnother(CancellationToken):
    """A request on whose way the client of an earlier one is found gone."""

    def __init__(self, another: CancellationToken) -> None:
        super().__init__()
        self.another = another

    def attach(self, connection: Connection) -> None:
        super().attach(connection)
        self.another.cut()


def test_a_cut_that_comes_late_hits_nobody_else(upstream):
    """The connection of an answer that was read to its end may carry another request, which goes through."""
    first = CancellationToken()
    answer = send(upstream, cancellation=first)
    while answer.read():
        pass

    assert 200 == status(send(upstream, cancellation=CutsAnother(first)))
    assert first.was_cut


def test_an_answer_that_has_arrived_cannot_be_cut(upstream, azure):
    """Whoever cuts it too late does not touch the connection, which others may use by then."""
    first = CancellationToken()
    answer = send(upstream, cancellation=first)
    while answer.read():
        pass
    first.cut()
    answer.close()

    assert 200 == status(send(upstream))
    assert [1, 1] == [served.connection for served in azure.served]

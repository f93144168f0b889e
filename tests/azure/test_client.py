"""The client for Azure over real sockets: requests, answers and errors."""

from __future__ import annotations

import gzip
import json
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple

import pytest

from llmgateway.azure.cancellation import CancellationToken
from llmgateway.azure.client import AzureAnswer, AzureClient
from llmgateway.azure.endpoint import Endpoint
from llmgateway.azure.pool import IDLE_SECONDS, Connection
from llmgateway.errors import ClientGone, ConfigurationError, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from llmgateway.simulator import Raw, Script, Simulator
from tests.certificates import make_certificate
from tests.parts import Stopwatch
from tests.proxy.requests import target
from tests.servers import free_port, wait_until
from tests.stores.contract import at_once

KEY = "azure-key"
BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}).encode()
STREAM = json.dumps(json.loads(BODY) | {"stream": True}).encode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """The proxies of the machine must not affect these tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def azure():
    with Simulator(key=KEY) as azure:
        yield azure


class Resource(NamedTuple):
    """A client, and the one resource that a test sends to."""

    client: AzureClient
    endpoint: Endpoint
    key_header: str


@contextmanager
def upstream_to(url: str, *, key_header: str = "api-key", **options: object):
    settings = {
        "connect_timeout": 5.0,
        "first_byte_timeout": 10.0,
        "between_bytes_timeout": 10.0,
        "connections": 8,
    }
    with closing(AzureClient(**settings | options)) as client:
        endpoint = Endpoint.parse(url)
        client.check(endpoint)
        yield Resource(client, endpoint, key_header)


@pytest.fixture
def upstream(azure):
    with upstream_to(f"{azure.url}/openai/v1") as upstream:
        yield upstream


def send(
    upstream: Resource,
    body: bytes = BODY,
    *,
    deployment: str = "gpt-4o-mini",
    credential: str = KEY,
    operation: str = "chat/completions",
    **fields: object,
) -> AzureAnswer:
    return upstream.client.send(
        body,
        target=target(upstream.endpoint, deployment, key=credential, key_header=upstream.key_header),
        operation=operation,
        **{"request_id": "req-1", "cancellation": CancellationToken()} | fields,
    )


def read(answer: AzureAnswer) -> bytes:
    with closing(answer):
        return b"".join(iter(answer.read, b""))


def status(answer: AzureAnswer) -> int:
    with closing(answer):
        return answer.status


def end_has_arrived(connection: Connection) -> bool:
    """Wait until the other side has closed *connection*, without letting the pool notice."""
    return bool(select.select([connection.socket], [], [], 5)[0])


def encrypted(peer: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
    return tls.wrap_socket(peer, server_side=True)


def received(wire: socket.socket) -> bytes:
    """Read one complete request. A server that closes without reading everything would reset the connection."""
    data = wire.recv(65536)
    while data.startswith(b"POST ") and not data.endswith(BODY):
        data += wire.recv(65536)
    return data


@contextmanager
def raw_server(*answers: bytes | Callable[[socket.socket], None], tls: ssl.SSLContext | None = None):
    """A server that reads one request per connection and sends the next of *answers*; yields port and requests."""
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


DRIPS, DRIP_SECONDS = 50, 0.1


def dripping(beginning: bytes, drip: bytes, *, below_tls: bool = False) -> Callable[[socket.socket], None]:
    """Return an answer that goes on with *drip* again and again, until the gateway closes the connection."""

    def answer(wire: socket.socket) -> None:
        wire.sendall(beginning)
        for _ in range(DRIPS):
            socket.socket.send(wire, drip) if below_tls else wire.sendall(drip)
            if select.select([wire], [], [], DRIP_SECONDS)[0]:
                return

    return answer


class TestTheRequest:
    def test_carries_what_azure_needs_and_nothing_else(self, upstream, azure):
        """The request has the client's body, Azure's key, the gateway's identifier, and no headers of the client."""
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
        """Azure, its v1 form and API Management each read the key from another header."""
        with upstream_to(azure.url + path, key_header=key_header) as upstream:
            read(send(upstream))

        (served,) = azure.served
        assert (value, True) == (served.headers[header], served.authenticated)

    def test_goes_where_the_endpoint_says(self, azure):
        """If the path names a deployment, it is the one of the request."""
        with upstream_to(f"{azure.url}/openai/deployments/{{model}}?api-version=2024-10-21") as upstream:
            for deployment in ("gpt-4o-mini", "gpt-4o"):
                read(send(upstream, deployment=deployment))

        assert ["gpt-4o-mini", "gpt-4o"] == [served.path.split("/")[3] for served in azure.served]
        assert {"api-version": "2024-10-21"} == azure.served[0].query

    @pytest.mark.parametrize("credential", ["line\r\nbreak", "line\nbreak", "\x00", "no header can carry \u2026"])
    def test_refuses_a_key_that_would_change_the_header(self, upstream, azure, credential):
        """A key with a line break is refused, because it would end the header field."""
        with pytest.raises(ValueError):  # noqa: PT011 - of any kind
            send(upstream, credential=credential)

        assert [] == azure.served

    def test_threads_do_not_mix_their_requests(self, upstream, azure):
        """Concurrent requests each have their own body, identifier and credential."""
        bodies = [json.dumps(json.loads(BODY) | {"user": str(number)}).encode() for number in range(200)]

        def send_some(first: int) -> None:
            for number in range(first, 200, 8):
                read(send(upstream, bodies[number], request_id=str(number), credential=f"{KEY}{number}"))

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # threads switch very often
        try:
            at_once(*[lambda first=first: send_some(first) for first in range(8)])
        finally:
            sys.setswitchinterval(interval)

        assert {(str(number), f"{KEY}{number}", bodies[number]) for number in range(200)} == {
            (served.client_request_id, served.headers["api-key"], served.body) for served in azure.served
        }


class TestTheAnswer:
    def test_is_returned_unchanged(self, upstream, azure):
        """Status and body are returned unchanged."""
        answer = send(upstream)

        assert (200, False) == (answer.status, answer.is_event_stream)
        assert read(answer) == azure.served[0].body_sent

    def test_has_the_headers_that_clients_may_see(self, upstream, azure):
        """Useful headers are passed on, the organisation's limits are renamed, and all others are removed."""
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
            "x-upstream-request-id",
        } == {name for name in names if not name.startswith("x-upstream-ratelimit-")}
        assert ("3", "3000") == tuple(dict(answer.headers)[name] for name in ("retry-after", "retry-after-ms"))
        assert "x-upstream-ratelimit-remaining-tokens" in names
        assert all(name == name.lower() for name in names)

    def test_has_region_and_identifier(self, upstream, azure):
        """Region and Azure's identifier are stored in the usage record."""
        answer = send(upstream)
        read(answer)

        assert ("East US 2", dict(answer.headers)["apim-request-id"]) == (answer.region, answer.upstream_request_id)

    def test_a_stream_arrives_as_it_is_made(self, upstream, azure):
        """The first events can be read before Azure has sent the rest."""
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
        """An error status of Azure is an answer, and not a failure of the connection."""
        azure.script(Script(fault=fault))

        answer = send(upstream)

        assert answer.status >= 400
        assert b"error" in read(answer)

    def test_a_redirect_is_not_followed(self):
        """A redirect is passed on and not followed, because the key must not go to another host."""
        there = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 5\r\n\r\nthere"
        with raw_server(there) as (port, got), upstream_to(f"http://127.0.0.1:{port}") as upstream:
            answer = send(upstream)
            assert (302, b"there") == (answer.status, read(answer))

        assert 1 == len(got)

    @pytest.mark.parametrize(
        ("coding", "code"), [("gzip", gzip.compress), ("X-GZip", gzip.compress), ("deflate", zlib.compress)]
    )
    @pytest.mark.parametrize("split", [None, 1])
    def test_is_decompressed(self, upstream, azure, coding, code, split):
        """If Azure compresses a body all the same, it is decompressed, and the header says nothing of it."""
        body = b'{"choices":[]}' * 100
        azure.script(Script(raw=Raw(200, {"Content-Encoding": coding}, code(body)), split=split))

        answer = send(upstream)

        assert body == read(answer)
        assert "content-encoding" not in dict(answer.headers)

    @pytest.mark.parametrize("body", [gzip.compress(BODY)[:-1], b"\x1f\x8bnot really"], ids=["cut", "no gzip"])
    def test_a_damaged_body_is_a_break(self, upstream, azure, body):
        """Half an answer is not passed on as if it were whole."""
        azure.script(Script(raw=Raw(200, {"Content-Encoding": "gzip"}, body)))
        answer = send(upstream)

        with pytest.raises(UpstreamBroken, match="decoded"):
            read(answer)
        answer.close()

    @pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br"])
    def test_an_unknown_coding_is_a_break(self, upstream, azure, caplog, coding):
        """An answer that cannot be decoded cannot be counted; the log says why it was refused."""
        azure.script(Script(raw=Raw(200, {"Content-Encoding": coding}, b"\x0b\x02")))
        answer = send(upstream)

        with pytest.raises(UpstreamBroken, match="decoded"):
            answer.read()
        answer.close()
        assert coding in caplog.text

    def test_an_error_in_an_unknown_coding_is_passed_on(self, upstream, azure):
        """Its status helps the client, and nothing in it is counted."""
        azure.script(Script(raw=Raw(503, {"Content-Encoding": "br"}, b"\x0b\x02")))

        answer = send(upstream)

        assert (503, "br", b"\x0b\x02") == (answer.status, dict(answer.headers)["content-encoding"], read(answer))


class TestTheConnection:
    @pytest.mark.parametrize("body", [BODY, STREAM])
    def test_is_used_again(self, upstream, azure, body):
        """After an answer was read to its end, its connection is used for the next request."""
        for _ in range(3):
            read(send(upstream, body))

        assert [1, 1, 1] == [served.connection for served in azure.served]

    def test_is_not_used_again_after_a_break(self, upstream, azure):
        """If an answer was not read to its end, its connection is closed, and Azure sees that."""
        azure.script(Script(stall_after_events=2))
        answer = send(upstream, STREAM)
        answer.read()
        answer.close()
        azure.wait_for(lambda served: served[0].peer_left)

        read(send(upstream))

        assert [1, 2] == [served.connection for served in azure.served]

    def test_is_given_up_when_it_is_old(self, azure):
        """An old connection is closed even if it is busy: DNS may name another address by now."""
        timer = Stopwatch()
        with upstream_to(f"{azure.url}/openai/v1", timer=timer) as upstream:
            for _ in range(12):
                read(send(upstream))
                timer.advance(IDLE_SECONDS - 10)

        assert [1] * 6 + [2] * 6 == [served.connection for served in azure.served]

    def test_closed_by_azure_meanwhile_is_replaced(self, azure, upstream):
        """If Azure has closed an idle connection, the next request opens a new one."""
        read(send(upstream))
        port = azure.port
        azure.stop()
        with Simulator(key=KEY, port=port):
            assert 200 == status(send(upstream))

    @pytest.mark.parametrize("encrypt", [False, True], ids=["plain", "TLS"])
    def test_closed_by_azure_at_the_same_moment_is_replaced(self, certificate, monkeypatch, encrypt):
        """A request that the server did not receive is sent again, once, with the same identifier."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        monkeypatch.setattr(Connection, "is_quiet", end_has_arrived)
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
        """A request that Azure received is not sent again, because it could be billed twice."""
        read(send(upstream))
        azure.script(Script(refuse=True, reset=reset))
        cancellation = CancellationToken()

        with pytest.raises(UpstreamBroken):
            send(upstream, cancellation=cancellation)

        assert cancellation.sent
        assert [1, 1] == [served.connection for served in azure.served]

    def test_what_is_refused_in_the_middle_of_a_request_is_an_answer(self):
        """A server may refuse a large body before it has read all of it."""

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
    def test_a_refused_connection(self):
        """If the connection is refused, Azure is unreachable; nothing was sent and nothing is billed."""
        cancellation = CancellationToken()
        with (
            upstream_to(f"http://127.0.0.1:{free_port()}") as upstream,
            pytest.raises(UpstreamUnreachable) as failed,
        ):
            send(upstream, cancellation=cancellation)

        assert (5, False) == (failed.value.retry_after, cancellation.sent)

    def test_a_host_without_an_address(self):
        """If the host has no address, Azure is unreachable."""
        with upstream_to("http://azure.invalid") as upstream, pytest.raises(UpstreamUnreachable):
            send(upstream)

    def test_a_connection_that_is_not_accepted(self):
        """If the connection is not accepted in time, Azure is unreachable."""
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
        """If Azure receives the request and sends nothing, there is a time-out, and the request may be billed."""
        azure.script(Script(delay=60))
        cancellation = CancellationToken()
        with (
            upstream_to(f"{azure.url}/openai/v1", first_byte_timeout=0.2) as upstream,
            pytest.raises(UpstreamTimeout),
        ):
            send(upstream, cancellation=cancellation)

        assert cancellation.sent

    @pytest.mark.parametrize(
        ("beginning", "drip"),
        [
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        ],
        ids=["100", "103", "bytes of a field"],
    )
    def test_a_head_that_never_ends(self, beginning, drip):
        """What is not an answer does not postpone the time-out for the first byte."""
        began = time.monotonic()
        with (
            raw_server(dripping(beginning, drip)) as (port, _),
            upstream_to(f"http://127.0.0.1:{port}", first_byte_timeout=0.4) as upstream,
            pytest.raises(UpstreamTimeout),
        ):
            send(upstream)

        assert time.monotonic() - began < DRIPS / 2 * DRIP_SECONDS

    @pytest.mark.parametrize(("beginning", "drip"), [(b"0", b"0"), (b"5;", b"x")], ids=["size", "extension"])
    def test_a_chunk_that_never_begins(self, beginning, drip):
        """The lines between two chunks are no part of the body, and do not postpone the time-out."""
        began = time.monotonic()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
        with (
            raw_server(dripping(head + beginning, drip)) as (port, _),
            upstream_to(f"http://127.0.0.1:{port}", between_bytes_timeout=0.4) as upstream,
        ):
            answer = send(upstream)
            assert b"{" == answer.read()
            with closing(answer), pytest.raises(UpstreamTimeout):
                answer.read()

        assert time.monotonic() - began < DRIPS / 2 * DRIP_SECONDS

    def test_silence_in_the_middle(self, azure):
        """Between two parts of a body another time-out applies than before the first byte."""
        azure.script(Script(delay=0.4, stall_after_events=1))
        with upstream_to(f"{azure.url}/openai/v1", between_bytes_timeout=0.2) as upstream:
            answer = send(upstream, STREAM)
            with pytest.raises(UpstreamTimeout):
                read(answer)

    def test_the_first_limit_holds_again_for_the_next_request(self, azure):
        """On a connection that is used again, the time-out for the first byte applies again."""
        with upstream_to(f"{azure.url}/openai/v1", between_bytes_timeout=0.2) as upstream:
            read(send(upstream))
            azure.script(Script(delay=0.5))

            assert 200 == status(send(upstream))

        assert [1, 1] == [served.connection for served in azure.served]

    @pytest.mark.parametrize("reset", [False, True])
    def test_closed_without_an_answer(self, upstream, azure, reset):
        """If Azure closes the connection after it has read the request, the request may be billed."""
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
        """An incomplete answer is an error."""
        azure.script(Script(cut_after_bytes=20, framing=framing, reset=reset))
        with pytest.raises(UpstreamBroken):
            read(send(upstream, body))

    @pytest.mark.parametrize(
        "head",
        [
            b"",
            b"garbage\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
            b"\x16\x03\x01\x00\x00",
        ],
    )
    def test_an_invalid_head(self, head):
        """An answer that is not HTTP is an error."""
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
    def test_an_invalid_body(self, answer):
        """A body with invalid framing is an error."""
        with raw_server(answer) as (port, _), upstream_to(f"http://127.0.0.1:{port}") as upstream:
            answer = send(upstream)
            with pytest.raises(UpstreamBroken):
                read(answer)

    @pytest.mark.parametrize("fault", [{"refuse": True}, {"cut_after_bytes": 5}])
    def test_contains_no_secret(self, upstream, azure, fault, caplog):
        """Neither the client's message nor the log contains a key or a conversation."""
        azure.script(Script(**fault))
        with pytest.raises(UpstreamBroken) as failed:
            read(send(upstream))

        assert 1 == len(caplog.messages)
        assert not {KEY, "Hello"} & set(caplog.text.replace('"', " ").split())
        assert KEY not in str(failed.value)


class TestCutting:
    def test_before_the_first_byte(self, azure, upstream):
        """If the client disconnects, the thread that waits is woken, and Azure sees the connection close."""
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
        """An answer that is cancelled while it is read is not taken for a complete one, whatever its framing."""
        azure.script(Script(stall_after_events=1, framing=framing))
        cancellation = CancellationToken()
        answer = send(upstream, STREAM, cancellation=cancellation)
        answer.read()
        threading.Timer(0.05, cancellation.cut).start()

        with pytest.raises(ClientGone):
            read(answer)

    def test_before_anything_was_sent(self, azure, upstream):
        """If the client has already disconnected, nothing is sent."""
        cancellation = CancellationToken()
        cancellation.cut()

        with pytest.raises(ClientGone):
            send(upstream, cancellation=cancellation)

        assert not cancellation.sent
        assert [] == azure.served

    def test_too_late(self, azure, upstream):
        """An answer that has arrived cannot be cancelled: its connection may carry another request."""
        cancellation = CancellationToken()
        read(send(upstream, cancellation=cancellation))
        cancellation.cut()

        assert read(send(upstream))
        assert [1, 1] == [served.connection for served in azure.served]


class CutAfterTheHead(CancellationToken):
    """A request that is cancelled between its head and its body."""

    def attach(self, connection: Connection) -> None:
        super().attach(connection)
        self.cut()


def test_a_request_that_was_cut_before_its_body_was_not_sent(upstream, azure):
    """Azure does not work on a head alone, so such a request is not billed."""
    cancellation = CutAfterTheHead()

    with pytest.raises(ClientGone):
        send(upstream, cancellation=cancellation)

    assert (True, False) == (cancellation.was_cut, cancellation.sent)
    assert [] == azure.served


def test_a_failed_connection_is_detached_before_it_is_closed():
    """A connection is detached before it is closed: another thread may get its descriptor."""
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
    """A request counts as sent, whatever its body is."""
    cancellation = CancellationToken()

    send(upstream, body, cancellation=cancellation).close()

    assert cancellation.sent
    assert [body] == [one.body for one in azure.served]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate, and a TLS context that serves it."""
    pem = make_certificate(tmp_path_factory.mktemp("tls"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return pem, context


class TestTLS:
    def test_an_untrusted_certificate(self, certificate):
        """Nothing is sent to a server with an untrusted certificate, because it would get the key."""
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
        """If the port does not speak TLS, Azure is unreachable."""
        with raw_server(OK) as (port, _), upstream_to(f"https://localhost:{port}") as upstream:
            cancellation = CancellationToken()
            with pytest.raises(UpstreamUnreachable):
                send(upstream, cancellation=cancellation)
            assert not cancellation.sent

    def test_trusts_what_the_environment_trusts(self, certificate, monkeypatch):
        """REQUESTS_CA_BUNDLE works as in requests, and is read at the start."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        with raw_server(OK, tls=tls) as (port, got), upstream_to(f"https://localhost:{port}") as upstream:
            monkeypatch.delenv("REQUESTS_CA_BUNDLE")
            assert b"{}" == read(send(upstream))

        assert got[0].startswith(b"POST /chat/completions HTTP/1.1\r\n")

    def test_a_record_that_never_ends(self, certificate, monkeypatch):
        """The bytes of a TLS record do not postpone the time-out before the record is complete."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        began = time.monotonic()
        # The head of a record of application data with 0x1717 bytes (RFC 8446, section 5.1), and then these bytes.
        answer = dripping(OK[:20], b"\x17\x03\x03\x17\x17", below_tls=True)
        with (
            raw_server(answer, tls=tls) as (port, _),
            upstream_to(f"https://localhost:{port}", first_byte_timeout=0.4) as upstream,
            pytest.raises(UpstreamTimeout),
        ):
            send(upstream)

        assert time.monotonic() - began < DRIPS / 2 * DRIP_SECONDS

    def test_trusts_a_folder_of_certificates(self, certificate, monkeypatch, tmp_path):
        """A folder of certificates works as in requests, with the file names of OpenSSL."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
        with pytest.raises(ConfigurationError, match="rehash"), upstream_to("https://localhost"):
            pass

        subject = subprocess.run(
            ["openssl", "x509", "-subject_hash", "-noout", "-in", pem], check=True, capture_output=True, text=True
        )
        (tmp_path / f"{subject.stdout.strip()}.0").write_bytes(pem.read_bytes())
        with raw_server(OK, tls=tls) as (port, _), upstream_to(f"https://localhost:{port}") as upstream:
            assert b"{}" == read(send(upstream))

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_a_new_connection_resumes_the_session_of_an_earlier_one(self, certificate, monkeypatch, version):
        """A new connection resumes the earlier TLS session, with the same certificate checks."""
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
        """HTTP_PROXY is read at the start; later changes have no effect."""
        with raw_server(OK) as (port, got):
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
            with upstream_to("http://azure.invalid/openai/v1") as upstream:
                monkeypatch.delenv("HTTP_PROXY")
                assert b"{}" == read(send(upstream))

        assert got[0].startswith(b"POST http://azure.invalid/openai/v1/chat/completions HTTP/1.1\r\n")

    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    @pytest.mark.parametrize("scheme", ["http://", ""])
    def test_may_want_a_login(self, monkeypatch, variable, scheme):
        """The proxy gets the login in its URL; the scheme may be left out, as in requests."""
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
        """NO_PROXY works as in requests."""
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("NO_PROXY", exceptions.format(port=azure.port))
        with upstream_to(f"http://{host}:{azure.port}/openai/v1") as upstream:
            assert 200 == status(send(upstream))

    @pytest.mark.parametrize("refusal", [b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b"", b"garbage\r\n\r\n"])
    def test_that_open_no_tunnel(self, monkeypatch, refusal):
        """If a proxy refuses the tunnel, Azure is unreachable, and nothing is billed."""
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
        """Through a tunnel the request is encrypted and counts as sent, and only the proxy gets the login."""
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
        """A proxy with TLS is verified with the same certificates as Azure, as in requests."""
        pem, tls = certificate
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
        with raw_server(OK, tls=tls) as (port, got):
            monkeypatch.setenv("HTTP_PROXY", f"https://localhost:{port}")
            with upstream_to("http://azure.invalid/openai/v1") as upstream:
                assert b"{}" == read(send(upstream))

        assert got[0].startswith(b"POST http://azure.invalid/openai/v1/chat/completions HTTP/1.1\r\n")


def test_closing_lets_idle_connections_go(azure):
    """A closed client has no open connections."""
    with upstream_to(f"{azure.url}/openai/v1") as upstream:
        read(send(upstream))

    wait_until(lambda: "0 connections" in repr(azure))


def test_a_large_body_may_take_longer_than_connecting():
    """Sending is not limited by the time-out for the connection: a slow server gets the whole body."""
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
    """A request whose sending cancels an earlier one."""

    def __init__(self, another: CancellationToken) -> None:
        super().__init__()
        self.another = another

    def attach(self, connection: Connection) -> None:
        super().attach(connection)
        self.another.cut()


def test_cancelling_late_does_not_affect_another_request(upstream):
    """Cancelling an answer that was read to its end does not affect the next request on its connection."""
    first = CancellationToken()
    answer = send(upstream, cancellation=first)
    while answer.read():
        pass

    assert 200 == status(send(upstream, cancellation=CutsAnother(first)))
    assert first.was_cut


def test_an_answer_that_has_arrived_cannot_be_cut(upstream, azure):
    """Cancelling an answer that has arrived does not shut down its connection."""
    first = CancellationToken()
    answer = send(upstream, cancellation=first)
    while answer.read():
        pass
    first.cut()
    answer.close()

    assert 200 == status(send(upstream))
    assert [1, 1] == [served.connection for served in azure.served]


@pytest.mark.parametrize("query", [(), (("stream", "true"), ("include[]", "a b"))])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/openai/v1", "/openai/v1/responses/resp_1"),
        ("/openai/deployments/gpt?api-version=preview", "/openai/responses/resp_1?api-version=preview"),
    ],
)
def test_fetches_what_is_stored(path, expected, query):
    """With the method, the credential and the query, beside the deployments and not below one; a body never."""
    answer_bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with (
        raw_server(answer_bytes, answer_bytes) as (port, got),
        upstream_to(f"http://127.0.0.1:{port}{path}") as upstream,
    ):
        for method in ("GET", "DELETE"):
            answer = upstream.client.fetch(
                method,
                "responses/resp_1",
                query=query,
                target=target(upstream.endpoint, "gpt", key=KEY),
                request_id="req-1",
                cancellation=CancellationToken(),
            )
            assert b"{}" == read(answer)
    if query:
        expected += ("&" if "?" in expected else "?") + "stream=true&include%5B%5D=a+b"
    heads = [head.decode().lower() for head in got]
    assert [f"get {expected} http/1.1".lower(), f"delete {expected} http/1.1".lower()] == [
        head.partition("\r\n")[0] for head in heads
    ]
    assert all(f"api-key: {KEY}".lower() in head and "x-ms-client-request-id: req-1" in head for head in heads)
    assert all(head.endswith("\r\n\r\n") for head in heads)

"""The transport adapter works with sessions, hooks and responses of requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from llmgateway.azure.adapter import CancellableRequest, StreamingAdapter
from llmgateway.azure.cancellation import CancellationToken
from tests.azure.test_client import BODY, OK, raw_server
from tests.servers import free_port

TIMEOUT = (5, 5)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("http://", StreamingAdapter(between_bytes_timeout=5, connections=1))
        session.trust_env = False
        yield session


def prepared(port: int, **headers: str) -> CancellableRequest:
    request = CancellableRequest()
    request.prepare(method="POST", url=f"http://127.0.0.1:{port}/chat?a=b", headers={"X-Own": "1"})
    return request.carrying(BODY, headers, CancellationToken())


def test_sends_the_headers_as_they_are_at_that_moment(session):
    """The headers are read at the time of sending: instrumentation may have added some."""
    closed = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")  # so that the second request gets a new one
    with raw_server(closed, closed) as (port, got):
        request = prepared(port, **{"X-Copy": "2"})
        request.headers["traceparent"] = "00-abc-def-01"
        other = request.carrying(BODY, {"X-Copy": "3"}, CancellationToken())
        other.headers["X-Other"] = "4"
        for one in (request, other):
            assert b"{}" == session.send(one, stream=True, timeout=TIMEOUT).content

    first, second = (data.split(b"\r\n\r\n")[0].lower().split(b"\r\n") for data in got)
    fields = [
        b"host: 127.0.0.1:%d" % port,
        b"x-own: 1",
        b"content-length: %d" % len(BODY),
        b"traceparent: 00-abc-def-01",
    ]
    assert [b"post /chat?a=b http/1.1", *sorted([*fields, b"x-copy: 2"])] == [first[0], *sorted(first[1:])]
    assert sorted([*fields, b"x-copy: 3", b"x-other: 4"]) == sorted(second[1:])


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y", "a\rX: y"])
def test_sends_no_header_with_a_line_break_in_it(session, value):
    """A line break in a value would begin another header field."""
    with raw_server() as (port, got), pytest.raises(requests.exceptions.InvalidHeader):
        session.send(prepared(port, tracestate=value), stream=True, timeout=TIMEOUT)

    assert [] == got


def test_gives_responses_that_requests_can_use(session):
    """Hooks are called; content, text and lines can be read, whatever the content type is."""
    seen = []
    session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
    answer = head + b"a\nb\n"
    with raw_server(answer, answer) as (port, _):
        for stream in (True, False):
            request = prepared(port)
            request.hooks = session.hooks
            response = session.send(request, stream=stream, timeout=TIMEOUT)
            assert (200, request.url, request) == (response.status_code, response.url, response.request)
            assert [b"a", b"b"] == list(response.iter_lines())

    assert [200, 200] == seen


def test_fails_as_requests_does(session):
    """It raises the exceptions of requests."""
    with pytest.raises(requests.ConnectionError):
        session.send(prepared(free_port()), stream=True, timeout=TIMEOUT)
    with raw_server(lambda peer: peer.recv(1)) as (port, _), pytest.raises(requests.Timeout):
        session.send(prepared(port), stream=True, timeout=(5, 0.05))


def test_takes_no_request_that_cannot_be_cancelled(session):
    """Other requests have no cancellation token, which records whether they were sent."""
    request = requests.Request("GET", "http://127.0.0.1/").prepare()

    with pytest.raises(TypeError):
        session.send(request, timeout=TIMEOUT)


class CutJustBefore(CancellationToken):
    """A client that leaves between the decision to send and the first byte."""

    def mark_sent(self) -> None:
        super().mark_sent()
        self.cut()


def test_knows_that_a_request_that_was_cut_before_it_was_taken_was_not_sent(session):
    """It leaves no usage record: Azure cannot have it."""
    with raw_server(OK) as (port, got):
        request = prepared(port)
        request.cancellation = CutJustBefore()
        with pytest.raises(requests.ConnectionError):
            session.send(request, stream=True, timeout=TIMEOUT)

    assert (True, False) == (request.cancellation.was_cut, request.cancellation.sent)
    assert not any(got)


class Pieces:
    """An upload in pieces."""

    content_type = "multipart/form-data; boundary=B"

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.begun = 0

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __iter__(self) -> Iterator[bytes]:
        self.begun += 1
        yield from self._pieces


def test_sends_an_upload_piece_by_piece(session):
    """With its length, so that the server knows where it ends."""
    upload = Pieces(b"one", b"two" * 10_000, BODY)
    request = CancellableRequest()
    with raw_server(OK) as (port, got):
        request.prepare(method="POST", url=f"http://127.0.0.1:{port}/audio", headers={})
        carrying = request.carrying(upload, {}, CancellationToken())
        assert b"{}" == session.send(carrying, stream=True, timeout=TIMEOUT).content

    head, body = got[0].split(b"\r\n\r\n", 1)
    assert b"content-length: %d" % len(upload) in head.lower()
    assert b"".join(upload) == body

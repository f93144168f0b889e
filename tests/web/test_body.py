"""Bodies of requests, from whatever a WSGI server offers to read them from."""

from __future__ import annotations

import io

import pytest

from llmgateway.errors import BodyTooLarge, InvalidRequest
from llmgateway.web import body as body_module
from llmgateway.web.body import read_body

LARGEST = 100


class Socket(io.BytesIO):
    """Gives a few bytes at a time, and waits for ever where nothing comes any more."""

    def __init__(self, data: bytes, *, ends: bool = False) -> None:
        super().__init__(data)
        self._ends = ends

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert size > 0, "asks for more than there is"
        piece = super().read(min(size, 7))
        assert piece or self._ends, "waits for ever"
        return piece


def read(stream: io.BytesIO, **environ: object) -> bytes:
    return read_body({"wsgi.input": stream, **environ}, largest=LARGEST)


def test_reads_what_was_announced_and_no_more():
    """The next request of the connection may stand behind it."""
    stream = Socket(b"a" * 50 + b"POST / HTTP/1.1")

    assert b"a" * 50 == read(stream, CONTENT_LENGTH="50")
    assert b"POST" == stream.read(4)


def test_reads_to_the_end_where_the_server_makes_one():
    """A chunked body has no length."""
    for size in (0, 50, LARGEST):
        body = b"a" * size
        assert body == read(Socket(body, ends=True), **{"wsgi.input_terminated": True})


def test_believes_the_chunks_rather_than_a_length():
    """RFC 9112, section 6.3: with both, the length means nothing."""
    environ = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "3", "wsgi.input_terminated": True}

    assert b"a" * 50 == read(Socket(b"a" * 50, ends=True), **environ)


@pytest.mark.parametrize("environ", [{}, {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": "5"}])
def test_does_not_wait_for_an_end_that_nobody_makes(environ):
    """Without a length and without an end there is no body (PEP 3333)."""
    assert b"" == read(Socket(b"a" * 5), **environ)


@pytest.mark.parametrize("length", ["", "x", "-3", "+3", "1_0", "²", "9" * 5000])
def test_a_length_that_is_none_is_no_body(length):
    """Servers refuse it; what comes through all the same is no crash."""
    assert b"" == read(Socket(b"a" * 50), CONTENT_LENGTH=length)


def test_refuses_what_is_announced_as_too_large_without_reading():
    """One byte more than the limit is one too many."""
    stream = Socket(b"")

    with pytest.raises(BodyTooLarge):
        read(stream, CONTENT_LENGTH=str(LARGEST + 1))


def test_refuses_what_turns_out_to_be_too_large():
    """It is not cut to the limit, nor read much beyond."""
    stream = Socket(b"a" * 10 * LARGEST, ends=True)

    with pytest.raises(BodyTooLarge):
        read(stream, **{"wsgi.input_terminated": True})

    assert LARGEST + 1 == stream.tell()


@pytest.mark.parametrize("ending", [{}, {"wsgi.input_terminated": True}])
def test_refuses_what_ends_too_early(ending):
    """Half a conversation is not answered."""
    with pytest.raises(InvalidRequest):
        read(Socket(b"a" * 50, ends=True), CONTENT_LENGTH="51", **ending)


@pytest.mark.parametrize("error", [OSError("connection reset"), ValueError("I/O operation on closed file")])
def test_a_connection_that_breaks_is_no_bug(error):
    """Servers say by an exception of theirs that the client has gone."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise error

    with pytest.raises(InvalidRequest):
        read(Broken(), CONTENT_LENGTH="5")


def test_asks_for_a_piece_at_a_time(monkeypatch):
    """A length is quickly announced, and some servers take the memory before anything has come."""
    monkeypatch.setattr(body_module, "PIECE", 10)
    asked = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            asked.append(size)
            return super().read(size)

    assert b"a" * 25 == read(Stream(b"a" * 25), CONTENT_LENGTH="25")
    assert [10, 10, 5] == asked

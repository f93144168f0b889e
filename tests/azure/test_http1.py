"""HTTP/1.1 answers, whatever way the connection cuts them."""

from __future__ import annotations

import http.client
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.azure.http1 import (
    LARGEST_HEAD,
    MOST_FIELDS,
    Body,
    Chunked,
    Head,
    Malformed,
    Sized,
    UntilClosed,
    split_head,
)
from tests.parts import split

PIECES = st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"5\r\n", b"\n\n"]))
CUTS = st.lists(st.integers(0, 10_000), max_size=30)


def chunked(pieces: list[bytes], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    return (
        b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in [*pieces, b""])[:-2]
        + trailer
        + b"\r\n"
    )


def fed(body: Body, pieces: list[bytes]) -> bytes:
    return b"".join(map(body.feed, pieces))


class TestChunked:
    @given(
        PIECES,
        CUTS,
        st.sampled_from([b"", b";a=b", b' ; a="0"']),
        st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"]),
    )
    def test_any_split_gives_the_same_body(self, pieces, cuts, extension, trailer):
        """Sizes, extensions and trailers are taken out, wherever the connection cuts them."""
        body = Chunked()
        data = chunked(pieces, extension=extension, trailer=trailer)

        assert b"".join(pieces) == fed(body, split(data, cuts))
        assert (True, False) == (body.complete, body.surplus)
        body.end()

    @given(PIECES, CUTS)
    def test_agrees_with_the_standard_library(self, pieces, cuts):
        """What http.client makes of the same bytes, this makes of them, too."""
        data = chunked(pieces)

        class Wire:
            def makefile(self, _mode: str) -> io.BytesIO:
                return io.BytesIO(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)

        response = http.client.HTTPResponse(Wire())
        response.begin()

        assert response.read() == fed(Chunked(), split(data, cuts))

    @given(PIECES, st.integers(0, 10_000))
    def test_passes_on_at_once_what_has_come(self, pieces, cut):
        """Nothing of a body is held back until its chunk is complete."""
        data = chunked(pieces)
        cut %= len(data) + 1
        body = Chunked()
        alone = fed(Chunked(), [data[at : at + 1] for at in range(cut)])

        assert alone == body.feed(data[:cut])
        assert b"".join(pieces).startswith(alone)

    @given(PIECES, CUTS)
    def test_a_cut_body_is_not_complete(self, pieces, cuts):
        """One byte less, and something is missing."""
        body = Chunked()
        fed(body, split(chunked(pieces)[:-1], cuts))

        assert not body.complete
        with pytest.raises(Malformed):
            body.end()

    def test_sees_what_comes_behind_the_end(self):
        """A connection with something behind the answer cannot be used again."""
        body = Chunked()

        assert b"ab" == body.feed(chunked([b"ab"]) + b"HTTP/1.1 200 OK")
        assert (True, True) == (body.complete, body.surplus)

    @pytest.mark.parametrize(
        "data",
        [
            b"xyz\r\n",
            b"-1\r\n",
            b"+1\r\na\r\n",
            b"1_0\r\n",
            b" 1\r\na\r\n",
            b"\r\n",
            b";a\r\n",
            b"11111111111111111\r\n",
            b"2\r\nabc\r\n",
            b"2\r\nab\n1\r\n",
            b"1;" + b"a" * 5000,
            b"0\r\n" + b"a" * 5000,
        ],
    )
    def test_breaks_on_what_is_no_chunk(self, data):
        """Signs, blanks and lines without an end are no sizes, in one piece or byte by byte."""
        with pytest.raises(Malformed):
            Chunked().feed(data)
        with pytest.raises(Malformed):
            fed(Chunked(), [data[at : at + 1] for at in range(len(data))])


class TestOtherBodies:
    @given(st.binary(max_size=100), CUTS)
    def test_with_a_length_end_there(self, data, cuts):
        """No byte less, no byte more."""
        body = Sized(len(data))
        assert data == fed(body, split(data, cuts))
        assert (True, False) == (body.complete, body.surplus)
        body.end()

        body = Sized(len(data) + 1)
        fed(body, split(data, cuts))
        with pytest.raises(Malformed, match="1 bytes"):
            body.end()

        body = Sized(len(data))
        assert data == body.feed(data + b"x")
        assert (True, True) == (body.complete, body.surplus)

    def test_without_a_length_end_with_the_connection(self):
        """Only its end tells."""
        body = UntilClosed()
        assert b"abc" == fed(body, [b"a", b"bc"])
        assert not body.complete

        body.end()
        assert body.complete


class TestHead:
    def test_is_split_from_what_comes_behind(self):
        """The beginning of the body may come with it; half a head is none yet."""
        assert (b"HTTP/1.1 200 OK", b"{}") == split_head(b"HTTP/1.1 200 OK\r\n\r\n{}")
        assert split_head(b"HTTP/1.1 200 OK\r\n\r") is None

    def test_has_a_largest_size(self):
        """What goes on for ever is no head."""
        assert split_head(b"x" * (LARGEST_HEAD - 1)) is None
        with pytest.raises(Malformed):
            split_head(b"x" * LARGEST_HEAD)

    def test_gives_status_and_fields(self):
        """Names in lower case, values without the blanks around them, bytes beyond ASCII as they are."""
        head = Head.parse(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After:  3 \r\nX: a:b\r\nx: \xe4\r\nEmpty:")

        assert (429, True) == (head.status, head.keeps_alive)
        assert [("retry-after", "3"), ("x", "a:b"), ("x", "\xe4"), ("empty", "")] == head.fields
        assert ("3", "a:b, \xe4", "", "?") == (
            head.get("retry-after"),
            head.get("x"),
            head.get("y"),
            head.get("y", "?"),
        )

    @pytest.mark.parametrize(
        ("first", "fields", "keeps_alive"),
        [
            ("HTTP/1.1 200", "", True),
            ("HTTP/1.1 200 OK", "Connection: Keep-Alive", True),
            ("HTTP/1.1 200 OK", "Connection: Close", False),
            ("HTTP/1.0 200 OK", "", False),
            ("HTTP/1.0 200 OK", "Connection: keep-alive", True),
        ],
    )
    def test_says_whether_the_connection_stays(self, first, fields, keeps_alive):
        """By its version, unless it says something else."""
        assert keeps_alive is Head.parse("\r\n".join(filter(None, [first, fields])).encode()).keeps_alive

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"garbage",
            b"HTTP/1.1 abc OK",
            b"HTTP/1.1 99 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 600 X",
            b"HTTP/2 200",
            b"HTTP/1.1 200 OK\r\nno colon",
            b"HTTP/1.1 200 OK\r\n: no name",
            b"HTTP/1.1 200 OK\r\nX: y\r\n goes on",
            b"HTTP/1.1 200 OK\r\nX: y\rZ: a",
            b"HTTP/1.1 200 OK\r\nX: y\nZ: a",
            b"HTTP/1.1 200 OK\r\nX: y\n\r",
            b"HTTP/1.1 200 OK" + b"\r\nX: y" * (MOST_FIELDS + 1),
        ],
    )
    def test_that_is_none(self, data):
        """Whoever says this speaks another language."""
        with pytest.raises(Malformed):
            Head.parse(data)

    @pytest.mark.parametrize(
        ("head", "kind"),
        [
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 5", Chunked),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5", Sized),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5", Sized),
            (b"HTTP/1.1 204 No Content", Sized),
            (b"HTTP/1.1 200 OK", UntilClosed),
        ],
    )
    def test_says_where_the_body_ends(self, head, kind):
        """RFC 9112, section 6.3."""
        assert kind is type(Head.parse(head).body())

    @pytest.mark.parametrize(
        "field",
        ["Transfer-Encoding: gzip", "Content-Length: -1", "Content-Length: 5, 6", "Content-Length: 5x"],
    )
    def test_that_leaves_the_end_open(self, field):
        """Nobody could say where such a body ends."""
        with pytest.raises(Malformed):
            Head.parse(f"HTTP/1.1 200 OK\r\n{field}".encode()).body()

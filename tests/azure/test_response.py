"""Answers over HTTP/1.1, whatever way the connection cuts them."""

from __future__ import annotations

import http.client
import io

import pytest
import requests
from httptools import HttpParserError
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.azure.cancellation import CancellationToken
from llmgateway.azure.response import LARGEST_HEAD, MOST_FIELDS, ReceivedResponse
from tests.parts import split

PIECES = st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"5\r\n", b"\n\n"]))
CUTS = st.lists(st.integers(0, 10_000), max_size=30)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Arrivals:
    """A connection, and the pool that it belongs to: each read gives the next of *pieces*, then the end."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self.kept = False
        self.closed = False

    def receive(self, *, timeout: float) -> bytes:
        assert not self.closed
        return self._pieces.pop(0) if self._pieces else b""

    def shutdown(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def keep(self, connection: Arrivals) -> None:
        assert connection is self
        self.kept = True


class Answer:
    """What is made of the bytes that arrive."""

    def __init__(self, *pieces: bytes) -> None:
        self.arrivals = Arrivals(*pieces)
        self.raw = ReceivedResponse(self.arrivals, self.arrivals, CancellationToken(), 1.0)
        self.raw.receive_head(self.arrivals.receive(timeout=1), timeout=1)

    @property
    def body(self) -> bytes:
        return b"".join(iter(self.raw.read1, b""))

    @property
    def headers(self) -> dict[str, str]:
        return self.raw.headers


def chunked(pieces: list[bytes], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in [*pieces, b""])
    return chunks[:-2] + trailer + b"\r\n"


class TestAChunkedBody:
    @given(
        PIECES,
        CUTS,
        st.sampled_from([b"", b";a=b", b';a="0"']),
        st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC: d\r\n"]),
    )
    def test_is_the_same_in_any_split(self, pieces, cuts, extension, trailer):
        """Sizes, extensions and trailers are taken out, wherever the connection cuts them, and it can be used again."""
        data = CHUNKED + chunked(pieces, extension=extension, trailer=trailer)
        answer = Answer(*split(data, cuts))

        assert b"".join(pieces) == answer.body
        assert answer.arrivals.kept
        assert {"transfer-encoding": "chunked"} == answer.headers

    @given(PIECES, CUTS)
    def test_agrees_with_the_standard_library(self, pieces, cuts):
        """What http.client makes of the same bytes, this makes of them, too."""
        data = CHUNKED + chunked(pieces)

        class Connection:
            def makefile(self, _mode: str) -> io.BytesIO:
                return io.BytesIO(data)

        response = http.client.HTTPResponse(Connection())
        response.begin()

        assert response.read() == Answer(*split(data, cuts)).body

    def test_is_passed_on_as_it_arrives(self):
        """Nothing of it is held back until its chunk is complete, and what has arrived together is one piece."""
        answer = Answer(CHUNKED + b"2\r\nab\r\n3\r\ncd", b"e\r\n1\r\nf\r\n", b"0\r\n\r\n")

        assert [b"abcd", b"ef"] == list(iter(answer.raw.read1, b""))

    @given(PIECES, CUTS)
    def test_that_is_cut_is_not_whole(self, pieces, cuts):
        """One byte less, and something is missing."""
        answer = Answer(*split(CHUNKED + chunked(pieces)[:-1], cuts))

        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            answer.body  # noqa: B018 - it is read
        answer.raw.close()
        assert answer.arrivals.closed

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
            b"2\nab\r\n",
            b"0\r\nA: b\rC: d\r\n\r\n",
            b"1;" + b"a" * 200_000,
            b"0\r\nA: " + b"a" * 200_000,
            b"0\r\n" + b"A: b\r\n" * (MOST_FIELDS + 1),
        ],
    )
    def test_that_is_none(self, data):
        """Signs, blanks and half line breaks are no sizes, in one piece or byte by byte, and no line is endless."""
        pieces = (
            [data[at : at + 1] for at in range(len(data))] if len(data) < 100 else split(data, range(0, 10**6, 9999))
        )
        for answer in (Answer(CHUNKED, *pieces), Answer(CHUNKED + data[:60_000], data[60_000:])):
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                answer.body  # noqa: B018 - it is read

    def test_is_passed_on_up_to_where_it_breaks(self):
        """What was whole in front of the break is the client's."""
        answer = Answer(CHUNKED + b"2\r\nab\r\nxyz\r\n")

        assert b"ab" == answer.raw.read1()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            answer.raw.read1()


class TestOtherBodies:
    @given(st.binary(max_size=100), CUTS)
    def test_with_a_length_end_there(self, data, cuts):
        """No byte less, no byte more."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        answer = Answer(*split(head % len(data) + data, cuts))
        assert (data, True) == (answer.body, answer.arrivals.kept)

        answer = Answer(*split(head % (len(data) + 1) + data, cuts))
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            answer.body  # noqa: B018 - it is read

    @pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n"])
    def test_without_a_length_end_with_the_connection(self, fields):
        """Only its end tells, and the connection is gone with it."""
        answer = Answer(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\na", b"bc")

        assert (b"abc", False, True) == (answer.body, answer.arrivals.kept, answer.arrivals.closed)

    @pytest.mark.parametrize("status", [204, 304])
    def test_that_never_exist(self, status):
        """Some answers have none, whatever they say of its length."""
        answer = Answer(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status)

        assert (b"", True) == (answer.body, answer.arrivals.kept)

    @pytest.mark.parametrize(
        "framing", [b"Content-Length: 2\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"]
    )
    @pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ncd"])
    @pytest.mark.parametrize("together", [True, False])
    def test_with_something_behind_them(self, framing, surplus, together):
        """What was not asked for is nobody's answer, and its connection is not used again."""
        whole = b"HTTP/1.1 200 OK\r\n" + framing
        answer = Answer(whole + surplus) if together else Answer(whole[:-1], whole[-1:] + surplus)

        assert (b"ab", 200) == (answer.body, answer.raw.status)
        assert (False, True) == (answer.arrivals.kept, answer.arrivals.closed)

    def test_that_were_not_read_to_their_end(self):
        """What is still to come would be taken for the next answer."""
        answer = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        answer.raw.close()
        answer.raw.close()

        assert (False, True) == (answer.arrivals.kept, answer.arrivals.closed)


class TestTheHead:
    def test_may_come_byte_by_byte(self):
        """Wherever it is cut."""
        data = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\n{}"
        answer = Answer(*[data[at : at + 1] for at in range(len(data))])

        assert (200, {"x": "y", "content-length": "2"}, b"{}") == (answer.raw.status, answer.headers, answer.body)

    def test_gives_status_and_fields(self):
        """Names in lower case, values without the blanks around them, bytes beyond ASCII as they are."""
        head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After:  3 \r\nX: a:b\r\nx: \xe4\r\nEmpty:\r\n\r\n"

        assert {"retry-after": "3", "x": "a:b, \xe4", "empty": ""} == Answer(head).headers

    @pytest.mark.parametrize(
        ("first", "field", "keeps_alive"),
        [
            (b"HTTP/1.1 200", b"", True),
            (b"HTTP/1.1 200 OK", b"Connection: Keep-Alive\r\n", True),
            (b"HTTP/1.1 200 OK", b"Connection: Close\r\n", False),
            (b"HTTP/1.0 200 OK", b"", False),
            (b"HTTP/1.0 200 OK", b"Connection: keep-alive\r\n", True),
        ],
    )
    def test_says_whether_the_connection_stays(self, first, field, keeps_alive):
        """By its version, unless it says something else."""
        answer = Answer(first + b"\r\n" + field + b"Content-Length: 2\r\n\r\n{}")

        assert (b"{}", keeps_alive) == (answer.body, answer.arrivals.kept)

    def test_comes_behind_those_that_are_none_yet(self):
        """ "100 Continue" and its like are not the answer, and leave nothing in it."""
        early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        answer = Answer(early[:40], early[40:] + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        assert (200, {"content-length": "2"}, b"{}") == (answer.raw.status, answer.headers, answer.body)
        assert answer.arrivals.kept

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"garbage\r\n\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 99 OK\r\n\r\n",
            b"HTTP/1.1 000 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 600 X\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\r\n goes on\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\rZ: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\nZ: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\n\r\r\n\r\n",
            b"HTTP/1.1 200 OK\nX: y\n\n",
            b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MOST_FIELDS + 1) + b"\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * LARGEST_HEAD,
            b"HTTP/1.1 100 Continue\r\n\r\n" * 3000,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
        ],
    )
    def test_that_is_none(self, data):
        """Half line breaks, folded lines and ends that two readers see in different places are refused."""
        with pytest.raises(HttpParserError):
            Answer(*split(data, [60_000, 120_000]))

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (MOST_FIELDS + 1) + b"\r\n", "too many header fields"),
            (b"HTTP/1.1 600 X\r\n\r\n", "invalid status or HTTP version"),
            (b"HTTP/1.1 200 OK\r\nX: y\nZ: a\r\n\r\n", "Missing expected CR after header value"),
        ],
    )
    def test_says_what_is_wrong_with_it(self, data, reason):
        """The operator reads it in the log."""
        with pytest.raises(HttpParserError, match=reason):
            Answer(data)

"""Answers over HTTP/1.1, split anywhere by the connection."""

from __future__ import annotations

import http.client
import io
import time

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
    """A connection and its pool: each read returns the next of *pieces*, then the end."""

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
    """The answer that is parsed from the bytes."""

    def __init__(self, *pieces: bytes) -> None:
        self.arrivals = Arrivals(*pieces)
        self.raw = ReceivedResponse(self.arrivals, self.arrivals, CancellationToken(), 1.0)
        self.raw.receive_head(self.arrivals.receive(timeout=1), deadline=time.monotonic() + 10)

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
        """Sizes, extensions and trailers are removed however the body is split; the connection can be used again."""
        data = CHUNKED + chunked(pieces, extension=extension, trailer=trailer)
        answer = Answer(*split(data, cuts))

        assert b"".join(pieces) == answer.body
        assert answer.arrivals.kept
        assert {"transfer-encoding": "chunked"} == answer.headers

    @given(PIECES, CUTS)
    def test_agrees_with_the_standard_library(self, pieces, cuts):
        """The body is the same as that of http.client."""
        data = CHUNKED + chunked(pieces)

        class Connection:
            def makefile(self, _mode: str) -> io.BytesIO:
                return io.BytesIO(data)

        response = http.client.HTTPResponse(Connection())
        response.begin()

        assert response.read() == Answer(*split(data, cuts)).body

    def test_is_passed_on_as_it_arrives(self):
        """Data is passed on before its chunk is complete, and data that arrived together is one piece."""
        answer = Answer(CHUNKED + b"2\r\nab\r\n3\r\ncd", b"e\r\n1\r\nf\r\n", b"0\r\n\r\n")

        assert [b"abcd", b"ef"] == list(iter(answer.raw.read1, b""))

    @given(PIECES, CUTS)
    def test_that_is_cut_is_incomplete(self, pieces, cuts):
        """If one byte is missing, the answer is incomplete."""
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
        """Invalid sizes and line ends are refused, in one piece or byte by byte; a size line has a maximum length."""
        pieces = (
            [data[at : at + 1] for at in range(len(data))] if len(data) < 100 else split(data, range(0, 10**6, 9999))
        )
        for answer in (Answer(CHUNKED, *pieces), Answer(CHUNKED + data[:60_000], data[60_000:])):
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                answer.body  # noqa: B018 - it is read

    def test_is_passed_on_up_to_where_it_breaks(self):
        """The data before an error is passed on."""
        answer = Answer(CHUNKED + b"2\r\nab\r\nxyz\r\n")

        assert b"ab" == answer.raw.read1()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            answer.raw.read1()


class TestOtherBodies:
    @given(st.binary(max_size=100), CUTS)
    def test_with_a_length_end_there(self, data, cuts):
        """The body has exactly the given length."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        answer = Answer(*split(head % len(data) + data, cuts))
        assert (data, True) == (answer.body, answer.arrivals.kept)

        answer = Answer(*split(head % (len(data) + 1) + data, cuts))
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            answer.body  # noqa: B018 - it is read

    @pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n"])
    def test_without_a_length_end_with_the_connection(self, fields):
        """The body ends with the connection, which is not used again."""
        answer = Answer(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\na", b"bc")

        assert (b"abc", False, True) == (answer.body, answer.arrivals.kept, answer.arrivals.closed)

    @pytest.mark.parametrize("status", [204, 304])
    def test_that_never_exist(self, status):
        """Some answers have no body, even with a Content-Length."""
        answer = Answer(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status)

        assert (b"", True) == (answer.body, answer.arrivals.kept)

    @pytest.mark.parametrize(
        "framing", [b"Content-Length: 2\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"]
    )
    @pytest.mark.parametrize("surplus", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ncd"])
    @pytest.mark.parametrize("together", [True, False])
    def test_with_extra_data(self, framing, surplus, together):
        """Extra data is dropped, and the connection is not used again."""
        whole = b"HTTP/1.1 200 OK\r\n" + framing
        answer = Answer(whole + surplus) if together else Answer(whole[:-1], whole[-1:] + surplus)

        assert (b"ab", 200) == (answer.body, answer.raw.status)
        assert (False, True) == (answer.arrivals.kept, answer.arrivals.closed)

    def test_that_were_not_read_to_their_end(self):
        """The rest of the body would be taken for the next answer."""
        answer = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        answer.raw.close()
        answer.raw.close()

        assert (False, True) == (answer.arrivals.kept, answer.arrivals.closed)


class TestTheHead:
    def test_may_come_byte_by_byte(self):
        """The head may be split anywhere."""
        data = b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\n{}"
        answer = Answer(*[data[at : at + 1] for at in range(len(data))])

        assert (200, {"x": "y", "content-length": "2"}, b"{}") == (answer.raw.status, answer.headers, answer.body)

    def test_gives_status_and_fields(self):
        """Names are in lower case, values have no blanks around them, and bytes beyond ASCII are kept."""
        head = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After:  3 \r\nX: a:b\r\nx: \xe4\r\nEmpty:\r\n\r\n"

        assert {"retry-after": "3", "x": "a:b, \xe4", "empty": ""} == Answer(head).headers

    @pytest.mark.parametrize("control", sorted({*range(0x20), 0x7F} - set(b"\r\n")))
    def test_loses_control_characters(self, control):
        """None of them reaches a client, and none divides a field; only the tab may stand in a value."""
        head = b"HTTP/1.1 200 OK\r\nX: a%cZ: b\r\nY:%c \r\nContent-Length: 2\r\n\r\n{}" % (control, control)
        answer = Answer(head)

        expected = {"x": "a\tZ: b" if control == ord("\t") else "aZ: b", "y": "", "content-length": "2"}
        assert (expected, b"{}") == (answer.headers, answer.body)
        assert answer.arrivals.kept

    def test_may_have_folded_fields(self):
        """A value over several lines is one line (RFC 9112, section 5.2)."""
        head = b"HTTP/1.1 200 OK\r\nX: y\r\n goes on\r\nTransfer-Encoding:\r\n chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        answer = Answer(head)

        assert ({"x": "y goes on", "transfer-encoding": "chunked"}, b"{}") == (answer.headers, answer.body)

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
        """The HTTP version decides, unless there is a Connection header."""
        answer = Answer(first + b"\r\n" + field + b"Content-Length: 2\r\n\r\n{}")

        assert (b"{}", keeps_alive) == (answer.body, answer.arrivals.kept)

    def test_follows_interim_answers(self):
        """Answers such as "100 Continue" are skipped, with their header fields."""
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
            b"HTTP/1.1 200 OK\r\nX: y\rZ: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\nZ: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\n\r\r\n\r\n",
            b"HTTP/1.1 200 OK\nX: y\n\n",
            b"HTTP/1.1 200 OK\r\nX\x01: y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\x01\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chun\r\n ked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\x01\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: clo\x01se\r\n\r\n",
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
        """Invalid line ends and names, and ambiguous lengths, are refused."""
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
        """The log contains the reason for the operator."""
        with pytest.raises(HttpParserError, match=reason):
            Answer(data)

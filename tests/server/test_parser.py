"""What is taken for a request, and what is refused because two programs could understand it differently."""

from __future__ import annotations

import errno
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer

from llmgateway.server import parser as parser_module
from llmgateway.server.parser import (
    BARE_LINE_FEED,
    EARLY_BYTES,
    FOLDED,
    FRAMED_TWICE,
    FREE_FRAMING,
    INVALID_CHUNK,
    INVALID_FIRST_LINE,
    INVALID_HOST,
    LARGEST_HEAD,
    LONGEST_LINE,
    MOST_FIELDS,
    OUR_REASONS,
    SMALL_CHUNKS,
    TOO_MANY_FIELDS,
    UNKNOWN_CODING,
    ChunkedBody,
    RequestParser,
)
from llmgateway.server.upload import BYTES_IN_MEMORY, UploadBuffer

SIZES = Adjustments(max_request_header_size=LARGEST_HEAD, max_request_body_size=10_000_000)


def parse(*pieces: bytes) -> tuple[RequestParser, int]:
    """Return the parser of a request that arrives in *pieces*, and the number of bytes that belong to it."""
    parser, taken = RequestParser(SIZES), 0
    for piece in pieces:
        taken += parser.received(piece)
    return parser, taken


def head(*fields: bytes, first: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: x") -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *fields, b"", b""])


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (head(CHUNKED, b"Content-Length: 3"), FRAMED_TWICE),
        (head(b"Content-Length: 3", b"tRANSFER-eNCODING:chunked"), FRAMED_TWICE),
        (head(b"Content-Length: 0", CHUNKED), FRAMED_TWICE),
        (head(CHUNKED, b"Content-Length: 3", first=b"POST / HTTP/1.0"), FRAMED_TWICE),
        (head(CHUNKED, first=b"POST / HTTP/1.0"), UNKNOWN_CODING),
        (head(b"Transfer-Encoding: chunked, chunked"), UNKNOWN_CODING),
        (head(CHUNKED, CHUNKED), UNKNOWN_CODING),
        (head(b"Transfer-Encoding:"), UNKNOWN_CODING),
        (head(b"Transfer-Encoding: ,chunked"), UNKNOWN_CODING),
        (head(host=b""), INVALID_HOST),
        (head(b"Host: x"), INVALID_HOST),
        (head(b"Host: y"), INVALID_HOST),
        (head(b"Host:"), INVALID_HOST),
        (head(host=b"Host: x y"), INVALID_HOST),
        (head(host=b"Host: x/y"), INVALID_HOST),
        (head(host=b"Host: a@b"), INVALID_HOST),
        (head(b"Host: y", first=b"GET / HTTP/1.0"), INVALID_HOST),
        (head(b"X: a", b" b"), FOLDED),
        (head(b"X: a", b"\tb"), FOLDED),
        (head(b" X: a", host=b""), FOLDED),
        (b"GET / HTTP/1.1\nHost: x\n\n", BARE_LINE_FEED),
        (b"GET / HTTP/1.1\r\nHost: x\nY: z", BARE_LINE_FEED),
        (head(first=b"GET /"), INVALID_FIRST_LINE),
        (head(first=b"GET / HTTP/2.0"), INVALID_FIRST_LINE),
        (head(first=b"GET / HTTP/1.2"), INVALID_FIRST_LINE),
        (head(CHUNKED, first=b"POST / HTTP/1.2"), INVALID_FIRST_LINE),
        (head(first=b"GET /\x00 HTTP/1.1"), INVALID_FIRST_LINE),
        (head(first=b"GET /\ta HTTP/1.1"), INVALID_FIRST_LINE),
        (head(first=b"GET /\x7f HTTP/1.1"), INVALID_FIRST_LINE),
        (head(*[b"A: b"] * MOST_FIELDS), TOO_MANY_FIELDS),
        # What follows is refused by waitress, with words of its own.
        (head(b"Content-Length : 3"), None),
        (head(b"Host : y"), None),
        (head(b"X: a\x00b"), None),
        (head(b"X: a\rb"), None),
        (head(b"X: a\nb"), None),
        (head(b"X\x00: a"), None),
        (head(b": a"), None),
        (head(b"no colon"), None),
        (head(b"Content-Length: +3"), None),
        (head(b"Content-Length: -3"), None),
        (head(b"Content-Length: 3, 3"), None),
        (head(b"Content-Length: 3", b"Content-Length: 3"), None),
        (head(b"Content-Length: 3", b"Content-Length: 4"), None),
        (head(b"Content-Length: 0x3"), None),
        (head(b"Content-Length: 1_0"), None),
        (head(b"Content-Length:"), None),
        (head(b"Content-Length: " + b"9" * 5000), None),
        (head(first=b"GET /\xc3\xbc HTTP/1.1"), None),
        (head(first=b"get / HTTP/1.1"), None),
        (head(first=b"GET  / HTTP/1.1"), None),
    ],
)
@pytest.mark.parametrize("size", [None, 1], ids=["at once", "byte by byte"])
def test_an_ambiguous_head_is_refused(request_, reason, size):
    """RFC 9112: sections 2.2, 3, 3.2, 5.1, 5.2, 6.1 and 6.3. Nothing of it is run, however it arrives."""
    pieces = [request_] if size is None else [request_[at : at + size] for at in range(len(request_))]

    parser, _ = parse(*pieces)

    assert parser.completed
    assert parser.error is not None
    assert 400 == parser.error.code
    assert reason is None or reason == parser.error.body


def test_an_unknown_coding_is_not_implemented():
    """RFC 9112, section 6.1."""
    parser, _ = parse(head(b"Transfer-Encoding: gzip"))

    assert parser.error is not None
    assert 501 == parser.error.code


@pytest.mark.parametrize(
    "request_",
    [
        head(),
        head(host=b"Host:"),
        head(host=b"Host: [::1]:8080"),
        head(host=b"Host: xn--bcher-kva.example:80"),
        head(first=b"GET / HTTP/1.0", host=b""),
        head(first=b"GET http://x/ HTTP/1.1"),
        head(b"X: \x80\xff\ta", b"Y:", b"Z:  a  "),
        head(b"X: a", b"X: b"),
        head(*[b"A: b"] * (MOST_FIELDS - 3)),
    ],
)
def test_a_valid_head_is_taken(request_):
    """Also if it is unusual."""
    parser, taken = parse(request_)

    assert (True, None, len(request_)) == (parser.completed, parser.error, taken)


def test_an_expectation_does_not_change_where_a_request_ends():
    """Without a body the request is complete. The next one was parsed into the same headers."""
    request_ = head(b"Expect: 100-continue", b"AdminKey: secret")

    parser, taken = parse(request_ + head())

    assert len(request_) == taken
    assert parser.completed
    assert not parser.expect_continue  # on which waitress sends 100, and goes on with this request
    assert not parser.can_begin


@pytest.mark.parametrize("length", [b"Content-Length: 1000000", CHUNKED])
@pytest.mark.parametrize(
    ("expects", "body", "begins"),
    [
        (False, 0, False),
        (False, EARLY_BYTES - 1, False),
        (False, EARLY_BYTES, True),
        (True, 0, True),
        (True, 1, False),
        (True, EARLY_BYTES, True),
    ],
)
def test_when_a_request_can_begin_before_its_body_is_complete(length, expects, body, begins):
    """When the client waits for a word, or when enough is held of a body whose sender is not known."""
    framing = b"100000\r\n" if length == CHUNKED else b""
    parser, _ = parse(head(length, *[b"Expect: 100-continue"] * expects), (framing + b"x" * body)[:body])

    assert begins is parser.can_begin


def chunked(*pieces: bytes) -> tuple[ChunkedBody, int]:
    body, taken = ChunkedBody(OverflowableBuffer(1_000_000)), 0
    for piece in pieces:
        taken += body.received(piece)
    return body, taken


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    extension=st.sampled_from([b"", b";a=b", b' ; a="b"']),
    trailers=st.sampled_from([b"", b"X: y\r\n", b"X: y\r\nZ:\r\n"]),
)
def test_chunks_are_joined_however_they_arrive(chunks, cuts, extension, trailers):
    """What follows the body is not touched."""
    sent = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    sent += b"0\r\n" + trailers + b"\r\n"
    data = sent + b"GET / HTTP/1.1"
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})

    body, taken = chunked(*(data[start:end] for start, end in itertools.pairwise(places)))

    assert (True, None, len(sent)) == (body.completed, body.error, taken)
    assert b"".join(chunks) == body.getfile().read()
    assert sum(map(len, chunks)) == len(body)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n3\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"1_0\r\nabc\r\n0\r\n\r\n",
        b"3,3\r\nabc\r\n0\r\n\r\n",
        b"g\r\nabc\r\n0\r\n\r\n",
        b";\r\n\r\n",
        b"3;a\x00\r\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"f" * 17 + b"\r\n",
        b"3;" + b"a" * LONGEST_LINE,
        b"0\r\n" + b"X" * (LONGEST_LINE + 1),
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: a\r\n\r\n",
        b"0\r\nX: a\n\r\n",
        b"0\r\n\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("size", [None, 1], ids=["at once", "byte by byte"])
def test_a_malformed_chunk_is_refused(sent, size):
    """RFC 9112, section 7.1. The body ends there."""
    body, _ = chunked(*([sent] if size is None else [sent[at : at + 1] for at in range(len(sent))]))

    assert body.error is not None
    assert INVALID_CHUNK == body.error.body
    assert not body.completed


def test_chunks_must_not_be_mostly_framing():
    """Each one takes time of the main thread, which serves everybody."""
    body, _ = chunked(b"1\r\nx\r\n" * FREE_FRAMING)

    assert body.error is not None
    assert SMALL_CHUNKS == body.error.body


def test_many_small_chunks_are_taken():
    """Some clients send each token of a JSON generator as a chunk."""
    body, _ = chunked(b"8\r\nabcdefgh\r\n" * 20_000, b"0\r\n\r\n")

    assert body.completed
    assert 160_000 == len(body)


def test_all_reasons_are_listed():
    """What the client is told is known to quote nothing of the request."""
    constants = {value for name, value in vars(parser_module).items() if name.isupper() and isinstance(value, str)}

    assert constants == OUR_REASONS


class TestUploads:
    """Forms with files are received into a file without a name; everything else stays in memory."""

    FORM = b"Content-Type: Multipart/Form-Data; boundary=B"
    CONTENT = b"x" * (BYTES_IN_MEMORY + 1000)

    @pytest.mark.parametrize("chunked", [True, False])
    @pytest.mark.parametrize("size", [10, len(CONTENT)])
    def test_the_body_is_in_a_file(self, chunked, size):
        """Whole, and from its first byte on."""
        content = self.CONTENT[:size]
        framing = CHUNKED if chunked else b"Content-Length: %d" % size
        data = b"%x\r\n%b\r\n0\r\n\r\n" % (size, content) if chunked else content
        parser, _ = parse(head(self.FORM, framing), data[:5], data[5:])

        assert parser.completed
        assert isinstance(parser.body_rcv.getbuf(), UploadBuffer)
        assert content == parser.get_body_stream().read()
        parser.close()

    def test_conversations_stay_in_memory(self):
        """They are never written to disk."""
        parser, _ = parse(head(b"Content-Type: application/json", b"Content-Length: 3"), b"abc")

        assert isinstance(parser.body_rcv.getbuf(), OverflowableBuffer)

    def test_a_full_disk_is_told_when_the_body_is_read(self):
        """The main thread, which receives it, must not fail."""
        buffer = UploadBuffer("/")

        class Full:
            def write(self, _: bytes) -> None:
                raise OSError(errno.ENOSPC, "no space")

        buffer.close()
        buffer._file = Full()
        buffer.append(b"abc")
        buffer.append(b"def")

        with pytest.raises(OSError, match="no space"):
            buffer.getfile()

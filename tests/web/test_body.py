"""Bodies of requests, from whatever a WSGI server offers to read them from."""

from __future__ import annotations

import errno
import io
from contextlib import ExitStack

import pytest

from llmgateway.errors import BodyTooLarge, InvalidRequest, Overloaded
from llmgateway.proxy.forms import FormFormat
from llmgateway.proxy.parsing import BodyFormat
from llmgateway.web import body as body_module
from llmgateway.web.body import FORM_BYTES_IN_MEMORY, read_body, read_upload

LARGEST = 100
FORM = FormFormat(
    fields=BodyFormat("model file", example="'model' and 'file'"),
    files=("file",),
    required="file",
    inspect=lambda _file, part: part.size,
)


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


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (OSError("connection reset"), InvalidRequest, "ended before"),
        (ValueError("I/O operation on closed file"), InvalidRequest, "ended before"),
        (TimeoutError("too slow"), InvalidRequest, "too slowly"),
        (OSError(errno.EFBIG, "larger than announced"), BodyTooLarge, "larger than"),
    ],
)
def test_a_connection_that_breaks_is_no_bug(error, raised, said):
    """Servers say by an exception of theirs that the client has gone, or that the body does not come as it should."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise error

    with pytest.raises(raised, match=said):
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


class TestUploads:
    """Forms, from servers whose bodies can be read twice or not."""

    def form(self, size: int = 9) -> bytes:
        head = b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        return b"--B\r\n" + head + b"x" * size + b"\r\n--B--\r\n"

    def upload(self, stream, tmp_path, files, *, largest=10**7, **environ):
        environ = {"wsgi.input": stream, "CONTENT_TYPE": "multipart/form-data; boundary=B", **environ}
        return read_upload(environ, FORM, largest=largest, folder=tmp_path, files=files)

    @pytest.mark.parametrize("kind", [Socket, io.BytesIO])
    def test_reads_no_more_than_was_announced(self, kind, tmp_path):
        """The next request may stand behind it."""
        data = self.form()
        with ExitStack() as files:
            form = self.upload(kind(data + b"POST / HTTP/1.1"), tmp_path, files, CONTENT_LENGTH=str(len(data)))
            assert data == b"".join(form)

    def test_a_large_one_goes_into_a_file_without_a_name(self, tmp_path):
        """Nobody finds it in the folder, and it is gone afterwards."""
        data = self.form(FORM_BYTES_IN_MEMORY + 1)
        with ExitStack() as files:
            form = self.upload(io.BufferedReader(Unseekable(data)), tmp_path, files, CONTENT_LENGTH=str(len(data)))
            assert data == b"".join(form)
            assert [] == list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("length", "error", "message"), [(9**8, BodyTooLarge, "larger"), (500, InvalidRequest, "ended before its end")]
    )
    def test_refuses_what_is_too_long_or_too_short(self, length, error, message, tmp_path):
        """Before anything is parsed."""
        with ExitStack() as files, pytest.raises(error, match=message):
            self.upload(Socket(self.form(), ends=True), tmp_path, files, CONTENT_LENGTH=str(length))

    def test_a_full_disk_is_not_the_clients_fault(self, tmp_path):
        """It can try again."""

        def full() -> bool:
            raise OSError(errno.ENOSPC, "no space")

        stream = io.BytesIO()
        stream.seekable = full
        with ExitStack() as files, pytest.raises(Overloaded, match="no room"):
            self.upload(stream, tmp_path, files, CONTENT_LENGTH="5")


class Unseekable(io.RawIOBase):
    """A body that can be read once."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._data.readinto(buffer)

"""Compressed answers are decoded as they arrive, with bounded memory."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.azure.coding import MOST_AT_ONCE, CodingError, Decoder

TEXT = b"data: hello\n\n" * 5000


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


FORMS = [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)]


def decoded(coding: str, body: bytes, *, size: int = 16 * 1024) -> bytes:
    """The decoded body; it arrives in pieces of *size* bytes."""
    pieces = iter([body[start : start + size] for start in range(0, len(body), size)])
    decoder = Decoder(coding)
    parts = list(iter(lambda: decoder.read(lambda: next(pieces, b"")), b""))
    assert all(len(part) <= MOST_AT_ONCE for part in parts)
    return b"".join(parts)


@pytest.mark.parametrize(("coding", "code"), FORMS)
@pytest.mark.parametrize("size", [1, 2, 3, 1000, 10**6])
def test_decodes_any_division(coding, code, size):
    """The pieces that arrive have nothing to do with the content."""
    assert decoded(coding, code(TEXT), size=size) == TEXT


@given(st.binary(max_size=100), st.sampled_from(FORMS), st.integers(1, 50))
def test_decodes_anything(data, form, size):
    """Also an empty body, and one that consists of bytes."""
    coding, code = form
    assert decoded(coding, code(data), size=size) == data


def test_decodes_each_event_as_it_arrives():
    """A server that compresses a stream flushes after each event; none waits for the next one."""
    compressor = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    decoder = Decoder("gzip")
    for number in range(5):
        event = b"data: %d\n\n" % number
        piece = compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert event == decoder.read(iter([piece]).__next__)


@pytest.mark.parametrize(("coding", "code"), FORMS)
@pytest.mark.parametrize("size", [1, 1000])
def test_an_incomplete_body_is_an_error(coding, code, size):
    """At whatever place it was cut."""
    body = code(TEXT)
    for cut in (1, 2, 10, len(body) // 2, len(body) - 1):
        with pytest.raises(CodingError, match="incomplete"):
            decoded(coding, body[:cut], size=size)


def test_a_damaged_body_is_an_error():
    """Its checksum is checked, too."""
    body = gzip.compress(TEXT)
    with pytest.raises(CodingError):
        decoded("gzip", body[:-8] + bytes(8))
    with pytest.raises(CodingError):
        decoded("gzip", b"\x1f\x8bnot really")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_arrives_in_small_parts(coding):
    """50 MB of zeros are 50 kB on the wire. What is in memory at once is bounded."""
    code = gzip.compress if coding == "gzip" else zlib.compress

    assert 50_000_000 == len(decoded(coding, code(bytes(50_000_000))))


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_reads_all_members(size):
    """A gzip file may have several parts (RFC 1952, section 2.2); what is no member is ignored."""
    body = gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(TEXT) + b"\0\0\0"

    assert b"a" + TEXT == decoded("gzip", body, size=size)


def test_many_members_need_no_recursion():
    """A part without content has 20 bytes."""
    assert b"x" == decoded("gzip", gzip.compress(b"") * 5000 + gzip.compress(b"x"), size=10**6)


@pytest.mark.parametrize("body", [b"", TEXT, b"{}"])
def test_a_body_that_is_not_compressed(body):
    """A proxy has decompressed it and forgotten the header."""
    assert body == decoded("gzip", body)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "x" * 1000])
def test_an_unknown_coding_is_an_error(coding):
    """What cannot be decoded cannot be counted."""
    with pytest.raises(CodingError, match="Content-Encoding"):
        decoded(coding, TEXT)

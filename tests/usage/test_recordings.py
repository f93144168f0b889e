"""How long recordings are."""

from __future__ import annotations

import io
import struct

import pytest

from llmgateway.simulator.recordings import silent_mp3, silent_wav
from llmgateway.usage.recordings import LEAST_BYTES_PER_SECOND, seconds_of, stream_bytes_per_second


def seconds(data: bytes, *, before: bytes = b"head of the form") -> float | None:
    return seconds_of(io.BytesIO(before + data + b"\r\n--B--"), len(before), len(data))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def header_box(kind: bytes, rate: int, length: int) -> bytes:
    return box(kind, struct.pack(">IIIII", 0, 0, 0, rate, length))


def page(samples: int, content: bytes = b"") -> bytes:
    return b"OggS\0\0" + struct.pack("<q", samples) + b"\0" * 14 + content


def test_wav_by_its_samples():
    """Whatever its head says of the length: programs that write to a pipe do not know it."""
    wav = silent_wav(3.0)
    unknown = wav[:40] + b"\xff\xff\xff\xff" + wav[44:]

    assert pytest.approx(3.0) == seconds(wav)
    assert pytest.approx(3.0) == seconds(unknown)


def test_mp3_by_its_frames():
    """Each frame counts, also after a tag, and with something that is no frame between."""
    mp3 = silent_mp3(6.0)
    tag = b"ID3\x04\0\0" + bytes((0, 0, 2, 1)) + b"\0" * 257

    assert pytest.approx(6.0, abs=0.1) == seconds(mp3)
    assert pytest.approx(6.0, abs=0.1) == seconds(tag + mp3)
    assert pytest.approx(12.0, abs=0.2) == seconds(mp3 + b"junk" + mp3)


def test_mp4_by_its_longest_track():
    """A client that says less in the head of the film pays for its tracks."""
    movie = box(b"moov", header_box(b"mvhd", 1000, 1000) + box(b"trak", header_box(b"mdhd", 44_100, 441_000)))

    assert 10.0 == seconds(box(b"ftyp", b"M4A ") + movie + box(b"mdat", b"\0" * 999))


def test_ogg_by_its_last_page():
    """Opus always counts 48,000 samples a second, Vorbis as its head says."""
    vorbis = page(0, b"\x01vorbis" + struct.pack("<IBI", 0, 1, 16_000))

    assert 2.0 == seconds(page(0, b"OpusHead") + page(96_000))
    assert 3.0 == seconds(vorbis + page(48_000))


def test_webm_by_its_last_cluster():
    """What a browser records has no length in its head."""
    head = b"\x1aE\xdf\xa3\x80" + b"\x2a\xd7\xb1\x83" + (1_000_000).to_bytes(3)
    cluster = b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff\xe7\x82" + (20_000).to_bytes(2)
    said = head + b"\x44\x89\x88" + struct.pack(">d", 25_000.0)

    assert 20.0 <= seconds(head + cluster) <= 54.0
    assert 25.0 == seconds(said + cluster)


def test_flac_by_its_samples():
    """Its first block has rate and number of samples."""
    stream = b"fLaC\0\0\0\x22" + b"\0" * 10 + struct.pack(">Q", 16_000 << 44 | 15 << 36 | 48_000) + b"\0" * 16

    assert 3.0 == seconds(stream)


@pytest.mark.parametrize(
    "beginning", [b"OggS", b"fLaC", b"\x1aE\xdf\xa3", b"ID3", b"#!AMR", b"\0\0\0\x08ftyp", b"RIFF\0\0\0\0WAVE"]
)
def test_what_cannot_be_read_is_as_long_as_it_can_be(beginning):
    """A head that is made up makes nothing cheaper."""
    data = beginning + b"\x07" * 50_000

    assert len(data) / LEAST_BYTES_PER_SECOND * 0.98 <= seconds(data)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"Dear diary",
        b"%PDF-1.7" + b"\0" * 100,
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"{}" * 500,
        b"\0" * 99,
    ],
)
def test_other_files_are_no_recordings(data):
    """Nothing is guessed about them."""
    assert seconds(data) is None


def test_a_file_without_end_takes_no_time():
    """A chain of empty boxes, or of the smallest frames, is not followed to its end."""
    assert seconds(box(b"free", b"") * 3_000) == 24.0
    assert seconds(b"\xff\xf3\x14\xc0" + b"\0" * 20) is not None


def test_speech_as_it_comes():
    """Its bytes per second, by how it begins."""
    assert 48_000 == stream_bytes_per_second(b"\0\1" * 100)
    assert 48_000 == stream_bytes_per_second(silent_wav(1.0))
    assert 1_000 <= stream_bytes_per_second(silent_mp3(1.0)) <= 40_000
    assert stream_bytes_per_second(b"OggS" + b"\0" * 99) < 4_000

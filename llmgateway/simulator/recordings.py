"""How long a recording is, and recordings of silence."""

from __future__ import annotations

import struct

_MPEG1_LAYER3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_LAYER3 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Kilobits per second by the index in a frame's head (ISO 11172-3, ISO 13818-3)."""
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_GUESSED_BYTES_PER_SECOND = 16_000
"""Of formats whose length is not read: 128 kilobits per second."""

WAV_RATE = 24_000
"""Samples per second of spoken answers: those of the raw ``pcm`` format (OpenAI's guide to speech, 2026)."""


def duration(content: bytes) -> float | None:
    """Return the seconds of a recording; ``None`` if it is none of those that Azure reads.

    Those are flac, m4a, mp3, mp4, ogg, wav, and webm, whose length is guessed by its size.
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return _wav(content)
    if content[:4] == b"fLaC":
        return _flac(content)
    if content[:4] == b"OggS":
        return _ogg(content)
    if content[4:8] == b"ftyp":
        return _mp4(content)
    if content[:4] == b"\x1aE\xdf\xa3":
        return len(content) / _GUESSED_BYTES_PER_SECOND
    return _mp3(content)


def _wav(content: bytes) -> float | None:
    rate, place = 0, 12
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        if name == b"fmt " and size >= 16 and place + 24 <= len(content):
            rate = struct.unpack_from("<I", content, place + 16)[0]
        if name == b"data":
            return min(size, len(content) - place - 8) / rate if rate else None
        place += 8 + size + size % 2
    return None


def _flac(content: bytes) -> float | None:
    """Read the head that every file has (RFC 9639, section 8.2)."""
    if len(content) < 26:
        return None
    packed = int.from_bytes(content[18:26], "big")
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return samples / rate if rate else None


def _ogg(content: bytes) -> float | None:
    """Read the position of the last page (RFC 3533); Opus counts 48,000 samples a second, Vorbis says how many."""
    last = content.rfind(b"OggS")
    if last + 14 > len(content):
        return None
    samples = struct.unpack_from("<Q", content, last + 6)[0]
    vorbis = content.find(b"\x01vorbis")
    rate = struct.unpack_from("<I", content, vorbis + 12)[0] if 0 <= vorbis <= len(content) - 16 else 48_000
    return samples / rate if rate else None


def _mp4(content: bytes) -> float | None:
    """Read the head of the movie (ISO 14496-12)."""
    place = content.find(b"mvhd")
    if place < 0 or place + 24 > len(content):
        return None
    if content[place + 4]:
        scale, length = struct.unpack_from(">IQ", content, place + 24)
    else:
        scale, length = struct.unpack_from(">II", content, place + 16)
    return length / scale if scale else None


def _mp3(content: bytes) -> float | None:
    """Add the frames; two in a row make a file that is meant as MP3."""
    place = 0
    if content[:3] == b"ID3" and len(content) > 10:
        size = content[6:10]
        place = 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
    seconds, frames = 0.0, 0
    while (frame := _mp3_frame(content, place)) is not None:
        size_of, length = frame
        place += size_of
        seconds += length
        frames += 1
    return seconds if frames > 1 else None


def _mp3_frame(content: bytes, place: int) -> tuple[int, float] | None:
    """Return the bytes and the seconds of a frame of layer III."""
    if place + 4 > len(content) or content[place] != 0xFF or content[place + 1] & 0xE6 != 0xE2:
        return None
    version = content[place + 1] >> 3 & 3
    rate_index, sample_index = content[place + 2] >> 4, content[place + 2] >> 2 & 3
    if version == 1 or not 0 < rate_index < 15 or sample_index == 3:
        return None
    rate = _RATES[version][sample_index]
    samples = 1152 if version == 3 else 576
    kilobits = (_MPEG1_LAYER3 if version == 3 else _MPEG2_LAYER3)[rate_index]
    return samples // 8 * kilobits * 1000 // rate + (content[place + 2] >> 1 & 1), samples / rate


def silent_mp3(seconds: float) -> bytes:
    """Return frames of 24 kHz and 64 kbit/s, in which nothing is coded."""
    frame = bytes((0xFF, 0xF3, 0x84, 0xC4)).ljust(192, b"\0")
    return frame * max(2, round(seconds * WAV_RATE / 576))


def silent_pcm(seconds: float) -> bytes:
    """Return 16-bit samples without a head."""
    return bytes(2 * round(seconds * WAV_RATE))


def silent_wav(seconds: float) -> bytes:
    samples = silent_pcm(seconds)
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, WAV_RATE, 2 * WAV_RATE, 2, 16)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI", b"RIFF", len(body)) + body

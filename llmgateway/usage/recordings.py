"""Finds out how long a recording is, from the file that a client uploads.

Azure bills some models by the second, and does not say how many there were if the answer is a plain text. So the
length is read from the file: where it can be counted, from the sound itself, because a client writes the head of its
file. What cannot be read counts as long as a recording of so many bytes can be.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

LEAST_BYTES_PER_SECOND = 1000
"""Of a recording of a format that is not read. Speech at 8 kbit/s is hardly understood."""

_BEGINNING = 64 * 1024
_END = 256 * 1024

# Formats that Azure accepts, and some that programs which convert them first may send. The first four bytes, or the
# eight from the fifth on.
_KNOWN = (b"RIFF", b"RF64", b"ID3", b"fLaC", b"OggS", b"\x1aE\xdf\xa3", b"FORM", b"caff", b"#!AMR", b".snd")
_KNOWN_PICTURES = (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"0&\xb2u")  # MPEG, Windows Media
_MP4 = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")

_UNCOMPRESSED = (1, 3, 0xFFFE)
"""Formats of a WAV file (RFC 2361): whole numbers, floats, and either of these with a longer head."""

_MP3_RATES = ((44100, 48000, 32000), (22050, 24000, 16000), (11025, 12000, 8000))  # MPEG 1, 2, 2.5
_MP3_BITRATES = {  # kbit/s, by version and layer (ISO 11172-3, 13818-3)
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_OPUS_RATE = 48_000  # RFC 7845, section 4: granule positions count at this rate, whatever the input was
RAW_BYTES_PER_SECOND = 48_000.0
"""Of OpenAI's format ``pcm``: 24,000 samples of two bytes (OpenAI, "Text to speech", 2026)."""

_SPEECH_IN_OPUS, _SPEECH_IN_FLAC = 3_000.0, 12_000.0
"""Opus at 24 kbit/s; FLAC makes speech less than four times smaller."""

_MOST_FRAMES, _MOST_BOXES = 300_000, 1_000
"""How much of a file is read, so that nobody can make the gateway busy for seconds. Two hours of speech have 25 MiB and
270,000 frames."""
_LONGEST_CLUSTER = 33.0
"""Seconds: times within a cluster of WebM have 16 bits, in milliseconds."""


def seconds_of(file: BinaryIO, begins: int, size: int) -> float | None:
    """Return how long a recording is, in seconds; None if the file is none.

    Args:
        begins: Where the recording begins in *file*.
        size: Its bytes.
    """
    recording = _Recording(file, begins, size)
    beginning = recording.read(0, _BEGINNING)
    if beginning.startswith(b"RIFF") and beginning[8:12] != b"WAVE":
        return None  # an image or a film
    first_frame = _first_frame(beginning)
    if not beginning.startswith((*_KNOWN, *_KNOWN_PICTURES)) and beginning[4:8] not in _MP4 and first_frame is None:
        return None
    try:
        seconds = _read(recording, beginning, first_frame)
    except (struct.error, IndexError, ZeroDivisionError):
        seconds = None  # cut short, or made up
    return size / LEAST_BYTES_PER_SECOND if seconds is None else max(seconds, 0.0)


def stream_bytes_per_second(beginning: bytes) -> float:
    """Return how many bytes a second of speech has that begins like this, rather too few than too many.

    Without a head it is taken for raw samples, as OpenAI's format ``pcm`` has them.
    """
    if beginning.startswith(b"RIFF") and len(beginning) >= 36:
        return float(max(struct.unpack_from("<I", beginning, 28)[0], LEAST_BYTES_PER_SECOND))
    if beginning.startswith(b"OggS"):
        return _SPEECH_IN_OPUS
    if beginning.startswith(b"fLaC"):
        return _SPEECH_IN_FLAC
    place = _tag_bytes(beginning) if beginning.startswith(b"ID3") else _first_frame(beginning)
    frame = None if place is None else _frame(beginning, place)
    if frame is not None:
        return frame[0] / frame[1]
    return LEAST_BYTES_PER_SECOND if beginning.startswith(b"ID3") else RAW_BYTES_PER_SECOND


class _Recording:
    """A part of a file, read as if it were alone."""

    def __init__(self, file: BinaryIO, begins: int, size: int) -> None:
        self._file = file
        self._begins = begins
        self.size = size

    def read(self, place: int, size: int) -> bytes:
        self._file.seek(self._begins + place)
        return self._file.read(max(0, min(size, self.size - place)))

    def end(self) -> bytes:
        return self.read(max(0, self.size - _END), _END)


def _read(recording: _Recording, beginning: bytes, first_frame: int | None) -> float | None:
    """Return the length of *recording*; None if it is not known."""
    if beginning.startswith(b"RIFF"):
        return _wav(recording, beginning)
    if beginning.startswith(b"fLaC"):
        return _flac(beginning)
    if beginning.startswith(b"OggS"):
        return _ogg(recording, beginning)
    if beginning.startswith(b"\x1aE\xdf\xa3"):
        return _webm(recording, beginning)
    if beginning[4:8] in _MP4:
        return _mp4(recording)
    if beginning.startswith(b"ID3"):
        return _mp3(recording, _tag_bytes(beginning))
    return None if first_frame is None else _mp3(recording, first_frame)


def _wav(recording: _Recording, beginning: bytes) -> float | None:
    place, bytes_per_second = 12, 0.0
    while place + 8 <= len(beginning):
        kind, length = struct.unpack_from("<4sI", beginning, place)
        if kind == b"fmt ":
            form, channels, rate, named, _, bits = struct.unpack_from("<HHIIHH", beginning, place + 8)
            bytes_per_second = rate * channels * bits / 8 if form in _UNCOMPRESSED else named
        elif kind == b"data" and bytes_per_second:
            # Programs that write to a pipe do not know the length, and write 0 or the largest number. So the bytes
            # that are there count.
            return (recording.size - place - 8) / max(bytes_per_second, LEAST_BYTES_PER_SECOND)
        place += 8 + length + length % 2
    return None


def _flac(beginning: bytes) -> float | None:
    (packed,) = struct.unpack_from(">Q", beginning, 18)  # RFC 9639, section 8.2
    samples, rate = packed & (2**36 - 1), packed >> 44
    return samples / rate if samples else None


def _ogg(recording: _Recording, beginning: bytes) -> float | None:
    vorbis = beginning.find(b"\x01vorbis", 0, 300)
    rate = struct.unpack_from("<I", beginning, vorbis + 12)[0] if vorbis >= 0 else _OPUS_RATE
    if vorbis < 0 and b"OpusHead" not in beginning[:300]:
        return None
    end = recording.end()
    last = end.rfind(b"OggS")
    (samples,) = struct.unpack_from("<q", end, last + 6)
    return float(samples / rate) if samples > 0 else None


def _webm(recording: _Recording, beginning: bytes) -> float | None:
    scale = _element(beginning, b"\x2a\xd7\xb1")  # TimestampScale, in nanoseconds
    unit = (int.from_bytes(scale) if scale else 1_000_000) / 1_000_000_000
    end = recording.end()
    cluster = end.rfind(b"\x1f\x43\xb6\x75")
    began = _element(end[cluster : cluster + 64], b"\xe7") if cluster >= 0 else None  # Timestamp of the last cluster
    said = _element(beginning, b"\x44\x89")  # Duration, a float; what a browser records has none
    length = struct.unpack(">f" if len(said) == 4 else ">d", said)[0] * unit if said else None
    if began is not None:
        counted = int.from_bytes(began) * unit
        return counted + _LONGEST_CLUSTER if length is None else max(length, counted)
    return length


def _element(data: bytes, name: bytes) -> bytes | None:
    """Return the content of the first small element *name* of EBML (RFC 8794)."""
    place = data.find(name)
    if place < 0 or place + len(name) >= len(data):
        return None
    size = data[place + len(name)]
    if not 0x81 <= size <= 0x88:
        return None
    begins = place + len(name) + 1
    return data[begins : begins + (size & 0x7F)]


def _mp4(recording: _Recording) -> float | None:
    """Return the longest of what the head of the film and of its tracks say (ISO 14496-12)."""
    place = 0
    for _ in range(_MOST_BOXES):
        length, kind = struct.unpack(">I4s", recording.read(place, 8))
        if length == 1:
            (length,) = struct.unpack(">Q", recording.read(place + 8, 8))
        if kind == b"moov":
            movie = recording.read(place, min(length or recording.size, 4 * 1024 * 1024))
            lengths = [_box_seconds(movie, found.end()) for found in re.finditer(b"mvhd|mdhd", movie)]
            return max(lengths, default=0.0) or None
        if length < 8:
            return None
        place += length
    return None


def _box_seconds(movie: bytes, place: int) -> float:
    if movie[place] == 1:
        rate, length = struct.unpack_from(">IQ", movie, place + 20)
    else:
        rate, length = struct.unpack_from(">II", movie, place + 12)
    return float(length / rate)


def _tag_bytes(beginning: bytes) -> int:
    """Return the bytes of the ID3 tag before the sound (id3.org, ID3v2, section 6.2)."""
    size = 0
    for byte in beginning[6:10]:
        size = size << 7 | byte & 0x7F
    return size + 10


def _first_frame(beginning: bytes) -> int | None:
    """Return where the first two frames of an MP3, or of AAC in ADTS, follow each other; None if nowhere."""
    for found in re.finditer(rb"\xff[\xe2-\xff]", beginning[: len(beginning) // 2 or None]):
        place = found.start()
        frame = _frame(beginning, place)
        if frame is not None:
            after = place + frame[0]
            if after >= len(beginning) - 4 or _frame(beginning, after) is not None:
                return place
    return None


def _mp3(recording: _Recording, begins: int) -> float | None:
    """Count all frames: each may have another bitrate. A file of 25 MiB has about 60,000."""
    seconds, place, missed, frames = 0.0, begins, 0, 0
    data, data_at = b"", 0
    while place + 4 <= recording.size:
        if not data_at <= place <= data_at + len(data) - 8:
            data, data_at = recording.read(place, _END), place
            if len(data) < 8:
                break
        frame = _frame(data, place - data_at)
        if frame is None:
            missed += 1
            place += 1
            if missed > _BEGINNING:
                # What is not understood counts as long as it can be.
                return seconds + (recording.size - place + missed) / LEAST_BYTES_PER_SECOND
            continue
        seconds += frame[1]
        place += frame[0]
        frames += 1
        if frames == _MOST_FRAMES:
            return seconds + (recording.size - place) / LEAST_BYTES_PER_SECOND
    return seconds or None


def _frame(data: bytes, place: int) -> tuple[int, float] | None:
    """Return the bytes and the seconds of the frame at *place*; None if there is none."""
    first, second, third = data[place : place + 3] if place + 6 <= len(data) else (0, 0, 0)
    if first != 0xFF or second & 0xE0 != 0xE0:
        return None
    if second & 0xF6 == 0xF0:
        return _adts_frame(data, place)
    version, layer = {3: 1, 2: 2, 0: 3}.get(second >> 3 & 3), 4 - (second >> 1 & 3)
    bitrate, rate = third >> 4, third >> 2 & 3
    if version is None or layer == 4 or not 1 <= bitrate <= 14 or rate == 3:
        return None
    bits = _MP3_BITRATES[min(version, 2), layer][bitrate - 1] * 1000
    samples_per_second, padding = _MP3_RATES[version - 1][rate], third >> 1 & 1
    if layer == 1:
        return (12 * bits // samples_per_second + padding) * 4, 384 / samples_per_second
    samples = 576 if layer == 3 and version > 1 else 1152
    return samples // 8 * bits // samples_per_second + padding, samples / samples_per_second


_ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


def _adts_frame(data: bytes, place: int) -> tuple[int, float] | None:
    third, fourth, fifth, sixth = data[place + 2 : place + 6]  # ISO 13818-7, section 6.2
    length, rate = (fourth & 3) << 11 | fifth << 3 | sixth >> 5, third >> 2 & 15
    return (length, 1024 / _ADTS_RATES[rate]) if length > 7 and rate < len(_ADTS_RATES) else None

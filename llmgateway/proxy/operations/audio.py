"""Audio: recordings that are written down or translated, and texts that are spoken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from ...errors import InvalidRequest
from ...usage.answers import name_of
from ...usage.booking import Asked
from ...usage.counts import parse_usage
from ...usage.media_meter import MediaMeter
from ...usage.meter import Meter
from ...usage.recordings import seconds_of, stream_bytes_per_second
from ...usage.seen import Seen
from ...usage.tokens import LARGEST_COUNT, text_tokens
from ..dialect import Dialect
from ..forms import FormFormat, Part
from ..parsing import BodyFormat
from ..passing import AnswerReader, DocumentReader
from .chat import error_event
from .operation import Operation

HEARD_TOKENS_PER_SECOND = 10
"""Tokens of a second of a recording (OpenAI, pricing of audio, 2025)."""

_WRITTEN_TOKENS_PER_SECOND, _WRITTEN_TOKENS = 8, 100
"""The most tokens of a transcript: of a second, and besides. Fast speech has four words in a second, and subtitles have
times between them."""

_SPOKEN_TOKENS_PER_SECOND = 20
"""Tokens of a second of speech that a model makes (OpenAI, pricing of audio, 2025)."""

_SPOKEN_TOKENS_PER_BYTE, _SPOKEN_TOKENS = 2, 100
"""The most tokens of speech: of a byte of its text, and besides. Slow speech has ten letters in a second."""

_BASE64_FOR_SPOKEN_TOKEN = 200
"""The base64 characters of one token of speech, at least: Opus with 24 kbit/s."""

_LONGEST_SECONDS = 1_000_000

_RECORDING = BodyFormat("model file language prompt response_format temperature stream", example="'model' and 'file'")
_SPEECH = BodyFormat(
    "model input voice instructions response_format speed stream_format", example="'model', 'input' and 'voice'"
)


def _inspect(file: BinaryIO, part: Part) -> float:
    """Return the length of a recording in seconds."""
    seconds = seconds_of(file, part.begins, part.size)
    if seconds is None:
        raise InvalidRequest(
            "'file' is no recording of a known format. Send a file of the type flac, m4a, mp3, mp4, ogg, wav or webm.",
            param="file",
        )
    return min(seconds, _LONGEST_SECONDS)


def _asked_of_recording(document: dict[str, Any], _body: bytes) -> Asked:
    (seconds,) = document["file"]
    return Asked(
        most_tokens=math.ceil(seconds * _WRITTEN_TOKENS_PER_SECOND) + _WRITTEN_TOKENS,
        audio_prompt_tokens=math.ceil(seconds * HEARD_TOKENS_PER_SECOND),
        audio_seconds=seconds,
        may_think=False,
    )


def _tokens_of_recording(document: dict[str, Any], _prompt: str, _models: Sequence[str | None]) -> int:
    (seconds,) = document["file"]
    hint = document.get("prompt", "").encode("utf-8", "surrogatepass")
    heard: int = math.ceil(seconds * HEARD_TOKENS_PER_SECOND)
    return heard + (text_tokens(hint, quickly=True) if hint else 0)


def _see_transcript(document: dict[str, Any] | None, body: bytes) -> Seen:
    if document is None:
        return Seen(completion_tokens=text_tokens(body, quickly=True) if body else 0)
    seen = Seen(model=name_of(document, "model"), usage=parse_usage(document), audio_seconds=_seconds(document))
    text = document.get("text")
    if seen.usage is None and isinstance(text, str):
        seen.completion_tokens = text_tokens(text.encode("utf-8", "surrogatepass"), quickly=True)
    return seen


def _seconds(document: dict[str, Any]) -> float | None:
    """Return how long the recording was, as Azure has counted it; None if it says nothing."""
    usage = document.get("usage")
    said = usage.get("seconds") if isinstance(usage, dict) else document.get("duration")
    if not isinstance(said, int | float) or isinstance(said, bool):
        return None
    return float(said) if 0 < said <= _LONGEST_SECONDS else None


def _see_transcript_event(seen: Seen, document: dict[str, Any], _size: int) -> None:
    seen.usage = parse_usage(document) or seen.usage
    seen.audio_seconds = _seconds(document) or seen.audio_seconds
    text = document.get("delta")
    if isinstance(text, str) and text:
        seen.completion_tokens += text_tokens(text.encode("utf-8", "surrogatepass"))


def _transcript_meter(_dialect: Dialect, _withhold_usage: bool, _asked: Asked) -> Meter:
    return MediaMeter(_see_transcript_event)


def _check_speech(document: dict[str, Any]) -> None:
    text = document.get("input")
    if text is None:
        raise InvalidRequest("'input' is missing: send the text to speak.", param="input")
    if not isinstance(text, str):
        raise InvalidRequest("'input' must be a text.", param="input")
    if not text:
        raise InvalidRequest("'input' is empty: send the text to speak.", param="input")


def _asked_of_speech(document: dict[str, Any], _body: bytes) -> Asked:
    text, speed = document["input"], document.get("speed")
    slower = 1 / speed if isinstance(speed, int | float) and 0.1 < speed < 1 else 1.0
    size = len(text.encode("utf-8", "surrogatepass"))
    return Asked(
        most_tokens=min(math.ceil(size * _SPOKEN_TOKENS_PER_BYTE * slower) + _SPOKEN_TOKENS, LARGEST_COUNT),
        speaks=True,
        characters=len(text),
        may_think=False,
    )


def _tokens_of_speech(document: dict[str, Any], _prompt: str, _models: Sequence[str | None]) -> int:
    texts = [text for name in ("input", "instructions") if isinstance(text := document.get(name), str)]
    return text_tokens("\n".join(texts).encode("utf-8", "surrogatepass"), quickly=True)


def _is_streamed(document: dict[str, Any]) -> bool:
    return bool(document.get("stream_format") == "sse")


class SpeechReader:
    """Counts speech by its length. See :class:`~llmgateway.proxy.passing.AnswerReader`."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._bytes = 0
        self._bytes_per_second: float | None = None

    def feed(self, data: bytes) -> None:
        if self._bytes_per_second is None:
            self._bytes_per_second = stream_bytes_per_second(data)
        self._bytes += len(data)
        self.seen.completion_tokens = math.ceil(self._bytes / self._bytes_per_second * _SPOKEN_TOKENS_PER_SECOND)

    def end(self) -> None:
        pass


def _speech_reader(_asked: Asked) -> AnswerReader:
    return SpeechReader()


def _see_speech(document: dict[str, Any], _body: bytes) -> Seen:
    usage = parse_usage(document)
    if usage is not None:
        usage = replace(usage, audio_completion_tokens=usage.completion_tokens)
    return Seen(model=name_of(document, "model"), usage=usage)


def _see_speech_event(seen: Seen, document: dict[str, Any], size: int) -> None:
    said = _see_speech(document, b"")
    seen.usage = said.usage or seen.usage
    if said.usage is None and size > _BASE64_FOR_SPOKEN_TOKEN:
        seen.completion_tokens += size // _BASE64_FOR_SPOKEN_TOKEN


def _speech_meter(_dialect: Dialect, _withhold_usage: bool, _asked: Asked) -> Meter:
    return MediaMeter(_see_speech_event)


_RECORDING_FORM = FormFormat(fields=_RECORDING, files=("file",), required="file", inspect=_inspect)


def _of_recording(name: str) -> Operation:
    return Operation(
        name=name,
        body_format=_RECORDING,
        form=_RECORDING_FORM,
        check=lambda _document: None,
        asked=_asked_of_recording,
        with_prompt=None,
        prompt_tokens=_tokens_of_recording,
        may_add_usage=lambda _document: False,
        meter=_transcript_meter,
        see=_see_transcript,
        reader=lambda _asked: DocumentReader(_see_transcript),
        error_event=error_event,
        accept="*/*",
    )


TRANSCRIPTIONS = _of_recording("audio/transcriptions")
TRANSLATIONS = _of_recording("audio/translations")
SPEECH = Operation(
    name="audio/speech",
    body_format=_SPEECH,
    check=_check_speech,
    asked=_asked_of_speech,
    with_prompt=None,
    prompt_tokens=_tokens_of_speech,
    may_add_usage=lambda _document: False,
    meter=_speech_meter,
    see=_see_speech,
    is_streamed=_is_streamed,
    reader=_speech_reader,
    held_bytes=0,
    error_event=error_event,
    accept="*/*",
)

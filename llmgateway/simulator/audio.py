"""Listens and speaks: transcriptions, translations, speech.

The transcript can be predicted: :func:`transcript` of the recording's length, unless the script has another text.
Speech is silence. Forms: OpenAI's client 3.57 and Microsoft's pages on audio (2026); no traffic was recorded.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from . import tokens
from .completions import repeated
from .faults import error, invalid
from .messages import Request
from .multipart import File, parse_form
from .operations import (
    Asked,
    Made,
    Operation,
    Refused,
    choice,
    event,
    made_stream,
    missing,
    parse_json,
    prompt_usage,
    text,
    with_usage,
)
from .production import Work
from .recordings import duration, silent_mp3, silent_pcm, silent_wav

MOST_BYTES = 25 * 1024 * 1024
"""Of a recording (Microsoft's page on whisper, 2026)."""
MOST_CHARACTERS = 4096
"""Of a text to speak."""

_HEARD_PER_SECOND = 10
_SPOKEN_PER_SECOND = 20
"""Audio tokens: one for 100 ms that are heard, one for 50 ms that are spoken (OpenAI's guide to costs, 2026)."""
_CHARACTERS_PER_SECOND = 15
"""How fast the simulated voice speaks."""
_CHUNK = 4096
"""Bytes of audio in one event, or in one chunk."""

_TEXT_FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
_SPEECH_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_SUPPORTED = "['flac', 'm4a', 'mp3', 'mp4', 'mpeg', 'mpga', 'oga', 'ogg', 'wav', 'webm']"


def transcript(seconds: float) -> str:
    """Return what the simulator hears in a recording of so many seconds."""
    return f"This is a recording of {seconds:.1f} seconds."


def _parse(request: Request) -> dict[str, Any]:
    form = parse_form(request.headers.get("content-type", ""), request.body)
    if form is None:
        raise Refused(invalid("Could not parse multipart form."))
    return {**{name: values[0] for name, values in form.fields.items()}, **form.files}


def _listen(asked: Asked) -> Made:
    document, script = asked.document, asked.script
    seconds = _recording(document)
    whispers = "translation" in asked.deployment.abilities
    form = choice(document, "response_format", _TEXT_FORMATS if whispers else ("json", "text"), "json")
    said = transcript(seconds) if script.answer is None else script.answer
    pieces = tokens.pieces(said)
    if script.tokens is not None:
        pieces = repeated(pieces, script.tokens)
        said = "".join(pieces)
    streams = str(document.get("stream", "")).lower() == "true" and not whispers
    work = None if whispers else _heard(document, seconds, len(pieces), asked)
    units: dict[str, Any] = {"audio_seconds": seconds if whispers else 0.0, "stream": streams}
    if work is None:
        usage: dict[str, Any] = {"type": "duration", "seconds": round(seconds)}
    else:
        usage = _usage(work)
    if streams and work is not None:
        return _streamed(pieces, usage, work, asked, units)
    body, kind = _written(said, form, seconds, usage, asked)
    return Made(
        parts=[body], content_type=kind, work=work, positions=[work.length] if work is not None else [], units=units
    )


def _recording(document: Mapping[str, Any]) -> float:
    """Return the seconds of the file."""
    files = document.get("file")
    if not isinstance(files, list):
        raise missing("file")
    file: File = files[0]
    if len(file.content) > MOST_BYTES:
        message = f"Maximum content size limit ({MOST_BYTES}) exceeded ({len(file.content)} bytes read)"
        raise Refused(error(413, message=message, type="invalid_request_error", param=None, code=None))
    ending = file.name.rpartition(".")[2].lower()
    if "." not in file.name or f"'{ending}'" not in _SUPPORTED:
        # OpenAI's text; Azure has said "Unrecognized file format" with status 424 and 400 (azure-sdk-for-net#40780,
        # vercel/ai#8013).
        raise Refused(invalid(f"Unrecognized file format. Supported formats: {_SUPPORTED}"))
    seconds = duration(file.content)
    if seconds is None:
        # open-webui#13636
        raise Refused(invalid("Audio file might be corrupted or unsupported", param="file", code="invalid_value"))
    return seconds


def _heard(document: Mapping[str, Any], seconds: float, written: int, asked: Asked) -> Work:
    hint = document.get("prompt")
    heard = asked.script.audio_prompt_tokens or round(seconds * _HEARD_PER_SECOND)
    told = tokens.count(hint) if isinstance(hint, str) else 0
    usage = replace(prompt_usage(heard + told, asked.script), audio_prompt_tokens=heard)
    return Work(prompt=usage, written=(written,), rate=asked.script.tokens_per_second)


def _usage(work: Work) -> dict[str, Any]:
    usage = work.whole
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "input_token_details": {
            "audio_tokens": usage.audio_prompt_tokens,
            "text_tokens": usage.prompt_tokens - usage.audio_prompt_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _written(said: str, form: str, seconds: float, usage: dict[str, Any], asked: Asked) -> tuple[bytes, str]:
    """Return the body and its type. Only JSON contains a usage, and that of a translation does not."""
    plain = "text/plain; charset=utf-8"
    match form:
        case "text":
            return said.encode() + b"\n", plain
        case "srt":
            return f"1\n{_clock(0, ',')} --> {_clock(seconds, ',')}\n{said}\n\n".encode(), plain
        case "vtt":
            return f"WEBVTT\n\n{_clock(0, '.')} --> {_clock(seconds, '.')}\n{said}\n\n".encode(), plain
    told = {} if asked.document.get("task") == "translate" else with_usage(usage, asked.script)
    if form == "json":
        return orjson.dumps({"text": said, **told}), "application/json"
    verbose = {
        "task": asked.document.get("task", "transcribe"),
        "language": "english",
        "duration": seconds,
        "text": said,
        "segments": [_segment(said, seconds)],
        **told,
    }
    return orjson.dumps(verbose), "application/json"


def _segment(said: str, seconds: float) -> dict[str, Any]:
    return {
        "id": 0,
        "seek": 0,
        "start": 0.0,
        "end": seconds,
        "text": said,
        "tokens": list(range(tokens.count(said))),
        "temperature": 0.0,
        "avg_logprob": -0.3,
        "compression_ratio": 1.0,
        "no_speech_prob": 0.01,
    }


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _streamed(pieces: list[str], usage: dict[str, Any], work: Work, asked: Asked, units: Mapping[str, Any]) -> Made:
    parts = [event({"type": "transcript.text.delta", "delta": piece}) for piece in pieces]
    done = {"type": "transcript.text.done", "text": "".join(pieces), **with_usage(usage, asked.script)}
    positions = [*range(1, len(pieces) + 1), work.length]
    return made_stream([*parts, event(done)], positions, work, asked.script, units=units)


def _speak(asked: Asked) -> Made:
    document, script = asked.document, asked.script
    said = text(document, "input")
    if len(said) > MOST_CHARACTERS:
        raise Refused(
            invalid(
                f"[{{'type': 'string_too_long', 'loc': ('body', 'input'), 'msg': 'String should have at most "
                f"{MOST_CHARACTERS} characters', 'ctx': {{'max_length': {MOST_CHARACTERS}}}}}]"
            )
        )
    if not isinstance(document.get("voice"), str | dict):
        raise missing("voice")
    form = choice(document, "response_format", tuple(_SPEECH_TYPES), "mp3")
    counts_tokens = not asked.deployment.family.startswith("tts")
    sse = choice(document, "stream_format", ("audio", "sse") if counts_tokens else ("audio",), "audio") == "sse"
    seconds = len(said) / _CHARACTERS_PER_SECOND
    sound = _sound(form, seconds)
    chunks = [sound[place : place + _CHUNK] for place in range(0, len(sound), _CHUNK)]
    units: dict[str, Any] = {"characters": 0 if counts_tokens else len(said), "stream": sse}
    work = None
    positions: list[int] = []
    if counts_tokens:
        spoken = script.audio_completion_tokens or max(1, round(seconds * _SPOKEN_PER_SECOND))
        instructions = document.get("instructions")
        asked_for = tokens.count(said) + (tokens.count(instructions) if isinstance(instructions, str) else 0)
        work = Work(
            prompt=prompt_usage(asked_for, script), written=(spoken,), audio=spoken, rate=script.tokens_per_second
        )
        positions = [spoken * (rank + 1) // len(chunks) for rank in range(len(chunks))]
    if not sse or work is None:
        return Made(
            parts=chunks, content_type=_SPEECH_TYPES[form], stream=True, work=work, positions=positions, units=units
        )
    parts = [event({"type": "speech.audio.delta", "audio": base64.b64encode(chunk).decode()}) for chunk in chunks]
    whole = work.whole
    usage = {
        "input_tokens": whole.prompt_tokens,
        "output_tokens": whole.completion_tokens,
        "total_tokens": whole.total_tokens,
    }
    done = event({"type": "speech.audio.done", **with_usage(usage, script)})
    return made_stream([*parts, done], [*positions, work.length], work, script, units=units)


def _sound(form: str, seconds: float) -> bytes:
    """Return silence. Only mp3, wav and pcm can be played; the others are the bytes of a wav under their own type."""
    match form:
        case "mp3":
            return silent_mp3(seconds)
        case "pcm":
            return silent_pcm(seconds)
    return silent_wav(seconds)


def _hint(document: Mapping[str, Any]) -> str:
    hint = document.get("prompt")
    return hint if isinstance(hint, str) else ""


def _input(document: Mapping[str, Any]) -> str:
    said = document.get("input")
    return said if isinstance(said, str) else ""


def _translate(asked: Asked) -> Made:
    return _listen(replace(asked, document={**asked.document, "task": "translate"}))


TRANSCRIPTIONS = Operation(
    path="audio/transcriptions",
    name="Transcriptions_Create",
    verb="audioTranscriptions",
    ability="transcription",
    parse=_parse,
    characters=lambda document: len(_hint(document)),
    prompt_tokens=lambda document: tokens.count(_hint(document)),
    answer=_listen,
)
TRANSLATIONS = Operation(
    path="audio/translations",
    name="Translations_Create",
    verb="audioTranslations",
    ability="translation",
    parse=_parse,
    characters=lambda document: len(_hint(document)),
    prompt_tokens=lambda document: tokens.count(_hint(document)),
    answer=_translate,
)
SPEECH = Operation(
    path="audio/speech",
    name="Speech_Create",
    verb="audioSpeech",
    ability="speech",
    parse=parse_json,
    characters=lambda document: len(_input(document)),
    prompt_tokens=lambda document: tokens.count(_input(document)),
    answer=_speak,
)

"""Audio: what is checked and counted."""

from __future__ import annotations

import json

import pytest

from llmgateway.errors import InvalidRequest
from llmgateway.proxy.dialect import Dialect
from llmgateway.proxy.operations.audio import SPEECH, TRANSCRIPTIONS
from llmgateway.simulator.recordings import silent_wav
from tests.proxy.requests import prepared

TEN_SECONDS = {"model": "whisper", "file": [10.0]}


def seen(body: bytes):
    reader = TRANSCRIPTIONS.reader(TRANSCRIPTIONS.asked(TEN_SECONDS, b""))
    reader.feed(body)
    reader.end()
    return reader.seen


def speech(**fields: object):
    body = json.dumps({"model": "tts", "input": "Hello", "voice": "alloy"} | fields).encode()
    return prepared(body, operation=SPEECH, prompt="Be kind.")


def test_a_recording_counts_by_its_length():
    """Ten tokens a second, and so many seconds."""
    asked = TRANSCRIPTIONS.asked(TEN_SECONDS, b"")

    assert (10.0, 100) == (asked.audio_seconds, asked.audio_prompt_tokens)
    assert 100 == TRANSCRIPTIONS.prompt_tokens(TEN_SECONDS, "", ())
    assert 102 == TRANSCRIPTIONS.prompt_tokens(TEN_SECONDS | {"prompt": "Ada Lovelace"}, "", ())


def test_reads_tokens_of_a_transcript():
    """Those of audio and of text apart."""
    usage = {
        "type": "tokens",
        "input_tokens": 14,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
        "output_tokens": 45,
        "total_tokens": 59,
    }
    read = seen(json.dumps({"text": "Hi", "usage": usage}).encode()).usage

    assert (14, 10, 45) == (read.prompt_tokens, read.audio_prompt_tokens, read.completion_tokens)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (b'{"text": "Hello", "usage": {"type": "duration", "seconds": 9}}', 9.0),
        (b'{"text": "Hello", "duration": 9.5}', 9.5),
        (b'{"text": "Hello"}', None),
        (b'{"text": "Hello", "usage": {"type": "duration", "seconds": 0}}', None),
        (b'{"text": "Hello", "usage": {"type": "duration", "seconds": true}}', None),
        (b'{"text": "Hello", "usage": {"type": "duration", "seconds": -5}}', None),
        (b"1\n00:00:00,000 --> 00:00:03,000\nHello\n", None),
    ],
)
def test_reads_how_long_azure_has_found_it(body, seconds):
    """And estimates the tokens of the text."""
    read = seen(body)

    assert (None, seconds) == (read.usage, read.audio_seconds)
    assert read.completion_tokens >= 1


def test_a_stream_has_its_count_at_the_end():
    """Until then its text is counted."""
    meter = TRANSCRIPTIONS.meter(Dialect.OPENAI, False, TRANSCRIPTIONS.asked(TEN_SECONDS, b""))
    meter.feed(b'data: {"type": "transcript.text.delta", "delta": "Hello"}\n\n')
    assert 1 == meter.seen.completion_tokens
    meter.feed(b'data: {"type": "transcript.text.done", "usage": {"type": "duration", "seconds": 9}}\n\n')

    assert (True, 9.0) == (meter.done, meter.seen.audio_seconds)


def test_speech_counts_its_characters():
    """Not its bytes."""
    assert 5 == speech(input="Grüße").asked.characters


def test_slow_speech_has_more_tokens():
    """A reservation must not be too low."""
    assert speech(input="x" * 500, speed=0.25).asked.most_tokens > 3 * speech(input="x" * 500).asked.most_tokens


def test_sound_counts_by_its_length():
    """Twenty tokens a second."""
    reader = SPEECH.reader(speech().asked)
    sound = silent_wav(3.0)
    reader.feed(sound[:1000])
    reader.feed(sound[1000:])
    reader.end()

    assert 60 <= reader.seen.completion_tokens <= 62


def test_counted_speech_is_audio():
    """Its price is another than that of text."""
    meter = SPEECH.meter(Dialect.OPENAI, False, speech(stream_format="sse").asked)
    usage = b'{"input_tokens": 3, "output_tokens": 40, "total_tokens": 43}'
    meter.feed(b'data: {"type": "speech.audio.done", "usage": ' + usage + b"}\n\n")

    assert 40 == meter.seen.usage.audio_completion_tokens
    assert meter.done


def test_speech_is_streamed_as_events_on_demand():
    """The field has another name than elsewhere."""
    assert speech(stream_format="sse").stream
    assert not speech().stream


@pytest.mark.parametrize("text", [None, "", 5, ["Hello"]])
def test_refuses_what_cannot_be_spoken(text):
    """And names the field."""
    with pytest.raises(InvalidRequest, match="'input'"):
        speech(input=text)

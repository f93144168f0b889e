"""Recordings and speech, as OpenAI's own clients send and ask for them."""

from __future__ import annotations

import io
import struct
import wave

import openai
import pytest

from llmgateway.records import Usage
from llmgateway.simulator import Deployment, Script, Simulator
from llmgateway.simulator.audio import transcript
from llmgateway.simulator.recordings import duration, silent_mp3, silent_wav

from .calls import call

SPEECH = "/openai/v1/audio/speech"
SAY = {"model": "tts", "input": "Hello there, this is spoken.", "voice": "alloy"}
TRANSLATES = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
"""OpenAI's client 3.57 calls translations deprecated; Azure still has them."""
THREE_SECONDS = ("talk.wav", silent_wav(3.0), "audio/wav")


@pytest.fixture
def azure():
    deployments = (
        "gpt-4o-mini",
        "whisper",
        "gpt-4o-mini-transcribe",
        "gpt-4o-mini-tts",
        Deployment("tts", model="tts-1"),
    )
    with Simulator(deployments=deployments) as simulator:
        yield simulator


@pytest.fixture(params=["v1", "classic"])
def client(request):
    return request.getfixturevalue(request.param)


def test_whisper_is_billed_by_the_second(client, azure):
    """Its JSON says the seconds, and no tokens."""
    answer = client.audio.transcriptions.create(model="whisper", file=THREE_SECONDS)

    assert answer.text == transcript(3.0) == "This is a recording of 3.0 seconds."
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 3)
    [served] = azure.served
    assert (served.billed, served.account.audio_seconds) == (None, 3.0)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("text", "This is a recording of 3.0 seconds.\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:03,000\nThis is a recording of 3.0 seconds.\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:03.000\nThis is a recording of 3.0 seconds.\n\n"),
    ],
)
def test_texts_have_no_usage(client, azure, form, text):
    """The bill knows the seconds all the same."""
    answer = client.audio.transcriptions.create(model="whisper", file=THREE_SECONDS, response_format=form)

    assert answer == text
    assert azure.served[0].account.audio_seconds == 3.0


def test_a_verbose_transcript(client):
    """It has the language, the length and the segments."""
    answer = client.audio.transcriptions.create(model="whisper", file=THREE_SECONDS, response_format="verbose_json")

    assert (answer.duration, answer.language, answer.usage.seconds) == (3.0, "english", 3)
    assert [segment.text for segment in answer.segments] == [answer.text]


def test_newer_models_count_tokens(client, azure):
    """Ten tokens of audio for each second, those of the hint, and those of the text."""
    answer = client.audio.transcriptions.create(
        model="gpt-4o-mini-transcribe", file=THREE_SECONDS, prompt="names of towns"
    )

    assert answer.usage.type == "tokens"
    assert answer.usage.input_token_details.audio_tokens == 30
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (33, 8, 41)
    [served] = azure.served
    assert served.billed == Usage(prompt_tokens=33, completion_tokens=8, total_tokens=41, audio_prompt_tokens=30)
    assert served.account.audio_seconds == 0


def test_a_transcript_is_streamed(client, azure):
    """Its usage comes in the last event, and no [DONE]."""
    stream = client.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=THREE_SECONDS, stream=True)
    *deltas, done = list(stream)

    assert "".join(event.delta for event in deltas) == done.text == transcript(3.0)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert (done.type, done.usage.total_tokens) == ("transcript.text.done", 38)
    assert b"[DONE]" not in azure.served[0].body_sent


def test_whisper_does_not_stream(v1, azure):
    """It ignores the wish, as OpenAI's reference says."""
    v1.audio.transcriptions.create(model="whisper", file=THREE_SECONDS, extra_body={"stream": "true"})

    assert azure.served[0].events_sent == 1


@TRANSLATES
def test_a_translation_says_no_usage(client, azure):
    """Only the text; the seconds are on the bill."""
    answer = client.audio.translations.create(model="whisper", file=THREE_SECONDS)

    assert answer.text == transcript(3.0)
    assert b"usage" not in azure.served[0].body_sent
    assert azure.served[0].account.audio_seconds == 3.0


@TRANSLATES
def test_only_whisper_translates(client):
    """Others answer that they cannot."""
    with pytest.raises(openai.BadRequestError, match="operation does not work with the specified model"):
        client.audio.translations.create(model="gpt-4o-mini-transcribe", file=THREE_SECONDS)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (("talk.txt", b"hello", "text/plain"), "Unrecognized file format. Supported formats: ['flac'"),
        (("talk", silent_wav(1), "audio/wav"), "Unrecognized file format"),
        (("talk.wav", b"hello", "audio/wav"), "Audio file might be corrupted or unsupported"),
        (("talk.mp3", b"", "audio/mpeg"), "Audio file might be corrupted or unsupported"),
        (("talk.wav", silent_wav(1)[:40], "audio/wav"), "Audio file might be corrupted or unsupported"),
    ],
)
def test_what_is_no_recording_is_refused(client, azure, file, words):
    """With 400, and nothing billed."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="whisper", file=file)

    assert words in caught.value.message
    assert azure.served[0].account.audio_seconds == 0


def test_a_long_recording_is_refused(client):
    """25 MB are the most; the words are OpenAI's."""
    with pytest.raises(openai.APIStatusError, match=r"Maximum content size limit \(26214400\) exceeded") as caught:
        client.audio.transcriptions.create(model="whisper", file=("talk.wav", silent_wav(600), "audio/wav"))
    assert caught.value.status_code == 413


def test_a_format_that_a_model_does_not_have(client):
    """The newer models write JSON and text only."""
    with pytest.raises(openai.BadRequestError, match="Supported values are: 'json', 'text'"):
        client.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=THREE_SECONDS, response_format="srt")


def test_a_recording_comes_as_a_form(azure):
    """A body of another kind is refused."""
    refused = call(azure, {"model": "whisper"}, path="/openai/v1/audio/transcriptions")

    assert (refused.status, refused.json["error"]["message"]) == (400, "Could not parse multipart form.")


def test_speech_is_billed_by_the_character(client, azure):
    """It comes in chunks, without a usage; it can be played."""
    with client.audio.speech.with_streaming_response.create(
        model="tts", input="Hello there, this is spoken.", voice="alloy", response_format="wav"
    ) as answer:
        sound = b"".join(answer.iter_bytes())
        kind = answer.headers["content-type"]

    assert kind == "audio/wav"
    with wave.open(io.BytesIO(sound)) as played:
        assert played.getnframes() / played.getframerate() == pytest.approx(28 / 15, abs=0.001)
    [served] = azure.served
    assert (served.billed, served.account.characters) == (None, 28)
    assert served.events_sent > 1


@pytest.mark.parametrize(
    ("form", "kind"), [("mp3", "audio/mpeg"), ("pcm", "audio/pcm"), ("opus", "audio/ogg"), ("flac", "audio/flac")]
)
def test_formats_of_speech(azure, form, kind):
    """Each has its type."""
    answer = call(azure, {**SAY, "response_format": form}, path=SPEECH)

    assert (answer.status, answer.headers["content-type"], answer.headers["transfer-encoding"]) == (
        200,
        kind,
        "chunked",
    )


def test_newer_speech_counts_tokens(azure):
    """Twenty for each second that is spoken; as events it says so, plain it does not."""
    body = {**SAY, "model": "gpt-4o-mini-tts"}
    plain = call(azure, body, path=SPEECH)
    events = call(azure, {**body, "stream_format": "sse"}, path=SPEECH)

    spoken = round(28 / 15 * 20)
    assert duration(plain.body) == pytest.approx(28 / 15, abs=0.02)
    assert events.headers["content-type"].startswith("text/event-stream")
    last = events.body.split(b"\n\n")[-2]
    assert last.startswith(b"event: speech.audio.done\n")
    assert b'"usage":{"input_tokens":5,"output_tokens":%d,"total_tokens":%d}' % (spoken, 5 + spoken) in last
    expected = Usage(prompt_tokens=5, completion_tokens=spoken, total_tokens=5 + spoken, audio_completion_tokens=spoken)
    assert [served.billed for served in azure.served] == [expected, expected]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": ""}, "Missing required parameter: 'input'"),
        ({"input": "a" * 4097}, "String should have at most 4096 characters"),
        ({"voice": None}, "Missing required parameter: 'voice'"),
        ({"response_format": "midi"}, "Supported values are: 'mp3'"),
        ({"stream_format": "sse"}, "Supported values are: 'audio'"),
        ({"model": "gpt-4o-mini"}, "The audioSpeech operation does not work"),
    ],
)
def test_what_cannot_be_spoken_is_refused(azure, changes, words):
    """With 400, and nothing billed."""
    refused = call(azure, {**SAY, **changes}, path=SPEECH)

    assert refused.status == 400
    assert words in refused.json["error"]["message"]


def test_scripts_reach_audio(azure, v1):
    """A text of one's own, an error event, a broken connection."""
    azure.script(Script(answer="Good morning."))
    azure.script(Script(error_event_after=2))
    azure.script(Script(cut_after_events=1))
    said = v1.audio.transcriptions.create(model="whisper", file=THREE_SECONDS).text
    stream = v1.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=THREE_SECONDS, stream=True)
    with pytest.raises(openai.APIError, match="had an error"):
        list(stream)
    cut = call(azure, SAY, path=SPEECH)

    assert said == "Good morning."
    assert azure.served[1].billed.completion_tokens == 2
    assert not cut.complete


def test_sound_is_no_stream_of_events(azure):
    """What changes the lines of a stream leaves sound as it is."""
    plain = call(azure, SAY, path=SPEECH)
    azure.script(Script(line_end="crlf", json="pretty", bom=True, lines_before=(": ping",)))
    scripted = call(azure, SAY, path=SPEECH)
    azure.script(Script(json="spaced"))
    text = call(azure, {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]})

    assert scripted.body == plain.body
    assert b'"object": "chat.completion"' in text.body


def flac(samples: int, rate: int) -> bytes:
    return b"fLaC\0\0\0\x22" + bytes(10) + (rate << 44 | 1 << 41 | 15 << 36 | samples).to_bytes(8, "big") + bytes(16)


def ogg(samples: int) -> bytes:
    return b"OggS\0\2" + bytes(20) + b"OpusHead" + b"OggS\0\4" + struct.pack("<Q", samples) + bytes(12)


def mp4(scale: int, length: int) -> bytes:
    return (
        b"\0\0\0\x20ftypM4A " + bytes(8) + b"\0\0\0\x6cmvhd" + bytes(12) + struct.pack(">II", scale, length) + bytes(80)
    )


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        (silent_wav(2.5), 2.5),
        (silent_mp3(2.4), 2.4),
        (b"ID3\4\0\0\0\0\0\5hello" + silent_mp3(2.4), 2.4),
        (b"\xff\xfb\x92\xc4".ljust(418, b"\0") * 100, 100 * 1152 / 44_100),
        (flac(96_000, 48_000), 2.0),
        (ogg(48_000 * 7), 7.0),
        (mp4(1000, 4500), 4.5),
        (b"\x1aE\xdf\xa3" + bytes(31_996), 2.0),
        (b"hello", None),
        (b"", None),
        (b"RIFF\0\0\0\0WAVE", None),
        (flac(5, 0), None),
    ],
)
def test_the_length_of_a_recording_is_read(content, seconds):
    """From the heads of its format."""
    assert duration(content) == (None if seconds is None else pytest.approx(seconds, abs=0.001))

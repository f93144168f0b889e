"""Embeddings, legacy completions, images and audio with OpenAI's official client, through a gateway that runs."""

from __future__ import annotations

import concurrent.futures
import io
import json
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from llmgateway.simulator import Deployment, Script, Simulator
from llmgateway.simulator.pictures import draw
from llmgateway.simulator.recordings import silent_mp3, silent_wav
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

AZURE_KEY = "azure-key-of-the-media-tests"
TALK = ("talk.wav", silent_wav(3.0), "audio/wav")
CAT = ("cat.png", draw(64, 64, "cat"), "image/png")
TRANSLATES = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
DEPLOYMENTS = (
    "gpt-4o-mini",
    "text-embedding-3-small",
    "gpt-image-1",
    "whisper",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-tts",
    Deployment("tts", model="tts-1"),
)


@pytest.fixture(scope="module")
def media_azure() -> Iterator[Simulator]:
    with Simulator(key=AZURE_KEY, deployments=DEPLOYMENTS) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def running(media_azure: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    environ = {"LLM_BASE_URL": f"{media_azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY, "LLMGATEWAY_THREADS": "16"}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("media")) as gateway:
        yield gateway
        gateway.stop()


class User:
    """A person with a key and OpenAI's client."""

    def __init__(self, gateway: GatewayProcess, key: str, client: openai.OpenAI) -> None:
        self.gateway = gateway
        self.key = key
        self.client = client

    def record(self, count: int = 1) -> dict:
        """The last usage record, when as many have come."""
        key_id = self.gateway.request("GET", "/v1/me", key=self.key).json()["id"]

        def items() -> list[dict]:
            return self.gateway.admin("GET", f"/admin/logs?key={key_id}").json()["items"]

        wait_until(lambda: len(items()) >= count, what=f"{count} records")
        return items()[0]


@pytest.fixture
def user(running: GatewayProcess, media_azure: Simulator) -> Iterator[User]:
    media_azure.reset()
    key = running.key(user="ada")
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0) as client:
        yield User(running, key, client)


def told(record: dict, *names: str) -> tuple:
    return tuple(record[name] for name in names)


def test_embeddings_come_as_base64(user, media_azure):
    """The client asks for base64 by default, and decodes it; the record has Azure's count and its price."""
    answer = user.client.embeddings.create(model="text-embedding-3-small", input=["a text", "another one"])

    assert [1536, 1536] == [len(each.embedding) for each in answer.data]
    record = user.record()
    assert ("ok", "upstream", 0) == told(record, "outcome", "usage_source", "completion_tokens")
    assert answer.usage.prompt_tokens == record["prompt_tokens"]
    assert pytest.approx(answer.usage.prompt_tokens * 0.022 / 1e6) == record["cost_usd"]
    assert "/v1/embeddings" == record["endpoint"]


def test_embeddings_of_two_thousand_arrays_of_tokens(user):
    """The most that OpenAI allows: a million numbers in, and more bytes out than are held."""
    answer = user.client.embeddings.create(model="text-embedding-3-small", input=[[7] * 500] * 2048)

    assert 2048 == len(answer.data)
    assert ("ok", "upstream", 2048 * 500) == told(user.record(), "outcome", "usage_source", "prompt_tokens")


def test_legacy_completions_get_the_prompt_and_stream(user, running, media_azure):
    """The organisation's prompt goes in front of each text; the event with the count is withheld."""
    assert 200 == running.admin("PUT", "/admin/prompt", json={"prompt": "Be kind."}).status
    try:
        events = list(user.client.completions.create(model="gpt-4o-mini", prompt=["One", "Two"], stream=True))
        with pytest.raises(openai.BadRequestError, match="Send 'prompt' as text"):
            user.client.completions.create(model="gpt-4o-mini", prompt=[1, 2, 3])
    finally:
        running.admin("PUT", "/admin/prompt", json={"prompt": ""})

    assert all(event.choices and event.usage is None for event in events)
    assert {0, 1} == {event.choices[0].index for event in events}
    [served] = media_azure.served
    assert ["Be kind.\n\nOne", "Be kind.\n\nTwo"] == json.loads(served.body)["prompt"]
    assert ("ok", "upstream", 1) == told(user.record(), "outcome", "usage_source", "stream")


def test_images_are_counted_by_azure(user):
    """An image comes as base64, and costs its tokens."""
    answer = user.client.images.generate(model="gpt-image-1", prompt="a red cat", size="1024x1024", quality="low")

    assert answer.data[0].b64_json
    record = user.record()
    assert ("ok", "upstream", 272) == told(record, "outcome", "usage_source", "completion_tokens")
    assert record["cost_usd"] > 272 * 40 / 1e6


def test_images_stream(user):
    """Events with parts of an image pass, and the last one has the count."""
    events = list(user.client.images.generate(model="gpt-image-1", prompt="a cat", stream=True, partial_images=2))

    assert "image_generation.completed" == events[-1].type
    assert {"image_generation.partial_image"} == {event.type for event in events[:-1]}
    record = user.record()
    assert ("ok", "upstream", 1) == told(record, "outcome", "usage_source", "stream")
    assert events[-1].usage.output_tokens == record["completion_tokens"]


def test_images_are_edited(user):
    """A form with several images arrives as it was sent."""
    answer = user.client.images.edit(model="gpt-image-1", image=[CAT, CAT], prompt="add a hat")

    assert answer.data[0].b64_json
    assert ("ok", "upstream") == told(user.record(), "outcome", "usage_source")


def test_a_transcript_of_whisper_costs_by_the_minute(user):
    """Azure says the seconds; the tokens are an estimate."""
    answer = user.client.audio.transcriptions.create(model="whisper", file=TALK)

    assert "This is a recording of 3.0 seconds." == answer.text
    record = user.record()
    assert ("ok", "estimated") == told(record, "outcome", "usage_source")
    assert pytest.approx(3 / 60 * 0.006) == record["cost_usd"]


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_a_transcript_without_a_count_costs_what_the_recording_is_long(user, form):
    """Subtitles say nothing of the length, so the file does."""
    answer = user.client.audio.transcriptions.create(
        model="whisper", file=("talk.mp3", silent_mp3(6.0)), response_format=form
    )

    assert "recording of 6" in answer
    record = user.record()
    assert ("ok", "estimated") == told(record, "outcome", "usage_source")
    assert pytest.approx(6 / 60 * 0.006, rel=0.02) == record["cost_usd"]


def test_a_transcript_streams(user):
    """Text arrives bit by bit, and the tokens with the last event."""
    events = list(user.client.audio.transcriptions.create(model="gpt-4o-mini-transcribe", file=TALK, stream=True))

    assert "transcript.text.done" == events[-1].type
    record = user.record()
    assert ("ok", "upstream") == told(record, "outcome", "usage_source")
    assert all(record[name] for name in ("prompt_tokens", "completion_tokens", "cost_usd"))


@TRANSLATES
def test_a_translation(user):
    """Takes the same form."""
    assert user.client.audio.translations.create(model="whisper", file=TALK).text
    assert "ok" == user.record()["outcome"]


def test_speech_costs_its_characters(user):
    """The sound is Azure's byte for byte; nothing counts it, so its text is counted."""
    text = "Hello there, this is spoken."
    with user.client.audio.speech.with_streaming_response.create(model="tts", voice="alloy", input=text) as answer:
        sound = answer.read()
        kind = answer.headers["content-type"]

    assert "audio/mpeg" == kind
    assert sound
    record = user.record()
    assert ("ok", "estimated") == told(record, "outcome", "usage_source")
    assert pytest.approx(len(text) * 15 / 1e6) == record["cost_usd"]


def test_speech_as_events(user):
    """``stream_format: sse`` ends with a count."""
    with user.client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="Hello there.", extra_body={"stream_format": "sse"}
    ) as answer:
        lines = list(answer.iter_lines())

    assert any("speech.audio.done" in line for line in lines)
    record = user.record()
    assert ("ok", "upstream") == told(record, "outcome", "usage_source")
    assert record["cost_usd"] > 0


def test_a_file_that_is_no_recording_is_refused(user, media_azure):
    """Before it is sent, with what to send."""
    with pytest.raises(openai.BadRequestError, match="no recording of a known format"):
        user.client.audio.transcriptions.create(model="whisper", file=("talk.wav", b"Dear diary, " * 100))

    assert not media_azure.served


def test_clients_of_azure_name_the_deployment_in_the_path(user, media_azure):
    """And the body that Azure gets names it, too."""
    with openai.AzureOpenAI(
        azure_endpoint=user.gateway.url, api_version="2024-10-21", api_key=user.key, max_retries=0
    ) as client:
        assert client.audio.transcriptions.create(model="whisper", file=TALK).text
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="talk.wav"\r\n\r\n'
    answer = user.gateway.request(
        "POST",
        "/openai/deployments/whisper/audio/transcriptions?api-version=1",
        key=user.key,
        body=form + TALK[1] + b"\r\n--b--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )

    assert 200 == answer.status, answer.body
    assert b'name="model"\r\n\r\nwhisper' in media_azure.served[-1].body
    assert "/v1/audio/transcriptions" == user.record(2)["endpoint"]


@pytest.mark.parametrize("reset", [False, True])
def test_speech_that_breaks_off_has_no_end(user, media_azure, reset):
    """The client notices, and the record says what happened."""
    media_azure.script(Script(cut_after_bytes=2000, reset=reset))
    with (
        pytest.raises(Exception, match=r"(?i)peer closed|incomplete|read"),
        user.client.audio.speech.with_streaming_response.create(
            model="tts", voice="alloy", input="Hello there. " * 20
        ) as answer,
    ):
        answer.read()

    record = user.record()
    assert ("broken", 200) == told(record, "outcome", "status")
    assert record["cost_usd"] > 0


def test_a_client_that_leaves_ends_its_speech(user, media_azure):
    """The gateway closes its connection to Azure, and books what was asked for."""
    media_azure.script(Script(gap=0.2))
    with user.client.audio.speech.with_streaming_response.create(
        model="tts", voice="alloy", input="Hello there. " * 300
    ) as answer:
        next(answer.iter_bytes(10))

    record = user.record()
    assert "client_closed" == record["outcome"]
    assert record["cost_usd"] > 0


def test_a_short_answer_that_breaks_off_is_an_error(user, media_azure):
    """Nothing of it was sent yet."""
    media_azure.script(Script(cut_after_bytes=100))
    with pytest.raises(openai.InternalServerError) as caught:
        user.client.embeddings.create(model="text-embedding-3-small", input="Hello")

    assert 502 == caught.value.status_code
    assert "broken" == user.record()["outcome"]


def test_images_that_break_off_are_booked_whole(user, media_azure):
    """They were complete before the first byte came, and Azure bills them."""
    media_azure.script(Script(cut_after_bytes=300))
    with pytest.raises(openai.InternalServerError):
        user.client.images.generate(model="gpt-image-1", prompt="a cat", n=2)

    record, billed = user.record(), media_azure.served[-1].billed
    assert "broken" == record["outcome"]
    assert billed.completion_tokens <= record["completion_tokens"]


def test_limits_hold_for_recordings(running, media_azure):
    """Ten tokens a second count before a recording is sent."""
    media_azure.reset()
    key = running.key(user="ada", limits={"tokens_per_minute": 1_000})
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0) as client:
        assert client.audio.transcriptions.create(model="whisper", file=("talk.wav", silent_wav(90.0))).text
        with pytest.raises(openai.RateLimitError):
            client.audio.transcriptions.create(model="whisper", file=("talk.wav", silent_wav(20.0)))
    assert 1 == len(media_azure.served)


def resident_bytes(process_id: int) -> int:
    """The memory of a process and its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if process_id in (int(lines["PPid"]), int(lines["Pid"])):
            total += int(lines.get("VmRSS", "0").split()[0]) * 1024
    return total


def test_uploads_are_not_held_in_memory(user, media_azure):
    """Eight recordings of 25 MiB at once take a small part of their size."""
    recording = silent_wav(546.0)  # 25 MiB is the most that Azure takes
    before = highest = resident_bytes(user.gateway.pid)

    def upload(_: int) -> str:
        file = ("talk.wav", io.BytesIO(recording), "audio/wav")
        return user.client.audio.transcriptions.create(model="whisper", file=file, timeout=120).text

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        uploads = [threads.submit(upload, number) for number in range(8)]
        while not all(each.done() for each in uploads):
            highest = max(highest, resident_bytes(user.gateway.pid))
            concurrent.futures.wait(uploads, timeout=0.02)

    assert 1 == len({each.result() for each in uploads})
    assert highest - before < 50 * 2**20

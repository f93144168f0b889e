"""Images, generated and edited, as OpenAI's own clients ask for them."""

from __future__ import annotations

import base64
import struct

import openai
import pytest

from llmgateway.records import Usage
from llmgateway.simulator import FILTERED_PHRASE, Deployment, Script, Simulator
from llmgateway.simulator.pictures import draw

from .calls import call

PATH = "/openai/v1/images/generations"
WISH = {"model": "gpt-image-1", "prompt": "a red cat"}
PICTURE = ("cat.png", draw(64, 64, "cat"), "image/png")


@pytest.fixture
def azure():
    with Simulator(deployments=("gpt-4o-mini", "gpt-image-1", Deployment("draw", model="dall-e-3"))) as simulator:
        yield simulator


@pytest.fixture(params=["v1", "classic"])
def client(request):
    return request.getfixturevalue(request.param)


def size_of(image: str) -> tuple[int, int]:
    content = base64.b64decode(image)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


def test_an_image_comes_as_base64_with_its_tokens(client, azure):
    """Of the size that was asked for; its tokens are those of OpenAI's table."""
    answer = client.images.generate(model="gpt-image-1", prompt="a red cat", size="1536x1024", quality="low")

    assert size_of(answer.data[0].b64_json) == (1536, 1024)
    assert (answer.size, answer.quality, answer.output_format) == ("1536x1024", "low", "png")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (3, 400, 403)
    assert answer.usage.input_tokens_details.text_tokens == 3
    [served] = azure.served
    assert served.billed == Usage(prompt_tokens=3, completion_tokens=400, total_tokens=403)
    assert served.account.draws


def test_several_images_cost_several_times(client):
    """And they are not the same."""
    answer = client.images.generate(model="gpt-image-1", prompt="a red cat", n=2)

    assert answer.usage.output_tokens == 2 * 1056
    assert answer.data[0].b64_json != answer.data[1].b64_json


def test_a_stream_shows_partial_images(client, azure):
    """Each costs 100 tokens; the usage comes with the last event, and no [DONE]."""
    stream = client.images.generate(model="gpt-image-1", prompt="a red cat", stream=True, partial_images=2)
    events = list(stream)

    kinds = ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.type for event in events] == kinds
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert events[-1].usage.output_tokens == 1056 + 200
    assert b"[DONE]" not in azure.served[0].body_sent
    assert azure.served[0].billed.completion_tokens == 1256


def test_an_image_is_edited(client, azure):
    """Its sources are tokens of the prompt: 194 each."""
    answer = client.images.edit(model="gpt-image-1", image=[PICTURE, PICTURE], mask=PICTURE, prompt="make it blue")

    assert size_of(answer.data[0].b64_json) == (1024, 1024)
    assert answer.usage.input_tokens_details.image_tokens == 2 * 194
    assert answer.usage.input_tokens == 2 * 194 + 3
    assert azure.served[0].billed.image_prompt_tokens == 2 * 194


def test_an_edit_can_be_streamed(client):
    """Its events have names of their own."""
    stream = client.images.edit(model="gpt-image-1", image=PICTURE, prompt="blue", stream=True, partial_images=1)

    assert [event.type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": None}, "Missing required parameter: 'prompt'"),
        ({"prompt": 7}, "expected a string"),
        ({"n": 0}, "below minimum"),
        ({"n": 11}, "above maximum"),
        ({"size": "7x7"}, "Supported values are: '1024x1024'"),
        ({"quality": "best"}, "Supported values are: 'low'"),
        ({"partial_images": 2}, "only allowed when 'stream' is enabled"),
        ({"partial_images": 4, "stream": True}, "above maximum"),
        ({"model": "gpt-4o-mini"}, "The imageGenerations operation does not work with the specified model"),
    ],
)
def test_a_wrong_wish_is_refused(azure, changes, words):
    """With 400, and nothing billed."""
    refused = call(azure, {**WISH, **changes}, path=PATH)

    assert refused.status == 400
    assert words in refused.json["error"]["message"]
    assert azure.served[0].billed is None


def test_a_file_that_is_no_image_is_refused(client):
    """The error says which one."""
    with pytest.raises(openai.BadRequestError, match="Invalid image file or mode for image 2") as caught:
        client.images.edit(model="gpt-image-1", image=[PICTURE, ("b.png", b"hello", "image/png")], prompt="blue")
    assert caught.value.code == "invalid_image_file"


def test_an_edit_needs_a_form_with_an_image(azure, v1):
    """A body of another kind, and a form without a file."""
    broken = call(azure, WISH, path="/openai/v1/images/edits")
    with pytest.raises(openai.BadRequestError, match="'image'"):
        v1.post(
            "/images/edits",
            cast_to=object,
            files=[("mask", PICTURE)],
            body={"model": "gpt-image-1", "prompt": "x"},
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )

    assert (broken.status, "multipart" in broken.json["error"]["message"]) == (400, True)


def test_a_large_image_is_refused(azure, v1):
    """50 MB are too much."""
    large = ("big.png", draw(8, 8, "x").ljust(50 * 1024 * 1024, b"\0"), "image/png")
    with pytest.raises(openai.APIStatusError) as caught:
        v1.images.edit(model="gpt-image-1", image=large, prompt="blue")

    assert caught.value.status_code == 413


def test_the_filter_refuses_a_prompt(azure):
    """In the form of images; the prompt is billed."""
    refused = call(azure, {**WISH, "prompt": f"please {FILTERED_PHRASE}"}, path=PATH)

    assert (refused.status, refused.json["error"]["code"]) == (400, "contentFilter")
    assert isinstance(refused.json["created"], int)
    assert azure.served[0].billed == Usage(prompt_tokens=5, total_tokens=5)


def test_dall_e_is_billed_by_the_image(azure, classic):
    """Its answer has no usage, and a revised prompt."""
    answer = classic.images.generate(model="draw", prompt="a red cat", response_format="b64_json", size="1792x1024")

    assert size_of(answer.data[0].b64_json) == (1792, 1024)
    assert answer.data[0].revised_prompt == "a red cat"
    assert answer.usage is None
    [served] = azure.served
    assert (served.billed, served.account.images) == (None, 1)


def test_scripts_reach_a_stream_of_images(azure):
    """A break, an error event, a pause of the model."""
    stream = {**WISH, "stream": True, "partial_images": 3}
    azure.script(Script(cut_after_events=1))
    azure.script(Script(error_event_after=2))
    azure.script(Script(tokens_per_second=20_000.0))
    cut, failed, slow = (call(azure, stream, path=PATH) for _ in range(3))

    assert not cut.complete
    assert [served.events_sent for served in azure.served] == [1, 3, 4]
    assert b"had an error while processing" in failed.body
    assert slow.complete
    whole = 1056 + 300
    assert azure.served[0].billed.completion_tokens < whole
    assert azure.served[1].billed.completion_tokens == whole // 2
    assert azure.served[2].billed.completion_tokens == whole

"""Images: what is checked and counted."""

from __future__ import annotations

import io
import json

import pytest

from llmgateway.errors import InvalidRequest
from llmgateway.proxy.dialect import Dialect
from llmgateway.proxy.forms import Part
from llmgateway.proxy.operations.images import IMAGE_EDITS, IMAGE_GENERATIONS
from llmgateway.records import Usage
from tests.proxy.requests import prepared

USAGE = {
    "input_tokens": 50,
    "input_tokens_details": {"image_tokens": 40, "text_tokens": 10},
    "output_tokens": 100,
    "total_tokens": 150,
}


def request(**fields: object):
    body = json.dumps({"model": "image", "prompt": "a cat"} | fields).encode()
    return prepared(body, operation=IMAGE_GENERATIONS, prompt="Be kind.")


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"size": "1024x1024", "quality": "low"}, 272),
        ({"size": "1024x1024", "quality": "medium"}, 1_056),
        ({"size": "1024x1024", "quality": "high"}, 4_160),
        ({"size": "1536x1024", "quality": "high"}, 6_240),
        ({}, 6_240),
        ({"size": "auto", "quality": "auto", "partial_images": 3}, 6_540),
    ],
)
def test_knows_what_an_image_has(fields, tokens):
    """OpenAI's table, within a part in a hundred; the most if the model chooses."""
    assert pytest.approx(tokens, rel=0.02) == request(**fields).asked.most_tokens


def test_reads_azures_count():
    """Images in the prompt have a price of their own."""
    reader = IMAGE_GENERATIONS.reader(request().asked)
    reader.feed(json.dumps({"data": [{"b64_json": "A"}], "usage": USAGE}).encode())
    reader.end()

    expected = Usage(prompt_tokens=50, completion_tokens=100, total_tokens=150, image_prompt_tokens=40)
    assert expected == reader.seen.usage


def test_estimates_without_a_count():
    """By size, quality and number: Azure's documentation shows answers without one."""
    reader = IMAGE_GENERATIONS.reader(request(n=2, size="1024x1024", quality="low").asked)
    reader.feed(b'{"data": [{"b64_json": "A"}, {"b64_json": "B"}]}')
    reader.end()

    assert pytest.approx(2 * 272, rel=0.01) == reader.seen.completion_tokens


def test_adds_up_the_counts_of_a_stream():
    """Each image has an event of its own."""
    meter = IMAGE_GENERATIONS.meter(Dialect.OPENAI, False, request(n=2, stream=True).asked)
    event = json.dumps({"type": "image_generation.completed", "usage": USAGE}).encode()
    meter.feed((b"data: " + event + b"\n\n") * 2)

    assert (True, 300) == (meter.done, meter.seen.usage.total_tokens)


def test_sees_the_content_filter():
    """In an answer, and in an error."""
    filtered = {
        "error": {"code": "contentFilter", "inner_error": {"content_filter_results": {"hate": {"filtered": True}}}}
    }

    assert {"hate"} == IMAGE_GENERATIONS.see(filtered, b"").content_filter


@pytest.mark.parametrize("fields", [{"prompt": None}, {"prompt": 5}, {"n": 0}, {"n": "2"}])
def test_refuses_what_cannot_be_counted(fields):
    """And names the field."""
    with pytest.raises(InvalidRequest, match=f"'{next(iter(fields))}'"):
        request(**fields)


@pytest.mark.parametrize("data", [b"Dear diary", b"%PDF-1.7", b"RIFF0000WAVE"])
def test_refuses_a_file_that_is_no_image(data):
    """Before it is sent."""
    part = Part(name="image", is_file=True, begins=0, ends=len(data))

    with pytest.raises(InvalidRequest, match="'image' is no image"):
        IMAGE_EDITS.form.inspect(io.BytesIO(data), part)


@pytest.mark.parametrize("value", [None, 5, 1.5, True, "x" * 1_000, [], ["x"], {"image_url": "x"}], ids=str)
@pytest.mark.parametrize("name", ["image", "image[]", "mask"])
def test_any_value_in_the_place_of_an_image_can_be_counted(name, value):
    """Azure says what is wrong with it; a text is not as many images as it has letters."""
    tokens = IMAGE_GENERATIONS.prompt_tokens({"model": "image", "prompt": "a cat", name: value}, "", ())

    assert 0 < tokens < 2_000


def test_images_in_the_prompt_count():
    """More with high fidelity."""
    document = {"prompt": "a hat", "image[]": [10, 10], "mask": [5]}
    few = IMAGE_EDITS.prompt_tokens(document, "", ())

    assert few > 3 * 1_000
    assert IMAGE_EDITS.prompt_tokens(document | {"input_fidelity": "high"}, "", ()) > few + 3 * 6_000

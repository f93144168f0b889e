"""Generates and edits images, as the gpt-image models and DALL-E do.

Forms: OpenAI's client 3.57 (streams, usage) and Microsoft's pages on image generation (2026); no traffic was recorded.
Every image is a PNG, whatever format was asked for.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from ..records import Usage
from . import tokens
from .chat import FILTERED_PHRASE
from .faults import CONTENT_FILTER_IMAGE, Fault, error, invalid
from .messages import Request
from .multipart import File, parse_form
from .operations import (
    Asked,
    Made,
    Operation,
    Refused,
    choice,
    event,
    integer,
    made_stream,
    missing,
    parse_json,
    prompt_usage,
    text,
    with_usage,
)
from .pictures import draw, is_picture
from .production import Work

MOST_BYTES = 50 * 1024 * 1024
"""Of each image that is to be edited (Microsoft's page on images, 2026)."""
MOST_IMAGES = 10
MOST_SOURCES = 16

_TOKENS: Mapping[tuple[str, str], int] = {
    ("low", "1024x1024"): 272,
    ("low", "1024x1536"): 408,
    ("low", "1536x1024"): 400,
    ("medium", "1024x1024"): 1056,
    ("medium", "1024x1536"): 1584,
    ("medium", "1536x1024"): 1568,
    ("high", "1024x1024"): 4160,
    ("high", "1024x1536"): 6240,
    ("high", "1536x1024"): 6208,
}
"""Of an image (OpenAI's guide to image generation, gpt-image-1, 2026)."""
_OF_PARTIAL = 100
"""Tokens of each partial image of a stream (the same page)."""
_OF_SOURCE = 194
"""Tokens of an image that is edited: 65, and 129 for one tile (OpenAI's guide to vision, gpt-image-1, 2026)."""
_DALLE_SIZES = ("1024x1024", "1792x1024", "1024x1792")


def _parse_edit(request: Request) -> dict[str, Any]:
    form = parse_form(request.headers.get("content-type", ""), request.body)
    if form is None:
        raise Refused(invalid("Could not parse multipart form."))
    document: dict[str, Any] = {name: values[0] for name, values in form.fields.items()}
    for name in ("stream",):
        document[name] = document.get(name, "").lower() == "true"
    return {**document, **form.files}


def _generate(asked: Asked) -> Made:
    if asked.deployment.family.startswith("dall-e"):
        return _dalle(asked)
    return _draw(asked, "image_generation", sources=0)


def _edit(asked: Asked) -> Made:
    sources = asked.document.get("image")
    if not isinstance(sources, list):
        raise missing("image")
    if len(sources) > MOST_SOURCES:
        raise Refused(
            invalid(f"Invalid 'image': array too long. Expected at most {MOST_SOURCES} images.", param="image")
        )
    masks = asked.document.get("mask")
    for rank, source in enumerate([*sources, *(masks if isinstance(masks, list) else [])]):
        _check(source, rank)
    return _draw(asked, "image_edit", sources=len(sources))


def _check(source: File, rank: int) -> None:
    if len(source.content) >= MOST_BYTES:
        raise Refused(
            error(
                413,
                message="Maximum content size limit (52428800) exceeded",
                type="invalid_request_error",
                param="image",
                code=None,
            )
        )
    if not is_picture(source.content):
        raise Refused(
            invalid(
                f"Invalid image file or mode for image {rank + 1}, please check your image file.",
                param="image",
                code="invalid_image_file",
            )
        )


def _prompt(asked: Asked) -> str:
    prompt = text(asked.document, "prompt")
    if FILTERED_PHRASE in prompt:
        raise Refused(_filtered(asked.created))
    return prompt


def _filtered(created: int) -> Fault:
    body = orjson.dumps({"created": created, **orjson.loads(CONTENT_FILTER_IMAGE.body)})
    return CONTENT_FILTER_IMAGE._replace(body=body)


def _draw(asked: Asked, kind: str, *, sources: int) -> Made:
    document, script = asked.document, asked.script
    prompt = _prompt(asked)
    count = integer(document, "n", most=MOST_IMAGES) or 1
    size = choice(document, "size", ("1024x1024", "1024x1536", "1536x1024", "auto"), "auto")
    quality = choice(document, "quality", ("low", "medium", "high", "auto"), "auto")
    # Azure chooses; these are its usual choices.
    size, quality = size.replace("auto", "1024x1024"), quality.replace("auto", "medium")
    stream = document.get("stream") is True
    partial = integer(document, "partial_images", least=0, most=3) or 0
    if partial and not stream:
        raise Refused(invalid("'partial_images' is only allowed when 'stream' is enabled.", param="partial_images"))
    told = {
        "background": choice(document, "background", ("transparent", "opaque", "auto"), "opaque"),
        "output_format": choice(document, "output_format", ("png", "jpeg", "webp"), "png"),
        "quality": quality,
        "size": size,
    }
    written = script.tokens or _TOKENS[quality, size] + _OF_PARTIAL * partial
    work = Work(
        prompt=_prompt_usage(prompt, sources, asked),
        written=(written,) * count,
        rate=script.tokens_per_second,
    )
    usage = with_usage(_usage(work.whole), script)
    width, height = map(int, size.split("x"))
    images = [base64.b64encode(draw(width, height, f"{prompt}{rank}")).decode() for rank in range(count)]
    units = {"draws": True, "stream": stream}
    if not stream:
        data = [{"b64_json": image} for image in images]
        whole = orjson.dumps({"created": asked.created, "data": data, **told, **usage})
        return Made(parts=[whole], work=work, positions=[work.length], units=units)
    steps = [
        event(
            {"type": f"{kind}.partial_image", "b64_json": images[0], "created_at": asked.created, **told}
            | {"partial_image_index": rank}
        )
        for rank in range(partial)
    ]
    done = [
        event({"type": f"{kind}.completed", "b64_json": image, "created_at": asked.created, **told, **usage})
        for image in images
    ]
    positions = [written * (rank + 1) // (partial + 1) for rank in range(partial)] + [written] * count
    return made_stream([*steps, *done], positions, work, script, units=units)


def _prompt_usage(prompt: str, sources: int, asked: Asked) -> Usage:
    pixels = asked.script.image_prompt_tokens or sources * _OF_SOURCE
    counted = prompt_usage(tokens.count(prompt) + pixels, asked.script)
    return Usage(
        prompt_tokens=counted.prompt_tokens,
        total_tokens=counted.prompt_tokens,
        cached_tokens=counted.cached_tokens,
        image_prompt_tokens=pixels,
    )


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "image_tokens": usage.image_prompt_tokens,
            "text_tokens": usage.prompt_tokens - usage.image_prompt_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _dalle(asked: Asked) -> Made:
    """DALL-E draws one image, which is billed as such; the answer has no usage (Microsoft's page on DALL-E, 2024)."""
    document = asked.document
    prompt = _prompt(asked)
    integer(document, "n", most=1)
    size = choice(document, "size", _DALLE_SIZES, "1024x1024")
    choice(document, "quality", ("standard", "hd"), "standard")
    form = choice(document, "response_format", ("url", "b64_json"), "url")
    image = draw(*map(int, size.split("x")), prompt)
    safe = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
    shown = {"b64_json": base64.b64encode(image).decode()}
    if form == "url":
        shown = {"url": "https://dalleproduse.blob.core.windows.net/private/images/simulated/generated_00.png?se=2026"}
    drawn = {
        "content_filter_results": safe,
        "prompt_filter_results": {**safe, "profanity": {"detected": False, "filtered": False}},
        "revised_prompt": prompt,
        **shown,
    }
    return Made(parts=[orjson.dumps({"created": asked.created, "data": [drawn]})], units={"images": 1})


def _characters(document: Mapping[str, Any]) -> int:
    prompt = document.get("prompt")
    return len(prompt) if isinstance(prompt, str) else 0


def _prompt_tokens(document: Mapping[str, Any]) -> int:
    prompt, sources = document.get("prompt"), document.get("image")
    said = tokens.count(prompt) if isinstance(prompt, str) else 0
    return said + (_OF_SOURCE * len(sources) if isinstance(sources, list) else 0)


GENERATIONS = Operation(
    path="images/generations",
    name="ImageGenerations_Create",
    verb="imageGenerations",
    ability="images",
    parse=parse_json,
    characters=_characters,
    prompt_tokens=_prompt_tokens,
    answer=_generate,
)
EDITS = Operation(
    path="images/edits",
    name="ImageEdits_Create",
    verb="imageEdits",
    ability="images",
    parse=_parse_edit,
    characters=_characters,
    prompt_tokens=_prompt_tokens,
    answer=_edit,
)

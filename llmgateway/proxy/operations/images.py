"""Images: made from a text, or changed as a text says."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import Any, BinaryIO

from ...errors import InvalidRequest
from ...records import Usage
from ...usage.answers import name_of
from ...usage.booking import Asked
from ...usage.counts import parse_usage
from ...usage.media_meter import MediaMeter
from ...usage.meter import Meter
from ...usage.seen import Seen
from ...usage.tokens import LARGEST_COUNT, text_tokens
from ..dialect import Dialect
from ..forms import FormFormat, Part
from ..parsing import BodyFormat
from ..passing import AnswerReader, DocumentReader
from .chat import error_event
from .fields import whole_number
from .operation import Operation

_PIXELS_PER_TOKEN = {"low": 3_850, "medium": 990}
_PIXELS_PER_TOKEN_HIGH = 250
"""OpenAI, "Image generation" (2026): 1,024 x 1,024 pixels have 272, 1,056 or 4,160 tokens. Other sizes have as many in
proportion."""

_LARGEST_USUAL = 1024 * 1536
"""Pixels of an image whose size the model chooses."""

_PARTIAL_TOKENS = 100
"""Of each image that is shown before the last one (OpenAI, "Image generation", 2026)."""

_SOURCE_TOKENS, _FAITHFUL_TOKENS = 1_100, 6_240
"""The most tokens of an image that is changed: up to 8 tiles, and more with ``input_fidelity: high`` (the same)."""

_MOST_IMAGES = 128
_FILES = ("image", "image[]", "mask")
_SIZE = re.compile(r"([0-9]{2,5})x([0-9]{2,5})")
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")

_NAMES = (
    "model prompt n size quality stream partial_images background moderation output_format output_compression "
    "response_format style user input_fidelity"
)
_GENERATIONS = BodyFormat(_NAMES, example="'model' and 'prompt'")


def _check(document: dict[str, Any]) -> None:
    prompt = document.get("prompt")
    if prompt is None:
        raise InvalidRequest("'prompt' is missing: say what the image shall show.", param="prompt")
    if not isinstance(prompt, str):
        raise InvalidRequest("'prompt' must be a text.", param="prompt")


def _asked(document: dict[str, Any], _body: bytes) -> Asked:
    images = whole_number(document, "n", most=_MOST_IMAGES) or 1
    return Asked(choices=images, most_tokens=_tokens_of_one(document), images=images, may_think=False)


def _tokens_of_one(document: dict[str, Any]) -> int:
    """Return the tokens of one image, or of the largest if the model chooses its size or quality."""
    found = _SIZE.fullmatch(str(document.get("size")))
    pixels = int(found[1]) * int(found[2]) if found else _LARGEST_USUAL
    per_token = _PIXELS_PER_TOKEN.get(str(document.get("quality")), _PIXELS_PER_TOKEN_HIGH)
    partial_images = document.get("partial_images")
    partial_images = partial_images if isinstance(partial_images, int) and 0 < partial_images < 100 else 0
    return min(math.ceil(pixels / per_token) + partial_images * _PARTIAL_TOKENS, LARGEST_COUNT)


def _prompt_tokens(document: dict[str, Any], _prompt: str, _models: Sequence[str | None]) -> int:
    sources = sum(map(_number_of_files, map(document.get, _FILES)))
    of_source = _SOURCE_TOKENS + (_FAITHFUL_TOKENS if document.get("input_fidelity") == "high" else 0)
    text = document["prompt"].encode("utf-8", "surrogatepass")
    return text_tokens(text, quickly=True) + sources * of_source


def _number_of_files(value: Any) -> int:
    """Return how many images a field has. A form has a list of them, and a body in JSON can have any value there."""
    if isinstance(value, list):
        return min(len(value), _MOST_IMAGES)
    return 0 if value is None else 1


def _see(asked: Asked, document: dict[str, Any] | None, body: bytes) -> Seen:
    if document is None:
        return Seen(completion_tokens=(asked.most_tokens or 0) * asked.choices)
    seen = _see_error(document, body)
    if seen.usage is None:
        seen.completion_tokens = (asked.most_tokens or 0) * asked.choices
    return seen


def _see_error(document: dict[str, Any], _body: bytes) -> Seen:
    seen = Seen(model=name_of(document, "model"), usage=parse_usage(document))
    # Not in the images, which are long.
    seen.add_filters({name: value for name, value in document.items() if name != "data"})
    return seen


def _see_event(asked: Asked, seen: Seen, document: dict[str, Any], size: int) -> None:
    usage = parse_usage(document)
    if usage is not None:
        seen.usage = usage if seen.usage is None else _sum(seen.usage, usage)
    elif str(document.get("type")).endswith(".completed"):
        seen.completion_tokens += asked.most_tokens or 0
    elif size > 1024:  # a part of an image
        seen.completion_tokens += _PARTIAL_TOKENS


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(**{field.name: getattr(one, field.name) + getattr(other, field.name) for field in fields(Usage)})


def _meter(_dialect: Dialect, _withhold_usage: bool, asked: Asked) -> Meter:
    return MediaMeter(partial(_see_event, asked), results=asked.choices)


def _reader(asked: Asked) -> AnswerReader:
    # All images are complete when the answer begins.
    return DocumentReader(partial(_see, asked), begun=_see(asked, None, b""))


def _inspect(file: BinaryIO, part: Part) -> int:
    """Return the bytes of an image."""
    file.seek(part.begins)
    beginning = file.read(min(part.size, 16))
    is_webp = beginning.startswith(b"RIFF") and beginning[8:12] == b"WEBP"
    if not beginning.startswith(_PICTURES) and not is_webp and beginning[4:8] != b"ftyp":
        raise InvalidRequest(f"'{part.name}' is no image. Send a PNG, WebP or JPEG file.", param=part.name)
    return part.size


_EDIT_FORM = FormFormat(
    fields=BodyFormat(f"{_NAMES} image mask", example="'model', 'prompt' and 'image'"),
    files=_FILES,
    required="image",
    inspect=_inspect,
    numbers=("n", "partial_images"),
)

IMAGE_GENERATIONS = Operation(
    name="images/generations",
    body_format=_GENERATIONS,
    check=_check,
    asked=_asked,
    with_prompt=None,
    prompt_tokens=_prompt_tokens,
    may_add_usage=lambda _document: False,
    meter=_meter,
    see=_see_error,
    reader=_reader,
    error_event=error_event,
)
IMAGE_EDITS = Operation(
    name="images/edits",
    body_format=_EDIT_FORM.fields,
    form=_EDIT_FORM,
    check=_check,
    asked=_asked,
    with_prompt=None,
    prompt_tokens=_prompt_tokens,
    may_add_usage=lambda _document: False,
    meter=_meter,
    see=_see_error,
    reader=_reader,
    error_event=error_event,
)

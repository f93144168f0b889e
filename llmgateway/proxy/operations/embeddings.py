"""Embeddings: numbers that say what a text is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ...errors import InvalidRequest
from ...usage.answers import name_of
from ...usage.booking import Asked
from ...usage.counts import parse_usage
from ...usage.media_meter import MediaMeter
from ...usage.meter import Meter
from ...usage.seen import Seen
from ...usage.tokens import CHARACTERS_PER_TOKEN, LARGEST_COUNT, text_tokens
from ..dialect import Dialect
from ..parsing import BodyFormat
from ..passing import DocumentReader
from .chat import error_event
from .operation import Operation

_FORMAT = BodyFormat("model input encoding_format dimensions user input_type stream", example="'model' and 'input'")


def _check_input(document: dict[str, Any]) -> None:
    texts = document.get("input")
    if texts is None:
        raise InvalidRequest("'input' is missing: send a text or a list of texts.", param="input")
    if not isinstance(texts, str | list):
        raise InvalidRequest("'input' must be a text, a list of texts, or a list of tokens.", param="input")
    if not texts:
        raise InvalidRequest("'input' is empty: send at least one text.", param="input")


def count_tokens(value: Any) -> int:
    """Estimate the tokens of texts and of arrays of tokens, in lists at any level.

    A number is a token. To look at each of a million of them would take too long.
    """
    if not isinstance(value, list):
        value = [value]
    texts = [each for each in value if isinstance(each, str)]
    tokens = text_tokens("\n".join(texts).encode("utf-8", "surrogatepass"), quickly=True) if texts else 0
    for each in value if len(texts) < len(value) else ():
        if isinstance(each, list):
            tokens += len(each) if each and isinstance(each[0], int) else count_tokens(each)
        elif isinstance(each, dict):
            tokens += len(orjson.dumps(each, default=str)) // CHARACTERS_PER_TOKEN
        elif not isinstance(each, str):
            tokens += 1
    return min(tokens, LARGEST_COUNT)


def _prompt_tokens(document: dict[str, Any], _prompt: str, _models: Sequence[str | None]) -> int:
    return count_tokens(document.get("input"))


def _asked(_document: dict[str, Any], _body: bytes) -> Asked:
    return Asked(most_tokens=0, may_think=False)


def see_count(document: dict[str, Any] | None, _body: bytes) -> Seen:
    """Read the model and the count of an answer that has nothing else to count."""
    if document is None:
        return Seen()
    return Seen(model=name_of(document, "model"), usage=parse_usage(document))


def _see_event(seen: Seen, document: dict[str, Any], _size: int) -> None:
    seen.usage = parse_usage(document) or seen.usage  # Azure streams no embeddings, so far


def _meter(_dialect: Dialect, _withhold_usage: bool, _asked: Asked) -> Meter:
    return MediaMeter(_see_event)


EMBEDDINGS = Operation(
    name="embeddings",
    body_format=_FORMAT,
    check=_check_input,
    asked=_asked,
    with_prompt=None,
    prompt_tokens=_prompt_tokens,
    may_add_usage=lambda _document: False,
    meter=_meter,
    see=see_count,
    reader=lambda _asked: DocumentReader(see_count),
    error_event=error_event,
)

"""Embeddings, in which texts that share words are near to each other.

The vector of a text has one place for each of its words, so that the demonstration of a search finds what it should.
Form of the answer: recorded in openllmetry, 2024-02; OpenAI's client asks for base64 unless told otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from . import tokens
from .faults import invalid
from .operations import Asked, Made, Operation, Refused, choice, integer, missing, parse_json, prompt_usage, with_usage
from .production import Work

MOST_INPUTS = 2048
MOST_TOKENS = 8192
"""Of a request, and of each of its inputs (Microsoft's page on embeddings, 2026)."""

_DIMENSIONS = {"text-embedding-3-large": 3072, "text-embedding-3-small": 1536, "text-embedding-ada-002": 1536}
_WORD = re.compile(r"\w+")

Input = str | Sequence[int]


def embedding(said: Input, dimensions: int) -> list[float]:
    """Return the vector of a text, or of tokens; its length is 1."""
    words = _WORD.findall(said.lower()) or [said] if isinstance(said, str) else [str(token) for token in said]
    vector = [0.0] * dimensions
    for word in words:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "big") % dimensions] += 1.0 if digest[4] & 1 else -1.0
    length = math.sqrt(math.fsum(value * value for value in vector))
    if not length:  # two words took each other away
        vector[0] = length = 1.0
    return [value / length for value in vector]


def _inputs(document: Mapping[str, Any]) -> list[Input]:
    given = document.get("input")
    if given is None:
        raise missing("input")
    inputs = [given] if isinstance(given, str) or _is_tokens(given) else given
    if not isinstance(inputs, list) or not inputs or not all(_is_input(one) for one in inputs):
        raise Refused(
            invalid(
                "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
            )
        )
    if len(inputs) > MOST_INPUTS:
        raise Refused(_too_many())
    for one in inputs:
        size = _size(one)
        if size > MOST_TOKENS:
            raise Refused(
                invalid(
                    f"This model's maximum context length is {MOST_TOKENS} tokens, however you requested {size} tokens "
                    f"({size} in your prompt; 0 for the completion). Please reduce your prompt; or completion length."
                )
            )
    return inputs


def _too_many() -> Any:
    """In the words of 2023, when the limit was 16 (Mintplex-Labs/anything-llm#184)."""
    return invalid(
        f"Too many inputs. The max number of inputs is {MOST_INPUTS}.  We hope to increase the number of inputs per "
        "request soon. Please contact us through an Azure support request at: "
        "https://go.microsoft.com/fwlink/?linkid=2213926 for further questions."
    )


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)


def _is_input(value: Any) -> bool:
    return (isinstance(value, str) and value != "") or _is_tokens(value)


def _size(one: Input) -> int:
    return tokens.count(one) if isinstance(one, str) else len(one)


def _unchecked(document: Mapping[str, Any]) -> list[Input]:
    given = document.get("input")
    inputs = [given] if isinstance(given, str) or _is_tokens(given) else given
    return [one for one in inputs if _is_input(one)] if isinstance(inputs, list) else []


def _characters(document: Mapping[str, Any]) -> int:
    """A token of an array counts as four characters."""
    return sum(len(one) if isinstance(one, str) else 4 * len(one) for one in _unchecked(document))


def _answer(asked: Asked) -> Made:
    document, script = asked.document, asked.script
    inputs = _inputs(document)
    model = asked.deployment.family
    most = _DIMENSIONS.get(model, 1536)
    dimensions = integer(document, "dimensions", most=most)
    if dimensions is not None and "ada" in model:
        raise Refused(invalid("This model does not support specifying dimensions.", param="dimensions"))
    coding = choice(document, "encoding_format", ("float", "base64"), "float")
    usage = prompt_usage(sum(map(_size, inputs)), script)
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _coded(embedding(one, dimensions or most), coding)}
            for index, one in enumerate(inputs)
        ],
        "model": script.model or model,
        **with_usage({"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens}, script),
    }
    return Made(parts=[orjson.dumps(answer)], work=Work(prompt=usage, rate=script.tokens_per_second), positions=[0])


def _coded(vector: list[float], coding: str) -> str | list[float]:
    """Return a vector as JSON contains it; base64 is of little-endian numbers of four bytes."""
    return base64.b64encode(array("f", vector).tobytes()).decode() if coding == "base64" else vector


EMBEDDINGS = Operation(
    path="embeddings",
    name="Embeddings_Create",
    verb="embeddings",
    ability="embeddings",
    parse=parse_json,
    characters=_characters,
    prompt_tokens=lambda document: sum(map(_size, _unchecked(document))),
    answer=_answer,
)

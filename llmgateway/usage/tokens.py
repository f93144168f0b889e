"""Estimates tokens: of a text, and of the prompt in a request."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from .images import image_tokens

CHARACTERS_PER_TOKEN = 4
"""Azure assumes the same when it estimates a prompt (Microsoft, quota documentation, 2026)."""

BYTES_PER_FOREIGN_TOKEN = 3
"""The UTF-8 bytes of a token outside ASCII. A Chinese or Japanese character has three bytes and is about one token."""

ONE_TOKEN = 16
"""A longer piece of text, in bytes, is more than one token."""

TOKENS_PER_MESSAGE = 3
"""What each message costs besides its text; the beginning of the answer costs the same (OpenAI cookbook, "How to count
tokens with tiktoken", 2024)."""

BASE64_FOR_FILE_TOKEN = 8
"""The base64 characters of one token of a file. OpenAI puts the text and an image of each page into the prompt (file
inputs, 2025): up to about 1,600 tokens. A page of a PDF that consists of text has about 10,000 bytes."""

BYTES_PER_ENCRYPTED_TOKEN = 4
"""The base64 characters of one token of encrypted reasoning, at least: three bytes. A token of text has about four."""

TOKENS_PER_NAMED_FILE = 16_000
"""A file that was uploaded before has no size here: ten pages."""

BASE64_FOR_AUDIO_TOKEN = {"wav": 1000}
"""The base64 characters of one token of a recording, at least, by format. A second has 10 tokens (OpenAI, pricing of
audio, 2025), and at least 8,000 bytes as WAV."""

BASE64_FOR_COMPRESSED_AUDIO_TOKEN = 128
"""The same for all other formats: a second of MP3 has at least 1,000 bytes."""

LARGEST_COUNT = 2**31
"""The most tokens of one request, estimated or reported. No model has more, and their cost in nanodollars is an integer
that every counter can hold."""

_DEFINITIONS = ("tools", "functions", "response_format", "data_sources")
"""Fields of the body that become a part of the prompt, besides the messages and the prediction."""

_PIECE = re.compile(rb"\s*\S{1,8}|\s+")
_LARGEST_SEARCHED = 4096
_LARGEST_SEARCHED_QUICKLY = 512
_ASCII = bytes(range(128))
_DENSE = bytes(code for code in range(33, 127) if not chr(code).isalpha())
"""Digits and symbols: a token has about two of them, but about four letters."""

_KNOWN_NAMES = frozenset(
    (
        *("arguments", "audio", "content", "custom", "detail", "file", "function", "function_call", "id", "image_url"),
        *("index", "input", "input_audio", "name", "refusal", "role", "text", "tool_call_id", "tool_calls", "type"),
    )
)
"""Names that are a part of the format, and no tokens of their own."""


def text_tokens(text: bytes, *, quickly: bool = False) -> int:
    """Estimate the tokens of *text*, rather too many than too few.

    A short text may be a single token: then it has one for each word, and for each 8 bytes. A longer text has at least
    so many, too, but also one for 4 letters or blanks, for 2 digits or symbols, and for 3 bytes outside ASCII.

    Args:
        quickly: Whether a request waits for the result. Then it may be a tenth higher for a text of short words.
    """
    size = len(text)
    if size <= ONE_TOKEN:
        # The blank after a single word is a part of it: some models write "word ", most write " word".
        return len(_PIECE.findall(text.strip() if len(text.split()) == 1 else text))
    foreign = 0 if text.isascii() else len(text.translate(None, _ASCII))
    dense = size - len(text.translate(None, _DENSE))
    quarters = size - foreign + dense  # of tokens
    weighted = -(-quarters // CHARACTERS_PER_TOKEN) + -(-foreign // BYTES_PER_FOREIGN_TOKEN)
    # To count the pieces takes longer than all of the above, so it is done only for short texts that may have more of
    # them. No text has more than this: each word ends with a blank, and its last piece may have less than 8 bytes.
    blanks = text.count(b" ") + text.count(b"\n") + text.count(b"\t") + text.count(b"\r")
    most_pieces = (7 * (blanks + 1) + size - blanks) // 8 + 1
    if weighted >= most_pieces:
        return weighted
    largest = _LARGEST_SEARCHED_QUICKLY if quickly else _LARGEST_SEARCHED
    return max(weighted, most_pieces if size > largest else len(_PIECE.findall(text)))


def estimate_prompt_tokens(
    document: Mapping[str, Any], prompt_text: str = "", *, models: Sequence[str | None] = ()
) -> int:
    """Estimate the prompt tokens of a request: of everything in its body that becomes a part of the prompt.

    Images, recordings and files count by their kind and their size. What is not known counts by its length.

    Args:
        document: The body of the client, parsed.
        prompt_text: The system prompt that is put before the client's messages.
        models: The names of the model, the most reliable one first. They decide what an image counts.
    """
    counted = _Prompt(models)
    if prompt_text:
        counted.add_message({"content": prompt_text})
    messages = document.get("messages")
    for message in messages if isinstance(messages, list) else ():
        counted.add_message(message)
    counted.add(document.get("prediction"))
    for name in _DEFINITIONS:
        if value := document.get(name):
            counted.add_json(value)
    return min(counted.tokens(), LARGEST_COUNT)


def estimate_input_tokens(
    document: Mapping[str, Any], prompt_text: str = "", *, models: Sequence[str | None] = ()
) -> int:
    """Estimate the prompt tokens of a request to the Responses API, without those of the responses that it continues.

    Args:
        document, models: As for :func:`estimate_prompt_tokens`.
        prompt_text: The system prompt that is put before the client's instructions.
    """
    counted = _Prompt(models)
    for text in (prompt_text, document.get("instructions")):
        if text:
            counted.add_message({"content": text})
    given = document.get("input")
    for item in given if isinstance(given, list) else (given,):
        counted.add_message({"content": item} if isinstance(item, str) else item)
    for name in ("tools", "text", "prompt"):
        if value := document.get(name):
            counted.add_json(value)
    return min(counted.tokens(), LARGEST_COUNT)


def estimate_predicted_tokens(document: Mapping[str, Any]) -> int:
    """Estimate the tokens of the predicted output in a request; 0 if it has none."""
    prediction = document.get("prediction")
    if prediction is None:
        return 0
    counted = _Prompt(())
    counted.add(prediction)
    return min(counted.tokens(), LARGEST_COUNT)


def estimate_audio_tokens(document: Mapping[str, Any]) -> int:
    """Estimate the tokens of the recordings in a request. They are a part of its prompt tokens."""
    messages = document.get("messages")
    parts = [
        part
        for message in (messages if isinstance(messages, list) else ())
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        for part in message["content"]
    ]
    recordings = [part["input_audio"] for part in parts if isinstance(part, dict) and "input_audio" in part]
    return min(sum(map(_audio_tokens, recordings)), LARGEST_COUNT)


class _Prompt:
    """Collects what becomes a part of the prompt."""

    def __init__(self, models: Sequence[str | None]) -> None:
        self._models = models
        self._texts: list[str] = []
        self._tokens = TOKENS_PER_MESSAGE

    def tokens(self) -> int:
        texts = "\n".join(self._texts).encode("utf-8", "surrogatepass")
        return self._tokens + (text_tokens(texts, quickly=True) if texts else 0)

    def add_message(self, message: Any) -> None:
        self._tokens += TOKENS_PER_MESSAGE
        if isinstance(message, dict) and isinstance(content := message.get("content"), str):
            self._texts.append(content)
            if len(message) > 2:
                self.add({name: message[name] for name in message if name not in ("role", "content")})
        else:
            self.add(message)

    def add(self, value: Any) -> None:
        """Add every text and number in *value*, and every name that is not a part of the format."""
        unvisited = [value]
        while unvisited:
            value = unvisited.pop()
            if isinstance(value, str):
                self._texts.append(value)
            elif isinstance(value, list):
                unvisited.extend(value)
            elif isinstance(value, dict):
                unvisited.extend(self._without_media(value))
            elif value is not None and not isinstance(value, bool):
                self._texts.append(str(value))

    def add_json(self, value: Any) -> None:
        self._tokens += _json_tokens(value)

    def _without_media(self, part: dict[str, Any]) -> list[Any]:
        """Count the images, recordings and files in *part*, and return everything else that is in it."""
        rest: list[Any] = []
        for name, value in part.items():
            if name == "image_url":
                self._tokens += image_tokens(*self._models).of(_detail(part, value))
            elif name == "input_audio":
                self._tokens += _audio_tokens(value)
            elif name == "file":
                self._tokens += _file_tokens(value)
                if isinstance(value, dict):
                    rest.append(value.get("filename"))
            elif name == "file_data" or (name == "file_id" and part.get("type") == "input_file"):
                self._tokens += _file_tokens({name: value})
            elif name == "file_id" and part.get("type") == "input_image":
                self._tokens += image_tokens(*self._models).of(part.get("detail"))
            elif name == "file_url":
                self._tokens += TOKENS_PER_NAMED_FILE
            elif name == "encrypted_content" and isinstance(value, str):
                self._tokens += len(value) // BYTES_PER_ENCRYPTED_TOKEN
            elif name not in ("role", "type"):
                rest.append(value)
                if name not in _KNOWN_NAMES:
                    rest.append(name)
        return rest


def _detail(part: dict[str, Any], image: Any) -> Any:
    return image.get("detail") if isinstance(image, dict) else part.get("detail")


def _audio_tokens(recording: Any) -> int:
    data, kind = (recording.get("data"), recording.get("format")) if isinstance(recording, dict) else (None, None)
    if not isinstance(data, str):
        return _json_tokens(recording)
    for_token = BASE64_FOR_AUDIO_TOKEN.get(kind) if isinstance(kind, str) else None
    return -(-len(data) // (for_token or BASE64_FOR_COMPRESSED_AUDIO_TOKEN))


def _file_tokens(file: Any) -> int:
    data = file.get("file_data") if isinstance(file, dict) else None
    if isinstance(data, str):
        return -(-len(data) // BASE64_FOR_FILE_TOKEN)
    if isinstance(file, dict) and isinstance(file.get("file_id"), str):
        return TOKENS_PER_NAMED_FILE
    return _json_tokens(file)


def _json_tokens(value: Any) -> int:
    try:
        size = len(orjson.dumps(value))
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, or more than 254 levels
        size = len(json.dumps(value))
    return -(-size // CHARACTERS_PER_TOKEN)

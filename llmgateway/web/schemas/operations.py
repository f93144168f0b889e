"""What ``/docs`` shows of the requests that are relayed to Azure, besides chat completions. Azure checks them."""

from __future__ import annotations

from typing import Any

from .users import RATE_LIMIT_HEADERS

_MODEL = {
    "type": "string",
    "description": "One of `GET /v1/models`. May be missing if the gateway has only one.",
}
_FILE = {"type": "string", "format": "binary"}
_TEXT_OR_TOKENS = {
    "description": "A text, a list of texts, a list of tokens, or a list of such lists.",
    "oneOf": [{"type": "string"}, {"type": "array", "items": {}}],
}


def json_request(required: list[str], properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """Return the request body object of a JSON body."""
    return _request("application/json", required, properties, example=example)


def form_request(required: list[str], properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    """Return the request body object of a form with files."""
    return _request("multipart/form-data", required, properties, example=example)


def _request(kind: str, required: list[str], properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": required,
        "additionalProperties": True,
        "properties": {"model": _MODEL, **properties},
    }
    return {"required": True, "content": {kind: {"schema": schema, **more}}}


def answer(example: dict[str, Any] | None = None, *others: str) -> dict[str, Any]:
    """Return the response object.

    Args:
        example: A JSON document; None if the answer is not JSON.
        others: Further media types.
    """
    content: dict[str, Any] = {kind: {"schema": {"type": "string"}} for kind in others}
    if example is not None:
        content["application/json"] = {
            "schema": {"type": "object", "additionalProperties": True},
            "example": example,
        }
    return {"description": "Azure's answer as it came.", "headers": RATE_LIMIT_HEADERS, "content": content}


EVENTS = "text/event-stream"

COMPLETION_REQUEST = json_request(
    ["prompt"],
    {"prompt": _TEXT_OR_TOKENS, "stream": {"type": "boolean", "description": "Send the answer as it is written."}},
    {"model": "gpt-35-turbo-instruct", "prompt": "Once upon a time", "max_tokens": 50},
)
COMPLETION_ANSWER = answer(
    {
        "id": "cmpl-9aBc",
        "object": "text_completion",
        "created": 1795824000,
        "model": "gpt-35-turbo-instruct",
        "choices": [{"text": ", there was a king.", "index": 0, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10},
    },
    EVENTS,
)
EMBEDDING_REQUEST = json_request(
    ["input"],
    {
        "input": _TEXT_OR_TOKENS,
        "encoding_format": {"type": "string", "enum": ["float", "base64"]},
        "dimensions": {"type": "integer"},
    },
    {"model": "text-embedding-3-small", "input": ["a text", "another one"]},
)
EMBEDDING_ANSWER = answer(
    {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.0123, -0.0456]}],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }
)
_IMAGE_FIELDS = {
    "prompt": {"type": "string", "description": "What the image shall show."},
    "n": {"type": "integer", "description": "How many images."},
    "size": {"type": "string", "example": "1024x1024"},
    "quality": {"type": "string", "example": "medium"},
    "stream": {"type": "boolean", "description": "Send images while they are made."},
}
IMAGE_REQUEST = json_request(
    ["prompt"], _IMAGE_FIELDS, {"model": "gpt-image-1", "prompt": "a cat on a bicycle", "size": "1024x1024"}
)
IMAGE_EDIT_REQUEST = form_request(
    ["image", "prompt"],
    {"image": {"type": "array", "items": _FILE, "description": "One or more images."}, "mask": _FILE, **_IMAGE_FIELDS},
    {"model": "gpt-image-1", "prompt": "add a cat", "image": ["(a file)"]},
)
IMAGE_ANSWER = answer(
    {
        "created": 1795824000,
        "data": [{"b64_json": "iVBORw0KGgo="}],
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 9},
            "output_tokens": 1056,
            "total_tokens": 1065,
        },
    },
    EVENTS,
)
_RECORDING = {**_FILE, "description": "flac, m4a, mp3, mp4, ogg, wav or webm."}
TRANSCRIPTION_REQUEST = form_request(
    ["file"],
    {
        "file": _RECORDING,
        "language": {"type": "string", "example": "en"},
        "prompt": {"type": "string", "description": "Words that occur in it."},
        "response_format": {"type": "string", "enum": ["json", "text", "srt", "verbose_json", "vtt"]},
        "stream": {"type": "boolean", "description": "Send the text as it is written."},
    },
    {"model": "gpt-4o-transcribe", "file": "(a file)"},
)
TRANSLATION_REQUEST = form_request(
    ["file"],
    {
        "file": _RECORDING,
        "prompt": {"type": "string", "description": "Words that occur in it, in English."},
        "response_format": {"type": "string", "enum": ["json", "text", "srt", "verbose_json", "vtt"]},
    },
    {"model": "whisper", "file": "(a file)"},
)
TRANSCRIPTION_ANSWER = answer(
    {"text": "Hello, how are you?", "usage": {"type": "duration", "seconds": 3}}, "text/plain", EVENTS
)
TRANSLATION_ANSWER = answer({"text": "Hello, how are you?"}, "text/plain")
SPEECH_REQUEST = json_request(
    ["input", "voice"],
    {
        "input": {"type": "string", "description": "The text."},
        "voice": {"type": "string", "example": "alloy"},
        "response_format": {"type": "string", "enum": ["mp3", "opus", "aac", "flac", "wav", "pcm"]},
        "stream_format": {"type": "string", "enum": ["audio", "sse"]},
    },
    {"model": "gpt-4o-mini-tts", "input": "Hello, how are you?", "voice": "alloy"},
)
SPEECH_ANSWER = answer(None, "audio/mpeg", EVENTS)

"""Says what is wrong with a body that is not JSON, and where, without quoting it: it is a private conversation."""

from __future__ import annotations

import codecs
import re

import orjson

_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FIXED_TEXT = re.compile(r"[A-Za-z0-9 ,':}\]-]{1,80}\Z")

_NOT_JSON = (
    (re.compile(rb"NaN"), "NaN is not JSON. Send null in its place"),
    (re.compile(rb"-?Infinity"), "Infinity is not JSON. Send null in its place"),
    (re.compile(rb"True|False|None"), "this is Python. Write the body with json.dumps()"),
    (re.compile(rb"undefined"), "undefined is not JSON. Write the body with JSON.stringify()"),
    (re.compile(rb"'"), "strings need double quotes"),
    (re.compile(rb"/[/*]"), "comments are not JSON"),
)
"""What programs and people write in place of JSON, and what to do about it."""


def why_not_json(body: bytes) -> str:
    """Return what to append to "The body is not valid JSON": the byte, counted from 0, and the reason.

    It is empty if orjson accepts *body*.
    """
    coding = _wrong_coding(body)
    if coding is not None:
        return coding
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        place = len(error.doc[: error.pos].encode())  # orjson counts characters
        return f" at byte {place}: {_reason(body, place, error)}"
    return ""


def _wrong_coding(body: bytes) -> str | None:
    if body.startswith(codecs.BOM_UTF8):
        return ": it begins with a byte order mark. Send UTF-8 without one"
    if body.startswith(_UTF_16) or b"\0" in body[:2]:
        # A JSON text begins with an ASCII character, and the second one is no NUL (RFC 4627, section 3).
        return ": it is UTF-16 or UTF-32, not UTF-8. Send UTF-8"
    if body.startswith(_GZIP):
        return ": it is compressed with gzip. Send it uncompressed"
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f": it is not UTF-8 at byte {error.start}. Is it Latin-1 or Windows-1252? Send UTF-8"
    return None


def _reason(body: bytes, place: int, error: orjson.JSONDecodeError) -> str:
    beginning = place - 1 if body[place - 1 : place] == b"-" else place  # orjson points behind the sign
    for pattern, reason in _NOT_JSON:
        if pattern.match(body, beginning):
            return reason
    if "infinity" in error.msg:
        return "the number is too large"
    # orjson's messages are fixed texts. Should a later version quote the body, its message is left out.
    return error.msg if _FIXED_TEXT.match(error.msg) else "unexpected character"

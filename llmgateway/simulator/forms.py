"""Rewrites a finished answer as other servers, or machines on the way, would send it.

The JSON may be spaced in other ways, the lines of an event stream may be any that the HTML standard accepts
("Server-sent events"), and the body may be compressed although nobody asked for that.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from .messages import Reply
from .scripts import ORDINARY, Script

_DATA = b"data: "
_BOM = "\ufeff".encode()
_ENDS = {"lf": [b"\n"], "crlf": [b"\r\n"], "cr": [b"\r"], "mixed": [b"\n", b"\r\n", b"\r"]}
_WINDOWS = {"gzip": 31, "deflate": 15, "raw_deflate": -15}
"""The *wbits* of zlib. ``deflate`` should be zlib's format (RFC 9110, 8.4.1.2), but some servers send the raw one."""


def rewrite(reply: Reply, script: Script) -> Reply:
    """Return *reply* in the form that the script wants, and with its headers."""
    if script is ORDINARY:
        return reply
    parts = list(reply.parts)
    kind = reply.headers.get("Content-Type", "")
    if kind.startswith("text/event-stream"):
        parts = _events(parts, script)
    elif script.json is not None and kind.startswith("application/json"):
        parts = [_document(part, script.json) for part in parts]
    headers = dict(script.headers)
    if script.compress is not None:
        parts = _compressed(parts, _WINDOWS[script.compress])
        headers = {"Content-Encoding": script.compress.removeprefix("raw_"), **headers}
    return replace(reply, parts=parts, headers=_replaced(reply.headers, headers))


def _replaced(headers: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    names = {name.lower() for name in changes}
    kept = {name: value for name, value in headers.items() if name.lower() not in names}
    return kept | {name: value for name, value in changes.items() if value is not None}


def _events(parts: Sequence[bytes], script: Script) -> list[bytes]:
    ends = _ENDS[script.line_end]
    if script.json or script.lines_before or not script.blank_after_colon or ends != _ENDS["lf"]:
        parts = [_event(part, script, ends[rank % len(ends)]) for rank, part in enumerate(parts)]
    parts = list(parts)
    if parts and script.bom:
        parts[0] = _BOM + parts[0]
    for _ in range(script.unfinished if parts else 0):
        end = b"\r\n" if parts[-1].endswith(b"\r\n") else parts[-1][-1:]
        parts[-1] = parts[-1].removesuffix(end)
    return parts


def _event(part: bytes, script: Script, end: bytes) -> bytes:
    *named, payload = part.rstrip(b"\n").split(b"\n")
    payload = payload.removeprefix(_DATA)
    if script.json is not None and payload.startswith(b"{"):
        payload = _document(payload, script.json)
    name = _DATA if script.blank_after_colon else _DATA.rstrip()
    lines = [line.encode() for line in script.lines_before] + named
    lines += [name + line for line in payload.split(b"\n")]
    return b"".join(line + end for line in (*lines, b""))


def _document(document: bytes, form: str) -> bytes:
    return _JSON[form](orjson.loads(document))


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _reversed(part) for name, part in reversed(value.items())}
    return [_reversed(part) for part in value] if isinstance(value, list) else value


_JSON: Mapping[str, Callable[[Any], bytes]] = {
    "spaced": lambda value: json.dumps(value).encode(),
    "shuffled": lambda value: orjson.dumps(_reversed(value)),
    "pretty": lambda value: orjson.dumps(value, option=orjson.OPT_INDENT_2),
}


def _compressed(parts: Sequence[bytes], window: int) -> list[bytes]:
    """Compress the parts, each one so that it can be read when it comes, as Nginx does with streams."""
    packer = zlib.compressobj(wbits=window)
    packed = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    if packed:
        packed[-1] += packer.flush()
    return packed

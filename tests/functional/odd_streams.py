"""Streams that differ from those in Azure's documentation, as scripts of the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANSWER = 'größer\u2028als "alles" andere\n\nin der \N{GRINNING FACE} Welt: {}[],\\n data: [DONE]'

_COUNTED: dict[str, dict[str, Any]] = {
    "as Azure": {},
    "thinking": {"reasoning_tokens": 50},
    "visible reasoning": {"reasoning_tokens": 20, "visible_reasoning": True},
    "several words in an event": {"tokens_per_event": 4},
    "annotations": {"prompt_annotations": True},
    "outage of the filter": {"filter": "outage"},
    "no filter": {"filter": "absent"},
    "late block": {"filter": "late_block"},
    "bare count": {"usage": "bare"},
    "floats": {"usage": "floats"},
    "Grok": {"usage": "grok", "reasoning_tokens": 30, "visible_reasoning": True, "model": "grok-3-mini-high"},
    "DeepSeek": {"usage": "deepseek", "filter": "absent", "reasoning_tokens": 30, "visible_reasoning": True},
    "Mistral": {"usage": "bare", "usage_in": "finish", "filter": "absent"},
    "count in every event": {"usage_in": "every"},
    "placeholder": {"usage_in": "placeholder"},
    "tier and model": {"service_tier": "priority", "model": "router-pick"},
    "CRLF": {"line_end": "crlf"},
    "CR": {"line_end": "cr"},
    "mixed line ends": {"line_end": "mixed"},
    "no blank": {"blank_after_colon": False},
    "named events": {"lines_before": ["event: message", "id: 7", "retry: 1000"]},
    "comments": {"lines_before": [": ping"]},
    "comments of their own": {"lines_before": [": ping", ""]},
    "BOM": {"bom": True},
    "no empty line at the end": {"unfinished": 1},
    "no line end at the end": {"unfinished": 2},
    "spaced": {"json": "spaced"},
    "shuffled": {"json": "shuffled"},
    "several data lines": {"json": "pretty"},
    "several data lines, CR, no blank": {"json": "pretty", "line_end": "cr", "blank_after_colon": False},
    "no content type": {"headers": {"Content-Type": None}},
    "text/plain": {"headers": {"Content-Type": "text/plain"}},
    "octets": {"headers": {"Content-Type": "application/octet-stream"}},
    "no content type, comments, BOM": {"headers": {"Content-Type": None}, "lines_before": [": hi"], "bom": True},
    "gzip": {"compress": "gzip"},
    "deflate": {"compress": "deflate"},
    "raw deflate": {"compress": "raw_deflate"},
    "gzip in pieces, CRLF": {"compress": "gzip", "split": 7, "line_end": "crlf"},
    "gzip without content type": {"compress": "gzip", "headers": {"Content-Type": None}},
    "a byte at a time": {"split": 1},
    "a byte at a time, CRLF": {"split": 1, "line_end": "crlf"},
    "cut in the line ends": {"split": 65_537, "tokens_per_event": 10**6, "answer": ANSWER * 2500},
    "large spaced event, CRLF": {
        "split": 1460,
        "tokens_per_event": 10**6,
        "answer": ANSWER * 2500,
        "json": "spaced",
        "line_end": "crlf",
    },
    "ends with the connection": {"framing": "close"},
    "has a length": {"framing": "length"},
    "refusal": {"answer_in": "refusal"},
    "old function call": {"answer_in": "function_call"},
    "custom tool call": {"answer_in": "custom"},
}
_UNCOUNTED: dict[str, dict[str, Any]] = {
    "no usage": {"usage": "missing"},
    "usage null": {"usage": "null"},
    "usage {}": {"usage": "empty"},
    "usage of nulls": {"usage": "unfilled"},
    "zeros": {"usage": "zeros"},
    "zeros in every event": {"usage": "zeros", "usage_in": "every"},
    "no usage, spaced": {"usage": "missing", "json": "spaced"},
    "no usage, several data lines": {"usage": "missing", "json": "pretty"},
    "no usage, reasoning": {"usage": "missing", "reasoning_tokens": 20, "visible_reasoning": True},
    "no usage, refusal": {"usage": "missing", "answer_in": "refusal"},
    "no usage, function call": {"usage": "missing", "answer_in": "function_call"},
}


@dataclass(frozen=True)
class OddStream:
    """One stream: how Azure sends it, and what a client has to read."""

    name: str
    fields: Mapping[str, Any]
    """Of the script, as JSON."""
    counted: bool
    """Whether the stream tells its tokens."""

    @property
    def script(self) -> dict[str, Any]:
        return {"answer": ANSWER, **self.fields}

    @property
    def text(self) -> str:
        """What is in the ``content`` of its events, all together."""
        carried = self.fields.get("answer_in", "content") == "content"
        return str(self.script["answer"]) if carried else ""


def _both_modes(streams: Mapping[str, dict[str, Any]], *, counted: bool) -> list[OddStream]:
    """Each stream with the filter in its usual mode, and those that leave the choice in asynchronous mode, too."""
    usual = [OddStream(name, fields, counted) for name, fields in streams.items()]
    return usual + [
        OddStream(f"{name}, asynchronous filter", {**fields, "filter": "asynchronous"}, counted)
        for name, fields in streams.items()
        if "filter" not in fields
    ]


ODD_STREAMS = [*_both_modes(_COUNTED, counted=True), *_both_modes(_UNCOUNTED, counted=False)]

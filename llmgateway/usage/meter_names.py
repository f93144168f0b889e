"""Reads the names of Azure's meters, which the price list and the bills have in common.

They follow no documented rule. The words below are those of names that were seen in Azure's retail price list and in
exports of costs (2026-11), such as ``gpt 4o 1120 cached Inp glbl Tokens`` and ``5.6 sol ShortCo Cd Inp PP Gl``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_WORDS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("inp", "inpt", "input", "in"), ("direction", "prompt")),
    **dict.fromkeys(("outp", "outpt", "opt", "output", "out"), ("direction", "completion")),
    **dict.fromkeys(("cached", "cchd", "ccchd", "cd", "cache", "cach", "ch"), ("cache", "cached")),
    **dict.fromkeys(("wr", "write"), ("cache", "cache_write")),
    **dict.fromkeys(("glbl", "gl", "glb", "global"), ("scope", "global")),
    **dict.fromkeys(("dzone", "dz", "dzn", "datazone"), ("scope", "zone")),
    **dict.fromkeys(("regnl", "regional", "rgnl", "regn"), ("scope", "regional")),
    "pp": ("tier", "priority"),
    **dict.fromkeys(("flex", "fl"), ("tier", "flex")),
    "batch": ("tier", "batch"),
    **dict.fromkeys(("shortco", "shco"), ("length", "short")),
    **dict.fromkeys(("longco", "loco"), ("length", "long")),
}
_MEDIA = {
    **dict.fromkeys(("aud", "audio"), "audio"),
    **dict.fromkeys(("img", "image"), "image"),
    **dict.fromkeys(("txt", "text"), "text"),
}
_IGNORED = {"tokens", "token", "tkn", "1m", "1k", "std", "new"}
# What is written without a space in some names: "gpt4omini-aud1217", "BatchInp", "realtimePrvw", "Data Zone".
_JOINED = re.compile(
    r"(?<=aud)(?=\d{4})|(?<=txt)(?=\d{4})|(?<=mini)(?=\d{4})|(?<=batch)(?=inp|outp)|(?<=realtime)(?=prvw)"
)


class MeterName(NamedTuple):
    """What the name of a meter says. ``None``: it says nothing about that."""

    words: tuple[str, ...]
    """The words that are left, in lower case: the model, and its version as a date (``1120``)."""
    model_words: tuple[str, ...]
    """The same with the words of ``media`` where they were, because they can be part of a model's name."""
    direction: str | None
    """``prompt`` or ``completion``."""
    cache: str | None
    """``cached`` or ``cache_write``."""
    media: tuple[str, ...]
    """``audio``, ``image`` and ``text``, as often as they are named."""
    scope: str | None
    """Type of deployment: ``global``, ``zone`` or ``regional``."""
    tier: str
    """``default``, ``priority``, ``flex`` or ``batch``."""
    long_context: bool


@lru_cache(maxsize=4096)
def read_meter_name(name: str) -> MeterName | None:
    """Return what *name* says; None if it contradicts itself."""
    said: dict[str, str] = {}
    words: list[tuple[str, bool]] = []
    media = []
    parts = _parts(name)
    for position, word in enumerate(parts):
        meaning = _WORDS.get(word)
        if meaning is not None:
            if said.setdefault(*meaning) != meaning[1]:
                return None
        elif word in _MEDIA and parts[position + 1 : position + 2] != ["embedding"]:
            media.append(_MEDIA[word])
            words.append((_MEDIA[word], True))
        elif word not in _IGNORED:
            words.append((word, False))
    return MeterName(
        words=tuple(word for word, is_medium in words if not is_medium),
        model_words=tuple(word for word, _ in words),
        direction=said.get("direction"),
        cache=said.get("cache"),
        media=tuple(media),
        scope=said.get("scope"),
        tier=said.get("tier", "default"),
        long_context=said.get("length") == "long",
    )


def _parts(name: str) -> list[str]:
    text = name.lower().replace("data zone", "datazone")
    return [part for word in re.split(r"[\s_-]+", text) for part in _JOINED.split(word) if part]

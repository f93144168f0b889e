"""Knows how many tokens an image in a prompt has, by the family of the model.

The size of the image is not known: it may be behind an address. So an image has the most tokens that are possible.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, NamedTuple


class ImageTokens(NamedTuple):
    """The most tokens of one image, by the ``detail`` that the request asks for."""

    low: int
    high: int
    auto: int
    """Without ``detail``, too."""
    original: int

    def of(self, detail: Any) -> int:
        """Return the tokens for *detail*; those of ``auto`` if it is not known."""
        if detail == "low":
            return self.low
        if detail == "high":
            return self.high
        return self.original if detail == "original" else self.auto


_MOST_TILES = 8
"""An image is made to fit into 2,048 x 2,048 pixels, and its shorter side into 768. Then 8 tiles of 512 pixels cover
it."""


def _tiles(base: int, tile: int) -> ImageTokens:
    most = base + _MOST_TILES * tile
    return ImageTokens(low=base, high=most, auto=most, original=most)


def _patches(tokens: float, high: int = 1_536, *, auto: int | None = None, original: int | None = None) -> ImageTokens:
    """Return the tokens of a model that splits images into patches of 32 x 32 pixels.

    ``"detail": "low"`` changes nothing there (measured by users in OpenAI's forum, 2025 and 2026).

    Args:
        tokens: Tokens of a patch.
        high: The most patches. Larger images are made smaller.
        auto: The same without a detail, if it differs.
        original: The same with ``"detail": "original"``, if it differs.
    """
    most = math.ceil(tokens * high)
    return ImageTokens(
        low=most, high=most, auto=math.ceil(tokens * (auto or high)), original=math.ceil(tokens * (original or high))
    )


def _always(tokens: int) -> ImageTokens:
    return ImageTokens(tokens, tokens, tokens, tokens)


USUAL = _tiles(85, 170)
"""What is assumed about models that are not in the table. It is what GPT-4o needs."""

# OpenAI, "Images and vision" (2026-09). The 1.2 tokens of GPT-5.2 and later are not documented, but measured (OpenAI's
# forum, 2026-03). From GPT-5.6 on, an image keeps its size, up to 30,000 patches; without a detail, 10,000 are assumed:
# a photo of 10 megapixels. xAI, "Image understanding" (2025): up to 7 tiles of 256 tokens. Mistral, "Vision" (2025): a
# token for 16 x 16 pixels of up to 1,024 x 1,024, or for 28 x 28 of up to 1,540 x 1,540, and one for each line of them.
# The first pattern that is found counts.
_FAMILIES: tuple[tuple[re.Pattern[str], ImageTokens], ...] = tuple(
    (re.compile(rf"(?<![a-z0-9]){pattern}"), tokens)
    for pattern, tokens in (
        (r"gpt-?4o-mini", _tiles(2_833, 5_667)),
        (r"gpt-?4[.-]?1-mini", _patches(1.62)),
        (r"gpt-?4[.-]?1-nano", _patches(2.46)),
        (r"gpt-?5.*mini", _patches(1.62)),
        (r"gpt-?5.*nano", _patches(2.46)),
        (r"gpt-?5[.-]4(?!\d)", _patches(1.2, 2_500, original=10_000)),
        (r"gpt-?5[.-]5(?!\d)", _patches(1.2, 2_500, auto=10_000, original=10_000)),
        (r"gpt-?(5[.-][6-9]|[6-9])(?!\d)", _patches(1.2, 2_500, auto=10_000, original=30_000)),
        (r"gpt-?5([.-][23](?!\d)|.*codex)", _patches(1.2)),
        (r"gpt-?5", _tiles(70, 140)),
        (r"(o4-mini|codex)", _patches(1.72)),
        (r"o[13](?![a-z0-9])", _tiles(75, 150)),
        (r"computer-use", _tiles(65, 129)),
        (r"grok", _always(1_792)),
        (r"pixtral", _always(64 * 65)),
        (r"mistral", _always(55 * 56)),
    )
)


def image_tokens(*models: str | None) -> ImageTokens:
    """Return the tokens of an image.

    Args:
        models: The names of the model, the most reliable one first. The first one that is known counts.
    """
    return next((found for name in models if name and (found := _family(name)) is not None), USUAL)


@lru_cache(maxsize=1000)
def _family(name: str) -> ImageTokens | None:
    lower = name.lower()
    return next((tokens for pattern, tokens in _FAMILIES if pattern.search(lower)), None)

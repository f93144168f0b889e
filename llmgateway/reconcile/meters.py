"""Says which model and which kind of tokens a meter of a bill counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

from ..usage.meter_names import MeterName, read_meter_name
from ..usage.models import without_version
from ..usage.pricing import letters_of, shipped_table

PROMPT, CACHED, COMPLETION = KINDS = ("prompt", "cached", "completion")
"""The kinds of tokens that are compared, as the gateway counts them. ``prompt`` are those that were not in the cache,
also those that were written to it, and those of audio and images. ``completion`` includes reasoning and audio."""

# Names that say neither the model nor a kind of token that the gateway counts.
_OTHER_USES = {
    "training",
    "trng",
    "hosting",
    "hstng",
    "grader",
    "calls",
    "search",
    "images",
    "characters",
    "unit",
    "base",
}
_ABBREVIATIONS = {"mn": "mini", "rt": "realtime", "tcrb": "transcribe", "trscb": "transcribe", "prvw": "preview"}
_DATED = re.compile(r"-20\d\d-(\d\d)-(\d\d)$")
_SIZE = re.compile(r"(4|8|16|128)k$")  # of the context: "gpt-35-turbo16K"
_FAMILIES = ("", "gpt", "grok", "deepseek", "mai", "mistral", "phi", "llama", "kimi", "cohere")
# Models whose meters have a name of their own, by the letters of theirs (Azure's retail price list, 2026-10).
_BILLED_AS = {
    "grok41fastreasoning": "grok-4.1",
    "grok41fastnonreasoning": "grok-4.1",
    "grok420reasoning": "grok-4.2",
    "grok420nonreasoning": "grok-4.2",
    "codestral2501": "codestral",
    "deepseekv32speciale": "deepseek-v3.2-sp",
}
# Identifiers of https://prices.azure.com/api/retail/prices (2026-09-25), whose names say the same.
_BY_ID = {
    "3821dc67-ae8c-55ff-881c-670ba1933db6": "GPT 5 Inpt Glbl",
    "d8d5a4d3-4908-58b6-ad10-aa8ff748c8e8": "GPT 5 cchd Inpt Glbl",
    "0cfb9629-b1a5-5b77-a654-813c8b6cc246": "GPT 5 outpt Glbl",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What a meter counts."""

    model: str
    """Name of the model without its version, as price lists write it if they know it."""
    version: str | None = None
    """The version as the meter has it: month and day, ``1120``."""
    kind: str
    """One of :data:`KINDS`."""
    medium: str | None = None
    """``audio``, ``image`` or ``text``, if the meter says so."""
    cache_write: bool = False
    scope: str | None = None
    """``global``, ``zone`` or ``regional``."""
    tier: str = "default"
    long_context: bool = False


def meter_of(
    name: str, *, meter_id: str = "", product: str = "", own: Mapping[str, Meter] | None = None
) -> Meter | None:
    """Return what a meter counts; None if that is not known.

    Args:
        name: Its name in the export.
        meter_id: Its identifier. It takes precedence over the name.
        product: Its subcategory, such as ``Azure Grok Models``. It tells the family if the name does not.
        own: What somebody says about further meters, by identifier or name in lower case. Takes precedence.
    """
    for known in (meter_id.lower(), name.strip().lower()):
        if own and known in own:
            return own[known]
    return _meter(_BY_ID.get(meter_id.lower(), name), product.lower())


def own_meter(text: str) -> tuple[str, Meter]:
    """Read ``METER=MODEL:KIND``, which somebody says about a meter that is not known.

    Raises:
        ValueError: it is written in another way; the text says how.
    """
    meter, _, meaning = text.rpartition("=")
    model, _, kind = meaning.rpartition(":")
    if not meter.strip() or not model.strip() or kind not in KINDS:
        raise ValueError(f"{text!r} is not METER=MODEL:KIND, where KIND is one of {', '.join(KINDS)}.")
    return meter.strip().lower(), Meter(model=model.strip(), kind=kind)


@lru_cache(maxsize=4096)
def model_key(name: str) -> str:
    """Return what names of the same model have in common: no version, no separators, no upper case."""
    name = name.strip().lower().rpartition("/")[2]
    while (shorter := without_version(name)) != name:
        name = shorter
    key = letters_of(name)
    return letters_of(_BILLED_AS.get(key, key))


@lru_cache(maxsize=4096)
def _meter(name: str, product: str) -> Meter | None:
    said = read_meter_name(name)
    if said is None or not said.words or _OTHER_USES & {*said.words}:
        return None
    if said.cache == "cached" and said.direction == "completion":
        return None
    kind = _kind(said)
    model, version = _model(said, product)
    if kind is None or model is None:
        return None
    return Meter(
        model=model,
        version=version,
        kind=kind,
        medium=said.media[-1] if said.media else None,
        cache_write=said.cache == "cache_write",
        scope=said.scope,
        tier=said.tier,
        long_context=said.long_context,
    )


def _kind(said: MeterName) -> str | None:
    if said.cache is not None:
        return CACHED if said.cache == "cached" else PROMPT
    if said.direction is None:
        # Embeddings have no completion, and their meters say no direction.
        return PROMPT if any("embed" in word for word in said.words) else None
    return said.direction


def _model(said: MeterName, product: str) -> tuple[str | None, str | None]:
    version = next((word for word in said.words if _is_date(word)), None)
    without_media = [_ABBREVIATIONS.get(word, word) for word in said.words if word != version]
    with_media = [_ABBREVIATIONS.get(word, word) for word in said.model_words if word != version]
    known = _known_models()
    names = [*_names(with_media, without_media, product)]
    # The version decides whether a medium is a part of the model's name: there is a gpt-4o-audio-preview of 0603.
    for candidate in (*(f"{name}{version}" for name in names if version), *names):
        if candidate in known:
            return known[candidate], version
    plain = "-".join(without_media)
    return f"gpt-{plain}" if plain[:1].isdigit() else plain or None, version


def _names(with_media: list[str], without_media: list[str], product: str) -> Iterator[str]:
    """Yield the letters of what the model can be called, the most specific name first."""
    families = sorted(_FAMILIES, key=lambda family: not (family and family in product))
    # A medium stands for the kind of token, or is a part of the model's name, or both: "Image 2.5 Image Input".
    once = [*dict.fromkeys(with_media)]
    named = [word for number, word in enumerate(once) if word != "text" or number == 0]
    fewer = named[:-1] if len(named) > len(without_media) + 1 else named
    for words in (named, fewer, without_media):
        name = letters_of("".join(words))
        for ending in ("preview", ""):
            for family in families:
                whole = name if name.startswith(family) else family + name
                yield whole + ending
                yield _SIZE.sub("", whole)


def _is_date(word: str) -> bool:
    return word.isdigit() and len(word) in (4, 8)


@cache
def _known_models() -> dict[str, str]:
    """Return the names of the price list without their versions, by their letters."""
    known: dict[str, str] = {}
    for row in shipped_table()["prices"]:
        undated = row["model"]
        while (shorter := without_version(undated)) != undated:
            undated = shorter
        known.setdefault(letters_of(row["model"]), undated)
        known[letters_of(undated)] = undated
        if dated := _DATED.search(row["model"]):
            known[letters_of(undated) + "".join(dated.groups())] = undated
    return known | {letters_of(name): name for name in _BILLED_AS.values()}

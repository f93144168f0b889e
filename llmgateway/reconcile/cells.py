"""Reads the cells of exports: days, numbers, units, tags."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache

_ISO = re.compile(r"(\d{4})-(\d\d?)-(\d\d?)(?:$|[T ])")
_AMERICAN = re.compile(r"(\d\d?)/(\d\d?)/(\d{4})(?:$|[T ,])")
_COMPACT = re.compile(r"(\d{4})(\d\d)(\d\d)$")
_UNIT = re.compile(r"(\d[\d,]*(?:\.\d+)?)?\s*(k|m|b|thousand|million|billion)?s?\s*(tokens?|units?|count)?$")
_FACTORS = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "b": 1e9, "billion": 1e9, None: 1.0}
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)", re.IGNORECASE)
_ACCOUNT = re.compile(r"/accounts/([^/]+)", re.IGNORECASE)


@lru_cache(maxsize=4096)
def utc_day(text: str) -> date:
    """Return the UTC day of ``2026-10-31``, ``10/31/2026`` or a time on it; Azure writes months before days.

    A time with an offset is converted to UTC. One without is in UTC, as in Azure's exports.

    Raises:
        ValueError: it is no day; the text says how days are written.
    """
    text = text.strip()
    try:
        if match := _ISO.match(text):
            if "T" in text or " " in text:
                moment = _moment(text)
                if moment is not None and moment.tzinfo is not None:
                    return moment.astimezone(UTC).date()
            year, month, day = map(int, match.groups())
        elif match := _AMERICAN.match(text):
            month, day, year = map(int, match.groups())
        elif match := _COMPACT.match(text):
            year, month, day = map(int, match.groups())
        else:
            raise ValueError(text)
        return date(year, month, day)
    except ValueError:
        raise ValueError(f"{text!r} is no day like 10/31/2026 (month first) or 2026-10-31") from None


def number(text: str, *, decimal_comma: bool = False) -> float:
    """Return the number in *text*; 0 for an empty cell.

    Args:
        decimal_comma: Whether the table was saved by a spreadsheet that writes 0,5 for a half.

    Raises:
        ValueError: it is no finite number.
    """
    if not text:
        return 0.0
    try:
        value = float(text.replace(".", "").replace(",", ".") if decimal_comma and "," in text else text)
    except ValueError:
        stripped = text.strip().replace(",", "")  # thousands, as in "1,234.5"
        try:
            value = float(stripped) if stripped else 0.0
        except ValueError:
            raise ValueError(f"{text!r} is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no number")
    return value


@lru_cache(maxsize=1024)
def tokens_per_unit(unit: str) -> float | None:
    """Return how many tokens a unit has: 1,000 for ``1K``, 10,000 for ``10K``, 1,000,000 for ``1M``.

    A quantity counts units: 0.0004 of ``10K`` are 4 tokens. None if the unit does not count tokens, such as ``1 Hour``.
    """
    match = _UNIT.match(unit.strip().lower())
    if match is None or not any(match.groups()):
        return None
    count, factor, _ = match.groups()
    return float((count or "1").replace(",", "")) * _FACTORS[factor]


@lru_cache(maxsize=4096)
def tags_of(text: str) -> Mapping[str, str]:
    """Return the tags of a resource, with names in lower case. Tags that cannot be read are none.

    Some exports have them as JSON, some as JSON without its braces: ``"deployment": "chat","cost": "4711"``.
    """
    text = text.strip()
    if not text:
        return {}
    try:
        tags = json.loads(text if text.startswith("{") else f"{{{text}}}")
    except ValueError:
        return {}
    return {str(name).lower(): str(value) for name, value in tags.items()}


@lru_cache(maxsize=4096)
def deployment_in(resource_id: str) -> str | None:
    """Return the deployment that the identifier of a resource names, if it does."""
    match = _DEPLOYMENT.search(resource_id)
    return match[1] if match else None


@lru_cache(maxsize=4096)
def account_in(resource_id: str) -> str | None:
    """Return the Azure OpenAI or Foundry resource in the identifier of a resource."""
    match = _ACCOUNT.search(resource_id)
    return match[1] if match else None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None

"""The meters of a simulated resource: what its bill, and its metrics in Azure Monitor, are made from.

A resource adds every request when it has ended, however it ended. Days are in UTC, as in Azure's bills.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from http import HTTPStatus
from operator import add, attrgetter, itemgetter
from typing import Literal, NamedTuple

from ..records import Usage

Scope = Literal["global", "datazone", "regional"]
"""Where a deployment's requests may be processed, on which the price depends."""

TOKEN_KINDS = (
    "prompt",
    "cached",
    "audio_prompt",
    "image_prompt",
    "completion",
    "audio_completion",
    "image_completion",
)
OTHER_KINDS = ("images", "audio_seconds", "characters")
"""Billed by something else than tokens: images of DALL-E, seconds that whisper listens, characters that tts speaks.
Uses of Azure's own tools have their names: ``web_search``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What Azure's meters know of a request beside its tokens."""

    deployment: str
    """The one that served it, which a spill-over has chosen."""
    model: str
    """With its version: ``gpt-4o-2024-11-20``."""
    operation: str = "chat/completions"
    stream: bool = False
    scope: Scope = "global"
    provisioned: bool = False
    """Tokens cost nothing, because the throughput is paid by the hour."""
    tier: str = "default"
    """The service tier that served it."""
    tier_asked: str = ""
    spilled_from: str | None = None
    """The provisioned deployment that could not serve it."""
    images: int = 0
    audio_seconds: float = 0.0
    characters: int = 0
    tool_uses: Mapping[str, int] = field(default_factory=dict)
    """How often Azure's own tools were used, such as ``web_search``."""
    draws: bool = False
    """The tokens of the completion are those of images."""


class Charge(NamedTuple):
    """One line of a bill."""

    day: date
    region: str
    deployment: str
    model: str
    scope: Scope
    tier: str
    kind: str
    """One of :data:`TOKEN_KINDS` and :data:`OTHER_KINDS`. No token is in two of them; reasoning is completion."""
    quantity: float
    provisioned: bool = False


class Requests(NamedTuple):
    """The dimensions of a metric in Azure Monitor."""

    day: date
    deployment: str
    model: str
    operation: str
    status: int
    stream: bool
    spilled: bool
    tier_asked: str
    tier: str


class Metered(NamedTuple):
    """Requests with equal dimensions, and the tokens that they used."""

    of: Requests
    times: int
    usage: Usage


class _Key(NamedTuple):
    """What is added up together."""

    days: int
    """Since 1970."""
    status: int
    deployment: str
    model: str
    operation: str
    stream: bool
    scope: Scope
    provisioned: bool
    tier: str
    tier_asked: str
    spilled: bool
    draws: bool


@dataclass(slots=True)
class _Sums:
    times: int = 0
    tokens: list[int] = field(default_factory=lambda: [0] * len(Usage.__slots__))
    others: dict[str, float] = field(default_factory=dict)

    @property
    def usage(self) -> Usage:
        return Usage(**dict(zip(Usage.__slots__, self.tokens, strict=True)))


_counts = attrgetter(*Usage.__slots__)


class Meter:
    """The sums of one resource. Thread-safe; adding takes a few microseconds, because load tests wait for it."""

    def __init__(self, *, region: str) -> None:
        self._region = region
        self._lock = threading.Lock()
        self._sums: dict[_Key, _Sums] = {}

    def add(
        self,
        at: float,
        status: int,
        account: Account,
        billed: Usage | None,
        *,
        tool_uses: Mapping[str, int] | None = None,
    ) -> None:
        """Add one request.

        Args:
            at: When it came, in seconds since the epoch.
            billed: The tokens that Azure bills for it, if any.
            tool_uses: How often Azure's own tools were used.
        """
        key = _Key(
            int(at // 86_400),
            status,
            account.deployment,
            account.model,
            account.operation,
            account.stream,
            account.scope,
            account.provisioned,
            account.tier,
            account.tier_asked,
            account.spilled_from is not None,
            account.draws,
        )
        with self._lock:
            sums = self._sums.get(key)
            if sums is None:
                sums = self._sums[key] = _Sums()
            sums.times += 1
            if billed is not None:
                sums.tokens = [*map(add, sums.tokens, _counts(billed))]
            if status == HTTPStatus.OK:
                for kind in OTHER_KINDS:
                    if quantity := getattr(account, kind):
                        sums.others[kind] = sums.others.get(kind, 0) + quantity
            for kind, times in (tool_uses or {}).items():
                sums.others[kind] = sums.others.get(kind, 0) + times

    @property
    def charges(self) -> list[Charge]:
        """The lines of the bill, in order. Those of provisioned deployments are not billed by the token."""
        found: dict[Charge, float] = {}
        for key, sums in self._sorted():
            for kind, quantity in (_tokens(sums.usage, draws=key.draws) | sums.others).items():
                line = Charge(
                    _day(key.days),
                    self._region,
                    key.deployment,
                    key.model,
                    key.scope,
                    key.tier,
                    kind,
                    0,
                    key.provisioned,
                )
                found[line] = found.get(line, 0) + quantity
        return sorted(line._replace(quantity=quantity) for line, quantity in found.items() if quantity > 0)

    @property
    def requests(self) -> list[Metered]:
        """The requests by their dimensions, in order."""
        return [
            Metered(
                Requests(
                    _day(key.days),
                    key.deployment,
                    key.model,
                    key.operation,
                    key.status,
                    key.stream,
                    key.spilled,
                    key.tier_asked,
                    key.tier,
                ),
                sums.times,
                sums.usage,
            )
            for key, sums in self._sorted()
        ]

    def clear(self) -> None:
        with self._lock:
            self._sums.clear()

    def _sorted(self) -> list[tuple[_Key, _Sums]]:
        with self._lock:
            copies = [(key, replace(sums, others=dict(sums.others))) for key, sums in self._sums.items()]
        return sorted(copies, key=itemgetter(0))


def _day(days: int) -> date:
    return date(1970, 1, 1) + timedelta(days=days)


def _tokens(used: Usage, *, draws: bool) -> dict[str, float]:
    """Return the tokens of each kind; no token is in two of them."""
    drawn = used.completion_tokens if draws else 0
    return {
        "prompt": used.prompt_tokens - used.cached_tokens - used.audio_prompt_tokens - used.image_prompt_tokens,
        "cached": used.cached_tokens,
        "audio_prompt": used.audio_prompt_tokens,
        "image_prompt": used.image_prompt_tokens,
        "completion": used.completion_tokens - drawn - used.audio_completion_tokens,
        "audio_completion": used.audio_completion_tokens,
        "image_completion": drawn,
    }

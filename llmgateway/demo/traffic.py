"""Makes up what people ask for: more on weekdays and in the afternoon, with all that can go wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from ..local_time import TimeZones
from ..records import Attempt, Outcome, Refusal, UsageRecord, UsageSource, moment, new_request_id
from .organisation import REGIONS, Group

_WEEK = (1.0, 0.95, 0.98, 1.15, 1.05, 0.22, 0.18)
"""How busy the days of a week are."""
_DAY = (
    0,
    0,
    0,
    0,
    0,
    0,
    0.05,
    0.25,
    0.5,
    0.7,
    0.85,
    0.95,
    0.8,
    0.9,
    1.0,
    0.95,
    0.85,
    0.7,
    0.5,
    0.4,
    0.35,
    0.25,
    0.1,
    0,
)
"""How busy the hours of a day are."""
_TOKENS_PER_SECOND = {"gpt-4o": 75, "gpt-4o-mini": 110, "gpt-5-mini": 90, "o4-mini": 95, "gpt-4.1-mini": 120}
_THINKING = {"o4-mini": 320, "gpt-5-mini": 150}
"""Reasoning tokens of a usual answer."""
_LIMITS = ("key.requests_per_minute", "key.budget", "member.budget", "group.budget", "organisation.budget")


@dataclass(frozen=True, kw_only=True)
class Asker:
    """A key that is used."""

    key_id: str
    user: str
    group: Group
    activity: float
    address: str
    since: datetime
    until: datetime | None = None


class Traffic:
    """Makes up requests. The same *seed* makes the same ones.

    Args:
        zones: Of the organisation, whose working hours count.
        price: Puts the cost into a record.
    """

    def __init__(
        self, askers: Sequence[Asker], *, seed: int, zones: TimeZones, price: Callable[[UsageRecord], UsageRecord]
    ) -> None:
        self._askers = askers
        self._random = random.Random(seed)  # noqa: S311 - nothing to be secret about
        self._zones = zones
        self._price = price

    def records(self, day: date, *, busy: float, until: datetime) -> Iterator[UsageRecord]:
        """Yield the records of a day, in order.

        Args:
            busy: The number of requests on a usual Monday.
            until: When the day ends, if it is today.
        """
        start = self._zones.start(day)
        times = sorted(
            (start + timedelta(seconds=self._second(asker.group)), number)
            for number, asker in enumerate(self._askers)
            for _ in range(self._count(asker, day, busy))
        )
        for at, number in times:
            asker = self._askers[number]
            if at < until and asker.since <= at and (asker.until is None or at < asker.until):
                yield self._price(self._record(asker, moment(at.timestamp())))

    def refusals(self, day: date, *, count: int, until: datetime) -> Iterator[Refusal]:
        """Yield what was refused on a day."""
        start = self._zones.start(day)
        for _ in range(self._times(count * _WEEK[day.weekday()])):
            asker = self._random.choice(self._askers)
            at = start + timedelta(seconds=self._second(asker.group))
            if at < until:
                yield self._refusal(asker, moment(at.timestamp()))

    def _count(self, asker: Asker, day: date, busy: float) -> int:
        weekend = day.weekday() > 4
        part = _WEEK[day.weekday()] if not weekend or asker.group.nights < 0.1 else 0.7
        return self._times(busy * part * asker.activity)

    def _times(self, mean: float) -> int:
        """Return a number around *mean*."""
        return max(0, round(self._random.gauss(mean, math.sqrt(mean) + mean * 0.15)))

    def _second(self, group: Group) -> float:
        if self._random.random() < group.nights:
            return self._random.random() * 86_400
        (hour,) = self._random.choices(range(24), _DAY)
        return (hour + self._random.random()) * 3600

    def _record(self, asker: Asker, at: datetime) -> UsageRecord:
        pick = self._random
        (model,) = pick.choices([*asker.group.models], [*asker.group.models.values()])
        stream = pick.random() < 0.7
        prompt = int(pick.lognormvariate(math.log(asker.group.prompt_tokens), 0.8)) + 8
        reasoning = int(pick.lognormvariate(math.log(_THINKING[model]), 0.5)) if model in _THINKING else 0
        completion = int(pick.lognormvariate(math.log(320), 0.7)) + reasoning
        first = pick.lognormvariate(math.log(420 + prompt / 150), 0.5) + reasoning * 1000 / _TOKENS_PER_SECOND[model]
        duration = first + (completion - reasoning) * 1000 / _TOKENS_PER_SECOND[model]
        admitted = round(pick.uniform(0.8, 4.0), 1)
        fields: dict[str, Any] = {
            "status": 200,
            "outcome": Outcome.OK,
            "usage_source": UsageSource.UPSTREAM,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "cached_tokens": prompt // 2 // 128 * 128 if pick.random() < 0.4 else 0,
            "reasoning_tokens": reasoning,
            "region": REGIONS["sweden"],
            "ttft_ms": round(first, 1) if stream else None,
            "duration_ms": round(duration, 1),
        }
        fields |= self._mishap(fields)
        sent = round(admitted + pick.uniform(0.3, 2.0), 1)
        return UsageRecord(
            id=_made_up_id(at, pick),
            timestamp=at,
            key_id=asker.key_id,
            user=asker.user,
            group=asker.group.name or None,
            model=model,
            deployment=model,
            endpoint="/v1/chat/completions",
            stream=stream,
            upstream_request_id=_made_up_id(at, pick),
            client_address=asker.address,
            prompt_version=1,
            admitted_ms=admitted,
            sent_ms=sent,
            limits=_checked(asker),
            **self._attempts(model, sent, fields),
        )

    def _attempts(self, model: str, sent: float, fields: dict[str, Any]) -> dict[str, Any]:
        """Return *fields* with the attempts at the deployments of a model that has two: some answer in the other."""
        if model != "gpt-4o":
            return fields
        counted = {name: fields[name] for name in ("status", "prompt_tokens", "completion_tokens")}
        made: dict[str, Any] = {"azure_deployment": model, "upstream_request_id": _made_up_id(None, self._random)}
        if fields["outcome"] is not Outcome.OK or self._random.random() > 0.04:
            return fields | {"attempts": (Attempt(deployment="sweden", sent_ms=sent, **counted, **made),)}
        limited = Attempt(
            deployment="sweden",
            sent_ms=sent,
            status=429,
            error_code="rate_limit_tokens",
            azure_deployment=model,
            cost_usd=0.0,
        )
        later = round(sent + self._random.uniform(30, 90), 1)
        answered = Attempt(deployment="france", sent_ms=later, **counted, **made)
        return fields | {"attempts": (limited, answered), "region": REGIONS["france"]}

    def _mishap(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return what differs in a request that did not end well; nothing for most of them."""
        luck = self._random.random()
        nothing = {
            **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0),
            **dict.fromkeys(("cached_tokens", "reasoning_tokens"), 0),
            "usage_source": UsageSource.NONE,
            "ttft_ms": None,
            "duration_ms": round(self._random.uniform(40, 400), 1),
        }
        if luck < 0.006:
            hit = {"content_filter": ("jailbreak",), "error_code": "content_filter"}
            return nothing | hit | {"status": 400, "outcome": Outcome.UPSTREAM_ERROR}
        if luck < 0.011:
            return nothing | {"status": 429, "error_code": "rate_limit_tokens", "outcome": Outcome.UPSTREAM_ERROR}
        if luck < 0.014:
            too_long = {"status": 400, "error_code": "context_length_exceeded"}
            return nothing | too_long | {"outcome": Outcome.UPSTREAM_ERROR}
        if luck < 0.024:
            seen = max(1, fields["completion_tokens"] // 3)
            counted = {"completion_tokens": seen, "total_tokens": fields["prompt_tokens"] + seen, "reasoning_tokens": 0}
            return counted | {"outcome": Outcome.CLIENT_CLOSED, "usage_source": UsageSource.ESTIMATED}
        if luck < 0.026:
            late = {"duration_ms": 300_000.0, "outcome": Outcome.TIMEOUT, "error_code": "upstream_timeout"}
            return nothing | late | {"status": None, "usage_source": UsageSource.ESTIMATED}
        return {}

    def _refusal(self, asker: Asker, at: datetime) -> Refusal:
        pick = self._random
        (model,) = pick.choices([*asker.group.models], [*asker.group.models.values()])
        common: dict[str, Any] = {
            "id": _made_up_id(at, pick),
            "timestamp": at,
            "key_id": asker.key_id,
            "user": asker.user,
            "group": asker.group.name or None,
            "endpoint": "/v1/chat/completions",
            "model": model,
            "address": asker.address,
        }
        (kind,) = pick.choices(["rate", "budget", "model", "body", "key"], [0.5, 0.25, 0.1, 0.08, 0.07])
        match kind:
            case "rate":
                count = pick.randint(1, 12)
                again: dict[str, Any] = {
                    "count": count,
                    "last_at": at + timedelta(seconds=count * 3) if count > 1 else None,
                }
                limit, message = "key.requests_per_minute", "Your key has made its requests of this minute."
                return Refusal(status=429, code="rate_limit_exceeded", limit=limit, message=message, **again, **common)
            case "budget":
                limit = pick.choice(_LIMITS[1:4] if asker.group.name else _LIMITS[1:2])
                whose = {"key": "your key", "member": "each member of your group", "group": "your group"}
                message = f"The budget of {whose[limit.partition('.')[0]]} is spent. It renews with the month."
                return Refusal(status=429, code="insufficient_quota", limit=limit, message=message, **common)
            case "model":
                message = "The model 'gpt-6-pro' does not exist here. GET /v1/models lists yours."
                return Refusal(status=404, code="model_not_found", message=message, **common | {"model": "gpt-6-pro"})
            case "body":
                message = "'messages' is missing."
                return Refusal(status=400, code="invalid_request_error", message=message, **common)
            case _:
                nobody = common | dict.fromkeys(("key_id", "user", "group"))
                return Refusal(status=401, code="invalid_api_key", message="This key is not known here.", **nobody)


def _checked(asker: Asker) -> tuple[str, ...]:
    own = [f"key.{name}" for name in asker.group.key.get("limits", ())]
    shared = [f"group.{name}" for name in asker.group.settings.get("limits", ())]
    members = [f"member.{name}" for name in asker.group.settings.get("member_limits", ())]
    return (*own, *members, *shared, "organisation.tokens_per_minute", "organisation.budget")


def _made_up_id(at: datetime | None, pick: random.Random) -> str:
    if at is not None:
        return new_request_id(at.timestamp())
    text = f"{pick.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

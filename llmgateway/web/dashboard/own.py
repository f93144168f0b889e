"""What people see of themselves: their keys, what is used and left, their requests. Nothing of anybody else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from ...accounts.principal import Principal
from ...accounts.self_service import Owner
from ...errors import StoreUnavailable
from ...ratelimit.scopes import Scope
from ...records import (
    UNLIMITED,
    KeyRecord,
    Organisation,
    RecordQuery,
    Refusal,
    RefusalQuery,
    ReportQuery,
    UsageRecord,
    UsageRow,
    moment,
)
from ..admin.allowances import remaining_of, with_usage
from ..context import services
from ..dates import shown
from ..schemas.logs import cursor_of, place_of
from .formats import money
from .sessions import Visitor

USAGE_DAYS = 30
_MOST_MODELS = 7
"""With a series of their own in a chart; the others are added up."""
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is used and left of limits that several keys share."""

    label: str
    remaining: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used within the last days, by day and model."""

    days: Sequence[date]
    cost: dict[str, list[float]]
    """By model, for each day; the model that cost most comes first."""
    total: UsageRow

    @property
    def rows(self) -> list[list[str]]:
        """The numbers of the chart, for each day with any."""
        by_day = zip(self.days, *self.cost.values(), strict=True)
        return [[f"{day:%a} {day.day} {day:%b}", *map(money, costs)] for day, *costs in by_day if any(costs)]


def owner_of(visitor: Visitor) -> Owner | None:
    """Return whose keys *visitor* looks after; None for those who have none and get none."""
    if visitor.user is None:
        return None
    return Owner(user=visitor.user, groups=visitor.groups, key_id=visitor.key_id)


def keys_with_usage(keys: Sequence[KeyRecord]) -> list[dict[str, Any]]:
    """Return the fields of *keys* with what is spent and left of each, when it was used, and its state.

    The models are those that the key may use within its group.
    """
    organisation, now = services().policy.stored(), moment(services().clock())
    rows = with_usage(keys, ("spent", "remaining", "last_used"))
    for row, key in zip(rows, keys, strict=True):
        principal = Principal(key, organisation)
        row["state"] = _state(principal, now)
        row["models"] = principal.models
        # Neither goes to a template, which could show them by mistake.
        del row["digest"], row["retiring_digest"]
    return rows


def standings(owner: Owner, keys: Iterable[KeyRecord]) -> list[Standing]:
    """Return the limits that all keys of the owner share, and those that the owner shares with others.

    Budgets of others are left out if the admin does not show them.
    """
    organisation, now = services().policy.stored(), moment(services().clock())
    named = [(scope, label) for scope, label in _scopes(owner, keys, organisation, now) if scope.limits != UNLIMITED]
    found = []
    for (scope, label), left in zip(named, remaining_of([scope for scope, _ in named]), strict=True):
        if scope.is_shared and not services().limiter.shows_shared:
            left["budget"] = None
        if any(left.values()):
            found.append(Standing(label, left))
    return found


def usage(owner: Owner) -> Usage:
    """Return what the owner's keys have used."""
    services().journal.flush_soon()  # otherwise the last requests of this process would be missing
    today = shown(moment(services().clock())).date()
    days = [today - timedelta(days=number) for number in reversed(range(USAGE_DAYS))]
    rows = [*services().usage_log.report(_report(owner, days[0], ("day", "model")))]
    (total,) = services().usage_log.report(_report(owner, days[0], ()))
    costs: dict[str, float] = defaultdict(float)
    for row in rows:
        costs[row.by["model"] or ""] += row.cost_usd
    largest = sorted(costs, key=lambda model: (-costs[model], model))[:_MOST_MODELS]
    names = [*largest, *([OTHERS] if len(costs) > len(largest) else [])]
    series = {name: [0.0] * USAGE_DAYS for name in names}
    index = {day.isoformat(): number for number, day in enumerate(days)}
    for row in rows:
        model, day = row.by["model"] or "", index.get(row.by["day"] or "")
        if day is not None:
            series[model if model in largest else OTHERS][day] += row.cost_usd
    return Usage(days, series, total)


def requests(owner: Owner, *, cursor: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of the owner's requests, newest first, also refused ones; and the cursor of the next page.

    What is not the owner's business is left out: how the organisation has registered its deployments.
    """
    before = place_of(cursor)
    records = services().usage_log.records(
        RecordQuery(user=owner.user, key_id=owner.key_id, before=before, limit=limit + 1)
    )
    key_ids = None if owner.key_id is None else (owner.key_id,)
    refusals = services().refusals.stored.list(
        RefusalQuery(user=owner.user, key_ids=key_ids, before=before, limit=limit + 1)
    )
    items: list[UsageRecord | Refusal] = [*records, *refusals]
    items.sort(key=lambda item: (item.timestamp, item.id), reverse=True)
    page, more = items[:limit], len(items) > limit
    following = cursor_of(page[-1].timestamp, page[-1].id) if more else None
    return [_request(item) for item in page], following


def models_of(keys: Iterable[KeyRecord]) -> list[str]:
    """Return the models that at least one of *keys* may use, as far as the gateway knows their names."""
    organisation = services().policy.stored()
    routing = services().gateway.routing
    found = [model for key in keys for model in routing.models(Principal(key, organisation))]
    return [*dict.fromkeys(found)]


def usage_is_away(error: StoreUnavailable) -> str:
    """Return what a page says in place of numbers that no store can give at the moment."""
    return f"The numbers cannot be read at the moment: {error}"


def _scopes(
    owner: Owner, keys: Iterable[KeyRecord], organisation: Organisation, now: datetime
) -> Iterable[tuple[Scope, str]]:
    person = organisation.persons.get(owner.user)
    if person is not None:
        yield Scope.of_person(person, now), "All of your keys together"
    names = sorted({*owner.groups} | {key.group for key in keys if key.group})
    groups = [organisation.groups[name] for name in names if name in organisation.groups]
    for group in groups:
        yield Scope.of_member(group, owner.user, person, now), f"Your keys in {group.name}"
    for group in groups:
        yield Scope.of_group(group, now), f"Everybody in {group.name} together"
    yield Scope.of_organisation(organisation), "Everybody together"


def _report(owner: Owner, first: date, by: Sequence[str]) -> ReportQuery:
    if owner.key_id is not None:
        return ReportQuery(by=by, first_day=first, key_id=owner.key_id, promptly=True)
    return ReportQuery(by=by, first_day=first, user=owner.user, promptly=True)


def _state(principal: Principal, now: datetime) -> tuple[str, str]:
    """Return the state of a key, and its kind as :func:`ui.state` of the templates has it."""
    key, group = principal.key, principal.group
    ends = [each.expires_at for each in (key, group) if each is not None and each.expires_at is not None]
    starts = [each.starts_at for each in (key, group) if each is not None and each.starts_at is not None]
    if not key.active:
        return "blocked", "bad"
    if ends and min(ends) <= now:
        return "expired", "bad"
    if starts and max(starts) > now:
        return "not yet valid", ""
    if ends and min(ends) - now < timedelta(days=7):
        return "expires soon", "warn"
    return "active", "good"


def _request(item: UsageRecord | Refusal) -> dict[str, Any]:
    if isinstance(item, Refusal):
        return {
            "id": item.id,
            "timestamp": item.timestamp,
            "key_id": item.key_id,
            "model": item.model,
            "status": item.status,
            "refused": True,
            "message": item.message,
            "count": item.count,
        }
    return {
        "id": item.id,
        "timestamp": item.timestamp,
        "key_id": item.key_id,
        "model": item.model,
        "status": item.status,
        "refused": False,
        "outcome": item.outcome.value,
        "error_code": item.error_code,
        "prompt_tokens": item.prompt_tokens,
        "completion_tokens": item.completion_tokens,
        "cost_usd": item.cost_usd,
        "duration_ms": item.duration_ms,
    }

"""Limits and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple


class Unit(StrEnum):
    """The unit of a budget."""

    USD = "usd"
    TOKENS = "tokens"
    REQUESTS = "requests"


UNIT_NAMES = {Unit.USD: "USD", Unit.TOKENS: "tokens", Unit.REQUESTS: "requests"}
"""How messages write the units."""


class Period(StrEnum):
    """The period of a budget. Days, weeks and months are those of the calendar in the organisation's time zone."""

    DAY = "day"
    WEEK = "week"
    """Weeks begin on Monday."""
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that may be used within a period."""

    amount: float
    unit: Unit
    period: Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a key, a group or the organisation; ``None`` means no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    parallel_requests: int | None = None
    budget: Budget | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Limits:
        """Convert the output of ``dataclasses.asdict``, which stores save. Fields of a newer version are ignored."""
        if not document:
            return UNLIMITED
        known = {name: document.get(name) for name in ("requests_per_minute", "tokens_per_minute", "parallel_requests")}
        budget = document.get("budget")
        if budget is not None:
            budget = Budget(amount=budget["amount"], unit=Unit(budget["unit"]), period=Period(budget["period"]))
        return cls(budget=budget, **known)


UNLIMITED = Limits()


LIMIT_PARTS = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise:
    """Higher limits for a while. They end by themselves."""

    limits: Limits
    """What is raised; the other limits stay as they are."""
    until: datetime
    """Exclusive."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Raise | None:
        """Convert the output of :meth:`as_json`. Fields of a newer version are ignored."""
        if document is None:
            return None
        return cls(limits=Limits.from_json(document["limits"]), until=datetime.fromisoformat(document["until"]))

    def as_json(self) -> dict[str, Any]:
        return {"limits": asdict(self.limits), "until": self.until.isoformat()}

    def raises(self, limits: Limits) -> Limits:
        """Return *limits* with the parts that this raises. None of them is lower than before.

        A budget can be raised only by one of the same unit and period, which is counted together with it.
        """
        return replace(
            limits,
            **{
                part: value
                for part in LIMIT_PARTS
                if is_higher(value := getattr(self.limits, part), than=getattr(limits, part))
            },
        )


def is_higher(value: int | Budget | None, *, than: int | Budget | None) -> bool:
    """Return whether a limit is higher than another one of the same name; False if they cannot be compared."""
    if isinstance(value, Budget) and isinstance(than, Budget):
        return (value.unit, value.period) == (than.unit, than.period) and value.amount > than.amount
    return isinstance(value, int) and isinstance(than, int) and value > than


def in_force(limits: Limits, raised: Raise | None, now: datetime) -> Limits:
    """Return *limits* as they are at *now*, while they may be *raised*."""
    return limits if raised is None or raised.until <= now else raised.raises(limits)


class BudgetState(NamedTuple):
    """What is spent and left of one budget, in its own unit."""

    scope: str
    """``group`` or ``organisation``."""
    name: str
    """Empty for the organisation."""
    unit: str
    period: str
    limit: float
    spent: float | None
    """``None``: not known, because the usage log is unavailable."""
    left: float | None

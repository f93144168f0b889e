"""Statements: every column adds up to the cent, and what is not known is named."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import Group, UsageRow
from llmgateway.usage.currency import Currency
from llmgateway.usage.statements import statement

NOW = datetime(2026, 10, 1, tzinfo=UTC)
EURO = Currency("EUR", {"2026-10": 0.92})


def row(group: str | None, user: str = "ada", model: str = "gpt-4o", cost: float = 0.0, **sums: int) -> UsageRow:
    by = {"group": group, "user": user, "model": model}
    return UsageRow(by=by, cost_usd=cost, **{"requests": 1, "total_tokens": 10, **sums})


def group(name: str, cost_centre: str | None = None) -> Group:
    return Group(name=name, created_at=NOW, cost_centre=cost_centre)


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from([None, "maths", "physics", "gone"]),
        st.sampled_from(["ada", "alan", "bob"]),
        st.sampled_from(["gpt-4o", "o3"]),
        st.floats(0, 100),
    ),
    max_size=30,
    unique_by=lambda each: tuple(each.by.values()),
)
GROUPS = {"maths": group("maths", "4711"), "physics": group("physics"), "idle": group("idle", "4711")}


@given(ROWS, st.sampled_from(["EUR", "JPY", "KWD"]), st.floats(0.0001, 1000))
def test_every_column_adds_up(rows, code, rate):
    """In dollars and in the other currency: persons and models to groups, groups and cost centres to the total."""
    found = statement("2026-10", rows, groups=GROUPS, currency=Currency(code, {"2026-10": rate}))

    for column in ("cents", "converted"):
        amounts = [getattr(each.total, column) for each in found.groups.values()]
        assert getattr(found.total, column) == sum(amounts)
        assert getattr(found.total, column) == sum(getattr(line, column) for line in found.cost_centres)
        for each in found.groups.values():
            for lines in (each.persons, each.models):
                assert getattr(each.total, column) == sum((getattr(line, column) for line in lines), Decimal(0))
    assert found.total.requests == len(rows) == sum(each.total.requests for each in found.groups.values())
    exact = sum(each.cost_usd for each in rows)
    assert abs(float(found.total.cents) - exact) <= 0.00501


def test_names_all_groups_those_without_usage_and_those_that_are_gone():
    """Keys without a group come first; a group that was removed has no cost centre any more."""
    found = statement("2026-10", [row("gone", cost=1), row(None, cost=2)], groups=GROUPS, currency=None)

    assert [None, "gone", "idle", "maths", "physics"] == list(found.groups)
    assert [2, 1, 0, 0, 0] == [each.total.cost_usd for each in found.groups.values()]
    assert [(None, 3), ("4711", 0)] == [(line.name, line.cost_usd) for line in found.cost_centres]
    assert (None, None, None) == (found.currency, found.rate, found.total.cost)


def test_a_model_without_a_price_is_named():
    """A cost of which nothing is known is not 0; one of which a part is known is that part."""
    rows = [
        row("maths", "ada", "house", unpriced_requests=1),
        row("maths", "alan", "house", unpriced_requests=1),
        row("maths", "alan", "gpt-4o", 1.25),
        row("physics", "bob", "other-house", unpriced_requests=1),
    ]
    found = statement("2026-10", rows, groups=GROUPS, currency=EURO)

    maths, physics = found.groups["maths"], found.groups["physics"]
    assert [("ada", None, None, ("house",)), ("alan", Decimal("1.25"), Decimal("1.15"), ("house",))] == [
        (line.name, line.cost_usd, line.cost, line.unpriced_models) for line in maths.persons
    ]
    assert [("gpt-4o", Decimal("1.25")), ("house", None)] == [(line.name, line.cost_usd) for line in maths.models]
    assert (None, ("other-house",)) == (physics.total.cost_usd, physics.total.unpriced_models)
    assert (Decimal("1.25"), 3, ("house", "other-house")) == (
        found.total.cost_usd,
        found.total.unpriced_requests,
        found.total.unpriced_models,
    )


def test_a_month_without_a_rate_is_not_guessed():
    """The currency is named, its amounts are not known, and dollars are."""
    found = statement("2026-11", [row("maths", cost=1.25)], groups=GROUPS, currency=EURO)

    assert ("EUR", None) == (found.currency, found.rate)
    assert (Decimal("1.25"), None) == (found.total.cost_usd, found.total.cost)
    assert {None} == {line.cost for line in (*found.cost_centres, *found.groups["maths"].persons)}

"""Rounded parts add up to the rounded whole, and none is a cent away from what it was."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.usage.rounding import apportioned, exact, rounded

AMOUNTS = st.lists(st.decimals(0, 10_000, places=9), max_size=40)
PLACES = st.sampled_from([0, 2, 3])


@given(AMOUNTS, PLACES)
def test_parts_add_up_to_the_whole(amounts, places):
    """Of any number, with the cents that any currency has; each is rounded up or down, never further."""
    total = rounded(sum(amounts, Decimal(0)), places=places)

    parts = apportioned(total, amounts, places=places)

    assert total == sum(parts)
    unit = Decimal(1).scaleb(-places)
    for part, amount in zip(parts, amounts, strict=True):
        assert abs(part - amount) < unit
        assert part % unit == 0


@given(st.lists(AMOUNTS, min_size=1, max_size=8), PLACES)
def test_parts_of_parts_add_up_too(groups, places):
    """What was apportioned is apportioned again: persons to their group, groups to the organisation."""
    sums = [sum(amounts, Decimal(0)) for amounts in groups]
    total = rounded(sum(sums, Decimal(0)), places=places)

    of_groups = apportioned(total, sums, places=places)
    of_persons = [apportioned(group, persons, places=places) for group, persons in zip(of_groups, groups, strict=True)]

    assert of_groups == [sum(persons, Decimal(0)) for persons in of_persons]
    assert total == sum(sum(persons, Decimal(0)) for persons in of_persons)


@given(st.lists(st.integers(0, 1000), max_size=20))
def test_whole_cents_stay(cents):
    """Nothing is added to an amount that needs no rounding."""
    amounts = [Decimal(each).scaleb(-2) for each in cents]

    assert amounts == apportioned(sum(amounts, Decimal(0)), amounts, places=2)


def test_the_cent_goes_to_the_largest_remainder():
    """Among equal ones to the larger amount, then to the first."""
    thirds = [Decimal("0.333"), Decimal("0.334"), Decimal("0.333")]
    assert [Decimal("0.33"), Decimal("0.34"), Decimal("0.33")] == apportioned(Decimal("1.00"), thirds, places=2)
    equal = [Decimal("0.005"), Decimal("5.005"), Decimal("0.01")]
    assert [Decimal("0.00"), Decimal("5.01"), Decimal("0.01")] == apportioned(Decimal("5.02"), equal, places=2)


def test_half_a_cent_is_a_cent():
    """As accountants round, and not as floating-point numbers happen to lie: 1.005 is a little less than that."""
    assert Decimal("1.01") == rounded(exact(1.005), places=2)
    assert Decimal("0.13") == rounded(exact(0.125), places=2)


def test_sums_have_no_remainder_of_rounding_errors():
    """0.1 + 0.2 is 0.3."""
    assert Decimal("0.3") == exact(0.1 + 0.2)


@pytest.mark.parametrize("total", ["1.00", "0.96"])
def test_refuses_a_total_that_is_another(total):
    """A cent too many, or too few, is a mistake of the caller."""
    with pytest.raises(ValueError, match="do not add up"):
        apportioned(Decimal(total), [Decimal("0.485"), Decimal("0.485")], places=2)

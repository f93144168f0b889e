"""The periods of budgets begin in the organisation's time zone, also where its clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from llmgateway.local_time import TimeZones
from llmgateway.ratelimit.periods import LocalDay, shown
from llmgateway.records import Period

BERLIN = TimeZones(("Europe/Berlin",))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("now", "hours"),
    [("2026-03-29T12:00:00+02:00", 23), ("2026-10-25T12:00:00+01:00", 25), ("2026-06-01T12:00:00+02:00", 24)],
)
def test_days_on_which_clocks_change_are_shorter_or_longer(now, hours):
    """Such a day begins and ends at midnight, and the week and the month around it have an hour less or more."""
    today = LocalDay.at(at(now), BERLIN)
    start, end = BERLIN.start(today.day), today.end(Period.DAY)

    assert at(now).date() == today.day == today.first_day(Period.DAY)
    assert timedelta(hours=hours) == end - start
    week = today.end(Period.WEEK) - BERLIN.start(today.first_day(Period.WEEK))
    assert timedelta(days=7, hours=hours - 24) == week


@pytest.mark.parametrize(
    ("now", "first", "next_first"),
    [
        ("2026-11-29T23:59:59+01:00", "2026-11-23", "2026-11-30"),  # a Sunday
        ("2026-11-30T00:00:00+01:00", "2026-11-30", "2026-12-07"),  # a Monday
        ("2027-01-01T12:00:00+01:00", "2026-12-28", "2027-01-04"),  # over New Year
        ("2024-02-29T12:00:00+01:00", "2024-02-26", "2024-03-04"),
    ],
)
def test_weeks_begin_on_monday(now, first, next_first):
    week = LocalDay.at(at(now), BERLIN)

    assert date.fromisoformat(first) == week.first_day(Period.WEEK)
    assert BERLIN.start(date.fromisoformat(next_first)) == week.end(Period.WEEK)


@pytest.mark.parametrize(
    ("zone", "now", "day", "month_ends"),
    [
        ("Europe/Berlin", "2026-11-30T23:30:00+00:00", "2026-12-01", "2026-12-31T23:00:00+00:00"),
        ("America/New_York", "2026-12-01T03:00:00+00:00", "2026-11-30", "2026-12-01T05:00:00+00:00"),
        ("Asia/Kolkata", "2026-11-30T18:30:00+00:00", "2026-12-01", "2026-12-31T18:30:00+00:00"),
        ("Pacific/Kiritimati", "2026-11-30T10:00:00+00:00", "2026-12-01", "2026-12-31T10:00:00+00:00"),
    ],
)
def test_months_are_those_of_the_zone(zone, now, day, month_ends):
    today = LocalDay.at(at(now), TimeZones((zone,)))

    assert date.fromisoformat(day) == today.day
    assert at(month_ends) == today.end(Period.MONTH)
    assert today.day.replace(day=1) == today.first_day(Period.MONTH)


def test_a_total_has_no_period():
    today = LocalDay.at(datetime(2026, 1, 1, tzinfo=UTC), BERLIN)

    assert (None, None) == (today.first_day(Period.TOTAL), today.end(Period.TOTAL))


def test_a_change_of_zone_moves_no_day_that_has_passed():
    """Today ends as before; the next day lasts until its end in the new zone."""
    noon = datetime(2026, 11, 29, 12, tzinfo=UTC)
    zones = TimeZones().changed("America/New_York", noon)
    today = LocalDay.at(noon, zones)

    assert date(2026, 11, 29) == today.day
    assert datetime(2026, 11, 30, tzinfo=UTC) == today.end(Period.DAY)
    tomorrow = LocalDay.at(noon + timedelta(days=1, hours=16), zones)
    assert date(2026, 11, 30) == tomorrow.day
    assert datetime(2026, 12, 1, 5, tzinfo=UTC) == tomorrow.end(Period.DAY)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("UTC", "2026-12-31 23:00:00 UTC"),
        ("Europe/Berlin", "2027-01-01 00:00:00 +01:00"),
        ("America/St_Johns", "2026-12-31 19:30:00 -03:30"),
    ],
)
def test_people_are_shown_the_offset(zone, expected):
    assert expected == shown(datetime(2026, 12, 31, 23, tzinfo=UTC), TimeZones((zone,)))

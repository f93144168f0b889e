"""Days in the time zone of the organisation, over changes of the clock and of the zone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from llmgateway.local_time import TimeZones

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def hours(zones: TimeZones, day: date) -> float:
    return (zones.start(day + timedelta(days=1)) - zones.start(day)) / timedelta(hours=1)


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("UTC", date(2026, 3, 29), 24),
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Europe/Berlin", date(2026, 7, 1), 24),
        ("America/Havana", date(2026, 3, 8), 23),  # the clock is put forward at midnight, which does not exist
        ("America/Havana", date(2026, 11, 1), 25),  # and back to midnight, which comes twice
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
    ],
)
def test_a_day_is_as_long_as_its_clock_says(zone, day, expected):
    zones = TimeZones((zone,))

    assert expected == hours(zones, day)
    assert day == zones.day(zones.start(day)) == zones.day(zones.start(day + timedelta(days=1)) - timedelta(seconds=1))
    assert day - timedelta(days=1) == zones.day(zones.start(day) - timedelta(seconds=1))


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland", "Asia/Kathmandu")


@pytest.mark.parametrize("before", ZONES)
@pytest.mark.parametrize("after", ZONES)
@pytest.mark.parametrize("hour", [0, 5, 11, 17, 23])
def test_a_change_holds_from_the_next_local_midnight(before, after, hour):
    now = NOON.replace(hour=hour, minute=30)
    old = TimeZones((before,))
    zones = old.changed(after, now)

    assert before == str(zones.at(now))
    assert after == str(zones.at(now + timedelta(days=2)))
    instants = [now + timedelta(minutes=30 * step) for step in range(-100, 200)]
    days = [zones.day(instant) for instant in instants]
    assert sorted(days) == days, "a day came back"
    assert all(
        zones.start(day) <= instant < zones.start(day + timedelta(days=1))
        for day, instant in zip(days, instants, strict=True)
    )
    assert [old.day(instant) for instant in instants if instant <= now] == days[:101]


def test_a_change_that_does_not_hold_yet_is_replaced():
    zones = TimeZones().changed("Europe/Berlin", NOON).changed("America/New_York", NOON)

    assert ("UTC", "America/New_York") == zones.names
    assert TimeZones() == zones.changed("UTC", NOON)
    assert ("UTC", "America/New_York", "UTC") == zones.changed("UTC", NOON + timedelta(days=2)).names


def test_is_kept_as_a_document():
    zones = TimeZones().changed("Europe/Berlin", NOON).changed("Asia/Tokyo", NOON + timedelta(days=9))

    assert zones == TimeZones.from_document(zones.as_document(), default="UTC")
    assert TimeZones(("Asia/Tokyo",)) == TimeZones.from_document({}, default="Asia/Tokyo")
    assert "Asia/Tokyo" == str(zones)


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Kiritimati", "Asia/Kathmandu"]
)
@pytest.mark.parametrize("other", ["UTC", "Pacific/Pago_Pago", "Europe/Berlin"])
def test_divides_a_time_into_days(zone, other):
    """Without a gap, each part on one day: over changes of the clock, and from one zone to another."""
    zones = TimeZones((zone,)).changed(other, datetime(2026, 10, 24, 12, tzinfo=UTC))
    start, end = datetime(2026, 10, 23, 5, tzinfo=UTC), datetime(2026, 10, 27, 7, 30, tzinfo=UTC)

    parts = [*zones.days(start, end)]

    assert [start, *(part_end for _, part_end, _ in parts)] == [*(begin for begin, _, _ in parts), end]
    for begin, part_end, day in parts:
        assert begin < part_end
        for instant in (begin, begin + (part_end - begin) / 2, part_end - timedelta(milliseconds=1)):
            assert day == zones.day(instant)

"""Days and months as whole numbers, like 20260131 and 202601, and how statements make weeks of them."""

from __future__ import annotations

from datetime import date

# Whole days since 1 March of the year 0, and from that the number of the week, which begins on Monday. With months that
# begin in March, the leap day is the last one (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
_YEAR, _MONTH = "({day} / 10000 - ({day} / 100 % 100 < 3))", "(({day} / 100 % 100 + 9) % 12)"
_DAYS = f"(365 * {_YEAR} + {_YEAR} / 4 - {_YEAR} / 100 + {_YEAR} / 400 + ({_MONTH} * 306 + 5) / 10 + {{day}} % 100 - 1)"
WEEK = f"({_DAYS} + 2) / 7"
"""The number of the week of the column ``{day}``."""
_FIRST_MONDAY = -307
"""The ordinal (:meth:`datetime.date.toordinal`) of the Monday of week 0."""


def number_of(day: date) -> int:
    return (day.year * 100 + day.month) * 100 + day.day


def month_and_day(day: date) -> tuple[int, int]:
    """Return the numbers of the month of *day*, and of *day*."""
    number = number_of(day)
    return number // 100, number


def date_of(number: int) -> date:
    return date(number // 10000, number // 100 % 100, number % 100)


def day_name(number: int) -> str:
    return f"{number // 10000:04}-{number // 100 % 100:02}-{number % 100:02}"


def month_name(number: int) -> str:
    return f"{number // 100:04}-{number % 100:02}"


def week_name(number: int) -> str:
    year, week, _ = date.fromordinal(_FIRST_MONDAY + 7 * number).isocalendar()
    return f"{year:04}-W{week:02}"

"""What content filters found, added up."""

from __future__ import annotations

from llmgateway.records import FilterCount
from llmgateway.usage.filter_report import filter_rows


def count(fired=(), severities=(), *, key="key_1", group=None, requests=1):
    return FilterCount("2026-01-31", "ada", key, group, "gpt-4o", fired, severities, requests)


COUNTS = [
    count(("hate",), ("hate:high", "violence:low"), requests=2),
    count((), ("violence:low",), group="ml", key="key_2"),
]


def test_each_finding_is_counted_in_its_category():
    """With how many of them fired."""
    assert [
        {"category": "hate", "severity": "high", "requests": 2, "fired": 2},
        {"category": "violence", "severity": "low", "requests": 3, "fired": 0},
    ] == filter_rows(COUNTS, ("category", "severity"))


def test_a_request_counts_once_without_categories():
    """Also if several filters found something; a missing group comes first."""
    assert [
        {"group": None, "requests": 2, "fired": 2},
        {"group": "ml", "requests": 1, "fired": 0},
    ] == filter_rows(COUNTS, ("group",))
    assert [{"requests": 3, "fired": 2}] == filter_rows(COUNTS, ())
    assert [] == filter_rows([], ("key",))


def test_a_request_counts_once_in_a_severity():
    """Two categories of the same severity are one request."""
    both = [count(("hate",), ("hate:low", "violence:low"))]

    assert [{"month": "2026-01", "severity": "low", "requests": 1, "fired": 1}] == filter_rows(
        both, ("month", "severity")
    )

"""Days, numbers, units and tags in exports."""

from __future__ import annotations

from datetime import date

import pytest

from llmgateway.reconcile.cells import account_in, deployment_in, number, tags_of, tokens_per_unit, utc_day

OCTOBER = date(2026, 10, 5)


@pytest.mark.parametrize(
    "text",
    [
        "10/05/2026",
        "10/5/2026",
        " 10/05/2026 ",
        "10/5/2026 12:00 AM",
        "10/5/2026, 12:00:00 AM",
        "2026-10-05",
        "2026-10-05T00:00:00Z",
        "2026-10-05T00:00Z",
        "2026-10-05 13:00:00",
        "2026-10-05T23:59:59.9999999Z",
        "2026-10-06T01:00:00+02:00",
        "20261005",
    ],
)
def test_reads_days(text):
    """Months come first where there are slashes; a time with an offset is converted to UTC."""
    assert OCTOBER == utc_day(text)


@pytest.mark.parametrize("text", ["", "31/10/2026", "2026-13-01", "5 Oct 2026", "0", "46300"])
def test_refuses_other_days(text):
    """An ambiguous day is not guessed."""
    with pytest.raises(ValueError, match=r"is no day like 10/31/2026 \(month first\) or 2026-10-31"):
        utc_day(text)


@pytest.mark.parametrize(
    ("unit", "tokens"),
    [
        ("1K", 1_000),
        ("1k", 1_000),
        ("10K", 10_000),
        ("100K", 100_000),
        ("1M", 1_000_000),
        (" 1M ", 1_000_000),
        ("1 Million", 1_000_000),
        ("1,000", 1_000),
        ("1K Tokens", 1_000),
        ("1", 1),
        ("Units", 1),
        ("Tokens", 1),
        ("1 Hour", None),
        ("1/Month", None),
        ("1 GB", None),
        ("100 Images", None),
        ("", None),
    ],
)
def test_reads_units(unit, tokens):
    """The unit says how many tokens one of a quantity is; hours are no tokens."""
    assert tokens == tokens_per_unit(unit)


def test_the_real_line():
    """A quantity counts units: 0.0004 of 10K at 0.1 cost 0.00004, and are 4 tokens (azure-more.md section 14)."""
    assert 4 == number("0.0004") * tokens_per_unit("10K")


@pytest.mark.parametrize(
    ("text", "decimal_comma", "expected"),
    [
        ("0.5", False, 0.5),
        ("1E-05", False, 0.00001),
        ("-3", False, -3.0),
        ("1,234.5", False, 1234.5),
        ("", False, 0.0),
        (" ", False, 0.0),
        ("0,5", True, 0.5),
        ("1.234,5", True, 1234.5),
        ("0.5", True, 0.5),
    ],
)
def test_reads_numbers(text, decimal_comma, expected):
    assert expected == number(text, decimal_comma=decimal_comma)


@pytest.mark.parametrize("text", ["x", "nan", "inf", "1e999", "1;2"])
def test_refuses_what_is_no_number(text):
    """Also what only a computer takes for a number."""
    with pytest.raises(ValueError, match="is no number"):
        number(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"deployment": "chat", "cost": "1"}', {"deployment": "chat", "cost": "1"}),
        ('"deployment": "chat","cost": "1"', {"deployment": "chat", "cost": "1"}),
        ('"Deployment": "Chat"', {"deployment": "Chat"}),
        ('"a": "}{"', {"a": "}{"}),
        ('"n": 1', {"n": "1"}),
        ("", {}),
        ("{}", {}),
        ("deployment=chat", {}),
        ('{"deployment": "cha', {}),
    ],
)
def test_reads_tags(text, expected):
    """With braces and without; tags that cannot be read are none."""
    assert expected == tags_of(text)


def test_reads_identifiers_of_resources():
    """Their parts are written with and without upper case."""
    resource = (
        "/subscriptions/1/resourcegroups/ai/providers/microsoft.cognitiveservices/ACCOUNTS/Contoso/deployments/chat"
    )

    assert ("Contoso", "chat") == (account_in(resource), deployment_in(resource))
    assert (None, None) == (account_in("/subscriptions/1"), deployment_in(""))

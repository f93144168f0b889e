"""Statements on pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import quote

import pytest

from llmgateway.records import Batch
from llmgateway.web.context import EXTENSION
from tests.stores.contract import usage

ADA = "ada/<b>&"


@pytest.fixture
def month(client, call):
    """The present month, in which two persons have used something in two groups; Ada has a key."""
    services = client.application.extensions[EXTENSION]
    now = datetime.fromtimestamp(services.clock(), UTC).replace(microsecond=0)
    for name in ("physics", "chemistry"):
        call("PUT", f"/groups/{name}", json={"cost_centre": name[:3]})
    records = [
        usage(1, timestamp=now, user=ADA, group="physics", cost_usd=1.25),
        usage(2, timestamp=now, user=ADA, group="chemistry", model="o3", cost_usd=2.5),
        usage(3, timestamp=now, user="bob", group="physics", cost_usd=None, total_tokens=7, model="made-up"),
    ]
    services.usage_log.append(records, batch=Batch("a", 1))
    return f"{now:%Y-%m}"


def rows(text: str) -> list[list[str]]:
    """The lines of all tables, as text."""
    found = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in found]


def test_the_organisations_statement_leads_to_groups(owner, month):
    text = owner.open("statements")

    assert f"statements/group?month={month}&amp;name=physics" in text
    assert ["physics *", "2", "0", "0", "1.25"] in rows(text)
    assert ["Total", "3", "0", "0", "3.75"] in rows(text)
    assert "made-up" in text


def test_a_groups_statement_names_persons_and_models(owner, month):
    text = owner.open(f"statements/group?name=physics&month={month}")

    assert ["ada/&lt;b&gt;&amp;", "1", "0", "0", "1.25"] in rows(text)
    assert ["bob *", "1", "0", "0", "not known"] in rows(text)
    assert "o3" not in text


def test_a_persons_statement_has_all_groups(owner, new_key, month):
    new_key(user="bob")

    text = owner.open(f"statements/person?user=bob&month={month}")

    assert ["physics *", "1", "0", "0", "not known"] in rows(text)


@pytest.mark.parametrize("wrong", ["2026-13", "x", "<script>", "1999-01"])
def test_a_month_that_cannot_be_chosen_is_this_month(owner, month, wrong):
    assert f"{month}</option>" in owner.open(f"statements?month={quote(wrong)}")


def test_an_unknown_group_or_person_has_none(owner, month):
    owner.open("statements/group?name=nobody", status=404)
    owner.open("statements/person?user=nobody", status=404)


def test_an_admin_of_a_group_sees_the_statement_of_that_group(named, month):
    grace = named("group", "physics")

    assert "chemistry" not in grace.open("statements")
    assert "1.25" in grace.open("statements/group?name=physics")
    grace.open("statements/group?name=chemistry", status=404)
    grace.open("statements/person?user=bob", status=403)

"""The audit log as differences."""

from __future__ import annotations

import re

import pytest

from llmgateway.web.dashboard.audit import differences

SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, []),
        (None, {"user": "ada", "note": None}, [("user", None, "ada")]),
        ({"user": "ada"}, None, [("user", "ada", None)]),
        ({"a": 1, "b": [1]}, {"a": 1, "b": [2]}, [("b", "[1]", "[2]")]),
        (
            {"limits": {"budget": {"amount": 5, "unit": "usd"}}},
            {"limits": {"budget": {"amount": 9, "unit": "usd"}}},
            [("limits.budget.amount", "5", "9")],
        ),
        ({"limits": {"budget": {"amount": 5}}}, {"limits": {"budget": None}}, [("limits.budget.amount", "5", None)]),
        ({"models": ["a", "b"]}, {"models": None}, [("models", "a, b", None)]),
        ({"active": True}, {"active": False}, [("active", "true", "false")]),
    ],
)
def test_names_the_fields_that_differ(before, after, expected):
    assert expected == [(each.name, each.before, each.after) for each in differences(before, after)]


def test_compares_texts_line_by_line():
    (found,) = differences({"prompt": "Be kind.\nBe brief."}, {"prompt": "Be kind.\nBe long."})

    assert [(" ", "Be kind."), ("-", "Be brief."), ("+", "Be long.")] == found.lines


def test_shows_changes_newest_first(owner, call, new_key, clock):
    made = new_key(user="ada", note="first")
    clock.advance(1)
    call("PATCH", f"/keys/{made['id']}", json={"note": SCRIPT, "limits": {"parallel_requests": 2}})
    clock.advance(1)
    call("PUT", "/prompt", json={"prompt": "One\nTwo"})
    text = owner.open("audit")

    assert text.index("prompt.set") < text.index("key.update") < text.index("key.create")
    assert "<del>first</del>" in text
    assert "<ins>2</ins>" in text
    assert "limits.parallel_requests" in text
    assert "<ins>Two</ins>" in text
    assert SCRIPT not in text
    assert made["key"] not in text


def test_filters_and_pages(owner, call, new_key):
    one = new_key(user="ada")
    for number in range(30):
        call("PATCH", f"/keys/{one['id']}", json={"note": f"n{number}"})
    call("PUT", "/groups/ml", json={})

    first = owner.open(f"audit?target={one['id']}")
    (older,) = re.findall(r'href="(\?[^"]*)" rel="next"', first)
    second = owner.open("audit" + older.replace("&amp;", "&"))
    assert [25, 6] == [page.count('<article class="card">') for page in (first, second)]
    assert "group.set" in owner.open("audit?action=group")
    assert "key.update" not in owner.open("audit?action=group")
    assert "No changes." in owner.open("audit?admin=nobody")
    assert "No changes." in owner.open("audit?until=2020-01-01")
    wrong = owner.open(f"audit?since=soon&admin={SCRIPT}", status=422)
    assert 'value="soon"' in wrong
    assert SCRIPT not in wrong


def test_an_admin_of_groups_sees_changes_of_the_groups(named, call, new_key):
    call("PUT", "/groups/ml", json={})
    call("PUT", "/groups/other", json={})
    person = named("group", "ml")

    text = person.open("audit")
    assert "<code>ml</code>" in text
    assert "other" not in text
    assert 403 == named("metrics").client.get("/dashboard/audit").status_code

"""Lists as CSV files."""

from __future__ import annotations

import csv
import io

from llmgateway.web.context import EXTENSION
from llmgateway.web.dashboard import exports


def rows(text):
    return [*csv.DictReader(io.StringIO(text))]


def test_people_with_what_they_have_used(owner, call, new_key, monkeypatch):
    """All pages in one file, narrowed down by the search; no cell is a formula."""
    monkeypatch.setattr(exports, "_AT_ONCE", 2)
    for user in ("ada", "alan", "grace", "=1+1"):
        new_key(user=user, group="ml")

    found = rows(owner.open("people/list.csv"))
    assert ["'=1+1", "ada", "alan", "grace"] == [row["user"] for row in found]
    assert {("ml", "1", "0")} == {(row["groups"], row["key_count"], row["requests"]) for row in found}
    assert ["grace"] == [row["user"] for row in rows(owner.open("people/list.csv?q=grace"))]


def test_requests_as_the_page_shows_them(owner, client, new_key, monkeypatch):
    """With the filters of the page, also over several pages of the API, up to the most."""
    monkeypatch.setattr(exports, "_AT_ONCE", 2)
    monkeypatch.setattr(exports, "MOST_REQUESTS", 4)
    keys = {user: new_key(user=user)["key"] for user in ("ada", "eve")}
    for user in ("ada", "ada", "ada", "eve", "eve", "eve"):
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
        client.post("/v1/chat/completions", json=body, headers={"api-key": keys[user]})
    client.application.extensions[EXTENSION].journal.flush_soon()

    assert 4 == len(rows(owner.open("requests/list.csv")))
    found = rows(owner.open("requests/list.csv?user=ada"))
    assert ["ada"] * 3 == [row["user"] for row in found]
    assert "requests/list.csv?user=ada" in owner.open("requests?user=ada")


def test_group_admins_get_their_own_only(named, new_key):
    new_key(user="ada", group="ml")
    new_key(user="eve", group="art")
    tutor = named("group", "ml")

    tutor.open("people/list.csv", status=403)
    assert [] == rows(tutor.open("requests/list.csv"))

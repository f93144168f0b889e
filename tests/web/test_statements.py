"""Reports, statements and the second currency of an organisation in Berlin, as accounting gets them."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import pytest

from llmgateway.local_time import SETTINGS, TimeZones
from llmgateway.records import Batch
from llmgateway.web.context import EXTENSION
from tests.stores.contract import usage

OCTOBER = "2026-10"
HOSTILE = '<script>alert(1)</script> & "Söhne"'
EUROS = {"code": "EUR", "rates": {OCTOBER: 0.92}}


@pytest.fixture
def client(make_app, clock):
    """Mid-November 2026. In October, three groups and keys without a group were used; one group is gone."""
    app = make_app()
    clock.now = datetime(2026, 11, 15, 12, tzinfo=UTC).timestamp()
    services = app.extensions[EXTENSION]
    services.policy.update_document(SETTINGS, lambda _: TimeZones(("Europe/Berlin",)).as_document())
    noon = datetime(2026, 10, 12, 12, tzinfo=UTC)
    people = [(None, "eve", 0.004), ("ml", "ada", 0.333), ("ml", "alan", 0.334), ("ml", HOSTILE, 0.333)]
    people += [("art", "bob", 10.005), ("gone", "bob", 0.005)]
    records = [
        usage(n, timestamp=noon, group=group, user=user, key_id=f"key_{user}", cost_usd=cost, total_tokens=15)
        for n, (group, user, cost) in enumerate(people)
    ]
    records += [
        usage(20, timestamp=noon, group="ml", user="ada", model="house", cost_usd=None, total_tokens=7),
        # In UTC, the first is in September and the second in October.
        usage(21, timestamp=datetime(2026, 9, 30, 22, 30, tzinfo=UTC), group="art", user="ann", cost_usd=1.0),
        usage(22, timestamp=datetime(2026, 10, 31, 23, 30, tzinfo=UTC), group="art", user="ann", cost_usd=100.0),
    ]
    services.usage_log.append(records, batch=Batch("a", 1))
    return app.test_client()


@pytest.fixture
def set_up(call):
    call("PUT", "/groups/ml", json={"cost_centre": "4711"})
    call("PUT", "/groups/art", json={"cost_centre": "=0815"})
    call("PUT", "/groups/idle", json={})
    call("PUT", "/currency", json=EUROS)


def cents(lines: list[dict[str, Any]], column: str) -> Decimal:
    return sum((Decimal(str(line[column] or 0)) for line in lines), Decimal(0))


def test_reports_by_days_of_the_organisation(call):
    """And by those of UTC on demand; an hour before midnight in UTC is the next day in Berlin."""
    query = "/usage?by=month,user&start=2026-10-01&end=2026-10-31"
    local = {row["user"]: row["cost_usd"] for row in call("GET", query)["rows"]}
    in_utc = {row["user"]: row["cost_usd"] for row in call("GET", f"{query}&tz=utc")["rows"]}

    assert 1.0 == local["ann"]
    assert 100.0 == in_utc["ann"]
    assert local.keys() == in_utc.keys()


def test_reports_by_week(call):
    """From Monday on: 2026-11-01 is the Sunday of week 44 in Berlin, and 2026-10-01 a Thursday."""
    weeks = [(row["week"], row["requests"]) for row in call("GET", "/usage?by=week")["rows"]]

    assert [("2026-W40", 1), ("2026-W42", 7), ("2026-W44", 1)] == weeks


def test_filters_are_counted_by_days_of_the_organisation(call, client):
    """The report has the same days as that of usage."""
    late = datetime(2026, 11, 1, 23, 30, tzinfo=UTC)
    flagged = usage(30, timestamp=late, content_filter=("hate",), filter_severities=("hate:high",))
    client.application.extensions[EXTENSION].usage_log.append([flagged], batch=Batch("a", 2))

    assert "2026-11-02" == call("GET", "/usage/filters?by=day")["rows"][0]["day"]
    assert "2026-11-01" == call("GET", "/usage/filters?by=day&tz=utc")["rows"][0]["day"]


def test_reports_by_cost_centre(call, set_up):
    """Of groups as they are now, also as CSV."""
    rows = call("GET", f"/usage?by=cost_centre&start={OCTOBER}-01&end={OCTOBER}-31")["rows"]
    table = [*csv.DictReader(call("GET", "/usage?by=cost_centre&format=csv").splitlines())]

    assert [(None, 2), ("4711", 4), ("=0815", 2)] == [(row["cost_centre"], row["requests"]) for row in rows]
    assert ["", "4711", "'=0815"] == [row["cost_centre"] for row in table]


def test_reports_in_the_second_currency(call, set_up):
    """At the rate of the month; November has none, and says so wherever it is in a sum."""
    report = call("GET", "/usage?by=month&currency=EUR")
    october, november = report["rows"]

    assert (OCTOBER, "EUR", []) == (october["month"], october["currency"], october["months_without_rate"])
    assert october["cost"] == pytest.approx(october["cost_usd"] * 0.92)
    assert (None, ["2026-11"]) == (november["cost"], november["months_without_rate"])
    assert (None, ["2026-11"]) == (report["total"]["cost"], report["total"]["months_without_rate"])
    table = [*csv.DictReader(call("GET", "/usage?by=user&currency=EUR&format=csv").splitlines())]
    assert [("", "2026-11"), ("9.2092", "")] == [
        (row["cost"], row["months_without_rate"]) for row in table if row["user"] in ("ann", "bob")
    ]


@pytest.mark.parametrize("code", ["CHF", "eur", "USD"])
def test_refuses_a_currency_that_is_not_set(call, set_up, code):
    """And names the one that is."""
    error = call("GET", f"/usage?currency={code}", status=422)["error"]

    assert ["The second currency is EUR. PUT /admin/currency sets it, with its rates."] == error["errors"]["currency"]


def test_refuses_a_currency_where_there_is_none(call):
    error = call("GET", "/usage?currency=EUR", status=422)["error"]

    assert ["There is no second currency. PUT /admin/currency sets it, with its rates."] == error["errors"]["currency"]


@pytest.mark.parametrize("query", ["tz=Europe/Berlin", "tz=UTC", "by=year", "by=week,week"])
def test_refuses_other_days_and_groupings(call, query):
    """With what there is."""
    (problem,) = call("GET", f"/usage?{query}", status=422)["error"]["errors"].values()

    assert re.search("utc|week", problem[0])


def test_a_statement_adds_up_to_the_report(call, set_up):
    """Persons to their group, groups and keys without a group to the report of the month, to the cent."""
    report = call("GET", f"/usage?start={OCTOBER}-01&end={OCTOBER}-31&currency=EUR")["total"]
    whole = call("GET", f"/statements/{OCTOBER}")

    assert [None, "art", "gone", "idle", "ml"] == [line["group"] for line in whole["groups"]]
    for column in ("cost_usd", "cost"):
        total = Decimal(str(whole["total"][column]))
        assert total == Decimal(str(round(report[column] + 1e-9, 2)))
        assert total == cents(whole["groups"], column) == cents(whole["cost_centres"], column)
    for line in whole["groups"][1:]:
        group = call("GET", f"/groups/{line['group']}/statement?month={OCTOBER}")
        assert {**line} == {"group": group["group"], "cost_centre": group["cost_centre"], **group["total"]}
        for column in ("cost_usd", "cost"):
            assert cents([line], column) == cents(group["persons"], column) == cents(group["models"], column)


def test_a_statement_of_a_group(call, set_up):
    """Its persons and models, and what has no price, by name."""
    found = call("GET", f"/groups/ml/statement?month={OCTOBER}")

    assert ("4711", "Europe/Berlin", True, "EUR", 0.92) == tuple(
        found[name] for name in ("cost_centre", "timezone", "is_final", "currency", "rate")
    )
    assert [(HOSTILE, 0.33, []), ("ada", 0.33, ["house"]), ("alan", 0.34, [])] == [
        (line["user"], line["cost_usd"], line["unpriced_models"]) for line in found["persons"]
    ]
    assert [("gpt-4o", 1.0, 3), ("house", None, 1)] == [
        (line["model"], line["cost_usd"], line["requests"]) for line in found["models"]
    ]


def test_the_present_month_is_not_final(call, clock):
    """Nor is one that has just ended: its last records are on their way."""
    assert not call("GET", "/statements/2026-11")["is_final"]
    clock.now = datetime(2026, 12, 1, 22, 59, tzinfo=UTC).timestamp()
    assert not call("GET", "/statements/2026-11")["is_final"]
    clock.advance(60)
    assert call("GET", "/statements/2026-11")["is_final"]


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "october", "0000-01", "2026-10-01", "2026-10%0a"])
def test_refuses_what_is_no_month(call, month):
    """In the path and in the query, with an example of one."""
    for path in (f"/statements/{month}", f"/groups/ml/statement?month={month}"):
        assert {"month": ["Must be a month like 2026-10."]} == call("GET", path, status=422)["error"]["errors"]


def test_refuses_a_month_that_has_not_begun(call, clock):
    """In the organisation's time zone, where December begins an hour before it does in UTC."""
    for path in ("/statements/2026-12", "/groups/ml/statement?month=2026-12"):
        assert ["2026-12 has not begun."] == call("GET", path, status=422)["error"]["errors"]["month"]
    clock.now = datetime(2026, 11, 30, 23, tzinfo=UTC).timestamp()
    call("GET", "/statements/2026-12")


def test_a_group_that_is_gone_has_statements(call, set_up):
    """Of months in which it was used; of another month it is as unknown as any."""
    assert 1 == call("GET", f"/groups/gone/statement?month={OCTOBER}")["total"]["requests"]
    call("GET", "/groups/gone/statement?month=2026-11", status=404)
    assert 0 == call("GET", "/groups/idle/statement?month=2026-11")["total"]["requests"]
    call("GET", "/groups/idle/statement", status=422)


def test_a_statement_as_csv(call, set_up):
    """A line for each person; amounts with their cents, no formula, and no total that a spreadsheet would add again."""
    table = [*csv.DictReader(call("GET", f"/groups/ml/statement?month={OCTOBER}&format=csv").splitlines())]
    art, *_ = [
        row
        for row in csv.DictReader(call("GET", f"/statements/{OCTOBER}?format=csv").splitlines())
        if row["group"] == "art"
    ]

    assert 3 == len(table)
    assert ("2026-10", "ml", "4711", "alan", "0.34", "EUR", "0.31", "") == tuple(
        table[2][name]
        for name in ("month", "group", "cost_centre", "user", "cost_usd", "currency", "cost", "unpriced_models")
    )
    assert "house" == table[1]["unpriced_models"]
    assert ("'=0815", "11.01") == (art["cost_centre"], art["cost_usd"])


class Page(HTMLParser):
    """What a browser would load or run of a page, and its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.policy = ""
        self._is_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.addresses += [named[name] or "" for name in ("src", "href", "action") if name in named]
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"] or ""
        if tag in ("td", "th", "h1", "dd"):
            self._is_cell = True
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._is_cell:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._is_cell = self._is_cell and tag not in ("td", "th", "h1", "dd")


@pytest.mark.parametrize("path", [f"/statements/{OCTOBER}?", f"/groups/ml/statement?month={OCTOBER}&"])
def test_a_statement_as_a_page_loads_and_runs_nothing(client, admin, set_up, path):
    """Neither from the gateway nor from a file that was saved; names are text."""
    answer = client.get(f"/admin{path}format=html", headers=admin)
    page = Page(answer.text)

    assert (200, "text/html; charset=utf-8") == (answer.status_code, answer.headers["Content-Type"])
    assert "no-store" == answer.headers["Cache-Control"]
    assert "DENY" == answer.headers["X-Frame-Options"]
    assert [] == page.addresses
    assert not {"script", "link", "img", "iframe", "form"} & {*page.tags}
    (nonce,) = re.findall(r'<style nonce="([^"]+)">', answer.text)
    for policy in (answer.headers["Content-Security-Policy"], page.policy):
        assert policy.startswith(f"default-src 'none'; style-src 'nonce-{nonce}'; ")
    assert " style=" not in answer.text
    assert nonce not in client.get(f"/admin{path}format=html", headers=admin).text
    assert "@media print" in answer.text


def test_a_page_shows_what_the_statement_says(call, set_up):
    """All lines with their cents, and what is not known in words."""
    group = Page(call("GET", f"/groups/ml/statement?month={OCTOBER}&format=html"))
    whole = Page(call("GET", f"/statements/{OCTOBER}?format=html"))

    for text in (HOSTILE, "4711", "0.34", "0.31", "not known", f"{OCTOBER} (Europe/Berlin)", "1 USD = 0.92 EUR"):
        assert text in group.cells
    for text in ("keys without a group", "gone", "idle", "=0815", "11.01"):
        assert text in whole.cells


def test_a_page_says_what_is_missing(call, set_up, clock):
    """A rate, a price, and the rest of the month."""
    text = call("GET", "/groups/art/statement?month=2026-11&format=html")
    assert "EUR has no rate for 2026-11" in text
    assert "amounts can still rise" in text
    text = call("GET", f"/groups/ml/statement?month={OCTOBER}&format=html")
    assert "1 request to house, whose price is not known" in text
    assert "can still rise" not in text


def test_a_page_without_a_second_currency_has_no_column_for_it(call):
    assert "EUR" not in call("GET", f"/statements/{OCTOBER}?format=html")
    assert "Rate" not in call("GET", f"/statements/{OCTOBER}?format=html")


class TestCurrency:
    def test_there_is_none_at_first(self, call):
        assert {"code": None, "rates": {}} == call("GET", "/currency")

    def test_put_replaces_all_and_patch_sets_months(self, call):
        """Rates are shown by month; null removes one."""
        assert EUROS == call("PUT", "/currency", json=EUROS)
        more = call("PATCH", "/currency", json={"rates": {"2026-09": 0.9, OCTOBER: 0.93}})
        assert [("2026-09", 0.9), (OCTOBER, 0.93)] == [*more["rates"].items()]
        assert {"2026-09": 0.9} == call("PATCH", "/currency", json={"code": "EUR", "rates": {OCTOBER: None}})["rates"]
        assert {"code": "CHF", "rates": {}} == call("PUT", "/currency", json={"code": "CHF"})
        assert {"code": "CHF", "rates": {}} == call("PATCH", "/currency", json={})
        assert {"code": None, "rates": {}} == call("PUT", "/currency", json={"code": None})
        assert {"code": "SEK", "rates": {OCTOBER: 9.5}} == call(
            "PATCH", "/currency", json={"code": "SEK", "rates": {OCTOBER: 9.5}}
        )
        assert {"code": "SEK", "rates": {OCTOBER: 9.5}} == call("GET", "/currency")

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "code"),
            ({"code": ""}, "code"),
            ({"code": "eur"}, "code"),
            ({"code": "EURO"}, "code"),
            ({"code": "€"}, "code"),
            ({"code": "USD"}, "code"),
            ({"code": 978}, "code"),
            ({"code": "EUR", "rates": {"2026-13": 1}}, "rates"),
            ({"code": "EUR", "rates": {"2026-10-01": 1}}, "rates"),
            ({"code": "EUR", "rates": {"10/2026": 1}}, "rates"),
            ({"code": "EUR", "rates": {OCTOBER: 0}}, "rates"),
            ({"code": "EUR", "rates": {OCTOBER: -0.92}}, "rates"),
            ({"code": "EUR", "rates": {OCTOBER: "0,92"}}, "rates"),
            ({"code": "EUR", "rates": {OCTOBER: "0.92"}}, "rates"),
            ({"code": "EUR", "rates": {OCTOBER: True}}, "rates"),
            ({"code": "EUR", "rates": {OCTOBER: None}}, "rates"),
            ({"code": "EUR", "rates": {OCTOBER: 1e300}}, "rates"),
            ({"code": "EUR", "rates": [0.92]}, "rates"),
            ({"code": None, "rates": {OCTOBER: 0.92}}, "rates"),
            ({"code": "EUR", "rate": {OCTOBER: 0.92}}, "rate"),
        ],
    )
    def test_says_what_is_wrong_by_field(self, call, body, field):
        """And stores nothing."""
        call("PUT", "/currency", json=EUROS)

        error = call("PUT", "/currency", json=body, status=422)["error"]

        assert [field] == [*error["errors"]]
        assert EUROS == call("GET", "/currency")

    def test_rates_of_one_currency_are_not_mixed_with_those_of_another(self, call):
        """PATCH refuses another code, and a rate of nothing."""
        error = call("PATCH", "/currency", json={"rates": {OCTOBER: 0.92}}, status=422)["error"]
        assert "name it" in error["errors"]["code"][0]
        call("PUT", "/currency", json=EUROS)
        error = call("PATCH", "/currency", json={"code": "CHF", "rates": {OCTOBER: 0.8}}, status=422)["error"]
        assert "those of EUR" in error["errors"]["code"][0]
        assert EUROS == call("GET", "/currency")

    def test_what_changes_nothing_is_not_in_the_audit(self, call, clock):
        """What does is there, with what was before."""
        call("PUT", "/currency", json=EUROS)
        call("PUT", "/currency", json=EUROS)
        call("PATCH", "/currency", json={})
        clock.advance(1)
        call("PUT", "/currency", json={"code": None})

        entries = call("GET", "/audit")["items"]
        assert [(EUROS, None), (None, EUROS)] == [(entry["before"], entry["after"]) for entry in entries]


class TestCostCentre:
    def test_is_a_field_of_a_group(self, call):
        """Set, kept, changed and cleared like others."""
        assert "4711" == call("PUT", "/groups/ml", json={"cost_centre": "4711"})["cost_centre"]
        assert "4711" == call("PATCH", "/groups/ml", json={"note": "x"})["cost_centre"]
        assert ["4711"] == [group["cost_centre"] for group in call("GET", "/groups")["items"]]
        assert call("PATCH", "/groups/ml", json={"cost_centre": None})["cost_centre"] is None
        assert call("PUT", "/groups/ml", json={})["cost_centre"] is None

    @pytest.mark.parametrize("value", ["", "a\nb", "x" * 101, 4711])
    def test_is_one_line_of_text(self, call, value):
        assert ["cost_centre"] == [
            *call("PUT", "/groups/ml", json={"cost_centre": value}, status=422)["error"]["errors"]
        ]


def test_a_day_of_25_hours_has_25_hours(call, client):
    """And one of 23 has 23, in a report by day."""
    berlin = TimeZones(("Europe/Berlin",))
    log = client.application.extensions[EXTENSION].usage_log
    start = berlin.start(datetime(2026, 10, 24, tzinfo=UTC).date())
    hours = [usage(100 + n, timestamp=start + timedelta(hours=n), user="clock") for n in range(24 + 25 + 24)]
    log.append(hours, batch=Batch("b", 1))

    rows = call("GET", "/usage?by=day,user&start=2026-10-24&end=2026-10-26")["rows"]

    assert [24, 25, 24] == [row["requests"] for row in rows if row["user"] == "clock"]


def test_the_time_zone_of_a_new_store_is_that_of_the_environment(make_app, admin, clock):
    """Its days are in reports, and in what a user sees of the day."""
    app = make_app(LLMGATEWAY_TIMEZONE="Europe/Berlin")
    client = app.test_client()
    key = client.post("/admin/keys", json={"user": "ada"}, headers=admin).json
    clock.now = datetime(2026, 6, 1, 23, tzinfo=UTC).timestamp()
    at = [datetime(2026, 6, 1, hour, tzinfo=UTC) for hour in (21, 22)]
    records = [usage(n, timestamp=each, key_id=key["id"], total_tokens=1) for n, each in enumerate(at)]
    app.extensions[EXTENSION].usage_log.append(records, batch=Batch("a", 1))

    rows = client.get("/admin/usage?by=day", headers=admin).json["rows"]
    me = client.get("/v1/me", headers={"Authorization": f"Bearer {key['key']}"}).json

    assert [("2026-06-01", 1), ("2026-06-02", 1)] == [(row["day"], row["requests"]) for row in rows]
    assert (1, 2) == (me["usage"]["today"]["requests"], me["usage"]["month"]["requests"])


def test_a_new_time_zone_changes_no_day_that_has_passed(call, client, clock):
    """Until the next midnight of New York, days are those of Berlin."""
    call("PUT", "/settings", json={"timezone": "America/New_York"})
    log = client.application.extensions[EXTENSION].usage_log
    at = [datetime(2026, 11, day, 4, 30, tzinfo=UTC) for day in (15, 16, 17)]
    log.append([usage(200 + n, timestamp=each, user="eve2") for n, each in enumerate(at)], batch=Batch("c", 1))

    rows = call("GET", "/usage?by=day,user&start=2026-11-14")["rows"]

    assert ["2026-11-15", "2026-11-16", "2026-11-16"] == [
        row["day"] for row in rows for _ in range(row["requests"]) if row["user"] == "eve2"
    ]

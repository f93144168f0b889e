"""What all pages are made of: numbers, charts, links, forms, and the files beside them."""

from __future__ import annotations

import hashlib
import re
from datetime import date, timedelta
from xml.etree import ElementTree

import pytest
from werkzeug.datastructures import MultiDict

from llmgateway.web.dashboard import charts, formats
from llmgateway.web.dashboard.forms import Form, limit_values
from llmgateway.web.dashboard.links import STATIC, here, link
from llmgateway.web.dashboard.vendor import SHA256

DAYS = [date(2026, 11, 1) + timedelta(days=number) for number in range(30)]
HOSTILE = "</svg><script>alert(1)</script>\"'&"


def drawn(chart):
    """The chart as XML, which refuses what a browser would only guess at."""
    return ElementTree.fromstring(str(chart))


@pytest.mark.parametrize(
    ("written", "value", "text"),
    [
        (formats.money, 2318.4, "$2,318"),
        (formats.money, 20.114, "$20.11"),
        (formats.money, 0.0042, "$0.0042"),
        (formats.money, 0.00000042, "< $0.0001"),
        (formats.money, 0, "$0"),
        (formats.money, None, "\N{EN DASH}"),
        (formats.count, 12904, "12,904"),
        (formats.short, 12904, "12.9 k"),
        (formats.short, 1_250_000, "1.25 M"),
        (formats.seconds, 850, "850 ms"),
        (formats.seconds, 8240, "8.2 s"),
        (formats.seconds, 125_000, "2 min 5 s"),
        (formats.percent, 0.004, "0.4 %"),
        (formats.percent, 0.46, "46 %"),
        (formats.words, ["a"], "a"),
        (formats.words, ["a", "b", "c"], "a, b and c"),
        (formats.words, [], "\N{EN DASH}"),
    ],
)
def test_writes_numbers(written, value, text):
    assert text == written(value)


@pytest.mark.parametrize(
    ("top", "parts"), [(0, 1.0), (1, 0.2), (7, 2), (46, 10), (227, 50), (100, 20), (0.0004, 0.0001), (12.5, 2.5)]
)
def test_axes_have_round_parts(top, parts):
    """At most five, and none is so wide that the curve lies at the bottom."""
    assert parts == pytest.approx(charts.step(top))


def test_bars_add_up():
    """A day's bars stand on each other, and its text says the sum and each part."""
    svg = drawn(charts.stacked(DAYS[:2], {"a": [3, 0], "b": [1, 2]}, title="Cost"))
    first, second = (group for group in svg.iter("g") if "day" == group.get("class"))

    bars = {path.get("class"): re.findall(r"v([\d.]+)h", path.get("d")) for path in svg.iter("path")}
    assert [2, 1] == [len(bars["s1"]), len(bars["s0"])]
    assert float(bars["s0"][0]) == pytest.approx(3 * float(bars["s1"][0]), rel=0.05)
    assert "Sun 1 Nov: $4.00, a $3.00, b $1.00" == first.find("title").text
    assert "Mon 2 Nov: $2.00, b $2.00" == second.find("title").text


def test_days_without_data_interrupt_a_line():
    svg = drawn(charts.lines(DAYS[:5], {"p50": [1.0, 2.0, None, 3.0, 4.0]}, title="Time"))

    assert 2 == len(list(svg.iter("polyline")))
    assert "Tue 3 Nov: no data" in {title.text for title in svg.iter("title")}


def test_a_heat_map_has_a_field_for_each_hour():
    rows = [[0] * 24 for _ in range(7)]
    rows[3][14] = 8
    svg = drawn(charts.heat(rows, title="Requests by hour"))

    shades = [rect.get("class") for rect in svg.iter("rect")]
    assert 7 * 24 == len(shades)
    assert {"h8": 1, "h0": 167} == {shade: shades.count(shade) for shade in set(shades)}


@pytest.mark.parametrize(("used", "level"), [(0, "fine"), (15.9, "fine"), (16, "near"), (20, "over"), (45, "over")])
def test_the_bar_of_a_budget_warns(used, level):
    svg = drawn(charts.budget(used, 20, title="Budget"))

    assert f"budget {level}" == svg.get("class")
    assert 160 >= float(svg.findall("rect")[1].get("width"))


@pytest.mark.parametrize(
    "chart",
    [
        charts.stacked(DAYS, {HOSTILE: [1] * 30}, title=HOSTILE),
        charts.lines(DAYS, {HOSTILE: [1.0] * 30}, title=HOSTILE),
        charts.sparkline([1, 2, 3], title=HOSTILE),
        charts.sparkline([0, 0], title=HOSTILE),
        charts.budget(1, 2, title=HOSTILE),
        charts.bars({HOSTILE: 1.0}, title=HOSTILE),
        charts.heat([[1] * 24] * 7, title=HOSTILE, unit=HOSTILE),
    ],
)
def test_names_in_charts_are_text(chart):
    svg = drawn(chart)

    assert HOSTILE == svg.get("aria-label")
    assert not list(svg.iter("script"))


@pytest.mark.parametrize("days", [0, 1, 366])
def test_charts_of_any_length(days):
    names = [date(2026, 1, 1) + timedelta(days=number) for number in range(days)]

    assert "NaN" not in charts.stacked(names, {"a": [0.0] * days}, title="Cost")
    assert "NaN" not in charts.lines(names, {"a": [None] * days}, title="Time")


@pytest.mark.parametrize(
    ("path", "prefix", "expected"),
    [
        ("/dashboard/", "", "../dashboard/keys?user=a%26b"),
        ("/dashboard/keys", "", "../dashboard/keys?user=a%26b"),
        ("/dashboard/keys/key_1", "", "../../dashboard/keys?user=a%26b"),
        ("/dashboard/keys/key_1", "/ai", "../../dashboard/keys?user=a%26b"),
    ],
)
def test_links_are_relative(client, path, prefix, expected):
    """Only a proxy in front knows what stands before the path."""
    with client.application.test_request_context(path, base_url=f"http://localhost{prefix}"):
        assert expected == link("dashboard.keys", user="a&b", group=None)


def test_a_link_changes_a_part_of_the_query(client):
    with client.application.test_request_context("/dashboard/keys?user=a&page=3"):
        assert "?user=a&sort=-name" == here(page=None, sort="-name")


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("20", 20),
        (" 2,000 ", 2000),
        ("2.50", 2.5),
        ("", None),
        ("many", "many"),
        ("NaN", "NaN"),
        ("inf", "inf"),
        ("1e999", "1e999"),
        ("-3", -3),
    ],
)
def test_numbers_are_read_or_left_to_be_refused(client, typed, number):
    """What is no number must not become null: that would lift a limit."""
    with client.application.test_request_context("/dashboard/keys", method="POST", data={"n": typed}):
        assert number == Form.sent().number("n")


def test_limits_go_to_a_form_and_back(client):
    limits = {
        "requests_per_minute": 30,
        "tokens_per_minute": None,
        "parallel_requests": None,
        "budget": {"amount": 2.5, "unit": "usd", "period": "week"},
    }
    typed = {name: "" if value is None else str(value) for name, value in limit_values(limits).items()}
    with client.application.test_request_context("/dashboard/keys", method="POST", data=MultiDict(typed)):
        assert limits == Form.sent().limits()


def test_the_style_has_nothing_that_no_page_uses():
    sheet = re.sub(r"/\*.*?\*/|\{[^{}]*\}", " ", (STATIC / "dashboard.css").read_text(), flags=re.DOTALL)
    styled = set(re.findall(r"\.([a-z][a-z-]*)(?![\w-])", sheet))
    files = [path for kind in ("*.html", "*.py", "*.js") for path in STATIC.parent.rglob(kind)]
    used = set(re.findall(r"[a-z][a-z-]*", " ".join(path.read_text() for path in files)))

    assert set() == styled - used


def test_the_vendored_script_is_the_release(owner):
    with owner.client.get(f"/dashboard/static/htmx.min.js?v={SHA256[:12]}") as script:
        assert SHA256 == hashlib.sha256(script.data).hexdigest()
    assert SHA256[:12] in owner.open("keys")
    assert "max-age=31536000" in script.headers["Cache-Control"]


@pytest.mark.parametrize("name", ["../keys.py", "%2e%2e/keys.py", "nothing.css"])
def test_serves_no_other_files(owner, name):
    assert 404 == owner.client.get(f"/dashboard/static/{name}").status_code


def test_an_axis_of_tiny_amounts_has_no_exponents():
    """The first requests at a new gateway cost parts of a cent."""
    svg = drawn(charts.stacked(DAYS[:1], {"a": [1.9e-05]}, title="Cost"))
    ticks = [each.text for each in svg.iter() if each.get("class") == "tick" and (each.text or "").startswith("$")]
    assert ["$0", "$0.000005", "$0.00001", "$0.000015", "$0.00002"] == ticks

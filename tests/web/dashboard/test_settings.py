"""The page of settings: time zone, Azure's address and key, the second currency."""

from __future__ import annotations

import pytest

from tests.web.conftest import AZURE_KEY
from tests.web.dashboard.reading import etag_of


def test_the_time_zone_holds_from_the_next_midnight_on(owner, call):
    page = owner.send_and_follow("settings/time-zone", timezone="Europe/Berlin", etag=etag_of(owner.open("settings")))

    assert "Europe/Berlin holds from the next midnight." in page
    assert "Europe/Berlin" == call("GET", "/settings")["pending"]["timezone"]
    page = owner.send("settings/time-zone", status=422, timezone="Berlin").text
    assert "Did you mean Europe/Berlin?" in page
    assert 'value="Berlin"' in page


def test_the_address_of_azure_is_stored_and_the_environment_wins(owner, call):
    """A key that was typed into the address is not shown again."""
    page = owner.send_and_follow("settings/azure", base_url="https://new.openai.azure.com", key_header="Authorization")

    assert "LLM_BASE_URL in the environment wins" in page
    assert "https://new.openai.azure.com" == call("GET", "/settings")["stored"]["base_url"]
    page = owner.send("settings/azure", status=422, base_url="https://me:azure-secret@new.openai.azure.com").text
    assert 'id="base_url-wrong"' in page
    assert "azure-secret" not in page
    assert "https://new.openai.azure.com" == call("GET", "/settings")["stored"]["base_url"]


@pytest.mark.parametrize(("key", "told"), [(AZURE_KEY, "Azure accepts the key"), ("a-wrong-key", "refuses")])
def test_azures_key_is_stored_and_tried(owner, key, told):
    """What Azure thinks of it is said; the key is in no page."""
    page = owner.send_and_follow("settings/azure-key", key=key)

    assert told in page
    assert key not in page
    refused = owner.send("settings/azure-key", status=422, key="with blanks in-it").text
    assert "in-it" not in refused


def test_the_currency_is_set_and_removed(owner, call):
    page = owner.send_and_follow("settings/currency", code="eur", rates="2026-10 0.92\r\n\r\n2026-11 = 0.93\r\n")

    assert {"code": "EUR", "rates": {"2026-10": 0.92, "2026-11": 0.93}} == call("GET", "/currency")
    assert "2026-11 0.93\n2026-10 0.92" in page
    for rates, told in (("2026-10 much", "Write a month and a rate"), ("2026-13 1", "2026-13: Must be a month")):
        refused = owner.send("settings/currency", status=422, code="EUR", rates=rates).text
        assert told in refused
        assert f"{rates}</textarea>" in refused
    owner.send_and_follow("settings/currency", code="", rates="")
    assert None is call("GET", "/currency")["code"]


def test_two_admins_on_one_form(owner, call):
    tag = etag_of(owner.open("settings"))
    call("PUT", "/settings", json={"timezone": "Asia/Tokyo"})

    for path, fields in (("time-zone", {"timezone": "UTC"}), ("azure", {"base_url": "https://x.openai.azure.com"})):
        assert "Asia/Tokyo" in owner.send(f"settings/{path}", status=412, etag=tag, **fields).text
    assert "Asia/Tokyo" == call("GET", "/settings")["pending"]["timezone"]
    call("PUT", "/currency", json={"code": "CHF"})
    assert "CHF" in owner.send("settings/currency", status=412, code="EUR", rates="", etag=tag).text


def test_a_viewer_looks_and_a_groups_admin_does_not(named, call):
    viewer = named("viewer")
    assert "<form" not in viewer.open("settings").partition("<main")[2].partition("</main")[0]
    for path in ("time-zone", "azure", "azure-key", "currency"):
        viewer.send(f"settings/{path}", status=403, timezone="UTC", key="a-key", code="EUR")
    call("PUT", "/groups/ml", json={})
    named("group", "ml").open("settings", status=403)

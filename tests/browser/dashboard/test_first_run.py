"""The first steps with a new gateway, as a person takes them."""

from __future__ import annotations

import re

import pytest
import requests
from playwright.sync_api import expect

from tests.browser.dashboard.conftest import AZURE_KEY, Site

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_from_nothing_to_the_first_answer(bare_site: Site, open_window):
    """A wrong key is explained; then a key is handed out, and its first request is seen arriving."""
    window = open_window(bare_site)
    page = window.page
    expect(page).to_have_url(re.compile("/dashboard/first-run$"))

    page.get_by_label("Address", exact=True).fill(f"{bare_site.azure.url}/openai/v1")
    page.get_by_label("Azure's key").fill("the-key-of-another-resource")
    page.get_by_role("button", name="Try and store").click()
    expect(page.get_by_text("refuses the key (401)")).to_be_visible()
    assert "the-key-of-another-resource" not in page.content()
    assert bare_site.ask("settings")["base_url"] is None

    page.get_by_label("Azure's key").fill(AZURE_KEY)
    page.get_by_role("button", name="Try and store").click()
    expect(page.get_by_role("status")).to_have_text("Azure answers at this address and accepts the key.")

    page.get_by_label("Person").fill("Ada Lovelace")
    page.get_by_role("button", name="Hand out").click()
    key = page.locator("#secret").inner_text()
    expect(page.locator("#line")).to_contain_text(f"curl {bare_site.gateway.url}/v1/chat/completions")
    expect(page.get_by_text("waiting", exact=True)).to_be_visible()

    answer = bare_site.gateway.chat(key)
    assert 200 == answer.status
    expect(page.locator("#arrived")).to_contain_text("Ada Lovelace has asked gpt-4o-mini")
    assert key == page.locator("#secret").inner_text()
    page.get_by_role("link", name="To the overview").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.url.endswith("/dashboard/")
    assert key not in page.content()


@pytest.mark.parametrize("bare_stores", ["sqlite"], indirect=True)
def test_without_script(bare_site: Site, open_window):
    """Every form works, and the page is loaded again to see whether a request has arrived."""
    page = open_window(bare_site, java_script_enabled=False).page
    page.get_by_role("button", name="Skip for now").click()
    assert page.url.endswith("/dashboard/")

    page.goto("/dashboard/first-run")
    page.get_by_label("Person").fill("Grace Hopper")
    page.get_by_role("button", name="Hand out").click()
    key = page.locator("#secret").inner_text()
    assert 502 == bare_site.gateway.chat(key).status
    page.get_by_role("link", name="look again").click()
    expect(page.get_by_text("There are keys.")).to_be_visible()
    assert "waiting" in page.locator("#arrived").inner_text()


def test_the_printed_link_opens_it_once(trial, browser):
    """``llmgateway try`` prints it; it leaves no token in the address."""
    for context in (browser.new_context(), browser.new_context()):
        page = context.new_page()
        page.goto(trial.dashboard)
        assert trial.dashboard.rpartition("/")[2] not in page.url + page.content()
        context.close()
    assert requests.get(trial.dashboard, timeout=10).url.endswith("/sign-in")

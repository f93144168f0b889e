"""Every page as a person sees it: light, dark and on a phone; for a screen reader; how heavy; under a strict policy.

With ``LLMGATEWAY_TEST_SCREENSHOTS=FOLDER`` each page is also painted into files there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from llmgateway.app import create_app
from llmgateway.settings import Settings
from tests.browser.dashboard.conftest import Site
from tests.browser.dashboard.pages import NO_PAGES, NOBODYS, OF_ACCOUNTS, PAGES, PERSONAL

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MOST_BYTES = 150 * 1024
SCREENS = {
    "light": ("light", 1280, 900),
    "dark": ("dark", 1280, 900),
    "phone": ("light", 360, 740),
}
_FILES = (
    "() => [...document.querySelectorAll('link[rel=stylesheet], script[src]')].map((each) => each.href || each.src)"
)
_TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
_SCREENSHOTS = os.environ.get("LLMGATEWAY_TEST_SCREENSHOTS")


@pytest.fixture
def endpoints(tmp_path) -> set[str]:
    """What the program has of pages."""
    app = create_app(Settings(admin_key="a" * 24, instance=tmp_path))
    return {
        rule.endpoint
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("dashboard.") and "GET" in (rule.methods or ())
    }


def test_every_page_is_in_the_list(endpoints):
    """A new page has an address here, so that it is looked at."""
    assert endpoints - NO_PAGES <= PAGES.keys()


def weight(page: Page, sizes: dict[str, int]) -> int:
    """The bytes of the page with its style and script, not compressed."""
    for address in page.evaluate(_FILES):
        if address not in sizes:
            sizes[address] = len(page.request.get(address).body())
    return len(page.content().encode()) + sum(sizes[address] for address in page.evaluate(_FILES))


def faults(page: Page, name: str) -> list[str]:
    """What is wrong with the page on each screen."""
    found = []
    for screen, (scheme, width, height) in SCREENS.items():
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        results = Axe().run(page, options={"resultTypes": ["violations"]})
        for each in results.response["violations"]:
            nodes = "; ".join(node["html"][:150] for node in each["nodes"][:3])
            found.append(f"{name}, {screen}: {each['id']}: {each['help']}: {nodes}")
        if (wide := page.evaluate(_TOO_WIDE)) > 0:
            found.append(f"{name}, {screen}: {wide} px too wide")
        if _SCREENSHOTS:
            file = Path(_SCREENSHOTS) / f"{name.removeprefix('dashboard.')}-{screen}.png"
            page.screenshot(path=file, full_page=True)
    return found


@pytest.mark.parametrize("who", ["admin", "holder", "nobody"])
def test_pages_can_be_seen_by_everybody(demo_site: Site, open_window, endpoints, who):
    """Axe finds nothing, nothing is wider than the screen, and no page is heavy."""
    window = open_window(demo_site, sign_in=False, reduced_motion="reduce")
    if who == "admin":
        window.sign_in()
    elif who == "holder":
        window.sign_in(demo_site.gateway.key(user="Grace Hopper", name="thesis"))
    mine = {
        "admin": endpoints - PERSONAL - OF_ACCOUNTS - NOBODYS,
        "holder": endpoints & PERSONAL,
        "nobody": endpoints & NOBODYS,
    }[who]
    found: list[str] = []
    sizes: dict[str, int] = {}
    for name in sorted(mine & PAGES.keys()):
        answer = window.page.goto(f"/dashboard/{PAGES[name](demo_site.ask)}")
        if answer is None or answer.status != 200:
            found.append(f"{name}: status {answer and answer.status}")
            continue
        if (heavy := weight(window.page, sizes)) > MOST_BYTES:
            found.append(f"{name}: {heavy} bytes")
        found += faults(window.page, name)

    assert [] == found

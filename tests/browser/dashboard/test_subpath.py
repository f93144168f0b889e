"""The dashboard below a path of somebody else's site: behind a real nginx, with and without script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import expect

from llmgateway.simulator import Simulator
from tests.browser.dashboard.conftest import AZURE_KEY, Site
from tests.browser.test_subpath import PLACES, nginx
from tests.gateway_process import ADMIN_KEY, GatewayProcess
from tests.servers import free_port, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """A gateway that trusts its nginx, and the address of nginx."""
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        azure = stack.enter_context(Simulator(key=AZURE_KEY))
        environ = {
            "LLM_BASE_URL": f"{azure.url}/openai/v1",
            "LLM_API_KEY": AZURE_KEY,
            "LLMGATEWAY_TRUSTED_PROXY": "127.0.0.1",
        }
        gateway = stack.enter_context(GatewayProcess(environ, folder=folder / "gateway"))
        port = free_port()
        stack.enter_context(nginx(folder, port=port, gateway=gateway.port))
        yield Site(gateway, azure), f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
@pytest.mark.parametrize("place", PLACES)
def test_works_below_a_path(front, open_window, place, script):
    """Pages, forms, redirects, the list that follows and the page after signing in: nothing is asked outside."""
    site, address = front
    name = f"ada-{place.replace('/', '-')}-{script}"
    page = open_window(site, sign_in=False, java_script_enabled=script, base_url=f"{address}/{place}/").page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto(f"dashboard/keys?q={name}")
    page.get_by_label("Key", exact=True).fill(ADMIN_KEY)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{address}/{place}/dashboard/keys?q={name}")
    page.get_by_role("link", name="Hand out a key").click()
    page.get_by_label("User", exact=True).fill(name)
    page.get_by_role("button", name="Hand out").click()
    key = page.locator("#secret").inner_text()
    page.get_by_role("link", name="To the key").click()
    page.get_by_label("Note").fill("below a path")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Changed.")
    expect(page).to_have_url(re.compile(rf"/{place}/dashboard/keys/key_\w+$"))

    page.get_by_role("link", name="Keys", exact=True).first.click()
    page.get_by_label("Search").fill(name)
    if not script:
        page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile(rf"/{place}/dashboard/keys\?q={name}"))
    page.get_by_role("button", name=f"Block the key of {name}").click()
    expect(page).to_have_url(re.compile(rf"/{place}/dashboard/keys\?q={name}"))
    page.get_by_role("button", name=f"Let in the key of {name}").click()
    page.get_by_role("link", name="Requests", exact=True).click()
    page.get_by_role("link", name="Follow", exact=True).click()
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {key}"}
    assert requests.post(f"{address}/{place}/v1/chat/completions", json=body, headers=headers, timeout=10).ok
    if not script:
        wait_until(lambda: site.ask(f"logs?user={name}")["items"], seconds=10, what="the record")
        page.get_by_role("link", name="Look now").click()
    expect(page.get_by_role("row", name=name)).to_be_visible()
    page.get_by_role("button", name="dark", exact=True).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{address}/{place}/dashboard/sign-in")

    outside = [url for url in asked if not urlsplit(url).path.startswith(f"/{place}/") and not url.startswith("data:")]
    assert [] == outside

"""Addresses in a real browser: the base URL leads to the dashboard, and a page can read why nothing is there."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page

from llmgateway.simulator import Simulator
from tests.gateway_process import GatewayProcess

from .conftest import visiting

pytestmark = [pytest.mark.browser, pytest.mark.slow]

_ASK = """async ([url, key]) => {
    const headers = {Authorization: `Bearer ${key}`, "Content-Type": "application/json"};
    const messages = [{role: "user", content: "Hello"}];
    const answer = await fetch(url, {method: "POST", headers, body: JSON.stringify({model: "gpt-4o-mini", messages})});
    const document = await answer.json();
    return [answer.status, document.object ?? document.error.message];
}"""


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/v1"])
def test_the_base_url_leads_to_the_dashboard(visit, path):
    """Whoever opens it sees what it is."""
    visit.page.goto(path)

    assert "/dashboard/sign-in" in visit.page.url


@pytest.fixture
def page_elsewhere(tmp_path) -> Iterator[str]:
    """The origin of a page that is not the gateway's."""
    (tmp_path / "index.html").write_text("<title>A page</title>")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_page_of_another_origin_reads_answers_and_explanations(browser, page_elsewhere, tmp_path):
    """Its preflights are answered for every address."""
    with Simulator(key="azure-key") as azure:
        environ = {
            "LLM_BASE_URL": f"{azure.url}/openai/v1",
            "LLM_API_KEY": "azure-key",
            "LLMGATEWAY_CORS_ORIGINS": page_elsewhere,
        }
        with GatewayProcess(environ, folder=tmp_path) as gateway:
            for visit in visiting(browser, page_elsewhere):
                page: Page = visit.page
                page.goto("/")
                key = gateway.key()
                found = [
                    page.evaluate(_ASK, [gateway.url + path, key])
                    for path in ("/v1//chat/completions", "/chat/completions")
                ]
                status, message = page.evaluate(_ASK, [f"{gateway.url}/v1/conversations", key])
            gateway.stop()

    assert [[200, "chat.completion"]] * 2 == found
    assert 404 == status
    assert "does not serve OpenAI's Conversations API (you asked for POST /v1/conversations)" in message

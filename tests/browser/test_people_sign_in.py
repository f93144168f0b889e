"""A student and an admin who sign in at an identity provider, in a browser, on each kind of store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

from llmgateway.simulator import Simulator
from tests.functional.conftest import fresh_stores
from tests.gateway_process import GatewayProcess
from tests.oidc.mock import MockProvider

pytestmark = [pytest.mark.browser, pytest.mark.slow]

AZURE_KEY = "azure-key-of-the-browser-tests"
STUDENT = {"sub": "s-1", "preferred_username": "ada", "groups": ["students"]}
BOSS = {"sub": "s-2", "preferred_username": "grace", "groups": ["staff"]}
STUDENTS = {"claim": "groups", "value": "students", "group": "ml"}
STAFF = {"claim": "groups", "value": "staff", "role": "admin"}


@pytest.fixture(scope="module")
def provider() -> Iterator[MockProvider]:
    server = MockProvider([STUDENT, BOSS])
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="module", params=["sqlite", "redis+mongo"])
def gateway(request, provider, tmp_path_factory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    with fresh_stores(request.param, folder / "instance") as stores, Simulator(key=AZURE_KEY) as azure:
        environ = {
            **stores.environ,
            "LLM_BASE_URL": f"{azure.url}/openai/v1",
            "LLM_API_KEY": AZURE_KEY,
            "OIDC_ISSUER": provider.url,
            "OIDC_CLIENT_ID": "gateway",
            "OIDC_CLIENT_SECRET": "the secret of the gateway",
        }
        with GatewayProcess(environ, folder=folder) as gateway:
            change(gateway, "PUT", "/admin/groups/ml", {"self_service": {"keys": 1, "days": 180}})
            yield gateway


@pytest.fixture
def sign_in(browser: Browser, gateway: GatewayProcess, provider: MockProvider) -> Iterator[Callable[[str], Page]]:
    """Sign somebody in with a browser of their own; at the end none may have complained of what it was sent."""
    complaints: list[str] = []
    with ExitStack() as stack:

        def sign_in(sub: str) -> Page:
            context = browser.new_context(base_url=gateway.url)
            stack.callback(context.close)
            page = context.new_page()
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto("/dashboard/")
            page.get_by_role("link", name="Sign in with your account").click()
            page.locator(f"[name=sub][value='{sub}']").first.click()
            page.wait_for_url(re.compile("/dashboard/"))
            return page

        yield sign_in
    assert [] == [text for text in complaints if "Content Security Policy" in text]


def change(gateway: GatewayProcess, method: str, path: str, body: object) -> None:
    answer = gateway.admin(method, path, json=body)
    assert answer.status < 300, answer.body


def test_a_student_makes_a_key_uses_it_and_sees_it_counted(gateway, sign_in):
    change(gateway, "PUT", "/admin/sign-in", {"rules": [STUDENTS]})
    page = sign_in("s-1")
    page.get_by_role("link", name=re.compile("^New key")).click()
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Make the key").click()
    key = page.locator("#secret").inner_text()

    assert 200 == gateway.chat(key).status

    page.goto("/dashboard/me")
    expect(page.get_by_role("link", name="laptop")).to_be_visible()
    expect(page.locator(".figure").nth(1)).to_have_text("1")


def test_a_demoted_admin_loses_the_pages_at_once(gateway, sign_in):
    change(gateway, "PUT", "/admin/sign-in", {"rules": [STAFF]})
    page = sign_in("s-2")
    page.goto("/dashboard/keys")
    expect(page.get_by_role("heading", name="Keys", level=1)).to_be_visible()

    change(gateway, "PUT", "/admin/sign-in", {"rules": []})
    answer = page.goto("/dashboard/keys")

    assert answer is not None
    assert 403 == answer.status
    expect(page.get_by_role("link", name="Models")).to_have_count(0)


def test_signing_out_everywhere_ends_the_other_browser(gateway, sign_in):
    """And signing in again opens the page that was asked for."""
    here, there = sign_in("s-1"), sign_in("s-1")
    here.goto("/dashboard/account")
    here.get_by_text("Sign out everywhere").first.click()
    here.get_by_role("button", name="Sign out everywhere").click()
    expect(here.get_by_text("You are signed out everywhere.")).to_be_visible()

    there.goto("/dashboard/me/requests")
    expect(there.get_by_role("heading", name="Sign in with your organisation")).to_be_visible()
    there.get_by_role("link", name="Sign in with your account").click()
    there.locator("[name=sub][value='s-1']").first.click()
    there.wait_for_url(re.compile("/dashboard/me/requests"))

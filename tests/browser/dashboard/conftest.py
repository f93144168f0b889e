"""Gateways for people who look: one with three months of made-up traffic, and empty ones on each kind of store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from llmgateway.demo import Filled, fill
from llmgateway.settings import Settings
from llmgateway.simulator import Simulator
from tests.functional.conftest import fresh_stores
from tests.gateway_process import ADMIN_KEY, GatewayProcess

AZURE_KEY = "azure-key-of-the-browser-tests"
STORES = ("sqlite", "redis+mongo")
_PATIENCE_MS = 15_000
_VIOLATION = """
document.addEventListener("securitypolicyviolation", (event) =>
  window.reportViolation(`${location.pathname}: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


@dataclass
class Site:
    """A gateway with a simulated Azure behind it."""

    gateway: GatewayProcess
    azure: Simulator
    filled: Filled | None = None

    def ask(self, path: str) -> Any:
        """Return what the admin API answers."""
        answer = self.gateway.admin("GET", f"/admin/{path}")
        assert 200 == answer.status, answer.body
        return answer.json()


@dataclass
class Window:
    """A browser of somebody, with what it has complained about."""

    page: Page
    violations: list[str] = field(default_factory=list)
    """Of the Content-Security-Policy."""
    errors: list[str] = field(default_factory=list)
    """Of scripts."""

    def sign_in(self, key: str = ADMIN_KEY) -> None:
        self.page.goto("/dashboard/sign-in")
        self.page.get_by_label("Key", exact=True).fill(key)
        self.page.get_by_label("Key", exact=True).press("Enter")
        self.page.wait_for_url(lambda url: "sign-in" not in url)


@pytest.fixture(scope="session")
def demo_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """On SQLite, with three months of made-up traffic. To be looked at, not to be changed."""
    folder = tmp_path_factory.mktemp("demo")
    with Simulator(key=AZURE_KEY) as azure:
        environ = _environ(azure) | {"LLMGATEWAY_INSTANCE": str(folder / "instance")}
        filled = fill(Settings.from_env(environ | {"ADMIN_KEY": ADMIN_KEY}), now=time.time())
        with GatewayProcess(environ, folder=folder) as gateway:
            yield Site(gateway, azure, filled)


@pytest.fixture(scope="module", params=STORES)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings that name new stores of each kind, in turn."""
    with fresh_stores(request.param, tmp_path_factory.mktemp("site") / "instance") as made:
        yield made.environ


@pytest.fixture(scope="module")
def site(stores: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An empty gateway that knows its Azure, on each kind of store, for all tests of a module."""
    folder = tmp_path_factory.mktemp("gateway")
    with Simulator(key=AZURE_KEY) as azure, GatewayProcess(_environ(azure) | stores, folder=folder) as gateway:
        yield Site(gateway, azure)


@pytest.fixture(params=STORES)
def bare_stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings that name new stores for one test."""
    with fresh_stores(request.param, tmp_path / "instance") as made:
        yield made.environ


@pytest.fixture
def bare_site(bare_stores: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """A gateway that was started with nothing but its admin key, for one test."""
    with Simulator(key=AZURE_KEY) as azure, GatewayProcess(bare_stores, folder=tmp_path) as gateway:
        yield Site(gateway, azure)


@pytest.fixture
def open_window(browser: Browser) -> Iterator[Callable[..., Window]]:
    """Open the browser of one more person: with no one's cookies. At the end nobody may have seen a violation."""
    with ExitStack() as stack:
        windows: list[Window] = []

        def open_window(site: Site, *, sign_in: bool = True, **options: Any) -> Window:
            context = browser.new_context(**{"base_url": site.gateway.url, **options})
            stack.callback(context.close)
            context.set_default_timeout(_PATIENCE_MS)
            window = Window(context.new_page())
            context.expose_binding("reportViolation", lambda _, text: window.violations.append(text))
            context.add_init_script(_VIOLATION)
            window.page.on("pageerror", lambda error: window.errors.append(str(error)))
            windows.append(window)
            if sign_in:
                window.sign_in()
            return window

        yield open_window
        assert [] == [text for window in windows for text in window.violations]
        assert [] == [text for window in windows for text in window.errors]


def _environ(azure: Simulator) -> dict[str, str]:
    return {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}

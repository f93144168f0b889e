"""A gateway as a newcomer starts it, and a browser that knows no other host."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.programs import needed
from tests.servers import _die_with_parent, wait_until

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # As without internet: no name leads anywhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
_PATIENCE_MS = 15_000


@dataclass(frozen=True)
class Trial:
    """What ``llmgateway try`` prints."""

    url: str
    user_key: str = field(repr=False)
    admin_key: str = field(repr=False)
    dashboard: str = field(default="", repr=False)
    """A link that lets the owner in once."""


@dataclass
class Visit:
    """A page of the browser, and what it did behind the reader's back."""

    page: Page
    hosts: set[str]
    """Whom it sent requests to."""
    complaints: list[str]
    """What the browser's console says is wrong."""


@pytest.fixture(scope="session")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    output = tmp_path_factory.mktemp("try") / "output"
    with open(output, "wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmgateway", "try", "--port", "0"],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(output.parent)},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
        )
    try:
        wait_until(lambda: b"/docs" in output.read_bytes() or process.poll() is not None, seconds=20, what="a start")
        yield _printed(output)
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(20), "Ctrl-C did not end it well"
        assert [output] == list(output.parent.iterdir()), "it left something behind"
    finally:
        process.kill()
        process.wait()


# Not for the session: as long as Playwright runs, its event loop is this thread's, and asyncio.run() of any other test
# fails.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = needed("chromium", "google-chrome", package="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, trial: Trial) -> Iterator[Visit]:
    yield from visiting(browser, trial.url)


def visiting(browser: Browser, url: str) -> Iterator[Visit]:
    """A fresh browser, without anybody's cookies or keys."""
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    visit = Visit(page, set(), [])

    def asked(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme != "data":
            visit.hosts.add(address.netloc)

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visit.complaints.append(message.text)

    context.on("request", asked)
    page.on("console", said)
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    yield visit
    context.close()


def _printed(output: Path) -> Trial:
    text = output.read_text()

    def value(label: str) -> str:
        found = re.search(rf"^ +{label} +(\S+)$", text, re.MULTILINE)
        assert found, f"no {label!r} among what it printed"
        return found[1]

    return Trial(value("base URL").removesuffix("/v1"), value("user key"), value("admin key"), value("dashboard"))

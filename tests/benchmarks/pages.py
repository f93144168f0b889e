"""``python -m tests.benchmarks.pages FOLDER``: how long each page of the dashboard takes, and how heavy it is.

FOLDER is an instance folder, such as ``python -m tests.benchmarks.year`` fills. The pages are made in this process, so
the time of the processor is that of the program alone, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import click
from flask.testing import FlaskClient

from llmgateway.app import create_app
from llmgateway.settings import Settings
from llmgateway.web.dashboard.links import STATIC

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
PAGES = (
    *("", "?days=90", "?days=365"),
    *("keys", "keys?q=user0&sort=-spent", "keys?sort=-last_used", "keys?page=50", "keys/{key}", "keys/bulk"),
    *("people", "people?q=user0&sort=-spent", "people/person?user={user}"),
    *("groups", "groups?sort=-spent", "groups/group?name={group}"),
    *(
        "requests",
        "requests?user={user}",
        "requests?group={group}",
        "requests?outcome=timeout",
        "requests?kind=refusal",
    ),
    *("requests?model=gpt-5-mini&status=500", "requests?stream=true&region=swedencentral", "requests?follow=on"),
    *("statements", "statements/group?name={group}", "statements/person?user={user}"),
    *(
        "models",
        "prompts",
        "limits",
        "alerts",
        "admins",
        "audit",
        "settings",
        "class-lists",
        "reconcile",
        "sign-in-rules",
    ),
)
MOST_MS, MOST_KB = 300, 150


class Taken(NamedTuple):
    """What a page took."""

    page: str
    status: int
    cpu_ms: float
    kilobytes: float


def take(client: FlaskClient, page: str, *, times: int = 4) -> Taken:
    """Open *page* some times, and return the best of them."""
    best, status, size = float("inf"), 0, 0
    for _ in range(times):
        began = time.process_time()
        answer = client.get(f"/dashboard/{page}")
        size, status = len(answer.data), answer.status_code
        best = min(best, time.process_time() - began)
    return Taken(page, status, best * 1000, size / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", action="append", help="only this page; may be repeated")
    arguments = parser.parse_args()
    files = sum(path.stat().st_size for path in STATIC.iterdir() if path.suffix in (".css", ".js")) / 1000
    with _signed_in(arguments.folder) as client:
        names = {"key": f"key_{1:028x}", "user": "user00001", "group": "course-003"}
        for page in arguments.page or PAGES:
            _say(take(client, page.format_map(names)), files)


def _signed_in(folder: Path) -> FlaskClient:
    key = secrets.token_hex(20)
    environ: Mapping[str, str] = {"ADMIN_KEY": key, "LLMGATEWAY_INSTANCE": str(folder)}
    client = create_app(Settings.from_env(environ)).test_client()
    client.post("/dashboard/sign-in", data={"key": key}, headers=SAME_SITE)
    return client


def _say(taken: Taken, files: float) -> None:
    weight = taken.kilobytes + files
    slow = " SLOW" if taken.cpu_ms > MOST_MS else ""
    heavy = " HEAVY" if weight > MOST_KB else ""
    click.echo(
        f"{taken.page or '(overview)':42} {taken.status} {taken.cpu_ms:6.0f} ms {weight:5.0f} KB with style and script"
        f"{slow}{heavy}"
    )


if __name__ == "__main__":
    main()

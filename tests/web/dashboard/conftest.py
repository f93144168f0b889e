"""Somebody who is signed in to the dashboard, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web.conftest import ADMIN_KEY

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
"""What a browser sends with a form of our own page."""


def target_of(answer: TestResponse) -> str:
    """Return where a redirect leads, which is relative to the page."""
    return urljoin(answer.request.path, answer.headers["Location"])


class Person:
    """A browser without script: opens pages below ``/dashboard`` and sends their forms."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def open(self, path: str = "", *, status: int = 200) -> str:
        """Open a page and return its text."""
        return self._checked(self.client.get(f"/dashboard/{path}"), status).text

    def send(self, path: str, *, status: int = 303, **fields: Any) -> TestResponse:
        """Send a form. Names with dots are given as a dictionary: ``send("keys", **{"limits.x": 1})``."""
        return self._checked(self.client.post(f"/dashboard/{path}", data=fields, headers=SAME_SITE), status)

    def send_and_follow(self, path: str, **fields: Any) -> str:
        """Send a form that is accepted, and return the text of the page to which it leads."""
        answer = self.send(path, **fields)
        return self._checked(self.client.get(target_of(answer)), 200).text

    @staticmethod
    def _checked(answer: TestResponse, status: int) -> TestResponse:
        assert status == answer.status_code, answer.text
        return answer


@pytest.fixture
def signed_in(make_app) -> Callable[..., Person]:
    """Sign somebody in by a key; in the same application if *app* is given."""

    def sign_in(key: str = ADMIN_KEY, app: Any = None) -> Person:
        person = Person((app or make_app()).test_client())
        person.send("sign-in", key=key)
        return person

    return sign_in


@pytest.fixture
def owner(client) -> Person:
    """The owner, signed in to the application of ``client``, ``call`` and ``new_key``."""
    person = Person(client)
    person.send("sign-in", key=ADMIN_KEY)
    return person


@pytest.fixture
def named(client, call) -> Callable[..., Person]:
    """Make a named admin, and return them signed in with a browser of their own."""

    def create(role: str, *groups: str) -> Person:
        fields: dict[str, Any] = {"name": f"{role} of the tests", "role": role}
        if groups:
            fields["groups"] = list(groups)
        made = call("POST", "/admins", status=201, json=fields)
        person = Person(client.application.test_client())
        person.send("sign-in", key=made["key"])
        return person

    return create

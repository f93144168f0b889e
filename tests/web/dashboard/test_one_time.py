"""The link of ``llmgateway try`` signs the owner in, and leaves no token in an address."""

from __future__ import annotations

import time

import pytest

from llmgateway.web.dashboard import one_time
from tests.web.conftest import ADMIN_KEY
from tests.web.dashboard.conftest import target_of


@pytest.fixture
def app(make_app):
    return make_app()


def test_signs_the_owner_in_once(app):
    """Whoever opens it again is asked for the key."""
    path = one_time.offer(app, ADMIN_KEY, clock=time.time)
    token = path.rpartition("/")[2]
    first, second = app.test_client(), app.test_client()
    assert 403 == first.head(path).status_code
    answer = first.get(path)

    assert 303 == answer.status_code
    assert token not in answer.headers["Location"] + answer.text
    assert "no-store" == answer.headers["Cache-Control"]
    assert 200 == first.get(target_of(answer)).status_code
    again = second.get(path)
    assert 403 == again.status_code
    assert "was used already" in again.text
    assert token not in again.text


def test_no_link_opens_another_gateway(app):
    """Nobody has offered one there."""
    assert 403 == app.test_client().get("/dashboard/one-time/anything").status_code


def test_lets_nobody_in_from_elsewhere(app):
    """It was printed on this machine."""
    path = one_time.offer(app, ADMIN_KEY, clock=time.time)

    assert 403 == app.test_client().get(path, environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code

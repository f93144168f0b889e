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


def opened(client, path, **arguments):
    """Open the link; return where it leads and what is there."""
    answer = client.get(path, **arguments)
    assert 303 == answer.status_code
    assert path.rpartition("/")[2] not in answer.headers["Location"] + answer.text
    assert "no-store" == answer.headers["Cache-Control"]
    target = target_of(answer)
    return target, client.get(target)


def test_signs_the_owner_in_once(app):
    """Whoever opens it again is asked for the key."""
    path = one_time.offer(app, ADMIN_KEY, clock=time.time)
    app.test_client().head(path)
    target, answer = opened(app.test_client(), path)
    assert "/dashboard/" == target
    assert "/dashboard/first-run" == target_of(answer)

    target, answer = opened(app.test_client(), path)
    assert "/dashboard/sign-in" == target
    assert "was used already" in answer.text
    assert path.rpartition("/")[2] not in answer.text


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_lets_nobody_in_from_elsewhere(app, address):
    """It was printed on this machine, and stays valid here."""
    path = one_time.offer(app, ADMIN_KEY, clock=time.time)

    assert "/dashboard/sign-in" == opened(app.test_client(), path, environ_base={"REMOTE_ADDR": address})[0]
    assert "/dashboard/" == opened(app.test_client(), path)[0]


def test_no_link_opens_another_gateway(app):
    """Nobody has offered one there."""
    assert "/dashboard/sign-in" == opened(app.test_client(), "/dashboard/one-time/anything")[0]

"""What a proxy says about its clients is believed if it is the operator's proxy, and nobody else's."""

from __future__ import annotations

import pytest
from flask import url_for

PROXY, STRANGER = "10.0.0.7", "203.0.113.9"


@pytest.fixture
def ask(make_app, admin):
    """Send a request from an address to a gateway with a trusted proxy; returns the answer and the noted address."""
    apps = {}

    def ask(path="/livez", *, peer=PROXY, trusted=PROXY, method="GET", json=None, **headers):
        app = apps.get(trusted) or apps.setdefault(trusted, make_app(LLMGATEWAY_TRUSTED_PROXY=trusted))
        sent = {name.replace("_", "-"): text for name, text in headers.items()} | admin
        return app.test_client().open(path, method=method, headers=sent, json=json, environ_base={"REMOTE_ADDR": peer})

    return ask


@pytest.fixture
def noted(ask):
    """The address that the audit log notes for a change."""

    def noted(**arguments):
        assert 200 == ask("/admin/limits", method="PUT", json={}, **arguments).status_code
        return ask("/admin/audit?limit=1", **arguments).json["items"][0]["address"]

    return noted


@pytest.mark.parametrize(
    ("trusted", "peer", "address"),
    [
        (PROXY, PROXY, "192.0.2.1"),
        (PROXY, f"::ffff:{PROXY}", "192.0.2.1"),
        (f"::ffff:{PROXY}", PROXY, "192.0.2.1"),
        ("*", STRANGER, "192.0.2.1"),
        (PROXY, STRANGER, STRANGER),
        ("", PROXY, PROXY),
        ("", f"::ffff:{PROXY}", PROXY),
    ],
)
def test_the_address_of_the_client(noted, trusted, peer, address):
    """IPv4 addresses are the same on a socket for both families."""
    assert address == noted(peer=peer, trusted=trusted, X_Forwarded_For="192.0.2.1")


@pytest.mark.parametrize(
    ("sent", "address"),
    [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ('198.51.100.4, "192.0.2.1"', "192.0.2.1"),
    ],
)
def test_the_address_is_told_from_its_port(noted, sent, address):
    """However a proxy writes it: all requests of one client count together, and those of two do not."""
    assert address == noted(X_Forwarded_For=sent)


def test_warns_once_of_a_proxy_that_is_not_trusted(ask, caplog):
    """Without it all clients behind a proxy count as one; the line says what to set, and to what."""
    for _ in range(3):
        ask(peer=PROXY, trusted="", X_Forwarded_For="192.0.2.1")

    (line,) = [record.getMessage() for record in caplog.records]
    assert "LLMGATEWAY_TRUSTED_PROXY is not set" in line
    assert f"If {PROXY} is your proxy" in line


def test_warns_of_another_proxy_than_the_trusted_one(ask, caplog):
    """The proxy has moved, or there are two of them."""
    ask(peer=STRANGER, X_Forwarded_For="192.0.2.1")

    assert f"LLMGATEWAY_TRUSTED_PROXY is {PROXY}" in caplog.text
    assert f"If {STRANGER} is your proxy" in caplog.text


def test_does_not_warn_without_a_reason(ask, caplog):
    """Of the trusted proxy, or of a client without the header."""
    ask(X_Forwarded_For="192.0.2.1")
    ask(peer=STRANGER)

    assert "" == caplog.text


@pytest.mark.parametrize(
    ("prefix", "peer", "location"),
    [
        ("/llm", PROXY, "/llm/v1/models"),
        ("/a/deep/path/", PROXY, "/a/deep/path/v1/models"),
        ("/llm", STRANGER, "/v1/models"),
        ("//evil.example", PROXY, "/v1/models"),
        ("https://evil.example", PROXY, "/v1/models"),
        ("/llm/..", PROXY, "/v1/models"),
        ("/llm, /other", PROXY, "/v1/models"),
        ("/%0d", PROXY, "/v1/models"),
    ],
)
def test_the_prefix_of_the_path(make_app, prefix, peer, location):
    """Only the trusted proxy says it, and only something that can be the beginning of a path."""
    app = make_app(LLMGATEWAY_TRUSTED_PROXY=PROXY)
    app.add_url_rule("/where", "where", lambda: url_for("users.list_models"))

    answer = app.test_client().get("/where", headers={"X-Forwarded-Prefix": prefix}, environ_base={"REMOTE_ADDR": peer})

    assert location == answer.text


def test_a_prefix_opens_no_other_path(ask):
    """A proxy that refuses /metrics, and passes the header on as a client sends it, is not misled."""
    assert 404 == ask("/x/metrics", X_Forwarded_Prefix="/x").status_code

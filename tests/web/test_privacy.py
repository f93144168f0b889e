"""Headers that forbid browsers and caches to store or share responses."""

from __future__ import annotations

import re

import pytest

from llmgateway.web import examples


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/admin/addapikey", {"user": "ada"}, 201),
        ("GET", "/admin/listkeys", None, 200),
        ("GET", "/admin/usage?by=user&format=csv", None, 200),
        ("DELETE", "/admin/keys/nobody", None, 404),
        ("POST", "/admin/addapikey", {}, 422),
        ("GET", "/v1/me", None, 401),
        ("GET", "/v1/models", None, 401),
    ],
)
def test_nothing_private_is_stored(client, admin, method, path, body, status):
    """Keys, names and what they used are for the one who asked; errors too."""
    answer = client.open(path, method=method, json=body, headers=admin)

    assert (status, "no-store") == (answer.status_code, answer.headers["Cache-Control"])


def test_a_stream_keeps_its_own_rule(client, user):
    """Proxies know 'no-cache' on streams as the sign not to hold them back."""
    answer = client.post("/v1/chat/completions", json=examples.STREAMED_CONVERSATION, headers=user)

    assert answer.get_data()
    assert "no-cache" == answer.headers["Cache-Control"]


def test_the_page_runs_its_own_scripts_only(client):
    """Every script and style of the page carries the number that the policy of this answer allows."""
    first, second = client.get("/docs"), client.get("/docs")
    [nonce] = set(re.findall(r"'nonce-([\w-]+)'", first.headers["Content-Security-Policy"]))

    assert re.findall(r"<(?:script|style)\b", first.text)
    assert not re.findall(rf'<(?:script|style) (?!nonce="{nonce}")', first.text)
    assert nonce not in second.text


def test_the_page_stays_out_of_frames(client):
    """By both of the headers that browsers know; and it tells nobody where its reader came from."""
    headers = client.get("/docs").headers

    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "DENY" == headers["X-Frame-Options"]
    assert "no-referrer" == headers["Referrer-Policy"]


def test_the_page_names_no_other_host(client):
    """Not one address in it has a host."""
    assert not re.findall(r"""(?:src|href|url)\s*[=:]\s*["']?(?:https?:)?//""", client.get("/docs").text)


def test_the_pages_files_are_what_they_say(client):
    """Browsers may keep them for a day, and must not guess their type."""
    for name, kind in (("swagger-ui.css", "text/css"), ("swagger-ui-bundle.js", "javascript")):
        answer = client.get(f"/docs/assets/{name}")
        assert 200 == answer.status_code
        assert kind in answer.mimetype
        assert "nosniff" == answer.headers["X-Content-Type-Options"]
        assert 86_400 == answer.cache_control.max_age
        answer.close()


@pytest.mark.parametrize("name", ["../templates/docs.html", "nothing.js", "..%2f__init__.py"])
def test_serves_no_other_files(client, name):
    """Only what Swagger UI brings, and OpenAI's error object for the rest."""
    answer = client.get(f"/docs/assets/{name}")

    assert (404, "not_found") == (answer.status_code, answer.json["error"]["code"])


@pytest.mark.parametrize(
    ("allowed", "origin", "expected"),
    [
        ("", "https://app.example", None),
        ("https://app.example,http://localhost:3000", "https://app.example", "https://app.example"),
        ("https://app.example,http://localhost:3000", "http://localhost:3000", "http://localhost:3000"),
        ("https://app.example", "https://app.example.evil.example", None),
        ("https://app.example", "http://app.example", None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_only_pages_of_named_origins_may_call(make_app, method, allowed, origin, expected):
    """Nobody's unless the operator says so; a browser asks first (OPTIONS), and again with the answer."""
    client = make_app(LLMGATEWAY_CORS_ORIGINS=allowed).test_client()
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

    answer = client.open("/v1/models", method=method, headers={"Origin": origin} | asked)

    assert expected == answer.headers.get("Access-Control-Allow-Origin")

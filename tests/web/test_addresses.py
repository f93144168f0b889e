"""Addresses as people set them, and what they are told where there is nothing."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from llmgateway.web.addresses import endpoints
from tests.conftest import Clock

from .conftest import making_apps

CHAT = "/chat/completions"
HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
PREFLIGHT = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}

BASES = [
    "",
    "/",
    "//",
    "/v1",
    "/v1/",
    "/v1//",
    "//v1",
    "/V1",
    "/v1/v1",
    "/v1/v1/v1/",
    "/v1/chat",
    "/v1/chat/completions",
    "/V1/Chat/Completions/",
    "/chat/completions",
    "/v1/models",
    "/v1/me",
    "/docs",
    "/docs/v1",
    "/api",
    "/api/v1",
    "/v1?api-version=2024-10-21",
    "/v1?api-version=2024-10-21&x=a%20b",
    "/?api-version=2024-10-21",
    "?api-version=2024-10-21",
    "/v1/chat/completions?api-version=2024-10-21",
    "/v1%20",
    "/%20v1",
    "/v1%22",
    "/v1%27",
    "/v1%E2%80%9D",
    "/v1%0A",
    "/v1%0D%0A",
    "/v1%C2%A0",
    "/v1%E2%80%8B",
    "/v1,",
    "/v1;",
    "/v1.",
    "/v1:",
    "/v1!",
    "/**v1**",
    "/%7Bv1%7D",
    "/v1%E2%80%A6",
    "/v1%3E",
    "/%22/v1",
    "/openai",
    "/openai/",
    "/OpenAI/v1",
    "/openai/v1",
    "/openai/v1/openai/v1",
    "/v1/openai",
    "/v1/openai/v1",
    "/openai/deployments/gpt-4o",
    "/openai//deployments/gpt-4o/",
    "/v1/openai/deployments/gpt-4o",
    "/openai/openai/deployments/gpt-4o",
    "/OpenAI/Deployments/gpt-4o",
    "/deployments/gpt-4o",
    "/openai/deployments/gpt-4o?api-version=2024-10-21",
]
"""What clients put in front of the path of an endpoint."""


@pytest.fixture(scope="module")
def client(azure, tmp_path_factory):
    """One application for all: nothing here changes what another test finds."""
    with making_apps(azure, Clock(), tmp_path_factory.mktemp("addresses")) as make:
        yield make().test_client()


@pytest.fixture(autouse=True)
def fresh(azure):
    azure.reset()


@pytest.fixture
def ask(client):
    """Send a request to a target as it stands; the test client takes ``//x`` for a host."""

    def ask(method, target, **arguments):
        path, _, query = target.partition("?")
        environ = {"PATH_INFO": unquote(path, "latin-1"), "QUERY_STRING": query}
        return client.open("/", method=method, environ_overrides=environ, **arguments)

    return ask


@pytest.mark.parametrize("base", BASES)
def test_finds_the_endpoint_behind_every_base_url(ask, azure, user, base):
    """Body and method arrive, because nothing is redirected."""
    answer = ask("POST", base + CHAT, json=HELLO, headers=user)
    mine = ask("GET", base + "/me", headers=user)
    models = ask("GET", base + "/models", headers=user)

    assert (200, "chat.completion") == (answer.status_code, answer.json["object"])
    assert 1 == len(azure.served)
    if base != "/v1/models":  # what follows is the name of a model there
        assert (200, "ada") == (mine.status_code, mine.json["user"])
        assert (200, "list") == (models.status_code, models.json["object"])


@pytest.mark.parametrize(
    "path", ["/chat/completions/", "/chat//completions", "/Chat/completions", "/chat/completions%20"]
)
def test_finds_the_endpoint_behind_an_odd_path(ask, user, path):
    """Programs that are set to the whole address misspell this part, too."""
    for base in ("", "/v1"):
        assert 200 == ask("POST", base + path, json=HELLO, headers=user).status_code


@pytest.mark.parametrize(
    "path",
    [
        "/models/gpt-4o",
        "/v1//models/gpt-4o/",
        "/V1/Models/gpt-4o",
        "/v1?x=1/models/gpt-4o",
        "/v1/?x=1models/gpt-4o",
        "/v1?x=1%2Fmodels%2Fgpt-4o",
    ],
)
def test_keeps_the_name_of_a_model(ask, user, path):
    """The rest of the path is part of the endpoint."""
    assert "gpt-4o" == ask("GET", path, headers=user).json["id"]


@pytest.mark.parametrize("version", ["2024-10-21", "preview", "2025-04-01-preview", "latest"])
@pytest.mark.parametrize("base", ["/v1", "/v1/", "/", "/v1/chat/completions/"])
@pytest.mark.parametrize("added", ["chat/completions", "/chat/completions", "%2Fchat%2Fcompletions"])
def test_finds_the_endpoint_within_a_query(ask, user, base, version, added):
    """As OpenAI's client for Python, a plain concatenation, and OpenAI's client for JavaScript write it."""
    answer = ask("POST", f"{base}?api-version={version}{added}", json=HELLO, headers=user)

    assert 200 == answer.status_code


@pytest.mark.parametrize("query", ["from=home", "x=name", "q=models", "x=a/b", "api-version=2024-10-21"])
def test_other_queries_name_no_endpoint(ask, query):
    """The browser of somebody who follows a link is led to the documentation."""
    assert 302 == ask("GET", f"/?{query}", headers={"Accept": "text/html"}).status_code


def test_tells_programs_at_a_page_where_to_go(client, user):
    """``base_url`` may be the address of the documentation, as the browser shows it: the client drops its fragment."""
    message = client.post("/docs", json=HELLO, headers=user).json["error"]["message"]

    assert "not POST. Set base_url of OpenAI's clients to http://localhost/v1." in message


def test_says_which_method_an_odd_address_takes(client, user):
    """A page that asks with GET is told to POST."""
    answer = client.get("/chat/completions", headers=user)

    assert (405, "method_not_allowed") == (answer.status_code, answer.json["error"]["code"])
    assert "POST" in answer.headers["Allow"]
    assert "POST" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "//admin/keys",
        "/Admin/keys",
        "/v1/admin/keys",
        "/v1/../admin/keys",
        "/v1//../admin/keys",
        "/v1/v1/admin/keys",
        "/admin/keys/",
        "/admin%20/keys",
        "/admin/keys%22",
        "/v1?x=1/admin/keys",
        "/v1?x=1/../admin/keys",
        "//metrics",
        "/metrics/",
        "/v1/metrics",
        "/METRICS",
        "/metrics%20",
        "/v1/models/../../metrics",
        "//livez",
        "//openapi.json",
        "//docs",
    ],
)
def test_the_other_endpoints_have_one_spelling(ask, admin, path):
    """A proxy that refuses /metrics is not got around by another spelling of it."""
    answer = ask("GET", path, headers=admin)

    # Below /v1/models there are names of models only, for which a user's key is needed.
    assert answer.status_code in ((401,) if "/models/" in path else (404,))
    assert not answer.data.startswith(b"#")


def test_explains_an_unknown_address(client):
    """The method and the path that were asked for, what there is, and the base_url."""
    answer = client.put("/v7/chats?key=secret", base_url="https://llm.example/", json=HELLO)

    error = answer.json["error"]
    assert (404, "not_found", "invalid_request_error") == (answer.status_code, error["code"], error["type"])
    for part in ("PUT /v7/chats.", "https://llm.example/v1;", *endpoints(client.application.url_map)):
        assert part in error["message"]
    assert "secret" not in answer.text


def test_lists_every_endpoint_of_users(client):
    """As they stand in the documentation."""
    documented = {
        f"{method.upper()} {path}"
        for path, methods in client.get("/openapi.json").json["paths"].items()
        if path.startswith("/v1/")
        for method in methods
        if method != "parameters"
    }

    assert documented == set(endpoints(client.application.url_map))


@pytest.mark.parametrize(
    "base", ["/v1", "", "/v1/chat/completions", "/openai", "/openai/v1", "/openai/deployments/gpt-4o"]
)
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/files", "files"),
        ("/assistants", "Assistants API"),
        ("/threads/thread_1/runs", "Assistants API"),
        ("/vector_stores", "vector stores"),
        ("/batches", "batches"),
        ("/fine_tuning/jobs", "fine-tuning"),
        ("/moderations", "moderations"),
        ("/realtime", "Realtime API"),
        ("/realtime/client_secrets", "Realtime API"),
        ("/realtime/calls", "Realtime API"),
        ("/containers", "containers"),
        ("/conversations", "Conversations API"),
    ],
)
def test_names_what_is_not_served(client, user, base, path, name):
    """And says what to do instead."""
    answer = client.post(base + path, json={}, headers=user)

    assert (404, "not_found") == (answer.status_code, answer.json["error"]["code"])
    message = answer.json["error"]["message"]
    assert f"does not serve OpenAI's {name} (you asked for POST {base}{path})" in message
    assert "http://localhost/v1." in message


@pytest.mark.parametrize("base", ["/v1", "", "/openai", "/openai/v1"])
@pytest.mark.parametrize(
    "path", ["/responses/compact", "/responses/input_tokens", "/images/variations", "/audio/voices"]
)
def test_names_the_parts_of_what_it_serves_that_it_does_not_serve(client, user, base, path):
    """An address that only has another method, or none, would not say that."""
    answer = client.post(base + path, json={}, headers=user)

    assert answer.status_code in (404, 405)
    assert "This gateway does not serve OpenAI's " in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/messages", "Anthropic's"),
        ("/api/generate", "Ollama's"),
    ],
)
def test_names_the_addresses_of_others(client, path, name):
    """Whoever set a program to the wrong provider is told so."""
    assert f"does not serve {name}" in client.post(path, json={}).json["error"]["message"]


@pytest.mark.parametrize(("path", "up"), [("/", ""), ("/v1", ""), ("/v1/", "../"), ("/v1/v1", "../")])
def test_leads_browsers_to_the_dashboard(client, path, up):
    """Whoever opens the base_url sees what it is. Relative, because only the proxy in front knows the whole path."""
    answer = client.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})

    assert (302, f"{up}dashboard/") == (answer.status_code, answer.headers["Location"])


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
def test_explains_the_base_url_to_programs(client, user, method, path):
    """A program that takes it for the whole address is told the whole address."""
    answer = client.open(path, method=method, json=HELLO, headers=user | {"Accept": "*/*"})

    assert 404 == answer.status_code
    assert f"{method} {path}." in answer.json["error"]["message"]
    assert "POST /v1/chat/completions" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/responses",
        "/nothing",
        "/admin/keys",
        "/metrics",
        "/x//y",
    ],
)
def test_answers_preflights_everywhere(make_app, path):
    """Without an answer, the page sees "Failed to fetch" in place of the error and its message."""
    client = make_app(LLMGATEWAY_CORS_ORIGINS="https://page.example").test_client()

    answer = client.options(path, headers=PREFLIGHT | {"Access-Control-Request-Headers": "authorization"})

    assert answer.status_code in (200, 204)
    assert "https://page.example" == answer.headers["Access-Control-Allow-Origin"]
    assert "authorization" == answer.headers["Access-Control-Allow-Headers"]


def test_explanations_are_bounded_and_printable(client):
    """An attacker gets neither his control characters nor his megabyte back."""
    message = client.get("/" + "%1b%e2%80%ae" + "x" * 5_000).json["error"]["message"]

    assert message.isprintable()
    assert len(message) < 1_000


@pytest.mark.parametrize("path", ["/{}", "/v1/{}", "/v1/models2/{}/x", "/v1/files/{}"])
def test_explanations_show_no_key(client, new_key, path):
    """Which some people put into the address."""
    key = new_key()["key"]

    answer = client.get(path.format(key))

    assert 404 == answer.status_code
    assert key not in answer.text
    assert f"GET {path.format(chr(0x2026))}" in answer.json["error"]["message"]

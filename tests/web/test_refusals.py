"""Errors: what the documentation shows is, word for word, what people get; and it helps them on."""

from __future__ import annotations

from typing import Any

import pytest

from llmgateway.ratelimit.rules import Estimate
from llmgateway.web import examples
from llmgateway.web.context import EXTENSION
from llmgateway.web.error_docs import REFUSALS

from .conftest import MAX_BODY_BYTES

CHAT = "/v1/chat/completions"
ASK = {"method": "POST", "json": examples.CONVERSATION}
PREVIEW = "/admin/prompt/preview"
JSON = "application/json"
CSV = "text/csv"

RESPONSES = "/v1/responses"
OF_NOBODY = "resp_68af4030592c8193"
FROM_AZURE = {example for refusal in REFUSALS.values() for example in refusal.examples if example.startswith("Azure: ")}
ELSEWHERE = {
    *("too large", "throttled", "store away", "at capacity", "unreachable", "credentials", "moved", "silence"),
    *("running", "not listed"),  # in test_doctor.py and test_import_models.py
    *("role", "changed", "name"),  # in test_rights.py, test_etags.py and test_admins.py
    *("user", "not configured"),  # in test_sign_in_api.py and test_azure_address.py
}
"""What does not come of a single request to a gateway that works; the last ones of the first line are in
tests/functional."""


def refused(client, path: str, **request: Any) -> tuple[int, dict[str, Any]]:
    answer = client.open(path, **request)
    return answer.status_code, answer.json


def documented(name: str, example: str) -> tuple[int, dict[str, Any]]:
    component = REFUSALS[name].as_component()
    return REFUSALS[name].status, component["content"][JSON]["examples"][example]["value"]


USER_MISTAKES = [
    ("InvalidCompletion", "no messages", {"json": {"model": "gpt-4o"}}),
    ("InvalidCompletion", "not JSON", {"data": '{"messages" : }', "content_type": JSON}),
    (
        "InvalidCompletion",
        "repeated name",
        {"data": '{"model": "a", "messages": [{}], "model": "b"}', "content_type": JSON},
    ),
    ("InvalidCompletion", "other letters", {"json": {"model": "gpt-4o", "messages": [{}], "Model": "gpt-4o"}}),
    ("ModelNotAllowed", "not allowed", {"json": {"model": "gpt-4o", "messages": [{}]}}),
    ("ModelNotFound", "not offered", {"json": {"model": "gpt-9", "messages": [{}]}}),
    ("UnsupportedMediaType", "not JSON", {"data": "{}", "content_type": "application/x-www-form-urlencoded"}),
    ("UnsupportedMediaType", "compressed", {"json": {}, "headers": {"Content-Encoding": "gzip"}}),
    ("ModelOrResponseNotFound", "not offered", {"path": RESPONSES, "json": {"model": "gpt-9", "input": "Hi"}}),
    (
        "ModelOrResponseNotFound",
        "previous response",
        {"path": RESPONSES, "json": {"model": "gpt-4o-mini", "input": "Hi", "previous_response_id": OF_NOBODY}},
    ),
    (
        "ModelOrResponseNotFound",
        "item",
        {
            "path": RESPONSES,
            "json": {"model": "gpt-4o-mini", "input": [{"type": "item_reference", "id": "rs_68af4030baa48193"}]},
        },
    ),
    ("UnknownResponse", "unknown", {"path": f"{RESPONSES}/{OF_NOBODY}", "method": "GET"}),
    ("UnknownModel", "unknown", {"path": "/v1/models/gpt-9", "method": "GET"}),
]
ADMIN_MISTAKES = [
    ("InvalidAdminKey", "no key", {"path": "/admin/listkeys", "method": "GET", "headers": {"AdminKey": None}}),
    ("InvalidAdminKey", "wrong key", {"path": "/admin/listkeys", "method": "GET", "headers": {"AdminKey": "a guess"}}),
    ("MalformedBody", "no body", {}),
    ("MalformedBody", "not JSON", {"data": '{"user": "ada"', "content_type": JSON}),
    ("UnsupportedMediaType", "not JSON", {"data": "{}", "content_type": "application/x-www-form-urlencoded"}),
    ("UnsupportedMediaType", "compressed", {"json": {}, "headers": {"Content-Encoding": "gzip"}}),
    ("InvalidFields", "missing", {"json": {"name": "thesis"}}),
    ("InvalidFields", "unknown", {"json": {"user": "ada", "usr": "ada"}}),
    ("UnknownKey", "unknown", {"path": "/admin/keys/nobody", "method": "GET"}),
    ("UnknownRequest", "unknown", {"path": "/admin/logs/019b3f2a-7c10-7d41-8d98-f00b2042a17e", "method": "GET"}),
    ("InvalidFields", "no group", {"path": "/admin/keys", "json": {"user": "ada", "group": "nobody's"}}),
    (
        "InvalidLines",
        "lines",
        {
            "path": "/admin/keys/import",
            "data": "user,email\nada,ada@example.org\nalan,nobody\n,eve@example.org\n",
            "content_type": CSV,
        },
    ),
    (
        "InvalidLines",
        "file",
        {"path": "/admin/keys/import", "data": b"%PDF-1.7", "content_type": CSV},
    ),
    ("NotCSV", "not CSV", {"path": "/admin/keys/import", "data": "x", "content_type": "application/json"}),
    (
        "NotCSV",
        "compressed",
        {
            "path": "/admin/keys/import",
            "data": "x",
            "headers": {"Content-Encoding": "gzip", "Content-Type": CSV},
        },
    ),
    ("UnknownKeyOrGroupRemoved", "unknown", {"path": "/admin/keys/nobody", "method": "PATCH", "json": {}}),
    ("UnknownGroup", "unknown", {"path": "/admin/groups/nobody's", "method": "GET"}),
    ("UnknownPerson", "unknown", {"path": "/admin/users/nobody/export", "method": "GET"}),
    ("UnknownUser", "unknown", {"path": "/admin/users/nobody", "method": "GET"}),
    ("UnknownKeyOrGroup", "key", {"path": "/admin/prompt?key=nobody", "method": "GET"}),
    ("UnknownKeyOrGroup", "group", {"path": "/admin/prompt?group=nobody's", "method": "GET"}),
    ("NothingToPreview", "key", {"path": PREVIEW, "json": {"key": "nobody", "messages": [{}]}}),
    ("NothingToPreview", "group", {"path": PREVIEW, "json": {"group": "nobody's", "messages": [{}]}}),
    ("NothingToPreview", "model", {"path": PREVIEW, "json": {"model": "gpt-9", "messages": [{}]}}),
    ("UnknownAdmin", "unknown", {"path": "/admin/admins/nobody", "method": "GET"}),
    ("UnknownIdentity", "unknown", {"path": "/admin/identities/nobody", "method": "GET"}),
    ("GroupInUse", "in use", {"path": "/admin/groups/physics", "method": "DELETE"}),
    ("KeyExists", "exists", {"json": {"user": "eve", "key": "ada's-very-own-key-of-old"}}),
    ("ModelWithoutPrices", "none", {"path": "/admin/models/gpt-4o", "method": "DELETE"}),
]


@pytest.mark.parametrize(("name", "example", "request_"), USER_MISTAKES, ids=str)
def test_users_get_what_is_documented(client, new_key, name, example, request_):
    """Status and body of every mistake that the documentation shows."""
    headers = {"Authorization": f"Bearer {new_key(models=['gpt-4o-mini'])['key']}"} | request_.get("headers", {})

    assert documented(name, example) == refused(
        client, **{"path": CHAT, "method": "POST", **request_, "headers": headers}
    )


@pytest.mark.parametrize(("name", "example", "request_"), ADMIN_MISTAKES, ids=str)
def test_admins_get_what_is_documented(client, admin, new_key, name, example, request_):
    """Status and body of every mistake that the documentation shows."""
    new_key(key="ada's-very-own-key-of-old", group="physics")
    headers = {name: value for name, value in (admin | request_.get("headers", {})).items() if value is not None}
    call = {"path": "/admin/addapikey", "method": "POST", **request_, "headers": headers}

    assert documented(name, example) == refused(client, **call)


def test_a_key_is_refused_as_documented(client, admin, new_key, clock):
    """Without a key, with one that nobody has, with a revoked one, with one whose time is over."""
    revoked = new_key(active=False)
    expiring = new_key(expires_at="2027-03-31T22:00:00Z")
    clock.now = 1_806_530_400.0  # 2027-03-31T22:00:00Z
    keys = {"no key": None, "unknown key": "nobody's", "revoked": revoked["key"], "expired": expiring["key"]}
    assert keys.keys() == REFUSALS["InvalidKey"].examples.keys()

    for example, key in keys.items():
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        assert documented("InvalidKey", example) == refused(client, "/v1/me", headers=headers)


@pytest.mark.parametrize(
    ("example", "limits", "limit", "retry_after"),
    [
        ("rate limit", {"requests_per_minute": 3}, "key.requests_per_minute", "60"),
        (
            "budget spent",
            {"budget": {"amount": 2, "unit": "requests", "period": "day"}},
            "key.budget",
            "86400",
        ),
    ],
)
def test_limits_refuse_as_documented(client, new_key, example, limits, limit, retry_after):
    """Whose limit it was and when to come back, in headers that the official clients and others understand."""
    headers = {"Authorization": f"Bearer {new_key(limits=limits)['key']}"}
    for _ in range(limits.get("requests_per_minute", 2)):
        assert 200 == client.open(CHAT, **ASK, headers=headers).status_code

    answer = client.open(CHAT, **ASK, headers=headers)

    assert documented("Limited", example) == (answer.status_code, answer.json)
    assert (limit, retry_after) == (answer.headers["x-llmgateway-limit"], answer.headers["Retry-After"])
    sent_headers = {name.lower() for name, _ in answer.headers} & REFUSALS["Limited"].headers.keys()
    spent = {"x-should-retry"} if example == "budget spent" else {"retry-after-ms"}
    assert {"x-llmgateway-limit"} | spent == sent_headers


def test_a_budget_that_is_held_refuses_as_documented(client, new_key):
    """Whoever comes while a request without a limit runs may come again in a second."""
    limits = {"budget": {"amount": 5000, "unit": "tokens", "period": "day"}}
    key = new_key(limits=limits)["key"]
    services = client.application.extensions[EXTENSION]
    running = services.limiter.admit("running", services.keys.authenticate(key), Estimate.bounded(5000, 0.0))
    headers = {"Authorization": f"Bearer {key}"}

    answer = client.open(CHAT, **ASK, headers=headers)

    assert documented("Limited", "budget held") == (answer.status_code, answer.json)
    assert ("key.budget", "1", "1000") == tuple(
        answer.headers[name] for name in ("x-llmgateway-limit", "Retry-After", "retry-after-ms")
    )
    running.refund()
    assert 200 == client.open(CHAT, **ASK, headers=headers).status_code


def test_an_unknown_price_is_refused_as_documented(make_app, admin):
    """If the operator wants it, and a budget in dollars would have to pay."""
    client = make_app(LLMGATEWAY_UNKNOWN_PRICE="refuse", LLMGATEWAY_MODELS="course-model").test_client()
    limits = {"budget": {"amount": 5, "unit": "usd", "period": "day"}}
    key = client.post("/admin/keys", json={"user": "ada", "limits": limits}, headers=admin).json["key"]
    body = {"model": "course-model", "messages": [{"role": "user", "content": "Hello"}]}

    answer = refused(client, CHAT, method="POST", json=body, headers={"Authorization": f"Bearer {key}"})

    assert documented("ModelNotAllowed", "price not known") == answer


def test_incomplete_metrics_are_refused_as_documented(client, admin):
    """Under another server with several processes, and without a folder in which their numbers are added up."""
    several = {"wsgi.multiprocess": True}

    answer = refused(client, "/metrics", headers=admin, environ_overrides=several)

    assert documented("MetricsIncomplete", "several processes") == answer


def test_every_documented_error_is_tested():
    """A new one has to be provoked here, or to be named as somebody else's."""
    here = {(name, example) for name, example, _ in USER_MISTAKES + ADMIN_MISTAKES}
    here |= {("InvalidKey", example) for example in REFUSALS["InvalidKey"].examples}
    here |= {(name, "group removed") for name in ("GroupRemoved", "UnknownKeyOrGroupRemoved")}
    here |= {("Limited", example) for example in ("rate limit", "budget held", "budget spent")}
    here |= {("ModelNotAllowed", "price not known"), ("MetricsIncomplete", "several processes")}
    shown = {(name, example) for name, refusal in REFUSALS.items() for example in refusal.examples}

    assert FROM_AZURE | ELSEWHERE == {example for name, example in shown - here}


def test_a_group_that_is_removed_at_the_same_moment_is_refused_as_documented(client, admin, new_key, monkeypatch):
    """After it was looked for, and before the key comes into it; of an import no key is handed out."""
    one = f"/admin/keys/{new_key()['id']}"
    for name, path, call in (
        ("GroupRemoved", "/admin/keys", {"method": "POST", "json": {"user": "ada", "group": "ml"}}),
        ("GroupRemoved", "/admin/keys/import", {"method": "POST", "data": "user,group\nada,ml\n", "content_type": CSV}),
        ("UnknownKeyOrGroupRemoved", one, {"method": "PATCH", "json": {"group": "ml"}}),
    ):
        services = client.application.extensions[EXTENSION]
        services.groups.put("ml")
        stored = services.policy.stored

        def looked_for(stored=stored, policy=services.policy):
            found = stored()
            policy.remove_group("ml")
            return found

        monkeypatch.setattr(services.policy, "stored", looked_for)
        assert documented(name, "group removed") == refused(client, path, headers=admin, **call)
        monkeypatch.undo()

    assert [None] == [key["group"] for key in client.get("/admin/listkeys", headers=admin).json]


def test_a_large_body_is_refused_as_documented(client, user, admin):
    """The limit is the same for everybody."""
    body = b" " * (MAX_BODY_BYTES + 1)

    for path, headers in ((CHAT, user), ("/admin/setprompt", admin)):
        call = {"method": "POST", "data": body, "content_type": JSON, "headers": headers}
        assert documented("BodyTooLarge", "too large") == refused(client, path, **call)


def test_guessing_the_admin_key_is_refused_as_documented(client, admin):
    """After ten wrong ones, with the time to wait. The right one is let in."""
    for _ in range(10):
        client.get("/admin/listkeys", headers={"AdminKey": "a guess"})
    answer = client.get("/admin/listkeys", headers={"AdminKey": "a guess"})
    assert 200 == client.get("/admin/listkeys", headers=admin).status_code

    assert documented("AdminThrottled", "throttled") == (answer.status_code, answer.json)
    assert 0 < int(answer.headers["Retry-After"]) <= 61


def test_an_upstream_that_cannot_be_used_is_told_as_documented(make_app, admin):
    """A refused credential and a dead address are both 502, and not the user's fault."""
    for example, settings in (
        ("credentials", {"LLM_API_KEY": "not-the-key-of-the-simulator"}),
        ("unreachable", {"LLM_BASE_URL": "http://127.0.0.1:9/openai/v1"}),
    ):
        client = make_app(**settings).test_client()
        key = client.post("/admin/addapikey", json={"user": "ada"}, headers=admin).json["key"]
        headers = {"Authorization": f"Bearer {key}"}
        assert documented("UpstreamUnusable", example) == refused(client, CHAT, **ASK, headers=headers)


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("expires_at", "2027-03-31", "2027-04-01T00:00:00+00:00"),
        ("expires_at", "2027-03-31T22:00:00+02:00", "2027-03-31T20:00:00+00:00"),
        ("starts_at", "2027-03-31T22:00:00.123456Z", "2027-03-31T22:00:00.123000+00:00"),
        ("expires_at", None, None),
    ],
)
def test_takes_times_as_people_write_them(new_key, field, value, stored):
    """A date alone is the end of that day here; any zone; kept in UTC."""
    assert stored == new_key(**{field: value})[field]


@pytest.mark.parametrize(
    "value",
    ["2027-03-31T22:00:00", "31.03.2027", "tomorrow", 1806530400, "0001-01-01T00:00:00+14:00", "2027-02-30"],
)
def test_says_how_to_write_a_time(client, admin, value):
    """What is not clear is refused, with an example of what is."""
    status, body = refused(
        client, "/admin/keys", method="POST", json={"user": "ada", "expires_at": value}, headers=admin
    )

    assert 422 == status
    [problem] = body["error"]["errors"]["expires_at"]
    assert "2027-03-31T22:00:00Z" in problem


def test_a_misspelt_query_is_no_wrong_report(client, admin):
    """A name that the query does not have is an error, not a filter that does nothing."""
    status, body = refused(client, "/admin/usage?from=2026-01-01", headers=admin)

    assert (422, {"from": ["Unknown field."]}) == (status, body["error"]["errors"])
    assert "'from'" in body["error"]["message"]


def test_takes_a_body_without_content_type_as_json(client, admin):
    """As the chat endpoint does."""
    answer = client.post("/admin/addapikey", data=b'{"user": "ada"}', headers=admin)

    assert 201 == answer.status_code


@pytest.mark.parametrize("body", [b'{"user": "\\ud800"}', b'{"user": NaN}', b"{'user': 'ada'}", b"\xff", b"[" * 5000])
def test_what_no_store_can_keep_is_refused(client, admin, body):
    """Half of a surrogate pair, numbers that are none, Python's quotes: 400, and never 500."""
    status, answer = refused(client, "/admin/addapikey", method="POST", data=body, content_type=JSON, headers=admin)

    assert (400, "invalid_request_error") == (status, answer["error"]["code"])


@pytest.mark.parametrize("body", [b"[]", b'"ada"', b"null", b"3"])
def test_a_body_that_is_no_object_is_said_to_be_wrong_as_a_whole(client, admin, body):
    """422, with what is wrong under 'body'."""
    status, answer = refused(client, "/admin/setprompt", method="POST", data=body, content_type=JSON, headers=admin)

    assert (422, {"body"}) == (status, set(answer["error"]["errors"]))


def test_the_examples_cannot_be_put_to_use(client, admin):
    """Execute without a change neither makes a key that everybody can read, nor replaces Azure's."""
    for path, body in (
        ("/admin/addapikey", {"user": "ada", "key": examples.SECRET_KEY}),
        ("/admin/setllmkey", {"key": examples.AZURE_KEY}),
    ):
        status, answer = refused(client, path, method="POST", json=body, headers=admin)
        assert 422 == status
        assert "example" in answer["error"]["errors"]["key"][0]
    assert 401 == client.get("/v1/me", headers={"api-key": examples.SECRET_KEY}).status_code


@pytest.mark.parametrize("key", ["YOUR-KEY", '"1234567890abcdef"', "Bearer 1234567890abcdef", "$AZURE_KEY", "<key>"])
def test_a_key_that_cannot_be_azures_is_not_stored(client, admin, key):
    """As in the curl line of the documentation; stored, it would shut everybody out."""
    status, answer = refused(client, "/admin/setllmkey", method="POST", json={"key": key}, headers=admin)

    assert 422 == status
    assert "malformed" in answer["error"]["errors"]["key"][0]


def test_a_refused_key_is_not_repeated(client, admin):
    """Neither the user's nor Azure's, in whatever field it was put."""
    for path in ("/admin/addapikey", "/admin/setllmkey", "/admin/removeapikey", "/admin/keys"):
        for field in ("user", "key", "id", "expires_at", "email", "models"):
            answer = client.post(path, json={field: "se cret\n"}, headers=admin)
            assert "cret" not in answer.text, (path, field)

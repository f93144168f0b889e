"""An admin finds what a user has seen: by the id of the answer, or by user, group, key, code and time."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from llmgateway.logs import RequestFilter
from llmgateway.records import Attempt, Batch, Bound, moment
from llmgateway.web import examples
from llmgateway.web.context import EXTENSION
from tests.stores.contract import usage
from tests.stores.refusal_contract import refusal

from .conftest import ADMIN_KEY, MAX_BODY_BYTES

CHAT = "/v1/chat/completions"
ASK = examples.CONVERSATION
NOBODYS = "sk-proj-nobody-has-this-key-1234567890"


@pytest.fixture
def services(client):
    return client.application.extensions[EXTENSION]


@pytest.fixture
def person(new_key):
    """A key of a group, which may use one model."""
    return new_key(user="ada", group="physics", models=["gpt-4o-mini"])


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def found(call, answer):
    """What the gateway knows of a request, by the id in its answer."""
    return call("GET", f"/logs/{answer.headers['x-request-id']}")


REFUSED = {
    # What is asked, and what is kept of it: status, code, endpoint, whether the key is known.
    "no key": ({"path": "/v1/me", "method": "GET", "headers": {}}, 401, "invalid_api_key", "/v1/me", False),
    "nobody's key": ({"json": ASK, "headers": bearer(NOBODYS)}, 401, "invalid_api_key", CHAT, False),
    "another model": ({"json": ASK | {"model": "gpt-4o"}}, 403, "model_not_allowed", CHAT, True),
    "no such model": (
        {"path": "/v1/models/gpt-9", "method": "GET"},
        404,
        "model_not_found",
        "/v1/models/{model}",
        True,
    ),
    "no such address": ({"path": "/v1/chat/complete"}, 404, "not_found", "/v1/chat/complete", False),
    "no such method": ({"path": CHAT, "method": "GET"}, 405, "method_not_allowed", "/v1/chat/completions", False),
    "not JSON": ({"data": "{"}, 400, "invalid_request_error", CHAT, True),
    "too large": ({"data": b"x" * (MAX_BODY_BYTES + 1)}, 413, "body_too_large", CHAT, True),
    "compressed": ({"json": ASK, "headers": {"Content-Encoding": "gzip"}}, 415, "unsupported_media_type", CHAT, False),
    "somebody else's response": (
        {"path": "/openai/v1/responses/resp_68af4030592c8193", "method": "GET"},
        *(404, None, "/openai/v1/responses/{response_id}", True),
    ),
    "wrong admin key": (
        {"path": "/admin/listkeys", "method": "GET", "headers": {"AdminKey": "a guess"}},
        *(401, "invalid_admin_key", "/admin/listkeys", False),
    ),
}


@pytest.mark.parametrize(
    ("asked", "status", "code", "endpoint", "known"), [pytest.param(*case, id=name) for name, case in REFUSED.items()]
)
def test_every_refusal_is_found_by_the_id_that_the_client_saw(
    client, call, person, asked, status, code, endpoint, known
):
    """With what the client was told, and what to do about it."""
    request = {"path": CHAT, "method": "POST", "content_type": "application/json", **asked}
    headers = asked.get("headers")
    if headers is None or "Content-Encoding" in headers:
        headers = bearer(person["key"]) | (headers or {})

    answer = client.open(**request | {"headers": headers})

    refusal = found(call, answer)
    assert (status, code) == (answer.status_code, answer.json["error"]["code"])
    assert ("refusal", status, code, endpoint, 1) == tuple(
        refusal[name] for name in ("kind", "status", "code", "endpoint", "count")
    )
    assert refusal["what_to_do"]
    assert answer.json["error"]["message"] == refusal["message"]
    assert refusal["id"] == refusal["first_id"] == answer.headers["x-request-id"]
    owner = (person["id"], "ada", "physics") if known else (None, None, None)
    assert owner == (refusal["key_id"], refusal["user"], refusal["group"])
    assert "127.0.0.1" == refusal["address"]


def test_it_is_found_when_it_is_stored_too(client, call, services):
    answer = client.get("/v1/me")
    before = found(call, answer)
    services.refusals.close()

    assert before == found(call, answer)


def test_says_which_limit_was_reached(client, call, new_key):
    key = new_key(limits={"requests_per_minute": 1})
    client.post(CHAT, json=ASK, headers=bearer(key["key"]))

    answer = client.post(CHAT, json=ASK, headers=bearer(key["key"]))

    refusal = found(call, answer)
    assert ("key.requests_per_minute", key["id"]) == (refusal["limit"], refusal["key_id"])
    assert f"llmgateway keys set {key['id']} --requests-per-minute" in refusal["what_to_do"]


def test_a_blocked_key_is_named(client, call, new_key):
    """The user sends a key that is somebody's, but does not work."""
    key = new_key(active=False)

    refusal = found(call, client.get("/v1/me", headers=bearer(key["key"])))

    assert (key["id"], "ada") == (refusal["key_id"], refusal["user"])


def test_other_errors_of_admins_are_not_kept(client, call, services):
    """They read them themselves; throttled ones are kept."""
    call("GET", "/keys/nobody", status=404)
    call("POST", "/keys", json={}, status=422)
    call("GET", "/no/such/thing", status=404)
    for _ in range(12):
        client.get("/admin/keys", headers={"AdminKey": "wrong"})
    services.refusals.close()

    kept = call("GET", "/logs?kind=refusal")["items"]
    assert {"invalid_admin_key": 10, "too_many_attempts": 2} == {each["code"]: each["count"] for each in kept}


@pytest.mark.parametrize("body", [ASK, ASK | {"stream": True}])
def test_what_azure_got_is_no_refusal(client, call, services, user, azure, body):
    """An answer of Azure, or a failure on the way to it, is a record, and nothing but a record."""
    answer = client.post(CHAT, json=body, headers=user)
    answer.get_data()
    services.journal.flush()
    services.refusals.close()

    assert "record" == found(call, answer)["kind"]
    assert [] == call("GET", "/logs?kind=refusal")["items"]


def test_a_record_is_found_while_it_runs_while_it_waits_and_when_it_is_stored(call, services, clock):
    draft = usage(1, id="019b3f2a-7c10-7d41-8d98-f00b2042a17e", timestamp=moment(clock()))
    path = f"/logs/{draft.id}"
    services.journal.update(draft, Bound(most_tokens=10, tokens_per_second=1.0))
    assert ("record", "running") == tuple(call("GET", path)[name] for name in ("kind", "state"))

    services.journal.end(replace(draft, upstream_request_id="azure-1"))
    assert ["waiting"] * 2 == [call("GET", each)["state"] for each in (path, "/logs/azure-1")]

    services.journal.flush()
    assert ["stored"] * 2 == [call("GET", each)["state"] for each in (path, "/logs/azure-1")]


def test_a_request_that_was_not_sent_is_no_record(call, services, clock):
    draft = usage(1, timestamp=moment(clock()))
    services.journal.update(draft, Bound(most_tokens=10, tokens_per_second=1.0))
    services.journal.cancel(draft.id)

    call("GET", f"/logs/{draft.id}", status=404)


def test_people_paste_ids_as_they_find_them(call, services, clock):
    """With blanks and quotation marks, or with the number of an attempt, as Azure's support knows them."""
    id_ = "019b3f2a-7c10-7d41-8d98-f00b2042a17e"
    attempts = (Attempt(deployment="east", status=429, upstream_request_id="azure-0"),)
    record = usage(1, id=id_, timestamp=moment(clock()), upstream_request_id="azure-1", attempts=attempts)
    services.usage_log.append([record], batch=Batch("a", 1))

    for text in (id_, f" {id_}\n", f'"{id_}"', f"{id_}-2", "azure-1", "azure-0"):
        assert id_ == call("GET", "/logs/" + text.replace("\n", "%0A"))["id"]
    for text in ("nothing", "%00", "a b", "x" * 300, "%F0%9F%8E%93", id_[:-1]):
        call("GET", f"/logs/{text}", status=404)


def test_says_what_to_do_about_a_record(call, services, clock):
    record = usage(1, timestamp=moment(clock()), outcome="upstream_error", status=400, error_code="content_filter")
    services.usage_log.append([record, usage(2, timestamp=moment(clock()))], batch=Batch("a", 1))

    assert "content filter" in call("GET", f"/logs/{record.id}")["what_to_do"]
    assert call("GET", f"/logs/{usage(2).id}")["what_to_do"] is None


def test_each_of_many_is_what_was_asked(client, call, new_key):
    """Not what the first one was, which has the same code a moment before."""
    key = new_key(models=["my-course"])
    asked = [(CHAT, "gpt-4o-mini"), (CHAT, "gpt-4o"), ("/v1/embeddings", "gpt-4o-mini")]
    body = {"messages": [{"role": "user", "content": "Hi"}], "input": "Hi"}
    answers = [client.post(path, json={**body, "model": model}, headers=bearer(key["key"])) for path, model in asked]

    assert {403} == {answer.status_code for answer in answers}
    refusals = [found(call, answer) for answer in answers]
    assert [answers[0].headers["x-request-id"]] * 3 == [refusal["first_id"] for refusal in refusals]
    assert asked == [(refusal["endpoint"], refusal["model"]) for refusal in refusals]
    assert all(model in refusal["message"] for (_, model), refusal in zip(asked, refusals, strict=True))


def test_the_first_of_many_have_ids(client, call, services):
    """Each with its own message; the others are counted."""
    answers = [client.get("/v1/me") for _ in range(30)]
    first = answers[0].headers["x-request-id"]

    for answer in answers[:21]:
        refusal = found(call, answer)
        assert (answer.headers["x-request-id"], first, 30) == (refusal["id"], refusal["first_id"], refusal["count"])
    services.refusals.close()
    last = call("GET", f"/logs/{answers[-1].headers['x-request-id']}", status=404)
    assert "Of many equal refusals" in last["error"]["message"]
    (listed,) = call("GET", "/logs?kind=refusal")["items"]
    assert (first, 30) == (listed["id"], listed["count"])


@pytest.fixture
def history(call, services, clock):
    """Ten records and ten refusals, one a minute, of two people in turn."""
    clock.now = 1_790_000_000.0
    records, refusals = [], []
    for number in range(20):
        at = moment(clock()) + timedelta(minutes=number // 2)  # a record and a refusal at each moment
        who = {"user": "ada", "key_id": "key_a", "group": "physics"} if number % 4 < 2 else {"user": "bob"}
        if number % 2:
            records.append(usage(number, timestamp=at, **{"key_id": "key_b", **who}, error_code="content_filter"))
        else:
            others = {"key_id": "key_b", "group": None, **who}
            refusals.append(refusal(number, timestamp=at, **others))
    services.usage_log.append(records, batch=Batch("a", 1))
    services.refusals.stored.append(refusals)
    return [*range(19, -1, -1)]


def pages(call, query, limit):
    """The numbers of all items, page by page."""
    numbers, cursor = [], ""
    while cursor is not None:
        page = call("GET", f"/logs?{query}&limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["items"]) <= limit
        numbers += [int(item["id"][-6:]) for item in page["items"]]
        cursor = page["next"]
    return numbers


@pytest.mark.parametrize("limit", [1, 3, 7, 20])
def test_both_kinds_come_in_one_order_page_by_page(call, history, limit):
    """Newest first, none twice and none left out."""
    assert history == pages(call, "kind=all", limit)
    assert history[::2] == pages(call, "", limit) == pages(call, "kind=record", limit)
    assert history[1::2] == pages(call, "kind=refusal", limit)


def test_a_page_holds_when_its_last_item_is_gone(call, services, history):
    first = call("GET", "/logs?kind=all&limit=5")
    services.refusals.stored.purge(moment(2e9), most=0, limit=100)

    after = call("GET", f"/logs?kind=all&limit=50&cursor={first['next']}")
    assert [13, 11, 9, 7, 5, 3, 1] == [int(item["id"][-6:]) for item in after["items"]]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("user=ada", [17, 16, 13, 12, 9, 8, 5, 4, 1, 0]),
        ("group=physics", [17, 16, 13, 12, 9, 8, 5, 4, 1, 0]),
        ("key=key_b", [19, 18, 15, 14, 11, 10, 7, 6, 3, 2]),
        ("code=content_filter", [19, 17, 15, 13, 11, 9, 7, 5, 3, 1]),
        ("code=insufficient_quota&user=bob", [18, 14, 10, 6, 2]),
        ("user=nobody", []),
        ("since=2026-09-21T14:21:20Z", [19, 18, 17, 16]),
        ("until=2026-09-21T14:15:20Z", [3, 2, 1, 0]),
        ("id=req_000006", [6]),
        ("id=req_000007", [7]),
        ("id=req_000007&user=ada", []),
        ("id=req_000007&since=2026-09-21T14:21:20Z", []),
        ("id=req_000007&model=gpt-9", []),
        ("id=req_000007&newer_than=1789999999999.x", [7]),
        ("id=req_000007&newer_than=1990000000000.x", []),
        ("status=429&model=gpt-4o&user=ada", [16, 12, 8, 4, 0]),
        ("model=gpt-9", []),
        ("endpoint=/v1/chat/completions&code=insufficient_quota&user=bob", [18, 14, 10, 6, 2]),
        ("newer_than=1790000420000.req_000014", [19, 18, 17, 16, 15]),
    ],
)
def test_filters_hold_for_both_kinds(call, history, query, numbers):
    assert numbers == pages(call, f"kind=all&{query}", 4)
    assert [number for number in numbers if number % 2] == pages(call, query, 4)
    assert [number for number in numbers if not number % 2] == pages(call, f"kind=refusal&{query}", 4)


def test_says_what_is_newest_for_the_next_question(call, services, history):
    """A list that is followed asks only for what came since."""
    first = call("GET", "/logs?kind=all&limit=3")
    new = usage(20, timestamp=moment(1_790_000_000.0) + timedelta(minutes=10))
    services.usage_log.append([new], batch=Batch("a", 2))

    second = call("GET", f"/logs?kind=all&limit=3&newer_than={first['newest']}")
    assert [new.id] == [each["id"] for each in second["items"]]
    third = call("GET", f"/logs?kind=all&limit=3&newer_than={second['newest']}")
    assert ([], None, second["newest"]) == (third["items"], third["next"], third["newest"])
    assert call("GET", "/logs?kind=record&user=nobody")["newest"] is None


def test_says_how_far_back_it_has_searched(call, services, history, monkeypatch):
    """A filter without an index searches some records for a page; the pages together find every match."""
    monkeypatch.setattr("llmgateway.web.admin.logs.SEARCHED_AT_ONCE", 4)

    first = call("GET", "/logs?deployment=gpt-4o&min_duration_ms=5000")
    assert ([], "2026-09-21T14:18:20+00:00") == (first["items"], first["searched_from"])
    assert history[::2] == pages(call, "stream=false", 3)
    assert history[::2] == pages(call, "stream=false", 50)
    assert [] == pages(call, "stream=true", 50)
    assert call("GET", "/logs?user=ada")["searched_from"] is None


def test_a_cursor_of_the_version_before_still_works(call, history):
    """It was the id of a record."""
    page = call("GET", "/logs?limit=3&cursor=req_000013")

    assert [11, 9, 7] == [int(item["id"][-6:]) for item in page["items"]]
    assert [] == call("GET", "/logs?cursor=nonsense")["items"]
    assert [] == call("GET", "/logs?kind=refusal&cursor=nonsense")["items"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("kind=everything", "kind"),
        ("kind=all&outcome=broken", "outcome"),
        ("kind=refusal&usage_source=bound", "usage_source"),
        ("kind=all&stream=false", "stream"),
        ("kind=all&min_duration_ms=5", "min_duration_ms"),
        ("status=99", "status"),
        ("min_duration_ms=-1", "min_duration_ms"),
        ("newer_than=yesterday", "newer_than"),
        ("since=2026-02-01&until=2026-01-01", "until"),
        ("id=" + "x" * 300, "id"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(call, query, field):
    assert [field] == list(call("GET", f"/logs?{query}", status=422)["error"]["errors"])


SECRET = "llmgw-a-key-that-somebody-has-put-in-the-wrong-place"


@pytest.mark.parametrize(
    "request_",
    [
        {"path": f"/v1/{SECRET}/chat/completions"},
        {"path": f"/v1/models/{NOBODYS}", "headers": bearer(NOBODYS)},
        {"path": CHAT, "headers": bearer(SECRET), "json": ASK},
        {"path": CHAT, "headers": {"api-key": SECRET}, "json": ASK},
        {"path": "/admin/keys", "headers": {"AdminKey": SECRET}},
        {"path": f"/openai/deployments/{SECRET}/chat/completions", "json": ASK, "user": True},
        {"path": CHAT, "json": ASK | {"model": SECRET}, "user": True},
        {"path": CHAT, "json": ASK | {"messages": [{"role": "user", "content": "the prompt"}, 4]}, "user": True},
        {"path": CHAT, "data": '{"messages": "the prompt', "user": True},
        {"path": f"/v1/responses/{SECRET}", "method": "GET", "user": True},
        {"path": "/v1/nothing?the%20prompt", "json": {"messages": ["the prompt"]}},
    ],
    ids=str,
)
def test_keeps_neither_keys_nor_prompts(make_app, admin, new_key, request_):
    """Wherever they are put."""
    client = make_app(LLMGATEWAY_MODELS="").test_client()
    key = client.post("/admin/keys", json={"user": "ada", "models": ["gpt-4o"]}, headers=admin).json["key"]
    request_ = {"method": "POST", "headers": {}, **request_}
    if request_.pop("user", False):
        request_["headers"] = bearer(key)

    answer = client.open(**request_)

    assert 400 <= answer.status_code < 500
    services = client.application.extensions[EXTENSION]
    services.refusals.close()
    kept = repr(services.refusals.find(answer.headers["x-request-id"]))
    assert answer.headers["x-request-id"] in kept
    for secret in (SECRET, NOBODYS, ADMIN_KEY, key, "the prompt", "the%20prompt"):
        assert secret not in kept


def test_lines_of_the_log_name_their_request(client, user, new_key, caplog):
    """Also those that are written in the middle of it; a request without a key has only its own id."""
    caplog.handler.addFilter(RequestFilter())
    with caplog.at_level(logging.WARNING):
        answer = client.get("/admin/keys", headers={"AdminKey": "wrong"})
    (line,) = [record for record in caplog.records if "A wrong key came from" in record.message]

    assert (answer.headers["x-request-id"], None) == (line.request_id, line.key_id)
    assert f" [request={line.request_id}]" == line.request


def test_lines_of_the_log_name_the_key(client, new_key, caplog, monkeypatch):
    key = new_key()
    caplog.handler.addFilter(RequestFilter())
    services = client.application.extensions[EXTENSION]
    monkeypatch.setattr(services.gateway.routing, "models", lambda _: 1 / 0)

    answer = client.get("/v1/models", headers=bearer(key["key"]))

    (line,) = [record for record in caplog.records if "bug of the gateway" in record.message]
    assert 500 == answer.status_code
    assert f" [request={answer.headers['x-request-id']} key={key['id']}]" == line.request

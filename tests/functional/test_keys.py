"""Keys as admins handle them: handed out, listed, changed, taken back; effective on the next request."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta

import pytest

from tests.functional.conftest import AZURE_KEY

EVERYTHING = {
    "user": "ada lovelace",
    "name": "thesis",
    "group": "ml-2026",
    "email": "ada@example.org",
    "note": "until June\nor July",
    "active": True,
    "starts_at": "2026-01-01T00:00:00+00:00",
    "expires_at": "2036-01-01T00:00:00+00:00",
    "models": ["gpt-4o-mini"],
}


@pytest.fixture
def unique():
    return f"user-{secrets.token_hex(6)}"


@pytest.fixture
def sessions(pair):
    """A connection to each of two serving processes."""
    connections = [pair.connect_to(worker) for worker in pair.workers()]
    yield connections
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("path", ["/admin/keys", "/admin/addapikey"])
def test_makes_a_key_up(gateway, azure, unique, path):
    """The answer is 201 with the key in it, and the key works."""
    answer = gateway.admin("POST", path, json={"user": unique})

    told = answer.json()
    assert 201 == answer.status
    assert (unique, "default", None) == (told["user"], told["name"], told["group"])
    assert told["id"].startswith("key_")
    assert 200 == gateway.chat(told["key"]).status


@pytest.mark.parametrize("path", ["/admin/keys", "/admin/addapikey"])
def test_takes_a_key_of_the_admins_own(gateway, azure, unique, path):
    """Whatever a header can carry; a second time it is 409."""
    own = f"own-key/{unique}+=~!"

    first = gateway.admin("POST", path, json={"user": unique, "name": "laptop", "key": own})
    second = gateway.admin("POST", path, json={"user": unique, "key": own})

    assert (201, own, "laptop") == (first.status, first.json()["key"], first.json()["name"])
    assert (409, "already_exists") == (second.status, second.error["code"])
    assert own.encode() not in second.body
    assert 200 == gateway.chat(own).status


def test_keeps_every_field(gateway):
    """What was sent comes back from every endpoint that shows a key, without the key."""
    created = gateway.new_key(**EVERYTHING)
    key = created.pop("key")

    assert created.items() >= EVERYTHING.items()
    shown = gateway.admin("GET", f"/admin/keys/{created['id']}")
    assert created == shown.json()
    assert created in gateway.admin("GET", "/admin/listkeys").json()
    assert key.encode() not in shown.body + gateway.admin("GET", "/admin/listkeys").body


def test_lists_page_by_page(gateway, unique):
    """Every key once, oldest first; next is null on the last page."""
    created = [gateway.new_key(user=unique)["id"] for _ in range(5)]
    pages, cursor = [], ""
    while cursor is not None:
        page = gateway.admin("GET", f"/admin/keys?user={unique}&limit=2&cursor={cursor}").json()
        pages.append([item["id"] for item in page["items"]])
        cursor = page["next"]

    assert [created[:2], created[2:4], created[4:]] == pages
    assert None is gateway.admin("GET", f"/admin/keys?user={unique}&limit=5").json()["next"]


def test_lists_by_user_group_and_activity(gateway, unique):
    """Filters narrow the list, alone and together."""
    group = f"group-{unique}"
    first = gateway.new_key(user=unique, group=group)["id"]
    second = gateway.new_key(user=unique, active=False)["id"]
    third = gateway.new_key(user=f"other-{unique}", group=group, active=False)["id"]

    def listed(query):
        return [item["id"] for item in gateway.admin("GET", f"/admin/keys?{query}").json()["items"]]

    assert [first, second] == listed(f"user={unique}")
    assert [first, third] == listed(f"group={group}")
    assert [third] == listed(f"group={group}&active=false")
    assert [first] == listed(f"user={unique}&active=true")
    assert [] == listed("user=nobody-of-this-name")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "active=perhaps"])
def test_refuses_a_list_that_makes_no_sense(gateway, query):
    """The answer is 422, by field."""
    answer = gateway.admin("GET", f"/admin/keys?{query}")

    assert 422 == answer.status
    assert {query.split("=")[0]} == answer.error["errors"].keys()


def test_changes_what_is_sent_and_clears_what_is_null(gateway):
    """A field that is not sent stays as it is."""
    created = gateway.new_key(**EVERYTHING)
    created.pop("key")
    path = f"/admin/keys/{created['id']}"

    changed = gateway.admin("PATCH", path, json={"note": "new", "email": None, "expires_at": None, "models": None})

    expected = created | {"note": "new", "email": None, "expires_at": None, "models": None}
    assert (200, expected) == (changed.status, changed.json())
    assert expected == gateway.admin("GET", path).json()
    assert expected == gateway.admin("PATCH", path, json={}).json()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"user": ""}, "user"),
        ({"user": None}, "user"),
        ({"user": 7}, "user"),
        ({"user": "two\nlines"}, "user"),
        ({"name": "x" * 201}, "name"),
        ({"email": "nobody"}, "email"),
        ({"active": "perhaps"}, "active"),
        ({"starts_at": "tomorrow"}, "starts_at"),
        ({"expires_at": "2026-01-01T00:00:00"}, "expires_at"),
        ({"starts_at": "2026-02-01T00:00:00Z", "expires_at": "2026-01-01T00:00:00Z"}, "expires_at"),
        ({"models": "gpt-4o"}, "models"),
        ({"models": [""]}, "models"),
        ({"id": "key_mine"}, "id"),
        ({"digest": "0"}, "digest"),
        ({"usre": "ada"}, "usre"),
    ],
)
def test_names_the_fields_that_are_wrong(gateway, fields, wrong):
    """Making and changing a key both answer 422 with the field; nothing is stored."""
    created = gateway.new_key()
    before = gateway.admin("GET", "/admin/listkeys").json()

    for answer in (
        gateway.admin("POST", "/admin/keys", json={"user": "ada", **fields}),
        gateway.admin("PATCH", f"/admin/keys/{created['id']}", json=fields),
    ):
        assert (422, "invalid_fields") == (answer.status, answer.error["code"])
        assert {wrong} == answer.error["errors"].keys()
    assert before == gateway.admin("GET", "/admin/listkeys").json()


@pytest.mark.parametrize("key", ["", "with space", "ünïcode", "x" * 513, 7, None])
def test_refuses_a_key_that_no_header_can_carry(gateway, key):
    """The answer is 422, and does not repeat it."""
    answer = gateway.admin("POST", "/admin/addapikey", json={"user": "ada", "key": key})

    assert 422 == answer.status
    assert {"key"} == answer.error["errors"].keys()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b"\xff"])
def test_refuses_admin_bodies_that_are_no_object(gateway, body):
    """The answer is 422 or 400 in OpenAI's shape, never an accident of ours."""
    answer = gateway.admin("POST", "/admin/keys", body=body)

    assert answer.status in (400, 422)
    assert answer.error


def test_knows_no_key_that_is_not_there(gateway):
    """Reading, changing and removing it is 404."""
    for answer in (
        gateway.admin("GET", "/admin/keys/key_none"),
        gateway.admin("PATCH", "/admin/keys/key_none", json={"note": "x"}),
        gateway.admin("PATCH", "/admin/keys/key_none", json={}),
        gateway.admin("DELETE", "/admin/keys/key_none"),
        gateway.admin("POST", "/admin/removeapikey", json={"id": "key_none"}),
        gateway.admin("POST", "/admin/removeapikey", json={"key": "nobodys-key"}),
    ):
        assert (404, "not_found") == (answer.status, answer.error["code"])
        assert b"nobodys-key" not in answer.body


@pytest.mark.parametrize("body", [{}, {"id": "a", "key": "b"}, {"id": 3}, {"user": "ada"}])
def test_removes_by_key_or_by_id(gateway, body):
    """One of the two has to be there."""
    answer = gateway.admin("POST", "/admin/removeapikey", json=body)

    assert 422 == answer.status


REVOCATIONS = {
    "DELETE": lambda pair, made, on: pair.admin("DELETE", f"/admin/keys/{made['id']}", connection=on),
    "PATCH": lambda pair, made, on: pair.admin(
        "PATCH", f"/admin/keys/{made['id']}", json={"active": False}, connection=on
    ),
    "starts_at": lambda pair, made, on: pair.admin(
        "PATCH", f"/admin/keys/{made['id']}", json={"starts_at": "2036-01-01T00:00:00Z"}, connection=on
    ),
    "rotate": lambda pair, made, on: pair.admin("POST", f"/admin/keys/{made['id']}/rotate", json={}, connection=on),
    "group": lambda pair, made, on: pair.admin("POST", f"/admin/groups/{made['group']}/revoke", connection=on),
    "group's dates": lambda pair, made, on: pair.admin(
        "PUT", f"/admin/groups/{made['group']}", json={"starts_at": "2036-01-01T00:00:00Z"}, connection=on
    ),
    "removeapikey by id": lambda pair, made, on: pair.admin(
        "POST", "/admin/removeapikey", json={"id": made["id"]}, connection=on
    ),
    "removeapikey by key": lambda pair, made, on: pair.admin(
        "POST", "/admin/removeapikey", json={"key": made["key"]}, connection=on
    ),
}


@pytest.mark.parametrize("way", REVOCATIONS)
@pytest.mark.parametrize("taker", [0, 1])
@pytest.mark.parametrize("limits", [{}, {"requests_per_minute": 100}], ids=["unlimited", "limited"])
def test_revokes_from_the_next_request_on_in_every_process(pair, sessions, azure, way, taker, limits):
    """Whichever process takes the revocation, each process refuses the key at once."""
    made = pair.new_key(group=f"group-{secrets.token_hex(4)}", limits=limits)
    # From the third request on, a process may go by what it remembers of a key with limits.
    served = [pair.chat(made["key"], connection=session).status for session in sessions * 3]
    assert [200] * 6 == served

    assert REVOCATIONS[way](pair, made, sessions[taker]).status in (200, 204)

    refused = [pair.chat(made["key"], connection=session) for session in sessions]
    assert [401, 401] == [answer.status for answer in refused]
    assert 6 == len(azure.served)


def test_lets_a_key_in_again_in_every_process(pair, sessions, azure):
    """A key that was switched off can be switched on; narrowing its models holds at once, too."""
    made = pair.new_key(active=False)
    assert [401, 401] == [pair.chat(made["key"], connection=session).status for session in sessions]

    pair.admin("PATCH", f"/admin/keys/{made['id']}", json={"active": True}, connection=sessions[0])
    assert [200, 200] == [pair.chat(made["key"], connection=session).status for session in sessions]

    pair.admin("PATCH", f"/admin/keys/{made['id']}", json={"models": ["gpt-4o"]}, connection=sessions[1])
    assert [403, 403] == [pair.chat(made["key"], connection=session).status for session in sessions]


def test_opens_a_key_when_its_time_comes(gateway, azure):
    """starts_at and expires_at are looked at with every request."""
    now = datetime.now(UTC)
    soon = (now + timedelta(seconds=0.5)).isoformat()
    made = gateway.new_key(expires_at=soon)

    statuses = []
    while datetime.now(UTC) < now + timedelta(seconds=0.6):
        statuses.append(gateway.chat(made["key"]).status)
    statuses.append(gateway.chat(made["key"]).status)

    assert [200, 401] == [statuses[0], statuses[-1]]


@pytest.fixture
def azure_key_afterwards(pair):
    yield
    pair.admin("POST", "/admin/setllmkey", json={"key": AZURE_KEY})


@pytest.mark.usefixtures("azure_key_afterwards")
def test_uses_a_new_azure_key_from_the_next_request_on_in_every_process(pair, sessions, azure):
    """The key that an admin stores wins over the environment's, and cannot be read again."""
    key = pair.key()
    assert [200, 200] == [pair.chat(key, connection=session).status for session in sessions]

    stored = pair.admin("POST", "/admin/setllmkey", json={"key": "wrong-azure-key"}, connection=sessions[0])
    refused = [pair.chat(key, connection=session) for session in sessions]
    pair.admin("POST", "/admin/setllmkey", json={"key": AZURE_KEY}, connection=sessions[1])
    served = [pair.chat(key, connection=session) for session in sessions]

    assert (200, True, 401) == (stored.status, stored.json()["stored"], stored.json()["azure"]["status"])
    assert ["upstream_credentials"] * 2 == [answer.error["code"] for answer in refused]
    assert [200, 200] == [answer.status for answer in served]
    sent = [one.headers["api-key"] for one in azure.served]
    assert [AZURE_KEY] * 2 + ["wrong-azure-key"] * 3 + [AZURE_KEY] * 3 == sent  # each is tried when it is set


@pytest.mark.parametrize("body", [{}, {"key": ""}, {"key": "with space"}, {"key": None}, {"apikey": "x"}])
def test_refuses_what_is_no_azure_key(gateway, key, azure, body):
    """The answer is 422, and the key in use stays."""
    answer = gateway.admin("POST", "/admin/setllmkey", json=body)

    assert 422 == answer.status
    assert answer.error["errors"]
    assert 200 == gateway.chat(key).status


@pytest.mark.usefixtures("azure_key_afterwards")
def test_says_so_when_the_stored_azure_key_cannot_be_read(start_gateway, azure):
    """ADMIN_KEY was changed and SECRET_KEY never set: 502, while users' keys go on working."""
    first = start_gateway()
    first.admin("POST", "/admin/setllmkey", json={"key": AZURE_KEY})
    key = first.key()
    assert 200 == first.chat(key).status
    first.stop()

    second = start_gateway(ADMIN_KEY="another-admin-key-entirely")
    ready = second.request("GET", "/readyz").json()
    answer = second.chat(key)

    assert (502, "upstream_credentials") == (answer.status, answer.error["code"])
    assert "degraded" == ready["status"]
    assert "/admin/setllmkey" in ready["checks"]["azure_key"]
    assert 200 == second.request("GET", "/v1/me", key=key).status
    assert 2 == len(azure.served)  # the trial of the key, and the first question

    second.admin("POST", "/admin/setllmkey", json={"key": AZURE_KEY})
    assert 200 == second.chat(key).status
    assert "ok" == second.request("GET", "/readyz").json()["status"]


@pytest.mark.usefixtures("azure_key_afterwards")
def test_reads_the_azure_key_with_the_secret_it_was_stored_with(start_gateway, azure):
    """With SECRET_KEY the admin key can change."""
    first = start_gateway(SECRET_KEY="a-secret-for-all-hosts")
    first.admin("POST", "/admin/setllmkey", json={"key": AZURE_KEY})
    key = first.key()
    first.stop()

    second = start_gateway(SECRET_KEY="a-secret-for-all-hosts", ADMIN_KEY="another-admin-key", LLM_API_KEY=None)

    assert 200 == second.chat(key).status
    assert AZURE_KEY == azure.served[0].headers["api-key"]


def test_survives_a_restart(start_gateway):
    """Keys, with their changes, are kept; those that were removed stay away."""
    gateway = start_gateway()
    kept, removed = gateway.new_key(), gateway.new_key()
    gateway.admin("PATCH", f"/admin/keys/{kept['id']}", json={"models": ["gpt-4o"]})
    gateway.admin("DELETE", f"/admin/keys/{removed['id']}")

    gateway.restart()

    assert [200, 403, 401] == [
        gateway.chat(kept["key"], model="gpt-4o").status,
        gateway.chat(kept["key"]).status,
        gateway.chat(removed["key"]).status,
    ]


def test_documents_itself(gateway):
    """The OpenAPI document and Swagger UI are served, and need nothing from elsewhere."""
    document = gateway.request("GET", "/openapi.json")
    page = gateway.request("GET", "/docs")

    assert {"/v1/chat/completions", "/admin/keys", "/admin/addapikey"} <= json.loads(document.body)["paths"].keys()
    assert 200 == page.status
    for foreign in (b'src="http', b'href="http', b'src="//'):
        assert foreign not in page.body
    assert 200 == gateway.request("GET", "/docs/assets/swagger-ui-bundle.js").status

"""What each role may do at each endpoint: the whole table, tried."""

from __future__ import annotations

import re

import pytest

from llmgateway.records import Role
from llmgateway.web.admin.rights import RIGHTS

CONTRACT = {
    # The table of docs/admin.md, by what an endpoint is about: the roles that may change it, and those that may read.
    "admins": ({"owner"}, {"owner"}),
    "sign-in": ({"owner"}, {"owner", "admin", "viewer"}),
    "organisation": ({"owner", "admin"}, {"owner", "admin", "viewer"}),
    "of a group": ({"owner", "admin", "group"}, {"owner", "admin", "viewer", "group"}),
    "groups": ({"owner", "admin"}, {"owner", "admin", "viewer", "group"}),
    "metrics": (set(), {"owner", "admin", "viewer", "metrics"}),
}
ABOUT = [
    (r"/admin/admins", "admins"),
    (r"/admin/(sign-in|sessions)", "sign-in"),
    (r"/metrics", "metrics"),
    (r"/admin/groups/<name>/raise", "groups"),
    (r"/admin/groups/<name>/", "of a group"),
    (r"PATCH /admin/groups", "of a group"),
    (r"/admin/groups", "groups"),
    (r"/admin/(keys|addapikey|removeapikey|listkeys|prompt|usage|logs|audit)", "of a group"),
    (r"/admin/", "organisation"),
]
ROWS = {f"{method} {rule}": roles for rule, methods in RIGHTS.items() for method, roles in methods.items()}
READS = {"POST /admin/prompt/preview", "POST /admin/reconcile"}
"""With POST, and changes nothing: whoever may read prompts or usage may see what follows from them."""
CHANGES = {"GET /admin/users/<path:user>/export"}
"""With GET, and for whoever may change a person: it has everything that is kept of the person."""


def endpoints(app) -> set[str]:
    """Every endpoint behind an admin key, as method and rule."""
    return {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/admin") or rule.rule == "/metrics"
    }


def expected(endpoint: str) -> set[str]:
    about = next(name for pattern, name in ABOUT if re.search(pattern, endpoint))
    changes, reads = CONTRACT[about]
    reading = endpoint.startswith("GET ") or endpoint in READS
    return reads if reading and endpoint not in CHANGES else changes


@pytest.fixture
def headers(call):
    """The header of an admin of each role. The group's admin manages a group that nothing below is about."""
    call("PUT", "/groups/her own", json={})
    made = {}
    for role in Role:
        groups = {"groups": ["her own"]} if role is Role.GROUP else {}
        made[role] = {
            "AdminKey": call("POST", "/admins", status=201, json={"name": role, "role": role, **groups})["key"]
        }
    return made


def test_every_endpoint_has_a_row(client):
    """And every row an endpoint: one that is added has to be put into the table."""
    assert endpoints(client.application) == {*ROWS}


def test_the_table_is_that_of_the_documentation():
    assert {name: expected(name) for name in ROWS} == {
        name: {role.value for role in roles} for name, roles in ROWS.items()
    }


def test_each_role_at_each_endpoint(client, headers):
    """Refused with 403 without the right, before anything else is looked at; with it, never with 401 or 403."""
    for endpoint in sorted(endpoints(client.application)):
        method, rule = endpoint.split(" ")
        path = re.sub(r"<[^>]*>", "nobody", rule)
        for role, header in headers.items():
            answer = client.open(path, method=method, headers=header)
            if role in expected(endpoint):
                assert answer.status_code not in (401, 500), (endpoint, role)
                # The group's admin also lacks the right for what is the organisation's.
                assert answer.status_code != 403 or role is Role.GROUP, (endpoint, role, answer.text)
                continue
            assert (403, "forbidden") == (answer.status_code, answer.json["error"]["code"]), (endpoint, role)
            assert f"'{role}'" in answer.json["error"]["message"]
            for other in expected(endpoint):
                assert other in answer.json["error"]["message"]


def test_a_head_needs_the_right_of_get(client, headers):
    for role, header in headers.items():
        assert (403 if role not in expected("GET /admin/status") else 200) == client.head(
            "/admin/status", headers=header
        ).status_code


def test_a_new_endpoint_is_for_owners_until_it_has_a_row(client, headers, monkeypatch):
    monkeypatch.delitem(RIGHTS, "/admin/status")

    statuses = {role: client.get("/admin/status", headers=header).status_code for role, header in headers.items()}

    assert {Role.OWNER} == {role for role, status in statuses.items() if status == 200}


def test_metrics_take_a_named_key_as_a_bearer(client, headers):
    """As Prometheus sends it."""
    key = headers[Role.METRICS]["AdminKey"]

    assert 200 == client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code

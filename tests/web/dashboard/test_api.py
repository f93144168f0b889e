"""The admin API within the process."""

from __future__ import annotations

import pytest
from flask import request

from llmgateway.accounts.admins import Admin
from llmgateway.records import Role
from llmgateway.web.dashboard.api import AdminApi, ApiError


@pytest.fixture
def api(client):
    """The API in the name of an admin who is in no store."""
    admin = Admin(id="admin_1", name="Grace", role=Role.ADMIN, key_id="0123456789ab")
    app = client.application
    with app.test_request_context("/dashboard/keys", environ_base={"REMOTE_ADDR": "192.0.2.7"}):
        yield AdminApi(app, admin, request)


def test_changes_what_the_api_changes(api, call):
    made = api.post("/admin/keys", {"user": "ada"})

    assert 201 == made.status
    assert "ada" == call("GET", f"/keys/{made.body['id']}")["user"]


def test_the_audit_log_names_who_is_signed_in(api, call):
    api.post("/admin/keys", {"user": "ada"})

    entry = call("GET", "/audit")["items"][0]
    assert ("Grace", "192.0.2.7") == (entry["admin"]["name"], entry["address"])


def test_has_the_rights_of_who_is_signed_in(api):
    with pytest.raises(ApiError) as error:
        api.get("/admin/admins")

    assert (403, "forbidden") == (error.value.status, error.value.code)


def test_says_what_is_wrong_by_field(api):
    with pytest.raises(ApiError) as error:
        api.post("/admin/keys", {"user": "ada", "limits": {"budget": {"amount": -1, "unit": "usd", "period": "month"}}})

    assert 422 == error.value.status
    assert "limits.budget.amount" in error.value.fields


def test_a_second_admin_notices_the_first(api):
    made = api.post("/admin/keys", {"user": "ada"}).body
    known = api.ask("GET", f"/admin/keys/{made['id']}")
    api.patch(f"/admin/keys/{made['id']}", {"note": "first"}, etag=known.etag)

    with pytest.raises(ApiError) as error:
        api.patch(f"/admin/keys/{made['id']}", {"note": "second"}, etag=known.etag)

    assert 412 == error.value.status
    assert "first" == error.value.present["note"]


def test_nobody_else_can_name_an_admin(client):
    """The name of the admin is in the environ under a name that no header has."""
    headers = {"llmgateway.signed_in": "owner", "LLMGATEWAY_SIGNED_IN": "owner"}

    assert 401 == client.get("/admin/keys", headers=headers).status_code


def test_leaves_the_page_as_it_was(api):
    """The nested request has a context of its own."""
    api.get("/admin/keys")

    assert "/dashboard/keys" == request.path

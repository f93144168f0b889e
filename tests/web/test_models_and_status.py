"""``/admin/models`` and ``/admin/status``."""

from __future__ import annotations

import os

import pytest

from llmgateway import __version__, create_app
from llmgateway.settings import Settings
from llmgateway.simulator import Simulator
from llmgateway.web.context import EXTENSION

ADMIN = {"AdminKey": "an-admin-key-for-tests"}
PRICES = {"prompt": 1.0, "cached": 0.5, "completion": 2.0}


@pytest.fixture
def azure():
    with Simulator(key="azure-key") as azure:
        yield azure


@pytest.fixture
def app(azure, tmp_path):
    app = create_app(
        Settings(
            admin_key=ADMIN["AdminKey"],
            base_url=f"{azure.url}/openai/v1",
            api_key="azure-key",
            instance=tmp_path,
            processes=1,
            threads=8,
        )
    )
    yield app
    app.extensions[EXTENSION].journal.close()


@pytest.fixture
def client(app):
    return app.test_client()


def test_an_own_price_is_what_a_request_costs(app, client):
    """A price that an admin has set counts from the next request on, and no longer when it is removed."""
    list_price = cost_of_one_request(app, client)
    set_price(client)
    own_price = cost_of_one_request(app, client)
    remove_price(client)

    assert list_price == cost_of_one_request(app, client)
    usage = client.get("/admin/usage", headers=ADMIN).json["total"]
    tokens = usage["prompt_tokens"] / 3, usage["completion_tokens"] / 3
    assert own_price == pytest.approx((tokens[0] * 1.0 + tokens[1] * 2.0) / 1_000_000)
    assert own_price != list_price


def set_price(client):
    assert client.put("/admin/models/gpt-4o-mini", json={"prices": PRICES}, headers=ADMIN).status_code == 200


def remove_price(client):
    assert client.delete("/admin/models/gpt-4o-mini", headers=ADMIN).status_code == 204


def cost_of_one_request(app, client):
    key = client.post("/admin/keys", json={"user": "ada"}, headers=ADMIN).json
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    answer = client.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key['key']}"})
    assert answer.status_code == 200
    assert app.extensions[EXTENSION].journal.flush()
    rows = client.get("/admin/usage?by=key", headers=ADMIN).json["rows"]
    return next(row["cost_usd"] for row in rows if row["key"] == key["id"])


def test_prices_are_kept_by_name(client):
    """What was set can be read, alone and in the list; names may have dots and slashes in them."""
    for name in ("team/gpt-4.1", "a"):
        assert client.put(f"/admin/models/{name}", json={"prices": PRICES}, headers=ADMIN).json == {
            "name": name,
            "prices": PRICES,
        }

    assert client.get("/admin/models/team/gpt-4.1", headers=ADMIN).json["prices"] == PRICES
    assert [item["name"] for item in client.get("/admin/models", headers=ADMIN).json["items"]] == ["a", "team/gpt-4.1"]


@pytest.mark.parametrize("method", ["get", "delete"])
def test_a_model_without_own_prices_is_not_found(client, method):
    """Nothing is said to be there, or removed, that was never set."""
    answer = getattr(client, method)("/admin/models/gpt-4o", headers=ADMIN)

    assert answer.status_code == 404
    assert answer.json["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prices"),
        ({"prices": {**PRICES, "prompt": -1}}, "prices"),
        ({"prices": {"prompt": 1, "completion": 1}}, "prices"),
        ({"prices": {**PRICES, "image": 1}}, "prices"),
        ({"prices": {**PRICES, "prompt": "NaN"}}, "prices"),
    ],
)
def test_refuses_prices_that_are_none(client, body, field):
    """A price that is missing, negative, misspelt or not a number is refused by its field, and nothing is stored."""
    answer = client.put("/admin/models/gpt-4o", json=body, headers=ADMIN)

    assert answer.status_code == 422
    assert field in answer.json["error"]["errors"]
    assert client.get("/admin/models", headers=ADMIN).json["items"] == []


def test_status_tells_how_it_is_doing(client):
    """The response has the stores, the degradation level, the backlog and the used threads; all are fine."""
    assert client.get("/admin/status", headers=ADMIN).json == {
        "version": __version__,
        "rung": "normal",
        "stores": {"sqlite": "ok"},
        "azure_key": "ok",
        "journal": {"records": 0, "oldest_seconds": 0.0, "problem": None},
        "slots": {"capacity": 4, "taken": 0, "streams": 0, "refused": 0},
        "process": {"id": os.getpid(), "processes": 1, "threads": 8},
    }


def test_status_needs_the_admin_key(client):
    """It names what runs here, which is nobody else's business."""
    assert client.get("/admin/status").status_code == 401

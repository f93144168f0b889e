"""``POST /admin/models/import``: registers the deployments that a resource lists."""

from __future__ import annotations

import json

import pytest

from tests.resources import listing_resource
from tests.servers import free_port, listening
from tests.web.conftest import ADMIN_KEY

ADMIN = {"AdminKey": ADMIN_KEY}
KEY = "the-key-of-the-resource"
MODELS = {"gpt-4o": "gpt-4o", "course": "gpt-4o-mini", "embed": "text-embedding-3-large", "new-one": "gpt-5"}


@pytest.fixture
def url():
    with listing_resource(MODELS, key=KEY) as url:
        yield f"{url}/openai/v1"


def bring(client, status=200, **body):
    answer = client.post("/admin/models/import", json={"key": KEY, **body}, headers=ADMIN)
    assert status == answer.status_code, answer.text
    return answer.json


def actions(answer):
    return {item["model"]: item["action"] for item in answer["items"]}


def stored(client):
    return {item["name"]: item for item in client.get("/admin/models", headers=ADMIN).json["items"]}


def test_registers_what_azure_lists(client, url):
    """Each under its own name, with the key that was sent, which can never be read; and says so in the audit."""
    answer = bring(client, base_url=url, name="east")

    assert {"course": "register", "embed": "register", "gpt-4o": "register", "new-one": "not_ready"} == actions(answer)
    assert MODELS == {item["model"]: item["azure_model"] for item in answer["items"]}
    found = stored(client)
    assert ["course", "embed", "gpt-4o"] == sorted(found)
    (deployment,) = found["course"]["deployments"]
    assert ("east", url, "course", True) == tuple(
        deployment[name] for name in ("name", "base_url", "deployment", "has_key")
    )
    audit = client.get("/admin/audit?target=course", headers=ADMIN).text
    assert "model.set" in audit
    assert KEY not in audit + json.dumps(found) + json.dumps(answer)


def test_a_dry_run_stores_nothing(client, url):
    """It says what would be done."""
    assert "register" == actions(bring(client, base_url=url, dry_run=True))["course"]
    assert {} == stored(client)


def test_what_is_registered_is_left_alone(client, url):
    """Unless the deployment is to be added; then it is asked last."""
    west = {"name": "west", "base_url": "https://w.openai.azure.com/openai/v1", "deployment": "other"}
    body = {"deployments": [west], "reasoning": False}
    assert 200 == client.put("/admin/models/gpt-4o", json=body, headers=ADMIN).status_code
    before = stored(client)["gpt-4o"]

    assert "exists" == actions(bring(client, base_url=url, name="east"))["gpt-4o"]
    assert before == stored(client)["gpt-4o"]
    assert {"course": "exists", "gpt-4o": "exists"}.items() <= actions(bring(client, base_url=url, name="east")).items()
    assert "add" == actions(bring(client, base_url=url, name="east", add=True))["gpt-4o"]
    after = stored(client)["gpt-4o"]
    assert [("west", 1), ("east", 2)] == [(each["name"], each["priority"]) for each in after["deployments"]]
    assert after["reasoning"] is False
    assert "exists" == actions(bring(client, base_url=url, name="again", add=True))["gpt-4o"]


def test_a_model_with_prices_alone_gets_its_deployment(client, url):
    """A model counts as registered only if it has deployments."""
    prices = {"prices": {"prompt": 1.0, "cached": 0.5, "completion": 2.0}}
    assert 200 == client.put("/admin/models/course", json=prices, headers=ADMIN).status_code

    assert "register" == actions(bring(client, base_url=url))["course"]
    assert prices["prices"] == stored(client)["course"]["prices"]


@pytest.mark.parametrize("path", ["/openai", "/openai/v1/", "/openai/deployments/course?api-version=2024-10-21"])
def test_any_address_of_the_resource_will_do(client, url, path):
    """The list is below that of the resource."""
    root = url.removesuffix("/openai/v1")

    assert 4 == len(bring(client, base_url=f"{root}{path}", dry_run=True)["items"])


def test_says_what_to_do_if_azure_does_not_list_them(client):
    """A wrong key, an address without a list, a host that is not there, something that is no list."""
    with listing_resource({}, key=KEY) as url:
        wrong = bring(client, 502, base_url=f"{url}/openai/v1", key="another")["error"]
        elsewhere = bring(client, 502, base_url=f"{url}/apim/openai/v1")["error"]
    away = bring(client, 502, base_url=f"http://127.0.0.1:{free_port()}/openai/v1")["error"]

    def talk(connection):
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[{}]")

    with listening(talk) as port:
        odd = bring(client, 502, base_url=f"http://127.0.0.1:{port}/openai/v1")["error"]

    assert {"deployments_not_listed"} == {error["code"] for error in (wrong, elsewhere, away, odd)}
    assert "refuses the key (401)" in wrong["message"]
    assert "llmgateway models deploy" in elsewhere["message"]
    assert "refuses connections" in away["message"]
    assert "status 200" in odd["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "base_url"),
        ({"base_url": "http://n.openai.azure.com"}, "base_url"),
        ({"base_url": "https://user:password@n.openai.azure.com"}, "base_url"),
        ({"base_url": "https://portal.azure.com/#resource"}, "base_url"),
        ({"base_url": "https://n.services.ai.azure.com/api/projects/p"}, "base_url"),
        ({"base_url": "https://n.openai.azure.com/openai/deployments/x"}, "base_url"),
        ({"base_url": "https://n.openai.azure.com", "key": "line\nbreak"}, "key"),
        ({"base_url": "https://n.openai.azure.com", "name": "a/b"}, "name"),
        ({"base_url": "https://n.openai.azure.com", "identity": True}, "identity"),
        ({"base_url": "https://evil.example.org/openai/v1"}, "key"),
    ],
)
def test_refuses_what_is_no_resource(client, body, field):
    """By its field, and nothing is asked."""
    answer = client.post("/admin/models/import", json=body, headers=ADMIN)

    assert (422, [field]) == (answer.status_code, [*answer.json["error"]["errors"]])

"""The address of Azure, set while the gateway runs: who is told what, and where Azure's key may go."""

from __future__ import annotations

import json

import pytest

from llmgateway.simulator import Simulator
from llmgateway.web.context import EXTENSION
from tests.web.conftest import ADMIN_KEY, AZURE_KEY

ADMIN = {"AdminKey": ADMIN_KEY}
CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
ELSEWHERE = "https://gateway.internal/openai/v1"


@pytest.fixture
def app(make_app, azure):
    """A gateway that was started with nothing but its admin key."""
    azure.reset()
    return make_app(LLM_BASE_URL="", LLM_API_KEY="", LLMGATEWAY_MODELS="")


@pytest.fixture
def client(app):
    return app.test_client()


def set_address(client, status=200, **fields):
    answer = client.put("/admin/settings", json=fields, headers=ADMIN)
    assert status == answer.status_code, answer.text
    return answer.json


def set_key(client, key=AZURE_KEY):
    return client.post("/admin/setllmkey", json={"key": key}, headers=ADMIN).json["azure"]


def ask(client, user):
    return client.post("/v1/chat/completions", json=CHAT, headers=user)


def examine(client, status=200, **wanted):
    answer = client.post("/admin/doctor", json=wanted, headers=ADMIN)
    assert status == answer.status_code, answer.text
    return answer.json


def test_everybody_is_told_that_nothing_is_set(client, user):
    """It serves, and says what to do: users, admins, load balancers and dashboards."""
    refused = ask(client, user)
    assert (502, "upstream_not_configured") == (refused.status_code, refused.json["error"]["code"])
    assert "PUT /admin/settings" in refused.json["error"]["message"]
    told = client.get(f"/admin/logs/{refused.headers['x-request-id']}", headers=ADMIN).json
    assert "llmgateway settings set" in told["what_to_do"]

    ready = client.get("/readyz")
    assert (200, "degraded") == (ready.status_code, ready.json["status"])
    assert ready.json["checks"]["azure_address"].startswith("no address of Azure is set")
    assert "502 upstream_not_configured" in client.get("/admin/status", headers=ADMIN).json["warnings"][0]
    assert "\nllmgateway_azure_configured 0.0" in client.get("/metrics", headers=ADMIN).text
    assert [] == client.get("/v1/models", headers=user).json["data"]
    assert {"ok": False, "items": []} == examine(client)


def test_an_address_and_a_key_are_all_that_is_needed(client, azure, user):
    """In force with the next request; audited, without the key."""
    shown = set_address(client, base_url=f"{azure.url}/openai/v1/chat/completions")
    assert "missing or unreadable: set it with POST /admin/setllmkey" == shown["azure_key"]
    assert (azure.url + "/openai/v1/chat/completions", [], []) == tuple(
        shown[name] for name in ("base_url", "from_environment", "overridden")
    )
    assert "Azure accepts the key." == set_key(client)["message"]

    assert 200 == ask(client, user).status_code
    ready = client.get("/readyz").json["checks"]
    assert "ok" == ready["azure_key"]
    assert "azure_address" not in ready
    assert "\nllmgateway_azure_configured 1.0" in client.get("/metrics", headers=ADMIN).text
    entries = client.get("/admin/audit", headers=ADMIN).json["items"]
    assert ["settings.set"] == [each["action"] for each in entries if each["action"].startswith("settings")]
    assert AZURE_KEY not in json.dumps(entries)
    assert set_address(client, base_url=None)["base_url"] is None
    assert 502 == ask(client, user).status_code


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"base_url": "n.openai.azure.com"}, "base_url", "must be a URL such as"),
        ({"base_url": "https://portal.azure.com/#resource"}, "base_url", "the address of a page"),
        ({"base_url": "https://ada:pw@n.openai.azure.com"}, "base_url", "a user or a password"),
        ({"base_url": "https://api.example.org/x?subscription-key=abc"}, "base_url", "a key in its query"),
        ({"base_url": "http://api.example.org/v1"}, "base_url", "Write https"),
        ({"base_url": "https://n.openai.azure.com/openai/deployments/d"}, "base_url", "set LLM_API_VERSION"),
        ({"api_version": "yesterday's"}, "api_version", "a version such as"),
        ({"key_header": "X-Key"}, "key_header", "Must be one of"),
        ({"base": "https://n.openai.azure.com"}, "base", "Unknown field"),
        ({}, "timezone", "at least one setting"),
    ],
)
def test_what_cannot_be_an_address_is_refused(client, fields, field, says):
    """As at a start, in words that say how to write it; nothing is stored."""
    refused = set_address(client, status=422, **fields)

    assert says in str(refused["error"]["errors"][field])
    assert client.get("/admin/settings", headers=ADMIN).json["base_url"] is None


def test_a_classic_address_gets_its_version_at_once(client, azure, user):
    """Both in one call, since neither works alone."""
    shown = set_address(client, base_url=f"{azure.url}/openai/deployments/gpt-4o", api_version="2024-10-21")
    set_key(client)

    assert "2024-10-21" == shown["api_version"]
    assert 200 == ask(client, user).status_code
    assert {"api-version": "2024-10-21"} == azure.served[-1].query


def test_the_environment_wins_and_says_so(make_app, azure):
    """What is stored waits until the variable is gone."""
    client = make_app().test_client()
    shown = set_address(client, base_url=ELSEWHERE, key_header="Authorization")

    assert f"{azure.url}/openai/v1" == shown["base_url"]
    assert (ELSEWHERE, "Authorization") == (shown["stored"]["base_url"], shown["key_header"])
    assert ["LLM_BASE_URL in the environment wins over what is stored."] == shown["overridden"]
    assert ["base_url"] == shown["from_environment"]


def test_two_admins_notice_each_other(client):
    """The second one's change is refused with how it is now."""
    tag = client.get("/admin/settings", headers=ADMIN).headers["ETag"]
    set_address(client, base_url=ELSEWHERE)
    late = client.put("/admin/settings", json={"timezone": "Europe/Berlin"}, headers=ADMIN | {"If-Match": tag})

    assert (412, ELSEWHERE) == (late.status_code, late.json["error"]["present"]["base_url"])


class TestTheKey:
    """No admin can read it, so none may send it to a server of theirs."""

    @pytest.fixture
    def other(self):
        with Simulator(key=AZURE_KEY) as simulator:
            yield simulator.url.replace("127.0.0.1", "localhost")

    def test_does_not_follow_the_address(self, client, azure, user, other):
        """Until it is set again, for the new host."""
        set_address(client, base_url=f"{azure.url}/openai/v1")
        set_key(client)
        shown = set_address(client, base_url=f"{other}/openai/v1")
        assert "not sent to localhost, for which it was not set" in shown["azure_key"]

        refused = ask(client, user)
        assert (502, "upstream_credentials") == (refused.status_code, refused.json["error"]["code"])
        assert "POST /admin/setllmkey" in refused.json["error"]["message"]
        assert "not sent to localhost" in examine(client)["items"][0]["remedy"]
        set_key(client)
        assert 200 == ask(client, user).status_code

    def test_stays_with_the_environment(self, make_app, azure, new_key, other):
        """``LLM_API_KEY`` goes where ``LLM_BASE_URL`` leads, and to Azure's hosts."""
        client = make_app(LLM_BASE_URL="").test_client()
        assert "not sent to localhost" in set_address(client, base_url=f"{other}/openai/v1")["azure_key"]
        assert "ok" == set_address(client, base_url="https://n.openai.azure.com")["azure_key"]

    def test_does_not_go_to_a_deployment_at_the_new_host(self, client, azure, other):
        """A model without a key of its own is no way around it."""
        set_address(client, base_url=f"{azure.url}/openai/v1")
        set_key(client)
        set_address(client, base_url=f"{other}/openai/v1")
        deployment = {"name": "mine", "base_url": f"{other}/openai/v1", "deployment": "gpt-4o"}
        refused = client.put("/admin/models/gpt-4o", json={"deployments": [deployment]}, headers=ADMIN)

        assert 422 == refused.status_code
        assert "Give the key" in str(examine(client, 422, base_url=f"{other}/openai/v1")["error"]["errors"]["key"])
        imported = client.post("/admin/models/import", json={"base_url": f"{other}/openai/v1"}, headers=ADMIN)
        assert 422 == imported.status_code

    def test_is_not_moved_by_setting_one_for_another_host(self, app, client, azure, other, user):
        """The old key never goes to the host of the new one, whichever of the two is stored."""
        set_address(client, base_url=f"{azure.url}/openai/v1")
        set_key(client)
        old = app.extensions[EXTENSION].policy.stored()
        set_address(client, base_url=f"{other}/openai/v1")
        set_key(client, "another-key")
        store = app.extensions[EXTENSION].policy._store
        store.set_credential(old.credential)  # as if two admins had set keys at once

        assert 502 == ask(client, user).status_code
        assert "not sent to localhost" in client.get("/readyz").json["checks"]["azure_key"]


class TestTyped:
    """The doctor tries what is typed, before anything is stored."""

    def test_an_address_and_a_key(self, client, azure):
        """No deployment has to be named."""
        found = examine(client, base_url=f"{azure.url}/openai/v1", key=AZURE_KEY)

        assert found["ok"]
        assert client.get("/admin/settings", headers=ADMIN).json["base_url"] is None
        assert "missing" not in client.get("/readyz").json["checks"]["azure_key"]

    def test_a_wrong_key(self, client, azure):
        """In the doctor's words, without the key."""
        found = examine(client, base_url=f"{azure.url}/openai/v1", key="not-the-key-of-azure")

        assert (False, 401) == (found["ok"], found["items"][0]["status"])
        assert "refuses the key" in found["items"][0]["problem"]
        assert "not-the-key-of-azure" not in json.dumps(found)

    def test_a_deployment_that_is_not_there(self, client, azure):
        """If one is named, it has to exist."""
        found = examine(client, base_url=f"{azure.url}/openai/v1", key=AZURE_KEY, model="gpt-9")

        assert "There is no deployment 'gpt-9'" in found["items"][0]["problem"]
        assert "gpt-4o" in found["items"][0]["remedy"]

    def test_the_stored_key_where_it_may_go(self, client, azure):
        """To the host for which it was set, so that a new address there can be tried."""
        set_address(client, base_url=f"{azure.url}/openai/v1")
        set_key(client)

        assert examine(client, base_url=f"{azure.url}/openai/deployments/gpt-4o?api-version=2024-10-21")["ok"]

    @pytest.mark.parametrize(
        ("wanted", "field"),
        [
            ({"key": "x"}, "key"),
            ({"base_url": "https://n.openai.azure.com/openai/deployments/d"}, "base_url"),
            ({"base_url": "https://n.openai.azure.com", "key": "x", "model": "../x"}, "model"),
            ({"base_url": "https://n.openai.azure.com"}, "key"),
        ],
    )
    def test_half_of_it(self, client, wanted, field):
        """Is refused at the field that is wrong."""
        assert field in examine(client, 422, **wanted)["error"]["errors"]

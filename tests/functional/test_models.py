"""Models that admins register: bad input is refused as a whole, on all stores, and a change is in force at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmgateway.simulator import Simulator
from tests.functional.conftest import AZURE_KEY
from tests.gateway_process import GatewayProcess

PRICES = {"prompt": 1.0, "cached": 0.5, "completion": 2.0}


@pytest.fixture
def models(gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """A gateway without models; there are none after the test, either."""
    yield gateway
    for each in gateway.admin("GET", "/admin/models").json()["items"]:
        gateway.admin("DELETE", f"/admin/models/{each['name']}")


def put(gateway: GatewayProcess, name: str, **parts: object):
    return gateway.admin("PUT", f"/admin/models/{name}", json=parts)


def deployment(azure: Simulator, **fields: object) -> dict[str, object]:
    made = {"name": "east", "base_url": f"{azure.url}/openai/v1", "deployment": "gpt-4o", "key": AZURE_KEY}
    return made | fields


BAD: dict[str, list[dict[str, object]]] = {
    "points nowhere": [{"base_url": "nowhere"}],
    "user and password": [{"base_url": "https://user:secret-word@n.openai.azure.com/openai/v1"}],
    "password only": [{"base_url": "https://:secret-word@n.openai.azure.com/openai/v1"}],
    "user only": [{"base_url": "https://secret-word@n.openai.azure.com/openai/v1"}],
    "http to a public host": [{"base_url": "http://n.openai.azure.com/openai/v1"}],
    "http to a public address": [{"base_url": "http://20.1.2.3/openai/v1"}],
    "http to a public IPv6 address": [{"base_url": "http://[2603:1030::1]/openai/v1"}],
    "http to a public address as a number": [{"base_url": "http://335610371/openai/v1"}],
    "http to a public address in hexadecimal": [{"base_url": "http://0x14.1.2.3/openai/v1"}],
    "http to a public address in IPv6": [{"base_url": "http://[::ffff:20.1.2.3]/openai/v1"}],
    "an unfinished IPv6 address": [{"base_url": "https://[::1/openai/v1"}],
    "a port that is none": [{"base_url": "https://n.openai.azure.com:port/openai/v1"}],
    "blanks only": [{"base_url": "   "}],
    "an empty user": [{"base_url": "https://@n.openai.azure.com/openai/v1"}],
    "a key in the query": [{"base_url": "https://n.azure-api.net/v1?subscription-key=secret-word"}],
    "a signature in the query": [{"base_url": "https://n.azure-api.net/v1?api-version=1&Sig=secret-word"}],
    "another scheme": [{"base_url": "file:///etc/passwd"}],
    "a page of the portal": [{"base_url": "https://portal.azure.com/#view/x"}],
    "a page of a project": [{"base_url": "https://n.services.ai.azure.com/api/projects/p"}],
    "no api-version": [{"base_url": "https://n.openai.azure.com/openai/deployments/gpt-4o"}],
    "equal names": [{}, {}],
    "names equal but for case": [{}, {"name": "EAST"}],
    "a path as the deployment": [{"deployment": "../../admin"}],
    "a negative weight": [{"weight": -1}],
    "a key with a line break": [{"key": "secret-word\r\nx: y"}],
    "an unknown field": [{"proirity": 1}],
    "no name": [{"name": None}],
    "a name that is no text": [{"name": 5}],
    "a line break in the name": [{"name": "east\n"}],
    "a line break in the api-version": [{"api_version": "2024-10-21\n"}],
    "a line break in the address": [{"base_url": "https://n.openai.azure.com/openai/v1\r\nX: secret-word"}],
    "a blank in the address": [{"base_url": "https://n.openai.azure.com/open ai/v1"}],
    "two deployments in one": [{"base_url": "https://n.azure-api.net/deployments/gpt-5", "deployment": "gpt-4o"}],
    "the second one": [{}, {"name": "west", "base_url": "nowhere"}],
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_deployments_are_refused_as_a_whole(models, azure, bad):
    """Nothing is stored, neither of a new model nor of an old one, and no secret is repeated."""
    sent = [deployment(azure, **fields) for fields in BAD[bad]]
    assert 200 == put(models, "old", prices=PRICES).status
    before = models.admin("GET", "/admin/models").json()

    for name in ("new", "old"):
        answer = put(models, name, prices=PRICES | {"prompt": 9}, deployments=sent)
        assert 422 == answer.status
        assert ["deployments"] == [*answer.error["errors"]]
        assert b"secret-word" not in answer.body
    assert before == models.admin("GET", "/admin/models").json()


@pytest.mark.parametrize("price", [{"prompt": -1}, {"completion": -0.01}, {"tiers": {"priority": {"prompt": -1}}}])
def test_negative_prices_are_refused_with_all_else(models, azure, price):
    """The deployments beside them are not stored."""
    answer = put(models, "new", prices=PRICES | price, deployments=[deployment(azure)])

    assert (422, ["prices"]) == (answer.status, [*answer.error["errors"]])
    assert 404 == models.admin("GET", "/admin/models/new").status


def test_aliases_make_no_loops(models, azure):
    """Of two, of three, and of one with itself; the refused model is not there."""
    assert 200 == put(models, "a", deployments=[deployment(azure)], aliases=["b"]).status
    for name, aliases in (("b", ["a"]), ("b", ["c"]), ("c", ["A"]), ("c", ["C"]), ("c", ["B"])):
        answer = put(models, name, deployments=[deployment(azure)], aliases=aliases)
        assert 422 == answer.status, (name, aliases)
    assert ["a"] == [each["name"] for each in models.admin("GET", "/admin/models").json()["items"]]


def test_admins_at_the_same_time_give_no_name_to_two_models(models, azure):
    """The names are checked together with the change: of two models with one alias, one is refused."""
    for number in range(8):
        with ThreadPoolExecutor(2) as pool:
            parts = {"deployments": [deployment(azure)], "aliases": [f"alias-{number}"]}
            answers = pool.map(lambda name, parts=parts: put(models, name, **parts), (f"a-{number}", f"b-{number}"))
            assert [200, 422] == sorted(answer.status for answer in answers)


def test_a_registered_model_is_in_force_at_once(models, azure, key):
    """With its alias, in the list of models, and without what was removed."""
    assert 200 == put(models, "assistant", deployments=[deployment(azure)], aliases=["helper-*"]).status

    assert 200 == models.chat(key, model="Helper-2").status
    assert "assistant" in [each["id"] for each in models.request("GET", "/v1/models", key=key).json()["data"]]
    assert ["gpt-4o"] == [json.loads(each.body)["model"] for each in azure.served]

    assert 200 == put(models, "assistant", prices=PRICES).status  # a script that knows nothing of deployments
    assert 200 == models.chat(key, model="assistant").status
    assert 200 == put(models, "assistant", deployments=[]).status
    assert 404 == models.chat(key, model="assistant").status
    shown = models.admin("GET", "/admin/models/assistant").json()
    assert (PRICES, None) == ({name: shown["prices"][name] for name in PRICES}, shown.get("deployments"))


def test_keys_can_never_be_read(models, azure):
    """Neither through the API nor in the audit, on any store."""
    put(models, "assistant", deployments=[deployment(azure, key="a-very-secret-key")])

    for path in ("/admin/models", "/admin/models/assistant", "/admin/audit", "/admin/status"):
        answer = models.admin("GET", path)
        assert 200 == answer.status
        assert b"a-very-secret-key" not in answer.body
        assert b"gAAAA" not in answer.body  # how encrypted keys begin
    assert "a-very-secret-key" not in models.output

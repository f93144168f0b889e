"""``/admin/models`` and ``/admin/status``."""

from __future__ import annotations

import csv
import os

import pytest

from llmgateway import __version__, create_app
from llmgateway.settings import Settings
from llmgateway.simulator import Simulator
from llmgateway.simulator.deployments import DEFAULT_DEPLOYMENTS, Deployment
from llmgateway.web.context import EXTENSION

ADMIN = {"AdminKey": "an-admin-key-for-tests"}
PRICES = {"prompt": 1.0, "cached": 0.5, "completion": 2.0}
EAST = {"name": "east", "base_url": "https://east.openai.azure.com/openai/v1", "deployment": "gpt-4o"}
WEST = {"name": "west", "base_url": "http://127.0.0.1:9/openai/v1", "deployment": "gpt-4o-west", "priority": 2}


@pytest.fixture
def azure():
    course = Deployment("course", model="gpt-4o-2024-11-20")
    with Simulator(key="azure-key", deployments=(*DEFAULT_DEPLOYMENTS, "house", course)) as azure:
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


def test_says_what_each_model_costs_and_why(client):
    """Your own price, else that of the list under the name that it has there, else that nobody knows."""
    client.put("/admin/models/team/one", json={"prices": PRICES}, headers=ADMIN)
    client.put("/admin/models/made-up", json={"reasoning": False}, headers=ADMIN)

    def prices(query=""):
        items = client.get(f"/admin/prices{query}", headers=ADMIN).json["items"]
        return {each["model"]: (each["source"], each["prices"], each["listed_as"]) for each in items}

    assert {"made-up": ("unknown", None, None), "team/one": ("own", PRICES, None)} == prices()
    ((source, found, place),) = prices("?model=GPT-4o-2024-11-20").values()
    assert ("list", True, True) == (source, found["prompt"] > 0, place["model"].startswith("gpt-4o"))
    assert all(place.values())


@pytest.mark.parametrize("method", ["get", "delete"])
def test_a_model_without_own_prices_is_not_found(client, method):
    """Nothing is said to be there, or removed, that was never set."""
    answer = getattr(client, method)("/admin/models/gpt-4o", headers=ADMIN)

    assert answer.status_code == 404
    assert answer.json["error"]["code"] == "not_found"


EVERY_PRICE = {
    **PRICES,
    "cache_write": 1.25,
    "audio_prompt": 40.0,
    "audio_completion": 80.0,
    "image": 3.0,
    "long_context": {"above": 272_000, "prompt": 2.0, "completion": 3.0},
    "tools": {"web_search": 10.0, "image_generation": 40.0},
    "tiers": {
        "priority": {"prompt": 2.0, "cached": 1.0, "completion": 4.0},
        "flex": {"prompt": 0.5, "completion": 1.0},
    },
}


def put(client, body, name="gpt-4o"):
    return client.put(f"/admin/models/{name}", json=body, headers=ADMIN)


def test_what_a_body_names_is_replaced_and_the_rest_stays(client):
    """Every part is optional; null removes one; the answer has what is set."""
    assert put(client, {"prices": EVERY_PRICE}).json == {"name": "gpt-4o", "prices": EVERY_PRICE}
    parts = {"max_output_tokens": 4096, "tokens_per_second": 80.5, "reasoning": False}
    for part, value in parts.items():
        assert put(client, {part: value}).status_code == 200

    expected = {"name": "gpt-4o", "prices": EVERY_PRICE, **parts}
    assert expected == client.get("/admin/models/gpt-4o", headers=ADMIN).json
    assert put(client, {"prices": PRICES, "reasoning": None}).json == {
        "name": "gpt-4o",
        "prices": PRICES,
        "max_output_tokens": 4096,
        "tokens_per_second": 80.5,
    }
    assert put(client, dict.fromkeys(("prices", *parts))).json == {"name": "gpt-4o"}
    assert client.get("/admin/models", headers=ADMIN).json["items"] == []


def test_the_audit_tells_what_was_set(client):
    """Settings that are not prices have a name of their own there."""
    put(client, {"max_output_tokens": 4096})
    put(client, {"prices": PRICES})
    client.delete("/admin/models/gpt-4o", headers=ADMIN)

    entries = client.get("/admin/audit?target=gpt-4o", headers=ADMIN).json["items"]
    both = {"prices": PRICES, "max_output_tokens": 4096}
    assert [
        ("prices.remove", both, None),
        ("prices.set", {"max_output_tokens": 4096}, both),
        ("model.set", None, {"max_output_tokens": 4096}),
    ] == [(entry["action"], entry["before"], entry["after"]) for entry in entries]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prices"),
        ({"prices": {**PRICES, "prompt": -1}}, "prices"),
        ({"prices": {"prompt": 1, "completion": 1}}, "prices"),
        ({"prices": {**PRICES, "imag": 1}}, "prices"),
        ({"prices": {**PRICES, "prompt": "NaN"}}, "prices"),
        ({"prices": {**PRICES, "audio_prompt": None}}, "prices"),
        ({"prices": {**PRICES, "tiers": {"default": PRICES}}}, "prices"),
        ({"prices": {**PRICES, "tiers": {"Priority": PRICES}}}, "prices"),
        ({"prices": {**PRICES, "tiers": {"priority": {"prompt": 1}}}}, "prices"),
        ({"prices": {**PRICES, "tiers": {"priority": {**PRICES, "tiers": {}}}}}, "prices"),
        ({"prices": {**PRICES, "long_context": PRICES}}, "prices"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"tokens_per_second": 0}, "tokens_per_second"),
        ({"reasoning": "perhaps"}, "reasoning"),
        ({"deployments": [{"name": "east", "deployment": "gpt-4o"}]}, "deployments"),
        ({"deployments": [EAST, EAST | {"name": "EAST"}]}, "deployments"),
        ({"deployments": [EAST | {"base_url": "https://user:password@n.openai.azure.com"}]}, "deployments"),
        ({"deployments": [EAST | {"base_url": "http://n.openai.azure.com/openai/v1"}]}, "deployments"),
        ({"deployments": [EAST | {"base_url": "http://20.1.2.3/openai/v1"}]}, "deployments"),
        ({"deployments": [EAST | {"base_url": "https://ai.azure.com/resource"}]}, "deployments"),
        ({"deployments": [EAST | {"base_url": "https://n.openai.azure.com/openai/deployments/x"}]}, "deployments"),
        ({"deployments": [EAST | {"deployment": "../admin"}]}, "deployments"),
        ({"deployments": [EAST | {"weight": 0}]}, "deployments"),
        ({"deployments": [EAST | {"priority": -1}]}, "deployments"),
        ({"deployments": [EAST | {"key": "line\nbreak"}]}, "deployments"),
        ({"deployments": [EAST | {"key": "key", "identity": True}]}, "deployments"),
        ({"deployments": [EAST | {"has_key": True}]}, "deployments"),
        ({"endpoints": ["files"]}, "endpoints"),
        ({"aliases": ["gpt-4o"]}, "aliases"),
        ({"aliases": [""]}, "aliases"),
        ({"aliases": ["gpt-4?"]}, "aliases"),
        ({"aliases": ["gpt-[45]"]}, "aliases"),
        ({"aliases": ["two words"]}, "aliases"),
        ({"aliases": ["line\n"]}, "aliases"),
        ({"aliases": ["four", "FOUR"]}, "aliases"),
        ({"prices": PRICES | {"prompt": -1}}, "prices"),
        ({"deployments": [EAST | {"base_url": "nonsense"}]}, "deployments"),
        ({"deployments": [EAST | {"base_url": "ftp://n.openai.azure.com"}]}, "deployments"),
    ],
)
def test_refuses_settings_that_are_none(client, body, field):
    """What is missing, negative, misspelt or not a number is refused by its field, and nothing is stored."""
    answer = put(client, body)

    assert answer.status_code == 422
    assert field in answer.json["error"]["errors"]
    assert client.get("/admin/models", headers=ADMIN).json["items"] == []


class TestDeployments:
    def test_their_keys_can_never_be_read(self, client):
        """Neither from the model, nor from the list, nor from the audit."""
        answer = put(client, {"deployments": [EAST | {"key": "key-of-the-east"}, WEST]})

        assert [("east", True), ("west", False)] == [
            (each["name"], each["has_key"]) for each in answer.json["deployments"]
        ]
        for path in ("/admin/models", "/admin/models/gpt-4o", "/admin/audit"):
            text = client.get(path, headers=ADMIN).text
            assert "east" in text
            assert "key-of-the-east" not in text
            assert '"key"' not in text
            assert "gAAAA" not in text  # how a key begins that is encrypted

    def test_stay_if_they_are_not_named(self, client):
        """Scripts that send only prices go on working."""
        put(client, {"deployments": [EAST]})
        put(client, {"prices": PRICES})

        assert ["east"] == [each["name"] for each in put(client, {"reasoning": False}).json["deployments"]]

    def test_what_is_shown_can_be_sent_back(self, client):
        """As a page does, with the fields that are only shown; other values of these are refused."""
        put(client, {"deployments": [EAST | {"key": "key-of-the-east"}, WEST], "prices": PRICES})
        shown = client.get("/admin/models/gpt-4o", headers=ADMIN).json

        assert shown == put(client, shown).json
        east, west = shown["deployments"]
        assert put(client, {"deployments": [east, west | {"key": "key-of-the-west"}]}).json["deployments"][1]["has_key"]
        for untrue, field in (
            ({"deployments": [east | {"has_key": False}]}, "deployments"),
            (shown | {"name": "gpt-4"}, "name"),
        ):
            refused = put(client, untrue)
            assert (422, [field]) == (refused.status_code, [*refused.json["error"]["errors"]])

    def test_an_empty_list_removes_them(self, client):
        put(client, {"deployments": [EAST], "reasoning": False})

        assert "deployments" not in put(client, {"deployments": []}).json

    def test_keep_their_keys_at_the_same_resource_only(self, client):
        """A key must not be sent to another host than the one it was given for."""
        put(client, {"deployments": [EAST | {"key": "key-of-the-east"}]})

        same = put(client, {"deployments": [EAST | {"base_url": f"{EAST['base_url']}/", "weight": 2}]})
        other = put(client, {"deployments": [EAST | {"base_url": "https://west.openai.azure.com/openai/v1"}]})

        assert [True, False] == [each.json["deployments"][0]["has_key"] for each in (same, other)]

    def test_the_key_of_the_base_url_goes_to_no_other_host(self, client):
        """No admin can read the key, so none may send it to a server of theirs."""
        put(client, {"deployments": [EAST | {"key": "key-of-the-east"}]})
        elsewhere = {"name": "east", "base_url": "https://evil.example.org/v1", "deployment": "gpt-4o"}

        answer = client.put("/admin/models/gpt-4o", headers=ADMIN, json={"deployments": [elsewhere]})

        assert (422, ["deployments"]) == (answer.status_code, [*answer.json["error"]["errors"]])
        (stored,) = client.get("/admin/models/gpt-4o", headers=ADMIN).json["deployments"]
        assert EAST["base_url"] == stored["base_url"]

    def test_a_token_goes_to_no_other_host(self, client):
        """It opens all that the identity may use; Azure's hosts, and that of the base URL, get it."""
        elsewhere = EAST | {"base_url": "https://evil.example.org/v1", "identity": True}

        answer = client.put("/admin/models/gpt-4o", headers=ADMIN, json={"deployments": [elsewhere]})

        assert (422, {"identity"}) == (answer.status_code, answer.json["error"]["errors"]["deployments"]["0"].keys())
        assert 404 == client.get("/admin/models/gpt-4o", headers=ADMIN).status_code
        for host in ("n.openai.azure.com", "n.openai.azure.us"):
            put(client, {"deployments": [elsewhere | {"base_url": f"https://{host}/openai/v1"}]})

    def test_names_of_other_models_are_no_aliases(self, client):
        """So no name means two models, and no two names mean each other."""
        put(client, {"aliases": ["gpt-4-*", "four"]})

        for alias in ("gpt-4o", "FOUR", "gpt-4-*", "O1"):
            answer = client.put("/admin/models/o1", headers=ADMIN, json={"aliases": [alias]})
            assert (422, ["aliases"]) == (answer.status_code, [*answer.json["error"]["errors"]]), alias
        assert 404 == client.get("/admin/models/o1", headers=ADMIN).status_code

    @pytest.mark.parametrize("name", ["four", "FOUR", "GPT-4o"])
    def test_an_alias_or_another_spelling_is_no_new_model(self, client, name):
        """Otherwise the same name would mean two models."""
        put(client, {"aliases": ["four"]})

        answer = client.put(f"/admin/models/{name}", headers=ADMIN, json={"deployments": [EAST]})

        assert (422, ["name"]) == (answer.status_code, [*answer.json["error"]["errors"]])
        assert ["gpt-4o"] == [each["name"] for each in client.get("/admin/models", headers=ADMIN).json["items"]]

    @pytest.mark.parametrize("first", [{"prices": PRICES}, {"deployments": [EAST]}], ids=["prices", "deployments"])
    def test_another_spelling_gets_no_price_either(self, client, first):
        """Otherwise nobody could say which of the two prices holds; the message has the spelling to use."""
        put(client, first)

        for body in ({"prices": PRICES}, {"reasoning": True}, {"deployments": [EAST]}):
            answer = client.put("/admin/models/GPT-4O", headers=ADMIN, json=body)
            assert 422 == answer.status_code
            assert ["'gpt-4o'" in message for message in answer.json["error"]["errors"]["name"]] == [True]
        assert ["gpt-4o"] == [each["name"] for each in client.get("/admin/models", headers=ADMIN).json["items"]]

    def test_two_spellings_from_an_older_version_can_be_changed(self, app, client):
        """Both are stored; a change, and the removal of one, are no new model."""
        for name in ("gpt-4o", "GPT-4o"):
            app.extensions[EXTENSION].policy.set_model(name, {"reasoning": True})

        assert {"name": "GPT-4o", "reasoning": False} == put(client, {"reasoning": False}, name="GPT-4o").json
        assert 204 == client.delete("/admin/models/GPT-4o", headers=ADMIN).status_code

    def test_names_that_no_request_may_have_are_refused(self, client):
        """The longest that one may have is taken."""
        assert 200 == client.put(f"/admin/models/{'m' * 256}", headers=ADMIN, json={"reasoning": True}).status_code

        answer = client.put(f"/admin/models/{'m' * 257}", headers=ADMIN, json={"reasoning": True})

        assert (422, ["name"]) == (answer.status_code, [*answer.json["error"]["errors"]])

    @pytest.mark.parametrize("name", ["*", "gpt-4o-*", "..", "a/../b", "./gpt-4o", "gpt-4o/."])
    def test_names_that_mean_something_else_are_refused(self, client, name):
        """A pattern is an alias, and clients take dots out of a path."""
        answer = client.put(f"/admin/models/{name}", headers=ADMIN, json={"reasoning": True})

        assert (422, ["name"]) == (answer.status_code, [*answer.json["error"]["errors"]])
        assert [] == client.get("/admin/models", headers=ADMIN).json["items"]

    @pytest.mark.parametrize("name", ["meta/llama-3.3", "gpt-4.1", "..gpt", "a..b"])
    def test_names_with_dots_and_slashes_are_names(self, client, name):
        """Partners' models have them."""
        client.put(f"/admin/models/{name}", headers=ADMIN, json={"reasoning": True})

        assert name == client.get(f"/admin/models/{name}", headers=ADMIN).json["name"]

    def test_a_version_may_have_a_price_and_be_an_alias(self, client):
        """A price alone makes no model."""
        for name in ("gpt-4o-2024-11-20",):
            client.put(f"/admin/models/{name}", headers=ADMIN, json={"prices": PRICES})

        assert ["gpt-4o-2024-11-20"] == put(client, {"aliases": ["gpt-4o-2024-11-20"]}).json["aliases"]


@pytest.fixture
def without_base_url(tmp_path, clock):
    app = create_app(
        Settings(admin_key=ADMIN["AdminKey"], api_key="azure-key", instance=tmp_path / "none", processes=1, threads=8),
        clock=clock,
    )
    yield app.test_client()
    app.extensions[EXTENSION].journal.close()


class TestWithoutBaseUrl:
    def test_registered_models_are_served_and_others_not_found(self, without_base_url, azure):
        """Nothing leads to an address that is not there."""
        client = without_base_url
        here = {"name": "here", "base_url": f"{azure.url}/openai/v1", "deployment": "course", "key": "azure-key"}
        assert put(client, {"deployments": [here]}).status_code == 200
        assert put(client, {"endpoints": ["chat/completions"]}, "priced").status_code == 200
        key = new_key(client)

        assert 200 == ask(client, key, "gpt-4o").status_code
        for model in ("gpt-4o-mini", "priced"):
            answer = ask(client, key, model)
            assert (404, "model_not_found") == (answer.status_code, answer.json["error"]["code"]), model
        bearer = {"Authorization": f"Bearer {key}"}
        assert ["gpt-4o"] == [each["id"] for each in client.get("/v1/models", headers=bearer).json["data"]]
        assert 404 == client.get("/v1/models/gpt-4o-mini", headers=bearer).status_code

    def test_the_status_says_what_is_missing(self, without_base_url):
        """The gateway is ready, so that an admin can register models."""
        client = without_base_url
        assert ["No address of Azure is set, and no model has deployments"] == [
            warning.partition(" (")[0] for warning in client.get("/admin/status", headers=ADMIN).json["warnings"]
        ]
        assert 200 == put(client, {"deployments": [EAST]}).status_code
        assert ["LLM_BASE_URL is not set"] == [
            warning.partition(":")[0] for warning in client.get("/admin/status", headers=ADMIN).json["warnings"]
        ]
        assert "ok" == client.get("/readyz").json["checks"]["azure_key"]

    def test_a_key_is_stored_and_not_tried(self, without_base_url):
        """There is no address to try it at."""
        answer = without_base_url.post("/admin/setllmkey", json={"key": "another"}, headers=ADMIN)

        assert 200 == answer.status_code
        assert answer.json["azure"]["status"] is None
        assert "doctor" in answer.json["azure"]["message"]


def ask(client, key, model, **fields):
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
    return client.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})


def new_key(client, **fields):
    return client.post("/admin/keys", json={"user": "ada", **fields}, headers=ADMIN).json["key"]


def test_an_unknown_price_is_told_everywhere(app, client, azure):
    """It is null in the record, counted apart in reports, an empty cell in CSV, and the status names the model."""
    key = new_key(client)
    assert [200, 200, 200] == [ask(client, key, name).status_code for name in ("house", "house", "gpt-4o-mini")]
    assert client.get("/admin/status", headers=ADMIN).json["unpriced_models"] == ["house"]
    assert app.extensions[EXTENSION].journal.flush()

    records = client.get("/admin/logs", headers=ADMIN).json["items"]
    assert [("gpt-4o-mini", False), ("house", True), ("house", True)] == [
        (record["model"], record["cost_usd"] is None) for record in records
    ]
    report = client.get("/admin/usage?by=model", headers=ADMIN).json
    assert [("gpt-4o-mini", 1, 0), ("house", 2, 2)] == [
        (row["model"], row["requests"], row["unpriced_requests"]) for row in report["rows"]
    ]
    assert report["total"]["unpriced_requests"] == 2
    assert report["total"]["cost_usd"] == records[0]["cost_usd"]
    cells = [*csv.DictReader(client.get("/admin/usage?by=model&format=csv", headers=ADMIN).text.splitlines())]
    assert [False, True] == [row["cost_usd"] == "" for row in cells]
    assert ["0", "2"] == [row["unpriced_requests"] for row in cells]
    (both,) = csv.DictReader(client.get("/admin/usage?by=user&format=csv", headers=ADMIN).text.splitlines())
    assert (records[0]["cost_usd"], "0", "2") == (float(both["cost_usd"]), both["errors"], both["unpriced_requests"])
    me = client.get("/v1/me", headers={"Authorization": f"Bearer {key}"}).json
    assert me["usage"]["total"]["unpriced_requests"] == 2

    put(client, {"prices": PRICES}, "house")
    assert client.get("/admin/status", headers=ADMIN).json["unpriced_models"] == []


DOLLARS = {"budget": {"amount": 5, "unit": "usd", "period": "month"}}
TOKENS = {"budget": {"amount": 5_000_000, "unit": "tokens", "period": "month"}}


@pytest.fixture
def strict(make_client):
    return make_client(unknown_price="refuse")


@pytest.fixture
def make_client(azure, tmp_path):
    made = []

    def make(**settings):
        app = create_app(
            Settings(
                admin_key=ADMIN["AdminKey"],
                base_url=f"{azure.url}/openai/v1",
                api_key="azure-key",
                instance=tmp_path / "other",
                processes=1,
                threads=8,
                **settings,
            )
        )
        made.append(app)
        return app.test_client()

    yield make
    for app in made:
        app.extensions[EXTENSION].journal.close()


def limit_key(client):
    return new_key(client, limits=DOLLARS)


def limit_group(client):
    client.put("/admin/groups/ml", json={"limits": DOLLARS}, headers=ADMIN)
    return new_key(client, group="ml")


def limit_organisation(client):
    client.put("/admin/limits", json=DOLLARS, headers=ADMIN)
    return new_key(client)


@pytest.mark.parametrize("limit", [limit_key, limit_group, limit_organisation])
def test_a_budget_in_dollars_can_refuse_unknown_prices(strict, azure, limit):
    """Nothing is sent; the message says what the admin can do; with a price the request goes through."""
    key = limit(strict)

    refused = ask(strict, key, "house")

    assert (403, "price_unknown") == (refused.status_code, refused.json["error"]["code"])
    assert "PUT /admin/models/{name}" in refused.json["error"]["message"]
    assert strict.get("/admin/status", headers=ADMIN).json["slots"]["taken"] == 0
    assert ask(strict, key, "gpt-4o-mini").status_code == 200
    put(strict, {"prices": PRICES}, "house")
    assert ask(strict, key, "house").status_code == 200


def test_audio_without_a_price_is_refused_too(strict):
    """Otherwise a client could ask for it and pay nothing. A tier without a price has a price all the same."""
    put(strict, {"prices": PRICES}, "house")
    key = limit_key(strict)
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA" * 1000, "format": "wav"}}

    assert [403, 403, 200, 200] == [
        ask(strict, key, "house", **fields).status_code
        for fields in (
            {"modalities": ["text", "audio"]},
            {"messages": [{"role": "user", "content": [sound]}]},
            {"service_tier": "priority"},
            {"service_tier": "auto"},
        )
    ]


def test_the_name_in_earlier_answers_does_not_count(strict):
    """Each process has seen other answers, and all must decide alike. An admin can set the price of the deployment."""
    assert ask(strict, new_key(strict), "course").json["model"] == "gpt-4o-2024-11-20"
    key = limit_key(strict)

    assert ask(strict, key, "course").status_code == 403
    put(strict, {"prices": PRICES}, "course")
    assert ask(strict, key, "course").status_code == 200


@pytest.mark.parametrize("limits", [{}, TOKENS, {"requests_per_minute": 9}])
def test_without_a_budget_in_dollars_no_price_is_needed(strict, limits):
    """Tokens can be counted without one."""
    assert ask(strict, new_key(strict, limits=limits), "house").status_code == 200


def test_unknown_prices_are_allowed_by_default(make_client):
    """As the gateway always did."""
    client = make_client()

    assert ask(client, limit_key(client), "house").status_code == 200


def test_status_tells_how_it_is_doing(client):
    """The response has the stores, the degradation level, the backlog and the used threads; all are fine."""
    assert client.get("/admin/status", headers=ADMIN).json == {
        "version": __version__,
        "rung": "normal",
        "stores": {"sqlite": "ok"},
        "azure_key": "ok",
        "journal": {"records": 0, "oldest_seconds": 0.0, "problem": None},
        "warnings": [],
        "slots": {"capacity": 4, "taken": 0, "streams": 0, "refused": 0},
        "process": {"id": os.getpid(), "processes": 1, "threads": 8},
        "deployments": [],
        "unpriced_models": [],
    }


def test_status_needs_the_admin_key(client):
    """It names what runs here, which is nobody else's business."""
    assert client.get("/admin/status").status_code == 401

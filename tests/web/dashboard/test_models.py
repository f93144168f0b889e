"""The pages of models: what there is, what it costs, its deployments, the doctor, the import."""

from __future__ import annotations

import pytest

from llmgateway.web.dashboard.models import health
from tests.resources import listing_resource
from tests.web.dashboard.reading import HOSTILE, etag_of

EAST = {"name": "east", "base_url": "https://east.openai.azure.com/openai/v1", "deployment": "gpt-4o"}
PRICES = {"prompt": 1.0, "cached": 0.5, "completion": 2.0}


def deployments(*each: dict[str, str]) -> dict[str, str]:
    sent = {f"deployments.{place}.{name}": value for place, one in enumerate(each) for name, value in one.items()}
    return {"part": "deployments", **sent}


def test_deployments_are_added_changed_and_removed(owner, call):
    """A key that is not typed again stays; the empty fields at the end are no deployment."""
    path = "models/one?name=team/gpt-4o"
    first = deployments(EAST | {"key": "key-of-the-east", "active": "yes"}, {"name": "", "priority": "1"})
    page = owner.send_and_follow(path, **first)

    assert 'name="deployments.1.name"' in page
    assert "key-of-the-east" not in page
    west = {"name": "west", "base_url": "https://west.openai.azure.com", "deployment": "gpt-4o", "key": "key-w"}
    page = owner.send_and_follow(
        path, etag=etag_of(page), **deployments(EAST | {"priority": "2", "active": "yes"}, west | {"weight": "0.5"})
    )
    stored = call("GET", "/models/team/gpt-4o")["deployments"]
    assert [("east", 2, 1.0, True, True), ("west", 1, 0.5, False, True)] == [
        (one["name"], one["priority"], one["weight"], one["active"], one["has_key"]) for one in stored
    ]
    owner.send_and_follow(path, **deployments(EAST | {"remove": "yes"}, {**west, "key": "", "active": "yes"}))
    assert [("west", True)] == [
        (one["name"], one["has_key"]) for one in call("GET", "/models/team/gpt-4o")["deployments"]
    ]


def test_what_is_wrong_with_a_deployment_is_said_at_its_field(owner, call):
    """Also behind one that is to be removed. A key that was typed into the address is not shown again."""
    sent = deployments(
        EAST | {"remove": "yes"},
        EAST | {"name": "other", "base_url": "https://me:azure-secret@east.openai.azure.com?code=azure-secret"},
        {"name": "third", "base_url": "ftp://x", "deployment": "gpt 4", "key": "azure-secret"},
    )
    page = owner.send("models/one?name=gpt-4o", status=422, **sent).text

    for field in ("deployments.1.base_url", "deployments.2.base_url", "deployments.2.deployment"):
        assert f'id="{field}-wrong"' in page
    assert "azure-secret" not in page
    assert 'value="third"' in page
    assert [] == call("GET", "/models")["items"]


def test_prices_are_set_and_left_to_the_list(owner, call):
    """Those of tiers, which the form has no fields for, are JSON."""
    path = "models/one?name=gpt-4o"
    assert "the list, as gpt-4o" in owner.open(path)
    tiers = '{"tiers": {"priority": {"prompt": 2, "completion": 4}}}'
    sent = {"part": "prices", **{f"prices.{kind}": price for kind, price in PRICES.items()}}

    page = owner.send_and_follow(path, **sent | {"prices.more": tiers})
    assert "your own settings" in page
    assert 4 == call("GET", "/models/gpt-4o")["prices"]["tiers"]["priority"]["completion"]
    for more, told in (("{", "Is no JSON"), ("[]", "Must be a JSON object"), (tiers.replace("4", '"x"'), "priority")):
        page = owner.send(path, status=422, **sent | {"prices.more": more}).text
        assert told in page.partition('id="prices.more-wrong"')[2]
    assert 'id="prices.cached-wrong"' in owner.send(path, status=422, **sent | {"prices.cached": "-1"}).text
    owner.send_and_follow(path, part="prices")
    assert [] == call("GET", "/models")["items"]


def test_other_settings_are_set_and_forgotten(owner, call):
    path = "models/one?name=gpt-4o"
    sent = {"aliases": "gpt-4o-*, small", "endpoints": ["embeddings", "responses"], "reasoning": "no"}
    page = owner.send_and_follow(path, part="others", max_output_tokens="4,096", **sent)

    stored = call("GET", "/models/gpt-4o")
    assert (["gpt-4o-*", "small"], 4096, False) == (
        stored["aliases"],
        stored["max_output_tokens"],
        stored["reasoning"],
    )
    refused = owner.send(path, status=422, part="others", aliases="a b", tokens_per_second="fast").text
    assert 'id="aliases-wrong"' in refused
    assert 'id="tokens_per_second-wrong"' in refused
    owner.send("models/one?name=gpt-4o", status=400, part="made up")
    owner.send_and_follow("models/remove?name=gpt-4o", etag=etag_of(page))
    assert [] == call("GET", "/models")["items"]


def test_two_admins_on_one_model(owner, call):
    call("PUT", "/models/gpt-4o", json={"prices": PRICES})
    tag = etag_of(owner.open("models/one?name=gpt-4o"))
    call("PUT", "/models/gpt-4o", json={"max_output_tokens": 123})

    for path, fields in (("one", {"part": "others", "aliases": "mine"}), ("remove", {})):
        page = owner.send(f"models/{path}?name=gpt-4o", status=412, etag=tag, **fields).text
        assert "<dt>max_output_tokens</dt><dd>123</dd>" in page
    assert "aliases" not in call("GET", "/models/gpt-4o")


def test_the_list_says_what_each_costs_and_how_deployments_are(owner, call):
    call("PUT", "/models/gpt-4o", json={"deployments": [EAST | {"key": "k"}], "aliases": ["four"]})
    call("PUT", "/models/made-up", json={"reasoning": False})
    page = owner.open("models")

    for text in ("east.openai.azure.com", "not asked yet", "not known", "the list of", "four"):
        assert text in page
    owner.open("models/one", status=404)


def test_the_doctor_says_what_to_do(owner, call, azure):
    """One that answers and one where nothing listens."""
    broken = EAST | {"base_url": "http://127.0.0.1:9/openai/v1", "name": "broken", "key": "k"}
    call("PUT", "/models/gpt-4o", json={"deployments": [broken], "endpoints": ["chat/completions"]})

    page = owner.send("models/doctor", status=200, model="gpt-4o").text

    assert "fails" in page
    assert "http://127.0.0.1:9" in page
    assert "There is nothing to try" in owner.send("models/doctor", status=200, model="nobody").text


def test_deployments_of_a_resource_are_looked_at_and_imported(owner, call):
    """The key is typed for each, and is in no page. What Azure refuses is told above the form."""
    with listing_resource({"gpt-4o": "gpt-4o", "course": "gpt-4o-mini"}, key="azure-secret") as url:
        sent = {"base_url": f"{url}/openai/v1", "key": "azure-secret", "name": "east"}
        page = owner.send("models/import", status=200, do="preview", **sent).text
        assert "registered as a new model" in page
        assert "azure-secret" not in page
        assert [] == call("GET", "/models")["items"]

        owner.send("models/import", status=200, do="import", **sent)
        stored = call("GET", "/models")["items"]
        assert ["course", "gpt-4o"] == [each["name"] for each in stored]
        wrong = owner.send("models/import", status=502, do="preview", **sent | {"key": "wrong"}).text
        assert 'role="alert"' in wrong
    assert 'id="base_url-wrong"' in owner.send("models/import", status=422, base_url="ftp://x", key="k").text


def test_hostile_names_are_text(owner, call):
    name = HOSTILE.replace("\u202e", "").replace("/", "")
    call("PUT", f"/models/{name}", json={"prices": PRICES})

    assert "<script>" not in owner.open("models").replace("<script src", "")
    assert "<script>" not in owner.open(f"models/one?name={name}").replace("<script src", "")


def test_a_viewer_looks_and_changes_nothing(named, call):
    call("PUT", "/models/gpt-4o", json={"deployments": [EAST | {"key": "k"}], "aliases": ["four"]})
    viewer = named("viewer")

    page = viewer.open("models") + viewer.open("models/one?name=gpt-4o")
    assert "east" in page
    assert '<form class="card" method="post"' not in page
    for path, fields in (
        ("one?name=gpt-4o", {"part": "prices"}),
        ("remove?name=gpt-4o", {}),
        ("doctor", {}),
        ("import", {"base_url": "https://x.openai.azure.com"}),
    ):
        viewer.send(f"models/{path}", status=403, **fields)
    call("PUT", "/groups/ml", json={})
    named("group", "ml").open("models", status=403)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ({}, "not asked yet"),
        ({"region": "Sweden Central"}, "works"),
        ({"problem": "there is no key"}, "cannot be called"),
        ({"rests_because": "limited"}, "at its limit"),
        ({"rests_because": "failed"}, "fails"),
        ({"failures": 3, "region": "x"}, "fails"),
    ],
)
def test_a_word_for_each_state(state, word):
    nothing = {"problem": None, "rests_because": None, "failures": 0, "quota_at": None, "region": None}
    assert word == health(nothing | state)[0]

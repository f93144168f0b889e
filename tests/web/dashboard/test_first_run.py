"""The first steps: what was typed is tried before it is stored, a first key, and the first request that arrives."""

from __future__ import annotations

import html
import re

import pytest

from llmgateway.web.context import EXTENSION
from tests.web.conftest import ADMIN_KEY, AZURE_KEY
from tests.web.dashboard.conftest import target_of

ADMIN = {"AdminKey": ADMIN_KEY}


@pytest.fixture
def app(make_app, azure):
    """Started with nothing but an admin key."""
    azure.reset()
    return make_app(LLM_BASE_URL="", LLM_API_KEY="", LLMGATEWAY_MODELS="")


@pytest.fixture
def owner(app, signed_in):
    return signed_in(app=app)


def settings(owner):
    return owner.client.get("/admin/settings", headers=ADMIN).json


def test_all_three_steps(app, owner, azure):
    """From nothing to an answer."""
    shown = owner.send_and_follow("first-run/azure", base_url=f"{azure.url}/openai/v1", key=AZURE_KEY, model="gpt-4o")
    assert "Azure answers at this address and accepts the key." in shown
    assert ("ok", f"{azure.url}/openai/v1") == (settings(owner)["azure_key"], settings(owner)["base_url"])

    made = owner.send("first-run/key", status=200, user="Ada Lovelace", name="thesis", model="gpt-4o", once="abc")
    key = re.search(r'<code id="secret">([^<]+)', made.text)[1]
    assert "no-store" == made.headers["Cache-Control"]
    assert '"model": "gpt-4o"' in html.unescape(made.text)
    assert key not in owner.open("first-run")
    assert 303 == owner.send("first-run/key", user="Ada Lovelace", once="abc").status_code
    assert 1 == len(owner.client.get("/admin/keys", headers=ADMIN).json["items"])

    assert "waiting" in owner.open("first-run")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
    answer = owner.client.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
    assert 200 == answer.status_code
    app.extensions[EXTENSION].journal.flush_soon()
    arrived = owner.open("first-run")
    assert "Ada Lovelace has asked gpt-4o" in arrived
    assert "hx-trigger" not in arrived
    assert AZURE_KEY not in shown + made.text + arrived


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"key": "not-the-key-of-azure"}, "refuses the key"),
        ({"key": AZURE_KEY, "model": "gpt-9"}, "There is no deployment"),
        ({"key": AZURE_KEY, "base_url": "https://portal.azure.com/#resource"}, "the address of a page"),
        ({"key": AZURE_KEY, "base_url": "https://ada:hunter2@n.openai.azure.com"}, "a user or a password"),
        ({"key": "", "base_url": "https://n.openai.azure.com"}, "Give the key of this resource"),
    ],
)
def test_what_does_not_work_is_not_stored(owner, azure, typed, says):
    """The doctor says what to change. The address stays in the form, the key does not."""
    sent = {"base_url": f"{azure.url}/openai/v1"} | typed
    answer = owner.send("first-run/azure", status=422, **sent)

    assert says in html.unescape(answer.text)
    assert (None, None) == (settings(owner)["base_url"], settings(owner)["stored"]["base_url"])
    assert not typed["key"] or typed["key"] not in answer.text
    assert "hunter2" not in answer.text
    if "base_url" not in typed:
        assert sent["base_url"] in answer.text


def test_it_can_be_stored_all_the_same(owner, azure):
    """Azure may be away for a moment."""
    owner.send("first-run/azure", base_url=f"{azure.url}/openai/v1", key="the-next-key", anyway="yes")

    assert f"{azure.url}/openai/v1" == settings(owner)["base_url"]


def test_only_the_key_is_missing(make_app, signed_in, azure):
    """The environment has the address; the form asks for the rest."""
    owner = signed_in(app=make_app(LLM_API_KEY=""))
    shown = owner.open("first-run")
    assert 'name="base_url"' not in shown
    owner.send("first-run/azure", key=AZURE_KEY)

    assert "ok" == settings(owner)["azure_key"]


def test_the_overview_of_nothing_leads_there(app, owner, new_key):
    """Until it is skipped, or a key is there."""
    answer = owner.client.get("/dashboard/")
    assert (303, "/dashboard/first-run") == (answer.status_code, target_of(answer))
    owner.send("first-run/skip")
    assert 200 == owner.client.get("/dashboard/").status_code
    assert "First steps" in owner.open("first-run")


def test_others_are_not_led_there(app, signed_in):
    """A viewer cannot take the steps, and sees no form."""
    fields = {"name": "Priya", "role": "viewer"}
    key = app.test_client().post("/admin/admins", json=fields, headers=ADMIN).json["key"]
    viewer = signed_in(key, app=app)

    assert 200 == viewer.client.get("/dashboard/").status_code
    assert 'name="base_url"' not in viewer.open("first-run")
    viewer.send("first-run/azure", status=403, base_url="https://n.openai.azure.com", key="x")
    viewer.send("first-run/key", status=403, user="ada")


def test_a_link_brings_no_command(owner, azure):
    """What it names as a model comes into a line for a terminal."""
    shown = owner.send("first-run/key", status=200, user="ada", model="x'; rm -rf ~ #")

    assert "rm -rf" not in shown.text

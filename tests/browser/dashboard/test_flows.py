"""What an admin does in a week, as a person does it: with pages and forms, on each kind of store."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import openai
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.dashboard.conftest import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MODEL = "gpt-4o-mini"
_NUMBERS = count(1)


@pytest.fixture
def name() -> str:
    """Of a person or a group that no other test has."""
    return f"somebody-{next(_NUMBERS)}"


@pytest.fixture
def page(request, site: Site, open_window) -> Page:
    """The browser of the owner, who has signed in. On one kind of store it runs no script: forms work without."""
    script = "sqlite" != request.node.callspec.params["stores"]
    return open_window(site, java_script_enabled=script).page


def ask(site: Site, key: str) -> str:
    """Ask with OpenAI's client, as the holder of a key does; return the id that the holder could read out."""
    with openai.OpenAI(base_url=f"{site.gateway.url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    return str(answer._request_id)


def refusal(site: Site, key: str) -> openai.APIStatusError:
    """What the holder is told."""
    with pytest.raises(openai.APIStatusError) as caught:
        ask(site, key)
    return caught.value


def change(site: Site, method: str, path: str, body: object) -> Any:
    answer = site.gateway.admin(method, path, json=body)
    assert answer.status < 300, answer.body
    return answer.json()


def menu(page: Page, label: str) -> Locator:
    return page.get_by_role("navigation").get_by_role("link", name=label, exact=True)


def told(page: Page) -> Locator:
    return page.get_by_role("status")


def test_a_key_is_handed_out_used_seen_and_blocked(site: Site, open_window, name):
    """The first request is seen in a list that follows, without anybody's doing."""
    page = open_window(site).page
    menu(page, "Keys").click()
    page.get_by_role("link", name="Hand out a key").click()
    page.get_by_label("User", exact=True).fill(name)
    page.get_by_role("button", name="Hand out").click()
    key = page.locator("#secret").inner_text()
    menu(page, "Requests").click()
    page.get_by_role("link", name="Follow", exact=True).click()
    mine = page.get_by_role("row", name=name)
    expect(page.get_by_text("every three seconds")).to_be_visible()
    expect(mine).to_have_count(0)

    request_id = ask(site, key)

    expect(mine).to_contain_text(MODEL)
    mine.get_by_role("link").first.click()
    expect(page).to_have_url(re.compile(f"/requests/{request_id}$"))
    page.get_by_role("link", name=re.compile("^key_")).click()
    page.get_by_role("button", name="Block").click()
    expect(told(page)).to_contain_text("Blocked")
    assert 401 == refusal(site, key).status_code
    assert key not in page.content()


def test_a_class_is_imported_after_its_bad_line_is_mended(site: Site, page: Page, name):
    """Nothing is stored before every line is right; then the keys can be saved."""
    change(site, "PUT", f"/admin/groups/{name}", {})
    keys = f"keys?group={name}"
    menu(page, "Class lists").click()

    page.get_by_label("File", exact=True).set_input_files(
        {"name": "class.csv", "mimeType": "text/csv", "buffer": b"user,expires_at\nada,2099-02-28\nalan,2099-02-30\n"}
    )
    page.get_by_label("Group of those").select_option(name)
    page.get_by_role("button", name="Look at it").click()
    expect(page.get_by_role("alert")).to_contain_text("1 line is not right")
    expect(page.get_by_role("row", name="alan")).to_contain_text("expires_at")
    expect(page.get_by_role("row", name="ada")).to_contain_text("new key")
    expect(page.get_by_role("button", name=re.compile("^Make"))).to_have_count(0)
    assert [] == site.ask(keys)["items"]

    page.get_by_label("Another file").set_input_files(
        {"name": "class.csv", "mimeType": "text/csv", "buffer": b"user,expires_at\nada,2099-02-28\nalan,2099-02-28\n"}
    )
    page.get_by_role("button", name="Look again").click()
    assert [] == site.ask(keys)["items"]
    page.get_by_role("button", name="Make 2 keys").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("2 new keys")
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as CSV").click()
    assert "keys.csv" == saved.value.suggested_filename
    lines = saved.value.path().read_text("utf-8-sig").splitlines()
    assert 3 == len(lines)
    assert {"ada", "alan"} == {each["user"] for each in site.ask(keys)["items"]}
    shown = page.get_by_role("row", name="ada").locator("code").inner_text()
    assert shown in lines[1]
    assert ask(site, shown)


def test_a_429_is_found_by_its_id_and_the_limit_is_raised_for_a_day(site: Site, page: Page, name):
    """The admin sees whose limit it was, what to do, and does it."""
    budget = {"amount": 1, "unit": "requests", "period": "month"}
    key = site.gateway.key(user=name, limits={"budget": budget})
    ask(site, key)
    refused = refusal(site, key)
    assert 429 == refused.status_code

    menu(page, "Requests").click()
    page.get_by_label("Id of one request").fill(refused.response.headers["x-request-id"])
    page.get_by_role("button", name="Show", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Refused request of {name}")
    expect(page.get_by_text("What to do:")).to_be_visible()
    expect(page.get_by_text("key.budget", exact=True)).to_be_visible()
    page.get_by_role("link", name="To the key").click()

    page.get_by_role("link", name="Raise for a while").click()
    page.get_by_label("Budget").fill("2")
    page.get_by_label("Until").fill((datetime.now(UTC) + timedelta(days=1)).date().isoformat())
    page.get_by_role("button", name="Raise", exact=True).click()

    expect(told(page)).to_contain_text("Raised.")
    expect(page.get_by_text("Raised until")).to_be_visible()
    expect(page.get_by_role("row", name="Budget per month")).to_contain_text("1 request / 2 requests")
    assert ask(site, key)
    assert 429 == refusal(site, key).status_code


def test_a_prompt_is_changed_and_its_difference_is_seen(site: Site, page: Page, name):
    """And what a person's request would say is looked at before anybody sends one."""
    site.gateway.key(user=name)
    menu(page, "Prompts").click()
    page.get_by_role("link", name="the organisation").click()
    for text in ("You teach.\nAnswer briefly.", f"You teach.\nAnswer {name} in full."):
        page.get_by_label("Prompt", exact=True).fill(text)
        page.get_by_role("button", name="Set", exact=True).click()
        expect(told(page)).to_be_visible()

    latest = page.get_by_role("article").first
    expect(latest).to_contain_text("in force")
    expect(latest.locator("del")).to_have_text("Answer briefly.")
    expect(latest.locator("ins")).to_have_text(f"Answer {name} in full.")
    page.get_by_role("link", name="Preview").click()
    page.get_by_label("Person").fill(name)
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#sent-1")).to_contain_text(f"Answer {name} in full.")


def test_a_group_is_closed_after_a_look_at_what_would_happen(site: Site, page: Page, name):
    """The dry run changes nothing; the list of members is shown at the end."""
    key = site.gateway.key(user=f"student-of-{name}", group=name)
    menu(page, "Groups").click()
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("link", name="Close the group").click()
    page.get_by_label("Its keys").select_option("remove")
    page.get_by_role("button", name="Show what would happen").click()
    expect(page.get_by_text("1 key is concerned. Nothing is changed yet.")).to_be_visible()
    assert ask(site, key)

    page.get_by_role("button", name="Close the group").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    expect(page.get_by_text(f"student-of-{name}")).to_be_visible()
    assert 401 == refusal(site, key).status_code
    assert 404 == site.gateway.admin("GET", f"/admin/groups/{name}").status


def test_a_demoted_admin_loses_the_pages_at_once(site: Site, open_window, name):
    """The owner changes the role in one browser, and the next click in the other does no more than it allows."""
    admin = change(site, "POST", "/admin/admins", {"name": name, "role": "admin"})
    theirs = open_window(site, sign_in=False)
    theirs.sign_in(admin["key"])
    menu(theirs.page, "Keys").click()
    theirs.page.get_by_role("link", name="Hand out a key").click()
    theirs.page.get_by_label("User", exact=True).fill(f"friend-of-{name}")

    owners = open_window(site).page
    menu(owners, "Admins").click()
    owners.get_by_role("link", name=name).click()
    owners.get_by_label("Role").select_option("viewer")
    owners.get_by_role("button", name="Change").click()
    expect(told(owners)).to_be_visible()

    theirs.page.get_by_role("button", name="Hand out").click()
    expect(theirs.page.locator("#secret")).to_have_count(0)
    assert [] == site.ask(f"keys?user=friend-of-{name}")["items"]
    theirs.page.goto("/dashboard/keys")
    expect(theirs.page.get_by_role("link", name="Hand out a key")).to_have_count(0)
    assert 403 == theirs.page.goto("/dashboard/keys/new").status


def test_signing_out_everywhere_ends_the_other_browser(site: Site, open_window, name):
    """After signing in again there, each page opens as it was; of a form that was sent nothing is stored."""
    site.gateway.key(user=name)
    here, form = open_window(site).page, open_window(site).page
    follows = form.context.new_page()
    follows.goto("/dashboard/requests?follow=on")
    form.goto(f"/dashboard/keys?q={name}&state=active")
    form.get_by_role("link", name="Hand out a key").click()
    form.get_by_label("User", exact=True).fill(f"friend-of-{name}")
    here.get_by_role("link", name="owner").click()
    here.get_by_text("Sign out everywhere").first.click()
    here.get_by_role("button", name="Sign out everywhere").click()
    expect(told(here)).to_have_text("You are signed out everywhere.")

    expect(follows).to_have_url(re.compile("/sign-in"))
    form.get_by_role("button", name="Hand out").click()
    expect(told(form)).to_contain_text("nothing was changed")
    for page in (form, follows):
        page.get_by_label("Key", exact=True).fill(site.gateway.admin_key)
        page.get_by_role("button", name="Sign in").click()

    expect(form).to_have_url(re.compile("/dashboard/keys/new$"))
    expect(follows).to_have_url(re.compile(r"/dashboard/requests\?follow=on$"))
    assert [] == site.ask(f"keys?user=friend-of-{name}")["items"]


def test_two_admins_on_one_form_notice_each_other(site: Site, open_window, name):
    """The second one keeps what was typed, sees what the first one has stored, and can go on from there."""
    made = site.gateway.new_key(user=name)
    first, second = open_window(site).page, open_window(site).page
    for page in (first, second):
        page.goto(f"/dashboard/keys/{made['id']}")
    first.get_by_label("Note").fill("asked by mail")
    first.get_by_role("button", name="Change", exact=True).click()
    expect(told(first)).to_contain_text("Changed.")

    second.get_by_label("Note").fill("asked by phone")
    with second.expect_navigation() as answered:
        second.get_by_role("button", name="Change", exact=True).click()

    assert 412 == answered.value.status
    alert = second.get_by_role("alert")
    expect(alert).to_contain_text("Somebody else has changed this")
    expect(alert).to_contain_text("asked by mail")
    expect(second.get_by_label("Note")).to_have_value("asked by phone")
    assert "asked by mail" == site.ask(f"keys/{made['id']}")["note"]
    second.get_by_role("link", name="Open the page again").click()
    second.get_by_label("Note").fill("asked by phone")
    second.get_by_role("button", name="Change", exact=True).click()
    expect(told(second)).to_contain_text("Changed.")
    assert "asked by phone" == site.ask(f"keys/{made['id']}")["note"]

"""``/docs`` as people meet it: real Swagger UI in a real browser, in front of a real gateway."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ADD_KEY = "admin-add_api_key"
CHAT = "users-create_chat_completion"


def authorize(page: Page, scheme: str, key: str) -> None:
    """Press Authorize and enter *key*, instead of the one that may be there."""
    page.locator(".auth-wrapper > .authorize").click()
    dialog = page.locator(".modal-ux")
    place = dialog.locator(".auth-container", has=page.get_by_role("heading", name=scheme))
    logout = place.get_by_role("button", name="Remove authorization")
    if logout.is_visible():
        logout.click()
    place.locator("input").fill(key)
    place.get_by_role("button", name="Apply credentials").click()
    expect(logout).to_be_visible()
    dialog.locator(".close-modal").click()


def open_operation(page: Page, name: str) -> Locator:
    operation = page.locator(f"#operations-{name}")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    return operation


def execute(operation: Locator) -> tuple[int, str]:
    """Press Execute, and return the status and the body as they are shown."""
    status = press_execute(operation)
    return status, operation.locator(".live-responses-table .response .highlight-code pre").first.inner_text()


def press_execute(operation: Locator) -> int:
    operation.get_by_role("button", name="Execute").click()
    status = operation.locator(".live-responses-table .response .response-col_status")
    status.wait_for()
    return int(status.inner_text().split()[0])


def test_shows_every_operation_and_asks_no_other_host(visit, trial):
    """The page is complete without internet, and the browser has nothing to complain about."""
    visit.page.goto("/docs")
    visit.page.locator(".opblock").first.wait_for()

    document = visit.page.request.get("/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path if operation != "parameters"]
    assert len(operations) == visit.page.locator(".opblock").count()
    assert {urlsplit(trial.url).netloc} == visit.hosts
    assert [] == visit.complaints


def test_tells_a_newcomer_what_to_do_first(visit):
    """Users come first, then admins; Azure's addresses are last. The first screen says what each of them does."""
    visit.page.goto("/docs")
    tags = visit.page.locator(".opblock-tag")
    tags.first.wait_for()

    assert ["users", "admin", "health", "metrics", "azure"] == [tag.get_attribute("data-tag") for tag in tags.all()]
    introduction = visit.page.locator(".info .description")
    for words in ("Users", "Admins", "Authorize", "Try it out", "userKey", "adminKey"):
        expect(introduction).to_contain_text(words)


def test_an_admin_hands_out_a_key_and_its_user_asks_a_question(visit, trial):
    """From the first look to the first answer, with nothing but the page."""
    page = visit.page
    page.goto("/docs")

    authorize(page, "adminKey", trial.admin_key)
    status, body = execute(open_operation(page, ADD_KEY))
    assert 201 == status
    new = json.loads(body)
    assert "ada" == new["user"]

    authorize(page, "userKey", new["key"])
    chat = open_operation(page, CHAT)
    status, body = execute(chat)
    assert 200 == status
    assert json.loads(body)["choices"][0]["message"]["content"]

    assert {urlsplit(trial.url).netloc} == visit.hosts
    assert [] == visit.complaints


def test_what_is_tried_out_first_succeeds(visit, trial):
    """Execute, without touching a field, on a gateway where nobody has set anything yet: keys, a class, a group."""
    visit.page.goto("/docs")
    authorize(visit.page, "adminKey", trial.admin_key)

    for name, status in (("create_key", 201), ("import_keys", 201), ("preview_prompt", 200), ("put_group", 422)):
        operation = open_operation(visit.page, f"admin-{name}")
        if name == "import_keys":  # in place of a file
            operation.locator("select.content-type").first.select_option("application/csv")
        assert status == press_execute(operation), name
        if name == "import_keys":  # a file to keep, as it is shown this once
            expect(operation.get_by_role("link", name="Download file")).to_be_visible()


def test_shows_an_answer_as_it_is_written(visit, trial):
    """The streamed example comes back as server-sent events, to the end."""
    visit.page.goto("/docs")
    authorize(visit.page, "userKey", trial.user_key)
    chat = open_operation(visit.page, CHAT)
    chat.locator(".opblock-section-request-body .examples-select select").select_option("streamed")
    expect(chat.locator("textarea")).to_have_value(re.compile('"stream": true'))

    status, body = execute(chat)

    assert 200 == status
    assert body.rstrip().endswith("data: [DONE]")


def test_a_wrong_key_is_shown_as_openai_shows_it(visit):
    """401, and an error object that says what to do."""
    visit.page.goto("/docs")
    authorize(visit.page, "userKey", "llmgw-not-a-key-of-anybody")

    status, body = execute(open_operation(visit.page, CHAT))

    assert 401 == status
    error = json.loads(body)["error"]
    assert {"message", "type", "param", "code"} == error.keys()
    assert "invalid_api_key" == error["code"]
    assert "admin" in error["message"]


def test_a_query_starts_with_what_finds_everything(visit, trial):
    """Execute without touching a field is the whole report, not somebody's empty one."""
    visit.page.goto("/docs")
    authorize(visit.page, "adminKey", trial.admin_key)

    with visit.page.expect_request("**/admin/usage*") as asked:
        status, body = execute(open_operation(visit.page, "admin-report_usage"))

    assert 200 == status
    assert {"by": ["month,user"], "format": ["json"]} == parse_qs(urlsplit(asked.value.url).query)
    assert {"rows", "total"} == json.loads(body).keys()


def test_a_link_opens_its_operation(visit):
    """What is open stands in the address, and can be sent to a colleague."""
    visit.page.goto("/docs#/admin/set_llm_key")

    expect(visit.page.locator("#operations-admin-set_llm_key").get_by_role("button", name="Try it out")).to_be_visible()
    assert 1 == visit.page.locator(".opblock.is-open").count()


def test_forgets_the_key_with_the_page(visit, trial):
    """Nothing is kept in the browser: the next reader of a shared computer has to enter a key again."""
    visit.page.goto("/docs")
    authorize(visit.page, "userKey", trial.user_key)

    stored = visit.page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")
    assert trial.user_key not in stored
    visit.page.reload()
    assert 401 == execute(open_operation(visit.page, CHAT))[0]


def test_cannot_be_put_into_a_frame(visit, trial):
    """A page of somebody else's cannot lay its own buttons over ours."""
    visit.page.goto("/livez")
    visit.page.set_content(f'<iframe src="{trial.url}/docs"></iframe>')

    frame = visit.page.frame_locator("iframe")
    expect(frame.locator("body")).to_be_attached()
    assert 0 == frame.locator("#docs").count()
    assert any("frame" in complaint for complaint in visit.complaints)

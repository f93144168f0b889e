"""The pages of keys: found, handed out, changed, blocked, replaced, removed; one by one and many at once."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import urlencode, urljoin

import pytest

from llmgateway.web.context import EXTENSION
from tests.web.conftest import ADMIN_KEY
from tests.web.test_limits import ask

from .conftest import SAME_SITE, target_of

HOSTILE = '<script>alert("x")</script>\N{RIGHT-TO-LEFT OVERRIDE}' + "\N{PILE OF POO}" * 20


def rows(text: str) -> list[str]:
    """The first cells of the list."""
    part = text.partition('id="list"')[2].partition("</main>")[0]
    return [unescape(name) for name in re.findall(r'<th scope="row"><a [^>]*>([^<]*)</a>', part)]


def hidden(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', text)
    assert found, name
    return unescape(found[1])


def shown_key(text: str) -> str:
    found = re.search(r'<code id="secret">([^<]*)</code>', text)
    assert found
    return found[1]


@pytest.fixture
def three(new_key, clock):
    """Ids by user."""
    ids = {}
    for user, fields in (("ada", {"group": "ml"}), ("bob", {"group": "physics"}), ("eve", {"active": False})):
        clock.advance(1)
        ids[user] = new_key(user=user, name=f"{user}s", **fields)["id"]
    return ids


class TestList:
    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("", ["ada", "bob", "eve"]),
            ("?q=BO", ["bob"]),
            ("?q=&group=ml&state=", ["ada"]),
            ("?state=blocked", ["eve"]),
            ("?sort=-user", ["eve", "bob", "ada"]),
            ("?q=nobody", []),
            ("?user=ada", ["ada"]),
            ("?page=2", []),
        ],
    )
    def test_finds(self, owner, three, query, found):
        assert found == rows(owner.open(f"keys{query}"))

    def test_has_pages(self, owner, new_key):
        for number in range(26):
            new_key(user=f"u{number:02}")
        text = owner.open("keys?sort=user&page=2")
        assert ["u25"] == rows(text)
        assert "26 keys, page 2 of 2" in text
        assert 'href="?sort=user&amp;page=1"' in text

    def test_keeps_its_order_when_somebody_searches(self, owner, three):
        """The order is a field of the form, which changes with the list."""
        text = owner.open("keys?sort=-user&user=ada")
        for field in ('name="sort" value="-user"', 'name="user" value="ada"'):
            assert f'<input type="hidden" form="filters" {field}>' in text.partition('id="list"')[2]

    def test_says_what_is_wrong_with_its_address(self, owner):
        assert "That did not work" in owner.open("keys?sort=colour", status=422)

    def test_shows_hostile_names_as_they_are(self, client, owner):
        """Older versions took names that are refused now."""
        keys = client.application.extensions[EXTENSION].keys
        made, _ = keys.create(user=HOSTILE, name=HOSTILE, note=HOSTILE)
        for path in ("keys", f"keys/{made.id}", "people", f"people/person?{urlencode({'user': HOSTILE})}"):
            text = owner.open(path)
            assert "<script>alert" not in text
            assert "&lt;script&gt;" in text
        assert HOSTILE in rows(owner.open("keys"))

    def test_is_exported_as_it_is_filtered(self, owner, three):
        lines = owner.open("keys/export?sort=-user&state=active").splitlines()
        assert ["bob", "ada"] == [line.split('","')[1] for line in lines[1:]]
        assert ";" in owner.open("keys/export?for=excel-de")


class TestOneKey:
    def test_is_handed_out_and_shown_once(self, client, owner, call):
        call("PUT", "/groups/ml", json={})
        form = owner.open("keys/new?user=ada&group=ml")
        assert 'value="ada"' in form
        fields = {
            "once": hidden(form, "once"),
            "user": "ada",
            "group": "ml",
            "name": "",
            "expires_at": "2030-01-31",
            "models": "gpt-4o, gpt-4o-mini",
            "limits.requests_per_minute": "30",
            "limits.budget.amount": "2.5",
            "limits.budget.unit": "usd",
            "limits.budget.period": "week",
        }
        answer = owner.send("keys/new", status=200, **fields)
        key = shown_key(answer.text)
        made = call("GET", "/keys")["items"][0]
        assert ("ada", "ml", ["gpt-4o", "gpt-4o-mini"]) == (made["user"], made["group"], made["models"])
        assert {"amount": 2.5, "unit": "usd", "period": "week"} == made["limits"]["budget"]
        assert made["expires_at"].startswith("2030-02-01T00:00:00")
        assert 200 == ask(client, key).status_code
        assert "no-store" in answer.headers["Cache-Control"]

        again = owner.send("keys/new", **fields)
        assert key not in client.get(target_of(again)).text
        assert 1 == call("GET", "/keys")["total"]
        assert key not in owner.open("keys") + owner.open(f"keys/{made['id']}")

    def test_says_at_the_field_what_is_wrong_and_keeps_what_was_typed(self, owner, call):
        answer = owner.send(
            "keys/new", status=422, user="a/b", email="nobody", **{"limits.requests_per_minute": "many"}
        )
        assert 'id="email-wrong"' in answer.text
        assert 'id="limits.requests_per_minute-wrong"' in answer.text
        assert 'value="many"' in answer.text
        assert 0 == call("GET", "/keys")["total"]

    def test_changes_only_what_was_typed_anew(self, owner, call, new_key, clock):
        """An end that has passed is left alone, and so is a limit that nobody has touched."""
        made = new_key(
            user="ada", note="a\nb", expires_at="2026-01-02", limits={"requests_per_minute": 3, "parallel_requests": 2}
        )
        clock.advance(86_400 * 3)
        owner.send("sign-in", key=ADMIN_KEY)
        text = owner.open(f"keys/{made['id']}")
        assert 'value="2026-01-02"' in text
        fields = {
            "etag": hidden(text, "etag"),
            "user": "ada",
            "name": made["name"],
            "group": "",
            "email": "",
            "note": "a\r\nb",
            "starts_at": "",
            "expires_at": "2026-01-02",
            "models": "",
            "limits.requests_per_minute": "3",
            "limits.tokens_per_minute": "500",
            "limits.parallel_requests": "",
            "limits.budget.amount": "",
            "limits.budget.unit": "usd",
            "limits.budget.period": "month",
        }
        assert "Changed" in owner.send_and_follow(f"keys/{made['id']}", **fields)
        after = call("GET", f"/keys/{made['id']}")
        assert {"requests_per_minute": 3, "tokens_per_minute": 500, "parallel_requests": None, "budget": None} == after[
            "limits"
        ]
        assert ("a\nb", made["expires_at"]) == (after["note"], after["expires_at"])
        assert ["limits"] == [*call("GET", "/audit")["items"][0]["after"]]

    def test_two_admins_notice_each_other(self, owner, call, three):
        key_id = three["ada"]
        tag = hidden(owner.open(f"keys/{key_id}"), "etag")
        call("PATCH", f"/keys/{key_id}", json={"note": "of the other one"})
        answer = owner.send(f"keys/{key_id}", status=412, etag=tag, user="ada", note="mine")
        assert "Somebody else has changed this" in answer.text
        assert "of the other one" in answer.text
        assert "mine" in answer.text
        assert "of the other one" == call("GET", f"/keys/{key_id}")["note"]

    def test_is_blocked_and_let_in(self, client, owner, new_key):
        made = new_key()
        assert "refused" in owner.send_and_follow(f"keys/{made['id']}/active", active="no")
        assert 401 == ask(client, made["key"]).status_code
        answer = owner.send(f"keys/{made['id']}/active", active="yes", back="keys?sort=user")
        assert target_of(answer).endswith("/dashboard/keys?sort=user")
        assert 200 == ask(client, made["key"]).status_code

    def test_is_replaced_with_an_overlap(self, client, owner, new_key):
        made = new_key()
        text = owner.open(f"keys/{made['id']}")
        fields = {"once": hidden(text, "once"), "etag": hidden(text, "etag"), "overlap": "3600"}
        answer = owner.send(f"keys/{made['id']}/rotate", status=200, **fields)
        assert 200 == ask(client, shown_key(answer.text)).status_code
        assert 200 == ask(client, made["key"]).status_code
        assert "opens the same until" in answer.text
        owner.send(f"keys/{made['id']}/rotate", **fields)
        assert 200 == ask(client, shown_key(answer.text)).status_code

    def test_is_removed(self, client, owner, new_key):
        made = new_key()
        assert "There are no keys yet" in owner.send_and_follow(f"keys/{made['id']}/remove")
        assert 401 == ask(client, made["key"]).status_code
        assert "no key with this id" in owner.open(f"keys/{made['id']}", status=404)

    def test_is_raised_for_a_while(self, owner, call, new_key):
        made = new_key(limits={"requests_per_minute": 3})
        path = f"keys/{made['id']}/raise"
        refused = owner.send(path, status=422, until="2001-01-01", **{"limits.requests_per_minute": "2"})
        assert 'id="until-wrong"' in refused.text
        assert 'id="limits.requests_per_minute-wrong"' in refused.text

        text = owner.send_and_follow(path, until="2030-01-01", **{"limits.requests_per_minute": "9"})
        assert "Raised until" in text
        assert 9 == call("GET", f"/keys/{made['id']}?include=remaining")["remaining"]["requests_per_minute"]["limit"]
        owner.send(f"{path}/end")
        assert call("GET", f"/keys/{made['id']}")["raise"] is None

    def test_shows_what_was_used_and_what_was_refused(self, client, owner, new_key):
        made = new_key(limits={"requests_per_minute": 1})
        assert [200, 429] == [ask(client, made["key"]).status_code for _ in range(2)]
        client.application.extensions[EXTENSION].refusals.close()
        text = owner.open(f"keys/{made['id']}")
        assert "refused: rate_limit_exceeded" in text
        assert "Cost per day by model" in text


class TestManyKeys:
    def test_are_shown_first_and_then_changed(self, owner, call, three):
        fields = {"filter.group": "ml", "filter.user": "", "filter.active": "", "action": "block"}
        preview = owner.send("keys/bulk", status=200, **fields)
        assert "1 key matches" in preview.text
        assert call("GET", f"/keys/{three['ada']}")["active"]

        done = owner.send_and_follow("keys/bulk", token=hidden(preview.text, "token"), **fields)
        assert "1 of 1 keys were changed" in done
        assert not call("GET", f"/keys/{three['ada']}")["active"]

    def test_that_match_by_now_are_shown_again(self, owner, call, three, new_key):
        fields = {"filter.group": "ml", "action": "remove"}
        token = hidden(owner.send("keys/bulk", status=200, **fields).text, "token")
        new_key(user="new", group="ml")
        again = owner.send("keys/bulk", status=409, token=token, **fields)
        assert "Other keys match" in again.text
        assert 2 == call("GET", "/keys?group=ml")["total"]
        owner.send("keys/bulk", token=hidden(again.text, "token"), **fields)
        assert 0 == call("GET", "/keys?group=ml")["total"]

    def test_need_a_filter_and_what_the_action_needs(self, owner, three):
        assert "Must name at least one field" in owner.send("keys/bulk", status=422, action="block").text
        wrong = owner.send("keys/bulk", status=422, action="move", **{"filter.user": "ada", "changes.group": "no"})
        assert 'id="changes.group-wrong"' in wrong.text


class TestRights:
    def test_a_viewer_sees_no_buttons(self, named, three):
        viewer = named("viewer")
        for path in ("keys", f"keys/{three['ada']}"):
            text = viewer.open(path)
            assert "Hand out" not in text
            assert "Remove" not in text
            assert "/active" not in text
        for path in ("keys/new", "keys/bulk", f"keys/{three['ada']}", f"keys/{three['ada']}/remove"):
            viewer.send(path, status=403, user="x", action="block", **{"filter.user": "ada"})

    def test_an_admin_of_a_group_sees_its_keys_alone(self, named, call, three):
        admin = named("group", "ml")
        assert ["ada"] == rows(admin.open("keys"))
        assert "physics" not in admin.open("keys")
        for path in (f"keys/{three['bob']}", f"keys/{three['eve']}/raise"):
            admin.open(path, status=404)
        for path in ("", "/active", "/remove", "/rotate", "/raise"):
            admin.send(f"keys/{three['bob']}{path}", status=404, active="no", until="2030-01-01")
        made = admin.send("keys/new", status=200, user="new", group="")
        assert "ml" == call("GET", "/keys?user=new")["items"][0]["group"]
        assert shown_key(made.text)
        admin.send("keys/new", status=422, user="new", group="physics")

    def test_a_forged_form_changes_nothing(self, client, owner, call, three):
        for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            answer = client.post(f"/dashboard/keys/{three['ada']}/remove", headers=headers)
            assert 403 == answer.status_code
        assert 3 == call("GET", "/keys")["total"]
        assert 303 == client.post(f"/dashboard/keys/{three['ada']}/remove", headers=SAME_SITE).status_code


@pytest.mark.parametrize("action", ["rotate", "remove"])
def test_the_page_can_be_opened_again_where_somebody_else_was_faster(owner, call, new_key, action):
    """Its address is not that to which the form was sent, which cannot be opened."""
    key_id = new_key(user="ada")["id"]
    path = f"/dashboard/keys/{key_id}"
    tag = hidden(owner.open(f"keys/{key_id}"), "etag")
    call("PATCH", f"/keys/{key_id}", json={"note": "faster"})

    headers = SAME_SITE | {"Referer": f"http://localhost{path}"}
    answer = owner.client.post(f"{path}/{action}", data={"etag": tag, "once": "x"}, headers=headers)

    assert 412 == answer.status_code
    (again,) = re.findall('<a href="([^"]*)">Open the page again', answer.text)
    assert path == urljoin(answer.request.path, again)

"""A hostile admin of one group tries to reach another: by every id, filter, cursor, file and report."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from llmgateway.records import moment
from llmgateway.web.context import EXTENSION
from tests.stores.contract import append, usage

SECRET = "canary of chemistry"
CONVERSATION = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
LIMITS = {
    "requests_per_minute": 60,
    "parallel_requests": 4,
    "budget": {"amount": 10, "unit": "usd", "period": "month"},
}


@pytest.fixture
def other(call, new_key):
    """A key in a group of somebody else, and everything about it has a canary in it."""
    call("PUT", "/groups/chemistry", json={"note": SECRET})
    key = new_key(group="chemistry", user="alan", note=SECRET, name=SECRET)
    call("PUT", "/prompt", json={"prompt": SECRET}, query_string={"group": "chemistry"})
    call("PUT", "/prompt", json={"prompt": SECRET}, query_string={"key": key["id"]})
    call("PUT", "/prompt", json={"prompt": f"{SECRET}, organisation"})
    return key


@pytest.fixture
def mine(call, new_key):
    call("PUT", "/groups/physics", json={"limits": LIMITS})
    return new_key(group="physics", user="ada")


@pytest.fixture
def loose(new_key):
    """A key without a group."""
    return new_key(user="eve", note=SECRET)


@pytest.fixture
def grace(call, client, mine, other, loose):
    """Call the admin API as the admin of physics alone."""
    made = call("POST", "/admins", status=201, json={"name": "Grace", "role": "group", "groups": ["physics"]})

    def as_grace(method: str, path: str, *, status: int = 200, headers=None, **arguments):
        headers = {"AdminKey": made["key"], **(headers or {})}
        answer = client.open(f"/admin{path}", method=method, headers=headers, **arguments)
        assert status == answer.status_code, (method, path, answer.text)
        assert SECRET not in answer.text, (method, path)
        for key in (other, loose):
            if key["id"] not in path:
                assert key["id"] not in answer.text, (method, path)
        return answer.json if answer.is_json and answer.text else answer.text

    return as_grace


@pytest.fixture
def records(client, clock, mine, other, loose):
    """Two records of each group, and one of none."""
    log = client.application.extensions[EXTENSION].usage_log
    made = [
        usage(
            number,
            timestamp=moment(clock()) + timedelta(seconds=number),
            key_id=key["id"],
            user=key["user"],
            group=key["group"],
            total_tokens=number,
            filter_severities=("hate:low",),
        )
        for number, key in enumerate([mine, other, loose, mine, other], 1)
    ]
    append(log, made)
    return made


def nothing_changed(call, key) -> None:
    before = {name: value for name, value in key.items() if name != "key"}
    assert before == call("GET", f"/keys/{key['id']}")


def test_a_foreign_key_is_as_good_as_none(call, grace, other, loose):
    """The same answer, to the letter, as for a key that nobody has; nothing is changed."""
    calls = [
        ("GET", "/keys/{}", None),
        ("PATCH", "/keys/{}", {}),
        ("PATCH", "/keys/{}", {"note": "mine"}),
        ("PATCH", "/keys/{}", {"group": "physics"}),
        ("PATCH", "/keys/{}", {"group": "nobody's", "limits": {"requests_per_minute": 1}}),
        ("POST", "/keys/{}/rotate", {}),
        ("DELETE", "/keys/{}", None),
        ("POST", "/keys/{}/raise", {"limits": {"requests_per_minute": 1}, "until": "2026-02-01"}),
        ("DELETE", "/keys/{}/raise", None),
        ("GET", "/prompt?key={}", None),
        ("PUT", "/prompt?key={}", {"prompt": "mine"}),
        ("DELETE", "/prompt?key={}", None),
        ("GET", "/prompt/versions?key={}", None),
    ]
    for method, path, body in calls:
        unknown = grace(method, path.format("key_nobody"), status=404, json=body)
        for key in (other, loose):
            assert unknown == grace(method, path.format(key["id"]), status=404, json=body), (method, path)
            assert unknown == grace(method, path.format(key["id"]), status=404, json=body, headers={"If-Match": "*"})
    for which in ({"id": "key_nobody"}, {"key": "a-key-that-nobody-has"}):
        unknown = grace("POST", "/removeapikey", status=404, json=which)
        for key in (other, loose):
            sent = {name: key[name] for name in which}
            assert unknown == grace("POST", "/removeapikey", status=404, json=sent)
    unknown = grace("POST", "/prompt/preview", status=404, json={"key": "key_nobody", **CONVERSATION})
    assert unknown == grace("POST", "/prompt/preview", status=404, json={"key": other["id"], **CONVERSATION})
    for key in (other, loose):
        nothing_changed(call, key)


def test_a_foreign_group_is_as_good_as_none(call, grace):
    calls = [
        ("GET", "/groups/{}", None),
        ("PATCH", "/groups/{}", {"note": "mine"}),
        ("PATCH", "/groups/{}", {"limits": None}),
        ("POST", "/groups/{}/revoke", None),
        ("POST", "/groups/{}/close", {"keys": "remove"}),
        ("POST", "/groups/{}/close", {"keys": "block", "dry_run": True}),
        ("GET", "/prompt?group={}", None),
        ("PUT", "/prompt?group={}", {"prompt": "mine"}),
        ("DELETE", "/prompt?group={}", None),
        ("GET", "/prompt/versions?group={}", None),
        ("GET", "/keys?group={}", None),
        ("GET", "/usage/filters?group={}", None),
        ("GET", "/usage/latency?group={}", None),
        ("GET", "/usage/hours?group={}", None),
        ("GET", "/usage/refusals?group={}", None),
        ("GET", "/logs?group={}", None),
        ("GET", "/groups/{}/statement?month=2026-01", None),
        ("GET", "/groups/{}/statement?month=2026-01&format=csv", None),
        ("GET", "/logs?kind=all&group={}", None),
        ("POST", "/prompt/preview", {"group": "{}", **CONVERSATION}),
    ]
    before = call("GET", "/groups/chemistry")
    for method, path, body in calls:
        unknown, foreign = (
            grace(
                method,
                path.format(name),
                status=404,
                json=body if body is None or "group" not in body else {**body, "group": name},
            )
            for name in ("nobody's", "chemistry")
        )
        assert unknown == foreign, (method, path)
    assert before == call("GET", "/groups/chemistry")
    assert "active" == ("active" if call("GET", "/keys?group=chemistry")["items"][0]["active"] else "revoked")


def test_what_is_the_organisations_is_forbidden(grace):
    """It is no secret that there is an organisation."""
    for method, path, body in (
        ("GET", "/prompt", None),
        ("PUT", "/prompt", {"prompt": "mine"}),
        ("DELETE", "/prompt", None),
        ("GET", "/prompt/versions", None),
        ("POST", "/setprompt", {"prompt": "mine"}),
        ("GET", "/limits", None),
        ("PATCH", "/limits", {}),
        ("GET", "/status", None),
        ("GET", "/models", None),
        ("PUT", "/groups/physics", {}),
        ("PUT", "/groups/art", {}),
        ("DELETE", "/groups/physics", None),
        ("GET", "/admins", None),
        ("GET", "/users", None),
        ("GET", "/users/ada", None),
        ("GET", "/users/ada/export", None),
        ("POST", "/users/ada/erase", {}),
        ("PUT", "/users/ada", {"limits": {}}),
        ("POST", "/groups/physics/raise", {"limits": {"requests_per_minute": 99}, "until": "2026-02-01"}),
        ("GET", "/settings", None),
        ("GET", "/self-service", None),
        ("PUT", "/self-service", {"without_group": {"keys": 1}}),
        ("PATCH", "/groups/physics", {"self_service": {"keys": 1}}),
        ("GET", "/alerts", None),
        ("GET", "/statements/2026-01", None),
        ("PUT", "/settings", {"timezone": "Europe/Berlin"}),
    ):
        assert "forbidden" == grace(method, path, status=403, json=body)["error"]["code"]


def test_lists_have_only_what_is_hers(grace, mine, other, loose):
    assert [mine["id"]] == [key["id"] for key in grace("GET", "/keys")["items"]]
    assert [mine["id"]] == [key["id"] for key in grace("GET", "/listkeys")]
    assert ["physics"] == [group["name"] for group in grace("GET", "/groups")["items"]]
    assert [mine["id"]] == [key["id"] for key in grace("GET", "/keys?group=physics")["items"]]
    for query in ("user=alan", "user=eve", "active=false"):
        assert [] == grace("GET", f"/keys?{query}")["items"]


def test_a_cursor_leads_nowhere_else(grace, mine, other, loose):
    """Any text as a cursor: only her keys, behind it or none."""
    for cursor in ("", "a", "zzz", "key_", mine["id"], other["id"], loose["id"]):
        found = grace("GET", "/keys", query_string={"cursor": cursor, "limit": 1})
        assert {key["id"] for key in found["items"]} <= {mine["id"]}
        assert found["next"] in (None, mine["id"])


def test_records_and_sums_are_hers(grace, call, records, mine, other):
    ids = [record.id for record in records]

    def found(**query: object) -> list[str]:
        return [record["id"] for record in grace("GET", "/logs", query_string=query)["items"]]

    assert [ids[3], ids[0]] == found()
    assert [] == found(key=other["id"]) == found(user="alan") == found(user="eve")
    assert [ids[0]] == found(cursor=ids[3])
    for foreign in (ids[1], ids[2], ids[4], "nobody"):
        assert [] == found(cursor=foreign)
    assert 5 == grace("GET", "/usage")["total"]["total_tokens"]
    for by in ("user", "key", "group", "model", "day", "month,user"):
        report = grace("GET", "/usage", query_string={"by": by})
        assert (2, 5) == (report["total"]["requests"], sum(row["total_tokens"] for row in report["rows"]))
        assert not {"alan", "eve", "chemistry"} & {str(value) for row in report["rows"] for value in row.values()}
    assert "alan" not in grace("GET", "/usage?by=user&format=csv")
    filters = grace("GET", "/usage/filters?by=user")
    assert ["ada"] == [row["user"] for row in filters["rows"]]
    assert 0 == grace("GET", "/usage/filters", query_string={"key": other["id"]})["total"]["requests"]
    assert 2 == grace("GET", "/usage/latency")["total"]["requests"]
    assert 2 == grace("GET", "/usage/hours")["all_requests"] == grace("GET", "/usage/hours")["counted_requests"]
    for query in ({"by": "cost_centre"}, {"tz": "utc"}, {"by": "week"}, {"start": "2026-01-01", "end": "2026-01-01"}):
        assert 5 == grace("GET", "/usage", query_string=query)["total"]["total_tokens"]
    statement = grace("GET", "/groups/physics/statement", query_string={"month": "2026-01"})
    assert (5, ["ada"]) == (statement["total"]["total_tokens"], [each["user"] for each in statement["persons"]])
    assert 15 == call("GET", "/usage")["total"]["total_tokens"]


def test_a_request_of_another_group_is_not_found(grace, call, client, records, other, mine, loose):
    """By our id or Azure's; nor a refusal, by its id or in the list."""
    unknown = grace("GET", "/logs/nobody", status=404)
    for record in records:
        hers = record.group == "physics"
        found = grace("GET", f"/logs/{record.id}", status=200 if hers else 404)
        assert hers or found == unknown
        listed = grace("GET", "/logs", query_string={"id": record.id, "kind": "all"})["items"]
        assert [record.id] * hers == [item["id"] for item in listed]
        assert call("GET", f"/logs/{record.id}")
    refused = {}
    for key in (mine, other, loose):
        call("PATCH", f"/keys/{key['id']}", json={"models": ["gpt-4o"]})
        answer = client.post("/v1/chat/completions", json=CONVERSATION, headers={"api-key": key["key"]})
        refused[key["id"]] = answer.headers["x-request-id"]
    client.application.extensions[EXTENSION].refusals.close()
    for key_id, id_ in refused.items():
        assert call("GET", f"/logs/{id_}")["key_id"] == key_id
        hers = key_id == mine["id"]
        found = grace("GET", f"/logs/{id_}", status=200 if hers else 404)
        assert hers or found == unknown
    for query in ({}, {"group": "physics"}, {"user": "ada"}):
        listed = grace("GET", "/logs", query_string={"kind": "refusal", **query})["items"]
        assert [refused[mine["id"]]] == [item["id"] for item in listed]
    for query in ({"key": other["id"]}, {"user": "alan"}, {"user": "eve"}, {"id": refused[other["id"]]}):
        assert [] == grace("GET", "/logs", query_string={"kind": "all", **query})["items"]
    for item in call("GET", "/logs?kind=all&limit=1000")["items"]:
        cursor = call("GET", "/logs", query_string={"kind": "all", "limit": 1, "until": item["timestamp"]})["next"]
        page = grace("GET", "/logs", query_string={"kind": "all", "cursor": cursor or ""})["items"]
        assert {each["group"] for each in page} <= {"physics"}


def test_a_raise_stays_below_the_groups(grace, call, mine):
    path = f"/keys/{mine['id']}"
    grace("PATCH", path, json={"limits": {"requests_per_minute": 30}})
    raised = {"limits": {"requests_per_minute": 60}, "until": "2026-02-01"}

    assert 60 == grace("POST", f"{path}/raise", json=raised)["raise"]["limits"]["requests_per_minute"]
    raised["limits"]["requests_per_minute"] = 61
    assert "limits" in grace("POST", f"{path}/raise", status=422, json=raised)["error"]["errors"]
    grace("DELETE", f"{path}/raise", status=204)
    assert ["key.raise", "key.raise"] == [
        entry["action"] for entry in grace("GET", "/audit")["items"] if entry["action"] == "key.raise"
    ]


def test_what_was_used_elsewhere_stays_there(client, grace, mine, clock):
    """A key that came into her group has records of another one."""
    log = client.application.extensions[EXTENSION].usage_log
    append(log, [replace(usage(9), key_id=mine["id"], user="ada", group="chemistry", total_tokens=9)])

    assert [] == grace("GET", "/logs", query_string={"key": mine["id"]})["items"]
    assert 0 == grace("GET", "/usage")["total"]["total_tokens"]


def test_the_audit_is_hers(grace, call, mine, other, new_key, clock):
    """Changes of her group and its keys, by anybody; not one that is also about another group."""
    clock.advance(1)
    call("POST", "/keys/import", status=201, data="user,group\na,physics\nb,chemistry\n", content_type="text/csv")
    moved = new_key(group="chemistry")
    clock.advance(1)
    call("PATCH", f"/keys/{moved['id']}", json={"group": "physics"})
    clock.advance(1)
    call("PATCH", f"/keys/{mine['id']}", json={"note": "x"})
    grace("PATCH", "/groups/physics", json={"note": "hers"})
    call("PUT", "/prompt", json={"prompt": "Be kind."}, query_string={"key": mine["id"]})

    entries = grace("GET", "/audit")["items"]

    actions = sorted((entry["action"], entry["target"]) for entry in entries)
    assert actions == sorted(
        [
            ("group.set", "physics"),
            ("group.set", "physics"),
            ("key.create", mine["id"]),
            ("key.update", mine["id"]),
            ("prompt.set", mine["id"]),
        ]
    )
    for target in (other["id"], "chemistry", moved["id"], ""):
        if target:
            assert [] == grace("GET", "/audit", query_string={"target": target})["items"]
    for cursor in [entry["id"] for entry in call("GET", "/audit")["items"]]:
        page = grace("GET", "/audit", query_string={"cursor": cursor})["items"]
        assert {entry["id"] for entry in page} <= {entry["id"] for entry in entries}


def test_she_makes_keys_in_her_group(call, grace):
    """Also where she names none: it is her only one. Elsewhere is as good as nowhere."""
    for path, body in (
        ("/keys", {"user": "b", "group": "physics"}),
        ("/keys", {"user": "b"}),
        ("/addapikey", {"user": "b"}),
        ("/keys", {"user": "b", "group": None}),
    ):
        assert "physics" == grace("POST", path, status=201, json=body)["group"]
    unknown, foreign = (
        grace("POST", "/keys", status=422, json={"user": "b", "group": name}) for name in ("nobody's", "chemistry")
    )
    assert unknown == foreign
    assert ["group"] == [*unknown["error"]["errors"]]
    assert 1 == len(call("GET", "/keys?group=chemistry")["items"])


def test_a_file_reaches_no_other_group(call, grace):
    """Each line is checked; nothing is stored if one is wrong."""
    file = "user,group,requests_per_minute\na,physics,\nb,chemistry,\nc,,\nd,nobody's,\ne,physics,61\n"

    refused = grace("POST", "/keys/import", status=422, data=file, content_type="text/csv")

    errors = refused["error"]["errors"]
    assert {"line 3", "line 5", "line 6"} == {*errors}
    assert errors["line 3"] == errors["line 5"]
    assert ["requests_per_minute"] == [*errors["line 6"]]
    assert 1 == len(grace("GET", "/keys")["items"])
    made = grace("POST", "/keys/import", status=201, data="user,group\na,physics\nc,\n", content_type="text/csv")
    assert ["physics", "physics"] == re.findall("physics", made)


def test_many_keys_at_once_are_hers(call, grace, mine, other, loose):
    """Whatever the filter selects, and wherever they should go."""
    for wanted in ({"all": True}, {"user": "ada"}, {"active": True}, {"group": "physics"}):
        preview = grace("POST", "/keys/bulk", json={"filter": wanted, "action": "remove"})
        assert [mine["id"]] == [item["id"] for item in preview["items"]]
    for wanted in ({"user": "alan"}, {"user": "eve"}):
        assert 0 == grace("POST", "/keys/bulk", json={"filter": wanted, "action": "remove"})["count"]
    unknown, foreign = (
        grace("POST", "/keys/bulk", status=422, json={"filter": {"group": name}, "action": "block"})
        for name in ("nobody's", "chemistry")
    )
    assert unknown == foreign
    move = {"filter": {"all": True}, "action": "move"}
    unknown, foreign = (
        grace("POST", "/keys/bulk", status=422, json={**move, "changes": {"group": name}})
        for name in ("nobody's", "chemistry")
    )
    assert unknown == foreign
    grace("POST", "/keys/bulk", status=403, json={**move, "changes": {"group": None}})
    block = {"filter": {"all": True}, "action": "block"}
    everybody = call("POST", "/keys/bulk", json=block)
    grace("POST", "/keys/bulk", status=422, json={**block, "token": everybody["token"]})  # another's preview
    done = grace("POST", "/keys/bulk", json={**block, "token": grace("POST", "/keys/bulk", json=block)["token"]})
    assert [mine["id"]] == [item["id"] for item in done["items"]]
    for key in (other, loose):
        nothing_changed(call, key)
    assert "key.bulk" in {entry["action"] for entry in grace("GET", "/audit")["items"]}


def test_she_closes_her_group(call, grace, mine, other):
    """Its keys go nowhere else; and then she manages nothing."""
    unknown, foreign = (
        grace("POST", "/groups/physics/close", status=422, json={"keys": {"move_to": name}})
        for name in ("nobody's", "chemistry")
    )
    assert unknown == foreign
    assert 1 == grace("POST", "/groups/physics/close", json={"keys": "remove", "dry_run": True})["count"]
    assert [mine["id"]] == [
        item["id"] for item in grace("POST", "/groups/physics/close", json={"keys": "remove"})["items"]
    ]
    assert [] == grace("GET", "/groups")["items"] == grace("GET", "/keys")["items"]
    nothing_changed(call, other)
    call("PUT", "/groups/physics", json={})
    grace("GET", "/groups/physics", status=404)


def test_an_admin_of_several_groups_names_one(call, client, grace):
    call("PUT", "/groups/maths", json={})
    key = call("POST", "/admins", status=201, json={"name": "Ada", "role": "group", "groups": ["physics", "maths"]})[
        "key"
    ]

    def post(**body):
        return client.post("/admin/keys", json={"user": "b", **body}, headers={"AdminKey": key})

    assert "maths, " not in post(group="maths").text
    assert "Name one of your groups: physics, maths" in post().text
    made = post(group="maths").json
    moved = client.patch(f"/admin/keys/{made['id']}", json={"group": "physics"}, headers={"AdminKey": key})
    assert "physics" == moved.json["group"]
    too_much = client.patch(
        f"/admin/keys/{made['id']}", json={"limits": {"requests_per_minute": 61}}, headers={"AdminKey": key}
    )
    assert 422 == too_much.status_code


def test_keys_stay_in_her_groups(call, grace, mine):
    path = f"/keys/{mine['id']}"
    assert "forbidden" == grace("PATCH", path, status=403, json={"group": None})["error"]["code"]
    unknown, foreign = (grace("PATCH", path, status=422, json={"group": name}) for name in ("nobody's", "chemistry"))
    assert unknown == foreign
    nothing_changed(call, mine)


@pytest.mark.parametrize(
    ("limits", "wrong"),
    [
        ({"requests_per_minute": 60}, None),
        ({"requests_per_minute": 61}, "requests_per_minute"),
        ({"parallel_requests": 5}, "parallel_requests"),
        ({"tokens_per_minute": 10**9}, None),
        ({"budget": {"amount": 10, "unit": "usd", "period": "month"}}, None),
        ({"budget": {"amount": 10.01, "unit": "usd", "period": "month"}}, "budget"),
        ({"budget": {"amount": 10.01, "unit": "usd", "period": "day"}}, "budget"),
        ({"budget": {"amount": 500, "unit": "usd", "period": "total"}}, None),
        ({"budget": {"amount": 10**6, "unit": "tokens", "period": "month"}}, None),
        ({"requests_per_minute": None}, None),
        (None, None),
    ],
)
def test_no_limit_is_above_the_groups(grace, mine, limits, wrong):
    """Where the group has one. Without a limit of its own a key has those of its group in any case."""
    status = 200 if wrong is None else 422
    changed = grace("PATCH", f"/keys/{mine['id']}", status=status, json={"limits": limits})
    made = grace("POST", "/keys", status=201 if wrong is None else 422, json={"user": "b", "limits": limits})

    if wrong is not None:
        for answer in (changed, made):
            assert [wrong] == [*answer["error"]["errors"]["limits"]]


def test_says_what_the_group_has_and_who_may_do_more(call, grace, mine):
    """In words, also of a budget that never renews, and of several roles."""
    call("PATCH", "/groups/physics", json={"limits": {"budget": {"amount": 1500, "unit": "usd", "period": "total"}}})
    limits = {"budget": {"amount": 1501, "unit": "usd", "period": "total"}}
    refused = grace("PATCH", f"/keys/{mine['id']}", status=422, json={"limits": limits})
    [[problem]] = refused["error"]["errors"]["limits"].values()
    assert "Must not be more than the group has: 1,500 usd in total." == problem

    message = grace("GET", "/limits", status=403)["error"]["message"]
    assert "it must be owner, admin or viewer: ask an owner" in message


def test_a_limit_that_somebody_else_gave_stays(call, grace, mine):
    """She may send it back with other changes, and lower it; then not raise it again."""
    path = f"/keys/{mine['id']}"
    call("PATCH", path, json={"limits": {"requests_per_minute": 100}})

    grace("PATCH", path, json={"note": "x", "limits": {"requests_per_minute": 100}})
    grace("PATCH", path, json={"limits": {"requests_per_minute": 30}})
    grace("PATCH", path, status=422, json={"limits": {"requests_per_minute": 100}})


def test_what_she_may_do_in_her_group(call, grace, mine):
    """Note, prompt, revoke, and everything about keys."""
    assert "hers" == grace("PATCH", "/groups/physics", json={"note": "hers"})["note"]
    for body in ({"limits": None}, {"note": "x", "expires_at": "2027-01-01"}, {"models": None}):
        grace("PATCH", "/groups/physics", status=403, json=body)
    set_ = grace("PUT", "/prompt", json={"prompt": "Be kind."}, query_string={"group": "physics"})
    assert "Be kind." == set_["prompt"]
    preview = {"group": "physics", **CONVERSATION}
    assert "Be kind." in str(grace("POST", "/prompt/preview", json=preview))
    assert 1 == len(grace("GET", "/prompt/versions?group=physics")["items"])
    grace("POST", f"/keys/{mine['id']}/rotate", json={"overlap_seconds": 60})
    assert {"revoked": 1} == grace("POST", "/groups/physics/revoke")
    assert grace("PATCH", f"/keys/{mine['id']}", json={"active": True})["active"]
    grace("DELETE", f"/keys/{mine['id']}", status=204)


def test_the_organisations_prompt_is_not_hers_to_read(grace, mine):
    """Where it is in force in her group, its text is withheld."""
    for query in ("group=physics", f"key={mine['id']}"):
        assert None is grace("GET", f"/prompt?{query}")["prompt"]
        assert "mine" == grace("PUT", f"/prompt?{query}", json={"prompt": "mine"})["prompt"]
        assert None is grace("DELETE", f"/prompt?{query}")["prompt"]
    preview = {"group": "physics", **CONVERSATION}
    grace("POST", "/prompt/preview", status=403, json=preview)


def test_a_name_says_nothing_about_other_groups(call, grace, client, other):
    """A name with a hidden character is allowed to people who have a key: whether they do elsewhere is not told."""
    odd = "al\u200ban"
    keys = client.application.extensions[EXTENSION].keys
    keys.create(user=odd, name="old", group="chemistry")
    unknown = grace("POST", "/keys", status=422, json={"user": "al\u200bbert"})

    assert [*unknown["error"]["errors"]] == [*grace("POST", "/keys", status=422, json={"user": odd})["error"]["errors"]]
    call("POST", "/keys", status=201, json={"user": odd})


def test_nobody_uses_up_what_others_gave_a_person(call, grace, mine):
    """A key under the name of somebody with own limits would. Who has a key in her group already may get more."""
    for user in ("alan", "ada"):
        call("PUT", f"/users/{user}", json={"limits": {"budget": {"amount": 5, "unit": "usd", "period": "month"}}})

    for method, path, body in (
        ("POST", "/keys", {"json": {"user": "alan"}}),
        ("POST", "/addapikey", {"json": {"user": "alan"}}),
        ("PATCH", f"/keys/{mine['id']}", {"json": {"user": "alan"}}),
        ("POST", "/keys/import", {"data": "user\nalan\n", "content_type": "text/csv"}),
    ):
        assert "user" in str(grace(method, path, status=422, **body)["error"]["errors"])
    assert "ada" == grace("POST", "/keys", status=201, json={"user": "ada"})["user"]
    call("POST", "/keys", status=201, json={"user": "alan", "group": "physics"})
    assert "alan" == grace("POST", "/keys", status=201, json={"user": "alan"})["user"]


def test_a_key_that_leaves_while_she_writes_is_safe(client, grace, call, mine, monkeypatch):
    """The key is checked once more in the step that changes it."""
    keys = client.application.extensions[EXTENSION].keys
    update = keys.update

    def moved_first(key_id, changes, **arguments):
        if "note" in changes:
            update(key_id, {"group": "chemistry"})
        return update(key_id, changes, **arguments)

    monkeypatch.setattr(keys, "update", moved_first)
    grace("PATCH", f"/keys/{mine['id']}", status=404, json={"note": "too late"})

    assert None is call("GET", f"/keys/{mine['id']}")["note"]


@pytest.mark.parametrize("limits", [{"requests_per_minute": 61}, {"budget": {**LIMITS["budget"], "amount": 11}}])
def test_keys_bring_no_higher_limits_from_another_group(call, client, mine, limits):
    """Whichever way they are moved: one, many, or all at the end of their group. The same for what is raised."""
    call("PUT", "/groups/maths", json={})
    key = call("POST", "/admins", status=201, json={"name": "Ada", "role": "group", "groups": ["physics", "maths"]})[
        "key"
    ]

    def as_ada(method, path, **body):
        answer = client.open(f"/admin{path}", method=method, json=body, headers={"AdminKey": key})
        return answer.status_code, answer.json

    def moves():
        move = {"filter": {"group": "maths"}, "action": "move", "changes": {"group": "physics"}}
        yield as_ada("PATCH", f"/keys/{made['id']}", group="physics")
        yield as_ada("POST", "/groups/maths/close", keys={"move_to": "physics"}, dry_run=True)
        yield as_ada("POST", "/groups/maths/close", keys={"move_to": "physics"})
        yield as_ada("POST", "/keys/bulk", **move)
        token = call("POST", "/keys/bulk", json=move)["token"]
        yield as_ada("POST", "/keys/bulk", **move, token=token)

    status, made = as_ada("POST", "/keys", user="b", group="maths", limits=limits)
    assert 201 == status
    refused = [*moves()]
    assert {422} == {status for status, _ in refused}
    assert all(made["id"] in str(answer) for _, answer in refused[1:])
    lower = {"requests_per_minute": 10, "budget": {**LIMITS["budget"], "amount": 1}}
    assert 200 == as_ada("PATCH", f"/keys/{made['id']}", limits=lower)[0]
    assert 200 == as_ada("POST", f"/keys/{made['id']}/raise", limits=limits, until="2026-03-01")[0]
    assert {422} == {status for status, _ in moves()}
    assert "maths" == call("GET", f"/keys/{made['id']}")["group"]
    call("DELETE", f"/keys/{made['id']}/raise", status=204)
    assert 200 == as_ada("POST", "/groups/maths/close", keys={"move_to": "physics"})[0]
    assert "physics" == call("GET", f"/keys/{made['id']}")["group"]


@pytest.mark.parametrize("action", ["block", "move", "remove"])
def test_keys_that_leave_while_she_changes_many_are_safe(client, grace, call, mine, new_key, monkeypatch, action):
    """Also at the end of a group: somebody has just moved one of its keys, which stays as it is there."""
    stays = new_key(group="physics", user="b")
    order = {"filter": {"all": True}, "action": action}
    if action == "move":
        call("PUT", "/groups/maths", json={})
        call("PATCH", f"/admins/{call('GET', '/admins')['items'][0]['id']}", json={"groups": ["physics", "maths"]})
        order["changes"] = {"group": "maths"}
    order["token"] = grace("POST", "/keys/bulk", json=order)["token"]
    keys = client.application.extensions[EXTENSION].keys
    leave_before(keys, mine["id"], monkeypatch)

    done = grace("POST", "/keys/bulk", json=order)

    assert [stays["id"]] == [item["id"] for item in done["items"]]
    assert ("chemistry", True) == (lambda key: (key["group"], key["active"]))(call("GET", f"/keys/{mine['id']}"))


@pytest.mark.parametrize("fate", ["block", {"move_to": "maths"}, "remove"])
def test_a_key_that_leaves_while_its_group_ends_is_safe(client, call, mine, other, new_key, monkeypatch, fate):
    call("PUT", "/groups/maths", json={})
    stays = new_key(group="physics", user="b")
    leave_before(client.application.extensions[EXTENSION].keys, mine["id"], monkeypatch)

    closed = call("POST", "/groups/physics/close", json={"keys": fate})

    assert [stays["id"]] == [item["id"] for item in closed["items"]]
    assert ("chemistry", True) == (lambda key: (key["group"], key["active"]))(call("GET", f"/keys/{mine['id']}"))


def leave_before(keys, key_id, monkeypatch) -> None:
    """Let a key leave its group between the moment when many were selected and the one when they are changed."""
    for name in ("update_all", "remove_all"):
        method = getattr(keys, name)

        def late(*arguments, method=method, **options):
            keys.update(key_id, {"group": "chemistry"})
            return method(*arguments, **options)

        monkeypatch.setattr(keys, name, late)


def test_a_refusal_belongs_to_the_group_in_which_it_was(client, grace, call, mine):
    """Also if the key was refused in her group a moment before, and is in another one now."""

    def refuse() -> str:
        answer = client.post(
            "/v1/chat/completions", json=CONVERSATION, headers={"Authorization": f"Bearer {mine['key']}"}
        )
        assert 401 == answer.status_code
        return answer.headers["x-request-id"]

    call("PATCH", f"/keys/{mine['id']}", json={"active": False})
    first = refuse()
    call("PATCH", f"/keys/{mine['id']}", json={"group": "chemistry"})
    later = refuse()

    assert "chemistry" == call("GET", f"/logs/{later}")["group"]
    grace("GET", f"/logs/{later}", status=404)
    assert 1 == grace("GET", f"/logs/{first}")["count"]

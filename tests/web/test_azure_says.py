"""What Azure says about itself: in records, in the status, in the metrics and in the log."""

from __future__ import annotations

import json
import logging

import pytest

from llmgateway.simulator import Raw, Script
from llmgateway.web.context import EXTENSION
from tests.web.conftest import ADMIN_KEY

from .conftest import AZURE_KEY

ADMIN = {"AdminKey": ADMIN_KEY}
QUOTA = {"x-ratelimit-limit-tokens": "120000", "x-ratelimit-limit-requests": "120"}


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture
def client(app):
    return app.test_client()


def ask(client, user, **fields):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return client.post("/v1/chat/completions", json=body, headers=user)


def last_record(app, client):
    assert app.extensions[EXTENSION].journal.flush()
    return client.get("/admin/logs?limit=1", headers=ADMIN).json["items"][0]


def only_deployment(client):
    (state,) = client.get("/admin/status", headers=ADMIN).json["deployments"]
    return state


@pytest.mark.parametrize(
    ("fault", "fields", "code"),
    [
        ("token_rate_limit", {}, "rate_limit_tokens"),
        ("token_rate_limit_newer", {}, "rate_limit_tokens"),
        ("token_rate_limit_2023", {}, "rate_limit_tokens"),
        ("call_rate_limit", {}, "rate_limit_requests"),
        ("capacity", {"max_tokens": 4000}, "capacity"),
        ("token_estimate", {"max_tokens": 4000}, "rate_limit_estimate"),
        ("token_estimate", {"max_tokens": 10}, "rate_limit_tokens"),
    ],
)
def test_a_429_says_which_limit_it_was(app, client, user, azure, caplog, fault, fields, code):
    """In the record, in the status, in the metrics, and in the log with a remedy, once a minute."""
    azure.script(Script(fault=fault), times=2)

    with caplog.at_level(logging.WARNING, logger="llmgateway"):
        assert [429, 429] == [ask(client, user, **fields).status_code for _ in range(2)]

    assert code == last_record(app, client)["error_code"]
    assert (429, code) == tuple(only_deployment(client)["last_error"][name] for name in ("status", "code"))
    (line,) = [each for each in caplog.messages if "429" in each]
    assert f"Azure answered 429 ({code}) for the deployment gpt-4o. " in line
    assert f'limit="{code}"' in client.get("/metrics", headers=ADMIN).text


def test_a_lowered_quota_is_told_until_it_is_as_high_again(app, client, user, azure, caplog, clock):
    """In the log, in the status and in the metrics; the record says that this is the limit that was reached."""
    assert 200 == ask(client, user).status_code
    before = only_deployment(client)
    clock.advance(1)
    azure.script(Script(fault="adjusted_limit"))
    with caplog.at_level(logging.WARNING, logger="llmgateway"):
        assert 429 == ask(client, user).status_code
    lowered = only_deployment(client)
    warnings = client.get("/admin/status", headers=ADMIN).json["warnings"]
    metrics = client.get("/metrics", headers=ADMIN).text
    limit = before["quota"]["limit_tokens"]

    assert before["quota_lowered"] is None
    assert (12000, limit) == (lowered["quota"]["limit_tokens"], lowered["quota_lowered"]["before"]["limit_tokens"])
    said = f"12000 tokens per minute instead of {limit}"
    assert [True] == [said in warning for warning in warnings]
    assert 1 == sum("Azure has lowered the quota" in line and said in line for line in caplog.messages)
    assert "rate_limit_lowered" == last_record(app, client)["error_code"]
    assert [1.0] == values(metrics, "llmgateway_deployment_limit_lowered")
    assert 200 == ask(client, user).status_code
    assert only_deployment(client)["quota_lowered"] is None
    assert [] == client.get("/admin/status", headers=ADMIN).json["warnings"]


def values(text, name):
    return [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name}{{")]


def test_the_quota_of_a_deployment_is_a_gauge(app, client, user, azure):
    """With its name and its resource."""
    assert 200 == ask(client, user).status_code
    quota, region = only_deployment(client)["quota"], only_deployment(client)["region"]
    text = client.get("/metrics", headers=ADMIN).text

    labels = f'deployment="gpt-4o",resource="{azure.url.removeprefix("http://")}"'
    for unit in ("requests", "tokens"):
        assert f'llmgateway_deployment_limit{{{labels},unit="{unit}"}} {float(quota[f"limit_{unit}"])}' in text
        assert f'llmgateway_deployment_remaining{{{labels},unit="{unit}"}} ' in text
    assert region


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(fault="content_filter"), 400, "content_filter"),
        (Script(fault="content_filter_newer"), 400, "content_filter"),
        (Script(fault="deployment_not_found"), 404, "DeploymentNotFound"),
        (Script(fault="not_found"), 404, "404"),
        (Script(fault="operation_not_supported"), 400, "OperationNotSupported"),
        (Script(fault="unauthorized"), 502, "upstream_credentials"),
        (Script(reset=True, cut_after_bytes=0), 502, "upstream_unreachable"),
        (Script(), 200, None),
    ],
)
def test_the_record_has_the_code_of_the_error(app, client, user, azure, script, status, code):
    """Azure's if it has one, or the gateway's own."""
    azure.script(script)

    assert status == ask(client, user).status_code
    assert code == last_record(app, client)["error_code"]


def test_the_record_has_the_code_of_an_error_in_a_stream(app, client, user, azure):
    """The status is 200, so nothing else tells."""
    azure.script(Script(error_event_after=2))
    list(ask(client, user, stream=True).response)

    record = last_record(app, client)
    assert ("upstream_error", True) == (record["outcome"], bool(record["error_code"]))


FILTERED = {
    "model": "gpt-4o-2024-11-20",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": 'He hit the "low" note.'},
            "content_filter_results": {
                "hate": {"filtered": False, "severity": "safe"},
                "violence": {"filtered": False, "severity": "low"},
            },
        }
    ],
    "prompt_filter_results": [
        {
            "prompt_index": 0,
            "content_filter_results": {
                "jailbreak": {"detected": True, "filtered": False},
                "violence": {"filtered": False, "severity": "medium"},
            },
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
}


def raw_answer(document):
    return Script(raw=Raw(200, {"content-type": "application/json"}, json.dumps(document).encode()))


def test_severities_are_counted_by_key_and_group(app, client, new_key, azure):
    """Also what Azure let pass, and without any text."""
    keys = [new_key(group="ml"), new_key()]
    for number, key in enumerate(keys):
        azure.script(raw_answer(FILTERED), times=number + 1)
        for _ in range(number + 1):
            assert 200 == ask(client, {"Authorization": f"Bearer {key['key']}"}).status_code
    assert 200 == ask(client, {"Authorization": f"Bearer {keys[0]['key']}"}).status_code

    record = next(each for each in records(app, client) if each["content_filter"])
    assert ["jailbreak"] == record["content_filter"]
    assert ["jailbreak:found", "violence:medium"] == record["filter_severities"]
    report = client.get("/admin/usage/filters", headers=ADMIN).json
    assert {"requests": 3, "fired": 3} == report["total"]
    assert [
        {"category": "jailbreak", "severity": "found", "requests": 3, "fired": 3},
        {"category": "violence", "severity": "medium", "requests": 3, "fired": 0},
    ] == report["rows"]
    rows = client.get("/admin/usage/filters?by=group,category", headers=ADMIN).json["rows"]
    assert [(None, 2), (None, 2), ("ml", 1), ("ml", 1)] == [(row["group"], row["requests"]) for row in rows]
    rows = client.get(f"/admin/usage/filters?by=key&key={keys[1]['id']}", headers=ADMIN).json["rows"]
    assert [{"key": keys[1]["id"], "requests": 2, "fired": 2}] == rows
    assert [] == client.get("/admin/usage/filters?end=2025-12-31", headers=ADMIN).json["rows"]
    assert 422 == client.get("/admin/usage/filters?by=text", headers=ADMIN).status_code


def records(app, client):
    assert app.extensions[EXTENSION].journal.flush()
    return client.get("/admin/logs", headers=ADMIN).json["items"]


COMPLETION = {
    "model": "gpt-4o-2024-11-20",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 1, "total_tokens": 1_000_001},
    "service_tier": "default",
}
SPILLED = {
    "x-ms-is-spilled-over": "true",
    "x-ms-deployment-name": "paygo",
    "x-ms-spillover-from-deployment": "gpt-4o",
    "x-ratelimit-limit-tokens": "7",
}


def spill(azure, headers):
    body = json.dumps(
        COMPLETION | {"usage": {"prompt_tokens": 10**6, "completion_tokens": 1, "total_tokens": 10**6 + 1}}
    )
    azure.script(Script(raw=Raw(200, {"content-type": "application/json", **headers}, body.encode())))


def test_what_has_spilled_over_costs_what_the_other_deployment_costs(app, client, user, azure, clock):
    """The tokens of a provisioned deployment are free, those of the other one are not; and its quota is another."""
    for name, price in (("gpt-4o", 0.0), ("paygo", 3.0)):
        prices = {"prices": {"prompt": price, "cached": price, "completion": price}}
        assert 200 == client.put(f"/admin/models/{name}", json=prices, headers=ADMIN).status_code
    records = []
    for headers in (SPILLED, {"x-ms-is-spilled-over": "false", "x-ms-deployment-name": "gpt-4o"}):
        clock.advance(1)
        spill(azure, headers)
        assert 200 == ask(client, user).status_code
        records.append(last_record(app, client))

    assert [(True, "default", pytest.approx(3.000003)), (False, "default", 0.0)] == [
        (record["spilled_over"], record["service_tier"], record["cost_usd"]) for record in records
    ]
    assert 7 != (only_deployment(client)["quota"] or {}).get("limit_tokens")


@pytest.mark.parametrize(("fault", "code"), [("capacity", "capacity"), ("call_rate_limit", "rate_limit_requests")])
def test_each_attempt_says_why_it_failed(make_app, azure, fault, code):
    """Also if another deployment has answered; the status says until when the first one rests, and why."""
    client = make_app(LLM_BASE_URL="none").test_client()
    app = client.application
    url = f"{azure.url}/openai/v1"
    places = [("east", "gpt-4o", 1), ("west", "gpt-4o-mini", 2)]
    deployments = [
        {"name": name, "base_url": url, "deployment": deployment, "priority": priority, "key": AZURE_KEY}
        for name, deployment, priority in places
    ]
    assert 200 == client.put("/admin/models/gpt-4o", json={"deployments": deployments}, headers=ADMIN).status_code
    key = client.post("/admin/keys", json={"user": "ada"}, headers=ADMIN).json["key"]
    azure.script(Script(fault=fault, retry_after=20))

    assert 200 == ask(client, {"Authorization": f"Bearer {key}"}).status_code
    record = last_record(app, client)
    assert [("east", code), ("west", None)] == [(each["deployment"], each["error_code"]) for each in record["attempts"]]
    assert record["error_code"] is None
    east, west = client.get("/admin/status", headers=ADMIN).json["deployments"]
    assert ("limited", 429, code) == (east["rests_because"], east["last_error"]["status"], east["last_error"]["code"])
    assert "2026-01-01T00:00:20" == east["rests_until"][:19]
    assert (None, None, None) == (west["rests_until"], west["rests_because"], west["last_error"])
    [until] = values(client.get("/metrics", headers=ADMIN).text, "llmgateway_deployment_rests_until_seconds")
    assert until == pytest.approx(1_767_225_620)

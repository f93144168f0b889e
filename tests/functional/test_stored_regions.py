"""Stored responses where a model has deployments in several regions: each goes back to the region that has it."""

from __future__ import annotations

from typing import Any

from llmgateway.simulator import Script, Simulator
from tests.functional.test_failover import MODEL, Regions, make  # noqa: F401 - a fixture
from tests.gateway_process import HTTPAnswer

INPUT = "Remember the number seven."


def respond(regions: Regions, **fields: Any) -> HTTPAnswer:
    return ask(regions, "POST", "/v1/responses", json={"model": MODEL, "input": INPUT, **fields})


def ask(regions: Regions, method: str, path: str, *, key: str | None = None, **arguments: Any) -> HTTPAnswer:
    headers = {"Authorization": f"Bearer {key or regions.user}"}
    return regions.gateway.request(method, path, headers=headers, **arguments)


def calls(azure: Simulator) -> list[str]:
    return [served.path for served in azure.served]


def test_what_continues_a_response_goes_to_its_region(make):  # noqa: F811
    """Also if another region is preferred and well, and after a restart. So do reading and deleting."""
    regions = make()
    sweden, france = regions.simulators
    sweden.script(Script(fault="server_error"))
    made = respond(regions).json()
    assert 1 == len(france.served)

    regions.gateway.stop()
    regions.gateway.start()
    asked = len(sweden.served)
    assert 200 == respond(regions, previous_response_id=made["id"]).status
    path = f"/v1/responses/{made['id']}"
    assert made["id"] == ask(regions, "GET", path).json()["id"]
    assert 200 == ask(regions, "GET", f"{path}/input_items").status
    assert 404 == ask(regions, "GET", path, key=regions.gateway.key(user="bob")).status
    assert 200 == ask(regions, "DELETE", path).status

    assert asked == len(sweden.served)
    assert 5 == len(calls(france))
    regions.gateway.stop()


def test_no_other_region_can_continue_a_response(make):  # noqa: F811
    """If its region is at its limit, the client gets this answer: another region would not find the response."""
    regions = make()
    sweden, france = regions.simulators
    made = respond(regions).json()
    assert 1 == len(sweden.served)
    sweden.script(Script(fault="token_rate_limit", retry_after=7), times=None)

    answer = respond(regions, previous_response_id=made["id"])

    assert (429, "7") == (answer.status, answer.header("retry-after"))
    assert [] == france.served
    regions.gateway.stop()


def test_a_model_that_the_region_has_not_cannot_continue_a_response(make):  # noqa: F811
    """The message says what to do; nothing is sent."""
    regions = make()
    made = respond(regions).json()
    other = {"deployments": [regions.deployment("france")]}
    assert 200 == regions.gateway.admin("PUT", "/admin/models/elsewhere", json=other).status
    before = len(regions.served)

    answer = respond(regions, model="elsewhere", previous_response_id=made["id"])

    assert (400, "model") == (answer.status, answer.error["param"])
    assert "Name the model that made it" in answer.error["message"]
    assert before == len(regions.served)
    regions.gateway.stop()

"""Responses are stored by the resource: they can be continued, read, streamed again, cancelled and deleted."""

from __future__ import annotations

import openai
import pytest

from llmgateway.simulator import DEFAULT_KEY, Script, Simulator
from llmgateway.simulator.response_store import KEPT_SECONDS, ResponseStore
from tests.conftest import Clock

from .calls import call
from .test_responses import ASK, PATH, STREAM, events, post


def get(azure, path, **how):
    return call(azure, b"", path=path, method="GET", **how)


def not_found(response):
    return {
        "error": {
            "message": f"Previous response with id '{response}' not found.",
            "type": "invalid_request_error",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        }
    }


def test_a_chain_pays_for_its_history_but_not_for_old_instructions(azure):
    """Every call bills what was said before it; instructions are not carried over."""
    first = post(azure, {**ASK, "instructions": "five words for the model"}).json
    second = post(azure, {**ASK, "input": "and you", "previous_response_id": first["id"]}).json
    third = post(azure, {**ASK, "input": "bye", "previous_response_id": second["id"]}).json
    plain = post(azure, {**ASK, "input": "and you"}).json

    assert second["previous_response_id"] == first["id"]
    assert second["instructions"] is None
    history = 3 + 2 + 3 + 4  # question and answer, with what each message costs
    assert second["usage"]["input_tokens"] == plain["usage"]["input_tokens"] + history
    assert third["usage"]["input_tokens"] > second["usage"]["input_tokens"]


def test_a_chain_ends_where_a_response_was_not_stored(azure):
    """store false, a deleted one, and one that never was."""
    unstored = post(azure, {**ASK, "store": False}).json
    deleted = post(azure).json
    assert call(azure, b"", path=f"{PATH}/{deleted['id']}", method="DELETE").json["deleted"] is True

    for name in (unstored["id"], deleted["id"], "resp_1"):
        answer = post(azure, {**ASK, "previous_response_id": name})
        assert (answer.status, answer.json) == (400, not_found(name))
        assert get(azure, f"{PATH}/{name}").status == 404


def test_a_chain_can_break_just_after_its_response_was_completed(azure):
    """As a script orders it, and only for requests that continue one; the second try succeeds."""
    azure.script(Script(fault="previous_response_not_found", fault_if=("previous_response_id",)), times=2)
    first = post(azure).json
    body = {**ASK, "previous_response_id": first["id"]}
    answers = [post(azure, body) for _ in range(2)]

    assert [answer.status for answer in answers] == [400, 200]
    assert answers[0].json == not_found(first["id"])


def test_items_are_not_persisted_without_store(azure):
    """A reference to an item is refused, unless the item was stored or comes with its content."""
    unstored = post(azure, {**ASK, "model": "gpt-5-mini", "store": False}).json["output"][0]
    stored = post(azure, {**ASK, "model": "gpt-5-mini"}).json["output"][0]
    sealed = post(
        azure, {**ASK, "model": "gpt-5-mini", "store": False, "include": ["reasoning.encrypted_content"]}
    ).json["output"][0]
    question = {"role": "user", "content": "more"}

    def take(item):
        return post(azure, {**ASK, "store": False, "input": [item, question]})

    assert (
        take(unstored)
        .json["error"]["message"]
        .startswith(f"Item with id '{unstored['id']}' not found. Items are not persisted when `store` is set to false.")
    )
    assert take({"type": "item_reference", "id": unstored["id"]}).status == 400
    assert take({"type": "item_reference", "id": stored["id"]}).status == 200
    assert take(stored).status == take(sealed).status == 200


def test_a_stored_response_is_read_as_it_was(azure):
    """With its input, the latest item first."""
    body = {**ASK, "input": [{"role": "user", "content": text} for text in ("one", "two", "three")]}
    made = post(azure, body).json
    first = get(azure, f"{PATH}/{made['id']}/input_items?limit=2").json
    rest = get(azure, f"{PATH}/{made['id']}/input_items?limit=2&after={first['last_id']}").json

    assert get(azure, f"{PATH}/{made['id']}").json == made
    assert [item["content"] for item in first["data"]] == ["three", "two"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [item["content"] for item in rest["data"]] == ["one"]
    assert azure.served[-1].billed is None


def test_a_stream_can_be_read_again_from_any_event(azure):
    """If it was one."""
    original = post(azure, STREAM)
    name = events(original)[0]["response"]["id"]
    again = get(azure, f"{PATH}/{name}?stream=true&starting_after=3")

    assert get(azure, f"{PATH}/{name}?stream=true").body == original.body
    assert original.body.endswith(again.body)
    assert b'"sequence_number":4}' in again.body.split(b"\n\n")[0]
    plain = post(azure).json
    assert get(azure, f"{PATH}/{plain['id']}?stream=true").status == 400


def test_responses_are_kept_for_thirty_days(clock: Clock):
    """Then they are gone, items included."""
    with Simulator(clock=clock) as azure:
        made = post(azure).json
        clock.advance(KEPT_SECONDS - 1)
        assert get(azure, f"{PATH}/{made['id']}").status == 200
        clock.advance(1)

        assert get(azure, f"{PATH}/{made['id']}").status == 404
        assert post(azure, {**ASK, "input": [{"type": "item_reference", "id": made["output"][0]["id"]}]}).status == 400


def test_responses_belong_to_the_resource():
    """Another address of the same resource knows them, another resource does not."""
    store = ResponseStore()
    with Simulator(responses=store) as one, Simulator(responses=store) as same, Simulator() as other:
        body = {**ASK, "previous_response_id": post(one).json["id"]}

        assert [200, 400] == [post(azure, body).status for azure in (same, other)]


def test_a_background_response_ends_while_it_is_polled(v1, azure):
    """Queued, in progress as often as the script says, then complete; the first request is billed for all."""
    azure.script(Script(background_looks=2))
    made = v1.responses.create(**ASK, background=True)
    states = [v1.responses.retrieve(made.id) for _ in range(3)]

    assert (made.status, made.output, made.usage) == ("queued", [], None)
    assert [state.status for state in states] == ["in_progress", "in_progress", "completed"]
    assert [state.usage is None for state in states] == [True, True, False]
    assert states[-1].usage.total_tokens == azure.served[0].billed.total_tokens
    assert [served.billed for served in azure.served[1:]] == [None] * 3


def test_a_background_stream_begins_queued(azure):
    """With an event of its own."""
    found = events(post(azure, {**STREAM, "background": True}))

    assert [event["type"] for event in found[:3]] == ["response.created", "response.queued", "response.in_progress"]


def test_only_background_responses_can_be_cancelled(v1):
    """Once or again; one that has ended stays as it is."""
    running = v1.responses.create(**ASK, background=True)
    ended = v1.responses.create(**ASK)

    assert ["cancelled"] * 2 == [v1.responses.cancel(running.id).status for _ in range(2)]
    assert v1.responses.retrieve(running.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        v1.responses.cancel(ended.id)


def test_a_conversation_can_be_compacted(v1, azure):
    """Into a window that can be sent as input; it is billed, and not stored."""
    asked = {"model": "gpt-4o-mini", "previous_response_id": post(azure).json["id"], "input": "more to say"}
    window = call(azure, asked, path=f"{PATH}/compact").json
    items = window["output"]

    assert window["object"] == v1.responses.compact(**asked).object == "response.compaction"
    assert [item["type"] for item in items] == ["message", "message", "compaction"]
    assert azure.served[-1].billed.total_tokens == window["usage"]["total_tokens"]
    assert post(azure, {**ASK, "input": [*items, {"role": "user", "content": "so"}]}).status == 200
    assert get(azure, f"{PATH}/{window['id']}").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{PATH}/resp_1", 404),
        ("GET", f"{PATH}/resp_1/input_items", 404),
        ("POST", f"{PATH}/resp_1/cancel", 404),
        ("DELETE", f"{PATH}/resp_1", 404),
        ("GET", f"{PATH}/resp_1/cancel", 404),
        ("GET", "/openai/responses/resp_1?api-version=2024-10-21", 404),
    ],
)
def test_what_is_not_there_is_not_found(azure, method, path, status):
    """Whatever is wanted with it."""
    assert status == call(azure, b"", path=path, method=method).status


def test_a_wrong_key_reads_nothing(azure):
    """401, and the book knows it."""
    made = post(azure).json
    right = get(azure, f"{PATH}/{made['id']}", headers={"api-key": DEFAULT_KEY})
    wrong = get(azure, f"{PATH}/{made['id']}", headers={"api-key": "wrong"})

    assert (right.status, wrong.status) == (200, 401)
    assert [served.authenticated for served in azure.served] == [True, True, False]


def test_a_reset_forgets_what_was_stored(azure):
    """Together with what was served."""
    made = post(azure).json
    azure.reset()

    assert get(azure, f"{PATH}/{made['id']}").status == 404

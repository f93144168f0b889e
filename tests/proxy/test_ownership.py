"""What Azure stores belongs to its user; to anybody else it does not exist."""

from __future__ import annotations

import json

import pytest

from llmgateway.errors import StoredNotFound, StoreUnavailable
from llmgateway.proxy.operations.responses import RESPONSES
from llmgateway.proxy.ownership import with_stored
from tests.parts import Owners, draft
from tests.proxy.requests import person, prepared


@pytest.fixture
def owners():
    made = Owners()
    for number, user, tokens in ((1, "ada", 100), (2, "ada", 1000), (3, "eve", 1)):
        made.remember(
            draft(
                user=user,
                response_id=f"resp_{number}",
                stored_ids=(f"msg_{number}", f"rs_{number}", f"cntr_{number}"),
                stored_at=f"region-{number}",
                prompt_tokens=tokens,
                completion_tokens=tokens // 10,
            )
        )
    return made


def bound(owners, **fields: object):
    body = json.dumps({"model": "gpt", "input": "Hello"} | fields).encode()
    return with_stored(prepared(body, operation=RESPONSES), person(), owners)


def reference(name: str) -> dict:
    return {"type": "item_reference", "id": name}


@pytest.mark.parametrize(
    ("fields", "target", "tokens"),
    [
        ({}, None, 0),
        ({"previous_response_id": "resp_1"}, "region-1", 110),
        ({"input": [reference("msg_2")]}, "region-2", 100),
        ({"input": [reference("msg_2"), reference("rs_2"), reference("msg_1")]}, "region-2", 110),
        ({"previous_response_id": "resp_2", "input": [reference("rs_1")]}, "region-2", 1110),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "region-1", 0),
    ],
    ids=str,
)
def test_a_request_goes_to_the_resource_that_has_what_it_continues(owners, fields, target, tokens):
    """And its prompt has the tokens of that, too."""
    upstream = bound(owners, **fields)

    assert target == (upstream.continues and upstream.continues.target)
    assert tokens == upstream.continued_tokens


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"previous_response_id": "resp_3"}, "previous_response_id", "previous_response_not_found"),
        ({"previous_response_id": "resp_4"}, "previous_response_id", "previous_response_not_found"),
        ({"previous_response_id": "resp_1", "input": [reference("msg_3")]}, "input", None),
        ({"input": [reference("msg_1"), reference("msg_4")]}, "input", None),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_3"}]}, "tools", None),
    ],
    ids=str,
)
def test_one_thing_of_somebody_else_is_enough_to_refuse_a_request(owners, fields, param, code):
    """In Azure's words. What nobody has made is no different."""
    with pytest.raises(StoredNotFound, match=r"with id '\w+_[34]' not found") as refused:
        bound(owners, **fields)

    assert (404, "invalid_request_error", param, code) == (
        refused.value.status,
        refused.value.type,
        refused.value.param,
        refused.value.code,
    )


def test_if_the_owner_is_not_known_the_request_is_neither_served_nor_refused_for_good():
    """The client tries again later."""

    class Away(Owners):
        def find(self, stored_id: str, *, anew: bool = False) -> None:
            raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        bound(Away(), previous_response_id="resp_1")

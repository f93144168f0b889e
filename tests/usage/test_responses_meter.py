"""A streamed response is read as it passes: its text, its last event, and how it can fail."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import Usage
from llmgateway.usage import responses_meter
from llmgateway.usage.responses_meter import ResponsesMeter, see_response
from tests.parts import split

USAGE = {
    "input_tokens": 18,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 16,
    "output_tokens_details": {"reasoning_tokens": 9},
    "total_tokens": 34,
}
COUNTED = Usage(prompt_tokens=18, completion_tokens=16, total_tokens=34, cached_tokens=3, reasoning_tokens=9)
TEXTS = st.lists(
    st.sampled_from(
        [
            '"delta":"',
            '\\"delta\\":\\"',
            "\n\nevent: response.completed\ndata: {}\n\n",
            '"type":"response.completed"',
            "\\",
            '"',
            "日本",
            "data: [DONE]",
        ]
    )
    | st.text(max_size=8),
    max_size=6,
)


def event(kind: str, *, named: bool = True, **fields: object) -> bytes:
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"), ensure_ascii=False)
    return (f"event: {kind}\n" if named else "").encode() + f"data: {data}\n\n".encode("utf-8", "surrogatepass")


def delta(text: str, kind: str = "response.output_text.delta", **fields: object) -> bytes:
    return event(kind, content_index=0, delta=text, item_id="msg_1", logprobs=[], obfuscation="abcXYZ", **fields)


def message(text: str, **fields: object) -> dict:
    return {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": text}], **fields}


def response(status: str = "completed", **fields: object) -> dict:
    given = {"id": "resp_1", "object": "response", "status": status, "model": "gpt-5.4", "error": None, "output": []}
    return given | {"usage": USAGE, "service_tier": "default"} | fields


CREATED = event("response.created", response=response("in_progress", usage=None, service_tier="auto"))


def ended(status: str = "completed", **fields: object) -> bytes:
    return event(f"response.{status}", response=response(status, **fields))


def metered(*chunks: bytes) -> ResponsesMeter:
    meter = ResponsesMeter()
    for data in chunks:
        meter.feed(data)
    return meter


@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_every_byte_is_passed_on_and_every_text_is_counted(texts, cuts, named):
    """However the stream is cut into chunks, and whatever its texts imitate."""
    events = [event("response.output_text.delta", named=named, delta=text) for text in texts]
    body = CREATED + b"".join(events) + ended()
    meter = ResponsesMeter()

    passed = b"".join(meter.feed(part) for part in split(body, cuts)) + meter.end()

    assert body == passed
    assert (True, False) == (meter.done, meter.failed)
    assert COUNTED == meter.seen.usage
    assert len(texts) + 2 == meter.seen.events
    assert meter.seen.completion_tokens >= sum(bool(text.strip()) for text in texts)


def test_a_text_counts_the_same_whether_it_is_searched_or_parsed():
    """JSON with blanks has to be parsed; so has an escape."""
    for text in ("Why", " the", "naïve", "一二三", "two\nlines", 'a "quoted" word', "x" * 100):
        compact = delta(text)
        spaced = b"event: response.output_text.delta\ndata: " + json.dumps({"delta": text}).encode() + b"\n\n"

        assert metered(compact).seen.completion_tokens == metered(spaced).seen.completion_tokens > 0


@pytest.mark.parametrize(
    "kind",
    [
        "response.output_text.delta",
        "response.refusal.delta",
        "response.function_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.mcp_call_arguments.delta",
        "response.code_interpreter_call_code.delta",
    ],
)
def test_everything_that_the_model_writes_counts(kind):
    """Text, arguments, code and visible reasoning, in events with a name and without."""
    assert 2 == metered(delta("a", kind), delta("b", kind)).seen.completion_tokens
    assert 1 == metered(event(kind, named=False, delta="a")).seen.completion_tokens


def test_sound_is_no_text():
    """It is base64."""
    assert 0 == metered(delta("UklGRg" * 50, "response.audio.delta")).seen.completion_tokens


def test_events_that_nobody_knows_are_relayed():
    """There are about sixty kinds, and new ones appear."""
    odd = (
        event("response.something.new", delta=["x"]) + event("response.telepathy.delta", delta={"a": 1}) + b": ping\n\n"
    )
    meter = ResponsesMeter()

    assert CREATED + odd == meter.feed(CREATED + odd)
    assert (False, False, 0) == (meter.done, meter.failed, meter.seen.completion_tokens)


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_the_last_event_says_everything(status):
    """Only there are the usage, the tier that has served it, and the results of the content filter."""
    fired = {"blocked": True, "content_filter_results": {"violence": {"filtered": True, "severity": "high"}}}
    meter = metered(CREATED)
    assert ("resp_1", None, None) == (meter.seen.response_id, meter.seen.usage, meter.seen.service_tier)

    meter.feed(
        ended(status, service_tier="priority", content_filters=[fired], incomplete_details={"reason": "content_filter"})
    )

    assert (True, False) == (meter.done, meter.failed)
    assert (COUNTED, "gpt-5.4", "priority") == (meter.seen.usage, meter.seen.model, meter.seen.service_tier)
    assert {"violence"} == meter.seen.content_filter
    assert meter.seen.blocked


def test_parameters_of_tools_are_no_results_of_a_filter():
    """The last event repeats the client's tools, which may have any names."""
    tools = [{"type": "function", "parameters": {"hate": {"filtered": True}}}]

    assert set() == metered(ended(tools=tools)).seen.content_filter


def test_a_stream_without_an_end_is_not_complete():
    """Nothing says that it is: there is no [DONE]."""
    meter = metered(CREATED, delta("Hello"))

    assert b"" == meter.end()
    assert (False, False) == (meter.done, meter.failed)


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "429", "too_many_requests", "insufficient_quota"])
@pytest.mark.parametrize("form", ["failed", "nested", "flat"])
def test_a_refusal_within_a_stream_costs_nothing(code, form):
    """It stands for a status 429, in whichever of its forms."""
    error = {"code": code, "message": "Slow down."}
    last = {
        "failed": ended("failed", error=error, usage=None),
        "nested": event("error", sequence_number=2, error={"type": "x", **error}),
        "flat": event("error", sequence_number=2, **error),
    }[form]

    meter = metered(CREATED, last)

    assert (False, True, True, code) == (meter.done, meter.failed, meter.seen.refused, meter.seen.error_code)
    assert meter.seen.usage is None


def test_any_other_failure_may_be_billed():
    """The model may have worked before."""
    meter = metered(CREATED, delta("Hello"), ended("failed", error={"code": "server_error"}, usage=None))

    assert (True, False, "server_error") == (meter.failed, meter.seen.refused, meter.seen.error_code)
    assert 1 == meter.seen.completion_tokens
    assert COUNTED == metered(ended("failed", error={"code": "server_error"})).seen.usage


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}])
def test_an_answer_without_a_count_is_estimated(usage):
    """From the parts, or from the items if there were no parts."""
    whole = response(output=[message("one two three")], usage=usage)

    assert 3 == see_response(whole).completion_tokens
    assert see_response(whole).usage is None
    assert 3 == metered(event("response.output_item.done", item=message("one two three"))).seen.completion_tokens
    assert 2 == metered(delta("one"), delta(" two"), ended(usage=usage)).seen.completion_tokens


def test_what_the_model_has_not_written_is_not_estimated():
    """Encrypted reasoning, images and identifiers are long, and no text."""
    items = [
        {"type": "reasoning", "id": "rs_" + "1" * 60, "encrypted_content": "g" * 4000, "summary": []},
        {"type": "image_generation_call", "id": "ig_1", "result": "iVBOR" * 1000},
        {"type": "function_call", "call_id": "call_" + "2" * 60, "name": "weather", "arguments": "{}"},
    ]

    assert 2 == see_response(response(output=items, usage=None)).completion_tokens


def test_identifiers_and_uses_are_read_from_the_items():
    """In a plain answer, in the last event, and in the events before it if the stream breaks off."""
    items = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
        {"type": "web_search_call", "id": "ws_2", "status": "completed", "action": {"type": "open_page"}},
        {"type": "web_search_call", "id": "ws_3", "status": "failed", "action": {"type": "search"}},
        {"type": "web_search_call", "id": "ws_4", "status": "completed"},
        {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1", "code": "1"},
        {"type": "code_interpreter_call", "id": "ci_2", "container_id": "cntr_1", "code": "2"},
        {"type": "mcp_call", "id": "mcp_1"},
        message("Done."),
    ]
    ids = ("ws_1", "ws_2", "ws_3", "ws_4", "ci_1", "cntr_1", "ci_2", "mcp_1", "msg_1")
    uses = {"web_search": 2, "code_interpreter": 1}

    for seen in (
        see_response(response(output=items)),
        metered(ended(output=items)).seen,
        metered(*(event("response.output_item.done", item=item) for item in items)).seen,
        metered(*(event("response.output_item.done", item=item) for item in items), ended(output=[])).seen,
    ):
        assert (ids, uses) == (seen.stored_ids, seen.tool_uses)


def test_an_event_with_the_whole_response_is_read_however_long_it_is(monkeypatch):
    """It repeats instructions and tools. One beyond the bound is passed on in parts, and not held in memory."""
    long = ended(instructions="x" * 300_000)
    parts = split(long, range(0, len(long), 65_536))
    meter = metered(*parts)
    assert COUNTED == meter.seen.usage

    monkeypatch.setattr(responses_meter, "LARGEST_EVENT", 100_000)
    meter = ResponsesMeter()
    assert long + delta("a") == b"".join(map(meter.feed, [*parts, delta("a")]))
    assert (None, 1, False) == (meter.seen.usage, meter.seen.completion_tokens, meter.is_inside_event)


def test_the_beginning_of_an_event_counts_if_its_end_never_comes():
    """Azure may have written that text."""
    meter = metered(CREATED, delta("Hello")[:-5])
    meter.feed(delta(" the whole wide world").partition(b"world")[0])
    meter.count_rest()

    assert meter.seen.completion_tokens >= 1


def test_one_byte_at_a_time():
    """As the slowest network sends it, with the line ends of any proxy."""
    for line_end in (b"\n", b"\r\n", b"\r"):
        body = (CREATED + delta("Hello") + ended()).replace(b"\n", line_end)
        meter = ResponsesMeter()

        assert body == b"".join(meter.feed(body[at : at + 1]) for at in range(len(body))) + meter.end()
        assert (COUNTED, 1) == (meter.seen.usage, meter.seen.completion_tokens)

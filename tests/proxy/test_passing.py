"""Answers that are passed on as they come."""

from __future__ import annotations

import orjson
import pytest

from llmgateway.errors import ClientGone, KeyRevoked, UpstreamBroken, UpstreamTimeout
from llmgateway.proxy.passing import LARGEST_WHOLE, DocumentReader, PassedAnswer, read_up_to
from llmgateway.proxy.read_on import ReadOn
from llmgateway.records import Outcome, Usage, UsageSource
from llmgateway.usage.booking import Asked
from llmgateway.usage.counts import parse_usage
from llmgateway.usage.seen import Seen
from tests.parts import Claimed, Entries, ScriptedAnswer, call

COUNTED = b'{"usage": {"prompt_tokens": 5, "total_tokens": 5}}'


def see(document, _body):
    return Seen(usage=parse_usage(document))


def passed(entries, *script, **more):
    answer = ScriptedAnswer(*script)
    made = call(entries, stream=False, asked=Asked(most_tokens=0, may_think=False), **more)
    made.cancellation.sent = True
    made.accounting.answered(status=200, region=None, upstream_request_id=None)
    return answer, PassedAnswer(answer, made, DocumentReader(see), b"")


def test_passes_everything_and_leaves_a_record():
    """The counters know the use before the client has the end."""
    entries, admission = Entries(), Claimed()
    answer, body = passed(entries, COUNTED[:9], COUNTED[9:], admission=admission)

    assert COUNTED == b"".join(body)
    assert (Outcome.OK, UsageSource.UPSTREAM, 5) == (
        entries.only.outcome,
        entries.only.usage_source,
        entries.only.prompt_tokens,
    )
    assert [entries.only] == admission.committed
    assert 1 == answer.closed


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamBroken("x"), Outcome.BROKEN),
        (UpstreamTimeout("x"), Outcome.TIMEOUT),
        (KeyRevoked("x"), Outcome.REVOKED),
    ],
)
def test_a_break_ends_the_connection(error, outcome):
    """The server must not write an end that there is not."""
    entries = Entries()
    answer, body = passed(entries, b"part", error)

    assert b"part" == next(body)
    with pytest.raises(ConnectionResetError):
        next(body)
    with pytest.raises(StopIteration):
        next(body)
    body.close()
    assert (outcome, 10) == (entries.only.outcome, entries.only.prompt_tokens)
    assert 1 == answer.closed


def test_a_client_that_leaves_closes_the_answer():
    """Nothing more is read."""
    entries = Entries()
    answer, body = passed(entries, b"part", b"more")
    next(body)
    body.close()

    assert (1, 1) == (answer.reads, answer.closed)
    assert Outcome.CLIENT_CLOSED == entries.only.outcome


def test_a_client_that_was_cut_off_gets_no_error():
    """There is nobody to tell."""
    entries = Entries()
    _, body = passed(entries, ClientGone("x"))

    assert [] == list(body)
    assert Outcome.CLIENT_CLOSED == entries.only.outcome


def test_an_answer_is_read_on_without_its_client():
    """Only its end tells the count."""
    entries = Entries()
    answer, body = passed(entries, COUNTED[:9], COUNTED[9:], read_on=ReadOn(seconds=5, at_once=1))
    next(body)
    body.close()

    assert 1 == answer.closed
    assert (Outcome.CLIENT_CLOSED, UsageSource.UPSTREAM) == (entries.only.outcome, entries.only.usage_source)


def test_reading_on_may_break_off():
    """The record says so, and nothing is raised into the server."""
    entries = Entries()
    _, body = passed(entries, b"part", UpstreamBroken("x"), read_on=ReadOn(seconds=5, at_once=1))
    next(body)
    body.close()

    assert Outcome.CLIENT_CLOSED == entries.only.outcome


@pytest.mark.parametrize("first", [True, False])
def test_reads_the_count_of_a_document_that_is_not_kept(first):
    """It stands before or after millions of numbers."""
    data = {"data": "A" * (2 * LARGEST_WHOLE)}
    count = {"usage": {"prompt_tokens": 8, "total_tokens": 8}, "model": "m"}
    text = orjson.dumps(count | data if first else data | count)
    reader = DocumentReader(see)
    for begin in range(0, len(text), 100_000):
        reader.feed(text[begin : begin + 100_000])
    reader.end()

    assert Usage(prompt_tokens=8, total_tokens=8) == reader.seen.usage


def test_short_answers_are_read_whole():
    """So a break becomes an error that the client can read."""
    answer = ScriptedAnswer(b"one", b"two")

    assert (b"zeroonetwo", True) == read_up_to(answer, b"zero", 100)
    assert 1 == answer.closed


def test_long_answers_are_not():
    """The rest is read by whoever passes it on; 0 leaves all of it."""
    answer = ScriptedAnswer(b"one", b"two", b"three")

    assert (b"", False) == read_up_to(answer, b"", 0)
    assert (b"onetwo", False) == read_up_to(answer, b"", 5)
    assert (0, b"three") == (answer.closed, answer.read())


def test_a_break_of_a_short_answer_closes_it():
    """And is told."""
    answer = ScriptedAnswer(b"one", UpstreamBroken("x"))

    with pytest.raises(UpstreamBroken):
        read_up_to(answer, b"", 100)
    assert 1 == answer.closed

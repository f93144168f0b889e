"""Streams of events with transcripts, speech and pictures."""

from __future__ import annotations

from functools import partial

import orjson
import pytest

from llmgateway.records import Usage
from llmgateway.usage.counts import parse_usage
from llmgateway.usage.media_meter import LARGEST_READ, MediaMeter
from tests.parts import split

USAGE = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}


def see(seen, document, size):
    seen.usage = parse_usage(document) or seen.usage
    if size and not document:
        seen.completion_tokens += size


def event(kind: str, **fields: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind} | fields) + b"\n\n"


def picture(size: int) -> bytes:
    return event("image_generation.completed", b64_json="A" * size, usage=USAGE)


@pytest.mark.parametrize("size", [10, LARGEST_READ - 120, LARGEST_READ, 3 * LARGEST_READ])
@pytest.mark.parametrize("step", [7, 1000, 65_536])
def test_passes_every_byte_and_reads_the_count(size, step):
    """However large the event is, and wherever it is cut."""
    data = event("image_generation.partial_image", b64_json="B" * size) + picture(size)
    meter = MediaMeter(see)

    passed = b"".join(meter.feed(part) for part in split(data, range(0, len(data), step))) + meter.end()

    assert data == passed
    assert meter.done
    assert Usage(prompt_tokens=5, completion_tokens=7, total_tokens=12) == meter.seen.usage


def test_holds_nothing_back_but_line_ends():
    """A picture arrives as it is sent."""
    meter = MediaMeter(see)
    data = picture(100_000)

    assert data[:50_000] == meter.feed(data[:50_000])
    assert meter.is_inside_event
    assert data[50_000:] == meter.feed(data[50_000:])
    assert not meter.is_inside_event


def test_is_done_when_every_result_has_come():
    """Two pictures have two last events; a stream that ends after one is complete, too."""
    meter = MediaMeter(see, results=2)
    meter.feed(picture(9))
    assert not meter.done
    meter.end()
    assert meter.done


def test_a_stream_without_its_last_event_is_not_done():
    """Something has cut it short."""
    meter = MediaMeter(see)
    meter.feed(event("transcript.text.delta", delta="Hel"))
    meter.end()

    assert not meter.done


def test_done_ends_a_stream():
    """Some endpoints send it, others do not."""
    meter = MediaMeter(see)
    meter.feed(b"data: [DONE]\n\n")

    assert meter.done


@pytest.mark.parametrize("data", [event("error", error={"code": "x"}), b'data: {"error": {"message": "no"}}\n\n'])
def test_sees_errors(data):
    """In both forms."""
    meter = MediaMeter(see)
    meter.feed(data)

    assert meter.failed


def test_counts_a_part_whose_rest_never_comes():
    """What was sent of it is billed."""
    meter = MediaMeter(partial(see))
    meter.feed(picture(5_000)[:3_000])
    meter.count_rest()

    assert 3_000 == meter.seen.completion_tokens

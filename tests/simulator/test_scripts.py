"""A script makes the bytes come as a test needs them."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmgateway.simulator import DEFAULT_KEY, Raw, Script, answer_to

from .calls import (
    CHAT,
    HELLO,
    STREAM,
    call,
    chunks_of,
    connect,
    message,
    receive_all,
    receive_until,
    receive_until_reset,
)
from .test_recorded_bodies import shape


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("split", [None, 1, 7, 100_000, (3, 20, 21)], ids=str)
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_the_body_is_the_same_however_it_is_framed_and_split(azure, framing, split, body):
    """Framing and split change where the bytes are cut, never the bytes."""
    reference = shape(call(azure, body).body)
    azure.script(Script(framing=framing, split=split))
    answer = call(azure, body)

    assert answer.complete
    assert shape(answer.body) == reference
    assert azure.served[-1].body_sent == answer.body
    assert azure.served[-1].events_sent == azure.served[0].events_sent
    assert ("transfer-encoding" in answer.headers, "content-length" in answer.headers) == (
        framing == "chunked",
        framing == "length",
    )


@pytest.mark.parametrize(
    ("split", "sizes"),
    [(1000, [1000, 1000]), ((3, 20, 21), [3, 17, 1]), (None, None)],
    ids=["every", "offsets", "none"],
)
def test_a_split_makes_the_pieces_chunks(azure, split, sizes):
    """With chunked framing every piece is a chunk; without a split every event is."""
    azure.script(Script(split=split))
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM))
        received = receive_until(peer, b"\r\n0\r\n\r\n")
    chunks, complete = chunks_of(received.partition(b"\r\n\r\n")[2])

    assert complete
    if sizes is None:
        assert len(chunks) == azure.served[0].events_sent == 9
        assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    else:
        assert [len(chunk) for chunk in chunks][: len(sizes)] == sizes


def test_a_gap_lies_between_two_events(azure):
    """A stream of n events takes n - 1 gaps."""
    azure.script(Script(gap=0.02))
    began = time.monotonic()
    answer = call(azure, STREAM)

    assert answer.complete
    assert 8 * 0.02 <= time.monotonic() - began < 8 * 0.02 + 1


def test_a_delay_comes_before_the_head(azure):
    """Nothing is sent in the meantime."""
    azure.script(Script(delay=0.1))
    began = time.monotonic()
    with connect(azure.url) as peer:
        peer.sendall(message(CHAT))
        peer.recv(1)

        assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("gap", [0, 0.001], ids=["at once", "paced"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_cut_after_events_leaves_the_body_unfinished(azure, framing, gap):
    """The client gets that many events and then the end of the connection."""
    azure.script(Script(cut_after_events=4, framing=framing, gap=gap))
    answer = call(azure, STREAM)

    assert not answer.complete
    assert answer.body.count(b"data: ") == 4
    [served] = azure.wait_for(lambda served: served[0].status)
    assert (served.events_sent, served.finished, served.peer_left) == (4, False, False)
    assert served.body_sent == answer.body


@pytest.mark.parametrize("length", [0, 500, None], ids=["nothing", "some", "everything"])
def test_a_cut_after_bytes_is_exact(azure, length):
    """So many bytes of the body, then the connection ends; also just before the proper end."""
    whole = call(azure, STREAM).body
    length = len(whole) if length is None else length
    azure.script(Script(cut_after_bytes=length))
    answer = call(azure, STREAM)

    assert (answer.status, len(answer.body), answer.complete) == (200, length, False)
    assert azure.served[1].finished is False


@pytest.mark.parametrize("gap", [0, 0.001], ids=["at once", "paced"])
def test_a_reset_is_an_error_for_the_client(azure, gap):
    """What was sent before can be read; then the connection is broken, not closed."""
    azure.script(Script(cut_after_events=2, reset=True, gap=gap))
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM))
        received = receive_until_reset(peer)

    assert received.count(b"data: ") == 2


@pytest.mark.parametrize("reset", [False, True])
def test_a_refusal_answers_nothing(azure, reset):
    """The connection closes after the request, with a reset if so ordered."""
    azure.script(Script(refuse=True, reset=reset))
    with connect(azure.url) as peer:
        peer.sendall(message(CHAT))
        if reset:
            with pytest.raises(ConnectionResetError):
                peer.recv(1)
        else:
            assert peer.recv(1) == b""
    assert azure.served[0].status is None


@pytest.mark.parametrize("gap", [0, 0.001], ids=["at once", "paced"])
@pytest.mark.parametrize("after", [0, 3, 9], ids=["head", "middle", "end"])
def test_a_stall_lasts_until_it_is_released(azure, after, gap):
    """After so many events there is silence; released, the answer comes to its proper end."""
    azure.script(Script(stall_after_events=after, gap=gap))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, azure, STREAM)
        [served] = azure.wait_for(lambda served: served and served[0].events_sent == after)
        with pytest.raises(TimeoutError):
            azure.wait_for(lambda served: served[0].finished, timeout=0.05)
        assert served.events_sent == after
        azure.release()

        assert answer.result(10).complete
    assert served.finished


def test_a_release_reaches_a_request_that_is_not_yet_stalled(azure):
    """Whoever arrived before the release passes its stall."""
    azure.script(Script(delay=0.1, stall_after_events=1))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, azure, STREAM)
        azure.wait_for(lambda served: served)
        azure.release()

        assert answer.result(10).complete


@pytest.mark.parametrize(
    "script",
    [
        Script(delay=60),
        Script(gap=60),
        Script(gap=60, split=10),
        Script(stall_after_events=2),
        Script(stall_after_events=2, gap=0.001),
        Script(tokens=100_000, gap=0.001),
        Script(tokens=100_000),
    ],
    ids=["delay", "gap", "gap, split", "stall", "stall, paced", "paced stream", "fast stream"],
)
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_peer_that_leaves_is_noticed(azure, script, leave):
    """However the answer waits, the client's end of the connection ends it within moments."""
    azure.script(script)
    with connect(azure.url) as peer:
        if leave == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.sendall(message(STREAM))
        [served] = azure.wait_for(lambda served: served and (script.delay or served[0].events_sent))
        assert not served.peer_left
    left = time.monotonic()
    azure.wait_for(lambda served: served[0].peer_left)

    assert time.monotonic() - left < 1
    assert not served.finished


def test_a_stall_does_not_shorten_the_gaps_behind_it(azure):
    """Events that would have been due in the meantime do not come all at once."""
    azure.script(Script(stall_after_events=2, gap=0.02))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, azure, STREAM)
        with pytest.raises(TimeoutError):
            azure.wait_for(lambda served: served and served[0].finished, timeout=0.3)
        released = time.monotonic()
        azure.release()
        answer.result(10)

    assert time.monotonic() - released >= 7 * 0.02


def test_a_reset_releases_what_is_stalled(azure):
    """No answer stays behind."""
    azure.script(Script(stall_after_events=2))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, azure, STREAM)
        azure.wait_for(lambda served: served and served[0].events_sent == 2)
        azure.reset()

        assert answer.result(10).complete


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_what_did_not_get_through_does_not_count(azure, body, framing):
    """Of an answer that nobody reads only what the network took is noted."""
    azure.script(Script(answer="so", oversized_line=30_000_000, framing=framing))
    with connect(azure.url) as peer:
        peer.sendall(message(body))
        whole = 2 if body is STREAM else 0
        # The big event is noted when its sending begins.
        azure.wait_for(lambda served: served and served[0].events_sent == whole + 1)
    [served] = azure.wait_for(lambda served: served[0].peer_left)

    assert not served.finished
    assert 0 < len(served.body_sent) < 30_000_000
    assert served.events_sent == served.body_sent.count(b"}\n\n") == whole


def test_a_peer_that_leaves_does_not_end_other_streams(azure):
    """Streams that are paced together live apart."""
    azure.script(Script(gap=0.01), times=2)
    with ThreadPoolExecutor(1) as pool:
        with connect(azure.url) as peer:
            peer.sendall(message(STREAM))
            azure.wait_for(lambda served: served and served[0].events_sent)
            answer = pool.submit(call, azure, STREAM)
            azure.wait_for(lambda served: len(served) == 2 and served[1].events_sent)
        assert answer.result(10).complete
    azure.wait_for(lambda served: served[0].peer_left)


def test_a_peer_that_reads_nothing_does_not_hold_up_other_streams(azure):
    """A paced stream whose client does not read waits alone, and goes on when it does."""
    azure.script(Script(answer="x" * 2_000_000, gap=0.000_001))
    azure.script(Script(gap=0.001))
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.settimeout(30)
        lazy.connect(("127.0.0.1", azure.port))
        lazy.sendall(message(STREAM))
        [slow] = azure.wait_for(lambda served: served and served[0].events_sent > 100)
        assert call(azure, STREAM).complete
        assert not slow.finished
        azure.release()


def test_an_early_second_request_is_answered_after_the_first(azure):
    """A client may send its next request while an answer is under way; nobody has left."""
    azure.script(Script(gap=0.01))
    azure.script(Script(delay=0.05))
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM))
        azure.wait_for(lambda served: served and served[0].events_sent)
        peer.sendall(message(CHAT, path="/openai/v1/chat/completions") + message(CHAT))
        receive_until(peer, b"}\n")
    served = azure.wait_for(lambda served: len(served) >= 2 and served[1].finished)

    assert [one.connection for one in served[:2]] == [1, 1]
    assert not served[0].peer_left


def test_a_raw_answer_is_sent_as_it_stands(azure):
    """Status, headers and body verbatim, garbage included."""
    azure.script(Script(raw=Raw(502, {"Content-Type": "text/html", "X-Odd": "1"}, b"<html>\xff\x00</html>")))
    answer = call(azure)

    assert (answer.status, answer.body) == (502, b"<html>\xff\x00</html>")
    assert answer.headers == {
        "content-type": "text/html",
        "x-odd": "1",
        "content-length": "15",
        "connection": "close",
    }


def test_a_raw_answer_may_lie_about_its_length(azure):
    """Its own framing header is left alone."""
    azure.script(Script(raw=Raw(200, {"Content-Length": "1000"}, b"short")))
    answer = call(azure)

    assert (answer.headers["content-length"], answer.body, answer.complete) == ("1000", b"short", False)


def test_an_oversized_line_has_exactly_the_ordered_length(azure):
    """One content event is so many bytes long; the others are ordinary."""
    azure.script(Script(oversized_line=100_000))
    answer = call(azure, STREAM)
    lengths = sorted(len(line) for line in answer.body.split(b"\n"))

    assert lengths[-1] == 100_000
    assert lengths[-2] < 1000
    assert answer.events[-1]["usage"]["completion_tokens"] == 5


def test_the_text_and_its_length_can_be_ordered(azure):
    """So many tokens of the given text, repeated where it is too short."""
    azure.script(Script(answer="to be", tokens=5), times=2)

    assert call(azure).json["choices"][0]["message"]["content"] == "to be to be to"
    assert call(azure, STREAM).events[-1]["usage"]["completion_tokens"] == 5


def test_an_error_event_stands_in_the_place_of_the_rest(azure):
    """The stream ends properly as HTTP, without usage and [DONE]."""
    azure.script(Script(error_event_after=3))
    answer = call(azure, STREAM)

    assert answer.complete
    assert len(answer.events) == 4
    assert answer.events[-1]["error"]["type"] == "server_error"
    assert b"[DONE]" not in answer.body


def test_headers_can_be_added_and_replaced(azure):
    """Whatever the case of their names."""
    azure.script(Script(headers={"X-MS-Region": "Mars", "x-new": "1"}))
    headers = call(azure).headers

    assert (headers["x-ms-region"], headers["x-new"]) == ("Mars", "1")


def test_scripts_are_used_in_their_order(azure):
    """Each serves its number of requests; without one the answer is ordinary."""
    azure.script(Script(answer="a"))
    azure.script(Script(answer="b"), times=2)
    texts = [call(azure).json["choices"][0]["message"]["content"] for _ in range(4)]

    assert texts == ["a", "b", "b", answer_to(HELLO)]


def test_an_endless_script_lasts_until_a_reset(azure):
    """times=None serves everybody; reset forgets it together with what was served."""
    azure.script(Script(fault="unavailable"), times=None)
    assert [call(azure).status for _ in range(3)] == [503] * 3
    azure.reset()

    assert azure.served == []
    assert call(azure).status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"fault": "nonsense"},
        {"framing": "loose"},
        {"filter": "coffee"},
        {"split": 0},
        {"usage": "much"},
        {"usage_in": "front"},
        {"answer_in": "song"},
        {"json": "big"},
        {"line_end": "nel"},
        {"compress": "br"},
        {"tokens_per_event": 0},
        {"tokens_per_second": 0},
        {"tokens_per_second": 1, "gap": 1},
        {"fault_if": ("stream",)},
        {"unfinished": 3},
    ],
    ids=str,
)
def test_an_impossible_script_is_refused_at_once(wrong):
    """A test that misspells a fault must not pass by accident."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Script(**wrong)


def test_a_hundred_streams_at_once(azure):
    """All are answered in full, each with its own words."""
    azure.script(Script(gap=0.005), times=100)
    barrier = threading.Barrier(100)

    def one(number: int) -> str:
        barrier.wait(20)
        answer = call(azure, {**STREAM, "messages": [{"role": "user", "content": f"I am {number}"}]})
        deltas = [event["choices"][0]["delta"] for event in answer.events if event["choices"]]
        return "".join(delta.get("content", "") for delta in deltas)

    with ThreadPoolExecutor(100) as pool:
        texts = list(pool.map(one, range(100)))

    assert texts == [f"You said: I am {number}" for number in range(100)]
    assert all(served.finished for served in azure.served)
    assert len({served.connection for served in azure.served}) == 100


def test_the_body_ends_only_once(azure):
    """A complete answer has one last chunk and nothing behind it."""
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM, headers={"api-key": DEFAULT_KEY, "Connection": "close"}))
        received = receive_all(peer)

    assert received.count(b"\r\n0\r\n\r\n") == 1
    assert received.endswith(b"\r\n0\r\n\r\n")

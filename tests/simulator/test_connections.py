"""The simulator speaks HTTP/1.1 as careful clients need it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from llmgateway.simulator import DEFAULT_KEY, Script, Simulator
from tests.servers import wait_until

from .calls import CHAT, STREAM, V1, call, connect, message, parse, receive_all, receive_until, refuses


def test_a_connection_is_used_again(azure):
    """Two answers of any kind on one connection carry its number twice."""
    with requests.Session() as session:
        for body in (CHAT, STREAM, {"model": "nothing"}, CHAT):
            session.post(azure.url + V1, json=body, headers={"api-key": DEFAULT_KEY}, timeout=10).close()
    requests.post(azure.url + V1, json=CHAT, timeout=10)

    assert [served.connection for served in azure.served] == [1, 1, 1, 1, 2]
    assert [served.status for served in azure.served] == [200, 200, 404, 200, 401]


def test_a_client_may_ask_to_close(azure):
    """Connection: close is obeyed and repeated."""
    assert call(azure).headers["connection"] == "close"


def test_a_chunked_request_is_read(azure):
    """Requests that do not know their length, with extensions and trailers."""
    parts = [b'{"model":', b'"gpt-4o-mini","messages":', b'[{"role":"user","content":"hello, in chunks"}]}']
    chunks = b"".join(b"%X;extension=1\r\n%b\r\n" % (len(part), part) for part in parts)
    head = message(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with connect(azure.url) as peer:
        peer.sendall(head + chunks + b"0\r\nx-trailer: 1\r\n\r\n")
        answer = parse(receive_until(peer, b"}\n"))
        peer.sendall(message(CHAT))
        azure.wait_for(lambda served: len(served) == 2 and served[1].status == 200)

    assert answer.json["choices"][0]["message"]["content"] == "You said: hello, in chunks"


def test_a_client_that_waits_for_permission_gets_it(azure):
    """Expect: 100-continue is answered before the body is sent."""
    head, _, body = message(CHAT, headers={"api-key": DEFAULT_KEY, "Expect": "100-continue"}).partition(b"\r\n\r\n")
    with connect(azure.url) as peer:
        peer.sendall(head + b"\r\n\r\n")
        assert peer.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.sendall(body)

        assert parse(receive_until(peer, b"}\n")).status == 200


def test_a_client_of_http_1_0_gets_a_stream_until_the_end(azure):
    """No chunks for who does not know them (nginx in front, for one)."""
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = parse(receive_all(peer))

    assert "transfer-encoding" not in answer.headers
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "garbage",
    [b"hello\r\n\r\n", b"GET / SPDY\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 70_000],
    ids=["no request", "no http", "no length", "no end"],
)
def test_garbage_is_a_bad_request(azure, garbage):
    """The connection ends, nothing is noted and the server lives."""
    with connect(azure.url) as peer:
        peer.sendall(garbage)
        assert parse(receive_all(peer)).status == 400

    assert azure.served == []
    assert call(azure).status == 200


def test_a_request_that_never_ends_is_no_request(azure):
    """A client that leaves within its body is forgotten."""
    with connect(azure.url) as peer:
        peer.sendall(message(CHAT)[:-10])

    assert call(azure).status == 200
    assert len(azure.served) == 1


def test_notes_what_came_in(azure):
    """Path, query, headers and body as the server read them."""
    headers = {"api-key": DEFAULT_KEY, "X-Ms-Client-Request-Id": "req_7"}
    call(azure, b'{"model": "x" }', path="/a%20b?api-version=1&empty=", headers=headers)
    [served] = azure.served

    assert (served.method, served.path, served.query) == ("POST", "/a b", {"api-version": "1", "empty": ""})
    assert served.client_request_id == "req_7"
    assert served.headers["host"] == "azure"
    assert served.body == b'{"model": "x" }'


def test_only_the_last_requests_are_remembered():
    """A simulator under load does not grow for ever."""
    with Simulator(remember=2) as azure:
        statuses = [call(azure, body).status for body in (CHAT, {}, CHAT)]

        assert statuses == [200, 400, 200]
        assert [served.status for served in azure.served] == [400, 200]


def test_a_stopped_simulator_can_be_started_again_on_its_port():
    """Stopping ends idle connections and every thread, and frees the port at once."""
    before = set(threading.enumerate())  # other tests' simulators among them
    azure = Simulator()
    azure.start()
    port = azure.port
    azure.script(Script(gap=0.001))
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM))
        receive_until(peer, b"\r\n0\r\n\r\n")
        azure.stop()
        assert receive_all(peer) == b""
    assert not set(threading.enumerate()) - before
    azure.start()
    try:
        assert azure.port == port
        assert call(azure).status == 200
    finally:
        azure.stop()


@pytest.mark.parametrize("gap", [0, 60], ids=["stalled", "paced"])
def test_stopping_cuts_what_does_not_end(gap):
    """The answer is neither finished nor has its client left."""
    with Simulator() as azure:
        azure.script(Script(stall_after_events=2, gap=gap))
        with connect(azure.url) as peer:
            peer.sendall(message(STREAM))
            [served] = azure.wait_for(lambda served: served and served[0].events_sent)
            azure.stop()

            assert not receive_all(peer).endswith(b"0\r\n\r\n")
    assert (served.finished, served.peer_left) == (False, False)


def test_a_stopping_simulator_sends_its_clients_away(azure):
    """While the last stream ends, a request on an old connection is answered, and the connection closed."""
    azure.script(Script())
    azure.script(Script(stall_after_events=2))
    with connect(azure.url) as old, connect(azure.url) as busy, ThreadPoolExecutor(1) as pool:
        old.sendall(message(CHAT))
        receive_until(old, b"}\n")
        busy.sendall(message(STREAM))
        azure.wait_for(lambda served: len(served) == 2 and served[1].events_sent == 2)
        stopped = pool.submit(azure.stop, drain=10)
        wait_until(lambda: refuses(azure.url))
        old.sendall(message(CHAT))
        answer = parse(receive_all(old))
        azure.release()
        assert receive_all(busy).endswith(b"\r\n0\r\n\r\n")
        stopped.result(10)

    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_waiting_in_vain_says_what_was_served(azure):
    """The error shows the last entries, without any key."""
    call(azure)
    with pytest.raises(TimeoutError, match=r"1 served.*status=200") as caught:
        azure.wait_for(lambda served: len(served) > 1, timeout=0.01)

    assert DEFAULT_KEY not in str(caught.value)
    assert DEFAULT_KEY not in repr(azure)

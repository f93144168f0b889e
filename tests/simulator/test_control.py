"""A simulator in another process is told what to do over HTTP, and stops gently."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from llmgateway.simulator import DEFAULT_KEY
from tests.servers import wait_until

from .calls import CHAT, STREAM, V1, connect, message, receive_all, refuses

SERVE = """
from llmgateway.simulator import serve
serve(key="another-secret", deployments=["gpt-4o-mini"], started=lambda simulator: print(simulator.url, flush=True))
"""


def post(url: str, body: object = CHAT, key: str = DEFAULT_KEY, **how: object) -> requests.Response:
    return requests.post(url, json=body, headers={"api-key": key}, timeout=10, **how)


def served(url: str) -> list[dict[str, object]]:
    return requests.get(f"{url}/simulator/served", timeout=10).json()["served"]


def test_a_script_comes_over_http(azure):
    """The fields of a script, and times for how many requests."""
    assert post(f"{azure.url}/simulator/script", {"fault": "capacity", "retry_after": 9, "times": 2}).status_code == 200
    answers = [post(azure.url + V1) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "9"


def test_a_raw_answer_comes_over_http(azure):
    """Text, or bytes in base64."""
    post(f"{azure.url}/simulator/script", {"raw": {"status": 418, "headers": {"X-A": "b"}, "body": "tea"}})
    post(f"{azure.url}/simulator/script", {"raw": {"body_base64": "/wA="}, "split": [1]})
    tea, odd = post(azure.url + V1), post(azure.url + V1)

    assert (tea.status_code, tea.headers["x-a"], tea.text) == (418, "b", "tea")
    assert odd.content == b"\xff\x00"


def test_every_kind_of_value_comes_over_http(azure):
    """Numbers, names, objects, lists and null."""
    document = {
        "tokens_per_second": 5000,
        "usage": {"prompt_tokens": 3},
        "lines_before": [": ping"],
        "headers": {"Content-Type": None},
        "fault": "capacity",
        "fault_if": ["data_sources"],
        "json": "spaced",
    }
    assert post(f"{azure.url}/simulator/script", document).status_code == 200
    answer = post(azure.url + V1, STREAM)

    assert answer.status_code == 200
    assert "content-type" not in answer.headers
    assert answer.text.startswith(': ping\ndata: {"choices": [], ')
    assert '"usage": {"prompt_tokens": 3}' in answer.text


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"fault": "nonsense"}, "nonsense"),
        ({"dealy": 1}, "dealy"),
        ({"delay": "long"}, "delay"),
        ({"times": 0}, "times"),
        ({"raw": "text"}, "raw"),
        ({"usage": 3}, "usage"),
        ({"lines_before": "id: 1"}, "lines_before"),
        ([], "object"),
    ],
    ids=str,
)
def test_an_impossible_script_is_told_over_http(azure, document, problem):
    """400, with what is wrong; nothing is queued."""
    answer = post(f"{azure.url}/simulator/script", document)

    assert answer.status_code == 400
    assert problem in answer.json()["problem"]
    assert post(azure.url + V1).status_code == 200


def test_what_was_served_over_http_shows_no_credentials(azure):
    """Only whether the key was right; everything else is there."""
    post(azure.url + V1)
    post(azure.url + V1, key="sk-a-wrong-one")
    text = requests.get(f"{azure.url}/simulator/served", timeout=10).text
    right, wrong = served(azure.url)

    assert DEFAULT_KEY not in text
    assert "sk-a-wrong-one" not in text
    assert (right["headers"]["api-key"], wrong["headers"]["api-key"]) == ("right", "wrong")
    assert (right["status"], wrong["status"]) == (200, 401)
    assert right["usage"] == {
        "prompt_tokens": 8,
        "completion_tokens": 4,
        "total_tokens": 12,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "audio_prompt_tokens": 0,
        "audio_completion_tokens": 0,
        "image_prompt_tokens": 0,
        "audio_seconds": 0.0,
        "characters": 0,
        "images": 0,
    }
    assert right["billed"] == right["usage"]
    assert wrong["usage"] is wrong["billed"] is None
    assert right["bytes_sent"] == len(right["body_sent"])
    assert (right["finished"], right["peer_left"], right["events_sent"]) == (True, False, 1)


def test_a_reset_over_http_forgets(azure):
    """Scripts, and what was served."""
    post(f"{azure.url}/simulator/script", {"fault": "unavailable", "times": None})
    post(azure.url + V1)
    requests.delete(f"{azure.url}/simulator/served", timeout=10)

    assert served(azure.url) == []
    assert post(azure.url + V1).status_code == 200


def test_a_stall_is_released_over_http(azure):
    """The answer goes on."""
    post(f"{azure.url}/simulator/script", {"stall_after_events": 2})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, azure.url + V1, STREAM)
        azure.wait_for(lambda served: served and served[0].events_sent == 2)
        post(f"{azure.url}/simulator/release")

        assert answer.result(10).text.endswith("data: [DONE]\n\n")


def test_the_simulators_own_requests_use_up_no_script(azure):
    """They stand in no book and meet no fault."""
    post(f"{azure.url}/simulator/script", {"fault": "unavailable"})
    assert requests.get(f"{azure.url}/simulator/nothing", timeout=10).status_code == 404
    assert served(azure.url) == []

    assert post(azure.url + V1).status_code == 503


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as p:
        try:
            yield p, p.stdout.readline().strip()
        finally:
            p.kill()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_served_simulator_stops_gently(process, ending):
    """A stream that is under way is finished; then the process exits with 0 and has said nothing of its key."""
    simulator, url = process
    post(f"{url}/simulator/script", {"gap": 0.05})
    with post(url + V1, STREAM, key="another-secret", stream=True) as answer:
        simulator.send_signal(ending)

        assert answer.raw.read().endswith(b"data: [DONE]\n\n")
    output, errors = simulator.communicate(timeout=10)

    assert (simulator.returncode, output, errors) == (0, "", "")


def test_a_stopping_simulator_takes_no_new_connections(process):
    """It refuses them while the last answers end."""
    simulator, url = process
    post(f"{url}/simulator/script", {"gap": 0.1})
    with connect(url) as peer:
        peer.sendall(message(STREAM, headers={"api-key": "another-secret"}))
        peer.recv(1)
        simulator.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(url), seconds=5, what="refusal")

        assert receive_all(peer).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert simulator.wait(10) == 0

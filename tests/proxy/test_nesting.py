"""Objects, arrays and levels are bounded before a body is parsed, whatever its strings contain."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.errors import InvalidRequest
from llmgateway.proxy.nesting import MOST_CONTAINERS, MOST_LEVELS, MOST_NAMES, MOST_VALUES, check_nesting
from llmgateway.proxy.parsing import CHAT_FORMAT, parse
from llmgateway.settings import settings_fields

MIB = 1024 * 1024
LARGEST = 31 * MIB
A_REFUSAL = 0.1
A_BUSY_MACHINE = 5

ATTACKS = {
    "objects": b'{"messages":[],"x":[1e30' + b",{}" * (LARGEST // 3) + b"]}",
    "arrays": b'{"messages":[],"x":[1e30' + b",[]" * (LARGEST // 3) + b"]}",
    "open": b"[" * LARGEST,
    "between strings": b'{"x":[' + b'"{",{"\\"":1},' * (LARGEST // 13) + b"1]}",
    "after every string": b'{"x":[' + b'"{"]' * (LARGEST // 4) + b"1]}",
}


def containers(document: object) -> int:
    if isinstance(document, dict):
        return 1 + sum(map(containers, document.values()))
    return 1 + sum(map(containers, document)) if isinstance(document, list) else 0


def levels(document: object) -> int:
    if isinstance(document, dict):
        return 1 + max(map(levels, document.values()), default=0)
    return 1 + max(map(levels, document), default=0) if isinstance(document, list) else 0


def accepts(body: bytes, most_containers: int = MOST_CONTAINERS) -> bool:
    try:
        check_nesting(body, most_containers=most_containers)
    except InvalidRequest:
        return False
    return True


NASTY = st.text(st.sampled_from('[]{}"\\,: \u00e9'), max_size=6)
DOCUMENTS = st.recursive(
    NASTY | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NASTY, inner, max_size=5),
    max_leaves=40,
)


@given(DOCUMENTS, st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}]))
def test_counts_exactly_whatever_strings_contain(document, style):
    """Brackets, quotes and backslashes in strings and names are no containers."""
    body = json.dumps(document, **style).encode()
    count = containers(document)

    assert accepts(body, most_containers=count)
    if count:
        assert not accepts(body, most_containers=count - 1)


@given(DOCUMENTS, st.integers(MOST_LEVELS - 6, MOST_LEVELS))
def test_counts_levels_exactly(document, outside):
    """A bracket in a string is no level, and one level more than the most is refused."""
    body = b"[" * outside + json.dumps(document).encode() + b"]" * outside

    assert (outside + levels(document) <= MOST_LEVELS) == accepts(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_one_level_too_many(opening):
    """A body of 100 levels is accepted, one of 101 is refused, and one of a million is, too."""
    closing = b"]" if opening == b"[" else b"}"
    for count, accepted in ((MOST_LEVELS, True), (MOST_LEVELS + 1, False), (10**6, False)):
        assert accepted == accepts(opening * count + b"1" + closing * count)


@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_costs_little(body):
    """31 MiB of containers are refused without being parsed."""
    began = time.process_time()
    with pytest.raises(InvalidRequest, match="more than 200,000 objects and arrays"):
        parse(body, CHAT_FORMAT)

    assert time.process_time() - began < A_REFUSAL * A_BUSY_MACHINE


NUMBERS = {
    "integers": b'{"messages":[],"x":[1e30' + b",1" * (LARGEST // 2) + b"]}",
    "floats": b'{"messages":[],"x":[1e30' + b",0.1" * (LARGEST // 4) + b"]}",
    "strings": b'{"messages":["a"' + b',"a"' * (LARGEST // 4) + b"]}",
    "lone surrogates": b'{"messages":["\\ud800"' + b',"a"' * (LARGEST // 4) + b"]}",
}


@pytest.mark.parametrize("body", NUMBERS.values(), ids=NUMBERS.keys())
def test_millions_of_values_cost_little(body):
    """A parser takes longer, and lets no other thread run."""
    began = time.process_time()
    with pytest.raises(InvalidRequest, match="more than 4,000,000 values"):
        parse(body, CHAT_FORMAT)

    assert time.process_time() - began < A_REFUSAL * A_BUSY_MACHINE


def test_millions_of_names_cost_little():
    """They take a parser even longer."""
    body = b'{"messages":[],' + b",".join(b'"%x" :1' % number for number in range(1_500_000)) + b"}"
    began = time.process_time()
    with pytest.raises(InvalidRequest, match="more than 400,000 names in its objects"):
        parse(body, CHAT_FORMAT)

    assert time.process_time() - began < A_REFUSAL * A_BUSY_MACHINE


def test_the_bounds_of_names_and_values_grow_with_the_setting():
    """What the message says to do helps."""
    names = dict.fromkeys(map(str, range(MOST_NAMES + 1)))
    for document in ({"x": names}, {"x": [1] * (MOST_VALUES + 2)}, {"x": [":,"] * (MOST_VALUES + 2)}):
        body = json.dumps(document).encode()
        with pytest.raises(InvalidRequest, match="LLMGATEWAY_MAX_BODY_CONTAINERS"):
            parse(body, CHAT_FORMAT)

        assert document == parse(body, CHAT_FORMAT, most_containers=2 * MOST_CONTAINERS)


def test_an_attack_takes_little_memory():
    """It takes the body itself and a few copies of it, and no objects for what is in it."""
    program = (
        "import resource\n"
        "from llmgateway.errors import InvalidRequest\n"
        "from llmgateway.proxy.parsing import CHAT_FORMAT, parse\n"
        f"body = b'{{\"messages\":[],\"x\":[1e30' + b',{{}}' * ({LARGEST} // 3) + b']}}'\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    parse(body, CHAT_FORMAT)\nexcept InvalidRequest:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    kib = int(subprocess.check_output([sys.executable, "-c", program]))

    assert kib < 3 * LARGEST // 1024


def test_a_request_for_embeddings_passes():
    """2,048 arrays of 500 tokens are a million numbers, and fewer than are accepted."""
    document = {"model": "text-embedding-3-small", "input": [list(range(500))] * 2048}

    assert document == parse(json.dumps(document).encode(), CHAT_FORMAT)
    assert document == parse(json.dumps(document, separators=(",", ":")).encode(), CHAT_FORMAT)


def test_long_strings_of_code_pass():
    """What is inside strings does not count, however many brackets it has."""
    document = {"messages": [{"role": "user", "content": '{"a": [1, {}]}\n' * 100_000}] * 2}
    table = {"messages": [{"role": "user", "content": "10:15,1,2,3\n" * 1_000_000}]}

    assert document == parse(json.dumps(document).encode(), CHAT_FORMAT)
    assert table == parse(json.dumps(table).encode(), CHAT_FORMAT)
    assert {"x": "\ud800,:" * 2_500_000} == parse(json.dumps({"x": "\ud800,:" * 2_500_000}).encode(), CHAT_FORMAT)


def test_the_default_of_the_setting_is_the_one_here():
    """The settings cannot import this module."""
    (setting,) = (field for field in settings_fields() if field.name == "max_body_containers")

    assert MOST_CONTAINERS == setting.default

"""Turning the client's body into the body for Azure changes only what it must."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgateway.azure.endpoint import Endpoint
from llmgateway.errors import InvalidRequest, ModelNotAllowed, ModelNotFound
from llmgateway.proxy.nesting import MOST_LEVELS
from llmgateway.proxy.operations.fields import LARGEST_BOUND
from llmgateway.proxy.routing import LONGEST_MODEL_NAME
from llmgateway.usage.booking import MOST_CHOICES
from tests.proxy.requests import V1, chat, prepared

FIXED = Endpoint.parse("https://n.openai.azure.com/openai/deployments/gpt?api-version=2024-10-21")
IN_PATH = Endpoint.parse("https://n.openai.azure.com/openai/deployments/{model}?api-version=2024-10-21")
PROMPT = 'Say "hello" - 日本 \N{GRINNING FACE}'
HELLO = {"role": "user", "content": "Hello"}
# Hypothesis also draws the texts that it finds in the code.
KNOWN = {
    *("model", "messages", "stream", "stream_options", "include_usage"),
    *("include_obfuscation", "max_tokens", "max_completion_tokens", "n", "tools"),
    *("functions", "tool_choice", "function_call", "response_format", "data_sources"),
    *("prediction", "modalities", "audio", "service_tier", "reasoning_effort"),
    *("web_search_options", "temperature", "top_p", "stop", "seed"),
    *("user", "store", "metadata", "logprobs", "logit_bias"),
    *("parallel_tool_calls", "role", "content", "name", "tool_calls"),
    *("tool_call_id", "refusal", "reasoning_content", "type", "text"),
    *("image_url", "input_audio", "file", "detail", "url"),
    *("data", "format", "file_id", "file_data", "filename"),
    *("id", "index", "function", "custom", "arguments"),
    *("input", "output", "datasources"),
}


# JSON as any client may write it: integers beyond 64 bits, lone surrogates, every finite float.
TEXT = st.text(st.characters(), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(2**62, 2**70) | st.floats(allow_nan=False) | TEXT
SCALARS = SCALARS.filter(lambda value: value not in (float("inf"), float("-inf")))
NAMES = TEXT.filter(lambda name: name.upper().casefold().replace("\u0307", "").partition("\0")[0] not in KNOWN)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))
MESSAGES = st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=4)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=5)


def same(left: object, right: object) -> bool:
    """Return whether both are equal and have the same types: 1, 1.0 and true are different values."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@given(FIELDS, MESSAGES, st.booleans(), st.booleans())
@example({"seed": 2**64}, [{}], True, True)
@example({"seed": -(2**63) - 1, "x": 2**63, "y": -(2**63), "z": 2**64 - 1}, [{}], True, True)
@example({"x": [1e300, 5e-324, -0.0, 1e22, 123456789012345678901234567890]}, [{}], True, True)
@example({"\ud800": "\udfff"}, [{"content": "half \ud83d"}], True, False)
def test_values_survive_whatever_they_are(fields, messages, escaped, stream):
    """With a prompt and with usage asked for, all values of the client arrive unchanged."""
    document = fields | {"model": "gpt", "messages": messages, "stream": stream}
    if "\\ud" in json.dumps(document):
        escaped = True  # a lone surrogate must be escaped
    body = json.dumps(document, ensure_ascii=escaped).encode()

    sent = json.loads(prepared(body, prompt=PROMPT).body())

    assert {"role": "system", "content": PROMPT} == sent["messages"].pop(0)
    assert ({"include_usage": True} if stream else None) == sent.pop("stream_options", None)
    assert same(document, sent)


@given(FIELDS, MESSAGES, st.sampled_from([None, 1, "\t"]))
def test_bytes_stay_where_nothing_has_to_change(fields, messages, indent):
    """Without a prompt, and if nothing has to be added, Azure gets the client's own bytes."""
    for own in ({}, {"stream": False}, {"stream": True, "stream_options": {"include_usage": True}}):
        body = json.dumps(fields | {"messages": messages, "model": "gpt"} | own, indent=indent).encode()

        assert body is prepared(body).body()


@given(st.binary(max_size=60) | TEXT.map(lambda text: text.encode("utf-8", "replace")) | VALUES.map(json.dumps))
def test_takes_or_refuses_and_never_fails(body):
    """For any body, the result is a chat or an error for the client."""
    body = body.encode() if isinstance(body, str) else body
    with suppress(InvalidRequest, ModelNotFound):
        prepared(body, prompt=PROMPT).body()


@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1" * 400])
def test_integers_beyond_64_bits_stay_integers(number):
    """An integer beyond 64 bits, such as a seed, is not rounded to a float."""
    body = b'{"model":"gpt","messages":[{}],"seed":%s}' % number.encode()

    assert b'"seed":%s' % number.encode() in prepared(body, prompt="p").body()


def test_the_last_of_a_repeated_name_counts():
    """If a name is repeated where the gateway reads nothing, the last value counts, as at Azure."""
    body = b'{"model":"gpt","messages":[{}],"metadata":{"a":"1","a":"2"}}'

    assert body is prepared(body).body()
    assert {"a": "2"} == json.loads(prepared(body, prompt="p").body())["metadata"]


@pytest.mark.parametrize("depth", [10, MOST_LEVELS - 1])
def test_takes_deep_nesting(depth):
    """A deeply nested schema of a tool arrives unchanged."""
    deep = b"[" * depth + b"]" * depth
    body = b'{"model":"gpt","messages":[{}],"x":%s}' % deep

    assert deep in prepared(body, prompt="p").body()


@pytest.mark.parametrize("depth", [MOST_LEVELS, 1000, 1020, 1100, 100_000])
@pytest.mark.parametrize("extra", [b"", b',"seed":18446744073709551616', b',"half":"\\ud800"'])
def test_refuses_nesting_that_could_not_be_written_again(depth, extra):
    """A body that could not be written again is refused before anything is sent."""
    body = b'{"model":"gpt","messages":[{}],"x":%s%s}' % (b"[" * depth + b"]" * depth, extra)

    with pytest.raises(InvalidRequest, match="levels deep"):
        prepared(body)


def test_puts_the_prompt_in_front():
    """The organisation's prompt comes first, then the client's own system message."""
    own = {"role": "system", "content": "You are a pirate."}

    sent = json.loads(prepared(chat(messages=[own, HELLO]), prompt=PROMPT).body())

    assert [{"role": "system", "content": PROMPT}, own, HELLO] == sent["messages"]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["user"], "system"),
        (["developer", "user"], "developer"),
        (["user", "developer"], "developer"),
        (["developer", "system"], "system"),
        (["system", "user"], "system"),
        (["Developer"], "system"),
    ],
)
def test_the_prompt_has_the_role_that_the_client_uses(roles, expected):
    """Reasoning models take one of system and developer, not both."""
    messages = [{"role": role, "content": "x"} for role in roles]

    sent = json.loads(prepared(chat(messages=messages), prompt=PROMPT).body())["messages"]

    assert [{"role": expected, "content": PROMPT}, *messages] == sent


def test_keeps_the_order_of_fields():
    """The fields keep their order."""
    body = b'{"z":1,"messages":[{}],"a":2,"model":"gpt"}'

    assert ["z", "messages", "a", "model"] == list(json.loads(prepared(body, prompt="p").body()))


def test_leaves_the_document_alone():
    """Writing the body twice gives the same bytes: a repeated request has the prompt once."""
    made = prepared(chat(stream=True), prompt=PROMPT)

    assert made.body() == made.body()
    assert [HELLO] == made.document["messages"]


@pytest.mark.parametrize(
    ("options", "sent", "withheld"),
    [
        (None, {"include_usage": True}, True),
        ({}, {"include_usage": True}, True),
        ({"include_usage": False}, {"include_usage": True}, True),
        ({"include_usage": None}, {"include_usage": True}, True),
        ({"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}, True),
        ({"include_usage": True, "x": 1}, {"include_usage": True, "x": 1}, False),
    ],
)
def test_asks_for_usage_on_streams(options, sent, withheld):
    """A stream asks for usage and keeps the client's options; the client gets the event only if it asked for it."""
    made = prepared(chat(stream=True, stream_options=options))

    assert withheld == made.withhold_usage
    assert sent == json.loads(made.body())["stream_options"]


def test_asks_for_usage_only_where_it_is_taken():
    """A deployment that does not accept stream_options gets the client's own body."""
    body = chat(stream=True, stream_options={"include_obfuscation": False})

    assert body is prepared(body).body(include_usage=False)
    assert b"include_usage" not in prepared(body, prompt="p").body(include_usage=False)


@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": None}])
def test_never_asks_for_usage_without_a_stream(stream):
    """Azure refuses stream_options if the answer is not streamed."""
    made = prepared(chat(**stream), prompt=PROMPT)

    assert (False, False) == (made.stream, made.withhold_usage)
    assert "stream_options" not in json.loads(made.body())


@pytest.mark.parametrize(
    ("fields", "choices", "bound"),
    [
        ({}, 1, None),
        ({"n": 3}, 3, None),
        ({"max_tokens": 20_000}, 1, 20_000),
        ({"max_tokens": 20_000.0}, 1, 20_000),
        ({"max_completion_tokens": 2e4}, 1, 20_000),
        ({"max_completion_tokens": 10, "max_tokens": 20}, 1, 20),
        ({"max_completion_tokens": 20, "max_tokens": None}, 1, 20),
        ({"max_tokens": None, "max_completion_tokens": None, "n": None}, 1, None),
        ({"max_tokens": 20, "n": 3.0}, 3, 20),
        ({"max_tokens": LARGEST_BOUND, "n": MOST_CHOICES}, MOST_CHOICES, LARGEST_BOUND),
    ],
)
def test_reads_the_bound_of_the_answer(fields, choices, bound):
    """A float without a fraction counts as the number; null is no bound."""
    made = prepared(chat(**fields))

    assert (choices, bound) == (made.asked.choices, made.asked.most_tokens)
    assert chat(**fields) == made.body()


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n"])
@pytest.mark.parametrize(
    "value",
    ["0", "-1", "0.0", "-0.0", "1.5", "true", "false", '"20000"', '""', "[]", "{}", "1e300", "2147483648", "9" * 400],
)
def test_refuses_bounds_that_azure_refuses(name, value):
    """A bound that is no positive whole number is 400 with the name of the field."""
    with pytest.raises(InvalidRequest, match=f"'{name}' must be") as refused:
        prepared(b'{"model":"gpt","messages":[{}],"%s":%s}' % (name.encode(), value.encode()))

    assert name == refused.value.param


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"", None, "no body"),
        (b"secret words", None, "not valid JSON"),
        (b'{"messages": ["secret words"', None, "not valid JSON"),
        (b'\xff\xfe{"messages":[{}]}', None, "not valid JSON"),
        (b'{"messages":[{"content":"secret words \xff"}]}', None, "not valid JSON: it is not UTF-8 at byte 38"),
        (b'\xef\xbb\xbf{"messages":[{}]}', None, "not valid JSON: it begins with a byte order mark"),
        (b'{"messages":[{}],"x":NaN}', None, "not valid JSON at byte 21: NaN is not JSON"),
        (b'{"messages":[{}],"x":-Infinity}', None, "not valid JSON at byte 22: Infinity is not JSON"),
        (b'{"messages":[{}],"x":1e400}', None, "not valid JSON at byte 21: the number is too large"),
        (b"[]", None, "must be a JSON object"),
        (b'"secret words"', None, "must be a JSON object"),
        (b"null", None, "must be a JSON object"),
        (b"{}", "messages", "'messages' is missing"),
        (b'{"messages":[]}', "messages", "'messages' is empty"),
        (b'{"messages":[{},{"role":5}]}', "messages[1].role", r"'messages\[1\].role' must be a string"),
        (b'{"messages":[{"role":null}]}', "messages[0].role", "must be a string"),
        (b'{"messages":null}', "messages", "must be a list"),
        (b'{"messages":{"content":"secret words"}}', "messages", "must be a list"),
        (b'{"messages":["secret words"]}', "messages[0]", r"'messages\[0\]' must be an object"),
        (b'{"messages":[{},{},null]}', "messages[2]", r"'messages\[2\]' must be an object"),
        (b'{"messages":[{}],"stream":1}', "stream", "'stream' must be true or false"),
        (b'{"messages":[{}],"stream":"secret words"}', "stream", "'stream' must be true or false"),
        (b'{"messages":[{}],"stream_options":[]}', "stream_options", "'stream_options' must be an object"),
        (b'{"messages":[{}],"stream":true,"stream_options":"x"}', "stream_options", "must be an object"),
        (b'{"messages":[{}],"model":5}', "model", "'model' must be a string"),
        (b'{"messages":[{}]}', "model", "'model' is missing"),
        (b'{"messages":[{}],"model":""}', "model", "'model' is missing"),
    ],
)
def test_refuses_what_it_cannot_understand(body, param, message):
    """The message says what is wrong and where, and quotes nothing of the conversation."""
    with pytest.raises(InvalidRequest, match=message) as refused:
        prepared(body)

    assert (400, param) == (refused.value.status, refused.value.param)
    assert "secret" not in refused.value.message
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_says_where_json_breaks():
    """The message names the byte at which the JSON is invalid."""
    with pytest.raises(InvalidRequest, match="at byte 17"):
        prepared(b'{"messages": [], x}')


@pytest.mark.parametrize(
    ("endpoint", "asked", "model", "deployment"),
    [
        (V1, "gpt", "gpt", "gpt"),
        (V1, "org/gpt (2024)", "org/gpt (2024)", "org/gpt (2024)"),
        (FIXED, "anything", "anything", "gpt"),
        (FIXED, None, "gpt", "gpt"),
        (FIXED, "", "gpt", "gpt"),
        (IN_PATH, "gpt-4o", "gpt-4o", "gpt-4o"),
    ],
)
def test_finds_the_deployment(endpoint, asked, model, deployment):
    """The record has the name that the client sent; the URL decides which deployment is used."""
    made = prepared(chat(model=asked), endpoint=endpoint)

    assert (model, deployment, 7) == (made.model, made.deployment, made.prompt.version)


@pytest.mark.parametrize("model", ["../gpt", "a/b", "a?b", "..", "a#b", "a b", "%2e%2e"])
def test_no_model_changes_the_path(model):
    """If the URL contains the model, a name that would change the path does not exist."""
    with pytest.raises(ModelNotFound):
        prepared(chat(model=model), endpoint=IN_PATH)


@pytest.mark.parametrize("model", ["half \ud800", "two\nlines", "\x00", "m" * (LONGEST_MODEL_NAME + 1)])
@pytest.mark.parametrize("endpoint", [V1, FIXED, IN_PATH])
def test_refuses_names_that_cannot_be_recorded(model, endpoint):
    """A name that is too long or has unprintable characters is refused, because the record stores it."""
    with pytest.raises(ModelNotFound) as refused:
        prepared(chat(model=model), endpoint=endpoint)

    assert ("model", 404) == (refused.value.param, refused.value.status)
    assert model not in refused.value.message


@pytest.mark.parametrize(
    ("allowed", "offered", "error"),
    [
        (None, (), None),
        (("gpt",), (), None),
        (None, ("gpt",), None),
        (("gpt", "o3"), ("gpt",), None),
        ((), (), ModelNotAllowed),
        (("o3",), (), ModelNotAllowed),
        (("o3",), ("o3", "gpt"), ModelNotAllowed),
        (("gpt",), ("o3",), ModelNotFound),
        (("o3",), ("o3",), ModelNotFound),
    ],
)
def test_checks_the_model(allowed, offered, error):
    """A model that is not offered does not exist; a model that is offered may be forbidden for a key."""
    if error is None:
        assert "gpt" == prepared(chat(), allowed=allowed, offered=offered).model
    else:
        with pytest.raises(error, match="'gpt'"):
            prepared(chat(), allowed=allowed, offered=offered)

"""A body that can be read in two ways is refused, whatever its spelling; all others are accepted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.errors import InvalidRequest
from llmgateway.proxy.parsing import CHAT_FORMAT, parse

START = b'{"model":"gpt","messages":[{"role":"user","content":"Hello"}]'
MESSAGE = b'{"model":"gpt","messages":[{"role":"user","content":"Hello"%s}]}'


def body(rest: bytes) -> bytes:
    return START + b"," + rest + b"}"


@pytest.mark.parametrize(
    ("text", "param", "says"),
    [
        (body(b'"model":"gpt"'), "model", "'model' appears twice in the body"),
        (body(b'"model":"o3"'), "model", "'model' appears twice"),
        (body(b'"model" : "o3"'), "model", "'model' appears twice"),
        (body(b'"model"\r\n\t :"o3"'), "model", "'model' appears twice"),
        (body(rb'"\u006dodel":"o3"'), "model", "'model' appears twice"),
        (body(rb'"mod\u0065l":"o3"'), "model", "'model' appears twice"),
        (body(rb'"\u006D\u006F\u0064\u0065\u006C":"o3"'), "model", "'model' appears twice"),
        (body(b'"messages":[{}]'), "messages", "'messages' appears twice"),
        (body(b'"stream":true,"stream":false'), "stream", "'stream' appears twice"),
        (body(b'"max_tokens":1,"max_tokens":100000'), "max_tokens", "'max_tokens' appears twice"),
        (body(b'"n":1,"n":128'), "n", "'n' appears twice"),
        (body(b'"temperature":1,"temperature":1'), "temperature", "'temperature' appears twice"),
        (body(b'"my secret words":1,"my secret words":1'), None, "A name appears twice in the body"),
        (body(b'"x":"\\ud800","n":1,"n":128'), "n", "'n' appears twice"),
        (body(b'"seed":18446744073709551616,"n":1,"n":128'), "n", "'n' appears twice"),
        (
            body(b'"stream":true,"stream_options":{"include_usage":true,"include_usage":false}'),
            "stream_options.include_usage",
            "'include_usage' appears twice in 'stream_options'",
        ),
        (MESSAGE % b',"role":"developer"', "messages[0].role", r"'role' appears twice in 'messages\[0\]'"),
        (MESSAGE % b',"content":"secret words"', "messages[0].content", "'content' appears twice"),
        (MESSAGE % b',"conten\\u0074":"secret words"', "messages[0].content", "'content' appears twice"),
        (MESSAGE % b',"x":[{"type":"text","text":"","text":"secret words"}]', "messages[0].text", "'text' appears"),
        (MESSAGE % b',"x":{"y":{"arguments":"","arguments":"secret"}}', "messages[0].arguments", "appears twice"),
        (
            body(b'"tools":[{},{"function":{"name":"a","description":"secret words","description":"b"}}]'),
            "tools[1].description",
            r"'description' appears twice in 'tools\[1\]'",
        ),
        (body(b'"tools":{"a":{"b":1,"b":2}}'), "tools.b", "'b' appears twice in 'tools'"),
        (body(b'"functions":[{"parameters":{"properties":{"x":{},"x":{}}}}]'), "functions[0].x", "'x' appears twice"),
        (body(b'"functions":[{"parameters":{"properties":{"secret x":{},"secret x":{}}}}]'), "functions[0]", "A name"),
        (
            body(b'"response_format":{"json_schema":{"schema":{"enum":["secret"],"enum":[]}}}'),
            "response_format.enum",
            "'enum' appears",
        ),
        (
            body(b'"prediction":{"type":"content","content":"secret words","content":"b"}'),
            "prediction.content",
            "'content' appears",
        ),
        (body(b'"prediction":{"content":[{"text":"secret words","te\\u0078t":"b"}]}'), "prediction.text", "'text' app"),
        (
            body(b'"data_sources":[{"parameters":{"role_information":"secret","role_information":""}}]'),
            "data_sources[0].role_information",
            "twice",
        ),
    ],
)
def test_a_repeated_name_is_refused(text, param, says):
    """Whichever value Azure reads, the gateway may have read the other."""
    with pytest.raises(InvalidRequest, match=says) as refused:
        parse(text, CHAT_FORMAT)

    assert param == refused.value.param
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "param", "says"),
    [
        (body(b'"Model":"o3"'), "model", "'Model' differs from 'model'"),
        (body(b'"MESSAGES":[]'), "messages", "'MESSAGES' differs from 'messages'"),
        (body(b'"Stream":true'), "stream", "'Stream' differs from 'stream'"),
        (body(b'"Stream_Options":{}'), "stream_options", "'Stream_Options' differs"),
        (body(b'"Max_Tokens":5'), "max_tokens", "'Max_Tokens' differs"),
        (body(b'"N":5'), "n", "'N' differs from 'n'"),
        (body(rb'"\u004dodel":"o3"'), "model", "'Model' differs"),
        (body('"\u017ftream":true'.encode()), "stream", "A name differs from 'stream'"),
        (body(rb'"\u017ftream":true'), "stream", "A name differs from 'stream'"),
        (body('"max_to\u212aens":5'.encode()), "max_tokens", "A name differs from 'max_tokens'"),
        (body('"pred\u0131ct\u0130on":5'.encode()), "prediction", "A name differs from 'prediction'"),
        (body(rb'"model\u0000secret":"o3"'), "model", "A name differs from 'model'"),
        (body(rb'"Model\u0000":"o3"'), "model", "A name differs from 'model'"),
        (body(b'"stream_options":{"Include_Usage":true}'), "stream_options.include_usage", "'Include_Usage' in"),
        (MESSAGE % b',"Role":"system"', "messages[0].role", r"'Role' in 'messages\[0\]' differs from 'role'"),
        (MESSAGE % b',"CONTENT":"secret words"', "messages[0].content", "'CONTENT' in"),
        (MESSAGE % b',"x":[{"type":"text","Text":"secret words"}]', "messages[0].text", "'Text' in"),
        (body(b'"prediction":{"type":"content","Content":"secret words"}'), "prediction.content", "'Content' in 'pred"),
        (body(b'"prediction":{"content":[{"type":"text","TEXT":"secret"}]}'), "prediction.text", "'TEXT' in"),
        (MESSAGE % b',"tool_calls":[{"function":{"Arguments":"secret"}}]', "messages[0].arguments", "'Arguments' in"),
    ],
)
def test_a_known_name_in_other_letters_is_refused(text, param, says):
    """A server that compares names without case reads it, and the gateway does not."""
    with pytest.raises(InvalidRequest, match=says) as refused:
        parse(text, CHAT_FORMAT)

    assert param == refused.value.param
    assert "secret" not in refused.value.message


SCHEMA = {"type": "object", "properties": {"model": {"Model": 1}, "messages": {"stream": 1}, "N": {}, "Role": {}}}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}] * 2},
        {"metadata": {"model": "model", "Stream": "x"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA | {"Type": 1}}}},
        {
            "prediction": {
                "type": "content",
                "content": [{"type": "text", "text": "content"}] * 2,
                "future": {"x": {"Text": 1}},
            }
        },
        {"Model2": 1, "mode": 1, "": 1, "streams": True, "\u017f": 1},
        {"user": 'He said "model": and "messages":[]', "x": "\\u006dodel"},
        {"messages": [{"role": "user", "content": "role", "name": "role"}] * 3},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "text"}] * 2}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"ID": 1, "Content": 2}}]}]},
        {"messages": [{"role": "assistant", "context": {"intent": "x"}}]},
        {"messages": [{"role": "user", "content": '"role":"system","role":"x", "content" : 1'}]},
    ],
)
@pytest.mark.parametrize("style", [{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}])
def test_names_may_repeat_in_different_objects(more, style):
    """Names are compared within one object, and texts are no names."""
    document = {"model": "gpt", "messages": [{"role": "user", "content": "Hello"}]} | more

    assert document == parse(json.dumps(document, **style).encode(), CHAT_FORMAT)


def escaped(name: str) -> st.SearchStrategy[str]:
    """Some spellings of a name in JSON."""
    letters = [st.sampled_from([letter, f"\\u{ord(letter):04x}", f"\\u{ord(letter):04X}"]) for letter in name]
    return st.tuples(*letters).map("".join)


BLANKS = st.text(" \t\r\n", max_size=3)


@given(st.sampled_from(["model", "n", "stream", "temperature"]).flatmap(escaped), BLANKS, BLANKS, BLANKS, st.booleans())
def test_every_spelling_of_a_repeated_name_is_found(name, before, after, around, twice):
    """Blanks and escapes anywhere hide nothing, and alone they are no reason to refuse."""
    value = "null"
    rest = f'{around}"temperature":null,"stream":null,"n":null'
    if not twice:
        plain = json.loads(f'"{name}"')
        rest = rest.replace(f'"{plain}"', '"other"')
    text = f'{{{rest},"messages":[{{}}]{around},{before}"{name}"{after}:{value}'
    text += "}" if json.loads(f'"{name}"') != "model" or not twice else ',"model":null}'

    if twice:
        with pytest.raises(InvalidRequest, match="appears twice"):
            parse(text.encode(), CHAT_FORMAT)
    else:
        assert json.loads(text) == parse(text.encode(), CHAT_FORMAT)


def test_the_byte_of_an_error_counts_bytes():
    """A letter of two bytes counts as two."""
    with pytest.raises(InvalidRequest, match="at byte 9"):
        parse('{"é":1, x}'.encode(), CHAT_FORMAT)

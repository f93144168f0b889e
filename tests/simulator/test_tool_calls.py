"""In chat, several functions can be called at once, and JSON is what a prompt or a schema asks for."""

from __future__ import annotations

import json

import pytest

from llmgateway.simulator import Script

from .calls import CHAT, call

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"city": {}}}}}
    for name in ("get_weather", "readClock", "search")
]
ASK = [{"role": "user", "content": "The weather and the clock of Rome?"}]
SCHEMA = {"properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}


def test_several_functions_are_called_at_once(v1, azure):
    """Those that the question speaks of, each with an id and arguments of its own; all of them are billed."""
    answer = v1.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=TOOLS)
    calls = answer.choices[0].message.tool_calls

    assert [made.function.name for made in calls] == ["get_weather", "readClock"]
    assert len({made.id for made in calls}) == 2
    assert all(json.loads(made.function.arguments).keys() == {"city"} for made in calls)
    assert answer.usage.completion_tokens == azure.served[0].billed.completion_tokens > 4


def test_a_stream_of_several_calls_says_the_same(v1):
    """The official client puts the fragments together by their index."""
    how = {"model": "gpt-4o-mini", "messages": ASK, "tools": TOOLS}
    plain = v1.chat.completions.create(**how)
    with v1.chat.completions.stream(**how) as stream:
        final = stream.get_final_completion()

    def functions(answer):
        return [(c.function.name, c.function.arguments) for c in answer.choices[0].message.tool_calls]

    assert functions(plain) == functions(final)


def test_one_function_is_called_if_parallel_calls_are_off(v1):
    """The one that fits best."""
    answer = v1.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=TOOLS, parallel_tool_calls=False)

    assert 1 == len(answer.choices[0].message.tool_calls)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"properties": {"city": {}, "login": {}, "shell": {}}, "required": ["city"]}, ["city"]),
        ({"properties": {"city": {}, "login": {}}, "required": []}, ["city", "login"]),
    ],
    ids=["required", "none required"],
)
def test_arguments_that_may_be_left_away_are(v1, parameters, expected):
    """A value that is made up for one is seldom one that the function can use."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"} | parameters}}
    answer = v1.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=[tool])

    [made] = answer.choices[0].message.tool_calls
    assert expected == list(json.loads(made.function.arguments))


def test_a_script_orders_several_calls(v1, azure):
    """Whatever the question is."""
    azure.script(Script(tool_calls=("search", "readClock")))
    answer = v1.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=TOOLS)

    assert ["search", "readClock"] == [made.function.name for made in answer.choices[0].message.tool_calls]


def test_calls_that_do_not_fit_are_cut(azure):
    """No more is billed than the client allowed."""
    answer = call(azure, {**CHAT, "messages": ASK, "tools": TOOLS, "max_completion_tokens": 5}).json

    assert answer["choices"][0]["finish_reason"] == "length"
    assert len(answer["choices"][0]["message"]["tool_calls"]) == 1
    assert answer["usage"]["completion_tokens"] <= 5


@pytest.mark.parametrize("fenced", [False, True], ids=["json mode", "fenced"])
def test_a_schema_in_the_prompt_is_kept(azure, fenced):
    """Programs that know no other way describe what they want in words."""
    wish = " Answer in a ```json block." if fenced else ""
    messages = [
        {"role": "system", "content": f"Follow this schema of JSON: {json.dumps(SCHEMA)}.{wish}"},
        {"role": "user", "content": "Jason is 25 years old"},
    ]
    form = {} if fenced else {"response_format": {"type": "json_object"}}
    text = call(azure, {**CHAT, "messages": messages, **form}).json["choices"][0]["message"]["content"]

    assert text.startswith("```json\n") == fenced
    assert {"name": "Jason", "age": 25} == json.loads(text.removeprefix("```json\n").removesuffix("\n```"))

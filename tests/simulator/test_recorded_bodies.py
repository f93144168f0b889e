"""What was recorded of Azure comes out of the simulator byte for byte."""

from __future__ import annotations

import json
import re

import pytest

from llmgateway.simulator import DEFAULT_KEY, Script, Simulator

from .calls import CHAT, CLASSIC, HELLO, STREAM, V1, call

UNAUTHORIZED = (
    b'{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. '
    b"Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your "
    b'resource."}}'
)
APIM_UNAUTHORIZED = (
    b'{"statusCode":401,"message":"Access denied due to invalid subscription key. '
    b'Make sure to provide a valid key for an active subscription."}'
)
NO_DEPLOYMENT = (
    b'{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist. If you '
    b'created the deployment within the last 5 minutes, please wait a moment and try again."}}'
)
NOT_FOUND = b'{"error":{"code":"404","message":"Resource not found"}}'
CONTENT_FILTER = (
    b'{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI\'s content management '
    b"policy. Please modify your prompt and retry. To learn more about our content filtering policies please read our "
    b'documentation: https://go.microsoft.com/fwlink/?linkid=2198766","type":null,"param":"prompt","code":"content_'
    b'filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filt'
    b'ered":false,"severity":"safe"},"jailbreak":{"detected":false,"filtered":false},"self_harm":{"filtered":false,"se'
    b'verity":"safe"},"sexual":{"filtered":true,"severity":"high"},"violence":{"filtered":false,"severity":"safe"}}}}}'
)
APIM = "/team/openai/deployments/gpt-4o-mini/chat/completions"


def shape(body: bytes) -> str:
    """A body with what differs from answer to answer taken out."""
    text = re.sub(r'"id":"chatcmpl-\w+"', '"id":"ID"', body.decode())
    return re.sub(r'"created":[1-9]\d+', '"created":1', text)


def test_the_401_is_the_recorded_one(azure):
    """A wrong key is answered with Azure's 224 bytes."""
    answer = call(azure, headers={"api-key": "wrong"})

    assert (answer.status, answer.body, len(answer.body)) == (401, UNAUTHORIZED, 224)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (V1, {"api-key": DEFAULT_KEY}, 200),
        (V1, {"Authorization": f"Bearer {DEFAULT_KEY}"}, 200),
        (V1, {"Ocp-Apim-Subscription-Key": DEFAULT_KEY}, 401),
        (V1, {}, 401),
        (CLASSIC, {"api-key": DEFAULT_KEY}, 200),
        (CLASSIC, {"Authorization": f"Bearer {DEFAULT_KEY}"}, 401),
        (APIM, {"Ocp-Apim-Subscription-Key": DEFAULT_KEY}, 200),
        (APIM, {"api-key": DEFAULT_KEY}, 200),
        (CLASSIC, {"Ocp-Apim-Subscription-Key": DEFAULT_KEY}, 200),
    ],
)
def test_each_url_has_its_own_headers_for_the_key(azure, path, headers, status):
    """The key counts where Azure looks for it, and nowhere else."""
    assert call(azure, path=path, headers=headers).status == status
    assert azure.served[0].authenticated is (status == 200)


def test_api_management_has_a_401_of_its_own(azure):
    """A wrong key and a missing one differ in their text."""
    wrong = call(azure, path=APIM, headers={"Ocp-Apim-Subscription-Key": "wrong"})
    missing = call(azure, path=APIM, headers={})

    assert (wrong.status, wrong.body) == (401, APIM_UNAUTHORIZED)
    assert missing.json["message"].startswith("Access denied due to missing subscription key")


def test_an_unknown_deployment(azure):
    """Classic and v1 say it with different keys."""
    classic = call(azure, path=CLASSIC.replace("gpt-4o-mini", "nothing"))
    v1 = call(azure, {**CHAT, "model": "nothing"})

    assert (classic.status, classic.body) == (404, NO_DEPLOYMENT)
    assert v1.status == 404
    assert v1.json["error"] == {**json.loads(NO_DEPLOYMENT)["error"], "type": "invalid_request_error"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/openai/deployments/gpt-4o-mini/chat/completions"),
        ("POST", "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-13-13"),
        ("POST", "/openai/v1/chat/completions?api-version=2024-10-21"),
        ("POST", "/openai/v1/chat"),
        ("POST", "/"),
        ("GET", V1),
    ],
)
def test_a_wrong_path_or_version_is_not_found(azure, method, path):
    """Azure does not tell a wrong path from a wrong api-version."""
    answer = call(azure, path=path, method=method)

    assert (answer.status, answer.body) == (404, NOT_FOUND)


def test_the_classic_api_ignores_the_model(azure):
    """The deployment is the one in the path."""
    answer = call(azure, {**CHAT, "model": "whatever"}, path=CLASSIC)

    assert answer.json["model"] == "gpt-4o-mini-2024-07-18"


def test_v1_takes_an_optional_preview_version(azure):
    """?api-version=preview is still seen and accepted."""
    assert call(azure, path=V1 + "?api-version=preview").status == 200


@pytest.mark.parametrize(
    ("body", "code", "param", "text"),
    [
        (b"{", None, None, "could not parse the JSON"),
        (b"[1]", None, None, "could not parse the JSON"),
        ({"model": "gpt-4o-mini"}, "missing_required_parameter", "messages", "Missing required parameter: 'messages'."),
        ({**CHAT, "messages": []}, "empty_array", "messages", "empty array"),
        ({**CHAT, "messages": "hi"}, "invalid_type", "messages", "expected an array"),
        ({**CHAT, "messages": ["hi"]}, "invalid_type", "messages[0]", "expected an object"),
        ({**CHAT, "max_tokens": 0}, "integer_below_min_value", "max_tokens", ">= 1"),
        ({**CHAT, "n": 99999999}, "integer_above_max_value", "n", "<= 128"),
        ({**CHAT, "n": "two"}, "invalid_type", "n", "integer"),
        ({"messages": HELLO}, None, None, "you must provide a model parameter"),
        (
            {**CHAT, "stream_options": {"include_usage": True}},
            None,
            "stream_options",
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        ),
        ({**STREAM, "model": "antique"}, "unknown_parameter", "stream_options", "Unknown parameter: 'stream_options'."),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(azure, body, code, param, text):
    """400 with OpenAI's error object."""
    answer = call(azure, body)
    error = answer.json["error"]

    assert answer.status == 400
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert text in error["message"]


def test_an_old_api_version_rejects_stream_options_in_the_old_words(azure):
    """Before August 2024 the API did not know them."""
    answer = call(azure, STREAM, path=CLASSIC.replace("2024-10-21", "2024-06-01"))

    assert answer.status == 400
    assert answer.json["error"]["message"] == "Unrecognized request argument supplied: stream_options"


def test_unknown_parameters_are_ignored_unless_strict(azure):
    """A strict resource rejects them by name."""
    body = {**CHAT, "frobnicate": 1}
    with Simulator(strict=True) as strict:
        refused = call(strict, body)

    assert call(azure, body).status == 200
    assert refused.body == (
        b'{"error":{"message":"Unknown parameter: \'frobnicate\'.","type":"invalid_request_error",'
        b'"param":"frobnicate","code":"unknown_parameter"}}'
    )


def test_the_content_filter_is_the_recorded_one(azure):
    """The error has the singular content_filter_result."""
    azure.script(Script(fault="content_filter"))

    assert call(azure, STREAM).body == CONTENT_FILTER


KINDS_OF_429 = (
    "token_rate_limit",
    "call_rate_limit",
    "token_rate_limit_newer",
    "token_rate_limit_2023",
    "capacity",
    "adjusted_limit",
    "token_estimate",
)


def test_the_kinds_of_429_differ_in_text_and_headers(azure):
    """Own limit (two kinds), capacity, lowered limit, estimate; older and newer words."""
    answers = {}
    for name in [
        "token_rate_limit",
        "call_rate_limit",
        "token_rate_limit_newer",
        "token_rate_limit_2023",
        "capacity",
        "adjusted_limit",
        "token_estimate",
    ]:
        azure.script(Script(fault=name))
        answers[name] = call(azure, path=CLASSIC)
    texts = {name: answer.json["error"]["message"] for name, answer in answers.items()}

    assert {answer.status for answer in answers.values()} == {429}
    assert texts["token_rate_limit"] == (
        "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded "
        "token rate limit of your current OpenAI S0 pricing tier. Please retry after 22 seconds. Please go here: "
        "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."
    )
    assert "have exceeded call rate limit" in texts["call_rate_limit"]
    assert texts["token_rate_limit_newer"] == (
        "Your requests to gpt-4o-mini for gpt-4o-mini in East US 2 have exceeded the token rate limit for your current "
        "AIServices S0 pricing tier. This request was for ChatCompletions_Create under Azure OpenAI API version "
        "2024-10-21. Please retry after 45 seconds."
    )
    assert texts["capacity"].startswith("The system is currently experiencing high demand")
    assert answers["capacity"].headers["retry-after"] == "6"
    assert answers["capacity"].headers["x-ratelimit-remaining-tokens"] == "119986"
    assert answers["adjusted_limit"].headers["x-ratelimit-limit-tokens"] == "12000"
    assert answers["token_estimate"].headers["x-ratelimit-remaining-tokens"] == "3000"
    ancient = answers["token_rate_limit_2023"].headers
    assert "retry-after" not in ancient
    assert (ancient["x-rate-limit-reset-tokens"], ancient["policy-id"]) == ("55", "DeploymentRatelimit-Token")


def test_a_429_of_v1_names_its_api_and_the_scripted_time(azure):
    """There is no api-version to name."""
    azure.script(Script(fault="token_rate_limit", retry_after=3))
    answer = call(azure)

    assert "under OpenAI Language Model Instance API have" in answer.json["error"]["message"]
    assert "retry after 3 seconds" in answer.json["error"]["message"]
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("3", "3000")


def test_a_plain_answer_is_the_recorded_one(azure):
    """Keys in Azure's order, filter results of everything, both details of the usage, a newline."""
    assert shape(call(azure).body) == (
        '{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"protected_material_code":'
        '{"detected":false,"filtered":false},"protected_material_text":{"detected":false,"filtered":false},"self_harm":'
        '{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":'
        'false,"severity":"safe"}},"finish_reason":"stop","index":0,"logprobs":null,"message":{"annotations":[],'
        '"content":"You said: hello there","refusal":null,"role":"assistant"}}],"created":1,"id":"ID","model":'
        '"gpt-4o-mini-2024-07-18","object":"chat.completion","prompt_filter_results":[{"prompt_index":0,'
        '"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"detected":false,'
        '"filtered":false},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":'
        '"safe"},"violence":{"filtered":false,"severity":"safe"}}}],"system_fingerprint":"fp_b6f445fc1c","usage":'
        '{"completion_tokens":4,"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,'
        '"reasoning_tokens":0,"rejected_prediction_tokens":0},"prompt_tokens":8,"prompt_tokens_details":{"audio_tokens"'
        ':0,"cached_tokens":0},"total_tokens":12}}\n'
    )


STREAMED = """\
data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_\
filter_results":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"detected":false,"filtered":false},"self_\
harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":\
false,"severity":"safe"}}}]}

data: {"choices":[{"content_filter_results":{},"delta":{"content":"","refusal":null,"role":"assistant"},"finish_\
reason":null,"index":0,"logprobs":null}],COMMON,"usage":null}

data: {"choices":[{"content_filter_results":SAFE,"delta":{"content":"Why"},"finish_reason":null,"index":0,"logprobs":\
null}],COMMON,"usage":null}

data: {"choices":[{"content_filter_results":SAFE,"delta":{"content":" not?"},"finish_reason":null,"index":0,"logprobs\
":null}],COMMON,"usage":null}

data: {"choices":[{"content_filter_results":{},"delta":{},"finish_reason":"stop","index":0,"logprobs":null}],COMMON,\
"usage":null}

data: {"choices":[],COMMON,"usage":{"completion_tokens":2,"completion_tokens_details":{"accepted_prediction_tokens":\
0,"audio_tokens":0,"reasoning_tokens":0,"rejected_prediction_tokens":0},"prompt_tokens":8,"prompt_tokens_details":{\
"audio_tokens":0,"cached_tokens":0},"total_tokens":10}}

data: [DONE]

"""
SAFE = (
    '{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},'
    '"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}'
)
COMMON = (
    '"created":1,"id":"ID","model":"gpt-4o-mini-2024-07-18",OBFUSCATION"object":"chat.completion.chunk",'
    '"system_fingerprint":"fp_b6f445fc1c"'
)


def streamed(body: bytes) -> str:
    return re.sub(r'"obfuscation":"\w*",', "OBFUSCATION", shape(body))


def expected(*, obfuscated: bool = True, usage: bool = True) -> str:
    text = STREAMED.replace("COMMON", COMMON).replace("SAFE", SAFE)
    if not usage:
        events = text.replace(',"usage":null', "").split("\n\n")
        text = "\n\n".join([*events[:5], *events[6:]])
    return text if obfuscated else text.replace("OBFUSCATION", "")


def test_a_stream_with_usage_is_the_recorded_one(azure):
    """The filter event has no usage, the others null, and the last one before [DONE] the bill."""
    azure.script(Script(answer="Why not?"))
    answer = call(azure, STREAM)

    assert streamed(answer.body) == expected()
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["transfer-encoding"] == "chunked"


def test_a_stream_that_asks_for_no_usage_has_none_at_all(azure):
    """Neither null nor a bill."""
    azure.script(Script(answer="Why not?"))

    assert streamed(call(azure, {**CHAT, "stream": True}).body) == expected(usage=False)


def test_obfuscation_can_be_switched_off(azure):
    """include_obfuscation: false."""
    azure.script(Script(answer="Why not?"))
    body = {**STREAM, "stream_options": {"include_usage": True, "include_obfuscation": False}}

    assert streamed(call(azure, body).body) == expected(obfuscated=False)


RECORDED_HEADERS = {
    "apim-request-id",
    "azureml-model-session",
    "skip-error-remapping",
    "x-accel-buffering",
    "x-content-type-options",
    "x-ms-deployment-name",
    "x-ms-is-spilled-over",
    "x-ms-rai-invoked",
    "x-ms-region",
    "x-ms-client-request-id",
    "x-ratelimit-abusepenalty-active",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-renewalperiod-requests",
    "x-ratelimit-renewalperiod-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
    "strict-transport-security",
}


def test_the_headers_are_the_recorded_ones(azure):
    """Everything of 2026-03-31, and the client's request id comes back."""
    headers = call(azure, headers={"api-key": DEFAULT_KEY, "x-ms-client-request-id": "req_1"}).headers

    assert headers["x-ms-client-request-id"] == "req_1"
    assert headers["x-ms-deployment-name"] == "gpt-4o-mini"
    assert set(headers) == RECORDED_HEADERS | {"content-type", "content-length", "date", "connection"}


def test_the_asynchronous_filter_speaks_after_the_end(azure):
    """Content events carry no results; annotations have no delta and one comes after the stop."""
    azure.script(Script(filter="asynchronous"))
    events = call(azure, {**CHAT, "stream": True}).events
    kinds = [
        "annotation" if "content_filter_offsets" in choice else choice["finish_reason"] or "content"
        for event in events
        for choice in event["choices"]
    ]

    assert kinds == ["content"] * 3 + ["annotation"] + ["content"] * 2 + ["stop", "annotation"]
    assert events[-1]["id"] == ""
    assert "delta" not in events[-1]["choices"][0]
    assert events[-1]["choices"][0]["content_filter_offsets"] == {
        "check_offset": 10,
        "start_offset": 10,
        "end_offset": 21,
    }
    assert "content_filter_results" not in events[2]["choices"][0]


def test_a_late_block_ends_the_stream(azure):
    """The text has gone out when the filter blocks it."""
    azure.script(Script(filter="late_block"))
    last = call(azure, {**CHAT, "stream": True}).events[-1]["choices"][0]

    assert last["finish_reason"] == "content_filter"
    assert last["content_filter_results"] == {"protected_material_text": {"detected": True, "filtered": True}}


def test_a_filtered_completion_has_no_message(azure):
    """The key is missing; the usage is not."""
    azure.script(Script(filter="completion"))
    answer = call(azure).json

    assert "message" not in answer["choices"][0]
    assert answer["choices"][0]["finish_reason"] == "content_filter"
    assert answer["choices"][0]["content_filter_results"]["hate"] == {"filtered": True, "severity": "high"}
    assert answer["usage"]["completion_tokens"] == 4


def test_a_filter_that_is_out_of_order_says_so(azure):
    """Both the singular and the plural key are there, as recorded in February 2026."""
    azure.script(Script(filter="outage"), times=2)
    outage = (
        b'{"content_filter_result":{"error":{"code":"content_filter_error","message":"The contents are not filtered"}},'
        b'"content_filter_results":{},'
    )

    assert outage in call(azure).body
    assert outage + b'"delta":{"content":"You"}' in call(azure, STREAM).body


def test_the_first_event_may_have_its_older_name(azure):
    """prompt_annotations instead of prompt_filter_results."""
    azure.script(Script(prompt_annotations=True))
    first = call(azure, STREAM).events[0]

    assert "prompt_filter_results" not in first
    assert first["prompt_annotations"][0]["prompt_index"] == 0

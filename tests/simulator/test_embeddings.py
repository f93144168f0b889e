"""Embeddings, as OpenAI's own clients ask for them."""

from __future__ import annotations

import base64
import math
import struct

import openai
import pytest

from llmgateway.records import Usage
from llmgateway.simulator import DEFAULT_KEY, FAULTS, OTHER_DEPLOYMENTS, Script, Simulator
from llmgateway.simulator.faults import Occasion

from .calls import call

PATH = "/openai/v1/embeddings"
SMALL = {"model": "text-embedding-3-small", "input": "hello there"}


@pytest.fixture
def azure():
    with Simulator(deployments=("gpt-4o-mini", "text-embedding-ada-002", *OTHER_DEPLOYMENTS)) as simulator:
        yield simulator


@pytest.fixture(params=["v1", "classic"])
def client(request):
    return request.getfixturevalue(request.param)


def cosine(left: list[float], right: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def test_a_client_decodes_the_vectors(client, azure):
    """The client asks for base64 by itself; the tokens of all inputs are billed, and nothing else."""
    answer = client.embeddings.create(model="text-embedding-3-small", input=["hello there", "one two three"])

    assert [len(one.embedding) for one in answer.data] == [1536, 1536]
    assert [one.index for one in answer.data] == [0, 1]
    assert answer.model == "text-embedding-3-small"
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (5, 5)
    [served] = azure.served
    assert b'"encoding_format":"base64"' in served.body.replace(b" ", b"")
    assert served.usage == served.billed == Usage(prompt_tokens=5, total_tokens=5)


def test_both_codings_say_the_same(azure):
    """base64 is of little-endian numbers of four bytes; without a word about it come numbers."""
    plain = call(azure, SMALL, path=PATH).json["data"][0]["embedding"]
    coded = call(azure, {**SMALL, "encoding_format": "base64"}, path=PATH).json["data"][0]["embedding"]

    assert struct.unpack("<1536f", base64.b64decode(coded)) == pytest.approx(plain)
    assert cosine(plain, plain) == pytest.approx(1.0)


def test_texts_that_share_words_are_near(client):
    """A search finds the text that the question is about."""
    texts = ["the sun is a star", "cows eat grass on the meadow", "which star is the sun?"]
    sun, cows, question = (
        one.embedding for one in client.embeddings.create(model="text-embedding-3-large", input=texts).data
    )

    assert len(sun) == 3072
    assert cosine(question, sun) > 2 * cosine(question, cows)


@pytest.mark.parametrize(("given", "tokens"), [([1, 2, 3], [3]), ([[1, 2], [3, 4, 5]], [5]), (["a b", "c"], [3])])
def test_tokens_can_be_embedded(client, given, tokens):
    """An array of numbers is one input; arrays of them are several."""
    answer = client.embeddings.create(model="text-embedding-3-small", input=given)

    assert [answer.usage.prompt_tokens] == tokens
    assert len(answer.data) == (1 if isinstance(given[0], int) else len(given))


def test_fewer_dimensions(client):
    """The vector is shorter, and its length is still 1."""
    [one] = client.embeddings.create(model="text-embedding-3-large", input="hello there", dimensions=64).data

    assert len(one.embedding) == 64
    assert cosine(one.embedding, one.embedding) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": None}, "Missing required parameter: 'input'"),
        ({"input": ""}, "'$.input' is invalid"),
        ({"input": []}, "'$.input' is invalid"),
        ({"input": ["a", ""]}, "'$.input' is invalid"),
        ({"input": [1, -1]}, "'$.input' is invalid"),
        ({"input": [1, "a"]}, "'$.input' is invalid"),
        ({"input": {"text": "a"}}, "'$.input' is invalid"),
        ({"input": ["a"] * 2049}, "Too many inputs. The max number of inputs is 2048."),
        ({"input": [7] * 8193}, "maximum context length is 8192 tokens, however you requested 8193 tokens"),
        ({"input": "a " * 8192 + "b"}, "however you requested 8193 tokens"),
        ({"dimensions": 0}, "below minimum value"),
        ({"dimensions": 1537}, "above maximum value"),
        ({"dimensions": "many"}, "expected an integer"),
        ({"encoding_format": "hex"}, "Supported values are: 'float', 'base64'"),
        ({"model": "text-embedding-ada-002", "dimensions": 5}, "does not support specifying dimensions"),
        ({"model": "gpt-4o-mini"}, "The embeddings operation does not work with the specified model, gpt-4o-mini"),
    ],
)
def test_what_cannot_be_embedded_is_refused(azure, changes, words):
    """With a 400 that says why, and no tokens billed."""
    refused = call(azure, {**SMALL, **changes}, path=PATH)

    assert refused.status == 400
    assert words in refused.json["error"]["message"]
    assert azure.served[0].billed is None


def test_limits_are_those_of_a_request(azure):
    """2,048 inputs, and 8,192 tokens in one of them."""
    assert call(azure, {**SMALL, "input": ["a"] * 2048}, path=PATH).status == 200
    assert call(azure, {**SMALL, "input": [7] * 8192}, path=PATH).json["usage"]["prompt_tokens"] == 8192


def test_a_model_that_embeds_does_not_chat(client):
    """As Azure says it, with the operation."""
    with pytest.raises(openai.BadRequestError, match="The chatCompletion operation does not work"):
        client.chat.completions.create(model="whisper", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("name", sorted(name for name in FAULTS if not name.startswith("moved")))
def test_faults_reach_embeddings(azure, name):
    """Every error that a script can order."""
    azure.script(Script(fault=name))
    answer = call(azure, SMALL, path=PATH)

    assert answer.status == FAULTS[name](Occasion()).status
    assert call(azure, SMALL, path=PATH).status == 200


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ("missing", "absent"),
        ("null", None),
        ("empty", {}),
        ("zeros", {"prompt_tokens": 0, "total_tokens": 0}),
        ({"prompt_tokens": 99}, {"prompt_tokens": 99}),
    ],
    ids=str,
)
def test_the_usage_takes_the_form_of_the_script(azure, form, told):
    """What it says does not change what is billed."""
    azure.script(Script(usage=form))
    answer = call(azure, SMALL, path=PATH)

    assert answer.json.get("usage", "absent") == told
    assert azure.served[0].billed.prompt_tokens == 2


def test_embeddings_have_limits(clock):
    """The estimate is a quarter of the characters; the text of the 429 names the operation."""
    deployments = ("text-embedding-3-small",)
    with Simulator(deployments=deployments, tokens_per_minute=100, requests_per_minute=600, clock=clock) as azure:
        assert call(azure, {**SMALL, "input": "a" * 400}, path=PATH).status == 200
        refused = call(azure, SMALL, path=PATH)
        clock.advance(60)
        again = call(azure, SMALL, path=PATH)

    assert (refused.status, again.status) == (429, 200)
    assert "Requests to the Embeddings_Create Operation under" in refused.json["error"]["message"]
    assert again.headers["x-ratelimit-remaining-tokens"] == "97"
    assert again.headers["x-ratelimit-reset-tokens"] == "60000"


def test_the_right_key_is_needed(azure):
    """As for chat."""
    assert call(azure, SMALL, path=PATH, headers={"api-key": "wrong"}).status == 401
    assert call(azure, SMALL, path=PATH, headers={"api-key": DEFAULT_KEY}).status == 200

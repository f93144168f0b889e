"""What requests besides chat reserve of budgets in dollars, and which of them such a budget cannot pay."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from llmgateway.errors import PriceUnknown
from llmgateway.proxy.estimates import estimate_use, require_price
from llmgateway.proxy.forms import read_form
from llmgateway.proxy.operations.table import OPERATIONS
from llmgateway.proxy.request import UpstreamRequest, prepare
from llmgateway.records import Budget, KeyRecord, Limits, Period, Unit
from llmgateway.simulator.recordings import silent_wav
from tests.parts import NEW_YEAR, draft
from tests.proxy.requests import person, prepared, routing

DOLLARS = Limits(budget=Budget(amount=1, unit=Unit.USD, period=Period.DAY))


def principal() -> Any:
    who = person()
    record = KeyRecord(id="key_1", digest="0", user="ada", name="x", created_at=NEW_YEAR, limits=DOLLARS)
    return type(who)(record, who.organisation)


def request(name: str, model: str, **fields: object) -> UpstreamRequest:
    return prepared(json.dumps({"model": model} | fields).encode(), operation=OPERATIONS[name])


def recording(model: str, seconds: float) -> UpstreamRequest:
    operation = OPERATIONS["audio/transcriptions"]
    part = b'--B\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    body = part % (b"model", b"", model.encode())
    body += part % (b"file", b'; filename="a.wav"', silent_wav(seconds)) + b"--B--"
    form = read_form(io.BytesIO(body), len(body), "multipart/form-data; boundary=B", operation.form)
    return prepare(form, operation, person(), routing())


def reserved(made: UpstreamRequest) -> float:
    """Dollars that the request reserves at most."""
    tokens = made.operation.prompt_tokens(made.document, "", ())
    return estimate_use(draft(prompt_tokens=tokens), made, principal(), made.asked, model_name=None).most.cost_usd


EMBEDDING = request("embeddings", "text-embedding-3-small", input=[[7] * 1000])
WHISPER = recording("whisper", 60.0)
SPEECH = request("audio/speech", "tts", input="x" * 1000, voice="alloy")
FLUX = request("images/generations", "FLUX-1.1-pro", prompt="a cat", n=3)
IMAGE = request("images/generations", "gpt-image-1", prompt="a cat", size="1024x1024", quality="low")


@pytest.mark.parametrize(
    ("made", "dollars"),
    [(EMBEDDING, 1000 * 0.022 / 1e6), (WHISPER, 0.006), (SPEECH, 0.015), (FLUX, 0.12), (IMAGE, 0.0109)],
    ids=["embedding", "whisper", "speech", "flux", "image"],
)
def test_reserves_what_it_costs(made, dollars):
    """By tokens, the minute, the character or the image."""
    require_price(principal(), made)

    assert pytest.approx(dollars, rel=0.02) == reserved(made)


@pytest.mark.parametrize(
    "made",
    [request("images/generations", "dall-e-3", prompt="a cat"), request("embeddings", "our-own", input="Hello")],
    ids=["dall-e-3", "own"],
)
def test_an_unknown_price_is_not_free(made):
    """A budget in dollars cannot pay it."""
    with pytest.raises(PriceUnknown):
        require_price(principal(), made)

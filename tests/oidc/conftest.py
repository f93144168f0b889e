"""A provider that can lie, and our client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmgateway.oidc.provider import OpenIDProvider
from llmgateway.oidc.settings import ProviderSettings
from tests.parts import Stopwatch

from .liar import CLIENT_ID, CLIENT_SECRET, Liar, running


@pytest.fixture
def liar(clock) -> Iterator[Liar]:
    with running(clock) as liar:
        yield liar


@pytest.fixture
def timer() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def provider(liar, clock, timer) -> OpenIDProvider:
    settings = ProviderSettings(issuer=liar.url, client_id=CLIENT_ID, client_secret=CLIENT_SECRET)
    return OpenIDProvider(settings, clock=clock, timer=timer)

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import AzureOpenAI, OpenAI

from llmgateway.simulator import DEFAULT_KEY, Deployment, Simulator


@pytest.fixture
def azure() -> Iterator[Simulator]:
    deployments = ("gpt-4o-mini", "o4-mini", "gpt-5-mini", Deployment("antique", model="gpt-35-turbo", old=True))
    with Simulator(deployments=deployments) as simulator:
        yield simulator


@pytest.fixture
def v1(azure: Simulator) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{azure.url}/openai/v1", api_key=DEFAULT_KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def classic(azure: Simulator) -> Iterator[AzureOpenAI]:
    with AzureOpenAI(azure_endpoint=azure.url, api_key=DEFAULT_KEY, api_version="2024-10-21", max_retries=0) as client:
        yield client

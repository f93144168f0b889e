"""Requests that are checked and ready to be sent, without a gateway around them."""

from __future__ import annotations

import json
import time

from llmgateway.accounts.credential import CredentialCipher
from llmgateway.accounts.policy import OrganisationPolicy
from llmgateway.accounts.principal import Principal
from llmgateway.azure.credentials import StaticKey
from llmgateway.azure.deployments import Target
from llmgateway.azure.endpoint import Endpoint
from llmgateway.proxy.default_upstream import UpstreamSettings
from llmgateway.proxy.operations.chat import CHAT_COMPLETIONS
from llmgateway.proxy.operations.operation import Operation
from llmgateway.proxy.request import UpstreamRequest, prepare
from llmgateway.proxy.routing import Routing
from llmgateway.records import KeyRecord, Organisation, Prompt
from llmgateway.usage.answered_models import AnsweredModels
from tests.parts import NEW_YEAR

V1 = Endpoint.parse("https://n.openai.azure.com")
NO_PROMPT = Prompt()


class _Stored:
    """A store with an organisation that never changes."""

    def __init__(self, organisation: Organisation) -> None:
        self._organisation = organisation

    def load(self) -> Organisation:
        return self._organisation


_CIPHER = CredentialCipher("secret")  # once, because it takes 25 ms


def routing(endpoint: Endpoint = V1, *, offered: tuple[str, ...] = ()) -> Routing:
    policy = OrganisationPolicy(_Stored(Organisation()), _CIPHER, fallback="azure-key", clock=time.time)
    answered = AnsweredModels(lambda _: [], clock=time.time)
    return Routing(address(endpoint), policy=policy, offered=offered, answered=answered)


def address(endpoint: Endpoint | None) -> UpstreamSettings:
    """What the environment of a gateway with this endpoint has."""
    return UpstreamSettings(base_url=None if endpoint is None else f"{endpoint.base}{endpoint.query}")


def person(*, prompt: Prompt = NO_PROMPT, models: tuple[str, ...] | None = None, **organisation: object) -> Principal:
    record = KeyRecord(id="key_1", digest="0", user="ada", name="x", created_at=NEW_YEAR, models=models)
    return Principal(record, Organisation(prompt=prompt, **organisation))


def prepared(
    body: bytes,
    *,
    operation: Operation = CHAT_COMPLETIONS,
    endpoint: Endpoint = V1,
    prompt: str = "",
    allowed: tuple[str, ...] | None = None,
    offered: tuple[str, ...] = (),
) -> UpstreamRequest:
    who = person(prompt=Prompt(version=7, text=prompt), models=allowed)
    return prepare(body, operation, who, routing(endpoint, offered=offered))


def chat(**fields: object) -> bytes:
    """The body of a chat completion."""
    messages = [{"role": "user", "content": "Hello"}]
    return json.dumps({"model": "gpt", "messages": messages} | fields).encode()


def target(endpoint: Endpoint, deployment: str = "gpt-4o-mini", *, key: str, key_header: str = "api-key") -> Target:
    return Target(name="", endpoint=endpoint, deployment=deployment, credential=StaticKey(key_header, key))

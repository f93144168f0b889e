"""Checks the client's request body, and turns it into the body for Azure: with the system prompt, with the name of the
deployment, and with a request for usage in streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..accounts.principal import Principal
from ..azure.deployments import Target
from ..current import current_request
from ..errors import InvalidRequest, ModelNotFound
from ..records import Owned, Prompt
from ..usage.booking import Asked
from .dialect import Dialect
from .forms import Form
from .nesting import MOST_CONTAINERS
from .operations.operation import Operation
from .parsing import dump, parse
from .routing import LONGEST_MODEL_NAME, Route, Routing

_NO_PROMPT = Prompt()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """What a client sent, and what the server knows about the connection."""

    id: str
    key: str | None = field(repr=False)
    operation: Operation
    body: Callable[[], bytes | Form] = field(repr=False)
    """Reads the body; a form if the operation takes one. It is called once, after authentication, because a large body
    may not have arrived yet."""
    body_bytes: int = 0
    """The most bytes that the body can have."""
    endpoint: str
    model: str | None = None
    """The model that the path names; None if the body names it."""
    client_address: str | None
    client_gone: Callable[[], bool] | None = None
    """Returns whether the client has closed its connection; None if the server cannot tell."""
    send_head: Callable[[], None] | None = None
    """Sends status and headers of a streamed answer before its first event; None if the server cannot do that."""
    dialect: Dialect = Dialect.OPENAI


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """One request, checked and ready to be sent."""

    operation: Operation
    route: Route
    """The model that the client asked for, and the deployments that can answer."""
    stream: bool
    asked: Asked
    """How long the answer may be, and how many choices it has."""
    withhold_usage: bool
    """Whether the gateway may ask for the usage event, and the client did not. Then the client does not get it."""
    model_in_path: bool = False
    """Whether the path of the client's request names the model. The body may name another one, or none."""
    prompt: Prompt
    document: dict[str, Any]
    """The client's body, parsed. Do not change it."""
    original: bytes | Form
    """The client's body as it was sent."""
    continues: Owned | None = None
    """The response that it continues, or that has made what it names."""
    continued_tokens: int = 0
    """The tokens of what Azure has stored and puts into the prompt, estimated."""

    @property
    def model(self) -> str:
        """The name that the client sent; the name of the deployment if it sent none."""
        return self.route.model

    @property
    def deployment(self) -> str:
        """The name of the deployment that is asked first."""
        return self.route.deployment

    @property
    def registered_name(self) -> str | None:
        """The name under which an admin has registered the model; None if nobody has."""
        registered = self.route.registered
        return None if registered is None else registered.name

    def body(self, target: Target | None = None, *, include_usage: bool = True) -> bytes | Form:
        """Return the body for Azure. If nothing has to change, these are the client's own bytes.

        Args:
            target: The deployment that gets it; None for the one of ``LLM_BASE_URL``.
            include_usage: Whether to ask for the usage event if :attr:`withhold_usage` is true. False for
                deployments that do not accept ``stream_options``; the tokens of their streams are estimated.
        """
        changes: dict[str, Any] = {}
        if target is not None and self._must_name(target):
            if isinstance(self.original, Form):
                return self.original.naming(target.deployment)
            changes["model"] = target.deployment
        if self.prompt.text and self.operation.with_prompt is not None:
            changes |= self.operation.with_prompt(self.document, self.prompt.text)
        if self.withhold_usage and include_usage:
            changes["stream_options"] = {**(self.document.get("stream_options") or {}), "include_usage": True}
        if not changes:
            return self.original
        return dump(self.document | changes)

    def _must_name(self, target: Target) -> bool:
        """Return whether the body has to name the deployment, and does not."""
        endpoint = target.endpoint
        in_path = endpoint.deployment is not None or endpoint.names_model_in_path
        if in_path and self.operation.in_path:
            return False  # Azure ignores the body's model
        # Where no path names the deployment, the body has to.
        matters = target.is_registered or self.model_in_path or self.route.registered is not None or in_path
        return matters and self.document.get("model") != target.deployment


def prepare(
    body: bytes | Form,
    operation: Operation,
    principal: Principal,
    routing: Routing,
    *,
    model: str | None = None,
    most_containers: int = MOST_CONTAINERS,
) -> UpstreamRequest:
    """Check the parts of *body* that the gateway needs. Azure checks the rest.

    Args:
        principal: Whose request it is: it has a prompt, and models that it may use.
        model: The model that the path names. It takes precedence over the body's, as in Azure's classic form.
        most_containers: The most objects and arrays of the body.

    Raises:
        InvalidRequest: not JSON, not an object, or a part of the wrong type; says what and where.
        ModelNotAllowed: the key may not use the model.
        ModelNotFound: the gateway does not offer the model.
    """
    if isinstance(body, Form):
        document, raw = body.document, b""
    else:
        document, raw = parse(body, operation.body_format, most_containers=most_containers), body
    operation.check(document)
    prompt = _NO_PROMPT if operation.with_prompt is None else principal.prompt
    if prompt.text and operation.check_prompt is not None:
        operation.check_prompt(document)
    stream = operation.is_streamed(document)
    asked = _model(document) if model is None else model
    if (request := current_request()) is not None:
        request.model = asked
    route = routing.route(asked, principal, operation.name)
    options = document.get("stream_options") or {}
    return UpstreamRequest(
        operation=operation,
        route=route,
        stream=stream,
        asked=operation.asked(document, raw),
        withhold_usage=stream and options.get("include_usage") is not True and operation.may_add_usage(document),
        model_in_path=model is not None,
        prompt=prompt,
        document=document,
        original=body,
    )


def _model(document: dict[str, Any]) -> str | None:
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidRequest("'model' must be a string.", param="model")
    if model and (len(model) > LONGEST_MODEL_NAME or not model.isprintable()):
        # The usage record stores the name. A long text or a lone surrogate must not get there.
        raise ModelNotFound("The name of the model is too long or has unprintable characters.", param="model")
    return model or None

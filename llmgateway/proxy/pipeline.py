"""The pipeline: all steps between a client's request and Azure's answer, in their order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ..accounts.keys import Keys
from ..accounts.policy import OrganisationPolicy
from ..accounts.principal import Principal
from ..azure.endpoint import Endpoint
from ..clock import Clock, Timer
from ..errors import GatewayError, StoreUnavailable, UpstreamCredentials
from ..interfaces import Answer, Upstream, UsageRecorder
from ..ratelimit.limiter import Limiter
from ..ratelimit.rules import Estimate
from ..records import KeyRecord, Outcome, Usage, UsageRecord, UsageSource, moment
from ..usage.pricing import cost_usd
from ..usage.tokens import estimate_completion_tokens, estimate_prompt_tokens
from .call import UpstreamCall
from .concurrency import ConcurrencyLimit
from .disconnects import DisconnectWatcher
from .request import Chat, prepare
from .stream import EventStream, ReadCoalescing, ReadToEnd, finish_plain, read_plain

log = logging.getLogger(__name__)

_DEFINITIONS = ("tools", "functions", "response_format")
"""Fields of the body that Azure counts as part of the prompt, besides the messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """What a client sent, and what the server knows about the connection."""

    id: str
    key: str | None = field(repr=False)
    body: bytes = field(repr=False)
    endpoint: str
    client_address: str | None
    client_gone: Callable[[], bool] | None = None
    """Returns whether the client has closed its connection; None if the server cannot tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back to the client."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | EventStream


class Gateway:
    """Turns a client's request into a reply; independent of any HTTP framework. Thread-safe.

    A request is authenticated, checked, admitted by its limits, sent to Azure, and recorded.

    Args:
        concurrency: The limit on requests in flight.
        disconnects: Cancels requests whose clients have disconnected.
        read_to_end: Reads streams to their end whose clients have disconnected.
        offered: The models that clients may use; empty for all that Azure has.
        clock: Gives points in time.
        timer: Measures durations.
        coalescing: Makes streams wait between two reads if there are many.
    """

    def __init__(
        self,
        *,
        keys: Keys,
        limiter: Limiter,
        policy: OrganisationPolicy,
        upstream: Upstream,
        endpoint: Endpoint,
        recorder: UsageRecorder,
        concurrency: ConcurrencyLimit,
        disconnects: DisconnectWatcher,
        read_to_end: ReadToEnd,
        offered: tuple[str, ...],
        clock: Clock,
        timer: Timer,
        coalescing: ReadCoalescing | None = None,
    ) -> None:
        self.keys = keys
        self._limiter = limiter
        self.policy = policy
        self.concurrency = concurrency
        self.coalescing = coalescing or ReadCoalescing()
        self._upstream = upstream
        self._endpoint = endpoint
        self._recorder = recorder
        self._disconnects = disconnects
        self._read_to_end = read_to_end
        self._offered = offered
        self._clock = clock
        self._timer = timer
        self._without_usage: set[str] = set()  # deployments that refused stream_options
        self._model_names: dict[str, str] = {}  # by deployment: the model's name in Azure's last answer
        self.credential_refused = False
        """Whether Azure refused our credential in its last answer."""

    def complete(self, request: CompletionRequest) -> Reply:
        """Answer one chat completion.

        A failure after the head of a stream is not raised: it ends the stream early, and shows in the outcome
        of the usage record.

        Raises:
            GatewayError: what the client is answered instead.
        """
        call = UpstreamCall(
            request.id, self.concurrency, recorder=self._recorder, disconnects=self._disconnects, timer=self._timer
        )
        try:
            chat, credential = self._admit(request, call)
            return self._relay(call, chat, credential, without_usage=chat.deployment in self._without_usage)
        except BaseException as error:
            call.fail(error)
            if isinstance(error, GatewayError):
                error.headers.update(call.headers)
            raise

    def stop(self) -> None:
        """End what is still running: each call leaves its record, and its client is told."""
        self._disconnects.stop_all()

    def preview(self, principal: Principal, body: bytes) -> bytes:
        """Return the body that Azure would receive if *principal* sent *body* now.

        Raises:
            GatewayError: the error that the client would receive.
        """
        return self._prepare(principal, body).body()

    def credential_problem(self) -> str | None:
        """Return what is known to be wrong with Azure's key; None if nothing is."""
        try:
            usable = self.policy.has_credential()
        except StoreUnavailable:
            return "unknown: the store does not answer"
        if not usable:
            return "missing or unreadable: set it with POST /admin/setllmkey"
        if self.credential_refused:
            return "refused by Azure: set a valid one with POST /admin/setllmkey"
        return None

    def models(self, principal: Principal) -> list[str]:
        """Return the models that *principal* may use, as far as the gateway knows their names."""
        fixed = (self._endpoint.deployment,) if self._endpoint.deployment else ()
        offered = self._offered or fixed
        if principal.models is None:
            return list(offered)
        return [model for model in principal.models if not self._offered or model in self._offered]

    def _admit(self, request: CompletionRequest, call: UpstreamCall) -> tuple[Chat, str]:
        """Authenticate and check *request*, reserve what it may use, and return what to send with which credential."""
        now = self._clock()
        principal = self.keys.authenticate(request.key)
        try:
            chat = self._prepare(principal, request.body)
            credential = self.policy.credential(principal.organisation)
        except GatewayError as error:
            error.headers.update(self._limiter.headers(principal))
            raise
        draft = _draft(request, principal.key, chat, now)
        estimate = _estimate(draft, chat, principal, self._model_names.get(chat.deployment))
        call.begin(
            draft,
            self._limiter.admit(request.id, principal, estimate),
            prices=principal.organisation.prices,
            on_model=partial(self._model_names.__setitem__, chat.deployment),
            client_gone=request.client_gone,
        )
        return chat, credential

    def _prepare(self, principal: Principal, body: bytes) -> Chat:
        return prepare(
            body, endpoint=self._endpoint, prompt=principal.prompt, allowed=principal.models, offered=self._offered
        )

    def _relay(self, call: UpstreamCall, chat: Chat, credential: str, *, without_usage: bool) -> Reply:
        """Send *chat* and return Azure's answer. The call ends here, or at the end of the stream if there is one."""
        answer = self._upstream.send(
            chat.body(include_usage=not without_usage),
            deployment=chat.deployment,
            credential=credential,
            request_id=call.id,
            cancellation=call.cancellation,
        )
        call.answered(status=answer.status, region=answer.region, upstream_request_id=answer.upstream_request_id)
        self._check_credential(answer)
        if without_usage and answer.status < 400:
            self._remember_without_usage(chat.deployment)
        headers = [*answer.headers, *call.headers.items()]
        if answer.is_event_stream:
            stream = EventStream(
                answer,
                call,
                withhold_usage=chat.withhold_usage,
                read_to_end=self._read_to_end,
                coalescing=self.coalescing,
            )
            return Reply(status=answer.status, headers=headers, body=stream)
        body = read_plain(answer)
        if not without_usage and self._may_refuse_usage(chat, answer.status, body):
            return self._relay(call, chat, credential, without_usage=True)
        finish_plain(call, answer.status, body)
        return Reply(status=answer.status, headers=headers, body=body)

    def _check_credential(self, answer: Answer) -> None:
        self.credential_refused = refused = answer.status in (401, 403)
        if refused:
            answer.close()
            log.error(
                "Azure refused the organisation's key with status %d: users get 502 upstream_credentials. "
                "Set a valid one with POST /admin/setllmkey.",
                answer.status,
            )
            raise UpstreamCredentials(
                "The model's provider refused the gateway's own key. Your key is fine: tell the admin."
            )

    def _remember_without_usage(self, deployment: str) -> None:
        # Called only after a request without stream_options has succeeded. An error that names stream_options is
        # not proof enough: Azure's errors also quote what the client sent.
        if deployment not in self._without_usage:
            log.info(
                "The deployment %s does not accept stream_options; the tokens of its streams are estimated.", deployment
            )
            self._without_usage.add(deployment)

    def _may_refuse_usage(self, chat: Chat, status: int, body: bytes) -> bool:
        """Return whether Azure may have refused the ``stream_options`` that the gateway added."""
        # Older api-versions answer "Unrecognized request argument supplied: stream_options", newer ones
        # "unknown_parameter". Both name the field.
        return (
            status == 400
            and chat.withhold_usage
            and "stream_options" not in chat.document
            and b"stream_options" in body
        )


def _draft(request: CompletionRequest, key: KeyRecord, chat: Chat, now: float) -> UsageRecord:
    """Return the record that is kept if this process dies before the request has ended."""
    definitions = [chat.document[name] for name in _DEFINITIONS if chat.document.get(name)]
    estimate = estimate_prompt_tokens(chat.document["messages"], chat.prompt.text, definitions=definitions)
    return UsageRecord(
        id=request.id,
        timestamp=moment(now),
        key_id=key.id,
        user=key.user,
        group=key.group,
        model=chat.model,
        deployment=chat.deployment,
        endpoint=request.endpoint,
        stream=chat.stream,
        outcome=Outcome.INTERRUPTED,
        prompt_tokens=estimate,
        total_tokens=estimate,
        usage_source=UsageSource.ESTIMATED,
        prompt_version=chat.prompt.version,
        duration_ms=0.0,
        client_address=request.client_address,
    )


def _estimate(draft: UsageRecord, chat: Chat, principal: Principal, model_name: str | None) -> Estimate:
    """Return the most that the request may use: its prompt, and the longest answer that it allows."""
    completion = estimate_completion_tokens(chat.document)
    usage = Usage(prompt_tokens=draft.prompt_tokens, completion_tokens=completion)
    cost = cost_usd(usage, model_name, chat.deployment, chat.model, own=principal.organisation.prices)
    return Estimate(tokens=draft.prompt_tokens + completion, cost_usd=cost or 0.0)

"""The pipeline: everything between the client's bytes and Azure's bytes, top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ..accounts.keys import Keys
from ..accounts.policy import OrganisationPolicy
from ..accounts.principal import Principal
from ..azure.cancellation import CancellationToken
from ..azure.endpoint import Endpoint
from ..clock import Clock, Timer
from ..errors import (
    ClientGone,
    GatewayError,
    StoreUnavailable,
    UpstreamBroken,
    UpstreamCredentials,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from ..interfaces import Answer, Upstream, UsageRecorder
from ..ratelimit.limiter import Admission, Limiter
from ..ratelimit.rules import Estimate
from ..records import KeyRecord, Outcome, Usage, UsageRecord, UsageSource, moment
from ..usage.pricing import cost_usd
from ..usage.tokens import estimate_completion_tokens, estimate_prompt_tokens
from .call import UpstreamCall
from .concurrency import ConcurrencyLimit, Place
from .disconnects import DisconnectWatcher
from .request import Chat, prepare
from .stream import EventStream, ReadCoalescing, ReadToEnd, finish_plain, read_plain

log = logging.getLogger(__name__)

_DEFINITIONS = ("tools", "functions", "response_format")
"""Parts of a body that the model reads beside the messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """What a client sent, and what the server knows of it."""

    id: str
    key: str | None = field(repr=False)
    body: bytes = field(repr=False)
    endpoint: str
    client_address: str | None
    client_gone: Callable[[], bool] | None = None
    """Whether the client has closed its connection, where the server can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back to the client."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | EventStream


class Gateway:
    """Everything between a client's request and its reply; knows no HTTP framework. Thread-safe.

    Args:
        watch: Stops Azure when a client has gone.
        offered: The models on offer; empty for whatever Azure has.
        timer: For durations; *clock* for points in time.
    """

    def __init__(
        self,
        *,
        keys: Keys,
        limiter: Limiter,
        policy: OrganisationPolicy,
        upstream: Upstream,
        endpoint: Endpoint,
        books: UsageRecorder,
        slots: ConcurrencyLimit,
        drain: ReadToEnd,
        watch: DisconnectWatcher,
        offered: tuple[str, ...],
        clock: Clock,
        timer: Timer,
        coalescing: ReadCoalescing | None = None,
    ) -> None:
        self.keys = keys
        self._limiter = limiter
        self.policy = policy
        self.slots = slots
        self.coalescing = coalescing or ReadCoalescing()
        self._upstream = upstream
        self._endpoint = endpoint
        self._books = books
        self._drain = drain
        self._watch = watch
        self._offered = offered
        self._clock = clock
        self._timer = timer
        self._without_usage: set[str] = set()  # deployments that refused stream_options
        self._azures_names: dict[str, str] = {}  # of the models behind deployments, as they have answered
        self.credential_refused = False
        """Whether Azure's last word on our credential was no."""

    def complete(self, request: CompletionRequest) -> Reply:
        """Answer one chat completion.

        Raises a :class:`GatewayError` until Azure's answer has begun; a failure after that can
        only cut a stream short, and shows in the usage record's outcome.
        """
        place = self.slots.take()
        try:
            call, entry = self._begin(request, place)
        except BaseException:
            place.free()
            raise
        if request.client_gone is not None:
            self._watch.add(call.cancellation, request.client_gone)
        try:
            reply = self._relay(call, entry.chat, entry.credential)
        except GatewayError as error:
            error.headers.update(entry.admission.headers)
            raise
        headers = [*reply.headers, *entry.admission.headers.items()]
        return Reply(status=reply.status, headers=headers, body=reply.body)

    def preview(self, principal: Principal, body: bytes) -> bytes:
        """Return what would go to Azure if *caller* sent *body* now.

        Raises:
            GatewayError: what the caller would be answered.
        """
        return self._prepare(principal, body).body()

    def credential_problem(self) -> str | None:
        """What is wrong with Azure's key, as far as is known; None if nothing is."""
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
        """The models that *caller* may use, as far as the gateway knows their names."""
        fixed = (self._endpoint.deployment,) if self._endpoint.deployment else ()
        offered = self._offered or fixed
        if principal.models is None:
            return list(offered)
        return [model for model in principal.models if not self._offered or model in self._offered]

    def _begin(self, request: CompletionRequest, place: Place) -> tuple[UpstreamCall, _Entry]:
        """Let the request in: know whose it is, what goes to Azure, and that its limits allow it."""
        arrived, now = self._timer(), self._clock()
        entry = self._entry(request, self.keys.authenticate(request.key), now)
        cancellation = CancellationToken()
        try:
            call = UpstreamCall(
                entry.draft,
                self._books,
                cancellation=cancellation,
                admission=entry.admission,
                prices=entry.principal.organisation.prices,
                timer=self._timer,
                arrived=arrived,
                on_model=partial(self._azures_names.__setitem__, entry.chat.deployment),
                on_end=partial(self._ended, cancellation, place),
            )
        except BaseException:
            entry.admission.refund()
            raise
        return call, entry

    def _entry(self, request: CompletionRequest, principal: Principal, now: float) -> _Entry:
        try:
            chat = self._prepare(principal, request.body)
            credential = self.policy.credential(principal.organisation)
        except GatewayError as error:
            error.headers.update(self._limiter.headers(principal))
            raise
        draft = _draft(request, principal.key, chat, now)
        estimate = _estimate(draft, chat, principal, self._azures_names.get(chat.deployment))
        return _Entry(principal, chat, credential, draft, self._limiter.admit(request.id, principal, estimate))

    def _prepare(self, principal: Principal, body: bytes) -> Chat:
        return prepare(
            body, endpoint=self._endpoint, prompt=principal.prompt, allowed=principal.models, offered=self._offered
        )

    def _ended(self, cancellation: CancellationToken, place: Place) -> None:
        self._watch.remove(cancellation)
        place.free()

    def _relay(self, call: UpstreamCall, chat: Chat, credential: str, *, without_usage: bool = False) -> Reply:
        """Send, and answer with what comes; the exchange ends here unless a stream takes it along."""
        without_usage = without_usage or chat.deployment in self._without_usage
        try:
            answer = self._send(call, chat, credential, include_usage=not without_usage)
            if without_usage and answer.status < 400:
                self._remember_without_usage(chat.deployment)
            if answer.is_event_stream:
                body = EventStream(
                    answer, call, withhold_usage=chat.withhold_usage, drain=self._drain, coalescing=self.coalescing
                )
                return Reply(status=answer.status, headers=answer.headers, body=body)
            return self._plain(call, chat, credential, answer, without_usage=without_usage)
        except UpstreamUnreachable:
            call.cancel()
            raise
        except ClientGone:
            if call.cancellation.sent:
                call.finish(Outcome.CLIENT_CLOSED)
            else:
                call.cancel()
            raise
        except UpstreamTimeout:
            call.finish(Outcome.TIMEOUT)
            raise
        except UpstreamBroken:
            call.finish(Outcome.BROKEN)
            raise
        except GatewayError:
            call.finish(Outcome.UPSTREAM_ERROR)
            raise
        except BaseException:
            # A bug of ours; a request that was sent may have been billed all the same.
            if call.cancellation.sent:
                call.finish(Outcome.BROKEN)
            else:
                call.cancel()
            raise

    def _send(self, call: UpstreamCall, chat: Chat, credential: str, *, include_usage: bool) -> Answer:
        answer = self._upstream.send(
            chat.body(include_usage=include_usage),
            deployment=chat.deployment,
            credential=credential,
            request_id=call.id,
            cancellation=call.cancellation,
        )
        call.answered(status=answer.status, region=answer.region, upstream_request_id=answer.upstream_request_id)
        self._check_credential(answer)
        return answer

    def _check_credential(self, answer: Answer) -> None:
        refused = answer.status in (401, 403)
        if refused:
            answer.close()
            log.error(
                "Azure refused the organisation's key with status %d: users get 502 upstream_credentials. "
                "Set a valid one with POST /admin/setllmkey.",
                answer.status,
            )
        self.credential_refused = refused
        if refused:
            raise UpstreamCredentials(
                "The model's provider refused the gateway's own key. Your key is fine: tell the admin."
            )

    def _plain(self, call: UpstreamCall, chat: Chat, credential: str, answer: Answer, *, without_usage: bool) -> Reply:
        try:
            body = read_plain(answer)
        finally:
            answer.close()
        if not without_usage and self._may_refuse_usage(chat, answer.status, body):
            return self._relay(call, chat, credential, without_usage=True)
        finish_plain(call, answer.status, body)
        return Reply(status=answer.status, headers=answer.headers, body=body)

    def _remember_without_usage(self, deployment: str) -> None:
        # Not before it has answered without: Azure repeats names of the client's own, so an objection
        # that names stream_options need not be one to ours.
        if deployment not in self._without_usage:
            log.info("The deployment %s takes no stream_options; its streams are estimated.", deployment)
            self._without_usage.add(deployment)

    def _may_refuse_usage(self, chat: Chat, status: int, body: bytes) -> bool:
        """Whether Azure may object to the ``stream_options`` that we put in, not the client."""
        # Older versions answer "Unrecognized request argument supplied: stream_options", newer ones
        # unknown_parameter; both name it.
        return (
            status == 400
            and chat.withhold_usage
            and "stream_options" not in chat.document
            and b"stream_options" in body
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A request that was let in."""

    principal: Principal
    chat: Chat
    credential: str = field(repr=False)
    draft: UsageRecord
    admission: Admission


def _draft(request: CompletionRequest, key: KeyRecord, chat: Chat, now: float) -> UsageRecord:
    """The record that this request leaves if our process dies before it has ended."""
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


def _estimate(draft: UsageRecord, chat: Chat, principal: Principal, azures_name: str | None) -> Estimate:
    """What the request may use at most: the prompt, and as long an answer as it asks for."""
    completion = estimate_completion_tokens(chat.document)
    usage = Usage(prompt_tokens=draft.prompt_tokens, completion_tokens=completion)
    cost = cost_usd(usage, azures_name, chat.deployment, chat.model, own=principal.organisation.prices)
    return Estimate(tokens=draft.prompt_tokens + completion, cost_usd=cost or 0.0)

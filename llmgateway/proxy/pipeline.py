"""The pipeline: all steps between a client's request and Azure's answer, in their order."""

from __future__ import annotations

from typing import cast

from ..accounts.keys import Keys, digest
from ..accounts.policy import OrganisationPolicy
from ..accounts.principal import Principal
from ..azure.deployments import Target
from ..clock import Clock, Timer
from ..errors import GatewayError, StoredNotFound, UpstreamCredentials
from ..interfaces import StoredResponses, Upstream, UsageRecorder
from ..ratelimit.limiter import Limiter
from ..records import Outcome
from ..usage.answered_models import AnsweredModels
from ..usage.booking import Asked
from ..usage.known_models import KnownModels
from ..usage.observed import ObservedDeployments
from .call import UpstreamCall
from .coalescing import ReadCoalescing
from .concurrency import ConcurrencyLimit
from .credentials import AzureCredentials
from .deployment_states import DeploymentStates
from .disconnects import DisconnectWatcher
from .estimates import draft_record, estimate_use, require_price
from .failover import Failover
from .forms import Form
from .operations.chat import CHAT_COMPLETIONS
from .operations.operation import Operation, Reference
from .ownership import StoredRequest, owned_by, with_stored
from .preparing import PreparationLimit
from .read_on import ReadOn
from .relay import Relay, Reply
from .request import CompletionRequest, UpstreamRequest, prepare
from .revocations import RevocationWatcher, RunningKey
from .routing import Routing

_COUNTED_REFUSALS = (400, 403, 404, 413)
"""Statuses of refusals that count as requests. A body has been received or parsed for them."""


class Gateway:
    """Turns a client's request into a reply; independent of any HTTP framework. Thread-safe.

    A request is authenticated, checked, admitted by its limits, sent to Azure, and recorded.

    Args:
        concurrency: The limit on requests in flight.
        disconnects: Cancels requests whose clients have disconnected.
        routing: Knows which deployments serve which model.
        failover: Chooses among them.
        read_on: Permits answers to be read on whose clients have disconnected.
        preparing: Bounds the bytes of bodies that arrive or are being checked.
        revocations: Cancels requests whose keys are revoked; None to let them go on.
        most_containers: The most objects and arrays of a body.
        answered: The models that Azure has answered.
        deployments: Learns what Azure says about its deployments.
        refuses_unknown_price: Whether requests with a budget in dollars need a model with a known price.
        stored: Knows whose the responses are that Azure stores.
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
        routing: Routing,
        failover: Failover,
        recorder: UsageRecorder,
        concurrency: ConcurrencyLimit,
        disconnects: DisconnectWatcher,
        read_on: ReadOn,
        preparing: PreparationLimit,
        revocations: RevocationWatcher | None,
        most_containers: int,
        answered: AnsweredModels,
        clock: Clock,
        timer: Timer,
        coalescing: ReadCoalescing | None = None,
        deployments: DeploymentStates | None = None,
        refuses_unknown_price: bool = False,
        stored: StoredResponses,
    ) -> None:
        self.keys = keys
        self._limiter = limiter
        self.policy = policy
        self.concurrency = concurrency
        self.coalescing = coalescing or ReadCoalescing()
        self.routing = routing
        self.failover = failover
        self._recorder = recorder
        self._disconnects = disconnects
        self._read_on = read_on
        self._preparing = preparing
        self._revocations = revocations
        self._most_containers = most_containers
        self._stored = stored
        self._refuses_unknown_price = refuses_unknown_price
        self._clock = clock
        self._timer = timer
        self.observed = ObservedDeployments()
        """What the answers have taught about the deployments."""
        self.deployments = deployments or DeploymentStates(clock=clock)
        """What admins are told about them."""
        self.credentials = AzureCredentials(upstream, policy, routing, answered=answered, timer=timer)
        self._relay = Relay(
            upstream,
            failover=failover,
            credentials=self.credentials,
            deployments=self.deployments,
            answered=answered,
            coalescing=self.coalescing,
            clock=clock,
            timer=timer,
        )
        self.offer(routing.offered)

    def complete(self, request: CompletionRequest) -> Reply:
        """Answer one request for a model.

        A failure after the head of a stream is not raised: it ends the stream early, and shows in the outcome
        of the usage record.

        Raises:
            GatewayError: what the client is answered instead.
        """
        call = self._new_call(request.id)
        try:
            upstream, targets = self._admit(request, call)
            return self._relay.send(request, call, upstream, targets)
        except BaseException as error:
            call.fail(error)
            if isinstance(error, GatewayError):
                error.headers.update(call.headers)
            raise

    def ask_stored(self, request: StoredRequest) -> Reply:
        """Answer a question about a response that Azure stores. It costs nothing, and leaves no usage record.

        Raises:
            GatewayError: what the client is answered instead.
        """
        call = self._new_call(request.id)
        try:
            principal = self.keys.authenticate(request.key)
            self._assign(call, principal)
            call.begin_unrecorded(
                self._limiter.admit_free(request.id, principal),
                client_gone=request.client_gone,
                running_key=self._running_key(principal, request.key),
            )
            owned = owned_by(principal, Reference(request.response_id, "response"), self._stored)
            return self._relay.fetch(request, call, owned, self.routing.holder(owned, principal.organisation))
        except BaseException as error:
            if isinstance(error, StoredNotFound):
                call.finish(Outcome.UPSTREAM_ERROR)  # to guess counts as a request
            call.fail(error)
            if isinstance(error, GatewayError):
                error.headers.update(call.headers)
            raise

    def _new_call(self, request_id: str) -> UpstreamCall:
        return UpstreamCall(
            request_id,
            self.concurrency,
            recorder=self._recorder,
            disconnects=self._disconnects,
            read_on=self._read_on,
            observed=self.observed,
            timer=self._timer,
            revocations=self._revocations,
            stored=self._stored,
        )

    def offer(self, models: tuple[str, ...]) -> None:
        """Replace the models that clients may use; empty for all that Azure has."""
        deployment = self.routing.default(None).deployment
        self.routing.offered = models
        self._relay.known_models = KnownModels([*models, *([deployment] if deployment else [])])

    def stop(self) -> None:
        """End what is still running: each call leaves its record, and its client is told."""
        self._disconnects.stop_all()

    def preview(self, principal: Principal, body: bytes) -> bytes:
        """Return the body that Azure would receive if *principal* sent *body* now.

        Raises:
            GatewayError: the error that the client would receive.
        """
        return cast(bytes, self._prepare(principal, body, CHAT_COMPLETIONS).body())

    def _admit(self, request: CompletionRequest, call: UpstreamCall) -> tuple[UpstreamRequest, list[Target]]:
        """Authenticate and check *request*, reserve what it may use, and return what to send to which deployments."""
        now = self._clock()
        principal = self.keys.authenticate(request.key)
        self._assign(call, principal)
        self._limiter.look_again(principal)
        try:
            with self._preparing.hold(principal.key.id, request.body_bytes):
                upstream = self._prepare(principal, request.body(), request.operation, model=request.model)
            if upstream.operation.references is not None:
                upstream = with_stored(upstream, principal, self._stored)
            holder = None if upstream.continues is None else upstream.continues.target
            targets = self.routing.targets(upstream.route, principal.organisation, stored_at=holder)
        except GatewayError as error:
            if isinstance(error, UpstreamCredentials):
                self.credentials.missing()
            counts = error.status in _COUNTED_REFUSALS
            told = self._limiter.count_refused(request.id, principal) if counts else self._limiter.headers(principal)
            error.headers.update(told)
            raise
        known = self._relay.known_models.knows(upstream.model, principal.models or (), principal.organisation.models)
        model_name = self.observed.model(upstream.deployment)
        draft = draft_record(request, principal.key, upstream, now, model_known=known, model_name=model_name)
        estimate = estimate_use(
            draft,
            upstream,
            principal,
            self._trusted(upstream),
            model_name=model_name,
            usual_tokens=self._limiter.answers.usual(principal.key.id),
            mean_tokens=self.observed.mean_completion_tokens(upstream.deployment),
        )
        call.begin(
            draft,
            self._limiter.admit(request.id, principal, estimate),
            models=principal.organisation.models,
            asked=upstream.asked,
            client_gone=request.client_gone,
            running_key=self._running_key(principal, request.key),
        )
        return upstream, targets

    def _assign(self, call: UpstreamCall, principal: Principal) -> None:
        try:
            call.assign(principal.key.id)
        except GatewayError as error:
            error.headers.update(self._limiter.headers(principal))
            raise

    def _running_key(self, principal: Principal, key: str | None) -> RunningKey | None:
        return RunningKey(digest(key or ""), principal.key.id) if self._revocations else None

    def _trusted(self, upstream: UpstreamRequest) -> Asked:
        """Return what the client has asked for, without its limit if the deployment does not keep to limits."""
        asked = upstream.asked
        return asked._replace(most_tokens=None) if self.observed.ignores_limits(upstream.deployment) else asked

    def _prepare(
        self, principal: Principal, body: bytes | Form, operation: Operation, *, model: str | None = None
    ) -> UpstreamRequest:
        upstream = prepare(body, operation, principal, self.routing, model=model, most_containers=self._most_containers)
        if self._refuses_unknown_price:
            require_price(principal, upstream)
        return upstream

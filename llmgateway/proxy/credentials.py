"""What is known of the keys and tokens for Azure: whether they are there, and whether Azure accepts them."""

from __future__ import annotations

import logging
import math

from ..accounts.policy import OrganisationPolicy
from ..azure.deployments import Target
from ..azure.endpoint import is_deployment_name
from ..clock import Timer
from ..errors import StoreUnavailable, UpstreamCredentials
from ..interfaces import Answer, Upstream
from ..records import Organisation
from ..usage.answered_models import AnsweredModels
from .credential_trial import REFUSALS, CredentialTrial, try_credential
from .routing import Routing

log = logging.getLogger(__name__)

_SOME_MODEL = "gpt-4o"
"""The model to try Azure's key with, if none is known. It need not exist."""

CREDENTIALS_LOG_SECONDS = 60.0
"""The shortest time between two lines of the log about Azure's key: every request of every user fails then."""

_DEFAULT = ""
"""Stands for ``LLM_BASE_URL``, where others stand for registered deployments."""

_STORE_AWAY = "unknown: the store does not answer"
_REMEDY = "give the identity the role Cognitive Services OpenAI User at the resource, and check LLM_IDENTITY_SCOPE"
_SET_IT = "set it again with POST /admin/setllmkey, or name the address in LLM_BASE_URL"
NOT_CONFIGURED = (
    "no address of Azure is set, and no model has deployments (PUT /admin/settings, the dashboard or LLM_BASE_URL)"
)
_NOT_TRIED = (
    "The key was not tried, because no address of Azure is set (PUT /admin/settings, or LLM_BASE_URL). POST "
    "/admin/doctor tries deployments."
)
_NOT_USED = (
    "The key is stored, but it is not used and was not tried: LLM_IDENTITY is set, so tokens of Microsoft Entra ID are "
    "sent instead."
)


class AzureCredentials:
    """Remembers which credentials Azure has refused, and tells admins. Thread-safe.

    Args:
        routing: Knows the deployments, and what authenticates the gateway there.
        answered: The models that Azure has answered; one of them is asked to try a key.
        timer: Measures the time between two lines of the log.
    """

    def __init__(
        self,
        upstream: Upstream,
        policy: OrganisationPolicy,
        routing: Routing,
        *,
        answered: AnsweredModels,
        timer: Timer,
    ) -> None:
        self._upstream = upstream
        self._policy = policy
        self._routing = routing
        self._answered = answered
        self._timer = timer
        self._refused: dict[str, tuple[str, str]] = {}  # the headers that Azure refused last, by what refused them
        self._logged_at: dict[str, float] = {}

    def problem(self) -> str | None:
        """Return what is known to be wrong with the key for ``LLM_BASE_URL``, or with the token; None if nothing is."""
        try:
            organisation = self._policy.stored()
        except StoreUnavailable:
            organisation = None
        return self.problem_in(organisation)

    def is_needed(self) -> bool:
        """Whether there is an address to which the key or the token is sent, as far as the store says so now."""
        try:
            organisation = self._policy.stored()
        except StoreUnavailable:
            organisation = None
        return self._routing.default(organisation).endpoint is not None

    def problem_in(self, organisation: Organisation | None) -> str | None:
        """Return the same without asking the store.

        Args:
            organisation: Has the key; None if nobody knows it.
        """
        # What the environment says is known without the store.
        endpoint = self._routing.default(organisation).endpoint
        if endpoint is None:
            return None
        may_send = organisation is None or self._routing.may_share_key(endpoint, organisation)
        if self._routing.identity is not None:
            if not may_send:
                return f"tokens are not sent to {endpoint.host}: name this address in LLM_BASE_URL"
            refused = f"token refused by Azure: {_REMEDY}" if self._refused.get(_DEFAULT) is not None else None
            return self._routing.identity.problem() or refused
        if organisation is None:
            return _STORE_AWAY
        credential = self._policy.credential_in(organisation)
        if credential is None:
            return "missing or unreadable: set it with POST /admin/setllmkey"
        if not may_send:
            return f"not sent to {endpoint.host}, for which it was not set: {_SET_IT}"
        if self._routing.default_target("", credential, organisation).credential.header() == self._refused.get(
            _DEFAULT
        ):
            # another process may have got a new one
            return "refused by Azure: set a valid one with POST /admin/setllmkey"
        return None

    def address_problem(self) -> str | None:
        """Return why no request leads anywhere, or why a stored address cannot be used; None if all is well."""
        try:
            organisation = self._policy.stored()
        except StoreUnavailable:
            return None  # the store is named itself
        problem = self._routing.default(organisation).problem
        return problem if problem or self._routing.is_configured(organisation) else NOT_CONFIGURED

    def deployment_problems(self, organisation: Organisation) -> dict[tuple[str, str], str]:
        """Return why registered deployments cannot be called, by model and name; nothing for those that can."""
        problems = {}
        for model, each, target in self._routing.registered(organisation):
            problem = each.problem or ("there is no key: set it" if target is None else self._refusal(target))
            if problem is not None:
                problems[model.name, each.name] = problem
        return problems

    def known_problems(self, organisation: Organisation) -> dict[str, str]:
        """Return everything that is known to be wrong with keys and tokens, by where they are used."""
        problem = self.problem()
        problems = {"LLM_BASE_URL": problem} if problem is not None and problem != _STORE_AWAY else {}
        for (model, name), each in self.deployment_problems(organisation).items():
            problems[f"{model}/{name}"] = each
        return problems

    def deployments_problem(self) -> str | None:
        """Return how many registered deployments cannot be called; None if all can, as far as it is known."""
        try:
            problems = self.deployment_problems(self._policy.stored())
        except StoreUnavailable:
            return None  # the store is named itself
        return f"{len(problems)} cannot be called: see /admin/status" if problems else None

    def _refusal(self, target: Target) -> str | None:
        refused = self._refused.get(target.resource)
        if refused is None or target.credential.header() != refused:
            return None  # or it has got a new one
        return f"its credential is refused by Azure: set a valid key with PUT /admin/models/{target.model}"

    def try_key(self, credential: str, *, request_id: str) -> CredentialTrial:
        """Ask Azure whether it accepts *credential*, with a call that is not billed. Takes some seconds at most."""
        organisation = self._policy.stored()
        default = self._routing.default(organisation)
        if default.endpoint is None:
            return CredentialTrial(status=None, message=_NOT_TRIED)
        if self._routing.identity is not None:
            return CredentialTrial(status=None, message=_NOT_USED)
        names = (default.deployment, *self._routing.offered, *self._answered.names(), _SOME_MODEL)
        deployment = next(name for name in names if name and is_deployment_name(name))
        target = self._routing.default_target(deployment, credential, organisation)
        trial = try_credential(self._upstream, target, request_id=request_id)
        if trial.status is not None:
            self._remember(target, refused=trial.status in REFUSALS)
        return trial

    def missing(self) -> None:
        """Log that there is nothing to authenticate with. A token that is missing logs its reason itself."""
        if self._routing.identity is None:
            reason = "there is none, or it was stored with another SECRET_KEY or ADMIN_KEY"
            self._log(_DEFAULT, f"key cannot be used: {reason}", "Set one with POST /admin/setllmkey")

    def check(self, answer: Answer, target: Target) -> None:
        """Learn from the status of *answer*.

        Raises:
            UpstreamCredentials: Azure has refused the credential. The answer is closed.
        """
        if answer.status not in REFUSALS:
            if self._refused:
                self._remember(target, refused=False)
            return
        self._remember(target, refused=True)
        answer.close()
        self._log(
            target.label if target.is_registered else _DEFAULT,
            f"{self._kind_of(target)} cannot be used: Azure refused it with status {answer.status}",
            self._remedy_of(target),
        )
        raise UpstreamCredentials(
            "The model's provider refused the gateway's own key. Your key is fine: tell the admin."
        )

    def _kind_of(self, target: Target) -> str:
        return "token" if target.credential is self._routing.identity else "key"

    def _remedy_of(self, target: Target) -> str:
        if target.credential is self._routing.identity:
            return _REMEDY[0].upper() + _REMEDY[1:]
        return (
            f"Set a valid one with {f'PUT /admin/models/{target.model}' if target.model else 'POST /admin/setllmkey'}"
        )

    def _remember(self, target: Target, *, refused: bool) -> None:
        # At LLM_BASE_URL clients choose the deployment, and all have the same key.
        resource = target.resource if target.is_registered else _DEFAULT
        if refused:
            self._refused[resource] = target.credential.header()
        else:
            self._refused.pop(resource, None)

    def _log(self, deployment: str, problem: str, remedy: str) -> None:
        now = self._timer()
        if now - self._logged_at.get(deployment, -math.inf) < CREDENTIALS_LOG_SECONDS:
            return
        self._logged_at[deployment] = now
        log.error(
            "Azure's %s. Users get 502 upstream_credentials%s. %s. This is logged once a minute.",
            problem,
            f" from the deployment {deployment}" if deployment else "",
            remedy,
        )

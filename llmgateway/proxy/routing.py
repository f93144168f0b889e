"""Decides which deployments can answer a request, by the model that the client has named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..accounts.policy import OrganisationPolicy
from ..accounts.principal import Principal
from ..azure.credentials import Credential, StaticKey
from ..azure.deployments import Target
from ..azure.endpoint import Endpoint, is_deployment_name
from ..errors import (
    GatewayError,
    InvalidRequest,
    ModelNotAllowed,
    ModelNotFound,
    UpstreamCredentials,
    UpstreamNotConfigured,
)
from ..local_time import SETTINGS
from ..records import Organisation, Owned
from ..usage.answered_models import AnsweredModels
from .default_upstream import DefaultUpstream, UpstreamSettings, key_place, stored_upstream
from .registry import RegisteredDeployment, RegisteredModel, Registry

LONGEST_MODEL_NAME = 256

NOT_CONFIGURED = (
    "This gateway does not know any Azure yet, so it cannot answer. Your key is fine: tell the admin, who sets the "
    "address on the dashboard, with PUT /admin/settings or as LLM_BASE_URL."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The model of a request, and where it leads."""

    model: str
    """The name that the client sent; the name of the deployment if it sent none."""
    deployment: str
    """The deployment that is usually asked first."""
    registered: RegisteredModel | None = None
    """What an admin has registered under this name; ``None`` if nothing."""


class Routing:
    """Knows the models, and the deployments that serve them. Thread-safe.

    Args:
        environment: The address of Azure that the environment sets. It wins over the one that an admin has stored.
        policy: Has the stored one, and the key.
        offered: The models that clients may use there; empty for all that Azure has.
        answered: The models that Azure has answered.
        identity: What authenticates the gateway where an admin has chosen no key; None if there is nothing.
    """

    def __init__(
        self,
        environment: UpstreamSettings,
        *,
        policy: OrganisationPolicy,
        offered: tuple[str, ...],
        answered: AnsweredModels,
        identity: Credential | None = None,
    ) -> None:
        self.environment = environment
        self._from_environment = DefaultUpstream.of(environment)
        self._policy = policy
        self.offered = offered
        self._answered = answered
        self.identity = identity
        """Gives tokens, which are sent instead of Azure's key; None to send the key."""
        self._known = _Known.of(Organisation(), self)

    def default(self, organisation: Organisation | None) -> DefaultUpstream:
        """Return where models lead that have no deployments of their own. None for what the environment sets."""
        return self._from_environment if organisation is None else self._known_of(organisation).default

    def registry(self, organisation: Organisation) -> Registry:
        """Return the models that admins have registered. It is the same object until they change something."""
        return self._known_of(organisation).registry

    def is_configured(self, organisation: Organisation) -> bool:
        """Return whether any request leads anywhere."""
        if self.default(organisation).endpoint is not None:
            return True
        return any(model.is_registered for model in self.registry(organisation).models.values())

    def _known_of(self, organisation: Organisation) -> _Known:
        known = self._known
        if known.organisation is not organisation:
            holds = known.holds_for(organisation)
            self._known = known = replace(known, organisation=organisation) if holds else _Known.of(organisation, self)
        return known

    def decrypt(self, key: bytes) -> str | None:
        """Return the key of a deployment; None if it was encrypted with another secret."""
        return self._policy.decrypt(key)

    def may_share_key(self, endpoint: Endpoint, organisation: Organisation) -> bool:
        """Return whether the gateway's key for Azure, or its token, may be sent to *endpoint*.

        It goes to Azure's own hosts, to the host that the environment names, and, if it is a key, to the one for which
        an admin has set it; in the clear only where it already does. No admin can read it, and so none may send it to
        a server of theirs.
        """
        if endpoint.is_azure:
            return True
        places = [self._from_environment.endpoint, None if self.identity else key_place(organisation)]
        return any(
            place is not None and endpoint.host == place.host and (endpoint.is_encrypted or not place.is_encrypted)
            for place in places
        )

    def registered(
        self, organisation: Organisation
    ) -> Iterator[tuple[RegisteredModel, RegisteredDeployment, Target | None]]:
        """Yield the active deployments of all registered models; None in place of a target that cannot be called."""
        for model in self.registry(organisation).models.values():
            for deployment in model.deployments:
                try:
                    target = None if deployment.problem else self._target(model, deployment, organisation)
                except UpstreamCredentials:
                    target = None
                yield model, deployment, target

    def route(self, model: str | None, principal: Principal, operation: str) -> Route:
        """Return where a request for *model* leads.

        Args:
            operation: The name of the operation, such as ``chat/completions``.

        Raises:
            InvalidRequest: the request names no model, and there is no default; or the model does not serve the
                operation.
            ModelNotAllowed: the key may not use the model.
            ModelNotFound: the gateway does not offer the model.
        """
        default = self.default(principal.organisation)
        name = model or default.deployment
        if name is None:
            raise InvalidRequest("'model' is missing: name the model to use.", param="model")
        registered = self.registry(principal.organisation).find(name)
        self._check(name, principal, registered)
        if registered is not None:
            _check_operation(registered, operation)
        if registered is not None and registered.is_registered:
            return Route(model=name, deployment=registered.deployments[0].deployment, registered=registered)
        asked = name if registered is None else registered.name
        return Route(model=name, deployment=default.deployment or asked, registered=registered)

    def targets(
        self,
        route: Route,
        organisation: Organisation,
        *,
        stored_at: str | None = None,
    ) -> list[Target]:
        """Return the deployments to ask, the first one first. There is at least one.

        Args:
            stored_at: The address of the resource that has what the request continues: no other one can answer. Empty
                for that of ``LLM_BASE_URL``; None if the request continues nothing.

        Raises:
            InvalidRequest: the model has no deployment at this resource.
            UpstreamCredentials: there is nothing to authenticate with.
        """
        targets = self._all_targets(route, organisation)
        if stored_at is None:
            return targets
        found = [each for each in targets if each.endpoint.origin == (stored_at or self._default_origin(organisation))]
        if not found:
            raise InvalidRequest(
                f"The response that you continue is stored at another resource, which has no deployment of "
                f"{route.model[:100]!r}. Name the model that made it, or send the whole conversation.",
                param="model",
            )
        return found

    def _all_targets(self, route: Route, organisation: Organisation) -> list[Target]:
        registered = route.registered
        if registered is None or not registered.is_registered:
            return [self.own_target(route.deployment, organisation)]
        usable = [each for each in registered.deployments if each.problem is None]
        if not usable:
            raise UpstreamCredentials(
                f"The gateway cannot call any deployment of {registered.name!r}. Your key is fine: tell the admin, "
                "who finds the reason in /admin/status."
            )
        return [self._target(registered, each, organisation) for each in usable]

    def _target(self, model: RegisteredModel, deployment: RegisteredDeployment, organisation: Organisation) -> Target:
        credential = deployment.credential
        return Target(
            name=deployment.name,
            endpoint=deployment.endpoint,
            deployment=deployment.deployment,
            model=model.name,
            priority=deployment.priority,
            weight=deployment.weight,
            credential=self._default_credential(organisation) if credential is None else credential,
        )

    def _default_credential(self, organisation: Organisation) -> Credential:
        if self.identity is not None:
            return self.identity
        return StaticKey(self.default(organisation).key_header, self._policy.credential(organisation))

    def own_target(self, deployment: str, organisation: Organisation) -> Target:
        """Return a deployment of ``LLM_BASE_URL``, or of the address that an admin has stored.

        Raises:
            ModelNotFound: there is no address.
            UpstreamCredentials: there is nothing to authenticate with, or it must not be sent there.
        """
        endpoint = self._own_endpoint(deployment, organisation)
        if not self.may_share_key(endpoint, organisation):
            raise UpstreamCredentials(
                f"The gateway's key for Azure is not sent to {endpoint.host}: it was set for another address. Your own "
                "key is fine: tell the admin, who can set it again with POST /admin/setllmkey."
            )
        credential = self._default_credential(organisation)
        return Target(name="", endpoint=endpoint, deployment=deployment, credential=credential)

    def _own_endpoint(self, deployment: str, organisation: Organisation) -> Endpoint:
        endpoint = self.default(organisation).endpoint
        if endpoint is None:
            raise _no_such_model(deployment)
        return endpoint

    def _default_origin(self, organisation: Organisation) -> str:
        endpoint = self.default(organisation).endpoint
        return "" if endpoint is None else endpoint.origin

    def holder(self, owned: Owned, organisation: Organisation) -> Target:
        """Return the deployment whose resource has a stored response.

        Raises:
            UpstreamCredentials: there is nothing to authenticate with.
        """
        if owned.target in ("", self._default_origin(organisation)):
            return self.own_target(owned.deployment, organisation)
        for _, each, target in self.registered(organisation):
            if target is not None and each.endpoint.origin == owned.target:
                return target
        raise UpstreamCredentials(
            "The gateway no longer has a key for the resource that stores this response. Your own key is fine: tell "
            "the admin."
        )

    def default_target(self, deployment: str, key: str, organisation: Organisation) -> Target:
        """Return a deployment of ``LLM_BASE_URL``, or of the stored address, to which *key* is sent.

        Raises:
            ModelNotFound: there is no address.
        """
        credential = StaticKey(self.default(organisation).key_header, key)
        endpoint = self._own_endpoint(deployment, organisation)
        return Target(name="", endpoint=endpoint, deployment=deployment, credential=credential)

    def models(self, principal: Principal) -> list[str]:
        """Return the models that *principal* may use, as far as the gateway knows their names."""
        registry = self.registry(principal.organisation)
        if principal.models is not None:
            organisation = principal.organisation
            return [model for model in principal.models if self._is_offered(model, registry.find(model), organisation)]
        default = self.default(principal.organisation)
        if self.offered:
            others = list(self.offered)
        else:
            # If the URL names the deployment, Azure answers every name, and clients could put any into the list.
            others = [default.deployment] if default.deployment else self._answered.names()
        if default.endpoint is None:
            others = []
        # A name that only a pattern means was made up by a client; one that is off must not be shown.
        return [*registry.names, *(name for name in others if not _is_registered(registry.find(name)))]

    def may_use(self, principal: Principal, model: str) -> bool:
        """Return whether *principal* can use *model*, as far as the gateway knows: Azure may have none of this name."""
        if not model.isprintable() or len(model) > LONGEST_MODEL_NAME:
            return False
        registered = self.registry(principal.organisation).find(model)
        if self._answered.is_missing(model) and not _is_registered(registered):
            return False
        try:
            self._check(model, principal, registered)
        except GatewayError:
            return False
        return True

    def _check(self, model: str, principal: Principal, registered: RegisteredModel | None) -> None:
        organisation = principal.organisation
        if not self._is_offered(model, registered, organisation):
            if not self.is_configured(organisation):
                raise UpstreamNotConfigured(NOT_CONFIGURED)
            raise _no_such_model(model)
        if principal.models is not None and not _is_allowed(model, registered, principal.models):
            raise ModelNotAllowed(
                f"Your key may not use the model {model[:100]!r}. GET /v1/models lists those it may.", param="model"
            )
        asked = model if registered is None else registered.name
        endpoint = self.default(organisation).endpoint
        in_path = endpoint is not None and endpoint.names_model_in_path
        if not _is_registered(registered) and in_path and not is_deployment_name(asked):
            raise _no_such_model(model)

    def _is_offered(self, model: str, registered: RegisteredModel | None, organisation: Organisation) -> bool:
        """Return whether a model is registered and not switched off, or else offered at ``LLM_BASE_URL``."""
        if registered is not None and registered.is_registered:
            return bool(registered.deployments)
        if self.default(organisation).endpoint is None:
            return False
        return not self.offered or model in self.offered or (registered is not None and registered.name in self.offered)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What follows from one version of the organisation's settings."""

    organisation: Organisation
    default: DefaultUpstream
    registry: Registry

    @classmethod
    def of(cls, organisation: Organisation, routing: Routing) -> _Known:
        default = DefaultUpstream.of(routing.environment.or_else(stored_upstream(organisation)))
        registry = Registry(
            organisation.models,
            key_header=default.key_header,
            decrypt=routing.decrypt,
            identity=routing.identity,
            may_share_key=lambda endpoint: routing.may_share_key(endpoint, organisation),
        )
        return cls(organisation=organisation, default=default, registry=registry)

    def holds_for(self, other: Organisation) -> bool:
        """Return whether the same follows from *other*."""
        mine = self.organisation
        return (
            other.models is mine.models
            and other.credential == mine.credential
            and other.documents.get(SETTINGS) == mine.documents.get(SETTINGS)
        )


def _no_such_model(model: str) -> ModelNotFound:
    return ModelNotFound(f"The model {model[:100]!r} does not exist here. GET /v1/models lists yours.", param="model")


def _is_registered(model: RegisteredModel | None) -> bool:
    return model is not None and model.is_registered


def _is_allowed(model: str, registered: RegisteredModel | None, allowed: Sequence[str]) -> bool:
    """Return whether a key with the models *allowed* may use a model by this name."""
    if model in allowed or registered is None:
        return model in allowed
    names = {model.lower(), registered.name.lower()}  # the names of registered models mean the same in any case
    return any(name.lower() in names for name in allowed)


def _check_operation(model: RegisteredModel, operation: str) -> None:
    if model.endpoints is not None and operation not in model.endpoints:
        serves = ", ".join(f"/v1/{name}" for name in model.endpoints) or "nothing"
        raise InvalidRequest(
            f"The model {model.name[:100]!r} does not serve /v1/{operation}. It serves {serves}.", param="model"
        )

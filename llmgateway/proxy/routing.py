"""Decides which deployments can answer a request, by the model that the client has named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..accounts.policy import OrganisationPolicy
from ..accounts.principal import Principal
from ..azure.credentials import Credential, StaticKey
from ..azure.deployments import Target
from ..azure.endpoint import Endpoint, is_deployment_name
from ..errors import GatewayError, InvalidRequest, ModelNotAllowed, ModelNotFound, UpstreamCredentials
from ..records import ModelSettings, Organisation, Owned
from ..usage.answered_models import AnsweredModels
from .registry import RegisteredDeployment, RegisteredModel, Registry

LONGEST_MODEL_NAME = 256


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
        endpoint: The address of ``LLM_BASE_URL``; None if it is not set. Then only models with deployments exist.
        key_header: The name of the header for the key there.
        policy: Has the key.
        offered: The models that clients may use there; empty for all that Azure has.
        answered: The models that Azure has answered.
        identity: What authenticates the gateway where an admin has chosen no key; None if there is nothing.
    """

    def __init__(
        self,
        endpoint: Endpoint | None,
        *,
        key_header: str,
        policy: OrganisationPolicy,
        offered: tuple[str, ...],
        answered: AnsweredModels,
        identity: Credential | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._key_header = key_header
        self._policy = policy
        self.offered = offered
        self._answered = answered
        self.identity = identity
        """Gives tokens, which are sent instead of Azure's key; None to send the key."""
        self._registry = self._registry_of({})

    @property
    def own_deployment(self) -> str | None:
        """The deployment that ``LLM_BASE_URL`` names; None if it names none."""
        return None if self._endpoint is None else self._endpoint.deployment

    @property
    def has_default(self) -> bool:
        """Whether models without deployments of their own lead anywhere: whether ``LLM_BASE_URL`` is set."""
        return self._endpoint is not None

    def registry(self, organisation: Organisation) -> Registry:
        """Return the models that admins have registered. It is the same object until they change something."""
        registry = self._registry
        if registry.settings is not organisation.models:
            self._registry = registry = self._registry_of(organisation.models)
        return registry

    def _registry_of(self, settings: Mapping[str, ModelSettings]) -> Registry:
        return Registry(
            settings,
            key_header=self._key_header,
            decrypt=self._policy.decrypt,
            identity=self.identity,
            may_share_key=self.may_share_key,
        )

    def may_share_key(self, endpoint: Endpoint) -> bool:
        """Return whether the key of ``LLM_BASE_URL``, or the gateway's token, may be sent to *endpoint*, too.

        It goes to the same host, and to Azure's own, and in the clear only where it already does. No admin can read it,
        and so none may send it to a server of theirs.
        """
        default = self._endpoint
        if endpoint.is_azure or default is None:
            return endpoint.is_azure
        return endpoint.host == default.host and (endpoint.is_encrypted or not default.is_encrypted)

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
        name = model or self.own_deployment
        if name is None:
            raise InvalidRequest("'model' is missing: name the model to use.", param="model")
        registered = self.registry(principal.organisation).find(name)
        self._check(name, principal, registered)
        if registered is not None:
            _check_operation(registered, operation)
        if registered is not None and registered.is_registered:
            return Route(model=name, deployment=registered.deployments[0].deployment, registered=registered)
        asked = name if registered is None else registered.name
        return Route(model=name, deployment=self.own_deployment or asked, registered=registered)

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
        found = [each for each in targets if each.endpoint.origin == (stored_at or self._default_origin)]
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
        return StaticKey(self._key_header, self._policy.credential(organisation))

    def own_target(self, deployment: str, organisation: Organisation) -> Target:
        """Return a deployment of ``LLM_BASE_URL``.

        Raises:
            ModelNotFound: ``LLM_BASE_URL`` is not set.
            UpstreamCredentials: there is nothing to authenticate with.
        """
        return self._target_of_url(deployment, self._default_credential(organisation))

    def _target_of_url(self, deployment: str, credential: Credential) -> Target:
        if self._endpoint is None:
            raise _no_such_model(deployment)
        return Target(name="", endpoint=self._endpoint, deployment=deployment, credential=credential)

    @property
    def _default_origin(self) -> str:
        return "" if self._endpoint is None else self._endpoint.origin

    def holder(self, owned: Owned, organisation: Organisation) -> Target:
        """Return the deployment whose resource has a stored response.

        Raises:
            UpstreamCredentials: there is nothing to authenticate with.
        """
        if owned.target in ("", self._default_origin):
            return self.own_target(owned.deployment, organisation)
        for _, each, target in self.registered(organisation):
            if target is not None and each.endpoint.origin == owned.target:
                return target
        raise UpstreamCredentials(
            "The gateway no longer has a key for the resource that stores this response. Your own key is fine: tell "
            "the admin."
        )

    def default_target(self, deployment: str, key: str) -> Target:
        """Return a deployment of ``LLM_BASE_URL``, to which *key* is sent.

        Raises:
            ModelNotFound: ``LLM_BASE_URL`` is not set.
        """
        return self._target_of_url(deployment, StaticKey(self._key_header, key))

    def models(self, principal: Principal) -> list[str]:
        """Return the models that *principal* may use, as far as the gateway knows their names."""
        registry = self.registry(principal.organisation)
        if principal.models is not None:
            return [model for model in principal.models if self._is_offered(model, registry.find(model))]
        if self.offered:
            others = list(self.offered)
        else:
            # If the URL names the deployment, Azure answers every name, and clients could put any into the list.
            others = [self.own_deployment] if self.own_deployment else self._answered.names()
        if not self.has_default:
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
        if not self._is_offered(model, registered):
            raise _no_such_model(model)
        if principal.models is not None and not _is_allowed(model, registered, principal.models):
            raise ModelNotAllowed(
                f"Your key may not use the model {model[:100]!r}. GET /v1/models lists those it may.", param="model"
            )
        asked = model if registered is None else registered.name
        in_path = self._endpoint is not None and self._endpoint.names_model_in_path
        if not _is_registered(registered) and in_path and not is_deployment_name(asked):
            raise _no_such_model(model)

    def _is_offered(self, model: str, registered: RegisteredModel | None) -> bool:
        """Return whether a model is registered and not switched off, or else offered at ``LLM_BASE_URL``."""
        if registered is not None and registered.is_registered:
            return bool(registered.deployments)
        if not self.has_default:
            return False
        return not self.offered or model in self.offered or (registered is not None and registered.name in self.offered)


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

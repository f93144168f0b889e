"""The errors that are reported to clients, and to operators at start.

There is one class for each meaning that a client can see. The web layer converts them to OpenAI's error object. This
module knows nothing about HTTP except status codes.
"""

from __future__ import annotations

from collections.abc import Mapping


class GatewayError(Exception):
    """An error that is reported to the client, in OpenAI's error object.

    Args:
        message: Says what is wrong and what to do next. Never contains a key.
        param: The field of the request that is wrong, as OpenAI's clients expect it.
        retry_after: Seconds after which the same request may succeed.
        fields: Messages by field, for bodies of the admin API.
        headers: Further headers of the response, besides ``Retry-After``.
    """

    status = 500
    type = "api_error"
    code: str | None = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        fields: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.fields = fields
        self.headers = dict(headers or {})

    def as_json(self) -> dict[str, object]:
        """Return OpenAI's error object. It has a fifth field ``errors`` if ``fields`` are given."""
        error: dict[str, object] = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        if self.fields is not None:
            error["errors"] = self.fields
        return {"error": error}


class InvalidKey(GatewayError):
    """The user's key is missing, malformed, unknown, revoked, not yet valid or expired."""

    status, type, code = 401, "invalid_request_error", "invalid_api_key"


class KeyRevoked(InvalidKey):
    """The user's key was revoked while its request was running."""


class InvalidAdminKey(GatewayError):
    """The ``AdminKey`` header is missing or wrong."""

    status, type, code = 401, "invalid_request_error", "invalid_admin_key"


class AdminThrottled(GatewayError):
    """Too many wrong admin keys came from one address."""

    status, type, code = 429, "rate_limit_error", "too_many_attempts"


class ModelNotAllowed(GatewayError):
    """The key may not use the requested model."""

    status, type, code = 403, "permission_error", "model_not_allowed"


class PriceUnknown(GatewayError):
    """The request would be paid from a budget in dollars, and the model's price is not known."""

    status, type, code = 403, "permission_error", "price_unknown"


class ModelNotFound(GatewayError):
    """The requested model does not exist."""

    status, type, code = 404, "invalid_request_error", "model_not_found"


class NotFound(GatewayError):
    """The object that the path or the body names does not exist."""

    status, type, code = 404, "invalid_request_error", "not_found"


class StoredNotFound(GatewayError):
    """There is no such stored response, item, container or spoken answer, or it belongs to somebody else.

    The text is Azure's, so that nobody learns whether an identifier exists.

    Args:
        kind: ``response``, ``item``, ``container`` or ``audio``.
        param: ``previous_response_id`` if the body names the response; None if the path does.
    """

    status, type = 404, "invalid_request_error"
    code: str | None = "previous_response_not_found"

    def __init__(self, stored_id: str, *, kind: str, param: str | None = None) -> None:
        shown = stored_id if stored_id.isprintable() else repr(stored_id)
        name = "Previous response" if param == "previous_response_id" else kind.capitalize()
        super().__init__(f"{name} with id '{shown[:130]}' not found.", param=param)
        if param != "previous_response_id":
            self.code = None


class NoSuchGroup(NotFound):
    """The group of a key does not exist, or is being removed."""

    def __init__(self) -> None:
        super().__init__("There is no such group, or it is being removed. GET /admin/groups lists them.", param="group")


class Conflict(GatewayError):
    """The object to create exists already."""

    status, type, code = 409, "invalid_request_error", "already_exists"


class NameTaken(Conflict):
    """Another admin has this name."""

    def __init__(self) -> None:
        super().__init__("There is an admin with this name already. Choose another one.", param="name")


class SignInRefused(GatewayError):
    """Somebody may not sign in, or the sign-in was not valid."""

    status, type, code = 403, "permission_error", "sign_in_refused"


class GrantEnded(SignInRefused):
    """The identity provider says that a code or a refresh token is not valid any more."""

    def __init__(self) -> None:
        super().__init__("The identity provider does not accept this sign-in any more. Sign in again.")


class IdentityProviderUnavailable(GatewayError):
    """The organisation's identity provider does not answer, or not as it should."""

    status, code = 503, "identity_provider_unavailable"


class UserTaken(Conflict):
    """Another account of the identity provider stands for this person."""

    def __init__(self) -> None:
        super().__init__(
            "Another account of the identity provider has the keys of this person. Take them from it first: "
            "GET /admin/identities?user=NAME finds it.",
            param="user",
        )


class Forbidden(GatewayError):
    """The admin has not the right for this."""

    status, type, code = 403, "permission_error", "forbidden"


class PreconditionFailed(GatewayError):
    """The object is not as the client knows it: the header ``If-Match`` names another state.

    Args:
        present: The object as it is now, as JSON; None if there is none.
    """

    status, type, code = 412, "invalid_request_error", "precondition_failed"

    def __init__(self, message: str, *, present: object = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, headers=headers)
        self.present = present

    def as_json(self) -> dict[str, object]:
        """Return OpenAI's error object, with a fifth field ``present``."""
        error = super().as_json()["error"]
        return {"error": {**error, "present": self.present}}  # type: ignore[dict-item]


class InUse(GatewayError):
    """The object cannot be removed, because another object needs it."""

    status, type, code = 409, "invalid_request_error", "in_use"


class GroupInUse(InUse):
    """The group cannot be removed, because its keys would lose its limits and dates."""

    def __init__(self) -> None:
        super().__init__("There are keys in this group. Remove them, or move them to another group, first.")


class SelectionChanged(GatewayError):
    """The keys that a change of many keys selects are not those that its preview has shown."""

    status, type, code = 409, "invalid_request_error", "selection_changed"

    def __init__(self, preview: Mapping[str, object] | None = None) -> None:
        super().__init__(
            "Other keys match the filter now than in the preview, and nothing was changed. 'preview' shows those of "
            "now: look at them, and send its token."
        )
        self.preview = preview
        """The new preview, as JSON."""

    def as_json(self) -> dict[str, object]:
        return super().as_json() | ({} if self.preview is None else {"preview": self.preview})


class InvalidRequest(GatewayError):
    """The body of a completion request is not valid."""

    status, type, code = 400, "invalid_request_error", "invalid_request_error"


class BodyTooLarge(GatewayError):
    """The body is larger than ``LLMGATEWAY_MAX_BODY_BYTES``."""

    status, type, code = 413, "invalid_request_error", "body_too_large"


class UnsupportedMediaType(GatewayError):
    """The body is compressed or is not JSON."""

    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class InvalidFields(GatewayError):
    """A body of the admin API does not match its schema; ``fields`` has the messages."""

    status, type, code = 422, "invalid_request_error", "invalid_fields"


class RateLimited(GatewayError):
    """A rate limit is reached, or running requests hold the rest of a budget; the same request can succeed later."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class BudgetSpent(GatewayError):
    """A budget is used up. The same request fails until the budget renews or an admin raises it."""

    status, type, code = 429, "insufficient_quota", "insufficient_quota"


class Overloaded(GatewayError):
    """The gateway already runs as many requests as it can."""

    status, type, code = 503, "server_error", "overloaded"


class GatewayStopping(Overloaded):
    """The process stops before the answer has ended."""


class StoreUnavailable(GatewayError):
    """A store failed, or did not answer within its timeout."""

    status, type, code = 503, "server_error", "store_unavailable"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message, retry_after=retry_after)


class StoreReadOnly(StoreUnavailable):
    """A store answers questions, and takes no changes."""


class MetricsIncomplete(GatewayError):
    """Several processes serve, and nothing adds their metrics up."""

    status, type, code = 503, "server_error", "metrics_incomplete"


class UpstreamError(GatewayError):
    """The request to Azure failed, and neither the user's key nor the request is the cause."""

    status, type, code = 502, "server_error", "upstream_error"


class UpstreamCredentials(UpstreamError):
    """Azure refused the organisation's credential, or there is no usable credential."""

    code = "upstream_credentials"


class UpstreamNotConfigured(UpstreamError):
    """Nobody has set an address of Azure, and no model has deployments of its own."""

    code = "upstream_not_configured"


class DeploymentsNotListed(GatewayError):
    """Azure does not list the deployments of a resource."""

    status, type, code = 502, "api_error", "deployments_not_listed"


class DoctorBusy(GatewayError):
    """This process examines the deployments already."""

    status, type, code = 409, "invalid_request_error", "already_running"


class UpstreamMoved(UpstreamError):
    """Azure answered with a redirect: the gateway's setting of Azure's address is not right any more."""

    code = "upstream_moved"


class UpstreamUnreachable(UpstreamError):
    """No connection to Azure: nothing of the request was sent, and nothing is billed."""

    code = "upstream_unreachable"


class UpstreamBroken(UpstreamError):
    """The connection to Azure ended after the request was sent and before the answer was complete."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """The request was sent, but Azure did not answer in time."""

    status, code = 504, "upstream_timeout"


class UpstreamLimited(GatewayError):
    """All deployments of the model are at Azure's limits."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class ClientGone(GatewayError):
    """The client closed its connection, so nobody reads this response. The status 499 comes from nginx."""

    status, type, code = 499, "invalid_request_error", "client_closed"


class ConfigurationError(Exception):
    """Settings are missing or malformed. ``problems`` has one message for each, which says what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

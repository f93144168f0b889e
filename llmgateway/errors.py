"""What can go wrong in a way that somebody is told about.

One class for each meaning a client can see. The web layer turns them into OpenAI's error
object; nothing in here knows HTTP beyond the number of a status.
"""

from __future__ import annotations

from collections.abc import Mapping


class GatewayError(Exception):
    """Something the client is told about, in OpenAI's error object.

    Args:
        message: A sentence that tells the reader what to do next. Never holds a key.
        param: The field of the request that is at fault, as OpenAI's clients expect it.
        retry_after: Seconds after which the same request may succeed.
        fields: For admin bodies: what is wrong, by field.
        headers: More that the client is told, beside ``Retry-After``.
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
        """OpenAI's error object, with ``errors`` beside the usual four where fields are at fault."""
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


class InvalidAdminKey(GatewayError):
    """The ``AdminKey`` header is missing or wrong."""

    status, type, code = 401, "invalid_request_error", "invalid_admin_key"


class AdminThrottled(GatewayError):
    """Too many wrong admin keys came from one address."""

    status, type, code = 429, "rate_limit_error", "too_many_attempts"


class ModelNotAllowed(GatewayError):
    """The key may not use the model it asked for."""

    status, type, code = 403, "permission_error", "model_not_allowed"


class ModelNotFound(GatewayError):
    """No such model."""

    status, type, code = 404, "invalid_request_error", "model_not_found"


class NotFound(GatewayError):
    """The thing named in the path or the body does not exist."""

    status, type, code = 404, "invalid_request_error", "not_found"


class NoSuchGroup(NotFound):
    """The group that a key should be put into does not exist, or is being removed."""

    def __init__(self) -> None:
        super().__init__("There is no such group, or it is being removed. GET /admin/groups lists them.", param="group")


class Conflict(GatewayError):
    """What should be created exists already."""

    status, type, code = 409, "invalid_request_error", "already_exists"


class InUse(GatewayError):
    """What should be removed is needed by something else."""

    status, type, code = 409, "invalid_request_error", "in_use"


class GroupInUse(InUse):
    """A group cannot be removed: its keys would be without its limits and dates."""

    def __init__(self) -> None:
        super().__init__("There are keys in this group. Remove them, or move them to another group, first.")


class InvalidRequest(GatewayError):
    """The body of a completion is not what the API takes."""

    status, type, code = 400, "invalid_request_error", "invalid_request_error"


class BodyTooLarge(GatewayError):
    """The body exceeds the operator's limit."""

    status, type, code = 413, "invalid_request_error", "body_too_large"


class UnsupportedMediaType(GatewayError):
    """The body is compressed or is not JSON."""

    status, type, code = 415, "invalid_request_error", "unsupported_media_type"


class InvalidFields(GatewayError):
    """An admin body breaks its schema; ``fields`` says where."""

    status, type, code = 422, "invalid_request_error", "invalid_fields"


class RateLimited(GatewayError):
    """A limit is reached for now; the same request succeeds later."""

    status, type, code = 429, "rate_limit_error", "rate_limit_exceeded"


class BudgetSpent(GatewayError):
    """A budget is used up; the same request fails until it renews or an admin raises it."""

    status, type, code = 429, "insufficient_quota", "insufficient_quota"


class Overloaded(GatewayError):
    """Every slot for a request in flight is taken."""

    status, type, code = 503, "server_error", "overloaded"


class GatewayStopping(Overloaded):
    """The process stops before the answer has ended."""


class StoreUnavailable(GatewayError):
    """A store did not answer within its time-out, or refused."""

    status, type, code = 503, "server_error", "store_unavailable"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message, retry_after=retry_after)


class UpstreamError(GatewayError):
    """Azure could not be used; the user's key and request are not at fault."""

    status, type, code = 502, "server_error", "upstream_error"


class UpstreamCredentials(UpstreamError):
    """Azure refused the organisation's credential, or none can be used."""

    code = "upstream_credentials"


class UpstreamUnreachable(UpstreamError):
    """No connection to Azure: nothing of the request was sent, nothing is owed."""

    code = "upstream_unreachable"


class UpstreamBroken(UpstreamError):
    """The connection to Azure ended after the request was sent and before the answer was complete."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """Azure took the request and was silent for too long."""

    status, code = 504, "upstream_timeout"


class ClientGone(GatewayError):
    """The client closed its connection; nobody reads this answer. 499 is what nginx calls it."""

    status, type, code = 499, "invalid_request_error", "client_closed"


class ConfigurationError(Exception):
    """Settings are missing or malformed; ``problems`` has one sentence for each, with its remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

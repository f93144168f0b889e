"""Azure's errors, as they were recorded. A comment marks those that were not recorded.

Sources: recorded traffic and issue threads of 2023 to 2026. The order of keys is Azure's own,
which is not the same in every error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

REGION = "East US 2"


class Fault(NamedTuple):
    """An answer that is an error."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Occasion(NamedTuple):
    """The data of a request that the texts of errors contain."""

    deployment: str = "gpt-4o-mini"
    api_version: str | None = None
    """``None`` on the v1 API."""
    retry_after: int | None = None
    """Seconds; ``None`` for those of the recorded error."""


def error(status: int, headers: Mapping[str, str] | None = None, **fields: Any) -> Fault:
    """An error object with its fields in the order given."""
    return Fault(status, orjson.dumps({"error": fields}), headers or {})


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> Fault:
    """An error with status 400, which says that the request is wrong."""
    return error(400, message=message, type="invalid_request_error", param=param, code=code)


UNAUTHORIZED = error(
    401,
    code="401",
    message="Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key "
    "for an active subscription and use a correct regional API endpoint for your resource.",
)
"""Recorded in an Azure SDK's own tests: 224 bytes."""

APIM_INVALID = Fault(
    401,
    b'{"statusCode":401,"message":"Access denied due to invalid subscription key. '
    b'Make sure to provide a valid key for an active subscription."}',
)
APIM_MISSING = Fault(
    401,
    b'{"statusCode":401,"message":"Access denied due to missing subscription key. '
    b'Make sure to include subscription key when making requests to an API."}',
)
PERMISSION_DENIED = error(401, code="PermissionDenied", message="Principal does not have access to API/Operation.")
NOT_FOUND = error(404, code="404", message="Resource not found")
NETWORK_DENIED = error(403, code="AccessDenied", message="Access denied due to Virtual Network/Firewall rules.")
BLOCKED = error(
    403,
    code="403",
    message="Your resource has been temporarily blocked because we detected behavior that may violate our "
    "content policy.",
)
# The two below were described, never recorded to the byte.
SERVER_ERROR = error(
    500,
    message="The server had an error while processing your request. Sorry about that!",
    type="server_error",
    param=None,
    code=None,
)
UNAVAILABLE = error(
    503,
    code="ServiceUnavailable",
    message="The service is temporarily unable to process your request. Please try again later.",
)

_NO_SUCH_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again."
)

CONTENT_FILTER = Fault(
    400,
    b'{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI\'s content management '
    b"policy. Please modify your prompt and retry. To learn more about our content filtering policies please read our "
    b'documentation: https://go.microsoft.com/fwlink/?linkid=2198766","type":null,"param":"prompt",'
    b'"code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation","content_filter_result":'
    b'{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"detected":false,"filtered":false},"self_harm":'
    b'{"filtered":false,"severity":"safe"},"sexual":{"filtered":true,"severity":"high"},"violence":'
    b'{"filtered":false,"severity":"safe"}}}}}',
)


def deployment_not_found(occasion: Occasion) -> Fault:
    """Newer APIs add a ``type`` (seen with gpt-5.2 in 2026; its place among the keys is a guess)."""
    if occasion.api_version is None:
        return error(404, type="invalid_request_error", code="DeploymentNotFound", message=_NO_SUCH_DEPLOYMENT)
    return error(404, code="DeploymentNotFound", message=_NO_SUCH_DEPLOYMENT)


def operation_not_supported(occasion: Occasion) -> Fault:
    return error(
        400,
        code="OperationNotSupported",
        message=f"The chatCompletion operation does not work with the specified model, {occasion.deployment}. "
        "Please choose different model and try again. You can learn more about which models can be used with each "
        "operation here: https://go.microsoft.com/fwlink/?linkid=2197993.",
    )


def unknown_parameter(name: str) -> Fault:
    return invalid(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def unrecognized_argument(name: str) -> Fault:
    """The wording of API versions before August 2024."""
    return invalid(f"Unrecognized request argument supplied: {name}")


def rate_limited(occasion: Occasion, *, what: str, headers: Mapping[str, str] | None = None) -> Fault:
    """The deployment's own limit; *what* is ``token`` (per minute) or ``call`` (requests per minute)."""
    seconds = _seconds(occasion, 22)
    return _too_many(
        f"Requests to the ChatCompletions_Create Operation under {_api(occasion)} have exceeded {what} rate limit of "
        f"your current OpenAI S0 pricing tier. Please retry after {seconds} seconds. Please go here: "
        "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit.",
        {**_asking(seconds), **(_spent(what, seconds) if headers is None else headers)},
    )


def rate_limited_newer(occasion: Occasion) -> Fault:
    """The wording of 2025 and 2026."""
    seconds = _seconds(occasion, 45)
    return _too_many(
        f"Your requests to {occasion.deployment} for {occasion.deployment} in {REGION} have exceeded the token rate "
        "limit for your current AIServices S0 pricing tier. This request was for ChatCompletions_Create under "
        f"{_api(occasion)}. Please retry after {seconds} seconds.",
        {**_asking(seconds), **_spent("token", seconds)},
    )


def rate_limited_2023(occasion: Occasion) -> Fault:
    """The form of late 2023, without headers that clients read to retry."""
    seconds = _seconds(occasion, 55)
    fault = rate_limited(occasion._replace(retry_after=seconds), what="token", headers={})
    return fault._replace(headers={"x-rate-limit-reset-tokens": str(seconds), "policy-id": "DeploymentRatelimit-Token"})


def capacity(occasion: Occasion) -> Fault:
    """Azure itself is overloaded (January 2026); the quota of the deployment is almost unused."""
    seconds = _seconds(occasion, 6)
    return _too_many(
        "The system is currently experiencing high demand and cannot process your request. Your request exceeds the "
        f"maximum usage size allowed during peak load. Please retry after {seconds} seconds. For improved latency "
        "reliability, consider switching to Provisioned Throughput.",
        {
            **_asking(seconds),
            "x-ratelimit-limit-tokens": "120000",
            "x-ratelimit-remaining-requests": "119",
            "x-ratelimit-remaining-tokens": "119986",
        },
    )


def adjusted_limit(occasion: Occasion) -> Fault:
    """Azure has lowered the limit for some hours below the configured one."""
    headers = {"x-ratelimit-limit-tokens": "12000", "x-ratelimit-remaining-tokens": "0"}
    return rate_limited(occasion, what="token", headers=headers)


def token_estimate(occasion: Occasion) -> Fault:
    """A large ``max_tokens`` exceeds the remaining tokens, although some remain."""
    headers = {"x-ratelimit-limit-tokens": "120000", "x-ratelimit-remaining-tokens": "3000"}
    return rate_limited(occasion, what="token", headers=headers)


def _seconds(occasion: Occasion, recorded: int) -> int:
    return recorded if occasion.retry_after is None else occasion.retry_after


def _api(occasion: Occasion) -> str:
    if occasion.api_version is None:
        return "OpenAI Language Model Instance API"
    return f"Azure OpenAI API version {occasion.api_version}"


def _too_many(message: str, headers: Mapping[str, str]) -> Fault:
    return error(429, headers, code="429", message=message)


def _asking(seconds: int) -> dict[str, str]:
    return {"retry-after": str(seconds), "retry-after-ms": str(seconds * 1000)}


def _spent(what: str, seconds: int) -> dict[str, str]:
    unit = "requests" if what == "call" else "tokens"
    return {f"x-ratelimit-remaining-{unit}": "0", f"x-ratelimit-reset-{unit}": str(seconds * 1000)}


FAULTS: Mapping[str, Callable[[Occasion], Fault]] = {
    "unauthorized": lambda _: UNAUTHORIZED,
    "unauthorized_apim": lambda _: APIM_INVALID,
    "permission_denied": lambda _: PERMISSION_DENIED,
    "network_denied": lambda _: NETWORK_DENIED,
    "blocked": lambda _: BLOCKED,
    "not_found": lambda _: NOT_FOUND,
    "deployment_not_found": deployment_not_found,
    "operation_not_supported": operation_not_supported,
    "unknown_parameter": lambda _: unknown_parameter("stream_options"),
    "unrecognized_argument": lambda _: unrecognized_argument("stream_options"),
    "content_filter": lambda _: CONTENT_FILTER,
    "token_rate_limit": lambda occasion: rate_limited(occasion, what="token"),
    "call_rate_limit": lambda occasion: rate_limited(occasion, what="call"),
    "token_rate_limit_newer": rate_limited_newer,
    "token_rate_limit_2023": rate_limited_2023,
    "capacity": capacity,
    "adjusted_limit": adjusted_limit,
    "token_estimate": token_estimate,
    "server_error": lambda _: SERVER_ERROR,
    "unavailable": lambda _: UNAVAILABLE,
}
"""The errors that a :class:`~llmgateway.simulator.scripts.Script` can name."""

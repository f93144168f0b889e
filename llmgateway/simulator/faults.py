"""Azure's errors, as they were recorded. A comment marks those that were not recorded.

Sources: recorded traffic and issue threads of 2023 to 2026. The order of keys is Azure's own,
which is not the same in every error.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

REGION = "East US 2"


class Fault(NamedTuple):
    """An answer that is an error."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    billed: bool = False
    """Whether Azure bills the prompt all the same (Microsoft's page on managing costs, 2024)."""


class Occasion(NamedTuple):
    """The data of a request that the texts of errors contain."""

    deployment: str = "gpt-4o-mini"
    operation: str = "ChatCompletions_Create"
    verb: str = "chatCompletion"
    region: str = REGION
    response: str = "resp_0"
    """The response that a request continues, or asks for."""
    item: str = "rs_0"
    """The item that it refers to."""
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
TOKEN_INVALID = Fault(
    401,
    b'{"statusCode":401,"message":"Unauthorized. Access token is missing, invalid, audience is incorrect '
    b'(https://cognitiveservices.azure.com), or have expired."}',
)
"""A token of Entra ID that has ended, or is none (Azure-Samples/azure-search-openai-demo#458)."""
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
    billed=True,
)
CONTENT_FILTER_NEWER = error(
    400,
    message="The response was filtered due to the prompt triggering Azure OpenAI\u2019s content management policy. "
    "Please modify your prompt and retry. To learn more about our content filtering policies please read our "
    "documentation: https://go.microsoft.com/fwlink/?linkid=2198766",
    type="invalid_request_error",
    param="prompt",
    code="content_filter",
    content_filters=[
        {
            "blocked": True,
            "source_type": "prompt",
            "content_filter_raw": [],
            "content_filter_results": {
                "jailbreak": {"detected": True, "filtered": True},
                "hate": {"filtered": False, "severity": "safe"},
                "sexual": {"filtered": False, "severity": "safe"},
                "violence": {"filtered": False, "severity": "safe"},
                "self_harm": {"filtered": False, "severity": "safe"},
            },
            "content_filter_offsets": {"start_offset": 0, "end_offset": 44, "check_offset": 0},
        }
    ],
    innererror={"code": "ContentFiltered"},
)._replace(billed=True)
"""The form of 2026: pasted four times, once from the Responses API."""

CONTENT_FILTER_IMAGE = error(
    400, code="contentFilter", message="Your task failed as a result of our safety system."
)._replace(billed=True)
"""Of images (Microsoft's page on DALL-E, 2024), which puts ``created`` before it."""

TIMEOUT = error(408, code="Timeout", message="The operation was timeout.")._replace(billed=True)
"""langgenius/dify-official-plugins#2199."""


STREAM_ERROR = (
    b'data: {"error":{"message":"The server had an error while processing your request. Sorry about that!",'
    b'"type":"server_error","param":null,"code":null}}\n\n'
)
"""The last event of a stream that fails. The form of OpenAI; there is no recording from Azure."""


def moved(status: int, location: str | None) -> Fault:
    """Another address, as a proxy or a misconfigured gateway in front of Azure tells it; Azure itself never does."""
    headers = {"Content-Type": "text/html"} | ({} if location is None else {"Location": location})
    return Fault(status, b"<html><body>Moved</body></html>", headers)


_EXTRA_FORBIDDEN = (
    '{"detail":[{"type":"extra_forbidden","loc":["body","stream_options","include_usage"],"msg":"Extra inputs are not '
    'permitted","input":true,"url":"https://errors.pydantic.dev/2.10/v/extra_forbidden"}]}'
)
REFUSALS_OF_STREAM_OPTIONS: Mapping[str, Fault] = {
    "unknown_parameter": invalid(
        "Unknown parameter: 'stream_options'.", param="stream_options", code="unknown_parameter"
    ),
    "unrecognized_argument": invalid("Unrecognized request argument supplied: stream_options"),
    # On Your Data, semantic-kernel#10510; the code is a number.
    "validation_error": error(
        400,
        requestid="b1f8d4c2-6a53-4a0e-9f0b-0c6f6a1f6a52",
        code=400,
        message="Validation error at #/stream_options: Extra inputs are not permitted",
    ),
    # Mistral in Foundry, litellm#11696, and Mistral's own API, avante.nvim#2347.
    "extra_forbidden": Fault(
        422, orjson.dumps({"error": {"code": "Invalid input", "message": _EXTRA_FORBIDDEN, "status": 422}})
    ),
    "extra_forbidden_mistral": Fault(
        422,
        b'{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","stream_options",'
        b'"include_usage"],"msg":"Extra inputs are not permitted","input":true}]},"type":"invalid_request_error",'
        b'"param":null,"code":null}',
    ),
    # Phi in Foundry; its text is a list of Python's.
    "extra_forbidden_phi": Fault(
        400,
        b"{\"object\":\"error\",\"message\":\"[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), "
        b"'msg': 'Extra inputs are not permitted', 'input': {'include_usage': True}}]\","
        b'"type":"BadRequestError","param":null,"code":400}',
    ),
    # Azure AI's model inference API, litellm#9800.
    "extra_parameters": Fault(
        400,
        b'{"detail":"Extra parameters [\'stream_options\'] are not allowed when extra-parameters is not set or set to '
        b"be 'error'.\"}",
    ),
}
"""In every form that was seen."""


def model_not_found(occasion: Occasion) -> Fault:
    """The form of the previews of 2025 (litellm#13419)."""
    return error(
        404,
        message=f"The model '{occasion.deployment}' does not exist",
        type="invalid_request_error",
        param="model",
        code="model_not_found",
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
        message=f"The {occasion.verb} operation does not work with the specified model, {occasion.deployment}. "
        "Please choose different model and try again. You can learn more about which models can be used with each "
        "operation here: https://go.microsoft.com/fwlink/?linkid=2197993.",
    )


def previous_response_not_found(occasion: Occasion) -> Fault:
    """Azure also answers so at times just after a response was completed (dotnet/extensions#7704, 2026-08)."""
    return invalid(
        f"Previous response with id '{occasion.response}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def item_not_found(occasion: Occasion) -> Fault:
    """openclaw#21782."""
    return invalid(
        f"Item with id '{occasion.item}' not found. Items are not persisted when `store` is set to false. Try again "
        "with `store` set to true, or remove this item from your input.",
        param="input",
    )


def response_not_found(occasion: Occasion) -> Fault:
    """OpenAI's; there is no recording from Azure."""
    return error(
        404,
        message=f"Response with id '{occasion.response}' not found.",
        type="invalid_request_error",
        param=None,
        code=None,
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
        f"Requests to the {occasion.operation} Operation under {_api(occasion)} have exceeded {what} rate limit of "
        f"your current OpenAI S0 pricing tier. Please retry after {seconds} seconds. Please go here: "
        "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit.",
        {**_asking(seconds), **(_spent(what, seconds) if headers is None else headers)},
    )


def rate_limited_newer(occasion: Occasion) -> Fault:
    """The wording of 2025 and 2026."""
    seconds = _seconds(occasion, 45)
    return _too_many(
        f"Your requests to {occasion.deployment} for {occasion.deployment} in {occasion.region} have exceeded the "
        f"token rate limit for your current AIServices S0 pricing tier. This request was for "
        f"{occasion.operation} under {_api(occasion)}. Please retry after {seconds} seconds.",
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


def _entra(status: int, name: str, number: int, message: str) -> Fault:
    """An error of Entra's token endpoint (Azure/sap-automation#418; its numbers are in Microsoft's list of AADSTS)."""
    trace, correlation, stamp = str(uuid.UUID(int=1)), str(uuid.UUID(int=2)), "2026-01-01 00:00:00Z"
    description = (
        f"AADSTS{number}: {message}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {stamp}"
    )
    document = {
        "error": name,
        "error_description": description,
        "error_codes": [number],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={number}",
    }
    return Fault(status, orjson.dumps(document))


def _imds(status: int, name: str, description: str) -> Fault:
    """An error of the metadata service of a virtual machine (azure-docs#21322)."""
    return Fault(status, orjson.dumps({"error": name, "error_description": description}))


ENTRA_SECRET = _entra(
    401,
    "invalid_client",
    7000215,
    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the "
    "client secret ID, for a secret added to app.",
)
ENTRA_CLIENT = _entra(
    400,
    "unauthorized_client",
    700016,
    "Application was not found in the directory. This can happen if the "
    "application has not been installed by the administrator of the tenant.",
)
ENTRA_TENANT = _entra(
    400, "invalid_request", 90002, "Tenant not found. Check to make sure you have the correct tenant ID."
)
ENTRA_SCOPE = _entra(400, "invalid_scope", 70011, "The provided value for the input parameter 'scope' is not valid.")
ENTRA_GRANT = _entra(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
IMDS_HEADER = _imds(400, "invalid_request", "Required metadata header not specified")
IMDS_RESOURCE = _imds(400, "invalid_resource", "AADSTS500011: The resource principal was not found in the tenant.")
IMDS_IDENTITY = _imds(400, "invalid_request", "Identity not found")


def _always(fault: Fault) -> Callable[[Occasion], Fault]:
    return lambda _: fault


FAULTS: Mapping[str, Callable[[Occasion], Fault]] = {
    "unauthorized": lambda _: UNAUTHORIZED,
    "unauthorized_apim": lambda _: APIM_INVALID,
    "token_invalid": lambda _: TOKEN_INVALID,
    "permission_denied": lambda _: PERMISSION_DENIED,
    "network_denied": lambda _: NETWORK_DENIED,
    "blocked": lambda _: BLOCKED,
    "not_found": lambda _: NOT_FOUND,
    "deployment_not_found": deployment_not_found,
    "operation_not_supported": operation_not_supported,
    "model_not_found": model_not_found,
    "previous_response_not_found": previous_response_not_found,
    "item_not_found": item_not_found,
    "response_not_found": response_not_found,
    "content_filter": lambda _: CONTENT_FILTER,
    "content_filter_newer": lambda _: CONTENT_FILTER_NEWER,
    "content_filter_image": lambda _: CONTENT_FILTER_IMAGE,
    "timeout": lambda _: TIMEOUT,
    "moved": lambda _: moved(308, "/elsewhere/openai/v1/chat/completions"),
    "moved_nowhere": lambda _: moved(302, None),
    "token_rate_limit": lambda occasion: rate_limited(occasion, what="token"),
    "call_rate_limit": lambda occasion: rate_limited(occasion, what="call"),
    "token_rate_limit_newer": rate_limited_newer,
    "token_rate_limit_2023": rate_limited_2023,
    "capacity": capacity,
    "adjusted_limit": adjusted_limit,
    "token_estimate": token_estimate,
    "server_error": lambda _: SERVER_ERROR,
    "unavailable": lambda _: UNAVAILABLE,
    "entra_secret": lambda _: ENTRA_SECRET,
    "entra_expired": lambda _: _entra(401, "invalid_client", 7000222, "The provided client secret keys are expired."),
    "entra_client": lambda _: ENTRA_CLIENT,
    "entra_tenant": lambda _: ENTRA_TENANT,
    "entra_busy": lambda _: _entra(503, "temporarily_unavailable", 90033, "A transient error has occurred."),
    "imds_identity": lambda _: IMDS_IDENTITY,
    "imds_gone": lambda _: _imds(410, "gone", "The service is being updated."),
    "imds_busy": lambda _: _imds(429, "too_many_requests", "Too many requests"),
    **{name: _always(fault) for name, fault in REFUSALS_OF_STREAM_OPTIONS.items()},
}
"""The errors that a :class:`~llmgateway.simulator.scripts.Script` can name."""

"""The documentation of errors: each kind of error, with examples of the response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import (
    AdminThrottled,
    BodyTooLarge,
    BudgetSpent,
    Conflict,
    DeploymentsNotListed,
    DoctorBusy,
    Forbidden,
    GatewayError,
    GroupInUse,
    InvalidAdminKey,
    InvalidFields,
    InvalidKey,
    InvalidRequest,
    MetricsIncomplete,
    ModelNotAllowed,
    ModelNotFound,
    NameTaken,
    NoSuchGroup,
    NotFound,
    Overloaded,
    PreconditionFailed,
    PriceUnknown,
    RateLimited,
    SelectionChanged,
    StoredNotFound,
    StoreUnavailable,
    UnsupportedMediaType,
    UpstreamCredentials,
    UpstreamMoved,
    UpstreamNotConfigured,
    UpstreamTimeout,
    UpstreamUnreachable,
    UserTaken,
)
from ..proxy.routing import NOT_CONFIGURED
from .errors import ErrorSchema, invalid_fields

_RETRY_AFTER = {"description": "Seconds after which to try again.", "schema": {"type": "integer"}, "example": 5}
_LIMIT_HEADERS: dict[str, Any] = {
    "retry-after-ms": {
        "description": "The same in milliseconds, which OpenAI's clients prefer. Not sent for a spent budget.",
        "schema": {"type": "integer"},
        "example": 4200,
    },
    "x-llmgateway-limit": {
        "description": "The limit that was reached: `key.`, `person.`, `member.`, `group.` or `organisation.` and its "
        "name. Not sent if Azure refused the request.",
        "schema": {"type": "string"},
        "example": "key.requests_per_minute",
    },
    "x-should-retry": {
        "description": "`false` if a budget is spent: OpenAI's clients give up at once.",
        "schema": {"type": "string"},
        "example": "false",
    },
}
UNKNOWN_REQUEST = (
    "There is no request with this id, neither ours (x-request-id) nor Azure's (apim-request-id). A request may take a "
    "moment to get here: try again after some seconds. Usage records are kept for LLMGATEWAY_LOG_DAYS, refused "
    "requests for LLMGATEWAY_REFUSAL_DAYS. Of many equal refusals of one key or address within a minute, only the "
    "first have an id of their own: GET /admin/logs?kind=refusal lists them with their number."
)
"""The message of ``GET /admin/logs/{id}`` if it finds nothing."""
_STORE_AWAY = StoreUnavailable("The durable store does not serve. Try again later.")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A reusable response of OpenAPI that documents an error."""

    status: int
    description: str
    examples: Mapping[str, GatewayError | dict[str, Any]]
    """Examples by name: errors of the gateway, or Azure's error objects."""
    retry_after: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict)
    """Further headers, as OpenAPI header objects."""

    def as_component(self) -> dict[str, Any]:
        examples = {
            name: {"value": example.as_json() if isinstance(example, GatewayError) else {"error": example}}
            for name, example in self.examples.items()
        }
        component: dict[str, Any] = {
            "description": self.description,
            "content": {"application/json": {"schema": ErrorSchema, "examples": examples}},
        }
        headers = ({"Retry-After": _RETRY_AFTER} if self.retry_after else {}) | dict(self.headers)
        if headers:
            component["headers"] = headers
        return component


def responses(*names: str) -> dict[int, dict[str, str]]:
    """Return references to the :data:`REFUSALS` with these names, by status."""
    return {REFUSALS[name].status: {"$ref": f"#/components/responses/{name}"} for name in names}


REFUSALS = {
    "InvalidKey": Refusal(
        401,
        "The key is missing, malformed, unknown, revoked, not yet valid or expired; the message says which.",
        {
            "no key": InvalidKey("No API key was sent. Send yours as 'Authorization: Bearer KEY'."),
            "unknown key": InvalidKey("The API key is not known here. Ask the admin of this gateway for one."),
            "revoked": InvalidKey("The API key has been revoked. Ask the admin of this gateway."),
            "expired": InvalidKey("The API key expired at 2027-03-31 22:00:00 UTC. Ask the admin of this gateway."),
        },
    ),
    "InvalidAdminKey": Refusal(
        401,
        "The header `AdminKey` is missing or wrong.",
        {
            "no key": InvalidAdminKey("The admin API needs the header 'AdminKey'."),
            "wrong key": InvalidAdminKey(
                "The AdminKey is wrong: it is not known here. Send the ADMIN_KEY of this gateway, or the key that an "
                "owner gave you."
            ),
        },
    ),
    "Forbidden": Refusal(
        403,
        "Your role has not the right for this.",
        {"role": Forbidden("Your role is 'viewer'. For this it must be owner or admin: ask an owner of this gateway.")},
    ),
    "PreconditionFailed": Refusal(
        412,
        "The object is not in the state that `If-Match` names. Nothing was changed; `present` is how it is now.",
        {
            "changed": PreconditionFailed(
                "This was changed by somebody else in the meantime: 'present' is how it is now. Look at it, and send "
                "your change again with its ETag in If-Match.",
                present={"note": "Tuesdays, room 101"},
            )
        },
    ),
    "UnknownAdmin": Refusal(
        404,
        "There is no such admin.",
        {"unknown": NotFound("There is no admin with this id. GET /admin/admins lists those there are.", param="id")},
    ),
    "UnknownIdentity": Refusal(
        404,
        "There is no such account.",
        {
            "unknown": NotFound(
                "There is no account with this id. GET /admin/identities lists those there are.", param="id"
            )
        },
    ),
    "UserTaken": Refusal(409, "Another account has the keys of this person.", {"user": UserTaken()}),
    "AdminNameTaken": Refusal(409, "Another admin has this name.", {"name": NameTaken()}),
    "AdminThrottled": Refusal(
        429,
        "Ten wrong admin keys came from your address within a minute. A right one is let in all the same, unless it is "
        "shorter than 16 characters.",
        {"throttled": AdminThrottled("Too many wrong admin keys came from your address.")},
        retry_after=True,
    ),
    "MalformedBody": Refusal(
        400,
        "The body is missing, or is not JSON.",
        {
            "no body": InvalidRequest("The request has no body. Send a JSON object."),
            "not JSON": InvalidRequest("The body is not valid JSON at byte 14: unexpected end of data."),
        },
    ),
    "InvalidFields": Refusal(
        422,
        "Fields of the body or of the query are missing, wrong or unknown; `errors` says why, by field.",
        {
            "missing": invalid_fields({"user": ["Missing data for required field."]}),
            "unknown": invalid_fields({"usr": ["Unknown field."]}),
            "no group": invalid_fields(
                {
                    "group": [
                        "There is no such group. Make it first: PUT /admin/groups/{name}, or llmgateway groups set."
                    ]
                }
            ),
        },
    ),
    "InvalidLines": Refusal(
        422,
        "Some lines of the file are wrong; `errors` says why, by line. Nothing was stored.",
        {
            "lines": InvalidFields(
                "2 lines (3, 4) are not right; 'errors' says why. Nothing was stored: correct the file and send all "
                "of it again.",
                param="file",
                fields={
                    "line 3": {"email": ["Not a valid email address."]},
                    "line 4": {"user": ["Missing data for required field."]},
                },
            ),
            "file": invalid_fields(
                {
                    "file": [
                        "Is a PDF, which has no cells. Ask for the list as an Excel workbook or as CSV.",
                    ]
                }
            ),
        },
    ),
    "NotCSV": Refusal(
        415,
        "The file is compressed, or its `Content-Type` is not that of a file.",
        {
            "not CSV": UnsupportedMediaType(
                "Send the file itself as the body, with the header 'Content-Type: text/csv', also if it is a workbook."
            ),
            "compressed": UnsupportedMediaType("Send the body uncompressed, without 'Content-Encoding'."),
        },
    ),
    "BodyTooLarge": Refusal(
        413,
        "The body is larger than this gateway accepts: 32 MiB, unless the admin has set another size.",
        {"too large": BodyTooLarge("The body is larger than this gateway takes.")},
    ),
    "UnsupportedMediaType": Refusal(
        415,
        "The body is compressed, or its `Content-Type` is not JSON, or not `multipart/form-data` where files are sent.",
        {
            "not JSON": UnsupportedMediaType(
                "Send the body as JSON, with the header 'Content-Type: application/json'."
            ),
            "compressed": UnsupportedMediaType("Send the body uncompressed, without 'Content-Encoding'."),
        },
    ),
    "UnknownKey": Refusal(
        404,
        "There is no such key.",
        {"unknown": NotFound("There is no key with this id. GET /admin/keys lists those there are.", param="id")},
    ),
    "UnknownPerson": Refusal(
        404,
        "Nothing is kept of a person with this name.",
        {
            "unknown": NotFound(
                "Nothing is kept of a person with this name. GET /admin/keys lists who has keys.", param="user"
            )
        },
    ),
    "UnknownRequest": Refusal(
        404,
        "There is no such request, or it is not kept any more.",
        {
            "unknown": NotFound(UNKNOWN_REQUEST, param="request_id"),
        },
    ),
    "UnknownGroup": Refusal(
        404,
        "There is no such group.",
        {"unknown": NotFound("There is no such group. GET /admin/groups lists those there are.", param="name")},
    ),
    "UnknownUser": Refusal(
        404,
        "There is nobody with this name.",
        {"unknown": NotFound("There is nobody with this name. GET /admin/users lists who there is.", param="user")},
    ),
    "UnknownKeyOrGroup": Refusal(
        404,
        "There is no such key or group.",
        {
            "key": NotFound("There is no key with this id. GET /admin/keys lists those there are.", param="id"),
            "group": NotFound("There is no such group. GET /admin/groups lists those there are.", param="name"),
        },
    ),
    "GroupRemoved": Refusal(
        404,
        "The group is being removed at the same moment.",
        {"group removed": NoSuchGroup()},
    ),
    "UnknownKeyOrGroupRemoved": Refusal(
        404,
        "There is no such key, or the group is being removed at the same moment.",
        {
            "unknown": NotFound("There is no key with this id. GET /admin/keys lists those there are.", param="id"),
            "group removed": NoSuchGroup(),
        },
    ),
    "NothingToPreview": Refusal(
        404,
        "There is no such key, group or model.",
        {
            "key": NotFound("There is no key with this id. GET /admin/keys lists those there are.", param="id"),
            "group": NotFound("There is no such group. GET /admin/groups lists those there are.", param="name"),
            "model": ModelNotFound("The model 'gpt-9' does not exist here. GET /v1/models lists yours.", param="model"),
        },
    ),
    "GroupInUse": Refusal(
        409,
        "There are keys in the group.",
        {"in use": GroupInUse()},
    ),
    "SelectionChanged": Refusal(
        409,
        "Other keys match the filter now than in the preview. Nothing was changed; `preview` is a new one.",
        {"changed": SelectionChanged({"count": 0, "items": [], "token": "…", "dry_run": True})},
    ),
    "DoctorBusy": Refusal(
        409,
        "The deployments are being tried at the moment.",
        {"running": DoctorBusy("The deployments are being tried at the moment. Ask again in a minute.")},
    ),
    "ReconcileBusy": Refusal(
        503,
        "Another bill is being compared at the moment.",
        {"running": Overloaded("Another bill is being compared at the moment. Try again soon.", retry_after=10)},
    ),
    "DeploymentsNotListed": Refusal(
        502,
        "Azure does not list the deployments of this resource; or there is no key to ask it with.",
        {
            "not listed": DeploymentsNotListed(
                "This address does not list its deployments (status 404). Register them one by one: llmgateway models "
                "deploy NAME --name EAST --base-url URL --deployment NAME."
            ),
            "credentials": UpstreamCredentials("The gateway has no usable key for Azure."),
        },
    ),
    "KeyExists": Refusal(
        409,
        "The key that you sent exists already.",
        {"exists": Conflict("This key exists already. Send another one, or none to have one made up.", param="key")},
    ),
    "ModelWithoutPrices": Refusal(
        404,
        "The model has no settings of your own.",
        {
            "none": NotFound(
                "This model has no settings of your own. GET /admin/models lists those that have.", param="name"
            )
        },
    ),
    "StoreUnavailable": Refusal(
        503,
        "The gateway's store does not answer.",
        {"store away": _STORE_AWAY},
        retry_after=True,
    ),
    "MetricsIncomplete": Refusal(
        503,
        "Several processes of another server than `llmgateway serve` run, and nothing adds their numbers up.",
        {
            "several processes": MetricsIncomplete(
                "Several processes serve, and each knows only its own numbers. Set PROMETHEUS_MULTIPROC_DIR to an "
                "empty folder before the server starts, or use llmgateway serve."
            )
        },
    ),
    "UnknownModel": Refusal(
        404,
        "Your key has no such model.",
        {"unknown": ModelNotFound("Your key has no such model. GET /v1/models lists those it has.", param="model")},
    ),
    "InvalidCompletion": Refusal(
        400,
        "The body is not what the API expects; or Azure refuses it, in Azure's own words.",
        {
            "no messages": InvalidRequest("'messages' is missing: send a list of messages.", param="messages"),
            "not JSON": InvalidRequest(
                "The body is not valid JSON at byte 14: unexpected character, expected a JSON value."
            ),
            "repeated name": InvalidRequest("The name 'model' appears twice in the body. Send it once.", param="model"),
            "other letters": InvalidRequest(
                "'Model' differs from 'model' in upper and lower case only. Write 'model'.", param="model"
            ),
            "Azure: unknown parameter": {
                "message": "Unknown parameter: 'temprature'.",
                "type": "invalid_request_error",
                "param": "temprature",
                "code": "unknown_parameter",
            },
            "Azure: content filter": {
                "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management "
                "policy. Please modify your prompt and retry.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
                },
            },
        },
    ),
    "ModelNotAllowed": Refusal(
        403,
        "Your key may not use this model, or has a budget in dollars and the model's price is not known.",
        {
            "not allowed": ModelNotAllowed(
                "Your key may not use the model 'gpt-4o'. GET /v1/models lists those it may.", param="model"
            ),
            "price not known": PriceUnknown(
                "The price of the model 'course-model' is not known, so your budget in dollars cannot pay it. Use "
                "another model, or ask the admin to set its price: PUT /admin/models/{name}, or llmgateway models set.",
                param="model",
            ),
        },
    ),
    "ModelNotFound": Refusal(
        404,
        "The gateway does not offer this model; or Azure has no such deployment, in Azure's own words.",
        {
            "not offered": ModelNotFound(
                "The model 'gpt-9' does not exist here. GET /v1/models lists yours.", param="model"
            ),
            "Azure: no deployment": {
                "code": "DeploymentNotFound",
                "message": "The API deployment for this resource does not exist. If you created the deployment within "
                "the last 5 minutes, please wait a moment and try again.",
            },
        },
    ),
    "ModelOrResponseNotFound": Refusal(
        404,
        "The gateway does not offer this model; or the body names a response, an item or a container that is not "
        "yours, or that does not exist.",
        {
            "not offered": ModelNotFound(
                "The model 'gpt-9' does not exist here. GET /v1/models lists yours.", param="model"
            ),
            "previous response": StoredNotFound("resp_68af4030592c8193", kind="response", param="previous_response_id"),
            "item": StoredNotFound("rs_68af4030baa48193", kind="item", param="input"),
        },
    ),
    "UnknownResponse": Refusal(
        404,
        "There is no such response, or it is not yours.",
        {"unknown": StoredNotFound("resp_68af4030592c8193", kind="response")},
    ),
    "Limited": Refusal(
        429,
        "A limit of your key, your group or the organisation is reached, or a budget is spent: the message says which, "
        "and until when. Or Azure's own limit is reached, in Azure's own words. OpenAI's clients wait and retry, "
        "except if a budget is spent. A request without `max_tokens` holds as much of a budget as the model's longest "
        "answer may cost, so set `max_tokens` to run several at once.",
        {
            "rate limit": RateLimited("Your key may make 3 requests per minute. Try again in 60 s."),
            "budget held": RateLimited(
                "Your key has a budget of 5,000 tokens per day. It is not used up, but running requests hold what is "
                "left of it until they end. A request holds what its answer may cost at most: set max_tokens, so that "
                "more requests can run at once. Try again in 1 s."
            ),
            "budget spent": BudgetSpent(
                "Your key has used its budget of 2 requests per day. It renews at 2026-01-02 00:00:00 UTC."
            ),
            "Azure: rate limit": {
                "code": "429",
                "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 "
                "have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 22 seconds.",
            },
        },
        retry_after=True,
        headers=_LIMIT_HEADERS,
    ),
    "UpstreamUnusable": Refusal(
        502,
        "Azure cannot be reached, has moved, or refuses the gateway's own key. Your key is fine: tell the admin.",
        {
            "credentials": UpstreamCredentials(
                "The model's provider refused the gateway's own key. Your key is fine: tell the admin."
            ),
            "not configured": UpstreamNotConfigured(NOT_CONFIGURED),
            "moved": UpstreamMoved(
                "The model's provider has moved, and the gateway's setting of its address is not right any more: tell "
                "the admin. Nothing was charged."
            ),
            "unreachable": UpstreamUnreachable("The model's provider cannot be reached. Try again in a moment."),
        },
    ),
    "Busy": Refusal(
        503,
        "The gateway is at its capacity, or cannot look keys up. Nothing was sent to Azure.",
        {
            "at capacity": Overloaded("The gateway is working at its full capacity. Try again in a moment."),
            "store away": _STORE_AWAY,
        },
        retry_after=True,
    ),
    "UpstreamTimeout": Refusal(
        504,
        "Azure took the request and was silent for too long.",
        {"silence": UpstreamTimeout("The model's provider took the request and was silent for too long.")},
    ),
}

BODY_REFUSALS = ("MalformedBody", "BodyTooLarge", "UnsupportedMediaType", "InvalidFields")
QUERY_REFUSALS = ("InvalidFields",)

"""What an admin can do about an error that a user has seen: one text for each code."""

from __future__ import annotations

import re
import shlex

from ...records import Outcome, Refusal, UsageRecord
from ...usage.error_codes import REMEDIES

_NOBODYS_KEY = (
    "Nobody has this key: it was mistyped, was removed, or is of another service. Compare its first and last "
    "characters with those that the user was given, or make a new one: llmgateway keys add USER."
)

_PLACE = re.compile(r"\{(\w+)\}")

REFUSED: dict[str | None, str] = {
    "invalid_api_key": "llmgateway keys show {key} tells whether it is blocked, and its dates. To let it in again: "
    "llmgateway keys unblock {key}, or llmgateway keys set {key} --expires-at DATE. If the group's dates are over: "
    "llmgateway groups set {group} --expires-at DATE.",
    "invalid_admin_key": "If this was you: the header AdminKey must be the ADMIN_KEY that the gateway was started with "
    "(no blanks around it). If it was nobody you know, look at the address: somebody is guessing.",
    "too_many_attempts": "Wrong admin keys came from this address one after the other. It may try again within a "
    "minute. If nobody you know is there, keep the port of the gateway from the outside.",
    "forbidden": "The admin key that was sent has no right to do this. An owner can change its role.",
    "sign_in_refused": "The message says why. llmgateway accounts list shows whether the account is blocked or waits "
    "for an admin; the page Sign-in of the dashboard shows who may sign in, and docs/sign-in.md how the identity "
    "provider is set.",
    "identity_provider_unavailable": "The organisation's identity provider did not answer as it should: try "
    "OIDC_ISSUER from this host, and look at the provider. Whoever has a key signs in with it in the meantime.",
    "model_not_allowed": "The key or its group may use other models only. To add this one: llmgateway keys set {key} "
    "--model {model}, with a --model for each of the others, too; the same for the group {group}, if it names models.",
    "price_unknown": "The request would be paid from a budget in dollars, and nobody knows what {model} costs. Set its "
    "price: llmgateway models set {model}.",
    "model_not_found": "There is no model {model} here. Tell the user the names that GET /v1/models lists, or make it "
    "known: llmgateway models set {model}. Names are compared exactly.",
    "not_found": "The address does not exist. The user's program needs the base_url of this gateway with /v1 at its "
    "end; the message says what it asked for.",
    "method_not_allowed": "The address exists, but not with this method. A browser sends GET; programs of OpenAI send "
    "POST to the addresses that GET /docs lists.",
    "previous_response_not_found": "The response is older than 30 days, was deleted, or belongs to another user. The "
    "user has to begin a new conversation.",
    None: "What the user asked for is older than 30 days, was deleted, or belongs to another user.",
    "already_exists": "It is there already: list it, and change it in place of creating it.",
    "in_use": "Something else needs it. Remove or move that first; the message names it.",
    "selection_changed": "The keys that match have changed since the preview. Ask for a new preview, and confirm that.",
    "precondition_failed": "Somebody else has changed it in the meantime. Look at it again, and repeat the change.",
    "invalid_request_error": "The user's program sends something that is not right, and the message says what and "
    "where. Nothing has to be changed here. To try the same: llmgateway prompt preview sends nothing to Azure.",
    "body_too_large": "The body is larger than LLMGATEWAY_MAX_BODY_BYTES. The user can send less: a shorter "
    "conversation, smaller images. Or raise the setting and start the gateway again.",
    "unsupported_media_type": "The user's program compresses the body, or does not send it as JSON (or as a form, for "
    "files). It needs the header Content-Type: application/json, and no Content-Encoding.",
    "invalid_fields": "The fields that the message names are not right. GET /docs shows those that there are.",
    "rate_limit_exceeded": "All deployments of {model} are at Azure's limits. Add a deployment in another region "
    "(llmgateway models set {model}), or ask Microsoft for more: https://aka.ms/oai/quotaincrease.",
    "insufficient_quota": "A budget is spent. The message says which, and when it renews.",
    "overloaded": "All request slots were busy, or this key held its share of them. If it happens often, raise "
    "LLMGATEWAY_THREADS or LLMGATEWAY_PROCESSES. If one key is the reason, give it a limit: llmgateway keys set {key} "
    "--parallel-requests N.",
    "store_unavailable": "A store was away. llmgateway status says whether it is back; GET /readyz names it.",
    "metrics_incomplete": "Several processes serve, and nothing adds their metrics up: start the gateway with "
    "llmgateway serve, or set PROMETHEUS_MULTIPROC_DIR.",
    "upstream_error": "Azure could not be asked. llmgateway doctor makes one cheap call for each deployment, and says "
    "what is wrong.",
    "upstream_credentials": "Azure refuses the organisation's key, or there is none. Set it: llmgateway llm-key set. "
    "The user's key is right.",
    "upstream_not_configured": "Nobody has told the gateway where Azure is. Set the address: llmgateway settings set "
    "--base-url ADDRESS, then the key: llmgateway llm-key set. The dashboard leads through both.",
    "upstream_moved": "Azure answers with a redirect: LLM_BASE_URL, or the base_url of a deployment, is not right any "
    "more. llmgateway doctor shows where it leads.",
    "upstream_unreachable": "There was no connection to Azure, or it broke. llmgateway doctor tries again, and says "
    "whether it is the name, the proxy, the certificate or Azure.",
    "upstream_timeout": "Azure did not answer in time. If only long answers are concerned, users should set stream, or "
    "raise LLMGATEWAY_FIRST_BYTE_TIMEOUT.",
    "deployments_not_listed": "Azure does not list the deployments of this resource. Name them: llmgateway models set "
    "MODEL.",
    "already_running": "It runs already. Wait until it has ended.",
    "client_closed": "The user's program closed the connection before there was an answer: it was stopped, or its own "
    "time-out is too short.",
    "internal_error": "This is a bug of the gateway. Search its log for the id; the line has the cause.",
}
"""By the code of a refusal. What stands in braces is replaced by what is known of the request."""

_LIMITS = {
    "requests_per_minute": "--requests-per-minute N",
    "tokens_per_minute": "--tokens-per-minute N",
    "parallel_requests": "--parallel-requests N",
    "budget": "--budget AMOUNTusd/month",
}
_SCOPES = {
    "key": "This is the limit of the key alone. To raise it: llmgateway keys set {key} {option}. For a while: "
    "llmgateway keys raise {key} {option} --until tomorrow.",
    "person": "This is the limit of {user} for all keys of theirs. To raise it: llmgateway users limits {user} "
    "{option}. For a while: llmgateway users raise {user} {option} --until tomorrow.",
    "member": "This is the limit of each person in the group {group}. To raise it for all of them: llmgateway groups "
    "set {group} {member_option}. For this one, for a while: llmgateway users raise {user} {option} --until tomorrow.",
    "group": "This is the limit of the whole group {group}. To raise it: llmgateway groups set {group} {option}. "
    "llmgateway usage --by user --group {group} --this-month shows who used most.",
    "organisation": "This is the limit of everybody together. To raise it: llmgateway limits set {option}. "
    "llmgateway usage --by group,user shows who used most.",
}
"""By the first part of a limit's name, as in ``key.budget``."""

_RENEWS = {
    "budget": " The message says when it renews.",
    "parallel_requests": " It ends with the running requests.",
}
_WITHIN_A_MINUTE = " It ends by itself within a minute."

OUTCOMES: dict[Outcome, str | None] = {
    Outcome.OK: None,
    Outcome.UPSTREAM_ERROR: "Azure answered with the status {status} and the code {code}. The user has seen Azure's "
    "own message, which says more; it is not stored.",
    Outcome.CLIENT_CLOSED: "The user's program closed the connection before the answer had ended: it was stopped, or "
    "its own time-out is too short for {model}.",
    Outcome.BROKEN: "The connection to Azure ended before the answer was complete. If it happens often: llmgateway "
    "doctor.",
    Outcome.TIMEOUT: "Azure sent nothing for too long. If only long answers are concerned, users should set stream, or "
    "raise LLMGATEWAY_FIRST_BYTE_TIMEOUT and LLMGATEWAY_BETWEEN_BYTES_TIMEOUT.",
    Outcome.REVOKED: "The key {key} was blocked, removed or replaced while the answer was running. llmgateway audit "
    "--target {key} says by whom.",
    Outcome.INTERRUPTED: "The gateway was stopped, or died, before the answer had ended. Its log says why.",
}
"""By how a recorded request ended."""

AT_AZURE = REMEDIES | {
    "content_filter": "Azure's content filter has blocked the prompt or the answer: content_filter names the "
    "categories. The text is not stored: ask the user. Filters are set per deployment, in Azure's portal.",
    "context_length_exceeded": "The conversation is longer than {model} can read. The user has to shorten it, or to "
    "choose a model with a longer context.",
    "DeploymentNotFound": "Azure has no deployment {deployment}. Look at its name in the portal, and set it: "
    "llmgateway models set {model}. A new one needs some minutes.",
    "OperationNotSupported": "{deployment} does not serve this kind of request. Use another model.",
    "unsupported_parameter": "{model} does not know a parameter that the user's program sends, such as max_tokens in "
    "place of max_completion_tokens. Azure's message, which the user has seen, names it.",
    "unsupported_value": "{model} does not take a value that the user's program sends. Azure's message names it.",
    "upstream_credentials": REFUSED["upstream_credentials"],
    "upstream_moved": REFUSED["upstream_moved"],
    "upstream_timeout": REFUSED["upstream_timeout"],
    "upstream_unreachable": REFUSED["upstream_unreachable"],
}
"""By the code of a recorded request: Azure's, or ours."""


def about_refusal(refusal: Refusal) -> str:
    """Return what to do about a request that the gateway has refused."""
    known = {
        "key": refusal.key_id or "KEY",
        "user": refusal.user or "USER",
        "group": refusal.group or "GROUP",
        "model": refusal.model or "MODEL",
    }
    if refusal.limit is not None:
        scope, _, name = refusal.limit.partition(".")
        text = _SCOPES.get(scope, "Limit: {limit}.") + _RENEWS.get(name, _WITHIN_A_MINUTE)
        option = _LIMITS.get(name, "…")
        options = {"option": option, "member_option": option.replace("--", "--member-", 1)}
        return _filled(text, known | {"limit": refusal.limit}, options)
    if refusal.code == "invalid_api_key" and refusal.key_id is None:
        return _NOBODYS_KEY
    unknown = REFUSED["invalid_request_error" if refusal.status < 500 else "internal_error"]
    return _filled(REFUSED.get(refusal.code, unknown), known)


def about_record(record: UsageRecord) -> str | None:
    """Return what to do about a request that was sent to Azure; None if it ended well."""
    if record.outcome is Outcome.OK:
        return None
    text = AT_AZURE.get(record.error_code or "") or OUTCOMES[record.outcome]
    known = {
        "key": record.key_id,
        "model": record.model,
        "deployment": record.deployment,
        "status": "none" if record.status is None else str(record.status),
        "code": record.error_code or "none",
    }
    return None if text is None else _filled(text, known)


def _filled(text: str, known: dict[str, str], options: dict[str, str] | None = None) -> str:
    """Put what is known into *text*, quoted for a shell: people paste commands, and clients can choose any model."""
    values = {name: shlex.quote(value) for name, value in known.items()} | (options or {})
    # Each place once, from left to right: a model's name may have braces, too.
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), text)

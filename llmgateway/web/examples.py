"""The examples of the API documentation."""

from __future__ import annotations

from typing import Any

SECRET_KEY = "llmgw-this-is-an-example-and-opens-nothing"  # noqa: S105
"""An example of a user's key. The gateway refuses to create it, because its text is public."""

AZURE_KEY = "paste-the-key-from-the-Azure-portal"
"""An example of Azure's key. The gateway refuses to store it, because it would replace a working key."""

KEY_ID = "key_019b3f2a7c10d41d8cd98f00b204"
MODEL = "gpt-4o-mini"

NO_GROUP = "example-group"
NO_MODEL = "example-model"
NO_USER = "example-user"
"""In paths: names that nobody uses, so that a call with them changes nothing of anybody's."""

LIMITS: dict[str, Any] = {
    "requests_per_minute": 30,
    "tokens_per_minute": 40_000,
    "parallel_requests": 4,
    "budget": {"amount": 5, "unit": "usd", "period": "month"},
}
NO_LIMITS: dict[str, Any] = dict.fromkeys(LIMITS)
SELF_SERVICE: dict[str, Any] = {"keys": 2, "days": 180, "models": None, "limits": NO_LIMITS}
WITHOUT_GROUP = {"without_group": SELF_SERVICE}
WITHOUT_GROUP_REQUEST = {"without_group": {"keys": 12, "days": 345}}
GROUP: dict[str, Any] = {
    "name": "ml-2026",
    "note": "Tuesdays, room 101",
    "cost_centre": "4711",
    "starts_at": "2026-09-30T22:00:00+00:00",
    "expires_at": "2027-03-31T22:00:00+00:00",
    "models": [MODEL],
    "limits": {
        "requests_per_minute": None,
        "tokens_per_minute": 200_000,
        "parallel_requests": None,
        "budget": {"amount": 150, "unit": "usd", "period": "total"},
    },
    "member_limits": NO_LIMITS | {"budget": {"amount": 2, "unit": "usd", "period": "week"}},
    "self_service": SELF_SERVICE,
    "raise": None,
    "created_at": "2026-09-20T09:00:00+00:00",
}
GROUP_REQUEST = {name: GROUP[name] for name in ("starts_at", "expires_at", "models", "limits", "member_limits")} | {
    "note": "Put your own values in place of these."
}
"""Refused, like the other requests that replace something (see :meth:`~.blueprint.Blueprint.arguments`). Each has
values that nobody means."""
ORGANISATION_LIMITS: dict[str, Any] = NO_LIMITS | {
    "tokens_per_minute": 900_000,
    "budget": {"amount": 2000, "unit": "usd", "period": "month"},
}

LIMITS_REQUEST = {
    "tokens_per_minute": 123_456,
    "budget": {"amount": 1234.56, "unit": "usd", "period": "month"},
}

KEY: dict[str, Any] = {
    "id": KEY_ID,
    "user": "ada",
    "name": "thesis",
    "group": "ml-2026",
    "email": "ada@example.org",
    "note": None,
    "active": True,
    "starts_at": None,
    "expires_at": "2027-03-31T22:00:00+00:00",
    "models": [MODEL],
    "limits": LIMITS,
    "raise": None,
    "self_made": False,
    "retires_at": None,
    "created_at": "2026-10-01T08:15:30.250000+00:00",
}
_RENEWS_AT = "2026-10-31T09:13:08.000000+00:00"
_MONTH_ENDS_AT = "2026-11-01T00:00:00+00:00"
_NOTHING_LEFT: dict[str, Any] = dict.fromkeys(LIMITS)
ORGANISATION_REMAINING: dict[str, Any] = _NOTHING_LEFT | {
    "tokens_per_minute": {"limit": 900_000, "used": 52_000, "left": 848_000, "renews_at": _RENEWS_AT},
    "budget": {
        "limit": 2000,
        "used": 812.5,
        "left": 1187.5,
        "renews_at": _MONTH_ENDS_AT,
        "unit": "usd",
        "period": "month",
    },
}
GROUP_LEFT: dict[str, Any] = GROUP | {
    "remaining": _NOTHING_LEFT
    | {
        "tokens_per_minute": {"limit": 200_000, "used": 13_000, "left": 187_000, "renews_at": _RENEWS_AT},
        "budget": {
            "limit": 150,
            "used": 37.5,
            "left": 112.5,
            "renews_at": None,
            "unit": "usd",
            "period": "total",
        },
    }
}
GROUP_PAGE = {"items": [GROUP_LEFT], "total": 1, "next": None}
KEY_LEFT: dict[str, Any] = KEY | {
    "spent": {"requests": 12, "total_tokens": 4600, "cost_usd": 0.75},
    "remaining": {
        "requests_per_minute": {"limit": 30, "used": 1, "left": 29, "renews_at": _RENEWS_AT},
        "tokens_per_minute": {"limit": 40_000, "used": 1800, "left": 38_200, "renews_at": _RENEWS_AT},
        "parallel_requests": {"limit": 4, "used": 0, "left": 4, "renews_at": None},
        "budget": {
            "limit": 5,
            "used": 0.75,
            "left": 4.25,
            "renews_at": _MONTH_ENDS_AT,
            "unit": "usd",
            "period": "month",
        },
    },
    "last_used": "2026-10-31T09:12:07.345000+00:00",
}
KEY_PAGE = {"items": [KEY_LEFT], "total": 1, "next": None}
NEW_KEY = {"key": SECRET_KEY, **KEY}
ADDED_KEY = NEW_KEY | dict.fromkeys(("group", "email", "expires_at", "models")) | {"limits": NO_LIMITS}
BLOCKED_KEY = KEY | {"active": False, "note": "lost her laptop"}
ROTATED_KEY = NEW_KEY | {"retires_at": "2026-10-31T10:00:00+00:00"}
KEY_REQUEST = {name: KEY[name] for name in ("user", "name", "email", "models")} | {
    "limits": {"requests_per_minute": 30, "budget": LIMITS["budget"]}
}
"""Contains no group and no date, so that it works on a new gateway and in later years."""
MEMBER_REQUEST = {name: KEY[name] for name in ("user", "name", "group", "expires_at")}
RAISE: dict[str, Any] = {
    "limits": NO_LIMITS | {"requests_per_minute": 120},
    "until": "2027-02-01T23:00:00+00:00",
}
RAISE_REQUEST = {"limits": {"requests_per_minute": 123}, "until": "2027-02-01"}
RAISED_KEY = KEY | {"raise": RAISE}
RAISED_GROUP = GROUP | {
    "raise": {"limits": NO_LIMITS | {"tokens_per_minute": 400_000}, "until": RAISE["until"]},
}
PERSON_SETTINGS: dict[str, Any] = {
    "user": "ada",
    "limits": NO_LIMITS | {"requests_per_minute": 60, "budget": {"amount": 8, "unit": "usd", "period": "month"}},
    "raise": None,
}
RAISED_PERSON = PERSON_SETTINGS | {"raise": RAISE}
PERSON_REQUEST = {"limits": {"budget": {"amount": 7.65, "unit": "usd", "period": "month"}}}
LISTED_PERSON = PERSON_SETTINGS | {"key_count": 1}
PERSON_PAGE = {"items": [LISTED_PERSON], "total": 1, "next": None}
_AZURE_ADDRESS: dict[str, Any] = {
    "base_url": "https://NAME.openai.azure.com/openai/v1",
    "api_version": None,
    "key_header": "api-key",
    "stored": {"base_url": None, "api_version": None, "key_header": None},
    "from_environment": ["base_url"],
    "overridden": [],
    "azure_key": "ok",
}
SETTINGS: dict[str, Any] = {"timezone": "Europe/Helsinki", "pending": None} | _AZURE_ADDRESS
PENDING_SETTINGS: dict[str, Any] = _AZURE_ADDRESS | {
    "timezone": "UTC",
    "pending": {"timezone": "Europe/Helsinki", "since": "2026-12-01T00:00:00+02:00"},
}
SETTINGS_REQUEST = {"timezone": "Antarctica/Troll"}
KEYS_CSV = """\
user,name,email,requests_per_minute,budget_amount,budget_unit,budget_period
grace,thesis,grace@example.org,30,5,usd,month
alan,thesis,alan@example.org,30,5,usd,month
"""
NEW_KEYS_CSV = f"""\
"id","user","name","group","email","note","active","starts_at","expires_at","models","requests_per_minute",\
"tokens_per_minute","parallel_requests","budget_amount","budget_unit","budget_period","key"
"{KEY_ID}","grace","thesis","","grace@example.org","","true","","","","30","","","5","usd","month","{SECRET_KEY}"
"""
NO_NEW_KEYS_CSV = "".join(NEW_KEYS_CSV.splitlines(keepends=True)[:1])

IMPORT_PLAN: dict[str, Any] = {
    "dry_run": True,
    "file": {
        "format": "csv",
        "encoding": "cp1252",
        "separator": ";",
        "sheet": None,
        "decimal": ",",
        "dates": None,
        "export": "moodle",
        "columns": {"user": ["Vorname", "Nachname"], "email": ["E-Mail-Adresse"]},
        "ignored": ["Rollen"],
        "left_out": [],
        "notes": [],
    },
    "counts": {"create": 1, "skip": 1, "update": 0, "refuse": 0},
    "lines": [
        {
            "line": 2,
            "action": "create",
            "user": "Ada Lovelace",
            "group": "ml-2026",
            "id": None,
            "key": None,
            "changes": [],
            "reason": None,
            "problems": {},
        },
        {
            "line": 3,
            "action": "skip",
            "user": "Alan Turing",
            "group": "ml-2026",
            "id": KEY_ID,
            "key": None,
            "changes": [],
            "reason": "Has a key already.",
            "problems": {},
        },
    ],
}
IMPORT_ANSWER: dict[str, Any] = IMPORT_PLAN | {
    "dry_run": False,
    "lines": [IMPORT_PLAN["lines"][0] | {"id": KEY_ID, "key": SECRET_KEY}, IMPORT_PLAN["lines"][1]],
}

KEY_LIST_CSV = f"""\
"id","user","name","group","active","expires_at","models","requests_per_minute"
"{KEY_ID}","ada","thesis","ml-2026","true","2027-03-31T22:00:00+00:00","{MODEL}","30"
"""

BULK_REQUEST: dict[str, Any] = {"filter": {"group": NO_GROUP}, "action": "block", "dry_run": True}
BULK_PREVIEW: dict[str, Any] = {
    "count": 1,
    "items": [
        {name: KEY[name] for name in ("id", "user", "name", "group", "email", "active", "expires_at")}
        | {"last_used": "2027-03-30T16:20:00+00:00", "happens": "blocked"}
    ],
    "token": "Zm9yIGV4YW1wbGUgb25seSwgYW5kIG9wZW5zIG5vdGhpbmc=",
    "dry_run": True,
}
CLOSED_GROUP: dict[str, Any] = {
    "name": "ml-2026",
    "group": "removed",
    "count": 1,
    "items": [{name: KEY[name] for name in ("id", "user", "name", "email")} | {"happened": "removed"}],
    "dry_run": True,
}
CLOSED_GROUP_CSV = f"""\
"id","user","name","email","happened"
"{KEY_ID}","ada","thesis","ada@example.org","removed"
"""

ERASED: dict[str, Any] = {
    "erased_as": "erased-8f14e45fceea167a",
    "keys": [KEY_ID],
    "counts": {"keys": 1, "records": 1280, "refusals": 4, "audit": 3, "prompts": 0, "stored_responses": 12},
    "complete": True,
    "pending": [],
    "dry_run": False,
}
EXPORT: dict[str, Any] = {
    "user": "ada",
    "exported_at": "2026-10-31T10:00:00+00:00",
    "key_ids": [KEY_ID],
    "person": [],
    "keys": [{name: KEY[name] for name in ("id", "user", "name", "group", "email", "created_at")}],
    "sums": [{"day": "2026-10-30", "user": "ada", "group": "ml-2026", "model": MODEL, "requests": 12}],
    "records": [],
    "refusals": [],
    "audit": [],
    "alerts": [],
    "prompts": [],
    "stored_responses": [],
}
ERASURE_PREVIEW = ERASED | {"erased_as": None, "complete": False, "dry_run": True}

PROMPT = {
    "version": 3,
    "scope": "",
    "prompt": "You are the assistant of the Institute of Physics. Answer in the language of the question.",
    "set_at": "2026-10-01T08:00:00+00:00",
}
FIRST_PROMPT = PROMPT | {"version": 1, "prompt": "You are a helpful assistant.", "set_at": "2026-09-15T12:30:00+00:00"}

PROMPT_VERSIONS = [PROMPT | {"set_by": "Grace"}, FIRST_PROMPT | {"set_by": "ADMIN_KEY"}]
OWN_PROMPTS = [PROMPT | dict.fromkeys(("group", "key", "user", "name"))]

PROMPT_REQUEST = {"prompt": "Write here what every conversation begins with."}

SUMS = {
    "requests": 12,
    "prompt_tokens": 3400,
    "completion_tokens": 1200,
    "total_tokens": 4600,
    "cached_tokens": 1024,
    "reasoning_tokens": 0,
    "cost_usd": 0.00123,
    "errors": 0,
    "unpriced_requests": 0,
    "estimated_tokens": 120,
    "bound_tokens": 800,
}
_ALANS = {
    "requests": 3,
    "prompt_tokens": 600,
    "completion_tokens": 400,
    "total_tokens": 1000,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "cost_usd": 0.00033,
    "errors": 1,
    "unpriced_requests": 0,
    "estimated_tokens": 0,
    "bound_tokens": 0,
}
REPORT = {
    "rows": [{"month": "2026-10", "user": "ada", **SUMS}, {"month": "2026-10", "user": "alan", **_ALANS}],
    "total": {name: round(SUMS[name] + _ALANS[name], 5) for name in SUMS},
}
ME = {
    **{name: KEY[name] for name in ("id", "user", "name", "group", "expires_at", "models", "limits")},
    "remaining": {"requests_per_minute": 29, "tokens_per_minute": 38_200, "parallel_requests": 4, "budget": 4.25},
    "person": None,
    "member": None,
    "shared": {
        "group": {
            "limits": GROUP["limits"] | {"budget": GROUP["limits"]["budget"] | {"amount": None}},
            "remaining": _NOTHING_LEFT | {"tokens_per_minute": 187_000},
        },
        "organisation": None,
    },
    "usage": {"today": _ALANS, "month": SUMS, "total": SUMS},
}
ADMIN: dict[str, Any] = {
    "id": "admin_019b3f2a6b0077c0c2a9d0b1e5f3",
    "name": "Grace",
    "role": "group",
    "groups": ["ml-2026"],
    "note": "Teaching assistant",
    "active": True,
    "expires_at": "2027-04-01T00:00:00+00:00",
    "retires_at": None,
    "created_at": "2026-10-01T08:00:00.000000+00:00",
}
IDENTITY: dict[str, Any] = {
    "id": "person_5f2b8c0d9a413e7f60b1c2d3e4f5",
    "issuer": "https://id.example.org",
    "subject": "8c1f0a52-0d7b-4a5e-9f53-2d1f6f3a7c11",
    "claimed": "ada",
    "user": "ada",
    "email": "ada@example.org",
    "active": True,
    "role": None,
    "groups": ["ml-2026"],
    "first_at": "2026-10-01T08:00:00.000000+00:00",
    "signed_in_at": "2026-10-31T09:10:00.000000+00:00",
    "refused_since": None,
    "left_at": None,
}
SIGN_IN_REQUEST: dict[str, Any] = {
    "rules": [
        {"claim": "groups", "value": "llm-admins", "role": "admin"},
        {"claim": "realm_access.roles", "value": "teaching-ml", "role": "group", "groups": ["ml-2026"]},
        {"claim": "groups", "value": "ml-2026", "group": "ml-2026"},
    ],
    "admits": "everybody",
}
SIGN_IN: dict[str, Any] = SIGN_IN_REQUEST | {
    "rules": [{"role": None, "groups": [], "group": None} | rule for rule in SIGN_IN_REQUEST["rules"]],
    "issuer": "https://id.example.org",
    "user_claim": "preferred_username",
}
ADMIN_KEY = "llmgw-admin-this-is-an-example-and-opens-nothing"
NEW_ADMIN = ADMIN | {"key": ADMIN_KEY}
ADMIN_REQUEST = {name: ADMIN[name] for name in ("name", "role", "groups", "note")}
PERSON: dict[str, Any] = PERSON_SETTINGS | {
    "keys": [KEY],
    "remaining": _NOTHING_LEFT
    | {
        "requests_per_minute": {"limit": 60, "used": 2, "left": 58, "renews_at": _RENEWS_AT},
        "budget": {"limit": 8, "used": 1.5, "left": 6.5, "renews_at": _MONTH_ENDS_AT, "unit": "usd", "period": "month"},
    },
    "member_of": [
        {
            "group": GROUP["name"],
            "limits": GROUP["member_limits"],
            "remaining": _NOTHING_LEFT
            | {
                "budget": {
                    "limit": 2,
                    "used": 0.75,
                    "left": 1.25,
                    "renews_at": "2026-11-02T00:00:00+00:00",
                    "unit": "usd",
                    "period": "week",
                }
            },
        },
    ],
    "usage": ME["usage"],
}
AUDIT_ENTRY: dict[str, Any] = {
    "id": "audit_019b3f2a8d1095c1a7f04be2d6",
    "timestamp": "2026-10-31T09:10:00.000000+00:00",
    "address": "192.0.2.17",
    "admin": {"id": ADMIN["id"], "name": ADMIN["name"]},
    "admin_key_id": "5f2b8c0d9a41",
    "action": "key.update",
    "target": KEY_ID,
    "before": {"active": True, "note": None},
    "after": {"active": False, "note": "lost her laptop"},
}
REQUEST_ID = "019b3f2a-7c10-7d41-8d98-f00b2042a17e"
LOG_RECORD = {
    "id": REQUEST_ID,
    "timestamp": "2026-10-31T09:12:07.345000+00:00",
    "key_id": KEY_ID,
    "user": "ada",
    "group": "ml-2026",
    "model": MODEL,
    "model_known": True,
    "deployment": MODEL,
    "endpoint": "/v1/chat/completions",
    "stream": True,
    "status": 200,
    "outcome": "ok",
    "prompt_tokens": 310,
    "completion_tokens": 90,
    "total_tokens": 400,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "usage_source": "upstream",
    "cost_usd": 0.0001005,
    "prompt_version": 3,
    "content_filter": [],
    "filter_severities": [],
    "ttft_ms": 412.5,
    "duration_ms": 1630.25,
    "upstream_request_id": "0f2c7a51-6d1e-4f0a-9c55-3b0f4e6f9a10",
    "region": "East US 2",
    "client_address": "192.0.2.17",
    "attempts": [],
    "response_id": None,
    "stored_ids": [],
    "stored_at": None,
    "service_tier": "default",
    "spilled_over": False,
    "error_code": None,
    "tool_uses": {},
    "admitted_ms": 11.9,
    "sent_ms": 12.4,
    "limits": ["key.requests_per_minute", "group.budget"],
}
_COMPARED: dict[str, Any] = {
    "source": "bill",
    "by": "deployment",
    "name": "gpt-4o-mini",
    "day": "2026-10-30",
    "kind": "completion",
    "azure": 120450.0,
    "ours": 120113.0,
    "gap": -337.0,
    "percent": -0.28,
    "currency": None,
    "where": "Azure has more: calls that do not go through the gateway",
}
RECONCILIATION = {
    "period": {"start": "2026-10-30", "end": "2026-10-30"},
    "files": [{"name": "october.csv", "schema": "FOCUS 1.0", "rows": 412, "rows_of_other_services": 3817}],
    "totals": [_COMPARED | {"day": None}],
    "days": [_COMPARED],
    "not_compared": [],
    "threshold": None,
    "beyond": [],
}
FILTER_REPORT = {
    "rows": [
        {"category": "jailbreak", "severity": "found", "requests": 1, "fired": 1},
        {"category": "violence", "severity": "low", "requests": 4, "fired": 0},
    ],
    "total": {"requests": 5, "fired": 1},
}
_TIMES = {
    "requests": 530,
    "ttft_ms": {"requests": 412, "p50": 562.0, "p90": 1780.0, "p99": 5620.0},
    "duration_ms": {"requests": 521, "p50": 3160.0, "p90": 10000.0, "p99": 31600.0},
}
LATENCY = {"rows": [{"day": "2026-10-31", **_TIMES}], "total": _TIMES}
_HOURS = [[0] * 9 + [12, 30, 41, 17, 28, 36, 33, 20, 9] + [0] * 6] * 5 + [[0] * 24] * 2
HOURS = {
    "requests": _HOURS,
    "cost_usd": [[round(number * 0.002, 3) for number in hours] for hours in _HOURS],
    "counted_requests": 1130,
    "all_requests": 1130,
}
REFUSAL_REPORT = {
    "rows": [{"day": "2026-10-31", "code": "rate_limit_exceeded", "requests": 7}],
    "total": {"requests": 7},
}
LOG_CURSOR = f"1793437927345.{REQUEST_ID}"
LOG_CSV = """\
"kind","timestamp","id","user","status","code","count"
"refusal","2026-10-31T09:14:00.100000+00:00","019b3f2a-9d02-7c11-a3f4-5e6f70819233","ada","429","insufficient_quota","3"
"""
LOG_PAGE = {
    "items": [{"kind": "record", **LOG_RECORD}],
    "next": LOG_CURSOR,
    "newest": LOG_CURSOR,
    "searched_from": None,
}
FOUND_RECORD = {"kind": "record", **LOG_RECORD, "state": "stored", "what_to_do": None}
REFUSAL: dict[str, Any] = {
    "id": "019b3f2a-9d02-7c11-a3f4-5e6f70819233",
    "kind": "refusal",
    "timestamp": "2026-10-31T09:14:00.100000+00:00",
    "status": 429,
    "code": "insufficient_quota",
    "limit": "key.budget",
    "key_id": KEY_ID,
    "user": "ada",
    "group": "ml-2026",
    "endpoint": "/v1/chat/completions",
    "model": MODEL,
    "address": "192.0.2.17",
    "message": "The budget of this key is spent: 5 of 5 USD this month. It renews at 2026-11-01 00:00:00 UTC.",
    "count": 3,
    "last_at": "2026-10-31T09:14:21.700000+00:00",
}
REFUSAL_PAGE = {
    "items": [REFUSAL],
    "next": None,
    "newest": f"1793438040100.{REFUSAL['id']}",
    "searched_from": None,
}
FOUND_REFUSAL = {
    **REFUSAL,
    "first_id": REFUSAL["id"],
    "what_to_do": f"This is the limit of the key alone. To raise it: llmgateway keys set {KEY_ID} --budget "
    "AMOUNTusd/month. The message says when it renews.",
}
CSV = """\
"month","user","requests","prompt_tokens","completion_tokens","total_tokens","cached_tokens","reasoning_tokens",\
"cost_usd","errors","unpriced_requests","estimated_tokens","bound_tokens"
"2026-10","ada","12","3400","1200","4600","1024","0","0.00123","0","0","120","800"
"2026-10","alan","3","600","400","1000","0","0","0.00033","1","0","0","0"
"""

CURRENCY = {"code": "EUR", "rates": {"2026-09": 0.91, "2026-10": 0.92}}
CURRENCY_REQUEST = {"code": "EUR", "rates": {"2026-10": 0.1234}}
_LINE: dict[str, Any] = {
    "requests": 12,
    "prompt_tokens": 3400,
    "completion_tokens": 1200,
    "total_tokens": 4600,
    "cost_usd": 41.67,
    "cost": 38.34,
    "unpriced_requests": 0,
    "unpriced_models": [],
}
_STATEMENT_HEAD: dict[str, Any] = {
    "month": "2026-10",
    "timezone": "Europe/Berlin",
    "is_final": True,
    "currency": "EUR",
    "rate": 0.92,
}
STATEMENT = {
    **_STATEMENT_HEAD,
    "groups": [{"group": "ml-2026", "cost_centre": "4711", **_LINE}],
    "cost_centres": [{"cost_centre": "4711", **_LINE}],
    "total": _LINE,
}
GROUP_STATEMENT = {
    **_STATEMENT_HEAD,
    "group": "ml-2026",
    "cost_centre": "4711",
    "persons": [{"user": "ada", **_LINE}],
    "models": [{"model": MODEL, **_LINE}],
    "total": _LINE,
}
STATEMENT_CSV = """\
"month","group","cost_centre","user","requests","prompt_tokens","completion_tokens","total_tokens","cost_usd",\
"currency","cost","unpriced_requests","unpriced_models"
"2026-10","ml-2026","4711","ada","12","3400","1200","4600","41.67","EUR","38.34","0",""
"""

MODELS: dict[str, Any] = {
    "object": "list",
    "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "organisation"}],
}
DEPLOYMENTS: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            "id": MODEL,
            "model": MODEL,
            "object": "deployment",
            "status": "succeeded",
            "owner": "organisation",
            "created_at": 0,
            "updated_at": 0,
            "scale_settings": {"scale_type": "standard"},
        }
    ],
}
CONVERSATION: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is a black hole?"}]}
PREVIEW_REQUEST = {"group": GROUP["name"], **CONVERSATION}
PREVIEW = {
    "version": PROMPT["version"],
    "scope": PROMPT["scope"],
    "sent": {
        "model": MODEL,
        "messages": [{"role": "system", "content": PROMPT["prompt"]}, *CONVERSATION["messages"]],
    },
}
STREAMED_CONVERSATION = {**CONVERSATION, "stream": True}
COMPLETION = {
    "id": "chatcmpl-D0nQ2kVb7Lq0Zl3uYxWc",
    "object": "chat.completion",
    "created": 1790842530,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "A region of space from which nothing escapes."},
        }
    ],
    "usage": {"prompt_tokens": 31, "completion_tokens": 9, "total_tokens": 40},
}
EVENTS = """\
data: {"id":"chatcmpl-D0nQ","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"A region"}}]}

data: {"id":"chatcmpl-D0nQ","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" of space"}}]}

data: {"id":"chatcmpl-D0nQ","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]

"""

RESPONSE_ID = "resp_68af4030592c81938ec0a5fbab4a3e9f"
RESPONSE_REQUEST: dict[str, Any] = {"model": MODEL, "input": "What is a black hole?"}
STREAMED_RESPONSE_REQUEST = {**RESPONSE_REQUEST, "stream": True}
CHAINED_RESPONSE_REQUEST = {"model": MODEL, "input": "And a white one?", "previous_response_id": RESPONSE_ID}
RESPONSE_INPUT: list[dict[str, Any]] = [
    {
        "id": "msg_68af40305b6c8193",
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "What is a black hole?"}],
    }
]
RESPONSE: dict[str, Any] = {
    "id": RESPONSE_ID,
    "object": "response",
    "created_at": 1790842530,
    "status": "completed",
    "model": MODEL,
    "output": [
        {
            "id": "msg_68af4030baa48193",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "A region of space from which nothing escapes.",
                    "annotations": [],
                }
            ],
        }
    ],
    "usage": {"input_tokens": 31, "output_tokens": 9, "total_tokens": 40},
}
RESPONSE_EVENTS = """\
event: response.output_text.delta
data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_68af","delta":"A region"}

event: response.completed
data: {"type":"response.completed","sequence_number":9,"response":{"id":"resp_68af","status":"completed"}}

"""

ALIVE = {"status": "ok"}
_NOTHING_WAITS = {"records": 0, "oldest_seconds": 0.0, "problem": None}
READY = {
    "status": "ok",
    "rung": "normal",
    "checks": {"sqlite": "ok", "azure_key": "ok"},
    "journal": _NOTHING_WAITS,
}
CREDENTIAL_ACCEPTED = {"stored": True, "azure": {"status": 400, "message": "Azure accepts the key."}}
CREDENTIAL_REFUSED = {
    "stored": True,
    "azure": {
        "status": 401,
        "message": (
            "Azure refuses the key (401): users get 502 upstream_credentials. Check that it is a key of the resource "
            "in LLM_BASE_URL, and that LLM_KEY_HEADER names the header for it."
        ),
    },
}

_NO_AZURE_KEY = "missing or unreadable: set it with POST /admin/setllmkey"
DEGRADED = READY | {"status": "degraded", "checks": {"sqlite": "ok", "azure_key": _NO_AZURE_KEY}}
_NO_SQLITE = "SQLite does not serve. Try again later."
UNAVAILABLE = {
    "status": "unavailable",
    "rung": "memory_only",
    "checks": {"sqlite": _NO_SQLITE, "azure_key": "unknown: the store does not answer"},
    "journal": {"records": 12, "oldest_seconds": 34.5, "problem": f"usage log: {_NO_SQLITE}"},
}

MODEL_REQUEST: dict[str, Any] = {
    "prices": {
        "prompt": 1.23,
        "cached": 0.12,
        "completion": 4.56,
        "tiers": {"priority": {"prompt": 2.46, "cached": 0.24, "completion": 9.12}},
    },
    "max_output_tokens": 16384,
}
MODEL_SETTINGS: dict[str, Any] = {
    "name": MODEL,
    "prices": {
        "prompt": 0.12,
        "cached": 0.06,
        "completion": 0.48,
        "tiers": {"priority": {"prompt": 0.2, "cached": 0.1, "completion": 0.8}},
    },
    "max_output_tokens": 16384,
}
MODEL_PRICES: dict[str, Any] = {
    "items": [
        {
            "model": MODEL,
            "source": "list",
            "prices": {"prompt": 0.15, "cached": 0.075, "completion": 0.6},
            "listed_as": {"model": MODEL, "source": "litellm azure/gpt-4o-mini", "date": "2026-11-28"},
        }
    ],
    "next": None,
}
DIAGNOSIS: dict[str, Any] = {
    "ok": False,
    "items": [
        {
            "model": MODEL,
            "name": "sweden",
            "deployment": MODEL,
            "endpoint": "chat/completions",
            "ok": False,
            "url": "https://NAME.openai.azure.com/openai/v1/chat/completions",
            "header": "api-key",
            "identity": False,
            "api_version": None,
            "status": 404,
            "code": "DeploymentNotFound",
            "problem": f"There is no deployment '{MODEL}' at name.openai.azure.com (404)",
            "remedy": "Write the name of the deployment, which need not be that of its model: the portal lists both "
            "under 'Deployments'. A new deployment takes some minutes.",
            "stream_options": None,
            "quota": None,
            "region": "Sweden Central",
            "latency_ms": 212.4,
        }
    ],
}
IMPORT_REQUEST: dict[str, Any] = {
    "base_url": "https://NAME.openai.azure.com/openai/v1",
    "key": AZURE_KEY,
    "dry_run": True,
}
IMPORTED: dict[str, Any] = {
    "dry_run": True,
    "items": [{"model": MODEL, "name": "name", "azure_model": MODEL, "action": "register"}],
}
ALERTS_REQUEST: dict[str, Any] = {
    "smtp_url": "smtp://gateway:PASSWORD@mail.example.org:587",
    "from": "LLMGateway <llmgateway@example.org>",
    "emails": ["put-your-own-values-in@example.org"],
    "webhooks": [{"url": "https://example.org/hook", "secret": "a long random text", "format": "json"}],
    "thresholds": [50, 80, 100],
    "events": ["budget", "credential", "store", "quota", "backlog", "price", "leaver"],
}
ALERTS: dict[str, Any] = {
    "smtp_url": "smtp://gateway@mail.example.org:587",
    "has_smtp_password": True,
    "from": "LLMGateway <llmgateway@example.org>",
    "webhooks": [{"id": "hook_1f2e3d4c", "url": "https://example.org/hook", "has_secret": True, "format": "json"}],
    "emails": ["admin@example.org"],
    "thresholds": [50, 80, 100],
    "events": ["budget", "credential", "store", "quota", "backlog", "price", "leaver"],
    "problems": [
        "admin@example.org: Nothing listens there. Look at the host and the port, and whether the server runs."
    ],
    "alerts": [
        {
            "id": "alert_5f2b8c0d9a41e7f3b6c2d8a0",
            "event": "budget",
            "text": "The group 'ml-2026' has used 83 % of a budget of 150.00 USD in total: 124.61 USD.",
            "scope": "group:ml-2026",
            "threshold": 80,
            "used": 124.61,
            "limit": 150.0,
            "at": "2026-10-31T09:12:07.345000+00:00",
            "deliveries": [
                {
                    "target": "hook_1f2e3d4c",
                    "state": "delivered",
                    "attempts": 1,
                    "tried_at": "2026-10-31T09:12:07.345000+00:00",
                    "due_at": None,
                    "status": 200,
                    "reason": None,
                },
                {
                    "target": "admin@example.org",
                    "state": "waiting",
                    "attempts": 1,
                    "tried_at": "2026-10-31T09:12:07.345000+00:00",
                    "due_at": "2026-10-31T09:12:22.345000+00:00",
                    "status": None,
                    "reason": "Nothing listens there. Look at the host and the port, and whether the server runs.",
                },
            ],
        }
    ],
}
FIRED_ALERTS: dict[str, Any] = {"items": ALERTS["alerts"], "next": None}
ALERT_TEST: dict[str, Any] = {
    "targets": [
        {"target": "hook_1f2e3d4c", "delivered": True, "status": 200, "reason": None, "remedy": None},
        {
            "target": "admin@example.org",
            "delivered": False,
            "status": None,
            "reason": "Nothing listens there.",
            "remedy": "Look at the host and the port, and whether the server runs.",
        },
    ]
}
STATUS = {
    "version": "0.1.0",
    "rung": "normal",
    "warnings": [],
    "stores": {"redis": "ok", "mongodb": "ok"},
    "azure_key": "ok",
    "journal": {"records": 2, "oldest_seconds": 0.21, "problem": None},
    "slots": {"capacity": 124, "taken": 3, "streams": 2, "refused": 0},
    "process": {"id": 17, "processes": 2, "threads": 128},
    "deployments": [
        {
            "model": MODEL,
            "name": "sweden",
            "base_url": "https://NAME.openai.azure.com/openai/v1",
            "deployment": MODEL,
            "priority": 1,
            "weight": 1.0,
            "problem": None,
            "rests_until": "2026-10-31T09:12:30.000000+00:00",
            "rests_because": "limited",
            "failures": 0,
            "region": "Sweden Central",
            "quota": {
                "limit_requests": 120,
                "remaining_requests": 119,
                "limit_tokens": 120000,
                "remaining_tokens": 0,
            },
            "quota_at": "2026-10-31T09:12:07.345000+00:00",
            "quota_lowered": None,
            "last_error": {
                "at": "2026-10-31T09:12:08.000000+00:00",
                "status": 429,
                "code": "rate_limit_tokens",
            },
        }
    ],
    "unpriced_models": ["whisper-course"],
}

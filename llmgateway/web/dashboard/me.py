"""The page of a person: what is used and left, and their own keys, which they make, name, replace and remove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import marshmallow as ma
from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from ...accounts.self_service import AUTHOR, Offer, Owner
from ...errors import Forbidden, GatewayError, InvalidFields, StoreUnavailable
from ...records import KeyRecord
from ..context import services
from ..dates import shown
from ..errors import invalid_fields
from ..schemas.keys import KeySchema
from ..schemas.self_service import KeyNameSchema, OwnKeySchema
from . import own
from .api import ApiError
from .blueprint import PERSONAL, blp, notice, page, signed_in
from .forms import Form, was_sent
from .links import to
from .sign_in import keep_signed_in

PERSONAL |= {
    f"dashboard.{name}" for name in ("me", "me_requests", "me_new", "me_make", "me_key", "me_rename", "me_rotate")
} | {"dashboard.me_remove"}

LATEST = 8
"""Number of requests on the first page."""
OVERLAPS = ((0, "at once"), (3600, "in an hour"), (86_400, "in a day"), (7 * 86_400, "in a week"))
"""When the former key ends, in seconds from now."""

_SENT_BEFORE = (
    "This form was sent before, so nothing was done again. A key is shown only once: replace it if you lost it."
)

_keys = KeySchema()


@dataclass(frozen=True, slots=True)
class _Own:
    """Who looks at the page, with the keys and what may be made."""

    owner: Owner
    keys: list[KeyRecord]
    offers: list[Offer]


@blp.get("/me")
def me() -> BaseResponse:
    """Show everything at once."""
    found = _own()
    if found is None:
        return page("me_waiting.html")
    context: dict[str, Any] = {
        "keys": own.keys_with_usage(found.keys),
        "standings": own.standings(found.owner, found.keys),
    }
    try:
        latest, _ = own.requests(found.owner, cursor="", limit=LATEST)
        context |= {"usage": own.usage(found.owner), "requests": latest, "away": None}
    except StoreUnavailable as error:
        context |= {"usage": None, "requests": [], "away": own.usage_is_away(error)}
    names = {key.id: key.name for key in found.keys}
    models = own.models_of(found.keys)
    return page("me.html", owner=found.owner, offers=found.offers, names=names, models=models, **context)


@blp.get("/me/requests")
def me_requests() -> BaseResponse:
    """List all own requests that are kept."""
    found = _own()
    if found is None:
        return to(".me")
    items, following = own.requests(found.owner, cursor=request.args.get("cursor", ""), limit=50)
    names = {key.id: key.name for key in found.keys}
    return page("me_requests.html", requests=items, next=following, names=names)


@blp.get("/me/new")
def me_new() -> BaseResponse:
    """Show the form for a new key."""
    found = _own()
    if found is None:
        return to(".me")
    return _new(_offer(found, request.args.get("group") or None), Form())


@blp.post("/me/new")
def me_make() -> BaseResponse:
    """Make a key, and show it this once."""
    found, form = _must_own(), Form.sent()
    if was_sent():
        return _again()
    offer = _offer(found, form.text("group"))
    try:
        fields = _loaded(OwnKeySchema(), _typed(form, offer))
        record, key = services().self_service.create(found.owner, **fields)
    except GatewayError as error:
        return _new(offer, form.refused(_api_error(error)))
    _write_down("key.create", record, after=_dumped(record))
    return page("me_secret.html", status=201, key=record, secret=key, models=own.models_of([record]), replaced=None)


@blp.get("/me/keys/<key_id>")
def me_key(key_id: str) -> BaseResponse:
    """Show one key, with what can be done with it."""
    return _key(_must_own(), key_id, Form())


@blp.post("/me/keys/<key_id>/rename")
def me_rename(key_id: str) -> BaseResponse:
    """Give a key another name."""
    found, form = _must_own(), Form.sent()
    try:
        name = _loaded(KeyNameSchema(), {"name": form.text("name") or ""})["name"]
        before, after = services().self_service.rename(found.owner, key_id, name)
    except GatewayError as error:
        return _key(found, key_id, form.refused(_api_error(error)))
    if before.name != after.name:
        _write_down("key.update", after, before=_fields(before, "name"), after=_fields(after, "name"))
    notice("The key has its new name.")
    return to(".me_key", key_id=key_id)


@blp.post("/me/keys/<key_id>/rotate")
def me_rotate(key_id: str) -> BaseResponse:
    """Replace a key by a new one, and show that this once."""
    found, form = _must_own(), Form.sent()
    if was_sent():
        return _again()
    overlap = next((seconds for seconds, _ in OVERLAPS if str(seconds) == form.text("overlap")), 0)
    try:
        made = services().self_service.rotate(found.owner, key_id, overlap_seconds=overlap)
    except GatewayError as error:
        return _key(found, key_id, form.refused(_api_error(error)))
    _write_down(
        "key.rotate", made.after, before=_fields(made.before, "retires_at"), after=_fields(made.after, "retires_at")
    )
    keep_signed_in(key_id, made.key)
    return page(
        "me_secret.html", key=made.after, secret=made.key, models=own.models_of([made.after]), replaced=made.after
    )


@blp.post("/me/keys/<key_id>/remove")
def me_remove(key_id: str) -> BaseResponse:
    """Delete a key."""
    found = _must_own()
    try:
        removed = services().self_service.remove(found.owner, key_id)
    except GatewayError as error:
        return _key(found, key_id, Form().refused(_api_error(error)))
    _write_down("key.remove", removed, before=_dumped(removed))
    notice("The key is removed. It is refused from now on.")
    return to(".me")


def _own() -> _Own | None:
    """Return what is the visitor's own; None for a person who has to wait until an admin has linked the account."""
    visitor = signed_in()
    owner = own.owner_of(visitor)
    if owner is None:
        if not visitor.waiting:
            raise ApiError(404, "You have signed in as an admin. This page is for people who have keys.")
        return None
    service = services().self_service
    return _Own(owner, service.keys_of(owner), service.offers(owner))


def _must_own() -> _Own:
    found = _own()
    if found is None:
        raise ApiError(403, "An admin has to link your account first.")
    return found


def _offer(found: _Own, group: str | None) -> Offer:
    offer = next((offer for offer in found.offers if offer.group == group), None)
    if offer is None:
        raise ApiError(404, "You may not make keys in this group.")
    return offer


def _typed(form: Form, offer: Offer) -> dict[str, Any]:
    """Return what was typed, as the schema takes it; a last day that is the latest one means the latest moment."""
    chosen, ends = form.list("models"), form.text("expires_at")
    if ends == _latest_day(offer):
        ends = None
    return {
        "name": form.text("name") or "",
        "group": offer.group,
        "models": None if offer.models is None or chosen == list(offer.models) else chosen or [],
        "expires_at": ends,
    }


def _loaded(schema: ma.Schema, typed: Mapping[str, Any]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(typed)
    except ma.ValidationError as error:
        raise invalid_fields(error.messages_dict) from None
    return loaded


def _api_error(error: GatewayError) -> ApiError:
    """Return *error* as forms take it: what the person may not do now stands above the form."""
    status = 409 if isinstance(error, Forbidden) else error.status
    fields = cast(Mapping[str, list[str]], error.fields) if isinstance(error, InvalidFields) else None
    return ApiError(status, str(error), fields=fields)


def _latest_day(offer: Offer) -> str | None:
    return None if offer.latest_end is None else f"{shown(offer.latest_end):%Y-%m-%d}"


def _new(offer: Offer, form: Form) -> Response:
    return page("me_new.html", status=form.status, offer=offer, form=form, latest_day=_latest_day(offer))


def _key(found: _Own, key_id: str, form: Form) -> Response:
    key = next((key for key in found.keys if key.id == key_id), None)
    if key is None:
        raise ApiError(404, "You have no key with this id.")
    form.values.setdefault("name", key.name)
    (shown_key,) = own.keys_with_usage([key])
    return page("me_key.html", status=form.status, key=shown_key, form=form, owner=found.owner, overlaps=OVERLAPS)


def _again() -> BaseResponse:
    notice(_SENT_BEFORE)
    return to(".me")


def _write_down(
    action: str, record: KeyRecord, *, before: Mapping[str, Any] | None = None, after: Mapping[str, Any] | None = None
) -> None:
    services().audit.changed(
        action,
        record.id,
        admin=AUTHOR,
        groups=(record.group,),
        address=request.remote_addr,
        before=before,
        after=after,
    )


def _fields(record: KeyRecord, *names: str) -> dict[str, Any]:
    """Return these fields for the audit log, and whose key it is: no admin has made the change."""
    dumped = _dumped(record)
    return {name: dumped[name] for name in ("user", *names)}


def _dumped(record: KeyRecord) -> dict[str, Any]:
    dumped: dict[str, Any] = _keys.dump(record)
    return dumped

"""Warnings: those that were announced, where they go, and whether they arrive."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from flask import Response, request
from werkzeug.wrappers import Response as BaseResponse

from ...alerts.addresses import shown_smtp, shown_webhook
from ...alerts.settings import Event, Format
from .api import ApiError
from .blueprint import api, blp, notice, page
from .forms import Form
from .links import to
from .rows import gather, renumber, rows

EVENTS = {
    Event.BUDGET: "a share of a budget is used",
    Event.CREDENTIAL: "Azure's key is missing, or Azure refuses it",
    Event.STORE: "a store is away",
    Event.QUOTA: "Azure has lowered a quota",
    Event.BACKLOG: "records wait for the store",
    Event.PRICE: "a model has no known price",
    Event.LEAVER: "somebody's account has ended, and the keys are blocked",
}
FORMATS = ((Format.JSON, "JSON of its own"), (Format.SLACK, "Slack"), (Format.TEAMS, "Teams"))
_DIGITS = 10
_AGAIN = "Type it again: it may hold a secret, so it is not shown."
_NO_USER = "Name the user in the address: smtp://USER@mail.example.org:587."


@blp.get("/alerts")
def alerts() -> Response:
    """List what was announced, with what has become of it."""
    return _page()


@blp.post("/alerts/test")
def alerts_test() -> Response:
    """Send a test to every target, and say what happened."""
    return _page(outcomes=api().post("/admin/alerts/test").body["targets"])


@blp.get("/alerts/settings")
def alerts_settings() -> Response:
    """Show where alerts go."""
    return _settings()


@blp.post("/alerts/settings")
def alerts_set() -> BaseResponse:
    """Set where alerts go."""
    form = Form.sent()
    sent = rows(form, "webhooks", ("url",))
    body = _body(form, sent)
    if form.errors:
        form.status = 422
        return _settings(_without_secrets(form))
    try:
        api().put("/admin/alerts", body, etag=form.etag)
    except ApiError as error:
        form = form.refused(error)
        renumber(form, "webhooks", sent)
        for name in ("emails", "thresholds", "events"):
            gather(form, name)
        return _settings(_without_secrets(form))
    notice("Stored. Send a test, to see whether it arrives.")
    return to(".alerts")


def _page(outcomes: list[dict[str, Any]] | None = None) -> Response:
    settings = api().get("/admin/alerts")
    fired = api().get("/admin/alerts/fired", limit=25, cursor=request.args.get("cursor"))
    return page("alerts.html", settings=settings, fired=fired["items"], next=fired["next"], outcomes=outcomes)


def _settings(form: Form | None = None) -> Response:
    answer = api().ask("GET", "/admin/alerts")
    stored = answer.body
    shown = form or Form(_values(stored), etag=answer.etag)
    signed = {each["id"] for each in stored["webhooks"] if each["has_secret"]}
    shown.values |= {f"{name[:-3]}.has_secret": True for name in _ids(shown) if shown[name] in signed}
    number = 1 + max(len(stored["webhooks"]), sum(name.endswith(".url") for name in shown.values))
    return page(
        "alerts_settings.html",
        status=shown.status,
        form=shown,
        stored=stored,
        number=number,
        events=[(str(event), f"{event}: {EVENTS[event]}") for event in Event],
        formats=FORMATS,
    )


def _ids(form: Form) -> list[str]:
    return [name for name in form.values if name.startswith("webhooks.") and name.endswith(".id")]


def _values(stored: dict[str, Any]) -> dict[str, Any]:
    values = {
        "smtp_url": stored["smtp_url"],
        "from": stored["from"],
        "emails": "\n".join(stored["emails"]),
        "thresholds": ", ".join(map(str, stored["thresholds"])),
        "events": stored["events"],
    }
    for number, each in enumerate(stored["webhooks"]):
        values |= {f"webhooks.{number}.{name}": value for name, value in each.items()}
    return values


def _body(form: Form, sent: list[int]) -> dict[str, Any]:
    """Return what the API takes. Notes in the form what cannot be said to it."""
    body: dict[str, Any] = {
        "smtp_url": _smtp_url(form),
        "from": form.text("from"),
        "emails": form.list("emails") or [],
        "thresholds": [_number(text) for text in form.list("thresholds") or ()],
        "events": list(form.chosen("events")),
        "webhooks": [_webhook(form, number) for number in sent],
    }
    return body


def _number(text: str) -> int | str:
    text = text.removesuffix("%").strip()
    return int(text) if text.isdecimal() and len(text) < _DIGITS else text


def _smtp_url(form: Form) -> str | None:
    url, password = form.text("smtp_url"), form.text("smtp_password")
    if url is None or password is None:
        return url
    scheme, sign, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    if not at:
        form.errors["smtp_url"] = [_NO_USER]
    return f"{scheme}{sign}{user.partition(':')[0]}:{quote(password, safe='')}@{host}"


def _webhook(form: Form, number: int) -> dict[str, Any]:
    prefix = f"webhooks.{number}."
    body: dict[str, Any] = {"url": form[f"{prefix}url"], "format": form[f"{prefix}format"] or str(Format.JSON)}
    if found := form.text(f"{prefix}id"):
        body["id"] = found
    if form.checked(f"{prefix}unsigned"):
        body["secret"] = None
    elif secret := form.text(f"{prefix}secret"):
        body["secret"] = secret
    return body


def _without_secrets(form: Form) -> Form:
    """Leave out of what was typed what may be secret: it is in no page."""
    for name in [name for name in form.values if name.endswith(".url")]:
        url = form.text(name)
        hides_path = form[f"{name.removesuffix('url')}format"] != Format.JSON
        if url and "***" not in url and _shown(url, hides_path=hides_path) != url:
            form.values[name] = ""
            form.errors.setdefault(name, []).append(_AGAIN)
    url = form.text("smtp_url")
    if url and "@" in url:
        form.values["smtp_url"] = _shown_server(url)
    if form.text("smtp_password"):
        form.errors.setdefault("smtp_password", []).append(_AGAIN)
    return form


def _shown(url: str, *, hides_path: bool) -> str | None:
    try:
        urlsplit(url)
        return shown_webhook(url, hides_path=hides_path)
    except ValueError:
        return None


def _shown_server(url: str) -> str:
    try:
        return shown_smtp(url)
    except ValueError:
        return ""

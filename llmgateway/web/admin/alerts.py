"""Warnings for admins: where they go, and what has become of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...alerts.editing import BadSettings, edited, shown
from ...alerts.settings import AlertSettings, Mailbox
from ...errors import StoreUnavailable
from ...records import Alert, DeliveryState
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.alerts import AlertSettingsSchema, AlertsSchema, AlertTestSchema, FiredAlertsSchema, FiredQuerySchema
from ..schemas.logs import cursor_of, place_of
from . import etags
from .audit_helpers import write_down
from .blueprint import blp

MOST_SHOWN = 50


@blp.route("/alerts", methods=["GET"])
@blp.operation(
    "Show where alerts go, and the last ones",
    description="Passwords, the secrets of webhooks and the secret parts of their URLs are never shown.",
)
@blp.response(200, AlertsSchema, description="In force.", example=examples.ALERTS)
def get_alerts() -> dict[str, Any]:
    return _answer(services().alerts.settings())


@blp.route("/alerts", methods=["PUT"])
@blp.operation(
    "Set where alerts go",
    description=(
        "All of it is replaced: what is not sent is not set afterwards, so `{}` ends all alerts. Only what is secret "
        "stays if it is not sent. Then call `POST /admin/alerts/test`. The example is refused until you have put your "
        "own values in."
    ),
)
@blp.arguments(AlertSettingsSchema, template=examples.ALERTS_REQUEST)
@blp.response(200, AlertsSchema, description="In force.", example=examples.ALERTS)
def set_alerts(sent: dict[str, Any]) -> dict[str, Any]:
    seen: list[AlertSettings] = []

    def change(before: AlertSettings) -> AlertSettings:
        seen.append(before)
        etags.check(shown, before)
        return edited(sent, before)

    try:
        after = services().alerts.change(change)
    except BadSettings as error:
        raise invalid_fields(error.problems) from None
    write_down("alerts.set", "", before=shown(seen[-1]), after=shown(after))
    return _answer(after)


@blp.route("/alerts/test", methods=["POST"])
@blp.operation(
    "Send a test alert to every target",
    description="Says for each what happened and what to do, within about 15 seconds.",
)
@blp.response(200, AlertTestSchema, description="What happened.", example=examples.ALERT_TEST)
def test_alerts() -> dict[str, Any]:
    names = _names(services().alerts.settings())
    outcomes = services().alerts.test()
    return {"targets": [{"target": names.get(target, target)} | outcome._asdict() for target, outcome in outcomes]}


@blp.route("/alerts/fired", methods=["GET"])
@blp.operation(
    "List the alerts that were announced",
    description="Each with what has become of it at every target. While no target is set, nothing is announced. An "
    "alert of a budget is forgotten two days after the budget's period.",
)
@blp.arguments(FiredQuerySchema, location="query")
@blp.response(200, FiredAlertsSchema, description="Newest first.", example=examples.FIRED_ALERTS)
def list_fired_alerts(query: dict[str, Any]) -> dict[str, Any]:
    limit, cursor, alerts = query["limit"], query.get("cursor"), services().alerts
    after = place_of(cursor) if cursor else None
    if cursor and after is None:
        raise invalid_fields({"cursor": ["It is none of this list: send 'next' of the page before."]})
    fired = alerts.store.recent(limit=limit + 1, after=after)
    page, more = fired[:limit], len(fired) > limit
    names = _names(alerts.settings())
    return {
        "items": [_shown_alert(alert, names) for alert in page],
        "next": cursor_of(page[-1].at, page[-1].id) if more else None,
    }


def _answer(settings: AlertSettings) -> dict[str, Any]:
    etags.show(shown(settings))
    try:
        recent = services().alerts.store.recent(limit=MOST_SHOWN)
    except StoreUnavailable:
        recent = ()
    names = _names(settings)
    return {
        **shown(settings),
        "problems": _problems(settings, recent, names),
        "alerts": [_shown_alert(alert, names) for alert in recent],
    }


def _shown_alert(alert: Alert, names: dict[str, str]) -> dict[str, Any]:
    document = asdict(alert)
    for each in document["deliveries"]:
        each["target"] = names.get(each["target"], each["target"])
    return document


def _names(settings: AlertSettings) -> dict[str, str]:
    """Return what people call each target, by identifier."""
    return {name: target.address if isinstance(target, Mailbox) else name for name, target in settings.targets.items()}


def _problems(settings: AlertSettings, recent: Sequence[Alert], names: dict[str, str]) -> list[str]:
    """Return what is known to be wrong now: secrets that cannot be read, and targets whose last delivery has failed."""
    problems = []
    if settings.smtp_unreadable:
        problems.append("smtp_url was stored with another SECRET_KEY or ADMIN_KEY: set it again.")
    problems += [
        f"{each.id}: its URL was stored with another SECRET_KEY or ADMIN_KEY: set it again."
        for each in settings.webhooks
        if each.url is None
    ]
    last: dict[str, tuple[Any, str | None]] = {}
    for alert in recent:
        for each in alert.deliveries:
            if each.tried_at is not None and (each.target not in last or each.tried_at > last[each.target][0]):
                failed = each.state in (DeliveryState.WAITING, DeliveryState.FAILED)
                last[each.target] = each.tried_at, each.reason if failed else None
    problems += [f"{names[target]}: {reason}" for target, (_, reason) in last.items() if reason and target in names]
    return problems

"""Combines what an admin sends with what is stored: secrets are never shown, so they stay where none is sent."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .addresses import problem_of_smtp, problem_of_webhook, read_smtp, shown_smtp
from .delivery import shown_target
from .settings import THRESHOLDS, AlertSettings, Event, Format, Mailbox, Webhook

HIDDEN = "***"
"""In a URL that is shown: what is left out."""

_SEND_WHOLE = "Send the whole URL: *** stands for what is not shown, and no stored webhook is shown like this."


class BadSettings(Exception):
    """What is sent cannot be stored.

    Attributes:
        problems: What is wrong, by field.
    """

    def __init__(self, problems: Mapping[str, Any]) -> None:
        super().__init__("bad settings")
        self.problems = dict(problems)


def edited(sent: Mapping[str, Any], before: AlertSettings) -> AlertSettings:
    """Return the settings that *sent* describes. What is not sent is not set afterwards, but for secrets.

    A webhook keeps its secret and the hidden parts of its URL, and the mail server keeps its password. They never go to
    another server than the one they were given for.

    Args:
        sent: The fields of ``PUT /admin/alerts``, whose types are right.

    Raises:
        BadSettings: it names everything that is wrong.
    """
    problems: dict[str, Any] = {}
    webhooks: list[Webhook] = []
    for index, each in enumerate(sent.get("webhooks") or ()):
        webhook = _webhook(each, before, problems.setdefault("webhooks", {}).setdefault(str(index), {}))
        if any(other.url == webhook.url for other in webhooks):
            problems["webhooks"][str(index)].setdefault("url", []).append("It is there twice.")
        webhooks.append(webhook)
    smtp_url = _smtp_url(sent.get("smtp_url"), before, problems)
    emails, sender = sent.get("emails") or (), sent.get("from")
    if emails and not sent.get("smtp_url"):
        problems.setdefault("smtp_url", []).append("E-mails need a server: send smtp_url, or no emails.")
    if emails and not sender:
        problems.setdefault("from", []).append("E-mails need a sender: send 'from', or no emails.")
    problems = _without_nothing(problems)
    if problems:
        raise BadSettings(problems)
    return AlertSettings(
        smtp_url=smtp_url,
        sender=sender,
        webhooks=tuple(webhooks),
        emails=tuple(Mailbox(address=address) for address in emails),
        thresholds=tuple(sorted(sent.get("thresholds", THRESHOLDS))),
        events=tuple(event for event in Event if event in sent.get("events", tuple(Event))),
    )


def shown(settings: AlertSettings) -> dict[str, Any]:
    """Return *settings* without secrets, in the form in which they are sent."""
    return {
        "smtp_url": None if settings.smtp_url is None else shown_smtp(settings.smtp_url),
        "has_smtp_password": settings.smtp_url is not None and read_smtp(settings.smtp_url).password is not None,
        "from": settings.sender,
        "webhooks": [
            {
                "id": each.id,
                "url": HIDDEN if each.url is None else shown_target(each),
                "has_secret": each.secret is not None,
                "format": str(each.format),
            }
            for each in settings.webhooks
        ],
        "emails": [each.address for each in settings.emails],
        "thresholds": list(settings.thresholds),
        "events": [str(event) for event in settings.events],
    }


def _webhook(sent: Mapping[str, Any], before: AlertSettings, problems: dict[str, list[str]]) -> Webhook:
    url, form = sent["url"], Format(sent.get("format", Format.JSON))
    old = _stored(sent, before, problems)
    if HIDDEN in url:
        if old is None or old.url is None or url != shown_target(old):
            problems.setdefault("url", []).append(_SEND_WHOLE)
        else:
            url = old.url
    elif problem := problem_of_webhook(url):
        problems.setdefault("url", []).append(problem)
    secret = sent.get("secret") or None
    if "secret" not in sent and old is not None and old.secret is not None:
        if not problems and old.url is not None and _origin(old.url) == _origin(url):
            secret = old.secret
        elif not problems:
            problems["secret"] = ["Send it again, or null: a stored secret does not go to another server."]
    return Webhook(id=f"hook_{secrets.token_hex(4)}" if old is None else old.id, url=url, secret=secret, format=form)


def _stored(sent: Mapping[str, Any], before: AlertSettings, problems: dict[str, list[str]]) -> Webhook | None:
    """Return the stored webhook that is meant: that with the same ``id``, else the one with the same URL."""
    if sent.get("id") is not None:
        found = next((each for each in before.webhooks if each.id == sent["id"]), None)
        if found is None:
            problems["id"] = ["There is no such webhook: leave it out, so that a new one is made."]
        return found
    same = [each for each in before.webhooks if each.url is not None and sent["url"] in (each.url, shown_target(each))]
    return same[0] if len(same) == 1 or (same and same[0].url == sent["url"]) else None


def _smtp_url(url: str | None, before: AlertSettings, problems: dict[str, Any]) -> str | None:
    if not url:
        return None
    if problem := problem_of_smtp(url):
        problems["smtp_url"] = [problem]
        return None
    server = read_smtp(url)
    if server.user is None or server.password is not None or before.smtp_url is None:
        return url
    old = read_smtp(before.smtp_url)
    if old[:3] != server[:3] or old.password is None:
        return url
    # The stored URL, with the options of the one that was sent.
    parts = urlsplit(url)
    user = urlsplit(before.smtp_url).netloc.rpartition("@")[0]
    return f"{parts.scheme}://{user}@{parts.netloc.rpartition('@')[2]}{'?' if parts.query else ''}{parts.query}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.hostname, parts.port


def _without_nothing(problems: Mapping[str, Any]) -> dict[str, Any]:
    """Return *problems* without empty parts."""
    made = {name: _without_nothing(each) if isinstance(each, Mapping) else each for name, each in problems.items()}
    return {name: each for name, each in made.items() if each}

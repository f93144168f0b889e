"""Commands for alerts: where they go, and whether they arrive."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .ending import Exit, fail
from .remote import Remote, remote, secret_from_terminal
from .tables import record, table

_SHOWN_ONLY = ("has_smtp_password", "problems", "alerts")


@click.group()
def alerts() -> None:
    """Tell admins of budgets, of Azure's key, of stores that are away: by webhook and e-mail."""


@alerts.command()
@remote
def show(gateway: Remote) -> None:
    """Show where alerts go, the last ones, and what keeps them from arriving."""
    _show(gateway, gateway.call("GET", "/alerts"))


@alerts.command("set")
@click.option("--email", "emails", multiple=True, help="All addresses, each with an option; '' for none.")
@click.option("--from", "sender", help="The sender of e-mails.")
@click.option("--smtp", is_flag=True, help="Ask for the mail server: smtp://USER:PASSWORD@HOST:587, or smtps://…:465.")
@click.option(
    "--add-webhook",
    type=click.Choice(["json", "slack", "teams"]),
    help="Ask for the URL of a webhook, and for a secret with which bodies are signed.",
)
@click.option("--remove-webhook", "removed", multiple=True, metavar="ID", help="Remove a webhook; repeatable.")
@click.option(
    "--threshold", "thresholds", multiple=True, type=click.IntRange(1, 100), help="Per cent of a budget; repeatable."
)
@click.option("--event", "events", multiple=True, help="All events to tell of, each with an option.")
@click.option(
    "--file", type=click.Path(path_type=Path, allow_dash=True), help="JSON with everything; - for standard input."
)
@remote
def set_(
    gateway: Remote,
    emails: tuple[str, ...],
    sender: str | None,
    smtp: bool,
    add_webhook: str | None,
    removed: tuple[str, ...],
    thresholds: tuple[int, ...],
    events: tuple[str, ...],
    file: Path | None,
) -> None:
    """Change the given parts and leave the others. With --file, replace everything.

    What is secret is asked for, or read from standard input, a line each: the mail server, then the URL of a webhook,
    then its secret.
    """
    if file is not None:
        if emails or sender is not None or smtp or add_webhook or removed or thresholds or events:
            fail(["--file replaces everything: leave the other options out."])
        _show(gateway, gateway.call("PUT", "/alerts", body=_read(file)))
        return
    body = _sendable(gateway.call("GET", "/alerts"))
    if emails:
        body["emails"] = [address for address in emails if address]
    if sender is not None:
        body["from"] = sender or None
    if thresholds:
        body["thresholds"] = list(thresholds)
    if events:
        body["events"] = list(events)
    unknown = set(removed) - {each["id"] for each in body["webhooks"]}
    if unknown:
        fail([f"There is no webhook {', '.join(sorted(unknown))}. 'llmgateway alerts show' lists those there are."])
    body["webhooks"] = [each for each in body["webhooks"] if each["id"] not in removed]
    if smtp:
        body["smtp_url"] = secret_from_terminal("Mail server") or None
    if add_webhook is not None:
        url = secret_from_terminal("URL of the webhook")
        secret = secret_from_terminal("Secret, or nothing")
        body["webhooks"].append({"url": url, "format": add_webhook} | ({"secret": secret} if secret else {}))
    _show(gateway, gateway.call("PUT", "/alerts", body=body))


@alerts.command()
@remote
def test(gateway: Remote) -> None:
    """Send a test to every target. The exit status is 1 if one does not get it."""
    answer = gateway.call("POST", "/alerts/test")
    targets = answer["targets"]
    gateway.show_all(targets, "target", "delivered", "status", "reason", "remedy")
    if not targets:
        fail(["There is nowhere to send it: see 'llmgateway alerts set -h'."], status=Exit.REFUSED)
    if not all(each["delivered"] for each in targets):
        sys.exit(Exit.REFUSED)


def _show(gateway: Remote, answer: Mapping[str, Any]) -> None:
    if gateway.as_json:
        gateway.show(answer)
        return
    fields = {name: value for name, value in answer.items() if name not in ("webhooks", "problems", "alerts")}
    parts = [record(fields)]
    if answer["webhooks"]:
        parts.append(table(answer["webhooks"], ("id", "url", "format", "has_secret")))
    if answer["alerts"]:
        rows = [each | {"delivered": _delivered(each)} for each in answer["alerts"]]
        parts.append(table(rows, ("at", "event", "delivered", "text")))
    click.echo("\n\n".join(parts))
    for problem in answer["problems"]:
        click.echo(f"llmgateway: warning: {problem}", err=True)


def _delivered(alert: Mapping[str, Any]) -> str:
    states = [each["state"] for each in alert["deliveries"]]
    return f"{states.count('delivered')} of {len(states)}"


def _sendable(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return *answer* in the form in which it is sent back. What is not shown stays as it is."""
    body = {name: value for name, value in answer.items() if name not in _SHOWN_ONLY}
    body["webhooks"] = [
        {name: value for name, value in each.items() if name != "has_secret"} for each in body["webhooks"]
    ]
    return body


def _read(file: Path) -> Any:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
        return json.loads(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        fail([f"{file} cannot be read: {reason}."])

"""Tries the deployments: those of a running gateway, or those that the environment names."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..env_file import with_env_file
from ..errors import ConfigurationError, StoreUnavailable
from ..settings import MISSING_BASE_URL, Settings
from .remote import DEFAULT_URL, Remote, key_file_option, remote
from .tables import plain

_NOTHING = (
    "There is nothing to try: no address of Azure is set, and no model has deployments. Set the address with "
    "llmgateway settings set --base-url ADDRESS, or register deployments with llmgateway models deploy."
)


@click.command()
@click.option("--local", is_flag=True, help="Try from here, with the settings in the environment, without a gateway.")
@click.option("--model", help="Only this model or deployment.")
@click.option(
    "--url",
    envvar="LLMGATEWAY_URL",
    default=DEFAULT_URL,
    help=f"Address of the gateway. [LLMGATEWAY_URL, {DEFAULT_URL}]",
)
@key_file_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def doctor(local: bool, model: str | None, url: str, admin_key_file: str | None, as_json: bool) -> None:
    """Try every deployment, and say what to change. Exit status 1 if any fails.

    Costs nothing, or one token for each deployment that can chat.
    """
    found = (
        _examine_locally(model) if local else _examine(model, url=url, admin_key_file=admin_key_file, as_json=as_json)
    )
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _show(found)
    sys.exit(0 if found["ok"] else 1)


def _examine(model: str | None, **where: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    @remote
    def ask(gateway: Remote) -> None:
        found.update(gateway.call("POST", "/doctor", body={} if model is None else {"model": model}))

    ask(**where)
    return found


def _examine_locally(model: str | None) -> dict[str, Any]:
    from ..app import local_doctor
    from ..web.admin.doctor import diagnosis

    try:
        settings = Settings.from_env(os.environ)
        os.environ.update(with_env_file(os.environ))  # proxies and certificates may be in the file
        with tempfile.TemporaryDirectory(prefix="llmgateway-") as folder:
            if not settings.mongo_url and not settings.instance.is_dir():
                settings = replace(settings, instance=Path(folder))  # a doctor leaves nothing behind
            found = local_doctor(settings).examine(model=model, request_id="llmgateway-doctor")
    except ConfigurationError as error:
        return _wrong_settings(error.problems)
    except StoreUnavailable as error:
        return _wrong_settings([f"The store does not answer: {error}"])
    if not found and settings.base_url is None:
        return _wrong_settings([MISSING_BASE_URL])
    return diagnosis(found)


def _wrong_settings(problems: list[str]) -> dict[str, Any]:
    return {"ok": False, "items": [], "settings": problems}


def _show(found: Mapping[str, Any]) -> None:
    for problem in found.get("settings", ()):
        click.echo(f"FAILS  {plain(problem)}")
    for item in found["items"]:
        click.echo("\n".join(map(plain, _lines(item))))
    failed = sum(not item["ok"] for item in found["items"]) + len(found.get("settings", ()))
    if not found["items"] and not failed:
        click.echo(_NOTHING)
    else:
        click.echo("Everything works." if found["ok"] else f"{failed} of {len(found['items']) or failed} fail.")


def _lines(item: Mapping[str, Any]) -> list[str]:
    names = [item["model"], item["name"]] if item["model"] else [item["deployment"]]
    lines = [f"{'ok   ' if item['ok'] else 'FAILS'}  {' / '.join(names)}: {item['endpoint']}"]
    if item["url"]:
        lines.append(f"       {item['url']}")
    facts = {
        "header": item["header"] and (f"{item['header']} ({'token' if item['identity'] else 'key'})"),
        "api-version": item["api_version"],
        "status": item["status"],
        "region": item["region"],
        "latency": item["latency_ms"] and f"{item['latency_ms']:.0f} ms",
        "stream_options": {None: None, True: "yes", False: "no"}[item["stream_options"]],
        **_quota(item["quota"] or {}),
    }
    shown = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    if shown:
        lines.append(f"       {shown}")
    if not item["ok"]:
        lines.append(f"       {item['problem']}. {item['remedy']}")
    return lines


def _quota(quota: Mapping[str, int | None]) -> dict[str, str | None]:
    """Return what is left of a quota, and of how much."""
    shown: dict[str, str | None] = {}
    for unit in ("requests", "tokens"):
        left, limit = quota.get(f"remaining_{unit}"), quota.get(f"limit_{unit}")
        if left is not None:
            shown[f"{unit} left"] = f"{left}" if limit is None else f"{left} of {limit}"
    return shown

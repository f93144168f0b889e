"""The three forms of a model: deployments, prices, and what else is set. Each replaces its part of the settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...records import PRICE_KINDS
from .api import ApiError
from .forms import Form
from .rows import gather, renumber, rows

_TEXTS = ("name", "base_url", "deployment")
_OPTIONAL = ("api_version", "key_header")
_MORE = ("tiers", "long_context", "tools")
_NO_OBJECT = "Must be a JSON object with any of tiers, long_context and tools."


@dataclass(frozen=True, slots=True)
class Part:
    """One of the forms."""

    body: Callable[[Form], dict[str, Any]]
    """Returns the body of ``PUT /admin/models/{name}``; notes in the form what cannot be one."""
    refused: Callable[[Form, ApiError], Form]
    """As :meth:`Form.refused`, with the messages at the fields of the form."""


def model_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is set for a model as values of the three forms."""
    prices = settings.get("prices") or {}
    more = {name: prices[name] for name in _MORE if name in prices}
    values: dict[str, Any] = {f"prices.{kind}": prices.get(kind) for kind in PRICE_KINDS}
    values |= {
        "prices.more": json.dumps(more, indent=2, ensure_ascii=False) if more else "",
        "aliases": ", ".join(settings.get("aliases") or ()),
        "endpoints": settings.get("endpoints") or [],
        "max_output_tokens": settings.get("max_output_tokens"),
        "tokens_per_second": settings.get("tokens_per_second"),
        "reasoning": {None: "", True: "yes", False: "no"}[settings.get("reasoning")],
    }
    for place, each in enumerate(settings.get("deployments", ())):
        values |= deployment_values(each, place)
    return values


def deployment_values(deployment: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return a deployment as values of the form; a new one has the defaults."""
    shown = {"priority": 1, "weight": 1, "active": True, "identity": False, **deployment}
    names = (*_TEXTS, *_OPTIONAL, "priority", "weight", "active", "identity", "has_key")
    return {f"deployments.{place}.{name}": shown.get(name) for name in names}


def _deployments(form: Form) -> dict[str, Any]:
    return {"deployments": [_deployment(form, place) for place in _kept(form)]}


def _kept(form: Form) -> list[int]:
    return rows(form, "deployments", _TEXTS)


def _deployment(form: Form, place: int) -> dict[str, Any]:
    prefix = f"deployments.{place}."
    body: dict[str, Any] = {name: form[f"{prefix}{name}"] for name in _TEXTS}
    body |= {name: text for name in (*_OPTIONAL, "key") if (text := form.text(f"{prefix}{name}"))}
    numbers = {name: form.number(f"{prefix}{name}") for name in ("priority", "weight")}
    body |= {name: number for name, number in numbers.items() if number is not None}
    return body | {name: form.checked(f"{prefix}{name}") for name in ("active", "identity")}


def _deployments_refused(form: Form, error: ApiError) -> Form:
    form = form.refused(error)
    renumber(form, "deployments", _kept(form))
    for name in form.values:
        if name.endswith(".base_url"):
            form.hide_secrets(name)
    return form


def _prices(form: Form) -> dict[str, Any]:
    prices: dict[str, Any] = {
        kind: number for kind in PRICE_KINDS if (number := form.number(f"prices.{kind}")) is not None
    }
    text = form.text("prices.more")
    if text is not None:
        try:
            more = json.loads(text)
        except ValueError as error:
            form.errors["prices.more"] = [f"Is no JSON: {error}."]
            return {}
        if not isinstance(more, dict) or not more.keys() <= {*_MORE}:
            form.errors["prices.more"] = [_NO_OBJECT]
            return {}
        prices |= more
    return {"prices": prices or None}


def _prices_refused(form: Form, error: ApiError) -> Form:
    form = form.refused(error)
    of_more = [name for name in form.errors if name.split(".")[1:2] and name.split(".")[1] in _MORE]
    texts = [f"{name.removeprefix('prices.')}: {' '.join(form.errors.pop(name))}" for name in of_more]
    if texts:
        form.errors["prices.more"] = texts
    return form


def _others(form: Form) -> dict[str, Any]:
    return {
        "aliases": form.list("aliases"),
        "endpoints": list(form.chosen("endpoints")) or None,
        "max_output_tokens": form.number("max_output_tokens"),
        "tokens_per_second": form.number("tokens_per_second"),
        "reasoning": {"yes": True, "no": False}.get(str(form["reasoning"])),
    }


def _others_refused(form: Form, error: ApiError) -> Form:
    form = form.refused(error)
    for name in ("aliases", "endpoints"):
        gather(form, name)
    return form


PARTS = {
    "deployments": Part(_deployments, _deployments_refused),
    "prices": Part(_prices, _prices_refused),
    "others": Part(_others, _others_refused),
}

"""Converts alerts to JSON, for all stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from llmgateway.records import Alert, Delivery, DeliveryState

from .epoch import from_ms, to_ms

_TIMES = ("at", "kept_until", "due_at", "tried_at")


def alert_document(alert: Alert) -> dict[str, Any]:
    """Return *alert* as JSON, without its lease. Times are whole milliseconds since 1970."""
    document = _without_times(asdict(alert))
    del document["lease"]
    document["deliveries"] = [_without_times(each) for each in document["deliveries"]]
    return document


def read_alert(document: Mapping[str, Any], *, lease: str) -> Alert:
    """Convert the output of :func:`alert_document`. Fields of a newer version are ignored."""
    known = {name: value for name, value in _with_times(document).items() if name in Alert.__dataclass_fields__}
    deliveries = tuple(_delivery(each) for each in document["deliveries"])
    return Alert(**known | {"deliveries": deliveries, "lease": lease})


def _delivery(document: Mapping[str, Any]) -> Delivery:
    known = {name: value for name, value in _with_times(document).items() if name in Delivery.__dataclass_fields__}
    return Delivery(**known | {"state": DeliveryState(document["state"])})


def _without_times(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: to_ms(value) if isinstance(value, datetime) else value for name, value in document.items()}


def _with_times(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: from_ms(value) if name in _TIMES and value is not None else value for name, value in document.items()}

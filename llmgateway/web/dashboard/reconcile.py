"""Azure's bill beside our books: an export is dropped here, and forgotten after the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from flask import Response
from markupsafe import Markup

from ...errors import GatewayError
from ..body import read_files
from ..context import services
from . import charts
from .api import ApiError
from .blueprint import allowed, api, blp, page
from .formats import count, money, short
from .forms import Form

_MOST_CHARTS = 4
_MOST_DAYS = 40
_LONGEST_PERIOD = 400
"""The most days of a chart."""
_THRESHOLD = "1"
_FIELDS = ("threshold", "model", "meter")


@dataclass(frozen=True, slots=True)
class Chart:
    """Both sides by day, of one deployment and kind."""

    title: str
    svg: Markup
    rows: list[tuple[str, str, str, str]]
    """Day, Azure's, ours, gap."""


@blp.get("/reconcile")
def reconcile() -> Response:
    """Ask for a file."""
    _check_right()
    return _shown(Form({"threshold": _THRESHOLD}))


@blp.post("/reconcile")
def reconcile_compare() -> Response:
    """Compare the files. Nothing is stored, so there is no other page to lead to."""
    _check_right()
    form, result = Form({"threshold": _THRESHOLD}), None
    try:
        fields, files = read_files(services().settings.instance)
        form.values = {name: "\n".join(fields.getlist(name)).strip() for name in _FIELDS}
        result = api().post_form("/admin/reconcile", fields, files).body
    except ApiError as error:
        form.refused(error)
    except GatewayError as error:
        form.status, form.problem = error.status, str(error)
    return _shown(form, result)


def _check_right() -> None:
    if not allowed("POST", "/admin/reconcile"):
        raise ApiError(403, "Azure's bill is about the whole organisation: ask an owner or admin of this gateway.")


def _shown(form: Form, result: dict[str, Any] | None = None) -> Response:
    settings = services().settings
    found: dict[str, Any] = {}
    if result is not None:
        gaps = [each for each in result["days"] if each["gap"]]
        worst = result["beyond"] or sorted(gaps, key=lambda each: -abs(each["percent"] or 1e9))
        found = {
            "result": result,
            "graphs": [*_charts(result)],
            "worst": worst[:_MOST_DAYS],
            "left_out": max(0, len(worst) - _MOST_DAYS),
            "number": number,
        }
    return page(
        "reconcile.html",
        status=form.status,
        form=form,
        largest=settings.max_body_bytes,
        unpacked=settings.reconcile_bytes,
        **found,
    )


def number(value: float | None, each: Mapping[str, Any]) -> str:
    """Write tokens, or money of the comparison *each*."""
    if value is None or each["kind"] != "cost":
        return count(value)
    sign = "-" if value < 0 else ""
    return f"{sign}{money(abs(value))}" if each["currency"] == "USD" else f"{value:,.2f} {each['currency']}"


def _charts(result: Mapping[str, Any]) -> Iterable[Chart]:
    """Yield a chart for each of the deployments with the largest gaps, of the kind of tokens that differs most."""
    by_name: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for each in result["totals"]:
        if each["kind"] != "cost":
            by_name[each["source"], each["name"]].append(each)
    largest = [max(kinds, key=_gap) for kinds in by_name.values()]
    for total in sorted(largest, key=_gap, reverse=True)[:_MOST_CHARTS]:
        same = ("source", "name", "kind")
        days = {each["day"]: each for each in result["days"] if all(each[name] == total[name] for name in same)}
        yield _chart(f"{total['name']}: {total['kind']} tokens per day", days)


def _gap(each: Mapping[str, Any]) -> float:
    return abs(float(each["gap"] or 0))


def _chart(title: str, found: Mapping[str, Mapping[str, Any]]) -> Chart:
    days = _days(sorted(found))
    azure = [found[day.isoformat()]["azure"] if day.isoformat() in found else 0.0 for day in days]
    ours = [found[day.isoformat()]["ours"] if day.isoformat() in found else 0.0 for day in days]
    svg = charts.lines(days, {"Azure": azure, "the gateway": ours}, title=title, form=short)
    rows = [(name, count(each["azure"]), count(each["ours"]), count(each["gap"])) for name, each in found.items()]
    return Chart(title, svg, rows[:_MOST_DAYS])


def _days(named: Sequence[str]) -> list[date]:
    first, last = date.fromisoformat(named[0]), date.fromisoformat(named[-1])
    return [first + timedelta(days=step) for step in range(min((last - first).days + 1, _LONGEST_PERIOD))]

"""A page that shows every part of which the pages are made: for whoever changes the style."""

from __future__ import annotations

from datetime import date, timedelta

from flask import Response

from .blueprint import PERSONAL, blp, page
from .forms import Form

PERSONAL.add("dashboard.parts")

_FIRST = date(2026, 11, 2)


@blp.get("/parts")
def parts() -> Response:
    """Show the parts with made-up values."""
    days = [_FIRST + timedelta(days=number) for number in range(28)]
    wave = [40 + 25 * (number % 7 < 5) + number % 3 * 9 for number in range(28)]
    models = ("gpt-5.2", "gpt-4o", "gpt-4o-mini", "o4-mini", "gpt-4.1", "gpt-4.1-mini", "o3", "others")
    form = Form({"user": "ada", "limits.requests_per_minute": "many", "limits.budget.amount": 20})
    form.errors = {"user": ["Must not contain '/'."], "limits.requests_per_minute": ["Not a valid integer."]}
    form.problem = "These fields are not right."
    return page(
        "parts_page.html",
        days=days,
        cost={name: [value / (number + 1) for value in wave] for number, name in enumerate(models)},
        times={
            "p50": [700 + value for value in wave],
            "p90": [2000 + 9 * value if number not in (9, 10) else None for number, value in enumerate(wave)],
        },
        hours=[[hour * (7 - weekday) if 7 < hour < 21 else 0 for hour in range(24)] for weekday in range(7)],
        wave=wave[:14],
        form=form,
    )

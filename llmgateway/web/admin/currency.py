"""The second currency of reports and statements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...usage.currency import CURRENCY, Currency
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.currency import CurrencyChangesSchema, CurrencyFieldsSchema, CurrencySchema
from . import etags
from .audit_helpers import write_down
from .blueprint import blp

_NONE: dict[str, Any] = {"code": None, "rates": {}}


@blp.route("/currency", methods=["GET"])
@blp.operation(
    "Read the second currency",
    description="Statements have it, and so has `GET /admin/usage?currency=EUR`. `code` is null if there is none.",
)
@blp.response(200, CurrencySchema, description="In force.", example=examples.CURRENCY)
def get_currency() -> dict[str, Any]:
    currency = present_currency()
    shown = _NONE if currency is None else currency.as_document()
    etags.show(shown)
    return shown


@blp.route("/currency", methods=["PUT"])
@blp.operation(
    "Set the second currency",
    description=(
        "All of it is replaced, with all rates; `PATCH /admin/currency` adds one. A rate says how much of the currency "
        "a US dollar was in a month of the organisation's time zone: take the one that your accounting uses. "
        '`{"code": null}` removes the currency. The example is refused until you have put your own values in.'
    ),
)
@blp.arguments(CurrencyFieldsSchema, template=examples.CURRENCY_REQUEST)
@blp.response(200, CurrencySchema, description="In force.", example=examples.CURRENCY)
def set_currency(fields: dict[str, Any]) -> dict[str, Any]:
    code, rates = fields["code"], fields.get("rates", {})
    return _changed(lambda _: {} if code is None else Currency(code, rates).as_document())


@blp.route("/currency", methods=["PATCH"])
@blp.operation(
    "Set rates of the second currency",
    description=(
        "Months that are sent are set, `null` removes one, the others stay. The example changes nothing. In short:\n\n"
        '* `{"rates": {"2026-11": 0.93}}` adds the rate of a month\n'
        '* `{"code": "EUR", "rates": {"2026-10": 0.92}}` sets the currency, too, if there is none yet\n'
    ),
)
@blp.arguments(CurrencyChangesSchema, example={})
@blp.response(200, CurrencySchema, description="In force.", example=examples.CURRENCY)
def update_currency(changes: dict[str, Any]) -> dict[str, Any]:
    def changed(before: Mapping[str, Any]) -> Mapping[str, Any]:
        currency = Currency.from_document(before)
        code = changes.get("code") or (None if currency is None else currency.code)
        if code is None:
            if not changes:
                return {}
            raise invalid_fields({"code": ["There is no second currency yet: name it, like EUR."]})
        if currency is not None and code != currency.code:
            problem = (
                f"The rates that are stored are those of {currency.code}. PUT /admin/currency replaces the currency "
                "together with all its rates; the command needs --replace for that."
            )
            raise invalid_fields({"code": [problem]})
        rates = {**({} if currency is None else currency.rates), **changes.get("rates", {})}
        kept = {month: rate for month, rate in rates.items() if rate is not None}
        return Currency(code, kept).as_document()

    return _changed(changed)


def present_currency() -> Currency | None:
    """Return the currency that is in force; None if there is none."""
    return Currency.from_document(services().policy.stored().documents.get(CURRENCY, {}))


def _changed(change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> dict[str, Any]:
    before: Mapping[str, Any] = {}

    def noted(present: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal before
        before = present
        etags.check(_shown, present)
        return change(present)

    after = services().policy.update_document(CURRENCY, noted)
    if after != before:
        write_down("currency.set", "", before=before or None, after=after or None)
    etags.show(_shown(after))
    return _shown(after)


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**_NONE, **document}

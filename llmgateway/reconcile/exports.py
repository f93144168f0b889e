"""Reads exports of costs: cost and usage details of an Enterprise Agreement or a customer agreement, and FOCUS 1.0.

Columns as in Microsoft's samples and in the FinOps toolkit (2023 to 2026). Their names are compared without regard to
upper case, so that the two ways to write the cost and usage details are one.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .cells import account_in, deployment_in, number, tags_of, tokens_per_unit, utc_day
from .files import UnusableFile
from .statement import BILL, FileSummary, Place

_SERVICE = "microsoft.cognitiveservices"
_CATEGORIES = {"foundry models", "azure openai", "azure openai service"}
_NAMED = ("openai", "foundry")
_KEPT_PLACES = 10_000
_COUNTED_UNITS = {"", "unit", "units", "token", "tokens", "count"}


class Schema(NamedTuple):
    """The names of the columns, the preferred one first, in lower case."""

    name: str
    day: tuple[str, ...]
    meter: tuple[str, ...]
    quantity: tuple[str, ...]
    unit: tuple[str, ...]
    meter_id: tuple[str, ...]
    category: tuple[str, ...]
    product: tuple[str, ...]
    money: tuple[str, ...]
    currency: tuple[str, ...]
    service: tuple[str, ...]
    resource: tuple[str, ...] = ("resourceid", "instanceid")
    tags: tuple[str, ...] = ("tags",)
    usd: tuple[str, ...] = ("costinusd",)
    block: tuple[str, ...] = ()
    """How many units a price is for, where the unit does not say it."""


_DETAILS = Schema(
    name="EA actual",
    day=("date", "usagedate", "usagedatetime"),
    meter=("metername", "meter"),
    quantity=("quantity", "usagequantity", "consumedquantity"),
    unit=("unitofmeasure",),
    meter_id=("meterid", "meterguid"),
    category=("metercategory",),
    product=("metersubcategory",),
    money=("costinbillingcurrency", "cost", "pretaxcost"),
    currency=("billingcurrency", "billingcurrencycode", "currency"),
    service=("consumedservice",),
)
_FOCUS = Schema(
    name="FOCUS 1.0",
    day=("chargeperiodstart",),
    meter=("x_skumetername", "skumeter"),
    quantity=("pricingquantity",),
    unit=("pricingunit",),
    meter_id=("x_skumeterid",),
    category=("x_skumetercategory",),
    product=("x_skumetersubcategory",),
    money=("billedcost", "effectivecost"),
    currency=("billingcurrency",),
    service=("servicename",),
    usd=("x_billedcostinusd",),
    block=("x_pricingblocksize", "x_pricingunitdescription"),
)


def is_export(header: Sequence[str]) -> bool:
    """Return whether these are the columns of an export of costs, at least most of them."""
    names = _positions(header)
    return any(len(_missing(schema, names)) <= 2 for schema in (_FOCUS, _DETAILS))


def read_export(name: str, header: Sequence[str], lines: Iterable[str], *, delimiter: str = ",") -> FileSummary:
    """Add up the charges of Azure's AI services in *lines*, which follow the *header*.

    Raises:
        UnusableFile: a column is missing, or a line cannot be read.
    """
    positions = _positions(header)
    schema = _FOCUS if "chargeperiodstart" in positions else _DETAILS
    if missing := _missing(schema, positions):
        raise UnusableFile(
            f"{name}: there is no column {' nor '.join(missing)}. Export 'cost and usage details (actual)' or 'FOCUS' "
            "with all columns."
        )
    if schema is _DETAILS and "costinbillingcurrency" in positions:
        schema = schema._replace(name="EA 2024-08-01 / MCA")
    rows = csv.reader(lines, delimiter=delimiter)
    reader = _Reader(FileSummary(name, schema.name), schema, positions, decimal_comma=delimiter == ";")
    try:
        for row in rows:
            if row:
                reader.read(row)
    except (csv.Error, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        # The header is line 1.
        raise UnusableFile(f"{name}, line {rows.line_num + 1}: {error}. Correct it, or export again.") from error
    return reader.summary


class _Reader:
    """Adds up the rows of one file. Remembers how it has read the last days, meters and resources, but no rows."""

    def __init__(
        self, summary: FileSummary, schema: Schema, positions: Mapping[str, int], *, decimal_comma: bool
    ) -> None:
        self.summary = summary
        self._decimal_comma = decimal_comma
        self._last = max(positions.values())
        find = functools.partial(_position, positions=positions)
        self._quantity = find(schema.quantity)
        self._whose = find(schema.service), find(schema.resource), find(schema.category)
        self._usd, self._money = find(schema.usd), find(schema.money)
        named = schema.day, schema.meter, schema.meter_id, schema.unit, schema.product, schema.resource, schema.tags
        self._parts = tuple(map(find, (*named, schema.currency, schema.block)))
        self._places: dict[tuple[str, ...], Place] = {}

    def read(self, row: list[str]) -> None:
        if len(row) <= self._last:
            if len(row) == 1 and not row[0].strip():
                return
            raise ValueError(f"there are {len(row)} columns, and the first line has {self._last + 1}")
        self.summary.rows += 1
        row.append("")  # for columns that the file does not have, whose position is -1
        service, resource, category = self._whose
        if not _is_ours(row[service].strip().lower(), row[resource].lower(), row[category].strip().lower()):
            self.summary.other_rows += 1
            return
        usd = row[self._usd]
        parts = "USD" if usd else "", *[row[position] for position in self._parts]
        place = self._places.get(parts)
        if place is None:
            if len(self._places) >= _KEPT_PLACES:
                self._places.clear()
            place = self._places[parts] = self._place(*parts)
        amount = self.summary.amount(place)
        amount.rows += 1
        amount.quantity += number(row[self._quantity], decimal_comma=self._decimal_comma)
        amount.money += number(usd or row[self._money], decimal_comma=self._decimal_comma)

    def _place(
        self, usd: str, day: str, meter: str, meter_id: str, unit: str, product: str, resource: str, tags: str,
        currency: str, block: str,
    ) -> Place:  # fmt: skip
        per_unit = tokens_per_unit(unit)
        if block and per_unit is not None and unit.strip().lower() in _COUNTED_UNITS:
            per_unit = tokens_per_unit(block)
        return Place(
            source=BILL,
            day=utc_day(day),
            deployment=tags_of(tags).get("deployment") or deployment_in(resource),
            account=account_in(resource),
            model=None,
            meter=meter.strip(),
            meter_id=meter_id.strip().lower(),
            product=product.strip(),
            unit=unit.strip(),
            tokens_per_unit=per_unit,
            currency=usd or currency.strip().upper(),
        )


def _is_ours(service: str, resource: str, category: str) -> bool:
    return (
        service == _SERVICE
        or f"/providers/{_SERVICE}/" in resource
        or category in _CATEGORIES
        or any(name in service for name in _NAMED)
    )


def _positions(header: Sequence[str]) -> dict[str, int]:
    positions: dict[str, int] = {}
    for position, name in enumerate(header):
        positions.setdefault(name.strip().lower().replace(" ", ""), position)
    return positions


def _position(names: Sequence[str], positions: Mapping[str, int]) -> int:
    return next((positions[name] for name in names if name in positions), -1)


def _missing(schema: Schema, positions: Mapping[str, int]) -> list[str]:
    needed = (schema.day, schema.meter, schema.quantity, schema.unit)
    return [names[0] for names in needed if _position(names, positions) < 0]

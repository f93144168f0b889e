"""Exports as Azure writes them, made from a few charges."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from typing import NamedTuple

ACCOUNT = "/subscriptions/1/resourceGroups/ai/providers/Microsoft.CognitiveServices/accounts/contoso-eu"
UNITS = {"1K": 1_000, "10K": 10_000, "1M": 1_000_000}


class Charge(NamedTuple):
    """One line of a bill."""

    meter: str
    tokens: int
    day: str = "2026-10-05"
    deployment: str | None = None
    cost: float = 0.0
    unit: str = "1K"
    meter_id: str = ""
    product: str = "Azure OpenAI"
    resource: str = ACCOUNT
    service: str = "Microsoft.CognitiveServices"
    currency: str = "USD"

    @property
    def quantity(self) -> str:
        return f"{self.tokens / UNITS.get(self.unit, 1):.9f}".rstrip("0").rstrip(".")


def _american(charge: Charge) -> str:
    return f"{date.fromisoformat(charge.day):%m/%d/%Y}"


def _tags(charge: Charge) -> dict[str, str]:
    return {"cost": "4711"} | ({"deployment": charge.deployment} if charge.deployment else {})


def _ea_actual(charge: Charge) -> dict[str, str]:
    return {
        "InvoiceSectionName": "Physics",
        "Date": _american(charge),
        "MeterCategory": "Foundry Models",
        "MeterSubCategory": charge.product,
        "MeterId": charge.meter_id,
        "MeterName": charge.meter,
        "Quantity": charge.quantity,
        "UnitOfMeasure": charge.unit,
        "Cost": str(charge.cost),
        "ConsumedService": charge.service.upper(),
        "ResourceId": charge.resource,
        "Tags": json.dumps(_tags(charge))[1:-1],
        "AdditionalInfo": '{"a": "b, c"}',
        "BillingCurrency": charge.currency,
    }


def _mca(charge: Charge) -> dict[str, str]:
    ea = _ea_actual(charge)
    ea["CostInBillingCurrency"] = ea.pop("Cost")
    names = {name: name if name == "ResourceId" else name[0].lower() + name[1:] for name in ea}
    return {names[name]: value for name, value in ea.items()} | {"tags": json.dumps(_tags(charge))}


def _ea_2024(charge: Charge) -> dict[str, str]:
    ea = _ea_actual(charge)
    ea["CostInBillingCurrency"] = ea.pop("Cost")
    return ea | {"Date": charge.day}


def _focus(charge: Charge) -> dict[str, str]:
    return {
        "BilledCost": str(charge.cost),
        "BillingCurrency": charge.currency,
        "ChargePeriodEnd": f"{charge.day}T23:59:59Z",
        "ChargePeriodStart": f"{charge.day}T00:00:00Z",
        "EffectiveCost": "7",
        "PricingQuantity": charge.quantity,
        "PricingUnit": charge.unit,
        "ResourceId": charge.resource.lower(),
        "ServiceName": "Azure OpenAI Service" if "Cognitive" in charge.service else "Virtual Machines",
        "Tags": json.dumps(_tags(charge)),
        "x_SkuMeterCategory": "Foundry Models" if "Cognitive" in charge.service else "Virtual Machines",
        "x_SkuMeterId": charge.meter_id,
        "x_SkuMeterName": charge.meter,
        "x_SkuMeterSubcategory": charge.product,
    }


def _focus_without_meter_name(charge: Charge) -> dict[str, str]:
    focus = _focus(charge)
    return focus | {"SkuMeter": focus.pop("x_SkuMeterName")}


SCHEMAS = {
    "ea_actual": _ea_actual,
    "ea_2024": _ea_2024,
    "mca": _mca,
    "focus": _focus,
    "focus_sku_meter": _focus_without_meter_name,
}


def table(charges: list[Charge], schema: str = "ea_actual", *, delimiter: str = ",", **changes: str) -> str:
    """The export of *charges*; *changes* are cells that all of its rows have instead."""
    rows = [SCHEMAS[schema](charge) | changes for charge in charges]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def stream(text: str, encoding: str = "utf-8") -> io.BytesIO:
    return io.BytesIO(text.encode(encoding))


def usage(
    day: str = "2026-10-05",
    *,
    deployment: str | None = "gpt-4o",
    model: str = "gpt-4o",
    prompt: int = 0,
    cached: int = 0,
    completion: int = 0,
    cost: float = 0.0,
    **others: int,
) -> dict[str, object]:
    """A row of our report; *prompt* includes *cached*."""
    counts = {"estimated_tokens": 0, "bound_tokens": 0, "requests": 1} | others
    return counts | {
        "day": day,
        "deployment": deployment,
        "model": model,
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cost_usd": cost,
    }


def metric(name: str, points: dict[str, float], aggregation: str = "total", **dimensions: str) -> dict[str, object]:
    """A metric as the API answers it, with one series."""
    return {
        "id": f"{ACCOUNT}/providers/Microsoft.Insights/metrics/{name}",
        "type": "Microsoft.Insights/metrics",
        "name": {"value": name, "localizedValue": name},
        "unit": "Count",
        "timeseries": [
            {
                "metadatavalues": [
                    {"name": {"value": key.lower(), "localizedValue": key.lower()}, "value": value}
                    for key, value in dimensions.items()
                ],
                "data": [{"timeStamp": at, aggregation: value} for at, value in points.items()],
            }
        ],
        "errorCode": "Success",
    }

"""Writes the bill of simulated resources as the files that Azure offers for download.

The schemas are those of the exports of Cost Management: ``ea_actual`` (enterprise agreement, as recorded in the
finops-toolkit of 2023), ``ea_2024`` (2024-08-01) and ``mca`` (Microsoft customer agreement, whose names begin with a
small letter), and ``focus`` (FOCUS 1.0). Of the many columns only those are written that say something about the use
of a model, and some that have to be ignored. Names of token meters follow names that were seen, such as
``gpt 4o 1120 cached Inp glbl Tokens`` and ``gpt-4o-mini-0718-Outp-regnl Tokens``; those of embeddings, images and audio
follow the same pattern, because none was seen.

Azure Monitor's metrics come as its API answers them (JSON, one hour each), and as a table (CSV).
"""

from __future__ import annotations

import csv
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from .meter import TOKEN_KINDS, Charge, Meter, Metered

Schema = Literal["ea_actual", "ea_2024", "mca", "focus"]
Unit = Literal["1K", "1M"]

_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
_GROUP = "simulated"
_PER_UNIT = {"1K": 1_000, "1M": 1_000_000}
_BOM = "\ufeff"

_PRICES = {"cached": 1.25, "completion": 10.0, "image_completion": 40.0, "audio_completion": 80.0, "audio_prompt": 40.0}
_OTHER_PRICE = 2.5
"""US dollars per million tokens, the same for every model: made up."""


class Resource(Protocol):
    """What has a bill: a :class:`~llmgateway.simulator.Simulator`."""

    name: str
    region: str
    meter: Meter


class Item(NamedTuple):
    """One line of a bill, in words that all schemas share."""

    charge: Charge
    resource_id: str
    meter: str
    meter_id: str
    unit: str
    quantity: float
    """Of units: 0.02 for twenty tokens of a unit of ``1K``."""
    cost: float


def items(resources: Iterable[Resource], *, unit: Unit = "1K") -> list[Item]:
    """Return the lines of the bill. Tokens of provisioned deployments are not on it."""
    return [
        _item(charge, resource, unit)
        for resource in resources
        for charge in resource.meter.charges
        if not charge.provisioned
    ]


def write_export(
    folder: Path,
    resources: Iterable[Resource],
    *,
    schema: Schema,
    unit: Unit = "1K",
    bom: bool = True,
    parts: int = 1,
    tagged: bool = True,
    foreign: bool = True,
    change: Callable[[Item], Item | None] | None = None,
) -> list[Path]:
    """Write the bill as Cost Management exports it, and return the files.

    Args:
        unit: The tokens that one unit of ``Quantity`` counts.
        bom: Begin each file with a byte order mark, as most exports do.
        parts: Number of files, ``part_0_0001.csv`` and so on, between which the lines are divided.
        tagged: Write the tag ``deployment``, which Cost analysis knows. Without it a bill tells only the model.
        foreign: Add a line of another service, and one of a meter that nobody knows.
        change: Changes lines, or leaves them away (``None``), to make up a gap.
    """
    found = items(resources, unit=unit)
    if change is not None:
        found = [changed for item in found if (changed := change(item)) is not None]
    rows = [_row(item, schema, tagged=tagged) for item in found]
    if foreign:
        rows += [_row(other, schema, tagged=False) | changes for other, changes in _others(found, schema)]
    folder.mkdir(parents=True, exist_ok=True)
    names = _COLUMNS[schema]
    paths = []
    for part in range(parts):
        path = folder / f"part_0_{part + 1:04d}.csv"
        path.write_text((_BOM if bom else "") + _table(names, rows[part::parts]), encoding="utf-8", newline="")
        paths.append(path)
    return paths


def bill(resources: Iterable[Resource], *, schema: Schema, unit: Unit = "1K") -> str:
    """Return the bill as one file of :func:`write_export`, without the lines of others."""
    return _BOM + _table(_COLUMNS[schema], [_row(item, schema, tagged=True) for item in items(resources, unit=unit)])


def meter_name(charge: Charge, unit: str) -> str:
    """Return a meter's name: ``gpt 4o 1120 cached Inp glbl Tokens``, ``gpt-4o-mini-0718-Outp-regnl Tokens``."""
    version = re.fullmatch(r"(.+)-20\d\d-(\d\d)-(\d\d)", charge.model)
    name = f"{version[1]}-{version[2]}{version[3]}" if version else charge.model
    kind = _WORDS.get(charge.kind) or [*charge.kind.split("_"), "Calls"]
    words = [*name.split("-"), *kind, *_TIERS.get(charge.tier, ())]
    scope = {"global": "glbl", "datazone": "DZone", "regional": "regnl"}[charge.scope]
    what = ["Tokens"] if charge.kind in TOKEN_KINDS else []
    if charge.scope == "regional" and what:
        return "-".join([*words, scope]) + " Tokens"
    return " ".join([*words, scope, *(["1M"] if unit == "1M" else []), *what])


_WORDS: Mapping[str, Sequence[str]] = {
    "prompt": ["Inp"],
    "cached": ["cached", "Inp"],
    "audio_prompt": ["Aud", "Inp"],
    "image_prompt": ["Img", "Inp"],
    "completion": ["Outp"],
    "audio_completion": ["Aud", "Outp"],
    "image_completion": ["Img", "Outp"],
    "images": ["Images"],
    "audio_seconds": ["Hours"],
    "characters": ["Characters"],
}
_TIERS = {"priority": ["PP"], "flex": ["Flex"], "batch": ["Batch"]}
_OTHER_UNITS = {"images": ("100", 100.0), "audio_seconds": ("1 Hour", 3600.0), "characters": ("1M", 1_000_000.0)}


def _item(charge: Charge, resource: Resource, unit: Unit) -> Item:
    name = meter_name(charge, unit)
    price = _PRICES.get(charge.kind, _OTHER_PRICE) / 1_000_000
    label: str
    if charge.kind in TOKEN_KINDS:
        label, size = unit, float(_PER_UNIT[unit])
    else:
        label, size = _OTHER_UNITS.get(charge.kind, ("1K", 1000.0))  # uses of tools by the thousand
    return Item(
        charge=charge,
        resource_id=resource_id(resource),
        meter=name,
        meter_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}/{resource.region}")),
        unit=label,
        quantity=charge.quantity / size,
        cost=charge.quantity * price,
    )


def resource_id(resource: Resource) -> str:
    """Return the path of a resource in Azure's resource manager."""
    return (
        f"/subscriptions/{_SUBSCRIPTION}/resourceGroups/{_GROUP}"
        f"/providers/Microsoft.CognitiveServices/accounts/{resource.name}"
    )


def _row(item: Item, schema: Schema, *, tagged: bool) -> dict[str, str]:
    tags = {"deployment": item.charge.deployment} if tagged else {}
    begin = datetime.combine(item.charge.day, time())
    values = {
        "day": begin.strftime("%Y-%m-%dT%H:%M:%SZ") if schema == "focus" else begin.strftime("%m/%d/%Y"),
        "end": (begin + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "meter": item.meter,
        "meter_id": item.meter_id,
        "category": "Foundry Models",
        "subcategory": "Azure OpenAI",
        "quantity": _number(item.quantity),
        "unit": item.unit,
        "cost": _number(item.cost),
        "currency": "USD",
        "resource": item.resource_id,
        "group": _GROUP,
        "place": item.charge.region.lower().replace(" ", ""),
        # The case of this name differs from export to export.
        "service": "microsoft.cognitiveservices" if schema == "ea_actual" else "Microsoft.CognitiveServices",
        "service_name": "Azure OpenAI Service",
        "tags": _tags(tags, schema),
        "subscription": _SUBSCRIPTION,
        "empty": "",
    }
    return {column: values[value] for column, value in _COLUMNS[schema].items()}


def _tags(tags: Mapping[str, str], schema: Schema) -> str:
    text = json.dumps(tags)
    return text[1:-1] if schema in ("ea_actual", "ea_2024") else text if tags else ""


def _others(found: Sequence[Item], schema: Schema) -> list[tuple[Item, dict[str, str]]]:
    """Return a virtual machine's line, and one of a model's meter with words that nobody knows."""
    if not found:
        return []
    machine = found[0]._replace(
        resource_id=f"/subscriptions/{_SUBSCRIPTION}/resourceGroups/{_GROUP}/providers/Microsoft.Compute/vm/one",
        meter="D2as v5",
        meter_id=str(uuid.uuid5(uuid.NAMESPACE_URL, "D2as v5")),
        unit="1 Hour",
        quantity=24.0,
        cost=1.944,
    )
    compute = {"ConsumedService": "Microsoft.Compute", "consumedService": "Microsoft.Compute"}
    compute |= {"ServiceName": "Virtual Machines", "MeterCategory": "Virtual Machines"}
    compute |= {"meterCategory": "Virtual Machines", "x_SkuMeterCategory": "Virtual Machines"}
    unknown = found[0]._replace(
        meter="quasar 9 Zt glbl Widgets",
        meter_id=str(uuid.uuid5(uuid.NAMESPACE_URL, "quasar 9")),
        unit="10K",
        quantity=0.0004,
        cost=0.00004,
    )
    columns = _COLUMNS[schema]
    return [(machine, {name: value for name, value in compute.items() if name in columns}), (unknown, {})]


def _number(value: float) -> str:
    """Write a number without an exponent, as exports do, and without losing a token."""
    return f"{value:.12f}".rstrip("0").rstrip(".") or "0"


def _table(columns: Iterable[str], rows: Iterable[Mapping[str, str]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(columns))
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


_EA_2024 = {
    "InvoiceSectionName": "empty",
    "SubscriptionId": "subscription",
    "ResourceGroup": "group",
    "ResourceLocation": "place",
    "Date": "day",
    "MeterCategory": "category",
    "MeterSubCategory": "subcategory",
    "MeterId": "meter_id",
    "MeterName": "meter",
    "UnitOfMeasure": "unit",
    "Quantity": "quantity",
    "CostInBillingCurrency": "cost",
    "CostCenter": "empty",
    "ConsumedService": "service",
    "ResourceId": "resource",
    "Tags": "tags",
    "AdditionalInfo": "empty",
    "BillingCurrency": "currency",
}
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "ea_actual": {("Cost" if name == "CostInBillingCurrency" else name): value for name, value in _EA_2024.items()},
    "ea_2024": _EA_2024,
    "mca": {
        (name if name in ("ResourceId", "SubscriptionId") else name[0].lower() + name[1:]): value
        for name, value in _EA_2024.items()
    },
    "focus": {
        "BilledCost": "cost",
        "BillingCurrency": "currency",
        "ChargePeriodStart": "day",
        "ChargePeriodEnd": "end",
        "EffectiveCost": "cost",
        "PricingQuantity": "quantity",
        "PricingUnit": "unit",
        "RegionId": "place",
        "ResourceId": "resource",
        "ServiceName": "service_name",
        "SubAccountId": "subscription",
        "Tags": "tags",
        "x_SkuMeterCategory": "category",
        "x_SkuMeterId": "meter_id",
        "x_SkuMeterName": "meter",
        "x_SkuMeterSubcategory": "subcategory",
    },
}
"""The names of the columns, and what they contain."""

METRICS: Mapping[str, Callable[[Metered], float]] = {
    "AzureOpenAIRequests": lambda metered: metered.times,
    "ProcessedPromptTokens": lambda metered: metered.usage.prompt_tokens,
    "GeneratedTokens": lambda metered: metered.usage.completion_tokens,
    "TokenTransaction": lambda metered: metered.usage.total_tokens,
}
"""Azure Monitor's metrics of a resource (its reference, 2026-07-31)."""


def write_metrics(folder: Path, resource: Resource, *, form: Literal["json", "csv"] = "json") -> list[Path]:
    """Write Azure Monitor's metrics of one resource, one file for each metric, and return the files.

    Sums of one day are written as those of its first hour.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in METRICS:
        path = folder / f"{name}.{form}"
        path.write_text(metrics(resource, name) if form == "json" else _metrics_table(resource, name), newline="")
        paths.append(path)
    return paths


def metrics(resource: Resource, name: str) -> str:
    """Return one metric as Azure Monitor's API answers it ("Metrics - List", 2024-02-01)."""
    series: dict[tuple[tuple[str, str], ...], list[dict[str, Any]]] = {}
    for metered in resource.meter.requests:
        stamp = datetime.combine(metered.of.day, time()).strftime("%Y-%m-%dT%H:%M:%SZ")
        points = series.setdefault(tuple(_dimensions(metered).items()), [])
        points.append({"timeStamp": stamp, "total": METRICS[name](metered)})
    path = f"{resource_id(resource)}/providers/Microsoft.Insights/metrics/{name}"
    value = {
        "id": path,
        "type": "Microsoft.Insights/metrics",
        "name": {"value": name, "localizedValue": name},
        "unit": "Count",
        "timeseries": [
            {
                "metadatavalues": [
                    {"name": {"value": dimension, "localizedValue": dimension}, "value": of} for dimension, of in key
                ],
                "data": points,
            }
            for key, points in series.items()
        ],
        "errorCode": "Success",
    }
    answer = {
        "cost": 0,
        "interval": "PT1H",
        "value": [value],
        "namespace": "Microsoft.CognitiveServices/accounts",
        "resourceregion": resource.region.lower().replace(" ", ""),
    }
    return json.dumps(answer, indent=2)


def _metrics_table(resource: Resource, name: str) -> str:
    rows = [
        {
            "TimeStamp": datetime.combine(metered.of.day, time()).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **_dimensions(metered),
            name: _number(METRICS[name](metered)),
        }
        for metered in resource.meter.requests
    ]
    return _table(["TimeStamp", *_DIMENSIONS, name], rows)


_DIMENSIONS: Mapping[str, Callable[[Metered], str]] = {
    "ModelDeploymentName": lambda metered: metered.of.deployment,
    "ModelName": lambda metered: re.sub(r"-20\d\d-\d\d-\d\d$", "", metered.of.model),
    "StatusCode": lambda metered: str(metered.of.status),
    "StreamType": lambda metered: "Streaming" if metered.of.stream else "Non-Streaming",
    "IsSpillover": lambda metered: str(metered.of.spilled),
    "ServiceTierRequest": lambda metered: metered.of.tier_asked,
    "ServiceTierResponse": lambda metered: metered.of.tier,
}


def _dimensions(metered: Metered) -> dict[str, str]:
    return {name: read(metered) for name, read in _DIMENSIONS.items()}

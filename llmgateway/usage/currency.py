"""The second currency of reports: its rates by month, which an admin takes from accounting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

CURRENCY = "currency"
"""Name of the document (:attr:`~llmgateway.records.Organisation.documents`) that has the currency."""

DOLLAR = "USD"
"""Prices are in US dollars, so costs are, too."""

MONTH = re.compile(r"(?!0000)\d{4}-(?:0[1-9]|1[0-2])", re.ASCII)
"""A month as reports write it."""

# ISO 4217, "minor unit": where it is not 2 (list one of 2025).
_WITHOUT_CENTS = frozenset(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split()  # noqa: SIM905
)
_THOUSANDTHS = frozenset("BHD IQD JOD KWD LYD OMR TND".split())  # noqa: SIM905


def decimal_places(code: str) -> int:
    """Return how many decimal places amounts in a currency have."""
    return 0 if code in _WITHOUT_CENTS else 3 if code in _THOUSANDTHS else 2


@dataclass(frozen=True, slots=True)
class Currency:
    """A currency, and how much of it a US dollar is in each month. A month without a rate is not guessed."""

    code: str
    """As in ISO 4217, such as ``EUR``."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """By month, like ``2026-10``, of the days that a report adds up."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Currency | None:
        """Read the document :data:`CURRENCY`; None if no currency is set."""
        return cls(document["code"], document.get("rates") or {}) if document.get("code") else None

    def as_document(self) -> dict[str, Any]:
        """Return what :meth:`from_document` reads."""
        return {"code": self.code, "rates": dict(sorted(self.rates.items()))}

    @property
    def places(self) -> int:
        return decimal_places(self.code)

    def rate(self, month: str) -> Decimal | None:
        """Return how much of this currency a US dollar is; None if it is not known for *month*."""
        rate = self.rates.get(month)
        return None if rate is None else Decimal(str(rate))

"""Numbers and days as people write them, in the notation of the country that the file comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time

from .table import Cell


class Ambiguous(ValueError):
    """A cell can mean two things, or nothing that is understood; the text says what to write instead."""


def text_of(cell: Cell) -> str:
    """Return *cell* as text, as a text file would have it."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, datetime):
        return (cell.date() if cell.time() == time() else cell).isoformat()
    return str(cell).strip()


_BLANKS_WITHIN = "\u0020\u00a0\u202f\u2009'\u2019"
"""What divides thousands besides comma and point: blanks in French and Finnish, the apostrophe in Switzerland."""
_NUMBER = re.compile(r"([+-]?)(\d[\d.,]*)", re.ASCII)
_BLANK_THOUSANDS = re.compile(rf"(?<=\d)[{_BLANKS_WITHIN}](?=\d{{3}}(?!\d))")


@dataclass(frozen=True, slots=True)
class Numbers:
    """Reads numbers in the notation of one file.

    Args:
        decimal: The decimal sign, ``.`` or ``,``; None if it is not known.
        is_certain: Whether the file or the person has said so. Otherwise the sign was guessed from what separates the
            cells, and the other sign is not taken for one between thousands.
    """

    decimal: str | None
    is_certain: bool

    @classmethod
    def of_file(cls, cells: Iterable[Cell], *, separator: str | None, told: str | None) -> Numbers:
        """Find out the notation: from what the person has *told*, from other numbers, or from the *separator*."""
        if told is not None:
            return cls(told, True)
        signs = {sign for cell in cells if isinstance(cell, str) and (sign := _decimal_sign(cell))}
        if len(signs) == 1:
            return cls(signs.pop(), True)
        # Excel writes semicolons where the comma is the decimal sign. A tab or a workbook says nothing.
        return cls({";": ",", ",": "."}.get(separator or ""), False)

    def read(self, cell: Cell) -> str:
        """Return *cell* as a number in the notation of JSON, or as it is if it is no number.

        Raises:
            Ambiguous: it can be two numbers.
        """
        if not isinstance(cell, str):
            return text_of(cell)
        plain = _BLANK_THOUSANDS.sub("", cell.strip())
        match = _NUMBER.fullmatch(plain)
        if match is None:
            return cell.strip()
        sign, digits = match.groups()
        decimal = _decimal_sign(plain) or self._decimal_of(digits, cell.strip())
        thousands = "" if decimal is None else ".,".replace(decimal, "")
        whole, _, part = digits.partition(decimal) if decimal else (digits, "", "")
        groups = whole.split(thousands) if thousands else [whole]
        if "," in part or "." in part or not _are_thousands(groups):
            return cell.strip()
        return f"{'-' if sign == '-' else ''}{''.join(groups)}{f'.{part}' if part else ''}"

    def _decimal_of(self, digits: str, shown: str) -> str | None:
        """Return the decimal sign of digits that do not show it themselves, such as 1.234, which can be two numbers."""
        found = {sign for sign in ".," if sign in digits}
        if not found:
            return None
        (sign,) = found  # with both of them it would be clear
        if digits.count(sign) > 1:
            return "," if sign == "." else "."
        if self.decimal == sign or (self.decimal is not None and self.is_certain):
            return self.decimal
        whole, _, part = digits.partition(sign)
        raise Ambiguous(
            f"{shown} can be {whole}{part} or {whole}.{part}. Write {whole}{part} without a sign in it, or "
            f"{whole}{sign}{part[:2]} with two decimals, or say which sign is the decimal one: decimal=comma or "
            "decimal=point."
        )


def _decimal_sign(text: str) -> str | None:
    """Return the decimal sign if *text* is a number that shows it; None otherwise."""
    match = _NUMBER.fullmatch(_BLANK_THOUSANDS.sub("", text.strip()))
    if match is None:
        return None
    digits = match[2]
    last = max(digits.rfind("."), digits.rfind(","))
    if last < 0:
        return None
    sign = digits[last]
    other = "," if sign == "." else "."
    if other in digits:
        return sign if digits.count(sign) == 1 else None
    if digits.count(sign) > 1:
        return other if _are_thousands(digits.split(sign)) else None
    whole, part = digits[:last], digits[last + 1 :]
    return None if len(part) == 3 and re.fullmatch(r"[1-9]\d{0,2}", whole) else sign


def _are_thousands(groups: list[str]) -> bool:
    return len(groups) == 1 or (0 < len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:]))


_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_DAY_LAST = re.compile(r"(\d{1,2})([./-])\s?(\d{1,2})\2\s?(\d{4})")
_SHORT_YEAR = re.compile(r"\d{1,2}[./-]\s?\d{1,2}[./-]\s?\d{2}")
_SERIAL = re.compile(r"\d{5}")
_TIME_BEHIND = re.compile(r".*\d[T ]\d{1,2}:\d\d.*")
_ZONE_BEHIND = re.compile(r".*\d{1,2}:\d\d(:\d\d(\.\d+)?)?\s?(Z|[+-]\d\d:?\d\d)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dates:
    """Reads days in the notation of one file.

    Args:
        order: ``dmy`` or ``mdy`` for days with slashes or hyphens; None if it is not known.
    """

    order: str | None

    @classmethod
    def of_file(cls, cells: Iterable[Cell], *, told: str | None) -> Dates:
        """Find out the order: from what the person has *told*, or from other days, such as 3/31/2027."""
        if told is not None:
            return cls(told)
        orders = {order for cell in cells if isinstance(cell, str) and (order := _order(cell))}
        return cls(orders.pop() if len(orders) == 1 else None)

    def read(self, cell: Cell) -> str:
        """Return a day like 2027-03-31, or *cell* as it is if it is a time with its zone, or nothing that is known.

        Raises:
            Ambiguous: the text says what to write instead.
        """
        text = text_of(cell)
        if isinstance(cell, (int, float)) or _SERIAL.fullmatch(text):
            raise Ambiguous(
                f"{text} is how Excel stores a day. Format the column as a date, or write the day like 2027-03-31."
            )
        if _TIME_BEHIND.fullmatch(text):
            if _ZONE_BEHIND.fullmatch(text):
                return text
            raise Ambiguous(
                "Has a time without a zone. Write the day alone, like 2027-03-31, or a time like 2027-03-31T22:00:00Z."
            )
        if match := _ISO.fullmatch(text):
            return _day(text, int(match[1]), int(match[2]), int(match[3]))
        if match := _DAY_LAST.fullmatch(text):
            return self._in_order(text, match[2], int(match[1]), int(match[3]), int(match[4]))
        if _SHORT_YEAR.fullmatch(text):
            raise Ambiguous(f"{text} has a year of two digits. Write all four, like 2027-03-31.")
        return text

    def _in_order(self, text: str, sign: str, first: int, second: int, year: int) -> str:
        # Nobody writes the month first with points.
        shown = "dmy" if sign == "." else _order(text)
        if shown is not None and self.order not in (None, shown) and sign != ".":
            raise Ambiguous(f"{text} has no month where the other days have theirs. Write it like 2027-03-31.")
        order = shown or self.order
        if order is None and first != second and max(first, second) <= 12:
            raise Ambiguous(
                f"{text} can be {year}-{second:02}-{first:02} or {year}-{first:02}-{second:02}. Write it like that, or "
                "say what comes first: dates=dmy for the day, dates=mdy for the month."
            )
        day, month = (second, first) if order == "mdy" else (first, second)
        return _day(text, year, month, day)


def _order(text: str) -> str | None:
    """Return the order of a day with slashes or hyphens if it shows it; None otherwise."""
    match = _DAY_LAST.fullmatch(text.strip())
    if match is None or match[2] == ".":
        return None
    first, second = int(match[1]), int(match[3])
    if first > 12 >= second > 0:
        return "dmy"
    return "mdy" if second > 12 >= first > 0 else None


def _day(text: str, year: int, month: int, day: int) -> str:
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        raise Ambiguous(f"{text} is no day of the calendar. Write a day like 2027-03-31.") from None


_TRUE = frozenset(["true", "yes", "y", "1", "x", "ja", "wahr", "oui", "vrai", "kyllä", "tosi"])
_FALSE = frozenset(["false", "no", "n", "0", "nein", "falsch", "non", "faux", "ei", "epätosi"])


def truth_of(cell: Cell) -> str:
    """Return ``true`` or ``false`` for what spreadsheets and people write in English, German, French and Finnish."""
    word = text_of(cell).casefold()
    return "true" if word in _TRUE else "false" if word in _FALSE else text_of(cell)


_WORDS = {
    "usd": ["usd", "us-dollar", "dollar", "dollars", "$", "us$", "dollaria", "dollari"],
    "tokens": ["tokens", "token", "jetons"],
    "requests": ["requests", "request", "anfragen", "anfrage", "requêtes", "requête", "pyynnöt", "pyyntöä"],
    "day": ["day", "daily", "tag", "täglich", "jour", "quotidien", "päivä"],
    "week": ["week", "weekly", "woche", "wöchentlich", "semaine", "viikko"],
    "month": ["month", "monthly", "monat", "monatlich", "mois", "mensuel", "kuukausi"],
    "total": ["total", "gesamt", "insgesamt", "yhteensä"],
}
_MEANINGS = {word: meaning for meaning, words in _WORDS.items() for word in words}


def word_of(cell: Cell) -> str:
    """Return the unit or the period of a budget that *cell* names in one of the languages, or *cell* as it is."""
    text = text_of(cell)
    return _MEANINGS.get(text.casefold(), text)

"""Creates a value for a JSON schema, as a possible answer of a model.

Names and numbers of the user's text stand where the schema wants any text or number, so that a demonstration that asks
for the weather in Paris gets a call with ``{"city": "Paris"}``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .patterns import matching

_FORMATS: Mapping[str, str] = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "idn-email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uri-reference": "/",
    "uuid": "00000000-0000-4000-8000-000000000001",
    "binary": "dGV4dA==",
}
_MOST, _LONGEST = 1000, 100_000
"""Items of a list, and characters of a text, whatever a schema wants."""

_DECODER = json.JSONDecoder()
_NAME = re.compile(r"(?<![\w.])[A-Z][\w-]+")
_NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w.]*\w)")
_NO_NAMES = frozenset(
    re.findall(
        r"\w+",
        "A An And Are Can Could Create Do Does Extract Find For Get Give Hello Hi How If In Is It JSON List Make "
        "Please Return Say Show Tell That The This Use What When Where Which Who Why Write You",
    )
)
"""Words that begin a sentence more often than they name something."""


class _Endless(Exception):
    """A schema that contains itself, and has to be left away here."""


def sample(schema: Any, said: str = "") -> Any:
    """Create a value that is valid for *schema*; always the same one for the same schema and text.

    Knows types, properties, items, enum, const, anyOf/oneOf/allOf, references within the document, and the bounds of
    texts, numbers and lists; an unknown schema gets an empty object. A schema that contains itself ends as early as it
    permits.
    """
    root = schema if isinstance(schema, Mapping) else {}
    try:
        return _Maker(root, said).make(root)
    except (_Endless, TypeError, ValueError, AttributeError, KeyError, OverflowError):
        return {}  # the last ones if it is no schema: bounds that are texts, properties that are a list


def sample_json(schema: Any, said: str | None) -> str:
    """Return :func:`sample` as a text of JSON."""
    return json.dumps(sample(schema, said or ""), separators=(",", ":"))


def schema_in(text: str) -> Mapping[str, Any] | None:
    """Return the first JSON schema of an object in a text; programs that know no other way put it into the prompt."""
    start = text.find("{")
    while start >= 0:
        try:
            found, end = _DECODER.raw_decode(text, start)
        except ValueError:
            end = start + 1
        else:
            if isinstance(found.get("properties"), Mapping):
                return dict(found)
        start = text.find("{", end)
    return None


class _Maker:
    """Makes the value of one document."""

    def __init__(self, root: Mapping[str, Any], said: str) -> None:
        self._root = root
        names = [name for name in _NAME.findall(said) if name not in _NO_NAMES]
        self._names = iter(names)
        self._numbers = iter(_NUMBER.findall(said))
        self._path: list[str] = []  # of references
        self._rank = 0  # of an item in a list without equal ones

    def make(self, schema: Any) -> Any:
        if not isinstance(schema, Mapping):  # True and False are schemas, too
            return "text"
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][self._rank % len(schema["enum"])]
        if "$ref" in schema:
            return self._referred(schema)
        if schema.get("allOf"):
            return self.make(self._merged(schema, "allOf"))
        for name in ("anyOf", "oneOf"):
            if schema.get(name):
                return self._first([{**_without(schema, name), **option} for option in _mappings(schema[name])])
        for name in ("examples", "default"):
            value = schema.get(name)
            if name == "examples" and isinstance(value, list) and value:
                return value[self._rank % len(value)]
            if name == "default" and value is not None:
                return value
        return self._plain(schema)

    def _plain(self, schema: Mapping[str, Any]) -> Any:
        kind = schema.get("type", "array" if "items" in schema else "object")
        if isinstance(kind, list):
            return self._first([{**schema, "type": one} for one in kind])
        makers: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda _: True,
        }
        return makers[kind](schema) if kind in makers else None

    def _referred(self, schema: Mapping[str, Any]) -> Any:
        reference = str(schema["$ref"])
        if reference in self._path:
            raise _Endless
        self._path.append(reference)
        try:
            return self.make({**_without(schema, "$ref"), **self._resolved(reference)})
        finally:
            self._path.pop()

    def _resolved(self, reference: str) -> Mapping[str, Any]:
        place: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                step = step.replace("~1", "/").replace("~0", "~")
                place = place.get(step, {}) if isinstance(place, Mapping) else {}
        return place if isinstance(place, Mapping) else {}

    def _merged(self, schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        merged: dict[str, Any] = {}
        for part in [_without(schema, name), *_mappings(schema[name])]:
            if "$ref" in part:
                part = {**_without(part, "$ref"), **self._resolved(str(part["$ref"]))}
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", []), *part.get("required", [])]
            merged |= part
            merged |= {"properties": properties} if properties else {}
            merged |= {"required": required} if required else {}
        return merged

    def _first(self, options: Sequence[Mapping[str, Any]]) -> Any:
        """Return a value for the first option that has an end."""
        for option in options:
            try:
                return self.make(option)
            except _Endless:
                continue
        raise _Endless

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        made: dict[str, Any] = {}
        for name, part in properties.items():
            try:
                made[name] = self.make(part)
            except _Endless:
                if name in required:
                    raise
        others = schema.get("additionalProperties", True)
        for name in required:
            if name not in made:
                made[name] = self.make(others)
        if not properties and isinstance(others, Mapping) and others:
            made["text"] = self.make(others)
        return made

    def _array(self, schema: Mapping[str, Any]) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        first = [self.make(part) for part in schema.get("prefixItems", [])]
        items = schema.get("items", {"type": "string"})
        wanted = 0 if items is False or (first and not least) else int(min(max(least - len(first), 1), most, _MOST))
        before, said, made = self._rank, self._numbers, list(first)
        if schema.get("uniqueItems"):
            self._numbers = iter(())  # one of them could be said twice
        try:
            for rank in range(wanted):
                self._rank = rank if schema.get("uniqueItems") or "enum" in items else before
                made.append(self.make(items))
        except _Endless:
            if len(made) < least:
                raise
        finally:
            self._rank, self._numbers = before, said
        return made

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        if (known := _FORMATS.get(str(schema.get("format")))) is not None:
            return known
        if "pattern" in schema:
            text = matching(str(schema["pattern"]), least=min(least, _LONGEST))
            return "text" if text is None else text
        text = next(self._names, "text") + (f" {self._rank + 1}" if self._rank else "")
        text += "." * (min(least, _LONGEST) - len(text))
        return text if most is None else text[: int(most)]

    def _integer(self, schema: Mapping[str, Any]) -> int:
        return int(self._fit(schema, step=schema.get("multipleOf", 1), usual=1))

    def _number(self, schema: Mapping[str, Any]) -> float:
        # Whole, as programs expect of most numbers: Codex calls its time-outs a number, and reads integers.
        return self._fit(schema, step=schema.get("multipleOf"), usual=1)

    def _fit(self, schema: Mapping[str, Any], *, step: float | None, usual: float) -> float:
        """Return a number within the bounds: one that was said, or the usual one, or the least or the most."""
        for number in self._candidates(schema, step, usual):
            if _within(schema, number, step):
                return number
        return usual

    def _candidates(self, schema: Mapping[str, Any], step: float | None, usual: float) -> Iterator[float]:
        if said := next(self._numbers, None):
            yield float(said) if "." in said else int(said)
        size = step or 1
        yield usual + self._rank * size
        least = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
        most = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
        if least > -math.inf:
            start = math.ceil(least / size) * size + self._rank * size
            yield from (start, start + size, least, least + size / 2)
        if most < math.inf:
            start = math.floor(most / size) * size - self._rank * size
            yield from (start, start - size, most, most - size / 2)
        if -math.inf < least and most < math.inf:
            yield (least + most) / 2
        yield size * (1 + self._rank)


def _within(schema: Mapping[str, Any], number: float, step: float | None) -> bool:
    return (
        schema.get("minimum", -math.inf) <= number <= schema.get("maximum", math.inf)
        and schema.get("exclusiveMinimum", -math.inf) < number < schema.get("exclusiveMaximum", math.inf)
        and (not step or math.isclose(number / step, round(number / step), abs_tol=1e-9))
    )


def _without(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}


def _mappings(schemas: Any) -> list[Mapping[str, Any]]:
    return [schema for schema in schemas if isinstance(schema, Mapping)]

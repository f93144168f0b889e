"""Creates a value for a JSON schema, as a possible answer of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DEPTH = 8
"""Maximum depth for schemas that refer to themselves."""

_PLAIN: Mapping[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "null": None}


def sample(schema: Any) -> Any:
    """Create a value that is valid for *schema*; always the same one for the same schema.

    Knows types, properties, items, enum, const, anyOf/oneOf/allOf and references within the
    document; an unknown schema gets an empty object.
    """
    root = schema if isinstance(schema, Mapping) else {}
    return _sample(root, root, _DEPTH)


def _sample(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or not depth:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema:
        return _sample(_referred(str(schema["$ref"]), root), root, depth - 1)
    for combination in ("anyOf", "oneOf", "allOf"):
        if schema.get(combination):
            return _sample(schema[combination][0], root, depth - 1)
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        kind = kind[0] if kind else "object"
    if kind == "array":
        return [_sample(schema.get("items", {"type": "string"}), root, depth - 1)]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _sample(part, root, depth - 1) for name, part in properties.items()}
    return _PLAIN.get(kind)


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    place: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            place = place.get(step, {}) if isinstance(place, Mapping) else {}
    return place

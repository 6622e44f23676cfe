"""JSON Schemas as the grammar needs them: everything in them is enforced, or the feature that cannot be is named.

A keyword that llguidance does not know it would ignore in silence, so only those listed here are let through. What a
schema leaves open is bounded, so that a reply ends: lengths of texts and lists. Objects take no other properties than
those listed, unless they say so themselves.

Source: llguidance 1.9, docs/json_schema.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from devices.errors import UsageError

TEXT_CHARACTERS, LIST_ITEMS = 400, 32  # where a schema sets no bound
ANNOTATIONS = frozenset({"description", "title", "default", "examples"})
KEYWORDS: dict[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"enum", "const", "pattern", "format", "minLength", "maxLength"}),
    "integer": frozenset({"enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "number": frozenset({"enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "boolean": frozenset({"enum", "const"}),
    "null": frozenset({"const"}),
}
_ANY_KEYWORD = frozenset().union(*KEYWORDS.values())  # one that is of other types says nothing about this one
FORMATS = frozenset({
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
})  # fmt: skip
# Plain text: no sign that could begin or end a marker of the wire format.
_PLAIN = r"^[^<>\x00-\x1f\x7f]{%d,%d}$"


def enforced(schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a schema that llguidance enforces whole.

    Args:
        schema: with `type`, one of KEYWORDS; or `anyOf`, `enum` or `const` alone; or nothing, for any value.
        where: what the schema is of, for messages.

    Raises:
        UsageError: a feature that cannot be enforced; the message names it and where it stands.
    """
    rest = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    kind = rest.pop("type", None)
    if kind is None:
        return _untyped(rest, where)
    if not isinstance(kind, str) or kind not in KEYWORDS:
        raise UsageError(f"{where}: the grammar cannot enforce the type {kind!r}", hint=f"types: {', '.join(KEYWORDS)}")
    rest = {key: value for key, value in rest.items() if key in KEYWORDS[kind] or key not in _ANY_KEYWORD}
    if unknown := sorted(rest.keys() - KEYWORDS[kind]):
        raise UsageError(f"{where}: the grammar cannot enforce {unknown[0]!r} of the type {kind}")
    if kind == "object":
        return _object(rest, where)
    if kind == "array":
        return _array(rest, where)
    if kind == "string":
        return _string(rest, where)
    return {"type": kind, **rest}


def _untyped(rest: dict[str, Any], where: str) -> dict[str, Any]:
    if set(rest) == {"anyOf"}:
        choices = [enforced(one, f"{where}, choice {number}") for number, one in enumerate(rest["anyOf"], start=1)]
        return {"anyOf": choices}
    if rest and not rest.keys() <= {"enum", "const"}:
        name = min(rest.keys() - {"enum", "const"})
        raise UsageError(f"{where}: the grammar cannot enforce {name!r} without a type")
    return rest


def _object(rest: dict[str, Any], where: str) -> dict[str, Any]:
    properties = {name: enforced(one, f"{where}.{name}") for name, one in rest.get("properties", {}).items()}
    required = list(rest.get("required", ()))
    others = rest.get("additionalProperties", "properties" not in rest)
    properties |= {name: {} for name in required if name not in properties}  # of any value
    if isinstance(others, Mapping):
        others = enforced(others, f"{where}, other properties")
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": others}


def _array(rest: dict[str, Any], where: str) -> dict[str, Any]:
    if "items" in rest and isinstance(rest["items"], Mapping):
        rest["items"] = enforced(rest["items"], f"{where}[]")
    if "prefixItems" in rest:
        rest["prefixItems"] = [enforced(one, f"{where}[{n}]") for n, one in enumerate(rest["prefixItems"])]
    least = rest.get("minItems", 0)
    return {"type": "array", "maxItems": max(LIST_ITEMS, least), **rest}


def _string(rest: dict[str, Any], where: str) -> dict[str, Any]:
    if rest.get("format", "date") not in FORMATS:
        raise UsageError(f"{where}: the grammar cannot enforce the format {rest['format']!r}")
    if not rest.keys() & {"enum", "const", "pattern", "format"}:
        least = rest.pop("minLength", 0)
        rest["pattern"] = _PLAIN % (least, rest.pop("maxLength", max(TEXT_CHARACTERS, least)))
    return {"type": "string", **rest}

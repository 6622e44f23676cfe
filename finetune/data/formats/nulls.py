"""Nulls that say nothing: Arrow (Parquet, `datasets`) gives each object the keys of all others, with null in them.

Does not guard against: nulls in the arguments of a tool that the row does not declare, which stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from finetune.data.rows import Row


def without_nulls(value: Any) -> Any:
    """Return JSON in which no object has a key with null, or with an object of nulls."""
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: (part, without_nulls(part)) for key, part in value.items() if part is not None}
    return {key: clean for key, (part, clean) in kept.items() if clean != {} or part == {}}


def without_null_arguments(row: Row) -> Row:
    """Return a row whose calls have null only where the schema of their tool allows it."""
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in row.tools}
    messages = []
    for message in row.messages:
        calls = tuple(
            replace(call, arguments=_allowed(call.arguments, schemas[call.name])) if call.name in schemas else call
            for call in message.calls
        )
        messages.append(replace(message, calls=calls))
    return replace(row, messages=tuple(messages))


def _allowed(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    properties: Mapping[str, Any] = next((one["properties"] for one in _branches(schema) if one.get("properties")), {})
    kept = {}
    for name, value in arguments.items():
        own = properties.get(name)
        if value is None and (own is None or not _allows_null(own)):
            continue
        kept[name] = _cleaned(value, own or {})
    return kept


def _cleaned(value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, dict) and any(one.get("properties") for one in _branches(schema)):
        return _allowed(value, schema)
    if isinstance(value, list):
        items: Mapping[str, Any] = next(
            (one["items"] for one in _branches(schema) if isinstance(one.get("items"), dict)), {}
        )
        return [_cleaned(item, items) for item in value]
    return value


def _branches(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a schema and those of which it is one."""
    yield schema
    yield from (one for key in ("anyOf", "oneOf") for one in schema.get(key) or [] if isinstance(one, dict))


def _allows_null(schema: Mapping[str, Any]) -> bool:
    if schema.get("nullable"):  # OpenAPI's
        return True
    if "enum" in schema:
        return None in schema["enum"]
    if some := [*(schema.get("anyOf") or []), *(schema.get("oneOf") or [])]:
        return any(isinstance(one, dict) and _allows_null(one) for one in some)
    kind = schema.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)

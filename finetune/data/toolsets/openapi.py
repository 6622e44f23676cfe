"""OpenAPI descriptions as tools: each operation with the JSON Schema of its arguments, and where it is carried out.

Source: OpenAPI 3.1, "Paths Object", "Parameter Object", "Reference Object".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devices.errors import UsageError

BODY = "application/json"
LOCAL_URL = "http://127.0.0.1:8000"  # where a description says nothing
OTHER_KEYWORDS = {"example", "xml", "nullable"}  # of OpenAPI's own, not JSON Schema's
MOST_REFERENCES, DEEPEST = 100, 8


@dataclass(frozen=True)
class Operation:
    """One operation: name, what it is for, JSON Schema of its arguments, path, verb, and which go into the query."""

    name: str
    description: str
    parameters: dict[str, Any]
    path: str
    verb: str
    query: tuple[str, ...]


def server_in(described: dict[str, Any]) -> tuple[str, str, str]:
    """Return a server's URL, the path that all its paths begin with, and what is wrong with its URL or ""."""
    servers = described.get("servers") or []
    url = str(servers[0].get("url", "")) if servers else ""
    is_whole = url.startswith(("http://", "https://"))
    base = url if is_whole else LOCAL_URL
    root = re.sub(r"^(https?://[^/]+).*$", r"\1", base)
    problem = "" if is_whole else f"the description has {f'only {url}' if url else 'no url'}"
    return root, base.removeprefix(root).rstrip("/"), problem


def operations_in(described: dict[str, Any]) -> Iterator[Operation]:
    """Yield the operations of a description. Raises UsageError: a reference leads nowhere."""
    for path, verb, operation in _operations(described):
        name = str(operation.get("operationId") or f"{verb}_{re.sub(r'[^A-Za-z0-9]+', '_', path).strip('_')}")
        words = str(operation.get("summary") or operation.get("description") or "").strip().replace("\n", " ")
        told = [_resolved(described, one) for one in operation["parameters"]]
        query = tuple(str(one["name"]) for one in told if one.get("in") == "query")
        yield Operation(name, words, _schema_of_operation(described, operation), path, verb.upper(), query)


def _operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for place, item in described["paths"].items():
        shared = item.get("parameters", [])
        for verb in ("get", "post", "put", "delete"):
            if verb in item:
                operation = item[verb]
                yield place, verb, operation | {"parameters": [*shared, *operation.get("parameters", [])]}


def _schema_of_operation(described: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in (_resolved(described, one) for one in operation["parameters"]):
        if parameter.get("in") in {"path", "query"}:
            told = {"description": parameter["description"]} if parameter.get("description") else {}
            properties[parameter["name"]] = _schema_in(described, parameter.get("schema") or {}) | told
            required += [parameter["name"]] if parameter.get("required") or parameter["in"] == "path" else []
    body = _resolved(described, operation.get("requestBody") or {})
    sent = _schema_in(described, (body.get("content") or {}).get(BODY, {}).get("schema") or {})
    properties |= sent.get("properties", {})
    required += [name for name in sent.get("required", []) if name not in required]
    return {"type": "object", "properties": properties, "required": required}


def _resolved(described: dict[str, Any], node: Any) -> dict[str, Any]:
    """Return what a reference within the description leads to. Raises UsageError if it leads nowhere."""
    seen = 0
    while isinstance(node, dict) and "$ref" in node:
        reference, seen = str(node["$ref"]), seen + 1
        node = described
        for part in reference.removeprefix("#/").split("/"):
            node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        if not isinstance(node, dict) or seen > MOST_REFERENCES:
            raise UsageError(f"the OpenAPI description has {reference}, which leads nowhere")
    return dict(node)


def _schema_in(described: dict[str, Any], schema: Any, depth: int = 0) -> dict[str, Any]:
    """Return a schema with its references in place; one that holds itself is anything from its eighth level on."""
    if depth > DEEPEST or not isinstance(schema, dict):
        return {}
    kept = {key: value for key, value in _resolved(described, schema).items() if key not in OTHER_KEYWORDS}
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = _schema_in(described, kept[key], depth + 1)
    if isinstance(kept.get("properties"), dict):
        kept["properties"] = {name: _schema_in(described, one, depth + 1) for name, one in kept["properties"].items()}
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(kept.get(key), list):
            kept[key] = [_schema_in(described, one, depth + 1) for one in kept[key]]
    return kept

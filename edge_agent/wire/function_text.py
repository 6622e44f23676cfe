"""Functions as prompts declare them: `- refund(amount: float, note: str = ""): Pays a customer back`.

Names, types, enums, items and defaults are in it; bounds, patterns and nested properties are the grammar's alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

PLACE = "{tools}"  # in a system text: where its tools are declared, if not at the end
TOOLS_HEADING = "Tools:"
PYTHON_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
PYTHON_TYPES |= {"array": "list", "object": "dict", "null": "None"}


def with_lines(text: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """Return a system text that declares tools in lines; they are in the form of OpenAI's API."""
    lines = "\n".join(f"- {_with_description(tool)}" for tool in tools)
    if PLACE in text:
        return text.replace(PLACE, lines, 1)
    return "\n".join(part for part in (text, f"{TOOLS_HEADING}\n{lines}" if tools else "") if part)


def signature(tool: Mapping[str, Any]) -> str:
    """Return a tool as `name(amount: float, note: str = "")`."""
    parameters = tool["function"]["parameters"]
    required = parameters.get("required", [])
    words = [
        f"{name}: {annotation(schema)}" + ("" if name in required else f" = {literal(schema.get('default'))}")
        for name, schema in parameters.get("properties", {}).items()
    ]
    return f"{tool['function']['name']}({', '.join(words)})"


def annotation(schema: Mapping[str, Any]) -> str:
    """Return a schema as a Python type; one that was read from a type that JSON Schema has not is `written` so."""
    if written := getattr(schema, "written", ""):
        return str(written)
    if "enum" in schema:
        return f"Literal[{', '.join(literal(value) for value in schema['enum'])}]"
    kind, items, values = schema.get("type"), schema.get("items"), schema.get("additionalProperties")
    if isinstance(kind, list):
        return " | ".join(annotation({**schema, "type": one}) for one in kind)
    if some := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(map(annotation, some))
    if kind == "array" and isinstance(items, dict):
        return f"list[{annotation(items)}]"
    if kind == "object" and isinstance(values, dict):
        return f"dict[str, {annotation(values)}]"
    return PYTHON_TYPES.get(kind, "Any") if isinstance(kind, str) else "Any"


def literal(value: Any) -> str:
    """Return a value as Python writes it, strings in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
    return str(value)


def _with_description(tool: Mapping[str, Any]) -> str:
    description = str(tool["function"].get("description", "")).replace("\n", " ")
    return signature(tool) + (f": {description}" if description else "")

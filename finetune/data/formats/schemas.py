"""Tools as JSON Schema, and as the signatures that prompts write: `refund(amount: float, note: str = "")`.

A tool is what OpenAI's API takes: `{"type": "function", "function": {"name", "description", "parameters"}}`.
Signatures hold names, types, enums, items and defaults; bounds, patterns and nested properties are not in them.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from edge_agent.wire.function_text import annotation
from finetune.data.formats.annotations import NULL, constant, parse_type, schema_of
from finetune.data.formats.errors import Unreadable
from finetune.data.formats.nulls import without_nulls

Tool = dict[str, Any]
_OPTIONAL = re.compile(r",?\s*\(?optional\)?\s*$", re.IGNORECASE)


def make_tool(name: str, parameters: dict[str, Any], description: str = "") -> Tool:
    """Return a tool; a description that says nothing is left out."""
    function = {"name": name} | ({"description": description} if description else {}) | {"parameters": parameters}
    return {"type": "function", "function": function}


def read_tools(plain: Any) -> tuple[Tool, ...]:
    """Return tools from a list of them, JSON of one, or bare functions; each needs a name.

    Raises:
        Unreadable: it is none of these.
    """
    if isinstance(plain, str):
        try:
            plain = json.loads(plain) if plain.strip() else []
        except ValueError as error:
            raise Unreadable(f"the tools are not JSON: {error}") from error
    tools = []
    for entry in plain or []:
        function = (entry.get("function") or entry) if isinstance(entry, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unreadable(f"not a tool: {json.dumps(entry)[:80]}")
        given = without_nulls(function.get("parameters") or function.get("input_schema"))  # Anthropic's name for it
        parameters = given or {"type": "object", "properties": {}}
        if not isinstance(parameters, dict):
            raise Unreadable(f"the parameters of {function['name']} are no object")
        if "properties" not in parameters and parameters.get("type") != "object":
            parameters = _of_arguments(parameters)
        tools.append(make_tool(function["name"], parameters, function.get("description") or ""))
    return tuple(tools)


def _of_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of xLAM's form: `{"amount": {"type": "float, optional", "description", "default"}}`."""
    properties, required = {}, []
    for name, plain in arguments.items():
        if not isinstance(plain, dict):
            raise Unreadable(f"the argument {name} has no type")
        written = str(plain.get("type") or "Any")
        kind = _OPTIONAL.sub("", written)
        schema = properties[name] = parse_type(kind or "Any")
        schema.update({key: plain[key] for key in ("description", "default") if key in plain})
        may_be_none = kind.startswith("Optional[") or NULL in schema.get("anyOf", [])
        if kind == written and "default" not in plain and not may_be_none:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def arguments_of(tool: Tool) -> dict[str, Any]:
    """Return a tool's arguments in xLAM's form."""
    parameters = tool["function"]["parameters"]
    return {
        name: {"type": annotation(schema) + ("" if name in parameters.get("required", []) else ", optional")}
        | {key: schema[key] for key in ("description", "default") if key in schema}
        for name, schema in parameters.get("properties", {}).items()
    }


def parse_signature(text: str) -> Tool:
    """Return the tool of a signature; what stands behind it, after a colon, is its description.

    Raises:
        Unreadable: it is no signature.
    """
    end = text.rfind(")")
    description = text[end + 1 :].lstrip(" :-—").strip()
    name, _, arguments_text = text[: end + 1].partition("(")
    try:
        (function,) = ast.parse(f"def function({arguments_text}: pass").body
    except (SyntaxError, ValueError) as error:
        raise Unreadable(f"not a signature: {text[:80]!r}") from error
    assert isinstance(function, ast.FunctionDef)
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    defaults = [None] * (len(function.args.posonlyargs + function.args.args) - len(function.args.defaults))
    given = [*defaults, *function.args.defaults, *function.args.kw_defaults]
    properties, required = {}, []
    for argument, default in zip(arguments, given, strict=True):
        schema = schema_of(argument.annotation) if argument.annotation else {}
        if default is None:
            required.append(argument.arg)
        elif (value := constant(default)) is not None:
            schema["default"] = value
        properties[argument.arg] = schema
    return make_tool(name.strip(), {"type": "object", "properties": properties, "required": required}, description)

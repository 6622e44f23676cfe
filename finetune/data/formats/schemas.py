"""Tools as JSON Schema, and as the signatures that prompts write: `refund(amount: float, note: str = "")`.

A tool is what OpenAI's API takes: `{"type": "function", "function": {"name", "description", "parameters"}}`.
Signatures hold names, types, enums, items and defaults; bounds, patterns and nested properties are not in them.
"""

from __future__ import annotations

import ast
import json
from typing import Any

from finetune.data.formats.errors import Unreadable

TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}
TYPES |= {"List": "array", "Dict": "object", "tuple": "array", "set": "array", "string": "string", "number": "number"}
TYPES |= {"integer": "integer", "boolean": "boolean", "array": "array", "object": "object"}
PYTHON_TYPES = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}
PYTHON_TYPES |= {"array": "list", "object": "dict"}
Tool = dict[str, Any]


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
        function = entry.get("function", entry) if isinstance(entry, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unreadable(f"not a tool: {json.dumps(entry)[:80]}")
        parameters = function.get("parameters") or {"type": "object", "properties": {}}
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
        kind, *rest = str(plain.get("type", "")).rsplit(", ", 1)
        schema = _of_annotation(ast.parse(kind or "Any", mode="eval").body)
        properties[name] = schema | {key: plain[key] for key in ("description", "default") if key in plain}
        if rest != ["optional"]:
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


def signature(tool: Tool) -> str:
    """Return a tool as `name(amount: float, note: str = "")`."""
    parameters = tool["function"]["parameters"]
    required = parameters.get("required", [])
    words = [
        f"{name}: {annotation(schema)}" + ("" if name in required else f" = {literal(schema.get('default'))}")
        for name, schema in parameters.get("properties", {}).items()
    ]
    return f"{tool['function']['name']}({', '.join(words)})"


def parse_signature(text: str) -> Tool:
    """Return the tool of a signature; what stands behind it, after a colon, is its description.

    Raises:
        Unreadable: it is no signature, or has a type that JSON Schema has not.
    """
    end = text.rfind(")")
    description = text[end + 1 :].lstrip(" :-—").strip()
    head = text[: end + 1]
    try:
        (function,) = ast.parse(f"def {head}: pass").body
    except (SyntaxError, ValueError) as error:
        raise Unreadable(f"not a signature: {text[:80]!r}") from error
    assert isinstance(function, ast.FunctionDef)
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    defaults = [None] * (len(function.args.posonlyargs + function.args.args) - len(function.args.defaults))
    given = [*defaults, *function.args.defaults, *function.args.kw_defaults]
    properties, required = {}, []
    for argument, default in zip(arguments, given, strict=True):
        schema = _of_annotation(argument.annotation) if argument.annotation else {}
        if default is None:
            required.append(argument.arg)
        elif (value := _constant(default)) is not None:
            schema |= {"default": value}
        properties[argument.arg] = schema
    return make_tool(function.name, {"type": "object", "properties": properties, "required": required}, description)


def annotation(schema: dict[str, Any]) -> str:
    """Return a schema as a Python type."""
    if "enum" in schema:
        return f"Literal[{', '.join(literal(value) for value in schema['enum'])}]"
    kind = schema.get("type")
    if kind == "array" and "items" in schema:
        return f"list[{annotation(schema['items'])}]"
    return PYTHON_TYPES.get(kind, "Any") if isinstance(kind, str) else "Any"


def _of_annotation(node: ast.expr) -> dict[str, Any]:
    if isinstance(node, ast.Name) and node.id in TYPES:
        return {"type": TYPES[node.id]}
    if isinstance(node, ast.Name) and node.id in {"Any", "any"}:
        return {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _of_annotation(node.left)  # `str | None`
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        outer, inner = node.value.id, node.slice
        if outer == "Optional":
            return _of_annotation(inner)
        if outer == "Literal":
            values = [_constant(item) for item in (inner.elts if isinstance(inner, ast.Tuple) else [inner])]
            kinds = {type(value) for value in values}
            kind = PYTHON_NAMES.get(kinds.pop()) if len(kinds) == 1 else None
            return ({"type": kind} if kind else {}) | {"enum": values}
        if TYPES.get(outer) == "array" and not isinstance(inner, ast.Tuple):
            return {"type": "array", "items": _of_annotation(inner)}
        if outer in TYPES:
            return {"type": TYPES[outer]}
    raise Unreadable(f"the type {ast.unparse(node)} is unknown")


PYTHON_NAMES: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _constant(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise Unreadable(f"{ast.unparse(node)} is no constant") from error


def literal(value: Any) -> str:
    """Return a value as Python writes it, strings in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{literal(key)}: {literal(item)}' for key, item in value.items())}}}"
    return str(value)

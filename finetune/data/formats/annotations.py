"""Python's types as JSON Schema, and back: `list[int]`, `str | None`, `Literal["short", "long"]`.

Some types JSON Schema has not, such as np.ndarray, Callable, Tuple, Set, or classes: of these a `Loose` schema says
what can be said, and keeps how the type was written.
"""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

from edge_agent.wire.function_text import annotation
from finetune.data.formats.errors import Unreadable

Schema = dict[str, Any]
TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object"}
TYPES |= {"List": "array", "Dict": "object", "string": "string", "number": "number"}
TYPES |= {"integer": "integer", "boolean": "boolean", "array": "array", "object": "object", "None": "null"}
LOOSE_ARRAYS = {"tuple", "Tuple", "set", "Set", "frozenset", "Sequence", "Iterable", "ndarray"}
JSON_TYPES: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
NULL = {"type": "null"}


class Loose(dict[str, Any]):
    """A schema that says less than the type that it stands for; `written` is that type: np.ndarray."""

    def __init__(self, schema: Schema, written: str) -> None:
        super().__init__(schema)
        self.written = written


def loose_types(schemas: Any) -> Counter[str]:
    """Return how often which types stand in tools or schemas that JSON Schema has not."""
    parts = schemas.values() if isinstance(schemas, dict) else schemas if isinstance(schemas, list | tuple) else ()
    found = Counter([schemas.written] if isinstance(schemas, Loose) else [])
    for part in parts:
        found.update(loose_types(part))
    return found


def parse_type(text: str) -> Schema:
    """Return the schema of a type; of text that is none, a loose one that allows everything."""
    try:
        return schema_of(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return Loose({}, text)


def schema_of(node: ast.expr) -> Schema:
    """Return the schema of an annotation. Raises Unreadable if a Literal's value is no constant."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _any_of([schema_of(node.left), schema_of(node.right)])
    outer, inner = (node.value, node.slice) if isinstance(node, ast.Subscript) else (node, None)
    name = ast.unparse(outer).rpartition(".")[2]
    parts = [] if inner is None else inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name in {"Any", "any"}:
        return {}
    if name in {"Union", "Optional"} and parts:
        return _any_of([*map(schema_of, parts), *([NULL] if name == "Optional" else [])])
    if name == "Literal":
        return _of_literal([constant(part) for part in parts])
    if name in TYPES:
        return {"type": TYPES[name]} | _of_parts(TYPES[name], parts)
    written = ast.unparse(node)
    return Loose({"type": "array"} | _of_parts("array", parts) if name in LOOSE_ARRAYS else {}, written)


def _of_parts(kind: str, parts: list[ast.expr]) -> Schema:
    """Return what stands in the brackets of an array or object: its items, or the values of its keys."""
    if kind == "array" and len(parts) == 1:
        return {"items": schema_of(parts[0])}
    if kind == "object" and len(parts) == 2 and (values := schema_of(parts[1])):
        return {"additionalProperties": values}
    return {}


def _of_literal(values: list[Any]) -> Schema:
    kinds = {type(value) for value in values}
    kind = JSON_TYPES.get(kinds.pop()) if len(kinds) == 1 else None
    return ({"type": kind} if kind else {}) | {"enum": values}


def _any_of(schemas: list[Schema]) -> Schema:
    """Return the schema of a union: each type once, those of unions in it too; Any is enough."""
    flat: dict[str, Schema] = {}
    for schema in schemas:
        flat |= {annotation(one): one for one in schema.get("anyOf", [schema])}
    if "Any" in flat:
        return {}
    return {"anyOf": list(flat.values())} if len(flat) > 1 else next(iter(flat.values()))


def constant(node: ast.expr) -> Any:
    """Return the value of a literal. Raises Unreadable if it is none."""
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise Unreadable(f"{ast.unparse(node)} is no constant") from error

"""First drafts of toolsets: from conversations, MCP servers, an OpenAPI description, or a Python file's functions.

What the source does not say is guessed, and every guess is marked in the file, for a person to judge.

Source: PEP 257, PEP 484.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import LiteralScalarString

from devices.drivers.mcp.client import McpClient, servers_in
from devices.errors import UsageError
from devices.site.functions import FUNCTION_NAME
from devices.yaml_file import plain_values, read_yaml
from finetune.data.formats.annotations import schema_of
from finetune.data.formats.sources import Rejected, read_source
from finetune.data.toolsets.openapi import operations_in, server_in

READING = re.compile(
    r"^(get|find|list|search|check|look|lookup|query|read|show|fetch|is|count|describe)(?![a-z])", re.I
)
LISTING_S = 30.0  # for a server to list its tools
UNKEYED = "the server knows no key of a call; if it does, key_header: Idempotency-Key instead"
GUESS = "guessed"
LINE_CHARACTERS = 110


@dataclass
class Draft:
    """What is known of a toolset: its tools by name, as the file has them, and what was guessed of each."""

    name: str
    title: str
    system: str
    executors: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    guesses: dict[str, dict[str, str]] = field(default_factory=dict)
    url_guess: str = ""
    left_out: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        tool: Mapping[str, Any],
        guesses: Mapping[str, str] | None = None,
        *,
        is_reading: bool | None = None,
    ) -> None:
        """Add a tool; what only reads is no risk, and all else needs a person's yes until one says otherwise.

        Args:
            name: of the tool; it says whether it only reads, if `is_reading` does not.
            tool: as the file has it; an empty description is left out.
            guesses: more that was guessed, by key.
            is_reading: whether it only reads.
        """
        if not re.match(FUNCTION_NAME, name):
            raise UsageError(
                f"a tool cannot be called {name!r}", hint="rename it: a letter first, 64 characters at most"
            )
        is_reading = bool(READING.match(name)) if is_reading is None else is_reading
        why = "it seems only to read" if is_reading else "it may change something: every call needs a yes"
        told = {key: value for key, value in tool.items() if key != "description" or value}
        self.tools[name] = told | {"risk": "none" if is_reading else "confirm"}
        self.guesses[name] = {"risk": why, **(guesses or {})}

    @property
    def guessed(self) -> int:
        """How many guesses there are."""
        return sum(map(len, self.guesses.values())) + bool(self.url_guess)

    def to_yaml(self) -> str:
        """Return the file, each guess with a comment."""
        tools = CommentedMap()
        for name, tool in self.tools.items():
            tools[name] = marked = CommentedMap(tool)
            for key, why in self.guesses[name].items():
                marked.yaml_add_eol_comment(f"{GUESS}: {why}", key)
        root: dict[str, Any] = {"schema": "toolset/v1", "name": self.name, "title": self.title}
        root["system"] = LiteralScalarString(f"{self.system.strip()}\n") if self.system.strip() else ""
        if self.executors:
            root["executors"] = {name: CommentedMap(one) for name, one in self.executors.items()}
            if self.url_guess:
                root["executors"]["api"].yaml_add_eol_comment(f"{GUESS}: {self.url_guess}", "url")
        writer = YAML(typ="rt", pure=True)
        writer.width, writer.allow_unicode = LINE_CHARACTERS, True
        text = io.StringIO()
        writer.dump(CommentedMap(root | {"tools": tools}), text)
        return text.getvalue()


def draft_toolset(source: str) -> Draft:
    """Return a draft made of a file: Python functions, MCP servers, an OpenAPI description, or else conversations.

    Raises:
        UsageError: it cannot be read, or there is no tool in it.
    """
    path = Path(source)
    title = re.sub(r"\W+|_", " ", path.stem).strip() or "tools"
    draft = Draft(re.sub(r"\W+", "_", title.lower()).strip("_"), title, "You are a helpful assistant. Use the tools.")
    if not draft.name[:1].isalpha():
        draft.name = f"tools_{draft.name}"
    plain = _mapping_in(path)
    if path.suffix == ".py":
        _add_functions(draft, path)
    elif path.suffix == ".json" and "mcpServers" in plain:
        _add_of_servers(draft, path)
    elif "openapi" in plain and "paths" in plain:
        _add_operations(draft, plain)
    else:
        _add_of_conversations(draft, source)
    if not draft.tools:
        raise UsageError(f"{source}: no tool is declared or called in it")
    return draft


def _add_of_conversations(draft: Draft, source: str) -> None:
    """Add what most conversations have alike: their system text and the tools that they declare with it.

    Tools that are declared beside others only are noted as left out. Where none are declared, those that are called are
    added, with a schema that their calls fit.
    """
    forms: Counter[tuple[str, str]] = Counter()
    called: dict[str, list[dict[str, Any]]] = {}
    for _, _, row in read_source(source):
        if isinstance(row, Rejected):
            continue  # `train` tells of it
        system = row.messages[0].text if row.messages[0].role == "system" else ""
        forms[system, json.dumps([tool["function"] for tool in row.tools])] += 1
        for call in (call for message in row.messages for call in message.calls):
            called.setdefault(call.name, []).append(call.arguments)
    declaring = Counter({form: count for form, count in forms.items() if form[1] != "[]"})
    for system, written in [form for form, _ in (declaring or forms).most_common(1)]:
        draft.system = system
        for function in json.loads(written):
            tool = {key: function[key] for key in ("description", "parameters") if function.get(key)}
            draft.add(function["name"], tool)
    declared = {function["name"] for _, written in declaring for function in json.loads(written)}
    draft.left_out = sorted(declared - draft.tools.keys())
    for name, given in called.items():
        if name not in declared:
            schema = {"type": "object", **_schema_of_arguments(given)}
            why = f"of {len(given)} calls, as it is nowhere declared"
            draft.add(name, {"parameters": schema}, {"parameters": why})


def _schema_of_arguments(given: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(dict.fromkeys(name for arguments in given for name in arguments))
    required = [name for name in names if all(name in arguments for arguments in given)]
    properties = {name: _schema_of_values([one[name] for one in given if name in one]) for name in names}
    return {"properties": properties, "required": required}


def _schema_of_values(values: list[Any]) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return {"type": "integer" if kinds == {int} else "number"}
    if len(kinds) > 1:
        return {}
    if kinds == {list}:
        items = [item for value in values for item in value]
        return {"type": "array", "items": _schema_of_values(items)} if items else {"type": "array"}
    if kinds == {dict}:
        return {"type": "object", **_schema_of_arguments(values)}
    return {"type": {bool: "boolean", str: "string"}[kinds.pop()]} if kinds <= {bool, str} else {}


def _add_functions(draft: Draft, path: Path) -> None:
    """Add the public functions of a Python file, which is read and not run."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(f"cannot read the functions of {path}: {error}") from error
    draft.executors["own"] = {"type": "python", "file": str(path)}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            described = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
            schema, untyped = _schema_of_function(node)
            more = {"parameters": f"{', '.join(untyped)} may be anything: no type is given"} if untyped else {}
            at = {"function": node.name}
            tool = {"description": described, "parameters": schema, "executor": "own", "at": at}
            draft.add(node.name, tool, more)


def _schema_of_function(node: ast.FunctionDef) -> tuple[dict[str, Any], list[str]]:
    """Return the schema of a function's arguments, and those without a type; `key` is the controller's own."""
    plain = [*node.args.posonlyargs, *node.args.args]
    pairs = [*zip(plain[len(plain) - len(node.args.defaults) :], node.args.defaults, strict=True),
             *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]  # fmt: skip
    defaults = {one.arg: default for one, default in pairs if default is not None}
    named = [one for one in (*plain, *node.args.kwonlyargs) if one.arg != "key"]
    properties: dict[str, Any] = {}
    for one in named:
        schema = dict(schema_of(one.annotation)) if one.annotation else {}
        value = defaults.get(one.arg)
        told = {"default": value.value} if isinstance(value, ast.Constant) and value.value is not None else {}
        properties[one.arg] = schema | told
    required = [one.arg for one in named if one.arg not in defaults]
    untyped = [one.arg for one in named if one.annotation is None]
    return {"type": "object", "properties": properties, "required": required}, untyped


def _add_of_servers(draft: Draft, path: Path) -> None:
    """Add the tools of every server of an `mcpServers` file: each is started and asked for them."""
    for name, server in servers_in(path).items():
        executor = re.sub(r"\W+", "_", name.lower())
        draft.executors[executor] = {"type": "mcp", "file": str(path), "server": name}
        client = McpClient(server, LISTING_S)
        try:
            listed = client.tools()
        finally:
            client.close()
        for one in listed:
            taken = one["name"] in draft.tools
            called = f"{executor}_{one['name']}" if taken else one["name"]
            tool = {"description": one["description"], "parameters": one["parameters"], "executor": executor}
            tool |= {"at": {"tool": one["name"]}} if taken else {}
            draft.add(called, tool, is_reading=bool(READING.match(one["name"])))


def _mapping_in(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML or JSON file holds; empty if there is none: whoever reads conversations tells."""
    root = None
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        root = plain_values(read_yaml(path, "description").root)
    elif path.suffix == ".json":
        with contextlib.suppress(OSError, ValueError):
            root = json.loads(path.read_text(encoding="utf-8"))
    return root if isinstance(root, dict) else {}


def _add_operations(draft: Draft, described: dict[str, Any]) -> None:
    """Add a tool for each operation of an OpenAPI description."""
    draft.title = _plain(str((described.get("info") or {}).get("title") or draft.title))
    url, prefix, draft.url_guess = server_in(described)
    draft.executors["api"] = {"type": "http", "url": url}
    for one in operations_in(described):
        is_reading = one.verb == "GET"
        at: dict[str, Any] = {"path": prefix + one.path, "verb": one.verb}
        if not is_reading:
            at |= ({"query": list(one.query)} if one.query else {}) | {"is_unkeyed": True}
        guesses = {} if is_reading else {"at": UNKEYED}
        tool = {"description": one.description, "parameters": one.parameters, "executor": "api", "at": at}
        draft.add(one.name, tool, guesses, is_reading=is_reading)


def _plain(text: str) -> str:
    return re.sub(r"[^\w°%µ²³/ .,:;'’()&+#*=-]", " ", text)[:60].strip()

"""A toolset's conversation under other names of tools and arguments: who reads the tools acts as well under these."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from devices.site.renaming import other_names
from devices.site.site import Site
from devices.site.tools import ToolCall
from edge_agent.wire.function_text import with_lines
from edge_agent.wire.messages import Message

Schemas = dict[str, dict[str, Any]]


def with_other_names(messages: Sequence[Message], toolset: Site, rng: Random) -> tuple[tuple[Message, ...], Schemas]:
    """Return a conversation that has the toolset's own system text, and its tools' schemas, with other names.

    Tools are renamed wherever they stand, arguments in schemas and calls: in sentences they are plain words.
    """
    names = other_names(set(toolset.functions), rng)
    arguments = other_names(
        {one for function in toolset.functions.values() for one in function.parameters.get("properties", {})}, rng
    )
    schemas = {names[name]: _renamed(function.parameters, arguments) for name, function in toolset.functions.items()}
    tools = []
    for name, function in toolset.functions.items():
        told = {"name": names[name], "parameters": schemas[names[name]]}
        told |= {"description": _text(function.description, names)} if function.description else {}
        tools.append({"type": "function", "function": told})
    system = Message("system", with_lines(_text(toolset.system.strip(), names), tools))
    return (system, *(_turn(message, names, arguments) for message in messages[1:])), schemas


def _renamed(parameters: Mapping[str, Any], arguments: Mapping[str, str]) -> dict[str, Any]:
    found = dict(parameters)
    if "properties" in found:
        found["properties"] = {arguments[name]: schema for name, schema in found["properties"].items()}
    if "required" in found:
        found["required"] = [arguments.get(name, name) for name in found["required"]]
    return found


def _turn(message: Message, names: Mapping[str, str], arguments: Mapping[str, str]) -> Message:
    if message.role != "assistant":
        return message
    calls = tuple(
        ToolCall(names[call.name], {arguments.get(key, key): value for key, value in call.arguments.items()})
        for call in message.calls
    )
    return replace(message, thought=_text(message.thought, names), calls=calls)


def _text(text: str, names: Mapping[str, str]) -> str:
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(rf"(?<!\w)({pattern})(?!\w)", lambda found: names[found[0]], text)

"""Tools made from a site: one per kind and action, with a `device` enum, so the prompt stays flat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from devices.site.action import Action
from devices.site.phrasings import SpokenAction
from devices.site.schema import DataSchema, Value
from devices.site.site import Device, Site


@dataclass(frozen=True)
class Tool:
    """A tool the model may call.

    `name` is kind_action; `devices` are the site's devices that take it; `input` holds the other arguments.
    """

    name: str
    action: str
    devices: tuple[str, ...]
    input: dict[str, DataSchema]

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the arguments, properties in the order in which they are written."""
        properties: dict[str, Any] = {"device": {"type": "string", "enum": list(self.devices)}}
        properties |= {name: schema.json_schema() for name, schema in self.input.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def openai(self) -> dict[str, Any]:
        """Return the tool in the form of OpenAI's API."""
        return {"type": "function", "function": {"name": self.name, "parameters": self.json_schema()}}


@dataclass(frozen=True)
class ToolCall:
    """A proposal of the model: nothing in it is trusted."""

    name: str
    arguments: dict[str, Value]


@dataclass(frozen=True)
class Command:
    """An action on one device, with the arguments that its input needs."""

    device: str
    action: str
    input: dict[str, Value]


def tools_of(site: Site) -> list[Tool]:
    """Return the site's tools, in the order of its devices.

    Devices of one kind whose action takes a different input get a tool of their own, named after the device.
    Forbidden actions are no tools.
    """
    groups: dict[str, tuple[Action, Tool]] = {}
    for device in site.devices.values():
        for action_name, action in device.actions.items():
            if action.risk == "forbidden":
                continue
            name = f"{device.kind}_{action_name}"
            if name in groups and groups[name][0].input != action.input:
                name = f"{name}_{device.name}"
            members = groups[name][1].devices if name in groups else ()
            groups[name] = (action, Tool(name, action_name, (*members, device.name), action.input))
    return [tool for _, tool in groups.values()]


def command_of(call: ToolCall, tools: list[Tool]) -> Command | str:
    """Return the command a call stands for, or why it stands for none."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return f"no tool is called {call.name}"
    rest = dict(call.arguments)
    device = rest.pop("device", None)
    if device not in tool.devices:
        return f"{call.name} has no device {device}"
    if problem := input_problem(tool.input, rest):
        return f"{call.name}: {problem}"
    return Command(str(device), tool.action, rest)


def call_of(command: Command, tools: Iterable[Tool]) -> ToolCall:
    """Return the tool call that stands for a command of this site."""
    for tool in tools:
        if tool.action == command.action and command.device in tool.devices:
            return ToolCall(tool.name, {"device": command.device, **command.input})
    raise KeyError(f"no tool does {command.action} on {command.device}")


def input_problem(schemas: dict[str, DataSchema], given: dict[str, Any]) -> str:
    """Return why the arguments do not fit the schemas, or "" if they fit."""
    if missing := [name for name in schemas if name not in given]:
        return f"{missing[0]} is missing"
    if unknown := [name for name in given if name not in schemas]:
        return f"{unknown[0]} is no argument"
    for name, schema in schemas.items():
        if problem := schema.problem_with(given[name]):
            return f"{name} {problem}"
    return ""


def action_of(site: Site, command: Command) -> tuple[Device, SpokenAction]:
    """Return the device and action a command names; KeyError if it names none."""
    device = site.devices[command.device]
    return device, device.actions[command.action]

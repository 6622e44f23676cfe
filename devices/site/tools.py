"""Tools made from a site: one per kind and action, with a `device` enum, so the prompt stays flat.

A function of a toolset is a tool as it stands, without a device.

A site's scenes are one more tool, which stands for the commands that make its devices so.

On a site with areas or groups a call may also name several devices at once: a list of them, or an area, floor or group
with what is excepted. It stands for one command a device, each with its own verdict and read-back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from devices.site.device import Device
from devices.site.functions import CALL, FUNCTION_KIND, Function, arguments_problem
from devices.site.phrasings import SpokenAction
from devices.site.scenes import steps_for
from devices.site.schema import DataSchema, input_problem
from devices.site.site import Site

SCENE_TOOL = "scene_turn_on"  # as Home Assistant's service


@dataclass(frozen=True)
class Tool:
    """A tool the model may call.

    Attributes:
        name: kind_action.
        action: what it does with a device.
        devices: the site's devices that take it.
        input: the other arguments.
        targets: those of its devices that are in an area, floor or group, by its name; without any, a call names one
            device.
        kind: of its devices.
        without: devices of the kind that do not take it.
        marks: properties that all of its devices have and none of those.
        scenes: the commands of each scene by its name; a tool of scenes has no devices.
        function: what it is, if it belongs to no device.
    """

    name: str
    action: str
    devices: tuple[str, ...]
    input: dict[str, DataSchema]
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kind: str = ""
    without: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    scenes: dict[str, tuple[Command, ...]] = field(default_factory=dict)
    function: Function | None = None

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the arguments, properties in the order in which they are written."""
        if self.function:
            return self.function.parameters
        if self.scenes:
            return _object_schema({"scene": {"type": "string", "enum": list(self.scenes)}})
        device = {"type": "string", "enum": list(self.devices)}
        given = {name: schema.json_schema() for name, schema in self.input.items()}
        one = _object_schema({"device": device} | given)
        if not self.targets:
            return one
        some = {"type": "array", "items": device, "minItems": 1, "maxItems": len(self.devices)}
        place = {"type": "string", "enum": list(self.targets)}
        others = ({"device": some}, {"area": place}, {"area": place, "except": some})
        return {"anyOf": [one, *(_object_schema(form | given) for form in others)]}

    def openai(self) -> dict[str, Any]:
        """Return the tool in the form of OpenAI's API."""
        if self.function:
            return self.function.openai(self.name)
        return {"type": "function", "function": {"name": self.name, "parameters": self.json_schema()}}


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@dataclass(frozen=True)
class ToolCall:
    """A proposal of the model: nothing in it is trusted."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """An action on one device, or a function (CALL), with the arguments that it needs."""

    device: str
    action: str
    input: dict[str, Any]


def tools_of(site: Site) -> list[Tool]:
    """Return the site's tools, in the order of its devices.

    Devices of one kind whose action takes the same input share a tool. One that takes another input is named after the
    first device that has it. Forbidden actions are no tools.
    """
    functions = [Tool(name, CALL, (), {}, kind=FUNCTION_KIND, function=one) for name, one in site.functions.items()
                 if one.risk != "forbidden"]  # fmt: skip
    made: dict[str, Tool] = {}
    for device in site.devices.values():
        for action_name, action in device.actions.items():
            if action.risk == "forbidden":
                continue
            tool = Tool(f"{device.kind}_{action_name}", action_name, (), action.input, kind=device.kind)
            same = (one for one in made.values() if replace(one, name=tool.name, devices=()) == tool)
            if (shared := next(same, None)) is None:
                while tool.name in made:  # of another input, or by chance: climate_set_mode is also set of a "mode"
                    tool = replace(tool, name=f"{tool.name}_{device.name}")
                shared = tool
            made[shared.name] = replace(shared, devices=(*shared.devices, device.name))
    targets = site.targets
    tools = [*functions, *(_placed(tool, site, targets) if targets else tool for tool in made.values())]
    scenes = {name: scene_commands(site, name) for name in site.scenes}
    return [*tools, Tool(SCENE_TOOL, "turn_on", (), {}, kind="scene", scenes=scenes)] if scenes else tools


def scene_commands(site: Site, name: str) -> tuple[Command, ...]:
    """Return a command for each action of each device of a scene. Raises ValueError: a device cannot be so."""
    return tuple(
        Command(device, action, arguments)
        for device, wanted in site.scenes[name].devices.items()
        for action, arguments in steps_for(site.devices[device].properties, site.devices[device].actions, wanted)
    )


def _placed(tool: Tool, site: Site, targets: Mapping[str, tuple[str, ...]]) -> Tool:
    """Return a tool with what the site's areas say of its devices; an area that has none of them is left out."""
    found = {name: tuple(one for one in tool.devices if one in members) for name, members in targets.items()}
    others = [one for one in site.devices.values() if one.kind == tool.kind and one.name not in tool.devices]
    shared = set.intersection(*(set(site.devices[name].properties) for name in tool.devices))
    marks = sorted(shared.difference(*(one.properties for one in others)))
    return replace(
        tool,
        targets={name: members for name, members in found.items() if members},
        without=tuple(one.name for one in others),
        marks=tuple(marks),
    )


def commands_of(call: ToolCall, tools: Iterable[Tool]) -> list[Command] | str:
    """Return the commands a call stands for, one a device, or what is wrong with it; none if all are excepted."""
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        return f"no tool is called {call.name}"
    if tool.function:
        problem = arguments_problem(tool.function.parameters, call.arguments)
        return f"{call.name}: {problem}" if problem else [Command(tool.name, CALL, dict(call.arguments))]
    rest: dict[str, Any] = dict(call.arguments)
    if tool.scenes:
        scene = rest.pop("scene", None)
        known = tool.scenes.get(scene) if isinstance(scene, str) and not rest else None
        return list(known) if known else f"{call.name} has no scene {scene}"
    devices = _devices_of(tool, rest)
    if isinstance(devices, str):
        return f"{call.name} {devices}"
    if problem := input_problem(tool.input, rest):
        return f"{call.name}: {problem}"
    return [Command(device, tool.action, dict(rest)) for device in devices]


def _devices_of(tool: Tool, arguments: dict[str, Any]) -> list[str] | str:
    """Take the arguments that name devices away from the others; return these devices, or why there are none."""
    given = arguments.pop("device", None)
    if tool.targets and "area" in arguments:
        area, excepted = arguments.pop("area"), arguments.pop("except", [])
        if given is not None:
            return "takes a device or an area"
        if not isinstance(area, str) or area not in tool.targets:
            return f"has no area {area}"
        if not isinstance(excepted, list) or (strange := [one for one in excepted if one not in tool.devices]):
            return f"has no device {strange[0] if isinstance(excepted, list) else excepted}"
        return [one for one in tool.targets[area] if one not in excepted]
    wanted = given if tool.targets and isinstance(given, list) else [given]
    if strange := [one for one in wanted if one not in tool.devices]:
        return f"has no device {strange[0]}"
    return list(dict.fromkeys(wanted)) or "names no device"


def call_of(command: Command, tools: Iterable[Tool]) -> ToolCall:
    """Return the tool call that stands for a command of this site."""
    tool = tool_of(command, tools)
    if tool.function:
        return ToolCall(tool.name, dict(command.input))
    return ToolCall(tool.name, {"device": command.device, **command.input})


def tool_of(command: Command, tools: Iterable[Tool]) -> Tool:
    """Return the tool that does a command; KeyError if none does."""
    for tool in tools:
        if tool.action == command.action and command.device in (tool.devices or (tool.name,)):
            return tool
    raise KeyError(f"no tool does {command.action} on {command.device}")


def action_of(site: Site, command: Command) -> tuple[Device, SpokenAction]:
    """Return the device and action a command names; KeyError if it names none."""
    if (device := site.device(command.device)) is None:
        raise KeyError(command.device)
    return device, device.actions[command.action]

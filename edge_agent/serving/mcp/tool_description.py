"""A site's tools as other models' clients are told of them: in the site's words, with a plain schema and hints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from devices.site.functions import CALL
from devices.site.site import Site
from devices.site.tools import Tool

MOST_TEXT = 4000  # characters of a request
MOST_TITLES = 12  # of devices that a description names; the schema has them all


@dataclass(frozen=True)
class ToolDescription:
    """What a client is told of a tool.

    Attributes:
        name: the tool's.
        text: what it does, and to what.
        schema: JSON Schema of the arguments, `type: object` at its root.
        is_reading: it changes nothing.
        is_harmful: an action of it is guarded or needs a yes.
    """

    name: str
    text: str
    schema: dict[str, Any]
    is_reading: bool
    is_harmful: bool


def describe_tool(site: Site, tool: Tool) -> ToolDescription:
    """Return what clients are told of a tool of the site."""
    done = [(command.device, command.action) for scene in tool.scenes.values() for command in scene]
    done += [(name, tool.action) for name in tool.devices]
    done += [(tool.name, CALL)] if tool.function else []
    actions = [site.callees[device].actions[action] for device, action in done]
    risks = {action.risk for action in actions}
    return ToolDescription(
        tool.name,
        f"{_text(site, tool)}{' The person is asked for a yes.' if 'confirm' in risks else ''}",
        _schema(tool),
        risks == {"none"} and all(action.is_call for action in actions),
        bool(risks & {"guarded", "confirm"}),
    )


def ask_tool(name: str) -> ToolDescription:
    """Return the tool that asks the box's own agent."""
    text = "Ask the box's own agent in plain words, as a person would. It acts, and answers from what it reads back."
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string", "minLength": 1, "maxLength": MOST_TEXT}},
        "required": ["text"],
        "additionalProperties": False,
    }
    return ToolDescription(name, text, schema, is_reading=False, is_harmful=True)


def stop_tool(name: str) -> ToolDescription:
    """Return the tool that stops everything."""
    text = "Stop everything at once: every safe action of every device, past the agent and whatever waits."
    schema: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    return ToolDescription(name, text, schema, is_reading=False, is_harmful=False)


def _text(site: Site, tool: Tool) -> str:
    if tool.function:
        return tool.function.description or tool.name
    if tool.scenes:
        return f"Turn on a scene: {', '.join(site.scenes[name].title for name in tool.scenes)}."
    titles = [site.devices[name].title for name in tool.devices]
    more = f" and {len(titles) - MOST_TITLES} more" if len(titles) > MOST_TITLES else ""
    text = f"{tool.kind} {tool.action}: ".replace("_", " ").capitalize()
    text += f"{', '.join(titles[:MOST_TITLES])}{more}."
    return f"{text} Name a device or several, or an area and which of it to except." if tool.targets else text


def _schema(tool: Tool) -> dict[str, Any]:
    """Return a tool's schema without a choice at its root, which model APIs refuse; the session checks all of it."""
    schema = tool.json_schema()
    if "anyOf" not in schema:
        return schema
    one, some, place, _ = (form["properties"] for form in schema["anyOf"])
    device = {"anyOf": [one["device"], some["device"]]}
    named = {"device": device, "area": place["area"], "except": some["device"]}
    given = {name: value for name, value in one.items() if name != "device"}
    return schema["anyOf"][0] | {"properties": named | given, "required": list(given)}

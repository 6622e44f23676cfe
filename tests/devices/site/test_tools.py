"""Tools: grouped by kind and action, and the way between calls and commands."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from devices.site.site import load_site
from devices.site.tools import Command, ToolCall, call_of, commands_of, tools_of
from tests.devices.site.test_site import write_site

TOOLS = tools_of(load_site("home"))
TWO_THERMOSTATS = """\
schema: site/v1
name: two
title: two rooms
devices:
  warm: {model: thermostat}
  hot:
    model: thermostat
    actions: {set: {input: {target_c: {minimum: 40, maximum: 90}}}}
"""


def test_one_tool_for_each_kind_and_action() -> None:
    lights = next(tool for tool in TOOLS if tool.name == "light_on")
    assert lights.devices == ("kitchen_light", "bedroom_lamp", "porch_light")
    assert len({tool.name for tool in TOOLS}) == len(TOOLS)


def test_every_command_has_a_call_that_stands_for_it() -> None:
    for device in load_site("home").devices.values():
        for name, action in device.actions.items():
            command = Command(device.name, name, {key: schema.minimum for key, schema in action.input.items()})  # type: ignore[misc]
            assert commands_of(call_of(command, TOOLS), TOOLS) == [command]


def test_schema_accepts_what_stands_for_commands() -> None:
    tool = next(tool for tool in TOOLS if tool.name == "light_brightness")
    for arguments, fits in [
        ({"device": "kitchen_light", "brightness": 40}, True),
        ({"device": "kitchen_light", "brightness": 101}, False),
        ({"device": "kitchen_light", "brightness": True}, False),
        ({"device": "porch_light", "brightness": 40}, False),
        ({"device": "kitchen_light"}, False),
        ({"device": "kitchen_light", "brightness": 40, "speed": 1}, False),
    ]:
        assert jsonschema.Draft202012Validator(tool.json_schema()).is_valid(arguments) is fits
        assert isinstance(commands_of(ToolCall(tool.name, arguments), TOOLS), list) is fits


def test_devices_with_other_ranges_get_a_tool_of_their_own(tmp_path: Path) -> None:
    tools = tools_of(load_site(write_site(tmp_path, TWO_THERMOSTATS)))
    assert [(tool.name, tool.devices) for tool in tools] == [("climate_set", ("warm",)), ("climate_set_hot", ("hot",))]


def test_unknown_tool_says_so() -> None:
    with pytest.raises(KeyError):
        call_of(Command("kitchen_light", "explode", {}), TOOLS)
    assert commands_of(ToolCall("explode", {}), TOOLS) == "no tool is called explode"


def test_devices_with_the_same_input_share_a_tool_whichever_came_first(tmp_path: Path) -> None:
    more = "  oven: {model: thermostat, actions: {set: {input: {target_c: {minimum: 40, maximum: 90}}}}}\n"
    tools = tools_of(load_site(write_site(tmp_path, f"{TWO_THERMOSTATS}{more}  cool: {{model: thermostat}}\n")))
    assert [(tool.name, tool.devices) for tool in tools] == [
        ("climate_set", ("warm", "cool")),
        ("climate_set_hot", ("hot", "oven")),
    ]


def test_a_tool_named_after_a_device_is_no_other_tool(tmp_path: Path) -> None:
    """A thermostat that is called "mode": its own climate_set_mode is not the one that sets the mode."""
    mode = "  mode: {model: [thermostat, mode], actions: {set: {input: {target_c: {minimum: 1, maximum: 2}}}}}\n"
    site = load_site(write_site(tmp_path, TWO_THERMOSTATS + mode))
    tools = tools_of(site)
    found = {tool.name: (tool.action, tool.devices) for tool in tools}
    assert len(found) == len(tools) == 4
    assert found["climate_set_mode"] == ("set", ("mode",)) and found["climate_set_mode_mode"] == ("set_mode", ("mode",))

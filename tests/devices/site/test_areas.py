"""Areas, floors and groups: what stands in them, and calls that name several devices at once."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest

from devices.errors import UsageError
from devices.site.describe import reports_text
from devices.site.site import load_site
from devices.site.tools import Command, ToolCall, commands_of, tools_of
from edge_agent.wire.parsing import ToolCalls, parse_reply
from tests.devices.site.test_site import write_site

HOUSE = """\
schema: site/v1
name: house
title: a house
floors:
  upper: {title: upper floor, aliases: [upstairs]}
areas:
  kitchen:
  bedroom: {title: main bedroom, floor: upper}
  empty: {floor: upper}
groups:
  christmas: {title: Christmas lights, devices: [tree, star]}
devices:
  worktop: {model: dimmable_light, area: kitchen}
  star: {model: light, area: kitchen}
  bedside: {model: dimmable_light, area: bedroom}
  tree: {model: light}
  fridge: {model: switch, area: kitchen}
"""


@pytest.fixture
def house(tmp_path: Path) -> Path:
    return write_site(tmp_path, HOUSE)


def test_targets_are_areas_floors_groups_and_everywhere(house: Path) -> None:
    assert load_site(house).targets == {
        "kitchen": ("worktop", "star", "fridge"),
        "bedroom": ("bedside",),
        "upper": ("bedside",),
        "christmas": ("tree", "star"),
        "everywhere": ("worktop", "star", "bedside", "tree", "fridge"),
    }


@pytest.mark.parametrize(
    ("arguments", "devices"),
    [
        ({"device": "tree"}, ["tree"]),
        ({"device": ["tree", "bedside"]}, ["tree", "bedside"]),
        ({"area": "kitchen"}, ["worktop", "star"]),
        ({"area": "upper"}, ["bedside"]),
        ({"area": "christmas"}, ["star", "tree"]),
        ({"area": "everywhere", "except": ["star", "tree"]}, ["worktop", "bedside"]),
        ({"area": "bedroom", "except": ["bedside"]}, []),
    ],
)
def test_a_call_stands_for_a_command_a_device(house: Path, arguments: dict[str, object], devices: list[str]) -> None:
    tools = tools_of(load_site(house))
    assert commands_of(ToolCall("light_on", arguments), tools) == [Command(name, "on", {}) for name in devices]  # type: ignore[arg-type]
    tool = next(tool for tool in tools if tool.name == "light_on")
    jsonschema.Draft202012Validator(tool.json_schema()).validate(arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"area": "moon"}, "has no area moon"),
        ({"area": "empty"}, "has no area empty"),
        ({"area": ["kitchen"]}, "has no area ['kitchen']"),
        ({"area": "kitchen", "device": "star"}, "takes a device or an area"),
        ({"area": "kitchen", "except": "star"}, "has no device star"),
        ({"area": "kitchen", "except": ["fridge"]}, "has no device fridge"),
        ({"device": []}, "names no device"),
        ({"device": ["tree", "fridge"]}, "has no device fridge"),
        ({}, "has no device None"),
    ],
)
def test_what_stands_for_no_command(house: Path, arguments: dict[str, object], problem: str) -> None:
    assert commands_of(ToolCall("light_on", arguments), tools_of(load_site(house))) == f"light_on {problem}"  # type: ignore[arg-type]


def test_a_device_named_twice_is_commanded_once(house: Path) -> None:
    call = ToolCall("light_off", {"device": ["tree", "star", "tree"]})
    assert commands_of(call, tools_of(load_site(house))) == [Command("tree", "off", {}), Command("star", "off", {})]


def test_the_other_arguments_go_to_each_device(house: Path) -> None:
    call = '{"name":"light_brightness","arguments":{"area":"everywhere","brightness":40}}'
    tools = tools_of(load_site(house))
    reply = parse_reply(f"<think> x</think><tool_call>{call}</tool_call>", tools)
    assert isinstance(reply, ToolCalls)
    wanted = [Command(name, "brightness", {"brightness": 40}) for name in ("worktop", "bedside")]
    assert commands_of(reply.calls[0], tools) == wanted


def test_without_areas_a_call_names_one_device(tmp_path: Path) -> None:
    text = re.sub(r", area: \w+", "", HOUSE[: HOUSE.index("floors")] + HOUSE[HOUSE.index("\ndevices:") :])
    tools = tools_of(load_site(write_site(tmp_path, text)))
    assert "anyOf" not in tools[0].json_schema()
    for arguments in ({"device": ["tree", "star"]}, {"area": "everywhere"}):
        assert isinstance(commands_of(ToolCall("light_on", arguments), tools), str)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("area: bedroom}", "area: bedrom}", "'bedrom', which does not exist; did you mean bedroom"),
        ("floor: upper}\n  empty", "floor: uper}\n  empty", "'uper', which does not exist; did you mean upper"),
        ("[tree, star]", "[tree, stars]", "'stars', which does not exist; did you mean star"),
        ("  christmas:", "  kitchen:", "'kitchen' can be one floor, area or group only"),
        ("  upper:", "  everywhere:", "'everywhere' can be one floor, area or group only"),
        ("  kitchen:\n", "  kitchen: {flor: upper}\n", "flor"),
    ],
)
def test_a_wrong_area_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    text = HOUSE.replace(old, new, 1)
    if new == "  everywhere:":
        text = text.replace("floor: upper", "floor: everywhere")
    with pytest.raises(UsageError, match=re.escape(problem)):
        load_site(write_site(tmp_path, text))


def test_what_is_said_of_many_is_said_once() -> None:
    many = [(name, f"The {name} is off.") for name in ("star", "tree", "lamp")]
    assert reports_text(many) == "The star, tree and lamp are off."
    assert reports_text(many[:2]) == "The star is off. The tree is off."
    mixed = [*many, ("fan", "The fan did not change, it is on."), ("shelf", "The shelf is off.")]
    assert reports_text(mixed) == "The star, tree, lamp and shelf are off. The fan did not change, it is on."
    dimmed = [(name, f"The {name} brightness is 40 percent.") for name in ("star", "tree", "lamp")]
    assert reports_text(dimmed) == "The star, tree and lamp: brightness is 40 percent."

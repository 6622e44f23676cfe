"""Readings and actions in words, for people and for training conversations; the one place that phrases a state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from devices.site.action import Action
from devices.site.schema import DataSchema, Value
from devices.site.site import Device

OUTSIDE_CHARACTERS = 200
AGES = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
MONEY = {"euros", "dollars"}


def plain_text(text: str) -> str:
    """Return words that came from outside as one short line, without control characters and markers."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(kept.replace("<|", "< |").split())[:OUTSIDE_CHARACTERS]


def number_text(value: float) -> str:
    """Return a number as people write it: no trailing zeros, at most one decimal."""
    return f"{round(float(value), 1):g}"


def value_text(schema: DataSchema, value: Value) -> str:
    """Return a value in words: "on", "40 percent", "18.5 degrees"."""
    if isinstance(value, bool):
        return schema.labels.get(value, "true" if value else "false")
    if isinstance(value, int | float):
        number = f"{value:.2f}" if schema.unit in MONEY else number_text(value)
        return f"{number} {schema.unit}".rstrip()
    return value


def property_title(name: str, schema: DataSchema) -> str:
    """Return what people call a property."""
    return schema.title or name.replace("_", " ")


def describe(device: Device, property_name: str, value: Value, verb: str = "is") -> str:
    """Return one fact as a clause: "the kitchen light is on", "the hall thermostat target is 21 degrees"."""
    schema = device.properties[property_name]
    subject = "" if isinstance(value, bool) else f" {property_title(property_name, schema)}"
    return f"the {device.title}{subject} {verb} {value_text(schema, value)}"


def age_text(age_s: float) -> str:
    """Return how old a reading is, in words: "3 hours ago"."""
    if math.isinf(age_s):
        return "nobody knows since when"
    unit, seconds = next((unit, one) for unit, one in AGES.items() if age_s >= 2 * one or one == 1)
    return f"{round(age_s / seconds)} {unit} ago"


def main_property(action: Action) -> str:
    """Return the property that tells best what an action does: one that takes an argument, else the first one."""
    return main_properties(action)[0]


def main_properties(action: Action) -> list[str]:
    """Return the properties that tell what an action does: all that take an argument, else the first one."""
    written = [name for name, value in action.writes.items() if isinstance(value, str) and value[1:] in action.input]
    return written or list(action.writes)[:1]


def sentence(*clauses: str) -> str:
    """Return clauses as one sentence, the first letter in upper case."""
    text = " and ".join(clauses) if len(clauses) < 3 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
    return f"{text[:1].upper()}{text[1:]}."


def confirm_text(device: Device, action: Action, arguments: dict[str, Value]) -> str:
    """Return what a person is asked to confirm, as a clause."""
    if action.output:
        return f"please confirm {_call_text(device, action, arguments)}"
    name, effect = main_property(action), action.effect(arguments)
    return f"please confirm that the {device.title} should be {value_text(device.properties[name], effect[name])}"


def goal_text(device: Device, action: Action, arguments: dict[str, Value]) -> str:
    """Return what an action will make so, for the person who confirms it."""
    if action.output:
        return _call_text(device, action, arguments)
    effect = action.effect(arguments)
    facts = " and ".join(f"{name} = {value_text(device.properties[name], value)}" for name, value in effect.items())
    duration = f" for {_duration_text(action, arguments)}" if action.ends else ""
    return f"{device.title}: {facts}{duration}"


def answer_text(action: Action, arguments: dict[str, Value], answer: Mapping[str, Any]) -> str:
    """Return an action's report with what was answered; free text in it is quoted, short and plain."""
    shown = {name: value_text(schema, arguments[name]) for name, schema in action.input.items()}
    shown |= {name: value_text(schema, answer[name]) for name, schema in action.output.items()}
    shown |= {name: f'"{plain_text(str(answer.get(name, "")))}"' for name in action.words}
    return action.report.format(**shown)


def _call_text(device: Device, action: Action, arguments: dict[str, Value]) -> str:
    values = ", ".join(f"{name} = {value_text(schema, arguments[name])}" for name, schema in action.input.items())
    return f"{device.title}: {action.title}{': ' if values else ''}{values}"


def already_text(device: Device, action: Action, seen: dict[str, Value]) -> str:
    """Return what was read and need not be changed as a clause: "the front door is already locked"."""
    name = next(iter(action.already or [main_property(action)]))
    return describe(device, name, seen[name], verb="is already")


def done_text(device: Device, action: Action, arguments: dict[str, Value], seen: dict[str, Value]) -> str:
    """Return what was read back as clauses: "the garden sprinkler is open for 10 minutes"."""
    clauses = [describe(device, name, seen[name]) for name in main_properties(action)]
    duration = f" for {_duration_text(action, arguments)}" if action.ends else ""
    return f"{', '.join(clauses)}{duration}"


def not_done_text(device: Device, action: Action, seen: dict[str, Value], *, has_moved: bool = False) -> str:
    """Return what was read back instead, as a clause; a device that takes its time may have gone part of the way."""
    if action.settle_s or has_moved:
        clauses = [describe(device, name, seen[name]) for name in main_properties(action)]
        return f"the {device.title} did not get there, {', '.join(clauses)}"
    name = main_property(action)
    return f"the {device.title} did not change, it is {value_text(device.properties[name], seen[name])}"


def _duration_text(action: Action, arguments: dict[str, Value]) -> str:
    assert action.ends
    name, unit = action.ends.after.removeprefix("$").split(" ")
    return f"{arguments[name]} {unit}"

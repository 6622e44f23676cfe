"""Readings and actions in words, for people and for training conversations; the one place that phrases a state."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from devices.site.action import UNLESS_0, Action
from devices.site.device import Device
from devices.site.functions import FunctionAction
from devices.site.schema import DataSchema, Value
from devices.site.site import Area

OUTSIDE_CHARACTERS = 200
CHOICES = 6  # that a question names at most
ALIKE = 3  # devices of which the same is said are named in one sentence
AGES = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
PLURAL = re.compile(r"(?<=[^sui\W]s)(?<!\bgas)(?<!\bcanvas)(?<!\blens)$", re.I)  # "blinds", not "glass" or "gas"
MONEY = {"euros", "dollars"}


def plain_text(text: str) -> str:
    """Return words that came from outside as one short line, without control characters and markers."""
    kept = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(kept.replace("<|", "< |").split())[:OUTSIDE_CHARACTERS]


def number_text(value: float) -> str:
    """Return a number as people write it: no trailing zeros, at most one decimal."""
    return f"{round(float(value), 1):.12g}"


def value_text(schema: DataSchema, value: Value) -> str:
    """Return a value in words: "on", "40 percent", "18.5 degrees", "2 (medium)", "closed"."""
    if isinstance(value, bool):
        return schema.labels.get(value, "true" if value else "false")
    if isinstance(value, int | float):
        if state := schema.state_of(value):
            return state
        number = f"{value:.2f}" if schema.unit in MONEY else number_text(value)
        level = schema.level_of(value)
        return f"{number} {schema.unit}".rstrip() + (f" ({level})" if level else "")
    return value.replace("_", " ")


def property_title(name: str, schema: DataSchema) -> str:
    """Return what people call a property."""
    return schema.title or name.replace("_", " ")


def describe(device: Device, property_name: str, value: Value, verb: str = "is") -> str:
    """Return one fact as a clause: "the kitchen light is on", "the hall thermostat target is 21 degrees"."""
    text, subject = value_text(device.properties[property_name], value), _subject(device, property_name, value)
    verb = verb.replace("is", "are", 1) if subject == device.title and PLURAL.search(subject) else verb
    return f"the {subject} {verb} {text}"


def answers_about(device: Device, state: Mapping[str, Value]) -> list[str]:
    """Return the sentences of which one answers what is asked of a device's state; only one if it has two properties.

    Of what is off, no settings are told. Of three properties or more, each has a sentence, and all of them have one.
    """
    settings = {key for action in device.actions.values() for key in action.writes} - {"on"}
    unsaid = settings if state.get("on") is False else set[str]()
    told = [name for name in state if name in device.properties and name not in unsaid]
    told.sort(key=lambda name: not _is_own(device.properties[name], state[name]))
    if len(told) != 2:
        clauses = [describe(device, name, state[name]) for name in told]
        return [*map(sentence, clauses), *([sentence(*clauses)] if len(clauses) > 1 else [])]
    first, second = told
    if _is_own(device.properties[second], state[second]):
        return [sentence(*(describe(device, name, state[name]) for name in told))]
    schema = device.properties[second]
    its = f"its {property_title(second, schema)} is {value_text(schema, state[second])}"
    return [sentence(describe(device, first, state[first]), its)]


def _subject(device: Device, property_name: str, value: Value) -> str:
    """Return what a reading is of: a boolean without a title, or a state, is how the device itself is."""
    schema = device.properties[property_name]
    is_own = _is_own(schema, value)
    return device.title if is_own else f"{device.title} {property_title(property_name, schema)}"


def _is_own(schema: DataSchema, value: Value) -> bool:
    return not schema.title and (schema.type == "boolean" or bool(schema.state_of(value)))


def age_text(age_s: float) -> str:
    """Return how old a reading is, in words: "3 hours ago"."""
    if math.isinf(age_s):
        return "nobody knows since when"
    unit, seconds = next((unit, one) for unit, one in AGES.items() if age_s >= 2 * one or one == 1)
    return f"{round(age_s / seconds)} {unit} ago"


def main_property(action: Action, arguments: dict[str, Value]) -> str:
    """Return the property that tells best what an action does: one that takes an argument, else the first one."""
    return main_properties(action, arguments)[0]


def main_properties(action: Action, arguments: dict[str, Value]) -> list[str]:
    """Return the properties that tell what an action does: all that take an argument, else the first one."""
    taking = {f"${name}{end}" for name in action.input for end in ("", f" {UNLESS_0}")}
    effect = action.effect(arguments)
    return [name for name in effect if action.writes[name] in taking] or list(effect)[:1]


def sentence(*clauses: str) -> str:
    """Return clauses as one sentence, the first letter in upper case."""
    text = " and ".join(clauses) if len(clauses) < 3 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
    return f"{text[:1].upper()}{text[1:]}."


def reports_text(reports: Sequence[tuple[str, str]]) -> str:
    """Return sentences about devices as one text, those that say the same of ALIKE or more devices as one sentence.

    Args:
        reports: each device's title, and a sentence about it.
    """
    said: dict[str, list[str]] = {}
    for title, report in reports:
        said.setdefault(report.replace(f"The {title} ", "{} ", 1), []).append(title)
    return " ".join(text for pattern, titles in said.items() for text in _said_of(pattern, titles))


def _said_of(pattern: str, titles: list[str]) -> list[str]:
    subject, _, rest = pattern.partition("{} ")
    if subject or len(titles) < ALIKE:
        return [pattern.replace("{}", f"The {title}", 1) for title in titles]
    names = f"The {', '.join(titles[:-1])} and {titles[-1]}"
    verb, _, state = rest.partition(" ")
    return [f"{names} are {state}" if verb in ("is", "are") else f"{names}: {rest}"]


def which_text(devices: Sequence[Device], areas: Mapping[str, Area]) -> str:
    """Return the question which of several devices is meant: "Which one: the bedroom lamp or the desk lamp?"

    Those with the same title are told apart by their areas, or by their names in the site file.
    """
    said = [f"the {device.title}" for device in devices]
    places = [f" in the {areas[device.area].title}" if device.area else "" for device in devices]
    for ends in (places, [f" ({device.name})" for device in devices]):
        said = [text + end if said.count(text) > 1 else text for text, end in zip(said, ends, strict=True)]
    if len(said) > CHOICES:
        return f"Which one of {len(said)}: {', '.join(said[: CHOICES - 1])} or another?"
    return f"Which one: {', '.join(said[:-1])} or {said[-1]}?"


def confirm_text(device: Device, action: Action, arguments: dict[str, Value]) -> str:
    """Return what a person is asked to confirm, as a clause."""
    return f"please confirm {'' if action.is_call else 'that '}{wish_text(device, action, arguments)}"


def wish_text(device: Device, action: Action, arguments: dict[str, Value]) -> str:
    """Return what an action is wanted for, as a clause: "the front door should be unlocked"."""
    if action.is_call:
        return _call_text(device, action, arguments)
    names, effect = main_properties(action, arguments), action.effect(arguments)
    is_boolean = device.properties[names[0]].type == "boolean"
    subject = _subject(device, names[0], effect[names[0]]) if is_boolean else device.title
    values = " and ".join(value_text(device.properties[name], effect[name]) for name in names)
    duration = f" for {_duration_text(action, arguments)}" if action.ends else ""
    return f"the {subject} should be {values}{duration}"


def goal_text(device: Device, action: Action, arguments: dict[str, Value]) -> str:
    """Return what an action will make so, for the person who confirms it."""
    if action.is_call:
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
    if isinstance(action, FunctionAction):
        given = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
        return f"{device.title}: {given}" if given else device.title
    values = ", ".join(f"{name} = {value_text(schema, arguments[name])}" for name, schema in action.input.items())
    return f"{device.title}: {action.title}{': ' if values else ''}{values}"


def already_text(device: Device, action: Action, arguments: dict[str, Value], seen: dict[str, Value]) -> str:
    """Return what was read and need not be changed as a clause: "the front door is already locked"."""
    name = next(iter(action.already or [main_property(action, arguments)]))
    return describe(device, name, seen[name], verb="is already")


def done_text(device: Device, action: Action, arguments: dict[str, Value], seen: dict[str, Value]) -> str:
    """Return what was read back as clauses: "the garden sprinkler is open for 10 minutes"."""
    clauses = [describe(device, name, seen[name]) for name in main_properties(action, arguments)]
    duration = f" for {_duration_text(action, arguments)}" if action.ends else ""
    return f"{', '.join(clauses)}{duration}"


def not_done_text(
    device: Device, action: Action, arguments: dict[str, Value], seen: dict[str, Value], *, has_moved: bool = False
) -> str:
    """Return what was read back instead, as a clause; a device that takes its time may have gone part of the way."""
    if action.settle_s or has_moved:
        clauses = [describe(device, name, seen[name]) for name in main_properties(action, arguments)]
        return f"the {device.title} did not get there, {', '.join(clauses)}"
    name = main_property(action, arguments)
    return f"the {device.title} did not change, it is {value_text(device.properties[name], seen[name])}"


def _duration_text(action: Action, arguments: dict[str, Value]) -> str:
    assert action.ends
    name, unit = action.ends.after.removeprefix("$").split(" ")
    return f"{arguments[name]} {unit}"

"""Readings in words, for people and for training conversations; the one place that phrases a state."""

from __future__ import annotations

from devices.site import Action, DataSchema, Device, Value


def number_text(value: float) -> str:
    """Return a number as people write it: no trailing zeros, at most one decimal."""
    return f"{round(float(value), 1):g}"


def value_text(schema: DataSchema, value: Value) -> str:
    """Return a value in words: "on", "40 percent", "18.5 degrees"."""
    if isinstance(value, bool):
        return schema.labels.get(value, "true" if value else "false")
    if isinstance(value, int | float):
        return f"{number_text(value)} {schema.unit}".rstrip()
    return value


def property_title(name: str, schema: DataSchema) -> str:
    """Return what people call a property."""
    return schema.title or name.replace("_", " ")


def describe(device: Device, property_name: str, value: Value, verb: str = "is") -> str:
    """Return one fact as a clause: "the kitchen light is on", "the hall thermostat target is 21 degrees"."""
    schema = device.properties[property_name]
    subject = "" if isinstance(value, bool) else f" {property_title(property_name, schema)}"
    return f"the {device.title}{subject} {verb} {value_text(schema, value)}"


def main_property(action: Action) -> str:
    """Return the property that tells best what an action does: one that takes an argument, else the first one."""
    written = [name for name, value in action.writes.items() if isinstance(value, str) and value[1:] in action.input]
    return next(iter(written or action.writes))


def sentence(*clauses: str) -> str:
    """Return clauses as one sentence, the first letter in upper case."""
    text = " and ".join(clauses) if len(clauses) < 3 else ", ".join(clauses[:-1]) + " and " + clauses[-1]
    return f"{text[:1].upper()}{text[1:]}."

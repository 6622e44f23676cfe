"""What zigbee2mqtt exposes, and the device in the making that takes it: its models, and where its properties are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from devices.drivers.json_values import Scalar, text_of
from devices.exchange.imports.imported import (
    FREE_TEXT,
    NO_WORDS,
    ONLY_WRITTEN,
    TWICE,
    WIDEST,
    Feature,
    Foreign,
    boolean_schema,
    is_plain,
    part_name,
    plain_number,
    plain_unit,
    range_schema,
    setters,
    usable_step,
    words_of,
)
from devices.exchange.imports.parts import Part
from devices.site.site import load_models

STATE, SET, GET = 1, 2, 4  # bits of zigbee2mqtt's `access`
RANGES = {"percent": (0.0, 100.0), "degrees": (-60.0, 150.0)}  # of such a number, by unit
RANGE = ("minimum", "maximum", "step")
NO_KEY = "it has no property in the state"


class Preset(Foreign):
    """A number of an expose that has a name; some stand for what is no number, such as the value before."""

    name: str
    value: Any = None


class Expose(Foreign):
    """A feature as zigbee2mqtt describes it. Source: zigbee2mqtt, "Exposes"."""

    type: str = ""
    name: str = ""
    key: str = Field(default="", alias="property")
    endpoint: str = ""
    access: int = 0
    category: str | None = None
    unit: str | None = None
    features: tuple[Expose, ...] = ()
    values: tuple[Any, ...] = ()
    value_on: Any = None
    value_off: Any = None
    value_min: float | None = None
    value_max: float | None = None
    value_step: float | None = None
    presets: tuple[Preset, ...] = ()

    @property
    def bits(self) -> int:
        """What can be done with it; of a composite what can be done with all of its features."""
        if not self.features:
            return self.access
        bits = STATE | SET | GET
        for feature in self.features:
            bits &= feature.access
        return bits


@dataclass
class Exposed:
    """An expose with its line on the account."""

    expose: Expose
    feature: Feature


@dataclass
class ZigbeePart(Part):
    """A device in the making, which takes what is exposed.

    Attributes:
        topic: its name in zigbee2mqtt.
        suffix: which part of the thing it is, such as left.
    """

    topic: str = ""
    suffix: str = ""

    def be_model(self, model: str, name: str, part: Exposed, **binding: Any) -> bool:
        """Make a model part of the device, with one of its properties.

        Return False if it has that property already, or if the model would write what can only be read.
        """
        if name in self.at or not part.expose.key:
            part.feature.leave(TWICE if part.expose.key else NO_KEY)
            return False
        if part.expose.bits & (STATE | SET) != STATE | SET and _is_written(model, name):
            self.own_property(name, part)
            return False
        self.be(model)
        self._bind(name, part, **binding)
        return True

    def _bind(self, name: str, part: Exposed, **binding: Any) -> None:
        expose = part.expose
        where: dict[str, Any] = {"topic": self.topic, "key": expose.key}
        if not expose.bits & GET:
            where["is_asked"] = False
        self.bind(
            name, where | {key: value for key, value in binding.items() if value not in (None, {}, ())}, part.feature
        )

    def be_number(self, model: str, name: str, part: Exposed, action: str = "", **binding: Any) -> bool:
        """As `be_model`, for a number: the device's own limits, step and unit win over the model's."""
        schema = load_models()[model]["properties"][name]
        limits = self._limits(part.expose, schema)
        if not self.be_model(model, name, part, **binding):
            return False
        if limits:
            self.properties[name] = limits
        if limits and action:
            is_whole = all(float(value).is_integer() for key, value in (schema | limits).items() if key in RANGE)
            self.actions[action] = {"input": {name: {"type": "integer" if is_whole else "number"} | limits}}
        return True

    @staticmethod
    def _limits(expose: Expose, schema: dict[str, Any]) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        low, high = expose.value_min, expose.value_max
        if low is not None and high is not None and low < high:
            limits = {"minimum": plain_number(low), "maximum": plain_number(high)}
            if schema["type"] == "integer":
                limits = {"minimum": math.ceil(low), "maximum": max(math.floor(high), math.ceil(low))}
        if (step := step_of(expose, float(limits.get("minimum", schema["minimum"])))) is not None:
            limits["step"] = step
        if (unit := unit_of(expose)) and unit != schema.get("unit", ""):
            limits["unit"] = unit
        if levels := levels_of(expose, schema | limits):
            limits["levels"] = levels
        return {key: value for key, value in limits.items() if value != schema.get(key)}

    def be_words(self, model: str, name: str, part: Exposed, action: str) -> bool:
        """As `be_model`, for one of several words: those of the device."""
        words, values = words_of(part.expose.values)
        if not is_plain({"type": "string", "enum": words}):
            part.feature.leave(NO_WORDS)
            return False
        if not self.be_model(model, name, part, values=values):
            return False
        self.properties[name] = {"enum": words}
        self.actions[action] = {"input": {name: {"enum": words}}}
        return True

    def be_switch(self, model: str, name: str, part: Exposed) -> bool:
        """As `be_model`, for on and off in the device's own values."""
        if isinstance(schema := _schema_of(part.expose), str):
            part.feature.leave(schema)
            return False
        return self.be_model(model, name, part, words=pair_of(part.expose))

    def own_property(self, name: str, part: Exposed) -> None:
        """Take a feature that no model has: read, and set with a yes if the device lets itself be set."""
        expose, name = part.expose, part_name(name)
        schema = _schema_of(expose)
        is_set = bool(expose.access & SET)
        if isinstance(schema, str):
            part.feature.leave(schema)
        elif name in self.at:
            part.feature.leave(TWICE)
        else:
            title = name.replace("_", " ")
            values = words_of(expose.values)[1] if expose.type == "enum" else {}
            self.properties[name] = {**schema, "title": title} if schema["type"] == "boolean" else schema
            self._bind(name, part, values=values, words=pair_of(expose) if expose.type == "binary" else None)
            if is_set:
                self.actions |= setters(name, title, schema)


def _is_written(model: str, name: str) -> bool:
    return any(name in action.get("writes", {}) for action in load_models()[model].get("actions", {}).values())


def _schema_of(expose: Expose) -> dict[str, Any] | str:
    """Return the schema of a property, or why it cannot be one."""
    if expose.access & SET and not expose.access & STATE:
        return ONLY_WRITTEN
    if not expose.key:
        return NO_KEY
    if expose.type == "binary":
        pair = pair_of(expose)
        has_words = all(isinstance(word, Scalar) for word in pair) and text_of(pair[0]) != text_of(pair[1])
        return boolean_schema() if has_words else "its two values are not known"
    if expose.type == "enum":
        schema: dict[str, Any] = {"type": "string", "enum": words_of(expose.values)[0]}
        return schema if is_plain(schema) else NO_WORDS
    if expose.type != "numeric":
        return {"text": FREE_TEXT, "list": "a list", "composite": "several values in one"}.get(
            expose.type, f"of the type {expose.type}"
        )
    return _number_schema(expose)


def _number_schema(expose: Expose) -> dict[str, Any] | str:
    low, high = expose.value_min, expose.value_max
    if expose.access & SET and (low is None or high is None):
        return "it can be set, and has no limits"
    unit = unit_of(expose)
    least, most = RANGES.get(unit, (-WIDEST, WIDEST))
    low, high = (least if low is None else low), (most if high is None else high)
    step = step_of(expose, low)
    is_whole = step is not None and all(float(one).is_integer() for one in (low, high, step))
    schema = range_schema("integer" if is_whole else "number", low, high, step, unit)
    if levels := levels_of(expose, schema):
        schema["levels"] = levels
    return schema if is_plain(schema) else "its limits are none"


def levels_of(expose: Expose, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the presets of what can be set that its schema takes, each as a level."""
    found: dict[str, Any] = {}
    for preset in expose.presets if expose.access & SET else ():
        name = preset.name.lower().replace("_", " ")
        is_number = isinstance(preset.value, int | float) and not isinstance(preset.value, bool)
        level = {name: plain_number(preset.value)} if is_number else {}
        if level and is_plain({**schema, "levels": level}):
            found |= level
    return found


def step_of(expose: Expose, low: float) -> float | int | None:
    """Return the step of what can be set, if a site can have it."""
    return usable_step(expose.value_step, low) if expose.access & SET else None


def unit_of(expose: Expose) -> str:
    """Return a unit in words; none that a site cannot have."""
    return plain_unit(expose.unit or "")


def pair_of(expose: Expose) -> list[Any]:
    """Return what a device says for false and true."""
    return [expose.value_off, expose.value_on]

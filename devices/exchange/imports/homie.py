"""Sites from devices that follow the Homie convention, 3 to 5, by what they keep on their MQTT broker.

In: topics with their values. A node with something to set is a device of the site; the readings of the others join the
only one there is. Homie 4 has an attribute for each fact (`$nodes`, `$properties`, `$datatype`); Homie 5 has one JSON
document, `$description`. Every property is on the account.
Source: The Homie Convention 4.0.0 and 5.0.0, "Topology", "Property attributes", "Payloads".

Does not guard against: a device that says of itself what it cannot do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from devices.drivers.json_values import text_of
from devices.exchange.imports.imported import (
    EVENT,
    FREE_TEXT,
    NO_WORDS,
    UNITS,
    WIDEST,
    Feature,
    Foreign,
    Imported,
    boolean_schema,
    foreign_problem,
    is_plain,
    part_name,
    plain_number,
    plain_unit,
    setters,
)
from devices.exchange.imports.parts import Part, add_parts, number_schema
from devices.exchange.mqtt_topics import Topics
from devices.site.describe import plain_text
from devices.site.schema import is_multiple

DESCRIPTION = re.compile(r"([^/$]+/5)/([^/$]+)/\$description")
VERSION = re.compile(r"([^/$]+)/([^/$]+)/\$homie")
KNOWN_VERSIONS = ("3.", "4.")
RANGE = re.compile(r"([-+.\deE]*):([-+.\deE]*)(?::([.\deE]+))?")
ANY = 1000 * WIDEST  # of a number in a unit that is not the usual one
NO_LIMITS = "it can be set, and has no limits"
NOT_TAKEN = {"string": FREE_TEXT, "datetime": "a time", "duration": "a duration", "json": "several values in one"}
ON = {"power", "on", "state", "switch", "relay", "onoff", "on-off"}
LEVEL = {"brightness", "dimmer", "dim", "intensity", "level"}
WARMTH = {"color-temperature", "colour-temperature", "color-temp", "ct"}
WORD = re.compile(r"\w{1,20}")  # the model sees what stands for false and true, and units: no sentences
LIGHT = re.compile(r"light|lamp|bulb|\bled")
HARMFUL = re.compile(r"pump|valve|door|gate|lock|alarm|siren|heat|boiler|oven|stove|motor")  # on and off want a yes
UNITS_HERE = UNITS | {
    "L": "litres", "gal": "gallons", "kW": "kilowatts", "Hz": "hertz", "rpm": "rpm", "m³": "m³", "ft": "feet",
    "m/s": "m/s", "kn": "knots", "Pa": "pascals", "psi": "psi", "ppm": "ppm", "h": "hours", "K": "kelvin",
    "MK⁻¹": "mired", "°": "degrees of angle", "#": "",
}  # fmt: skip


class Property(Foreign):
    """A property as Homie describes it; Homie 3 takes `string` for granted."""

    name: str = ""
    datatype: str = "string"
    format: str = ""
    settable: bool = False
    retained: bool = True
    unit: str = ""

    def limits(self) -> tuple[float | None, float | None, float | None]:
        """Return least, most and step of a number, None where it has none. Raises ValueError if they are none."""
        if not self.format:
            return None, None, None
        if not (found := RANGE.fullmatch(self.format.strip())):
            raise ValueError(self.format)
        low, high, step = (float(part) if part else None for part in found.groups())
        return low, high, step


class Node(Foreign):
    """A part of a device."""

    name: str = ""
    type: str = ""
    properties: dict[str, Property] = Field(default_factory=dict)


class Description(Foreign):
    """A device, as the document of Homie 5 has it."""

    name: str = ""
    root: str = ""
    nodes: dict[str, Node] = Field(default_factory=dict)


def import_homie(made: Imported, topics: Topics, driver: str) -> set[str]:
    """Take the Homie devices among topics; return the topics that are theirs.

    Args:
        made: the site in the making.
        topics: with their values.
        driver: of the broker, with the profile plain.
    """
    used: set[str] = set()
    for topic, values in topics.items():
        if found := DESCRIPTION.fullmatch(topic):
            described = _document(made, found[2], values[-1])
        elif (found := VERSION.fullmatch(topic)) and values[-1].startswith(KNOWN_VERSIONS):
            described = _attributes(made, f"{found[1]}/{found[2]}", topics)
        elif found:
            made.offer(found[2], "$homie").leave(f"Homie {plain_text(values[-1])[:10]} is not known here; 3 to 5 are")
            described = None
        else:
            continue
        base = f"{found[1]}/{found[2]}"
        used |= {other for other in topics if other.startswith(f"{base}/")}
        if described:
            _Device(made, driver, base, found[2], described).take()
    return used


def _document(made: Imported, name: str, text: str) -> Description | None:
    """Return the device of a document of Homie 5, or None with its fault on the account."""
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        made.offer(name, "$description").leave(f"it is broken: {foreign_problem(error)}")
        return None


def _attributes(made: Imported, base: str, topics: Topics) -> Description | None:
    """Return the device of the attributes of Homie 3 and 4."""

    def said(path: str) -> str:
        return topics.get(f"{base}/{path}", [""])[-1]

    def listed(path: str) -> list[str]:
        return [part.strip() for part in said(path).split(",") if part.strip()]

    nodes: dict[str, Any] = {}
    for node in listed("$nodes"):
        properties = {}
        for name in listed(f"{node}/$properties"):
            keys = ("name", "datatype", "format", "settable", "retained", "unit")
            properties[name] = {key: text for key in keys if (text := said(f"{node}/{name}/${key}"))}
        nodes[node] = {"name": said(f"{node}/$name"), "type": said(f"{node}/$type"), "properties": properties}
        if not properties:
            made.offer(said("$name") or base.rpartition("/")[2], node).leave("it has no $properties")
    return _document(made, base.rpartition("/")[2], json.dumps({"name": said("$name"), "nodes": nodes}))


@dataclass
class _Spot:
    """A property with its topic and its line on the account."""

    key: str
    property: Property
    topic: str
    state: str
    feature: Feature

    def at(self, *, is_set: bool = False, **rest: Any) -> dict[str, Any]:
        """Return where it is read, and set."""
        told = {"set_topic": f"{self.topic}/set"} if is_set else {}
        return {"topic": self.topic, **told, "is_asked": False, "availability_topic": self.state, **rest}


class _Device:
    """One device on its way into a site."""

    def __init__(self, made: Imported, driver: str, base: str, name: str, described: Description) -> None:
        self._made, self._driver, self._base, self._described = made, driver, base, described
        self._title = described.name or name
        self._is_v5 = base.rpartition("/")[0].endswith("/5")
        # The last will of a child is that of its root, which holds the connection.
        self._state = f"{base.rpartition('/')[0]}/{described.root or name}/$state"

    def take(self) -> None:
        """Put what it is into the site, and every property on the account."""
        outputs, sensors = list[Part](), Part("sensor")
        for node_id, node in self._described.nodes.items():
            spots = [self._spot(node_id, key, one) for key, one in node.properties.items()]
            words = f"{self._title} {node.name or node_id} {node.type}".lower()
            if not any(spot.property.settable and spot.property.retained for spot in spots):
                for spot in spots:
                    self._take_own(sensors, spot, node.name or node_id)
                continue
            outputs.append(part := self._output(node.name or node_id, words, spots))
            for spot in spots:
                if spot.feature.reason:
                    self._take_own(part, spot, node.name or node_id)
        if not self._described.nodes:
            self._made.notes.append(f"{plain_text(self._title)}: it has no nodes")
        outputs = self._with_titles([part for part in outputs if part.at])
        add_parts(self._made, self._title, self._driver, outputs, sensors)

    def _with_titles(self, outputs: list[Part]) -> list[Part]:
        """Return the outputs; several are called by their nodes, behind the name of the device unless they have it."""
        for part in outputs:
            if len(outputs) == 1:
                part.title = ""
            elif not part.title.lower().startswith(self._title.lower()):
                part.title = f"{self._title} {part.title}"
        return outputs

    def _spot(self, node: str, key: str, found: Property) -> _Spot:
        feature = self._made.offer(self._title, f"{node}/{key}")
        return _Spot(key, found, f"{self._base}/{node}/{key}", self._state, feature)

    def _output(self, title: str, words: str, spots: Sequence[_Spot]) -> Part:
        """Return the device that a node becomes: a light, a switch, a thermostat, or nothing that is known."""
        settable = [spot for spot in spots if spot.property.settable and spot.property.retained]
        on = next((one for one in settable if one.key in ON and one.property.datatype == "boolean"), None)
        level = next((one for one in settable if one.key in LEVEL and _highest(one.property)), None)
        color = next((one for one in settable if one.property.datatype == "color" and self._space(one.property)), None)
        if on and not HARMFUL.search(words):
            is_light = bool(level or color or LIGHT.search(words))
            noun, model = ("light", "dimmable_light" if level else "light") if is_light else ("switch", "switch")
            part = Part(noun, title, 1, {"model": model})
            part.bind("on", on.at(is_set=True), on.feature)
            if level:
                part.bind("brightness", level.at(is_set=True, **_scale(level.property)), level.feature)
            if color:
                part.color(color.at(is_set=True, color=self._space(color.property)), color.feature)
            self._take_warmth(part, settable)
            return part
        target = next((one for one in settable if re.search(r"target|set-?point", one.key) and _schema(one)), None)
        if target and target.property.unit == "°C":
            return _thermostat(title, target, spots)
        return Part("device", title)

    def _take_warmth(self, part: Part, settable: Sequence[_Spot]) -> None:
        for spot in settable:
            unit = UNITS_HERE.get(spot.property.unit, "")
            low, high, _ = _limits(spot.property)
            is_range = bool(low and high and low < high)
            if spot.key in WARMTH and unit in {"kelvin", "mired"} and is_range and "color_temp" not in part.at:
                assert low and high
                part.color_temp(round(low), round(high), unit, spot.at(is_set=True), spot.feature)

    def _space(self, found: Property) -> str:
        """Return the first form of a color that is known here, or ""."""
        forms = [form.strip() for form in found.format.split(",")]
        known = ("rgb", "hsv", "xyz") if self._is_v5 else ("rgb", "hsv")
        return next((f"homie{'5' if self._is_v5 else ''}_{form}" for form in forms if form in known), "")

    def _take_own(self, part: Part, spot: _Spot, node: str) -> None:
        """Take a property that no model has: read, and set with a yes if it lets itself be set."""
        found, feature = spot.property, spot.feature
        if not found.retained:
            feature.leave(EVENT)
        elif found.datatype in NOT_TAKEN:
            feature.leave(NOT_TAKEN[found.datatype])
        elif (made := _schema(spot)) is None:
            feature.leave(_why_none(found))
        else:
            name, schema, more = made
            has_limits = found.datatype not in {"integer", "float"} or None not in _limits(found)[:2]
            known = set(part.at)
            is_set = found.settable and has_limits
            part.own(part_name(name), schema, spot.at(is_set=is_set, **more), feature, node)
            (name,) = part.at.keys() - known
            if is_set:
                part.actions |= setters(name, name.replace("_", " "), part.properties[name])
            elif found.settable:
                self._made.offer(self._title, f"{feature.name}/set").leave(NO_LIMITS)


def _thermostat(title: str, target: _Spot, spots: Sequence[_Spot]) -> Part:
    """Return a thermostat, with the temperature that its node measures."""
    measured = next((one for one in spots if "temperature" in one.key and _is_measured(one.property)), None)
    part = Part("thermostat", title, 1, {"model": "thermostat" if measured else "climate_target"})
    made = _schema(target)
    assert made  # the caller has looked
    limits = {key: value for key, value in made[1].items() if key in {"minimum", "maximum", "step"}}
    part.properties["target_c"] = limits
    part.actions["set"] = {"input": {"target_c": {"type": made[1]["type"], **limits}}}
    part.bind("target_c", target.at(is_set=True), target.feature)
    if measured:
        part.bind("temperature_c", measured.at(), measured.feature)
    return part


def _is_measured(found: Property) -> bool:
    return found.retained and not found.settable and found.unit == "°C" and found.datatype in {"integer", "float"}


def _limits(found: Property) -> tuple[float | None, float | None, float | None]:
    try:
        return found.limits()
    except ValueError:
        return None, None, None


def _highest(found: Property) -> float | None:
    """Return the highest level of a brightness that begins with 0; a percentage without limits ends with 100."""
    if found.datatype not in {"integer", "float"}:
        return None
    low, high, _ = (0.0, 100.0, None) if found.unit == "%" and not found.format else _limits(found)
    return high if low == 0 and high and high > 0 else None


def _scale(found: Property) -> dict[str, Any]:
    highest = _highest(found)
    assert highest  # the caller has looked
    raw_step = {"raw_step": 1} if found.datatype == "integer" else {}
    return ({"scale": plain_number(100 / highest)} if highest != 100 else {}) | raw_step


def _schema(spot: _Spot) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    """Return name and schema of a property, and what else its address has; None if it has no place."""
    found = spot.property
    if found.datatype == "boolean":
        labels = [word.strip() for word in found.format.split(",")]
        has_words = len(labels) == 2 and all(WORD.fullmatch(word) for word in labels)
        return spot.key, boolean_schema(labels[1], labels[0]) if has_words else boolean_schema(), {}
    if found.datatype == "enum":
        words = [word for word in found.format.split(",") if word]
        values = {word: word for word in words if _as_json(word) is not None}
        schema = {"type": "string", "enum": words}
        is_known = all(
            isinstance(value := _as_json(word), str | int | float) and text_of(value) == word for word in values
        )
        is_known = is_known and "null" not in words
        return (spot.key, schema, {"values": values} if values else {}) if is_known and is_plain(schema) else None
    return _number(spot) if found.datatype in {"integer", "float"} else None


def _as_json(word: str) -> Any:
    """Return what a driver reads where this word is sent, or None if it reads the word."""
    try:
        return json.loads(word)
    except ValueError:
        return None


def _number(spot: _Spot) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    found = spot.property
    try:
        low, high, step = found.limits()
    except ValueError:
        return None
    unit = plain_unit(found.unit, UNITS_HERE)
    name, schema = number_schema(spot.key.replace("-", ""))
    name = name if name != spot.key.replace("-", "") else spot.key
    if unit and unit != schema.get("unit"):
        schema |= {"minimum": -ANY, "maximum": ANY, "unit": unit}
    schema["minimum"] = schema["minimum"] if low is None else plain_number(low)
    schema["maximum"] = schema["maximum"] if high is None else plain_number(high)
    is_whole = found.datatype == "integer" and all(float(schema[key]).is_integer() for key in ("minimum", "maximum"))
    schema["type"] = "integer" if is_whole else "number"
    if step and is_multiple(float(schema["minimum"]), step) and (not is_whole or step.is_integer()):
        schema["step"] = plain_number(step)
    return (name, schema, {}) if is_plain(schema) else None


def _why_none(found: Property) -> str:
    if found.datatype == "enum":
        return NO_WORDS
    if found.datatype in {"integer", "float"}:
        return "its limits are none"
    return (
        "a color of something that is no light"
        if found.datatype == "color"
        else f"of the type {plain_text(found.datatype)[:20]}"
    )

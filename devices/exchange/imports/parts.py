"""What a box on a wall has: outputs, each a device of the site, and sensors, which join the only output there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from devices.exchange.imports.imported import WIDEST, Feature, Imported, part_name, plain_name

ABOUT_ITSELF = "it is about the device itself"
SET_UP = "it is how the device is set up"
# What others call a reading, and what a site does: the name, and least, most and unit.
NUMBERS: dict[str, tuple[str, float, float, str]] = {
    "temperature": ("temperature_c", -60, 150, "degrees"),
    "humidity": ("humidity", 0, 100, "percent"),
    "dewpoint": ("dew_point", -60, 100, "degrees"),
    "pressure": ("pressure", 0, 2000, "hectopascals"),
    "seapressure": ("sea_pressure", 0, 2000, "hectopascals"),
    "illuminance": ("illuminance", 0, 200000, "lux"),
    "carbondioxide": ("co2", 0, 50000, "ppm"),
    "eco2": ("co2_equivalent", 0, 70000, "ppm"),
    "tvoc": ("voc", 0, 100000, "ppb"),
    "pm1": ("pm1", 0, 5000, "µg/m³"),
    "pm2.5": ("pm25", 0, 5000, "µg/m³"),
    "pm10": ("pm10", 0, 5000, "µg/m³"),
    "moisture": ("moisture_pct", 0, 100, "percent"),
    "distance": ("distance", 0, 100000, "centimetres"),
    "power": ("power", -100000, 100000, "watts"),
    "apparentpower": ("apparent_power", 0, 100000, "VA"),
    "reactivepower": ("reactive_power", -100000, 100000, "var"),
    "factor": ("power_factor", -1, 1, ""),
    "frequency": ("frequency", 0, 1000, "hertz"),
    "voltage": ("voltage", -1000, 1000, "volts"),
    "current": ("current", -1000, 1000, "amperes"),
    "total": ("energy", 0, 10000000, "kilowatt hours"),
    "today": ("energy_today", 0, 100000, "kilowatt hours"),
    "yesterday": ("energy_yesterday", 0, 100000, "kilowatt hours"),
    "battery": ("battery", 0, 100, "percent"),
}
NUMBERS |= {"co2": NUMBERS["carbondioxide"], "energy": NUMBERS["total"], "pm25": NUMBERS["pm2.5"]}
TITLES = {"temperature_c": "temperature", "co2": "carbon dioxide", "moisture_pct": "moisture"}


@dataclass
class Part:
    """A device in the making.

    Attributes:
        noun: what it is, as people say.
        title: its own name, or "".
        number: which of its kind it is in the box, from 1.
        entry: its model, models or kind.
        properties: those that no model has, or in which it differs.
        actions: likewise.
        at: where its properties are.
        features: those of the source that it has.
    """

    noun: str
    title: str = ""
    number: int = 1
    entry: dict[str, Any] = field(default_factory=lambda: {"kind": "sensor"})
    properties: dict[str, Any] = field(default_factory=dict)
    actions: dict[str, Any] = field(default_factory=dict)
    at: dict[str, Any] = field(default_factory=dict)
    features: list[Feature] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """The models that it is of."""
        named = self.entry.get("model", [])
        return [named] if isinstance(named, str) else named

    def be(self, model: str) -> None:
        """Make it one of a model, too."""
        if model not in self.models:
            models = [*self.models, model]
            self.entry = {"model": models if len(models) > 1 else model}

    def bind(self, name: str, at: Mapping[str, Any], *features: Feature) -> None:
        """Say where a property of the model is; the features are taken with it."""
        self.at[name] = dict(at)
        self.features += features
        for feature in features:
            feature.take()

    def own(
        self, name: str, schema: Mapping[str, Any], at: Mapping[str, Any], feature: Feature, sensor: str = ""
    ) -> None:
        """Take a property that the model does not have; it is named after its sensor if another has its name."""
        name = part_name(plain_name(f"{sensor} {name}") if name in self.at else name)
        base, number = name, 2
        while name in self.at:
            name, number = f"{base}_{number}", number + 1
        is_titled = schema["type"] == "boolean" or name in TITLES
        title = {"title": TITLES.get(name, name.replace("_", " "))} if is_titled else {}
        self.properties[name] = dict(schema) | title
        self.bind(name, at, feature)

    def color(self, at: Mapping[str, Any], feature: Feature) -> None:
        """Take the color of a light, by name."""
        self.be("color")
        self.bind("color", at, feature)

    def color_temp(self, low: int, high: int, unit: str, at: Mapping[str, Any], feature: Feature) -> None:
        """Take the color temperature of a light, with the action that sets it."""
        schema = {"type": "integer", "minimum": low, "maximum": high, "unit": unit}
        title = {"title": "color temperature"}
        self.properties["color_temp"] = schema | title
        writes = {"on": True, "color_temp": "$color_temp"}
        self.actions["color_temp"] = title | {"input": {"color_temp": schema}, "writes": writes}
        self.bind("color_temp", at, feature)

    def site_entry(self, driver: str) -> dict[str, Any]:
        """Return the device as the site file has it."""
        return self.entry | {"driver": driver} | self.own_parts

    @property
    def own_parts(self) -> dict[str, Any]:
        """What the site file has of it beside its model and its driver."""
        parts = {"properties": self.properties, "actions": self.actions, "at": self.at}
        return {key: value for key, value in parts.items() if value}


def number_schema(name: str, unit: str = "") -> tuple[str, dict[str, Any]]:
    """Return name and schema of a number that is only read, from what others call it and their unit."""
    known = NUMBERS.get(name.lower())
    own, low, high, usual = known or (plain_name(name), -WIDEST, WIDEST, "")
    schema: dict[str, Any] = {"type": "number", "minimum": low, "maximum": high}
    return own, schema | ({"unit": unit or usual} if unit or usual else {})


def add_parts(made: Imported, title: str, driver: str, outputs: Sequence[Part], sensors: Part) -> None:
    """Take the outputs of a box as devices, and its sensors: with the only output, or as one more device."""
    if len(outputs) == 1:
        (output,) = outputs
        for name, at in sensors.at.items():
            taken = plain_name(f"sensor {name}") if name in output.at else name
            output.at[taken], output.properties[taken] = at, sensors.properties[name]
        output.features += sensors.features
    for output in outputs:
        alone = len(outputs) == 1 or (title.lower().endswith(output.noun) and output.number == 1)
        is_counted = sum(other.noun == output.noun for other in outputs) > 1
        part = "" if alone or output.title else output.noun + (f" {output.number}" if is_counted else "")
        made.add(output.title or title, output.noun, output.site_entry(driver), part, output.features)
    if sensors.at and len(outputs) != 1:
        part = "sensors" if outputs else ""
        made.add(title, "sensor", sensors.site_entry(driver), part, sensors.features)


def leaves(body: Any, path: tuple[str, ...] = (), *, in_lists: bool = True) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value of an object, and of lists in it, that is none itself or an empty one, with where it is."""
    kinds = dict | list if in_lists else dict
    if isinstance(body, kinds) and body:
        for key, value in body.items() if isinstance(body, dict) else enumerate(body):
            yield from leaves(value, (*path, str(key)), in_lists=in_lists)
    elif path:
        yield path, body

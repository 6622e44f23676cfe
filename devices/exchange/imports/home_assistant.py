"""Sites from Home Assistant: its states, and the registries of areas, floors, devices and entities.

In: the list of `/api/states`, or an object with it as `states` and with `areas`, `floors`, `devices` and `entities`:
the answers to `config/area_registry/list` and so on, or the files of `.storage`. Entities of one device are a box with
outputs and sensors. Every entity is on the account. Home Assistant itself is asked and told, over its REST API with a
token.
Source: Home Assistant, "REST API", "WebSocket API", and its domains with their device classes.

Does not guard against: automations there that change what this site has just set.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from devices.errors import UsageError
from devices.exchange.imports.home_assistant_domains import (
    DOMAINS,
    climate_range,
    take_choice,
    take_climate_modes,
    take_levels,
)
from devices.exchange.imports.imported import (
    FREE_TEXT,
    NO_PLACE,
    NO_WORDS,
    OTHER_COLOR,
    UNITS,
    Feature,
    Imported,
    boolean_schema,
    driver_of,
    plain_name,
)
from devices.exchange.imports.parts import SET_UP, Part, add_parts, number_schema

PORT = 8123
TOKEN_ENV = "HASS_TOKEN"  # noqa: S105 - the name of a variable
ENTITY = re.compile(r"[a-z0-9_]+\.[a-z0-9_]+")
UNITS_HERE = UNITS | {
    "kW": "kilowatts", "Wh": "watt hours", "Hz": "hertz", "ppm": "ppm", "ppb": "ppb", "µg/m³": "µg/m³",
    "°": "",  # of an angle: degrees are of a temperature
}  # fmt: skip
CLASSES = {
    "carbon_dioxide": "CarbonDioxide", "volatile_organic_compounds_parts": "TVOC", "pm25": "PM2.5", "energy": "Total",
}  # fmt: skip
TRUTHS = {
    "door": ("open", "open", "closed"), "window": ("open", "open", "closed"), "opening": ("open", "open", "closed"),
    "garage_door": ("open", "open", "closed"), "motion": ("motion", "detected", "clear"),
    "occupancy": ("occupied", "occupied", "clear"), "presence": ("occupied", "occupied", "clear"),
    "moisture": ("wet", "wet", "dry"), "smoke": ("smoke", "detected", "clear"), "gas": ("gas", "detected", "clear"),
    "battery": ("battery_low", "low", "good"), "tamper": ("tamper", "detected", "clear"),
}  # fmt: skip
GATES = {"door", "garage", "gate"}
COLOR_MODES = {"hs", "xy", "rgb", "rgbw", "rgbww"}


def import_home_assistant(entries: list[dict[str, Any]], host: str, source: str = "the states") -> Imported:
    """Return the devices of Home Assistant's states.

    Args:
        entries: the states; or one object with them and the registries.
        host: where Home Assistant is, by name, address or URL.
        source: the file, for messages.

    Raises:
        UsageError: a state is no object or has no entity_id; with file, number and field.
    """
    return _Home(entries[0] if "states" in entries[0] else {"states": entries}, host, source).imported()


class _Home:
    """Home Assistant's states and registries on their way into a site."""

    def __init__(self, body: dict[str, Any], host: str, source: str) -> None:
        self._source = source
        self._states = {str(state["entity_id"]): state for state in self._rows(body, "states", "entity_id")}
        self._entities = {str(row["entity_id"]): row for row in self._rows(body, "entities", "entity_id")}
        self._devices = {str(row["id"]): row for row in self._rows(body, "devices", "id")}
        self._areas = self._rows(body, "areas", "name")
        self._floors = self._rows(body, "floors", "name")
        self._area_names = {
            str(row.get("area_id", row.get("id", row["name"]))): plain_name(row["name"]) for row in self._areas
        }
        self._made = Imported()
        auth = {"scheme": "bearer", "secret_env": TOKEN_ENV}
        url = host if "://" in host else f"http://{host}:{PORT}"
        settings = {"type": "http", "url": url, "auth": auth}
        self._driver = driver_of(self._made, "home_assistant", settings)
        self._made.notes.append(f"Home Assistant wants a token: export {TOKEN_ENV}=… before you use it")

    def _rows(self, body: dict[str, Any], key: str, field: str) -> list[dict[str, Any]]:
        found = body.get(key, [])
        while isinstance(found, dict):  # an answer has `result`, a file has `data`
            found = found.get("result", found.get("data", found.get(key)))
        if not isinstance(found, list):
            raise UsageError(f"{self._source}: {key} is no list")
        for number, row in enumerate(found, 1):
            if not isinstance(row, dict) or not isinstance(row.get(field), str):
                raise UsageError(f"{self._source}: {key} {number} has no {field}")
            if field == "entity_id" and not ENTITY.fullmatch(row[field]):
                raise UsageError(f"{self._source}: {key} {number}: {plain_name(row[field])} is no entity_id")
            if key == "states" and not isinstance(row.get("attributes"), dict):
                raise UsageError(f"{self._source}: {key} {number}: {row[field]} has no attributes")
        return found

    def imported(self) -> Imported:
        """Put every device into the site, and say of every entity what became of it."""
        boxes: dict[str, list[str]] = {}
        for entity in self._states:
            boxes.setdefault(str(self._entities.get(entity, {}).get("device_id") or entity), []).append(entity)
        for device, entities in boxes.items():
            self._take_box(self._devices.get(device, {}), entities)
        used = {entry.get("area") for entry in self._made.devices.values()}
        for row in self._areas:
            feature, name = self._made.offer("Home Assistant", f"area {row['name']}"), plain_name(row["name"])
            if name in used and name not in self._made.areas:
                self._made.areas[name] = _place(name, row) | self._floor_of(row)
                feature.take()
            else:
                feature.leave("no device that the site has stands in it")
        for row in self._floors:
            feature = self._made.offer("Home Assistant", f"floor {row['name']}")
            feature.leave("" if self._floor_name(row) in self._made.floors else "no area that the site has is on it")
        return self._made

    def _floor_name(self, row: Mapping[str, Any]) -> str:
        name = plain_name(row["name"])
        return f"{name}_floor" if name in self._area_names.values() else name

    def _floor_of(self, area: Mapping[str, Any]) -> dict[str, str]:
        """Return on which floor an area is, which the site then has."""
        for row in self._floors:
            if area.get("floor_id") and row.get("floor_id", row.get("id")) == area["floor_id"]:
                name = self._floor_name(row)
                self._made.floors[name] = _place(name, row)
                return {"floor": name}
        return {}

    def _area_of(self, device: Mapping[str, Any], entities: Sequence[str]) -> str:
        """Return the area of a device; an entity may be in another than its device, and then the first one's counts."""
        rows = [*(self._entities.get(entity, {}) for entity in entities), device]
        wanted = next((row["area_id"] for row in rows if row.get("area_id")), None)
        return self._area_names.get(str(wanted), "")

    def _take_box(self, device: Mapping[str, Any], entities: Sequence[str]) -> None:
        outputs, sensors, title, known = list[Part](), Part("sensor"), "", set(self._made.devices)
        for entity in entities:
            name = str(self._states[entity]["attributes"].get("friendly_name") or entity.partition(".")[2])
            feature = self._made.offer(name, entity)
            title = title or str(device.get("name_by_user") or device.get("name") or name)
            row = self._entities.get(entity, {})
            if row.get("entity_category"):
                feature.leave(SET_UP)
            elif row.get("hidden_by") or row.get("disabled_by"):
                feature.leave("it is hidden in Home Assistant")
            elif part := Entity(self._made, entity, self._states[entity], name, feature).take(sensors):
                outputs.append(part)
        add_parts(self._made, title, self._driver, outputs, sensors)
        if area := self._area_of(device, entities):
            for name in self._made.devices.keys() - known:
                self._made.devices[name]["area"] = area


def _place(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an area or floor as the site file has it, with what else people call it."""
    listed = row.get("aliases")
    found = (plain_name(str(alias)).replace("_", " ") for alias in (listed if isinstance(listed, list) else ()))
    aliases = [alias for alias in dict.fromkeys(found) if alias != name.replace("_", " ")]
    return {"title": name.replace("_", " ")} | ({"aliases": aliases} if aliases else {})


class Entity:
    """One entity: its state, and its line on the account. The models of most domains are in home_assistant_domains."""

    def __init__(self, made: Imported, entity: str, state: dict[str, Any], name: str, feature: Feature) -> None:
        self.entity, self.name, self.feature = entity, name, feature
        self.domain, self.attributes = entity.partition(".")[0], state["attributes"]
        self._made = made

    def take(self, sensors: Part) -> Part | None:
        """Return the device that the entity becomes, if it is no sensor and has a place."""
        if self.domain == "sensor":
            self._take_sensor(sensors)
        elif self.domain == "binary_sensor":
            name, *labels = TRUTHS.get(str(self.attributes.get("device_class")), (plain_name(self.name), "on", "off"))
            sensors.own(name, boolean_schema(*labels), self.at("state", words=["off", "on"]), self.feature, self.name)
        elif make := MAKERS.get(self.domain):
            return make(self)
        else:
            self.feature.leave(f"a site has no kind for a {self.domain.replace('_', ' ')}")
        return None

    def at(self, key: str, **rest: Any) -> dict[str, Any]:
        """Return where a value is read."""
        return {"path": f"/api/states/{self.entity}", "key": key, **rest}

    def told(self, key: str, service: str, set_key: str, **rest: Any) -> dict[str, Any]:
        """Return where a value is read, and set by a service."""
        path = f"/api/services/{self.domain}/{service}"
        return self.at(key, set_path=path, set_key=set_key, body={"entity_id": self.entity}, **rest)

    def switched(
        self, off: str = "turn_off", on: str = "turn_on", words: tuple[str, str] = ("off", "on")
    ) -> dict[str, Any]:
        """Return where on and off are read, and set by two services."""
        paths = [f"/api/services/{self.domain}/{service}" for service in (off, on)]
        return self.at("state", words=list(words), set_paths=paths, body={"entity_id": self.entity})

    def part(self, noun: str, model: str) -> Part:
        """Return the device that the entity becomes."""
        return Part(noun, self.name, 1, {"model": model})

    def number(self, key: str) -> float | None:
        """Return an attribute that is a number."""
        value = self.attributes.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def note(self, text: str) -> None:
        """Say something that a person must know."""
        self._made.notes.append(text)

    def more(self, what: str, reason: str = "") -> Feature:
        """Put something else of the entity on the account, taken or left out."""
        feature = self._made.offer(self.name, f"{self.entity} {what}")
        feature.leave(reason)
        return feature

    def _take_sensor(self, sensors: Part) -> None:
        kind, unit = str(self.attributes.get("device_class") or ""), self.attributes.get("unit_of_measurement")
        options = self.attributes.get("options")
        if kind == "enum" and isinstance(options, list) and options:
            if all(isinstance(word, str) and re.fullmatch(r"\w{1,40}", word) for word in options):
                schema = {"type": "string", "enum": list(options)}
                sensors.own(plain_name(self.name), schema, self.at("state"), self.feature, self.name)
            else:
                self.feature.leave(NO_WORDS)
        elif not unit and "state_class" not in self.attributes:
            self.feature.leave(FREE_TEXT)
        else:
            known = CLASSES.get(kind, kind.replace("_", ""))
            name, schema = number_schema(known or self.name, UNITS_HERE.get(str(unit), ""))
            sensors.own(name, schema, self.at("state"), self.feature, self.name)


def _light(entity: Entity) -> Part:
    listed = entity.attributes.get("supported_color_modes")
    modes = {str(mode) for mode in listed} if isinstance(listed, list) else set[str]()
    has_brightness = bool(modes - {"onoff", "unknown"})
    part = entity.part("light", "dimmable_light" if has_brightness else "light")
    part.bind("on", entity.switched(), entity.feature)
    if has_brightness:
        place = entity.told("attributes.brightness", "turn_on", "brightness", scale=100 / 255, when_null=0)
        part.bind("brightness", place)
    low, high = entity.number("min_color_temp_kelvin"), entity.number("max_color_temp_kelvin")
    if "color_temp" in modes and low and high:
        place = entity.told("attributes.color_temp_kelvin", "turn_on", "color_temp_kelvin")
        part.color_temp(int(low), int(high), "kelvin", place, entity.more("color_temp"))
    if modes & COLOR_MODES:
        entity.more("color", OTHER_COLOR)
    if entity.attributes.get("effect_list"):
        entity.more("effects", NO_PLACE)
    return part


def _switch(entity: Entity) -> Part:
    part = entity.part("switch", "switch")
    part.bind("on", entity.switched(), entity.feature)
    return part


def _fan(entity: Entity) -> Part:
    part = entity.part("fan", "fan_switch")
    part.bind("on", entity.switched(), entity.feature)
    if entity.number("percentage_step"):
        schema: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 100, "unit": "percent"}
        take_levels(entity, schema)
        part.properties["speed"] = schema
        part.actions["set_speed"] = {"title": "speed", "input": {"speed": dict(schema)}, "writes": {"speed": "$speed"}}
        part.bind("speed", entity.told("attributes.percentage", "set_percentage", "percentage", when_null=0))
    preset_key = "attributes.preset_mode"
    take_choice(entity, part, "preset", "preset_modes", preset_key, "set_preset_mode", "preset_mode")
    return part


def _cover(entity: Entity) -> Part | None:
    if entity.number("current_position") is None:
        entity.feature.leave("it does not say where it stands")
        return None
    is_gate = str(entity.attributes.get("device_class")) in GATES
    part = entity.part("door" if is_gate else "blinds", "door" if is_gate else "blinds")
    moving = {"key": "state", "values": ["opening", "closing"]}
    place = entity.told("attributes.current_position", "set_cover_position", "position", moving=moving)
    part.bind("position", place, entity.feature)
    return part


def _lock(entity: Entity) -> Part:
    part = entity.part("lock", "lock")
    part.bind("locked", entity.switched("unlock", "lock", ("unlocked", "locked")), entity.feature)
    return part


def _climate(entity: Entity) -> Part | None:
    low, high = entity.number("min_temp"), entity.number("max_temp")
    if low is not None and high is not None and entity.number("target_temp_low") is not None:
        part = climate_range(entity, low, high)
        take_climate_modes(entity, part)
        return part
    if low is None or high is None or not {"temperature", "current_temperature"} <= entity.attributes.keys():
        entity.feature.leave("it has not both a target and a temperature")
        return None
    part = entity.part("thermostat", "thermostat")
    limits = {"minimum": math.ceil(low), "maximum": math.floor(high)}
    part.properties["target_c"] = {"minimum": low, "maximum": high}
    part.actions["set"] = {"input": {"target_c": limits}}
    part.bind("target_c", entity.told("attributes.temperature", "set_temperature", "temperature"), entity.feature)
    part.bind("temperature_c", entity.at("attributes.current_temperature"))
    take_climate_modes(entity, part)
    return part


MAKERS: dict[str, Callable[[Entity], Part | None]] = {
    "light": _light,
    "switch": _switch,
    "input_boolean": _switch,
    "fan": _fan,
    "cover": _cover,
    "lock": _lock,
    "climate": _climate,
    **DOMAINS,
}

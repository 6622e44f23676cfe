"""The home of Home Assistant's intents tests (`tests/en/_fixtures.yaml`) as a site: what of it a site has models for.

An entity that a site has no model for is known without a device, so that whoever asks for it can be told why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.exchange.imports.imported import plain_name
from devices.site.schema import Value
from devices.site.site import Site, build_site, load_models
from devices.yaml_file import parse_yaml, plain_values, read_yaml

HOME_FILE = "_fixtures.yaml"
MODELS = {
    "light": ("dimmable_light", "color"), "switch": ("switch",), "fan": ("fan_switch",), "cover": ("blinds",),
    "lock": ("lock",), "climate": ("thermostat",), "media_player": ("media_player", "media_volume", "media_track"),
    "vacuum": ("vacuum",), "scene": ("scene",), "script": ("scene",),
}  # fmt: skip
GATES = {"door", "garage", "gate"}
READINGS = {  # of a sensor's device class: its model and property
    ("binary_sensor", "door"): ("contact", "open"), ("binary_sensor", "window"): ("contact", "open"),
    ("binary_sensor", "opening"): ("contact", "open"), ("binary_sensor", "garage_door"): ("contact", "open"),
    ("binary_sensor", "motion"): ("motion_sensor", "motion"), ("binary_sensor", "moisture"): ("leak", "wet"),
    ("binary_sensor", "occupancy"): ("occupancy", "occupied"), ("binary_sensor", "smoke"): ("smoke", "smoke"),
    ("binary_sensor", "gas"): ("gas", "gas"), ("binary_sensor", "tamper"): ("tamper", "tamper"),
    ("binary_sensor", "carbon_monoxide"): ("carbon_monoxide", "carbon_monoxide"),
    ("binary_sensor", "vibration"): ("vibration", "vibration"),
    ("binary_sensor", "battery"): ("battery_low", "battery_low"),
    ("sensor", "temperature"): ("temperature", "temperature_c"), ("sensor", "humidity"): ("humidity", "humidity"),
    ("sensor", "moisture"): ("moisture", "moisture_pct"), ("sensor", "atmospheric_pressure"): ("pressure", "pressure"),
    ("sensor", "illuminance"): ("illuminance", "illuminance"), ("sensor", "carbon_dioxide"): ("co2", "co2"),
    ("sensor", "pm25"): ("pm25", "pm25"), ("sensor", "pm10"): ("pm10", "pm10"), ("sensor", "power"): ("power", "power"),
    ("sensor", "energy"): ("energy", "energy"), ("sensor", "voltage"): ("voltage", "voltage"),
    ("sensor", "current"): ("current", "current"), ("sensor", "battery"): ("battery", "battery"),
}  # fmt: skip
ANY_TEMPERATURE = {"minimum": 0, "maximum": 100}  # the home has no limits, and says not of which scale its degrees are
STATES: dict[str, tuple[str, dict[str, Value]]] = {
    "light": ("on", {"on": True, "off": False}), "switch": ("on", {"on": True, "off": False}),
    "fan": ("on", {"on": True, "off": False}), "cover": ("position", {"open": 100, "closed": 0}),
    "lock": ("locked", {"locked": True, "unlocked": False}), "vacuum": ("state", {"idle": "idle"}),
    "media_player": ("state", {"idle": "idle"}),
}  # fmt: skip
MAIN = {domain: name for domain, (name, _) in STATES.items()} | {"climate": "temperature_c"}


@dataclass(frozen=True)
class Entity:
    """An entity of the home. `device` is its name in the site, "" if the site has no model for it.

    `reading` is the property that tells its state, "" if none does. `area` and `floor` are names, "" for none.
    """

    domain: str
    name: str
    area: str
    floor: str
    device_class: str
    state: str
    device: str
    reading: str


@dataclass(frozen=True)
class Home:
    """The site, all entities of the home, and the areas' names by their ids."""

    site: Site
    entities: tuple[Entity, ...]


def read_home(path: Path) -> Home:
    """Return the home of a file of fixtures.

    Raises:
        UsageError: it cannot be read, has other keys, or no entity that a site has a model for.
    """
    root = plain_values(read_yaml(path, "home").root)
    try:
        floors = {one["id"]: one["name"] for one in root.get("floors", [])}
        areas = {one["id"]: (one["name"], floors.get(one.get("floor"), "")) for one in root["areas"]}
        devices: dict[str, dict[str, Any]] = {}
        entities = tuple(_taken(one, areas, devices) for one in root["entities"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: not a home of Home Assistant's intents: {error!r}") from error
    if not devices:
        raise UsageError(f"{path}: no entity has a model in a site")
    used = {device.get("area") for device in devices.values()}
    places = {plain_name(name): floor for name, floor in areas.values() if plain_name(name) in used}
    plain = {
        "schema": "site/v1",
        "name": "ha_intents",
        "title": "a house",
        "floors": {plain_name(floor): {} for floor in places.values() if floor},
        "areas": {name: {"floor": plain_name(floor)} if floor else {} for name, floor in places.items()},
        "devices": devices,
    }
    return Home(build_site(parse_yaml(json.dumps(plain), path)), entities)


def _taken(
    plain: Mapping[str, Any], areas: Mapping[str, tuple[str, str]], devices: dict[str, dict[str, Any]]
) -> Entity:
    """Return an entity, and put what a site has of it into the devices."""
    domain, attributes = plain["id"].partition(".")[0], plain.get("attributes") or {}
    name, device_class = str(plain["name"]), str(attributes.get("device_class", ""))
    area, floor = areas.get(plain.get("area", ""), ("", ""))
    state = plain.get("state", "")
    state = str(state["out"] if isinstance(state, dict) else state)
    models, reading, initial = _modelled(domain, device_class, state, attributes)
    device = _place_for(name, domain, device_class, models, devices) if models else ""
    if device:
        entry = devices.setdefault(device, {"model": [], "title": plain_name(name).replace("_", " "), "initial": {}})
        entry["model"] += models
        entry["initial"] |= initial
        if area:
            entry["area"] = plain_name(area)
        if domain == "climate":
            entry |= {
                "properties": {"target_c": ANY_TEMPERATURE, "temperature_c": ANY_TEMPERATURE},
                "actions": {"set": {"input": {"target_c": ANY_TEMPERATURE}}},
            }
    return Entity(domain, name, area, floor, device_class, state, device, reading if device else "")


def _place_for(
    name: str, domain: str, device_class: str, models: list[str], devices: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return the device that an entity is, or is a part of as readings of one name are; "" if all names are taken."""
    own = plain_name(name)
    known = devices.get(own)
    is_part = known and domain in {"sensor", "binary_sensor"} and not set(models) & set(known["model"])
    if not known or is_part:
        return own
    longer = plain_name(f"{name} {domain} {device_class}")
    return "" if longer in devices else longer


def _modelled(
    domain: str, device_class: str, state: str, attributes: Mapping[str, Any]
) -> tuple[list[str], str, dict[str, Value]]:
    """Return the models of an entity, the property that tells its state, and what it begins with."""
    if domain in MODELS:
        models = ["door"] if domain == "cover" and device_class in GATES else list(MODELS[domain])
        name, values = STATES.get(domain, (MAIN.get(domain, ""), {}))
        initial: dict[str, Value] = {name: values[state]} if state in values else {}
        if domain == "climate" and "current_temperature" in attributes:
            initial = {"temperature_c": float(attributes["current_temperature"])}
        return models, name, initial
    model, name = READINGS.get((domain, device_class), ("", ""))
    if not model:
        return [], "", {}
    if domain == "binary_sensor":
        return [model], name, {name: state == "on"}
    schema = load_models()[model]["properties"][name]
    try:
        value = float(state)
    except ValueError:
        return [], "", {}
    return ([model], name, {name: value}) if schema["minimum"] <= value <= schema["maximum"] else ([], "", {})

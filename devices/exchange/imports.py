"""Sites from what others know: zigbee2mqtt's device list, and W3C Thing Descriptions with HTTP forms.

What has no place here (colours, effects, events, actions that are no writes of a property) is left out by name.
Titles and names come from outside: they become plain words of a site file, which a person reads before using it.
Sources: zigbee2mqtt, "Exposes" and `zigbee2mqtt/bridge/devices`; W3C Web of Things Thing Description 1.1.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from pydantic import ValidationError
from ruamel.yaml import YAML

from devices.errors import UsageError
from devices.site.describe import plain_text
from devices.site.schema import DataSchema

SET = 2  # bit of zigbee2mqtt's `access`
LONGEST_NAME = 40
NO_PLACE = "a site has no place for it"
UNITS = {"%": "percent", "°C": "degrees", "lx": "lux"}


@dataclass
class Feature:
    """One feature of the source, and what became of it: until somebody takes it, it is left out.

    Attributes:
        device: what the source calls the device.
        name: of the feature.
        reason: why it is left out; "" once it is taken.
    """

    device: str
    name: str
    reason: str = NO_PLACE

    def take(self) -> None:
        """Note that the site has it."""
        self.reason = ""

    def leave(self, reason: str) -> None:
        """Note why the site does not have it."""
        self.reason = reason


@dataclass
class Imported:
    """A site's devices and drivers as its file has them, the account of features, and what else there is to say."""

    devices: dict[str, Any] = field(default_factory=dict)
    drivers: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    features: list[Feature] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def offer(self, device: str, name: str) -> Feature:
        """Put a feature of the source on the account."""
        feature = Feature(plain_text(device), plain_text(name))  # a terminal shows them
        self.features.append(feature)
        return feature

    def add(self, title: str, noun: str, entry: dict[str, Any], part: str = "") -> str:
        """Take a device; return its name.

        Args:
            title: what the source calls it.
            noun: what it is, as people say.
            entry: as the site file has it.
            part: which part of the thing it is, such as left.
        """
        base = plain_name(f"{title or noun} {part}")
        name, number = base, 2
        while name in self.devices:
            name, number = f"{base}_{number}", number + 1
        self.devices[name] = {"title": name.replace("_", " "), **entry}
        return name

    @property
    def left_out_features(self) -> list[str]:
        """Each kind of feature that was left out, of which devices and why."""
        found: dict[tuple[str, str], list[str]] = {}
        for feature in self.features:
            if feature.reason:
                found.setdefault((feature.name, feature.reason), []).append(feature.device)
        return [f"{name} of {', '.join(dict.fromkeys(devices))}: {why}" for (name, why), devices in found.items()]

    @property
    def counts(self) -> str:
        """How many features there were, were taken and were left out: the last two add up to the first."""
        count, taken = len(self.features), sum(not feature.reason for feature in self.features)
        return f"{len(self.devices)} devices; {count} features: {taken} taken, {count - taken} left out"

    def site_file(self, name: str) -> str:
        """Return the site file. Raises UsageError if there is no device to put into it."""
        if not self.devices:
            reasons = "; ".join([*self.left_out, *self.left_out_features, *self.notes])
            raise UsageError(f"there is no device to import{reasons and f': {reasons}'}")
        text = io.StringIO()
        yaml = YAML(typ="rt", pure=True)
        yaml.width = 120
        root = {"schema": "site/v1", "name": plain_name(name), "title": name.replace("_", " ")}
        yaml.dump(root | {"drivers": self.drivers, "devices": self.devices}, text)
        return text.getvalue()


def plain_name(text: str) -> str:
    """Return a text as a name: small letters, digits and underscores, of a length that people can say."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()  # ü becomes u
    words = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")[:LONGEST_NAME].strip("_")
    return words if words[:1].isalpha() else f"device_{words}".rstrip("_")


def import_file(path: Path, host: str = "127.0.0.1") -> Imported:
    """Return what a JSON file holds: zigbee2mqtt's devices, Thing Descriptions, or others' answers.

    Args:
        path: the file.
        host: the MQTT broker that zigbee2mqtt or Tasmota uses, or Home Assistant.

    Raises:
        UsageError: it cannot be read, or is neither.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    entries = found if isinstance(found, list) else [found]
    if all(isinstance(entry, dict) and "ieee_address" in entry for entry in entries) and entries:
        return import_zigbee2mqtt(entries, host)
    if all(isinstance(entry, dict) and "@context" in entry for entry in entries) and entries:
        return import_things(entries)
    if importer := importer_of(entries):
        return importer(entries, host, str(path))
    known = "zigbee2mqtt's list of devices, a Thing Description, nor an answer of Tasmota, Shelly or Home Assistant"
    raise UsageError(f"{path} is neither {known}")


Importer = Callable[[list[dict[str, Any]], str, str], Imported]


def importer_of(entries: list[Any]) -> Importer | None:
    """Return what imports such entries, known by their keys; it takes them, the MQTT broker's host and their file."""
    from devices.exchange.home_assistant import import_home_assistant
    from devices.exchange.shelly import import_shelly
    from devices.exchange.tasmota import import_tasmota

    importers: dict[str, Importer] = {"StatusSTS": import_tasmota, "Shelly.GetStatus": import_shelly}
    importers |= {"entity_id": import_home_assistant, "states": import_home_assistant}
    for key, importer in importers.items():
        if entries and all(isinstance(entry, dict) and key in entry for entry in entries):
            return importer
    return None


def import_zigbee2mqtt(entries: Iterable[dict[str, Any]], host: str) -> Imported:
    """Return the devices of zigbee2mqtt's list (the payload of `zigbee2mqtt/bridge/devices`)."""
    made = Imported(drivers={"zigbee": {"type": "mqtt", "host": host, "profile": "zigbee2mqtt"}})
    for entry in entries:
        topic = str(entry.get("friendly_name", ""))
        exposes = (entry.get("definition") or {}).get("exposes") or []
        if entry.get("type") == "Coordinator":
            continue
        parts = [_zigbee_part(expose, topic, made.left_out) for expose in exposes]
        if device := _joined([part for part in parts if part]):
            made.add(topic, "device", device | {"driver": "zigbee"})
        else:
            made.left_out.append(f"{topic}: nothing of it is supported")
    return made


def _is_plain(schema: dict[str, Any]) -> bool:
    """Return whether a schema from elsewhere may stand in a site: its words are words, and no sentences."""
    try:
        words = DataSchema(**schema).enum or ()
    except ValidationError:
        return False
    return not any(" " in word for word in words)


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one device of several exposes: a model of ours with its address, or properties of its own."""
    if known := [part for part in parts if "model" in part]:
        return known[0]
    joined: dict[str, Any] = {"kind": "sensor", "properties": {}, "at": {}}
    for part in parts:
        joined["properties"] |= part["properties"]
        joined["at"] |= part["at"]
    return joined if joined["properties"] else {}


def _zigbee_part(expose: dict[str, Any], topic: str, left_out: list[str]) -> dict[str, Any]:
    features = {str(one.get("name")): one for one in expose.get("features", [])}
    make = ZIGBEE_MODELS.get(str(expose.get("type")))
    if make and (part := make(topic, features)):
        return part
    if expose.get("category") or expose.get("name") == "linkquality":
        return {}  # how the device is set up, and how it is: nothing that people ask for
    part = _zigbee_sensor(topic, expose)
    if not part:
        left_out.append(f"{topic}: {expose.get('property') or expose.get('name') or expose.get('type')}")
    return part


def _zigbee_light(topic: str, features: dict[str, Any]) -> dict[str, Any]:
    at: dict[str, Any] = {"on": {"topic": topic, "key": features["state"]["property"]}}
    if "brightness" not in features:
        return {"model": "light", "at": at}
    highest = float(features["brightness"].get("value_max", 254))
    brightness = {"topic": topic, "key": features["brightness"]["property"], "scale": 100 / highest}
    return {"model": "dimmable_light", "at": at | {"brightness": brightness}}


def _zigbee_switch(topic: str, features: dict[str, Any]) -> dict[str, Any]:
    return {"model": "switch", "at": {"on": {"topic": topic, "key": features["state"]["property"]}}}


def _zigbee_lock(topic: str, features: dict[str, Any]) -> dict[str, Any]:
    words = [features["state"].get("value_off", "UNLOCK"), features["state"].get("value_on", "LOCK")]
    return {"model": "lock", "at": {"locked": {"topic": topic, "key": features["state"]["property"], "words": words}}}


def _zigbee_cover(topic: str, features: dict[str, Any]) -> dict[str, Any]:
    if "position" not in features:
        return {}
    return {"model": "blinds", "at": {"position": {"topic": topic, "key": features["position"]["property"]}}}


def _zigbee_climate(topic: str, features: dict[str, Any]) -> dict[str, Any]:
    target = features.get("occupied_heating_setpoint") or features.get("current_heating_setpoint")
    if not target or "local_temperature" not in features:
        return {}
    places = {"target_c": target["property"], "temperature_c": features["local_temperature"]["property"]}
    return {"model": "thermostat", "at": {name: {"topic": topic, "key": key} for name, key in places.items()}}


ZIGBEE_MODELS: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "light": _zigbee_light,
    "switch": _zigbee_switch,
    "lock": _zigbee_lock,
    "cover": _zigbee_cover,
    "climate": _zigbee_climate,
}


def _zigbee_sensor(topic: str, expose: dict[str, Any]) -> dict[str, Any]:
    """Return a property that is only read."""
    key, name = str(expose.get("property", "")), plain_name(str(expose.get("name", "")))
    at: dict[str, Any] = {"topic": topic, "key": key}
    if int(expose.get("access", 0)) & SET or not key:
        return {}
    if expose.get("type") == "numeric":
        low, high = float(expose.get("value_min", -1e5)), float(expose.get("value_max", 1e5))
        schema: dict[str, Any] = {"type": "number", "minimum": low, "maximum": high}
        if unit := str(expose.get("unit", "")):
            schema["unit"] = UNITS.get(unit, unit)
    elif expose.get("type") == "binary":
        schema = {"type": "boolean"}
        words = [expose.get("value_off"), expose.get("value_on")]
        if words != [False, True]:
            at["words"] = words
    elif expose.get("type") == "enum" and expose.get("values"):
        schema = {"type": "string", "enum": [str(value) for value in expose["values"]]}
    else:
        return {}
    return {"properties": {name: schema}, "at": {name: at}} if _is_plain(schema) else {}


def import_things(things: Iterable[dict[str, Any]]) -> Imported:
    """Return the devices of Thing Descriptions: properties over HTTP, each with an action that sets it where it can."""
    made = Imported()
    for thing in things:
        title = str(thing.get("title") or thing.get("id") or "thing")
        entry: dict[str, Any] = {"kind": "thing", "properties": {}, "at": {}, "actions": {}}
        for key, affordance in (thing.get("properties") or {}).items():
            problem = _take_property(made, entry, plain_name(str(key)), affordance, str(thing.get("base", "")))
            if problem:
                made.left_out.append(f"{title}: {key}: {problem}")
        made.left_out += [f"{title}: {key}: an action, not a property" for key in thing.get("actions") or {}]
        if entry["properties"]:
            made.add(title, "thing", {key: value for key, value in entry.items() if value})
        else:
            made.left_out.append(f"{title}: nothing of it is supported")
    return made


def _take_property(made: Imported, entry: dict[str, Any], name: str, affordance: dict[str, Any], base: str) -> str:
    """Put a property into an entry; return why it cannot be, or ""."""
    schema = _thing_schema(affordance)
    if isinstance(schema, str):
        return schema
    form = next((form for form in affordance.get("forms", []) if _is_read(form)), None)
    url = urlsplit(urljoin(base, str(form["href"]))) if form else None
    if url is None or url.scheme not in {"http", "https"}:
        return "no form over HTTP"
    server = f"{url.scheme}://{url.netloc}"
    driver = next((key for key, one in made.drivers.items() if one["url"] == server), f"http_{len(made.drivers) + 1}")
    if entry.setdefault("driver", driver) != driver:
        return "on another server than the rest of it"
    made.drivers[driver] = {"type": "http", "url": server}
    path = url.path + (f"?{url.query}" if url.query else "")
    entry["properties"][name], entry["at"][name] = schema, {"path": path}
    if not affordance.get("readOnly") and schema["type"] != "string":
        entry["at"][name] |= {"set_path": path, "verb": "PUT"}
        entry["actions"] |= _setters(name, schema)
    return ""


def _is_read(form: dict[str, Any]) -> bool:
    ops = form.get("op", ["readproperty", "writeproperty"])
    return "readproperty" in (ops if isinstance(ops, list) else [ops])


def _thing_schema(affordance: dict[str, Any]) -> dict[str, Any] | str:
    kind = affordance.get("type")
    schema: dict[str, Any] = {
        key: affordance[key] for key in ("type", "minimum", "maximum", "enum", "unit") if key in affordance
    }
    if kind in {"integer", "number"} and not {"minimum", "maximum"} <= schema.keys():
        return "a number without minimum and maximum"
    if kind == "string" and "enum" not in schema:
        return "free text"
    if kind not in {"boolean", "integer", "number", "string"}:
        return f"of the type {kind}"
    return schema if _is_plain(schema) else "words or bounds that a site cannot have"


def _setters(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if schema["type"] == "boolean":
        return {f"{name}_on": {"writes": {name: True}}, f"{name}_off": {"writes": {name: False}}}
    return {f"set_{name}": {"input": {name: dict(schema)}, "writes": {name: f"${name}"}}}

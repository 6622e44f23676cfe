"""Sites: what devices there are, what they can do, and what guards them. Parsed from one YAML file.

Vocabulary: W3C Web of Things Thing Description 1.1 (properties, actions, data schemas, units);
`kind` is a Home Assistant domain. YAML 1.2, so that the key `on` is a word and not a boolean.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from devices.errors import UsageError, did_you_mean
from devices.site.action import UNLESS_0
from devices.site.device import Device, require_known
from devices.site.functions import Function, FunctionName
from devices.site.scenes import SceneStates, require_scenes
from devices.site.schema import DataSchema, Name, Plain
from devices.yaml_file import Strict, YamlFile, first_problem, plain_values, read_yaml, shipped_path

MODEL_WORDS = {  # what people call devices, and the model that is meant; difflib knows letters only
    "light": "lamp bulb spotlight chandelier",
    "dimmable_light": "dimmer",
    "color_temp": "white_spectrum tunable_white color_temperature",
    "color": "rgb hue colour color_light",
    "switch": "socket plug outlet relay power_strip",
    "blinds": "curtain shade shutter roller venetian awning",
    "door": "gate garage garage_door",
    "lock": "bolt latch deadbolt",
    "thermostat": "heater radiator trv heating boiler hvac",
    "fan": "ventilator ventilation extractor",
    "valve": "sprinkler tap faucet irrigation",
    "contact": "door_sensor window_sensor opening contact_sensor",
    "occupancy": "presence pir presence_sensor",
    "motion_sensor": "motion movement",
    "leak": "water_leak flood leak_sensor",
    "smoke": "smoke_detector fire_alarm",
    "siren": "alarm horn",
    "robot_arm": "robot gripper claw jaws hand manipulator",
    "humidifier": "mister vaporizer dehumidifier",
    "media_player": "tv television speaker radio stereo receiver player",
    "vacuum": "hoover robot_vacuum vacuum_cleaner",
    "lawn_mower": "mower robot_mower",
    "alarm_panel": "alarm_control_panel burglar_alarm security",
    "water_heater": "geyser hot_water immersion_heater",
    "climate_range": "heat_cool dual_setpoint",
    "number": "input_number setting slider",
    "select": "input_select dropdown",
    "button": "input_button push_button",
}
SITES_FOLDER = Path(__file__).parents[1] / "sites"
EVERYWHERE = "everywhere"  # stands for every device, where a site has areas or groups
MODELS_FILE = Path(__file__).parent / "models.yaml"


class Floor(Strict):
    """A floor of areas, as Home Assistant has them."""

    title: Plain = ""
    aliases: tuple[Plain, ...] = Field(default=(), strict=False)


class Area(Floor):
    """A room or another part of the site; each device stands in one at most."""

    floor: str = ""


class Group(Floor):
    """Devices that are called by one name wherever they stand, such as the Christmas lights."""

    devices: tuple[str, ...] = Field(min_length=1, strict=False)


class WorldRule(Strict):
    """One rule of the simulated world: drift `toward` a value or property, or change `per_hour`."""

    property: str
    toward: float | str | None = None
    hours: float | None = Field(default=None, gt=0)
    per_hour: float | None = None
    while_: str | None = Field(default=None, alias="while")

    @model_validator(mode="after")
    def _require_one_form(self) -> WorldRule:
        if (self.toward is None) == (self.per_hour is None):
            raise ValueError("a world rule needs either toward (with hours) or per_hour")
        if self.toward is not None and self.hours is None:
            raise ValueError("toward needs hours, the time constant")
        return self


class Site(Strict):
    """All devices of one place, or a toolset: functions and what the assistant is told of its work (toolset.py).

    Source of tools, conversations, grammar, simulator and policy.
    """

    name: Name
    title: Plain
    floors: dict[Name, Floor] = Field(default_factory=dict)
    areas: dict[Name, Area] = Field(default_factory=dict)
    groups: dict[Name, Group] = Field(default_factory=dict)
    scenes: dict[Name, SceneStates] = Field(default_factory=dict)
    devices: dict[str, Device] = Field(default_factory=dict)
    system: str = ""
    functions: dict[FunctionName, Function] = Field(default_factory=dict)
    world: tuple[WorldRule, ...] = Field(default=(), strict=False)
    drivers: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_known_references(self) -> Site:
        for device in self.callees.values():
            if device.driver:
                require_known(device.driver, self.drivers, f"{device.name} names the driver")
            for action_name, action in device.actions.items():
                for requirement in action.requires:
                    self._require_property(requirement.property, f"{device.name}.{action_name} requires")
        for rule in self.world:
            for reference in (rule.property, rule.toward, rule.while_):
                if isinstance(reference, str):
                    self._require_property(reference, "a world rule names")
        return self

    @model_validator(mode="after")
    def _require_known_places(self) -> Site:
        for name, area in self.areas.items():
            if area.floor:
                require_known(area.floor, self.floors, f"area {name} is on the floor")
        for name, group in self.groups.items():
            for member in group.devices:
                require_known(member, self.devices, f"group {name} has the device")
        taken = [*self.floors, *self.areas, *self.groups, EVERYWHERE]
        if twice := next((name for name in taken if taken.count(name) > 1), None):
            raise ValueError(f"{twice!r} can be one floor, area or group only")
        for device in self.devices.values():
            if device.area:
                require_known(device.area, self.areas, f"{device.name} stands in the area")
        return self

    @property
    def is_toolset(self) -> bool:
        """Whether it has functions, and no devices whose state a request would have to be told with."""
        return bool(self.functions)

    def device(self, name: str) -> Device | None:
        """Return the device of a name, or the one that stands for a function; None if there is neither."""
        return self.functions[name].as_device(name) if name in self.functions else self.devices.get(name)

    @property
    def callees(self) -> dict[str, Device]:
        """Everything that commands go to: the devices, and those that stand for functions."""
        return self.devices | {name: function.as_device(name) for name, function in self.functions.items()}

    @property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """The devices of each area, floor and group by its name, and of EVERYWHERE; nothing if there is none.

        An action's target, as Home Assistant calls it.
        """
        found = {name: [one.name for one in self.devices.values() if one.area == name] for name in self.areas}
        for floor in self.floors:
            on_it = {name for name, area in self.areas.items() if area.floor == floor}
            found[floor] = [one.name for one in self.devices.values() if one.area in on_it]
        found |= {name: list(group.devices) for name, group in self.groups.items()}
        everywhere = {EVERYWHERE: tuple(self.devices)} if found else {}
        return {name: tuple(devices) for name, devices in found.items() if devices} | everywhere

    def _require_property(self, reference: str, what: str) -> None:
        device_name, _, property_name = reference.partition(".")
        require_known(device_name, self.devices, f"{what} the device")
        require_known(property_name, self.devices[device_name].properties, f"{what} the property {device_name}.")

    def schema_of(self, reference: str) -> DataSchema:
        """Return the schema of `device.property`."""
        device_name, _, property_name = reference.partition(".")
        return self.devices[device_name].properties[property_name]


def find_name(typed: str, known: Collection[str]) -> str | None:
    """Return which of the names is meant: as typed, or in other capitals if only one has these letters; else None."""
    if typed in known:
        return typed
    alike = [name for name in known if name.lower() == typed.lower()]
    return alike[0] if len(alike) == 1 else None


def shared_names(site: Site) -> dict[str, list[str]]:
    """Return each name, in small letters, that several devices or scenes have, with these: who is meant?"""
    called: dict[str, list[str]] = {}
    named = {device.name: device.names for device in site.devices.values()}
    named |= {f"the scene {name}": (scene.title, *scene.aliases, name) for name, scene in site.scenes.items()}
    for owner, names in named.items():
        for name in dict.fromkeys(name.lower() for name in names):
            called.setdefault(name, []).append(owner)
    return {name: devices for name, devices in called.items() if len(devices) > 1}


def site_path(name_or_path: str | Path) -> Path:
    """Return the file of a site that ships with Edgewright, by name, or the path as it is.

    Raises:
        UsageError: no shipped site has the name; a path is not checked here.
    """
    return shipped_path(name_or_path, SITES_FOLDER, "site")


def load_site(name_or_path: str | Path) -> Site:
    """Load a site that ships with Edgewright by name, or any other by path.

    Raises:
        UsageError: no such site, not YAML, or a wrong key or value; the message has file and line. What drivers want
            of a site is checked when they are opened, and by `edgewright devices check`.
    """
    return build_site(read_yaml(site_path(name_or_path), "site file"))


def require_phrasings(site: Site, source: YamlFile) -> None:
    """Raise UsageError, with file and line, if an action names phrasings that are not there or do not fit."""
    for device in site.devices.values():
        for name, action in device.actions.items():
            try:
                _ = action.requests, action.requests_without
            except UsageError as error:
                keys = ("devices", device.name, "actions", name)
                raise source.fail(keys, f"{'.'.join(keys)}: {error}", error.hint) from error


@cache
def load_models() -> dict[str, Any]:
    """Return the thing models that every site may use, as plain mappings by name; not to be changed."""
    models: dict[str, Any] = plain_values(read_yaml(MODELS_FILE).root)
    return models


def build_site(source: YamlFile) -> Site:
    """Return the site of a file that was read. Raises UsageError as load_site does."""
    root = source.root
    if not isinstance(root, dict):
        raise UsageError(f"{source.path}: a site file is a mapping with schema, name, title and devices")
    if root.get("schema") == "toolset/v1":
        return _build_toolset(source)
    if root.get("schema") != "site/v1":
        raise source.fail(("schema",), f"schema is {root.get('schema')!r}", "this version reads site/v1 and toolset/v1")
    allowed = "schema name title models drivers floors areas groups scenes devices world".split()
    for key in root:
        if key not in allowed:
            raise source.fail((key,), f"unknown key {key!r}", did_you_mean(str(key), allowed))
    if not isinstance(root.get("devices"), dict) or not root["devices"]:
        raise source.fail(("devices",), "devices must be a mapping of at least one device")
    models = load_models() | dict(root.get("models") or {})
    devices = {name: _build_device(source, name, entry, models) for name, entry in root["devices"].items()}
    rest = {key: root[key] for key in allowed if key in root and key not in {"schema", "models", "devices"}}
    for key in ("floors", "areas", "groups", "scenes"):
        if isinstance(entries := rest.get(key), dict):
            rest[key] = {name: _with_title(name, entry) for name, entry in entries.items()}
    try:
        site = Site(devices=devices, **plain_values(rest))
    except ValidationError as error:
        raise source.explain((), error, Site) from error
    require_scenes(site, source)
    return site


def _build_toolset(source: YamlFile) -> Site:
    """Return the site of a toolset file: `tools` are its functions, and `executors` their drivers."""
    keys = {"name": "name", "title": "title", "system": "system", "executors": "drivers", "tools": "functions"}
    root = source.root
    for key in root:
        if key not in ("schema", *keys):
            raise source.fail((key,), f"unknown key {key!r}", did_you_mean(str(key), ["schema", *keys]))
    if not isinstance(root.get("tools"), dict) or not root["tools"]:
        raise source.fail(("tools",), "tools must be a mapping of at least one tool")
    for name, entry in root["tools"].items():
        if not isinstance(entry, dict) or "parameters" not in entry:
            hint = "{type: object, properties: {}} is one without arguments"
            raise source.fail(
                ("tools", name), f"tools.{name} has no parameters, the JSON Schema of what it takes", hint
            )
    try:
        return Site(**plain_values({keys[key]: value for key, value in root.items() if key in keys}))
    except ValidationError as error:
        location, message, hint = first_problem(error, Site)
        written = {name: key for key, name in keys.items()}
        place = (written.get(str(location[0]), location[0]), *location[1:]) if location else ()
        text = f"{'.'.join(map(str, place))}: {message}" if place else message
        raise source.fail(place, text, hint) from error


def _build_device(source: YamlFile, name: str, entry: Any, models: dict[str, Any]) -> Device:
    keys = ("devices", name)
    if not isinstance(entry, dict):
        raise source.fail(keys, f"device {name} must be a mapping with a model")
    merged = dict(entry)
    if "model" in merged:
        named = merged.pop("model")
        merged = merge_mappings(_joined_models(source, name, named, models), merged)
    merged = _with_levels(_with_title(name, merged))
    try:
        return Device(name=name, **plain_values(merged))
    except ValidationError as error:
        raise source.explain(keys, error, Device) from error
    except TypeError as error:
        raise source.fail(keys, f"device {name}: {error}") from error


def _with_title(name: object, entry: Any) -> Any:
    """Return an entry of a site file with the title that its key makes, unless it has one."""
    is_mapping = isinstance(entry, dict) or entry is None
    return {"title": str(name).replace("_", " ")} | (entry or {}) if is_mapping else entry


def _with_levels(device: dict[str, Any]) -> dict[str, Any]:
    """Return a device whose arguments have the levels of the property that they are written to, unless their own."""
    properties, actions = device.get("properties"), device.get("actions")
    if not isinstance(properties, dict) or not isinstance(actions, dict):
        return device
    told: dict[str, Any] = {}
    for action_name, action in actions.items():
        for name, value in ((action or {}).get("writes") or {}).items():
            argument = str(value).removeprefix("$").removesuffix(f" {UNLESS_0}")
            levels = (properties.get(name) or {}).get("levels")
            if levels and str(value).startswith("$") and "levels" not in (action.get("input") or {}).get(argument, {}):
                told[action_name] = {"input": {argument: {"levels": levels}}}
    return merge_mappings(device, {"actions": told}) if told else device


def _joined_models(source: YamlFile, device: str, named: Any, models: dict[str, Any]) -> dict[str, Any]:
    """Return one model of those that a device names, one or a list of them."""
    names = named if isinstance(named, list) else [named]
    for model in names:
        if model not in models:
            meant = next((known for known, words in MODEL_WORDS.items() if str(model).lower() in words.split()), "")
            nearest = did_you_mean(str(model), models, f"models: {', '.join(models)}")
            hint = f"did you mean {meant}?" if meant in models else nearest
            raise source.fail(("devices", device, "model"), f"device {device}: no model is called {model!r}", hint)
    return join_models(names, models)


def join_models(names: Sequence[str], models: dict[str, Any]) -> dict[str, Any]:
    """Return one model with the properties and actions of several; its kind is that of the first."""
    joined: dict[str, Any] = {}
    for name in names:
        joined = merge_mappings(joined, models[name])
    return joined | {"kind": models[names[0]]["kind"]} if names else joined


def merge_mappings(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` in it, mapping by mapping; an integer loses a step of halves."""
    merged = dict(base)
    if over.get("type") == "integer" and not float(merged.get("step") or 1).is_integer():
        del merged["step"]
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge_mappings(merged[key], value) if both else value
    return merged

"""Sites: what devices there are, what they can do, and what guards them. Parsed from one YAML file.

Vocabulary: W3C Web of Things Thing Description 1.1 (properties, actions, data schemas, units);
`kind` is a Home Assistant domain. YAML 1.2, so that the key `on` is a word and not a boolean.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from devices.errors import UsageError
from devices.yaml_file import Strict, YamlFile, plain_values, read_yaml
from devices.zone import Zone

Value = bool | int | float | str
Risk = Literal["none", "low", "guarded", "confirm", "forbidden"]
SITES_FOLDER = Path(__file__).parent / "sites"
MODELS_FILE = Path(__file__).parent / "models.yaml"
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
ROUNDING = 1e-6  # of a number that a driver scaled and scaled back


class DataSchema(Strict):
    """The JSON Schema subset that values of properties and inputs use."""

    type: Literal["boolean", "integer", "number", "string"]
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[str, ...] | None = Field(default=None, strict=False)
    unit: str = ""
    title: str = ""
    labels: dict[bool, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_relations(self) -> DataSchema:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.type == "string" and not self.enum:
            raise ValueError("a string needs an enum, so that the grammar can name every value")
        if self.type in {"integer", "number"} and (self.minimum is None or self.maximum is None):
            raise ValueError("a number needs minimum and maximum")
        return self

    def problem_with(self, value: object) -> str:
        """Return why `value` does not fit, or "" if it fits."""
        if self.type == "boolean":
            return "" if isinstance(value, bool) else f"{value!r} is not true or false"
        if self.type == "string":
            return "" if value in (self.enum or ()) else f"{value!r} is not one of {', '.join(self.enum or ())}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{value!r} is not a number"
        if not math.isfinite(value):
            return f"{value} is not a finite number"
        if self.type == "integer" and int(value) != value:
            return f"{value} is not a whole number"
        assert self.minimum is not None and self.maximum is not None
        if not self.minimum <= value <= self.maximum:
            return f"{value:g} is outside {self.minimum:g} to {self.maximum:g}"
        return ""

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of one value; the unit goes into the description."""
        schema: dict[str, Any] = {"type": self.type}
        if self.enum:
            schema["enum"] = list(self.enum)
        for key in ("minimum", "maximum"):
            bound = getattr(self, key)
            if bound is not None:
                schema[key] = int(bound) if self.type == "integer" else bound
        if self.unit:
            schema["description"] = self.unit
        return schema


class Requirement(Strict):
    """An interlock: a fresh reading must satisfy the bound before the action may start."""

    property: str = Field(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+$")
    above: float | None = None
    below: float | None = None
    equals: bool | str | None = None
    max_age_s: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _require_one_bound(self) -> Requirement:
        if all(bound is None for bound in (self.above, self.below, self.equals)):
            raise ValueError("a requirement needs above, below or equals")
        return self

    def is_met_by(self, value: Value) -> bool:
        """Return whether a reading satisfies every bound given; NaN and wrong types satisfy none."""
        if self.equals is not None and value != self.equals:
            return False
        if self.above is None and self.below is None:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        is_above = self.above is None or value > self.above
        return is_above and (self.below is None or value < self.below)

    def text(self) -> str:
        """Return the bound in words, for people and for the model."""
        words = [f"above {self.above:g}" if self.above is not None else ""]
        words += [f"below {self.below:g}" if self.below is not None else ""]
        words += [str(self.equals).lower() if self.equals is not None else ""]
        return "must be " + " and ".join(word for word in words if word)


class Ending(Strict):
    """What ends a timed action: `after` is "$argument seconds|minutes"."""

    after: str = Field(pattern=r"^\$[a-z0-9_]+ (seconds|minutes)$")
    writes: dict[str, Value]

    def duration_s(self, arguments: dict[str, Value]) -> float:
        """Return how long the action lasts, in seconds, for these arguments."""
        name, unit = self.after.removeprefix("$").split(" ")
        return float(arguments[name]) * (60.0 if unit == "minutes" else 1.0)


class Action(Strict):
    """One thing a device can do; `writes` gives each property a constant, `$argument` or `$argument > 0`.

    A `safe` action is always allowed: it needs no confirmation, works in every mode, and is what `stop` does.
    `min_interval_s` passes between two starts. `wait_after` names actions of the same device, and how many seconds
    after their last start or end this one may start: for off after on that is a minimum on time.
    Numbers that are read back may differ by `tolerance` from what was written, and may need `settle_s` to get there.
    """

    title: str = ""
    input: dict[str, DataSchema] = Field(default_factory=dict)
    writes: dict[str, Value]
    already: dict[str, Value] | None = None
    ends: Ending | None = None
    risk: Risk = "low"
    safe: bool = False
    requires: tuple[Requirement, ...] = Field(default=(), strict=False)
    keep_out: tuple[Zone, ...] = Field(default=(), strict=False)
    min_interval_s: float = Field(default=0.0, ge=0)
    wait_after: dict[str, float] = Field(default_factory=dict)
    tolerance: float = Field(default=0.0, ge=0)
    settle_s: float = Field(default=0.0, ge=0)
    say: tuple[str, ...] = Field(default=(), strict=False)
    say_without: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _require_known_arguments(self) -> Action:
        for value in [*self.writes.values(), *([self.ends.after] if self.ends else [])]:
            if isinstance(value, str) and value.startswith("$"):
                name = value.removeprefix("$").split(" ")[0]
                if name not in self.input:
                    raise ValueError(f"{value} names no argument of the input ({', '.join(self.input) or 'none'})")
        for zone in self.keep_out:
            if strange := [axis for axis in zone.box if self.writes.get(axis) != f"${axis}"]:
                raise ValueError(
                    f"the zone {zone.title} has {strange[0]}, which the action does not write as it is given"
                )
        guards = (self.input, self.requires, self.ends, self.keep_out, self.wait_after, self.min_interval_s)
        if self.safe and (any(guards) or self.risk in {"confirm", "forbidden"}):
            raise ValueError("a safe action takes no input, has no end, waits for nothing, and needs no confirmation")
        for template in self.say:
            holes = set(re.findall(r"{(\w+)}", template))
            if holes != {"device", *self.input}:
                raise ValueError(f"say {template!r} must have {{device}} and every argument, and no other")
        return self

    def effect(self, arguments: dict[str, Value]) -> dict[str, Value]:
        """Return the value each written property gets for these arguments."""
        return {name: _evaluate(value, arguments) for name, value in self.writes.items()}

    def is_already_so(self, state: dict[str, Value], arguments: dict[str, Value]) -> bool:
        """Return whether the device already is as the action would make it; timed actions never are."""
        if self.ends:
            return False
        goal = self.already if self.already is not None else self.effect(arguments)
        return is_so(state, goal, self.tolerance)


def is_so(state: Mapping[str, Value], goal: Mapping[str, Value], tolerance: float = 0.0) -> bool:
    """Return whether a device's properties have all the values of a goal, numbers within a tolerance."""
    return all(name in state and _is_equal(state[name], value, tolerance) for name, value in goal.items())


def _is_equal(value: Value, wanted: Value, tolerance: float) -> bool:
    if isinstance(value, bool | str) or isinstance(wanted, bool | str):
        return type(value) is type(wanted) and value == wanted
    return abs(value - wanted) <= tolerance + ROUNDING


def _evaluate(value: Value, arguments: dict[str, Value]) -> Value:
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    name, *comparison = value.removeprefix("$").split(" ", 1)
    if comparison == ["> 0"]:
        return float(arguments[name]) > 0
    if comparison:
        raise UsageError(f"{value}: only $argument and $argument > 0 can be written")
    return arguments[name]


class Device(Strict):
    """A device with its model's properties and actions filled in."""

    name: str = Field(pattern=NAME_PATTERN)
    kind: str = Field(pattern=NAME_PATTERN)
    title: str
    aliases: tuple[str, ...] = Field(default=(), strict=False)
    properties: dict[str, DataSchema]
    actions: dict[str, Action] = Field(default_factory=dict)
    initial: dict[str, Value] = Field(default_factory=dict)
    driver: str = ""
    at: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_known_properties(self) -> Device:
        for name, action in self.actions.items():
            for other in action.wait_after:
                _require_known(other, self.actions, f"action {name} waits after the action")
            ends = action.ends.writes if action.ends else {}
            for written in [*action.writes, *ends]:
                _require_known(written, self.properties, f"action {name} writes the property")
        for name in self.at:
            _require_known(name, self.properties, "at has the property")
        for name, value in self.initial.items():
            _require_known(name, self.properties, "initial sets the property")
            if problem := self.properties[name].problem_with(value):
                raise ValueError(f"initial {name}: {problem}")
        return self


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
    """All devices of one place. Source of tools, conversations, grammar, simulator and policy."""

    name: str = Field(pattern=NAME_PATTERN)
    title: str
    devices: dict[str, Device]
    world: tuple[WorldRule, ...] = Field(default=(), strict=False)
    drivers: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_known_references(self) -> Site:
        for device in self.devices.values():
            if device.driver:
                _require_known(device.driver, self.drivers, f"{device.name} names the driver")
            for action_name, action in device.actions.items():
                for requirement in action.requires:
                    self._require_property(requirement.property, f"{device.name}.{action_name} requires")
        for rule in self.world:
            for reference in (rule.property, rule.toward, rule.while_):
                if isinstance(reference, str):
                    self._require_property(reference, "a world rule names")
        return self

    def _require_property(self, reference: str, what: str) -> None:
        device_name, _, property_name = reference.partition(".")
        _require_known(device_name, self.devices, f"{what} the device")
        _require_known(property_name, self.devices[device_name].properties, f"{what} the property {device_name}.")

    def schema_of(self, reference: str) -> DataSchema:
        """Return the schema of `device.property`."""
        device_name, _, property_name = reference.partition(".")
        return self.devices[device_name].properties[property_name]


def _require_known(name: str, known: dict[str, Any], what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        raise ValueError(f"{what} {name!r}, which does not exist" + (f"; did you mean {near[0]!r}?" if near else ""))


def list_sites() -> list[str]:
    """Return the names of the sites that ship with Edgewright."""
    return sorted(path.stem for path in SITES_FOLDER.glob("*.yaml"))


def site_path(name_or_path: str | Path) -> Path:
    """Return the file of a site that ships with Edgewright, by name, or the path as it is.

    Raises:
        UsageError: no shipped site has the name; a path is not checked here.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        path = SITES_FOLDER / f"{name_or_path}.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(str(name_or_path), list_sites(), 1, 0.4)
            hint = f"did you mean {near[0]}?" if near else f"sites: {', '.join(list_sites())}; or give a .yaml file"
            raise UsageError(f"no site is called {str(name_or_path)!r}", hint=hint)
    return path


def load_site(name_or_path: str | Path) -> Site:
    """Load a site that ships with Edgewright by name, or any other by path.

    Raises:
        UsageError: no such site, not YAML, or a wrong key or value; the message has file and line.
    """
    path = site_path(name_or_path)
    source = read_yaml(path, "site file")
    if not isinstance(source.root, dict):
        raise UsageError(f"{path}: a site file is a mapping with schema, name, title and devices")
    if source.root.get("schema") != "site/v1":
        raise source.fail(("schema",), f"schema is {source.root.get('schema')!r}", "this version reads site/v1")
    return _build_site(source)


@cache
def load_models() -> dict[str, Any]:
    """Return the thing models that every site may use, as plain mappings by name; not to be changed."""
    models: dict[str, Any] = plain_values(read_yaml(MODELS_FILE).root)
    return models


def _build_site(source: YamlFile) -> Site:
    root = source.root
    allowed = ["schema", "name", "title", "models", "drivers", "devices", "world"]
    for key in root:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, 1, 0.4)
            raise source.fail((key,), f"unknown key {key!r}", f"nearest valid key: {near[0]}" if near else "")
    if not isinstance(root.get("devices"), dict) or not root["devices"]:
        raise source.fail(("devices",), "devices must be a mapping of at least one device")
    models = load_models() | dict(root.get("models") or {})
    devices = {name: _build_device(source, name, entry, models) for name, entry in root["devices"].items()}
    rest = {key: root[key] for key in ("name", "title", "world", "drivers") if key in root}
    try:
        site = Site(devices=devices, **plain_values(rest))
    except ValidationError as error:
        raise source.explain((), error, Site) from error
    if site.drivers:
        from devices.drivers.registry import check_bindings

        check_bindings(site, source)
    return site


def _build_device(source: YamlFile, name: str, entry: Any, models: dict[str, Any]) -> Device:
    keys = ("devices", name)
    if not isinstance(entry, dict):
        raise source.fail(keys, f"device {name} must be a mapping with a model")
    merged = dict(entry)
    model_name = merged.pop("model", None)
    if model_name is not None:
        if model_name not in models:
            near = difflib.get_close_matches(str(model_name), models, 1, 0.4)
            hint = f"did you mean {near[0]}?" if near else f"models: {', '.join(models)}"
            raise source.fail((*keys, "model"), f"device {name}: no model is called {model_name!r}", hint)
        merged = merge_mappings(models[model_name], merged)
    merged.setdefault("title", str(name).replace("_", " "))
    try:
        return Device(name=name, **plain_values(merged))
    except ValidationError as error:
        raise source.explain(keys, error, Device) from error
    except TypeError as error:
        raise source.fail(keys, f"device {name}: {error}") from error


def merge_mappings(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge_mappings(merged[key], value) if both else value
    return merged

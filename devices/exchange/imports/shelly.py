"""Sites from Shelly devices of the second generation on: the answers to `Shelly.GetConfig` and `Shelly.GetStatus`.

In: for each device an object with these two under their names, and with `Shelly.GetDeviceInfo` if it has a password;
answers as they are, or their `result` alone. Switches, lights and covers become devices; inputs and sensors join the
only one there is. Every value of the status is on the account.
Source: Shelly Gen2 Device API, "Shelly" and the components.

Does not guard against: an address that the router gives to another device later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from devices.errors import UsageError
from devices.exchange.imports.imported import (
    NO_PLACE,
    NO_VALUE,
    OTHER_COLOR,
    Feature,
    Imported,
    boolean_schema,
    driver_of,
    plain_name,
)
from devices.exchange.imports.parts import (
    ABOUT_ITSELF,
    SET_UP,
    Part,
    add_parts,
    leaves,
    number_schema,
)
from devices.site.describe import plain_text

STATUS, CONFIG, INFO = "Shelly.GetStatus", "Shelly.GetConfig", "Shelly.GetDeviceInfo"
PASSWORD_ENV = "SHELLY_PASSWORD"  # noqa: S105 - the name of a variable
USER = "admin"  # a Shelly has no other
ITSELF = {"id", "source", "errors", "flags"}
# What components measure beside what they are for: the key, what a site calls it, and the scale.
METERS = {
    "apower": ("Power", 1.0),
    "act_power": ("Power", 1.0),
    "aprt_power": ("ApparentPower", 1.0),
    "total_act_power": ("Power", 1.0),
    "total_aprt_power": ("ApparentPower", 1.0),
    "total_current": ("Current", 1.0),
    "voltage": ("Voltage", 1.0),
    "current": ("Current", 1.0),
    "freq": ("Frequency", 1.0),
    "pf": ("Factor", 1.0),
    "aenergy.total": ("Total", 0.001),
    "ret_aenergy.total": ("returned energy", 0.001),
    "battery.percent": ("Battery", 1.0),
    "battery.V": ("battery voltage", 1.0),
}
PHASES = {f"{phase}_{key}": (phase, *METERS[key]) for phase in "abc"
          for key in ("act_power", "aprt_power", "voltage", "current", "freq", "pf")}  # fmt: skip
SENSORS = {("Temperature", "tC"): "Temperature", ("Humidity", "rh"): "Humidity", ("Illuminance", "lux"): "Illuminance"}
ALARMS = {("Smoke", "alarm"): ("smoke", "detected", "clear"), ("Flood", "alarm"): ("wet", "wet", "dry")}
SAID_TWICE = {"tF": "tC says the same", "target_pos": "current_pos tells it"}
METHODS = {
    "switch": "Switch", "light": "Light", "cct": "CCT", "rgb": "RGB", "rgbw": "RGBW", "cover": "Cover",
    "input": "Input", "temperature": "Temperature", "humidity": "Humidity", "illuminance": "Illuminance",
    "smoke": "Smoke", "flood": "Flood", "devicepower": "DevicePower", "voltmeter": "Voltmeter", "pm1": "PM1",
    "em": "EM", "em1": "EM1",
}  # fmt: skip
KELVIN = (2700, 6500)
UNCALIBRATED = "the cover is not calibrated, so that it does not know where it is; calibrate it and import again"


def import_shelly(entries: Iterable[dict[str, Any]], host: str = "", source: str = "the answers") -> Imported:
    """Return the devices of answers to `Shelly.GetConfig` and `Shelly.GetStatus`.

    Args:
        entries: one object for each device.
        host: not used; each answer has the device's own address.
        source: the file, for messages.

    Raises:
        UsageError: an answer is missing, is no object, or has no address; with file, device and field.
    """
    del host
    made = Imported()
    for number, entry in enumerate(entries, 1):
        _Answers(made, entry, f"{source}: device {number}").take()
    return made


class _Answers:
    """One device's answers on their way into a site."""

    def __init__(self, made: Imported, entry: dict[str, Any], where: str) -> None:
        self._made, self._where = made, where
        self._status, self._config = self._object(entry, STATUS), self._object(entry, CONFIG)
        info = self._object(entry, INFO) if INFO in entry else {}
        system, device = _part(self._status, "sys"), _part(_part(self._config, "sys"), "device")
        self._title = str(device.get("name") or info.get("name") or info.get("id") or device.get("mac") or "shelly")
        self._sleeps = {"is_asked": False} if system.get("wakeup_period") else {}
        self._driver = driver_of(made, plain_name(self._title), self._settings(info))
        self._outputs: list[Part] = []
        self._sensors = Part("sensor")

    def _object(self, entry: dict[str, Any], key: str) -> dict[str, Any]:
        found = entry.get(key)
        found = found["result"] if isinstance(found, dict) and "result" in found else found
        if not isinstance(found, dict):
            raise UsageError(f"{self._where}: {key} is {'missing' if found is None else 'no object'}")
        for name, part in found.items():
            if ":" in name and not isinstance(part, dict):
                raise UsageError(f"{self._where}: {key}.{name} is no object")
        return found

    def _settings(self, info: dict[str, Any]) -> dict[str, Any]:
        places = [_part(self._status, "wifi").get("sta_ip"), _part(self._status, "eth").get("ip")]
        address = next((str(one) for one in places if one), "")
        if not address:
            raise UsageError(
                f"{self._where}: {STATUS} has neither wifi.sta_ip nor eth.ip", hint="is it on the network?"
            )
        if not re.fullmatch(r"[\w.:-]+", address, re.ASCII):
            raise UsageError(f"{self._where}: {STATUS} has no address but {plain_text(address)!r}")
        settings: dict[str, Any] = {"type": "http", "url": f"http://{address}"}
        if info.get("auth_en"):
            settings["auth"] = {"scheme": "digest", "user": USER, "secret_env": PASSWORD_ENV}
            note = f"it has a password: export {PASSWORD_ENV}=… before you use it"
            self._made.notes.append(f"{self._title}: {note}")
        return settings

    def take(self) -> None:
        """Put the device into the site, and say of every feature what became of it."""
        for key, status in self._status.items():
            kind, _, number = key.partition(":")
            if kind in METHODS and number.isdecimal():
                self._take_component(kind, int(number), status)
            else:
                reason = NO_PLACE if number else SET_UP
                self._made.offer(self._title, key).leave(reason)
        for key in self._config:
            if key not in self._status:
                self._made.offer(self._title, key).leave("its status is not in the answer")
        add_parts(self._made, self._title, self._driver, self._outputs, self._sensors)

    def _take_component(self, kind: str, number: int, status: dict[str, Any]) -> None:
        config = _part(self._config, f"{kind}:{number}")
        features = {key: self._made.offer(self._title, f"{kind}:{number}.{key}") for key in _values(status)}
        for key, feature in features.items():
            if key in ITSELF or key.split(".")[0] == "errors":
                feature.leave(ABOUT_ITSELF)
            elif key in SAID_TWICE:
                feature.leave(SAID_TWICE[key])
        component = _Component(METHODS[kind], number, status, config, features, self._sleeps)
        make = MAKERS.get(kind)
        if make is None:
            component.measure(self._sensors)
        elif part := make(component):
            self._outputs.append(part)
            component.measure(part)


class _Component:
    """One component: its status and configuration, and its line on the account for each value."""

    def __init__(
        self, rpc: str, number: int, status: dict[str, Any], config: dict[str, Any], features: dict[str, Feature],
        rest: dict[str, Any],
    ) -> None:  # fmt: skip
        self.status, self.config, self.features = status, config, features
        self._rpc, self._number, self._rest = rpc, number, rest

    def part(self, noun: str, model: str) -> Part:
        """Return the device that the component becomes."""
        return Part(noun, str(self.config.get("name") or ""), self._number + 1, {"model": model})

    def at(self, key: str, **rest: Any) -> dict[str, Any]:
        """Return where a value is."""
        return {"rpc": self._rpc, "id": self._number, "key": key, **rest, **self._rest}

    def measure(self, part: Part) -> None:
        """Take what the component measures, and what it is a sensor of."""
        sensor = str(self.config.get("name") or f"{self._rpc} {self._number}")
        values = _values(self.status)
        for key, feature in self.features.items():
            if not feature.reason or feature.reason in {ABOUT_ITSELF, *SAID_TWICE.values()}:
                continue
            if (value := values[key]) is None:
                is_button = self.config.get("type") == "button"
                feature.leave("a button, which has no state" if is_button else NO_VALUE)
            elif self._rpc == "Input" and key in {"state", "percent"}:
                self._take_input(part, key, value, feature)
            elif alarm := ALARMS.get((self._rpc, key)):
                part.own(alarm[0], boolean_schema(*alarm[1:]), self.at(key), feature, sensor)
            elif self._is_number(key, value):
                self._take_number(part, key, feature, sensor)
            elif key.startswith("temperature."):
                feature.leave(ABOUT_ITSELF)

    def _is_number(self, key: str, value: Any) -> bool:
        is_known = key in METERS or key in PHASES or (self._rpc, key) in SENSORS
        return is_known and isinstance(value, int | float) and not isinstance(value, bool)

    def _take_number(self, part: Part, key: str, feature: Feature, sensor: str) -> None:
        phase, kind, scale = PHASES.get(key, ("", SENSORS.get((self._rpc, key), ""), 1.0))
        if key in METERS:
            kind, scale = METERS[key]
        name, schema = number_schema(kind)
        schema |= {"unit": "kilowatt hours"} if kind == "returned energy" else {}
        name = f"{name}_{phase}" if phase else name
        part.own(name, schema, self.at(key, **({"scale": scale} if scale != 1 else {})), feature, sensor)

    def _take_input(self, part: Part, key: str, value: Any, feature: Feature) -> None:
        name = plain_name(str(self.config.get("name") or f"input {self._number + 1}"))
        if key == "percent":
            part.own(name, {"type": "number", "minimum": 0, "maximum": 100, "unit": "percent"}, self.at(key), feature)
        elif isinstance(value, bool):
            part.own(name, boolean_schema(), self.at(key), feature)


def _switch(component: _Component) -> Part:
    return _with_output(component.part("switch", "switch"), component)


def _with_output(part: Part, component: _Component) -> Part:
    if "output" in component.features:
        part.bind("on", component.at("output", set_key="on"), component.features["output"])
    return part


def _light(component: _Component) -> Part:
    has_brightness = "brightness" in component.features
    part = _with_output(component.part("light", "dimmable_light" if has_brightness else "light"), component)
    if has_brightness:
        part.bind("brightness", component.at("brightness", set_key="brightness"), component.features["brightness"])
    if "ct" in component.features:
        given = component.config.get("ct_range")
        is_range = isinstance(given, list) and len(given) == 2 and all(type(one) is int for one in given)
        low, high = sorted(given) if given and is_range else KELVIN
        part.color_temp(low, high, "kelvin", component.at("ct", set_key="ct"), component.features["ct"])
    if "rgb" in component.features:
        part.color(component.at("rgb", set_key="rgb", color="rgb"), component.features["rgb"])
    if "white" in component.features:
        component.features["white"].leave(OTHER_COLOR)
    return part


def _cover(component: _Component) -> Part | None:
    if not component.status.get("pos_control") or component.status.get("current_pos") is None:
        for feature in component.features.values():
            feature.leave(UNCALIBRATED)
        return None
    part = component.part("blinds", "blinds")
    at = component.at("current_pos", set_method="GoToPosition", set_key="pos")
    used = ("current_pos", "pos_control", "state", "move_timeout")  # by these the driver knows when it is there
    part.bind("position", at, *[component.features[key] for key in used if key in component.features])
    return part


MAKERS: dict[str, Callable[[_Component], Part | None]] = {
    "switch": _switch,
    "light": _light,
    "cct": _light,
    "rgb": _light,
    "rgbw": _light,
    "cover": _cover,
}


def _part(body: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object inside another, empty if there is none."""
    found = body.get(key)
    return found if isinstance(found, dict) else {}


def _values(status: dict[str, Any]) -> dict[str, Any]:
    """Return every value of a status by its key; a list is one value."""
    return {".".join(path): value for path, value in leaves(status, in_lists=False)}

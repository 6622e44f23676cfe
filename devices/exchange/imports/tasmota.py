"""Sites from Tasmota: the answer to `STATUS 0` as JSON, of one device or of several in a list.

Relays, lights, shutters and fans become devices; sensors join the only output there is. Every value of the state
(StatusSTS) and of the sensors (StatusSNS) is on the account, and every other section of the answer once.
Source: Tasmota, "JSON Status Responses", "Commands", "Lights", "Blinds and Shutters".

Does not guard against: a FullTopic other than %prefix%/%topic%/, which the answer does not hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from devices.drivers.json_values import key_of
from devices.errors import UsageError
from devices.exchange.imports.imported import (
    FREE_TEXT,
    NO_VALUE,
    OTHER_COLOR,
    TWICE,
    Feature,
    Imported,
    boolean_schema,
    driver_of,
    plain_name,
)
from devices.exchange.imports.parts import (
    ABOUT_ITSELF,
    NUMBERS,
    SET_UP,
    Part,
    add_parts,
    leaves,
    number_schema,
)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 1883
DEFAULT_USER = "DVES_USER"
POWER = re.compile(r"POWER(\d*)")
SHUTTER = re.compile(r"Shutter(\d+)")
MIRED = (153, 500)
DEVICE_STATE = {"Time", "Uptime", "UptimeSec", "Vcc", "Heap", "SleepMode", "Sleep", "LoadAvg", "MqttCount", "Wifi",
                "Berry", "Hostname", "IPAddress"}  # fmt: skip
LIGHT_SET_UP = {"Fade", "Speed", "LedTable", "Scheme", "Width"}
LIGHT_COLORS = {"Color", "HSBColor", "RGB", "White", "Channel", "HSBColor1", "HSBColor2", "HSBColor3"}
RGB_CHANNELS = 3  # at least; a lamp of one or two is white, though it shows an HSBColor
UNIT_KEYS = {"TempUnit", "PressureUnit", "SpeedUnit", "VolumeUnit"}
UNITS = {"C": "degrees", "F": "degrees Fahrenheit", "hPa": "hectopascals", "mmHg": "mmHg", "inHg": "inHg"}
USED = {"Status", "StatusMQT", "StatusSHT"}
MOTOR_S = 2.0  # beyond the time that a shutter was measured to take


def import_tasmota(entries: Iterable[dict[str, Any]], host: str = DEFAULT_HOST, source: str = "the answer") -> Imported:
    """Return the devices of answers to `STATUS 0`.

    Args:
        entries: the answers.
        host: the MQTT broker; each device's own unless another is given.
        source: the file, for messages.

    Raises:
        UsageError: a section is missing or is no object; with file, device and field.
    """
    made = Imported()
    for number, entry in enumerate(entries, 1):
        _Answer(made, entry, host, f"{source}: device {number}").take()
    return made


class _Answer:
    """One device's answer on its way into a site."""

    def __init__(self, made: Imported, entry: dict[str, Any], host: str, where: str) -> None:
        self._made, self._where = made, where
        status = self._section(entry, "Status")
        self._topic = status.get("Topic")
        if not isinstance(self._topic, str) or not self._topic:
            raise UsageError(f"{where}: Status.Topic is no text")
        names = status.get("FriendlyName")
        self._names = [str(name) for name in (names if isinstance(names, list) else [names]) if name]
        self._title = str(status.get("DeviceName") or (self._names or [self._topic])[0])
        self._state = self._section(entry, "StatusSTS")
        self._sensors = self._section(entry, "StatusSNS", is_needed=False)
        self._durations = self._section(entry, "StatusSHT", is_needed=False)
        self._driver = self._broker(self._section(entry, "StatusMQT", is_needed=False), host)
        self._features = {path: self._offer(".".join(path)) for path, _ in leaves(self._state)}
        self._state = {key: value for key, value in self._state.items() if (key,) in self._features}
        self._measured = {path: self._offer(f"StatusSNS.{'.'.join(path)}") for path, _ in leaves(self._sensors)}
        for section in sorted(entry.keys() - {"StatusSTS", "StatusSNS"}):
            self._offer(section).leave("" if section in USED else SET_UP)
        self._outputs: list[Part] = []
        self._used: set[str] = set()  # relays that something else than a switch has

    def _section(self, entry: dict[str, Any], key: str, *, is_needed: bool = True) -> dict[str, Any]:
        found = entry.get(key, None if is_needed else {})
        if not isinstance(found, dict):
            raise UsageError(f"{self._where}: {key} is {'missing' if found is None else 'no object'}")
        return found

    def _offer(self, name: str) -> Feature:
        return self._made.offer(self._title, name)

    def _broker(self, settings: dict[str, Any], host: str) -> str:
        own = str(settings.get("MqttHost") or "")
        port = settings.get("MqttPort", DEFAULT_PORT)
        if type(port) is not int or not 0 < port < 65536:
            raise UsageError(f"{self._where}: StatusMQT.MqttPort is no port")
        driver: dict[str, Any] = {
            "type": "mqtt",
            "host": own if own and host == DEFAULT_HOST else host,
            "profile": "tasmota",
        }
        if port != DEFAULT_PORT:
            driver["port"] = port
        if (user := settings.get("MqttUser")) and user != DEFAULT_USER:
            note = f"{driver['host']} knows devices by a password: give its driver `user` and `password_file`"
            self._made.notes += [note] if note not in self._made.notes else []
        return driver_of(self._made, "tasmota", driver)

    def take(self) -> None:
        """Put the device into the site, and say of every feature what became of it."""
        for path, feature in self._features.items():
            if path[0] in DEVICE_STATE:
                feature.leave(ABOUT_ITSELF)
        self._take_shutters()
        self._take_fan()
        self._take_light()
        self._take_switches()
        add_parts(self._made, self._title, self._driver, self._outputs, self._take_sensors())

    def _at(self, key: str, **rest: Any) -> dict[str, Any]:
        return {"topic": self._topic, "key": key, **rest}

    def _relays(self) -> list[str]:
        """Return the relays in their order: POWER, or POWER1, POWER2 and so on."""
        found = [key for key in self._state if POWER.fullmatch(key)]
        return sorted(found, key=_number)

    def _output(self, noun: str, relay: str, model: str) -> Part:
        number = _number(relay)
        title = self._names[number - 1] if number <= len(self._names) and len(self._relays()) > 1 else ""
        part = Part(noun, title, number, {"model": model})
        self._outputs.append(part)
        return part

    def _take_shutters(self) -> None:
        for key, shutter in self._sensors.items():
            if not (found := SHUTTER.fullmatch(key)) or not isinstance(shutter, dict) or "Position" not in shutter:
                continue
            number = int(found[1])
            known = self._durations.get(f"SHT{number - 1}")
            measured = known if isinstance(known, dict) else {}
            relays = [measured.get("Relay1", 2 * number - 1), measured.get("Relay2", 2 * number)]
            for relay in (f"POWER{one}" for one in relays):
                if (relay,) in self._features:
                    self._features[(relay,)].leave(f"it moves shutter {number}, which its position does")
                    self._used.add(relay)
            tenths = [one for one in (measured.get("Open"), measured.get("Close")) if isinstance(one, int | float)]
            time_s = {"time_s": float(math.ceil(max(tenths) / 10 + MOTOR_S))} if tenths else {}
            moving = {"key": f"{key}.Direction", "values": [-1, 1], **time_s}
            part = Part("blinds", number=number, entry={"model": "blinds"})
            self._outputs.append(part)
            paths = [(key, name) for name in ("Position", "Direction")]
            features = [self._measured[path] for path in paths if path in self._measured]
            at = self._at(f"{key}.Position", set_key=f"ShutterPosition{number}")
            part.bind("position", at | ({"moving": moving} if "Direction" in shutter else {}), *features)
            if (key, "Target") in self._measured:
                self._measured[key, "Target"].leave("the position tells it")

    def _take_fan(self) -> None:
        if "FanSpeed" in self._state:
            part = Part("fan", entry={"model": "fan"})
            self._outputs.append(part)
            part.bind("speed", self._at("FanSpeed"), self._features[("FanSpeed",)])

    def _take_light(self) -> None:
        relays = [relay for relay in self._relays() if relay not in self._used]
        if "Dimmer" not in self._state or not relays:
            return
        relay = relays[-1]  # a light comes after the relays
        self._used.add(relay)
        part = self._output("light", relay, "dimmable_light")
        part.bind("on", self._at(relay), self._features[(relay,)])
        part.bind("brightness", self._at("Dimmer"), self._features[("Dimmer",)])
        if "CT" in self._state:
            part.color_temp(*MIRED, "mired", self._at("CT"), self._features[("CT",)])
        channels = sum(path[0] == "Channel" for path in self._features)
        has_color = channels >= RGB_CHANNELS and "HSBColor" in self._state
        for path, feature in self._features.items():
            if path[0] in LIGHT_SET_UP:
                feature.leave(SET_UP)
            elif path[0] in LIGHT_COLORS:
                feature.leave(TWICE if has_color and path[0] not in {"White", "Channel"} else OTHER_COLOR)
        if has_color:
            part.color(self._at("HSBColor", color="hsb"), self._features[("HSBColor",)])

    def _take_switches(self) -> None:
        for relay in self._relays():
            if relay not in self._used:
                noun, model = ("light", "light") if "FanSpeed" in self._state else ("switch", "switch")
                self._output(noun, relay, model).bind("on", self._at(relay), self._features[(relay,)])

    def _take_sensors(self) -> Part:
        sensors = Part("sensor")
        for path, value in leaves(self._sensors):
            feature = self._measured[path]
            if SHUTTER.fullmatch(path[0]):
                continue
            if path[0] in UNIT_KEYS:
                feature.take()  # the others have it
            elif path[0] == "Time" or path[-1] in {"Time", "TotalStartTime"}:
                feature.leave(ABOUT_ITSELF)
            else:
                self._take_sensor(sensors, path, value, feature)
        return sensors

    def _take_sensor(self, sensors: Part, path: tuple[str, ...], value: Any, feature: Feature) -> None:
        label = path[-2] if path[-1].isdecimal() and len(path) > 1 else path[-1]
        kind = label if label.lower() in NUMBERS else re.sub(r"\d+$", "", label)
        at = self._at(key_of(*path), is_sensor=True)
        sensor = path[0] if len(path) > 1 else ""
        if isinstance(value, bool) or (isinstance(value, str) and value.upper() in {"ON", "OFF"}):
            name = re.sub(r"(\D)(\d+)$", r"\1 \2", label)
            sensors.own(plain_name(name), boolean_schema(), at, feature, sensor)
        elif value is None:
            feature.leave(NO_VALUE)
        elif not isinstance(value, int | float):
            feature.leave(FREE_TEXT)
        else:
            is_known = kind.lower() in NUMBERS
            name, schema = number_schema(kind if is_known else f"{sensor} {label}", self._unit(kind))
            self._part_of(path, sensors).own(name, schema, at, feature, sensor)

    def _part_of(self, path: tuple[str, ...], sensors: Part) -> Part:
        """Return the device of a reading: of a list as long as there are relays, each has its own."""
        switches = [part for part in self._outputs if part.noun == "switch"]
        count = sum(other[:-1] == path[:-1] for other in self._measured) if path[-1].isdecimal() else 0
        is_by_relay = count == len(switches) > 1 and len(switches) == len(self._outputs)
        return switches[int(path[-1])] if is_by_relay else sensors

    def _unit(self, kind: str) -> str:
        key = "TempUnit" if kind in {"Temperature", "DewPoint"} else "PressureUnit"
        has_unit = kind in {"Temperature", "DewPoint", "Pressure", "SeaPressure"}
        return UNITS.get(str(self._sensors.get(key, "")), "") if has_unit else ""


def _number(relay: str) -> int:
    return int(relay.removeprefix("POWER") or 1)

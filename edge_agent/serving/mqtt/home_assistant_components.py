"""A device in Home Assistant's components: what is shown of it, and which topics and payloads command it. Pure.

Source: Home Assistant, the MQTT schemas of its components (2026.2). home_assistant_discovery.py says what becomes what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from devices.site.action import UNLESS_0
from devices.site.describe import property_title
from devices.site.device import Device
from devices.site.phrasings import SpokenAction
from devices.site.schema import DataSchema, Value
from edge_agent.serving.mqtt.home_assistant_units import sensor_facts, truth_facts, unit_symbol
from edge_agent.serving.mqtt.requests import Topics

Config = dict[str, Any]
CLIMATE_MODES = {"auto", "off", "cool", "heat", "dry", "fan_only", "heat_cool"}
DURATIONS = (1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300, 600, 900)
MOST_DURATIONS = 4


class Parts:
    """A device's components in the making, by id. What one of them shows or does, no other shows or does again.

    Args:
        node: begins every id.
        device: of the site.
        topics: where the box speaks.

    Attributes:
        left: properties that nothing shows yet.
        undone: actions that nothing does yet.
    """

    def __init__(self, node: str, device: Device, topics: Topics) -> None:
        self.device, self._node, self._topics = device, node, topics
        self.left = dict(device.properties)
        self.undone: dict[str, SpokenAction] = {
            name: one for name, one in device.actions.items() if one.risk != "forbidden"
        }
        self.made: dict[str, Config] = {}

    def add(self, key: str, platform: str, title: str, config: Mapping[str, Any]) -> None:
        """Note a component; without a title it is what its device is first of all, and is called as that."""
        name = f"{title[:1].upper()}{title[1:]}" or None
        unique_id = f"{self._node}_{self.device.name}_{platform}_{key}"
        about = {"platform": platform, "name": name, "unique_id": unique_id} | dict(config)
        about |= {"qos": 1} if any(one.endswith("command_topic") for one in config) else {}
        both = [{"topic": self._topics.availability()}, {"topic": self._topics.availability(self.device.name)}]
        self.made[f"{platform}_{key}"] = about | {"availability": both, "availability_mode": "all"}

    def show(
        self, name: str, topic: str = "state_topic", template: str = "value_template", words: tuple[str, str] = ("", "")
    ) -> Config:
        """Return where a property is shown; `words` are for true and false. What is not known is "None" there."""
        self.left.pop(name, None)
        value = f"value_json.get('{name}')"
        if any(words):
            value = f"{{true: '{words[0]}', false: '{words[1]}'}}.get({value})"
        return {topic: self._topics.state(self.device.name), template: f"{{{{ {value} }}}}"}

    def take(self, action: str, option: str = "command_topic") -> Config:
        """Return the topic to which an action's value goes."""
        self.undone.pop(action, None)
        return {option: self._topics.command(self.device.name, action)}

    def name_actions(self, payloads: Mapping[str, str]) -> Config:
        """Return the topic to which names of actions go, with the payloads that are these names; None for ""."""
        for action in payloads.values():
            self.undone.pop(action, None)
        named = {option: action or None for option, action in payloads.items()}
        return {"command_topic": self._topics.command(self.device.name)} | named

    def plain(self, name: str) -> str:
        """Return the name of an action if it is there, takes nothing and has no end, else ""."""
        action = self.undone.get(name)
        return name if action and not (action.input or action.is_call or action.ends) else ""

    def making(self, name: str, value: Value) -> str:
        """Return the plain action that makes a property so, and the least else; "" if none does."""
        found = [
            key
            for key, action in self.undone.items()
            if self.plain(key) and type(action.writes.get(name)) is type(value) and action.writes[name] == value
        ]
        return min(found, key=lambda one: len(self.undone[one].writes), default="")

    def setter(self, name: str) -> str:
        """Return the action that takes the value of a property and nothing else; "" if none does."""
        for key, action in self.undone.items():
            if len(action.input) == 1 and not action.is_call and not action.ends:
                argument = next(iter(action.input))
                if action.writes.get(name) in {f"${argument}", f"${argument} {UNLESS_0}"}:
                    return key
        return ""

    def input_of(self, action: str) -> DataSchema:
        """Return what an action with one argument takes."""
        return next(iter(self.undone[action].input.values()))


def components(node: str, device: Device, topics: Topics) -> dict[str, Config]:
    """Return the components of a device by their ids."""
    parts = Parts(node, device, topics)
    if device.kind in KINDS:
        KINDS[device.kind](parts)
        for name in list(parts.left):
            _add_setting(parts, name)
        _add_durations(parts)
    for name in list(parts.left):
        _add_sensor(parts, name)
    for name, action in list(parts.undone.items()):
        if parts.plain(name) and (action.safe or (device.kind in KINDS and action.risk != "confirm")):
            parts.add(name, "button", name.replace("_", " "), parts.name_actions({"payload_press": name}))
    return parts.made


def _add_light(parts: Parts) -> None:
    on, off = parts.making("on", True), parts.making("on", False)
    if not (on and off):
        return
    config = parts.name_actions({"payload_on": on, "payload_off": off})
    config |= parts.show("on", template="state_value_template", words=(on, off))
    if "brightness" in parts.left and (action := parts.setter("brightness")):
        config |= {"brightness_scale": int(parts.left["brightness"].maximum or 1), "on_command_type": "brightness"}
        config |= parts.show("brightness", "brightness_state_topic", "brightness_value_template")
        config |= parts.take(action, "brightness_command_topic")
    warmth = parts.left.get("color_temp")
    if warmth and warmth.unit in {"mired", "kelvin"} and (action := parts.setter("color_temp")):
        unit = "mireds" if warmth.unit == "mired" else "kelvin"
        config |= {f"min_{unit}": int(warmth.minimum or 0), f"max_{unit}": int(warmth.maximum or 0)}
        config |= {"color_temp_kelvin": True} if unit == "kelvin" else {}
        config |= parts.show("color_temp", "color_temp_state_topic", "color_temp_value_template")
        config |= parts.take(action, "color_temp_command_topic")
    parts.add("light", "light", "", config)


def _add_switch(parts: Parts) -> None:
    if "on" in parts.left:
        _add_two_way(parts, "on", "")


def _add_two_way(parts: Parts, name: str, title: str) -> bool:
    """Add what is switched by two actions; return whether they are there."""
    on, off = parts.making(name, True), parts.making(name, False)
    if not (on and off):
        return False
    config = parts.show(name, words=(on, off)) | {"state_on": on, "state_off": off}
    parts.add(name, "switch", title, config | parts.name_actions({"payload_on": on, "payload_off": off}))
    return True


def _add_lock(parts: Parts) -> None:
    lock, unlock = parts.making("locked", True), parts.making("locked", False)
    if lock and unlock:
        config = parts.show("locked", words=("LOCKED", "UNLOCKED"))
        config |= {"state_locked": "LOCKED", "state_unlocked": "UNLOCKED"}
        parts.add("lock", "lock", "", config | parts.name_actions({"payload_lock": lock, "payload_unlock": unlock}))


def _add_cover(parts: Parts) -> None:
    ways = {f"payload_{name}": parts.plain(name) for name in ("open", "close", "stop")}
    position = parts.left.get("position")
    if not any(ways.values()) or not (position or "state" in parts.left):
        return
    config = parts.name_actions(ways)
    if position:
        limits = {"position_open": int(position.maximum or 0), "position_closed": int(position.minimum or 0)}
        config |= limits | parts.show("position", "position_topic", "position_template")
        if action := parts.setter("position"):
            config |= parts.take(action, "set_position_topic")
    else:
        config |= parts.show("state")
    tilt = parts.left.get("tilt")
    if tilt and (action := parts.setter("tilt")):
        config |= {"tilt_min": int(tilt.minimum or 0), "tilt_max": int(tilt.maximum or 0)}
        config |= {"tilt_closed_value": config["tilt_min"], "tilt_opened_value": config["tilt_max"]}
        config |= parts.show("tilt", "tilt_status_topic", "tilt_status_template")
        config |= parts.take(action, "tilt_command_topic")
    parts.add("cover", "cover", "", config)


def _add_climate(parts: Parts) -> None:
    if not (action := parts.setter("target_c")):
        return
    target = parts.input_of(action)
    step = target.step or (1 if target.type == "integer" else 0.5)
    config: Config = {"min_temp": target.minimum, "max_temp": target.maximum, "temp_step": step}
    config |= {"temperature_unit": "C", "precision": 0.1}
    config |= parts.show("target_c", "temperature_state_topic", "temperature_state_template")
    config |= parts.take(action, "temperature_command_topic")
    if "temperature_c" in parts.left:
        config |= parts.show("temperature_c", "current_temperature_topic", "current_temperature_template")
    modes = parts.left["mode"].enum if "mode" in parts.left else None
    if modes and CLIMATE_MODES.issuperset(modes) and (action := parts.setter("mode")):
        config |= {"modes": list(modes)} | parts.show("mode", "mode_state_topic", "mode_state_template")
        config |= parts.take(action, "mode_command_topic")
    else:  # it has no other; without one Home Assistant would show it as off
        state = parts.show("target_c", "mode_state_topic", "mode_state_template")
        config |= state | {"modes": ["heat"], "mode_state_template": "heat"}
    presets = parts.left["preset"].enum if "preset" in parts.left else None
    if presets and (action := parts.setter("preset")):
        config |= {"preset_modes": [one for one in presets if one != "none"]}
        config |= parts.show("preset", "preset_mode_state_topic", "preset_mode_value_template")
        config |= parts.take(action, "preset_mode_command_topic")
    parts.add("climate", "climate", "", config)


def _add_fan(parts: Parts) -> None:
    on, off = parts.making("on", True), parts.making("on", False)
    speed, action = parts.left.get("speed"), parts.setter("speed")
    is_ranged = bool(action and speed and speed.minimum == 0 and (speed.maximum or 0) > 1)
    if on and off:
        config = parts.name_actions({"payload_on": on, "payload_off": off})
        config |= parts.show("on", template="state_value_template", words=(on, off))
    elif is_ranged:  # on is the lowest speed: Home Assistant says on before it says how fast
        state = parts.show("speed", template="state_value_template")
        running = "{% set speed = value_json.get('speed') %}{{ speed if speed is none else [speed, 1] | min | int }}"
        config = parts.take(action) | state | {"state_value_template": running, "payload_on": "1", "payload_off": "0"}
    else:
        return
    if is_ranged and speed:
        config |= {"speed_range_min": 1, "speed_range_max": int(speed.maximum or 1)}
        config |= parts.show("speed", "percentage_state_topic", "percentage_value_template")
        config |= parts.take(action, "percentage_command_topic")
    modes = parts.left["fan_mode"].enum if "fan_mode" in parts.left else None
    if modes and (action := parts.setter("fan_mode")):
        config |= {"preset_modes": list(modes)}
        config |= parts.show("fan_mode", "preset_mode_state_topic", "preset_mode_value_template")
        config |= parts.take(action, "preset_mode_command_topic")
    parts.add("fan", "fan", "", config)


def _add_valve(parts: Parts) -> None:
    if "open" in parts.left:
        ways = {"payload_open": parts.making("open", True), "payload_close": parts.making("open", False)}
        config = parts.show("open", words=("open", "closed")) | {"state_open": "open", "state_closed": "closed"}
        parts.add("valve", "valve", "", config | parts.name_actions(ways) | {"reports_position": False})


def _add_setting(parts: Parts, name: str) -> None:
    """Add what sets one more property of a device, if an action does."""
    schema, title = parts.left[name], property_title(name, parts.left[name])
    if schema.type == "boolean":
        _add_two_way(parts, name, title)
    elif action := parts.setter(name):
        taken = parts.input_of(action)
        config = parts.show(name) | parts.take(action)
        if taken.enum:
            parts.add(name, "select", title, config | {"options": list(taken.enum)})
            return
        step = taken.step or (1 if taken.type == "integer" else 0.1)
        config |= {"min": taken.minimum, "max": taken.maximum, "step": step}
        unit = unit_symbol(name, schema)
        parts.add(name, "number", title, config | ({"unit_of_measurement": unit} if unit else {}))


def _add_durations(parts: Parts) -> None:
    for name, action in list(parts.undone.items()):
        if not action.ends or len(action.input) > 1 or action.risk == "confirm":
            continue
        schema, unit = parts.input_of(name), action.ends.after.rpartition(" ")[2]
        command = parts.take(name)
        for value in durations(schema):
            words = f"{name.replace('_', ' ')} {value} {unit if value != 1 else unit.removesuffix('s')}"
            parts.add(f"{name}_{value}", "button", words, command | {"payload_press": str(value)})


def durations(schema: DataSchema) -> list[int]:
    """Return a few durations that an action takes, from the shortest to the longest; of levels these."""
    wanted = list(schema.levels.values()) or [schema.minimum or 0, *DURATIONS, schema.maximum or 0]
    fit = sorted({int(one) for one in wanted if float(one).is_integer() and one > 0 and not schema.problem_with(one)})
    if len(fit) <= MOST_DURATIONS:
        return fit
    return [fit[round(at * (len(fit) - 1) / (MOST_DURATIONS - 1))] for at in range(MOST_DURATIONS)]


def _add_sensor(parts: Parts, name: str) -> None:
    schema = parts.left[name]
    title = property_title(name, schema)
    if schema.type == "boolean":
        config = parts.show(name, words=("ON", "OFF")) | {"payload_on": "ON", "payload_off": "OFF"}
        parts.add(name, "binary_sensor", title, config | truth_facts(name))
    else:
        parts.add(name, "sensor", title, parts.show(name) | sensor_facts(name, schema))


KINDS: dict[str, Callable[[Parts], None]] = {
    "light": _add_light,
    "switch": _add_switch,
    "outlet": _add_switch,
    "cover": _add_cover,
    "lock": _add_lock,
    "climate": _add_climate,
    "fan": _add_fan,
    "valve": _add_valve,
}

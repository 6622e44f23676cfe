"""Home Assistant's domains that have models of their own: players, vacuums, alarm panels, ranges of targets, scenes.

What an entity does not support is forbidden in the site, so that it is no tool. A code is asked for where the entity
wants one, and comes from the environment.
Source: Home Assistant, the developers' pages of each entity: states, attributes, services, and bits of features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from devices.exchange.imports.imported import NO_PLACE, NO_WORDS, UNITS, is_plain, plain_number
from devices.exchange.imports.parts import Part
from devices.site.schema import is_multiple

if TYPE_CHECKING:
    from devices.exchange.imports.home_assistant import Entity

CODE_ENV = "ALARM_CODE"
FAN_LEVELS = {2: ("low", "high"), 3: ("low", "medium", "high")}  # Source: Home Assistant's frontend, src/data/fan.ts
ARM = {"arm_home": 1, "arm_away": 2, "arm_night": 4}  # bits of what a panel supports
UNAVAILABLE = {"words": ["unavailable", "available"], "alike": {"*": "available"}}


def words_at(options: object) -> tuple[list[str], dict[str, Any]] | None:
    """Return options as words of a site, and for the address what the entity says where that is something else."""
    if not isinstance(options, list) or not options:
        return None
    words = ["_".join(re.findall(r"[\w+-]+", str(option))).lower() for option in options]
    if len(set(words)) < len(words) or not all(words) or not is_plain({"type": "string", "enum": words}):
        return None
    values = {word: option for word, option in zip(words, options, strict=True) if word != option}
    return words, {"values": values} if values else {}


def take_choice(entity: Entity, part: Part, model: str, options: str, key: str, service: str, set_key: str) -> None:
    """Take one of several words that an entity can be set to, as a model whose action is `set_` and its property."""
    if not entity.attributes.get(options):
        return
    feature, found = entity.more(options), words_at(entity.attributes[options])
    if found is None:
        feature.leave(NO_WORDS)
        return
    name = "mode" if model.endswith("mode") and model != "fan_mode" else model.removeprefix("media_")
    part.entry["model"] = [*as_list(part.entry["model"]), model]
    part.properties[name] = {"enum": found[0]}
    part.actions[f"set_{name}"] = {"input": {name: {"enum": found[0]}}}
    part.bind(name, entity.told(key, service, set_key, **found[1]), feature)


def as_list(model: str | list[str]) -> list[str]:
    """Return models as a list."""
    return [model] if isinstance(model, str) else model


def forbid(part: Part, entity: Entity, bits: Mapping[str, int]) -> None:
    """Forbid the actions of a model that the entity has no bit for."""
    supported = int(entity.number("supported_features") or 0)
    for action, bit in bits.items():
        if not supported & bit:
            part.actions[action] = part.actions.get(action, {}) | {"risk": "forbidden", "safe": False}


def take_levels(entity: Entity, schema: dict[str, Any]) -> None:
    """Give a fan's percentage the levels that Home Assistant shows for so many speeds."""
    names = FAN_LEVELS.get(round(100 / (entity.number("percentage_step") or 100)), ())
    if names:
        step = entity.number("percentage_step") or 0
        schema["levels"] = {name: min(math.floor(number * step + 0.01), 100) for number, name in enumerate(names, 1)}


def _state_of(entity: Entity, services: Mapping[str, str], **rest: Any) -> dict[str, Any]:
    """Return where an entity's state is read, and set by a service for each word."""
    paths = {word: f"/api/services/{entity.domain}/{service}" for word, service in services.items()}
    return entity.at("state", set_paths=paths, body={"entity_id": entity.entity}, **rest)


def _call(entity: Entity, service: str) -> dict[str, Any]:
    path = f"/api/services/{entity.domain}/{service}"
    return {"at": {"path": path, "verb": "POST", "body": {"entity_id": entity.entity}, "is_unkeyed": True}}


def _humidifier(entity: Entity) -> Part:
    part = entity.part("humidifier", "humidifier")
    limits = {"minimum": int(entity.number("min_humidity") or 0), "maximum": int(entity.number("max_humidity") or 100)}
    part.properties["target_humidity"] = dict(limits)
    part.actions["set_humidity"] = {"input": {"target_humidity": limits}}
    part.bind("on", entity.switched(), entity.feature)
    part.bind("target_humidity", entity.told("attributes.humidity", "set_humidity", "humidity"))
    if entity.number("current_humidity") is not None:
        part.entry["model"] = ["humidifier", "humidity"]
        part.bind("humidity", entity.at("attributes.current_humidity"), entity.more("current_humidity"))
    take_choice(entity, part, "humidifier_mode", "available_modes", "attributes.mode", "set_mode", "mode")
    return part


def _media_player(entity: Entity) -> Part:
    part = entity.part("player", "media_player")
    supported = int(entity.number("supported_features") or 0)
    is_on = {"idle": "on", "playing": "on", "paused": "on", "buffering": "on", "standby": "off"}
    part.bind("on", entity.switched() | {"alike": is_on}, entity.feature)
    services = {"playing": "media_play", "paused": "media_pause", "idle": "media_stop"}
    also = {"buffering": "playing", "on": "idle", "off": "idle", "standby": "idle"}
    part.bind("state", _state_of(entity, services, alike=also))
    forbid(part, entity, {"on": 128, "off": 256, "play": 16384, "pause": 1, "stop": 4096})
    if supported & 4 or supported & 8:
        part.entry["model"] = ["media_player", "media_volume"]
        part.bind("volume", entity.told("attributes.volume_level", "volume_set", "volume_level", scale=100))
        muted = entity.told("attributes.is_volume_muted", "volume_mute", "is_volume_muted")
        part.bind("muted", muted, entity.more("volume"))
        forbid(part, entity, {"set_volume": 4, "mute": 8, "unmute": 8})
    if supported & 48:
        part.entry["model"] = [*as_list(part.entry["model"]), "media_track"]
        part.actions |= {"next": _call(entity, "media_next_track"), "previous": _call(entity, "media_previous_track")}
        forbid(part, entity, {"next": 32, "previous": 16})
        entity.more("tracks").take()
    take_choice(entity, part, "media_source", "source_list", "attributes.source", "select_source", "source")
    return part


def _vacuum(entity: Entity) -> Part:
    part = entity.part("vacuum", "vacuum")
    services = {"cleaning": "start", "paused": "pause", "idle": "stop", "returning": "return_to_base"}
    part.bind("state", _state_of(entity, services), entity.feature)
    forbid(part, entity, {"start": 8192, "pause": 4, "stop": 8, "return_to_base": 16})
    if entity.attributes.get("fan_speed_list"):
        entity.more("fan_speed_list", NO_PLACE)
    return part


def _lawn_mower(entity: Entity) -> Part:
    part = entity.part("mower", "lawn_mower")
    services = {"mowing": "start_mowing", "paused": "pause", "returning": "dock"}
    part.bind("state", _state_of(entity, services), entity.feature)
    forbid(part, entity, {"start": 1, "pause": 2, "dock": 4})
    return part


def _alarm_panel(entity: Entity) -> Part:
    part = entity.part("alarm", "alarm_panel")
    services = {"armed_home": "alarm_arm_home", "armed_away": "alarm_arm_away", "armed_night": "alarm_arm_night"}
    moving = {"key": "state", "values": ["arming"]}
    place = _state_of(entity, services | {"disarmed": "alarm_disarm"}, alike={"disarming": "disarmed"}, moving=moving)
    if entity.attributes.get("code_format"):
        place["secrets"] = {"code": CODE_ENV}
        entity.note(f"{entity.entity} wants its code: export {CODE_ENV}=… before you use it")
    part.bind("state", place, entity.feature)
    forbid(part, entity, ARM)
    return part


def _water_heater(entity: Entity) -> Part | None:
    low, high = entity.number("min_temp"), entity.number("max_temp")
    if low is None or high is None or not {"temperature", "current_temperature"} <= entity.attributes.keys():
        entity.feature.leave("it has not both a target and a temperature")
        return None
    found = words_at(entity.attributes.get("operation_list"))
    if found is None:
        entity.feature.leave(NO_WORDS)
        return None
    part = entity.part("water heater", "water_heater")
    part.properties = {"target_c": {"minimum": low, "maximum": high}, "mode": {"enum": found[0]}}
    limits = {"minimum": math.ceil(low), "maximum": math.floor(high)}
    part.actions = {"set": {"input": {"target_c": limits}}, "set_mode": {"input": {"mode": {"enum": found[0]}}}}
    part.bind("target_c", entity.told("attributes.temperature", "set_temperature", "temperature"), entity.feature)
    part.bind("temperature_c", entity.at("attributes.current_temperature"))
    place = entity.told("state", "set_operation_mode", "operation_mode", **found[1])
    part.bind("mode", place, entity.more("operation_list"))
    forbid(part, entity, {"set": 1, "set_mode": 2})
    return part


def climate_range(entity: Entity, low: float, high: float) -> Part:
    """Return a thermostat that is kept between two targets."""
    part = entity.part("thermostat", "climate_range")
    names = {"target_low_c": "target_temp_low", "target_high_c": "target_temp_high"}
    given = {"minimum": math.ceil(low), "maximum": math.floor(high)}
    part.actions["set_range"] = {"input": {name: dict(given) for name in names}}
    for name, key in names.items():
        part.properties[name] = {"minimum": low, "maximum": high}
        part.bind(name, entity.told(f"attributes.{key}", "set_temperature", key))
    entity.feature.take()
    if entity.number("current_temperature") is not None:
        part.entry["model"] = ["climate_range", "temperature"]
        part.bind("temperature_c", entity.at("attributes.current_temperature"))
    return part


def take_climate_modes(entity: Entity, part: Part) -> None:
    """Take the modes of a climate entity; how it swings has no place."""
    take_choice(entity, part, "mode", "hvac_modes", "state", "set_hvac_mode", "hvac_mode")
    take_choice(entity, part, "preset", "preset_modes", "attributes.preset_mode", "set_preset_mode", "preset_mode")
    take_choice(entity, part, "fan_mode", "fan_modes", "attributes.fan_mode", "set_fan_mode", "fan_mode")
    if entity.attributes.get("swing_modes"):
        entity.more("swing_modes", NO_PLACE)


def _number(entity: Entity) -> Part | None:
    low, high = entity.number("min"), entity.number("max")
    if low is None or high is None or low > high:
        entity.feature.leave("it can be set, and has no limits")
        return None
    part, step = entity.part("number", "number"), entity.number("step")
    limits: dict[str, Any] = {"minimum": plain_number(low), "maximum": plain_number(high)}
    if unit := UNITS.get(str(entity.attributes.get("unit_of_measurement")), ""):
        limits["unit"] = unit
    given = dict(limits)
    if step and is_multiple(low, step):
        given["step"] = plain_number(step)
    is_whole = all(float(one).is_integer() for one in (low, high, step or 0.1))
    part.properties["value"] = limits
    given["type"] = "integer" if is_whole else "number"
    part.actions["set_value"] = {"risk": "confirm", "input": {"value": given}}  # what it moves nobody knows
    part.bind("value", entity.told("state", "set_value", "value"), entity.feature)
    return part


def _select(entity: Entity) -> Part | None:
    if (found := words_at(entity.attributes.get("options"))) is None:
        entity.feature.leave(NO_WORDS)
        return None
    part = entity.part("select", "select")
    part.properties["option"] = {"enum": found[0]}
    part.actions["select_option"] = {"risk": "confirm", "input": {"option": {"enum": found[0]}}}
    place = entity.told("state", "select_option", "option", **found[1])
    part.bind("option", place, entity.feature)
    return part


def _button(entity: Entity) -> Part:
    part = entity.part("button", "button")
    part.actions["press"] = _call(entity, "press")
    part.bind("available", entity.at("state", **UNAVAILABLE), entity.feature)
    return part


def _scene(entity: Entity) -> Part:
    part = entity.part("scene", "scene")
    part.actions["activate"] = _call(entity, "turn_on")
    part.bind("available", entity.at("state", **UNAVAILABLE), entity.feature)
    return part


DOMAINS: dict[str, Callable[[Entity], Part | None]] = {
    "humidifier": _humidifier,
    "media_player": _media_player,
    "vacuum": _vacuum,
    "lawn_mower": _lawn_mower,
    "alarm_control_panel": _alarm_panel,
    "water_heater": _water_heater,
    "number": _number,
    "input_number": _number,
    "select": _select,
    "input_select": _select,
    "button": _button,
    "input_button": _button,
    "scene": _scene,
}

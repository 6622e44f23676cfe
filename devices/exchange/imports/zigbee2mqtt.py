"""Sites from zigbee2mqtt's list of devices, the payload of `zigbee2mqtt/bridge/devices`.

Every expose, and every feature of a light, switch, lock, cover, fan or climate, is on the account: taken, or left out
with a reason. Sources: zigbee2mqtt, "Exposes" and "MQTT Topics and Messages".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from devices.exchange.imports.exposes import SET, STATE, Expose, Exposed, ZigbeePart
from devices.exchange.imports.imported import EVENT, ONLY_WRITTEN, TWICE, Foreign, Imported, parsed
from devices.exchange.imports.zigbee2mqtt_groups import Group, read_groups, take_group

COVER_S = (
    60  # what Shelly gives a cover unless told otherwise (maxtime_open); Tuya's curtains take 10 to 120 (tr_timecon)
)
SETTING = "a setting of the device itself, which is set up once"
DIAGNOSTIC = "it tells how the device is, and nothing that people ask for"
KNOWN = {  # by name: model and property of what is read
    "temperature": ("temperature", "temperature_c"),
    "humidity": ("humidity", "humidity"),
    "soil_moisture": ("moisture", "moisture_pct"),
    "pressure": ("pressure", "pressure"),
    "illuminance": ("illuminance", "illuminance"),
    "illuminance_lux": ("illuminance", "illuminance"),
    "co2": ("co2", "co2"),
    "pm25": ("pm25", "pm25"),
    "pm10": ("pm10", "pm10"),
    "voc": ("voc", "voc"),
    "formaldehyd": ("formaldehyde", "formaldehyde"),
    "power": ("power", "power"),
    "energy": ("energy", "energy"),
    "voltage": ("voltage", "voltage"),
    "current": ("current", "current"),
    "battery": ("battery", "battery"),
    "noise": ("noise", "noise"),
    "contact": ("contact", "open"),
    "occupancy": ("occupancy", "occupied"),
    "presence": ("occupancy", "occupied"),
    "smoke": ("smoke", "smoke"),
    "water_leak": ("leak", "wet"),
    "gas": ("gas", "gas"),
    "carbon_monoxide": ("carbon_monoxide", "carbon_monoxide"),
    "vibration": ("vibration", "vibration"),
    "tamper": ("tamper", "tamper"),
    "battery_low": ("battery_low", "battery_low"),
}
TOGGLES = {"child_lock": ("child_lock", "child_lock"), "alarm": ("siren", "on"), "siren": ("siren", "on")}
ASKED_FOR = {"battery", "battery_low", "tamper"}  # though zigbee2mqtt calls them diagnostic
SETTINGS = re.compile(
    r".*(_calibration|_precision|_startup|_timeout|_delay|_sensitivity)|power_on_behavior|power_outage_memory"
    r"|sensitivity|keep_time|min_brightness|level_config|led_.*|indicator_.*|switch_type|operation_mode|backlight_.*"
    r"|reporting_.*|calibration|motor_reversal|reverse_direction|device_mode|occupied_threshold.*"
)
READINGS = {"running_state", "running_mode", "pi_heating_demand", "lock_state"}  # whatever their access says
DIAGNOSTICS = {"linkquality", "last_seen", "device_temperature", "power_outage_count", "trigger_count", "update"}
NOUNS = {  # of sensors without a name of their own: by the first of these models that they are of
    "contact": "contact sensor",
    "occupancy": "motion sensor",
    "smoke": "smoke detector",
    "leak": "leak sensor",
    "gas": "gas detector",
    "carbon_monoxide": "carbon monoxide detector",
    "vibration": "vibration sensor",
    "temperature": "climate sensor",
    "humidity": "climate sensor",
    "moisture": "soil sensor",
    "co2": "air sensor",
    "pm25": "air sensor",
    "voc": "air sensor",
    "illuminance": "light sensor",
    "power": "meter",
    "energy": "meter",
    "battery": "remote",
}
SAID_NOUNS = (  # what a definition says of itself comes before its type
    (r"radiator|\btrv\b", "radiator valve"),
    (r"power strip", "power strip"),
    (r"plug|outlet|socket", "plug"),
    (r"curtain", "curtain"),
    (r"garage", "garage door"),
    (r"siren", "siren"),
)
SPECIFIC_NOUNS = {"cover": "blinds", "climate": "thermostat"}  # the others are called by their type
VALVE = re.compile(r"valve|irrigation|sprinkler|water timer", re.IGNORECASE)


class Definition(Foreign):
    """What zigbee2mqtt knows of a kind of device."""

    description: str | None = None
    exposes: tuple[Expose, ...] = ()


class Entry(Foreign):
    """A device of the list."""

    ieee_address: str
    friendly_name: str = ""
    type: str = ""
    disabled: bool = False
    definition: Definition | None = None


def import_zigbee2mqtt(
    entries: Iterable[dict[str, Any]], host: str, source: str = "the list", groups: Iterable[Group] = ()
) -> Imported:
    """Return the devices and groups of zigbee2mqtt's lists.

    Args:
        entries: the list of devices; groups may be in it, too.
        host: the MQTT broker.
        source: where the list is from, for errors.
        groups: more groups.

    Raises:
        UsageError: an entry is broken; the message has the source, the device and the field.
    """
    made = Imported(drivers={"zigbee": {"type": "mqtt", "host": host, "profile": "zigbee2mqtt"}})
    listed = list(entries)
    groups = [*read_groups([plain for plain in listed if "members" in plain], source), *groups]
    called, parts = dict[str, str](), dict[str, list[str]]()  # by address: a device's name, and those of it in the site
    for plain in listed:
        if "members" in plain:
            continue
        entry = parsed(Entry, plain, f"{source}: device", ("friendly_name", "ieee_address"))
        called[entry.ieee_address] = name = entry.friendly_name or entry.ieee_address
        exposes = entry.definition.exposes if entry.definition else ()
        if entry.type == "Coordinator":
            made.notes.append(f"{name}: the coordinator itself")
        elif not exposes:
            made.notes.append(f"{name}: nothing of it is known to zigbee2mqtt")
        elif not re.fullmatch(r"[^#+\x00]+", entry.friendly_name or entry.ieee_address):
            for expose in exposes:
                for feature in expose.features or (expose,):
                    made.offer(str(name), feature.key or feature.name).leave("its name is no MQTT topic")
        else:
            known = set(made.devices)
            _Device(made, entry).take()
            parts[entry.ieee_address] = [device for device in made.devices if device not in known]
    for group in groups:
        take_group(made, group, called, parts)
    return made


class _Device:
    """One entry of the list, on its way to one device of the site or several."""

    def __init__(self, made: Imported, entry: Entry) -> None:
        assert entry.definition
        self._made, self._topic = made, entry.friendly_name or entry.ieee_address
        self._address = entry.ieee_address
        self._description = entry.definition.description or ""
        self._exposes = entry.definition.exposes
        self._drafts: dict[str, ZigbeePart] = {}

    def take(self) -> None:
        """Put what it is into the site, and every feature on the account."""
        rest: list[tuple[str, Exposed]] = []
        for expose in self._exposes:
            if expose.type in MAKERS and not _is_beside(expose):
                parts = [self._part(one, expose.endpoint) for one in expose.features]
                endpoint = expose.endpoint or next((found for one in expose.features if (found := _endpoint(one))), "")
                draft = self._new_draft(endpoint, SPECIFIC_NOUNS.get(expose.type, expose.type))
                rest += [(draft.suffix, part) for part in MAKERS[expose.type](draft, parts, self._description)]
            else:
                inner = expose.features if expose.type in MAKERS else (expose,)
                rest += [(_endpoint(one), self._part(one, expose.endpoint)) for one in inner]
        for endpoint, part in rest:
            draft = self._draft_for(endpoint)
            _take_rest(draft, part, is_own=endpoint in ("", draft.suffix))
        self._add()

    def _part(self, expose: Expose, endpoint: str) -> Exposed:
        named = expose.name if expose.type == "composite" else expose.key or expose.name
        if endpoint and not expose.key:
            named = f"{named}_{endpoint}"
        return Exposed(expose, self._made.offer(self._topic, named or expose.type))

    def _new_draft(self, endpoint: str, noun: str) -> ZigbeePart:
        suffix = endpoint
        if suffix in self._drafts:
            suffix = f"{endpoint} {noun}".strip()
        while suffix in self._drafts:
            suffix += " too"
        self._drafts[suffix] = ZigbeePart(noun, topic=self._topic, suffix=suffix)
        return self._drafts[suffix]

    def _draft_for(self, endpoint: str) -> ZigbeePart:
        if endpoint not in self._drafts and "" not in self._drafts and len(self._drafts) == 1:
            return next(iter(self._drafts.values()))  # the only part there is
        if endpoint not in self._drafts:
            endpoint = ""
        return self._drafts.setdefault(endpoint, ZigbeePart("", topic=self._topic))

    def _add(self) -> None:
        drafts = [draft for draft in self._drafts.values() if draft.at]
        title = self._topic
        for draft in sorted(drafts, key=lambda one: one.suffix != ""):
            part = re.sub(r"^l(\d+)$", r"\1", draft.suffix) if len(drafts) > 1 else ""
            entry = draft.entry | draft.own_parts | {"driver": "zigbee"}
            self._made.add(title, self._noun(draft), entry, part, draft.features)
        if not drafts:
            self._made.notes.append(f"{self._topic}: nothing of it has a place in a site")

    def _noun(self, draft: ZigbeePart) -> str:
        known = next((noun for model, noun in NOUNS.items() if model in draft.models), "")
        said = next((noun for pattern, noun in SAID_NOUNS if re.search(pattern, self._description.lower())), "")
        return said or draft.noun or known or "sensor"


def _endpoint(expose: Expose) -> str:
    """Return which part of the device has a feature: zigbee2mqtt says so, and puts it behind the name."""
    if expose.endpoint or not expose.name:
        return expose.endpoint
    return expose.key.removeprefix(f"{expose.name}_") if expose.key.startswith(f"{expose.name}_") else ""


def _is_beside(expose: Expose) -> bool:
    """Return whether a switch or lock is a setting beside something else, such as a radiator valve's child lock."""
    state = next((one for one in expose.features if one.name == "state"), None)
    if expose.type not in {"switch", "lock"} or state is None:
        return False
    return state.key != "state" and not state.key.startswith("state_")


def _by_name(parts: list[Exposed]) -> dict[str, Exposed]:
    return {part.expose.name: part for part in reversed(parts)}


def _rest(parts: list[Exposed], *seen: Exposed | None) -> list[Exposed]:
    return [part for part in parts if not any(part is one for one in seen)]


def _light(draft: ZigbeePart, parts: list[Exposed], _: str) -> list[Exposed]:
    named = _by_name(parts)
    on, level, warmth = (named.get(name) for name in ("state", "brightness", "color_temp"))
    color = next((part for part in parts if part.expose.name in {"color_hs", "color_xy"}), None)
    if on is None:
        return parts
    draft.be_switch("dimmable_light" if level else "light", "on", on)
    if level:
        _brightness(draft, level)
    if warmth:
        draft.be_number("color_temp", "color_temp", warmth, "color_temp", raw_step=1)
    if color:
        draft.be_model("color", "color", color, color=color.expose.name.removeprefix("color_"))
    twin = next((part for part in parts if part is not color and part.expose.name in {"color_hs", "color_xy"}), None)
    if twin:
        twin.feature.leave(TWICE)
    return _rest(parts, on, level, warmth, color, twin)


def _brightness(draft: ZigbeePart, part: Exposed) -> None:
    """Take a brightness of so many levels as one in percent; a level may be several percent wide."""
    highest = part.expose.value_max or 254.0
    if not draft.be_model(
        "dimmable_light", "brightness", part, scale=100 / highest, raw_step=part.expose.value_step or 1
    ):
        return
    if highest < 100 and (100 / highest).is_integer():
        step = {"step": int(100 / highest)}
        draft.properties["brightness"], draft.actions["brightness"] = step, {"input": {"brightness": step}}
    elif highest < 100:
        draft.actions["brightness"] = {"tolerance": round(50 / highest, 1)}


def _switch(draft: ZigbeePart, parts: list[Exposed], description: str) -> list[Exposed]:
    on = _by_name(parts).get("state")
    if on and VALVE.search(description):
        draft.noun = "valve"
        draft.be_switch("valve", "open", on)
    elif on:
        draft.be_switch("switch", "on", on)
    return _rest(parts, on)


def _lock(draft: ZigbeePart, parts: list[Exposed], _: str) -> list[Exposed]:
    state = _by_name(parts).get("state")
    if state:
        draft.be_switch("lock", "locked", state)
    return _rest(parts, state)


def _cover(draft: ZigbeePart, parts: list[Exposed], _: str) -> list[Exposed]:
    named = _by_name(parts)
    state, position, tilt = (named.get(name) for name in ("state", "position", "tilt"))
    words = {"open": "OPEN", "closed": "CLOSE", "stopped": "STOP"}
    if position and _is_moved(draft, "blinds", "position", position, "set"):
        _let_move(draft, "open", "close", "set")
    if state and position:
        state.feature.leave("the position says and sets it")
    elif state and draft.be_model("cover", "state", state, values=words):
        _let_move(draft, "open", "close")
    if tilt and _is_moved(draft, "tilt", "tilt", tilt, "set_tilt"):
        _let_move(draft, "set_tilt")
    return _rest(parts, state, position, tilt)


def _is_moved(draft: ZigbeePart, model: str, name: str, part: Exposed, action: str) -> bool:
    return draft.be_number(model, name, part, action, raw_step=part.expose.value_step or 1)


def _let_move(draft: ZigbeePart, *actions: str) -> None:
    """Give what moves a cover its time; it is over as soon as the cover is there."""
    for action in actions:
        draft.actions[action] = draft.actions.get(action, {}) | {"settle_s": COVER_S}


def _fan(draft: ZigbeePart, parts: list[Exposed], _: str) -> list[Exposed]:
    named = _by_name(parts)
    state, mode, speed = (named.get(name) for name in ("state", "mode", "speed"))
    if state:
        draft.be_switch("fan_switch", "on", state)
    if mode:
        draft.be_words("fan_mode", "fan_mode", mode, "set_fan_mode")
    if speed:
        draft.be_number("fan", "speed", speed, "set", raw_step=speed.expose.value_step or 1)
    return _rest(parts, state, mode, speed)


def _climate(draft: ZigbeePart, parts: list[Exposed], _: str) -> list[Exposed]:
    named = _by_name(parts)
    target = named.get("occupied_heating_setpoint") or named.get("current_heating_setpoint")
    target = target or named.get("occupied_cooling_setpoint")
    measured = named.get("local_temperature")
    if target:
        draft.be_number("thermostat" if measured else "climate_target", "target_c", target, "set")
    words = {"system_mode": "mode", "preset": "preset", "fan_mode": "fan_mode", "mode": "fan_mode"}
    chosen = [named[name] for name in words if name in named]
    for part in chosen:
        model = words[part.expose.name]
        draft.be_words(model, model, part, f"set_{model}")
    if measured:
        draft.be_number("thermostat" if target else "temperature", "temperature_c", measured)
    return _rest(parts, target, measured, *chosen)


MAKERS: dict[str, Callable[[ZigbeePart, list[Exposed], str], list[Exposed]]] = {
    "light": _light,
    "switch": _switch,
    "lock": _lock,
    "cover": _cover,
    "fan": _fan,
    "climate": _climate,
}


def _take_rest(draft: ZigbeePart, part: Exposed, *, is_own: bool) -> None:
    """Take a feature that stands by itself; one of a part that is no device here keeps its part's name."""
    expose = part.expose
    name = expose.name if is_own and expose.name not in {"", "state"} else expose.key
    if reason := _left(expose, name):
        part.feature.leave(reason)
    elif name in TOGGLES and expose.type == "binary" and expose.access & SET:
        draft.be_switch(*TOGGLES[name], part)
    elif name in KNOWN and expose.type == "binary" and not expose.access & SET:
        draft.be_switch(*KNOWN[name], part)
    elif name in KNOWN and expose.type == "numeric" and not expose.access & SET:
        draft.be_number(*KNOWN[name], part)
    else:
        if name in READINGS:
            part.expose = expose.model_copy(update={"access": expose.access & ~SET})
        draft.own_property(name, part)


def _left(expose: Expose, name: str) -> str:
    """Return why a feature is left out whatever it is, or ""."""
    if name in TOGGLES:
        return ""
    if name == "action" or (expose.type == "enum" and not expose.values):
        return EVENT
    if expose.bits & SET and not expose.bits & STATE:
        return ONLY_WRITTEN
    if expose.category == "config" or SETTINGS.fullmatch(name):
        return SETTING
    is_diagnostic = expose.category == "diagnostic" or name in DIAGNOSTICS or name.startswith("update")
    return DIAGNOSTIC if is_diagnostic and name not in ASKED_FOR else ""

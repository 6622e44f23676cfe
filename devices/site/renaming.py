"""The same site under other names of tools and arguments.

A model that reads its tools acts as well under these names; one that remembers those of its training does not.
"""

from __future__ import annotations

import re
from random import Random
from typing import Any

from devices.site.action import Action
from devices.site.site import Device, Site

KIND_NAMES = {
    "light": "light lamp lighting lum".split(),
    "switch": "switch plug relay power".split(),
    "climate": "climate heat thermostat temp".split(),
    "cover": "cover shade blind panel".split(),
    "lock": "lock bolt access latch".split(),
    "fan": "fan vent air blower".split(),
    "valve": "valve water flow tap".split(),
}
ACTION_NAMES = {
    "on": "on turn_on enable activate".split(),
    "off": "off turn_off disable deactivate".split(),
    "brightness": "brightness dim set_brightness level".split(),
    "set": "set adjust change put".split(),
    "open": "open raise up unfold".split(),
    "close": "close lower shut down".split(),
    "lock": "lock secure bolt engage".split(),
    "unlock": "unlock release unbolt disengage".split(),
    "water": "water flow irrigate pour".split(),
    "run": "run start operate cycle".split(),
    "stop": "stop halt end cancel".split(),
}
ARGUMENT_NAMES = {
    "brightness": "percent intensity dimming luminance".split(),
    "target_c": "wanted_c goal setpoint degrees_c".split(),
    "position": "opening height share where".split(),
    "speed": "stage power_level rate step".split(),
    "minutes": "duration_min time_min for_minutes period".split(),
    "seconds": "duration_s time_s for_seconds period".split(),
    "number": "id reference code key".split(),
}
WORDS = "alpha bravo delta echo golf hotel india kilo lima mike nova oscar papa quark sierra tango uniform zulu".split()


def renamed(site: Site, rng: Random) -> Site:
    """Return a site whose kinds, actions and arguments have other names; devices, properties and phrasings stay.

    Names with a list above get another of it, all others a word that means nothing. Only for simulated worlds: what
    drivers need of an action's names is not carried over.

    Args:
        site: any.
        rng: decides the names.
    """
    kinds = _other_names({device.kind for device in site.devices.values()}, KIND_NAMES, rng)
    every = [action for device in site.devices.values() for action in device.actions.items()]
    actions = _other_names({name for name, _ in every}, ACTION_NAMES, rng)
    arguments = _other_names({name for _, action in every for name in action.input}, ARGUMENT_NAMES, rng)
    devices = {name: _renamed_device(device, kinds, actions, arguments) for name, device in site.devices.items()}
    return site.model_copy(update={"devices": devices})


def _other_names(names: set[str], choices: dict[str, list[str]], rng: Random) -> dict[str, str]:
    """Return another name for each, no two the same."""
    given: dict[str, str] = {}
    for name in sorted(names):
        free = [other for other in choices.get(name, []) if other not in {name, *names, *given.values()}]
        while not free:
            free = [word for word in ["_".join(rng.sample(WORDS, 2))] if word not in given.values()]
        given[name] = rng.choice(free)
    return given


def _renamed_device(
    device: Device, kinds: dict[str, str], actions: dict[str, str], arguments: dict[str, str]
) -> Device:
    inputs = {name for action in device.actions.values() if action.output for name in action.input}
    keys = {name: arguments[name] for name in inputs}
    return device.model_copy(
        update={
            "kind": kinds[device.kind],
            "actions": {actions[name]: _renamed_action(it, actions, arguments) for name, it in device.actions.items()},
            "records": tuple({keys.get(key, key): value for key, value in one.items()} for one in device.records),
        }
    )


def _renamed_action(action: Action, actions: dict[str, str], arguments: dict[str, str]) -> Action:
    """Return an action with its arguments renamed wherever they stand: after `$`, and in the holes of templates."""
    if action.keep_out:  # a zone's axes are properties and arguments at once
        arguments = {name: name for name in arguments}

    def value(written: Any) -> Any:
        if not isinstance(written, str):
            return written
        return re.sub(r"^\$(\w+)", lambda found: f"${arguments[found[1]]}", written)

    def text(template: str) -> str:
        return re.sub(r"{(\w+)}", lambda found: f"{{{arguments.get(found[1], found[1])}}}", template)

    def texts(templates: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(text, templates))

    ends = action.ends and action.ends.model_copy(update={"after": value(action.ends.after)})
    return action.model_copy(
        update={
            "input": {arguments[name]: schema for name, schema in action.input.items()},
            "writes": {name: value(written) for name, written in action.writes.items()},
            "record": {name: value(written) for name, written in action.record.items()},
            "ends": ends,
            "wait_after": {actions[name]: seconds for name, seconds in action.wait_after.items()},
            "report": text(action.report),
            "say": texts(action.say),
            "say_without": texts(action.say_without),
        }
    )

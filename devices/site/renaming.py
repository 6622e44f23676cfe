"""The same site under other names of tools and arguments.

A model that reads its tools acts as well under these names; one that remembers those of its training does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any

from devices.site.device import Device
from devices.site.phrasings import SpokenAction, load_phrasings
from devices.site.site import Site

WORDS = "alpha bravo delta echo golf hotel india kilo lima mike nova oscar papa quark sierra tango uniform zulu".split()


def renamed(site: Site, rng: Random) -> Site:
    """Return a site whose kinds, actions and arguments have other names; devices, properties and phrasings stay.

    Names with a list in phrasings.yaml get another of it, all others a word that means nothing. Only for simulated
    worlds: what drivers need of an action's names is not carried over.

    Args:
        site: any.
        rng: decides the names.
    """
    words = load_phrasings()
    kind_names = {kind: found.names for kind, found in words.kinds.items()}
    argument_names = {argument: found.names for argument, found in words.arguments.items()}
    kinds = other_names({device.kind for device in site.devices.values()}, rng, kind_names)
    every = [action for device in site.devices.values() for action in device.actions.items()]
    actions = other_names({name for name, _ in every}, rng, words.actions)
    arguments = other_names({name for _, action in every for name in action.input}, rng, argument_names)
    devices = {name: _renamed_device(device, kinds, actions, arguments) for name, device in site.devices.items()}
    return site.model_copy(update={"devices": devices})


def other_names(
    names: set[str], rng: Random, choices: Mapping[str, Iterable[str]] = MappingProxyType({})
) -> dict[str, str]:
    """Return another name for each, no two the same: one of its choices, or words that mean nothing."""
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


def _renamed_action(action: SpokenAction, actions: dict[str, str], arguments: dict[str, str]) -> SpokenAction:
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
            "say": texts(action.requests),
            "say_without": texts(action.requests_without),
        }
    )

"""Plans about a bit more and a bit less: the next level of an argument, from where the device is."""

from __future__ import annotations

from devices.site.action import UNLESS_0
from devices.site.describe import property_title, value_text
from devices.site.device import Device
from devices.site.phrasings import SpokenAction, load_phrasings
from devices.site.schema import DataSchema, Value
from devices.site.site import Site
from devices.site.tools import Command
from edge_agent.wire.contract import call_text
from edge_agent.wire.messages import facts_text
from finetune.data.scene import Plan, Scene, is_plain, resolved_text


def has_bits(site: Site) -> bool:
    """Return whether a bit more or less of anything means something there."""
    return any(_bit_of(device, action) for device in site.devices.values() for action in device.actions.values())


def plan_bit(scene: Scene) -> Plan | None:
    """A bit more or less than now; at the end of the range nothing is done."""
    choices = []
    for device, name, action in scene.actions():
        found = _bit_of(device, action) if is_plain(device, action) else None
        if found and _is_on(action, scene.state[device.name]) and found[1] in scene.state[device.name]:
            choices.append((device, name, *found))
    if not choices:
        return None
    device, name, argument, key = scene.rng.choice(choices)
    schema, words = device.actions[name].input[argument], load_phrasings()
    is_up, now = scene.rng.random() < 0.5, scene.state[device.name][key]
    own = words.arguments.get(argument)
    more = scene.rng.choice(
        (is_up and own and own.more) or (not is_up and own and own.less) or (words.more if is_up else words.less)
    )
    said = scene.say_as(words.a_bit, device, more=more)
    ask, templates = scene.finish(said.request, said.template)
    where = f"{resolved_text(said.name, device)}:{facts_text(scene.state[device.name])}"
    wanted = schema.next_value(float(now), up=is_up)
    if wanted is None:
        end = "highest" if is_up else "lowest"
        shown = value_text(device.properties[key], now)
        answer = f"The {device.title} {property_title(key, device.properties[key])} is already at its {end}, {shown}."
        has = (("already", end),)
        return Plan("bit", ask, templates, f"{where}, {more}, nothing beyond.", answer=answer, answer_has=has)
    command = Command(device.name, name, {argument: wanted})
    thought = f"{where}, {more}, {call_text(scene.site, scene.tools, command)}."
    return Plan("bit", ask, templates, thought, ((command,),))


def _bit_of(device: Device, action: SpokenAction) -> tuple[str, str] | None:
    """Return an action's only argument and the property that it sets, if a bit more of it means something."""
    if len(action.input) != 1 or action.ends or action.is_call:
        return None
    ((argument, schema),) = action.input.items()
    if not schema.levels:  # of others a bit is a share of the range (devices/site/relative_values.py)
        return None
    written = (name for name, value in action.writes.items() if value in (f"${argument}", f"${argument} {UNLESS_0}"))
    key = next(written, None)
    return (argument, key) if key and _is_number(device.properties[key]) else None


def _is_number(schema: DataSchema) -> bool:
    return schema.minimum is not None


def _is_on(action: SpokenAction, state: dict[str, Value]) -> bool:
    """Return whether nothing that the action would switch on is off: a bit more of what is off may mean either."""
    return not any(
        state.get(name) is False for name, value in action.writes.items() if value is True or "> 0" in str(value)
    )

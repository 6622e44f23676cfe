"""Plans of wishes that are taken back within one breath."""

from __future__ import annotations

from dataclasses import dataclass, field

from devices.site.tools import Command, call_of, tool_of
from finetune.data.people.conditions import IT_SHARE
from finetune.data.people.spoken_values import spoken_value
from finetune.data.people.wishes import NOTED, plain_request, value_json
from finetune.data.scene import (
    Plan,
    Said,
    Scene,
    is_by_name,
    is_plain,
    wanted_text,
)

AGAIN_SHARE = 0.3  # of corrections say the whole wish again


def plan_correction(scene: Scene) -> Plan | None:
    """Taken back within one breath: another device, another value, the other way round, or nothing at all."""
    if (found := plain_request(scene)) is None:
        return None
    _, said = found
    form = scene.rng.choice(("other_device", "other_device", "other_value", "other_action", "taken_back", "only"))
    if form == "taken_back":
        return _plan(scene, form, found, Instead("", said.name, found[0]))
    if form == "only":
        return _plan(scene, "only_ask", found, Instead("", said.name, found[0])) if is_by_name(said.template) else None
    meant = {"other_device": _other_device, "other_value": _other_value, "other_action": _other_action}[form]
    instead = meant(scene, *found)
    return _plan(scene, "other_value" if form == "other_value" else "other_device", found, instead) if instead else None


@dataclass(frozen=True)
class Instead:
    """What is meant instead: what a thought rules out, what the device is called, the command, and how it is said."""

    ruled_out: str
    name: str
    command: Command
    holes: dict[str, str] = field(default_factory=dict)


def _plan(scene: Scene, form: str, found: tuple[Command, Said], instead: Instead) -> Plan | None:
    said = found[1]
    if (line := scene.line("corrections", form, ask=said.request, **instead.holes)) is None:
        return None
    ask, templates = scene.typed(line[0]), (line[1], said.template)
    if form == "taken_back":
        return Plan("taken_back", ask, templates, "taken back, nothing to do.", answer=NOTED)
    thought = f"{instead.ruled_out}{wanted_text(scene, instead.name, instead.command)}."
    return Plan("correction", ask, templates, thought, ((instead.command,),))


def _other_value(scene: Scene, command: Command, said: Said) -> Instead | None:
    action = scene.site.devices[command.device].actions[command.action]
    if len(action.input) != 1:
        return None
    key, schema = next(iter(action.input.items()))
    value = scene.value_for(schema)
    if value == command.input[key]:
        return None
    wanted = Command(command.device, command.action, {key: value})
    holes = {"value": spoken_value(schema, value, scene.rng)}
    return Instead(f"not {value_json(command.input[key])}, ", said.name, wanted, holes)


def _other_device(scene: Scene, command: Command, said: Said) -> Instead | None:
    others = [scene.site.devices[one] for one in tool_of(command, scene.tools).devices if one != command.device]
    others = [one for one in others if is_plain(one, one.actions[command.action])]
    if not others:
        return None
    other = scene.rng.choice(others)
    name, holes = scene.name_for(other), dict[str, str]()
    if scene.rng.random() < AGAIN_SHARE:
        again = scene.say(other, other.actions[command.action], command.input)
        name, holes = again.name, {"again": again.request}
    else:
        holes = {"other": scene.with_article(name)}
    return Instead(f"not {said.name}, ", name, Command(other.name, command.action, command.input), holes)


def _other_action(scene: Scene, command: Command, said: Said) -> Instead | None:
    """Return the other way round: "turn it on, no, off I mean"."""
    del said
    device = scene.site.devices[command.device]
    others = [(key, one) for key, one in device.actions.items() if key != command.action and not one.input]
    others = [(key, one) for key, one in others if is_plain(device, one) and scene.requests_by_name(device, key)]
    if not others:
        return None
    key, action = scene.rng.choice(others)
    again = scene.say(device, action, {})
    request, name = again.request, again.name
    if scene.rng.random() < IT_SHARE and is_by_name(again.template):
        request, name = scene.rng.choice(scene.requests_by_name(device, key)).format(device="it"), "it"
    ruled_out = f"not {call_of(command, scene.tools).name}, "
    return Instead(ruled_out, name, Command(device.name, key, {}), {"again": request})

"""Plans in which something is to be done: one action, several, a group; allowed, guarded, confirmed or failing.

Each maker returns None where the site or its state offers no such exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from devices.describe import value_text
from devices.site import Action, Device
from devices.tools import Command
from edge_agent.wire import json_value
from finetune import phrases
from finetune.scene import Plan, Scene, is_plain, needed_action, wanted_text


def _act(scene: Scene, kind: str, keep: Callable[[Device, Action], bool], is_confirmed: bool = False) -> Plan | None:
    needed = needed_action(scene, keep)
    if needed is None:
        return None
    device, command, action = needed
    request, template = scene.say(device, action, command.input)
    ask, templates = scene.finish(request, template)
    thought = wanted_text(scene, device, action, command.input) + "."
    return Plan(kind, ask, templates, thought, ((command,),), is_confirmed=is_confirmed)


def plan_call(scene: Scene) -> Plan | None:
    """One action that changes something."""
    return _act(scene, "call", is_plain)


def plan_interlocked(scene: Scene) -> Plan | None:
    """An action under an interlock: it is proposed, and the broker decides."""
    return _act(scene, "policy", lambda device, action: bool(action.requires))


def plan_confirmed(scene: Scene) -> Plan | None:
    """An action that needs a person's yes, with and without it."""
    return _act(scene, "confirmation", lambda device, action: action.risk == "confirm", scene.rng.random() < 0.5)


def plan_failed(scene: Scene) -> Plan | None:
    """An action whose device is stuck or does not answer."""
    plan = _act(scene, "failure", is_plain)
    if plan is None:
        return None
    command = plan.steps[0][0]
    if scene.rng.random() < 0.7:
        if scene.site.devices[command.device].actions[command.action].ends and scene.state[command.device].get("open"):
            return None
        return replace(plan, stuck=(command.device,))
    blind = Scene(scene.site, scene.state | {command.device: {}}, scene.rng, scene.held_out)
    device = scene.site.devices[command.device]
    thought = wanted_text(blind, device, device.actions[command.action], command.input) + "."
    return replace(plan, broken=(command.device,), thought=thought)


def _two_actions(scene: Scene) -> list[tuple[Device, Command, Action]] | None:
    first, second = needed_action(scene, is_plain), needed_action(scene, is_plain)
    if first is None or second is None or first[0].name == second[0].name:
        return None
    return [first, second]


def plan_several(scene: Scene) -> Plan | None:
    """Two actions in one request, proposed together."""
    return _join(scene, "several", phrases.AND, in_steps=False)


def plan_in_order(scene: Scene) -> Plan | None:
    """Two actions, the second only after the first."""
    return _join(scene, "in_order", phrases.THEN, in_steps=True)


def _join(scene: Scene, kind: str, joints: tuple[str, ...], *, in_steps: bool) -> Plan | None:
    both = _two_actions(scene)
    if both is None:
        return None
    said = [scene.say(device, action, command.input) for device, command, action in both]
    joint = scene.rng.choice(phrases.side(joints, scene.held_out))
    request = joint.format(said[0][0], said[1][0])
    ask, templates = (phrases.punctuate(request, scene.rng), ()) if in_steps else scene.finish(request)
    thoughts = [wanted_text(scene, device, action, command.input) for device, command, action in both]
    commands = [command for _, command, _ in both]
    steps = tuple((command,) for command in commands) if in_steps else (tuple(commands),)
    link = ", then " if in_steps else "; "
    return Plan(kind, ask, (joint, said[0][1], said[1][1], *templates), link.join(thoughts) + ".", steps)


def plan_group(scene: Scene) -> Plan | None:
    """One action on every device of a tool that is not already so."""
    groups: dict[tuple[str, str], list[Device]] = {}
    for device, name, action in scene.actions():
        if not action.input and is_plain(device, action) and scene.state[device.name]:
            groups.setdefault((device.kind, name), []).append(device)
    choices = [(key, devices) for key, devices in groups.items() if len(devices) > 1 and key[0] in PLURALS]
    if not choices:
        return None
    (kind, name), devices = scene.rng.choice(choices)
    singular, plural, verbs = PLURALS[kind]
    verb = next((words for action, words in verbs.items() if name == action), "")
    if not verb or len(devices) > 6:
        return None
    template = scene.rng.choice(phrases.side(phrases.GROUPS, scene.held_out))
    ask, templates = scene.finish(template.format(verb=verb, singular=singular, plural=plural), template)
    needed = [one for one in devices if not one.actions[name].is_already_so(scene.state[one.name], {})]
    thought = "; ".join(_goal_fact(scene, one, name, one in needed) for one in devices) + "."
    if not needed:
        answer = f"All {plural} are already {_goal_label(devices[0], name)}."
        return Plan("already", ask, templates, thought, answer=answer, answer_has=(("already",),))
    return Plan("group", ask, templates, thought, (tuple(Command(one.name, name, {}) for one in needed),))


PLURALS = {
    "light": ("light", "lights", {"on": "turn on", "off": "turn off"}),
    "cover": ("cover", "covers", {"open": "open", "close": "close"}),
}


def _goal_fact(scene: Scene, device: Device, action: str, is_needed: bool) -> str:
    key = next(iter(device.actions[action].effect({})))
    now = f"{key}={json_value(scene.state[device.name][key])}"
    return f"{device.name} has {now}, {'to change' if is_needed else 'already so'}"


def _goal_label(device: Device, action: str) -> str:
    key, value = next(iter(device.actions[action].effect({}).items()))
    return value_text(device.properties[key], value)

"""Plans in which something is to be done: one action, several, a group; allowed, guarded, confirmed or failing.

Each maker returns None where the site or its state offers no such exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from devices.site.action import Action, is_so
from devices.site.device import Device
from devices.site.phrasings import group_words
from devices.site.site import EVERYWHERE
from devices.site.tools import Command, ToolCall, action_of
from edge_agent.grammar.grammar import THOUGHT_CHARACTERS
from edge_agent.wire.contract import devices_text
from edge_agent.wire.markers import THEN
from finetune.data import phrases
from finetune.data.held_out import side
from finetune.data.people.many import plan_many
from finetune.data.people.spoken_values import round_times
from finetune.data.scene import Plan, Scene, is_plain, needed_action, wanted_text, whole

TIMED_SHARE = 0.3  # of numbers are for how long, where a device runs for a time; an interlock may refuse it
PART_DRAWS = 12
PARTS_SHARE, MANY_SHARE = 0.6, 0.35  # of several wishes: three or for several devices, and of those parts
WISH = "both: "  # stands before it (plan_kinds.py)
WRONG_WAY_SHARE = 0.5  # of what the broker refuses, where a device has a range


def _act(scene: Scene, kind: str, keep: Callable[[Device, Action], bool], is_confirmed: bool = False) -> Plan | None:
    command = needed_action(scene, keep)
    return plan_command(scene, kind, command, is_confirmed=is_confirmed) if command else None


def plan_command(scene: Scene, kind: str, command: Command, *, is_confirmed: bool = False) -> Plan:
    """One request for one command."""
    device, action = action_of(scene.site, command)
    said = scene.say(device, action, command.input)
    ask, templates = scene.finish(said.request, said.template)
    thought = wanted_text(scene, said.name, command) + "."
    return Plan(kind, ask, templates, thought, ((command,),), is_confirmed=is_confirmed)


def plan_call(scene: Scene) -> Plan | None:
    """One action that changes something."""
    return _act(scene, "call", is_plain)


def plan_value(scene: Scene) -> Plan | None:
    """One action that sets a number."""

    def sets_number(device: Device, action: Action) -> bool:
        numbers = (schema.minimum is not None for schema in action.input.values())
        return is_plain(device, action) and not action.is_call and any(numbers)

    def is_timed(device: Device, action: Action) -> bool:
        return action.risk != "confirm" and not action.is_call and any(map(round_times, action.input.values()))

    wants_time = scene.asks is not None and scene.rng.random() < TIMED_SHARE
    return (_act(scene, "call", is_timed) if wants_time else None) or _act(scene, "call", sets_number)


def plan_interlocked(scene: Scene) -> Plan | None:
    """An action under an interlock, or a range the wrong way round: it is proposed, and the broker decides."""
    ranges = [(device.name, name, action) for device, name, action in scene.actions() if action.increasing]
    if ranges and scene.rng.random() < WRONG_WAY_SHARE:
        device, name, action = scene.rng.choice(ranges)
        given = scene.arguments_for(scene.site.devices[device], action)
        turned = dict(zip(action.increasing, [given[key] for key in reversed(action.increasing)], strict=True))
        return plan_command(scene, "policy", Command(device, name, given | turned))
    return _act(scene, "policy", lambda device, action: bool(action.requires))


def plan_already(scene: Scene) -> Plan | None:
    """A request for what is already so: it is proposed all the same, and the broker finds out."""
    choices = []
    for device, name, action in scene.actions():
        state = scene.state[device.name]
        arguments = {key: whole(state[key]) for key in action.input if key in state}
        fits = all(key in arguments and not schema.problem_with(arguments[key]) for key, schema in action.input.items())
        if state and fits and action.is_already_so(state, arguments):
            choices.append(Command(device.name, name, arguments))
    return plan_command(scene, "already", scene.rng.choice(choices)) if choices else None


def plan_confirmed(scene: Scene) -> Plan | None:
    """An action that needs a person's yes, with and without it."""
    return _act(scene, "confirmation", lambda device, action: action.risk == "confirm", scene.rng.random() < 0.5)


def plan_failed(scene: Scene) -> Plan | None:
    """An action whose device is stuck or does not answer."""
    plan = _act(scene, "failure", is_plain)
    if plan is None:
        return None
    command = plan.steps[0][0]
    assert isinstance(command, Command)
    if scene.rng.random() >= 0.7:
        return replace(plan, broken=(command.device,))
    action = scene.site.devices[command.device].actions[command.action]
    if is_so(scene.state[command.device], action.effect(command.input)):  # stuck where it shall be
        return None
    return replace(plan, stuck=(command.device,))


def _two_commands(scene: Scene) -> list[Command] | None:
    first, second = needed_action(scene, is_plain), needed_action(scene, is_plain)
    return None if first is None or second is None or first.device == second.device else [first, second]


def plan_several(scene: Scene) -> Plan | None:
    """Two actions in one request, proposed together; in people's words also three, and several devices at once."""
    if scene.asks and scene.rng.random() < PARTS_SHARE:
        return _join_parts(scene)
    return _join(scene, "several", phrases.load_templates().together, in_steps=False)


def _join_parts(scene: Scene) -> Plan | None:
    """Two or three wishes in one breath, each of which may be for several devices."""
    count, alone = scene.rng.choice((2, 2, 3, 3, 3)), replace(scene, is_part=True)
    parts: list[Plan] = []
    for _ in range(PART_DRAWS):
        part = plan_many(alone) if scene.rng.random() < MANY_SHARE else _act(alone, "several", is_plain)
        if part and not _devices_in(part) & {device for one in parts for device in _devices_in(one)}:
            parts.append(part)
        if len(parts) == count:
            break
    if len(parts) < count:
        return None
    holes = dict(zip(("first", "second", "third"), (one.ask for one in parts), strict=False))
    line = scene.line("joints", "together" if count == 2 else "three", **holes)
    if line is None:
        return None
    thought = "; ".join(one.thought.removesuffix(".") for one in parts) + "."
    if len(thought) > THOUGHT_CHARACTERS - len(WISH):
        return None
    ask, templates = scene.finish(line[0], line[1], *(template for one in parts for template in one.templates))
    return Plan("several", ask, templates, thought, (tuple(command for one in parts for command in one.steps[0]),))


def _devices_in(plan: Plan) -> set[str]:
    return {one.device for one in plan.steps[0] if isinstance(one, Command)}


def plan_in_order(scene: Scene) -> Plan | None:
    """Two actions, the second only after the first."""
    return _join(scene, "in_order", phrases.load_templates().in_order, in_steps=True)


def _join(scene: Scene, kind: str, joints: tuple[str, ...], *, in_steps: bool) -> Plan | None:
    commands = _two_commands(scene)
    if commands is None:
        return None
    said = [scene.say(*action_of(scene.site, command), command.input) for command in commands]
    joint = scene.rng.choice(side(joints, scene.held_out))
    request = scene.worded(joint).format(said[0].request, said[1].request)
    if scene.asks:
        first, second = (one.request for one in said)
        key = "in_order" if in_steps else "together"
        request, joint = scene.line("joints", key, first=first, second=second) or (request, joint)
    ask, templates = (scene.typed(request), ()) if in_steps else scene.finish(request)
    thoughts = [wanted_text(scene, one.name, command) for one, command in zip(said, commands, strict=True)]
    steps = tuple((command,) for command in commands) if in_steps else (tuple(commands),)
    link = THEN if in_steps else "; "
    return Plan(kind, ask, (joint, said[0].template, said[1].template, *templates), link.join(thoughts) + ".", steps)


def plan_group(scene: Scene) -> Plan | None:
    """One action on every device that has it; the broker finds out which of them are already so."""
    choices = []
    for tool in scene.tools:
        group = group_words(tool.kind)
        is_few = tool.targets or len(tool.devices) <= 6  # without areas, a call each
        if group and tool.action in group.verbs and not tool.input and len(tool.devices) > 1 and is_few:
            choices.append((tool, group))
    if not choices:
        return None
    tool, group = scene.rng.choice(choices)
    template = scene.rng.choice(side(phrases.load_templates().groups, scene.held_out))
    holes = {"verb": group.verbs[tool.action], "singular": group.singular, "plural": group.plural}
    ask, templates = scene.finish(scene.worded(template).format(**holes), template)
    if tool.targets:
        thought, step = f"all is {EVERYWHERE}, {tool.name}.", (ToolCall(tool.name, {"area": EVERYWHERE}),)
        return Plan("group", ask, templates, thought, (step,))
    thought = f"All of {tool.name}({devices_text(tool)})."
    return Plan("group", ask, templates, thought, (tuple(Command(name, tool.action, {}) for name in tool.devices),))

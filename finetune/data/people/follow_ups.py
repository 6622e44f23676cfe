"""Plans of what people say next: it, the other one, undo, a bit more, "no, the bedroom one", a value asked for.

Each maker gets what was before and returns None where nothing of it can be meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from devices.site.describe import describe, property_title, sentence, value_text
from devices.site.schema import Value
from devices.site.site import Device
from devices.site.tools import Command, action_of, call_of
from edge_agent.evaluation.cases import State
from edge_agent.wire.messages import facts_text
from finetune.data.held_out import side
from finetune.data.people.spoken_values import spoken_value
from finetune.data.people.state_questions import words_for
from finetune.data.people.wishes import WAYS, relative_plan, settable
from finetune.data.scene import Plan, Said, Scene, call_text, is_plain, resolved_text, wanted_text


@dataclass(frozen=True)
class Before:
    """The exchange before: its plan, the commands that were done in it, and the state that it began with."""

    plan: Plan
    done: tuple[Command, ...]
    state: State


def _line(scene: Scene, key: str, fits: Callable[[str], bool] = lambda line: True) -> str:
    lines = [line for line in side(scene.corpus.form("follow_ups", key), scene.held_out) if fits(line)]
    return scene.rng.choice(lines) if lines else ""


def _only(scene: Scene, before: Before) -> tuple[Device, Command] | None:
    """Return the one device that was moved, with the command."""
    if len({command.device for command in before.done}) != 1:
        return None
    command = before.done[-1]
    return scene.site.devices[command.device], command


def restoring(scene: Scene, before: Before, command: Command) -> Command | None:
    """Return the command that makes a device again what it was before one, or None if there is none."""
    device, action = action_of(scene.site, command)
    old, now = before.state.get(command.device, {}), scene.state[command.device]
    changed = {key: old[key] for key in action.writes if key in old and old[key] != now.get(key)}
    if not changed:
        return None
    for name, other in device.actions.items():
        if not other.input and not other.is_call and not other.ends and _makes(other.effect({}), changed):
            return Command(device.name, name, {})
    for name, other in device.actions.items():
        if len(other.input) != 1 or other.ends or other.is_call:
            continue
        key, schema = next(iter(other.input.items()))
        written = next((one for one, value in other.writes.items() if str(value).split(" ")[0] == f"${key}"), "")
        value = old.get(written)
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if value is None or schema.problem_with(value):
            continue
        if _makes(other.effect({key: value}), changed):
            return Command(device.name, name, {key: value})
    return None


def _makes(effect: Mapping[str, Value], wanted: Mapping[str, Value]) -> bool:
    return all(key in effect and effect[key] == value for key, value in wanted.items())


def follow_undo(scene: Scene, before: Before) -> Plan | None:
    """What was done is to be undone."""
    back = [restoring(scene, before, command) for command in reversed(before.done)]
    commands = tuple(command for command in back if command)
    line = _line(scene, "undo")
    if not commands or len(commands) != len(back) or not line:
        return None
    thought = "undo, " + "; ".join(
        f"{one.device} was{facts_text(before.state[one.device])}, {call_text(scene.site, scene.tools, one)}"
        for one in commands
    )
    return Plan("undo", scene.typed(line), (line,), f"{thought}.", (commands,))


def follow_relative(scene: Scene, before: Before) -> Plan | None:
    """More or less of what was just set."""
    if (only := _only(scene, before)) is None:
        return None
    items = [item for item in settable(scene) if item[0].name == only[0].name]
    way = scene.rng.choice([way for way in WAYS if way in ("more", "less", "a_bit_more", "a_bit_less")])
    line = _line(scene, way)
    if not items or not line:
        return None
    plan = relative_plan(scene, scene.rng.choice(items), way, Said(line, line, "it"))
    return plan and Plan("follow_relative", scene.typed(line), (line,), plan.thought, plan.steps)


def follow_other_device(scene: Scene, before: Before) -> Plan | None:
    """The same with another device."""
    return _with_other(scene, before, "other_device_same_action", is_corrected=False)


def follow_correction(scene: Scene, before: Before) -> Plan | None:
    """It was the wrong device: that one back as it was, and another one instead."""
    return _with_other(scene, before, "correction_device", is_corrected=True)


def _with_other(scene: Scene, before: Before, key: str, *, is_corrected: bool) -> Plan | None:
    if (only := _only(scene, before)) is None:
        return None
    _, command = only
    tool = next((one for one in scene.tools if one.action == command.action and command.device in one.devices), None)
    others = [name for name in tool.devices if name != command.device] if tool else []
    line = _line(scene, key, lambda line: "{device}" in line)
    if not others or not line:
        return None
    other = scene.site.devices[scene.rng.choice(others)]
    if not is_plain(other, other.actions[command.action]):
        return None
    name = scene.name_for(other)
    wanted = Command(other.name, command.action, command.input)
    thought = wanted_text(scene, name, wanted)
    commands: tuple[Command, ...] = (wanted,)
    if is_corrected:
        if (back := restoring(scene, before, command)) is None:
            return None
        commands = (back, wanted)
        thought = f"not {command.device}, {call_text(scene.site, scene.tools, back)}; {thought}"
    ask = scene.typed(line.format(device=scene.with_article(name)))
    return Plan("follow_device", ask, (line,), f"{thought}.", (commands,))


def follow_value(scene: Scene, before: Before) -> Plan | None:
    """Another value for what was just set, or the value that was asked for."""
    asked = before.plan.asked
    if asked is not None:
        device, name, key = scene.site.devices[asked.device], asked.action, "answer_value"
    elif (only := _only(scene, before)) is not None:
        device, name, key = only[0], only[1].action, "correction_value"
    else:
        return None
    action = device.actions[name]
    line = _line(scene, key, lambda line: "{value}" in line)
    if len(action.input) != 1 or not line:
        return None
    argument, schema = next(iter(action.input.items()))
    value = scene.value_for(schema)
    if asked is None and value == before.done[-1].input.get(argument):
        return None
    command = Command(device.name, name, {argument: value})
    ask = scene.typed(line.format(value=spoken_value(schema, value, scene.rng), device=device.title))
    return Plan("follow_value", ask, (line,), f"it is {wanted_call(scene, command)}.", ((command,),))


def wanted_call(scene: Scene, command: Command) -> str:
    """Return the end of a thought whose device is known from before: it, and the call."""
    return f"{command.device}, {call_text(scene.site, scene.tools, command)}"


def follow_question(scene: Scene, before: Before) -> Plan | None:
    """A question about what was spoken of last."""
    if (only := _only(scene, before)) is None:
        return None
    device = only[0]
    state = scene.state[device.name]
    choices: list[tuple[str, str, str]] = []
    for line in side(scene.corpus.form("follow_ups", "it_question"), scene.held_out):
        for key, value in state.items():
            schema = device.properties[key]
            title = property_title(key, schema)
            if "{property}" in line:
                choices += [(line, line.format(property=title), key)] if not isinstance(value, bool) else []
            elif isinstance(value, bool):
                labels = [re.escape(value_text(schema, one)) for one in (True, False)]
                choices += [(line, line, key)] if re.search(rf"\b({'|'.join(labels)})\b", line) else []
    if not choices:
        return None
    line, ask, key = scene.rng.choice(choices)
    thought = f"{resolved_text('it', device)}:{facts_text(state)}."
    has = (words_for(device, key, state[key]),)
    answer = sentence(describe(device, key, state[key]))
    return Plan("follow_question", scene.typed(ask), (line,), thought, answer=answer, answer_has=has)


def follow_done(scene: Scene, before: Before) -> Plan | None:
    """What was just done."""
    line = _line(scene, "what_did_you_do")
    if not line:
        return None
    if not before.done:
        return Plan("follow_done", scene.typed(line), (line,), "nothing was done.", answer="I did nothing.")
    thought = "; ".join(f"{call_of(one, scene.tools).name} {one.device}" for one in before.done)
    answer = sentence(*_facts_of(scene, before.done))
    return Plan("follow_done", scene.typed(line), (line,), f"the last was {thought}.", answer=answer)


def _facts_of(scene: Scene, commands: Sequence[Command]) -> list[str]:
    found = []
    for command in commands:
        device, action = action_of(scene.site, command)
        key = next((key for key in action.writes if key in scene.state[device.name]), None)
        found.append(describe(device, key, scene.state[device.name][key]) if key else f"I asked the {device.title}")
    return found


def follow_thanks(scene: Scene, before: Before) -> Plan | None:
    """Thanks, which want nothing."""
    del before
    line = _line(scene, "thanks")
    return Plan("small_talk", scene.typed(line), (line,), "Small talk.", answer="You are welcome.") if line else None


FOLLOW_UPS: dict[str, tuple[float, Callable[[Scene, Before], Plan | None]]] = {
    "undo": (0.18, follow_undo),
    "relative": (0.16, follow_relative),
    "other_device": (0.2, follow_other_device),
    "correction": (0.1, follow_correction),
    "value": (0.14, follow_value),
    "question": (0.12, follow_question),
    "done": (0.06, follow_done),
    "thanks": (0.04, follow_thanks),
}


def draw_follow_up(scene: Scene, before: Before) -> Plan | None:
    """Return a plan of what is said next, or None if nothing fits."""
    if before.plan.asked is not None:
        return follow_value(scene, before)
    left = dict(FOLLOW_UPS)
    while left:
        name = scene.rng.choices(list(left), [weight for weight, _ in left.values()])[0]
        if (plan := left.pop(name)[1](scene, before)) is not None:
            return plan
    return None

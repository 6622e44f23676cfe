"""Plans of what people say next: it, the other one, undo, a bit more, "no, the bedroom one", a value asked for.

Each maker gets what was before and returns None where nothing of it can be meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from devices.site.describe import describe, property_title, sentence, value_text
from devices.site.device import Device
from devices.site.tools import Command, action_of, call_of, tool_of
from edge_agent.agent.undo import restoring, undo_text, undoing
from edge_agent.evaluation.cases import State
from edge_agent.wire.contract import call_text, devices_text
from edge_agent.wire.messages import facts_text
from finetune.data.answer_plans import answer_about, told_of
from finetune.data.people.spoken_values import spoken_value
from finetune.data.people.state_questions import MOST_OF_A_KIND, words_for
from finetune.data.people.wishes import relative_plan, relative_ways, settable, starts_with_verb
from finetune.data.scene import Plan, Said, Scene, is_plain, resolved_text, wanted_text

SHORT_SHARE = 0.5  # of relative wishes after a value was set are one of a few words
NOTHING_SHARE = 0.85  # of the exchanges in which nothing was done are not spoken of again, but for questions
HINT_SHARE = 0.4  # of relative wishes are said as what is wrong: "still too bright"
QUESTIONS = ("question", "follow_question")


@dataclass(frozen=True)
class Before:
    """The exchange before: its plan, the commands that were done in it, and the state that it began with."""

    plan: Plan
    done: tuple[Command, ...]
    state: State


def _only(scene: Scene, before: Before) -> tuple[Device, Command] | None:
    """Return the one device that was moved, with the command."""
    if len({command.device for command in before.done}) != 1:
        return None
    command = before.done[-1]
    return scene.site.devices[command.device], command


def _spoken_of(scene: Scene, before: Before) -> tuple[Device, str] | None:
    """Return the one device that was moved, with the action, or that was asked about, with ""."""
    if only := _only(scene, before):
        return only[0], only[1].action
    named = re.findall(r"\bis (\w+):", before.plan.thought) if before.plan.kind in QUESTIONS else []
    return (scene.site.devices[named[0]], "") if len(named) == 1 else None


def follow_undo(scene: Scene, before: Before) -> Plan | None:
    """What was done is to be undone."""
    commands = undoing(scene.site, before.state, scene.state, before.done)
    line = scene.line("follow_ups", "undo")
    if not commands or not line:
        return None
    thought = f"undo, {undo_text(scene.site, scene.tools, before.state, commands)}."
    return Plan("undo", scene.typed(line[0]), (line[1],), thought, (commands,))


def follow_other_action(scene: Scene, before: Before) -> Plan | None:
    """Something else with what was spoken of last: "and now off again", "well, lock it then"."""
    if (spoken := _spoken_of(scene, before)) is None:
        return None
    device, last = spoken
    choices = [
        (name, action)
        for name, action in device.actions.items()
        if name != last and not action.input and is_plain(device, action)
        and not action.is_already_so(scene.state[device.name], {})
    ]  # fmt: skip
    if not choices:
        return None
    name, action = scene.rng.choice(choices)
    key, value = next(iter(action.effect({}).items()), ("", ""))
    holes = {"state": value_text(device.properties[key], value)} if isinstance(value, bool) else {}
    said = [one for one in action.requests if starts_with_verb(one) and "{device}" in one and len(one.split()) < 5]
    holes |= {"verb_it": scene.rng.choice(said).format(device="it")} if said else {}
    own = f"same_device_other_action_{name}"
    keys = ("same_device_other_action", *((own,) if own in scene.corpus.forms["follow_ups"] else ()))
    if not holes or (line := scene.line("follow_ups", *keys, **holes)) is None:
        return None
    wanted = Command(device.name, name, {})
    thought = f"it is {wanted_call(scene, wanted)}."
    return Plan("follow_action", scene.typed(line[0]), (line[1],), thought, ((wanted,),))


def follow_relative(scene: Scene, before: Before) -> Plan | None:
    """More or less of what was just set, or asked about."""
    if (spoken := _spoken_of(scene, before)) is None:
        return None
    items = [item for item in settable(scene) if item[0].name == spoken[0].name]
    if not items:
        return None
    item = scene.rng.choice(items)
    if item[1] == spoken[1] and scene.rng.random() < SHORT_SHARE:  # "a bit more" is of what was said
        way = scene.rng.choice(("more", "less", "a_bit_more", "a_bit_less"))
        if (line := scene.line("follow_ups", way)) is None:
            return None
        plan = relative_plan(scene, item, way, Said(line[0], line[1], "it"), is_it=True)
    else:
        is_hint = scene.rng.random() < HINT_SHARE
        ways = [way for way in relative_ways(scene, item[0], item[1]) if way.startswith("hints") == is_hint]
        plan = relative_plan(scene, item, scene.rng.choice(ways), is_it=True) if ways else None
    return plan and replace(plan, kind="follow_relative")


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
    tool = tool_of(command, scene.tools)
    others = [scene.site.devices[name] for name in tool.devices if name != command.device]
    others = [one for one in others if is_plain(one, one.actions[command.action])]
    if not others:
        return None
    other = scene.rng.choice(others)
    name, last = scene.name_for(other), other.title.split()[-1]
    part = other.title.removesuffix(f" {last}")
    is_telling = part != other.title and sum(one.title.startswith(part) for one in others) == 1
    holes = {"device": scene.with_article(name)} | ({"part": part} if is_telling else {})
    keys = (key, "the_other_one") if len(others) == 1 and not is_corrected else (key,)
    if (line := scene.line("follow_ups", *keys, **holes)) is None:
        return None
    if "{device}" not in line[1]:
        name = part if "{part}" in line[1] else "the other one"
    wanted = Command(other.name, command.action, command.input)
    commands: tuple[Command, ...] = (wanted,)
    thought = wanted_text(scene, name, wanted)
    if is_corrected:
        if (back := restoring(scene.site, before.state, scene.state, command)) is None:
            return None
        commands = (back, wanted)
        thought = f"not {command.device}, {call_text(scene.site, scene.tools, back)}; {thought}"
    return Plan("follow_device", scene.typed(line[0]), (line[1],), f"{thought}.", (commands,))


def follow_all(scene: Scene, before: Before) -> Plan | None:
    """The same with all others of the kind."""
    if (only := _only(scene, before)) is None or only[1].input or scene.site.targets:
        return None
    tool, line = tool_of(only[1], scene.tools), scene.line("follow_ups", "all_of_them")
    if line is None or not 1 < len(tool.devices) <= MOST_OF_A_KIND:
        return None
    commands = tuple(Command(name, tool.action, {}) for name in tool.devices)
    if not all(is_plain(scene.site.devices[one.device], action_of(scene.site, one)[1]) for one in commands):
        return None
    thought = f"All of {tool.name}({devices_text(tool)})."
    return Plan("follow_all", scene.typed(line[0]), (line[1],), thought, (commands,))


def follow_both(scene: Scene, before: Before) -> Plan | None:
    """Something else with the two that were moved: "turn both off again"."""
    moved = list(dict.fromkeys(command.device for command in before.done))
    if len(moved) != 2:
        return None
    devices = [scene.site.devices[name] for name in moved]
    shared = [
        (name, action)
        for name, action in devices[0].actions.items()
        if not action.input and all(name in one.actions and is_plain(one, one.actions[name]) for one in devices)
        and not all(one.actions[name].is_already_so(scene.state[one.name], {}) for one in devices)
        and any("{device}" in request for request in action.requests)
    ]  # fmt: skip
    if not shared:
        return None
    name, action = scene.rng.choice(shared)
    template = scene.rng.choice([one for one in action.requests if "{device}" in one])
    request = template.format(device=scene.rng.choice(("both", "both of them", "them both", "the two")))
    commands = tuple(Command(one, name, {}) for one in moved)
    thought = "; ".join(f"{one.device} is {wanted_call(scene, one)}" for one in commands)
    return Plan("follow_both", scene.typed(request), (template,), f"both: {thought}.", (commands,))


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
    if len(action.input) != 1:
        return None
    argument, schema = next(iter(action.input.items()))
    value = scene.value_for(schema)
    if asked is None and value == before.done[-1].input.get(argument):
        return None
    line = scene.line("follow_ups", key, value=spoken_value(schema, value, scene.rng))
    if line is None or "{value}" not in line[1]:
        return None
    command = Command(device.name, name, {argument: value})
    return Plan(
        "follow_value", scene.typed(line[0]), (line[1],), f"it is {wanted_call(scene, command)}.", ((command,),)
    )


def wanted_call(scene: Scene, command: Command) -> str:
    """Return the end of a thought whose device is known from before: its name, and the call."""
    return f"{command.device}, {call_text(scene.site, scene.tools, command)}"


def follow_question(scene: Scene, before: Before) -> Plan | None:
    """A question about what was spoken of last."""
    if (only := _only(scene, before)) is None or not (state := scene.state[only[0].name]):
        return None
    device = only[0]
    key = scene.rng.choice(list(state))
    schema, value = device.properties[key], state[key]
    is_switch = isinstance(value, bool)
    label = value_text(schema, scene.rng.random() < 0.5) if is_switch else ""
    holes = {"state": label} if is_switch else {"property": property_title(key, schema)}
    own = f"it_question_{key.removesuffix('_c')}"
    keys = ("it_question", *((own,) if own in scene.corpus.forms["follow_ups"] else ()))
    line = scene.line("follow_ups", *keys, **holes)
    if line is None or not (re.search(r"{", line[1]) or line[1] in scene.corpus.forms["follow_ups"].get(own, ())):
        return None
    thought = f"{resolved_text('it', device)}:{facts_text(state)}."
    answer = answer_about(device, state, [key])
    has = (told_of(answer, words_for(device, key, value)),)
    return Plan("follow_question", scene.typed(line[0]), (line[1],), thought, answer=answer, answer_has=has)


def follow_done(scene: Scene, before: Before) -> Plan | None:
    """What was just done."""
    if (line := scene.line("follow_ups", "what_did_you_do")) is None:
        return None
    ask, templates = scene.typed(line[0]), (line[1],)
    if not before.done:
        return Plan("follow_done", ask, templates, "nothing was done.", answer="I did nothing.")
    thought = "; ".join(f"{call_of(one, scene.tools).name} {one.device}" for one in before.done)
    answer = sentence(*_facts_of(scene, before.done))
    return Plan("follow_done", ask, templates, f"the last was {thought}.", answer=answer)


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
    line = scene.line("follow_ups", "thanks")
    return line and Plan("small_talk", scene.typed(line[0]), (line[1],), "Small talk.", answer="You are welcome.")


FOLLOW_UPS: dict[str, tuple[float, Callable[[Scene, Before], Plan | None]]] = {
    "undo": (0.22, follow_undo),
    "both": (0.3, follow_both),
    "other_action": (0.2, follow_other_action),
    "relative": (0.16, follow_relative),
    "all": (0.06, follow_all),
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
    if not before.done and before.plan.kind not in QUESTIONS and scene.rng.random() < NOTHING_SHARE:
        return None
    while left:
        name = scene.rng.choices(list(left), [weight for weight, _ in left.values()])[0]
        if (plan := left.pop(name)[1](scene, before)) is not None:
            return plan
    return None

"""Plans of what people say next of one device: it, the other one, undo, a bit more, "no, the bedroom one", a value.

Each maker gets what was before and returns None where nothing of it can be meant. follow_several.py has what is said of
several devices at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from devices.site.describe import describe, property_title, sentence, value_text
from devices.site.device import Device
from devices.site.tools import Command, action_of, call_of, tool_of
from edge_agent.agent.undo import restoring, undo_text, undoing
from edge_agent.wire.contract import call_text
from finetune.data.answer_plans import answer_about
from finetune.data.people.follow_several import SEVERAL
from finetune.data.people.spoken_before import (
    QUESTIONS,
    Before,
    alike,
    line_about,
    not_done,
    only_moved,
    spoken_of,
    wanted_call,
)
from finetune.data.people.spoken_values import spoken_value
from finetune.data.people.state_questions import answered
from finetune.data.people.wishes import NOTED, relative_plan, relative_ways, settable, starts_with_verb
from finetune.data.scene import Plan, Said, Scene, is_plain, wanted_text

SHORT_SHARE = 0.5  # of relative wishes after a value was set are one of a few words
NOTHING_SHARE = 0.85  # of the exchanges in which nothing was done are not spoken of again, but for questions
HINT_SHARE = 0.4  # of relative wishes are said as what is wrong: "still too bright"
SHORT_WAYS = ("more", "less", "a_bit_more", "a_bit_less", "more_by", "less_by", "halve", "double")
BACK_SHARE = 0.4  # of values after another are the one before
DID_SHARE = 0.35  # of questions about what was just done ask whether it worked
SAME_SHARE = 0.7  # of questions about another device are about one that has the property too
FORGET_SHARE = 0.15  # of values that were asked for are not wanted any more


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
    if (spoken := spoken_of(scene, before)) is None:
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
    if (spoken := spoken_of(scene, before)) is None:
        return None
    items = [item for item in settable(scene) if item[0].name == spoken[0].name]
    if not items:
        return None
    item = scene.rng.choice(items)
    if item[1] == spoken[1] and scene.rng.random() < SHORT_SHARE:  # "a bit more" is of what was said
        way = scene.rng.choice(SHORT_WAYS)
        plan = relative_plan(scene, item, way, scene.corpus.form("follow_ups", way), is_it=True)
    else:
        is_hint = scene.rng.random() < HINT_SHARE
        ways = [way for way in relative_ways(scene, item[0], item[1]) if way.startswith("hints") == is_hint]
        plan = relative_plan(scene, item, scene.rng.choice(ways), is_it=True) if ways else None
    return plan and replace(plan, kind="follow_relative")


def follow_other_device(scene: Scene, before: Before) -> Plan | None:
    """The same with another device."""
    keys = ("other_device_same_action", "as_well", "same_in_area")
    return _with_other(scene, before, keys) if alike(before) else None


def follow_correction(scene: Scene, before: Before) -> Plan | None:
    """It was the wrong device: that one back as it was, and another one instead."""
    return _with_other(scene, before, ("correction_device",), is_corrected=True) if only_moved(scene, before) else None


def _with_other(scene: Scene, before: Before, keys: tuple[str, ...], *, is_corrected: bool = False) -> Plan | None:
    command, moved = before.done[-1], {one.device for one in before.done}
    tool = tool_of(command, scene.tools)
    others = [scene.site.devices[name] for name in tool.devices if name not in moved]
    others = [one for one in others if is_plain(one, one.actions[command.action])]
    if not others:
        return None
    other = scene.rng.choice(others)
    more = ("the_other_one",) if len(tool.devices) == 2 and not is_corrected else ()
    if (said := line_about(scene, other, (*keys, *more))) is None:
        return None
    wanted = Command(other.name, command.action, command.input)
    commands: tuple[Command, ...] = (wanted,)
    thought = wanted_text(scene, said.name, wanted)
    if is_corrected:
        if (back := restoring(scene.site, before.state, scene.state, command)) is None:
            return None
        commands = (back, wanted)
        thought = f"not {command.device}, {call_text(scene.site, scene.tools, back)}; {thought}"
    return Plan("follow_device", scene.typed(said.request), (said.template,), f"{thought}.", (commands,))


def follow_value(scene: Scene, before: Before) -> Plan | None:
    """Another value for what was just set, the one that it had before, or the value that was asked for."""
    asked = before.plan.asked
    if asked is not None:
        device, name, key = scene.site.devices[asked.device], asked.action, "answer_value"
    elif (only := only_moved(scene, before)) is not None:
        device, name, key = only[0], only[1].action, "correction_value"
    else:
        return None
    action = device.actions[name]
    if len(action.input) != 1:
        return None
    argument, schema = next(iter(action.input.items()))
    value = scene.value_for(schema)
    if asked is None and scene.rng.random() < BACK_SHARE:
        back = restoring(scene.site, before.state, scene.state, before.done[-1])
        if back and back.action == name:
            value, key = back.input[argument], "back_to_value"
    if asked is None and value == before.done[-1].input.get(argument):
        return None
    line = scene.line("follow_ups", key, value=spoken_value(schema, value, scene.rng))
    if line is None or "{value}" not in line[1]:
        return None
    command = Command(device.name, name, {argument: value})
    return Plan(
        "follow_value", scene.typed(line[0]), (line[1],), f"it is {wanted_call(scene, command)}.", ((command,),)
    )


def follow_question(scene: Scene, before: Before) -> Plan | None:
    """A question about what was spoken of last."""
    if (only := only_moved(scene, before)) is None or not (state := scene.state[only[0].name]):
        return None
    device, command = only
    written = [key for key in device.actions[command.action].writes if key in state]
    if written and scene.rng.random() < DID_SHARE:
        return _question(scene, device, written[0], ("did_it_work",))
    key = scene.rng.choice(list(state))
    own = f"it_question_{key.removesuffix('_c')}"
    return _question(scene, device, key, ("it_question", *((own,) if own in scene.corpus.forms["follow_ups"] else ())))


def follow_only_asking(scene: Scene, before: Before) -> Plan | None:
    """What was not done because a yes is needed: it was a question, and no wish."""
    if (command := not_done(before)) is None:
        return None
    device = scene.site.devices[command.device]
    switches = [key for key, value in scene.state[device.name].items() if isinstance(value, bool)]
    return _question(scene, device, scene.rng.choice(switches), ("only_asking",)) if switches else None


def _question(scene: Scene, device: Device, key: str, keys: tuple[str, ...]) -> Plan | None:
    schema, value = device.properties[key], scene.state[device.name][key]
    is_switch = isinstance(value, bool)
    label = value_text(schema, scene.rng.random() < 0.5) if is_switch else ""
    holes = {"state": label} if is_switch else {"property": property_title(key, schema)}
    line = scene.line("follow_ups", *keys, **holes)
    if line is None or ("{" not in line[1] and line[1] in scene.corpus.form("follow_ups", "it_question")):
        return None
    return answered(scene, "follow_question", device, key, Said(scene.typed(line[0]), line[1], "it"))


def follow_what_about(scene: Scene, before: Before) -> Plan | None:
    """A question was answered: the same question about another device."""
    if (spoken := spoken_of(scene, before)) is None or before.done:
        return None
    device, state = spoken[0], before.state[spoken[0].name]
    asked = next((key for key in state if answer_about(device, state, [key]) == before.plan.answer), "")
    others = [one for one in scene.site.devices.values() if one is not device and scene.state[one.name]]
    same = [one for one in others if asked in one.properties] if asked else []
    if not others:
        return None
    other = scene.rng.choice(same if same and scene.rng.random() < SAME_SHARE else others)
    key = asked if other in same else next(iter(scene.state[other.name]))
    if (said := line_about(scene, other, ("what_about",))) is None:
        return None
    return answered(scene, "follow_question", other, key, replace(said, request=scene.typed(said.request)))


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


def follow_keep(scene: Scene, before: Before) -> Plan | None:
    """It is good as it is now."""
    if not before.done and before.plan.kind not in QUESTIONS:
        return None
    line = scene.line("follow_ups", "keep_it")
    return line and Plan("small_talk", scene.typed(line[0]), (line[1],), "Small talk.", answer=NOTED)


def follow_forget(scene: Scene, before: Before) -> Plan | None:
    """What was asked back, or not done, is not wanted any more."""
    if before.plan.asked is None and not_done(before) is None:
        return None
    line = scene.line("follow_ups", "forget_it")
    return line and Plan("taken_back", scene.typed(line[0]), (line[1],), "taken back, nothing to do.", answer=NOTED)


FOLLOW_UPS: dict[str, tuple[float, Callable[[Scene, Before], Plan | None]]] = {
    "undo": (0.22, follow_undo),
    "other_action": (0.2, follow_other_action),
    "relative": (0.16, follow_relative),
    "other_device": (0.2, follow_other_device),
    "correction": (0.1, follow_correction),
    "value": (0.14, follow_value),
    "question": (0.14, follow_question),
    "what_about": (0.3, follow_what_about),
    "only_asking": (0.3, follow_only_asking),
    "done": (0.06, follow_done),
    "thanks": (0.04, follow_thanks),
    "keep": (0.08, follow_keep),
    "forget": (0.3, follow_forget),
    **SEVERAL,
}


def draw_follow_up(scene: Scene, before: Before) -> Plan | None:
    """Return a plan of what is said next, or None if nothing fits."""
    if before.plan.asked is not None:
        dropped = follow_forget(scene, before) if scene.rng.random() < FORGET_SHARE else None
        return dropped or follow_value(scene, before)
    left, is_open = dict(FOLLOW_UPS), before.plan.kind in QUESTIONS or not_done(before) is not None
    if not before.done and not is_open and scene.rng.random() < NOTHING_SHARE:
        return None
    while left:
        name = scene.rng.choices(list(left), [weight for weight, _ in left.values()])[0]
        if (plan := left.pop(name)[1](scene, before)) is not None:
            return plan
    return None

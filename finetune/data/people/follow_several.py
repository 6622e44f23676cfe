"""Plans of what people say next of several devices at once: both, all of them, all but that one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from devices.site.describe import value_text
from devices.site.tools import Command, action_of, tool_of
from edge_agent.agent.undo import restoring
from edge_agent.wire.contract import devices_text
from finetune.data.people.spoken_before import Before, alike, line_about, only_moved, several_spoken_of, wanted_call
from finetune.data.people.spoken_values import spoken_value
from finetune.data.people.state_questions import MOST_OF_A_KIND
from finetune.data.people.wishes import Settable, relative_plan, settable
from finetune.data.scene import Plan, Scene, is_plain, wanted_text

TWO = ("both", "both of them", "them both", "the two")
THEM = ("all of them", "them all", "all of those", "the lot", "them", "every one of them")


def follow_all(scene: Scene, before: Before) -> Plan | None:
    """The same with all others of the kind."""
    if (only := only_moved(scene, before)) is None or only[1].input or scene.site.targets:
        return None
    tool, line = tool_of(only[1], scene.tools), scene.line("follow_ups", "all_of_them")
    if line is None or not 1 < len(tool.devices) <= MOST_OF_A_KIND:
        return None
    commands = tuple(Command(name, tool.action, {}) for name in tool.devices)
    if not all(is_plain(scene.site.devices[one.device], action_of(scene.site, one)[1]) for one in commands):
        return None
    thought = f"All of {tool.name}({devices_text(tool)})."
    return Plan("follow_all", scene.typed(line[0]), (line[1],), thought, (commands,))


def follow_them(scene: Scene, before: Before) -> Plan | None:
    """Something else with those that were spoken of: "turn both off again", "close them all"."""
    spoken = several_spoken_of(before)
    if not 1 < len(spoken) <= MOST_OF_A_KIND:
        return None
    devices = [scene.site.devices[name] for name in spoken]
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
    request = template.format(device=scene.rng.choice(TWO if len(spoken) == 2 else THEM))
    request += scene.rng.choice(("", "", " again"))
    commands = tuple(Command(one, name, {}) for one in spoken)
    tool = tool_of(commands[0], scene.tools)
    if len(spoken) > 2 and {*spoken} == {*tool.devices} and not scene.site.targets:
        thought = f"All of {tool.name}({devices_text(tool)})"
    else:
        thought = _both(scene, commands)
    return Plan("follow_both", scene.typed(request), (template,), f"{thought}.", (commands,))


def follow_both_to_value(scene: Scene, before: Before) -> Plan | None:
    """One value for the two that were moved."""
    found = _both_settable(scene, before)
    if not found:
        return None
    argument, schema = found[0][3], found[0][4]
    value = scene.value_for(schema)
    line = scene.line("follow_ups", "both_value", value=spoken_value(schema, value, scene.rng))
    if line is None:
        return None
    commands = tuple(Command(one[0].name, one[1], {argument: value}) for one in found)
    return Plan("follow_both", scene.typed(line[0]), (line[1],), f"{_both(scene, commands)}.", (commands,))


def _both(scene: Scene, commands: Sequence[Command]) -> str:
    return f"both: {'; '.join(f'{one.device} is {wanted_call(scene, one)}' for one in commands)}"


def follow_both_relative(scene: Scene, before: Before) -> Plan | None:
    """A bit more or less of the two that were moved."""
    found = _both_settable(scene, before)
    way, key = scene.rng.choice((("a_bit_more", "both_more"), ("a_bit_less", "both_less")))
    lines = scene.corpus.form("follow_ups", key)
    plans = [plan for one in found if (plan := relative_plan(scene, one, way, lines, is_it=True))]
    if len(plans) != 2:
        return None
    parts = []
    for (device, *_), plan in zip(found, plans, strict=True):
        words, rest = plan.thought.removesuffix(".").split(": it is ", 1)
        parts.append(f"{device.name} is {rest}")
    steps = (tuple(one for plan in plans for step in plan.steps for one in step),)
    return replace(plans[0], kind="follow_both", thought=f"{words}: {'; '.join(parts)}.", steps=steps)


def _both_settable(scene: Scene, before: Before) -> list[Settable]:
    """Return the value that can be set of the two devices that were spoken of, in each the same one; or none."""
    spoken = several_spoken_of(before)
    if len(spoken) != 2:
        return []
    items = [[item for item in settable(scene) if item[0].name == name] for name in spoken]
    shared = [(one, other) for one in items[0] for other in items[1] if one[1] == other[1] and one[4] == other[4]]
    return list(scene.rng.choice(shared)) if shared else []


def follow_except(scene: Scene, before: Before) -> Plan | None:
    """One of several that were switched is to be again as it was."""
    moved = list(dict.fromkeys(command.device for command in before.done))
    if alike(before) is None or len(moved) < 2:
        return None
    choices = []
    for command in before.done:
        back = restoring(scene.site, before.state, scene.state, command)
        if back and not back.input and is_plain(*action_of(scene.site, back)):
            choices.append(back)
    if not choices:
        return None
    back = scene.rng.choice(choices)
    device, action = action_of(scene.site, back)
    key, value = next(iter(action.effect({}).items()))
    holes = {"state": value_text(device.properties[key], value)} if isinstance(value, bool) else {}
    if (said := line_about(scene, device, ("except_one",), **holes)) is None:
        return None
    return Plan("follow_except", scene.typed(said.request), (said.template,), f"{wanted_text(scene, said.name, back)}.",
                ((back,),))  # fmt: skip


SEVERAL: dict[str, tuple[float, Callable[[Scene, Before], Plan | None]]] = {
    "them": (0.3, follow_them),
    "both_to_value": (0.2, follow_both_to_value),
    "both_relative": (0.2, follow_both_relative),
    "all": (0.06, follow_all),
    "except": (0.3, follow_except),
}

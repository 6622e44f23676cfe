"""Plans of one wish for several devices, on sites without areas: all of a kind, both, all but one, two named ones."""

from __future__ import annotations

import re
from collections.abc import Mapping

from devices.site.phrasings import KindGroup, group_words
from devices.site.schema import Value
from devices.site.tools import Command, Tool
from edge_agent.wire.contract import call_text, devices_text
from finetune.data.people.spoken_values import spoken_value
from finetune.data.scene import Plan, Scene, is_plain, resolved_text, wanted_text

PLACE_SHARE = 0.3  # of the devices among several are called by their place alone
MIXED_SHARE, ALL_SHARE = 0.2, 0.4  # of several devices: of two kinds, and of one of those all
MANY = 6  # devices that are called one by one
ANOTHER_SHARE = 0.3  # of lists name three devices, and of exceptions two
GROUP_LINE_SHARE = 0.6  # of requests for several devices; the others are those for one device, put to several
MANY_NAMES = {
    "all": (
        "all the {plural}", "all {plural}", "every {singular}", "the {plural}", "all of the {plural}",
        "each {singular}",
    ),
    "both": ("both {plural}", "both of the {plural}", "the two {plural}", "the {plural}", "all {plural}"),
    "except": (
        "all {plural} except {device}", "all the {plural} but {device}", "every {singular} apart from {device}",
        "all the other {plural} but not {device}",
    ),
    "list": ("{device} and {other}", "{device} and {other}", "both {device} and {other}", "{device} and also {other}"),
}  # fmt: skip
OF_ONE = re.compile(r"{device}('s| \w+s\b| \w+n't\b)|\b(it|one|that|this)\b", re.IGNORECASE)  # reads badly of several


def plan_many(scene: Scene) -> Plan | None:
    """All of a kind, both, all but one or two, or two or three that are named; on sites without areas, a call each."""
    if scene.rng.random() < MIXED_SHARE and (plan := _plan_mixed(scene)):
        return plan
    tools = [one for one in scene.tools if _is_for_many(scene, one)]
    if not tools:
        return None
    tool = scene.rng.choice(tools)
    devices = [scene.site.devices[name] for name in tool.devices]
    form = scene.rng.choice(["all", "list", *(["both"] if len(devices) == 2 else ["except", "except"])])
    first, *others = scene.rng.sample(devices, min(3, len(devices)))
    is_more = len(others) == 2 and form in ("list", "except") and scene.rng.random() < ANOTHER_SHARE
    named = [first, *(others[: 1 + is_more] if form == "list" else others[:is_more])]
    names = [scene.name_for(one) for one in named]
    if (place := scene.place_of(first)) and scene.rng.random() < PLACE_SHARE:  # "all but the porch"
        names[0] = place
    arguments = scene.arguments_for(first, first.actions[tool.action])
    spoken = [scene.with_article(name) for name in names]
    said_of = (", ".join(spoken[:-1]), spoken[-1]) if form == "list" else (" and ".join(spoken), "")
    said = _said_of_many(scene, tool, form, said_of, arguments)
    if said is None:
        return None
    called = call_text(scene.site, scene.tools, Command(first.name, tool.action, arguments))
    thought, wanted = f"All of {tool.name}({devices_text(tool)})", devices
    resolved = [resolved_text(*one) for one in zip(names, named, strict=True)]
    if form == "except":
        thought = f"{thought} but {' and '.join(resolved)}"
        wanted = [one for one in devices if one not in named]
    if form == "list":
        thought, wanted = f"both: {'; '.join(f'{one}, {called}' for one in resolved)}", named
    elif arguments:
        thought += f", {called}"
    commands = tuple(Command(one.name, tool.action, arguments) for one in wanted)
    ask, templates = scene.finish(*said)
    return Plan("many", ask, templates, f"{thought}.", (commands,))


def plan_two_records(scene: Scene) -> Plan | None:
    """One look-up or action for two of a device's records: "orders 4141 and 7061, where are they"."""
    choices = [
        (device, name, pairs)
        for device, name, action in scene.actions()
        if len(action.input) == 1 and (pairs := scene.corpus.action(device, name).pairs) and is_plain(device, action)
    ]
    if not choices:
        return None
    device, name, pairs = scene.rng.choice(choices)
    ((key, schema),) = device.actions[name].input.items()
    arguments = [scene.arguments_for(device, device.actions[name]) for _ in range(2)]
    shown = [spoken_value(schema, one[key], scene.rng) for one in arguments]
    said = scene.fill(pairs, device, number=shown[0], other=shown[1])
    if said is None or arguments[0] == arguments[1]:
        return None
    commands = tuple(Command(device.name, name, one) for one in arguments)
    wanted = "; ".join(wanted_text(scene, device.title, one) for one in commands)
    ask, templates = scene.finish(said.request, said.template)
    return Plan("two_records", ask, templates, f"both: {wanted}.", (commands,))


def _plan_mixed(scene: Scene) -> Plan | None:
    """One verb for devices of two kinds, of one of them perhaps for all: "turn off the fan and all the lights"."""
    by_verb: dict[str, list[Tool]] = {}
    for tool in scene.tools:
        group = group_words(tool.kind)
        actions = [(one := scene.site.devices[name], one.actions[tool.action]) for name in tool.devices]
        if group and tool.action in group.verbs and not tool.input and all(is_plain(*one) for one in actions):
            by_verb.setdefault(group.verbs[tool.action], []).append(tool)
    verbs = [verb for verb, tools in by_verb.items() if len(tools) > 1 and not tools[0].targets]
    if not verbs:
        return None
    verb = scene.rng.choice(verbs)
    names, thoughts, commands = [], [], list[Command]()
    for tool in scene.rng.sample(by_verb[verb], 2):
        group = group_words(tool.kind)
        assert group is not None
        devices = [scene.site.devices[name] for name in tool.devices]
        if 1 < len(devices) <= MANY and scene.rng.random() < ALL_SHARE:
            names.append(
                scene.rng.choice(("all the {plural}", "all {plural}", "the {plural}")).format(
                    **_called(scene, tool, group)
                )
            )
            thoughts.append(f"All of {tool.name}({devices_text(tool)})")
        else:
            devices = [scene.rng.choice(devices)]
            name = scene.name_for(devices[0])
            names.append(scene.with_article(name))
            thoughts.append(f"{resolved_text(name, devices[0])}, {tool.name}")
        commands += [Command(one.name, tool.action, {}) for one in devices]
    line = scene.line("groups", "list", verb=verb, device=names[0], other=names[1])
    if line is None:
        return None
    ask, templates = scene.finish(*line)
    return Plan("many", ask, templates, f"both: {'; '.join(thoughts)}.", (tuple(commands),))


def _is_for_many(scene: Scene, tool: Tool) -> bool:
    """Return whether people have words for all devices of a tool, and nobody has to be asked for any of them."""
    if not group_words(tool.kind) or tool.targets or len(tool.input) > 1 or not 1 < len(tool.devices) <= MANY:
        return False
    actions = [(one := scene.site.devices[name], one.actions[tool.action]) for name in tool.devices]
    return all(is_plain(*one) and not one[1].is_call for one in actions)


def _said_of_many(
    scene: Scene, tool: Tool, form: str, names: tuple[str, str], arguments: Mapping[str, Value]
) -> tuple[str, str] | None:
    """Return a request for several devices and its template: a line about groups, or one for a device, put to them.

    `names` are of an exception, or of a list all but the last, and the last of a list.
    """
    group = group_words(tool.kind)
    assert group is not None
    called = _called(scene, tool, group)
    if tool.action in group.verbs and not arguments and scene.rng.random() < GROUP_LINE_SHARE:
        holes = {"verb": group.verbs[tool.action], **called}
        if form in ("except", "list"):
            holes["device"] = names[0]
        if form == "list":
            holes["other"] = names[1]
        line = scene.line("groups", form, **holes)
        return line if line and (form not in ("except", "list") or "{device}" in line[1]) else None
    device = scene.site.devices[tool.devices[0]]
    requests = [one for one in scene.requests_by_name(device, tool.action) if not OF_ONE.search(one)]
    if not requests:
        return None
    meant = scene.rng.choice(MANY_NAMES[form]).format(**called, device=names[0], other=names[1])
    template = scene.rng.choice(requests)
    return template.format(device=meant, **scene.shown(device.actions[tool.action], arguments)), template


def _called(scene: Scene, tool: Tool, group: KindGroup) -> dict[str, str]:
    """Return what a tool's devices are called, one and all: as their kind is, or by the noun that they share."""
    nouns = {scene.site.devices[name].title.rstrip("0123456789 ").split(" ")[-1] for name in tool.devices}
    noun = nouns.pop() if len(nouns) == 1 else ""
    if not noun.isascii() or not noun.islower() or scene.rng.random() < 0.5:
        return {"singular": group.singular, "plural": group.plural}
    if noun.endswith("s"):
        return {"singular": f"set of {noun}", "plural": noun}
    return {"singular": noun, "plural": f"{noun}{'es' if noun.endswith(('ch', 'sh', 'x')) else 's'}"}

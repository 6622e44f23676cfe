"""Plans about several devices at once: an area, floor, group or list of one kind or of all kinds, but for some.

Each maker returns None where the site or its state offers no such exchange; without areas and groups, none does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from devices.site.device import Device
from devices.site.phrasings import KindGroup, SpokenAction, group_words, load_phrasings
from devices.site.schema import Value
from devices.site.site import EVERYWHERE
from devices.site.tools import Command, Tool, ToolCall
from edge_agent.wire.contract import call_text
from finetune.data import phrases
from finetune.data.held_out import side
from finetune.data.scene import Plan, Scene, is_by_name, is_fillable, is_plain, resolved_text

LISTED = (2, 4)  # devices of a list
SINGULAR = re.compile(r"\b(it|its|is|needs|has)\b")  # a template with one of these is about one device


@dataclass(frozen=True)
class _Target:
    """An area, floor or group: the name that is used of it, and how a sentence says that something is there."""

    name: str
    spoken: str
    where: str


def plan_area(scene: Scene) -> Plan | None:
    """One action on all devices of a kind that are in an area, on a floor, in a group, or anywhere."""
    if (picked := _pick(scene, members=1)) is None:
        return None
    tool, target = picked
    return _plan(scene, "area", [tool], target, _kind_words(scene, tool, target))


def plan_everything(scene: Scene) -> Plan | None:
    """One action on whatever has it in an area, of several kinds."""
    by_action: dict[tuple[str, str], list[Tool]] = {}
    for tool in _plain_tools(scene):
        for name in tool.targets if not tool.input else ():
            by_action.setdefault((tool.action, name), []).append(tool)
    choices = [(name, tools) for (_, name), tools in by_action.items() if len(tools) > 1]
    if not choices:
        return None
    name, tools = scene.rng.choice(choices)
    target = _spoken(scene, name)
    return _plan(scene, "everything", tools, target, _noun_phrase(scene, phrases.load_templates().everything, target))


def plan_except(scene: Scene) -> Plan | None:
    """One action on all devices of a kind but one."""
    if (picked := _pick(scene, members=2)) is None:
        return None
    tool, target = picked
    excepted = scene.site.devices[scene.rng.choice(tool.targets[target.name])]
    name = scene.name_for(excepted)
    said, templates = _kind_words(scene, tool, target)
    but = scene.rng.choice(side(phrases.load_templates().excepted, scene.held_out))
    said = but.format(said, device=scene.with_article(name))
    return _plan(scene, "except", [tool], target, (said, (*templates, but)), (name, excepted))


def plan_list(scene: Scene) -> Plan | None:
    """One action on several devices that are named one by one."""
    tools = [tool for tool in _plain_tools(scene) if len(tool.devices) > 1]
    if not tools:
        return None
    tool = scene.rng.choice(tools)
    count = min(scene.rng.randint(*LISTED), len(tool.devices))
    devices = [scene.site.devices[name] for name in scene.rng.sample(tool.devices, count)]
    names = [scene.name_for(device) for device in devices]
    *first, last = map(scene.with_article, names)
    said = scene.rng.choice(["{} and {}", "{} and {}", "both {} and {}" if count == 2 else "{} and {}"])
    if (found := _request(scene, [tool], said.format(", ".join(first), last))) is None:
        return None
    request, template, arguments = found
    resolved = " and ".join(resolved_text(name, device) for name, device in zip(names, devices, strict=True))
    call = ToolCall(tool.name, {"device": [device.name for device in devices], **arguments})
    ask, templates = scene.finish(request, template)
    thought = f"{resolved}, {_call_text(scene, tool, arguments)}."
    return Plan("list", ask, templates, thought, ((call,),))


def plan_missing_area(scene: Scene) -> Plan | None:
    """A kind of device where there is none, or an area that is not here: say so."""
    choices = [(tool, words) for tool in _plain_tools(scene) if (words := group_words(tool.kind))]
    if not choices:
        return None
    tool, words = scene.rng.choice(choices)
    empty = [name for name in scene.site.targets if name not in tool.targets and name not in scene.site.groups]
    if empty and scene.rng.random() < 0.5:
        target = _spoken(scene, scene.rng.choice(empty))
        answer = f"There are no {words.plural} {target.where}."
        thought = f"{target.spoken} is {target.name}, no {tool.kind}."
    else:
        places = load_phrasings().places
        name = scene.rng.choice([place for place in places if not _is_known(scene, place)] or [""])
        target = _Target(name, name, f"in the {name}")
        answer, thought = f"There is no {name} here.", f"{name} is no area."
    said, noun_templates = _noun_phrase(scene, phrases.load_templates().several, target, words)
    if not target.name or (found := _request(scene, [tool], said)) is None:
        return None
    request, template, _ = found
    ask, templates = scene.finish(request, template, *noun_templates)
    has = (("there is no", "there are no", "no such", f"no {words.singular}"),)
    return Plan("missing_area", ask, templates, thought, answer=answer, answer_has=has)


def _is_known(scene: Scene, place: str) -> bool:
    """Return whether the site has anything that is called by a word."""
    site = scene.site
    called = [name for device in site.devices.values() for name in device.names]
    for places in (site.areas, site.floors, site.groups):
        called += [name for key, one in places.items() for name in (key, one.title, *one.aliases)]
    return any(place in re.split(r"[\W_]+", name.lower()) for name in called)


def _plain_tools(scene: Scene) -> list[Tool]:
    """Return the tools of a site with areas or groups of which nobody has to be asked and no interlock refuses."""
    return [
        tool
        for tool in scene.tools
        if tool.targets and all(is_plain(scene.site.devices[name], _action(scene, tool, name)) for name in tool.devices)
    ]


def _action(scene: Scene, tool: Tool, device: str) -> SpokenAction:
    return scene.site.devices[device].actions[tool.action]


def _pick(scene: Scene, members: int) -> tuple[Tool, _Target] | None:
    """Return a tool that people have a word for the devices of, and a target with at least so many of them."""
    choices = [
        (tool, name)
        for tool in _plain_tools(scene)
        for name, devices in tool.targets.items()
        if len(devices) >= members and (name in scene.site.groups or group_words(tool.kind))
    ]
    if not choices:
        return None
    tool, name = scene.rng.choice(choices)
    return tool, _spoken(scene, name)


def _spoken(scene: Scene, name: str) -> _Target:
    """Return a target with one of the names that people use for it."""
    site, rng = scene.site, scene.rng
    if name == EVERYWHERE:
        where = rng.choice(side(phrases.load_templates().everywhere, scene.held_out))
        return _Target(name, "all", where)
    place = site.areas.get(name) or site.floors.get(name) or site.groups[name]
    spoken = rng.choice([place.title, place.title, *place.aliases])
    if spoken in load_phrasings().adverbs:
        return _Target(name, spoken, spoken)
    preposition, article = "on" if name in site.floors else "in", rng.choice(["the", "the", "our"])
    return _Target(name, spoken, f"{preposition} {article} {spoken}")


def _kind_words(scene: Scene, tool: Tool, target: _Target) -> tuple[str, tuple[str, ...]]:
    """Return several devices of a tool as people speak of them, and the template of it."""
    if target.name in scene.site.groups:
        return scene.rng.choice(["the {}", "all the {}", "{}", "my {}"]).format(target.spoken), ()
    return _noun_phrase(scene, phrases.load_templates().several, target, group_words(tool.kind))


def _noun_phrase(
    scene: Scene, templates: Iterable[str], target: _Target, words: KindGroup | None = None
) -> tuple[str, tuple[str, ...]]:
    # "the kitchen lights", but neither "the all lights" nor "the upstairs lights"
    has_noun = target.spoken != "all" and target.where != target.spoken
    usable = [template for template in side(templates, scene.held_out) if has_noun or "{area}" not in template]
    template = scene.rng.choice(usable)
    nouns = {"singular": words.singular, "plural": words.plural} if words else {}
    return template.format(where=target.where, area=target.spoken, **nouns).strip(), (template,)


def _request(scene: Scene, tools: Sequence[Tool], said: str) -> tuple[str, str, dict[str, Value]] | None:
    """Return a request for the action of some tools, its template and arguments; None if no template fits them all."""
    actions = [_action(scene, tool, tool.devices[0]) for tool in tools]
    first = scene.site.devices[tools[0].devices[0]]
    arguments = scene.arguments_for(first, actions[0])
    templates, holes = scene.wording(actions[0], arguments)
    shared = [one for one in templates if len(actions) == 1 or all(one in action.requests for action in actions)]
    named = [one for one in side(shared, scene.held_out) if is_by_name(one) and not SINGULAR.search(one)]
    usable = [one for one in named if is_fillable(one, {"device", *holes})]
    if not usable:
        return None
    template = scene.rng.choice(usable)
    return scene.worded(template).format(device=said, **holes), template, arguments


def _plan(
    scene: Scene,
    kind: str,
    tools: Sequence[Tool],
    target: _Target,
    words: tuple[str, tuple[str, ...]],
    excepted: tuple[str, Device] | None = None,
) -> Plan | None:
    """Return the plan of one call a tool for a target; `words` are the devices as they are said, with the templates."""
    said, noun_templates = words
    if (found := _request(scene, tools, said)) is None:
        return None
    request, template, arguments = found
    target_arguments: dict[str, Value | list[str]] = {"area": target.name}
    resolved = f"{target.spoken} is {target.name}"
    if excepted:
        target_arguments["except"] = [excepted[1].name]
        resolved += f" but {resolved_text(*excepted)}"
    ask, templates = scene.finish(request, template, *noun_templates)
    thought = f"{resolved}, {'; '.join(_call_text(scene, tool, arguments) for tool in tools)}."
    calls = tuple(ToolCall(tool.name, {**target_arguments, **arguments}) for tool in tools)
    return Plan(kind, ask, templates, thought, (calls,))


def _call_text(scene: Scene, tool: Tool, arguments: dict[str, Value]) -> str:
    return call_text(scene.site, scene.tools, Command(tool.devices[0], tool.action, arguments))

"""Plans of wishes that only people have: hints, relative values, "half", taking back, conditions, later, not at all.

Each maker returns None where the site, its state or the corpus offers no such exchange. A thought names the wish first:
what is wanted decides how it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from devices.site.action import Action
from devices.site.describe import describe, number_text, property_title, sentence, value_text
from devices.site.device import Device
from devices.site.phrasings import KindGroup, SpokenAction, group_words, load_phrasings
from devices.site.relative_values import WAYS, allowed, usual_step, written_property
from devices.site.schema import DataSchema, Value
from devices.site.tools import Command, Tool, tool_of
from edge_agent.wire.contract import devices_text
from edge_agent.wire.messages import facts_text
from finetune.data.held_out import side
from finetune.data.people.asks import AskedAction
from finetune.data.people.spoken_values import spoken_value
from finetune.data.scene import (
    Plan,
    Said,
    Scene,
    call_text,
    is_by_name,
    is_plain,
    resolved_text,
    wanted_text,
)

LATER = "I cannot do things later. Ask me again when it is time."
NOTED = "All right."
OTHERWISE_SHARE = 0.15  # of conditions
FACT_SHARE = 0.75  # of facts are said in people's words
HALF, HALF_SHARE = 50, 0.15  # of bounds in percent: "more than half full"
PLACE_SHARE = 0.3  # of the devices among several are called by their place alone
MIXED_SHARE, ALL_SHARE = 0.2, 0.4  # of several devices: of two kinds, and of one of those all
MANY = 6  # devices that are called one by one
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
Settable = tuple[Device, str, SpokenAction, str, DataSchema, float]


OFTEN = {"off": 5, "max": 2, "half": 2}  # ways that people name more than others
OPPOSITE = {
    one: other
    for pair in (("more", "less"), ("max", "min"), ("a_bit_more", "a_bit_less"), ("much_more", "much_less"),
                 ("hints_more", "hints_less"), ("more_by", "less_by"))
    for one, other in (pair, pair[::-1])
}  # fmt: skip


def settable(scene: Scene) -> list[Settable]:
    """Return each action that sets one number, with its argument, that argument's schema, and what it is now."""
    found = []
    for device, name, action in scene.actions():
        if len(action.input) != 1 or not is_plain(device, action) or action.ends:
            continue
        key, schema = next(iter(action.input.items()))
        now = scene.state[device.name].get(written_property(action, key))
        if schema.minimum is not None and isinstance(now, int | float) and not isinstance(now, bool):
            found.append((device, name, action, key, schema, float(now)))
    return found


def plan_relative(scene: Scene) -> Plan | None:
    """A value named by what it is now, or by the range: "a bit warmer", "half open", "all the way up"."""
    choices = [
        (item, way)
        for item in settable(scene)
        for way in relative_ways(scene, item[0], item[1])
        for _ in range(OFTEN.get(way, 1))
    ]
    if not choices:
        return None
    item, way = scene.rng.choice(choices)
    return relative_plan(scene, item, way)


def relative_plan(
    scene: Scene, item: Settable, way: str, said: Said | None = None, *, is_it: bool = False
) -> Plan | None:
    """One request for a value named in a way of WAYS, or `more_by` and `less_by`.

    `is_it` says that the device was spoken of before, and is called so.
    """
    device, name, _, key, schema, now = item
    asked = way
    if schema.unit == "mired":  # the more mired, the warmer; the corpus means kelvin
        way = OPPOSITE.get(way, way)
    holes: dict[str, str] = {}
    if way in ("more_by", "less_by"):
        amount = scene.rng.choice((1, 1, 2, 3, 5)) * usual_step(schema)
        signed = amount if way == "more_by" else -amount
        wanted, words = now + signed, f"{number_text(amount)} {'more' if signed > 0 else 'less'}"
        holes["amount"] = spoken_value(schema, int(amount) if amount == int(amount) else amount, scene.rng)
    else:
        wanted, words = WAYS[way].value(now, schema), WAYS[way].words
    value = allowed(schema, wanted)
    if said is None:
        lines = _lines(scene.corpus.action(device, name), asked)
        if is_it:
            lines = tuple(one.replace("{device}", "it") for one in side(lines, scene.held_out) if is_by_name(one))
        said = scene.fill(lines, device, **holes)
    if said is None:
        return None
    command = Command(device.name, name, {key: value})
    facts = facts_text(scene.state[device.name])
    call = call_text(scene.site, scene.tools, command)
    thought = f"{words}: {resolved_text('it' if is_it else said.name, device)}:{facts}, {call}."
    ask, templates = scene.finish(said.request, said.template)
    return Plan("relative", ask, templates, thought, ((command,),))


def value_json(value: Value) -> str:
    """Return a number as thoughts write it."""
    return number_text(value) if isinstance(value, int | float) else str(value)


def relative_ways(scene: Scene, device: Device, name: str) -> list[str]:
    """Return the ways for which there are lines about an action's value."""
    asked = scene.corpus.action(device, name)
    return [way for way in (*WAYS, "more_by", "less_by") if side(_lines(asked, way), scene.held_out)]


def _lines(asked: AskedAction, way: str) -> tuple[str, ...]:
    """Return how people name a value in a way; thirds are named as quarters are."""
    for thirds, quarters, words, instead in (
        ("third", "quarter", "a quarter", "a third"),
        ("two_thirds", "three_quarters", "three quarters", "two thirds"),
    ):
        if way == thirds:
            return tuple(one.replace(words, instead) for one in getattr(asked, quarters) if words in one)
    found: tuple[str, ...] = getattr(asked, way)
    return found


def _pick(scene: Scene, key: str, keep: Callable[[Device, Action], bool]) -> tuple[Device, str, SpokenAction] | None:
    choices = [
        item
        for item in scene.actions()
        if keep(item[0], item[2]) and side(getattr(scene.corpus.action(item[0], item[1]), key), scene.held_out)
    ]
    return scene.rng.choice(choices) if choices else None


def plan_hint(scene: Scene) -> Plan | None:
    """No request is spoken, and yet anyone would do it."""
    picked = _pick(scene, "hints", lambda device, action: is_plain(device, action) and not action.input)
    if picked is None or not scene.state[picked[0].name]:
        return None
    device, name, action = picked
    said = scene.fill(scene.corpus.action(device, name).hints, device)
    if said is None or action.is_already_so(scene.state[device.name], {}):
        return None
    command = Command(device.name, name, {})
    ask, templates = scene.finish(said.request, said.template)
    return Plan("hint", ask, templates, f"a hint: {wanted_text(scene, said.name, command)}.", ((command,),))


def plan_negated(scene: Scene) -> Plan | None:
    """What must not be done."""
    return _left_alone(scene, "negated", "not to be done", "All right, the {} stays as it is.")


def plan_report(scene: Scene) -> Plan | None:
    """Somebody says that they did it, and wants nothing."""
    return _left_alone(scene, "report", "a remark", NOTED)


def _left_alone(scene: Scene, key: str, wish: str, answer: str) -> Plan | None:
    if (picked := _pick(scene, key, lambda device, action: True)) is None:
        return None
    device, name, _ = picked
    if (said := scene.fill(getattr(scene.corpus.action(device, name), key), device)) is None:
        return None
    ask, templates = scene.finish(said.request, said.template)
    thought = f"{wish}: {resolved_text(said.name, device)}."
    return Plan(key, ask, templates, thought, answer=answer.format(device.title))


def plain_request(scene: Scene) -> tuple[Command, Said] | None:
    """Return a command that nobody has to be asked for, and a request for it."""
    choices = [item for item in scene.actions() if is_plain(item[0], item[2])]
    if not choices:
        return None
    device, name, action = scene.rng.choice(choices)
    arguments = scene.arguments_for(device, action)
    return Command(device.name, name, arguments), scene.say(device, action, arguments)


def plan_later(scene: Scene) -> Plan | None:
    """A wish for another time: the box cannot do that, and must not do it now."""
    if (found := plain_request(scene)) is None:
        return None
    _, said = found
    form = scene.rng.choice(("after", "at", "at", "until"))
    time, moment = (scene.line("later", key) for key in ("durations" if form == "after" else "times", "moments"))
    if time is None or moment is None:
        return None
    line = scene.line("later", form, ask=said.request, time=time[0], moment=moment[0])
    if line is None:
        return None
    return Plan("later", scene.typed(line[0]), (line[1], said.template), "later, not now.", answer=LATER,
                answer_has=(("later",),))  # fmt: skip


def plan_condition(scene: Scene) -> Plan | None:
    """A wish that holds only if something is so now, or another one where it is not."""
    found = plain_request(scene)
    facts = [fact for fact in _facts(scene) if found and fact[0].name != found[0].device]
    if found is None or not facts:
        return None
    command, said = found
    device, key, clause, bound, is_so = scene.rng.choice(facts)
    other = plain_request(scene) if scene.rng.random() < OTHERWISE_SHARE else None
    if other and device.name != other[0].device != command.device:
        return _otherwise(scene, (device, clause, bound, is_so), found, other)
    form = scene.rng.choice(("if", "if", "unless", "only_if"))
    forms = (form, f"{form}_verb_first") if starts_with_verb(said.request) else (form,)
    if (line := scene.line("conditions", *forms, ask=said.request, fact=clause)) is None:
        return None
    start = _looked_up(scene, form, device, bound, is_so)
    ask, templates = scene.typed(line[0]), (line[1], said.template)
    if is_so != (form == "unless"):
        thought = f"{start}; {wanted_text(scene, said.name, command)}."
        return Plan("condition", ask, templates, thought, ((command,),))
    answer = sentence(describe(device, key, scene.state[device.name][key])) + " So I did nothing."
    return Plan("condition", ask, templates, f"{start}, nothing to do.", answer=answer)


def _otherwise(
    scene: Scene, fact: tuple[Device, str, str, bool], then: tuple[Command, Said], other: tuple[Command, Said]
) -> Plan | None:
    """One of two wishes, by what is so."""
    device, clause, bound, is_so = fact
    line = scene.line("conditions", "otherwise", ask=then[1].request, other=other[1].request, fact=clause)
    if line is None:
        return None
    command, said = then if is_so else other
    thought = f"{_looked_up(scene, 'if or else', device, bound, is_so)}; {wanted_text(scene, said.name, command)}."
    templates = (line[1], then[1].template, other[1].template)
    return Plan("condition", scene.typed(line[0]), templates, thought, ((command,),))


def _looked_up(scene: Scene, form: str, device: Device, bound: str, is_so: bool) -> str:
    """Return the thought that looks up whether a fact is so."""
    start = f"{form.replace('_', ' ')}: {resolved_text(device.title, device)}:{facts_text(scene.state[device.name])}, "
    return f"{start}{bound}: {'yes' if is_so else 'no'}"


def starts_with_verb(request: str) -> bool:
    """Return whether a request begins with a verb in its base form."""
    return request.split(" ")[0].lower() in load_phrasings().verbs


def _facts(scene: Scene) -> list[tuple[Device, str, str, str, bool]]:
    """Return facts that may or may not be so: device, property, how people say it, how a thought does, and whether."""
    rng, found = scene.rng, []
    for device in scene.site.devices.values():
        for key, value in scene.state[device.name].items():
            schema = device.properties[key]
            if isinstance(value, bool):
                wanted = rng.random() < 0.5
                clause = _said_fact(scene, device, f"{key} {'yes' if wanted else 'no'}")
                clause = clause or describe(device, key, wanted)
                found.append((device, key, clause, value_text(schema, wanted), value == wanted))
            elif isinstance(value, int | float) and schema.minimum is not None:
                step = usual_step(schema)
                bound = allowed(schema, value + rng.choice((-3, -1, 1, 3)) * step)
                assert isinstance(bound, int | float)
                is_above = rng.random() < 0.5
                more, less = ("above", "over", "more than"), ("below", "under", "less than")
                words = rng.choice(more if is_above else less)
                if schema.unit == "percent" and rng.random() < HALF_SHARE and value != HALF:
                    bound, said = HALF, "half"
                else:
                    said = spoken_value(schema, bound, rng)
                clause = f"the {device.title} {property_title(key, schema)} is {words} {said}"
                clause = _said_fact(scene, device, f"{key} {'above' if is_above else 'below'}", said) or clause
                if bound != value:
                    text = f"{key} {'above' if is_above else 'below'} {number_text(bound)}"
                    found.append((device, key, clause, text, (value > bound) == is_above))
    return found


def _said_fact(scene: Scene, device: Device, form: str, value: str = "") -> str:
    """Return how people say that something is so, mostly; "" otherwise, or where the corpus has no words for it."""
    lines = scene.corpus.forms["facts"].get(form, ())
    if scene.rng.random() > FACT_SHARE or not side(lines, scene.held_out):
        return ""
    said = scene.fill(lines, device, value=value)
    return said.request if said else ""


def plan_correction(scene: Scene) -> Plan | None:
    """Taken back within one breath: another device, another value, or nothing at all."""
    if (found := plain_request(scene)) is None:
        return None
    command, said = found
    device = scene.site.devices[command.device]
    action = device.actions[command.action]
    form = scene.rng.choice(("other_device", "other_device", "other_value", "taken_back", "only"))
    holes, wanted, start, name = {"ask": said.request}, command, "", said.name
    if form == "only":
        if "{device}" not in said.template:
            return None
        form = "only_ask"
    elif form == "other_value":
        if len(action.input) != 1:
            return None
        key, schema = next(iter(action.input.items()))
        value = scene.value_for(schema)
        if value == command.input[key]:
            return None
        holes["value"] = spoken_value(schema, value, scene.rng)
        start, wanted = f"not {value_json(command.input[key])}, ", Command(device.name, command.action, {key: value})
    elif form == "other_device":
        tool = tool_of(command, scene.tools)
        others = [scene.site.devices[one] for one in tool.devices if one != command.device]
        others = [one for one in others if is_plain(one, one.actions[command.action])]
        if not others:
            return None
        other = scene.rng.choice(others)
        name = scene.name_for(other)
        holes["other"] = scene.with_article(name)
        start, wanted = f"not {said.name}, ", Command(other.name, command.action, command.input)
    if (line := scene.line("corrections", form, **holes)) is None:
        return None
    ask, templates = scene.typed(line[0]), (line[1], said.template)
    if form == "taken_back":
        return Plan("taken_back", ask, templates, "taken back, nothing to do.", answer=NOTED)
    return Plan("correction", ask, templates, f"{start}{wanted_text(scene, name, wanted)}.", ((wanted,),))


def plan_many(scene: Scene) -> Plan | None:
    """All of a kind, both, all but one, or two that are named; for sites without areas, where each has its own call."""
    if scene.rng.random() < MIXED_SHARE and (plan := _plan_mixed(scene)):
        return plan
    tools = [one for one in scene.tools if _is_for_many(scene, one)]
    if not tools:
        return None
    tool = scene.rng.choice(tools)
    devices = [scene.site.devices[name] for name in tool.devices]
    form = scene.rng.choice(["all", "list", *(["both"] if len(devices) == 2 else ["except", "except"])])
    first, second = scene.rng.sample(devices, 2)
    names = [scene.name_for(one) for one in (first, second)]
    if (place := scene.place_of(first)) and scene.rng.random() < PLACE_SHARE:  # "all but the porch"
        names[0] = place
    arguments = scene.arguments_for(first, first.actions[tool.action])
    said = _said_of_many(scene, tool, form, [scene.with_article(name) for name in names], arguments)
    if said is None:
        return None
    called = call_text(scene.site, scene.tools, Command(first.name, tool.action, arguments))
    thought, wanted = f"All of {tool.name}({devices_text(tool)})", devices
    if form == "except":
        thought, wanted = (
            f"{thought} but {resolved_text(names[0], first)}",
            [one for one in devices if one is not first],
        )
    if form == "list":
        resolved = [f"{resolved_text(*one)}, {called}" for one in zip(names, (first, second), strict=True)]
        thought, wanted = f"both: {'; '.join(resolved)}", [first, second]
    elif arguments:
        thought += f", {called}"
    commands = tuple(Command(one.name, tool.action, arguments) for one in wanted)
    ask, templates = scene.finish(*said)
    return Plan("many", ask, templates, f"{thought}.", (commands,))


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
    scene: Scene, tool: Tool, form: str, names: list[str], arguments: Mapping[str, Value]
) -> tuple[str, str] | None:
    """Return a request for several devices and its template: a line about groups, or one for a device, put to them."""
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


def plan_chitchat(scene: Scene) -> Plan | None:
    """Talk that wants no action."""
    answers = scene.corpus.small_talk
    template = scene.rng.choice(side(answers, scene.held_out))
    return Plan("small_talk", scene.typed(template), (template,), "Small talk.", answer=answers[template])


def plan_unable(scene: Scene) -> Plan | None:
    """What no device can do, or a thing that is not here."""
    form = scene.rng.choice(("unable", "things"))
    lines = side(scene.corpus.form("not_here", form), scene.held_out)
    template = scene.rng.choice(lines)
    if form == "unable":
        device = scene.rng.choice(list(scene.site.devices.values()))
        name = scene.name_for(device)
        ask, templates = scene.finish(template.format(device=scene.with_article(name)), template)
        thought = f"{resolved_text(name, device)}, no such tool."
        return Plan("unsupported", ask, templates, thought, answer=f"The {device.title} cannot do that.",
                    answer_has=(("cannot", "can't"),))  # fmt: skip
    thing = re.sub(r"^(the|my|a|an) ", "", template)
    known = {word for one in scene.site.devices.values() for called in one.names for word in called.lower().split()}
    if thing.split()[-1].lower() in known or (found := plain_request(scene)) is None:
        return None
    command, _ = found
    device = scene.site.devices[command.device]
    requests = scene.requests_by_name(device, command.action)
    if not requests:
        return None
    shown = scene.shown(device.actions[command.action], command.input)
    ask, templates = scene.finish(scene.rng.choice(requests).format(device=template, **shown), template)
    return Plan("missing_device", ask, templates, f"{thing} is no device.", answer=f"There is no {thing} here.",
                answer_has=(("there is no", "not here", "no device"),))  # fmt: skip

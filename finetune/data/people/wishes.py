"""Plans of wishes that only people have: hints, relative values, "half", taking back, conditions, later, not at all.

Each maker returns None where the site, its state or the corpus offers no such exchange. A thought names the wish first:
what is wanted decides how it goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from devices.site.action import Action
from devices.site.describe import number_text
from devices.site.device import Device
from devices.site.phrasings import SpokenAction, load_phrasings
from devices.site.relative_values import WAYS, allowed, is_off_at_0, usual_step, wished_values, written_property
from devices.site.schema import DataSchema, Value
from devices.site.tools import Command
from edge_agent.wire.contract import call_text
from edge_agent.wire.messages import facts_text
from finetune.data.held_out import side
from finetune.data.people.asks import AskedAction
from finetune.data.people.spoken_values import spoken_value
from finetune.data.scene import Plan, Said, Scene, is_by_name, is_plain, resolved_text, wanted_text

LATER = "I cannot do things later. Ask me again when it is time."
NOTED = "All right."
STEP_SHARE = 0.25  # of "more by" is one step, where a number need not be whole: "half a degree"
STAYS = "All right, the {} stays as it is."
OWN_KIND_SHARE = 0.6  # of what is told of a device is about its kind
TOLD_SHARE = 0.75  # of remarks are told about a device; the others report what somebody did
NEVER_SHARE = 0.4  # of what no device here can do is what no device can
CEASE_SHARE = 0.2  # of hints say that what is so is not wanted
_SAYS_STATE = re.compile(  # "has to stay off", "keep it locked", "I don't want it on", "no need for it"
    r"\b(?:stay(?:s|ed)?|remains?|keep|kept|leave|want|must be|should be|is meant to be)\b.*\b(?:on|off|open|shut"
    r"|closed|locked|bolted|armed|dark|still|quiet|silent|running|up|down)\b|\bno need for\b|\bcan do without\b",
    re.IGNORECASE,
)
_OF_DOING = re.compile(
    r"don't (?!want)|\b(?:hands off|forget|wait|not now|yet|later|until|nobody|touch)\b", re.IGNORECASE
)
OFTEN = {"off": 5, "max": 2, "half": 2}  # ways that people name more than others
OPPOSITE = {
    one: other
    for pair in (("more", "less"), ("max", "min"), ("a_bit_more", "a_bit_less"), ("much_more", "much_less"),
                 ("hints_more", "hints_less"), ("more_by", "less_by"))
    for one, other in (pair, pair[::-1])
}  # fmt: skip
Settable = tuple[Device, str, SpokenAction, str, DataSchema, float]


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
    scene: Scene, item: Settable, way: str, lines: Sequence[str] = (), *, is_it: bool = False
) -> Plan | None:
    """One request for a value named in a way of WAYS, or `more_by` and `less_by`.

    `is_it` says that the device was spoken of before, and is called so; `lines` are then used instead of the corpus's
    for the action, and name no device.
    """
    device, name, action, key, schema, now = item
    asked = way
    if schema.unit == "mired":  # the more mired, the warmer; the corpus means kelvin
        way = OPPOSITE.get(way, way)
    holes: dict[str, str] = {}
    if way in ("more_by", "less_by"):
        amount = scene.rng.choice((1, 1, 2, 3, 5)) * usual_step(schema)
        amount = schema.step if schema.step and schema.step < 1 and scene.rng.random() < STEP_SHARE else amount
        signed = amount if way == "more_by" else -amount
        words = f"{number_text(amount)} {'more' if signed > 0 else 'less'}"
        value = allowed(schema, now + signed)
        holes["amount"] = spoken_value(schema, int(amount) if amount == int(amount) else amount, scene.rng)
    else:
        words = WAYS[way].words
        value = wished_values(now, schema, is_off_at_0=is_off_at_0(action, key))[words]
    if lines:
        template = scene.rng.choice(side(lines, scene.held_out))
        said: Said | None = Said(template.format(**holes), template, "it")
    else:
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
    return (scene.rng.random() < CEASE_SHARE and _cease(scene)) or _hint(scene)


def _cease(scene: Scene) -> Plan | None:
    """What a device does is not wanted: "no need for the fan" where it runs, "keep the door locked" where it is not."""
    choices = []
    for device, name, action in scene.actions():
        lines = [
            one
            for one in scene.corpus.action(device, name).negated
            if _SAYS_STATE.search(one) and not _OF_DOING.search(one)
        ]
        state = scene.state[device.name]
        if action.input or not lines or not state or not action.is_already_so(state, {}):
            continue
        ((key, value), *_) = action.effect({}).items()
        back = [
            other for other, one in device.actions.items() if not one.input and one.effect({}).get(key, value) != value
        ]
        if len(back) == 1 and is_plain(device, device.actions[back[0]]):
            choices.append((device, back[0], lines))
    if not choices:
        return None
    device, name, lines = scene.rng.choice(choices)
    if (said := scene.fill(lines, device)) is None:
        return None
    return _hinted(scene, said, Command(device.name, name, {}), is_wish=False)


def _hinted(scene: Scene, said: Said, command: Command, *, is_wish: bool) -> Plan:
    ask, templates = scene.finish(said.request, said.template, is_wish=is_wish)
    return Plan("hint", ask, templates, f"a hint: {wanted_text(scene, said.name, command)}.", ((command,),))


def _hint(scene: Scene) -> Plan | None:
    picked = _pick(scene, "hints", lambda device, action: is_plain(device, action) and not action.input)
    if picked is None or not scene.state[picked[0].name]:
        return None
    device, name, action = picked
    said = scene.fill(scene.corpus.action(device, name).hints, device)
    if said is None or action.is_already_so(scene.state[device.name], {}):
        return None
    return _hinted(scene, said, Command(device.name, name, {}), is_wish=True)


def plan_negated(scene: Scene) -> Plan | None:
    """What must not be done."""
    found = scene.rng.choice((_of_action, _of_action, _not_asked, _stays))(scene, "negated")
    return found and _left_alone(scene, "negated", *found)


def plan_report(scene: Scene) -> Plan | None:
    """Somebody tells something of a device, or that they did it, and wants nothing."""
    found = _told(scene) if scene.rng.random() < TOLD_SHARE else _of_action(scene, "report")
    return found and _left_alone(scene, "report", *found)


def _left_alone(scene: Scene, key: str, device: Device, said: Said) -> Plan:
    is_remark = key == "report"
    ask, templates = scene.finish(said.request, said.template, is_wish=False)
    thought = f"{'a remark' if is_remark else 'not to be done'}: {resolved_text(said.name, device)}."
    return Plan(key, ask, templates, thought, answer=NOTED if is_remark else STAYS.format(device.title))


def _of_action(scene: Scene, key: str) -> tuple[Device, Said] | None:
    if (picked := _pick(scene, key, lambda device, action: True)) is None:
        return None
    device, name, action = picked
    state = scene.state[device.name]
    if key == "negated" and not action.input and state and action.is_already_so(state, {}):
        return None  # "I don't want any light" wants it off where it is on
    said = scene.fill(getattr(scene.corpus.action(device, name), key), device)
    return (device, said) if said else None


def _not_asked(scene: Scene, _: str) -> tuple[Device, Said] | None:
    """Return a request that is not wanted."""
    if (found := plain_request(scene)) is None or not starts_with_verb(found[1].request):
        return None
    command, said = found
    line = scene.line("negations", "frames", ask=said.request)
    return line and (scene.site.devices[command.device], Said(line[0], line[1], said.name))


def _stays(scene: Scene, _: str) -> tuple[Device, Said] | None:
    device = scene.rng.choice(list(scene.site.devices.values()))
    said = scene.fill(scene.corpus.form("negations", "stays"), device) if scene.state[device.name] else None
    return (device, said) if said else None


def _told(scene: Scene) -> tuple[Device, Said] | None:
    device = scene.rng.choice(list(scene.site.devices.values()))
    told = scene.corpus.forms["told"]
    is_own = scene.rng.random() < OWN_KIND_SHARE and device.kind in told
    said = scene.fill(told[device.kind if is_own else "any"], device)
    return (device, said) if said and scene.state[device.name] else None


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
    command, said = found
    form = scene.rng.choice(("after", "at", "at", "until", "whenever", "nights"))
    time, moment = (scene.line("later", key) for key in ("durations" if form == "after" else "times", "moments"))
    if time is None or moment is None:
        return None
    device = scene.with_article(scene.name_for(scene.site.devices[command.device]))
    line = scene.line("later", form, ask=said.request, time=time[0], moment=moment[0], device=device)
    return line and later_plan(scene, line, said)


def later_plan(scene: Scene, line: tuple[str, str], said: Said) -> Plan:
    """Return what is said to a wish that the box cannot keep in mind. Args: line: as it is said, and its template."""
    return Plan("later", scene.typed(line[0]), (line[1], said.template), "later, not now.", answer=LATER,
                answer_has=(("later",),))  # fmt: skip


def starts_with_verb(request: str) -> bool:
    """Return whether a request begins with a verb in its base form."""
    return request.split(" ")[0].lower() in load_phrasings().verbs


def plan_chitchat(scene: Scene) -> Plan | None:
    """Talk that wants no action."""
    answers = scene.corpus.small_talk
    template = scene.rng.choice(side(answers, scene.held_out))
    return Plan("small_talk", scene.typed(template), (template,), "Small talk.", answer=answers[template])


def plan_unable(scene: Scene) -> Plan | None:
    """What no device can do, or a thing that is not here."""
    form = scene.rng.choices(("unable", "things", "never"), (0.3, 0.3, NEVER_SHARE))[0]
    lines = side(scene.corpus.form("not_here", form), scene.held_out)
    template = scene.rng.choice(lines)
    if form != "things":
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

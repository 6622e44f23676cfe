"""Plans of exchanges: what a person asks in a state of the world, and what the assistant should do.

Each maker returns a Plan, or None where the site or its state offers no such exchange. Plans hold no outcome:
that comes from the real broker when the plan is carried out (conversations.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from devices.describe import describe, number_text, property_title, sentence, value_text
from devices.site import Action, DataSchema, Device, Site, Value
from devices.tools import Command
from edge_agent.wire import json_value
from finetune import phrases
from finetune.random_sites import NOUNS, PLACES

State = dict[str, dict[str, Value]]


@dataclass(frozen=True)
class Plan:
    """What should happen.

    Attributes:
        kind: what the exchange practises.
        ask: what the person says.
        templates: the phrasing templates used.
        thought: the assistant's first thought.
        steps: the commands of each reply in turn; none means that the answer comes at once.
        answer: the answer when there are no steps.
        answer_has: what any good answer contains; each entry lists alternatives.
        broken: devices that do not answer.
        stuck: devices that answer and do not move.
        is_confirmed: whether the person says yes when asked.
    """

    kind: str
    ask: str
    templates: tuple[str, ...]
    thought: str
    steps: tuple[tuple[Command, ...], ...] = ()
    answer: str = ""
    answer_has: tuple[tuple[str, ...], ...] = ()
    broken: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    is_confirmed: bool = False


@dataclass(frozen=True)
class Scene:
    """Where a plan is made: the site, its state now, chance, and the side of the split."""

    site: Site
    state: State
    rng: Random
    held_out: bool

    def actions(self) -> list[tuple[Device, str, Action]]:
        """Return every action that has phrasings on this side of the split."""
        return [
            (device, name, action)
            for device in self.site.devices.values()
            for name, action in device.actions.items()
            if phrases.side(action.say, self.held_out)
        ]

    def spoken(self, device: Device) -> str:
        """Return a name people use for a device."""
        name = self.rng.choice([device.title, device.title, *device.aliases])
        return self.rng.choice(["the {}", "the {}", "the {}", "{}", "my {}"]).format(name)

    def value_for(self, schema: DataSchema) -> Value:
        """Return an allowed value, round numbers more often."""
        if schema.type == "boolean":
            return self.rng.random() < 0.5
        if schema.enum:
            return self.rng.choice(schema.enum)
        assert schema.minimum is not None and schema.maximum is not None
        low, high = int(schema.minimum), int(schema.maximum)
        value = self.rng.randint(low, high)
        return min(max(round(value, -1), low), high) if high - low > 50 and self.rng.random() < 0.6 else value

    def arguments_for(self, action: Action) -> dict[str, Value]:
        """Return allowed values for every argument."""
        return {name: self.value_for(schema) for name, schema in action.input.items()}

    def say(self, device: Device, action: Action, arguments: dict[str, Value]) -> tuple[str, str]:
        """Return a request without its frame, and the template used."""
        template = self.rng.choice(phrases.side(action.say, self.held_out))
        return template.format(device=self.spoken(device), **arguments), template

    def finish(self, request: str, *templates: str) -> tuple[str, tuple[str, ...]]:
        """Put frame and punctuation around a request; return it with all templates used."""
        framed, frames = phrases.frame(request, self.rng, self.held_out)
        return phrases.punctuate(framed, self.rng), (*templates, *frames)


def wanted_text(scene: Scene, device: Device, action: Action, arguments: dict[str, Value]) -> str:
    """Return the thought before a call: what is, what should be, and in which range."""
    effect = action.effect(arguments)
    shown = {name: value for name, value in effect.items() if name in scene.state[device.name]}
    now = " ".join(f"{name}={json_value(scene.state[device.name][name])}" for name in shown)
    wanted = " ".join(f"{name}={json_value(value)}" for name, value in (arguments or effect).items())
    ranges = "".join(f" in {range_text(schema)}" for schema in action.input.values() if schema.minimum is not None)
    return f"{device.name} {'has ' + now if now else 'is unavailable'}, wanted {wanted}{ranges}"


def range_text(schema: DataSchema) -> str:
    """Return a numeric range as the tool signatures write it: `0..100`."""
    return f"{schema.minimum:g}..{schema.maximum:g}"


def _pick(scene: Scene, keep: Callable[[Device, Action], bool]) -> tuple[Device, str, Action] | None:
    choices = [item for item in scene.actions() if keep(item[0], item[2])]
    return scene.rng.choice(choices) if choices else None


def _is_plain(device: Device, action: Action) -> bool:
    return action.risk != "confirm" and not action.requires


def _needed(scene: Scene, keep: Callable[[Device, Action], bool]) -> tuple[Device, Command, Action] | None:
    """Return an action that would change something, with its arguments."""
    for _ in range(8):
        picked = _pick(scene, keep)
        if picked is None:
            return None
        device, name, action = picked
        arguments = scene.arguments_for(action)
        if scene.state[device.name] and not action.is_already_so(scene.state[device.name], arguments):
            return device, Command(device.name, name, arguments), action
    return None


def _act(scene: Scene, kind: str, keep: Callable[[Device, Action], bool], is_confirmed: bool = False) -> Plan | None:
    needed = _needed(scene, keep)
    if needed is None:
        return None
    device, command, action = needed
    request, template = scene.say(device, action, command.input)
    ask, templates = scene.finish(request, template)
    thought = wanted_text(scene, device, action, command.input) + "."
    return Plan(kind, ask, templates, thought, ((command,),), is_confirmed=is_confirmed)


def plan_call(scene: Scene) -> Plan | None:
    """One action that changes something."""
    return _act(scene, "call", _is_plain)


def plan_interlocked(scene: Scene) -> Plan | None:
    """An action under an interlock: it is proposed, and the broker decides."""
    return _act(scene, "policy", lambda device, action: bool(action.requires))


def plan_confirmed(scene: Scene) -> Plan | None:
    """An action that needs a person's yes, with and without it."""
    return _act(scene, "confirmation", lambda device, action: action.risk == "confirm", scene.rng.random() < 0.5)


def plan_failed(scene: Scene) -> Plan | None:
    """An action whose device is stuck or does not answer."""
    plan = _act(scene, "failure", _is_plain)
    if plan is None:
        return None
    command = plan.steps[0][0]
    if scene.rng.random() < 0.7:
        if scene.site.devices[command.device].actions[command.action].ends and scene.state[command.device].get("open"):
            return None
        return _with(plan, stuck=(command.device,))
    blind = Scene(scene.site, scene.state | {command.device: {}}, scene.rng, scene.held_out)
    device = scene.site.devices[command.device]
    thought = wanted_text(blind, device, device.actions[command.action], command.input) + "."
    return _with(plan, broken=(command.device,), thought=thought)


def _with(plan: Plan, **changes: object) -> Plan:
    return Plan(**{**plan.__dict__, **changes})  # type: ignore[arg-type]


def _two_actions(scene: Scene) -> list[tuple[Device, Command, Action]] | None:
    first, second = _needed(scene, _is_plain), _needed(scene, _is_plain)
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
        if not action.input and _is_plain(device, action) and scene.state[device.name]:
            groups.setdefault((device.kind, name), []).append(device)
    choices = [(key, devices) for key, devices in groups.items() if len(devices) > 1 and key[0] in PLURALS]
    if not choices:
        return None
    (kind, name), devices = scene.rng.choice(choices)
    singular, plural, verbs = PLURALS[kind]
    verb = next((words for action, words in verbs.items() if name == action), "")
    if not verb or len(devices) > 6:
        return None
    template = scene.rng.choice(phrases.side(phrases.GROUPS["all"], scene.held_out))
    ask = phrases.punctuate(template.format(verb=verb, singular=singular, plural=plural), scene.rng)
    needed = [one for one in devices if not one.actions[name].is_already_so(scene.state[one.name], {})]
    facts = [" ".join([one.name, *_goal_facts(scene, one, name)]) for one in devices]
    if not needed:
        answer = f"All {plural} are already {_goal_label(devices[0], name)}."
        return Plan("already", ask, (template,), "; ".join(facts) + ", all so.", answer=answer, answer_has=(("already",),))
    thought = f"{'; '.join(facts)}. {len(needed)} to change."
    return Plan("group", ask, (template,), thought, (tuple(Command(one.name, name, {}) for one in needed),))


PLURALS = {
    "light": ("light", "lights", {"on": "turn on", "off": "turn off"}),
    "cover": ("cover", "covers", {"open": "open", "close": "close"}),
}


def _goal_facts(scene: Scene, device: Device, action: str) -> list[str]:
    key = next(iter(device.actions[action].effect({})))
    return [f"{key}={json_value(scene.state[device.name][key])}"]


def _goal_label(device: Device, action: str) -> str:
    key, value = next(iter(device.actions[action].effect({}).items()))
    return value_text(device.properties[key], value)


def plan_already(scene: Scene) -> Plan | None:
    """A request for what is already so: no call."""
    choices = []
    for device, name, action in scene.actions():
        state = scene.state[device.name]
        if not state or action.ends:
            continue
        arguments: dict[str, Value] = {key: state[key] for key in action.input if key in state}
        fits = all(key in arguments and not schema.problem_with(arguments[key]) for key, schema in action.input.items())
        if fits and action.is_already_so(state, arguments):
            choices.append((device, name, action, arguments))
    if not choices:
        return None
    device, _, action, arguments = scene.rng.choice(choices)
    said = {key: number_text(float(value)) for key, value in arguments.items()}
    request, template = scene.say(device, action, said)
    ask, templates = scene.finish(request, template)
    key, value = next(iter((arguments or action.already or action.effect({})).items()))
    clause = describe(device, key, value).replace(" is ", " is already ", 1)
    thought = wanted_text(scene, device, action, arguments) + ", already so."
    return Plan("already", ask, templates, thought, answer=sentence(clause), answer_has=(("already",),))


def plan_out_of_range(scene: Scene) -> Plan | None:
    """A value the device does not take: say the range."""
    picked = _pick(scene, lambda device, action: any(schema.minimum is not None for schema in action.input.values()))
    if picked is None:
        return None
    device, _, action = picked
    key, schema = next((key, schema) for key, schema in action.input.items() if schema.minimum is not None)
    assert schema.minimum is not None and schema.maximum is not None
    low, high, rng = int(schema.minimum), int(schema.maximum), scene.rng
    span = max(high - low, 5)
    above, below = rng.randint(high + 1, high + span), rng.randint(max(0, low - span), max(low - 1, 0))
    value: Value = below if low > 0 and rng.random() < 0.3 else above
    request, template = scene.say(device, action, scene.arguments_for(action) | {key: value})
    ask, templates = scene.finish(request, template)
    side = "above" if float(value) > high else "below"
    thought = f"{device.name} wanted {key}={value}, {side} {range_text(schema)}."
    unit = f" {schema.unit}" if schema.unit else ""
    answer = f"The {device.title} takes {low} to {high}{unit}."
    return Plan("out_of_range", ask, templates, thought, answer=answer, answer_has=((str(low),), (str(high),)))


def plan_missing_argument(scene: Scene) -> Plan | None:
    """A request without its value: ask back."""
    choices = [
        item for item in scene.actions() if phrases.side(item[2].say_without, scene.held_out) and item[2].title
    ]
    if not choices:
        return None
    device, _, action = scene.rng.choice(choices)
    template = scene.rng.choice(phrases.side(action.say_without, scene.held_out))
    ask, templates = scene.finish(template.format(device=scene.spoken(device)), template)
    key, schema = next(iter(action.input.items()))
    thought = f"{device.name} wanted {key} missing."
    answer = f"Which {action.title} for the {device.title}, {number_text(schema.minimum or 0)} to {number_text(schema.maximum or 0)}?"
    return Plan("missing_argument", ask, templates, thought, answer=answer, answer_has=(("?",),))


def plan_missing_device(scene: Scene) -> Plan | None:
    """A request about a device that is not here."""
    known = {word for device in scene.site.devices.values() for word in (device.title, *device.aliases)}
    model = scene.rng.choice(list(NOUNS))
    name = f"{scene.rng.choice(PLACES)} {scene.rng.choice(NOUNS[model])}"
    picked = _pick(scene, lambda device, action: True)
    if name in known or picked is None or any(set(name.split()) == set(word.split()) for word in known):
        return None
    _, _, action = picked
    spoken = scene.rng.choice(["the {}", "the {}", "{}", "my {}"]).format(name)
    if scene.rng.random() < 0.75:
        template = scene.rng.choice(phrases.side(action.say, scene.held_out))
        request = template.format(device=spoken, **scene.arguments_for(action))
    else:
        template = scene.rng.choice(phrases.side(phrases.QUESTIONS_STATUS, scene.held_out))
        request = template.format(device=spoken)
    ask, templates = scene.finish(request, template)
    answer, has = f"There is no {name} here.", (("there is no", "not here", "no device"),)
    return Plan("missing_device", ask, templates, f"No device is {name}.", answer=answer, answer_has=has)


def plan_unsupported(scene: Scene) -> Plan | None:
    """A device that is here but cannot do what is asked."""
    picked = _pick(scene, lambda device, action: not action.input)
    sensors = [device for device in scene.site.devices.values() if picked and device.kind != picked[0].kind]
    if picked is None or not sensors:
        return None
    device, (other, _, action) = scene.rng.choice(sensors), picked
    written = set(action.writes)
    if any(written & set(own.writes) for own in device.actions.values()) or "switch" in {device.kind, other.kind}:
        return None
    if any(set(phrases.side(own.say, False)) & set(phrases.side(action.say, False)) for own in device.actions.values()):
        return None
    request, template = scene.say(device, action, {})
    ask, templates = scene.finish(request, template)
    answer = f"The {device.title} cannot do that."
    thought = f"{device.name} has no such tool."
    return Plan("unsupported", ask, templates, thought, answer=answer, answer_has=(("cannot", "can't"),))


def plan_question(scene: Scene) -> Plan | None:
    """A question about the state: answered from the prompt, never by acting."""
    device = scene.rng.choice(list(scene.site.devices.values()))
    state = scene.state[device.name]
    if not state:
        return None
    key = scene.rng.choice(list(device.properties))
    schema, value = device.properties[key], state[key]
    fact = f"{device.name} {key}={json_value(value)}."
    if scene.rng.random() < 0.25:
        return _status_question(scene, device)
    if isinstance(value, bool):
        label = schema.labels.get(scene.rng.random() < 0.5, "on")
        is_yes = schema.labels.get(value) == label
        template = scene.rng.choice(phrases.side(phrases.QUESTIONS_YES_NO, scene.held_out))
        ask = template.format(device=scene.spoken(device), label=label)
        answer = f"{'Yes' if is_yes else 'No'}, {describe(device, key, value)}."
        has = ((f"is {value_text(schema, value)}", "yes" if is_yes else "no,"),)
        thought = f"Question. {fact}"
    else:
        template = scene.rng.choice(phrases.side(phrases.QUESTIONS_VALUE, scene.held_out))
        ask = template.format(device=scene.spoken(device), property=property_title(key, schema))
        answer, has = sentence(describe(device, key, value)), ((f" {number_text(float(value))} ", f" {number_text(float(value))}."),)
        thought = f"Question. {fact}"
    return Plan("question", phrases.punctuate(ask, scene.rng), (template,), thought, answer=answer, answer_has=has)


def _status_question(scene: Scene, device: Device) -> Plan:
    state = scene.state[device.name]
    template = scene.rng.choice(phrases.side(phrases.QUESTIONS_STATUS, scene.held_out))
    ask = phrases.punctuate(template.format(device=scene.spoken(device)), scene.rng)
    facts = " ".join(f"{key}={json_value(value)}" for key, value in state.items())
    answer = sentence(*(describe(device, key, value) for key, value in state.items()))
    has = tuple((value_text(device.properties[key], value),) for key, value in state.items())
    return Plan("question", ask, (template,), f"Question. {device.name} {facts}.", answer=answer, answer_has=has)


def plan_small_talk(scene: Scene) -> Plan | None:
    """Talk that wants no action."""
    answer = scene.rng.choice(list(phrases.SMALL_TALK))
    template = scene.rng.choice(phrases.side(phrases.SMALL_TALK[answer], scene.held_out))
    return Plan("small_talk", phrases.punctuate(template, scene.rng), (template,), "Small talk.", answer=answer)


MAKERS: dict[str, tuple[float, Callable[[Scene], Plan | None]]] = {
    "call": (0.30, plan_call),
    "several": (0.07, plan_several),
    "in_order": (0.06, plan_in_order),
    "group": (0.05, plan_group),
    "question": (0.15, plan_question),
    "already": (0.08, plan_already),
    "out_of_range": (0.06, plan_out_of_range),
    "missing_argument": (0.05, plan_missing_argument),
    "missing_device": (0.06, plan_missing_device),
    "unsupported": (0.03, plan_unsupported),
    "policy": (0.03, plan_interlocked),
    "confirmation": (0.04, plan_confirmed),
    "failure": (0.04, plan_failed),
    "small_talk": (0.05, plan_small_talk),
}

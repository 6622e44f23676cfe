"""Plans in which nothing is to be done: questions, what cannot be, what is missing, small talk.

Each maker returns None where the site or its state offers no such exchange.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from devices.site.describe import answers_about, describe, number_text, property_title, sentence, value_text
from devices.site.device import Device
from devices.site.phrasings import load_phrasings
from devices.site.schema import DataSchema, Value
from devices.site.tools import Command, call_of
from edge_agent.wire.contract import bounds_text
from edge_agent.wire.messages import facts_text
from finetune.data import phrases
from finetune.data.held_out import side
from finetune.data.people.spoken_values import round_times
from finetune.data.random_sites import random_name
from finetune.data.scene import Plan, Said, Scene, pick, resolved_text, wanted_text

RECITED = (2, 4)  # devices of a recital
ROUND_ABOVE_SHARE = 0.3  # of durations above the range are round
HALF_KNOWN_SHARE = 0.5  # of the devices that are not here


def plan_out_of_range(scene: Scene) -> Plan | None:
    """A value the device does not take: say the range."""
    picked = pick(scene, lambda device, action: any(schema.minimum is not None for schema in action.input.values()))
    if picked is None:
        return None
    device, name, action = picked
    key, schema = next((key, schema) for key, schema in action.input.items() if schema.minimum is not None)
    assert schema.minimum is not None and schema.maximum is not None
    low, high, rng = int(schema.minimum), int(schema.maximum), scene.rng
    span = max(high - low, 5)
    above, below = rng.randint(high + 1, high + span), rng.randint(max(0, low - span), max(low - 1, 0))
    value: Value = below if low > 0 and rng.random() < 0.3 else above
    if (
        scene.asks
        and (times := [one for one in round_times(schema) if one > high])
        and rng.random() < ROUND_ABOVE_SHARE
    ):
        value = rng.choice(times)
    command = Command(device.name, name, scene.arguments_for(device, action) | {key: value})
    said = scene.say(device, action, command.input)
    ask, templates = scene.finish(said.request, said.template)
    names = list(command.input)
    tried = {one: command.input[one] for one in names[: names.index(key) + 1]}  # the rest is not looked at
    wanted = wanted_text(scene, said.name, Command(device.name, name, tried))
    thought = f"{wanted}, {'above' if float(value) > high else 'below'}."
    unit = f" {schema.unit}" if schema.unit else ""
    low_text, high_text = number_text(schema.minimum), number_text(schema.maximum)
    answer = f"The {device.title} takes {low_text} to {high_text}{unit}."
    return Plan("out_of_range", ask, templates, thought, answer=answer, answer_has=((low_text,), (high_text,)))


def plan_missing_argument(scene: Scene) -> Plan | None:
    """A request without its value: ask back."""
    choices = [
        (device, name, action)
        for device, name, action in scene.actions()
        if action.title and side(scene.requests_without(device, name), scene.held_out)
    ]
    if not choices:
        return None
    device, name, action = scene.rng.choice(choices)
    key, schema = next(iter(action.input.items()))
    sets_property = action.writes.get(key) == f"${key}"
    changes = phrases.load_templates().changes if sets_property else ()
    named = (template.replace("{property}", action.title) for template in changes)
    said = scene.say_as((*scene.requests_without(device, name), *named), device)
    ask, templates = scene.finish(said.request, said.template)
    tool = call_of(Command(device.name, name, {}), scene.tools).name
    thought = f"{resolved_text(said.name, device)}, {tool} {key} missing{bounds_text(key, schema)}."
    low, high = number_text(schema.minimum or 0), number_text(schema.maximum or 0)
    answer = f"Which {action.title} for the {device.title}, {low} to {high}?"
    asked = Command(device.name, name, {})
    return Plan("missing_argument", ask, templates, thought, answer=answer, answer_has=(("?",),), asked=asked)


def plan_missing_device(scene: Scene) -> Plan | None:
    """A request about a device that is not here."""
    known = [set(called.lower().split()) for device in scene.site.devices.values() for called in device.names]
    words = list(random_name(scene.rng, scene.rng.choice(list(load_phrasings().nouns))))
    if not scene.held_out and scene.rng.random() < HALF_KNOWN_SHARE:  # in training, more often nearly a device's name
        near = scene.rng.choice(list(scene.site.devices.values())).title.split()
        at = scene.rng.randrange(2)
        words[at] = near[-at]
    name = " ".join(words)
    picked = pick(scene, lambda device, action: True)
    if picked is None or set(name.lower().split()) in known:
        return None
    other, name_of, action = picked
    spoken = scene.with_article(name)
    if scene.rng.random() < 0.75:
        usable = scene.requests_by_name(other, name_of)
        if not usable:
            return None
        template = scene.rng.choice(usable)
        worded = scene.worded(template)
        request = worded.format(device=spoken, **scene.shown(action, scene.arguments_for(other, action)))
    else:
        template = scene.rng.choice(side(phrases.load_templates().questions.status, scene.held_out))
        request = scene.worded(template).format(device=spoken)
    ask, templates = scene.finish(request, template)
    answer, has = f"There is no {name} here.", (("there is no", "not here", "no device"),)
    return Plan("missing_device", ask, templates, f"{name} is no device.", answer=answer, answer_has=has)


def plan_unsupported(scene: Scene) -> Plan | None:
    """A device that is here but cannot do what is asked."""
    picked = pick(scene, lambda device, action: not action.input or scene.asks is not None)
    sensors = [device for device in scene.site.devices.values() if picked and device.kind != picked[0].kind]
    if picked and picked[2].input:  # "set it to 40" is no wrong request where something can be set
        sensors = [one for one in sensors if not any(own.input for own in one.actions.values())]
    if picked is None or not sensors:
        return None
    device, (other, name, action) = scene.rng.choice(sensors), picked
    written = set(action.writes)
    if any(written & set(own.writes) for own in device.actions.values()) or any(map(_is_anything, (device, other))):
        return None
    wanted = set(side(action.requests, False))
    if any(wanted & set(side(own.requests, False)) for own in device.actions.values()):
        return None
    by_name = scene.requests_by_name(other, name)
    if not by_name:
        return None
    said = scene.say_as(by_name, device, **scene.shown(action, scene.arguments_for(other, action)))
    ask, templates = scene.finish(said.request, said.template)
    answer = f"The {device.title} cannot do that."
    thought = f"{resolved_text(said.name, device)}, no such tool."
    return Plan("unsupported", ask, templates, thought, answer=answer, answer_has=(("cannot", "can't"),))


def _is_anything(device: Device) -> bool:
    found = load_phrasings().kinds.get(device.kind)
    return found is not None and found.is_anything


def plan_question(scene: Scene) -> Plan | None:
    """A question about the state: answered from the prompt, never by acting."""
    device = scene.rng.choice(list(scene.site.devices.values()))
    state, questions = scene.state[device.name], phrases.load_templates().questions
    if not state:
        return None
    if scene.rng.random() < 0.25:
        said = scene.say_as(questions.status, device)
        return _question(scene, device, said, list(state))
    key = scene.rng.choice(list(device.properties))
    schema = device.properties[key]
    if isinstance(state[key], bool) and not schema.title:
        label = schema.labels.get(scene.rng.random() < 0.5, "on")
        return _question(scene, device, scene.say_as(questions.yes_no, device, label=label), [key])
    said = scene.say_as(questions.value, device, property=property_title(key, schema))
    return _question(scene, device, said, [key])


def _question(scene: Scene, device: Device, said: Said, keys: list[str]) -> Plan:
    """Return a question about properties: the thought has all of the device's, the answer those asked for."""
    state = scene.state[device.name]
    thought = _facts_text(scene, said.name, device) + "."
    answer = answer_about(device, state, keys)
    has = tuple(told_of(answer, _words_for(device.properties[key], state[key])) for key in keys)
    plain = (scene.typed(said.request), (said.template,))
    ask, templates = scene.finish(said.request, said.template) if scene.is_loose() else plain
    return Plan("question", ask, templates, thought, answer=answer, answer_has=has)


def answer_about(device: Device, state: Mapping[str, Value], keys: Sequence[str]) -> str:
    """Return what answers a question about one property of a device, or about all; all of it if that is short."""
    answers = answers_about(device, state)
    if len(answers) == 1 or len(keys) > 1:
        return answers[-1]
    return sentence(describe(device, keys[0], state[keys[0]]))


def told_of(answer: str, words: tuple[str, ...]) -> tuple[str, ...]:
    """Return how an answer may name a value: with some words, or if it is not told, because the device is off, so."""
    return words if any(one in answer for one in words) else (" off ", " off.", " off,")


def plan_recital(scene: Scene) -> Plan | None:
    """The state of several devices at once, in training only: practice in finding each line by its name."""
    devices = [device for device in scene.site.devices.values() if scene.state[device.name]]
    if scene.held_out or len(devices) < RECITED[1]:
        return None
    chosen = scene.rng.sample(devices, scene.rng.randint(*RECITED))
    names = [scene.name_for(device) for device in chosen]
    *spoken, last = map(scene.with_article, names)
    template = scene.rng.choice(side(phrases.load_templates().questions.status, held_out=False))
    ask, templates = scene.finish(template.format(device=f"{', '.join(spoken)} and {last}"), template)
    thoughts = [_facts_text(scene, name, device) for name, device in zip(names, chosen, strict=True)]
    states = [scene.state[device.name] for device in chosen]
    answer = " ".join(answer_about(one, state, list(state)[:1]) for one, state in zip(chosen, states, strict=True))
    return Plan("recital", ask, templates, "; ".join(thoughts) + ".", answer=answer)


def _facts_text(scene: Scene, name: str, device: Device) -> str:
    """Return the thought that finds a device's line in the state."""
    return f"{resolved_text(name, device)}:{facts_text(scene.state[device.name])}"


def _words_for(schema: DataSchema, value: Value) -> tuple[str, ...]:
    level = schema.level_of(value)
    texts = (value_text(schema, value).removesuffix(f" ({level})"), *((level,) if level else ()))
    return tuple(f" {text}{end}" for text in texts for end in (" ", ".", ","))


def plan_small_talk(scene: Scene) -> Plan | None:
    """Talk that wants no action."""
    talk = phrases.load_templates().small_talk
    answer = scene.rng.choice(list(talk))
    template = scene.rng.choice(side(talk[answer], scene.held_out))
    return Plan("small_talk", phrases.punctuate(template, scene.rng), (template,), "Small talk.", answer=answer)

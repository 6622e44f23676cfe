"""Plans in which nothing is to be done: questions, what is already so, what cannot be, what is missing, small talk.

Each maker returns None where the site or its state offers no such exchange.
"""

from __future__ import annotations

from devices.describe import describe, number_text, property_title, sentence, value_text
from devices.site import Device, Value
from edge_agent.wire import json_value
from finetune import phrases
from finetune.random_sites import NOUNS, PLACES
from finetune.scene import Plan, Scene, pick, wanted_text


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
    picked = pick(scene, lambda device, action: any(schema.minimum is not None for schema in action.input.values()))
    if picked is None:
        return None
    device, _, action = picked
    key, schema = next((key, schema) for key, schema in action.input.items() if schema.minimum is not None)
    assert schema.minimum is not None and schema.maximum is not None
    low, high, rng = int(schema.minimum), int(schema.maximum), scene.rng
    span = max(high - low, 5)
    above, below = rng.randint(high + 1, high + span), rng.randint(max(0, low - span), max(low - 1, 0))
    value: Value = below if low > 0 and rng.random() < 0.3 else above
    arguments = scene.arguments_for(action) | {key: value}
    request, template = scene.say(device, action, arguments)
    ask, templates = scene.finish(request, template)
    thought = f"{wanted_text(scene, device, action, arguments)}, {'above' if float(value) > high else 'below'}."
    unit = f" {schema.unit}" if schema.unit else ""
    answer = f"The {device.title} takes {low} to {high}{unit}."
    return Plan("out_of_range", ask, templates, thought, answer=answer, answer_has=((str(low),), (str(high),)))


def plan_missing_argument(scene: Scene) -> Plan | None:
    """A request without its value: ask back."""
    choices = [item for item in scene.actions() if phrases.side(item[2].say_without, scene.held_out) and item[2].title]
    if not choices:
        return None
    device, _, action = scene.rng.choice(choices)
    template = scene.rng.choice(phrases.side(action.say_without, scene.held_out))
    ask, templates = scene.finish(template.format(device=scene.spoken(device)), template)
    key, schema = next(iter(action.input.items()))
    thought = f"{device.name} wanted {key} missing."
    low, high = number_text(schema.minimum or 0), number_text(schema.maximum or 0)
    answer = f"Which {action.title} for the {device.title}, {low} to {high}?"
    return Plan("missing_argument", ask, templates, thought, answer=answer, answer_has=(("?",),))


def plan_missing_device(scene: Scene) -> Plan | None:
    """A request about a device that is not here."""
    known = {word for device in scene.site.devices.values() for word in (device.title, *device.aliases)}
    model = scene.rng.choice(list(NOUNS))
    name = f"{scene.rng.choice(PLACES)} {scene.rng.choice(NOUNS[model])}"
    picked = pick(scene, lambda device, action: True)
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
    picked = pick(scene, lambda device, action: not action.input)
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
        answer, has = (
            sentence(describe(device, key, value)),
            ((f" {number_text(float(value))} ", f" {number_text(float(value))}."),),
        )
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

"""Plans of wishes that hang on what is so now: "if it's below 19 in the hall, ...", "unless", "otherwise"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from devices.site.describe import describe, number_text, property_title, sentence, value_text
from devices.site.device import Device
from devices.site.relative_values import allowed, usual_step
from devices.site.tools import Command
from edge_agent.wire.messages import facts_text
from finetune.data.held_out import side
from finetune.data.people.spoken_values import spoken_value
from finetune.data.people.wishes import later_plan, plain_request, starts_with_verb
from finetune.data.scene import (
    Plan,
    Said,
    Scene,
    resolved_text,
    wanted_text,
)

OTHERWISE_SHARE, OTHER_VALUE_SHARE = 0.2, 0.3  # of conditions; of those want the same with another value
OWN_FACT_SHARE = 0.35  # of conditions are about the device itself: "if it's below 19 in the hall, heating to 22"
IT_SHARE = 0.6  # of those name it once
FACT_SHARE = 0.75  # of facts are said in people's words
WHENEVER_SHARE = 0.12  # of conditions are for each time that they come to hold
STATE_SHARE = 0.4  # of facts about a number that has a state at its end are about that: "if the garage is open"
HALF, HALF_SHARE = 50, 0.15  # of bounds in percent: "more than half full"


@dataclass(frozen=True)
class Fact:
    """What may or may not be so of a property: how people say it, how a thought does, and whether it is."""

    device: Device
    key: str
    said: Said
    thought: str
    is_so: bool


def plan_condition(scene: Scene) -> Plan | None:
    """A wish that holds only if something is so now, or another one where it is not."""
    if (found := plain_request(scene)) is None:
        return None
    command, said = found
    facts = [fact for fact in _facts(scene) if not _is_changed(scene, command, fact)]
    own = [fact for fact in facts if fact.device.name == command.device]
    facts = own if own and scene.rng.random() < OWN_FACT_SHARE else facts
    if not facts:
        return None
    fact = scene.rng.choice(facts)
    device = fact.device
    if scene.rng.random() < OTHERWISE_SHARE:
        other = _other_value(scene, found) if scene.rng.random() < OTHER_VALUE_SHARE else plain_request(scene)
        if other and other[0] != command and (other[0].device == command.device or other[0].device != device.name):
            return _otherwise(scene, fact, found, other)
    if scene.rng.random() < WHENEVER_SHARE:
        rule = scene.line("conditions", "whenever", ask=said.request, fact=fact.said.request)
        return rule and later_plan(scene, rule, said)
    form = scene.rng.choice(("if", "if", "unless", "only_if"))
    forms = (form, f"{form}_verb_first") if starts_with_verb(said.request) else (form,)
    if (line := scene.line("conditions", *forms, ask=said.request, fact=fact.said.request)) is None:
        return None
    request, name = line[0], said.name
    if device.name == command.device and scene.rng.random() < IT_SHARE:
        request = _second_as_it(request, device)
        if request != line[0] and line[1].index("{fact}") < line[1].index("{ask}"):
            name = "it"
        elif request != line[0]:
            fact = replace(fact, said=replace(fact.said, name="it"))
    start = _looked_up(scene, form, fact)
    ask, templates = scene.typed(request), (line[1], said.template)
    if fact.is_so != (form == "unless"):
        thought = f"{start}; {wanted_text(scene, name, command)}."
        return Plan("condition", ask, templates, thought, ((command,),))
    answer = sentence(describe(device, fact.key, scene.state[device.name][fact.key])) + " So I did nothing."
    return Plan("condition", ask, templates, f"{start}, nothing to do.", answer=answer)


def _is_changed(scene: Scene, command: Command, fact: Fact) -> bool:
    """Return whether a command is about what a fact says, other than to end that: "turn it off if it is on"."""
    device = fact.device
    written = device.actions[command.action].writes.get(fact.key) if device.name == command.device else None
    is_ended = isinstance(written, bool) and fact.thought != value_text(device.properties[fact.key], written)
    return written is not None and not is_ended


def _other_value(scene: Scene, found: tuple[Command, Said]) -> tuple[Command, Said] | None:
    """Return the same wish with another value: "otherwise set it to 21"."""
    command, _ = found
    device = scene.site.devices[command.device]
    action = device.actions[command.action]
    requests = scene.requests_by_name(device, command.action)
    arguments = scene.arguments_for(device, action)
    if not requests or arguments == command.input:
        return None
    template = scene.rng.choice(requests)
    request = template.format(device="it", **scene.shown(action, arguments))
    return Command(device.name, command.action, arguments), Said(request, template, "it")


def _second_as_it(text: str, device: Device) -> str:
    """Return a request with the second name of a device as "it"."""
    names = "|".join(map(re.escape, sorted(device.names, key=len, reverse=True)))
    named = list(re.finditer(rf"(?<!\w)(?:(?:the|my) )?(?:{names})(?!['\w])", text))
    return f"{text[: named[1].start()]}it{text[named[1].end() :]}" if len(named) == 2 else text


def _otherwise(scene: Scene, fact: Fact, then: tuple[Command, Said], other: tuple[Command, Said]) -> Plan | None:
    """One of two wishes, by what is so."""
    line = scene.line("conditions", "otherwise", ask=then[1].request, other=other[1].request, fact=fact.said.request)
    if line is None:
        return None
    command, said = then if fact.is_so else other
    thought = f"{_looked_up(scene, 'if or else', fact)}; {wanted_text(scene, said.name, command)}."
    templates = (line[1], then[1].template, other[1].template)
    return Plan("condition", scene.typed(line[0]), templates, thought, ((command,),))


def _looked_up(scene: Scene, form: str, fact: Fact) -> str:
    """Return the thought that looks up whether a fact is so."""
    device, name = fact.device, fact.said.name
    start = f"{form.replace('_', ' ')}: {resolved_text(name, device)}:{facts_text(scene.state[device.name])}, "
    return f"{start}{fact.thought}: {'yes' if fact.is_so else 'no'}"


def _facts(scene: Scene) -> list[Fact]:
    """Return facts that may or may not be so."""
    rng, found = scene.rng, []
    for device in scene.site.devices.values():
        for key, value in scene.state[device.name].items():
            schema = device.properties[key]
            if isinstance(value, bool):
                wanted = rng.random() < 0.5
                said = _said_fact(scene, device, f"{key} {'yes' if wanted else 'no'}")
                said = said or Said(describe(device, key, wanted), "", device.title)
                found.append(Fact(device, key, said, value_text(schema, wanted), value == wanted))
            elif schema.minimum in schema.states.values() and rng.random() < STATE_SHARE:
                found += _state_facts(scene, device, key)
            elif isinstance(value, int | float) and schema.minimum is not None:
                step = usual_step(schema)
                bound = allowed(schema, value + rng.choice((-3, -1, 1, 3)) * step)
                assert isinstance(bound, int | float)
                is_above = rng.random() < 0.5
                more, less = ("above", "over", "more than"), ("below", "under", "less than")
                words = rng.choice(more if is_above else less)
                if schema.unit == "percent" and rng.random() < HALF_SHARE and value != HALF:
                    bound, number = HALF, "half"
                else:
                    number = spoken_value(schema, bound, rng)
                plain = f"the {device.title} {property_title(key, schema)} is {words} {number}"
                said = _said_fact(scene, device, f"{key} {'above' if is_above else 'below'}", number)
                if bound != value:
                    text = f"{key} {'above' if is_above else 'below'} {number_text(bound)}"
                    is_so = (value > bound) == is_above
                    found.append(Fact(device, key, said or Said(plain, "", device.title), text, is_so))
    return found


def _state_facts(scene: Scene, device: Device, key: str) -> list[Fact]:
    """Return the fact that a number is, or is not, at its least, where the device is closed or off."""
    schema, value = device.properties[key], scene.state[device.name][key]
    assert schema.minimum is not None and isinstance(value, int | float)
    is_least = scene.rng.random() < 0.5
    boolean = {"closed": "open", "off": "running"}.get(schema.state_of(schema.minimum))
    least = f"{key} below {number_text(schema.minimum + 1)}"
    text = least if is_least else f"{key} above {number_text(schema.minimum)}"
    if boolean is None or (said := _said_fact(scene, device, f"{boolean} {'no' if is_least else 'yes'}")) is None:
        return []
    return [Fact(device, key, said, text, (value == schema.minimum) == is_least)]


def _said_fact(scene: Scene, device: Device, form: str, value: str = "") -> Said | None:
    """Return how people say that something is so, mostly; None otherwise, or where the corpus has no words for it."""
    lines = scene.corpus.forms["facts"].get(form, ())
    if scene.rng.random() > FACT_SHARE or not side(lines, scene.held_out):
        return None
    return scene.fill(lines, device, value=value)

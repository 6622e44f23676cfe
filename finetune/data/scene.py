"""Plans of exchanges, and the scenes in which they are made: a site, its state, chance, a side of the split.

A plan holds no outcome: that comes from the real broker when the plan is carried out (generator.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from devices.site.action import Action
from devices.site.device import Device
from devices.site.phrasings import SpokenAction, load_phrasings
from devices.site.schema import DataSchema, Value
from devices.site.site import Site
from devices.site.tools import Command, Tool, ToolCall
from edge_agent.evaluation.cases import State
from edge_agent.grammar.thought_guide import SMALL_WORDS
from edge_agent.wire.contract import call_text
from finetune.data import phrases
from finetune.data.held_out import side
from finetune.data.people.asks import Asks
from finetune.data.people.frames import framed
from finetune.data.people.spoken_values import round_times, spoken_value
from finetune.data.people.typing import as_typed

KNOWN_SHARE = 0.8
HOLE = re.compile(r"{(\w+)}")
ROOMS = {  # first words of devices' names that are not a place by themselves; "" if they are none at all
    **{word: f"{word} room" for word in ("living", "dining", "guest", "meeting", "boiler", "storage", "server")},
    **dict.fromkeys("north south east west upper lower main side front back stair loading".split(), ""),
}
ALIAS_PLACES = ("lawn",)  # no device of a random site is named after these
LEVEL_SHARE = 0.6  # of values that have levels are one, and of those so many are said by its name
LOOSE_SHARE = 0.45  # of the templates of a training conversation
ROUND_TIME_SHARE = 0.3  # of seconds and minutes are what people say as minutes and hours
HALF_STEP_SHARE = 0.12  # of numbers that need not be whole
NAME_SLIP_SHARE = 0.5  # of slips of the finger may be in a device's name


@dataclass(frozen=True)
class Plan:
    """What should happen.

    Attributes:
        kind: what the exchange practises.
        ask: what the person says.
        templates: the phrasing templates used.
        thought: the assistant's first thought.
        steps: the commands of each reply in turn, or calls for several devices; none means that the answer comes at
            once.
        answer: the answer when there are no steps.
        answer_has: what any good answer contains; each entry lists alternatives.
        broken: devices that do not answer.
        stuck: devices that answer and do not move.
        is_confirmed: whether the person says yes when asked.
        asked: what a value was asked back for, as a command without it.
        then: what comes after, where the answer is a question.
    """

    kind: str
    ask: str
    templates: tuple[str, ...]
    thought: str
    steps: tuple[tuple[Command | ToolCall, ...], ...] = ()
    answer: str = ""
    answer_has: tuple[tuple[str, ...], ...] = ()
    broken: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    is_confirmed: bool = False
    asked: Command | None = None
    then: Plan | None = None


@dataclass(frozen=True)
class Said:
    """A request without its frame, the template used, and the name that the device is called by in it."""

    request: str
    template: str
    name: str


@dataclass(frozen=True)
class Scene:
    """Where a plan is made: the site with its tools, its state now, chance, the side of the split, people's words.

    In one that `is_part` requests are made to be joined to others: nothing is said around them.
    """

    site: Site
    tools: tuple[Tool, ...]
    state: State
    rng: Random
    held_out: bool
    asks: Asks | None = None
    is_part: bool = False

    @property
    def corpus(self) -> Asks:
        """The requests in people's words, which makers in finetune/data/people need."""
        assert self.asks is not None
        return self.asks

    def requests(self, device: Device, name: str) -> tuple[str, ...]:
        """Return the templates of requests for an action."""
        own = device.actions[name].requests
        return (*self.asks.action(device, name).ask, *own) if self.asks else own

    def requests_by_name(self, device: Device, name: str) -> list[str]:
        """Return the templates of requests for an action, on this side of the split, that name the device.

        Their other holes are those that `shown` fills.
        """
        holes = {"device", "value", *device.actions[name].input}
        found = side(self.requests(device, name), self.held_out)
        return [one for one in found if is_by_name(one) and is_fillable(one, holes)]

    def requests_without(self, device: Device, name: str) -> tuple[str, ...]:
        """Return the templates of requests that leave the value out."""
        own = device.actions[name].requests_without
        return (*self.asks.action(device, name).without, *own) if self.asks else own

    def shown(self, action: Action, arguments: Mapping[str, Value]) -> dict[str, Value]:
        """Return what fills a template's holes for arguments: `{value}` is the only one, as it is said."""
        shown = spoken_arguments(arguments)
        if self.asks is None or len(action.input) != 1:
            return shown
        key, schema = next(iter(action.input.items()))
        return {**shown, "value": spoken_value(schema, arguments[key], self.rng)}

    def typed(self, request: str) -> str:
        """Return a request as it arrives: with or without a capital and a mark; of people also otherwise."""
        if self.is_part:
            return request
        if self.asks is None:
            return phrases.punctuate(request, self.rng)
        names = [name for one in self.site.devices.values() for name in one.names]
        return as_typed(request, self.rng, names if self.rng.random() > NAME_SLIP_SHARE else ())

    def actions(self) -> list[tuple[Device, str, SpokenAction]]:
        """Return every action that has phrasings on this side of the split."""
        return [
            (device, name, action)
            for device in self.site.devices.values()
            for name, action in device.actions.items()
            if side(self.requests(device, name), self.held_out)
        ]

    def name_for(self, device: Device) -> str:
        """Return a name people use for a device."""
        return self.rng.choice([device.title, device.title, *device.aliases])

    def with_article(self, name: str) -> str:
        """Return a name as people put it into a sentence."""
        return self.rng.choice(["the {}", "the {}", "the {}", "{}", "my {}"]).format(name)

    def value_for(self, schema: DataSchema) -> Value:
        """Return an allowed value, round numbers more often."""
        if schema.type == "boolean":
            return self.rng.random() < 0.5
        if schema.enum:
            return self.rng.choice(schema.enum)
        assert schema.minimum is not None and schema.maximum is not None
        if schema.levels and self.rng.random() < LEVEL_SHARE:
            return self.rng.choice(list(schema.levels.values()))
        if schema.step:
            return self._stepped_value(schema, schema.step)
        times = [one for one in round_times(schema) if not schema.problem_with(one)] if self.asks else []
        if times and self.rng.random() < ROUND_TIME_SHARE:
            return self.rng.choice(times)
        low, high = math.ceil(schema.minimum), math.floor(schema.maximum)
        if low > high:  # between two whole numbers
            return schema.minimum
        value = self.rng.randint(low, high)
        if self.asks and schema.type == "number" and value < high and self.rng.random() < HALF_STEP_SHARE:
            return value + 0.5
        return min(max(round(value, -1), low), high) if high - low > 50 and self.rng.random() < 0.6 else value

    def _stepped_value(self, schema: DataSchema, step: float) -> Value:
        """Return an allowed value of a schema with steps, whole numbers more often."""
        assert schema.minimum is not None and schema.maximum is not None
        first, last = round(schema.minimum / step), math.floor(schema.maximum / step + 1e-9)
        values = [whole(round(number * step, 6)) for number in range(first, last + 1)]
        whole_values = [value for value in values if isinstance(value, int)]
        return self.rng.choice(
            whole_values if whole_values and (schema.type == "integer" or self.rng.random() < 0.6) else values
        )

    def arguments_for(self, device: Device, action: Action) -> dict[str, Value]:
        """Return allowed values for every argument; most often those of something that the device knows."""
        record = self.rng.choice(device.records) if device.records and self.rng.random() < KNOWN_SHARE else {}
        found = {name: record.get(name, self.value_for(schema)) for name, schema in action.input.items()}
        while action.order_problem(found):
            found |= {name: self.value_for(action.input[name]) for name in action.increasing}
        return found

    def say(self, device: Device, action: SpokenAction, arguments: Mapping[str, Value]) -> Said:
        """Return a request for an action."""
        templates, holes = self.wording(action, arguments)
        return self.say_as(templates, device, **holes)

    def wording(self, action: SpokenAction, arguments: Mapping[str, Value]) -> tuple[tuple[str, ...], dict[str, Value]]:
        """Return templates of an action, and what stands in their holes: a value, or often the level that it is."""
        if len(action.input) == 1:
            ((name, schema),) = action.input.items()
            names = phrases.level_names(schema, arguments[name])
            if names and self.rng.random() < LEVEL_SHARE:
                level = self.rng.choice(names)
                return action.level_requests(level), {name: level}
        if self.asks is None:
            return action.requests, spoken_arguments(arguments)
        owners = ((one, name) for one in self.site.devices.values() for name in one.actions)
        owner, name = next((one, name) for one, name in owners if one.actions[name] is action)
        return self.requests(owner, name), self.shown(action, arguments)

    def say_as(self, templates: Iterable[str], device: Device, **holes: object) -> Said:
        """Return a request made from one of the templates of this side of the split."""
        if self.asks and (said := self.fill(templates, device, **holes)):
            return said
        own = [one for one in side(templates, self.held_out) if is_fillable(one, {"device", *holes})]
        template, name = self.rng.choice(own), self.name_for(device)
        return Said(self.worded(template).format(device=self.with_article(name), **holes), template, name)

    def fill(self, templates: Iterable[str], device: Device, **holes: object) -> Said | None:
        """Return a request of one of the templates about a device, or about its place; None if none can be filled.

        A template with neither ("it's freezing") fits where no other device is meant by it. The name of what is said
        about a place is `place: title`, so that a thought says which device that is; of what names nothing, the title.
        """
        place, name = self.place_of(device), self.name_for(device)
        filled = {"device": self.with_article(name), **({"area": f"the {place}"} if place else {}), **holes}
        usable = [
            one
            for one in side(templates, self.held_out)
            if is_fillable(one, filled) and (names_device(one) or self.is_meant(device, one))
        ]
        if not usable:
            return None
        template = self.rng.choice(usable)
        if not names_device(template):
            name = device.title
        elif "{device}" not in template:
            name = f"{place}: {device.title}"
        return Said(template.format(**filled), template, name)

    def is_meant(self, device: Device, unnamed: str) -> bool:
        """Return whether a template that names no device means this one: no other is of its kind, or named in it.

        A device of an unusual name ("oven") is meant only where that is said.
        """
        words = {*re.findall(r"\w+", unnamed.lower())}
        own = {*device.title.split()} & load_phrasings().own_words
        return own <= words and not any(
            (one.kind == device.kind and one.actions.keys() == device.actions.keys())
            or any(words & {*name.lower().split()} - SMALL_WORDS for name in one.names)
            for one in self.site.devices.values()
            if one is not device
        )

    def line(self, file: str, *keys: str, **holes: str) -> tuple[str, str] | None:
        """Return a line of a form of speech with its holes filled, and the line itself; None if none can be."""
        lines = [one for key in keys for one in side(self.corpus.form(file, key), self.held_out)]
        usable = [one for one in lines if is_fillable(one, holes)]
        if not usable:
            return None
        chosen = self.rng.choice(usable)
        return chosen.format(**holes), chosen

    def place_of(self, device: Device) -> str:
        """Return the place by which people could mean this device and no other of its kind; "" if there is none."""
        others = [one for one in self.site.devices.values() if one is not device and one.kind == device.kind]
        if self.site.areas:
            is_alone = device.area and not any(one.area == device.area for one in others)
            return self.site.areas[device.area].title if is_alone else ""
        places = {*load_phrasings().places, *ALIAS_PLACES}
        firsts = {name.split()[0]: None for name in device.names}
        taken = {name.split()[0] for one in others for name in one.names}
        found = [first for first in firsts if first in places and first not in taken]
        named = [place for first in found if (place := ROOMS.get(first, first))]
        return self.rng.choice(named) if named else ""

    def worded(self, template: str) -> str:
        """Return a template as it is said: in training sometimes with fillers, which no held-out case has."""
        return phrases.loosen(template, self.rng) if self.is_loose() else template

    def is_loose(self) -> bool:
        """Return whether to vary what is said beyond what the cases do."""
        return self.asks is None and not self.held_out and self.rng.random() < LOOSE_SHARE

    def finish(self, request: str, *templates: str, is_wish: bool = True) -> tuple[str, tuple[str, ...]]:
        """Put frame and punctuation around a request, in training sometimes two; return it with all templates used.

        `is_wish` says whether it wants something done; other requests have no frame in people's words.
        """
        if self.is_part:
            return request, templates
        if self.asks:
            text, frames = framed(self.asks, request, self.rng, self.held_out, is_wish=is_wish)
            return self.typed(text), (*templates, *frames)
        text, frames = phrases.frame(request, self.rng, self.held_out)
        if self.is_loose():
            text, more = phrases.frame(text, self.rng, self.held_out)
            frames += more
        return phrases.punctuate(text, self.rng), (*templates, *frames)


def whole(value: Value) -> Value:
    """Return a number without a fraction as an integer, as JSON and people have it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_by_name(template: str) -> bool:
    """Return whether a template of requests names the device, and not its place."""
    return "{device}" in template and "{area}" not in template


def is_fillable(template: str, holes: Collection[str]) -> bool:
    """Return whether a template has no other holes than these."""
    return all(hole in holes for hole in HOLE.findall(template))


def names_device(template: str) -> bool:
    """Return whether a template of requests names the device or its place."""
    return "{device}" in template or "{area}" in template


def spoken_arguments(arguments: Mapping[str, Value]) -> dict[str, Value]:
    """Return arguments as people say them: words without underscores."""
    return {key: value.replace("_", " ") if isinstance(value, str) else value for key, value in arguments.items()}


def resolved_text(name: str, device: Device) -> str:
    """Return the start of a thought: which device is meant by a name."""
    return f"{name} is {device.name}"


def wanted_text(scene: Scene, name: str, command: Command) -> str:
    """Return the thought before a call: which device is meant, its tool, and each value with its range."""
    device = scene.site.devices[command.device]
    return f"{resolved_text(name, device)}, {call_text(scene.site, scene.tools, command)}"


def pick(scene: Scene, keep: Callable[[Device, Action], bool]) -> tuple[Device, str, SpokenAction] | None:
    """Return an action that `keep` takes, or None if there is none."""
    choices = [item for item in scene.actions() if keep(item[0], item[2])]
    return scene.rng.choice(choices) if choices else None


def is_plain(device: Device, action: Action) -> bool:
    """Return whether nobody has to be asked and no interlock can refuse."""
    return action.risk != "confirm" and not action.requires


def needed_action(scene: Scene, keep: Callable[[Device, Action], bool]) -> Command | None:
    """Return a command that would change something."""
    for _ in range(8):
        picked = pick(scene, keep)
        if picked is None:
            return None
        device, name, action = picked
        arguments = scene.arguments_for(device, action)
        if scene.state[device.name] and not action.is_already_so(scene.state[device.name], arguments):
            return Command(device.name, name, arguments)
    return None

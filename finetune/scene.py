"""Plans of exchanges, and the scenes in which they are made: a site, its state, chance, a side of the split.

A plan holds no outcome: that comes from the real broker when the plan is carried out (conversations.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from devices.site import Action, DataSchema, Device, Site, Value
from devices.tools import Command
from edge_agent.cases import State
from edge_agent.wire import json_value
from finetune import phrases


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

    def say(self, device: Device, action: Action, arguments: Mapping[str, object]) -> tuple[str, str]:
        """Return a request without its frame, and the template used."""
        template = self.rng.choice(phrases.side(action.say, self.held_out))
        return template.format(device=self.spoken(device), **arguments), template

    def finish(self, request: str, *templates: str) -> tuple[str, tuple[str, ...]]:
        """Put frame and punctuation around a request; return it with all templates used."""
        framed, frames = phrases.frame(request, self.rng, self.held_out)
        return phrases.punctuate(framed, self.rng), (*templates, *frames)


def wanted_text(scene: Scene, device: Device, action: Action, arguments: dict[str, Value]) -> str:
    """Return the thought before a call: what is, what should be, and in which range."""
    effect = action.already or action.effect(arguments)
    shown = [name for name in arguments if name in device.properties] or list(effect)
    state = scene.state[device.name]
    now = " ".join(f"{name}={json_value(state[name])}" for name in shown if name in state)
    wanted = " ".join(f"{name}={json_value(value)}" for name, value in (arguments or effect).items())
    ranges = "".join(f" ({range_text(schema)})" for schema in action.input.values() if schema.minimum is not None)
    return f"{device.name} {'has ' + now if now else 'is unavailable'}, wanted {wanted}{ranges}"


def range_text(schema: DataSchema) -> str:
    """Return a numeric range as the tool signatures write it: `0..100`."""
    return f"{schema.minimum:g}..{schema.maximum:g}"


def pick(scene: Scene, keep: Callable[[Device, Action], bool]) -> tuple[Device, str, Action] | None:
    """Return an action that `keep` takes, or None if there is none."""
    choices = [item for item in scene.actions() if keep(item[0], item[2])]
    return scene.rng.choice(choices) if choices else None


def is_plain(device: Device, action: Action) -> bool:
    """Return whether nobody has to be asked and no interlock can refuse."""
    return action.risk != "confirm" and not action.requires


def needed_action(scene: Scene, keep: Callable[[Device, Action], bool]) -> tuple[Device, Command, Action] | None:
    """Return an action that would change something, with its arguments."""
    for _ in range(8):
        picked = pick(scene, keep)
        if picked is None:
            return None
        device, name, action = picked
        arguments = scene.arguments_for(action)
        if scene.state[device.name] and not action.is_already_so(scene.state[device.name], arguments):
            return device, Command(device.name, name, arguments), action
    return None

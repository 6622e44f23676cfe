"""Scenes: how several devices shall be at once, as Home Assistant has them, and which actions make them so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from devices.errors import did_you_mean
from devices.site.action import Action, is_so
from devices.site.schema import DataSchema, Plain, Value
from devices.yaml_file import Strict, YamlFile

if TYPE_CHECKING:
    from devices.site.site import Site

Step = tuple[str, dict[str, Value]]  # an action of a device, and its arguments


class SceneStates(Strict):
    """A scene: by device, the values that its properties shall have. A level stands for its number."""

    title: Plain = ""
    aliases: tuple[Plain, ...] = Field(default=(), strict=False)
    devices: dict[str, dict[str, Value]] = Field(min_length=1)


def steps_for(
    properties: Mapping[str, DataSchema], actions: Mapping[str, Action], wanted: Mapping[str, Value]
) -> list[Step]:
    """Return the fewest actions of a device that make its properties as wanted.

    None of them makes a wanted property something else; of those that do as much, the first is what is wanted first.
    Calls, timed and forbidden actions are of no scene.

    Args:
        properties: of the device.
        actions: of the device.
        wanted: values by property; the name of a level is one, too.

    Raises:
        ValueError: a property or value is not the device's, or none of its actions does it.
    """
    goal = {name: _value_of(properties, name, value) for name, value in wanted.items()}
    if not goal:
        raise ValueError("the scene says nothing of it")
    choices: list[tuple[str, dict[str, Value], dict[str, Value]]] = []
    problem = ""
    for name, action in actions.items():
        if action.is_call or action.ends or action.risk == "forbidden":
            continue
        arguments = _arguments_for(action, goal)
        if arguments.keys() != action.input.keys():
            continue
        whys = [f"{key} {why}" for key, schema in action.input.items() if (why := schema.problem_with(arguments[key]))]
        if why := next(iter(whys), "") or action.order_problem(arguments):
            problem = f"; {name}: {why}"
            continue
        effect = action.effect(arguments)
        if is_so(effect, {key: goal[key] for key in goal.keys() & effect.keys()}):
            choices.append((name, arguments, effect))
    steps: list[Step] = []
    left = list(goal)
    while left:
        ranked = [_rank(left, effect.keys(), goal.keys()) for _, _, effect in choices]
        best = max(range(len(choices)), key=lambda at: ranked[at], default=None)
        if best is None or not ranked[best][0]:
            also = f" with the rest of {', '.join(goal)}" if len(goal) > 1 else ""
            raise ValueError(f"no action makes its {left[0]} {str(goal[left[0]]).lower()}{also}{problem}")
        name, arguments, effect = choices[best]
        steps.append((name, arguments))
        left = [key for key in left if key not in effect]
    return steps


def require_scenes(site: Site, source: YamlFile) -> None:
    """Raise UsageError, with file and line, for a scene that wants what no action of a device does."""
    for name, scene in site.scenes.items():
        for device, wanted in scene.devices.items():
            keys = ("scenes", name, "devices", device)
            if device not in site.devices:
                raise source.fail(keys, f"scene {name}: there is no {device}", did_you_mean(device, site.devices))
            try:
                steps_for(site.devices[device].properties, site.devices[device].actions, wanted)
            except ValueError as error:
                raise source.fail(keys, f"scene {name}: {device}: {error}") from error


def _rank(left: list[str], written: Collection[str], wanted: Collection[str]) -> tuple[int, int, int]:
    """Return how good an action is: much of what is left, little that nobody wants, and what is named first."""
    places = [place for place, name in enumerate(left) if name in written]
    return len(places), -sum(name not in wanted for name in written), -min(places, default=0)


def _value_of(properties: Mapping[str, DataSchema], name: str, value: Value) -> Value:
    if name not in properties:
        hint = did_you_mean(name, properties, f"it has {', '.join(properties)}")
        raise ValueError(f"it has no property {name!r}; {hint}")
    schema = properties[name]
    number = schema.levels.get(value, value) if isinstance(value, str) else value
    if problem := schema.problem_with(number):
        raise ValueError(f"{name} {problem}")
    return number


def _arguments_for(action: Action, goal: Mapping[str, Value]) -> dict[str, Value]:
    """Return the arguments with which an action writes what is wanted, as far as it says so."""
    found: dict[str, Value] = {}
    for name, written in action.writes.items():
        argument = str(written).removeprefix("$").split(" ")[0]
        if (
            name in goal
            and str(written).startswith("$")
            and not str(written).endswith("> 0")
            and argument in action.input
        ):
            found[argument] = goal[name]
    return found

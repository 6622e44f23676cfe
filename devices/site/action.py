"""Actions of devices: what they take and write, and what guards them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.errors import UsageError
from devices.site.schema import DataSchema, Name, Plain, Value, input_problem
from devices.site.zone import Zone
from devices.yaml_file import Strict

Risk = Literal["none", "low", "guarded", "confirm", "forbidden"]
TAKEN = {"status", "device", "reason"}
UNLESS_0 = "unless 0"
ROUNDING = 1e-6  # of a number that a driver scaled and scaled back


class Requirement(Strict):
    """An interlock: a fresh reading must satisfy the bound before the action may start."""

    property: str = Field(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+$")
    above: float | None = None
    below: float | None = None
    equals: bool | str | None = None
    max_age_s: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _require_one_bound(self) -> Requirement:
        if all(bound is None for bound in (self.above, self.below, self.equals)):
            raise ValueError("a requirement needs above, below or equals")
        return self

    def is_met_by(self, value: Value) -> bool:
        """Return whether a reading satisfies every bound given; NaN and wrong types satisfy none."""
        if self.equals is not None and value != self.equals:
            return False
        if self.above is None and self.below is None:
            return True
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        is_above = self.above is None or value > self.above
        return is_above and (self.below is None or value < self.below)

    def text(self, schema: DataSchema) -> str:
        """Return the bound in words, for people and for the model; `schema` is the property's."""
        words = [f"above {self.above:g}" if self.above is not None else ""]
        words += [f"below {self.below:g}" if self.below is not None else ""]
        words += [
            ""
            if self.equals is None
            else str(schema.labels.get(self.equals is True, self.equals)).lower().replace("_", " ")
        ]
        return "must be " + " and ".join(word for word in words if word)


class Ending(Strict):
    """What ends a timed action: `after` is "$argument seconds|minutes"."""

    after: str = Field(pattern=r"^\$[a-z0-9_]+ (seconds|minutes)$")
    writes: dict[str, Value]

    def duration_s(self, arguments: dict[str, Value]) -> float:
        """Return how long the action lasts, in seconds, for these arguments."""
        name, unit = self.after.removeprefix("$").split(" ")
        return float(arguments[name]) * (60.0 if unit == "minutes" else 1.0)


class Action(Strict):
    """One thing a device can do; `writes` gives each property a constant, `$argument` or `$argument > 0`.

    `$argument unless 0` leaves the property as it is where the argument is 0: a lamp that is off keeps its brightness.

    A `safe` action is always allowed: it needs no confirmation, works in every mode, and is what `stop` does.
    `min_interval_s` passes between two starts. `wait_after` names actions of the same device, and how many seconds
    after their last start or end this one may start: for off after on that is a minimum on time.
    If a controller dies in it, the next one leaves the device as it is, or carries out its safe actions (`unfinished`).
    An action that writes no property is a call: its driver carries it out at `at`, and may answer with values that fit
    `output` and free text under the names in `words`. `report` makes a sentence of them, for people; the model gets the
    values, never the words. A model's call may have a report alone: its site says where it is carried out.
    `record` is what changes in the simulated world, in the record that has the arguments.
    `increasing` names arguments of which each must be below the next: the low target of a heating and its high one.
    Numbers that are read back may differ by `tolerance` from what was written, and may need `settle_s` to get there.
    """

    title: Plain = ""
    input: dict[Name, DataSchema] = Field(default_factory=dict)
    writes: dict[str, Value] = Field(default_factory=dict)
    output: dict[Name, DataSchema] = Field(default_factory=dict)
    words: tuple[Name, ...] = Field(default=(), strict=False)
    report: str = ""
    at: dict[str, Any] = Field(default_factory=dict)
    record: dict[str, Value] = Field(default_factory=dict)
    already: dict[str, Value] | None = None
    ends: Ending | None = None
    risk: Risk = "low"
    safe: bool = False
    requires: tuple[Requirement, ...] = Field(default=(), strict=False)
    keep_out: tuple[Zone, ...] = Field(default=(), strict=False)
    min_interval_s: float = Field(default=0.0, ge=0)
    wait_after: dict[str, float] = Field(default_factory=dict)
    tolerance: float = Field(default=0.0, ge=0)
    settle_s: float = Field(default=0.0, ge=0)
    unfinished: Literal["leave", "stop"] = "leave"
    increasing: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _require_one_way(self) -> Action:
        if bool(self.writes) == bool(self.output or self.at) and (self.writes or not self.report):
            raise ValueError("an action either writes properties or has an output, at or a report")
        if self.is_call:
            if self.ends or self.keep_out or self.already or self.safe:
                raise ValueError("a call has no end, no zones, no already, and is not safe")
            if taken := TAKEN & {*self.output, *self.words}:
                raise ValueError(f"an output cannot be called {min(taken)}: every result has one")
            known = {*self.input, *self.output, *self.words}
            if not self.report or (strange := set(re.findall(r"{(\w+)}", self.report)) - known):
                named = f", not {{{min(strange)}}}" if self.report else ""
                raise ValueError(f"a call needs a report that names arguments, output or words{named}")
        elif self.words or self.report or self.record:
            raise ValueError("words, report, at and record go with output")
        return self

    @property
    def is_call(self) -> bool:
        """Whether it is carried out elsewhere and writes no property, so that nothing is read back."""
        return not self.writes

    def order_problem(self, given: Mapping[str, Any]) -> str:
        """Return which of the arguments, which fit their schemas, is not below the next one, or ""."""
        for low, high in pairwise(self.increasing):
            if given[low] >= given[high]:
                return f"{low} {given[low]:g} is not below {high} {given[high]:g}"
        return ""

    def input_problem(self, given: Mapping[str, Any]) -> str:
        """Return why arguments cannot be given to the device, or "" if they can."""
        return input_problem(self.input, given) or self.order_problem(given)

    @model_validator(mode="after")
    def _require_increasing_numbers(self) -> Action:
        for name in self.increasing:
            if name not in self.input or self.input[name].minimum is None:
                raise ValueError(f"increasing names {name}, which is no number of the input")
        return self

    @model_validator(mode="after")
    def _require_known_arguments(self) -> Action:
        values = [*self.writes.values(), *self.record.values()]
        for value in [*values, *([self.ends.after] if self.ends else [])]:
            if isinstance(value, str) and value.startswith("$"):
                name = value.removeprefix("$").split(" ")[0]
                if name not in self.input:
                    raise ValueError(f"{value} names no argument of the input ({', '.join(self.input) or 'none'})")
        for zone in self.keep_out:
            if strange := [axis for axis in zone.box if self.writes.get(axis) != f"${axis}"]:
                raise ValueError(
                    f"the zone {zone.title} has {strange[0]}, which the action does not write as it is given"
                )
        guards = (self.input, self.requires, self.ends, self.keep_out, self.wait_after, self.min_interval_s)
        if self.safe and (any(guards) or self.risk in {"confirm", "forbidden"}):
            raise ValueError("a safe action takes no input, has no end, waits for nothing, and needs no confirmation")
        return self

    def effect(self, arguments: dict[str, Value]) -> dict[str, Value]:
        """Return the value each written property gets for these arguments."""
        return {
            name: evaluate(value, arguments) for name, value in self.writes.items() if not _is_left(value, arguments)
        }

    def is_already_so(self, state: dict[str, Value], arguments: dict[str, Value]) -> bool:
        """Return whether the device already is as the action would make it; timed actions and questions never are."""
        if self.ends or self.is_call:
            return False
        goal = self.already if self.already is not None else self.effect(arguments)
        return is_so(state, goal, self.tolerance)


def is_so(state: Mapping[str, Value], goal: Mapping[str, Value], tolerance: float = 0.0) -> bool:
    """Return whether a device's properties have all the values of a goal, numbers within a tolerance."""
    return all(name in state and _is_equal(state[name], value, tolerance) for name, value in goal.items())


def _is_equal(value: Value, wanted: Value, tolerance: float) -> bool:
    if isinstance(value, bool | str) or isinstance(wanted, bool | str):
        return type(value) is type(wanted) and value == wanted
    return abs(value - wanted) <= tolerance + ROUNDING


def evaluate(value: Value, arguments: Mapping[str, Value]) -> Value:
    """Return a constant as it is, and for `$argument` or `$argument > 0` what the arguments make of it."""
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    name, *comparison = value.removeprefix("$").split(" ", 1)
    if comparison == ["> 0"]:
        return float(arguments[name]) > 0
    if comparison not in ([], [UNLESS_0]):
        raise UsageError(f"{value}: only $argument, $argument > 0 and $argument {UNLESS_0} can be written")
    return arguments[name]


def _is_left(value: Value, arguments: Mapping[str, Value]) -> bool:
    name = str(value).removeprefix("$").removesuffix(f" {UNLESS_0}")
    return str(value) == f"${name} {UNLESS_0}" and arguments[name] == 0

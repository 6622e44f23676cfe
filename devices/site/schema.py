"""What a value may be: the JSON Schema subset that properties, arguments and results use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from devices.yaml_file import Strict

Value = bool | int | float | str
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


def _require_plain(text: str) -> str:
    if text and not re.fullmatch(r"[\w°%µ²³/ .,:;'’()&+#*=-]{1,60}", text):
        raise ValueError("must be one line of at most 60 letters, digits, blanks and .,:;'()&+#*=/-")
    return text


LARGEST = 1e300  # of what is a quantity
Plain = Annotated[str, AfterValidator(_require_plain)]
"""Text of a site file that the model may see: no quotes, brackets or line breaks, with which it could say more."""


class DataSchema(Strict):
    """The JSON Schema subset that values of properties and inputs use; `step` is its multipleOf, of the device itself.

    A boolean with a title is one of several of its device, and is named where it is told.
    `levels` are numbers that have a name: `{low: 1, medium: 2, high: 3}`. The lowest and the highest are the least and
    the greatest of them; a bit more or less is the next level, or where there are none, one step.
    `states` are numbers at which a device is in a state, which is told in the place of the number: `{closed: 0}`.
    """

    type: Literal["boolean", "integer", "number", "string"]
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = Field(default=None, gt=0)
    enum: tuple[Plain, ...] | None = Field(default=None, strict=False)
    unit: Plain = ""
    levels: dict[Plain, int | float] = Field(default_factory=dict)
    states: dict[Plain, int | float] = Field(default_factory=dict)
    title: Plain = ""
    labels: dict[bool, Plain] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_relations(self) -> DataSchema:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.type == "string" and not self.enum:
            raise ValueError("a string needs an enum, so that the grammar can name every value")
        if self.type in {"integer", "number"} and (self.minimum is None or self.maximum is None):
            raise ValueError("a number needs minimum and maximum")
        if self.step and (self.minimum is None or not is_multiple(self.minimum, self.step)):
            raise ValueError(f"step {self.step:g} needs a number whose minimum is a multiple of it")
        if self.step and self.type == "integer" and not self.step.is_integer():
            raise ValueError(f"an integer has no step of {self.step:g}")
        if (self.levels or self.states) and (self.type in {"boolean", "string"} or "" in (*self.levels, *self.states)):
            raise ValueError("levels and states are words for numbers")
        for name, value in self.levels.items():
            if problem := self.problem_with(value):
                raise ValueError(f"level {name}: {problem}")
        return self

    def problem_with(self, value: object) -> str:
        """Return why `value` cannot be given to the device, or "" if it can."""
        if problem := self.reading_problem(value):
            return problem
        if self.step and isinstance(value, int | float) and not is_multiple(value, self.step):
            return f"{value:.12g} is not in steps of {self.step:g}"
        return ""

    def reading_problem(self, value: object) -> str:
        """Return why a device cannot show `value`, or "" if it can: also between its steps, set by other ways."""
        if self.type == "boolean":
            return "" if isinstance(value, bool) else f"{value!r} is not true or false"
        if self.type == "string":
            return "" if value in (self.enum or ()) else f"{value!r} is not one of {', '.join(self.enum or ())}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{value!r} is not a number"
        if not abs(value) <= LARGEST:  # neither for NaN; JSON has whole numbers of any length
            return f"{str(value)[:20]} is not a finite number"
        if self.type == "integer" and int(value) != value:
            return f"{value} is not a whole number"
        assert self.minimum is not None and self.maximum is not None
        if not self.minimum <= value <= self.maximum:
            return f"{value:.12g} is outside {self.minimum:.12g} to {self.maximum:.12g}"
        return ""

    def level_of(self, value: object) -> str:
        """Return the first level that a value is, or "" if it is none."""
        return _name_of(value, self.levels)

    def state_of(self, value: object) -> str:
        """Return the state that a device is in at a value, or "" if it is in none."""
        return _name_of(value, self.states)

    def levels_text(self) -> str:
        """Return the levels as signatures write them: `low 1, medium 2`."""
        return ", ".join(f"{name} {value:.12g}" for name, value in self.levels.items())

    def next_value(self, value: float, *, up: bool) -> int | float | None:
        """Return what is a bit more than a value, or a bit less: the next level, or else step; None if nothing is.

        Raises:
            ValueError: the schema has neither levels nor a step.
        """
        if self.levels:
            beyond = [one for one in self.levels.values() if (one > value if up else one < value)]
            return (min(beyond) if up else max(beyond)) if beyond else None
        if not self.step:
            raise ValueError("there is no bit more of what has neither levels nor a step")
        steps = value / self.step
        moved = round((math.floor(steps + 1e-9) + 1 if up else math.ceil(steps - 1e-9) - 1) * self.step, 6)
        if self.problem_with(moved):
            return None
        return int(moved) if self.type == "integer" else moved

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of one value; the unit goes into the description."""
        schema: dict[str, Any] = {"type": self.type}
        if self.enum:
            schema["enum"] = list(self.enum)
        for key in ("minimum", "maximum"):
            bound = getattr(self, key)
            if bound is not None:
                schema[key] = int(bound) if self.type == "integer" else bound
        if self.step:
            schema["multipleOf"] = int(self.step) if self.type == "integer" else self.step
        if words := ", ".join(part for part in (self.unit, self.levels_text()) if part):
            schema["description"] = words
        return schema


def _name_of(value: object, named: Mapping[str, float]) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return next((name for name, number in named.items() if math.isclose(number, value, abs_tol=1e-9)), "")


def input_problem(schemas: Mapping[str, DataSchema], given: Mapping[str, Any]) -> str:
    """Return why the arguments do not fit the schemas, or "" if they fit."""
    if missing := [name for name in schemas if name not in given]:
        return f"{missing[0]} is missing"
    if unknown := [name for name in given if name not in schemas]:
        return f"{unknown[0]} is no argument"
    for name, schema in schemas.items():
        if problem := schema.problem_with(given[name]):
            return f"{name} {problem}"
    return ""


def is_multiple(value: float, step: float) -> bool:
    """Return whether a number is a whole number of steps, as exact as floating point is."""
    return math.isclose(value, round(value / step) * step, rel_tol=1e-9, abs_tol=1e-9)

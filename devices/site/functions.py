"""Functions: tools that belong to no device, such as a refund or a search. A toolset file lists them.

A function takes what its JSON Schema says, and is carried out by the `call` of a driver. For the broker it is a device
of its own name with the one action CALL: risk, confirmation, rate and journal are those of devices.

Source: JSON Schema 2020-12, as OpenAI's and MCP's tools have it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from devices.site.action import Risk
from devices.site.device import Device
from devices.site.phrasings import SpokenAction
from devices.site.schema import LARGEST
from devices.yaml_file import Strict

CALL = "call"
FUNCTION_KIND: Literal["function"] = "function"
FUNCTION_NAME = r"^[A-Za-z_][A-Za-z0-9_. -]{0,63}$"  # OpenAI's, and the blanks and dots that public datasets have
FunctionName = Annotated[str, Field(pattern=FUNCTION_NAME)]


class Limit(Strict):
    """What the policy allows of a number, whatever the schema does; the model does not see it."""

    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _require_a_bound(self) -> Limit:
        if self.minimum is None and self.maximum is None:
            raise ValueError("a limit needs minimum or maximum")
        return self

    def problem_with(self, value: object) -> str:
        """Return why a value is not allowed, or ""; what is no number has no place to be compared."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{json.dumps(value)} is no number, and has a limit"
        if not abs(value) <= LARGEST:
            return f"{str(value)[:20]} is not a finite number"
        if self.maximum is not None and not value <= self.maximum:
            return f"{value:.12g} is above {self.maximum:.12g}"
        if self.minimum is not None and not value >= self.minimum:
            return f"{value:.12g} is below {self.minimum:.12g}"
        return ""


class Function(Strict):
    """What a function takes, what guards it, and where it is carried out.

    Attributes:
        description: for the model.
        parameters: the JSON Schema of its arguments, an object.
        risk: as an action's; what a person did not judge needs a yes.
        limits: of numbers among the arguments, by name.
        min_interval_s: between two starts.
        executor: the driver that carries it out; without one it can be trained and evaluated, and not run.
        at: where, in the driver's own terms.
    """

    description: str = ""
    parameters: dict[str, Any]
    risk: Risk = "confirm"
    limits: dict[str, Limit] = Field(default_factory=dict)
    min_interval_s: float = Field(default=0.0, ge=0)
    executor: str = ""
    at: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_schema(self) -> Function:
        if self.parameters.get("type") != "object":
            raise ValueError("parameters is a JSON Schema of type object")
        if problem := schema_problem(self.parameters):
            raise ValueError(f"parameters: {problem}")
        properties = self.parameters.get("properties", {})
        if strange := [name for name in self.limits if name not in properties]:
            raise ValueError(f"limits has {strange[0]!r}, which is no parameter ({', '.join(properties) or 'none'})")
        if self.at and not self.executor:
            raise ValueError("at goes with executor")
        return self

    def openai(self, name: str) -> dict[str, Any]:
        """Return the function as OpenAI's API has tools."""
        told = {"name": name} | ({"description": self.description} if self.description else {})
        return {"type": "function", "function": told | {"parameters": self.parameters}}

    def as_device(self, name: str) -> Device:
        """Return the device that the broker sees."""
        action = FunctionAction(
            title=CALL,
            risk=self.risk,
            min_interval_s=self.min_interval_s,
            at=self.at,
            parameters=self.parameters,
            limits=self.limits,
        )
        return FunctionDevice(name=name, title=name, properties={}, actions={CALL: action}, driver=self.executor)


class FunctionAction(SpokenAction):
    """The one action of a function."""

    parameters: dict[str, Any]
    limits: dict[str, Limit]

    @model_validator(mode="after")
    def _require_one_way(self) -> FunctionAction:  # in the place of Action's: the answer is reported as it is
        return self

    def input_problem(self, given: Mapping[str, Any]) -> str:
        """Return why arguments do not fit the schema or the limits, or "" if they do."""
        if problem := arguments_problem(self.parameters, given):
            return problem
        problems = ((name, limit.problem_with(given[name])) for name, limit in self.limits.items() if name in given)
        return next((f"{name} {problem}" for name, problem in problems if problem), "")


class FunctionDevice(Device):
    """A function in the place of a device."""

    name: FunctionName
    kind: Literal["function"] = FUNCTION_KIND
    title: FunctionName
    actions: dict[str, FunctionAction]  # type: ignore[assignment]  # each is a SpokenAction


def schema_problem(schema: Mapping[str, Any]) -> str:
    """Return why something is no JSON Schema, or ""."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return _located(error)
    return ""


def arguments_problem(parameters: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the first reason why arguments do not fit a function's schema, or "".

    Names that are not in `properties` are refused, unless the schema says more about others.
    """
    from jsonschema import Draft202012Validator

    closed = {"additionalProperties": "properties" not in parameters} | dict(parameters)
    errors = sorted(Draft202012Validator(closed).iter_errors(given), key=lambda one: list(map(str, one.absolute_path)))
    return _located(errors[0]) if errors else ""


def _located(error: Any) -> str:
    where = ".".join(map(str, error.absolute_path))
    return f"{where}: {error.message}" if where else str(error.message)

"""What a value may be: the JSON Schema subset that properties, arguments and results use."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.yaml_file import Strict

Value = bool | int | float | str


class DataSchema(Strict):
    """The JSON Schema subset that values of properties and inputs use."""

    type: Literal["boolean", "integer", "number", "string"]
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[str, ...] | None = Field(default=None, strict=False)
    unit: str = ""
    title: str = ""
    labels: dict[bool, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_relations(self) -> DataSchema:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.type == "string" and not self.enum:
            raise ValueError("a string needs an enum, so that the grammar can name every value")
        if self.type in {"integer", "number"} and (self.minimum is None or self.maximum is None):
            raise ValueError("a number needs minimum and maximum")
        return self

    def problem_with(self, value: object) -> str:
        """Return why `value` does not fit, or "" if it fits."""
        if self.type == "boolean":
            return "" if isinstance(value, bool) else f"{value!r} is not true or false"
        if self.type == "string":
            return "" if value in (self.enum or ()) else f"{value!r} is not one of {', '.join(self.enum or ())}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{value!r} is not a number"
        if not math.isfinite(value):
            return f"{value} is not a finite number"
        if self.type == "integer" and int(value) != value:
            return f"{value} is not a whole number"
        assert self.minimum is not None and self.maximum is not None
        if not self.minimum <= value <= self.maximum:
            return f"{value:g} is outside {self.minimum:g} to {self.maximum:g}"
        return ""

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of one value; the unit goes into the description."""
        schema: dict[str, Any] = {"type": self.type}
        if self.enum:
            schema["enum"] = list(self.enum)
        for key in ("minimum", "maximum"):
            bound = getattr(self, key)
            if bound is not None:
                schema[key] = int(bound) if self.type == "integer" else bound
        if self.unit:
            schema["description"] = self.unit
        return schema

"""A device of a site: its properties, its actions, and where its driver finds them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from devices.errors import did_you_mean
from devices.site.action import TAKEN, UNLESS_0, Action
from devices.site.phrasings import SpokenAction
from devices.site.schema import DataSchema, Name, Plain, Value
from devices.yaml_file import Strict


class Device(Strict):
    """A device with its model's properties and actions filled in; `records` is what it knows in the simulated world."""

    name: Name
    kind: Name
    title: Plain
    aliases: tuple[Plain, ...] = Field(default=(), strict=False)
    area: str = ""
    properties: dict[Name, DataSchema]
    actions: dict[Name, SpokenAction] = Field(default_factory=dict)
    initial: dict[str, Value] = Field(default_factory=dict)
    records: tuple[dict[str, Value], ...] = Field(default=(), strict=False)
    driver: str = ""
    at: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _require_known_properties(self) -> Device:
        for name, action in self.actions.items():
            for other in action.wait_after:
                require_known(other, self.actions, f"action {name} waits after the action")
            for written, value in action.writes.items():
                self._require_same_levels(name, action, written, str(value))
            ends = action.ends.writes if action.ends else {}
            for written in [*action.writes, *ends]:
                require_known(written, self.properties, f"action {name} writes the property")
        if taken := TAKEN & self.properties.keys():
            raise ValueError(f"a property cannot be called {min(taken)}: every result has one")
        for name in self.at:
            require_known(name, self.properties, "at has the property")
        for name, value in self.initial.items():
            require_known(name, self.properties, "initial sets the property")
            if problem := self.properties[name].problem_with(value):
                raise ValueError(f"initial {name}: {problem}")
        return self

    def _require_same_levels(self, name: str, action: Action, written: str, value: str) -> None:
        """Raise ValueError if a level of an argument is another number as one of the property that it is written to."""
        argument = value.removeprefix("$").removesuffix(f" {UNLESS_0}")
        if not value.startswith("$") or argument not in action.input or written not in self.properties:
            return
        own = self.properties[written].levels
        for level, number in action.input[argument].levels.items():
            if own.get(level, number) != number:
                raise ValueError(f"action {name}: level {level} is {number:g}, and {own[level]:g} of {written}")

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that the device is called: title, aliases, and its key in the site file."""
        return tuple(dict.fromkeys((self.title, *self.aliases, self.name)))


def require_known(name: str, known: dict[str, Any], what: str) -> None:
    """Raise ValueError with the nearest name unless a name is known; `what` begins the sentence."""
    if name not in known:
        hint = did_you_mean(name, known)
        raise ValueError(f"{what} {name!r}, which does not exist" + (f"; {hint}" if hint else ""))

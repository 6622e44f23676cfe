"""Programs on the box: one shows a property on its output, one sets it. For what has a program and no driver.

Under `drivers` of a site file: `tools: {type: command, allow: [/opt/relay]}`. Under a device, for each property,
`at: {on: {read: [/opt/relay, show, "3"], write: [/opt/relay, set, "3", "{value}"], words: ["off", "on"]}}`.
What a program shows is JSON, in which `key` finds the value, or else plain text. Under a tool of a toolset,
`at: {run: [/opt/shop, refund]}`: `{"arguments": {...}, "key": "..."}` is its input.

There is no shell: a program gets its words as they stand, with the value in the place of {value}, and an empty
environment. Nothing that a model writes becomes a program's name or a word of its own.

Does not guard against: what an allowed program does; one that leaves its process group outlives its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Needs, Reading, reading_of
from devices.drivers.json_values import JsonValue
from devices.drivers.programs import run_program
from devices.site.action import Action
from devices.site.schema import Value
from devices.yaml_file import Strict

VALUE = "{value}"


class CommandSettings(Strict):
    """Which programs may run, by absolute path, and for how long."""

    type: Literal["command"]
    allow: tuple[str, ...] = Field(strict=False, min_length=1)
    timeout_s: float = Field(default=2.0, gt=0)

    @model_validator(mode="after")
    def _require_absolute_paths(self) -> CommandSettings:
        if relative := [program for program in self.allow if not program.startswith("/")]:
            raise ValueError(f"{relative[0]} is not an absolute path")
        return self


class CommandPlace(JsonValue):
    """Where one property is read and written: a program's path and its words."""

    read: tuple[str, ...] = Field(strict=False, min_length=1)
    write: tuple[str, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _require_a_place_for_the_value(self) -> CommandPlace:
        if self.write and self.write[1:].count(VALUE) != 1:
            raise ValueError(f"write needs {VALUE} as one of its words")
        return self

    def write_words(self, value: Value) -> list[str]:
        """Return the program and its words that set a value."""
        raw = self.to_raw(value)
        text = raw if isinstance(raw, str) else json.dumps(raw)
        return [text if word == VALUE else word for word in self.write]


class CommandCall(Strict):
    """What carries a function out: a program's path and its words, which get the arguments as JSON on their input."""

    run: tuple[str, ...] = Field(strict=False, min_length=1)


class CommandDriver:
    """Runs programs, one at a time for each call. Safe to use from several threads."""

    def __init__(self, settings: CommandSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._bindings, self._clock = settings, bindings, clock

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device; one program is run once. What does not fit its schema is marked bad."""
        binding = self._bindings[device]
        shown: dict[tuple[str, ...], Any] = {}
        found: dict[str, Reading] = {}
        for name, place in binding.at.items():
            if place.read not in shown:
                shown[place.read] = self._shown(device, place.read)
            schema = binding.device.properties[name]
            found[name] = reading_of(partial(place.to_value, shown[place.read], schema), schema, self._clock())
        return found

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device, one program each, in the order given."""
        at = self._bindings[device].at
        for name, value in values.items():
            self._run(device, at[name].write_words(value))

    def call(self, device: str, action: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Run a function's program once, and return what it shows."""
        words = self._bindings[device].calls[action].run
        return self._shown(device, words, json.dumps({"arguments": dict(arguments), "key": key}).encode())

    def close(self) -> None:
        """Nothing is kept open."""

    def _shown(self, device: str, words: Sequence[str], given: bytes = b"") -> Any:
        output = self._run(device, words, given)
        try:
            text = output.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DeviceUnavailable(f"{device}: {words[0]} showed no text") from error
        try:
            return json.loads(text)
        except ValueError:
            return text.strip()

    def _run(self, device: str, words: Sequence[str], given: bytes = b"") -> bytes:
        return run_program(device, words, self._settings.timeout_s, given)


def _problem_with(settings: CommandSettings, place: CommandPlace, is_written: bool) -> str:
    for program in (place.read[0], *place.write[:1]):
        if program not in settings.allow:
            return f"runs {program}, which `allow` does not name"
    return "cannot be written without write" if is_written and not place.write else ""


def _call_problem_with(settings: CommandSettings, call: CommandCall, action: Action) -> str:
    if call.run[0] not in settings.allow:
        return f"runs {call.run[0]}, which `allow` does not name"
    return "has an output, which programs do not have" if action.output else ""


DRIVER = DriverType(
    settings=CommandSettings,
    address=CommandPlace,
    open=CommandDriver,
    problem_with=_problem_with,
    call_address=CommandCall,
    call_problem_with=_call_problem_with,
    needs=lambda settings: Needs(runs=settings.allow),
)

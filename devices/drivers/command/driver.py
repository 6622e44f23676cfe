"""Programs on the box: one shows a property on its output, one sets it. For what has a program and no driver.

Under `drivers` of a site file: `tools: {type: command, allow: [/opt/relay]}`. Under a device, for each property,
`at: {on: {read: [/opt/relay, show, "3"], write: [/opt/relay, set, "3", "{value}"], words: ["off", "on"]}}`.
What a program shows is JSON, in which `key` finds the value, or else plain text.

There is no shell: a program gets its words as they stand, with the value in the place of {value}, an empty environment
and no input. Nothing that a model writes becomes a program's name or a word of its own.

Does not guard against: what an allowed program does; one that leaves its process group outlives its time.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Reading, reading_of
from devices.drivers.json_values import JsonValue
from devices.site.schema import Value
from devices.yaml_file import Strict

MAX_OUTPUT_BYTES = 1 << 20
VALUE = "{value}"
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


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

    def close(self) -> None:
        """Nothing is kept open."""

    def _shown(self, device: str, words: Sequence[str]) -> Any:
        output = self._run(device, words)
        try:
            text = output.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DeviceUnavailable(f"{device}: {words[0]} showed no text") from error
        try:
            return json.loads(text)
        except ValueError:
            return text.strip()

    def _run(self, device: str, words: Sequence[str]) -> bytes:
        """Run a program, once, and return its output. Raises DeviceUnavailable for whatever goes wrong."""
        deadline_s = time.monotonic() + self._settings.timeout_s
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                start_new_session=True,  # so that killpg reaches what the program started, too
            )
        except OSError as error:
            raise DeviceUnavailable(f"{device}: cannot run {words[0]}: {error.strerror}") from error
        with process:
            try:
                output = _output(process, deadline_s)
                code = process.wait(max(0.0, deadline_s - time.monotonic()))
            except (subprocess.TimeoutExpired, OverflowError) as error:
                problem = "wrote too much" if isinstance(error, OverflowError) else "did not end"
                within = f"within {self._settings.timeout_s:g} s"
                raise DeviceUnavailable(f"{device}: {words[0]} {problem} {within}") from error
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if code:
            raise DeviceUnavailable(f"{device}: {words[0]} ended with {code}")
        return output


def _output(process: subprocess.Popen[bytes], deadline_s: float) -> bytes:
    """Return all output. Raises TimeoutExpired, and OverflowError over MAX_OUTPUT_BYTES."""
    assert process.stdout is not None
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline_s - time.monotonic())):
                raise subprocess.TimeoutExpired(process.args, 0)
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                return output
            output += part
            if len(output) > MAX_OUTPUT_BYTES:
                raise OverflowError


def _problem_with(settings: CommandSettings, place: CommandPlace, is_written: bool) -> str:
    for program in (place.read[0], *place.write[:1]):
        if program not in settings.allow:
            return f"runs {program}, which `allow` does not name"
    return "cannot be written without write" if is_written and not place.write else ""


DRIVER = DriverType(settings=CommandSettings, address=CommandPlace, open=CommandDriver, problem_with=_problem_with)

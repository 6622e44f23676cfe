"""Machines that take G-code over a serial line and run Grbl 1.1: small arms, plotters, mills.

Under `drivers` of a site file: `arm: {type: gcode, serial: /dev/ttyACM0}`. Under a device, for each property, one of
`{axis: x}` (millimetres), `{spindle: 1000}` and `{coolant: flood}` (outputs of the board, on or off), `{input: D}` (an
input of the board, by its letter in a status report), `{state: true}` (in words) and `{moving: true}`, of which only
false can be written: that holds the motion and forgets what was still to come.
Axes written together are one straight move (G1). Source: Grbl 1.1 wiki, "Interface" and "Commands".

Does not guard against: a board that loses its position when the line is opened (it says Alarm, and wants homing); an
answer later than twice `timeout_s`, for Grbl's answers carry no number.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Needs, Reading, reading_of
from devices.drivers.bus_lock import BusLock
from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict

AXES = "xyz"
HOLD, STATUS, RESET = b"!", b"?", b"\x18"  # Grbl's real-time commands: one byte, no line
COOLANT = {"flood": "M8", "mist": "M7"}
MOVING = {"Run", "Jog", "Home"}
STATUS_REPORT = re.compile(r"^<([A-Z][a-z]+)(?::\d)?((?:\|[A-Za-z]+:[^|<>]*)*)>$")
MODES_REPORT = re.compile(r"^\[GC:([^\[\]]*)\]$")
STOPPED_S = 1.0  # a hold decelerates; longer than any small machine takes


class GcodeSettings(Strict):
    """Where the board is, and how fast it moves."""

    type: Literal["gcode"]
    serial: str = Field(min_length=1)
    baud: int = Field(default=115200, ge=300)
    feed_mm_min: float = Field(default=1500.0, gt=0)
    timeout_s: float = Field(default=1.0, gt=0)


class GcodePlace(Strict):
    """Where one property is: exactly one of axis, spindle, coolant, input, state, moving."""

    axis: Literal["x", "y", "z"] | None = None
    spindle: int | None = Field(default=None, gt=0)
    coolant: Literal["flood", "mist"] | None = None
    input: str | None = Field(default=None, pattern="^[XYZPDHRS]$")
    is_inverted: bool = False
    state: Literal[True] | None = None
    moving: Literal[True] | None = None

    @model_validator(mode="after")
    def _require_one_place(self) -> GcodePlace:
        places = (self.axis, self.spindle, self.coolant, self.input, self.state, self.moving)
        if sum(place is not None for place in places) != 1:
            raise ValueError("needs exactly one of axis, spindle, coolant, input, state, moving")
        if self.is_inverted and self.input is None:
            raise ValueError("is_inverted goes with input")
        return self

    @property
    def is_mode(self) -> bool:
        """Whether it is told by the parser's modes and not by the status report."""
        return self.spindle is not None or self.coolant is not None


@dataclass(frozen=True)
class Shown:
    """What the board told: its state, position in mm by axis, inputs that are on, and modes such as M3."""

    state: str
    position: Mapping[str, float]
    inputs: str
    modes: frozenset[str]

    def value_at(self, place: GcodePlace, schema: DataSchema) -> Value:
        """Return a property's value. Raises ValueError if the board did not tell it."""
        if place.axis:
            value = self.position[place.axis]
            return round(value) if schema.type == "integer" else value
        if place.spindle:
            return bool(self.modes & {"M3", "M4"})
        if place.coolant:
            return COOLANT[place.coolant] in self.modes
        if place.input:
            return (place.input in self.inputs) != place.is_inverted
        return self.state in MOVING if place.moving else self.state.lower()


class GcodeDriver:
    """One board on one line. Safe to use from several threads."""

    def __init__(self, settings: GcodeSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._bindings, self._clock = settings, bindings, clock
        self._line: Any = None
        self._lock = BusLock(self._give_up)
        self._is_given_up = False

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device, of one and the same moment."""
        binding = self._bindings[device]
        with self._taken():
            shown = self._shown(device, has_modes=any(place.is_mode for place in binding.at.values()))
        found: dict[str, Reading] = {}
        for name, place in binding.at.items():
            schema = binding.device.properties[name]
            found[name] = reading_of(partial(shown.value_at, place, schema), schema, self._clock())
        return found

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device: axes as one move, which has only begun when this returns."""
        self._write(device, values, is_urgent=False)

    def write_now(self, device: str, values: dict[str, Value]) -> None:
        """Do what `write` does before all others; a hold is sent at once, whatever the board is being asked."""
        at = self._bindings[device].at
        if (line := self._line) and any(at[name].moving for name in values):
            with suppress(OSError, TypeError):  # TypeError: pyserial, when the line is closed meanwhile
                line.write(HOLD)
        self._write(device, values, is_urgent=True)

    def _write(self, device: str, values: dict[str, Value], *, is_urgent: bool) -> None:
        at = self._bindings[device].at
        with self._taken(is_urgent=is_urgent):
            for name, value in values.items():  # a stop first: its reset drops what the board had still to do
                if at[name].moving:
                    self._stop(device, value)
            for name, value in values.items():
                if at[name].is_mode:
                    self._command(device, _mode_line(at[name], bool(value)))
            if words := [f"{at[name].axis}{value:.3f}".upper() for name, value in values.items() if at[name].axis]:
                self._command(device, f"G21 G90 G1 {' '.join(words)} F{self._settings.feed_mm_min:g}")

    def close(self) -> None:
        """Let go of the line; a move goes on."""
        with self._taken():
            self._close()

    @contextmanager
    def _taken(self, *, is_urgent: bool = False) -> Iterator[None]:
        with self._lock.hold(is_urgent=is_urgent):
            self._is_given_up = False
            yield

    def _give_up(self) -> None:
        """Make another thread's wait for an answer fail."""
        self._is_given_up = True
        if line := self._line:
            with suppress(OSError, TypeError):
                line.cancel_read()

    def _stop(self, device: str, value: Value) -> None:
        """Hold the motion, and drop what was still to come; a reset out of a hold keeps the position."""
        if value:
            raise DeviceUnavailable(f"{device}: moving can only be made false")
        self._send(device, HOLD)
        deadline_s = time.monotonic() + STOPPED_S
        while self._shown(device, has_modes=False).state in MOVING:
            if time.monotonic() > deadline_s:
                break  # then better a lost position than a machine that goes on
            time.sleep(0.01)
        self._send(device, RESET)
        self._await(device, lambda line: line.startswith("Grbl"))

    def _shown(self, device: str, *, has_modes: bool) -> Shown:
        """Ask the board. Raises DeviceUnavailable, also for a report that cannot be read."""
        modes: frozenset[str] = frozenset()
        if has_modes:
            self._send(device, b"$G\n")
            told = self._await(device, lambda line: line.startswith("[GC:"))
            self._await(device, _is_ok)
            if not (match := MODES_REPORT.match(told)):
                raise self._lost(device, f"told {told[:40]!r}")
            modes = frozenset(match[1].split())
        self._send(device, STATUS)
        told = self._await(device, lambda line: line.startswith("<"))
        try:
            return _parse_status(told, modes)
        except ValueError as error:
            raise self._lost(device, f"told {told[:60]!r}") from error

    def _command(self, device: str, line: str) -> None:
        self._send(device, f"{line}\n".encode())
        answer = self._await(device, lambda line: _is_ok(line) or line.startswith(("error", "ALARM")))
        if not _is_ok(answer):
            raise DeviceUnavailable(f"{device}: {self._settings.serial} refused {line}: {answer}")

    def _send(self, device: str, raw: bytes) -> None:
        try:
            if self._line is None:
                self._line = _open_line(self._settings)
            self._line.write(raw)
        except (OSError, ValueError) as error:  # pyserial's own errors are OSErrors
            raise self._lost(device, f"is not there: {error}") from error

    def _await(self, device: str, is_wanted: Callable[[str], bool]) -> str:
        """Return the next line that is wanted; others are news that nobody asked for."""
        started_s = time.monotonic()
        deadline_s = started_s + self._settings.timeout_s
        while time.monotonic() < deadline_s and not self._is_given_up:
            try:
                raw = self._line.readline()
            except (OSError, TypeError) as error:  # TypeError: pyserial, when the line is closed meanwhile
                raise self._lost(device, f"is not there: {error}") from error
            try:
                line = raw.decode("ascii").strip()
            except UnicodeDecodeError as error:
                raise self._lost(device, "answered noise") from error
            if is_wanted(line):
                return line
        waited_s = time.monotonic() - started_s
        raise self._lost(device, f"gave no answer in {waited_s:.1f} s")

    def _lost(self, device: str, problem: str) -> DeviceUnavailable:
        """Let go of the line, so that nothing that is still on its way is taken for the next answer."""
        self._close()
        return DeviceUnavailable(f"{device}: {self._settings.serial} {problem}")

    def _close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


def _open_line(settings: GcodeSettings) -> Any:
    """Open the line and wait until nothing comes that was meant for somebody before."""
    import serial

    line = serial.Serial()
    line.port, line.baudrate, line.timeout, line.write_timeout = (settings.serial, settings.baud, 0.05, 1.0)
    line.dtr = False  # as far as the system lets it: on many boards this line is wired to reset
    line.open()
    deadline_s = time.monotonic() + settings.timeout_s
    while line.read(4096) and time.monotonic() < deadline_s:
        pass
    line.timeout = settings.timeout_s
    return line


def _is_ok(line: str) -> bool:
    return line == "ok"


def _mode_line(place: GcodePlace, is_on: bool) -> str:
    if place.spindle:
        return f"M3 S{place.spindle}" if is_on else "M5"
    assert place.coolant
    return COOLANT[place.coolant] if is_on else "M9"


def _parse_status(line: str, modes: frozenset[str]) -> Shown:
    """Return what a status report tells. Raises ValueError if it is none, or has no machine position ($10=1)."""
    match = STATUS_REPORT.match(line)
    if not match:
        raise ValueError("no status report")
    fields = dict(field.split(":", 1) for field in match[2].split("|")[1:])
    if "MPos" not in fields:
        raise ValueError("no MPos")
    numbers = [float(number) for number in fields["MPos"].split(",")]
    return Shown(match[1], dict(zip(AXES, numbers, strict=True)), fields.get("Pn", ""), modes)


def _problem_with(_: GcodeSettings, place: GcodePlace, is_written: bool) -> str:
    return (
        "cannot be written: axis, spindle, coolant and moving can"
        if is_written and (place.input or place.state)
        else ""
    )


DRIVER = DriverType(
    settings=GcodeSettings,
    address=GcodePlace,
    open=GcodeDriver,
    problem_with=_problem_with,
    needs=lambda settings: Needs({"serial": "pyserial"}, devices=(settings.serial,)),
)

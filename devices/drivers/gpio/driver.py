"""GPIO pins of the box itself, through gpiozero: relays, lamps on PWM, contacts.

Under `drivers` of a site file: `pins: {type: gpio}`. Under a device, for each property, `at: {on: {output: 17}}`,
`{output: 17, feedback: 27}` where a second pin shows what the relay really does, `{pwm: 18}`, or
`{input: 4, pull: up}`, which is on when a contact connects it to ground. Pins have Broadcom's numbers. At a PWM pin,
value = duty ratio * scale.

A pin is claimed when it is first touched, and is off from then on until something is written; when the driver is closed
or its process ends, it is let go and is off again. So outputs want a controller that stays, and a relay whose safe
position is the one without current.

Does not guard against: an output without `feedback` shows what was put on the pin, not what hangs on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.driver import Binding, DeviceUnavailable, DriverType, Needs, Reading, reading_of
from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict

# What gpiozero's factories need beside it. Source: gpiozero 2.0.1, pins/*.py; of several chips lgpio takes 4 on a
# Raspberry Pi 5 with an older kernel, else 0.
FACTORY_NEEDS = {
    "lgpio": Needs({"lgpio": "lgpio"}, devices=("/dev/gpiochip[04]",)),
    "rpigpio": Needs({"RPi.GPIO": "RPi.GPIO"}, devices=("/dev/gpiomem",)),
    "pigpio": Needs({"pigpio": "pigpio"}, peers=(("localhost", 8888),)),
    "native": Needs(devices=("/dev/gpiomem",)),
}
FACTORIES = "gpiozero_pin_factories"  # entry points of gpiozero and of packages that add to it
BARELY = 1e-6  # lgpio cuts a duty ratio down to whole percents: 0.29 * 100 must not become 28


class GpioSettings(Strict):
    """A pin factory of gpiozero by name, and which chip of lgpio's; or the path of a simulated peer's socket."""

    type: Literal["gpio"]
    factory: str = "lgpio"
    chip: int | None = Field(default=None, ge=0)


class Pin(Strict):
    """Where one property is: one of output, pwm, input. `active: low` is for what is on when low."""

    output: int | None = Field(default=None, ge=0)
    feedback: int | None = Field(default=None, ge=0)
    pwm: int | None = Field(default=None, ge=0)
    input: int | None = Field(default=None, ge=0)
    pull: Literal["up", "down", "none"] = "none"
    active: Literal["high", "low"] = "high"
    frequency_hz: int = Field(default=100, gt=0)
    scale: float = Field(default=100.0, gt=0)

    @model_validator(mode="after")
    def _require_one_pin(self) -> Pin:
        if sum(pin is not None for pin in (self.output, self.pwm, self.input)) != 1:
            raise ValueError("needs exactly one of output, pwm, input")
        if self.feedback is not None and self.output is None:
            raise ValueError("feedback goes with output")
        if self.pull != "none" and self.active == "low":
            raise ValueError("an input with a pull is on when pulled the other way; leave out `active`")
        return self

    @property
    def is_high(self) -> bool:
        """Whether it is active when high."""
        return self.active == "high"


class GpioDriver:
    """Pins of one factory. Safe to use from several threads; pins have one holder at a time."""

    def __init__(self, settings: GpioSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._bindings, self._clock = settings, bindings, clock
        self._held: dict[int, Any] = {}
        self._lock = threading.Lock()

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device; what does not fit its schema is marked bad."""
        binding = self._bindings[device]
        found: dict[str, Reading] = {}
        for name, pin in binding.at.items():
            shown = self._touch(device, pin, None)
            schema = binding.device.properties[name]
            found[name] = reading_of(partial(_to_value, shown, pin, schema), schema, self._clock())
        return found

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device, in the order given."""
        binding = self._bindings[device]
        for name, value in values.items():
            pin = binding.at[name]
            share = float(value) / (pin.scale if pin.pwm is not None else 1.0)
            self._touch(device, pin, min(max(share + BARELY, 0.0), 1.0) if share else 0.0)

    def close(self) -> None:
        """Let go of the pins, which makes them off."""
        with self._lock:
            for held in self._held.values():
                held.close()
            self._held.clear()

    def _touch(self, device: str, pin: Pin, share: float | None) -> float:
        """Put a share of 1 on a pin, unless it is None, and return what the pin, or its feedback, shows."""
        with self._lock:
            try:
                held = self._hold(pin)
                if share is not None:
                    held.value = share if pin.pwm is not None else bool(share)
                return float(held.value if pin.feedback is None else self._hold_input(pin.feedback, pin).value)
            except Exception as error:  # each factory's library has errors of its own
                where = f"GPIO {held_number(pin)} of {self._settings.factory}"
                raise DeviceUnavailable(f"{device}: {where}: {error or type(error).__name__}") from error

    def _hold(self, pin: Pin) -> Any:
        from gpiozero import DigitalOutputDevice, PWMOutputDevice

        if pin.input is not None:
            return self._hold_input(pin.input, pin)
        number = held_number(pin)
        if number not in self._held:
            factory = pin_factory(self._settings.factory, self._settings.chip)
            if pin.pwm is not None:
                self._held[number] = PWMOutputDevice(
                    number, active_high=pin.is_high, frequency=pin.frequency_hz, pin_factory=factory
                )
            else:
                self._held[number] = DigitalOutputDevice(number, active_high=pin.is_high, pin_factory=factory)
        return self._held[number]

    def _hold_input(self, number: int, pin: Pin) -> Any:
        from gpiozero import InputDevice

        if number not in self._held:
            pull = {"up": True, "down": False, "none": None}[pin.pull]
            self._held[number] = InputDevice(
                number,
                pull_up=pull,
                active_state=pin.is_high if pull is None else None,
                pin_factory=pin_factory(self._settings.factory, self._settings.chip),
            )
        return self._held[number]


def held_number(pin: Pin) -> int:
    """Return the number of the pin that an address claims first."""
    return next(number for number in (pin.output, pin.pwm, pin.input) if number is not None)


@cache
def pin_factory(name: str, chip: int | None) -> Any:
    """Return one of gpiozero's pin factories; the same for all of a process, as the pins are.

    Raises:
        OSError, ImportError, GPIOZeroError: its library or its chip is not here.
    """
    if "/" in name:
        from devices.drivers.gpio.simulated_pins import SimulatedPinFactory

        return SimulatedPinFactory(Path(name))
    for point in entry_points(group=FACTORIES, name=name):
        return point.load()(chip=chip) if name == "lgpio" else point.load()()
    raise OSError(f"gpiozero has no pin factory {name}")


def _to_value(shown: float, pin: Pin, schema: DataSchema) -> Value:
    if schema.type == "boolean":
        return shown > 0
    value = shown * pin.scale
    return round(value) if schema.type == "integer" else round(value, 4)


def _problem_with(_: GpioSettings, pin: Pin, is_written: bool) -> str:
    return "cannot be written: output and pwm can" if is_written and pin.input is not None else ""


def _needs(settings: GpioSettings) -> Needs:
    name, chip = settings.factory, settings.chip
    own = Needs(devices=(name,)) if "/" in name else FACTORY_NEEDS.get(name, Needs())
    if name == "lgpio" and chip is not None:
        own = replace(own, devices=(f"/dev/gpiochip{chip}",))
    return replace(own, modules={"gpiozero": "gpiozero", **own.modules})


DRIVER = DriverType(settings=GpioSettings, address=Pin, open=GpioDriver, problem_with=_problem_with, needs=_needs)

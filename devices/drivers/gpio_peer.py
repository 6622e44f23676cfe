"""Pins that are wired to a simulated world: gpiozero's mock factory, in the process of the driver."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from gpiozero.pins.mock import MockPWMPin

from devices.driver import Binding
from devices.drivers.gpio import GpioSettings, Pin, pin_factory
from devices.drivers.peer import LiveWorld


class GpioPeer:
    """The wires behind one `gpio` driver of a site; `chip` tells mock factories apart."""

    def __init__(self, settings: GpioSettings, bindings: Mapping[str, Binding], world: LiveWorld) -> None:
        self._settings, self._bindings, self._world = settings, bindings, world
        self._wired: list[WiredPin] = []

    @property
    def where(self) -> str:
        """What is wired."""
        return f"gpio://{self._settings.factory}/{self._settings.chip}"

    def start(self) -> None:
        """Wire the pins. Raises OSError if the factory is not the mock one."""
        if self._settings.factory != "mock":
            raise OSError(errno.ENOTSUP, f"pins of {self._settings.factory} are real; `factory: mock` has none")
        factory = pin_factory("mock", self._settings.chip)
        factory.pin_class = WiredPin
        for device, binding in self._bindings.items():
            for name, pin in binding.at.items():
                for number in {pin.output, pin.pwm, pin.input, pin.feedback} - {None}:
                    wired = factory.pin(f"GPIO{number}")
                    wired.wire(self._world, device, name, pin)
                    self._wired.append(wired)

    def stop(self) -> None:
        """Take the chip away."""
        for wired in self._wired:
            wired.is_there = False


class WiredPin(MockPWMPin):
    """A pin with a device at it: what is put on it moves the world, and as an input it shows the world."""

    is_there = False

    def wire(self, world: LiveWorld, device: str, name: str, at: Pin) -> None:
        """Connect it with a property of a device of a world."""
        self._world, self._device, self._name, self._at = world, device, name, at
        self.is_there = True

    def _set_state(self, value: float) -> None:
        self._require_answer()
        super()._set_state(value)
        share = value if self._at.is_high else 1 - value
        is_pwm = self._at.pwm is not None
        shown: Any = round(share * self._at.scale) if is_pwm else bool(share)
        if not is_pwm or self._frequency is not None:
            self._world.write(self._device, {self._name: shown})

    def _get_state(self) -> Any:
        self._require_answer()
        if self._function == "output":
            return super()._get_state()
        values = self._world.read(self._device)
        assert values is not None
        is_on = bool(values[self._name])
        return is_on != (self._at.pull == "up" or not self._at.is_high)

    def _require_answer(self) -> None:
        if not self.is_there or self._world.read(self._device) is None:
            raise OSError(errno.ENODEV, "no such device")

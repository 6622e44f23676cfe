"""Pins wired to a simulated world: gpiozero's mock pins in the driver's process, the world behind a Unix socket."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpiozero.pins.mock import MockFactory, MockPWMPin

from devices.driver import Binding
from devices.drivers.gpio import GpioSettings, Pin
from devices.drivers.peer import LiveWorld
from devices.drivers.stand_in import StandInServer, ask


class GpioPeer:
    """The wires behind one `gpio` driver of a site, whose `factory` is a path."""

    def __init__(self, settings: GpioSettings, bindings: Mapping[str, Binding], world: LiveWorld) -> None:
        self._settings, self._world = settings, world
        self._wired: dict[int, tuple[str, str, Pin]] = {
            number: (device, name, pin)
            for device, binding in bindings.items()
            for name, pin in binding.at.items()
            for number in (pin.output, pin.pwm, pin.input, pin.feedback)
            if number is not None
        }
        self._server = StandInServer(Path(settings.factory), self._answer)

    @property
    def where(self) -> str:
        """What is wired."""
        return f"pins of {self._settings.factory}"

    def start(self) -> None:
        """Wire the pins. Raises OSError if they are real ones, or the path is taken."""
        if "/" not in self._settings.factory:
            raise OSError(errno.ENOTSUP, "they are real; the factory of a stand-in is the path of a socket")
        self._server.start()

    def stop(self) -> None:
        """Take the chip away."""
        self._server.stop()

    def _answer(self, question: tuple[int, float | str | None]) -> bool:
        """Put a level on a pin, or let go of it ("free"), and return whether the device's side of it is high."""
        number, level = question
        device, name, at = self._wired.get(number, ("", "", None))
        if at is None or (values := self._world.read(device)) is None:
            raise OSError(errno.ENODEV, "no such device")
        if level is not None:
            share = 0 if isinstance(level, str) else level if at.is_high else 1 - level
            self._world.write(device, {name: bool(share) if at.pwm is None else round(share * at.scale)})
        return bool(values[name]) != (at.pull == "up" or not at.is_high)


class StandInFactory(MockFactory):
    """Mock pins that tell a peer what is put on them, and ask it what is to be seen on them."""

    def __init__(self, path: Path) -> None:
        super().__init__(pin_class=StandInPin)
        self.path = path


class StandInPin(MockPWMPin):
    """One of them."""

    def close(self) -> None:
        """Let go of the pin, and of what hangs on it."""
        if self._function == "output":
            with suppress(OSError):
                self._ask("free")
        super().close()

    def _set_state(self, value: float) -> None:
        super()._set_state(value)
        self._ask(value)

    def _get_state(self) -> Any:
        seen = self._ask(None)
        return super()._get_state() if self._function == "output" else seen

    def _ask(self, level: float | str | None) -> bool:
        return bool(ask(self.factory.path, [self._number, level]))

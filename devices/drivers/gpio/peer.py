"""Pins wired to a simulated world, which is behind a Unix socket (simulated_pins.py)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from devices.driver import Binding
from devices.drivers.gpio.driver import GpioSettings, Pin
from devices.simulation.peer import RealTimeWorld
from devices.simulation.socket_peer import PeerServer


class GpioPeer:
    """The wires behind one `gpio` driver of a site, whose `factory` is a path."""

    def __init__(self, settings: GpioSettings, bindings: Mapping[str, Binding], world: RealTimeWorld) -> None:
        self._settings, self._world = settings, world
        self._wired: dict[int, tuple[str, str, Pin]] = {
            number: (device, name, pin)
            for device, binding in bindings.items()
            for name, pin in binding.at.items()
            for number in (pin.output, pin.pwm, pin.input, pin.feedback)
            if number is not None
        }
        self._server = PeerServer(Path(settings.factory), self._answer)

    @property
    def where(self) -> str:
        """What is wired."""
        return f"pins of {self._settings.factory}"

    def start(self) -> None:
        """Wire the pins. Raises OSError if they are real ones, or the path is taken."""
        if "/" not in self._settings.factory:
            raise OSError(errno.ENOTSUP, "they are real; the factory of a simulated peer is the path of a socket")
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

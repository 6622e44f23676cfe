"""Simulated pins: gpiozero's mock pins in the driver's process, and the peer's world behind a Unix socket."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from gpiozero.pins.mock import MockFactory, MockPWMPin

from devices.simulation.socket_peer import ask


class SimulatedPinFactory(MockFactory):
    """Mock pins that tell a peer what is put on them, and ask it what is to be seen on them."""

    def __init__(self, path: Path) -> None:
        super().__init__(pin_class=SimulatedPin)
        self.path = path


class SimulatedPin(MockPWMPin):
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
        seen = self._ask(None)  # of an output too: it fails if the device does not answer
        return super()._get_state() if self._function == "output" else seen

    def _ask(self, level: float | str | None) -> bool:
        return bool(ask(self.factory.path, [self._number, level]))

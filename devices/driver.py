"""What every driver does: read a device's properties, write some of them. Drivers know no policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from devices.errors import UnavailableError
from devices.site import Value


class DeviceUnavailable(UnavailableError):
    """The device did not answer, or said that it could not."""


@dataclass(frozen=True)
class Reading:
    """A value, when it was read (seconds, same clock as the broker's), and whether to believe it."""

    value: Value
    time_s: float
    quality: Literal["good", "stale", "bad"] = "good"


class Driver(Protocol):
    """Touches devices. Raises DeviceUnavailable when one does not answer."""

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device."""
        ...

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device; returning says nothing about the effect, a read-back does."""
        ...


@runtime_checkable
class TimedDriver(Protocol):
    """A driver whose devices have timers of their own, which go on when the controller does not."""

    def write_later(self, device: str, values: dict[str, Value], after_s: float) -> None:
        """Set properties after a time, replacing what was still to come for this device."""
        ...

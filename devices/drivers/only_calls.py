"""What drivers have in common that only carry functions out: there are no properties to read or to write."""

from __future__ import annotations

from typing import Any

from devices.driver import DeviceUnavailable, Reading
from devices.site.action import Action


def only_functions(settings: Any, address: Any, action: Action) -> str:
    """Return why an action is none for a driver that takes any function, or "": DriverType.call_problem_with."""
    del settings, address
    return "is no function of a toolset" if action.output else ""


class OnlyCalls:
    """A driver without properties."""

    def read(self, device: str) -> dict[str, Reading]:
        """There is nothing to read."""
        del device
        return {}

    def write(self, device: str, values: dict[str, Any]) -> None:
        """There is nothing to write."""
        raise DeviceUnavailable(f"{device} has nothing to write")

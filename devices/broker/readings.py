"""What a site's devices show now, and what their fresh readings forbid: interlocks and keep-out zones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from devices.driver import DeviceUnavailable, Driver, Reading
from devices.site.action import Action, Requirement, is_so
from devices.site.describe import describe
from devices.site.device import Device
from devices.site.schema import Value
from devices.site.site import Site

SETTLE_STEP_S = 0.1  # between two looks at a device that is on its way
START_S = 2.0  # until a motor that was told to move does
FRESH_S = 60.0  # an older reading does not say where or how a device is


class Readings:
    """Readings of one site through its driver, judged by quality, age and schema."""

    def __init__(self, site: Site, driver: Driver, clock: Callable[[], float], pause: Callable[[float], None]) -> None:
        self._site, self._driver, self._clock, self._pause = site, driver, clock, pause

    def values(self, device: str, max_age_s: float | None = None) -> dict[str, Value]:
        """Return a device's good values, of any age or fresh ones only; none if it does not answer."""
        return values_of(self.good(device, max_age_s))

    def values_or_why(self, device: str) -> tuple[dict[str, Value], str]:
        """Return a device's good values, and what keeps one that answers from having some, as what it is, or ""."""
        read = self._read(device)
        return values_of(self._good(device, read)), _why_of(read)

    def good(self, device: str, max_age_s: float | None = None) -> dict[str, Reading]:
        """Return a device's good readings, of any age, or fresh ones of what does not move.

        Text that is no word of its schema is left out, whatever a driver says of it: the model sees these values.
        """
        return self._good(device, self._read(device), max_age_s)

    def _good(self, device: str, read: Mapping[str, Reading], max_age_s: float | None = None) -> dict[str, Reading]:
        known = self._site.devices.get(device)  # a device may have left the site, and still owe an ending
        schemas = known.properties if known else {}
        return {
            name: reading
            for name, reading in read.items()
            if reading.quality == "good"
            and (max_age_s is None or (self._is_fresh(reading, max_age_s) and not reading.moving_s))
            and (
                not isinstance(reading.value, str)
                or (name in schemas and not schemas[name].reading_problem(reading.value))
            )
        }

    def age_s(self, reading: Reading) -> float:
        """Return how old a reading is; infinite where nobody knows since when it is so."""
        return self._clock() - reading.time_s

    def settled(
        self,
        device: str,
        goal: dict[str, Value],
        tolerance: float,
        settle_s: float,
        is_given_up: Callable[[], bool],
    ) -> tuple[dict[str, Value], str]:
        """Return `values_or_why` when they are as the goal says, when its time to get there is over, or given up.

        A device that tells whether it moves is waited for while it does, as long as it says that it may take; where it
        passes by is not where it is.
        """
        waited_s, limit_s = 0.0, settle_s
        while True:
            read = self._read(device)
            found = self._good(device, read)
            seen = values_of(found)
            moving = [time_s for name in goal if name in found and (time_s := found[name].moving_s) is not None]
            if moving:
                limit_s = max(limit_s, START_S + max(moving))
            is_there = is_so(seen, goal, tolerance) and not any(moving)
            is_still = bool(moving) and not any(moving) and waited_s > max(START_S, settle_s)
            if is_there or is_still or waited_s > limit_s - SETTLE_STEP_S / 2 or is_given_up():
                return seen, _why_of(read)
            self._pause(SETTLE_STEP_S)
            waited_s += SETTLE_STEP_S

    def _read(self, device: str) -> dict[str, Reading]:
        try:
            return self._driver.read(device)
        except DeviceUnavailable:
            return {}

    def _is_fresh(self, reading: Reading, max_age_s: float) -> bool:
        return 0 <= self.age_s(reading) <= max_age_s

    def interlock_problem(self, requirement: Requirement, seen: dict[str, Value]) -> str:
        """Return why an interlock does not let the action start, or ""; what was read goes into `seen`."""
        value, problem = self._fresh(requirement.property, requirement.max_age_s)
        if value is None:
            return problem
        seen[requirement.property] = value
        if requirement.is_met_by(value):
            return ""
        name, _, key = requirement.property.partition(".")
        device = self._site.devices[name]
        return f"{describe(device, key, value)}, {requirement.text(device.properties[key])}"

    def zone_problem(self, device: Device, action: Action, arguments: dict[str, Value], seen: dict[str, Value]) -> str:
        """Return why the way from where the device is to where it shall go is not free, or ""."""
        for zone in action.keep_out:
            here: dict[str, float] = {}
            for axis in zone.box:
                value, problem = self._fresh(f"{device.name}.{axis}", FRESH_S)
                if value is None:
                    return problem
                here[axis] = float(value)
                seen[f"{device.name}.{axis}"] = value
            if zone.is_crossed_by(here, {axis: float(arguments[axis]) for axis in zone.box}):
                return f"the way there leads through the {zone.title}"
        return ""

    def _fresh(self, reference: str, max_age_s: float) -> tuple[Value | None, str]:
        """Return a value of `device.property` that can be believed, or None and why there is none."""
        name, _, key = reference.partition(".")
        device = self._site.devices[name]
        reading = self._read(name).get(key)
        if reading is None or reading.quality != "good" or not self._is_fresh(reading, max_age_s):
            return None, f"there is no fresh reading of the {device.title}"
        if device.properties[key].reading_problem(reading.value):
            return None, f"the reading of the {device.title} is not plausible"
        return reading.value, ""


def values_of(readings: Mapping[str, Reading]) -> dict[str, Value]:
    """Return the values of readings, without when they were so."""
    return {name: reading.value for name, reading in readings.items()}


def _why_of(readings: Mapping[str, Reading]) -> str:
    return next((reading.why for reading in readings.values() if reading.why), "")

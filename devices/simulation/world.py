"""One simulated world behind a site: values that drift and flow, at any speed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from devices.driver import CallRefused, DeviceUnavailable, Reading
from devices.site.action import evaluate
from devices.site.schema import DataSchema, Value
from devices.site.site import Site, WorldRule

STEP_S = 60.0  # rules follow values that other rules change, so time passes in small steps


class World:
    """The state of a site's devices, with a clock of its own that only `advance` moves.

    Args:
        site: the devices, their initial values and the rules of the world.
        state: values that replace the initial ones, by device.
        time_s: seconds since midnight at the start.
    """

    def __init__(self, site: Site, state: dict[str, dict[str, Value]] | None = None, time_s: float = 8 * 3600) -> None:
        self.site = site
        self.time_s = time_s
        self.broken: set[str] = set()  # devices that do not answer
        self.stuck: set[str] = set()  # devices that answer and do not move
        self.state = {
            name: {key: device.initial.get(key, default_value(schema)) for key, schema in device.properties.items()}
            for name, device in site.devices.items()
        }
        for name, values in (state or {}).items():
            self.state[name] |= values
        self.records = {name: [dict(record) for record in device.records] for name, device in site.devices.items()}

    @property
    def clock(self) -> str:
        """Local time as HH:MM."""
        minutes = int(self.time_s // 60) % (24 * 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}"

    def snapshot(self) -> dict[str, dict[str, Value]]:
        """Return a copy of every property, numbers to one decimal."""
        return {name: self.values_of(name) for name in self.state}

    def values_of(self, device: str) -> dict[str, Value]:
        """Return a copy of one device's properties, numbers to one decimal."""
        values = self.state[device].items()
        return {key: round(value, 1) if isinstance(value, float) else value for key, value in values}

    def advance(self, seconds: float) -> None:
        """Let time pass: drifts and flows. What a controller has to end meanwhile it must see to itself."""
        until = self.time_s + seconds
        while self.time_s < until - 1e-9:
            step = min(STEP_S, until - self.time_s)
            for rule in self.site.world:
                self._apply(rule, step)
            self.time_s += step

    def _apply(self, rule: WorldRule, seconds: float) -> None:
        if rule.while_ is not None and not self._value(rule.while_):
            return
        device, _, key = rule.property.partition(".")
        value = float(self.state[device][key])
        if rule.toward is not None and rule.hours is not None:
            goal = float(self._value(rule.toward) if isinstance(rule.toward, str) else rule.toward)
            value = goal + (value - goal) * math.exp(-seconds / (rule.hours * 3600))
        elif rule.per_hour is not None:
            value += rule.per_hour * seconds / 3600
        schema = self.site.schema_of(rule.property)
        assert schema.minimum is not None and schema.maximum is not None
        self.state[device][key] = min(max(value, schema.minimum), schema.maximum)

    def _value(self, reference: str) -> Value:
        device, _, key = reference.partition(".")
        return self.state[device][key]

    def set(self, device: str, values: dict[str, Value]) -> None:
        """Change a device now."""
        self.state[device] |= values

    def call(self, device: str, action: str, arguments: Mapping[str, Value]) -> dict[str, Any] | None:
        """Return the record that has the arguments, changed as the action says; None if there is none.

        A device without records answers with the first value of each output.
        """
        plain = self.site.devices[device].actions[action]
        if not self.records[device]:
            return {name: default_value(schema) for name, schema in plain.output.items()} | dict.fromkeys(
                plain.words, ""
            )
        for record in self.records[device]:
            if all(record[name] == value for name, value in arguments.items() if name in record):
                record |= {name: evaluate(value, arguments) for name, value in plain.record.items()}
                return {name: record[name] for name in (*plain.output, *plain.words)}
        return None


def default_value(schema: DataSchema) -> Value:
    """Return the value a property has when its device says nothing: off, the lowest number, the first word."""
    if schema.type == "boolean":
        return False
    if schema.type == "string":
        assert schema.enum
        return schema.enum[0]
    assert schema.minimum is not None
    lowest = max(schema.minimum, 0.0)
    return int(lowest) if schema.type == "integer" else lowest


class SimulatedDriver:
    """A driver whose devices are in a World."""

    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device, read now."""
        self._require_answer(device)
        return {name: Reading(value, self.world.time_s) for name, value in self.world.values_of(device).items()}

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device at once."""
        self._require_answer(device)
        if device not in self.world.stuck:
            self.world.set(device, values)

    def call(self, device: str, action: str, arguments: Mapping[str, Value], key: str) -> dict[str, Any] | None:
        """Carry out an action with output; a stuck device refuses."""
        del key  # nothing gets lost here that would be sent again
        self._require_answer(device)
        if device in self.world.stuck:
            raise CallRefused(f"{device} refuses")
        return self.world.call(device, action, arguments)

    def close(self) -> None:
        """Nothing to let go of."""

    def _require_answer(self, device: str) -> None:
        if device in self.world.broken:
            raise DeviceUnavailable(f"{device} does not answer")

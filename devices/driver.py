"""What every driver does: read a device's properties, write some of them. Drivers know no policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

from devices.errors import UnavailableError, UsageError
from devices.site.action import Action
from devices.site.device import Device
from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict


class DeviceUnavailable(UnavailableError):
    """The device did not answer, or said that it could not."""


class CallRefused(DeviceUnavailable):
    """The device answered that it does not do this, and nothing has changed."""


@dataclass(frozen=True)
class Reading:
    """A value, when it was read (seconds, same clock as the broker's), and whether to believe it.

    `unavailable` means that the device answers and has no value for this property; the value is then "".

    Attributes:
        value: of the property.
        time_s: when it was so.
        quality: whether to believe it.
        why: if there is no value, what keeps the device from having one, as what it is: "not calibrated". The driver's
            own words, never the device's: model and people see them.
        moving_s: how long the device may still be on its way, by its own word, 0 if it stands still; None if it does
            not tell.
    """

    value: Value
    time_s: float
    quality: Literal["good", "stale", "bad", "unavailable"] = "good"
    why: str = ""
    moving_s: float | None = None


def reading_of(value_of: Callable[[], Value], schema: DataSchema, time_s: float, otherwise: Value = "") -> Reading:
    """Return what `value_of` returns as a reading, bad if it does not fit; on ValueError `otherwise`, which is bad."""
    try:
        value = value_of()
    except ValueError:
        return Reading(otherwise, time_s, "bad")
    return Reading(value, time_s, "bad" if schema.reading_problem(value) else "good")


class Driver(Protocol):
    """Touches devices. Raises DeviceUnavailable when one does not answer."""

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device."""
        ...

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device; returning says nothing about the effect, a read-back does."""
        ...

    def close(self) -> None:
        """Let go of the devices; nothing is written."""
        ...


@runtime_checkable
class UrgentDriver(Protocol):
    """A driver whose devices share a line on which one waits for another."""

    def write_now(self, device: str, values: dict[str, Value]) -> None:
        """Do what `write` does, before all others, and end what another thread waits for on the line."""
        ...


@runtime_checkable
class CallDriver(Protocol):
    """A driver with actions that give an answer instead of setting properties."""

    def call(self, device: str, action: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Carry an action out, once, and return what was answered, or None if there is nothing by these arguments.

        An action with output is answered with a dictionary of its values, a function with any JSON.

        Args:
            device: by name.
            action: by name.
            arguments: that fit its input.
            key: of this one command, so that the far side can tell a repetition from a second wish.

        Raises:
            CallRefused: the far side said no, and has changed nothing.
            DeviceUnavailable: it is not known whether anything has changed.
        """
        ...


def read_secret(device: str, path: str) -> str:
    """Return what a file named in a driver's settings holds. Raises DeviceUnavailable if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise DeviceUnavailable(f"{device}: cannot read {path}: {error.strerror}") from error


def secret_from(device: str, variable: str) -> str:
    """Return a secret from the environment: no site file has one, and no call. Raises DeviceUnavailable without it."""
    secret = os.environ.get(variable, "")
    if not secret:
        raise DeviceUnavailable(f"{device}: the environment has no {variable}", hint=f"export {variable}=…")
    return secret


@dataclass(frozen=True)
class Binding:
    """A device and where its properties are, and its actions with output: addresses of the driver's own kinds."""

    device: Device
    at: Mapping[str, Any]
    calls: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """What a driver needs of the machine that it runs on, as its settings tell; nothing is touched to say so.

    Attributes:
        modules: Python modules it imports, with the package that each comes in.
        devices: device files that it reads and writes; in a pattern such as /dev/gpiochip[04] whichever is there.
        reads: files that it reads.
        runs: programs that it starts, by path or by a name on the PATH.
        peers: hosts and ports that it connects to.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of_all(cls, several: Iterable[Needs]) -> Needs:
        """Return what several need together."""
        modules: dict[str, str] = {}
        lists: dict[str, dict[Any, None]] = {"devices": {}, "reads": {}, "runs": {}, "peers": {}}
        for one in several:
            modules |= one.modules
            for name, found in lists.items():
                found |= dict.fromkeys(getattr(one, name))
        return cls(modules, **{name: tuple(found) for name, found in lists.items()})


def peer_of(url: str) -> tuple[str, int]:
    """Return the host and port behind an http or https URL. Raises UsageError if it has none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from error
    if not host:
        raise UsageError(f"{url} names no host")
    return host, port


@dataclass(frozen=True)
class DriverType:
    """What a driver's file offers as DRIVER, and a plug-in behind its entry point in the group `edgewright.drivers`.

    Attributes:
        settings: the keys of its entry under `drivers` in a site file.
        address: the keys for each property under a device's `at`.
        open: takes settings, bindings by device name, and the clock of readings in seconds; connects when first used.
        problem_with: takes settings, an address, and whether an action writes there; returns why that cannot be, or "".
        call_address: the keys under an action's `at`; None if the driver has no actions with output.
        call_problem_with: takes settings, such an address and the action; returns why that cannot be, or "".
        needs: takes settings; returns what the driver needs of the machine, for `edgewright doctor`.
    """

    settings: type[Strict]
    address: type[Strict]
    open: Callable[[Any, Mapping[str, Binding], Callable[[], float]], Driver]
    problem_with: Callable[[Any, Any, bool], str] = lambda settings, address, is_written: ""
    call_address: type[Strict] | None = None
    call_problem_with: Callable[[Any, Any, Action], str] = lambda settings, address, action: ""
    needs: Callable[[Any], Needs] = lambda settings: Needs()

"""Which drivers there are, whether a site's bindings fit them, and one driver for a whole site."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pydantic import ValidationError

from devices.driver import (
    Binding,
    CallDriver,
    CallRefused,
    DeviceUnavailable,
    Driver,
    DriverType,
    Needs,
    Reading,
    UrgentDriver,
)
from devices.errors import UsageError, did_you_mean
from devices.site.device import Device
from devices.site.schema import Value
from devices.site.site import Site, build_site, require_phrasings, site_path
from devices.yaml_file import YamlFile, first_problem, read_yaml

BUILT_IN = {
    "caller": "devices.drivers.caller.driver:DRIVER",
    "command": "devices.drivers.command.driver:DRIVER",
    "gcode": "devices.drivers.gcode.driver:DRIVER",
    "gpio": "devices.drivers.gpio.driver:DRIVER",
    "http": "devices.drivers.http.driver:DRIVER",
    "i2c": "devices.drivers.i2c.driver:DRIVER",
    "mcp": "devices.drivers.mcp.driver:DRIVER",
    "modbus": "devices.drivers.modbus.driver:DRIVER",
    "mqtt": "devices.drivers.mqtt.driver:DRIVER",
    "python": "devices.drivers.python.driver:DRIVER",
    "site": "devices.broker.site_functions:DRIVER",
    "sql": "devices.drivers.sql.driver:DRIVER",
}
ENTRY_POINTS = "edgewright.drivers"


def driver_types() -> list[str]:
    """Return the names that `type` of a driver may have: ours, and those of installed plug-ins."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def load_driver_type(name: str) -> DriverType:
    """Return a driver type by name; a plug-in cannot take the place of one of ours.

    Raises:
        UsageError: there is none, or its module cannot be loaded.
    """
    if name in BUILT_IN:
        found: DriverType = resolve_name(BUILT_IN[name])
        return found
    for point in entry_points(group=ENTRY_POINTS, name=name):
        try:
            loaded = point.load()
        except Exception as error:  # a plug-in may raise anything
            raise UsageError(f"the driver plug-in {name} cannot be loaded: {error!r}") from error
        if not isinstance(loaded, DriverType):
            raise UsageError(f"the driver plug-in {name} is no DriverType but {type(loaded).__name__}")
        return loaded
    hint = did_you_mean(name, driver_types(), f"types: {', '.join(driver_types())}")
    raise UsageError(f"no driver is of the type {name!r}", hint=hint)


def load_checked_site(name_or_path: str | Path) -> Site:
    """Load a site; check every driver's settings, every property's address and all phrasings, touching no hardware.

    Raises:
        UsageError: as load_site; or an unknown type or key, a wrong value, a property without an address, or one at
            which the property cannot be read, or not be written although an action does; or a list of phrasings that is
            not there or does not fit. With file and line.
    """
    return check_site(read_yaml(site_path(name_or_path), "site file"))


def check_site(source: YamlFile) -> Site:
    """Return the site of a file that was read, checked as load_checked_site does. Raises UsageError."""
    site = build_site(source)
    _Bindings(site, source)
    require_phrasings(site, source)
    return site


def open_driver(site: Site, clock: Callable[[], float] = time.time) -> SiteDriver:
    """Return one driver for all of a site's devices; connections are made when they are first used.

    Raises:
        UsageError: a device has no driver, or a binding is wrong.
    """
    require_drivers(site)
    bound = _Bindings(site, None)
    opened: dict[str, Driver] = {}
    for name, (kind, settings) in bound.settings.items():
        opened[name] = kind.open(settings, bound.of(name), clock)
    return SiteDriver({device: opened[binding.device.driver] for device, binding in bound.bindings.items()})


def require_drivers(site: Site) -> None:
    """Raise UsageError unless every device and every function has a driver."""
    if unbound := [name for name, function in site.functions.items() if not function.executor]:
        raise UsageError(
            f"the tool {unbound[0]} has no executor in the toolset {site.name}",
            hint="give it `executor` and `at`: it can be trained, and not carried out",
        )
    if homeless := [name for name, device in site.devices.items() if not device.driver]:
        raise UsageError(
            f"{homeless[0]} has no driver in the site {site.name}",
            hint="give each device `driver` and `at`, or run it simulated",
        )


def settings_of(site: Site, driver: str) -> tuple[Any, dict[str, Binding]]:
    """Return the settings of one of a site's drivers, and its devices with their addresses, all parsed."""
    bound = _Bindings(site, None)
    return bound.settings[driver][1], bound.of(driver)


def site_needs(site: Site) -> Needs:
    """Return what all of a site's drivers need of this machine. Raises UsageError as `needs_of`."""
    return Needs.of_all(needs_of(site, name) for name in site.drivers)


def needs_of(site: Site, driver: str) -> Needs:
    """Return what one of a site's drivers needs of this machine; the others and the devices are not looked at.

    Raises:
        UsageError: its type or one of its settings is wrong.
    """
    plain = site.drivers[driver]
    kind = load_driver_type(str(plain.get("type", "")))
    try:
        settings = kind.settings.model_validate(dict(plain))
    except ValidationError as error:
        location, message, hint = first_problem(error, kind.settings)
        where = ".".join(map(str, (driver, *location)))
        raise UsageError(f"site {site.name}, {where}: {message}", hint=hint) from error
    return kind.needs(settings)


class _Bindings:
    """A site's drivers with their settings, and its devices with their addresses, all checked."""

    def __init__(self, site: Site, source: YamlFile | None) -> None:
        self._site, self._source, self._functions = site.name, source, site.functions.keys()
        self.settings: dict[str, tuple[DriverType, Any]] = {}
        for name, plain in site.drivers.items():
            keys = ("executors" if site.is_toolset else "drivers", name)
            try:
                kind = load_driver_type(str(plain.get("type", "")))
            except UsageError as error:
                raise self._fail((*keys, "type"), str(error), error.hint) from error
            self.settings[name] = (kind, self._parse(kind.settings, plain, keys))
        self.bindings = {name: self._bind(device) for name, device in site.callees.items() if device.driver}

    def of(self, driver: str) -> dict[str, Binding]:
        """Return the devices of one driver."""
        return {name: binding for name, binding in self.bindings.items() if binding.device.driver == driver}

    def _bind(self, device: Device) -> Binding:
        kind, settings = self.settings[device.driver]
        keys: tuple[str, ...] = ("devices", device.name, "at")
        at = {name: self._parse(kind.address, plain, (*keys, name)) for name, plain in device.at.items()}
        if missing := [name for name in device.properties if name not in at]:
            raise self._fail(keys, f"{device.name} has no address for {missing[0]}", "each property needs one")
        written = {
            name: action_name
            for action_name, action in device.actions.items()
            for name in [*action.writes, *(action.ends.writes if action.ends else {})]
        }
        for name, address in at.items():
            if problem := kind.problem_with(settings, address, name in written):
                hint = f"{written[name]} writes it" if name in written else ""
                raise self._fail((*keys, name), f"{device.name}.{name} {problem}", hint)
        return Binding(device, at, self._bind_calls(device, kind, settings))

    def _bind_calls(self, device: Device, kind: DriverType, settings: Any) -> dict[str, Any]:
        calls = {}
        for name, action in device.actions.items():
            is_function = device.name in self._functions
            keys = ("tools", device.name, "at") if is_function else ("devices", device.name, "actions", name, "at")
            if action.is_call and kind.call_address is None:
                raise self._fail(keys, f"{device.name}.{name} writes nothing, and its driver can only write")
            if action.is_call:
                calls[name] = self._parse(kind.call_address, action.at, keys)
                if problem := kind.call_problem_with(settings, calls[name], action):
                    raise self._fail(keys, f"{device.name}.{name} {problem}")
        return calls

    def _parse(self, model: Any, plain: Mapping[str, Any], keys: tuple[Any, ...]) -> Any:
        try:
            return model.model_validate(dict(plain))
        except ValidationError as error:
            if self._source is not None:
                raise self._source.explain(keys, error, model) from error
            location, message, hint = first_problem(error, model)
            raise self._fail((*keys, *location), message, hint) from error

    def _fail(self, keys: tuple[Any, ...], message: str, hint: str = "") -> UsageError:
        if self._source is not None:
            return self._source.fail(keys, message, hint)
        where = f"site {self._site}, {'.'.join(map(str, keys))}"
        return UsageError(f"{where}: {message}", hint=hint or "`edgewright devices check` says in which line")


class SiteDriver:
    """Hands each device to its own driver."""

    def __init__(self, driver_of: Mapping[str, Driver]) -> None:
        self._driver_of = driver_of

    def read(self, device: str) -> dict[str, Reading]:
        """Return every property of a device."""
        return self._of(device).read(device)

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device."""
        self._of(device).write(device, values)

    def write_now(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device before all others."""
        driver = self._of(device)
        write = driver.write_now if isinstance(driver, UrgentDriver) else driver.write
        write(device, values)

    def call(self, device: str, action: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Carry out an action with output."""
        driver = self._of(device)
        if not isinstance(driver, CallDriver):
            raise CallRefused(f"the driver of {device} gives no answers")
        return driver.call(device, action, arguments, key)

    def close(self) -> None:
        """Close every driver once."""
        for driver in {id(driver): driver for driver in self._driver_of.values()}.values():
            driver.close()

    def _of(self, device: str) -> Driver:
        if device not in self._driver_of:
            raise DeviceUnavailable(f"{device} has no driver")
        return self._driver_of[device]

"""The driver of functions that a site's devices carry out, so that a toolset has devices beside its other tools.

Under `executors` of a toolset: `house: {type: site, site: home.yaml}`. Under a tool
`at: {device: "{room}_light", action: brightness, send: {level: brightness}}`: arguments fill the device's name, the
others are the action's input, by their own names or by those in `send`. Without an action the tool reads the device.

The site's own broker does it: its ranges, interlocks, rates, journal and read-back hold beside the tool's policy. The
yes of a person is asked for the tool, so that a tool may not have a smaller risk than the action behind it.
`is_simulated: true` works a simulated world, to try a toolset out. It is here and not among the drivers, which know no
broker.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, get_args

from pydantic import Field

from devices.broker.journal import Journal
from devices.broker.runtime import SiteRuntime, default_journal, live_runtime, simulated_runtime, warn
from devices.driver import Binding, CallRefused, DeviceUnavailable, DriverType, Needs
from devices.drivers.only_calls import OnlyCalls
from devices.drivers.registry import site_needs
from devices.simulation.world import World
from devices.site.action import Action, Risk
from devices.site.device import Device
from devices.site.functions import FunctionAction
from devices.site.site import Site, load_site
from devices.site.tools import Command
from devices.yaml_file import Strict

_HOLE = re.compile(r"{(\w+)}")


class SiteSettings(Strict):
    """Which site: a file, or the name of one that ships with Edgewright."""

    type: Literal["site"]
    site: str
    is_simulated: bool = False

    @cached_property
    def loaded(self) -> Site:
        """The site, read once for all tools. Raises UsageError if there is none."""
        return load_site(self.site)


class SiteCall(Strict):
    """Which device, with arguments in braces, and which of its actions; "" reads the device."""

    device: str
    action: str = ""
    send: dict[str, str] = Field(default_factory=dict)

    def input_of(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the action's input for a call's arguments."""
        in_name = set(_HOLE.findall(self.device))
        return {self.send.get(name, name): value for name, value in arguments.items() if name not in in_name}

    def possible(self, site: Site) -> Iterator[Device]:
        """Yield the devices that can be meant."""
        parts = _HOLE.split(self.device)[::2]  # without the names in braces
        pattern = re.compile(".+".join(map(re.escape, parts)))
        for device in site.devices.values():
            if pattern.fullmatch(device.name) and (not self.action or self.action in device.actions):
                yield device


class SiteFunctionsDriver(OnlyCalls):
    """A site with its broker, which is opened when its first tool is called. Safe to use from several threads."""

    def __init__(self, settings: SiteSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        del clock
        self._settings, self._bindings = settings, bindings
        self._opening = threading.Lock()
        self._runtime: SiteRuntime | None = None

    def call(self, device: str, action: str, arguments: Mapping[str, Any], key: str) -> Any:
        """Have the site's broker carry out a tool's action, or read its device."""
        del key
        call: SiteCall = self._bindings[device].calls[action]
        runtime = self._opened()
        name = call.device.format(**{one: arguments.get(one, "") for one in _HOLE.findall(call.device)})
        known = [one.name for one in call.possible(runtime.broker.site)]
        if name not in known:
            raise CallRefused(f"there is no {name}; there is {', '.join(known)}")
        if not call.action:
            if values := runtime.state().get(name):
                return values
            raise DeviceUnavailable(f"{name} does not answer")
        outcome = runtime.broker.execute(Command(name, call.action, call.input_of(arguments)))
        if outcome.status in {"refused", "needs_confirmation"}:
            raise CallRefused(outcome.report.rstrip("."))
        if outcome.status != "done":
            raise DeviceUnavailable(outcome.report.rstrip("."))
        return outcome.result

    def _opened(self) -> SiteRuntime:
        with self._opening:
            if self._runtime is None:
                site = self._settings.loaded
                if self._settings.is_simulated:
                    self._runtime = simulated_runtime(World(site), confirm=lambda effect: True)
                else:
                    self._runtime = live_runtime(site, Journal(default_journal(site)), lambda effect: True)
                    self._runtime.keep_time(warn)
            return self._runtime

    def close(self) -> None:
        """End what timed actions owe, and let go of the devices."""
        if self._runtime:
            self._runtime.close()


def _call_problem_with(settings: SiteSettings, call: SiteCall, action: Action) -> str:
    """Return why a tool cannot be carried out by the site, or "". Raises UsageError if there is no such site."""
    if not isinstance(action, FunctionAction):
        return "is no function of a toolset"
    site = settings.loaded
    possible = list(call.possible(site))
    taken = action.parameters.get("properties", {})
    if strange := [name for name in (*_HOLE.findall(call.device), *call.send) if name not in taken]:
        return f"names {strange[0]!r}, which is no parameter"
    if not possible:
        ends = f" with {call.action}" if call.action else ""
        return f"is for {call.device}, and {site.name} has no such device{ends}"
    if not settings.is_simulated and (homeless := [one.name for one in possible if not one.driver]):
        return f"is for {homeless[0]}, which has no driver in {site.name}"
    if not call.action:
        return ""
    for device in possible:
        behind = device.actions[call.action]
        if _rank(action.risk) < max(_rank(behind.risk), _rank("low")):
            return f"has the risk {action.risk}, and {device.name}.{call.action} has {behind.risk}"
        given = call.input_of(dict.fromkeys(taken))
        if given.keys() != behind.input.keys():
            wants = ", ".join(behind.input) or "nothing"
            return f"gives {', '.join(given) or 'nothing'} to {device.name}.{call.action}, which takes {wants}"
    return ""


def _rank(risk: Risk) -> int:
    return get_args(Risk).index(risk)


def _needs(settings: SiteSettings) -> Needs:
    """Return what the drivers of the site behind need. Raises UsageError: it is not there, or a setting is wrong."""
    return Needs() if settings.is_simulated else site_needs(settings.loaded)


DRIVER = DriverType(
    settings=SiteSettings,
    address=SiteCall,
    open=SiteFunctionsDriver,
    call_address=SiteCall,
    call_problem_with=_call_problem_with,
    needs=_needs,
)

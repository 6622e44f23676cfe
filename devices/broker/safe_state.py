"""What brings devices into their safe state: `stop`, and the end of timed actions. Waits for no other thread.

Neither takes a reservation, nor the journal's lock before the device was written, and on a line that devices share
`write_now` ends the wait of whoever uses it. A command whose write was under way meanwhile makes good for it: after a
stop it writes the safe values once more, and its end stays owed until its write is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from devices.broker.ledger import Ledger
from devices.broker.readings import Readings
from devices.broker.timed_outputs import Ending
from devices.driver import DeviceUnavailable, Driver, UrgentDriver
from devices.errors import UnavailableError
from devices.site.action import Action, is_so
from devices.site.describe import describe, sentence
from devices.site.device import Device
from devices.site.schema import Value
from devices.site.site import Site

Item = TypeVar("Item")
Result = TypeVar("Result")
STOP_TRIES = 2  # the first may have been cut short on its line for another device's stop


class SafeState:
    """Stops devices and ends timed actions.

    Attributes:
        stops: how many stops there were; a command that sees it change was overtaken by one.
    """

    def __init__(
        self, site: Site, driver: Driver, readings: Readings, ledger: Ledger, clock: Callable[[], float]
    ) -> None:
        self.stops = 0
        self._site, self._driver, self._readings = site, driver, readings
        self._ledger, self._clock = ledger, clock
        self._claiming = threading.Lock()
        self._being_ended: set[int] = set()

    def stop(self) -> list[str]:
        """Carry out every safe action of every device, all devices at once; return what is not known to have stopped.

        Past the model, the policy and, where it cannot be written, the journal.
        """
        with self._claiming:
            self.stops += 1  # whoever waits for a device to get somewhere waits no longer
        devices = [device for device in self._site.devices.values() if _safe_actions(device)]
        written = in_parallel(self._stop_device, devices)  # all of them before the first is looked at
        seen = in_parallel(self._settled, devices)
        problems = []
        for device, problem, values in zip(devices, written, seen, strict=True):
            noted = [self._note_stop(device, name, action, values) for name, action in _safe_actions(device).items()]
            problems += [problem] if problem else [problem for problem in noted if problem]
        return problems

    def _stop_device(self, device: Device) -> str:
        problem = ""
        for _ in range(STOP_TRIES):
            try:
                self.make_safe(device)
            except DeviceUnavailable as error:
                problem = f"the {device.title} could not be stopped: {error}"
            else:
                return ""
        return problem

    def make_safe(self, device: Device) -> None:
        """Write the safe values of one device. Raises DeviceUnavailable."""
        for action in _safe_actions(device).values():
            self._write_now(device.name, action.effect({}))

    def _write_now(self, device: str, values: dict[str, Value]) -> None:
        write = self._driver.write_now if isinstance(self._driver, UrgentDriver) else self._driver.write
        write(device, values)

    def _settled(self, device: Device) -> dict[str, Value]:
        stops, safe = self.stops, _safe_actions(device).values()
        effect = {name: value for action in safe for name, value in action.effect({}).items()}
        tolerance, settle_s = max(action.tolerance for action in safe), max(action.settle_s for action in safe)
        seen, _ = self._readings.settled(device.name, effect, tolerance, settle_s, lambda: self.stops != stops)
        return seen

    def _note_stop(self, device: Device, name: str, action: Action, seen: dict[str, Value]) -> str:
        effect = action.effect({})
        is_stopped = is_so(seen, effect, action.tolerance)
        event = "DONE" if is_stopped else "FAILED" if effect.keys() <= seen.keys() else "UNKNOWN"
        try:
            number = self._ledger.note("PROPOSED", {"device": device.name, "action": name, "input": {}, "by": "stop"})
            self._ledger.note("STARTED", {"effect": effect}, number)
            report = sentence(*(describe(device, key, value) for key, value in seen.items())) if seen else ""
            self._ledger.note(event, {"report": report, "result": {**seen}}, number)
        except UnavailableError:
            pass  # a full disk stops no stop
        return "" if is_stopped else _not_so(device.title, "stop", effect, seen)

    def claim_due(self, *, all_now: bool = False) -> list[Ending]:
        """Return the endings that are due, or all that are owed, but those that are being written already.

        Each must be given to `end`, in any thread.
        """
        now_s = self._clock()
        with self._claiming:
            due = [
                ending
                for ending in self._ledger.owed()
                if (all_now or ending.is_due(now_s)) and ending.command not in self._being_ended
            ]
            self._being_ended |= {ending.command for ending in due}
        return due

    def end(self, ending: Ending) -> str:
        """Write the values that end an action, and return what people should know of it, or "".

        The device comes first here: a journal that cannot be written (a full disk) keeps no pump running.
        """
        try:
            return self._end(ending)
        finally:
            with self._claiming:
                self._being_ended.discard(ending.command)

    def _end(self, ending: Ending) -> str:
        device = self._site.devices.get(ending.device)
        title = device.title if device else ending.device
        try:
            self._write_now(ending.device, ending.writes)
        except DeviceUnavailable as error:
            return f"the {title} could not be ended: {error}"
        seen = self._readings.values(ending.device)
        if not is_so(seen, ending.writes):
            return _not_so(title, "end", ending.writes, seen)
        if self._ledger.is_at_work(ending.command):
            return ""  # its start may still reach the device: it stays owed
        report = sentence(*(describe(device, name, seen[name]) for name in ending.writes)) if device else title
        try:
            self._ledger.note("ENDED", {"report": report, "result": {"status": "ended", **seen}}, ending.command)
        except UnavailableError as error:
            return f"the {title} ended, and that could not be written down: {error}"
        return ""


def _safe_actions(device: Device) -> dict[str, Action]:
    return {name: action for name, action in device.actions.items() if action.safe}


def _not_so(title: str, verb: str, effect: dict[str, Value], seen: dict[str, Value]) -> str:
    """Return what to say of a device that was told to stop or end and was not seen to."""
    if effect.keys() <= seen.keys():
        return f"the {title} did not {verb}"
    return f"the {title} was told to {verb}, and cannot be read back"


def in_parallel(do: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return what `do` returns for each, each in a thread of its own: one that waits keeps no other waiting."""
    if len(items) < 2:
        return [do(item) for item in items]
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(do, items))

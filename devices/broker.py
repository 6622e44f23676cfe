"""The broker: the only way to touch a device, for the model, a person or a rule alike.

Schema → risk → already so? → confirmation → interlocks → keep-out zones → rate → journal STARTED → driver →
read-back → journal DONE. Deny wins. What a person is told is made from the read-back. What fresh readings say is so
already is not written again, and nobody is asked for it.

A timed action owes its end to the journal: `tick` pays what is due, also what an earlier controller started, and
`recover` says what became of actions that one died in. Nothing is ever started a second time.

Does not guard against: a sensor that lies plausibly, a second controller on the same devices.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from devices.action import Action, is_so
from devices.asking import ask
from devices.describe import (
    already_text,
    confirm_text,
    describe,
    done_text,
    goal_text,
    not_done_text,
    plain_text,
    sentence,
)
from devices.driver import DeviceUnavailable, Driver, TimedDriver
from devices.endings import Ending, Endings
from devices.errors import UnavailableError
from devices.journal import Journal
from devices.readings import FRESH_S, Readings
from devices.schema import Value
from devices.site import Device, Site
from devices.tools import Command, input_problem

Status = Literal["done", "refused", "needs_confirmation", "failed", "unknown", "dry_run"]
Mode = Literal["auto", "assist", "dry_run", "locked"]
Verdict = tuple[Status, str, dict[str, Value]]  # with the report for people and the result for the model
CONFIRMATION_S = 60.0  # a yes that comes later is none
SETTLE_STEP_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Attributes:
        id: the journal's number for it.
        command: what was asked.
        status: done only when the device was read back as it should be.
        report: one sentence for people.
        result: the same for the model, as values.
    """

    id: int
    command: Command
    status: Status
    report: str
    result: dict[str, Value]


class _Trace:
    """What a decision rested on, for the journal: the values seen, and each rule with its verdict."""

    def __init__(self) -> None:
        self.seen: dict[str, Value] = {}
        self.is_written = False
        self.heard = ""  # from the driver, when something went wrong: words from outside, for people only
        self._rules: list[dict[str, str]] = []

    def passed(self, rule: str, text: str) -> None:
        self._rules.append({"rule": rule, "verdict": "passed", "text": text})

    def failed(self, rule: str, text: str) -> str:
        """Note the rule that decided, and return its text."""
        self._rules.append({"rule": rule, "verdict": "failed", "text": text})
        return text

    def body(self) -> dict[str, object]:
        """Return what the journal keeps; it is kept once."""
        self.is_written = True
        return {"seen": self.seen, "rules": self._rules}


class Broker:
    """Checks, carries out and reads back commands on one site, one at a time, from any thread.

    Args:
        site: the devices and their policy.
        driver: touches the devices.
        journal: takes every step.
        clock: seconds, on the same clock as the driver's readings.
        confirm: asks a person whether the effect in words may happen; None means that nobody can be asked. A yes is for
            this command with these arguments, once, and only within CONFIRMATION_S.
        mode: `auto` as the site says; `assist` asks before every action; `dry_run` decides and moves nothing; `locked`
            refuses. Safe actions are carried out in every mode.
        pause: lets seconds pass while a device gets where it shall be.
    """

    def __init__(
        self,
        site: Site,
        driver: Driver,
        journal: Journal,
        *,
        clock: Callable[[], float] = time.time,
        confirm: Callable[[str], bool] | None = None,
        mode: Mode = "auto",
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.mode: Mode = mode
        self.site = site
        self.driver = driver
        self.journal = journal
        self._clock = clock
        self._readings = Readings(site, driver, clock)
        self._confirm = confirm
        self._pause = pause
        self._is_stopping = threading.Event()
        self._endings = Endings(journal.stream())
        self._lock = threading.RLock()

    def state(self) -> dict[str, dict[str, Value]]:
        """Return fresh values of every property by device; a device that does not answer has none."""
        return {name: self._readings.values(name) for name in self.site.devices}

    def execute(self, command: Command) -> Outcome:
        """Carry out one command at most once, or say why not."""
        with self._lock:
            return self._execute(command)

    def _execute(self, command: Command) -> Outcome:
        body = {"device": command.device, "action": command.action, "input": command.input}
        number = self._note("PROPOSED", body)
        trace = _Trace()
        status, report, result = self._decide_and_act(command, number, trace)
        outcome = Outcome(number, command, status, report, {"status": status, "device": command.device, **result})
        why = ({} if trace.is_written else trace.body()) | ({"heard": trace.heard} if trace.heard else {})
        self._note(status.upper(), {"report": report, "result": outcome.result} | why, number)
        return outcome

    def _note(self, event: str, body: dict[str, Any], command: int | None = None) -> int:
        now_s = self._clock()
        number = self.journal.append(event, body, now_s, command)
        self._endings.take(number, command, now_s, event, body)
        return number

    def recover(self) -> list[Outcome]:
        """Close the journal's open entries after a controller died: each is unknown, with what is read back now.

        Nothing is done again, and what those actions still owe stays owed: call `tick` next.
        """
        with self._lock:
            return self._recover()

    def _recover(self) -> list[Outcome]:
        found = []
        for number in self._endings.unfinished():
            plain = self.journal.events(number)[0].body
            command = Command(plain["device"], plain["action"], plain["input"])
            device = self.site.devices.get(command.device)
            stopped = self._stop_unfinished(device, command.action) if device else ""
            seen = self._readings.values(command.device) if device else {}
            facts = [describe(device, name, value) for name, value in seen.items()] if device else []
            now = (
                sentence(*facts)
                if facts
                else f"It is not known how the {device.title if device else command.device} is."
            )
            report = f"I was stopped in the middle of {command.action} {command.device}. {stopped}{now}"
            result: dict[str, Value] = {"status": "unknown", "device": command.device, **seen}
            self._note("UNKNOWN", {"report": report, "result": result}, number)
            found.append(Outcome(number, command, "unknown", report, result))
        return found

    def _stop_unfinished(self, device: Device, action: str) -> str:
        """Carry out a device's safe actions if the site wants that after a death in this one; return what to say."""
        if action not in device.actions or device.actions[action].unfinished == "leave":
            return ""
        try:
            for safe in device.actions.values():
                if safe.safe:
                    self.driver.write(device.name, safe.effect({}))
        except DeviceUnavailable:
            return f"The {device.title} could not be stopped. "
        return f"The {device.title} was stopped. "

    def owed(self) -> list[Ending]:
        """Return what timed actions still owe, the earliest first."""
        with self._lock:
            return self._endings.owed()

    def tick(self, *, all_now: bool = False) -> list[str]:
        """End what is over, and return what people should know: what could not be ended, which is tried again.

        The device comes first here: a journal that cannot be written (a full disk) keeps no pump running.

        Args:
            all_now: end also what has time left, because the controller goes away.
        """
        with self._lock:
            return self._tick(all_now)

    def _tick(self, all_now: bool) -> list[str]:
        problems = []
        for ending in self._endings.owed():
            if not (all_now or ending.is_due(self._clock())):
                continue
            device = self.site.devices.get(ending.device)
            title = device.title if device else ending.device
            try:
                seen = self._end(ending)
            except DeviceUnavailable as error:
                problems.append(f"the {title} could not be ended: {error}")
                continue
            if not is_so(seen, ending.writes):
                problems.append(f"the {title} did not end")
                continue
            report = sentence(*(describe(device, name, seen[name]) for name in ending.writes)) if device else title
            try:
                self._note("ENDED", {"report": report, "result": {"status": "ended", **seen}}, ending.command)
            except UnavailableError as error:
                problems.append(f"the {title} ended, and that could not be written down: {error}")
        return problems

    def _end(self, ending: Ending) -> dict[str, Value]:
        """Write the values that end an action, unless they are so already; return what is read back."""
        seen = self._readings.values(ending.device)
        if is_so(seen, ending.writes):
            return seen
        self.driver.write(ending.device, ending.writes)
        return self._readings.values(ending.device)

    def _decide_and_act(self, command: Command, number: int, trace: _Trace) -> Verdict:
        device = self.site.devices.get(command.device)
        action = device.actions.get(command.action) if device else None
        if device is None or action is None:
            return _refused(trace.failed("schema", f"there is no {command.device} that can {command.action}"))
        if problem := input_problem(action.input, command.input):
            return _refused(trace.failed("schema", problem))
        trace.passed("schema", "ok")
        if verdict := self._verdict(device, action, command, trace):
            return verdict
        if action.output:
            return self._ask(device, action, command, number, trace)
        before = self._readings.values(device.name)
        trace.seen |= {f"{device.name}.{name}": value for name, value in before.items()}
        if not before:
            trace.failed("answer", f"the {device.title} does not answer")
            return "failed", f"The {device.title} does not answer.", {"reason": "no answer"}
        return self._act(device, action, command, number, trace)

    def _verdict(self, device: Device, action: Action, command: Command, trace: _Trace) -> Verdict | None:
        """Return why a command that fits its schema is not to be carried out now, or None if it is."""
        if action.risk == "forbidden":
            return _refused(trace.failed("risk", f"{command.action} is forbidden for the {device.title}"))
        trace.passed("risk", "safe" if action.safe else action.risk)
        if self.mode == "locked" and not action.safe:
            return _refused(trace.failed("mode", "the controller is locked"))
        if seen := self._seen_already(device, action, command.input):
            trace.seen |= {f"{device.name}.{name}": value for name, value in seen.items()}
            trace.passed("already", "nothing to change")
            return "done", sentence(already_text(device, action, seen)), seen
        is_to_confirm = action.risk == "confirm" or (self.mode == "assist" and not action.safe)
        if is_to_confirm and not self._is_confirmed(goal_text(device, action, command.input), trace):
            return "needs_confirmation", sentence(confirm_text(device, action, command.input)), {}
        for requirement in action.requires:
            if problem := self._readings.interlock_problem(requirement, trace.seen):
                return _refused(trace.failed("interlock", problem))
            bound = requirement.text(self.site.schema_of(requirement.property))
            trace.passed("interlock", f"{requirement.property} {bound}")
        if action.keep_out:
            if problem := self._readings.zone_problem(device, action, command.input, trace.seen):
                return _refused(trace.failed("keep-out", problem))
            trace.passed("keep-out", "the way is free")
        wait_s = self._wait_s(command, action)
        if wait_s > 0:
            return _refused(
                trace.failed("rate", f"the {device.title} must rest for another {math.ceil(wait_s)} seconds")
            )
        if self.mode == "dry_run" and not action.safe:
            return "dry_run", f"I would now make so: {goal_text(device, action, command.input)}.", {}
        return None

    def _seen_already(self, device: Device, action: Action, arguments: dict[str, Value]) -> dict[str, Value]:
        """Return the device's values if fresh ones say that nothing is to change, else {}.

        Safe actions are carried out whatever is read, and an ending that is owed would change the device later.
        """
        if action.safe or any(ending.device == device.name for ending in self._endings.owed()):
            return {}
        seen = self._readings.values(device.name, FRESH_S)
        return seen if action.is_already_so(seen, arguments) else {}

    def _is_confirmed(self, goal: str, trace: _Trace) -> bool:
        asked_s = self._clock()
        is_yes = self._confirm is not None and self._confirm(goal)
        is_confirmed = is_yes and 0 <= self._clock() - asked_s <= CONFIRMATION_S
        if is_confirmed:
            trace.passed("confirmation", f"yes to {goal}")
        else:
            trace.failed("confirmation", f"nobody said yes to {goal}")
        return is_confirmed

    def stop(self) -> list[str]:
        """Carry out every safe action of every device, whatever else is so, and return what did not stop.

        Past the model, the policy and, where it cannot be written, the journal.
        """
        self._is_stopping.set()  # whoever waits for a device to get somewhere waits no longer
        with self._lock:
            self._is_stopping.clear()
            safe = [
                (device, name, action)
                for device in self.site.devices.values()
                for name, action in device.actions.items()
                if action.safe
            ]
            silent = {}
            for device, _, action in safe:  # all of them before the first is looked at
                try:
                    self.driver.write(device.name, action.effect({}))
                except DeviceUnavailable as error:
                    silent[device.name] = f"the {device.title} did not stop: {error}"
            return [problem for one in safe if (problem := silent.get(one[0].name) or self._see_stopped(*one))]

    def _see_stopped(self, device: Device, name: str, action: Action) -> str:
        effect = action.effect({})
        seen = self._read_back(device, action, effect)
        is_stopped = is_so(seen, effect, action.tolerance)
        try:
            number = self._note("PROPOSED", {"device": device.name, "action": name, "input": {}, "by": "stop"})
            self._note("STARTED", {"effect": effect}, number)
            report = sentence(*(describe(device, key, value) for key, value in seen.items())) if seen else ""
            self._note("DONE" if is_stopped else "FAILED", {"report": report, "result": {**seen}}, number)
        except UnavailableError:
            pass  # a full disk stops no stop
        return "" if is_stopped else f"the {device.title} did not stop"

    def _wait_s(self, command: Command, action: Action) -> float:
        now_s = self._clock()
        waits = [(command.action, action.min_interval_s, False)]
        waits += [(other, seconds, True) for other, seconds in action.wait_after.items()]
        remaining = [0.0]
        for name, seconds, with_end in waits:
            passed_s = self._endings.seconds_since(command.device, name, now_s, with_end=with_end)
            if passed_s is not None:
                remaining.append(seconds - passed_s)
        return max(remaining)

    def _act(
        self,
        device: Device,
        action: Action,
        command: Command,
        number: int,
        trace: _Trace,
    ) -> Verdict:
        effect = action.effect(command.input)
        duration_s = action.ends.duration_s(command.input) if action.ends else 0.0
        owes = {"ends": {"writes": action.ends.writes, "due_s": self._clock() + duration_s}} if action.ends else {}
        self._note("STARTED", {"effect": effect} | owes | trace.body(), number)
        try:
            if action.ends and isinstance(self.driver, TimedDriver):  # first: a start that half fails must end too
                self.driver.write_later(device.name, action.ends.writes, duration_s)
            self.driver.write(device.name, effect)
        except DeviceUnavailable as error:
            trace.heard = plain_text(str(error))
        seen = self._read_back(device, action, effect)
        if not effect.keys() <= seen.keys():
            return "unknown", f"I do not know whether the {device.title} changed.", {"reason": "no answer"}
        if is_so(seen, effect, action.tolerance):
            return "done", sentence(done_text(device, action, command.input, seen)), seen
        return "failed", sentence(not_done_text(device, action, seen)), seen

    def _ask(self, device: Device, action: Action, command: Command, number: int, trace: _Trace) -> Verdict:
        self._note("STARTED", {"effect": {}} | trace.body(), number)
        key = self.journal.events(number)[0].digest  # no other command has it
        status, report, result, trace.heard = ask(self.driver, device, action, command, key)
        return status, report, result

    def _read_back(self, device: Device, action: Action, effect: dict[str, Value]) -> dict[str, Value]:
        """Return what the device shows when the effect is there, or when its time to get there is over."""
        for _ in range(int(action.settle_s / SETTLE_STEP_S)):
            seen = self._readings.values(device.name)
            if is_so(seen, effect, action.tolerance) or self._is_stopping.is_set():
                return seen
            self._pause(SETTLE_STEP_S)
        return self._readings.values(device.name)


def _refused(reason: str) -> Verdict:
    return "refused", f"I did not do that, because {reason}.", {"reason": reason}

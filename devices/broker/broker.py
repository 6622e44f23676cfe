"""The broker: the only way to touch a device, for the model, a person or a rule alike.

Schema → risk → already so? → confirmation → interlocks → keep-out zones → rate → journal STARTED → driver →
read-back → journal DONE. Deny wins. What a person is told is made from the read-back. What fresh readings say is so
already is not written again, and nobody is asked for it.

Commands that touch the same devices go one after the other (reservations.py). While a person is asked nothing
is reserved, and after the yes all is decided anew. `stop` and the ends of timed actions wait for no command and no
person (safe_state.py); a command that a stop overtook moves nothing any more.

A timed action owes its end to the journal: `tick` pays what is due, also what an earlier controller started, and
`recover` says what became of actions that one died in. Nothing is ever started a second time.

Does not guard against: a sensor that lies plausibly, a second controller on the same devices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from devices.broker.journal import Journal
from devices.broker.ledger import Ledger
from devices.broker.output_action import ask
from devices.broker.policy import STOPPED, Mode, Policy, Status, Trace, Verdict, Work, refused
from devices.broker.readings import FRESH_S, Readings, values_of
from devices.broker.reservations import Reservations
from devices.broker.safe_state import SafeState
from devices.broker.timed_outputs import Ending
from devices.driver import DeviceUnavailable, Driver, Reading
from devices.site.action import Action, is_so
from devices.site.describe import (
    age_text,
    describe,
    done_text,
    goal_text,
    not_done_text,
    plain_text,
    sentence,
)
from devices.site.device import Device
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Attributes:
        id: the journal's number for it.
        command: what was asked.
        status: done only when the device was read back as it should be.
        report: one sentence for people.
        result: the same for the model, as values; of a function that was done, what it answered.
    """

    id: int
    command: Command
    status: Status
    report: str
    result: dict[str, Value]


class Broker:
    """Checks, carries out and reads back commands on one site, from any thread.

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
        self._confirm = confirm
        self._readings = Readings(site, driver, clock, pause)
        self._ledger = Ledger(journal, clock)
        self._reservations = Reservations()
        self._safe_state = SafeState(site, driver, self._readings, self._ledger, clock)
        self._policy = Policy(site, self._readings, self._ledger, self._safe_state, clock)

    def state(self) -> dict[str, dict[str, Value]]:
        """Return fresh values of every property by device; a device that does not answer has none."""
        return {name: self._readings.values(name) for name in self.site.devices}

    def readings(self) -> dict[str, dict[str, Reading]]:
        """Return what `state` returns, with the time of each value."""
        return {name: self._readings.good(name) for name in self.site.devices}

    def state_with_ages(self) -> tuple[dict[str, dict[str, Value]], dict[str, dict[str, str]]]:
        """Return what `state` returns, and in words how old those values are that are older than they should be."""
        found, ages = self.readings(), dict[str, dict[str, str]]()
        for device, readings in found.items():
            for name, reading in readings.items():
                if (age_s := self.age_s(reading)) > FRESH_S:
                    ages.setdefault(device, {})[name] = age_text(age_s)
        return {device: values_of(readings) for device, readings in found.items()}, ages

    def age_s(self, reading: Reading) -> float:
        """Return how old a reading is, in seconds; infinite if nobody knows."""
        return self._readings.age_s(reading)

    def execute(self, command: Command, confirm: Callable[[str], bool] | None = None) -> Outcome:
        """Carry out one command at most once, or say why not.

        Args:
            command: what to do.
            confirm: asks the person whom this command is of, in the place of the broker's own.
        """
        stops = self._safe_state.stops
        body = {"device": command.device, "action": command.action, "input": command.input}
        work = Work(command, self._ledger.note("PROPOSED", body), stops, confirm or self._confirm)
        status, report, result = self._decide_and_act(work)
        if command.device not in self.site.functions:
            result = {"status": status, "device": command.device, **result}
        elif status != "done":
            result = {"status": status, **result}
        outcome = Outcome(work.number, command, status, report, result)
        trace = work.trace
        why = ({} if trace.is_written else trace.body()) | ({"heard": trace.heard} if trace.heard else {})
        self._ledger.note(status.upper(), {"report": report, "result": outcome.result} | why, work.number)
        return outcome

    def note_request(self, body: dict[str, Any]) -> None:
        """Write down what a person asked and was answered (edge_agent/agent/asked.py), as an event of its own.

        Raises:
            UnavailableError: as Journal.append.
        """
        self._ledger.note("ASKED", body)

    def recover(self) -> list[Outcome]:
        """Close the journal's open entries after a controller died: each is unknown, with what is read back now.

        Nothing is done again, and what those actions still owe stays owed: call `tick` next.
        """
        found = []
        for number in self._ledger.unfinished():
            plain = self._ledger.events(number)[0].body
            command = Command(plain["device"], plain["action"], plain["input"])
            device = self.site.device(command.device)
            stopped = self._stop_unfinished(device, command.action) if device else ""
            seen = self._readings.values(command.device) if device and device.properties else {}
            facts = [describe(device, name, value) for name, value in seen.items()] if device else []
            now = (
                sentence(*facts)
                if facts
                else f"It is not known how the {device.title if device else command.device} is."
            )
            report = f"I was stopped in the middle of {command.action} {command.device}. {stopped}{now}"
            result: dict[str, Value] = {"status": "unknown", "device": command.device, **seen}
            self._ledger.note("UNKNOWN", {"report": report, "result": result}, number)
            found.append(Outcome(number, command, "unknown", report, result))
        return found

    def _stop_unfinished(self, device: Device, action: str) -> str:
        """Carry out a device's safe actions if the site wants that after a death in this one; return what to say."""
        if action not in device.actions or device.actions[action].unfinished == "leave":
            return ""
        try:
            self._safe_state.make_safe(device)
        except DeviceUnavailable:
            return f"The {device.title} could not be stopped. "
        return f"The {device.title} was stopped. "

    def owed(self) -> list[Ending]:
        """Return what timed actions still owe, the earliest first."""
        return self._ledger.owed()

    def tick(self) -> list[str]:
        """End what is over, and return what people should know: what could not be ended, which is tried again.

        One after the other; where a device may keep others waiting, give each of `claim_due` to `end` in a thread.
        """
        problems = [self.end(ending) for ending in self.claim_due()]
        return [problem for problem in problems if problem]

    def claim_due(self, *, all_now: bool = False) -> list[Ending]:
        """Return the endings that are due and nobody writes yet; each must be given to `end`.

        Args:
            all_now: also what has time left, because the controller goes away.
        """
        return self._safe_state.claim_due(all_now=all_now)

    def end(self, ending: Ending) -> str:
        """Write the values that end an action; return what people should know of it, or ""."""
        return self._safe_state.end(ending)

    @property
    def stops(self) -> int:
        """How often everything was stopped: who asked before the last time wants nothing to move any more."""
        return self._safe_state.stops

    def stop(self) -> list[str]:
        """Carry out every safe action of every device, whatever else is so; return what is not known to have stopped.

        Past the model, the policy and, where it cannot be written, the journal. Commands on their way move nothing
        any more.
        """
        return self._safe_state.stop()

    def _decide_and_act(self, work: Work) -> Verdict:
        command = work.command
        device = self.site.device(command.device)
        action = device.actions.get(command.action) if device else None
        if device is None or action is None:
            return refused(work.trace.failed("schema", f"there is no {command.device} that can {command.action}"))
        if problem := action.input_problem(command.input):
            return refused(work.trace.failed("schema", problem))
        verdict = self._decide_or_act(device, action, work)
        if verdict[0] == "needs_confirmation" and self._is_granted(device, action, work):
            work.trace = Trace()
            return self._decide_or_act(device, action, work)  # all of it anew: the world went on while a person thought
        return verdict

    def _decide_or_act(self, device: Device, action: Action, work: Work) -> Verdict:
        """Return why the command is not to be carried out now, or carry it out."""
        work.trace.passed("schema", "ok")
        reads = {requirement.property.partition(".")[0] for requirement in action.requires}
        with self._reservations.hold(device.name, reads):
            if verdict := self._policy.verdict(device, action, work, self.mode):
                return verdict
            if action.is_call:
                return self._ask(device, action, work)
            before, why = self._readings.values_or_why(device.name)
            work.trace.seen |= {f"{device.name}.{name}": value for name, value in before.items()}
            if not before:
                text = work.trace.failed("answer", f"the {device.title} {f'is {why}' if why else 'does not answer'}")
                return "failed", sentence(text), {"reason": why or "no answer"}
            return self._act(device, action, work, before)

    def _is_granted(self, device: Device, action: Action, work: Work) -> bool:
        """Ask the person, with nothing reserved: how long that takes is nobody else's concern."""
        asked_s = self._clock()
        is_yes = work.confirm is not None and work.confirm(goal_text(device, action, work.command.input))
        work.asked_s = asked_s if is_yes else None
        return is_yes

    def _act(self, device: Device, action: Action, work: Work, before: dict[str, Value]) -> Verdict:
        arguments, trace = work.command.input, work.trace
        effect = action.effect(arguments)
        due_s = self._clock() + action.ends.duration_s(arguments) if action.ends else math.inf
        owes = {"ends": {"writes": action.ends.writes, "due_s": due_s}} if action.ends else {}
        with self._ledger.at_work(work.number):
            self._ledger.note("STARTED", {"effect": effect} | owes | trace.body(), work.number)
            is_stopped = self._policy.is_overtaken(action, work)
            if is_stopped or self._clock() >= due_s:  # a slow disk, and a stop or the end came
                reason = STOPPED if is_stopped else "its time was over before it could start"
                return "failed", f"I did not do that, because {reason}.", {"reason": reason}
            try:
                self.driver.write(device.name, effect)
            except DeviceUnavailable as error:
                trace.heard = plain_text(str(error))
            if self._policy.is_overtaken(action, work):  # the stop may have been written first
                try:
                    self._safe_state.make_safe(device)
                except DeviceUnavailable as error:
                    trace.heard = plain_text(str(error))
        is_given_up = partial(self._policy.is_overtaken, action, work)
        seen, why = self._readings.settled(device.name, effect, action.tolerance, action.settle_s, is_given_up)
        if not effect.keys() <= seen.keys():
            if why:
                return "failed", f"I cannot do that, because the {device.title} is {why}.", {"reason": why}
            return "unknown", f"I do not know whether the {device.title} changed.", {"reason": "no answer"}
        if is_so(seen, effect, action.tolerance):
            return "done", sentence(done_text(device, action, arguments, seen)), seen
        has_moved = any(seen[name] != before.get(name) for name in effect)
        return "failed", sentence(not_done_text(device, action, arguments, seen, has_moved=has_moved)), seen

    def _ask(self, device: Device, action: Action, work: Work) -> Verdict:
        self._ledger.note("STARTED", {"effect": {}} | work.trace.body(), work.number)
        key = self._ledger.events(work.number)[0].digest  # no other command has it
        status, report, result, work.trace.heard = ask(self.driver, device, action, work.command, key)
        return status, report, result

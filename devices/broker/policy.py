"""What the site allows now: whether a command is carried out, refused, already so, or needs a person's yes.

Risk, mode, stop, already so, confirmation, interlocks, keep-out zones and rate, in this order; the first that decides
ends it. Nothing here touches a device but to read it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from devices.broker.ledger import Ledger
from devices.broker.readings import FRESH_S, Readings
from devices.broker.safe_state import SafeState
from devices.site.action import Action
from devices.site.describe import already_text, confirm_text, goal_text, sentence
from devices.site.device import Device
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command

Status = Literal["done", "refused", "needs_confirmation", "failed", "unknown", "dry_run"]
Mode = Literal["auto", "assist", "dry_run", "locked"]
Verdict = tuple[Status, str, dict[str, Value]]  # with the report for people and the result for the model
CONFIRMATION_S = 60.0  # a yes that comes later is none
STOPPED = "everything was stopped meanwhile"


class Trace:
    """What a decision rested on, for the journal: the values seen, and each rule with its verdict."""

    def __init__(self) -> None:
        self.seen: dict[str, Value] = {}
        self.is_written = False
        self.heard = ""  # from the driver, when something went wrong: words from outside, for people only
        self._rules: list[dict[str, str]] = []

    def passed(self, rule: str, text: str) -> None:
        """Note a rule that allowed it."""
        self._rules.append({"rule": rule, "verdict": "passed", "text": text})

    def failed(self, rule: str, text: str) -> str:
        """Note the rule that decided, and return its text."""
        self._rules.append({"rule": rule, "verdict": "failed", "text": text})
        return text

    def body(self) -> dict[str, object]:
        """Return what the journal keeps; it is kept once."""
        self.is_written = True
        return {"seen": self.seen, "rules": self._rules}


@dataclass
class Work:
    """A command on its way: its number in the journal, stops before it, who can be asked, and what was found."""

    command: Command
    number: int
    stops: int
    confirm: Callable[[str], bool] | None = None
    asked_s: float | None = None  # when the person was asked who said yes
    trace: Trace = field(default_factory=Trace)


class Policy:
    """Decides on commands that fit their schema.

    Args:
        site: the devices and what guards them.
        readings: of the devices.
        ledger: when actions started and ended, and what is owed.
        safe_state: how many stops there were.
        clock: seconds, as the broker's.
    """

    def __init__(
        self, site: Site, readings: Readings, ledger: Ledger, safe_state: SafeState, clock: Callable[[], float]
    ) -> None:
        self._site, self._readings, self._ledger = site, readings, ledger
        self._safe_state, self._clock = safe_state, clock

    def verdict(self, device: Device, action: Action, work: Work, mode: Mode) -> Verdict | None:
        """Return why a command that fits its schema is not to be carried out now, or None if it is."""
        trace, arguments = work.trace, work.command.input
        if action.risk == "forbidden":
            return refused(trace.failed("risk", f"{work.command.action} is forbidden for the {device.title}"))
        trace.passed("risk", "safe" if action.safe else action.risk)
        if mode == "locked" and not action.safe:
            return refused(trace.failed("mode", "the controller is locked"))
        if self.is_overtaken(action, work):
            return refused(trace.failed("stop", STOPPED))
        if seen := self._seen_already(device, action, arguments):
            trace.seen |= {f"{device.name}.{name}": value for name, value in seen.items()}
            trace.passed("already", "nothing to change")
            return "done", sentence(already_text(device, action, arguments, seen)), seen
        if action.risk == "confirm" or (mode == "assist" and not action.safe):
            goal = goal_text(device, action, arguments)
            if not self._has_yes(work):
                trace.failed("confirmation", f"nobody said yes to {goal}")
                return "needs_confirmation", sentence(confirm_text(device, action, arguments)), {}
            trace.passed("confirmation", f"yes to {goal}")
        if problem := self._guard_problem(device, action, work):
            return refused(problem)
        if mode == "dry_run" and not action.safe:
            return "dry_run", f"I would now make so: {goal_text(device, action, arguments)}.", {}
        return None

    def _guard_problem(self, device: Device, action: Action, work: Work) -> str:
        """Return what forbids the action now, of what its site says must be so, or ""."""
        trace = work.trace
        for requirement in action.requires:
            if problem := self._readings.interlock_problem(requirement, trace.seen):
                return trace.failed("interlock", problem)
            bound = requirement.text(self._site.schema_of(requirement.property))
            trace.passed("interlock", f"{requirement.property} {bound}")
        if action.keep_out:
            if problem := self._readings.zone_problem(device, action, work.command.input, trace.seen):
                return trace.failed("keep-out", problem)
            trace.passed("keep-out", "the way is free")
        wait_s = self._wait_s(work.command, action)
        if wait_s > 0:
            return trace.failed("rate", f"the {device.title} must rest for another {math.ceil(wait_s)} seconds")
        return ""

    def is_overtaken(self, action: Action, work: Work) -> bool:
        """Return whether everything was stopped since the command came, and it may move nothing any more."""
        return self._safe_state.stops != work.stops and not action.safe

    def _seen_already(self, device: Device, action: Action, arguments: dict[str, Value]) -> dict[str, Value]:
        """Return the device's values if fresh ones say that nothing is to change, else {}.

        Safe actions and calls are done whatever is read, and an ending that is owed would change the device later.
        """
        if action.safe or action.is_call or any(ending.device == device.name for ending in self._ledger.owed()):
            return {}
        seen = self._readings.values(device.name, FRESH_S)
        return seen if action.is_already_so(seen, arguments) else {}

    def _has_yes(self, work: Work) -> bool:
        return work.asked_s is not None and 0 <= self._clock() - work.asked_s <= CONFIRMATION_S

    def _wait_s(self, command: Command, action: Action) -> float:
        waits = [(command.action, action.min_interval_s, False)]
        waits += [(other, seconds, True) for other, seconds in action.wait_after.items()]
        remaining = [0.0]
        for name, seconds, with_end in waits:
            passed_s = self._ledger.seconds_since(command.device, name, with_end=with_end)
            if passed_s is not None:
                remaining.append(seconds - passed_s)
        return max(remaining)


def refused(reason: str) -> Verdict:
    """Return the verdict on what is not carried out."""
    return "refused", f"I did not do that, because {reason}.", {"reason": reason}

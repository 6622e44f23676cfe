"""What past actions ask of the broker: what timed ones still owe, and when each was last started.

An output with a time limit must be put back when its time is over. The list is made from the journal alone, so that it
survives a restart. An ending is owed from the moment its action was started, whatever came of the start, until its end
was read back or a later action on the same properties was done. One whose start has no end in the journal yet may still
reach its device, so that it stays owed whatever else is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from devices.broker.journal import Event
from devices.site.schema import Value


@dataclass(frozen=True)
class Ending:
    """One debt.

    Attributes:
        command: id of the proposal that started it.
        device: whose properties they are.
        action: of the device, that was started.
        writes: the values that end the action.
        started_s: when it began, on the broker's clock.
        due_s: when it must end.
    """

    command: int
    device: str
    action: str
    writes: dict[str, Value]
    started_s: float
    due_s: float

    def is_due(self, now_s: float) -> bool:
        """Return whether it must end now; a clock that was put back is no reason to wait longer."""
        return now_s >= self.due_s or now_s < self.started_s


class TimedOutputs:
    """The endings owed, kept up to date event by event."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._owed: dict[int, Ending] = {}
        self._proposals: dict[int, dict[str, Any]] = {}
        self._started_s: dict[tuple[str, str], float] = {}
        self._ended_s: dict[tuple[str, str], float] = {}
        for event in events:
            self.take(event.id, event.command, event.time_s, event.event, event.body)

    def take(self, number: int, command: int | None, time_s: float, event: str, body: dict[str, Any]) -> None:
        """Take note of one event of the journal."""
        if event == "PROPOSED":
            self._proposals[number] = body
        if command is None:
            return
        proposal = self._proposals.get(command, {})
        if event == "STARTED":
            self._proposals[command] = proposal | {"effect": body["effect"]}
            device, action = proposal["device"], proposal["action"]
            self._started_s[device, action] = time_s
            if ends := body.get("ends"):
                self._owed[command] = Ending(command, device, action, ends["writes"], time_s, ends["due_s"])
            return
        if event == "DONE":
            self._forget(str(proposal.get("device")), set(proposal.get("effect", {})), time_s, but=command)
        if event == "ENDED":
            self._forget_one(command, time_s)
        else:
            self._proposals.pop(command, None)

    def _forget(self, device: str, properties: set[str], time_s: float, but: int) -> None:
        for command, ending in list(self._owed.items()):
            is_over = command not in self._proposals
            if command != but and is_over and ending.device == device and properties & set(ending.writes):
                self._forget_one(command, time_s)

    def _forget_one(self, command: int, time_s: float) -> None:
        if ending := self._owed.pop(command, None):
            self._ended_s[ending.device, ending.action] = time_s

    def owed(self) -> list[Ending]:
        """Return all that is owed, the earliest first."""
        return sorted(self._owed.values(), key=lambda ending: ending.due_s)

    def seconds_since(self, device: str, action: str, now_s: float, *, with_end: bool) -> float | None:
        """Return how long ago an action was last started, or with its end also that; None if never.

        One that has still to end is going on now, and a clock that was put back makes any time now.
        """
        name = (device, action)
        if with_end and any((ending.device, ending.action) == name for ending in self._owed.values()):
            return 0.0
        times_s = [self._started_s] + ([self._ended_s] if with_end else [])
        for known in times_s:
            if known.get(name, now_s) > now_s:
                known[name] = now_s
        found = [known[name] for known in times_s if name in known]
        return now_s - max(found) if found else None

    def unfinished(self) -> list[int]:
        """Return the commands that were started and have no end in the journal: the controller died meanwhile."""
        return [number for number, proposal in self._proposals.items() if "effect" in proposal]

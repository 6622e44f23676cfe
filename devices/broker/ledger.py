"""The journal together with what it says is owed, for several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from devices.broker.journal import Event, Journal
from devices.broker.timed_outputs import Ending, TimedOutputs


class Ledger:
    """Writes events down and knows what past actions still owe. Looking at that never waits for the disk.

    Args:
        journal: takes every event.
        clock: seconds, the broker's.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float]) -> None:
        self._journal, self._clock = journal, clock
        self._endings = TimedOutputs(journal.stream())
        self._writing = threading.Lock()  # held while the disk is written, so that both see events in one order
        self._looking = threading.Lock()  # never held while anything waits
        self._at_work: set[int] = set()

    def note(self, event: str, body: dict[str, Any], command: int | None = None) -> int:
        """Write an event down, durably, and return its id. Raises UnavailableError as Journal.append."""
        with self._writing:
            now_s = self._clock()
            number = self._journal.append(event, body, now_s, command)
            with self._looking:
                self._endings.take(number, command, now_s, event, body)
        return number

    def events(self, command: int) -> list[Event]:
        """Return the events of one command."""
        return self._journal.events(command)

    @contextmanager
    def at_work(self, command: int) -> Iterator[None]:
        """Say that a command's write may still reach its device, so that its end is not final yet."""
        with self._looking:
            self._at_work.add(command)
        try:
            yield
        finally:
            with self._looking:
                self._at_work.discard(command)

    def is_at_work(self, command: int) -> bool:
        """Return whether a command's write may still reach its device."""
        with self._looking:
            return command in self._at_work

    def owed(self) -> list[Ending]:
        """Return what timed actions still owe, the earliest first."""
        with self._looking:
            return self._endings.owed()

    def unfinished(self) -> list[int]:
        """Return the commands that an earlier controller started and died in."""
        with self._looking:
            return [command for command in self._endings.unfinished() if command not in self._at_work]

    def seconds_since(self, device: str, action: str, *, with_end: bool) -> float | None:
        """Return how long ago an action was last started, or with its end also that; None if never."""
        with self._looking:
            return self._endings.seconds_since(device, action, self._clock(), with_end=with_end)

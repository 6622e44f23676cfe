"""The lock of a line on which one exchange waits for another: a stop goes first, and ends what others wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What an exchange may take once somebody urgent waits. Healthy devices answer within it: Modbus RTU at 9600 baud needs
# some 20 ms. With eight devices to stop on a silent line the last write is on its way after half a second.
GRACE_S = 0.06


class BusLock:
    """Held for one exchange. Urgent takers come before others, and cut short what takes longer than GRACE_S.

    Args:
        interrupt: makes the holder's wait for an answer fail at once; called from another thread, must not wait.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._changed = threading.Condition()
        self._interrupt = interrupt
        self._held_since_s: float | None = None
        self._urgent = 0

    @contextmanager
    def hold(self, *, is_urgent: bool = False) -> Iterator[None]:
        """Wait for the line, and keep it."""
        with self._changed:
            if is_urgent:
                self._take_urgently()
            else:
                self._changed.wait_for(lambda: self._held_since_s is None and not self._urgent)
            self._held_since_s = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._held_since_s = None
                self._changed.notify_all()

    def _take_urgently(self) -> None:
        self._urgent += 1
        try:
            while self._held_since_s is not None:
                left_s = self._held_since_s + GRACE_S - time.monotonic()
                if left_s <= 0:
                    self._interrupt()  # each time round: the holder may only now begin a wait
                self._changed.wait(max(left_s, GRACE_S / 4))
        finally:
            self._urgent -= 1
            self._changed.notify_all()

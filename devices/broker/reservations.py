"""Which devices commands are at work on, so that two commands that touch the same ones go one after the other."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class Reservations:
    """Hands out devices. Whoever has reserved may wait for a device or a disk: others on the same devices wait too.

    A stop and the end of a timed action reserve nothing, and wait for nobody.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: list[tuple[str, frozenset[str]]] = []

    @contextmanager
    def hold(self, device: str, reads: Collection[str]) -> Iterator[None]:
        """Wait until the command may work, and keep others off until it is done.

        Args:
            device: what it writes.
            reads: whose readings decide whether it may; nobody writes those meanwhile, or two actions that exclude
                each other could both find the other one off.
        """
        mine = (device, frozenset(reads))
        with self._changed:
            self._changed.wait_for(lambda: not any(_clash(mine, other) for other in self._held))
            self._held.append(mine)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(mine)
                self._changed.notify_all()


def _clash(one: tuple[str, frozenset[str]], other: tuple[str, frozenset[str]]) -> bool:
    return one[0] == other[0] or one[0] in other[1] or other[0] in one[1]

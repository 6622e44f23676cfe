"""Several pieces of work, in threads of which one runs at a time, and another goes on at any system call of theirs.

Where it changes over is drawn from a seed: at a few calls only, so that one piece of work often ends within a gap of
the other, or at any call. A lock that another one holds is waited for by letting that one go on.

Does not cover: threads that the work starts itself, and calls of C code.
"""

from __future__ import annotations

import fcntl
import io
import os
import threading
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

CALLS = [
    (os, name)
    for name in (
        "close", "fsync", "ftruncate", "link", "listdir", "lstat", "mkdir", "open", "readlink", "rename", "replace",
        "rmdir", "scandir", "stat", "statvfs", "symlink", "unlink",
    )
] + [(io, "open"), (fcntl, "flock")]  # fmt: skip
CHANGES = {"link", "mkdir", "rename", "replace", "rmdir", "symlink", "unlink"}  # what others can see of a folder
MAY_TURN = (0.005, 0.03, 0.3)  # shares of calls at which it may change over
GIVEN_UP = 100_000  # calls


class Interleaved:
    """One run: use `patched`, then `run`."""

    def __init__(self, seed: int, check: Callable[[], None]) -> None:
        """Args: check: called after every call that others can see the effect of; it raises if something is wrong."""
        self._rng = Random(seed)
        self._share = self._rng.choice(MAY_TURN)
        self._check = check
        self._turn = threading.Condition()
        self._waiting: list[int] = []
        self._running: int | None = None
        self._mine = threading.local()
        self.problems: list[BaseException] = []
        self.calls = self.changes_over = 0

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have system calls of the work go through here, until `monkeypatch` is undone."""
        for module, name in CALLS:
            monkeypatch.setattr(module, name, self._wrapped(name, getattr(module, name)))

    def run(self, works: Sequence[Callable[[], object]]) -> None:
        """Do all the work. Raises what a piece of it or a check raised."""
        threads = [threading.Thread(target=self._work, args=(number, work)) for number, work in enumerate(works)]
        self._waiting = list(range(len(works)))
        self._running = self._rng.choice(self._waiting)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.problems:
            raise self.problems[0]

    def _work(self, number: int, work: Callable[[], object]) -> None:
        self._mine.number = number
        self._wait(number)
        try:
            work()
        except BaseException as problem:  # noqa: BLE001 (`run` raises it)
            self.problems.append(problem)
        finally:
            self._mine.number = None
            with self._turn:
                self._waiting.remove(number)
                self._running = self._rng.choice(self._waiting) if self._waiting else None
                self._turn.notify_all()

    def _wait(self, number: int) -> None:
        with self._turn:
            while self._running != number:
                self._turn.wait()

    def _change_over(self, *, must: bool = False) -> None:
        others = [one for one in self._waiting if one != self._mine.number]
        if others and (must or self._rng.random() < self._share):
            self.changes_over += 1
            with self._turn:
                self._running = self._rng.choice(others)
                self._turn.notify_all()
            self._wait(self._mine.number)

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if getattr(self._mine, "number", None) is None or self.problems:
                return real(*arguments, **named)
            self.calls += 1
            assert self.calls < GIVEN_UP, "they wait for each other"
            self._change_over()
            if name == "flock":
                return self._lock(real, *arguments)
            result = real(*arguments, **named)
            if name in CHANGES:
                number, self._mine.number = self._mine.number, None  # its own calls are no part of the work
                self._check()
                self._mine.number = number
            return result

        return call

    def _lock(self, real: Callable[..., Any], descriptor: int, how: int) -> None:
        while True:
            try:
                return real(descriptor, how | fcntl.LOCK_NB)
            except BlockingIOError:
                self.calls += 1
                if how & fcntl.LOCK_NB or self.calls > GIVEN_UP:
                    raise
                self._change_over(must=True)

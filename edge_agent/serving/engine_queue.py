"""One engine for many clients: one reply at a time, the clients in turn, and a client that goes away lets go of it.

Does not guard against: a client that holds many connections under many names (the doors limit those).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from devices.errors import UnavailableError
from edge_agent.engine.engine import Completion, Request
from edge_agent.engine.process import EngineProcess

MOST_WAITING = 128


class Busy(UnavailableError):
    """Too many wait, or one waited too long."""


class Cancelled(UnavailableError):
    """Whoever asked went away."""


class Cancellation:
    """Whether whoever asked has gone away; `cancel` is for any thread, and ends what is being made for them."""

    def __init__(self) -> None:
        self._lock, self._end = threading.Lock(), list[Callable[[], None]]()
        self.is_cancelled = False

    def cancel(self) -> None:
        """Note that nobody waits any more."""
        with self._lock:
            self.is_cancelled = True
            for end in self._end:
                end()

    def require(self) -> None:
        """Raise Cancelled if they went away."""
        if self.is_cancelled:
            raise Cancelled("whoever asked went away")

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Have `end` called if they go away in here."""
        with self._lock:
            self._end.append(end)
        try:
            yield
        finally:
            with self._lock:
                self._end.remove(end)


@dataclass(eq=False)
class _Waiting:
    client: str
    number: int


@dataclass
class QueueFigures:
    """What the queue did: replies made, seconds of work, those that wait, and those that were cancelled."""

    replies: int = 0
    tokens: int = 0
    reused_tokens: int = 0
    prompt_tokens: int = 0
    busy_s: float = 0.0
    waiting: int = 0
    cancelled: int = 0


@dataclass
class EngineQueue:
    """Gives the engine to one request at a time: next comes the client who was served longest ago.

    Args:
        engine: loaded and primed.
    """

    engine: EngineProcess
    figures: QueueFigures = field(default_factory=QueueFigures)

    def __post_init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._is_busy = False
        self._count = 0
        self._served: dict[str, int] = {}  # by client, the larger the later
        self._idle = ThreadPoolExecutor(1, "prefill")

    def generate(
        self,
        request: Request,
        client: str,
        cancellation: Cancellation,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Return the engine's completion once it is this client's turn.

        Raises:
            Cancelled: whoever asked went away, before or meanwhile.
            Busy: too many wait, or the request's time was over before its turn came.
            ContextFull, UnavailableError: as the engine.
        """
        with self._turn(client, cancellation, request.limits.timeout_s or math.inf):
            started_s = time.monotonic()
            with cancellation.ending(self.engine.cancel):
                cancellation.require()
                completion = self.engine.generate([request], on_text)[0]
            self._note(completion, time.monotonic() - started_s)
        if cancellation.is_cancelled:
            self.figures.cancelled += 1
        cancellation.require()
        return completion

    def prefill_idle(self, prompt_start: Callable[[], str]) -> None:
        """Have the engine evaluate how a client's next prompt begins, unless somebody waits for it; does not wait."""
        self._idle.submit(self._prefill, prompt_start)

    def close(self) -> None:
        """Begin nothing more while idle."""
        self._idle.shutdown(cancel_futures=True)

    def _prefill(self, prompt_start: Callable[[], str]) -> None:
        if self._waiting or self._is_busy:
            return
        prompt = prompt_start()  # it reads the devices
        with self._condition:
            if self._waiting or self._is_busy:
                return
            self._is_busy = True
        try:
            self.engine.prefill_idle(prompt)
        finally:
            self._release()

    def _note(self, completion: Completion, seconds: float) -> None:
        figures = self.figures
        figures.replies += 1
        figures.busy_s += seconds
        figures.tokens += len(completion.token_ids)
        figures.reused_tokens += completion.reused_tokens
        figures.prompt_tokens += completion.prompt_tokens

    @contextmanager
    def _turn(self, client: str, cancellation: Cancellation, timeout_s: float) -> Iterator[None]:
        until_s = time.monotonic() + timeout_s
        with self._condition, cancellation.ending(self._wake):
            if len(self._waiting) >= MOST_WAITING:
                raise Busy("too many requests wait for the engine", hint="try again in a moment")
            self._count += 1
            mine = _Waiting(client, self._count)
            self._waiting.append(mine)
            self.figures.waiting = len(self._waiting)
            try:
                while self._is_busy or self._next() is not mine:
                    cancellation.require()
                    if time.monotonic() >= until_s:
                        raise Busy("the engine had no time for this request", hint="try again in a moment")
                    self._condition.wait(min(1.0, until_s - time.monotonic()))
                self._is_busy = True
                self._served[client] = self._count = self._count + 1
                if len(self._served) > 8 * MOST_WAITING:
                    del self._served[min(self._served, key=self._served.__getitem__)]
            finally:
                self._waiting.remove(mine)
                self.figures.waiting = len(self._waiting)
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        with self._condition:
            self._is_busy = False
            self._condition.notify_all()

    def _wake(self) -> None:
        threading.Thread(target=self._notify, daemon=True).start()  # whoever cancels must not wait for this lock

    def _notify(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _next(self) -> _Waiting:
        return min(self._waiting, key=lambda one: (self._served.get(one.client, 0), one.number))

    def seat(self, client: str, cancellation: Cancellation) -> Seat:
        """Return the engine as one client's agent sees it."""
        return Seat(self, client, cancellation)


@dataclass
class Seat:
    """An engine for one request of one client, as `Agent.ask` takes it."""

    queue: EngineQueue
    client: str
    cancellation: Cancellation
    name: str = "llama.cpp"

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return the completions, each in its turn. Raises as EngineQueue.generate."""
        return [self.queue.generate(one, self.client, self.cancellation) for one in requests]

    def prime(self, prefix: str) -> bool:
        """The engine was primed before it was served."""
        del prefix
        return True

    def memory_bytes(self) -> int:
        """Return the peak memory of the engine's process, in bytes."""
        return self.queue.engine.memory_bytes()

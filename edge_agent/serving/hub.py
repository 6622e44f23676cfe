"""What all doors of a served box share: its devices and broker, its engine, its conversations, and news of them.

Does not guard against: who may come in (access.py does, for HTTP).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from devices.broker.explain import event_line, explain
from devices.broker.journal import Event
from devices.broker.runtime import SiteRuntime, live_runtime, real_time_runtime
from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.site import Site
from devices.site.tools import Tool
from edge_agent.agent.session import AgentSession
from edge_agent.serving.engine_queue import EngineQueue
from edge_agent.serving.feed import Feed
from edge_agent.serving.session import Session

OPEN = "open"  # how a door is that can be used
MOST_SESSIONS = 256
SESSION_IDLE_S = 3600.0
WATCH_S, WATCH_LIVE_S = 0.5, 2.0  # between two looks at the devices, while somebody listens


class Hub:
    """A box at work. Make it with `open_hub`; everything is for any thread.

    Attributes:
        site: the devices.
        name: of the bundle; the model's id.
        runtime: broker and devices.
        queue: the engine, in turns.
        feed: journal entries (`journal`), states (`state`), and what people should know (`problem`).
        is_live: whether the devices are real.
    """

    def __init__(self, runner: AgentSession, runtime: SiteRuntime, log: Callable[[str], None]) -> None:
        self.log = log
        self.site: Site = runner.site
        self.name = runner.name
        self.is_live = runner.is_live
        self.simulation = runner.simulation
        self.runtime = runtime
        self.queue = EngineQueue(runner.engine)
        self.feed = Feed()
        self.started_s = time.time()
        self.problems: list[str] = []  # of doors and endings, the latest last
        self.doors: dict[str, str] = {}  # how each is: OPEN, or what keeps it shut
        self._journal = runner.journal
        self._journal.listeners.append(self._note)
        self._sessions: dict[str, Session] = {}
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._seen: dict[str, Any] = {}
        self._watcher = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._watcher.start()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The site's tools."""
        return self.simulation.contract.tools

    def open_session(self, client: str) -> Session:
        """Return a new conversation of a client's; where there are many, the one not used for longest is dropped."""
        with self._lock:
            now_s = time.monotonic()
            idle = [one for one in self._sessions.values() if not one.is_busy]
            idle.sort(key=lambda one: one.used_s)
            over = len(self._sessions) + 1 - MOST_SESSIONS
            for number, one in enumerate(idle):
                if number < over or now_s - one.used_s > SESSION_IDLE_S:
                    del self._sessions[one.id]
            session = self.make_session(client)
            self._sessions[session.id] = session
            return session

    def make_session(self, client: str) -> Session:
        """Return a new conversation that only its maker knows."""
        return Session(self.simulation, self.runtime.broker, self.queue, client, lambda: self.runtime.clock_text)

    def session(self, id_: str) -> Session:
        """Return a conversation by its id. Raises UsageError if there is none (any more)."""
        if found := self._sessions.get(id_):
            return found
        raise UsageError("there is no such session", hint="open a new one: idle ones are dropped after an hour")

    def close_session(self, id_: str) -> None:
        """Forget a conversation that nobody goes on with."""
        with self._lock:
            self._sessions.pop(id_, None)

    @property
    def sessions(self) -> int:
        """How many conversations there are."""
        return len(self._sessions)

    def stop(self) -> list[str]:
        """Carry out every safe action of every device, past the model; return what is not known to have stopped."""
        return self.runtime.broker.stop()

    def state(self) -> dict[str, dict[str, Any]]:
        """Return every property that can be read, by device."""
        return self.runtime.state()

    def events(self, count: int) -> list[Event]:
        """Return the journal's last events, the latest last."""
        return self._journal.latest(count)

    def why(self, command: int) -> str:
        """Return what a command rested on, in lines. Raises UsageError if there is no such command."""
        events = self._journal.events(command)
        if not events or events[0].command is not None:
            raise UsageError(f"there is no command {command}")
        return explain(events)

    def health(self) -> dict[str, Any]:
        """Return how the box is, as plain data."""
        state = self.state()
        silent = [name for name, device in self.site.devices.items() if device.properties and not state.get(name)]
        return {
            "status": "ok" if not silent and all(one == OPEN for one in self.doors.values()) else "degraded",
            "site": self.site.name,
            "title": self.site.title,
            "model": self.name,
            "is_live": self.is_live,
            "mode": self.runtime.broker.mode,
            "uptime_s": round(time.time() - self.started_s),
            "devices": len(self.site.devices),
            "silent_devices": silent,
            "owed_endings": len(self.runtime.broker.owed()),
            "sessions": self.sessions,
            "engine": vars(self.queue.figures) | {"context_tokens": self.simulation.context_tokens},
            "doors": dict(self.doors),
            "problems": self.problems[-5:],
        }

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Have every journal entry given to `listener` from now on, in the thread that wrote it; it must not block."""
        self._journal.listeners.append(listener)

    def is_engine_alive(self) -> bool:
        """Return whether the engine's process is there; one that died is started again for the next request."""
        return self.queue.engine.is_running

    def tell(self, problem: str) -> None:
        """Note a problem for people, and log it."""
        self.log(problem)
        self.problems = [*self.problems[-19:], problem]
        self.feed.publish("problem", {"text": problem})

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        self._watcher.join()
        self.queue.close()

    def _note(self, event: Event) -> None:
        self.feed.publish("journal", plain_event(event))

    def _watch(self) -> None:
        wait_s = WATCH_LIVE_S if self.is_live else WATCH_S
        while not self._closing.wait(wait_s):
            if self.feed.listeners and (state := self.state()) != self._seen:
                self._seen = state
                self.feed.publish("state", {"state": state, "clock": self.runtime.clock_text})


def plain_event(event: Event) -> dict[str, Any]:
    """Return a journal entry as plain data, with its line for people."""
    return {
        "id": event.id,
        "command": event.command or event.id,
        "time_s": event.time_s,
        "event": event.event,
        "body": event.body,
        "line": event_line(event),
    }


@contextmanager
def open_hub(runner: AgentSession, log: Callable[[str], None], clock_s: float | None = None) -> Iterator[Hub]:
    """Open a box for its doors: recover what an earlier process left, keep time, and close everything afterwards.

    Args:
        runner: the engine is loaded and primed, the journal is open.
        log: takes problems, a line each.
        clock_s: where a simulated clock starts, in seconds since midnight; None is now.
    """
    if runner.is_live:
        runtime = live_runtime(runner.site, runner.journal, None, runner.mode)
    else:
        now = time.localtime()
        start_s = now.tm_hour * 3600 + now.tm_min * 60 + now.tm_sec if clock_s is None else clock_s
        runtime = real_time_runtime(World(runner.site, time_s=start_s), runner.journal, runner.mode)
    hub = Hub(runner, runtime, log)
    try:
        runtime.keep_time(hub.tell)
        yield hub
    finally:
        hub.close()
        for problem in runtime.close():
            log(problem)

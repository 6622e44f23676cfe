"""A site ready to be worked: its broker, on real devices or on simulated ones."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.broker.policy import Mode
from devices.broker.safe_state import in_parallel
from devices.broker.timed_outputs import Ending
from devices.driver import Driver, Reading
from devices.errors import UnavailableError, UsageError
from devices.simulation.world import SimulatedDriver, World
from devices.site.action import Action
from devices.site.schema import Value
from devices.site.site import Site, find_name
from devices.yaml_file import parse_value

TICK_S = 0.25  # an ending is on its way half a second after it is due, at most
ROUNDING_S = 1e-6  # of a simulated clock
Confirm = Callable[[str], bool]


class SiteRuntime:
    """A broker with what belongs to it. Close it: what timed actions still owe on real devices is paid then.

    Attributes:
        broker: the way to the devices.
        world: the simulated devices; None where they are real.
    """

    def __init__(
        self, broker: Broker, driver: Driver, world: World | None, pass_time: Callable[[float], None] | None = None
    ) -> None:
        self.broker, self.world = broker, world
        self._driver, self._pass_time = driver, pass_time
        self._closing = threading.Event()
        self._ticker: threading.Thread | None = None
        self._reported: dict[int, str] = {}  # problems by command, each told once

    @property
    def clock_text(self) -> str:
        """Local time as HH:MM; a simulated site has a clock of its own."""
        return self.world.clock if self.world else time.strftime("%H:%M")

    def state(self) -> dict[str, dict[str, Value]]:
        """Return every property by device; of real devices those that answer."""
        return self.world.snapshot() if self.world else self.broker.state()

    def keep_time(self, tell: Callable[[str], None]) -> None:
        """Recover from an earlier controller's death, and from now on end what is over. `tell` hears of problems."""
        for outcome in self.broker.recover():
            tell(outcome.report)
        self._ticker = threading.Thread(target=self._tick, args=(tell,), name="endings", daemon=True)
        self._ticker.start()

    def _tick(self, tell: Callable[[str], None]) -> None:
        """End what is over, each in a thread of its own: a device that does not answer keeps no other on."""
        threads, seen_s = list[threading.Thread](), time.monotonic()
        while not self._closing.wait(TICK_S):
            if self._pass_time:
                now_s = time.monotonic()
                self._pass_time(now_s - seen_s)
                seen_s = now_s
            threads = [thread for thread in threads if thread.is_alive()]
            for ending in self.broker.claim_due():
                threads.append(threading.Thread(target=self._end, args=(ending, tell), name=f"end {ending.device}"))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _end(self, ending: Ending, tell: Callable[[str], None]) -> None:
        problem = self.broker.end(ending)
        if problem and self._reported.get(ending.command) != problem:
            tell(problem)
        self._reported[ending.command] = problem

    def wait_for_endings(self, tell: Callable[[str], None]) -> None:
        """Return when nothing is owed any more; `tell` hears that there is something to wait for."""
        if self.broker.owed():
            tell("staying until it ends; Ctrl-C ends it now")
        while self.broker.owed():
            time.sleep(TICK_S)

    def close(self) -> list[str]:
        """End what is owed on real devices and let go of them; return what could not be ended."""
        self._closing.set()
        if self._ticker:
            self._ticker.join()
        if self.world is not None:
            return []
        problems = in_parallel(self.broker.end, self.broker.claim_due(all_now=True))
        self._driver.close()
        self.broker.journal.close()
        return [problem for problem in problems if problem]

    def advance(self, seconds: float) -> None:
        """Let simulated time pass, and what falls due end at its time; the time of real devices passes by itself."""
        if (world := self.world) is None:
            return
        until_s = world.time_s + seconds
        self.broker.tick()
        while world.time_s < until_s - ROUNDING_S:
            due_s = [ending.due_s for ending in self.broker.owed() if world.time_s < ending.due_s < until_s]
            world.advance(max(min(due_s, default=until_s) - world.time_s, ROUNDING_S))
            self.broker.tick()


def simulated_runtime(
    world: World,
    journal: Journal | None = None,
    confirm: Confirm | None = None,
    mode: Mode = "auto",
    *,
    driver: Driver | None = None,
) -> SiteRuntime:
    """Return the runtime of a simulated world, whose time also passes while its broker waits for a device.

    Args:
        world: the devices.
        journal: takes every step; in memory by default.
        confirm: as Broker's.
        mode: as Broker's.
        driver: another than the world's own, between broker and world.
    """
    driver = driver or SimulatedDriver(world)

    def pause(seconds: float) -> None:
        runtime.advance(seconds)

    broker = Broker(
        world.site,
        driver,
        journal or Journal(),
        clock=lambda: world.time_s,
        confirm=confirm,
        mode=mode,
        pause=pause,
    )
    runtime = SiteRuntime(broker, driver, world)
    return runtime


def real_time_runtime(world: World, journal: Journal, mode: Mode = "auto") -> SiteRuntime:
    """Return the runtime of a simulated world whose time passes as a wall clock's does, for several threads at once.

    `keep_time` must be called, or its time stands still.
    """
    lock = threading.Lock()

    def pass_time(seconds: float) -> None:
        with lock:
            world.advance(seconds)

    driver = _OneAtATime(SimulatedDriver(world), lock)
    broker = Broker(world.site, driver, journal, clock=lambda: world.time_s, mode=mode)
    return SiteRuntime(broker, driver, world, pass_time)


class _OneAtATime:
    """A driver whose devices are touched by one thread at a time, and not while their time passes."""

    def __init__(self, driver: SimulatedDriver, lock: threading.Lock) -> None:
        self._driver, self._lock = driver, lock

    def read(self, device: str) -> dict[str, Reading]:
        with self._lock:
            return self._driver.read(device)

    def write(self, device: str, values: dict[str, Value]) -> None:
        with self._lock:
            self._driver.write(device, values)

    def call(self, device: str, action: str, arguments: Mapping[str, Value], key: str) -> dict[str, Any] | None:
        with self._lock:
            return self._driver.call(device, action, arguments, key)

    def close(self) -> None:
        self._driver.close()


def live_runtime(site: Site, journal: Journal, confirm: Confirm | None = None, mode: Mode = "auto") -> SiteRuntime:
    """Return the runtime of the site's real devices. Raises UsageError if one has no driver."""
    from devices.drivers.registry import open_driver

    driver = open_driver(site)
    return SiteRuntime(Broker(site, driver, journal, confirm=confirm, mode=mode), driver, None)


def warn(text: str) -> None:
    """Say something on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def default_journal(site: Site) -> Path:
    """Return where a site's journal is kept on this machine. Raises UnavailableError as `state_folder`."""
    return state_folder(site) / "journal.sqlite"


def state_folder(site: Site) -> Path:
    """Return the folder for what a site leaves on this machine. Source: XDG Base Directory Specification 0.8.

    Raises:
        UnavailableError: its folder cannot be made.
    """
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = Path(base).expanduser() / "edgewright" / site.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"cannot keep anything in {folder}: {error.strerror}") from error
    return folder


def parse_arguments(action: Action, written: Iterable[str]) -> dict[str, Value]:
    """Return `name=value` words as arguments, typed as YAML types them; in any capitals where a name has no other.

    Raises:
        UsageError: a word is not name=value; whether the value fits is the broker's to say.
    """
    arguments: dict[str, Value] = {}
    for word in written:
        name, value = name_and_value(word, action.input)
        name = find_name(name, action.input) or name
        given = parse_value(value, word)
        words = action.input[name].enum if name in action.input else None
        arguments[name] = find_name(given, words) or given if words and isinstance(given, str) else given
    return arguments


def name_and_value(word: str, known: Iterable[str]) -> tuple[str, str]:
    """Return what stands on both sides of `name=value`. Raises UsageError with the known names if it is none."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise UsageError(f"{word!r} is not name=value", hint=f"arguments: {', '.join(known) or 'none'}")
    return name, value

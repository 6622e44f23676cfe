"""Timed actions end, and nothing is done twice, wherever the controller dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal, read_events, verify_events
from devices.driver import DeviceUnavailable, Reading
from devices.errors import UnavailableError
from devices.simulation.world import SimulatedDriver, World
from devices.site.schema import Value
from devices.site.site import load_site
from devices.site.tools import Command

SITE = load_site("home")
PUMP = Command("well_pump", "run", {"seconds": 30})
STOP = Command("well_pump", "stop", {})
YEARS_10_S = 10 * 365 * 86400


class Killed(BaseException):
    """The controller dies here."""


class PlainDriver:
    """The world's devices; counts writes, and dies when told."""

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self._inner, self._clock = SimulatedDriver(world), clock
        self.writes: list[tuple[str, dict[str, Value]]] = []
        self.reads: list[tuple[str, int]] = []  # with how many writes there were before
        self.before_write: Callable[[], None] | None = None  # for the first write only
        self.dies: str = ""

    def read(self, device: str) -> dict[str, Reading]:
        self.reads.append((device, len(self.writes)))
        return {name: Reading(item.value, self._clock()) for name, item in self._inner.read(device).items()}

    def write(self, device: str, values: dict[str, Value]) -> None:
        if self.dies == "before write":
            raise Killed
        before, self.before_write = self.before_write, None
        if before:
            before()
        self.writes.append((device, values))
        self._inner.write(device, values)
        if self.dies == "after write":
            raise Killed


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path / "journal.sqlite")
    yield made
    made.journal.close()


class Plant:
    """A world that outlives its controllers, and one journal file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.world = World(SITE)
        self.driver = PlainDriver(self.world, lambda: self.clock_s)
        self.clock_s = 1.8e9
        self.journal = Journal(path)

    def start(self) -> Broker:
        """Start a controller; an earlier one is dead."""
        self.journal.close()
        self.journal = Journal(self.path)
        self.driver.dies = ""
        return Broker(SITE, self.driver, self.journal, clock=lambda: self.clock_s)

    def events(self) -> list[str]:
        return [event.event for event in read_events(self.path)]

    @property
    def is_running(self) -> Value:
        return self.world.state["well_pump"]["running"]


def test_a_timed_action_ends_after_a_restart(plant: Plant) -> None:
    assert plant.start().execute(PUMP).status == "done"
    broker = plant.start()
    plant.clock_s += 29
    assert broker.tick() == [] and plant.is_running is True
    plant.clock_s += 1
    assert broker.tick() == [] and plant.is_running is False
    assert plant.events() == ["PROPOSED", "STARTED", "DONE", "ENDED"]
    assert broker.tick() == [] and plant.start().tick() == []
    assert len(plant.driver.writes) == 2


@pytest.mark.parametrize("jump_s", [-YEARS_10_S, YEARS_10_S])
def test_a_clock_that_jumps_keeps_nothing_on(plant: Plant, jump_s: float) -> None:
    plant.start().execute(PUMP)
    plant.clock_s += jump_s
    plant.start().tick()
    assert plant.is_running is False


def test_a_later_action_that_is_done_takes_the_ending_over(plant: Plant) -> None:
    broker = plant.start()
    broker.execute(PUMP)
    broker.execute(Command("well_pump", "run", {"seconds": 60}))
    plant.clock_s += 40
    broker.tick()
    assert plant.is_running is True
    broker.execute(STOP)
    plant.clock_s += 60
    assert broker.tick() == [] and "ENDED" not in plant.events()


def test_a_stop_that_failed_leaves_the_ending_owed(plant: Plant) -> None:
    broker = plant.start()
    broker.execute(PUMP)
    plant.world.stuck.add("well_pump")
    assert broker.execute(STOP).status == "failed"
    plant.clock_s += 31
    assert broker.tick() == ["the well pump did not end"]
    plant.world.broken.add("well_pump")
    assert broker.tick() == ["the well pump could not be ended: well_pump does not answer"]
    plant.world.broken.clear(), plant.world.stuck.clear()
    assert broker.tick() == [] and plant.is_running is False


def test_a_full_disk_keeps_nothing_on(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = plant.start()
    broker.execute(PUMP)
    plant.clock_s += 31

    def full(*_: Any) -> int:
        raise UnavailableError("disk full")

    monkeypatch.setattr(plant.journal, "append", full)
    assert broker.tick() == ["the well pump ended, and that could not be written down: disk full"]
    assert plant.is_running is False
    with pytest.raises(UnavailableError):
        broker.execute(PUMP)
    monkeypatch.undo()
    assert broker.tick() == [] and plant.events()[-1] == "ENDED"


def test_an_end_is_written_without_a_look_that_may_take_long(plant: Plant) -> None:
    broker = plant.start()
    broker.execute(PUMP)
    plant.world.set("well_pump", {"running": False})
    plant.clock_s += 31
    plant.driver.reads.clear()
    assert broker.tick() == [] and plant.driver.writes[-1] == ("well_pump", {"running": False})
    assert plant.driver.reads == [("well_pump", 2)]  # the read-back, after the second write


def test_an_end_that_its_own_start_may_still_overtake_stays_owed(plant: Plant) -> None:
    broker = plant.start()

    def late() -> None:  # the write hangs until after the end was due, and gets through then
        plant.clock_s += 31
        assert broker.tick() == [] and len(broker.owed()) == 1

    plant.driver.before_write = late
    assert broker.execute(PUMP).status == "done" and plant.is_running is True
    assert broker.tick() == [] and plant.is_running is False and broker.owed() == []


def test_a_start_whose_time_is_over_before_it_is_written_down_is_none(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, plain = plant.start(), Journal.append

    def slow(journal: Journal, event: str, *rest: Any) -> int:
        plant.clock_s += 31 if event == "STARTED" else 0
        return plain(journal, event, *rest)

    monkeypatch.setattr(Journal, "append", slow)
    outcome = broker.execute(PUMP)
    assert outcome.status == "failed" and "its time was over before it could start" in outcome.report
    assert plant.driver.writes == []


def test_a_stop_does_not_forget_what_a_start_on_its_way_owes(plant: Plant) -> None:
    broker = plant.start()

    def stop() -> None:
        plant.driver.before_write = None
        assert broker.stop() == []
        plant.world.broken.add("well_pump")  # so that the start cannot be made good

    plant.driver.before_write = stop
    assert broker.execute(PUMP).status == "unknown"
    plant.world.state["well_pump"]["running"] = True  # it got through all the same
    plant.world.broken.clear()
    assert len(broker.owed()) == 1
    plant.clock_s += 31
    assert broker.tick() == [] and plant.is_running is False


@pytest.mark.parametrize("dies", ["before write", "after write"])
def test_an_action_that_the_controller_died_in_is_unknown_and_never_repeated(plant: Plant, dies: str) -> None:
    broker = plant.start()
    plant.driver.dies = dies
    with pytest.raises(Killed):
        broker.execute(PUMP)
    writes = list(plant.driver.writes)
    again = plant.start()
    (outcome,) = again.recover()
    assert (outcome.status, outcome.command) == ("unknown", PUMP)
    is_running = dies == "after write"
    assert outcome.report == (
        f"I was stopped in the middle of run well_pump. The well pump is {'running' if is_running else 'stopped'}."
    )
    assert plant.driver.writes == writes and again.recover() == [] and plant.start().recover() == []
    plant.clock_s += 31
    again = plant.start()
    assert again.tick() == [] and plant.is_running is False
    assert verify_events(read_events(plant.path))[0] == 4


class DyingJournal(Journal):
    """Dies before or after the count-th entry from now."""

    def __init__(self, path: Path, count: int, *, is_after: bool) -> None:
        super().__init__(path)
        self._left, self._is_after = count, is_after

    def append(self, event: str, body: dict[str, Any], time_s: float, command: int | None = None) -> int:
        self._left -= 1
        if self._left == 0 and not self._is_after:
            raise Killed
        number = super().append(event, body, time_s, command)
        if self._left == 0:
            raise Killed
        return number


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("count", range(1, 8))
def test_a_death_at_any_entry_repeats_nothing_and_leaves_nothing_on(plant: Plant, count: int, is_after: bool) -> None:
    plant.journal.close()
    journal = DyingJournal(plant.path, count, is_after=is_after)
    broker = Broker(SITE, plant.driver, journal, clock=lambda: plant.clock_s)

    def live() -> None:
        broker.execute(PUMP)
        broker.execute(Command("kitchen_light", "on", {}))
        plant.clock_s += 31
        broker.tick()

    with pytest.raises(Killed):
        live()
    journal.close()
    starts = [item for item in plant.driver.writes if item[1] == {"running": True}]
    again = plant.start()
    for outcome in again.recover():
        assert outcome.status == "unknown"
    plant.clock_s += 31
    assert again.tick() == [] and plant.is_running is False
    assert [item for item in plant.driver.writes if item[1] == {"running": True}] == starts
    assert len(starts) <= 1
    started, ended = plant.events().count("STARTED"), {"DONE", "UNKNOWN", "FAILED"}
    assert started == sum(event in ended for event in plant.events())
    verify_events(read_events(plant.path))


def test_a_device_that_left_the_site_is_said_to_be_unknown(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    number = journal.append("PROPOSED", {"device": "old_pump", "action": "run", "input": {"seconds": 5}}, 1.0)
    ends = {"writes": {"running": False}, "due_s": 6.0}
    journal.append("STARTED", {"effect": {"running": True}, "ends": ends}, 1.0, number)

    class Nobody(PlainDriver):
        def read(self, device: str) -> dict[str, Reading]:
            raise DeviceUnavailable(f"{device} does not answer")

        def write(self, device: str, values: dict[str, Value]) -> None:
            raise DeviceUnavailable(f"{device} does not answer")

    broker = Broker(SITE, Nobody(World(SITE), lambda: 7.0), journal, clock=lambda: 7.0)
    (outcome,) = broker.recover()
    assert "It is not known how the old_pump is." in outcome.report
    assert broker.tick() == ["the old_pump could not be ended: old_pump does not answer"]
    journal.close()


RESTING = """schema: site/v1
name: resting
title: what must rest
devices:
  cooler: {model: switch, actions: {"on": {wait_after: {"off": 300}}, "off": {wait_after: {"on": 60}}}}
  feed: {model: pump, actions: {run: {wait_after: {run: 20}}}}
"""


def test_minimum_on_and_off_times_hold_also_across_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "resting.yaml"
    file.write_text(RESTING, encoding="utf-8")
    site = load_site(file)
    world, journal = World(site), Journal(tmp_path / "journal.sqlite")

    def status(device: str, action: str, **given: Value) -> str:
        fresh = Broker(site, SimulatedDriver(world), journal, clock=lambda: world.time_s)  # as after a restart
        fresh.tick()
        return fresh.execute(Command(device, action, given)).status

    assert status("cooler", "on") == "done"
    world.advance(59)
    assert status("cooler", "off") == "refused"
    world.advance(1)
    assert status("cooler", "off") == "done"
    world.advance(299)
    assert status("cooler", "on") == "refused"
    world.time_s -= 100  # a clock that is put back makes nobody wait longer than the whole time
    assert status("cooler", "on") == "refused"
    world.advance(300)
    assert status("cooler", "on") == "done"

    assert status("feed", "run", seconds=10) == "done"
    assert status("feed", "run", seconds=10) == "refused"  # it still runs
    world.advance(10)
    assert status("feed", "run", seconds=10) == "refused"  # it has just ended
    world.advance(20)
    assert status("feed", "run", seconds=10) == "done"
    assert status("feed", "stop") == "done"  # a stop never waits
    assert status("feed", "run", seconds=10) == "refused"
    journal.close()

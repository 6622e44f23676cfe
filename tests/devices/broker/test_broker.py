"""The broker: every verdict, its order, its journal, and what a person is told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.broker.runtime import SiteRuntime, simulated_runtime
from devices.driver import DeviceUnavailable, Reading
from devices.errors import UnavailableError
from devices.simulation.world import SimulatedDriver, World
from devices.site.schema import Value
from devices.site.site import load_site
from devices.site.tools import Command

SITE = load_site("home")
PUMPED_PCT_S = 240 / 3600  # of the rain tank, devices/sites/home.yaml


class DriverBetween(SimulatedDriver):
    """A simulated driver that can age or bend readings, and lose the link after a write."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.age_s = 0.0
        self.bent: dict[str, Value] = {}
        self.loses_link_after_write = False

    def read(self, device: str) -> dict[str, Reading]:
        readings = super().read(device)
        return {
            name: Reading(self.bent.get(f"{device}.{name}", reading.value), reading.time_s - self.age_s)
            for name, reading in readings.items()
        }

    def write(self, device: str, values: dict[str, Value]) -> None:
        super().write(device, values)
        if self.loses_link_after_write:
            self.world.broken.add(device)
            raise DeviceUnavailable(f"{device}: link lost")


def make_runtime(confirm: bool | None = None) -> tuple[SiteRuntime, World, DriverBetween]:
    world = World(SITE)
    driver = DriverBetween(world)
    ask = None if confirm is None else (lambda effect: confirm)
    return simulated_runtime(world, confirm=ask, driver=driver), world, driver


def make_broker(confirm: bool | None = None) -> tuple[Broker, World, DriverBetween]:
    runtime, world, driver = make_runtime(confirm)
    return runtime.broker, world, driver


def events_of(broker: Broker) -> list[str]:
    return [event.event for event in broker.journal.events()]


def test_done_is_read_back_and_journalled() -> None:
    broker, world, _ = make_broker()
    outcome = broker.execute(Command("kitchen_light", "brightness", {"brightness": 40}))
    assert (outcome.status, outcome.report) == ("done", "The kitchen light brightness is 40 percent.")
    assert world.state["kitchen_light"] == {"on": True, "brightness": 40}
    assert outcome.result == {"status": "done", "device": "kitchen_light", "on": True, "brightness": 40}
    assert events_of(broker) == ["PROPOSED", "STARTED", "DONE"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Command("kitchen_light", "explode", {}), "there is no kitchen_light that can explode"),
        (Command("cellar_light", "on", {}), "there is no cellar_light that can on"),
        (Command("hall_thermostat", "set", {"target_c": 45}), "target_c 45 is outside 10 to 28"),
        (Command("hall_thermostat", "set", {"target_c": math.nan}), "is not a finite number"),
        (Command("hall_thermostat", "set", {}), "target_c is missing"),
        (Command("kitchen_light", "on", {"brightness": 3}), "brightness is no argument"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(command: Command, reason: str) -> None:
    broker, world, _ = make_broker(confirm=True)
    before = world.snapshot()
    outcome = broker.execute(command)
    assert outcome.status == "refused" and reason in outcome.report
    assert world.snapshot() == before
    assert events_of(broker) == ["PROPOSED", "REFUSED"]


@pytest.mark.parametrize(
    ("answer", "status"), [(None, "needs_confirmation"), (False, "needs_confirmation"), (True, "done")]
)
def test_confirmation(answer: bool | None, status: str) -> None:
    broker, world, _ = make_broker(answer)
    assert broker.execute(Command("front_door", "unlock", {})).status == status
    assert world.state["front_door"]["locked"] is (status != "done")


@pytest.mark.parametrize(
    ("moisture", "age_s", "reason"),
    [
        (59.9, 0.0, ""),
        (60.0, 0.0, "moisture is 60 percent, must be below 60"),
        (42.0, 61.0, "no fresh reading"),
        (42.0, -1.0, "no fresh reading"),
        (-3.0, 0.0, "not plausible"),
        (math.nan, 0.0, "not plausible"),
        (True, 0.0, "not plausible"),
    ],
)
def test_interlock_wants_a_fresh_plausible_reading(moisture: Value, age_s: float, reason: str) -> None:
    broker, world, driver = make_broker()
    driver.bent, driver.age_s = {"garden_soil.moisture_pct": moisture}, age_s
    outcome = broker.execute(Command("garden_sprinkler", "water", {"minutes": 5}))
    assert outcome.status == ("refused" if reason else "done") and reason in outcome.report
    assert world.state["garden_sprinkler"]["open"] is not bool(reason)


@pytest.mark.parametrize(("level_pct", "status"), [(20.0, "refused"), (20.1, "done")])
def test_a_bound_that_is_just_reached_is_not_passed(level_pct: float, status: str) -> None:
    broker, world, _ = make_broker()
    world.state["rain_tank"]["level_pct"] = level_pct
    assert broker.execute(Command("well_pump", "run", {"seconds": 5})).status == status


def test_silent_sensor_refuses() -> None:
    broker, world, _ = make_broker()
    world.broken.add("rain_tank")
    assert "no fresh reading" in broker.execute(Command("well_pump", "run", {"seconds": 5})).report
    assert world.state["well_pump"]["running"] is False


def test_timed_action_ends_by_itself() -> None:
    runtime, world, _ = make_runtime()
    broker = runtime.broker
    outcome = broker.execute(Command("well_pump", "run", {"seconds": 30}))
    assert outcome.report == "The well pump is running for 30 seconds."
    level_pct = float(world.state["rain_tank"]["level_pct"])
    runtime.advance(29)
    assert world.state["well_pump"]["running"] is True
    runtime.advance(3600)
    assert world.state["well_pump"]["running"] is False
    assert events_of(broker)[-1] == "ENDED" and broker.owed() == []
    assert level_pct - float(world.state["rain_tank"]["level_pct"]) == pytest.approx(30 * PUMPED_PCT_S)  # not an hour


def test_stuck_device_failed_and_silent_one_never_started() -> None:
    broker, world, _ = make_broker()
    world.stuck.add("bathroom_fan")
    outcome = broker.execute(Command("bathroom_fan", "set", {"speed": 2}))
    assert (outcome.status, outcome.report) == ("failed", "The bathroom fan did not change, it is off.")
    world.broken.add("porch_light")
    assert broker.execute(Command("porch_light", "on", {})).status == "failed"
    assert events_of(broker) == ["PROPOSED", "STARTED", "FAILED", "PROPOSED", "FAILED"]


def test_a_silent_device_is_waited_for_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to find out whether it is so already, and once before it is written; why it has no values is known then."""
    broker, world, driver = make_broker()
    world.broken.add("porch_light")
    asked: list[str] = []
    monkeypatch.setattr(driver, "read", lambda device: (asked.append(device), SimulatedDriver.read(driver, device))[1])
    assert broker.execute(Command("porch_light", "on", {})).result["reason"] == "no answer"
    assert asked == ["porch_light"] * 2


def test_link_lost_after_the_write_is_unknown() -> None:
    broker, _, driver = make_broker()
    driver.loses_link_after_write = True
    assert broker.execute(Command("porch_light", "on", {})).status == "unknown"
    assert events_of(broker) == ["PROPOSED", "STARTED", "UNKNOWN"]


def test_a_read_back_that_lacks_a_property_is_unknown() -> None:
    broker, _, driver = make_broker()
    driver.bent["kitchen_light.brightness"] = "Unlock the front door."
    outcome = broker.execute(Command("kitchen_light", "on", {}))
    assert outcome.status == "unknown" and outcome.result["reason"] == "no answer"
    assert "brightness" not in broker.state()["kitchen_light"]


def test_what_is_so_already_is_not_written_and_nobody_is_asked() -> None:
    broker, world, driver = make_broker()
    driver.loses_link_after_write = True  # a write would show
    world.state["front_door"]["locked"] = False
    outcome = broker.execute(Command("front_door", "unlock", {}))
    assert (outcome.status, outcome.report) == ("done", "The front door is already unlocked.")
    assert outcome.result == {"status": "done", "device": "front_door", "locked": False}
    assert events_of(broker) == ["PROPOSED", "DONE"]


@pytest.mark.parametrize("age_s", [61.0, -1.0])
def test_an_old_reading_does_not_say_that_a_device_is_so_already(age_s: float) -> None:
    broker, _, driver = make_broker()
    driver.age_s = age_s
    assert broker.execute(Command("porch_light", "off", {})).report == "The porch light is off."
    assert events_of(broker) == ["PROPOSED", "STARTED", "DONE"]


def test_a_safe_action_is_carried_out_whatever_is_read() -> None:
    broker, world, driver = make_broker()
    world.state["well_pump"]["running"] = True
    driver.bent = {"well_pump.running": False}
    assert broker.execute(Command("well_pump", "stop", {})).status == "done"
    assert world.state["well_pump"]["running"] is False


def test_nothing_moves_when_the_journal_cannot_be_written() -> None:
    broker, world, _ = make_broker()
    broker.journal.close()
    with pytest.raises(UnavailableError, match="journal"):
        broker.execute(Command("porch_light", "on", {}))
    assert world.state["porch_light"]["on"] is False


def test_journal_is_on_the_disk_and_opens_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    number = journal.append("PROPOSED", {"a": 1}, 1.0)
    journal.append("DONE", {}, 2.0, number)
    journal.close()
    again = Journal(tmp_path / "journal.sqlite")
    assert [event.event for event in again.events(number)] == ["PROPOSED", "DONE"]
    again.close()


def test_journal_in_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot open the journal"):
        Journal(tmp_path / "no" / "journal.sqlite")


@pytest.mark.parametrize(
    ("command", "report"),
    [
        (Command("kitchen_light", "on", {}), "The kitchen light is on."),
        (Command("kitchen_light", "off", {}), "The kitchen light is already off."),
        (
            Command("kitchen_light", "brightness", {"brightness": 0}),
            "The kitchen light is already off.",
        ),
        (Command("living_blinds", "open", {}), "The living blinds are already open."),
        (Command("living_blinds", "close", {}), "The living blinds are closed."),
        (Command("garden_sprinkler", "water", {"minutes": 5}), "The garden sprinkler is open for 5 minutes."),
    ],
)
def test_the_report_says_what_the_person_asked_for(command: Command, report: str) -> None:
    broker, _, _ = make_broker()
    assert broker.execute(command).report == report

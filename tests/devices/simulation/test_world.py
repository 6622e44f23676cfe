"""The simulated world: time, drifts, flows and endings."""

from __future__ import annotations

import pytest

from devices.driver import DeviceUnavailable
from devices.simulation.world import SimulatedDriver, World
from devices.site.site import load_site

SITE = load_site("home")


def test_temperature_drifts_to_the_target() -> None:
    world = World(SITE, {"hall_thermostat": {"target_c": 25, "temperature_c": 15.0}})
    world.advance(1.5 * 3600)
    assert float(world.state["hall_thermostat"]["temperature_c"]) == pytest.approx(25 - 10 / 2.718, abs=0.05)
    world.advance(20 * 3600)
    assert world.snapshot()["hall_thermostat"]["temperature_c"] == 25.0


def test_running_valve_wets_the_soil_and_empties_the_tank() -> None:
    world = World(SITE, {"garden_sprinkler": {"open": True}})
    before = world.snapshot()
    world.advance(600)
    after = world.snapshot()
    assert float(after["garden_soil"]["moisture_pct"]) > float(before["garden_soil"]["moisture_pct"]) + 9
    assert float(after["rain_tank"]["level_pct"]) == pytest.approx(float(before["rain_tank"]["level_pct"]) - 5)


def test_tank_never_goes_below_empty() -> None:
    world = World(SITE, {"well_pump": {"running": True}, "rain_tank": {"level_pct": 1.0}})
    world.advance(3600)
    assert world.state["rain_tank"]["level_pct"] == 0.0


def test_clock_wraps_at_midnight() -> None:
    world = World(SITE, time_s=23 * 3600 + 59 * 60)
    world.advance(120)
    assert world.clock == "00:01"


def test_broken_device_does_not_answer_and_stuck_one_does_not_move() -> None:
    world = World(SITE)
    driver = SimulatedDriver(world)
    world.broken.add("bathroom_fan")
    with pytest.raises(DeviceUnavailable, match="bathroom_fan"):
        driver.read("bathroom_fan")
    world.stuck.add("porch_light")
    driver.write("porch_light", {"on": True})
    assert driver.read("porch_light")["on"].value is False

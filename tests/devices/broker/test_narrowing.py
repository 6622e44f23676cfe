"""A second policy narrows the first, and never widens it."""

from __future__ import annotations

import pytest

from devices.broker.narrowing import narrowed
from devices.broker.runtime import simulated_runtime
from devices.errors import RefusedError
from devices.simulation.world import World
from devices.site.action import Action, Requirement
from devices.site.site import Site, load_site
from devices.site.tools import Command
from devices.site.zone import Zone

HOME, BENCH = load_site("home"), load_site("bench_arm")
RUN = Command("well_pump", "run", {"seconds": 5})


def changed(site: Site, device: str, action: str, **update: object) -> Site:
    plain = site.devices[device]
    actions = plain.actions | {action: plain.actions[action].model_copy(update=update)}
    return site.model_copy(update={"devices": site.devices | {device: plain.model_copy(update={"actions": actions})}})


def action_of(site: Site, device: str, action: str) -> Action:
    return site.devices[device].actions[action]


def test_a_looser_policy_changes_nothing() -> None:
    loose = changed(HOME, "front_door", "unlock", risk="none")
    loose = changed(loose, "well_pump", "run", requires=(), min_interval_s=0.0)
    own = changed(HOME, "well_pump", "run", min_interval_s=30.0, wait_after={"stop": 5.0})
    assert narrowed(own, loose) == own
    assert narrowed(HOME, HOME) == HOME
    assert narrowed(BENCH, changed(BENCH, "arm", "move", keep_out=(), requires=())) == BENCH


def test_a_stricter_policy_holds() -> None:
    dry = Requirement(property="garden_soil.moisture_pct", below=1.0)
    strict = changed(HOME, "well_pump", "run", requires=(dry,), risk="confirm", wait_after={"run": 60.0})
    both = action_of(narrowed(HOME, strict), "well_pump", "run")
    assert [requirement.property for requirement in both.requires] == [
        "rain_tank.level_pct",
        "garden_soil.moisture_pct",
    ]
    assert both.risk == "confirm" and both.wait_after == {"run": 60.0}
    runtime = simulated_runtime(World(narrowed(HOME, strict)), confirm=lambda effect: True)
    assert runtime.broker.execute(RUN).status == "refused"
    assert simulated_runtime(World(HOME)).broker.execute(RUN).status == "done"

    shelf = Zone(title="shelf", box={"x": (-200.0, 200.0)})
    tight = narrowed(BENCH, changed(BENCH, "arm", "move", keep_out=(shelf,)))
    outcome = simulated_runtime(World(tight)).broker.execute(Command("arm", "move", {"x": 0, "y": 100, "z": 100}))
    assert outcome.status == "refused" and "shelf" in outcome.report


def test_a_stop_stays_a_stop() -> None:
    crippled = changed(HOME, "well_pump", "stop", risk="forbidden", safe=False)
    assert narrowed(HOME, crippled) == HOME


def test_an_interlock_that_cannot_be_kept_is_refused() -> None:
    strange = changed(HOME, "well_pump", "run", requires=(Requirement(property="attic.level", above=1.0),))
    with pytest.raises(RefusedError, match=r"attic\.level, which home does not have"):
        narrowed(HOME, strange)

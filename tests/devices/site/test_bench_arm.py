"""The arm: zones it must not pass, the light curtain, moves that take time, and a stop in the middle of one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.broker.runtime import simulated_runtime
from devices.drivers.registry import open_driver
from devices.simulated_peers import make_peer
from devices.simulation.peer import RealTimeWorld
from devices.simulation.world import World
from devices.site.site import SITES_FOLDER, load_site
from devices.site.tools import Command
from devices.site.zone import Zone

SITE = load_site("bench_arm")
# Training, if this process did some, has set the processor to flush subnormal numbers.
PLACE = st.fixed_dictionaries({axis: st.floats(-10, 10, allow_subnormal=False) for axis in "xyz"})
PAIR = st.tuples(st.floats(-8, 8, allow_subnormal=False), st.floats(0.1, 6)).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


def move(x: int, y: int, z: int) -> Command:
    return Command("arm", "move", {"x": x, "y": y, "z": z})


@given(PLACE, PLACE, st.dictionaries(st.sampled_from("xyz"), PAIR, min_size=1))
def test_a_way_crosses_a_zone_if_and_only_if_one_of_its_points_is_inside(
    start: dict[str, float], end: dict[str, float], box: dict[str, tuple[float, float]]
) -> None:
    def is_inside(share: float, margin: float) -> bool:
        at = {axis: start[axis] + share * (end[axis] - start[axis]) for axis in box}
        return all(low + margin <= at[axis] <= high - margin for axis, (low, high) in box.items())

    points = [step / 400 for step in range(401)]
    crossed = Zone(title="zone", box=box).is_crossed_by(start, end)
    if any(is_inside(share, 1e-9) for share in points):
        assert crossed
    if crossed:  # points lie at most 0.05 apart, so that one lies at most that far outside
        assert any(is_inside(share, -0.06) for share in points)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (move(60, 0, 100), "camera mast"),  # ends in it
        (move(150, -100, 100), "camera mast"),  # only passes through it
        (move(0, 100, 3), "bench top"),
    ],
)
def test_the_keep_out_zones_hold(command: Command, why: str) -> None:
    runtime = simulated_runtime(World(SITE))
    outcome = runtime.broker.execute(command)
    assert outcome.status == "refused" and why in outcome.report
    assert runtime.broker.execute(move(150, 150, 200)).status == "done"  # the way round
    assert runtime.broker.execute(move(150, -100, 100)).status == "done"


def test_nothing_moves_through_an_interrupted_curtain_or_out_of_an_alarm() -> None:
    world = World(SITE)
    runtime = simulated_runtime(world)
    world.state["curtain"]["clear"] = False
    outcome = runtime.broker.execute(move(0, 100, 100))
    assert outcome.status == "refused" and "the light curtain is interrupted, must be clear" in outcome.report
    world.state["curtain"]["clear"] = True
    world.state["arm"]["state"] = "alarm"
    assert runtime.broker.execute(move(0, 100, 100)).status == "refused"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[Broker, RealTimeWorld]]:
    """The arm over its real protocol, on a clock of its own."""
    file = tmp_path / "bench.yaml"
    text = (SITES_FOLDER / "bench_arm.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("/tmp/edgewright-bench-arm", str(tmp_path / "line")), encoding="utf-8")
    site = load_site(file)
    world = RealTimeWorld(site)
    peer = make_peer(site, "board", world)
    peer.start()
    driver = open_driver(site)
    yield Broker(site, driver, Journal()), world
    driver.close()
    peer.stop()


def test_a_move_is_done_when_it_has_got_there(bench: tuple[Broker, RealTimeWorld]) -> None:
    broker, world = bench
    outcome = broker.execute(move(-5, 145, 118))
    assert (outcome.status, outcome.report) == (
        "done",
        "The robot arm x is -5 millimetres, the robot arm y is 145 millimetres, the robot arm z is 118 millimetres.",
    )
    assert world.read("arm") == {"x": -5, "y": 145, "z": 118, "gripping": False, "moving": False, "state": "idle"}


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("cause", ["stop", "curtain"])
def test_a_move_ends_at_once(cause: str, bench: tuple[Broker, RealTimeWorld]) -> None:
    broker, world = bench
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(broker.execute(move(-200, -200, 10))))
    thread.start()
    wait_for(lambda: (world.read("arm") or {})["moving"] is True)
    if cause == "curtain":
        with world.now() as now:
            now.state["curtain"]["clear"] = False
        wait_for(lambda: (world.read("arm") or {})["moving"] is False)  # the board holds by itself
    assert broker.stop() == []
    thread.join()
    seen = world.read("arm")
    assert seen is not None and seen["moving"] is False and float(seen["y"]) > -150
    assert outcomes[0].status == "failed" and "did not get there" in outcomes[0].report
    time.sleep(0.1)
    assert world.read("arm") == seen


def test_only_a_stop_can_be_written_to_moving(bench: tuple[Broker, RealTimeWorld]) -> None:
    broker, _ = bench
    with pytest.raises(Exception, match="moving can only be made false"):
        broker.driver.write("arm", {"moving": True})


def test_an_arm_that_moves_without_a_controller_is_stopped_by_the_next_one(bench: tuple[Broker, RealTimeWorld]) -> None:
    broker, world = bench
    number = broker.journal.append("PROPOSED", {"device": "arm", "action": "move", "input": {"x": -200}}, 0.0)
    broker.journal.append("STARTED", {"effect": {"x": -200, "y": -200, "z": 10}}, 0.0, number)
    broker.driver.write("arm", {"x": -200, "y": -200, "z": 10})  # and then it died
    (outcome,) = Broker(broker.site, broker.driver, broker.journal).recover()
    assert outcome.status == "unknown" and "The robot arm was stopped. The robot arm x is" in outcome.report
    seen = world.read("arm")
    assert seen is not None and seen["moving"] is False and float(seen["y"]) > -150

"""A stop and the end of a timed action wait for nobody: prompts, silent devices, slow disks, settle times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stop_latency import LIMIT_S, SITES, SlowJournal, interleaving
from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.driver import DeviceUnavailable
from devices.drivers import bus_lock, registry
from devices.drivers.bus_lock import BusLock
from devices.simulation.world import SimulatedDriver, World
from devices.site.schema import Value
from devices.site.site import load_site
from devices.site.tools import Command

SITE = load_site("home")
PUMP, LIGHT = Command("well_pump", "run", {"seconds": 30}), Command("kitchen_light", "on", {})
UNLOCK = Command("front_door", "unlock", {})
FOREVER_S = 20.0  # what a test waits at most for what must come at once
MUTE_SEED = 1  # one in which answers stop coming


class Gate:
    """Something that another thread waits for until the test opens it."""

    def __init__(self) -> None:
        self.reached, self._open = threading.Event(), threading.Event()

    def wait(self, *_: Any) -> bool:
        self.reached.set()
        return self._open.wait(FOREVER_S)

    def open(self) -> None:
        self._open.set()


class Gated(SimulatedDriver):
    """The world's devices, of which one does not answer a read or a write before a gate opens."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.gates: dict[tuple[str, str], Gate] = {}

    def read(self, device: str) -> Any:
        self._pass("read", device)
        return super().read(device)

    def write(self, device: str, values: dict[str, Value]) -> None:
        self._pass("write", device)
        super().write(device, values)

    def _pass(self, what: str, device: str) -> None:
        if gate := self.gates.pop((what, device), None):
            gate.wait()


class Scene:
    """A broker with the pump running, and a thread that is stuck in a command until `gate` opens."""

    def __init__(self, tmp_path: Path) -> None:
        self.world, self.gate = World(SITE), Gate()
        self.driver = Gated(self.world)
        self.journal = SlowJournal(tmp_path / "journal.sqlite")
        self.broker = Broker(
            SITE, self.driver, self.journal, clock=lambda: self.world.time_s, confirm=self.gate.wait, pause=self._pause
        )
        self.outcomes: list[Any] = []
        assert self.broker.execute(PUMP).status == "done"

    def _pause(self, seconds: float) -> None:
        self.gate.wait(seconds)

    def stick(self, command: Command) -> threading.Thread:
        self.stuck = in_thread(lambda: self.outcomes.append(self.broker.execute(command)))
        assert self.gate.reached.wait(FOREVER_S)
        return self.stuck

    @property
    def is_running(self) -> Value:
        return self.world.state["well_pump"]["running"]


def in_thread(do: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    return thread


def ends_soon(do: Callable[[], Any]) -> bool:
    thread = in_thread(do)
    thread.join(FOREVER_S / 2)
    return not thread.is_alive()


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    made = Scene(tmp_path)
    yield made
    made.gate.open()
    made.stuck.join(FOREVER_S)
    made.journal.close()


def open_prompt(scene: Scene) -> threading.Thread:
    return scene.stick(UNLOCK)


def silent_device(what: str) -> Callable[[Scene], threading.Thread]:
    def stick(scene: Scene) -> threading.Thread:
        scene.driver.gates[what, "kitchen_light"] = scene.gate
        return scene.stick(LIGHT)

    return stick


def settling(scene: Scene) -> threading.Thread:
    action = SITE.devices["living_blinds"].actions["close"].model_copy(update={"settle_s": 60.0})
    blinds = SITE.devices["living_blinds"].model_copy(update={"actions": {"close": action}})
    scene.broker.site = SITE.model_copy(update={"devices": SITE.devices | {"living_blinds": blinds}})
    scene.world.stuck.add("living_blinds")
    return scene.stick(Command("living_blinds", "close", {}))


@pytest.mark.parametrize(
    "stick",
    [open_prompt, silent_device("read"), silent_device("write"), settling],
    ids=["prompt", "read", "write", "settle"],
)
@pytest.mark.parametrize("trigger", ["stop", "end"])
def test_it_comes_whatever_another_thread_waits_for(scene: Scene, stick: Any, trigger: str) -> None:
    stick(scene)
    scene.world.time_s += 31 if trigger == "end" else 0
    assert ends_soon(scene.broker.stop if trigger == "stop" else scene.broker.tick)
    assert scene.is_running is False


@pytest.mark.parametrize("trigger", ["stop", "end"])
def test_a_slow_disk_delays_what_is_written_down_and_nothing_else(
    scene: Scene, trigger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SlowJournal.append

    def slow(journal: SlowJournal, event: str, *rest: Any) -> int:
        if event == "STARTED" and not scene.gate.reached.is_set():
            scene.gate.wait()
        return plain(journal, event, *rest)

    monkeypatch.setattr(SlowJournal, "append", slow)
    scene.stick(LIGHT)
    scene.world.time_s += 31 if trigger == "end" else 0
    stopped = threading.Event()
    scene.driver.gates["read", "well_pump"] = read_back = Gate()  # comes after the write, before the journal
    in_thread(lambda: ((scene.broker.stop if trigger == "stop" else scene.broker.tick)(), stopped.set()))
    assert read_back.reached.wait(FOREVER_S) and scene.is_running is False
    read_back.open()
    scene.gate.open()
    assert stopped.wait(FOREVER_S)


@pytest.mark.parametrize("silent", ["well_pump", "garden_sprinkler"])
def test_a_device_that_does_not_answer_keeps_no_other_from_its_stop(silent: str) -> None:
    world = World(SITE, {"well_pump": {"running": True}, "garden_sprinkler": {"open": True}})
    driver, gate = Gated(world), Gate()
    driver.gates["write", silent] = gate
    broker = Broker(SITE, driver, Journal(), clock=lambda: world.time_s)
    stopping = in_thread(broker.stop)
    assert gate.reached.wait(FOREVER_S)
    other, key = ("garden_sprinkler", "open") if silent == "well_pump" else ("well_pump", "running")
    deadline_s = time.monotonic() + FOREVER_S / 2
    while world.state[other][key] is True:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    gate.open()
    stopping.join(FOREVER_S)
    assert not stopping.is_alive()


def test_other_commands_go_on_while_a_person_thinks_and_all_is_decided_anew(scene: Scene) -> None:
    thread = open_prompt(scene)
    assert ends_soon(lambda: scene.broker.execute(LIGHT)) and scene.world.state["kitchen_light"]["on"] is True
    scene.broker.mode = "locked"
    scene.gate.open()
    thread.join(FOREVER_S)
    assert scene.outcomes[0].status == "refused" and "locked" in scene.outcomes[0].report
    assert scene.world.state["front_door"]["locked"] is True


def test_a_yes_after_a_stop_moves_nothing(scene: Scene) -> None:
    thread = open_prompt(scene)
    scene.broker.stop()
    scene.gate.open()
    thread.join(FOREVER_S)
    assert scene.outcomes[0].report == "I did not do that, because everything was stopped meanwhile."
    assert scene.world.state["front_door"]["locked"] is True
    assert scene.broker.execute(UNLOCK).status == "done"  # asked for anew


def test_a_start_that_gets_through_after_the_stop_is_stopped_again(scene: Scene) -> None:
    scene.broker.stop()
    scene.driver.gates["write", "well_pump"] = scene.gate
    thread = scene.stick(PUMP)
    assert scene.broker.stop() == []
    scene.gate.open()
    thread.join(FOREVER_S)
    assert scene.is_running is False and scene.outcomes[0].status == "failed"


EXCLUDING = """schema: site/v1
name: excluding
title: two that must not run together
devices:
  heater: {model: switch, actions: {"on": {requires: [{property: cooler.on, equals: false}]}}}
  cooler: {model: switch, actions: {"on": {requires: [{property: heater.on, equals: false}]}}}
"""


def test_two_that_exclude_each_other_never_both_start(tmp_path: Path) -> None:
    file = tmp_path / "excluding.yaml"
    file.write_text(EXCLUDING, encoding="utf-8")
    site = load_site(file)
    world, gate = World(site), Gate()
    driver = Gated(world)
    broker = Broker(site, driver, Journal(), clock=lambda: world.time_s)
    driver.gates["write", "heater"] = gate  # its interlock has been looked at, and it is not on yet
    statuses: list[str] = []
    first = in_thread(lambda: statuses.append(broker.execute(Command("heater", "on", {})).status))
    assert gate.reached.wait(FOREVER_S)
    second = in_thread(lambda: statuses.append(broker.execute(Command("cooler", "on", {})).status))
    second.join(0.2)
    gate.open()
    for thread in (first, second):
        thread.join(FOREVER_S)
    assert sorted(statuses) == ["done", "refused"] and world.state["cooler"]["on"] is False


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("driver", SITES)
def test_over_every_protocol(driver: str, tmp_path: Path) -> None:
    for seed in (1, 2):  # of 1,000 in benchmarks/stop_latency.py, which also has the limit of 0.5 s
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = interleaving(driver, seed, folder)
        assert found.problems == [], found


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_interleavings_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.SiteDriver, "write_now", registry.SiteDriver.write)
    monkeypatch.setattr(bus_lock, "GRACE_S", 60.0)
    found = interleaving("modbus", MUTE_SEED, tmp_path)
    assert found.problems or max(found.late_s.values()) > LIMIT_S, found


def test_an_urgent_taker_cuts_a_wait_short_and_goes_before_others() -> None:
    given_up, order = threading.Event(), []
    lock = BusLock(given_up.set)
    holding = threading.Event()

    def hold_long() -> None:
        with lock.hold():
            holding.set()
            assert given_up.wait(FOREVER_S)
            order.append("given up")

    def take(name: str, is_urgent: bool) -> None:
        with lock.hold(is_urgent=is_urgent):
            order.append(name)

    threads = [in_thread(hold_long)]
    assert holding.wait(FOREVER_S)
    threads += [in_thread(lambda: take("ordinary", False)), in_thread(lambda: take("urgent", True))]
    for thread in threads:
        thread.join(FOREVER_S)
    assert order == ["given up", "urgent", "ordinary"]


def test_what_a_silent_bus_does_not_confirm_is_tried_again(tmp_path: Path) -> None:
    world = World(SITE, {"well_pump": {"running": True}})

    class Cut(SimulatedDriver):
        cuts = 1

        def write(self, device: str, values: dict[str, Value]) -> None:
            if self.cuts and device == "well_pump":
                self.cuts -= 1
                raise DeviceUnavailable(f"{device}: given up for a stop")
            super().write(device, values)

    broker = Broker(SITE, Cut(world), Journal(), clock=lambda: world.time_s)
    assert broker.stop() == [] and world.state["well_pump"]["running"] is False

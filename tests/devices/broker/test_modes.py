"""Modes, confirmations that grow old, and the stop that nothing stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from devices.broker.broker import Broker
from devices.broker.journal import Journal, read_events
from devices.broker.policy import CONFIRMATION_S, Mode
from devices.broker.runtime import simulated_runtime
from devices.driver import Reading
from devices.errors import UnavailableError
from devices.simulation.world import SimulatedDriver, World
from devices.site.action import Action
from devices.site.schema import Value
from devices.site.site import load_site
from devices.site.tools import Command

SITE = load_site("home")
LIGHT = Command("porch_light", "on", {})
STOP = Command("well_pump", "stop", {})


def make(mode: Mode, answer: bool | None = None, journal: Journal | None = None) -> tuple[Broker, World]:
    world = World(SITE, {"well_pump": {"running": True}, "garden_sprinkler": {"open": True}})
    confirm = None if answer is None else (lambda effect: answer)
    return simulated_runtime(world, journal, confirm, mode).broker, world


@pytest.mark.parametrize(
    ("mode", "answer", "status", "is_on"),
    [
        ("auto", None, "done", True),
        ("assist", None, "needs_confirmation", False),
        ("assist", False, "needs_confirmation", False),
        ("assist", True, "done", True),
        ("dry_run", True, "dry_run", False),
        ("locked", True, "refused", False),
    ],
)
def test_modes(mode: Mode, answer: bool | None, status: str, is_on: bool) -> None:
    broker, world = make(mode, answer)
    assert broker.execute(LIGHT).status == status
    assert world.state["porch_light"]["on"] is is_on
    assert broker.execute(STOP).status == "done" and world.state["well_pump"]["running"] is False


def test_a_dry_run_says_what_would_be_and_still_refuses() -> None:
    broker, _ = make("dry_run", True)
    assert broker.execute(LIGHT).report == "I would now make so: porch light: on = on."
    assert broker.execute(Command("hall_thermostat", "set", {"target_c": 40})).status == "refused"


@pytest.mark.parametrize(("waits_s", "status"), [(CONFIRMATION_S, "done"), (CONFIRMATION_S + 1, "needs_confirmation")])
def test_a_late_yes_is_none(waits_s: float, status: str) -> None:
    world = World(SITE)

    def confirm(effect: str) -> bool:
        assert effect == "front door: locked = unlocked"
        world.advance(waits_s)
        return True

    broker = simulated_runtime(world, confirm=confirm).broker
    assert broker.execute(Command("front_door", "unlock", {})).status == status


def test_stop_stops_all_and_is_written_down(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    broker, world = make("locked", journal=journal)
    assert broker.stop() == []
    assert world.state["well_pump"]["running"] is False and world.state["garden_sprinkler"]["open"] is False
    assert [event.event for event in read_events(tmp_path / "journal.sqlite")] == ["PROPOSED", "STARTED", "DONE"] * 2
    journal.close()


def test_stop_needs_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal()
    broker, world = make("auto", journal=journal)

    def full(*_: Any) -> int:
        raise UnavailableError("disk full")

    monkeypatch.setattr(journal, "append", full)
    assert broker.stop() == [] and world.state["well_pump"]["running"] is False


def test_what_does_not_stop_is_said_and_the_others_stop() -> None:
    broker, world = make("auto")
    world.broken.add("garden_sprinkler")
    assert broker.stop() == ["the garden sprinkler could not be stopped: garden_sprinkler does not answer"]
    assert world.state["well_pump"]["running"] is False
    world.broken.clear()
    world.stuck.add("garden_sprinkler")
    assert broker.stop() == ["the garden sprinkler did not stop"]


def test_what_cannot_be_read_back_is_not_said_to_run() -> None:
    class Mute(SimulatedDriver):
        """Takes what is written to the sprinkler, and shows nothing of it."""

        def read(self, device: str) -> dict[str, Reading]:
            return {} if device == "garden_sprinkler" else super().read(device)

    world = World(SITE, {"garden_sprinkler": {"open": True}})
    broker = simulated_runtime(world, driver=Mute(world)).broker
    assert broker.stop() == ["the garden sprinkler was told to stop, and cannot be read back"]
    assert world.state["garden_sprinkler"]["open"] is False
    (proposed,) = [event for event in broker.journal.events() if event.body.get("device") == "garden_sprinkler"]
    assert [event.event for event in broker.journal.events(proposed.id)] == ["PROPOSED", "STARTED", "UNKNOWN"]


def test_a_stop_clears_what_was_owed() -> None:
    broker, _ = make("auto")
    assert broker.execute(Command("well_pump", "run", {"seconds": 30})).status == "done"
    assert len(broker.owed()) == 1
    broker.stop()
    assert broker.owed() == []


@pytest.mark.parametrize(
    "change",
    [{"risk": "confirm"}, {"requires": ({"property": "a.b", "above": 1.0},)}, {"input": {"a": {"type": "boolean"}}}],
)
def test_what_can_be_refused_is_not_safe(change: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"writes": {"running": False}, "safe": True}
    written: dict[str, Value] = Action(**plain).effect({})
    assert written == {"running": False}
    with pytest.raises(ValidationError, match="safe"):
        Action.model_validate(plain | change)

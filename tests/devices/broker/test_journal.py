"""The journal: durable, one writer, and any change of it is found; `why` and `log` say what it holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from devices.broker.journal import JOURNAL_IN_BOX, Journal, read_events, verify_events
from devices.broker.runtime import simulated_runtime
from devices.errors import RefusedError, UnavailableError, UsageError
from devices.simulation.world import World
from devices.site.site import load_site
from devices.site.tools import Command
from edgewright import main

SITE = load_site("home")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A box whose journal has a done, a refused and an unconfirmed command."""
    file = tmp_path / JOURNAL_IN_BOX
    file.parent.mkdir()
    journal = Journal(file)
    world = World(SITE, {"rain_tank": {"level_pct": 12.0}})
    broker = simulated_runtime(world, journal).broker
    broker.execute(Command("kitchen_light", "brightness", {"brightness": 40}))
    broker.execute(Command("well_pump", "run", {"seconds": 30}))
    broker.execute(Command("front_door", "unlock", {}))
    journal.close()
    return tmp_path


def test_an_untouched_journal_is_whole_and_goes_on_after_a_restart(box: Path) -> None:
    count, digest = verify_events(read_events(box / JOURNAL_IN_BOX))
    assert count == 7
    journal = Journal(box / JOURNAL_IN_BOX)
    journal.append("PROPOSED", {"more": 1.5}, 3)
    journal.close()
    assert verify_events(read_events(box / JOURNAL_IN_BOX), digest)[0] == 8


TAMPERINGS: dict[str, str] = {
    "a value": "UPDATE events SET body = replace(body, '40', '90') WHERE id = 1",
    "a verdict": "UPDATE events SET event = 'DONE' WHERE event = 'REFUSED'",
    "a time": "UPDATE events SET time_s = time_s + 1 WHERE id = 4",
    "a command": "UPDATE events SET command = 1 WHERE id = 5",
    "a digest": "UPDATE events SET digest = '00' WHERE id = 7",
    "removed": "DELETE FROM events WHERE id = 4",
    "removed and closed up": "DELETE FROM events WHERE id = 4; UPDATE events SET id = id - 1 WHERE id > 4",
    "swapped": "UPDATE events SET id = 99 WHERE id = 2; UPDATE events SET id = 2 WHERE id = 3;"
    " UPDATE events SET id = 3 WHERE id = 99",
    "inserted": "INSERT INTO events SELECT 8, command, time_s, event, body, digest FROM events WHERE id = 7",
    "unreadable": "UPDATE events SET body = '{' WHERE id = 3",
}


@pytest.mark.parametrize("script", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_every_change_is_found(box: Path, script: str) -> None:
    database = sqlite3.connect(box / JOURNAL_IN_BOX)
    database.executescript(script)
    database.close()
    with pytest.raises(RefusedError):
        verify_events(read_events(box / JOURNAL_IN_BOX))


def test_an_event_that_is_rewritten_with_a_digest_of_its_own_breaks_the_chain_after_it(box: Path) -> None:
    events = list(read_events(box / JOURNAL_IN_BOX))
    changed = replace(events[2], time_s=0.0)
    database = sqlite3.connect(box / JOURNAL_IN_BOX)
    database.execute("UPDATE events SET time_s = 0.0, digest = ? WHERE id = 3", [changed.chained(events[1].digest)])
    database.commit()
    database.close()
    with pytest.raises(RefusedError, match="event 4 is not what was written"):
        verify_events(read_events(box / JOURNAL_IN_BOX))


@pytest.mark.parametrize("script", ["DELETE FROM events WHERE id > 5", "DELETE FROM events"])
def test_a_cut_is_found_with_a_digest_noted_before(box: Path, script: str) -> None:
    digest = verify_events(read_events(box / JOURNAL_IN_BOX))[1]
    database = sqlite3.connect(box / JOURNAL_IN_BOX)
    database.executescript(script)
    database.close()
    verify_events(read_events(box / JOURNAL_IN_BOX))
    with pytest.raises(RefusedError, match="no event has the digest"):
        verify_events(read_events(box / JOURNAL_IN_BOX), digest)


def test_one_command_s_events_are_found_without_reading_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    first = journal.append("PROPOSED", {}, 1.0)
    for number in range(300):
        journal.append("NOTED", {}, 2.0, number + 2)
    journal.append("DONE", {}, 3.0, first)
    steps = []
    journal._database.set_progress_handler(
        lambda: steps.append(1), 10
    )  # once for every 10 steps of the virtual machine
    assert [event.event for event in journal.events(first)] == ["PROPOSED", "DONE"]
    assert len(steps) < 30


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.sqlite")
    first.append("PROPOSED", {}, 1.0)
    with pytest.raises(UnavailableError, match="another controller"):
        Journal(tmp_path / "journal.sqlite")
    assert len(list(read_events(tmp_path / "journal.sqlite"))) == 1
    first.close()
    Journal(tmp_path / "journal.sqlite").close()


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("no database, but text " * 99)])
def test_what_is_no_journal_is_one_line(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "journal.sqlite")
    with pytest.raises(UsageError, match=r"journal\.sqlite"):
        list(read_events(tmp_path / "journal.sqlite"))


def test_why_shows_state_verdicts_result_and_read_back(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", str(box), "1"]) == 0
    done = capsys.readouterr().out
    for part in (
        "brightness=40",
        "kitchen_light.on=false",
        "risk            low",
        "started",
        "read back",
        "is 40 percent.",
    ):
        assert part in done, done
    assert main(["why", str(box), "4"]) == 0
    refused = capsys.readouterr().out
    assert "rain_tank.level_pct=12" in refused and "NO: the rain tank level is 12 percent, must be above 20" in refused
    assert "started" not in refused and "read back" not in refused
    assert main(["why", str(box), "6"]) == 0
    assert "NO: nobody said yes to front door: locked = unlocked" in capsys.readouterr().out
    assert main(["why", str(box), "2"]) == 2 and "no command 2" in capsys.readouterr().err


def test_log_lists_and_verifies(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(box)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and "PROPOSED" in lines[0] and "well_pump run seconds=30" in lines[3]
    assert main(["log", str(box), "--verify"]) == 0
    digest = capsys.readouterr().out.split()[-1]
    assert main(["log", str(box), "--verify", "--digest", digest]) == 0
    capsys.readouterr()
    assert main(["log", str(box), "--verify", "--digest", "f" * 64]) == 4
    assert "cut off" in capsys.readouterr().err
    assert main(["log", str(box / "nowhere")]) == 2


def test_a_command_without_an_end_is_said_to_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal.append("PROPOSED", {"device": "well_pump", "action": "run", "input": {"seconds": 9}}, 1e9)
    journal.append("STARTED", {"effect": {"running": True}}, 1e9, 1)
    journal.close()
    assert main(["why", str(tmp_path / "journal.sqlite"), "1"]) == 0
    assert "no end" in capsys.readouterr().out

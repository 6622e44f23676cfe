"""SIGKILL at every durable step of an action, over real protocols, and that the sweep would notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.crash_sweep import POINTS, _problems, sweep
from devices.broker.journal import Journal

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.mark.parametrize("driver", ["modbus", "mqtt, plain"])
def test_nothing_is_done_twice_and_nothing_is_lost(driver: str, tmp_path: Path) -> None:
    figures = sweep(driver, len(POINTS) + 1, tmp_path)
    assert figures["problems"] == []
    acted = {label for label, count in figures["effects"].items() if count}
    assert acted == {"after the write", "before DONE", "after DONE", "no death"}


def test_the_sweep_sees_what_goes_wrong(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite"
    assert _problems(file, 1) == ["carried out, and the journal has no start of it"]
    journal = Journal(file)
    number = journal.append("PROPOSED", {"device": "lamp", "action": "on", "input": {}}, 0.0)
    journal.append("STARTED", {"effect": {"on": True}}, 0.0, number)
    assert _problems(file, 2) == ["carried out 2 times", "started, and has no end in the journal"]
    journal.append("UNKNOWN", {"report": "", "result": {}}, 0.0, number)
    assert _problems(file, 1) == []
    journal._database.execute("UPDATE events SET time_s = 9 WHERE id = 1")
    journal._database.commit()
    journal.close()
    assert _problems(file, 1) == ["event 1 is not what was written, or one before it was removed"]

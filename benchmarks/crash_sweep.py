"""Kill a controller with SIGKILL at every durable step of an action, over every driver, and look at what became of it.

    python benchmarks/crash_sweep.py -n 1000 --out benchmarks/results/crash-sweep.json

A controller in a process of its own switches a lamp on through a driver and its real protocol. It is killed before or
after the journal takes an entry, or before or after the driver writes. Another one then recovers. What the far side of
the protocol saw is counted there, so that neither controller can lie about it.

Not killed: drivers whose far side is in the controller's own process (gpio), and those that only read (i2c, sql).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from devices.broker.broker import Broker
from devices.broker.journal import Journal, read_events, verify_events
from devices.drivers.registry import open_driver
from devices.errors import RefusedError
from devices.site.schema import Value
from devices.site.site import load_site
from devices.site.tools import Command
from tests.devices.drivers.rigs import SITES, Rig, make_rig

LEFT_OUT = {"gpio", "i2c", "sql"}
POINTS = [f"{when} {step}" for step in ("PROPOSED", "STARTED", "the write", "DONE") for when in ("before", "after")]
ENDS = {"DONE", "UNKNOWN", "FAILED", "REFUSED"}


def control(site_file: Path, journal_file: Path, deaths: int | None) -> None:
    """Switch the lamp on and die at a point; without one, recover what an earlier controller left."""
    site, journal = load_site(site_file), Journal(journal_file)
    driver = open_driver(site)
    broker = Broker(site, driver, journal)
    if deaths is None:
        broker.recover()
        broker.tick()
        os._exit(0)
    passed = 0

    def deadly(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal passed
            _die_if(passed == deaths)
            result = plain(*arguments)
            _die_if(passed + 1 == deaths)
            passed += 2
            return result

        return call

    journal.append = deadly(journal.append)  # type: ignore[method-assign]
    driver.write = deadly(driver.write)  # type: ignore[method-assign]
    broker.execute(Command("lamp", "on", {}))
    os._exit(0)


def _die_if(is_time: bool) -> None:
    if is_time:
        os.kill(os.getpid(), signal.SIGKILL)


class Counting:
    """Counts how often the lamp was told to be on, on the far side."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self.count = rig, 0
        plain = rig.world.write

        def write(device: str, values: dict[str, Value]) -> bool:
            self.count += device == "lamp" and values.get("on") is True
            return plain(device, values)

        rig.world.write = write  # type: ignore[method-assign]

    def start_over(self) -> None:
        """Put the lamp out, and forget."""
        with self._rig.world.now() as world:
            world.state["lamp"]["on"] = False
        self.count = 0


def sweep(name: str, rounds: int, folder: Path, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Return how many actions died at which point over one driver, and what went wrong, in words."""
    rig, journal_file = make_rig(name, folder), folder / "journal.sqlite"
    site_file, counting = folder / "site.yaml", Counting(rig)
    died, problems, effects = Counter[str](), list[str](), Counter[str]()
    rig.peer.start()
    try:
        for number in range(rounds):
            point = number % (len(POINTS) + 1)  # the last of them is no death at all
            counting.start_over()
            exit_code = _run(control, site_file, journal_file, point)
            label = POINTS[point] if point < len(POINTS) else "no death"
            if (exit_code == -signal.SIGKILL) != (point < len(POINTS)):
                problems.append(f"{label}: the controller ended with {exit_code}")
            _run(control, site_file, journal_file, None)
            died[label] += 1
            effects[label] += counting.count
            problems += [f"{label}: {problem}" for problem in _problems(journal_file, counting.count)]
    finally:
        rig.peer.stop()
    log(f"{name}: {rounds} actions, {sum(effects.values())} effects, {len(problems)} problems")
    return {"actions": rounds, "deaths": dict(died), "effects": dict(effects), "problems": problems}


def _run(target: Callable[..., None], *arguments: Any) -> int:
    process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode is not None, "a controller hangs"
    return process.exitcode


def _problems(journal_file: Path, effects: int) -> list[str]:
    """Return what is wrong with the last action: done twice, or done and not written down, or left without an end."""
    found = []
    events = list(read_events(journal_file)) if journal_file.is_file() else []
    try:
        verify_events(iter(events))
    except RefusedError as error:
        found.append(str(error))
    proposals = [event.id for event in events if event.event == "PROPOSED"]
    last = {event.event for event in events if proposals and event.command == proposals[-1]}
    if effects > 1:
        found.append(f"carried out {effects} times")
    if effects and "STARTED" not in last:
        found.append("carried out, and the journal has no start of it")
    if "STARTED" in last and not last & ENDS:
        found.append("started, and has no end in the journal")
    return found


def main() -> int:
    """Sweep over all drivers; return 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000, help="actions in all (default: 1000)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    names = [name for name in SITES if name not in LEFT_OUT]
    multiprocessing.get_context("forkserver").set_forkserver_preload(["benchmarks.crash_sweep"])
    started_s = time.monotonic()
    by_driver = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            by_driver[name] = sweep(name, -(-given.n // len(names)), Path(folder))
    problems = sum(len(figures["problems"]) for figures in by_driver.values())
    report = {
        "command": " ".join(["python", "benchmarks/crash_sweep.py", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - started_s, 1),
        "actions": sum(figures["actions"] for figures in by_driver.values()),
        "problems": problems,
        "drivers": by_driver,
    }
    print(f"{report['actions']} actions, {problems} problems, {report['seconds']} s")
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

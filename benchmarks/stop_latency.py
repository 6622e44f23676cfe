"""How long a stop, and the end of a timed action, take to reach every device while other threads wait for something.

    python benchmarks/stop_latency.py -n 1000 --out benchmarks/results/stop-latency.json

One interleaving: a pump and a valve run with a time limit, over a driver's real protocol. Then answers stop coming, or
the journal's disk becomes slow, or a person does not answer, and several threads ask for things and wait. At a random
moment `stop` is called, or the time is up. Both devices must be reached within LIMIT_S. Then everything answers again,
and the person says yes to what was asked before: nothing that a stop overtook may run, and in the end nothing is on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from devices.broker.broker import Broker
from devices.broker.journal import Journal, read_events, verify_events
from devices.broker.runtime import SiteRuntime
from devices.drivers.registry import open_driver
from devices.simulated_peers import make_peer
from devices.simulation.peer import RealTimeWorld
from devices.site.schema import Value
from devices.site.site import Site, load_site
from devices.site.tools import Command
from edge_agent.engine.machine import this_machine
from tests.ports import free_port

LIMIT_S = 0.5
SETUP_TRIES = 5  # on a busy machine a program may start too late
TIMEOUT_S = 1.5  # of the drivers, so that whoever waited for a silent device would be three times too late
STOPPABLE = {"pump": {"running": False}, "valve": {"open": False}}
SITES = {
    "modbus": """
drivers: {it: {type: modbus, host: 127.0.0.1, port: PORT, timeout_s: SECONDS}}
devices:
  pump: {model: pump, driver: it, at: {running: {coil: 0}}}
  valve: {model: valve, driver: it, at: {open: {coil: 20}}}
  lamp: {model: switch, driver: it, at: {"on": {coil: 40}}, actions: {"on": {risk: confirm}}}
""",
    "modbus, serial": """
drivers: {it: {type: modbus, serial: FOLDER/line, baud: 19200, timeout_s: SECONDS}}
devices:
  pump: {model: pump, driver: it, at: {running: {coil: 0}}}
  valve: {model: valve, driver: it, at: {open: {coil: 20}}}
  lamp: {model: switch, driver: it, at: {"on": {coil: 40}}, actions: {"on": {risk: confirm}}}
""",
    "http": """
drivers: {it: {type: http, url: "http://127.0.0.1:PORT", timeout_s: SECONDS}}
devices:
  pump: {model: pump, driver: it, at: {running: {path: /pump, set_path: /pump}}}
  valve: {model: valve, driver: it, at: {open: {path: /valve, set_path: /valve}}}
  lamp: {model: switch, driver: it, at: {"on": {path: /lamp, set_path: /lamp}}, actions: {"on": {risk: confirm}}}
""",
    "mqtt": """
drivers: {it: {type: mqtt, host: 127.0.0.1, port: PORT, profile: zigbee2mqtt, timeout_s: SECONDS}}
devices:
  pump: {model: pump, driver: it, at: {running: {topic: pump, key: state}}}
  valve: {model: valve, driver: it, at: {open: {topic: valve, key: state}}}
  lamp: {model: switch, driver: it, at: {"on": {topic: lamp, key: state}}, actions: {"on": {risk: confirm}}}
""",
    "gcode": """
drivers: {it: {type: gcode, serial: FOLDER/board, timeout_s: SECONDS}}
devices:
  pump: {model: pump, driver: it, at: {running: {coolant: flood}}}
  valve: {model: valve, driver: it, at: {open: {spindle: 9}}}
  lamp: {model: switch, driver: it, at: {"on": {coolant: mist}}, actions: {"on": {risk: confirm}}}
""",
    "command": """
drivers: {it: {type: command, allow: [FOLDER/relay], timeout_s: SECONDS}}
devices:
  pump: {model: pump, driver: it, at: {running: {read: [FOLDER/relay, a], write: [FOLDER/relay, a, "{value}"]}}}
  valve: {model: valve, driver: it, at: {open: {read: [FOLDER/relay, b], write: [FOLDER/relay, b, "{value}"]}}}
  lamp:
    model: switch
    driver: it
    at: {"on": {read: [FOLDER/relay, c], write: [FOLDER/relay, c, "{value}"]}}
    actions: {"on": {risk: confirm}}
""",
}
COMMANDS = (
    Command("lamp", "on", {}),
    Command("lamp", "off", {}),
    Command("pump", "run", {"seconds": 60}),
    Command("pump", "stop", {}),
    Command("valve", "water", {"minutes": 3}),
)


@dataclass
class Interleaving:
    """What happened in one. `late_s`: after a stop or an end was due, by device, when its write arrived there."""

    trigger: str
    blockers: list[str]
    late_s: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class SlowJournal(Journal):
    """A journal whose disk takes some time for each event."""

    delay_s = 0.0

    def append(self, event: str, body: dict[str, Any], time_s: float, command: int | None = None) -> int:
        """Write one event, late."""
        time.sleep(self.delay_s)
        return super().append(event, body, time_s, command)


class Bench:
    """One site over one driver's protocol, a broker that keeps time, and what arrives at the devices."""

    def __init__(self, name: str, folder: Path) -> None:
        file = folder / "site.yaml"
        text = f"schema: site/v1\nname: bench\ntitle: a bench{SITES[name]}".replace("PORT", str(free_port()))
        file.write_text(text.replace("FOLDER", str(folder)).replace("SECONDS", str(TIMEOUT_S)), encoding="utf-8")
        self.site: Site = load_site(file)
        self.world = RealTimeWorld(self.site)
        self.peer = make_peer(self.site, "it", self.world)
        self.arrived: dict[str, list[tuple[float, dict[str, Value]]]] = defaultdict(list)
        self._watch_writes()
        self.peer.start()
        self.ahead_s = 0.0  # by how much the clock is put forward
        self.answered = threading.Event()  # by the person who is asked
        self.journal_file = folder / "journal.sqlite"
        self.journal = SlowJournal(self.journal_file)
        driver = open_driver(self.site, self.clock)
        self.broker = Broker(self.site, driver, self.journal, clock=self.clock, confirm=self._confirm)
        self.runtime = SiteRuntime(self.broker, driver, None)
        self.log: list[str] = []
        self.runtime.keep_time(self.log.append)

    def clock(self) -> float:
        """Return seconds; `ahead_s` puts it forward."""
        return time.time() + self.ahead_s

    def _confirm(self, effect: str) -> bool:
        del effect
        return self.answered.wait(10)

    def _watch_writes(self) -> None:
        plain = self.world.write

        def write(device: str, values: dict[str, Value]) -> bool:
            self.arrived[device].append((time.monotonic(), values))
            return plain(device, values)

        self.world.write = write  # type: ignore[method-assign]

    def shown(self, device: str) -> dict[str, Value]:
        """Return what a device is really like."""
        with self.world.now() as world:
            return world.values_of(device)

    def arrival_s(self, device: str, since_s: float) -> float | None:
        """Return how long after a moment the safe values arrived at a device; None if they did not."""
        found = (at_s - since_s for at_s, values in list(self.arrived[device]) if values == STOPPABLE[device])
        return next((late_s for late_s in found if late_s >= 0), None)

    def close(self) -> list[str]:
        """End everything; return what is not as it should be then."""
        problems = self.runtime.close()
        problems += [f"{device} is still on" for device, safe in STOPPABLE.items() if self.shown(device) != safe]
        self.peer.stop()
        verify_events(read_events(self.journal_file))
        return problems


def interleaving(name: str, seed: int, folder: Path) -> Interleaving:
    """Carry out one interleaving over one driver; all chance comes from the seed."""
    rng = Random(f"{name}-{seed}")
    bench = Bench(name, folder)
    for command in (COMMANDS[2], COMMANDS[4]):
        statuses = (bench.broker.execute(command).status for _ in range(SETUP_TRIES))
        assert "done" in statuses, f"{command} cannot be done"
    blocker, trigger = rng.choice(("mute", "mute", "disk", "person")), rng.choice(("stop", "end"))
    # One that gets through shortly before or after the time is up takes the end over, and none is due then.
    kinds = COMMANDS if trigger == "stop" else [one for one in COMMANDS if one.device == "lamp"]
    asked = [rng.choice(("state", *kinds)) for _ in range(rng.randint(1, 4))]
    if blocker == "person":
        asked.append(COMMANDS[0])
    found = Interleaving(trigger, [blocker, *map(_name, asked)])
    bench.world.faults.mute = blocker == "mute"
    bench.journal.delay_s = rng.uniform(0.5, 1.5) if blocker == "disk" else 0.0
    jobs: list[Callable[[], Any]] = [
        bench.broker.state if isinstance(one, str) else _execution(bench.broker, one) for one in asked
    ]
    with ThreadPoolExecutor(len(jobs) + 1) as pool:
        waiting = []
        for job in jobs:
            waiting.append(pool.submit(job))
            time.sleep(rng.choice((0.0, 0.0, 0.05, 0.15)))
        since_s = time.monotonic()
        if found.trigger == "stop":
            waiting.append(pool.submit(bench.broker.stop))
        else:
            bench.ahead_s += 1000
        _await_arrivals(bench, since_s, found)
        bench.world.faults.mute = False
        bench.journal.delay_s = 0.0
        bench.answered.set()
        for one in waiting:
            one.result()
    if found.trigger == "stop":
        found.problems += [
            f"{device} runs after a stop" for device, safe in STOPPABLE.items() if bench.shown(device) != safe
        ]
    found.problems += bench.close()
    return found


def _execution(broker: Broker, command: Command) -> Callable[[], Any]:
    return lambda: broker.execute(command)


def _name(one: str | Command) -> str:
    return one if isinstance(one, str) else f"{one.device} {one.action}"


def _await_arrivals(bench: Bench, since_s: float, found: Interleaving) -> None:
    while len(found.late_s) < len(STOPPABLE) and time.monotonic() - since_s < 3 * TIMEOUT_S:
        time.sleep(0.005)
        for device in STOPPABLE:
            late_s = bench.arrival_s(device, since_s)
            if late_s is not None:
                found.late_s.setdefault(device, late_s)
    found.problems += [f"{device} was not reached" for device in STOPPABLE if device not in found.late_s]


def sweep(name: str, count: int, first_seed: int = 0) -> list[Interleaving]:
    """Return interleavings over one driver, each in a folder of its own."""
    done = []
    for seed in range(first_seed, first_seed + count):
        with tempfile.TemporaryDirectory(prefix="ew-") as folder:
            done.append(interleaving(name, seed, Path(folder)))
    return done


def figures(done: list[Interleaving]) -> dict[str, Any]:
    """Return counts, latencies in seconds, and the first problems in words."""
    late_s = sorted(seconds for one in done for seconds in one.late_s.values())
    problems = [f"{one.trigger} {one.blockers}: {problem}" for one in done for problem in one.problems]
    return {
        "interleavings": len(done),
        "writes": len(late_s),
        "median_s": round(late_s[len(late_s) // 2], 3),
        "p99_s": round(late_s[int(len(late_s) * 0.99)], 3),
        "longest_s": round(late_s[-1], 3),
        "later_than_limit": sum(seconds > LIMIT_S for seconds in late_s),
        "problems": len(problems),
        "first": problems[:5],
    }


def main() -> int:
    """Run the interleavings; return 1 if a device was reached too late or not at all, or runs on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000, help="interleavings, over all drivers")
    parser.add_argument("--driver", choices=SITES, help="only this one")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    names = [given.driver] if given.driver else list(SITES)
    by_driver = {}
    for name in names:
        by_driver[name] = figures(sweep(name, -(-given.n // len(names))))
        print(name, json.dumps(by_driver[name]), flush=True)
    report = {
        "command": " ".join(["python", "benchmarks/stop_latency.py", *sys.argv[1:]]),
        "machine": this_machine(),
        "limit_s": LIMIT_S,
        "drivers": by_driver,
    }
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(any(one["problems"] or one["later_than_limit"] for one in by_driver.values()))


if __name__ == "__main__":
    sys.exit(main())

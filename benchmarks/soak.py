"""Let the agent work `home` for a long time while things go wrong at random, and look for what grows and what stays on.

    python benchmarks/soak.py runs/demo/bundle --minutes 30 --out benchmarks/results/soak.json

Requests are the held-out ones, over and over. Meanwhile devices fall silent, stick and come back, the simulated clock
runs on and now and then is put back, and the controller dies and recovers from its journal, which is on the disk. Every
minute the process's memory and open files are counted. At the end all faults are cleared and time passes: no output
with a time limit may still be on, and the journal must be whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from devices.broker.journal import Journal, read_events, verify_events
from devices.broker.runtime import simulated_runtime
from devices.simulation.world import World
from devices.site.site import Site, load_site
from edge_agent.agent.simulation import Simulation
from edge_agent.bundle import open_bundle
from edge_agent.engine.llama_cpp_engine import LlamaEngine
from edge_agent.engine.machine import this_machine
from finetune.data.generator import generate_cases

ASKS, SEED = 400, 77
LEAK_SHARE = 1.05  # of memory, between a fifth of the way and the end


class Soak:
    """One site, one world, one journal on the disk, and controllers that come and go."""

    def __init__(self, site: Site, simulation: Simulation, journal_file: Path, rng: Random) -> None:
        self.site, self.rng = site, rng
        self.world = World(site, time_s=1e6)
        self.statuses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._simulation, self._journal_file = simulation, journal_file
        self._start()

    def _start(self) -> None:
        self.journal = Journal(self._journal_file)
        self.runtime = simulated_runtime(self.world, self.journal, lambda effect: self.rng.random() < 0.5)
        self.statuses.update(outcome.status for outcome in self.runtime.broker.recover())
        self.agent = self._simulation.agent_in(self.runtime)

    def turn(self, engine: LlamaEngine, ask: str) -> None:
        """Do one request, and what happens around it."""
        self._disturb()
        result = self.agent.ask(engine, ask)
        self.statuses.update(action.status for action in result.actions)
        self.statuses[f"turn: {result.stop_reason}"] += 1
        self.runtime.advance(self.rng.choice([1.0, 5.0, 30.0, 300.0]))

    def _disturb(self) -> None:
        device, draw = self.rng.choice(list(self.site.devices)), self.rng.random()
        if draw < 0.05:
            self._fault("silent", lambda: self.world.broken.add(device))
        elif draw < 0.10:
            self._fault("stuck", lambda: self.world.stuck.add(device))
        elif draw < 0.25:
            self._fault("cleared", self.clear)
        elif draw < 0.26:
            self._fault("clock put back", lambda: setattr(self.world, "time_s", self.world.time_s - 7200))
        elif draw < 0.30:
            self._fault("controller died", self.die)

    def _fault(self, name: str, do: Any) -> None:
        self.faults[name] += 1
        do()

    def clear(self) -> None:
        """Let every device answer and move again."""
        self.world.broken.clear()
        self.world.stuck.clear()

    def die(self) -> None:
        """Drop the controller without a word, and start another."""
        self.journal.close()
        self._start()

    def still_on(self) -> list[str]:
        """Let all faults and times be over; return the timed outputs that are on all the same."""
        self.clear()
        for _ in range(3):
            self.runtime.advance(3600)
        return [
            f"{device.name}: {self.world.state[device.name]}"
            for device in self.site.devices.values()
            for action in device.actions.values()
            if action.ends and any(self.world.state[device.name][key] != end for key, end in action.ends.writes.items())
        ]


def sample(seconds: int) -> dict[str, float]:
    """Return this process's resident memory and open files. Source: Linux, proc(5)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return {"s": seconds, "bytes": pages * os.sysconf("SC_PAGE_SIZE"), "files": files}


def soak(bundle_path: Path, minutes: float, journal_file: Path) -> dict[str, Any]:
    """Return what was done, what went wrong, and how memory and files went."""
    site, bundle = load_site("home"), open_bundle(bundle_path)
    bundle.require_site(site)
    simulation, rng = Simulation(site, bundle.template), Random(SEED)
    asks = [case.ask for case in generate_cases(site, ASKS, SEED)]
    samples: list[dict[str, float]] = []
    started_s = time.monotonic()
    turns = 0
    with LlamaEngine(bundle.model_path, adapter=bundle.adapter_path) as engine:
        run = Soak(site, simulation, journal_file, rng)
        engine.prime(run.agent.prefix)
        while (passed_s := time.monotonic() - started_s) < minutes * 60:
            if passed_s >= len(samples) * min(60.0, minutes * 60 / 10):
                samples.append(sample(round(passed_s)))
            run.turn(engine, rng.choice(asks))
            turns += 1
        still_on = run.still_on()
        run.journal.close()
    events, _ = verify_events(read_events(journal_file))
    settled, last = samples[len(samples) // 5], samples[-1]
    return {
        "minutes": minutes,
        "turns": turns,
        "statuses": dict(run.statuses),
        "faults": dict(run.faults),
        "journal_events": events,
        "still_on": still_on,
        "memory_growth": round(last["bytes"] / settled["bytes"], 4),
        "file_growth": last["files"] - settled["files"],
        "samples": samples,
    }


def main() -> int:
    """Run the soak; return 1 if anything leaks or stays on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = soak(given.bundle, given.minutes, Path(folder) / "journal.sqlite")
    problems = list(figures["still_on"])
    problems += ["memory grows"] if figures["memory_growth"] > LEAK_SHARE else []
    problems += ["files stay open"] if figures["file_growth"] > 0 else []
    command = " ".join(["python", "benchmarks/soak.py", *sys.argv[1:]])
    report = {"command": command, "machine": this_machine(), "problems": problems, **figures}
    print(f"{figures['turns']} turns, memory x{figures['memory_growth']}, problems: {', '.join(problems) or 'none'}")
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

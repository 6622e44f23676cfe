"""How long `edgewright --help` takes and what it needs, beside a Python that does nothing. Prints JSON."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

RUNS = 15
TARGET_S, TARGET_BYTES = 0.5, 60e6
COMMANDS = {"python": ["-c", "pass"], "typer": ["-c", "import typer"], "edgewright": ["-m", "edgewright", "--help"]}


def measure(words: list[str]) -> tuple[float, int]:
    """Return the seconds and the peak bytes of one process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Measure in turns, so that a busy machine slows all of them alike."""
    rounds = [{name: measure(words) for name, words in COMMANDS.items()} for _ in range(RUNS)]
    results = {
        name: {
            "median_s": round(statistics.median(row[name][0] for row in rounds), 3),
            "slowest_s": round(max(row[name][0] for row in rounds), 3),
            "peak_bytes": max(row[name][1] for row in rounds),
        }
        for name in COMMANDS
    }
    print(json.dumps({"runs": RUNS, "target_s": TARGET_S, "target_bytes": TARGET_BYTES, "results": results}, indent=2))


if __name__ == "__main__":
    main()

"""A disk that takes no more, for real: the kernel refuses every write that would make a file longer, or fails it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import ctypes, json, os, resource, signal, subprocess, sys, time
from pathlib import Path
from devices.broker.broker import Broker
from devices.errors import UnavailableError
from devices.broker.journal import Journal, read_events, verify_events
from devices.simulation.world import SimulatedDriver, World
from devices.site.site import load_site
from devices.site.tools import Command


FAILING = {"write-error": "pwrite64,write", "sync-error": "fsync,fdatasync"}


def traced_by(pid):
    return f"TracerPid:\\t{pid}\\n" in Path("/proc/self/status").read_text()


def fail_with_strace(calls):
    ctypes.CDLL(None).prctl(0x59616D61, -1, 0, 0, 0)  # PR_SET_PTRACER: a child may trace this process
    inject = f"inject={calls}:error=EIO"
    only = folder / "journal.sqlite-wal"
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-P", only, "-e", inject, "-p", str(os.getpid())]
    )
    while not traced_by(strace.pid):
        assert strace.poll() is None
        time.sleep(0.01)
    return strace


folder, kind = Path(sys.argv[1]), sys.argv[2]
world = World(load_site("home"))
journal = Journal(folder / "journal.sqlite")
broker = Broker(world.site, SimulatedDriver(world), journal, clock=lambda: world.time_s)
found = {"before": broker.execute(Command("well_pump", "run", {"seconds": 20})).status}

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if kind == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
elif kind in FAILING:
    strace = fail_with_strace(FAILING[kind])
else:
    journal._database.execute("PRAGMA query_only = ON")  # what SQLite says on a disk mounted read-only

try:
    found["lamp"] = broker.execute(Command("porch_light", "on", {})).status
except UnavailableError as error:
    found["lamp"] = str(error)
found["lamp_is_on"] = world.state["porch_light"]["on"]
world.advance(20)
found["tick"] = broker.tick()
found["pump_runs"] = world.state["well_pump"]["running"]
world.state["garden_sprinkler"]["open"] = True
found["stop"] = broker.stop()
found["valve_is_open"] = world.state["garden_sprinkler"]["open"]

if kind in FAILING:
    strace.send_signal(signal.SIGINT)
    strace.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal._database.execute("PRAGMA query_only = OFF")
broker.tick()
found["after"] = broker.execute(Command("porch_light", "on", {})).status
found["owed"] = len(broker.owed())
journal.close()
found["events"] = verify_events(read_events(folder / "journal.sqlite"))[0]
print(json.dumps(found))
"""


with_strace = pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")


@pytest.mark.parametrize(
    "kind",
    ["full", "read-only", *(pytest.param(kind, marks=with_strace) for kind in ("write-error", "sync-error"))],
)
def test_nothing_starts_everything_stops_and_it_goes_on_later(kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), kind], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["before"] == "done"
    reason = "attempt to write a readonly database" if kind == "read-only" else "disk I/O error"
    assert f"cannot write the journal: {reason}" in found["lamp"] and found["lamp_is_on"] is False
    assert found["pump_runs"] is False and "could not be written down" in found["tick"][0]
    assert found["stop"] == [] and found["valve_is_open"] is False
    assert found["after"] == "done" and found["owed"] == 0
    assert found["events"] >= 6

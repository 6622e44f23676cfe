"""`edgewright sim`: a site's peers by hand, and faults while they run."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.errors import UnavailableError, UsageError
from devices.simulated_peers import FAULTS, Stage, run_peers, send_fault, serve, socket_path
from devices.simulation.socket_peer import is_up
from devices.site.site import Site, load_site
from edgewright import main
from tests.ports import greenhouse_file

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Site, Stage]]:
    """The greenhouse on a free port, up and listening for faults."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = greenhouse_file(tmp_path, timeout_s=0.3)
    site = load_site(file)
    stage, closing = Stage(site, speed=1.0), threading.Event()
    thread = threading.Thread(target=serve, args=(stage, lambda text: None, closing))
    thread.start()
    wait_for(lambda: is_up(socket_path(site)))  # the file is there before anybody listens
    yield file, site, stage
    closing.set()
    thread.join()
    stage.close()


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60  # a process starts slowly on a busy machine
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_faults_are_felt_and_cleared(up: tuple[Path, Site, Stage], capsys: pytest.CaptureFixture[str]) -> None:
    file, _, _ = up
    where = ["--site", str(file), "--live"]

    def fan() -> int:
        return main(["devices", "call", "air_fan", "set", "speed=1", *where])

    assert main(["sim", "fault", str(file), "stick", "air_fan"]) == 0
    assert fan() == 3 and "did not change" in capsys.readouterr().out
    for words in (["silence", "air_fan"], ["delay", "0.6"], ["garble"], ["drop"]):
        assert main(["sim", "fault", str(file), "clear"]) == 0
        assert main(["devices", "read", "air_fan", *where]) == 0, words
        assert main(["sim", "fault", str(file), *words]) == 0
        assert main(["devices", "read", "air_fan", *where]) == 3, words
    assert main(["sim", "fault", str(file), "clear"]) == 0
    assert fan() == 0


def test_every_named_fault_is_known(up: tuple[Path, Site, Stage]) -> None:
    _, site, _ = up
    arguments = {"stick": ["air_fan"], "silence": ["air_fan"], "freeze": ["air_fan"], "delay": ["0.5"]}
    for name, meaning in FAULTS.items():
        answer = send_fault(site, [name, *arguments.get(name, [])])
        words = meaning.removeprefix("a device ").replace("SECONDS", "0.5 s")
        assert words in answer, name


def test_frozen_readings_stay(up: tuple[Path, Site, Stage]) -> None:
    _, site, stage = up
    send_fault(site, ["freeze", "feed_tank"])
    with stage.world.now() as world:
        world.state["feed_tank"]["level_pct"] = 3.0
    assert stage.world.read("feed_tank") == {"level_pct": 65.0}


@pytest.mark.parametrize(
    "words", [["explode"], ["stick"], ["stick", "roof"], ["delay"], ["delay", "soon"], ["delay", "9999"]]
)
def test_a_wrong_fault_is_one_line(
    up: tuple[Path, Site, Stage], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", "fault", str(up[0]), *words]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and len(printed.splitlines()) == 1


def test_a_site_is_up_once(up: tuple[Path, Site, Stage]) -> None:
    _, site, stage = up
    with pytest.raises(UnavailableError, match="cannot listen"):
        Stage(site)
    with pytest.raises(UnavailableError, match="already up"):
        serve(stage, print, threading.Event())


def test_pins_and_a_bus_are_up_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = tmp_path / "shed.yaml"
    file.write_text(
        f"""schema: site/v1
name: shed
title: a shed
drivers: {{pins: {{type: gpio, factory: {tmp_path}/pins}}, bus: {{type: i2c, bus: {tmp_path}/bus}}}}
devices:
  lamp: {{model: light, driver: pins, at: {{"on": {{output: 17, feedback: 27}}}}}}
  tank:
    model: level_sensor
    driver: bus
    initial: {{level_pct: 65}}
    at: {{level_pct: {{chip: bh1750, address: 0x23, scale: 0.1}}}}
""",
        encoding="utf-8",
    )
    where = ["--site", str(file), "--live"]
    with subprocess.Popen(
        [sys.executable, "-m", "edgewright", "sim", "up", str(file)], stdout=subprocess.DEVNULL
    ) as up:
        try:
            wait_for(lambda: is_up(socket_path(load_site(file))))
            assert main(["devices", "read", "tank", *where]) == 0 and "65 percent" in capsys.readouterr().out
            assert main(["devices", "call", "lamp", "on", *where]) == 0
            assert main(["sim", "fault", str(file), "stick", "lamp"]) == 0
            assert main(["devices", "call", "lamp", "on", *where]) == 3
        finally:
            up.terminate()


def test_nothing_to_stand_in_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="has no drivers"):
        run_peers(load_site("home"), 1.0, print)
    with pytest.raises(UnavailableError, match="no simulated home is up"):
        send_fault(load_site("home"), ["clear"])

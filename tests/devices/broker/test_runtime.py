"""Places: real devices through their drivers from the command line, with endings that are paid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.broker.journal import Journal, read_events
from devices.broker.runtime import live_runtime, parse_arguments
from devices.simulated_peers import make_peer
from devices.simulation.peer import Peer, RealTimeWorld
from devices.site.action import Action
from devices.site.site import load_site, site_path
from devices.site.tools import Command
from edgewright import main
from tests.ports import greenhouse_file

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def greenhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, RealTimeWorld, Peer]]:
    """The greenhouse's site file on a free port, with its PLC running."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = greenhouse_file(tmp_path)
    site = load_site(file)
    world = RealTimeWorld(site)
    peer = make_peer(site, "plc", world)
    peer.start()
    yield file, world, peer
    peer.stop()


Greenhouse = tuple[Path, RealTimeWorld, Peer]


def test_names_of_arguments_and_values_may_have_any_capitals() -> None:
    mode = {"type": "string", "enum": ["Eco", "heat", "HEAT"]}
    speed = {"type": "integer", "minimum": 0, "maximum": 3}
    action = Action.model_validate({"input": {"mode": mode, "speed": speed}, "writes": {"mode": "$mode"}})
    assert parse_arguments(action, ["Mode=ECO", "SPEED=2"]) == {"mode": "Eco", "speed": 2}
    for written in ("mode=heat", "mode=HEAT", "mode=Heat", "colour=Red", "mode=4"):  # told apart, or not known
        name, _, value = written.partition("=")
        assert parse_arguments(action, [written]) == {name: int(value) if value == "4" else value}


def test_read_and_call_live(greenhouse: Greenhouse, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, world, _ = greenhouse
    assert main(["devices", "read", "feed_tank", "--site", str(file), "--live"]) == 0
    assert "The feed tank level is 65 percent." in capsys.readouterr().out
    assert main(["devices", "call", "air_fan", "set", "speed=2", "--site", str(file), "--live", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "done" and world.read("air_fan") == {"speed": 2}
    events = [event.event for event in read_events(tmp_path / "state" / "edgewright" / "greenhouse" / "journal.sqlite")]
    assert events == ["PROPOSED", "STARTED", "DONE"]


def test_a_timed_call_stays_until_it_has_ended(greenhouse: Greenhouse, capsys: pytest.CaptureFixture[str]) -> None:
    file, world, _ = greenhouse
    site = load_site(file)
    action = site.devices["feed_pump"].actions["run"]
    assert action.input["seconds"].minimum == 5
    assert main(["devices", "call", "feed_pump", "run", "seconds=5", "--site", str(file), "--live"]) == 0
    assert "staying until it ends" in capsys.readouterr().err
    assert world.read("feed_pump") == {"running": False}


def test_leaving_ends_what_is_on_and_a_death_is_made_good(greenhouse: Greenhouse, tmp_path: Path) -> None:
    file, world, _ = greenhouse
    site = load_site(file)
    command = Command("feed_pump", "run", {"seconds": 60})
    runtime = live_runtime(site, Journal(tmp_path / "journal.sqlite"))
    assert runtime.broker.execute(command).status == "done" and world.read("feed_pump") == {"running": True}
    assert runtime.close() == [] and world.read("feed_pump") == {"running": False}

    dead = live_runtime(site, Journal(tmp_path / "journal.sqlite"))
    dead.broker.execute(command)
    dead.broker.driver.close()
    dead.broker.journal.close()  # as if killed: nothing is ended
    assert world.read("feed_pump") == {"running": True}
    runtime = live_runtime(site, Journal(tmp_path / "journal.sqlite"))
    assert len(runtime.broker.owed()) == 1
    assert runtime.close() == [] and world.read("feed_pump") == {"running": False}


def test_a_silent_plc_is_one_line(greenhouse: Greenhouse, capsys: pytest.CaptureFixture[str]) -> None:
    file, _, peer = greenhouse
    peer.stop()
    assert main(["devices", "read", "feed_tank", "--site", str(file), "--live"]) == 3
    assert "no answer from feed_tank" in capsys.readouterr().err
    assert main(["devices", "call", "air_fan", "set", "speed=2", "--site", str(file), "--live"]) == 3


def test_check_touches_nothing_and_finds_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "check", "greenhouse"]) == 0
    assert "driver plc: modbus, 11 devices" in capsys.readouterr().out
    assert main(["devices", "check", "home", "--json"]) == 0
    assert "kitchen_light" in json.loads(capsys.readouterr().out)["without_driver"]
    text = site_path("greenhouse").read_text(encoding="utf-8")
    for old, new, message in (
        ("position: {holding: 1}", "position: {holdin: 1}", "holdin"),
        ("position: {holding: 1}", "position: {input: 9}", "position cannot be written: coil and holding can"),
        ("at: {speed: {holding: 3}}", "at: {}", "air_fan has no address for speed"),
        ("driver: plc\n    at: {speed", "driver: plx\n    at: {speed", "did you mean plc"),
        ("type: modbus", "type: modbu", "did you mean modbus"),
        ("unit: 1", "unit: 300", "unit"),
    ):
        assert old in text
        (tmp_path / "bad.yaml").write_text(text.replace(old, new), encoding="utf-8")
        assert main(["devices", "check", str(tmp_path / "bad.yaml")]) == 2, new
        line = capsys.readouterr().err
        assert "bad.yaml:" in line and message in line, line


@pytest.mark.parametrize(
    ("driver", "address", "message"),
    [
        ("type: mqtt, host: h, profile: plain", "topic: t", "cannot be written without set_topic"),
        ("type: mqtt, host: h, profile: tasmota", "topic: t", "needs a key in the profile tasmota"),
        ("type: mqtt, host: h, profile: tasmota", "topic: t, key: POWER, is_sensor: true", "being a sensor"),
        ("type: command, allow: [/bin/a]", "read: [/bin/b]", "runs /bin/b, which `allow` does not name"),
        ("type: command, allow: [/bin/a]", "read: [/bin/a]", "cannot be written without write"),
        ("type: command, allow: [/bin/a]", "read: [/bin/a], write: [/bin/a, x]", "write needs {value}"),
        ("type: command, allow: [a]", "read: [a]", "a is not an absolute path"),
        (
            "type: http, url: 'http://h'",
            "path: /a, key: b, set_key: c",
            "cannot be written without set_path",
        ),
    ],
)
def test_check_finds_addresses_that_lack_something(
    driver: str, address: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"schema: site/v1\nname: one\ntitle: a room\ndrivers: {{it: {{{driver}}}}}\ndevices:\n"
    text += f'  plug: {{model: switch, driver: it, at: {{"on": {{{address}}}}}}}\n'
    (tmp_path / "one.yaml").write_text(text, encoding="utf-8")
    assert main(["devices", "check", str(tmp_path / "one.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_live_needs_drivers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "read", "--site", "home", "--live"]) == 2
    assert "has no driver in the site home" in capsys.readouterr().err

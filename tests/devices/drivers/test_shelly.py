"""Shelly devices over HTTP: passwords, covers that take their time or know no place, devices that sleep."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.driver import CallRefused, DeviceUnavailable
from devices.drivers.http import digest
from devices.drivers.registry import open_driver
from devices.errors import UsageError
from devices.simulated_peers import make_peer
from devices.simulation.peer import RealTimeWorld
from devices.site.site import Site
from devices.site.tools import Command
from tests.devices.drivers.rigs import site_of
from tests.devices.drivers.shelly_device import ShellyDevice
from tests.ports import free_port

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
DATA = Path(__file__).parents[1] / "data" / "shelly"
PASSWORD = "Circle of Life"
Make = Callable[..., ShellyDevice]
AUTH = ", auth: {scheme: digest, user: admin, secret_env: TEST_SHELLY}"
SWITCH = '  relay: {model: switch, driver: it, at: {"on": {rpc: Switch, key: output, set_key: "on"}}}'
BLINDS = """
  blinds:
    model: blinds
    driver: it
    at: {position: {rpc: Cover, key: current_pos, set_method: GoToPosition, set_key: pos}}
"""


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[ShellyDevice] = []

    def one(name: str, password: str = "", cover_s: float = 0.5) -> ShellyDevice:
        made.append(ShellyDevice(json.loads((DATA / f"{name}.json").read_text("utf-8")), password, cover_s))
        return made[-1]

    yield one
    for device in made:
        device.close()


def site_with(folder: Path, url: str, devices: str, auth: str = "") -> Site:
    return site_of(folder, f'{{type: http, url: "{url}"{auth}}}', devices)


def test_the_answer_is_that_of_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: RFC 7616, 3.9.1."""
    rest = (
        'realm="http-auth@example.org", qop="auth, auth-int", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
        ', nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'
    )
    challenges = [f"Digest {rest}, algorithm=MD5", 'Basic realm="x"', f"Digest {rest}, algorithm=SHA-256"]
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    monkeypatch.setattr(digest.secrets, "token_hex", lambda _: cnonce)
    for given, response in (
        (challenges, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        (challenges[:1], "8ca523f5e9506fed4657c9700eebdbec"),
    ):
        header = digest.authorization(given, "GET", "/dir/index.html", "Mufasa", "Circle of Life")
        assert f'response="{response}"' in header and "nc=00000001" in header and 'opaque="FQhe' in header
    for strange in (
        [],
        ['Basic realm="x"'],
        [f"Digest {rest}, algorithm=SHA-512-256"],
        ['Digest realm="x", nonce="y"'],
    ):
        with pytest.raises(ValueError, match="no digest"):
            digest.authorization(strange, "GET", "/", "admin", "x")


def test_a_shelly_with_a_password_is_read_and_written(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SHELLY", PASSWORD)
    device = make("relay_with_password", PASSWORD)
    site = site_with(tmp_path, device.url, SWITCH, AUTH)
    driver = open_driver(site)
    for word in ("on", "off"):
        assert Broker(site, driver, Journal()).execute(Command("relay", word, {})).status == "done"
        assert device.status["switch:0"]["output"] is (word == "on")
    assert device.carried_out == 2 and device.refused > 2  # each request is asked for the password first


@pytest.mark.parametrize(
    ("auth", "password", "message"),
    [
        ("", None, r"answered 401: `auth` of its driver"),
        (AUTH, "wrong", r"answered 401: `auth` of its driver"),
        (AUTH, None, r"the environment has no TEST_SHELLY"),
    ],
)
def test_without_the_password_nothing_is_done(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str, password: str | None, message: str
) -> None:
    if password:
        monkeypatch.setenv("TEST_SHELLY", password)
    device = make("relay_with_password", PASSWORD)
    driver = open_driver(site_with(tmp_path, device.url, SWITCH, auth))
    for touch in (lambda: driver.read("relay"), lambda: driver.write("relay", {"on": True})):
        with pytest.raises(DeviceUnavailable, match=message) as raised:
            touch()
        assert PASSWORD not in str(raised.value)
    assert device.carried_out == 0


def test_a_digest_without_a_user_is_found_without_a_device(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="digest needs a user; a Shelly's is admin"):
        open_driver(site_with(tmp_path, "http://192.0.2.1", SWITCH, AUTH.replace("user: admin, ", "")))


def test_the_simulated_peer_wants_the_password_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_with(tmp_path, f"http://127.0.0.1:{free_port()}", SWITCH, AUTH)
    monkeypatch.setenv("TEST_SHELLY", PASSWORD)
    world = RealTimeWorld(site)
    peer = make_peer(site, "it", world)
    peer.start()
    try:
        driver = open_driver(site)
        driver.write("relay", {"on": True})
        assert driver.read("relay")["on"].value is True
        bare = open_driver(
            site.model_copy(update={"drivers": {"it": {"type": "http", "url": site.drivers["it"]["url"]}}})
        )
        with pytest.raises(CallRefused, match="401"):
            bare.write("relay", {"on": False})
        assert world.read("relay") == {"on": True}
    finally:
        peer.stop()


def test_a_slow_cover_is_done_when_it_is_at_its_place(make: Make, tmp_path: Path) -> None:
    device = make("cover", cover_s=1.5)
    site = site_with(tmp_path, device.url, BLINDS)
    broker = Broker(site, open_driver(site), Journal())
    outcome = broker.execute(Command("blinds", "set", {"position": 90}))
    assert (outcome.status, outcome.report) == ("done", "The blinds position is 90 percent.")
    assert device.status["cover:0"]["state"] == "stopped"
    assert broker.execute(Command("blinds", "close", {})).status == "done"
    assert device.status["cover:0"]["state"] == "closed"


def test_a_cover_that_passes_by_is_not_there(make: Make, tmp_path: Path) -> None:
    device = make("cover", cover_s=2.0)
    site = site_with(tmp_path, device.url, BLINDS)
    driver = open_driver(site)
    broker = Broker(site, driver, Journal())
    driver.write("blinds", {"position": 100})
    here = driver.read("blinds")["position"]
    assert here.moving_s == 4.0
    until_s = time.monotonic() + 5
    while (here := int(broker.state()["blinds"]["position"])) < 50:
        assert time.monotonic() < until_s
    assert broker.execute(Command("blinds", "set", {"position": here})).status == "done"
    assert device.carried_out == 2 and device.status["cover:0"]["state"] == "stopped"
    assert device.status["cover:0"]["current_pos"] == here


def test_a_cover_that_does_not_get_there_is_said_within_its_own_time(make: Make, tmp_path: Path) -> None:
    device = make("cover", cover_s=0.5)
    site = site_with(tmp_path, device.url, BLINDS)
    slow = device.call

    def jammed(method: str, arguments: dict[str, Any]) -> tuple[int, Any]:
        status, answer = slow(method, arguments)
        if method == "Cover.GetStatus" and answer["current_pos"] > 60:
            answer = answer | {"current_pos": 60, "state": "stopped"}
        return status, answer

    device.call = jammed  # type: ignore[method-assign]
    broker = Broker(site, open_driver(site), Journal())
    outcome = broker.execute(Command("blinds", "open", {}))
    assert (
        outcome.status == "failed"
        and outcome.report == "The blinds did not get there, the blinds position is 60 percent."
    )
    device.call, device.is_stuck = slow, True  # type: ignore[method-assign]
    device.status["cover:0"] |= {"current_pos": 30, "state": "stopped"}
    started_s = time.monotonic()
    outcome = broker.execute(Command("blinds", "set", {"position": 10}))
    assert (outcome.status, outcome.report) == ("failed", "The blinds did not change, it is 30 percent.")
    assert 2 <= time.monotonic() - started_s < 6  # a motor has two seconds to start


@pytest.mark.parametrize("change", [{"pos_control": False}, {"current_pos": None}, {}])
def test_a_cover_that_is_not_calibrated_is_never_done_and_it_is_said(
    make: Make, tmp_path: Path, change: dict[str, Any]
) -> None:
    device = make("cover_not_calibrated")
    device.status["cover:0"] |= {"pos_control": True, "current_pos": 0} | change if change else {}
    more = "    properties: {power: {type: number, minimum: 0, maximum: 4000}}\n"
    power = "power: {rpc: Cover, key: apower}, position:"
    for devices in (BLINDS, (BLINDS + more).replace("position:", power)):
        site = site_with(tmp_path, device.url, devices)
        broker = Broker(site, open_driver(site), Journal())
        for command in (Command("blinds", "close", {}), Command("blinds", "set", {"position": 0})):
            outcome = broker.execute(command)
            assert outcome.status == "failed" and outcome.result["reason"] == "not calibrated"
            assert "the blinds is not calibrated" in outcome.report.lower()


def test_a_shelly_that_sleeps_keeps_its_last_value(make: Make, tmp_path: Path) -> None:
    device = make("battery_climate")
    schema = "{type: number, minimum: -40, maximum: 60, unit: degrees}"
    devices = f"""
  nursery:
    kind: sensor
    driver: it
    properties: {{temperature_c: {schema}}}
    at: {{temperature_c: {{rpc: Temperature, key: tC, is_asked: false}}}}
"""
    site, now_s = site_with(tmp_path, device.url, devices), [1000.0]
    driver = open_driver(site, lambda: now_s[0])
    assert driver.read("nursery")["temperature_c"].value == 21.3
    device.close()
    now_s[0] = 8200.0
    kept = driver.read("nursery")["temperature_c"]
    assert (kept.value, kept.time_s, kept.quality) == (21.3, 1000.0, "good")
    awake = open_driver(site_with(tmp_path, device.url, devices.replace(", is_asked: false", "")))
    with pytest.raises(DeviceUnavailable):
        awake.read("nursery")
    with pytest.raises(DeviceUnavailable):
        open_driver(site).read("nursery")  # nothing was heard yet


def test_several_threads_log_in_at_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SHELLY", PASSWORD)
    device = make("relay_with_password", PASSWORD)
    driver = open_driver(site_with(tmp_path, device.url, SWITCH, AUTH))
    problems: list[str] = []

    def read() -> None:
        for _ in range(10):
            try:
                driver.read("relay")
            except DeviceUnavailable as error:
                problems.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_the_password_is_in_no_message(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SHELLY", PASSWORD)
    site = site_with(tmp_path, make("relay_with_password", "another").url, SWITCH, AUTH)
    assert PASSWORD not in (tmp_path / "own.yaml").read_text("utf-8")
    outcome = Broker(site, open_driver(site), journal := Journal()).execute(Command("relay", "on", {}))
    assert outcome.status == "failed"
    assert not any(PASSWORD in json.dumps(event.body) for event in journal.events())

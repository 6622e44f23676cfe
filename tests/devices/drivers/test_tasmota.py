"""Tasmota over a real broker, with devices that answer as its firmware does, and devices that cannot be asked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.driver import DeviceUnavailable
from devices.drivers.registry import open_driver
from devices.site.site import Site
from devices.site.tools import Command
from edgewright import main
from tests.devices.drivers.rigs import mqtt_broker, site_of
from tests.devices.drivers.tasmota_device import TasmotaDevice

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
DATA = Path(__file__).parents[1] / "data" / "tasmota"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with mqtt_broker(tmp_path) as port:
        yield port


def answer(name: str) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return plain


def site_with(folder: Path, port: int, devices: str, profile: str = "tasmota") -> Site:
    driver = f"{{type: mqtt, host: 127.0.0.1, port: {port}, profile: {profile}, timeout_s: 0.5}}"
    return site_of(folder, driver, devices)


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [("metering_plug", "POWER1", "POWER"), ("dual_relay_with_meter", "POWER", "POWER1"),
     ("metering_plug", "POWER", "POWER"), ("dual_relay_with_meter", "POWER2", "POWER2")],
)  # fmt: skip
def test_a_relay_is_known_by_either_name(port: int, tmp_path: Path, name: str, asked: str, said: str) -> None:
    device = TasmotaDevice(answer(name), port)
    at = f'{{"on": {{topic: {device.topic}, key: {asked}}}}}'
    site = site_with(tmp_path, port, f"  plug: {{model: switch, driver: it, at: {at}}}")
    driver = open_driver(site)
    try:
        for word in ("on", "off", "on"):
            assert Broker(site, driver, Journal()).execute(Command("plug", word, {})).status == "done"
            assert device.state[said] == word.upper()
            assert driver.read("plug")["on"].value is (word == "on")
    finally:
        driver.close()
        device.close()


def test_what_came_instead_is_said(port: int, tmp_path: Path) -> None:
    device = TasmotaDevice(answer("dual_relay_with_meter"), port)
    site = site_with(tmp_path, port, '  plug: {model: switch, driver: it, at: {"on": {topic: hall_dual, key: POWER5}}}')
    driver = open_driver(site)
    try:
        with pytest.raises(DeviceUnavailable, match=r"plug: no POWER5 on stat/hall_dual/RESULT .* it said .*Unknown"):
            driver.read("plug")
    finally:
        driver.close()
        device.close()


def test_a_plain_topic_gets_the_value_alone_although_the_reading_has_a_key(port: int, tmp_path: Path) -> None:
    device = TasmotaDevice(answer("metering_plug"), port)
    place = "topic: stat/coffee_machine/RESULT, key: POWER, words: ['OFF', 'ON'], get_topic: cmnd/coffee_machine/POWER"
    at = f'{{"on": {{{place}, set_topic: cmnd/coffee_machine/POWER, set_key: ""}}}}'
    site = site_with(tmp_path, port, f"  plug: {{model: switch, driver: it, at: {at}}}", "plain")
    driver = open_driver(site)
    try:
        driver.write("plug", {"on": False})
        assert ("POWER", "OFF") in device.commands and driver.read("plug")["on"].value is False
    finally:
        driver.close()
        device.close()


def test_lists_in_sensor_messages_have_addresses_and_are_asked_for_once(port: int, tmp_path: Path) -> None:
    device = TasmotaDevice(answer("dual_relay_with_meter"), port)
    site = site_with(
        tmp_path,
        port,
        """
  meter:
    kind: sensor
    driver: it
    properties:
      lamp: {type: number, minimum: 0, maximum: 4000}
      fan: {type: number, minimum: 0, maximum: 4000}
    at:
      lamp: {topic: hall_dual, key: ENERGY.Power.0, is_sensor: true}
      fan: {topic: hall_dual, key: ENERGY.Power.1, is_sensor: true}
""",
    )
    driver = open_driver(site)
    try:
        assert {name: reading.value for name, reading in driver.read("meter").items()} == {"lamp": 41, "fan": 7}
        assert device.commands == [("Status", "10")]
    finally:
        driver.close()
        device.close()


SLEEPER = """
  cellar:
    kind: sensor
    driver: it
    properties: {humidity: {type: number, minimum: 0, maximum: 100, unit: percent}}
    at: {humidity: {topic: cellar, key: AM2301.Humidity, is_sensor: true, is_asked: false}}
  fan:
    model: switch
    driver: it
    at: {"on": {topic: cellar_fan, key: POWER}}
    actions: {"on": {requires: [{property: cellar.humidity, above: 60}]}}
"""


def test_a_sensor_that_sleeps_keeps_its_last_value_which_no_interlock_takes(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = answer("metering_plug")
    plain["Status"]["Topic"] = "cellar_fan"
    plain["StatusSTS"]["POWER"] = "OFF"
    fan = TasmotaDevice(plain, port)
    asleep = TasmotaDevice(answer("climate_sensors") | {"Status": {"Topic": "cellar"}}, port)
    asleep.say("tele", "SENSOR", {"AM2301": {"Humidity": 80.5}}, retain=True)
    site, now_s = site_with(tmp_path, port, SLEEPER), [time.time()]
    driver = open_driver(site, lambda: now_s[0])
    broker = Broker(site, driver, Journal(), clock=lambda: now_s[0])
    on = Command("fan", "on", {})
    try:
        assert broker.state()["cellar"] == {"humidity": 80.5}
        assert broker.age_s(broker.readings()["cellar"]["humidity"]) == float("inf")
        outcome = broker.execute(on)  # nobody knows since when it is so
        assert (outcome.status, outcome.result["reason"]) == ("refused", "there is no fresh reading of the cellar")
        asleep.say("tele", "SENSOR", {"AM2301": {"Humidity": 75.0}})
        until_s = time.monotonic() + 5
        while broker.state()["cellar"] != {"humidity": 75.0}:
            assert time.monotonic() < until_s
        now_s[0] += 3 * 3600
        assert broker.state_with_ages() == (broker.state(), {"cellar": {"humidity": "3 hours ago"}})
        assert broker.age_s(broker.readings()["cellar"]["humidity"]) == pytest.approx(3 * 3600, abs=5)
        assert broker.execute(on).status == "refused"
        now_s[0] -= 3 * 3600
        assert broker.execute(on).status == "done"
        assert not asleep.commands  # it was never asked
        assert main(["devices", "read", "cellar", "--live", "--site", str(tmp_path / "own.yaml")]) == 0
        assert "The cellar humidity is 80.5 percent (nobody knows since when)." in capsys.readouterr().out
    finally:
        driver.close()
        fan.close()
        asleep.close()

"""MQTT beyond the contract of all drivers: what counts as an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from devices.driver import DeviceUnavailable
from devices.drivers.mqtt.driver import MAX_MESSAGE_BYTES, MqttDriver
from devices.drivers.registry import load_checked_site, open_driver, settings_of
from devices.errors import UsageError
from devices.simulated_peers import Stage
from tests.devices.drivers.rigs import make_rig, site_of
from tests.ports import free_port

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])  # a free port is looked for
TOPIC = "zigbee2mqtt/lamp"


@dataclass
class Delivered:
    """A message as paho delivers it."""

    retain: bool = False
    topic: str = TOPIC
    payload: bytes = b'{"state": "ON", "brightness": 20}'


class Asked:
    """A client on whose questions one message comes."""

    def __init__(self, message: Delivered) -> None:
        self.message = message
        self.driver: MqttDriver | None = None

    def publish(self, topic: str, payload: str, qos: int) -> None:
        assert self.driver is not None and topic == f"{TOPIC}/get" and payload and qos == 1
        self.driver._on_message(None, None, self.message)


def driver_with(client: Asked, folder: Path) -> MqttDriver:
    settings, bindings = settings_of(make_rig("mqtt, zigbee2mqtt", folder).site, "it")
    driver = MqttDriver(settings.model_copy(update={"timeout_s": 0.05}), bindings, lambda: 1.0)
    client.driver, driver._client, driver._is_ready = driver, client, True
    return driver


def test_a_message_after_the_question_is_the_answer(tmp_path: Path) -> None:
    read = driver_with(Asked(Delivered()), tmp_path).read("lamp")
    assert {name: reading.value for name, reading in read.items()} == {"on": True, "brightness": 10}


@pytest.mark.parametrize(
    "message",
    [Delivered(retain=True), Delivered(topic="zigbee2mqtt/blinds"), Delivered(payload=b" " * (MAX_MESSAGE_BYTES + 1))],
    ids=["retained", "another topic", "too long"],
)
def test_what_is_no_answer(message: Delivered, tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="nothing on zigbee2mqtt/lamp within"):
        driver_with(Asked(message), tmp_path).read("lamp")


ALARM = """
schema: site/v1
name: guarded
title: a guarded house
drivers: {it: {type: mqtt, host: 127.0.0.1, port: PORT, profile: plain}}
devices:
  alarm:
    model: alarm_panel
    driver: it
    at:
      state: {topic: alarm/state, key: state, set_topic: alarm/set, get_topic: alarm/get, secrets: {code: ALARM_CODE}}
"""


def test_a_secret_goes_along_with_a_write_and_nothing_is_sent_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    path = tmp_path / "guarded.yaml"
    path.write_text(ALARM.replace("PORT", str(free_port())), encoding="utf-8")
    site, heard = load_checked_site(path), list[str]()
    stage, driver = Stage(site), open_driver(site)
    listener, is_listening = Client(CallbackAPIVersion.VERSION2), Event()
    try:
        listener.on_message = lambda _c, _d, message: heard.append(message.payload.decode())
        listener.on_subscribe = lambda *_: is_listening.set()
        listener.connect("127.0.0.1", site.drivers["it"]["port"])
        listener.loop_start()
        listener.subscribe("alarm/set", 1)
        assert is_listening.wait(10)
        with pytest.raises(DeviceUnavailable, match="alarm: the environment has no ALARM_CODE"):
            driver.write("alarm", {"state": "armed_away"})
        monkeypatch.setenv("ALARM_CODE", "80714")
        driver.write("alarm", {"state": "armed_night"})
        assert driver.read("alarm")["state"].value == "armed_night"
        assert heard == ['{"state": "armed_night", "code": "80714"}']
    finally:
        listener.disconnect()
        listener.loop_stop()
        driver.close()
        stage.close()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("key: state,", 'key: state, set_key: "",', "secrets need a key beside them"),
        ("profile: plain", "profile: tasmota", "cannot have secrets: Tasmota is told a value alone"),
        ("ALARM_CODE}", '"80 714"}', "secrets.code"),
    ],
)
def test_a_secret_that_cannot_be_sent_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "guarded.yaml"
    path.write_text(ALARM.replace("PORT", "1883").replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_checked_site(path)


HOMIE = """
  lamp:
    model: light
    driver: it
    at: {"on": {topic: homie/5/lamp/light/power, set_topic: homie/5/lamp/light/power/set, is_asked: false}}
"""


def test_what_a_broker_keeps_is_taken_again_after_a_break(tmp_path: Path) -> None:
    """A message that is kept and new was said while there was no connection; the one that is known keeps its time."""
    site = site_of(tmp_path, "{type: mqtt, host: 127.0.0.1, profile: plain, timeout_s: 0.05}", HOMIE)
    driver = MqttDriver(*settings_of(site, "it"), lambda: 7.0)
    client = Asked(Delivered())
    client.driver, driver._client, driver._is_ready = driver, client, True
    for payload, retain, time_s in ((b"true", False, 7.0), (b"true", True, 7.0), (b"false", True, -math.inf)):
        driver._on_message(None, None, Delivered(retain, "homie/5/lamp/light/power", payload))
        reading = driver.read("lamp")["on"]
        assert (reading.value, reading.time_s) == (payload == b"true", time_s)

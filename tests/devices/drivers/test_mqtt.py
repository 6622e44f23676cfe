"""MQTT beyond the contract of all drivers: what counts as an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from devices.driver import DeviceUnavailable
from devices.drivers.mqtt.driver import MAX_MESSAGE_BYTES, MqttDriver
from devices.drivers.registry import settings_of
from tests.devices.drivers.rigs import make_rig, site_of

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

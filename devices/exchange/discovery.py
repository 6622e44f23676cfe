"""What this machine could drive: serial lines, pin chips and buses by their names, and what zigbee2mqtt knows."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devices.driver import DeviceUnavailable
from devices.exchange.imports.imported import parse_json

PLACES = {
    "serial lines": ("serial/by-id/*", "ttyUSB*", "ttyACM*", "ttyAMA*"),
    "pin chips": ("gpiochip*",),
    "I2C buses": ("i2c-*",),
}
DEVICES_TOPIC, GROUPS_TOPIC = "zigbee2mqtt/bridge/devices", "zigbee2mqtt/bridge/groups"
ANSWER_S = 5.0
GROUPS_S = 1.0  # after the devices; the broker keeps both lists


def local_ports(dev: Path = Path("/dev")) -> dict[str, list[str]]:
    """Return device files by what they are; nothing is opened."""
    return {
        what: [str(path) for pattern in patterns for path in sorted(dev.glob(pattern))]
        for what, patterns in PLACES.items()
    }


def zigbee_network(
    host: str, port: int, timeout_s: float = ANSWER_S
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return zigbee2mqtt's lists of devices and of groups, which its broker keeps.

    Raises:
        DeviceUnavailable: no broker, no list of devices on it, or nonsense.
    """
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    found = dict[str, bytes]()
    has_come = {topic: threading.Event() for topic in (DEVICES_TOPIC, GROUPS_TOPIC)}

    def take(_: Any, __: Any, message: Any) -> None:
        found[message.topic] = message.payload
        has_come[message.topic].set()

    def ask(*_: Any) -> None:
        client.subscribe([(GROUPS_TOPIC, 0), (DEVICES_TOPIC, 0)])

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect = ask
    client.on_message = take
    try:
        client.connect(host, port, keepalive=10)
    except OSError as error:
        raise DeviceUnavailable(f"no MQTT broker at {host}:{port}: {error.strerror or error}") from error
    client.loop_start()
    is_there = has_come[DEVICES_TOPIC].wait(timeout_s)
    if is_there:
        has_come[GROUPS_TOPIC].wait(min(timeout_s, GROUPS_S))
    client.disconnect()
    client.loop_stop()
    if not is_there:
        raise DeviceUnavailable(
            f"{host}:{port} has no {DEVICES_TOPIC} within {timeout_s:g} s", hint="is zigbee2mqtt running?"
        )
    return _objects(found, DEVICES_TOPIC), _objects(found, GROUPS_TOPIC)


def _objects(found: Mapping[str, bytes], topic: str) -> list[dict[str, Any]]:
    try:
        objects = parse_json(found.get(topic, b"[]"))
    except ValueError as error:
        raise DeviceUnavailable(f"{topic} is not JSON") from error
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise DeviceUnavailable(f"{topic} is no list of {topic.rpartition('/')[2]}")
    return objects

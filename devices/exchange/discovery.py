"""What this machine could drive: serial lines, pin chips and buses by their names, and zigbee2mqtt's devices."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from devices.driver import DeviceUnavailable

PLACES = {
    "serial lines": ("serial/by-id/*", "ttyUSB*", "ttyACM*", "ttyAMA*"),
    "pin chips": ("gpiochip*",),
    "I2C buses": ("i2c-*",),
}
DEVICES_TOPIC = "zigbee2mqtt/bridge/devices"
ANSWER_S = 5.0


def local_ports(dev: Path = Path("/dev")) -> dict[str, list[str]]:
    """Return device files by what they are; nothing is opened."""
    return {
        what: [str(path) for pattern in patterns for path in sorted(dev.glob(pattern))]
        for what, patterns in PLACES.items()
    }


def zigbee_devices(host: str, port: int, timeout_s: float = ANSWER_S) -> list[dict[str, Any]]:
    """Return zigbee2mqtt's list of devices, which its broker keeps.

    Raises:
        DeviceUnavailable: no broker, no such list on it, or nonsense.
    """
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    found, has_come = list[bytes](), threading.Event()

    def take(_: Any, __: Any, message: Any) -> None:
        found.append(message.payload)
        has_come.set()

    def ask(*_: Any) -> None:
        client.subscribe(DEVICES_TOPIC)

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect = ask
    client.on_message = take
    try:
        client.connect(host, port, keepalive=10)
    except OSError as error:
        raise DeviceUnavailable(f"no MQTT broker at {host}:{port}: {error.strerror or error}") from error
    client.loop_start()
    is_there = has_come.wait(timeout_s)
    client.disconnect()
    client.loop_stop()
    if not is_there:
        raise DeviceUnavailable(
            f"{host}:{port} has no {DEVICES_TOPIC} within {timeout_s:g} s", hint="is zigbee2mqtt running?"
        )
    try:
        devices = json.loads(found[0])
    except ValueError as error:
        raise DeviceUnavailable(f"{DEVICES_TOPIC} is not JSON") from error
    if not isinstance(devices, list) or not all(isinstance(one, dict) for one in devices):
        raise DeviceUnavailable(f"{DEVICES_TOPIC} is no list of devices")
    return devices

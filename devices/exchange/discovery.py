"""What this machine could drive: serial lines, pin chips and buses by their names, and what an MQTT broker knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from devices.driver import DeviceUnavailable
from devices.exchange.imports.topics import DEVICES_TOPIC, GROUPS_TOPIC
from devices.exchange.mqtt_topics import Topics, hear_topics

PLACES = {
    "serial lines": ("serial/by-id/*", "ttyUSB*", "ttyACM*", "ttyAMA*"),
    "pin chips": ("gpiochip*",),
    "I2C buses": ("i2c-*",),
}
DESCRIBED = [DEVICES_TOPIC, GROUPS_TOPIC, "homie/#"]
ANSWER_S = 5.0


def local_ports(dev: Path = Path("/dev")) -> dict[str, list[str]]:
    """Return device files by what they are; nothing is opened."""
    return {
        what: [str(path) for pattern in patterns for path in sorted(dev.glob(pattern))]
        for what, patterns in PLACES.items()
    }


def broker_topics(
    host: str, port: int, filters: Sequence[str] = (), seconds: float | None = None, user: str = ""
) -> Topics:
    """Return what a broker keeps of zigbee2mqtt and of Homie devices, and what is said on other topics.

    Args:
        host: the MQTT broker.
        port: its port.
        filters: of the other topics.
        seconds: how long to listen; None until it is quiet.
        user: as `hear_topics` takes it.

    Raises:
        DeviceUnavailable: no broker, or nothing of this on it.
    """
    known = [] if "#" in filters else DESCRIBED
    listen_s = ANSWER_S if seconds is None else seconds
    topics = hear_topics(host, port, [*known, *filters], listen_s, bool if seconds is None else None, user)
    if not topics:
        what = " nor ".join(one for one in (*DESCRIBED, *filters) if one != GROUPS_TOPIC)
        raise DeviceUnavailable(
            f"{host}:{port} has neither {what} within {listen_s:g} s", hint="is zigbee2mqtt running?"
        )
    return topics

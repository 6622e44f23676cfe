"""Sites from MQTT topics with their values: zigbee2mqtt's list, Homie devices, and others by example."""

from __future__ import annotations

import json

from devices.errors import UsageError
from devices.exchange.imports.homie import import_homie
from devices.exchange.imports.imported import Imported
from devices.exchange.imports.parts import driver_of
from devices.exchange.imports.topics_by_example import import_by_example
from devices.exchange.imports.zigbee2mqtt import import_zigbee2mqtt
from devices.exchange.mqtt_topics import Topics

PORT = 1883
ZIGBEE_BASE = "zigbee2mqtt/"
ZIGBEE_TOPIC = f"{ZIGBEE_BASE}bridge/devices"
ANNOUNCEMENTS = "homeassistant/"  # where devices are announced to Home Assistant


def import_topics(topics: Topics, host: str, source: str, port: int = PORT, user: str = "") -> Imported:
    """Return the devices of which topics tell: those that are described, and the rest by example.

    Args:
        topics: with their values.
        host: the broker.
        source: where the topics are from, for errors.
        port: of the broker.
        user: whom the broker knows.

    Raises:
        UsageError: zigbee2mqtt's list is broken; the message has the source, the device and the field.
    """
    made, used = Imported(), set[str]()
    more = ({"port": port} if port != PORT else {}) | ({"user": user} if user else {})
    if ZIGBEE_TOPIC in topics:
        made = import_zigbee2mqtt(_zigbee_list(topics[ZIGBEE_TOPIC][-1], source), host, source)
        made.drivers["zigbee"] |= more
        used |= {topic for topic in topics if topic.startswith(ZIGBEE_BASE)}
        if len(used) > 1:
            made.notes.append(f"{len(used) - 1} topics below {ZIGBEE_BASE}: its list of devices tells of them")
    driver = driver_of(made, "mqtt", {"type": "mqtt", "host": host, "profile": "plain", **more})
    used |= import_homie(made, topics, driver)
    for topic in topics:
        if topic.startswith(ANNOUNCEMENTS):
            made.offer("", topic).leave("it announces a device to Home Assistant")
            used.add(topic)
    import_by_example(made, {topic: values for topic, values in topics.items() if topic not in used}, driver)
    if not any(entry["driver"] == driver for entry in made.devices.values()):
        del made.drivers[driver]
    if user:
        made.notes.append(f"{host} knows devices by a password: give its drivers `password_file`")
    return made


def _zigbee_list(text: str, source: str) -> list[dict[str, object]]:
    try:
        devices = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{source}: {ZIGBEE_TOPIC} is not JSON") from error
    if not isinstance(devices, list) or not all(isinstance(one, dict) for one in devices):
        raise UsageError(f"{source}: {ZIGBEE_TOPIC} is no list of devices")
    return devices

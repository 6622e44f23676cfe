"""Sites from MQTT topics with their values: zigbee2mqtt's lists, Homie devices, and others by example."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from devices.errors import UsageError
from devices.exchange.imports.homie import import_homie
from devices.exchange.imports.imported import Imported, driver_of, parse_json
from devices.exchange.imports.topics_by_example import import_by_example
from devices.exchange.imports.zigbee2mqtt import import_zigbee2mqtt
from devices.exchange.imports.zigbee2mqtt_groups import Group, read_groups
from devices.exchange.mqtt_topics import Topics

PORT = 1883
ZIGBEE_BASE = "zigbee2mqtt/"
DEVICES_TOPIC, GROUPS_TOPIC = f"{ZIGBEE_BASE}bridge/devices", f"{ZIGBEE_BASE}bridge/groups"
ANNOUNCEMENTS = "homeassistant/"  # where devices are announced to Home Assistant


def import_topics(
    topics: Topics, host: str, source: str, port: int = PORT, user: str = "", groups: Iterable[Group] = ()
) -> Imported:
    """Return the devices of which topics tell: those that are described, and the rest by example.

    Args:
        topics: with their values.
        host: the broker.
        source: where the topics are from, for errors.
        port: of the broker.
        user: whom the broker knows.
        groups: more groups of zigbee2mqtt's devices.

    Raises:
        UsageError: a list of zigbee2mqtt's is broken; the message has the source, the device and the field.
    """
    made, used = Imported(), set[str]()
    more = ({"port": port} if port != PORT else {}) | ({"user": user} if user else {})
    if DEVICES_TOPIC in topics:
        listed = read_groups(_zigbee_list(topics, GROUPS_TOPIC, source), source)
        made = import_zigbee2mqtt(_zigbee_list(topics, DEVICES_TOPIC, source), host, source, [*listed, *groups])
        made.drivers["zigbee"] |= more
        used |= {topic for topic in topics if topic.startswith(ZIGBEE_BASE)}
        if others := len(used - {DEVICES_TOPIC, GROUPS_TOPIC}):
            made.notes.append(f"{others} topics below {ZIGBEE_BASE}: its list of devices tells of them")
    made.host = host
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


def _zigbee_list(topics: Topics, topic: str, source: str) -> list[dict[str, Any]]:
    """Return one of zigbee2mqtt's lists, an empty one if it was not heard."""
    try:
        found = parse_json(topics.get(topic, ["[]"])[-1])
    except ValueError as error:
        raise UsageError(f"{source}: {topic} is not JSON") from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UsageError(f"{source}: {topic} is no list of {topic.rpartition('/')[2]}")
    return found

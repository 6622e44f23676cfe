"""What Home Assistant is told of a box, so that people see and command its devices there. Pure: no network.

Lights, switches, covers, locks, thermostats, fans and valves are there what they are here. Of every other device the
properties are shown, and its safe actions can be pressed. What takes several arguments at once is asked for in words.

A timed action, such as watering for some minutes, is a button for each of a few durations: a switch would promise that
it stays on. Any other duration is asked for in words, or sent to the action's topic.

What needs a yes is shown as part of its device (a lock would be none without it) and refused when it is used: Home
Assistant cannot ask. A button that would always be refused is left out, and so are forbidden actions.

Source: Home Assistant, "MQTT" (discovery messages; device discovery since 2024.11; 2026.2).

Does not guard against: two boxes with a site of the same name at one broker.
"""

from __future__ import annotations

from typing import Any, Literal

from devices.site.site import Site
from edge_agent.serving.mqtt.home_assistant_components import components
from edge_agent.serving.mqtt.requests import PRESS, Topics

Config = dict[str, Any]
LONGEST_STATE = 255  # letters of any entity's state in Home Assistant
ORIGIN = {"name": "Edgewright"}


def node_id(site: Site) -> str:
    """Return what begins every id of a site's box."""
    return f"edgewright_{site.name}"


def announced_filter(site: Site, prefix: str) -> str:
    """Return the topic filter of everything that a site's box ever announced."""
    return f"{prefix}/+/{node_id(site)}/+/config"


def announcements(
    site: Site, topics: Topics, prefix: str, style: Literal["device", "component", "none"], model: str
) -> dict[str, Config]:
    """Return discovery messages by topic, to be published as retained; the box's own are first, as others name it.

    Args:
        site: the devices.
        topics: where the box speaks.
        prefix: where Home Assistant listens.
        style: one message a device, one a component, or none at all.
        model: the bundle's name.
    """
    node = node_id(site)
    box = {"identifiers": [node], "name": f"Edgewright, {site.title}", "manufacturer": "Edgewright", "model": model}
    found = _messages(node, "box", box, _box_components(node, topics), prefix, style)
    for device in site.devices.values():
        about: Config = {"identifiers": [f"{node}_{device.name}"], "via_device": node}
        about |= {"name": f"{device.title[:1].upper()}{device.title[1:]}", "model": device.kind.replace("_", " ")}
        if device.area:
            about["suggested_area"] = site.areas[device.area].title
        made = components(node, device, topics)
        found |= _messages(node, f"device_{device.name}", about, made, prefix, style)
    return found


def _messages(
    node: str, object_id: str, about: Config, made: dict[str, Config], prefix: str, style: str
) -> dict[str, Config]:
    if style == "device" and made:
        message = {"device": about, "origin": ORIGIN, "components": made}
        return {f"{prefix}/device/{node}/{object_id}/config": message}
    if style != "component":
        return {}
    found = {}
    for key, config in made.items():
        plain = {name: value for name, value in config.items() if name != "platform"}
        topic = f"{prefix}/{config['platform']}/{node}/{object_id}_{key}/config"
        found[topic] = plain | {"device": about, "origin": ORIGIN}
    return found


def _box_components(node: str, topics: Topics) -> dict[str, Config]:
    """Return what the box itself is: what it did last, whether something is wrong, stop, and a field to ask it."""
    parts: dict[str, Config] = {
        "last_action": {
            "platform": "sensor",
            "name": "Last action",
            "state_topic": topics("last_action"),
            "value_template": f"{{{{ value_json.get('report', '')[:{LONGEST_STATE}] }}}}",
            "json_attributes_topic": topics("last_action"),
        },
        "problem": {
            "platform": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": topics("health"),
            "value_template": "{{ 'OFF' if value_json.get('status') == 'ok' else 'ON' }}",
            "payload_on": "ON",
            "payload_off": "OFF",
            "json_attributes_topic": topics("health"),
        },
        "stop": {"platform": "button", "name": "Stop everything", "payload_press": PRESS} | _told(topics("stop")),
        "ask": {"platform": "text", "name": "Ask", "max": LONGEST_STATE} | _told(topics("ask")),
        "answer": {
            "platform": "sensor",
            "name": "Answer",
            "state_topic": topics("answer"),
            "value_template": f"{{{{ value_json.get('answer', '')[:{LONGEST_STATE}] }}}}",
        },
    }
    there = {"availability": [{"topic": topics.availability()}], "availability_mode": "all"}
    return {key: part | {"unique_id": f"{node}_box_{key}"} | there for key, part in parts.items()}


def _told(topic: str) -> Config:
    return {"command_topic": topic, "qos": 1}

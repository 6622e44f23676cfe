"""A Homie device made from its own definition: it keeps its attributes and values on a broker, and takes what it may.

It knows no site. What it is told must fit the format that it declares; else it is a violation, and nothing changes.
Source: The Homie Convention 4.0.0 and 5.0.0.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

PATTERNS = {"integer": r"-?\d+", "float": r"-?\d+(\.\d+)?([eE]-?\d+)?", "boolean": "true|false"}
COLORS = {"rgb": (255, 255, 255), "hsv": (360, 100, 100), "xyz": (1, 1)}


def fits(payload: str, declared: dict[str, Any], *, is_v5: bool) -> bool:
    """Return whether a payload is one of a property."""
    kind, form = declared["datatype"], declared.get("format", "")
    if kind == "enum":
        return payload in form.split(",")
    if kind == "color":
        space, *parts = payload.split(",") if is_v5 else [form, *payload.split(",")]
        number = PATTERNS["float"] if is_v5 else r"\d+"
        has_parts = len(parts) == len(COLORS.get(space, ())) and all(re.fullmatch(number, part) for part in parts)
        return (
            space in form.split(",")
            and has_parts
            and all(0 <= float(part) <= most for part, most in zip(parts, COLORS[space], strict=True))
        )
    if not re.fullmatch(PATTERNS.get(kind, ".*"), payload):
        return False
    if kind in {"integer", "float"} and form:
        low, high, *step = form.split(":")
        value = float(payload)
        base = float(low or high or 0)
        is_step = not step or abs((value - base) / float(step[0]) - round((value - base) / float(step[0]))) < 1e-6
        return (not low or value >= float(low)) and (not high or value <= float(high)) and is_step
    return True


class HomieDevice:
    """One device on a broker.

    Args:
        definition: `id`, `homie` (4 or 5), `name`, `nodes`, and each property with its `value`.
        port: of the broker; 0 for a device that is on none.
    """

    def __init__(self, definition: dict[str, Any], port: int) -> None:
        self.definition, self.is_v5 = definition, definition["homie"] == 5
        self.base = f"homie/{'5/' if self.is_v5 else ''}{definition['id']}"
        self.values = {
            f"{self.base}/{node}/{key}": one.get("value")
            for node, part in definition["nodes"].items()
            for key, one in part["properties"].items()
        }
        self.violations: list[str] = []
        if port:
            self._join(port)

    def _join(self, port: int) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2)
        joined, kept = threading.Event(), threading.Semaphore(0)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{self.base}/+/+/set", 1)
        self._client.on_subscribe = lambda *_: joined.set()
        self._client.on_publish = lambda *_: kept.release()
        self._client.on_message = self._on_message
        self._client.will_set(f"{self.base}/$state", "lost", qos=1, retain=True)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert joined.wait(5)
        topics = self.topics()
        for topic, payload in topics.items():
            self._client.publish(topic, payload, qos=1, retain=True)
        assert all(kept.acquire(timeout=5) for _ in topics)

    def topics(self) -> dict[str, str]:
        """Return what it keeps on the broker."""
        values = {topic: value for topic, value in self.values.items() if value is not None}
        found = self._description() if self.is_v5 else self._attributes()
        return {f"{self.base}/{path}": text for path, text in found.items()} | values | {f"{self.base}/$state": "ready"}

    def _description(self) -> dict[str, str]:
        nodes = {
            node: part | {"properties": {key: _without_value(one) for key, one in part["properties"].items()}}
            for node, part in self.definition["nodes"].items()
        }
        more = {key: self.definition[key] for key in ("name", "root", "children") if key in self.definition}
        return {"$description": json.dumps({"homie": "5.0", "version": 7, "nodes": nodes, **more})}

    def _attributes(self) -> dict[str, str]:
        nodes = self.definition["nodes"]
        found = {"$homie": "4.0.0", "$name": self.definition["name"], "$nodes": ",".join(nodes), "$extensions": ""}
        for node, part in nodes.items():
            properties = part["properties"]
            found |= {f"{node}/${key}": part.get(key, "") for key in ("name", "type")}
            found[f"{node}/$properties"] = ",".join(properties)
            for key, one in properties.items():
                for name, value in _without_value(one).items():
                    found[f"{node}/{key}/${name}"] = str(value).lower() if isinstance(value, bool) else value
        return found

    def say(self, path: str, payload: str) -> None:
        """Publish a topic of the device, which the broker keeps."""
        self._client.publish(f"{self.base}/{path}", payload, qos=1, retain=True)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        topic, payload = message.topic.removesuffix("/set"), message.payload.decode()
        *_, node, key = topic.split("/")
        declared = self.definition["nodes"].get(node, {"properties": {}})["properties"].get(key, {})
        if not declared.get("settable") or message.retain or not fits(payload, declared, is_v5=self.is_v5):
            self.violations.append(f"{topic} was set to {payload!r}")
            return
        self.values[topic] = payload
        self._client.publish(topic, payload, qos=1, retain=declared.get("retained", True))


def _without_value(declared: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in declared.items() if key != "value"}

"""A Tasmota device made from an answer to `STATUS 0`: it answers over MQTT as the firmware does, knowing no site.

Source: Tasmota, "Commands", "MQTT", "Blinds and Shutters".
"""

from __future__ import annotations

import json
import re
import threading
import time
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

SHUTTER_S = 0.6  # from one end to the other


class TasmotaDevice:
    """One device on a broker."""

    def __init__(self, answer: dict[str, Any], port: int) -> None:
        self.state, self.sensors = dict(answer["StatusSTS"]), json.loads(json.dumps(answer.get("StatusSNS", {})))
        self.topic = answer["Status"]["Topic"]
        self.commands: list[tuple[str, str]] = []  # what it heard
        self._moves: dict[str, tuple[float, float, float]] = {}  # shutter: from, to, since
        self._client = Client(CallbackAPIVersion.VERSION2)
        joined = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(f"cmnd/{self.topic}/#", 1)
        self._client.on_subscribe = lambda *_: joined.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert joined.wait(5)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, prefix: str, name: str, body: Any, *, retain: bool = False) -> None:
        """Publish something by itself, as telemetry is."""
        self._client.publish(f"{prefix}/{self.topic}/{name}", json.dumps(body), qos=1, retain=retain)

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        command, payload = message.topic.rsplit("/", 1)[-1], message.payload.decode()
        self.commands.append((command, payload))
        name, index = re.fullmatch(r"(.*?)(\d*)", command).groups()  # type: ignore[union-attr]
        if name.upper() == "STATUS":
            assert payload == "10"
            self._settle()
            self.say("stat", "STATUS10", {"StatusSNS": self.sensors})
        else:
            self.say("stat", "RESULT", self._result(name, int(index or 1), payload))

    def _result(self, name: str, index: int, payload: str) -> dict[str, Any]:
        relays = sorted(key for key in self.state if re.fullmatch(r"POWER\d*", key))
        relay = f"POWER{index}" if f"POWER{index}" in relays else "POWER"
        if name == "POWER" and relay in relays and (relay != "POWER" or index == 1):
            if payload in {"ON", "OFF"}:
                self.state[relay] = payload
            return {relay: self.state[relay]}
        if name == "HSBColor" and len(self.state.get("Channel", [])) >= 3:
            return self._color(relays[-1], payload)
        if name in {"Dimmer", "CT", "FanSpeed"} and name in self.state:
            light = relays[-1]
            if payload:
                self.state[name] = int(payload)
                if name != "FanSpeed":
                    self.state[light] = "ON" if name == "CT" or int(payload) else "OFF"
            shown = (name,) if name == "FanSpeed" else (light, "Dimmer", "CT")
            return {key: self.state[key] for key in shown if key in self.state}
        if name == "ShutterPosition" and f"Shutter{index}" in self.sensors:
            return self._shutter(f"Shutter{index}", payload)
        return {"Command": "Unknown"}

    def _color(self, light: str, payload: str) -> dict[str, Any]:
        """Set hue, saturation and brightness, of which those that are not given stay as they are."""
        if payload:
            given, here = payload.split(","), self.state["HSBColor"].split(",")
            hue, saturation, level = (int(one) for one in [*given, *here[len(given) :]])
            self.state["HSBColor"] = f"{min(hue, 360)},{min(saturation, 100)},{min(level, 100)}"
            self.state |= {"Dimmer": min(level, 100), light: "ON"}
        return {key: self.state[key] for key in (light, "Dimmer", "Color", "HSBColor", "Channel")}

    def _shutter(self, name: str, payload: str) -> dict[str, Any]:
        self._settle()
        if payload:
            here = self.sensors[name]["Position"]
            self._moves[name] = here, float(payload), time.monotonic()
            self.sensors[name] |= {"Target": int(payload), "Direction": 1 if float(payload) > here else -1}
        return {name: self.sensors[name]}

    def _settle(self) -> None:
        """Let shutters be where they are by now."""
        for name, (start, end, since_s) in list(self._moves.items()):
            way = (time.monotonic() - since_s) / SHUTTER_S * 100
            if way >= abs(end - start):
                self.sensors[name] |= {"Position": int(end), "Direction": 0}
                del self._moves[name]
            else:
                self.sensors[name]["Position"] = int(start + way * (1 if end > start else -1))

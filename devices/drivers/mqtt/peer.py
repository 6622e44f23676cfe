"""An MQTT broker (amqtt, in this process) with devices on it that are a simulated world."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from amqtt.broker import Broker

from devices.driver import Binding
from devices.drivers.json_values import JsonValue, put
from devices.drivers.mqtt.driver import MqttSettings, Route, routes_of
from devices.simulation.peer import RealTimeWorld, ServerThread, require_free
from devices.site.schema import Value

NOISE = b"\xff\xfe{ no JSON"
SHUTDOWN_S = 2.0
REPORT_S = 0.2  # devices that sleep say how they are by themselves; real ones do so after minutes to hours


class MqttPeer:
    """Broker and devices behind one `mqtt` driver of a site: a bridge such as zigbee2mqtt, or Tasmota's firmware."""

    def __init__(self, settings: MqttSettings, bindings: Mapping[str, Binding], world: RealTimeWorld) -> None:
        self._settings, self._bindings, self._world = settings, bindings, world
        self._routes = routes_of(bindings, settings)
        self._server: ServerThread | None = None
        self._client: Any = None
        self._is_up = threading.Event()

    @property
    def where(self) -> str:
        """Where it listens."""
        return f"mqtt://{self._settings.host}:{self._settings.port}"

    def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        require_free(self._settings.host, self._settings.port)
        self._server = ServerThread(self.where, self._serving)
        self._client = self._join()
        self._is_up.set()
        threading.Thread(target=self._report, name=f"{self.where} reports", daemon=True).start()

    def stop(self) -> None:
        """Drop every connection and stop listening."""
        self._is_up.clear()
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
        if self._server is not None:
            with warnings.catch_warnings():  # amqtt 0.12 leaves connections open, until its tasks or the collector end
                warnings.simplefilter("ignore", ResourceWarning)
                self._server.stop()
                gc.collect()
            self._server = None

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        bind = f"{self._settings.host}:{self._settings.port}"
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": bind}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            }
        )
        await broker.start()
        yield
        # amqtt 0.12 now and then waits for ever for a connection that is gone
        with suppress(TimeoutError):
            await asyncio.wait_for(broker.shutdown(), SHUTDOWN_S)
        for server in broker._servers.values():  # which then still listen
            if server.instance is not None:
                server.instance.close()

    def _join(self) -> Any:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        joined = threading.Event()
        client = Client(CallbackAPIVersion.VERSION2)

        def on_connect(*_: Any) -> None:
            client.subscribe([(topic, 1) for topic in sorted(self._topics() - {""})])

        client.on_connect = on_connect
        client.on_subscribe = lambda *_: joined.set()
        client.on_message = self._on_message
        client.connect(self._settings.host, self._settings.port)
        client.loop_start()
        if not joined.wait(10):
            raise OSError(f"{self.where} takes no subscription")
        return client

    def _topics(self) -> set[str]:
        """Return the topics on which devices are asked and set."""
        routes = [route for routes in self._routes.values() for route in routes.values()]
        return {topic for route in routes for topic in (route.get, route.set)}

    def _on_message(self, client: Any, _data: Any, message: Any) -> None:
        """Do what a device is asked, then show its state, as bridge and firmware do."""
        time.sleep(self._world.faults.delay_s)
        shown: dict[str, dict[str, Any]] = {}
        for device, routes in self._routes.items():
            written = self._written(device, message.topic, message.payload)
            asked = [route for route in routes.values() if message.topic in {route.get, route.set}]
            if asked and not (written and not self._world.write(device, written)):
                self._show(device, {route.state for route in asked}, shown)
        self._publish(client, shown)

    def _report(self) -> None:
        """Show the state of what cannot be asked, again and again."""
        while self._is_up.is_set():
            shown: dict[str, dict[str, Any]] = {}
            for device, routes in self._routes.items():
                self._show(device, {route.state for route in routes.values() if not route.is_asked}, shown)
            if (client := self._client) is not None:
                self._publish(client, shown)
            time.sleep(REPORT_S)

    def _show(self, device: str, topics: set[str], shown: dict[str, dict[str, Any]]) -> None:
        """Put what a device shows under some topics into the messages; nothing if it does not answer."""
        values = self._world.read(device) if topics else None
        for name, route in self._routes[device].items():
            if values is not None and route.state in topics:
                put(shown.setdefault(route.state, {}), route.value.key or "", route.value.to_raw(values[name]))

    def _publish(self, client: Any, shown: dict[str, dict[str, Any]]) -> None:
        for topic, body in shown.items() if not self._world.faults.mute else ():
            plain = body.get("", body)
            payload = NOISE if self._world.faults.garbled else json.dumps(plain).encode()
            client.publish(topic, payload, qos=1)

    def _written(self, device: str, topic: str, payload: bytes) -> dict[str, Value]:
        """Return the properties that a message to a set topic changes."""
        found: dict[str, Value] = {}
        for name, route in self._routes[device].items():
            if route.set != topic or (route.get == topic and not payload):
                continue
            text = payload.decode("utf-8", errors="replace")
            try:
                raw = json.loads(text)
            except ValueError:
                raw = text
            if route.set_key:
                if not isinstance(raw, dict) or route.set_key not in raw:
                    continue
                raw = raw[route.set_key]
            found[name] = _value_of(route, raw, self._bindings[device].device.properties[name])
        return found


def _value_of(route: Route, raw: Any, schema: Any) -> Value:
    value: JsonValue = route.value.model_copy(update={"key": ""})
    return value.to_value(raw, schema)

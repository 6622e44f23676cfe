"""MQTT: zigbee2mqtt, Tasmota, and plain topics, which Homie's are too.

Under `drivers` of a site file: `zigbee: {type: mqtt, host: 127.0.0.1, profile: zigbee2mqtt}`. Under a device, for each
property, with zigbee2mqtt or Tasmota `at: {on: {topic: kitchen_lamp, key: state}}`, and with plain topics
`at: {level_pct: {topic: tank/level, get_topic: tank/get}}`.
Homie: `at: {"on": {topic: homie/5/lamp/light/power, set_topic: homie/5/lamp/light/power/set, is_asked: false,
availability_topic: homie/5/lamp/$state}}`.

Tasmota's first relay is POWER where there is one, and POWER1 where there are several; here either name will do.
Source: zigbee2mqtt, "MQTT Topics and Messages"; Tasmota, "MQTT" and "Commands"; Homie 4 and 5; MQTT 3.1.1.

Nothing is taken for an answer that came before the question, so retained messages never look fresh. Of a device that
cannot be asked (`is_asked: false`) the last message counts, with the time at which it came.

Does not guard against: another client that publishes in a device's name, unless the broker's access rules do.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.driver import (
    Binding,
    DeviceUnavailable,
    DriverType,
    Needs,
    Reading,
    read_secret,
    reading_of,
    secret_from,
)
from devices.drivers.json_values import JsonValue, Secrets, path_of, put
from devices.site.action import is_so
from devices.site.describe import plain_text
from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict

MAX_MESSAGE_BYTES = 1 << 20
KEPT = 8  # messages of a topic, so that whoever waits finds his although others came since
UNKNOWN_TIME_S = -math.inf  # of a retained message: older than anything
FIRST_RELAY = (("POWER", "POWER1"), ("POWER1", "POWER"))  # Tasmota: whichever was asked, its own name is answered
ON_OFF = ("OFF", "ON")  # what zigbee2mqtt and Tasmota say, unless an address has `words`


class MqttSettings(Strict):
    """The broker, and whose topics they are; `password_file` so that no secret stands in a site file."""

    type: Literal["mqtt"]
    host: str = Field(min_length=1)
    port: int = Field(default=1883, ge=1, le=65535)
    profile: Literal["zigbee2mqtt", "tasmota", "plain"]
    base: str = "zigbee2mqtt"
    user: str = ""
    password_file: str = ""
    tls: bool = False
    timeout_s: float = Field(default=2.0, gt=0)


class MqttPlace(JsonValue):
    """Where one property is.

    Attributes:
        topic: the device's name in zigbee2mqtt or Tasmota; with plain topics where its state is published.
        set_key: another key for writing than for reading; with plain topics "" for the value alone, without JSON.
        is_asked: whether the device answers when asked. One that sleeps does not: what it said last is its state, and
            as old as it is, so that no interlock takes it for fresh.
        is_sensor: Tasmota: read from its sensor status, `key` below `StatusSNS`.
        set_topic: plain: where to write.
        secrets: sent with each write, by key, as variables of the environment: `{code: ALARM_CODE}`.
        get_topic: plain: where to ask for the state; without it the next message is waited for.
        availability_topic: where it says whether it is there; one that has said nothing is.
        payload_not_available: what it says there, or its last will does, when it is not; Homie's words are known.
    """

    topic: str = Field(pattern=r"^[^#+\x00]+$")
    set_key: str = ""
    is_asked: bool = True
    is_sensor: bool = False
    secrets: Secrets = Field(default_factory=dict)
    set_topic: str = Field(default="", pattern=r"^[^#+\x00]*$")
    get_topic: str = Field(default="", pattern=r"^[^#+\x00]*$")
    availability_topic: str = Field(default="", pattern=r"^[^#+\x00]*$")
    payload_not_available: tuple[str, ...] = Field(default=("offline", "lost", "disconnected"), strict=False)

    @model_validator(mode="after")
    def _require_no_sensor_writes(self) -> MqttPlace:
        if self.is_sensor and (self.set_key or self.set_topic):
            raise ValueError("a sensor cannot be written")
        told = self.set_key if "set_key" in self.model_fields_set else self.key
        if self.secrets and not told:
            raise ValueError("secrets need a key beside them: a value alone is no JSON object")
        return self


@dataclass(frozen=True)
class Route:
    """An address made concrete by a profile: topics, and where in the state the value is and in which words."""

    state: str
    get: str
    get_payload: str
    set: str
    set_key: str
    value: JsonValue
    is_asked: bool = True
    secrets: Mapping[str, str] = field(default_factory=dict)


def route_of(place: MqttPlace, settings: MqttSettings) -> Route:
    """Return where and how a property is read and written."""
    if settings.profile == "plain":
        key = place.set_key if "set_key" in place.model_fields_set else place.key
        return Route(place.topic, place.get_topic, "", place.set_topic, key, place, place.is_asked, place.secrets)
    value = place.model_copy(update={"words": place.words or ON_OFF})
    if settings.profile == "zigbee2mqtt":
        topic = f"{settings.base}/{place.topic}"
        asked = json.dumps({(path_of(place.key) or [""])[0]: ""})
        get = f"{topic}/get" if place.is_asked else ""
        return Route(
            topic, get, asked, f"{topic}/set", place.set_key or place.key, value, place.is_asked, place.secrets
        )
    name = place.topic
    if not place.is_asked:
        return Route(f"tele/{name}/{'SENSOR' if place.is_sensor else 'STATE'}", "", "", "", "", value, is_asked=False)
    if place.is_sensor:
        value = value.model_copy(update={"key": f"StatusSNS.{place.key}"})
        return Route(f"stat/{name}/STATUS10", f"cmnd/{name}/Status", "10", "", "", value)
    command = f"cmnd/{name}/{place.set_key or place.key}"
    return Route(f"stat/{name}/RESULT", command, "", command, "", value)


def routes_of(bindings: Mapping[str, Binding], settings: MqttSettings) -> dict[str, dict[str, Route]]:
    """Return the route of every property of every device."""
    return {
        device: {name: route_of(place, settings) for name, place in binding.at.items()}
        for device, binding in bindings.items()
    }


@dataclass
class _Message:
    body: Any
    time_s: float
    number: int


class MqttDriver:
    """One connection to one broker, which paho keeps in a thread of its own. Safe to use from several threads."""

    def __init__(self, settings: MqttSettings, bindings: Mapping[str, Binding], clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._bindings = bindings
        self._routes = routes_of(bindings, settings)
        self._messages: dict[str, list[_Message]] = {}
        self._count = 0
        self._news = threading.Condition()
        self._asking = {device: threading.Lock() for device in bindings}  # so that an answer is to the last question
        self._connecting = threading.Lock()
        self._client: Any = None
        self._is_ready = False
        self._first_news_s = 0.0
        self._availability = {
            device: {place.availability_topic: place.payload_not_available for place in binding.at.values()}
            for device, binding in bindings.items()
        }
        self._untold = {
            route.state for routes in self._routes.values() for route in routes.values() if not route.is_asked
        } | self._availability_topics()

    def read(self, device: str) -> dict[str, Reading]:
        """Ask for a device's properties and return what it then says; what does not fit its schema is marked bad."""
        binding, found = self._bindings[device], {}
        client, asked = self._connected(device), dict[tuple[str, str], int]()
        with self._asking[device]:
            for name, route in self._routes[device].items():
                if route.is_asked:
                    question = route.get, route.get_payload
                    since = asked.get(question, self._count) if route.get else self._count
                    if route.get and question not in asked:
                        asked[question] = since
                        client.publish(*question, qos=1)
                    message = self._wait(device, route, since)
                elif (last := self._last(route)) is None:
                    continue
                else:
                    message = last
                schema = binding.device.properties[name]
                reading = reading_of(partial(route.value.to_value, message.body, schema), schema, message.time_s)
                found[name] = replace(reading, moving_s=route.value.moving_s(message.body))
        self._require_available(device)  # last: what it is said to be may come after the connection, as values do
        return found

    def _availability_topics(self) -> set[str]:
        return {topic for topics in self._availability.values() for topic in topics if topic}

    def _require_available(self, device: str) -> None:
        for topic, gone in self._availability[device].items():
            if (said := self._messages.get(topic)) and str(said[-1].body) in gone:
                raise DeviceUnavailable(f"{device}: {topic} says {plain_text(str(said[-1].body))}")

    def write(self, device: str, values: dict[str, Value]) -> None:
        """Set properties of a device, together where the profile can, and wait until it shows what was written.

        A device that reports often may first show how it was before. Shows it nothing else in time, it has not changed.
        """
        client = self._connected(device)
        since, topics = self._count, self._payloads(device, values)
        for topic, (payload, _) in topics.items():
            client.publish(topic, payload, qos=1)
        deadline_s = time.monotonic() + self._settings.timeout_s
        for name, value in values.items():
            self._wait_until_shown(device, name, value, since, deadline_s)

    def _wait_until_shown(self, device: str, name: str, value: Value, since: int, deadline_s: float) -> None:
        route, schema = self._routes[device][name], self._bindings[device].device.properties[name]

        def is_shown() -> bool:
            return any(_shows(route, one.body, schema, value) for one in self._since(route, since))

        with self._news:
            if not self._news.wait_for(is_shown, deadline_s - time.monotonic()) and not self._since(route, since):
                raise self._no_answer(device, route, since)

    def _payloads(self, device: str, values: dict[str, Value]) -> dict[str, tuple[str, Route]]:
        bodies: dict[str, tuple[dict[str, Any], Route]] = {}
        plain: dict[str, tuple[str, Route]] = {}
        for name, value in values.items():
            route = self._routes[device][name]
            raw = route.value.to_raw(value)
            if route.set_key:
                body, _ = bodies.setdefault(route.set, ({}, route))
                put(body, route.set_key, raw)
                for key, variable in route.secrets.items():
                    put(body, key, secret_from(device, variable))
            else:
                plain[route.set] = (raw if isinstance(raw, str) else json.dumps(raw), route)
        return plain | {topic: (json.dumps(body), route) for topic, (body, route) in bodies.items()}

    def close(self) -> None:
        """Leave the broker."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _wait(self, device: str, route: Route, since: int) -> _Message:
        """Return the first message on a route's topic that has its key and came after message number `since`."""
        with self._news:
            if not (news := self._news.wait_for(lambda: self._since(route, since), self._settings.timeout_s)):
                raise self._no_answer(device, route, since)
            return news[0]

    def _since(self, route: Route, number: int) -> list[_Message]:
        """Return the messages on a route's topic that have its key and came after a message."""
        return [
            one for one in self._messages.get(route.state, []) if one.number > number and route.value.is_in(one.body)
        ]

    def _no_answer(self, device: str, route: Route, since: int) -> DeviceUnavailable:
        within = f"within {self._settings.timeout_s:g} s of asking"
        said = [one.body for one in self._messages.get(route.state, []) if one.number > since]
        if not said:
            return DeviceUnavailable(f"{device}: nothing on {route.state} {within}")
        words = plain_text(json.dumps(said[-1]))
        return DeviceUnavailable(f"{device}: no {route.value.key} on {route.state} {within}; it said {words}")

    def _last(self, route: Route) -> _Message | None:
        """Return the last message with a route's key, None if there is none; after connecting waits for one once."""
        with self._news:
            known = self._news.wait_for(lambda: self._since(route, -1), self._first_news_s - time.monotonic())
            return known[-1] if known else None

    def _connected(self, device: str) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = self._connect(device)
            client = self._client
        with self._news:
            if not self._news.wait_for(lambda: self._is_ready, self._settings.timeout_s):
                raise DeviceUnavailable(f"{device}: no connection to {self._where()}")
        return client

    def _connect(self, device: str) -> Any:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2)
        client.reconnect_delay_set(1, 30)
        client.connect_timeout = self._settings.timeout_s
        if self._settings.tls:
            client.tls_set()
        if self._settings.user:
            path = self._settings.password_file
            client.username_pw_set(self._settings.user, read_secret(device, path) if path else None)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        try:
            client.connect(self._settings.host, self._settings.port, keepalive=15)
        except (OSError, ValueError) as error:
            raise DeviceUnavailable(f"{device}: no connection to {self._where()}: {error}") from error
        client.loop_start()
        return client

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure:
            topics = {route.state for routes in self._routes.values() for route in routes.values()}
            client.subscribe([(topic, 1) for topic in sorted(topics | self._availability_topics())])

    def _on_subscribe(self, *_: Any) -> None:
        with self._news:
            self._is_ready = True
            self._first_news_s = time.monotonic() + self._settings.timeout_s
            self._news.notify_all()

    def _on_disconnect(self, *_: Any) -> None:
        with self._news:
            self._is_ready = False

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        if len(message.payload) > MAX_MESSAGE_BYTES or (message.retain and message.topic not in self._untold):
            return
        try:
            body = json.loads(message.payload)
        except ValueError:
            body = message.payload.decode("utf-8", errors="replace")
        if self._settings.profile == "tasmota" and isinstance(body, dict):
            body |= {other: body[one] for one, other in FIRST_RELAY if one in body and other not in body}
        with self._news:
            kept = self._messages.setdefault(message.topic, [])
            if message.retain and kept and kept[-1].body == body:  # another came while there was no connection
                return
            self._count += 0 if message.retain else 1
            time_s, number = (UNKNOWN_TIME_S, 0) if message.retain else (self._clock(), self._count)
            kept.append(_Message(body, time_s, number))
            del kept[:-KEPT]
            self._news.notify_all()

    def _where(self) -> str:
        return f"mqtt://{self._settings.host}:{self._settings.port}"


def _shows(route: Route, body: Any, schema: DataSchema, value: Value) -> bool:
    try:
        return is_so({"it": route.value.to_value(body, schema)}, {"it": value})
    except ValueError:
        return False


def _problem_with(settings: MqttSettings, place: MqttPlace, is_written: bool) -> str:
    if settings.profile != "plain" and not place.key:
        return f"needs a key in the profile {settings.profile}"
    if not is_written:
        return ""
    if place.is_sensor:
        return "cannot be written, being a sensor"
    if place.secrets and settings.profile == "tasmota":
        return "cannot have secrets: Tasmota is told a value alone"
    return "cannot be written without set_topic" if settings.profile == "plain" and not place.set_topic else ""


def _needs(settings: MqttSettings) -> Needs:
    reads = (settings.password_file,) if settings.password_file else ()
    return Needs({"paho.mqtt.client": "paho-mqtt"}, reads=reads, peers=((settings.host, settings.port),))


DRIVER = DriverType(settings=MqttSettings, address=MqttPlace, open=MqttDriver, problem_with=_problem_with, needs=_needs)

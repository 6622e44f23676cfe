"""The connection to an MQTT broker, which paho keeps in a thread of its own; the one file that knows paho.

It tries for ever, from 1 s to a minute apart. Its callbacks come in the event loop that it was made in.
Source: MQTT 5.0; paho-mqtt 2.

Does not guard against: a second client with the same id, which the broker lets in and this one out. It is said, and
after some times this one waits for a minute.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from devices.errors import UsageError
from devices.site.describe import plain_text
from edge_agent.serving.configuration import MqttDoor

KEEPALIVE_S, CONNECT_S, GOODBYE_S = 30, 5.0, 2.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1, 60
MOST_QUEUED = 1000  # messages that paho holds for a broker that does not take them
MOST_BYTES = 256 << 10  # of one message that comes; the broker keeps longer ones to itself
QUICK_S, MOST_QUICK_LOSSES = 10.0, 3  # so soon, so many times: somebody else has the id, and both take turns
TAKEN_OVER = 0x8E  # MQTT 5.0, 3.14.2.1: another client came with the same id; mosquitto 2.0 does not say so


@dataclass(frozen=True)
class Heard:
    """A message that came. `response_topic` and `correlation` are MQTT 5's, "" and b"" if there are none."""

    topic: str
    payload: bytes
    is_retained: bool = False
    is_repeated: bool = False
    packet: int = 0
    response_topic: str = ""
    correlation: bytes = b""


@dataclass(frozen=True)
class Filter:
    """A subscription.

    Attributes:
        topic: with wildcards.
        with_kept: whether what the broker keeps (retained messages) comes, too.
        shows_retained: whether a message that is only now published says that it is to be kept.
    """

    topic: str
    with_kept: bool = False
    shows_retained: bool = False

    @property
    def options(self) -> SubscribeOptions:
        """Return it as paho takes it; what this client publishes itself does not come back."""
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE if self.with_kept else SubscribeOptions.RETAIN_DO_NOT_SEND
        return SubscribeOptions(1, not self.with_kept, self.shows_retained, handling)


class Hears(Protocol):
    """Who is told of a connection, in the event loop."""

    def ready(self) -> None:
        """It is there, and the subscriptions are."""

    def lost(self, reason: str, *, is_refusal: bool = False) -> None:
        """It is gone, or could not be made, or the broker lets nobody in (a refusal); it is tried again."""

    def warned(self, problem: str) -> None:
        """It is there, but for a subscription that the broker refused."""

    def heard(self, message: Heard) -> None:
        """A message came."""


@dataclass
class Connection:
    """A connection to one broker.

    Args:
        settings: of the door.
        client_id: who this is, to the broker.
        will: the topic that is told "offline" when this client is gone, and its retained payload.
        filters: what is subscribed to, each time.
        hears: who is told.

    Raises:
        UsageError: a setting can never work: a host that is no name, a missing file or variable.
    """

    settings: MqttDoor
    client_id: str
    will: tuple[str, str]
    filters: Sequence[Filter]
    hears: Hears
    is_up: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._up_s, self._quick_losses, self._is_refused, self._is_closing = 0.0, 0, False, False
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=self.client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.connect_timeout = CONNECT_S
        self._client.reconnect_delay_set(FIRST_WAIT_S, LONGEST_WAIT_S)
        self._client.max_queued_messages_set(MOST_QUEUED)
        self._client.will_set(*self.will, qos=1, retain=True)
        self._client.on_connect, self._client.on_connect_fail = self._on_connect, self._on_connect_fail
        self._client.on_disconnect, self._client.on_subscribe = self._on_disconnect, self._on_subscribe
        self._client.on_message, self._client.on_socket_open = self._on_message, _send_at_once
        self._identify()

    @property
    def where(self) -> str:
        """The broker's address."""
        scheme = "mqtts" if self.settings.tls else "mqtt"
        return f"{scheme}://{self.settings.host}:{self.settings.port}"

    def start(self) -> None:
        """Begin to connect."""
        limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        limits.MaximumPacketSize = MOST_BYTES
        self._client.connect_async(
            self.settings.host, self.settings.port, KEEPALIVE_S, clean_start=True, properties=limits
        )
        self._client.loop_start()

    def publish(self, topic: str, payload: str, *, retain: bool = False, correlation: bytes = b"") -> None:
        """Send a message; while there is no connection it is dropped."""
        if not self.is_up:
            return
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if correlation:
            properties.CorrelationData = correlation
        self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """Hear of these no longer, until the next connection."""
        if self.is_up and topics:
            self._client.unsubscribe(list(topics))

    def close(self) -> None:
        """Say goodbye, and leave the broker; blocks."""
        if self.is_up:
            goodbye = self._client.publish(*self.will, qos=1, retain=True)
            if not goodbye.rc:
                goodbye.wait_for_publish(GOODBYE_S)
        self.is_up, self._is_closing = False, True
        self._client.disconnect()
        self._client.loop_stop()

    def _identify(self) -> None:
        settings = self.settings
        try:
            settings.host.encode("idna")
        except UnicodeError as error:
            raise UsageError(f"mqtt.host: {plain_text(settings.host)!r} is no name of a host") from error
        password = os.environ.get(settings.password_env) if settings.password_env else None
        if settings.password_env and password is None:
            raise UsageError(f"mqtt.password_env: the environment has no {settings.password_env}")
        if settings.username:
            self._client.username_pw_set(settings.username, password)
        if settings.tls:
            try:
                self._client.tls_set(settings.ca_file or None)
            except (OSError, ssl.SSLError, ValueError) as error:
                raise UsageError(f"mqtt.ca_file: cannot use {settings.ca_file}: {error}") from error

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._is_refused = reason.is_failure
        if reason.is_failure:
            self._tell(partial(self.hears.lost, f"{self.where} lets us not in: {reason}", is_refusal=True))
        else:
            client.subscribe([(one.topic, one.options) for one in self.filters])

    def _on_subscribe(self, _client: Client, _data: Any, _mid: int, reasons: list[Any], _properties: Any) -> None:
        self.is_up, self._up_s = True, time.monotonic()
        self._tell(self.hears.ready)
        for one, reason in zip(self.filters, reasons, strict=False):
            if reason.is_failure:
                self._tell(self.hears.warned, f"{self.where} does not let us hear {one.topic}: {reason}")

    def _on_connect_fail(self, _client: Client, _data: Any) -> None:
        error = sys.exc_info()[1]  # paho calls while it handles it
        why = getattr(error, "strerror", None) or error
        self._tell(self.hears.lost, f"no connection to {self.where}: {plain_text(str(why))}")

    def _on_disconnect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        why = plain_text(str(reason))
        if not self.is_up:
            if not (self._is_refused or self._is_closing):  # whoever listens there did not answer
                self._tell(self.hears.lost, f"no MQTT 5 from {self.where}: {why}")
            self._is_refused = False
            return
        self.is_up = False
        self._quick_losses = self._quick_losses + 1 if time.monotonic() - self._up_s < QUICK_S else 0
        is_contested = reason.value == TAKEN_OVER or self._quick_losses >= MOST_QUICK_LOSSES
        if is_contested:
            why = f"it seems that another client calls itself {self.client_id}, too"
        client.reconnect_delay_set(LONGEST_WAIT_S if is_contested else FIRST_WAIT_S, LONGEST_WAIT_S)
        self._tell(self.hears.lost, f"the connection to {self.where} is lost: {why}")

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        properties = message.properties
        self._tell(
            self.hears.heard,
            Heard(
                message.topic,
                bytes(message.payload),
                message.retain,
                message.dup,
                message.mid,
                getattr(properties, "ResponseTopic", ""),
                getattr(properties, "CorrelationData", b""),
            ),
        )


def _send_at_once(_client: Client, _data: Any, opened: Any) -> None:
    """Have small messages sent without waiting for more: an answer is one, and comes 40 ms sooner."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

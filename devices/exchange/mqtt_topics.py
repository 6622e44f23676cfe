"""What is said on an MQTT broker: heard for some seconds, or read from a dump that others made.

A dump is what `mosquitto_sub -v` prints: a topic, a blank and its value on each line.
Source: MQTT 3.1.1; mosquitto_sub(1).

Does not guard against: a dump with topics that have blanks, or values of several lines; `mosquitto_sub` marks neither.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from devices.driver import DeviceUnavailable
from devices.errors import UsageError
from devices.site.describe import plain_text

Topics = dict[str, list[str]]  # each topic with its different values, the newest last
FILTER = re.compile(r"(\+|[^#+\0/]*)(/(\+|[^#+\0/]*))*(/#)?|#")
PASSWORD_ENV = "MQTT_PASSWORD"  # noqa: S105 - the name of a variable
KEPT = 20  # values of a topic, from which its type is guessed
QUIET_S = 0.5  # after the last message: the broker has said what it keeps


def read_dump(path: Path) -> Topics:
    """Return what a dump holds. Raises UsageError, with file and line, if it cannot be read or is none."""
    topics: Topics = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, 1):
        topic, blank, value = line.rstrip("\r").partition(" ")
        if not line.strip():
            continue
        if not blank or not topic or any(letter in topic for letter in "#+\0"):
            hint = "a topic, a blank and its value, as mosquitto_sub -v prints"
            raise UsageError(f"{path}:{number}: {plain_text(line)!r} is no topic with a value", hint=hint)
        add_value(topics, topic, value)
    return topics


def add_value(topics: Topics, topic: str, value: str) -> None:
    """Note a value of a topic; each is kept once."""
    known = topics.setdefault(topic, [])
    if value in known:
        known.remove(value)
    known.append(value)
    del known[:-KEPT]


def hear_topics(
    host: str,
    port: int,
    filters: Sequence[str],
    seconds: float,
    is_enough: Callable[[Topics], bool] | None = None,
    user: str = "",
) -> Topics:
    """Return what a broker keeps and what is said there meanwhile.

    Args:
        host: the broker.
        port: its port.
        filters: of topics, as MQTT has them.
        seconds: how long to listen at most.
        is_enough: whether what was heard will do, once it is quiet; None to listen all the time.
        user: whom the broker knows, with a password from the environment; "" for nobody.

    Raises:
        UsageError: a filter is none.
        DeviceUnavailable: no broker there, or it lets nobody in.
    """
    if wrong := next((one for one in filters if not one or not FILTER.fullmatch(one)), None):
        raise UsageError(f"{plain_text(wrong)!r} is no filter of MQTT topics", hint="as 'garden/#' or 'garden/+/level'")
    from paho.mqtt.client import Client, topic_matches_sub
    from paho.mqtt.enums import CallbackAPIVersion

    topics, news, refused = Topics(), threading.Condition(), list[str]()
    last_s = [time.monotonic()]

    def take(_: Any, __: Any, message: Any) -> None:
        if not any(topic_matches_sub(one, message.topic) for one in filters):
            return  # amqtt 0.12 sends a new client what others have asked for
        with news:
            add_value(topics, message.topic, message.payload.decode("utf-8", errors="replace"))
            last_s[0] = time.monotonic()

    def ask(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            with news:
                refused.append(str(reason))
                news.notify_all()
        else:
            client.subscribe([(one, 0) for one in filters])

    def is_over() -> bool:
        is_quiet = time.monotonic() - last_s[0] > QUIET_S
        return bool(refused) or (is_enough is not None and is_quiet and is_enough(topics))

    client = Client(CallbackAPIVersion.VERSION2)
    client.on_connect, client.on_message = ask, take
    if user:
        client.username_pw_set(user, os.environ.get(PASSWORD_ENV))
    try:
        client.connect(host, port, keepalive=10)
    except OSError as error:
        raise DeviceUnavailable(f"no MQTT broker at {host}:{port}: {error.strerror or error}") from error
    client.loop_start()
    until_s = time.monotonic() + seconds
    with news:
        while time.monotonic() < until_s and not is_over():
            news.wait(min(QUIET_S / 5, max(until_s - time.monotonic(), 0)))
    client.disconnect()
    client.loop_stop()
    if refused:
        hint = f"--user NAME, with the password in {PASSWORD_ENV}"
        raise DeviceUnavailable(f"the MQTT broker at {host}:{port} lets us not in: {refused[0]}", hint=hint)
    return topics

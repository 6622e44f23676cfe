"""serve.yaml: which doors a box opens, and where. Every key has a default; without a file the HTTP door is open."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from devices.errors import UsageError
from devices.yaml_file import Strict, YamlFile, overridden_model, parse_override, plain_values, read_yaml

HTTP_PORT, MQTT_PORT, WYOMING_PORT = 8377, 1883, 10377


class HttpDoor(Strict):
    """OpenAI's API, the web page, operations, and MCP over streamable HTTP.

    Attributes:
        host: address to listen at; other than loopback only with `token_file`.
        port: 0 is any free one.
        token_file: a file with mode 0600, as `edgewright serve --new-token FILE` makes it; "" asks for no token.
        tls_cert, tls_key: PEM files; both or none.
        allowed_hosts: names, beside addresses and this machine's own, under which clients may call it.
        requests_a_minute: of one client.
        mcp: whether /mcp is open.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=HTTP_PORT, ge=0, le=65535)
    token_file: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    allowed_hosts: tuple[str, ...] = Field(default=(), strict=False)
    requests_a_minute: int = Field(default=600, ge=1)
    mcp: bool = True

    @model_validator(mode="after")
    def _require_guard(self) -> HttpDoor:
        if not is_loopback(self.host) and not self.token_file:
            raise ValueError(
                f"{self.host} can be reached by others: give token_file (edgewright serve --new-token FILE makes one)"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key go together")
        return self


class MqttDoor(Strict):
    """A broker through which the box is asked, tells its states, and shows up in Home Assistant.

    Attributes:
        host, port: of the broker.
        username: at the broker.
        password_env: name of the environment variable with its password.
        tls: whether to speak TLS; `ca_file` is then whom to trust, "" the system.
        topic: everything of ours stands under TOPIC/SITE.
        discovery: Home Assistant's, one message a device or one a component (before 2024.11), or none.
        discovery_prefix: where Home Assistant listens.
    """

    host: str
    port: int = Field(default=MQTT_PORT, ge=1, le=65535)
    username: str = ""
    password_env: str = ""
    tls: bool = False
    ca_file: str = ""
    topic: str = Field(default="edgewright", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")
    discovery: Literal["device", "component", "none"] = "device"
    discovery_prefix: str = Field(default="homeassistant", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")


class WyomingDoor(Strict):
    """Wyoming's `handle`, for voice pipelines. The protocol has no token: whoever reaches it may speak to the box.

    Attributes:
        host: address to listen at; other than loopback only with `is_open_to_network`.
        port: 0 is any free one.
        is_open_to_network: that everybody in the network may speak to the box is wanted.
        zeroconf: whether the box announces itself as `_wyoming._tcp`.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=WYOMING_PORT, ge=0, le=65535)
    is_open_to_network: bool = False
    zeroconf: bool = False

    @model_validator(mode="after")
    def _require_guard(self) -> WyomingDoor:
        if not is_loopback(self.host) and not self.is_open_to_network:
            raise ValueError(f"{self.host} can be reached by others, without a token: say is_open_to_network: true")
        return self


class Configuration(Strict):
    """A serve.yaml; a door that is not named is shut, but for HTTP, which is open unless `http: null`.

    Attributes:
        conversations: how many keep what the engine evaluated of them, so that their next request is quick.
        intents: language of Home Assistant's sentences, which are looked for before the model is asked; "" for none.
    """

    schema_: Literal["serve/v1"] = Field(default="serve/v1", alias="schema")
    conversations: int = Field(default=4, ge=1, le=64)
    intents: str = ""
    http: HttpDoor | None = Field(default_factory=HttpDoor)
    mqtt: MqttDoor | None = None
    wyoming: WyomingDoor | None = None

    @model_validator(mode="after")
    def _require_a_door(self) -> Configuration:
        if not (self.http or self.mqtt or self.wyoming):
            raise ValueError("no door is open: give http, mqtt or wyoming")
        return self


def load_configuration(path: Path | None, overrides: Iterable[str] = ()) -> Configuration:
    """Return what a file says, or the defaults, with `key=value` overrides such as `http.port=9000` laid over it.

    Raises:
        UsageError: it cannot be read, or a wrong key or value; the message has file and line, or the override.
    """
    source = read_yaml(path, "configuration") if path else YamlFile(Path("serve.yaml"), {})
    if not isinstance(source.root, dict):
        raise UsageError(f"{source.path}: a configuration is a mapping with schema, http, mqtt and wyoming")
    root = plain_values(source.root)
    given = [parse_override(text, "http.port=9000") for text in overrides]
    for one in given:
        one.set_in(root)
    return overridden_model(source, root, Configuration, given)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""Home Assistant by its URL: a server that speaks both of its APIs, and all that goes wrong on the way to it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.drivers.registry import load_checked_site, open_driver
from devices.errors import EdgeError, UnavailableError, UsageError
from devices.exchange.home_assistant_api import fetch_home
from devices.site.tools import Command
from edgewright import main
from tests.devices.drivers.home_assistant_server import HomeAssistantServer
from tests.ports import free_port

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
TOKEN = "a.long-lived.token"
BODY: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "home_assistant.json").read_text("utf-8"))
FLOORS = [
    {"floor_id": "up", "name": "Upstairs", "aliases": ["First Floor"], "level": 1},
    {"floor_id": "hall", "name": "Hall", "aliases": [], "level": 0},
    {"floor_id": "loft", "name": "Loft", "aliases": [], "level": 2},
]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[HomeAssistantServer]:
    monkeypatch.setenv("HASS_TOKEN", TOKEN)
    areas = [row | {"floor_id": {"Kitchen": "up", "Hall": "hall"}[row["name"]]} for row in BODY["areas"]]
    areas[0]["aliases"] = ["Cook's Room", areas[0]["name"]]
    made = HomeAssistantServer(BODY | {"areas": areas, "floors": FLOORS}, TOKEN)
    yield made
    made.close()


def test_a_home_becomes_a_site_that_works(
    home: HomeAssistantServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "home.yaml"
    assert main(["devices", "discover", "--home-assistant", f"{home.url}/", "--out", str(file)]) == 0
    said = capsys.readouterr()
    assert "devices: kitchen_ceiling, hall" in said.out and TOKEN not in said.out + said.err + file.read_text("utf-8")
    assert "floor Loft of Home Assistant: no area that the site has is on it" in said.err
    site = load_checked_site(file)
    auth = {"scheme": "bearer", "secret_env": "HASS_TOKEN"}
    assert site.drivers["home_assistant"] == {"type": "http", "url": home.url, "auth": auth}
    assert {name: area.floor for name, area in site.areas.items()} == {"kitchen": "upstairs", "hall": "hall_floor"}
    assert site.areas["kitchen"].aliases == ("cook s room",)  # its own name is no other
    assert site.floors["upstairs"].aliases == ("first floor",) and list(site.floors) == ["upstairs", "hall_floor"]
    broker = Broker(site, open_driver(site), Journal(), confirm=lambda _: True)
    assert all(broker.state()[name].keys() == device.properties.keys() for name, device in site.devices.items())
    assert broker.execute(Command("kitchen_ceiling", "brightness", {"brightness": 40})).status == "done"
    assert home.states["light.kitchen_ceiling"]["attributes"]["brightness"] == 102


def test_an_older_home_has_no_floors(home: HomeAssistantServer) -> None:
    home.unknown.add("config/floor_registry/list")
    assert fetch_home(home.url)["floors"] == []
    home.unknown.add("config/area_registry/list")
    with pytest.raises(UnavailableError, match="refused config/area_registry/list: Unknown command"):
        fetch_home(home.url)


def test_a_token_that_is_wrong_or_missing(home: HomeAssistantServer, monkeypatch: pytest.MonkeyPatch) -> None:
    home.token = "another"
    with pytest.raises(UsageError, match=r"127.0.0.1:\d+ does not take the token") as caught:
        fetch_home(home.url)
    assert TOKEN not in str(caught.value) + caught.value.hint
    monkeypatch.setenv("HASS_TOKEN", "with a\nline")
    with pytest.raises(UsageError, match="HASS_TOKEN is no token"):
        fetch_home(home.url)
    monkeypatch.delenv("HASS_TOKEN")
    with pytest.raises(UsageError, match="HASS_TOKEN is not in the environment"):
        fetch_home(home.url)


def test_a_token_that_only_the_websocket_refuses(home: HomeAssistantServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.exchange.home_assistant_api._states", lambda *_: [])  # REST let it in
    home.token = "another"
    with pytest.raises(UsageError, match="does not take the token"):
        fetch_home(home.url)


def test_a_connection_that_is_cut(home: HomeAssistantServer, tmp_path: Path) -> None:
    home.cut_at = "config/device_registry/list"
    with pytest.raises(UnavailableError, match="/api/websocket: the connection was cut"):
        fetch_home(home.url)
    file = tmp_path / "home.yaml"
    assert main(["devices", "discover", "--home-assistant", home.url, "--out", str(file)]) == 3
    assert not file.exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"", "no Home Assistant at"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no Home Assistant at"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "api/states answered 404"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.9/\r\nContent-Length: 0\r\n\r\n", "api/states answered 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "answered no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "answered no list"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[", "answered no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no WebSocket API at ws://"),
    ],
)  # fmt: skip
def test_what_is_not_home_assistant(said: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASS_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for _ in range(2):
                try:
                    connection, _ = listening.accept()
                except OSError:  # the test is over
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(said)

        Thread(target=answer, daemon=True).start()
        with pytest.raises(UnavailableError, match=message) as caught:
            fetch_home(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout_s=2)
    assert "\n" not in str(caught.value)


def test_nobody_there_and_no_url(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HASS_TOKEN", TOKEN)
    with pytest.raises(UnavailableError, match=r"no Home Assistant at http://127.0.0.1:\d+: .*refused"):
        fetch_home(f"http://127.0.0.1:{free_port()}")
    for url in (
        "192.0.2.8:8123",
        "http://",
        "ws://192.0.2.8",
        "http://192.0.2.8:x",
        "http://me:secret@192.0.2.8",
        "http://a b",
    ):
        with pytest.raises(EdgeError, match="is no address of Home Assistant"):
            fetch_home(url)
    assert main(["devices", "discover", "--home-assistant", "http://192.0.2.8", "--mqtt", "192.0.2.9"]) == 2
    assert "one source" in capsys.readouterr().err

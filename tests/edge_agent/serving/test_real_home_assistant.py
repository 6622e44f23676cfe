"""A real Home Assistant, which finds the box at a real broker by itself: what it shows is so, what it says is done.

`sh scripts/home_assistant.sh` installs it, in a virtual environment of its own.

Does not cover: discovery of a device in one message, which came with Home Assistant 2024.11 and needs Python 3.12.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from devices.site.site import load_site
from edge_agent.serving.hub import Hub
from edge_agent.serving.mqtt.home_assistant_discovery import announcements
from edge_agent.serving.mqtt.requests import Topics
from tests.edge_agent.serving.test_mqtt_door import MOSQUITTO, SAID, Listener, Mosquitto, Served

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
INSTALLED = CACHE / "edgewright" / "home-assistant"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.skipif(MOSQUITTO is None, reason="the broker mosquitto is not installed"),
    pytest.mark.skipif(
        not (INSTALLED / "installed").is_file(),
        reason="Home Assistant is not installed: sh scripts/home_assistant.sh",
    ),
]
START_S, LIMIT_S = 180.0, 45.0
SITE = load_site("home")
BOX = "edgewright_a_small_house_with_a_garden"
ANNOUNCED = announcements(SITE, Topics("edgewright/home"), "homeassistant", "component", "home-tiny")
COMPLAINT = re.compile(rf" (WARNING|ERROR|CRITICAL) .*(mqtt|edgewright|{'|'.join(SITE.devices)})", re.IGNORECASE)
SLOW = re.compile(r"(took|taking|for) .*seconds")  # it says so of each part, on a machine with much to do
CONFIGURATION = """\
homeassistant: {{name: test, unit_system: metric, time_zone: UTC, latitude: 0, longitude: 0, elevation: 0}}
http: {{server_host: 127.0.0.1, server_port: {port}}}
logger: {{default: warning}}
"""


def wait_until(check: Callable[[], object], what: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    end_s = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < end_s, what()
        time.sleep(0.1)


class HomeAssistant:
    """A Home Assistant of its own, set up as a person does it in the browser, over the same requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "configuration.yaml").write_text(CONFIGURATION.format(port=port))
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S)
        self._process: subprocess.Popen[bytes] | None = None
        self._entry, self._read = "", 0

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "output").open("ab") as output:
            command = [str(INSTALLED / "bin" / "hass"), "--config", str(self.folder), "--skip-pip"]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        wait_until(self._answers, lambda: (self.folder / "output").read_text(), START_S)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(LIMIT_S)
            self._process = None

    def close(self) -> None:
        self.stop()
        self._http.close()

    def welcome(self) -> None:
        """Be its first user."""
        client = f"{self._http.base_url}/"
        user = {"client_id": client, "name": "Kim", "username": "kim", "password": "test", "language": "en"}
        code = self._http.post("/api/onboarding/users", json=user).raise_for_status().json()["auth_code"]
        grant = {"grant_type": "authorization_code", "code": code, "client_id": client}
        token = self._http.post("/auth/token", data=grant).raise_for_status().json()["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    def _answers(self) -> bool:
        assert self._process and self._process.poll() is None, (self.folder / "output").read_text()
        try:
            return self._http.get("/api/onboarding").is_success
        except httpx.TransportError:
            return False

    def add_broker(self, port: int) -> None:
        """Add the integration MQTT with a broker's address, and no other setting."""
        flow = self.post("/api/config/config_entries/flow", {"handler": "mqtt"})
        made = self.post(f"/api/config/config_entries/flow/{flow['flow_id']}", {"broker": "127.0.0.1", "port": port})
        assert made["type"] == "create_entry", made
        self._entry = made["result"]["entry_id"]

    def connect_anew(self) -> None:
        """Have it leave the broker and come back, so that it says there that it is born."""
        self.post(f"/api/config/config_entries/entry/{self._entry}/reload", {})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._http.post(path, json=body).raise_for_status().json()

    def call(self, service: str, entity: str, **data: Any) -> None:
        """Call a service; what it leads to comes later."""
        self.post(f"/api/services/{service.replace('.', '/')}", {"entity_id": entity} | data)

    def state(self, entity: str) -> tuple[str, dict[str, Any]]:
        """Return an entity's state and attributes, "" if there is no such entity."""
        found = self._http.get(f"/api/states/{entity}")
        if found.status_code == httpx.codes.NOT_FOUND:
            return "", {}
        body = found.raise_for_status().json()
        return body["state"], body["attributes"]

    def shows(self, entity: str, state: str, **attributes: Any) -> None:
        """Wait until an entity's state is so."""

        def is_so() -> bool:
            shown, details = self.state(entity)
            return shown == state and attributes.items() <= details.items()

        wait_until(is_so, lambda: (entity, self.state(entity)))

    def entities(self) -> list[str]:
        """Return all that came by MQTT."""
        text = self._http.post("/api/template", json={"template": "{{ integration_entities('mqtt') | join(' ') }}"})
        return text.raise_for_status().text.split()

    def complaints(self) -> list[str]:
        """Return what it logged of MQTT and of what is ours since it was asked last: warnings and worse."""
        lines = (self.folder / "output").read_text().splitlines()
        new, self._read = lines[self._read :], len(lines)
        return [line for line in new if COMPLAINT.search(line) and not SLOW.search(line)]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HomeAssistant, Mosquitto]]:
    broker = Mosquitto(tmp_path_factory.mktemp("broker"))
    home_assistant = HomeAssistant(tmp_path_factory.mktemp("home_assistant"))
    try:
        broker.start()
        home_assistant.start()
        home_assistant.welcome()
        home_assistant.add_broker(broker.port)
        yield home_assistant, broker
    finally:
        home_assistant.close()
        broker.stop()


@pytest.fixture
def broker(places: tuple[HomeAssistant, Mosquitto]) -> Mosquitto:
    return places[1]


@pytest.fixture
def served(hub: Hub, places: tuple[HomeAssistant, Mosquitto]) -> Iterator[Served]:
    home_assistant, broker = places
    made = Served(hub, broker.port, discovery="component")
    yield made
    made.close()
    home_assistant.shows("light.kitchen_light", "unavailable")  # the next test begins when this one's end is known


@pytest.fixture
def home_assistant(places: tuple[HomeAssistant, Mosquitto], served: Served) -> Iterator[HomeAssistant]:
    """It, once it knows the box of this test."""
    found = places[0]
    found.shows("light.kitchen_light", "off")
    wait_until(lambda: len(found.entities()) == len(ANNOUNCED), found.entities)
    yield found
    assert not found.complaints()


def has(hub: Hub, device: str, **values: Any) -> None:
    """Wait until a device is so."""
    wait_until(lambda: values.items() <= hub.state()[device].items(), lambda: (device, hub.state()[device]))


def proposed(hub: Hub) -> list[tuple[str, str]]:
    return [(one.body["device"], one.body["action"]) for one in hub.events(1000) if one.event == "PROPOSED"]


def test_the_box_shows_up_by_itself_as_it_is(home_assistant: HomeAssistant) -> None:
    for entity, state, attributes in (
        ("light.kitchen_light", "off", {}),
        ("light.porch_light", "off", {}),
        ("switch.workshop_outlet", "off", {}),
        ("cover.living_blinds", "open", {"current_position": 100}),
        ("cover.garage_door", "closed", {}),
        ("lock.front_door", "locked", {}),
        ("climate.hall_thermostat", "heat", {"temperature": 20, "current_temperature": 18.5, "min_temp": 10}),
        ("fan.bathroom_fan", "off", {}),
        ("valve.garden_sprinkler", "closed", {}),
        ("sensor.garden_soil_moisture", "42.0", {"unit_of_measurement": "%", "device_class": "moisture"}),
        ("sensor.rain_tank_level", "70", {}),
        ("binary_sensor.well_pump_running", "off", {}),
        ("binary_sensor.hall_motion_motion", "off", {"device_class": "motion"}),
        ("button.well_pump_run_45_seconds", "unknown", {}),
        (f"binary_sensor.{BOX}_problem", "off", {"device_class": "problem"}),
        (f"button.{BOX}_stop_everything", "unknown", {}),
    ):
        home_assistant.shows(entity, state, **attributes)


def test_what_it_says_is_done_and_shown(home_assistant: HomeAssistant, hub: Hub) -> None:
    for service, entity, data, device, values, state, attributes in (
        ("light.turn_on", "light.kitchen_light", {"brightness": 102}, "kitchen_light", {"on": True, "brightness": 40},
         "on", {"brightness": 102}),
        ("light.turn_on", "light.kitchen_light", {"brightness_pct": 100}, "kitchen_light", {"brightness": 100},
         "on", {"brightness": 255}),
        ("light.turn_off", "light.kitchen_light", {}, "kitchen_light", {"on": False}, "off", {}),
        ("light.turn_on", "light.porch_light", {}, "porch_light", {"on": True}, "on", {}),
        ("switch.turn_on", "switch.workshop_outlet", {}, "workshop_outlet", {"on": True}, "on", {}),
        ("switch.turn_off", "switch.workshop_outlet", {}, "workshop_outlet", {"on": False}, "off", {}),
        ("cover.set_cover_position", "cover.living_blinds", {"position": 30}, "living_blinds", {"position": 30},
         "open", {"current_position": 30}),
        ("cover.close_cover", "cover.living_blinds", {}, "living_blinds", {"position": 0},
         "closed", {"current_position": 0}),
        ("climate.set_temperature", "climate.hall_thermostat", {"temperature": 22}, "hall_thermostat",
         {"target_c": 22}, "heat", {"temperature": 22}),
        ("fan.turn_on", "fan.bathroom_fan", {"percentage": 66}, "bathroom_fan", {"speed": 2}, "on", {"percentage": 66}),
        ("fan.set_percentage", "fan.bathroom_fan", {"percentage": 100}, "bathroom_fan", {"speed": 3},
         "on", {"percentage": 100}),
        ("fan.turn_off", "fan.bathroom_fan", {}, "bathroom_fan", {"speed": 0}, "off", {"percentage": 0}),
        ("fan.turn_on", "fan.bathroom_fan", {}, "bathroom_fan", {"speed": 1}, "on", {"percentage": 33}),
    ):  # fmt: skip
        home_assistant.call(service, entity, **data)
        has(hub, device, **values)
        home_assistant.shows(entity, state, **attributes)
    events = [one.event for one in hub.events(1000)]
    assert events.count("DONE") == len(proposed(hub)) == 14, events  # a fan that is off is switched on first


def test_a_timed_action_is_a_button_and_stop_ends_it(home_assistant: HomeAssistant, hub: Hub) -> None:
    home_assistant.call("button.press", "button.well_pump_run_120_seconds")
    has(hub, "well_pump", running=True)
    home_assistant.shows("binary_sensor.well_pump_running", "on")
    home_assistant.call("button.press", "button.garden_sprinkler_water_5_minutes")
    has(hub, "garden_sprinkler", open=True)
    home_assistant.shows("valve.garden_sprinkler", "open")
    home_assistant.call("button.press", f"button.{BOX}_stop_everything")
    has(hub, "well_pump", running=False)
    has(hub, "garden_sprinkler", open=False)
    home_assistant.shows("binary_sensor.well_pump_running", "off")
    home_assistant.shows("valve.garden_sprinkler", "closed")
    assert proposed(hub)[:2] == [("well_pump", "run"), ("garden_sprinkler", "water")]
    assert {("well_pump", "stop"), ("garden_sprinkler", "close")} <= set(proposed(hub)[2:])


def test_the_door_stays_locked_and_it_is_said_why(home_assistant: HomeAssistant, hub: Hub) -> None:
    for service, entity, report in (
        ("lock.unlock", "lock.front_door", "Please confirm that the front door should be unlocked."),
        ("cover.open_cover", "cover.garage_door", "Please confirm that the garage door should be 100 percent."),
    ):
        device = entity.partition(".")[2]
        home_assistant.call(service, entity)
        home_assistant.shows(f"sensor.{BOX}_last_action", report, status="needs_confirmation", device=device)
    home_assistant.call("text.set_value", f"text.{BOX}_ask", value="yes")
    home_assistant.shows(f"sensor.{BOX}_answer", SAID)
    home_assistant.shows("lock.front_door", "locked")
    home_assistant.shows("cover.garage_door", "closed")
    assert hub.state()["front_door"] == {"locked": True}
    assert proposed(hub) == [("front_door", "unlock"), ("garage_door", "open")]


def test_an_interlock_refuses_and_it_is_said_why(home_assistant: HomeAssistant, hub: Hub) -> None:
    assert hub.runtime.world
    hub.runtime.world.set("rain_tank", {"level_pct": 5})
    home_assistant.shows("sensor.rain_tank_level", "5")
    home_assistant.call("button.press", "button.well_pump_run_45_seconds")
    wait_until(
        lambda: home_assistant.state(f"sensor.{BOX}_last_action")[1].get("status") == "refused", lambda: hub.events(9)
    )
    assert "the rain tank level is 5 percent" in home_assistant.state(f"sensor.{BOX}_last_action")[0]
    assert not hub.state()["well_pump"]["running"]


def test_it_can_be_asked_in_words(home_assistant: HomeAssistant, hub: Hub) -> None:
    home_assistant.call("text.set_value", f"text.{BOX}_ask", value="kitchen light on")
    has(hub, "kitchen_light", on=True)
    home_assistant.shows("light.kitchen_light", "on")
    home_assistant.shows(f"sensor.{BOX}_answer", "The kitchen light is on.")


def test_what_is_away_is_unavailable_until_it_is_back(
    home_assistant: HomeAssistant, hub: Hub, served: Served, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hub.state
    monkeypatch.setattr(hub, "state", lambda: whole() | {"porch_light": {}})
    home_assistant.shows("light.porch_light", "unavailable")
    home_assistant.shows(f"binary_sensor.{BOX}_problem", "on", silent_devices=["porch_light"])
    monkeypatch.undo()
    home_assistant.shows("light.porch_light", "off")
    home_assistant.shows(f"binary_sensor.{BOX}_problem", "off")
    served.close()
    for entity in ("light.kitchen_light", "lock.front_door", f"button.{BOX}_stop_everything"):
        home_assistant.shows(entity, "unavailable")
    hub.open_session("another door").ask("kitchen light on")
    again = Served(hub, broker.port, discovery="component")
    home_assistant.shows("light.kitchen_light", "on")
    home_assistant.shows("lock.front_door", "locked")
    again.close()


def test_what_the_broker_forgot_is_announced_again_when_it_is_born(
    home_assistant: HomeAssistant, broker: Mosquitto
) -> None:
    listener = Listener(broker.port)
    for topic in ANNOUNCED:
        listener.say(topic, "", retain=True)
    listener.settle()
    listener.close()
    wait_until(lambda: not home_assistant.entities(), home_assistant.entities)
    home_assistant.connect_anew()
    wait_until(lambda: len(home_assistant.entities()) == len(ANNOUNCED), home_assistant.entities)
    home_assistant.shows("light.kitchen_light", "off")


def test_what_happened_while_it_was_not_there_is_shown_when_it_is_back(home_assistant: HomeAssistant, hub: Hub) -> None:
    home_assistant.stop()
    hub.open_session("another door").ask("kitchen light on")
    home_assistant.start()
    home_assistant.shows("light.kitchen_light", "on", brightness=255)
    home_assistant.call("light.turn_off", "light.kitchen_light")
    has(hub, "kitchen_light", on=False)
    assert len(home_assistant.entities()) == len(ANNOUNCED)

"""Home Assistant's players, vacuums, alarm panels, ranges, settings and scenes are told; codes stay secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.drivers.registry import load_checked_site, open_driver
from devices.exchange.imports.files import import_file
from devices.simulated_peers import make_peer
from devices.simulation.peer import RealTimeWorld
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command, ToolCall, commands_of, tools_of
from edge_agent.wire.chat_template import load_template
from edge_agent.wire.contract import contract_of
from edge_agent.wire.messages import user_message
from tests.ports import free_port

CODE = "80714"


def state(entity: str, said: str, name: str, **attributes: Any) -> dict[str, Any]:
    return {"entity_id": entity, "state": said, "attributes": {"friendly_name": name, **attributes}}


STATES = [
    state("humidifier.nursery", "on", "Nursery Mist", humidity=45, current_humidity=41, mode="eco", min_humidity=30,
          available_modes=["normal", "eco"], max_humidity=70, supported_features=1),
    state("media_player.den", "standby", "Den Player", volume_level=0.3, is_volume_muted=False, source="HDMI 1",
          source_list=["HDMI 1", "Radio"], supported_features=1 + 4 + 8 + 32 + 128 + 256 + 2048 + 16384),
    state("vacuum.robby", "docked", "Robby", supported_features=4 + 16 + 8192, fan_speed_list=["quiet", "max"]),
    state("lawn_mower.garden", "docked", "Mower", supported_features=7),
    state("alarm_control_panel.house", "disarmed", "House Alarm", code_format="number", supported_features=3),
    state("water_heater.tank", "eco", "Water Tank", min_temp=35, max_temp=65, temperature=50, current_temperature=47.5,
          operation_list=["off", "eco", "heat_pump"], supported_features=3),
    state("climate.studio", "heat_cool", "Studio", hvac_modes=["off", "heat_cool"], min_temp=7, max_temp=30,
          current_temperature=22.1, temperature=None, target_temp_low=20, target_temp_high=25, preset_mode="none",
          preset_modes=["none", "Sleep well"], swing_modes=["on", "off"], supported_features=18),
    state("fan.attic", "on", "Attic Fan", percentage=33, percentage_step=33.333, supported_features=49),
    state("input_number.bed", "22.0", "Bed Warmth", min=0, max=30, step=0.5, unit_of_measurement="min"),
    state("input_select.house", "At home", "House Mode", options=["At home", "Away"]),
    state("button.gong", "unknown", "Gong"),
    state("scene.movie", "2026-01-05T10:11:45+00:00", "Movie"),
]  # fmt: skip
SERVED = {  # by service: the state after it. Source: Home Assistant, the pages of its domains
    "turn_on": "on", "turn_off": "off", "media_play": "playing", "media_pause": "paused", "start": "cleaning",
    "return_to_base": "returning", "start_mowing": "mowing", "dock": "returning", "alarm_arm_home": "armed_home",
    "alarm_arm_away": "armed_away", "alarm_disarm": "disarmed", "press": "2026-01-05T11:00:00+00:00",
}  # fmt: skip
STATE_KEYS = {"hvac_mode", "operation_mode", "value", "option"}
TOLD: list[tuple[str, str, dict[str, Value], str, Any]] = [
    ("nursery_mist", "set_humidity", {"target_humidity": 55}, "humidity", 55),
    ("nursery_mist", "set_mode", {"mode": "normal"}, "mode", "normal"),
    ("den_player", "on", {}, "state", "on"),
    ("den_player", "play", {}, "state", "playing"),
    ("den_player", "set_volume", {"volume": 45}, "volume_level", 0.45),
    ("den_player", "mute", {}, "is_volume_muted", True),
    ("den_player", "set_source", {"source": "radio"}, "source", "Radio"),
    ("robby", "start", {}, "state", "cleaning"),
    ("robby", "return_to_base", {}, "state", "returning"),
    ("mower", "start", {}, "state", "mowing"),
    ("house_alarm", "arm_away", {}, "state", "armed_away"),
    ("house_alarm", "disarm", {}, "state", "disarmed"),
    ("water_tank", "set", {"target_c": 55}, "temperature", 55),
    ("water_tank", "set_mode", {"mode": "heat_pump"}, "state", "heat_pump"),
    ("studio", "set_range", {"target_low_c": 18, "target_high_c": 24}, "target_temp_high", 24),
    ("studio", "set_preset", {"preset": "sleep_well"}, "preset_mode", "Sleep well"),
    ("attic_fan", "set_speed", {"speed": 66}, "percentage", 66),
    ("bed_warmth", "set_value", {"value": 22.5}, "state", "22.5"),
    ("house_mode", "select_option", {"option": "away"}, "state", "Away"),
]
CALLED = [("gong", "press", {}), ("movie", "activate", {}), ("den_player", "next", {})]


class Home:
    """Home Assistant's REST API over the states; the alarm panel wants its code."""

    def __init__(self) -> None:
        self.states = {one["entity_id"]: json.loads(json.dumps(one)) for one in STATES}
        self.called: list[tuple[str, str]] = []
        home = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = home.states.get(self.path.removeprefix("/api/states/"))
                self.answer(200 if found else 404, found)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                *_, domain, service = self.path.split("/")
                self.answer(200 if home.serve(domain, service, body) else 400, [])

            def answer(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def serve(self, domain: str, service: str, body: dict[str, Any]) -> bool:
        entity = body.pop("entity_id")
        if not entity.startswith(f"{domain}.") or (domain == "alarm_control_panel" and body.pop("code", "") != CODE):
            return False
        self.called.append((entity, service))
        found = self.states[entity]
        found["state"] = SERVED.get(service, found["state"]) if domain != "scene" else "2026-01-05T12:00:00+00:00"
        for key, value in body.items():
            if key in STATE_KEYS:
                found["state"] = str(value)
            else:
                found["attributes"][key] = value
        return True


@pytest.fixture
def home() -> Iterator[Home]:
    made = Home()
    yield made
    made.server.shutdown()
    made.server.server_close()


def site_of(folder: Path, url: str) -> Site:
    (folder / "states.json").write_text(json.dumps(STATES), encoding="utf-8")
    imported = import_file(folder / "states.json", "192.0.2.8")
    imported.drivers["home_assistant"]["url"] = url
    (folder / "own.yaml").write_text(imported.site_file("own"), encoding="utf-8")
    return load_checked_site(folder / "own.yaml")


def test_what_an_entity_does_not_support_is_no_tool(tmp_path: Path) -> None:
    site = site_of(tmp_path, "http://192.0.2.8:8123")
    tools = {tool.name for tool in tools_of(site)}
    assert {"vacuum_start", "vacuum_pause", "media_player_next", "alarm_control_panel_arm_home"} <= tools
    assert not {"vacuum_stop", "media_player_stop", "media_player_previous", "alarm_control_panel_arm_night"} & tools
    assert site.devices["attic_fan"].properties["speed"].levels == {"low": 33, "medium": 66, "high": 100}
    assert site.devices["bed_warmth"].actions["set_value"].risk == "confirm"
    left = import_file(tmp_path / "states.json").left_out
    assert [line.split(" of ")[0] for line in left] == ["vacuum.robby fan_speed_list", "climate.studio swing_modes"]


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_what_is_told_is_done_there_and_no_code_is_seen(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASS_TOKEN", "token")
    monkeypatch.setenv("ALARM_CODE", CODE)
    site, journal, asked = site_of(tmp_path, home.url), Journal(), list[str]()
    broker = Broker(site, open_driver(site), journal, confirm=lambda text: not asked.append(text), pause=lambda _: None)
    before = broker.state()
    assert {name: sorted(values) for name, values in before.items()} == {
        name: sorted(device.properties) for name, device in site.devices.items()
    }
    assert before["den_player"]["on"] is False and before["studio"]["preset"] == "none"  # standby is off
    entities = {one["attributes"]["friendly_name"].lower().replace(" ", "_"): one["entity_id"] for one in STATES}
    for device, action, arguments, key, value in TOLD:
        outcome = broker.execute(Command(device, action, arguments))
        assert outcome.status == "done", (device, action, outcome)
        shown = home.states[entities[device]]
        assert (shown["state"] if key == "state" else shown["attributes"][key]) == value
    for device, action, given in CALLED:
        assert broker.execute(Command(device, action, given)).status == "done"
    assert home.called[-3:] == [
        ("button.gong", "press"),
        ("scene.movie", "turn_on"),
        ("media_player.den", "media_next_track"),
    ]
    assert any("disarmed" in text for text in asked)
    contract = contract_of(site, load_template("chatml"))
    seen = contract.system_text + user_message("x", broker.state(), "10:00", contract.words).text
    assert CODE not in seen + json.dumps([event.body for event in journal.events()])
    monkeypatch.delenv("ALARM_CODE")
    assert broker.execute(Command("house_alarm", "arm_home", {})).status == "failed"
    monkeypatch.setenv("ALARM_CODE", "1")
    assert broker.execute(Command("house_alarm", "arm_home", {})).status == "failed"
    assert home.states["alarm_control_panel.house"]["state"] == "disarmed"


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_the_simulated_peer_has_the_same_paths_and_wants_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASS_TOKEN", "token")
    monkeypatch.setenv("ALARM_CODE", CODE)
    site = site_of(tmp_path, f"http://127.0.0.1:{free_port()}")
    world = RealTimeWorld(site)
    peer = make_peer(site, "home_assistant", world)
    peer.start()
    try:
        broker = Broker(site, open_driver(site), Journal(), confirm=lambda _: True)
        for device, action, arguments in [*((told[0], told[1], told[2]) for told in TOLD), *CALLED]:
            before = {name: world.read(name) for name in site.devices if name != device}
            assert broker.execute(Command(device, action, arguments)).status == "done", (device, action)
            assert {name: world.read(name) for name in before} == before
    finally:
        peer.stop()


def test_a_scene_of_the_site_may_have_what_was_imported(tmp_path: Path) -> None:
    site_of(tmp_path, "http://192.0.2.8:8123")
    text = (tmp_path / "own.yaml").read_text(encoding="utf-8")
    scenes = "scenes: {night: {devices: {house_alarm: {state: armed_home}, attic_fan: {speed: low}}}}\n"
    (tmp_path / "own.yaml").write_text(text + scenes, encoding="utf-8")
    site = load_checked_site(tmp_path / "own.yaml")
    assert commands_of(ToolCall("scene_turn_on", {"scene": "night"}), tools_of(site)) == [
        Command("house_alarm", "arm_home", {}),
        Command("attic_fan", "set_speed", {"speed": 33}),
    ]

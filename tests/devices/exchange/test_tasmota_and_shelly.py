"""Sites from answers of Tasmota and Shelly: nothing is lost in silence, and each works over its real protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.drivers.registry import load_checked_site, open_driver
from devices.errors import UsageError
from devices.exchange.imports.files import import_file, importer_of
from devices.exchange.imports.imported import Imported
from devices.simulated_peers import make_peer
from devices.simulation.peer import RealTimeWorld
from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command
from edgewright import main
from tests.devices.drivers.rigs import make_rig
from tests.devices.drivers.shelly_device import ShellyDevice
from tests.devices.drivers.tasmota_device import TasmotaDevice

DATA = Path(__file__).parents[1] / "data"
TASMOTA, SHELLY = sorted((DATA / "tasmota").glob("*.json")), sorted((DATA / "shelly").glob("*.json"))
KNOWN = {"switch", "light", "rgbw", "cover", "input", "temperature", "humidity", "voltmeter", "em", "devicepower"}
PASSWORD = "open sesame"


def leaves(body: Any) -> int:
    """Return how many values there are in JSON; what is empty is one."""
    if isinstance(body, dict | list) and body:
        return sum(leaves(part) for part in (body.values() if isinstance(body, dict) else body))
    return 1


def plain(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def reasons(imported: Imported) -> dict[str, str]:
    return {feature.name: feature.reason for feature in imported.features}


def site_of(imported: Imported, folder: Path, **settings: Any) -> Site:
    for driver in imported.drivers.values():
        driver |= settings
    file = folder / "own.yaml"
    file.write_text(imported.site_file("own"), encoding="utf-8")
    return load_checked_site(file)


def test_there_are_ten_of_each() -> None:
    assert (len(TASMOTA), len(SHELLY)) == (10, 10)


@pytest.mark.parametrize("path", [*TASMOTA, *SHELLY], ids=lambda path: f"{path.parent.name} {path.stem}")
def test_every_value_is_taken_or_left_out_by_name(path: Path, tmp_path: Path) -> None:
    imported, body = import_file(path), plain(path)
    if "StatusSTS" in body:
        sections = {"StatusSTS", "StatusSNS"}
        count = sum(leaves(part) if key in sections else 1 for key, part in body.items())
    else:
        status, known = (
            body["Shelly.GetStatus"],
            "switch light rgbw cover input temperature humidity voltmeter em devicepower",
        )
        values = [
            leaves(part) - _in_lists(part) if key.split(":")[0] in known.split() else 1 for key, part in status.items()
        ]
        count = sum(values) + len(body["Shelly.GetConfig"].keys() - status.keys())
    assert len(imported.features) == len(reasons(imported)) == count
    taken, left = [list(part) for part in _split(imported)]
    assert (
        imported.counts
        == f"{len(imported.devices)} devices; {count} features: {len(taken)} taken, {len(left)} left out"
    )
    assert all(any(line.startswith(f"{name} of ") for line in imported.left_out) for name in left)
    site = site_of(imported, tmp_path)
    assert sum(len(device.at) for device in site.devices.values()) <= len(taken)


def _in_lists(part: Any) -> int:
    """Return how many values of a status are the second and later ones of a list, which is one feature."""
    found = 0
    for value in part.values() if isinstance(part, dict) else ():
        found += max(len(value), 1) - 1 if isinstance(value, list) else _in_lists(value)
    return found


def _split(imported: Imported) -> Iterator[list[str]]:
    yield [feature.name for feature in imported.features if not feature.reason]
    yield [feature.name for feature in imported.features if feature.reason]


def devices_of(folder: str, name: str, tmp_path: Path) -> Site:
    return site_of(import_file(DATA / folder / f"{name}.json"), tmp_path)


def test_relays_share_a_meter_by_their_place(tmp_path: Path) -> None:
    lamp, fan, rest = devices_of("tasmota", "dual_relay_with_meter", tmp_path).devices.values()
    assert (lamp.name, fan.name, rest.name) == ("hall_lamp", "hall_fan", "hall_sensors")
    assert fan.at["power"] == {"topic": "hall_dual", "key": "ENERGY.Power.1", "is_sensor": True}
    assert list(rest.properties) == ["frequency", "voltage"]


def test_shutters_fans_and_lights_of_tasmota(tmp_path: Path) -> None:
    (shutter,) = devices_of("tasmota", "shutter", tmp_path).devices.values()
    assert list(shutter.actions) == ["set", "open", "close"]
    assert shutter.at["position"]["set_key"] == "ShutterPosition1"
    assert shutter.at["position"]["moving"] == {"key": "Shutter1.Direction", "values": [-1, 1], "time_s": 19.0}
    left = reasons(import_file(DATA / "tasmota" / "shutter.json"))
    assert left["POWER1"] == "it moves shutter 1, which its position does"
    fan, light = devices_of("tasmota", "ceiling_fan", tmp_path).devices.values()
    assert (fan.name, list(fan.actions), light.at["on"]["key"]) == ("living_room_fan", ["set"], "POWER1")
    (bulb,) = devices_of("tasmota", "white_spectrum_bulb", tmp_path).devices.values()
    assert bulb.properties["color_temp"].maximum == 500 and "color_temp" in bulb.actions
    strip = devices_of("tasmota", "relay_and_color_strip", tmp_path).devices["tv_strip"]
    assert strip.at["on"]["key"] == "POWER2" and strip.at["color"]["color"] == "hsb"
    left = reasons(import_file(DATA / "tasmota" / "relay_and_color_strip.json"))
    assert left["Color"] == "another feature says the same" and not left["HSBColor"]
    assert "color" not in bulb.at  # two channels of white, and an HSBColor all the same


def test_sensors_of_tasmota_keep_units_and_names(tmp_path: Path) -> None:
    (cellar,) = devices_of("tasmota", "climate_sensors", tmp_path).devices.values()
    assert cellar.properties["temperature_c"].unit == "degrees Fahrenheit"
    assert cellar.properties["bme280_humidity"].unit == "percent" and not cellar.actions
    left = reasons(import_file(DATA / "tasmota" / "climate_sensors.json"))
    assert left["StatusSNS.DS18B20-2.Temperature"] == "it had no value"
    (attic,) = devices_of("tasmota", "air_and_inputs", tmp_path).devices.values()
    assert attic.at["pm25"]["key"] == r"PMS5003.PM2\.5" and attic.properties["switch_2"].type == "boolean"


def test_what_a_person_must_see_to_is_said(tmp_path: Path) -> None:
    assert "user` and `password_file" in import_file(DATA / "tasmota" / "four_relays.json").notes[0]
    imported = import_file(DATA / "shelly" / "four_switches.json")
    assert imported.notes == ["Distribution Board: it has a password: export SHELLY_PASSWORD=… before you use it"]
    site = site_of(imported, tmp_path)
    auth = {"scheme": "digest", "user": "admin", "secret_env": "SHELLY_PASSWORD"}
    assert site.drivers == {"distribution_board": {"type": "http", "url": "http://192.0.2.33", "auth": auth}}
    assert list(site.devices)[:3] == ["oven", "dishwasher", "distribution_board_switch_3"]


def test_covers_inputs_and_sensors_of_shelly(tmp_path: Path) -> None:
    (blinds,) = devices_of("shelly", "cover", tmp_path).devices.values()
    assert blinds.at["position"]["set_method"] == "GoToPosition" and blinds.at["energy"]["scale"] == 0.001
    left = reasons(import_file(DATA / "shelly" / "cover.json"))
    assert left["input:0.state"] == "a button, which has no state"
    (kitchen,) = devices_of("shelly", "cover_not_calibrated", tmp_path).devices.values()
    assert list(kitchen.properties) == ["input_1", "input_2"]
    left = reasons(import_file(DATA / "shelly" / "cover_not_calibrated.json"))
    assert "is not calibrated" in left["cover:0.current_pos"]
    (nursery,) = devices_of("shelly", "battery_climate", tmp_path).devices.values()
    assert all(place["is_asked"] is False for place in nursery.at.values())
    (boiler,) = devices_of("shelly", "relay_with_password", tmp_path).devices.values()
    assert list(boiler.properties) == ["on", "door_contact"]


def test_several_in_a_list_share_their_broker(tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    file.write_text(json.dumps([plain(path) for path in TASMOTA]), encoding="utf-8")
    site = site_of(import_file(file), tmp_path)
    assert list(site.drivers) == ["tasmota", "tasmota_2"] and len(site.devices) == 17
    file.write_text(json.dumps([plain(path) for path in SHELLY]), encoding="utf-8")
    assert len(site_of(import_file(file), tmp_path).drivers) == 10


def test_the_command_prints_counts_that_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plug.yaml"
    assert main(["devices", "import", str(DATA / "tasmota" / "metering_plug.json"), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "1 devices; 37 features: 12 taken, 25 left out" in printed.out
    assert "left out: Wifi.RSSI of Coffee Machine: it is about the device itself" in printed.err
    assert load_checked_site(out).drivers["tasmota"]["host"] == "192.0.2.5"
    assert main(["devices", "import", str(TASMOTA[0]), "--out", str(tmp_path / "b.yaml"), "--host", "10.0.0.9"]) == 0
    assert load_checked_site(tmp_path / "b.yaml").drivers["tasmota"]["host"] == "10.0.0.9"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"StatusSTS": {}}, "device 1: Status is missing"),
        ({"StatusSTS": {}, "Status": {"Topic": 3}}, "device 1: Status.Topic is no text"),
        ({"StatusSTS": [], "Status": {"Topic": "x"}}, "device 1: StatusSTS is no object"),
        ([{"StatusSTS": {}, "Status": {"Topic": "x"}}, {"StatusSTS": {}, "Status": {"Topic": "y"}, "StatusSNS": 3}],
         "device 2: StatusSNS is no object"),
        ({"Shelly.GetStatus": {}}, "device 1: Shelly.GetConfig is missing"),
        ({"Shelly.GetStatus": {"switch:0": 3}, "Shelly.GetConfig": {}}, "GetStatus.switch:0 is no object"),
        ({"Shelly.GetStatus": {"sys": {}}, "Shelly.GetConfig": {}}, "neither wifi.sta_ip nor eth.ip"),
        ({"StatusSTS": {"Time": "x"}, "Status": {"Topic": "x"}}, "there is no device to import"),
    ],
)  # fmt: skip
def test_a_broken_answer_is_one_line_with_device_and_field(body: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(body), encoding="utf-8")
    with pytest.raises(UsageError, match=message) as raised:
        import_file(file).site_file("own")
    assert "\n" not in str(raised.value) and ("broken.json" in str(raised.value) or "no device" in message)


def broken(body: Any, value: Any) -> Iterator[Any]:
    """Yield JSON with one part after the other replaced by a value."""
    for key, part in body.items() if isinstance(body, dict) else enumerate(body):
        changed = body.copy()
        changed[key] = value
        yield changed
        for inner in broken(part, value) if isinstance(part, dict | list) else ():
            changed = body.copy()
            changed[key] = inner
            yield changed


@pytest.mark.parametrize("path", [*TASMOTA, *SHELLY], ids=lambda path: f"{path.parent.name} {path.stem}")
def test_an_answer_broken_anywhere_is_read_or_refused_in_one_line(path: Path) -> None:
    importer = importer_of([plain(path)])
    assert importer is not None
    problems = set[str]()
    for value in (None, 3, "x", [], {}, True):
        for body in broken(plain(path), value):
            try:
                importer([body], "127.0.0.1", path.name)
            except UsageError as error:
                problems.add(str(error))
    assert problems and all(one.startswith(f"{path.name}: device 1: ") and "\n" not in one for one in problems)


# What is carried out on each of the devices that can be told something, and how it then is.
TOLD: dict[str, list[tuple[str, str, dict[str, Value]]]] = {
    "metering_plug": [("coffee_machine", "off", {})],
    "dual_relay_with_meter": [("hall_fan", "on", {}), ("hall_lamp", "off", {})],
    "four_relays": [("fountain", "on", {}), ("shed", "on", {})],
    "dimmer": [("bedroom_lamp", "brightness", {"brightness": 70})],
    "white_spectrum_bulb": [("desk_bulb", "color_temp", {"color_temp": 400}), ("desk_bulb", "off", {})],
    "relay_and_color_strip": [
        ("tv_strip", "brightness", {"brightness": 80}),
        ("tv_socket", "off", {}),
        ("tv_strip", "color", {"color": "blue"}),
        ("tv_strip", "color", {"color": "white"}),
    ],
    "shutter": [("office_shutter", "set", {"position": 80}), ("office_shutter", "close", {})],
    "climate_sensors": [],
    "ceiling_fan": [("living_room_fan", "set", {"speed": 3}), ("living_room_fan_light", "on", {})],
    "air_and_inputs": [("attic_air", "on", {})],
    "plug": [("kettle", "off", {})],
    "relay_with_password": [("boiler_room", "on", {})],
    "four_switches": [("dishwasher", "off", {}), ("distribution_board_switch_4", "on", {})],
    "cover": [("bedroom_blinds", "set", {"position": 60}), ("bedroom_blinds", "close", {})],
    "cover_not_calibrated": [],
    "shelly dimmer": [("dining_light", "brightness", {"brightness": 20})],
    "uni_with_sensors": [("grow_lamp", "on", {}), ("vent", "off", {})],
    "battery_climate": [],
    "three_phase_meter": [],
    "rgbw_and_virtual": [("shelf_strip", "on", {}), ("shelf_strip", "color", {"color": "orange"})],
}


def work(site: Site, name: str) -> None:
    """Read every property, and carry out what is told of the file."""
    driver = open_driver(site)
    broker = Broker(site, driver, Journal())
    try:
        state = broker.state()
        assert {name: sorted(values) for name, values in state.items()} == {
            name: sorted(device.properties) for name, device in site.devices.items()
        }
        for device, action, arguments in TOLD[name]:
            assert broker.execute(Command(device, action, arguments)).status == "done", (device, action)
    finally:
        driver.close()


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_every_tasmota_works_over_mqtt(tmp_path: Path) -> None:
    rig = make_rig("mqtt, zigbee2mqtt", tmp_path)
    peer = make_peer(rig.site, "it", RealTimeWorld(rig.site))
    peer.start()
    port = int(rig.site.drivers["it"]["port"])
    try:
        for path in TASMOTA:
            device = TasmotaDevice(plain(path), port)
            try:
                work(site_of(import_file(path), tmp_path, host="127.0.0.1", port=port), path.stem)
            finally:
                device.close()
    finally:
        peer.stop()


@pytest.mark.allow_hosts(["127.0.0.1"])
@pytest.mark.parametrize("path", SHELLY, ids=lambda path: path.stem)
def test_every_shelly_works_over_http(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = plain(path)
    has_password = body["Shelly.GetDeviceInfo"]["auth_en"]
    monkeypatch.setenv("SHELLY_PASSWORD", PASSWORD)
    device = ShellyDevice(body, PASSWORD if has_password else "")
    try:
        site = site_of(import_file(path), tmp_path, url=device.url)
        work(site, "shelly dimmer" if path.stem == "dimmer" else path.stem)
    finally:
        device.close()
    assert bool(device.refused) == has_password

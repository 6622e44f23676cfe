"""Sites to and from the forms of others: Thing Descriptions, OpenAI tools, Home Assistant, zigbee2mqtt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from paho.mqtt.publish import single

from devices.driver import DeviceUnavailable
from devices.errors import UsageError
from devices.exchange.discovery import broker_topics, local_ports
from devices.exchange.exports import home_assistant_discovery, thing_descriptions
from devices.exchange.imports.files import import_file
from devices.exchange.imports.imported import plain_name
from devices.simulated_peers import make_peer
from devices.simulation.peer import RealTimeWorld
from devices.site.site import SITES_FOLDER, Area, load_site
from devices.yaml_file import shipped_names
from edgewright import main
from tests.devices.drivers.rigs import make_rig

TD_SCHEMA = json.loads(
    (Path(__file__).parents[1] / "data" / "td-json-schema-validation.json").read_text(encoding="utf-8")
)


def state(name: str, access: int, **rest: Any) -> dict[str, Any]:
    return {"name": name, "property": name, "access": access, **rest}


ON_OFF = {"type": "binary", "value_on": "ON", "value_off": "OFF"}
ZIGBEE = [
    {"ieee_address": "0x0", "type": "Coordinator", "friendly_name": "Coordinator", "definition": None},
    {
        "ieee_address": "0x1",
        "type": "Router",
        "friendly_name": "Kitchen Light",
        "definition": {
            "exposes": [
                {
                    "type": "light",
                    "features": [
                        state("state", 7, **ON_OFF),
                        state("brightness", 7, type="numeric", value_min=0, value_max=254),
                        state("color_temp", 7, type="numeric", value_min=150, value_max=500),
                    ],
                },
                state("effect", 2, type="enum", values=["blink", "breathe"]),
                state("linkquality", 1, type="numeric", value_min=0, value_max=255),
            ]
        },
    },
    {
        "ieee_address": "0x2",
        "type": "EndDevice",
        "friendly_name": "0x00158d0001",
        "definition": {
            "exposes": [
                state("temperature", 1, type="numeric", unit="°C"),
                state("water_leak", 1, type="binary", value_on=True, value_off=False),
                state("tamper", 1, type="binary", value_on="yes", value_off="no"),
                state("voltage", 1, type="numeric", unit="mV", category="diagnostic"),
            ]
        },
    },
    {
        "ieee_address": "0x3",
        "type": "EndDevice",
        "friendly_name": "front door",
        "definition": {
            "exposes": [
                {"type": "lock", "features": [state("state", 7, type="binary", value_on="LOCK", value_off="UNLOCK")]}
            ]
        },
    },
    {
        "ieee_address": "0x4",
        "type": "EndDevice",
        "friendly_name": "hall/thermostat",
        "definition": {
            "exposes": [
                {
                    "type": "climate",
                    "features": [state("occupied_heating_setpoint", 7), state("local_temperature", 5)],
                }
            ]
        },
    },
    {"ieee_address": "0x5", "type": "EndDevice", "friendly_name": "knob", "definition": {"exposes": []}},
]
GROUPS = [
    {"id": 1, "friendly_name": "way out", "scenes": [{"id": 1, "name": "night"}],
     "members": [{"ieee_address": "0x1", "endpoint": 11}, {"ieee_address": "0x3", "endpoint": 1}]},
    {"id": 901, "friendly_name": "default_bind_group", "scenes": [], "members": []},
]  # fmt: skip
THING = {
    "@context": "https://www.w3.org/2022/wot/td/v1.1",
    "title": "Coffee Machine",
    "base": "http://10.0.0.5:8080/coffee/",
    "securityDefinitions": {"nosec_sc": {"scheme": "nosec"}},
    "security": "nosec_sc",
    "properties": {
        "on": {"type": "boolean", "forms": [{"href": "properties/on"}]},
        "level": {
            "type": "integer", "minimum": 0, "maximum": 10, "readOnly": True,
            "forms": [{"href": "properties/level?full=1", "op": ["readproperty"]}],
        },
        "strength": {"type": "number", "minimum": 1, "maximum": 5, "forms": [{"href": "properties/strength"}]},
        "mood": {"type": "string", "forms": [{"href": "properties/mood"}]},
        "weight": {"type": "number", "forms": [{"href": "properties/weight"}]},
        "far": {"type": "boolean", "forms": [{"href": "coap://10.0.0.5/far"}]},
    },
    "actions": {"brew": {"forms": [{"href": "actions/brew"}]}},
}  # fmt: skip


def write(folder: Path, found: object) -> Path:
    path = folder / "found.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", shipped_names(SITES_FOLDER))
def test_every_site_is_a_valid_thing_description(name: str) -> None:
    site = load_site(name)
    things = thing_descriptions(site, "http://box.local/")
    assert [thing["title"] for thing in things] == [device.title for device in site.devices.values()]
    for thing in things:
        jsonschema.validate(thing, TD_SCHEMA)
    if name == "home":
        brightness = things[0]["actions"]["brightness"]["input"]["properties"]["brightness"]
        assert brightness == {"type": "integer", "minimum": 0, "maximum": 100, "unit": "percent"}
        del things[0]["title"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(things[0], TD_SCHEMA)


def test_a_zigbee_network_becomes_a_site_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "flat.yaml"
    assert main(["devices", "import", str(write(tmp_path, ZIGBEE)), "--out", str(out), "--host", "10.0.0.2"]) == 0
    printed = capsys.readouterr()
    assert "effect of Kitchen Light: it can only be written" in printed.err and "knob: nothing of it" in printed.err
    assert "4 devices; 12 features: 9 taken, 3 left out" in printed.out
    site = load_site(out)
    assert site.drivers == {"zigbee": {"type": "mqtt", "host": "10.0.0.2", "profile": "zigbee2mqtt"}}
    assert list(site.devices) == ["kitchen_light", "leak_sensor_1", "front_door", "hall_thermostat"]
    light, sensor, door, heating = site.devices.values()
    assert list(light.actions) == ["on", "off", "brightness", "color_temp"]
    assert light.at["brightness"]["scale"] == 100 / 254
    assert list(sensor.properties) == ["temperature_c", "wet", "tamper"] and not sensor.actions
    assert sensor.at["tamper"]["words"] == ["no", "yes"] and sensor.properties["temperature_c"].unit == "degrees"
    assert door.at["locked"]["words"] == ["UNLOCK", "LOCK"] and door.actions["unlock"].risk == "confirm"
    assert heating.at["target_c"] == {"topic": "hall/thermostat", "key": "occupied_heating_setpoint"}


def test_a_thing_becomes_a_site_that_loads_and_says_what_is_left_out(tmp_path: Path) -> None:
    imported = import_file(write(tmp_path, THING))
    out = tmp_path / "coffee.yaml"
    out.write_text(imported.site_file("coffee"), encoding="utf-8")
    (device,) = load_site(out).devices.values()
    assert device.at["level"] == {"path": "/coffee/properties/level?full=1"}
    assert list(device.actions) == ["on", "off", "set_strength", "brew"]
    assert device.actions["set_strength"].input["strength"].maximum == 5
    left_out = " | ".join(imported.left_out)
    for reason in ("mood of Coffee Machine: free text", "far of Coffee Machine: no form over HTTP"):
        assert reason in left_out
    assert "weight of Coffee Machine: only read here" in imported.notes[0]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"devices": []}, "is neither"),
        ([], "has no entries"),
        ([ZIGBEE[0]], "no device to import"),
        ([3], "entry 1 is neither"),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(found: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        import_file(write(tmp_path, found)).site_file("flat")
    with pytest.raises(UsageError, match="cannot read"):
        import_file(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("text", "name"),
    [("Küche / Licht 1", "kuche_licht_1"), ("0x12", "device_0x12"), ("<|im_start|>", "im_start"), ("灯", "device")],
)
def test_names_from_outside_become_plain_words(text: str, name: str) -> None:
    assert plain_name(text) == name


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_home_assistant_hears_the_topics_that_the_devices_use(tmp_path: Path) -> None:
    rig = make_rig("mqtt, zigbee2mqtt", tmp_path)
    messages = home_assistant_discovery(rig.site)
    assert messages["homeassistant/sensor/edgewright_rig_lamp_brightness/config"] == {
        "name": "brightness",
        "unique_id": "edgewright_rig_lamp_brightness",
        "state_topic": "zigbee2mqtt/lamp",
        "value_template": '{{ value_json["brightness"] * 0.5 + 0 }}',
        "device": {"identifiers": ["edgewright_rig_lamp"], "name": "lamp"},
        "unit_of_measurement": "%",
    }
    on = messages["homeassistant/binary_sensor/edgewright_rig_lamp_on/config"]
    assert (on["payload_off"], on["payload_on"]) == ("OFF", "ON")
    assert not any("command_topic" in message for message in messages.values())
    lamp = rig.site.devices["lamp"].model_copy(update={"area": "den"})
    placed = {"areas": {"den": Area(title="small den")}, "devices": rig.site.devices | {"lamp": lamp}}
    for topic, message in home_assistant_discovery(rig.site.model_copy(update=placed)).items():
        assert message["device"].get("suggested_area") == ("small den" if "_lamp_" in topic else None)
    with pytest.raises(UsageError, match="no device of home is on MQTT"):
        home_assistant_discovery(load_site("home"))


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_discover_asks_a_real_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = make_rig("mqtt, zigbee2mqtt", tmp_path)
    peer = make_peer(rig.site, "it", RealTimeWorld(rig.site))
    peer.start()
    port = int(rig.site.drivers["it"]["port"])
    try:
        with pytest.raises(DeviceUnavailable, match="has neither zigbee2mqtt/bridge/devices nor homie/# within"):
            broker_topics("127.0.0.1", port, seconds=0.2)
        for what, found in (("groups", GROUPS), ("devices", ZIGBEE)):
            text = json.dumps(found)
            single(f"zigbee2mqtt/bridge/{what}", text, retain=True, hostname="127.0.0.1", port=port)
        out = tmp_path / "found.yaml"
        assert main(["devices", "discover", "--mqtt", "127.0.0.1", "--port", str(port), "--out", str(out)]) == 0
    finally:
        peer.stop()
    assert "devices: kitchen_light," in capsys.readouterr().out
    assert load_site(out).drivers["zigbee"]["port"] == port
    assert load_site(out).groups["way_out"].devices == ("kitchen_light", "front_door")
    assert main(["devices", "discover", "--mqtt", "127.0.0.1", "--port", str(port)]) == 3


def test_local_ports_are_named_and_not_opened(tmp_path: Path) -> None:
    for name in ("ttyUSB0", "gpiochip0", "i2c-1", "null"):
        (tmp_path / name).touch(mode=0o000)
    found = local_ports(tmp_path)
    assert {what: [Path(path).name for path in paths] for what, paths in found.items()} == {
        "serial lines": ["ttyUSB0"],
        "pin chips": ["gpiochip0"],
        "I2C buses": ["i2c-1"],
    }


@pytest.mark.parametrize("to", ["things", "openai"])
def test_export_prints_json(to: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "export", "home", "--to", to]) == 0
    assert len(json.loads(capsys.readouterr().out)) > 5

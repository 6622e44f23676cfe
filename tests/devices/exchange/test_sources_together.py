"""Brokers, dumps, homes and files as sources of one site: what each brings, and what stays when one is asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.publish import multiple

from devices.drivers.registry import load_checked_site
from devices.errors import UsageError
from devices.exchange.imports.files import import_file, import_files
from devices.exchange.imports.home_assistant import import_home_assistant
from devices.exchange.imports.imported import Imported
from devices.exchange.imports.topics import import_topics
from devices.exchange.site_import import import_into
from edgewright import main
from tests.devices.drivers.homie_device import HomieDevice
from tests.devices.drivers.rigs import mqtt_broker
from tests.devices.exchange.test_exchange import GROUPS, ZIGBEE

LAMP = {"id": "lamp", "homie": 5, "name": "Desk", "nodes": {"light": {"name": "Light", "type": "", "properties": {
    "power": {"name": "Power", "datatype": "boolean", "settable": True, "retained": True}}}}}  # fmt: skip
DESCRIBED = {topic: [value] for topic, value in HomieDevice(LAMP, port=0).topics().items()}
NETWORK = {
    "zigbee2mqtt/bridge/devices": [json.dumps(ZIGBEE)],
    "zigbee2mqtt/bridge/groups": [json.dumps(GROUPS)],
    "zigbee2mqtt/Kitchen Light": ['{"state": "ON"}'],
}
TANK = {"garden/tank/level": ["62.5"], "garden/pump": ["ON", "OFF"], "garden/pump/set": ["ON"]}
HOME = {
    "states": [
        {"entity_id": "switch.fan", "state": "on", "attributes": {"friendly_name": "Fan"}},
        {"entity_id": "switch.hob", "state": "on", "attributes": {"friendly_name": "Hob"}},
    ],
    "areas": [{"area_id": "a", "name": "Kitchen", "floor_id": "f"}],
    "floors": [{"floor_id": "f", "name": "Ground", "aliases": ["Downstairs"]}],
    "entities": [{"entity_id": "switch.fan", "area_id": "a"}, {"entity_id": "switch.hob", "area_id": "a"}],
}


def dump(file: Path, topics: dict[str, list[str]]) -> Path:
    file.write_text("".join(f"{name} {value}\n" for name, values in topics.items() for value in values), "utf-8")
    return file


def home(**changes: object) -> Imported:
    return import_home_assistant([HOME | changes], "http://192.0.2.8:8123")


def test_a_dump_a_home_and_groups_make_one_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [dump(tmp_path / "topics.txt", DESCRIBED | TANK | {"zigbee2mqtt/bridge/devices": [json.dumps(ZIGBEE)]})]
    for name, body in {"groups.json": GROUPS, "home.json": HOME}.items():
        files.append(tmp_path / name)
        files[-1].write_text(json.dumps(body), encoding="utf-8")
    out = tmp_path / "my.yaml"
    words = ["devices", "import", *map(str, files), "--out", str(out)]
    assert main([*words, "--host", "192.0.2.5"]) == 0
    site, text = load_checked_site(out), out.read_text(encoding="utf-8")
    assert {"kitchen_light", "desk", "garden", "garden_tank", "fan"} <= site.devices.keys()
    assert list(site.drivers) == ["zigbee", "mqtt", "home_assistant"]
    assert site.groups["way_out"].devices == ("kitchen_light", "front_door")
    assert site.areas["kitchen"].floor == "ground" and site.floors["ground"].aliases == ("downstairs",)
    assert text.index("floors:") < text.index("areas:") and "      # guess: on or off" not in text
    assert "      # guess: off or on, as ON, OFF was seen\n      pump:" in text
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("\n") == 2 and out.read_text(encoding="utf-8") == text  # nothing is another
    out.write_text(text.replace("host: 192.0.2.5", "host: 192.0.2.5\n    password_file: secret.txt"), "utf-8")
    assert main(words) == 0
    assert out.read_text(encoding="utf-8").count("password_file") == 2


def test_a_dump_has_groups_of_its_own_and_broken_ones_are_one_line(tmp_path: Path) -> None:
    made = import_file(dump(tmp_path / "topics.txt", NETWORK))
    assert list(made.groups) == ["way_out"] and list(made.drivers) == ["zigbee"]
    assert "1 topics below zigbee2mqtt/: its list of devices tells of them" in made.notes
    for broken, message in (("{", "is not JSON"), ("NaN", "is not JSON"), ("[1]", "is no list of groups")):
        with pytest.raises(UsageError, match=rf"topics.txt: zigbee2mqtt/bridge/groups {message}"):
            import_file(dump(tmp_path / "topics.txt", NETWORK | {"zigbee2mqtt/bridge/groups": [broken]}))
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps(GROUPS), encoding="utf-8")
    files = {"topics.txt": dump(tmp_path / "topics.txt", TANK), "groups.json": groups}
    with pytest.raises(UsageError, match=r"groups.json has groups, and no file has zigbee2mqtt's devices"):
        import_files(files, lambda _: "192.0.2.5")


def test_guesses_stand_above_what_is_new_under_its_name_in_the_site(tmp_path: Path) -> None:
    out = tmp_path / "my.yaml"
    out.write_text("schema: site/v1\nname: my\ntitle: my\ndevices:\n    garden_tank: {model: switch}\n", "utf-8")
    import_into(out, {"broker": import_topics(TANK, "192.0.2.5", "here")}).write()
    text = out.read_text(encoding="utf-8")
    assert list(load_checked_site(out).devices) == ["garden_tank", "garden_tank_2", "garden"]
    assert "        # guess: a number, as 62.5 was seen\n        level:" in text  # as wide as the file has it
    more = TANK | {"garden/vent": ["open", "closed"], "garden/vent/set": ["open"]}
    import_into(out, {"broker": import_topics(more, "192.0.2.5", "here")}).write()
    text = out.read_text(encoding="utf-8")
    assert "        # guess: garden/vent/set sets it, as open was\n        vent_on:" in text
    garden, tank = (load_checked_site(out).devices[name] for name in ("garden", "garden_tank_2"))
    assert text.count("# guess") == sum(len(one.properties) + len(one.actions) for one in (garden, tank))
    assert not import_into(out, {"broker": import_topics(more, "192.0.2.5", "here")}).lines


def test_floors_are_merged_as_areas_are(tmp_path: Path) -> None:
    out = tmp_path / "my.yaml"
    import_into(out, {"home": home(floors=[])}).write()
    made = import_into(out, {"home": home()})  # Home Assistant was renewed, and has floors
    assert made.lines == ["added: areas.kitchen.floor", "added: floors.ground"]
    made.write()
    text = out.read_text(encoding="utf-8").replace("aliases: [downstairs]", "aliases: [below]")
    out.write_text(text, encoding="utf-8")
    upstairs = [{"floor_id": "f", "name": "Up", "aliases": []}]
    made = import_into(out, {"home": home(floors=upstairs)})
    assert "changed: areas.kitchen.floor: up, was ground" in made.lines
    assert any(line.startswith("conflict: floors.ground") for line in made.lines)
    made.write()
    site = load_checked_site(out)
    assert site.areas["kitchen"].floor == "up" and site.floors["ground"].aliases == ("below",)


def test_a_floor_is_not_called_like_an_area_of_another_source(tmp_path: Path) -> None:
    areas = [{"area_id": "a", "name": "Ground"}]
    garage = home(areas=areas, floors=[], states=HOME["states"][:1])
    garage.drivers["home_assistant"]["url"] = "http://192.0.2.9:8123"
    import_into(tmp_path / "my.yaml", {"home": home(), "garage": garage}).write()
    site = load_checked_site(tmp_path / "my.yaml")
    assert list(site.floors) == ["ground_floor"] and site.areas["kitchen"].floor == "ground_floor"
    assert site.devices["fan_2"].area == "ground"
    again = import_into(tmp_path / "my.yaml", {"home": home()})
    assert not again.lines


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with mqtt_broker(tmp_path) as port:
        yield port


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_broker_is_asked_again(port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = NETWORK | DESCRIBED | {topic: values for topic, values in TANK.items() if topic != "garden/pump/set"}
    messages = [{"topic": topic, "payload": values[-1], "retain": True} for topic, values in said.items()]
    multiple(messages, hostname="127.0.0.1", port=port)
    out = tmp_path / "my.yaml"
    words = ["devices", "discover", "--mqtt", "127.0.0.1", "--port", str(port), "--out", str(out)]
    assert main([*words, "--topics", "garden/#", "--dry-run"]) == 0 and not out.exists()
    assert main([*words, "--topics", "garden/#"]) == 0
    site, text = load_checked_site(out), out.read_text(encoding="utf-8")
    assert {"kitchen_light", "desk", "garden", "garden_tank"} <= site.devices.keys() and "way_out" in site.groups
    assert [driver["port"] for driver in site.drivers.values()] == [port, port]
    capsys.readouterr()
    assert main(words) == 0  # the garden is not asked, and stays
    printed = capsys.readouterr()
    assert "garden/# was not imported this time: its devices stay as they are" in printed.err
    assert out.read_text(encoding="utf-8") == text and "groups: way_out" in printed.out
    assert main([*words, "--topics", "garden/#"]) == 0 and out.read_text(encoding="utf-8") == text

"""What an import makes of devices as people have them: each fault once found is a case here."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks.imports import THINGS, ZIGBEE, ZigbeePeer, arguments_for, expected, local_things, on_port, run_things
from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.driver import Driver
from devices.drivers.registry import load_checked_site, open_driver
from devices.errors import UsageError
from devices.exchange.imports.files import import_file
from devices.exchange.imports.imported import NO_PLACE, Imported
from devices.exchange.imports.thing_description import import_things
from devices.exchange.imports.zigbee2mqtt import import_zigbee2mqtt
from devices.simulated_peers import Stage
from devices.site.device import Device
from devices.site.site import Site
from devices.site.tools import Command
from edgewright import main
from finetune.data.generator import generate_rows
from tests.ports import free_port, patient

DEFINITIONS: list[dict[str, Any]] = json.loads(ZIGBEE.read_text(encoding="utf-8"))
BY_NAME = {one["friendly_name"]: one for one in DEFINITIONS}
THING_LIST: list[dict[str, Any]] = json.loads(THINGS.read_text(encoding="utf-8"))
SPECIFIC = {"light", "switch", "lock", "cover", "fan", "climate"}
# One of each way in which devices differ; benchmarks/imports.py does this with all 60.
PLAYED = [
    "living room floor lamp",
    "bed strip",
    "bathroom mirror",
    "tv strip",
    "dual switch",
    "cinema screen",
    "living radiator",
    "front door",
    "kitchen window",
    "air purifier",
]


def site_of(made: Imported, folder: Path) -> Site:
    """Write the site and load it as `devices check` does."""
    out = folder / "made.yaml"
    out.write_text(made.site_file("made"), encoding="utf-8")
    return load_checked_site(out)


def device_of(folder: Path, *exposes: dict[str, Any], name: str = "it", description: str = "") -> Device:
    definition = {"description": description, "exposes": exposes}
    entry = {"ieee_address": "0x1", "friendly_name": name, "type": "Router", "definition": definition}
    (device,) = site_of(import_zigbee2mqtt([entry], "127.0.0.1"), folder).devices.values()
    return device


@pytest.fixture(scope="module")
def zigbee(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The site of all 60 Zigbee devices."""
    return site_of(import_file(ZIGBEE), tmp_path_factory.mktemp("zigbee"))


def test_every_feature_is_on_the_account() -> None:
    made = import_file(ZIGBEE)
    exposes = [one for entry in DEFINITIONS if entry["definition"] for one in entry["definition"]["exposes"]]
    there = sum(len(one["features"]) if one["type"] in SPECIFIC else 1 for one in exposes)
    left = [feature for feature in made.features if feature.reason]
    assert len(made.features) == there == made.taken + len(left)
    properties = sum(len(device["at"]) for device in made.devices.values())
    assert made.taken == properties  # what is called taken has an address
    assert not [feature for feature in left if feature.reason == NO_PLACE]
    named = " ".join(made.left_out)
    assert all(f"{feature.name} of " in named for feature in left)


def test_every_affordance_of_a_thing_is_on_the_account() -> None:
    made = import_things(THING_LIST)
    there = sum(len(one.get(kind, ())) for one in THING_LIST for kind in ("properties", "actions", "events"))
    assert len(made.features) == there and not [one for one in made.features if one.reason == NO_PLACE]


@pytest.mark.parametrize("words", [(False, True), ("open", "shut"), (1, 0), (0.5, 1.5)])
def test_a_contact_sensor_is_true_for_open_whatever_it_says(words: tuple[Any, Any], tmp_path: Path) -> None:
    when_open, when_closed = words
    contact = {"type": "binary", "name": "contact", "property": "contact", "access": 1}
    device = device_of(tmp_path, contact | {"value_on": when_open, "value_off": when_closed})
    assert device.properties["open"].labels == {True: "open", False: "closed"}
    assert device.at["open"]["words"] == [when_closed, when_open]


def test_each_gang_of_a_switch_is_a_device_with_its_own_power(zigbee: Site) -> None:
    assert zigbee.devices["dual_switch_left"].at["on"]["key"] == "state_left"
    assert zigbee.devices["dual_switch_right"].at["on"]["key"] == "state_right"
    strip = zigbee.devices["tv_strip_2"].at
    assert (strip["on"]["key"], strip["power"]["key"], strip["energy"]["key"]) == ("state_l2", "power_l2", "energy_l2")
    assert zigbee.devices["dining_double_dimmer_2"].at["brightness"]["key"] == "brightness_l2"
    assert zigbee.devices["curtains_left"].at["position"]["key"] == "position_left"
    assert zigbee.devices["curtains_left"].at["position"]["topic"] == "curtains"


def test_a_radiator_valve_is_a_thermostat_with_the_rest_beside_it(zigbee: Site) -> None:
    device = zigbee.devices["living_radiator"]
    assert device.kind == "climate"
    target = device.actions["set"].input["target_c"]
    assert (target.type, target.minimum, target.maximum, target.step) == ("number", 5, 30, 0.5)
    assert (device.properties["target_c"].minimum, device.properties["target_c"].maximum) == (5, 30)
    assert device.actions["set_mode"].input["mode"].enum == ("off", "auto", "heat")
    assert {"child_lock", "window_detection", "battery", "running_state"} <= device.properties.keys()
    assert {"child_lock_on", "child_lock_off", "window_detection_on"} <= device.actions.keys()
    coarse = zigbee.devices["bath_radiator"].actions["set"].input["target_c"]
    assert (coarse.type, coarse.step) == ("integer", 1)


def test_an_address_is_no_name(zigbee: Site) -> None:
    device = zigbee.devices["radiator_valve_1"]
    assert device.title == "radiator valve 1" and device.at["target_c"]["topic"].startswith("0x")
    assert {"plug_1", "light_1", "contact_sensor_1", "remote_1", "radiator_valve_2"} <= zigbee.devices.keys()
    assert not [name for name in zigbee.devices if "0x" in name]


def test_what_cannot_be_set_gets_no_action(zigbee: Site) -> None:
    assert "speed" in zigbee.devices["air_purifier"].properties
    assert not [action for action in zigbee.devices["air_purifier"].actions.values() if "speed" in action.writes]


def test_what_a_device_only_shows_is_not_set(tmp_path: Path) -> None:
    """Source: zigbee2mqtt, "Exposes", whose example of running_state has an access of 3."""
    state = {"type": "enum", "name": "running_state", "property": "running_state", "access": 3, "values": ["idle"]}
    device = device_of(tmp_path, {"type": "climate", "features": [state]})
    assert list(device.properties) == ["running_state"] and not device.actions


def test_presets_are_levels_unless_they_are_no_value_of_the_device(tmp_path: Path) -> None:
    presets = [
        {"name": "coolest", "value": 153, "description": "Coolest temperature supported"},
        {"name": "warmest", "value": 500, "description": "Warmest temperature supported"},
        {"name": "previous", "value": 65535, "description": "Restore previous color_temp"},
        {"name": "neutral", "value": "as before"},
    ]
    limits = {"type": "numeric", "access": 7, "value_min": 153, "value_max": 500}
    warmth = {**limits, "name": "color_temp", "property": "color_temp", "unit": "mired", "presets": presets}
    state = {"type": "binary", "name": "state", "property": "state", "access": 7, "value_on": "ON", "value_off": "OFF"}
    level = {"name": "volume", "property": "volume", "type": "numeric", "access": 7, "value_min": 1, "value_max": 3}
    level |= {"value_step": 1, "presets": [{"name": "Very_Loud", "value": 3}]}
    device = device_of(tmp_path, {"type": "light", "features": [state, warmth]}, level)
    wanted = {"coolest": 153, "warmest": 500}
    assert device.properties["color_temp"].levels == device.actions["color_temp"].input["color_temp"].levels == wanted
    assert device.actions["set_volume"].input["volume"].levels == {"very loud": 3}


def test_a_feature_may_be_called_as_every_result_is(tmp_path: Path) -> None:
    status = {"type": "enum", "name": "status", "property": "status", "access": 1, "values": ["ok", "bad"]}
    assert list(device_of(tmp_path, status).properties) == ["status_value"]


def test_the_same_name_twice_is_two_devices() -> None:
    lamp = BY_NAME["porch light"]
    made = import_zigbee2mqtt(
        [lamp | {"friendly_name": name} for name in ("Lamp", "lamp", "lamp 2", "灯")], "127.0.0.1"
    )
    assert list(made.devices) == ["lamp", "lamp_2", "lamp_2_2", "light_1"]


def test_what_moves_a_cover_is_given_its_time(zigbee: Site) -> None:
    venetian, screen = zigbee.devices["office_venetian"].actions, zigbee.devices["cinema_screen"].actions
    assert {name: action.settle_s for name, action in venetian.items()} == dict.fromkeys(
        ("open", "close", "set", "set_tilt"), 60
    )
    assert {name: action.settle_s for name, action in screen.items()} == {"open": 60, "close": 60, "stop": 0}


def test_water_runs_for_minutes_only(zigbee: Site) -> None:
    assert zigbee.devices["garden_valve"].actions["water"].ends


@pytest.mark.parametrize("source", [ZIGBEE, THINGS], ids=["zigbee2mqtt", "things"])
def test_an_import_is_a_site_to_train_on(source: Path, tmp_path: Path) -> None:
    site = site_of(import_file(source), tmp_path)
    rows = list(generate_rows(site, 50, 1))
    called = {call.name for row in rows for message in row.messages for call in message.calls}
    assert len(rows) == 50 and len(called) > 10
    spoken = [action for device in site.devices.values() for action in device.actions.values()]
    assert spoken and not [action for action in spoken if len(action.requests) < 30]


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (["friendly_name"], 7, "friendly_name: "),
        (["definition"], "none", "definition: "),
        (["definition", "exposes"], {"a": 1}, "definition.exposes: "),
        (["definition", "exposes", 0, "features", 0, "access"], "much", "definition.exposes.0.features.0.access: "),
        (["definition", "exposes", 0, "features", 1, "value_max"], [], "definition.exposes.0.features.1.value_max: "),
    ],
)
def test_a_broken_file_is_told_with_device_and_field(
    path: list[Any], value: Any, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = json.loads(json.dumps([BY_NAME["kitchen ceiling"]]))
    inner: Any = broken[0]
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file, out = tmp_path / "broken.json", tmp_path / "site.yaml"
    file.write_text(json.dumps(broken), encoding="utf-8")
    assert main(["devices", "import", str(file), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file}: device " in line and problem in line and not out.exists()


def test_a_broken_thing_is_told_with_device_and_field(tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text(json.dumps(THING_LIST[0] | {"properties": {"on": {"forms": [{"op": "readproperty"}]}}}))
    with pytest.raises(UsageError, match=re.escape(f"{file}: device Hall Lamp: properties.on.forms.0.href: ")):
        import_file(file)


STRANGE = [None, "", "off", "a b", "<|x|>", "status", -1, 0, 0.3, 1e9, float("nan"), True, [], {}, ["on", "off"]]


def spoiled(plain: Any, rng: Random) -> Any:
    """Return a copy of JSON with something in it that should not be there."""
    plain = json.loads(json.dumps(plain))
    for _ in range(rng.choice((1, 1, 3))):
        inner, above = plain, None
        while isinstance(inner, dict | list) and inner and (above is None or rng.random() < 0.8):
            key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
            above, inner = (inner, key), inner[key]
        if above is None:
            continue
        if rng.random() < 0.4:
            del above[0][above[1]]
        else:
            above[0][above[1]] = rng.choice(STRANGE)
    return plain


@pytest.mark.parametrize("seed", range(10))
def test_a_spoiled_file_is_refused_or_makes_a_site_that_is_right(seed: int, tmp_path: Path) -> None:
    rng = Random(seed)
    for _ in range(10):
        kind, source = rng.choice([(import_zigbee2mqtt, DEFINITIONS[1:]), (import_things, THING_LIST)])
        found = [spoiled(one, rng) for one in rng.sample(source, 3)]
        found = [one for one in found if isinstance(one, dict)]
        try:
            made = kind(found, "127.0.0.1") if kind is import_zigbee2mqtt else kind(found)
            made.site_file("made")
        except UsageError:
            continue
        site = site_of(made, tmp_path)
        assert site.devices.keys() == made.devices.keys()
        assert made.taken + sum(bool(one.reason) for one in made.features) == len(made.features)


MAP = "name,address,function,scale,access,min,max,values\nflow,7,4,.1,r,,,\nmode,9,3,,rw,,,off|eco\nset,8,3,1,rw,5,30,"
DATA = Path(__file__).parents[1] / "data"
SMALL: dict[str, Any] = {
    "zigbee.json": [BY_NAME["porch light"], {"id": 1, "friendly_name": "all", "members": []}],
    "things.json": THING_LIST[0],
    "tasmota.json": {
        "Status": {"Topic": "it"},
        "StatusSTS": {"POWER": "ON"},
        "StatusSNS": {"Time": "", "A": {"Power": 3}},
    },
    "shelly.json": {
        "Shelly.GetConfig": {"switch:0": {"name": "it"}},
        "Shelly.GetStatus": {"wifi": {"sta_ip": "10.0.0.4"}, "switch:0": {"output": True, "apower": 2.5}},
    },
    "home.json": {
        "states": [{"entity_id": "light.it", "state": "on", "attributes": {"supported_color_modes": ["hs"]}}]
    },
}


@pytest.mark.parametrize("name", [*SMALL, "map.csv"])
def test_a_file_cut_anywhere_is_refused_in_one_line_or_makes_a_site(name: str, tmp_path: Path) -> None:
    file, whole = tmp_path / name, (json.dumps(SMALL[name]) if name in SMALL else MAP).encode()
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        try:
            made = import_file(file)
            site_of(made, tmp_path)
        except UsageError as error:
            problem = str(error)
        else:
            problem = ""
        assert bool(problem) == (size < len(whole)) or name == "map.csv"
        assert not problem or str(file) in problem or "no device to import" in problem
        assert "\n" not in problem


def test_a_file_mistyped_anywhere_is_refused_with_its_place_or_makes_a_site(tmp_path: Path) -> None:
    rng = Random(2)
    home = json.loads((DATA / "home_assistant.json").read_text(encoding="utf-8"))
    sources = [*SMALL.values(), home, *(json.loads((DATA / "tasmota" / "shutter.json").read_text()),)]
    file, checked, problems = tmp_path / "it.json", 0, list[str]()
    for _ in range(400):
        file.write_text(
            json.dumps(spoiled(rng.choice(sources), rng)).replace("1000000000.0", "1e999"), encoding="utf-8"
        )
        try:
            made = import_file(file)
        except UsageError as error:
            problems.append(str(error))
            continue
        assert made.taken + sum(bool(one.reason) for one in made.features) == len(made.features)
        assert not any("\n" in line for line in (*made.left_out, *made.told))
        if made.devices and rng.random() < 0.2:
            checked += site_of(made, tmp_path).devices.keys() == made.devices.keys()
    assert checked > 20 and problems
    assert not [problem for problem in problems if str(file) not in problem or "\n" in problem]


def test_a_model_is_taken_whole_or_not(tmp_path: Path) -> None:
    """A light whose on and off are not known is no light, although its brightness is."""
    level = {"type": "numeric", "name": "brightness", "property": "brightness", "access": 7, "value_max": 254}
    state = {"type": "binary", "name": "state", "property": "state", "access": 7}
    entry = {
        "ieee_address": "0x1",
        "friendly_name": "it",
        "definition": {"exposes": [{"type": "light", "features": [state, level]}]},
    }
    made = import_zigbee2mqtt([entry], "127.0.0.1")
    assert made.devices == {} and made.taken == 0
    assert "brightness of it: its on is nowhere, without which a site cannot have it" in made.left_out


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, ZigbeePeer, Driver, Broker]]:
    """Devices played from their definitions over MQTT, and the broker of the site that was made of them."""
    chosen = [BY_NAME[name] for name in PLAYED]
    site = on_port(site_of(import_zigbee2mqtt(chosen, "127.0.0.1"), tmp_path_factory.mktemp("played")), free_port())
    peer, site = ZigbeePeer(site, chosen, 3), patient(site)
    peer.start()
    driver = open_driver(site)
    driver.read("kitchen_window")  # waits until it has reported
    yield site, peer, driver, Broker(site, driver, Journal(), confirm=lambda _: True)
    driver.close()
    peer.stop()


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_devices_are_read_as_their_definitions_say(played: tuple[Site, ZigbeePeer, Driver, Broker]) -> None:
    site, peer, driver, _ = played
    for name, device in site.devices.items():
        shown = driver.read(name)
        for key, schema in device.properties.items():
            place = device.at[key]
            feature, raw = peer.features[place["topic"]][place["key"]], peer.raw[place["topic"]][place["key"]]
            assert shown[key].value == expected(feature, raw, schema) and shown[key].quality == "good"


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_devices_take_what_is_sent(played: tuple[Site, ZigbeePeer, Driver, Broker]) -> None:
    site, peer, _, broker = played
    for name, device in site.devices.items():
        for action_name, action in device.actions.items():
            outcome = broker.execute(Command(name, action_name, arguments_for(action, Random(4))))
            assert outcome.status == "done", outcome.report
    assert peer.violations == []


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_lamp_that_is_off_keeps_its_brightness(played: tuple[Site, ZigbeePeer, Driver, Broker]) -> None:
    _, peer, _, broker = played
    lamp = peer.raw["living room floor lamp"]
    lamp["state"] = "OFF"
    assert broker.execute(Command("living_room_floor_lamp", "brightness", {"brightness": 50})).status == "done"
    assert lamp["brightness"] == 127 and isinstance(lamp["brightness"], int)
    off = broker.execute(Command("living_room_floor_lamp", "off", {}))
    assert (off.status, off.report) == ("done", "The living room floor lamp is off.") and lamp["brightness"] == 127
    assert broker.execute(Command("living_room_floor_lamp", "on", {})).status == "done"
    dark = broker.execute(Command("living_room_floor_lamp", "brightness", {"brightness": 0}))
    assert (dark.status, dark.report) == ("done", "The living room floor lamp is off.") and lamp["brightness"] == 254


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_color_is_sent_as_the_lamp_has_it(played: tuple[Site, ZigbeePeer, Driver, Broker]) -> None:
    _, peer, _, broker = played
    assert broker.execute(Command("bed_strip", "color", {"color": "blue"})).status == "done"
    assert peer.raw["bed strip"]["color"] == {"hue": 240, "saturation": 100}
    assert broker.execute(Command("living_room_floor_lamp", "color", {"color": "red"})).status == "done"
    assert peer.raw["living room floor lamp"]["color"] == {"x": 0.6401, "y": 0.33}


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_a_step_that_a_device_has_not_is_refused(played: tuple[Site, ZigbeePeer, Driver, Broker]) -> None:
    *_, broker = played
    outcome = broker.execute(Command("living_radiator", "set", {"target_c": 20.3}))
    assert outcome.status == "refused" and "20.3 is not in steps of 0.5" in outcome.report
    assert broker.execute(Command("living_radiator", "set", {"target_c": 20.5})).status == "done"


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_discover_makes_a_site_of_sixty_devices_that_answers(tmp_path: Path, zigbee: Site) -> None:
    """From a broker's retained list to a simulated peer that shows every property."""
    from paho.mqtt.publish import single

    from devices.drivers.mqtt.peer import MqttPeer
    from devices.drivers.registry import settings_of
    from devices.simulation.peer import RealTimeWorld

    site = on_port(zigbee, free_port())
    port = int(site.drivers["zigbee"]["port"])
    peer = MqttPeer(*settings_of(site, "zigbee"), RealTimeWorld(site))
    peer.start()
    out = tmp_path / "found.yaml"
    try:
        text = json.dumps(DEFINITIONS)
        single("zigbee2mqtt/bridge/devices", text, retain=True, hostname="127.0.0.1", port=port)
        assert main(["devices", "discover", "--mqtt", "127.0.0.1", "--port", str(port), "--out", str(out)]) == 0
        found = load_checked_site(out)
        driver = open_driver(patient(found))
        shown = [driver.read(name) for name in list(found.devices)[::6]]
        driver.close()
    finally:
        peer.stop()
    assert found.devices.keys() == zigbee.devices.keys()
    assert all(reading.quality == "good" for readings in shown for reading in readings.values())
    assert [len(one) for one in shown] == [len(found.devices[name].properties) for name in list(found.devices)[::6]]


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_things_are_read_and_called_with_their_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "things.json"
    file.write_text(local_things([free_port() for _ in THING_LIST]), encoding="utf-8")
    site = site_of(import_file(file), tmp_path)
    secrets = [one["auth"]["secret_env"] for one in site.drivers.values() if "auth" in one]
    assert len(secrets) == 4
    for name in secrets:
        monkeypatch.setenv(name, "open sesame")
    result = run_things(site, 1)
    assert result["problems"] == [] and result["actions"]["done"] == 32
    stage, driver = Stage(site), open_driver(site)
    broker = Broker(site, driver, Journal(), confirm=lambda _: False)
    try:
        assert broker.execute(Command("hall_lamp", "toggle", {})).status == "needs_confirmation"
        assert broker.execute(Command("hall_lamp", "fade", {"to": 30, "duration": 5})).status == "done"
        count = broker.execute(Command("parking_counter", "count", {}))
        assert (count.status, count.report) == ("done", "count is done, result 0.")
        monkeypatch.delenv(secrets[3])
        (silent,) = [name for name, device in site.devices.items() if device.driver == "http_8"]
        outcome = broker.execute(Command(silent, "running_on", {}))
        assert outcome.status == "failed" and "sesame" not in str(outcome)
    finally:
        driver.close()
        stage.close()


def test_a_thing_names_what_it_leaves_out() -> None:
    left = {f"{one.name}: {one.reason}" for one in import_things(THING_LIST).features if one.reason}
    for wanted in (
        "charge: it needs the security oauth2",
        "overheating: an event: it happens, and has no state to read",
        "at level: it takes variables in its address",
        "locked: no form over HTTP with JSON",
        "frame: free text",
    ):
        assert wanted in left


def test_a_things_actions_have_the_risk_that_it_declares(tmp_path: Path) -> None:
    devices = site_of(import_things(THING_LIST), tmp_path).devices
    lamp, counter, blind = (devices[name] for name in ("hall_lamp", "parking_counter", "blind_motor"))
    assert (lamp.actions["toggle"].risk, lamp.actions["fade"].risk) == ("confirm", "low")
    assert counter.actions["count"].risk == "none" and lamp.actions["fade"].input["duration"].maximum == 600
    assert blind.at["position"] == {"path": "/position", "set_path": "/position/set", "verb": "POST"}
    assert devices["coffee_machine"].actions["set_strength"].input["strength"].enum == ("mild", "normal", "strong")
    assert devices["hall_lamp"].properties["brightness"].step == 5


def test_a_sensor_that_sleeps_is_as_old_as_its_last_word(tmp_path: Path) -> None:
    """It is read without a question, and no interlock takes it for fresh once it is old."""
    from devices.broker.readings import Readings
    from devices.site.action import Requirement

    chosen = [BY_NAME["kitchen window"]]
    site = site_of(import_zigbee2mqtt(chosen, "127.0.0.1"), tmp_path)
    clock = [1000.0]
    driver = open_driver(site, lambda: clock[0])
    inner: Any = driver._driver_of["kitchen_window"]
    inner._client, inner._is_ready = object(), True  # nothing is published: it has no such method

    class Message:
        topic, payload, retain = "zigbee2mqtt/kitchen window", b'{"contact": false, "battery": 80}', False

    started = time.monotonic()
    assert driver.read("kitchen_window") == {} and time.monotonic() - started < 1
    inner._on_message(None, None, Message())
    readings = Readings(site, driver, lambda: clock[0], lambda _: None)
    needs_open = Requirement(property="kitchen_window.open", equals=True)
    assert readings.values("kitchen_window") == {"open": True, "battery": 80.0}
    assert readings.interlock_problem(needs_open, {}) == ""
    clock[0] += 3600
    assert readings.values("kitchen_window")["open"] is True
    assert "no fresh reading" in readings.interlock_problem(needs_open, {})
    inner._messages.clear()
    Message.retain = True
    inner._on_message(None, None, Message())
    clock[0] = 30.0
    assert readings.values("kitchen_window")["open"] is True
    assert "no fresh reading" in readings.interlock_problem(needs_open, {})

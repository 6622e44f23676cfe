"""What Home Assistant is told fits its schemas, and what it then sends is understood: every shipped site and model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from devices.errors import UsageError
from devices.simulation.world import World
from devices.site.schema import DataSchema
from devices.site.site import Site, load_models, load_site
from devices.site.tools import Command
from edge_agent.serving.mqtt.home_assistant_components import durations
from edge_agent.serving.mqtt.home_assistant_discovery import announced_filter, announcements
from edge_agent.serving.mqtt.requests import Topics, parse_command

PREFIX = "homeassistant"
SITES = ["home", "greenhouse", "bench_arm"]
# Of Home Assistant 2026.2, components/mqtt: what a schema requires, and which of its options may be used here.
EVERY = {"platform", "name", "unique_id", "availability", "availability_mode"}
READ = {"state_topic", "value_template"}
SWITCHED = {"command_topic", "qos", "state_topic", "payload_on", "payload_off"}
REQUIRED: dict[str, set[str]] = {
    "light": SWITCHED | {"state_value_template"},
    "switch": SWITCHED | {"value_template", "state_on", "state_off"},
    "lock": {"command_topic", "qos", "payload_lock", "payload_unlock", "state_locked", "state_unlocked"} | READ,
    "cover": {"command_topic", "qos", "payload_open", "payload_close", "payload_stop"},
    "climate": {"temperature_command_topic", "temperature_state_topic", "temperature_state_template", "modes", "qos"}
    | {"min_temp", "max_temp", "temp_step", "precision", "temperature_unit", "mode_state_topic", "mode_state_template"},
    "fan": SWITCHED | {"state_value_template"},
    "valve": {"command_topic", "qos", "payload_open", "payload_close", "state_open", "state_closed"}
    | READ
    | {"reports_position"},
    "number": {"command_topic", "qos", "min", "max", "step"} | READ,
    "select": {"command_topic", "qos", "options"} | READ,
    "button": {"command_topic", "qos", "payload_press"},
    "sensor": READ,
    "binary_sensor": READ | {"payload_on", "payload_off"},
    "text": {"command_topic", "qos", "max"},
}
PRESETS = {"preset_modes", "preset_mode_state_topic", "preset_mode_value_template", "preset_mode_command_topic"}
POSSIBLE: dict[str, set[str]] = {
    "light": {"brightness_scale", "on_command_type", "brightness_state_topic", "brightness_value_template"}
    | {"brightness_command_topic", "color_temp_state_topic", "color_temp_value_template", "color_temp_command_topic"}
    | {"min_mireds", "max_mireds", "min_kelvin", "max_kelvin", "color_temp_kelvin"},
    "cover": {"position_open", "position_closed", "position_topic", "position_template", "set_position_topic"}
    | READ
    | {"tilt_min", "tilt_max", "tilt_closed_value", "tilt_opened_value", "tilt_command_topic", "tilt_status_topic"}
    | {"tilt_status_template"},
    "climate": {"current_temperature_topic", "current_temperature_template", "mode_command_topic"} | PRESETS,
    "fan": {"speed_range_min", "speed_range_max", "percentage_state_topic", "percentage_value_template"}
    | {"percentage_command_topic"}
    | PRESETS,
    "sensor": {"state_class", "unit_of_measurement", "device_class", "options", "json_attributes_topic"},
    "binary_sensor": {"device_class", "entity_category", "json_attributes_topic"},
    "number": {"unit_of_measurement"},
}
UNITS = {  # devices classes of sensors, with the units that each takes
    "temperature": {"°C", "°F", "K"}, "humidity": {"%"}, "moisture": {"%"}, "battery": {"%"}, "power": {"W", "kW"},
    "energy": {"Wh", "kWh"}, "voltage": {"V"}, "current": {"A"}, "pressure": {"hPa"}, "illuminance": {"lx"},
    "carbon_dioxide": {"ppm"}, "pm25": {"µg/m³"}, "pm10": {"µg/m³"}, "volatile_organic_compounds_parts": {"ppb"},
    "sound_pressure": {"dB"}, "distance": {"mm", "m"}, "duration": {"s", "min", "h"}, "frequency": {"Hz"},
    "enum": {""},
}  # fmt: skip
TRUTHS = {"motion", "occupancy", "opening", "smoke", "moisture", "gas", "carbon_monoxide", "vibration", "tamper"}
TRUTHS |= {"battery", "moving", "running", "problem"}
PARTS = {"color", "color_temp"}  # which are of a lamp only
MIXED = {
    "many_colors": ["dimmable_light", "color_temp", "color", "power", "energy"],
    "heat_pump": ["thermostat", "mode", "preset", "fan_mode", "humidity"],
    "tower_fan": ["fan", "fan_switch", "fan_mode"],
    "slow_fan": ["fan_switch", "fan_mode"],
    "shutter": ["blinds", "tilt"],
    "gate": ["cover", "battery_low"],
    "socket": ["switch", "child_lock", "power"],
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a device of every model that there is, and of some that are joined."""
    models = {name: [name] for name in load_models() if name not in PARTS} | MIXED
    lines = ["schema: site/v1", "name: everything", "title: everything", "areas: {hall: {title: the hall}}", "devices:"]
    lines += [f"  a_{name}: {{model: {json.dumps(parts)}, area: hall}}" for name, parts in models.items()]
    path = tmp_path_factory.mktemp("site") / "everything.yaml"
    path.write_text("\n".join(lines) + "\n")
    return load_site(str(path))


@pytest.fixture(params=[*SITES, "everything"])
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "everything":
        return request.getfixturevalue("everything")  # type: ignore[no-any-return]
    return load_site(request.param)


def topics_of(site: Site) -> Topics:
    return Topics(f"edgewright/{site.name}")


def all_components(site: Site) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give each component with its device, "" for the box, and its id."""
    for topic, message in announcements(site, topics_of(site), PREFIX, "device", "home-tiny").items():
        device = topic.split("/")[3].removeprefix("device_") if "device_" in topic else ""
        for key, config in message["components"].items():
            yield device, key, config


def test_each_component_has_what_its_schema_wants_and_nothing_else(site: Site) -> None:
    topics, ids = topics_of(site), set[str]()
    for device, key, config in all_components(site):
        platform = config["platform"]
        given = set(config)
        assert not (EVERY | REQUIRED[platform]) - given, key
        assert not given - EVERY - REQUIRED[platform] - POSSIBLE.get(platform, set()), key
        assert config["unique_id"] not in ids and re.fullmatch(r"edgewright_\w+", config["unique_id"])
        ids.add(config["unique_id"])
        there = [topics.availability(), topics.availability(device)] if device else [topics.availability()]
        assert config["availability"] == [{"topic": one} for one in there] and config["availability_mode"] == "all"
        if platform == "sensor" and "device_class" in config:
            assert config.get("unit_of_measurement", "") in UNITS[config["device_class"]], key
            assert (config["device_class"] == "enum") == bool(config.get("options"))
        if platform == "binary_sensor":
            assert config.get("device_class") is None or config["device_class"] in TRUTHS
        if platform == "fan" and "speed_range_min" in config:
            assert 0 < config["speed_range_min"] < config["speed_range_max"]
        if platform == "cover" and "set_position_topic" in config:
            assert config["position_topic"]
        if platform == "climate":
            assert "none" not in config.get("preset_modes", ())
        for option in (one for one in config if one.endswith("_topic") and one != "json_attributes_topic"):
            assert config[option].startswith(f"{topics.base}/") and not set(config[option]) & set("+#")


def test_a_device_is_one_message_or_one_a_component(site: Site) -> None:
    topics = topics_of(site)
    whole = announcements(site, topics, PREFIX, "device", "home-tiny")
    single = announcements(site, topics, PREFIX, "component", "home-tiny")
    shown = [one.name for one in site.devices.values() if one.properties]
    assert len(whole) == 1 + len(shown) and not announcements(site, topics, PREFIX, "none", "home-tiny")
    first, *others = whole.values()
    assert first["device"]["identifiers"] == [f"edgewright_{site.name}"]
    for message in others:
        assert message.keys() == {"device", "origin", "components"} and message["origin"]["name"] == "Edgewright"
        assert message["device"]["via_device"] == f"edgewright_{site.name}" and message["device"]["identifiers"]
    assert len(single) == sum(len(message["components"]) for message in whole.values())
    matching = re.compile(announced_filter(site, PREFIX).replace("+", "[a-zA-Z0-9_-]+"))
    for topic, message in (whole | single).items():
        assert matching.fullmatch(topic) and len(json.dumps(message)) < 60_000
    for topic, config in single.items():
        assert config["device"] and config["origin"] and "platform" not in config
        assert topic.split("/")[1] in REQUIRED


def render(template: str, state: dict[str, Any]) -> str:
    sandbox = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)  # as Home Assistant's
    return sandbox.from_string(template).render(value_json=state, value=json.dumps(state))


def test_templates_show_every_state_and_say_none_of_what_is_not_known(site: Site) -> None:
    world = World(site)
    for device, key, config in all_components(site):
        if not device:
            continue
        for option in (one for one in config if one.endswith("_template")):
            shown = render(config[option], world.state[device])
            assert shown and shown != "None", (key, option)
            assert render(config[option], {}) in {"None", "heat"}, (key, option)
            if option == "state_value_template":
                assert shown in {config["payload_on"], config["payload_off"]}
        if config["platform"] == "switch":
            assert render(config["value_template"], world.state[device]) in {config["state_on"], config["state_off"]}
        if config["platform"] == "select":
            assert render(config["value_template"], world.state[device]) in config["options"]


def sent(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what Home Assistant publishes for a component, by its topics."""
    for option, payload in config.items():
        if option.startswith("payload_") and payload is not None and config["platform"] != "binary_sensor":
            yield config["command_topic"], payload
    numbers = {
        "brightness_command_topic": ("1", "100"),
        "set_position_topic": ("0", "40", "100"),
        "tilt_command_topic": ("0", "100"),
        "percentage_command_topic": (str(config.get("speed_range_min")), str(config.get("speed_range_max"))),
        "temperature_command_topic": (str(config.get("min_temp")), str(config.get("max_temp"))),
        "color_temp_command_topic": (str(config.get("min_mireds")), str(config.get("max_mireds"))),
        "mode_command_topic": tuple(config.get("modes", ())),
        "preset_mode_command_topic": tuple(config.get("preset_modes", ())),
    }
    for option, payloads in numbers.items():
        for payload in payloads if option in config else ():
            yield config[option], payload
    for payload in [config.get("min"), config.get("max"), *config.get("options", ())]:
        if config["platform"] in {"number", "select"} and payload is not None:
            yield config["command_topic"], str(payload)


def test_everything_that_home_assistant_sends_is_understood(site: Site) -> None:
    commanded = set[str]()
    for device, key, config in all_components(site):
        for topic, payload in sent(config) if device else ():
            path = topic.removeprefix(f"{topics_of(site).base}/command/").split("/")
            command, _ = parse_command(site, path, payload.encode())
            action = site.devices[device].actions[command.action]
            assert command.device == device and not action.input_problem(command.input), key
            assert config["platform"] != "button" or action.risk != "confirm"
            commanded.add(device)
    assert commanded


def test_what_each_kind_becomes_in_the_home() -> None:
    found = {(device, key): config for device, key, config in all_components(load_site("home"))}
    kinds = {device: {key for one, key in found if one == device} for device, _ in found}
    assert kinds["front_door"] == {"lock_lock"} and kinds["garage_door"] == {"cover_cover"}
    assert kinds["garden_sprinkler"] == {"valve_valve", *(f"button_water_{one}" for one in (1, 5, 10, 20))}
    assert kinds["well_pump"] == {"binary_sensor_running", "button_stop"} | {
        f"button_run_{seconds}" for seconds in (5, 20, 45, 120)
    }
    assert kinds[""] == {"last_action", "problem", "stop", "ask", "answer"}
    assert found["garden_sprinkler", "valve_valve"]["payload_open"] is None  # it opens for some minutes only
    assert found["kitchen_light", "light_light"]["brightness_scale"] == 100
    assert found["hall_thermostat", "climate_climate"]["min_temp"] == 10
    assert found["bathroom_fan", "fan_fan"]["speed_range_max"] == 3
    assert found["garden_soil", "sensor_moisture_pct"]["device_class"] == "moisture"


def test_an_arm_is_shown_and_can_be_stopped_but_not_moved() -> None:
    arm = {key: config for device, key, config in all_components(load_site("bench_arm")) if device == "arm"}
    assert {key for key in arm if not key.startswith(("sensor_", "binary_sensor_"))} == {"button_stop"}
    assert arm["sensor_x"]["unit_of_measurement"] == "mm" and arm["sensor_state"]["device_class"] == "enum"


def test_nothing_that_only_a_yes_allows_is_a_button(everything: Site) -> None:
    keys = {(device, key) for device, key, _ in all_components(everything)}
    assert ("a_button", "button_press") not in keys and ("a_scene", "button_activate") not in keys
    assert ("a_siren", "switch_on") not in keys  # of other kinds, what is safe only
    assert ("a_socket", "switch_child_lock") in keys and ("a_many_colors", "select_color") in keys


def test_a_device_without_an_area_suggests_none(everything: Site) -> None:
    messages = announcements(everything, topics_of(everything), PREFIX, "device", "m")
    assert messages[f"{PREFIX}/device/edgewright_everything/device_a_lock/config"]["device"]["suggested_area"]
    home = announcements(load_site("home"), Topics("edgewright/home"), PREFIX, "device", "m")
    assert not any("suggested_area" in message["device"] for message in home.values())


@pytest.mark.parametrize(
    ("low", "high", "levels", "expected"),
    [
        (1, 20, {}, [1, 5, 10, 20]),
        (5, 120, {}, [5, 20, 45, 120]),
        (3, 4, {}, [3, 4]),
        (0, 2, {}, [1, 2]),
        (1, 60, {"short": 5, "long": 40}, [5, 40]),
    ],
)
def test_durations(low: int, high: int, levels: dict[str, int], expected: list[int]) -> None:
    assert durations(DataSchema(type="integer", minimum=low, maximum=high, levels=levels)) == expected


@pytest.mark.parametrize(
    ("path", "payload", "expected"),
    [
        ("kitchen_light", "on", Command("kitchen_light", "on", {})),
        ("kitchen_light", '{"action": "brightness", "input": {"brightness": 7}}',
         Command("kitchen_light", "brightness", {"brightness": 7})),
        ("kitchen_light/brightness", "100", Command("kitchen_light", "brightness", {"brightness": 100})),
        ("kitchen_light/on", "OFF", Command("kitchen_light", "off", {})),
        ("kitchen_light/on", "PRESS", Command("kitchen_light", "on", {})),
        ("front_door/locked", "true", Command("front_door", "lock", {})),
        ("front_door/locked", "unlocked", Command("front_door", "unlock", {})),
        ("garage_door/position", "100", Command("garage_door", "open", {})),
        ("hall_thermostat/set", "21.0", Command("hall_thermostat", "set", {"target_c": 21})),
        ("hall_thermostat/target_c", "21", Command("hall_thermostat", "set", {"target_c": 21})),
        ("well_pump/run", ' {"seconds": 5.0} ', Command("well_pump", "run", {"seconds": 5})),
    ],
)  # fmt: skip
def test_a_command_is_understood(path: str, payload: str, expected: Command) -> None:
    assert parse_command(load_site("home"), path.split("/"), payload.encode()) == (expected, "")


@pytest.mark.parametrize(
    ("path", "payload", "problem"),
    [
        ("kitchen_lamp", b"on", "there is no device kitchen_lamp"),
        ("kitchen_light", b"", "no action"),
        ("kitchen_light", b"brightness", "brightness is missing"),
        ("kitchen_light", b'{"action": "on", "room": 1}', "is no key"),
        ("kitchen_light", b'{"action": "on", "input": 1}', "must be an object"),
        ("kitchen_light/brightness", b"101", "outside 0 to 100"),
        ("kitchen_light/brightness", b"true", "is not a number"),
        ("kitchen_light/brightness", b"1e400", "not JSON"),
        ("kitchen_light/brightness", b"9" * 400, "not JSON"),
        ("kitchen_light/brightness", b"40.5", "not a whole number"),
        ("kitchen_light/on", b"maybe", "is not ON or OFF"),
        ("kitchen_light/off", b"", "takes PRESS"),
        ("kitchen_light/warmth", b"1", "has no warmth"),
        ("well_pump/running", b"ON", "no action makes its running"),
        ("garage_door/position", b"50", "no action makes its position"),
        ("well_pump/run", b'{"seconds": 5, "minutes": 1}', "minutes is no argument"),
        ("well_pump/run", b"\xff", "not UTF-8"),
        ("well_pump/run", b" " * 5000, "at most 4096"),
    ],
)
def test_a_command_that_means_nothing_is_one_line(path: str, payload: bytes, problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        parse_command(load_site("home"), path.split("/"), payload)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_discovery_topics_are_such_as_home_assistant_takes(site: Site) -> None:
    for topic in announcements(site, topics_of(site), PREFIX, "component", "m"):
        assert re.fullmatch(r"homeassistant/\w+/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config", topic)

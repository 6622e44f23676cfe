"""What every driver does, each over its real protocol against a peer whose devices are a simulated world."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devices.broker import Broker
from devices.driver import DeviceUnavailable, Driver
from devices.drivers.peer import LiveWorld, Peer
from devices.drivers.registry import open_driver
from devices.errors import UsageError
from devices.journal import Journal
from devices.sim import make_peer
from devices.site import Site, Value, load_site
from devices.tools import Command
from tests.ports import free_port

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
CLOCK_S = 1000.0


@dataclass
class Rig:
    """A site's driver, its peer and the world behind it; what to read and write there."""

    site: Site
    world: LiveWorld
    peer: Peer
    open: Callable[[], Driver]
    written: tuple[str, dict[str, Value]]
    sensor: tuple[str, str]
    has_many_clients: bool


SITES = {
    "modbus": """
drivers: {it: {type: modbus, host: 127.0.0.1, port: PORT, timeout_s: 0.3}}
devices:
  lamp: {model: dimmable_light, driver: it, at: {"on": {coil: 17}, brightness: {holding: 3, words: float32, scale: 2}}}
  blinds: {model: blinds, driver: it, at: {position: {holding: 8, words: uint32, word_order: little}}}
  outlet: {model: switch, driver: it, at: {"on": {coil: 0}}}
  heating:
    model: thermostat
    driver: it
    at: {target_c: {holding: 0, scale: 0.1}, temperature_c: {input: 5, words: int16, scale: 0.1}}
  motion: {model: motion_sensor, driver: it, at: {motion: {discrete: 2}}}
""",
    "modbus, serial": """
drivers: {it: {type: modbus, serial: FOLDER/line, baud: 115200, timeout_s: 0.3}}
devices:
  lamp: {model: dimmable_light, driver: it, at: {"on": {coil: 17}, brightness: {holding: 3, words: float32, scale: 2}}}
  blinds: {model: blinds, driver: it, at: {position: {holding: 8, words: uint32, word_order: little}}}
  heating:
    model: thermostat
    driver: it
    at: {target_c: {holding: 0, scale: 0.1}, temperature_c: {input: 5, words: int16, scale: 0.1}}
""",
    "http, Shelly RPC": """
drivers: {it: {type: http, url: "http://127.0.0.1:PORT", timeout_s: 0.3}}
devices:
  lamp:
    model: dimmable_light
    driver: it
    at:
      "on": {rpc: Light, key: output, set_key: "on"}
      brightness: {rpc: Light, id: 1, key: brightness, set_key: brightness}
  blinds:
    {model: blinds, driver: it, at: {position: {rpc: Cover, key: current_pos, set_method: GoToPosition, set_key: pos}}}
  outlet: {model: switch, driver: it, at: {"on": {rpc: Switch, id: 1, key: output, set_key: "on"}}}
  heating:
    model: thermostat
    driver: it
    at:
      target_c: {path: /heating, key: set.point, set_path: /heating, set_key: target}
      temperature_c: {rpc: Temperature, id: 100, key: tC}
  motion: {model: motion_sensor, driver: it, at: {motion: {rpc: Input, id: 2, key: state}}}
""",
    "http, plain JSON": """
drivers: {it: {type: http, url: "http://127.0.0.1:PORT", timeout_s: 0.3}}
devices:
  lamp:
    model: dimmable_light
    driver: it
    at:
      "on": {path: /lamp, key: state.power, words: ["OFF", "ON"], set_path: /lamp/set, set_key: power}
      brightness: {path: /lamp, key: state.level, scale: 100, set_path: /lamp/set, set_key: level}
  heating:
    model: thermostat
    driver: it
    at:
      target_c: {path: /heating, key: target, set_path: /heating, set_key: target}
      temperature_c: {path: /heating, key: is, scale: 0.01, offset: -273.15}
  motion: {model: motion_sensor, driver: it, at: {motion: {path: /motion, key: seen, words: ["no", "yes"]}}}
""",
    "gcode": """
drivers: {it: {type: gcode, serial: FOLDER/board, timeout_s: 0.3}}
devices:
  lamp: {model: light, driver: it, at: {"on": {coolant: flood}}}
  arm:
    model: robot_arm
    driver: it
    initial: {x: 10, y: -20.5, z: 30, state: idle}
    at:
      {x: {axis: x}, y: {axis: y}, z: {axis: z}, gripping: {spindle: 9}, moving: {moving: true}, state: {state: true}}
  curtain: {model: light_curtain, driver: it, at: {clear: {input: P, is_inverted: true}}}
""",
    "gpio": """
drivers: {it: {type: gpio, factory: mock, chip: PORT}}
devices:
  lamp: {model: dimmable_light, driver: it, at: {"on": {output: 17, feedback: 27, active: low}, brightness: {pwm: 18}}}
  outlet: {model: switch, driver: it, at: {"on": {output: 5}}}
  motion: {model: motion_sensor, driver: it, at: {motion: {input: 4, pull: up}}}
""",
    "i2c": """
drivers: {it: {type: i2c, bus: PORT-bus}}
devices:
  heating:
    model: soil_sensor
    driver: it
    at:
      temperature_c: {chip: sht3x, address: 0x44}
      moisture_pct: {chip: ads1115, address: 0x48, channel: 2, scale: 40, offset: -20}
  climate:
    model: soil_sensor
    driver: it
    at:
      temperature_c: {chip: registers, address: 0x49, register: 3, scale: 0.0625, word_order: little}
      moisture_pct: {chip: sht3x, address: 0x45, quantity: humidity}
  tank: {model: level_sensor, driver: it, at: {level_pct: {chip: bh1750, address: 0x23, scale: 0.1}}}
""",
    "command": """
drivers: {it: {type: command, allow: [FOLDER/relay, FOLDER/sensors], timeout_s: 0.5}}
devices:
  lamp:
    model: dimmable_light
    driver: it
    at:
      "on": {read: [FOLDER/relay, show], write: [FOLDER/relay, set, "on", "{value}"], key: power, words: ["off", "on"]}
      brightness: {read: [FOLDER/relay, show], write: [FOLDER/relay, set, level, "{value}"], key: level, scale: 0.5}
  heating:
    model: thermostat
    driver: it
    at:
      target_c: {read: [FOLDER/sensors, target], write: [FOLDER/sensors, target, "{value}"]}
      temperature_c: {read: [FOLDER/sensors, now], scale: 0.01, offset: -273.15}
  motion: {model: motion_sensor, driver: it, at: {motion: {read: [FOLDER/sensors, motion], words: ["no", "yes"]}}}
""",
    "mqtt, zigbee2mqtt": """
drivers: {it: {type: mqtt, host: 127.0.0.1, port: PORT, profile: zigbee2mqtt, timeout_s: 0.4}}
devices:
  lamp:
    model: dimmable_light
    driver: it
    at: {"on": {topic: lamp, key: state}, brightness: {topic: lamp, key: brightness, scale: 0.5}}
  blinds: {model: blinds, driver: it, at: {position: {topic: blinds, key: position}}}
  heating:
    model: thermostat
    driver: it
    at:
      target_c: {topic: heating, key: occupied_heating_setpoint}
      temperature_c: {topic: heating, key: local_temperature}
  motion: {model: motion_sensor, driver: it, at: {motion: {topic: hall/motion, key: occupancy, words: ["no", "yes"]}}}
""",
    "mqtt, Tasmota": """
drivers: {it: {type: mqtt, host: 127.0.0.1, port: PORT, profile: tasmota, timeout_s: 0.4}}
devices:
  lamp:
    model: dimmable_light
    driver: it
    at: {"on": {topic: lamp, key: POWER}, brightness: {topic: lamp, key: Dimmer}}
  outlet: {model: switch, driver: it, at: {"on": {topic: outlet, key: POWER2}}}
  heating:
    model: thermostat
    driver: it
    at:
      target_c: {topic: heating, key: TempTargetSet}
      temperature_c: {topic: heating, key: DS18B20.Temperature, is_sensor: true}
""",
    "mqtt, plain": """
drivers: {it: {type: mqtt, host: 127.0.0.1, port: PORT, profile: plain, timeout_s: 0.4}}
devices:
  lamp:
    model: dimmable_light
    driver: it
    at:
      "on": {topic: lamp/state, key: is_on, set_topic: lamp/set, set_key: is_on, get_topic: lamp/get}
      brightness: {topic: lamp/state, key: level, set_topic: lamp/set, set_key: level, get_topic: lamp/get}
  heating:
    model: thermostat
    driver: it
    at:
      target_c: {topic: heating/target, key: c, set_topic: heating/target/set, get_topic: heating/target/get}
      temperature_c: {topic: heating/now, key: c, get_topic: heating/now/get}
""",
}

# What a protocol has not: sensors are not written; a pin's answer is never late or noise; pins, a bus and a serial line
# have no server that two clients could share; behind one board everything is silent at once.
LACKS = {
    "gcode": {"clients", "silence of one"},
    "gpio": {"lateness", "noise", "numbers", "clients"},
    "i2c": {"writing", "lateness"},
    "modbus, serial": {"clients"},
}
SENSORS = {"gcode": ("arm", "x"), "gpio": ("motion", "motion")}


def with_(*needs: str) -> pytest.MarkDecorator:
    """Run a test over the rigs that have all of something."""
    return pytest.mark.parametrize(
        "rig", [name for name in SITES if not LACKS.get(name, set()) & set(needs)], indirect=True
    )


def make_rig(name: str, folder: Path) -> Rig:
    """Return the rig of one of SITES; its peer does not listen yet."""
    file = folder / "site.yaml"
    text = f"schema: site/v1\nname: rig\ntitle: a rig{SITES[name]}".replace("PORT", str(free_port()))
    file.write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    site = load_site(file)
    world = LiveWorld(site)
    return Rig(
        site,
        world,
        make_peer(site, "it", world),
        lambda: open_driver(site, lambda: CLOCK_S),
        ("lamp", {"on": True} if name == "gcode" else {"on": True, "brightness": 40}),
        SENSORS.get(name, ("heating", "temperature_c")),
        "clients" not in LACKS.get(name, ()),
    )


@pytest.fixture(params=SITES)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = make_rig(request.param, tmp_path)
    made.peer.start()
    yield made
    made.peer.stop()


@pytest.fixture
def driver(rig: Rig) -> Iterator[Driver]:
    opened = rig.open()
    yield opened
    opened.close()


def values(driver: Driver, device: str) -> dict[str, Value]:
    return {name: reading.value for name, reading in driver.read(device).items()}


def test_every_property_of_every_device_is_read_as_it_is(rig: Rig, driver: Driver) -> None:
    for name, device in rig.site.devices.items():
        readings = driver.read(name)
        assert readings.keys() == device.properties.keys()
        for key, reading in readings.items():
            shown = rig.world.read(name)
            assert shown is not None and reading.quality == "good" and reading.time_s == CLOCK_S
            assert type(reading.value) is type(shown[key]) or isinstance(shown[key], int | float)
            assert reading.value == pytest.approx(shown[key], abs=0.06), (name, key)


@with_("writing")
def test_what_is_written_is_read_back(rig: Rig, driver: Driver) -> None:
    device, wanted = rig.written
    assert values(driver, device) != wanted
    driver.write(device, wanted)
    assert values(driver, device) == wanted
    shown = rig.world.read(device)
    assert shown == wanted


@with_("numbers")
def test_a_value_outside_the_schema_is_bad(rig: Rig, driver: Driver) -> None:
    device, key = rig.sensor
    rig.world.freeze(device)
    rig.world.faults.frozen[device][key] = 990.0
    assert driver.read(device)[key].quality == "bad"


@with_("silence of one")
def test_a_device_that_does_not_answer_is_unavailable_and_the_others_go_on(rig: Rig, driver: Driver) -> None:
    (device, wanted), other = rig.written, rig.sensor[0]
    if device not in rig.site.devices:
        device, other = other, next(name for name in rig.site.devices if name != other)
    with rig.world.now() as world:
        world.broken.add(device)
    with pytest.raises(DeviceUnavailable, match=device):
        driver.read(device)
    with pytest.raises(DeviceUnavailable, match=device):
        driver.write(device, wanted)
    assert driver.read(other)


def test_a_lost_link_is_unavailable_and_comes_back(rig: Rig, driver: Driver) -> None:
    device = rig.sensor[0]
    assert driver.read(device)
    rig.peer.stop()
    with pytest.raises(DeviceUnavailable, match=device):
        driver.read(device)
    rig.peer.start()
    deadline = time.monotonic() + 5
    while True:
        try:
            assert driver.read(device)
            break
        except DeviceUnavailable:
            assert time.monotonic() < deadline


def test_a_peer_that_is_not_there_is_unavailable(rig: Rig, driver: Driver) -> None:
    rig.peer.stop()
    with pytest.raises(DeviceUnavailable):
        driver.read(rig.sensor[0])


@with_("lateness")
def test_an_answer_that_comes_too_late_is_unavailable_and_never_taken_for_the_next(rig: Rig, driver: Driver) -> None:
    device, key = rig.sensor
    rig.world.faults.delay_s = 0.7
    started_s = time.monotonic()
    with pytest.raises(DeviceUnavailable, match=device):
        driver.read(device)
    assert time.monotonic() - started_s < 2
    rig.world.faults.delay_s = 0.0
    with rig.world.now() as world:
        world.state[device][key] = 11.0
    time.sleep(0.6)
    assert values(driver, device)[key] == pytest.approx(11.0, abs=0.06)


@with_("noise")
def test_garbage_is_never_good_and_does_no_lasting_harm(rig: Rig, driver: Driver) -> None:
    device = rig.sensor[0]
    rig.world.faults.garbled = True
    try:
        qualities = {reading.quality for reading in driver.read(device).values()}
    except DeviceUnavailable:
        qualities = set()
    assert "good" not in qualities
    rig.world.faults.garbled = False
    assert driver.read(device)[rig.sensor[1]].quality == "good"


def test_two_clients_and_two_threads_do_not_mix_answers(rig: Rig, driver: Driver) -> None:
    other = rig.open() if rig.has_many_clients else driver
    problems: list[str] = []

    def work(mine: Driver, device: str) -> None:
        expected = {name: reading.quality for name, reading in mine.read(device).items()}
        for _ in range(20):
            got = {name: reading.quality for name, reading in mine.read(device).items()}
            if got != expected:
                problems.append(f"{device}: {got}")

    names = list(rig.site.devices)
    pairs = [(driver, names[0]), (driver, names[-1]), (other, names[1]), (other, names[-1])]
    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert not problems


def test_close_lets_go_and_may_be_called_twice(rig: Rig) -> None:
    opened = rig.open()
    opened.read(rig.sensor[0])
    opened.close()
    opened.close()


@with_("writing")
def test_the_broker_works_the_site_through_it(rig: Rig, driver: Driver) -> None:
    broker = Broker(rig.site, driver, Journal(), clock=lambda: CLOCK_S)
    device, wanted = rig.written
    on = Command(device, "brightness", {"brightness": 40}) if "brightness" in wanted else Command(device, "on", {})
    outcome = broker.execute(on)
    assert outcome.status == "done" and rig.world.read(device) == wanted
    with rig.world.now() as world:
        world.stuck.add(device)
    assert broker.execute(Command(device, "off", {})).status == "failed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drivers": {"plc": {"type": "modbux", "host": "x"}}}, "no driver is of the type 'modbux'"),
        ({"drivers": {"plc": {"type": "modbus"}}}, "either host"),
        ({"drivers": {"plc": {"type": "modbus", "host": "x", "prt": 1}}}, "drivers.plc"),
    ],
)
def test_wrong_settings_are_found_without_a_device(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_driver(load_site("greenhouse").model_copy(update=change))


def test_a_site_without_drivers_cannot_be_opened() -> None:
    with pytest.raises(UsageError, match="has no driver in the site home"):
        open_driver(load_site("home"))

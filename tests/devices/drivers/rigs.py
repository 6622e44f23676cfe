"""A small site for every driver and way of using it, with a peer of its protocol before a simulated world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from devices.driver import Driver
from devices.drivers.registry import open_driver
from devices.simulated_peers import make_peer
from devices.simulation.peer import Peer, RealTimeWorld
from devices.site.schema import Value
from devices.site.site import Site, load_site
from tests.ports import free_port

CLOCK_S = 1000.0


@dataclass
class Rig:
    """A site's driver, its peer and the world behind it; what to read and write there."""

    site: Site
    world: RealTimeWorld
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
    "modbus, a gateway": """
drivers: {it: {type: modbus, host: 127.0.0.1, port: PORT, unit: 255, timeout_s: 0.3}}
devices:
  lamp:
    model: dimmable_light
    driver: it
    at:
      "on": {unit: 2, holding: 7, bit: 9}
      brightness: {unit: 2, holding: 7, bit: 1, bits: 7, write_function: 22}
  blinds:
    {model: blinds, driver: it, at: {position: {unit: 2, holding: 8, words: int64, word_order: BADC, scale: 0.001}}}
  outlet: {model: switch, driver: it, at: {"on": {unit: 2, holding: 5, word_order: DCBA, bit: 15}}}
  heating:
    model: thermostat
    driver: it
    at:
      target_c: {unit: 3, holding: 8, words: float32, word_order: DCBA}
      temperature_c: {unit: 3, holding: 10, words: float64, word_order: CDAB, scale: 1.8, offset: 32}
  motion: {model: motion_sensor, driver: it, at: {motion: {unit: 3, input: 0, words: uint32, bit: 31}}}
  boiler:
    kind: boiler
    properties: {mode: {type: string, enum: [eco, heating]}, stage: {type: integer, minimum: 0, maximum: 15}}
    at:
      mode: {holding: 40000, words: string, registers: 4, word_order: BADC}
      stage: {holding: 40006, bit: 4, bits: 4, words: uint64, word_order: CDAB}
    driver: it
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
      target_c: {path: /heating/target, set_path: /heating/target, verb: PUT}
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
drivers: {it: {type: gpio, factory: FOLDER/pins}}
devices:
  lamp: {model: dimmable_light, driver: it, at: {"on": {output: 17, feedback: 27, active: low}, brightness: {pwm: 18}}}
  outlet: {model: switch, driver: it, at: {"on": {output: 5}}}
  motion: {model: motion_sensor, driver: it, at: {motion: {input: 4, pull: up}}}
""",
    "i2c": """
drivers: {it: {type: i2c, bus: FOLDER/bus}}
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
    "sql": """
drivers: {it: {type: sql, file: FOLDER/known.sqlite, timeout_s: 0.5}}
devices:
  heating:
    model: soil_sensor
    driver: it
    at:
      temperature_c: {query: SELECT value FROM state WHERE device = 'heating' AND name = 'temperature_c'}
      moisture_pct: {query: SELECT value FROM state WHERE device = 'heating' AND name = 'moisture_pct'}
  motion: {model: motion_sensor, driver: it, at: {motion: {query: SELECT value FROM state WHERE name = 'motion'}}}
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
# have no server that two clients could share; behind one board everything is silent at once;
# a database file is as it was made.
LACKS = {
    "gcode": {"clients", "silence of one"},
    "gpio": {"lateness", "noise", "numbers", "clients"},
    "i2c": {"writing", "lateness"},
    "modbus, serial": {"clients"},
    "sql": {"writing", "lateness", "numbers", "noise", "silence of one"},
}
SENSORS = {"gcode": ("arm", "x"), "gpio": ("motion", "motion")}


def make_rig(name: str, folder: Path) -> Rig:
    """Return the rig of one of SITES; its peer does not listen yet."""
    file = folder / "site.yaml"
    text = f"schema: site/v1\nname: rig\ntitle: a rig{SITES[name]}".replace("PORT", str(free_port()))
    file.write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
    site = load_site(file)
    world = RealTimeWorld(site)
    return Rig(
        site,
        world,
        make_peer(site, "it", world),
        lambda: open_driver(site, lambda: CLOCK_S),
        ("lamp", {"on": True} if name == "gcode" else {"on": True, "brightness": 40}),
        SENSORS.get(name, ("heating", "temperature_c")),
        "clients" not in LACKS.get(name, ()),
    )


def spread(world: RealTimeWorld, site: Site) -> None:
    """Give every number of a site a value of its own and every other switch a "true", so that a mix-up is seen."""
    used, switches = set[int](), count()
    with world.now() as now:
        for name, device in site.devices.items():
            for key, schema in device.properties.items():
                if schema.type == "boolean" and key != "moving":  # an arm that is idle does not move
                    now.state[name][key] = next(switches) % 2 == 1
                elif schema.minimum is not None and schema.maximum is not None:
                    number = round(schema.minimum + (0.15 + 0.07 * len(used)) * (schema.maximum - schema.minimum))
                    while number in used:
                        number += 1
                    used.add(number)
                    now.state[name][key] = number


def site_of(folder: Path, driver: str, devices: str) -> Site:
    """Return a site of some devices, as its file has them, behind a driver that is called `it`."""
    file = folder / "own.yaml"
    text = f"schema: site/v1\nname: own\ntitle: own\ndrivers: {{it: {driver}}}\ndevices:\n{devices}"
    file.write_text(text, encoding="utf-8")
    return load_site(file)


@contextmanager
def mqtt_broker(folder: Path) -> Iterator[int]:
    """Give the port of a real broker; what else is on it plays no part."""
    rig = make_rig("mqtt, zigbee2mqtt", folder)
    peer = make_peer(rig.site, "it", RealTimeWorld(rig.site))
    peer.start()
    try:
        yield int(rig.site.drivers["it"]["port"])
    finally:
        peer.stop()

"""Tasmota, Shelly, Home Assistant and Homie for benchmarks/imports.py: imported, read and told over their protocols.

Each is played from its own answers or definition, not from the site that the import wrote: a wrong address, word, scale
or form is refused there or reads as something else. What must be on the account is counted here from the source itself.
"""

from __future__ import annotations

import colorsys
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.imports import act_on_all, site_and_account
from devices.drivers.mqtt.driver import MqttSettings
from devices.drivers.mqtt.peer import MqttPeer
from devices.drivers.registry import open_driver
from devices.exchange.discovery import broker_topics
from devices.exchange.home_assistant_api import fetch_home
from devices.exchange.imports.home_assistant import import_home_assistant
from devices.exchange.imports.shelly import import_shelly
from devices.exchange.imports.tasmota import import_tasmota
from devices.exchange.imports.topics import import_topics
from devices.simulation.peer import RealTimeWorld
from devices.site.schema import DataSchema, Value
from devices.site.site import Site, load_site
from tests.devices.drivers.home_assistant_server import HomeAssistantServer
from tests.devices.drivers.homie_device import HomieDevice
from tests.devices.drivers.shelly_device import ShellyDevice
from tests.devices.drivers.tasmota_device import TasmotaDevice

ANSWERS = Path(__file__).parents[1] / "tests" / "devices" / "data"
HOMIE = Path(__file__).parent / "imports_homie.json"
TOKEN, PASSWORD = "a.long.token", "open sesame"
KNOWN = set(  # components of a Shelly of which every value is on the account
    "switch light cct rgb rgbw cover input temperature humidity illuminance smoke flood devicepower voltmeter"
    " pm1 em em1".split()
)


class BareBroker(MqttPeer):
    """An MQTT broker with nothing on it."""

    def __init__(self, port: int) -> None:
        settings = MqttSettings(type="mqtt", host="127.0.0.1", port=port, profile="plain")
        super().__init__(settings, {}, RealTimeWorld(load_site("home")))

    def _topics(self) -> set[str]:
        return {"nothing"}


@contextmanager
def broker_on(port: int) -> Iterator[None]:
    """Run a bare broker."""
    broker = BareBroker(port)
    broker.start()
    try:
        yield
    finally:
        broker.stop()


def answers(folder: str) -> list[dict[str, Any]]:
    """Return the answers of a maker's devices."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted((ANSWERS / folder).glob("*.json"))]


def places(body: Any, path: tuple[str, ...] = (), *, in_lists: bool = True) -> Iterator[str]:
    """Yield where the values of JSON are; what is empty is one."""
    if body and isinstance(body, dict | list if in_lists else dict):
        for key, value in body.items() if isinstance(body, dict) else enumerate(body):
            yield from places(value, (*path, str(key)), in_lists=in_lists)
    else:
        yield ".".join(path)


def lost(account: dict[str, Any], wanted: Counter[str], features: list[Any]) -> None:
    """Put on the result how many features of the source are not on the import's account."""
    account["lost"] = (wanted - Counter(feature.name for feature in features)).total()


def color(red: float, green: float, blue: float) -> str:
    """Return the name of a full color by its hue alone."""
    hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    return hue_name(hue * 360, saturation * 100)


def hue_name(hue: float, saturation: float) -> str:
    """Return the name of a color: its hue's, or white where it is pale."""
    names = {0: "red", 30: "orange", 55: "yellow", 120: "green", 180: "cyan", 240: "blue", 275: "purple", 320: "pink"}
    return "white" if saturation < 30 else names[min(names, key=lambda one: min(abs(hue - one), 360 - abs(hue - one)))]


def inside(body: Any, key: str) -> Any:
    """Return what is at a key of levels with dots."""
    for part in key.replace("\\.", "\0").split(".") if key else []:
        body = body[int(part)] if isinstance(body, list) else body[part.replace("\0", ".")]
    return body


def read_and_act(
    site: Site, wanted: Callable[[dict[str, Any], DataSchema], Value], seed: int
) -> dict[str, Any]:  # fmt: skip
    """Read every property and carry out every action; return what worked, and what did not."""
    driver, problems, reads = open_driver(site), list[str](), 0
    try:
        for name, device in site.devices.items():
            shown = driver.read(name)
            for key, schema in device.properties.items():
                reads += 1
                value = wanted({"driver": device.driver, **device.at[key]}, schema)
                is_right = key in shown and shown[key].quality == "good"
                if not is_right or not _is_same(shown[key].value, value):
                    problems.append(f"{name}.{key} reads {shown.get(key)}, and is {value!r}")
        acts = act_on_all(site, driver, Random(seed), problems)
    finally:
        driver.close()
    return {"read": reads, "actions": dict(acts), "problems": problems}


def _is_same(one: Value, other: Value) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return not isinstance(other, str) and math.isclose(one, other, rel_tol=1e-6)  # type: ignore[arg-type]
    return one == other


def run_tasmota(port: int, folder: Path, seed: int) -> dict[str, Any]:
    """Import, read and tell the Tasmota devices."""
    bodies = answers("tasmota")
    made = import_tasmota(bodies)
    for driver in made.drivers.values():
        driver |= {"host": "127.0.0.1", "port": port}
    site, account = site_and_account(made, folder / "tasmota.yaml")
    names = Counter[str]()
    for body in bodies:
        names.update(body.keys() - {"StatusSTS", "StatusSNS"})
        names.update([*places(body["StatusSTS"]), *(f"StatusSNS.{one}" for one in places(body.get("StatusSNS", {})))])
    lost(account, names, made.features)
    with broker_on(port), ExitStack() as stack:
        devices = {body["Status"]["Topic"]: TasmotaDevice(body, port) for body in bodies}
        for device in devices.values():
            stack.callback(device.close)

        def wanted(place: dict[str, Any], schema: DataSchema) -> Value:
            device = devices[place["topic"]]
            is_sensor = place.get("is_sensor") or place["key"].startswith("Shutter")
            raw = inside(device.sensors if is_sensor else device.state, place["key"])
            if schema.type == "string":
                return hue_name(*(float(part) for part in raw.split(",")[:2]))
            return raw == "ON" if schema.type == "boolean" else raw

        return account | read_and_act(site, wanted, seed)


def run_shelly(folder: Path, seed: int) -> dict[str, Any]:
    """Import, read and tell the Shelly devices."""
    bodies = answers("shelly")
    made = import_shelly(bodies)
    os.environ["SHELLY_PASSWORD"] = PASSWORD
    names = Counter[str]()
    for body in bodies:
        status = body["Shelly.GetStatus"]
        names.update(body["Shelly.GetConfig"].keys() - status.keys())
        for key, part in status.items():
            is_known = key.split(":")[0] in KNOWN and ":" in key
            names.update([f"{key}.{one}" for one in places(part, in_lists=False)] if is_known else [key])
    with ExitStack() as stack:
        urls, devices = {}, {}
        for body in bodies:
            has_password = body["Shelly.GetDeviceInfo"]["auth_en"]
            device = ShellyDevice(body, PASSWORD if has_password else "")
            stack.callback(device.close)
            status = body["Shelly.GetStatus"]
            address = status.get("wifi", {}).get("sta_ip") or status["eth"]["ip"]
            urls[f"http://{address}"] = device.url
            devices[device.url] = device
        for driver in made.drivers.values():
            driver["url"] = urls[driver["url"]]
        site, account = site_and_account(made, folder / "shelly.yaml")
        lost(account, names, made.features)

        def wanted(place: dict[str, Any], schema: DataSchema) -> Value:
            status = devices[site.drivers[place["driver"]]["url"]].status
            raw = inside(status[f"{place['rpc'].lower()}:{place.get('id', 0)}"], place["key"])
            if schema.type == "string":
                return color(*raw)
            return raw / 1000 if place["key"].endswith("energy.total") else raw

        return account | read_and_act(site, wanted, seed)


def run_home_assistant(folder: Path, seed: int) -> dict[str, Any]:
    """Fetch a home by its URL; import, read and tell it."""
    os.environ["HASS_TOKEN"] = TOKEN
    home = HomeAssistantServer(json.loads((ANSWERS / "home_assistant.json").read_text(encoding="utf-8")), TOKEN)
    try:
        made = import_home_assistant([fetch_home(home.url)], home.url)
        site, account = site_and_account(made, folder / "home_assistant.yaml")
        areas = Counter(f"area {row['name']}" for row in home.body["areas"])
        lost(account, Counter(home.states.keys()) + areas, made.features)

        def wanted(place: dict[str, Any], schema: DataSchema) -> Value:
            raw = inside(home.states[place["path"].removeprefix("/api/states/")], place["key"])
            if schema.type == "boolean":
                return raw in {"on", "locked"}
            if schema.type == "string":
                return str(raw)
            if place["key"] == "attributes.brightness":
                return round((raw or 0) / 255 * 100)
            return float(raw or 0) if schema.type == "number" else int(raw or 0)

        return account | read_and_act(site, wanted, seed) | {"violations": home.refused_services}
    finally:
        home.close()


def run_homie(port: int, folder: Path, seed: int) -> dict[str, Any]:
    """Discover the Homie devices on a broker; import, read and tell them."""
    definitions = json.loads(HOMIE.read_text(encoding="utf-8"))
    with broker_on(port), ExitStack() as stack:
        devices = [HomieDevice(definition, port) for definition in definitions]
        for device in devices:
            stack.callback(device.close)
        made = import_topics(broker_topics("127.0.0.1", port), "127.0.0.1", "the broker", port)
        site, account = site_and_account(made, folder / "homie.yaml")
        declared = {
            f"{device.base}/{node}/{key}": one
            for device in devices
            for node, part in device.definition["nodes"].items()
            for key, one in part["properties"].items()
        }
        lost(account, Counter("/".join(topic.split("/")[-2:]) for topic in declared), made.features)

        def wanted(place: dict[str, Any], schema: DataSchema) -> Value:
            raw = next(device.values[place["topic"]] for device in devices if place["topic"] in device.values)
            if schema.type == "boolean":
                return bool(raw == "true")
            if declared[place["topic"]]["datatype"] == "color":
                space, *parts = raw.split(",") if "hsv" in raw else ["rgb", *raw.split(",")]
                first, second, third = map(float, parts)
                return hue_name(first, second) if space == "hsv" else color(first, second, third)
            if schema.type == "string":
                return str(raw)
            if "brightness" in place["topic"]:
                return round(float(raw) / float(declared[place["topic"]]["format"].split(":")[1]) * 100)
            return float(raw)

        result = account | read_and_act(site, wanted, seed)
        return result | {"violations": [one for device in devices for one in device.violations]}

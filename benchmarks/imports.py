"""How much of what devices can do an import takes, and whether it works: over 100 devices of six sources.

    python benchmarks/imports.py --out benchmarks/results/imports.json

The definitions (imports_zigbee2mqtt.json, imports_things.json beside this file) were written for this project in the
forms that zigbee2mqtt and W3C document. Each is imported; every feature must be taken or named with a reason. Then each
property is read and each action carried out, by the broker, over MQTT and HTTP.

The Zigbee devices are played from their definitions, not from the site that the import wrote, so that a wrong import
fails: each holds raw values, answers a question only where its `access` says so, takes only what its definition allows,
and keeps its brightness while it is off. So are Tasmota, Shelly, Home Assistant and Homie (imports_peers.py), whose
answers are in tests/devices/data and imports_homie.json. The Things are simulated peers of the site.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.runs import save
from devices.broker.broker import Broker
from devices.broker.journal import Journal
from devices.driver import Driver
from devices.drivers.mqtt.peer import MqttPeer
from devices.drivers.registry import load_checked_site, open_driver, settings_of
from devices.exchange.imports.files import import_file
from devices.exchange.imports.imported import Imported
from devices.simulated_peers import Stage
from devices.simulation.peer import RealTimeWorld
from devices.site.action import Action
from devices.site.schema import DataSchema, Value
from devices.site.site import Site
from devices.site.tools import Command
from edge_agent.engine.machine import this_machine

FOLDER = Path(__file__).parent
ZIGBEE, THINGS = FOLDER / "imports_zigbee2mqtt.json", FOLDER / "imports_things.json"
STATE, SET, GET = 1, 2, 4
SECRET = "open sesame"
SETTLE_S = 0.5  # in which every sleeping device has reported


class ZigbeePeer(MqttPeer):
    """An MQTT broker with zigbee2mqtt's devices on it, played from their definitions."""

    def __init__(self, site: Site, definitions: list[dict[str, Any]], seed: int) -> None:
        settings, _ = settings_of(site, "zigbee")
        super().__init__(settings, {}, RealTimeWorld(site))
        self.rng = Random(seed)
        self.features = {one["friendly_name"]: _features(one) for one in definitions if one["definition"]}
        self.raw: dict[str, dict[str, Any]] = {topic: {} for topic in self.features}
        self.violations: list[str] = []
        self.shake()

    def shake(self) -> None:
        """Give every feature another raw value."""
        for topic, features in self.features.items():
            for key, feature in features.items():
                if _bits(feature) & STATE:
                    self.raw[topic][key] = _raw_value(feature, self.rng)

    def _topics(self) -> set[str]:
        return {f"{self._settings.base}/{topic}/{verb}" for topic in self.features for verb in ("get", "set")}

    def _on_message(self, client: Any, _data: Any, message: Any) -> None:
        base, verb = message.topic.rsplit("/", 1)
        topic, body = base.removeprefix(f"{self._settings.base}/"), json.loads(message.payload)
        features = self.features[topic]
        if verb == "get":
            asked = [key for key in body if _bits(features.get(key, {})) & GET]
            if len(asked) < len(body):
                self.violations.append(f"{topic}: asked for {sorted(body)}")
            if not asked:
                return
        else:
            self._take(topic, body)
        self._publish(client, {f"{self._settings.base}/{topic}": dict(self.raw[topic])})

    def _take(self, topic: str, body: dict[str, Any]) -> None:
        for key, value in body.items():
            feature = self.features[topic].get(key, {})
            if not _is_taken(feature, value):
                self.violations.append(f"{topic}: {key} was set to {value!r}")
            elif not (key.startswith("brightness") and _is_off(body, key)):
                self.raw[topic][key] = value

    def _report(self) -> None:
        while self._is_up.is_set():
            shown = {f"{self._settings.base}/{topic}": dict(values) for topic, values in self.raw.items()}
            if (client := self._client) is not None:
                self._publish(client, shown)
            time.sleep(SETTLE_S / 2)


def _is_off(body: dict[str, Any], key: str) -> bool:
    return bool(body.get(key.replace("brightness", "state")) == "OFF")


def _features(definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a device's features by the key that they have in its state."""
    found: dict[str, dict[str, Any]] = {}
    for expose in definition["definition"]["exposes"]:
        is_specific = expose["type"] in {"light", "switch", "lock", "cover", "fan", "climate"}
        for feature in expose["features"] if is_specific else [expose]:
            known = found.get(feature["property"], {})
            inner = [*known.get("features", ()), *feature.get("features", ())]
            found[feature["property"]] = feature | ({"features": inner} if inner else {})
    return found


def _bits(feature: dict[str, Any]) -> int:
    return int(feature.get("access", 0) or (feature["features"][0]["access"] if feature.get("features") else 0))


def _raw_value(feature: dict[str, Any], rng: Random) -> Any:
    if feature["type"] == "binary":
        return rng.choice([feature["value_on"], feature["value_off"]])
    if feature["type"] == "enum":
        return rng.choice(feature["values"])
    if feature["type"] == "composite":
        return {"x": 0.3127, "y": 0.329, "hue": 0, "saturation": 0}
    if feature["type"] != "numeric":
        return ""
    low, high = feature.get("value_min", 0), feature.get("value_max", 50)
    step = feature.get("value_step") or 1
    return round(low + step * rng.randrange(int((high - low) / step) + 1), 6)


def _is_taken(feature: dict[str, Any], value: Any) -> bool:
    """Return whether a device takes a value: of the type, words, range and step of its definition."""
    if not feature or not _bits(feature) & SET:
        return False
    if feature["type"] == "binary":
        return any(type(value) is type(word) and value == word for word in (feature["value_on"], feature["value_off"]))
    if feature["type"] == "enum":
        return value in feature["values"]
    if feature["type"] == "composite":
        return isinstance(value, dict) and value.keys() <= {one["name"] for one in feature["features"]}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    steps = (value - feature.get("value_min", 0)) / (feature.get("value_step") or 1)
    return feature.get("value_min", 0) <= value <= feature.get("value_max", value) and abs(steps - round(steps)) < 1e-6


def expected(feature: dict[str, Any], raw: Any, schema: DataSchema) -> Value:
    """Return what the import should make of a raw value, told from its definition alone."""
    if feature["type"] == "binary" and schema.type == "boolean":
        return bool(raw == feature["value_on"])
    if feature["type"] == "composite":
        return "white"
    if feature["name"] == "brightness":
        return round(raw / feature["value_max"] * 100)
    if feature["name"] == "state" and schema.enum:
        return {"OPEN": "open", "CLOSE": "closed", "STOP": "stopped"}[raw]
    return str(raw) if schema.type == "string" else raw


def run_zigbee(site: Site, definitions: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Read every property and carry out every action of the imported site. Return what worked, and what did not."""
    peer = ZigbeePeer(site, definitions, seed)
    peer.start()
    driver = open_driver(site)
    problems: list[str] = []
    try:
        driver.read(next(iter(site.devices)))  # connects
        time.sleep(SETTLE_S)
        reads = sum(_read(site, name, driver, peer, problems) for name in site.devices)
        acts = act_on_all(site, driver, Random(seed), problems)
    finally:
        driver.close()
        peer.stop()
    return {"read": reads, "actions": dict(acts), "problems": problems, "violations": peer.violations}


def _read(site: Site, name: str, driver: Driver, peer: ZigbeePeer, problems: list[str]) -> int:
    device, shown = site.devices[name], driver.read(name)
    for key, schema in device.properties.items():
        place = device.at[key]
        raw = peer.raw[place["topic"]][place["key"]]
        wanted = expected(peer.features[place["topic"]][place["key"]], raw, schema)
        if key not in shown or shown[key].quality != "good" or shown[key].value != wanted:
            problems.append(f"{name}.{key} reads {shown.get(key)}, and is {raw!r}")
    return len(device.properties)


def act_on_all(site: Site, driver: Driver, rng: Random, problems: list[str]) -> Counter[str]:
    """Carry out every action with allowed arguments; return how many have which status."""
    broker = Broker(site, driver, Journal(), confirm=lambda _: True)
    statuses: Counter[str] = Counter()
    for name, device in site.devices.items():
        for action_name, action in device.actions.items():
            outcome = broker.execute(Command(name, action_name, arguments_for(action, rng)))
            statuses[outcome.status] += 1
            if outcome.status != "done":
                problems.append(f"{name} {action_name}: {outcome.status}: {outcome.report}")
    for ending in broker.claim_due(all_now=True):
        broker.end(ending)
    return statuses


def arguments_for(action: Action, rng: Random) -> dict[str, Value]:
    """Return allowed values for an action's arguments."""
    return {name: _value_for(schema, rng) for name, schema in action.input.items()}


def _value_for(schema: DataSchema, rng: Random) -> Value:
    if schema.type == "boolean":
        return rng.random() < 0.5
    if schema.enum:
        return rng.choice(schema.enum)
    assert schema.minimum is not None and schema.maximum is not None
    step = schema.step or (1 if schema.type == "integer" else 0.5)
    value = round(schema.minimum + step * rng.randrange(int((schema.maximum - schema.minimum) / step + 1e-9) + 1), 6)
    return int(value) if schema.type == "integer" else value


def run_things(site: Site, seed: int) -> dict[str, Any]:
    """Read every property and carry out every action of the imported Things, on simulated servers."""
    problems: list[str] = []
    stage, driver = Stage(site), open_driver(site)
    try:
        reads = 0
        for name, device in site.devices.items():
            shown = driver.read(name)
            reads += len(device.properties)
            problems += [f"{name}.{key} reads {one}" for key, one in shown.items() if one.quality != "good"]
        acts = act_on_all(site, driver, Random(seed), problems)
    finally:
        driver.close()
        stage.close()
    return {"read": reads, "actions": dict(acts), "problems": problems}


def local_things(ports: list[int]) -> str:
    """Return the Things as JSON, each at a port of this machine."""
    text = THINGS.read_text(encoding="utf-8")
    for number, port in reversed(list(enumerate(ports, start=1))):
        text = text.replace(f"thing-{number}.example", f"127.0.0.1:{port}")
    return text


def site_and_account(made: Imported, out: Path) -> tuple[Site, dict[str, Any]]:
    """Write the site of an import and check it; return it with the account of its features."""
    out.write_text(made.site_file(out.stem), encoding="utf-8")
    reasons = Counter(feature.reason for feature in made.features if feature.reason)
    account = {"features": len(made.features), "taken": made.taken, "left_out": dict(reasons)}
    account["lost"] = len(made.features) - made.taken - sum(reasons.values())
    account["unnamed"] = reasons[""]
    return load_checked_site(out), account | {"devices": len(made.devices)}


def on_port(site: Site, port: int) -> Site:
    """Return a site whose Zigbee devices are on another port."""
    return site.model_copy(update={"drivers": {"zigbee": site.drivers["zigbee"] | {"port": port}}})


def main() -> None:
    """Print and keep what was taken, left out and lost, and what worked."""
    from benchmarks import imports_peers  # which needs this file
    from tests.ports import free_port

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    definitions = json.loads(ZIGBEE.read_text(encoding="utf-8"))
    os.environ |= {f"HTTP_{number}_SECRET": SECRET for number in range(1, 16)}
    with tempfile.TemporaryDirectory() as folder:
        site, zigbee = site_and_account(import_file(ZIGBEE), Path(folder) / "zigbee.yaml")
        zigbee |= run_zigbee(on_port(site, free_port()), definitions, options.seed)
        things_file = Path(folder) / "things.json"
        things_file.write_text(local_things([free_port() for _ in range(15)]), encoding="utf-8")
        site, things = site_and_account(import_file(things_file), Path(folder) / "things.yaml")
        things |= run_things(site, options.seed)
        sources = {
            "zigbee2mqtt": zigbee,
            "things": things,
            "tasmota": imports_peers.run_tasmota(free_port(), Path(folder), options.seed),
            "shelly": imports_peers.run_shelly(Path(folder), options.seed),
            "home_assistant": imports_peers.run_home_assistant(Path(folder), options.seed),
            "homie": imports_peers.run_homie(free_port(), Path(folder), options.seed),
        }
    result = {"machine": this_machine(), "seed": options.seed, **sources}
    print(json.dumps(result, indent=1))
    save(result, options.out)
    if any(source.get(what) for source in sources.values() for what in ("problems", "violations", "lost", "unnamed")):
        sys.exit(1)


if __name__ == "__main__":
    main()

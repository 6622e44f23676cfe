"""Several sources in one site file, and imports into a file that a person has edited."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from devices.drivers.registry import load_checked_site
from devices.durable import aside_of
from devices.errors import EdgeError, UsageError
from devices.exchange.imports.files import import_file
from devices.exchange.placing import Part
from devices.exchange.site_import import import_into, last_import_path
from devices.exchange.site_merge import merged
from devices.exchange.yaml_patch import is_same, parse, patched, rendered
from edgewright import main

DATA = Path(__file__).parents[1] / "data"
ON_OFF = {"type": "binary", "value_on": "ON", "value_off": "OFF", "access": 7}
STATE = {"name": "state", "property": "state", **ON_OFF}
LEVEL = {"type": "numeric", "name": "brightness", "property": "brightness", "access": 7, "value_max": 254}
PLUG = {"type": "switch", "features": [STATE]}


def zigbee(name: str, *exposes: dict[str, Any], address: str = "") -> dict[str, Any]:
    definition = {"description": "", "exposes": list(exposes or (PLUG,))}
    return {"ieee_address": address or name, "friendly_name": name, "type": "Router", "definition": definition}


def thing(title: str, server: str) -> dict[str, Any]:
    forms = [{"href": f"http://{server}/on"}]
    schemes = {"key": {"scheme": "bearer"}}
    properties = {"on": {"type": "boolean", "forms": forms}}
    return {
        "@context": "td", "title": title, "properties": properties, "security": "key", "securityDefinitions": schemes,
    }  # fmt: skip


class Folder:
    """A folder with a site file, its sources, and what the last import said."""

    def __init__(self, path: Path, read: Callable[[], Any]) -> None:
        self.path, self.site, self._read = path, path / "my.yaml", read

    def write(self, name: str, found: object) -> Path:
        file = self.path / name
        file.write_text(json.dumps(found), encoding="utf-8")
        return file

    def run(self, *words: object, rc: int = 0) -> list[str]:
        """Import; return the lines printed, those on stderr last."""
        assert main(["devices", "import", *map(str, words), "--out", str(self.site)]) == rc
        printed = self._read()
        return [*printed.out.splitlines(), *printed.err.splitlines()]

    def edit(self, old: str, new: str) -> None:
        text = self.site.read_text(encoding="utf-8")
        assert text.count(old) == 1, text
        self.site.write_text(text.replace(old, new), encoding="utf-8")

    @property
    def devices(self) -> dict[str, Any]:
        """The devices as the file has them."""
        load_checked_site(self.site)
        found: dict[str, Any] = parse(self.site.read_text(encoding="utf-8"))["devices"]
        return found


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys.readouterr)


def test_several_sources_make_one_site_with_one_account(folder: Folder) -> None:
    one = folder.write("one.json", [zigbee("coffee machine"), zigbee("lamp")])
    two = folder.write("two.json", [zigbee("desk")])
    things = [folder.write(f"{name}.json", thing("lamp", f"10.0.0.{name}")) for name in ("5", "6")]
    files = [one, two, *things, DATA / "tasmota" / "metering_plug.json", DATA / "home_assistant.json"]
    lines = folder.run(*files, "--host", "10.0.0.2")
    site = load_checked_site(folder.site)
    assert list(site.devices)[:6] == ["coffee_machine", "lamp", "desk", "lamp_2", "lamp_3", "coffee_machine_2"]
    assert site.devices["lamp_3"].title == "lamp 3" and site.devices["coffee_machine_3"].driver == "home_assistant"
    assert "lamp of 6.json is called lamp_3: something else has its name" in lines
    assert list(site.drivers) == ["zigbee", "http_1", "http_2", "tasmota", "home_assistant"]
    assert site.devices["desk"].driver == site.devices["lamp"].driver == "zigbee"
    # Neither server is given the other's secret.
    assert [site.drivers[name]["auth"]["secret_env"] for name in ("http_1", "http_2")] == [
        "HTTP_1_SECRET",
        "HTTP_2_SECRET",
    ]
    assert "driver http_2 logs in with bearer: $HTTP_2_SECRET holds the token" in lines
    made = [import_file(file, "10.0.0.2") for file in files]
    count, taken = sum(len(one.features) for one in made), sum(one.taken for one in made)
    assert f"{len(site.devices)} devices; {count} features: {taken} taken, {count - taken} left out" in lines
    assert {f"left out: {line}" for one in made for line in one.left_out} <= set(lines)


def test_a_device_of_two_sources_is_taken_once(folder: Folder) -> None:
    one = folder.write("one.json", [zigbee("lamp"), zigbee("desk")])
    groups = [{"id": 1, "friendly_name": "all", "members": [{"ieee_address": name} for name in ("desk", "hob")]}]
    lines = folder.run(one, folder.write("two.json", [zigbee("hob"), zigbee("desk"), *groups]))
    assert list(folder.devices) == ["lamp", "desk", "hob"]
    assert "left out: state of desk: desk is the same device, of another source" in lines
    assert "3 devices; 7 features: 6 taken, 1 left out" in lines
    assert load_checked_site(folder.site).groups["all"].devices == ("desk", "hob")
    maps = [folder.path / "a" / "meter.csv", folder.path / "meter.csv"]  # that share a register only
    maps[0].parent.mkdir()
    for file, name in zip(maps, ("flow,7,4\nlevel,8,4", "flow,7,4\nheat,9,4"), strict=True):
        file.write_text(f"name,address,function\n{name}\n", encoding="utf-8")
    folder.run(*maps)
    assert list(folder.devices)[3:] == ["meter", "meter_2"]


KINDS = {"added", "removed", "changed", "conflict"}
EDITED = """# My home, by hand.
schema: site/v1
name: my
title: "my home"   # as we call it
drivers:
    zigbee: {type: mqtt, host: 127.0.0.1, profile: zigbee2mqtt}
devices:
  # Over the sink.
  sink_light:
    title: sink light
    model: dimmable_light # not the old one
    aliases: [the small one]
    driver: zigbee
    at:
      on: {topic: light, key: state, words: ["OFF", "ON"]}
      brightness: {topic: light, key: brightness, scale: 0.3937007874015748, raw_step: 1}

  radiator:
    title: radiator
    model: climate_target
    properties: {target_c: {minimum: 5, maximum: 24}}  # never above 24
    actions: {set: {input: {target_c: {type: integer, minimum: 5, maximum: 24}}, risk: confirm}}
    driver: zigbee
    at: {target_c: {topic: radiator, key: occupied_heating_setpoint}}
  own_scale:   # not from zigbee2mqtt
    kind: sensor
    properties: {weight: {type: number, minimum: 0, maximum: 9}}
# the end
"""
RADIATOR = {"type": "climate", "features": [
    {"type": "numeric", "name": "occupied_heating_setpoint", "property": "occupied_heating_setpoint", "access": 7,
     "value_min": 5, "value_max": 33}]}  # fmt: skip
LIGHT = {"type": "light", "features": [STATE, LEVEL]}


def test_what_a_person_wrote_stays_and_what_is_new_comes(folder: Folder) -> None:
    plugs = [zigbee("old plug"), zigbee("unwanted"), zigbee("spare plug")]
    source = folder.write("z.json", [zigbee("light", LIGHT), zigbee("radiator", RADIATOR), *plugs])
    folder.run(source)
    made = folder.devices
    folder.site.write_text(EDITED, encoding="utf-8")
    kept = {name: made[name] | {"aliases": ["spare"]} for name in ("old_plug", "spare_plug")}
    del kept["old_plug"]["aliases"]
    folder.edit("# the end\n", "".join(f"  {line}\n" for line in rendered(kept, 0).splitlines()) + "# the end\n")
    before = folder.site.read_text(encoding="utf-8")
    assert folder.run(source)[0].startswith("5 devices;") and folder.site.read_text(encoding="utf-8") == before

    hotter = json.loads(json.dumps(RADIATOR).replace("33", "32"))
    moved = json.loads(
        json.dumps(LIGHT).replace('"brightness"', '"level"').replace('"name": "level"', '"name": "brightness"')
    )
    also = {"type": "numeric", "name": "battery", "property": "battery", "unit": "%", "access": 1}
    contact = {
        "type": "binary",
        "name": "contact",
        "property": "contact",
        "access": 1,
        "value_on": False,
        "value_off": True,
    }
    unwanted = zigbee("unwanted", PLUG, also)
    folder.write(
        "z.json", [zigbee("light", moved), zigbee("radiator", hotter, also), unwanted, zigbee("window", contact)]
    )
    dry = folder.run(source, "--dry-run")
    assert folder.site.read_text(encoding="utf-8") == before and "my.yaml would have 5 devices" in " ".join(dry)
    lines = folder.run(source)
    assert lines[:-2] == dry[: len(lines) - 2]
    limit = "target_c.maximum: the file has 24, the import 32; the file's stays"
    assert [line for line in lines if line.split(":")[0] in KINDS] == [
        "changed: devices.sink_light.at.brightness.key: level, was brightness",
        "changed: devices.radiator.model: [climate_target, battery], was climate_target",
        f"conflict: devices.radiator.properties.{limit}",
        f"conflict: devices.radiator.actions.set.input.{limit}",
        "added: devices.radiator.at.battery",
        "conflict: devices.unwanted: it was removed from the file, and the import changed it; it stays away",
        "added: devices.window",
        "removed: devices.old_plug",
        "conflict: devices.spare_plug: the import has it no more, and the file has changed it; it stays",
    ]
    text = folder.site.read_text(encoding="utf-8")
    ours = EDITED.replace("key: brightness,", "key: level,").replace("climate_target\n", "[climate_target, battery]\n")
    ours = ours.replace("setpoint}}", "setpoint}, battery: {topic: radiator, key: battery, is_asked: false}}")
    assert [line for line in ours.splitlines() if line not in text.splitlines()] == []
    assert text.startswith(ours.removesuffix("# the end\n")) and text.endswith("\n# the end\n")
    assert list(folder.devices) == ["sink_light", "radiator", "own_scale", "spare_plug", "window"]
    assert not KINDS & {line.split(":")[0] for line in folder.run(source)}
    assert folder.site.read_text(encoding="utf-8") == text


def test_a_device_keeps_the_name_under_which_it_is_known(folder: Folder) -> None:
    """Devices without names are numbered: the number of one that is gone must not go to another."""
    nameless = [zigbee(f"0x00000000000000{number}") for number in range(11, 15)]
    source = folder.write("z.json", nameless)
    folder.run(source)
    assert list(folder.devices) == ["switch_1", "switch_2", "switch_3", "switch_4"]
    folder.edit("  zigbee:\n", "  radio:\n")
    text = (
        folder.site.read_text(encoding="utf-8").replace("driver: zigbee", "driver: radio").replace("switch_3", "pump")
    )
    folder.site.write_text(text.replace("title: switch 4", "title: switch 4\n    aliases: [fan]"), encoding="utf-8")
    folder.write("z.json", [zigbee("pump"), zigbee("0xff"), *nameless[1:]])
    lines = folder.run(source, "--host", "10.0.0.9")
    assert {one["driver"]: one["at"]["on"]["topic"] for one in folder.devices.values()}.keys() == {"radio"}
    assert {name: one["at"]["on"]["topic"] for name, one in folder.devices.items()} == {
        "switch_2": "0x0000000000000012",
        "pump": "0x0000000000000013",
        "switch_4": "0x0000000000000014",
        "pump_2": "pump",
        "switch_5": "0xff",
    }
    assert folder.devices["switch_4"]["aliases"] == ["fan"]
    assert "changed: drivers.radio.host: 10.0.0.9, was 127.0.0.1" in lines  # the broker moved


def test_what_comes_from_other_sources_stays(folder: Folder) -> None:
    one = folder.write("one.json", [zigbee("lamp"), zigbee("desk")])
    lines = folder.run(one, DATA / "home_assistant.json", "--host", "10.0.0.2")
    before = folder.devices
    folder.write("one.json", [zigbee("lamp")])
    lines = folder.run(one)  # its host is still known
    assert [line for line in lines if line.split(":")[0] in KINDS] == ["removed: devices.desk"]
    assert folder.devices == {name: entry for name, entry in before.items() if name != "desk"}
    assert any("home_assistant.json was not imported this time" in line for line in lines)
    renamed = folder.write("new.json", [zigbee("lamp"), zigbee("hob")])
    one.unlink()
    folder.run(renamed, "--host", "10.0.0.2")  # the same devices in a file of another name
    text = folder.site.read_text(encoding="utf-8")
    asked = import_into(folder.site, {"mqtt 10.0.0.2:1883": import_file(renamed, "10.0.0.2")})  # as `discover` does
    assert asked.text == text and "new.json" not in asked.last
    assert list(folder.devices)[-1] == "hob" and len(folder.devices) == len(before)


def test_a_site_that_was_not_imported_only_gets_more(folder: Folder) -> None:
    folder.site.write_text(EDITED, encoding="utf-8")
    lines = folder.run(
        folder.write("z.json", [zigbee("light", LIGHT), zigbee("radiator", RADIATOR), zigbee("own scale")])
    )
    assert "there is no my.yaml.imported: all that my.yaml has counts as changed by hand" in lines
    assert [line for line in lines if line.split(":")[0] == "conflict"][-1].startswith("conflict: devices.radiator.")
    assert folder.site.read_text(encoding="utf-8").startswith(EDITED.removesuffix("# the end\n"))
    assert list(folder.devices)[3:] == ["own_scale_2"]


def test_what_a_device_needs_comes_back_and_what_it_uses_stays() -> None:
    lamp, desk = ({"driver": driver, "area": "hall"} for driver in ("zigbee", "own"))
    base: Part = {"drivers": {"zigbee": {"host": "a"}, "own": {}}, "areas": {"hall": {}}}
    base |= {"floors": {}, "groups": {}, "devices": {}}
    site = {"drivers": {"own": {}}, "devices": {"desk": desk | {"area": "attic"}}}
    new: Part = base | {"drivers": {"zigbee": {"host": "a"}}, "devices": {"lamp": lamp}}
    values, lines = merged(base, site, new)
    assert lines == ["added: devices.lamp", "added: drivers.zigbee", "added: areas.hall"]
    assert values["drivers"] == {"own": {}, "zigbee": {"host": "a"}} and list(values["devices"]) == ["desk", "lamp"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("schema: site/v1", "schema: [", "not YAML"),
        ("model: switch", "model: swich", "no model is called 'swich'"),
        ("name: my", "name: \0", "not YAML"),
        ("host: 127.0.0.1", "host: &broker 127.0.0.1\n    user: *broker", "cannot be changed one by one"),
        ("devices:", "groups: {all: {devices: [desk]}}\ndevices:", "all has the device 'desk', which does not exist"),
    ],
)  # fmt: skip
def test_a_site_that_cannot_be_merged_stays_as_it_is(old: str, new: str, problem: str, folder: Folder) -> None:
    source = folder.write("z.json", [zigbee("lamp"), zigbee("desk", LIGHT)])
    folder.run(source)
    folder.edit(old, new)
    before, last = folder.site.read_bytes(), last_import_path(folder.site).read_bytes()
    (line,) = folder.run(folder.write("z.json", [zigbee("lamp")]), "--host", "10.0.0.2", rc=2)
    assert problem in line and str(folder.site) in line
    assert (folder.site.read_bytes(), last_import_path(folder.site).read_bytes()) == (before, last)
    (line,) = folder.run(folder.write("empty.json", [zigbee("lamp", {"type": "text"})]), rc=2)
    assert folder.site.read_bytes() == before


def test_a_last_import_cut_anywhere_is_refused_in_one_line_or_harmless(folder: Folder) -> None:
    made = import_file(folder.write("z.json", [zigbee("lamp")]))
    import_into(folder.site, {"z.json": made}).write()
    last = last_import_path(folder.site)
    whole, refused = last.read_bytes(), 0
    for size in range(0, len(whole), 11):
        last.write_bytes(whole[:size])
        try:
            again = import_into(folder.site, {"z.json": made})
        except UsageError as error:
            refused += (
                str(last) in str(error) and "\n" not in str(error) and error.hint.startswith("delete my.yaml.imp")
            )
        else:  # cut within its last device
            assert again.text == folder.site.read_text(encoding="utf-8")
            refused += size > len(whole) - 40
    assert refused == len(range(0, len(whole), 11))


def test_an_import_killed_at_any_moment_leaves_a_site_and_the_next_one_finishes(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.run(folder.write("z.json", [zigbee("lamp"), zigbee("old plug")]))
    folder.edit("title: lamp", "title: lamp  # mine")
    old, last = folder.site.read_bytes(), last_import_path(folder.site).read_bytes()
    made = import_file(folder.write("z.json", [zigbee("lamp"), zigbee("new plug")]))
    after = import_into(folder.site, {"z.json": made})
    plain = {name: getattr(owner, name) for owner, name in ((Path, "write_bytes"), (Path, "replace"), (os, "fsync"))}
    for deaths in range(16):
        folder.site.write_bytes(old)
        last_import_path(folder.site).write_bytes(last)
        passed = 0

        def deadly(name: str, *arguments: Any, deaths: int = deaths) -> Any:
            nonlocal passed
            passed += 2
            if passed - 2 == deaths and name == "write_bytes":
                plain[name](arguments[0], arguments[1][: len(arguments[1]) // 2])
            if passed - 2 == deaths:
                raise KeyboardInterrupt
            result = plain[name](*arguments)
            if passed - 1 == deaths:
                raise KeyboardInterrupt
            return result

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", lambda *given, deadly=deadly: deadly("write_bytes", *given))
            patch.setattr(Path, "replace", lambda *given, deadly=deadly: deadly("replace", *given))
            patch.setattr(os, "fsync", lambda *given, deadly=deadly: deadly("fsync", *given))
            with pytest.raises(KeyboardInterrupt):
                after.write()
        assert folder.site.read_bytes() in (old, after.text.encode())
        again = import_into(folder.site, {"z.json": made})
        assert (again.text, again.last) == (after.text, after.last)
    assert not aside_of(folder.site).exists()
    with pytest.raises(EdgeError, match=r"cannot write .*no/my.yaml: No such file"):
        import_into(folder.path / "no" / "my.yaml", {"z.json": made}).write()


def test_groups_of_zigbee2mqtt_are_groups_of_the_site(folder: Folder) -> None:
    """Source: zigbee2mqtt, "MQTT Topics and Messages", bridge/groups."""
    halves = [
        {"type": "switch", "features": [STATE | {"property": f"state_{side}", "endpoint": side}]}
        for side in ("left", "right")
    ]
    members = [{"ieee_address": f"0x{number}", "endpoint": 1} for number in range(1, 5)]
    groups: list[dict[str, Any]] = [
        {"id": 1, "friendly_name": "Night lights", "members": members, "scenes": []},
        {"id": 2, "members": members[:1]},
        {"id": 3, "friendly_name": "kitchen", "members": members[:2]},
        {"id": 9, "friendly_name": "default_bind_group", "members": []},
    ]
    battery = {"type": "numeric", "name": "battery", "property": "battery", "unit": "%", "access": 1, "endpoint": "two"}
    named = [("lamp", LIGHT, battery | {"property": "battery_two"}), ("desk",), ("double", *halves)]
    devices = [zigbee(*one, address=f"0x{number}") for number, one in enumerate(named, 1)]
    apart = [folder.write("z.json", devices), folder.write("groups.json", groups), DATA / "home_assistant.json"]
    lines = folder.run(*apart)
    site = load_checked_site(folder.site)
    assert {name: group.devices for name, group in site.groups.items()} == {
        "night_lights": ("lamp", "desk"),
        "group_2": ("lamp",),
        "kitchen_group": ("lamp", "desk"),  # kitchen is an area of Home Assistant
    }
    assert {line for line in lines if " of Night lights" in line or " of default" in line} == {
        "left out: member double of Night lights: it has several parts, and nothing says which of them is endpoint 1",
        "left out: member 0x4 of Night lights: the site does not have it",
        "left out: group of default_bind_group: no device that the site has is in it",
    }
    folder.write("z.json", devices[1:])
    groups[0]["members"] = members[1:2]
    apart[1].write_text(json.dumps(groups[:1]), encoding="utf-8")
    folder.edit("night lights\n", "night lights\n    aliases: [dim ones]\n")
    lines = folder.run(*apart)
    assert (
        "removed: groups.group_2" in lines and "changed: groups.night_lights.devices: [desk], was [lamp, desk]" in lines
    )
    (group,) = load_checked_site(folder.site).groups.values()
    assert group.aliases == ("dim ones",)
    (line,) = folder.run(apart[1], rc=2)
    assert "groups.json has groups, and no file has zigbee2mqtt's devices" in line
    both = import_file(folder.write("both.json", devices + groups))
    assert both.groups["night_lights"]["devices"] == ["desk"]
    apart[1].write_text(json.dumps([groups[0] | {"members": [{"endpoint": 1}]}]), encoding="utf-8")
    (line,) = folder.run(*apart, rc=2)
    assert f"{apart[1]}: group Night lights: members.0.ieee_address: Field required" in line


SCALARS = [1, 2.5, True, None, "on", "a b", "# no", "", "5", "true", "a\nb", "{"]


def _values(rng: Random, level: int = 0) -> Any:
    kind = rng.random()
    if level > 4 or kind < 0.5:
        return rng.choice(SCALARS)
    if kind < 0.8:
        return {rng.choice("abcd"): _values(rng, level + 1) for _ in range(rng.randrange(4))}
    return [_values(rng, level + 2) for _ in range(rng.randrange(4))]


def _other(value: Any, rng: Random) -> Any:
    if rng.random() < 0.15:
        return _values(rng, 2)
    if isinstance(value, dict):
        kept = {key: _other(item, rng) for key, item in value.items() if rng.random() > 0.15}
        return kept | {key: _values(rng, 2) for key in "xyz" if rng.random() < 0.2}
    if isinstance(value, list):
        return [item for item in value if rng.random() > 0.2] + [_values(rng, 2)] * rng.randrange(2)
    return value


def test_only_what_differs_is_written_whatever_it_is() -> None:
    rng = Random(5)
    for ends in ["\n", "\r\n"] * 30:
        old = {f"key{number}": _values(rng) for number in range(4)}
        lines = rendered(old, rng.choice((-5, -1))).splitlines()
        lines = [line + ("  # beside" if line.endswith(":") else "") for line in lines]
        marked = [part for line in lines for part in ([line] if line[0] in " -" else ["# above", line])]
        text = ends.join([*marked, "# end", ""])
        if not is_same(parse(text), old):
            continue  # a comment went into a text of several lines
        new = {key: _other(value, rng) for key, value in old.items()} | {"more": _values(rng)}
        made = patched(text, old, new)
        assert is_same(parse(made), new) and patched(text, old, old) == text
        assert (
            made.count("# above") == 4
            and made.endswith(f"# end{ends}")
            and made.count("\r") == ends.count("\r") * made.count("\n")
        )

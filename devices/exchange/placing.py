"""Names for what is imported: the same device keeps its name whatever its source calls it now, and no two share one.

A device is known by its driver and its addresses, a driver by its settings. So what a person has renamed in a site file
is found again, and the numbers that devices without a name of their own got stay with them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from devices.exchange.imports.imported import LONGEST_NAME, SECTIONS, Imported, plain_name, same_driver
from devices.exchange.yaml_patch import is_same
from devices.site.site import EVERYWHERE

Part = dict[str, dict[str, Any]]  # of a site file: its SECTIONS


def joined(parts: Iterable[Mapping[str, Any]]) -> Part:
    """Return the parts as one.

    What they have of the same name is the same; of areas and floors one may know more than another, and the devices of
    groups are added.
    """
    found: Part = {section: {} for section in SECTIONS}
    for part in parts:
        for section in SECTIONS:
            for name, entry in (part.get(section) or {}).items():
                known = found[section].get(name)
                if section == "groups" and known:
                    entry = known | {"devices": list(dict.fromkeys([*known["devices"], *entry["devices"]]))}
                found[section][name] = known | entry if section in {"floors", "areas"} and known else entry
    return found


def renamed(part: Mapping[str, Any], drivers: Mapping[str, str], devices: Mapping[str, str]) -> Part:
    """Return a part of a site with other names for some of its drivers and devices."""
    groups = {
        name: group | {"devices": [devices.get(member, member) for member in group["devices"]]}
        for name, group in part["groups"].items()
    }
    return {
        "drivers": {drivers.get(name, name): settings for name, settings in part["drivers"].items()},
        "floors": dict(part["floors"]),
        "areas": dict(part["areas"]),
        "groups": groups,
        "devices": {
            devices.get(name, name): entry | {"driver": drivers.get(entry["driver"], entry["driver"])}
            for name, entry in part["devices"].items()
        },
    }


def followed(part: Part, site: Mapping[str, Any]) -> Part:
    """Return what was imported once under the names that a person has given to its drivers and devices since."""
    drivers, own = dict[str, str](), {key: its for key, its in site["drivers"].items() if key not in part["drivers"]}
    for name, settings in part["drivers"].items():
        if name not in site["drivers"] and (found := next((key for key in own if is_same(own[key], settings)), "")):
            drivers[name] = found
    part = renamed(part, drivers, {})
    new = {name: entry for name, entry in site["devices"].items() if name not in part["devices"]}
    gone = {name: entry for name, entry in part["devices"].items() if name not in site["devices"]}
    return renamed(part, {}, matches(gone, new))


def matches(new: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, str]:
    """Return for devices by name the known one that each is: of those with addresses in common the most alike first."""
    at: dict[str, list[str]] = {}
    for name, entry in known.items():
        for place in _places(entry):
            at.setdefault(place, []).append(name)
    alike = Counter(
        (name, other) for name, entry in new.items() for place in _places(entry) for other in at.get(place, ())
    )
    found: dict[str, str] = {}
    taken = set[str]()
    for (name, other), _ in alike.most_common():
        if name not in found and other not in taken:
            found[name] = other
            taken.add(other)
    return found


def _places(entry: Mapping[str, Any]) -> list[str]:
    calls = [action["at"] for action in (entry.get("actions") or {}).values() if "at" in (action or {})]
    places = [*(entry.get("at") or {}).values(), *calls]
    return [json.dumps([entry.get("driver"), place], sort_keys=True, default=str) for place in places]


def placed(sources: Mapping[str, Imported], before: Mapping[str, Part], site: Mapping[str, Any]) -> dict[str, Part]:
    """Return what each source holds under its names in the site; a name that had to differ is told in its notes.

    Args:
        sources: what is imported, by source.
        before: what was imported last, by source, under its names of today; sources that are not given now stay.
        site: the site file as it is; nothing if there is none.
    """
    placing = _Placing(sources, before, site)
    return {source: placing.place(source, made) for source, made in sources.items()}


class _Placing:
    def __init__(self, sources: Mapping[str, Imported], before: Mapping[str, Part], site: Mapping[str, Any]) -> None:
        known = joined([site, *before.values()])
        self._placed: dict[str, Any] = {}
        self._before, self._drivers, self._devices = before, known["drivers"], known["devices"]
        self._others = joined(part for source, part in before.items() if source not in sources)["drivers"]
        self._areas = {area for made in sources.values() for area in made.areas} | known["areas"].keys()
        floors = {floor for made in sources.values() for floor in made.floors} | known["floors"].keys()
        self._places = {*self._areas, *floors, EVERYWHERE}
        called = [[name, one.get("title"), *(one.get("aliases") or ())] for name, one in self._devices.items()]
        self._called = {plain_name(str(name)) for names in called for name in names if name}
        self._groups = set(known["groups"])

    def place(self, source: str, made: Imported) -> Part:
        """Give what a source holds its names."""
        part = renamed(made.part, self._name_drivers(source, made), {})
        devices = part["devices"]
        alike = matches(devices, self._placed).items()
        twice = {name: one for name, one in alike if {*_places(devices[name])} <= {*_places(self._placed[one])}}
        for name, other in twice.items():
            del devices[name]
            for feature in made.features_of[name]:
                feature.leave(f"{other} is the same device, of another source")
        names = matches(devices, self._devices)
        for name, entry in devices.items():
            if name in names:
                known = self._devices.pop(names[name])
                title = {"title": known["title"]} if "title" in known else {}
            else:
                names[name] = _free(name, self._called | self._groups)
                title = {"title": entry["title"] if names[name] == name else names[name].replace("_", " ")}
                self._called.add(names[name])
                if names[name] != name:
                    made.notes.append(f"{name} of {source} is called {names[name]}: something else has its name")
            devices[name] = title | {key: value for key, value in entry.items() if key != "title"}
        part = _with_floors_called(renamed(part, {}, names | twice), self._areas)
        guesses = made.guesses.items()
        made.guesses = {(names[name], section, key): text for (name, section, key), text in guesses if name in names}
        self._placed |= part["devices"]
        part["groups"] = {self._group_name(name): group for name, group in part["groups"].items()}
        self._groups |= part["groups"].keys()
        return part

    def _name_drivers(self, source: str, made: Imported) -> dict[str, str]:
        """Share drivers that have the same settings; one whose settings changed since the last import is the same."""
        names: dict[str, str] = {}
        for name, settings in made.drivers.items():
            if found := same_driver(self._drivers, name, settings):
                names[name] = found
        old = self._before.get(source, joined([]))["drivers"]
        left = {key: its["type"] for key, its in old.items() if key not in {*names.values(), *self._others}}
        new = [settings["type"] for name, settings in made.drivers.items() if name not in names]
        for name, settings in list(made.drivers.items()):
            if name not in names:
                kind = settings["type"]
                moved = [key for key, its in left.items() if its == kind]
                names[name] = moved[0] if len(moved) == new.count(kind) == 1 else _free(name, self._drivers)
            secret, own = f"{name.upper()}_SECRET", f"{names[name].upper()}_SECRET"
            if names[name] != name and settings.get("auth", {}).get("secret_env") == secret:
                made.drivers[name] = settings | {"auth": settings["auth"] | {"secret_env": own}}
                made.notes = [
                    re.sub(rf"\b{name}\b", names[name], re.sub(rf"\b{secret}\b", own, note)) for note in made.notes
                ]
            self._drivers = self._drivers | {names[name]: made.drivers[name]}
        return names

    def _group_name(self, name: str) -> str:
        return f"{name}_group" if name in self._places | self._called else name


def _with_floors_called(part: Part, taken: Collection[str]) -> Part:
    """Return a part of a site in which no floor is called like an area."""
    names = {name: f"{name}_floor" if name in taken else name for name in part["floors"]}
    areas = {
        name: area | ({"floor": names.get(area["floor"], area["floor"])} if "floor" in area else {})
        for name, area in part["areas"].items()
    }
    return part | {"floors": {names[name]: floor for name, floor in part["floors"].items()}, "areas": areas}


def _free(name: str, taken: Collection[str]) -> str:
    """Return a name that nothing has, numbered if it has to be."""
    stem, number = re.sub(r"_\d+$", "", name), 2
    free = name
    while free in taken:
        free, number = f"{stem[: LONGEST_NAME - 4]}_{number}", number + 1
    return free

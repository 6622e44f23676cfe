"""A three-way merge of a site file: what was imported last, what a person has made of it, what is imported now.

A value that only the import changed is taken. One that the person changed stays, and what the person removed stays
away; where the import changed it, too, a line says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from devices.exchange.placing import Part
from devices.exchange.yaml_patch import in_line, is_same

SETS = ("model", "devices")  # keys of names, whose changes do not exclude each other
LONGEST_VALUE = 60  # of a value in a line


def merged(base: Part, site: Mapping[str, Any], new: Part) -> tuple[dict[str, Any], list[str]]:
    """Return a whole site file's values with an import in them, and a line for each thing that is another then.

    Args:
        base: the sections as they were imported last.
        site: the whole file.
        new: the sections as they are imported now.
    """
    merge = _Merge()
    devices = merge.mapping(base["devices"], site["devices"], new["devices"], ("devices",))
    found = dict(site)
    for section, key in (("drivers", "driver"), ("areas", "area"), ("floors", "floor")):
        of = (found["areas"] if section == "floors" else devices).values()
        needed = {entry[key] for entry in of if entry and key in entry}
        found[section] = merge.mapping(base[section], site.get(section) or {}, new[section], (section,), needed)
    there = {
        name: {**group, "devices": [one for one in group["devices"] if one in devices]}
        for name, group in new["groups"].items()
    }
    groups = {name: group for name, group in there.items() if group["devices"]}
    found["groups"] = merge.mapping(base["groups"], site.get("groups") or {}, groups, ("groups",))
    found["devices"] = devices
    return {key: value for key, value in found.items() if value or key in site}, merge.lines


class _Merge:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def _note(self, what: str, keys: tuple[str, ...], rest: str = "") -> None:
        self.lines.append(f"{what}: {'.'.join(keys)}" + (f": {rest}" if rest else ""))

    def mapping(
        self,
        base: Mapping[Any, Any],
        site: Mapping[Any, Any],
        new: Mapping[Any, Any],
        keys: tuple[str, ...],
        needed: Collection[str] = (),
    ) -> dict[Any, Any]:
        """Merge one mapping at nested keys; what is needed is there in the end whoever removed it."""
        found = dict(site)
        for key, value in new.items():
            where = (*keys, str(key).lower() if isinstance(key, bool) else str(key))
            if key in site:
                found[key] = self._value(base, key, site[key], value, where)
            elif key not in base or key in needed:
                found[key] = value
                self._note("added", where)
            elif not is_same(base[key], value):
                self._note("conflict", where, "it was removed from the file, and the import changed it; it stays away")
        for key in site:
            if key not in base or key in new or key in needed:
                continue
            where = (*keys, str(key))
            if is_same(base[key], site[key]):
                del found[key]
                self._note("removed", where)
            else:
                self._note("conflict", where, "the import has it no more, and the file has changed it; it stays")
        return found

    def _value(self, base: Mapping[Any, Any], key: Any, mine: Any, new: Any, where: tuple[str, ...]) -> Any:
        if isinstance(mine, dict | None) and isinstance(new, dict):
            before = base.get(key)
            return self.mapping(before if isinstance(before, dict) else {}, mine or {}, new, where) or mine
        if is_same(mine, new) or (key in base and is_same(base[key], new)):
            return mine
        if key in base and is_same(base[key], mine):
            self._note("changed", where, f"{_short(new)}, was {_short(mine)}")
            return new
        if key in base and key in SETS and (both := _both_changes(_names(base[key]), _names(mine), _names(new))):
            self._note("changed", where, f"{_short(both)}, was {_short(mine)}")
            return both
        self._note("conflict", where, f"the file has {_short(mine)}, the import {_short(new)}; the file's stays")
        return mine


def _names(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _both_changes(base: list[Any], mine: list[Any], new: list[Any]) -> list[Any]:
    """Return a list with a person's changes and the import's; an empty one if they are about the same names."""
    gone, come = [name for name in base if name not in new], [name for name in new if name not in base]
    if not mine or not all(name in mine for name in gone):
        return []
    rest, more = [name for name in mine if name not in gone], [name for name in come if name not in mine]
    return more + rest if mine[0] in gone else rest + more  # the first model says of what kind a device is


def _short(value: Any) -> str:
    text = in_line(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"

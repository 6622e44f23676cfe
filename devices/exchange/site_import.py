"""Imports into a site file: a new one, or one that is there and that a person has edited.

Beside the site `my.yaml` stands `my.yaml.imported`: what each source held when it was imported last, under its names in
the site. The site is written first: whoever is killed between the two finds at the next import that the site has
already what the import brings.

Does not guard against: two imports into the same file at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from devices.drivers.registry import check_site
from devices.durable import write_file
from devices.errors import UnavailableError, UsageError
from devices.exchange.imports.imported import Imported, site_text
from devices.exchange.placing import Part, followed, joined, placed
from devices.exchange.site_merge import merged
from devices.exchange.yaml_patch import TOP, patched, rendered
from devices.yaml_file import Strict, YamlFile, parse_yaml, plain_values, read_model

SCHEMA: Literal["imported/v1"] = "imported/v1"


class _SourcePart(Strict):
    drivers: dict[str, dict[str, Any]]
    floors: dict[str, dict[str, Any]] = Field(default_factory=dict)
    areas: dict[str, dict[str, Any]]
    groups: dict[str, dict[str, Any]]
    devices: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _require_what_an_import_has(self) -> _SourcePart:
        if lost := next((name for name, entry in self.devices.items() if entry.get("driver") not in self.drivers), ""):
            raise ValueError(f"the device {lost} has no driver of the same source")
        if lost := next((name for name, one in self.groups.items() if not isinstance(one.get("devices"), list)), ""):
            raise ValueError(f"the group {lost} has no devices")
        return self


class _LastImport(Strict):
    version: Literal["imported/v1"] = Field(alias="schema")
    hosts: dict[str, str] = Field(default_factory=dict)
    sources: dict[str, _SourcePart]


@dataclass(frozen=True)
class SiteImport:
    """What an import makes of a site file; nothing is written yet.

    Attributes:
        path: the file.
        text: what it shall hold.
        last: what the file beside it shall hold.
        lines: what is another in a file that was there.
        account: the devices, the verdict on every feature of all sources, and what else there is to say.
        devices: how many the site has then.
    """

    path: Path
    text: str
    last: str
    lines: list[str]
    account: Imported
    devices: int

    def write(self) -> None:
        """Write both files, each whole or not at all. Raises UnavailableError."""
        for path, text in ((self.path, self.text), (last_import_path(self.path), self.last)):
            try:
                write_file(Path(os.path.realpath(path)), text.encode())
            except OSError as error:
                raise UnavailableError(f"cannot write {path}: {error.strerror}") from error


def last_import_path(site: Path) -> Path:
    """Return where it is kept what was imported last into a site file."""
    return site.with_name(f"{site.name}.imported")


def import_into(path: Path, sources: Mapping[str, Imported]) -> SiteImport:
    """Return what an import makes of a site file, a new one or one that is there.

    Args:
        path: the site file.
        sources: what is imported, by source; what was imported from other sources stays as it is.

    Raises:
        UsageError: there is no device in any source; the file that is there is no site, or would be none with the
            import; or it is written so that its values cannot be changed one by one.
    """
    if not any(made.devices for made in sources.values()):
        reasons = "; ".join(line for made in sources.values() for line in [*made.left_out, *made.notes])
        raise UsageError(f"there is no device to import: {reasons}")
    if path.suffix not in {".yaml", ".yml"}:
        raise UsageError(f"{path} is no name of a site file", hint=f"call it {path.stem}.yaml")
    old = _read(path)
    site = {} if old is None else plain_values(_checked(old, path).root)
    last = _last_import(path)
    before = {key: followed(part.model_dump(), site) for key, part in last.sources.items()}
    parts = placed(sources, before, site)
    stay = {key: _without(part, joined(parts.values())["devices"]) for key, part in before.items() if key not in parts}
    now = {key: part for key, part in stay.items() if part["devices"]} | parts
    account = Imported(
        devices=joined(parts.values())["devices"],
        features=[feature for made in sources.values() for feature in made.features],
        notes=[note for made in sources.values() for note in made.notes],
    )
    comments = {place: text for made in sources.values() for place, text in made.comments.items()}
    if old is None:
        text, lines = site_text(path.stem, joined(now.values()), comments), list[str]()
    else:
        values, lines = merged(joined(before.values()), site, joined(now.values()))
        account.notes += [
            f"{key} was not imported this time: its devices stay as they are" for key in now if key in stay
        ]
        if not before:
            account.notes.append(
                f"there is no {last_import_path(path).name}: all that {path.name} has counts as changed by hand"
            )
        try:
            text = patched(old, site, values, comments)
        except ValueError as error:
            raise UsageError(f"{path}: {error}", hint="write it without anchors, tags and merge keys") from error
    try:
        label = path.with_name(f"{path.name} with the import")
        count = len(site["devices"] if text == old else _checked(text, label).root["devices"])
    except UsageError as error:
        conflict = next((line for line in lines if line.startswith("conflict")), error.hint)
        raise UsageError(f"{path} stays as it is: {error}", hint=conflict) from error
    hosts = {key: one for key, one in last.hosts.items() if key in now} | {
        key: made.host for key, made in sources.items()
    }
    kept = rendered({"schema": SCHEMA, "hosts": hosts, "sources": now}, TOP - 2)
    return SiteImport(path, text, kept, lines, account, count)


def last_hosts(site: Path) -> dict[str, str]:
    """Return the host that each source had when it was imported last."""
    return _last_import(site).hosts


def _read(path: Path) -> str | None:
    """Return the text of a site file, None if there is none."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the site file {path}: {error}") from error


def _checked(text: str, path: Path) -> YamlFile:
    """Return a site file of which the text is known. Raises UsageError if it is no site."""
    source = parse_yaml(text, path)
    check_site(source)
    return source


def _last_import(site: Path) -> _LastImport:
    """Return what was imported last into a site file; nothing if there is no file, or nobody knows."""
    path = last_import_path(site)
    if not site.exists() or not path.exists():
        return _LastImport(schema=SCHEMA, sources={})
    try:
        return read_model(path, _LastImport, "last import")
    except UsageError as error:
        hint = f"delete {path.name}: then all that {site.name} has counts as changed by hand"
        raise UsageError(str(error), hint=hint) from error


def _without(part: Part, devices: Collection[str]) -> Part:
    return {**part, "devices": {name: entry for name, entry in part["devices"].items() if name not in devices}}

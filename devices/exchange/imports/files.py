"""Sites from a file: CSV is a Modbus register map, text a dump of MQTT topics; JSON is known by its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.exchange.imports.home_assistant import import_home_assistant
from devices.exchange.imports.imported import THIS_MACHINE, Imported, parse_json
from devices.exchange.imports.modbus_register_map import import_register_map
from devices.exchange.imports.shelly import import_shelly
from devices.exchange.imports.tasmota import import_tasmota
from devices.exchange.imports.thing_description import import_things
from devices.exchange.imports.topics import DEVICES_TOPIC, import_topics
from devices.exchange.imports.zigbee2mqtt import import_zigbee2mqtt
from devices.exchange.imports.zigbee2mqtt_groups import Group, read_groups
from devices.exchange.mqtt_topics import read_dump

Importer = Callable[[list[dict[str, Any]], str, str], Imported]
OTHER_FORMATS = {".csv", ".txt"}  # than JSON
KNOWN = "zigbee2mqtt's list of devices, a Thing Description, nor an answer of Tasmota, Shelly or Home Assistant"
IMPORTERS: dict[str, Importer] = {  # by a key that each of their entries has
    "ieee_address": import_zigbee2mqtt,
    "@context": lambda things, _, source: import_things(things, source),
    "StatusSTS": import_tasmota,
    "Shelly.GetStatus": import_shelly,
    "entity_id": import_home_assistant,
    "states": import_home_assistant,
}


def import_files(paths: Mapping[str, Path], host_of: Callable[[str], str]) -> dict[str, Imported]:
    """Return what each of several files holds; a file of zigbee2mqtt's groups is for those with its devices.

    Args:
        paths: the files by what they are called.
        host_of: returns where the MQTT broker, Home Assistant or the Modbus server of a file is.

    Raises:
        UsageError: one cannot be read, or is nothing known; or something in it is broken, with file, device and field.
    """
    groups, found = list[Group](), dict[str, Imported]()
    entries = {name: read_entries(path) for name, path in paths.items() if path.suffix.lower() not in OTHER_FORMATS}
    for name in [name for name, some in entries.items() if all("members" in one for one in some)]:
        groups += read_groups(entries.pop(name), str(paths[name]))
        of_groups = paths[name]
    has_devices = any(importer_of(some) is import_zigbee2mqtt for some in entries.values())
    for name, path in paths.items():
        host = host_of(name)
        if path.suffix.lower() == ".csv":
            found[name] = import_register_map(path, host)
        elif path.suffix.lower() == ".txt":
            topics = read_dump(path)
            has_devices = has_devices or DEVICES_TOPIC in topics
            found[name] = import_topics(topics, host, str(path), groups=groups)
        elif name not in entries:
            continue  # groups
        elif (importer := importer_of(entries[name])) is import_zigbee2mqtt:
            found[name] = import_zigbee2mqtt(entries[name], host, str(path), groups)
        elif importer:
            found[name] = importer(entries[name], host, str(path))
        else:
            raise UsageError(f"{path} is neither {KNOWN}")
        found[name].host = host
    if groups and not has_devices:
        hint = "give the payload of zigbee2mqtt/bridge/devices, too"
        raise UsageError(f"{of_groups} has groups, and no file has zigbee2mqtt's devices", hint=hint)
    return found


def import_file(path: Path, host: str = THIS_MACHINE) -> Imported:
    """Return what one file holds, as import_files does."""
    return import_files({str(path): path}, lambda _: host)[str(path)]


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON file, one or a list of them. Raises UsageError with file and place."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        hint = "a dump of MQTT topics is a .txt file"
        raise UsageError(f"{path} is not JSON: {error}", hint=hint) from error
    entries = found if isinstance(found, list) else [found]
    if strange := next((number for number, one in enumerate(entries, 1) if not isinstance(one, dict)), 0):
        raise UsageError(f"{path}: entry {strange} is neither {KNOWN}")
    if not entries:
        raise UsageError(f"{path} has no entries")
    return entries


def importer_of(entries: list[dict[str, Any]]) -> Importer | None:
    """Return what imports such entries; it takes them, the host and their file, and says which are broken."""
    key = max(IMPORTERS, key=lambda key: sum(key in entry for entry in entries))
    return IMPORTERS[key] if any(key in entry for entry in entries) else None

"""Sites from a file: CSV is a Modbus register map, text a dump of MQTT topics; JSON is known by its keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devices.errors import UsageError
from devices.exchange.imports.home_assistant import import_home_assistant
from devices.exchange.imports.imported import Imported
from devices.exchange.imports.modbus_register_map import import_register_map
from devices.exchange.imports.shelly import import_shelly
from devices.exchange.imports.tasmota import import_tasmota
from devices.exchange.imports.thing_description import import_things
from devices.exchange.imports.topics import import_topics
from devices.exchange.imports.zigbee2mqtt import import_zigbee2mqtt
from devices.exchange.mqtt_topics import read_dump

Importer = Callable[[list[dict[str, Any]], str, str], Imported]
IMPORTERS: dict[str, Importer] = {  # by a key that each of their entries has
    "ieee_address": import_zigbee2mqtt,
    "@context": lambda things, _, source: import_things(things, source),
    "StatusSTS": import_tasmota,
    "Shelly.GetStatus": import_shelly,
    "entity_id": import_home_assistant,
    "states": import_home_assistant,
}


def import_file(path: Path, host: str = "127.0.0.1") -> Imported:
    """Return what a file holds: zigbee2mqtt's devices, Things, others' answers, MQTT topics, or a register map.

    Args:
        path: the file.
        host: the MQTT broker, Home Assistant, or the Modbus server.

    Raises:
        UsageError: it cannot be read, or is neither; or something in it is broken, with file, device and field.
    """
    if path.suffix.lower() == ".csv":
        return import_register_map(path, host)
    if path.suffix.lower() == ".txt":
        return import_topics(read_dump(path), host, str(path))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        hint = "a dump of MQTT topics is a .txt file"
        raise UsageError(f"{path} is not JSON: {error}", hint=hint) from error
    entries = found if isinstance(found, list) else [found]
    if importer := importer_of(entries):
        return importer(entries, host, str(path))
    known = "zigbee2mqtt's list of devices, a Thing Description, nor an answer of Tasmota, Shelly or Home Assistant"
    raise UsageError(f"{path} is neither {known}")


def importer_of(entries: list[Any]) -> Importer | None:
    """Return what imports such entries; it takes them, the host and their file."""
    for key, importer in IMPORTERS.items():
        if entries and all(isinstance(entry, dict) and key in entry for entry in entries):
            return importer
    return None

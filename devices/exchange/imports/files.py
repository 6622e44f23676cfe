"""Sites from a file: CSV is a Modbus register map; whose a JSON file is, is seen by its keys."""

from __future__ import annotations

import json
from pathlib import Path

from devices.errors import UsageError
from devices.exchange.imports.imported import Imported
from devices.exchange.imports.modbus_register_map import import_register_map
from devices.exchange.imports.thing_description import import_things
from devices.exchange.imports.zigbee2mqtt import import_zigbee2mqtt


def import_file(path: Path, host: str = "127.0.0.1") -> Imported:
    """Return what a file holds: zigbee2mqtt's list of devices, a Thing Description or a list of those, a register map.

    Args:
        path: the file.
        host: the MQTT broker that zigbee2mqtt uses, or the Modbus server.

    Raises:
        UsageError: it cannot be read, or is neither; or something in it is broken, with file, device and field.
    """
    if path.suffix.lower() == ".csv":
        return import_register_map(path, host)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    entries = found if isinstance(found, list) else [found]
    if all(isinstance(entry, dict) and "ieee_address" in entry for entry in entries) and entries:
        return import_zigbee2mqtt(entries, host, str(path))
    if all(isinstance(entry, dict) and "@context" in entry for entry in entries) and entries:
        return import_things(entries, str(path))
    raise UsageError(f"{path} is neither zigbee2mqtt's list of devices nor a Thing Description")

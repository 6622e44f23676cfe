"""A site as plain data for a page or another client: what there is, what it takes, and how risky it is."""

from __future__ import annotations

import json
from typing import Any

from devices.site.action import Action
from devices.site.describe import property_title
from devices.site.device import Device
from devices.site.functions import FUNCTION_KIND
from devices.site.schema import DataSchema
from devices.site.site import Site


def describe_site(site: Site) -> dict[str, Any]:
    """Return areas, scenes, devices and functions; forbidden actions are left out."""
    return {
        "site": site.name,
        "title": site.title,
        "areas": {name: area.title for name, area in site.areas.items()},
        "scenes": {name: scene.title for name, scene in site.scenes.items()},
        "devices": [_device(device) for device in site.callees.values()],
    }


def _device(device: Device) -> dict[str, Any]:
    actions = {name: action for name, action in device.actions.items() if action.risk != "forbidden"}
    return {
        "name": device.name,
        "title": device.title,
        "kind": device.kind,
        "area": getattr(device, "area", "") or "",
        "is_function": device.kind == FUNCTION_KIND,
        "properties": {
            name: {"title": property_title(name, schema)} | _schema(schema)
            for name, schema in device.properties.items()
        },
        "actions": {name: _action(name, action) for name, action in actions.items()},
    }


def _action(name: str, action: Action) -> dict[str, Any]:
    return {
        "title": action.title or name.replace("_", " "),
        "risk": action.risk,
        "safe": action.safe,
        "is_timed": action.ends is not None,
        "input": {argument: _schema(schema) for argument, schema in action.input.items()},
        "writes": dict(action.writes),
    }


def _schema(schema: DataSchema) -> dict[str, Any]:
    plain: dict[str, Any] = {"type": schema.type, "unit": schema.unit, "step": schema.step}
    plain |= {"minimum": schema.minimum, "maximum": schema.maximum, "enum": list(schema.enum) if schema.enum else None}
    plain |= {"levels": schema.levels or None}
    plain |= {"labels": {json.dumps(value): label for value, label in schema.labels.items()} or None}
    return {name: value for name, value in plain.items() if value not in (None, "")}

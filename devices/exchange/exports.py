"""A site in the words of others: W3C Thing Descriptions, OpenAI tools, Home Assistant's MQTT discovery.

Sources: W3C Web of Things Thing Description 1.1; Home Assistant, "MQTT" (discovery messages) and its components.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from devices.drivers.json_values import path_of
from devices.drivers.registry import settings_of
from devices.errors import UsageError
from devices.site.action import Action
from devices.site.describe import property_title
from devices.site.device import Device
from devices.site.schema import DataSchema
from devices.site.site import Site
from devices.site.tools import tools_of

TD_CONTEXT = "https://www.w3.org/2022/wot/td/v1.1"
COMPONENTS = {"boolean": "binary_sensor", "integer": "sensor", "number": "sensor", "string": "sensor"}


def thing_descriptions(site: Site, base: str) -> list[dict[str, Any]]:
    """Return one Thing Description for each device.

    Args:
        site: the devices.
        base: the address under which something serves them; forms are relative to it.
    """
    return [_thing(site, device, base) for device in site.devices.values()]


def _thing(site: Site, device: Device, base: str) -> dict[str, Any]:
    thing: dict[str, Any] = {
        "@context": TD_CONTEXT,
        "id": f"urn:edgewright:{site.name}:{device.name}",
        "title": device.title,
        "base": f"{base.rstrip('/')}/{site.name}/{device.name}/",
        "securityDefinitions": {"nosec_sc": {"scheme": "nosec"}},
        "security": "nosec_sc",
        "properties": {
            name: {"title": property_title(name, schema), **_data_schema(schema), "readOnly": True}
            | {"forms": [{"href": f"properties/{name}", "op": "readproperty"}]}
            for name, schema in device.properties.items()
        },
    }
    if device.actions:
        thing["actions"] = {name: _action_affordance(name, action) for name, action in device.actions.items()}
    return thing


def _action_affordance(name: str, action: Action) -> dict[str, Any]:
    affordance: dict[str, Any] = {"safe": False, "idempotent": not (action.ends or action.is_call)}
    if action.title:
        affordance["title"] = action.title
    if action.input:
        affordance["input"] = {
            "type": "object",
            "properties": {key: _data_schema(schema) for key, schema in action.input.items()},
            "required": list(action.input),
        }
    if action.output:
        affordance["output"] = {
            "type": "object",
            "properties": {key: _data_schema(schema) for key, schema in action.output.items()},
        }
    if action.is_call:
        affordance["safe"] = action.risk == "none"
    return affordance | {"forms": [{"href": f"actions/{name}", "op": "invokeaction"}]}


def _data_schema(schema: DataSchema) -> dict[str, Any]:
    plain = schema.json_schema()
    plain.pop("description", None)
    if schema.levels:
        plain["description"] = schema.levels_text()
    return plain | ({"unit": schema.unit} if schema.unit else {})


def openai_tools(site: Site) -> list[dict[str, Any]]:
    """Return the site's tools in the form of OpenAI's API."""
    return [tool.openai() for tool in tools_of(site)]


def home_assistant_discovery(site: Site) -> dict[str, dict[str, Any]]:
    """Return discovery messages by topic, to be published as retained: what Home Assistant needs to show the devices.

    Only what is read is in them: a switch in Home Assistant would write past the broker, its interlocks, its journal.

    Raises:
        UsageError: no device of the site is on MQTT.
    """
    from devices.drivers.mqtt.driver import routes_of

    messages: dict[str, dict[str, Any]] = {}
    for driver, plain in site.drivers.items():
        if plain["type"] == "mqtt":
            settings, bindings = settings_of(site, driver)
            for device, routes in routes_of(bindings, settings).items():
                messages |= _discovery(site, bindings[device].device, routes)
    if not messages:
        raise UsageError(f"no device of {site.name} is on MQTT, so Home Assistant has nothing to listen to")
    return messages


def _discovery(site: Site, device: Device, routes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, route in routes.items():
        schema, value = device.properties[name], route.value
        component = COMPONENTS[schema.type]
        unique = f"edgewright_{site.name}_{device.name}_{name}"
        path = "".join(f"[{part if part.isdecimal() else json.dumps(part)}]" for part in path_of(value.key))
        raw = f"value_json{path}"
        is_number = component == "sensor" and schema.type != "string"
        scaled = f"{raw} * {value.scale:g} + {value.offset:g}" if is_number else raw
        message: dict[str, Any] = {
            "name": property_title(name, schema),
            "unique_id": unique,
            "state_topic": route.state,
            "value_template": f"{{{{ {scaled} }}}}",
            "device": {"identifiers": [f"edgewright_{site.name}_{device.name}"], "name": device.title},
        }
        if device.area:
            message["device"]["suggested_area"] = site.areas[device.area].title
        if component == "binary_sensor":
            message["payload_off"], message["payload_on"] = map(str, value.words or (False, True))
        elif schema.unit:
            message["unit_of_measurement"] = {"percent": "%", "degrees": "°C"}.get(schema.unit, schema.unit)
        found[f"homeassistant/{component}/{unique}/config"] = message
    return found

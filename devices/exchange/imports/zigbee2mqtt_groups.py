"""Groups of a site from zigbee2mqtt's list of groups, the payload of `zigbee2mqtt/bridge/groups`.

Source: zigbee2mqtt, "MQTT Topics and Messages".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from devices.exchange.imports.imported import Foreign, Imported, parsed, plain_name
from devices.site.site import load_models


class Member(Foreign):
    """One endpoint of a device in a group."""

    ieee_address: str
    endpoint: int | str = ""


class Group(Foreign):
    """A group of devices, as `zigbee2mqtt/bridge/groups` lists them."""

    id: int
    friendly_name: str = ""
    members: tuple[Member, ...]


def read_groups(entries: Iterable[dict[str, Any]], source: str) -> list[Group]:
    """Return the groups of zigbee2mqtt's list. Raises UsageError with the source, the group and the field."""
    return [parsed(Group, plain, f"{source}: group", ("friendly_name", "id")) for plain in entries]


def take_group(made: Imported, group: Group, called: Mapping[str, str], parts: Mapping[str, list[str]]) -> None:
    """Put a group into the site, and it and its members on the account.

    Args:
        made: takes it; the devices are there.
        group: the group.
        called: what zigbee2mqtt calls a device, by address.
        parts: the names that a device has in the site, by address.
    """
    title = group.friendly_name or f"group {group.id}"
    whole, devices = made.offer(title, "group"), list[str]()
    for member in group.members:
        feature = made.offer(title, f"member {called.get(member.ieee_address, member.ieee_address)}")
        there = parts.get(member.ieee_address, [])
        told = [name for name in there if _is_told(made.devices[name])] or there
        if len(told) == 1:
            devices += [name for name in told if name not in devices]
            feature.take()
        else:
            several = f"it has several parts, and nothing says which of them is endpoint {member.endpoint}"
            feature.leave(several if told else "the site does not have it")
    name, number = plain_name(title), 2
    while name in made.groups:
        name, number = f"{plain_name(title)}_{number}", number + 1
    if devices:
        made.groups[name] = {"title": name.replace("_", " "), "devices": devices}
        whole.take()
    else:
        whole.leave("no device that the site has is in it")


def _is_told(entry: Mapping[str, Any]) -> bool:
    """Return whether a device of the site has actions."""
    models = entry.get("model", [])
    named = [models] if isinstance(models, str) else models
    return "actions" in entry or any("actions" in load_models()[model] for model in named)

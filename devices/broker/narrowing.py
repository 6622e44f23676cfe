"""Two policies for the same devices, as one: whatever either forbids is forbidden."""

from __future__ import annotations

from typing import TypeVar

from devices.errors import RefusedError
from devices.site.action import Action, Risk
from devices.site.device import Device
from devices.site.site import Site

Item = TypeVar("Item")
RISKS: tuple[Risk, ...] = ("none", "low", "guarded", "confirm", "forbidden")


def narrowed(own: Site, other: Site) -> Site:
    """Return a box's own site with the other's interlocks, zones, waits and risks added; nothing becomes easier.

    What is safe on the box (a stop) stays as it is, whatever the other says.

    Raises:
        RefusedError: the other has an interlock on what the own site does not have, so that it could not be kept.
    """
    devices = {
        name: _narrowed_device(own, device, other.devices[name]) if name in other.devices else device
        for name, device in own.devices.items()
    }
    return own.model_copy(update={"devices": devices})


def _narrowed_device(own: Site, device: Device, other: Device) -> Device:
    actions = {
        name: _narrowed_action(own, f"{device.name}.{name}", action, other.actions[name])
        if name in other.actions and not action.safe
        else action
        for name, action in device.actions.items()
    }
    return device.model_copy(update={"actions": actions})


def _narrowed_action(own: Site, name: str, action: Action, other: Action) -> Action:
    for requirement in other.requires:
        device, _, key = requirement.property.partition(".")
        if device not in own.devices or key not in own.devices[device].properties:
            raise RefusedError(f"{name} may only be done by {requirement.property}, which {own.name} does not have")
    waits = {key: max(action.wait_after.get(key, 0), other.wait_after.get(key, 0)) for key in _keys(action, other)}
    return action.model_copy(
        update={
            "risk": max(action.risk, other.risk, key=RISKS.index),
            "requires": _union(action.requires, other.requires),
            "keep_out": _union(action.keep_out, other.keep_out),
            "min_interval_s": max(action.min_interval_s, other.min_interval_s),
            "wait_after": waits,
            "unfinished": "stop" if "stop" in {action.unfinished, other.unfinished} else "leave",
        }
    )


def _keys(action: Action, other: Action) -> list[str]:
    return [*action.wait_after, *(key for key in other.wait_after if key not in action.wait_after)]


def _union(own: tuple[Item, ...], other: tuple[Item, ...]) -> tuple[Item, ...]:
    return (*own, *(one for one in other if one not in own))

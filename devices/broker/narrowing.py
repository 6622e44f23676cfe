"""Two policies for the same devices, as one: whatever either forbids is forbidden."""

from __future__ import annotations

from typing import TypeVar

from devices.errors import RefusedError
from devices.site.action import Action, Risk
from devices.site.device import Device
from devices.site.functions import Function, Limit
from devices.site.site import Site

Item = TypeVar("Item")
RISKS: tuple[Risk, ...] = ("none", "low", "guarded", "confirm", "forbidden")


def narrowed(own: Site, other: Site) -> Site:
    """Return a box's own site with the other's interlocks, zones, waits, limits and risks; nothing becomes easier.

    What is safe on the box (a stop) stays as it is, whatever the other says.

    Raises:
        RefusedError: the other has an interlock on what the own site does not have, so that it could not be kept.
    """
    devices = {
        name: _narrowed_device(own, device, other.devices[name]) if name in other.devices else device
        for name, device in own.devices.items()
    }
    functions = {
        name: _narrowed_function(function, other.functions[name]) if name in other.functions else function
        for name, function in own.functions.items()
    }
    return own.model_copy(update={"devices": devices, "functions": functions})


def _narrowed_function(function: Function, other: Function) -> Function:
    limits = {name: _narrowed_limit(function.limits.get(name), other.limits.get(name))
              for name in {**function.limits, **other.limits}}  # fmt: skip
    return function.model_copy(
        update={
            "risk": max(function.risk, other.risk, key=RISKS.index),
            "limits": limits,
            "min_interval_s": max(function.min_interval_s, other.min_interval_s),
        }
    )


def _narrowed_limit(*limits: Limit | None) -> Limit:
    minima = [one.minimum for one in limits if one and one.minimum is not None]
    maxima = [one.maximum for one in limits if one and one.maximum is not None]
    return Limit(minimum=max(minima, default=None), maximum=min(maxima, default=None))


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

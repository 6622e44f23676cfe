"""What makes devices again what they were: for training rows, and for thoughts of "undo"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from devices.site.schema import Value
from devices.site.site import Site
from devices.site.tools import Command, Tool, action_of
from edge_agent.wire.contract import call_text
from edge_agent.wire.messages import State, facts_text


def restoring(site: Site, before: State, now: State, command: Command) -> Command | None:
    """Return the command that makes a device again what it was before one, or None if there is none.

    Args:
        site: of the device.
        before: property values by device, before the command.
        now: the same after it.
        command: that was done.
    """
    device, action = action_of(site, command)
    old, new = before.get(command.device, {}), now.get(command.device, {})
    changed = [key for key in action.writes if key in old and old[key] != new.get(key)]
    if not changed:
        return None

    def restores(effect: Mapping[str, Value]) -> bool:
        return changed[0] in effect and all(old.get(key, value) == value for key, value in effect.items())

    for name, other in device.actions.items():
        if not other.input and not other.is_call and not other.ends and restores(other.effect({})):
            return Command(device.name, name, {})
    for name, other in device.actions.items():
        if len(other.input) != 1 or other.ends or other.is_call:
            continue
        key, schema = next(iter(other.input.items()))
        written = next((one for one, value in other.writes.items() if str(value).split(" ")[0] == f"${key}"), "")
        value = old.get(written)
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if value is None or schema.problem_with(value):
            continue
        if restores(other.effect({key: value})):
            return Command(device.name, name, {key: value})
    return None


def undoing(site: Site, before: State, now: State, done: Sequence[Command]) -> tuple[Command, ...]:
    """Return the commands that undo others, the last one first; none if one of them cannot be undone."""
    back = [restoring(site, before, now, command) for command in reversed(done)]
    return tuple(one for one in back if one) if all(back) else ()


def undo_text(site: Site, tools: Sequence[Tool], before: State, commands: Sequence[Command]) -> str:
    """Return commands that undo others as a thought has them after "undo,": `fan was speed=1, fan_set speed=1`."""
    calls = (call_text(site, tools, one) for one in commands)
    return "; ".join(
        f"{one.device} was{facts_text(before[one.device])}, {call}" for one, call in zip(commands, calls, strict=True)
    )

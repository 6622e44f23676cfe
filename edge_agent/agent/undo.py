"""What makes devices again what they were: for training rows, and for thoughts of "undo"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from devices.site.relative_values import written_property
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

    usable = {
        name: one
        for name, one in device.actions.items()
        if not one.is_call and not one.ends and one.risk != "forbidden"
    }
    for name, other in usable.items():
        if not other.input and restores(other.effect({})) and not other.is_already_so(dict(new), {}):
            return Command(device.name, name, {})
    for name, other in usable.items():
        if len(other.input) != 1:
            continue
        ((key, schema),) = other.input.items()
        value = old.get(written_property(other, key))
        value = int(value) if isinstance(value, float) and value.is_integer() else value
        if value is None or schema.problem_with(value):
            continue
        if restores(other.effect({key: value})):
            return Command(device.name, name, {key: value})
    return None


def undoing(site: Site, before: State, now: State, done: Sequence[Command]) -> tuple[Command, ...]:
    """Return the commands that undo others, the last one first; none if one that changed something cannot be undone."""
    changed = [one for one in reversed(done) if _is_changed(site, before, now, one)]
    back: list[Command] = []
    for one in changed:
        if (restored := restoring(site, before, now, one)) is None:
            return ()
        back += [] if restored in back else [restored]
    return tuple(back)


def _is_changed(site: Site, before: State, now: State, command: Command) -> bool:
    old, new = before.get(command.device, {}), now.get(command.device, {})
    return any(old.get(key) != new.get(key) for key in action_of(site, command)[1].writes)


def undo_text(site: Site, tools: Sequence[Tool], before: State, commands: Sequence[Command]) -> str:
    """Return commands that undo others as a thought has them after "undo,": `fan was speed=1, fan_set speed=1`."""
    calls = (call_text(site, tools, one) for one in commands)
    return "; ".join(
        f"{one.device} was{facts_text(before[one.device])}, {call}" for one, call in zip(commands, calls, strict=True)
    )

"""Plans of moving one axis of what moves in several: "z to 150, leave the rest", "10 mm lower with the arm".

The thought names the axis first, and the others are called as they are.
"""

from __future__ import annotations

from dataclasses import replace

from devices.site.describe import number_text
from devices.site.device import Device
from devices.site.relative_values import WAYS, allowed, written_property
from devices.site.schema import DataSchema, Value
from devices.site.tools import Command
from edge_agent.wire.contract import call_text
from edge_agent.wire.messages import facts_text
from finetune.data.answer_plans import answer_about
from finetune.data.people.spoken_values import spoken_value
from finetune.data.scene import Plan, Said, Scene, resolved_text

HEIGHT = "z"
OF_HEIGHT = {"up_to": "to", "up": "more", "down": "less", "a_bit_up": "a_bit_more", "a_bit_down": "a_bit_less"}
AMOUNTS = (1, 5, 10, 10, 15, 20, 20, 25, 30, 50)
WHERE_SHARE = 0.1  # of requests ask where it is
UNIT_SHARE = 0.6  # of numbers are said with their unit
Axes = dict[str, tuple[DataSchema, float]]  # by argument: what it may be, and what it is now


def plan_axis(scene: Scene) -> Plan | None:
    """One of several axes of a device is moved, the others stay."""
    choices = [(device, name, axes) for device, name, _ in scene.actions() if (axes := _axes(scene, device, name))]
    if not choices:
        return None
    device, name, axes = scene.rng.choice(choices)
    if scene.rng.random() < WHERE_SHARE:
        return _where(scene, device)
    axis = scene.rng.choice([*axes, *([HEIGHT] * 2 if HEIGHT in axes else [])])
    form = scene.rng.choice(("to", "to", "more", "less", *(OF_HEIGHT if axis == HEIGHT else ())))
    way, (schema, now) = OF_HEIGHT.get(form, form), axes[axis]
    if way == "to":
        value, words = scene.value_for(schema), "only"
        holes = {"value": _said(scene, schema, value)}
    elif way in ("more", "less"):
        amount = scene.rng.choice(AMOUNTS)
        value = allowed(schema, now + (amount if way == "more" else -amount))
        holes, words = {"amount": _said(scene, schema, amount)}, f"{number_text(amount)} {way}"
    else:
        value, words, holes = allowed(schema, WAYS[way].value(now, schema)), WAYS[way].words, {}
    if (said := _filled(scene, form, device, axis=axis, **holes)) is None:
        return None
    arguments = {one: value if one == axis else allowed(*stays) for one, stays in axes.items()}
    if value == now or device.actions[name].order_problem(arguments):
        return None
    command = Command(device.name, name, arguments)
    facts, call = facts_text(scene.state[device.name]), call_text(scene.site, scene.tools, command)
    thought = f"{words} {axis}: {resolved_text(said.name, device)}:{facts}, {call}."
    return Plan("axis", scene.typed(said.request), (said.template,), thought, ((command,),))


def _where(scene: Scene, device: Device) -> Plan | None:
    """A question about all axes."""
    if (said := _filled(scene, "where", device)) is None:
        return None
    state = scene.state[device.name]
    thought = f"{resolved_text(said.name, device)}:{facts_text(state)}."
    answer = answer_about(device, state, list(state))
    return Plan("question", scene.typed(said.request), (said.template,), thought, answer=answer)


def _filled(scene: Scene, form: str, device: Device, **holes: str) -> Said | None:
    """Return a request of a form; one that does not name the device is only used, and has its title, if it is alone."""
    is_alone = sum(one.kind == device.kind for one in scene.site.devices.values()) == 1
    lines = [one for one in scene.corpus.form("axes", form) if is_alone or "{device}" in one]
    said = scene.fill(lines, device, **holes)
    return replace(said, name=device.title) if said and "{device}" not in said.template else said


def _axes(scene: Scene, device: Device, name: str) -> Axes:
    """Return the axes of an action, if it has several and nothing else."""
    action, axes = device.actions[name], Axes()
    for key, schema in action.input.items():
        now = scene.state[device.name].get(written_property(action, key))
        if isinstance(now, bool) or not isinstance(now, int | float) or schema.minimum is None or not schema.unit:
            return {}
        axes[key] = schema, float(now)
    return axes if len(axes) > 1 else {}


def _said(scene: Scene, schema: DataSchema, value: Value) -> str:
    return spoken_value(schema, value, scene.rng) if scene.rng.random() < UNIT_SHARE else str(value)

"""The exchange that a next utterance refers to, and how people name a device again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from devices.site.device import Device
from devices.site.tools import Command
from edge_agent.evaluation.cases import State
from edge_agent.wire.contract import call_text
from finetune.data.scene import Plan, Said, Scene

QUESTIONS = ("question", "follow_question", "recital")


@dataclass(frozen=True)
class Before:
    """The exchange before: its plan, the commands that were done in it, and the state that it began with."""

    plan: Plan
    done: tuple[Command, ...]
    state: State


def only_moved(scene: Scene, before: Before) -> tuple[Device, Command] | None:
    """Return the one device that was moved, with the command."""
    if len({command.device for command in before.done}) != 1:
        return None
    command = before.done[-1]
    return scene.site.devices[command.device], command


def spoken_of(scene: Scene, before: Before) -> tuple[Device, str] | None:
    """Return the one device that was moved, with the action, or that was asked about, with ""."""
    if only := only_moved(scene, before):
        return only[0], only[1].action
    named = re.findall(r"\bis (\w+):", before.plan.thought) if before.plan.kind in QUESTIONS else []
    return (scene.site.devices[named[0]], "") if len(named) == 1 else None


def not_done(before: Before) -> Command | None:
    """Return the one command of an exchange in which a yes is needed, or None."""
    commands = [one for step in before.plan.steps for one in step if isinstance(one, Command)]
    return commands[0] if before.plan.kind == "confirmation" and len(commands) == 1 and not before.done else None


def several_spoken_of(before: Before) -> list[str]:
    """Return the devices that were moved, or asked about one by one."""
    if before.done or before.plan.kind != "recital":
        return list(dict.fromkeys(command.device for command in before.done))
    return re.findall(r"\bis (\w+):", before.plan.thought)


def alike(before: Before) -> Command | None:
    """Return the last command of an exchange, if all that were done in it are the same but for the device."""
    return before.done[-1] if len({(one.action, str(one.input)) for one in before.done}) == 1 else None


def line_about(scene: Scene, device: Device, keys: Sequence[str], **holes: str) -> Said | None:
    """Return what is said next of a device, which is called by its name, by what tells it from others, or by its place.

    The name is then as in Scene.fill.
    """
    name, last = scene.name_for(device), device.title.split()[-1]
    part, place = device.title.removesuffix(f" {last}"), scene.place_of(device)
    if part != device.title and sum(one.title.startswith(part) for one in scene.site.devices.values()) == 1:
        holes = {"part": part, **holes}
    if place:
        holes = {"area": f"the {place}", **holes}
    line = scene.line("follow_ups", *keys, device=scene.with_article(name), **holes)
    if line is None:
        return None
    hole = next((one for one in ("device", "part", "area") if f"{{{one}}}" in line[1]), "")
    called = {"device": name, "part": part, "area": f"{place}: {device.title}", "": "the other one"}
    return Said(line[0], line[1], called[hole])


def wanted_call(scene: Scene, command: Command) -> str:
    """Return the end of a thought whose device is known from before: its name, and the call."""
    return f"{command.device}, {call_text(scene.site, scene.tools, command)}"

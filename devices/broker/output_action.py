"""Actions that have an answer instead of an effect to be read back: look-ups, and orders to other systems."""

from __future__ import annotations

from typing import Literal

from devices.driver import CallDriver, CallRefused, DeviceUnavailable, Driver
from devices.site.action import Action
from devices.site.describe import answer_text, plain_text
from devices.site.schema import Value
from devices.site.site import Device
from devices.site.tools import Command, input_problem

Answered = tuple[Literal["done", "failed", "unknown"], str, dict[str, Value], str]


def ask(driver: Driver, device: Device, action: Action, command: Command, key: str) -> Answered:
    """Carry the action out, once, and judge the answer.

    Returns:
        status, the report for people, the result for the model, and the far side's own words if something went wrong.
        The result has only values that fit the action's output: free text stays with the people.
    """
    try:
        if not isinstance(driver, CallDriver):
            raise CallRefused(f"the driver of {device.name} gives no answers")
        answer = driver.call(device.name, command.action, command.input, key)
    except CallRefused as error:
        return "failed", f"The {device.title} refused.", {"reason": "refused"}, plain_text(str(error))
    except DeviceUnavailable as error:
        return _no_answer(device, action, str(error))
    if answer is None:
        return "failed", f"There is no such {device.title}.", {"reason": "not found"}, ""
    values = {name: answer[name] for name in action.output if name in answer}
    if problem := input_problem(action.output, values):
        return _no_answer(device, action, problem)
    return "done", answer_text(action, command.input, answer), values, ""


def _no_answer(device: Device, action: Action, heard: str) -> Answered:
    heard = plain_text(heard)
    if action.risk == "none":  # it only asks
        return "failed", f"The {device.title} gives no answer.", {"reason": "no answer"}, heard
    return "unknown", f"I do not know whether the {device.title} changed.", {"reason": "no answer"}, heard

"""Actions that have an answer instead of an effect to be read back: look-ups, and orders to other systems."""

from __future__ import annotations

import json
from typing import Any, Literal

from devices.driver import CallDriver, CallRefused, DeviceUnavailable, Driver
from devices.site.action import Action
from devices.site.describe import answer_text, plain_text
from devices.site.device import Device
from devices.site.functions import FunctionAction
from devices.site.schema import Value, input_problem
from devices.site.tools import Command

Answered = tuple[Literal["done", "failed", "unknown"], str, dict[str, Value], str]
# Of a function's answer: what a prompt of a small model has room for.
ANSWER_CHARACTERS, TEXT_CHARACTERS, ANSWER_ITEMS, CUT = 4000, 1000, 20, " … (cut)"


def ask(driver: Driver, device: Device, action: Action, command: Command, key: str) -> Answered:
    """Carry the action out, once, and judge the answer.

    Returns:
        status, the report for people, the result for the model, and the far side's own words if something went wrong.
        The result has only values that fit the action's output: free text stays with the people.
    """
    if isinstance(action, FunctionAction):
        return _ask_function(driver, device, action, command, key)
    try:
        answer = _answer(driver, device, command, key)
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


def _ask_function(driver: Driver, device: Device, action: Action, command: Command, key: str) -> Answered:
    """Carry a function out: its answer is the result as it is, and what it says against it is one, too."""
    try:
        return "done", f"{device.title}: done.", bounded(_answer(driver, device, command, key)), ""
    except CallRefused as error:
        heard = plain_text(str(error))
        return "failed", f"{device.title} refused: {heard}.", {"reason": heard}, heard
    except DeviceUnavailable as error:
        heard = plain_text(str(error))
        if action.risk == "none":
            return "failed", f"{device.title} failed: {heard}.", {"reason": heard}, heard
        return "unknown", f"I do not know whether {device.title} was done: {heard}.", {"reason": heard}, heard


def _answer(driver: Driver, device: Device, command: Command, key: str) -> Any:
    if not isinstance(driver, CallDriver):
        raise CallRefused(f"the driver of {device.name} gives no answers")
    return driver.call(device.name, command.action, command.input, key)


def bounded(answer: Any) -> dict[str, Any]:
    """Return what a function answered as an object, cut to what a prompt can take."""
    plain = answer if isinstance(answer, dict) else {} if answer is None else {"result": answer}
    cut: dict[str, Any] = _cut(plain)
    if len(json.dumps(cut, ensure_ascii=False)) <= ANSWER_CHARACTERS:
        return cut
    return {"result": json.dumps(cut, ensure_ascii=False)[:ANSWER_CHARACTERS] + CUT}


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _cut(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        more = [f"and {len(value) - ANSWER_ITEMS} more"] if len(value) > ANSWER_ITEMS else []
        return [*map(_cut, value[:ANSWER_ITEMS]), *more]
    if isinstance(value, str) and len(value) > TEXT_CHARACTERS:
        return value[:TEXT_CHARACTERS] + CUT
    return value


def _no_answer(device: Device, action: Action, heard: str) -> Answered:
    heard = plain_text(heard)
    if action.risk == "none":  # it only asks
        return "failed", f"The {device.title} gives no answer.", {"reason": "no answer"}, heard
    return "unknown", f"I do not know whether the {device.title} changed.", {"reason": "no answer"}, heard

"""What a message of an MQTT client asks for: a request in words, a yes, or a command of a device.

Pure. Whatever does not fit is a UsageError of one line. Home Assistant's words ON, OFF and PRESS are understood.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devices.errors import UsageError, did_you_mean
from devices.site.action import Action
from devices.site.describe import plain_text
from devices.site.device import Device
from devices.site.scenes import steps_for
from devices.site.schema import DataSchema, Value
from devices.site.site import Site
from devices.site.tools import Command

MOST_BYTES = 4096  # of a payload
LONGEST_NAME = 128  # of a session and of an id
LONGEST_NUMBER = 15  # digits; a double holds them
PRESS = "PRESS"  # Home Assistant's button
BOOLEANS = {"ON": True, "OFF": False, "on": True, "off": False, "true": True, "false": False}


@dataclass(frozen=True)
class Topics:
    """Where everything of a site stands; `base` is TOPIC/SITE."""

    base: str

    def __call__(self, name: str) -> str:
        """Return the topic of a name below the base."""
        return f"{self.base}/{name}"

    def state(self, device: str) -> str:
        """Return where a device's properties are."""
        return f"{self.base}/state/{device}"

    def availability(self, device: str = "") -> str:
        """Return where it is said whether a device answers, or whether the box is there."""
        return f"{self.state(device)}/availability" if device else f"{self.base}/availability"

    def command(self, device: str, name: str = "") -> str:
        """Return where a device is commanded: an action or a property by its name, or any action."""
        return f"{self.base}/command/{device}" + (f"/{name}" if name else "")

    def require_answerable(self, topic: str, discovery_prefix: str) -> None:
        """Raise UsageError if an answer there could be taken for a command, or is nobody's to hear."""
        is_ours = topic.startswith(f"{self.base}/") and not topic.startswith(f"{self.base}/answer/")
        if is_ours or topic.startswith(("$", f"{discovery_prefix}/")) or re.search(r"[+#\0]", topic):
            raise UsageError(f"no answer can go to {plain_text(topic)}", hint=f"take one under {self.base}/answer/")


@dataclass(frozen=True)
class Ask:
    """A request in words; `session` and `id` are "" if none was given."""

    text: str
    session: str = ""
    id: str = ""


@dataclass(frozen=True)
class Confirm:
    """A yes, or a no, to what waits under `id` in a session."""

    id: str
    is_yes: bool
    session: str = ""


def text_of(payload: bytes) -> str:
    """Return a payload as text. Raises UsageError: it is too long, or not UTF-8."""
    if len(payload) > MOST_BYTES:
        raise UsageError(f"the payload has {len(payload)} bytes; at most {MOST_BYTES} are taken")
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise UsageError("the payload is not UTF-8") from error


def parse_json(text: str) -> Any:
    """Return JSON of a client. Raises UsageError: it is none, or has a number that no device has."""

    def number(digits: str) -> float:
        if not math.isfinite(float(digits)):
            raise ValueError("the number is too large")
        return float(digits)

    def whole(digits: str) -> int:
        if len(digits) > LONGEST_NUMBER:
            raise ValueError("the number is too large")
        return int(digits)

    def refuse(word: str) -> float:
        raise ValueError(f"{word} is no number")

    try:
        found = json.loads(text, parse_int=whole, parse_float=number, parse_constant=refuse)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError as error:
        raise UsageError("the JSON is too deep") from error
    except ValueError as error:
        raise UsageError(f"not JSON: {plain_text(str(error))}") from error
    return found


def parse_ask(payload: bytes) -> Ask:
    """Return a request: plain text, or a JSON object with `text` and, if wanted, `session` and `id`."""
    text = text_of(payload).strip()
    if not text.startswith("{"):
        return Ask(text)
    found = _object(text, {"text"}, {"session", "id"})
    return Ask(_word(found, "text", MOST_BYTES), _word(found, "session"), _word(found, "id"))


def parse_confirm(payload: bytes) -> Confirm:
    """Return what a JSON object with `id`, `yes` and, but for answers at a response topic, `session` says."""
    found = _object(text_of(payload), {"id", "yes"}, {"session"})
    if not isinstance(found["yes"], bool):
        raise UsageError("yes must be true or false")
    return Confirm(_word(found, "id"), found["yes"], _word(found, "session"))


def parse_command(site: Site, path: Sequence[str], payload: bytes) -> tuple[Command, str]:
    """Return the command that a payload means, and the id it was given or "".

    Args:
        site: the devices.
        path: the topic below `command`: a device; or a device and one of its actions or properties.
        payload: to a device an action's name, or `{"action": …, "input": {…}, "id": …}`; to an action its input as an
            object, or the value alone if it takes one, or PRESS if it takes none; to a property what it shall be.

    Raises:
        UsageError: there is no such device, action or property, or the payload does not fit.
    """
    if (device := site.devices.get(path[0])) is None:
        raise UsageError(f"there is no device {plain_text(path[0])}", hint=did_you_mean(path[0], site.devices))
    text = text_of(payload).strip()
    if len(path) == 1:
        return _named_action(device, text)
    name = path[1]
    action = device.actions.get(name)
    if action and action.input:
        given, id_ = _arguments(action, text)
        return _checked(device, name, given), id_
    if action and text in (PRESS, "{}"):
        return Command(device.name, name, {}), ""
    if name in device.properties:
        return _setting(device, name, text), ""
    if action:
        raise UsageError(f"{device.name} {name} takes {PRESS}")
    known = [*device.actions, *device.properties]
    raise UsageError(f"{device.name} has no {plain_text(name)}", hint=did_you_mean(name, known))


def _named_action(device: Device, text: str) -> tuple[Command, str]:
    if not text.startswith("{"):
        return _checked(device, text, {}), ""
    found = _object(text, {"action"}, {"input", "id"})
    given = found.get("input", {})
    if not isinstance(given, dict):
        raise UsageError("input must be an object")
    name = _word(found, "action")
    action = device.actions.get(name)
    schemas = action.input if action else {}
    whole = {key: _whole(schemas[key], value) if key in schemas else value for key, value in given.items()}
    return _checked(device, name, whole), _word(found, "id")


def _arguments(action: Action, text: str) -> tuple[dict[str, Value], str]:
    if not text.startswith("{"):
        if len(action.input) > 1:
            raise UsageError(f"a JSON object is needed, with {', '.join(action.input)}")
        (name, schema), *_ = action.input.items()
        return {name: value_of(schema, text)}, ""
    found = parse_json(text)
    id_ = "" if "id" in action.input else _word(found, "id")
    if "id" not in action.input:
        found.pop("id", None)
    given = {
        name: _whole(action.input[name], value) if name in action.input else value for name, value in found.items()
    }
    return given, id_


def _checked(device: Device, name: str, given: dict[str, Any]) -> Command:
    if name not in device.actions:
        raise UsageError(
            f"{device.name} has no action {plain_text(name)!r}", hint=did_you_mean(name[:LONGEST_NAME], device.actions)
        )
    if problem := device.actions[name].input_problem(given):
        raise UsageError(f"{device.name} {name}: {plain_text(problem)}")
    return Command(device.name, name, given)


def _setting(device: Device, name: str, text: str) -> Command:
    value = value_of(device.properties[name], text)
    try:
        steps = steps_for(device.properties, device.actions, {name: value})
    except ValueError as error:
        raise UsageError(f"{device.name}: {plain_text(str(error))}") from error
    return Command(device.name, *steps[0])


def value_of(schema: DataSchema, text: str) -> Value:
    """Return what a payload says of a property or an argument. Raises UsageError if it does not fit.

    Of a boolean: ON, OFF, true, false or the site's own words; of a number also the name of a level.
    """
    if schema.type == "boolean":
        known = BOOLEANS | {label: value for value, label in schema.labels.items()}
        if text not in known:
            raise UsageError(f"{plain_text(text)!r} is not ON or OFF")
        return known[text]
    value = text if schema.type == "string" else schema.levels.get(text)
    if value is None or text.startswith('"'):
        value = _whole(schema, parse_json(text))
    if problem := schema.problem_with(value):
        raise UsageError(plain_text(problem))
    return value


def _whole(schema: DataSchema, value: Any) -> Any:
    """Return a whole number as such: Home Assistant says 21.0 for 21."""
    is_whole = schema.type == "integer" and isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else value


def _object(text: str, needed: set[str], possible: set[str]) -> dict[str, Any]:
    found = parse_json(text)
    if not isinstance(found, dict):
        raise UsageError(f"a JSON object is needed, with {', '.join(sorted(needed))}")
    if missing := needed - found.keys():
        raise UsageError(f"{min(missing)} is missing")
    if strange := found.keys() - needed - possible:
        known = needed | possible
        raise UsageError(f"{plain_text(min(strange))!r} is no key of it", hint=f"it has {', '.join(sorted(known))}")
    return found


def _word(found: Mapping[str, Any], name: str, longest: int = LONGEST_NAME) -> str:
    word = found.get(name, "")
    if not isinstance(word, str) or len(word) > longest:
        raise UsageError(f"{name} must be a text of at most {longest} letters")
    return word

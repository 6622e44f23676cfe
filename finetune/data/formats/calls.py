"""Calls in the spellings of data sets: `rain(town="Jena", hours=2)`, a list of these in brackets, and JSON."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from devices.site.tools import ToolCall
from finetune.data.formats.errors import Unreadable

_NAME = r"[^\W\d][^()\[\]{}\"'=,\n]*?"  # blanks and dots too: Rain Radar, weather.get
_HEAD = re.compile(rf"\s*({_NAME})\s*\(")
_ARGUMENT = re.compile(r"\s*([^\s()\[\]{}\"'=,]+)\s*=")
_LAST = re.compile(r"\s*,?\s*\]\s*\Z")
_BRACKETS = re.compile(rf"\[\s*{_NAME}\(")
_END_OF_BRACKETS = re.compile(r"\)\s*,?\s*\]\s*\Z")
_JSON = re.compile(r"[\[\s]*\{\s*\"(?:name|arguments|parameters|type|function|id)\"\s*:")
_LINE_START = re.compile(r"^(?:<\|python_tag\|>|\[TOOL_CALLS\])?[ \t]*", re.MULTILINE)  # Llama's mark, Mistral's mark


class Spelled(float):
    """A float that is written as it was: 50.00."""

    def __new__(cls, text: str) -> Spelled:  # noqa: D102
        return super().__new__(cls, text)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def parse_call(text: str) -> ToolCall:
    """Return the call that `refund(id="TXN9982", amount=50.00)` stands for.

    Raises:
        Unreadable: not a call, or an argument is unnamed or no constant.
    """
    call, end = _call_at(text, 0)
    if text[end:].strip():
        raise Unreadable(f"not a call: {text.strip()[:80]!r}")
    return call


def untagged_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return the text before calls that fill the last lines of a text, and the calls; without any, all of the text.

    They are in brackets, as the prompts of Llama 3.2 and BFCL ask for, or JSON.

    Raises:
        Unreadable: what looks like calls cannot be read.
    """
    ends_in_brackets = _END_OF_BRACKETS.search(text)
    for line in _LINE_START.finditer(text):
        if ends_in_brackets and _BRACKETS.match(text, line.end()):
            return text[: line.start()].strip(), _in_brackets(text[line.end() :])
        if _JSON.match(text, line.end()):
            return text[: line.start()].strip(), tuple(map(call_of, json_values(text[line.end() :], "calls")))
    return text, ()


def json_values(text: str, what: str) -> list[Any]:
    """Return JSON values that stand one after the other, or in a list. Raises Unreadable, which says what they are."""
    decoder, values, at = json.JSONDecoder(), [], 0
    try:
        while text[at:].strip():
            at += len(text[at:]) - len(text[at:].lstrip())
            value, at = decoder.raw_decode(text, at)
            values += value if isinstance(value, list) else [value]
            at += len(text[at:]) - len(text[at:].lstrip(" \n,;"))
    except ValueError as error:
        raise Unreadable(f"the {what} are not JSON: {error}") from error
    return values


def call_of(plain: Any) -> ToolCall:
    """Return the call of `{"name", "arguments"}`, or of OpenAI's, which has it as its function. Raises Unreadable.

    Arguments may be JSON in a string; none at all, or null, are no arguments.
    """
    if isinstance(plain, dict) and isinstance(plain.get("function"), dict):
        plain = plain["function"]
    if not isinstance(plain, dict) or not isinstance(plain.get("name"), str):
        raise Unreadable(f"a call without a name: {json.dumps(plain)[:80]}")
    arguments: Any = next((plain[key] for key in ("arguments", "parameters") if plain.get(key) is not None), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise Unreadable(f"the arguments of {plain['name']} are not JSON: {arguments[:80]!r}") from error
    if not isinstance(arguments, dict):
        raise Unreadable(f"the arguments of {plain['name']} are no object")
    return ToolCall(plain["name"], arguments)


def _in_brackets(text: str) -> tuple[ToolCall, ...]:
    calls, at = [], text.index("[") + 1
    while True:
        call, at = _call_at(text, at)
        calls.append(call)
        if _LAST.match(text, at):
            return tuple(calls)
        if not text[at:].lstrip().startswith(","):
            raise Unreadable(f"not a list of calls: {text.strip()[:80]!r}")
        at = text.index(",", at) + 1


def _call_at(text: str, at: int) -> tuple[ToolCall, int]:
    """Return the call that begins at a place of a text, and where it ends."""
    head = _HEAD.match(text, at)
    if not head:
        raise Unreadable(f"not a call: {text[at:].strip()[:80]!r}")
    arguments: dict[str, Any] = {}
    end = head.end()
    while not text[end:].lstrip().startswith(")"):
        name = _ARGUMENT.match(text, end)
        if not name:
            raise Unreadable(f"not a call with named arguments: {text[at:].strip()[:80]!r}")
        arguments[name[1]], end = _value_at(text, name.end())
        end += text[end] == ","
    return ToolCall(head[1], arguments), text.index(")", end) + 1


def _value_at(text: str, at: int) -> tuple[Any, int]:
    """Return the value that begins at a place of a text, and where the comma or bracket after it stands."""
    for stop in re.compile("[,)]").finditer(text, at):
        piece = text[at : stop.start()].strip()
        try:
            ast.parse(piece, mode="eval")
        except (SyntaxError, ValueError):  # the comma or bracket stands in the value
            continue
        return _constant(piece), stop.start()
    raise Unreadable(f"not a call: it does not end after {text[:at].strip()[-80:]!r}")


def _constant(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except ValueError:
        value = _json_constant(text)
    if isinstance(value, float):
        return Spelled(text)
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise Unreadable(f"an argument is no constant that JSON has: {text[:80]}") from error


def _json_constant(text: str) -> Any:
    try:
        return json.loads(text)  # true, false, null
    except ValueError as error:
        raise Unreadable(f"an argument is no constant: {text[:80]}") from error

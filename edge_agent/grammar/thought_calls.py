"""The calls that a finished thought has already named: each device, its tool and every value.

    undo, fan was speed=1, fan_set speed=1, speed: 0..3.
    both: fan is bathroom_fan, fan_set speed=2, speed: 0..3; All of light_off(device: a | b | c) but porch is b.

A thought that says anything else, or leaves something open, names no calls; then the model writes what follows.
Areas, floors and groups are written by the model: what is in them is not in the thought.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edge_agent.grammar.grammar import Known, KnownTool
from edge_agent.wire.markers import CALL, END_CALL, THEN

CONDITION = "(?:if|unless|only if|if or else)"  # the wish of what hangs on a fact
_LOOKED_UP = re.compile(rf"{CONDITION}: .*: (?:yes|no)")
_ONE = re.compile(r"(?:.*[:,] )?(?:(?! is )[^:,])+ is (\w+)(?:: [^,]*)?, (\w+)((?: .*)?)")
_BACK = re.compile(r"(?:undo, )?(\w+) was [^,]*, (\w+)((?: .*)?)")
_ALL = re.compile(r"(?:.*: )?All of (\w+)\(([^)]*)\)( but [^,]+)?(?:, \1( .*))?")
_BUT = re.compile(r"(?: but | and )[^:,]+? is (\w+)")


def calls_of(thought: str, known: Known) -> str:
    """Return the calls of a thought, without its markers, as a reply has them; "" if it does not name them all."""
    parts = thought.split(THEN)[0].removesuffix(".").split("; ")
    if len(parts) > 1 and _LOOKED_UP.fullmatch(parts[0]):
        parts = parts[1:]
    tools = {one.tool: one for one in known.tools}
    try:
        calls = [call for part in parts for call in _calls_of(part, tools, known)]
    except _Open:
        return ""
    texts = (json.dumps(call, ensure_ascii=False, separators=(",", ":")) for call in calls)
    return "".join(f"{CALL}{text}{END_CALL}" for text in texts)


class _Open(Exception):
    """A part of a thought that does not name its calls."""


def _calls_of(part: str, tools: Mapping[str, KnownTool], known: Known) -> Iterator[dict[str, Any]]:
    if found := _ALL.fullmatch(part):
        tool, listed, but, values = found.groups()
        left_out = _BUT.findall(but or "")
        if tool not in tools or tools[tool].listed != listed or (but and not left_out):
            raise _Open
        devices = [one for one in tools[tool].devices if one not in left_out]
        if len(devices) + len(left_out) != len(tools[tool].devices):
            raise _Open
    elif found := _BACK.fullmatch(part) or _ONE.fullmatch(part):
        device, tool, values = found.groups()
        if tool not in tools or device not in tools[tool].devices:
            raise _Open
        devices = [device]
    else:
        raise _Open
    for device in devices:
        yield {"name": tool, "arguments": {"device": device, **_values(values or "", device, tool, known)}}


def _values(text: str, device: str, tool: str, known: Known) -> Mapping[str, Any]:
    """Return the arguments of a part of a thought: ` speed=2, speed: 0..3 mode="low"`."""
    bounds = {one.argument: one.bounds for one in known.numbers if (one.device, one.tool) == (device, tool)}
    values: dict[str, Any] = {}
    while text:
        if (named := re.match(r" (\w+)=", text)) is None:
            raise _Open
        try:
            values[named[1]], end = json.JSONDecoder().raw_decode(text, named.end())
        except ValueError:
            raise _Open from None
        text = text[end:].removeprefix(f", {named[1]}:{bounds[named[1]]}") if named[1] in bounds else text[end:]
    return values

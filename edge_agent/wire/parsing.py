"""A reply of the model, parsed to calls or an answer.

Does not guard against: what a tool call would do (that is the broker's work).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from devices.site.tools import Tool, ToolCall, commands_of
from edge_agent.wire.markers import CALL, END_CALL, END_THINK, MARKERS, THINK


@dataclass(frozen=True)
class ToolCalls:
    """A reply that proposes calls. Each fits its tool's schema."""

    thought: str
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class Answer:
    """A reply to the person."""

    thought: str
    text: str


@dataclass(frozen=True)
class Unusable:
    """A reply that is neither."""

    reason: str


Reply = ToolCalls | Answer | Unusable


def parse_reply(text: str, tools: Sequence[Tool]) -> Reply:
    """Return the decision in an assistant's reply; its end-of-turn token is already cut off."""
    if not text.startswith(THINK) or END_THINK not in text:
        return Unusable("no thought at the start")
    thought, rest = text.removeprefix(THINK).split(END_THINK, 1)
    thought = thought.removeprefix(" ")
    if any(marker in thought for marker in MARKERS):
        return Unusable("a marker inside the thought")
    if not rest.startswith(CALL):
        if any(marker in rest for marker in MARKERS):
            return Unusable("a marker inside the answer")
        return Answer(thought, rest) if rest.strip() else Unusable("neither a call nor an answer")
    calls = []
    while rest:
        if not rest.startswith(CALL) or END_CALL not in rest:
            return Unusable("text between or after the calls")
        body, rest = rest.removeprefix(CALL).split(END_CALL, 1)
        call = _parse_call(body)
        if isinstance(call, Unusable):
            return call
        if isinstance(problem := commands_of(call, tools), str):
            return Unusable(problem)
        calls.append(call)
    return ToolCalls(thought, tuple(calls))


def _parse_call(body: str) -> ToolCall | Unusable:
    try:
        value = json.loads(body)
    except ValueError as error:
        return Unusable(f"not JSON: {error}")
    if not isinstance(value, dict) or set(value) != {"name", "arguments"}:
        return Unusable("a call is an object with name and arguments")
    if not isinstance(value["name"], str) or not isinstance(value["arguments"], dict):
        return Unusable("name is a string and arguments an object")
    return ToolCall(value["name"], value["arguments"])

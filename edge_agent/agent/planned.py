"""The steps that a thought has planned: its calls, and what it names after "; then ", each once the one before is done.

A thought that names all calls leaves nothing to ask the model for: what it would say after them is the same each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.site.tools import Tool, ToolCall
from edge_agent.grammar.grammar import Known
from edge_agent.grammar.thought_calls import calls_of
from edge_agent.wire.markers import END_THINK, THEN, THINK
from edge_agent.wire.parsing import ToolCalls, parse_reply


@dataclass(frozen=True)
class Step:
    """One step of a thought, and its calls."""

    text: str
    calls: tuple[ToolCall, ...]


def planned_steps(reply: ToolCalls, known: Known, tools: Sequence[Tool]) -> list[Step]:
    """Return a reply as the steps that its thought names; none if it does not name all calls of the reply and after."""
    steps = []
    for text in reply.thought.removesuffix(".").split(THEN):
        named = parse_reply(f"{THINK} {END_THINK}{calls_of(text, known)}", tools)
        if not isinstance(named, ToolCalls):
            return []
        steps.append(Step(text, named.calls))
    return steps if steps[0].calls == reply.calls else []

"""The grammar of a reply, for llguidance: thought, then calls that fit their schemas, or an answer.

Fails closed: a grammar that cannot be built raises, and without one the agent makes no tool call.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from devices.tools import Tool

THOUGHT_CHARACTERS = 400
ANSWER_CHARACTERS = 600
MAX_CALLS = 12


@dataclass(frozen=True)
class Grammar:
    """A grammar in llguidance's Lark dialect; equal grammars have equal `lark`."""

    lark: str


def reply_grammar(tools: Sequence[Tool], single_token_markers: bool = True) -> Grammar:
    """Return the grammar of one assistant turn, without its end-of-turn token.

    Args:
        tools: the tools that may be called; with none, only an answer is possible.
        single_token_markers: whether `<think>` and the like are single tokens of the vocabulary (the
            starter's) or plain text (a stock vocabulary).
    """
    def marker(text: str) -> str:
        return text if single_token_markers else json.dumps(text)

    calls = f"call{{1,{MAX_CALLS}}} | " if tools else ""
    rules = [
        f"start: {marker('<think>')} THOUGHT {marker('</think>')} ({calls}ANSWER)",
        rf"THOUGHT: /[^<>\x00-\x1f]{{0,{THOUGHT_CHARACTERS}}}/",
        rf"ANSWER: /[^<>\x00-\x1f]{{1,{ANSWER_CHARACTERS}}}/",
    ]
    if tools:
        rules.append(f"call: {marker('<tool_call>')} ({' | '.join(f'call_{n}' for n in range(len(tools)))}) {marker('</tool_call>')}")
    for number, tool in enumerate(tools):
        head = json.dumps(f'{{"name":"{tool.name}","arguments":')
        schema = json.dumps(tool.json_schema() | {"x-guidance": {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}})
        rules.append(f'call_{number}: {head} arguments_{number} "}}"')
        rules.append(f"arguments_{number}: %json {schema}")
    return Grammar("\n".join(rules))

"""A grammar as an engine gets it: text in llguidance's Lark dialect. reply_grammar.py makes it of tools.

Imports next to nothing: the engine's process starts with it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from edge_agent.wire.markers import CALL, END_CALL, END_THINK, MARKERS, THINK

THOUGHT_CHARACTERS = 400
_RULE_OF = {THINK: "think", END_THINK: "end_think", CALL: "open_call", END_CALL: "end_call"}


@dataclass(frozen=True)
class Grammar:
    """A grammar in llguidance's Lark dialect; equal grammars have equal `lark`.

    `facts` are (device, text): after a device's name and a colon, a thought goes on with its text and nothing else. So
    what a model says of the state is what the state says, once it has found the right device.
    """

    lark: str
    facts: tuple[tuple[str, str], ...] = ()

    def with_facts(self, facts: Iterable[tuple[str, str]]) -> Grammar:
        """Return this grammar with the lines of a state (wire.facts_of) as facts."""
        return Grammar(self.lark, tuple(facts))

    def for_vocabulary(self, marker_tokens: Collection[str]) -> Grammar:
        """Return this grammar with each marker as a token where the vocabulary has one, else as plain text.

        Args:
            marker_tokens: the markers that are single tokens: all four in the starter's vocabulary and in
                Qwen3's, only those of the calls in Qwen2.5's, none in Llama 3's.
        """
        lark = self.lark
        for marker in MARKERS:
            for old in (True, False):
                lark = lark.replace(marker_rule(marker, old), marker_rule(marker, marker in marker_tokens))
        return Grammar(lark)


def marker_rule(marker: str, is_token: bool) -> str:
    """Return the rule of a marker, between line ends: as one token, or as text."""
    return f"\n{_RULE_OF[marker]}: {marker if is_token else json.dumps(marker)}\n"

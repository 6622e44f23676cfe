"""A grammar as an engine gets it: text in llguidance's Lark dialect. reply_grammar.py makes it of tools.

Imports next to nothing: the engine's process starts with it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from edge_agent.wire.markers import CALL, END_CALL, END_THINK, MARKERS, THINK

THOUGHT_CHARACTERS = 400
_RULE_OF = {THINK: "think", END_THINK: "end_think", CALL: "open_call", END_CALL: "end_call"}


class NumberArgument(NamedTuple):
    """An argument of a tool for one device, a number, as thoughts write it.

    Attributes:
        device: by name.
        tool: by name.
        argument: by name.
        bounds: what stands after `argument:`, as ` 0..100 percent`.
        minimum, maximum, step: of its value.
        now: what the property behind it is; None if there is none.
        wished: what ways to name a value come to now, as (`a bit more`, `60`).
    """

    device: str
    tool: str
    argument: str
    bounds: str
    minimum: float
    maximum: float
    step: float
    now: float | None
    wished: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, *values: Any) -> NumberArgument:
        """Return it from its values as JSON has them."""
        *plain, wished = values
        return cls._make([*plain, tuple((words, text) for words, text in wished)])


@dataclass(frozen=True)
class Grammar:
    """A grammar in llguidance's Lark dialect; equal grammars have equal `lark`.

    What a model need not reckon is given to its thoughts, once it has found the device and the wish:

    - `facts` are (device, text): after a device's name and a colon, a thought goes on with its text and nothing else,
      so that what is said of the state is what the state says.
    - `truths` are (device, words, yes or no): whether what a condition hangs on is so, after its words and a colon, as
      `motion: yes`; where a number is compared (`level_pct below 20:`), what is so is reckoned.
    - `numbers`: after `a bit more: … is DEVICE: …, TOOL ARGUMENT=` comes the value that this is now; after
      `ARGUMENT=VALUE, ARGUMENT:` come the bounds, and whether the value is outside.
    """

    lark: str
    facts: tuple[tuple[str, str], ...] = ()
    numbers: tuple[NumberArgument, ...] = ()
    truths: tuple[tuple[str, str, str], ...] = ()

    def with_facts(
        self,
        facts: Iterable[tuple[str, str]],
        numbers: Iterable[NumberArgument] = (),
        truths: Iterable[tuple[str, str, str]] = (),
    ) -> Grammar:
        """Return this grammar with the lines of a state (wire.facts_of), its numbers and its truths."""
        return Grammar(self.lark, tuple(facts), tuple(numbers), tuple(truths))

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

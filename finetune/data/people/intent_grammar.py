"""Sentences of Home Assistant's templates, picked at random. The one file that knows hassil; importing it needs hassil.

hassil's own sampling says all that a template can say, in order: of "turn on the lights" that is thousands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from random import Random
from typing import Any

from hassil.expression import Alternative, Expression, ListReference, Permutation, RuleReference, TextChunk
from hassil.parse_expression import parse_sentence

NAMES, NUMBERS = ("device", "area"), ("value", "amount")  # holes that have their own article, or their own unit


class IntentGrammar:
    """What a language's templates refer to, and which of its lists are holes of the corpus."""

    def __init__(
        self, rules: Mapping[str, str], lists: Mapping[str, Any], holes: Mapping[str, str], rng: Random
    ) -> None:
        self._rules = {name: parse_sentence(text) for name, text in rules.items()}
        self._values = {
            name: [(parse_sentence(str(one["in"])).expression, str(one["out"])) for one in found["values"]]
            for name, found in lists.items()
            if "values" in found
        }
        self._holes = holes
        self._rng = rng

    def say(self, template: str, count: int) -> list[tuple[str, tuple[str, ...]]]:
        """Return sentences of a template, each with what it picked of lists: values, or the names of lists of amounts.

        None for one that has a list which is neither a hole nor has values, such as a floor.
        """
        sentence = parse_sentence(template)
        if not set(sentence.list_names(self._rules)) <= self._holes.keys() | self._values.keys():
            return []
        found = []
        for _ in range(count):
            picked: list[str] = []
            found.append((" ".join(self._text(sentence.expression, picked).split()), tuple(picked)))
        return found

    def _text(self, part: Expression, picked: list[str]) -> str:
        if isinstance(part, TextChunk):
            return part.original_text
        if isinstance(part, RuleReference):
            return self._text(self._rules[part.rule_name].expression, picked)
        if isinstance(part, ListReference):
            return self._item(part.list_name, picked)
        if isinstance(part, Alternative):
            return self._text(self._rng.choice(part.items), picked)
        parts = part.items
        if isinstance(part, Permutation):
            parts = self._rng.sample(parts, len(parts))
        return "".join(self._text(one, picked) for one in self._without_own_words(parts))

    def _item(self, name: str, picked: list[str]) -> str:
        if hole := self._holes.get(name):
            picked += [name] if hole == "amount" else []
            return f"{{{hole}}}"
        text, out = self._rng.choice(self._values[name])
        picked.append(out)
        return self._text(text, picked)

    def _without_own_words(self, parts: Sequence[Expression]) -> list[Expression]:
        """Leave out an optional article before a name and an optional unit after a number: what fills a hole has it."""
        solid = [one for one in parts if not isinstance(one, TextChunk) or one.text.strip()]
        doubled = {id(one) for one, after in pairwise(solid) if _is_optional(one) and self._hole(after) in NAMES}
        doubled |= {id(one) for before, one in pairwise(solid) if _is_optional(one) and self._hole(before) in NUMBERS}
        return [one for one in parts if id(one) not in doubled]

    def _hole(self, part: Expression) -> str:
        return self._holes.get(part.list_name, "") if isinstance(part, ListReference) else ""


def _is_optional(part: Expression) -> bool:
    return isinstance(part, Alternative) and part.is_optional

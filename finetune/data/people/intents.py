"""Requests of Home Assistant's community as lines of the corpus: sentences sampled from its templates (intents.yaml).

The packages home-assistant-intents and hassil are read only where a recipe asks for them. Not guarded against: requests
in a language that a site's names, the spoken values and what people say around a request (finetune/asks) are not in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from devices.site.phrasings import Words
from devices.yaml_file import Strict, read_model
from edge_agent.agent.intents import load_sentences
from finetune.data.people.asks import AskedAction, AskedProperty, Of

if TYPE_CHECKING:
    from finetune.data.people.intent_grammar import IntentGrammar

CREDIT = (  # goes with whatever is made of them
    "Home Assistant's sentences by the contributors to https://github.com/home-assistant/intents, CC BY 4.0"
    " (https://creativecommons.org/licenses/by/4.0/), changed"
)
MAP_FILE = Path(__file__).parent / "intents.yaml"
DRAWS = 60  # of each template, which says many things twice
LINES = 20  # of a block of templates, for one list of the corpus: it stays mostly what was written by hand


class Source(Strict):
    """Sentences of an intent that are said to devices of some kinds: for an action of theirs, or about a property."""

    combinations: Words
    actions: dict[str, str] = Field(default_factory=dict)
    questions: dict[str, str] = Field(default_factory=dict)
    list: str = ""


class Language(Strict):
    """What people say otherwise: rules in other words, and patterns of sentences left out, by intent or for `any`."""

    rules: dict[str, str] = Field(default_factory=dict)
    unsaid: dict[str, Words] = Field(default_factory=dict)


class IntentMap(Strict):
    """The whole of intents.yaml, which says what each key means."""

    intents: dict[str, Annotated[tuple[Source, ...], Field(strict=False)]]
    lists: dict[str, str]
    forms: dict[str, str]
    languages: dict[str, Language] = Field(default_factory=dict)


@dataclass(frozen=True)
class IntentLines:
    """What was sampled: lines of the corpus by kind and name, and how many intents they are of."""

    actions: dict[Of, AskedAction]
    questions: dict[Of, AskedProperty]
    used: int
    left_out: int

    @property
    def count(self) -> int:
        """How many lines there are."""
        return sum(len(lines) for one in (*self.actions.values(), *self.questions.values()) for _, lines in one)


def sample_intents(language: str, seed: int) -> IntentLines:
    """Return sentences of a language for what intents.yaml names; the same for the same seed.

    Raises:
        UsageError: the packages are not installed, or have no such language.
    """
    theirs, wanted = load_sentences(language, "generate.intents"), read_model(MAP_FILE, IntentMap)
    from finetune.data.people.intent_grammar import IntentGrammar

    own, rng = wanted.languages.get(language, Language()), Random(f"intents-{language}-{seed}")
    grammar = IntentGrammar(theirs["expansion_rules"] | own.rules, theirs["lists"], wanted.lists, rng)
    actions: dict[Of, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    questions: dict[Of, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    used = set()
    for intent, sources in wanted.intents.items():
        unsaid = own.unsaid.get("any", ()) + own.unsaid.get(intent, ())
        for source, block in product(sources, theirs["intents"].get(intent, {"data": ()})["data"]):
            said = _said(grammar, source, block, wanted.forms, unsaid, rng)
            kinds = _kinds_of(block) or {*source.actions, *source.questions}
            for joined, names in ((actions, source.actions), (questions, source.questions)):
                for kind, form in product(names, said):
                    if kind in kinds:
                        joined[kind, names[kind]][form] += said[form]
                        used.add(intent)
    return IntentLines(
        {of: AskedAction.model_validate(forms) for of, forms in actions.items()},
        {of: AskedProperty.model_validate(forms) for of, forms in questions.items()},
        len(used),
        len(theirs["intents"]) - len(used),
    )


def _kinds_of(block: Mapping[str, Any]) -> set[str]:
    """Return the kinds of devices that a block of templates is said to; none if its intent alone says it."""
    given = [part["domain"] for part in (block.get("requires_context", {}), block.get("slots", {})) if "domain" in part]
    return {kind for one in given for kind in ([one] if isinstance(one, str) else one)}


def _said(
    grammar: IntentGrammar,
    source: Source,
    block: Mapping[str, Any],
    forms: Mapping[str, str],
    unsaid: tuple[str, ...],
    rng: Random,
) -> dict[str, list[str]]:
    """Return sentences of a block of templates, by the list of the corpus that they join."""
    if block["metadata"]["slot_combination"] not in source.combinations:
        return {}
    found: dict[str, set[str]] = defaultdict(set)
    for template in block["sentences"]:
        if source.list not in template:
            continue
        for line, picked in grammar.say(template, DRAWS):
            usual = "ask" if source.actions else "value"
            form = forms.get(f"{block['response']} {' '.join(picked)}") if picked else usual
            if form and not any(re.search(one, line) for one in unsaid):
                found[form].add(line)
    return {form: rng.sample(sorted(lines), min(LINES, len(lines))) for form, lines in found.items()}

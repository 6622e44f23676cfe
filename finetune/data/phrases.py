"""Phrasing templates that fit every site: what is said around a request, and what wants no action.

What is said about an action is named by the site's models (`say`); phrases.yaml has what goes around it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

from devices.site.phrasings import Words, load_phrasings
from devices.site.schema import DataSchema, Value
from devices.yaml_file import Strict, read_model
from finetune.data.held_out import side

TEMPLATES_FILE = Path(__file__).parent / "phrases.yaml"


class Questions(Strict):
    """Templates of questions about the state."""

    yes_no: Words
    value: Words
    status: Words


class Templates(Strict):
    """The whole of phrases.yaml, which says what each key means."""

    frames: Words
    verb_frames: Words
    together: Words
    in_order: Words
    groups: Words
    several: Words
    everything: Words
    everywhere: Words
    excepted: Words
    changes: Words
    fillers: Words
    questions: Questions
    which_one: Words
    small_talk: dict[str, Words]


@cache
def load_templates() -> Templates:
    """Return the templates that fit every device."""
    return read_model(TEMPLATES_FILE, Templates)


def level_names(schema: DataSchema, value: Value) -> tuple[str, ...]:
    """Return what people call a value of a schema with levels, also as the least or the greatest; () if it is none."""
    if not (name := schema.level_of(value)):
        return ()
    names, numbers = (
        [one for one, number in schema.levels.items() if number == schema.levels[name]],
        schema.levels.values(),
    )
    if len(set(numbers)) > 1:
        extremes = load_phrasings().extremes
        names += extremes.lowest if value == min(numbers) else extremes.highest if value == max(numbers) else ()
    return tuple(names)


def loosen(template: str, rng: Random) -> str:
    """Return a template with one or two fillers between its words: what is asked for stays, the form is new."""
    words, fillers = template.split(" "), load_templates().fillers
    for _ in range(rng.choice((1, 1, 2))):
        words.insert(rng.randrange(len(words) + 1), rng.choice(fillers))
    return " ".join(words)


def frame(request: str, rng: Random, held_out: bool) -> tuple[str, tuple[str, ...]]:
    """Put a polite frame around a request, or none; return the text and the frames used."""
    if rng.random() < 0.4:
        return request, ()
    starts_with_verb = request.split(" ")[0] in load_phrasings().verbs
    templates = load_templates()
    is_around_verb = starts_with_verb and rng.random() < 0.6
    frames = side(templates.verb_frames if is_around_verb else templates.frames, held_out)
    chosen = rng.choice(frames)
    return chosen.format(request), (chosen,)


def punctuate(text: str, rng: Random) -> str:
    """Write a request as people type it: with or without a capital letter and a mark at the end."""
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    is_question = text.lower().startswith(("is ", "what", "can ", "could ", "would ", "how", "do ", "are ", "who"))
    return text + rng.choice(["", "", "?" if is_question else "."])

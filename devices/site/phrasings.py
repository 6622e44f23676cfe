"""How people ask for actions and what they call devices: for training conversations, and tools under other names.

Nothing here guards anything, and nothing of phrasings.yaml is read on a box: only who asks for its words loads it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from devices.errors import UsageError, did_you_mean
from devices.site.action import Action
from devices.site.schema import NAME_PATTERN
from devices.yaml_file import Strict, read_model

PHRASINGS_FILE = Path(__file__).parent / "phrasings.yaml"
Words = Annotated[tuple[str, ...], Field(strict=False)]
Range = Annotated[tuple[int, int], Field(strict=False)]


class SpokenAction(Action):
    """An action with how people ask for it: templates, or names of lists of them in phrasings.yaml.

    Without any, it is asked for by its title, if it has one. `say_without` leaves the value out.
    """

    say: Words = ()
    say_without: Words = ()

    @model_validator(mode="after")
    def _require_holes(self) -> SpokenAction:
        own = [template for template in self.say if not _is_name(template)]
        if problem := _hole_problem(own, self.input):
            raise ValueError(problem)
        return self

    @property
    def requests(self) -> tuple[str, ...]:
        """The templates of `say`. Raises UsageError: a list that it names does not exist, or has other arguments."""
        if self.say or not self.title:
            return _requests(self.say, frozenset(self.input))
        return _requests_by_title(self.title, _form_of(self), tuple(self.input))

    def level_requests(self, level: str) -> tuple[str, ...]:
        """Return the templates in which its only argument is a level, also as a part of the whole: half open."""
        (argument,) = self.input
        templates = _requests_by_title(self.title or argument.replace("_", " "), "set_word", (argument,))
        words = load_phrasings().arguments.get(argument)
        parts = words.say_part if words and level in words.parts else ()
        return templates + tuple(one.replace("{value}", f"{{{argument}}}") for one in parts)

    @property
    def requests_without(self) -> tuple[str, ...]:
        """The templates of `say_without`. Raises UsageError: a list that it names does not exist."""
        return _templates(self.say_without)


class KindGroup(Strict):
    """What people call one and all devices of a kind, and what they say for an action on all of them."""

    singular: str
    plural: str
    verbs: dict[str, str] = Field(default_factory=dict)


class KindWords(Strict):
    """Words for a kind of device."""

    names: Words = ()
    group: KindGroup | None = None
    is_anything: bool = False


class ArgumentWords(Strict):
    """Words for an argument, its ranges, levels and steps on random sites, and what people say of it.

    `more` and `less` are adjectives; `parts` are levels that are parts of the whole, for which there are templates.
    """

    names: Words = ()
    ranges: tuple[Range, ...] = Field(default=(), strict=False)
    levels: tuple[dict[str, float], ...] = Field(default=(), strict=False)
    steps: tuple[int, ...] = Field(default=(), strict=False)
    more: Words = ()
    less: Words = ()
    parts: Words = ()
    say_part: Words = ()


class Extremes(Strict):
    """What people call the least and the greatest of several levels."""

    lowest: Words
    highest: Words


class Phrasings(Strict):
    """The whole of phrasings.yaml, which says what each key means."""

    kinds: dict[str, KindWords]
    actions: dict[str, Words]
    arguments: dict[str, ArgumentWords]
    readings: dict[str, Range]
    nouns: dict[str, Words]
    sensor_nouns: dict[str, Words]
    other_nouns: dict[str, Words]
    more_nouns: dict[str, Words]
    other_words: dict[str, Words]
    own_words: frozenset[str] = Field(strict=False)
    places: Words
    adverbs: Words
    positions: Words
    floors: dict[str, Words]
    groups: Words
    titles: Words
    strange_titles: Words
    verbs: frozenset[str] = Field(strict=False)
    requests: dict[str, Words]
    by_title: dict[str, Words]
    extremes: Extremes
    a_bit: Words
    more: Words
    less: Words
    scenes: Words
    scene_requests: Words


@cache
def load_phrasings() -> Phrasings:
    """Return the words and templates that ship with Edgewright."""
    return read_model(PHRASINGS_FILE, Phrasings)


def group_words(kind: str) -> KindGroup | None:
    """Return what people call several devices of a kind, or None if they have no word for them."""
    words = load_phrasings().kinds.get(kind)
    return words.group if words else None


def _is_name(template: str) -> bool:
    return bool(re.fullmatch(NAME_PATTERN, template))


@cache
def _requests(say: tuple[str, ...], arguments: frozenset[str]) -> tuple[str, ...]:
    templates = _templates(say)
    if problem := _hole_problem(templates, arguments):
        raise UsageError(problem)
    return templates


def _form_of(action: SpokenAction) -> str:
    """Return which of the lists by title fits an action."""
    if len(action.input) == 1:
        return "set_word" if next(iter(action.input.values())).minimum is None else "set_number"
    written = next(iter(action.writes.values()), None)
    return "do" if action.input or not isinstance(written, bool) else "turn_on" if written else "turn_off"


@cache
def _requests_by_title(title: str, form: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    templates = [one.replace("{title}", title) for one in load_phrasings().by_title[form]]
    if len(arguments) == 1:
        return tuple(one.replace("{value}", f"{{{arguments[0]}}}") for one in templates)
    values = " and ".join(f"{name.replace('_', ' ')} {{{name}}}" for name in arguments)
    return tuple(f"{one} with {values}" if values else one for one in templates)


@cache
def _templates(say: tuple[str, ...]) -> tuple[str, ...]:
    """Return templates as they are, and those of each list that is named among them."""
    templates: list[str] = []
    for one in say:
        lists = load_phrasings().requests if _is_name(one) else {one: (one,)}
        if one not in lists:
            raise UsageError(f"no list of phrasings is called {one!r}", hint=did_you_mean(one, lists))
        templates += lists[one]
    return tuple(templates)


def _hole_problem(templates: Iterable[str], arguments: Collection[str]) -> str:
    for template in templates:
        if set(re.findall(r"{(\w+)}", template)) != {"device", *arguments}:
            return f"say {template!r} must have {{device}} and every argument, and no other"
    return ""

"""Which devices the words of a request fit, and the question where they fit several and the model picked one.

A device's words are those of its names, its area, floor and groups. Where other devices that take the action are fitted
by the same words of a request, and no word for the kind of device tells, the person is asked. Not so where a device is
called by its full name, where "all", "any" or a plural is said, where nothing names one ("turn it off"), and where a
safe action is proposed ("stop the pump"): that one is done at once, and the person hears which.

Does not guard against: a device that fits worse than another, or not at all; other words or forms of words than the
site has, but for those of MODEL_WORDS.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from devices.site.describe import which_text
from devices.site.device import Device
from devices.site.phrasings import group_words
from devices.site.site import MODEL_WORDS, Site, load_models
from devices.site.tools import Command

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # words without blanks
_WORD = re.compile(rf"\d+|[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+")
_VERB = re.compile(  # "close" in "close the blinds" names nothing, whatever is called Close
    r"(?:^|\b(?:and|then|please|you|to)\s)\W*([^\W\d_]+)(?=\s(?:the|my|our|your)\b)"
)
_EMPTY = frozenset("an the my our your in on at of to for with and or from by near off it is".split())
_ALL = frozenset("all both every each everything everywhere any either".split())
_NOT_ALL = re.compile(r"\ball right\b")
_POLITE = frozenset(
    (
        "one ones number device them that this please thanks thank sorry oh yes ok okay i mean meant want take use"
        " would be s just only course"
    ).split()
)
MOST_CHOICES = 6  # that are offered as short answers
_ORDINALS = {"first": 0, "former": 0, "second": 1, "third": 2, "fourth": 3, "fifth": 4, "last": -1, "latter": -1}


def name_words(text: str) -> tuple[str, ...]:
    """Return the words of a text that can name something, in small letters; of scripts without blanks each letter."""
    return tuple(word for word in _WORD.findall(_folded(text)) if word not in _EMPTY)


def spelled(answer: str) -> str:
    """Return what an answer says of the device that is meant."""
    return " ".join(word for word in name_words(answer) if word not in _POLITE)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@dataclass(frozen=True)
class _Called:
    """What a device is called: words of each name, of where it stands, of its kind, and other words for its kind."""

    names: tuple[tuple[str, ...], ...]
    places: frozenset[str]
    kind: frozenset[str]
    synonyms: frozenset[str]

    @property
    def words(self) -> frozenset[str]:
        return self.places.union(self.kind, *self.names)

    def is_said_in_full(self, said: Sequence[str]) -> bool:
        return any(_places_of(name, said) for name in self.names)


@dataclass(frozen=True)
class Question:
    """What is asked back: which of several devices a request means.

    Attributes:
        ask: the request.
        commands: what the model proposed for it.
        unclear: the one of them whose device is unclear.
        said: the words that fit.
        candidates: the devices that they fit.
        settled: commands of which it is clear.
        text: the question.
    """

    ask: str
    commands: tuple[Command, ...]
    unclear: Command
    said: str
    candidates: tuple[str, ...]
    settled: tuple[Command, ...]
    text: str

    @property
    def thought(self) -> str:
        """What is thought before it is asked."""
        return f"{self.said} is {' or '.join(self.candidates)}."

    def choices(self, site: Site) -> tuple[str, ...]:
        """Return the candidates by their titles, if there are few and no two are called the same."""
        titles = tuple(site.devices[name].title for name in self.candidates)
        return titles if len(set(titles)) == len(titles) <= MOST_CHOICES else ()

    def settle(self, chosen: Iterable[str]) -> tuple[list[Command], list[Command]]:
        """Return the commands with the chosen devices instead, and which of all are now settled."""
        wanted = [replace(self.unclear, device=name) for name in chosen]
        commands: list[Command] = []
        for one in self.commands:
            is_asked = one.device in self.candidates and replace(one, device=self.unclear.device) == self.unclear
            commands += (
                [new for new in wanted if new not in commands] if is_asked and one not in self.settled else [one]
            )
        return commands, [*self.settled, *wanted]


class Naming:
    """What the devices of a site are called."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._called = {device.name: _called(device, site) for device in site.devices.values()}
        self._known = frozenset().union(*(called.words for called in self._called.values()))

    def question(
        self, ask: str, commands: Iterable[Command], recent: Iterable[str] = (), settled: Iterable[Command] = ()
    ) -> Question | None:
        """Return what must be asked back before the commands that a request led to are carried out, or None.

        Args:
            ask: the request.
            commands: what was proposed for it, each device of a list on its own.
            recent: devices that the turn before was about: if only one of them fits, it may be meant.
            settled: commands of which it is clear.
        """
        proposed = tuple(commands)
        spoken = _NOT_ALL.sub("", _folded(ask))
        if _ALL.intersection(_WORD.findall(spoken)):
            return None
        said = _without_values(name_words(_VERB.sub("", spoken)), proposed)
        for command in proposed:
            is_safe = self._site.devices[command.device].actions[command.action].safe  # what stops waits for no answer
            if is_safe or command in settled or self._is_plural(command.device, said):
                continue
            heard = self._heard(command, said, proposed)
            found = self._fitting(command, heard)
            picked = {one.device for one in proposed if one.action == command.action}
            is_known = [name for name in found if name in recent] == [command.device]
            if command.device in found and not picked.issuperset(found) and not is_known:
                words = self._words(command.device, heard) or self._synonyms(command.device, heard)
                fitting = " ".join(dict.fromkeys(word for word in heard if word in words))
                text = which_text([self._site.devices[name] for name in found], self._site.areas)
                return Question(ask, proposed, command, fitting, tuple(found), tuple(settled), text)
        return None

    def words(self, device: str, text: str) -> frozenset[str]:
        """Return the words of a text that name a device, or where it stands."""
        return self._words(device, name_words(text))

    def vocabulary(self, devices: Iterable[str]) -> frozenset[str]:
        """Return the words of all names, and other words for what some devices are, without a plural's s."""
        groups = [group_words(self._site.devices[name].kind) for name in devices]
        words = self._known.union(
            *(self._called[name].synonyms for name in devices), *(name_words(one.singular) for one in groups if one)
        )
        return frozenset(word.removesuffix("s") for word in words)

    def answered(self, question: Question, answer: str) -> tuple[str, ...]:
        """Return which devices an answer to a question chooses; none if it says anything else."""
        said = spelled(answer).split()
        if said and _ALL.issuperset(said):
            return question.candidates
        fitting = [name for name in question.candidates if said and self._called[name].words.issuperset(said)]
        if len(fitting) > 1:
            fitting = [name for name in fitting if tuple(said) in self._called[name].names]
        if not fitting and len(said) == 1 and (place := _ORDINALS.get(said[0])) is not None:
            fitting = list(question.candidates[place:][:1])
        return tuple(fitting) if len(fitting) == 1 else ()

    def _words(self, device: str, said: Iterable[str]) -> frozenset[str]:
        return self._called[device].words.intersection(said)

    def _synonyms(self, device: str, said: Iterable[str]) -> frozenset[str]:
        called = self._called[device]
        return called.synonyms.intersection(said) - called.words

    def _is_plural(self, device: str, said: Iterable[str]) -> bool:
        """Return whether several of a device's kind are spoken of: "lamps", and nothing is called so."""
        called = self._called[device]
        return any(
            word[:-1] in called.words | called.synonyms for word in said if word[-1] == "s" and word not in self._known
        )

    def _heard(self, command: Command, said: Sequence[str], proposed: Iterable[Command]) -> tuple[str, ...]:
        """Return what a request says of a command's device: not what comes later and is another device's title.

        In "the lamp and the bedroom fan" the lamp is any; in "the bedroom lamp and fan" the fan is the bedroom's.
        """
        words, heard = self._called[command.device].words, list(said)
        first = next((place for place, word in enumerate(said) if word in words), len(said))
        for other in {one.device for one in proposed} - {command.device}:
            title = name_words(self._site.devices[other].title)
            for place in _places_of(title, said):
                if place > first:
                    heard[place : place + len(title)] = [""] * len(title)
        return tuple(heard)

    def _fitting(self, command: Command, said: Sequence[str]) -> list[str]:
        """Return the devices that take a command and that the words fit as they fit its own, it among them."""
        own, synonyms = self._words(command.device, said), self._synonyms(command.device, said)
        if not synonyms and all(word.isdigit() or word in self._called[command.device].places for word in own):
            return []  # where it stands, and another word for what it is
        takers = [name for name in self._called if self._takes(name, command)]
        alike = [name for name in takers if self._words(name, said) == own and synonyms <= self._called[name].synonyms]
        if any(self._words(name, said) > own for name in takers):
            return []
        return [name for name in alike if self._called[name].is_said_in_full(said)] or alike

    def _takes(self, name: str, command: Command) -> bool:
        action = self._site.devices[name].actions.get(command.action)
        return action is not None and action.risk != "forbidden" and not action.input_problem(command.input)


def _called(device: Device, site: Site) -> _Called:
    areas = [site.areas[device.area]] if device.area else []
    floors = [site.floors[area.floor] for area in areas if area.floor]
    groups = [group for group in site.groups.values() if device.name in group.devices]
    places = [name for place in (*areas, *floors, *groups) for name in (place.title, *place.aliases)]
    return _Called(
        names=tuple(dict.fromkeys(words for name in device.names if (words := name_words(name)))),
        places=frozenset(word for place in (device.area, *places) for word in name_words(place)),
        kind=frozenset(name_words(device.kind)),
        synonyms=_kind_words().get(device.kind, frozenset()),
    )


@cache
def _kind_words() -> dict[str, frozenset[str]]:
    """Return what devices of each kind are called that have no name of their own."""
    found: dict[str, frozenset[str]] = {}
    for model, words in MODEL_WORDS.items():
        kind = str(load_models()[model]["kind"])
        found[kind] = found.get(kind, frozenset()).union(name_words(f"{model} {words}"))
    return found


def _without_values(said: Sequence[str], commands: Iterable[Command]) -> tuple[str, ...]:
    """Return the words of a request without the arguments of commands: in "light 4 to 40" the 40 is no light."""
    kept = list(said)
    for word in {word for one in commands for value in one.input.values() for word in name_words(str(value))}:
        if word in kept:
            del kept[len(kept) - 1 - kept[::-1].index(word)]
    return tuple(kept)


def _places_of(name: Sequence[str], said: Sequence[str]) -> list[int]:
    """Return where all words of a name stand one after the other."""
    return [place for place in range(len(said)) if name and tuple(said[place : place + len(name)]) == tuple(name)]

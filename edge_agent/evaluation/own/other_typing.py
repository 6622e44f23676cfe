"""The same requests typed or heard otherwise: what do capitals, a speech recogniser and slips of the fingers cost?

A case is asked again in each way; its right outcome stays the same, and so should the reply.

Does not guard against: a slip that makes another word of one ("on" for "in"): people make those too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random

from edge_agent.evaluation.intervals import Difference, Share, paired_difference, share_of
from edge_agent.evaluation.own.own_cases import OwnCase
from edge_agent.wire.spoken_numbers import number_words

SEED = 1
NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", (
    "wa qes wrd etf ryg tuh yij uok ipl ol qsz adwx sfec dgrv fhtb gjyn hkum jli ko asx zdc xfv cgb vhn bjm nk"
).split(), strict=True))  # fmt: skip
_UNITS = {"%": " percent", "°c": " degrees", "°": " degrees"}


@dataclass(frozen=True)
class TypedOtherwise:
    """What came of the cases in one way of typing, and how that differs from how they are written."""

    way: str
    right: Share
    change: Difference


def typed_otherwise(case: OwnCase, way: str) -> OwnCase:
    """Return a case whose requests are typed in one of WAYS, the same every time."""
    rng = Random(f"{SEED} {way} {case.model_dump_json()}")
    turns = tuple(turn.model_copy(update={"ask": WAYS[way](turn.ask, rng)}) for turn in case.turns)
    return case.model_copy(update={"turns": turns})


def in_other_ways(right: Sequence[bool], ways: Sequence[tuple[str, Sequence[bool]]]) -> list[TypedOtherwise]:
    """Sum up which cases were right as they are written, and in each way, in the same order."""
    return [TypedOtherwise(way, share_of(found), paired_difference(right, found)) for way, found in ways]


def typing_lines(found: Sequence[TypedOtherwise]) -> list[str]:
    """Return it as text for the terminal."""
    lines = ["the same cases, typed otherwise:"] if found else []
    return lines + [f"  {one.way:<11} {one.right}; {one.change.lost} lost, {one.change.gained} gained" for one in found]


def heard(text: str) -> str:
    """Return a request without capitals and marks, as speech recognisers write."""
    return "".join(letter for letter in text.lower() if letter not in ',;:!?"' and letter != "…").replace("  ", " ")


def slip(text: str, rng: Random, names: Collection[str] = ()) -> str:
    """Return a text with one slip outside of names: letters swapped, left out, doubled, or a neighbour's key."""
    inside = [place for place in range(1, len(text) - 2) if text[place : place + 2].isalpha()]
    own = [place for place in inside if not _is_in_name(text, place, names)]
    if not own:
        return text
    at, kind = rng.choice(own), rng.randrange(4)
    one, two = text[at], text[at + 1]
    changed = (two + one, two, one + one + two, rng.choice(NEIGHBOURS.get(one.lower(), one)) + two)[kind]
    return text[:at] + changed + text[at + 2 :]


def _is_in_name(text: str, place: int, names: Collection[str]) -> bool:
    small = text.lower()
    for name in names:
        start = small.find(name.lower())
        if start >= 0 and start <= place < start + len(name):
            return True
    return False


def _spoken(text: str, _: Random) -> str:
    """Return a request as it is heard, its whole numbers and their units in words, its full stops left out."""
    for unit, words in _UNITS.items():
        text = re.sub(rf"(?<=\d) ?{unit}", words, text, flags=re.IGNORECASE)
    text = re.sub(r"(?<![\w.:-])\d{1,4}(?![\w:]|\.\d)", lambda number: number_words(int(number[0])), text)
    clock = re.sub(r"(?<=\d):(?=\d)", "\0", text)  # stays 7:30
    return re.sub(r"\.(?!\d)", "", heard(clock)).replace("\0", ":").strip()


def _slips(count: int) -> Callable[[str, Random], str]:
    def typed(text: str, rng: Random) -> str:
        for _ in range(count):
            text = slip(text, rng)
        return text

    return typed


WAYS: dict[str, Callable[[str, Random], str]] = {
    "capitals": lambda text, _: text.upper(),
    "speech": _spoken,
    "one slip": _slips(1),
    "three slips": _slips(3),
}

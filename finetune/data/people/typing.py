"""A request as it arrives: by a speech recogniser, in capitals, in a hurry, with slips of the fingers.

What matters stays readable: digits are never touched, nor are the names that are given.
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random

NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", (
    "wa qes wrd etf ryg tuh yij uok ipl ol qsz adwx sfec dgrv fhtb gjyn hkum jli ko asx zdc xfv cgb vhn bjm nk"
).split(), strict=True))  # fmt: skip
SHORT = 5  # words of a question that is one by its mark alone
_ENDINGS = ("'t", "'s", "'m", "'re", "'ll", "'d", "'ve")


def as_typed(text: str, rng: Random, names: Collection[str] = ()) -> str:
    """Return a request as one of many would arrive; most often as people type: without much care for capitals."""
    chance = rng.random()
    if chance < 0.42:
        return _capital(text) if rng.random() < 0.6 else text
    if chance < 0.60:
        return _mark(_capital(text), rng)
    if chance < 0.78:  # a speech recogniser
        heard = "".join(letter for letter in text.lower() if letter not in ',;:!?"' and letter != "…")
        is_short = text.endswith("?") and len(text.split()) <= SHORT  # "the light on?" is heard as a question
        return heard.replace("  ", " ") + ("?" if is_short else "")
    if chance < 0.84:
        return text.upper()
    if chance < 0.92:
        return _without_apostrophes(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = _slip(text, rng, names)
    return text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _mark(text: str, rng: Random) -> str:
    if text[-1:] in ".!?":
        return text
    first = text.split(" ")[0].lower().strip(",")
    asks = {
        "is",
        "are",
        "what",
        "which",
        "how",
        "can",
        "could",
        "would",
        "will",
        "do",
        "does",
        "did",
        "who",
        "where",
        "any",
        "was",
    }
    return text + (rng.choice("??!") if first in asks else rng.choice((".", ".", "!", "...")))


def _without_apostrophes(text: str) -> str:
    for ending in _ENDINGS:
        text = text.replace(ending, ending[1:])
    return text.lower()


def _slip(text: str, rng: Random, names: Collection[str]) -> str:
    """Return a text with one slip: letters swapped, left out, doubled, or a neighbour's key."""
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

"""A request as it arrives: by a speech recogniser, in capitals, in a hurry, with slips of the fingers.

What matters stays readable: digits are never touched, nor are the names that are given.
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from edge_agent.evaluation.own.other_typing import heard, slip

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
        is_short = text.endswith("?") and len(text.split()) <= SHORT  # "the light on?" is heard as a question
        return heard(text) + ("?" if is_short else "")
    if chance < 0.84:
        return text.upper()
    if chance < 0.92:
        return _without_apostrophes(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = slip(text, rng, names)
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

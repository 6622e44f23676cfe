"""Slips of the finger in the site's own words: "kitchn light" is "kitchen light", "ligth off" is "light off".

One slip in a word is undone: two letters swapped, one left out, or one too many, if one word of the site's names alone
is that near, begins and ends alike and has SHORTEST letters. A letter in the place of another one stays: that makes
other words ("value" is no "valve"). So does each word of common_words.txt, which has those of the corpus of requests.
"switch of the lights" is "switch off the lights".

Does not guard against: a rarer word that is that near a word of the site, and meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from edge_agent.wire.spelling import NO_WORDS, SiteWords, protected_parts

SHORTEST = 5  # letters of a word, as it is spelled or as it was typed
COMMON = frozenset(Path(__file__).with_name("common_words.txt").read_text(encoding="utf-8").split())
_WORD = re.compile(r"[^\W\d_]+")
_OFF = re.compile(
    r"(?<!the )(?<!a )\b((?:turn|switch|shut)(?:ing)?) of (?=(?:the|my|our|all|every|both|it|them)\b)", re.IGNORECASE
)


def without_slips(text: str, words: SiteWords = NO_WORDS) -> str:
    """Return a request with slips in the site's words undone. Args: text: as it was typed; words: of the site."""
    known, near = _near(words.names)

    def mended(match: re.Match[str]) -> str:
        word = match[0]
        is_slip = len(word) >= SHORTEST and word.lower() not in known and word.lower() not in words.own
        meant = near.get(word.lower(), "") if is_slip else ""
        return meant.upper() if word.isupper() and meant else meant or word

    return _replaced(_WORD, mended, _replaced(_OFF, lambda match: f"{match[1]} off ", text, words), words)


def _replaced(pattern: re.Pattern[str], by: Callable[[re.Match[str]], str], text: str, words: SiteWords) -> str:
    """Return a text in which what a pattern finds is replaced, but for names, codes and what stands in quotes."""
    kept = protected_parts(text, words)

    def unless_kept(match: re.Match[str]) -> str:
        is_kept = any(start < match.end() and match.start() < end for start, end in kept)
        return match[0] if is_kept else by(match)

    return pattern.sub(unless_kept, text)


@lru_cache(maxsize=16)
def _near(names: tuple[str, ...]) -> tuple[frozenset[str], dict[str, str]]:
    """Return the words of names with their plurals; and those one slip away from only one, with what they mean."""
    own = {word.lower() for name in names for word in _WORD.findall(name)}
    known = frozenset(own | {f"{word}s" for word in own} | {word.removesuffix("s") for word in own})
    meant: dict[str, set[str]] = {}
    for word in own:
        if len(word) >= SHORTEST:
            for slip in _slips(word):
                meant.setdefault(slip, set()).add(word)
    other = known | COMMON
    return known, {slip: only for slip, (only, *more) in meant.items() if not more and slip not in other}


def _slips(word: str) -> set[str]:
    """Return a word with one slip between its first letter and its last."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    swapped = {word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(1, len(word) - 1)}
    missing = {word[:at] + word[at + 1 :] for at in range(1, len(word) - 1)}
    extra = {word[:at] + letter + word[at:] for at in range(1, len(word)) for letter in letters}
    return swapped | missing | extra

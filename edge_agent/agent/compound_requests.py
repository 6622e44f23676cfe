"""Compound requests taken apart: "blinds down, fan off and heat at 22" is three, to be worked one after the other.

A small model loses one of several wishes, or the wish after a question; each alone it understands. A request is taken
apart only where every part is whole: a wish that names a device and says what it should be, or a question that names
one and asks something. Where a value, a verb or a name could belong to two parts, it stays as it is.

Does not guard against: a part that means something else by itself; languages other than English.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from devices.site.phrasings import group_words
from devices.site.site import Site
from edge_agent.agent.caution import begins_as_question, is_for_later
from edge_agent.agent.plain_lists import own_names
from edge_agent.agent.word_patterns import EXCEPTS, NOT, one_of
from edge_agent.grammar.thought_guide import SMALL_WORDS

MOST_PARTS = 6
_JOINT = re.compile(
    r"([,;.!?]+(?:\s+|$)|\s+(?=(?:and|then|plus|also)\s))"
    r"((?:(?:and|then|plus|also|oh|please|anyway|later|moreover|likewise|on top of that"
    r"|while (?:you['’]re|you are) at it)\b[ ,]*)*)",
    re.IGNORECASE,
)
_STATE = one_of(  # what a device should be, or is asked to be
    "on off out open opened closed? shut lock locked unlock unlocked start stop stopped running up down max maximum"
    " min minimum full half halfway low lowest medium high higher highest one two three brighter dimmer darker warmer"
    " cooler hotter colder faster slower",
    r"\d",
)
_VERB = (
    r"(?:turn|switch|put|set|open|close|shut|lock|unlock|start|stop|run|dim|raise|lower|water|make|bring|get|give|kill"
    r"|knock|pull|let|keep|can you|could you|would you|will you)\b"
)
_IMPERATIVE = re.compile(rf"(?:(?:please|just|go|and|then|also|kindly)\s+)*{_VERB}", re.IGNORECASE)
_HANGS = one_of(  # conditions, corrections, references: what a part would lose without the others
    "if unless when whenever while until till once before after instead like same as so because since both again"
    " other back first next finally actually wait sorry mean meant oops scratch between from",
    r"\bmake that\b",
)
_NO_CONDITION = re.compile(
    r"\b(?:tell me|check|see|let me know|know) (?:if|whether)\b|(?:['’](?:ve|s)|\bhave|\bhas) just\b", re.IGNORECASE
)
_CONTRACTED = re.compile(NOT, re.IGNORECASE)
_REFERS = one_of("it that them those this these one ones rest all any anything everything")
_OPEN_QUESTION = re.compile(r"\W*(?:how|what)", re.IGNORECASE)
_TOLD = one_of("is are was were")


@dataclass(frozen=True)
class DeviceWords:
    """What a site's devices are spoken of by, in small letters.

    Attributes:
        movable: names, or words of names, that mean one device, and words for all of a kind.
        any: words that occur in names.
    """

    movable: frozenset[str]
    any: frozenset[str]


def device_words(site: Site) -> DeviceWords:
    """Return what a site's devices are spoken of by."""
    own = own_names((name.casefold(), one.name) for one in site.devices.values() if one.actions for name in one.names)
    groups = [group_words(one.kind) for one in site.devices.values() if one.actions]
    stems = {name.removesuffix("ing") for name in own if re.fullmatch(r"\w{4,}ing", name)}  # "heat at 22"
    words = {word for one in site.devices.values() for name in one.names for word in name.casefold().split()}
    return DeviceWords(
        frozenset({*own, *stems, *(one.plural.casefold() for one in groups if one)}), frozenset(words - SMALL_WORDS)
    )


def parts_of(text: str, known: DeviceWords) -> list[str]:
    """Return the requests that a compound one is made of; the text alone if it is none, or cannot be taken apart.

    Args:
        text: with its numbers as digits.
        known: of the site.
    """
    pieces = list(_pieces(text))
    if len(pieces) < 2:  # as most requests
        return [text]
    reasons = {one for one in pieces if not _REFERS.search(one.of(text)) and not _mentions(one.of(text), known.any)}
    plain = " ".join(_CONTRACTED.sub("", one.of(text)) if one in reasons else one.of(text) for one in pieces)
    plain = _NO_CONDITION.sub("", plain)
    if EXCEPTS.search(plain) or _HANGS.search(plain) or is_for_later(text):
        return [text]
    parts, start, follows_question = list[tuple[int, int]](), None, False
    for piece in pieces:
        words = piece.of(text)
        asks = begins_as_question(words)
        is_imperative, has_state = bool(_IMPERATIVE.match(words)), bool(_STATE.search(words))
        asks = asks or (piece.is_asked and not is_imperative)
        is_named = _mentions(words, known.any if asks else known.movable)
        start = piece.start if start is None else start
        if follows_question and not asks and not is_imperative:
            return [text]  # "is the porch light on and the kitchen light off"
        if is_named and not asks and not is_imperative and _TOLD.search(words):
            return [text]  # "the porch light is on and the door is open"
        if is_named and (asks or has_state):
            if asks and not has_state and not _OPEN_QUESTION.match(words):
                return [text]  # "are the blinds and the garage closed"
            parts.append((start, piece.end - (is_imperative and piece.is_asked)))  # "... and switch it off?"
            start, follows_question = None, asks and not piece.ends_sentence
        elif parts and _mentions(words, known.any):
            return [text]  # "turn off the fan and the pump"
        elif parts and (has_state or _REFERS.search(words)):
            parts[-1], start = (parts[-1][0], piece.end), None  # "dim it to 30"
    if start is not None and parts:
        parts[-1] = (parts[-1][0], len(text))
    found = [text[first:last].strip() for first, last in parts]
    return found if 1 < len(found) <= MOST_PARTS else [text]


@dataclass(frozen=True)
class _Piece:
    """What stands between commas, ends of sentences and "and": from, up to, and what ends it."""

    start: int
    end: int
    is_asked: bool
    ends_sentence: bool

    def of(self, text: str) -> str:
        return text[self.start : self.end]


def is_sequence(text: str) -> bool:
    """Return whether a later part is to be done after an earlier one was."""
    return bool(re.search(r"\bthen\b", text, re.IGNORECASE))


def _pieces(text: str) -> Iterator[_Piece]:
    start = 0
    for joint in (*_JOINT.finditer(text), None):
        end = joint.start() if joint else len(text)
        mark = joint[1].strip() if joint else ""
        if text[start:end].strip():
            yield _Piece(start, end + len(mark.rstrip(",;")), "?" in mark, mark[:1] in {".", "!", "?"})
        start = joint.end() if joint else end


def _mentions(text: str, names: Iterable[str]) -> bool:
    lowered = text.casefold()
    return any(name in lowered and re.search(rf"(?<!\w){re.escape(name)}s?(?!\w)", lowered) for name in names)

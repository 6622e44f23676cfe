"""The devices that a plain list of wishes names: "lock the door, heating to 19 and blinds down".

A small model loses one of three wishes. What such a list names, in full or by a word that only one device has ("outlet
off, kitchen on"), must be in the thought (grammar.Known.listed).

Does not guard against: devices named otherwise, or groups ("the lights"); languages other than English.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from edge_agent.agent.word_patterns import EXCEPTS, one_of
from edge_agent.grammar.thought_guide import only_meanings

_NOT_PLAIN = one_of(  # conditions, reasons, questions, corrections, an order
    "instead rather if when while whether until till whenever once before after because since so like as same"
    " match what which who how why where is are was were am has had did does already still wait actually sorry mean"
    " meant oops whoops scratch forget hang hold undo nope wrong rephrase changed pardon bad"
    " then first next finally afterwards? followed order step",
    r"['’](?:s|re|m)\b", r"\?", r"\bmake that\b",
)  # fmt: skip
_JOINT = r"[,;.!+&]+(?:\s|$)|\s(?:and|plus|also)\s"
_VERBS = "on off out up down open close shut lock unlock start stop turn switch set dim run water lower raise kill"
_BEFORE = re.compile(
    rf"(?:^|{_JOINT}|\b(?:both|please|{'|'.join(_VERBS.split())})\s)\s*(?:(?:the|my|our|your)\s)?$", re.IGNORECASE
)
_OTHERWISE = frozenset(  # words of names that are said of anything, as "well, ..."
    "well main front back right left top bottom upper lower inner outer old new big small little first second third"
    " last other one all up down on off in out close open dim stop lock run set".split()
)
_ALONE = rf"(?=\s+(?:{'|'.join(_VERBS.split())}|to|at|too|please|and|also)\b|\s*[,;.!]|\s*$)"  # no other noun follows
_DONE = one_of(f"{_VERBS} put brighter darker warmer cooler higher lower half\\w* fully", r"\d", r"\bto\b")


def listed_devices(text: str, whole: Collection[str], own: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the devices that a list of wishes names in full, as (name, device) in its order; none of anything else.

    Args:
        text: a request, its numbers as digits.
        whole: names of devices that can be moved, in small letters.
        own: what own_names makes of them.
    """
    if not is_plain(text):
        return ()
    found = sorted(_places(text.casefold(), own, whole))
    listed = {device: name for _, name, device in reversed(found)}
    in_order = tuple((name, device) for device, name in reversed(listed.items()))
    return in_order if len(in_order) > 1 else ()


def own_names(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the device of each name, and of the words that names begin and end with, if no other has it.

    Args:
        names: (name, device) of devices that can be moved, in small letters.
    """
    whole = list(names)
    words = {(word, device) for name, device in whole for word in (name.split()[0], name.split()[-1])}
    return only_meanings([*whole, *((word, device) for word, device in words if word not in _OTHERWISE)])


def is_plain(text: str) -> bool:
    """Return whether a request has no word of a condition, a question, a correction, an order or an exception."""
    return not (turns(text) or EXCEPTS.search(text))


def turns(text: str) -> bool:
    """Return whether a request has a word of a condition, a question, a correction or an order."""
    return bool(_NOT_PLAIN.search(text))


def clauses(text: str) -> list[str]:
    """Return the parts of a request between commas, full stops and "and"."""
    return [part for part in re.split(_JOINT, text) if part.strip()]


def _places(text: str, names: Mapping[str, str], whole: Collection[str]) -> Iterator[tuple[int, str, str]]:
    """Yield where each name stands by itself, longer ones first; what one has covered is not looked at again.

    It stands by itself at the start of its clause, or after a verb; and its clause, or the last, says what to do.
    """
    parts = clauses(text)
    for name in sorted(names, key=len, reverse=True):
        pattern = rf"(?<!\w){re.escape(name)}(?!\w){'' if name in whole else _ALONE}"
        for match in re.finditer(pattern, text):
            own = next((part for part in parts if re.search(pattern, part)), "")
            if _BEFORE.search(text[: match.start()]) and (_DONE.search(own) or _DONE.search(parts[-1])):
                yield match.start(), name, names[name]
        text = re.sub(pattern, lambda match: "_" * len(match[0]), text)

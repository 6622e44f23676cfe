"""The devices that a plain list of wishes names: "lock the door, heating to 19 and blinds down".

A small model loses one of three wishes. What such a list names in full must be in the thought (grammar.Known.listed).

Does not guard against: devices named in part, or groups ("the lights"); languages other than English.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

_NOT_PLAIN = re.compile(  # no, exceptions, conditions, reasons, questions, corrections, an order
    r"\b(?:not|no|never|without|except|but|apart|besides|other|others|rest|leave|keep|stays?|remains?|only|instead|rather"
    r"|if|unless|when|while|whether|until|till|whenever|once|before|after|because|since|so|like|as|than|same"
    r"|what|which|who|how|why|where|is|are|was|were|am|has|had|did|does|already|still"
    r"|wait|actually|sorry|mean|meant|oops|scratch|forget|hang|hold|undo"
    r"|then|first|next|finally|afterwards?|followed|order|step)\b|n['’]t\b|['’](?:s|re|m)\b|\?",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"(?:^|[,;.:+&!]|\b(?:the|my|our|your|and|also|plus|with|both|on|off|up|down|in|open|close|shut|lock|unlock|start"
    r"|stop|turn|switch|set|put|dim|run|water|get|make|have|lower|raise|kill|please))\s*$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"\s*(?:$|[,;.:+&!\d]|(?:to|at|on|off|up|down|and|also|plus|too|as well|please|open|closed?|shut|locked"
    r"|unlocked|half\w*|fully|all|should|needs?|must|goes|go|by|for|now|brighter|darker|warmer|cooler|higher|lower|lock"
    r"|unlock|start|stop|turn|switch|put|set|dim|run|raise|kill)\b)",
    re.IGNORECASE,
)


def listed_devices(text: str, names: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return the devices that a list of wishes names in full, as (name, device) in its order; none of anything else.

    Args:
        text: a request, its numbers as digits.
        names: (name, device) of devices that can be moved; what names several is left out.
    """
    if _NOT_PLAIN.search(text):
        return ()
    meant: dict[str, set[str]] = {}
    for name, device in names:
        meant.setdefault(name.casefold(), set()).add(device)
    found = sorted(_places(text.casefold(), {name: only for name, (only, *more) in meant.items() if not more}))
    listed = {device: name for _, name, device in reversed(found)}
    in_order = tuple((name, device) for device, name in reversed(listed.items()))
    return in_order if len(in_order) > 1 else ()


def _places(text: str, names: Mapping[str, str]) -> Iterator[tuple[int, str, str]]:
    """Yield where each name stands by itself, longer ones first; what one has covered is not looked at again."""
    for name in sorted(names, key=len, reverse=True):
        for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            if _BEFORE.search(text[: match.start()]) and _AFTER.match(text[match.end() :]):
                yield match.start(), name, names[name]
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda match: "_" * len(match[0]), text)

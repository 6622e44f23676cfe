"""Wishes of a few words for what was spoken of last: "2 degrees less", "half of that", "still too bright".

What they come to is told to the thought, for which a small model has only these few words.

Does not guard against: words used in another sense; languages other than English.
"""

from __future__ import annotations

import re

from edge_agent.agent.caution import is_for_later
from edge_agent.agent.word_patterns import ACTS, EXCEPTS, one_of

_LEAD = (
    r"(?:still|just|only|a bit|a little|slightly|much|way|far|even|that['’]?s|it['’]?s|ok|okay|no|hm+|and|please|both"
    r"|go|make (?:it|that|them))"
)
_END = r"(?:[ ,.!]+(?:please|then|now|again|thanks|for me))*[ .!]*"
_UP = "more|up|higher|warmer|hotter|brighter|louder|faster"
_DOWN = "less|down|lower|cooler|colder|darker|dimmer|quieter|slower"
_NUMBER = r"\d+(?:\.\d+)?"
_BY = rf"(?:by |another )?(?:(?:{_NUMBER}|an?|one) ?(?:degrees?|percent|%)|{_NUMBER})"
_THAT = r"(?:that|it|this|them|what it is(?: now)?)"
_HANGS = one_of("if unless when whenever once", r"\b(?:by|until|till|and|only|even|just|since|before|back) then\b")
_ENDS_IN_THEN = re.compile(  # after one clause
    r"((?:(?:ok|okay|well|right|no|yes|yeah|fine|alright|hm+|oh|good)[ ,.!]+)*[^,;.!?]+?)[ ,]+then([ .!]*)",
    re.IGNORECASE,
)
_NO = re.compile(r"\b(?:no|nah|nope)\b", re.IGNORECASE)


def _short(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{_LEAD}[ ,.!]+)*(?:{words}){_END}", re.IGNORECASE)


_DIRECTIONS = {
    "less": _short("too (?:bright|loud|fast|high|strong|noisy)|darker|dimmer|quieter|slower|lower"),
    "more": _short("too (?:dark|dim|quiet|slow|low|weak)|brighter|louder|faster|stronger|higher"),
}
_AMOUNTS = {
    way: _short(rf"{_BY}(?: (?:more|less|back))? (?:{one})|(?:back )?(?:{one}) {_BY}")
    for way, one in (("more", _UP), ("less", _DOWN))
}
_SHARES = {
    "half of it": _short(
        rf"half (?:of )?{_THAT}|halve {_THAT}|(?:cut |bring )?{_THAT} (?:in|by) half"
        r"|half as (?:much|bright|loud|high|fast|strong)"
    ),
    "twice": _short(
        rf"(?:twice|double|two times|2 times) (?:of )?{_THAT}|double|(?:twice|double) as (?:much|bright|loud|high|fast)"
    ),
    "half": _short(r"half ?way(?: (?:up|down|open))?"),
}


def without_then(text: str) -> str:
    """Return a request without the "then" that ends it and is no time: "60 percent then", not "until then"."""
    ends = _ENDS_IN_THEN.fullmatch(text)
    return text if ends is None or _HANGS.search(text) or is_for_later(text) else f"{ends[1]}{ends[2]}"


def direction_of(text: str) -> str:
    """Return `more` or `less`, if a request says nothing but that; else ""."""
    return next((way for way, pattern in _DIRECTIONS.items() if pattern.fullmatch(text.strip())), "")


def short_wish(text: str) -> str:
    """Return the wish of a request's last clause as thoughts name it: `2 less`, `half of it`; "" if it is another one.

    What comes before that clause may say nothing that is to be done. Args: text: with its numbers as digits.
    """
    *before, last = re.split(r"(?<=[.!?;,])\s+", text.strip())
    told = _NO.sub("", " ".join(before))
    if ACTS.search(told) or EXCEPTS.search(told) or re.search(r"\d", told):
        return ""
    for way, pattern in _AMOUNTS.items():
        if pattern.fullmatch(last):
            amount = re.search(_NUMBER, last)
            return f"{amount[0] if amount else 1} {way}"
    return next((wish for wish, pattern in _SHARES.items() if pattern.fullmatch(last)), "")

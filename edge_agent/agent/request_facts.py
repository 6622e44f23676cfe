"""What the words of a request settle for the thought about it: "off" without a number, the same again, no question.

A small model loses such words at times. Each rule holds where its words are there and none that could turn them; else
it settles nothing, and the model decides.

Does not guard against: words used in another sense ("lower" as a place's name); languages other than English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from devices.site.tools import Command
from edge_agent.wire.durations import only_duration_s
from edge_agent.wire.spelling import SiteWords


def _one_of(words: str, *patterns: str) -> re.Pattern[str]:
    """Return a pattern of words, each by itself, and of others that are patterns already."""
    return re.compile("|".join((rf"\b(?:{'|'.join(words.split())})\b", *patterns)), re.IGNORECASE)


_NOT = r"n['’]t\b|\b(?:do|does|did|is|are|was|were|ca|wo|would|could|should|must|has|have|had)nt\b"
_OFF = _one_of("off stop kill halt quit shut cut silence end")
_NOT_OFF = _one_of(
    "on up start more less lower higher faster slower max maximum min minimum full half low high",
    r"\d", r"\bdown (?:a|one)\b",
)  # fmt: skip
_AGAIN = _one_of("too also likewise ditto", r"\bas well\b", r"\bthe same\b", r"\bsame (?:for|in|with|again|there)\b")
_NOT_AGAIN = _one_of(
    r"on off up down open close shut lock unlock start stop turn switch put set run water raise lower dim more less"
    r" half bright\w* dark\w* warm\w* cool\w* cold\w* not what which who is are was how why when where if",
    r"\d", r"\btoo (?!please|actually|then|thanks)\w+", _NOT,
)  # fmt: skip
_ACTS = _one_of(
    "on off out up down turn switch put set open close shut lock unlock start stop run make dim lower raise bring get"
    " kill"
)
_ASKS = _one_of(  # what "turn the light on" has no word of, and a question about the state has
    r"what(?:['’]?s|ever)? which who(?:['’]?s|se|m)? how(?:['’]?s)? where why when is are was were am been do does did"
    r" has have had any(?:thing|one|body)? tell know say whether if or check look see show read status state report"
    r" wonder find list still already number position swear forgot\w* left hear info update value level reading temp\w*"
    r" sure curious name",
    r"\?", _NOT,
)  # fmt: skip
_EXCEPTS = _one_of(
    r"except\w* but apart besides bar other others than not no never without leave leaving keep only just stays?"
    r" remains? rest exclud\w* save minus spare skip alone aside exempt\w* ignore unless nor however yet",
    _NOT,
)
_LESS = _one_of("darker dimmer quieter slower lower", r"\btoo (?:bright|loud|fast|high|strong|noisy|quick)\b")
_MORE = _one_of("brighter louder faster stronger higher", r"\btoo (?:dark|dim|quiet|slow|low|weak|faint)\b")
_TURNED = _one_of(r"less not never colou?r cold\w* warm\w* clos\w* shut open\w*", _NOT)


class RequestFacts(NamedTuple):
    """What the words of a request settle.

    Attributes:
        duration_s: the only duration that it names.
        is_off: whether it wants something off, and neither on nor at some number.
        again: what was done last, if it wants the same with another device and says no more of it.
        is_wish: whether it wants something done: it has words for that, and none that a question about the state has.
        is_whole: whether it has no word of an exception.
        direction: `more` or `less`, if its words have a value go one way only.
        text: all of it, its numbers as digits.
    """

    duration_s: float | None = None
    is_off: bool = False
    again: tuple[Command, ...] = ()
    is_wish: bool = False
    is_whole: bool = False
    direction: str = ""
    text: str = ""


NOTHING_SAID = RequestFacts()


def facts_of_request(text: str, words: SiteWords, done: Sequence[Command] = ()) -> RequestFacts:
    """Return what a request settles.

    Args:
        text: with its numbers as digits.
        words: of the site.
        done: the last commands.
    """
    is_again = _AGAIN.search(text) and not _NOT_AGAIN.search(text)
    return RequestFacts(
        duration_s=only_duration_s(text, words),
        is_off=bool(_OFF.search(text)) and not _NOT_OFF.search(text),
        again=tuple(done) if is_again else (),
        is_wish=bool(_ACTS.search(text)) and not _ASKS.search(text),
        is_whole=bool(text) and not _EXCEPTS.search(text),
        direction=_direction(text),
        text=text,
    )


def _direction(text: str) -> str:
    is_less, is_more = bool(_LESS.search(text)), bool(_MORE.search(text))
    if is_less == is_more or _TURNED.search(text):
        return ""
    return "less" if is_less else "more"

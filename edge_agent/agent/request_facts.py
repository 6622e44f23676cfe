"""What the words of a request settle before a model reads it: a duration, "off", or "the same again".

The words are English; of other languages nothing is settled but durations in digits.

Does not guard against: "stop" of one device beside a wish for another that has numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from devices.site.tools import Command
from edge_agent.wire.durations import only_duration_s
from edge_agent.wire.spelling import SiteWords

_OFF = re.compile(r"\b(?:off|stop|kill|halt|quit|shut|cut|silence|end)\b", re.IGNORECASE)
_NOT_OFF = re.compile(
    r"\d|\b(?:on|up|start|more|less|lower|higher|faster|slower|max\w*|min\w*|full|half|low|high)\b|\bdown (?:a|one)\b",
    re.IGNORECASE,
)
_AGAIN = re.compile(r"\b(?:too|also|as well|the same|same (?:for|in|with|again|there)|likewise|ditto)\b", re.IGNORECASE)
_ELSE = re.compile(
    r"\d|\btoo (?!please|actually|then|thanks)\w+|\b(?:on|off|up|down|open|close|shut|lock|unlock|"
    r"start|stop|turn|switch|put|set|run|water|raise|lower|dim|more|less|half|bright\w*|dark\w*|warm\w*|cool\w*|cold\w*|"
    r"not|n't|what|which|who|is|are|was|how|why|when|where|if)\b",
    re.IGNORECASE,
)

_ASKS = re.compile(  # what "turn the light on" has no word of, and a question about the state has
    r"\?|\b(?:what(?:['’]?s|ever)?|which|who(?:['’]?s|se|m)?|how(?:['’]?s)?|where|why|when|is|are|was|were|am|been|do|does|did|has|have|had|any(?:thing|one|body)?|tell"
    r"|know|say|whether|if|or|check|look|see|show|read|status|state|report|wonder|find|list|still|already|number|position|swear"
    r"|\w+n['’]t|forgot\w*|left|hear|info|update|value|level|reading|temp\w*|sure|curious|name)\b",
    re.IGNORECASE,
)
_ACTS = re.compile(
    r"\b(?:on|off|out|up|down|turn|switch|put|set|open|close|shut|lock|unlock|start|stop|run|make|dim|lower|raise|bring"
    r"|get|kill)\b",
    re.IGNORECASE,
)

_EXCEPTS = re.compile(
    r"\b(?:except\w*|but|apart|besides|bar|other|others|than|not|no|never|without|leave|leaving|keep|only|just|stays?"
    r"|remains?|rest|excluding|exclud\w*|save|minus|spare|skip|alone|aside|exempt\w*|ignore|unless|nor|however|yet)\b|n['’]?t\b",
    re.IGNORECASE,
)

_LESS = re.compile(
    r"\btoo (?:bright|loud|fast|high|strong|noisy|quick)\b|\b(?:darker|dimmer|quieter|slower|lower(?! the| my| our))\b",
    re.IGNORECASE,
)
_MORE = re.compile(
    r"\btoo (?:dark|dim|quiet|slow|low|weak|faint)\b|\b(?:brighter|louder|faster|stronger|higher)\b", re.IGNORECASE
)
_TURNED = re.compile(r"\b(?:less|not|never|colou?r|cold\w*|warm\w*|clos\w*|shut|open\w*)\b|n['’]?t\b", re.IGNORECASE)


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
    is_whole = bool(text) and not _EXCEPTS.search(text)
    again, is_wish = tuple(done) if says_again(text) else (), bool(_ACTS.search(text)) and not _ASKS.search(text)
    return RequestFacts(only_duration_s(text, words), says_off(text), again, is_wish, is_whole, _direction(text), text)


def _direction(text: str) -> str:
    is_less, is_more = bool(_LESS.search(text)), bool(_MORE.search(text))
    if is_less == is_more or _TURNED.search(text):
        return ""
    return "less" if is_less else "more"


def says_off(text: str) -> bool:
    """Return whether a request wants something off, and neither on nor at some number."""
    return bool(_OFF.search(text)) and not _NOT_OFF.search(text)


def says_again(text: str) -> bool:
    """Return whether a request wants what was done last with something else, and says no more of it."""
    return bool(_AGAIN.search(text)) and not _ELSE.search(text)

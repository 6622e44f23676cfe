"""What the words of a request settle for the thought about it: "off" without a number, the same again, no question.

A small model loses such words at times. Each rule holds where its words are there and none that could turn them; else
it settles nothing, and the model decides.

Does not guard against: words used in another sense; languages other than English.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from devices.site.site import Site
from devices.site.tools import Command
from edge_agent.agent.plain_lists import clauses, is_plain, listed_devices, own_names, turns
from edge_agent.agent.short_wishes import direction_of, short_wish
from edge_agent.agent.word_patterns import ACTS, EXCEPTS, NOT, one_of
from edge_agent.grammar.thought_guide import SMALL_WORDS
from edge_agent.wire.durations import only_duration_s
from edge_agent.wire.spelling import NO_WORDS, SiteWords

_OFF = one_of("off stop stopped kill halt quit shut cut silence end")
_SWITCHED_OFF = one_of("off")
_NOT_OFF = one_of(
    "on up start run put set crank open close lock more less lower higher faster slower max maximum min minimum medium"
    " full half low high one two three four five if unless not never but keep keeps hands dim\\w* bright\\w* dark\\w*"
    " warm\\w* cool\\w* water\\w* heat\\w* play\\w* pause resume raise lift drop pull arm\\w* grip grab move back again"
    " undo mode sound volume turned switched went gone setting mute take takes taking",
    r"\d", r"\bdown (?:a|one)\b", r"\boff (?:the|my|our) (?:desk|table|floor|wall|way)\b", NOT,
)  # fmt: skip
_PUT_OUT = re.compile(r"\bput (?:\w+ ){0,4}?out\b", re.IGNORECASE)
_AGAIN = one_of("too also likewise ditto", r"\bas well\b", r"\bthe same\b", r"\bsame (?:for|in|with|again|there)\b")
_FILLERS = frozenset(
    "and also the same for with in do make it that this there too as well likewise ditto please thanks thank you oh ah"
    " hm hmm ok okay yes yeah yep now then actually just i want like would my our one ones room at to of thing again"
    " exactly could can we need good great fine next sorry so erm um uh me let s".split()
)
_ASKS = one_of(  # what "turn the light on" has no word of, and a question about the state has
    r"what(?:['’]?s|ever)? which who(?:['’]?s|se|m)? how(?:['’]?s)? where(?:['’]?s)? why when is are was were am been"
    r" do does did has have had any(?:thing|one|body)? tell know say whether if or check look see show read status"
    r" state report wonder find list still already number count position swear forgot\w* left hear info update value"
    r" level reading gauge target moisture temp\w* sure curious name right",
    r"\?", r"['’]s (?:on|off|open|closed|shut|locked)\b", NOT,
)  # fmt: skip
_ALL = one_of("all every each everything everywhere whole entire any")
_NOT_ALL = one_of("them those these again back indoors? outdoors? inside outside remaining upstairs downstairs")
_BOTH = one_of("both", r"\b(?:the|those|them) (?:2|two|pair)\b")
_IN_PLACE = re.compile(  # of what is to be moved; not "I am in the kitchen"
    r"\b(?:on|off|up|down|open|closed?|shut|lights?|lamps?|blinds|all|everything) in (?:the |my |our )?(\w+)",
    re.IGNORECASE,
)
_COVERS = "door|gate|blind|curtain|shutter|window|awning"  # "doors" are not all covers
_CLASSES = re.compile(rf"\b(?:({_COVERS})s|(?:every|each|any) ({_COVERS}))\b", re.IGNORECASE)
_LEVEL = re.compile(
    r"\b(?:on|at|to)(?: the)? (low|medium|high)(?:est)?(?: (?:speed|setting|level))?"
    r"(?=\s*(?:[,.;!]|$)|\s+(?:and|please|then|now)\b)",
    re.IGNORECASE,
)
_NO_LEVEL = one_of("still only even already too", r"\d")
_EXCEPT = one_of("except excluding besides", r"\b(?:apart from|other than|but not|all but|with the exception of)\b")
_CONDITION = one_of("if unless when while not never", NOT)


class RequestFacts(NamedTuple):
    """What the words of a request settle.

    Attributes:
        duration_s: the only duration that it names.
        off: the devices that it wants off, or stopped, where it names no number.
        switched_off: those that it wants "off" by that word.
        again: what was done last, if it says nothing but a device and that it wants the same.
        is_wish: whether it has words for doing something, and none that a question about the state has.
        is_whole: whether it is about all, and has neither a word of an exception nor a device's name.
        direction: `more` or `less`, if it says nothing but that.
        short_wish: what it wishes of what was spoken of last, as thoughts name it, if it says nothing but that.
        there: devices that are called after the place in which it wants something moved, or that are "doors" and such.
        is_except: whether it wants one thing of all of a kind but for some.
        listed: (name, device) of each device that a plain list of wishes names, or that "both" are.
        named: devices of which it has a name, or a word that no other device has.
        level: `low`, `medium` or `high`, if it wants something at that.
    """

    duration_s: float | None = None
    off: tuple[str, ...] = ()
    switched_off: tuple[str, ...] = ()
    again: tuple[Command, ...] = ()
    is_wish: bool = False
    is_whole: bool = False
    direction: str = ""
    short_wish: str = ""
    there: tuple[str, ...] = ()
    is_except: bool = False
    listed: tuple[tuple[str, str], ...] = ()
    named: tuple[str, ...] = ()
    level: str = ""


NOTHING_SAID = RequestFacts()


def facts_of_request(
    text: str, site: Site, words: SiteWords = NO_WORDS, done: Sequence[Command] = (), recent: Sequence[str] = ()
) -> RequestFacts:
    """Return what a request settles.

    Args:
        text: with its numbers as digits.
        site: whose devices it may name.
        words: of the site.
        done: the last commands.
        recent: devices that were spoken of last: what "both" are, if there are two.
    """
    movable = {one.name: one.names for one in site.devices.values() if one.actions}
    named = {word for one in site.devices.values() for name in one.names for word in name.casefold().split()}
    said = re.findall(r"[^\W_]+", text.casefold())
    is_again = bool(_AGAIN.search(text)) and {*said} <= named | _FILLERS
    called = [(name.casefold(), device) for device, names in movable.items() for name in names]
    own = own_names(called)
    listed = listed_devices(text, {name for name, _ in called}, own)
    is_settled = is_plain(text)
    is_of_both = len(recent) == 2 and bool(_BOTH.search(text)) and is_settled and not _nouns(said) & _nouns(named)
    is_of_all = _ALL.search(text) and not EXCEPTS.search(text) and not _NOT_ALL.search(text)
    return RequestFacts(
        duration_s=only_duration_s(text, words),
        off=tuple(_off(text, movable, _OFF)),
        switched_off=tuple(_off(text, movable, _SWITCHED_OFF)) if is_settled else (),
        again=tuple(done) if is_again else (),
        is_wish=bool(ACTS.search(text)) and not _ASKS.search(text),
        is_whole=bool(is_of_all) and not any(_names(text, one.names) for one in site.devices.values()),
        direction=direction_of(text),
        short_wish=short_wish(text),
        there=tuple(_called_after(_places_in(text.casefold()), movable)),
        is_except=_is_except(text, site),
        listed=listed or (tuple((one, one) for one in recent) if is_of_both else ()),
        named=tuple(dict.fromkeys(device for name, device in own.items() if _names(text, (name,)))),
        level=_level(text),
    )


def _level(text: str) -> str:
    """Return the only level that a request wants something at; "" if it names a number, or complains."""
    said = {found.casefold() for found in _LEVEL.findall(text)}
    return said.pop() if len(said) == 1 and not _NO_LEVEL.search(text) else ""


def _off(text: str, movable: Mapping[str, Sequence[str]], off: re.Pattern[str]) -> list[str]:
    """Return the devices that are to be off: all if a request has no other words, or those of clauses that say so.

    Args:
        text: of the request.
        movable: names of each device that may be meant.
        off: words for it.
    """
    text = _PUT_OUT.sub("off", text)
    if not off.search(text) or _CONDITION.search(text):
        return []
    parts = clauses(text)
    found = {device: [one for one in parts if _names(one, names)] for device, names in movable.items()}
    if not _NOT_OFF.search(text):
        return list(found)
    return [device for device, own in found.items() if any(off.search(one) and not _NOT_OFF.search(one) for one in own)]


def _places_in(text: str) -> set[str]:
    """Return the words of places and of classes of covers that a request wants moved, and not what it leaves out."""
    moved = _EXCEPT.split(text)[0]
    return {*_IN_PLACE.findall(moved), *(word for found in _CLASSES.findall(text) for word in found if word)}


def _called_after(words: Collection[str], names: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the devices whose names have one of some words in them."""
    return [one for one, own in names.items() if _nouns(words) & _nouns(" ".join(own).casefold().split())]


def _is_except(text: str, site: Site) -> bool:
    """Return whether a request is about several devices of one kind, by a noun that they share, but for some."""
    if (but := _EXCEPT.search(text)) is None or turns(text) or _CONDITION.search(_EXCEPT.sub("", text)):
        return False
    before = text[: but.start()].casefold()
    kinds: dict[str, list[str]] = {}
    for one in site.devices.values():
        if one.actions:
            for noun in {name.split()[-1].casefold() for name in one.names}:
                kinds.setdefault(noun, []).append(one.kind)
    shared = [noun for noun, of in kinds.items() if len(of) > 1 and len({*of}) == 1]
    is_group = any(re.search(rf"\b{re.escape(noun)}(?:s|es)\b", text.casefold()) for noun in shared)
    return is_group and len(clauses(before)) < 2 and not any(_names(before, one.names) for one in site.devices.values())


def _nouns(words: Iterable[str]) -> set[str]:
    """Return words that tell things apart, without a plural's s."""
    return {one.removesuffix("s") for one in words} - SMALL_WORDS


def _names(text: str, names: Iterable[str]) -> bool:
    lowered = text.casefold()  # looked at first: a large site has more names than patterns are kept compiled
    return any(
        name.casefold() in lowered and re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) for name in names
    )

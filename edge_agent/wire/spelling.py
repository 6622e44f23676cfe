"""How a request is spelled for the model: as training spells it, wherever the capitals that were typed carry nothing.

A request in capitals, or With Every Word In One, is written small but for its first letter and "I". What the site calls
a device is spelled as the site spells it, and its own words are small in any request (`turn it OFF`). All else is left:
quoted words, words with a digit or an underscore, and, where not all is in capitals, those that are (`Turn On The TV`).
The length never changes.

Does not guard against: an abbreviation in capitals among capitals, unless a name of the site has it; one of other words
in capitals (`turn it on NOW`), which may be an abbreviation; languages in which "i" is a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from devices.site.site import Site
from devices.site.tools import Tool

SHOUTED_SHARE = 0.75  # of the letters beside names: a word may be small
TIME_UNITS = ("minutes", "seconds")
SHOUTED_LETTERS = 4  # at least, with names: less is an abbreviation
_QUOTED = r"""(?<!\w)'[^']{0,99}'(?!\w)|"[^"]{0,99}"|`[^`]{0,99}`|“[^”]{0,99}”|„[^“”]{0,99}[“”]|«[^»]{0,99}»"""
_CODE = r"(?<![\w-])[\w-]*[\d_][\w-]*"
_ARTICLE = re.compile(r"\s+(?:the|my|our|your)\b", re.IGNORECASE)
_WORD = r"[^\W\d_]+(?:['’][^\W\d_]+)*"


@dataclass(frozen=True)
class SiteWords:
    """What a site has words for.

    Attributes:
        names: of devices, areas, floors, groups and scenes, as it spells them.
        own: the small words of names and actions.
        areas: each area's devices, as a state is written: "" has those in none; empty for a site without areas.
        kinds: of each device of which a tool says no more than its kind.
        time_units: in which tools take a duration: of TIME_UNITS.
        largest: the largest number that a tool takes which has no unit, as that of an order, or is in millimetres.
    """

    names: tuple[str, ...] = ()
    own: frozenset[str] = frozenset()
    areas: tuple[tuple[str, tuple[str, ...]], ...] = ()
    kinds: tuple[tuple[str, str], ...] = ()
    time_units: tuple[str, ...] = ()
    largest: int = 0


NO_WORDS = SiteWords()


def words_of(site: Site, tools: Sequence[Tool]) -> SiteWords:
    """Return the words of a site with its tools."""
    places = [place for kind in (site.floors, site.areas, site.groups, site.scenes) for place in kind.values()]
    called = [name for device in site.devices.values() for name in device.names]
    called += [name for place in places for name in (place.title, *place.aliases)]
    names = tuple(dict.fromkeys(called))
    texts = [*names]
    for device in site.devices.values():
        texts += device.actions
        texts += [word for one in device.properties.values() for word in (*one.labels.values(), *one.states)]
    own = frozenset(word for text in texts for word in re.split(r"[\W_]+", text) if word.islower() and len(word) > 1)
    by_area: dict[str, list[str]] = {area: [] for area in ("", *site.areas)}
    for device in site.devices.values():
        by_area[device.area].append(device.name)
    placed = by_area.items() if site.targets else ()
    areas = tuple((area, tuple(devices)) for area, devices in placed if devices)
    by_kind = {tool.kind for tool in tools if tool.targets}
    kinds = tuple((device.name, device.kind) for device in site.devices.values() if device.kind in by_kind)
    taken = [schema for tool in tools for schema in tool.input.values()]
    time_units = tuple(unit for unit in TIME_UNITS if unit in {schema.unit for schema in taken})
    numbers = [schema for schema in taken if schema.unit in ("", "millimetres")]
    largest = max((int(schema.maximum) for schema in numbers if schema.maximum is not None), default=0)
    return SiteWords(names, own, areas, kinds, time_units, largest)


def usual_spelling(text: str, words: SiteWords = NO_WORDS) -> str:
    """Return what a person typed as the model sees it. Args: words: of the site."""
    pattern, spelled = _parts(words.names)
    style = _style_of(list(pattern.finditer(text)))

    def respell(match: re.Match[str]) -> str:
        part, sort = match.group(), match.lastgroup
        is_verb = _ARTICLE.match(text, match.end())  # "close the blinds", whatever else is called Close
        if sort == "name" and not is_verb and _small(part) in spelled:
            return spelled[_small(part)]
        is_own, is_loud = _small(part) in words.own, len(part) > 1 and part.isupper()
        is_idle = {"shouted": True, "title": is_own or not is_loud, "usual": is_own and is_loud}[style]
        return _small(part) if is_idle and sort not in {"quoted", "code"} else part

    respelled = pattern.sub(respell, text)
    first = next((at for at, letter in enumerate(text) if letter.isalpha()), len(text))
    is_capital = text[first : first + 1].isupper()
    return respelled[:first] + text[first] + respelled[first + 1 :] if is_capital else respelled


def protected_parts(text: str, words: SiteWords = NO_WORDS) -> list[tuple[int, int]]:
    """Return where in a request names of the site, quoted words and codes stand: from, and up to."""
    found = _parts(words.names)[0].finditer(text)
    return [match.span() for match in found if match.lastgroup in {"quoted", "name", "code"}]


def _style_of(parts: Sequence[re.Match[str]]) -> Literal["shouted", "title", "usual"]:
    """Return how a text is written, by its words beside names: those may have any letters."""
    words = [part.group() for part in parts if part.lastgroup == "word"]
    letters = [letter for word in words for letter in word if letter.lower() != letter.upper()]
    with_names = sum(len(part.group()) for part in parts if part.lastgroup in {"word", "name"})
    if with_names >= SHOUTED_LETTERS and sum(map(str.isupper, letters)) >= SHOUTED_SHARE * len(letters):
        return "shouted"
    return "title" if len(parts) > 1 and all(word[0].isupper() for word in words) else "usual"


def _small(word: str) -> str:
    """Return a word in small letters, as many as it has: only İ has a small form of two characters in Unicode."""
    small = word.replace("İ", "i").lower()
    return f"I{small[1:]}" if re.match(r"i(?!\w)", small) else small


@lru_cache(maxsize=16)
def _parts(names: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return a pattern for what is spelled as one, and the site's spelling of each name by its small letters."""
    longest_first = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)"
    pattern = rf"(?P<quoted>{_QUOTED})|(?P<name>(?<!\w)(?:{longest_first})(?!\w))|(?P<code>{_CODE})|(?P<word>{_WORD})"
    return re.compile(pattern, re.IGNORECASE), {_small(name): name for name in reversed(names)}

"""How a request is spelled for the model: as training spells it, wherever the capitals that were typed carry nothing.

A request in capitals, or With Every Word In One, is written small but for its first letter and "I". What the site calls
a device is spelled as the site spells it. All else is left as it is, and so are quoted words, words with a digit or an
underscore, and, where not all is in capitals, those that are (`Turn On The TV`). The length never changes.

Does not guard against: capitals in a part of a request (`turn it OFF`), which may be what somebody means to say; an
abbreviation in capitals among capitals, unless a name of the site has it; languages in which "i" is a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from devices.site import Site

SHOUTED_SHARE = 0.75  # of the letters beside names: a word may be small
SHOUTED_LETTERS = 4  # at least, with names: less is an abbreviation
_QUOTED = r"""(?<!\w)'[^']{0,99}'(?!\w)|"[^"]{0,99}"|`[^`]{0,99}`|“[^”]{0,99}”|„[^“”]{0,99}[“”]|«[^»]{0,99}»"""
_CODE = r"(?<![\w-])[\w-]*[\d_][\w-]*"
_WORD = r"[^\W\d_]+(?:['’][^\W\d_]+)*"


def names_of(site: Site) -> tuple[str, ...]:
    """Return everything that the site's devices are called."""
    return tuple(dict.fromkeys(name for device in site.devices.values() for name in device.names))


def usual_spelling(text: str, names: tuple[str, ...] = ()) -> str:
    """Return what a person typed as the model sees it. Args: names: of the site's devices, as it spells them."""
    pattern, spelled = _parts(names)
    style = _style_of(list(pattern.finditer(text)))

    def respell(match: re.Match[str]) -> str:
        part, sort = match.group(), match.lastgroup
        if sort == "name" and _small(part) in spelled:
            return spelled[_small(part)]
        is_abbreviation = style == "title" and len(part) > 1 and part.isupper()
        return part if style == "usual" or sort in {"quoted", "code"} or is_abbreviation else _small(part)

    respelled = pattern.sub(respell, text)
    first = next((at for at, letter in enumerate(text) if letter.isalpha()), len(text))
    is_capital = text[first : first + 1].isupper()
    return respelled[:first] + text[first] + respelled[first + 1 :] if is_capital else respelled


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

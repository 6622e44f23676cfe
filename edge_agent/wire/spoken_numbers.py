"""Numbers in words as digits, for the model: "twenty two" is 22, wherever it is no name.

Numbers below three stay words unless a unit follows ("the other one", "both of the two"), as do fractions and ordinals
("three quarters").

Does not guard against: languages other than English; times ("half past ten" is "half past 10").
"""

from __future__ import annotations

import re

from text_to_num import alpha2digit

from edge_agent.wire.spelling import NO_WORDS, SiteWords, protected_parts

# fractions, and ordinals, which are fractions too ("a third")
_KEPT = re.compile(
    r"\b(?:(?:three|two) )?(?:quarters?|(?:thir|four|fif|six|seven|eigh|nin|ten|\w+teen|\w+tie)(?:d|th)s?)\b", re.I
)
_SMALL = re.compile(r"\b(one|two)(?= (?:degrees?|percent|minutes?|seconds?|hours?|euros?|steps?|notch(?:es)?)\b)", re.I)
_AND_A_HALF = re.compile(r"\b(\d+) and a half\b", re.IGNORECASE)
_A_HUNDRED = re.compile(r"\ba (1\d{2,3})\b", re.IGNORECASE)  # "a hundred and five" is "a 105"


def with_digits(text: str, words: SiteWords = NO_WORDS) -> str:
    """Return a request with its spoken numbers in digits; names of the site, quoted words and codes stay.

    Args:
        text: as usual_spelling returns it.
        words: of the site.
    """
    kept = [*protected_parts(text, words), *(match.span() for match in _KEPT.finditer(text))]
    parts, end = [], 0
    for start, stop in sorted(kept):
        if start >= end:
            parts += [_digits(text[end:start]), text[start:stop]]
            end = stop
    return _AND_A_HALF.sub(r"\1.5", "".join([*parts, _digits(text[end:])]))


def _digits(text: str) -> str:
    if not re.search(r"[^\W\d_]{3}", text):  # no number is shorter
        return text
    start, stop = len(text) - len(text.lstrip()), len(text.rstrip())  # alpha2digit loses blanks at the ends
    found = _A_HUNDRED.sub(r"\1", alpha2digit(text[start:stop], "en"))
    found = _SMALL.sub(lambda number: "1" if number[0].lower() == "one" else "2", found)
    return f"{text[:start]}{found}{text[stop:]}" if stop > start else text

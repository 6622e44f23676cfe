"""Numbers in words as digits, for the model: "twenty two" is 22, wherever it is no name.

Numbers below three stay words unless a unit follows ("the other one", "both of the two"), as do fractions and ordinals
("three quarters"). Where a tool takes numbers of three digits or more, as of an order, those may be said digit by digit
or in pairs: "five seven one", "eight-oh-six", "seventy sixty-one".

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
_HALF_A_DEGREE = re.compile(r"\b(?:a )?half a degree\b", re.IGNORECASE)
_AND_A_HALF = re.compile(r"\b(\d+) and a half\b", re.IGNORECASE)
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
WORDS_UP_TO = 9999
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {word: 10 * at for at, word in enumerate(TENS)} | {word: value for value, word in enumerate(ONES)}
_DIGIT = rf"(?:{'|'.join(ONES[1:10])})(?!\w)"
_PAIR = rf"(?:(?:{'|'.join(TENS[2:])})(?:[ -]{_DIGIT})?|{'|'.join(ONES[10:])}|(?:oh|o|zero)[ -]{_DIGIT})"
_SPELLED = re.compile(
    r"(?<!\w)(?P<time>(?:at|by|past|until|till|around|about|before|after|from|since) )?"
    rf"(?:{_DIGIT}(?:[ -](?:{_DIGIT}|oh|o|zero)){{2,5}}|(?:{_PAIR}|{_DIGIT})[ -]{_PAIR})"
    r"(?!\w|[ -](?:hundred|thousand|minutes?|seconds?|hours?|percent|degrees?|euros?)\b)",
    re.IGNORECASE,
)
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
            parts += [_digits(_joined(text[end:start], words.largest)), text[start:stop]]
            end = stop
    return _AND_A_HALF.sub(r"\1.5", "".join([*parts, _digits(_joined(text[end:], words.largest))]))


def number_words(number: int) -> str:
    """Return a whole number from 0 to 9,999 in words: "one hundred and five"."""
    if not 0 <= number <= WORDS_UP_TO:
        return str(number)
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = number % size
    joint = " and " if 0 < rest < 100 else " "
    return f"{ONES[number // size]} {name}" + (joint + number_words(rest) if rest else "")


def _joined(text: str, largest: int) -> str:
    """Return a text with numbers of three digits or more that are said digit by digit, or in pairs, in digits."""

    def written(match: re.Match[str]) -> str:
        number = ""
        for pair in re.findall(rf"{_PAIR}|{_DIGIT}|zero|oh|o", match[0], re.IGNORECASE):
            parts = [_VALUES.get(word.lower(), 0) for word in re.split("[ -]", pair)]
            has_two = len(parts) > 1 or parts[0] > 9
            number += f"{sum(parts):02}" if has_two else str(parts[0])
        return match[0] if match["time"] or int(number) > largest else number

    return _SPELLED.sub(written, text) if largest > 99 else text


def _digits(text: str) -> str:
    if not re.search(r"[^\W\d_]{3}", text):  # no number is shorter
        return text
    start, stop = len(text) - len(text.lstrip()), len(text.rstrip())  # alpha2digit loses blanks at the ends
    found = _A_HUNDRED.sub(r"\1", alpha2digit(text[start:stop], "en"))
    found = _HALF_A_DEGREE.sub("0.5 degrees", found)
    found = _SMALL.sub(lambda number: "1" if number[0].lower() == "one" else "2", found)
    return f"{text[:start]}{found}{text[stop:]}" if stop > start else text

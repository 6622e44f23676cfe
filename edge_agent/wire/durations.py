"""Durations as the site's tools count them, for the model: "two minutes" is "2 minutes (120 seconds)" for a pump.

Small models copy numbers well and multiply them badly. Only whole numbers of a smaller unit that a tool of the site
takes are added; what was said stays.

Does not guard against: sums ("a minute and ten seconds"); languages other than English.
"""

from __future__ import annotations

import re

from edge_agent.wire.spelling import NO_WORDS, SiteWords, protected_parts

SECONDS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600}
_SHARES = {"half": 0.5, "quarter": 0.25, "three quarters": 0.75}
_DURATION = re.compile(
    r"(?<![\w.])(?:(?P<number>\d{1,4}(?:\.\d{1,2})?)[ -]?|(?:a |one )?(?P<share>three quarters|half|quarter)"
    r" (?:of )?an? |(?P<one>an?|one|a whole|a full) )(?P<unit>second|sec|minute|min|hour|hr)s?"
    r"(?P<and_a_half> and a half)?(?!\w)",
    re.IGNORECASE,
)
_MOMENT = re.compile(
    r"\b(?:in|after|wait|within|every|next|last|first|another)(?: (?:about|around|the))? $", re.IGNORECASE
)
_LASTING = re.compile(r"\bfor $", re.IGNORECASE)


def with_smaller_units(text: str, words: SiteWords = NO_WORDS) -> str:
    """Return a request whose minutes and hours are also in the smaller units that the site's tools take.

    Args:
        text: as with_digits returns it.
        words: of the site.
    """
    kept = protected_parts(text, words) if words.time_units else []

    def explained(match: re.Match[str]) -> str:
        if _is_kept(match, kept):
            return match[0]
        seconds = _seconds(match)
        smaller = [one for one in words.time_units if SECONDS[one[:-1]] < SECONDS[match["unit"].lower()]]
        shown = [f"{seconds / SECONDS[one[:-1]]:g} {one}" for one in smaller if seconds % SECONDS[one[:-1]] == 0]
        return f"{match[0]} ({', '.join(shown)})" if shown else match[0]

    return _DURATION.sub(explained, text) if words.time_units else text


def only_duration_s(text: str, words: SiteWords = NO_WORDS) -> float | None:
    """Return the seconds of a duration that is the only number of a request, and how long something is to last.

    None if there is another number, or if it may be a moment ("in 10 minutes") or no duration ("one sec", "a second").

    Args:
        text: as with_digits returns it.
        words: of the site.
    """
    kept = protected_parts(text, words)
    found = [one for one in _DURATION.finditer(text) if not _is_kept(one, kept)]
    if len(found) != 1:
        return None
    (only,) = found
    said, after = text[: only.start()], text[only.end() :]
    if _MOMENT.search(said) or (only["one"] and not _LASTING.search(said)) or re.search(r"\d", said + after):
        return None
    return _seconds(only)


def _is_kept(match: re.Match[str], kept: list[tuple[int, int]]) -> bool:
    """Return whether a match is of a name, a code or quoted words."""
    return any(start < match.end() and match.start() < end and not _holds(match, start, end) for start, end in kept)


def _seconds(match: re.Match[str]) -> float:
    amount = float(match["number"] or _SHARES.get((match["share"] or "").lower(), 1))
    return (amount + (0.5 if match["and_a_half"] else 0)) * SECONDS[match["unit"].lower()]


def _holds(match: re.Match[str], start: int, end: int) -> bool:
    """Return whether a part lies within a match: "10min" is a code, and a duration."""
    return match.start() <= start and end <= match.end()

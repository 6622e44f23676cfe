"""Patterns of English words that rules about requests share."""

from __future__ import annotations

import re


def one_of(words: str, *patterns: str) -> re.Pattern[str]:
    """Return a pattern of words, each by itself, and of others that are patterns already."""
    return re.compile("|".join((rf"\b(?:{'|'.join(words.split())})\b", *patterns)), re.IGNORECASE)


NOT = r"n['’]t\b|\b(?:do|does|did|is|are|was|were|ca|wo|would|could|should|must|has|have|had)nt\b"
ACTS = one_of("on off out up down turn switch set open close shut lock unlock start stop dim lower raise kill")
EXCEPTS = one_of(
    r"e?xcept\w* exept\w* but apart besides bar other others than not no never nevermind without leave leaving keep"
    r" keeping only just stays? remain\w* rest exclud\w* save minus less spar\w+ skip alone aside exempt\w* ignore"
    r" unless nor however yet hands nothing",
    NOT,
)

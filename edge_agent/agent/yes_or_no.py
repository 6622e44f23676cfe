"""A plain yes or a plain no, in answer to a question; everything else is a request of its own."""

from __future__ import annotations

import re

_YES = re.compile(
    r"\W*(?:(?:yes|yeah|yep|yup|y|sure|ok|okay|right|that's right|correct|exactly|confirmed|confirm|go ahead|do it"
    r"|yes do it|please do|i confirm)\b\W*)+(?:please|do it|go ahead|i am sure|i'm sure|i do|thanks|thank you)?\W*",
    re.IGNORECASE,
)
_NO = re.compile(
    r"\W*(?:(?:no|nope|nah|n|cancel|don't|do not|never mind|leave it|better not)\b\W*)+(?:thanks|thank you|please)?\W*",
    re.IGNORECASE,
)
LEFT = "I left it as it was."  # what is said after a no


def said_yes(answer: str) -> bool | None:
    """Return whether an answer is a yes, or a no; None if it is neither."""
    if _YES.fullmatch(answer):
        return True
    return False if _NO.fullmatch(answer) else None
